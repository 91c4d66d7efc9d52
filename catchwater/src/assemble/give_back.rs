//! The end of a node of a pipeline, and of a log that is thrown away: what it made in the databases goes with it, or a
//! forgotten slot keeps WAL. Only what the log can prove to be its own; what a database does not let go in
//! time is named once, with the SQL that removes it.

use super::resolved::Resolved;
use super::supervisor::{Worker, WorkerStatus};
use catchwater_base::log;
use catchwater_capture::source::Identity;
use catchwater_change::encode::debezium_json::Xmin;
use catchwater_deliver::sink::Owner;
use catchwater_record::{CaptureEpoch, PipelineName, SinkName};
use catchwater_runtime::spawn::{Task as Running, spawn};
use catchwater_runtime::time::timeout;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a capture's log says of its source.
#[derive(Clone)]
pub(super) struct Made {
    node: String,
    epoch: CaptureEpoch,
    status: catchwater_capture::StatusHandle,
}

impl Made {
    /// Is it known whose the source is?
    pub fn is_known(&self) -> bool {
        self.status.get().identity.is_some()
    }
}

pub(super) fn made_by(worker: &Worker) -> Option<Made> {
    match &worker.status {
        WorkerStatus::Capture(status) => Some(Made {
            node: worker.task.node.as_str().to_owned(),
            epoch: CaptureEpoch(worker.task.epoch.0),
            status: status.clone(),
        }),
        WorkerStatus::Deliver(_) => None,
    }
}

/// One database at work.
struct Job {
    what: String,
    sql: String,
    running: Running<Result<(), String>>,
}

/// Asks all databases of these pipelines at the same time. The workers have ended.
pub(super) async fn run(plans: &[Arc<Resolved>], made: Vec<Made>, cluster: [u8; 16], limit: Duration) {
    let deadline = Instant::now() + limit;
    let mut jobs = Vec::new();
    for plan in plans {
        // A source name belongs to one pipeline.
        jobs.extend(made.iter().filter_map(|m| {
            let (identity, opened) = m.status.get().identity?;
            detach(plan, m, identity, opened)
        }));
        jobs.extend(plan.pipeline.sinks.keys().filter_map(|name| forget(plan, name, cluster)));
    }
    finish(jobs, deadline, limit).await;
}

/// One source or sink that has left its pipeline. `made` = what its capture knew; a source without it made nothing that
/// is known to be its own.
pub(super) async fn one(plan: &Resolved, node: &str, made: Option<&Made>, cluster: [u8; 16], limit: Duration) {
    let deadline = Instant::now() + limit;
    let job = match made {
        Some(m) => m.status.get().identity.and_then(|(identity, opened)| detach(plan, m, identity, opened)),
        None => forget(plan, node, cluster),
    };
    finish(job.into_iter().collect(), deadline, limit).await;
}

/// The position of one sink, whose worker has ended.
pub(super) async fn position(
    plan: &Resolved,
    name: &str,
    cluster: [u8; 16],
    limit: Duration,
) -> Result<(), crate::report::Failure> {
    use crate::report::{Exit, Failure};
    let failed = |why: String| {
        Failure::new(Exit::Environment, "CW0348", format!("sink {name}: its position could not be removed")).cause(why)
    };
    let job = forget(plan, name, cluster).ok_or_else(|| failed("its target cannot be reached by its text".into()))?;
    let sql = job.sql;
    match timeout(limit, job.running.join()).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(why)) | Err(why)) => Err(failed(why).next(sql)),
        Err(_) => Err(failed(format!("no answer within {} s", limit.as_secs())).next(sql)),
    }
}

async fn finish(jobs: Vec<Job>, deadline: Instant, limit: Duration) {
    for job in jobs {
        let left = deadline.saturating_duration_since(Instant::now());
        let why = match timeout(left, job.running.join()).await {
            Ok(Ok(Ok(()))) => continue,
            Ok(Ok(Err(why)) | Err(why)) => why,
            Err(_) => format!("no answer within {} ms", limit.as_millis()),
        };
        log!(Warn, "node.left", "{}: what this run made there stays: {why}; to remove it: {}", job.what, job.sql);
    }
}

fn detach(plan: &Resolved, made: &Made, identity: Identity, opened: bool) -> Option<Job> {
    let name = made.node.as_str();
    let mut make = plan.source_maker(name, plan.pipeline.sources.get(name)?, made.epoch, Xmin::default()).ok()?;
    let mut source = make();
    let sql = source.detach_sql(&identity, opened);
    if sql.is_empty() {
        return None;
    }
    let running = spawn(format!("detach.{name}"), async move {
        let done = source.detach(&identity, opened).await;
        source.close().await;
        done.map_err(|e| e.what)
    });
    Some(Job { what: format!("source {name}"), sql, running })
}

fn forget(plan: &Resolved, name: &str, cluster: [u8; 16]) -> Option<Job> {
    let mut sink = plan.sink(name).ok()?;
    let pipeline = PipelineName::from(plan.pipeline.name.as_str());
    let owner = Owner { pipeline, sink: SinkName::from(name), cluster };
    let sql = sink.forget_sql(&owner);
    let running = spawn(format!("forget.{name}"), async move {
        let done = sink.forget(&owner).await;
        sink.shutdown().await;
        done.map_err(|e| e.what)
    });
    Some(Job { what: format!("sink {name}"), sql, running })
}
