//! Pure. Values as Connect's converters write them: JsonConverter, StringConverter, and SimpleHeaderConverter for headers.
//! Source: Kafka 4.3 (`JsonConverter`, `StringConverter`, `Values.convertToString`, `Struct.toString`).

use super::{Data, Kind, Part, Schema, moment};
use crate::encode::debezium_json::big_decimal_of;
use crate::json;

pub const DECIMAL: &str = "org.apache.kafka.connect.data.Decimal";
const BITS: &str = "io.debezium.data.Bits";
const DEBEZIUM_DATA: &str = "io.debezium.data.";

/// JsonConverter, with `schemas.enable` and `replace.null.with.default`; false = nothing at all.
pub fn json(out: &mut Vec<u8>, part: &Part, with_schema: bool, defaults: bool) -> bool {
    let Some((schema, data)) = part else { return false };
    if with_schema {
        out.extend_from_slice(b"{\"schema\":");
        put_schema(out, schema, None);
        out.extend_from_slice(b",\"payload\":");
    }
    put_data(out, schema, data, defaults);
    if with_schema {
        out.push(b'}');
    }
    true
}

fn put_schema(out: &mut Vec<u8>, schema: &Schema, field: Option<&str>) {
    if schema.is_none() {
        return out.extend_from_slice(b"null");
    }
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(schema.kind.json().as_bytes());
    out.push(b'"');
    match schema.kind {
        Kind::Struct => {
            out.extend_from_slice(b",\"fields\":[");
            for (i, f) in schema.fields.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                put_schema(out, &f.schema, Some(&f.name));
            }
            out.push(b']');
        }
        Kind::Array | Kind::Map => {
            let names: [&[u8]; 2] = if schema.kind == Kind::Map { [b"keys", b"values"] } else { [b"", b"items"] };
            for (name, part) in names.into_iter().zip([&schema.keys, &schema.items]) {
                if let Some(part) = part {
                    out.extend_from_slice(b",\"");
                    out.extend_from_slice(name);
                    out.extend_from_slice(b"\":");
                    put_schema(out, part, None);
                }
            }
        }
        _ => {}
    }
    out.extend_from_slice(if schema.optional { b",\"optional\":true" } else { b",\"optional\":false" });
    let text = |out: &mut Vec<u8>, name: &str, text: &str| {
        out.extend_from_slice(format!(",\"{name}\":").as_bytes());
        json::put_string(out, text);
    };
    if let Some(name) = &schema.name {
        text(out, "name", name);
    }
    if let Some(version) = schema.version {
        out.extend_from_slice(b",\"version\":");
        json::put_i64(out, version);
    }
    if let Some(doc) = &schema.doc {
        text(out, "doc", doc);
    }
    for (i, (key, value)) in schema.parameters.iter().enumerate() {
        out.extend_from_slice(if i == 0 { b",\"parameters\":{" } else { b"," });
        json::put_string(out, key);
        out.push(b':');
        json::put_string(out, value);
    }
    if !schema.parameters.is_empty() {
        out.push(b'}');
    }
    if let Some(default) = &schema.default {
        out.extend_from_slice(b",\"default\":");
        put_data(out, schema, default, false);
    }
    if let Some(field) = field {
        text(out, "field", field);
    }
    out.push(b'}');
}

fn put_data(out: &mut Vec<u8>, schema: &Schema, data: &Data, defaults: bool) {
    let item = |out: &mut Vec<u8>, data: &Data| match &schema.items {
        Some(of) => put_data(out, of, data, defaults),
        None => out.extend_from_slice(b"null"),
    };
    match data {
        Data::Null => match &schema.default {
            Some(default) if defaults => put_data(out, schema, default, false),
            _ => out.extend_from_slice(b"null"),
        },
        Data::Bool(b) => out.extend_from_slice(if *b { b"true" } else { b"false" }),
        Data::Int(n) => json::put_i64(out, *n),
        Data::Float(text) if text.ends_with(|c: char| c.is_ascii_digit()) => out.extend_from_slice(text.as_bytes()),
        Data::Float(text) | Data::Text(text) => json::put_string(out, text),
        Data::Bytes(bytes) => json::put_base64(out, bytes),
        Data::List(items) => {
            out.push(b'[');
            for (i, data) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                item(out, data);
            }
            out.push(b']');
        }
        Data::Map(pairs) => {
            let of_texts = schema.keys.as_ref().is_none_or(|k| k.kind == Kind::String);
            out.push(if of_texts { b'{' } else { b'[' });
            for (i, (key, value)) in pairs.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                match (of_texts, key, &schema.keys) {
                    (true, Data::Text(key), _) => {
                        json::put_string(out, key);
                        out.push(b':');
                        item(out, value);
                    }
                    (_, _, Some(keys)) => {
                        out.push(b'[');
                        put_data(out, keys, key, defaults);
                        out.push(b',');
                        item(out, value);
                        out.push(b']');
                    }
                    _ => {}
                }
            }
            out.push(if of_texts { b'}' } else { b']' });
        }
        Data::Struct(values) => {
            out.push(b'{');
            for (i, (field, value)) in schema.fields.iter().zip(values).enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                json::put_string(out, &field.name);
                out.push(b':');
                put_data(out, &field.schema, value, defaults);
            }
            out.push(b'}');
        }
    }
}

/// What stands in StringConverter's text for bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BytesText {
    Base64,
    /// The name of the object that holds them in Java.
    Object,
}

/// `toString`; none = null.
pub fn java_text(schema: &Schema, data: &Data, bytes: BytesText) -> Option<String> {
    let item = |data: &Data| {
        let text = schema.items.as_ref().and_then(|of| java_text(of, data, bytes));
        text.unwrap_or_else(|| "null".to_owned())
    };
    Some(match data {
        Data::Null => return None,
        Data::Int(n) => moment::java_date(schema, *n).unwrap_or_else(|| n.to_string()),
        Data::Bytes(raw) if schema.is_named(DECIMAL) => decimal_text(schema, raw)?,
        // An array of bytes in Java, which prints its address: another one each time.
        Data::Bytes(raw) if schema.is_named(BITS) => base64(raw),
        Data::Bytes(raw) => match bytes {
            BytesText::Base64 => base64(raw),
            BytesText::Object => format!("java.nio.HeapByteBuffer[pos=0 lim={n} cap={n}]", n = raw.len()),
        },
        Data::List(items) => format!("[{}]", items.iter().map(item).collect::<Vec<_>>().join(", ")),
        Data::Map(pairs) => {
            let key = |key: &Data| schema.keys.as_ref().and_then(|of| java_text(of, key, bytes)).unwrap_or_default();
            let pair = |(k, v): &(Data, Data)| format!("{}={}", key(k), item(v));
            format!("{{{}}}", pairs.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
        Data::Struct(values) => {
            // The same is in Debezium's own structures: decimals of no fixed scale, geometries.
            let own = schema.name.as_deref().is_some_and(|name| name.starts_with(DEBEZIUM_DATA));
            let bytes = if own { BytesText::Base64 } else { bytes };
            let fields = schema.fields.iter().zip(values);
            let text = |(f, v): (&super::Field, &Data)| Some(format!("{}={}", f.name, java_text(&f.schema, v, bytes)?));
            format!("Struct{{{}}}", fields.filter_map(text).collect::<Vec<_>>().join(","))
        }
        Data::Bool(b) => b.to_string(),
        Data::Float(text) | Data::Text(text) => text.clone(),
    })
}

pub fn base64(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    json::put_base64(&mut out, bytes);
    String::from_utf8_lossy(&out).trim_matches('"').to_owned()
}

/// `BigDecimal.toString` of a decimal's bytes.
pub fn decimal_text(schema: &Schema, raw: &[u8]) -> Option<String> {
    big_decimal_of(raw, scale(schema)?)
}

/// Digits behind the point of a decimal's schema.
pub fn scale(schema: &Schema) -> Option<i32> {
    schema.parameters.iter().find(|(name, _)| name == "scale")?.1.parse().ok()
}

/// SimpleHeaderConverter; none = null.
pub fn header(schema: &Schema, data: &Data) -> Option<String> {
    match data {
        Data::Null => None,
        Data::Text(text) => Some(text.clone()),
        _ => {
            let mut out = String::new();
            put_header(&mut out, schema, data);
            Some(out)
        }
    }
}

fn put_header(out: &mut String, schema: &Schema, data: &Data) {
    let item = |out: &mut String, data: &Data| match &schema.items {
        Some(of) => put_header(out, of, data),
        None => out.push_str("null"),
    };
    match data {
        Data::Null => out.push_str("null"),
        Data::Text(text) => {
            out.push('"');
            out.push_str(&text.replace('\\', "\\\\").replace('"', "\\\""));
            out.push('"');
        }
        Data::Int(n) => out.push_str(&moment::iso(schema, *n).unwrap_or_else(|| n.to_string())),
        Data::Bytes(raw) if schema.is_named(DECIMAL) => out.push_str(&decimal_text(schema, raw).unwrap_or_default()),
        Data::Bytes(raw) => out.push_str(&base64(raw)),
        Data::Bool(b) => out.push_str(&b.to_string()),
        Data::Float(text) => out.push_str(text),
        Data::List(items) => {
            out.push('[');
            for (i, data) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                item(out, data);
            }
            out.push(']');
        }
        Data::Map(pairs) => {
            out.push('{');
            for (i, (key, value)) in pairs.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                if let Some(of) = &schema.keys {
                    put_header(out, of, key);
                }
                out.push(':');
                item(out, value);
            }
            out.push('}');
        }
        Data::Struct(values) => {
            out.push('{');
            for (i, (field, value)) in schema.fields.iter().zip(values).enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&format!("\"{}\":", field.name));
                put_header(out, &field.schema, value);
            }
            out.push('}');
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::connect::{Field, Kind};
    use std::sync::Arc;

    fn schema(kind: Kind, name: Option<&str>, fields: Vec<(&str, Schema)>) -> Schema {
        let field = |(name, schema): (&str, Schema)| Field { name: name.to_owned(), schema: Arc::new(schema) };
        let fields = fields.into_iter().map(field).collect();
        let name = name.map(str::to_owned);
        let (version, doc, parameters, default) = (None, None, Vec::new(), None);
        Schema { kind, optional: true, name, version, doc, parameters, default, fields, keys: None, items: None }
    }

    #[test]
    fn what_java_prints_an_address_of_is_base64_and_buffers_are_named() {
        let bytes = || schema(Kind::Bytes, None, Vec::new());
        let scaled = schema(Kind::Struct, Some("io.debezium.data.VariableScaleDecimal"), vec![("value", bytes())]);
        let row = schema(
            Kind::Struct,
            Some("s.Value"),
            vec![
                ("b", bytes()),
                ("bits", schema(Kind::Bytes, Some(BITS), Vec::new())),
                ("n", scaled),
                ("gone", bytes()),
            ],
        );
        let raw = || Data::Bytes(vec![1, 2, 3]);
        let data = Data::Struct(vec![raw(), raw(), Data::Struct(vec![raw()]), Data::Null]);
        let text = |bytes| java_text(&row, &data, bytes).unwrap();
        assert_eq!(text(BytesText::Base64), "Struct{b=AQID,bits=AQID,n=Struct{value=AQID}}");
        let buffer = "java.nio.HeapByteBuffer[pos=0 lim=3 cap=3]";
        assert_eq!(text(BytesText::Object), format!("Struct{{b={buffer},bits=AQID,n=Struct{{value=AQID}}}}"));
    }
}
