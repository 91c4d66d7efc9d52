//! Rows that move to another key while their table is read, with a column that was not sent (unchanged TOAST) and that the
//! log does not have: the row was never in it, its chunk was still to come, and now it never comes, for the key it has now
//! may lie in a part that was read. Such keys are read once more, by themselves, in a view of their own, and placed as any
//! chunk is. They are in the table's record before a checkpoint lies above the move, so a crash forgets none.

use super::{AdHoc, Job};
use crate::worker::start::Begun;
use catchwater_change::checkpoint::{ChunkPhase, ChunkRecord};
use catchwater_change::encode::debezium_json::key_changed;
use catchwater_change::exact;
use catchwater_change::{Cell, Op, RowChange, TableSchema, Value};
use catchwater_record::CommitSeq;

/// Keys of one table that wait to be read; above it the table is begun again from its first row.
const MOVED_MAX: usize = 1_000;

/// A row as it leaves, its columns filled as far as they could be.
pub(in crate::worker) fn look(begun: &mut Begun<'_>, seq: CommitSeq, row: &RowChange) {
    let Some(after) = &row.after else { return };
    if row.op != Op::Update || !after.cells.contains(&Cell::Unavailable) {
        return;
    }
    // Of a table that came late, a record that says nothing whole is passed over: where it is not certain that the row's chunk
    // is still to come, the row is read by its key, too.
    let may_be_behind = || begun.late.open.contains(&row.table.table_no) && !begun.unchanged.knows(row.table.table_no);
    if !key_changed(row) && !may_be_behind() {
        return;
    }
    let value = |k: &u16| after.cells.get(usize::from(*k))?.value().cloned();
    if let Some(key) = row.table.key.iter().map(value).collect::<Option<Vec<Value>>>() {
        begun.moved.push((seq, row.table.table_no, key));
    }
}

impl AdHoc<'_> {
    /// At the boundary behind their transaction, before anything else may be committed.
    pub fn note_moved(&mut self, begun: &mut Begun<'_>) {
        for (seq, table_no, key) in std::mem::take(&mut begun.moved) {
            for job in self.jobs.iter_mut().filter(|j| j.table_no == table_no) {
                if job.again.len() >= MOVED_MAX {
                    // All of it: then nothing needs to be known by its key.
                    job.let_go();
                    job.again.clear();
                    job.cursor.clear();
                    job.known = Default::default();
                } else if !job.again.contains(&key) {
                    job.again.push(key.clone());
                }
                let record = job.stored(begun, ChunkPhase::Open);
                begun.session.finished.push((seq, job.key(), record));
            }
        }
    }
}

impl Job {
    /// Behind `asked`: the keys, column by column.
    pub(super) fn stored_moved(&self, begun: &Begun<'_>, asked: String) -> Vec<String> {
        let mut out = vec![asked];
        let Some(table) = super::newest(begun, self.table_no) else { return out };
        let kinds: Vec<_> = table.key.iter().map(|k| &table.columns[usize::from(*k)].kind).collect();
        for key in &self.again {
            out.extend(kinds.iter().zip(key).map(|(kind, value)| exact::text_of(kind, value)));
        }
        out
    }

    pub(super) fn restore_moved(&mut self, table: &TableSchema, record: &ChunkRecord) {
        let kinds: Vec<_> = table.key.iter().map(|k| &table.columns[usize::from(*k)].kind).collect();
        let texts = record.upper.get(1..).unwrap_or_default();
        for texts in texts.chunks(kinds.len().max(1)) {
            let values = kinds.iter().zip(texts).map(|(kind, text)| exact::value_of(kind, text));
            if let Some(key) = values.collect::<Option<Vec<Value>>>().filter(|k| k.len() == kinds.len()) {
                self.again.push(key);
            }
        }
    }
}
