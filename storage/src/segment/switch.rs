//! Pure. A compacted segment takes the place of the segments it was made from: by one manifest. The old files go after
//! `file.delete.delay.ms`, so that whoever has planned a read of them can finish it.

use super::{Group, Job, Segment, SegmentEffect, SegmentPoint, Segments, Then, segment_stem};
use crate::disk::{DiskOp, FilePath};
use crate::entry::{Replaced, SegmentInfo};
use catchwater_base::{Effects, Mono, Now};
use catchwater_record::{EntryIndex, Gid, Offset};
use std::collections::VecDeque;

/// A segment that is durable under its own name and replaces neighbours.
#[derive(Clone, Debug)]
pub struct Replacement {
    /// Base index and generation of each, ascending.
    pub old: Vec<(EntryIndex, u32)>,
    pub segment: Segment,
    /// The same with its rows, for the replica.
    pub info: SegmentInfo,
    /// Behind the last delete that went because its time had come; zero = none did.
    pub deletes_gone: Offset,
}

impl Segments {
    /// Makes the replacement true, or refuses it: something was trimmed or replaced meanwhile.
    pub(super) fn switch_job(&mut self, gid: Gid, out: &mut Effects<SegmentEffect>) -> Option<Job> {
        let group = self.groups.get_mut(&gid)?;
        let replacement = group.switch.take()?;
        let Some(at) = find(group, &replacement) else {
            let segment = &replacement.segment;
            let exts = if segment.has_ext { &["log", "ext", "ent"][..] } else { &["log", "ent"] };
            let steps = exts
                .iter()
                .map(|ext| (DiskOp::Unlink { path: self.file(gid, segment, ext) }, SegmentPoint::SwitchDrop));
            let steps = steps.collect();
            out.push(SegmentEffect::Switched(gid, None));
            return Some(Job { current: None, steps, reads: VecDeque::new(), then: Then::Nothing });
        };
        let count = replacement.old.len();
        let old: Vec<Segment> = group.segments.range(at..at + count).cloned().collect();
        let mut segment = replacement.segment;
        segment.sealed_at_ms = old.iter().map(|s| s.sealed_at_ms).max().unwrap_or(0);
        for _ in 0..count {
            group.segments.remove(at);
        }
        group.segments.insert(at, segment);
        group.deletes_gone = group.deletes_gone.max(replacement.deletes_gone);
        let replaced = Box::new(Replaced { segment: replacement.info, deletes_gone: group.deletes_gone });
        // Both copies, before a file goes: if the newer one is damaged later, the older one must not name what is gone.
        let mut steps = self.durable_manifest(gid);
        steps.extend(self.durable_manifest(gid));
        for (_, point) in &mut steps {
            *point = SegmentPoint::SwitchManifest;
        }
        let gone = old.iter().flat_map(|s| self.names(gid, s)).collect();
        Some(Job { current: None, steps, reads: VecDeque::new(), then: Then::Switch { gone, replaced } })
    }

    /// The files of a segment.
    pub(super) fn names(&self, gid: Gid, segment: &Segment) -> Vec<FilePath> {
        let exts = ["log", "ent"].into_iter().chain(segment.has_ext.then_some("ext"));
        exts.chain((segment.txn_len > 0).then_some("txn")).map(|ext| self.file(gid, segment, ext)).collect()
    }

    /// These files belong to nothing any more: they go when their time comes.
    pub(super) fn doom(&mut self, now: Now, gid: Gid, files: Vec<FilePath>) {
        let Some(group) = self.groups.get_mut(&gid) else { return };
        let due = now.mono.plus_millis(group.limits.delete_delay_ms);
        group.doomed.push_back((due, files));
        self.alarms.insert((due, gid));
    }

    /// Groups with files whose time has come get a turn.
    pub(super) fn ring(&mut self, now: Now) {
        while let Some((due, gid)) = self.alarms.first().copied().filter(|(due, _)| *due <= now.mono) {
            self.alarms.remove(&(due, gid));
            self.enlist(gid);
        }
    }

    pub(super) fn next_alarm(&self) -> Option<Mono> {
        self.alarms.first().map(|(due, _)| *due)
    }

    /// Removes the files whose time has come by `now`; `None` = all of them.
    pub(super) fn doomed_job(&mut self, now: Option<Mono>, gid: Gid) -> Option<Job> {
        let group = self.groups.get_mut(&gid)?;
        let mut steps = VecDeque::new();
        while group.doomed.front().is_some_and(|(due, _)| now.is_none_or(|now| *due <= now)) {
            let (_, files) = group.doomed.pop_front()?;
            steps.extend(files.into_iter().map(|path| (DiskOp::Unlink { path }, SegmentPoint::SwitchDrop)));
        }
        if steps.is_empty() {
            return None;
        }
        group.names_dirty = true;
        Some(Job { current: None, steps, reads: VecDeque::new(), then: Then::Nothing })
    }
}

/// Where the old segments stand, if all of them still do, next to each other.
fn find(group: &Group, replacement: &Replacement) -> Option<usize> {
    let first = replacement.old.first()?.0;
    let at = group.segments.iter().position(|s| s.base_index == first)?;
    if at + replacement.old.len() > group.segments.len() || group.dropped {
        return None;
    }
    // Made before the group was opened again, which has found its files to belong to nothing: they go.
    let stem = segment_stem(replacement.segment.base_offset, replacement.segment.generation);
    if group.stale.iter().any(|name| name.strip_prefix(&stem).is_some_and(|rest| rest.starts_with('.'))) {
        return None;
    }
    let same = group
        .segments
        .range(at..)
        .zip(&replacement.old)
        .all(|(s, (base, generation))| !s.is_open() && s.base_index == *base && s.generation == *generation);
    let last = group.segments.get(at + replacement.old.len() - 1)?;
    (same && last.last_index() == replacement.segment.last_index()).then_some(at)
}
