//! Pure. The disk is full: the group stands where it is, and goes on when there is room.
//!
//! What could not be written is journaled and pinned in memory, so nothing is lost and nothing need be told: the journal
//! fills, producers are held back, readers go on. Only operations that may simply run again wait
//! ([`crate::disk::DiskOp::may_wait_for_space`]); a sync that finds no room has lost bytes and stops the directory.
//! ```text
//!  job ──no room──> stalled ──SpaceBack──> the same step again
//!                      └── beside it: removal of old segments (an append only), and of the whole group
//! ```
//! An append's segment is named by no manifest before the job is done, so a trim beside it writes the manifest it would
//! have written before.

use super::{Job, SegmentEffect, Segments, Then, piece_bytes};
use crate::disk::{DiskError, DiskFault};
use catchwater_base::Effects;
use catchwater_base::Now;
use catchwater_record::Gid;

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
                group.stalled.push(job);
                group.resume = false;
                self.enlist(gid);
                true
            }
            None => {
                group.job = Some(job);
                false
            }
        }
    }

    /// Groups, or a sweep, that wait for room.
    pub fn is_stalled(&self) -> bool {
        self.sweep_is_stalled() || self.groups.values().any(|g| !g.stalled.is_empty())
    }

    /// What a group may do that waits for room: give some back; and go on with what waits, once there may be room again.
    pub(super) fn beside_stalled(&mut self, gid: Gid) -> Option<Job> {
        let group = self.groups.get_mut(&gid)?;
        if let Some(at) = group.queue.iter().position(|p| p.drop) {
            let void: Vec<_> = group.queue.drain(..at).collect();
            group.stalled.clear();
            self.queued_bytes -= void.iter().map(piece_bytes).sum::<u64>();
            return self.drop_job(gid);
        }
        if group.resume {
            return group.stalled.pop();
        }
        match group.stalled.last().map(|job| &job.then) {
            // Files that wait for their time go now: room is worth more than a reader's second try.
            Some(Then::Append(_)) => self.trim_job(gid).or_else(|| self.doomed_job(None, gid)),
            _ => None,
        }
    }

    pub(super) fn space_back(&mut self, now: Now, out: &mut Effects<SegmentEffect>) {
        self.sweep_again(now, out);
        let mut gids = Vec::new();
        for (gid, group) in self.groups.iter_mut().filter(|(_, g)| !g.stalled.is_empty()) {
            group.resume = true;
            gids.push(*gid);
        }
        gids.into_iter().for_each(|gid| self.enlist(gid));
    }
}
