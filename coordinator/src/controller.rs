//! Pure. The machine of group 0: the cluster's image and its tasks, in one log, so that one decision sees both.
//!
//! ```text
//!  Request ──decide──▶ records ──replay──▶ Image + Tasks      (speculative at the leader, committed when published)
//!              └─────▶ replies, parked by the host until the records they saw are committed
//! ```
//! Ids that must be unguessable (topic ids, the cluster id) come drawn in the request. Walk: none; the shell is
//! `broker/host/cluster.rs`.

use crate::cluster::image::{Change, Image};
use crate::cluster::records::ClusterRecord;
use crate::cluster::{brokers, configs, pipelines, topics};
use crate::stored::{In, KeyValue, Stored, StoredError};
use crate::tasks::records::{FIRST_KIND, TaskRecord};
use crate::tasks::state::Tasks;
use crate::tasks::{self, lease};
use catchwater_base::{Decision, Mono, Now, Replicated, Ticket, hash};
use catchwater_record::{
    CaptureEpoch, CaptureId, Incarnation, NodeId, ProducerId, RevisionNo, SourceName, TaskEpoch, TaskId, TasksVersion,
    TopicId, TopicName,
};
use std::borrow::Cow;
use std::collections::BTreeMap;

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
    CreatePartitions {
        topics: Vec<topics::WidenTopic>,
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
    /// How many partitions each has now.
    Widened(Vec<Result<u32, topics::TopicError>>),
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

/// The machine.
#[derive(Clone, Debug, Default)]
pub struct Controller {
    settings: Settings,
    image: Image,
    tasks: Tasks,
}

impl Controller {
    pub fn new(settings: Settings) -> Self {
        Controller { settings, ..Controller::default() }
    }
    pub fn image(&self) -> &Image {
        &self.image
    }
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }
    /// Replays one record and says what it changed.
    pub fn apply(&mut self, record: &Record) -> Change {
        match record {
            Record::Cluster(record) => self.image.apply(record),
            Record::Task(record) => {
                self.tasks.apply(record);
                Change::Other
            }
        }
    }

    /// Decides without waiting: records into `out`, the answer back.
    fn answer(&self, soft: &mut lease::Soft, now: Now, request: Request, out: &mut Draft) -> Reply {
        match request {
            Request::Wake | Request::Barrier | Request::Mine { .. } => Reply::Done,
            Request::Found { cluster_id } => {
                if self.image.cluster_id.is_none() {
                    let founded_ms = now.wall.as_millis();
                    out.cluster.push(ClusterRecord::Cluster { id: cluster_id, founded_ms });
                    // The record formats of this log; raised when a field set needs all nodes to know it.
                    out.cluster.push(ClusterRecord::Feature { name: "catchwater.version".into(), level: Some(1) });
                }
                Reply::Done
            }
            Request::Register(registration) => {
                soft.hear(registration.id, now);
                Reply::Registered { epoch: brokers::register(&self.image, &registration, &mut out.cluster) }
            }
            Request::CreateTopics { topics, validate_only } => {
                let floor = |capture| {
                    let TaskEpoch(epoch) = self.tasks.capture_floor(capture);
                    (epoch > 0).then_some(CaptureEpoch(epoch))
                };
                let mut records = Vec::new();
                let results = topics::create(&self.facts(now, &floor), &topics, &mut records);
                if !validate_only {
                    out.cluster.append(&mut records);
                }
                Reply::Topics(results)
            }
            Request::CreatePartitions { topics, validate_only } => {
                let mut records = Vec::new();
                let results = topics::widen(&self.facts(now, &|_| None), &topics, &mut records);
                if !validate_only {
                    out.cluster.append(&mut records);
                }
                Reply::Widened(results)
            }
            Request::DeleteTopics { topics } => Reply::Deleted(topics::delete(&self.image, &topics, &mut out.cluster)),
            Request::AlterConfigs { changes, validate_only } => {
                let mut results = Vec::new();
                let mut asked = BTreeMap::new();
                changes.iter().for_each(|change| *asked.entry(&change.of).or_insert(0u32) += 1);
                for change in &changes {
                    let twice = asked.get(&change.of) != Some(&1);
                    let result = match configs::decide(&self.image, change) {
                        _ if twice => Err(configs::ConfigError::ResourceTwice),
                        Ok(record) => {
                            if !validate_only {
                                out.cluster.push(record);
                            }
                            Ok(())
                        }
                        Err(e) => Err(e),
                    };
                    results.push(result);
                }
                Reply::Configs(results)
            }
            Request::Source { name } => {
                let source = pipelines::source(&self.image, &name, &mut out.cluster);
                Reply::Source { capture: source.capture, incarnation: source.incarnation }
            }
            Request::ChangePipeline(change) => {
                let mut written = pipelines::Written::default();
                let result = pipelines::change(&self.image, &self.tasks, now.wall.as_millis(), &change, &mut written);
                if result.is_ok() {
                    out.cluster.append(&mut written.cluster);
                    out.tasks.append(&mut written.tasks);
                }
                Reply::Pipeline(result)
            }
            Request::ProducerIds { node } => {
                let first = brokers::producer_ids(&self.image, node, &mut out.cluster);
                Reply::ProducerIds { first, count: brokers::PRODUCER_ID_BLOCK }
            }
            Request::Report { node, reports } => {
                soft.hear(node, now);
                Reply::Lost(lease::report(&self.tasks, now, node, &reports, &mut out.tasks))
            }
            Request::Release { node, task, epoch } => {
                lease::release(&self.tasks, node, task, epoch, &mut out.tasks);
                Reply::Released
            }
        }
    }

    fn facts<'a>(&'a self, now: Now, lease_epoch: &'a dyn Fn(CaptureId) -> Option<CaptureEpoch>) -> topics::Facts<'a> {
        topics::Facts {
            image: &self.image,
            partitions_default: self.settings.partitions_default,
            replication_default: self.settings.replication_default,
            partitions_max: self.settings.partitions_max,
            now_ms: now.wall.as_millis(),
            lease_epoch,
        }
    }

    /// The machine as it will be after `draft`. The image is large and seldom changed: copied only then.
    fn after(&self, draft: &Draft) -> (Cow<'_, Image>, Tasks) {
        let (mut image, mut tasks) = (Cow::Borrowed(&self.image), self.tasks.clone());
        for record in &draft.cluster {
            image.to_mut().apply(record);
        }
        for record in &draft.tasks {
            tasks.apply(record);
        }
        (image, tasks)
    }
}

#[derive(Default)]
struct Draft {
    cluster: Vec<ClusterRecord>,
    tasks: Vec<TaskRecord>,
}

impl Replicated for Controller {
    type Record = Record;
    type Request = Request;
    type Reply = Reply;
    type Soft = lease::Soft;

    fn soft(&self, now: Now) -> lease::Soft {
        lease::Soft::new(&self.image, now)
    }

    fn decide(&self, soft: &mut lease::Soft, now: Now, ticket: Ticket, request: Request) -> Decision<Record, Reply> {
        let mut draft = Draft::default();
        let mut replies = Vec::new();
        soft.expire(now, self.settings.lease_ms);
        // Only what can move a task looks at tasks again; the others leave them and the waiting alone.
        let settles = !matches!(
            request,
            Request::CreateTopics { .. }
                | Request::CreatePartitions { .. }
                | Request::DeleteTopics { .. }
                | Request::AlterConfigs { .. }
                | Request::Source { .. }
                | Request::ProducerIds { .. }
                | Request::Barrier
        );
        if let Request::Mine { node, seen, .. } = request {
            soft.hear(node, now);
            let until = now.mono.plus_millis(u64::from(self.settings.lease_ms) / 3);
            soft.wait(ticket, node, seen, until);
        } else {
            let reply = self.answer(soft, now, request, &mut draft);
            replies.push((ticket, reply));
        }
        if settles {
            let (image, mut tasks) = self.after(&draft);
            for record in lease::settle(&image, &tasks, soft) {
                tasks.apply(&record);
                draft.tasks.push(record);
            }
            for (ticket, node) in soft.due(now, tasks.version()) {
                let mine = lease::mine(&image, &tasks, node, self.settings.lease_ms);
                replies.push((ticket, Reply::Mine(mine)));
            }
        }
        let cluster = draft.cluster.into_iter().map(Record::Cluster);
        let records = cluster.chain(draft.tasks.into_iter().map(Record::Task)).collect();
        Decision { records, replies }
    }

    fn deadline(&self, soft: &lease::Soft) -> Option<Mono> {
        soft.deadline(self.settings.lease_ms)
    }

    fn replay(&mut self, record: &Record) {
        self.apply(record);
    }

    fn digest(&self) -> u64 {
        hash::xxh3_64(format!("{:?}{:?}", self.image, self.tasks).as_bytes())
    }
}

impl Stored for Record {
    fn to_stored(&self) -> KeyValue {
        match self {
            Record::Cluster(record) => record.to_stored(),
            Record::Task(record) => record.to_stored(),
        }
    }
    fn from_stored(key: &[u8], value: Option<&[u8]>) -> Result<Option<Self>, StoredError> {
        if In::new(key).i16()? < FIRST_KIND {
            Ok(ClusterRecord::from_stored(key, value)?.map(Record::Cluster))
        } else {
            Ok(TaskRecord::from_stored(key, value)?.map(Record::Task))
        }
    }
}

#[cfg(test)]
mod tests;
