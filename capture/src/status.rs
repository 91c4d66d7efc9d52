//! What a capture tells of itself while it runs; read by the CLI, the admin interface and the task report.

use crate::signal::{Signal, SignalError};
use crate::source::{Identity, SlotState};
use catchwater_base::Wall;
use catchwater_change::Native;
use catchwater_record::{CommitSeq, ErrorCode};
use catchwater_runtime::sync::{Notify, oneshot};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Signals that wait for the worker.
const ASKED_MAX: usize = 64;
/// Why a signal is not taken now; later it may be.
pub const TOO_MANY: &str = "too many signals wait already";

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
    /// Everything that was to be read is in the log, and nothing follows.
    Complete,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Status {
    pub state: State,
    /// Changes appended since this worker began, snapshot rows included.
    pub rows: u64,
    pub snapshot_rows: u64,
    pub snapshot_units_done: u64,
    pub snapshot_units: u64,
    /// The same by table (`schema.table`), of the snapshot that runs or ran in this worker.
    pub snapshot_tables: BTreeMap<String, TableProgress>,
    /// Newest number that is durable in every partition.
    pub commit_seq: CommitSeq,
    /// Its place in the source.
    pub native: Native,
    pub commit_time: Wall,
    /// What the source was told it may forget.
    pub confirmed: Native,
    /// Now minus the commit time of the newest durable transaction, 0 when everything read is durable; milliseconds.
    pub lag_ms: i64,
    /// Since when, at least, the server holds something that has not come.
    pub behind_since: Option<Wall>,
    /// Bytes the source keeps for us.
    pub lag_bytes: Option<u64>,
    pub slot: Option<SlotState>,
    pub restarts: u64,
    /// Transactions that were in the log already when they came again.
    pub replayed: u64,
    pub last_error: Option<(ErrorCode, String)>,
    /// The source's newest identity in the log, and whether the source was opened: proves what in it is ours.
    pub identity: Option<(Identity, bool)>,
    /// Ad hoc snapshots that are not at their end, oldest first.
    pub ad_hoc: Vec<AdHoc>,
    /// Chunks of ad hoc snapshots that were placed since this worker began.
    pub ad_hoc_chunks: u64,
    /// Signals that were not followed, and ad hoc snapshots that were given up, since this worker began; the newest says why.
    pub signals_refused: u64,
    pub last_refusal: Option<String>,
}

/// Where the snapshot of one table stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TableProgress {
    pub rows: u64,
    /// Rows the table may have; 0 = not known.
    pub rows_estimate: u64,
    pub units_done: u64,
    pub units: u64,
}

/// Where an ad hoc snapshot of one table stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdHoc {
    /// `schema.table`.
    pub table: String,
    /// One of `waiting`, `running`, `paused`.
    pub state: &'static str,
    /// Rows and chunks that were read, since it was asked for and since this worker began.
    pub rows: u64,
    pub chunks: u64,
    /// Rows the table may have; 0 = not known.
    pub rows_estimate: u64,
    /// Milliseconds to its end at the pace so far.
    pub eta_ms: Option<u64>,
}

/// A signal from outside, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Asked {
    pub signal: Signal,
    pub answer: oneshot::Sender<Result<String, SignalError>>,
}

#[derive(Debug, Default)]
struct Shared {
    status: Mutex<Status>,
    asked: Mutex<Vec<Asked>>,
    news: Notify,
}

/// Read side, and the way in for signals; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct StatusHandle(Arc<Shared>);

impl StatusHandle {
    pub fn get(&self) -> Status {
        self.0.status.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }
    pub(crate) fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.0.status.lock().unwrap_or_else(|e| e.into_inner()));
    }

    /// Gives the worker a signal. The answer comes when what it asks for is in the log; dropped = the worker ended first.
    pub fn signal(&self, signal: Signal) -> oneshot::Receiver<Result<String, SignalError>> {
        let (answer, told) = oneshot::channel();
        let mut asked = self.0.asked.lock().unwrap_or_else(|e| e.into_inner());
        if asked.len() < ASKED_MAX {
            asked.push(Asked { signal, answer });
        } else {
            let _ = answer.send(Err(SignalError::Wrong(TOO_MANY.into())));
        }
        self.0.news.notify_one();
        told
    }
    /// Counts a signal from outside that cannot be followed. The caller logs it.
    pub fn refused(&self, what: &str) {
        self.update(|s| {
            s.signals_refused += 1;
            s.last_refusal = Some(what.to_owned());
        });
    }
    pub(crate) fn take_asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.0.asked.lock().unwrap_or_else(|e| e.into_inner()))
    }
    pub(crate) fn has_asked(&self) -> bool {
        !self.0.asked.lock().unwrap_or_else(|e| e.into_inner()).is_empty()
    }
    /// Waits for the next signal from outside.
    pub(crate) async fn asked(&self) {
        self.0.news.notified().await;
    }
}
