//! Pure. What may be told of as durable: the longest prefix of commit sequences that every partition has acknowledged.
//!
//! Walk: row-change 8/17
//!
//! A batch is *open* from its first record until its answer; a unit (transaction or chunk) is *completed* when all its
//! records are in batches. `durable()` = the last completed unit below the lowest open batch. A cut, a checkpoint and a
//! confirmation never say more than this. Invariants: it never goes back; units complete in ascending order.

use catchwater_base::Wall;
use catchwater_change::Native;
use catchwater_record::CommitSeq;
use std::collections::{BTreeSet, VecDeque};

/// Names one batch of one worker.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct BatchId(pub u64);

/// A place up to which something holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    pub seq: CommitSeq,
    pub native: Native,
    pub commit_time: Wall,
}

#[derive(Debug)]
pub struct Track {
    durable: Mark,
    completed: VecDeque<Mark>,
    open: BTreeSet<(CommitSeq, BatchId)>,
    /// The newest unit that has a record in a batch.
    begun: CommitSeq,
}

impl Track {
    /// Begins at a checkpoint.
    pub fn new(at: Mark) -> Self {
        let begun = at.seq;
        Track { durable: at, completed: VecDeque::new(), open: BTreeSet::new(), begun }
    }

    /// A batch got its first record, of unit `first`.
    pub fn opened(&mut self, batch: BatchId, first: CommitSeq) {
        assert!(first > self.durable.seq, "a batch of a unit that was called durable");
        assert!(self.open.insert((first, batch)), "a batch opens once");
        self.begun = self.begun.max(first);
    }

    /// A batch is committed in its partition.
    pub fn acked(&mut self, batch: BatchId, first: CommitSeq) {
        assert!(self.open.remove(&(first, batch)), "an answer for a batch that is open");
        self.advance();
    }

    /// All records of the unit are in batches.
    pub fn completed(&mut self, unit: Mark) {
        let last = self.completed.back().map_or(self.durable.seq, |m| m.seq);
        assert!(unit.seq >= last, "units complete in ascending order");
        self.completed.push_back(unit);
        self.advance();
    }

    /// The source says that nothing happened up to `native`.
    pub fn idle(&mut self, native: Native) {
        let last = self.completed.back_mut();
        match last {
            Some(mark) if native > mark.native => mark.native = native,
            None if native > self.durable.native => self.durable.native = native,
            _ => {}
        }
    }

    /// Numbers up to `seq` are holes, or are covered already.
    pub fn passed(&mut self, seq: CommitSeq) {
        let last = self.completed.back_mut().unwrap_or(&mut self.durable);
        last.seq = last.seq.max(seq);
    }

    fn advance(&mut self) {
        let below = self.open.first().map(|(seq, _)| *seq);
        while let Some(next) = self.completed.front() {
            if below.is_some_and(|b| next.seq >= b) {
                break;
            }
            if let Some(mark) = self.completed.pop_front() {
                self.durable = mark;
            }
        }
    }

    pub fn durable(&self) -> &Mark {
        &self.durable
    }
    /// Nothing waits for an answer.
    pub fn is_quiet(&self) -> bool {
        self.open.is_empty() && self.completed.is_empty()
    }
    /// A unit has records in batches, and is not durable as a whole: also while all of those batches are acknowledged and more of
    /// its rows come.
    pub fn is_inside(&self) -> bool {
        self.begun > self.durable.seq
    }
    /// A completed unit waits for answers: `durable` will move without more being read.
    pub fn will_move(&self) -> bool {
        !self.completed.is_empty()
    }
    pub fn open_batches(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use catchwater_base::Rng;

    fn mark(seq: u64) -> Mark {
        Mark { seq: CommitSeq(seq), native: Native::postgres(seq * 10), commit_time: Wall::from_micros(0) }
    }

    #[test]
    fn a_late_answer_holds_everything_behind_it() {
        let mut t = Track::new(mark(0));
        t.opened(BatchId(1), CommitSeq(1));
        t.opened(BatchId(2), CommitSeq(1));
        t.completed(mark(1));
        t.completed(mark(2));
        t.acked(BatchId(2), CommitSeq(1));
        assert_eq!(t.durable().seq, CommitSeq(0));
        t.acked(BatchId(1), CommitSeq(1));
        assert_eq!(t.durable(), &mark(2));
        assert!(t.is_quiet());
    }

    #[test]
    fn a_large_unit_is_behind_until_its_end_though_all_its_batches_so_far_are_acknowledged() {
        let mut t = Track::new(mark(0));
        t.opened(BatchId(1), CommitSeq(1));
        t.acked(BatchId(1), CommitSeq(1));
        assert!(t.is_quiet() && t.is_inside());
        t.opened(BatchId(2), CommitSeq(1));
        t.completed(mark(1));
        assert!(t.is_inside());
        t.acked(BatchId(2), CommitSeq(1));
        assert!(!t.is_inside());
        // A chunk that is given up leaves a hole.
        t.opened(BatchId(3), CommitSeq(2));
        t.acked(BatchId(3), CommitSeq(2));
        t.passed(CommitSeq(2));
        assert!(!t.is_inside());
    }

    #[test]
    fn idle_moves_the_native_only_behind_what_is_acknowledged() {
        let mut t = Track::new(mark(0));
        t.idle(Native::postgres(5));
        assert_eq!(t.durable().native, Native::postgres(5));
        t.opened(BatchId(1), CommitSeq(1));
        t.completed(mark(1));
        t.idle(Native::postgres(99));
        assert_eq!(t.durable().native, Native::postgres(5));
        t.acked(BatchId(1), CommitSeq(1));
        assert_eq!(t.durable().native, Native::postgres(99));
    }

    /// Against the sentence itself: durable = the largest completed unit all whose batches, and all of smaller units,
    /// are acknowledged.
    #[test]
    fn random_answers_against_the_definition() {
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let mut t = Track::new(mark(0));
            let mut open: Vec<(BatchId, u64)> = Vec::new();
            let (mut next, mut batch) = (1u64, 0u64);
            for _ in 0..200 {
                if rng.below(2) == 0 {
                    for _ in 0..rng.below(3) {
                        batch += 1;
                        t.opened(BatchId(batch), CommitSeq(next));
                        open.push((BatchId(batch), next));
                    }
                    t.completed(mark(next));
                    next += 1;
                } else if !open.is_empty() {
                    let at = rng.below(open.len() as u64) as usize;
                    let (id, first) = open.swap_remove(at);
                    t.acked(id, CommitSeq(first));
                }
                let lowest = open.iter().map(|(_, f)| *f).min().unwrap_or(next);
                assert_eq!(t.durable().seq, CommitSeq(lowest - 1), "seed {seed}");
            }
        }
    }
}
