//! The one file that knows who is who: broker, workers, connectors, HTTP become one node.

use crate::config::NodeConfig;
use crate::http::{self, View};
use crate::report::{Exit, Failure};
use catchwater_base::log;
use catchwater_broker::{Broker, BrokerConfig, StartError};
use catchwater_client::TaskState;
use catchwater_runtime::Fut;
use catchwater_runtime::shutdown::{self, Stop};
use catchwater_runtime::spawn::Tasks;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A node at work.
pub struct Node {
    broker: Broker,
    state: Arc<State>,
    stop: Stop,
    tasks: Tasks,
    pub kafka: String,
    pub http: String,
}

/// What the HTTP face looks at.
pub struct State {
    ready: AtomicBool,
    metrics: crate::metrics::Metrics,
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
        let state = Arc::new(State { ready: AtomicBool::new(true), metrics: crate::metrics::Metrics::new() });
        let (stop, stopped) = shutdown::channel();
        let tasks = Tasks::new();
        tasks.spawn("http.server", http::serve(listener, Arc::clone(&state) as Arc<dyn View>, stopped));
        let kafka = broker.kafka_address().to_string();
        let node = Node { broker, state, stop, tasks, kafka, http: http.to_string() };
        log!(Info, "node.ready", "kafka {} http {}", node.kafka, node.http);
        Ok(node)
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

    /// True once the log directory has failed: nothing is acknowledged any more.
    pub fn broken(&self) -> Option<String> {
        self.broker.disk_failure().map(|e| e.to_string())
    }

    /// Drain, persist, confirm, end.
    pub async fn shutdown(self) -> Result<(), Failure> {
        self.state.ready.store(false, Ordering::Relaxed);
        self.stop.stop();
        for (name, _) in self.tasks.join(Duration::from_millis(200)).await {
            log!(Debug, "node.late", "{name} was still open");
        }
        self.broker.shutdown().await;
        Ok(())
    }
}

fn broker_config(c: &NodeConfig) -> BrokerConfig {
    let mut b = BrokerConfig::new(c.data_dir.clone(), c.listen);
    b.partitions_default = c.num_partitions;
    b.auto_create = c.auto_create;
    b.group_initial_delay_ms = u32::try_from(c.initial_rebalance_ms).unwrap_or(u32::MAX);
    b.segment_bytes = u32::try_from(c.segment_bytes).unwrap_or(u32::MAX);
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
        StartError::LogDir(open) => {
            Failure::new(Exit::Environment, "CW0002", format!("the data directory {dir} cannot be used"))
                .cause(chain(open))
                .next("give a writable directory with --data-dir")
        }
        other => Failure::new(Exit::Runtime, "CW0203", "the node did not start").cause(chain(other)),
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

impl View for State {
    fn metrics(&self) -> String {
        self.metrics.text(&[])
    }

    fn not_ready(&self) -> Option<String> {
        (!self.ready.load(Ordering::Relaxed)).then(|| "shutting down".to_owned())
    }

    fn api<'a>(&'a self, path: &'a str) -> Fut<'a, Option<Value>> {
        Box::pin(async move { (path == "lag").then(|| json!([])) })
    }
}
