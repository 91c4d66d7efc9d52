//! DescribeConfigs: every setting of a topic or of this broker, with where it comes from.

use super::{Refuse, RequestContext, Response, decode, respond};
use crate::error_code;
use crate::node::wire_id;
use bytes::Bytes;
use catchwater_coordinator::cluster::configs::{self, Described};
use catchwater_protocol::api::describe_configs::{
    DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use catchwater_protocol::api::{DescribeConfigsRequest, DescribeConfigsResponse};
use catchwater_record::TopicName;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// Why a resource is not described.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DescribeError {
    #[error("topic name {0:?} is illegal")]
    IllegalName(String),
    #[error("topic {0} does not exist")]
    UnknownTopic(String),
    #[error("unexpected broker id, expected {expected} or an empty string, but received {got:?}")]
    UnknownBroker { expected: i32, got: String },
    #[error("resources of type {0} are not described here")]
    Type(i8),
}

pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    let request: DescribeConfigsRequest = decode(body, version)?;
    let results = request
        .resources
        .iter()
        .map(|resource| {
            let mut out = DescribeConfigsResult {
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.clone(),
                ..Default::default()
            };
            match described(ctx, resource) {
                Ok(all) => {
                    out.configs = all
                        .into_iter()
                        .filter(|d| asked_for(resource, d.name))
                        .map(|d| told(d, request.include_synonyms, request.include_documentation))
                        .collect();
                }
                Err(error) => {
                    out.error_code = error_code::describe(&error);
                    out.error_message = Some(error.to_string().into());
                }
            }
            out
        })
        .collect();
    respond(&DescribeConfigsResponse { results, ..Default::default() }, version)
}

fn described(ctx: &RequestContext, resource: &DescribeConfigsResource) -> Result<Vec<Described>, DescribeError> {
    let name = &*resource.resource_name;
    let (image, file) = (ctx.node.controller.image(), &ctx.node.topics.file);
    match resource.resource_type {
        TOPIC if !TopicName::is_legal(name) => Err(DescribeError::IllegalName(name.chars().take(300).collect())),
        TOPIC if image.topic_by_name(name).is_none() => Err(DescribeError::UnknownTopic(name.to_owned())),
        TOPIC => Ok(configs::describe_topic(&image, file, &TopicName::from(name))),
        // The default of all brokers: only what was set there, which is nothing yet.
        BROKER if name.is_empty() => Ok(Vec::new()),
        BROKER if name.parse() == Ok(wire_id(ctx.node.config.id)) => {
            Ok(configs::describe_broker(&image, file, ctx.node.config.id))
        }
        BROKER => Err(DescribeError::UnknownBroker {
            expected: wire_id(ctx.node.config.id),
            got: name.chars().take(300).collect(),
        }),
        other => Err(DescribeError::Type(other)),
    }
}

/// No list, and an empty one, ask for everything.
fn asked_for(resource: &DescribeConfigsResource, key: &str) -> bool {
    resource.configuration_keys.as_ref().is_none_or(|keys| keys.is_empty() || keys.iter().any(|k| &**k == key))
}

fn told(d: Described, with_synonyms: bool, with_text: bool) -> DescribeConfigsResourceResult {
    let synonyms = d.synonyms.into_iter().filter(|_| with_synonyms).map(|s| DescribeConfigsSynonym {
        name: s.name.into(),
        value: Some(s.value.into()),
        source: s.source as i8,
    });
    DescribeConfigsResourceResult {
        name: d.name.into(),
        value: Some(d.value.into()),
        read_only: d.read_only,
        config_source: d.source as i8,
        is_sensitive: false,
        synonyms: synonyms.collect(),
        config_type: d.kind.wire(),
        documentation: with_text.then(|| d.text.into()),
    }
}
