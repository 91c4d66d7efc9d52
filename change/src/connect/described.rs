//! Pure. Debezium's transforms that put more into an envelope: `ExtractSchemaToNewRecord`, which says of each record what its table's
//! columns are, and `DecodeLogicalDecodingMessageContent`, which makes a row of what a logical message says.
//!
//! Source: Debezium 3.7 (`ExtractSchemaToNewRecord`, `DecodeLogicalDecodingMessageContent`), recordings `conv-*`.

use super::smt::{Refused, structure};
use super::{Data, Field, Kind, Part, Record, Schema};
use crate::encode::debezium_json::expand_json;
use std::sync::Arc;

/// The value of a logical message.
const MESSAGE: &str = "io.debezium.connector.postgresql.MessageValue";
const COLUMN: &str = "__debezium.source.column.";

/// What is left of a message that is decoded: an `ExtractNewRecordState` behind it takes its envelope away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rest {
    Envelope,
    Row,
    /// The row and more.
    More,
}

fn field(name: &str, schema: Schema) -> Field {
    Field { name: name.to_owned(), schema: Arc::new(schema) }
}

fn named(kind: Kind, name: &str, fields: Vec<Field>) -> Schema {
    Schema { name: Some(name.to_owned()), version: Some(1), fields, ..Schema::new(kind) }
}

/// An envelope's schema with the field `sourceSchema`.
pub(super) fn with_source_schema(of: &Schema) -> Schema {
    let optional = |kind| Schema { optional: true, ..Schema::new(kind) };
    let column = named(
        Kind::Struct,
        "io.debezium.connector.source.schema.Column",
        vec![
            field("name", Schema::new(Kind::String)),
            field("typeName", Schema::new(Kind::String)),
            field("length", optional(Kind::Int32)),
            field("scale", optional(Kind::Int32)),
            field("comment", optional(Kind::String)),
        ],
    );
    let columns = Schema { items: Some(Arc::new(column)), ..Schema::new(Kind::Array) };
    let table = named(Kind::Struct, "io.debezium.connector.source.schema.Table", vec![field("columns", columns)]);
    let own = named(
        Kind::Struct,
        "io.debezium.connector.source.Schema",
        vec![field("id", Schema::new(Kind::String)), field("table", table)],
    );
    let mut out = of.clone();
    out.fields.push(field("sourceSchema", own));
    out
}

/// True for a change of a row in its envelope; a truncate has neither image.
pub(super) fn has_row(schema: &Schema, values: &[Data]) -> bool {
    let image = |name: &str| schema.place(name).and_then(|at| values.get(at));
    let is_there = |name| image(name).is_some_and(|data| *data != Data::Null);
    schema.name.as_deref().is_some_and(|n| n.ends_with(".Envelope")) && (is_there("before") || is_there("after"))
}

/// What stands in `sourceSchema`: names and types are those that the columns' schemas say.
pub(super) fn source_schema(schema: &Schema, values: &[Data]) -> Result<Data, Refused> {
    let source = schema.place("source").and_then(|at| Some((&schema.fields.get(at)?.schema, values.get(at)?)));
    let id = match source {
        Some((of, Data::Struct(parts))) => of.place("table").and_then(|at| parts.get(at)).cloned(),
        _ => None,
    };
    let Some(row) = schema.field("after") else { return Err("the record has no field after".into()) };
    let mut columns = Vec::new();
    for f in &row.fields {
        let said = |what: &str| {
            let name = format!("{COLUMN}{what}");
            f.schema.parameters.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str())
        };
        let (Some(name), Some(kind)) = (said("name"), said("type")) else {
            return Err(format!(
                "the schema of column {} does not say its type: column.propagate.source.type or \
                 datatype.propagate.source.type must name every column, as `.*` does",
                f.name
            ));
        };
        let number = |what| said(what).and_then(|n| n.parse().ok()).map_or(Data::Null, Data::Int);
        let text = |text: &str| Data::Text(text.to_owned());
        let comment = said("comment").map_or(Data::Null, text);
        columns.push(Data::Struct(vec![text(name), text(kind), number("length"), number("scale"), comment]));
    }
    let table = Data::Struct(vec![Data::List(columns)]);
    Ok(Data::Struct(vec![id.unwrap_or(Data::Null), table]))
}

/// A message's record with its content as the row behind an insert; others as they are. `nulls` = `fields.null.include`.
pub(super) fn decoded(record: Record, nulls: bool, rest: Rest) -> Result<Record, Refused> {
    let Some((schema, data)) = record.value.clone().filter(|(schema, _)| schema.is_named(MESSAGE)) else {
        return Ok(record);
    };
    let mut values = structure(&schema, data)?;
    let Some(at) = schema.place("message") else { return Ok(record) };
    let content = match values.get(at) {
        Some(Data::Struct(parts)) => parts.get(1).cloned(),
        _ => None,
    };
    let Some(Data::Bytes(bytes)) = content else {
        return Err("the content of a message must be bytes: binary.handling.mode = bytes".into());
    };
    let (row, after) = expand_json(&String::from_utf8_lossy(&bytes), nulls)
        .ok_or("the content of the message is no JSON object that has a schema")?;
    match rest {
        Rest::Envelope => {}
        Rest::Row => {
            let row = Schema { optional: false, ..row };
            return Ok(Record { key: None, value: Some((Arc::new(row), after)), ..record });
        }
        Rest::More => {
            return Err("an ExtractNewRecordState behind it that adds fields or headers is not served for messages: \
                        give that one a predicate of topics"
                .into());
        }
    }
    let mut made = named(Kind::Struct, &format!("{MESSAGE}.Envelope"), schema.fields.clone());
    made.version = None;
    made.fields.remove(at);
    values.remove(at);
    if let Some(op) = made.place("op").and_then(|at| values.get_mut(at)) {
        *op = Data::Text("c".into());
    }
    made.fields.push(Field { name: "after".into(), schema: Arc::new(row) });
    values.push(after);
    let value: Part = Some((Arc::new(made), Data::Struct(values)));
    Ok(Record { key: None, value, ..record })
}
