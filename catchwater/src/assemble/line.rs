//! What a task is doing, for `lag`, the screen and the metrics.

use super::behind::Behind;
use super::supervisor::WorkerStatus;
use catchwater_base::Wall;
use catchwater_capture as capture;
use catchwater_client::{Task, TaskKind, TaskState, Wish};
use catchwater_deliver::lag::{STAGES, Stages};
use catchwater_deliver::status::Timings;
use catchwater_record::CommitSeq;
use catchwater_runtime::time::wall;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

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
    /// Of a sink: age of the oldest change that is not visible at the target; of a source: of the newest in the log.
    pub lag_ms: u64,
    /// Of a sink: the same in microseconds, by the stages of [`STAGES`].
    pub stages: Option<Stages>,
    /// Of a sink: records of the log that are not applied.
    pub lag_records: Option<u64>,
    pub lag_bytes: Option<u64>,
    pub position: String,
    /// Rows and units of a snapshot.
    pub snapshot: Option<(u64, u64, u64)>,
    /// Of a source: ad hoc snapshots that are not at their end.
    pub ad_hoc: Vec<capture::status::AdHoc>,
    /// Signals that were not followed and ad hoc snapshots that were given up since the worker began, and why the newest was.
    pub ad_hoc_refused: (u64, Option<String>),
    pub tables: BTreeMap<String, u64>,
    /// Of a sink: the same by kind of operation.
    pub operations: BTreeMap<(String, &'static str), u64>,
    /// Of a sink: share of its lanes that are busy.
    pub lanes_busy: Option<f64>,
    /// Of a sink: by topic, the age of the oldest record that is not applied, as a share of the time for which the log
    /// promises to keep it.
    pub retention_used: Vec<(String, f64)>,
    /// Of a source: what its server keeps for it.
    pub slot: Option<capture::source::SlotState>,
    /// Of a source: its snapshot by table.
    pub snapshot_tables: BTreeMap<String, capture::status::TableProgress>,
    /// Of a sink: rows that became dead letters since the worker began, and keys that are parked now.
    pub parked: Option<(u64, u64)>,
    /// Of a sink: what became of the rows that it took from the log.
    pub ledger: Option<Ledger>,
    pub error: Option<(String, String)>,
    /// What a person can do about an error that ended the task.
    pub next: Option<String>,
    /// Of a sink: everything up to this transaction is applied.
    pub seq: CommitSeq,
    /// Of a sink: how long its target takes.
    pub timings: Option<Arc<Timings>>,
    /// Of a sink: times that it began again after a failure, per class.
    pub retries: BTreeMap<&'static str, u64>,
    pub schema_changes: u64,
    /// Of a sink: rebuilds begun and done by this worker, and why the newest was given up.
    pub rebuilds: (u64, u64),
    pub rebuild_failed: Option<(String, String, String)>,
    /// Of a sink: row bytes in memory.
    pub held_bytes: Option<u64>,
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
            stages: None,
            lag_records: None,
            lag_bytes: None,
            position: String::new(),
            snapshot: None,
            ad_hoc: Vec::new(),
            ad_hoc_refused: (0, None),
            tables: BTreeMap::new(),
            operations: BTreeMap::new(),
            lanes_busy: None,
            retention_used: Vec::new(),
            slot: None,
            snapshot_tables: BTreeMap::new(),
            parked: None,
            ledger: None,
            error: None,
            next: None,
            seq: CommitSeq(0),
            timings: None,
            retries: BTreeMap::new(),
            schema_changes: 0,
            rebuilds: (0, 0),
            rebuild_failed: None,
            held_bytes: None,
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

impl WorkerLine {
    /// Joins what the worker says with what was seen beside it: whichever is older is the lag. `standing` = since when its
    /// source is not read.
    pub(super) fn stand(&mut self, behind: Option<&Behind>, standing: Option<Wall>, now: Wall) {
        let stood = |since: Wall| (now.as_micros() - since.as_micros()).max(0).unsigned_abs();
        if self.kind == "source" {
            self.lag_ms = self.lag_ms.max(standing.map_or(0, stood) / 1000);
            return;
        }
        let mut stages = self.stages.unwrap_or_default();
        let whole = |s: &Stages| s.iter().sum::<u64>();
        if let Some(way) = behind.and_then(|b| b.way).filter(|way| way.seq > self.seq) {
            let seen = way.stages(now);
            stages = if whole(&seen) > whole(&stages) { seen } else { stages };
        }
        if let Some(us) = standing.map(stood).filter(|us| *us > whole(&stages)) {
            stages = [us, 0, 0, 0];
        }
        self.lag_ms = whole(&stages) / 1000;
        self.stages = Some(stages);
        self.lag_records = behind.and_then(|b| b.records);
        self.retention_used = behind.map(|b| b.retention_used.clone()).unwrap_or_default();
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
                    capture::State::Complete => TaskState::Complete,
                };
                line.rows = s.rows;
                let behind = s.behind_since.map_or(0, |since| wall().as_millis() - since.as_millis());
                line.lag_ms = u64::try_from(s.lag_ms.max(behind)).unwrap_or(0);
                line.lag_bytes = s.lag_bytes;
                line.position = s.native.to_string();
                line.snapshot = Some((s.snapshot_rows, s.snapshot_units_done, s.snapshot_units));
                line.snapshot_tables = s.snapshot_tables;
                line.slot = s.slot;
                line.ad_hoc = s.ad_hoc;
                line.ad_hoc_refused = (s.signals_refused, s.last_refusal);
                line.error = s.last_error.map(|(c, w)| (c.to_string(), w));
            }
            WorkerStatus::Deliver(h) => {
                let s = h.read();
                line.state = s.state;
                line.rows = s.rows;
                line.stages = Some(s.lag(wall()));
                line.seq = s.seq;
                line.timings = Some(Arc::clone(h.timings()));
                line.retries = s.retries.clone();
                line.schema_changes = s.schema_changes;
                line.rebuilds = s.rebuilds;
                line.rebuild_failed = s.rebuild_failed.map(|f| (f.code.to_string(), f.what, f.next));
                line.held_bytes = Some(s.bytes as u64);
                line.position = s.position.to_string();
                line.tables = s.tables;
                line.operations = s.operations;
                line.lanes_busy = s.lanes_busy;
                line.parked = Some((s.parked, s.parked_keys));
                line.ledger = Some(Ledger {
                    taken: s.taken,
                    applied: s.rows.saturating_sub(s.folded),
                    folded: s.folded,
                    parked: s.parked,
                    filtered: s.filtered,
                    reorders: s.reorders,
                });
                // With its error at once: the supervisor hears of a worker's end a moment later.
                line.next = s.last_error.as_ref().map(|f| f.next.clone()).filter(|n| !n.is_empty());
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
        TaskState::Complete => "complete",
    }
}
fn stages_json(l: &WorkerLine) -> Value {
    let Some(stages) = l.stages else { return Value::Null };
    STAGES
        .iter()
        .zip(stages)
        .map(|(name, us)| ((*name).to_owned(), us.into()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn tables_json(l: &WorkerLine) -> Value {
    let one = |t: &capture::status::TableProgress| json!({"rows": t.rows, "rows_estimate": t.rows_estimate, "units_done": t.units_done, "units": t.units});
    l.snapshot_tables.iter().map(|(name, t)| (name.clone(), one(t))).collect::<serde_json::Map<_, _>>().into()
}

pub fn line_json(l: &WorkerLine) -> Value {
    json!({
        "pipeline": l.pipeline, "node": l.node, "kind": l.kind, "state": l.word(), "rows": l.rows,
        "lag_ms": l.lag_ms, "stages_us": stages_json(l), "lag_records": l.lag_records, "lag_bytes": l.lag_bytes, "position": l.position,
        "snapshot": l.snapshot.map(|(rows, done, all)| json!({"rows": rows, "units_done": done, "units": all, "tables": tables_json(l)})),
        "slot": l.slot.as_ref().map(|s| json!({"retained_bytes": s.retained_bytes, "wal_status": s.wal_status, "safe_bytes": s.safe_bytes})),
        "ad_hoc": l.ad_hoc.iter().map(|a| json!({
            "table": a.table, "state": a.state, "rows": a.rows, "chunks": a.chunks,
            "rows_estimate": a.rows_estimate, "eta_ms": a.eta_ms,
        })).collect::<Vec<_>>(),
        "ad_hoc_refused": {"count": l.ad_hoc_refused.0, "last": l.ad_hoc_refused.1},
        "tables": l.tables,
        "parked": l.parked.map(|(rows, keys)| json!({"rows": rows, "keys": keys})),
        "ledger": l.ledger.map(|c| json!({
            "taken": c.taken, "applied": c.applied, "folded": c.folded, "parked": c.parked, "filtered": c.filtered,
            "reorders": c.reorders,
        })),
        "rebuilds": {"begun": l.rebuilds.0, "done": l.rebuilds.1, "failed": l.rebuild_failed.as_ref().map(
            |(code, what, next)| json!({"code": code, "message": what, "next": next}))},
        "retries": l.retries, "schema_changes": l.schema_changes, "held_bytes": l.held_bytes,
        "error": l.error.as_ref().map(|(code, what)| format!("{code} {what}")), "next": l.next,
    })
}

/// The tasks that are not at work: pipeline, node, state, and the error without its text's end.
pub(super) fn health(lines: &[WorkerLine]) -> crate::http::Pipelines {
    let mut out = crate::http::Pipelines::default();
    for l in lines {
        let word = l.word();
        if matches!(word, "running" | "snapshot" | "complete") {
            continue;
        }
        out.needs_person |= word == "needs_person";
        let error = l.error.as_ref().map(|(code, what)| format!(" {code} {what}")).unwrap_or_default();
        out.text.push_str(&format!("{} {} {} {word}{error}\n", l.pipeline, l.kind, l.node));
    }
    out
}
