//! Pure. Changes become records, records become batches, batches stand in line per partition until they are acknowledged.
//!
//! Walk: row-change 7/17
//!
//! ```text
//!  lane of one partition:   prev │ sent, ≤ in_flight │ sealed, waiting │ open
//!                           acked└─ each batch: prev = `last` of the one before (nothing enters behind a hole, L1)
//! ```
//! A batch is sealed at once when nothing is in flight (a lone commit never waits for a timer), else when it is full or
//! has waited long enough. After a refused or unknown append the lane stands still until all its answers are in; then it
//! goes on from the position the log names ([`Emitter::rewound`]). Per record: one encode, one copy into the batch. A sealed batch is
//! compressed if the source says so (`producer.override.compression.type`).

mod events;
mod own;

use crate::bulk::{Bulk, Page, Shared};
use crate::track::{BatchId, Track};
use bytes::Bytes;
use catchwater_base::{Mono, Now, Wall};
use catchwater_change::encode::debezium_json::{Block, Counts, EncodeError, Encoder, Parts, Piece, Record};
use catchwater_change::stamp::{STAMP_HEADER, flag};
use catchwater_change::{Native, Row, RowChange, Stamp, TableSchema, Version};
use catchwater_client::{Acks, Append, AppendOutcome, CaptureContext, Context, Why, capture_flag};
use catchwater_record::batch::build::Builder;
use catchwater_record::batch::{BatchView, Codec, iterate};
use catchwater_record::compress::{self, SnappyFraming};
use catchwater_record::{
    CaptureEpoch, CaptureId, CommitSeq, Incarnation, Offset, PartitionId, Position, TopicId, TopicPartition, TxnId,
};
pub use events::{Put, Target};
pub use own::OwnTopic;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Bounds of the lanes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A batch is sealed before it grows above this; one larger record makes a larger batch.
    pub batch_bytes: usize,
    pub batch_records: u32,
    /// Longest record there can be, bytes: the log takes no longer batch.
    pub record_bytes_max: usize,
    /// Appends in flight per partition.
    pub in_flight: usize,
    /// Longest time a record waits in an open batch while others are in flight, milliseconds.
    pub linger_ms: u64,
    /// Time an append may take, milliseconds.
    pub append_timeout_ms: u32,
    /// What sealed batches are compressed by; `batch_bytes` is what they hold before.
    pub compression: Codec,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            batch_bytes: 1024 * 1024,
            batch_records: 10_000,
            record_bytes_max: 64 * 1024 * 1024,
            in_flight: 4,
            linger_ms: 5,
            append_timeout_ms: 30_000,
            compression: Codec::None,
        }
    }
}

/// What all records of one transaction or chunk share.
#[derive(Clone, Debug)]
pub struct Unit {
    pub seq: CommitSeq,
    /// None while the end of a large transaction is not known.
    pub native: Option<Native>,
    pub txn: TxnId,
    pub commit_time: Wall,
    /// Flags of every stamp: SNAPSHOT, SUPERSET.
    pub flags: u16,
}

/// Where the events of a transaction are counted, when records say their place in it.
pub type Counted<'a> = Option<&'a mut Counts>;

/// Place of a change inside its unit.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Records of the unit before this change.
    pub ordinal: u64,
    /// The unit ends with this change.
    pub last: bool,
}

/// Beginning or end of a transaction.
pub struct Boundary<'a> {
    pub counts: &'a Counts,
    pub ordinal: u64,
    pub is_end: bool,
}

/// One record that was made, for those who watch keys.
#[derive(Clone, Debug)]
pub struct Made {
    pub key: Option<Bytes>,
    /// No column is unavailable.
    pub whole: bool,
}

/// A batch to be appended now.
pub struct Outgoing {
    pub at: TopicPartition,
    pub id: BatchId,
    pub batch: Bytes,
    pub how: Append,
}

/// What an answer means for the worker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Fine,
    /// The lane stands still: ask `last_positions` when [`Emitter::stuck`] names it.
    Stuck,
    Fenced(CaptureEpoch),
    /// Trying again cannot help.
    Refused(Why),
}

struct Lane {
    /// Records at or below are in the log (R7).
    tail: Option<Version>,
    /// `last` of the newest acknowledged batch.
    prev: Position,
    open: Option<OpenBatch>,
    /// Sealed and not acknowledged, in order; the first `sent` of them were handed over.
    queue: VecDeque<Sealed>,
    sent: usize,
    flying: usize,
    end: Offset,
    /// Below it lie only records of units that a checkpoint covers: where a restart begins to read stamps (R3). `end` may
    /// lie behind records of later units, which a replay must see.
    safe: Offset,
    /// Ends of acknowledged batches above `safe`, with the last unit in them.
    marks: VecDeque<(CommitSeq, Offset)>,
    stuck: Option<Mono>,
    failures: u32,
    /// Bytes that a batch begins with room for: those of the one before it.
    room: usize,
}

struct OpenBatch {
    id: BatchId,
    builder: Builder,
    first: Position,
    /// The position of the newest record, in its parts: it is made when the batch is sealed.
    last: Version,
    native: Native,
    first_seq: CommitSeq,
    last_seq: CommitSeq,
    txn: TxnId,
    flags: u8,
    since: Mono,
}

struct Sealed {
    id: BatchId,
    batch: Bytes,
    first: Position,
    last: Position,
    first_seq: CommitSeq,
    last_seq: CommitSeq,
    txn: TxnId,
    flags: u8,
    acked: bool,
}

/// All lanes of a source.
pub struct Emitter {
    encoder: Encoder,
    capture: CaptureId,
    epoch: CaptureEpoch,
    incarnation: Incarnation,
    limits: Limits,
    lanes: BTreeMap<TopicPartition, Lane>,
    /// Lanes with something open, waiting or in flight: of ten thousand tables a few move at a time.
    busy: BTreeSet<TopicPartition>,
    /// Lanes whose end moved since the last cut.
    moved: BTreeSet<TopicPartition>,
    next_batch: u64,
    bytes: usize,
    watched: BTreeSet<TopicPartition>,
    landed: Vec<Landed>,
    /// Where records are made before they are copied into their batch.
    parts: Parts,
    own: own::Topics,
}

/// A batch that is in the log.
pub struct Landed {
    pub at: TopicPartition,
    /// Offset of its first record; none = not known, it was there before, or entered in parts.
    pub base: Option<Offset>,
    pub batch: Bytes,
}

impl Emitter {
    pub fn new(
        encoder: Encoder,
        capture: CaptureId,
        epoch: CaptureEpoch,
        incarnation: Incarnation,
        limits: Limits,
    ) -> Self {
        Emitter {
            encoder,
            capture,
            epoch,
            incarnation,
            limits,
            lanes: BTreeMap::new(),
            busy: BTreeSet::new(),
            moved: BTreeSet::new(),
            next_batch: 1,
            bytes: 0,
            watched: BTreeSet::new(),
            landed: Vec::new(),
            parts: Parts::default(),
            own: own::Topics::default(),
        }
    }

    /// A partition this capture writes to, and where it ends now. Known ones stay as they are.
    /// `safe` = the offset below which only records of the checkpoint's units lie.
    pub fn lane(&mut self, at: TopicPartition, last: Position, end: Offset, safe: Offset) {
        self.moved.insert(at);
        self.lanes.entry(at).or_insert_with(|| Lane {
            safe,
            marks: VecDeque::new(),
            tail: Version::of(&last).map(|(v, _)| v),
            prev: last,
            open: None,
            queue: VecDeque::new(),
            sent: 0,
            flying: 0,
            end,
            stuck: None,
            failures: 0,
            room: 0,
        });
    }

    /// Makes the records of one change and puts them into batches. `change.table` is numbered and routed. Returns what
    /// was made, one per record, if somebody watches; those already in the log are counted in `replayed`.
    #[allow(clippy::too_many_arguments)]
    pub fn put(
        &mut self,
        now: Now,
        unit: &Unit,
        place: Place,
        change: &RowChange,
        partitions: u32,
        mut counted: Counted<'_>,
        track: &mut Track,
        replayed: &mut u64,
        mut made: Option<&mut Vec<Made>>,
    ) -> Result<u64, EncodeError> {
        let pieces = self.encoder.pieces(change);
        // An error ends the attempt, and the emitter with it.
        let mut parts = std::mem::take(&mut self.parts);
        let native = unit.native.clone().unwrap_or_default();
        for (i, piece) in pieces.iter().enumerate() {
            let ordinal = place.ordinal + i as u64;
            let last = place.last && i + 1 == pieces.len();
            let version = Version { incarnation: self.incarnation, commit_seq: unit.seq, ordinal };
            let mut has_key = self.encoder.key_into(&mut parts, change, *piece)?;
            let key = has_key.then(|| parts.key());
            let partition = self.partition_of(change, key, partitions);
            let at = TopicPartition { topic: change.table.topic, partition };
            let mut flags = unit.flags;
            if ordinal == 0 {
                flags |= flag::FIRST;
            }
            if last {
                flags |= flag::LAST;
                if flags & flag::SNAPSHOT != 0 {
                    flags |= flag::LAST_OF_CHUNK;
                }
            }
            let stamp = Stamp {
                op: Encoder::letter(change, *piece),
                flags,
                version,
                total: if last { u32::try_from(ordinal + 1).unwrap_or(0) } else { 0 },
                source: self.capture,
                commit_time: unit.commit_time,
                schema_no: change.table.schema_no,
                native: native.clone(),
                txn: Some(unit.txn.clone()).filter(|t| t.0 != native.as_bytes()),
            };
            let events = match &mut counted {
                Some(counts) if *piece != Piece::Tombstone => Some(self.encoder.count(counts, change)),
                _ => None,
            };
            if let Some(made) = &mut made {
                let whole = change.after.as_ref().is_none_or(Row::is_whole);
                made.push(Made { key: key.map(Bytes::copy_from_slice), whole });
            }
            // `ensure_tables` makes the lanes of a topic before its first row.
            let lane = self.lanes.get(&at);
            assert!(lane.is_some(), "a record for a partition without a lane");
            if lane.is_some_and(|l| l.tail.is_some_and(|t| version <= t)) {
                *replayed += 1;
                continue;
            }
            let id = counted.as_ref().map(|counts| self.encoder.transaction_id(counts, change));
            let block = match (&id, events) {
                (Some(id), Some((total_order, collection_order))) => Some(Block { id, total_order, collection_order }),
                _ => None,
            };
            has_key = self.encoder.record_into(&mut parts, change, *piece, stamp, now.wall, (has_key, block))?;
            let (record, millis) = (parts.record(has_key), now.wall.as_millis());
            self.push(now, at, unit, (version, &native), last, (record, millis), track);
        }
        self.parts = parts;
        Ok(pieces.len() as u64)
    }

    /// The longest record of a change, if it is longer than any may be: found before anything of its transaction is on its
    /// way, for what is behind it in other topics would be in the log, and without its table have other numbers. `row_bytes`
    /// = what its values take; only a row of a certain size is looked at, which costs a second encoding.
    pub fn too_large(&self, change: &RowChange, row_bytes: usize) -> Result<Option<usize>, EncodeError> {
        if !self.may_be_too_large(row_bytes) {
            return Ok(None);
        }
        let mut most = self.event_bytes(change)?;
        let pieces = if most > 0 { &[][..] } else { self.encoder.pieces(change) };
        for piece in pieces {
            let stamp = Stamp {
                op: Encoder::letter(change, *piece),
                flags: 0,
                version: Version { incarnation: self.incarnation, commit_seq: CommitSeq(0), ordinal: 0 },
                total: 0,
                source: self.capture,
                commit_time: Wall::from_micros(0),
                schema_no: 0,
                native: Native::default(),
                txn: None,
            };
            let key = self.encoder.key(change, *piece)?;
            let encoded = self.encoder.encode_keyed(change, *piece, key, stamp, Wall::from_micros(0), None)?;
            most = most.max(encoded.record().bytes());
        }
        let room = (self.limits.record_bytes_max / 64).min(2048);
        Ok(Some(most).filter(|bytes| bytes + room > self.limits.record_bytes_max))
    }

    /// False = a row of that size makes records that are short enough, whatever is in it.
    pub fn may_be_too_large(&self, row_bytes: usize) -> bool {
        // An escape takes six bytes for one; stamp, names and envelope take a kilobyte or two.
        row_bytes.saturating_mul(8) >= self.limits.record_bytes_max
    }

    /// A record that says where a transaction begins or ends; it has an ordinal as any other.
    pub fn put_boundary(&mut self, now: Now, unit: &Unit, at: TopicPartition, end: Boundary<'_>, track: &mut Track) {
        let native = unit.native.clone().unwrap_or_default();
        let version = Version { incarnation: self.incarnation, commit_seq: unit.seq, ordinal: end.ordinal };
        let (first, last) = (end.ordinal == 0, end.is_end);
        let stamp = Stamp {
            op: 0,
            flags: unit.flags | if first { flag::FIRST } else { 0 } | if last { flag::LAST } else { 0 },
            version,
            total: if last { u32::try_from(end.ordinal + 1).unwrap_or(0) } else { 0 },
            source: self.capture,
            commit_time: unit.commit_time,
            schema_no: 0,
            native: native.clone(),
            txn: Some(unit.txn.clone()).filter(|t| t.0 != native.as_bytes()),
        };
        let lane = self.lanes.get(&at);
        assert!(lane.is_some(), "a record for a partition without a lane");
        if lane.is_some_and(|l| l.tail.is_some_and(|t| version <= t)) {
            return;
        }
        let encoded = self.own_boundary(&end, stamp);
        self.push(now, at, unit, (version, &native), last, (encoded.record(), now.wall.as_millis()), track);
    }

    #[allow(clippy::too_many_arguments)]
    fn push(
        &mut self,
        now: Now,
        at: TopicPartition,
        unit: &Unit,
        (version, native): (Version, &Native),
        ends: bool,
        (record, millis): (Record<'_>, i64),
        track: &mut Track,
    ) {
        let Some(lane) = self.lanes.get_mut(&at) else { return };
        let full = lane.open.as_ref().is_some_and(|o| {
            o.builder.count() >= self.limits.batch_records
                || o.builder.bytes() + record.bytes() > self.limits.batch_bytes
        });
        if full {
            self.bytes -= lane.seal(self.limits.compression);
        }
        if lane.open.is_none() {
            let id = BatchId(self.next_batch);
            self.next_batch += 1;
            track.opened(id, unit.seq);
            lane.open = Some(OpenBatch {
                id,
                builder: Builder::with_capacity(lane.room),
                first: version.position(native),
                last: version,
                native: native.clone(),
                first_seq: unit.seq,
                last_seq: unit.seq,
                txn: unit.txn.clone(),
                flags: 0,
                since: now.mono,
            });
        }
        let Some(open) = &mut lane.open else { return };
        let before = open.builder.bytes();
        open.builder.push(millis, record.key, record.value, record.headers.iter().map(|(k, v)| (&k[..], v.as_deref())));
        self.bytes += open.builder.bytes() - before;
        if open.last_seq != unit.seq {
            open.txn = unit.txn.clone();
        }
        if open.native != *native {
            open.native = native.clone();
        }
        open.last = version;
        open.last_seq = unit.seq;
        if ends {
            open.flags |= capture_flag::ENDS;
        }
        if unit.flags & flag::SNAPSHOT != 0 {
            open.flags |= capture_flag::SNAPSHOT;
        }
        if open.builder.count() >= self.limits.batch_records {
            self.bytes -= lane.seal(self.limits.compression);
        }
        self.busy.insert(at);
    }

    /// Records of a unit that were made where its rows were read: a batch of their own. Returns its bytes.
    pub fn put_page(&mut self, unit: &Unit, topic: TopicId, page: Page, track: &mut Track) -> usize {
        let at = TopicPartition { topic, partition: PartitionId(page.partition) };
        let native = unit.native.clone().unwrap_or_default();
        let version = |ordinal| Version { incarnation: self.incarnation, commit_seq: unit.seq, ordinal };
        let (first, last) = (version(page.first), version(page.last));
        let lane = self.lanes.get_mut(&at);
        assert!(lane.is_some(), "records for a partition without a lane");
        let Some(lane) = lane else { return 0 };
        assert!(lane.tail.is_none_or(|t| t < first), "a unit that is read at a capture's beginning is in no log");
        self.bytes -= lane.seal(self.limits.compression);
        let id = BatchId(self.next_batch);
        self.next_batch += 1;
        track.opened(id, unit.seq);
        let batch = compressed(page.number(unit.seq), self.limits.compression);
        let bytes = batch.len() - catchwater_record::batch::HEADER_BYTES;
        lane.queue.push_back(Sealed {
            id,
            batch,
            first: first.position(&native),
            last: last.position(&native),
            first_seq: unit.seq,
            last_seq: unit.seq,
            txn: unit.txn.clone(),
            flags: capture_flag::SNAPSHOT,
            acked: false,
        });
        self.bytes += bytes;
        self.busy.insert(at);
        bytes
    }

    /// What a reader makes a unit's records with; `None` = transforms decide which records a row becomes, and where they go.
    pub fn bulk(&self, shared: impl FnOnce(CaptureId, Incarnation, Limits) -> Shared) -> Option<Bulk> {
        let is_plain = self.encoder.options.placing.0.is_none();
        is_plain.then(|| Bulk::new(self.encoder.clone(), shared(self.capture, self.incarnation, self.limits)))
    }

    /// The key a piece of a change travels under.
    pub fn key_of(&self, change: &RowChange, piece: Piece) -> Result<Option<Bytes>, EncodeError> {
        self.encoder.key(change, piece)
    }

    /// True if records have Debezium's defects.
    pub fn has_defects(&self) -> bool {
        self.encoder.options.defects
    }

    /// True if a transform leaves out every record of a change; `numbered` = its table with its number.
    pub fn leaves_out(&self, change: &RowChange, numbered: &TableSchema) -> bool {
        self.encoder.leaves_out(change, numbered)
    }

    /// The records a change becomes.
    pub fn pieces(&self, change: &RowChange) -> &'static [Piece] {
        self.encoder.pieces(change)
    }

    /// True if a record of that version is in the log already (R7).
    pub fn holds(&self, at: TopicPartition, version: Version) -> bool {
        self.lanes.get(&at).is_some_and(|l| l.tail.is_some_and(|t| version <= t))
    }

    /// Nothing is open, waiting or in flight.
    pub fn is_quiet(&self, at: TopicPartition) -> bool {
        self.lanes.get(&at).is_none_or(Lane::is_idle)
    }

    /// Where a lane ends, as far as is acknowledged.
    pub fn end(&self, at: TopicPartition) -> Offset {
        self.lanes.get(&at).map_or(Offset::ZERO, |l| l.end)
    }

    /// Whether batches of a lane are kept for [`Emitter::take_landed`] when they are acknowledged.
    pub fn watch(&mut self, at: TopicPartition, on: bool) {
        match on {
            true => drop(self.watched.insert(at)),
            false => drop(self.watched.remove(&at)),
        }
    }

    /// Batches of watched lanes that were acknowledged since the last call.
    pub fn take_landed(&mut self) -> Vec<Landed> {
        std::mem::take(&mut self.landed)
    }

    /// The key bytes a snapshot row's record will have.
    pub fn key(&self, row: &RowChange) -> Result<Option<Bytes>, EncodeError> {
        self.encoder.key(row, Piece::Whole)
    }

    /// Bytes in open and unacknowledged batches.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Batches to hand over now. `all` seals what is open, full or not.
    pub fn take_outgoing(&mut self, now: Mono, all: bool) -> Vec<Outgoing> {
        let mut out = Vec::new();
        for at in &self.busy {
            let Some(lane) = self.lanes.get_mut(at) else { continue };
            let due = lane
                .open
                .as_ref()
                .is_some_and(|o| all || lane.queue.is_empty() || now >= o.since.plus_millis(self.limits.linger_ms));
            if due {
                self.bytes -= lane.seal(self.limits.compression);
            }
            if lane.stuck.is_some() {
                continue;
            }
            while lane.flying < self.limits.in_flight && lane.sent < lane.queue.len() {
                let prev = match lane.sent {
                    0 => lane.prev.clone(),
                    n => lane.queue[n - 1].last.clone(),
                };
                let next = &lane.queue[lane.sent];
                lane.sent += 1;
                lane.flying += 1;
                let context = CaptureContext {
                    capture: self.capture,
                    epoch: self.epoch,
                    flags: next.flags,
                    commit_seq: next.last_seq,
                    prev,
                    first: next.first.clone(),
                    last: next.last.clone(),
                    txn: Some(next.txn.clone()),
                };
                let how = Append {
                    context: Context::Capture(context),
                    acks: Acks::All,
                    timeout_ms: self.limits.append_timeout_ms,
                };
                out.push(Outgoing { at: *at, id: next.id, batch: next.batch.clone(), how });
            }
        }
        out
    }

    /// When [`Emitter::take_outgoing`] or [`Emitter::stuck`] will next have something without an answer coming.
    pub fn deadline(&self) -> Mono {
        let lanes = self.busy.iter().filter_map(|at| self.lanes.get(at)).flat_map(|l| {
            let open = l.open.as_ref().map(|o| o.since.plus_millis(self.limits.linger_ms));
            let stuck = l.stuck.filter(|_| l.flying == 0);
            [open, stuck]
        });
        lanes.flatten().min().unwrap_or(Mono::NEVER)
    }

    /// The answer to an append. `retry_at` = when a lane that stands still now may ask the log.
    pub fn answered(
        &mut self,
        at: TopicPartition,
        id: BatchId,
        outcome: AppendOutcome,
        retry_at: Mono,
        track: &mut Track,
    ) -> Answer {
        let Some(lane) = self.lanes.get_mut(&at) else { return Answer::Fine };
        lane.flying = lane.flying.saturating_sub(1);
        let entered = matches!(outcome, AppendOutcome::Appended { .. });
        let base = match &outcome {
            AppendOutcome::Appended { offset, .. } => Some(*offset),
            _ => None,
        };
        let (end, answer) = match outcome {
            AppendOutcome::Appended { end, .. } | AppendOutcome::AlreadyThere { end } => (Some(end), Answer::Fine),
            AppendOutcome::Fenced { by } => return Answer::Fenced(by),
            AppendOutcome::NotWritten(
                why @ (Why::Invalid | Why::TooLarge | Why::Denied | Why::NoTopic | Why::Unsupported),
            ) => return Answer::Refused(why),
            AppendOutcome::Partly { .. }
            | AppendOutcome::Gap { .. }
            | AppendOutcome::NotWritten(Why::NoLeader | Why::NotInSync | Why::NoRoom | Why::Busy)
            | AppendOutcome::Unknown => (None, Answer::Stuck),
        };
        match end {
            None => {
                lane.stuck = Some(retry_at.max(lane.stuck.unwrap_or(Mono::ZERO)));
                lane.failures += 1;
            }
            Some(end) => {
                lane.failures = 0;
                if let Some(batch) = lane.queue.iter_mut().find(|b| b.id == id) {
                    batch.acked = true;
                    if self.watched.contains(&at) {
                        self.landed.push(Landed { at, base, batch: batch.batch.clone() });
                    }
                    // The end of a batch that was there before may lie behind later ones.
                    if entered {
                        lane.marks.push_back((batch.last_seq, end));
                    }
                }
                if end > lane.end {
                    lane.end = end;
                    self.moved.insert(at);
                }
                self.bytes -= lane.pop_acked(track);
                if lane.is_idle() {
                    self.busy.remove(&at);
                }
            }
        }
        answer
    }

    /// Lanes that stand still, have no answer to wait for, and whose time to ask has come.
    pub fn stuck(&self, now: Mono) -> Vec<TopicPartition> {
        let ready = |l: &Lane| l.flying == 0 && l.stuck.is_some_and(|at| now >= at);
        self.busy.iter().filter(|at| self.lanes.get(at).is_some_and(ready)).copied().collect()
    }
    pub fn failures(&self, at: TopicPartition) -> u32 {
        self.lanes.get(&at).map_or(0, |l| l.failures)
    }
    /// Appends handed over and not answered.
    pub fn flying(&self) -> usize {
        self.busy.iter().filter_map(|at| self.lanes.get(at)).map(|l| l.flying).sum()
    }
    /// The log could not say where the lane stands; ask again then.
    pub fn ask_later(&mut self, at: TopicPartition, then: Mono) {
        if let Some(lane) = self.lanes.get_mut(&at) {
            lane.stuck = Some(then);
            lane.failures += 1;
        }
    }

    /// The log says where a lane stands: go on from there. What is at or below `known` is in the log.
    pub fn rewound(&mut self, at: TopicPartition, known: Position, end: Offset, track: &mut Track) {
        let Some(lane) = self.lanes.get_mut(&at) else { return };
        assert_eq!(lane.flying, 0, "answers are in before a lane goes on");
        if self.watched.contains(&at) {
            self.landed.push(Landed { at, base: None, batch: Bytes::new() });
        }
        lane.stuck = None;
        lane.sent = 0;
        for batch in &mut lane.queue {
            assert!(!batch.acked || batch.last <= known, "an acknowledged batch is in the log");
            if batch.last <= known {
                batch.acked = true;
                if batch.last == known {
                    lane.marks.push_back((batch.last_seq, end));
                }
            } else if batch.first <= known
                && let Some((version, _)) = Version::of(&known)
                && let Some((rest, first)) = cut(&batch.batch, version, self.limits.compression)
            {
                self.bytes -= batch.batch.len().saturating_sub(rest.len());
                batch.batch = rest;
                batch.first = first;
            }
        }
        if end > lane.end {
            lane.end = end;
            self.moved.insert(at);
        }
        self.bytes -= lane.pop_acked(track);
        lane.prev = known;
        if lane.is_idle() {
            self.busy.remove(&at);
        }
    }

    /// For a checkpoint at `seq`: where a restart begins to read each partition.
    pub fn safe_ends(&mut self, seq: CommitSeq) -> Vec<(TopicPartition, Offset)> {
        for lane in self.lanes.values_mut() {
            while let Some((last, end)) = lane.marks.front().copied().filter(|(last, _)| *last <= seq) {
                debug_assert!(last <= seq);
                lane.safe = lane.safe.max(end);
                lane.marks.pop_front();
            }
        }
        self.lanes.iter().map(|(at, l)| (*at, l.safe)).collect()
    }

    /// End offsets for a cut: of the lanes that moved since the last one, or of all.
    pub fn ends(&self, all: bool) -> Vec<(TopicPartition, Offset)> {
        if all {
            return self.lanes.iter().map(|(at, l)| (*at, l.end)).collect();
        }
        self.moved.iter().filter_map(|at| Some((*at, self.lanes.get(at)?.end))).collect()
    }
    /// A cut with these ends is on its way; it is sent until it enters.
    pub fn cut_taken(&mut self) {
        self.moved.clear();
    }
}

impl Lane {
    fn is_idle(&self) -> bool {
        self.open.is_none() && self.queue.is_empty() && self.flying == 0 && self.stuck.is_none()
    }

    /// Returns by how many bytes the batch became smaller.
    fn seal(&mut self, compression: Codec) -> usize {
        let Some(open) = self.open.take() else { return 0 };
        self.room = open.builder.bytes();
        let batch = open.builder.finish().freeze();
        let before = batch.len();
        let batch = compressed(batch, compression);
        let saved = before.saturating_sub(batch.len());
        self.queue.push_back(Sealed {
            id: open.id,
            batch,
            first: open.first,
            last: open.last.position(&open.native),
            first_seq: open.first_seq,
            last_seq: open.last_seq,
            txn: open.txn,
            flags: open.flags,
            acked: false,
        });
        saved
    }

    /// Forgets acknowledged batches at the head; returns their bytes.
    fn pop_acked(&mut self, track: &mut Track) -> usize {
        let mut bytes = 0;
        while self.queue.front().is_some_and(|b| b.acked) {
            if let Some(batch) = self.queue.pop_front() {
                self.sent = self.sent.saturating_sub(1);
                self.prev = batch.last;
                bytes += batch.batch.len() - catchwater_record::batch::HEADER_BYTES;
                track.acked(batch.id, batch.first_seq);
            }
        }
        bytes
    }
}

/// The same batch by that codec, if that makes it smaller: a lone record of a few bytes would grow.
fn compressed(batch: Bytes, codec: Codec) -> Bytes {
    if codec == Codec::None {
        return batch;
    }
    let smaller = BatchView::new(&batch)
        .ok()
        .and_then(|view| compress::compress_batch(&view, codec, SnappyFraming::Xerial).ok())
        .filter(|smaller| smaller.len() < batch.len());
    smaller.map_or(batch, |smaller| smaller.freeze())
}

/// The records of a batch above `known`, and the position of the first of them.
fn cut(batch: &Bytes, known: Version, codec: Codec) -> Option<(Bytes, Position)> {
    let view = BatchView::new(batch).ok()?;
    let section = compress::section(&view, usize::MAX).ok()?;
    let mut builder = Builder::new();
    let mut first = None;
    for record in iterate::records(&section, view.records_count() as u32) {
        let record = record.ok()?;
        let stamp = Stamp::decode(record.header(STAMP_HEADER)??).ok()?;
        if stamp.version <= known {
            continue;
        }
        first.get_or_insert_with(|| stamp.version.position(&stamp.native));
        let headers: Vec<(&[u8], Option<&[u8]>)> = record.headers().collect();
        let timestamp = view.base_timestamp() + record.timestamp_delta;
        builder.push(timestamp, record.key, record.value, headers.iter().copied());
    }
    Some((compressed(builder.finish().freeze(), codec), first?))
}

#[cfg(test)]
mod tests;
