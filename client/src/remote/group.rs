//! Committed offsets of a group, read and written without membership.

use std::sync::Arc;

use catchwater_protocol::Str;
use catchwater_protocol::api::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use catchwater_protocol::api::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use catchwater_protocol::api::{FindCoordinatorRequest, OffsetCommitRequest, OffsetFetchRequest};
use catchwater_runtime::time;

use super::connection::Connection;
use super::{Code, Kafka, RETRY_PAUSE, RemoteError};

/// A committed offset as the coordinator keeps it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommittedOffset {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub metadata: String,
}

/// An offset to commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupOffset {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub metadata: Option<String>,
}

/// Newest version at which topics are named; 10 has ids only.
const NAMED_VERSION_MAX: i16 = 9;

impl Kafka {
    /// Every offset the group has committed, by topic and partition; empty for a group nobody knows.
    pub async fn committed(&self, group: &str) -> Result<Vec<CommittedOffset>, RemoteError> {
        self.at_coordinator(group, |coordinator| async move {
            let make = |version: i16| match version {
                8.. => OffsetFetchRequest {
                    groups: vec![OffsetFetchRequestGroup {
                        group_id: group.into(),
                        topics: None::<Vec<OffsetFetchRequestTopics>>,
                        ..Default::default()
                    }],
                    ..Default::default()
                },
                _ => OffsetFetchRequest {
                    group_id: group.into(),
                    topics: None::<Vec<OffsetFetchRequestTopic>>,
                    ..Default::default()
                },
            };
            let (version, reply) = coordinator.call(NAMED_VERSION_MAX, self.inner.options.timeout, make).await?;
            let mut found = Vec::new();
            let mut add = |topic: &Str, partition: i32, offset: i64, metadata: &Option<Str>| {
                if offset >= 0 {
                    let metadata = metadata.as_ref().map(|m| m.to_string()).unwrap_or_default();
                    found.push(CommittedOffset { topic: topic.to_string(), partition, offset, metadata });
                }
            };
            let mut code = reply.error_code;
            if version >= 8 {
                let group = reply.groups.first().ok_or(RemoteError::Missing { api: "OffsetFetch" })?;
                code = group.error_code;
                for topic in &group.topics {
                    for p in &topic.partitions {
                        Code::check(p.error_code).map_err(|c| RemoteError::refused("OffsetFetch", c.0, None))?;
                        add(&topic.name, p.partition_index, p.committed_offset, &p.metadata);
                    }
                }
            } else {
                for topic in &reply.topics {
                    for p in &topic.partitions {
                        Code::check(p.error_code).map_err(|c| RemoteError::refused("OffsetFetch", c.0, None))?;
                        add(&topic.name, p.partition_index, p.committed_offset, &p.metadata);
                    }
                }
            }
            Code::check(code).map_err(|c| RemoteError::refused("OffsetFetch", c.0, None))?;
            found.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
            Ok(found)
        })
        .await
    }

    /// Commits without membership: the coordinator refuses while the group has members.
    pub async fn commit(&self, group: &str, offsets: &[GroupOffset]) -> Result<(), RemoteError> {
        self.at_coordinator(group, |coordinator| async move {
            let make = |_version: i16| {
                let mut topics: Vec<OffsetCommitRequestTopic> = Vec::new();
                for offset in offsets {
                    let part = OffsetCommitRequestPartition {
                        partition_index: offset.partition,
                        committed_offset: offset.offset,
                        committed_metadata: offset.metadata.as_deref().map(Str::from),
                        ..Default::default()
                    };
                    match topics.iter_mut().find(|t| t.name == offset.topic.as_str()) {
                        Some(topic) => topic.partitions.push(part),
                        None => topics.push(OffsetCommitRequestTopic {
                            name: offset.topic.as_str().into(),
                            partitions: vec![part],
                            ..Default::default()
                        }),
                    }
                }
                OffsetCommitRequest { group_id: group.into(), topics, ..Default::default() }
            };
            let (_, reply) = coordinator.call(NAMED_VERSION_MAX, self.inner.options.timeout, make).await?;
            for part in reply.topics.iter().flat_map(|t| &t.partitions) {
                Code::check(part.error_code).map_err(|c| RemoteError::refused("OffsetCommit", c.0, None))?;
            }
            Ok(())
        })
        .await
    }

    /// Runs `work` at the group's coordinator, looked up anew while the answers say loading, unknown or moved.
    async fn at_coordinator<T, F>(&self, group: &str, work: impl Fn(Arc<Connection>) -> F) -> Result<T, RemoteError>
    where
        F: Future<Output = Result<T, RemoteError>>,
    {
        let mut tries_left = (self.inner.options.timeout.as_millis() / RETRY_PAUSE.as_millis()).max(1);
        loop {
            let result = match self.coordinator(group).await {
                Ok(coordinator) => work(coordinator).await,
                Err(e) => Err(e),
            };
            match result {
                Err(e) if tries_left > 0 && e.code().is_some_and(Code::is_stale_coordinator) => {
                    tries_left -= 1;
                    time::sleep(RETRY_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    async fn coordinator(&self, group: &str) -> Result<Arc<Connection>, RemoteError> {
        let make = |version: i16| match version {
            4.. => FindCoordinatorRequest { coordinator_keys: vec![group.into()], ..Default::default() },
            _ => FindCoordinatorRequest { key: group.into(), ..Default::default() },
        };
        let (version, reply) = self.anywhere::<FindCoordinatorRequest>(make).await?;
        let (code, node) = if version >= 4 {
            let found = reply.coordinators.first().ok_or(RemoteError::Missing { api: "FindCoordinator" })?;
            (found.error_code, found.node_id)
        } else {
            (reply.error_code, reply.node_id)
        };
        Code::check(code).map_err(|c| RemoteError::refused("FindCoordinator", c.0, None))?;
        if let Some(connection) = self.broker(node) {
            return Ok(connection);
        }
        self.cluster().await?;
        self.broker(node).ok_or(RemoteError::Missing { api: "FindCoordinator" })
    }
}
