//! Pure. Bytes of the log → what deliver works with: records of a fetch, TABLE records, cuts, rows.
//!
//! [`Wire`] is the seam to the formats of `change`; everything it reads is foreign until it is checked.

use bytes::Bytes;
use catchwater_change::checkpoint::{ChunkPhase, FIRST_SNAPSHOT, Stored, StoredKey, WHOLE_TABLE, table_flag};
use catchwater_change::decode::debezium_json::rows;
use catchwater_change::encode::debezium_json::FLAT_HEADER;
use catchwater_change::encode::form::FORM_HEADER;
use catchwater_change::exact::EXACT_HEADER;
use catchwater_change::stamp::STAMP_HEADER;
use catchwater_change::{Cut, RowChange, Stamp, TableSchema};
use catchwater_record::batch::{BatchView, iterate};
use catchwater_record::{CaptureId, CommitSeq, Incarnation, Offset, TopicPartition, compress};
use std::borrow::Cow;
use std::sync::Arc;

/// What one compressed batch may grow to.
const SECTION_BYTES_MAX: usize = 64 << 20;

/// One record, holding slices of the fetched bytes.
#[derive(Clone, Debug)]
pub struct RawRecord {
    pub offset: Offset,
    /// Milliseconds since 1970; of a capture's records: when they were made.
    pub timestamp_ms: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    /// Header `cw.stamp`.
    pub stamp: Option<Bytes>,
    /// Header `cw.exact`.
    pub exact: Option<Bytes>,
    /// Header `cw.form`.
    pub form: Option<Bytes>,
    /// Header `cw.flat`.
    pub flat: Option<Bytes>,
    /// The headers asked for in [`records_with`], in that order.
    pub more: Vec<Option<Bytes>>,
}

impl RawRecord {
    pub fn bytes(&self) -> usize {
        let len = |b: &Option<Bytes>| b.as_ref().map_or(0, Bytes::len);
        let headers = len(&self.stamp) + len(&self.exact) + len(&self.form) + len(&self.flat);
        128 + len(&self.key) + len(&self.value) + headers
    }
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WireError {
    #[error("{at} offset {offset}: {why}")]
    Record { at: TopicPartition, offset: Offset, why: String },
    #[error("{at}: {why}")]
    Batch { at: TopicPartition, why: String },
    #[error("schema {no} of the row at {at} offset {offset} is in no TABLE record")]
    NoSchema { at: TopicPartition, offset: Offset, no: u32 },
}

/// What a capture tells of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// `late` = it came to the capture after that had begun, in this incarnation: the log has not all of it until
    /// [`Told::Again`] says so.
    Table { table: Box<TableSchema>, late: Option<Incarnation> },
    /// A table of the capture's first snapshot: the log holds all of it from `whole` on; `None` = not yet.
    First { table_no: u32, incarnation: Incarnation, whole: Option<CommitSeq> },
    /// A table of another snapshot, which is over: the log holds all that it brought from `whole` on.
    Again { table_no: u32, incarnation: Incarnation, whole: CommitSeq },
}

/// Reads the formats that captures write.
pub trait Wire: Send + Sync {
    /// A record of `__catchwater_captures`; `None` = a kind that says nothing to a sink.
    fn told(&self, key: &[u8], value: &[u8]) -> Result<Option<(CaptureId, Told)>, String>;
    /// A cut of `__catchwater_cuts`.
    fn cut(&self, key: &[u8], value: &[u8]) -> Result<(CaptureId, Cut), String>;
    /// The row of a record with stamp; never called for tombstones, schema changes and messages.
    fn row(&self, record: &RawRecord, stamp: &Stamp, schema: &Arc<TableSchema>) -> Result<RowChange, String>;
}

/// The formats of `change`: stored forms and Debezium's JSON.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChangeWire;

impl Wire for ChangeWire {
    fn told(&self, key: &[u8], value: &[u8]) -> Result<Option<(CaptureId, Told)>, String> {
        let (capture, key) = StoredKey::decode(key).map_err(|e| e.to_string())?;
        let of = match key {
            StoredKey::Table { .. } => None,
            StoredKey::Chunk { snapshot, table, unit: WHOLE_TABLE } => Some((snapshot, table)),
            _ => return Ok(None),
        };
        Ok(match (Stored::decode(key, value).map_err(|e| e.to_string())?, of) {
            (Stored::Table(t), _) => {
                let late = (t.flags & table_flag::LATE != 0).then_some(t.from.incarnation);
                Some((capture, Told::Table { table: Box::new(t.schema), late }))
            }
            (Stored::Chunk(c), Some((snapshot, table_no))) => {
                let incarnation = c.incarnation;
                let whole = matches!(c.phase, ChunkPhase::Finished | ChunkPhase::GivenUp).then_some(c.commit_seq);
                let told = match snapshot {
                    FIRST_SNAPSHOT => Some(Told::First { table_no, incarnation, whole }),
                    _ => whole.map(|whole| Told::Again { table_no, incarnation, whole }),
                };
                told.map(|told| (capture, told))
            }
            _ => None,
        })
    }

    fn cut(&self, key: &[u8], value: &[u8]) -> Result<(CaptureId, Cut), String> {
        let capture = Cut::source(key).ok_or("key is no source id")?;
        Ok((capture, Cut::decode(value).map_err(|e| e.to_string())?))
    }

    fn row(&self, record: &RawRecord, stamp: &Stamp, schema: &Arc<TableSchema>) -> Result<RowChange, String> {
        let headers = [
            (STAMP_HEADER, record.stamp.as_deref()),
            (EXACT_HEADER, record.exact.as_deref()),
            (FORM_HEADER, record.form.as_deref()),
            (FLAT_HEADER, record.flat.as_deref()),
        ];
        let headers = headers.into_iter().filter(|(_, v)| v.is_some());
        rows(record.value.as_ref(), headers, stamp, schema).map_err(|e| e.to_string())
    }
}

/// Records of a fetch.
#[derive(Debug)]
pub struct Taken {
    pub records: Vec<RawRecord>,
    /// Behind the last batch that was taken.
    pub next: Offset,
    /// Bytes of the batches that were taken, as they are stored, and decompressed.
    pub stored: usize,
    pub grown: usize,
}

/// All records of `batches` from `from` on, and the offset after the last batch.
pub fn records(at: TopicPartition, from: Offset, batches: &Bytes) -> Result<(Vec<RawRecord>, Offset), WireError> {
    records_with(at, from, batches, &[])
}

/// The same up to the batch with which `room` bytes are reached, as they are when nothing is compressed: a compressed
/// batch may be fifty times as large as its bytes in the log. The first batch comes whatever its size.
pub fn records_in(at: TopicPartition, from: Offset, batches: &Bytes, room: usize) -> Result<Taken, WireError> {
    read(at, from, batches, &[], room)
}

/// All of them, with more headers of each.
pub fn records_with(
    at: TopicPartition,
    from: Offset,
    batches: &Bytes,
    headers: &[&[u8]],
) -> Result<(Vec<RawRecord>, Offset), WireError> {
    read(at, from, batches, headers, usize::MAX).map(|taken| (taken.records, taken.next))
}

fn read(at: TopicPartition, from: Offset, batches: &Bytes, headers: &[&[u8]], room: usize) -> Result<Taken, WireError> {
    let (mut out, mut next, mut stored, mut grown) = (Vec::new(), from, 0, 0);
    let mut rest: &[u8] = batches;
    let wrong = |why: String| WireError::Batch { at, why };
    while !rest.is_empty() && grown < room {
        let (view, tail) = BatchView::split(rest).map_err(|e| wrong(e.to_string()))?;
        let length = rest.len() - tail.len();
        rest = tail;
        let base = view.offset();
        let end = base.plus(u64::from(view.offset_count()));
        if end <= next {
            continue;
        }
        view.check_crc().map_err(|e| wrong(e.to_string()))?;
        if !view.is_control() {
            let section = compress::section(&view, SECTION_BYTES_MAX).map_err(|e| wrong(e.to_string()))?;
            let section = match section {
                Cow::Borrowed(b) => batches.slice_ref(b),
                Cow::Owned(v) => Bytes::from(v),
            };
            stored += length;
            grown += section.len();
            let count = u32::try_from(view.records_count()).unwrap_or(0);
            for record in iterate::records(&section, count) {
                let record = record.map_err(|e| wrong(e.to_string()))?;
                let offset = base.plus(u64::try_from(record.offset_delta).unwrap_or(0));
                if offset < from {
                    continue;
                }
                let slice = |b: Option<&[u8]>| b.map(|b| section.slice_ref(b));
                let mut raw = RawRecord {
                    offset,
                    timestamp_ms: view.base_timestamp() + record.timestamp_delta,
                    key: slice(record.key),
                    value: slice(record.value),
                    stamp: None,
                    exact: None,
                    form: None,
                    flat: None,
                    more: headers.iter().map(|h| slice(record.header(h).flatten())).collect(),
                };
                // The last one of a name counts.
                for (name, header) in record.headers() {
                    match name {
                        STAMP_HEADER => raw.stamp = slice(header),
                        EXACT_HEADER => raw.exact = slice(header),
                        FORM_HEADER => raw.form = slice(header),
                        FLAT_HEADER => raw.flat = slice(header),
                        _ => {}
                    }
                }
                out.push(raw);
            }
        }
        next = end;
    }
    Ok(Taken { records: out, next, stored, grown })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use catchwater_record::TopicId;
    use catchwater_record::batch::patch;
    use catchwater_record::{LeaderEpoch, batch::build::Builder};

    fn batch(base: u64, keys: &[&str]) -> Vec<u8> {
        let mut b = Builder::new();
        for k in keys {
            b.push(1000, Some(k.as_bytes()), Some(b"v"), []);
        }
        let mut bytes = b.finish();
        patch(&mut bytes, Offset(base), LeaderEpoch(1));
        bytes.to_vec()
    }

    #[test]
    fn reads_from_the_asked_offset_over_batches() {
        let at = TopicPartition::new(TopicId([1; 16]), 0);
        let bytes = Bytes::from([batch(10, &["a", "b", "c"]), batch(13, &["d"])].concat());
        let (got, next) = records(at, Offset(11), &bytes).unwrap();
        let keys: Vec<_> = got.iter().map(|r| (r.offset.0, r.key.clone().unwrap())).collect();
        assert_eq!(keys, [(11, "b".into()), (12, "c".into()), (13, "d".into())]);
        assert_eq!(next, Offset(14));
        // What has no room is asked for again; a batch that was taken in part is whole.
        let got = records_in(at, Offset(11), &bytes, 1).unwrap();
        assert_eq!((got.records.len(), got.next), (2, Offset(13)));
        assert!(got.stored > got.grown && got.grown > 0, "{} {}", got.stored, got.grown);
        let got = records_in(at, Offset(13), &bytes, 1).unwrap();
        assert_eq!((got.records.len(), got.next), (1, Offset(14)));
        assert!(records(at, Offset(0), &bytes.slice(..bytes.len() - 1)).is_err());
        let mut flipped = bytes.to_vec();
        flipped[70] ^= 1;
        assert!(records(at, Offset(0), &Bytes::from(flipped)).is_err());
    }
}
