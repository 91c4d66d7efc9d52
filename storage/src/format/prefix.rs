//! Pure. A prefix snapshot as bytes: the body of the journal's SNAP frame and of the peer frame of that name.
//!
//! ```text
//!  0 meta_term u32   4 meta_index u64   12 next_offset u64   20 log_start u64   28 conf_len u32   32 n_epochs u32
//! 36 snap_len u32   40 zero u32   44 conf | epochs, 24 B as in the manifest | a whole `.snap`
//! ```
//! The index of the members stands in the `.snap` (section 5).

use super::snap::{SECTION_CONF, Snap, sections};
use super::{Le, Put, sane};
use crate::entry::{EpochStart, PrefixSnapshot};
use bytes::Bytes;
use catchwater_record::{EntryIndex, Offset};

const HEAD_BYTES: usize = 44;
const EPOCH_BYTES: usize = 24;

/// Bytes that [`encode`] gives.
pub fn encoded_len(s: &PrefixSnapshot) -> usize {
    HEAD_BYTES + s.conf.len() + EPOCH_BYTES * s.epochs.len() + s.snap.len()
}

/// Appends the bytes to `out`.
pub fn encode(s: &PrefixSnapshot, out: &mut Vec<u8>) {
    let mut put = Put::with_capacity(encoded_len(s));
    put.u32(s.term).u64(s.index.0).u64(s.next_offset.0).u64(s.log_start.0);
    put.u32(s.conf.len() as u32).u32(s.epochs.len() as u32).u32(s.snap.len() as u32).u32(0);
    put.bytes(&s.conf);
    for e in &s.epochs {
        put.u32(e.term).u32(0).u64(e.index.0).u64(e.offset.0);
    }
    put.bytes(&s.snap);
    out.extend_from_slice(&put.0);
}

/// `None` if the counts do not fit the bytes or a number is beyond what any log has.
pub fn decode(bytes: &Bytes) -> Option<PrefixSnapshot> {
    if bytes.len() < HEAD_BYTES {
        return None;
    }
    let le = Le(bytes);
    let (conf_len, n_epochs, snap_len) = (le.u32(28) as usize, le.u32(32) as usize, le.u32(36) as usize);
    let epochs_at = HEAD_BYTES.checked_add(conf_len)?;
    let snap_at = n_epochs.checked_mul(EPOCH_BYTES)?.checked_add(epochs_at)?;
    if snap_at.checked_add(snap_len)? != bytes.len() || !sane([le.u64(4), le.u64(12), le.u64(20)]) {
        return None;
    }
    let epoch =
        |at: usize| EpochStart { term: le.u32(at), index: EntryIndex(le.u64(at + 8)), offset: Offset(le.u64(at + 16)) };
    let epochs: Vec<EpochStart> = (0..n_epochs).map(|i| epoch(epochs_at + i * EPOCH_BYTES)).collect();
    let (index, term) = (EntryIndex(le.u64(4)), le.u32(0));
    let ascending = epochs.windows(2).all(|w| w[0].term < w[1].term && w[0].index <= w[1].index);
    if !ascending || epochs.last().is_some_and(|e| e.index > index || e.term > term) {
        return None;
    }
    let snap = bytes.slice(snap_at..);
    Some(PrefixSnapshot {
        index,
        term,
        next_offset: Offset(le.u64(12)),
        log_start: Offset(le.u64(20)),
        conf: bytes.slice(HEAD_BYTES..epochs_at),
        conf_index: conf_index(&snap)?,
        epochs,
        snap,
    })
}

/// 0 = the members are the first ones.
fn conf_index(snap: &Bytes) -> Option<EntryIndex> {
    let sections = sections(&Snap::decode(snap)?.payload)?;
    let Some((_, conf)) = sections.iter().find(|(kind, _)| *kind == SECTION_CONF) else { return Some(EntryIndex(0)) };
    let index = u64::from_le_bytes(conf.get(..8)?.try_into().ok()?);
    sane([index]).then_some(EntryIndex(index))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::snap::put_section;
    use super::*;
    use catchwater_record::Gid;

    #[test]
    fn what_is_written_is_read_and_nothing_shorter() {
        let epoch = |term, index, offset| EpochStart { term, index: EntryIndex(index), offset: Offset(offset) };
        let mut payload = Vec::new();
        put_section(&mut payload, SECTION_CONF, &[3, 0, 0, 0, 0, 0, 0, 0, 1]);
        let (index, next_offset) = (EntryIndex(50), Offset(95));
        let snap = Snap { gid: Gid(5), index, next_offset, ahead: true, payload: payload.into() };
        let s = PrefixSnapshot {
            index: EntryIndex(40),
            term: 7,
            next_offset: Offset(90),
            log_start: Offset(88),
            conf: Bytes::from_static(b"conf"),
            conf_index: EntryIndex(3),
            epochs: vec![epoch(2, 1, 0), epoch(7, 30, 60)],
            snap: snap.encode().into(),
        };
        let mut out = Vec::new();
        encode(&s, &mut out);
        assert_eq!(out.len(), encoded_len(&s));
        let bytes = Bytes::from(out);
        assert_eq!(decode(&bytes), Some(s));
        assert!((0..bytes.len()).all(|n| decode(&bytes.slice(..n)).is_none()));
        // More epochs than bytes.
        let mut many = bytes.to_vec();
        many[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode(&Bytes::from(many)), None);
    }
}
