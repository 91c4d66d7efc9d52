//! Every stored byte of a log directory against what vouches for it: `catchwater storage check`. Changes nothing.
//!
//! Blocking; reads through a [`Disk`], pure otherwise. It begins with the same fold as a start ([`examine`]) and then
//! reads what a start trusts: both copies of every slot, every row, batch and context of every segment, the checksums of
//! sealed files, every snapshot. Memory: the entry table of one segment and one piece of a file at a time, findings up to a
//! bound; what recovery itself holds (journal files, and rows of those tables alone that are damaged) comes on top.

use crate::compact::rows::last_index;
use crate::disk::{Disk, DiskError, DiskExt, DiskFault, DiskOp};
use crate::entry::{EntryKind, RecoveredGroup, Row, SegmentInfo, Verdict, row_flag};
use crate::format::context::EntryContext;
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::row::{self, EntHeader, FOOTER_BYTES, Footer, HEADER_BYTES, ROW_BYTES};
use crate::format::slot::{self, Side, SlotKind};
use crate::format::snap::Snap;
use crate::format::txn::Aborted;
use crate::recover::forgiving::Forgiving;
use crate::recover::{Layout, RecoverError, Recovered, SALVAGE_FILE, examine};
use crate::segment::{FoundGroup, Segment, group_dir, segment_stem};
use bytes::Bytes;
use catchwater_record::crc::Crc64;
use catchwater_record::{EntryIndex, Gid, Offset, PartitionId, TopicId};

/// Findings that are kept; further ones are counted.
pub const FINDINGS_MAX: usize = 10_000;
/// Bytes of a file read at a time.
const PIECE_BYTES: usize = 4 << 20;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Weight {
    /// Told for completeness; the next start deals with it.
    Note,
    /// One of two copies, or something that is made again from what is whole: nothing is lost.
    Warning,
    /// Bytes that were claimed durable are damaged or missing.
    Damage,
}

/// One thing that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    pub weight: Weight,
    /// A word that stays the same, for scripts: `batch`, `row`, `slot` …
    pub kind: &'static str,
    pub gid: Option<Gid>,
    /// Path of the file or directory.
    pub file: String,
    pub what: String,
}

/// One group as found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupState {
    pub gid: Gid,
    pub topic: TopicId,
    pub partition: PartitionId,
    pub verdict: Verdict,
    pub log_start: Offset,
    /// First offset behind the last entry that is proved.
    pub end: Offset,
    pub first_index: EntryIndex,
    pub last_index: EntryIndex,
    pub segments: usize,
    /// Bytes of `.log` files.
    pub bytes: u64,
    /// Entries that only the journal has.
    pub journaled: usize,
}

#[derive(Debug)]
pub struct Checked {
    pub found: Recovered,
    pub groups: Vec<GroupState>,
    pub findings: Vec<Finding>,
    pub findings_left_out: u64,
    /// Bytes read and compared in segments.
    pub bytes: u64,
    pub batches: u64,
}

impl Checked {
    /// The heaviest finding.
    pub fn worst(&self) -> Option<Weight> {
        self.findings.iter().map(|f| f.weight).max()
    }
}

/// Takes the directory, checks it, lets go of it.
pub fn check(disk: &dyn Disk, layout: &Layout) -> Result<Checked, RecoverError> {
    let found = examine(disk, layout)?;
    let forgiving = Forgiving::new(disk);
    let mut work = Work { disk: &forgiving, layout, findings: Vec::new(), left_out: 0, bytes: 0, batches: 0 };
    let outcome = work.all(&found);
    for file in forgiving.unreadable() {
        work.find(Weight::Damage, "unreadable", None, &file, "the disk gives an error where it is read");
    }
    let _ = disk.run(DiskOp::Unlock { path: layout.root.as_str().into() });
    let groups = outcome?;
    let Work { findings, left_out, bytes, batches, .. } = work;
    Ok(Checked { found, groups, findings, findings_left_out: left_out, bytes, batches })
}

struct Work<'a> {
    disk: &'a dyn Disk,
    layout: &'a Layout,
    findings: Vec<Finding>,
    left_out: u64,
    bytes: u64,
    batches: u64,
}

impl Work<'_> {
    fn find(&mut self, weight: Weight, kind: &'static str, gid: Option<Gid>, file: &str, what: impl Into<String>) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { weight, kind, gid, file: file.to_owned(), what: what.into() });
        } else {
            self.left_out += 1;
        }
    }

    fn all(&mut self, found: &Recovered) -> Result<Vec<GroupState>, DiskError> {
        let root = self.layout.root.clone();
        self.slots(&format!("{root}/dir.meta"), SlotKind::DirMeta, None)?;
        self.slots(&format!("{root}/boot.state"), SlotKind::BootState, None)?;
        self.journal(found);
        for file in &found.leftovers.files {
            self.find(Weight::Note, "leftover", None, file, "belongs to nothing; the next start removes it");
        }
        for dir in &found.leftovers.dirs {
            self.find(Weight::Note, "leftover", None, dir, "of a deleted partition; the next start removes it");
        }
        let mut groups = Vec::with_capacity(found.groups.len());
        for (group, files) in &found.groups {
            groups.push(self.group(group, files)?);
        }
        Ok(groups)
    }

    fn journal(&mut self, found: &Recovered) {
        let (dir, report) = (self.layout.journal(), &found.report);
        if report.torn_flushes > 0 {
            let what = format!("{} torn flush(es) at the end: never acknowledged, cut", report.torn_flushes);
            self.find(Weight::Note, "torn", None, &dir, what);
        }
        if report.corrupt_flushes > 0 {
            let weight = if report.lost_frames > 0 { Weight::Damage } else { Weight::Warning };
            let what = format!("{} damaged flush(es), {} frame(s) lost", report.corrupt_flushes, report.lost_frames);
            self.find(weight, "journal", None, &dir, what);
        }
        if report.cut_files > 0 {
            let what =
                format!("{} file(s) are shorter than they were made: what stood behind is lost", report.cut_files);
            self.find(Weight::Damage, "journal", None, &dir, what);
        }
        for file in &report.unknown_files {
            let what = "cannot be read as a journal file of this directory; the next start puts it aside";
            self.find(Weight::Damage, "journal", None, file, what);
        }
    }

    fn slots(&mut self, path: &str, kind: SlotKind, gid: Option<Gid>) -> Result<(), DiskError> {
        let (mut valid, mut bad) = (0, Vec::new());
        for side in [Side::A, Side::B] {
            let file = format!("{path}.{}", side.suffix());
            match self.disk.read_all(&file)? {
                None => {}
                Some(bytes) if slot::decode(kind, &bytes).is_some() => valid += 1,
                Some(_) => bad.push(file),
            }
        }
        for file in bad {
            if valid > 0 {
                self.find(Weight::Warning, "slot", gid, &file, "this copy is damaged; the other one is used");
            } else {
                self.find(Weight::Damage, "slot", gid, &file, "damaged, and there is no other copy");
            }
        }
        Ok(())
    }

    fn group(&mut self, group: &RecoveredGroup, files: &FoundGroup) -> Result<GroupState, DiskError> {
        let gid = group.gid;
        let dir = group_dir(&self.layout.groups(), gid);
        self.slots(&format!("{dir}/manifest"), SlotKind::Manifest, Some(gid))?;
        for (info, segment) in group.segments.iter().zip(&files.segments) {
            self.segment(&dir, gid, info, segment)?;
        }
        for index in &files.snaps {
            let file = format!("{dir}/{:020}.snap", index.0);
            let bytes = self.disk.read_all(&file)?.unwrap_or_default();
            if Snap::decode(&bytes).is_none_or(|s| s.gid != gid || s.index != *index) {
                self.find(Weight::Warning, "snap", Some(gid), &file, "damaged; its state is read from batches instead");
            }
        }
        for name in &files.stale {
            let what = "belongs to nothing; removed before the next append";
            self.find(Weight::Note, "leftover", Some(gid), &format!("{dir}/{name}"), what);
        }
        self.verdict(&dir, group, files)?;
        let last = group.segments.iter().rev().find_map(|s| s.rows.last());
        let journaled = group.journaled.last().map(|e| (e.index, e.end_offset()));
        let placed = last.map(|r| (last_index(r), r.base_offset.plus(u64::from(r.count))));
        let none = (group.first_index.prev(), group.log_start);
        let (last_index, end) = journaled.or(placed).unwrap_or(none);
        Ok(GroupState {
            gid,
            topic: group.spec.topic,
            partition: group.spec.partition,
            verdict: group.verdict,
            log_start: group.log_start,
            end,
            first_index: group.first_index,
            last_index,
            segments: group.segments.len(),
            bytes: files.segments.iter().map(|s| u64::from(s.log_len)).sum(),
            journaled: group.journaled.len(),
        })
    }

    fn verdict(&mut self, dir: &str, group: &RecoveredGroup, files: &FoundGroup) -> Result<(), DiskError> {
        let gid = Some(group.gid);
        if files.gone {
            self.find(Weight::Damage, "gone", gid, dir, "the partition's files were here, and are not any more");
        }
        match group.verdict {
            Verdict::Ok => {}
            Verdict::HardStateUncertain => {
                let what = "the newest vote and term are lost; a lone replica goes on with the next term";
                self.find(Weight::Warning, "hard-state", gid, dir, what);
            }
            Verdict::Suspect => {
                let kept = files.quarantine.as_ref().map_or(0, Vec::len);
                let aside = self.disk.list(dir).is_ok_and(|names| names.iter().any(|n| n == SALVAGE_FILE));
                let place = if aside { "in its salvage file" } else { "in the journal" };
                let what = format!(
                    "entries that were acknowledged are lost; the partition stays closed, {kept} entries are kept {place}"
                );
                self.find(Weight::Damage, "suspect", gid, dir, what);
            }
            Verdict::Damaged => {
                let what = "a range of the log is damaged; the partition stays closed until it is repaired";
                self.find(Weight::Damage, "damaged", gid, dir, what);
            }
        }
        Ok(())
    }

    fn segment(&mut self, dir: &str, gid: Gid, info: &SegmentInfo, segment: &Segment) -> Result<(), DiskError> {
        let stem = format!("{dir}/{}", segment_stem(segment.base_offset, segment.generation));
        let (log, ent, ext) = (format!("{stem}.log"), format!("{stem}.ent"), format!("{stem}.ext"));
        let stored = self.disk.read_all(&ent)?;
        if stored.is_none() {
            self.find(Weight::Damage, "row", Some(gid), &ent, "the entry table is missing");
        }
        let stored = stored.unwrap_or_default();
        let header = EntHeader::decode(&stored).filter(|h| h.gid == gid && h.base_index == segment.base_index);
        if header.is_none() && !stored.is_empty() {
            self.find(Weight::Damage, "header", Some(gid), &ent, "the header is damaged");
        }
        let rows_end = HEADER_BYTES + segment.rows as usize * ROW_BYTES;
        let mut sums = (Crc64::default(), Crc64::default());
        let mut reader = Pieces { disk: self.disk, path: &log, at: 0, bytes: Bytes::new() };
        let mut hashed = 0u64;
        for i in 0..info.rows.len() {
            let raw = stored.get(HEADER_BYTES + i * ROW_BYTES..);
            let whole = raw.and_then(|bytes| row::decode_row(bytes, gid, segment.base_index));
            let known = if info.rows.fenced() == 0 { info.rows.whole().get(i).copied() } else { whole };
            let Some(row) = &known else {
                let what = format!("row {i}: recovery could read it, and now the disk gives something else");
                self.find(Weight::Damage, "row", Some(gid), &ent, what);
                continue;
            };
            if whole.is_none_or(|r| r.index != row.index) {
                let (weight, what) = if row.flags & row_flag::DAMAGED == 0 {
                    (Weight::Warning, "damaged; made again from its batch")
                } else {
                    (Weight::Damage, "damaged, and its batch does not say what it was")
                };
                self.find(weight, "row", Some(gid), &ent, format!("row of entry {}: {what}", row.index));
            }
            if row.flags & row_flag::DAMAGED != 0 {
                continue;
            }
            if row.kind == EntryKind::Data {
                let body = reader.get(u64::from(row.pos), row.len as usize)?;
                if u64::from(row.pos) == hashed {
                    sums.0.update(&body);
                    hashed += body.len() as u64;
                }
                self.bytes += body.len() as u64;
                self.batches += 1;
                if !row::batch_matches(row, &body) {
                    let end = row.base_offset.plus(u64::from(row.count));
                    let what = format!("batch at byte {}, offsets {}..{end}: damaged", row.pos, row.base_offset);
                    self.find(Weight::Damage, "batch", Some(gid), &log, what);
                }
            }
            self.context(gid, &ext, row, &mut sums.1)?;
        }
        if segment.state == SegmentState::Active {
            return Ok(());
        }
        let Some(footer) = stored.get(rows_end..rows_end + FOOTER_BYTES).and_then(Footer::decode) else {
            self.find(Weight::Damage, "footer", Some(gid), &ent, "the footer of a sealed segment is damaged");
            return Ok(());
        };
        if footer.txn_len > 0 {
            let txn = format!("{stem}.txn");
            let bytes = self.disk.read_all(&txn)?.unwrap_or_default();
            let inside = |a: &Aborted| segment.base_offset <= a.last && a.last < segment.next_offset;
            let rows = Aborted::decode_all(&bytes).filter(|rows| rows.iter().all(inside));
            if rows.is_none() || bytes.len() != footer.txn_len as usize {
                let what = "missing or damaged; what was aborted is read from batches instead";
                self.find(Weight::Warning, "txn", Some(gid), &txn, what);
            }
        }
        let mut ent_sum = Crc64::default();
        ent_sum.update(&stored[..rows_end]);
        let before = self.findings.len();
        for (file, stored, computed, kind) in [
            (&log, footer.log_crc64, sums.0.finish(), "log-sum"),
            (&ent, footer.ent_crc64, ent_sum.finish(), "ent-sum"),
            (&ext, footer.ext_crc64, sums.1.finish(), "ext-sum"),
        ] {
            // A batch or row that was named above is the reason; only a sum that is wrong alone is news.
            if stored != computed && !self.findings[..before].iter().any(|f| f.file == *file) {
                self.find(Weight::Damage, kind, Some(gid), file, "the checksum of the whole file does not hold");
            }
        }
        Ok(())
    }

    fn context(&mut self, gid: Gid, ext: &str, row: &Row, sum: &mut Crc64) -> Result<(), DiskError> {
        if row.ext_len == 0 {
            return Ok(());
        }
        let record = match self.disk.read(ext, u64::from(row.ext_pos), usize::from(row.ext_len)) {
            Err(e) if e.kind == DiskFault::NotFound => Bytes::new(),
            other => other?,
        };
        sum.update(&record);
        let context = (record.len() == usize::from(row.ext_len)).then(|| row::decode_ext(row.index, &record)).flatten();
        let sound = context.is_some_and(|bytes| EntryContext::decode(&Bytes::copy_from_slice(bytes)).is_ok());
        if !sound {
            let what = format!("context of entry {} at byte {}: damaged", row.index, row.ext_pos);
            self.find(Weight::Damage, "context", Some(gid), ext, what);
        }
        Ok(())
    }
}

/// Batches lie behind each other: one read for many.
struct Pieces<'a> {
    disk: &'a dyn Disk,
    path: &'a str,
    at: u64,
    bytes: Bytes,
}

impl Pieces<'_> {
    fn get(&mut self, at: u64, len: usize) -> Result<Bytes, DiskError> {
        let inside = |s: &Self| at.checked_sub(s.at).is_some_and(|skip| skip + len as u64 <= s.bytes.len() as u64);
        if !inside(self) {
            self.bytes = match self.disk.read(self.path, at, len.max(PIECE_BYTES)) {
                Err(e) if e.kind == DiskFault::NotFound => Bytes::new(),
                other => other?,
            };
            self.at = at;
        }
        if inside(self) {
            let skip = (at - self.at) as usize;
            return Ok(self.bytes.slice(skip..skip + len));
        }
        Ok(self.bytes.clone())
    }
}

/// The newest valid manifest of a group; for a look at one directory without the rest.
pub fn manifest(disk: &dyn Disk, dir: &str) -> Result<Option<Manifest>, DiskError> {
    let a = disk.read_all(&format!("{dir}/manifest.a"))?;
    let b = disk.read_all(&format!("{dir}/manifest.b"))?;
    let pair = slot::newest(SlotKind::Manifest, a.as_deref(), b.as_deref());
    Ok(pair.newest.and_then(|s| Manifest::decode(&s.payload)))
}
