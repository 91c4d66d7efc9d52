//! The one file that knows who is who: broker, workers, connectors, HTTP become one node.

mod behind;
mod give_back;
mod given_file;
mod letters;
mod line;
mod pipelines;
mod reached;
mod resolved;
mod routes;
mod rowless;
pub mod sink_config;
mod supervisor;
mod thin;

#[cfg(test)]
pub use line::Ledger;
pub use line::{WorkerLine, line_json};
pub use pipelines::Wanted;
pub use resolved::{check_offset, is_slot_held, preflight};

use crate::audit::{Audit, KafkaRequests};
use crate::command::refused;
use crate::config::NodeConfig;
use crate::connect::{self, Secrets};
use crate::http::{self, View};
use crate::report::{Exit, Failure};
use catchwater_base::{Clock, log};
use catchwater_broker::audit::Auditor;
use catchwater_broker::{Broker, BrokerConfig, LocalClient, StartError};
use catchwater_client::{ControlClient, Task, TaskState, TopicsWanted};
use catchwater_raft::driver::OpenError;
use catchwater_record::{Caller, PipelineName, TaskId};
use catchwater_runtime::Fut;
use catchwater_runtime::shutdown::{self, Stop, Stopped};
use catchwater_runtime::spawn::Tasks;
use catchwater_runtime::sync::Notify;
use catchwater_runtime::time::{SystemClock, timeout, wall};
use resolved::Resolved;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};
use supervisor::{Broken, Supervisor, Worker};

/// How long the workers may take to end; with the broker's part below the two seconds that Ctrl-C promises.
const END_LIMIT: Duration = Duration::from_millis(1000);
/// The same for a log that is thrown away: what it made elsewhere must be removed, too.
const END_LIMIT_THROWN: Duration = Duration::from_millis(700);
/// When the end must have come, counted from its beginning: what a thrown-away log made elsewhere is removed until then.
const GIVE_BACK_UNTIL: Duration = Duration::from_millis(1300);
/// And databases have at least this long for it.
const GIVE_BACK_LEAST: Duration = Duration::from_millis(500);
/// Kafka's default of `message.max.bytes`.
const MESSAGE_BYTES_MAX: u64 = 1_048_588;
/// How long `run_pipeline` waits for the tasks to begin.
const BEGIN_LIMIT: Duration = Duration::from_secs(10);

/// A node at work.
pub struct Node {
    broker: Broker,
    state: Arc<State>,
    clock: Arc<dyn Clock>,
    stop: Stop,
    stopped: Stopped,
    tasks: Tasks,
    /// Folder for what sources cannot hold in memory.
    spill: PathBuf,
    pub kafka: String,
    pub http: String,
    /// Of the Kafka Connect face, if it is served.
    pub connect: Option<String>,
}

/// What the HTTP face and the screen look at.
pub struct State {
    local: Arc<LocalClient>,
    /// This node, as it speaks to group 0.
    who: Caller,
    workers: Mutex<BTreeMap<TaskId, Worker>>,
    /// Tasks this node holds, as seen last.
    tasks: Mutex<Vec<Task>>,
    broken: Mutex<BTreeMap<TaskId, Broken>>,
    /// Seen beside the workers.
    seen: Mutex<behind::Seen>,
    /// Tasks that are to start again.
    restarts: Mutex<BTreeSet<TaskId>>,
    /// The supervisor should look.
    wake: Notify,
    audit: Arc<Audit>,
    secrets: Secrets,
    /// What runs on a node of `dev`; not set on others, which run all that is stored.
    dev: OnceLock<DevNode>,
    cluster: [u8; 16],
    ready: AtomicBool,
    metrics: crate::metrics::Metrics,
}

impl Node {
    /// Broker and HTTP answer when this returns.
    pub async fn start(config: &NodeConfig) -> Result<Node, Failure> {
        let (listener, http) = http::bind(config.http).await?;
        let connect = bind_connect(config).await?;
        let kafka_requests = Arc::new(KafkaRequests::default());
        let mut broker_config = broker_config(config);
        // `dev` keeps no such record of its own doings, so none of others'.
        broker_config.auditor = config.audit.then(|| Arc::clone(&kafka_requests) as Arc<dyn Auditor>);
        let is_new = !config.data_dir.exists();
        let started = Broker::start(broker_config).await;
        if is_new {
            private(&config.data_dir);
        }
        let broker = started.map_err(|e| start_failure(config, e))?;
        let audit = Arc::new(Audit::new(broker.local()));
        kafka_requests.write_to(&audit);
        let state = Arc::new(State {
            local: broker.local(),
            who: Caller::node(broker.node().config.id),
            workers: Mutex::default(),
            tasks: Mutex::default(),
            broken: Mutex::default(),
            seen: Mutex::default(),
            restarts: Mutex::default(),
            wake: Notify::new(),
            audit,
            secrets: Secrets::new(&config.data_dir),
            dev: OnceLock::new(),
            cluster: broker.cluster_bytes(),
            ready: AtomicBool::new(true),
            metrics: crate::metrics::Metrics::new(),
        });
        let (stop, stopped) = shutdown::channel();
        let tasks = Tasks::new();
        tasks.spawn("http.server", http::serve(listener, Arc::clone(&state) as Arc<dyn View>, stopped.clone()));
        let (connect, face) = connect.unzip();
        if let (Some(listener), Some(address)) = (connect, face) {
            let view = Arc::new(ConnectFace { state: Arc::clone(&state), worker: address.to_string() });
            tasks.spawn("connect.server", http::serve_connect(listener, view, stopped.clone()));
        }
        let connect = face.map(|a| a.to_string());
        let kafka = broker.kafka_address().to_string();
        let clock = Arc::new(SystemClock::default());
        let spill = config.data_dir.join("spill");
        let http = http.to_string();
        let node = Node { broker, state, clock, stop, stopped, tasks, spill, kafka, http, connect };
        let face = node.connect.as_deref().unwrap_or("off");
        log!(Info, "node.ready", "kafka {} http {} connect {face}", node.kafka, node.http);
        Ok(node)
    }

    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.state)
    }

    /// Tells whoever waits that everything answers.
    pub fn write_port_file(&self, path: &Path) -> Result<(), Failure> {
        let text = format!("{}\n", json!({"kafka": self.kafka, "http": self.http, "connect": self.connect}));
        // Written beside and renamed, so that a reader never sees half of it.
        let beside = path.with_extension("part");
        std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path)).map_err(|e| {
            Failure::new(Exit::Environment, "CW0011", format!("cannot write the port file {}", path.display()))
                .cause(e.to_string())
                .next("check the directory of --port-file")
        })
    }

    /// Runs every pipeline that is stored here.
    pub fn run_stored(&self) {
        self.supervise();
    }

    fn supervise(&self) {
        let (cluster, node) = (self.broker.cluster_bytes(), self.broker.node().config.id);
        let supervisor = Supervisor::new(self.state(), cluster, node, Arc::clone(&self.clock), self.spill.clone());
        self.tasks.spawn("tasks.supervisor", supervisor.run(self.stopped.clone()));
        self.tasks.spawn("tasks.watcher", behind::Watcher::new(self.state()).run(self.stopped.clone()));
    }

    /// Stores the pipeline and runs its tasks, and of others what is applied from now on. On the first start, what is wrong with a database is an
    /// error here; later, one that does not answer is retried. `throw_away`: at its end the node removes what it made in
    /// the databases.
    pub async fn run_pipeline(&self, wanted: Wanted, throw_away: bool) -> Result<(), Failure> {
        let (_, planned) = self.state.apply(wanted).await?;
        let resolved = planned.resolved();
        let dev = self.state.dev.get_or_init(|| DevNode { throw_away, runs: Mutex::default() });
        dev.run(&planned.pipeline, &resolved);
        self.supervise();
        self.begun(resolved.pipeline.sources.len() + resolved.pipeline.sinks.len()).await
    }

    /// Waits until every task has begun its work, or is retrying what time may cure. One that cannot begin without a
    /// person is the failure.
    async fn begun(&self, wanted: usize) -> Result<(), Failure> {
        let deadline = Instant::now() + BEGIN_LIMIT;
        loop {
            {
                let workers = self.state.workers();
                let broken = self.state.broken().values().map(|b| b.failure.clone()).next();
                if let Some(mut f) = workers.values().find_map(|w| w.failure.clone()).or(broken) {
                    // This process ends, and a command of the next step asks a node.
                    if f.next.contains("catchwater pipeline reset") {
                        f.next.push_str(" (while `catchwater start` runs on this --data-dir)");
                    }
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
        let thrown_away = self.state.dev.get().filter(|dev| dev.throw_away);
        let limit = if thrown_away.is_some() { END_LIMIT_THROWN } else { END_LIMIT };
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
            if let Some(dev) = thrown_away {
                give_back::run(&dev.plans(), made, cluster, limit).await;
            }
        };
        let close = async {
            match thrown_away {
                // Nobody reads this log again: a slow disk must not hold up the end.
                Some(_) => drop(timeout(limit, self.broker.shutdown()).await),
                None => self.broker.shutdown().await,
            }
        };
        tokio::join!(close, give_back);
        Ok(())
    }
}

/// A data directory that was made holds the rows of databases: for the node's user alone, as a database's own. One that was there stays
/// as it is. The storage makes it, once it has looked at the filesystem; no row is in it yet.
fn private(data_dir: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = std::fs::set_permissions(data_dir, std::fs::Permissions::from_mode(0o700));
}

/// Port 8083 is Kafka Connect's: when it is taken and nobody asked for it, the node runs without this face.
async fn bind_connect(config: &NodeConfig) -> Result<Option<(http::TcpListener, std::net::SocketAddr)>, Failure> {
    let Some(address) = config.connect else { return Ok(None) };
    match http::bind(address).await {
        Ok(bound) => Ok(Some(bound)),
        Err(f) if config.connect_given => Err(f),
        Err(f) => {
            log!(
                Warn,
                "connect.off",
                "Kafka Connect's REST API is not served: {}: {}; give another address with --connect",
                f.message,
                f.cause
            );
            Ok(None)
        }
    }
}

/// A node of `dev`: it runs its file, and what is applied to it while it runs. What an earlier run stored in its
/// directory stays there.
struct DevNode {
    /// At its end the node removes what it made in the databases.
    throw_away: bool,
    runs: Mutex<BTreeMap<PipelineName, Arc<Resolved>>>,
}

impl DevNode {
    fn run(&self, name: &str, plan: &Arc<Resolved>) {
        lock(&self.runs).insert(PipelineName::from(name), Arc::clone(plan));
    }
    fn has(&self, name: &PipelineName) -> bool {
        lock(&self.runs).contains_key(name)
    }
    fn plans(&self) -> Vec<Arc<Resolved>> {
        lock(&self.runs).values().cloned().collect()
    }
}

/// Kafka Connect's face of a node.
struct ConnectFace {
    state: Arc<State>,
    worker: String,
}

impl http::ConnectView for ConnectFace {
    fn answer<'a>(&'a self, request: connect::Request) -> Fut<'a, connect::Reply> {
        Box::pin(connect::answer(&self.state, &self.worker, request))
    }
}

fn broker_config(c: &NodeConfig) -> BrokerConfig {
    let mut b = BrokerConfig::new(c.data_dir.clone(), c.listen);
    b.partitions_default = c.num_partitions;
    b.auto_create = c.auto_create;
    b.group_initial_delay_ms = u32::try_from(c.initial_rebalance_ms).unwrap_or(u32::MAX);
    b.settings.extend(c.topic_defaults.clone());
    // What is the default anyway is not "set": tools show what is.
    if c.message_bytes_max != MESSAGE_BYTES_MAX {
        b.settings.insert("message.max.bytes".into(), c.message_bytes_max.to_string());
    }
    b.upkeep.retention_check_ms = c.retention_check_ms;
    b.upkeep.cleaner_backoff_ms = c.cleaner_backoff_ms;
    b.upkeep.cleaner_memory_bytes = c.cleaner_memory_bytes;
    b.upkeep.cleaner_bytes_per_second = c.cleaner_bytes_per_second;
    if c.compat {
        b.settings.insert("produce.validation".into(), "full".into());
    }
    b.segment_bytes = u32::try_from(c.segment_bytes).unwrap_or(u32::MAX);
    b.upkeep.producer_expiration_ms = c.producer_expiration_ms;
    b.upkeep.nature = thin::nature;
    b.cluster_id = c.cluster_id;
    if let Some(node) = c.node_id {
        (b.node_id, b.expect_node) = (catchwater_record::NodeId(node), true);
    }
    b.allow_unsafe_filesystem = c.allow_unsafe_filesystem;
    b.journal_file_bytes = c.journal_file_bytes;
    b.min_free_bytes = c.min_free_bytes;
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

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(|e| e.into_inner())
}

impl State {
    fn workers(&self) -> MutexGuard<'_, BTreeMap<TaskId, Worker>> {
        lock(&self.workers)
    }
    fn tasks(&self) -> MutexGuard<'_, Vec<Task>> {
        lock(&self.tasks)
    }
    fn broken(&self) -> MutexGuard<'_, BTreeMap<TaskId, Broken>> {
        lock(&self.broken)
    }
    fn seen(&self) -> MutexGuard<'_, behind::Seen> {
        lock(&self.seen)
    }
    fn restarts(&self) -> MutexGuard<'_, BTreeSet<TaskId>> {
        lock(&self.restarts)
    }

    /// Every task of this node, in the order of their ids.
    pub fn lines(&self) -> Vec<WorkerLine> {
        let mut lines: BTreeMap<TaskId, WorkerLine> =
            self.tasks().iter().map(|t| (t.id, WorkerLine::idle(t))).collect();
        for (id, w) in self.workers().iter() {
            let next = w.failure.as_ref().map(|f| f.next.clone()).filter(|n| !n.is_empty());
            let line = w.status.line(&w.task);
            lines.insert(*id, WorkerLine { next: next.or_else(|| line.next.clone()), ..line });
        }
        for (id, b) in self.broken().iter() {
            let mut line = WorkerLine::idle(&b.task);
            line.state = TaskState::NeedsPerson;
            line.error = Some((b.failure.code.clone(), format!("{}: {}", b.failure.message, b.failure.cause)));
            line.next = Some(b.failure.next.clone()).filter(|n| !n.is_empty());
            lines.insert(*id, line);
        }
        let (seen, now) = (self.seen(), wall());
        for (id, line) in &mut lines {
            let standing = match line.kind {
                "sink" => seen.sinks.get(id).and_then(|b| seen.standing.get(&b.source)),
                _ => seen.standing.get(&line.node),
            };
            line.stand(seen.sinks.get(id), standing.copied(), now);
        }
        lines.into_values().collect()
    }

    /// Whether a worker of the pipeline still runs here; one told to stop runs until its last group is applied.
    pub fn has_worker(&self, pipeline: &str) -> bool {
        self.workers().values().any(|w| w.task.pipeline.as_str() == pipeline)
    }

    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// As Kafka writes it.
    pub fn cluster_id(&self) -> String {
        catchwater_record::TopicId(self.cluster).to_string()
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

impl State {
    /// Names of the topics that a source captures into; none if there is no such source.
    pub async fn topics_of(&self, source: &str) -> Vec<String> {
        let Ok((id, _)) = self.local.source(&self.who, catchwater_record::SourceName::from(source)).await else {
            return Vec::new();
        };
        let found = self.local.describe_topics(TopicsWanted::OwnedBy(id)).await.unwrap_or_default();
        found.into_iter().map(|t| t.name.as_str().to_owned()).collect()
    }
}

impl View for State {
    fn metrics(&self) -> String {
        self.metrics.text(&self.lines())
    }

    fn impaired(&self) -> String {
        match catchwater_broker::metrics::down() {
            0 => String::new(),
            n => format!("{n} partitions are offline after panics (CW0206), the others serve\n"),
        }
    }

    fn not_ready(&self) -> Option<String> {
        (!self.ready.load(Ordering::Relaxed)).then(|| "shutting down".to_owned())
    }

    fn checks(&self) -> String {
        let lines = self.lines();
        let standing = lines.iter().filter(|l| l.word() == "needs_person").count();
        let word = |well: bool| if well { "ok" } else { "not ok" };
        let down = catchwater_broker::metrics::down();
        format!(
            "log recovered: ok\nserving: {}\npartitions offline: {down} ({})\ntasks: {}, {standing} wait for a person (not part of readiness: /healthz/pipelines)\n",
            word(self.not_ready().is_none()),
            word(down == 0),
            lines.len(),
        )
    }

    fn pipelines(&self) -> http::Pipelines {
        line::health(&self.lines())
    }

    fn api<'a>(&'a self, request: http::Call) -> Fut<'a, Result<Value, Failure>> {
        Box::pin(routes::answer(self, request))
    }
}
