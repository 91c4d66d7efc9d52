//! Pure. The ladder: what happens after a failure.
//!
//! Environment and conflicts are tried again without end (back-off 100 ms doubling to 30 s, with jitter); a target that
//! is down is never a reason to give up or to leave a row out. A schema error describes the target again, once without
//! progress. A row that does not fit is tried again in source order, then stops. Config and bugs stop. A fence ends the
//! worker quietly. An unknown commit opens again and believes what the sink holds.

use crate::sink::{SinkClass, SinkError};
use catchwater_base::Rng;
use catchwater_base::backoff::Backoff;
use catchwater_record::CommitSeq;

const BASE_MS: u64 = 100;
const CAP_MS: u64 = 30_000;
/// Conflicts that are tried again at once before the back-off begins.
const CONFLICTS_AT_ONCE: u32 = 2;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// Open again and read the position, after this long.
    OpenAgain { after_ms: u64 },
    /// The same, with what is known of the target's tables forgotten.
    DescribeAgain { after_ms: u64 },
    /// The same, and rows up to this transaction one by one as the source wrote them.
    SourceOrder { upto: CommitSeq },
    /// A person must act.
    Stop,
    /// A newer owner works.
    EndQuietly,
}

/// Where a failure came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failed {
    pub class: SinkClass,
    /// Last transaction of the group that failed, if a group failed, and whether it was in source order already.
    pub group: Option<(CommitSeq, Ordered)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ordered {
    Folded,
    AsTheSource,
}

pub struct Retry {
    backoff: Backoff,
    rng: Rng,
    conflicts: u32,
    described: bool,
}

impl Retry {
    pub fn new(seed: u64) -> Self {
        Retry { backoff: Backoff::new(BASE_MS, CAP_MS), rng: Rng::new(seed), conflicts: 0, described: false }
    }

    /// A group became durable: the ladder starts from its first step.
    pub fn progress(&mut self) {
        self.backoff.reset();
        self.conflicts = 0;
        self.described = false;
    }

    pub fn attempts(&self) -> u32 {
        self.backoff.attempts()
    }

    pub fn decide(&mut self, failed: Failed) -> Next {
        match failed.class {
            SinkClass::Environment => Next::OpenAgain { after_ms: self.wait() },
            SinkClass::UnknownOutcome => {
                Next::OpenAgain { after_ms: if self.backoff.attempts() == 0 { self.first() } else { self.wait() } }
            }
            SinkClass::Conflict => {
                self.conflicts += 1;
                let after_ms = if self.conflicts <= CONFLICTS_AT_ONCE { 0 } else { self.wait() };
                Next::OpenAgain { after_ms }
            }
            SinkClass::Schema if self.described => Next::Stop,
            SinkClass::Schema => {
                self.described = true;
                Next::DescribeAgain { after_ms: 0 }
            }
            SinkClass::Row => match failed.group {
                Some((upto, Ordered::Folded)) => Next::SourceOrder { upto },
                _ => Next::Stop,
            },
            SinkClass::Config | SinkClass::Bug => Next::Stop,
            SinkClass::Fenced => Next::EndQuietly,
        }
    }

    /// Back-off for what is not the sink's failure (log or controller not ready).
    pub fn wait(&mut self) -> u64 {
        self.backoff.next_ms(&mut self.rng)
    }

    /// The first unknown outcome costs no wait, but counts.
    fn first(&mut self) -> u64 {
        self.wait();
        0
    }
}

impl Failed {
    pub fn outside(error: &SinkError) -> Self {
        Failed { class: error.class, group: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(class: SinkClass, ordered: Ordered) -> Failed {
        Failed { class, group: Some((CommitSeq(7), ordered)) }
    }
    fn plain(class: SinkClass) -> Failed {
        Failed { class, group: None }
    }

    #[test]
    fn environment_is_tried_without_end_and_never_above_the_cap() {
        let mut r = Retry::new(1);
        for _ in 0..500 {
            let Next::OpenAgain { after_ms } = r.decide(plain(SinkClass::Environment)) else { panic!() };
            assert!((50..=CAP_MS).contains(&after_ms));
        }
    }

    #[test]
    fn each_class_has_its_step() {
        let mut r = Retry::new(1);
        assert_eq!(r.decide(plain(SinkClass::Conflict)), Next::OpenAgain { after_ms: 0 });
        assert_eq!(r.decide(plain(SinkClass::Conflict)), Next::OpenAgain { after_ms: 0 });
        assert!(matches!(r.decide(plain(SinkClass::Conflict)), Next::OpenAgain { after_ms: 50.. }));
        assert_eq!(r.decide(plain(SinkClass::Schema)), Next::DescribeAgain { after_ms: 0 });
        assert_eq!(r.decide(plain(SinkClass::Schema)), Next::Stop);
        r.progress();
        assert_eq!(r.decide(plain(SinkClass::Schema)), Next::DescribeAgain { after_ms: 0 });
        assert_eq!(r.decide(group(SinkClass::Row, Ordered::Folded)), Next::SourceOrder { upto: CommitSeq(7) });
        assert_eq!(r.decide(group(SinkClass::Row, Ordered::AsTheSource)), Next::Stop);
        assert_eq!(r.decide(plain(SinkClass::Row)), Next::Stop);
        assert_eq!(r.decide(plain(SinkClass::Config)), Next::Stop);
        assert_eq!(r.decide(plain(SinkClass::Bug)), Next::Stop);
        assert_eq!(r.decide(plain(SinkClass::Fenced)), Next::EndQuietly);
        r.progress();
        assert_eq!(r.decide(plain(SinkClass::UnknownOutcome)), Next::OpenAgain { after_ms: 0 });
        assert!(matches!(r.decide(plain(SinkClass::UnknownOutcome)), Next::OpenAgain { after_ms: 1.. }));
    }
}
