//! Pure. Rows of outbox tables: one record for one row, in the topic and partition that the row says.

use super::{Emitter, Place, Unit};
use crate::track::Track;
use catchwater_base::{Now, Wall};
use catchwater_change::encode::debezium_json::{EncodeError, Encoder, Outbox, Parts, Piece, Route, Updates};
use catchwater_change::stamp::flag;
use catchwater_change::{Native, Op, RowChange, Stamp, TableSchema, Version};
use catchwater_record::{CommitSeq, PartitionId, TopicId, TopicPartition, TxnId};

/// Where an event goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    pub topic: TopicId,
    pub partitions: u32,
    /// What the row says; none = by its key.
    pub partition: Option<u32>,
}

/// What came of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Put {
    /// It was in the log already.
    pub replayed: bool,
    /// Its payload was to be expanded and stays text.
    pub is_no_json: bool,
}

impl Emitter {
    /// What of a table cannot be.
    pub fn check_table(&self, table: &TableSchema) -> Result<(), EncodeError> {
        self.encoder.check_outbox(table)
    }

    /// Where the event of a row goes; `table` = its table with its number. None = it is none.
    pub fn route(&self, table: &TableSchema, change: &RowChange) -> Result<Option<Route>, EncodeError> {
        self.encoder.route(table, change)
    }

    /// What becomes of a change that is an update of an outbox table.
    pub fn odd_update(&self, table: &TableSchema, op: Op) -> Option<Updates> {
        if op == Op::Update { self.encoder.outbox(table).map(|o| o.updates) } else { None }
    }

    /// With the defects: counts what transforms leave out of a change. True if they leave nothing of it.
    pub fn count_left_out(&self, change: &RowChange, counted: &mut super::Counted<'_>) -> bool {
        if !self.counts_all() {
            return false;
        }
        if let Some(counts) = counted {
            for _ in 0..self.encoder.left_out_events(change) {
                self.encoder.count(counts, change);
            }
        }
        self.encoder.pieces(change).is_empty()
    }

    /// True if a change of which transforms leave nothing is an event of its transaction. `numbered` = its table.
    pub fn leaves_counted(&self, change: &RowChange, numbered: &TableSchema) -> bool {
        self.counts_all() && self.encoder.is_left_to_transforms(change, numbered)
    }

    fn counts_all(&self) -> bool {
        self.encoder.options.defects && self.encoder.options.placing.0.is_some()
    }

    /// Makes the event of a row and puts it into a batch. The row's table is numbered, the topic's partitions have lanes.
    #[allow(clippy::too_many_arguments)]
    pub fn put_event(
        &mut self,
        now: Now,
        unit: &Unit,
        place: Place,
        change: &RowChange,
        to: Target,
        counted: super::Counted<'_>,
        track: &mut Track,
    ) -> Result<Put, EncodeError> {
        let native = unit.native.clone().unwrap_or_default();
        let stamp = self.stamp_of(unit, place, change, &native);
        let (version, counts) = (stamp.version, counted);
        if let Some(counts) = counts {
            self.encoder.count(counts, change);
        }
        let mut parts = std::mem::take(&mut self.parts);
        let event = self.encoder.event_into(&mut parts, change, &stamp, now.wall)?;
        let record = parts.record(event.has_key);
        let partition = match to.partition {
            Some(chosen) => PartitionId(chosen),
            None => crate::route::partition(record.key, to.partitions),
        };
        let at = TopicPartition { topic: to.topic, partition };
        let lane = self.lanes.get(&at);
        assert!(lane.is_some(), "an event for a partition without a lane");
        let replayed = lane.is_some_and(|l| l.tail.is_some_and(|t| version <= t));
        if !replayed {
            self.push(now, at, unit, (version, &native), place.last, (record, event.time), track);
        }
        self.parts = parts;
        Ok(Put { replayed, is_no_json: event.is_no_json })
    }

    fn stamp_of(&self, unit: &Unit, place: Place, change: &RowChange, native: &Native) -> Stamp {
        let mut flags = unit.flags;
        if place.ordinal == 0 {
            flags |= flag::FIRST;
        }
        if place.last {
            flags |= flag::LAST;
            if flags & flag::SNAPSHOT != 0 {
                flags |= flag::LAST_OF_CHUNK;
            }
        }
        Stamp {
            op: Encoder::letter(change, Piece::Whole),
            flags,
            version: Version { incarnation: self.incarnation, commit_seq: unit.seq, ordinal: place.ordinal },
            total: if place.last { u32::try_from(place.ordinal + 1).unwrap_or(0) } else { 0 },
            source: self.capture,
            commit_time: unit.commit_time,
            schema_no: change.table.schema_no,
            native: native.clone(),
            txn: Some(unit.txn.clone()).filter(|t| t.0 != native.as_bytes()),
        }
    }

    /// Bytes of a row's event; 0 = it is none.
    pub(super) fn event_bytes(&self, change: &RowChange) -> Result<usize, EncodeError> {
        if !Outbox::takes(change.op) || self.encoder.outbox(&change.table).is_none() {
            return Ok(0);
        }
        let unit = Unit {
            seq: CommitSeq(0),
            native: None,
            txn: TxnId(Default::default()),
            commit_time: Wall::from_micros(0),
            flags: 0,
        };
        let stamp = self.stamp_of(&unit, Place { ordinal: 0, last: false }, change, &Native::default());
        let mut parts = Parts::default();
        let event = self.encoder.event_into(&mut parts, change, &stamp, Wall::from_micros(0))?;
        Ok(parts.record(event.has_key).bytes())
    }
}
