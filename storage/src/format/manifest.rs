//! Pure. The manifest of one replica, payload of slot kind 3. Page: `docs/formats/manifest.md`.
//!
//! ```text
//!   0 gid u64   8 topic_id[16]   24 partition u32   28 incarnation u32   32 log_start_offset u64   40 first_index u64
//!  48 prev_term u32   52 mode u8   53 state u8   54 zero u16   56 compact_gen u32   60 n_epochs u32   64 n_segments u32
//!  68 n_tiered u32   72 n_damage u32   76 conf_len u32   80 conf_index u64   88 tiered_end u64   96 local_start u64
//! 104 deletes_gone u64   112 zero[16]   128 epochs 24 B each, segments 48 B, tiered 64 B, damage 24 B, conf bytes
//! ```

use super::{Le, Put, sane};
use crate::entry::EpochStart;
use catchwater_record::crc::crc32c_of;
use catchwater_record::{EntryIndex, Offset, TopicId};

pub const FIXED_BYTES: usize = 128;
const EPOCH_BYTES: usize = 24;
const SEGMENT_BYTES: usize = 48;
const TIERED_BYTES: usize = 64;
const DAMAGE_BYTES: usize = 24;
/// The largest `mode` and `state` that the page lists.
const MODE_MAX: u8 = 1;
const STATE_MAX: u8 = 3;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Manifest {
    pub gid: u64,
    pub topic: TopicId,
    pub partition: u32,
    pub incarnation: u32,
    pub log_start: Offset,
    pub first_index: EntryIndex,
    /// Term of `first_index - 1`.
    pub prev_term: u32,
    /// 0 fsync, 1 relaxed.
    pub mode: u8,
    /// 0 ok, 1 suspect, 2 damaged, 3 offline.
    pub state: u8,
    pub compact_gen: u32,
    pub conf_index: EntryIndex,
    pub tiered_end: Offset,
    pub local_start: Offset,
    /// A delete below it may have left the log by compaction.
    pub deletes_gone: Offset,
    pub epochs: Vec<EpochStart>,
    pub segments: Vec<ManifestSegment>,
    /// Rows of 64 bytes, kept as they are until tiering exists.
    pub tiered: Vec<[u8; TIERED_BYTES]>,
    pub damage: Vec<DamageRange>,
    pub conf: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum SegmentState {
    Active = 0,
    Sealed = 1,
    Compacted = 2,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ManifestSegment {
    pub base_index: EntryIndex,
    pub base_offset: Offset,
    pub generation: u32,
    pub state: SegmentState,
    /// [`lengths_check`] of a sealed segment's files; 0 = not known, as in manifests of before.
    pub lengths: u32,
    pub rows: u32,
    pub last_term: u32,
    pub sealed_at_ms: i64,
    pub max_ts: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DamageRange {
    pub base_index: EntryIndex,
    pub from: EntryIndex,
    pub to: EntryIndex,
}

/// 24 bits, never 0, that tell whether `.log` and `.ext` of a sealed segment are as long as they were: its footer goes with its
/// table, and a batch that is cut off looks like one that was compacted away.
pub fn lengths_check(log_len: u32, ext_len: u32) -> u32 {
    (crc32c_of(&[&log_len.to_le_bytes(), &ext_len.to_le_bytes()]) >> 8).max(1)
}

impl Manifest {
    pub fn encode(&self) -> Vec<u8> {
        let mut out =
            Put::with_capacity(FIXED_BYTES + self.segments.len() * SEGMENT_BYTES + self.epochs.len() * EPOCH_BYTES);
        out.u64(self.gid).bytes(&self.topic.0).u32(self.partition).u32(self.incarnation);
        out.u64(self.log_start.0).u64(self.first_index.0).u32(self.prev_term).u8(self.mode).u8(self.state).u16(0);
        out.u32(self.compact_gen).u32(self.epochs.len() as u32).u32(self.segments.len() as u32);
        out.u32(self.tiered.len() as u32).u32(self.damage.len() as u32).u32(self.conf.len() as u32);
        out.u64(self.conf_index.0).u64(self.tiered_end.0).u64(self.local_start.0).u64(self.deletes_gone.0).zeros(16);
        debug_assert_eq!(out.0.len(), FIXED_BYTES);
        for e in &self.epochs {
            out.u32(e.term).u32(0).u64(e.index.0).u64(e.offset.0);
        }
        for s in &self.segments {
            out.u64(s.base_index.0).u64(s.base_offset.0).u32(s.generation);
            out.u32(s.state as u32 | s.lengths << 8);
            out.u32(s.rows).u32(s.last_term).i64(s.sealed_at_ms).i64(s.max_ts);
        }
        for t in &self.tiered {
            out.bytes(t);
        }
        for d in &self.damage {
            out.u64(d.base_index.0).u64(d.from.0).u64(d.to.0);
        }
        out.bytes(&self.conf);
        out.0
    }

    /// `None` if the counts do not fit the length or a value is out of its range.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < FIXED_BYTES {
            return None;
        }
        let le = Le(bytes);
        let (n_epochs, n_segments) = (le.u32(60) as usize, le.u32(64) as usize);
        let (n_tiered, n_damage, conf_len) = (le.u32(68) as usize, le.u32(72) as usize, le.u32(76) as usize);
        // Bounded before anything is allocated: each count by the bytes that are there.
        let need = n_epochs
            .checked_mul(EPOCH_BYTES)?
            .checked_add(n_segments.checked_mul(SEGMENT_BYTES)?)?
            .checked_add(n_tiered.checked_mul(TIERED_BYTES)?)?
            .checked_add(n_damage.checked_mul(DAMAGE_BYTES)?)?
            .checked_add(conf_len)?
            .checked_add(FIXED_BYTES)?;
        if need != bytes.len() {
            return None;
        }
        if !sane([32, 40, 80, 88, 96, 104].map(|at| le.u64(at))) || le.u8(52) > MODE_MAX || le.u8(53) > STATE_MAX {
            return None;
        }
        let mut at = FIXED_BYTES;
        let mut epochs = Vec::with_capacity(n_epochs);
        for _ in 0..n_epochs {
            epochs.push(EpochStart {
                term: le.u32(at),
                index: EntryIndex(le.u64(at + 8)),
                offset: Offset(le.u64(at + 16)),
            });
            at += EPOCH_BYTES;
        }
        let mut segments = Vec::with_capacity(n_segments);
        for _ in 0..n_segments {
            let state = match le.u8(at + 20) {
                0 => SegmentState::Active,
                1 => SegmentState::Sealed,
                2 => SegmentState::Compacted,
                _ => return None,
            };
            segments.push(ManifestSegment {
                base_index: EntryIndex(le.u64(at)),
                base_offset: Offset(le.u64(at + 8)),
                generation: le.u32(at + 16),
                state,
                lengths: le.u32(at + 20) >> 8,
                rows: le.u32(at + 24),
                last_term: le.u32(at + 28),
                sealed_at_ms: le.i64(at + 32),
                max_ts: le.i64(at + 40),
            });
            at += SEGMENT_BYTES;
        }
        let mut tiered = Vec::with_capacity(n_tiered);
        for _ in 0..n_tiered {
            let mut row = [0; TIERED_BYTES];
            row.copy_from_slice(&bytes[at..at + TIERED_BYTES]);
            tiered.push(row);
            at += TIERED_BYTES;
        }
        let mut damage = Vec::with_capacity(n_damage);
        for _ in 0..n_damage {
            damage.push(DamageRange {
                base_index: EntryIndex(le.u64(at)),
                from: EntryIndex(le.u64(at + 8)),
                to: EntryIndex(le.u64(at + 16)),
            });
            at += DAMAGE_BYTES;
        }
        let numbers = epochs.iter().flat_map(|e: &EpochStart| [e.index.0, e.offset.0]);
        if !sane(numbers.chain(segments.iter().flat_map(|s: &ManifestSegment| [s.base_index.0, s.base_offset.0]))) {
            return None;
        }
        Some(Manifest {
            gid: le.u64(0),
            topic: TopicId(le.b16(8)),
            partition: le.u32(24),
            incarnation: le.u32(28),
            log_start: Offset(le.u64(32)),
            first_index: EntryIndex(le.u64(40)),
            prev_term: le.u32(48),
            mode: le.u8(52),
            state: le.u8(53),
            compact_gen: le.u32(56),
            conf_index: EntryIndex(le.u64(80)),
            tiered_end: Offset(le.u64(88)),
            local_start: Offset(le.u64(96)),
            deletes_gone: Offset(le.u64(104)),
            epochs,
            segments,
            tiered,
            damage,
            conf: bytes[at..].to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::assert_golden;
    use super::super::slot::{self, SlotKind};
    use super::*;

    fn sample() -> Manifest {
        Manifest {
            gid: 0x0102,
            topic: TopicId([0x70; 16]),
            partition: 3,
            incarnation: 1,
            log_start: Offset(10),
            first_index: EntryIndex(4),
            prev_term: 2,
            compact_gen: 0,
            epochs: vec![EpochStart { term: 2, index: EntryIndex(1), offset: Offset(0) }],
            segments: vec![ManifestSegment {
                base_index: EntryIndex(4),
                base_offset: Offset(10),
                generation: 0,
                state: SegmentState::Sealed,
                lengths: 0,
                rows: 6,
                last_term: 2,
                sealed_at_ms: 1_700_000_000_000,
                max_ts: 1_600_000_000_000,
            }],
            damage: vec![DamageRange { base_index: EntryIndex(4), from: EntryIndex(5), to: EntryIndex(5) }],
            conf: vec![1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0],
            conf_index: EntryIndex(1),
            ..Manifest::default()
        }
    }

    #[test]
    fn golden_bytes() {
        let bytes = slot::encode(SlotKind::Manifest, 3, &sample().encode());
        assert_golden("manifest.md", "manifest", &bytes);
        assert_eq!(Manifest::decode(&sample().encode()), Some(sample()));
    }

    #[test]
    fn what_the_lengths_come_to_takes_the_spare_bytes() {
        let mut with = sample();
        with.segments[0].lengths = 0x00a1_b2c3;
        let bytes = with.encode();
        assert_eq!(bytes[FIXED_BYTES + EPOCH_BYTES + 20..][..4], [1, 0xc3, 0xb2, 0xa1]);
        assert_eq!(Manifest::decode(&bytes), Some(with));
        assert_eq!(lengths_check(0x0102_0304, 5), 0x0050_ca11);
        assert!((0..1000).all(|n| lengths_check(n, 0) != 0 && lengths_check(n, 0) != lengths_check(n + 1, 0)));
    }

    #[test]
    fn values_outside_their_lists_are_refused() {
        let bytes = sample().encode();
        for (at, most) in [(52, 1), (53, 3), (FIXED_BYTES + EPOCH_BYTES + 20, 2)] {
            for value in 0..=u8::MAX {
                let mut bytes = bytes.clone();
                bytes[at] = value;
                assert_eq!(Manifest::decode(&bytes).is_some(), value <= most, "byte {at} = {value}");
            }
        }
    }

    #[test]
    fn hostile_counts_are_refused_before_they_allocate() {
        for at in [60, 64, 68, 72, 76] {
            let mut bytes = sample().encode();
            super::super::set_u32(&mut bytes, at, u32::MAX);
            assert_eq!(Manifest::decode(&bytes), None);
        }
    }
}
