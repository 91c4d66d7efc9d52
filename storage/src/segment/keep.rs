//! Pure. What makes files last and what ends them: sync, seal, manifest, trim, snapshot, drop.

use super::{
    FoundGroup, Group, Job, Part, Segment, SegmentConfig, SegmentEffect, SegmentPoint, Segments, Then, group_dir,
    piece_bytes, side_index,
};
use crate::disk::{Disk, DiskError, DiskOp, FilePath};
use crate::format::manifest::{Manifest, ManifestSegment, SegmentState, lengths_check};
use crate::format::row::Footer;
use crate::format::slot::{self, SlotKind};
use crate::format::snap::Snap;
use bytes::Bytes;
use catchwater_base::{Effects, Now, mutant};
use catchwater_record::{EntryIndex, Gid, Offset};
use std::collections::VecDeque;

impl Segments {
    /// Files, then the manifest that names them, then the names; those of a relaxed group before the manifest.
    pub(super) fn sync_steps(&mut self, gid: Gid, manifest: bool) -> VecDeque<(DiskOp, SegmentPoint)> {
        let mut steps = VecDeque::new();
        let group = &self.groups[&gid];
        for segment in group.segments.iter().filter(|s| s.is_open() && s.cut) {
            // Found by recovery with rows behind its end that the journal replaces, and left by a roll before anything was
            // appended. Once the journal lets go, nothing else would say that they are void.
            let (log, ext, ent) = (u64::from(segment.log_len), u64::from(segment.ext_len), segment.ent_len());
            let cut = |path, len, point| (DiskOp::Truncate { path, len }, point);
            steps.push_back(cut(self.file(gid, segment, "ent"), ent, SegmentPoint::TruncRows));
            steps.push_back(cut(self.file(gid, segment, "log"), log, SegmentPoint::TruncFile));
            if segment.has_ext {
                steps.push_back(cut(self.file(gid, segment, "ext"), ext, SegmentPoint::TruncFile));
            }
        }
        if let Some(group) = self.groups.get_mut(&gid) {
            group.segments.iter_mut().for_each(|s| s.cut &= !s.is_open());
        }
        let group = &self.groups[&gid];
        for segment in group.segments.iter().filter(|s| s.is_open() && s.dirty) {
            steps.push_back((DiskOp::Fdatasync { path: self.file(gid, segment, "log") }, SegmentPoint::CkptSync));
            if segment.has_ext {
                steps.push_back((DiskOp::Fdatasync { path: self.file(gid, segment, "ext") }, SegmentPoint::CkptSync));
            }
            steps.push_back((DiskOp::Fdatasync { path: self.file(gid, segment, "ent") }, SegmentPoint::CkptSync));
        }
        let dir: FilePath = group_dir(&self.config.dir, gid).into();
        let mut names = group.names_dirty;
        if names && manifest && group.relaxed && !mutant!("manifest_before_names") {
            // No journal has the rows of a relaxed group: the manifest names none whose file a loss of power may take.
            steps.push_back((DiskOp::SyncDir { path: dir.clone() }, SegmentPoint::RollDirsync));
            names = false;
        }
        names |= manifest && group.manifest_exists.contains(&false);
        if manifest {
            let bytes = slot::encode(
                SlotKind::Manifest,
                group.manifest_gen + 1,
                &manifest_of(gid, group, EntryIndex(u64::MAX - 1)).encode(),
            );
            self.manifest_steps(gid, bytes, &mut steps);
            // The first one twice: from here on the journal need not know whose log this is, and one damaged copy must not
            // be all there was.
            if self.groups[&gid].manifest_exists.contains(&false) {
                let group = &self.groups[&gid];
                let payload = manifest_of(gid, group, EntryIndex(u64::MAX - 1)).encode();
                let bytes = slot::encode(SlotKind::Manifest, group.manifest_gen + 1, &payload);
                self.manifest_steps(gid, bytes, &mut steps);
            }
        }
        let group = &self.groups[&gid];
        if names {
            steps.push_back((DiskOp::SyncDir { path: dir }, SegmentPoint::RollDirsync));
        }
        if !group.name_durable {
            steps.push_back((DiskOp::SyncDir { path: self.config.dir.as_str().into() }, SegmentPoint::RollDirsync));
        }
        steps
    }

    pub(super) fn manifest_steps(&mut self, gid: Gid, bytes: Vec<u8>, steps: &mut VecDeque<(DiskOp, SegmentPoint)>) {
        let dir = group_dir(&self.config.dir, gid);
        let Some(group) = self.groups.get_mut(&gid) else { return };
        let side = group.manifest_side;
        let path: FilePath = format!("{dir}/manifest.{}", side.suffix()).into();
        if !std::mem::replace(&mut group.manifest_exists[side_index(side)], true) {
            group.names_dirty = true;
            steps.push_back((DiskOp::CreateNew { path: path.clone() }, SegmentPoint::SealManifest));
        }
        steps.push_back((
            DiskOp::Write { path: path.clone(), at: 0, bufs: vec![bytes.into()] },
            SegmentPoint::SealManifest,
        ));
        steps.push_back((DiskOp::Fdatasync { path }, SegmentPoint::SealManifest));
        group.manifest_gen += 1;
        group.manifest_side = if mutant!("checkpoint_in_place") { side } else { side.other() };
    }

    pub(super) fn sync_job(&mut self, gid: Gid) -> Job {
        // A checkpoint's sync answers no flush that waits for what is queued.
        let flush = self.groups.get_mut(&gid).is_some_and(|g| {
            g.sync_now = false;
            let now = g.flush_wanted && (!g.flush_all || g.queue.is_empty() || mutant!("flush_of_all_is_of_some"));
            g.flush_wanted &= !now;
            now
        });
        let group = &self.groups[&gid];
        let last = group.segments.back().map_or(group.first_index.prev(), Segment::last_index);
        let (lsn, manifest) = (group.applied_lsn, group.manifest_dirty && group.made);
        let steps = if group.made { self.sync_steps(gid, manifest) } else { VecDeque::new() };
        Job { current: None, steps, reads: VecDeque::new(), then: Then::Sync { lsn, upto: last, flush } }
    }

    /// The oldest rolled segment, if its last entry is committed.
    pub(super) fn seal_job(&mut self, now: Now, gid: Gid, out: &mut Effects<SegmentEffect>) -> Option<Job> {
        let group = self.groups.get(&gid)?;
        let at = group.segments.iter().position(Segment::is_open)?;
        let segment = &group.segments[at];
        if group.unreadable.is_some_and(|base| base <= segment.base_index) {
            return None; // sealed ones lie before open ones
        }
        // The newest one is written on, unless the log begins behind it: then nothing more enters it.
        let written_on = at + 1 == group.segments.len() && !group.is_passed(segment);
        let settled = segment.last_index() <= group.committed && group.cuts_coming == 0;
        if written_on || !(settled || mutant!("seal_before_commit")) {
            return None;
        }
        let base = segment.base_index;
        if segment.sums.is_none() {
            let parts = if segment.has_ext { vec![Part::Ent, Part::Ext] } else { vec![Part::Ent] };
            return Some(Job {
                current: None,
                steps: self.sum_steps(gid, segment, Part::Log),
                reads: VecDeque::new(),
                then: Then::Sums { base, part: Part::Log, left: parts.into(), sums: Box::default() },
            });
        }
        let txn = self.txn_rows(gid, at, out)?;
        let segment = &self.groups.get(&gid)?.segments[at];
        let sums = segment.sums.as_deref()?;
        let footer = Footer {
            rows: segment.rows,
            last_index: segment.last_index(),
            next_offset: segment.next_offset,
            log_len: u64::from(segment.log_len),
            log_crc64: sums.log.finish(),
            ent_crc64: sums.ent.finish(),
            ext_crc64: sums.ext.finish(),
            min_ts: if segment.min_ts == i64::MAX { -1 } else { segment.min_ts },
            max_ts: segment.max_ts,
            ext_len: segment.ext_len,
            txn_len: txn.len() as u32,
            last_term: segment.last_term,
        };
        let (log, ent, ext) =
            (self.file(gid, segment, "log"), self.file(gid, segment, "ent"), self.file(gid, segment, "ext"));
        let (ent_len, has_ext) = (segment.ent_len(), segment.has_ext);
        let mut steps = VecDeque::new();
        if segment.cut {
            // Found by recovery with bytes behind its last row: a footer has its place there.
            steps.push_back((DiskOp::Truncate { path: ent.clone(), len: ent_len }, SegmentPoint::TruncRows));
            let len = u64::from(segment.log_len);
            steps.push_back((DiskOp::Truncate { path: log.clone(), len }, SegmentPoint::TruncFile));
        }
        steps.push_back((DiskOp::Fdatasync { path: log }, SegmentPoint::SealLog));
        let bufs = vec![Bytes::from(footer.encode())];
        steps.push_back((DiskOp::Write { path: ent.clone(), at: ent_len, bufs }, SegmentPoint::SealEnt));
        steps.push_back((DiskOp::Fdatasync { path: ent }, SegmentPoint::SealEnt));
        if has_ext {
            steps.push_back((DiskOp::Fdatasync { path: ext }, SegmentPoint::SealExt));
        }
        let (at_ms, txn_len) = (now.wall.as_millis(), txn.len() as u32);
        if txn_len > 0 {
            steps.extend(self.txn_steps(gid, segment, txn));
        }
        let group = self.groups.get_mut(&gid)?;
        group.names_dirty |= txn_len > 0;
        let dir: FilePath = group_dir(&self.config.dir, gid).into();
        // The segment's names must be durable before the manifest says "sealed".
        if std::mem::take(&mut group.names_dirty) {
            steps.push_back((DiskOp::SyncDir { path: dir }, SegmentPoint::RollDirsync));
        }
        if !group.name_durable {
            let path: FilePath = self.config.dir.as_str().into();
            steps.push_back((DiskOp::SyncDir { path }, SegmentPoint::RollDirsync));
        }
        let segment = group.segments.get_mut(at)?;
        (segment.cut, segment.txn_len) = (false, txn_len);
        segment.state = SegmentState::Sealed;
        segment.sealed_at_ms = at_ms;
        let manifest = self.durable_manifest(gid);
        steps.extend(manifest);
        if mutant!("manifest_before_segment") {
            // The footer and every sync of the files come behind the manifest's.
            let files = steps.iter().position(|(_, p)| *p == SegmentPoint::SealManifest).unwrap_or(0);
            steps.rotate_left(files);
        }
        Some(Job { current: None, steps, reads: VecDeque::new(), then: Then::Seal { base } })
    }

    /// The manifest as the group is now, durable with its name.
    pub(super) fn durable_manifest(&mut self, gid: Gid) -> VecDeque<(DiskOp, SegmentPoint)> {
        let mut steps = VecDeque::new();
        let group = &self.groups[&gid];
        let bytes =
            slot::encode(SlotKind::Manifest, group.manifest_gen + 1, &manifest_of(gid, group, group.synced).encode());
        self.manifest_steps(gid, bytes, &mut steps);
        if self.groups[&gid].names_dirty {
            let path: FilePath = group_dir(&self.config.dir, gid).into();
            steps.push_back((DiskOp::SyncDir { path }, SegmentPoint::RollDirsync));
        }
        steps
    }

    pub(super) fn sum_steps(&self, gid: Gid, segment: &Segment, part: Part) -> VecDeque<(DiskOp, SegmentPoint)> {
        const PIECE: u64 = 4 << 20;
        let (ext, len) = match part {
            Part::Log => ("log", u64::from(segment.log_len)),
            Part::Ent => ("ent", segment.ent_len()),
            Part::Ext => ("ext", u64::from(segment.ext_len)),
        };
        let path = self.file(gid, segment, ext);
        (0..len.div_ceil(PIECE))
            .map(|i| {
                let at = i * PIECE;
                let len = PIECE.min(len - at) as usize;
                (DiskOp::Read { path: path.clone(), at, len }, SegmentPoint::Read)
            })
            .collect()
    }

    pub(super) fn trim_job(&mut self, gid: Gid) -> Option<Job> {
        let group = self.groups.get_mut(&gid)?;
        let log_start = group.trim_wanted?;
        // A snapshot that waits comes first: what goes may be all that tells of a producer or a capture. But it may wait for
        // the room that a trim makes: what an older snapshot stands for goes.
        let covered = if group.snap.is_some() { group.snap_durable } else { EntryIndex(u64::MAX) };
        let upto = group.segments.iter().take_while(|s| s.last_index() <= covered && group.goes(s, log_start)).count();
        if group.snap.is_some() && upto == 0 {
            return None;
        }
        let below = group.segments.front().is_some_and(|s| s.has_record() && s.next_offset <= log_start);
        if log_start <= group.log_start && upto == 0 && !below {
            group.trim_wanted = None;
            return None;
        }
        if group.log_start < log_start {
            (group.log_start, group.manifest_dirty) = (log_start, true);
        }
        // An open one that lies below is sealed first, if it is all committed; then this is looked at again.
        let more = group.segments.get(upto).is_some_and(|s| s.has_record() && s.next_offset <= log_start);
        if !more {
            group.trim_wanted = None;
        }
        if upto == 0 {
            return None; // the manifest says it with its next write
        }
        let last = &group.segments[upto - 1];
        (group.first_index, group.prev_term) = (last.last_index().next(), last.last_term);
        group.first_offset = last.next_offset;
        let gone: Vec<Segment> = group.segments.drain(..upto).collect();
        group.synced = group.synced.max(group.first_index.prev());
        group.unreadable.take_if(|base| *base < group.first_index);
        // The manifest (and its name) first: one that names removed files would be damage.
        // Both copies: if the newer one is damaged later, the older one must not name them either.
        let mut steps = self.durable_manifest(gid);
        steps.extend(self.durable_manifest(gid));
        for (_, point) in &mut steps {
            *point = SegmentPoint::TrimManifest;
        }
        let delayed = self.groups.get(&gid).is_some_and(|g| g.limits.delete_delay_ms > 0);
        let files: Vec<FilePath> = gone.iter().flat_map(|s| self.names(gid, s)).collect();
        if delayed {
            return Some(Job { current: None, steps, reads: VecDeque::new(), then: Then::Trim { gone: files } });
        }
        steps.extend(files.into_iter().map(|path| (DiskOp::Unlink { path }, SegmentPoint::TrimUnlink)));
        if let Some(group) = self.groups.get_mut(&gid) {
            group.names_dirty = true;
        }
        Some(Job { current: None, steps, reads: VecDeque::new(), then: Then::Nothing })
    }

    pub(super) fn snap_job(&mut self, gid: Gid) -> Option<Job> {
        let group = self.groups.get_mut(&gid)?;
        let last = group.segments.back().map_or(group.first_index.prev(), Segment::last_index);
        let ready = group.snap.as_ref().is_some_and(|(i, _, _)| *i <= group.committed && *i <= last);
        let ready = ready && group.cuts_coming == 0;
        let (index, next_offset, payload) = group.snap.take_if(|_| ready)?;
        if index == EntryIndex::ZERO || group.snaps.last().is_some_and(|newest| *newest >= index) || !group.made {
            return None;
        }
        // What a snapshot stands for must outlive it; a journaled entry does anyway.
        let before = if group.relaxed { self.sync_steps(gid, false) } else { VecDeque::new() };
        let kept = self.without_sealed(gid, &payload);
        let bytes = Snap { gid, index, next_offset, ahead: false, payload: kept }.encode();
        let name = |i: EntryIndex| format!("{:020}.snap", i.0);
        let path = self.path(gid, &name(index));
        let mut steps = VecDeque::from([
            (DiskOp::CreateNew { path: path.clone() }, SegmentPoint::SnapWrite),
            (DiskOp::Write { path: path.clone(), at: 0, bufs: vec![bytes.into()] }, SegmentPoint::SnapWrite),
            (DiskOp::Fdatasync { path: path.clone() }, SegmentPoint::SnapSync),
            (DiskOp::SyncDir { path: group_dir(&self.config.dir, gid).into() }, SegmentPoint::SnapSync),
        ]);
        if self.groups[&gid].snap_begun {
            steps.push_front((DiskOp::Unlink { path }, SegmentPoint::SnapWrite));
        }
        before.into_iter().rev().for_each(|step| steps.push_front(step));
        let snaps = &self.groups[&gid].snaps;
        for old in snaps.iter().take(snaps.len().saturating_sub(1)) {
            steps.push_back((DiskOp::Unlink { path: self.path(gid, &name(*old)) }, SegmentPoint::SnapSync));
        }
        Some(Job { current: None, steps, reads: VecDeque::new(), then: Then::Snap { index, next_offset, payload } })
    }

    pub(super) fn drop_job(&mut self, gid: Gid) -> Option<Job> {
        let group = self.groups.get_mut(&gid)?;
        let lsn = group.queue.front()?.lsn;
        group.dropped = true;
        self.queued_bytes -= group.queue.iter().map(piece_bytes).sum::<u64>();
        group.queue.iter_mut().for_each(|p| p.entries.clear());
        let dir = group_dir(&self.config.dir, gid);
        let gone: FilePath = format!("{dir}.deleted").into();
        let steps = if group.made && !mutant!("removed_leaves_files") {
            VecDeque::from([
                (DiskOp::Rename { from: dir.into(), to: gone.clone() }, SegmentPoint::DelRename),
                (DiskOp::SyncDir { path: self.config.dir.as_str().into() }, SegmentPoint::DelRename),
                (DiskOp::List { path: gone }, SegmentPoint::DelRemove),
            ])
        } else {
            VecDeque::new()
        };
        Some(Job { current: None, steps, reads: VecDeque::new(), then: Then::DropList { lsn } })
    }
}

impl Group {
    /// The segment lies below the log start and may go. An open one is sealed first, unless there is no room for that, or
    /// it cannot be read: then it goes as it is, once all of it is committed and nothing is appended to it.
    fn goes(&self, segment: &Segment, log_start: Offset) -> bool {
        let end = if mutant!("trim_beyond_log_start") { segment.base_offset } else { segment.next_offset };
        if !segment.is_open() {
            return end <= log_start;
        }
        let room = self.waits || !self.stalled.is_empty();
        let unreadable = self.unreadable.is_some_and(|base| base <= segment.base_index);
        let newest = self.segments.back().is_some_and(|s| s.base_index == segment.base_index);
        let appended =
            newest && self.stalled.iter().any(|job| matches!(&job.then, Then::Append(appended) if !appended.rolled));
        let settled = segment.last_index() <= self.committed && self.cuts_coming == 0;
        (room || unreadable) && settled && !appended && segment.has_record() && end <= log_start
    }

    /// The log begins behind everything in it.
    pub(super) fn is_passed(&self, segment: &Segment) -> bool {
        segment.has_record() && segment.next_offset <= self.begins()
    }

    /// The log start, as far as it was told.
    pub(super) fn begins(&self) -> Offset {
        self.trim_wanted.unwrap_or(self.log_start).max(self.log_start)
    }
}

/// Both copies of a group's manifest as it was found, or as it was changed since; for who works on a directory offline.
pub(crate) fn write_manifests(disk: &dyn Disk, dir: String, found: &mut FoundGroup) -> Result<(), DiskError> {
    let mut segments = Segments::new(SegmentConfig::new(dir));
    let gid = found.gid;
    segments.open_group(FoundGroup { journaled: Vec::new(), ..found.clone() });
    let mut steps = segments.durable_manifest(gid);
    steps.extend(segments.durable_manifest(gid));
    for (op, _) in steps {
        disk.run(op)?;
    }
    let group = &segments.groups[&gid];
    found.manifest = (group.manifest_gen, group.manifest_side);
    (found.manifest_exists, found.manifest_whole) = (group.manifest_exists, true);
    Ok(())
}

/// `synced`: rows of open segments that it may claim, if the group is relaxed; the journal has the others' else.
pub(super) fn manifest_of(gid: Gid, group: &Group, synced: EntryIndex) -> Manifest {
    let rows = |s: &Segment| match group.relaxed && s.is_open() {
        true => s.rows.min(u32::try_from((synced.0 + 1).saturating_sub(s.base_index.0)).unwrap_or(u32::MAX)),
        false => s.rows,
    };
    // No file holds the first index yet: a row without entries says at which offset it begins.
    let unmade = group.segments.is_empty().then_some(ManifestSegment {
        base_index: group.first_index,
        base_offset: group.first_offset,
        generation: 0,
        state: SegmentState::Active,
        lengths: 0,
        rows: 0,
        last_term: group.prev_term,
        sealed_at_ms: 0,
        max_ts: -1,
    });
    // A follower's commit index, and so its log start, may be ahead of what it has made durable itself: a manifest that says
    // so would claim a log that is not there after a loss of power. What it keeps back, the entry says when it comes again.
    let whole = |s: &&Segment| rows(s) == s.rows;
    let end = group.segments.iter().take_while(whole).last().map_or(group.first_offset, |s| s.next_offset);
    let log_start = match mutant!("log_start_beyond_the_log") {
        true => group.log_start,
        false => group.log_start.min(end),
    };
    Manifest {
        gid: gid.0,
        topic: group.spec.topic,
        partition: group.spec.partition.0,
        incarnation: group.spec.incarnation,
        log_start,
        first_index: group.first_index,
        prev_term: group.prev_term,
        epochs: group.epochs.clone(),
        segments: group
            .segments
            .iter()
            .map(|s| ManifestSegment {
                base_index: s.base_index,
                base_offset: s.base_offset,
                generation: s.generation,
                state: s.state,
                lengths: if s.is_open() { 0 } else { lengths_check(s.log_len, s.ext_len) },
                rows: rows(s),
                last_term: s.last_term,
                sealed_at_ms: s.sealed_at_ms,
                max_ts: s.max_ts,
            })
            .chain(unmade)
            .collect(),
        conf: group.spec.conf.to_vec(),
        conf_index: group.spec.conf_index,
        local_start: log_start,
        deletes_gone: group.deletes_gone,
        ..Manifest::default()
    }
}
