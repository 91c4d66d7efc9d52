//! Pure. One-dimensional arrays with lower bound 1, as text: `{1,NULL,"a b"}`, and in the binary form. Others stay the
//! server's text, or become it.

use crate::types::binary::{self, BinaryError};
use crate::types::time;
use crate::types::{decode, literal, write_literal};
use bytes::{Buf, Bytes};
use catchwater_change::{Type, Value, float_text};

/// `None` = more dimensions, other bounds, or not an array's text.
pub fn parse(element: &Type, text: &str) -> Option<Vec<Option<Value>>> {
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    let mut out = Vec::new();
    if inner.is_empty() {
        return Some(out);
    }
    let mut rest = inner.as_bytes();
    loop {
        let (&first, _) = rest.split_first()?;
        let item = if first == b'"' {
            let (item, tail) = quoted(&rest[1..])?;
            rest = tail;
            Some(item)
        } else {
            let end = rest.iter().position(|b| *b == b',').unwrap_or(rest.len());
            let (item, tail) = rest.split_at(end);
            rest = tail;
            // An unquoted brace opens another dimension; quotes or backslashes inside an unquoted item never occur.
            if item.is_empty() || item.iter().any(|b| matches!(b, b'{' | b'}' | b'"' | b'\\')) {
                return None;
            }
            (item != b"NULL").then(|| item.to_vec())
        };
        out.push(match item {
            None => None,
            Some(bytes) => Some(decode(element, Bytes::from(bytes)).ok()?),
        });
        match rest.split_first() {
            None => return Some(out),
            Some((b',', tail)) => rest = tail,
            Some(_) => return None,
        }
    }
}

/// After the opening quote: the item and what follows the closing one.
fn quoted(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut item = Vec::new();
    loop {
        let (&b, tail) = rest.split_first()?;
        rest = tail;
        match b {
            b'"' => return Some((item, rest)),
            b'\\' => {
                let (&escaped, tail) = rest.split_first()?;
                item.push(escaped);
                rest = tail;
            }
            _ => item.push(b),
        }
    }
}

/// Every item quoted but NULL and numbers, so that no text is mistaken for NULL or a delimiter.
pub fn print(items: &[Option<Value>], out: &mut String) {
    out.push('{');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        match item {
            None => out.push_str("NULL"),
            Some(v @ (Value::Int(_) | Value::UInt(_) | Value::Bool(_) | Value::Decimal(_))) => write_literal(v, out),
            Some(v) => {
                let mut text = String::new();
                write_literal(v, &mut text);
                out.push('"');
                for c in text.chars() {
                    if matches!(c, '"' | '\\') {
                        out.push('\\');
                    }
                    out.push(c);
                }
                out.push('"');
            }
        }
    }
    out.push('}');
}

/// PostgreSQL's own limit.
const DIMENSIONS_MAX: i32 = 6;

/// The binary form: dimensions, whether there are NULLs, the element's type; of each dimension its length and lower bound;
/// the elements, each with its length. Source: PostgreSQL 15, `src/backend/utils/adt/arrayfuncs.c`, `array_send`, `array_out`.
pub fn from_binary(element: &Type, native: &str, mut bytes: Bytes) -> Result<Value, BinaryError> {
    if bytes.len() < 12 {
        return Err(BinaryError::Foreign);
    }
    let dimensions = bytes.get_i32();
    bytes.advance(8);
    if !(0..=DIMENSIONS_MAX).contains(&dimensions) || bytes.len() < dimensions as usize * 8 {
        return Err(BinaryError::Foreign);
    }
    let bounds: Vec<(i32, i32)> = (0..dimensions).map(|_| (bytes.get_i32(), bytes.get_i32())).collect();
    let mut count = usize::from(dimensions > 0);
    for (len, _) in &bounds {
        let len = usize::try_from(*len).map_err(|_| BinaryError::Foreign)?;
        // Each element has a length of four bytes.
        count = count.checked_mul(len).filter(|n| *n <= bytes.len() / 4).ok_or(BinaryError::Foreign)?;
    }
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        if bytes.len() < 4 {
            return Err(BinaryError::Foreign);
        }
        items.push(match bytes.get_i32() {
            -1 => None,
            len => {
                let len = usize::try_from(len).ok().filter(|len| *len <= bytes.len()).ok_or(BinaryError::Foreign)?;
                Some(binary::decode(element, native, bytes.split_to(len))?)
            }
        });
    }
    if !bytes.is_empty() {
        return Err(BinaryError::Foreign);
    }
    if matches!(bounds[..], [] | [(_, 1)]) {
        return Ok(Value::Array(items));
    }
    let mut out = String::new();
    if bounds.iter().any(|(_, lower)| *lower != 1) {
        for (len, lower) in &bounds {
            let upper = i64::from(*lower) + i64::from(*len) - 1;
            out.push_str(&format!("[{lower}:{upper}]"));
        }
        out.push('=');
    }
    let texts: Vec<Option<String>> = items.iter().map(|v| v.as_ref().map(printed)).collect();
    nested(&bounds, &texts, &mut out);
    Ok(Value::Text(out.into()))
}

/// As the server prints an element.
pub(super) fn printed(value: &Value) -> String {
    match value {
        Value::Float32(v) => float_text::of_f32(*v),
        Value::Float64(v) => float_text::of_f64(*v),
        Value::Interval { months, days, micros } => time::server_interval(*months, *days, *micros),
        value => literal(value),
    }
}

fn nested(bounds: &[(i32, i32)], texts: &[Option<String>], out: &mut String) {
    let Some(((len, _), inner)) = bounds.split_first() else {
        if let Some(text) = texts.first() {
            item(text.as_deref(), out);
        }
        return;
    };
    out.push('{');
    let step = texts.len() / (*len).max(1) as usize;
    for (i, part) in texts.chunks(step.max(1)).enumerate() {
        if i > 0 {
            out.push(',');
        }
        nested(inner, part, out);
    }
    out.push('}');
}

/// As the server prints it inside braces.
fn item(text: Option<&str>, out: &mut String) {
    let Some(text) = text else { return out.push_str("NULL") };
    let odd = |c: char| matches!(c, '"' | '\\' | '{' | '}' | ',' | ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}');
    if !text.is_empty() && !text.eq_ignore_ascii_case("null") && !text.contains(odd) {
        return out.push_str(text);
    }
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), small in prop::collection::vec(0u8..3, 0..80)) {
            let kind = Type::Text { length: 0 };
            let _ = from_binary(&kind, "", bytes.into());
            // Counts that claim much: bounded by what is there.
            let few: Vec<u8> = small.iter().flat_map(|b| [0, 0, 0, *b]).collect();
            let _ = from_binary(&kind, "", few.into());
        }
    }
}
