//! DescribeProducers (KIP-664): the idempotent producers that a partition remembers.

use super::{Refuse, RequestContext, Response, decode, respond};
use crate::error_code::{self, ProducersError};
use crate::partition::shell::Condition;
use bytes::Bytes;
use catchwater_protocol::api::describe_producers::{PartitionResponse, ProducerState, TopicResponse};
use catchwater_protocol::api::{DescribeProducersRequest, DescribeProducersResponse};
use catchwater_record::{Offset, TopicName};
use catchwater_storage::producer::ProducerTold;
use std::collections::BTreeSet;

pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    let request: DescribeProducersRequest = decode(body, version)?;
    // One partition may have as many producers as the node: told once, a request stays in bounds.
    let mut seen = BTreeSet::new();
    let topics = request
        .topics
        .iter()
        .map(|topic| {
            let told = |index: &i32| {
                let mut out = PartitionResponse { partition_index: *index, ..Default::default() };
                let all = match seen.insert((&topic.name, *index)) {
                    true => producers(ctx, &topic.name, *index),
                    false => Err(ProducersError::Twice),
                };
                match all {
                    Ok(all) => out.active_producers = all.into_iter().map(state).collect(),
                    Err(error) => {
                        out.error_code = error_code::producers(error);
                        out.error_message = text(error).map(Into::into);
                    }
                }
                out
            };
            let partitions = topic.partition_indexes.iter().map(told).collect();
            TopicResponse { name: topic.name.clone(), partitions }
        })
        .collect();
    respond(&DescribeProducersResponse { topics, ..Default::default() }, version)
}

fn producers(ctx: &RequestContext, topic: &str, index: i32) -> Result<Vec<ProducerTold>, ProducersError> {
    let Some(here) = ctx.node.topics.by_name(topic) else {
        let legal = TopicName::is_legal(topic);
        return Err(if legal { ProducersError::UnknownTopic } else { ProducersError::IllegalName });
    };
    match here.partition(index) {
        Some(partition) if partition.condition() != Condition::Up => Err(ProducersError::Storage),
        Some(partition) => partition.producers().ok_or(ProducersError::NotLeader),
        None if here.has(index) => Err(ProducersError::Storage),
        None => Err(ProducersError::UnknownPartition),
    }
}

/// Kafka has a text for a topic, none for a partition.
fn text(error: ProducersError) -> Option<&'static str> {
    match error {
        ProducersError::IllegalName => Some("the name of the topic is illegal"),
        ProducersError::UnknownTopic => Some("there is no such topic"),
        ProducersError::Twice => Some("the partition is named twice"),
        ProducersError::UnknownPartition | ProducersError::NotLeader | ProducersError::Storage => None,
    }
}

fn state(producer: ProducerTold) -> ProducerState {
    ProducerState {
        producer_id: producer.id.0,
        producer_epoch: i32::from(producer.epoch.0),
        last_sequence: producer.last_sequence.unwrap_or(-1),
        last_timestamp: producer.last_ms,
        coordinator_epoch: producer.coordinator_epoch,
        current_txn_start_offset: producer.open_transaction.map_or(-1, Offset::wire),
    }
}
