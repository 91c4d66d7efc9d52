//! Pure. Proleptic Gregorian days and clock texts. Source: H. Hinnant, "chrono-compatible low-level date algorithms".

const DAY_US: i64 = 86_400_000_000;

/// Year (0 = 1 BC), month, day of a number of days since 1970-01-01.
pub fn civil(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = (doy - (153 * mp + 2) / 5 + 1) as u32;
    let month = if mp < 10 { mp + 3 } else { mp - 9 } as u32;
    (yoe + era * 400 + i64::from(month <= 2), month, day)
}

/// Days since 1970-01-01.
pub fn days(year: i64, month: u32, day: u32) -> i64 {
    let y = year - i64::from(month <= 2);
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let mp = i64::from((month + 9) % 12);
    let doy = (153 * mp + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

/// `2026-11-21T10:34:56.789012Z` as Java's ISO_OFFSET_DATE_TIME writes a year (`-0043`, `+10000`), with `digits` after
/// the second, more if the value needs them.
pub fn instant_text(micros: i64, digits: u32) -> String {
    let mut out = Vec::with_capacity(28);
    put_instant(&mut out, micros, digits);
    text(out)
}

/// Appends what [`instant_text`] makes.
pub fn put_instant(out: &mut Vec<u8>, micros: i64, digits: u32) {
    let (day, clock) = (micros.div_euclid(DAY_US), micros.rem_euclid(DAY_US));
    put_date(out, day);
    out.push(b'T');
    put_clock(out, clock, digits);
    out.push(b'Z');
}

/// What is written here is ASCII.
fn text(ascii: Vec<u8>) -> String {
    String::from_utf8(ascii).unwrap_or_default()
}

/// A number below 100 as two digits. (Two times a row, a hundred thousand rows a second: no `format!`.)
fn put_two(out: &mut Vec<u8>, n: u32) {
    out.extend_from_slice(&[b'0' + (n / 10 % 10) as u8, b'0' + (n % 10) as u8]);
}

/// `2026-11-21`, `-0043-03-15`, `+10000-01-01` of days since 1970.
pub fn date_text(day: i64) -> String {
    let mut out = Vec::with_capacity(12);
    put_date(&mut out, day);
    text(out)
}

fn put_date(out: &mut Vec<u8>, day: i64) {
    let (year, month, date) = civil(day);
    match year {
        0..=9999 => {
            put_two(out, (year / 100) as u32);
            put_two(out, (year % 100) as u32);
        }
        y if y > 9999 => out.extend_from_slice(format!("+{y}").as_bytes()),
        y => out.extend_from_slice(format!("-{:04}", -y).as_bytes()),
    }
    out.push(b'-');
    put_two(out, month);
    out.push(b'-');
    put_two(out, date);
}

/// Days since 1970 of what [`date_text`] wrote.
pub fn parse_date(date: &str) -> Option<i64> {
    let (negative, date) = match date.as_bytes().first()? {
        b'-' => (true, &date[1..]),
        b'+' => (false, &date[1..]),
        _ => (false, date),
    };
    let mut parts = date.splitn(3, '-');
    let year: i64 = digits_of(parts.next()?)?;
    let (month, day) = (digits_of(parts.next()?)?, digits_of(parts.next()?)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year > 6_000_000 {
        return None;
    }
    Some(days(if negative { -year } else { year }, month as u32, day as u32))
}

/// `10:34:56.789` with `digits` (at most 6) after the second, more if the value needs them.
pub fn clock_text(micros: i64, digits: u32) -> String {
    let mut out = Vec::with_capacity(16);
    put_clock(&mut out, micros, digits);
    text(out)
}

/// `micros` from 0 to 24 hours, the end included.
fn put_clock(out: &mut Vec<u8>, micros: i64, digits: u32) {
    let (seconds, mut fraction) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000) as u32);
    put_two(out, (seconds / 3600) as u32);
    out.push(b':');
    put_two(out, (seconds / 60 % 60) as u32);
    out.push(b':');
    put_two(out, (seconds % 60) as u32);
    let mut needed = 6;
    while needed > 0 && fraction.is_multiple_of(10) {
        fraction /= 10;
        needed -= 1;
    }
    let shown = needed.max(digits.min(6));
    if shown > 0 {
        out.push(b'.');
        // What was cut off at the end, in front as zeros.
        let digits = fraction * 10u32.pow(shown - needed);
        let (mut rest, from) = (digits, out.len());
        out.resize(from + shown as usize, b'0');
        for digit in out[from..].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }
}

/// Microseconds since 1970 of what [`instant_text`] wrote.
pub fn parse_instant(text: &str) -> Option<i64> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let day = parse_date(date)?;
    day.checked_mul(DAY_US)?.checked_add(parse_clock(clock)?)
}

/// Microseconds since midnight of `10:34:56.789`, up to 24:00:00.
pub fn parse_clock(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, ':');
    let (h, m, s) = (digits_of(parts.next()?)?, digits_of(parts.next()?)?, parts.next().unwrap_or("00"));
    let (s, fraction) = s.split_once('.').unwrap_or((s, ""));
    if fraction.len() > 6 {
        return None;
    }
    let fraction = match fraction.len() {
        0 => 0,
        n => digits_of(fraction)? * 10i64.pow(6 - n as u32),
    };
    let s = digits_of(s)?;
    if h > 24 || m > 59 || s > 60 {
        return None;
    }
    Some(((h * 60 + m) * 60 + s) * 1_000_000 + fraction)
}

/// Days since 1970-01-01 of a date as PostgreSQL prints it: `0044-03-15 BC`.
pub fn server_days(text: &str) -> Option<i64> {
    let (text, bc) = text.strip_suffix(" BC").map_or((text, false), |t| (t, true));
    let mut parts = text.splitn(3, '-');
    let (year, month, day) = (digits_of(parts.next()?)?, digits_of(parts.next()?)?, digits_of(parts.next()?)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year > 6_000_000 {
        return None;
    }
    Some(days(if bc { 1 - year } else { year }, month as u32, day as u32))
}

/// Microseconds since 1970-01-01 of a timestamp as PostgreSQL prints it, `294276-12-31 23:59:59.999999`, with `+00` or
/// without: more than `i64` holds. `None` for its infinities.
pub fn parse_wide(text: &str) -> Option<i128> {
    let (text, era) = text.strip_suffix(" BC").map_or((text, ""), |t| (t, " BC"));
    let (date, clock) = text.strip_suffix("+00").unwrap_or(text).split_once(' ')?;
    let day = server_days(&format!("{date}{era}"))?;
    Some(i128::from(day) * i128::from(DAY_US) + i128::from(parse_clock(clock)?))
}

/// As [`instant_text`] of such a moment.
pub fn wide_text(micros: i128, digits: u32) -> Option<String> {
    let day = i64::try_from(micros.div_euclid(i128::from(DAY_US))).ok()?;
    let mut out = Vec::with_capacity(32);
    put_date(&mut out, day);
    out.push(b'T');
    put_clock(&mut out, micros.rem_euclid(i128::from(DAY_US)) as i64, digits);
    out.push(b'Z');
    Some(text(out))
}

/// `12:34:56.789012+05:45` → `06:49:56.789012Z`; `None` if it is no such text.
pub fn zoned_time_utc(text: &str) -> Option<String> {
    let at = text.rfind(['+', '-'])?;
    let (clock, zone) = text.split_at(at);
    let micros = parse_clock(clock)?;
    let mut parts = zone[1..].splitn(3, ':');
    let (h, m) = (digits_of(parts.next()?)?, parts.next().map_or(Some(0), digits_of)?);
    let offset = ((h * 60 + m) * 60 + parts.next().map_or(Some(0), digits_of)?) * 1_000_000;
    let utc = if zone.starts_with('-') { micros + offset } else { micros - offset };
    let utc = if utc == DAY_US { utc } else { utc.rem_euclid(DAY_US) };
    Some(format!("{}Z", clock_text(utc, 0)))
}

fn digits_of(text: &str) -> Option<i64> {
    if text.is_empty() || text.len() > 9 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn texts_are_those_of_format(day in -1_000_000i64..4_000_000, clock in 0i64..=DAY_US, cut in 0u32..7, digits in 0u32..8) {
            let clock = clock - clock % 10i64.pow(cut);
            let (year, month, date) = civil(day);
            let year = match year {
                0..=9999 => format!("{year:04}"),
                y if y > 9999 => format!("+{y}"),
                y => format!("-{:04}", -y),
            };
            prop_assert_eq!(date_text(day), format!("{year}-{month:02}-{date:02}"));
            let (s, fraction) = (clock / 1_000_000, format!("{:06}", clock % 1_000_000));
            let shown = fraction.trim_end_matches('0').len().max(digits.min(6) as usize);
            let point = if shown > 0 { "." } else { "" };
            let want = format!("{:02}:{:02}:{:02}{point}{}", s / 3600, s / 60 % 60, s % 60, &fraction[..shown]);
            prop_assert_eq!(clock_text(clock, digits), want);
        }
    }

    #[test]
    fn days_and_dates_are_inverse() {
        for day in [0, -1, 18_321, 20_778, -719_162, -719_528, -719_529, -735_160, 2_932_896, 106_000_000, -2_000_000] {
            let (y, m, d) = civil(day);
            assert_eq!(days(y, m, d), day);
        }
        assert_eq!(civil(20_778), (2026, 11, 21));
        assert_eq!(civil(-735_160), (-43, 3, 15));
    }

    #[test]
    fn instants_print_as_debezium_prints_them() {
        for (micros, digits, text) in [
            (1_795_257_296_789_012, 6, "2026-11-21T10:34:56.789012Z"),
            (1_795_257_296_789_000, 3, "2026-11-21T10:34:56.789Z"),
            (0, 6, "1970-01-01T00:00:00.000000Z"),
            (-1_000_000, 0, "1969-12-31T23:59:59Z"),
            (253_402_300_800_000_000, 0, "+10000-01-01T00:00:00Z"),
            (-63_517_780_800_000_000, 3, "-0043-03-15T12:00:00.000Z"),
        ] {
            assert_eq!(instant_text(micros, digits), text);
            assert_eq!(parse_instant(text), Some(micros));
        }
        assert_eq!(zoned_time_utc("12:34:56.789012+05:45").as_deref(), Some("06:49:56.789012Z"));
        assert_eq!(zoned_time_utc("23:59:59.999999-15:59").as_deref(), Some("15:58:59.999999Z"));
        assert_eq!(zoned_time_utc("24:00:00+00").as_deref(), Some("24:00:00Z"));
    }
}
