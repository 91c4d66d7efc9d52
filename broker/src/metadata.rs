//! How topics are told to clients: from the committed image, leaders from the partitions themselves.

use crate::error_code::{self, MetadataError};
use crate::node::wire_id;
use crate::topics::Here;
use catchwater_coordinator::cluster::image::Topic;
use catchwater_protocol::api::metadata::{MetadataResponsePartition, MetadataResponseTopic};
use catchwater_record::TopicId;

/// All operations there are on the cluster, as bits of Kafka's AclOperation.
pub const CLUSTER_OPERATIONS: i32 = 8096;
/// All operations there are on a topic, as bits of Kafka's AclOperation.
pub const TOPIC_OPERATIONS: i32 = 3576;

/// Kafka's form of a cluster id: that of its uuids.
pub fn cluster_id(id: [u8; 16]) -> String {
    TopicId(id).to_string()
}

/// One topic with all its partitions.
pub fn topic(topic: &Topic, here: Option<&Here>, version: i16) -> MetadataResponseTopic {
    let partitions = topic
        .partitions
        .iter()
        .enumerate()
        .map(|(index, place)| {
            let index = i32::try_from(index).unwrap_or(i32::MAX);
            let partition = here.and_then(|here| here.partition(index));
            let leader = partition.filter(|p| p.ends().leads).and_then(|p| crate::api::leader_of(p));
            let replica_nodes: Vec<i32> = place.replicas.iter().map(|id| wire_id(*id)).collect();
            let mut out = MetadataResponsePartition {
                partition_index: index,
                leader_id: -1,
                leader_epoch: -1,
                isr_nodes: replica_nodes.clone(),
                replica_nodes,
                ..Default::default()
            };
            match leader {
                Some((leader_id, leader_epoch)) => {
                    out.leader_id = leader_id;
                    if version >= 7 {
                        out.leader_epoch = leader_epoch;
                    }
                }
                None => out.error_code = error_code::metadata(MetadataError::NoLeader),
            }
            out
        })
        .collect();
    MetadataResponseTopic {
        name: Some((&topic.name).into()),
        topic_id: topic.id,
        is_internal: topic.is_internal(),
        partitions,
        ..Default::default()
    }
}
