//! Pure. Defaults as Debezium reads them out of the catalogue's text of an expression: what looks like a call is a fixed
//! value of the type, else the first literal anywhere in the expression stands for all of it, else the expression's text.
//! Source: `PostgresDefaultValueConverter`, and the defaults of a real Debezium's schemas (plan `defaults`).

use super::interval::JavaInterval;
use super::{put_decimal, time};
use crate::encode::debezium_json::default::is_call;
use crate::encode::debezium_json::source_type::{self, source_type};
use crate::encode::debezium_json::value::put_value;
use crate::encode::form::{DecimalMode, Form};
use crate::schema::{Column, Type};
use crate::value::{Decimal, Value};
use std::borrow::Cow;

/// Writes the default of a column whose schema has room for one; false = it has none. May leave half of one behind then.
pub(in super::super) fn put(out: &mut Vec<u8>, form: &Form, column: &Column) -> bool {
    // `String.trim`.
    let trimmed = column.default.trim_matches(|c: char| c <= ' ');
    let said = |call: &'static str| extract(trimmed, call);
    let shown =
        |out: &mut Vec<u8>, value: Option<Value>| value.map(|value| put_value(out, form, column, &value)).is_some();
    let name = source_type(column).name;
    if let Type::Enum { .. } = column.kind {
        return shown(out, label(&name, &column.default).map(|text| Value::Text(text.into())));
    }
    match name.as_str() {
        "bool" => shown(out, said("false").map(|t| Value::Bool(t.eq_ignore_ascii_case("true")))),
        "int2" | "smallserial" => shown(out, said("0").and_then(|t| Some(Value::Int(t.parse::<i16>().ok()?.into())))),
        "int4" | "serial" => shown(out, said("0").and_then(|t| Some(Value::Int(t.parse::<i32>().ok()?.into())))),
        "int8" | "bigserial" => shown(out, said("0").and_then(|t| Some(Value::Int(t.parse().ok()?)))),
        "float4" => shown(out, said("0.0").and_then(|t| Some(Value::Float32(t.parse().ok()?)))),
        "float8" => shown(out, said("0.0").and_then(|t| Some(Value::Float64(t.parse().ok()?)))),
        "numeric" => put_number(out, form, column, said("0.0")),
        "json" | "jsonb" => shown(out, extract(&column.default, "{}").map(|t| Value::Json(t.as_ref().into()))),
        "bpchar" | "varchar" | "text" | "xml" => {
            shown(out, extract(&column.default, "").map(|t| Value::Text(t.as_ref().into())))
        }
        "uuid" => {
            let text = said("00000000-0000-0000-0000-000000000000").filter(|t| is_uuid(t));
            shown(out, text.map(|t| Value::Text(t.as_ref().into())))
        }
        "date" => said("1970-01-01").is_some_and(|t| time::put_default_date(out, form, column, &t)),
        "time" => said("00:00:00").is_some_and(|t| time::put_default_time(out, form, column, &t)),
        "timestamp" => said("1970-01-01").is_some_and(|t| time::put_default_timestamp(out, form, column, &t)),
        "timestamptz" => said("1970-01-01").is_some_and(|t| time::put_default_instant(out, column, &t)),
        "interval" => said("epoch").and_then(|t| JavaInterval::parse(&t)).is_some_and(|i| i.put(out, form)),
        "bit" => said("00").is_some_and(|t| put_bits(out, form, column, &t, false)),
        "varbit" => said("0").is_some_and(|t| put_bits(out, form, column, &t, true)),
        _ => false,
    }
}

/// `None` = NULL, or it throws.
fn extract<'d>(default: &'d str, call: &'static str) -> Option<Cow<'d, str>> {
    if is_call(default) {
        return Some(call.into());
    }
    let Some((_, quoted)) = default.split_once('\'') else {
        return (!default.starts_with("NULL::")).then_some(default.into());
    };
    let mut at = 0;
    loop {
        at += quoted[at..].find('\'')?;
        if !quoted[at + 1..].starts_with('\'') {
            return Some(quoted[..at].replace("''", "'").into());
        }
        at += 2;
    }
}

/// Of an enum its label as it is quoted, if the last cast is to the enum.
fn label<'d>(name: &str, default: &'d str) -> Option<&'d str> {
    let (quoted, cast) = default.rsplit_once("::")?;
    if source_type::name(cast) != name {
        return None;
    }
    quoted.strip_prefix('\'')?.strip_suffix('\'')
}

fn put_number(out: &mut Vec<u8>, form: &Form, column: &Column, text: Option<Cow<'_, str>>) -> bool {
    let Some(Ok(number @ Decimal::Finite { .. })) = text.map(|t| Decimal::parse(&t)) else { return false };
    let Type::Decimal { precision, scale } = column.kind else { return false };
    let number = match precision {
        0 if form.decimal == DecimalMode::Precise => return false,
        0 => number,
        // More digits than the column has are an ArithmeticException.
        _ if scale < 0 => number,
        _ => match number.rescale(scale) {
            Some(number) => number,
            None => return false,
        },
    };
    if !put_decimal(out, form, &column.kind, &column.native_type, &number) {
        put_value(out, form, column, &Value::Decimal(number));
    }
    true
}

/// Any text goes, and what is not `1` is 0; of a text of one letter `bit` makes a boolean first.
fn put_bits(out: &mut Vec<u8>, form: &Form, column: &Column, text: &str, varying: bool) -> bool {
    let Type::Bits { length, .. } = column.kind else { return false };
    if length == 1 {
        let Ok(number) = i32::from_str_radix(text, 2) else { return false };
        out.extend_from_slice(if number != 0 { b"true" } else { b"false" });
        return true;
    }
    if !varying && text.chars().count() == 1 {
        out.extend_from_slice(if text == "1" { b"\"AQ==\"" } else { b"\"AA==\"" });
        return true;
    }
    let bits: String = text.encode_utf16().map(|unit| if unit == u16::from(b'1') { '1' } else { '0' }).collect();
    put_value(out, form, column, &Value::Text(bits.as_str().into()));
    true
}

/// `UUID.fromString` of what the server prints.
fn is_uuid(text: &str) -> bool {
    let mut parts = text.split('-');
    let whole = [8, 4, 4, 4, 12]
        .iter()
        .all(|n| parts.next().is_some_and(|p| p.len() == *n && p.bytes().all(|b| b.is_ascii_hexdigit())));
    whole && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_literal_stands_for_the_expression() {
        for (default, text) in [
            ("('x'::text || 'y'::text)", Some("x")),
            ("'it''s'::text", Some("it's")),
            ("CURRENT_USER", Some("CURRENT_USER")),
            ("(1)::text", Some("(1)::text")),
            ("NULL::character varying", None),
            ("upper('x'::text)", Some("")),
            ("\"left\"('abcdef'::text, 2)", Some("abcdef")),
            ("'", None),
        ] {
            assert_eq!(extract(default, "").as_deref(), text, "{default}");
        }
        assert_eq!(label("mood", "'it''s'::mood"), Some("it''s"));
        assert_eq!(label("Mood", "'Y'::other.\"Mood\""), Some("Y"));
        assert_eq!(label("mood", "('o'::text)::mood"), None);
        assert_eq!(label("mood", "enum_first(NULL::mood)"), None);
    }
}
