//! A node from its configuration to its end: opens the log directory, loads group 0, registers, serves.
//!
//! ```text
//!  log directory ─▶ partition of group 0 ─▶ controller loaded ─▶ topics opened ─▶ registered ─▶ listening
//!  end: no new connection ─▶ connections end ─▶ waiters answered ─▶ journal flushed, segments, clean flag
//! ```
//! Nobody is listened to before the committed image is loaded, so the first answer is already the truth.

use crate::api::Address;
use crate::audit::Auditor;
use crate::budget::Budget;
use crate::connection::Limits;
use crate::host::cluster::{ClusterHost, ClusterListener};
use crate::host::group::GroupHosts;
use crate::local::LocalClient;
use crate::node::{ControllerAccess, GroupsAccess, Node, NodeConfig, Volume};
use crate::partition::AckError;
use crate::partition::shell::Partition;
use crate::server::{Server, ServerConfig};
use crate::topics::Topics;
use crate::upkeep::{self, UpkeepConfig};
use catchwater_base::{Clock, log};
use catchwater_coordinator::cluster::brokers::Registration;
use catchwater_coordinator::cluster::configs::{FileSettings, broker_key};
use catchwater_coordinator::cluster::image::{Listener, role};
use catchwater_coordinator::controller;
use catchwater_coordinator::group;
use catchwater_raft::driver::{self, IdentitySeed, LogDir, LogDirConfig, Opened};
use catchwater_record::{Gid, NodeId, TopicId, TopicName, TopicPartition};
use catchwater_runtime::net::TcpListener;
use catchwater_runtime::spawn::{self, Tasks};
use catchwater_runtime::time::{self, SystemClock};
use catchwater_storage::disk::Disk;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Name that the log of group 0 carries in messages; it is no topic.
const CONTROLLER_LOG: &str = "__cluster_metadata";
/// How long loading group 0 may take at start.
const LOAD_LIMIT: Duration = Duration::from_secs(60);
/// How long the start waits for partitions to have their leaders.
const LEAD_LIMIT: Duration = Duration::from_secs(10);
/// How often the start looks whether the log directory still works.
const FAILURE_POLL: Duration = Duration::from_millis(20);
/// How long connections may take to end.
const CLOSE_LIMIT: Duration = Duration::from_millis(500);

/// Everything a node needs. All bounds have defaults; tests make them tiny.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    pub data_dir: PathBuf,
    /// Port 0 = any free one, see [`Broker::kafka_address`].
    pub listen: SocketAddr,
    /// What clients are told; `None` = the address they came in on.
    pub advertised: Option<(String, u16)>,
    /// A listener without authentication beyond loopback: only if the operator says so.
    pub unauthenticated_beyond_loopback: bool,
    /// Of a new directory; an existing one keeps its own, unless `expect_node` says that it must be this one.
    pub node_id: NodeId,
    pub expect_node: bool,
    /// The cluster to found if the directory is new, and the only one whose directory is opened; `None` = drawn, or any.
    pub cluster_id: Option<[u8; 16]>,
    /// `storage.allow.unsafe.filesystem`
    pub allow_unsafe_filesystem: bool,
    /// Length of one journal file, bytes; longer ones are made for batches that need them.
    pub journal_file_bytes: u64,
    pub journal_files: u32,
    pub segment_bytes: u32,
    /// `min.free.bytes`: below it producing is refused; `None` = by the size of the filesystem.
    pub min_free_bytes: Option<u64>,
    /// `num.partitions`
    pub partitions_default: u32,
    /// `auto.create.topics.enable`
    pub auto_create: bool,
    /// `group.initial.rebalance.delay.ms`
    pub group_initial_delay_ms: u32,
    /// A node silent for so long loses its tasks.
    pub lease_ms: u32,
    /// Bytes of newest batches kept in memory for readers, of all partitions together.
    pub tail_bytes_max: u64,
    pub upkeep: UpkeepConfig,
    /// `queued.max.request.bytes`
    pub request_bytes_max: u64,
    /// Bytes of fetch answers read and not sent.
    pub response_bytes_max: u64,
    /// `fetch.max.bytes`
    pub fetch_bytes_max: u64,
    pub limits: Limits,
    /// `max.connections`
    pub connections_max: usize,
    /// Broker settings of the configuration file, by Kafka's names: what topics inherit and DescribeConfigs shows.
    pub settings: FileSettings,
    /// Who keeps what Kafka's requests change; `None` = nobody does.
    pub auditor: Option<Arc<dyn Auditor>>,
}

impl BrokerConfig {
    pub fn new(data_dir: impl Into<PathBuf>, listen: SocketAddr) -> Self {
        let dir = LogDirConfig::default();
        BrokerConfig {
            data_dir: data_dir.into(),
            listen,
            advertised: None,
            unauthenticated_beyond_loopback: false,
            node_id: NodeId(1),
            expect_node: false,
            cluster_id: None,
            allow_unsafe_filesystem: false,
            journal_file_bytes: dir.journal_file_bytes,
            journal_files: dir.journal_files,
            segment_bytes: dir.segment_bytes,
            min_free_bytes: dir.min_free_bytes,
            partitions_default: 1,
            auto_create: true,
            group_initial_delay_ms: 3_000,
            lease_ms: 9_000,
            tail_bytes_max: 64 << 20,
            upkeep: UpkeepConfig::default(),
            request_bytes_max: 256 << 20,
            response_bytes_max: 256 << 20,
            fetch_bytes_max: 57_671_680,
            limits: Limits::default(),
            connections_max: 10_000,
            settings: FileSettings::new(),
            auditor: None,
        }
    }
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the log directory could not be opened")]
    LogDir(#[from] driver::OpenError),
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("{0} is reachable from other machines and asks nobody for a name; listen on a loopback address")]
    BeyondLoopback(SocketAddr),
    #[error("group 0: {0}")]
    Controller(String),
    #[error("the operating system gave no random bytes")]
    Random(#[source] io::Error),
    #[error("bug: {0}")]
    Bug(String),
}

/// Ends when the log directory has stopped.
async fn failed(dir: LogDir) -> driver::DirError {
    loop {
        if let Some(failed) = dir.is_stopped() {
            return failed;
        }
        time::sleep(FAILURE_POLL).await;
    }
}

/// What is there before the log directory is open.
struct Parts {
    config: BrokerConfig,
    server: ServerConfig,
    listeners: Vec<TcpListener>,
    clock: Arc<dyn Clock>,
    /// Unguessable.
    seed: u64,
    /// Of this process start.
    process: [u8; 16],
    volume: Volume,
}

/// A running node.
pub struct Broker {
    node: Arc<Node>,
    dir: LogDir,
    server: Server,
    local: Arc<LocalClient>,
    controller_log: Arc<Partition>,
    cluster: Arc<ClusterHost>,
    cluster_id: [u8; 16],
    tasks: Tasks,
}

impl Broker {
    /// Opens everything and serves. Call inside the runtime; on an error nothing is left running.
    pub async fn start(config: BrokerConfig) -> Result<Broker, StartError> {
        Self::start_on(config, Arc::new(catchwater_storage::disk::real::RealDisk::new())).await
    }

    /// The same on another disk: memory, or one that fails.
    pub async fn start_on(config: BrokerConfig, disk: Arc<dyn Disk>) -> Result<Broker, StartError> {
        if !config.listen.ip().is_loopback() && !config.unauthenticated_beyond_loopback {
            return Err(StartError::BeyondLoopback(config.listen));
        }
        let server = ServerConfig {
            listen: config.listen,
            advertised: config
                .advertised
                .as_ref()
                .map(|(host, port)| Address { host: host.as_str().into(), port: *port }),
            limits: config.limits,
            connections_max: config.connections_max,
        };
        // Bound first: a taken port is found before the directory is touched.
        let listeners =
            Server::bind(&server).await.map_err(|source| StartError::Listen { address: config.listen, source })?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let dir_config = LogDirConfig {
            path: config.data_dir.clone(),
            node_id: config.node_id,
            expect_cluster: config.cluster_id,
            expect_node: config.expect_node.then_some(config.node_id),
            allow_unsafe_filesystem: config.allow_unsafe_filesystem,
            journal_file_bytes: config.journal_file_bytes,
            journal_files: config.journal_files,
            segment_bytes: config.segment_bytes,
            min_free_bytes: config.min_free_bytes,
            ..LogDirConfig::default()
        };
        let volume = Volume::new(disk.clone(), &config.data_dir);
        let random = random().map_err(StartError::Random)?;
        let identity = IdentitySeed { cluster_id: config.cluster_id.unwrap_or(random[0]), dir_id: random[1] };
        let (dir, opened) =
            spawn::blocking(move || LogDir::open(disk, dir_config, identity)).await.map_err(StartError::Bug)??;
        let seed = u64::from_le_bytes(random[2][..8].try_into().unwrap_or_default());
        let parts = Parts { config, server, listeners, clock, seed, process: random[3], volume };
        // A disk that fails meanwhile answers nobody: what the start waits for would never come.
        let started = tokio::select! {
            started = Self::assemble(parts, dir.clone(), opened) => started,
            failed = failed(dir.clone()) => Err(StartError::LogDir(driver::OpenError::Disk(failed.source))),
        };
        match started {
            Ok(broker) => Ok(broker),
            Err(e) => {
                // Nothing is left running: the threads end, the lock on the directory goes.
                let _ = spawn::blocking(move || dir.close()).await;
                Err(e)
            }
        }
    }

    /// Everything behind the open log directory.
    async fn assemble(parts: Parts, dir: LogDir, opened: Opened) -> Result<Broker, StartError> {
        let Parts { config, server, listeners, clock, seed, process, volume } = parts;
        let node_id = opened.node_id;
        let port = listeners.first().and_then(|l| l.local_addr().ok()).map_or(0, |a| a.port());
        let file = facts(&config, node_id, port);
        let topics = Arc::new(Topics::new(
            node_id,
            dir.clone(),
            opened.groups,
            (clock.clone(), seed),
            (file, config.tail_bytes_max),
        ));
        let at = TopicPartition::new(TopicId::NONE, 0);
        let controller_log =
            topics.open(Gid(0), at, TopicName::from(CONTROLLER_LOG)).map_err(StartError::Controller)?;
        let settings = controller::Settings {
            partitions_default: config.partitions_default,
            lease_ms: config.lease_ms,
            ..controller::Settings::default()
        };
        let listener = topics.clone() as Arc<dyn ClusterListener>;
        let cluster = ClusterHost::start(settings, controller_log.clone(), clock.clone(), seed, vec![listener]);
        // Weak: the host holds the topics as its listener.
        let images = Arc::downgrade(&cluster);
        topics.set_images(Arc::new(move || images.upgrade().map(|c| c.image()).unwrap_or_default()));
        if !cluster.ready(LOAD_LIMIT).await {
            let why = cluster.broken().unwrap_or_else(|| "was not loaded in time".into());
            return Err(StartError::Controller(why));
        }
        let group_settings = group::Settings {
            initial_delay_ms: config.group_initial_delay_ms,
            ..group::Settings::from_file(&config.settings)
        };
        let groups = GroupHosts::new(group_settings, topics.clone(), cluster.clone(), clock.clone());
        cluster.also(groups.clone());
        let registration = registration(&config, node_id, port, (process, opened.dir_id));
        cluster.begin(opened.cluster_id, registration).await.map_err(|e| StartError::Controller(e.to_string()))?;
        groups.open();
        // So that the first Metadata answer names leaders. A partition that cannot lead shows there as such.
        topics.led(LEAD_LIMIT).await;
        let node = Arc::new(Node {
            config: NodeConfig {
                id: node_id,
                fetch_bytes_max: config.fetch_bytes_max,
                batch_bytes_max: usize::try_from(dir.batch_bytes_max()).unwrap_or(usize::MAX),
                auto_create: config.auto_create,
                create_wait_ms: 1_000,
            },
            clock,
            request_budget: Budget::new(config.request_bytes_max),
            response_budget: Budget::new(config.response_bytes_max),
            topics,
            controller: cluster.clone() as Arc<dyn ControllerAccess>,
            groups: groups as Arc<dyn GroupsAccess>,
            auditor: config.auditor,
            volume,
        });
        let server = Server::serve(listeners, node.clone(), server)
            .map_err(|source| StartError::Listen { address: config.listen, source })?;
        let tasks = Tasks::new();
        tasks.spawn("ticks", upkeep::tick(node.clone(), controller_log.clone(), dir.clone(), config.upkeep));
        tasks.spawn("reopen", upkeep::reopen(node.clone(), controller_log.clone()));
        tasks.spawn("retention", upkeep::retain(node.clone(), config.upkeep));
        tasks.spawn("compaction", upkeep::compact(node.clone(), config.upkeep));
        log!(Info, "broker.ready", "node {node_id} serves on {}", server.address());
        let local = Arc::new(LocalClient::new(node.clone()));
        Ok(Broker { node, dir, server, local, controller_log, cluster, cluster_id: opened.cluster_id, tasks })
    }

    /// Where Kafka clients connect.
    pub fn kafka_address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Log, tasks and control for workers in this process; [`LocalClient::handle`] gives a worker its own.
    pub fn local(&self) -> Arc<LocalClient> {
        self.local.clone()
    }

    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// As clients see it.
    pub fn cluster_id(&self) -> String {
        crate::metadata::cluster_id(self.cluster_id)
    }

    /// The same, raw: what a sink's position row is claimed with.
    pub fn cluster_bytes(&self) -> [u8; 16] {
        self.cluster_id
    }

    /// Set once the disk has failed: the process must end, nothing is acknowledged any more.
    pub fn disk_failure(&self) -> Option<driver::DirError> {
        self.dir.is_stopped()
    }

    /// Ends in under 2 s: connections first, then everybody who waits, then the log directory with its clean flag.
    pub async fn shutdown(self) {
        let Broker { node, dir, server, local, controller_log, cluster, tasks, .. } = self;
        for name in server.close(CLOSE_LIMIT).await {
            log!(Warn, "broker.shutdown", "{name} did not end in time");
        }
        drop(tasks);
        drop(local);
        // They hold each other: the host its listeners, the group hosts their controller.
        cluster.forget_listeners();
        for partition in node.topics.partitions() {
            partition.close(AckError::LeadershipLost);
        }
        controller_log.close(AckError::LeadershipLost);
        if let Err(why) = spawn::blocking(move || dir.close()).await {
            log!(Error, "broker.shutdown", "closing the log directory: {why}");
        }
    }
}

/// What DescribeConfigs says of this node beside its file: what it really runs with, where that is not the default.
fn facts(config: &BrokerConfig, node_id: NodeId, port: u16) -> FileSettings {
    let mut file = config.settings.clone();
    let listen = format!("PLAINTEXT://{}:{port}", config.listen.ip());
    let told = config.advertised.as_ref().map_or(listen.clone(), |(host, port)| format!("PLAINTEXT://{host}:{port}"));
    let known = [
        ("advertised.listeners", told),
        ("auto.create.topics.enable", config.auto_create.to_string()),
        ("broker.id", node_id.to_string()),
        ("fetch.max.bytes", config.fetch_bytes_max.to_string()),
        ("group.initial.rebalance.delay.ms", config.group_initial_delay_ms.to_string()),
        ("listeners", listen),
        ("log.dirs", config.data_dir.display().to_string()),
        ("log.segment.bytes", config.segment_bytes.to_string()),
        ("node.id", node_id.to_string()),
        ("num.partitions", config.partitions_default.to_string()),
    ];
    for (key, value) in known {
        if broker_key(key).is_some_and(|definition| definition.default != value) {
            file.insert(key.to_owned(), value);
        }
    }
    file
}

/// What this node says of itself to group 0.
fn registration(config: &BrokerConfig, id: NodeId, port: u16, (process, dir): ([u8; 16], [u8; 16])) -> Registration {
    let (host, port) = config.advertised.clone().unwrap_or_else(|| (config.listen.ip().to_string(), port));
    Registration {
        id,
        process,
        listeners: vec![Listener { name: "kafka".into(), host, port }],
        rack: None,
        roles: role::ALL,
        dirs: vec![dir],
    }
}

/// Four ids from the operating system.
fn random() -> io::Result<[[u8; 16]; 4]> {
    let mut out = [[0; 16]; 4];
    for id in &mut out {
        catchwater_runtime::random::fill(id)?;
    }
    Ok(out)
}
