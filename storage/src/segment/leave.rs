//! Pure. A group leaves the segment writer while the others go on: everything it brought is placed and made durable, then
//! its files belong to nobody here, and whoever asked may read them as a start would ([`crate::recover::reopen`]). It comes
//! back by [`super::SegmentEvent::Open`].
//! ```text
//!  Leave ──(queue placed, jobs done)──> sync of files, manifest and names ──> Drained, Left: the group is not known here
//! ```
//! Nothing of the group may be queued between `Leave` and `Open` but its end.

use super::{Job, SegmentEffect, Segments};
use catchwater_base::Effects;
use catchwater_record::Gid;

/// How far a group is with leaving.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Leave {
    #[default]
    No,
    Wanted,
    /// The sync behind everything is under way, or done.
    Synced,
}

impl Segments {
    /// Answered by [`SegmentEffect::Left`], at once if the group is not here.
    pub(super) fn leave(&mut self, gid: Gid, out: &mut Effects<SegmentEffect>) {
        match self.groups.get_mut(&gid) {
            Some(group) => {
                group.leave = Leave::Wanted;
                self.enlist(gid);
            }
            None => out.push(SegmentEffect::Left(gid)),
        }
    }

    /// What is left to do for a group that leaves, once it has nothing else to do.
    pub(super) fn leave_job(&mut self, gid: Gid, out: &mut Effects<SegmentEffect>) -> Option<Job> {
        let group = self.groups.get_mut(&gid)?;
        if !group.queue.is_empty() {
            return None;
        }
        match group.leave {
            Leave::No => None,
            Leave::Wanted => {
                group.leave = Leave::Synced;
                // So that the manifest tells of it, whatever came last.
                group.manifest_dirty |= group.made;
                Some(self.sync_job(gid))
            }
            Leave::Synced => {
                let group = self.groups.remove(&gid)?;
                self.dirty_bytes -= group.dirty_bytes;
                self.alarms.retain(|(_, of)| *of != gid);
                out.push(SegmentEffect::Drained(gid, group.newest_lsn));
                out.push(SegmentEffect::Left(gid));
                None
            }
        }
    }
}
