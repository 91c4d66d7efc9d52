//! Tables that come to a source after it began: one that a pattern takes, or that the file names now. Their rows are read
//! beside the stream, without a stop of the others.
//!
//! The first TABLE record of such a table says that it came late, and is committed before its first row. Its rows are asked
//! for by the CHUNK record of the whole table, so between the two a crash forgets nothing: a worker that begins asks for what
//! nobody has asked for. A table that can be read in the order of its key becomes an ad hoc snapshot (`adhoc`), with its
//! progress, pauses and stops; any other one is read as what is left of a first snapshot is after a crash (`fill`), without
//! a key in one view.
//!
//! Until a row was read the stream may have changes of it that do not hold all of it: they are marked (`ROW_COMES`), and who
//! builds state from the log waits for the row.

use super::adhoc::has_order;
use super::start::{Begun, History, whole_table};
use catchwater_base::log;
use catchwater_change::TableSchema;
use catchwater_change::checkpoint::{ChunkPhase, Stored, StoredKey, TableRecord, WHOLE_TABLE, table_flag};
use catchwater_record::{CommitSeq, Incarnation, Offset, TopicId, TopicPartition};
use std::collections::BTreeSet;
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Late {
    /// A table that nobody knew comes late.
    pub is_on: bool,
    /// All that ever did, by number.
    pub came: BTreeSet<u32>,
    /// Nobody has asked for their rows: those for ad hoc snapshots, and the others.
    pub ordered: Vec<Arc<TableSchema>>,
    pub others: Vec<Arc<TableSchema>>,
    /// Their ad hoc snapshots are not at their end.
    pub open: BTreeSet<u32>,
    /// Tables that are read by a person's statement.
    pub statements: BTreeSet<String>,
    pub has_stretches: bool,
}

impl Late {
    /// Tables that came late to this incarnation and that nobody asked the rows of.
    fn forgotten(&mut self, history: &History, incarnation: Incarnation) -> BTreeSet<u32> {
        let is_late = |t: &&TableRecord| t.flags & table_flag::LATE != 0 && t.from.incarnation == incarnation;
        self.came.extend(history.tables.iter().filter(is_late).map(|t| t.schema.table_no));
        let is_asked = |no: &u32| history.chunks.keys().any(|(_, table, unit)| table == no && *unit == WHOLE_TABLE);
        self.came.iter().copied().filter(|no| !is_asked(no)).collect()
    }
}

impl Begun<'_> {
    /// The rows of a table that came now are wanted.
    pub fn reads_late(&self, table: &TableSchema) -> bool {
        let is_wanted = self.wants_rows(table) && table.topic != TopicId::NONE;
        if !is_wanted {
            log!(
                Info,
                "capture.late_table",
                "source {}: {} is captured from now on; what it has already is not read, as the first snapshot would not",
                self.session.config.source,
                table.qualified()
            );
        }
        is_wanted
    }

    /// The rows of the table are in the log, also those that nobody changes.
    pub fn wants_rows(&self, table: &TableSchema) -> bool {
        let (config, name) = (&self.session.config, table.qualified());
        let of_snapshots = config.snapshot_tables.as_ref().is_none_or(|p| p.fits(&name));
        config.snapshot.reads_first()
            && of_snapshots
            && self.has_snapshot
            && config.signals.table.as_ref() != Some(&name)
    }

    /// A numbered table came, and its rows are to be read.
    pub fn comes_late(&mut self, given: &Arc<TableSchema>, numbered: &TableSchema, partitions: u32) {
        let no = numbered.table_no;
        self.late.came.insert(no);
        if self.late.has_stretches && has_order(given) && !self.late.statements.contains(&given.qualified()) {
            self.late.open.insert(no);
            self.late.ordered.push(given.clone());
            return;
        }
        self.late.others.push(given.clone());
        if numbered.key.is_empty() {
            let end = |p| self.session.emitter.end(TopicPartition::new(numbered.topic, p));
            let has_records = (0..partitions).any(|p| end(p) > Offset::ZERO);
            self.backfill.begin_again(no, has_records);
        } else {
            self.backfill.watch(no);
        }
    }

    /// What an earlier worker noted and did not ask for. Nothing comes of a table that is gone, which is noted, too: somebody
    /// may wait for it.
    pub fn find_late(&mut self) {
        let mut forgotten = self.late.forgotten(&self.history, self.session.config.incarnation);
        let is_known = |late: &Late, t: &Arc<TableSchema>| late.ordered.iter().chain(&late.others).any(|k| k == t);
        for given in self.opened.tables.clone() {
            let Some(n) = self.numbered.get(&(Arc::as_ptr(&given) as usize)) else { continue };
            let (numbered, partitions) = (n.table.clone(), n.partitions);
            if forgotten.remove(&numbered.table_no) && !is_known(&self.late, &given) {
                self.comes_late(&given, &numbered, partitions);
            }
        }
        self.give_up_late(&forgotten);
    }

    /// Nobody will read these.
    pub fn give_up_late(&mut self, numbers: &BTreeSet<u32>) {
        let snapshot = self.next_snapshot();
        let given_up = numbers.iter().map(|table| {
            let key = StoredKey::Chunk { snapshot, table: *table, unit: WHOLE_TABLE };
            let record = whole_table(&self.session.config, ChunkPhase::GivenUp, 0, CommitSeq(0));
            (key, Stored::Chunk(record))
        });
        self.session.store(given_up.collect::<Vec<_>>());
        self.late.open.retain(|no| !numbers.contains(no));
    }

    pub fn number_of(&self, table: &Arc<TableSchema>) -> Option<u32> {
        self.numbered.get(&(Arc::as_ptr(table) as usize)).map(|n| n.table.table_no)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::tests::table;
    use catchwater_change::Version;
    use catchwater_change::checkpoint::ChunkRecord;

    #[test]
    fn what_came_late_is_asked_for_until_somebody_did() {
        let record = |table_no, flags, incarnation| TableRecord {
            schema: TableSchema { table_no, ..table("s", "a") },
            from: Version { incarnation: Incarnation(incarnation), ..Version::default() },
            flags,
        };
        let mut history = History {
            tables: vec![
                record(1, 0, 1),
                record(2, table_flag::LATE, 1),
                record(2, 0, 1),
                record(3, table_flag::LATE, 1),
                record(4, table_flag::LATE, 0),
            ],
            ..History::default()
        };
        let chunk = ChunkRecord {
            phase: ChunkPhase::Finished,
            method: 1,
            flags: 0,
            incarnation: Incarnation(1),
            commit_seq: CommitSeq(0),
            schema_no: 0,
            rows: 0,
            lower: Vec::new(),
            upper: Vec::new(),
            view: bytes::Bytes::new(),
            filter: String::new(),
        };
        let forgotten = |history: &History| Late::default().forgotten(history, Incarnation(1));
        assert_eq!(
            forgotten(&history),
            BTreeSet::from([2, 3]),
            "died before it was asked for; the old incarnation's do not count"
        );
        history.chunks.insert((2, 3, 0), chunk.clone());
        assert_eq!(forgotten(&history), BTreeSet::from([2, 3]), "a unit says nothing of the table");
        history.chunks.insert((2, 2, WHOLE_TABLE), chunk);
        assert_eq!(forgotten(&history), BTreeSet::from([3]), "whatever became of it");
    }
}
