//! Pure. Bytes of one group's files cannot be read when the segment writer needs them: that group goes on without, the
//! others never hear of it. Nothing is written on the strength of bytes that were not read.
//!
//! ```text
//!  sums for a seal ──> the segment stays open, and those behind it; retention takes it as it is; the next start tries anew
//!  rows at a cut   ──> the table is cut by its count alone, the bytes stay behind it, the next entry begins a new segment
//!  names of a group that is removed ──> its directory stays, renamed, for the next start to remove
//! ```
//! A cut behind which nothing is queued that says where it ends waits until something is; one that a deeper cut behind it makes
//! void is not made. Where it leaves internal entries alone, their segment goes on: there are no bytes of batches before it, and
//! a new segment would have its name. Whoever reads the range gets an error from the read path, as before.

use super::{CutTo, Job, Segment, SegmentEffect, Segments, Then};
use crate::disk::{DiskError, DiskFault};
use catchwater_base::{Effects, Now};
use catchwater_record::{EntryIndex, Gid};

impl Segments {
    /// The group's operation in flight failed and was a read that it can do without.
    pub(super) fn is_contained(&self, gid: Gid, error: &DiskError) -> bool {
        if self.stopped || error.kind == DiskFault::Panic {
            return false;
        }
        let Some(job) = self.groups.get(&gid).and_then(|g| g.job.as_ref()) else { return false };
        match &job.then {
            Then::Sums { .. } => true,
            Then::CutRead { .. } => true,
            // The list is the last step of the renaming.
            Then::DropList { .. } => job.steps.is_empty(),
            _ => false,
        }
    }

    /// Goes on without what was to be read; gives what is to be done next with the group.
    pub(super) fn contain(&mut self, now: Now, gid: Gid, out: &mut Effects<SegmentEffect>) -> Option<Job> {
        let job = self.groups.get_mut(&gid)?.job.take()?;
        match job.then {
            Then::Sums { base, .. } => {
                self.mark_unreadable(gid, base);
                None
            }
            Then::CutRead { from, base } => self.cut_blind(gid, from, base),
            Then::DropList { lsn } => {
                let over = Job { then: Then::Drop { lsn }, ..job };
                self.finish(now, gid, over, out)
            }
            _ => None,
        }
    }

    /// Groups with a part that could not be read.
    #[cfg(test)]
    pub(crate) fn unreadable_groups(&self) -> usize {
        self.groups.values().filter(|g| g.unreadable.is_some()).count()
    }

    /// How many groups each list here names.
    #[cfg(test)]
    pub(crate) fn names_groups(&self) -> Vec<(&'static str, usize)> {
        let (line, flying) = (self.line.len() + self.held.len(), self.flying.len());
        let lists =
            [("groups", self.groups.len()), ("in line", line), ("in flight", flying), ("alarms", self.alarms.len())];
        lists.to_vec()
    }

    pub(super) fn mark_unreadable(&mut self, gid: Gid, base: EntryIndex) {
        if let Some(group) = self.groups.get_mut(&gid) {
            group.unreadable = Some(group.unreadable.map_or(base, |first| first.min(base)));
        }
    }

    /// The cut whose rows cannot be read, made without them; or `None`, and it stays where it is in the queue.
    pub(super) fn cut_blind(&mut self, gid: Gid, from: EntryIndex, base: EntryIndex) -> Option<Job> {
        let group = self.groups.get_mut(&gid)?;
        let next = group.queue.iter().flat_map(|p| &p.entries).next().map(|e| e.index);
        group.blind_cut = Some((from, base)).filter(|_| next.is_none());
        if next.is_some_and(|next| next < from) {
            // A deeper cut comes before anything is appended: this one would be void.
            self.cut_is_void(gid);
            return None;
        }
        let to = self.cut_unread(gid, from, base)?;
        self.mark_unreadable(gid, base);
        Some(self.cut_files_job(gid, from, Some((base, to))))
    }

    /// What a cut leaves of a segment, without its rows: their number is known, the bytes stay where they are.
    fn cut_unread(&self, gid: Gid, from: EntryIndex, base: EntryIndex) -> Option<CutTo> {
        let group = self.groups.get(&gid)?;
        let segment: &Segment = group.segments.iter().find(|s| s.base_index == base)?;
        let next = group.queue.iter().flat_map(|p| &p.entries).next().filter(|e| e.index == from)?;
        // Internal entries have no bytes there.
        let records = next.base_offset > segment.base_offset;
        Some(CutTo {
            rows: u32::try_from(from.0 - base.0).ok()?,
            log_len: if records { segment.log_len } else { 0 },
            ext_len: segment.ext_len,
            max_ts: if records { segment.max_ts } else { -1 },
            last_term: group.epochs.iter().rev().find(|e| e.index < from).map_or(group.prev_term, |e| e.term),
            next_offset: next.base_offset,
        })
    }
}
