//! Pure. A log that begins anew behind a prefix snapshot, and the mark of a replica that lost something.
//!
//! ```text
//!  .snap written, synced ─▶ both manifests name no segment, durable ─▶ old files go
//! ```
//! Until the manifests are durable the journal has the snapshot (its SNAP frame), so a crash anywhere leads to the same log.

use super::{Job, SegmentPoint, Segments, Then, group_dir, piece_bytes};
use crate::disk::DiskOp;
use crate::entry::PrefixSnapshot;
use crate::format::snap::Snap;
use crate::journal::Persisted;
use crate::recover::SALVAGE_FILE;
use catchwater_record::{EntryIndex, Gid};
use std::collections::VecDeque;

impl Segments {
    pub(super) fn install_job(&mut self, gid: Gid) -> Option<Job> {
        let dir = group_dir(&self.config.dir, gid);
        let group = self.groups.get_mut(&gid)?;
        let piece = group.queue.front_mut()?;
        let snapshot = piece.snapshot.take()?;
        let cuts = piece.take_cut();
        group.cuts_coming = group.cuts_coming.saturating_sub(cuts);
        let state = Snap::decode(&snapshot.snap)?.index;
        let mut steps = VecDeque::new();
        if !group.made {
            steps.push_back((DiskOp::MkDir { path: dir.as_str().into() }, SegmentPoint::RollCreate));
        }
        let name = |i: EntryIndex| format!("{dir}/{:020}.snap", i.0);
        let mut gone: Vec<String> = group.stale.drain(..).map(|n| format!("{dir}/{n}")).collect();
        gone.extend(group.snaps.drain(..).filter(|i| *i != state).map(name));
        for s in group.segments.drain(..) {
            let stem = super::segment_stem(s.base_offset, s.generation);
            gone.extend(["log", "ext", "ent", "txn"].map(|ext| format!("{dir}/{stem}.{ext}")));
        }
        let path = name(state);
        gone.retain(|n| *n != path);
        steps.push_back((DiskOp::Unlink { path: path.as_str().into() }, SegmentPoint::SnapWrite));
        steps.push_back((DiskOp::CreateNew { path: path.as_str().into() }, SegmentPoint::SnapWrite));
        let bufs = vec![snapshot.snap.clone()];
        steps.push_back((DiskOp::Write { path: path.as_str().into(), at: 0, bufs }, SegmentPoint::SnapWrite));
        steps.push_back((DiskOp::Fdatasync { path: path.into() }, SegmentPoint::SnapSync));
        self.dirty_bytes -= std::mem::take(&mut group.dirty_bytes);
        group.first_index = snapshot.index.next();
        group.first_offset = snapshot.next_offset;
        group.prev_term = snapshot.term;
        group.log_start = snapshot.log_start.min(snapshot.next_offset);
        group.epochs.clone_from(&snapshot.epochs);
        group.committed = snapshot.index;
        group.synced = snapshot.index;
        (group.trim_wanted, group.snap, group.bytes_since_snap, group.unhinted) = (None, None, 0, 0);
        (group.names_dirty, group.made) = (true, true);
        if !group.name_durable {
            let path = self.config.dir.as_str().into();
            steps.push_back((DiskOp::SyncDir { path }, SegmentPoint::RollDirsync));
        }
        steps.extend(self.durable_manifest(gid));
        steps.extend(self.durable_manifest(gid));
        steps.extend(gone.into_iter().map(|n| (DiskOp::Unlink { path: n.into() }, SegmentPoint::TrimUnlink)));
        Some(Job { current: None, steps, reads: VecDeque::new(), then: Then::Install { snapshot, state } })
    }

    pub(super) fn installed(&mut self, gid: Gid, snapshot: &PrefixSnapshot, state: EntryIndex) {
        let Some(group) = self.groups.get_mut(&gid) else { return };
        (group.names_dirty, group.name_durable) = (true, true);
        debug_assert_eq!(group.first_index, snapshot.index.next(), "nothing moved meanwhile");
        group.snaps = vec![state];
        if let Some(front) = group.queue.front()
            && front.entries.is_empty()
            && !front.drop
        {
            group.applied_lsn = group.applied_lsn.max(front.lsn);
            let bytes = group.queue.pop_front().as_ref().map_or(0, piece_bytes);
            self.queued_bytes -= bytes;
        }
    }

    /// While its salvage file is there, recovery finds the group Suspect.
    pub(super) fn mute_job(&mut self, gid: Gid) -> Option<Job> {
        let dir = group_dir(&self.config.dir, gid);
        let group = self.groups.get_mut(&gid)?;
        let on = group.mute_wanted.take()?;
        let path = format!("{dir}/{SALVAGE_FILE}");
        let mut steps = VecDeque::new();
        if on {
            steps.push_back((DiskOp::MkDir { path: dir.as_str().into() }, SegmentPoint::RollCreate));
            steps.push_back((DiskOp::Unlink { path: path.as_str().into() }, SegmentPoint::RollCreate));
            steps.push_back((DiskOp::CreateNew { path: path.into() }, SegmentPoint::RollCreate));
            group.made = true;
        } else {
            steps.push_back((DiskOp::Unlink { path: path.into() }, SegmentPoint::TrimUnlink));
        }
        steps.push_back((DiskOp::SyncDir { path: dir.into() }, SegmentPoint::RollDirsync));
        if on && !group.name_durable {
            let path = self.config.dir.as_str().into();
            steps.push_back((DiskOp::SyncDir { path }, SegmentPoint::RollDirsync));
        }
        Some(Job { current: None, steps, reads: VecDeque::new(), then: Then::Mute })
    }
}

impl Persisted {
    /// Something for files is in it.
    pub(super) fn is_void(&self) -> bool {
        self.entries.is_empty() && self.truncate_from.is_none() && self.snapshot.is_none() && !self.drop
    }
}
