//! A capture worker on a real server into a log in memory, killed and started again at will, and what the log then holds.

use crate::support::*;
use catchwater_capture::properties::Properties;
use catchwater_capture::shape::shaped;
use catchwater_capture::{SnapshotMode, StatusHandle, worker as capture};
use catchwater_change::Stamp;
use catchwater_change::stamp::STAMP_HEADER;
use catchwater_client::memory::MemoryCluster;
use catchwater_client::{Acks, Append, AppendOutcome, Context, ControlClient, LogClient, NewTopic, Owner};
use catchwater_connector_postgres::{PgSource, SourceConfig};
use catchwater_record::batch::build::Builder;
use catchwater_record::batch::{BatchView, iterate};
use catchwater_record::compress;
use catchwater_record::{Caller, CaptureEpoch, CaptureId, Incarnation, NodeId, RevisionNo, TopicPartition};
use catchwater_runtime::shutdown::{self, Stop};
use catchwater_runtime::time::SystemClock;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub struct Rig {
    pub cluster: MemoryCluster,
    pub id: CaptureId,
    pub source: SourceConfig,
    /// Debezium's.
    pub properties: Vec<(&'static str, String)>,
    pub snapshot: SnapshotMode,
    /// Milliseconds between checkpoints.
    pub checkpoint_every_ms: u64,
    epoch: u32,
}

/// A worker that runs; dropping it is a kill at whatever await it stands.
pub struct Running {
    pub task: tokio::task::JoinHandle<String>,
    pub status: StatusHandle,
    pub stop: Stop,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A record of a topic.
#[derive(Debug, Clone)]
pub struct Record {
    pub key: Json,
    /// Null for a tombstone.
    pub value: Json,
    pub stamp: Option<Stamp>,
}

impl Rig {
    pub async fn new(source: SourceConfig) -> Rig {
        let cluster = MemoryCluster::new(7);
        let (id, _) = cluster.client().source(&Caller::node(NodeId(1)), "shop".into()).await.unwrap();
        Rig {
            cluster,
            id,
            source,
            properties: Vec::new(),
            snapshot: SnapshotMode::Initial,
            checkpoint_every_ms: 50,
            epoch: 0,
        }
    }

    /// A worker under a new epoch.
    pub fn start(&mut self) -> Running {
        self.epoch += 1;
        let client = self.cluster.client();
        let properties = Properties::parse(self.properties.iter().map(|(k, v)| (*k, v.as_str()))).unwrap();
        let mut source = SourceConfig { epoch: CaptureEpoch(self.epoch), ..self.source.clone() };
        source.heartbeat = properties.heartbeat.as_ref().map(|h| h.every_ms).zip(properties.heartbeat_query.clone());
        (source.xmin_every_ms, source.xmin) = (properties.xmin_every_ms, properties.options.xmin.clone());
        source.reading = properties.reading.clone();
        let rules = properties.rules.clone();
        let deps = capture::Deps {
            log: client.clone(),
            control: client,
            clock: Arc::new(SystemClock::default()),
            make_source: Box::new(move || shaped(Box::new(PgSource::new(source.clone())), &rules)),
            seed: u64::from(self.epoch),
        };
        let config = capture::Config {
            source: "shop".into(),
            capture: self.id,
            incarnation: Incarnation(0),
            epoch: CaptureEpoch(self.epoch),
            who: Caller::node(NodeId(1)),
            connector: "postgresql",
            prefix: "shop".into(),
            pipeline: "p".into(),
            revision: RevisionNo(1),
            canonical: serde_json::json!({"debezium": self.properties.iter().cloned().collect::<BTreeMap<_, _>>()})
                .to_string(),
            partitions: 2,
            snapshot: self.snapshot,
            snapshot_tables: properties.reading.snapshot_tables.clone(),
            options: properties.options,
            transaction_topic: properties.transaction_topic,
            heartbeat: properties.heartbeat,
            signals: properties.signals,
            notifications: properties.notifications,
            creation: properties.creation,
            limits: capture::Limits {
                checkpoint_every_ms: self.checkpoint_every_ms,
                idle_every_ms: 100,
                ..capture::Limits::default()
            },
        };
        let (worker, status) = capture::Worker::new(deps, config);
        let (stop, stopped) = shutdown::channel();
        Running { task: tokio::spawn(async move { format!("{:?}", worker.run(stopped).await) }), status, stop }
    }

    /// A record of anybody else, in a topic that is made if it is not there.
    pub async fn produce(&self, topic: &str, key: &str, value: &str) {
        let client = self.cluster.client();
        if !self.cluster.topics().iter().any(|(name, ..)| name.as_str() == topic) {
            let new = NewTopic {
                name: topic.into(),
                partitions: Some(1),
                replication: None,
                configs: Vec::new(),
                owner: Owner::Nobody,
            };
            client.create_topics(&Caller::node(NodeId(1)), vec![new]).await.unwrap()[0].as_ref().unwrap();
        }
        let (_, id, _) = self.cluster.topics().into_iter().find(|(name, ..)| name.as_str() == topic).unwrap();
        let mut batch = Builder::new();
        batch.push(1, Some(key.as_bytes()), Some(value.as_bytes()), []);
        let how = Append { context: Context::None, acks: Acks::All, timeout_ms: 1000 };
        let done = client.append(TopicPartition::new(id, 0), batch.finish().freeze(), how).await;
        assert!(matches!(done, AppendOutcome::Appended { .. }), "{done:?}");
    }

    /// Everything a topic holds, partition by partition.
    pub fn records(&self, topic: &str) -> Vec<Record> {
        let found = self.cluster.topics().into_iter().find(|(name, ..)| name.as_str() == topic);
        let Some((_, id, partitions)) = found else { return Vec::new() };
        let mut out = Vec::new();
        for partition in 0..partitions {
            for (_, batch) in self.cluster.batches(TopicPartition::new(id, partition)) {
                let view = BatchView::new(&batch).unwrap();
                let section = compress::section(&view, usize::MAX).unwrap();
                for record in iterate::records(&section, view.records_count() as u32) {
                    let record = record.unwrap();
                    let json = |b: Option<&[u8]>| b.map_or(Json::Null, |b| serde_json::from_slice(b).unwrap());
                    let stamp = record.header(STAMP_HEADER).flatten().map(|s| Stamp::decode(s).unwrap());
                    out.push(Record { key: json(record.key), value: json(record.value), stamp });
                }
            }
        }
        out
    }
}

impl Running {
    /// Waits until `done`; the worker must live meanwhile.
    pub async fn until(&mut self, what: &str, mut done: impl FnMut(&StatusHandle) -> bool) {
        let start = Instant::now();
        while !done(&self.status) {
            if self.task.is_finished() {
                panic!("{what}: the capture ended: {:?}", (&mut self.task).await);
            }
            assert!(start.elapsed() < LIMIT * 2, "{what}: {:?}", self.status.get());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
