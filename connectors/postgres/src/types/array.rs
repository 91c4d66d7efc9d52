//! Pure. One-dimensional arrays with lower bound 1, as text: `{1,NULL,"a b"}`. Others stay the server's text.

use crate::types::{decode, write_literal};
use bytes::Bytes;
use catchwater_change::{Type, Value};

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
