//! Pure. `.ent`: header, rows, footer; `.ext` records. Page: `docs/formats/segment.md`.
//!
//! ```text
//! header 64 B   0 magic "CWE1"  4 version u16  6 flags u16  8 gid u64  16 base_index u64  24 base_offset u64
//!              32 prev_term u32  36 gen u32  40 created_ms i64  48 zero[12]  60 crc u32 (bytes 0..60)
//! row 48 B      0 crc u32 (gid u64, base_index u64, row bytes 4..48)  4 index_delta u32  8 term u32  12 count u32
//!              16 base_offset u64  24 max_ts i64 (running)  32 pos u32  36 len u32  40 ext_pos u32  44 ext_len u16
//!              46 kind u8  47 flags u8
//! footer 96 B   0 magic "CWEF"  4 rows u32  8 last_index u64  16 next_offset u64  24 log_len u64  32 log_crc64 u64
//!              40 ent_crc64 u64 (header and rows)  48 ext_crc64 u64  56 min_ts i64  64 max_ts i64  72 ext_len u32
//!              76 txn_len u32  80 last_term u32  84 flags u32  88 zero u32  92 crc u32 (bytes 0..92)
//! .ext record   crc u32 over index u64 + data | data;  the row's ext_len counts both
//! ```
//! The row vouches for the 21 batch bytes that Kafka's own CRC leaves open: [`batch_matches`].

use super::{Le, Put, sane, set_u32};
use crate::entry::{EntryKind, Row};
use catchwater_base::mutant;
use catchwater_record::batch::{HEADER_BYTES as BATCH_HEADER_BYTES, LOG_OVERHEAD};
use catchwater_record::crc::{crc32c, crc32c_of};
use catchwater_record::{BatchView, EntryIndex, Gid, LeaderEpoch, Offset};

pub const HEADER_BYTES: usize = 64;
pub const ROW_BYTES: usize = 48;
pub const FOOTER_BYTES: usize = 96;
pub const EXT_CRC_BYTES: usize = 4;
/// Longest context: the row's `ext_len u16` counts its crc too.
pub const CONTEXT_BYTES_MAX: usize = 65_531;
pub const VERSION: u16 = 1;
const HEADER_MAGIC: &[u8; 4] = b"CWE1";
const FOOTER_MAGIC: &[u8; 4] = b"CWEF";

const _: () = assert!(CONTEXT_BYTES_MAX + EXT_CRC_BYTES == u16::MAX as usize);
const _: () = assert!(BATCH_HEADER_BYTES == 61);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntHeader {
    pub gid: Gid,
    pub base_index: EntryIndex,
    pub base_offset: Offset,
    /// Term of `base_index - 1`.
    pub prev_term: u32,
    pub generation: u32,
    pub created_ms: i64,
}

impl EntHeader {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Put::with_capacity(HEADER_BYTES);
        out.bytes(HEADER_MAGIC).u16(VERSION).u16(0).u64(self.gid.0).u64(self.base_index.0).u64(self.base_offset.0);
        out.u32(self.prev_term).u32(self.generation).i64(self.created_ms).zeros(12).u32(0);
        let crc = crc32c(&out.0[..60]);
        set_u32(&mut out.0, 60, crc);
        out.0
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < HEADER_BYTES || &bytes[0..4] != HEADER_MAGIC {
            return None;
        }
        let le = Le(bytes);
        if le.u16(4) != VERSION || crc32c(&bytes[..60]) != le.u32(60) || !sane([le.u64(16), le.u64(24)]) {
            return None;
        }
        Some(EntHeader {
            gid: Gid(le.u64(8)),
            base_index: EntryIndex(le.u64(16)),
            base_offset: Offset(le.u64(24)),
            prev_term: le.u32(32),
            generation: le.u32(36),
            created_ms: le.i64(40),
        })
    }
}

fn row_crc(gid: Gid, base_index: EntryIndex, tail: &[u8]) -> u32 {
    crc32c_of(&[&gid.0.to_le_bytes(), &base_index.0.to_le_bytes(), tail])
}

/// Appends one row. `row.index` must be within 2^32 of `base_index`.
pub fn encode_row(out: &mut Vec<u8>, gid: Gid, base_index: EntryIndex, row: &Row) {
    let from = out.len();
    let delta = u32::try_from(row.index.0 - base_index.0).expect("a segment rolls before 2^32 indexes");
    let mut put = Put(std::mem::take(out));
    put.u32(0).u32(delta).u32(row.term.0).u32(row.count).u64(row.base_offset.0).i64(row.max_ts);
    put.u32(row.pos).u32(row.len).u32(row.ext_pos).u16(row.ext_len).u8(row.kind as u8).u8(row.flags);
    *out = put.0;
    let crc = row_crc(gid, base_index, &out[from + 4..]);
    set_u32(out, from, crc);
}

/// `None` if the row is short, damaged, or of another group or segment.
pub fn decode_row(bytes: &[u8], gid: Gid, base_index: EntryIndex) -> Option<Row> {
    if bytes.len() < ROW_BYTES {
        return None;
    }
    let le = Le(bytes);
    if row_crc(gid, base_index, &bytes[4..ROW_BYTES]) != le.u32(0) && !mutant!("ent_trusted_by_length") {
        return None;
    }
    // The sums that readers make: the end of the batch, of the context, of the offsets.
    let (pos, len, ext_pos) = (le.u32(32), le.u32(36), le.u32(40));
    if !sane([le.u64(16), base_index.0]) || pos.checked_add(len).is_none() || ext_pos > u32::MAX - (1 << 16) {
        return None;
    }
    Some(Row {
        index: EntryIndex(base_index.0.checked_add(u64::from(le.u32(4)))?),
        term: LeaderEpoch(le.u32(8)),
        count: le.u32(12),
        base_offset: Offset(le.u64(16)),
        max_ts: le.i64(24),
        pos: le.u32(32),
        len: le.u32(36),
        ext_pos: le.u32(40),
        ext_len: u16::from_le_bytes([bytes[44], bytes[45]]),
        kind: EntryKind::from_byte(bytes[46])?,
        flags: bytes[47],
    })
}

/// True if `body` is the batch that `row` describes: the bytes outside Kafka's CRC agree, and the CRC holds.
pub fn batch_matches(row: &Row, body: &[u8]) -> bool {
    body.len() == row.len as usize
        && body.len() >= BATCH_HEADER_BYTES
        && BatchView::new(body).is_ok_and(|batch| {
            batch.base_offset() == row.base_offset.wire()
                && batch.len() == batch.batch_length() as usize + LOG_OVERHEAD
                && batch.leader_epoch() == row.term.0 as i32
                && batch.offset_count() == row.count
                && batch.check_crc().is_ok()
        })
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Footer {
    pub rows: u32,
    pub last_index: EntryIndex,
    pub next_offset: Offset,
    pub log_len: u64,
    pub log_crc64: u64,
    pub ent_crc64: u64,
    pub ext_crc64: u64,
    /// Smallest maximum timestamp of a batch, ms; -1 = unknown (no records, or the segment was open across a restart).
    pub min_ts: i64,
    pub max_ts: i64,
    pub ext_len: u32,
    pub txn_len: u32,
    pub last_term: u32,
}

impl Footer {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Put::with_capacity(FOOTER_BYTES);
        out.bytes(FOOTER_MAGIC).u32(self.rows).u64(self.last_index.0).u64(self.next_offset.0).u64(self.log_len);
        out.u64(self.log_crc64).u64(self.ent_crc64).u64(self.ext_crc64).i64(self.min_ts).i64(self.max_ts);
        out.u32(self.ext_len).u32(self.txn_len).u32(self.last_term).u32(0).u32(0).u32(0);
        let crc = crc32c(&out.0[..92]);
        set_u32(&mut out.0, 92, crc);
        out.0
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < FOOTER_BYTES || &bytes[0..4] != FOOTER_MAGIC || crc32c(&bytes[..92]) != Le(bytes).u32(92) {
            return None;
        }
        let le = Le(bytes);
        if !sane([le.u64(8), le.u64(16)]) || le.u64(24) > u64::from(u32::MAX) {
            return None;
        }
        Some(Footer {
            rows: le.u32(4),
            last_index: EntryIndex(le.u64(8)),
            next_offset: Offset(le.u64(16)),
            log_len: le.u64(24),
            log_crc64: le.u64(32),
            ent_crc64: le.u64(40),
            ext_crc64: le.u64(48),
            min_ts: le.i64(56),
            max_ts: le.i64(64),
            ext_len: le.u32(72),
            txn_len: le.u32(76),
            last_term: le.u32(80),
        })
    }
}

/// One `.ext` record.
pub fn encode_ext(out: &mut Vec<u8>, index: EntryIndex, context: &[u8]) {
    out.extend_from_slice(&crc32c_of(&[&index.0.to_le_bytes(), context]).to_le_bytes());
    out.extend_from_slice(context);
}

/// The context inside an `.ext` record; `None` if it is damaged.
pub fn decode_ext(index: EntryIndex, record: &[u8]) -> Option<&[u8]> {
    if record.len() < EXT_CRC_BYTES {
        return None;
    }
    let (_, context) = record.split_at(EXT_CRC_BYTES);
    (crc32c_of(&[&index.0.to_le_bytes(), context]) == Le(record).u32(0)).then_some(context)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::assert_golden;
    use super::*;

    fn header() -> EntHeader {
        EntHeader {
            gid: Gid(9),
            base_index: EntryIndex(100),
            base_offset: Offset(5000),
            prev_term: 3,
            generation: 0,
            created_ms: 1_700_000_000_000,
        }
    }

    fn row() -> Row {
        Row {
            index: EntryIndex(101),
            term: LeaderEpoch(4),
            kind: EntryKind::Data,
            flags: 8,
            base_offset: Offset(5003),
            count: 2,
            max_ts: 1_600_000_000_001,
            pos: 200,
            len: 90,
            ext_pos: 44,
            ext_len: 24,
        }
    }

    #[test]
    fn golden_bytes() {
        let mut bytes = Vec::new();
        encode_row(&mut bytes, Gid(9), EntryIndex(100), &row());
        assert_golden("segment.md", "ent header", &header().encode());
        assert_golden("segment.md", "ent row", &bytes);
        let footer = Footer {
            rows: 2,
            last_index: EntryIndex(101),
            next_offset: Offset(5005),
            log_len: 290,
            log_crc64: 1,
            ent_crc64: 2,
            ext_crc64: 3,
            min_ts: -1,
            max_ts: 1_600_000_000_001,
            ext_len: 68,
            txn_len: 0,
            last_term: 4,
        };
        assert_golden("segment.md", "ent footer", &footer.encode());
        let mut ext = Vec::new();
        encode_ext(&mut ext, EntryIndex(101), b"\x01\x02ab");
        assert_golden("segment.md", "ext record", &ext);
        assert_eq!(EntHeader::decode(&header().encode()), Some(header()));
        assert_eq!(decode_row(&bytes, Gid(9), EntryIndex(100)), Some(row()));
        assert_eq!(Footer::decode(&footer.encode()), Some(footer));
        assert_eq!(decode_ext(EntryIndex(101), &ext), Some(&b"\x01\x02ab"[..]));
    }

    #[test]
    fn a_row_of_another_group_or_segment_is_no_row() {
        let mut bytes = Vec::new();
        encode_row(&mut bytes, Gid(9), EntryIndex(100), &row());
        assert_eq!(decode_row(&bytes, Gid(8), EntryIndex(100)), None);
        assert_eq!(decode_row(&bytes, Gid(9), EntryIndex(101)), None);
    }

    #[test]
    fn every_flipped_bit_of_header_row_and_ext_is_seen() {
        let mut bytes = Vec::new();
        encode_row(&mut bytes, Gid(9), EntryIndex(100), &row());
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_row(&bad, Gid(9), EntryIndex(100)), None, "row bit {bit}");
        }
        let whole = header().encode();
        for bit in 0..whole.len() * 8 {
            let mut bad = whole.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(EntHeader::decode(&bad), None, "header bit {bit}");
        }
        let mut ext = Vec::new();
        encode_ext(&mut ext, EntryIndex(101), b"context");
        for bit in 0..ext.len() * 8 {
            let mut bad = ext.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_ext(EntryIndex(101), &bad), None, "ext bit {bit}");
        }
    }
}
