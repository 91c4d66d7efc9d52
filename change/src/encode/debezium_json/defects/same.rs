//! Pure. `skip.messages.without.change` as Debezium means it: the two rows are compared as they stand in the record
//! (`Struct.equals`), so that a change which has no form there is none, and arrays within arrays are never equal.

use super::{Cuts, Road, array};
use crate::encode::debezium_json::value::put_value as put_shown;
use crate::encode::debezium_json::{Encoder, nothing};
use crate::event::{Op, RowChange};
use crate::row::Cell;
use crate::schema::Column;

impl Encoder {
    /// True if Debezium sees no change in an update.
    pub(in super::super) fn is_unchanged(&self, change: &RowChange) -> bool {
        let (Op::Update, Some(before), Some(after)) = (change.op, &change.before, &change.after) else { return false };
        let cuts = self.cuts(&change.table);
        let cuts = cuts.as_deref();
        let columns = change.table.columns.iter().enumerate();
        columns.zip(before.cells.iter().zip(&after.cells)).all(|((at, column), (old, new))| match (old, new) {
            // Not captured.
            (_, Cell::Absent) => true,
            (Cell::Value(v), _) | (_, Cell::Value(v)) if array::has_addresses(column, v) => false,
            // What was not sent is what stood there.
            (Cell::Value(_) | Cell::Null | Cell::Unavailable, Cell::Unavailable) => true,
            (_, Cell::Unavailable) => false,
            (old, new) => self.compared(cuts, at, column, old) == self.compared(cuts, at, column, new),
        })
    }

    fn compared(&self, cuts: Option<&Cuts>, at: usize, column: &Column, cell: &Cell) -> Vec<u8> {
        let mut out = Vec::new();
        match cell {
            Cell::Value(v) if self.put_cut(&mut out, cuts, at, column, v, Road::Stream) => {}
            Cell::Value(v) if super::put_value(&mut out, &self.options, column, v, Road::Stream) => {}
            Cell::Value(v) => drop(put_shown(&mut out, &self.options.form, column, v)),
            // The converter's defaults come behind the comparison.
            _ => nothing::put(&mut out, &self.options, false, column),
        }
        out
    }
}
