//! Pure. Values of rows as people read them and as scripts take them. Only what was asked for is shown: no log line is
//! made of these.

pub mod filter;

use catchwater_change::{Cell, Row, TableSchema, Value, calendar};
use serde_json::{Map, Value as Json, json};

const DAY_US: i64 = 86_400_000_000;
/// What stands for a cell that the source did not send.
pub const UNSENT: &str = "(not sent)";

/// A value as text: numbers and texts as they are, bytes as `\x…`, times in ISO's order.
pub fn text(value: &Value) -> String {
    match value {
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::UInt(i) => i.to_string(),
        Value::Decimal(d) => d.to_string(),
        Value::Float32(f) => float(f64::from(*f), f.to_string()),
        Value::Float64(f) => float(*f, f.to_string()),
        Value::Text(t) | Value::Json(t) => t.to_string(),
        Value::Bytes(b) => b.iter().fold("\\x".to_owned(), |out, b| out + &format!("{b:02x}")),
        Value::Date(i32::MAX) | Value::Timestamp(i64::MAX) | Value::Instant(i64::MAX) => "infinity".into(),
        Value::Date(i32::MIN) | Value::Timestamp(i64::MIN) | Value::Instant(i64::MIN) => "-infinity".into(),
        Value::Date(day) => calendar::date_text(i64::from(*day)),
        Value::Time(us) => calendar::clock_text(*us, 0),
        Value::Timestamp(us) => {
            let (day, clock) = (us.div_euclid(DAY_US), us.rem_euclid(DAY_US));
            format!("{} {}", calendar::date_text(day), calendar::clock_text(clock, 0))
        }
        Value::Instant(us) => calendar::instant_text(*us, 0),
        Value::Interval { months, days, micros } => {
            let sign = if *micros < 0 { "-" } else { "" };
            let us = micros.unsigned_abs();
            let (clock, hours) = ((us % 3_600_000_000) as i64, us / 3_600_000_000);
            format!("{months} mons {days} days {sign}{hours:02}{}", &calendar::clock_text(clock, 0)[2..])
        }
        Value::Array(items) => {
            let one = |i: &Option<Value>| i.as_ref().map_or("NULL".to_owned(), text);
            format!("{{{}}}", items.iter().map(one).collect::<Vec<_>>().join(","))
        }
    }
}

fn float(f: f64, shown: String) -> String {
    match f {
        f if f.is_nan() => "NaN".into(),
        f if f.is_infinite() => if f > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        _ => shown,
    }
}

/// A value for scripts: whole numbers, truth and finite floats as JSON's, all else as its text, so that no digit is lost.
pub fn to_json(value: &Value) -> Json {
    match value {
        Value::Bool(b) => json!(b),
        Value::Int(i) => json!(i),
        Value::UInt(i) => json!(i),
        Value::Float32(f) if f.is_finite() => json!(f),
        Value::Float64(f) if f.is_finite() => json!(f),
        Value::Array(items) => items.iter().map(|i| i.as_ref().map_or(Json::Null, to_json)).collect(),
        other => json!(text(other)),
    }
}

/// Column → value; what was not sent is left out and named in the second.
pub fn row_json(schema: &TableSchema, row: &Row) -> (Map<String, Json>, Vec<String>) {
    let (mut out, mut unsent) = (Map::new(), Vec::new());
    for (column, cell) in schema.columns.iter().zip(&row.cells) {
        match cell {
            Cell::Value(v) => drop(out.insert(column.name.clone(), to_json(v))),
            Cell::Null => drop(out.insert(column.name.clone(), Json::Null)),
            Cell::Unavailable => unsent.push(column.name.clone()),
            Cell::Absent => {}
        }
    }
    (out, unsent)
}

/// A cell for a line on a screen: control characters are escaped, texts stand in quotes, at most `most` characters.
pub fn cell_line(cell: &Cell, most: usize) -> String {
    let value = match cell {
        Cell::Null => return "NULL".into(),
        Cell::Unavailable | Cell::Absent => return UNSENT.into(),
        Cell::Value(v) => v,
    };
    let quoted = matches!(value, Value::Text(_) | Value::Json(_));
    let full = text(value);
    let mut out = String::new();
    let mut chars = full.chars();
    for c in chars.by_ref().take(most) {
        match c {
            '\'' if quoted => out.push_str("''"),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    if chars.next().is_some() {
        out.push('…');
    }
    if quoted { format!("'{out}'") } else { out }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use catchwater_change::Decimal;

    #[test]
    fn values_as_people_read_them() {
        let cases = [
            (Value::Decimal(Decimal::parse("12.340").unwrap()), "12.340"),
            (Value::Float64(f64::NAN), "NaN"),
            (Value::Float32(1.5), "1.5"),
            (Value::Bytes(vec![0, 0xff].into()), "\\x00ff"),
            (Value::Date(0), "1970-01-01"),
            (Value::Date(i32::MAX), "infinity"),
            (Value::Time(3_661_000_001), "01:01:01.000001"),
            (Value::Timestamp(86_400_000_000), "1970-01-02 00:00:00"),
            (Value::Instant(1_500_000), "1970-01-01T00:00:01.5Z"),
            (Value::Interval { months: 1, days: -2, micros: -90_000_500_000 }, "1 mons -2 days -25:00:00.5"),
            (Value::Array(vec![Some(Value::Int(1)), None]), "{1,NULL}"),
        ];
        for (value, want) in cases {
            assert_eq!(text(&value), want);
        }
        assert_eq!(to_json(&Value::Int(5)), json!(5));
        assert_eq!(to_json(&Value::Decimal(Decimal::parse("5.00").unwrap())), json!("5.00"));
    }

    #[test]
    fn a_cell_on_a_screen_is_bounded_and_harmless() {
        let text = |t: &str| Cell::Value(Value::Text(t.into()));
        assert_eq!(cell_line(&text("it's\u{1b}[31m"), 100), "'it''s\\u{1b}[31m'");
        assert_eq!(cell_line(&text("abcdef"), 3), "'abc…'");
        assert_eq!(cell_line(&Cell::Unavailable, 9), UNSENT);
    }
}
