//! Pure. What compaction of the topics means to one session of a sink (docs/decisions/compacted-topics.md).
//!
//! ```text
//!  | records are missing          | nothing is missing …
//!  ^ read from here               ^ below      ^ whole_from: what replaced the missing ones lies below it
//!  ── what is written is held back ───────────▶| from here on each boundary is a state of the source again
//! ```
//! Invariant: a boundary is shown only if every partition that was read where records are missing was given out up to its
//! `whole_from`, as it was told with (or after) the bytes.

use catchwater_client::Thinned;
use catchwater_record::{Offset, TopicPartition};
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct Thin {
    parts: BTreeMap<TopicPartition, Part>,
}

#[derive(Clone, Copy, Default)]
struct Part {
    /// Boundaries are held back until all below it was given out.
    whole_from: Offset,
    /// Deletes below it were gone before reading began, and with them all rows that they speak of.
    gone: Offset,
}

/// Deletes of rows that this sink has read are not in the log any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Missed;

impl Thin {
    /// A partition will be read from `from` on; what lies below it is in the target.
    pub fn begin(&mut self, at: TopicPartition, from: Offset, told: &Thinned) -> Result<(), Missed> {
        if from > Offset::ZERO && from < told.deletes_gone {
            return Err(Missed);
        }
        self.parts.insert(at, Part { whole_from: Offset::ZERO, gone: told.deletes_gone });
        Ok(())
    }

    /// What was read from `from` on came with this.
    pub fn fetched(&mut self, at: TopicPartition, from: Offset, told: &Thinned) -> Result<(), Missed> {
        let part = self.parts.entry(at).or_default();
        if told.deletes_gone > part.gone && from < told.deletes_gone {
            return Err(Missed);
        }
        if from < told.below {
            part.whole_from = part.whole_from.max(told.whole_from);
        }
        Ok(())
    }

    /// Would a state shown now miss something? `given_out` = first offset of a partition that was not given out.
    pub fn holds(&self, given_out: impl Fn(TopicPartition) -> Option<Offset>) -> bool {
        self.parts.iter().any(|(at, part)| given_out(*at).is_some_and(|o| o < part.whole_from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use catchwater_record::TopicId;

    fn told(below: u64, whole_from: u64, deletes_gone: u64) -> Thinned {
        Thinned { below: Offset(below), whole_from: Offset(whole_from), deletes_gone: Offset(deletes_gone) }
    }

    #[test]
    fn what_was_read_thin_is_held_until_what_replaced_it_was_given_out() {
        let at = TopicPartition::new(TopicId([1; 16]), 0);
        let mut thin = Thin::default();
        assert_eq!(thin.begin(at, Offset(0), &told(0, 0, 0)), Ok(()));
        assert_eq!(thin.fetched(at, Offset(0), &told(0, 0, 0)), Ok(()));
        assert!(!thin.holds(|_| Some(Offset(5))));
        // Compaction runs while the sink reads.
        assert_eq!(thin.fetched(at, Offset(5), &told(40, 50, 0)), Ok(()));
        assert!(thin.holds(|_| Some(Offset(49))) && !thin.holds(|_| Some(Offset(50))));
        assert_eq!(thin.fetched(at, Offset(39), &told(40, 90, 0)), Ok(()));
        assert!(thin.holds(|_| Some(Offset(89))));
        // Above what was taken nothing is held any longer than before.
        assert_eq!(thin.fetched(at, Offset(90), &told(90, 120, 0)), Ok(()));
        assert!(!thin.holds(|_| Some(Offset(90))));
        assert!(!thin.holds(|_| None), "a partition that is not read holds nothing");
    }

    #[test]
    fn deletes_that_went_before_reading_began_took_their_rows_along() {
        let at = TopicPartition::new(TopicId([1; 16]), 0);
        let mut thin = Thin::default();
        assert_eq!(thin.begin(at, Offset(7), &told(40, 50, 30)), Err(Missed), "the target may hold what they delete");
        assert_eq!(thin.begin(at, Offset(30), &told(40, 50, 30)), Ok(()));
        assert_eq!(thin.begin(at, Offset(0), &told(40, 50, 30)), Ok(()));
        assert_eq!(thin.fetched(at, Offset(0), &told(40, 50, 30)), Ok(()));
        assert_eq!(thin.fetched(at, Offset(20), &told(60, 60, 35)), Err(Missed), "gone while it read");
        assert_eq!(thin.fetched(at, Offset(35), &told(60, 60, 35)), Ok(()), "all of them were read");
    }
}
