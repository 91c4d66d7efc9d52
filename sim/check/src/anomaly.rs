//! Pure. What can be wrong with a history, and how it is told.

use std::collections::BTreeMap;
use std::fmt;

/// Sorts of anomalies. None is ever allowed but where its line says so.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Kind {
    /// One offset holds two values, over all sends and polls.
    InconsistentOffset,
    /// A value nobody sent.
    Phantom,
    /// Another body under the id of a value.
    Corrupted,
    /// An acknowledged send in a range somebody read, and he did not see it.
    LostWrite,
    /// An acknowledged send that the final read does not give.
    Unseen,
    /// One value at two offsets (idempotent producers; others may).
    Duplicate,
    /// Values of one idempotent producer and partition not in the order of sending.
    Order,
    /// An offset inside a range somebody read holds nothing (not where transactions or compaction leave such).
    Hole,
    /// A consumer went on beyond records it had not seen, without a seek.
    PollSkip,
    /// Records of a poll not in order of offsets or outside of what was asked; a consumer went back without a seek.
    NonmonotonicPoll,
    /// A record was read and is no longer there.
    Vanished,
    /// A client asked for the end after a send was acknowledged, and the end was below it.
    Stale,
    /// High watermark, last stable offset or log start went back for one observer.
    WatermarkBack,
    /// Not log start ≤ last stable offset ≤ high watermark.
    WatermarkOrder,
    /// The log start rose beyond what anybody was allowed to trim.
    LogStartJump,
    /// A failed or aborted send was visible to a reader of committed records; a failed one to any.
    AbortedRead,
    /// A reader of committed records saw a send before its transaction was ended.
    PrecommittedRead,
    /// A committed transaction of which the final read gives a part.
    TornTransaction,
    /// A group's position is older than one whose commit was acknowledged before it was asked for.
    CommitBack,
    /// A group's position that nobody committed.
    CommitPhantom,
    /// The last value of a key is missing from a compacted partition.
    CompactionLost,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::InconsistentOffset => "inconsistent-offset",
            Kind::Phantom => "phantom",
            Kind::Corrupted => "corrupted",
            Kind::LostWrite => "lost-write",
            Kind::Unseen => "unseen",
            Kind::Duplicate => "duplicate",
            Kind::Order => "order",
            Kind::Hole => "hole",
            Kind::PollSkip => "poll-skip",
            Kind::NonmonotonicPoll => "nonmonotonic-poll",
            Kind::Vanished => "vanished",
            Kind::Stale => "stale",
            Kind::WatermarkBack => "watermark-back",
            Kind::WatermarkOrder => "watermark-order",
            Kind::LogStartJump => "log-start-jump",
            Kind::AbortedRead => "aborted-read",
            Kind::PrecommittedRead => "precommitted-read",
            Kind::TornTransaction => "torn-transaction",
            Kind::CommitBack => "commit-back",
            Kind::CommitPhantom => "commit-phantom",
            Kind::CompactionLost => "compaction-lost",
        })
    }
}

/// One finding; `text` names the values, offsets and lines it rests on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Anomaly {
    pub kind: Kind,
    pub text: String,
}

/// At most so many of one kind are kept; all are counted.
const KEPT_OF_A_KIND: u64 = 20;

/// What was checked and what was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    pub ops: u64,
    pub sends: u64,
    pub acked: u64,
    pub polled: u64,
    pub faults: u64,
    pub partitions: u64,
    pub counts: BTreeMap<Kind, u64>,
    pub anomalies: Vec<Anomaly>,
    /// Longest time between an acknowledgement and the first poll that gave the record, microseconds.
    pub worst_lag: u64,
}

impl Report {
    pub(crate) fn add(&mut self, kind: Kind, text: impl FnOnce() -> String) {
        let n = self.counts.entry(kind).or_default();
        *n += 1;
        if *n <= KEPT_OF_A_KIND {
            self.anomalies.push(Anomaly { kind, text: text() });
        }
    }
    pub fn clean(&self) -> bool {
        self.counts.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for a in &self.anomalies {
            writeln!(f, "{}: {}", a.kind, a.text)?;
        }
        for (kind, n) in &self.counts {
            writeln!(f, "{n} x {kind}")?;
        }
        write!(
            f,
            "{} operations on {} partitions: {} sends ({} acknowledged), {} records polled, {} faults, worst lag {} ms, {} anomalies",
            self.ops,
            self.partitions,
            self.sends,
            self.acked,
            self.polled,
            self.faults,
            self.worst_lag / 1000,
            self.counts.values().sum::<u64>()
        )
    }
}
