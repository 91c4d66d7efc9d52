//! Pure. JsonConverter's JSON with its schema → schema and value.

use super::{Data, Field, Kind, Part, Schema};
use crate::json::{self, Node};
use std::sync::Arc;

/// Schemas of one record's side that were met, by the text before their payloads.
#[derive(Clone, Debug, Default)]
pub struct Schemas(Vec<(Vec<u8>, Arc<Schema>)>);

/// Most that are kept; then they are read anew.
const SCHEMAS_MAX: usize = 16;
const PAYLOAD: &[u8] = b",\"payload\":";

impl Schemas {
    /// A key or value, `{"schema":…,"payload":…}`. None = it is not what JsonConverter writes.
    pub fn read(&mut self, bytes: &[u8]) -> Option<Part> {
        if let Some((prefix, schema)) = self.0.iter().find(|(prefix, _)| bytes.starts_with(prefix)) {
            let payload = bytes.get(prefix.len()..)?.strip_suffix(b"}")?;
            let node = json::parse(payload).ok()?;
            return Some(Some((schema.clone(), data(schema, &node))));
        }
        let node = json::parse(bytes).ok()?;
        let made = Arc::new(schema(node.get("schema")?)?);
        // No text of a schema has these characters inside: there, a name stands behind a colon.
        let at = bytes.windows(PAYLOAD.len()).position(|w| w == PAYLOAD)?;
        if self.0.len() >= SCHEMAS_MAX {
            self.0.clear();
        }
        self.0.push((bytes[..at + PAYLOAD.len()].to_vec(), made.clone()));
        let value = data(&made, node.get("payload")?);
        Some(Some((made, value)))
    }
}

/// As JsonConverter writes it.
pub fn schema(node: &Node<'_>) -> Option<Schema> {
    let text = |name: &str| node.get(name).and_then(Node::as_str).map(str::to_owned);
    let mut out = Schema::new(Kind::written(node.get("type")?.as_str()?)?);
    out.optional = matches!(node.get("optional"), Some(Node::Bool(true)));
    (out.name, out.doc) = (text("name"), text("doc"));
    out.version = node.get("version").and_then(Node::as_i64);
    if let Some(Node::Object(all)) = node.get("parameters") {
        out.parameters =
            all.iter().map(|(k, v)| Some((k.to_string(), v.as_str()?.to_owned()))).collect::<Option<_>>()?;
    }
    if let Some(Node::Array(fields)) = node.get("fields") {
        for field in fields {
            let name = field.get("field")?.as_str()?.to_owned();
            out.fields.push(Field { name, schema: Arc::new(schema(field)?) });
        }
    }
    let part = |name: &str| node.get(name).and_then(schema).map(Arc::new);
    out.keys = part("keys");
    out.items = part("items").or_else(|| part("values"));
    out.default = node.get("default").map(|d| data(&out, d));
    Some(out)
}

/// What does not look like its kind stays what it looks like: a text in a number's place is written as it stood.
pub fn data(schema: &Schema, node: &Node<'_>) -> Data {
    let item = |node: &Node<'_>| schema.items.as_ref().map_or(Data::Null, |of| data(of, node));
    match (schema.kind, node) {
        (_, Node::Null) => Data::Null,
        (_, Node::Bool(b)) => Data::Bool(*b),
        (Kind::Float32 | Kind::Float64, Node::Number(n)) => Data::Float((*n).to_owned()),
        (Kind::Float32 | Kind::Float64, Node::String(s)) if is_no_number(s) => Data::Float(s.to_string()),
        (_, Node::Number(n)) => n.parse().map_or_else(|_| Data::Float((*n).to_owned()), Data::Int),
        (Kind::Bytes, Node::String(s)) => match json::from_base64(s) {
            Some(bytes) => Data::Bytes(bytes),
            None => Data::Text(s.to_string()),
        },
        (_, Node::String(s)) => Data::Text(s.to_string()),
        (Kind::Map, Node::Object(members)) => {
            Data::Map(members.iter().map(|(k, v)| (Data::Text(k.to_string()), item(v))).collect())
        }
        (Kind::Map, Node::Array(pairs)) => {
            let key = |node: Option<&Node<'_>>| match (&schema.keys, node) {
                (Some(of), Some(node)) => data(of, node),
                _ => Data::Null,
            };
            let pair = |node: &Node<'_>| match node {
                Node::Array(two) => (key(two.first()), two.get(1).map_or(Data::Null, item)),
                _ => (Data::Null, Data::Null),
            };
            Data::Map(pairs.iter().map(pair).collect())
        }
        (_, Node::Array(items)) => Data::List(items.iter().map(item).collect()),
        (_, Node::Object(_)) => {
            let of = |f: &Field| node.get(&f.name).map_or(Data::Null, |n| data(&f.schema, n));
            Data::Struct(schema.fields.iter().map(of).collect())
        }
    }
}

fn is_no_number(text: &str) -> bool {
    matches!(text, "NaN" | "Infinity" | "-Infinity")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::write;
    use super::*;

    #[test]
    fn what_is_read_is_written_again() {
        for text in [
            r#"{"schema":{"type":"int32","optional":false},"payload":7}"#,
            concat!(
                r#"{"schema":{"type":"struct","fields":[{"type":"string","optional":true,"name":"n","version":1,"doc":"d","#,
                r#""parameters":{"allowed":"a,b"},"default":"a","field":"payload"},{"type":"array","items":{"type":"double","#,
                r#""optional":true},"optional":false,"field":"x"},{"type":"map","keys":{"type":"int16","optional":false},"#,
                r#""values":{"type":"bytes","optional":true},"optional":true,"field":"m"}],"optional":false,"name":"t.Value"},"#,
                r#""payload":{"payload":"b","x":[1.5,"NaN",null,1.0E10],"m":[[1,"AQI="]]}}"#
            ),
            r#"{"schema":{"type":"map","keys":{"type":"string","optional":false},"values":{"type":"string","optional":true},"optional":true},"payload":{"a":null}}"#,
            r#"{"schema":{"type":"int64","optional":false},"payload":"infinity"}"#,
        ] {
            let mut schemas = Schemas::default();
            for _ in 0..2 {
                let part = schemas.read(text.as_bytes()).unwrap();
                let mut out = Vec::new();
                assert!(write::json(&mut out, &part, true, false));
                assert_eq!(String::from_utf8(out).unwrap(), text);
            }
            assert_eq!(schemas.0.len(), 1);
        }
    }
}
