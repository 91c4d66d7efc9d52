//! Pure. `.snap`: producer and capture state at one index. Page: `docs/formats/snap.md`.
//!
//! ```text
//!  0 magic "CWS1"   4 version u16   6 flags u16   8 gid u64   16 index u64   24 next_offset u64   32 len u32
//! 36 crc u32 (bytes 0..36 + payload)   40 payload: sections  type u16 | zero u16 | len u32 | bytes
//! ```
//! The sections' content is the log's own (`producer.rs`, `capture_pos.rs`); this file wraps and checks it.

use super::{Le, Put, set_u32};
use bytes::Bytes;
use catchwater_record::crc::crc32c_of;
use catchwater_record::{EntryIndex, Gid, Offset};

pub const MAGIC: &[u8; 4] = b"CWS1";
pub const HEADER_BYTES: usize = 40;
pub const VERSION: u16 = 1;
/// `index u64 | conf state`: the members that the entries up to `index` make.
pub const SECTION_CONF: u16 = 5;
/// Longest payload a reader accepts, bytes.
pub const PAYLOAD_BYTES_MAX: usize = 256 << 20;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snap {
    pub gid: Gid,
    /// The state holds everything up to and with this entry.
    pub index: EntryIndex,
    pub next_offset: Offset,
    /// It came from a leader and may stand beyond the end of the log (flag 0).
    pub ahead: bool,
    pub payload: Bytes,
}

impl Snap {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Put::with_capacity(HEADER_BYTES + self.payload.len());
        out.bytes(MAGIC)
            .u16(VERSION)
            .u16(u16::from(self.ahead))
            .u64(self.gid.0)
            .u64(self.index.0)
            .u64(self.next_offset.0);
        out.u32(self.payload.len() as u32).u32(0).bytes(&self.payload);
        let crc = crc32c_of(&[&out.0[..36], &out.0[HEADER_BYTES..]]);
        set_u32(&mut out.0, 36, crc);
        out.0
    }

    pub fn decode(bytes: &Bytes) -> Option<Self> {
        if bytes.len() < HEADER_BYTES || &bytes[0..4] != MAGIC {
            return None;
        }
        let le = Le(bytes);
        let len = le.u32(32) as usize;
        if le.u16(4) != VERSION || len > PAYLOAD_BYTES_MAX || bytes.len() != HEADER_BYTES + len {
            return None;
        }
        if crc32c_of(&[&bytes[..36], &bytes[HEADER_BYTES..]]) != le.u32(36) {
            return None;
        }
        Some(Snap {
            gid: Gid(le.u64(8)),
            index: EntryIndex(le.u64(16)),
            next_offset: Offset(le.u64(24)),
            ahead: le.u16(6) & 1 != 0,
            payload: bytes.slice(HEADER_BYTES..),
        })
    }
}

/// Type of the section with aborted transactions, rows as in `.txn`.
pub const SECTION_ABORTED: u16 = 4;

/// One section: `type u16 | zero u16 | len u32 | bytes`.
pub fn put_section(out: &mut Vec<u8>, kind: u16, bytes: &[u8]) {
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// The sections of a payload, in order; `None` if they do not add up to its length.
pub fn sections(payload: &Bytes) -> Option<Vec<(u16, Bytes)>> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < payload.len() {
        if payload.len() - at < 8 {
            return None;
        }
        let le = Le(&payload[at..]);
        let (kind, len) = (le.u16(0), le.u32(4) as usize);
        let end = (at + 8).checked_add(len).filter(|end| *end <= payload.len())?;
        out.push((kind, payload.slice(at + 8..end)));
        at = end;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::assert_golden;
    use super::*;

    fn sample() -> Snap {
        let mut payload = Vec::new();
        put_section(&mut payload, 1, &[0; 8]);
        put_section(&mut payload, 99, b"unknown");
        Snap { gid: Gid(5), index: EntryIndex(77), next_offset: Offset(1000), ahead: false, payload: payload.into() }
    }

    #[test]
    fn golden_bytes() {
        let bytes = Bytes::from(sample().encode());
        assert_golden("snap.md", "snap", &bytes);
        assert_eq!(Snap::decode(&bytes), Some(sample()));
        let parts = sections(&sample().payload).unwrap();
        assert_eq!(parts.iter().map(|(kind, bytes)| (*kind, bytes.len())).collect::<Vec<_>>(), [(1, 8), (99, 7)]);
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let whole = sample().encode();
        for bit in 0..whole.len() * 8 {
            let mut bad = whole.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Snap::decode(&Bytes::from(bad)), None, "bit {bit}");
        }
    }

    #[test]
    fn sections_that_do_not_add_up_are_refused() {
        let mut payload = Vec::new();
        put_section(&mut payload, 1, b"abc");
        payload[4] = 200;
        assert_eq!(sections(&Bytes::from(payload)), None);
    }
}
