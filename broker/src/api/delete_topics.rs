//! DeleteTopics: by name, from version 6 on by name or id.

use super::{Refuse, RequestContext, Response, decode, respond};
use crate::audit::{self, Deed};
use crate::error_code;
use crate::node::ControllerError;
use bytes::Bytes;
use catchwater_coordinator::cluster::topics::{TopicError, WhichTopic};
use catchwater_coordinator::controller::{Reply, Request};
use catchwater_protocol::Str;
use catchwater_protocol::api::delete_topics::DeletableTopicResult;
use catchwater_protocol::api::{DeleteTopicsRequest, DeleteTopicsResponse};
use catchwater_record::TopicId;

pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    let request: DeleteTopicsRequest = decode(body, version)?;
    let asked: Vec<(Option<Str>, TopicId)> = if version >= 6 {
        request.topics.iter().map(|t| (t.name.clone(), t.topic_id)).collect()
    } else {
        request.topic_names.iter().map(|name| (Some(name.clone()), TopicId::NONE)).collect()
    };
    let which = |(name, id): &(Option<Str>, TopicId)| match (name, id.is_none()) {
        (Some(name), true) => Some(WhichTopic::Name(name.to_string())),
        (None, false) => Some(WhichTopic::Id(*id)),
        // Both, or neither.
        _ => None,
    };
    let topics: Vec<WhichTopic> = asked.iter().filter_map(which).collect();
    let deeds: Vec<Deed> = topics.iter().map(|t| deed(ctx, t)).collect();
    let known = |t: &WhichTopic| match t {
        WhichTopic::Name(name) => ctx.node.topics.by_name(name).is_some(),
        WhichTopic::Id(id) => ctx.node.topics.by_id(*id).is_some(),
    };
    let judged = topics.iter().map(|t| (!known(t)).then(|| error_code::topic(&unknown(t))));
    let judged: Vec<Option<i16>> = judged.collect();
    let said = audit::before(ctx, deeds.iter().cloned().zip(judged.iter().copied()).collect()).await;
    let answer = match said {
        Ok(()) => ctx.node.controller.ask(Request::DeleteTopics { topics }).await,
        Err(error) => Err(error),
    };
    if let Some(undone) = undone(&answer, deeds, &judged).filter(|_| said.is_ok()) {
        audit::failed(ctx, undone).await;
    }
    let mut results = match answer {
        Ok(Reply::Deleted(results)) => results.into_iter().map(Ok).collect::<Vec<_>>(),
        Ok(other) => return Err(Refuse::Bug(format!("{other:?} to a DeleteTopics"))),
        Err(error) => asked.iter().map(|_| Err(error)).collect(),
    }
    .into_iter();
    let mut response = DeleteTopicsResponse::default();
    for one in &asked {
        let mut out = DeletableTopicResult { name: one.0.clone(), topic_id: one.1, ..Default::default() };
        let malformed = || Ok(Err(TopicError::Invalid("a topic is named by its name or by its id")));
        match if which(one).is_some() { results.next().unwrap_or_else(malformed) } else { malformed() } {
            Ok(Ok((id, name))) => {
                out.topic_id = id;
                out.name = Some((&name).into());
            }
            Ok(Err(error)) => {
                out.error_code = error_code::topic(&error);
                out.error_message = Some(error.to_string().into());
            }
            Err(error) => {
                out.error_code = error_code::controller(error);
                out.error_message = Some(error.to_string().into());
            }
        }
        response.responses.push(out);
    }
    respond(&response, version)
}

fn deed(ctx: &RequestContext, topic: &WhichTopic) -> Deed {
    match topic {
        WhichTopic::Name(name) => Deed::new("topic.delete", "topic", name).frees(),
        WhichTopic::Id(id) => match ctx.node.controller.image().topic(*id) {
            Some(topic) => Deed::new("topic.delete", "topic", topic.name.as_str()).frees(),
            None => Deed::new("topic.delete", "topic id", &id.to_string()).frees(),
        },
    }
}

fn unknown(topic: &WhichTopic) -> TopicError {
    match topic {
        WhichTopic::Name(name) => TopicError::UnknownName(name.clone()),
        WhichTopic::Id(id) => TopicError::UnknownId(*id),
    }
}

/// What was allowed and is there still.
fn undone(
    answer: &Result<Reply, ControllerError>,
    deeds: Vec<Deed>,
    judged: &[Option<i16>],
) -> Option<Vec<(Deed, i16)>> {
    let errors: Vec<Option<i16>> = match answer {
        Ok(Reply::Deleted(results)) => results.iter().map(|r| r.as_ref().err().map(error_code::topic)).collect(),
        Ok(_) => return None,
        Err(error) => vec![Some(error_code::controller(*error)); deeds.len()],
    };
    let allowed = deeds.into_iter().zip(judged).zip(errors).filter(|((_, refused), _)| refused.is_none());
    Some(allowed.filter_map(|((deed, _), error)| Some((deed, error?))).collect())
}
