//! Pure. The machine of group 0: the cluster's image and its tasks, in one log, so that one decision sees both.
//!
//! ```text
//!  Request ──decide──▶ records ──replay──▶ Image + Tasks      (speculative at the leader, committed when published)
//!              └─────▶ replies, parked by the host until the records they saw are committed
//! ```
//! Ids that must be unguessable (topic ids, the cluster id) come drawn in the request. Walk: none; the shell is
//! `broker/host/cluster.rs`.

use crate::cluster::records::ClusterRecord;
use crate::cluster::{brokers, configs, pipelines, topics};
use crate::tasks;
use crate::tasks::records::TaskRecord;
use catchwater_record::{
    CaptureId, Incarnation, NodeId, ProducerId, RevisionNo, SourceName, TaskEpoch, TaskId, TasksVersion, TopicId,
    TopicName,
};

/// What never changes while the process lives: settings of this node that shape decisions, not state.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For topics that do not say (`num.partitions`).
    pub partitions_default: u32,
    /// For topics that do not say (`default.replication.factor`).
    pub replication_default: u16,
    /// Most partitions of one topic.
    pub partitions_max: u32,
    /// A node that was silent for so long loses its tasks.
    pub lease_ms: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { partitions_default: 1, replication_default: 1, partitions_max: 10_000, lease_ms: 9_000 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Cluster(ClusterRecord),
    Task(TaskRecord),
}

/// What can be asked of group 0.
#[derive(Clone, Debug)]
pub enum Request {
    /// The deadline came.
    Wake,
    /// A new cluster begins: its id; refused silently (same reply) when it has one.
    Found {
        cluster_id: [u8; 16],
    },
    /// A node is there, or there again.
    Register(brokers::Registration),
    CreateTopics {
        topics: Vec<topics::CreateTopic>,
        validate_only: bool,
    },
    DeleteTopics {
        topics: Vec<topics::WhichTopic>,
    },
    AlterConfigs {
        changes: Vec<configs::ConfigChange>,
        validate_only: bool,
    },
    /// Capture id of a source name, given at first use.
    Source {
        name: SourceName,
    },
    ChangePipeline(pipelines::PipelineChange),
    /// A block of producer ids for a node.
    ProducerIds {
        node: NodeId,
    },
    /// Answers `Done` once everything seen so far is committed.
    Barrier,
    /// The tasks of a node; waits until their version is above `seen`, at most a third of the lease.
    Mine {
        node: NodeId,
        roles: u32,
        seen: TasksVersion,
    },
    Report {
        node: NodeId,
        reports: Vec<tasks::Report>,
    },
    Release {
        node: NodeId,
        task: TaskId,
        epoch: TaskEpoch,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Done,
    /// Nothing waited; a wake-up has no reader.
    Registered {
        epoch: u64,
    },
    Topics(Vec<Result<topics::CreatedTopic, topics::TopicError>>),
    Deleted(Vec<Result<(TopicId, TopicName), topics::TopicError>>),
    Configs(Vec<Result<(), configs::ConfigError>>),
    Source {
        capture: CaptureId,
        incarnation: Incarnation,
    },
    Pipeline(Result<RevisionNo, pipelines::PipelineError>),
    /// `first .. first + count`.
    ProducerIds {
        first: ProducerId,
        count: u32,
    },
    Mine(tasks::Mine),
    /// Tasks that are no longer the reporter's.
    Lost(Vec<TaskId>),
    Released,
}
