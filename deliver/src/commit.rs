//! Pure. What is durable at the sink, and when the mirror of it is due.
//!
//! Walk: row-change 16/17
//!
//! The position lives in the sink. The consumer group `catchwater.<pipeline>.<sink>` is a mirror for lag tools, written
//! at most once a second and never read back. Invariant: a durable mark never goes back within one open of the sink.

use crate::sink::{Mark, is_note};
use catchwater_base::Mono;
use catchwater_record::{GroupName, Offset, PipelineName, SinkName, TopicPartition};

/// Least time between two writes of the mirror.
pub const MIRROR_EVERY_MS: u64 = 1000;
/// Without rows for us, how often the position still moves in the sink: a restart then need not read all cuts again.
pub const IDLE_POSITION_EVERY_MS: u64 = 30_000;

pub struct Commit {
    durable: Option<Mark>,
    durable_at: Mono,
    /// Reached since, without rows of ours.
    reached: Option<Mark>,
    mirrored: Vec<(TopicPartition, Offset)>,
    mirror_at: Mono,
    /// Something moved since the mirror was looked at.
    moved: bool,
}

impl Commit {
    /// `found` = what the sink holds at its open.
    pub fn open(now: Mono, found: Option<Mark>) -> Self {
        Commit { durable: found, durable_at: now, reached: None, mirrored: Vec::new(), mirror_at: now, moved: true }
    }

    pub fn durable(&self) -> Option<&Mark> {
        self.durable.as_ref()
    }

    /// The sink has `mark` durable.
    pub fn handle_durable(&mut self, now: Mono, mark: Mark) {
        if let Some(before) = &self.durable {
            assert!(
                (mark.incarnation, mark.seq) >= (before.incarnation, before.seq),
                "a sink's position went back from {} to {}",
                before.seq,
                mark.seq
            );
        }
        self.durable = Some(mark);
        self.durable_at = now;
        self.reached = None;
        self.moved = true;
    }

    /// Everything up to `mark` was seen and none of it was for this sink.
    pub fn handle_reached(&mut self, mark: Mark) {
        self.reached = Some(mark);
        self.moved = true;
    }

    /// A position worth writing although there are no rows.
    pub fn poll_idle(&mut self, now: Mono) -> Option<Mark> {
        if now < self.durable_at.plus_millis(IDLE_POSITION_EVERY_MS) {
            return None;
        }
        self.durable_at = now;
        self.reached.take()
    }

    /// Offsets to write to the mirror now; those of `hidden` (internal topics) are left out.
    pub fn poll_mirror(&mut self, now: Mono, hidden: &[TopicPartition]) -> Option<Vec<(TopicPartition, Offset)>> {
        if !self.moved || now < self.mirror_at {
            return None;
        }
        self.moved = false;
        let newest = self.reached.as_ref().or(self.durable.as_ref())?;
        let offsets: Vec<_> =
            newest.offsets.iter().filter(|(at, _)| !hidden.contains(at) && !is_note(*at)).copied().collect();
        if offsets == self.mirrored {
            return None;
        }
        self.mirror_at = now.plus_millis(MIRROR_EVERY_MS);
        self.mirrored = offsets.clone();
        Some(offsets)
    }

    /// When `poll_mirror` or `poll_idle` should be asked again.
    pub fn deadline(&self) -> Mono {
        let idle = match self.reached {
            Some(_) => self.durable_at.plus_millis(IDLE_POSITION_EVERY_MS),
            None => Mono::NEVER,
        };
        idle.min(if self.moved { self.mirror_at } else { Mono::NEVER })
    }
}

/// Name of the mirror's group.
pub fn mirror_group(pipeline: &PipelineName, sink: &SinkName) -> GroupName {
    GroupName::from(format!("catchwater.{pipeline}.{sink}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use catchwater_base::Wall;
    use catchwater_change::Native;
    use catchwater_record::{CommitSeq, Incarnation, TopicId};

    fn mark(seq: u64, offset: u64) -> Mark {
        Mark {
            incarnation: Incarnation(0),
            seq: CommitSeq(seq),
            offsets: vec![
                (TopicPartition::new(TopicId([1; 16]), 0), Offset(offset)),
                (TopicPartition::new(TopicId([9; 16]), 3), Offset(77)),
            ],
            native: Native::sqlite(seq),
            commit_time: Wall::from_micros(0),
        }
    }

    #[test]
    fn the_mirror_is_written_once_a_second_and_only_when_it_moved() {
        let hidden = [TopicPartition::new(TopicId([9; 16]), 3)];
        let mut c = Commit::open(Mono::ZERO, None);
        assert_eq!(c.poll_mirror(Mono::from_millis(5), &hidden), None, "nothing durable yet");
        c.handle_durable(Mono::from_millis(5), mark(1, 10));
        let first = c.poll_mirror(Mono::from_millis(6), &hidden);
        assert_eq!(first, Some(vec![(TopicPartition::new(TopicId([1; 16]), 0), Offset(10))]));
        c.handle_durable(Mono::from_millis(7), mark(2, 11));
        assert_eq!(c.poll_mirror(Mono::from_millis(900), &hidden), None, "not yet due");
        assert!(c.poll_mirror(Mono::from_millis(1006), &hidden).is_some());
        assert_eq!(c.poll_mirror(Mono::from_millis(5000), &hidden), None, "it did not move");
    }

    #[test]
    fn a_position_without_rows_is_written_now_and_then() {
        let mut c = Commit::open(Mono::ZERO, Some(mark(1, 10)));
        c.handle_reached(mark(5, 10));
        assert_eq!(c.poll_idle(Mono::from_millis(10)), None);
        assert_eq!(c.poll_idle(Mono::from_millis(IDLE_POSITION_EVERY_MS)), Some(mark(5, 10)));
        assert_eq!(c.poll_idle(Mono::from_millis(3 * IDLE_POSITION_EVERY_MS)), None);
    }

    #[test]
    #[should_panic(expected = "went back")]
    fn a_durable_mark_that_goes_back_is_a_bug() {
        let mut c = Commit::open(Mono::ZERO, Some(mark(5, 10)));
        c.handle_durable(Mono::ZERO, mark(4, 9));
    }
}
