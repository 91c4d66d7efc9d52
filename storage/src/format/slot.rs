//! Pure. Slot files: a ping-pong pair `<name>.a`, `<name>.b`; the newest valid one wins. Page: `docs/formats/manifest.md`.
//!
//! ```text
//!  0 magic "CWP1"   4 crc u32 (bytes 8..end)   8 generation u64   16 kind u16   18 version u16   20 len u32
//! 24 reserved u64 = 0   32 payload
//! ```
//! A new generation goes into the file with the lower valid generation, then fdatasync: a torn write destroys only the
//! older one. An unreadable slot (EIO) is not an invalid one: it might be the newer.

use super::{Le, Put, sane, set_u32};
use catchwater_record::crc::crc32c;

pub const MAGIC: &[u8; 4] = b"CWP1";
pub const HEADER_BYTES: usize = 32;
/// Longest payload a reader accepts, bytes.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;
pub const VERSION: u16 = 1;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum SlotKind {
    DirMeta = 1,
    BootState = 2,
    Manifest = 3,
}

/// A valid slot's content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slot {
    pub generation: u64,
    pub payload: Vec<u8>,
}

pub fn encode(kind: SlotKind, generation: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Put::with_capacity(HEADER_BYTES + payload.len());
    out.bytes(MAGIC)
        .u32(0)
        .u64(generation)
        .u16(kind as u16)
        .u16(VERSION)
        .u32(payload.len() as u32)
        .u64(0)
        .bytes(payload);
    let crc = crc32c(&out.0[8..]);
    set_u32(&mut out.0, 4, crc);
    out.0
}

/// `None` if the bytes are not a whole, undamaged slot of this kind. Bytes behind the payload are ignored: a shorter
/// generation may have overwritten a longer one.
pub fn decode(kind: SlotKind, bytes: &[u8]) -> Option<Slot> {
    if bytes.len() < HEADER_BYTES || &bytes[0..4] != MAGIC {
        return None;
    }
    let le = Le(bytes);
    let len = le.u32(20) as usize;
    if len > PAYLOAD_BYTES_MAX || !sane([le.u64(8)]) || le.u16(16) != kind as u16 || le.u16(18) != VERSION {
        return None;
    }
    let end = HEADER_BYTES.checked_add(len).filter(|end| *end <= bytes.len())?;
    if crc32c(&bytes[8..end]) != le.u32(4) {
        return None;
    }
    Some(Slot { generation: le.u64(8), payload: bytes[HEADER_BYTES..end].to_vec() })
}

/// The version of a whole, undamaged slot that a later version of this program wrote.
pub fn later_version(bytes: &[u8]) -> Option<u16> {
    if bytes.len() < HEADER_BYTES || &bytes[0..4] != MAGIC {
        return None;
    }
    let le = Le(bytes);
    let end = HEADER_BYTES.checked_add(le.u32(20) as usize).filter(|end| *end <= bytes.len())?;
    (le.u16(18) > VERSION && crc32c(&bytes[8..end]) == le.u32(4)).then(|| le.u16(18))
}

/// Which file of the pair is newest, and which to write next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pair {
    pub newest: Option<Slot>,
    /// Suffix of the file that takes the next generation.
    pub write_to: Side,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    A,
    B,
}

impl Side {
    pub fn suffix(self) -> &'static str {
        match self {
            Side::A => "a",
            Side::B => "b",
        }
    }
    pub fn other(self) -> Side {
        match self {
            Side::A => Side::B,
            Side::B => Side::A,
        }
    }
}

pub fn newest(kind: SlotKind, a: Option<&[u8]>, b: Option<&[u8]>) -> Pair {
    let a = a.and_then(|bytes| decode(kind, bytes));
    let b = b.and_then(|bytes| decode(kind, bytes));
    match (a, b) {
        (None, None) => Pair { newest: None, write_to: Side::A },
        (Some(a), None) => Pair { newest: Some(a), write_to: Side::B },
        (None, Some(b)) => Pair { newest: Some(b), write_to: Side::A },
        (Some(a), Some(b)) if a.generation >= b.generation => Pair { newest: Some(a), write_to: Side::B },
        (Some(_), Some(b)) => Pair { newest: Some(b), write_to: Side::A },
    }
}

/// Payload of kind 1: who this directory is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirMeta {
    pub cluster_id: [u8; 16],
    pub dir_id: [u8; 16],
    pub node: u32,
    pub state: DirState,
    pub format: u32,
}

/// The directory format this code writes.
pub const DIR_FORMAT: u32 = 1;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum DirState {
    Founding = 0,
    Joining = 1,
    Member = 2,
}

impl DirMeta {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Put::default();
        out.bytes(&self.cluster_id)
            .bytes(&self.dir_id)
            .u32(self.node)
            .u8(self.state as u8)
            .zeros(3)
            .u32(self.format)
            .u32(0);
        out.0
    }
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < 48 {
            return None;
        }
        let le = Le(bytes);
        let state = match le.u8(36) {
            0 => DirState::Founding,
            1 => DirState::Joining,
            2 => DirState::Member,
            _ => return None,
        };
        Some(DirMeta { cluster_id: le.b16(0), dir_id: le.b16(16), node: le.u32(32), state, format: le.u32(40) })
    }
}

/// Payload of kind 2: how this directory was left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BootState {
    pub boot_id: [u8; 16],
    /// 0 = unknown.
    pub mount_id: u64,
    pub last_lsn: u64,
    /// All entries in flushes up to here are durable in segments.
    pub checkpoint_lsn: u64,
    pub clean: bool,
}

impl BootState {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Put::default();
        out.bytes(&self.boot_id)
            .u64(self.mount_id)
            .u64(self.last_lsn)
            .u64(self.checkpoint_lsn)
            .u32(u32::from(self.clean))
            .u32(0);
        out.0
    }
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < 48 {
            return None;
        }
        let le = Le(bytes);
        if !sane([le.u64(24), le.u64(32)]) {
            return None;
        }
        Some(BootState {
            boot_id: le.b16(0),
            mount_id: le.u64(16),
            last_lsn: le.u64(24),
            checkpoint_lsn: le.u64(32),
            clean: le.u32(40) & 1 != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::assert_golden;
    use super::*;

    fn meta() -> DirMeta {
        DirMeta { cluster_id: [0xc1; 16], dir_id: [0xd1; 16], node: 7, state: DirState::Member, format: DIR_FORMAT }
    }

    #[test]
    fn golden_bytes_of_dir_meta_and_boot_state() {
        let bytes = encode(SlotKind::DirMeta, 1, &meta().encode());
        assert_golden("manifest.md", "dir.meta", &bytes);
        let boot = BootState { boot_id: [0xb0; 16], mount_id: 0x1122, last_lsn: 9, checkpoint_lsn: 8, clean: true };
        let bytes = encode(SlotKind::BootState, 2, &boot.encode());
        assert_golden("manifest.md", "boot.state", &bytes);
        assert_eq!(BootState::decode(&boot.encode()), Some(boot));
        assert_eq!(DirMeta::decode(&meta().encode()), Some(meta()));
    }

    #[test]
    fn the_newest_valid_slot_wins_and_the_other_is_written_next() {
        let old = encode(SlotKind::DirMeta, 4, b"old");
        let new = encode(SlotKind::DirMeta, 5, b"new");
        let pair = newest(SlotKind::DirMeta, Some(&old), Some(&new));
        assert_eq!((pair.newest.unwrap().payload, pair.write_to), (b"new".to_vec(), Side::A));
        let mut torn = new.clone();
        torn.truncate(33);
        let pair = newest(SlotKind::DirMeta, Some(&old), Some(&torn));
        assert_eq!((pair.newest.unwrap().payload, pair.write_to), (b"old".to_vec(), Side::B));
        assert_eq!(newest(SlotKind::DirMeta, None, Some(&torn)).newest, None);
    }

    #[test]
    fn every_flipped_bit_of_a_slot_is_seen() {
        let whole = encode(SlotKind::DirMeta, 4, &meta().encode());
        for bit in 0..whole.len() * 8 {
            let mut bad = whole.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(SlotKind::DirMeta, &bad), None, "bit {bit}");
        }
    }

    #[test]
    fn hostile_lengths_allocate_nothing() {
        let mut bytes = encode(SlotKind::Manifest, 1, b"");
        set_u32(&mut bytes, 20, u32::MAX);
        assert_eq!(decode(SlotKind::Manifest, &bytes), None);
    }
}
