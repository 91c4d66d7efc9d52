//! `catchwater storage repair`: lets partitions that a start keeps closed go on with what is proved of them. On the same
//! recovery that a start and the check run; offline, blocking, under the directory's lock.
//!
//! ```text
//!  plan: recovery ─▶ per closed partition: what is proved, what is kept aside, or why it is refused   (changes nothing)
//!  carry_out: salvage files ─▶ tails and names that nothing vouches for, aside ─▶ every entry to segments, synced
//!             ─▶ a new journal file with the hard states ─▶ boot.state: clean ─▶ old journal files, salvage files aside
//! ```
//! Invariants: nothing is removed and nothing overwritten that is not also kept under a name that ends with [`ASIDE`]; a death
//! anywhere leaves a directory that keeps the same partitions closed, and the repair can be run again; the salvage files,
//! which keep them closed, go last. What is damaged in files is cut out of them (`repair/cut_out.rs`), also of partitions that a
//! start opens: they have a range that nobody can read. Refused: partitions of which nothing says whose they are, or where they
//! begin. Not here: what the terminal shows (`catchwater/src/command/storage.rs`).

mod cut_out;

use self::cut_out::Cut;
pub use self::cut_out::{Lost, LostRange};
use crate::compact::rows::last_index;
use crate::disk::{AlignedBuf, BLOCK_BYTES, Disk, DiskDone, DiskError, DiskExt, DiskFault, DiskOp};
use crate::entry::{EntryKind, Frame, GroupSpec, Hard, NewEntry, RecoveredGroup, Verdict};
use crate::format::journal::{FileHeader, FlushBuilder, FlushHeader, HEADER_BYTES, decode_flush, frame_bytes};
use crate::format::row;
use crate::format::slot::BootState;
use crate::journal::{NEW, Persisted};
use crate::read::rows_of;
use crate::recover::{
    ASIDE, Layout, RecoverError, Recovered, SALVAGE_FILE, examine, quarantine, settle, settle_relaxed, write_boot_state,
};
use crate::segment::{
    FoundGroup, SegmentConfig, SegmentEffect, SegmentEvent, Segments, group_dir, segment_stem, write_manifests,
};
use bytes::Bytes;
use catchwater_base::{Effects, Local, Now, crash_point};
use catchwater_record::{EntryIndex, Gid, NodeId, Offset, PartitionId, TopicId};
use std::collections::BTreeMap;

/// Length of the new journal file if there was none before, bytes.
const FILE_BYTES: u64 = 64 << 20;
/// Bytes copied or written at a time.
const PIECE_BYTES: usize = 1 << 20;
/// Copies of one file that are kept.
const COPIES_MAX: u32 = 1000;

/// Why a partition without files and without entries in the journal cannot go on: it would give offsets a second time.
const GONE: &str = "its files are gone, and the journal has nothing of it any more: nobody knows where its offsets end";
/// The cluster's own log: half of it is another cluster, in which topics are missing whose partitions are there.
const CLUSTER: Gid = Gid(0);
const CLUSTER_GONE: &str = "it is the cluster's own log, and the beginning of it is gone";
/// Why one cannot go on whose owner [`Plan::adopt`] may know.
const WHOSE: &str = "nothing says any more which topic it belongs to";

/// What a repair would do, and to what.
#[derive(Debug)]
pub struct Plan {
    /// Partitions that a start keeps closed, or that have a damaged range, ascending by gid.
    pub closed: Vec<ClosedGroup>,
    found: Recovered,
}

/// One partition that a start keeps closed, or that has a damaged range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClosedGroup {
    pub gid: Gid,
    pub topic: TopicId,
    pub partition: PartitionId,
    pub verdict: Verdict,
    pub log_start: Offset,
    /// It would go on from here: what was acknowledged behind it is lost, and its offsets are given again.
    pub end: Offset,
    pub last_index: EntryIndex,
    /// Entries that were saved and do not follow on: they stay in the salvage file.
    pub kept: usize,
    /// Why it cannot go on; `None` = it can.
    pub refused: Option<&'static str>,
    /// What is lost of its files.
    pub lost: Lost,
    cuts: Vec<Cut>,
    /// Saved entries that follow on and that the journal does not have any more.
    saved: Vec<NewEntry>,
    /// Its files are gone, and it begins with `saved`: behind this index and offset, of this term. Nothing before is given again.
    begins: Option<(EntryIndex, Offset, u32)>,
    /// `end` is where it ended: nothing behind it is missing.
    pub whole_end: bool,
}

/// What a repair did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Repaired {
    /// Partitions that go on.
    pub groups: Vec<Gid>,
    /// Files that were put aside or copied, by their new names.
    pub aside: Vec<String>,
}

impl Plan {
    /// True if something would change.
    pub fn does_something(&self) -> bool {
        self.closed.iter().any(|g| g.refused.is_none())
    }

    /// The node whose directory it is.
    pub fn node(&self) -> NodeId {
        NodeId(self.found.meta.node)
    }

    /// True if some partitions are refused only because neither they nor the journal say whose they are.
    pub fn lacks_owners(&self) -> bool {
        self.closed.iter().any(|g| g.refused == Some(WHOSE))
    }

    /// Told by somebody who knows (the cluster's own log) whose partitions are: those can go on that had nobody else to say it.
    pub fn adopt(&mut self, owners: &BTreeMap<Gid, GroupSpec>) {
        for closed in self.closed.iter_mut().filter(|g| g.refused == Some(WHOSE)) {
            let Some(spec) = owners.get(&closed.gid) else { continue };
            let Some((group, files)) = self.found.groups.iter_mut().find(|(g, _)| g.gid == closed.gid) else {
                continue;
            };
            (closed.topic, closed.partition) = (spec.topic, spec.partition);
            closed.refused = (files.gone && closed.begins.is_none()).then_some(GONE);
            (group.spec, files.spec) = (spec.clone(), spec.clone());
        }
    }

    /// The batches of a partition that a start would open, in order; none if one of them is damaged. For the cluster's own log.
    pub fn batches(&self, disk: &dyn Disk, layout: &Layout, gid: Gid) -> Result<Vec<Bytes>, DiskError> {
        let mut out = Vec::new();
        let open = |g: &&(RecoveredGroup, FoundGroup)| g.0.gid == gid && g.1.quarantine.is_none();
        let Some((group, _)) = self.found.groups.iter().find(open) else { return Ok(out) };
        let dir = group_dir(&layout.groups(), gid);
        for segment in &group.segments {
            let path = format!("{dir}/{}.log", segment_stem(segment.base_offset, segment.generation));
            for row in rows_of(disk, (&dir, gid), segment)?.iter().filter(|r| r.kind == EntryKind::Data) {
                let batch = disk.read(&path, u64::from(row.pos), row.len as usize)?;
                if !row::batch_matches(row, &batch) {
                    return Ok(Vec::new()); // what follows would say something else without it
                }
                out.push(batch);
            }
        }
        out.extend(group.journaled.iter().filter(|e| e.kind == EntryKind::Data).map(|e| e.body.clone()));
        Ok(out)
    }
}

/// Takes the directory's lock (it is held until [`let_go`] or [`carry_out`] returns) and looks.
pub fn plan(disk: &dyn Disk, layout: &Layout) -> Result<Plan, RecoverError> {
    let found = examine(disk, layout)?;
    let mut closed = Vec::new();
    for (group, files) in &found.groups {
        let mut lost = Lost::default();
        let mut cuts = match cuts(disk, layout, group, files, &mut lost) {
            Ok(cuts) => cuts,
            Err(e) => {
                let_go(disk, layout);
                return Err(e.into());
            }
        };
        if files.quarantine.is_none() && cuts.is_empty() {
            continue;
        }
        let placed = group.segments.iter().rev().find_map(|s| s.rows.last());
        let mut placed = placed.map(|r| (last_index(r), r.base_offset.plus(u64::from(r.count)), r.term.0));
        if let Some(cut) = cuts.last().filter(|cut| cut.at + 1 == files.segments.len()) {
            placed = Some((cut.end.0.prev(), cut.end.1, files.segments[cut.at].last_term));
        }
        let journaled = group.journaled.last().map(|e| (e.index, e.end_offset(), e.term.0));
        let (mut index, mut end, mut term) =
            journaled.or(placed).unwrap_or((group.first_index.prev(), files.first_offset, group.prev_term));
        let mut salvage = match salvaged(disk, layout, group.gid) {
            Ok(entries) => entries,
            Err(e) => {
                let_go(disk, layout);
                return Err(e.into());
            }
        };
        if salvage.is_empty() {
            salvage = files.quarantine.clone().unwrap_or_default();
        }
        // What the journal has left is the end of it: entries go from the journal in the order in which they came.
        let absent = files.segments.is_empty() && journaled.is_none() && files.manifest_exists == [false, false];
        let tail = salvage
            .first()
            .filter(|first| absent && files.loose.is_none() && first.index > index.next() && first.base_offset >= end);
        let mut begins = tail.map(|first| (first.index.prev(), first.base_offset, first.term.0));
        // A repair before this one died when it had begun: the saved entries are all there is of it, and its files are of them.
        let redo = salvage.first().is_some_and(|first| {
            let whole = salvage.windows(2).take_while(|w| w[1].index == w[0].index.next()).count();
            group.first_index > EntryIndex(1) && first.index == group.first_index && salvage[whole].index >= index
        });
        if redo && files.quarantine.is_some() && files.loose.is_none() {
            begins = Some((group.first_index.prev(), files.first_offset, group.prev_term));
            (index, end, term) = (EntryIndex::ZERO, Offset::ZERO, 0);
            (lost, cuts) = (Lost::default(), Vec::new());
        }
        if let Some((before, offset, of_term)) = begins {
            lost.entries += before.0 - index.0;
            lost.offsets.extend((offset > end).then_some(LostRange { from: end, to: offset }));
            (index, end, term) = (before, offset, of_term);
        }
        let tables = files.stale.iter().any(|name| name.ends_with(".ent"));
        let mut saved = Vec::new();
        for entry in &salvage {
            if entry.index == index.next() && entry.base_offset == end && entry.term.0 >= term {
                (index, end, term) = (entry.index, entry.end_offset(), entry.term.0);
                saved.push(entry.clone());
            }
        }
        let refused = match group.verdict {
            _ if group.gid == CLUSTER && (files.gone || begins.is_some()) => Some(CLUSTER_GONE),
            _ if absent && tables => {
                Some("both copies of its manifest are lost, and its files do not begin at the beginning")
            }
            Verdict::Damaged if group.spec.topic == TopicId::NONE && group.gid.0 != 0 => Some(WHOSE),
            Verdict::Damaged if files.begins_unknown => {
                Some("the snapshot that its log begins with is lost, or a copy of its manifest cannot be read")
            }
            _ if files.gone && begins.is_none() => Some(GONE),
            _ => None,
        };
        let kept = salvage.iter().filter(|e| e.index > index).count();
        closed.push(ClosedGroup {
            gid: group.gid,
            topic: group.spec.topic,
            partition: group.spec.partition,
            verdict: group.verdict,
            log_start: begins.map_or(group.log_start, |(_, offset, _)| offset),
            end,
            last_index: index,
            kept,
            refused,
            lost,
            cuts,
            saved,
            begins,
            whole_end: begins.is_some() && kept == 0 && !found.report.unknown_loss,
        });
    }
    Ok(Plan { closed, found })
}

/// What must be cut out of a partition's files. Behind the first cut every open segment becomes a sealed one, up to the last.
fn cuts(
    disk: &dyn Disk,
    layout: &Layout,
    group: &RecoveredGroup,
    files: &FoundGroup,
    lost: &mut Lost,
) -> Result<Vec<Cut>, DiskError> {
    let dir = group_dir(&layout.groups(), group.gid);
    let next = |at: usize| match files.segments.get(at + 1) {
        Some(segment) => Some((segment.base_index, segment.base_offset)),
        None => group.journaled.first().map(|e| (e.index, e.base_offset)),
    };
    let (mut out, mut last) = (Vec::new(), None);
    for (at, both) in group.segments.iter().zip(&files.segments).enumerate() {
        if cut_out::survey(disk, (&dir, group.gid, at), both, next(at), false, &mut Lost::default())?.is_some() {
            last = Some(at);
        }
    }
    for (at, both) in group.segments.iter().zip(&files.segments).enumerate() {
        if last.is_some_and(|last| at <= last) {
            out.extend(cut_out::survey(disk, (&dir, group.gid, at), both, next(at), both.1.is_open(), lost)?);
        }
    }
    Ok(out)
}

/// Lets go of the directory.
pub fn let_go(disk: &dyn Disk, layout: &Layout) {
    let _ = disk.run(DiskOp::Unlock { path: layout.root.as_str().into() });
}

/// Does what the plan says. Lets go of the directory, whatever happens.
pub fn carry_out(disk: &dyn Disk, layout: &Layout, plan: Plan, now: Now) -> Result<Repaired, DiskError> {
    let done = Work { disk, layout, done: Repaired::default() }.all(plan, now);
    let_go(disk, layout);
    done
}

/// The entries of a group's salvage file, as far as it can be read.
fn salvaged(disk: &dyn Disk, layout: &Layout, gid: Gid) -> Result<Vec<NewEntry>, DiskError> {
    let path = format!("{}/{SALVAGE_FILE}", group_dir(&layout.groups(), gid));
    let Some(bytes) = disk.read_all(&path)? else { return Ok(Vec::new()) };
    let Some(header) = FlushHeader::decode(&bytes) else { return Ok(Vec::new()) };
    let frames = decode_flush(&header, &bytes).frames.into_iter();
    Ok(frames
        .filter_map(|frame| match frame {
            Frame::Entry(of, entry) if of == gid => Some(entry),
            _ => None,
        })
        .collect())
}

struct Work<'a> {
    disk: &'a dyn Disk,
    layout: &'a Layout,
    done: Repaired,
}

impl Work<'_> {
    fn all(mut self, plan: Plan, now: Now) -> Result<Repaired, DiskError> {
        let Plan { closed, mut found } = plan;
        // What only the journal has is safe before anything else changes.
        crash_point!("repair.before_keep");
        quarantine(self.disk, self.layout, &found.groups)?;
        crash_point!("repair.after_keep");
        settle_relaxed(self.disk, self.layout, &mut found.groups)?;
        let last_lsn = found.journal.last_lsn;
        let state = |last_lsn, checkpoint_lsn, clean| BootState {
            boot_id: found.identity.boot_id,
            mount_id: found.identity.mount_id,
            last_lsn,
            checkpoint_lsn,
            clean,
        };
        let boot = write_boot_state(self.disk, self.layout, found.boot, state(last_lsn, found.checkpoint_lsn, false))?;
        let going_on: Vec<&ClosedGroup> = closed.iter().filter(|g| g.refused.is_none()).collect();
        for closed in &going_on {
            let Some((_, files)) = found.groups.iter_mut().find(|(g, _)| g.gid == closed.gid) else { continue };
            self.keep_names(files)?;
            files.quarantine = None;
            if let Some((before, offset, term)) = closed.begins {
                let dir = group_dir(&self.layout.groups(), files.gid);
                for segment in files.segments.drain(..) {
                    let stem = format!("{dir}/{}", segment_stem(segment.base_offset, segment.generation));
                    for ext in ["log", "ext", "ent", "txn"] {
                        self.put_aside(&format!("{stem}.{ext}"))?;
                    }
                }
                (files.mend, files.journaled) = (Vec::new(), Vec::new());
                (files.first_index, files.first_offset, files.log_start) = (before.next(), offset, offset);
                files.prev_term = term;
                // Before a file of it is made: a table that stands alone would not be known for the beginning.
                write_manifests(self.disk, self.layout.groups(), files)?;
            }
            found.leftovers.rebuilt.append(&mut files.mend);
            let lsn = files.journaled.last().map_or(last_lsn, |p| p.lsn.max(last_lsn));
            if !closed.saved.is_empty() {
                files.journaled.push(piece(closed.gid, lsn, closed.saved.clone()));
            }
        }
        settle(self.disk, self.layout, &found.leftovers, &found.journal.free)?;
        for closed in &going_on {
            let Some((group, files)) = found.groups.iter_mut().find(|(g, _)| g.gid == closed.gid) else { continue };
            self.cut_out(closed, (group, files), now)?;
            if group.verdict == Verdict::Damaged {
                files.manifest_whole = false;
            }
            self.keep_tails(files)?;
        }
        let frames = frames(&found, &going_on);
        let old: Vec<String> = found.journal.live.iter().map(|f| f.path.to_string()).collect();
        let len = found.journal.live.iter().map(|f| f.len).max().unwrap_or(FILE_BYTES);
        let head = FileHeader {
            file_gen: found.journal.last_gen + 1,
            first_lsn: last_lsn + 1,
            dir_id: found.meta.dir_id,
            created_ms: now.wall.as_millis(),
            blocks: 0,
        };
        let name = format!("{}/{:016x}.wal", self.layout.journal(), found.journal.last_name + 1);
        let done = state(last_lsn + 1, last_lsn + 1, true);
        let open: Vec<FoundGroup> =
            found.groups.into_iter().map(|(_, files)| files).filter(|f| f.quarantine.is_none()).collect();
        crash_point!("repair.before_fill");
        self.to_segments(open, now)?;
        crash_point!("repair.after_fill");
        crash_point!("repair.before_journal");
        self.new_journal(&name, head, len, &frames)?;
        crash_point!("repair.after_journal");
        write_boot_state(self.disk, self.layout, boot, done)?;
        crash_point!("repair.before_aside");
        for path in old {
            self.put_aside(&path)?;
        }
        self.disk.sync_dir(&self.layout.journal())?;
        crash_point!("repair.after_aside");
        // What keeps them closed goes last.
        for closed in &going_on {
            let dir = group_dir(&self.layout.groups(), closed.gid);
            crash_point!("repair.before_open");
            self.put_aside(&format!("{dir}/{SALVAGE_FILE}"))?;
            self.disk.sync_dir(&dir)?;
            crash_point!("repair.after_open");
            self.done.groups.push(closed.gid);
        }
        Ok(self.done)
    }

    /// Damaged segments are replaced: copies aside, new ones durable, manifests, then the old ones go.
    fn cut_out(
        &mut self,
        closed: &ClosedGroup,
        (group, files): (&RecoveredGroup, &mut FoundGroup),
        now: Now,
    ) -> Result<(), DiskError> {
        if closed.cuts.is_empty() {
            return Ok(());
        }
        let dir = group_dir(&self.layout.groups(), closed.gid);
        let names = self.disk.list(&dir)?;
        let generations = names.iter().filter_map(|name| name.split('.').nth(1)?.parse::<u32>().ok());
        let generation = generations.max().unwrap_or(0).saturating_add(1);
        let mut gone = Vec::new();
        for cut in &closed.cuts {
            let old = files.segments[cut.at].clone();
            let prev_term = cut.at.checked_sub(1).map_or(files.prev_term, |at| files.segments[at].last_term);
            let stem = format!("{dir}/{}", segment_stem(old.base_offset, old.generation));
            for ext in ["log", "ext", "ent", "txn"] {
                self.copy_tail(&format!("{stem}.{ext}"), 0)?;
                gone.push(format!("{stem}.{ext}"));
            }
            let with = (generation, prev_term, now.wall.as_millis());
            files.segments[cut.at] =
                cut_out::write(self.disk, (&dir, closed.gid), (&group.segments[cut.at], &old, cut), with)?;
        }
        self.disk.sync_dir(&dir)?;
        crash_point!("repair.before_switch");
        write_manifests(self.disk, self.layout.groups(), files)?;
        crash_point!("repair.after_switch");
        crash_point!("repair.before_drop");
        for path in gone {
            self.disk.unlink(&path)?;
        }
        self.disk.sync_dir(&dir)?;
        crash_point!("repair.after_drop");
        Ok(())
    }

    /// Files that belong to nothing would go before the next append: here somebody may still want them.
    fn keep_names(&mut self, files: &mut FoundGroup) -> Result<(), DiskError> {
        let dir = group_dir(&self.layout.groups(), files.gid);
        for name in std::mem::take(&mut files.stale) {
            self.put_aside(&format!("{dir}/{name}"))?;
        }
        Ok(())
    }

    /// Bytes behind the end that is proved are cut off by the next append: copied first.
    fn keep_tails(&mut self, files: &FoundGroup) -> Result<(), DiskError> {
        let dir = group_dir(&self.layout.groups(), files.gid);
        for segment in files.segments.iter().filter(|s| s.is_open() && s.cut) {
            let stem = format!("{dir}/{}", segment_stem(segment.base_offset, segment.generation));
            let ends = [("log", segment.log_len.into()), ("ext", segment.ext_len.into()), ("ent", segment.ent_len())];
            for (ext, end) in ends {
                self.copy_tail(&format!("{stem}.{ext}"), end)?;
            }
        }
        self.disk.sync_dir(&dir)
    }

    fn copy_tail(&mut self, path: &str, from: u64) -> Result<(), DiskError> {
        let len = match self.disk.length(path) {
            Err(e) if e.kind == DiskFault::NotFound => return Ok(()),
            other => other?,
        };
        if len <= from {
            return Ok(());
        }
        let copy = if from == 0 { self.free_name(path)? } else { self.free_name(&format!("{path}.from-{from}"))? };
        self.disk.create_new(&copy)?;
        let mut at = from;
        while at < len {
            let wanted = PIECE_BYTES.min(usize::try_from(len - at).unwrap_or(PIECE_BYTES));
            let piece = match self.disk.read(path, at, wanted) {
                // What cannot be read is not kept: a hole as long stands for it.
                Err(e) if e.kind == DiskFault::Io => {
                    at += wanted as u64;
                    continue;
                }
                other => other?,
            };
            if piece.is_empty() {
                break;
            }
            let bytes = piece.len() as u64;
            self.disk.write(&copy, at - from, piece)?;
            at += bytes;
        }
        self.disk.fdatasync(&copy)?;
        self.done.aside.push(copy);
        Ok(())
    }

    fn put_aside(&mut self, path: &str) -> Result<(), DiskError> {
        let to = self.free_name(path)?;
        match self.disk.run(DiskOp::Rename { from: path.into(), to: to.as_str().into() }) {
            Err(e) if e.kind == DiskFault::NotFound => return Ok(()),
            other => drop(other?),
        }
        self.done.aside.push(to);
        Ok(())
    }

    /// `path` with [`ASIDE`] behind it, and a number in between if a repair before took that.
    fn free_name(&self, path: &str) -> Result<String, DiskError> {
        let mut name = format!("{path}{ASIDE}");
        for n in 2..COPIES_MAX {
            match self.disk.length(&name) {
                Err(e) if e.kind == DiskFault::NotFound => break,
                other => drop(other?),
            }
            name = format!("{path}.{n}{ASIDE}");
        }
        Ok(name)
    }

    /// Every entry of every open partition into its files, durable, by the segment writer itself.
    fn to_segments(&self, groups: Vec<FoundGroup>, now: Now) -> Result<(), DiskError> {
        let mut segments = Segments::new(SegmentConfig::new(self.layout.groups()));
        let mut out = Effects::new();
        for group in groups {
            segments.handle(now, SegmentEvent::Open(Box::new(group)), &mut out);
        }
        segments.handle(now, SegmentEvent::Wake, &mut out);
        segments.handle(now, SegmentEvent::Close, &mut out);
        loop {
            let effects: Vec<SegmentEffect> = out.drain().collect();
            if effects.is_empty() {
                return Ok(());
            }
            for effect in effects {
                match effect {
                    SegmentEffect::Disk { token, op, .. } => {
                        let result = self.disk.run(op);
                        segments.handle(now, SegmentEvent::Done(token, result), &mut out);
                    }
                    SegmentEffect::NoSpace(error) | SegmentEffect::Stop(error) => return Err(error),
                    _ => {}
                }
            }
        }
    }

    /// One file with one flush: what the journal must still say when every entry is in segments.
    fn new_journal(&self, name: &str, head: FileHeader, len: u64, frames: &[Frame]) -> Result<(), DiskError> {
        let bytes = HEADER_BYTES + frames.iter().map(frame_bytes).sum::<usize>();
        let mut builder = FlushBuilder::new(
            AlignedBuf::with_capacity(bytes.next_multiple_of(BLOCK_BYTES)),
            head.first_lsn,
            usize::MAX,
        );
        frames.iter().for_each(|frame| builder.push(frame));
        let flush = builder.finish(head.file_gen, head.first_lsn - 1, 0, head.dir_id);
        let used = (BLOCK_BYTES + flush.bytes().len()) as u64;
        let len = len.max(used + 2 * BLOCK_BYTES as u64);
        let head = FileHeader { blocks: u32::try_from(len / BLOCK_BYTES as u64).unwrap_or(0), ..head };
        let new = format!("{name}{NEW}");
        self.disk.unlink(&new)?;
        self.disk.create_new(&new)?;
        self.disk.write(&new, 0, Bytes::from(head.encode()))?;
        self.disk.write(&new, BLOCK_BYTES as u64, Bytes::copy_from_slice(flush.bytes()))?;
        let mut at = used;
        while at < len {
            let piece = PIECE_BYTES.min(usize::try_from(len - at).unwrap_or(PIECE_BYTES));
            self.disk.write(&new, at, Bytes::from(vec![0; piece]))?;
            at += piece as u64;
        }
        self.disk.fdatasync(&new)?;
        match self.disk.run(DiskOp::Rename { from: new.into(), to: name.into() })? {
            DiskDone::Done => {}
            other => debug_assert!(false, "a rename gave {other:?}"),
        }
        self.disk.sync_dir(&self.layout.journal())
    }
}

/// The newest hard state of every partition, and what of its making and its durability only the journal says.
fn frames(found: &Recovered, going_on: &[&ClosedGroup]) -> Vec<Frame> {
    let mut out = Vec::new();
    for (group, files) in &found.groups {
        let gid = group.gid;
        if let Some(head) = found.journal.heads.get(&gid) {
            // A closed one may have no manifest for long: whose log it is must not get lost meanwhile.
            out.extend(head.create.iter().map(|(spec, _)| Frame::Create(gid, spec.clone())));
        }
        out.extend(files.loose.map(|loose| Frame::Mark(gid, loose.mark())));
        let known = found.journal.heads.get(&gid).is_some_and(|head| head.hard.is_some());
        let going = going_on.iter().find(|g| g.gid == gid);
        let held = group.last_index() >= group.first_index || files.gone || going.is_some_and(|g| !g.saved.is_empty());
        let hard_frame = |hard| if held { Frame::HardInFiles(gid, hard) } else { Frame::Hard(gid, hard) };
        if group.verdict != Verdict::Ok {
            // Votes may be lost with the rest: the next term has none.
            let last = going.map_or(group.hard.commit, |g| g.last_index);
            let term = group.hard.term.max(going.and_then(|g| g.saved.last()).map_or(0, |e| e.term.0)) + 1;
            out.push(hard_frame(Hard { term, vote: 0, commit: group.hard.commit.min(last) }));
        } else if known || group.hard != Hard::default() {
            out.push(hard_frame(group.hard));
        }
    }
    out
}

fn piece(gid: Gid, lsn: u64, entries: Vec<NewEntry>) -> Persisted {
    debug_assert!(entries.iter().all(|e| e.kind == EntryKind::Data || e.body.is_empty()));
    Persisted { entries, ..Persisted::empty(gid, lsn) }
}
