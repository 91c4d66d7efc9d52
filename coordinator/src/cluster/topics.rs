//! Pure. Creating, adopting and deleting topics, with Kafka's rules.
//!
//! Source: `ReplicationControlManager.createTopics` and `KafkaApis.handleCreateTopicsRequest` of Apache Kafka 4.x for
//! the order of the checks; capture.md 4.5 R2 for owners.

use super::image::Owner;
use catchwater_record::{CaptureEpoch, NodeId, TopicId, TopicName};

/// A topic somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTopic {
    pub name: String,
    /// Drawn by the host; used if the topic is made now.
    pub id: TopicId,
    /// `None` = the cluster's default (Kafka's -1).
    pub partitions: Option<i32>,
    pub replication: Option<i16>,
    /// Partition number → nodes; then `partitions` and `replication` must be `None`.
    pub assignments: Vec<(i32, Vec<i32>)>,
    pub configs: Vec<(String, Option<String>)>,
    pub owner: Owner,
    /// Only with [`Owner::Capture`]: an existing topic of nobody was seen to hold no record and may be taken over.
    pub adopt_empty: bool,
    /// An internal name may be created: only the node itself asks so.
    pub internal: bool,
}

impl CreateTopic {
    /// A plain topic with all defaults.
    pub fn named(name: impl Into<String>, id: TopicId) -> Self {
        CreateTopic {
            name: name.into(),
            id,
            partitions: None,
            replication: None,
            assignments: Vec::new(),
            configs: Vec::new(),
            owner: Owner::Nobody,
            adopt_empty: false,
            internal: false,
        }
    }
}

/// What became of a wanted topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    pub id: TopicId,
    pub name: TopicName,
    pub partitions: u32,
    pub replication: u16,
    pub owner: Owner,
    /// False: it was there, and this owner has it (or has adopted it now).
    pub created: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhichTopic {
    Name(String),
    Id(TopicId),
}

/// Why a topic was not created or deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    #[error("topic name {name:?} is illegal: {why}")]
    IllegalName { name: String, why: &'static str },
    #[error("topic name {name:?} collides with {with}: they differ only by '.' and '_'")]
    Collides { name: String, with: TopicName },
    #[error("topic {0} already exists")]
    Exists(TopicName),
    #[error("topic {0} appears more than once in the request")]
    Duplicate(String),
    #[error("number of partitions must be larger than 0, and at most {max}; {got} was asked for")]
    Partitions { got: i64, max: u32 },
    #[error("replication factor must be larger than 0; {0} was asked for")]
    ReplicationBelowOne(i16),
    #[error("replication factor {wanted} is larger than the {alive} available nodes")]
    Replication { wanted: i16, alive: usize },
    #[error("bad replica assignment: {0}")]
    Assignment(String),
    #[error("invalid request: {0}")]
    Invalid(&'static str),
    #[error("{0}")]
    Config(#[from] super::configs::ConfigError),
    #[error("topic {0} belongs to somebody else, or has records of nobody")]
    Owned(TopicName),
    /// It exists, belongs to nobody, and was not seen to be empty: look, then ask again with `adopt_empty`.
    #[error("topic {name} belongs to nobody; adopting it needs it to be empty")]
    OfNobody { id: TopicId, name: TopicName },
    #[error("fenced by epoch {by}")]
    Fenced { by: CaptureEpoch },
    #[error("topic {0} does not exist")]
    UnknownName(String),
    #[error("topic id {0} does not exist")]
    UnknownId(TopicId),
    #[error("topic {0} is internal")]
    Internal(TopicName),
    #[error("node {0} is not registered")]
    UnknownNode(NodeId),
}
