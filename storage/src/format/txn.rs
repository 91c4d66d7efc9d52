//! Pure. One aborted transaction, 40 bytes: a row of `.txn`, and of section 4 of `.snap`. Pages: `docs/formats/{segment,snap}.md`.
//!
//! ```text
//!  0 crc u32 (bytes 4..40)   4 version u16   6 flags u16   8 producer_id i64   16 first_offset i64   24 last_offset i64
//! 32 last_stable_offset i64
//! ```

use super::{Le, Put, set_u32};
use catchwater_record::crc::crc32c;
use catchwater_record::{Offset, ProducerId};

pub const ROW_BYTES: usize = 40;
pub const VERSION: u16 = 1;

/// A transaction whose records a read_committed reader skips.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Aborted {
    pub producer: ProducerId,
    /// Of its first record.
    pub first: Offset,
    /// Of the marker that ended it.
    pub last: Offset,
    /// First offset of the oldest transaction that was open when it ended, else the one behind the marker.
    pub last_stable: Offset,
}

impl Aborted {
    pub fn encode(&self, out: &mut Vec<u8>) {
        let from = out.len();
        let mut put = Put(std::mem::take(out));
        put.u32(0).u16(VERSION).u16(0).i64(self.producer.0).i64(self.first.wire());
        put.i64(self.last.wire()).i64(self.last_stable.wire());
        *out = put.0;
        let crc = crc32c(&out[from + 4..]);
        set_u32(out, from, crc);
    }

    /// `None` if the row is short, damaged, of a later version, or its offsets are in no order.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..ROW_BYTES)?;
        let le = Le(bytes);
        let offset = |at| u64::try_from(le.i64(at)).ok().map(Offset);
        if crc32c(&bytes[4..]) != le.u32(0) || le.u16(4) != VERSION || le.i64(8) < 0 {
            return None;
        }
        let row = Aborted {
            producer: ProducerId(le.i64(8)),
            first: offset(16)?,
            last: offset(24)?,
            last_stable: offset(32)?,
        };
        (row.first < row.last).then_some(row)
    }

    /// All rows of a section or file; `None` if one is not whole.
    pub fn decode_all(bytes: &[u8]) -> Option<Vec<Self>> {
        if !bytes.len().is_multiple_of(ROW_BYTES) {
            return None;
        }
        bytes.chunks_exact(ROW_BYTES).map(Self::decode).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::assert_golden;
    use super::*;

    #[test]
    fn golden_bytes_and_every_flipped_bit() {
        let row = Aborted { producer: ProducerId(9), first: Offset(100), last: Offset(107), last_stable: Offset(108) };
        let mut bytes = Vec::new();
        row.encode(&mut bytes);
        assert_golden("snap.md", "txn row", &bytes);
        assert_eq!(Aborted::decode(&bytes), Some(row));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Aborted::decode(&bad), None, "bit {bit}");
        }
        bytes.push(0);
        assert_eq!(Aborted::decode_all(&bytes), None);
        let next =
            Aborted { producer: ProducerId(10), first: Offset(104), last: Offset(109), last_stable: Offset(102) };
        bytes.clear();
        [row, next].iter().for_each(|row| row.encode(&mut bytes));
        assert_golden("segment.md", "txn", &bytes);
        assert_eq!(Aborted::decode_all(&bytes), Some(vec![row, next]));
    }
}
