//! OffsetCommit: how far a group has come. From version 10 on topics are named by id.
//! Walk: commit-offset 1/8.

use super::{Refuse, RequestContext, Response, decode, respond};
use crate::error_code::{self, OffsetsError};
use bytes::Bytes;
use catchwater_coordinator::group::{Commit, CommitOffset, Reply, Request};
use catchwater_protocol::api::offset_commit::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use catchwater_protocol::api::{OffsetCommitRequest, OffsetCommitResponse};
use catchwater_record::{GroupName, PartitionId};

pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    let request: OffsetCommitRequest = decode(body, version)?;
    let group = GroupName::from(&*request.group_id);
    let image = ctx.node.controller.image();
    let mut response = OffsetCommitResponse::default();
    // What the machine is asked, and where in the answer each offset's result goes.
    let (mut offsets, mut places) = (Vec::new(), Vec::new());
    for asked in &request.topics {
        let topic = if version >= 10 { image.topic(asked.topic_id) } else { image.topic_by_name(&asked.name) };
        let mut out = OffsetCommitResponseTopic {
            name: asked.name.detach(),
            topic_id: asked.topic_id,
            partitions: Vec::with_capacity(asked.partitions.len()),
        };
        for p in &asked.partitions {
            let known = topic
                .filter(|t| u32::try_from(p.partition_index).is_ok_and(|index| t.place(PartitionId(index)).is_some()));
            let error = match known {
                Some(topic) => {
                    places.push((response.topics.len(), out.partitions.len()));
                    offsets.push(CommitOffset {
                        topic: topic.name.clone(),
                        topic_id: topic.id,
                        partition: p.partition_index,
                        offset: p.committed_offset,
                        leader_epoch: p.committed_leader_epoch,
                        metadata: p.committed_metadata.as_ref().map(|m| m.to_string()).unwrap_or_default(),
                        commit_ms: None,
                    });
                    None
                }
                None if version >= 10 && topic.is_none() => Some(OffsetsError::UnknownTopicId),
                None => Some(OffsetsError::UnknownTopic),
            };
            out.partitions.push(OffsetCommitResponsePartition {
                partition_index: p.partition_index,
                error_code: error.map_or(0, error_code::offsets),
            });
        }
        response.topics.push(out);
    }
    let commit = Commit {
        group: group.clone(),
        generation: request.generation_id_or_member_epoch,
        member: request.member_id.to_string(),
        instance: request.group_instance_id.as_ref().map(|i| i.to_string()),
        retention_ms: (2..=4).contains(&version).then_some(request.retention_time_ms).filter(|ms| *ms >= 0),
        offsets,
    };
    drop(request);
    if !places.is_empty() {
        let codes: Vec<i16> = match ctx.node.groups.ask(&group, Request::Commit(commit)).await {
            Ok(Reply::Commit(results)) => {
                results.iter().map(|r| r.as_ref().err().map_or(0, error_code::group)).collect()
            }
            Ok(other) => return Err(Refuse::Bug(format!("{other:?} to a commit"))),
            Err(error) => vec![error_code::groups(error); places.len()],
        };
        for ((topic, partition), code) in places.into_iter().zip(codes) {
            if let Some(out) = response.topics.get_mut(topic).and_then(|t| t.partitions.get_mut(partition)) {
                out.error_code = code;
            }
        }
    }
    respond(&response, version)
}
