//! Topics and their configs.

use catchwater_protocol::api::create_topics::{CreatableTopic, CreatableTopicConfig};
use catchwater_protocol::api::delete_topics::DeleteTopicState;
use catchwater_protocol::api::describe_configs::DescribeConfigsResource;
use catchwater_protocol::api::{CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest};
use catchwater_record::TopicId;

use super::{Kafka, RemoteError};

#[derive(Clone, Debug)]
pub struct NewTopic {
    pub name: String,
    /// `None` = the broker's default.
    pub partitions: Option<i32>,
    pub replication: Option<i16>,
    pub configs: Vec<(String, String)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreatedTopic {
    /// Zero below CreateTopics 7.
    pub id: TopicId,
    /// `None` below CreateTopics 5.
    pub partitions: Option<i32>,
    pub replication: Option<i16>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResourceKind {
    Topic,
    Broker,
    Group,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigEntry {
    pub name: String,
    /// `None` if sensitive.
    pub value: Option<String>,
    pub read_only: bool,
    pub sensitive: bool,
    /// 1 topic, 2 dynamic broker, 3 dynamic default, 4 static broker, 5 default, 8 group. Source: Kafka's ConfigSource.
    pub source: i8,
}

impl Kafka {
    /// Creates one topic. Its metadata may take a moment to have leaders everywhere.
    pub async fn create_topic(&self, topic: &NewTopic) -> Result<CreatedTopic, RemoteError> {
        self.create_topic_or_check(topic, false).await
    }

    /// Asks whether [`Kafka::create_topic`] would succeed; changes nothing.
    pub async fn check_topic(&self, topic: &NewTopic) -> Result<CreatedTopic, RemoteError> {
        self.create_topic_or_check(topic, true).await
    }

    async fn create_topic_or_check(&self, topic: &NewTopic, validate_only: bool) -> Result<CreatedTopic, RemoteError> {
        let make = |_version: i16| CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: topic.name.as_str().into(),
                num_partitions: topic.partitions.unwrap_or(-1),
                replication_factor: topic.replication.unwrap_or(-1),
                configs: topic
                    .configs
                    .iter()
                    .map(|(name, value)| CreatableTopicConfig { name: name.into(), value: Some(value.into()) })
                    .collect(),
                ..Default::default()
            }],
            timeout_ms: i32::try_from(self.inner.options.timeout.as_millis()).unwrap_or(i32::MAX),
            validate_only,
        };
        let (_, reply) = self.anywhere::<CreateTopicsRequest>(make).await?;
        let result = reply.topics.first().ok_or(RemoteError::Missing { api: "CreateTopics" })?;
        if result.error_code != 0 {
            return Err(RemoteError::refused("CreateTopics", result.error_code, result.error_message.as_deref()));
        }
        Ok(CreatedTopic {
            id: result.topic_id,
            partitions: (result.num_partitions >= 0).then_some(result.num_partitions),
            replication: (result.replication_factor >= 0).then_some(result.replication_factor),
        })
    }

    pub async fn delete_topic(&self, name: &str) -> Result<(), RemoteError> {
        let make = |version: i16| DeleteTopicsRequest {
            topics: if version >= 6 {
                vec![DeleteTopicState { name: Some(name.into()), ..Default::default() }]
            } else {
                Vec::new()
            },
            topic_names: vec![name.into()],
            timeout_ms: i32::try_from(self.inner.options.timeout.as_millis()).unwrap_or(i32::MAX),
        };
        let (_, reply) = self.anywhere::<DeleteTopicsRequest>(make).await?;
        self.forget(name);
        let result = reply.responses.first().ok_or(RemoteError::Missing { api: "DeleteTopics" })?;
        match result.error_code {
            0 => Ok(()),
            code => Err(RemoteError::refused("DeleteTopics", code, result.error_message.as_deref())),
        }
    }

    /// Every config of a topic, broker (by node id) or group, sorted by name.
    pub async fn describe_configs(&self, kind: ResourceKind, name: &str) -> Result<Vec<ConfigEntry>, RemoteError> {
        let make = |_version: i16| DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: match kind {
                    ResourceKind::Topic => 2,
                    ResourceKind::Broker => 4,
                    ResourceKind::Group => 32,
                },
                resource_name: name.into(),
                configuration_keys: None,
            }],
            ..Default::default()
        };
        let (_, reply) = self.anywhere::<DescribeConfigsRequest>(make).await?;
        let result = reply.results.into_iter().next().ok_or(RemoteError::Missing { api: "DescribeConfigs" })?;
        if result.error_code != 0 {
            return Err(RemoteError::refused("DescribeConfigs", result.error_code, result.error_message.as_deref()));
        }
        let entry = |c: &catchwater_protocol::api::describe_configs::DescribeConfigsResourceResult| ConfigEntry {
            name: c.name.to_string(),
            value: c.value.as_ref().map(|v| v.to_string()),
            read_only: c.read_only,
            sensitive: c.is_sensitive,
            source: c.config_source,
        };
        let mut configs: Vec<ConfigEntry> = result.configs.iter().map(entry).collect();
        configs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(configs)
    }
}
