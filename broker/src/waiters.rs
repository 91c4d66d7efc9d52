//! Pure. Who waits for which entry: acks=1 until it is durable here, acks=all until it is committed. Walk: produce-fetch 9/14.
//!
//! Keyed by (index, term): when the commit reaches the index, the entry there must still be of that term; another one
//! means that leadership was lost in between and the batch is not the one that was committed. `W` is whatever the shell
//! answers through; this file never looks at it.

use catchwater_record::{EntryIndex, LeaderEpoch};
use std::collections::BTreeMap;

#[derive(Debug)]
pub struct Waiters<W> {
    waiting: BTreeMap<(EntryIndex, u64), (LeaderEpoch, W)>,
    /// Makes keys of one index distinct, in the order of arrival.
    arrivals: u64,
}

impl<W> Default for Waiters<W> {
    fn default() -> Self {
        Waiters { waiting: BTreeMap::new(), arrivals: 0 }
    }
}

impl<W> Waiters<W> {
    pub fn add(&mut self, index: EntryIndex, term: LeaderEpoch, waiter: W) {
        self.arrivals += 1;
        self.waiting.insert((index, self.arrivals), (term, waiter));
    }

    /// Everyone waiting up to `upto`, in order; `true` = the entry at their index is of their term.
    pub fn reached(&mut self, upto: EntryIndex, term_at: impl Fn(EntryIndex) -> Option<LeaderEpoch>) -> Vec<(W, bool)> {
        let mut out = Vec::new();
        while let Some(first) = self.waiting.first_entry() {
            if first.key().0 > upto {
                break;
            }
            let ((index, _), (term, waiter)) = first.remove_entry();
            out.push((waiter, term_at(index) == Some(term)));
        }
        out
    }

    /// Everyone: leadership is lost or the partition is gone, nothing more will be reached.
    pub fn fail_all(&mut self) -> Vec<W> {
        std::mem::take(&mut self.waiting).into_values().map(|(_, w)| w).collect()
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiters_are_released_in_order_and_only_up_to_the_index() {
        let mut waiters = Waiters::default();
        for (index, name) in [(5, "b"), (3, "a"), (5, "c"), (6, "d")] {
            waiters.add(EntryIndex(index), LeaderEpoch(1), name);
        }
        assert_eq!(waiters.reached(EntryIndex(2), |_| Some(LeaderEpoch(1))), vec![]);
        let reached = waiters.reached(EntryIndex(5), |_| Some(LeaderEpoch(1)));
        assert_eq!(reached, vec![("a", true), ("b", true), ("c", true)]);
        assert_eq!(waiters.fail_all(), vec!["d"]);
        assert!(waiters.is_empty());
    }

    #[test]
    fn another_term_at_the_index_is_not_success() {
        let mut waiters = Waiters::default();
        waiters.add(EntryIndex(7), LeaderEpoch(2), ());
        assert_eq!(waiters.reached(EntryIndex(9), |_| Some(LeaderEpoch(3))), vec![((), false)]);
        waiters.add(EntryIndex(8), LeaderEpoch(2), ());
        assert_eq!(waiters.reached(EntryIndex(9), |_| None), vec![((), false)]);
    }
}
