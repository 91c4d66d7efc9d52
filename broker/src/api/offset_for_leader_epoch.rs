//! OffsetForLeaderEpoch (KIP-320): whether a consumer's position lies on what became of the log.
//!
//! The end of the newest epoch is that of the log, committed or not, as in Kafka: a position is never beyond it.

use super::{Refuse, RequestContext, Response, decode, respond};
use crate::error_code::{self, code};
use crate::partition::FetchError;
use bytes::Bytes;
use catchwater_protocol::api::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderPartition, OffsetForLeaderTopicResult,
};
use catchwater_protocol::api::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use catchwater_record::Offset;

pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    let request: OffsetForLeaderEpochRequest = decode(body, version)?;
    let follower = request.replica_id >= 0;
    let topics = request
        .topics
        .iter()
        .map(|topic| {
            let told = |asked: &OffsetForLeaderPartition| {
                let mut out = EpochEndOffset { partition: asked.partition, ..Default::default() };
                match end(ctx, &topic.topic, asked, follower) {
                    Ok(Some((epoch, end))) => {
                        out.leader_epoch = epoch;
                        out.end_offset = end.wire();
                    }
                    Ok(None) => {}
                    Err(error) => out.error_code = error_code::fetch(&error),
                }
                debug_assert!(out.error_code == code::NONE || out.end_offset == -1);
                out
            };
            OffsetForLeaderTopicResult {
                topic: topic.topic.clone(),
                partitions: topic.partitions.iter().map(told).collect(),
            }
        })
        .collect();
    respond(&OffsetForLeaderEpochResponse { topics, ..Default::default() }, version)
}

fn end(
    ctx: &RequestContext,
    topic: &str,
    asked: &OffsetForLeaderPartition,
    follower: bool,
) -> Result<Option<(i32, Offset)>, FetchError> {
    if follower {
        return Err(FetchError::Follower);
    }
    let here = ctx.node.topics.by_name(topic).ok_or(FetchError::UnknownTopic)?;
    match here.partition(asked.partition) {
        Some(partition) => partition.end_of_epoch(asked.current_leader_epoch, asked.leader_epoch),
        None if here.has(asked.partition) => Err(FetchError::Storage),
        None => Err(FetchError::UnknownTopic),
    }
}
