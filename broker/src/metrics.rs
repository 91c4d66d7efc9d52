//! Every figure this crate counts, by its public name; `catchwater/observe` writes them out.

use crate::fetch::write;
use crate::partition::shell;
use crate::topics::Topics;
use crate::{budget, connection, server, topics, upkeep};
use catchwater_base::metric::{Counter, Gauge};

/// The log directories'.
pub use catchwater_raft::driver::metrics as disk;

/// A figure at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// Only rises.
    Counter(u64),
    Gauge(i64),
}

/// Figures of the process: name, help, value.
pub fn process() -> Vec<(&'static str, &'static str, Reading)> {
    let counter = |name, help, c: &Counter| (name, help, Reading::Counter(c.get()));
    let gauge = |name, help, g: &Gauge| (name, help, Reading::Gauge(g.get()));
    vec![
        gauge("catchwater_connections", "Open client connections", &server::CONNECTIONS),
        counter("catchwater_connections_closed", "Client connections that ended", &connection::CONNECTIONS_CLOSED),
        counter("catchwater_connections_refused", "Refused at the limit of connections", &server::CONNECTIONS_REFUSED),
        counter("catchwater_requests", "Requests read", &connection::REQUESTS),
        counter("catchwater_requests_refused", "Closed because of what they sent", &server::REQUESTS_REFUSED),
        gauge("catchwater_request_bytes", "Bytes of request bodies charged now", &budget::REQUEST_BYTES),
        counter("catchwater_network_in_bytes", "Bytes read from clients", &connection::BYTES_IN),
        counter("catchwater_network_out_bytes", "Bytes sent to clients", &connection::BYTES_OUT),
        counter("catchwater_appended_batches", "Batches that became entries", &shell::APPENDED_BATCHES),
        counter("catchwater_appended_bytes", "Bytes of batches that became entries", &shell::APPENDED_BYTES),
        counter("catchwater_duplicate_batches", "Batches that were here already", &shell::DUPLICATE_BATCHES),
        gauge("catchwater_producers", "Idempotent producers remembered", &topics::PRODUCERS),
        counter("catchwater_producers_expired", "Forgotten after their time", &topics::PRODUCERS_EXPIRED),
        counter("catchwater_producers_evicted", "Forgotten above the node's limit", &topics::PRODUCERS_EVICTED),
        counter("catchwater_fetch_hot_reads", "Reads of files answered from the page cache", &write::READ_HOT),
        counter("catchwater_fetch_cold_reads", "Reads of files that had to wait", &write::READ_COLD),
        counter("catchwater_compaction_runs", "Compactions that came to their end", &upkeep::COMPACTION_RUNS),
        counter("catchwater_compaction_failed", "Compactions that ended on an error", &upkeep::COMPACTION_FAILED),
        counter("catchwater_compaction_moved_bytes", "Read and written by compaction", &upkeep::COMPACTION_BYTES_MOVED),
        counter("catchwater_compaction_freed_bytes", "Bytes compaction let go of", &upkeep::COMPACTION_BYTES_FREED),
        counter("catchwater_partitions_offline", "Partitions that went offline", &shell::OFFLINE),
        counter("catchwater_partitions_reopened", "Partitions opened again after a panic", &upkeep::REOPENED),
        gauge("catchwater_partitions_down", "Partitions that are offline now", &upkeep::DOWN),
    ]
}

/// Partitions that are offline now.
pub fn down() -> i64 {
    upkeep::DOWN.get()
}

/// Figures of one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionReading {
    pub topic: String,
    pub partition: u32,
    pub leads: bool,
    pub log_start: u64,
    pub high_watermark: u64,
    pub end: u64,
}

pub fn partitions(topics: &Topics) -> Vec<PartitionReading> {
    let read = |p: &std::sync::Arc<shell::Partition>| {
        let ends = p.ends();
        PartitionReading {
            topic: p.topic.to_string(),
            partition: p.at.partition.0,
            leads: ends.leads,
            log_start: ends.log_start.0,
            high_watermark: ends.high_watermark.0,
            end: ends.spec_end.0,
        }
    };
    topics.partitions().iter().map(read).collect()
}
