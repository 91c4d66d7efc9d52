//! Pure. The rows of an envelope as our encoder writes it, and nothing else of it: what a sink needs.
//!
//! The rows stand first (`{"before":…,"after":…,"source":…`); operation and place are in the stamp, so reading ends behind
//! them: of a record of 640 bytes 500 are never looked at. Texts are slices of the record. No tree is built, but for
//! single cells of rare types.
//!
//! Invariant: what is read here is what [`super::decode`] reads. Whatever has another form (schemas, spaces, members in
//! another order, a cell that does not fit) gives `None`, and `decode` has the word, and the error.

use super::{cell, cell_of, mark};
use crate::encode::form::Form;
use crate::exact::ExactCell;
use crate::json::Reader;
use crate::row::{Cell, Row};
use crate::schema::{TableSchema, Type};
use crate::value::{Text, Value};
use bytes::Bytes;

/// Before and after.
pub(super) type Rows = (Option<Row>, Option<Row>);

pub(super) fn read(value: &Bytes, schema: &TableSchema, form: &Form, marks: &[ExactCell]) -> Option<Rows> {
    let reader = Reader::new(std::str::from_utf8(value).ok()?);
    let mut rows = Envelope { value, reader, schema, form, marks };
    rows.reader.eat(b"{\"before\":").then_some(())?;
    let before = rows.row(false)?;
    rows.reader.eat(b",\"after\":").then_some(())?;
    let after = rows.row(true)?;
    rows.reader.eat(b",\"source\":{").then_some((before, after))
}

struct Envelope<'a> {
    value: &'a Bytes,
    reader: Reader<'a>,
    schema: &'a TableSchema,
    form: &'a Form,
    marks: &'a [ExactCell],
}

impl Envelope<'_> {
    fn row(&mut self, after: bool) -> Option<Option<Row>> {
        if self.reader.eat(b"null") {
            return Some(None);
        }
        self.reader.eat(b"{").then_some(())?;
        let columns = &self.schema.columns;
        let mut cells = Vec::with_capacity(columns.len());
        loop {
            // In the order of the columns, but for those left out.
            let name = self.reader.plain_string()?;
            while columns.get(cells.len()).is_some_and(|c| c.name != name) {
                cells.push(Cell::Absent);
            }
            let at = cells.len();
            columns.get(at)?;
            self.reader.eat(b":").then_some(())?;
            cells.push(self.cell(at, after)?);
            if !self.reader.eat(b",") {
                self.reader.eat(b"}").then_some(())?;
                break;
            }
        }
        cells.resize(columns.len(), Cell::Absent);
        Some(Some(Row { cells }))
    }

    fn cell(&mut self, at: usize, after: bool) -> Option<Cell> {
        let column = &self.schema.columns[at];
        if !self.marks.is_empty() {
            let node = self.reader.value(2).ok()?;
            return cell(&node, mark(self.marks, self.schema, at, after), column, self.form).ok();
        }
        match &column.kind {
            Type::Text { .. } | Type::Uuid | Type::Enum { .. } | Type::Xml => {
                if let Some(text) = self.text() {
                    return Some(Cell::Value(Value::Text(text)));
                }
            }
            Type::Json { .. } => {
                if let Some(text) = self.text() {
                    return Some(Cell::Value(Value::Json(text)));
                }
            }
            Type::Int { unsigned: false, .. } => {
                if let Some(number) = self.reader.short_integer() {
                    return Some(Cell::Value(Value::Int(number)));
                }
            }
            _ => {}
        }
        if self.reader.eat(b"null") {
            return Some(Cell::Null);
        }
        let node = self.reader.value(2).ok()?;
        cell_of(&node, column, self.form).ok()
    }

    /// A string without escapes, as a slice of the record.
    fn text(&mut self) -> Option<Text> {
        let found = self.reader.plain_string()?;
        Text::from_utf8(self.value.slice_ref(found.as_bytes())).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Column, KeyFrom};
    use catchwater_record::TopicId;

    fn schema() -> TableSchema {
        let column = |name: &str, kind: Type| Column {
            id: 1,
            name: name.into(),
            native_type: String::new(),
            domain: String::new(),
            native_id: 0,
            modifier: -1,
            kind,
            nullable: Some(true),
            generated: false,
            identity: false,
            default: String::new(),
            missing: None,
            comment: String::new(),
        };
        TableSchema {
            schema_no: 1,
            table_no: 1,
            native_id: 0,
            database: "d".into(),
            schema: "s".into(),
            name: "t".into(),
            comment: String::new(),
            identity: b'd',
            key_from: KeyFrom::PrimaryKey,
            columns: vec![
                column("id", Type::Int { bits: 64, unsigned: false }),
                column("v", Type::Text { length: 0 }),
                column("f", Type::Float { bits: 64 }),
            ],
            key: vec![0],
            unique: Vec::new(),
            fingerprint: [0; 16],
            topic: TopicId::NONE,
        }
    }

    fn rows(value: &str) -> Option<Rows> {
        read(&Bytes::copy_from_slice(value.as_bytes()), &schema(), &Form::default(), &[])
    }

    #[test]
    fn an_envelope_is_read_up_to_its_source_and_anything_else_is_left_to_decode() {
        let (id, v) = (Cell::Value(Value::Int(-12)), |v: &str| Cell::Value(Value::Text(v.into())));
        let f = || Cell::Value(Value::Float64(1.5));
        for (after, want) in [
            (r#"{"id":-12,"v":"a b","f":1.5}"#, Some(vec![id.clone(), v("a b"), f()])),
            (r#"{"id":-12,"v":"a\"b\u0041","f":1.5}"#, Some(vec![id.clone(), v("a\"bA"), f()])),
            (r#"{"id":-12,"v":null,"f":1.5}"#, Some(vec![id.clone(), Cell::Null, f()])),
            (r#"{"id":-12,"f":1.5}"#, Some(vec![id.clone(), Cell::Absent, f()])),
            (r#"{"id":-12}"#, Some(vec![id.clone(), Cell::Absent, Cell::Absent])),
            (r#"{"v":"","id":-12}"#, None),
            (r#"{"id":-12,"x":1}"#, None),
            (r#"{"id":-12,"id":-12}"#, None),
            (r#"{"id":"12"}"#, None),
            (r#"{"id":1.5}"#, None),
            (r#"{"id":12345678901234567890}"#, None),
            (r#"{ "id":-12}"#, None),
            (r#"{}"#, None),
            (r#"[]"#, None),
        ] {
            let value = format!(r#"{{"before":null,"after":{after},"source":{{"never":looked at"#);
            let want = want.map(|cells| (None, Some(Row::new(cells))));
            assert_eq!(rows(&value), want, "{after}");
        }
        let row = || Some(Row::new(vec![id.clone(), Cell::Absent, Cell::Absent]));
        assert_eq!(rows(r#"{"before":{"id":-12},"after":null,"source":{"#), Some((row(), None)));
        for other in
            ["", "null", "{", r#"{"after":null}"#, r#"{"before":null,"after":null}"#, r#"{"schema":{},"payload":{}}"#]
        {
            assert_eq!(rows(other), None, "{other}");
        }
    }
}
