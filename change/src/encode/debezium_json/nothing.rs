//! Pure. What stands where a value is not known, or has no place in its schema, when records carry their schemas: a reader
//! such as Connect's JsonConverter refuses a whole record for one null in a required field. As Debezium: null where the
//! field is optional, else the column's default or the type's zero. `cw.exact` says what it really is.
//! Source: deletes of a real Debezium 3.7.0.Final under the default replica identity.

use super::schema::{default_of, is_optional, items_optional, shape_takes_default};
use super::value::{bare, put_value};
use crate::encode::form::Form;
use crate::json;
use crate::schema::{Column, Type};
use crate::value::{Decimal, Value};

/// Writes the column's default, if its schema shows one.
pub(super) fn put_default(out: &mut Vec<u8>, form: &Form, column: &Column) -> bool {
    let default = if shape_takes_default(form, column) { default_of(column) } else { None };
    default.map(|value| put_value(out, form, column, &value)).is_some()
}

/// Appends it. `defaults`: a default stands also where null could.
pub(super) fn put(out: &mut Vec<u8>, form: &Form, defaults: bool, column: &Column) {
    if defaults && put_default(out, form, column) {
        return;
    }
    if is_optional(column) {
        out.extend_from_slice(b"null");
        return;
    }
    let empty = || Value::Text("".into());
    let value = match (&column.kind, default_of(column)) {
        (_, Some(value)) => value,
        (Type::Bool, _) => Value::Bool(false),
        (Type::Int { unsigned: false, .. }, _) => Value::Int(0),
        (Type::Int { unsigned: true, .. }, _) => Value::UInt(0),
        (Type::Float { bits: 32 }, _) => Value::Float32(0.0),
        (Type::Float { .. }, _) => Value::Float64(0.0),
        (Type::Decimal { .. }, _) => Value::Decimal(Decimal::parse("0").unwrap_or(Decimal::NaN)),
        (Type::Bytes, _) => Value::Bytes(Vec::new().into()),
        (Type::Date, _) => Value::Date(0),
        (Type::Time { zone: false, .. }, _) => Value::Time(0),
        (Type::Timestamp { .. }, _) => Value::Timestamp(0),
        (Type::Instant { .. }, _) => return json::put_string(out, "1970-01-01T00:00:00Z"),
        (Type::Interval, _) => Value::Interval { months: 0, days: 0, micros: 0 },
        (Type::Array { .. }, _) => Value::Array(Vec::new()),
        (Type::Other, _) => {
            let native = column.native_type.as_str();
            if native.ends_with("[]") {
                return out.extend_from_slice(b"[]");
            }
            match bare(native) {
                "point" => Value::Text("(0,0)".into()),
                "vector" | "halfvec" => return out.extend_from_slice(b"[]"),
                "sparsevec" => return out.extend_from_slice(b"{\"dimensions\":0,\"vector\":{}}"),
                "geography" => return out.extend_from_slice(b"{\"wkb\":\"AQcAAAAAAAAA\",\"srid\":null}"),
                _ => empty(),
            }
        }
        _ => empty(),
    };
    put_value(out, form, column, &value);
}

/// True if the value has a NULL where the schema has no room for one: among the items of an array of enums and the like.
pub(super) fn has_no_place(column: &Column, value: &Value) -> bool {
    let (Type::Array { element }, Value::Array(items)) = (&column.kind, value) else { return false };
    let native = column.native_type.strip_suffix("[]").unwrap_or(&column.native_type);
    !items_optional(element, native) && items.iter().any(Option::is_none)
}
