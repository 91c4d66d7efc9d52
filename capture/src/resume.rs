//! Pure. Restart rules R3–R7 of capture.md 4.5: which number a transaction has that comes again, and the proof that the
//! same history is replayed.
//!
//! Numbers count on from the checkpoint. A transaction found in the log by its id must meet the number it has there; one
//! not found takes the next number that is neither in the log nor a chunk's. Everything else means that another history
//! sits below the same position. *Replay is verified, not assumed.*

use catchwater_base::mutant;
use catchwater_change::Native;
use catchwater_record::{CommitSeq, TxnId};
use std::collections::{BTreeMap, BTreeSet};

/// What the log holds above the checkpoint.
#[derive(Debug, Default)]
pub struct Found {
    /// Native is none where only records before the last of a large transaction were written.
    pub units: BTreeMap<CommitSeq, (TxnId, Option<Native>)>,
    /// Numbers of snapshot units: from CHUNK records and from the stamps of their rows.
    pub chunks: BTreeSet<CommitSeq>,
}

/// Gives out commit sequences.
#[derive(Debug)]
pub struct Resume {
    next: CommitSeq,
    /// Up to here the source was confirmed to be in the log: transactions at or below are dropped.
    from: Native,
    found: Found,
    ids: BTreeMap<TxnId, CommitSeq>,
}

/// Another history than the log's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HistoryError {
    #[error("transaction {got:?} came where the log has {have:?} as number {seq}")]
    Other { seq: CommitSeq, have: TxnId, got: TxnId },
    #[error("transaction {id:?} is number {seq} in the log and came too early, as number {got}")]
    Early { id: TxnId, seq: CommitSeq, got: CommitSeq },
    #[error("transaction number {seq} ends at {have} in the log and at {got} in the source")]
    Native { seq: CommitSeq, have: Native, got: Native },
}

impl Resume {
    /// Goes on after a checkpoint.
    pub fn new(checkpoint: CommitSeq, from: Native, mut found: Found) -> Self {
        found.units.retain(|seq, _| *seq > checkpoint);
        found.chunks.retain(|seq| *seq > checkpoint);
        for seq in &found.chunks {
            found.units.remove(seq);
        }
        let ids = found.units.iter().map(|(seq, (id, _))| (id.clone(), *seq)).collect();
        Resume { next: CommitSeq(checkpoint.0 + 1), from, found, ids }
    }

    /// False for a transaction at or below the position the source was opened after: it is in the log.
    pub fn is_new(&self, native: &Native) -> bool {
        if mutant!("resume_compares_less_than") { *native >= self.from } else { *native > self.from }
    }

    /// Everything the log held when this worker began has come again.
    pub fn is_caught_up(&self) -> bool {
        self.found.units.is_empty()
    }

    /// The number of a transaction that leaves at least one record.
    pub fn assign(&mut self, id: &TxnId) -> Result<CommitSeq, HistoryError> {
        self.skip_chunks();
        let seq = self.next;
        match self.found.units.get(&seq) {
            Some((have, _)) if have == id => {}
            Some((have, _)) => return Err(HistoryError::Other { seq, have: have.clone(), got: id.clone() }),
            None => {
                if let Some(known) = self.ids.get(id) {
                    return Err(HistoryError::Early { id: id.clone(), seq: *known, got: seq });
                }
            }
        }
        self.next = CommitSeq(seq.0 + 1);
        Ok(seq)
    }

    /// The transaction `seq` has ended at `native`: does the log say so, too?
    pub fn ended(&mut self, seq: CommitSeq, native: &Native) -> Result<(), HistoryError> {
        let Some((id, have)) = self.found.units.remove(&seq) else { return Ok(()) };
        self.ids.remove(&id);
        match have {
            Some(have) if have != *native => Err(HistoryError::Native { seq, have, got: native.clone() }),
            _ => Ok(()),
        }
    }

    /// A number for a new snapshot unit. Only when caught up: its place in the stream is new.
    pub fn assign_chunk(&mut self) -> CommitSeq {
        debug_assert!(self.is_caught_up(), "a chunk is placed behind what is replayed");
        self.skip_chunks();
        let seq = self.next;
        self.next = CommitSeq(seq.0 + 1);
        seq
    }

    /// Highest number that is in the log or a chunk's.
    pub fn highest(&self) -> CommitSeq {
        let below = CommitSeq(self.next.0 - 1);
        let unit = self.found.units.keys().next_back().copied();
        let chunk = self.found.chunks.iter().next_back().copied();
        below.max(unit.unwrap_or_default()).max(chunk.unwrap_or_default())
    }

    /// Caught up: passes over the numbers of chunks that were given up, which stay holes. The last number that was given.
    pub fn pass_holes(&mut self) -> CommitSeq {
        if self.is_caught_up() {
            self.skip_chunks();
        }
        CommitSeq(self.next.0 - 1)
    }

    fn skip_chunks(&mut self) {
        while self.found.chunks.remove(&self.next) {
            self.next = CommitSeq(self.next.0 + 1);
        }
    }

    pub fn next(&self) -> CommitSeq {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(t: &str) -> TxnId {
        TxnId(bytes::Bytes::copy_from_slice(t.as_bytes()))
    }
    fn found(units: &[(u64, &str)], chunks: &[u64]) -> Found {
        Found {
            units: units.iter().map(|(n, t)| (CommitSeq(*n), (id(t), Some(Native::postgres(*n))))).collect(),
            chunks: chunks.iter().map(|n| CommitSeq(*n)).collect(),
        }
    }
    fn resume(units: &[(u64, &str)], chunks: &[u64]) -> Resume {
        Resume::new(CommitSeq(4), Native::postgres(4), found(units, chunks))
    }

    #[test]
    fn known_transactions_meet_their_numbers_and_lost_ones_take_the_free_ones() {
        let mut r = resume(&[(5, "a"), (8, "d")], &[7]);
        assert_eq!(r.assign(&id("a")), Ok(CommitSeq(5)));
        assert_eq!(r.ended(CommitSeq(5), &Native::postgres(5)), Ok(()));
        // Number 6 was in flight and never entered.
        assert_eq!(r.assign(&id("c")), Ok(CommitSeq(6)));
        assert_eq!(r.ended(CommitSeq(6), &Native::postgres(6)), Ok(()));
        assert!(!r.is_caught_up());
        assert_eq!(r.assign(&id("d")), Ok(CommitSeq(8)));
        assert_eq!(r.ended(CommitSeq(8), &Native::postgres(8)), Ok(()));
        assert!(r.is_caught_up());
        assert_eq!(r.assign_chunk(), CommitSeq(9));
    }

    #[test]
    fn another_history_is_refused() {
        let mut r = resume(&[(5, "a"), (6, "b")], &[]);
        assert_eq!(r.assign(&id("x")), Err(HistoryError::Other { seq: CommitSeq(5), have: id("a"), got: id("x") }));
        let mut r = resume(&[(6, "b")], &[]);
        assert_eq!(r.assign(&id("b")), Err(HistoryError::Early { id: id("b"), seq: CommitSeq(6), got: CommitSeq(5) }));
        let mut r = resume(&[(5, "a")], &[]);
        assert_eq!(r.assign(&id("a")), Ok(CommitSeq(5)));
        assert!(matches!(r.ended(CommitSeq(5), &Native::postgres(99)), Err(HistoryError::Native { .. })));
    }

    #[test]
    fn what_the_checkpoint_covers_is_dropped() {
        let r = resume(&[], &[]);
        assert!(!r.is_new(&Native::postgres(3)));
        assert!(!r.is_new(&Native::postgres(4)));
        assert!(r.is_new(&Native::postgres(5)));
    }
}
