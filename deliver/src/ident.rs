//! Pure. Bytes that say which row is meant: equal bytes = equal key values. Used to fold and to find conflicts inside
//! one group only; never stored.
//!
//! Coarser than a target's own equality is safe for conflicts, finer costs a fall-back (two writes of one key in one
//! statement): numbers are therefore normalised (1.0 = 1.00, -0.0 = 0.0), text is taken byte by byte.

use catchwater_change::{Cell, Decimal, Row, Value};

/// Identity of the cells at `columns`, or `None` if one of them is NULL or was not sent.
pub fn of(row: &Row, columns: impl IntoIterator<Item = u16>) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(24);
    append(&mut out, row, columns).then_some(out)
}

/// Appends what [`of`] gives; false = there is none, and `out` is as it was.
pub fn append(out: &mut Vec<u8>, row: &Row, columns: impl IntoIterator<Item = u16>) -> bool {
    let from = out.len();
    for index in columns {
        match row.cells.get(usize::from(index)) {
            Some(Cell::Value(v)) => put(out, v),
            Some(Cell::Null | Cell::Unavailable | Cell::Absent) | None => {
                out.truncate(from);
                return false;
            }
        }
    }
    true
}

/// [`of`] would give one.
pub fn is_known(row: &Row, columns: impl IntoIterator<Item = u16>) -> bool {
    columns.into_iter().all(|c| matches!(row.cells.get(usize::from(c)), Some(Cell::Value(_))))
}

/// All cells are values or NULL.
pub fn is_complete(row: &Row, columns: impl IntoIterator<Item = u16>) -> bool {
    columns.into_iter().all(|c| matches!(row.cells.get(usize::from(c)), Some(Cell::Value(_) | Cell::Null)))
}

fn put(out: &mut Vec<u8>, value: &Value) {
    fn sized(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
        out.push(tag);
        out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        out.extend_from_slice(bytes);
    }
    fn float(out: &mut Vec<u8>, tag: u8, f: f64) {
        out.push(tag);
        let f = if f == 0.0 { 0.0 } else { f };
        out.extend_from_slice(&f.to_bits().to_be_bytes());
    }
    match value {
        Value::Bool(b) => out.extend_from_slice(&[1, u8::from(*b)]),
        Value::Int(i) => {
            out.push(2);
            out.extend_from_slice(&i128::from(*i).to_be_bytes());
        }
        Value::UInt(u) => {
            out.push(2);
            out.extend_from_slice(&i128::from(*u).to_be_bytes());
        }
        Value::Decimal(d) => {
            let text = d.to_string();
            let short = match d {
                Decimal::Finite { .. } if text.contains('.') => text.trim_end_matches('0').trim_end_matches('.'),
                _ => &text,
            };
            sized(out, 3, short.as_bytes());
        }
        Value::Float32(f) => float(out, 4, f64::from(*f)),
        Value::Float64(f) => float(out, 5, *f),
        Value::Text(t) => sized(out, 6, t.as_bytes()),
        Value::Bytes(b) => sized(out, 7, b),
        Value::Date(d) => {
            out.push(8);
            out.extend_from_slice(&d.to_be_bytes());
        }
        Value::Time(t) => {
            out.push(9);
            out.extend_from_slice(&t.to_be_bytes());
        }
        Value::Timestamp(t) => {
            out.push(10);
            out.extend_from_slice(&t.to_be_bytes());
        }
        Value::Instant(t) => {
            out.push(11);
            out.extend_from_slice(&t.to_be_bytes());
        }
        Value::Interval { months, days, micros } => {
            out.push(12);
            out.extend_from_slice(&months.to_be_bytes());
            out.extend_from_slice(&days.to_be_bytes());
            out.extend_from_slice(&micros.to_be_bytes());
        }
        Value::Json(t) => sized(out, 13, t.as_bytes()),
        Value::Array(items) => {
            out.push(14);
            out.extend_from_slice(&(items.len() as u64).to_be_bytes());
            for item in items {
                match item {
                    None => out.push(0),
                    Some(v) => put(out, v),
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn one(v: Value) -> Option<Vec<u8>> {
        of(&Row::new(vec![Cell::Value(v)]), [0])
    }

    #[test]
    fn equal_values_have_equal_bytes_and_others_do_not() {
        let d = |t: &str| Value::Decimal(Decimal::parse(t).unwrap());
        assert_eq!(one(d("1.0")), one(d("1.00")));
        assert_eq!(one(d("10")), one(d("10.0")));
        assert_ne!(one(d("10")), one(d("1")));
        assert_eq!(one(Value::Float64(-0.0)), one(Value::Float64(0.0)));
        assert_eq!(one(Value::Int(5)), one(Value::UInt(5)));
        assert_ne!(one(Value::Text("5".into())), one(Value::Int(5)));
        // Lengths are part of it: ("a","bc") is not ("ab","c").
        let two = |a: &str, b: &str| {
            of(&Row::new(vec![Cell::Value(Value::Text(a.into())), Cell::Value(Value::Text(b.into()))]), [0, 1])
        };
        assert_ne!(two("a", "bc"), two("ab", "c"));
    }

    #[test]
    fn null_or_missing_cells_have_no_identity() {
        assert_eq!(of(&Row::new(vec![Cell::Null]), [0]), None);
        assert_eq!(of(&Row::new(vec![]), [0]), None);
    }
}
