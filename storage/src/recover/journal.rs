//! The journal's part of recovery: which flushes count, what they hold, what of it is lost.

use super::{Layout, Leftovers, RecoverError, Report, Survivor};
use crate::disk::{BLOCK_BYTES, Disk, DiskExt, DiskFault};
use crate::entry::{Frame, GroupSpec, Hard, Loose, MarkKind, NewEntry, PrefixSnapshot};
use crate::format::NUMBER_MAX;
use crate::format::journal::{DirectoryRow, FileHeader, FlushContent, FlushHeader, decode_flush, salvage_flush};
use crate::format::slot::{BootState, DirMeta};
use crate::journal::{FoundFile, FoundJournal, Head, NEW};
use bytes::Bytes;
use catchwater_base::mutant;
use catchwater_record::{EntryIndex, Gid};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

pub(super) struct Scan {
    pub found: FoundJournal,
    pub replay: Replay,
}

/// The frames of all groups, replayed in lsn order.
#[derive(Default)]
pub(super) struct Replay {
    pub groups: BTreeMap<Gid, GroupFrames>,
    pub dropped: BTreeSet<Gid>,
    /// Frames are lost and nobody knows whose.
    pub unknown_loss: bool,
    /// Whole journal files are missing, or only hard states can be.
    pub files_lost: bool,
    /// Flushes up to here hold no entry or mark that is needed: what of them is lost can only be a hard state.
    settled_lsn: u64,
    /// Entries up to here are in files, of groups that have files.
    checkpoint_lsn: u64,
    held: BTreeSet<Gid>,
}

/// A prepared file is never shorter, bytes.
const FILE_BYTES_MIN: u64 = 4 * BLOCK_BYTES as u64;

/// What the journal says of one group.
#[derive(Default)]
pub(super) struct GroupFrames {
    pub create: Option<(GroupSpec, u64)>,
    pub hard: Option<(Hard, u64)>,
    /// It was said to have files.
    pub in_files: bool,
    /// A HARD frame behind `hard` is lost.
    pub hard_lost: bool,
    /// The CREATE frame is lost.
    pub create_lost: bool,
    /// What a relaxed group's marks come to, and whether one of them is lost.
    pub loose: Option<(Loose, u64)>,
    pub mark_lost: bool,
    /// The log is void and begins behind this.
    pub snapshot: Option<(Box<PrefixSnapshot>, u64)>,
    /// A SNAP frame is lost: what the log was before it is void, and where it begins is not known.
    pub snapshot_lost: bool,
    /// Newest entry per index; an entry drops everything behind it.
    pub entries: BTreeMap<EntryIndex, (NewEntry, u64)>,
    /// Indexes whose frame is lost, with the flush it was in.
    pub lost: BTreeMap<EntryIndex, u64>,
}

impl GroupFrames {
    /// Of a group whose entries are all in files.
    pub fn of_head(head: Head) -> Self {
        let Head { hard, create, in_files, loose, .. } = head;
        GroupFrames { create, hard, in_files, loose, ..GroupFrames::default() }
    }

    pub fn head(&self) -> Head {
        let GroupFrames { hard, create, in_files, loose, .. } = self;
        Head { hard: *hard, create: create.clone(), in_files: *in_files, unsaid: false, loose: *loose }
    }

    fn cut(&mut self, from: EntryIndex) {
        // Rare: nearly every entry comes behind all others.
        if self.entries.last_key_value().is_some_and(|(last, _)| *last >= from) {
            self.entries.split_off(&from);
        }
        if self.lost.last_key_value().is_some_and(|(last, _)| *last >= from) {
            self.lost.split_off(&from);
        }
    }
}

impl Replay {
    /// Something of flush `lsn` is lost and nobody knows whose.
    fn lost_of_nobody(&mut self, lsn: u64) {
        if lsn <= self.settled_lsn {
            self.files_lost = true;
        } else {
            self.unknown_loss = true;
        }
    }

    /// An entry that is in files needs no replay; what has no files has nothing but the journal.
    fn entries_count(&self, gid: Gid, lsn: u64) -> bool {
        lsn > self.checkpoint_lsn || !self.held.contains(&gid)
    }

    fn frame(&mut self, lsn: u64, frame: Frame) {
        let gid = frame.gid();
        if self.dropped.contains(&gid) {
            return;
        }
        let entries_count = self.entries_count(gid, lsn);
        match frame {
            Frame::Create(_, spec) => {
                let group = self.groups.entry(gid).or_default();
                (group.create, group.create_lost) = (Some((spec, lsn)), false);
            }
            Frame::Hard(_, hard) => {
                let group = self.groups.entry(gid).or_default();
                (group.hard, group.hard_lost) = (Some((hard, lsn)), false);
            }
            Frame::HardInFiles(_, hard) => {
                let group = self.groups.entry(gid).or_default();
                (group.hard, group.hard_lost, group.in_files) = (Some((hard, lsn)), false, true);
            }
            Frame::Snapshot(_, snapshot) => {
                if entries_count {
                    let group = self.groups.entry(gid).or_default();
                    group.entries.clear();
                    group.lost.clear();
                    (group.snapshot, group.snapshot_lost) = (Some((snapshot, lsn)), false);
                }
            }
            Frame::Entry(_, entry) => {
                if entries_count {
                    let group = self.groups.entry(gid).or_default();
                    group.cut(entry.index);
                    group.entries.insert(entry.index, (entry, lsn));
                }
            }
            Frame::Mark(_, mark) => {
                let group = self.groups.entry(gid).or_default();
                group.loose = Loose::fold(group.loose.map(|(l, _)| l), mark).map(|l| (l, lsn));
                group.mark_lost = false;
                if mark.kind == MarkKind::Relaxed {
                    // What was journaled before is durable in segments; what followed is only there.
                    group.entries.clear();
                    group.lost.clear();
                }
            }
            Frame::Drop(_) => {
                self.groups.remove(&gid);
                self.dropped.insert(gid);
            }
        }
    }

    fn content(&mut self, lsn: u64, content: FlushContent) {
        // Lost frames first: a lost entry makes what was behind it void just as the entry would have.
        for lost in &content.lost {
            match lost {
                None => self.lost_of_nobody(lsn),
                Some(row) if self.dropped.contains(&row.gid) => {}
                Some(row) => {
                    let entries_count = self.entries_count(row.gid, lsn);
                    let group = self.groups.entry(row.gid).or_default();
                    if row.is_entry() {
                        if entries_count {
                            group.cut(EntryIndex(row.index));
                        }
                    } else if row.is_snapshot() {
                        group.snapshot_lost |= entries_count;
                    } else if row.is_mark() {
                        group.mark_lost = true;
                    } else if row.is_hard() {
                        group.hard_lost = true;
                    } else {
                        group.create_lost = group.create.is_none();
                    }
                }
            }
        }
        let counts = |row: &DirectoryRow| row.is_entry() && self.entries_count(row.gid, lsn);
        let lost: Vec<_> = content.lost.into_iter().flatten().filter(counts).collect();
        for frame in content.frames {
            self.frame(lsn, frame);
        }
        for row in lost {
            if let Some(group) = self.groups.get_mut(&row.gid) {
                group.lost.insert(EntryIndex(row.index), lsn);
            }
        }
    }
}

/// One journal file in memory.
struct Scanned {
    path: String,
    bytes: Bytes,
    file_gen: u64,
    first_lsn: u64,
    /// Flushes with a valid header, ascending by place.
    flushes: Vec<Flush>,
    /// Length the file has, or had before it was cut, bytes.
    len: u64,
}

/// One flush: read and checked once, for all that is asked of it.
struct Flush {
    at: usize,
    header: FlushHeader,
    content: FlushContent,
    /// Everything of it is there and undamaged.
    is_whole: bool,
}

pub(super) fn scan(
    disk: &dyn Disk,
    layout: &Layout,
    (meta, boot, survivor): (&DirMeta, &BootState, Survivor),
    held: BTreeSet<Gid>,
    report: &mut Report,
    leftovers: &mut Leftovers,
) -> Result<Scan, RecoverError> {
    let dir = layout.journal();
    let names = match disk.list(&dir) {
        Err(e) if e.kind == DiskFault::NotFound => Vec::new(),
        other => other?,
    };
    let mut found = FoundJournal::default();
    let mut files: Vec<Scanned> = Vec::new();
    let mut unknown: Vec<(String, Bytes)> = Vec::new();
    // Half made by a life before: nothing was trusted to them.
    let half_made = names.iter().filter(|n| n.ends_with(&format!(".wal{NEW}")));
    leftovers.files.extend(half_made.map(|n| format!("{dir}/{n}")));
    let names: Vec<&String> = names.iter().filter(|n| n.ends_with(".wal")).collect();
    // A file has its length before it has its name, and keeps it: a shorter one was cut, and what stood behind the cut
    // nobody knows. Those that cannot be read any more are counted, the others known by their generation.
    let (mut stumps, mut cut) = (0, BTreeSet::new());
    found.last_name = names.iter().map(|name| number_of(name)).max().unwrap_or(0);
    for looked in look_at_all(disk, &dir, &names, meta)? {
        let (path, len, bytes, scanned) = match looked {
            Looked::Free { path, len } => {
                found.free.push((path.into(), len));
                continue;
            }
            Looked::Used { path, len, bytes, scanned } => (path, len, bytes, scanned),
        };
        let short = is_short(len);
        report.journal_bytes += bytes.len() as u64;
        match scanned {
            Some(mut file) => {
                let said = FileHeader::decode(&bytes).map_or(0, |h| u64::from(h.blocks) * BLOCK_BYTES as u64);
                if short || len < said {
                    cut.insert(file.file_gen);
                    if said >= FILE_BYTES_MIN {
                        file.len = said;
                        leftovers.grow.push((path, said));
                    }
                }
                files.push(file);
            }
            None if short => {
                stumps += 1;
                report.unknown_files.push(path.clone());
                leftovers.aside.push(path);
            }
            None => unknown.push((path, bytes)),
        }
    }
    files.sort_by_key(|f| f.file_gen);
    // Entries up to the checkpoint are in segments; what relaxed groups claimed is too, unless the power went.
    let settled_lsn = if survivor == Survivor::Power { 0 } else { boot.checkpoint_lsn };
    let mut replay = Replay { settled_lsn, checkpoint_lsn: boot.checkpoint_lsn, held, ..Replay::default() };
    for pair in files.windows(2).filter(|w| w[1].file_gen != w[0].file_gen + 1) {
        replay.files_lost = true;
        replay.lost_of_nobody(pair[1].first_lsn.saturating_sub(1));
    }
    for (path, bytes) in unknown {
        if bytes.iter().skip(BLOCK_BYTES).all(|b| *b == 0) {
            leftovers.files.push(path); // its block 0 was being written for the first time: nothing was in it
            continue;
        }
        // Ours and destroyed, or another directory's: never removed, and only the first is a loss.
        stumps += u64::from(!is_foreign(&bytes, meta));
        report.unknown_files.push(path.clone());
        leftovers.aside.push(path);
    }
    if files.is_empty() && boot.last_lsn > 0 {
        replay.files_lost = true;
        replay.lost_of_nobody(boot.last_lsn);
    }

    // What is certain to have been durable, and where the valid flushes end.
    let mut claimed = boot.last_lsn;
    let mut last_valid = 0;
    let mut contents: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
    for (i, file) in files.iter().enumerate() {
        claimed = claimed.max(file.first_lsn.saturating_sub(1));
        let bound = files.get(i + 1).map_or(u64::MAX, |next| next.first_lsn);
        for (n, Flush { header, is_whole, .. }) in file.flushes.iter().enumerate() {
            let stale = header.lsn < file.first_lsn && !mutant!("stale_recycled_journal_block");
            if stale || header.lsn >= bound {
                continue;
            }
            claimed = claimed.max(header.durable_lsn);
            contents.insert(header.lsn, (i, n));
            if *is_whole {
                last_valid = last_valid.max(header.lsn);
            }
        }
    }
    let end = last_valid.max(claimed);
    // Of an older file the next one says how far it went, of all of them a clean stop does.
    let newest_cut = files.last().is_some_and(|f| cut.contains(&f.file_gen));
    replay.files_lost |= stumps > 0;
    if (stumps > 0 || newest_cut) && !(boot.clean && last_valid >= boot.last_lsn) {
        replay.unknown_loss = true;
    }
    report.cut_files = cut.len() as u64;
    // A directory whose journal never held anything valid begins at flush 1.
    let first = files.first().map_or(end + 1, |f| f.first_lsn);
    let first = match contents.keys().next() {
        Some(stale) if mutant!("stale_recycled_journal_block") => first.min(*stale),
        _ => first,
    };
    let mut place: Option<(usize, usize)> = files.first().map(|_| (0, BLOCK_BYTES));
    // More flushes than the files have blocks cannot be looked for: what is beyond is lost, and nobody knows whose.
    let blocks: usize = files.iter().map(|f| f.bytes.len() / BLOCK_BYTES).sum();
    let looked = end.min(first.saturating_add(blocks as u64 + 1));
    if looked < end && !replay.files_lost {
        replay.lost_of_nobody(end);
    }
    for lsn in (first..=looked).chain(contents.keys().copied().filter(|lsn| *lsn > looked && *lsn <= end)) {
        // Where a flush must begin if its own header cannot say so.
        if let Some(next) = files.iter().position(|f| f.first_lsn == lsn) {
            place = Some((next, BLOCK_BYTES));
        }
        report.flushes += 1;
        let content = match contents.get(&lsn) {
            Some((file, n)) => {
                let flush = &mut files[*file].flushes[*n];
                place = flush.header.flush_bytes().map(|n| (*file, flush.at + n));
                std::mem::take(&mut flush.content)
            }
            None => match place.filter(|(file, at)| *at < files[*file].bytes.len()) {
                Some((file, at)) => {
                    let stop = files[file].flushes.iter().map(|f| f.at).find(|a| *a > at);
                    let stop = stop.unwrap_or(files[file].bytes.len());
                    let content = salvage_flush(lsn, &files[file].bytes.slice(at..stop));
                    // The next flush without a header, if any, cannot be placed from here.
                    place = Some((file, stop));
                    content
                }
                None => FlushContent { frames: Vec::new(), lost: vec![None] },
            },
        };
        if !content.is_whole() && mutant!("truncate_at_first_bad_crc") {
            break;
        }
        if !content.is_whole() {
            report.corrupt_flushes += 1;
            report.lost_frames += content.lost.len() as u64;
        }
        // A seal that is lost lost nothing; salvage of an empty flush proves itself by its empty directory.
        replay.content(lsn, content);
    }
    report.torn_flushes = contents.keys().filter(|lsn| **lsn > end).count() as u64;

    found.last_lsn = end;
    found.last_gen = files.last().map_or(0, |f| f.file_gen);
    for (i, file) in files.iter().enumerate() {
        found.live.push(FoundFile {
            path: file.path.as_str().into(),
            len: file.len,
            file_gen: file.file_gen,
            first_lsn: file.first_lsn,
            last_lsn: files.get(i + 1).map_or(end, |next| next.first_lsn.saturating_sub(1)),
            pins: BTreeMap::new(),
        });
    }
    Ok(Scan { found, replay })
}

/// What one journal file holds, before anything is said of the others.
enum Looked {
    /// Never used, `len` bytes; zeros are only there to make writes cheap, so nothing depends on their being whole.
    Free { path: String, len: u64 },
    /// `scanned`: `None` if nothing of this directory is in it.
    Used { path: String, len: u64, bytes: Bytes, scanned: Option<Scanned> },
}

fn look_at(disk: &dyn Disk, path: String, meta: &DirMeta) -> Result<Looked, RecoverError> {
    let len = disk.length(&path)?;
    let start = disk.read(&path, 0, 2 * BLOCK_BYTES)?;
    if start.iter().all(|b| *b == 0) && !is_short(len) {
        return Ok(Looked::Free { path, len });
    }
    let bytes = disk.read_once(&path.as_str().into(), usize::try_from(len).unwrap_or(usize::MAX))?;
    let scanned = scan_file(path.clone(), bytes.clone(), meta);
    Ok(Looked::Used { path, len, bytes, scanned })
}

/// Every file, in the order of their names. They say nothing of one another yet, so as many threads as the disk allows
/// share them: while one waits for the device, others fill fresh memory and check sums.
fn look_at_all(disk: &dyn Disk, dir: &str, names: &[&String], meta: &DirMeta) -> Result<Vec<Looked>, RecoverError> {
    let readers = disk.readers().min(names.len()).max(1);
    let look = |n: usize| look_at(disk, format!("{dir}/{}", names[n]), meta);
    if readers == 1 {
        return (0..names.len()).map(look).collect();
    }
    let taken = AtomicUsize::new(0);
    let work = || {
        let take = || Some(taken.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < names.len());
        std::iter::from_fn(take).map(|n| (n, look(n))).collect::<Vec<_>>()
    };
    let mut all = std::thread::scope(|scope| {
        let others: Vec<_> = (1..readers).map(|_| scope.spawn(work)).collect();
        let mut all = work();
        for other in others {
            // A panic goes on where it would have without threads.
            all.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        all
    });
    all.sort_by_key(|(n, _)| *n);
    all.into_iter().map(|(_, looked)| looked).collect()
}

fn number_of(name: &str) -> u64 {
    u64::from_str_radix(name.trim_end_matches(".wal"), 16).unwrap_or(0).min(NUMBER_MAX)
}

/// Shorter than any that was prepared, or not of whole blocks: it was cut.
fn is_short(len: u64) -> bool {
    len < FILE_BYTES_MIN || !len.is_multiple_of(BLOCK_BYTES as u64)
}

/// Anything whole in it says that it belongs to another directory.
fn is_foreign(bytes: &Bytes, meta: &DirMeta) -> bool {
    let header = FileHeader::decode(bytes).map(|h| h.dir_id);
    let mut blocks = bytes.chunks_exact(BLOCK_BYTES);
    let id = header.or_else(|| blocks.find_map(|block| FlushHeader::decode(block).map(|f| f.dir_id)));
    id.is_some_and(|id| id != meta.dir_id)
}

fn scan_file(path: String, bytes: Bytes, meta: &DirMeta) -> Option<Scanned> {
    let header = FileHeader::decode(&bytes).filter(|h| h.dir_id == meta.dir_id);
    let mut file_gen = header.map(|h| h.file_gen);
    let mut flushes = Vec::new();
    let mut at = BLOCK_BYTES;
    while at + BLOCK_BYTES <= bytes.len() {
        let flush = FlushHeader::decode(&bytes[at..]).filter(|f| f.dir_id == meta.dir_id);
        // Block 0 is damaged, or its writing was torn: the first flush says which generation this is. If it was being
        // used again, that is the old one, whose frames are all drained: replaying them changes nothing.
        if let (None, Some(flush)) = (file_gen, &flush) {
            file_gen = Some(flush.file_gen);
        }
        match flush {
            Some(flush) if Some(flush.file_gen) == file_gen || mutant!("stale_recycled_journal_block") => {
                let content = decode_flush(&flush, &bytes.slice(at..));
                let is_whole = content.is_whole();
                flushes.push(Flush { at, header: flush, content, is_whole });
                // A torn flush may claim bytes over which the next one was written: skip only what is there.
                let whole = flush.flush_bytes().filter(|n| is_whole && at + n <= bytes.len());
                at += whole.unwrap_or(BLOCK_BYTES);
            }
            _ => at += BLOCK_BYTES,
        }
    }
    let file_gen = file_gen?;
    let first_lsn = header.map(|h| h.first_lsn).or_else(|| flushes.iter().map(|f| f.header.lsn).min())?;
    let len = bytes.len() as u64 / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
    Some(Scanned { path, bytes, file_gen, first_lsn, flushes, len })
}
