//! What a task is doing, for `lag`, the screen and the metrics.

use super::supervisor::WorkerStatus;
use catchwater_capture as capture;
use catchwater_client::{Task, TaskKind, TaskState, Wish};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One line of `lag`, and of the demo's table.
#[derive(Clone, Debug)]
pub struct WorkerLine {
    pub pipeline: String,
    pub node: String,
    pub kind: &'static str,
    pub state: TaskState,
    /// `Run`, or why there is no worker.
    pub wish: Wish,
    pub rows: u64,
    pub lag_ms: u64,
    pub lag_bytes: Option<u64>,
    pub position: String,
    /// Rows and units of a snapshot.
    pub snapshot: Option<(u64, u64, u64)>,
    /// Of a source: ad hoc snapshots that are not at their end.
    pub ad_hoc: Vec<capture::status::AdHoc>,
    pub tables: BTreeMap<String, u64>,
    /// Of a sink: rows that became dead letters since the worker began, and keys that are parked now.
    pub parked: Option<(u64, u64)>,
    /// Of a sink: what became of the rows that it took from the log.
    pub ledger: Option<Ledger>,
    pub error: Option<(String, String)>,
}

/// Row changes of groups that are durable, since the worker began. `taken` = the sum of the others but `reorders`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ledger {
    pub taken: u64,
    pub applied: u64,
    /// Merged into another write of the same key.
    pub folded: u64,
    pub parked: u64,
    /// Left out by the mode.
    pub filtered: u64,
    /// Times that groups in several lanes met after all.
    pub reorders: u64,
}

impl WorkerLine {
    /// Of a task that no worker runs.
    pub(super) fn idle(task: &Task) -> WorkerLine {
        WorkerLine {
            pipeline: task.pipeline.to_string(),
            node: task.node.to_string(),
            kind: match task.kind {
                TaskKind::Capture(_) => "source",
                TaskKind::Deliver => "sink",
            },
            state: TaskState::Starting,
            wish: task.wish,
            rows: 0,
            lag_ms: 0,
            lag_bytes: None,
            position: String::new(),
            snapshot: None,
            ad_hoc: Vec::new(),
            tables: BTreeMap::new(),
            parked: None,
            ledger: None,
            error: None,
        }
    }

    /// `running`, `paused`, `needs_person` …
    pub fn word(&self) -> &'static str {
        match (self.wish, self.state) {
            (Wish::Pause, _) => "paused",
            (Wish::Stop, _) => "stopping",
            (Wish::Run, state) => state_word(state),
        }
    }
}

impl WorkerStatus {
    pub(super) fn line(&self, task: &Task) -> WorkerLine {
        let mut line = WorkerLine::idle(task);
        match self {
            WorkerStatus::Capture(h) => {
                let s = h.get();
                line.state = match s.state {
                    capture::State::Starting => TaskState::Starting,
                    capture::State::Snapshot => TaskState::Snapshot,
                    capture::State::Streaming => TaskState::Running,
                    capture::State::Retrying => TaskState::Retrying,
                    capture::State::NeedsPerson => TaskState::NeedsPerson,
                    capture::State::Stopped => TaskState::Stopped,
                };
                line.rows = s.rows;
                line.lag_ms = u64::try_from(s.lag_ms).unwrap_or(0);
                line.lag_bytes = s.lag_bytes;
                line.position = s.native.to_string();
                line.snapshot = Some((s.snapshot_rows, s.snapshot_units_done, s.snapshot_units));
                line.ad_hoc = s.ad_hoc;
                line.error = s.last_error.map(|(c, w)| (c.to_string(), w));
            }
            WorkerStatus::Deliver(h) => {
                let s = h.read();
                line.state = s.state;
                line.rows = s.rows;
                line.lag_ms = s.lag_ms;
                line.position = s.position.to_string();
                line.tables = s.tables;
                line.parked = Some((s.parked, s.parked_keys));
                line.ledger = Some(Ledger {
                    taken: s.taken,
                    applied: s.rows.saturating_sub(s.folded),
                    folded: s.folded,
                    parked: s.parked,
                    filtered: s.filtered,
                    reorders: s.reorders,
                });
                line.error = s.last_error.map(|f| (f.code.to_string(), f.what));
            }
        }
        line
    }
}

pub fn state_word(s: TaskState) -> &'static str {
    match s {
        TaskState::Starting => "starting",
        TaskState::Snapshot => "snapshot",
        TaskState::Running => "running",
        TaskState::Retrying => "retrying",
        TaskState::Stopped => "stopped",
        TaskState::NeedsPerson => "needs_person",
    }
}
pub fn line_json(l: &WorkerLine) -> Value {
    json!({
        "pipeline": l.pipeline, "node": l.node, "kind": l.kind, "state": l.word(), "rows": l.rows,
        "lag_ms": l.lag_ms, "lag_bytes": l.lag_bytes, "position": l.position,
        "snapshot": l.snapshot.map(|(rows, done, all)| json!({"rows": rows, "units_done": done, "units": all})),
        "ad_hoc": l.ad_hoc.iter().map(|a| json!({
            "table": a.table, "state": a.state, "rows": a.rows, "chunks": a.chunks,
            "rows_estimate": a.rows_estimate, "eta_ms": a.eta_ms,
        })).collect::<Vec<_>>(),
        "tables": l.tables,
        "parked": l.parked.map(|(rows, keys)| json!({"rows": rows, "keys": keys})),
        "ledger": l.ledger.map(|c| json!({
            "taken": c.taken, "applied": c.applied, "folded": c.folded, "parked": c.parked, "filtered": c.filtered,
            "reorders": c.reorders,
        })),
        "error": l.error.as_ref().map(|(code, what)| format!("{code} {what}")),
    })
}
