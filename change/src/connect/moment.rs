//! Pure. Connect's `Date`, `Time` and `Timestamp`, and `TimestampConverter` between them, numbers and texts.
//!
//! Texts are written and read by a pattern of `java.text.SimpleDateFormat` in UTC: `y M d H h m s S a X Z z` and what stands
//! between quotes; other letters are refused. Reading is lenient as Java's: `SSS` takes all digits that come, so six of them are
//! up to 999 seconds; what follows the pattern is not looked at. Days are those of the calendar that is used today;
//! Java counts days before 1582-10-15 otherwise.

use super::smt::Refused;
use super::{Data, Kind, Schema};
use crate::calendar;

pub const DATE: &str = "org.apache.kafka.connect.data.Date";
pub const TIME: &str = "org.apache.kafka.connect.data.Time";
pub const TIMESTAMP: &str = "org.apache.kafka.connect.data.Timestamp";
const DAY_MS: i64 = 86_400_000;

/// `target.type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    Text,
    Unix,
    Date,
    Time,
    Timestamp,
}

/// `unix.precision`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precision {
    Seconds,
    Millis,
    Micros,
    Nanos,
}

impl Target {
    pub fn schema(self, optional: bool) -> Schema {
        let (kind, name) = match self {
            Target::Text => (Kind::String, None),
            Target::Unix => (Kind::Int64, None),
            Target::Date => (Kind::Int32, Some(DATE)),
            Target::Time => (Kind::Int32, Some(TIME)),
            Target::Timestamp => (Kind::Int64, Some(TIMESTAMP)),
        };
        Schema { optional, name: name.map(str::to_owned), version: name.map(|_| 1), ..Schema::new(kind) }
    }
}

pub(super) fn timestamp() -> Schema {
    Target::Timestamp.schema(false)
}

pub(super) fn is_logical(schema: &Schema) -> bool {
    [DATE, TIME, TIMESTAMP].iter().any(|name| schema.is_named(name))
}

/// Milliseconds of a logical value.
fn millis(schema: &Schema, value: i64) -> Option<i64> {
    match schema.name.as_deref() {
        Some(DATE) => value.checked_mul(DAY_MS),
        Some(TIME | TIMESTAMP) => Some(value),
        _ => None,
    }
}

/// `Values.dateFormatFor`: what looks like a time of day is one, what looks like a day is one.
pub(super) fn iso(schema: &Schema, value: i64) -> Option<String> {
    let at = millis(schema, value)?;
    let pattern = if (0..DAY_MS).contains(&at) {
        "HH:mm:ss.SSS'Z'"
    } else if at % DAY_MS == 0 {
        "yyyy-MM-dd"
    } else {
        "yyyy-MM-dd'T'HH:mm:ss.SSS'Z'"
    };
    Some(Format::parse(pattern).ok()?.text(at))
}

/// `java.util.Date.toString` in UTC.
pub(super) fn java_date(schema: &Schema, value: i64) -> Option<String> {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let at = millis(schema, value)?;
    let day = at.div_euclid(DAY_MS);
    let (year, month, date) = calendar::civil(day);
    let clock = Format::parse("HH:mm:ss").ok()?.text(at);
    let week = DAYS[usize::try_from(day.rem_euclid(7)).ok()?];
    let month = MONTHS.get(month as usize - 1)?;
    Some(format!("{week} {month} {date:02} {clock} UTC {year}"))
}

/// What `TimestampConverter` was told.
pub struct How<'f> {
    pub target: Target,
    pub format: Option<&'f Format>,
    pub precision: Precision,
}

impl How<'_> {
    /// One value; its schema says what it is.
    pub fn convert(&self, schema: &Schema, value: &Data) -> Result<Data, Refused> {
        let at = match (value, schema.kind) {
            (Data::Null, _) => return Ok(Data::Null),
            (Data::Int(n), _) if is_logical(schema) => millis(schema, *n).ok_or("a date out of range")?,
            (Data::Text(text), Kind::String) => {
                let format = self.format.ok_or("a text is read by a `format`, and none is given")?;
                format.read(text).ok_or("a text does not match the format")?
            }
            (Data::Int(n), Kind::Int64) => match self.precision {
                Precision::Seconds => n.saturating_mul(1000),
                Precision::Millis => *n,
                Precision::Micros => n / 1000,
                Precision::Nanos => n / 1_000_000,
            },
            _ => return Err(format!("a {} is no moment", schema.kind.name())),
        };
        Ok(match self.target {
            Target::Text => Data::Text(self.format.ok_or("a text wants a `format`")?.text(at)),
            Target::Unix => Data::Int(match self.precision {
                Precision::Seconds => at / 1000,
                Precision::Millis => at,
                Precision::Micros => at.saturating_mul(1000),
                Precision::Nanos => at.saturating_mul(1_000_000),
            }),
            Target::Date => Data::Int(at.div_euclid(DAY_MS)),
            Target::Time => Data::Int(at.rem_euclid(DAY_MS)),
            Target::Timestamp => Data::Int(at),
        })
    }
}

/// A pattern of `SimpleDateFormat`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Format(Vec<Piece>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    Text(String),
    /// A letter and how often it stands.
    Field(char, usize),
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

impl Format {
    pub fn parse(pattern: &str) -> Result<Self, String> {
        let mut out: Vec<Piece> = Vec::new();
        let mut chars = pattern.chars().peekable();
        let text = |out: &mut Vec<Piece>, c: char| match out.last_mut() {
            Some(Piece::Text(text)) => text.push(c),
            _ => out.push(Piece::Text(c.to_string())),
        };
        while let Some(c) = chars.next() {
            match c {
                '\'' if chars.next_if_eq(&'\'').is_some() => text(&mut out, '\''),
                '\'' => loop {
                    match chars.next() {
                        None => return Err("a quote is open at the end".into()),
                        Some('\'') if chars.next_if_eq(&'\'').is_some() => text(&mut out, '\''),
                        Some('\'') => break,
                        Some(c) => text(&mut out, c),
                    }
                },
                c if c.is_ascii_alphabetic() => {
                    if !"yMdHhmsSaXZz".contains(c) {
                        return Err(format!("the letter {c} is not served: y M d H h m s S a X Z z are"));
                    }
                    let count = 1 + std::iter::from_fn(|| chars.next_if_eq(&c)).count();
                    if c == 'X' && count > 3 {
                        return Err("X, XX or XXX".into());
                    }
                    out.push(Piece::Field(c, count));
                }
                c => text(&mut out, c),
            }
        }
        Ok(Format(out))
    }

    /// Milliseconds since 1970 → text.
    pub fn text(&self, at: i64) -> String {
        let (day, clock) = (at.div_euclid(DAY_MS), at.rem_euclid(DAY_MS));
        let (year, month, date) = calendar::civil(day);
        // Years before the first are counted from it.
        let era = if year <= 0 { 1 - year } else { year };
        let mut out = String::new();
        for piece in &self.0 {
            let (letter, count) = match piece {
                Piece::Text(text) => {
                    out.push_str(text);
                    continue;
                }
                Piece::Field(letter, count) => (*letter, *count),
            };
            let number = match letter {
                'y' if count == 2 => era % 100,
                'y' => era,
                'M' if count > 2 => {
                    let name = MONTHS.get(month as usize - 1).copied().unwrap_or_default();
                    out.push_str(if count == 3 { &name[..3] } else { name });
                    continue;
                }
                'M' => i64::from(month),
                'd' => i64::from(date),
                'H' => clock / 3_600_000,
                'h' => (clock / 3_600_000 + 11) % 12 + 1,
                'm' => clock / 60_000 % 60,
                's' => clock / 1000 % 60,
                'S' => clock % 1000,
                'a' => {
                    out.push_str(if clock < DAY_MS / 2 { "AM" } else { "PM" });
                    continue;
                }
                'X' => {
                    out.push('Z');
                    continue;
                }
                'Z' => {
                    out.push_str("+0000");
                    continue;
                }
                _ => {
                    out.push_str(if count < 4 { "UTC" } else { "Coordinated Universal Time" });
                    continue;
                }
            };
            out.push_str(&format!("{number:0count$}"));
        }
        out
    }

    /// Text → milliseconds since 1970; none = it does not match.
    pub fn read(&self, text: &str) -> Option<i64> {
        let mut rest = text;
        let (mut year, mut month, mut date) = (1970_i64, 1_i64, 1_i64);
        let (mut millis, mut half, mut offset) = (0_i64, None, 0_i64);
        for (at, piece) in self.0.iter().enumerate() {
            let (letter, count) = match piece {
                Piece::Text(own) => {
                    rest = rest.strip_prefix(own.as_str())?;
                    continue;
                }
                Piece::Field(letter, count) => (*letter, *count),
            };
            match letter {
                'a' => {
                    let word = rest.get(..2)?;
                    half = Some(word.eq_ignore_ascii_case("PM"));
                    if half == Some(false) && !word.eq_ignore_ascii_case("AM") {
                        return None;
                    }
                    rest = &rest[2..];
                    continue;
                }
                'X' | 'Z' | 'z' => {
                    let (minutes, more) = zone(rest, letter)?;
                    (offset, rest) = (minutes, more);
                    continue;
                }
                'M' if count > 2 => {
                    let found = MONTHS.iter().enumerate().find_map(|(i, name)| {
                        let whole = rest.get(..name.len()).filter(|w| w.eq_ignore_ascii_case(name)).map(|_| name.len());
                        let short = rest.get(..3).filter(|w| w.eq_ignore_ascii_case(&name[..3])).map(|_| 3);
                        Some((i as i64 + 1, whole.or(short)?))
                    });
                    let (number, length) = found?;
                    (month, rest) = (number, &rest[length..]);
                    continue;
                }
                _ => {}
            }
            // Fields that stand side by side share the digits by their lengths.
            let adjoins = matches!(self.0.get(at + 1), Some(Piece::Field(next, _)) if !"aXZz".contains(*next));
            rest = rest.trim_start_matches([' ', '\t']);
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let taken = if adjoins { digits.min(count) } else { digits };
            let number: i64 = rest.get(..taken)?.parse().ok()?;
            rest = &rest[taken..];
            let of = |unit: i64| number.checked_mul(unit);
            match letter {
                'y' if count <= 2 && taken == 2 => year = near(number),
                'y' => year = number,
                'M' => month = number,
                'd' => date = number,
                'H' => millis = millis.checked_add(of(3_600_000)?)?,
                'h' => millis = millis.checked_add((number % 12).checked_mul(3_600_000)?)?,
                'm' => millis = millis.checked_add(of(60_000)?)?,
                's' => millis = millis.checked_add(of(1000)?)?,
                _ => millis = millis.checked_add(number)?,
            }
        }
        if half == Some(true) {
            millis = millis.checked_add(DAY_MS / 2)?;
        }
        if !(-300_000..=300_000).contains(&year) || month.abs() > 1_000_000 || date.abs() > 1_000_000_000 {
            return None;
        }
        // Months and days beyond theirs run over, as in Java.
        let months = year.checked_mul(12)?.checked_add(month - 1)?;
        let first = calendar::days(months.div_euclid(12), u32::try_from(months.rem_euclid(12)).ok()? + 1, 1);
        (first + date - 1).checked_mul(DAY_MS)?.checked_add(millis)?.checked_sub(offset * 60_000)
    }
}

/// A year of two digits lies between 80 years before and 20 after now; 1970 to 2069 are told so until 2050.
fn near(number: i64) -> i64 {
    if number >= 70 { 1900 + number } else { 2000 + number }
}

/// Minutes east, and what follows.
fn zone(text: &str, letter: char) -> Option<(i64, &str)> {
    for name in ["UTC", "GMT", "Z"] {
        if let Some(rest) = text.strip_prefix(name)
            && (name != "Z" || letter == 'X')
        {
            return Some((0, rest));
        }
    }
    let sign = match text.bytes().next()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let number =
        |at: usize| text.get(at..at + 2).filter(|t| t.bytes().all(|b| b.is_ascii_digit()))?.parse::<i64>().ok();
    let hours = number(1)?;
    let (minutes, end) = match (text.as_bytes().get(3), number(3), number(4)) {
        (Some(b':'), _, Some(minutes)) => (minutes, 6),
        (_, Some(minutes), _) => (minutes, 5),
        _ => (0, 3),
    };
    Some((sign * (hours * 60 + minutes), &text[end..]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn patterns_are_javas() {
        let at = 1_795_263_347_714;
        for (pattern, want) in [
            ("yyyy-MM-dd'T'HH:mm:ss.SSS'Z'", "2026-11-21T12:15:47.714Z"),
            ("yyyyMMddHHmmss", "20261121121547"),
            ("d MMM yy, h:mm a", "21 Nov 26, 12:15 PM"),
            ("yyyy-MM-dd HH:mm:ssXXX Z z", "2026-11-21 12:15:47Z +0000 UTC"),
            ("''yyyy''", "'2026'"),
        ] {
            assert_eq!(Format::parse(pattern).unwrap().text(at), want, "{pattern}");
        }
        for pattern in ["'open", "EEE", "XXXX", "Y"] {
            assert!(Format::parse(pattern).is_err(), "{pattern}");
        }
        let read = |pattern, text| Format::parse(pattern).unwrap().read(text);
        assert_eq!(read("yyyy-MM-dd'T'HH:mm:ss'Z'", "2026-11-21T12:15:47Z"), Some(1_795_263_347_000));
        assert_eq!(read("yyyy-MM-dd'T'HH:mm:ss.SSS", "1970-01-01T00:00:00.123456Z"), Some(123_456), "all digits");
        assert_eq!(read("yyyyMMdd", "20261121"), Some(1_795_219_200_000));
        assert_eq!(read("yyyy-MM-dd", "2026-13-01"), read("yyyy-MM-dd", "2027-01-01"), "lenient");
        assert_eq!(read("HH:mmXXX", "01:00+01:00"), Some(0));
        assert_eq!(read("yyyy-MM-dd", "21.11.2026"), None);
    }
}
