//! The one file that knows who is who: broker, workers, connectors, HTTP become one node.

mod give_back;

use crate::command::refused;
use crate::config::NodeConfig;
use crate::groups;
use crate::http::{self, View};
use crate::pipeline::model::{Component, Pipeline, Sink, Source};
use crate::pipeline::secret::{self, Reference};
use crate::report::{Exit, Failure};
use catchwater_base::{Clock, log};
use catchwater_broker::{Broker, BrokerConfig, LocalClient, StartError};
use catchwater_capture as capture;
use catchwater_capture::source::{Finding, Severity};
use catchwater_client::{
    ControlClient, LogClient, PipelineChange, Report, Task, TaskClient, TaskKind, TaskState, TopicsWanted, Wish,
};
use catchwater_connector_postgres as postgres;
use catchwater_connector_sqlite as sqlite;
use catchwater_deliver as deliver;
use catchwater_deliver::sink::SinkError;
use catchwater_raft::driver::OpenError;
use catchwater_record::{
    Caller, CaptureEpoch, CaptureId, Incarnation, NodeId, PipelineName, RevisionNo, SinkName, SourceName, TaskEpoch,
    TaskId, TasksVersion,
};
use catchwater_runtime::Fut;
use catchwater_runtime::shutdown::{self, Stop, Stopped};
use catchwater_runtime::spawn::{Task as Running, Tasks, spawn};
use catchwater_runtime::time::{SystemClock, timeout};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

/// How long the workers may take to end; with the broker's part below the two seconds that Ctrl-C promises.
const END_LIMIT: Duration = Duration::from_millis(1000);
/// The same for a log that is thrown away: what it made elsewhere must be removed, too.
const END_LIMIT_THROWN: Duration = Duration::from_millis(700);
/// When the end must have come, counted from its beginning: what a thrown-away log made elsewhere is removed until then.
const GIVE_BACK_UNTIL: Duration = Duration::from_millis(1300);
/// And databases have at least this long for it.
const GIVE_BACK_LEAST: Duration = Duration::from_millis(500);
/// Workers report at least that often.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How long `run_pipeline` waits for the tasks to begin.
const BEGIN_LIMIT: Duration = Duration::from_secs(10);
/// How long a database's preflight may take.
const PREFLIGHT_LIMIT: Duration = Duration::from_secs(20);

/// A node at work.
pub struct Node {
    broker: Broker,
    state: Arc<State>,
    clock: Arc<dyn Clock>,
    stop: Stop,
    stopped: Stopped,
    tasks: Tasks,
    /// The pipeline of a log that is thrown away at the end.
    thrown_away: OnceLock<Arc<Plan>>,
    pub kafka: String,
    pub http: String,
}

/// What the HTTP face and the screen look at.
pub struct State {
    local: Arc<LocalClient>,
    workers: Mutex<BTreeMap<TaskId, Worker>>,
    ready: AtomicBool,
    metrics: crate::metrics::Metrics,
}

/// One running task.
struct Worker {
    task: Task,
    stop: Stop,
    status: WorkerStatus,
    running: Running<End>,
    /// Why it ended for good.
    failure: Option<Failure>,
}

#[derive(Clone)]
enum WorkerStatus {
    Capture(capture::StatusHandle),
    Deliver(deliver::StatusHandle),
}

/// How a worker ended.
enum End {
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

/// One line of `lag`, and of the demo's table.
#[derive(Clone, Debug)]
pub struct WorkerLine {
    pub pipeline: String,
    pub node: String,
    pub kind: &'static str,
    pub state: TaskState,
    pub rows: u64,
    pub lag_ms: u64,
    pub lag_bytes: Option<u64>,
    pub position: String,
    /// Rows and units of a snapshot.
    pub snapshot: Option<(u64, u64, u64)>,
    pub tables: BTreeMap<String, u64>,
    pub error: Option<(String, String)>,
}

impl Node {
    /// Broker and HTTP answer when this returns.
    pub async fn start(config: &NodeConfig) -> Result<Node, Failure> {
        let (listener, http) = http::bind(config.http).await?;
        let broker = Broker::start(broker_config(config)).await.map_err(|e| start_failure(config, e))?;
        let state = Arc::new(State {
            local: broker.local(),
            workers: Mutex::default(),
            ready: AtomicBool::new(true),
            metrics: crate::metrics::Metrics::new(),
        });
        let (stop, stopped) = shutdown::channel();
        let tasks = Tasks::new();
        tasks.spawn("http.server", http::serve(listener, Arc::clone(&state) as Arc<dyn View>, stopped.clone()));
        let kafka = broker.kafka_address().to_string();
        let clock = Arc::new(SystemClock::default());
        let thrown_away = OnceLock::new();
        let node = Node { broker, state, clock, stop, stopped, tasks, thrown_away, kafka, http: http.to_string() };
        log!(Info, "node.ready", "kafka {} http {}", node.kafka, node.http);
        Ok(node)
    }

    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.state)
    }

    /// Tells whoever waits that everything answers.
    pub fn write_port_file(&self, path: &Path) -> Result<(), Failure> {
        let text = format!("{}\n", json!({"kafka": self.kafka, "http": self.http}));
        // Written beside and renamed, so that a reader never sees half of it.
        let beside = path.with_extension("part");
        std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path)).map_err(|e| {
            Failure::new(Exit::Environment, "CW0011", format!("cannot write the port file {}", path.display()))
                .cause(e.to_string())
                .next("check the directory of --port-file")
        })
    }

    /// Stores the pipeline and runs its tasks. On the first start, what is wrong with a database is an error here; later,
    /// one that does not answer is retried. `throw_away`: at its end the node removes what it made in the databases.
    pub async fn run_pipeline(
        &self,
        pipeline: Pipeline,
        text: String,
        base: &Path,
        throw_away: bool,
    ) -> Result<(), Failure> {
        let id = self.broker.node().config.id;
        let who = Caller::node(id);
        let local = &self.state.local;
        let known = local.pipelines().await.map_err(control_failure)?;
        let plan = Arc::new(Plan::resolve(pipeline, base)?);
        let name = plan.pipeline.name.as_str();
        let newest = known.iter().find(|p| p.name.as_str() == name).map(|p| p.revision);
        if newest.is_none() {
            show_findings(plan.preflight().await?)?;
        }
        let mut captures = Vec::new();
        let mut incarnations = BTreeMap::new();
        for source in plan.pipeline.sources.keys() {
            let (id, incarnation) =
                local.source(&who, SourceName::from(source.as_str())).await.map_err(control_failure)?;
            captures.push((source.clone(), id));
            incarnations.insert(source.clone(), (id, incarnation));
        }
        let change = PipelineChange::Put {
            name: PipelineName::from(name),
            base: newest.unwrap_or(RevisionNo(0)),
            text,
            captures,
            sinks: plan.pipeline.sinks.keys().cloned().collect(),
        };
        local.change_pipeline(&who, change).await.map_err(control_failure)?;
        if throw_away {
            let _ = self.thrown_away.set(Arc::clone(&plan));
        }
        let supervisor = Supervisor {
            state: self.state(),
            plan,
            incarnations,
            cluster: self.broker.cluster_bytes(),
            node: id,
            clock: Arc::clone(&self.clock),
        };
        let wanted = supervisor.plan.pipeline.sources.len() + supervisor.plan.pipeline.sinks.len();
        self.tasks.spawn("tasks.supervisor", supervisor.run(self.stopped.clone()));
        self.begun(wanted).await
    }

    /// Waits until every task has begun its work, or is retrying what time may cure. One that cannot begin without a
    /// person is the failure.
    async fn begun(&self, wanted: usize) -> Result<(), Failure> {
        let deadline = Instant::now() + BEGIN_LIMIT;
        loop {
            {
                let workers = self.state.workers();
                if let Some(f) = workers.values().find_map(|w| w.failure.clone()) {
                    return Err(f);
                }
                let begun = workers.values().filter(|w| w.status.line(&w.task).state != TaskState::Starting);
                if begun.filter(|w| w.status.line(&w.task).state != TaskState::NeedsPerson).count() >= wanted {
                    return Ok(());
                }
            }
            if Instant::now() > deadline {
                return Ok(());
            }
            catchwater_runtime::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Set once the log directory has failed: nothing is acknowledged any more.
    pub fn broken(&self) -> Option<String> {
        self.broker.disk_failure().map(|e| e.to_string())
    }

    /// Drain, persist, confirm, end.
    pub async fn shutdown(self) -> Result<(), Failure> {
        let begun = Instant::now();
        self.state.ready.store(false, Ordering::Relaxed);
        self.stop.stop();
        // The supervisor first, so that it starts nothing again.
        let _ = self.tasks.join(Duration::from_millis(100)).await;
        let workers = std::mem::take(&mut *self.state.workers());
        for w in workers.values() {
            w.stop.stop();
        }
        let made: Vec<_> = workers.values().filter_map(give_back::made_by).collect();
        // Deliver commits what is written, capture confirms what is durable; all at the same time.
        let limit = if self.thrown_away.get().is_some() { END_LIMIT_THROWN } else { END_LIMIT };
        let deadline = Instant::now() + limit;
        for w in workers.into_values().filter(|w| w.failure.is_none()) {
            let left = deadline.saturating_duration_since(Instant::now());
            let name = w.running.name().to_owned();
            if timeout(left, w.running.join()).await.is_err() {
                log!(
                    Warn,
                    "node.late",
                    "{name} was still running at the end; it goes on where it was at the next start"
                );
            }
        }
        let cluster = self.broker.cluster_bytes();
        let limit = GIVE_BACK_UNTIL.saturating_sub(begun.elapsed()).max(GIVE_BACK_LEAST);
        let give_back = async {
            if let Some(plan) = self.thrown_away.get() {
                give_back::run(plan, made, cluster, limit).await;
            }
        };
        let close = async {
            match self.thrown_away.get() {
                // Nobody reads this log again: a slow disk must not hold up the end.
                Some(_) => drop(timeout(limit, self.broker.shutdown()).await),
                None => self.broker.shutdown().await,
            }
        };
        tokio::join!(close, give_back);
        Ok(())
    }
}

fn broker_config(c: &NodeConfig) -> BrokerConfig {
    let mut b = BrokerConfig::new(c.data_dir.clone(), c.listen);
    b.partitions_default = c.num_partitions;
    b.auto_create = c.auto_create;
    b.group_initial_delay_ms = u32::try_from(c.initial_rebalance_ms).unwrap_or(u32::MAX);
    b.settings.extend(c.topic_defaults.clone());
    b.settings.insert("message.max.bytes".into(), c.message_bytes_max.to_string());
    b.retention_check_ms = c.retention_check_ms;
    if c.compat {
        b.settings.insert("produce.validation".into(), "full".into());
    }
    b.segment_bytes = u32::try_from(c.segment_bytes).unwrap_or(u32::MAX);
    b.cluster_id = c.cluster_id;
    if let Some(node) = c.node_id {
        (b.node_id, b.expect_node) = (catchwater_record::NodeId(node), true);
    }
    b.allow_unsafe_filesystem = c.allow_unsafe_filesystem;
    b
}

fn start_failure(c: &NodeConfig, e: StartError) -> Failure {
    let chain = |e: &dyn std::error::Error| {
        let mut text = e.to_string();
        let mut at = e.source();
        while let Some(e) = at {
            text.push_str(&format!(": {e}"));
            at = e.source();
        }
        text
    };
    let dir = c.data_dir.display();
    match &e {
        StartError::Listen { address, source } => {
            Failure::new(Exit::Environment, "CW0001", format!("cannot listen on {address} (Kafka)"))
                .cause(source.to_string())
                .next("stop the other process, or choose another address with --listen (port 0 picks a free one)")
        }
        StartError::BeyondLoopback(address) => {
            Failure::new(Exit::Refused, "CW0005", format!("{address} is not a loopback address"))
        }
        StartError::LogDir(OpenError::Locked(_)) => refused::in_use(&dir.to_string()),
        StartError::LogDir(OpenError::Format { path, why }) => refused::format(path, why),
        StartError::LogDir(OpenError::Newer { path, found, known }) => refused::newer(path, *found, *known),
        StartError::LogDir(OpenError::Filesystem { path, kind }) => refused::filesystem(path, kind),
        StartError::LogDir(OpenError::Foreign { path, found, wanted }) => refused::foreign(path, found, wanted),
        StartError::LogDir(open) => {
            Failure::new(Exit::Environment, "CW0002", format!("the data directory {dir} cannot be used"))
                .cause(chain(open))
                .next("give a writable directory with --data-dir")
        }
        other => Failure::new(Exit::Runtime, "CW0203", "the node did not start")
            .cause(chain(other))
            .next("keep the data directory as it is and report this"),
    }
}

fn control_failure(e: catchwater_client::ControlError) -> Failure {
    Failure::new(Exit::Runtime, "CW0303", format!("the pipeline was refused: {e}"))
        .next("correct the file and start again")
}

/// A pipeline whose references are resolved.
struct Plan {
    pipeline: Pipeline,
    /// Fully resolved component of each node: holds secrets, never printed.
    sources: BTreeMap<String, Component>,
    sinks: BTreeMap<String, Component>,
    /// The folder of the pipeline file.
    base: PathBuf,
}

impl Plan {
    fn resolve(pipeline: Pipeline, base: &Path) -> Result<Plan, Failure> {
        let one = |c: &Component| resolve_component(c, base);
        let sources = pipeline
            .sources
            .iter()
            .map(|(n, s)| Ok((n.clone(), one(&s.component)?)))
            .collect::<Result<_, Failure>>()?;
        let sinks =
            pipeline.sinks.iter().map(|(n, s)| Ok((n.clone(), one(&s.component)?))).collect::<Result<_, Failure>>()?;
        Ok(Plan { pipeline, sources, sinks, base: base.to_owned() })
    }

    /// Asks every source and target what would stop it.
    async fn preflight(&self) -> Result<Vec<(String, Finding)>, Failure> {
        let mut findings: Vec<(String, Finding)> = Vec::new();
        for (name, source) in &self.pipeline.sources {
            let mut make = self.source_maker(name, source, CaptureEpoch(0))?;
            let mut connector = make();
            let found =
                timeout(PREFLIGHT_LIMIT, connector.preflight()).await.unwrap_or_else(|_| vec![late("the source")]);
            findings.extend(found.into_iter().map(|f| (format!("source {name}"), f)));
            connector.close().await;
        }
        for name in self.pipeline.sinks.keys() {
            let mut sink = self.sink(name)?;
            let found = match timeout(PREFLIGHT_LIMIT, sink.preflight()).await {
                Ok(Ok(())) => Vec::new(),
                Ok(Err(e)) => vec![as_finding(&e)],
                Err(_) => vec![late("the target")],
            };
            findings.extend(found.into_iter().map(|f| (format!("sink {name}"), f)));
            sink.shutdown().await;
        }
        Ok(findings)
    }

    fn source_maker(
        &self,
        name: &str,
        source: &Source,
        epoch: CaptureEpoch,
    ) -> Result<capture::worker::MakeSource, Failure> {
        let source_name = SourceName::from(name);
        match &self.sources[name] {
            Component::Postgres { url, slot, publication, .. } => {
                let connect = postgres::ConnectConfig::parse(url)
                    .map(|c| c.relative_to(&self.base))
                    .map_err(|e| source_failure(name, &postgres::source::url_error(&e)))?;
                let tables = source.tables.iter().map(|t| postgres::TableRef::parse(t)).collect();
                let mut config = postgres::SourceConfig::new(source_name, epoch, connect, tables);
                config.slot.clone_from(slot);
                config.publication.clone_from(publication);
                Ok(Box::new(move || Box::new(postgres::PgSource::new(config.clone()))))
            }
            Component::Sqlite { file } => {
                let mut config = sqlite::SourceConfig::new(file);
                config.tables.clone_from(&source.tables);
                Ok(Box::new(move || Box::new(sqlite::SqliteSource::new(config.clone()))))
            }
        }
    }

    fn sink(&self, name: &str) -> Result<Box<dyn deliver::sink::Sink>, Failure> {
        Ok(match &self.sinks[name] {
            Component::Postgres { url, .. } => {
                let connect = postgres::ConnectConfig::parse(url)
                    .map(|c| c.relative_to(&self.base))
                    .map_err(|e| sink_failure(name, &postgres::sink::url_error(&e)))?;
                Box::new(postgres::PgSink::new(postgres::SinkConfig::new(connect)))
            }
            Component::Sqlite { file } => Box::new(sqlite::SqliteSink::new(sqlite::SinkConfig::new(file))),
        })
    }
}

fn resolve_component(c: &Component, base: &Path) -> Result<Component, Failure> {
    let mut read = |r: Reference<'_>| match r {
        Reference::Env(name) => std::env::var(name).map_err(|_| format!("environment variable {name} is not set")),
        Reference::File(path) => std::fs::read_to_string(base.join(path))
            .map(|t| t.trim_end_matches(['\n', '\r']).to_owned())
            .map_err(|e| format!("file {path}: {e}")),
    };
    let mut one = |text: &str| {
        secret::resolve(text, &mut read).map_err(|why| {
            Failure::new(Exit::Refused, "CW0332", "a reference cannot be read")
                .cause(why)
                .next("set the variable, or write the file")
        })
    };
    Ok(match c {
        Component::Postgres { url, schema, slot, publication } => Component::Postgres {
            url: one(url)?,
            schema: schema.clone(),
            slot: slot.clone(),
            publication: publication.clone(),
        },
        Component::Sqlite { file } => {
            let file = one(file)?;
            // Relative to the pipeline file, as everything in it.
            Component::Sqlite { file: base.join(file).display().to_string() }
        }
    })
}

fn source_failure(name: &str, e: &capture::source::SourceError) -> Failure {
    Failure::new(Exit::Environment, &e.code.to_string(), format!("source {name}: {}", e.what)).next(e.next.clone())
}

fn sink_failure(name: &str, e: &SinkError) -> Failure {
    Failure::new(Exit::Environment, &e.code.to_string(), format!("sink {name}: {}", e.what)).next(e.next.clone())
}

fn late(what: &str) -> Finding {
    Finding {
        code: catchwater_record::ErrorCode(13),
        severity: Severity::Error,
        fault: format!("{what} gave no answer within {} s", PREFLIGHT_LIMIT.as_secs()),
        evidence: String::new(),
        cure: "check that it is reachable and not overloaded".into(),
        sql: Vec::new(),
        retry: true,
    }
}

/// What `doctor FILE` shows.
pub async fn preflight(pipeline: Pipeline, base: &Path) -> Result<Vec<(String, Finding)>, Failure> {
    Plan::resolve(pipeline, base)?.preflight().await
}

fn as_finding(e: &SinkError) -> Finding {
    Finding {
        code: e.code,
        severity: Severity::Error,
        fault: e.what.clone(),
        evidence: String::new(),
        cure: e.next.clone(),
        sql: Vec::new(),
        retry: false,
    }
}

/// Prints every finding; the first error becomes the failure.
pub fn show_findings(findings: Vec<(String, Finding)>) -> Result<(), Failure> {
    let mut first: Option<Failure> = None;
    for (node, f) in findings {
        let mut cure = f.cure.clone();
        if !f.sql.is_empty() {
            cure.push_str(&format!("\n         {}", f.sql.join("\n         ")));
        }
        if f.severity == Severity::Warning {
            eprintln!("warning[{}]: {node}: {}\n  cause: {}\n  next:  {cure}", f.code, f.fault, f.evidence);
            continue;
        }
        let failure = Failure::new(Exit::Environment, &f.code.to_string(), format!("{node}: {}", f.fault))
            .cause(f.evidence.clone())
            .next(cure.clone());
        match &first {
            None => first = Some(failure),
            Some(_) => eprintln!("error[{}]: {node}: {}\n  cause: {}\n  next:  {cure}", f.code, f.fault, f.evidence),
        }
    }
    first.map_or(Ok(()), Err)
}

/// Starts and ends workers as the task machine says.
struct Supervisor {
    state: Arc<State>,
    plan: Arc<Plan>,
    incarnations: BTreeMap<String, (CaptureId, Incarnation)>,
    cluster: [u8; 16],
    node: NodeId,
    clock: Arc<dyn Clock>,
}

impl Supervisor {
    async fn run(self, mut stopped: Stopped) {
        let mut seen = TasksVersion(0);
        loop {
            let wanted = tokio::select! {
                w = timeout(REPORT_EVERY, self.state.local.mine(seen)) => w,
                () = stopped.wait() => return,
            };
            if let Ok(Ok(tasks)) = wanted {
                seen = tasks.version;
                self.adjust(tasks.tasks);
            }
            self.look_after().await;
            self.report().await;
            if stopped.is_stopped() {
                return;
            }
        }
    }

    fn adjust(&self, tasks: Vec<Task>) {
        let mut workers = self.state.workers();
        workers.retain(|id, w| {
            let keep = tasks.iter().any(|t| t.id == *id && t.epoch == w.task.epoch && t.wish == Wish::Run);
            if !keep {
                // Dropping the worker aborts it: safe at every point, its fence has passed to the next holder.
                w.stop.stop();
            }
            keep
        });
        for task in tasks {
            if task.wish != Wish::Run
                || workers.contains_key(&task.id)
                || task.pipeline.as_str() != self.plan.pipeline.name
            {
                continue;
            }
            match self.start(&task) {
                Ok(worker) => drop(workers.insert(task.id, worker)),
                Err(f) => log!(Error, "task.start", "{} {}: {}", task.pipeline, task.node, f.message),
            }
        }
    }

    /// Workers that ended by themselves: what a person must know is said once; a used-up epoch is asked for anew.
    async fn look_after(&self) {
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
            match w.running.result().await {
                Ok(End::Failed { code, what, next }) => {
                    log!(Error, "task.failed", "{name}: {code} {what}; next: {next}");
                    w.failure = Some(Failure::new(Exit::Environment, &code, format!("{name}: {what}")).next(next));
                    self.state.workers().insert(id, w);
                }
                Ok(End::Stopped | End::Fenced | End::NewEpoch) => {
                    log!(Info, "task.ended", "{name}");
                    let _ = self.state.local.release(id, w.task.epoch).await;
                }
                Err(panic) => {
                    log!(Error, "task.panicked", "{name}: {panic}; it is started again");
                    let _ = self.state.local.release(id, w.task.epoch).await;
                }
            }
        }
    }

    fn start(&self, task: &Task) -> Result<Worker, Failure> {
        let (stop, stopped) = shutdown::channel();
        let name = format!("{}.{}", task.pipeline, task.node);
        let node = task.node.as_str().to_owned();
        let (status, running) = match task.kind {
            TaskKind::Capture(id) => self.capture(task, &node, id, name, stopped)?,
            TaskKind::Deliver => self.deliver(task, &node, name, stopped)?,
        };
        log!(Info, "task.started", "{} {} epoch {}", task.pipeline, task.node, task.epoch);
        Ok(Worker { task: task.clone(), stop, status, running, failure: None })
    }

    fn capture(
        &self,
        task: &Task,
        node: &str,
        id: CaptureId,
        name: String,
        stopped: Stopped,
    ) -> Result<(WorkerStatus, Running<End>), Failure> {
        let missing = || Failure::new(Exit::Runtime, "CW0303", format!("the pipeline has no source {node}"));
        let source = self.plan.pipeline.sources.get(node).ok_or_else(missing)?;
        let epoch = CaptureEpoch(task.epoch.0);
        let handle = Arc::new(self.state.local.handle());
        let deps = capture::Deps {
            log: Arc::clone(&handle) as Arc<dyn LogClient>,
            control: handle as Arc<dyn ControlClient>,
            clock: Arc::clone(&self.clock),
            make_source: self.plan.source_maker(node, source, epoch)?,
            seed: u64::from(task.epoch.0),
        };
        let connector = match source.component {
            Component::Postgres { .. } => "postgresql",
            Component::Sqlite { .. } => "sqlite",
        };
        let config = capture::Config {
            source: SourceName::from(node),
            capture: id,
            incarnation: self.incarnations.get(node).map_or(Incarnation(0), |(_, i)| *i),
            epoch,
            who: Caller::node(self.node),
            connector,
            prefix: node.to_owned(),
            pipeline: task.pipeline.clone(),
            revision: task.revision,
            canonical: canonical(source),
            partitions: 1,
            snapshot: source.snapshot,
            tombstones: true,
            limits: capture::worker::Limits::default(),
        };
        let (worker, status) = capture::Worker::new(deps, config);
        let running = spawn(name, async move {
            match worker.run(stopped).await {
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
        node: &str,
        name: String,
        stopped: Stopped,
    ) -> Result<(WorkerStatus, Running<End>), Failure> {
        let missing = || Failure::new(Exit::Runtime, "CW0303", format!("the pipeline has no sink {node}"));
        let sink = self.plan.pipeline.sinks.get(node).ok_or_else(missing)?;
        let source = sink.source().to_owned();
        let (capture, incarnation) = self.incarnations.get(&source).copied().ok_or_else(missing)?;
        let handle = Arc::new(self.state.local.handle());
        let deps = deliver::Deps {
            log: Arc::clone(&handle) as Arc<dyn LogClient>,
            control: handle as Arc<dyn ControlClient>,
            clock: Arc::clone(&self.clock),
            sink: self.plan.sink(node)?,
            wire: Arc::new(deliver::wire::ChangeWire),
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
        config.tables = deliver::TableFilter::Named(table_filter(sink, &source, &self.plan.pipeline.sources[&source]));
        config.naming = match &sink.component {
            Component::Postgres { schema: Some(s), .. } => deliver::SchemaNaming::Into(s.clone()),
            // A SQLite source has the schema `main`; PostgreSQL's default is `public`.
            Component::Postgres { schema: None, .. } => match &self.plan.pipeline.sources[&source].component {
                Component::Sqlite { .. } => deliver::SchemaNaming::Into("public".into()),
                Component::Postgres { .. } => deliver::SchemaNaming::Keep,
            },
            Component::Sqlite { .. } => deliver::SchemaNaming::Into(String::new()),
        };
        config.renames = sink
            .tables
            .iter()
            .filter_map(|(full, o)| Some((full.strip_prefix(&source)?.strip_prefix('.')?.to_owned(), o.name.clone()?)))
            .collect();
        if let Some(rows) = sink.batch_rows {
            config.batch.rows = usize::try_from(rows).unwrap_or(usize::MAX);
        }
        if let Some(bytes) = sink.batch_bytes {
            config.batch.bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        }
        if let Some(ms) = sink.linger_ms {
            config.batch.linger_ms = ms;
        }
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

/// Tables of the source that the sink asked for, as `schema.table` or with `*`.
fn table_filter(sink: &Sink, source: &str, of: &Source) -> Vec<String> {
    sink.from.iter().flat_map(|f| of.table_names(f, source)).collect()
}

/// The source's block as JSON with sorted keys, references unresolved: what a CONFIG record keeps.
fn canonical(source: &Source) -> String {
    let component = match &source.component {
        Component::Postgres { url, slot, publication, .. } => {
            json!({"publication": publication, "slot": slot, "tables": source.tables, "url": url})
        }
        Component::Sqlite { file } => json!({"file": file, "tables": source.tables}),
    };
    let kind = if matches!(source.component, Component::Postgres { .. }) { "postgres" } else { "sqlite" };
    json!({kind: component, "snapshot": source.snapshot}).to_string()
}

impl WorkerStatus {
    fn line(&self, task: &Task) -> WorkerLine {
        let mut line = WorkerLine {
            pipeline: task.pipeline.to_string(),
            node: task.node.to_string(),
            kind: "",
            state: TaskState::Starting,
            rows: 0,
            lag_ms: 0,
            lag_bytes: None,
            position: String::new(),
            snapshot: None,
            tables: BTreeMap::new(),
            error: None,
        };
        match self {
            WorkerStatus::Capture(h) => {
                let s = h.get();
                line.kind = "source";
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
                line.error = s.last_error.map(|(c, w)| (c.to_string(), w));
            }
            WorkerStatus::Deliver(h) => {
                let s = h.read();
                line.kind = "sink";
                line.state = s.state;
                line.rows = s.rows;
                line.lag_ms = s.lag_ms;
                line.position = s.position.to_string();
                line.tables = s.tables;
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

impl State {
    fn workers(&self) -> MutexGuard<'_, BTreeMap<TaskId, Worker>> {
        self.workers.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn lines(&self) -> Vec<WorkerLine> {
        self.workers().values().map(|w| w.status.line(&w.task)).collect()
    }

    pub fn local(&self) -> &Arc<LocalClient> {
        &self.local
    }

    /// Names of the captured topics.
    pub async fn captured_topics(&self) -> Vec<catchwater_client::Topic> {
        let mut topics = self.local.describe_topics(TopicsWanted::All).await.unwrap_or_default();
        topics
            .retain(|t| matches!(t.owner, catchwater_client::Owner::Capture(..)) && !t.name.as_str().starts_with("__"));
        topics
    }
}

impl View for State {
    fn metrics(&self) -> String {
        self.metrics.text(&self.lines())
    }

    fn not_ready(&self) -> Option<String> {
        (!self.ready.load(Ordering::Relaxed)).then(|| "shutting down".to_owned())
    }

    fn api<'a>(&'a self, path: &'a str) -> Fut<'a, Option<Value>> {
        Box::pin(async move {
            match path {
                "lag" => Some(self.lines().iter().map(line_json).collect()),
                "groups" => Some(groups::list(&self.local).await),
                _ => groups::describe(&self.local, &unescape(path.strip_prefix("groups/")?)).await,
            }
        })
    }
}

pub fn line_json(l: &WorkerLine) -> Value {
    json!({
        "pipeline": l.pipeline, "node": l.node, "kind": l.kind, "state": state_word(l.state), "rows": l.rows,
        "lag_ms": l.lag_ms, "lag_bytes": l.lag_bytes, "position": l.position,
        "snapshot": l.snapshot.map(|(rows, done, all)| json!({"rows": rows, "units_done": done, "units": all})),
        "tables": l.tables,
        "error": l.error.as_ref().map(|(code, what)| format!("{code} {what}")),
    })
}

/// Percent-decoding; what is malformed stays as it is.
fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((b, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|h| std::str::from_utf8(h).ok()).and_then(|h| u8::from_str_radix(h, 16).ok());
        match (*b, hex) {
            (b'%', Some(v)) => {
                out.push(v);
                rest = &tail[2..];
            }
            (b, _) => {
                out.push(b);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
