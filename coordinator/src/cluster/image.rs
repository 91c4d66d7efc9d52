//! Pure. The image of the cluster: the fold of its records, equal on every node at one offset of group 0.
//!
//! The leader's host holds a speculative one; what all others read is the *committed* one, published by the shell of
//! the cluster host. Nothing in here is changed but by [`Image::apply`].

use super::records::ClusterRecord;
use catchwater_record::{
    CaptureEpoch, CaptureId, Gid, Incarnation, NodeId, PartitionId, PipelineName, ProducerId, RevisionNo, SourceName,
    TopicId, TopicName,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Group 0 is the cluster's own; the first group of a topic is this one.
pub const FIRST_TOPIC_GID: Gid = Gid(1);

/// Everything the cluster knows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// `None` until the first record of a new cluster.
    pub cluster_id: Option<[u8; 16]>,
    pub features: BTreeMap<String, i16>,
    brokers: BTreeMap<NodeId, Arc<Broker>>,
    topics: BTreeMap<TopicId, Arc<Topic>>,
    names: BTreeMap<TopicName, TopicId>,
    /// Kafka's metric names replace `.` by `_`, so two names equal after that collide: folded name → topics.
    folded: BTreeMap<String, TopicName>,
    configs: BTreeMap<ConfigKey, Arc<BTreeMap<String, String>>>,
    sources: BTreeMap<SourceName, Source>,
    pipelines: BTreeMap<PipelineName, Arc<Pipeline>>,
    revisions: BTreeMap<PipelineName, BTreeMap<RevisionNo, Arc<Revision>>>,
    pub counters: Counters,
    /// First producer id nobody has been given.
    pub next_producer: ProducerId,
}

/// The next numbers to be given out; a number is never given twice, also not after a delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    pub gid: Gid,
    pub capture: CaptureId,
    pub task: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Counters { gid: FIRST_TOPIC_GID, capture: CaptureId(1), task: 1 }
    }
}

/// A node as it registered last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    pub id: NodeId,
    /// Drawn at process start: another one under the same id is a restart.
    pub process: [u8; 16],
    /// Rises with every registration of this id.
    pub epoch: u64,
    pub listeners: Vec<Listener>,
    pub rack: Option<String>,
    /// Bits of [`role`].
    pub roles: u32,
    /// Log directories.
    pub dirs: Vec<[u8; 16]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub name: String,
    pub host: String,
    pub port: u16,
}

pub mod role {
    pub const BROKER: u32 = 1 << 0;
    pub const CAPTURE: u32 = 1 << 1;
    pub const DELIVER: u32 = 1 << 2;
    pub const SERVE: u32 = 1 << 3;
    pub const ALL: u32 = BROKER | CAPTURE | DELIVER | SERVE;
}

/// A topic and where its partitions are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub id: TopicId,
    pub name: TopicName,
    /// Index = partition number.
    pub partitions: Vec<Place>,
    pub owner: Owner,
    pub created_ms: i64,
}

impl Topic {
    pub fn place(&self, partition: PartitionId) -> Option<&Place> {
        self.partitions.get(usize::try_from(partition.0).ok()?)
    }
    pub fn partitions_count(&self) -> u32 {
        self.partitions.len() as u32
    }
    /// Replicas of the first partition: Kafka's replication factor.
    pub fn replication(&self) -> u16 {
        self.partitions.first().map_or(0, |p| p.replicas.len() as u16)
    }
    /// Internal topics are ours: clients read, but do not produce.
    pub fn is_internal(&self) -> bool {
        is_internal(self.name.as_str())
    }
}

/// Topics a client may not produce to, and which Metadata marks.
pub fn is_internal(name: &str) -> bool {
    matches!(name, "__consumer_offsets" | "__transaction_state" | "__share_group_state")
        || name.starts_with("__catchwater_")
}

/// The Raft group of one partition and the nodes it was placed on, preferred leader first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub gid: Gid,
    pub replicas: Vec<NodeId>,
}

/// Who may append to a topic's partitions beside Kafka clients' rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Nobody,
    /// The capture and the epoch that created or adopted it.
    Capture(CaptureId, CaptureEpoch),
}

/// What a set of settings belongs to. The numbers are Kafka's resource types.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigKey {
    Topic(TopicName),
    /// `None` = the default of all brokers.
    Broker(Option<NodeId>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    pub capture: CaptureId,
    pub incarnation: Incarnation,
}

/// A stored pipeline: its newest revision and what it makes run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipeline {
    pub name: PipelineName,
    pub revision: RevisionNo,
    pub text: String,
    pub running: bool,
    pub captures: Vec<(String, CaptureId)>,
    pub sinks: Vec<String>,
}

/// A text that a pipeline had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    pub applied_ms: i64,
    pub text: String,
    /// What relative paths in the text are relative to; empty = not known.
    pub base_dir: String,
    pub author: String,
    pub message: String,
}

impl Default for Image {
    fn default() -> Self {
        Image {
            cluster_id: None,
            features: BTreeMap::new(),
            brokers: BTreeMap::new(),
            topics: BTreeMap::new(),
            names: BTreeMap::new(),
            folded: BTreeMap::new(),
            configs: BTreeMap::new(),
            sources: BTreeMap::new(),
            pipelines: BTreeMap::new(),
            revisions: BTreeMap::new(),
            counters: Counters::default(),
            // Kafka begins at 0 too.
            next_producer: ProducerId(0),
        }
    }
}

/// What a record changed, so that the shell can tell those who must act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    TopicCreated(Arc<Topic>),
    /// Owner or places of a known topic.
    TopicChanged(Arc<Topic>),
    TopicDeleted(Arc<Topic>),
    TopicConfig(TopicId),
    BrokerConfig,
    Other,
}

impl Image {
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics.values()
    }
    pub fn topics_count(&self) -> usize {
        self.topics.len()
    }
    /// In the order of names, as Metadata lists them.
    pub fn topics_by_name(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.names.values().filter_map(|id| self.topics.get(id))
    }
    pub fn topic(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics.get(&id)
    }
    pub fn topic_by_name(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(self.names.get(&TopicName::from(name))?)
    }
    /// Another topic whose name differs from `name` only by `.` and `_`.
    pub fn collision(&self, name: &str) -> Option<&TopicName> {
        self.folded.get(&fold(name)).filter(|there| there.as_str() != name)
    }
    pub fn topics_of(&self, capture: CaptureId) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics.values().filter(move |t| matches!(t.owner, Owner::Capture(c, _) if c == capture))
    }
    pub fn brokers(&self) -> impl Iterator<Item = &Arc<Broker>> {
        self.brokers.values()
    }
    pub fn broker(&self, id: NodeId) -> Option<&Arc<Broker>> {
        self.brokers.get(&id)
    }
    /// Settings that were given to a topic; everything else has a default ([`super::configs`]).
    pub fn topic_configs(&self, name: &TopicName) -> Option<&Arc<BTreeMap<String, String>>> {
        self.configs.get(&ConfigKey::Topic(name.clone()))
    }
    pub fn broker_configs(&self, id: Option<NodeId>) -> Option<&Arc<BTreeMap<String, String>>> {
        self.configs.get(&ConfigKey::Broker(id))
    }
    pub fn configs(&self, key: &ConfigKey) -> Option<&Arc<BTreeMap<String, String>>> {
        self.configs.get(key)
    }
    pub fn source(&self, name: &SourceName) -> Option<Source> {
        self.sources.get(name).copied()
    }
    pub fn sources(&self) -> impl Iterator<Item = (&SourceName, &Source)> {
        self.sources.iter()
    }
    pub fn pipeline(&self, name: &PipelineName) -> Option<&Arc<Pipeline>> {
        self.pipelines.get(name)
    }
    pub fn pipelines(&self) -> impl Iterator<Item = &Arc<Pipeline>> {
        self.pipelines.values()
    }
    /// The kept texts of a pipeline, oldest first; also of one that was deleted.
    pub fn revisions(&self, name: &PipelineName) -> impl DoubleEndedIterator<Item = (RevisionNo, &Arc<Revision>)> {
        self.revisions.get(name).into_iter().flatten().map(|(no, r)| (*no, r))
    }
    pub fn revision(&self, name: &PipelineName, no: RevisionNo) -> Option<&Arc<Revision>> {
        self.revisions.get(name)?.get(&no)
    }

    /// The only change of state. Never fails: what `decide` wrote is consistent, and a record of a newer field set has
    /// been read down to what this release knows.
    pub fn apply(&mut self, record: &ClusterRecord) -> Change {
        match record {
            ClusterRecord::Cluster { id, .. } => self.cluster_id = Some(*id),
            ClusterRecord::Feature { name, level } => match level {
                Some(level) => {
                    self.features.insert(name.clone(), *level);
                }
                None => {
                    self.features.remove(name);
                }
            },
            ClusterRecord::Broker { id, broker } => match broker {
                Some(b) => {
                    self.brokers.insert(*id, Arc::new(b.clone()));
                }
                None => {
                    self.brokers.remove(id);
                }
            },
            ClusterRecord::Topic { id, topic } => return self.apply_topic(*id, topic.as_ref()),
            ClusterRecord::Config { of, entries } => {
                match entries {
                    Some(entries) if !entries.is_empty() => {
                        self.configs.insert(of.clone(), Arc::new(entries.clone()));
                    }
                    _ => {
                        self.configs.remove(of);
                    }
                }
                return match of {
                    ConfigKey::Topic(name) => self.names.get(name).map_or(Change::Other, |id| Change::TopicConfig(*id)),
                    ConfigKey::Broker(_) => Change::BrokerConfig,
                };
            }
            ClusterRecord::ProducerIds { next, .. } => self.next_producer = *next,
            ClusterRecord::Source { name, source } => {
                self.sources.insert(name.clone(), *source);
            }
            ClusterRecord::Pipeline { name, pipeline } => match pipeline {
                Some(p) => {
                    self.pipelines.insert(name.clone(), Arc::new(p.clone()));
                }
                None => {
                    self.pipelines.remove(name);
                }
            },
            ClusterRecord::Counters(counters) => self.counters = *counters,
            ClusterRecord::Revision { name, no, revision } => match revision {
                Some(r) => {
                    self.revisions.entry(name.clone()).or_default().insert(*no, Arc::new(r.clone()));
                }
                None => {
                    if let Some(kept) = self.revisions.get_mut(name) {
                        kept.remove(no);
                    }
                }
            },
        }
        Change::Other
    }

    fn apply_topic(&mut self, id: TopicId, topic: Option<&Topic>) -> Change {
        match topic {
            Some(topic) => {
                let topic = Arc::new(topic.clone());
                self.names.insert(topic.name.clone(), id);
                self.folded.insert(fold(topic.name.as_str()), topic.name.clone());
                match self.topics.insert(id, topic.clone()) {
                    None => Change::TopicCreated(topic),
                    Some(_) => Change::TopicChanged(topic),
                }
            }
            None => match self.topics.remove(&id) {
                None => Change::Other,
                Some(gone) => {
                    self.names.remove(&gone.name);
                    self.folded.remove(&fold(gone.name.as_str()));
                    Change::TopicDeleted(gone)
                }
            },
        }
    }
}

fn fold(name: &str) -> String {
    name.replace('.', "_")
}
