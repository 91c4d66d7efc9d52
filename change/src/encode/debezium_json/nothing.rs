//! Pure. What stands where a value is not known, or has no place in its schema, when records carry their schemas: a reader
//! such as Connect's JsonConverter refuses a whole record for one null in a required field. As Debezium: null where the
//! field is optional, else the column's default or the type's zero. `cw.exact` says what it really is.
//! Source: deletes of a real Debezium 3.7.0.Final under the default replica identity.

use super::schema::{is_optional, items_optional};
use super::value::{bare, fixed_scale, put_value};
use super::{Options, default, structured};
use crate::encode::form::TimeMode;
use crate::exact::Exact;
use crate::json;
use crate::row::{Cell, Row};
use crate::schema::{Column, TableSchema, Type};
use crate::value::{Decimal, Value};

/// Appends it. `defaults`: a default stands also where null could.
pub(super) fn put(out: &mut Vec<u8>, options: &Options, defaults: bool, column: &Column) {
    let is_optional = is_optional(column);
    if (defaults || !is_optional) && default::put(out, options, column, b"") {
        return;
    }
    if is_optional {
        out.extend_from_slice(b"null");
        return;
    }
    if options.form.time == TimeMode::Structured && structured::put_zero(out, &column.kind) {
        return;
    }
    let empty = || Value::Text("".into());
    let value = match &column.kind {
        Type::Bool => Value::Bool(false),
        Type::Int { unsigned: false, .. } => Value::Int(0),
        Type::Int { unsigned: true, .. } => Value::UInt(0),
        Type::Float { bits: 32 } => Value::Float32(0.0),
        Type::Float { .. } => Value::Float64(0.0),
        Type::Decimal { .. } => {
            let zero = Decimal::parse("0").unwrap_or(Decimal::NaN);
            let scale = fixed_scale(&options.form, &column.kind, &column.native_type);
            Value::Decimal(scale.and_then(|scale| zero.rescale(scale)).unwrap_or(zero))
        }
        Type::Bytes => Value::Bytes(Vec::new().into()),
        Type::Date => Value::Date(0),
        Type::Time { zone: false, .. } => Value::Time(0),
        Type::Timestamp { .. } => Value::Timestamp(0),
        Type::Instant { .. } => return json::put_string(out, "1970-01-01T00:00:00Z"),
        Type::Interval => Value::Interval { months: 0, days: 0, micros: 0 },
        Type::Array { .. } => Value::Array(Vec::new()),
        Type::Other => {
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
    put_value(out, &options.form, column, &value);
}

/// True if the value has a NULL where the schema has no room for one: among the items of an array of enums and the like.
pub(super) fn has_no_place(column: &Column, value: &Value) -> bool {
    let (Type::Array { element }, Value::Array(items)) = (&column.kind, value) else { return false };
    let native = column.native_type.strip_suffix("[]").unwrap_or(&column.native_type);
    !items_optional(element, native) && items.iter().any(Option::is_none)
}

/// The one kind of gap that fills every column outside the key of a before image.
pub(super) fn key_alone(table: &TableSchema, row: &Row) -> Option<Exact> {
    let mut found = None;
    for (at, (cell, column)) in row.cells.iter().zip(&table.columns).enumerate() {
        if table.is_key(at) || (column.generated && *cell == Cell::Absent) {
            continue;
        }
        let what = match cell {
            Cell::Unavailable => Exact::Unavailable,
            Cell::Absent => Exact::Absent,
            _ => return None,
        };
        if found.get_or_insert(what.clone()) != &what {
            return None;
        }
    }
    found
}
