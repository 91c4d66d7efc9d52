//! Runs the tasks that the task machine gives to this node: starts workers, ends them, looks after those that ended.
//!
//! ```text
//!  wish      no worker                         worker
//!  Run       start (or release a used epoch)   go on; drain if its node changed or a restart was asked for
//!  Pause     nothing                           drain
//!  Stop      give back, then release           drain
//! ```
//! A task never runs twice under one epoch: a worker that ended used its epoch up, and the next start needs another.

use super::State;
use super::give_back::{self, Made};
use super::resolved::{Former, Resolved, properties};
use super::sink_config;
use crate::pipeline::Options;
use crate::pipeline::model::{Component, Source};
use crate::report::{Exit, Failure};
use catchwater_base::{Clock, log};
use catchwater_capture::{self as capture, SnapshotMode};
use catchwater_client::{ControlClient, LogClient, Report, Revision, Task, TaskClient, TaskKind, Wish};
use catchwater_connector_postgres as postgres;
use catchwater_deliver as deliver;
use catchwater_record::{
    Caller, CaptureEpoch, CaptureId, Incarnation, NodeId, PipelineName, RevisionNo, SinkName, SourceName, TaskEpoch,
    TaskId, TasksVersion,
};
use catchwater_runtime::shutdown::{self, Stop, Stopped};
use catchwater_runtime::spawn::{Task as Running, spawn};
use catchwater_runtime::sync::{Receiver, Sender};
use catchwater_runtime::time::timeout;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Workers report at least that often.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How long a database may take to let go of what a task made in it.
const GIVE_BACK_LIMIT: Duration = Duration::from_secs(20);
/// A task that could not be started (a reference that cannot be read) is tried again after this.
const START_AGAIN: Duration = Duration::from_secs(30);

/// One running task.
pub(super) struct Worker {
    pub task: Task,
    pub stop: Stop,
    pub status: WorkerStatus,
    pub running: Running<End>,
    /// By what a sink is asked.
    pub asks: Option<Sender<deliver::worker::Request>>,
    /// Why it ended for good.
    pub failure: Option<Failure>,
    resolved: Arc<Resolved>,
    /// Was told to end.
    draining: bool,
    /// Runs only to learn whose its source is, at the latest until then.
    until_known: Option<Instant>,
}

#[derive(Clone)]
pub(super) enum WorkerStatus {
    Capture(capture::StatusHandle),
    Deliver(deliver::StatusHandle),
}

/// How a worker ended.
pub(super) enum End {
    Stopped,
    Fenced,
    Failed {
        code: String,
        what: String,
        next: String,
    },
    /// It must be started again under a new epoch.
    NewEpoch,
}

/// A task that could not be started.
pub(super) struct Broken {
    pub task: Task,
    pub failure: Failure,
    at: Instant,
}

pub(super) struct Supervisor {
    /// Folder for what sources cannot hold in memory.
    spill: PathBuf,
    state: Arc<State>,
    cluster: [u8; 16],
    node: NodeId,
    clock: Arc<dyn Clock>,
    resolved: BTreeMap<(PipelineName, RevisionNo), Arc<Resolved>>,
    /// Epochs whose worker has ended.
    used: BTreeMap<TaskId, TaskEpoch>,
    /// What ended captures knew of their sources.
    made: BTreeMap<TaskId, Made>,
    /// What its sinks hold in memory together.
    credit: Arc<deliver::credit::Credit>,
    giving_back: BTreeMap<TaskId, (TaskEpoch, Running<()>)>,
    /// Does the text of this revision hold its tasks?
    held: BTreeMap<(PipelineName, RevisionNo), bool>,
}

/// A source says what must be done; only the node knows by which command.
fn with_command(next: String, task: &Task) -> String {
    let (pipeline, node) = (&task.pipeline, &task.node);
    if !next.ends_with("must be read again") {
        // Nothing looks again by itself: what was cured in a database or a secret's file has to be said.
        return match (next.is_empty(), next.contains("catchwater ")) {
            (_, true) => next,
            (true, _) => format!("catchwater pipeline restart {pipeline}, once that is cured"),
            (false, _) => format!("{}; then: catchwater pipeline restart {pipeline}", next.trim_end_matches(';')),
        };
    }
    format!("{next}: catchwater pipeline reset {pipeline} --source {node} --allow-destructive")
}

/// The tables of each source in the texts before this one.
fn former(kept: &[Revision], now: RevisionNo) -> BTreeMap<String, Former> {
    let whole = kept.first().is_some_and(|r| r.no == RevisionNo(1));
    let mut all: BTreeMap<String, Former> = BTreeMap::new();
    for r in kept.iter().filter(|r| r.no < now) {
        let Some(pipeline) = crate::pipeline::check(r.text.as_bytes(), Options { plain_secrets: true }).0 else {
            continue;
        };
        for (name, source) in pipeline.sources {
            let texts = &mut all.entry(name).or_default().texts;
            if !texts.contains(&source.tables) {
                texts.push(source.tables);
            }
        }
    }
    all.values_mut().for_each(|f| f.whole = whole);
    all
}

/// What is to be done about a task.
enum Todo {
    Nothing,
    Start,
    Release,
    GiveBack,
}

impl Supervisor {
    pub fn new(
        state: Arc<State>,
        cluster: [u8; 16],
        node: NodeId,
        clock: Arc<dyn Clock>,
        spill: PathBuf,
    ) -> Supervisor {
        Supervisor {
            spill,
            state,
            cluster,
            node,
            clock,
            resolved: BTreeMap::new(),
            used: BTreeMap::new(),
            made: BTreeMap::new(),
            credit: Arc::default(),
            giving_back: BTreeMap::new(),
            held: BTreeMap::new(),
        }
    }

    pub async fn run(mut self, mut stopped: Stopped) {
        let (mut seen, mut all) = (TasksVersion(0), Vec::new());
        loop {
            tokio::select! {
                wanted = timeout(REPORT_EVERY, self.state.local.mine(seen)) => if let Ok(Ok(t)) = wanted {
                    (seen, all) = (t.version, t.tasks);
                },
                () = self.state.wake.notified() => {}
                () = stopped.wait() => return,
            }
            // Each time: a pipeline may begin to belong here after its tasks were made.
            let mut tasks = all.clone();
            self.state.retain_own(&mut tasks);
            self.hold(&mut tasks).await;
            self.adjust(&tasks).await;
            self.look_after(&tasks).await;
            self.report().await;
            if stopped.is_stopped() {
                return;
            }
        }
    }

    /// Tasks of pipelines whose text holds them do not run.
    async fn hold(&mut self, tasks: &mut [Task]) {
        if tasks.iter().any(|t| !self.held.contains_key(&(t.pipeline.clone(), t.revision))) {
            let Ok(all) = self.state.local.pipelines().await else { return };
            for p in all {
                let text = crate::pipeline::check(p.text.as_bytes(), Options { plain_secrets: true }).0;
                self.held.insert((p.name, p.revision), text.is_some_and(|t| t.is_held()));
            }
            self.held.retain(|(name, no), _| tasks.iter().any(|t| t.pipeline == *name && t.revision == *no));
        }
        for t in tasks.iter_mut().filter(|t| t.wish == Wish::Run) {
            if self.held.get(&(t.pipeline.clone(), t.revision)).copied().unwrap_or(false) {
                t.wish = Wish::Pause;
            }
        }
    }

    async fn adjust(&mut self, tasks: &[Task]) {
        let held = |id: &TaskId, epoch| tasks.iter().any(|t| t.id == *id && t.epoch == epoch);
        self.state.workers().retain(|id, w| {
            if !held(id, w.task.epoch) {
                // Dropping the worker aborts it: safe at every point, its fence has passed to the next holder.
                w.stop.stop();
            }
            held(id, w.task.epoch)
        });
        self.state.broken().retain(|id, b| held(id, b.task.epoch));
        self.used.retain(|id, epoch| held(id, *epoch));
        self.made.retain(|id, _| tasks.iter().any(|t| t.id == *id));
        self.giving_back.retain(|id, (epoch, _)| held(id, *epoch));
        self.resolved.retain(|(name, no), _| tasks.iter().any(|t| t.pipeline == *name && t.revision == *no));
        *self.state.tasks() = tasks.to_vec();
        for task in tasks {
            match self.todo(task).await {
                Todo::Nothing => {}
                Todo::Start => self.begin(task, None).await,
                Todo::Release => drop(self.state.local.release(task.id, task.epoch).await),
                Todo::GiveBack => self.give_back(task).await,
            }
        }
    }

    async fn todo(&mut self, task: &Task) -> Todo {
        let restart = self.state.restarts().remove(&task.id);
        if restart {
            // References are read again.
            self.resolved.remove(&(task.pipeline.clone(), task.revision));
            self.state.broken().remove(&task.id);
        }
        let running = {
            let mut workers = self.state.workers();
            match workers.get_mut(&task.id) {
                Some(w) if w.draining || w.until_known.is_some() => {
                    w.task.wish = task.wish;
                    return Todo::Nothing;
                }
                Some(w) if w.failure.is_some() => {
                    let again = restart || task.revision != w.task.revision || task.wish != Wish::Run;
                    if !again {
                        return Todo::Nothing;
                    }
                    if let Some(made) = give_back::made_by(w) {
                        self.made.insert(task.id, made);
                    }
                    self.used.insert(task.id, w.task.epoch);
                    workers.remove(&task.id);
                    None
                }
                Some(w) => Some((Arc::clone(&w.resolved), w.task.revision)),
                None => None,
            }
        };
        if let Some((old, revision)) = running {
            let mut keep = task.wish == Wish::Run && !restart;
            let mut new = None;
            if keep && revision != task.revision {
                // What cannot be resolved does not end what runs.
                new = self.resolve(task).await.ok();
                keep = new.as_ref().is_none_or(|new| new.same_node(&old, task.node.as_str()));
            }
            if let Some(w) = self.state.workers().get_mut(&task.id) {
                if keep {
                    w.task = task.clone();
                    w.resolved = new.unwrap_or(old);
                } else {
                    w.stop.stop();
                    w.draining = true;
                    w.task.wish = task.wish;
                }
            }
            return Todo::Nothing;
        }
        match task.wish {
            Wish::Pause => Todo::Nothing,
            Wish::Stop => Todo::GiveBack,
            Wish::Run if self.used.contains_key(&task.id) => Todo::Release,
            Wish::Run => {
                let waits = self
                    .state
                    .broken()
                    .get(&task.id)
                    .is_some_and(|b| b.task.revision == task.revision && b.at.elapsed() < START_AGAIN);
                if waits { Todo::Nothing } else { Todo::Start }
            }
        }
    }

    /// The text the task runs by, with its references read.
    async fn resolve(&mut self, task: &Task) -> Result<Arc<Resolved>, Failure> {
        let key = (task.pipeline.clone(), task.revision);
        if let Some(there) = self.resolved.get(&key) {
            return Ok(Arc::clone(there));
        }
        let gone = || {
            Failure::new(Exit::Runtime, "CW0345", format!("revision {} of {} is not kept", key.1, key.0))
                .next("apply the pipeline's file again")
        };
        let local = &self.state.local;
        let kept = local.revisions(key.0.clone()).await.map_err(super::control_failure)?;
        let former = former(&kept, key.1);
        let (text, base) = match kept.into_iter().find(|r| r.no == key.1) {
            Some(r) => (r.text, r.note.base_dir),
            // Stored before revisions were kept.
            None => {
                let all = local.pipelines().await.map_err(super::control_failure)?;
                let p = all.into_iter().find(|p| p.name == key.0 && p.revision == key.1).ok_or_else(gone)?;
                (p.text, String::new())
            }
        };
        // It was checked when it was stored.
        let (pipeline, findings) = crate::pipeline::check(text.as_bytes(), Options { plain_secrets: true });
        let pipeline = pipeline.ok_or_else(|| {
            Failure::new(Exit::Runtime, "CW0303", format!("the stored text of {} is not understood here", key.0))
                .cause(findings.first().map(|f| f.message.clone()).unwrap_or_default())
                .next("apply the pipeline's file again")
        })?;
        let mut resolved = Resolved::resolve(pipeline, Path::new(&base), self.state.secrets.root())?;
        resolved.spill = Some(self.spill.clone());
        resolved.former = former;
        let borrowed = resolved.pipeline.borrowed().into_iter().map(str::to_owned).collect::<Vec<_>>();
        for source in resolved.pipeline.sources.keys().chain(&borrowed) {
            let who = Caller::node(self.node);
            let ids = local.source(&who, SourceName::from(source.as_str())).await.map_err(super::control_failure)?;
            resolved.captures.insert(source.clone(), ids);
        }
        let resolved = Arc::new(resolved);
        self.resolved.insert(key, Arc::clone(&resolved));
        Ok(resolved)
    }

    async fn begin(&mut self, task: &Task, until_known: Option<Instant>) {
        let started = match self.resolve(task).await {
            Ok(resolved) => self.start(task, resolved, until_known),
            Err(f) => Err(f),
        };
        match started {
            Ok(worker) => {
                self.state.broken().remove(&task.id);
                self.state.workers().insert(task.id, worker);
            }
            Err(failure) => {
                log!(Error, "task.start", "{} {}: {}: {}", task.pipeline, task.node, failure.message, failure.cause);
                let broken = Broken { task: task.clone(), failure, at: Instant::now() };
                self.state.broken().insert(task.id, broken);
            }
        }
    }

    async fn is_connector(&self, task: &Task) -> bool {
        let kept = self.state.local.revisions(task.pipeline.clone()).await.unwrap_or_default();
        let text = kept.into_iter().find(|r| r.no == task.revision).map(|r| r.text).unwrap_or_default();
        crate::pipeline::check(text.as_bytes(), Options { plain_secrets: true }).0.is_some_and(|p| p.connect.is_some())
    }

    /// A node that left its pipeline: what it made elsewhere goes, then the task. A capture of an earlier process runs
    /// once more until it knows whose its source is.
    async fn give_back(&mut self, task: &Task) {
        if self.giving_back.contains_key(&task.id) {
            return;
        }
        if self.is_connector(task).await {
            // A connector that is deleted keeps its slot and its position, as in Connect: put again, it goes on.
            return drop(self.state.local.release(task.id, task.epoch).await);
        }
        let capture = matches!(task.kind, TaskKind::Capture(_));
        let made = self.made.get(&task.id).filter(|m| m.is_known()).cloned();
        let ran = self.used.contains_key(&task.id) || self.state.broken().contains_key(&task.id);
        if capture && made.is_none() && !ran {
            return self.begin(task, Some(Instant::now() + GIVE_BACK_LIMIT)).await;
        }
        let resolved = self.resolve(task).await;
        let (local, cluster, task) = (Arc::clone(&self.state.local), self.cluster, task.clone());
        let (id, epoch, name) = (task.id, task.epoch, format!("{}.{}.give_back", task.pipeline, task.node));
        let job = spawn(name, async move {
            match resolved {
                Ok(_) if capture && made.is_none() => log!(
                    Warn,
                    "task.left",
                    "{} {}: its database gave no answer, so what the capture made there stays (PostgreSQL: a slot keeps \
                     WAL; see `catchwater explain CW0520`)",
                    task.pipeline,
                    task.node
                ),
                Ok(r) => give_back::one(&r, task.node.as_str(), made.as_ref(), cluster, GIVE_BACK_LIMIT).await,
                Err(f) => log!(
                    Warn,
                    "task.left",
                    "{} {}: what it made in its database stays: {}",
                    task.pipeline,
                    task.node,
                    f.message
                ),
            }
            let _ = local.release(task.id, task.epoch).await;
        });
        self.giving_back.insert(id, (epoch, job));
    }

    /// Workers that ended by themselves: what a person must know is said once; a used-up epoch is asked for anew.
    async fn look_after(&mut self, tasks: &[Task]) {
        for w in self.state.workers().values_mut() {
            if let (Some(until), WorkerStatus::Capture(status), false) = (w.until_known, &w.status, w.draining)
                && (status.get().identity.is_some() || Instant::now() > until)
            {
                w.stop.stop();
                w.draining = true;
            }
        }
        let ended: Vec<TaskId> = self
            .state
            .workers()
            .iter()
            .filter(|(_, w)| w.running.is_finished() && w.failure.is_none())
            .map(|(id, _)| *id)
            .collect();
        for id in ended {
            let Some(mut w) = self.state.workers().remove(&id) else { continue };
            let name = w.running.name().to_owned();
            if let Some(made) = give_back::made_by(&w) {
                self.made.insert(id, made);
            }
            let wish = tasks.iter().find(|t| t.id == id).map_or(Wish::Stop, |t| t.wish);
            match w.running.result().await {
                Ok(End::Failed { code, what, next }) if wish == Wish::Run && !w.draining => {
                    let next = with_command(next, &w.task);
                    log!(Error, "task.failed", "{name}: {code} {what}; next: {next}");
                    w.failure = Some(Failure::new(Exit::Environment, &code, format!("{name}: {what}")).next(next));
                    self.state.workers().insert(id, w);
                    continue;
                }
                Ok(_) => log!(Info, "task.ended", "{name}"),
                Err(panic) => log!(Error, "task.panicked", "{name}: {panic}; it is started again"),
            }
            self.used.insert(id, w.task.epoch);
            if wish == Wish::Run {
                let _ = self.state.local.release(id, w.task.epoch).await;
            }
            // The rest (giving back, a wish that changed meanwhile) follows at the next turn.
            self.state.wake.notify_one();
        }
    }

    fn start(&self, task: &Task, resolved: Arc<Resolved>, until_known: Option<Instant>) -> Result<Worker, Failure> {
        let (stop, stopped) = shutdown::channel();
        let name = format!("{}.{}", task.pipeline, task.node);
        let node = task.node.as_str().to_owned();
        let mut asks = None;
        let (status, running) = match task.kind {
            TaskKind::Capture(id) => self.capture(task, &resolved, &node, id, name, stopped)?,
            TaskKind::Deliver => {
                let (sender, receiver) = deliver::worker::asks();
                asks = Some(sender);
                self.deliver(task, &resolved, &node, name, (stopped, receiver))?
            }
        };
        log!(Info, "task.started", "{} {} epoch {}", task.pipeline, task.node, task.epoch);
        let (task, failure, draining) = (task.clone(), None, false);
        Ok(Worker { task, stop, status, running, asks, failure, resolved, draining, until_known })
    }

    fn capture(
        &self,
        task: &Task,
        resolved: &Resolved,
        node: &str,
        id: CaptureId,
        name: String,
        stopped: Stopped,
    ) -> Result<(WorkerStatus, Running<End>), Failure> {
        let missing = || Failure::new(Exit::Runtime, "CW0303", format!("the pipeline has no source {node}"));
        let source = resolved.pipeline.sources.get(node).ok_or_else(missing)?;
        let epoch = CaptureEpoch(task.epoch.0);
        let handle = Arc::new(self.state.local.handle());
        let properties = properties(source, node)?;
        let deps = capture::Deps {
            log: Arc::clone(&handle) as Arc<dyn LogClient>,
            control: handle as Arc<dyn ControlClient>,
            clock: Arc::clone(&self.clock),
            make_source: resolved.source_maker(node, source, epoch, properties.options.xmin.clone())?,
            seed: u64::from(task.epoch.0),
        };
        let file = properties.signals.file.clone().map(|f| (resolved.path(&f.path), Duration::from_millis(f.every_ms)));
        let connector = match source.component {
            Component::Postgres { .. } => "postgresql",
            Component::Sqlite { .. } => "sqlite",
        };
        let config = capture::Config {
            source: SourceName::from(node),
            capture: id,
            incarnation: resolved.captures.get(node).map_or(Incarnation(0), |(_, i)| *i),
            epoch,
            who: Caller::node(self.node),
            connector,
            prefix: node.to_owned(),
            pipeline: task.pipeline.clone(),
            revision: task.revision,
            canonical: canonical(source),
            partitions: 1,
            snapshot: source.snapshot,
            snapshot_tables: properties.reading.snapshot_tables,
            options: properties.options,
            transaction_topic: properties.transaction_topic,
            heartbeat: properties.heartbeat,
            signals: properties.signals,
            notifications: properties.notifications,
            creation: properties.creation,
            limits: {
                let mut limits = capture::worker::Limits::default();
                limits.emit.compression = properties.compression;
                limits
            },
        };
        let (worker, status) = capture::Worker::new(deps, config);
        let (told, of) = (status.clone(), SourceName::from(node));
        let running = spawn(name.clone(), async move {
            // Ends with the worker.
            let _file = file.map(|(path, every)| {
                spawn(format!("{name}.signals"), postgres::source::signal_file::follow(path, every, of, told))
            });
            // Boxed: the state of a whole capture is too much for the stack of what starts it.
            match Box::pin(worker.run(stopped)).await {
                capture::End::Stopped => End::Stopped,
                capture::End::Fenced { .. } => End::Fenced,
                capture::End::Failed { code, what, next } => End::Failed { code: code.to_string(), what, next },
            }
        });
        Ok((WorkerStatus::Capture(status), running))
    }

    fn deliver(
        &self,
        task: &Task,
        resolved: &Resolved,
        node: &str,
        name: String,
        (stopped, asks): (Stopped, Receiver<deliver::worker::Request>),
    ) -> Result<(WorkerStatus, Running<End>), Failure> {
        let missing = || Failure::new(Exit::Runtime, "CW0303", format!("the pipeline has no sink {node}"));
        let sink = resolved.pipeline.sinks.get(node).ok_or_else(missing)?;
        let source = sink.source().to_owned();
        let (capture, incarnation) = resolved.captures.get(&source).copied().ok_or_else(missing)?;
        let handle = Arc::new(self.state.local.handle());
        let deps = deliver::Deps {
            log: Arc::clone(&handle) as Arc<dyn LogClient>,
            control: handle as Arc<dyn ControlClient>,
            clock: Arc::clone(&self.clock),
            sink: resolved.sink(node)?,
            wire: Arc::new(deliver::wire::ChangeWire),
            asks,
        };
        let mut config = deliver::Config::new(
            task.pipeline.clone(),
            SinkName::from(node),
            SourceName::from(source.as_str()),
            capture,
        );
        config.incarnation = incarnation;
        config.cluster = self.cluster;
        config.epoch = TaskEpoch(task.epoch.0);
        config.seed = u64::from(task.epoch.0) << 8;
        sink_config::fill(&mut config, sink, node, resolved.pipeline.sources.get(&source))?;
        config.who = Caller::node(self.node);
        config.credit = Arc::clone(&self.credit);
        let status = deliver::StatusHandle::new();
        let shown = status.clone();
        let running = spawn(name, async move {
            match deliver::Worker::run(deps, config, status, stopped).await {
                deliver::End::Stopped => End::Stopped,
                deliver::End::Fenced => End::Fenced,
                deliver::End::Failed(f) => End::Failed { code: f.code.to_string(), what: f.what, next: f.next },
                deliver::End::NewEpoch => End::NewEpoch,
            }
        });
        Ok((WorkerStatus::Deliver(shown), running))
    }

    async fn report(&self) {
        let reports: Vec<Report> = self
            .state
            .workers()
            .values()
            .map(|w| Report {
                task: w.task.id,
                epoch: w.task.epoch,
                state: w.status.line(&w.task).state,
                code: None,
                progress: bytes::Bytes::new(),
            })
            .collect();
        if reports.is_empty() {
            return;
        }
        if let Ok(lost) = self.state.local.report(reports).await {
            let mut workers = self.state.workers();
            for id in lost {
                workers.remove(&id);
            }
        }
    }
}

/// The source's block as JSON with sorted keys, references unresolved: what a CONFIG record keeps.
fn canonical(source: &Source) -> String {
    let component = match &source.component {
        Component::Postgres { url, slot, publication, streaming, failover, binary, .. } => {
            let mut out = json!({"publication": publication, "slot": slot, "tables": source.tables, "url": url});
            // A default is not written, as it was before the option came.
            for (name, set) in [("streaming", *streaming), ("failover", *failover), ("binary", *binary)] {
                if set {
                    out[name] = json!(true);
                }
            }
            out
        }
        Component::Sqlite { file } => json!({"file": file, "tables": source.tables}),
    };
    let kind = if matches!(source.component, Component::Postgres { .. }) { "postgres" } else { "sqlite" };
    let snapshot = match source.snapshot {
        // As they were before there were others.
        SnapshotMode::Initial => json!(true),
        SnapshotMode::NoData => json!(false),
        other => json!(other.word()),
    };
    let mut out = json!({kind: component, "snapshot": snapshot});
    if !source.fill_unchanged {
        out["unchanged"] = json!("placeholder");
    }
    if !source.debezium.is_empty() {
        out["debezium"] = json!(source.debezium);
    }
    out.to_string()
}
