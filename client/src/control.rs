//! Changing the cluster: topics, configs, sources, pipelines. An answer is committed in group 0; the same change again
//! gives the same answer (L12). `who` is judged at the leader of group 0.

use catchwater_record::{
    Caller, CaptureEpoch, CaptureId, Incarnation, PipelineName, RevisionNo, SourceName, TopicId, TopicName,
};
use catchwater_runtime::Fut;

pub trait ControlClient: Send + Sync {
    fn create_topics(
        &self,
        who: &Caller,
        topics: Vec<NewTopic>,
    ) -> Fut<'_, Result<Vec<Result<Topic, ControlError>>, ControlError>>;
    fn describe_topics(&self, which: TopicsWanted) -> Fut<'_, Result<Vec<Topic>, ControlError>>;
    fn delete_topics(
        &self,
        who: &Caller,
        topics: Vec<TopicId>,
    ) -> Fut<'_, Result<Vec<Result<(), ControlError>>, ControlError>>;
    fn configs(&self, of: Vec<Resource>) -> Fut<'_, Result<Vec<Vec<ConfigEntry>>, ControlError>>;
    /// The capture id of a source name: given at first use, kept.
    fn source(&self, who: &Caller, name: SourceName) -> Fut<'_, Result<(CaptureId, Incarnation), ControlError>>;
    fn pipelines(&self) -> Fut<'_, Result<Vec<Pipeline>, ControlError>>;
    /// The kept texts of a pipeline, oldest first; also of one that was deleted.
    fn revisions(&self, of: PipelineName) -> Fut<'_, Result<Vec<Revision>, ControlError>>;
    fn change_pipeline(&self, who: &Caller, change: PipelineChange) -> Fut<'_, Result<RevisionNo, ControlError>>;
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewTopic {
    pub name: TopicName,
    /// `None` = the cluster's default.
    pub partitions: Option<u32>,
    pub replication: Option<u16>,
    pub configs: Vec<(String, String)>,
    pub owner: Owner,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    Nobody,
    /// Every partition begins with this fence.
    Capture(CaptureId, CaptureEpoch),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topic {
    pub id: TopicId,
    pub name: TopicName,
    pub partitions: u32,
    pub owner: Owner,
    /// False if it was there before this call.
    pub created: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TopicsWanted {
    All,
    Names(Vec<TopicName>),
    Ids(Vec<TopicId>),
    OwnedBy(CaptureId),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Resource {
    Topic(TopicName),
    Broker,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigEntry {
    pub name: String,
    /// `None` = sensitive.
    pub value: Option<String>,
    pub is_default: bool,
}

/// A stored pipeline: its newest revision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pipeline {
    pub name: PipelineName,
    pub revision: RevisionNo,
    /// The file as it was written; secrets stay references.
    pub text: String,
    pub running: bool,
}

/// One text that a pipeline had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revision {
    pub no: RevisionNo,
    /// Milliseconds since 1970.
    pub applied_ms: i64,
    pub text: String,
    pub note: RevisionNote,
}

/// What the caller says of a new revision.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RevisionNote {
    /// What relative paths in the text are relative to; empty = nothing.
    pub base_dir: String,
    pub author: String,
    pub message: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PipelineChange {
    /// Stores `text` as the next revision and makes its tasks. `base` = the revision it was planned against, 0 = new.
    /// `captures` and `sinks` are the nodes that become tasks; the same text again changes nothing.
    Put {
        name: PipelineName,
        base: RevisionNo,
        text: String,
        captures: Vec<(String, CaptureId)>,
        sinks: Vec<String>,
        note: RevisionNote,
    },
    Pause {
        name: PipelineName,
    },
    Resume {
        name: PipelineName,
    },
    Delete {
        name: PipelineName,
    },
    /// A source of a pipeline that is paused begins again as another incarnation: nothing that its capture wrote counts.
    Again {
        name: PipelineName,
        source: String,
    },
}

/// Why a change was refused, by name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ControlError {
    #[error("not ready: {0}")]
    NotReady(String),
    #[error("topic {0} exists")]
    TopicExists(TopicName),
    #[error("no such topic {0}")]
    NoTopic(String),
    #[error("topic {0} belongs to somebody else, or has records of nobody")]
    Owned(TopicName),
    #[error("fenced by epoch {by}")]
    Fenced { by: CaptureEpoch },
    #[error("illegal name {name:?}: {why}")]
    IllegalName { name: String, why: String },
    #[error("{key}={value}: {why}")]
    BadConfig { key: String, value: String, why: String },
    #[error("{0}")]
    Invalid(String),
    #[error("revision {have} is newer than the base {base}")]
    StaleBase { base: RevisionNo, have: RevisionNo },
    #[error("not allowed")]
    Denied,
    #[error("outcome unknown")]
    Unknown,
    #[error("this client cannot do that")]
    Unsupported,
    #[error("bug: {0}")]
    Bug(String),
}
