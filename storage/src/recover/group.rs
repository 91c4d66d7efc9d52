//! One group's part of recovery: manifest, segments, rows, and the journal's frames over them.

use super::forgiving::Forgiving;
use super::journal::GroupFrames;
use super::rebuild::{self, Lost, LostEnd, open_found};
use super::{ASIDE, Layout, RecoverError, RelaxedLoss, SALVAGE_FILE};
use crate::compact::rows::last_index;
use crate::disk::{Disk, DiskError, DiskExt, DiskFault};
use crate::entry::{
    EntryKind, EpochStart, GroupSpec, Hard, NewEntry, PrefixSnapshot, RecoveredGroup, Row, SegmentInfo, Verdict,
    row_flag,
};
use crate::format::manifest::{Manifest, ManifestSegment, SegmentState};
use crate::format::row::{self, EntHeader, FOOTER_BYTES, Footer, HEADER_BYTES, ROW_BYTES};
use crate::format::slot::{self, SlotKind};
use crate::format::snap::Snap;
use crate::journal::Persisted;
use crate::segment::{FoundGroup, Segment, group_dir, segment_stem};
use bytes::Bytes;
use catchwater_record::batch::HEADER_BYTES as BATCH_HEADER_BYTES;
use catchwater_record::crc::Crc64;
use catchwater_record::{BatchView, EntryIndex, Gid, LeaderEpoch, Offset, PartitionId, TopicId};
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
    /// Its table, with the footer, was lost.
    pub table_lost: bool,
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
}

pub(super) fn build(
    disk: &dyn Disk,
    layout: &Layout,
    gid: Gid,
    mut frames: GroupFrames,
    loss: Loss,
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
            hints.push(Found { segment: found.segment.clone(), rows: found.rows.clone(), table_lost: false });
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
    let since_snap = reader.since(&segments, snap_index)?;

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
            .iter()
            .map(|f| SegmentInfo {
                base_index: f.segment.base_index,
                base_offset: f.segment.base_offset,
                generation: f.segment.generation,
                sealed: f.segment.state != SegmentState::Active,
                compacted: f.segment.state == SegmentState::Compacted,
                created_ms: f.segment.created_ms,
                rows: f.rows.clone(),
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
        bytes_since_snap: group.since_snap.iter().map(|(row, _, _)| u64::from(row.len)).sum(),
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
    for row in segments.iter().flat_map(|f| &f.rows) {
        let term = row.term.0;
        if out.last().is_none_or(|e| e.term < term) {
            let listed = fixed.epochs.iter().find(|e| e.term == term && e.index <= row.index);
            out.push(listed.copied().unwrap_or(EpochStart { term, index: row.index, offset: row.base_offset }));
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

impl Reader<'_> {
    pub(super) fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.dir)
    }

    pub(super) fn all(&self, name: &str) -> Result<Option<Bytes>, DiskError> {
        self.disk.read_all(&self.path(name))
    }

    /// A file that was made again, by its name.
    pub(super) fn made_again(&mut self, name: &str, bytes: Bytes) {
        self.rebuilt.push((self.path(name), bytes));
    }

    /// The worst verdict stays: damaged over suspect over uncertain over ok.
    pub(super) fn worse(&mut self, verdict: Verdict) {
        let rank = |v| match v {
            Verdict::Ok => 0,
            Verdict::HardStateUncertain => 1,
            Verdict::Suspect => 2,
            Verdict::Damaged => 3,
        };
        if rank(verdict) > rank(self.verdict) {
            self.verdict = verdict;
        }
    }

    /// `next` = where the segment behind it begins, if the manifest names one.
    fn sealed(
        &mut self,
        listed: &ManifestSegment,
        (prev_term, next): (u32, Option<(EntryIndex, Offset)>),
        has_ext: bool,
    ) -> Result<Found, DiskError> {
        let stem = segment_stem(listed.base_offset, listed.generation);
        let ent = self.all(&format!("{stem}.ent"))?.unwrap_or_default();
        let header = EntHeader::decode(&ent).filter(|h| h.gid == self.gid && h.base_index == listed.base_index);
        let rows_end = HEADER_BYTES + listed.rows as usize * ROW_BYTES;
        let footer = ent.get(rows_end..rows_end + FOOTER_BYTES).and_then(Footer::decode);
        let log_len = match self.disk.length(&self.path(&format!("{stem}.log"))) {
            Err(e) if e.kind == DiskFault::NotFound => 0,
            other => other?,
        };
        let mut damaged = footer.is_none_or(|f| log_len < f.log_len || f.rows != listed.rows);
        let mut bad_rows = header.is_none();
        let mut rows: Vec<Option<Row>> = Vec::new();
        // A table that cannot hold the rows it should has lost them all at once: no row is guessed.
        let fit = ent.len().saturating_sub(HEADER_BYTES) / ROW_BYTES;
        damaged |= fit < listed.rows as usize;
        for i in 0..(listed.rows as usize).min(fit) {
            let at = HEADER_BYTES + i * ROW_BYTES;
            let row = ent.get(at..).and_then(|bytes| row::decode_row(bytes, self.gid, listed.base_index));
            rows.push(row);
        }
        // A gap row covers a run, so a row's index follows from the rows before it; one that cannot be read covers what
        // the next one leaves.
        let (mut at, mut sure) = (listed.base_index, true);
        for row in &mut rows {
            *row = row.filter(|r| if sure { r.index == at } else { r.index >= at });
            sure = row.is_some() || listed.generation == 0;
            at = row.map_or(at, |r| last_index(&r)).next();
        }
        let segment = Segment {
            base_index: listed.base_index,
            base_offset: listed.base_offset,
            generation: listed.generation,
            created_ms: header.map_or(0, |h| h.created_ms),
            state: listed.state,
            rows: listed.rows,
            gaps: footer.map_or(0, |f| (f.last_index.0 + 1).saturating_sub(listed.base_index.0 + u64::from(f.rows))),
            last_term: listed.last_term,
            next_offset: footer.map_or(listed.base_offset, |f| f.next_offset),
            max_ts: listed.max_ts,
            min_ts: footer.map_or(-1, |f| f.min_ts),
            first_ts: None,
            log_len: footer.map_or(u32::try_from(log_len).unwrap_or(u32::MAX), |f| f.log_len as u32),
            ext_len: footer.map_or(0, |f| f.ext_len),
            has_ext,
            txn_len: footer.map_or(0, |f| f.txn_len),
            control: false,
            sealed_at_ms: listed.sealed_at_ms,
            cut: false,
            dirty: false,
            sums: None,
        };
        let mut found = Found { segment, rows: Vec::with_capacity(rows.len()), table_lost: footer.is_none() };
        for (i, row) in rows.iter().enumerate() {
            let row = match row {
                Some(row) => *row,
                None => {
                    bad_rows = true;
                    let next = rows[i + 1..].iter().flatten().next().copied();
                    let (row, sure) = self.lost_row(&found, next, footer)?;
                    damaged |= !sure;
                    row
                }
            };
            found.rows.push(row);
        }
        if damaged || bad_rows {
            let header = header.unwrap_or(EntHeader {
                gid: self.gid,
                base_index: listed.base_index,
                base_offset: listed.base_offset,
                prev_term,
                generation: listed.generation,
                created_ms: listed.sealed_at_ms,
            });
            let footers = (footer.filter(|_| !damaged), footer.filter(|f| f.rows == listed.rows));
            damaged = !self.sealed_again(&mut found, &header, (listed, next), footers, &stem)?;
        } else if footer.is_none() && !rows.is_empty() {
            // The rows themselves say where the segment ends.
            let generation_end = found.rows.last().map(end_of);
            found.segment.next_offset = generation_end.unwrap_or(listed.base_offset);
        }
        if damaged {
            self.worse(Verdict::Damaged);
        }
        found.segment.control = found.rows.iter().any(|r| r.flags & row_flag::CONTROL != 0);
        Ok(found)
    }

    /// Makes the table of a sealed segment again: from its rows, if those are sure and agree with the footer, else from the
    /// batches. False: it cannot be.
    fn sealed_again(
        &mut self,
        found: &mut Found,
        header: &EntHeader,
        (listed, next): (&ManifestSegment, Option<(EntryIndex, Offset)>),
        (sure, footer): (Option<Footer>, Option<Footer>),
        stem: &str,
    ) -> Result<bool, DiskError> {
        let path = self.path(&format!("{stem}.ent"));
        if let Some(footer) = sure {
            let bytes = rebuild::encode(header, &found.rows, Some(footer));
            if Footer::decode(&bytes[bytes.len() - FOOTER_BYTES..]) == Some(footer) {
                self.rebuilt.push((path, bytes));
                return Ok(true);
            }
        }
        let end = LostEnd::Sealed { rows: found.segment.rows, last_term: found.segment.last_term };
        let lost = Lost { stem, header: *header, epochs: &self.epochs, end };
        let mut made = self.rebuild(&lost)?;
        if let (None, Some(next), 1..) = (&made, next, header.generation) {
            made = self.rebuild_thinned(&lost, listed, next, footer)?;
        }
        let Some(made) = made else { return Ok(false) };
        let mut ext_sum = Crc64::default();
        ext_sum.update(&self.all(&format!("{stem}.ext"))?.unwrap_or_default());
        let mut footer = rebuild::footer(&made, ext_sum.finish(), header.base_offset);
        footer.txn_len = self.txn_file(stem)?.map_or(0, |(len, _)| len);
        found.segment.txn_len = footer.txn_len;
        self.rebuilt.push((path, rebuild::encode(header, &made.rows, Some(footer))));
        found.rows = made.rows;
        let s = &mut found.segment;
        if found.rows.len() != s.rows as usize {
            // Laid out anew in another number of rows: the manifest must say so before long, until then they are made again.
            (s.rows, self.manifest_stale) = (found.rows.len() as u32, true);
        }
        (s.next_offset, s.log_len, s.ext_len) = (footer.next_offset, footer.log_len as u32, footer.ext_len);
        (s.min_ts, s.max_ts, s.created_ms) = (footer.min_ts, footer.max_ts, header.created_ms);
        s.gaps = (footer.last_index.0 + 1).saturating_sub(s.base_index.0 + u64::from(s.rows));
        Ok(true)
    }

    /// An open segment that is not what it was: rows that were claimed durable are missing from its table, or the table is.
    /// `opened` = what can be read of it; `listed` = what the newest manifest says.
    fn complete(
        &mut self,
        opened: Option<Found>,
        listed: Option<&ManifestSegment>,
        stem: &str,
        (end, cut): (End, Option<EntryIndex>),
        has_ext: bool,
    ) -> Result<Option<Found>, DiskError> {
        let base = match (&opened, listed) {
            (Some(found), _) => (found.segment.base_index, found.segment.base_offset),
            (None, Some(listed)) => (listed.base_index, listed.base_offset),
            (None, None) => return Ok(None), // all of it is in the journal
        };
        if base != (end.index.next(), end.offset) || cut.is_some_and(|cut| cut <= base.0) {
            return Ok(opened); // not the next one, or all of it is written again
        }
        let have = opened.as_ref().map_or(0, |f| f.rows.len() as u64);
        // The manifest was written behind a sync of as many rows; entries that the journal has are written again.
        let claimed = listed.map_or(0, |s| u64::from(s.rows));
        let claimed = cut.map_or(claimed, |cut| claimed.min(cut.0 - base.0.0));
        let short = match cut {
            Some(cut) => base.0.0 + have < cut.0,
            None => have < claimed || self.has_more(opened.as_ref(), stem)?,
        };
        if !short {
            return Ok(opened);
        }
        let created_ms = opened.as_ref().map_or(0, |f| f.segment.created_ms);
        let generation = opened.as_ref().map_or(listed.map_or(0, |s| s.generation), |f| f.segment.generation);
        let header = EntHeader {
            gid: self.gid,
            base_index: base.0,
            base_offset: base.1,
            prev_term: end.term,
            generation,
            created_ms,
        };
        let lost = Lost { stem, header, epochs: &self.epochs, end: LostEnd::Open { before: cut } };
        match self.rebuild(&lost)? {
            Some(made) if made.rows.len() as u64 >= have.max(claimed) && !made.rows.is_empty() => {
                let bytes = rebuild::encode(&header, &made.rows, None);
                self.rebuilt.push((self.path(&format!("{stem}.ent")), bytes));
                Ok(Some(open_found(&header, made, has_ext)))
            }
            _ => {
                if have < claimed {
                    self.worse(Verdict::Damaged);
                }
                Ok(opened)
            }
        }
    }

    /// Where a segment's table says that it begins.
    fn base_index(&self, stem: &str) -> Result<Option<EntryIndex>, DiskError> {
        let header = match self.disk.read(&self.path(&format!("{stem}.ent")), 0, HEADER_BYTES) {
            Err(e) if e.kind == DiskFault::NotFound => return Ok(None),
            other => other?,
        };
        Ok(EntHeader::decode(&header).filter(|h| h.gid == self.gid).map(|h| h.base_index))
    }

    /// Bytes, contexts or a term behind the last row, though the journal has nothing more of the group.
    fn has_more(&self, opened: Option<&Found>, stem: &str) -> Result<bool, DiskError> {
        let last = opened.and_then(|f| f.rows.last());
        let (log_end, ext_end) = last.map_or((0, 0), |r| {
            let bytes = if r.kind == EntryKind::Gap { 0 } else { u64::from(r.len) };
            (u64::from(r.pos) + bytes, u64::from(r.ext_pos) + u64::from(r.ext_len))
        });
        let behind = |ext: &str, end: u64| match self.disk.length(&self.path(&format!("{stem}.{ext}"))) {
            Err(e) if e.kind == DiskFault::NotFound => Ok(false),
            other => other.map(|len| len > end),
        };
        let index = last.map_or(EntryIndex::ZERO, |r| r.index);
        let term = self.epochs.last().is_some_and(|e| e.index > index);
        Ok(term || behind("log", log_end)? || behind("ext", ext_end)?)
    }

    /// A file that is not there has no bytes: damage of one group, never a reason not to start the others.
    fn read_if_there(&self, name: &str, pos: u32, len: usize) -> Result<Bytes, DiskError> {
        match self.disk.read(&self.path(name), u64::from(pos), len) {
            Err(e) if e.kind == DiskFault::NotFound => Ok(Bytes::new()),
            other => other,
        }
    }

    /// A row that cannot be read, made again from the batch it pointed at; the second value is false if it is a guess.
    fn lost_row(&self, found: &Found, next: Option<Row>, footer: Option<Footer>) -> Result<(Row, bool), DiskError> {
        let s = &found.segment;
        let before = found.rows.last();
        let (pos, offset) = before.map_or((0, s.base_offset), |r| (log_end(r), end_of(r)));
        let ext_pos = before.map_or(0, |r| r.ext_pos + u32::from(r.ext_len));
        let index = before.map_or(s.base_index, |r| last_index(r).next());
        let log_end = next.map(|n| n.pos).or(footer.map(|f| f.log_len as u32));
        let ext_end = next.map(|n| n.ext_pos).or(footer.map(|f| f.ext_len)).unwrap_or(ext_pos);
        let name = format!("{}.log", segment_stem(s.base_offset, s.generation));
        let header = self.read_if_there(&name, pos, BATCH_HEADER_BYTES)?;
        let len = header.get(8..12).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]).saturating_add(12));
        let guess = Row {
            index,
            term: LeaderEpoch(before.map_or(s.last_term, |r| r.term.0)),
            kind: EntryKind::Ctl,
            flags: row_flag::DAMAGED,
            base_offset: offset,
            count: next.map_or(0, |n| u32::try_from(n.base_offset.0.saturating_sub(offset.0)).unwrap_or(0)),
            max_ts: before.map_or(-1, |r| r.max_ts),
            pos,
            len: log_end.map_or(0, |end| end.saturating_sub(pos)),
            ext_pos,
            ext_len: u16::try_from(ext_end.saturating_sub(ext_pos)).unwrap_or(0),
        };
        let fits = log_end.is_none_or(|end| pos.checked_add(len).is_some_and(|e| e <= end));
        if header.len() < BATCH_HEADER_BYTES || !fits || len as usize > crate::format::journal::BODY_BYTES_MAX {
            return Ok((guess, false));
        }
        let body = self.read_if_there(&name, pos, len as usize)?;
        let Ok(batch) = BatchView::new(&body) else { return Ok((guess, false)) };
        let term = u32::try_from(batch.leader_epoch()).unwrap_or(0);
        let mut row = Row {
            term: LeaderEpoch(term),
            kind: EntryKind::Data,
            count: batch.offset_count(),
            max_ts: guess.max_ts.max(batch.max_timestamp()),
            len,
            ..guess
        };
        let context = self.context(s, &row)?;
        row.flags = crate::entry::derive_flags(row.kind, &body, context.as_deref().unwrap_or_default());
        // More than one entry may hide in the gap (an internal one has no bytes): then the place is not unambiguous. And
        // without anything behind it, nobody says whether it has a context.
        let alone = next.map_or(footer.is_some(), |n| n.index == index.next());
        let sure = alone && row::batch_matches(&row, &body) && context.is_some();
        Ok((row, sure))
    }

    /// An open segment's valid rows; `None` if its header is bad (then all of it is still in the journal).
    fn open(&mut self, stem: &str, has_ext: bool) -> Result<Option<Found>, DiskError> {
        let Some(ent) = self.all(&format!("{stem}.ent"))? else { return Ok(None) };
        let Some(header) = EntHeader::decode(&ent).filter(|h| h.gid == self.gid) else { return Ok(None) };
        if segment_stem(header.base_offset, header.generation) != stem {
            return Ok(None);
        }
        let mut rows: Vec<Row> = Vec::new();
        let mut at = HEADER_BYTES;
        while let Some(bytes) = ent.get(at..at + ROW_BYTES) {
            let expect = EntryIndex(header.base_index.0 + rows.len() as u64);
            let row = row::decode_row(bytes, self.gid, header.base_index).filter(|r| {
                r.index == expect
                    && r.term.0 >= rows.last().map_or(header.prev_term, |l: &Row| l.term.0)
                    && r.base_offset == rows.last().map_or(header.base_offset, end_of)
            });
            match row {
                Some(row) => rows.push(row),
                None if self.more_rows(&ent, at + ROW_BYTES, &header) => {
                    // Valid rows follow: one bad row, not the end. Made again in `mend`.
                    rows.push(Row {
                        index: expect,
                        term: LeaderEpoch(rows.last().map_or(header.prev_term, |l| l.term.0)),
                        kind: EntryKind::Ctl,
                        flags: row_flag::DAMAGED,
                        base_offset: rows.last().map_or(header.base_offset, end_of),
                        count: 0,
                        max_ts: -1,
                        pos: 0,
                        len: 0,
                        ext_pos: 0,
                        ext_len: 0,
                    });
                    // Its successor says where it ends.
                    let next = row::decode_row(&ent[at + ROW_BYTES..], self.gid, header.base_index);
                    if let (Some(last), Some(next)) = (rows.last_mut(), next) {
                        last.count = u32::try_from(next.base_offset.0.saturating_sub(last.base_offset.0)).unwrap_or(0);
                    }
                }
                None => break,
            }
            at += ROW_BYTES;
        }
        let segment = Segment {
            base_index: header.base_index,
            base_offset: header.base_offset,
            generation: header.generation,
            created_ms: header.created_ms,
            state: SegmentState::Active,
            rows: rows.len() as u32,
            gaps: 0,
            last_term: header.prev_term,
            next_offset: header.base_offset,
            max_ts: -1,
            min_ts: i64::MAX,
            first_ts: None,
            log_len: 0,
            ext_len: 0,
            has_ext,
            txn_len: 0,
            control: false,
            sealed_at_ms: 0,
            cut: true,
            dirty: true,
            sums: None,
        };
        Ok(Some(Found { segment, rows, table_lost: false }))
    }

    /// True if the row behind a bad one is a valid successor.
    fn more_rows(&self, ent: &Bytes, at: usize, header: &EntHeader) -> bool {
        let index = header.base_index.0 + ((at - HEADER_BYTES) / ROW_BYTES) as u64;
        ent.get(at..at + ROW_BYTES)
            .and_then(|bytes| row::decode_row(bytes, self.gid, header.base_index))
            .is_some_and(|r| r.index.0 == index)
    }

    /// Makes the bad rows of an open segment again, and checks that the bytes its rows point at are there.
    fn mend(&mut self, found: &mut Found, prev_term: u32) -> Result<(), DiskError> {
        let rows = std::mem::take(&mut found.rows);
        let (mut bad, mut unsure) = (false, false);
        for (i, row) in rows.iter().enumerate() {
            if row.flags & row_flag::DAMAGED == 0 {
                found.rows.push(*row);
                continue;
            }
            let next = rows.get(i + 1).copied();
            let (row, sure) = self.lost_row(found, next, None)?;
            (bad, unsure) = (true, unsure || !sure);
            found.rows.push(row);
        }
        if bad {
            unsure = !self.open_again(found, prev_term, unsure)?;
        }
        if unsure {
            self.worse(Verdict::Damaged);
        }
        found.settle();
        let name = format!("{}.log", segment_stem(found.segment.base_offset, found.segment.generation));
        let len = match self.disk.length(&self.path(&name)) {
            Err(e) if e.kind == DiskFault::NotFound => 0,
            other => other?,
        };
        if len < u64::from(found.segment.log_len) {
            // These rows were claimed durable, their bytes are not there.
            self.worse(Verdict::Damaged);
        }
        Ok(())
    }

    /// Writes the table of an open segment again, whose bad rows were made again from their batches, or all of them if that
    /// left doubt. False: the doubt stays.
    fn open_again(&mut self, found: &mut Found, prev_term: u32, unsure: bool) -> Result<bool, DiskError> {
        let s = &found.segment;
        let stem = segment_stem(s.base_offset, s.generation);
        let header = EntHeader {
            gid: self.gid,
            base_index: s.base_index,
            base_offset: s.base_offset,
            prev_term,
            generation: s.generation,
            created_ms: s.created_ms,
        };
        if unsure {
            let before = found.rows.last().map(|r| r.index.next());
            let lost = Lost { stem: &stem, header, epochs: &self.epochs, end: LostEnd::Open { before } };
            let Some(made) = self.rebuild(&lost)? else { return Ok(false) };
            found.rows = made.rows;
        }
        self.rebuilt.push((self.path(&format!("{stem}.ent")), rebuild::encode(&header, &found.rows, None)));
        Ok(true)
    }

    /// A lost journal frame whose entry already stands in a segment, bytes and all.
    fn rescue(&self, hints: &[Found], index: EntryIndex) -> Result<Option<NewEntry>, DiskError> {
        for found in hints {
            let Some(row) = found.rows.iter().find(|r| r.index == index && r.flags & row_flag::DAMAGED == 0) else {
                continue;
            };
            let s = &found.segment;
            let name = format!("{}.log", segment_stem(s.base_offset, s.generation));
            let body = if row.kind == EntryKind::Data {
                let body = match self.disk.read(&self.path(&name), u64::from(row.pos), row.len as usize) {
                    Err(e) if e.kind == DiskFault::NotFound => continue,
                    other => other?,
                };
                if !row::batch_matches(row, &body) {
                    continue;
                }
                body
            } else {
                Bytes::new()
            };
            let Some(context) = self.context(s, row)? else { continue };
            let max_ts = BatchView::new(&body).map_or(-1, |b| b.max_timestamp());
            return Ok(Some(NewEntry {
                index,
                term: row.term,
                kind: row.kind,
                flags: row.flags,
                base_offset: row.base_offset,
                count: row.count,
                max_ts,
                body,
                context,
            }));
        }
        Ok(None)
    }

    /// A row's context; `None` if it is damaged.
    pub(super) fn context(&self, segment: &Segment, row: &Row) -> Result<Option<Bytes>, DiskError> {
        if row.ext_len == 0 {
            return Ok(Some(Bytes::new()));
        }
        let name = format!("{}.ext", segment_stem(segment.base_offset, segment.generation));
        let record = match self.disk.read(&self.path(&name), u64::from(row.ext_pos), usize::from(row.ext_len)) {
            Err(e) if e.kind == DiskFault::NotFound => return Ok(None),
            other => other?,
        };
        if record.len() != usize::from(row.ext_len) {
            return Ok(None);
        }
        Ok(row::decode_ext(row.index, &record).map(Bytes::copy_from_slice))
    }

    fn newest_snap(
        &self,
        snaps: &[EntryIndex],
        last: EntryIndex,
    ) -> Result<Option<(EntryIndex, Offset, Bytes)>, DiskError> {
        for index in snaps.iter().rev() {
            let Some(bytes) = self.all(&format!("{:020}.snap", index.0))? else { continue };
            if let Some(snap) = Snap::decode(&bytes).filter(|s| s.gid == self.gid && s.index == *index)
                && (*index <= last || snap.ahead)
            {
                return Ok(Some((*index, snap.next_offset, snap.payload)));
            }
        }
        Ok(None)
    }
}
