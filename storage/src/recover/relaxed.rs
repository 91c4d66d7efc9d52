//! A relaxed group after a power loss: rows behind the last SYNCED are claims, each proved by its bytes or cut.

use super::group::{Found, Reader};
use super::journal::GroupFrames;
use super::{Layout, RelaxedLoss};
use crate::disk::{Disk, DiskError, DiskExt, DiskFault, DiskOp};
use crate::entry::{EntryKind, RecoveredGroup, Row, Verdict, row_flag};
use crate::format::manifest::SegmentState;
use crate::format::row;
use crate::segment::{FoundGroup, Segment, group_dir, segment_stem};
use catchwater_record::{EntryIndex, Offset};

/// Relaxed groups synced one by one at a start; more are synced together with everything else.
const ONE_BY_ONE_MAX: usize = 64;

/// What relaxed groups hold behind their last SYNCED, durable, and what was cut of it, gone: what is left is served as
/// committed from now on, and the window of this life begins empty. Before `boot.state` names this boot: a death in here
/// is found as the same power loss again, one behind it as the death of a process, whose rows are trusted.
pub fn settle_relaxed(
    disk: &dyn Disk,
    layout: &Layout,
    groups: &mut [(RecoveredGroup, FoundGroup)],
) -> Result<(), DiskError> {
    let mut open: Vec<_> = groups
        .iter_mut()
        .filter_map(|(group, files)| {
            let (last, quarantined) = (group.last_index(), files.quarantine.is_some());
            let behind = files.loose.is_some_and(|l| l.dirty || l.synced != last) && !quarantined && files.made;
            behind.then_some((last, files))
        })
        .collect();
    let together = open.len() > ONE_BY_ONE_MAX;
    for (last, files) in &mut open {
        let dir = group_dir(&layout.groups(), files.gid);
        for name in files.stale.drain(..) {
            disk.unlink(&format!("{dir}/{name}"))?;
        }
        for segment in files.segments.iter_mut().filter(|s| s.state == SegmentState::Active) {
            let stem = segment_stem(segment.base_offset, segment.generation);
            let ends =
                [("ent", segment.ent_len()), ("log", u64::from(segment.log_len)), ("ext", u64::from(segment.ext_len))];
            for (ext, len) in ends.into_iter().filter(|(ext, _)| *ext != "ext" || segment.has_ext) {
                let path = format!("{dir}/{stem}.{ext}");
                match disk.length(&path) {
                    // A table whose name the power cut took: made again from the batches, it is written by `settle`.
                    Err(e) if e.kind == DiskFault::NotFound && ext == "ent" => continue,
                    Err(e) => return Err(e),
                    Ok(length) if length > len => disk.truncate(&path, len)?,
                    Ok(_) => {}
                }
                if !together {
                    disk.fdatasync(&path)?;
                }
            }
            segment.cut = false;
        }
        if !together {
            disk.sync_dir(&dir)?;
        }
        if let Some(loose) = &mut files.loose {
            loose.synced = *last;
        }
    }
    if together {
        disk.run(DiskOp::SyncFs { path: layout.root.as_str().into() })?;
    } else if !open.is_empty() {
        disk.sync_dir(&layout.groups())?;
    }
    Ok(())
}

/// What was cut.
#[derive(Default)]
pub(super) struct CutTail {
    /// Segments that are gone whole: their files belong to nothing.
    pub stems: Vec<String>,
    pub loss: Option<RelaxedLoss>,
}

impl Reader<'_> {
    /// Keeps the proved prefix of the open segments. It was acknowledged within one flush window of the loss, or never;
    /// the rows behind are void even where their bytes happen to be there.
    pub(super) fn cut_unsynced(
        &mut self,
        segments: &mut Vec<Found>,
        frames: &GroupFrames,
    ) -> Result<CutTail, DiskError> {
        let mut out = CutTail::default();
        let synced = frames.loose.map_or(EntryIndex::ZERO, |(l, _)| l.synced);
        let dirty = frames.loose.is_none_or(|(l, _)| l.dirty);
        let mut loss = RelaxedLoss { dirty, ..RelaxedLoss::default() };
        let mut bad = false;
        let mut keep = 0;
        for found in segments.iter_mut() {
            if found.segment.state != SegmentState::Active {
                keep += 1;
                continue;
            }
            // A table without its file of batches: even rows without bytes have no place to be followed in.
            let log = format!("{}.log", segment_stem(found.segment.base_offset, found.segment.generation));
            match self.disk.length(&self.path(&log)) {
                Err(e) if e.kind == DiskFault::NotFound => bad |= found.segment.base_index > synced,
                other => drop(other?),
            }
            let mut proved = 0;
            for row in &found.rows {
                bad = bad || (row.index > synced && !self.is_proved(&found.segment, row)?);
                if bad {
                    loss.entries += 1;
                    loss.records += u64::from(row.count);
                } else {
                    proved += 1;
                }
            }
            found.rows.truncate(proved);
            if proved == 0 {
                out.stems.push(segment_stem(found.segment.base_offset, found.segment.generation));
            } else {
                found.settle();
                keep += 1;
            }
        }
        // Once one is cut, all behind it are: what is left is one run from the front.
        segments.truncate(keep);
        if bad && frames.mark_lost {
            // Whether these were claims or durable, nobody knows any more.
            self.worse(Verdict::Damaged);
        }
        loss.end = segments.last().map_or(Offset::ZERO, |f| f.segment.next_offset);
        let last = segments.last().map_or(EntryIndex::ZERO, |f| f.segment.last_index());
        let commit = frames.hard.map_or(EntryIndex::ZERO, |(hard, _)| hard.commit);
        if !bad && commit > last && dirty {
            // Not even the rows are left.
            loss.entries = commit.0 - last.0;
        }
        out.loss = (dirty || loss.entries > 0).then_some(loss);
        Ok(out)
    }

    fn is_proved(&self, segment: &Segment, row: &Row) -> Result<bool, DiskError> {
        if row.flags & row_flag::DAMAGED != 0 || self.context(segment, row)?.is_none() {
            return Ok(false);
        }
        if row.kind != EntryKind::Data {
            return Ok(true);
        }
        let name = format!("{}.log", segment_stem(segment.base_offset, segment.generation));
        let body = match self.disk.read(&self.path(&name), u64::from(row.pos), row.len as usize) {
            Err(e) if e.kind == DiskFault::NotFound => return Ok(false),
            other => other?,
        };
        Ok(body.len() == row.len as usize && row::batch_matches(row, &body))
    }
}
