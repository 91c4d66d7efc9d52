//! ListOffsets: the ends of partitions, and offsets by time, looked up inside the batch.

use super::{Refuse, RequestContext, Response, decode, respond};
use crate::error_code;
use crate::host::log::ReadError;
use crate::partition::FetchError;
use crate::partition::shell::Partition;
use bytes::Bytes;
use catchwater_protocol::api::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use catchwater_protocol::api::{ListOffsetsRequest, ListOffsetsResponse};
use catchwater_record::compress::{TimedRecord, first_at_max, first_at_or_after};
use catchwater_record::{BatchView, LeaderEpoch, Offset};
use catchwater_runtime::spawn;
use catchwater_storage::{MaxTime, Unknown};
use std::sync::Arc;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// Bytes read at a time while a batch is looked for.
const LOOK_BYTES: u32 = 256 * 1024;
/// What one batch may give out when it is opened for its times, bytes.
const OUTPUT_BYTES_MAX: usize = 64 << 20;

/// Timestamp, offset and epoch of an answer; `None` = there is no such record.
type Answer = Option<(i64, Offset, Option<LeaderEpoch>)>;

pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    let request: ListOffsetsRequest = decode(body, version)?;
    let mut response = ListOffsetsResponse::default();
    for topic in &request.topics {
        let here = ctx.node.topics.by_name(&topic.name);
        let mut out = ListOffsetsTopicResponse { name: topic.name.clone(), partitions: Vec::new() };
        for asked in &topic.partitions {
            let partition = match here.as_ref().and_then(|here| here.partition(asked.partition_index)) {
                _ if request.replica_id >= 0 => Err(FetchError::Follower),
                None => Err(FetchError::UnknownTopic),
                Some(partition) => Ok(partition.clone()),
            };
            let answer = match partition {
                Ok(partition) => offset(partition, asked, version, request.isolation_level == 1).await,
                Err(e) => Err(e),
            };
            out.partitions.push(told(asked.partition_index, answer, version));
        }
        response.topics.push(out);
    }
    respond(&response, version)
}

fn told(partition_index: i32, answer: Result<Answer, FetchError>, version: i16) -> ListOffsetsPartitionResponse {
    let mut out = ListOffsetsPartitionResponse { partition_index, ..Default::default() };
    match answer {
        Ok(Some((timestamp, offset, epoch))) => {
            out.timestamp = timestamp;
            out.offset = offset.wire();
            if version >= 4 {
                out.leader_epoch = epoch.and_then(|e| i32::try_from(e.0).ok()).unwrap_or(-1);
            }
        }
        Ok(None) => {}
        Err(e) => out.error_code = error_code::list_offsets(&e, version),
    }
    out
}

async fn offset(
    partition: Arc<Partition>,
    asked: &ListOffsetsPartition,
    version: i16,
    committed_only: bool,
) -> Result<Answer, FetchError> {
    let ends = partition.ends();
    if !ends.leads {
        return Err(FetchError::NotLeader);
    }
    match u32::try_from(asked.current_leader_epoch) {
        Ok(theirs) if theirs < ends.epoch.0 => return Err(FetchError::FencedEpoch),
        Ok(theirs) if theirs > ends.epoch.0 => return Err(FetchError::UnknownEpoch),
        _ => {}
    }
    // A new leader that does not know its high watermark must not show an older one (KIP-207).
    if !ends.settled {
        return Err(FetchError::NotReady);
    }
    let upto = if committed_only { ends.lso } else { ends.high_watermark };
    // Source: `Partition.fetchOffsetForTimestamp`: a record that this reader would not get is not found.
    let below = |found: Answer| found.filter(|(_, offset, _)| *offset < upto);
    let first_version = match asked.timestamp {
        MAX_TIMESTAMP => 7,
        EARLIEST_LOCAL => 8,
        LATEST_TIERED => 9,
        EARLIEST_PENDING_UPLOAD => 11,
        other if other < EARLIEST_PENDING_UPLOAD => return Err(FetchError::Version),
        _ => 1,
    };
    if version < first_version {
        return Err(FetchError::Version);
    }
    match asked.timestamp {
        LATEST => Ok(Some((-1, upto, Some(ends.epoch)))),
        EARLIEST | EARLIEST_LOCAL => Ok(Some((-1, ends.log_start, partition.epoch_at(ends.log_start)))),
        // Nothing is tiered.
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => Ok(None),
        MAX_TIMESTAMP => blocking(move || largest(&partition)).await.map(below),
        at_ms => {
            let Some(from) = partition.find_time(at_ms) else { return Ok(None) };
            blocking(move || scan(&partition, from, at_ms)).await.map(below)
        }
    }
}

async fn blocking(work: impl FnOnce() -> Result<Answer, FetchError> + Send + 'static) -> Result<Answer, FetchError> {
    spawn::blocking(work).await.map_err(FetchError::Bug)?
}

/// The first record at or behind `from`, below the high watermark, with a timestamp ≥ `at_ms`.
pub(crate) fn scan(partition: &Partition, from: Offset, at_ms: i64) -> Result<Answer, FetchError> {
    let mut found = None;
    each_batch(partition, from, |batch, from_delta| {
        if batch.max_timestamp() >= at_ms {
            found = answer(batch, first_at_or_after(batch, at_ms, from_delta, OUTPUT_BYTES_MAX))?;
        }
        Ok(found.is_none())
    })?;
    Ok(found)
}

/// The first of the records with the largest timestamp.
fn largest(partition: &Partition) -> Result<Answer, FetchError> {
    let MaxTime { known, look } = partition.max_time();
    let mut best: Answer = None;
    if let Some(Unknown { from, upto, at_most }) = look {
        each_batch(partition, from, |batch, from_delta| {
            if batch.offset() >= upto {
                return Ok(false);
            }
            // Headers say as much at least; some say more.
            if best.is_none_or(|(ms, _, _)| ms < batch.max_timestamp()) {
                let found = answer(batch, first_at_max(batch, from_delta, OUTPUT_BYTES_MAX))?;
                best = found.filter(|(ms, _, _)| best.is_none_or(|(so_far, _, _)| so_far < *ms)).or(best);
            }
            Ok(best.is_none_or(|(ms, _, _)| ms < at_most))
        })?;
    }
    if let Some((ms, base)) = known.filter(|(ms, _)| best.is_none_or(|(so_far, _, _)| so_far < *ms)) {
        each_batch(partition, base, |batch, from_delta| {
            let found = answer(batch, first_at_max(batch, from_delta, OUTPUT_BYTES_MAX))?;
            best = found.filter(|(found, _, _)| best.is_none_or(|(so_far, _, _)| so_far < *found)).or(best);
            // One batch, unless it has gone meanwhile or holds nothing that can be read.
            Ok(batch.max_timestamp() < ms || best.is_none())
        })?;
    }
    Ok(best)
}

/// Shows each batch from the one that holds `from` on, up to the high watermark, and the delta of the first offset in it that
/// counts. Ends when `go_on` says no.
fn each_batch(
    partition: &Partition,
    from: Offset,
    mut go_on: impl FnMut(&BatchView<'_>, u32) -> Result<bool, FetchError>,
) -> Result<(), FetchError> {
    let mut next = from;
    loop {
        let batches = match partition.read_from(next, LOOK_BYTES) {
            Ok(batches) => batches,
            // It moved since `from` was found.
            Err(ReadError::BelowStart(start)) if start > next => {
                next = start;
                continue;
            }
            Err(_) => return Err(FetchError::Storage),
        };
        let before = next;
        for bytes in &batches {
            let mut rest = &bytes[..];
            while let Ok((batch, after)) = BatchView::split(rest) {
                rest = after;
                let from_delta = u32::try_from(next.0.saturating_sub(batch.offset().0)).unwrap_or(u32::MAX);
                next = batch.offset().plus(u64::from(batch.offset_count()));
                if !go_on(&batch, from_delta)? {
                    return Ok(());
                }
            }
        }
        if next == before {
            return Ok(());
        }
    }
}

fn answer(
    batch: &BatchView<'_>,
    found: Result<Option<TimedRecord>, catchwater_record::compress::CompressError>,
) -> Result<Answer, FetchError> {
    let epoch = u32::try_from(batch.leader_epoch()).ok().map(LeaderEpoch);
    Ok(inside(found)?.map(|r| (r.timestamp, batch.offset().plus(u64::from(r.offset_delta)), epoch)))
}

/// A batch that cannot be opened was stored unopened; it has no record to offer.
fn inside(
    found: Result<Option<TimedRecord>, catchwater_record::compress::CompressError>,
) -> Result<Option<TimedRecord>, FetchError> {
    Ok(found.unwrap_or(None))
}
