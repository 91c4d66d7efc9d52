//! Pure. `table.expand.json.payload`: a text of JSON becomes a value with a schema that is read off it.
//!
//! A text that is none, or has no one schema (an array of mixed types), stays the text it is. Where Debezium's schema does not
//! fit its own value (arrays of arrays of other types, numbers beyond 64 bits, an array at the top) its task stops; here the text
//! stays. Fields that one object of a list has and another has not are null there; they stand in the order in which they come
//! (Debezium: in that of a hash, another in each run).
//! Source: Debezium 3.7 (`JsonSchemaData`), Jackson's `ObjectMapper`.

use super::Expand;
use crate::encode::debezium_json::schema;
use crate::json::{self, Node};

/// What stands for the text.
#[derive(Debug, PartialEq)]
pub struct Expanded {
    /// Without its closing brace.
    pub schema: Vec<u8>,
    pub value: Vec<u8>,
}

/// None = the text stays.
pub fn expand(field: Option<&str>, text: &str, how: Expand) -> Option<Expanded> {
    if !text.starts_with('{') {
        return None;
    }
    let node = json::parse(text.as_bytes()).ok()?;
    let shape = shape_of(field, &node, how).ok()??;
    let (mut schema, mut value) = (Vec::new(), Vec::new());
    put_value(&mut value, &node, &shape).ok()?;
    put_schema(&mut schema, &shape);
    Some(Expanded { schema, value })
}

/// A schema that is read off a value; all of them are optional.
#[derive(Clone, PartialEq, Debug)]
enum Shape {
    /// A scalar's type.
    Plain(&'static str),
    Array(Box<Shape>),
    Struct {
        name: Option<String>,
        fields: Vec<(String, Shape)>,
    },
}

/// It has no schema.
struct Odd;

/// `Ok(None)`: left out.
fn shape_of(name: Option<&str>, node: &Node<'_>, how: Expand) -> Result<Option<Shape>, Odd> {
    Ok(Some(match node {
        Node::Null if how.nulls => Shape::Plain("bytes"),
        Node::Null => return Ok(None),
        Node::Bool(_) => Shape::Plain("boolean"),
        Node::String(_) => Shape::Plain("string"),
        Node::Number(text) => Shape::Plain(number(text)),
        Node::Array(items) if items.is_empty() && how.empty_arrays => Shape::Array(Box::new(Shape::Plain("string"))),
        Node::Array(items) if items.is_empty() => return Ok(None),
        Node::Array(items) => Shape::Array(Box::new(item_shape(name, items, how)?)),
        Node::Object(members) => {
            let mut fields: Vec<(String, Shape)> = Vec::new();
            for (key, _) in members {
                if fields.iter().any(|(k, _)| k == key) {
                    continue;
                }
                let path = name.filter(|n| !n.trim().is_empty()).map(|n| format!("{n}.{key}"));
                let member = node.get(key).unwrap_or(&Node::Null);
                if let Some(shape) = shape_of(Some(path.as_deref().unwrap_or(key)), member, how)? {
                    fields.push((key.to_string(), shape));
                }
            }
            Shape::Struct { name: name.map(str::to_owned), fields }
        }
    }))
}

/// Of an array's items: all of one type, nulls aside.
fn item_shape(name: Option<&str>, items: &[Node<'_>], how: Expand) -> Result<Shape, Odd> {
    let present = || items.iter().filter(|n| !matches!(n, Node::Null));
    let Some(first) = present().next() else {
        return shape_of(None, &Node::Null, how)?.ok_or(Odd);
    };
    let is_like = |n: &Node<'_>| match (first, n) {
        (Node::Number(a), Node::Number(b)) => number(a) == number(b),
        (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
    };
    if !present().all(is_like) {
        return Err(Odd);
    }
    if !matches!(first, Node::Object(_)) {
        return shape_of(None, first, how)?.ok_or(Odd);
    }
    let mut all: Vec<(String, Shape)> = Vec::new();
    for item in present() {
        let Some(Shape::Struct { fields, .. }) = shape_of(name, item, how)? else { return Err(Odd) };
        for (key, shape) in fields {
            match all.iter_mut().find(|(k, _)| *k == key) {
                None => all.push((key, shape)),
                // A null says nothing of the type.
                Some((_, known)) if *known == Shape::Plain("bytes") => *known = shape,
                Some(_) => {}
            }
        }
    }
    Ok(Shape::Struct { name: name.map(str::to_owned), fields: all })
}

/// Jackson's types: an `int`, a `long`, or what has a point or is longer.
fn number(text: &str) -> &'static str {
    if text.contains(['.', 'e', 'E']) {
        return "double";
    }
    match text.parse::<i64>() {
        Ok(n) if i32::try_from(n).is_ok() => "int32",
        Ok(_) => "int64",
        Err(_) => "double",
    }
}

fn put_value(out: &mut Vec<u8>, node: &Node<'_>, shape: &Shape) -> Result<(), Odd> {
    match (node, shape) {
        (Node::Null, _) => out.extend_from_slice(b"null"),
        (Node::Bool(b), Shape::Plain("boolean")) => out.extend_from_slice(if *b { b"true" } else { b"false" }),
        (Node::String(text), Shape::Plain("string")) => json::put_string(out, text),
        (Node::Number(text), Shape::Plain(kind)) if number(text) == *kind => match text.parse::<i64>() {
            Ok(n) if *kind != "double" => json::put_i64(out, n),
            // A whole number beyond 64 bits is none of its schema's.
            _ if !text.contains(['.', 'e', 'E']) => return Err(Odd),
            _ => json::put_f64(out, text.parse().map_err(|_| Odd)?),
        },
        (Node::Array(items), Shape::Array(of)) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                put_value(out, item, of)?;
            }
            out.push(b']');
        }
        (Node::Object(_), Shape::Struct { fields, .. }) => {
            out.push(b'{');
            for (i, (key, shape)) in fields.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                json::put_string(out, key);
                out.push(b':');
                put_value(out, node.get(key).unwrap_or(&Node::Null), shape)?;
            }
            out.push(b'}');
        }
        _ => return Err(Odd),
    }
    Ok(())
}

fn put_schema(out: &mut Vec<u8>, shape: &Shape) {
    let plain = |out: &mut Vec<u8>, kind: &str| {
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.push(b'"');
    };
    match shape {
        Shape::Plain(kind) => plain(out, kind),
        Shape::Array(of) => {
            plain(out, "array");
            out.extend_from_slice(b",\"items\":");
            put_schema(out, of);
            out.push(b'}');
        }
        Shape::Struct { fields, .. } => {
            plain(out, "struct");
            out.extend_from_slice(b",\"fields\":[");
            for (i, (key, shape)) in fields.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                put_schema(out, shape);
                schema::put_field(out, key);
            }
            out.push(b']');
        }
    }
    out.extend_from_slice(b",\"optional\":true");
    if let Shape::Struct { name: Some(name), .. } = shape {
        out.extend_from_slice(b",\"name\":");
        json::put_string(out, name);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(text: &str, nulls: bool, empty_arrays: bool) -> Option<(String, String)> {
        let made = expand(Some("payload"), text, Expand { nulls, empty_arrays })?;
        let text = |b| String::from_utf8(b).unwrap();
        Some((text(made.schema) + "}", text(made.value)))
    }
    fn value(text: &str) -> Option<String> {
        of(text, false, false).map(|(_, value)| value)
    }

    #[test]
    fn a_schema_is_read_off_the_value() {
        let (schema, shown) = of(r#"{"a": 1, "b": {"c": ["x", null]}, "d": null, "e": []}"#, false, false).unwrap();
        assert_eq!(shown, r#"{"a":1,"b":{"c":["x",null]}}"#);
        let c = r#"{"type":"array","items":{"type":"string","optional":true},"optional":true,"field":"c"}"#;
        let b = format!(r#"{{"type":"struct","fields":[{c}],"optional":true,"name":"payload.b","field":"b"}}"#);
        let a = r#"{"type":"int32","optional":true,"field":"a"}"#;
        assert_eq!(schema, format!(r#"{{"type":"struct","fields":[{a},{b}],"optional":true,"name":"payload"}}"#));
        let (schema, shown) = of(r#"{"d": null, "e": [], "f": [null]}"#, true, true).unwrap();
        assert_eq!(shown, r#"{"d":null,"e":[],"f":[null]}"#);
        assert!(schema.contains(r#"{"type":"bytes","optional":true,"field":"d"}"#), "{schema}");
    }

    #[test]
    fn what_has_no_schema_stays_text() {
        for odd in [
            r#"{"a": [1, "x"]}"#,
            r#"{"a": [1, 3000000000]}"#,
            r#"{"a": [[], []]}"#,
            r#"{"a": [null]}"#,
            r#"{"a": [[1], ["x"]]}"#,
            r#"{"a": 12345678901234567890}"#,
            r#"[{"a": 1}]"#,
            r#" {"a": 1}"#,
            "17",
            "{",
            "",
        ] {
            assert_eq!(value(odd), None, "{odd}");
        }
    }

    #[test]
    fn lists_of_objects_have_the_fields_of_all() {
        let shown = value(r#"{"l": [{"a": 1}, null, {"b": "x", "a": 2}]}"#).unwrap();
        assert_eq!(shown, r#"{"l":[{"a":1,"b":null},null,{"a":2,"b":"x"}]}"#);
        assert_eq!(value(r#"{"l": [{"a": 1}, {"a": "x"}]}"#), None, "no type has both");
        let (_, shown) = of(r#"{"l": [{"a": null}, {"a": "x"}]}"#, true, false).unwrap();
        assert_eq!(shown, r#"{"l":[{"a":null},{"a":"x"}]}"#);
        assert_eq!(value(r#"{"a": 1, "a": 2.5e1, "b": -0}"#).unwrap(), r#"{"a":25.0,"b":0}"#, "the last one counts");
    }
}
