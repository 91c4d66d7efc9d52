//! AlterConfigs: the settings of a resource replaced by these and no others. Deprecated by KIP-339 and still what
//! librdkafka's older callers send.

use super::{Refuse, RequestContext, Response, decode, respond};
use crate::audit::{self, Deed, listed};
use crate::error_code;
use crate::node::{ControllerError, wire_id};
use bytes::Bytes;
use catchwater_coordinator::cluster::configs::{ConfigChange, ConfigError, ConfigHow, ConfigStep};
use catchwater_coordinator::cluster::image::ConfigKey;
use catchwater_coordinator::controller::{Reply, Request};
use catchwater_protocol::api::alter_configs::AlterConfigsResourceResponse;
use catchwater_protocol::api::{AlterConfigsRequest, AlterConfigsResponse};
use catchwater_record::TopicName;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// One resource of a request: its type and name as sent, and what shall become of it.
pub(super) struct Wanted {
    pub kind: i8,
    pub name: String,
    pub how: ConfigHow,
}

/// What became of it; `None` = done.
pub(super) type Outcome = Option<Result<ConfigError, ControllerError>>;

pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    let request: AlterConfigsRequest = decode(body, version)?;
    let wanted = request
        .resources
        .iter()
        .map(|resource| {
            let pair = |c: &catchwater_protocol::api::alter_configs::AlterableConfig| {
                (c.name.to_string(), c.value.as_ref().map(|v| v.to_string()))
            };
            Wanted {
                kind: resource.resource_type,
                name: resource.resource_name.to_string(),
                how: ConfigHow::Replace(resource.configs.iter().map(pair).collect()),
            }
        })
        .collect();
    let outcomes = alter(ctx, wanted, request.validate_only).await?;
    let responses = request
        .resources
        .iter()
        .zip(outcomes)
        .map(|(resource, outcome)| {
            let (error_code, error_message) = told(outcome);
            AlterConfigsResourceResponse {
                error_code,
                error_message: error_message.map(Into::into),
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.clone(),
            }
        })
        .collect();
    respond(&AlterConfigsResponse { responses, ..Default::default() }, version)
}

/// Code and text of an outcome.
pub(super) fn told(outcome: Outcome) -> (i16, Option<String>) {
    match outcome {
        None => (error_code::code::NONE, None),
        Some(error) => {
            let text = match &error {
                Ok(error) => error.to_string(),
                Err(error) => error.to_string(),
            };
            (error_code::alter(&error), Some(text))
        }
    }
}

/// Both requests behind their forms. Each resource succeeds or fails alone, and as a whole.
pub(super) async fn alter(
    ctx: &RequestContext,
    wanted: Vec<Wanted>,
    validate_only: bool,
) -> Result<Vec<Outcome>, Refuse> {
    let of: Vec<Result<ConfigKey, ConfigError>> =
        wanted.iter().enumerate().map(|(i, one)| resource(ctx, &wanted, i, one)).collect();
    let mut changes = Vec::new();
    for (key, one) in of.iter().zip(&wanted) {
        if let Ok(key) = key {
            changes.push(ConfigChange { of: key.clone(), how: one.how.clone() });
        }
    }
    let asked = !changes.is_empty();
    // What a trial refuses is refused again below.
    let judged = match asked && !validate_only && ctx.node.auditor.is_some() {
        true => said(ctx, &changes).await,
        false => Ok(Vec::new()),
    };
    let answer = match (&judged, asked) {
        (Err(error), _) => Err(*error),
        (Ok(_), true) => ctx.node.controller.ask(Request::AlterConfigs { changes, validate_only }).await,
        (Ok(_), false) => Ok(Reply::Configs(Vec::new())),
    };
    if let Ok(allowed) = judged {
        let error = |at: usize| match &answer {
            Ok(Reply::Configs(results)) => results.get(at)?.as_ref().err().map(error_code::config),
            Ok(_) => None,
            Err(error) => Some(error_code::controller(*error)),
        };
        audit::failed(ctx, allowed.into_iter().filter_map(|(at, deed)| Some((deed, error(at)?))).collect()).await;
    }
    let mut decided = match answer {
        Ok(Reply::Configs(results)) => Ok(results.into_iter()),
        Ok(other) => return Err(Refuse::Bug(format!("{other:?} to an AlterConfigs"))),
        Err(error) => Err(error),
    };
    let outcomes = of.into_iter().map(|key| match (key, &mut decided) {
        (Err(refused), _) => Some(Ok(refused)),
        (Ok(_), Err(error)) => Some(Err(*error)),
        (Ok(_), Ok(results)) => match results.next() {
            Some(Ok(())) => None,
            Some(Err(refused)) => Some(Ok(refused)),
            None => Some(Err(ControllerError::Unknown)),
        },
    });
    Ok(outcomes.collect())
}

/// Asks what would become of these changes and writes that down; gives those that are allowed, with their places.
async fn said(ctx: &RequestContext, changes: &[ConfigChange]) -> Result<Vec<(usize, Deed)>, ControllerError> {
    let trial = Request::AlterConfigs { changes: changes.to_vec(), validate_only: true };
    let Reply::Configs(judged) = ctx.node.controller.ask(trial).await? else { return Err(ControllerError::Unknown) };
    let deeds: Vec<(usize, Deed, Option<i16>)> = changes
        .iter()
        .zip(judged)
        .enumerate()
        .map(|(at, (change, judged))| (at, deed(change), judged.err().map(|e| error_code::config(&e))))
        .collect();
    audit::before(ctx, deeds.iter().map(|(_, deed, refused)| (deed.clone(), *refused)).collect()).await?;
    Ok(deeds.into_iter().filter(|(_, _, refused)| refused.is_none()).map(|(at, deed, _)| (at, deed)).collect())
}

/// Names of settings alone: a value may be a secret.
fn deed(change: &ConfigChange) -> Deed {
    let (action, kind, name) = match &change.of {
        ConfigKey::Topic(name) => ("topic.alter", "topic", name.to_string()),
        ConfigKey::Broker(Some(id)) => ("broker.alter", "broker", wire_id(*id).to_string()),
        ConfigKey::Broker(None) => ("broker.alter", "brokers", "all".to_owned()),
    };
    // A shorter retention makes room, and nobody can say here which setting is one.
    let deed = Deed::new(action, kind, &name).frees();
    match &change.how {
        ConfigHow::Replace(all) => deed.with("replaced_by", listed(all.iter().map(|(name, _)| audit::cut(name)))),
        ConfigHow::Steps(steps) => {
            let named = |(name, step): &(String, ConfigStep)| match step {
                ConfigStep::Delete => format!("-{}", audit::cut(name)),
                _ => audit::cut(name),
            };
            deed.with("settings", listed(steps.iter().map(named)))
        }
    }
}

/// Which resource is meant. The order of the checks is Kafka's.
fn resource(ctx: &RequestContext, all: &[Wanted], at: usize, one: &Wanted) -> Result<ConfigKey, ConfigError> {
    if all.iter().enumerate().any(|(i, other)| i != at && (other.kind, &other.name) == (one.kind, &one.name)) {
        return Err(ConfigError::ResourceTwice);
    }
    match one.kind {
        TOPIC if one.name.is_empty() => Err(ConfigError::NoName),
        TOPIC if !TopicName::is_legal(&one.name) => Err(ConfigError::IllegalName(one.name.chars().take(300).collect())),
        TOPIC => Ok(ConfigKey::Topic(TopicName::from(one.name.as_str()))),
        BROKER if one.name.is_empty() => Ok(ConfigKey::Broker(None)),
        BROKER if one.name.parse() == Ok(wire_id(ctx.node.config.id)) => {
            Ok(ConfigKey::Broker(Some(ctx.node.config.id)))
        }
        BROKER => Err(ConfigError::UnknownBroker {
            expected: wire_id(ctx.node.config.id),
            got: one.name.chars().take(300).collect(),
        }),
        other => Err(ConfigError::Type(other)),
    }
}
