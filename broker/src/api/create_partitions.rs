//! CreatePartitions (KIP-195): a topic gets more partitions, behind those it has. Each topic succeeds or fails alone.

use super::{Refuse, RequestContext, Response, decode, respond};
use crate::audit::{self, Deed};
use crate::error_code;
use crate::node::ControllerError;
use bytes::Bytes;
use catchwater_coordinator::cluster::topics::{TopicError, WidenTopic};
use catchwater_coordinator::controller::{Reply, Request};
use catchwater_protocol::api::create_partitions::{CreatePartitionsTopic, CreatePartitionsTopicResult};
use catchwater_protocol::api::{CreatePartitionsRequest, CreatePartitionsResponse};
use catchwater_runtime::time;
use std::collections::BTreeMap;
use std::time::Duration;

pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    let request: CreatePartitionsRequest = decode(body, version)?;
    let mut asked: BTreeMap<&str, u32> = BTreeMap::new();
    request.topics.iter().for_each(|t| *asked.entry(&t.name).or_default() += 1);
    // As Kafka: a name that stands twice fails once, before the others are looked at.
    let mut response = CreatePartitionsResponse::default();
    for (name, _) in asked.iter().filter(|(_, times)| **times > 1) {
        let error = TopicError::Duplicate((*name).to_owned());
        response.results.push(result(name, Some((error_code::topic(&error), error.to_string()))));
    }
    let once: Vec<&CreatePartitionsTopic> = request.topics.iter().filter(|t| asked.get(&*t.name) == Some(&1)).collect();
    let topics: Vec<WidenTopic> = once.iter().map(|t| wanted(t)).collect();
    let allowed = match request.validate_only {
        true => Ok(Vec::new()),
        false => allowed(ctx, &topics).await,
    };
    let answer = match &allowed {
        Ok(_) => {
            let request = Request::CreatePartitions { topics, validate_only: request.validate_only };
            ctx.node.controller.ask(request).await
        }
        Err(error) => Err(*error),
    };
    let failures: Vec<Option<(i16, String)>> = match &answer {
        Ok(Reply::Widened(results)) => results
            .iter()
            .map(|result| result.as_ref().err().map(|error| (error_code::topic(error), error.to_string())))
            .collect(),
        Ok(other) => return Err(Refuse::Bug(format!("{other:?} to a CreatePartitions"))),
        Err(error) => once.iter().map(|_| Some((error_code::controller(*error), error.to_string()))).collect(),
    };
    let code = |at: usize| failures.get(at)?.as_ref().map(|(code, _)| *code);
    let undone = allowed.unwrap_or_default().into_iter().filter_map(|(at, deed)| Some((deed, code(at)?)));
    audit::failed(ctx, undone.collect()).await;
    if !request.validate_only {
        let made = once.iter().zip(&failures).filter(|(_, failure)| failure.is_none());
        let made = made.filter_map(|(topic, _)| ctx.node.topics.by_name(&topic.name));
        // As after CreateTopics: the client's next call finds leaders that know their ends.
        let ready = async {
            for here in made {
                here.led().await;
            }
        };
        let _ = time::timeout(Duration::from_millis(ctx.node.config.create_wait_ms), ready).await;
    }
    response.results.extend(once.iter().zip(failures).map(|(topic, failure)| result(&topic.name, failure)));
    respond(&response, version)
}

fn result(name: &str, failure: Option<(i16, String)>) -> CreatePartitionsTopicResult {
    let (error_code, error_message) = match failure {
        Some((code, text)) => (code, Some(text.into())),
        None => (error_code::code::NONE, None),
    };
    CreatePartitionsTopicResult { name: name.into(), error_code, error_message }
}

fn wanted(topic: &CreatePartitionsTopic) -> WidenTopic {
    WidenTopic {
        name: topic.name.to_string(),
        count: topic.count,
        assignments: topic.assignments.as_ref().map(|all| all.iter().map(|a| a.broker_ids.clone()).collect()),
    }
}

/// Asks what would become of them, and writes that down; what is allowed, with its place.
async fn allowed(ctx: &RequestContext, topics: &[WidenTopic]) -> Result<Vec<(usize, Deed)>, ControllerError> {
    if ctx.node.auditor.is_none() {
        return Ok(Vec::new());
    }
    let trial = Request::CreatePartitions { topics: topics.to_vec(), validate_only: true };
    let judged = match ctx.node.controller.ask(trial).await? {
        Reply::Widened(judged) => judged,
        _ => return Err(ControllerError::Unknown),
    };
    let deeds: Vec<(Deed, Option<i16>)> = topics
        .iter()
        .zip(judged)
        .map(|(topic, judged)| {
            let deed = Deed::new("topic.create_partitions", "topic", &topic.name);
            (deed.with("partitions", topic.count.to_string()), judged.err().map(|e| error_code::topic(&e)))
        })
        .collect();
    audit::before(ctx, deeds.clone()).await?;
    let of_it = deeds.into_iter().enumerate().filter(|(_, (_, refused))| refused.is_none());
    Ok(of_it.map(|(at, (deed, _))| (at, deed)).collect())
}
