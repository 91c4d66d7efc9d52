//! What the mutator begins with: whole inputs of each target that its decoder accepts (a test says so), made from the
//! formats' pages, from Kafka's golden frames and from our own encoders; and the table and stamp that the decoders of records need.

use crate::repair;
use bytes::{BufMut, Bytes};
use catchwater_change::schema::{Column, KeyFrom, TableSchema, Type};
use catchwater_record::TopicId;
use catchwater_record::batch::BatchView;
use catchwater_record::batch::build::Builder;
use catchwater_record::compress::{self, SnappyFraming};
use catchwater_storage::capture_pos::Captures;
use catchwater_storage::format::{slot, snap};
use catchwater_storage::producer::Producers;
use std::sync::{Arc, OnceLock};

/// Frames of a JVM: `key direction version origin hex` a line.
const FRAMES: &str = include_str!("../../protocol/tests/golden/kafka-4.3.0.frames");

/// Reads a section of a `.snap` as the log does.
pub fn read_section(kind: u16, section: &Bytes) {
    match kind {
        1 => drop(Producers::decode(section.clone())),
        2 => drop(Captures::decode(section.clone())),
        4 => drop(catchwater_storage::format::txn::Aborted::decode_all(section)),
        _ => {}
    }
}

/// A table with a column of most types.
pub fn table() -> Arc<TableSchema> {
    static TABLE: OnceLock<Arc<TableSchema>> = OnceLock::new();
    TABLE
        .get_or_init(|| {
            let kinds = [
                ("id", Type::Int { bits: 64, unsigned: false }),
                ("n", Type::Decimal { precision: 12, scale: 2 }),
                ("t", Type::Text { length: 0 }),
                ("b", Type::Bytes),
                ("d", Type::Date),
                ("ts", Type::Timestamp { digits: 6 }),
                ("i", Type::Instant { digits: 6 }),
                ("u", Type::Uuid),
                ("j", Type::Json { binary: true }),
                ("a", Type::Array { element: Box::new(Type::Text { length: 0 }) }),
            ];
            let column = |(at, (name, kind)): (usize, (&str, Type))| Column {
                id: at as u32 + 1,
                name: name.into(),
                native_type: String::new(),
                domain: String::new(),
                native_id: 0,
                modifier: -1,
                kind,
                nullable: Some(at > 0),
                generated: false,
                identity: false,
                default: String::new(),
                missing: None,
                comment: String::new(),
            };
            Arc::new(TableSchema {
                schema_no: 1,
                table_no: 1,
                native_id: 1,
                database: "d".into(),
                schema: "public".into(),
                name: "t".into(),
                comment: String::new(),
                identity: b'f',
                key_from: KeyFrom::PrimaryKey,
                columns: kinds.into_iter().enumerate().map(column).collect(),
                key: vec![0],
                unique: Vec::new(),
                fingerprint: [0; 16],
                topic: TopicId::NONE,
            })
        })
        .clone()
}

/// A stamp of that table. Source: docs/formats/stamp.md.
pub fn stamp_bytes() -> Vec<u8> {
    let mut out = vec![1, b'c', 0, 3];
    out.extend_from_slice(&[0; 15]);
    out.push(1);
    out.put_u32(1);
    out.put_u64(9);
    out.put_i64(1_700_000_000_000_000);
    out.put_u32(1);
    out.extend_from_slice(&[2, 7, 7, 255]);
    out
}

/// Whole inputs of a target.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "request" => frames("request"),
        "response" => frames("response"),
        "header" => vec![vec![0, 3, 0, 12, 0, 0, 0, 1, 0, 2, b'm', b'e', 0], vec![0, 18, 0, 3, 0, 0, 0, 1, 255, 255, 0]],
        "batch" => batches(),
        "journal" => vec![flush(), head(b"CWJF", 4096)],
        "segment" => segments(),
        "manifest" => slots(),
        "snap" => vec![snapshot()],
        "txn" => vec![aborted(1), aborted(40)],
        "pgoutput" => pgoutput(),
        "debezium_json" => vec![
            br#"{"before":null,"after":{"id":1,"n":"3.14","t":"x","b":"AAA=","d":19000,"ts":1,"i":"2024-01-01T00:00:00Z","u":"123e4567-e89b-12d3-a456-426614174000","j":"{}","a":["p",null]},"source":{"version":"1","connector":"postgresql","name":"s","ts_ms":1,"db":"d","schema":"public","table":"t"},"op":"c","ts_ms":1}"#.to_vec(),
            br#"{"payload":{"before":{"id":1},"after":null,"source":{},"op":"d"}}"#.to_vec(),
        ],
        "stored_records" => vec![stamp_bytes(), [&[10u8][..], &stamp_bytes()].concat()],
        "pipeline_yaml" => vec![
            b"version: 1\npipeline: shop\nsources:\n  shop:\n    postgres: { url: \"postgres://u@localhost/d\", tables: [a, b] }\nsinks:\n  copy:\n    from: shop\n    sqlite: { path: ./copy.db }\n".to_vec(),
            b"a: &x [1, 2]\nb: *x\nc: |\n  text\n? k\n: v\n".to_vec(),
        ],
        _ => Vec::new(),
    }
}

/// The two bytes that choose, then the body.
fn frames(direction: &str) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for words in FRAMES.lines().filter(|l| !l.starts_with('#')).map(|l| l.split(' ').collect::<Vec<_>>()) {
        let [key, way, version, _, hex] = words[..] else { continue };
        let (Ok(key), Ok(version)) = (key.parse::<i16>(), version.parse::<i16>()) else { continue };
        let Some((api, min)) = crate::targets::place_of(key).filter(|(_, min)| version >= *min && way == direction)
        else {
            continue;
        };
        let digits = if hex == "-" { "" } else { hex };
        let body = (0..digits.len()).step_by(2).filter_map(|i| u8::from_str_radix(digits.get(i..i + 2)?, 16).ok());
        out.push([api as u8, (version - min) as u8].into_iter().chain(body).collect());
    }
    out
}

fn batches() -> Vec<Vec<u8>> {
    let mut builder = Builder::new().producer(5, 0, 3);
    for i in 0..20u8 {
        builder.push(1_700_000_000_000 + i64::from(i), Some(&[i]), Some(&[i; 40]), [(&b"h"[..], Some(&b"v"[..]))]);
    }
    let plain = builder.finish().freeze();
    let mut out = vec![plain.to_vec()];
    if let Ok(view) = BatchView::new(&plain) {
        for bits in 1..=4 {
            let Some(codec) = catchwater_record::batch::Codec::from_attribute(bits) else { continue };
            out.extend(compress::compress_batch(&view, codec, SnappyFraming::Xerial).map(|b| b.to_vec()).ok());
        }
    }
    out
}

fn head(magic: &[u8; 4], len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    repair::head64(&mut out, magic);
    out
}

/// One flush with one entry that holds a batch. Source: docs/formats/journal.md.
fn flush() -> Vec<u8> {
    let batch = batches().swap_remove(0);
    let body = batch.len().next_multiple_of(8);
    let mut out = vec![0; 64];
    let le = |out: &mut Vec<u8>, at: usize, n: u64, width: usize| {
        out[at..at + width].copy_from_slice(&n.to_le_bytes()[..width])
    };
    le(&mut out, 8, 1, 8);
    le(&mut out, 32, 64 + body as u64, 4);
    le(&mut out, 36, 1, 4);
    let mut frame = vec![0; 64];
    (frame[4], frame[5]) = (1, 1);
    le(&mut frame, 8, 1, 8);
    le(&mut frame, 16, 7, 8);
    le(&mut frame, 24, 1, 8);
    le(&mut frame, 32, u64::from(u32::MAX), 4);
    le(&mut frame, 36, 20, 4);
    le(&mut frame, 56, batch.len() as u64, 4);
    out.extend(frame);
    out.extend(&batch);
    out.resize(128 + body, 0);
    let mut row = vec![0; 24];
    le(&mut row, 0, 7, 8);
    le(&mut row, 8, 1, 8);
    (row[16], row[17]) = (1, 1);
    le(&mut row, 20, 64, 4);
    out.extend(row);
    repair::flush(&mut out);
    out.resize(out.len().next_multiple_of(4096), 0);
    out
}

fn segments() -> Vec<Vec<u8>> {
    let mut footer = vec![0; 96];
    repair::footer(&mut footer);
    let mut ext = vec![0; 4];
    ext.extend_from_slice(&[1, 0, 4, 0, 0, 0, 0, 0]);
    vec![head(b"CWE1", 64 + 48 * 4), footer, ext]
}

fn slots() -> Vec<Vec<u8>> {
    use slot::SlotKind::{BootState, DirMeta, Manifest};
    [(DirMeta, 48), (BootState, 48), (Manifest, 128), (Manifest, 128 + 24 + 48)]
        .map(|(kind, len)| {
            let mut payload = vec![0; len];
            if len > 128 {
                // One epoch, one segment.
                (payload[60], payload[64]) = (1, 1);
            }
            slot::encode(kind, 3, &payload)
        })
        .to_vec()
}

fn aborted(rows: u64) -> Vec<u8> {
    use catchwater_record::{Offset, ProducerId};
    let mut out = Vec::new();
    for n in 0..rows {
        let (first, last, last_stable) = (Offset(n), Offset(n + 5), Offset(n + 6));
        let row = catchwater_storage::Aborted { producer: ProducerId(n as i64), first, last, last_stable };
        row.encode(&mut out);
    }
    out
}

fn snapshot() -> Vec<u8> {
    let mut payload = Vec::new();
    let mut producers = vec![1, 0, 0, 0, 0, 0, 0, 0];
    producers.extend_from_slice(&[0; 64]);
    snap::put_section(&mut payload, 1, &producers);
    snap::put_section(&mut payload, 2, &[0; 48]);
    let mut out = vec![0; 40];
    out.extend(payload);
    repair::snap(&mut out);
    out
}

/// Source: PostgreSQL 15 manual, 55.9.
fn pgoutput() -> Vec<Vec<u8>> {
    let mut begin = vec![b'B'];
    begin.extend_from_slice(&[0; 20]);
    let mut commit = vec![b'C'];
    commit.extend_from_slice(&[0; 25]);
    let relation =
        b"R\0\0\0\x01public\0t\0f\0\x02\x01id\0\0\0\0\x17\xff\xff\xff\xff\0name\0\0\0\0\x19\xff\xff\xff\xff".to_vec();
    let tuple = b"\0\x02t\0\0\0\x011n";
    let insert = [b"I\0\0\0\x01N", &tuple[..]].concat();
    let update = [b"U\0\0\0\x01O", &tuple[..], b"N", &tuple[..]].concat();
    let delete = [b"D\0\0\0\x01K", &tuple[..]].concat();
    let truncate = b"T\0\0\0\x01\0\0\0\0\x01".to_vec();
    let framed = [b"w\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01", &insert[..]].concat();
    vec![begin, commit, relation, insert, update, delete, truncate, framed]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use catchwater_storage::format::journal::{FlushHeader, decode_flush};

    #[test]
    fn seeds_pass_their_decoders() {
        let flush = Bytes::from(flush());
        let header = FlushHeader::decode(&flush).unwrap();
        let content = decode_flush(&header, &flush);
        assert!(content.is_whole() && content.frames.len() == 1, "{content:?}");
        assert!(snap::sections(&snap::Snap::decode(&snapshot().into()).unwrap().payload).unwrap().len() == 2);
        assert_eq!(batches().len(), 5);
        for message in pgoutput().iter().take(7) {
            catchwater_connector_postgres::source::decode::message(Bytes::copy_from_slice(message)).unwrap();
        }
        catchwater_change::stamp::Stamp::decode(&stamp_bytes()).unwrap();
        assert!(frames("request").len() > 60 && frames("response").len() > 60);
        for target in crate::targets::TARGETS {
            assert!(!of(target.name).is_empty(), "{} begins with nothing", target.name);
        }
    }

    #[test]
    fn a_repair_is_found_whole() {
        let mut flush = flush();
        flush[8 + 64 + 64] ^= 1;
        let damaged = Bytes::from(flush.clone());
        assert!(!decode_flush(&FlushHeader::decode(&damaged).unwrap(), &damaged).is_whole());
        repair::flush(&mut flush);
        let repaired = Bytes::from(flush);
        let content = decode_flush(&FlushHeader::decode(&repaired).unwrap(), &repaired);
        assert!(content.lost.iter().all(Option::is_some), "{content:?}");
    }
}
