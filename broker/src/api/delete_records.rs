//! DeleteRecords (KIP-107): the log of a partition begins at this offset from now on.
//!
//! The new log start is an entry of the partition's log; the answer leaves when it is committed, so it survives a restart
//! and is the same on every replica. Files go afterwards, whole segments at a time.

use super::{Refuse, RequestContext, Response, decode, respond};
use crate::audit::{self, Deed, listed};
use crate::error_code::{self, DeleteRecordsError};
use crate::partition::shell::Partition;
use crate::partition::{AckError, NotTaken, NotTrimmed};
use bytes::Bytes;
use catchwater_protocol::api::delete_records::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use catchwater_protocol::api::{DeleteRecordsRequest, DeleteRecordsResponse};
use catchwater_record::Offset;
use catchwater_runtime::sync::oneshot;
use catchwater_runtime::time;
use std::sync::Arc;
use std::time::Duration;

/// Everything up to the high watermark.
const ALL: i64 = -1;
/// Longest `timeout_ms` that is taken at its word.
const WAIT_MS_MAX: i32 = 5 * 60_000;

/// A deletion that was proposed, or needed nothing.
struct Proposed {
    partition: Arc<Partition>,
    done: Option<oneshot::Receiver<Result<(), AckError>>>,
}

pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    let request: DeleteRecordsRequest = decode(body, version)?;
    let deeds: Vec<Deed> = request
        .topics
        .iter()
        .map(|topic| {
            let offsets = topic.partitions.iter().map(|p| format!("{}:{}", p.partition_index, p.offset));
            Deed::new("topic.delete_records", "topic", &topic.name).with("before", listed(offsets)).frees()
        })
        .collect();
    let said = audit::before(ctx, deeds.iter().map(|deed| (deed.clone(), None)).collect()).await;
    // All proposals first, then all waits: one timeout counts for the whole request.
    let mut proposed = Vec::new();
    for topic in &request.topics {
        let here = ctx.node.topics.by_name(&topic.name);
        for asked in &topic.partitions {
            proposed.push(match &here {
                _ if said.is_err() => Err(DeleteRecordsError::Storage),
                None => Err(DeleteRecordsError::UnknownTopic),
                Some(here) if here.internal => Err(DeleteRecordsError::Internal),
                Some(here) => {
                    let settings = ctx.node.topics.settings(here);
                    match here.partition(asked.partition_index) {
                        None => Err(DeleteRecordsError::UnknownTopic),
                        Some(_) if settings.compact && !settings.delete => Err(DeleteRecordsError::Policy),
                        Some(partition) => propose(partition, asked.offset),
                    }
                }
            });
        }
    }
    let limit = Duration::from_millis(u64::try_from(request.timeout_ms.min(WAIT_MS_MAX)).unwrap_or(0));
    let until = ctx.now().mono.plus_millis(u64::try_from(limit.as_millis()).unwrap_or(0));
    let mut results = Vec::with_capacity(proposed.len());
    for one in proposed {
        let left = until.since(ctx.now().mono);
        results.push(match one {
            Ok(one) => settled(one, left).await,
            Err(error) => Err(error),
        });
    }
    let mut undone = Vec::new();
    let mut at = results.iter();
    for (topic, deed) in request.topics.iter().zip(deeds) {
        let of_it: Vec<_> = at.by_ref().take(topic.partitions.len()).collect();
        let error = of_it.into_iter().find_map(|r| r.as_ref().err().copied());
        undone.extend(error.map(|error| (deed, error_code::delete_records(error))));
    }
    if said.is_ok() {
        audit::failed(ctx, undone).await;
    }
    let mut results = results.into_iter();
    let topics = request
        .topics
        .iter()
        .map(|topic| DeleteRecordsTopicResult {
            name: topic.name.clone(),
            partitions: topic
                .partitions
                .iter()
                .zip(results.by_ref())
                .map(|(asked, result)| DeleteRecordsPartitionResult {
                    partition_index: asked.partition_index,
                    low_watermark: result.map_or(-1, Offset::wire),
                    error_code: result.map_or_else(error_code::delete_records, |_| error_code::code::NONE),
                })
                .collect(),
        })
        .collect();
    respond(&DeleteRecordsResponse { topics, ..Default::default() }, version)
}

fn propose(partition: &Arc<Partition>, offset: i64) -> Result<Proposed, DeleteRecordsError> {
    let to = match u64::try_from(offset) {
        Ok(offset) => Some(Offset(offset)),
        Err(_) if offset == ALL => None,
        Err(_) => return Err(DeleteRecordsError::OutOfRange),
    };
    match partition.delete_records(to) {
        Ok(done) => Ok(Proposed { partition: partition.clone(), done }),
        Err(NotTrimmed::BeyondEnd(_)) => Err(DeleteRecordsError::OutOfRange),
        Err(NotTrimmed::NotTaken(NotTaken::NotLeader)) => Err(DeleteRecordsError::NotLeader),
        Err(NotTrimmed::NotTaken(NotTaken::Deleted)) => Err(DeleteRecordsError::UnknownTopic),
        Err(NotTrimmed::NotTaken(_)) => Err(DeleteRecordsError::Storage),
    }
}

async fn settled(one: Proposed, left: Duration) -> Result<Offset, DeleteRecordsError> {
    if let Some(done) = one.done {
        match time::timeout(left, done).await {
            Err(_) => return Err(DeleteRecordsError::TimedOut),
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(AckError::LeadershipLost)) | Err(_)) => return Err(DeleteRecordsError::NotLeader),
            Ok(Ok(Err(AckError::Storage))) => return Err(DeleteRecordsError::Storage),
            Ok(Ok(Err(AckError::TimedOut))) => return Err(DeleteRecordsError::TimedOut),
        }
    }
    Ok(one.partition.ends().log_start)
}
