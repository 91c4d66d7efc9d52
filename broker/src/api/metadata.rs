//! Metadata: nodes, topics, leaders. An unknown legal name is created on the way, if both sides allow it, and the same
//! answer names its leaders if they stand within [`crate::node::NodeConfig::create_wait_ms`].

use super::{Refuse, RequestContext, Response, decode, respond};
use crate::audit::{self, Deed};
use crate::error_code::{self, MetadataError};
use crate::metadata::{cluster_id, topic};
use crate::node::wire_id;
use bytes::Bytes;
use catchwater_coordinator::cluster::image::{Image, Topic, is_internal};
use catchwater_coordinator::cluster::topics::{CreateTopic, TopicError};
use catchwater_coordinator::controller::{Reply, Request};
use catchwater_protocol::api::metadata::{MetadataResponseBroker, MetadataResponseTopic};
use catchwater_protocol::api::{MetadataRequest, MetadataResponse};
use catchwater_record::{TopicId, TopicName};
use catchwater_runtime::time;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// One topic asked for.
enum Asked {
    Name(String),
    Id(TopicId),
    /// Neither, or both where one is allowed.
    Malformed,
}

pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    let request: MetadataRequest = decode(body, version)?;
    let asked: Option<Vec<Asked>> = match &request.topics {
        None => None,
        // Version 0 has no null: empty means all.
        Some(topics) if topics.is_empty() && version == 0 => None,
        Some(topics) => Some(
            topics
                .iter()
                .map(|t| match &t.name {
                    // Java's AdminClient sends an empty name beside an id.
                    _ if version >= 12 && !t.topic_id.is_none() => Asked::Id(t.topic_id),
                    Some(name) => Asked::Name(name.to_string()),
                    None => Asked::Malformed,
                })
                .collect(),
        ),
    };
    let mut failures = BTreeMap::new();
    if let Some(asked) = &asked
        && request.allow_auto_topic_creation
        && ctx.node.config.auto_create
    {
        failures = create_missing(ctx, asked).await;
    }
    let image = ctx.node.controller.image();
    let topics = match asked {
        None => image.topics_by_name().map(|t| known(ctx, t, version)).collect(),
        Some(asked) => {
            let mut seen = BTreeSet::new();
            asked
                .into_iter()
                .filter_map(|asked| one(ctx, (&image, &failures), asked, version, &mut seen))
                .collect::<Vec<_>>()
        }
    };
    let mut response = MetadataResponse {
        brokers: ctx
            .node
            .endpoints(&ctx.advertised)
            .into_iter()
            .map(|e| MetadataResponseBroker {
                node_id: e.id,
                host: e.host.into(),
                port: e.port,
                rack: e.rack.map(Into::into),
            })
            .collect(),
        cluster_id: image.cluster_id.map(|id| cluster_id(id).into()),
        controller_id: wire_id(ctx.node.config.id),
        topics,
        ..Default::default()
    };
    if request.include_topic_authorized_operations {
        for topic in response.topics.iter_mut().filter(|t| t.error_code == 0) {
            topic.topic_authorized_operations = crate::metadata::TOPIC_OPERATIONS;
        }
    }
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = crate::metadata::CLUSTER_OPERATIONS;
    }
    respond(&response, version)
}

fn known(ctx: &RequestContext, of: &Arc<Topic>, version: i16) -> MetadataResponseTopic {
    topic(of, ctx.node.topics.by_id(of.id).as_deref(), version)
}

fn one(
    ctx: &RequestContext,
    (image, failures): (&Image, &BTreeMap<String, MetadataError>),
    asked: Asked,
    version: i16,
    seen: &mut BTreeSet<String>,
) -> Option<MetadataResponseTopic> {
    let failed = |name: Option<&str>, topic_id, error| MetadataResponseTopic {
        error_code: error_code::metadata(error),
        name: name.map(Into::into),
        topic_id,
        ..Default::default()
    };
    match asked {
        Asked::Name(name) => {
            if !seen.insert(name.clone()) {
                return None;
            }
            Some(match image.topic_by_name(&name) {
                Some(found) => known(ctx, found, version),
                None if !TopicName::is_legal(&name) => failed(Some(&name), TopicId::NONE, MetadataError::IllegalName),
                None => {
                    let why = failures.get(&name).copied().unwrap_or(MetadataError::UnknownTopic);
                    failed(Some(&name), TopicId::NONE, why)
                }
            })
        }
        Asked::Id(id) => Some(match image.topic(id) {
            Some(found) => known(ctx, found, version),
            None => failed(None, id, MetadataError::UnknownTopicId),
        }),
        Asked::Malformed => {
            // A name may be null from version 12 on only.
            let name = if version >= 12 { None } else { Some("") };
            Some(failed(name, TopicId::NONE, MetadataError::IllegalName))
        }
    }
}

/// Creates what is missing and may be made, then waits for leaders. Gives what failed for a reason of its own.
async fn create_missing(ctx: &RequestContext, asked: &[Asked]) -> BTreeMap<String, MetadataError> {
    let mut failures = BTreeMap::new();
    let image = ctx.node.controller.image();
    let mut names: Vec<&String> = asked
        .iter()
        .filter_map(|asked| match asked {
            Asked::Name(name) if TopicName::is_legal(name) && !is_internal(name) => Some(name),
            _ => None,
        })
        .filter(|name| image.topic_by_name(name).is_none())
        .collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return failures;
    }
    let deed = |name: &str| Deed::new("topic.create", "topic", name).with("by", "auto.create.topics.enable");
    if audit::before(ctx, names.iter().map(|name| (deed(name), None)).collect()).await.is_err() {
        failures.extend(names.iter().map(|name| ((*name).clone(), MetadataError::NoLeader)));
        return failures;
    }
    let topics =
        names.iter().map(|name| CreateTopic::named(name.as_str(), TopicId(ctx.node.controller.draw()))).collect();
    let limit = Duration::from_millis(ctx.node.config.create_wait_ms);
    let make = async {
        let answer = ctx.node.controller.ask(Request::CreateTopics { topics, validate_only: false }).await;
        if let Ok(Reply::Topics(made)) = answer {
            for (name, made) in names.iter().zip(made) {
                match made {
                    Ok(made) => {
                        if let Some(here) = ctx.node.topics.by_id(made.id) {
                            here.led().await;
                        }
                    }
                    Err(TopicError::Exists(_)) => {}
                    Err(TopicError::Collides { .. } | TopicError::IllegalName { .. }) => {
                        failures.insert((*name).clone(), MetadataError::IllegalName);
                    }
                    Err(_) => {
                        failures.insert((*name).clone(), MetadataError::NotCreated);
                    }
                }
            }
        }
    };
    let _ = time::timeout(limit, make).await;
    let undone = failures.iter().map(|(name, error)| (deed(name), error_code::metadata(*error))).collect();
    audit::failed(ctx, undone).await;
    failures
}
