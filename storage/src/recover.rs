//! What a log directory holds after whatever happened to it: a fold over slots, journal and segments that changes nothing.
//!
//! Blocking; runs its reads on a [`Disk`]. Pure otherwise: no clock, no thread. `raft/driver.rs` calls it at start.
//!
//! Rules (storage.md 8):
//! - Files are trusted up to where a group's first frame still lies in the journal; from there on rows are hints and the
//!   journal's frames take their place, in lsn order. Sealed segments are trusted as the manifest names them.
//! - A flush is *torn*, and cut, only if no valid flush with a larger number exists and its number is above every one that
//!   was ever claimed durable. Otherwise it is *corrupt*: its frames are saved one by one, and whose frame is lost is known.
//! - Nothing that was claimed durable is dropped in silence: what cannot be found again gives the group a verdict.
//! - Generations of journal files on disk are one unbroken run (files are freed and used again in order): a hole is damage.

mod anchors;
pub(crate) mod forgiving;
mod group;
mod journal;
mod rebuild;
mod relaxed;
mod since;
mod thinned;
mod txn;

use crate::disk::{AlignedBuf, Disk, DiskDone, DiskError, DiskExt, DiskFault, DiskOp, FilePath, FsKind, Identity};
use crate::entry::{Frame, RecoveredGroup, Verdict};
use crate::format::journal::{FlushBuilder, HEADER_BYTES, frame_bytes};
use crate::format::slot::{self, BootState, DIR_FORMAT, DirMeta, DirState, Pair, Side, SlotKind};
use crate::journal::{FoundJournal, Head};
use crate::segment::{FoundGroup, group_dir};
use bytes::Bytes;
use catchwater_base::{crash_point, mutant};
use catchwater_record::{Gid, Offset};
use group::KeepRows;
pub use relaxed::settle_relaxed;
use std::collections::{BTreeMap, BTreeSet};

/// How the last process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Survivor {
    /// The directory was made just now.
    Fresh,
    /// It was closed.
    Clean,
    /// The process died, the page cache survived.
    Process,
    /// The machine died, or nobody can tell.
    Power,
}

/// What a new directory gets as its identity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewIdentity {
    pub cluster_id: [u8; 16],
    pub dir_id: [u8; 16],
    pub node: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    #[error("another process has the log directory {0}")]
    Locked(String),
    #[error("{path} is not a log directory this version can read: {why}")]
    Format { path: String, why: &'static str },
    #[error("{path} was written in format {found}, this version reads up to {known}")]
    Newer { path: String, found: u32, known: u32 },
    #[error("{path} lies on {kind}, where a sync does not keep its promise or two nodes may write at once")]
    Filesystem { path: String, kind: &'static str },
    #[error("there is no directory {0}")]
    Missing(String),
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Everything that was found.
#[derive(Debug)]
pub struct Recovered {
    pub meta: DirMeta,
    pub survivor: Survivor,
    pub identity: Identity,
    pub journal: FoundJournal,
    /// For the log of each group, and for the segment writer, ascending by gid.
    pub groups: Vec<(RecoveredGroup, FoundGroup)>,
    /// Entries in flushes up to here are durable in segments, whatever happens.
    pub checkpoint_lsn: u64,
    /// Where the next `boot.state` goes.
    pub boot: (u64, Side),
    /// Leftovers that belong to nothing: files, and directories of deleted groups.
    pub leftovers: Leftovers,
    pub report: Report,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Leftovers {
    pub files: Vec<String>,
    pub dirs: Vec<String>,
    /// Entry tables that were made again from what they describe: the bad one is kept aside.
    pub rebuilt: Vec<(String, Bytes)>,
    /// Journal files that cannot be read as ours: renamed to [`ASIDE`], never removed.
    pub aside: Vec<String>,
    /// Journal files that were cut, and the length they had: they get it back, to be used again in their turn.
    pub grow: Vec<(String, u64)>,
}

/// Ending of what was put out of the way and kept.
pub const ASIDE: &str = ".aside";

/// Counts for the start's log line and for `catchwater storage check`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    pub flushes: u64,
    pub torn_flushes: u64,
    pub corrupt_flushes: u64,
    pub lost_frames: u64,
    /// Journal files that are shorter than they were made.
    pub cut_files: u64,
    /// Frames are lost and nobody knows whose.
    pub unknown_loss: bool,
    pub journal_bytes: u64,
    pub entries_from_journal: u64,
    /// Journal files that nothing in them says are ours: kept as they are, never read again.
    pub unknown_files: Vec<String>,
    pub verdicts: BTreeMap<Gid, &'static str>,
    /// Relaxed groups that a power loss cut.
    pub relaxed: BTreeMap<Gid, RelaxedLoss>,
}

/// What a relaxed group has lost, as far as it left traces: rows whose bytes are gone, or a commit index beyond the end.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct RelaxedLoss {
    /// Entries and records that were there for certain, and are gone.
    pub entries: u64,
    pub records: u64,
    /// The log ends here now.
    pub end: Offset,
    /// Claims were open when the power went: more may be lost, up to one flush window.
    pub dirty: bool,
}

/// Paths of one log directory.
#[derive(Clone, Debug)]
pub struct Layout {
    pub root: String,
}

impl Layout {
    pub fn new(root: impl Into<String>) -> Self {
        Layout { root: root.into() }
    }
    pub fn journal(&self) -> String {
        format!("{}/journal", self.root)
    }
    pub fn groups(&self) -> String {
        format!("{}/p", self.root)
    }
    fn slot(&self, name: &str, side: Side) -> String {
        format!("{}/{name}.{}", self.root, side.suffix())
    }
}

/// Takes the directory as it is and reads everything; makes nothing, changes nothing. For `catchwater storage`. The lock
/// is held until [`DiskOp::Unlock`] or the end of the process. Of rows that the files have as they should be it gives fences
/// ([`crate::check`] reads them again, a segment at a time), and nothing since the newest snapshot.
pub fn examine(disk: &dyn Disk, layout: &Layout) -> Result<Recovered, RecoverError> {
    match disk.list(&layout.root) {
        Err(e) if e.kind == DiskFault::NotFound => return Err(RecoverError::Missing(layout.root.clone())),
        other => other?,
    };
    lock(disk, layout)?;
    let found = match read_meta(disk, layout) {
        Ok(Some(meta)) => found(disk, layout, meta, KeepRows::Look),
        Ok(None) => Err(RecoverError::Format { path: layout.root.clone(), why: "it holds no dir.meta" }),
        Err(error) => Err(error),
    };
    if found.is_err() {
        let _ = disk.run(DiskOp::Unlock { path: layout.root.as_str().into() });
    }
    found
}

/// Takes the directory (making it if need be) and reads everything. Writes nothing into an existing one. The rows of sealed
/// segments are fenced one group after the other: memory never holds those of a whole directory.
pub fn recover(disk: &dyn Disk, layout: &Layout, new: NewIdentity) -> Result<Recovered, RecoverError> {
    recover_with(disk, layout, new, KeepRows::Start)
}

/// The same with all rows, for who compares them.
pub fn recover_whole(disk: &dyn Disk, layout: &Layout, new: NewIdentity) -> Result<Recovered, RecoverError> {
    recover_with(disk, layout, new, KeepRows::All)
}

fn recover_with(disk: &dyn Disk, layout: &Layout, new: NewIdentity, keep: KeepRows) -> Result<Recovered, RecoverError> {
    make_parents(disk, &layout.root)?;
    lock(disk, layout)?;
    let found = match read_meta(disk, layout) {
        Ok(Some(meta)) => found(disk, layout, meta, keep),
        Ok(None) => found_dir(disk, layout, new).inspect_err(|_| {
            // After a failed sync the page cache shows what the disk does not have, and no later sync writes it: the next
            // start must not find these files whole.
            for side in [Side::A, Side::B] {
                let _ = disk.unlink(&layout.slot("dir.meta", side));
            }
        }),
        Err(error) => Err(error),
    };
    if found.is_err() {
        let _ = disk.run(DiskOp::Unlock { path: layout.root.as_str().into() });
    }
    found
}

/// Refuses a directory on a filesystem that this engine cannot trust. Before [`recover`], unless the operator says
/// otherwise (`storage.allow.unsafe.filesystem`). A directory that is not there yet is judged by the nearest one above.
pub fn check_filesystem(disk: &dyn Disk, layout: &Layout) -> Result<(), RecoverError> {
    let mut path = layout.root.as_str();
    loop {
        match disk.run(DiskOp::FsKind { path: path.into() }) {
            Ok(DiskDone::FsKind(FsKind::Unsafe(kind))) => {
                return Err(RecoverError::Filesystem { path: layout.root.clone(), kind });
            }
            Ok(_) => return Ok(()),
            Err(e) if e.kind == DiskFault::NotFound && parent(path) != path && path != "." => path = parent(path),
            Err(e) => return Err(e.into()),
        }
    }
}

fn lock(disk: &dyn Disk, layout: &Layout) -> Result<(), RecoverError> {
    match disk.run(DiskOp::Lock { path: layout.root.as_str().into() }) {
        Ok(_) => Ok(()),
        Err(e) if e.kind == DiskFault::Locked => Err(RecoverError::Locked(layout.root.clone())),
        Err(e) => Err(e.into()),
    }
}

/// Makes the directory and what is above it, each with its name durable.
fn make_parents(disk: &dyn Disk, path: &str) -> Result<(), DiskError> {
    match disk.list(path) {
        Err(e) if e.kind == DiskFault::NotFound => {}
        other => return other.map(drop),
    }
    let above = parent(path);
    if above != "." && above != path {
        make_parents(disk, above)?;
    }
    disk.mkdir(path)?;
    disk.sync_dir(above)
}

fn parent(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) => "/",
        Some(at) => &path[..at],
        None => ".",
    }
}

fn read_pair(disk: &dyn Disk, layout: &Layout, name: &str, kind: SlotKind) -> Result<(Pair, bool), DiskError> {
    let a = disk.read_all(&layout.slot(name, Side::A))?;
    let b = disk.read_all(&layout.slot(name, Side::B))?;
    Ok((slot::newest(kind, a.as_deref(), b.as_deref()), a.is_some() || b.is_some()))
}

fn read_meta(disk: &dyn Disk, layout: &Layout) -> Result<Option<DirMeta>, RecoverError> {
    let format = |why| RecoverError::Format { path: layout.root.clone(), why };
    let (pair, exists) = read_pair(disk, layout, "dir.meta", SlotKind::DirMeta)?;
    if let Some(slot) = pair.newest {
        let meta = DirMeta::decode(&slot.payload).ok_or_else(|| format("dir.meta is of another version"))?;
        if meta.format > DIR_FORMAT {
            let path = layout.root.clone();
            return Err(RecoverError::Newer { path, found: meta.format, known: DIR_FORMAT });
        }
        return Ok(Some(meta));
    }
    // A slot of a later version is whole, only not for us.
    for side in [Side::A, Side::B] {
        let bytes = disk.read_all(&layout.slot("dir.meta", side))?.unwrap_or_default();
        if let Some(found) = slot::later_version(&bytes) {
            let (path, known) = (layout.root.clone(), u32::from(slot::VERSION));
            return Err(RecoverError::Newer { path, found: u32::from(found), known });
        }
    }
    // Nothing valid: either the directory was never finished, or it is damaged or somebody else's.
    let names = disk.list(&layout.root)?;
    let ours = |n: &String| ["dir.meta.a", "dir.meta.b", "journal", "p", "lost+found"].contains(&n.as_str());
    if !names.iter().all(ours) {
        return Err(format(if exists { "dir.meta is damaged in both copies" } else { "it holds other files" }));
    }
    let full = |dir: String| disk.list(&dir).is_ok_and(|names| !names.is_empty());
    if full(layout.journal()) || full(layout.groups()) {
        return Err(format("dir.meta is missing or damaged, but there is data"));
    }
    Ok(None)
}

/// Makes the directory: folders, identity, then its name.
fn found_dir(disk: &dyn Disk, layout: &Layout, new: NewIdentity) -> Result<Recovered, RecoverError> {
    let meta = DirMeta {
        cluster_id: new.cluster_id,
        dir_id: new.dir_id,
        node: new.node,
        state: DirState::Member,
        format: DIR_FORMAT,
    };
    disk.mkdir(&layout.journal())?;
    disk.mkdir(&layout.groups())?;
    // Both sides at once: this is written once and read for ever.
    for (generation, side) in [(1, Side::A), (2, Side::B)] {
        let path = layout.slot("dir.meta", side);
        match disk.create_new(&path) {
            Err(e) if e.kind == DiskFault::Exists => disk.truncate(&path, 0)?, // a half-made one
            other => other?,
        }
        write_slot(disk, &path, side, slot::encode(SlotKind::DirMeta, generation, &meta.encode()))?;
    }
    disk.sync_dir(&layout.root)?;
    disk.sync_dir(parent(&layout.root))?;
    Ok(Recovered {
        meta,
        survivor: Survivor::Fresh,
        identity: disk.identity(&layout.root)?,
        journal: FoundJournal::default(),
        groups: Vec::new(),
        checkpoint_lsn: 0,
        boot: (0, Side::A),
        leftovers: Leftovers::default(),
        report: Report::default(),
    })
}

fn found(disk: &dyn Disk, layout: &Layout, meta: DirMeta, keep: KeepRows) -> Result<Recovered, RecoverError> {
    let identity = disk.identity(&layout.root)?;
    let (pair, _) = read_pair(disk, layout, "boot.state", SlotKind::BootState)?;
    let boot = pair.newest.as_ref().and_then(|s| BootState::decode(&s.payload)).unwrap_or_default();
    let survivor = if boot.clean {
        Survivor::Clean
    } else if boot.boot_id == identity.boot_id
        && (boot.mount_id == identity.mount_id && identity.mount_id != 0 || mutant!("boot_id_without_mount_id"))
    {
        Survivor::Process
    } else {
        Survivor::Power
    };
    let mut report = Report::default();
    let mut leftovers = Leftovers::default();
    let names = match disk.list(&layout.groups()) {
        Err(e) if e.kind == DiskFault::NotFound => Vec::new(),
        other => other?,
    };
    // Those that have files: of the others the journal is all there is, below the checkpoint, too.
    let mut held = BTreeSet::new();
    for name in names.iter().filter(|name| name.len() == 16) {
        let Ok(gid) = u64::from_str_radix(name, 16) else { continue };
        let files = disk.list(&format!("{}/{name}", layout.groups()))?;
        if files.iter().any(|file| file.starts_with("manifest.") || file.ends_with(".ent")) {
            held.insert(Gid(gid));
        }
    }
    let scan = journal::scan(disk, layout, (&meta, &boot, survivor), held, &mut report, &mut leftovers)?;
    let mut replay = scan.replay;
    report.unknown_loss = replay.unknown_loss;

    let mut gids: BTreeSet<Gid> = replay.groups.keys().copied().collect();
    for name in names {
        let path = format!("{}/{name}", layout.groups());
        match u64::from_str_radix(&name, 16) {
            Ok(gid) if name.len() == 16 => {
                if replay.dropped.contains(&Gid(gid)) {
                    leftovers.dirs.push(path);
                } else {
                    gids.insert(Gid(gid));
                }
            }
            _ if name.ends_with(".deleted") => leftovers.dirs.push(path),
            _ => {}
        }
    }
    let mut groups = Vec::new();
    let mut journal = scan.found;
    for gid in gids.into_iter().filter(|gid| !replay.dropped.contains(gid)) {
        let frames = replay.groups.remove(&gid).unwrap_or_default();
        journal.heads.insert(gid, frames.head());
        let loss = group::Loss {
            unknown: replay.unknown_loss,
            files: replay.files_lost,
            power: survivor != Survivor::Process,
            checkpoint_lsn: boot.checkpoint_lsn,
        };
        let built = group::build(disk, layout, gid, frames, loss, keep)?;
        if built.found.manifest_whole
            && let Some(head) = journal.heads.get_mut(&gid)
        {
            // The manifest says whose it is; that it has files, a HARD frame must say while CREATE may be in the journal.
            head.unsaid = head.create.take().is_some() && !head.in_files;
            head.in_files = true;
        }
        if let Some(head) = journal.heads.get_mut(&gid).filter(|_| built.found.gone) {
            (head.unsaid, head.in_files) = (!head.in_files, true);
        }
        for piece in &built.found.journaled {
            report.entries_from_journal += piece.entries.len() as u64;
            if built.found.quarantine.is_none()
                && let Some(file) = journal.live.iter_mut().rev().find(|f| f.first_lsn <= piece.lsn)
            {
                let pin = file.pins.entry(gid).or_insert(0);
                *pin = (*pin).max(piece.lsn);
            }
        }
        if let Some(lost) = built.lost {
            report.relaxed.insert(gid, lost);
        }
        match built.group.verdict {
            Verdict::Ok => {}
            Verdict::Suspect => drop(report.verdicts.insert(gid, "suspect")),
            Verdict::HardStateUncertain => drop(report.verdicts.insert(gid, "hard state uncertain")),
            Verdict::Damaged => drop(report.verdicts.insert(gid, "damaged")),
        }
        leftovers.rebuilt.extend(built.rebuilt);
        groups.push((built.group, built.found));
    }
    journal.heads.retain(|_, head| head.hard.is_some() || head.create.is_some() || head.loose.is_some());
    let boot_generation = pair.newest.as_ref().map_or(0, |s| s.generation);
    Ok(Recovered {
        meta,
        survivor,
        identity,
        journal,
        groups,
        checkpoint_lsn: boot.checkpoint_lsn,
        boot: (boot_generation, pair.write_to),
        leftovers,
        report,
    })
}

/// One group again, from its files alone, while the rest of its directory goes on: everything of it was placed and made
/// durable before, and nobody writes to its files ([`crate::segment::SegmentEvent::Leave`]). `head` = what the journal
/// knows of it, and nothing else of the journal is needed. A table that had to be made again is written; a group that is
/// Suspect or Damaged is told so, and stays as it is.
pub fn reopen(
    disk: &dyn Disk,
    layout: &Layout,
    gid: Gid,
    head: Head,
) -> Result<(RecoveredGroup, FoundGroup), RecoverError> {
    let frames = journal::GroupFrames::of_head(head);
    let loss = group::Loss { unknown: false, files: false, power: false, checkpoint_lsn: u64::MAX };
    let built = group::build(disk, layout, gid, frames, loss, KeepRows::Start)?;
    if built.found.quarantine.is_none() {
        write_again(disk, &built.rebuilt)?;
    }
    Ok((built.group, built.found))
}

/// Writes `boot.state`: without the clean flag before the first write after a start, with it as the last act of a close.
/// Returns what the next one needs.
pub fn write_boot_state(
    disk: &dyn Disk,
    layout: &Layout,
    (generation, side): (u64, Side),
    state: BootState,
) -> Result<(u64, Side), DiskError> {
    let path = layout.slot("boot.state", side);
    let made = match disk.create_new(&path) {
        Err(e) if e.kind == DiskFault::Exists => false,
        other => other.map(|()| true)?,
    };
    write_slot(disk, &path, side, slot::encode(SlotKind::BootState, generation + 1, &state.encode()))?;
    if made {
        disk.sync_dir(&layout.root)?;
    }
    Ok((generation + 1, side.other()))
}

/// One copy of a pair, durable; the other one is whole meanwhile.
fn write_slot(disk: &dyn Disk, path: &str, side: Side, bytes: Vec<u8>) -> Result<(), DiskError> {
    match side {
        Side::A => crash_point!("slot.before_a"),
        Side::B => crash_point!("slot.before_b"),
    }
    disk.write(path, 0, Bytes::from(bytes))?;
    disk.fdatasync(path)?;
    match side {
        Side::A => crash_point!("slot.after_a"),
        Side::B => crash_point!("slot.after_b"),
    }
    Ok(())
}

/// In a group's directory: entries that only the journal had when the group was found Suspect or Damaged, as one flush in
/// the journal's format. While it is there, the group stays Suspect. Removing it by hand says: go on with what is proved.
pub const SALVAGE_FILE: &str = "salvage";

impl Recovered {
    /// A replica with peers that lost something goes on with its proved prefix, mute: its salvage file, which
    /// [`quarantine`] wrote before this, keeps it Suspect until [`crate::segment::SegmentEvent::Mute`] says otherwise.
    /// Damaged ones stay out. False if nothing changed.
    pub fn go_on_mute(&mut self, gid: Gid) -> bool {
        let Some((_, files)) = self.groups.iter_mut().find(|(g, _)| g.gid == gid && g.verdict == Verdict::Suspect)
        else {
            return false;
        };
        if files.quarantine.take().is_none() {
            return false;
        }
        self.leftovers.rebuilt.append(&mut files.mend);
        for piece in &files.journaled {
            if let Some(file) = self.journal.live.iter_mut().rev().find(|f| f.first_lsn <= piece.lsn) {
                let pin = file.pins.entry(gid).or_insert(0);
                *pin = (*pin).max(piece.lsn);
            }
        }
        true
    }

    /// A relaxed replica with peers, whose page cache is lost, may lack what it acknowledged: Suspect, not merely shorter.
    pub fn suspect_relaxed(&mut self, gid: Gid) {
        let dirty = self.report.relaxed.contains_key(&gid);
        if let Some((group, files)) = self.groups.iter_mut().find(|(g, _)| g.gid == gid && dirty)
            && group.verdict == Verdict::Ok
        {
            group.verdict = Verdict::Suspect;
            files.quarantine = Some(Vec::new());
        }
    }
}

/// Writes the salvage file of every quarantined group that has none yet, durably, before the journal may let go.
pub fn quarantine(disk: &dyn Disk, layout: &Layout, groups: &[(RecoveredGroup, FoundGroup)]) -> Result<(), DiskError> {
    for (_, found) in groups {
        let Some(entries) = found.quarantine.as_ref().filter(|_| !mutant!("mute_not_stored")) else { continue };
        let dir = group_dir(&layout.groups(), found.gid);
        let path = format!("{dir}/{SALVAGE_FILE}");
        disk.mkdir(&dir)?;
        if disk.list(&dir)?.iter().any(|name| name == SALVAGE_FILE) {
            continue;
        }
        let new = format!("{path}.new");
        disk.unlink(&new)?;
        disk.create_new(&new)?;
        let frames: Vec<Frame> = entries.iter().map(|e| Frame::Entry(found.gid, e.clone())).collect();
        let bytes = HEADER_BYTES + frames.iter().map(frame_bytes).sum::<usize>();
        let mut builder = FlushBuilder::new(AlignedBuf::with_capacity(bytes), 0, usize::MAX);
        frames.iter().for_each(|frame| builder.push(frame));
        let flush = builder.finish(0, 0, 0, [0; 16]);
        disk.write(&new, 0, Bytes::copy_from_slice(flush.bytes()))?;
        disk.fdatasync(&new)?;
        disk.run(DiskOp::Rename { from: new.into(), to: path.into() })?;
        disk.sync_dir(&dir)?;
        disk.sync_dir(&layout.groups())?;
    }
    Ok(())
}

/// Tables that were made again take the place of the bad ones, which are kept aside.
fn write_again(disk: &dyn Disk, rebuilt: &[(String, Bytes)]) -> Result<(), DiskError> {
    for (path, bytes) in rebuilt {
        let new = format!("{path}.new");
        disk.unlink(&new)?;
        disk.create_new(&new)?;
        disk.write(&new, 0, bytes.clone())?;
        disk.fdatasync(&new)?;
        match disk.run(DiskOp::Rename { from: path.as_str().into(), to: format!("{path}{ASIDE}").into() }) {
            Err(e) if e.kind == DiskFault::NotFound => {}
            other => drop(other?),
        }
        disk.run(DiskOp::Rename { from: new.into(), to: path.as_str().into() })?;
        disk.sync_dir(parent(path))?;
    }
    Ok(())
}

/// Before the first write after a start, and behind [`quarantine`] (what is done here hides some losses from the next
/// start): removes what belongs to nothing, and makes durable what the process before may have made and not synced. A journal file found free could else lose its name after it was trusted with a flush.
pub fn settle(
    disk: &dyn Disk,
    layout: &Layout,
    leftovers: &Leftovers,
    free: &[(FilePath, u64)],
) -> Result<(), DiskError> {
    disk.mkdir(&layout.journal())?;
    disk.mkdir(&layout.groups())?;
    for file in &leftovers.files {
        disk.unlink(file)?;
    }
    for file in &leftovers.aside {
        disk.run(DiskOp::Rename { from: file.as_str().into(), to: format!("{file}{ASIDE}").into() })?;
    }
    write_again(disk, &leftovers.rebuilt)?;
    for (path, len) in &leftovers.grow {
        disk.truncate(path, *len)?;
        disk.fdatasync(path)?;
    }
    for (path, _) in free {
        disk.fdatasync(path)?;
    }
    disk.sync_dir(&layout.journal())?;
    for dir in &leftovers.dirs {
        for name in disk.list(dir)? {
            disk.unlink(&format!("{dir}/{name}"))?;
        }
        disk.run(DiskOp::RemoveDir { path: dir.as_str().into() })?;
    }
    // A dropped group's directory must not come back after its DROP frame is gone from the journal.
    disk.sync_dir(&layout.groups())?;
    disk.sync_dir(&layout.root)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::disk::faulty::{FaultRates, FaultyDisk};
    use crate::disk::memory::{Cut, MemoryDisk};
    use std::sync::Arc;

    /// Found by the simulator (seed 610049): the start after a failed one saw its `dir.meta` in the page cache, went on, and a
    /// power loss took it away.
    #[test]
    fn a_directory_whose_making_failed_is_made_again() {
        let new = NewIdentity { cluster_id: [1; 16], dir_id: [2; 16], node: 1 };
        let layout = Layout::new("/data");
        let mut failed = 0;
        for n in 0..16 {
            let disk = FaultyDisk::new(Arc::new(MemoryDisk::new()), FaultRates::default(), n);
            disk.fail_write_in(n);
            let first = recover(&disk, &layout, new);
            failed += u64::from(first.is_err());
            disk.kill();
            let second = match first {
                Ok(found) => found,
                Err(_) => recover(&disk, &layout, new).unwrap(),
            };
            let state = BootState { last_lsn: 0, checkpoint_lsn: 0, clean: false, boot_id: [0; 16], mount_id: 0 };
            if write_boot_state(&disk, &layout, second.boot, state).is_err() {
                continue;
            }
            disk.power_cut(Cut::LoseAll);
            let third = recover(&disk, &layout, new);
            assert!(third.is_ok(), "write {n} failed at first: {:?}", third.err());
        }
        assert!(failed > 6, "founding has {failed} steps that can fail");
    }
}
