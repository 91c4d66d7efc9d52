//! [`ControlClient`] of this node, and what the log client needs of group 0: the topics of a capture, the two internal
//! topics its checkpoints and cuts go to, and committed offsets.

use super::{CALL_MS, LocalClient};
use crate::node::ControllerError;
use catchwater_client as client;
use catchwater_client::{ControlClient, ControlError, LogError, NewTopic, Owner, TopicsWanted};
use catchwater_coordinator::cluster::configs::{self, ConfigError};
use catchwater_coordinator::cluster::image::{self, Image};
use catchwater_coordinator::cluster::pipelines::{Note, PipelineChange, PipelineError};
use catchwater_coordinator::cluster::topics::{CreateTopic, CreatedTopic, TopicError, WhichTopic};
use catchwater_coordinator::controller::{Reply, Request};
use catchwater_coordinator::group;
use catchwater_record::{
    Caller, CaptureId, GroupName, Incarnation, Offset, PipelineName, RevisionNo, SourceName, TopicId, TopicName,
    TopicPartition,
};
use catchwater_runtime::Fut;
use std::sync::Arc;

/// Checkpoints and table descriptions of captures, compacted.
pub const CAPTURES_TOPIC: &str = "__catchwater_captures";
/// Cuts of captures, kept seven days.
pub const CUTS_TOPIC: &str = "__catchwater_cuts";
/// Partitions of both.
const CAPTURE_PARTITIONS: i32 = 16;

impl LocalClient {
    async fn ask(&self, request: Request) -> Result<Reply, ControlError> {
        self.node.controller.ask(request).await.map_err(|e| match e {
            ControllerError::NotReady => ControlError::NotReady("group 0 is not ready here".into()),
            ControllerError::Unknown => ControlError::Unknown,
        })
    }

    /// The committed image, with everything answered before this call in it.
    async fn fresh_image(&self) -> Result<Arc<Image>, ControlError> {
        self.ask(Request::Barrier).await?;
        Ok(self.node.controller.image())
    }

    fn draw_topic_id(&self) -> TopicId {
        TopicId(self.node.controller.draw())
    }

    /// Makes the two internal topics of captures if they are not there.
    pub(super) async fn ensure_capture_topics(&self) -> Result<(), LogError> {
        let image = self.node.controller.image();
        let wanted: [(&str, &[(&str, &str)]); 2] = [
            (CAPTURES_TOPIC, &[("cleanup.policy", "compact")]),
            (CUTS_TOPIC, &[("cleanup.policy", "delete"), ("retention.ms", "604800000")]),
        ];
        let topics: Vec<CreateTopic> = wanted
            .iter()
            .filter(|(name, _)| image.topic_by_name(name).is_none())
            .map(|(name, configs)| CreateTopic {
                partitions: Some(CAPTURE_PARTITIONS),
                replication: Some(1),
                configs: configs.iter().map(|(k, v)| ((*k).to_owned(), Some((*v).to_owned()))).collect(),
                internal: true,
                ..CreateTopic::named(*name, self.draw_topic_id())
            })
            .collect();
        if topics.is_empty() {
            return Ok(());
        }
        match self.ask(Request::CreateTopics { topics, validate_only: false }).await.map_err(log_error)? {
            Reply::Topics(made) => {
                for made in made {
                    match made {
                        Ok(_) | Err(TopicError::Exists(_)) => {}
                        Err(e) => return Err(LogError::NotReady(e.to_string())),
                    }
                }
                Ok(())
            }
            other => Err(LogError::Bug(format!("{other:?} to a CreateTopics"))),
        }
    }

    /// Makes an internal topic if it is not there.
    pub async fn ensure_internal(
        &self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> Result<(), ControlError> {
        if self.node.controller.image().topic_by_name(name).is_some() {
            return Ok(());
        }
        let topic = CreateTopic {
            partitions: Some(partitions),
            replication: Some(1),
            configs: configs.iter().map(|(k, v)| ((*k).to_owned(), Some((*v).to_owned()))).collect(),
            internal: true,
            ..CreateTopic::named(name, self.draw_topic_id())
        };
        match self.create_once(vec![topic]).await?.pop() {
            Some(Ok(_) | Err(TopicError::Exists(_))) => Ok(()),
            Some(Err(e)) => Err(topic_error(e)),
            None => Err(ControlError::Bug("no answer to a CreateTopics".into())),
        }
    }

    /// Every partition a fence of this capture must stand in.
    pub(super) async fn partitions_of(&self, capture: CaptureId) -> Result<Vec<TopicPartition>, LogError> {
        let image = self.fresh_image().await.map_err(log_error)?;
        let internal = [CAPTURES_TOPIC, CUTS_TOPIC].into_iter().filter_map(|name| image.topic_by_name(name));
        Ok(image
            .topics_of(capture)
            .chain(internal)
            .flat_map(|topic| (0..topic.partitions_count()).map(|p| TopicPartition::new(topic.id, p)))
            .collect())
    }

    fn names(&self, of: &[TopicPartition]) -> Result<Vec<TopicName>, LogError> {
        let image = self.node.controller.image();
        of.iter().map(|at| image.topic(at.topic).map(|t| t.name.clone()).ok_or(LogError::NoTopic(*at))).collect()
    }

    pub(super) async fn group_committed(
        &self,
        name: GroupName,
        of: Vec<TopicPartition>,
    ) -> Result<Vec<Option<Offset>>, LogError> {
        let names = self.names(&of)?;
        let topics = names.iter().zip(&of).map(|(n, at)| (n.clone(), vec![at.partition.0 as i32])).collect();
        let request =
            group::Request::Fetch(group::FetchOffsets { group: name.clone(), member: None, topics: Some(topics) });
        match self.node.groups.ask(&name, request).await.map_err(|e| LogError::NotReady(e.to_string()))? {
            group::Reply::Fetch(Ok(found)) => Ok(names
                .iter()
                .zip(&of)
                .map(|(name, at)| {
                    let found = found.iter().find(|f| f.topic == *name && f.partition == at.partition.0 as i32)?;
                    u64::try_from(found.offset).ok().map(Offset)
                })
                .collect()),
            group::Reply::Fetch(Err(e)) => Err(LogError::NotReady(e.to_string())),
            other => Err(LogError::Bug(format!("{other:?} to an offset fetch"))),
        }
    }

    pub(super) async fn group_commit(
        &self,
        name: GroupName,
        offsets: Vec<(TopicPartition, Offset)>,
    ) -> Result<(), LogError> {
        let at: Vec<TopicPartition> = offsets.iter().map(|(at, _)| *at).collect();
        let names = self.names(&at)?;
        let offsets = names
            .into_iter()
            .zip(offsets)
            .map(|(topic, (at, offset))| group::CommitOffset {
                topic,
                topic_id: at.topic,
                partition: at.partition.0 as i32,
                offset: offset.wire(),
                leader_epoch: -1,
                metadata: String::new(),
                commit_ms: None,
            })
            .collect();
        let request = group::Request::Commit(group::Commit {
            group: name.clone(),
            generation: -1,
            member: String::new(),
            instance: None,
            retention_ms: None,
            offsets,
        });
        match self.node.groups.ask(&name, request).await.map_err(|e| LogError::NotReady(e.to_string()))? {
            group::Reply::Commit(results) => match results.into_iter().find_map(Result::err) {
                None => Ok(()),
                Some(e) => Err(LogError::NotReady(e.to_string())),
            },
            other => Err(LogError::Bug(format!("{other:?} to an offset commit"))),
        }
    }

    /// Does the topic hold no record at all?
    fn is_empty(&self, topic: TopicId) -> bool {
        self.node.topics.by_id(topic).is_some_and(|here| {
            here.partitions.iter().all(|p| p.as_ref().is_some_and(|p| p.ends().spec_end == Offset::ZERO))
        })
    }

    /// The node's own workers may make internal topics.
    async fn create(
        &self,
        who: &Caller,
        topics: Vec<NewTopic>,
    ) -> Result<Vec<Result<client::Topic, ControlError>>, ControlError> {
        let internal = who.is_node();
        let owners: Vec<Owner> = topics.iter().map(|t| t.owner).collect();
        let mut wanted: Vec<CreateTopic> = topics
            .iter()
            .map(|t| CreateTopic {
                partitions: t.partitions.map(|n| i32::try_from(n).unwrap_or(i32::MAX)),
                replication: t.replication.map(|n| i16::try_from(n).unwrap_or(i16::MAX)),
                configs: t.configs.iter().map(|(k, v)| (k.clone(), Some(v.clone()))).collect(),
                owner: image_owner(t.owner),
                internal,
                ..CreateTopic::named(t.name.as_str(), self.draw_topic_id())
            })
            .collect();
        let mut results = self.create_once(wanted.clone()).await?;
        // A topic of nobody may be taken over if it was seen to be empty.
        for (wanted, result) in wanted.iter_mut().zip(&mut results) {
            if let Err(TopicError::OfNobody { id, name }) = result {
                if self.is_empty(*id) {
                    wanted.adopt_empty = true;
                    if let Some(again) = self.create_once(vec![wanted.clone()]).await?.pop() {
                        *result = again;
                    }
                } else {
                    *result = Err(TopicError::Owned(name.clone()));
                }
            }
        }
        let mut out = Vec::with_capacity(results.len());
        for (result, owner) in results.into_iter().zip(owners) {
            out.push(match result {
                Ok(made) => match self.fenced(&made, owner).await {
                    Ok(()) => Ok(client::Topic {
                        id: made.id,
                        name: made.name,
                        partitions: made.partitions,
                        owner: client_owner(made.owner),
                        created: made.created,
                    }),
                    Err(e) => Err(e),
                },
                Err(e) => Err(topic_error(e)),
            });
        }
        Ok(out)
    }

    async fn create_once(
        &self,
        topics: Vec<CreateTopic>,
    ) -> Result<Vec<Result<CreatedTopic, TopicError>>, ControlError> {
        match self.ask(Request::CreateTopics { topics, validate_only: false }).await? {
            Reply::Topics(made) => Ok(made),
            other => Err(ControlError::Bug(format!("{other:?} to a CreateTopics"))),
        }
    }

    /// A topic of a capture begins with its owner's fence, in every partition, before the answer (L12): otherwise an
    /// older worker could write into a partition that never saw the newer epoch.
    async fn fenced(&self, made: &CreatedTopic, owner: Owner) -> Result<(), ControlError> {
        let Owner::Capture(capture, epoch) = owner else { return Ok(()) };
        let deadline = self.now().plus_millis(CALL_MS);
        let all: Vec<_> = (0..made.partitions).map(|p| TopicPartition::new(made.id, p)).collect();
        self.fence_all(&all, (capture, epoch), deadline).await.map_err(|e| match e {
            LogError::Fenced { by } => ControlError::Fenced { by },
            LogError::Unknown => ControlError::Unknown,
            other => ControlError::NotReady(other.to_string()),
        })
    }
}

impl ControlClient for LocalClient {
    fn create_topics(
        &self,
        who: &Caller,
        topics: Vec<NewTopic>,
    ) -> Fut<'_, Result<Vec<Result<client::Topic, ControlError>>, ControlError>> {
        let who = who.clone();
        Box::pin(async move { self.create(&who, topics).await })
    }

    fn describe_topics(&self, which: TopicsWanted) -> Fut<'_, Result<Vec<client::Topic>, ControlError>> {
        Box::pin(async move {
            let image = self.fresh_image().await?;
            let topics: Vec<&Arc<image::Topic>> = match &which {
                TopicsWanted::All => image.topics_by_name().collect(),
                TopicsWanted::Names(names) => names.iter().filter_map(|n| image.topic_by_name(n.as_str())).collect(),
                TopicsWanted::Ids(ids) => ids.iter().filter_map(|id| image.topic(*id)).collect(),
                TopicsWanted::OwnedBy(capture) => image.topics_of(*capture).collect(),
            };
            Ok(topics
                .into_iter()
                .map(|t| client::Topic {
                    id: t.id,
                    name: t.name.clone(),
                    partitions: t.partitions_count(),
                    owner: client_owner(t.owner),
                    created: false,
                })
                .collect())
        })
    }

    fn delete_topics(
        &self,
        _who: &Caller,
        topics: Vec<TopicId>,
    ) -> Fut<'_, Result<Vec<Result<(), ControlError>>, ControlError>> {
        Box::pin(async move {
            let topics = topics.into_iter().map(WhichTopic::Id).collect();
            match self.ask(Request::DeleteTopics { topics }).await? {
                Reply::Deleted(deleted) => {
                    Ok(deleted.into_iter().map(|r| r.map(|_| ()).map_err(topic_error)).collect())
                }
                other => Err(ControlError::Bug(format!("{other:?} to a DeleteTopics"))),
            }
        })
    }

    fn configs(&self, of: Vec<client::Resource>) -> Fut<'_, Result<Vec<Vec<client::ConfigEntry>>, ControlError>> {
        Box::pin(async move {
            let image = self.fresh_image().await?;
            let file = &self.node.topics.file;
            of.into_iter()
                .map(|resource| {
                    let described = match resource {
                        client::Resource::Topic(name) => {
                            if image.topic_by_name(name.as_str()).is_none() {
                                return Err(ControlError::NoTopic(name.to_string()));
                            }
                            configs::describe_topic(&image, file, &name)
                        }
                        client::Resource::Broker => configs::describe_broker(&image, file, self.node.config.id),
                    };
                    Ok(described
                        .into_iter()
                        .map(|d| client::ConfigEntry {
                            name: d.name.to_owned(),
                            value: Some(d.value),
                            is_default: d.source == configs::ConfigSource::Default,
                        })
                        .collect())
                })
                .collect()
        })
    }

    fn source(&self, _who: &Caller, name: SourceName) -> Fut<'_, Result<(CaptureId, Incarnation), ControlError>> {
        Box::pin(async move {
            match self.ask(Request::Source { name }).await? {
                Reply::Source { capture, incarnation } => Ok((capture, incarnation)),
                other => Err(ControlError::Bug(format!("{other:?} to a Source"))),
            }
        })
    }

    fn pipelines(&self) -> Fut<'_, Result<Vec<client::Pipeline>, ControlError>> {
        Box::pin(async move {
            let image = self.fresh_image().await?;
            Ok(image
                .pipelines()
                .map(|p| client::Pipeline {
                    name: p.name.clone(),
                    revision: p.revision,
                    text: p.text.clone(),
                    running: p.running,
                })
                .collect())
        })
    }

    fn revisions(&self, of: PipelineName) -> Fut<'_, Result<Vec<client::Revision>, ControlError>> {
        Box::pin(async move {
            let image = self.fresh_image().await?;
            Ok(image
                .revisions(&of)
                .map(|(no, r)| client::Revision {
                    no,
                    applied_ms: r.applied_ms,
                    text: r.text.clone(),
                    note: client::RevisionNote {
                        base_dir: r.base_dir.clone(),
                        author: r.author.clone(),
                        message: r.message.clone(),
                    },
                })
                .collect())
        })
    }

    fn change_pipeline(
        &self,
        _who: &Caller,
        change: client::PipelineChange,
    ) -> Fut<'_, Result<RevisionNo, ControlError>> {
        Box::pin(async move {
            let change = match change {
                client::PipelineChange::Put { name, base, text, captures, sinks, note } => {
                    let client::RevisionNote { base_dir, author, message } = note;
                    let note = Note { base_dir, author, message };
                    PipelineChange::Put { name, base, text, captures, sinks, note }
                }
                client::PipelineChange::Pause { name } => PipelineChange::Pause { name },
                client::PipelineChange::Resume { name } => PipelineChange::Resume { name },
                client::PipelineChange::Delete { name } => PipelineChange::Delete { name },
                client::PipelineChange::Again { name, source } => PipelineChange::Again { name, source },
            };
            match self.ask(Request::ChangePipeline(change)).await? {
                Reply::Pipeline(result) => result.map_err(pipeline_error),
                other => Err(ControlError::Bug(format!("{other:?} to a pipeline change"))),
            }
        })
    }
}

fn log_error(error: ControlError) -> LogError {
    match error {
        ControlError::Unknown => LogError::Unknown,
        other => LogError::NotReady(other.to_string()),
    }
}

fn image_owner(owner: Owner) -> image::Owner {
    match owner {
        Owner::Nobody => image::Owner::Nobody,
        Owner::Capture(capture, epoch) => image::Owner::Capture(capture, epoch),
    }
}

fn client_owner(owner: image::Owner) -> Owner {
    match owner {
        image::Owner::Nobody => Owner::Nobody,
        image::Owner::Capture(capture, epoch) => Owner::Capture(capture, epoch),
    }
}

fn topic_error(error: TopicError) -> ControlError {
    match error {
        TopicError::IllegalName { name, why } => ControlError::IllegalName { name, why: why.into() },
        TopicError::Collides { name, with } => {
            ControlError::IllegalName { name, why: format!("differs from {with} only by '.' and '_'") }
        }
        TopicError::Exists(name) => ControlError::TopicExists(name),
        TopicError::Owned(name) | TopicError::OfNobody { name, .. } => ControlError::Owned(name),
        TopicError::Fenced { by } => ControlError::Fenced { by },
        TopicError::UnknownName(name) => ControlError::NoTopic(name),
        TopicError::UnknownId(id) => ControlError::NoTopic(id.to_string()),
        TopicError::Config(ConfigError::Value { key, value, why }) => ControlError::BadConfig { key, value, why },
        TopicError::Duplicate(_)
        | TopicError::Partitions { .. }
        | TopicError::NoIncrease { .. }
        | TopicError::Captured(_)
        | TopicError::ReplicationBelowOne(_)
        | TopicError::Replication { .. }
        | TopicError::Assignment(_)
        | TopicError::Invalid(_)
        | TopicError::Config(_)
        | TopicError::Internal(_) => ControlError::Invalid(error.to_string()),
    }
}

fn pipeline_error(error: PipelineError) -> ControlError {
    match error {
        PipelineError::StaleBase { base, have } => ControlError::StaleBase { base, have },
        PipelineError::Unknown(_)
        | PipelineError::CaptureTaken(..)
        | PipelineError::Twice(_)
        | PipelineError::UnknownCapture(_)
        | PipelineError::NoSource(..)
        | PipelineError::Runs(_)
        | PipelineError::NoIncarnation(_) => ControlError::Invalid(error.to_string()),
    }
}
