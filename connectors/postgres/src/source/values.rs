//! Pure. Tuples of the wire and lines of COPY → rows against a table's schema.

use crate::source::decode::{ColumnData, OldTuple, Tuple};
use crate::types::{self, binary::BinaryError};
use bytes::{Bytes, BytesMut};
use catchwater_change::{Cell, Row, TableSchema};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    #[error("table {table}: a row of {got} columns meets a schema of {want}")]
    Columns { table: String, got: usize, want: usize },
    #[error("table {table}, column {column}: text is not UTF-8")]
    Utf8 { table: String, column: String },
    #[error("table {table}, column {column}: binary data is not of its type")]
    Binary { table: String, column: String },
    #[error("table {table}: a line of COPY makes no sense")]
    Line { table: String },
}

fn value(table: &TableSchema, at: usize, bytes: Bytes) -> Result<Cell, RowError> {
    let column = &table.columns[at];
    types::decode(&column.kind, bytes)
        .map(Cell::Value)
        .map_err(|_| RowError::Utf8 { table: table.qualified(), column: column.name.clone() })
}

fn check(table: &TableSchema, got: usize, want: usize) -> Result<(), RowError> {
    if got == want { Ok(()) } else { Err(RowError::Columns { table: table.qualified(), got, want }) }
}

/// Places of the columns that a tuple has: generated ones are not sent.
fn sent<'t>(table: &'t TableSchema, tuple: &Tuple) -> Result<impl Iterator<Item = usize> + use<'t>, RowError> {
    let places = || table.columns.iter().enumerate().filter(|(_, c)| !c.generated).map(|(at, _)| at);
    check(table, tuple.len(), places().count())?;
    Ok(places())
}

/// A new row. Unchanged TOAST is taken from `old` if that is complete, else it is `Unavailable`.
pub fn new_row(table: &TableSchema, tuple: &Tuple, old: Option<&Row>) -> Result<Row, RowError> {
    let places = sent(table, tuple)?;
    let mut cells = vec![Cell::Absent; table.columns.len()];
    for (at, data) in places.zip(tuple.columns()) {
        cells[at] = match data {
            ColumnData::Null => Cell::Null,
            ColumnData::Unchanged => old.and_then(|o| o.cells.get(at)).cloned().unwrap_or(Cell::Unavailable),
            ColumnData::Text(bytes) => value(table, at, bytes)?,
            ColumnData::Binary(bytes) => binary(table, at, bytes)?,
        };
    }
    Ok(Row::new(cells))
}

/// An old row: all of it under identity FULL, else the identity's columns and the rest `Absent`.
pub fn old_row(table: &TableSchema, old: &OldTuple) -> Result<Row, RowError> {
    let (tuple, full) = match old {
        OldTuple::Full(t) => (t, true),
        OldTuple::Key(t) => (t, false),
    };
    let places = sent(table, tuple)?;
    let mut cells = vec![Cell::Absent; table.columns.len()];
    for (at, data) in places.zip(tuple.columns()) {
        cells[at] = match data {
            ColumnData::Null if full => Cell::Null,
            // The identity's columns are NOT NULL, so a null of a key tuple means: not sent.
            ColumnData::Null => Cell::Absent,
            ColumnData::Unchanged => Cell::Unavailable,
            ColumnData::Text(bytes) => value(table, at, bytes)?,
            ColumnData::Binary(bytes) => binary(table, at, bytes)?,
        };
    }
    Ok(Row::new(cells))
}

fn binary(table: &TableSchema, at: usize, bytes: Bytes) -> Result<Cell, RowError> {
    let column = &table.columns[at];
    types::binary::decode(&column.kind, &column.native_type, bytes).map(Cell::Value).map_err(|e| {
        let (table, column) = (table.qualified(), column.name.clone());
        match e {
            BinaryError::NotUtf8 => RowError::Utf8 { table, column },
            BinaryError::Foreign => RowError::Binary { table, column },
        }
    })
}

/// One line of `COPY … TO STDOUT` (text format, line end included).
/// Source: PostgreSQL 15 manual, COPY, "Text Format".
pub fn copy_row(table: &TableSchema, line: &Bytes) -> Result<Row, RowError> {
    let line = match line.last() {
        Some(b'\n') => line.slice(..line.len() - 1),
        _ => return Err(RowError::Line { table: table.qualified() }),
    };
    let mut cells = Vec::with_capacity(table.columns.len());
    if table.columns.is_empty() && line.is_empty() {
        return Ok(Row::default());
    }
    let mut start = 0;
    loop {
        let end = line[start..].iter().position(|b| *b == b'\t').map_or(line.len(), |n| start + n);
        if cells.len() >= table.columns.len() {
            return Err(RowError::Columns {
                table: table.qualified(),
                got: cells.len() + 1,
                want: table.columns.len(),
            });
        }
        let field = line.slice(start..end);
        cells.push(match &field[..] {
            b"\\N" => Cell::Null,
            f if f.contains(&b'\\') => {
                let plain = unescape(f).ok_or_else(|| RowError::Line { table: table.qualified() })?;
                value(table, cells.len(), plain)?
            }
            _ => value(table, cells.len(), field)?,
        });
        if end == line.len() {
            break;
        }
        start = end + 1;
    }
    check(table, cells.len(), table.columns.len())?;
    Ok(Row::new(cells))
}

fn unescape(field: &[u8]) -> Option<Bytes> {
    let mut out = BytesMut::with_capacity(field.len());
    let mut rest = field;
    while let Some((&b, tail)) = rest.split_first() {
        rest = tail;
        let plain = if b == b'\\' {
            let (&e, tail) = rest.split_first()?;
            rest = tail;
            match e {
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 11,
                other => other,
            }
        } else {
            b
        };
        out.extend_from_slice(&[plain]);
    }
    Some(out.freeze())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use catchwater_change::{Column, KeyFrom, Type, Value};

    pub(crate) fn table(kinds: &[Type]) -> TableSchema {
        let column = |(i, kind): (usize, &Type)| Column {
            id: i as u32 + 1,
            name: format!("c{i}"),
            native_type: String::new(),
            native_id: 0,
            modifier: -1,
            kind: kind.clone(),
            nullable: None,
            generated: false,
            identity: false,
            default: String::new(),
            missing: None,
            comment: String::new(),
        };
        TableSchema {
            schema_no: 0,
            table_no: 0,
            native_id: 1,
            database: String::new(),
            schema: "s".into(),
            name: "t".into(),
            comment: String::new(),
            identity: b'd',
            key_from: KeyFrom::None,
            columns: kinds.iter().enumerate().map(column).collect(),
            key: vec![],
            unique: vec![],
            fingerprint: [0; 16],
            topic: catchwater_record::TopicId::NONE,
        }
    }

    #[test]
    fn copy_lines() {
        let t = table(&[Type::Int { bits: 32, unsigned: false }, Type::Text { length: 0 }, Type::Text { length: 0 }]);
        let row = |s: &'static str| copy_row(&t, &Bytes::from_static(s.as_bytes()));
        let text = |s: &str| Cell::Value(Value::Text(s.into()));
        assert_eq!(
            row("7\ta\\tb\\n\\\\\t\\N\n").unwrap().cells,
            [Cell::Value(Value::Int(7)), text("a\tb\n\\"), Cell::Null]
        );
        assert_eq!(row("7\t\t\\\\N\n").unwrap().cells, [Cell::Value(Value::Int(7)), text(""), text("\\N")]);
        for bad in ["7\ta\n", "7\ta\tb\tc\n", "7\ta\tb", "", "7\ta\tb\\\n"] {
            assert!(row(bad).is_err(), "{bad:?}");
        }
    }
}
