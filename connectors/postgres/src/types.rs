//! Pure. Walk: row-change 3/17. PostgreSQL's types, both ways: column text → `Value` by the column's [`Type`], `Value` →
//! text that a cast in the target reads back, catalogue type → [`Type`], [`Type`] → column type of a table we create.
//!
//! Everything goes by text in fixed session settings ([`SESSION`]): ISO dates, UTC, hex bytea, interval style postgres,
//! shortest exact floats. What has no variant in `Value`, or a value outside a variant's range (a timestamp after
//! 294246, an infinite interval, an array with other bounds), stays the server's own text: nothing is lost, nothing
//! fails. The only error is text that is not UTF-8.

pub mod array;
pub mod binary;
pub mod native;
pub mod schema;
pub mod send;
pub mod time;
mod tsquery;

use bytes::Bytes;
use catchwater_change::value::Text;
use catchwater_change::{Decimal, Type, Value};
use std::fmt::Write as _;

/// Settings of every session whose text we read or write.
pub const SESSION: &[(&str, &str)] = &[
    ("client_encoding", "UTF8"),
    ("datestyle", "ISO, MDY"),
    ("intervalstyle", "postgres"),
    ("timezone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    ("xmloption", "content"),
    ("standard_conforming_strings", "on"),
];

/// A column's bytes are not UTF-8 (a database with encoding SQL_ASCII holds anything).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("text is not UTF-8")]
pub struct NotUtf8;

/// Column text as the server sent it → value. Never fails but for encoding.
pub fn decode(kind: &Type, bytes: Bytes) -> Result<Value, NotUtf8> {
    if matches!(kind, Type::Text { .. }) {
        return Text::from_utf8(bytes).map(Value::Text).map_err(|_| NotUtf8);
    }
    let Ok(text) = std::str::from_utf8(&bytes) else { return Err(NotUtf8) };
    if let Some(value) = parse(kind, text, &bytes) {
        return Ok(value);
    }
    Text::from_utf8(bytes).map(Value::Text).map_err(|_| NotUtf8)
}

/// As [`decode`], of those types that need no bytes of their own, nearly all columns of numbers and times; `None` = ask
/// [`decode`].
pub fn decode_plain(kind: &Type, bytes: &[u8]) -> Option<Value> {
    match kind {
        Type::Bool => match bytes {
            b"t" => Some(Value::Bool(true)),
            b"f" => Some(Value::Bool(false)),
            _ => None,
        },
        Type::Int { .. } => short_integer(bytes).map(Value::Int),
        Type::Float { .. }
        | Type::Decimal { .. }
        | Type::Date
        | Type::Time { zone: false, .. }
        | Type::Timestamp { .. }
        | Type::Instant { .. } => parse(kind, std::str::from_utf8(bytes).ok()?, &Bytes::new()),
        _ => None,
    }
}

/// A whole number of at most 18 digits, which an `i64` holds whatever they are.
fn short_integer(bytes: &[u8]) -> Option<i64> {
    let (negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let mut number = 0;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number * 10 + i64::from(digit);
    }
    Some(if negative { -number } else { number })
}

/// `None` = keep it as text. `whole` is the same bytes, for values that share them.
fn parse(kind: &Type, text: &str, whole: &Bytes) -> Option<Value> {
    Some(match kind {
        Type::Bool => match text {
            "t" => Value::Bool(true),
            "f" => Value::Bool(false),
            _ => return None,
        },
        Type::Int { .. } => match text.parse::<i64>() {
            Ok(v) => Value::Int(v),
            Err(_) => Value::UInt(text.parse::<u64>().ok()?),
        },
        Type::Float { bits: 32 } => Value::Float32(text.parse().ok()?),
        Type::Float { .. } => Value::Float64(text.parse().ok()?),
        Type::Decimal { .. } => Value::Decimal(Decimal::parse(text).ok().or_else(|| money(text))?),
        Type::Bytes => Value::Bytes(Bytes::from(unhex(text.strip_prefix("\\x")?)?)),
        Type::Date => Value::Date(time::parse_date(text)?),
        Type::Time { zone: false, .. } => Value::Time(time::parse_time(text)?),
        Type::Timestamp { .. } => Value::Timestamp(time::parse_timestamp(text, time::Zone::None)?),
        Type::Instant { .. } => Value::Instant(time::parse_timestamp(text, time::Zone::Utc)?),
        Type::Interval => {
            let (months, days, micros) = time::parse_interval(text)?;
            Value::Interval { months, days, micros }
        }
        Type::Json { .. } => Value::Json(Text::from_utf8(whole.clone()).ok()?),
        Type::Array { element } => Value::Array(array::parse(element, text)?),
        _ => return None,
    })
}

/// `-$1,234.56`, as `lc_monetary = C` prints it.
fn money(text: &str) -> Option<Decimal> {
    let plain: String = text.chars().filter(|c| !matches!(c, '$' | ',')).collect();
    if text.contains('$') { Decimal::parse(&plain).ok() } else { None }
}

/// Value → text that PostgreSQL's input function of a fitting type reads as the same value.
pub fn literal(value: &Value) -> String {
    let mut out = String::new();
    write_literal(value, &mut out);
    out
}

/// As [`literal`], appending.
pub fn write_literal(value: &Value, out: &mut String) {
    // Writing into a String cannot fail.
    let _ = match value {
        Value::Bool(v) => out.write_str(if *v { "t" } else { "f" }),
        Value::Int(v) => write!(out, "{v}"),
        Value::UInt(v) => write!(out, "{v}"),
        Value::Decimal(v) => write!(out, "{v}"),
        Value::Float32(v) => write_float(out, f64::from(*v), || format!("{v:?}")),
        Value::Float64(v) => write_float(out, *v, || format!("{v:?}")),
        Value::Text(v) | Value::Json(v) => out.write_str(v.as_str()),
        Value::Bytes(v) => {
            out.reserve(2 + v.len() * 2);
            out.push_str("\\x");
            const HEX: &[u8; 16] = b"0123456789abcdef";
            for b in v {
                out.push(char::from(HEX[usize::from(b >> 4)]));
                out.push(char::from(HEX[usize::from(b & 15)]));
            }
            Ok(())
        }
        Value::Date(v) => out.write_str(&time::print_date(*v)),
        Value::Time(v) => out.write_str(&time::print_time(*v)),
        Value::Timestamp(v) => out.write_str(&time::print_timestamp(*v, time::Zone::None)),
        Value::Instant(v) => out.write_str(&time::print_timestamp(*v, time::Zone::Utc)),
        Value::Interval { months, days, micros } => out.write_str(&time::print_interval(*months, *days, *micros)),
        Value::Array(items) => {
            array::print(items, out);
            Ok(())
        }
    };
}

fn write_float(out: &mut String, v: f64, shortest: impl Fn() -> String) -> std::fmt::Result {
    if v.is_nan() {
        out.write_str("NaN")
    } else if v.is_infinite() {
        out.write_str(if v > 0.0 { "Infinity" } else { "-Infinity" })
    } else {
        out.write_str(&shortest())
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        b'A'..=b'F' => Some(b - b'A' + 10),
        _ => None,
    };
    let pairs = text.as_bytes().chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(|p| Some(digit(p[0])? << 4 | digit(p[1])?)).collect()
}

#[cfg(test)]
mod tests;
