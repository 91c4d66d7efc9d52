//! Pure. The flush of a relaxed group beside its appends: the files are synced while more is written behind what the sync
//! is asked for. Without it the writer would stand still for every window.
//!
//! Only syncs run beside: as long as one does, nothing but appends is done with the group, no cut, no roll's end, no
//! manifest. A flush that wants more than syncs is a job of its own, as for any group.

use super::{Group, Job, Segment, SegmentEffect, SegmentPoint, Segments};
use crate::disk::{DiskDone, DiskError, DiskOp};
use crate::journal::Token;
use catchwater_base::{Effects, Now};
use catchwater_record::{EntryIndex, Gid};
use std::collections::BTreeMap;

/// See the file head. One of a group at most.
#[derive(Debug, Default)]
pub(super) struct Flushes {
    under_way: BTreeMap<Gid, Flush>,
    flying: BTreeMap<Token, Gid>,
}

#[derive(Debug)]
struct Flush {
    /// Syncs that are not answered.
    left: usize,
    /// As they were when it began: the newest flush of the journal and the newest entry in files, and the bytes not synced.
    lsn: u64,
    upto: EntryIndex,
    bytes: u64,
}

impl Flushes {
    /// One is under way.
    pub(super) fn of(&self, gid: Gid) -> bool {
        self.under_way.contains_key(&gid)
    }
}

impl Segments {
    pub(super) fn is_flushing(&self) -> bool {
        !self.flushes.under_way.is_empty()
    }

    /// Begins it; false if there was nothing to sync, and it is over.
    pub(super) fn flush_beside(&mut self, gid: Gid, out: &mut Effects<SegmentEffect>) -> bool {
        let Some(group) = self.groups.get(&gid) else { return false };
        let upto = group.segments.back().map_or(group.first_index.prev(), Segment::last_index);
        let mut files = Vec::new();
        for segment in group.segments.iter().filter(|s| s.is_open() && s.dirty) {
            for ext in ["log", "ext", "ent"].into_iter().filter(|e| *e != "ext" || segment.has_ext) {
                files.push(self.file(gid, segment, ext));
            }
        }
        let Some(group) = self.groups.get_mut(&gid) else { return false };
        group.flush_wanted = false;
        // What is appended from now on makes them dirty again.
        group.segments.iter_mut().filter(|s| s.is_open()).for_each(|s| s.dirty = false);
        let bytes = std::mem::take(&mut group.dirty_bytes);
        let left = files.len();
        self.flushes.under_way.insert(gid, Flush { left, lsn: group.applied_lsn, upto, bytes });
        // All at one time: the claim comes when the last is answered, and each waits for the device.
        for path in files {
            let token = Token(self.next_token);
            self.next_token += 1;
            self.flushes.flying.insert(token, gid);
            out.push(SegmentEffect::Disk { token, op: DiskOp::Fdatasync { path }, point: SegmentPoint::CkptSync });
        }
        if left == 0 {
            self.flushed(gid, out);
        }
        self.flushes.of(gid)
    }

    /// True if the completion was that of a flush. A failed one is the end, as of any sync.
    pub(super) fn flush_done(
        &mut self,
        token: Token,
        result: &Result<DiskDone, DiskError>,
        out: &mut Effects<SegmentEffect>,
    ) -> bool {
        let Some(gid) = self.flushes.flying.remove(&token) else { return false };
        match result {
            Err(error) => {
                if !std::mem::replace(&mut self.stopped, true) {
                    out.push(SegmentEffect::Stop(error.clone()));
                }
            }
            Ok(_) if !self.stopped => {
                if let Some(flush) = self.flushes.under_way.get_mut(&gid) {
                    flush.left -= 1;
                    if flush.left == 0 {
                        self.flushed(gid, out);
                    }
                }
            }
            Ok(_) => {}
        }
        true
    }

    fn flushed(&mut self, gid: Gid, out: &mut Effects<SegmentEffect>) {
        let Some(Flush { lsn, upto, bytes, .. }) = self.flushes.under_way.remove(&gid) else { return };
        self.dirty_bytes -= bytes;
        let Some(group) = self.groups.get_mut(&gid) else { return };
        group.synced = group.synced.max(upto);
        group.drained_lsn = group.drained_lsn.max(lsn);
        out.push(SegmentEffect::Drained(gid, lsn));
        out.push(SegmentEffect::Flushed(gid, upto));
        self.enlist(gid);
    }

    /// What may be done with a group whose flush is under way: what is next in the queue goes to the end of its files.
    pub(super) fn append_beside(&mut self, now: Now, gid: Gid) -> Option<Job> {
        let group = self.groups.get(&gid)?;
        let next = group.queue.front().filter(|_| group.stalled.is_empty())?;
        let plain = !next.drop && next.snapshot.is_none() && next.truncate_from.is_none() && !next.entries.is_empty();
        plain.then(|| self.append_job(now, gid))
    }
}

impl Group {
    /// The group waits for a flush that needs nothing but syncs of its files.
    pub(super) fn may_flush_beside(&self) -> bool {
        self.relaxed
            && self.flush_wanted
            && !self.flush_all
            && self.made
            && self.name_durable
            && !self.names_dirty
            && !self.manifest_dirty
            && self.cuts_coming == 0
            && !self.segments.iter().any(|s| s.is_open() && s.cut)
    }
}

#[cfg(test)]
mod tests;
