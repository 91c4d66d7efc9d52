//! Pure. Tables and topics of the source, as its TABLE records say, and whether its first snapshot is whole.

use crate::plan::TableFilter;
use crate::wire::{Told, Wire, WireError, records};
use bytes::Bytes;
use catchwater_change::TableSchema;
use catchwater_record::{CaptureId, CommitSeq, Incarnation, Offset, TopicId, TopicPartition};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Book {
    /// Next offset of the captures partition.
    pub next: Offset,
    /// By number; shared with the flight that decodes.
    pub schemas: Arc<BTreeMap<u32, Arc<TableSchema>>>,
    topics: BTreeMap<TopicId, bool>,
    /// Number of the first schema of each topic's table.
    shaped: BTreeMap<TopicId, u32>,
    /// Tables that we take whose rows are events: they have no topic.
    outboxes: BTreeSet<String>,
    /// A TABLE record came: there may be tables whose target is not ready.
    pub grown: bool,
    /// Tables of the first snapshot, by number: where the log holds all of it.
    first: BTreeMap<u32, Option<CommitSeq>>,
    /// The same of tables that came later, whose rows are read beside the stream.
    late: BTreeMap<u32, Option<CommitSeq>>,
}

/// Whose records count.
pub(super) struct Of<'a> {
    pub capture: CaptureId,
    pub incarnation: Incarnation,
    pub tables: &'a TableFilter,
}

impl Book {
    /// Does `from` take the table of this topic? `None` = no TABLE record names it (yet).
    pub fn takes(&self, topic: TopicId) -> Option<bool> {
        self.topics.get(&topic).copied()
    }

    /// Number of the first schema of a topic's table.
    pub fn first_shape(&self, topic: TopicId) -> Option<u32> {
        self.shaped.get(&topic).copied()
    }

    /// An outbox table that we are to take.
    pub fn outbox(&self) -> Option<&str> {
        self.outboxes.first().map(String::as_str)
    }

    /// Two tables of which we take one at least, and whose records are in one topic.
    pub fn shared(&self) -> Option<(String, String)> {
        let mut of: BTreeMap<TopicId, &TableSchema> = BTreeMap::new();
        let taken = self.schemas.values().filter(|s| self.takes(s.topic) == Some(true));
        // A table that was made again has another number and its old name.
        let other = taken.map(|s| (*of.entry(s.topic).or_insert(s), &**s));
        let mut apart = other.filter(|(a, b)| a.table_no != b.table_no && a.qualified() != b.qualified());
        apart.next().map(|(a, b)| (a.qualified(), b.qualified()))
    }

    /// The newest schema of each table that we take, tables in the order in which they were last described.
    pub fn newest(&self) -> Vec<Arc<TableSchema>> {
        let mut of: BTreeMap<TopicId, &Arc<TableSchema>> = BTreeMap::new();
        for schema in self.schemas.values().filter(|s| self.takes(s.topic) == Some(true)) {
            of.insert(schema.topic, schema);
        }
        let mut newest: Vec<_> = of.into_values().cloned().collect();
        newest.sort_by_key(|s| s.schema_no);
        newest
    }

    /// The shapes of a table whose columns have numbers of their own, newest first; none where names are all there is.
    pub fn shapes_of(&self, table: &TableSchema) -> impl Iterator<Item = &Arc<TableSchema>> {
        let (no, topic) = (table.table_no, table.topic);
        let has_numbers = table.native_id != 0;
        self.schemas.values().rev().filter(move |s| has_numbers && s.table_no == no && s.topic == topic)
    }

    /// From here on every table that we take is whole in the log; below it no boundary shows a state that the source had.
    /// `None` = the first snapshot is still being written.
    pub fn whole_from(&self) -> Option<CommitSeq> {
        let ours = |no: u32| {
            let mut shapes = self.schemas.values().filter(move |s| s.table_no == no).peekable();
            // A table of which nothing is known yet may be ours.
            shapes.peek().is_none() || shapes.any(|s| self.takes(s.topic) == Some(true))
        };
        let tables = self.first.iter().filter(|(no, _)| ours(**no));
        tables.map(|(_, whole)| *whole).try_fold(CommitSeq(0), |at, whole| Some(at.max(whole?)))
    }

    /// Tables that came later, and of which rows that were there before them may be missing at `at`; `None` = at any place that
    /// is known today.
    pub fn incomplete(&self, at: Option<CommitSeq>) -> impl Iterator<Item = u32> + '_ {
        let is_open = move |whole: &Option<CommitSeq>| whole.is_none_or(|whole| at.is_some_and(|at| at < whole));
        self.late.iter().filter(move |(_, whole)| is_open(whole)).map(|(no, _)| *no)
    }

    /// The capture has said which tables its first snapshot has.
    pub fn has_begun(&self) -> bool {
        !self.first.is_empty()
    }

    /// Records of the captures partition, from [`Book::next`] on.
    pub fn read(&mut self, wire: &dyn Wire, of: &Of<'_>, at: TopicPartition, bytes: &Bytes) -> Result<(), WireError> {
        let (found, next) = records(at, self.next, bytes)?;
        for record in found {
            let (Some(key), Some(value)) = (&record.key, &record.value) else { continue };
            let told = wire.told(key, value).map_err(|why| WireError::Record { at, offset: record.offset, why })?;
            match told {
                Some((capture, told)) if capture == of.capture => self.learn(told, of),
                _ => {}
            }
        }
        self.next = self.next.max(next);
        Ok(())
    }

    fn shares(&self, table: &TableSchema) -> bool {
        let other = |s: &Arc<TableSchema>| s.topic == table.topic && s.table_no != table.table_no;
        self.schemas.values().any(|s| other(s) && s.qualified() != table.qualified())
    }

    fn learn(&mut self, told: Told, of: &Of<'_>) {
        match told {
            Told::Table { table, late } => {
                if late == Some(of.incarnation) {
                    self.late.entry(table.table_no).or_default();
                }
                if table.topic.is_none() && of.tables.takes(&table) {
                    self.outboxes.insert(table.qualified());
                }
                if !table.topic.is_none() {
                    // Of several tables that share a topic one is enough.
                    let took = self.shares(&table) && self.takes(table.topic) == Some(true);
                    self.topics.insert(table.topic, took || of.tables.takes(&table));
                    let first = self.shaped.entry(table.topic).or_insert(table.schema_no);
                    *first = (*first).min(table.schema_no);
                }
                Arc::make_mut(&mut self.schemas).insert(table.schema_no, Arc::new(*table));
                self.grown = true;
            }
            Told::First { table_no, incarnation, whole } if incarnation == of.incarnation => {
                self.first.insert(table_no, whole);
            }
            Told::Again { table_no, incarnation, whole } if incarnation == of.incarnation => {
                self.late.entry(table_no).and_modify(|at| *at = Some(whole));
            }
            Told::First { .. } | Told::Again { .. } => {}
        }
    }
}
