//! What a sink is doing, readable from outside the worker: CLI, reports, metrics.

use crate::error::Failure;
use catchwater_base::Wall;
use catchwater_change::Native;
pub use catchwater_client::TaskState as State;
use catchwater_record::{CommitSeq, Offset, TopicId};
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
    /// Every transaction ≤ this is applied.
    pub seq: CommitSeq,
    /// Its place in the source, for people.
    pub position: Native,
    /// Its commit time in the source.
    pub commit_time: Wall,
    /// Age of the oldest change that is not applied; 0 = a cut proves there is none.
    pub lag_ms: u64,
    /// Source commit → sink commit of the newest group.
    pub latency_ms: u64,
    /// Bytes held in memory.
    pub bytes: usize,
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
            seq: CommitSeq(0),
            position: Native::default(),
            commit_time: Wall::default(),
            lag_ms: 0,
            latency_ms: 0,
            bytes: 0,
            last_error: None,
        }
    }
}

/// Cheap to clone; the worker writes, everybody reads.
#[derive(Clone, Debug, Default)]
pub struct StatusHandle {
    shared: Arc<Mutex<Status>>,
}

impl StatusHandle {
    pub fn new() -> Self {
        Self::default()
    }
    pub fn read(&self) -> Status {
        self.lock().clone()
    }
    pub(crate) fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock());
    }
    fn lock(&self) -> MutexGuard<'_, Status> {
        self.shared.lock().unwrap_or_else(|e| e.into_inner())
    }
}
