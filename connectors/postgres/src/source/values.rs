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

/// A cell for each column: those that a tuple has by `cell`, generated ones, which are not sent, `Absent`.
fn cells(
    table: &TableSchema,
    tuple: &Tuple,
    cell: impl Fn(usize, ColumnData<'_>) -> Result<Cell, RowError>,
) -> Result<Row, RowError> {
    let columns = || {
        let want = table.columns.iter().filter(|c| !c.generated).count();
        RowError::Columns { table: table.qualified(), got: tuple.len(), want }
    };
    let mut sent = tuple.columns();
    let mut cells = Vec::with_capacity(table.columns.len());
    for (at, column) in table.columns.iter().enumerate() {
        cells.push(match column.generated {
            true => Cell::Absent,
            false => cell(at, sent.next().ok_or_else(columns)?)?,
        });
    }
    if sent.next().is_some() { Err(columns()) } else { Ok(Row::new(cells)) }
}

/// A column that was sent as text.
fn text(table: &TableSchema, tuple: &Tuple, at: usize, data: &[u8]) -> Result<Cell, RowError> {
    match types::decode_plain(&table.columns[at].kind, data) {
        Some(value) => Ok(Cell::Value(value)),
        None => value(table, at, tuple.keep(data)),
    }
}

/// A column that was sent in the binary format.
fn bytes(table: &TableSchema, tuple: &Tuple, at: usize, data: &[u8]) -> Result<Cell, RowError> {
    let column = &table.columns[at];
    match types::binary::decode_plain(&column.kind, &column.native_type, data) {
        Some(value) => Ok(Cell::Value(value)),
        None => binary(table, at, tuple.keep(data)),
    }
}

/// A new row. Unchanged TOAST is taken from `old` if that is complete, else it is `Unavailable`.
pub fn new_row(table: &TableSchema, tuple: &Tuple, old: Option<&Row>) -> Result<Row, RowError> {
    cells(table, tuple, |at, data| match data {
        ColumnData::Null => Ok(Cell::Null),
        ColumnData::Unchanged => Ok(old.and_then(|o| o.cells.get(at)).cloned().unwrap_or(Cell::Unavailable)),
        ColumnData::Text(data) => text(table, tuple, at, data),
        ColumnData::Binary(data) => bytes(table, tuple, at, data),
    })
}

/// An old row: all of it under identity FULL, else the identity's columns and the rest `Absent`.
pub fn old_row(table: &TableSchema, old: &OldTuple) -> Result<Row, RowError> {
    let (tuple, full) = match old {
        OldTuple::Full(t) => (t, true),
        OldTuple::Key(t) => (t, false),
    };
    cells(table, tuple, |at, data| match data {
        ColumnData::Null if full => Ok(Cell::Null),
        // The identity's columns are NOT NULL, so a null of a key tuple means: not sent.
        ColumnData::Null => Ok(Cell::Absent),
        ColumnData::Unchanged => Ok(Cell::Unavailable),
        ColumnData::Text(data) => text(table, tuple, at, data),
        ColumnData::Binary(data) => bytes(table, tuple, at, data),
    })
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

/// Rows of `COPY … TO STDOUT (FORMAT binary)`, message by message. Source: PostgreSQL 15 manual, COPY, "Binary Format".
#[derive(Debug, Default)]
pub struct BinaryCopy {
    /// The header was read; the server sends it in the first message, before the first row.
    began: bool,
    ended: bool,
}

const COPY_SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

impl BinaryCopy {
    /// The row of a message; `None` = it has none: the end, or of a table without rows header and end.
    pub fn row(&mut self, table: &TableSchema, message: &Bytes) -> Result<Option<Row>, RowError> {
        let line = || RowError::Line { table: table.qualified() };
        let mut at = 0;
        let word = |at: usize| -> Option<i32> {
            Some(i32::from_be_bytes(<[u8; 4]>::try_from(message.get(at..at.checked_add(4)?)?).ok()?))
        };
        if !self.began {
            let flags = word(COPY_SIGNATURE.len());
            // Nothing but OIDs, which are gone since version 12, would change the rows.
            if !message.starts_with(COPY_SIGNATURE) || flags != Some(0) {
                return Err(line());
            }
            let extension = word(COPY_SIGNATURE.len() + 4).and_then(|n| usize::try_from(n).ok()).ok_or_else(line)?;
            at = (COPY_SIGNATURE.len() + 8).checked_add(extension).ok_or_else(line)?;
            self.began = true;
            if at == message.len() {
                return Ok(None);
            }
        }
        let count = message.get(at..at + 2).and_then(|b| <[u8; 2]>::try_from(b).ok()).map(i16::from_be_bytes);
        let count = count.filter(|_| !self.ended).ok_or_else(line)?;
        at += 2;
        if count == -1 && at == message.len() {
            self.ended = true;
            return Ok(None);
        }
        check(table, usize::try_from(count).map_err(|_| line())?, table.columns.len())?;
        let mut cells = Vec::with_capacity(table.columns.len());
        for (place, column) in table.columns.iter().enumerate() {
            let len = word(at).ok_or_else(line)?;
            at += 4;
            let Ok(len) = usize::try_from(len) else {
                if len != -1 {
                    return Err(line());
                }
                cells.push(Cell::Null);
                continue;
            };
            let data = at.checked_add(len).and_then(|end| message.get(at..end)).ok_or_else(line)?;
            cells.push(match types::binary::decode_plain(&column.kind, &column.native_type, data) {
                Some(value) => Cell::Value(value),
                None => binary(table, place, message.slice(at..at + len))?,
            });
            at += len;
        }
        if at != message.len() {
            return Err(line());
        }
        Ok(Some(Row::new(cells)))
    }

    /// The server has said that all rows were sent.
    pub fn is_whole(&self) -> bool {
        self.ended
    }
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
            domain: String::new(),
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
    fn binary_copies() {
        let t = table(&[Type::Int { bits: 32, unsigned: false }, Type::Text { length: 0 }]);
        let head = [COPY_SIGNATURE, &[0; 8]].concat();
        let row = |id: i32, text: Option<&str>| {
            let mut out = vec![0, 2, 0, 0, 0, 4];
            out.extend(id.to_be_bytes());
            out.extend(text.map_or(-1, |t| t.len() as i32).to_be_bytes());
            out.extend(text.unwrap_or_default().bytes());
            out
        };
        let end = vec![0xff, 0xff];
        let read = |messages: &[Vec<u8>]| -> Result<Vec<Row>, RowError> {
            let mut copy = BinaryCopy::default();
            let mut rows = Vec::new();
            for message in messages {
                rows.extend(copy.row(&t, &Bytes::from(message.clone()))?);
            }
            if copy.is_whole() { Ok(rows) } else { Err(RowError::Line { table: "not whole".into() }) }
        };
        let id = |id| Cell::Value(Value::Int(id));
        let want = [vec![id(7), Cell::Value(Value::Text("a\tb".into()))], vec![id(-8), Cell::Null]].map(Row::new);
        // As servers send it, and with the header in a message of its own.
        let first = [&head[..], &row(7, Some("a\tb"))].concat();
        assert_eq!(read(&[first.clone(), row(-8, None), end.clone()]).unwrap(), want);
        assert_eq!(read(&[head.clone(), row(7, Some("a\tb")), row(-8, None), end.clone()]).unwrap(), want);
        assert_eq!(read(&[[&head[..], &end].concat()]).unwrap(), []);
        assert!(read(std::slice::from_ref(&first)).is_err(), "cut off");
        for cut in 0..first.len() {
            assert!(read(&[first[..cut].to_vec(), end.clone()]).is_err() || cut == head.len(), "cut at {cut}");
        }
        assert!(read(&[first.clone(), end.clone(), row(1, None)]).is_err(), "behind the end");
        let mut more = row(1, None);
        more.push(0);
        assert!(read(&[head.clone(), more, end.clone()]).is_err(), "left over");
        assert!(read(&[head.clone(), vec![0, 1, 0xff, 0xff, 0xff, 0xff], end.clone()]).is_err(), "too few columns");
        let hostile = vec![0, 2, 0x7f, 0xff, 0xff, 0xff];
        assert!(read(&[head, hostile, end]).is_err(), "longer than its message");
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
