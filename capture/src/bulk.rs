//! Pure. Rows of a unit of the first snapshot become records where they are read, not in the worker: several readers, each
//! with a connection of its own, do so at the same time, while the rows are still in the processor's cache.
//!
//! What a row costs (ten columns, 100 bytes): one parse into cells, one write of 640 bytes of JSON of which 500 are copied
//! ([`Parts`]), one copy into the page, the batch's CRC. No allocation but for texts and decimals.
//!
//! The unit's number is not known yet: units are placed in the plan's order, and one without rows takes no number. So the
//! eight bytes of it in each stamp are written when the unit is placed ([`Page::number`]), before the page's CRC is made.
//! The first and the last row of a unit are handed over as they are: what is special about them (`source.snapshot`, the
//! stamp's flags and total) depends on the other units, too.

use crate::emit::Limits;
use crate::route;
use bytes::Bytes;
use catchwater_base::Now;
use catchwater_base::Wall;
use catchwater_change::encode::debezium_json::{EncodeError, Encoder, Parts, Piece};
use catchwater_change::stamp::{STAMP_HEADER, flag};
use catchwater_change::{Native, Op, RowChange, SnapshotMark, Stamp, TableSchema, Version};
use catchwater_record::batch::build::Builder;
use catchwater_record::{CaptureId, CommitSeq, Incarnation, TxnId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of a record, about: a guess for how much room a page begins with.
const RECORD_BYTES: u64 = 640;
/// Where the number stands in a stamp. Source: `docs/formats/stamp.md`.
const SEQ_AT: usize = 6;

/// What the records of a unit share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Numbered and routed.
    pub table: Arc<TableSchema>,
    pub partitions: u32,
    pub capture: CaptureId,
    pub incarnation: Incarnation,
    pub native: Native,
    pub txn: TxnId,
    pub commit_time: Wall,
    pub limits: Limits,
    /// So many rows are to be expected; 0 = unknown.
    pub rows_estimate: u64,
}

/// Records of one partition, a batch when their number is known.
pub struct Page {
    pub partition: u32,
    builder: Builder,
    /// Where the numbers stand.
    seq_at: Vec<u32>,
    /// Places of the first and the last record in the unit.
    pub first: u64,
    pub last: u64,
}

/// A unit as it was read.
#[derive(Default)]
pub struct Made {
    pub first: Option<RowChange>,
    /// In the order they were closed: of each partition in its records' order.
    pub pages: Vec<Page>,
    /// None if there is one row at most.
    pub last: Option<RowChange>,
    pub rows: u64,
}

/// Makes the records of one unit.
pub struct Bulk {
    shared: Shared,
    encoder: Encoder,
    parts: Parts,
    open: BTreeMap<u32, Page>,
    made: Made,
}

impl Bulk {
    pub fn new(encoder: Encoder, shared: Shared) -> Bulk {
        Bulk { shared, encoder, parts: Parts::default(), open: BTreeMap::new(), made: Made::default() }
    }

    /// The next row of the unit.
    pub fn row(&mut self, now: Now, row: RowChange) -> Result<(), EncodeError> {
        self.made.rows += 1;
        if self.made.rows == 1 {
            self.made.first = Some(row);
            return Ok(());
        }
        match self.made.last.replace(row) {
            Some(before) => self.put(now, before),
            None => Ok(()),
        }
    }

    fn put(&mut self, now: Now, mut row: RowChange) -> Result<(), EncodeError> {
        let shared = &self.shared;
        (row.op, row.before, row.snapshot) = (Op::Read, None, SnapshotMark::Middle);
        row.table = shared.table.clone();
        // The newest row is held, so this is the one before it.
        let ordinal = self.made.rows - 2;
        let has_key = self.encoder.key_into(&mut self.parts, &row, Piece::Whole)?;
        let own_key = has_key && self.encoder.has_own_keys(&row.table);
        let partition = route::partition(own_key.then(|| self.parts.key()), shared.partitions).0;
        let version = Version { incarnation: shared.incarnation, commit_seq: CommitSeq(0), ordinal };
        let stamp = Stamp {
            op: Encoder::letter(&row, Piece::Whole),
            flags: flag::SNAPSHOT,
            version,
            total: 0,
            source: shared.capture,
            commit_time: shared.commit_time,
            schema_no: shared.table.schema_no,
            native: shared.native.clone(),
            txn: Some(shared.txn.clone()).filter(|t| t.0 != shared.native.as_bytes()),
        };
        let has_key =
            self.encoder.record_into(&mut self.parts, &row, Piece::Whole, stamp, now.wall, (has_key, None))?;
        let record = self.parts.record(has_key);
        let limits = shared.limits;
        let full = self.open.get(&partition).is_some_and(|p| {
            p.builder.count() >= limits.batch_records || p.builder.bytes() + record.bytes() > limits.batch_bytes
        });
        if full && let Some(page) = self.open.remove(&partition) {
            self.made.pages.push(page);
        }
        let page = self.open.entry(partition).or_insert_with(|| {
            let expected = (shared.rows_estimate / u64::from(shared.partitions.max(1))).saturating_mul(RECORD_BYTES);
            let builder = Builder::with_capacity(usize::try_from(expected).unwrap_or(0).min(limits.batch_bytes));
            Page { partition, builder, seq_at: Vec::new(), first: ordinal, last: ordinal }
        });
        page.last = ordinal;
        page.builder.push(
            now.wall.as_millis(),
            record.key,
            record.value,
            record.headers.iter().map(|(k, v)| (&k[..], v.as_deref())),
        );
        // The stamp's bytes lie before what stands behind them: later headers, each with two lengths.
        let at = record.headers.iter().position(|(name, _)| &name[..] == STAMP_HEADER);
        let (stamp, behind) = record.headers.split_at(at.unwrap_or(0)).1.split_first().unzip();
        let behind: usize = behind
            .unwrap_or_default()
            .iter()
            .map(|(k, v)| prefixed(k.len()) + prefixed(v.as_ref().map_or(0, Bytes::len)))
            .sum();
        let stamp_bytes = stamp.and_then(|(_, v)| v.as_ref()).map_or(0, Bytes::len);
        page.seq_at.push((page.builder.bytes() - behind - stamp_bytes + SEQ_AT) as u32);
        Ok(())
    }

    /// All rows were given.
    pub fn end(mut self) -> Made {
        self.made.pages.extend(std::mem::take(&mut self.open).into_values());
        self.made
    }
}

/// Bytes of a value with its length, a zig-zag varint.
fn prefixed(len: usize) -> usize {
    let bits = usize::BITS - (len << 1 | 1).leading_zeros();
    bits.div_ceil(7) as usize + len
}

impl Page {
    /// Bytes of the batch.
    pub fn bytes(&self) -> usize {
        self.builder.bytes()
    }
    pub fn records(&self) -> u32 {
        self.builder.count()
    }
    /// The batch, now that its unit has a number.
    pub fn number(mut self, seq: CommitSeq) -> Bytes {
        let seq = seq.0.to_be_bytes();
        for at in &self.seq_at {
            self.builder.patch(*at as usize, &seq);
        }
        self.builder.finish().freeze()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::emit::{Emitter, Place, Unit};
    use crate::track::{Mark, Track};
    use catchwater_base::Mono;
    use catchwater_change::encode::debezium_json::Options;
    use catchwater_change::encode::form::{DecimalMode, Form};
    use catchwater_change::{Cell, Column, Row, SourceInfo, Type, Value};
    use catchwater_record::batch::{BatchView, iterate};
    use catchwater_record::{CaptureEpoch, Offset, Position, TopicId, TopicPartition};

    const PARTITIONS: u32 = 3;

    /// Every record: partition, key, value, headers.
    type Seen = (u32, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Vec<u8>)>);

    fn seen(partition: u32, batch: &[u8]) -> Vec<Seen> {
        let view = BatchView::new(batch).unwrap();
        view.check_crc().unwrap();
        let all = iterate::records(view.records(), view.records_count() as u32);
        all.map(|r| {
            let r = r.unwrap();
            let headers = r.headers().map(|(k, v)| (k.to_vec(), v.unwrap().to_vec())).collect();
            (partition, r.key.map(<[u8]>::to_vec), r.value.map(<[u8]>::to_vec), headers)
        })
        .collect()
    }

    /// A unit made by readers has the very records that the emitter makes of its rows, in each partition in their order.
    #[test]
    fn records_are_those_of_the_emitter() {
        let mut table = crate::tables::tests::table("s", "t");
        table.topic = TopicId([1; 16]);
        table.key = vec![0];
        table.key_from = catchwater_change::KeyFrom::PrimaryKey;
        // Not exact in double mode, so that headers stand behind the stamp.
        let more =
            Column { name: "n".into(), kind: Type::Decimal { precision: 0, scale: 0 }, ..table.columns[0].clone() };
        table.columns.push(more);
        let table = Arc::new(table);
        let options = Options { form: Form { decimal: DecimalMode::Double, ..Form::default() }, ..Options::default() };
        let encoder = Encoder::with("postgresql", "pg", options);
        let limits = Limits { batch_records: 4, batch_bytes: 3000, ..Limits::default() };
        let now = Now { mono: Mono::from_millis(1), wall: Wall::from_millis(77) };
        let row = |i: i64| RowChange {
            table: table.clone(),
            op: Op::Read,
            before: None,
            after: Some(Row::new(vec![
                Cell::Value(Value::Int(i)),
                Cell::Value(Value::Decimal(catchwater_change::Decimal::parse(&format!("{i}.50")).unwrap())),
            ])),
            snapshot: SnapshotMark::Middle,
            info: SourceInfo::Postgres { lsn: Some(9), txid: Some(3), last_commit_lsn: None },
        };
        for count in [0, 1, 2, 3, 40] {
            let txn = TxnId("chunk 1/1/0".into());
            let unit = Unit {
                seq: CommitSeq(0x1122_3344_5566_7788),
                native: Some(Native::postgres(5)),
                txn: txn.clone(),
                commit_time: Wall::from_millis(70),
                flags: flag::SNAPSHOT,
            };
            let (epoch, incarnation) = (CaptureEpoch(1), Incarnation(1));
            let mut emitter = Emitter::new(encoder.clone(), CaptureId(1), epoch, incarnation, limits);
            let mut track =
                Track::new(Mark { seq: CommitSeq(0), native: Native::default(), commit_time: Wall::default() });
            let at = |p| TopicPartition::new(table.topic, p);
            (0..PARTITIONS).for_each(|p| emitter.lane(at(p), Position::NONE, Offset(0), Offset(0)));
            let mut bulk = Bulk::new(
                encoder.clone(),
                Shared {
                    table: table.clone(),
                    partitions: PARTITIONS,
                    capture: CaptureId(1),
                    incarnation,
                    native: Native::postgres(5),
                    txn,
                    commit_time: unit.commit_time,
                    limits,
                    rows_estimate: 5,
                },
            );
            for i in 0..count {
                let place = Place { ordinal: i as u64, last: false };
                emitter.put(now, &unit, place, &row(i), PARTITIONS, None, &mut track, &mut 0, None).unwrap();
                bulk.row(now, row(i)).unwrap();
            }
            let made = bulk.end();
            assert_eq!((made.rows, made.first.is_some(), made.last.is_some()), (count as u64, count > 0, count > 1));
            let mut want: Vec<Seen> = Vec::new();
            loop {
                let out = emitter.take_outgoing(now.mono, true);
                if out.is_empty() {
                    break;
                }
                for o in out {
                    want.extend(seen(o.at.partition.0, &o.batch));
                    let (offset, end) = (Offset(0), Offset(want.len() as u64));
                    let outcome = catchwater_client::AppendOutcome::Appended { offset, end };
                    emitter.answered(o.at, o.id, outcome, now.mono, &mut track);
                }
            }
            let mut got: Vec<Seen> = Vec::new();
            let (mut bytes, mut last) = (0, BTreeMap::new());
            for page in made.pages {
                assert!(page.records() <= limits.batch_records);
                assert!(last.insert(page.partition, page.last).is_none_or(|l| l < page.first), "pages in their order");
                bytes += page.bytes();
                let partition = page.partition;
                got.extend(seen(partition, &page.number(unit.seq)));
            }
            assert!(count < 3 || bytes > 0);
            // The first and the last row are left to the worker; the emitter says of its first that it is.
            let own = |i: i64| format!("{{\"id\":{i}}}").into_bytes();
            want.retain(|(_, key, ..)| *key != Some(own(0)) && *key != Some(own(count - 1)));
            let by_partition = |all: &mut Vec<Seen>| all.sort_by_key(|(p, ..)| *p);
            by_partition(&mut want);
            by_partition(&mut got);
            assert_eq!(got, want, "{count} rows");
            assert_eq!(got.len() as i64, (count - 2).max(0));
        }
    }
}
