//! Pure. One batch with some of its records taken out, for log compaction. Base offset, last offset delta, leader epoch,
//! producer fields and codec stay: whoever counts offsets or sequences by headers sees no difference.
//!
//! ```text
//!  kept all, no horizon due ──> Same          kept some, or a horizon is due ──> New          kept none ──> Nothing
//!  delete horizon (KIP-534): attribute bit 6 is set and base_timestamp holds the time from which the batch's tombstones
//!  (or its transaction marker) may go; the records' timestamp deltas count from it, so their timestamps stay.
//! ```
//! Source: `MemoryRecords.filterTo` and `DefaultRecordBatch.writeEmptyHeader` of Apache Kafka 4.3.

use super::build::put_varint;
use super::iterate::{RecordError, RecordView, records};
use super::{
    ATTR_CONTROL, ATTR_DELETE_HORIZON, ATTR_LOG_APPEND_TIME, ATTR_TRANSACTIONAL, BatchView, HEADER_BYTES, LOG_OVERHEAD,
};
use crate::compress::{CompressError, SnappyFraming, compress, section};
use crate::crc::crc32c;
use bytes::BytesMut;

/// Why a batch could not be opened or written again.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    #[error("{0}")]
    Compress(#[from] CompressError),
    #[error("{0}")]
    Record(#[from] RecordError),
    #[error("unknown codec in attributes {0:#06x}")]
    Codec(i16),
}

/// What is left of a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Rewritten {
    /// Every record stays, byte for byte.
    Same,
    New(BytesMut),
    /// No record stays.
    Nothing,
}

/// How a batch is written again.
#[derive(Clone, Copy, Debug)]
pub struct Rewrite {
    /// Bytes that its compressed section may give out.
    pub output_bytes_max: usize,
    /// The delete horizon to set if the batch has none and what stays of it has a tombstone, ms.
    pub horizon_ms: i64,
    /// Set the horizon even without a tombstone: a marker whose transaction has no record left.
    pub horizon_always: bool,
}

/// The delete horizon of a batch, ms.
pub fn delete_horizon(batch: &BatchView<'_>) -> Option<i64> {
    (batch.attributes() & ATTR_DELETE_HORIZON != 0).then(|| batch.base_timestamp())
}

/// Keeps the records that `keep` wants.
pub fn rewrite(
    batch: &BatchView<'_>,
    how: Rewrite,
    keep: &mut dyn FnMut(&RecordView<'_>) -> bool,
) -> Result<Rewritten, RewriteError> {
    let codec = batch.codec().ok_or(RewriteError::Codec(batch.attributes()))?;
    let section = section(batch, how.output_bytes_max)?;
    let count = u32::try_from(batch.records_count()).unwrap_or(0);
    let mut kept = Vec::new();
    let mut iterator = records(&section, count);
    for record in iterator.by_ref() {
        let record = record?;
        if keep(&record) {
            kept.push(record);
        }
    }
    iterator.finish()?;
    if kept.is_empty() {
        return Ok(Rewritten::Nothing);
    }
    let tombstone = kept.iter().any(|r| r.value.is_none());
    let horizon = (tombstone || how.horizon_always) && delete_horizon(batch).is_none();
    if kept.len() == count as usize && !horizon {
        return Ok(Rewritten::Same);
    }
    let base = batch.base_timestamp();
    let new_base = if horizon { how.horizon_ms } else { base };
    let mut body = BytesMut::with_capacity(section.len());
    for record in &kept {
        if horizon {
            let delta = base.wrapping_add(record.timestamp_delta).wrapping_sub(new_base);
            put_record(&mut body, delta, record)?;
        } else {
            body.extend_from_slice(record.raw);
        }
    }
    let append_time = batch.attributes() & ATTR_LOG_APPEND_TIME != 0;
    let newest = kept.iter().map(|r| base.wrapping_add(r.timestamp_delta)).max().unwrap_or(-1);
    let max_timestamp = if append_time { batch.max_timestamp() } else { newest };
    // As the Java producer frames it: it cannot be told from the bytes how the first one was framed, and readers take both.
    let body = compress(codec, &body, SnappyFraming::Xerial)?;
    let attributes = batch.attributes() | if horizon { ATTR_DELETE_HORIZON } else { 0 };
    Ok(Rewritten::New(finish(batch, attributes, new_base, max_timestamp, kept.len() as i32, &body)))
}

/// The batch without records: what stays of a producer's or a capture's last one.
pub fn empty(batch: &BatchView<'_>) -> BytesMut {
    let attributes = batch.attributes() & (ATTR_LOG_APPEND_TIME | ATTR_TRANSACTIONAL | ATTR_CONTROL);
    finish(batch, attributes, -1, batch.max_timestamp(), 0, &[])
}

fn put_record(out: &mut BytesMut, delta: i64, record: &RecordView<'_>) -> Result<(), RecordError> {
    let (attributes, rest) = record.behind_timestamp()?;
    let mut head = BytesMut::with_capacity(11);
    head.extend_from_slice(&[attributes]);
    put_varint(&mut head, delta);
    put_varint(out, (head.len() + rest.len()) as i64);
    out.extend_from_slice(&head);
    out.extend_from_slice(rest);
    Ok(())
}

fn finish(
    batch: &BatchView<'_>,
    attributes: i16,
    base_timestamp: i64,
    max_timestamp: i64,
    count: i32,
    body: &[u8],
) -> BytesMut {
    let mut out = BytesMut::with_capacity(HEADER_BYTES + body.len());
    out.extend_from_slice(&batch.bytes()[..HEADER_BYTES]);
    out.extend_from_slice(body);
    // Never longer than what came out of a batch: a codec's worst case adds far less than the header's slack to 2^31.
    let length = (out.len() - LOG_OVERHEAD) as i32;
    out[8..12].copy_from_slice(&length.to_be_bytes());
    out[21..23].copy_from_slice(&attributes.to_be_bytes());
    out[27..35].copy_from_slice(&base_timestamp.to_be_bytes());
    out[35..43].copy_from_slice(&max_timestamp.to_be_bytes());
    out[57..61].copy_from_slice(&count.to_be_bytes());
    let crc = crc32c(&out[21..]);
    out[17..21].copy_from_slice(&crc.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::batch::build::Builder;
    use crate::batch::{Codec, patch};
    use crate::compress::compress_batch;
    use crate::{LeaderEpoch, Offset};

    const HOW: Rewrite = Rewrite { output_bytes_max: 1 << 20, horizon_ms: 50_000, horizon_always: false };

    /// Five records with keys 0..5, the third a tombstone, at 1000, 990, 1010, 1005, 1020 ms.
    fn five(codec: Codec) -> BytesMut {
        let mut b = Builder::new().producer(7, 3, 100);
        for (i, ms) in [1000, 990, 1010, 1005, 1020].into_iter().enumerate() {
            let value = (i != 2).then_some(&b"value"[..]);
            b.push(ms, Some(format!("k{i}").as_bytes()), value, [(&b"h"[..], None), (&b"h"[..], Some(&b"x"[..]))]);
        }
        let mut out = b.finish();
        if codec != Codec::None {
            out = compress_batch(&BatchView::new(&out).unwrap(), codec, SnappyFraming::Raw).unwrap();
        }
        patch(&mut out, Offset(4_000), LeaderEpoch(9));
        out
    }

    type Seen = (i32, i64, Vec<u8>, Option<Vec<u8>>, usize);

    fn seen(bytes: &[u8]) -> Vec<Seen> {
        let batch = BatchView::new(bytes).unwrap();
        batch.check_crc().unwrap();
        let section = section(&batch, 1 << 20).unwrap();
        let all = records(&section, batch.records_count() as u32);
        all.map(|r| {
            let r = r.unwrap();
            let at = batch.base_timestamp() + r.timestamp_delta;
            (r.offset_delta, at, r.key.unwrap().to_vec(), r.value.map(<[u8]>::to_vec), r.headers().count())
        })
        .collect()
    }

    #[test]
    fn what_stays_keeps_its_offsets_times_and_headers_under_every_codec() {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let bytes = five(codec);
            let batch = BatchView::new(&bytes).unwrap();
            let all = seen(&bytes);
            for mask in 0u32..32 {
                let got = rewrite(&batch, HOW, &mut |r| mask & (1 << r.offset_delta) != 0).unwrap();
                let want: Vec<Seen> = all.iter().filter(|r| mask & (1 << r.0) != 0).cloned().collect();
                let new = match got {
                    Rewritten::Nothing => {
                        assert_eq!(mask, 0);
                        continue;
                    }
                    // All records with the tombstone among them: its horizon is set.
                    Rewritten::Same => panic!("{mask:b}"),
                    Rewritten::New(new) => new,
                };
                assert_eq!(seen(&new), want, "{codec:?} {mask:b}");
                let view = BatchView::new(&new).unwrap();
                let horizon = (mask & 4 != 0).then_some(50_000);
                assert_eq!(delete_horizon(&view), horizon);
                assert_eq!((view.base_offset(), view.offset_count(), view.leader_epoch()), (4_000, 5, 9));
                assert_eq!((view.raw_producer_id(), view.producer_epoch().0, view.base_sequence()), (7, 3, 100));
                assert_eq!((view.codec(), view.last_sequence()), (Some(codec), 104));
                assert_eq!(view.max_timestamp(), want.iter().map(|r| r.1).max().unwrap());
                // A second pass finds the horizon set and leaves it.
                let again = rewrite(&view, Rewrite { horizon_ms: 99_999, ..HOW }, &mut |_| true).unwrap();
                assert_eq!(again, Rewritten::Same);
            }
        }
    }

    #[test]
    fn a_batch_without_records_keeps_its_header() {
        let bytes = five(Codec::Zstd);
        let out = empty(&BatchView::new(&bytes).unwrap());
        let view = BatchView::new(&out).unwrap();
        view.check_crc().unwrap();
        assert_eq!((view.len(), view.records_count(), view.offset_count(), view.base_offset()), (61, 0, 5, 4_000));
        assert_eq!((view.raw_producer_id(), view.last_sequence(), view.max_timestamp()), (7, 104, 1020));
        assert_eq!((view.codec(), delete_horizon(&view)), (Some(Codec::None), None));
        assert_eq!(rewrite(&view, HOW, &mut |_| true).unwrap(), Rewritten::Nothing);
    }

    #[test]
    fn damaged_sections_are_errors() {
        let mut bytes = five(Codec::None);
        let last = bytes.len() - 1;
        bytes.truncate(last);
        let length = (bytes.len() - LOG_OVERHEAD) as i32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let batch = BatchView::new(&bytes).unwrap();
        assert!(matches!(rewrite(&batch, HOW, &mut |_| true), Err(RewriteError::Record(_))));
    }
}
