//! Pure. The way of a change from its commit at the source until it is visible at the target, in five moments, and how
//! long each stage between them took.
//!
//! ```text
//!  committed ──capture──► captured ──log──► read ──apply──► applied ──commit──► visible
//!  (source)               (the log's record) (by the sink)  (written, not yet    (target
//!                                                            visible)             transaction is durable)
//! ```
//! Invariant: the stages of a way sum up to its lag, also where the clocks of two machines disagree: a moment that lies
//! before the one ahead of it counts as the same.

use catchwater_base::Wall;
use catchwater_record::CommitSeq;

/// The stages, in the order of the way.
pub const STAGES: [&str; 4] = ["capture", "log", "apply", "commit"];

/// How long each of [`STAGES`] took, microseconds.
pub type Stages = [u64; 4];

/// Where one change is on its way; what has not happened yet is `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Way {
    pub seq: CommitSeq,
    /// By the clock of the source.
    pub committed: Wall,
    /// When the capture made the record of it, to the millisecond.
    pub captured: Wall,
    /// When the sink's fetch came back with it.
    pub read: Option<Wall>,
    /// When the target had taken it into an open transaction.
    pub applied: Option<Wall>,
}

impl Way {
    /// The stages up to `until`: the moment it became visible, or now, while it has not. The stage it is in grows.
    pub fn stages(&self, until: Wall) -> Stages {
        let (mut out, mut at) = ([0; 4], self.committed.as_micros());
        let end = until.as_micros().max(at);
        let moments = [Some(self.captured), self.read, self.applied];
        for (stage, moment) in out.iter_mut().zip(moments.iter().chain([&None])) {
            let to = moment.map_or(end, |m| m.as_micros().clamp(at, end));
            *stage = (to - at).unsigned_abs();
            at = to;
        }
        out
    }

    /// Age at `now`, microseconds.
    pub fn lag_us(&self, now: Wall) -> u64 {
        (now.as_micros() - self.committed.as_micros()).max(0).unsigned_abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(captured: i64, read: Option<i64>, applied: Option<i64>) -> Way {
        let wall = Wall::from_micros;
        Way {
            seq: CommitSeq(1),
            committed: wall(1000),
            captured: wall(captured),
            read: read.map(wall),
            applied: applied.map(wall),
        }
    }

    #[test]
    fn the_stages_sum_up_to_the_lag_and_the_one_it_is_in_grows() {
        let all = [
            (way(1010, Some(1030), Some(1070)), [10, 20, 40, 30]),
            (way(1010, Some(1030), None), [10, 20, 70, 0]),
            (way(1010, None, None), [10, 90, 0, 0]),
            // A source whose clock is ahead, and one whose commit lies in our future.
            (way(900, Some(950), Some(1040)), [0, 0, 40, 60]),
            (way(1200, Some(1300), Some(1400)), [100, 0, 0, 0]),
        ];
        for (way, want) in all {
            let got = way.stages(Wall::from_micros(1100));
            assert_eq!(got, want, "{way:?}");
            assert_eq!(got.iter().sum::<u64>(), way.lag_us(Wall::from_micros(1100)), "{way:?}");
        }
        assert_eq!(way(1010, Some(1030), None).stages(Wall::from_micros(5000)), [10, 20, 3970, 0]);
        assert_eq!(way(1010, None, None).stages(Wall::from_micros(500)), [0, 0, 0, 0]);
    }
}
