//! Pure. The default of a column, as its schema shows it: a literal in the column's form. An expression has no one value and
//! is not shown, but for calls (`now()`, `nextval(…)`), of which whole numbers, dates and moments say 0 as Debezium's do.
//! What else Debezium makes of expressions is in `defects/default.rs`.

use super::source_type::source_type;
use super::value::put_value;
use super::{Options, defects, schema};
use crate::calendar;
use crate::schema::{Column, Type};
use crate::value::{Decimal, Value};
use std::borrow::Cow;

/// Writes `before` and the default that the column's schema shows; false = it shows none, and nothing is written.
pub(super) fn put(out: &mut Vec<u8>, options: &Options, column: &Column, before: &[u8]) -> bool {
    if column.default.is_empty() || !schema::takes_default(options, column) || !is_shown(column) {
        return false;
    }
    if defects::has_no_default(options, column) {
        return false;
    }
    let from = out.len();
    out.extend_from_slice(before);
    // Only PostgreSQL's expressions were ever read by Debezium's parser.
    let done = if options.defects && column.native_id != 0 {
        defects::put_default(out, &options.form, column)
    } else {
        default_of(column).map(|value| put_value(out, &options.form, column, &value)).is_some()
    };
    if !done {
        out.truncate(from);
    }
    done
}

/// Types whose defaults Debezium shows: built-in ones by name, and enums. A domain's, an `oid`'s, a `money`'s is not shown.
/// Source: recordings `binary-*`, `extensions-*`, `propagate-*`.
fn is_shown(column: &Column) -> bool {
    const SHOWN: &str = " bit varbit bool bpchar varchar text numeric float4 float8 int2 int4 int8 smallserial serial bigserial \
                         json jsonb xml uuid date time timestamp timestamptz interval ";
    let named = column.native_type.is_empty() || SHOWN.contains(&format!(" {} ", source_type(column).name));
    // A source that is not PostgreSQL has names of its own.
    named || column.native_id == 0 || matches!(column.kind, Type::Enum { .. })
}

fn default_of(column: &Column) -> Option<Value> {
    match literal(&column.default) {
        Some(text) => value_of(&column.kind, &text),
        None if is_call(&column.default) => match column.kind {
            Type::Int { unsigned: false, .. } => Some(Value::Int(0)),
            Type::Instant { .. } => Some(Value::Instant(0)),
            Type::Timestamp { .. } => Some(Value::Timestamp(0)),
            Type::Date => Some(Value::Date(0)),
            _ => None,
        },
        None => None,
    }
}

/// True for what Debezium takes for a call, whatever stands behind it: `f(…)`, `(f(…) + 1)`, and the moments that are named
/// without brackets. Its pattern: `^[(]?[A-Za-z0-9_.]+\((?:.+(?:, ?.+)*)?\)`.
pub(super) fn is_call(default: &str) -> bool {
    const MOMENTS: [&str; 5] = ["current_timestamp", "current_time", "current_date", "localtime", "localtimestamp"];
    if MOMENTS.iter().any(|m| m.eq_ignore_ascii_case(default)) {
        return true;
    }
    let rest = default.strip_prefix('(').unwrap_or(default);
    let name = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.')).count();
    let Some(inside) = rest[name..].strip_prefix('(').filter(|_| name > 0) else { return false };
    // Java's `.` does not go beyond a line.
    inside.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).next().is_some_and(|line| line.contains(')'))
}

/// `'text'::type`, `42`, `(-1)`, `('101'::"bit")::bit varying`, `true`: the text inside; `None` = an expression, or NULL.
fn literal(default: &str) -> Option<Cow<'_, str>> {
    let (text, rest) = casted(default.trim(), 0)?;
    rest.is_empty().then_some(text)
}

/// Brackets within brackets that are followed.
const DEPTH_MAX: u8 = 8;

/// A literal with its casts, and what stands behind.
fn casted(from: &str, depth: u8) -> Option<(Cow<'_, str>, &str)> {
    let (text, mut rest) = atom(from, depth)?;
    while let Some(cast) = rest.strip_prefix("::") {
        rest = without_type(cast)?;
    }
    Some((text, rest))
}

fn atom(from: &str, depth: u8) -> Option<(Cow<'_, str>, &str)> {
    if let Some(inside) = from.strip_prefix('(') {
        let (text, rest) = if depth < DEPTH_MAX { casted(inside, depth + 1)? } else { return None };
        return Some((text, rest.strip_prefix(')')?));
    }
    if let Some(quoted) = from.strip_prefix('\'') {
        let mut at = 0;
        loop {
            at += quoted[at..].find('\'')?;
            if !quoted[at + 1..].starts_with('\'') {
                break;
            }
            at += 2;
        }
        let text = &quoted[..at];
        let text = if text.contains('\'') { text.replace("''", "'").into() } else { text.into() };
        return Some((text, &quoted[at + 1..]));
    }
    let end = from.find([':', ')']).unwrap_or(from.len());
    let word = &from[..end];
    (matches!(word, "true" | "false") || Decimal::parse(word).is_ok()).then_some((word.into(), &from[end..]))
}

/// What follows a type's name as the server prints it: `numeric(5,2)`, `other."Mo od"[]`, `timestamp(3) without time zone`.
fn without_type(from: &str) -> Option<&str> {
    const MORE: [&str; 13] = [
        "varying",
        "precision",
        "with",
        "without",
        "time",
        "zone",
        "year",
        "month",
        "day",
        "hour",
        "minute",
        "second",
        "to",
    ];
    let mut rest = part(from)?;
    while let Some(next) = rest.strip_prefix('.') {
        rest = part(next)?;
    }
    loop {
        if let Some(modifier) = rest.strip_prefix('(') {
            let (digits, behind) = modifier.split_once(')')?;
            if !digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b',' | b'-' | b' ')) {
                return None;
            }
            rest = behind;
        } else if let Some(behind) = rest.strip_prefix("[]") {
            rest = behind;
        } else if let Some(word) = rest.strip_prefix(' ').filter(|w| MORE.iter().any(|m| w.starts_with(m))) {
            rest = part(word)?;
        } else {
            return Some(rest);
        }
    }
}

/// Behind a name, in quotes or not.
fn part(from: &str) -> Option<&str> {
    if let Some(quoted) = from.strip_prefix('"') {
        let mut at = 0;
        loop {
            at += quoted[at..].find('"')? + 1;
            match quoted[at..].strip_prefix('"') {
                Some(_) => at += 1,
                None => return Some(&quoted[at..]),
            }
        }
    }
    let end = from.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$'))).unwrap_or(from.len());
    (end > 0).then(|| &from[end..])
}

fn value_of(kind: &Type, text: &str) -> Option<Value> {
    Some(match kind {
        Type::Bool => Value::Bool(matches!(text, "true" | "t")),
        Type::Int { unsigned: false, .. } => Value::Int(text.parse().ok()?),
        Type::Float { bits: 32 } => Value::Float32(text.parse().ok()?),
        Type::Float { .. } => Value::Float64(text.parse().ok()?),
        Type::Decimal { precision, scale } => {
            let d = Decimal::parse(text).ok().filter(|d| matches!(d, Decimal::Finite { .. }))?;
            Value::Decimal(if *precision > 0 && *scale >= 0 {
                d.rescale(*scale).or_else(|| d.rounded(*scale))?
            } else {
                d
            })
        }
        Type::Date => Value::Date(match text {
            "infinity" => i32::MAX,
            "-infinity" => i32::MIN,
            text => i32::try_from(moment(text)?.div_euclid(i128::from(DAY_US))).ok()?,
        }),
        Type::Time { zone: false, digits } => Value::Time(rounded(calendar::parse_clock(text)?.into(), *digits)?),
        Type::Timestamp { digits } => match text {
            "infinity" => Value::Timestamp(i64::MAX),
            "-infinity" => Value::Timestamp(i64::MIN),
            text => match rounded(moment(text)?, *digits) {
                Some(micros) => Value::Timestamp(micros),
                None => Value::Text(text.into()),
            },
        },
        Type::Instant { digits } => match text {
            "infinity" => Value::Instant(i64::MAX),
            "-infinity" => Value::Instant(i64::MIN),
            text => match rounded(moment(text)?, *digits) {
                Some(micros) => Value::Instant(micros),
                None => Value::Text(text.into()),
            },
        },
        Type::Interval => interval(text)?,
        Type::Json { .. } => Value::Json(text.into()),
        Type::Text { .. } | Type::Enum { .. } | Type::Uuid | Type::Xml | Type::Bits { .. } => Value::Text(text.into()),
        _ => return None,
    })
}

const DAY_US: i64 = 86_400_000_000;

/// Microseconds since 1970 of a moment or a day as the server prints it, at UTC.
pub(super) fn moment(text: &str) -> Option<i128> {
    calendar::parse_wide(text)
        .or_else(|| calendar::server_days(text).map(|days| i128::from(days) * i128::from(DAY_US)))
        // SQLite, and a text that nobody printed: `2020-01-01T00:00:00Z`.
        .or_else(|| calendar::parse_instant(text).map(i128::from))
}

/// As the server stores it in a column of so many digits.
fn rounded(micros: i128, digits: u32) -> Option<i64> {
    let unit = 10i128.pow(6u32.saturating_sub(digits));
    i64::try_from((micros + unit / 2).div_euclid(unit) * unit).ok()
}

/// `1 year 2 mons -3 days +04:05:06.5`, as the server prints a default.
fn interval(text: &str) -> Option<Value> {
    let (mut months, mut days, mut micros) = (0i32, 0i32, 0i64);
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        if let Some((hours, rest)) = word.trim_start_matches(['-', '+']).split_once(':') {
            let hour_us = hours.parse::<i64>().ok()?.checked_mul(3_600_000_000)?;
            micros = hour_us.checked_add(calendar::parse_clock(&format!("00:{rest}"))?)?;
            micros = if word.starts_with('-') { -micros } else { micros };
            continue;
        }
        let n: i32 = word.parse().ok()?;
        match words.next()? {
            "year" | "years" => months = months.checked_add(n.checked_mul(12)?)?,
            "mon" | "mons" => months = months.checked_add(n)?,
            "day" | "days" => days = n,
            _ => return None,
        }
    }
    Some(Value::Interval { months, days, micros })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_is_one_whatever_it_is_cast_to() {
        for (default, text) in [
            ("42", Some("42")),
            ("'-5'::integer", Some("-5")),
            ("(-1)", Some("-1")),
            ("(5)::bigint", Some("5")),
            ("'it''s'::character varying(3)", Some("it's")),
            ("''''::text", Some("'")),
            ("''::text", Some("")),
            ("('a'::character varying(3))::text", Some("a")),
            ("('101'::\"bit\")::bit varying(5)", Some("101")),
            ("'a::b'::other.\"Mo\"\".od\"", Some("a::b")),
            ("'{a,b}'::text[]", Some("{a,b}")),
            ("'1 day'::interval day to second(2)", Some("1 day")),
            ("'12:00:00'::time(3) without time zone", Some("12:00:00")),
            ("true", Some("true")),
            ("NULL::character varying", None),
            ("(1 + 1)", None),
            ("((1)::smallint + (1)::smallint)", None),
            ("('x'::text || 'y'::text)", None),
            ("('2020-01-01'::date + 1)", None),
            ("CURRENT_USER", None),
            ("now()", None),
            ("'a'::text COLLATE \"C\"", None),
            ("\nCASE\n    WHEN true THEN 3\n    ELSE 4\nEND", None),
            ("'open", None),
            ("((((((((((1))))))))))", None),
        ] {
            assert_eq!(literal(default).as_deref(), text, "{default}");
        }
    }

    #[test]
    fn calls_are_what_debezium_takes_for_them() {
        for (default, is) in [
            ("nextval('a'::regclass)", true),
            ("pg_catalog.f()", true),
            ("(f(2) + 1)", true),
            ("EXTRACT(year FROM now())", true),
            ("localTIME", true),
            ("(1 + f(2))", false),
            ("(- length('x'))", false),
            ("\"left\"('a'::text, 2)", false),
            ("((random() * 10))::integer", false),
            ("CURRENT_USER", false),
            ("f('a\n'::text)", false),
        ] {
            assert_eq!(is_call(default), is, "{default}");
        }
    }

    #[test]
    fn values_are_those_that_the_server_stores() {
        let instant = Type::Instant { digits: 3 };
        for (kind, text, value) in [
            (Type::Date, "infinity", Some(Value::Date(i32::MAX))),
            (Type::Date, "0044-03-15 BC", Some(Value::Date(-735_160))),
            (Type::Date, "2020-01-01 00:00:00", Some(Value::Date(18_262))),
            (Type::Time { digits: 3, zone: false }, "01:02:03.4567", Some(Value::Time(3_723_457_000))),
            (Type::Time { digits: 0, zone: false }, "24:00:00", Some(Value::Time(DAY_US))),
            (instant, "2020-06-01 12:00:00.123456+00", Some(Value::Instant(1_591_012_800_123_000))),
            (Type::Timestamp { digits: 6 }, "-infinity", Some(Value::Timestamp(i64::MIN))),
            (Type::Timestamp { digits: 6 }, "294276-12-31 23:59:59", Some(Value::Text("294276-12-31 23:59:59".into()))),
            (Type::Decimal { precision: 6, scale: 2 }, "NaN", None),
            (
                Type::Interval,
                "-1 years -2 days +03:00:00",
                Some(Value::Interval { months: -12, days: -2, micros: 10_800_000_000 }),
            ),
            (Type::Interval, "100:00:00", Some(Value::Interval { months: 0, days: 0, micros: 360_000_000_000 })),
        ] {
            assert_eq!(value_of(&kind, text), value, "{text}");
        }
    }
}
