//! Who is there and who leads what.

use std::sync::Arc;

use catchwater_protocol::api::metadata::{MetadataRequestTopic, MetadataResponseTopic};
use catchwater_protocol::api::{MetadataRequest, MetadataResponse};
use catchwater_record::TopicId;
use catchwater_runtime::time;

use super::connection::Connection;
use super::{Code, Kafka, RETRY_PAUSE, RemoteError};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokerInfo {
    pub node: i32,
    pub host: String,
    pub port: i32,
    pub rack: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterInfo {
    pub cluster_id: Option<String>,
    pub controller: i32,
    pub brokers: Vec<BrokerInfo>,
    pub topics: Vec<TopicInfo>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicInfo {
    pub name: String,
    /// Zero below Metadata 10.
    pub id: TopicId,
    pub internal: bool,
    pub partitions: Vec<PartitionInfo>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionInfo {
    pub index: i32,
    /// `None` while there is no leader.
    pub leader: Option<i32>,
    pub leader_epoch: i32,
    pub replicas: Vec<i32>,
    pub in_sync: Vec<i32>,
}

impl Kafka {
    /// Brokers, without topics.
    pub async fn cluster(&self) -> Result<ClusterInfo, RemoteError> {
        self.metadata(Some(&[]), false).await
    }

    /// Every topic the broker shows, sorted by name.
    pub async fn topics(&self) -> Result<Vec<TopicInfo>, RemoteError> {
        Ok(self.metadata(None, false).await?.topics)
    }

    /// One topic; `None` if it does not exist. Never creates it.
    pub async fn topic(&self, name: &str) -> Result<Option<TopicInfo>, RemoteError> {
        match self.metadata(Some(&[name]), false).await {
            Ok(info) => Ok(info.topics.into_iter().next()),
            Err(RemoteError::Refused { code: Code(3), .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// `names`: `None` = all, empty = none. `create`: whether the broker may create what is missing. A topic that cannot
    /// be described fails the call, except for topics without leader (code 5).
    pub async fn metadata(&self, names: Option<&[&str]>, create: bool) -> Result<ClusterInfo, RemoteError> {
        let make = |version: i16| MetadataRequest {
            topics: match names {
                // At v0 there is no null: an empty list means all.
                None if version == 0 => Some(Vec::new()),
                None => None,
                Some(names) => {
                    let topic = |name: &&str| MetadataRequestTopic { name: Some((*name).into()), ..Default::default() };
                    Some(names.iter().map(topic).collect())
                }
            },
            // Below v4 the broker decides alone; the field is not sent and its default stands.
            allow_auto_topic_creation: create || version < 4,
            ..Default::default()
        };
        let (_, reply) = self.anywhere::<MetadataRequest>(make).await?;
        let info = self.learn(reply)?;
        Ok(info)
    }

    fn learn(&self, reply: MetadataResponse) -> Result<ClusterInfo, RemoteError> {
        const API: &str = "Metadata";
        Code::check(reply.error_code).map_err(|code| RemoteError::Refused { api: API, code, message: None })?;
        let brokers: Vec<BrokerInfo> = reply
            .brokers
            .iter()
            .map(|b| BrokerInfo {
                node: b.node_id,
                host: b.host.to_string(),
                port: b.port,
                rack: b.rack.as_ref().map(|r| r.to_string()),
            })
            .collect();
        let mut topics = Vec::new();
        let mut refused = None;
        for topic in &reply.topics {
            // 5: some partition has no leader; the description is complete all the same.
            if !matches!(topic.error_code, 0 | 5) {
                let name = topic.name.as_ref().map(|n| n.to_string());
                refused = Some(RemoteError::Refused { api: API, code: Code(topic.error_code), message: name });
                continue;
            }
            topics.push(info(topic));
        }
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        let mut known = self.known();
        known.brokers.retain(|node, c| brokers.iter().any(|b| b.node == *node && address(b) == c.address()));
        for broker in &brokers {
            let options = &self.inner.options;
            known.brokers.entry(broker.node).or_insert_with(|| Arc::new(Connection::new(address(broker), options)));
        }
        for topic in &topics {
            known.topics.insert(topic.name.clone(), topic.clone());
        }
        drop(known);
        if let Some(error) = refused {
            return Err(error);
        }
        Ok(ClusterInfo {
            cluster_id: reply.cluster_id.map(|c| c.to_string()),
            controller: reply.controller_id,
            brokers,
            topics,
        })
    }

    pub(super) fn forget(&self, topic: &str) {
        self.known().topics.remove(topic);
    }

    /// The leader's connection and the topic's id; asks the cluster until there is one or the time is over.
    pub(super) async fn leader(&self, topic: &str, partition: i32) -> Result<(Arc<Connection>, TopicId), RemoteError> {
        let wait = async {
            loop {
                let found = self.known().topics.get(topic).cloned();
                let leader = found.as_ref().and_then(|t| t.partitions.iter().find(|p| p.index == partition)?.leader);
                if let (Some(info), Some(node)) = (&found, leader)
                    && let Some(connection) = self.broker(node)
                {
                    return Ok((connection, info.id));
                }
                match self.metadata(Some(&[topic]), false).await {
                    Ok(info) => {
                        let has = |t: &TopicInfo| t.partitions.iter().any(|p| p.index == partition);
                        if info.topics.first().is_some_and(|t| !has(t)) {
                            return Err(RemoteError::refused("Metadata", 3, Some(topic)));
                        }
                        if info
                            .topics
                            .iter()
                            .flat_map(|t| &t.partitions)
                            .any(|p| p.index == partition && p.leader.is_some())
                        {
                            continue;
                        }
                    }
                    Err(e @ RemoteError::Refused { .. }) => {
                        if e.code().is_none_or(|c| c.0 != 5) {
                            return Err(e);
                        }
                    }
                    Err(e) => return Err(e),
                }
                time::sleep(RETRY_PAUSE).await;
            }
        };
        time::timeout(self.inner.options.timeout, wait)
            .await
            .map_err(|_| RemoteError::NoLeader { topic: topic.to_owned(), partition })?
    }
}

fn address(broker: &BrokerInfo) -> String {
    if broker.host.contains(':') {
        format!("[{}]:{}", broker.host, broker.port)
    } else {
        format!("{}:{}", broker.host, broker.port)
    }
}

fn info(topic: &MetadataResponseTopic) -> TopicInfo {
    let mut partitions: Vec<PartitionInfo> = topic
        .partitions
        .iter()
        .map(|p| PartitionInfo {
            index: p.partition_index,
            leader: (p.leader_id >= 0).then_some(p.leader_id),
            leader_epoch: p.leader_epoch,
            replicas: p.replica_nodes.clone(),
            in_sync: p.isr_nodes.clone(),
        })
        .collect();
    partitions.sort_by_key(|p| p.index);
    TopicInfo {
        name: topic.name.as_ref().map(|n| n.to_string()).unwrap_or_default(),
        id: topic.topic_id,
        internal: topic.is_internal,
        partitions,
    }
}
