//! OffsetFetch: how far groups have come. One group up to version 7, many from 8 on, topics by id from 10 on.
//!
//! A partition without a committed offset is -1 with error 0. No transaction can be pending, so `require_stable` is
//! always satisfied.

use super::{Refuse, RequestContext, Response, decode, respond};
use crate::error_code::{self, OffsetsError};
use crate::node::GroupsError;
use bytes::Bytes;
use catchwater_coordinator::cluster::image::Image;
use catchwater_coordinator::group::{FetchOffsets, FetchedOffset, GroupError, Reply, Request};
use catchwater_protocol::Str;
use catchwater_protocol::api::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use catchwater_protocol::api::{OffsetFetchRequest, OffsetFetchResponse};
use catchwater_record::{GroupName, TopicId, TopicName};
use std::collections::BTreeMap;

pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    let request: OffsetFetchRequest = decode(body, version)?;
    let response = if version >= 8 {
        let mut groups = Vec::with_capacity(request.groups.len());
        for group in &request.groups {
            groups.push(of_group(ctx, version, group).await?);
        }
        OffsetFetchResponse { groups, ..Default::default() }
    } else {
        single(ctx, version, &request).await?
    };
    respond(&response, version)
}

/// Versions 1-7: one group, topics by name.
async fn single(
    ctx: &RequestContext,
    version: i16,
    request: &OffsetFetchRequest,
) -> Result<OffsetFetchResponse, Refuse> {
    let group = GroupName::from(&*request.group_id);
    let wanted: Option<Vec<(TopicName, Vec<i32>)>> = request
        .topics
        .as_ref()
        .map(|topics| topics.iter().map(|t| (TopicName::from(&*t.name), t.partition_indexes.clone())).collect());
    let mut response = OffsetFetchResponse::default();
    match ask(ctx, &group, None, wanted.clone()).await? {
        Ok(found) => {
            response.topics = by_topic(found)
                .into_iter()
                .map(|(name, offsets)| OffsetFetchResponseTopic {
                    name: (&name).into(),
                    partitions: offsets
                        .into_iter()
                        .map(|o| OffsetFetchResponsePartition {
                            partition_index: o.partition,
                            committed_offset: o.offset,
                            committed_leader_epoch: o.leader_epoch,
                            metadata: Some(o.metadata.into()),
                            error_code: 0,
                        })
                        .collect(),
                })
                .collect();
        }
        Err(code) => {
            response.error_code = code;
            // Version 1 has no error of the whole: it stands at every partition.
            response.topics = wanted
                .unwrap_or_default()
                .into_iter()
                .filter(|_| version < 2)
                .map(|(name, partitions)| OffsetFetchResponseTopic {
                    name: (&name).into(),
                    partitions: partitions
                        .into_iter()
                        .map(|partition_index| OffsetFetchResponsePartition {
                            partition_index,
                            committed_offset: -1,
                            metadata: Some(Str::default()),
                            error_code: code,
                            ..Default::default()
                        })
                        .collect(),
                })
                .collect();
        }
    }
    Ok(response)
}

/// Versions 8-10: one of many groups.
async fn of_group(
    ctx: &RequestContext,
    version: i16,
    request: &OffsetFetchRequestGroup,
) -> Result<OffsetFetchResponseGroup, Refuse> {
    let image = ctx.node.controller.image();
    let group = GroupName::from(&*request.group_id);
    let by_id = version >= 10;
    let mut out = OffsetFetchResponseGroup { group_id: request.group_id.detach(), ..Default::default() };
    let mut wanted = Vec::new();
    for topic in request.topics.iter().flatten() {
        match if by_id { image.topic(topic.topic_id).map(|t| t.name.clone()) } else { Some((&*topic.name).into()) } {
            Some(name) => wanted.push((name, topic.partition_indexes.clone())),
            None => out.topics.push(unknown(topic.topic_id, &topic.partition_indexes)),
        }
    }
    let member = request.member_id.as_ref().map(|m| (m.to_string(), request.member_epoch));
    match ask(ctx, &group, member, request.topics.is_some().then_some(wanted)).await? {
        Ok(found) => out.topics.extend(by_topic(found).into_iter().filter_map(|t| told(&image, by_id, t))),
        Err(code) => {
            out.error_code = code;
            out.topics.clear();
        }
    }
    Ok(out)
}

fn unknown(topic_id: TopicId, partitions: &[i32]) -> OffsetFetchResponseTopics {
    let partitions = partitions
        .iter()
        .map(|partition_index| OffsetFetchResponsePartitions {
            partition_index: *partition_index,
            committed_offset: -1,
            committed_leader_epoch: -1,
            metadata: Some(Str::default()),
            error_code: error_code::offsets(OffsetsError::UnknownTopicId),
        })
        .collect();
    OffsetFetchResponseTopics { topic_id, partitions, ..Default::default() }
}

/// `None`: asked for everything by id, and the topic is gone.
fn told(
    image: &Image,
    by_id: bool,
    (name, offsets): (TopicName, Vec<FetchedOffset>),
) -> Option<OffsetFetchResponseTopics> {
    let topic_id = if by_id { image.topic_by_name(name.as_str())?.id } else { TopicId::NONE };
    let partitions = offsets
        .into_iter()
        .map(|o| OffsetFetchResponsePartitions {
            partition_index: o.partition,
            committed_offset: o.offset,
            committed_leader_epoch: o.leader_epoch,
            metadata: Some(o.metadata.into()),
            error_code: 0,
        })
        .collect();
    Some(OffsetFetchResponseTopics { name: (&name).into(), topic_id, partitions })
}

/// `Err` of the inner result = the code for the whole group.
async fn ask(
    ctx: &RequestContext,
    group: &GroupName,
    member: Option<(String, i32)>,
    topics: Option<Vec<(TopicName, Vec<i32>)>>,
) -> Result<Result<Vec<FetchedOffset>, i16>, Refuse> {
    let request = Request::Fetch(FetchOffsets { group: group.clone(), member, topics });
    let answer: Result<Reply, GroupsError> = ctx.node.groups.ask(group, request).await;
    match answer {
        Ok(Reply::Fetch(found)) => Ok(found.map_err(|e: GroupError| error_code::group(&e))),
        Ok(other) => Err(Refuse::Bug(format!("{other:?} to an offset fetch"))),
        Err(error) => Ok(Err(error_code::groups(error))),
    }
}

fn by_topic(found: Vec<FetchedOffset>) -> BTreeMap<TopicName, Vec<FetchedOffset>> {
    let mut topics: BTreeMap<TopicName, Vec<FetchedOffset>> = BTreeMap::new();
    for offset in found {
        topics.entry(offset.topic.clone()).or_default().push(offset);
    }
    topics
}
