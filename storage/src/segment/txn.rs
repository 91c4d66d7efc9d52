//! Pure. `.txn`: the aborted transactions whose markers lie in a segment, written when it is sealed; from then on snapshots
//! leave them out, so that they do not grow with every transaction that the log has seen.
//!
//! ```text
//!  seal of a segment with control batches ──WantSnap──> replica ──Snap: section ABORTED──> .txn, synced ──> footer, manifest
//! ```
//! Who knows what was aborted is the log, not this machine: it is asked for its state, and what that says of the segment is
//! kept. Without an answer the segment is sealed without a `.txn`, and snapshots go on telling of it.
//!
//! Invariant: a row is left out of a snapshot only if the `.txn` that has it is durable and in the manifest.

use super::{Segment, SegmentEffect, SegmentPoint, Segments};
use crate::disk::DiskOp;
use crate::format::snap::{SECTION_ABORTED, put_section, sections};
use crate::format::txn::{Aborted, ROW_BYTES};
use bytes::Bytes;
use catchwater_base::Effects;
use catchwater_record::{EntryIndex, Gid};

/// Times that the replica is asked for one segment.
const ASKS_MAX: u8 = 2;

/// What a group knows of aborted transactions, while a segment waits to be sealed.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Everything up to the entry.
    list: Option<(EntryIndex, Vec<Aborted>)>,
    asks: u8,
    /// An answer may be on its way.
    waits: bool,
}

impl Told {
    /// A snapshot came, whether it was asked for or not. True if a seal waited for it.
    pub(super) fn hear(&mut self, index: EntryIndex, payload: &Bytes) -> bool {
        if self.asks == 0 {
            return false;
        }
        if let Some(all) = sections(payload) {
            let mine = all.iter().find(|(kind, _)| *kind == SECTION_ABORTED);
            let list = mine.map_or(Some(Vec::new()), |(_, section)| Aborted::decode_all(section));
            self.list = list.map(|list| (index, list)).or(self.list.take());
        }
        std::mem::take(&mut self.waits)
    }

    /// The log has moved on: whoever was asked in vain is asked again.
    pub(super) fn look_again(&mut self) -> bool {
        std::mem::take(&mut self.waits)
    }
}

impl Segments {
    /// The segment's rows, once they are known; `None` = the seal waits.
    pub(super) fn txn_rows(&mut self, gid: Gid, at: usize, out: &mut Effects<SegmentEffect>) -> Option<Vec<u8>> {
        let group = self.groups.get_mut(&gid)?;
        let (told, segment) = (&mut group.told, group.segments.get(at)?);
        if !segment.control {
            return Some(Vec::new());
        }
        match &told.list {
            Some((index, list)) if *index >= segment.last_index() => {
                let mut rows = Vec::new();
                let inside = list.iter().filter(|a| segment.base_offset <= a.last && a.last < segment.next_offset);
                inside.for_each(|a| a.encode(&mut rows));
                Some(rows)
            }
            _ if told.waits => None,
            _ if told.asks < ASKS_MAX => {
                (told.asks, told.waits) = (told.asks + 1, true);
                out.push(SegmentEffect::WantSnap(gid));
                None
            }
            _ => Some(Vec::new()),
        }
    }

    /// Steps that write the file, names not synced.
    pub(super) fn txn_steps(&self, gid: Gid, segment: &Segment, rows: Vec<u8>) -> Vec<(DiskOp, SegmentPoint)> {
        debug_assert!(rows.len().is_multiple_of(ROW_BYTES));
        let path = self.file(gid, segment, "txn");
        // One that was begun and given up may be there.
        let ops = [
            DiskOp::Unlink { path: path.clone() },
            DiskOp::CreateNew { path: path.clone() },
            DiskOp::Write { path: path.clone(), at: 0, bufs: vec![Bytes::from(rows)] },
            DiskOp::Fdatasync { path },
        ];
        ops.map(|op| (op, SegmentPoint::SealTxn)).into()
    }

    /// A snapshot's payload without what `.txn` files say.
    pub(super) fn without_sealed(&self, gid: Gid, payload: &Bytes) -> Bytes {
        let Some(group) = self.groups.get(&gid) else { return payload.clone() };
        let files: Vec<&Segment> = group.segments.iter().filter(|s| !s.is_open() && s.txn_len > 0).collect();
        let Some(all) = sections(payload).filter(|_| !files.is_empty()) else { return payload.clone() };
        let mut out = Vec::with_capacity(payload.len());
        for (kind, section) in all {
            if kind != SECTION_ABORTED {
                put_section(&mut out, kind, &section);
                continue;
            }
            let Some(list) = Aborted::decode_all(&section) else { return payload.clone() };
            let filed = |a: &Aborted| files.iter().any(|s| s.base_offset <= a.last && a.last < s.next_offset);
            let mut rows = Vec::new();
            list.iter().filter(|a| !filed(a)).for_each(|a| a.encode(&mut rows));
            if !rows.is_empty() {
                put_section(&mut out, kind, &rows);
            }
        }
        out.into()
    }
}
