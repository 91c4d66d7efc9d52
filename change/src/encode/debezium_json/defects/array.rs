//! Pure. Arrays: Debezium takes `java.sql.Array.getArray()` item by item, and converters of single values do not know what
//! to make of an array inside it, or of a missing item.

use super::{ADDRESS, bare, time};
use crate::calendar;
use crate::encode::debezium_json::structured::{self, Days};
use crate::encode::debezium_json::value::{delimiter, put_typed};
use crate::encode::form::{Form, TimeMode};
use crate::float_text;
use crate::json;
use crate::schema::{Column, Type};
use crate::value::{Decimal, Value};

/// Most dimensions of PostgreSQL's arrays.
const DIMENSIONS_MAX: usize = 6;

/// Types whose items may not be missing.
fn needs_items(element: &Type, native: &str) -> bool {
    matches!(element, Type::Enum { .. }) || (*element == Type::Other && matches!(bare(native), "tsvector" | "ltree"))
}

/// Types without arrays of values: what comes is no list of them.
fn has_no_arrays(element: &Type, native: &str) -> bool {
    *element == Type::Other
        && matches!(bare(native), "line" | "lseg" | "path" | "polygon" | "circle" | "vector" | "halfvec" | "sparsevec")
}

pub(super) fn put(out: &mut Vec<u8>, form: &Form, element: &Type, native: &str, value: &Value) -> bool {
    let native = native.strip_suffix("[]").unwrap_or(native);
    let null = |out: &mut Vec<u8>| {
        out.extend_from_slice(b"null");
        true
    };
    let (items, is_ours) = match value {
        Value::Array(items) => (items.clone(), true),
        Value::Text(t) => match shape(t.as_str()) {
            _ if matches!(element, Type::Bits { .. }) => return null(out),
            Some((1, text)) => match items_of(element, text) {
                Some(items) => (items, false),
                None => return false,
            },
            Some(_) if *element == Type::Other && !super::is_known(native) => return null(out),
            // The driver reads all items at once, and a numeric's NaN or infinity is none it reads.
            Some((_, text)) if matches!(element, Type::Decimal { .. }) && names_no_number(text) => return null(out),
            Some((dimensions, text)) => return put_nested(out, element, native, dimensions, text),
            None => return false,
        },
        _ => return false,
    };
    let missing = items.iter().any(Option::is_none) && needs_items(element, native);
    let infinite =
        |item: &Option<Value>| matches!(item, Some(Value::Decimal(d)) if !matches!(d, Decimal::Finite { .. }));
    let refused = has_no_arrays(element, native) && items.iter().any(Option::is_some);
    if matches!(element, Type::Bits { .. }) || refused || missing || items.iter().any(infinite) {
        return null(out);
    }
    // Types that Debezium does not know are bytes, and no NULL among them.
    if *element == Type::Other && !super::is_known(native) {
        if items.iter().any(Option::is_none) {
            return null(out);
        }
        return put_items(out, form, &Type::Bytes, "bytea", &as_bytes(&items));
    }
    match element {
        Type::Date | Type::Time { zone: false, .. } | Type::Timestamp { .. } | Type::Instant { .. } => {}
        _ if super::wide_scale(element).is_some() => {}
        _ if is_ours => return false,
        _ => {}
    }
    put_items(out, form, element, native, &items)
}

/// Items of a type that Debezium does not know: bytes of their texts, and no NULL among them. `native` = of the array.
pub(super) fn put_unknown(out: &mut Vec<u8>, form: &Form, native: &str, value: &Value) -> bool {
    let text = |item: &Option<Value>| Some(Some(Value::Text(server_text(native, item.as_ref()?)?.into())));
    let items = match value {
        Value::Array(items) => Some(items.clone()),
        Value::Text(t) => match shape(t.as_str()) {
            Some((1, text)) => items_of(&Type::Text { length: 0 }, text),
            Some(_) => Some(vec![None]),
            None => None,
        },
        _ => None,
    };
    let Some(items) = items else { return false };
    match items.iter().map(text).collect::<Option<Vec<_>>>() {
        Some(texts) => put_items(out, form, &Type::Bytes, "bytea", &as_bytes(&texts)),
        None => {
            out.extend_from_slice(b"null");
            true
        }
    }
}

/// A value as the server prints it to Debezium: dates by ISO, at UTC, money in its locale `C`.
fn server_text(native: &str, value: &Value) -> Option<String> {
    let day = |days: i64| {
        let (year, month, day) = calendar::civil(days);
        let (year, era) = if year <= 0 { (1 - year, " BC") } else { (year, "") };
        (format!("{year:04}-{month:02}-{day:02}"), era)
    };
    let moment = |micros: i64, zone: &str| {
        let (date, era) = day(micros.div_euclid(DAY_US));
        format!("{date} {}{zone}{era}", calendar::clock_text(micros.rem_euclid(DAY_US), 0))
    };
    Some(match value {
        Value::Int(v) => v.to_string(),
        Value::Bool(v) => if *v { "t" } else { "f" }.to_owned(),
        Value::Decimal(d) if native == "money[]" => money(&d.to_string()),
        Value::Decimal(d) => d.to_string(),
        Value::Float32(v) => float_text::of_f32(*v),
        Value::Float64(v) => float_text::of_f64(*v),
        Value::Text(t) | Value::Json(t) => t.as_str().to_owned(),
        Value::Bytes(b) => b.iter().fold("\\x".to_owned(), |hex, b| format!("{hex}{b:02x}")),
        Value::Date(i32::MAX) | Value::Timestamp(i64::MAX) | Value::Instant(i64::MAX) => "infinity".to_owned(),
        Value::Date(i32::MIN) | Value::Timestamp(i64::MIN) | Value::Instant(i64::MIN) => "-infinity".to_owned(),
        Value::Date(days) => {
            let (date, era) = day(i64::from(*days));
            date + era
        }
        Value::Time(micros) => calendar::clock_text(*micros, 0),
        Value::Timestamp(micros) => moment(*micros, ""),
        Value::Instant(micros) => moment(*micros, "+00"),
        Value::Interval { months, days, micros } => interval(*months, *days, *micros),
        _ => return None,
    })
}

const DAY_US: i64 = 86_400_000_000;

/// `-$1,234.50`.
fn money(plain: &str) -> String {
    let (sign, plain) = plain.strip_prefix('-').map_or(("", plain), |p| ("-", p));
    let (whole, fraction) = plain.split_once('.').unwrap_or((plain, ""));
    let mut grouped = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}${grouped}.{fraction:0<2}")
}

/// `1 year 2 mons -3 days +04:05:06.5`: a part behind a negative one has its sign.
fn interval(months: i32, days: i32, micros: i64) -> String {
    let mut out = String::new();
    let mut minus = false;
    for (n, one) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if n != 0 {
            let (space, plus) = (if out.is_empty() { "" } else { " " }, if minus && n > 0 { "+" } else { "" });
            out.push_str(&format!("{space}{plus}{n} {one}{}", if n == 1 { "" } else { "s" }));
            minus = n < 0;
        }
    }
    if micros != 0 || out.is_empty() {
        let sign = match micros {
            ..0 => "-",
            _ if minus => "+",
            _ => "",
        };
        let space = if out.is_empty() { "" } else { " " };
        let (hours, rest) = (micros.unsigned_abs() / 3_600_000_000, micros.unsigned_abs() % 3_600_000_000);
        let clock = calendar::clock_text(rest as i64, 0);
        out.push_str(&format!("{space}{sign}{hours:02}{}", &clock[2..]));
    }
    out
}

fn as_bytes(items: &[Option<Value>]) -> Vec<Option<Value>> {
    let of = |item: &Option<Value>| match item {
        Some(Value::Text(t)) => Some(Value::Bytes(t.as_bytes().clone())),
        other => other.clone(),
    };
    items.iter().map(of).collect()
}

fn put_items(out: &mut Vec<u8>, form: &Form, element: &Type, native: &str, items: &[Option<Value>]) -> bool {
    out.push(b'[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        let Some(item) = item else {
            out.extend_from_slice(b"null");
            continue;
        };
        let done = match (element, item) {
            (kind, item) if form.time == TimeMode::Structured && structured::shape(kind).is_some() => {
                structured::put_defect(out, kind, native, item, Days::Item)
            }
            (Type::Date, Value::Date(days)) => {
                time::put_date_item(out, form, *days);
                true
            }
            (Type::Time { digits, zone: false }, Value::Time(micros)) => {
                time::put_time_item(out, form, *digits, *micros);
                true
            }
            (Type::Timestamp { digits }, Value::Timestamp(micros)) => {
                time::put_timestamp_item(out, form, *digits, *micros)
            }
            (Type::Timestamp { digits }, Value::Text(t)) => time::put_far(out, form, *digits, t.as_str()),
            (Type::Instant { digits }, Value::Instant(micros)) => time::put_instant_item(out, *digits, *micros),
            (Type::Decimal { .. }, Value::Decimal(d)) => super::put_decimal(out, form, element, native, d),
            _ => false,
        };
        if !done {
            put_typed(out, form, element, native, item);
        }
    }
    out.push(b']');
    true
}

/// Dimensions of an array's text, and the text without its bounds; `None` = it is no array's.
fn shape(text: &str) -> Option<(usize, &str)> {
    let text = match text.strip_prefix('[') {
        Some(_) => text.split_once("]={").map(|(head, _)| &text[head.len() + 2..])?,
        None => text,
    };
    let dimensions = text.bytes().take_while(|b| *b == b'{').count();
    (1..=DIMENSIONS_MAX).contains(&dimensions).then_some((dimensions, text))
}

/// Items on top of an array's text: those of one dimension, or the arrays in it.
fn top(text: &str) -> Option<Vec<&str>> {
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    let (mut depth, mut quoted, mut escaped, mut from) = (0usize, false, false, 0);
    let mut out = Vec::new();
    for (at, b) in inner.bytes().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' => depth += 1,
            b'}' => depth = depth.checked_sub(1)?,
            b',' | b';' if depth == 0 => {
                out.push(&inner[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    if !inner.is_empty() {
        out.push(&inner[from..]);
    }
    Some(out)
}

/// An item of numerics, at any depth, that is no number.
fn names_no_number(text: &str) -> bool {
    text.split(['{', '}', ',']).any(|item| matches!(item.trim_matches('"'), "NaN" | "Infinity" | "-Infinity"))
}

/// True if the value's record holds addresses of objects, of which no two are equal.
pub(super) fn has_addresses(column: &Column, value: &Value) -> bool {
    let (Type::Array { element }, Value::Text(text)) = (&column.kind, value) else { return false };
    let native = column.native_type.strip_suffix("[]").unwrap_or(&column.native_type);
    let nested = shape(text.as_str()).filter(|(dimensions, _)| *dimensions > 1);
    nested.is_some_and(|_| matches!(inside(element, native), Inside::Class(_)))
}

fn unquoted(item: &str) -> String {
    let Some(inner) = item.strip_prefix('"').and_then(|t| t.strip_suffix('"')) else { return item.to_owned() };
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    out
}

/// Items of a vector whose lower bound is not 1.
fn items_of(element: &Type, text: &str) -> Option<Vec<Option<Value>>> {
    let item = |text: &str| -> Option<Option<Value>> {
        if text == "NULL" {
            return Some(None);
        }
        let text = unquoted(text);
        // One that microseconds do not reach is a text, as in other arrays.
        let moment = |text: &str, of: fn(i64) -> Value| match text {
            "infinity" => Some(of(i64::MAX)),
            "-infinity" => Some(of(i64::MIN)),
            text => Some(i64::try_from(calendar::parse_wide(text)?).map_or_else(|_| Value::Text(text.into()), of)),
        };
        Some(Some(match element {
            Type::Bool => Value::Bool(text == "t"),
            Type::Int { .. } => Value::Int(text.parse().ok()?),
            Type::Float { bits: 32 } => Value::Float32(text.parse().ok()?),
            Type::Float { .. } => Value::Float64(text.parse().ok()?),
            Type::Decimal { .. } => Value::Decimal(Decimal::parse(&text).ok()?),
            Type::Json { .. } => Value::Json(text.into()),
            Type::Bytes => Value::Bytes(json::from_hex(text.strip_prefix("\\x")?)?.into()),
            Type::Date => match text.as_str() {
                "infinity" => Value::Date(i32::MAX),
                "-infinity" => Value::Date(i32::MIN),
                text => Value::Date(i32::try_from(calendar::server_days(text)?).ok()?),
            },
            Type::Time { zone: false, .. } => Value::Time(calendar::parse_clock(&text)?),
            Type::Timestamp { .. } => moment(&text, Value::Timestamp)?,
            Type::Instant { .. } => moment(&text, Value::Instant)?,
            Type::Interval | Type::Array { .. } => return None,
            _ => Value::Text(text.into()),
        }))
    };
    top(text)?.into_iter().map(item).collect()
}

/// What a converter of single values makes of the arrays inside.
enum Inside {
    /// It refuses: the field is null.
    Fails,
    /// It takes no such thing: each is null.
    Nulls,
    /// It asks for its text: class and address.
    Class(&'static str),
}

fn inside(element: &Type, native: &str) -> Inside {
    match element {
        Type::Time { zone: true, .. } => Inside::Fails,
        Type::Text { .. } if native == "citext" || native.ends_with(".citext") => Inside::Nulls,
        Type::Text { .. } | Type::Enum { .. } | Type::Json { .. } => Inside::Class("java.lang.String"),
        Type::Uuid => Inside::Class("java.util.UUID"),
        Type::Other => match bare(native) {
            "hstore" | "point" | "line" | "lseg" | "box" | "path" | "polygon" | "circle" => Inside::Nulls,
            "geometry" | "geography" => Inside::Nulls,
            _ => Inside::Class("java.lang.Object"),
        },
        _ => Inside::Nulls,
    }
}

fn put_nested(out: &mut Vec<u8>, element: &Type, native: &str, dimensions: usize, text: &str) -> bool {
    let Some(items) = top(text) else { return false };
    let class = match inside(element, native) {
        Inside::Fails => {
            out.extend_from_slice(b"null");
            return true;
        }
        Inside::Nulls => None,
        Inside::Class(class) => Some(format!("{}L{class};{ADDRESS}", "[".repeat(dimensions - 1))),
    };
    out.push(b'[');
    for i in 0..items.len() {
        if i > 0 {
            out.push(b',');
        }
        match &class {
            Some(class) => json::put_string(out, class),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.push(b']');
    true
}

/// Boxes and the shapes of PostGIS, which have other delimiters: a list of nulls inside, none outside.
pub(super) fn put_delimited(out: &mut Vec<u8>, native: &str, text: &str) -> bool {
    let element = native.strip_suffix("[]").unwrap_or(native);
    if delimiter(element).is_none() {
        return false;
    }
    let items = top(text).unwrap_or_default();
    match shape(text) {
        Some((2.., _)) => return put_nested(out, &Type::Other, element, 2, text),
        _ if items.iter().any(|item| *item != "NULL") => out.extend_from_slice(b"null"),
        _ => out.extend_from_slice(format!("[{}]", vec!["null"; items.len()].join(",")).as_bytes()),
    }
    true
}
