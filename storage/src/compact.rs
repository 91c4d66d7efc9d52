//! Pure. Log compaction: which segments it takes, and what becomes of each batch. `compact_run.rs` does the reading and
//! writing, the segment writer the switch.
//!
//! ```text
//!  | compacted … | dirty, sealed, committed, old enough … | too young | open |
//!  ^ log start   ^ dirty_from                             ^ upto
//!  pass: key ─▶ last offset over the dirty part, as far as the map holds; then every batch before that point is judged
//! ```
//! A record stays if its key has no later one, a tombstone until its delete horizon has passed, a marker until nothing of
//! its transaction is left and its horizon has passed (both for ever in a group of several members: nobody there can know
//! that no other replica has what they take back); records of aborted transactions go. A batch that loses its last
//! record goes too, unless it is the newest of its producer or of its capture: then it stays without records.
//!
//! Batches of a capture are read by sinks that must see every row go: there, a delete stays as long as the tombstone
//! behind it, a record without a key (a truncate) stays, and a record that says a part only takes nobody's place.
//!
//! Source for all rules: `Cleaner`, `LogCleanerManager` and `CleanedTransactionMetadata` of Apache Kafka 4.3; KIP-534.

pub mod map;
pub mod rows;

use crate::entry::{Row, SegmentInfo, row_flag};
use crate::fences::end_offset;
use bytes::BytesMut;
use catchwater_base::mutant;
use catchwater_record::batch::iterate::RecordView;
use catchwater_record::batch::rewrite::{Rewrite, RewriteError, Rewritten, delete_horizon, empty, rewrite};
use catchwater_record::{BatchView, EntryIndex, Offset};
use map::KeyMap;
use std::collections::{BTreeMap, BTreeSet};

/// A topic's settings of compaction.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Policy {
    /// `min.cleanable.dirty.ratio`
    pub dirty_ratio_min: f64,
    /// `min.compaction.lag.ms`
    pub lag_ms_min: u64,
    /// `max.compaction.lag.ms`
    pub lag_ms_max: u64,
    /// `delete.retention.ms`
    pub delete_retention_ms: u64,
    /// `segment.bytes`: small neighbours are written as one segment up to this size.
    pub segment_bytes: u32,
}

/// What a record of a capture is to compaction, beside its key and value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nature {
    /// It says all of its key.
    Whole,
    /// It says that its key is gone, with a value; a tombstone of the same key may follow it at the next offset.
    Delete,
    /// It changes a part of what earlier records say of its key: it takes nobody's place.
    Part,
}

/// Tells a capture's records apart. Records of others are never shown to it.
pub type NatureOf = fn(&RecordView<'_>) -> Nature;

/// All records are whole.
pub fn whole(_: &RecordView<'_>) -> Nature {
    Nature::Whole
}

/// Segments to compact.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Choice {
    /// Index of the first segment whose keys are mapped.
    pub dirty_from: usize,
    /// Index behind the last one.
    pub upto: usize,
    pub dirty_bytes: u64,
    /// Share of the bytes that is dirty.
    pub dirty_ratio: f64,
}

/// Whether a log is due, and how much of it. Nothing at or above `stable` (the smaller of high watermark and last stable
/// offset) is touched.
pub fn choose(segments: &[SegmentInfo], stable: Offset, policy: &Policy, now_ms: i64) -> Option<Choice> {
    let old_enough = |s: &SegmentInfo| {
        let newest_ms = s.rows.last().map_or(-1, |r| r.max_ts);
        policy.lag_ms_min == 0 || newest_ms <= now_ms.saturating_sub(clamp(policy.lag_ms_min))
    };
    // All but the newest are rolled; if one is not sealed yet, the switch will be refused, and comes later.
    let rolled = segments.split_last()?.1;
    let fixed = |s: &SegmentInfo| s.rows.last().is_some_and(|r| end_offset(r) <= stable);
    let dirty_from = rolled.iter().take_while(|s| s.compacted).count();
    let dirty = rolled.get(dirty_from..)?;
    let dirty_count = dirty.iter().take_while(|s| fixed(s) && old_enough(s)).count();
    let dirty = dirty.get(..dirty_count).filter(|d| !d.is_empty())?;
    let dirty_bytes: u64 = dirty.iter().map(log_bytes).sum();
    let clean_bytes: u64 = segments.iter().take(dirty_from).map(log_bytes).sum();
    let dirty_ratio = dirty_bytes as f64 / (dirty_bytes + clean_bytes).max(1) as f64;
    let oldest_ms = dirty.iter().filter_map(|s| s.rows.first_ms()).filter(|ms| *ms >= 0).min();
    let overdue = oldest_ms.is_some_and(|ms| now_ms.saturating_sub(ms) > clamp(policy.lag_ms_max));
    let due = overdue || dirty_ratio > policy.dirty_ratio_min;
    due.then_some(Choice { dirty_from, upto: dirty_from + dirty_count, dirty_bytes, dirty_ratio })
}

fn clamp(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

/// Bytes of its `.log`.
pub fn log_bytes(segment: &SegmentInfo) -> u64 {
    segment.rows.log_bytes()
}

/// Most rows of a segment written by compaction.
const ROWS_MAX: usize = 1_000_000;

/// Splits neighbouring segments into groups that become one segment each: at most `segment_bytes`, offsets and indexes
/// within their fields. Gives the lengths of the groups.
pub fn group(segments: &[SegmentInfo], segment_bytes: u32) -> Vec<usize> {
    let mut out: Vec<usize> = Vec::new();
    let (mut bytes, mut rows, mut base) = (0u64, 0usize, (0u64, 0u64));
    for segment in segments {
        let last = segment.rows.last();
        let span = last
            .map_or((0, 0), |r| (end_offset(r).0.saturating_sub(base.0), rows::last_index(r).0.saturating_sub(base.1)));
        let fits = bytes + log_bytes(segment) <= u64::from(segment_bytes)
            && rows + segment.rows.len() <= ROWS_MAX
            && span.0 <= u64::from(u32::MAX >> 1)
            && span.1 <= u64::from(u32::MAX >> 1);
        match out.last_mut() {
            Some(last) if fits => *last += 1,
            _ => {
                out.push(1);
                (bytes, rows, base) = (0, 0, (segment.base_offset.0, segment.base_index.0));
            }
        }
        bytes += log_bytes(segment);
        rows += segment.rows.len();
    }
    out
}

/// How each transaction ended: the markers of the part that is compacted, and the aborting ones behind it that end what
/// began there.
#[derive(Clone, Debug, Default)]
pub struct Markers(BTreeMap<i64, BTreeMap<u64, bool>>);

impl Markers {
    pub fn note(&mut self, producer: i64, at: Offset, aborts: bool) {
        self.0.entry(producer).or_default().insert(at.0, aborts);
    }
    /// Was the transactional batch at `at` taken back? One without a marker was committed by one behind the part: undecided
    /// ones lie above the last stable offset.
    pub fn aborted(&self, producer: i64, at: Offset) -> bool {
        let of = self.0.get(&producer).filter(|_| !mutant!("aborted_takes_the_place"));
        of.and_then(|markers| markers.range(at.0..).next()).is_some_and(|(_, aborts)| *aborts)
    }
}

/// A marker, from the key of its only record: `version i16 | type i16`, 0 aborts, 1 commits. `None` = another control
/// batch, or one that has lost its record.
pub fn marker(batch: &BatchView<'_>) -> Option<bool> {
    let section = catchwater_record::compress::section(batch, 1 << 16).ok()?;
    let count = u32::try_from(batch.records_count()).ok()?;
    let first = catchwater_record::batch::iterate::records(&section, count).next()?.ok()?;
    match first.key?.get(2..4)? {
        [0, 0] => Some(true),
        [0, 1] => Some(false),
        _ => None,
    }
}

/// The newest batch of every producer that is still known.
pub type LastOfProducers = BTreeMap<i64, LastBatch>;

/// A producer's epoch and the last offset of its newest data batch; `None` = it wrote only a marker in this epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LastBatch {
    pub epoch: i16,
    pub last_offset: Option<u64>,
}

/// What becomes of a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    Same,
    New(BytesMut),
    Gone,
}

/// One pass over the log, in order.
pub struct Pass<'a> {
    pub map: &'a KeyMap,
    /// Behind the last offset the map knows: records from here on stay.
    pub mapped_to: Offset,
    pub markers: &'a Markers,
    pub producers: &'a LastOfProducers,
    /// Entries that hold the newest position of a capture.
    pub captures: &'a BTreeSet<EntryIndex>,
    pub now_ms: i64,
    pub delete_retention_ms: u64,
    pub output_bytes_max: usize,
    pub nature: NatureOf,
    /// Nobody else has this log: see [`crate::compact_run::Job`].
    pub alone: bool,
    /// Behind the last delete that went because its time had come.
    pub deletes_gone: Offset,
    /// Producers whose present transaction has a batch left (or had one that goes in this pass).
    with_data: BTreeSet<i64>,
}

impl<'a> Pass<'a> {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        (map, mapped_to): (&'a KeyMap, Offset),
        markers: &'a Markers,
        producers: &'a LastOfProducers,
        captures: &'a BTreeSet<EntryIndex>,
        (now_ms, delete_retention_ms): (i64, u64),
        (output_bytes_max, nature, alone): (usize, NatureOf, bool),
        with_data: BTreeSet<i64>,
    ) -> Self {
        Pass {
            map,
            mapped_to,
            markers,
            producers,
            captures,
            now_ms,
            delete_retention_ms,
            output_bytes_max,
            nature,
            alone,
            deletes_gone: Offset::ZERO,
            with_data,
        }
    }

    /// What the next step of the same pass begins with, and behind which delete that went none does.
    pub fn into_open(self) -> (BTreeSet<i64>, Offset) {
        (self.with_data, self.deletes_gone)
    }

    /// Judges the batch of `row`. Batches come in the order of the log.
    pub fn judge(&mut self, row: &Row, batch: &BatchView<'_>) -> Result<Fate, RewriteError> {
        let producer = batch.raw_producer_id();
        // Nothing of its transaction is left: a marker may go, data of an aborted transaction goes.
        let void = if batch.is_control() {
            match marker(batch) {
                // The marker stays for one more pass after the last batch before it went.
                Some(_) => !self.with_data.remove(&producer),
                None => batch.records_count() == 0,
            }
        } else if batch.is_transactional() {
            self.with_data.insert(producer);
            self.markers.aborted(producer, row.base_offset)
        } else {
            false
        };
        let horizon = delete_horizon(batch);
        let passed = horizon.is_some_and(|at| at <= self.now_ms) || mutant!("tombstone_too_early");
        // Who has not got it yet may have what it takes back, and would keep that for ever.
        let passed = passed && (self.alone || mutant!("tombstone_goes_in_a_group"));
        let discard = if batch.is_control() { void && passed } else { void };
        let newest = self.is_newest(row, batch);
        if discard && !newest {
            return Ok(Fate::Gone);
        }
        let (control, base) = (batch.is_control(), row.base_offset);
        let (map, mapped_to) = (self.map, self.mapped_to);
        let captured = row.flags & row_flag::CAPTURE != 0;
        let (nature, mut deletes_gone) = (self.nature, self.deletes_gone);
        let mut keep = |record: &RecordView<'_>| {
            if discard {
                return false;
            }
            let Ok(delta) = u64::try_from(record.offset_delta) else { return true };
            let offset = base.plus(delta);
            if control || offset >= mapped_to {
                return true;
            }
            let Some(key) = record.key else { return captured };
            let deletes = captured && nature(record) == Nature::Delete;
            let reach = if deletes { offset.plus(1) } else { offset };
            if map.get(key).is_some_and(|last| reach < last || mutant!("compaction_drops_last")) {
                return false;
            }
            let goes = passed && (deletes || record.value.is_none());
            if goes {
                deletes_gone = deletes_gone.max(offset.plus(1));
            }
            !goes
        };
        let how = Rewrite {
            output_bytes_max: self.output_bytes_max,
            horizon_ms: self.now_ms.saturating_add(clamp(self.delete_retention_ms)),
            horizon_always: control && void,
        };
        let rewritten = rewrite(batch, how, &mut keep)?;
        self.deletes_gone = deletes_gone;
        Ok(match rewritten {
            Rewritten::Same => Fate::Same,
            Rewritten::New(new) => Fate::New(new),
            Rewritten::Nothing if newest && batch.records_count() == 0 => Fate::Same,
            Rewritten::Nothing if newest => Fate::New(empty(batch)),
            Rewritten::Nothing => Fate::Gone,
        })
    }

    /// What sequence numbers and positions are checked against must stay readable.
    fn is_newest(&self, row: &Row, batch: &BatchView<'_>) -> bool {
        if self.captures.contains(&row.index) {
            return true;
        }
        let Some(id) = batch.producer_id().filter(|_| !mutant!("newest_of_producer_dropped")) else { return false };
        self.producers.get(&id.0).is_some_and(|known| match known.last_offset {
            Some(last) => end_offset(row).0 == last + 1,
            None => batch.is_control() && batch.producer_epoch().0 == known.epoch,
        })
    }
}

#[cfg(test)]
mod tests;
