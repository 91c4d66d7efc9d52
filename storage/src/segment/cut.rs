//! Pure. Cutting an uncommitted tail: rows say where the bytes end, then the files are shortened, rows first.

use super::keep::manifest_of;
use super::{CutTo, Job, Segment, SegmentEffect, SegmentPoint, Segments, Then, group_dir};
use crate::disk::{DiskError, DiskFault, DiskOp};
use crate::format::row;
use crate::format::slot::{self, SlotKind};
use crate::journal::Persisted;
use bytes::Bytes;
use catchwater_base::{Effects, mutant};
use catchwater_record::{EntryIndex, Gid};
use std::collections::VecDeque;

impl Segments {
    pub(super) fn cut_job(&mut self, gid: Gid, from: EntryIndex) -> Option<Job> {
        let group = self.groups.get(&gid)?;
        let sealed = group.segments.iter().rev().find(|s| !s.is_open()).map(Segment::last_index);
        assert!(sealed.is_none_or(|end| from > end), "a cut never reaches a sealed segment");
        let inside = group.segments.iter().rev().find(|s| s.base_index < from && from <= s.last_index());
        let Some(segment) = inside else {
            return Some(self.cut_files_job(gid, from, None));
        };
        // The row before the cut tells the running maximum, the row at the cut where the bytes end.
        let at = row::HEADER_BYTES as u64 + (from.0 - 1 - segment.base_index.0) * row::ROW_BYTES as u64;
        let op = DiskOp::Read { path: self.file(gid, segment, "ent"), at, len: 2 * row::ROW_BYTES };
        Some(Job {
            current: None,
            steps: VecDeque::from([(op, SegmentPoint::Read)]),
            reads: VecDeque::new(),
            then: Then::CutRead { from, base: segment.base_index },
        })
    }

    pub(super) fn cut_files_job(&mut self, gid: Gid, from: EntryIndex, left: Option<(EntryIndex, CutTo)>) -> Job {
        let mut steps = VecDeque::new();
        if self.groups[&gid].relaxed && self.groups[&gid].made {
            // No journal says that the rows are void: the manifest must claim no more of them before they go.
            let group = &self.groups[&gid];
            let mut manifest = manifest_of(gid, group, group.synced.min(from.prev()));
            manifest.segments.retain(|s| s.base_index < from);
            manifest.epochs.retain(|e| e.index < from);
            if let (Some(last), Some((_, to))) = (manifest.segments.last_mut(), left) {
                (last.rows, last.last_term, last.max_ts) = (last.rows.min(to.rows), to.last_term, to.max_ts);
            }
            let bytes = slot::encode(SlotKind::Manifest, group.manifest_gen + 1, &manifest.encode());
            self.manifest_steps(gid, bytes, &mut steps);
            let path = group_dir(&self.config.dir, gid).into();
            steps.push_back((DiskOp::SyncDir { path }, SegmentPoint::TruncSync));
        }
        let group = &self.groups[&gid];
        for index in group.snaps.iter().filter(|i| **i >= from) {
            let path = self.path(gid, &format!("{:020}.snap", index.0));
            steps.push_back((DiskOp::Unlink { path }, SegmentPoint::TruncFile));
        }
        for segment in group.segments.iter().filter(|s| s.base_index >= from) {
            for ext in ["ent", "ext", "log", "txn"] {
                steps.push_back((DiskOp::Unlink { path: self.file(gid, segment, ext) }, SegmentPoint::TruncFile));
            }
        }
        if let Some((base, to)) = left
            && let Some(segment) = group.segments.iter().find(|s| s.base_index == base)
        {
            let ent_len = (row::HEADER_BYTES + to.rows as usize * row::ROW_BYTES) as u64;
            let cuts = [("ent", ent_len), ("log", u64::from(to.log_len)), ("ext", u64::from(to.ext_len))];
            for (ext, len) in cuts.into_iter().filter(|(ext, _)| *ext != "ext" || segment.has_ext) {
                let point = if ext == "ent" { SegmentPoint::TruncRows } else { SegmentPoint::TruncFile };
                let path = self.file(gid, segment, ext);
                steps.push_back((DiskOp::Truncate { path: path.clone(), len }, point));
                if group.relaxed && !mutant!("relaxed_truncation_unsynced") {
                    steps.push_back((DiskOp::Fdatasync { path }, SegmentPoint::TruncSync));
                }
            }
        }
        if group.relaxed && group.made {
            steps.push_back((
                DiskOp::SyncDir { path: group_dir(&self.config.dir, gid).into() },
                SegmentPoint::TruncSync,
            ));
        }
        Job { current: None, steps, reads: VecDeque::new(), then: Then::Cut { from, left: left.map(|(_, to)| to) } }
    }

    pub(super) fn cut_read(
        &mut self,
        gid: Gid,
        from: EntryIndex,
        base: EntryIndex,
        read: Option<Bytes>,
        out: &mut Effects<SegmentEffect>,
    ) -> Option<Job> {
        let bytes = read.unwrap_or_default();
        let before = row::decode_row(&bytes, gid, base);
        let at = bytes.get(row::ROW_BYTES..).and_then(|rest| row::decode_row(rest, gid, base));
        let (Some(before), Some(at)) = (before, at) else {
            // Rows that this process (or recovery) has checked cannot be read any more: the disk lies.
            let path = group_dir(&self.config.dir, gid).into();
            out.push(SegmentEffect::Unreadable(gid, DiskError { op: "read rows of", path, kind: DiskFault::Io }));
            return self.cut_blind(gid, from, base);
        };
        let left = CutTo {
            rows: u32::try_from(from.0 - base.0).unwrap_or(u32::MAX),
            log_len: at.pos,
            ext_len: at.ext_pos,
            max_ts: before.max_ts,
            last_term: before.term.0,
            next_offset: at.base_offset,
        };
        Some(self.cut_files_job(gid, from, Some((base, left))))
    }

    /// The cut at the front of the queue is not to be made.
    pub(super) fn cut_is_void(&mut self, gid: Gid) {
        let Some(group) = self.groups.get_mut(&gid) else { return };
        let cuts = group.queue.front_mut().map_or(0, Persisted::take_cut);
        group.cuts_coming = group.cuts_coming.saturating_sub(cuts);
        if group.relaxed {
            self.cuts_done.push(gid);
        }
    }

    pub(super) fn cut_done(&mut self, gid: Gid, from: EntryIndex, left: Option<CutTo>) {
        let Some(group) = self.groups.get_mut(&gid) else { return };
        group.segments.retain(|s| s.base_index < from);
        group.snaps.retain(|i| *i < from);
        group.snap.take_if(|(i, _, _)| *i >= from);
        group.epochs.retain(|e| e.index < from);
        group.unreadable.take_if(|base| *base >= from);
        group.synced = group.synced.min(from.prev());
        (group.names_dirty, group.manifest_dirty) = (true, true);
        if let (Some(to), Some(last)) = (left, group.segments.back_mut()) {
            last.rows = to.rows;
            last.log_len = to.log_len;
            last.ext_len = to.ext_len;
            last.max_ts = to.max_ts;
            last.last_term = to.last_term;
            last.next_offset = to.next_offset;
            // That of the rows that stay is not known.
            last.min_ts = if last.has_record() { -1 } else { i64::MAX };
            last.first_ts = last.first_ts.filter(|_| last.has_record());
            last.dirty = true;
            last.sums = None;
        }
        let cuts = group.queue.front_mut().map_or(0, Persisted::take_cut);
        group.cuts_coming = group.cuts_coming.saturating_sub(cuts);
        if group.relaxed {
            self.cuts_done.push(gid);
        }
    }
}
