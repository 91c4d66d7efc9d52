//! Pure. Schemas of columns that Debezium describes otherwise than their values ask for.

use super::{is_domain_array, is_known, wide_scale};
use crate::encode::debezium_json::schema::{Shape, plain, shape as ours};
use crate::encode::debezium_json::value::delimiter;
use crate::encode::form::{BinaryMode, DecimalMode, Form};
use crate::schema::{Column, Type};

/// `None` = as ours.
pub(in super::super) fn shape(form: &Form, column: &Column) -> Option<Shape> {
    let native = column.native_type.as_str();
    let array = |kind| Some(Shape::Array { items: Box::new(plain(kind, "")), items_optional: false });
    let unknown = if form.binary == BinaryMode::Bytes { "bytes" } else { "string" };
    match &column.kind {
        // That of a single one: its arrays come to no value.
        Type::Array { element } if matches!(**element, Type::Bits { .. }) => Some(ours(form, element, "")),
        _ if is_domain_array(column) => array(unknown),
        Type::Array { element } if **element == Type::Other => {
            let element = native.strip_suffix("[]").unwrap_or(native);
            if is_known(element) { None } else { array(unknown) }
        }
        Type::Array { element } if form.decimal == DecimalMode::Precise && wide_scale(element).is_some() => {
            let items = Box::new(wide(form, element, native)?);
            Some(Shape::Array { items, items_optional: true })
        }
        Type::Decimal { .. } if form.decimal == DecimalMode::Precise => wide(form, &column.kind, native),
        Type::Other => match native {
            "int2vector" => array("int16"),
            "oidvector" => array("int64"),
            _ if native.strip_suffix("[]").is_some_and(|e| delimiter(e).is_some()) || is_known(native) => None,
            _ => Some(plain(unknown, "")),
        },
        _ => None,
    }
}

/// A number whose scale Debezium takes for a large one.
fn wide(form: &Form, kind: &Type, native: &str) -> Option<Shape> {
    let scale = wide_scale(kind)?;
    let mut shape = ours(form, kind, native);
    if let Shape::Plain { parameters, .. } = &mut shape {
        parameters.iter_mut().filter(|(k, _)| k == "scale").for_each(|(_, v)| *v = scale.to_string());
    }
    Some(shape)
}
