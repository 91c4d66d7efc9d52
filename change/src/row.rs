//! Pure. A line of a table: one cell per column of its schema.

use crate::value::Value;

/// What is known of one column of one row.
#[derive(Clone, PartialEq, Debug)]
pub enum Cell {
    Value(Value),
    Null,
    /// It exists but was not sent (unchanged TOAST, minimal image).
    Unavailable,
    /// Not captured.
    Absent,
}

impl Cell {
    pub fn value(&self) -> Option<&Value> {
        match self {
            Cell::Value(v) => Some(v),
            _ => None,
        }
    }
    pub fn is_null(&self) -> bool {
        matches!(self, Cell::Null)
    }
}

/// Cells in the order of [`crate::TableSchema::columns`].
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Row {
    pub cells: Vec<Cell>,
}

impl Row {
    pub fn new(cells: Vec<Cell>) -> Self {
        Row { cells }
    }
    /// Every column that exists was sent.
    pub fn is_whole(&self) -> bool {
        !self.cells.iter().any(|c| matches!(c, Cell::Unavailable))
    }
    /// Rough size in memory, bytes: what credit is charged with.
    pub fn bytes(&self) -> usize {
        // Asked of each row that is read, twice: what calls itself is no part of the loop.
        fn of(v: &Value) -> usize {
            match v {
                Value::Text(t) | Value::Json(t) => t.as_bytes().len(),
                Value::Bytes(b) => b.len(),
                Value::Array(items) => array(items),
                Value::Decimal(_) => 32,
                _ => 8,
            }
        }
        #[inline(never)]
        fn array(items: &[Option<Value>]) -> usize {
            items.iter().flatten().map(of).sum::<usize>() + 16 * items.len()
        }
        self.cells.iter().map(|c| 32 + c.value().map_or(0, of)).sum()
    }
}
