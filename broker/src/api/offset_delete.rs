//! OffsetDelete (KIP-496): forgets what a group committed, except of topics it is subscribed to.

use super::{Refuse, RequestContext, Response, decode, respond};
use crate::audit::{self, Deed, listed};
use crate::error_code::{self, OffsetsError};
use crate::node::GroupsError;
use bytes::Bytes;
use catchwater_coordinator::group::{Reply, Request};
use catchwater_protocol::api::offset_delete::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use catchwater_protocol::api::{OffsetDeleteRequest, OffsetDeleteResponse};
use catchwater_record::{GroupName, TopicName};

pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    let request: OffsetDeleteRequest = decode(body, version)?;
    let group = GroupName::from(&*request.group_id);
    let mut topics = Vec::new();
    let mut response = OffsetDeleteResponse::default();
    for topic in &request.topics {
        let here = ctx.node.topics.by_name(&topic.name);
        let known = |index: i32| here.as_ref().is_some_and(|h| h.partition(index).is_some());
        let mut of_it = Vec::new();
        let partitions = topic.partitions.iter().map(|p| {
            let partition_index = p.partition_index;
            let error_code = if known(partition_index) {
                of_it.push(partition_index);
                0
            } else {
                error_code::offsets(OffsetsError::UnknownTopic)
            };
            OffsetDeleteResponsePartition { partition_index, error_code }
        });
        let partitions = partitions.collect();
        topics.push((TopicName::from(&*topic.name), of_it));
        response.topics.push(OffsetDeleteResponseTopic { name: topic.name.detach(), partitions });
    }
    let deed = Deed::new("group.delete_offsets", "group", &request.group_id)
        .with("of", listed(topics.iter().map(|(topic, _): &(TopicName, Vec<i32>)| audit::cut(topic.as_str()))));
    let answer = match audit::before(ctx, vec![(deed.clone(), None)]).await {
        Ok(()) => ctx.node.groups.ask(&group, Request::DeleteOffsets { group: group.clone(), topics }).await,
        Err(_) => Err(GroupsError::NotAvailable),
    };
    let refused = match &answer {
        Ok(Reply::DeleteOffsets(Err(error))) => Some(error_code::group(error)),
        Err(error) => Some(error_code::groups(*error)),
        Ok(_) => None,
    };
    audit::failed(ctx, refused.map(|code| (deed, code)).into_iter().collect()).await;
    match answer {
        Ok(Reply::DeleteOffsets(Ok(results))) => {
            for (topic, result) in response.topics.iter_mut().zip(results) {
                if let Err(error) = result {
                    let told = error_code::group(&error);
                    topic.partitions.iter_mut().filter(|p| p.error_code == 0).for_each(|p| p.error_code = told);
                }
            }
        }
        Ok(Reply::DeleteOffsets(Err(error))) => {
            response = OffsetDeleteResponse { error_code: error_code::group(&error), ..Default::default() };
        }
        Ok(other) => return Err(Refuse::Bug(format!("{other:?} to an offset delete"))),
        Err(error) => {
            response = OffsetDeleteResponse { error_code: error_code::groups(error), ..Default::default() };
        }
    }
    respond(&response, version)
}
