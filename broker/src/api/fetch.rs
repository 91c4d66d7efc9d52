//! Fetch. Walk: produce-fetch 10/14.
//!
//! Look at all partitions (sizes only) → enough, or park until one of them moves → reserve room → read → answer.
//! Sessions are not served: every answer carries session id 0, which is legal at every version, and a client that
//! brings a session learns that it is unknown.

use super::{Refuse, RequestContext, Response, decode, encode, leader_of};
use crate::error_code;
use crate::fetch::plan::Room;
use crate::fetch::wait::{Found, Verdict, Wait};
use crate::fetch::write;
use crate::partition::shell::{Partition, Watch};
use crate::partition::{Ask, FetchError, Look};
use bytes::Bytes;
use catchwater_protocol::Records;
use catchwater_protocol::api::fetch::{
    AbortedTransaction, EpochEndOffset, FetchPartition, FetchTopic, FetchableTopicResponse, LeaderIdAndEpoch,
    NodeEndpoint, PartitionData,
};
use catchwater_protocol::api::{FetchRequest, FetchResponse};
use catchwater_record::Offset;
use catchwater_runtime::time;
use catchwater_storage::{Aborted, ReadPlan};
use std::sync::Arc;
use std::time::Duration;

/// Longest `max_wait_ms` that is taken at its word.
const WAIT_MS_MAX: i32 = 5 * 60_000;
/// Zstd needs this version (KIP-110).
const ZSTD_VERSION: i16 = 10;

/// One partition of the request.
struct Part<'a> {
    asked: &'a FetchPartition,
    by_id: bool,
    partition: Result<Arc<Partition>, FetchError>,
}

/// What one partition gets.
struct Got {
    look: Result<Look, FetchError>,
}

pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    let request: FetchRequest = decode(body, version)?;
    if request.session_epoch > 0 {
        let error_code = error_code::fetch(&FetchError::Session);
        return encode(&FetchResponse { error_code, ..Default::default() }, version).map(Response::parts);
    }
    let follower = request.replica_id >= 0 || request.replica_state.replica_id >= 0;
    let committed_only = request.isolation_level == 1;
    let max_bytes = u64::try_from(request.max_bytes).unwrap_or(0).min(ctx.node.config.fetch_bytes_max);
    let parts: Vec<Part<'_>> = request
        .topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(move |asked| (topic, asked)))
        .map(|(topic, asked)| Part {
            asked,
            by_id: version >= 13,
            partition: if follower { Err(FetchError::Follower) } else { find(ctx, version, topic, asked.partition) },
        })
        .collect();
    let now = ctx.mono();
    let wait = Wait::new(
        now,
        u32::try_from(request.max_wait_ms.min(WAIT_MS_MAX)).unwrap_or(0),
        u32::try_from(request.min_bytes).unwrap_or(0),
    );
    let mut watch: Option<Watch> = None;
    let looks = loop {
        let (looks, found) = look(&parts, max_bytes, committed_only);
        let found_bytes = found.bytes;
        match wait.judge(ctx.mono(), found) {
            // Nothing is reserved or pinned while older replies of this connection are not taken.
            Verdict::Answer if found_bytes > 0 && !ctx.order.is_next() => {
                drop(looks);
                ctx.order.next().await;
            }
            Verdict::Answer => break looks,
            Verdict::Park(deadline) => match &watch {
                // Into the lists first, then another look: nothing can slip in between.
                None => {
                    let partitions = parts.iter().filter_map(|p| p.partition.as_ref().ok().cloned()).collect();
                    watch = Some(Watch::new(partitions));
                }
                Some(watch) => {
                    let left = deadline.since(ctx.mono()).max(Duration::from_millis(1));
                    let _ = time::timeout(left, watch.woken()).await;
                    watch.again();
                }
            },
        }
    };
    drop(watch);
    let bytes: u64 = looks.iter().map(|g| g.look.as_ref().map_or(0, |l| write::planned_bytes(&l.plan))).sum();
    let permit = match usize::try_from(bytes).unwrap_or(usize::MAX) {
        0 => None,
        n => ctx.node.response_budget.reserve(n).await,
    };
    let response = answer(ctx, version, &request.topics, &parts, looks, committed_only).await;
    let response = Response::parts(encode(&response, version)?);
    Ok(match permit {
        Some(permit) => response.holding(permit),
        None => response,
    })
}

fn find(ctx: &RequestContext, version: i16, topic: &FetchTopic, index: i32) -> Result<Arc<Partition>, FetchError> {
    let topics = &ctx.node.topics;
    let here = if version >= 13 {
        topics.by_id(topic.topic_id).ok_or(FetchError::UnknownTopicId)?
    } else {
        topics.by_name(&topic.topic).ok_or(FetchError::UnknownTopic)?
    };
    here.partition(index).cloned().ok_or(FetchError::UnknownTopic)
}

/// One look at everything.
fn look(parts: &[Part<'_>], max_bytes: u64, committed_only: bool) -> (Vec<Got>, Found) {
    let mut room = Room::new(max_bytes);
    let mut found = Found { bytes: 0, urgent: parts.is_empty() };
    let looks = parts
        .iter()
        .map(|part| {
            let asked_bytes = room.ask(u32::try_from(part.asked.partition_max_bytes).unwrap_or(0));
            let look = part.partition.clone().and_then(|partition| {
                let from = u64::try_from(part.asked.fetch_offset).map_err(|_| FetchError::OutOfRange)?;
                partition.look(&Ask {
                    from: Offset(from),
                    max_bytes: asked_bytes,
                    current_epoch: part.asked.current_leader_epoch,
                    last_fetched_epoch: part.asked.last_fetched_epoch,
                    committed_only,
                })
            });
            match look {
                Err(e) => {
                    found.urgent = true;
                    // Deleted while it was waited for; who asked by id is told of the id.
                    let gone = e == FetchError::UnknownTopic && part.by_id && part.partition.is_ok();
                    Got { look: Err(if gone { FetchError::UnknownTopicId } else { e }) }
                }
                Ok(mut look) => {
                    found.urgent |= look.diverging.is_some();
                    let bytes = write::planned_bytes(&look.plan);
                    // What does not fit counts for the long poll all the same: there is something to fetch.
                    found.bytes += bytes;
                    found.urgent |= write::is_behind(&look.plan);
                    if !room.is_empty() {
                        write::within(&mut look.plan);
                    }
                    if !room.take(asked_bytes, bytes) {
                        look.plan = ReadPlan::Empty;
                    }
                    Got { look: Ok(look) }
                }
            }
        })
        .collect();
    (looks, found)
}

async fn answer(
    ctx: &RequestContext,
    version: i16,
    topics: &[FetchTopic],
    parts: &[Part<'_>],
    mut looks: Vec<Got>,
    committed_only: bool,
) -> FetchResponse {
    let mut plans = Vec::new();
    for (part, got) in parts.iter().zip(&mut looks) {
        if let (Ok(partition), Ok(look)) = (&part.partition, &mut got.look) {
            let plan = std::mem::replace(&mut look.plan, ReadPlan::Empty);
            if plan != ReadPlan::Empty {
                plans.push((partition.clone(), plan));
                continue;
            }
        }
        // Keeps the plans in step with the parts.
        if let Ok(partition) = &part.partition {
            plans.push((partition.clone(), ReadPlan::Empty));
        }
    }
    let mut read = write::read(plans).await.into_iter();
    let mut names_leader = false;
    let mut data = parts.iter().zip(looks).map(|(part, got)| {
        let records = match &part.partition {
            Ok(_) => read.next().unwrap_or(Ok(Vec::new())),
            Err(e) => Err(e.clone()),
        };
        let out = partition_data(part, got, records, (version, committed_only));
        names_leader |= out.current_leader.leader_id >= 0;
        out
    });
    let responses = topics
        .iter()
        .map(|topic| FetchableTopicResponse {
            topic: topic.topic.clone(),
            topic_id: topic.topic_id,
            partitions: data.by_ref().take(topic.partitions.len()).collect(),
        })
        .collect();
    drop(data);
    let mut response = FetchResponse { responses, ..Default::default() };
    if names_leader && version >= 16 {
        response.node_endpoints = ctx
            .node
            .endpoints(&ctx.advertised)
            .into_iter()
            .map(|e| NodeEndpoint {
                node_id: e.id,
                host: e.host.as_str().into(),
                port: e.port,
                rack: e.rack.map(Into::into),
            })
            .collect();
    }
    response
}

fn partition_data(
    part: &Part<'_>,
    got: Got,
    records: Result<Vec<Bytes>, FetchError>,
    (version, committed_only): (i16, bool),
) -> PartitionData {
    let mut out = PartitionData {
        partition_index: part.asked.partition,
        high_watermark: -1,
        last_stable_offset: -1,
        log_start_offset: -1,
        preferred_read_replica: -1,
        records: Some(Records::default()),
        aborted_transactions: committed_only.then(Vec::new),
        ..Default::default()
    };
    let answer = got.look.and_then(|look| {
        out.high_watermark = look.ends.high_watermark.wire();
        out.last_stable_offset = look.ends.lso.wire();
        out.log_start_offset = look.ends.log_start.wire();
        if let Some((epoch, end)) = look.diverging
            && version >= 12
        {
            out.diverging_epoch =
                EpochEndOffset { epoch: i32::try_from(epoch.0).unwrap_or(i32::MAX), end_offset: end.wire() };
        }
        let records = records?;
        if committed_only {
            let told = |a: &Aborted| AbortedTransaction { producer_id: a.producer.0, first_offset: a.first.wire() };
            out.aborted_transactions = Some(look.aborted.iter().map(told).collect());
        }
        if version < ZSTD_VERSION && write::holds_zstd(&records) {
            return Err(FetchError::Compression);
        }
        Ok(records)
    });
    match answer {
        Ok(records) => out.records = Some(Records::from(records)),
        Err(error) => {
            out.error_code = error_code::fetch(&error);
            if version >= 12
                && matches!(error, FetchError::NotLeader | FetchError::FencedEpoch)
                && let Ok(partition) = &part.partition
                && let Some((leader_id, leader_epoch)) = leader_of(partition)
            {
                out.current_leader = LeaderIdAndEpoch { leader_id, leader_epoch };
            }
        }
    }
    out
}
