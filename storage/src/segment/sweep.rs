//! Pure. A checkpoint of many groups at once: two syncs of the whole filesystem instead of four calls for each group.
//!
//! A sync of one file or directory waits for the filesystem's own journal, whatever it has to write; ten thousand groups
//! with four of them each take minutes where everything together takes one. Groups that want to be durable are held
//! until the others in line have had their turn, so a checkpoint gathers into one sweep; fewer than
//! [`super::SegmentConfig::sweep_groups_min`] go on one by one.
//! ```text
//!  held: no job ──> truncations ──> sync the filesystem ──> manifests written ──> sync the filesystem ──> Drained, released
//! ```
//! The order is that of a single group: files before the manifest that names them, everything before `Drained`.

use super::{Job, Segment, SegmentEffect, SegmentPoint, Segments, Then};
use crate::disk::{DiskDone, DiskError, DiskFault, DiskOp, FilePath};
use crate::journal::Token;
use catchwater_base::{Effects, Now};
use catchwater_record::{EntryIndex, Gid};
use std::collections::VecDeque;

/// Groups of one sweep at most: a bound on what waits in memory and on how long they are held.
const SWEEP_GROUPS_MAX: usize = 16_384;

/// See the file head.
#[derive(Debug)]
pub(super) struct Sweep {
    /// Each with the flush up to which it is durable at the end.
    groups: Vec<(Gid, u64, EntryIndex)>,
    steps: VecDeque<(DiskOp, SegmentPoint)>,
    token: Option<Token>,
    /// The step in flight, if it may run again after it found no room.
    current: Option<(DiskOp, SegmentPoint)>,
}

impl Segments {
    /// The group wants nothing but to be durable: it waits for the others in line.
    pub(super) fn hold(&mut self, gid: Gid) {
        if let Some(group) = self.groups.get_mut(&gid) {
            group.held = true;
            if self.held.is_empty() {
                self.patience = self.line.len();
            }
            self.held.push(gid);
        }
    }

    /// Everybody who was in line when the first one was held has had a turn.
    pub(super) fn is_gathered(&self) -> bool {
        !self.held.is_empty() && (self.line.is_empty() || self.patience == 0 || self.held.len() >= SWEEP_GROUPS_MAX)
    }

    /// One by one, or all together.
    pub(super) fn begin_sweep(&mut self, now: Now, out: &mut Effects<SegmentEffect>) {
        let held = std::mem::take(&mut self.held);
        if held.len() < self.config.sweep_groups_min {
            for gid in held {
                if let Some(group) = self.groups.get_mut(&gid) {
                    (group.held, group.sync_now) = (false, true);
                }
                self.enlist(gid);
            }
            return;
        }
        let root: FilePath = self.config.dir.as_str().into();
        let (mut cuts, mut manifests, mut groups) = (VecDeque::new(), VecDeque::new(), Vec::new());
        for gid in held {
            let Some(group) = self.groups.get(&gid) else { continue };
            let upto = group.segments.back().map_or(group.first_index.prev(), Segment::last_index);
            groups.push((gid, group.applied_lsn, upto));
            if !group.made {
                continue;
            }
            let manifest = group.manifest_dirty;
            // The same steps as for one group; what the two syncs of everything replace is left out.
            for (op, point) in self.sync_steps(gid, manifest) {
                match op {
                    DiskOp::Truncate { .. } => cuts.push_back((op, point)),
                    DiskOp::Fdatasync { .. } | DiskOp::SyncDir { .. } => {}
                    op => manifests.push_back((op, point)),
                }
            }
        }
        let sync = (DiskOp::SyncFs { path: root }, SegmentPoint::CkptSync);
        let mut steps = cuts;
        steps.push_back(sync.clone());
        if !manifests.is_empty() {
            steps.append(&mut manifests);
            steps.push_back(sync);
        }
        self.sweep = Some(Sweep { groups, steps, token: None, current: None });
        self.sweep_step(now, out);
    }

    fn sweep_step(&mut self, now: Now, out: &mut Effects<SegmentEffect>) {
        let token = Token(self.next_token);
        let Some(sweep) = &mut self.sweep else { return };
        if let Some((op, point)) = sweep.steps.pop_front() {
            self.next_token += 1;
            sweep.token = Some(token);
            sweep.current = op.may_wait_for_space().then(|| (op.clone(), point));
            out.push(SegmentEffect::Disk { token, op, point });
            return;
        }
        let groups = std::mem::take(&mut sweep.groups);
        self.sweep = None;
        for (gid, lsn, upto) in groups {
            if let Some(group) = self.groups.get_mut(&gid) {
                group.held = false;
            }
            let job = Job {
                current: None,
                steps: VecDeque::new(),
                reads: VecDeque::new(),
                then: Then::Sync { lsn, upto, flush: false },
            };
            let next = self.finish(now, gid, job, out);
            debug_assert!(next.is_none(), "a sync is followed by nothing");
            self.enlist(gid);
        }
    }

    /// True if the completion was the sweep's.
    pub(super) fn sweep_done(
        &mut self,
        now: Now,
        token: Token,
        result: &Result<DiskDone, DiskError>,
        out: &mut Effects<SegmentEffect>,
    ) -> bool {
        let Some(sweep) = self.sweep.as_mut().filter(|s| s.token == Some(token)) else { return false };
        sweep.token = None;
        match result {
            Err(error) if error.kind == DiskFault::NoSpace && sweep.current.is_some() => {
                if let Some(mut sweep) = self.sweep.take() {
                    sweep.steps.extend(sweep.current.take());
                    sweep.steps.rotate_right(1);
                    self.give_up_sweep(sweep.groups, sweep.steps);
                }
                out.push(SegmentEffect::NoSpace(error.clone()));
            }
            Err(error) => {
                if !std::mem::replace(&mut self.stopped, true) {
                    out.push(SegmentEffect::Stop(error.clone()));
                }
            }
            Ok(_) if !self.stopped => self.sweep_step(now, out),
            Ok(_) => {}
        }
        true
    }
}
