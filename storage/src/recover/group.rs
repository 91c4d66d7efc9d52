//! One group's part of recovery: manifest, segments, rows, and the journal's frames over them.

mod reader;

use super::forgiving::Forgiving;
use super::journal::GroupFrames;
use super::{ASIDE, Layout, RecoverError, RelaxedLoss, SALVAGE_FILE};
use crate::disk::{Disk, DiskExt, DiskFault};
use crate::entry::{
    EntryKind, EpochStart, GroupSpec, Hard, NewEntry, PrefixSnapshot, RecoveredGroup, Row, SegmentInfo, Verdict,
    row_flag,
};
use crate::fences::SegmentRows;
use crate::format::manifest::{Manifest, ManifestSegment, SegmentState};
use crate::format::slot::{self, SlotKind};
use crate::format::snap::Snap;
use crate::journal::Persisted;
use crate::segment::{FoundGroup, Segment, group_dir, segment_stem};
use bytes::Bytes;
use catchwater_record::{EntryIndex, Gid, Offset, PartitionId, TopicId};
use std::collections::BTreeSet;

/// What is known to be lost besides this group's own frames.
#[derive(Clone, Copy)]
pub(super) struct Loss {
    pub unknown: bool,
    pub files: bool,
    /// The page cache is lost, or nobody can tell.
    pub power: bool,
    /// Entries in flushes up to here were durable in files.
    pub checkpoint_lsn: u64,
}

pub(super) struct Built {
    pub group: RecoveredGroup,
    pub found: FoundGroup,
    /// Tables made again, by path: written before anything reads them.
    pub rebuilt: Vec<(String, Bytes)>,
    pub lost: Option<RelaxedLoss>,
}

/// A segment with its rows while the group is put together.
pub(super) struct Found {
    pub segment: Segment,
    pub rows: Vec<Row>,
    /// In the place of `rows`, where nobody wants all of them and the file has them as they should be: of a long log a start
    /// has no more in memory than those of one segment.
    pub fenced: Option<SegmentRows>,
    /// Its table, with the footer, was lost.
    pub table_lost: bool,
    /// The file has these rows.
    pub stored: bool,
}

pub(super) struct Reader<'a> {
    pub disk: &'a dyn Disk,
    dir: String,
    pub gid: Gid,
    verdict: Verdict,
    /// Where terms begin, as the manifest says.
    epochs: Vec<EpochStart>,
    rebuilt: Vec<(String, Bytes)>,
    /// What the manifest says is not what is there any more.
    manifest_stale: bool,
    keep: KeepRows,
}

/// Which rows are handed out. In every case those are that the file does not have as they should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum KeepRows {
    /// All of them: for who compares them.
    All,
    /// What a log begins with: of what is sealed, fences.
    Start,
    /// Fences alone, for who reads the table again; and nothing else that grows with the number of entries in files.
    Look,
}

pub(super) fn build(
    disk: &dyn Disk,
    layout: &Layout,
    gid: Gid,
    mut frames: GroupFrames,
    loss: Loss,
    keep: KeepRows,
) -> Result<Built, RecoverError> {
    let dir = group_dir(&layout.groups(), gid);
    let forgiving = Forgiving::new(disk);
    let mut reader = Reader {
        disk: &forgiving,
        dir,
        gid,
        verdict: Verdict::Ok,
        epochs: Vec::new(),
        rebuilt: Vec::new(),
        manifest_stale: false,
        keep,
    };
    let names: BTreeSet<String> = match disk.list(&reader.dir) {
        Ok(names) => names.into_iter().collect(),
        Err(e) if e.kind == DiskFault::NotFound => BTreeSet::new(),
        Err(e) => return Err(e.into()),
    };
    let all_names = names.clone();
    let made = !matches!(disk.list(&reader.dir), Err(e) if e.kind == DiskFault::NotFound);
    let (manifest_a, manifest_b) = (reader.all("manifest.a")?, reader.all("manifest.b")?);
    // It may be the newer one.
    let manifest_unread = !forgiving.unreadable().is_empty();
    if manifest_unread {
        reader.verdict = Verdict::Damaged;
    }
    let pair = slot::newest(SlotKind::Manifest, manifest_a.as_deref(), manifest_b.as_deref());
    let manifest = pair.newest.as_ref().and_then(|s| Manifest::decode(&s.payload)).filter(|m| m.gid == gid.0);
    let generation = if manifest.is_some() { pair.newest.as_ref().map_or(0, |s| s.generation) } else { 0 };

    let spec = match (&manifest, &frames.create) {
        (Some(m), _) => GroupSpec {
            topic: m.topic,
            partition: PartitionId(m.partition),
            incarnation: m.incarnation,
            conf: Bytes::copy_from_slice(&m.conf),
            conf_index: m.conf_index,
        },
        (None, Some((spec, _))) => spec.clone(),
        (None, None) => {
            // Neither manifest nor CREATE: nobody knows any more whose log this is.
            reader.verdict = Verdict::Damaged;
            GroupSpec {
                topic: TopicId::NONE,
                partition: PartitionId(0),
                incarnation: 0,
                conf: Bytes::new(),
                conf_index: EntryIndex::ZERO,
            }
        }
    };
    let mut fixed = manifest.unwrap_or(Manifest { first_index: EntryIndex(1), ..Manifest::default() });
    // A prefix snapshot that is in the journal and not in files yet: what files hold is void.
    let begins = frames.snapshot.take().filter(|(s, _)| fixed.first_index <= s.index);
    let names = if begins.is_some() { BTreeSet::new() } else { names };
    if let Some((snapshot, _)) = &begins {
        fixed = begun_by(&fixed, snapshot);
    }
    if frames.snapshot_lost {
        reader.verdict = Verdict::Damaged;
    }
    reader.epochs.clone_from(&fixed.epochs);

    // Sealed segments as the manifest names them.
    let mut segments: Vec<Found> = Vec::new();
    let mut known: BTreeSet<String> = ["manifest.a", "manifest.b"].map(str::to_owned).into();
    for listed in fixed.segments.iter().filter(|s| s.state != SegmentState::Active) {
        let stem = segment_stem(listed.base_offset, listed.generation);
        known.extend(["log", "ent", "ext", "txn"].map(|ext| format!("{stem}.{ext}")));
        let prev_term = segments.last().map_or(fixed.prev_term, |f| f.segment.last_term);
        let next = fixed.segments.iter().find(|s| s.base_index > listed.base_index);
        let next = next.map(|s| (s.base_index, s.base_offset));
        segments.push(reader.sealed(listed, (prev_term, next), names.contains(&format!("{stem}.ext")))?);
    }
    // Where one ends whose footer is lost with its table, the next one says.
    for Found { segment, .. } in &mut segments {
        let Some(next) = fixed.segments.iter().find(|s| s.base_index > segment.base_index) else { continue };
        if segment.next_offset != next.base_offset {
            reader.worse(Verdict::Damaged);
            segment.next_offset = next.base_offset;
            segment.gaps = (next.base_index.0 - segment.base_index.0).saturating_sub(u64::from(segment.rows));
        }
    }
    let sealed_end = segments.last().map_or(fixed.first_index.prev(), |f| f.segment.last_index());

    // The journal from its first frame of this group on; what is sealed or trimmed needs no frame.
    frames.entries = frames.entries.split_off(&sealed_end.next());
    frames.lost = frames.lost.split_off(&sealed_end.next());
    let cut = [frames.entries.keys().next(), frames.lost.keys().next()].into_iter().flatten().min().copied();

    // Open segments, each only if it continues the one before, and only up to the cut.
    let loose = frames.loose.map(|(loose, _)| loose);
    let claims = loss.power && (loose.is_some() || frames.mark_lost);
    let mut hints: Vec<Found> = Vec::new();
    let mut end = End::of(&segments, &fixed);
    let mut stems: Vec<(Offset, String)> = names
        .iter()
        .filter_map(|n| n.strip_suffix(".ent"))
        .filter(|stem| !known.contains(&format!("{stem}.ent")))
        .filter_map(|stem| Some((Offset(stem.parse().ok()?), stem.to_owned())))
        .collect();
    // One that the manifest names and that has no table any more.
    let listed_open = || fixed.segments.iter().filter(|s| s.state == SegmentState::Active);
    stems.extend(listed_open().map(|s| (s.base_offset, segment_stem(s.base_offset, s.generation))));
    stems.sort();
    stems.dedup();
    for (at, (_, stem)) in stems.iter().enumerate() {
        let has_ext = names.contains(&format!("{stem}.ext"));
        let listed = listed_open().find(|s| segment_stem(s.base_offset, s.generation) == *stem);
        let opened = reader.open(stem, has_ext)?;
        // It ends where the journal takes over, or where the next one begins.
        let next = match stems.get(at + 1) {
            Some((offset, next)) => {
                reader.base_index(next)?.or(listed_open().find(|s| s.base_offset == *offset).map(|s| s.base_index))
            }
            None => None,
        };
        let bound = [cut, next].into_iter().flatten().min();
        // What the table of a relaxed group has not, but for rows that the manifest names, was never acknowledged, or a
        // claim that the power took: nothing is made again.
        let have = opened.as_ref().map_or(0, |f| f.rows.len());
        let claim = (loose.is_some() || claims) && listed.is_none_or(|s| have >= s.rows as usize);
        let found = if claim { opened } else { reader.complete(opened, listed, stem, (end, bound), has_ext)? };
        let Some(mut found) = found else { continue };
        if found.segment.base_index != end.index.next() || found.segment.base_offset != end.offset {
            // Not the continuation; with a cut in front of it, it is a hint that may still save a lost frame.
            hints.push(found);
            continue;
        }
        let keep = found.rows.iter().take_while(|r| cut.is_none_or(|c| r.index < c)).count();
        if keep < found.rows.len() {
            hints.push(Found {
                segment: found.segment.clone(),
                rows: found.rows.clone(),
                fenced: None,
                table_lost: false,
                stored: true,
            });
            found.rows.truncate(keep);
        }
        if keep == 0 {
            continue; // made anew when its entries are written again
        }
        known.extend(["log", "ent", "ext", "txn"].map(|ext| format!("{stem}.{ext}")));
        found.settle();
        end =
            End { index: found.segment.last_index(), offset: found.segment.next_offset, term: found.segment.last_term };
        segments.push(found);
    }
    let mut lost = None;
    if claims {
        let cut = reader.cut_unsynced(&mut segments, &frames)?;
        cut.stems.iter().for_each(|stem| known.retain(|name| !name.starts_with(&format!("{stem}."))));
        end = End::of(&segments, &fixed);
        lost = cut.loss;
    }
    let mut prev_term = fixed.prev_term;
    for found in &mut segments {
        if found.segment.state == SegmentState::Active {
            reader.mend(found, prev_term)?;
        }
        prev_term = found.segment.last_term;
    }

    // The journal's frames over the rows, in order and without a hole.
    let mut journaled: Vec<(NewEntry, u64)> = Vec::new();
    let mut next = end;
    // It had files, and has none: what the journal still has is not all there was.
    let absent = generation == 0 && segments.is_empty() && begins.is_none();
    let first = cut.is_none_or(|first| first > end.index.next());
    let gone = absent && first && {
        // A commit index in a flush that every file is durable beyond: relaxed ones may have lost theirs rightly.
        let settled = frames.hard.is_some_and(|(h, lsn)| h.commit > EntryIndex::ZERO && lsn <= loss.checkpoint_lsn);
        cut.is_some()
            || frames.create.is_none()
            || frames.in_files
            || match loose {
                Some(loose) => loose.synced > EntryIndex::ZERO,
                None => settled,
            }
    };
    if gone {
        reader.worse(Verdict::Suspect);
    }
    let last_claimed = [frames.entries.keys().next_back(), frames.lost.keys().next_back()].into_iter().flatten().max();
    if let Some(last) = last_claimed.copied() {
        let mut at = next.index.next();
        while at <= last {
            let entry = match frames.entries.remove(&at) {
                Some(found) => Some(found),
                None => reader.rescue(&hints, at)?.map(|e| (e, frames.lost.get(&at).copied().unwrap_or(0))),
            };
            match entry {
                Some((mut entry, lsn)) if entry.base_offset == next.offset && entry.term.0 >= next.term => {
                    // Parts of it are kept for long. The body stays a slice of its journal file until it is in a segment: see `Log::own`.
                    entry.context = Bytes::copy_from_slice(&entry.context);
                    next = End { index: at, offset: entry.end_offset(), term: entry.term.0 };
                    journaled.push((entry, lsn));
                }
                _ => {
                    // Claimed durable and not to be found: keep what is proved, drop nothing from the disk.
                    reader.worse(Verdict::Suspect);
                    break;
                }
            }
            at = at.next();
        }
    }
    let files = End::of(&segments, &fixed);
    if !journaled.is_empty() && (files.index, files.offset) != (end.index, end.offset) {
        // A bad last row was made again from a batch of an older tail: the journal's next entry says so.
        reader.worse(Verdict::Damaged);
    }
    if loss.unknown || names.contains(SALVAGE_FILE) {
        reader.worse(Verdict::Suspect);
    }

    let mut hard = frames.hard.map_or(Hard::default(), |(hard, _)| hard);
    let has_entries = next.index >= EntryIndex(1) && next.index >= fixed.first_index;
    // A relaxed group's first entries may be in segments before its first HARD frame is durable; nothing was acknowledged.
    let never = frames.hard.is_none() && has_entries && loose.is_none();
    if frames.hard_lost || loss.files || never {
        reader.worse(Verdict::HardStateUncertain);
    }
    if hard.term < next.term {
        hard = Hard { term: next.term, vote: 0, ..hard };
    }
    // What is sealed was committed.
    hard.commit = hard.commit.max(sealed_end.max(fixed.first_index.prev())).min(next.index.max(hard.commit));

    let snaps: Vec<EntryIndex> =
        names.iter().filter_map(|n| n.strip_suffix(".snap")?.parse().ok()).map(EntryIndex).collect();
    known.insert(SALVAGE_FILE.to_owned());
    known.extend(snaps.iter().map(|i| format!("{:020}.snap", i.0)));
    let brought = begins.as_ref().and_then(|(s, _)| Snap::decode(&s.snap)).map(|s| (s.index, s.payload));
    let snap = match brought {
        Some(snap) => Some(snap),
        None => match reader.newest_snap(&snaps, next.index)? {
            Some(snap) => Some(reader.with_aborted(&segments, snap)?),
            None => None,
        },
    };
    let snap_index = snap.as_ref().map_or(EntryIndex::ZERO, |(i, _)| *i);
    let mut since_snap = reader.since(&segments, snap_index)?;
    let bytes_since_snap = since_snap.iter().map(|(row, _, _)| u64::from(row.len)).sum();
    if keep == KeepRows::Look {
        since_snap = Vec::new();
    }

    // Kept out of the way of the segment writer, and of the journal's recycling, until somebody decides.
    let quarantine = matches!(reader.verdict, Verdict::Suspect | Verdict::Damaged).then(|| {
        let rest = std::mem::take(&mut frames.entries).into_values().map(|(entry, _)| entry);
        journaled.iter().map(|(entry, _)| entry.clone()).chain(rest).collect()
    });
    let epochs = epochs(&fixed, &segments);

    let group = RecoveredGroup {
        gid,
        spec: spec.clone(),
        hard,
        verdict: reader.verdict,
        log_start: fixed.log_start,
        deletes_gone: fixed.deletes_gone,
        first_index: fixed.first_index,
        prev_term: fixed.prev_term,
        epochs: epochs.clone(),
        segments: segments
            .iter_mut()
            .map(|f| SegmentInfo {
                rows: reader.take_rows(f),
                base_index: f.segment.base_index,
                base_offset: f.segment.base_offset,
                generation: f.segment.generation,
                sealed: f.segment.state != SegmentState::Active,
                compacted: f.segment.state == SegmentState::Compacted,
                created_ms: f.segment.created_ms,
            })
            .collect(),
        journaled: journaled.iter().map(|(e, _)| e.clone()).collect(),
        snap,
        since_snap,
    };
    let mut pieces: Vec<Persisted> = Vec::new();
    pieces.extend(begins.map(|(snapshot, lsn)| Persisted { snapshot: Some(snapshot), ..Persisted::empty(gid, lsn) }));
    for (entry, lsn) in journaled {
        match pieces.last_mut() {
            // A rescued entry may carry an older number: it rides with the piece before it.
            Some(last) if last.lsn >= lsn => last.entries.push(entry),
            _ => pieces.push(Persisted { entries: vec![entry], ..Persisted::empty(gid, lsn) }),
        }
    }
    let found = FoundGroup {
        gid,
        spec,
        made,
        manifest: (generation, pair.write_to),
        manifest_exists: [manifest_a.is_some(), manifest_b.is_some()],
        manifest_whole: [&manifest_a, &manifest_b].into_iter().all(|copy| {
            let slot = copy.as_ref().and_then(|bytes| slot::decode(SlotKind::Manifest, bytes));
            slot.and_then(|s| Manifest::decode(&s.payload)).is_some_and(|m| m.gid == gid.0)
        }) && !reader.manifest_stale,
        log_start: fixed.log_start,
        deletes_gone: fixed.deletes_gone,
        first_index: fixed.first_index,
        first_offset: End::of(&[], &fixed).offset,
        prev_term: fixed.prev_term,
        epochs,
        segments: segments.into_iter().map(|f| f.segment).collect(),
        quarantine,
        begins_unknown: frames.snapshot_lost || manifest_unread,
        gone,
        mend: Vec::new(),
        loose,
        stale: all_names.into_iter().filter(|n| !known.contains(n) && !n.ends_with(ASIDE)).collect(),
        snaps,
        bytes_since_snap,
        journaled: pieces,
    };
    let (mut found, mut rebuilt) = (found, reader.rebuilt);
    if found.quarantine.is_some() {
        found.mend = std::mem::take(&mut rebuilt);
    }
    Ok(Built { group, found, rebuilt, lost })
}

/// A manifest as it is when the snapshot has gone to files.
fn begun_by(before: &Manifest, snapshot: &PrefixSnapshot) -> Manifest {
    Manifest {
        log_start: snapshot.log_start.min(snapshot.next_offset),
        first_index: snapshot.index.next(),
        prev_term: snapshot.term,
        epochs: snapshot.epochs.clone(),
        segments: vec![ManifestSegment {
            base_index: snapshot.index.next(),
            base_offset: snapshot.next_offset,
            generation: 0,
            state: SegmentState::Active,
            lengths: 0,
            rows: 0,
            last_term: snapshot.term,
            sealed_at_ms: 0,
            max_ts: -1,
        }],
        ..before.clone()
    }
}

/// Where the log ends so far.
#[derive(Clone, Copy)]
struct End {
    index: EntryIndex,
    offset: Offset,
    term: u32,
}

impl End {
    fn of(segments: &[Found], fixed: &Manifest) -> End {
        // The log start may lie inside the first segment: where that one begins, its manifest row says.
        let first = fixed.segments.iter().find(|s| s.base_index == fixed.first_index);
        let offset = first.map_or(fixed.log_start, |s| s.base_offset);
        segments.last().map_or(End { index: fixed.first_index.prev(), offset, term: fixed.prev_term }, |f| End {
            index: f.segment.last_index(),
            offset: f.segment.next_offset,
            term: f.segment.last_term,
        })
    }
}

/// Terms below the first row come from the manifest, the others from the rows.
fn epochs(fixed: &Manifest, segments: &[Found]) -> Vec<EpochStart> {
    let mut out: Vec<EpochStart> = fixed.epochs.iter().filter(|e| e.index < fixed.first_index).copied().collect();
    let of_row = |r: &Row| EpochStart { term: r.term.0, index: r.index, offset: r.base_offset };
    for found in segments {
        let fences = found.fenced.iter().flat_map(|rows| rows.fences());
        // A term begins at a fence.
        let fences = fences.map(|f| EpochStart { term: f.term, index: f.index, offset: f.base_offset });
        for first in fences.chain(found.rows.iter().map(of_row)) {
            if out.last().is_none_or(|e| e.term < first.term) {
                let listed = fixed.epochs.iter().find(|e| e.term == first.term && e.index <= first.index);
                out.push(listed.copied().unwrap_or(first));
            }
        }
    }
    out
}

/// Bytes of `.log` up to the end of the row's batch.
fn log_end(row: &Row) -> u32 {
    if row.kind == EntryKind::Gap { row.pos } else { row.pos.saturating_add(row.len) }
}

fn end_of(row: &Row) -> Offset {
    row.base_offset.plus(u64::from(row.count))
}

impl Found {
    /// Makes the segment agree with the rows that were kept.
    pub(super) fn settle(&mut self) {
        let s = &mut self.segment;
        s.control = self.rows.iter().any(|r| r.flags & row_flag::CONTROL != 0);
        s.rows = self.rows.len() as u32;
        s.gaps = 0;
        // A row has the largest timestamp so far, not its own.
        s.min_ts = if self.rows.iter().any(|r| r.kind == EntryKind::Data) { -1 } else { i64::MAX };
        s.first_ts = self.rows.iter().find(|r| r.kind == EntryKind::Data).map(|r| r.max_ts);
        s.sums = None;
        if let Some(last) = self.rows.last() {
            s.last_term = last.term.0;
            s.next_offset = end_of(last);
            s.max_ts = last.max_ts;
            s.log_len = log_end(last);
            s.ext_len = last.ext_pos + u32::from(last.ext_len);
        }
    }
}
