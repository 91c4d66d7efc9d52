//! What a capture tells of itself while it runs; read by the CLI, the admin interface and the task report.

use crate::source::Identity;
use catchwater_base::Wall;
use catchwater_change::Native;
use catchwater_record::{CommitSeq, ErrorCode};
use std::sync::{Arc, Mutex};

/// Where the work stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum State {
    #[default]
    Starting,
    Snapshot,
    Streaming,
    /// Waits before it tries again; `last_error` says why.
    Retrying,
    /// A person must act.
    NeedsPerson,
    Stopped,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Status {
    pub state: State,
    /// Changes appended since this worker began, snapshot rows included.
    pub rows: u64,
    pub snapshot_rows: u64,
    pub snapshot_units_done: u64,
    pub snapshot_units: u64,
    /// Newest number that is durable in every partition.
    pub commit_seq: CommitSeq,
    /// Its place in the source.
    pub native: Native,
    pub commit_time: Wall,
    /// What the source was told it may forget.
    pub confirmed: Native,
    /// Now minus the commit time of the newest durable transaction, 0 when everything read is durable; milliseconds.
    pub lag_ms: i64,
    /// Bytes the source keeps for us.
    pub lag_bytes: Option<u64>,
    pub restarts: u64,
    /// Transactions that were in the log already when they came again.
    pub replayed: u64,
    pub last_error: Option<(ErrorCode, String)>,
    /// The source's newest identity in the log, and whether the source was opened: proves what in it is ours.
    pub identity: Option<(Identity, bool)>,
}

/// Read side; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct StatusHandle(Arc<Mutex<Status>>);

impl StatusHandle {
    pub fn get(&self) -> Status {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }
    pub(crate) fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.0.lock().unwrap_or_else(|e| e.into_inner()));
    }
}
