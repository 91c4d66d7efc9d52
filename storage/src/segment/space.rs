//! Pure. The disk is full: the group stands where it is, and goes on when there is room.
//!
//! What could not be written is journaled and pinned in memory, so nothing is lost and nothing need be told: the journal
//! fills, producers are held back, readers go on. Only operations that may simply run again wait
//! ([`crate::disk::DiskOp::may_wait_for_space`]); a sync that finds no room has lost bytes and stops the directory.
//! ```text
//!  append, cut, removal ──no room──> stalled ──SpaceBack──> the same step again
//!  seal, sync, snapshot ──no room──> given up, as if never begun ──SpaceBack──> planned anew
//!                            └── beside either: removal of old segments, and of the whole group
//! ```
//! An append's segment is named by no manifest before the job is done, so a trim beside it writes the manifest it would
//! have written before. A seal, a sync or a snapshot that were kept would bring a manifest from before the trim, or write
//! into files that are gone: so they are not kept. Room is made by retention whatever waits: a segment for whose seal
//! there is no room goes unsealed.

use super::{Group, Job, Segments, Then, group_dir, piece_bytes, side_index};
use crate::disk::{DiskError, DiskFault, DiskOp};
use crate::format::manifest::SegmentState;
use crate::format::slot::Side;
use catchwater_record::{EntryIndex, Gid};
use std::collections::VecDeque;

type Steps = VecDeque<(DiskOp, super::SegmentPoint)>;

/// The manifest that an operation makes or writes: its side, and whether it is written.
fn manifest(op: &DiskOp) -> Option<(Side, bool)> {
    let (path, written) = match op {
        DiskOp::Write { path, .. } => (path, true),
        DiskOp::CreateNew { path } => (path, false),
        _ => return None,
    };
    let side = [Side::A, Side::B].into_iter().find(|side| path.ends_with(&format!("/manifest.{}", side.suffix())))?;
    Some((side, written))
}

/// Takes back what planning these steps, which were not run, has said of manifests and of tails that are cut.
fn unplan<'a>(
    group: &mut Group,
    steps: impl DoubleEndedIterator<Item = &'a DiskOp>,
    stem: impl Fn(&super::Segment) -> String,
) {
    for op in steps.rev() {
        match (manifest(op), op) {
            (Some((side, true)), _) => {
                group.manifest_gen -= 1;
                group.manifest_side = side;
                group.manifest_dirty = true;
            }
            (Some((side, false)), _) => group.manifest_exists[side_index(side)] = false,
            (None, DiskOp::Truncate { path, .. }) => {
                for segment in &mut group.segments {
                    segment.cut |= segment.is_open() && path.starts_with(&stem(segment));
                }
            }
            _ => {}
        }
    }
}

impl Segments {
    /// True if the group's operation in flight found no room and waits now.
    pub(super) fn stall(&mut self, gid: Gid, error: &DiskError) -> bool {
        if error.kind != DiskFault::NoSpace || self.stopped {
            return false;
        }
        let Some(group) = self.groups.get_mut(&gid) else { return false };
        let Some(mut job) = group.job.take() else { return false };
        match job.current.take() {
            Some(step) => {
                job.steps.push_front(step);
                if let Some(job) = self.give_up(gid, job)
                    && let Some(group) = self.groups.get_mut(&gid)
                {
                    group.stalled.push(job);
                }
                if let Some(group) = self.groups.get_mut(&gid) {
                    group.resume = false;
                }
                self.enlist(gid);
                true
            }
            None => {
                group.job = Some(job);
                false
            }
        }
    }

    /// Puts the group back to where it was before the job was planned; gives back one that must go on where it stands.
    fn give_up(&mut self, gid: Gid, job: Job) -> Option<Job> {
        if !matches!(job.then, Then::Seal { .. } | Then::Sync { .. } | Then::Snap { .. }) {
            return Some(job);
        }
        self.take_back(gid, &job.steps);
        let group = self.groups.get_mut(&gid)?;
        // Syncs of names may be among what is not run.
        group.names_dirty |= group.made;
        group.waits = true;
        match job.then {
            Then::Seal { base } => {
                if let Some(segment) = group.segments.iter_mut().find(|s| s.base_index == base) {
                    // A part of the footer may be there.
                    (segment.state, segment.sealed_at_ms, segment.cut) = (SegmentState::Active, 0, true);
                    segment.txn_len = 0;
                }
            }
            Then::Sync { flush, .. } => {
                group.sync_now = true;
                group.flush_wanted |= flush;
            }
            Then::Snap { index, next_offset, payload } => {
                group.snap_begun = true;
                group.snap.get_or_insert((index, next_offset, payload));
            }
            _ => {}
        }
        None
    }

    fn take_back(&mut self, gid: Gid, steps: &Steps) {
        let dir = group_dir(&self.config.dir, gid);
        let stem = |s: &super::Segment| format!("{dir}/{}.", super::segment_stem(s.base_offset, s.generation));
        if let Some(group) = self.groups.get_mut(&gid) {
            unplan(group, steps.iter().map(|(op, _)| op), stem);
        }
    }

    /// A sweep found no room: as if it had not begun. Its groups are made durable one by one when there is some.
    pub(super) fn give_up_sweep(&mut self, groups: Vec<(Gid, u64, EntryIndex)>, steps: Steps) {
        let mut of: std::collections::BTreeMap<String, Steps> = std::collections::BTreeMap::new();
        for step in steps {
            if let Some((dir, _)) = step.0.path().rsplit_once('/') {
                of.entry(dir.to_owned()).or_default().push_back(step);
            }
        }
        for (gid, ..) in groups {
            if let Some(steps) = of.remove(&group_dir(&self.config.dir, gid)) {
                self.take_back(gid, &steps);
            }
            if let Some(group) = self.groups.get_mut(&gid) {
                (group.held, group.sync_now, group.waits, group.resume) = (false, true, true, false);
                // What was written may not be durable.
                (group.names_dirty, group.manifest_dirty) = (group.made, group.made);
            }
            self.enlist(gid);
        }
    }

    /// Groups that wait for room.
    pub fn is_stalled(&self) -> bool {
        self.groups.values().any(|g| g.waits || !g.stalled.is_empty())
    }

    /// What a group may do that waits for room: give some back; and go on with what waits, once there may be room again.
    pub(super) fn beside_stalled(&mut self, gid: Gid) -> Option<Job> {
        let group = self.groups.get_mut(&gid)?;
        if let Some(at) = group.queue.iter().position(|p| p.drop) {
            let void: Vec<_> = group.queue.drain(..at).collect();
            group.stalled.clear();
            group.waits = false;
            self.queued_bytes -= void.iter().map(piece_bytes).sum::<u64>();
            return self.drop_job(gid);
        }
        if group.resume {
            return group.stalled.pop();
        }
        let beside = match group.stalled.last() {
            None => true,
            // One that has a manifest to write would write it again over the trim's.
            Some(job) => matches!(job.then, Then::Append(_)) && !job.steps.iter().any(|(op, _)| manifest(op).is_some()),
        };
        // Files that wait for their time go now: room is worth more than a reader's second try.
        if beside { self.trim_job(gid).or_else(|| self.doomed_job(None, gid)) } else { None }
    }

    pub(super) fn space_back(&mut self) {
        let mut gids = Vec::new();
        for (gid, group) in self.groups.iter_mut().filter(|(_, g)| g.waits || !g.stalled.is_empty()) {
            group.resume = true;
            group.waits = false;
            gids.push(*gid);
        }
        gids.into_iter().for_each(|gid| self.enlist(gid));
    }
}
