//! CreateTopics: each topic succeeds or fails alone; from version 5 on the answer tells all settings with their sources.

use super::{Refuse, RequestContext, Response, decode, respond};
use crate::audit::{self, Deed, listed};
use crate::error_code;
use crate::node::ControllerError;
use bytes::Bytes;
use catchwater_coordinator::cluster::configs;
use catchwater_coordinator::cluster::topics::{CreateTopic, CreatedTopic};
use catchwater_coordinator::controller::{Reply, Request};
use catchwater_protocol::api::create_topics::{CreatableTopic, CreatableTopicConfigs, CreatableTopicResult};
use catchwater_protocol::api::{CreateTopicsRequest, CreateTopicsResponse};
use catchwater_record::TopicId;
use catchwater_runtime::time;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    let request: CreateTopicsRequest = decode(body, version)?;
    let validate_only = request.validate_only;
    let topics: Vec<CreateTopic> = request.topics.iter().map(|t| wanted(ctx, t)).collect();
    let mut response = CreateTopicsResponse::default();
    let allowed = match validate_only {
        true => Ok(Vec::new()),
        false => allowed(ctx, &request.topics, &topics).await,
    };
    let answer = match &allowed {
        Ok(_) => ctx.node.controller.ask(Request::CreateTopics { topics, validate_only }).await,
        Err(error) => Err(*error),
    };
    let results = match answer {
        Ok(Reply::Topics(results)) => results,
        Ok(other) => return Err(Refuse::Bug(format!("{other:?} to a CreateTopics"))),
        Err(error) => {
            audit::failed(ctx, undone(allowed, |_| Some(error_code::controller(error)))).await;
            let (error_code, text) = (error_code::controller(error), error.to_string());
            response.topics = request
                .topics
                .iter()
                .map(|t| CreatableTopicResult {
                    name: t.name.clone(),
                    error_code,
                    error_message: Some(text.as_str().into()),
                    ..Default::default()
                })
                .collect();
            return respond(&response, version);
        }
    };
    audit::failed(ctx, undone(allowed, |at| results.get(at)?.as_ref().err().map(error_code::topic))).await;
    if !validate_only {
        // A made topic leads and knows its end before the answer, if that is a matter of a second: the client's next call
        // may be ListOffsets, and not every client asks again after 78.
        let made = results.iter().flatten().filter_map(|made| ctx.node.topics.by_id(made.id));
        let ready = async {
            for here in made {
                here.led().await;
            }
        };
        let _ = time::timeout(Duration::from_millis(ctx.node.config.create_wait_ms), ready).await;
    }
    // A name that stands twice in the request fails once.
    let mut told = BTreeSet::new();
    for (asked, result) in request.topics.iter().zip(results) {
        if !told.insert(&asked.name) {
            continue;
        }
        response.topics.push(match result {
            Ok(made) => success(ctx, asked, &made, validate_only),
            Err(error) => CreatableTopicResult {
                name: asked.name.clone(),
                error_code: error_code::topic(&error),
                error_message: Some(error.to_string().into()),
                ..Default::default()
            },
        });
    }
    respond(&response, version)
}

/// Deeds with their place in the request.
type Allowed = Result<Vec<(usize, Deed)>, ControllerError>;

/// Asks what would become of them, and writes that down. What is refused here is refused again when it is done.
async fn allowed(ctx: &RequestContext, asked: &[CreatableTopic], topics: &[CreateTopic]) -> Allowed {
    if ctx.node.auditor.is_none() {
        return Ok(Vec::new());
    }
    let trial = Request::CreateTopics { topics: topics.to_vec(), validate_only: true };
    let judged = match ctx.node.controller.ask(trial).await? {
        Reply::Topics(judged) => judged,
        _ => return Err(ControllerError::Unknown),
    };
    let deeds: Vec<(usize, Deed, Option<i16>)> = asked
        .iter()
        .zip(judged)
        .enumerate()
        .map(|(at, (topic, judged))| (at, deed(topic), judged.err().map(|e| error_code::topic(&e))))
        .collect();
    audit::before(ctx, deeds.iter().map(|(_, deed, refused)| (deed.clone(), *refused)).collect()).await?;
    Ok(deeds.into_iter().filter(|(_, _, refused)| refused.is_none()).map(|(at, deed, _)| (at, deed)).collect())
}

fn deed(topic: &CreatableTopic) -> Deed {
    let deed = Deed::new("topic.create", "topic", &topic.name).with("partitions", topic.num_partitions.to_string());
    match topic.configs.is_empty() {
        true => deed,
        false => deed.with("settings", listed(topic.configs.iter().map(|c| audit::cut(&c.name)))),
    }
}

/// Those of the allowed ones that came to an error.
fn undone(allowed: Allowed, error: impl Fn(usize) -> Option<i16>) -> Vec<(Deed, i16)> {
    allowed.unwrap_or_default().into_iter().filter_map(|(at, deed)| Some((deed, error(at)?))).collect()
}

fn wanted(ctx: &RequestContext, topic: &CreatableTopic) -> CreateTopic {
    CreateTopic {
        // -1 means the default; other numbers are judged by the machine.
        partitions: (topic.num_partitions != -1).then_some(topic.num_partitions),
        replication: (topic.replication_factor != -1).then_some(topic.replication_factor),
        assignments: topic.assignments.iter().map(|a| (a.partition_index, a.broker_ids.clone())).collect(),
        configs: topic.configs.iter().map(|c| (c.name.to_string(), c.value.as_ref().map(|v| v.to_string()))).collect(),
        ..CreateTopic::named(topic.name.to_string(), TopicId(ctx.node.controller.draw()))
    }
}

fn success(
    ctx: &RequestContext,
    asked: &CreatableTopic,
    made: &CreatedTopic,
    validate_only: bool,
) -> CreatableTopicResult {
    let set: BTreeMap<String, String> =
        asked.configs.iter().filter_map(|c| Some((c.name.to_string(), c.value.as_ref()?.trim().to_owned()))).collect();
    let configs = configs::describe_entries(Some(&set), &ctx.node.topics.file)
        .into_iter()
        .map(|d| CreatableTopicConfigs {
            name: d.name.into(),
            value: Some(d.value.into()),
            read_only: d.read_only,
            config_source: d.source as i8,
            is_sensitive: false,
        })
        .collect();
    CreatableTopicResult {
        name: asked.name.clone(),
        error_message: None,
        // Nothing was made: there is no id to show.
        topic_id: if validate_only { TopicId::NONE } else { made.id },
        num_partitions: i32::try_from(made.partitions).unwrap_or(i32::MAX),
        replication_factor: i16::try_from(made.replication).unwrap_or(i16::MAX),
        configs: Some(configs),
        ..Default::default()
    }
}
