//! Produce. Walk: produce-fetch 5/14.
//!
//! The body is taken apart without a copy, each partition's batch is validated by header and CRC, and all are proposed
//! in the handler's first poll: a connection's next produce may start before this one is acknowledged. Cost per batch:
//! one CRC pass, one lock, no copy, no decode of records (unless the topic is compacted or asks for it).

use super::{Refuse, RequestContext, Response, leader_of, respond};
use crate::error_code;
use crate::partition::shell::{Partition, Pending};
use crate::partition::{AckError, ProduceError, Until};
use crate::topics::{Here, Settings};
use bytes::{Bytes, BytesMut};
use catchwater_base::Mono;
use catchwater_protocol::api::ProduceResponse;
use catchwater_protocol::api::produce::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use catchwater_protocol::produce::{ProduceParts, TopicPart, split};
use catchwater_record::Offset;
use catchwater_record::batch::validate::{Refusal, validate};
use catchwater_record::batch::{BatchView, Codec, set_max_timestamp, stamp_append_time};
use catchwater_runtime::{spawn, time};
use std::sync::Arc;
use std::time::Duration;

/// Batches up to this size are opened on the connection's own task, larger ones on a thread that may take its time.
const OPEN_INLINE_BYTES: usize = 16 * 1024;
/// Zstd needs this version (KIP-110).
const ZSTD_VERSION: i16 = 7;
/// How often a producer without room looks again.
const ROOM_PAUSE: Duration = Duration::from_millis(5);
/// What a reply is delayed by while the disk falls behind.
const PRESSED_PAUSE: Duration = Duration::from_millis(20);

/// One partition on its way.
struct Part {
    here: Option<Arc<Here>>,
    topic: usize,
    index: i32,
    append_time_ms: i64,
    state: State,
}

impl Part {
    fn partition(&self) -> Option<&Arc<Partition>> {
        self.here.as_ref()?.partition(self.index)
    }
}

enum State {
    Pending(Pending),
    Done(Offset),
    Failed(ProduceError),
}

pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    // The connection gave the body away, so this is free; a copy otherwise.
    let body = body.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    let request = split(body, version).map_err(|e| Refuse::Malformed(e.to_string()))?;
    let ProduceParts { transactional_id: _, acks, timeout_ms, topics, partitions } = request;
    let now = ctx.now();
    let until = match acks {
        0 => Ok(Until::Proposed),
        1 => Ok(Until::Durable),
        -1 => Ok(Until::Committed),
        other => Err(other),
    };
    // The whole request falls with one transactional batch that may not be. An id without such a batch is nothing, as in Kafka.
    let transactional = partitions
        .iter()
        .filter_map(|p| p.records.as_deref())
        .any(|records| BatchView::split(records).is_ok_and(|(batch, _)| batch.is_transactional()));
    let deadline = now.mono.plus_millis(u64::try_from(timeout_ms).unwrap_or(0));
    let mut parts = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let topic = &topics[partition.topic];
        let found = find(ctx, topic, version);
        let here = found.as_ref().ok().cloned();
        let mut part = Part {
            here,
            topic: partition.topic,
            index: partition.index,
            append_time_ms: -1,
            state: State::Failed(ProduceError::UnknownTopic),
        };
        let taken = match (found, until) {
            (_, Err(acks)) => Err(ProduceError::Acks(acks)),
            _ if transactional => Err(ProduceError::Transactional),
            (Err(e), _) => Err(e),
            (Ok(here), Ok(until)) => {
                let time = (now.wall.as_millis(), deadline);
                take(ctx, &here, partition.index, (partition.records, version), until, time).await
            }
        };
        match taken {
            // Deleted a moment ago; who asked by id is told of the id.
            Err(ProduceError::UnknownTopic) if version >= 13 && part.here.is_some() => {
                part.state = State::Failed(match part.partition() {
                    Some(_) => ProduceError::UnknownTopicId,
                    None => ProduceError::UnknownTopic,
                });
            }
            Ok((pending, append_time_ms)) => {
                part.append_time_ms = append_time_ms;
                part.state = State::Pending(pending);
            }
            Err(e) => part.state = State::Failed(e),
        }
        parts.push(part);
    }
    ctx.order.release();
    if until == Ok(Until::Proposed) {
        let failed = parts.iter().any(|p| matches!(p.state, State::Failed(_)));
        return Ok(if failed { Response::close() } else { Response::nothing() });
    }
    for part in &mut parts {
        if let State::Pending(pending) = &mut part.state {
            part.state = acknowledged(ctx, pending, deadline).await;
        }
    }
    if parts.iter().any(|part| part.partition().is_some_and(|p| p.is_pressed())) {
        // The disk falls behind: a reply that comes later slows this producer, and no other.
        time::sleep(PRESSED_PAUSE).await;
    }
    respond(&answer(ctx, version, &topics, parts), version)
}

/// Codes of what a log itself refused: Kafka says with them where the log begins (with others -1).
const REFUSED_BY_LOG: [i16; 10] = [7, 19, 20, 32, 43, 45, 46, 47, 76, 87];

fn find(ctx: &RequestContext, topic: &TopicPart, version: i16) -> Result<Arc<Here>, ProduceError> {
    let here = if version >= 13 {
        ctx.node.topics.by_id(topic.id).ok_or(ProduceError::UnknownTopicId)?
    } else {
        ctx.node.topics.by_name(&topic.name).ok_or(ProduceError::UnknownTopic)?
    };
    if here.internal { Err(ProduceError::Internal) } else { Ok(here) }
}

/// Validates one batch and proposes it; returns when it has its place.
async fn take(
    ctx: &RequestContext,
    here: &Here,
    index: i32,
    (records, version): (Option<BytesMut>, i16),
    until: Until,
    (now_ms, deadline): (i64, Mono),
) -> Result<(Pending, i64), ProduceError> {
    let partition = here.partition(index).ok_or(ProduceError::UnknownTopic)?;
    let settings = ctx.node.topics.settings(here);
    let mut batch = records.ok_or(Refusal::Null)?;
    let mut settings: Settings = *settings;
    settings.rules.zstd_allowed = version >= ZSTD_VERSION;
    if opens(&batch, &settings) && batch.len() > OPEN_INLINE_BYTES {
        // What comes behind on this connection waits, so that the order of the appends is the order of the requests.
        ctx.order.hold();
        batch = spawn::blocking(move || checked(batch, &settings, now_ms)).await.map_err(ProduceError::Bug)??;
    } else {
        batch = checked(batch, &settings, now_ms)?;
    }
    if batch.len() > ctx.node.config.batch_bytes_max {
        return Err(ProduceError::TooLarge);
    }
    if partition.is_full(batch.len()) {
        return Err(ProduceError::DiskFull); // waiting would not help: somebody must make room
    }
    if !partition.has_room(batch.len()) {
        // What comes behind waits too, and then nothing more is read from this client.
        ctx.order.hold();
        while !partition.has_room(batch.len()) && !partition.is_full(batch.len()) && ctx.mono() < deadline {
            time::sleep(ROOM_PAUSE).await;
        }
    }
    let append_time_ms = if settings.rules.append_time {
        stamp_append_time(&mut batch, now_ms);
        now_ms
    } else {
        -1
    };
    Ok((partition.append(batch, None, settings.insync_min, until)?, append_time_ms))
}

fn checked(mut batch: BytesMut, settings: &Settings, now_ms: i64) -> Result<BytesMut, ProduceError> {
    let taken = validate(Some(&batch), &settings.rules, now_ms)?;
    let (bytes, true_max_timestamp) = (taken.batch.len(), taken.true_max_timestamp);
    batch.truncate(bytes);
    if let Some(max) = true_max_timestamp {
        set_max_timestamp(&mut batch, max);
    }
    Ok(batch)
}

/// Will validation look at the records, and does that cost time?
fn opens(batch: &[u8], settings: &Settings) -> bool {
    let compressed = BatchView::split(batch).is_ok_and(|(b, _)| b.codec() != Some(Codec::None));
    compressed && settings.rules.open_all()
}

async fn acknowledged(ctx: &RequestContext, pending: &mut Pending, deadline: Mono) -> State {
    let left = deadline.since(ctx.mono());
    let ack = match time::timeout(left.max(Duration::from_millis(1)), &mut pending.done).await {
        Ok(Ok(ack)) => ack,
        // The partition went away with the waiter.
        Ok(Err(_)) => Err(AckError::LeadershipLost),
        Err(_) => Err(AckError::TimedOut),
    };
    match ack {
        Ok(()) => State::Done(pending.placed.base),
        Err(e) => State::Failed(e.into()),
    }
}

fn answer(ctx: &RequestContext, version: i16, topics: &[TopicPart], parts: Vec<Part>) -> ProduceResponse {
    let mut response = ProduceResponse {
        responses: topics
            .iter()
            .map(|t| TopicProduceResponse { name: t.name.clone(), topic_id: t.id, partition_responses: Vec::new() })
            .collect(),
        ..Default::default()
    };
    let mut names_leader = false;
    for part in parts {
        let partition = part.here.as_ref().and_then(|here| here.partition(part.index));
        let mut out = PartitionProduceResponse {
            index: part.index,
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: -1,
            ..Default::default()
        };
        match part.state {
            State::Done(base) => {
                out.base_offset = base.wire();
                out.log_append_time_ms = part.append_time_ms;
                out.log_start_offset = partition.map_or(-1, |p| p.ends().log_start.wire());
            }
            State::Pending(_) => out.error_code = error_code::produce(&ProduceError::Ack(AckError::TimedOut)),
            State::Failed(error) => {
                out.error_code = error_code::produce(&error);
                // What is no batch, or more than one, no log was asked about.
                let asked =
                    !matches!(error, ProduceError::Refused(Refusal::Null | Refusal::Shape(_) | Refusal::Second));
                if asked && REFUSED_BY_LOG.contains(&out.error_code) {
                    out.log_start_offset = partition.map_or(-1, |p| p.ends().log_start.wire());
                }
                if version >= 8 {
                    out.error_message = Some(error.to_string().into());
                    out.record_errors = record_errors(&error);
                }
                if version >= 10
                    && matches!(error, ProduceError::NotLeader | ProduceError::Ack(AckError::LeadershipLost))
                    && let Some((leader_id, leader_epoch)) = partition.and_then(|p| leader_of(p))
                {
                    names_leader = true;
                    out.current_leader = LeaderIdAndEpoch { leader_id, leader_epoch };
                }
            }
        }
        if let Some(topic) = response.responses.get_mut(part.topic) {
            topic.partition_responses.push(out);
        }
    }
    if names_leader {
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

/// The records that made the batch fall (KIP-467).
fn record_errors(error: &ProduceError) -> Vec<BatchIndexAndErrorMessage> {
    let refused = match error {
        ProduceError::Refused(Refusal::Records(several)) => several,
        ProduceError::Refused(one) => std::slice::from_ref(one),
        _ => return Vec::new(),
    };
    refused.iter().filter_map(record_error).collect()
}

fn record_error(refusal: &Refusal) -> Option<BatchIndexAndErrorMessage> {
    let (record, why) = match refusal {
        Refusal::Record { record, why } => (*record, why.to_string()),
        Refusal::Timestamp { record, .. } => (record.unwrap_or(0), refusal.to_string()),
        _ => return None,
    };
    Some(BatchIndexAndErrorMessage {
        batch_index: i32::try_from(record).ok()?,
        batch_index_error_message: Some(why.into()),
    })
}
