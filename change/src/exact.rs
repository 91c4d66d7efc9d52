//! Pure. `cw.exact`: what Debezium's form of a row cannot say. The source's own text of cells whose form cannot be
//! turned back into the value (an interval with months as microseconds, NaN in a decimal), and which cells are not there
//! (unchanged TOAST, a before image that is the key alone). Rare, so one optional record header; `decode` prefers it,
//! Debezium's readers never see it.
//!
//! `version u8 = 1 | n × (side u8 | column index u16 | len u32 | UTF-8 text)`, big endian. `side` bit 0: 0 before, 1
//! after; bits 1–2: 0 text, 1 the cell was not sent, 2 the cell is not captured, 3 it is NULL (the three with len 0).
//! Column 65535 = every
//! column outside the key that has no mark of its own. A text that begins with U+0001 has the form of [`tagged`].

use crate::schema::Type;
use crate::value::{Decimal, Value};
use bytes::{BufMut, Bytes, BytesMut};

/// Name of the record header.
pub const EXACT_HEADER: &[u8] = b"cw.exact";
/// Stands for every column outside the key.
pub const OUTSIDE_KEY: u16 = u16::MAX;
/// First character of a tagged text.
const TAG: char = '\u{1}';
/// Deepest nesting of arrays in a tagged text.
const DEPTH_MAX: usize = 8;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExactCell {
    pub after: bool,
    pub column: u16,
    pub what: Exact,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Exact {
    Text(String),
    /// [`crate::Cell::Unavailable`]
    Unavailable,
    /// [`crate::Cell::Absent`]
    Absent,
    /// [`crate::Cell::Null`], where the record has the column's default.
    Null,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ExactError {
    #[error("header ends early")]
    Short,
    #[error("version {0} is not known")]
    Version(u8),
    #[error("text is not UTF-8")]
    Utf8,
    #[error("side {0} is not known")]
    Side(u8),
}

pub fn encode(cells: &[ExactCell]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(1);
    for c in cells {
        let (kind, text) = match &c.what {
            Exact::Text(t) => (0u8, t.as_str()),
            Exact::Unavailable => (1, ""),
            Exact::Absent => (2, ""),
            Exact::Null => (3, ""),
        };
        out.put_u8(u8::from(c.after) | kind << 1);
        out.put_u16(c.column);
        out.put_u32(text.len() as u32);
        out.put_slice(text.as_bytes());
    }
    out.freeze()
}

pub fn decode(bytes: &[u8]) -> Result<Vec<ExactCell>, ExactError> {
    let (version, mut rest) = bytes.split_first().ok_or(ExactError::Short)?;
    if *version != 1 {
        return Err(ExactError::Version(*version));
    }
    let mut out = Vec::new();
    while !rest.is_empty() {
        let (head, tail) = rest.split_first_chunk::<7>().ok_or(ExactError::Short)?;
        let len = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        let (text, tail) = tail.split_at_checked(len).ok_or(ExactError::Short)?;
        let what = match head[0] >> 1 {
            0 => Exact::Text(std::str::from_utf8(text).map_err(|_| ExactError::Utf8)?.to_owned()),
            1 => Exact::Unavailable,
            2 => Exact::Absent,
            3 => Exact::Null,
            _ => return Err(ExactError::Side(head[0])),
        };
        out.push(ExactCell { after: head[0] & 1 == 1, column: u16::from_be_bytes([head[1], head[2]]), what });
        rest = tail;
    }
    Ok(out)
}

/// The text of a value in a column of type `kind`: as the source prints it where that can be read back, else tagged.
pub fn text_of(kind: &Type, value: &Value) -> String {
    let plain = match (kind, value) {
        (Type::Decimal { .. }, Value::Decimal(d)) => Some(d.to_string()),
        (Type::Interval, Value::Interval { months, days, micros }) => Some(interval_text(*months, *days, *micros)),
        (_, Value::Text(t)) if carries_text(kind) => Some(t.as_str().to_owned()),
        _ => None,
    };
    match plain {
        Some(text) if value_of(kind, &text).as_ref() == Some(value) => text,
        _ => tagged(value),
    }
}

/// The value of a text made by [`text_of`]; `None` = damaged.
pub fn value_of(kind: &Type, text: &str) -> Option<Value> {
    if let Some(rest) = text.strip_prefix(TAG) {
        return untag(rest, 0);
    }
    match kind {
        Type::Decimal { .. } => Decimal::parse(text).ok().map(Value::Decimal),
        Type::Interval => parse_interval(text),
        _ => Some(Value::Text(text.into())),
    }
}

/// True for types whose value is [`Value::Text`].
pub fn carries_text(kind: &Type) -> bool {
    matches!(
        kind,
        Type::Text { .. }
            | Type::Uuid
            | Type::Enum { .. }
            | Type::Xml
            | Type::Other
            | Type::Bits { .. }
            | Type::Time { zone: true, .. }
    )
}

/// PostgreSQL's own form of an interval: `14 mons 3 days 04:05:06.789000`, each part only if it is not zero.
pub fn interval_text(months: i32, days: i32, micros: i64) -> String {
    let mut out = String::new();
    if months != 0 {
        out.push_str(&format!("{months} mons "));
    }
    if days != 0 {
        out.push_str(&format!("{days} days "));
    }
    let (sign, all) = (if micros < 0 { "-" } else { "" }, micros.unsigned_abs());
    let (seconds, fraction) = (all / 1_000_000, all % 1_000_000);
    out.push_str(&format!("{sign}{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60));
    if fraction != 0 {
        out.push_str(&format!(".{fraction:06}"));
    }
    out
}

fn parse_interval(text: &str) -> Option<Value> {
    let (mut months, mut days) = (0, 0);
    let mut rest = text;
    if let Some((n, tail)) = rest.split_once(" mons ") {
        (months, rest) = (n.parse().ok()?, tail);
    }
    if let Some((n, tail)) = rest.split_once(" days ") {
        (days, rest) = (n.parse().ok()?, tail);
    }
    let (negative, clock) = rest.strip_prefix('-').map_or((false, rest), |r| (true, r));
    let mut parts = clock.split(':');
    let (h, m, s) = (parts.next()?, parts.next()?, parts.next()?);
    let (s, fraction) = s.split_once('.').unwrap_or((s, "000000"));
    if parts.next().is_some() || fraction.len() != 6 {
        return None;
    }
    let number = |t: &str| t.parse::<i128>().ok().filter(|_| t.bytes().all(|b| b.is_ascii_digit()));
    let micros = ((number(h)? * 60 + number(m)?) * 60 + number(s)?) * 1_000_000 + number(fraction)?;
    let micros = i64::try_from(if negative { -micros } else { micros }).ok()?;
    Some(Value::Interval { months, days, micros })
}

/// A value with its kind, for cells whose kind is not their column's: U+0001, a letter, then the content.
fn tagged(value: &Value) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let body = match value {
        Value::Bool(v) => format!("b{}", u8::from(*v)),
        Value::Int(v) => format!("i{v}"),
        Value::UInt(v) => format!("u{v}"),
        Value::Decimal(Decimal::Finite { unscaled, scale }) => format!("d{scale}:{}", hex(unscaled)),
        Value::Decimal(d) => format!("n{d}"),
        Value::Float32(v) => format!("f{:08x}", v.to_bits()),
        Value::Float64(v) => format!("g{:016x}", v.to_bits()),
        Value::Text(t) => format!("t{t}"),
        Value::Bytes(b) => format!("x{}", hex(b)),
        Value::Date(v) => format!("D{v}"),
        Value::Time(v) => format!("T{v}"),
        Value::Timestamp(v) => format!("S{v}"),
        Value::Instant(v) => format!("I{v}"),
        Value::Interval { months, days, micros } => format!("V{months}:{days}:{micros}"),
        Value::Json(t) => format!("j{t}"),
        Value::Array(items) => {
            let mut out = String::from("a");
            for item in items {
                match item {
                    None => out.push('-'),
                    Some(v) => {
                        let text = tagged(v);
                        out.push_str(&format!("{}:{text}", text.len()));
                    }
                }
            }
            out
        }
    };
    format!("{TAG}{body}")
}

fn untag(body: &str, depth: usize) -> Option<Value> {
    let kind = body.chars().next().filter(char::is_ascii)?;
    let rest = &body[1..];
    let unhex = |text: &str| -> Option<Vec<u8>> {
        if !text.is_ascii() || !text.len().is_multiple_of(2) {
            return None;
        }
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok()).collect()
    };
    Some(match kind {
        'b' => Value::Bool(rest == "1"),
        'i' => Value::Int(rest.parse().ok()?),
        'u' => Value::UInt(rest.parse().ok()?),
        'd' => {
            let (scale, digits) = rest.split_once(':')?;
            Value::Decimal(Decimal::Finite { scale: scale.parse().ok()?, unscaled: unhex(digits)?.into() })
        }
        'n' => Value::Decimal(Decimal::parse(rest).ok()?),
        'f' => Value::Float32(f32::from_bits(u32::from_str_radix(rest, 16).ok()?)),
        'g' => Value::Float64(f64::from_bits(u64::from_str_radix(rest, 16).ok()?)),
        't' => Value::Text(rest.into()),
        'x' => Value::Bytes(unhex(rest)?.into()),
        'D' => Value::Date(rest.parse().ok()?),
        'T' => Value::Time(rest.parse().ok()?),
        'S' => Value::Timestamp(rest.parse().ok()?),
        'I' => Value::Instant(rest.parse().ok()?),
        'V' => {
            let mut parts = rest.split(':');
            let (months, days) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            Value::Interval { months, days, micros: parts.next()?.parse().ok()? }
        }
        'j' => Value::Json(rest.into()),
        'a' => {
            if depth >= DEPTH_MAX {
                return None;
            }
            let mut items = Vec::new();
            let mut rest = rest;
            while !rest.is_empty() {
                if let Some(tail) = rest.strip_prefix('-') {
                    items.push(None);
                    rest = tail;
                    continue;
                }
                let (len, tail) = rest.split_once(':')?;
                let (item, tail) = tail.split_at_checked(len.parse().ok()?)?;
                items.push(Some(untag(item.strip_prefix(TAG)?, depth + 1)?));
                rest = tail;
            }
            Value::Array(items)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_every_prefix_refused() {
        let cells = vec![
            ExactCell { after: true, column: 3, what: Exact::Text("1 mon".into()) },
            ExactCell { after: false, column: OUTSIDE_KEY, what: Exact::Absent },
            ExactCell { after: false, column: 0, what: Exact::Text("NaN".into()) },
            ExactCell { after: true, column: 4, what: Exact::Unavailable },
            ExactCell { after: true, column: 5, what: Exact::Null },
        ];
        let bytes = encode(&cells);
        assert_eq!(decode(&bytes), Ok(cells));
        assert_eq!(decode(&[]), Err(ExactError::Short));
        assert_eq!(decode(&[2]), Err(ExactError::Version(2)));
        assert_eq!(decode(&bytes[..bytes.len() - 1]), Err(ExactError::Short));
    }

    #[test]
    fn golden_bytes() {
        let cells = [ExactCell { after: true, column: 2, what: Exact::Text("1 mons 00:00:00".into()) }];
        let mut want = vec![1, 1, 0, 2, 0, 0, 0, 15];
        want.extend_from_slice(b"1 mons 00:00:00");
        assert_eq!(encode(&cells), want);
        let hex: String = want.iter().map(|b| format!("{b:02x}")).collect();
        let page = include_str!("../../docs/formats/stamp.md").replace(' ', "");
        assert!(page.contains(&format!("`{hex}`")), "the page has other golden bytes");
    }

    #[test]
    fn intervals_come_back_from_their_text() {
        for (months, days, micros) in
            [(0, 0, 0), (14, 3, 14_706_789_000), (-14, 0, -1), (0, -3, i64::MIN), (i32::MAX, i32::MIN, i64::MAX)]
        {
            let v = Value::Interval { months, days, micros };
            assert_eq!(parse_interval(&interval_text(months, days, micros)), Some(v));
        }
        assert_eq!(interval_text(14, 3, 14_706_789_000), "14 mons 3 days 04:05:06.789000");
    }

    #[test]
    fn damaged_texts_give_none() {
        for bad in ["\u{1}", "\u{1}a5:x", "\u{1}a-1:", "\u{1}z", "\u{1}xz", "\u{1}ü", "\u{1}a1:ü"] {
            assert_eq!(value_of(&Type::Bool, bad), None, "{bad:?}");
        }
    }
}
