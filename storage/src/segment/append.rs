//! Pure. Appending to the open segment, rolling it, and what an append leaves behind.

use super::{
    Appended, Job, Segment, SegmentEffect, SegmentLimits, SegmentPoint, Segments, Then, group_dir, segment_stem,
};
use crate::disk::{DiskOp, FilePath};
use crate::entry::{EntryKind, EpochStart, NewEntry, PlacedRow, Row, row_flag};
use crate::format::manifest::SegmentState;
use crate::format::row::{self, EntHeader};
use crate::journal::Persisted;
use bytes::Bytes;
use catchwater_base::{Effects, Now, mutant};
use catchwater_record::{EntryIndex, Gid};
use std::collections::VecDeque;

impl Segments {
    pub(super) fn append_or_cut_job(&mut self, now: Now, gid: Gid) -> Option<Job> {
        // Pieces with nothing left to do.
        while let Some(group) = self.groups.get_mut(&gid)
            && let Some(front) = group.queue.front()
        {
            let last = group.segments.back().map_or(group.first_index.prev(), Segment::last_index);
            match front.truncate_from {
                Some(from) if from <= last => {
                    let Some((_, base)) = group.blind_cut.filter(|(blind, _)| *blind == from) else {
                        return self.cut_job(gid, from);
                    };
                    let job = self.cut_blind(gid, from, base);
                    if job.is_some() || self.groups.get(&gid).is_some_and(|g| g.blind_cut.is_some()) {
                        return job;
                    }
                }
                // Behind everything that is in files: nothing to cut there.
                Some(_) => self.cut_is_void(gid),
                None if front.entries.is_empty() => {
                    group.applied_lsn = group.applied_lsn.max(front.lsn);
                    group.queue.pop_front();
                }
                None => return Some(self.append_job(now, gid)),
            }
        }
        self.enlist_later(gid);
        None
    }

    /// The queue ran dry without a job: look once more at what else the group wants.
    pub(super) fn enlist_later(&mut self, gid: Gid) {
        if let Some(group) = self.groups.get(&gid)
            && (group.sync_wanted > group.drained_lsn || self.closing)
        {
            self.enlist(gid);
        }
    }

    pub(super) fn append_job(&mut self, now: Now, gid: Gid) -> Job {
        let dir = group_dir(&self.config.dir, gid);
        let (rows_max, bytes_max, hint_bytes) =
            (self.config.rows_max, self.config.write_bytes_max, self.config.writeback_bytes);
        let mut steps = self.before_stale(gid);
        let group = self.groups.get_mut(&gid).expect("the caller looked it up");
        if !group.made {
            steps.push((DiskOp::MkDir { path: dir.as_str().into() }, SegmentPoint::RollCreate));
        }
        for name in group.stale.drain(..) {
            steps.push((DiskOp::Unlink { path: format!("{dir}/{name}").into() }, SegmentPoint::TruncFile));
        }
        let first = &group.queue[0].entries[0];
        // Kafka's rule: from the first batch to this one by their timestamps, by the clock where there are none.
        let age = |s: &Segment, entry: &NewEntry| match s.first_ts {
            Some(first) if first >= 0 && entry.count > 0 && entry.max_ts >= 0 => entry.max_ts.saturating_sub(first),
            Some(first) if first >= 0 => 0,
            _ => now.wall.as_millis().saturating_sub(s.created_ms),
        };
        let (limits, begins, unreadable) = (group.limits, group.begins(), group.unreadable);
        let full = |s: &Segment, entry: &NewEntry| {
            s.has_record()
                && (unreadable == Some(s.base_index)
                    || s.log_len as usize + entry.body.len() > limits.bytes as usize
                    || s.rows >= rows_max
                    || s.next_offset.0 - s.base_offset.0 > u64::from(u32::MAX >> 1) - (1 << 24)
                    || (entry.count > 0 && s.next_offset <= begins)
                    || age(s, entry) > limits.roll_ms(gid, s.base_index))
        };
        let current = group.segments.back().filter(|s| s.is_open() && !full(s, first));
        let rolled = current.is_none();
        let mut segment = match current {
            Some(segment) => segment.clone(),
            None => Segment {
                base_index: first.index,
                base_offset: first.base_offset,
                generation: 0,
                created_ms: now.wall.as_millis(),
                state: SegmentState::Active,
                rows: 0,
                gaps: 0,
                last_term: group.segments.back().map_or(group.prev_term, |s| s.last_term),
                next_offset: first.base_offset,
                max_ts: -1,
                min_ts: i64::MAX,
                first_ts: None,
                log_len: 0,
                ext_len: 0,
                has_ext: false,
                txn_len: 0,
                control: false,
                sealed_at_ms: 0,
                cut: false,
                dirty: true,
                sums: Some(Box::default()),
            },
        };
        let prev_term = segment.last_term;
        let (log_at, ext_at, ent_at) = (segment.log_len, segment.ext_len, segment.ent_len());
        let (mut bodies, mut contexts, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        let mut placed = Vec::new();
        let mut lsn = None;
        let mut taken = 0usize;
        'pieces: while let Some(piece) = group.queue.front_mut() {
            if piece.drop || piece.snapshot.is_some() || (piece.truncate_from.is_some() && lsn.is_some()) {
                break; // a cut is a job of its own
            }
            let mut used = 0;
            let mut stop = false;
            for entry in &piece.entries {
                let size = entry.body.len() + entry.context.len();
                if taken > 0 && (taken + size > bytes_max || full(&segment, entry)) {
                    stop = true;
                    break;
                }
                taken += size.max(1);
                used += 1;
                let row = place(&mut segment, entry, &mut contexts);
                row::encode_row(&mut rows, gid, segment.base_index, &row);
                if !entry.body.is_empty() {
                    bodies.push(entry.body.clone());
                }
                placed.push(PlacedRow {
                    row,
                    base_index: segment.base_index,
                    base_offset: segment.base_offset,
                    generation: segment.generation,
                    created_ms: segment.created_ms,
                });
            }
            self.queued_bytes -= piece.entries.drain(..used).map(|e| entry_bytes(&e)).sum::<u64>();
            if stop {
                break 'pieces;
            }
            lsn = Some(piece.lsn);
            group.queue.pop_front();
        }
        let stem = format!("{dir}/{}", segment_stem(segment.base_offset, segment.generation));
        let (log, ent, ext): (FilePath, FilePath, FilePath) =
            (format!("{stem}.log").into(), format!("{stem}.ent").into(), format!("{stem}.ext").into());
        let had_ext = group.segments.back().is_some_and(|s| !rolled && s.has_ext);
        if rolled {
            steps.push((DiskOp::CreateNew { path: log.clone() }, SegmentPoint::RollCreate));
            steps.push((DiskOp::CreateNew { path: ent.clone() }, SegmentPoint::RollCreate));
        } else if segment.cut {
            steps.push((DiskOp::Truncate { path: log.clone(), len: u64::from(log_at) }, SegmentPoint::TruncFile));
            if had_ext {
                steps.push((DiskOp::Truncate { path: ext.clone(), len: u64::from(ext_at) }, SegmentPoint::TruncFile));
            }
            steps.push((DiskOp::Truncate { path: ent.clone(), len: ent_at }, SegmentPoint::TruncRows));
            if group.relaxed && !mutant!("relaxed_truncation_unsynced") {
                // No journal settles what was cut: stale rows must not come back behind newer ones.
                for path in [&ent, &log] {
                    steps.push((DiskOp::Fdatasync { path: path.clone() }, SegmentPoint::TruncSync));
                }
            }
        }
        segment.cut = false;
        // Bytes before the rows that point at them.
        if let Some(sums) = &mut segment.sums {
            bodies.iter().for_each(|b| sums.log.update(b));
            sums.ext.update(&contexts);
        }
        if !bodies.is_empty() {
            let hint = log.clone();
            steps.push((DiskOp::Write { path: log, at: u64::from(log_at), bufs: bodies }, SegmentPoint::SegLog));
            let from = if rolled { 0 } else { group.unhinted.min(log_at) };
            group.unhinted = from;
            if segment.log_len - from >= hint_bytes {
                group.unhinted = segment.log_len;
                let (at, len) = (u64::from(from), u64::from(segment.log_len - from));
                steps.push((DiskOp::StartWriteback { path: hint, at, len }, SegmentPoint::WriteBack));
            }
        }
        if !contexts.is_empty() {
            if !had_ext {
                steps.push((DiskOp::CreateNew { path: ext.clone() }, SegmentPoint::RollCreate));
                segment.has_ext = true;
            }
            let bufs = vec![Bytes::from(contexts)];
            steps.push((DiskOp::Write { path: ext, at: u64::from(ext_at), bufs }, SegmentPoint::SegExt));
        }
        let mut bufs = Vec::new();
        if rolled {
            let header = EntHeader {
                gid,
                base_index: segment.base_index,
                base_offset: segment.base_offset,
                prev_term,
                generation: segment.generation,
                created_ms: segment.created_ms,
            };
            bufs.push(Bytes::from(header.encode()));
        }
        bufs.push(Bytes::from(rows));
        if let Some(sums) = &mut segment.sums {
            bufs.iter().for_each(|b| sums.ent.update(b));
        }
        let (at, point) = if rolled { (0, SegmentPoint::RollUse) } else { (ent_at, SegmentPoint::SegEnt) };
        steps.push((DiskOp::Write { path: ent, at, bufs }, point));
        segment.dirty = true;
        let appended = Appended { segment, rolled, placed, lsn, bytes: taken as u64 };
        Job { current: None, steps: steps.into(), reads: VecDeque::new(), then: Then::Append(Box::new(appended)) }
    }

    /// Names that the manifest does not know go before the next append. The manifest that recovery read may have been in
    /// the page cache only, and its other copy may still name them: first both last.
    fn before_stale(&mut self, gid: Gid) -> Vec<(DiskOp, SegmentPoint)> {
        let group = &self.groups[&gid];
        if group.stale.is_empty() || group.manifest_gen == 0 {
            return Vec::new();
        }
        let newest = group.manifest_side.other();
        let path = self.path(gid, &format!("manifest.{}", newest.suffix()));
        let mut steps = vec![(DiskOp::Fdatasync { path }, SegmentPoint::TrimManifest)];
        steps.extend(self.durable_manifest(gid));
        steps
    }

    pub(super) fn appended(&mut self, gid: Gid, done: Appended, out: &mut Effects<SegmentEffect>) {
        let snap_bytes = self.config.snap_bytes;
        let Some(group) = self.groups.get_mut(&gid) else { return };
        group.made = true;
        if done.rolled || done.segment.has_ext != group.segments.back().is_some_and(|s| s.has_ext) {
            group.names_dirty = true;
        }
        for p in &done.placed {
            if group.epochs.last().is_none_or(|e| e.term < p.row.term.0) {
                group.epochs.push(EpochStart { term: p.row.term.0, index: p.row.index, offset: p.row.base_offset });
                // A lost table is made again with what the manifest says of terms.
                group.manifest_dirty = true;
            }
        }
        if done.rolled {
            group.manifest_dirty = true;
            group.segments.push_back(done.segment);
        } else if let Some(last) = group.segments.back_mut() {
            *last = done.segment;
        }
        if let Some(lsn) = done.lsn {
            group.applied_lsn = group.applied_lsn.max(lsn);
            if mutant!("drained_before_sync") {
                group.drained_lsn = lsn;
                out.push(SegmentEffect::Drained(gid, lsn));
            }
        }
        group.bytes_since_snap += done.bytes;
        group.dirty_bytes += done.bytes;
        self.dirty_bytes += done.bytes;
        if group.bytes_since_snap >= snap_bytes && !group.snap_asked {
            group.snap_asked = true;
            out.push(SegmentEffect::WantSnap(gid));
        }
        if let Some(last) = done.placed.last() {
            out.push(SegmentEffect::Placed(gid, last.row.index, done.placed));
        }
    }
}

impl SegmentLimits {
    /// Age at which a segment is full, ms: each has its own part of the jitter, the same after every restart.
    fn roll_ms(&self, gid: Gid, base: EntryIndex) -> i64 {
        let spread = self.jitter_ms.min(self.ms);
        let mut place = [0; 16];
        place[..8].copy_from_slice(&gid.0.to_le_bytes());
        place[8..].copy_from_slice(&base.0.to_le_bytes());
        let taken = if spread == 0 { 0 } else { catchwater_base::hash::xxh3_64(&place) % spread };
        i64::try_from(self.ms - taken).unwrap_or(i64::MAX)
    }
}

fn entry_bytes(entry: &NewEntry) -> u64 {
    (entry.body.len() + entry.context.len()) as u64
}

/// Bytes of a piece's entries.
pub(super) fn piece_bytes(piece: &Persisted) -> u64 {
    piece.entries.iter().map(entry_bytes).sum()
}

/// Gives the entry its place at the end of the segment; appends its context record to `contexts`.
fn place(segment: &mut Segment, entry: &NewEntry, contexts: &mut Vec<u8>) -> Row {
    assert_eq!(entry.index, segment.last_index().next(), "rows are dense");
    assert_eq!(entry.base_offset, segment.next_offset, "offsets are dense");
    assert!(entry.term.0 >= segment.last_term, "terms never fall");
    let ext_len = if entry.context.is_empty() {
        0
    } else {
        assert!(entry.context.len() <= row::CONTEXT_BYTES_MAX, "a context fits its length field");
        row::encode_ext(contexts, entry.index, &entry.context);
        entry.context.len() + row::EXT_CRC_BYTES
    };
    if entry.kind == EntryKind::Data {
        segment.first_ts.get_or_insert(entry.max_ts);
        segment.max_ts = segment.max_ts.max(entry.max_ts);
        segment.min_ts = segment.min_ts.min(entry.max_ts);
    }
    let placed = Row {
        index: entry.index,
        term: entry.term,
        kind: entry.kind,
        flags: entry.flags,
        base_offset: entry.base_offset,
        count: entry.count,
        max_ts: segment.max_ts,
        pos: segment.log_len,
        len: entry.body.len() as u32,
        ext_pos: segment.ext_len,
        ext_len: ext_len as u16,
    };
    segment.control |= entry.flags & row_flag::CONTROL != 0;
    segment.rows += 1;
    segment.last_term = entry.term.0;
    segment.next_offset = entry.end_offset();
    segment.log_len += entry.body.len() as u32;
    segment.ext_len += ext_len as u32;
    placed
}
