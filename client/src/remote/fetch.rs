//! Reading: offsets, fetches, and records out of fetched batches.

use std::time::Duration;

use bytes::Bytes;
use catchwater_protocol::api::fetch::{FetchPartition, FetchTopic};
use catchwater_protocol::api::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use catchwater_protocol::api::{FetchRequest, ListOffsetsRequest};
use catchwater_record::batch::{self, BatchError, BatchView};
use catchwater_record::compress::{self, CompressError};
use catchwater_runtime::time;

use super::{Code, Kafka, RETRY_PAUSE, RemoteError};

/// Most bytes one batch may decompress to. Source: protocol.md 3.3, 64 × the default `max.message.bytes`.
const BATCH_OUTPUT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Newest version at which topics are named; from 13 on they go by id, which needs one.
const NAMED_VERSION_MAX: i16 = 12;
/// Added to `max_wait` for the way there and back.
const FETCH_GRACE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OffsetAt {
    Earliest,
    Latest,
    /// The first record at or after this time, milliseconds since 1970; the end if there is none.
    TimeMs(i64),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Isolation {
    Uncommitted,
    Committed,
}

/// Where to read from.
#[derive(Clone, Copy, Debug)]
pub struct FetchFrom<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
}

#[derive(Clone, Copy, Debug)]
pub struct FetchLimits {
    pub min_bytes: i32,
    pub max_bytes: i32,
    pub max_wait: Duration,
    pub isolation: Isolation,
}

impl Default for FetchLimits {
    fn default() -> Self {
        FetchLimits {
            min_bytes: 1,
            max_bytes: 4 * 1024 * 1024,
            max_wait: Duration::from_millis(500),
            isolation: Isolation::Uncommitted,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Fetched {
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start: i64,
    /// Whole batches, the first one may begin before the offset asked for; empty if there was nothing in time.
    pub batches: Bytes,
}

/// A record with its place, copied out of its batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    pub offset: i64,
    pub timestamp_ms: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    /// In order; a key may repeat.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// Why fetched bytes could not be read as records.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    #[error("batch is damaged")]
    Batch(#[from] BatchError),
    #[error("batch cannot be decompressed")]
    Compress(#[from] CompressError),
    #[error("record is damaged")]
    Record(#[from] batch::iterate::RecordError),
}

impl Kafka {
    /// One offset of one partition.
    pub async fn list_offset(&self, topic: &str, partition: i32, at: OffsetAt) -> Result<i64, RemoteError> {
        let timestamp = match at {
            OffsetAt::Latest => -1,
            OffsetAt::Earliest => -2,
            OffsetAt::TimeMs(ms) => ms,
        };
        let found = self
            .at_leader(topic, partition, || async {
                let (leader, _) = self.leader(topic, partition).await?;
                let make = |_version: i16| ListOffsetsRequest {
                    replica_id: -1,
                    topics: vec![ListOffsetsTopic {
                        name: topic.into(),
                        partitions: vec![ListOffsetsPartition {
                            partition_index: partition,
                            timestamp,
                            ..Default::default()
                        }],
                    }],
                    ..Default::default()
                };
                let (_, reply) = leader.call(i16::MAX, self.inner.options.timeout, make).await?;
                let part = reply.topics.first().and_then(|t| t.partitions.first());
                let part = part.ok_or(RemoteError::Missing { api: "ListOffsets" })?;
                match part.error_code {
                    0 => Ok(part.offset),
                    code => Err(RemoteError::refused("ListOffsets", code, None)),
                }
            })
            .await?;
        match (found, at) {
            // No record that late: the end, which is where a reader would wait for it.
            (-1, OffsetAt::TimeMs(_)) => Box::pin(self.list_offset(topic, partition, OffsetAt::Latest)).await,
            (offset, _) => Ok(offset),
        }
    }

    /// One fetch of one partition; an empty answer after `max_wait` is no error.
    pub async fn fetch(&self, from: FetchFrom<'_>, limits: FetchLimits) -> Result<Fetched, RemoteError> {
        let FetchFrom { topic, partition, offset } = from;
        self.at_leader(topic, partition, || async {
            let (leader, id) = self.leader(topic, partition).await?;
            let make = |_version: i16| FetchRequest {
                max_wait_ms: i32::try_from(limits.max_wait.as_millis()).unwrap_or(i32::MAX),
                min_bytes: limits.min_bytes,
                max_bytes: limits.max_bytes,
                isolation_level: match limits.isolation {
                    Isolation::Uncommitted => 0,
                    Isolation::Committed => 1,
                },
                topics: vec![FetchTopic {
                    topic: topic.into(),
                    topic_id: id,
                    partitions: vec![FetchPartition {
                        partition,
                        fetch_offset: offset,
                        partition_max_bytes: limits.max_bytes,
                        ..Default::default()
                    }],
                }],
                ..Default::default()
            };
            let max = if id.is_none() { NAMED_VERSION_MAX } else { i16::MAX };
            let limit = limits.max_wait + FETCH_GRACE;
            let (_, reply) = leader.call(max, limit, make).await?;
            Code::check(reply.error_code).map_err(|c| RemoteError::refused("Fetch", c.0, None))?;
            let part = reply.responses.into_iter().next().and_then(|t| t.partitions.into_iter().next());
            let part = part.ok_or(RemoteError::Missing { api: "Fetch" })?;
            Code::check(part.error_code).map_err(|c| RemoteError::refused("Fetch", c.0, None))?;
            Ok(Fetched {
                high_watermark: part.high_watermark,
                last_stable_offset: part.last_stable_offset,
                log_start: part.log_start_offset,
                batches: part.records.map(|r| r.to_bytes()).unwrap_or_default(),
            })
        })
        .await
    }

    /// Repeats a read while its refusal only says that our metadata is stale, for at most the call's time limit.
    async fn at_leader<T, F>(&self, topic: &str, partition: i32, read: impl Fn() -> F) -> Result<T, RemoteError>
    where
        F: Future<Output = Result<T, RemoteError>>,
    {
        let mut tries_left = (self.inner.options.timeout.as_millis() / RETRY_PAUSE.as_millis()).max(1);
        loop {
            match read().await {
                Err(e) if tries_left > 0 && e.code().is_some_and(Code::is_stale_metadata) => {
                    tries_left -= 1;
                    self.forget(topic);
                    // A topic that is really gone is reported by the metadata at once.
                    if self.topic(topic).await?.is_none_or(|t| !t.partitions.iter().any(|p| p.index == partition)) {
                        return Err(e);
                    }
                    time::sleep(RETRY_PAUSE).await;
                }
                other => return other,
            }
        }
    }
}

/// The records of fetched batches from `from` on; control batches are left out, a last batch that is cut off is ignored
/// (a broker may do that), anything else that is wrong is an error.
pub fn decode_records(batches: &[u8], from: i64) -> Result<Vec<Record>, RecordsError> {
    let mut rest = batches;
    let mut found = Vec::new();
    while let Some(len) = batch_len(rest).filter(|len| *len <= rest.len()) {
        let (view, after) = BatchView::split(&rest[..len]).map(|(view, _)| (view, &rest[len..]))?;
        rest = after;
        view.check_crc()?;
        if view.is_control() {
            continue;
        }
        let section = compress::section(&view, BATCH_OUTPUT_BYTES_MAX)?;
        let append_time = view.attributes() & batch::ATTR_LOG_APPEND_TIME != 0;
        for record in batch::iterate::records(&section, view.records_count().max(0).unsigned_abs()) {
            let record = record?;
            let offset = view.base_offset().wrapping_add(i64::from(record.offset_delta));
            if offset < from {
                continue;
            }
            let copy = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
            found.push(Record {
                offset,
                timestamp_ms: if append_time {
                    view.max_timestamp()
                } else {
                    view.base_timestamp().wrapping_add(record.timestamp_delta)
                },
                key: record.key.map(copy),
                value: record.value.map(copy),
                headers: record.headers().map(|(k, v)| (copy(k), v.map(copy))).collect(),
            });
        }
    }
    Ok(found)
}

/// The offset after the last whole batch: where the next fetch goes on. Not the one after the last record: compaction
/// may have taken the records at the end of a batch.
pub fn end_of_batches(batches: &[u8]) -> Option<i64> {
    let (mut rest, mut end) = (batches, None);
    while let Some(len) = batch_len(rest).filter(|len| *len <= rest.len()) {
        let (view, _) = BatchView::split(&rest[..len]).ok()?;
        end = Some(view.base_offset().checked_add(i64::from(view.last_offset_delta()))?.checked_add(1)?);
        rest = &rest[len..];
    }
    end
}

/// Whole length of the batch at the front, from its own length field; `None` if not even that is there.
fn batch_len(bytes: &[u8]) -> Option<usize> {
    let raw = bytes.get(8..12)?.first_chunk::<4>()?;
    usize::try_from(i32::from_be_bytes(*raw)).ok()?.checked_add(batch::LOG_OVERHEAD)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use catchwater_record::batch::build::Builder;

    fn two_batches() -> Vec<u8> {
        let mut bytes = Vec::new();
        for base in [10u64, 12] {
            let mut builder = Builder::new();
            builder.push(1_000, Some(b"k"), Some(b"v"), [(&b"h"[..], None), (&b"h"[..], Some(&b"1"[..]))]);
            builder.push(1_001, None, None, []);
            let mut batch = builder.finish();
            batch::patch(&mut batch, base.into(), 3.into());
            bytes.extend_from_slice(&batch);
        }
        bytes
    }

    #[test]
    fn records_below_the_offset_are_left_out_and_a_cut_last_batch_is_ignored() {
        let bytes = two_batches();
        let offsets = |b: &[u8], from| decode_records(b, from).unwrap().iter().map(|r| r.offset).collect::<Vec<_>>();
        assert_eq!(offsets(&bytes, 0), [10, 11, 12, 13]);
        assert_eq!(offsets(&bytes, 11), [11, 12, 13]);
        for cut in 1..bytes.len() / 2 {
            assert_eq!(offsets(&bytes[..bytes.len() - cut], 0), [10, 11], "{cut}");
        }
        let first = &decode_records(&bytes, 0).unwrap()[0];
        assert_eq!(
            (first.timestamp_ms, first.key.as_deref(), first.value.as_deref()),
            (1_000, Some(&b"k"[..]), Some(&b"v"[..]))
        );
        assert_eq!(first.headers.len(), 2);
    }

    #[test]
    fn a_damaged_batch_is_an_error() {
        let mut bytes = two_batches();
        *bytes.last_mut().unwrap() ^= 1;
        assert!(matches!(decode_records(&bytes, 0), Err(RecordsError::Batch(_))));
    }
}
