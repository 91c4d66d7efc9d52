//! Pure. Transactions of one partition: which are open, up to where a read_committed reader may read, what it skips.
//!
//! Source: KIP-98. A transaction opens with its producer's first transactional batch and ends with a marker, a control
//! batch. Speculative like [`crate::producer`], whose undo records put it back: what is open follows from the producers.
//! ```text
//!  … | first of A | first of B | marker of A (not committed) | high watermark
//!      ^ last stable offset: A has ended, but only here so far
//! ```
//! Invariants: the last stable offset never passes a transaction that is open or whose marker is not committed; what is
//! listed as aborted is committed, in the order of the markers. Not here: who may write a marker (the coordinator).

use crate::format::txn::Aborted;
use bytes::Buf;
use catchwater_base::mutant;
use catchwater_record::batch::{ATTR_CONTROL, HEADER_BYTES};
use catchwater_record::{EntryIndex, Offset, ProducerId};
use std::collections::{BTreeMap, VecDeque};

/// What a marker says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Marker {
    pub commits: bool,
    /// Of the coordinator that wrote it.
    pub coordinator_epoch: i32,
}

impl Marker {
    /// Of a whole control batch; `None` if it is not one, or of a kind that ends nothing.
    ///
    /// Source: the record of a marker has key `version i16 | type i16` (0 abort, 1 commit) and value `version i16 |
    /// coordinator_epoch i32`. Control batches are never compressed.
    pub fn read(batch: &[u8]) -> Option<Self> {
        let attributes = i16::from_be_bytes(batch.get(21..23)?.try_into().ok()?);
        if attributes & ATTR_CONTROL == 0 {
            return None;
        }
        let mut record = batch.get(HEADER_BYTES..)?;
        varint(&mut record)?; // length
        record.try_get_u8().ok()?; // attributes
        varint(&mut record)?; // timestamp
        varint(&mut record)?; // offset
        let mut key = slice(&mut record)?;
        let mut value = slice(&mut record).unwrap_or_default();
        key.try_get_i16().ok()?;
        let commits = match key.try_get_i16().ok()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        value.try_get_i16().ok();
        Some(Marker { commits, coordinator_epoch: value.try_get_i32().unwrap_or(-1) })
    }
}

fn varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = bytes.try_get_u8().ok()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

fn slice<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(varint(bytes)?).ok()?;
    let (head, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(head)
}

/// A transaction whose marker is in the log and not committed yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ended {
    index: EntryIndex,
    first: Offset,
    /// If it was aborted.
    aborted: Option<Aborted>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Transactions {
    /// First offset → producer.
    open: BTreeMap<Offset, ProducerId>,
    /// Ascending by index.
    ended: VecDeque<Ended>,
    /// Ascending by marker.
    aborted: VecDeque<Aborted>,
}

impl Transactions {
    /// What a snapshot held.
    pub fn restored(open: impl IntoIterator<Item = (Offset, ProducerId)>, aborted: Vec<Aborted>) -> Self {
        Transactions { open: open.into_iter().collect(), ended: VecDeque::new(), aborted: aborted.into() }
    }

    /// A producer's open transaction was `before` and is `after` an entry (or the undoing of one).
    pub fn moved(&mut self, producer: ProducerId, before: Option<Offset>, after: Option<Offset>) {
        if before == after {
            return;
        }
        if let Some(first) = before {
            self.open.remove(&first);
        }
        if let Some(first) = after {
            self.open.insert(first, producer);
        }
    }

    /// A marker at `at` ended the transaction that began at `first`; [`Transactions::moved`] was told before.
    pub fn end(&mut self, index: EntryIndex, producer: ProducerId, first: Offset, at: Offset, marker: Marker) {
        let last_stable = self.open.keys().next().copied().unwrap_or(at.plus(1));
        let aborted = (!marker.commits).then_some(Aborted { producer, first, last: at, last_stable });
        self.ended.push_back(Ended { index, first, aborted });
    }

    /// Entries at or behind `from` are gone.
    pub fn truncate(&mut self, from: EntryIndex) {
        while self.ended.back().is_some_and(|e| e.index >= from) {
            self.ended.pop_back();
        }
    }

    /// Everything up to `commit` stays.
    pub fn committed(&mut self, commit: EntryIndex) {
        while let Some(ended) = self.ended.front().filter(|e| e.index <= commit) {
            self.aborted.extend(ended.aborted.filter(|_| !mutant!("aborted_range_lost")));
            self.ended.pop_front();
        }
    }

    /// Nobody reads below `log_start` any more.
    pub fn trim(&mut self, log_start: Offset) {
        while self.aborted.front().is_some_and(|a| a.last < log_start) {
            self.aborted.pop_front();
        }
    }

    /// First offset that a read_committed reader does not get.
    pub fn last_stable(&self, high_watermark: Offset) -> Offset {
        let open = self.open.keys().next().copied().filter(|_| !mutant!("lso_passes_open_txn"));
        let ended = self.ended.iter().map(|e| e.first).min();
        open.into_iter().chain(ended).fold(high_watermark, Offset::min)
    }

    /// Aborted transactions with a record in `from..upto`.
    pub fn aborted(&self, from: Offset, upto: Offset) -> impl Iterator<Item = &Aborted> {
        let skip = self.aborted.partition_point(|a| a.last < from);
        self.aborted.iter().skip(skip).filter(move |a| a.first < upto)
    }

    /// Those whose marker lies below `upto`, for a snapshot there.
    pub fn encode(&self, upto: Offset, out: &mut Vec<u8>) {
        self.aborted.iter().take_while(|a| a.last < upto).for_each(|a| a.encode(out));
    }
}
