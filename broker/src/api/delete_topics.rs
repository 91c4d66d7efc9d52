//! DeleteTopics: by name, from version 6 on by name or id.

use super::{Refuse, RequestContext, Response, decode, respond};
use crate::error_code;
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
    let mut results = match ctx.node.controller.ask(Request::DeleteTopics { topics }).await {
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
