//! What a sink is doing, readable from outside the worker: CLI, reports, metrics.

use crate::error::Failure;
use crate::lag::{Stages, Way};
use catchwater_base::Wall;
use catchwater_base::metric::Histogram;
use catchwater_change::Native;
pub use catchwater_client::TaskState as State;
use catchwater_record::{CommitSeq, Offset, TopicId, TopicPartition};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

#[derive(Clone, Debug)]
pub struct Status {
    pub state: State,
    /// Row changes applied and durable at the sink since the worker began, folded ones included.
    pub rows: u64,
    /// Of these, merged into another write of the same key.
    pub folded: u64,
    /// Row changes that became dead letters: refused by the target, or behind a refused one of their key.
    pub parked: u64,
    /// Row changes that the mode leaves out. Every row taken from the log is one of `rows`, `parked`, `filtered`.
    pub filtered: u64,
    /// Row changes taken from the log, of groups that are durable.
    pub taken: u64,
    /// Keys whose rows become dead letters.
    pub parked_keys: u64,
    /// Dead letters that were applied after all.
    pub replayed: u64,
    /// Dead letters of tables without a key are settled below this offset of their topic.
    pub letters_settled: Option<(TopicId, Offset)>,
    /// Sink transactions committed.
    pub groups: u64,
    /// Times that groups in several lanes met after all, and were run again one by one.
    pub reorders: u64,
    /// Records of subscribed topics without a stamp: not of the source, passed over.
    pub foreign: u64,
    /// Per target table.
    pub tables: BTreeMap<String, u64>,
    /// The same by kind of operation ([`crate::sink::operation`]).
    pub operations: BTreeMap<(String, &'static str), u64>,
    /// Share of the lanes that held rows, in the newest window of [`crate::busy`]; `None` = there was none yet.
    pub lanes_busy: Option<f64>,
    /// Every transaction ≤ this is applied.
    pub seq: CommitSeq,
    /// Its place in the source, for people.
    pub position: Native,
    /// Its commit time in the source.
    pub commit_time: Wall,
    /// Age that the newest group had when it became visible; 0 = a cut proves that nothing waits. While a change waits,
    /// [`Status::oldest`] says more.
    pub lag_ms: u64,
    /// Source commit → sink commit of the newest group.
    pub latency_ms: u64,
    /// The same by stages: of the newest change of the newest group.
    pub stages: Stages,
    /// The oldest change that the worker has seen in the log and that is not durable at the target. Stays while it tries
    /// again.
    pub oldest: Option<Way>,
    /// What the target holds durably, as far as this worker knows: below these offsets everything is applied.
    pub durable: Option<Arc<[(TopicPartition, Offset)]>>,
    /// Bytes held in memory.
    pub bytes: usize,
    /// Sessions that ended on a failure which is tried again, per class.
    pub retries: BTreeMap<&'static str, u64>,
    /// Rebuilds that were asked for and have begun, that are through, and why the newest was given up.
    pub rebuilds: (u64, u64),
    pub rebuild_failed: Option<Failure>,
    /// Steps of DDL done at the target.
    pub schema_changes: u64,
    /// Kept while retrying or stopped; gone when work goes on.
    pub last_error: Option<Failure>,
}

impl Default for Status {
    fn default() -> Self {
        Status {
            state: State::Starting,
            rows: 0,
            folded: 0,
            parked: 0,
            filtered: 0,
            taken: 0,
            parked_keys: 0,
            replayed: 0,
            letters_settled: None,
            groups: 0,
            reorders: 0,
            foreign: 0,
            tables: BTreeMap::new(),
            operations: BTreeMap::new(),
            lanes_busy: None,
            seq: CommitSeq(0),
            position: Native::default(),
            commit_time: Wall::default(),
            lag_ms: 0,
            latency_ms: 0,
            stages: [0; 4],
            oldest: None,
            durable: None,
            bytes: 0,
            retries: BTreeMap::new(),
            rebuilds: (0, 0),
            rebuild_failed: None,
            schema_changes: 0,
            last_error: None,
        }
    }
}

impl Status {
    /// The lag by stages at `now`: of the oldest change that waits, else that of the newest group (all zero = a cut proves
    /// that nothing waits).
    pub fn lag(&self, now: Wall) -> Stages {
        match self.oldest {
            Some(way) => way.stages(now),
            None if self.lag_ms == 0 => [0; 4],
            None => self.stages,
        }
    }
}

impl Status {
    /// `oldest` waits; everything up to `done` does not. A new session has not read yet what the one before it could not
    /// apply, and reads again what was read first by that one.
    pub(crate) fn waits(&mut self, oldest: Option<Way>, done: CommitSeq) {
        let before = self.oldest.filter(|way| way.seq > self.seq.max(done));
        // A rebuild reads what the target has.
        let oldest = oldest.filter(|way| way.seq > self.seq);
        self.oldest = match (oldest, before) {
            (Some(new), Some(old)) if new.seq == old.seq => Some(Way { read: old.read.or(new.read), ..new }),
            (new, old) => new.or(old),
        };
    }
}

/// How long the target takes, and what it gets at once.
#[derive(Debug, Default)]
pub struct Timings {
    /// Microseconds of a write.
    pub write: Histogram,
    /// Microseconds of a commit.
    pub commit: Histogram,
    /// Row changes of a sink transaction, as a number.
    pub rows: Histogram,
}

/// Cheap to clone; the worker writes, everybody reads.
#[derive(Clone, Debug, Default)]
pub struct StatusHandle {
    shared: Arc<Mutex<Status>>,
    timings: Arc<Timings>,
}

impl StatusHandle {
    pub fn new() -> Self {
        Self::default()
    }
    pub fn read(&self) -> Status {
        self.lock().clone()
    }
    pub fn timings(&self) -> &Arc<Timings> {
        &self.timings
    }
    pub(crate) fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock());
    }
    fn lock(&self) -> MutexGuard<'_, Status> {
        self.shared.lock().unwrap_or_else(|e| e.into_inner())
    }
}
