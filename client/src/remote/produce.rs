//! Writing one batch to one partition.

use bytes::Bytes;
use catchwater_protocol::Records;
use catchwater_protocol::api::produce::{PartitionProduceData, TopicProduceData};
use catchwater_protocol::api::{InitProducerIdRequest, ProduceRequest};
use catchwater_runtime::time;

use super::{Code, Kafka, RETRY_PAUSE, RemoteError};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acks {
    /// No reply at all.
    None,
    Leader,
    All,
}

/// What became of a batch.
#[derive(Debug)]
#[must_use]
pub enum ProduceOutcome {
    /// In the log; the base offset, `None` with [`Acks::None`].
    Written(Option<i64>),
    /// Surely not written.
    Refused(RemoteError),
    /// It is in the log, or will be, or will never be: the answer was lost.
    Unknown(RemoteError),
}

impl ProduceOutcome {
    /// The base offset, or the error with its certainty lost: for callers that do not retry.
    pub fn offset(self) -> Result<Option<i64>, RemoteError> {
        match self {
            ProduceOutcome::Written(offset) => Ok(offset),
            ProduceOutcome::Refused(e) | ProduceOutcome::Unknown(e) => Err(e),
        }
    }
}

/// Newest version at which topics are named; from 13 on they go by id, which needs one.
const NAMED_VERSION_MAX: i16 = 12;

impl Kafka {
    /// An id and epoch for an idempotent producer (`record::batch::build::Builder::producer`), never given twice.
    pub async fn init_producer(&self) -> Result<(i64, i16), RemoteError> {
        let make = |_version: i16| InitProducerIdRequest {
            transactional_id: None,
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        };
        let (_, reply) = self.anywhere::<InitProducerIdRequest>(make).await?;
        match reply.error_code {
            0 => Ok((reply.producer_id, reply.producer_epoch)),
            code => Err(RemoteError::refused("InitProducerId", code, None)),
        }
    }

    /// Sends one batch (see `record::batch::build`). Waits for a leader; a refusal because of stale metadata is tried again
    /// within the time limit, since then nothing was written. An unknown outcome is never retried.
    pub async fn produce(&self, topic: &str, partition: i32, batch: Bytes, acks: Acks) -> ProduceOutcome {
        let mut tries_left = (self.inner.options.timeout.as_millis() / RETRY_PAUSE.as_millis()).max(1);
        loop {
            let outcome = self.produce_once(topic, partition, batch.clone(), acks).await;
            match &outcome {
                // The broker's own refusal; the metadata's (there is no such topic) is final.
                ProduceOutcome::Refused(e @ RemoteError::Refused { api: "Produce", .. })
                    if tries_left > 0 && e.code().is_some_and(Code::is_stale_metadata) =>
                {
                    tries_left -= 1;
                    self.forget(topic);
                    time::sleep(RETRY_PAUSE).await;
                }
                _ => return outcome,
            }
        }
    }

    async fn produce_once(&self, topic: &str, partition: i32, batch: Bytes, acks: Acks) -> ProduceOutcome {
        let (leader, id) = match self.leader(topic, partition).await {
            Ok(found) => found,
            Err(e) => return ProduceOutcome::Refused(e),
        };
        let limit = self.inner.options.timeout;
        let make = |_version: i16| ProduceRequest {
            acks: match acks {
                Acks::None => 0,
                Acks::Leader => 1,
                Acks::All => -1,
            },
            timeout_ms: i32::try_from(limit.as_millis()).unwrap_or(i32::MAX),
            topic_data: vec![TopicProduceData {
                name: topic.into(),
                topic_id: id,
                partition_data: vec![PartitionProduceData {
                    index: partition,
                    records: Some(Records::from(batch.clone())),
                }],
            }],
            ..Default::default()
        };
        if acks == Acks::None {
            return match leader.send(limit, make).await {
                Ok(()) => ProduceOutcome::Written(None),
                Err(e) if e.is_sure() => ProduceOutcome::Refused(e),
                Err(e) => ProduceOutcome::Unknown(e),
            };
        }
        let max = if id.is_none() { NAMED_VERSION_MAX } else { i16::MAX };
        let reply = match leader.call(max, limit, make).await {
            Ok((_, reply)) => reply,
            Err(e) if e.is_sure() => return ProduceOutcome::Refused(e),
            Err(e) => return ProduceOutcome::Unknown(e),
        };
        let Some(part) = reply.responses.first().and_then(|t| t.partition_responses.first()) else {
            return ProduceOutcome::Unknown(RemoteError::Missing { api: "Produce" });
        };
        match part.error_code {
            0 => ProduceOutcome::Written(Some(part.base_offset)),
            // Timed out, or replicas lost after the append: the batch may exist.
            code @ (7 | 20) => {
                ProduceOutcome::Unknown(RemoteError::refused("Produce", code, part.error_message.as_deref()))
            }
            code => ProduceOutcome::Refused(RemoteError::refused("Produce", code, part.error_message.as_deref())),
        }
    }
}
