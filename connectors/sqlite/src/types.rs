//! Pure. SQLite's types in both directions: a declared type to a [`Type`], stored values to [`Value`], and back.
//!
//! A column of SQLite may hold any storage class, whatever its declaration says. So a value keeps its class here
//! (integer, real, text, blob stay apart); only where the declaration and the class agree is it given the friendlier
//! form: 0 and 1 in a BOOLEAN column, numbers in a DECIMAL(p,s) column. Source: sqlite.org/datatype3.html, 3.1.

use catchwater_change::{Cell, Column, Decimal, TableSchema, Type, Value, calendar, exact};
use rusqlite::types::{ToSqlOutput, Value as Sql, ValueRef};

/// Most digits a REAL keeps of a decimal.
const EXACT_DIGITS: u32 = 15;

/// What a declared type means.
pub fn kind_of(declared: &str) -> Type {
    let upper = declared.to_ascii_uppercase();
    let has = |word: &str| upper.contains(word);
    // The order is SQLite's own, for the affinity; then names people use.
    if has("INT") {
        Type::Int { bits: 64, unsigned: false }
    } else if has("CHAR") || has("CLOB") || has("TEXT") {
        Type::Text { length: 0 }
    } else if has("BLOB") {
        Type::Bytes
    } else if upper.trim().is_empty() {
        Type::Other
    } else if has("REAL") || has("FLOA") || has("DOUB") {
        Type::Float { bits: 64 }
    } else if has("BOOL") {
        Type::Bool
    } else if has("DATE") || has("TIME") {
        Type::Text { length: 0 }
    } else {
        match digits(&upper) {
            Some((precision, scale)) if precision <= EXACT_DIGITS => Type::Decimal { precision, scale },
            _ if has("NUM") || has("DEC") => Type::Float { bits: 64 },
            _ => Type::Other,
        }
    }
}

/// `DECIMAL(10,2)` → (10, 2).
fn digits(declared: &str) -> Option<(u32, i32)> {
    let (name, rest) = declared.split_once('(')?;
    if !(name.contains("NUM") || name.contains("DEC")) {
        return None;
    }
    let mut parts = rest.split_once(')')?.0.split(',').map(str::trim);
    let precision: u32 = parts.next()?.parse().ok()?;
    let scale: i32 = parts.next().map_or(Some(0), |s| s.parse().ok())?;
    (precision > 0 && scale >= 0 && scale.unsigned_abs() <= precision).then_some((precision, scale))
}

/// A stored value. Text that is no UTF-8 is taken as its bytes.
pub fn cell_of(column: &Column, stored: ValueRef<'_>) -> Cell {
    Cell::Value(match stored {
        ValueRef::Null => return Cell::Null,
        ValueRef::Integer(i) => match &column.kind {
            Type::Bool if i == 0 || i == 1 => Value::Bool(i == 1),
            Type::Decimal { scale, .. } => decimal(&i.to_string(), *scale).unwrap_or(Value::Int(i)),
            _ => Value::Int(i),
        },
        ValueRef::Real(f) => match &column.kind {
            Type::Decimal { scale, .. } if f.is_finite() => real_as_decimal(f, *scale).unwrap_or(Value::Float64(f)),
            _ => Value::Float64(f),
        },
        ValueRef::Text(t) => match std::str::from_utf8(t) {
            Ok(t) => Value::Text(t.into()),
            Err(_) => Value::Bytes(bytes::Bytes::copy_from_slice(t)),
        },
        ValueRef::Blob(b) => Value::Bytes(bytes::Bytes::copy_from_slice(b)),
    })
}

/// A number as a decimal of its column's scale, if a REAL could carry all its digits: more would not come back.
fn decimal(text: &str, scale: i32) -> Option<Value> {
    let d = Decimal::parse(text).ok()?.rescale(scale)?;
    let digits = d.to_string().bytes().filter(u8::is_ascii_digit).count();
    (digits <= EXACT_DIGITS as usize).then_some(Value::Decimal(d))
}

/// A real as a decimal of its column's scale, if that gives the very same real back.
fn real_as_decimal(f: f64, scale: i32) -> Option<Value> {
    let text = format!("{f}");
    let value = decimal(&text, scale)?;
    let Value::Decimal(d) = &value else { return None };
    let back = d.to_string();
    let digits = back.bytes().filter(u8::is_ascii_digit).count();
    (back.parse::<f64>().ok().map(f64::to_bits) == Some(f.to_bits()) && digits <= EXACT_DIGITS as usize)
        .then_some(value)
}

/// The declared type of a column of the target. Columns of a SQLite source keep their declaration word for word, so the
/// copy has the same affinities; others get one that holds every value exactly.
pub fn declared_for(column: &Column) -> String {
    // PostgreSQL's and other servers' types have an id; SQLite's have none.
    let verbatim = column.native_id == 0
        && kind_of(&column.native_type) == column.kind
        && column
            .native_type
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b' ' | b'(' | b')' | b',' | b'_'));
    if verbatim {
        return column.native_type.clone();
    }
    match &column.kind {
        Type::Bool => "BOOLEAN".into(),
        // A big unsigned number does not fit an INTEGER, and a REAL would round it.
        Type::Int { bits: 64.., unsigned: true } => "TEXT".into(),
        Type::Int { .. } => "INTEGER".into(),
        Type::Float { .. } => "REAL".into(),
        Type::Decimal { precision, scale } if (1..=EXACT_DIGITS).contains(precision) && *scale >= 0 => {
            format!("DECIMAL({precision},{scale})")
        }
        Type::Bytes => "BLOB".into(),
        _ => "TEXT".into(),
    }
}

/// What is bound for a cell; `None` = it was not sent.
pub fn bound(kind: &Type, cell: &Cell) -> Option<Sql> {
    match cell {
        Cell::Null => Some(Sql::Null),
        Cell::Unavailable | Cell::Absent => None,
        Cell::Value(v) => Some(bind(kind, v)),
    }
}

fn bind(kind: &Type, value: &Value) -> Sql {
    match value {
        Value::Bool(b) => Sql::Integer(i64::from(*b)),
        Value::Int(i) => Sql::Integer(*i),
        Value::UInt(u) => i64::try_from(*u).map_or_else(|_| Sql::Text(u.to_string()), Sql::Integer),
        // In a column of numeric affinity the text becomes a number again, in one of text affinity it stays exact.
        Value::Decimal(d) => Sql::Text(d.to_string()),
        // The shortest text of a single stands for the same number as a double.
        Value::Float32(f) => float(f.to_string().parse().unwrap_or(f64::from(*f))),
        Value::Float64(f) => float(*f),
        Value::Text(t) => Sql::Text(t.as_str().to_owned()),
        Value::Bytes(b) => Sql::Blob(b.to_vec()),
        Value::Json(t) => Sql::Text(t.as_str().to_owned()),
        Value::Date(d) => Sql::Text(date_text(*d)),
        Value::Time(us) => Sql::Text(calendar::clock_text(*us, 6)),
        Value::Timestamp(us) => Sql::Text(timestamp_text(*us, "")),
        Value::Instant(us) => Sql::Text(timestamp_text(*us, "Z")),
        Value::Interval { .. } | Value::Array(_) => Sql::Text(printed(kind, value)),
    }
}

/// SQLite stores NaN as NULL; the word keeps it apart.
fn float(f: f64) -> Sql {
    if f.is_nan() { Sql::Text("NaN".into()) } else { Sql::Real(f) }
}

fn date_text(days: i32) -> String {
    match days {
        i32::MAX => "infinity".into(),
        i32::MIN => "-infinity".into(),
        _ => {
            let (y, m, d) = calendar::civil(i64::from(days));
            // SQLite's date functions know the years 0 to 9999; others are kept readable and exact.
            format!("{y:04}-{m:02}-{d:02}")
        }
    }
}

fn timestamp_text(micros: i64, zone: &str) -> String {
    match micros {
        i64::MAX => "infinity".into(),
        i64::MIN => "-infinity".into(),
        _ => {
            let (y, m, d) = calendar::civil(micros.div_euclid(86_400_000_000));
            let clock = calendar::clock_text(micros.rem_euclid(86_400_000_000), 6);
            format!("{y:04}-{m:02}-{d:02} {clock}{zone}")
        }
    }
}

/// Text of what SQLite has no form for: PostgreSQL's interval, an array as JSON.
fn printed(kind: &Type, value: &Value) -> String {
    match value {
        Value::Interval { months, days, micros } => exact::interval_text(*months, *days, *micros),
        Value::Array(items) => {
            let element = match kind {
                Type::Array { element } => element,
                other => other,
            };
            let parts: Vec<String> = items
                .iter()
                .map(|item| match item {
                    None => "null".into(),
                    Some(v) => match (v, bind(element, v)) {
                        (Value::Array(_) | Value::Json(_), Sql::Text(t)) => t,
                        (Value::Bool(b), _) => b.to_string(),
                        (_, Sql::Integer(i)) => i.to_string(),
                        (_, Sql::Real(f)) if f.is_finite() => format!("{f}"),
                        (_, Sql::Real(f)) => format!("\"{f}\""),
                        (Value::Decimal(_), Sql::Text(t)) => t,
                        (_, Sql::Text(t)) => json_text(&t),
                        (_, Sql::Blob(b)) => json_text(&b.iter().map(|b| format!("{b:02x}")).collect::<String>()),
                        (_, Sql::Null) => "null".into(),
                    },
                })
                .collect();
            format!("[{}]", parts.join(","))
        }
        other => format!("{other:?}"),
    }
}

fn json_text(text: &str) -> String {
    let mut out = Vec::new();
    catchwater_change::json::put_string(&mut out, text);
    String::from_utf8(out).unwrap_or_default()
}

/// `"name"`, quoted for SQL.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A value of a key as text that gives the same value back: bounds of chunks.
pub fn bound_text(stored: ValueRef<'_>) -> String {
    let hex = |b: &[u8]| b.iter().map(|b| format!("{b:02x}")).collect::<String>();
    match stored {
        ValueRef::Null => "n".into(),
        ValueRef::Integer(i) => format!("i{i}"),
        ValueRef::Real(f) => format!("r{:016x}", f.to_bits()),
        ValueRef::Text(t) => match std::str::from_utf8(t) {
            Ok(t) => format!("t{t}"),
            Err(_) => format!("u{}", hex(t)),
        },
        ValueRef::Blob(b) => format!("b{}", hex(b)),
    }
}

pub fn bound_value(text: &str) -> Option<Sql> {
    let (kind, rest) = text.split_at_checked(1)?;
    let unhex = || -> Option<Vec<u8>> {
        if !rest.is_ascii() || rest.len() % 2 != 0 {
            return None;
        }
        (0..rest.len()).step_by(2).map(|i| u8::from_str_radix(&rest[i..i + 2], 16).ok()).collect()
    };
    Some(match kind {
        "n" => Sql::Null,
        "i" => Sql::Integer(rest.parse().ok()?),
        "r" => Sql::Real(f64::from_bits(u64::from_str_radix(rest, 16).ok()?)),
        "t" => Sql::Text(rest.to_owned()),
        "b" | "u" => Sql::Blob(unhex()?),
        _ => return None,
    })
}

/// The column at an index of a schema, or one without a kind for a damaged index.
pub fn kind_at(schema: &TableSchema, index: u16) -> &Type {
    schema.columns.get(usize::from(index)).map_or(&Type::Other, |c| &c.kind)
}

/// Lets a vector of our values be bound.
pub fn output(value: &Sql) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(value.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn column(declared: &str) -> Column {
        Column {
            id: 0,
            name: "c".into(),
            native_type: declared.into(),
            domain: String::new(),
            native_id: 0,
            modifier: -1,
            kind: kind_of(declared),
            nullable: Some(true),
            generated: false,
            identity: false,
            default: String::new(),
            missing: None,
            comment: String::new(),
        }
    }

    #[test]
    fn declared_types() {
        let int = Type::Int { bits: 64, unsigned: false };
        for (declared, want) in [
            ("INTEGER", int.clone()),
            ("bigint", int.clone()),
            ("VARCHAR(20)", Type::Text { length: 0 }),
            ("DOUBLE PRECISION", Type::Float { bits: 64 }),
            ("BLOB", Type::Bytes),
            ("", Type::Other),
            ("BOOLEAN", Type::Bool),
            ("DECIMAL(10,2)", Type::Decimal { precision: 10, scale: 2 }),
            ("NUMERIC(30,2)", Type::Float { bits: 64 }),
            ("NUMERIC", Type::Float { bits: 64 }),
            ("DATETIME", Type::Text { length: 0 }),
            ("JSON", Type::Other),
        ] {
            assert_eq!(kind_of(declared), want, "{declared}");
        }
    }

    #[test]
    fn classes_stay_apart_and_agree_with_the_declaration_where_they_can() {
        let of = |declared: &str, v: ValueRef<'_>| cell_of(&column(declared), v).value().cloned().unwrap();
        assert_eq!(of("INTEGER", ValueRef::Integer(5)), Value::Int(5));
        assert_eq!(of("INTEGER", ValueRef::Real(5.5)), Value::Float64(5.5));
        assert_eq!(of("INTEGER", ValueRef::Text(b"x")), Value::Text("x".into()));
        assert_eq!(of("TEXT", ValueRef::Blob(b"x")), Value::Bytes("x".into()));
        assert_eq!(of("BOOLEAN", ValueRef::Integer(1)), Value::Bool(true));
        assert_eq!(of("BOOLEAN", ValueRef::Integer(7)), Value::Int(7));
        let price = of("DECIMAL(10,2)", ValueRef::Real(12.5));
        assert_eq!(price, Value::Decimal(Decimal::parse("12.50").unwrap()));
        assert_eq!(of("DECIMAL(10,2)", ValueRef::Integer(12)), Value::Decimal(Decimal::parse("12.00").unwrap()));
        // More digits than the declaration allows: SQLite does not care, so the value stays what it is.
        assert_eq!(of("DECIMAL(10,2)", ValueRef::Real(0.125)), Value::Float64(0.125));
        assert_eq!(of("DECIMAL(10,2)", ValueRef::Real(1e300)), Value::Float64(1e300));
        assert_eq!(of("DECIMAL(10,2)", ValueRef::Integer(i64::MAX)), Value::Int(i64::MAX));
    }

    #[test]
    fn bounds_round_trip() {
        for v in [
            Sql::Null,
            Sql::Integer(i64::MIN),
            Sql::Real(-0.1),
            Sql::Text("tü\"".into()),
            Sql::Blob(vec![0, 255]),
            Sql::Text(String::new()),
        ] {
            assert_eq!(bound_value(&bound_text((&v).into())), Some(v));
        }
        assert_eq!(bound_value("b0"), None);
        assert_eq!(bound_value(""), None);
        assert_eq!(bound_value("é"), None);
    }

    #[test]
    fn foreign_types_get_declarations_that_lose_nothing() {
        let foreign = |kind: Type, native: &str| Column { native_id: 25, kind, ..column(native) };
        for (kind, native, want) in [
            (Type::Interval, "interval", "TEXT"),
            (Type::Uuid, "uuid", "TEXT"),
            (Type::Bits { length: 4, varying: false }, "bit(4)", "TEXT"),
            (Type::Decimal { precision: 0, scale: 0 }, "numeric", "TEXT"),
            (Type::Decimal { precision: 10, scale: 2 }, "numeric(10,2)", "DECIMAL(10,2)"),
            (Type::Int { bits: 32, unsigned: false }, "integer", "INTEGER"),
            (Type::Other, "point", "TEXT"),
        ] {
            assert_eq!(declared_for(&foreign(kind, native)), want, "{native}");
        }
        assert_eq!(declared_for(&column("VARCHAR(20)")), "VARCHAR(20)");
        let odd = Column { native_type: "INT); DROP TABLE x; --".into(), ..column("INT") };
        assert_eq!(declared_for(&odd), "INTEGER");
    }

    #[test]
    fn values_without_a_form_of_their_own_are_printed() {
        let text = |v: Value| match bind(&Type::Other, &v) {
            Sql::Text(t) => t,
            other => format!("{other:?}"),
        };
        assert_eq!(text(Value::Date(0)), "1970-01-01");
        assert_eq!(text(Value::Date(i32::MAX)), "infinity");
        assert_eq!(text(Value::Timestamp(1_000_001)), "1970-01-01 00:00:01.000001");
        assert_eq!(text(Value::Instant(-1)), "1969-12-31 23:59:59.999999Z");
        assert_eq!(text(Value::Float64(f64::NAN)), "NaN");
        assert_eq!(text(Value::Float32(0.1)), "Real(0.1)");
        let array = Value::Array(vec![Some(Value::Int(1)), None, Some(Value::Text("a\"".into()))]);
        assert_eq!(text(array), "[1,null,\"a\\\"\"]");
    }
}
