//! Pure. One column as Connect's converters write it: JsonConverter's JSON, StringConverter's text, ByteArrayConverter's
//! bytes; and as SimpleHeaderConverter prints it into a header.
//!
//! Source: Kafka 4.3 (`StringConverter`, `ByteArrayConverter`, `SimpleHeaderConverter`, `Values.append`), Debezium 3.7
//! (`BinaryDataConverter`), recordings `typed-*`, `raw-*`.

use super::{Of, value_of};
use crate::encode::debezium_json::defects::Spot;
use crate::encode::debezium_json::header::big_decimal;
use crate::encode::debezium_json::value::{fixed_scale, put_value};
use crate::encode::debezium_json::{Encoder, Options, default, defects, nothing, schema};
use crate::encode::form::{BinaryMode, DecimalMode, TimeMode};
use crate::json;
use crate::row::Cell;
use crate::schema::{Column, Type};
use crate::value::{Decimal, Value};

/// `key.converter`, `value.converter`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Converter {
    #[default]
    Json,
    Text,
    Bytes,
    /// Debezium's: bytes as they are, all else by another one.
    Binary(Option<Box<Converter>>),
}

impl Converter {
    /// True if structures come out as what Java prints of them: no reader can tell a row from that.
    pub fn is_text(&self) -> bool {
        match self {
            Converter::Text => true,
            Converter::Binary(Some(other)) => other.is_text(),
            _ => false,
        }
    }

    /// `has_text`: the column has a text that is the same in Java; `is_bytes`: its values are bytes there.
    pub(super) fn fits(&self, has_text: bool, is_bytes: bool) -> Result<(), &'static str> {
        match self {
            Converter::Json => Ok(()),
            Converter::Text if has_text => Ok(()),
            Converter::Text => Err("has no text that StringConverter could write"),
            Converter::Bytes if is_bytes => Ok(()),
            Converter::Bytes => Err("is not bytes, and ByteArrayConverter writes nothing else"),
            Converter::Binary(_) if is_bytes => Ok(()),
            Converter::Binary(Some(other)) => other.fits(has_text, is_bytes),
            Converter::Binary(None) => Err("is not bytes: BinaryDataConverter wants a delegate.converter.type for it"),
        }
    }
}

/// True if the column's values are bytes in Connect, and a converter of bytes takes them.
pub(super) fn is_bytes(options: &Options, column: &Column) -> bool {
    match &column.kind {
        Type::Bytes => options.form.binary == BinaryMode::Bytes,
        Type::Bits { length, .. } => *length != 1,
        _ => false,
    }
}

/// A payload behind its schema, which lacks its closing brace; or the payload alone.
pub(super) fn frame(out: &mut Vec<u8>, open_schema: Option<&[u8]>, payload: &[u8]) {
    match open_schema {
        None => out.extend_from_slice(payload),
        Some(schema) => {
            out.extend_from_slice(b"{\"schema\":");
            out.extend_from_slice(schema);
            out.extend_from_slice(b"},\"payload\":");
            out.extend_from_slice(payload);
            out.push(schema::END);
        }
    }
}

impl Encoder {
    /// Appends what the converter makes of a column's value; false = nothing at all, no key or a tombstone.
    pub(super) fn convert(
        &self,
        out: &mut Vec<u8>,
        converter: &Converter,
        with_schema: bool,
        of: &Of<'_>,
        at: usize,
    ) -> bool {
        let Some(column) = of.table.columns.get(at) else { return false };
        match converter {
            Converter::Binary(_) | Converter::Bytes if is_bytes(&self.options, column) => self.put_raw(out, of, at),
            Converter::Binary(Some(other)) => self.convert(out, other, with_schema, of, at),
            Converter::Text => match self.string_of(of, at) {
                Some(text) => {
                    out.extend_from_slice(text.as_bytes());
                    true
                }
                None => false,
            },
            Converter::Json => {
                let mut value = Vec::new();
                self.put_json(&mut value, of, at);
                // Debezium's is the word, which is no tombstone to compaction.
                if value == b"null" && !self.options.defects {
                    return false;
                }
                let mut schema = Vec::new();
                if with_schema {
                    self.put_schema(&mut schema, of, at);
                }
                frame(out, with_schema.then_some(&schema[..]), &value);
                true
            }
            Converter::Bytes | Converter::Binary(None) => false,
        }
    }

    /// The bytes themselves.
    fn put_raw(&self, out: &mut Vec<u8>, of: &Of<'_>, at: usize) -> bool {
        let mut text = Vec::new();
        self.put_json(&mut text, of, at);
        let Ok(json::Node::String(text)) = json::parse(&text) else { return false };
        match json::from_base64(&text) {
            Some(bytes) => {
                out.extend_from_slice(&bytes);
                true
            }
            None => false,
        }
    }

    /// A column's schema, without its closing brace.
    pub(super) fn put_schema(&self, out: &mut Vec<u8>, of: &Of<'_>, at: usize) {
        if let Some(column) = of.table.columns.get(at) {
            schema::put_of(out, &self.options, of.table, column, of.road);
        }
    }

    /// A column's value as JSON.
    pub(super) fn put_json(&self, out: &mut Vec<u8>, of: &Of<'_>, at: usize) {
        let (Some(column), cell) = (of.table.columns.get(at), of.cell(at)) else {
            return out.extend_from_slice(b"null");
        };
        let form = &self.options.form;
        let (from, cuts) = (out.len(), self.cuts(of.table));
        match cell {
            Cell::Value(v) if self.put_cut(out, cuts.as_deref(), at, column, v, of.road) => {}
            Cell::Value(v) if self.options.defects && defects::put_value(out, &self.options, column, v, of.road) => {}
            Cell::Value(v) if self.options.value_schema && nothing::has_no_place(column, v) => {
                nothing::put(out, &self.options, false, column);
            }
            Cell::Value(v) => drop(put_value(out, form, column, v)),
            Cell::Unavailable => self.put_placeholder(out, column),
            // Connect's structure gives the default, whatever the converter is told.
            Cell::Null | Cell::Absent if self.options.defects && default::put(out, &self.options, column, b"") => {}
            Cell::Null | Cell::Absent => drop(self.put_null(out, column)),
        }
        if let Some(cuts) = &cuts {
            self.hidden(out, from, cuts, Spot { table: of.table, at, cell, road: of.road }, None);
        }
    }

    /// What Java's `toString` gives of a column's value in Connect; none = null.
    pub(super) fn text_of(&self, of: &Of<'_>, at: usize) -> Option<String> {
        self.printed(of, at, |node, json| match node {
            json::Node::Array(_) => java_text(node),
            _ => json,
        })
    }

    /// As SimpleHeaderConverter: of a text the text, all else as it stands in JSON, but for numbers and moments.
    pub(super) fn header_of(&self, of: &Of<'_>, at: usize) -> Option<String> {
        let column = of.table.columns.get(at)?;
        let mut moment = Vec::new();
        if let Some(value) = value_of(of, at)
            && defects::put_moment(&mut moment, &self.options.form, column, value)
        {
            return String::from_utf8(moment).ok();
        }
        self.printed(of, at, |_, json| json)
    }

    /// `other` prints what is neither a text nor a decimal: it is given the value, and as JSON.
    fn printed(&self, of: &Of<'_>, at: usize, other: fn(&json::Node<'_>, String) -> String) -> Option<String> {
        if let Some(text) = self.decimal_text(of.table.columns.get(at)?, value_of(of, at)) {
            return Some(text);
        }
        let mut out = Vec::new();
        self.put_json(&mut out, of, at);
        let plain = || String::from_utf8_lossy(&out).into_owned();
        match json::parse(&out) {
            Ok(json::Node::Null) => None,
            Ok(json::Node::String(text)) => Some(text.into_owned()),
            Ok(node) => Some(other(&node, plain())),
            Err(_) => Some(plain()),
        }
    }

    /// What StringConverter writes: as [`Encoder::text_of`], of bytes the name of the object that holds them in Connect.
    pub(super) fn string_of(&self, of: &Of<'_>, at: usize) -> Option<String> {
        let column = of.table.columns.get(at)?;
        if !is_bytes(&self.options, column) {
            return self.text_of(of, at);
        }
        let mut bytes = Vec::new();
        self.put_raw(&mut bytes, of, at)
            .then(|| format!("java.nio.HeapByteBuffer[pos=0 lim={n} cap={n}]", n = bytes.len()))
    }

    /// True if StringConverter is to write the column: it has a text, or the one that Debezium's bytes have there.
    pub(super) fn has_string(&self, column: &Column) -> bool {
        self.text_form(column) || self.options.defects && column.kind == Type::Bytes && is_bytes(&self.options, column)
    }

    /// A decimal that is one in Connect, too.
    fn decimal_text(&self, column: &Column, value: Option<&Value>) -> Option<String> {
        let form = &self.options.form;
        let Some(Value::Decimal(d @ Decimal::Finite { .. })) = value else { return None };
        if form.decimal != DecimalMode::Precise {
            return None;
        }
        let wide = if self.options.defects { defects::wide_scale(&column.kind) } else { None };
        big_decimal(d, wide.or(fixed_scale(form, &column.kind, &column.native_type))?)
    }

    /// True if [`Encoder::text_of`] gives what Java does.
    pub(super) fn text_form(&self, column: &Column) -> bool {
        let moments = self.options.form.time == TimeMode::Connect
            && matches!(column.kind, Type::Date | Type::Time { zone: false, .. } | Type::Timestamp { .. });
        match self.kind_of(column) {
            "bytes" => matches!(column.kind, Type::Decimal { .. }),
            "struct" | "map" => false,
            "array" => match &column.kind {
                Type::Array { element } => !matches!(
                    **element,
                    Type::Bytes
                        | Type::Bits { .. }
                        | Type::Decimal { .. }
                        | Type::Other
                        | Type::Timestamp { .. }
                        | Type::Date
                ),
                _ => false,
            },
            _ => !moments,
        }
    }
}

/// A value of JSON as Java prints it in Connect: `[1, null, a]`, `Struct{id=1,name=x}` without the fields that are null.
pub(super) fn java_text(node: &json::Node<'_>) -> String {
    match node {
        json::Node::Null => "null".to_owned(),
        json::Node::Bool(b) => b.to_string(),
        json::Node::Number(n) => (*n).to_owned(),
        json::Node::String(text) => text.clone().into_owned(),
        json::Node::Array(items) => format!("[{}]", items.iter().map(java_text).collect::<Vec<_>>().join(", ")),
        json::Node::Object(fields) => {
            let there = fields.iter().filter(|(_, value)| !matches!(value, json::Node::Null));
            java_struct(there.map(|(name, value)| (name.as_ref(), java_text(value))))
        }
    }
}

/// `Struct.toString` of the fields that are not null.
pub(super) fn java_struct<'n>(fields: impl Iterator<Item = (&'n str, String)>) -> String {
    format!("Struct{{{}}}", fields.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(","))
}
