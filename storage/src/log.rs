//! Pure. One replica's log: rows, the newest bytes, and what producers and captures have written.
//!
//! Called under the partition's lock; no I/O. Cost of an append: one row and one queue slot per entry, no copy of bytes.
//! Of old rows memory has fences only (`fences.rs`): what is asked of them is where in the files to go on.
//! ```text
//!  log_start ≤ … segments … ≤ placed_end ≤ last_index        placed_end: bytes are in files
//!                                  commit ≤ last_index        above it every change of state has an undo record
//!  tail cache: [cache_first ..= last_index], always everything behind placed_end, bounded below it
//! ```
//! Invariants: whatever is behind `placed_end` is readable from the tail cache; producer and capture state equal a
//! replay of all rows; truncation puts back exactly what the cut entries changed.

use crate::capture_pos::{self, Captures, Standing};
use crate::compact::{self, Choice, LastBatch, LastOfProducers, Policy};
use crate::entry::{
    EntryKind, EpochStart, FileRead, NewEntry, PlacedRow, RecoveredGroup, Replaced, Row, RowRead, SegmentInfo,
};
use crate::format::context::{CaptureContext, ContextError, EntryContext, Fence};
use crate::format::txn::Aborted;
use crate::producer::{BatchMark, Producer, ProducerBudget, Producers, Sequence};
use crate::table::{MaxTime, Table};
use crate::txn::{Marker, Transactions};
use bytes::Bytes;
use catchwater_base::mutant;
use catchwater_record::{
    BatchView, CaptureEpoch, CaptureId, EntryIndex, Gid, LeaderEpoch, Offset, Position, ProducerEpoch, ProducerId,
};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// Memory that an entry of the tail takes beside its bytes: its slot of the queue (half of them may be empty), the head of the
/// request that it came in, the counters of its two buffers, and what the allocator adds to each. Measured with batches of
/// 170 B, where without it a budget of 64 MiB took 170.
const ENTRY_COST: u64 = 320;

/// Bounds of one log.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Bytes of entries that are in files already and are kept for readers at the end. Default 1 MiB.
    pub tail_bytes_max: u64,
    /// Shared by all logs of a node; above its limit a log keeps nothing that is in files.
    pub budget: Option<Arc<TailBudget>>,
    /// Producers of all logs of a node.
    pub producers: Option<Arc<ProducerBudget>>,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { tail_bytes_max: 1 << 20, budget: None, producers: None }
    }
}

/// What a batch is to this log (speculative: counts what is not committed yet).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Check {
    New,
    /// Here already, at these offsets; acknowledge when `index` is committed (index 0: long since). For a capture the
    /// offsets are those of the entry that holds its last position.
    Duplicate {
        base: Offset,
        end: Offset,
        index: EntryIndex,
    },
    /// The capture's rows up to this position are here: cut the batch, send the rest.
    Partly(Position),
    /// An earlier append of this capture is missing; go on from here.
    Gap(Position),
    Fenced(CaptureEpoch),
    ProducerFenced {
        known: ProducerEpoch,
    },
    OutOfOrder {
        expected: i32,
    },
    /// Written long ago: a repeat, but where is forgotten (Kafka's DUPLICATE_SEQUENCE_NUMBER).
    StaleSequence,
}

/// Where to read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadPlan {
    /// Whole batches from memory; the first may begin before the wanted offset.
    Tail(Vec<Bytes>),
    /// Whole batches in the files of one segment.
    Files(FileRead),
    /// Nothing there yet.
    Empty,
    /// Below the log start, or beyond the end.
    OutOfRange,
}

/// A log's part of a compaction's job.
#[derive(Clone, Debug)]
pub struct CompactionInput {
    pub segments: Vec<SegmentInfo>,
    pub producers: LastOfProducers,
    /// Entries that hold the newest position of a capture.
    pub captures: BTreeSet<EntryIndex>,
    /// Aborted transactions with records in these segments and the marker behind them.
    pub aborted: Vec<Aborted>,
}

/// A stored entry that this version cannot take in.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum LogOpenError {
    #[error("entry {index} has a bad context: {cause}")]
    Context { index: EntryIndex, cause: ContextError },
    #[error("the state snapshot at entry {0} cannot be read")]
    Snapshot(EntryIndex),
    #[error("entry {0} does not follow the one before")]
    Order(EntryIndex),
}

/// The value before one entry changed it.
#[derive(Clone, Debug)]
enum Undo {
    Producer(ProducerId, Option<Producer>),
    Capture(capture_pos::Before),
}

#[derive(Debug)]
pub struct Log {
    gid: Gid,
    config: LogConfig,
    table: Table,
    log_start: Offset,
    deletes_gone: Offset,
    prev_term: u32,
    /// Where each term begins, ascending.
    epochs: Vec<EpochStart>,
    commit: EntryIndex,
    persisted: EntryIndex,
    /// Bytes of batches above the commit index.
    uncommitted_bytes: u64,
    /// Newest entries, contiguous up to the last one.
    cache: VecDeque<NewEntry>,
    /// Bytes of them, and of those that are in files too.
    cache_bytes: u64,
    cache_placed_bytes: u64,
    /// Entries up to here came from the journal at the start.
    borrowed_to: EntryIndex,
    producers: Producers,
    /// As told to the node's budget.
    producers_told: u64,
    captures: Captures,
    transactions: Transactions,
    /// Ascending by index, all above `state_floor`.
    undo: VecDeque<(EntryIndex, Undo)>,
    /// Members: the state that is known, the index it stands at, and the changes behind it (opaque here).
    conf: (EntryIndex, Bytes),
    conf_changes: VecDeque<(EntryIndex, Bytes)>,
    /// States that changes led to, as the replica tells them; a snapshot takes the one of its index.
    conf_states: VecDeque<(EntryIndex, Bytes)>,
    /// State holds everything up to here: after a prefix snapshot the log may end before.
    known: EntryIndex,
    /// Log starts that wait for their commit.
    starts: VecDeque<(EntryIndex, Offset)>,
    /// Sections of `.snap` that a newer version wrote.
    foreign_sections: Vec<(u16, Bytes)>,
}

/// Changes of members whose states are kept for snapshots: more than can be uncommitted.
const CONF_STATES_KEPT: usize = 16;

impl Log {
    pub fn open(found: RecoveredGroup) -> Result<Log, LogOpenError> {
        Self::open_with(found, LogConfig::default())
    }

    /// Rebuilds state from what recovery found. Everything found counts as persisted; the commit index is
    /// `found.hard.commit` as far as there are entries, and only a hint.
    pub fn open_with(found: RecoveredGroup, config: LogConfig) -> Result<Log, LogOpenError> {
        // A log without rows ends at its start, unless the journal knows better: the start may lie inside what it brings.
        let first_row = found.segments.iter().find_map(|s| s.rows.first()).map(|r| r.base_offset);
        let first = first_row.or_else(|| found.journaled.first().map(|e| e.base_offset));
        let empty_end = first.unwrap_or(found.log_start);
        let mut log = Log {
            gid: found.gid,
            config,
            table: Table::new(found.first_index, empty_end, found.segments),
            log_start: found.log_start,
            deletes_gone: found.deletes_gone,
            prev_term: found.prev_term,
            epochs: found.epochs,
            commit: EntryIndex::ZERO,
            persisted: EntryIndex::ZERO,
            uncommitted_bytes: 0,
            cache: VecDeque::new(),
            cache_bytes: 0,
            cache_placed_bytes: 0,
            borrowed_to: found.journaled.last().map_or(EntryIndex::ZERO, |e| e.index),
            producers: Producers::default(),
            producers_told: 0,
            captures: Captures::default(),
            transactions: Transactions::default(),
            undo: VecDeque::new(),
            conf: (found.spec.conf_index, found.spec.conf.clone()),
            conf_changes: VecDeque::new(),
            conf_states: VecDeque::new(),
            known: EntryIndex::ZERO,
            starts: VecDeque::new(),
            foreign_sections: Vec::new(),
        };
        log.rebuild_epochs();
        let mut known = EntryIndex::ZERO;
        if let Some((at, payload)) = found.snap {
            // Only a log that began behind a prefix snapshot may end before its state.
            let end = found.journaled.last().map_or(log.table.last_index(), |e| e.index);
            let end = if found.first_index > EntryIndex(1) { end } else { end.max(at) };
            log.read_snapshot(payload, at, end).ok_or(LogOpenError::Snapshot(at))?;
            log.known = at;
            known = if mutant!("stale_snap_accepted") { EntryIndex(u64::MAX) } else { at };
        }
        let total = found.journaled.last().map_or(log.table.last_index(), |e| e.index);
        log.commit = found.hard.commit.min(total).max(found.first_index.prev());
        for (row, header, context) in found.since_snap {
            if row.index > known {
                log.take_state(row.index, row.base_offset, &header, &context)
                    .map_err(|cause| LogOpenError::Context { index: row.index, cause })?;
            }
        }
        for entry in found.journaled {
            let last = log.table.last();
            if entry.index != log.table.last_index().next()
                || entry.base_offset != log.table.next_offset()
                || last.is_some_and(|l| l.term > entry.term)
            {
                return Err(LogOpenError::Order(entry.index));
            }
            if entry.index <= known {
                log.push(entry);
            } else {
                log.take_state(entry.index, entry.base_offset, &entry.body, &entry.context)
                    .map_err(|cause| LogOpenError::Context { index: entry.index, cause })?;
                log.push(entry);
            }
        }
        log.persisted = log.table.last_index();
        log.uncommitted_bytes = log.table.rows_from(log.commit.next()).map(data_bytes).sum();
        log.settle();
        log.transactions.trim(log.log_start);
        log.tell_producers();
        log.fence();
        Ok(log)
    }

    /// The list that recovery brought may lack the terms of rows it brought too.
    fn rebuild_epochs(&mut self) {
        let mut epochs = std::mem::take(&mut self.epochs);
        for (term, index, offset) in self.table.terms() {
            if epochs.last().is_none_or(|e| e.term < term) {
                epochs.push(EpochStart { term, index, offset });
            }
        }
        self.epochs = epochs;
    }

    pub fn gid(&self) -> Gid {
        self.gid
    }
    pub fn first_index(&self) -> EntryIndex {
        self.table.first_index()
    }
    pub fn last_index(&self) -> EntryIndex {
        self.table.last_index()
    }
    pub fn last_term(&self) -> LeaderEpoch {
        self.table.last().map_or(LeaderEpoch(self.prev_term), |r| r.term)
    }
    /// LEO: the offset that the next batch takes.
    pub fn next_offset(&self) -> Offset {
        self.table.next_offset()
    }
    pub fn log_start(&self) -> Offset {
        self.log_start
    }
    pub fn commit(&self) -> EntryIndex {
        self.commit
    }
    pub fn persisted_index(&self) -> EntryIndex {
        self.persisted
    }
    /// First offset behind the entry at `at`, which is committed last, durable last or later than one of these; of the first
    /// entry if `at` lies before it.
    pub fn end_offset_at(&self, at: EntryIndex) -> Offset {
        match self.table.row(at) {
            Some(row) => row.base_offset.plus(u64::from(row.count)),
            None => self.table.first_offset(),
        }
    }
    /// Offset of the entry at `at` and the first one behind it; `None` if only files know.
    pub fn offsets_of(&self, at: EntryIndex) -> Option<(Offset, Offset)> {
        let row = self.table.row(at).map(|r| (r.base_offset, r.base_offset.plus(u64::from(r.count))));
        row.or_else(|| self.cached(at).map(|e| (e.base_offset, e.end_offset())))
    }
    /// First offset not committed.
    pub fn high_watermark(&self) -> Offset {
        self.end_offset_at(self.commit).max(self.log_start)
    }
    /// Bytes of batches above the commit index.
    pub fn uncommitted_bytes(&self) -> u64 {
        self.uncommitted_bytes
    }
    /// Bytes of the batches in segment files.
    pub fn file_bytes(&self) -> u64 {
        self.segments().iter().map(crate::compact::log_bytes).sum()
    }
    /// Bytes that memory must hold because no segment file has them yet.
    pub fn pinned_bytes(&self) -> u64 {
        self.cache_bytes - self.cache_placed_bytes
    }
    /// The row that covers `at`, if memory has it: old ones are in files only ([`Log::row_read`]).
    pub fn row(&self, at: EntryIndex) -> Option<Row> {
        self.table.row(at).copied()
    }
    /// Where files have rows from `from` on, below `below`, of so many bytes at most.
    pub fn row_read(&self, from: EntryIndex, below: EntryIndex, max_bytes: u64) -> Option<RowRead> {
        self.table.row_read(self.gid, from, below, max_bytes)
    }
    /// Rows that memory has, from `from` on.
    pub fn rows_from(&self, from: EntryIndex) -> impl Iterator<Item = &Row> {
        self.table.rows_from(from)
    }
    pub fn segments(&self) -> &[SegmentInfo] {
        self.table.segments()
    }
    /// Last index whose bytes are in files.
    pub fn placed_end(&self) -> EntryIndex {
        self.table.placed_end()
    }
    /// Term of the entry at `at`; known for `first_index - 1 ..= last_index`.
    pub fn term(&self, at: EntryIndex) -> Option<LeaderEpoch> {
        if at == self.table.first_index().prev() {
            return Some(LeaderEpoch(self.prev_term));
        }
        if at < self.table.first_index() || at > self.table.last_index() {
            return None;
        }
        let place = self.epochs.partition_point(|e| e.index <= at).checked_sub(1)?;
        self.epochs.get(place).map(|e| LeaderEpoch(e.term))
    }
    /// Where each term begins, ascending.
    pub fn epochs(&self) -> &[EpochStart] {
        &self.epochs
    }
    /// OffsetForLeaderEpoch: the largest term ≤ `epoch` and the first offset behind it.
    pub fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let place = self.epochs.partition_point(|e| e.term <= epoch.0);
        let found = self.epochs.get(place.checked_sub(1)?)?;
        let end = self.epochs.get(place).map_or(self.next_offset(), |next| next.offset);
        Some((LeaderEpoch(found.term), end))
    }
    /// Speculative: the newest epoch and position of a capture here.
    pub fn capture_last(&self, capture: CaptureId) -> Option<(CaptureEpoch, Position)> {
        self.captures.get(capture).map(|c| (c.epoch, c.position.clone()))
    }
    /// The members at the newest index where they are known as a state, and the changes behind it, ascending.
    pub fn conf(&self) -> (EntryIndex, &Bytes, impl Iterator<Item = &(EntryIndex, Bytes)>) {
        (self.conf.0, &self.conf.1, self.conf_changes.iter())
    }
    /// The change of members that the entry at `at` holds.
    pub fn conf_change(&self, at: EntryIndex) -> Option<&Bytes> {
        self.conf_changes.iter().find(|(i, _)| *i == at).map(|(_, change)| change)
    }
    /// The committed change at `at` led to this state: snapshots from there on carry it.
    pub fn conf_applied(&mut self, at: EntryIndex, state: Bytes) {
        self.conf_states.push_back((at, state));
        if self.conf_states.len() > CONF_STATES_KEPT {
            self.conf_states.pop_front();
        }
    }
    pub fn producers(&self) -> &Producers {
        &self.producers
    }
    pub fn captures(&self) -> &Captures {
        &self.captures
    }

    /// First offset that a read_committed reader does not get: the oldest transaction that is open, or whose end is not
    /// committed, else the high watermark.
    pub fn last_stable_offset(&self) -> Offset {
        self.transactions.last_stable(self.high_watermark())
    }
    /// Aborted transactions with a record in `from..upto`, by their markers: what a read_committed reader skips.
    pub fn aborted(&self, from: Offset, upto: Offset) -> impl Iterator<Item = &Aborted> {
        self.transactions.aborted(from, upto)
    }

    /// May this batch enter, and if not, why? Judges what was appended before, so of one producer or capture at most
    /// one batch may be between a check and its append.
    pub fn check(&self, batch: &BatchView<'_>, capture: Option<&CaptureContext>) -> Check {
        if let Some(mark) = BatchMark::read(batch.bytes()) {
            match self.producers.check(&mark) {
                Sequence::New => {}
                Sequence::Duplicate { base, end } => {
                    let index = if end <= self.log_start || mutant!("duplicate_acked_before_commit") {
                        EntryIndex::ZERO
                    } else {
                        self.table.index_at(base).unwrap_or_default()
                    };
                    return Check::Duplicate { base, end, index };
                }
                Sequence::Fenced { known } => return Check::ProducerFenced { known },
                Sequence::OutOfOrder { expected } => return Check::OutOfOrder { expected },
                Sequence::Stale => return Check::StaleSequence,
            }
        }
        capture.map_or(Check::New, |c| self.check_capture(c))
    }

    /// The same for an entry without a batch (`capture_flag::NO_ROWS`).
    pub fn check_capture(&self, capture: &CaptureContext) -> Check {
        match self.captures.check(capture) {
            Standing::New => Check::New,
            Standing::Duplicate(index) => {
                // An old one, committed long since, has its offsets from fence to fence: wide enough for who waits for them.
                let known = self.offsets_of(index).map(|(base, end)| (base, end, index));
                let old = || self.table.around(index).map(|(base, end)| (base, end, EntryIndex::ZERO));
                let nowhere = (self.log_start, self.log_start, EntryIndex::ZERO);
                let (base, end, index) = known.or_else(old).unwrap_or(nowhere);
                Check::Duplicate { base, end, index }
            }
            Standing::Partly(known) => Check::Partly(known),
            Standing::Gap(known) => Check::Gap(known),
            Standing::Fenced(by) => Check::Fenced(by),
        }
    }

    /// May this fence enter? `New` or `Fenced`.
    pub fn check_fence(&self, fence: Fence) -> Check {
        match self.captures.check_fence(fence) {
            Standing::Fenced(by) => Check::Fenced(by),
            _ => Check::New,
        }
    }

    /// Takes entries in behind the last one: rows, bytes, state. Indexes, terms and offsets must follow; contexts were
    /// decoded before (by who proposed or received them).
    pub fn append(&mut self, entries: Vec<NewEntry>) {
        for entry in entries {
            if entry.index > self.known {
                self.take_state(entry.index, entry.base_offset, &entry.body, &entry.context)
                    .expect("contexts are checked before they are appended");
            }
            self.uncommitted_bytes += entry.body.len() as u64;
            self.push(entry);
        }
        self.tell_producers();
    }

    fn tell_producers(&mut self) {
        if let Some(budget) = &self.config.producers {
            let now = self.producers.len() as u64;
            budget.account(self.producers_told, now);
            self.producers_told = now;
        }
    }

    /// Row, epoch and bytes; not the state.
    fn push(&mut self, entry: NewEntry) {
        let term = entry.term.0;
        if self.epochs.last().is_none_or(|e| e.term < term) {
            self.epochs.push(EpochStart { term, index: entry.index, offset: entry.base_offset });
        }
        self.table.push(Row {
            index: entry.index,
            term: entry.term,
            kind: entry.kind,
            flags: entry.flags,
            base_offset: entry.base_offset,
            count: entry.count,
            max_ts: entry.max_ts,
            pos: 0,
            len: entry.body.len() as u32,
            ext_pos: 0,
            ext_len: 0,
        });
        self.cache_bytes += entry_bytes(&entry);
        self.cache.push_back(entry);
    }

    /// Producer and capture state of one entry, with undo.
    fn take_state(
        &mut self,
        index: EntryIndex,
        base: Offset,
        header: &[u8],
        context: &Bytes,
    ) -> Result<(), ContextError> {
        if let Some(mark) = BatchMark::read(header)
            && let Some((id, before)) = self.producers.append(&mark, base)
        {
            let was = before.and_then(|p| p.open_transaction());
            let now = self.producers.get(id).and_then(Producer::open_transaction);
            self.transactions.moved(id, was, now);
            // `header` is the whole batch if it is a control batch.
            if let Some(marker) = Marker::read(header) {
                self.producers.marked(id, marker.coordinator_epoch);
                if let Some(first) = was.filter(|_| now.is_none()) {
                    self.transactions.end(index, id, first, base, marker);
                }
            }
            self.undo.push_back((index, Undo::Producer(id, before)));
        }
        if context.is_empty() {
            return Ok(());
        }
        let context = EntryContext::decode(context)?;
        let before = if let Some(capture) = &context.capture {
            Some(self.captures.append(capture, index))
        } else if let Some(fence) = context.fence {
            Some(self.captures.fence(fence))
        } else {
            context.capture_drop.map(|c| self.captures.drop_capture(c))
        };
        if let Some(before) = before {
            self.undo.push_back((index, Undo::Capture(before)));
        }
        if let Some(conf) = context.conf {
            self.conf_changes.push_back((index, conf));
        }
        if let Some(start) = context.log_start {
            self.starts.push_back((index, start.offset));
        }
        Ok(())
    }

    /// Cuts everything at or behind `from`, which must be above the commit index.
    pub fn truncate(&mut self, from: EntryIndex) {
        assert!(from > self.commit, "nothing committed is cut");
        self.uncommitted_bytes -= self.table.rows_from(from).map(data_bytes).sum::<u64>();
        while self.undo.back().is_some_and(|(i, _)| *i >= from) {
            match self.undo.pop_back() {
                Some(_) if mutant!("undo_forgotten") => {}
                Some((_, Undo::Producer(id, before))) => {
                    let was = self.producers.get(id).and_then(Producer::open_transaction);
                    self.transactions.moved(id, was, before.and_then(|p| p.open_transaction()));
                    self.producers.restore(id, before);
                }
                Some((_, Undo::Capture(before))) => self.captures.restore(before),
                None => {}
            }
        }
        self.transactions.truncate(from);
        self.tell_producers();
        while self.starts.back().is_some_and(|(i, _)| *i >= from) {
            self.starts.pop_back();
        }
        while self.conf_changes.back().is_some_and(|(i, _)| *i >= from) {
            self.conf_changes.pop_back();
        }
        let placed = self.table.placed_end();
        while self.cache.back().is_some_and(|e| e.index >= from) {
            if let Some(entry) = self.cache.pop_back() {
                self.cache_bytes -= entry_bytes(&entry);
                if entry.index <= placed {
                    self.release(entry_bytes(&entry));
                }
            }
        }
        self.table.truncate(from);
        while self.epochs.last().is_some_and(|e| e.index >= from) {
            self.epochs.pop();
        }
        self.persisted = self.persisted.min(from.prev());
    }

    /// Everything up to `upto` is durable here.
    pub fn persisted(&mut self, upto: EntryIndex) {
        assert!(upto <= self.last_index(), "durable beyond the end");
        self.persisted = self.persisted.max(upto);
        self.settle();
    }

    /// Everything up to `upto` is committed, and stays so.
    pub fn committed(&mut self, upto: EntryIndex) {
        assert!(upto <= self.last_index(), "committed beyond the end");
        if upto <= self.commit {
            return;
        }
        let newly: u64 = self.table.rows_from(self.commit.next()).take_while(|r| r.index <= upto).map(data_bytes).sum();
        self.uncommitted_bytes -= newly;
        self.commit = upto;
        self.settle();
    }

    /// Drops undo records that nothing can need, and lets committed log starts take effect.
    fn settle(&mut self) {
        // A state snapshot stands at min(commit, persisted): records above it are needed for that too.
        let floor = self.commit.min(self.persisted);
        while self.undo.front().is_some_and(|(i, _)| *i <= floor) {
            self.undo.pop_front();
        }
        self.transactions.committed(self.commit);
        while self.starts.front().is_some_and(|(i, _)| *i <= self.commit) {
            if let Some((_, offset)) = self.starts.pop_front() {
                let known = if mutant!("log_start_goes_back") { Offset::ZERO } else { self.log_start };
                self.log_start = known.max(offset.min(self.high_watermark()));
                self.transactions.trim(self.log_start);
            }
        }
        self.drop_segments();
    }

    /// Forgets whole segments below the log start: their files go too (the shell tells the driver). What is committed and not
    /// told durable stays: the replica has not applied it yet, and a change of members that went unseen would be missing from
    /// then on. Rows reach files before that is told, when the two reports cross.
    fn drop_segments(&mut self) {
        let applied = self.commit.min(self.persisted);
        let Some((gone, term)) = self.table.trim(self.log_start, applied) else { return };
        self.prev_term = term.0;
        while self.cache.front().is_some_and(|e| e.index <= gone) {
            if let Some(entry) = self.cache.pop_front() {
                self.cache_bytes -= entry_bytes(&entry);
                self.release(entry_bytes(&entry));
            }
        }
    }

    /// These rows are in files now, everything up to `upto`: memory may let go of old bytes.
    pub fn segmented(&mut self, _upto: EntryIndex, placed: &[PlacedRow]) {
        let before = self.table.placed_end();
        self.table.place(placed);
        let now = self.table.placed_end();
        if let Some(front) = self.cache.front() {
            let skip = (before.next().0.saturating_sub(front.index.0)) as usize;
            let added: u64 = self.cache.iter().skip(skip).take_while(|e| e.index <= now).map(entry_bytes).sum();
            self.cache_placed_bytes += added;
            if let Some(budget) = &self.config.budget {
                budget.add(added);
            }
        }
        self.drop_segments();
        let keep = match &self.config.budget {
            Some(budget) if budget.over() => 0,
            _ => self.config.tail_bytes_max,
        };
        self.shrink_tail(keep);
        self.own(before.next(), now);
        self.fence();
    }

    /// Lets go of rows that nothing can take back.
    fn fence(&mut self) {
        let upto =
            if mutant!("fenced_before_commit") { self.table.placed_end() } else { self.commit.min(self.persisted) };
        self.table.fence(upto);
    }

    /// A compacted segment is in force: its rows are the truth, and old bytes in memory are not served any more.
    pub fn replaced(&mut self, Replaced { segment: new, deletes_gone }: Replaced) {
        self.deletes_gone = self.deletes_gone.max(deletes_gone);
        let end = new.rows.last().map(crate::compact::rows::last_index);
        if self.table.replace(new) {
            let before = self.table.first_index().prev();
            let place = self.epochs.partition_point(|e| e.index <= before).checked_sub(1);
            self.prev_term = place.and_then(|at| self.epochs.get(at)).map_or(0, |e| e.term);
        }
        let placed = self.table.placed_end();
        while self.cache.front().is_some_and(|e| end.is_some_and(|end| e.index <= end) && e.index <= placed) {
            if let Some(entry) = self.cache.pop_front() {
                self.cache_bytes -= entry_bytes(&entry);
                self.release(entry_bytes(&entry));
            }
        }
    }

    /// The first entry whose bytes memory has.
    pub fn first_cached(&self) -> Option<EntryIndex> {
        self.cache.front().map(|e| e.index)
    }

    /// The entry with its bytes, if memory has them.
    pub fn cached(&self, at: EntryIndex) -> Option<&NewEntry> {
        let front = self.cache.front()?;
        self.cache.get(usize::try_from(at.0.checked_sub(front.index.0)?).ok()?)
    }

    /// Whole batches that begin below `upto`, at most `max_bytes` but at least one. The first may hold `from` in its
    /// middle. `upto` is a batch boundary (high watermark or a stable offset).
    pub fn plan_read(&self, from: Offset, upto: Offset, max_bytes: u32) -> ReadPlan {
        if from < self.log_start || from > self.next_offset() {
            return ReadPlan::OutOfRange;
        }
        if from >= upto {
            return ReadPlan::Empty;
        }
        let held = self.cache.front().is_some_and(|f| f.base_offset <= from);
        if !held && let Some(read) = self.table.file_read(self.gid, from, upto, max_bytes) {
            return ReadPlan::Files(read);
        }
        // What compaction has taken may lie between the last batch in files and the first one here.
        let skip = self.cache.partition_point(|e| e.end_offset() <= from);
        let mut out = Vec::new();
        let mut bytes = 0;
        for entry in self.cache.iter().skip(skip).filter(|e| e.kind == EntryKind::Data) {
            let len = entry.body.len() as u64;
            if entry.base_offset >= upto || (!out.is_empty() && bytes + len > u64::from(max_bytes)) {
                break;
            }
            bytes += len;
            out.push(entry.body.clone());
        }
        if out.is_empty() { ReadPlan::Empty } else { ReadPlan::Tail(out) }
    }

    /// No batch of what a plan will give ends behind this offset; `None` = it gives nothing.
    pub fn plan_end(&self, plan: &ReadPlan) -> Option<Offset> {
        match plan {
            ReadPlan::Tail(batches) => {
                let last = BatchView::new(batches.last()?).ok()?;
                Some(last.offset().plus(u64::from(last.offset_count())))
            }
            ReadPlan::Files(read) => Some(read.end),
            ReadPlan::Empty | ReadPlan::OutOfRange => None,
        }
    }

    /// Where to look for the first record with a timestamp ≥ `ms`: no record before that has one, and none below the log
    /// start counts (it may lie inside a batch).
    pub fn find_time(&self, ms: i64) -> Option<Offset> {
        self.table.find_time(ms, self.log_start)
    }

    /// Where the largest timestamp is.
    pub fn max_time(&self) -> MaxTime {
        self.table.max_time(self.log_start)
    }

    /// What compaction could do now, if it is due: the segments and what must stay. `policy` of the topic.
    /// Safe at any replica: what it judges by is committed, and so is what it takes.
    pub fn plan_compaction(&self, policy: &Policy, now_ms: i64) -> Option<(Choice, CompactionInput)> {
        let stable = self.last_stable_offset().min(self.high_watermark());
        let choice = compact::choose(self.table.segments(), stable, policy, now_ms)?;
        let segments = self.table.segments().get(..choice.upto)?.to_vec();
        let upto = segments
            .last()
            .and_then(|s| s.rows.last())
            .map_or(Offset::ZERO, |r| r.base_offset.plus(u64::from(r.count)));
        let (producers, captures) =
            self.state_at(if mutant!("newest_by_what_is_not_committed") { EntryIndex(u64::MAX) } else { self.commit });
        let input = CompactionInput {
            segments,
            aborted: self.aborted(upto, upto).copied().filter(|_| !mutant!("marker_behind_unseen")).collect(),
            producers: producers
                .as_ref()
                .unwrap_or(&self.producers)
                .last_batches()
                .map(|(id, epoch, last_offset)| (id, LastBatch { epoch, last_offset }))
                .collect(),
            captures: captures.as_ref().unwrap_or(&self.captures).last_entries().collect(),
        };
        Some((choice, input))
    }

    /// Whether and how much compaction is due, without the input.
    pub fn compaction_due(&self, policy: &Policy, now_ms: i64) -> Option<Choice> {
        let stable = self.last_stable_offset().min(self.high_watermark());
        compact::choose(self.table.segments(), stable, policy, now_ms)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(budget) = &self.config.budget {
            budget.sub(self.cache_placed_bytes);
        }
        if let Some(budget) = &self.config.producers {
            budget.account(self.producers_told, 0);
        }
    }
}

fn data_bytes(row: &Row) -> u64 {
    if row.kind == EntryKind::Data { u64::from(row.len) } else { 0 }
}

/// What an entry costs in memory: its bytes, and what stands around them.
fn entry_bytes(entry: &NewEntry) -> u64 {
    (entry.body.len() + entry.context.len()) as u64 + ENTRY_COST
}

mod memory;
mod prefix;
mod state;

pub use memory::TailBudget;
#[cfg(test)]
mod tests;
