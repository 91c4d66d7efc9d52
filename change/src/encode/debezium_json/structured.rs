//! Pure. `time.precision.mode` = `structured`: dates, times and intervals as structures of their fields, and back. Of infinite ones
//! all fields are null but `specialValue`. Source: Debezium 3.7 `io.debezium.time.Structured*`, recordings `structured*`.

use super::defects::{by_fields, by_julian};
use super::schema::Shape;
use crate::calendar;
use crate::json::{self, Node};
use crate::schema::Type;
use crate::value::Value;

const DAY_US: i64 = 86_400_000_000;
const INFINITY: &str = "POSITIVE_INFINITY";
const MINUS_INFINITY: &str = "NEGATIVE_INFINITY";

macro_rules! fields {
    ($($kind:literal $name:literal),*) => {
        concat!(r#""type":"struct","fields":["#, fields!(@ $($kind $name),*), "]")
    };
    (@ $kind:literal $name:literal) => {
        concat!(r#"{"type":""#, $kind, r#"","optional":true,"field":""#, $name, r#""}"#)
    };
    (@ $kind:literal $name:literal, $($rest:tt)*) => {
        concat!(fields!(@ $kind $name), ",", fields!(@ $($rest)*))
    };
}

/// None = the type has the form that it has in any mode.
pub(super) fn shape(kind: &Type) -> Option<Shape> {
    let (before, after) = match kind {
        Type::Date => (
            fields!("int32" "year", "int8" "month", "int8" "day", "string" "specialValue"),
            r#","name":"io.debezium.time.StructuredDate","version":1"#,
        ),
        Type::Time { zone: false, .. } => (
            fields!("int8" "hour", "int8" "minute", "int8" "second", "int32" "nanos", "int32" "precision"),
            r#","name":"io.debezium.time.StructuredTime","version":1"#,
        ),
        Type::Time { zone: true, .. } => (
            fields!(
                "int8" "hour", "int8" "minute", "int8" "second", "int32" "nanos", "int32" "offsetSeconds", "int32" "precision"
            ),
            r#","name":"io.debezium.time.StructuredZonedTime","version":1"#,
        ),
        Type::Timestamp { .. } => (
            fields!(
                "int32" "year", "int8" "month", "int8" "day", "int8" "hour", "int8" "minute", "int8" "second", "int32" "nanos",
                "string" "specialValue", "int32" "precision"
            ),
            r#","name":"io.debezium.time.StructuredTimestamp","version":1"#,
        ),
        Type::Instant { .. } => (
            fields!(
                "int32" "year", "int8" "month", "int8" "day", "int8" "hour", "int8" "minute", "int8" "second", "int32" "nanos",
                "int32" "offsetSeconds", "string" "zoneId", "string" "specialValue", "int32" "precision"
            ),
            r#","name":"io.debezium.time.StructuredZonedTimestamp","version":1"#,
        ),
        Type::Interval => (
            fields!(
                "int32" "years", "int32" "months", "int32" "days", "int32" "hours", "int32" "minutes", "int64" "seconds",
                "int32" "nanos", "int32" "precision"
            ),
            r#","name":"io.debezium.time.StructuredDuration","version":1"#,
        ),
        _ => return None,
    };
    Some(Shape::Fixed { before, after })
}

/// Writes a value; none = it is none of these, and nothing is written. False = [`read`] does not give it back.
pub(super) fn put(out: &mut Vec<u8>, kind: &Type, native: &str, value: &Value) -> Option<bool> {
    match (kind, value) {
        (Type::Date, Value::Date(days)) => {
            let special = special(i64::from(*days), (i32::MIN.into(), i32::MAX.into()));
            put_date(out, special.is_none().then_some(i64::from(*days)));
            put_special(out, special);
        }
        (Type::Time { digits, zone: false }, Value::Time(micros)) => {
            out.push(b'{');
            put_clock(out, Some(*micros));
            put_number(out, "precision", Some(i64::from(*digits)));
        }
        (Type::Time { digits, zone: true }, Value::Text(text)) => {
            let (micros, offset) = zoned(text.as_str())?;
            out.push(b'{');
            put_clock(out, Some(micros));
            put_number(out, "offsetSeconds", Some(offset));
            put_number(out, "precision", Some(i64::from(*digits)));
            out.push(b'}');
            return Some(zoned_text(micros, offset) == text.as_str());
        }
        (Type::Timestamp { digits }, Value::Timestamp(micros)) => {
            put_moment(out, i128::from(*micros), special(*micros, (i64::MIN, i64::MAX)), *digits, None);
        }
        (Type::Instant { digits }, Value::Instant(micros)) => {
            put_moment(out, i128::from(*micros), special(*micros, (i64::MIN, i64::MAX)), *digits, Some("\"Z\""));
        }
        // Beyond what microseconds reach.
        (Type::Timestamp { digits }, Value::Text(text)) => {
            put_moment(out, calendar::parse_wide(text.as_str())?, None, *digits, None);
            out.push(b'}');
            return Some(false);
        }
        (Type::Instant { digits }, Value::Text(text)) => {
            put_moment(out, calendar::parse_wide(text.as_str())?, None, *digits, Some("\"Z\""));
            out.push(b'}');
            return Some(false);
        }
        (Type::Interval, Value::Interval { months, days, micros }) => {
            out.push(b'{');
            let seconds = micros / 1_000_000;
            for (name, n) in [
                ("years", i64::from(months / 12)),
                ("months", i64::from(months % 12)),
                ("days", i64::from(*days)),
                ("hours", seconds / 3600),
                ("minutes", seconds / 60 % 60),
                ("seconds", seconds % 60),
                ("nanos", micros % 1_000_000 * 1000),
                ("precision", digits_of(native)),
            ] {
                put_number(out, name, Some(n));
            }
        }
        _ => return None,
    }
    out.push(b'}');
    Some(true)
}

/// What stands in a required field for a value that was not sent: the first moment there is, of no zone.
pub(super) fn put_zero(out: &mut Vec<u8>, kind: &Type) -> bool {
    match kind {
        Type::Instant { digits } => {
            put_moment(out, 0, None, *digits, Some("null"));
            out.push(b'}');
            true
        }
        Type::Time { zone: true, .. } => put(out, kind, "", &Value::Text("00:00:00+00".into())).is_some(),
        _ => false,
    }
}

/// Of `interval(2)`, `interval day to second(2)`.
fn digits_of(native: &str) -> i64 {
    let inside = native.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
    inside.and_then(|(digits, _)| digits.parse().ok()).unwrap_or(6)
}

/// What Debezium makes of a value: through JDBC days before 1582-10-15 go as in [`super::defects`], in arrays of both roads so do moments,
/// and times there lose their microseconds. None = the value is as ours.
pub(super) fn put_defect(out: &mut Vec<u8>, kind: &Type, native: &str, value: &Value, days: Days) -> bool {
    let again = |value: Value, out: &mut Vec<u8>| put(out, kind, native, &value).is_some();
    let moved = |micros: i64, by: fn(i64) -> i64| {
        let day = by(micros.div_euclid(DAY_US)).checked_mul(DAY_US)?;
        day.checked_add(micros.rem_euclid(DAY_US))
    };
    match (value, days) {
        (Value::Time(DAY_US), Days::Stream | Days::Jdbc) => {
            out.extend_from_slice(b"null");
            true
        }
        (Value::Date(days), Days::Jdbc | Days::Item) if !matches!(*days, i32::MIN | i32::MAX) => {
            let shown = by_fields(i64::from(*days));
            i32::try_from(shown).is_ok_and(|shown| shown != *days && again(Value::Date(shown), out))
        }
        (Value::Time(micros), Days::Item) => again(Value::Time(micros.rem_euclid(DAY_US) / 1000 * 1000), out),
        (Value::Timestamp(micros), Days::Item) if !matches!(*micros, i64::MIN | i64::MAX) => {
            moved(*micros, by_julian).is_some_and(|us| us != *micros && again(Value::Timestamp(us), out))
        }
        (Value::Instant(i64::MIN), Days::Item) => {
            // The first moment of Java's, its era lost: 292269055-12-02T23:00.
            let day = calendar::days(292_269_055, 12, 2);
            let Type::Instant { digits } = kind else { return false };
            let micros = i128::from(day) * i128::from(DAY_US) + i128::from(DAY_US / 24 * 23);
            put_moment(out, micros, None, *digits, Some("\"Z\""));
            out.push(b'}');
            true
        }
        (Value::Instant(micros), Days::Item) if *micros != i64::MAX => {
            moved(*micros, by_fields).is_some_and(|us| us != *micros && again(Value::Instant(us), out))
        }
        _ => false,
    }
}

/// Where a value comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Days {
    Stream,
    Jdbc,
    /// One of an array.
    Item,
}

fn special(n: i64, (minus, plus): (i64, i64)) -> Option<&'static str> {
    match n {
        _ if n == plus => Some(INFINITY),
        _ if n == minus => Some(MINUS_INFINITY),
        _ => None,
    }
}

/// Behind `{` or another field.
fn put_name(out: &mut Vec<u8>, name: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn put_number(out: &mut Vec<u8>, name: &str, n: Option<i64>) {
    put_name(out, name);
    match n {
        Some(n) => json::put_i64(out, n),
        None => out.extend_from_slice(b"null"),
    }
}

fn put_special(out: &mut Vec<u8>, special: Option<&str>) {
    put_name(out, "specialValue");
    match special {
        Some(word) => json::put_string(out, word),
        None => out.extend_from_slice(b"null"),
    }
}

/// With the brace before.
fn put_date(out: &mut Vec<u8>, days: Option<i64>) {
    let date = days.map(calendar::civil);
    out.push(b'{');
    put_number(out, "year", date.map(|d| d.0));
    put_number(out, "month", date.map(|d| i64::from(d.1)));
    put_number(out, "day", date.map(|d| i64::from(d.2)));
}

fn put_clock(out: &mut Vec<u8>, micros: Option<i64>) {
    let seconds = micros.map(|us| us / 1_000_000);
    put_number(out, "hour", seconds.map(|s| s / 3600));
    put_number(out, "minute", seconds.map(|s| s / 60 % 60));
    put_number(out, "second", seconds.map(|s| s % 60));
    put_number(out, "nanos", micros.map(|us| us % 1_000_000 * 1000));
}

/// Without the brace behind. `zone` = the JSON of its name, where there is one.
fn put_moment(out: &mut Vec<u8>, micros: i128, special: Option<&str>, digits: u32, zone: Option<&str>) {
    let finite = special.is_none();
    let day = i128::from(DAY_US);
    put_date(out, finite.then(|| micros.div_euclid(day) as i64));
    put_clock(out, finite.then(|| micros.rem_euclid(day) as i64));
    if let Some(zone) = zone {
        put_number(out, "offsetSeconds", finite.then_some(0));
        put_name(out, "zoneId");
        out.extend_from_slice(if finite { zone.as_bytes() } else { b"null" });
    }
    put_special(out, special);
    put_number(out, "precision", Some(i64::from(digits)));
}

/// `24:00:00-03:30` → microseconds, seconds east.
fn zoned(text: &str) -> Option<(i64, i64)> {
    let at = text.rfind(['+', '-'])?;
    let mut offset = 0;
    for (part, unit) in text[at + 1..].split(':').zip([3600, 60, 1]) {
        offset += part.parse::<i64>().ok()? * unit;
    }
    Some((calendar::parse_clock(&text[..at])?, if text[at..].starts_with('-') { -offset } else { offset }))
}

/// As the server prints it.
fn zoned_text(micros: i64, offset: i64) -> String {
    let (sign, of) = (if offset < 0 { '-' } else { '+' }, offset.abs());
    let mut out = format!("{}{sign}{:02}", calendar::clock_text(micros, 0), of / 3600);
    if of % 3600 != 0 {
        out.push_str(&format!(":{:02}", of / 60 % 60));
    }
    if of % 60 != 0 {
        out.push_str(&format!(":{:02}", of % 60));
    }
    out
}

/// What [`put`] wrote.
pub fn read(node: &Node<'_>, kind: &Type) -> Option<Value> {
    let n = |name: &str| node.get(name).and_then(Node::as_i64);
    let special = node.get("specialValue").and_then(Node::as_str);
    let days = || {
        let (month, day) = (u32::try_from(n("month")?).ok()?, u32::try_from(n("day")?).ok()?);
        let known = (1..=12).contains(&month) && (1..=31).contains(&day) && n("year")?.abs() < 10_000_000;
        known.then_some(calendar::days(n("year")?, month, day))
    };
    let clock = || {
        let seconds =
            (n("hour")?.checked_mul(60)?.checked_add(n("minute")?)?).checked_mul(60)?.checked_add(n("second")?)?;
        seconds.checked_mul(1_000_000)?.checked_add(n("nanos")? / 1000)
    };
    let moment = || match special {
        Some(INFINITY) => Some(i64::MAX),
        Some(MINUS_INFINITY) => Some(i64::MIN),
        _ => days()?.checked_mul(DAY_US)?.checked_add(clock()?),
    };
    Some(match kind {
        Type::Date => Value::Date(match special {
            Some(INFINITY) => i32::MAX,
            Some(MINUS_INFINITY) => i32::MIN,
            _ => i32::try_from(days()?).ok()?,
        }),
        Type::Time { zone: false, .. } => Value::Time(clock()?),
        Type::Time { zone: true, .. } => Value::Text(zoned_text(clock()?, n("offsetSeconds")?).into()),
        Type::Timestamp { .. } => Value::Timestamp(moment()?),
        Type::Instant { .. } => Value::Instant(moment()?),
        Type::Interval => {
            let seconds = n("hours")?.checked_mul(3600)?.checked_add(n("minutes")?.checked_mul(60)?)?;
            let micros = seconds.checked_add(n("seconds")?)?.checked_mul(1_000_000)?.checked_add(n("nanos")? / 1000)?;
            let months = i32::try_from(n("years")?.checked_mul(12)?.checked_add(n("months")?)?).ok()?;
            Value::Interval { months, days: i32::try_from(n("days")?).ok()?, micros }
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_have_their_fields_and_come_back() {
        let days = |y, m, d| calendar::days(y, m, d);
        let noon = |day: i64| day * DAY_US + DAY_US / 2 + 1;
        let text = |t: &str| Value::Text(t.into());
        let interval = Type::Interval;
        for (kind, native, value, want) in [
            (
                Type::Date,
                "",
                Value::Date(days(-43, 3, 15) as i32),
                r#"{"year":-43,"month":3,"day":15,"specialValue":null}"#,
            ),
            (
                Type::Date,
                "",
                Value::Date(i32::MIN),
                r#"{"year":null,"month":null,"day":null,"specialValue":"NEGATIVE_INFINITY"}"#,
            ),
            (
                Type::Time { digits: 3, zone: false },
                "",
                Value::Time(DAY_US),
                r#"{"hour":24,"minute":0,"second":0,"nanos":0,"precision":3}"#,
            ),
            (
                Type::Time { digits: 6, zone: true },
                "",
                text("12:34:56.5-03:30"),
                r#"{"hour":12,"minute":34,"second":56,"nanos":500000000,"offsetSeconds":-12600,"precision":6}"#,
            ),
            (
                Type::Timestamp { digits: 6 },
                "",
                Value::Timestamp(noon(days(1969, 12, 31))),
                concat!(
                    r#"{"year":1969,"month":12,"day":31,"hour":12,"minute":0,"second":0,"nanos":1000,"specialValue":null,"#,
                    r#""precision":6}"#
                ),
            ),
            (
                Type::Instant { digits: 0 },
                "",
                Value::Instant(i64::MAX),
                concat!(
                    r#"{"year":null,"month":null,"day":null,"hour":null,"minute":null,"second":null,"nanos":null,"#,
                    r#""offsetSeconds":null,"zoneId":null,"specialValue":"POSITIVE_INFINITY","precision":0}"#
                ),
            ),
            (
                interval,
                "interval(2)",
                Value::Interval { months: -14, days: 3, micros: -14_706_000_001 },
                concat!(
                    r#"{"years":-1,"months":-2,"days":3,"hours":-4,"minutes":-5,"seconds":-6,"nanos":-1000,"#,
                    r#""precision":2}"#
                ),
            ),
        ] {
            let mut out = Vec::new();
            assert_eq!(put(&mut out, &kind, native, &value), Some(true), "{value:?}");
            assert_eq!(String::from_utf8(out.clone()).unwrap(), want);
            assert_eq!(read(&json::parse(&out).unwrap(), &kind), Some(value));
        }
        let mut out = Vec::new();
        let far = put(&mut out, &Type::Timestamp { digits: 6 }, "", &text("294276-12-31 23:59:59.999999"));
        assert_eq!((far, out.starts_with(br#"{"year":294276,"month":12,"day":31,"hour":23"#)), (Some(false), true));
        assert_eq!(put(&mut out, &Type::Bool, "", &Value::Bool(true)), None);
    }
}
