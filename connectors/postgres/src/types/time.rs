//! Pure. Dates and times as PostgreSQL prints them in ISO style, and back. Years beyond 9999, BC, ±infinity.

use std::fmt::Write as _;

const DAY_MICROS: i64 = 86_400_000_000;
/// Microseconds from 1970-01-01 to 2000-01-01, where the binary format counts from.
pub const EPOCH_2000_MICROS: i64 = 946_684_800_000_000;

/// Whether the text carries `+00`: sessions of ours run in UTC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Zone {
    None,
    Utc,
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar (year 0 = 1 BC).
/// Source: Howard Hinnant, "chrono-compatible low-level date algorithms".
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let of_era = y.rem_euclid(400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let of_era = z.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let m = (5 * of_year + 2) / 153;
    let day = of_year - (153 * m + 2) / 5 + 1;
    let month = if m < 10 { m + 3 } else { m - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn number(text: &str) -> Option<i64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// `2024-02-29`, `10000-01-01`, `0044-03-15 BC`, `infinity`.
pub fn parse_date(text: &str) -> Option<i32> {
    match text {
        "infinity" => return Some(i32::MAX),
        "-infinity" => return Some(i32::MIN),
        _ => {}
    }
    let (text, bc) = match text.strip_suffix(" BC") {
        Some(t) => (t, true),
        None => (text, false),
    };
    i32::try_from(days(text, bc)?).ok()
}

fn days(text: &str, bc: bool) -> Option<i64> {
    let mut parts = text.split('-');
    let (y, m, d) = (number(parts.next()?)?, number(parts.next()?)?, number(parts.next()?)?);
    if parts.next().is_some() || !(1..=12).contains(&m) || !(1..=31).contains(&d) || y > 6_000_000 {
        return None;
    }
    Some(days_from_civil(if bc { 1 - y } else { y }, m, d))
}

/// `23:59:59.999999`; 24:00:00 is legal. Microseconds.
pub fn parse_time(text: &str) -> Option<i64> {
    let mut parts = text.split(':');
    let (h, m, s) = (number(parts.next()?)?, number(parts.next()?)?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let micros = seconds(s)?;
    (h <= 24 && m <= 59).then_some((h * 60 + m) * 60_000_000 + micros).filter(|t| *t <= DAY_MICROS)
}

/// `59.123456` → microseconds; more than six digits are refused.
fn seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.len() > 6 {
        return None;
    }
    let scale = 10i64.pow(6 - fraction.len() as u32);
    Some(number(whole)?.checked_mul(1_000_000)? + number(fraction)? * scale)
}

/// `2024-02-29 12:00:00.5`, with `+00` in [`Zone::Utc`]. `None` also for what leaves the range of i64 microseconds.
pub fn parse_timestamp(text: &str, zone: Zone) -> Option<i64> {
    usual_timestamp(text.as_bytes(), zone).or_else(|| any_timestamp(text, zone))
}

/// One of the years 0000 to 9999, as nearly all are, each digit read where it stands; `None` = it is none, or out of range.
fn usual_timestamp(text: &[u8], zone: Zone) -> Option<i64> {
    let text = match zone {
        Zone::None => text,
        Zone::Utc => text.strip_suffix(b"+00")?,
    };
    let (head, fraction) = text.split_first_chunk::<19>()?;
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b' ', h0, h1, b':', n0, n1, b':', s0, s1] = *head else {
        return None;
    };
    let (year, month, day) = (digits(&[y0, y1, y2, y3])?, digits(&[m0, m1])?, digits(&[d0, d1])?);
    let (hour, minute, second) = (digits(&[h0, h1])?, digits(&[n0, n1])?, digits(&[s0, s1])?);
    let micros = match fraction {
        [] => 0,
        [b'.', fraction @ ..] if (1..=6).contains(&fraction.len()) => {
            digits(fraction)? * 10i64.pow(6 - fraction.len() as u32)
        }
        _ => return None,
    };
    let is_usual = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 60;
    let clock = ((hour * 60 + minute) * 60 + second) * 1_000_000 + micros;
    is_usual.then(|| days_from_civil(year, month, day) * DAY_MICROS + clock)
}

/// A few digits and nothing else.
fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |number, b| b.is_ascii_digit().then(|| number * 10 + i64::from(b - b'0')))
}

fn any_timestamp(text: &str, zone: Zone) -> Option<i64> {
    match text {
        "infinity" => return Some(i64::MAX),
        "-infinity" => return Some(i64::MIN),
        _ => {}
    }
    let (text, bc) = match text.strip_suffix(" BC") {
        Some(t) => (t, true),
        None => (text, false),
    };
    let (date, clock) = text.split_once(' ')?;
    let clock = match zone {
        Zone::None => clock,
        Zone::Utc => clock.strip_suffix("+00")?,
    };
    days(date, bc)?.checked_mul(DAY_MICROS)?.checked_add(parse_time(clock)?)
}

/// Interval style postgres: `1 year 2 mons -3 days +04:05:06.789`.
pub fn parse_interval(text: &str) -> Option<(i32, i32, i64)> {
    let (mut months, mut days, mut micros) = (0i64, 0i64, 0i64);
    let mut words = text.split(' ');
    let mut any = false;
    while let Some(word) = words.next() {
        any = true;
        if word.contains(':') {
            let (sign, clock) = match word.as_bytes().first()? {
                b'-' => (-1i64, &word[1..]),
                b'+' => (1, &word[1..]),
                _ => (1, word),
            };
            let mut parts = clock.split(':');
            let (h, m, s) = (number(parts.next()?)?, number(parts.next()?)?, seconds(parts.next()?)?);
            if parts.next().is_some() || words.next().is_some() {
                return None;
            }
            // i128: hours may be anything that fits into i64 microseconds only together with the sign.
            let all = i128::from(sign) * ((i128::from(h) * 60 + i128::from(m)) * 60_000_000 + i128::from(s));
            micros = i64::try_from(all).ok()?;
            break;
        }
        let n: i64 = word.parse().ok()?;
        match words.next()? {
            "year" | "years" => months = months.checked_add(n.checked_mul(12)?)?,
            "mon" | "mons" => months = months.checked_add(n)?,
            "day" | "days" => days = n,
            _ => return None,
        }
    }
    any.then_some(())?;
    Some((i32::try_from(months).ok()?, i32::try_from(days).ok()?, micros))
}

fn write_date(out: &mut String, days: i64) -> bool {
    let (y, m, d) = civil_from_days(days);
    let (shown, bc) = if y <= 0 { (1 - y, true) } else { (y, false) };
    let _ = write!(out, "{shown:04}-{m:02}-{d:02}");
    bc
}

pub fn print_date(days: i32) -> String {
    match days {
        i32::MAX => return "infinity".into(),
        i32::MIN => return "-infinity".into(),
        _ => {}
    }
    let mut out = String::new();
    if write_date(&mut out, i64::from(days)) {
        out.push_str(" BC");
    }
    out
}

fn write_clock(out: &mut String, micros: u64) {
    let (s, frac) = (micros / 1_000_000, micros % 1_000_000);
    let _ = write!(out, "{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
    if frac != 0 {
        let digits = format!("{frac:06}");
        let _ = write!(out, ".{}", digits.trim_end_matches('0'));
    }
}

pub fn print_time(micros: i64) -> String {
    let mut out = String::new();
    write_clock(&mut out, micros.max(0) as u64);
    out
}

pub fn print_timestamp(micros: i64, zone: Zone) -> String {
    match micros {
        i64::MAX => return "infinity".into(),
        i64::MIN => return "-infinity".into(),
        _ => {}
    }
    print_at(micros.div_euclid(DAY_MICROS), micros.rem_euclid(DAY_MICROS) as u64, zone)
}

/// As [`print_timestamp`] for microseconds since 2000-01-01, beyond what microseconds since 1970 reach; finite.
pub fn print_timestamp_2000(micros: i64, zone: Zone) -> String {
    let days = micros.div_euclid(DAY_MICROS) + EPOCH_2000_MICROS / DAY_MICROS;
    print_at(days, micros.rem_euclid(DAY_MICROS) as u64, zone)
}

fn print_at(days: i64, micros: u64, zone: Zone) -> String {
    let mut out = String::new();
    let bc = write_date(&mut out, days);
    out.push(' ');
    write_clock(&mut out, micros);
    if zone == Zone::Utc {
        out.push_str("+00");
    }
    if bc {
        out.push_str(" BC");
    }
    out
}

/// As the server prints it in its style `postgres`: `1 year 2 mons -3 days +04:05:06.789`.
pub fn server_interval(months: i32, days: i32, micros: i64) -> String {
    let mut out = String::new();
    let mut before = false;
    for (value, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if value == 0 {
            continue;
        }
        let (gap, sign) = (if out.is_empty() { "" } else { " " }, if before && value > 0 { "+" } else { "" });
        let many = if value == 1 { "" } else { "s" };
        out.push_str(&format!("{gap}{sign}{value} {unit}{many}"));
        before = value < 0;
    }
    if micros != 0 || out.is_empty() {
        let gap = if out.is_empty() { "" } else { " " };
        let sign = if micros < 0 {
            "-"
        } else if before {
            "+"
        } else {
            ""
        };
        out.push_str(&format!("{gap}{sign}"));
        write_clock(&mut out, micros.unsigned_abs());
    }
    out
}

/// `14 mons -3 days -04:05:06.789`: each part with its own sign, as the input function takes it.
pub fn print_interval(months: i32, days: i32, micros: i64) -> String {
    let mut out = format!("{months} mons {days} days ");
    if micros < 0 {
        out.push('-');
    }
    write_clock(&mut out, micros.unsigned_abs());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_form_is_read_as_any_other() {
        let mut seen = 0;
        // A step that meets every month, hour and number of digits behind the point.
        for n in 0..20_000i64 {
            let micros = n * 15_700_003_123_457 - 60_000_000_000_000_000 + [0, 500_000, 120, 1][n as usize % 4];
            let micros = if n % 5 == 0 { micros / 1_000_000 * 1_000_000 } else { micros };
            for zone in [Zone::None, Zone::Utc] {
                let text = print_timestamp(micros, zone);
                let usual = usual_timestamp(text.as_bytes(), zone);
                assert_eq!(any_timestamp(&text, zone), Some(micros), "{text}");
                assert!(usual.is_none_or(|us| us == micros), "{text}: {usual:?}");
                seen += u32::from(usual.is_some());
            }
        }
        assert!(seen > 30_000, "{seen}");
        // Each other byte at each place: no more is taken for usual than for legal, and as the same.
        let text = "2024-02-29 23:59:58.120457";
        for at in 0..text.len() {
            for other in b"0159-:. +x" {
                let mut bytes = text.as_bytes().to_vec();
                bytes[at] = *other;
                let text = String::from_utf8_lossy(&bytes);
                let usual = usual_timestamp(&bytes, Zone::None);
                assert!(usual.is_none() || usual == any_timestamp(&text, Zone::None), "{text}: {usual:?}");
            }
        }
        for text in ["2024-02-29 23:59:58.", "2024-02-29 23:59:58.1234567", "2024-02-29 23:59:5", "2024-02-29", ""] {
            assert_eq!(usual_timestamp(text.as_bytes(), Zone::None), None, "{text}");
        }
        assert_eq!(usual_timestamp(b"2024-02-29 23:59:58", Zone::Utc), None, "without its zone");
    }
}
