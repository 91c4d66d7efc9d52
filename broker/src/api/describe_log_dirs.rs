//! DescribeLogDirs (KIP-113, KIP-827): the one log directory of this node, what it holds, and the room there.
//!
//! The size of a partition is that of its batches in segment files; what only the journal has so far is not counted, nor
//! are the journal and the tables beside the batches.

use super::{Refuse, RequestContext, Response, decode, respond};
use crate::error_code::{self, LogDirError};
use crate::partition::shell::Partition;
use bytes::Bytes;
use catchwater_protocol::api::describe_log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use catchwater_protocol::api::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use catchwater_runtime::spawn;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub async fn handle(ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    let request: DescribeLogDirsRequest = decode(body, version)?;
    let volume = ctx.node.volume.clone();
    let mut result =
        DescribeLogDirsResult { log_dir: volume.path.to_string_lossy().as_ref().into(), ..Default::default() };
    if ctx.node.topics.is_stopped() {
        result.error_code = error_code::log_dir(LogDirError::Stopped);
    } else {
        let partitions = match &request.topics {
            None => ctx.node.topics.partitions(),
            // Named twice, told once.
            Some(topics) => {
                let mut asked: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
                for topic in topics {
                    asked.entry(&topic.topic).or_default().extend(&topic.partitions);
                }
                let here = asked.into_iter().filter_map(|(name, of_it)| Some((ctx.node.topics.by_name(name)?, of_it)));
                here.flat_map(|(here, of_it)| {
                    of_it.into_iter().filter_map(|i| here.partition(i).cloned()).collect::<Vec<_>>()
                })
                .collect()
            }
        };
        result.topics = told(&partitions);
        let space = spawn::blocking(move || volume.space()).await.map_err(Refuse::Bug)?;
        let wire = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        // -1 = unknown.
        (result.total_bytes, result.usable_bytes) = space.map_or((-1, -1), |s| (wire(s.total), wire(s.free)));
    }
    respond(&DescribeLogDirsResponse { results: vec![result], ..Default::default() }, version)
}

fn told(partitions: &[Arc<Partition>]) -> Vec<DescribeLogDirsTopic> {
    let mut topics: BTreeMap<&str, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for partition in partitions {
        let ends = partition.ends();
        topics.entry(partition.topic.as_str()).or_default().push(DescribeLogDirsPartition {
            partition_index: i32::try_from(partition.at.partition.0).unwrap_or(i32::MAX),
            partition_size: i64::try_from(partition.file_bytes()).unwrap_or(i64::MAX),
            offset_lag: i64::try_from(ends.spec_end.0.saturating_sub(ends.high_watermark.0)).unwrap_or(i64::MAX),
            is_future_key: false,
        });
    }
    let topic = |(name, partitions): (&str, _)| DescribeLogDirsTopic { name: name.into(), partitions };
    topics.into_iter().map(topic).collect()
}
