//! Pure. The segment files of all groups of one log directory: what the journal has made durable is brought here, where
//! it is read from.
//!
//! Walk: row-change 12/17
//!
//! ```text
//!  journaled ──Queue──> append .log, .ext, .ent ──> Placed (readable)   active ──roll──> rolled ──committed──> sealed
//!                                    └──Sync──> fdatasync, manifest, directories ──> Drained (the journal may let go)
//! ```
//! Per group one job at a time, a short list of disk operations in order; between groups any interleaving. Nothing here
//! holds up an acknowledgement: until `Drained`, the journal has every byte, and recovery trusts files only up to it.
//!
//! Invariants: bytes are written before the rows that point at them; a segment is sealed only when its last entry is
//! committed, so no cut ever reaches a sealed file; files come before the manifest that names them, names before the
//! `Drained` that relies on them; after a failed operation nothing is reported any more.

mod append;
mod contain;
mod contract;
mod cut;
mod flush;
mod found;
mod keep;
mod leave;
mod prefix;
mod space;
mod sweep;
mod switch;
mod txn;

pub use contract::{SegmentConfig, SegmentEffect, SegmentEvent, SegmentLimits, SegmentPoint};
pub use found::{FoundGroup, Segment, Sums};
pub(crate) use keep::write_manifests;
pub use switch::Replacement;

use self::append::piece_bytes;
use crate::disk::{DiskDone, DiskError, DiskOp, FilePath};
use crate::entry::{EpochStart, GroupSpec, PlacedRow, PrefixSnapshot, Replaced};
use crate::format::slot::Side;
use crate::journal::{Persisted, Token};
use bytes::Bytes;
use catchwater_base::{Effects, Local, Mono, Now};
use catchwater_record::{EntryIndex, Gid, Offset};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[derive(Debug)]
struct Group {
    spec: GroupSpec,
    made: bool,
    /// The name of the group's directory is durable.
    name_durable: bool,
    manifest_gen: u64,
    manifest_side: Side,
    manifest_exists: [bool; 2],
    manifest_dirty: bool,
    log_start: Offset,
    deletes_gone: Offset,
    first_index: EntryIndex,
    first_offset: Offset,
    prev_term: u32,
    epochs: Vec<EpochStart>,
    segments: VecDeque<Segment>,
    stale: Vec<String>,
    snaps: Vec<EntryIndex>,
    queue: VecDeque<Persisted>,
    /// Newest flush of which anything was queued; it may be in a job already.
    newest_lsn: u64,
    /// Newest flush of which everything is in files.
    applied_lsn: u64,
    drained_lsn: u64,
    sync_wanted: u64,
    /// Names in the group's directory changed since it was synced.
    names_dirty: bool,
    committed: EntryIndex,
    /// Truncations that are not applied yet.
    cuts_coming: u32,
    trim_wanted: Option<Offset>,
    mute_wanted: Option<bool>,
    snap: Option<(EntryIndex, Offset, Bytes)>,
    snap_asked: bool,
    told: txn::Told,
    /// The newest snapshot that this process has made durable.
    snap_durable: EntryIndex,
    /// A `.snap` may have been begun and not finished for want of room.
    snap_begun: bool,
    bytes_since_snap: u64,
    /// Bytes of batches written to files and not synced since.
    dirty_bytes: u64,
    /// Where in the newest `.log` write-back has not been asked for yet.
    unhinted: u32,
    limits: SegmentLimits,
    /// A replacement that waits for its turn.
    switch: Option<Box<Replacement>>,
    /// Files that belong to nothing any more, with the time from which they may go.
    doomed: VecDeque<(Mono, Vec<FilePath>)>,
    dropped: bool,
    leave: leave::Leave,
    in_line: bool,
    /// Waits for, or is in, a sweep: nothing else is done with it.
    held: bool,
    relaxed: bool,
    /// Rows up to here were in files at the last sync: a relaxed group's manifest claims no more of its open segments.
    synced: EntryIndex,
    /// A flush is asked for; before it, what is queued is placed.
    flush_wanted: bool,
    flush_all: bool,
    /// It waited, and too few others did: its sync is a job of its own.
    sync_now: bool,
    job: Option<Job>,
    /// What waits for room on the disk, the newest last, see `space.rs`.
    stalled: Vec<Job>,
    /// Something found no room and was given up, to be planned anew when there is some.
    waits: bool,
    /// There may be room: the newest of them is next.
    resume: bool,
    /// Base of the first segment that cannot be read, and so never sealed; nor are those behind it.
    unreadable: Option<EntryIndex>,
    /// A cut whose rows cannot be read, in the segment that begins there, and nothing behind it says where it ends.
    blind_cut: Option<(EntryIndex, EntryIndex)>,
}

#[derive(Debug)]
struct Job {
    /// The step in flight, if it may run again after it found no room.
    current: Option<(DiskOp, SegmentPoint)>,
    steps: VecDeque<(DiskOp, SegmentPoint)>,
    reads: VecDeque<Bytes>,
    then: Then,
}

/// What finishing a job changes.
#[derive(Debug)]
enum Then {
    /// The row before the cut and the row at the cut were read: now the files are cut.
    CutRead {
        from: EntryIndex,
        base: EntryIndex,
    },
    Cut {
        from: EntryIndex,
        left: Option<CutTo>,
    },
    Append(Box<Appended>),
    Sync {
        lsn: u64,
        /// The last entry in files when it began, and whether a `Flush` waits for it.
        upto: EntryIndex,
        flush: bool,
    },
    /// The three files' bytes come in order through `reads`.
    Sums {
        base: EntryIndex,
        part: Part,
        left: VecDeque<Part>,
        sums: Box<Sums>,
    },
    Seal {
        base: EntryIndex,
    },
    Snap {
        index: EntryIndex,
        next_offset: Offset,
        payload: Bytes,
    },
    Trim {
        gone: Vec<FilePath>,
    },
    Switch {
        gone: Vec<FilePath>,
        replaced: Box<Replaced>,
    },
    /// Nothing is left to be said.
    Nothing,
    /// The log begins anew behind a snapshot.
    Install {
        snapshot: Box<PrefixSnapshot>,
        state: EntryIndex,
    },
    Mute,
    /// Renamed and durable; the list of names comes back.
    DropList {
        lsn: u64,
    },
    Drop {
        lsn: u64,
    },
}

#[derive(Debug, Clone, Copy)]
struct CutTo {
    rows: u32,
    log_len: u32,
    ext_len: u32,
    max_ts: i64,
    last_term: u32,
    next_offset: Offset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Log,
    Ent,
    Ext,
}

/// The state after an append job.
#[derive(Debug)]
struct Appended {
    segment: Segment,
    /// It is a new one.
    rolled: bool,
    placed: Vec<PlacedRow>,
    lsn: Option<u64>,
    bytes: u64,
}

/// See the file head.
#[derive(Debug)]
pub struct Segments {
    config: SegmentConfig,
    groups: BTreeMap<Gid, Group>,
    line: VecDeque<Gid>,
    flying: BTreeMap<Token, Gid>,
    flushes: flush::Flushes,
    next_token: u64,
    queued_bytes: u64,
    dirty_bytes: u64,
    /// To be told of with the next effects.
    cuts_done: Vec<Gid>,
    /// Groups that wait for a sweep.
    held: Vec<Gid>,
    /// Turns of others before it begins.
    patience: usize,
    sweep: Option<sweep::Sweep>,
    /// When files of a group may go.
    alarms: BTreeSet<(Mono, Gid)>,
    closing: bool,
    closed: bool,
    stopped: bool,
}

/// `<dir>/<gid 16 hex>`
pub fn group_dir(dir: &str, gid: Gid) -> String {
    format!("{dir}/{:016x}", gid.0)
}

/// `<base offset 20 digits>[.<gen>]`
pub fn segment_stem(base_offset: Offset, generation: u32) -> String {
    if generation == 0 { format!("{:020}", base_offset.0) } else { format!("{:020}.{generation}", base_offset.0) }
}

fn side_index(side: Side) -> usize {
    match side {
        Side::A => 0,
        Side::B => 1,
    }
}

impl Segments {
    pub fn new(config: SegmentConfig) -> Self {
        Segments {
            config,
            groups: BTreeMap::new(),
            line: VecDeque::new(),
            flying: BTreeMap::new(),
            flushes: flush::Flushes::default(),
            next_token: 1,
            queued_bytes: 0,
            dirty_bytes: 0,
            cuts_done: Vec::new(),
            held: Vec::new(),
            patience: 0,
            sweep: None,
            alarms: BTreeSet::new(),
            closing: false,
            closed: false,
            stopped: false,
        }
    }

    /// Bytes of entries that are not in files yet.
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }

    /// Bytes of batches in files that are not known durable there.
    pub fn dirty_bytes(&self) -> u64 {
        self.dirty_bytes
    }

    pub fn is_busy(&self) -> bool {
        !self.flying.is_empty()
            || !self.line.is_empty()
            || !self.held.is_empty()
            || self.sweep.is_some()
            || self.is_flushing()
    }

    fn path(&self, gid: Gid, name: &str) -> FilePath {
        format!("{}/{name}", group_dir(&self.config.dir, gid)).into()
    }

    fn file(&self, gid: Gid, segment: &Segment, ext: &str) -> FilePath {
        self.path(gid, &format!("{}.{ext}", segment_stem(segment.base_offset, segment.generation)))
    }

    fn open_group(&mut self, found: FoundGroup) {
        let gid = found.gid;
        let queued = !found.journaled.is_empty();
        let synced = found.segments.last().map_or(found.first_index.prev(), Segment::last_index);
        let unhinted = found.segments.last().map_or(0, |s| s.log_len);
        self.queued_bytes += found.journaled.iter().map(piece_bytes).sum::<u64>();
        let group = Group {
            spec: found.spec,
            made: found.made,
            // Made, perhaps, but not synced by the process before.
            name_durable: false,
            manifest_gen: found.manifest.0,
            manifest_side: found.manifest.1,
            manifest_exists: found.manifest_exists,
            manifest_dirty: !found.manifest_whole,
            log_start: found.log_start,
            deletes_gone: found.deletes_gone,
            first_index: found.first_index,
            first_offset: found.first_offset,
            prev_term: found.prev_term,
            epochs: found.epochs,
            segments: found.segments.into(),
            stale: found.stale,
            snaps: found.snaps,
            newest_lsn: found.journaled.iter().map(|p| p.lsn).max().unwrap_or(0),
            queue: found.journaled.into(),
            applied_lsn: 0,
            drained_lsn: 0,
            sync_wanted: 0,
            // Names may have been made and not synced by the process before.
            names_dirty: true,
            committed: EntryIndex::ZERO,
            cuts_coming: 0,
            trim_wanted: None,
            mute_wanted: None,
            snap: None,
            snap_asked: false,
            told: txn::Told::default(),
            snap_durable: EntryIndex::ZERO,
            snap_begun: false,
            bytes_since_snap: found.bytes_since_snap,
            dirty_bytes: 0,
            unhinted,
            limits: SegmentLimits {
                bytes: self.config.segment_bytes,
                ms: self.config.segment_ms,
                jitter_ms: 0,
                delete_delay_ms: 0,
            },
            switch: None,
            doomed: VecDeque::new(),
            dropped: false,
            leave: leave::Leave::No,
            in_line: false,
            held: false,
            relaxed: found.loose.is_some(),
            synced,
            flush_wanted: false,
            flush_all: false,
            sync_now: false,
            job: None,
            stalled: Vec::new(),
            waits: false,
            resume: false,
            unreadable: None,
            blind_cut: None,
        };
        let known = self.groups.insert(gid, group);
        debug_assert!(known.is_none(), "a group is opened once");
        if queued {
            self.enlist(gid);
        }
    }

    fn take_in(&mut self, piece: Persisted) {
        let gid = piece.gid;
        if let Some(spec) = &piece.create
            && !self.groups.contains_key(&gid)
        {
            self.open_group(FoundGroup::fresh(gid, spec.clone()));
        }
        let Some(group) = self.groups.get_mut(&gid) else { return };
        if piece.is_void() {
            return; // hard state only: nothing for files
        }
        self.queued_bytes += piece_bytes(&piece);
        group.newest_lsn = group.newest_lsn.max(piece.lsn);
        group.queue.push_back(piece);
        self.enlist(gid);
    }

    fn enlist(&mut self, gid: Gid) {
        if let Some(group) = self.groups.get_mut(&gid)
            && !group.in_line
            && group.job.is_none()
        {
            group.in_line = true;
            self.line.push_back(gid);
        }
    }

    fn pump(&mut self, now: Now, out: &mut Effects<SegmentEffect>) {
        if self.stopped {
            return;
        }
        while self.flying.len() < self.config.parallel {
            if self.sweep.is_none() && self.is_gathered() {
                self.begin_sweep(now, out);
            }
            let Some(gid) = self.line.pop_front() else { break };
            self.patience = self.patience.saturating_sub(1);
            if let Some(group) = self.groups.get_mut(&gid) {
                group.in_line = false;
            }
            if let Some(job) = self.next_job(now, gid, out) {
                self.run_step(now, gid, job, out);
            }
        }
        if self.closing && !self.closed && !self.is_busy() && !self.is_stalled() {
            self.closed = true;
            out.push(SegmentEffect::Closed);
        }
    }

    /// Emits the next step of `job`, or finishes it.
    fn run_step(&mut self, now: Now, gid: Gid, mut job: Job, out: &mut Effects<SegmentEffect>) {
        loop {
            if let Some((op, point)) = job.steps.pop_front() {
                job.current = op.may_wait_for_space().then(|| (op.clone(), point));
                let token = Token(self.next_token);
                self.next_token += 1;
                self.flying.insert(token, gid);
                if let Some(group) = self.groups.get_mut(&gid) {
                    group.job = Some(job);
                }
                out.push(SegmentEffect::Disk { token, op, point });
                return;
            }
            match self.finish(now, gid, job, out) {
                Some(next) => job = next,
                None => {
                    self.enlist(gid);
                    return;
                }
            }
        }
    }

    fn done(&mut self, now: Now, token: Token, result: Result<DiskDone, DiskError>, out: &mut Effects<SegmentEffect>) {
        if self.sweep_done(now, token, &result, out) || self.flush_done(token, &result, out) {
            return;
        }
        let Some(gid) = self.flying.remove(&token) else { return };
        match result {
            Err(error) if self.stall(gid, &error) => out.push(SegmentEffect::NoSpace(error)),
            Err(error) if self.is_contained(gid, &error) => {
                let next = self.contain(now, gid, out);
                out.push(SegmentEffect::Unreadable(gid, error));
                match next {
                    Some(job) => self.run_step(now, gid, job, out),
                    None => self.enlist(gid),
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.stopped, true) {
                    out.push(SegmentEffect::Stop(error));
                }
            }
            Ok(done) if !self.stopped => {
                let Some(mut job) = self.groups.get_mut(&gid).and_then(|g| g.job.take()) else { return };
                match done {
                    DiskDone::Read(bytes) => job.reads.push_back(bytes),
                    DiskDone::List(names) => {
                        job.reads.extend(names.into_iter().map(Bytes::from));
                    }
                    _ => {}
                }
                self.run_step(now, gid, job, out);
            }
            Ok(_) => {}
        }
    }

    /// Chooses what a group does next. Short things that others wait for come before the endless stream of appends.
    fn next_job(&mut self, now: Now, gid: Gid, out: &mut Effects<SegmentEffect>) -> Option<Job> {
        let closing = self.closing;
        let group = self.groups.get(&gid)?;
        if group.job.is_some() || group.held {
            return None;
        }
        if self.flushes.of(gid) {
            return self.append_beside(now, gid);
        }
        if group.waits || !group.stalled.is_empty() {
            return self.beside_stalled(gid);
        }
        if group.sync_now {
            return Some(self.sync_job(gid));
        }
        if group.queue.front().is_some_and(|p| p.drop) {
            return self.drop_job(gid);
        }
        if group.mute_wanted.is_some() {
            return self.mute_job(gid);
        }
        if group.queue.front().is_some_and(|p| p.snapshot.is_some()) {
            return self.install_job(gid);
        }
        let beside = group.may_flush_beside();
        if group.flush_wanted && !beside && (!group.flush_all || group.queue.is_empty()) {
            return Some(self.sync_job(gid));
        }
        if group.sync_wanted > group.drained_lsn && group.applied_lsn >= group.sync_wanted {
            self.hold(gid);
            return None;
        }
        if let Some(job) = self.seal_job(now, gid, out) {
            return Some(job);
        }
        if let Some(job) = self.snap_job(gid) {
            return Some(job);
        }
        if let Some(job) = self.trim_job(gid) {
            return Some(job);
        }
        if let Some(job) = self.switch_job(gid, out) {
            return Some(job);
        }
        if let Some(job) = self.doomed_job(Some(now.mono), gid) {
            return Some(job);
        }
        if beside && self.flush_beside(gid, out) {
            return self.append_beside(now, gid);
        }
        let group = self.groups.get(&gid)?;
        if !group.queue.is_empty() {
            return self.append_or_cut_job(now, gid);
        }
        if group.leave != leave::Leave::No {
            return self.leave_job(gid, out);
        }
        let loose = group.relaxed && group.dirty_bytes > 0;
        if closing && (loose || group.applied_lsn > group.drained_lsn || (group.made && group.manifest_dirty)) {
            self.hold(gid);
        }
        None
    }

    /// Applies a finished job; some are followed by another at once.
    fn finish(&mut self, now: Now, gid: Gid, mut job: Job, out: &mut Effects<SegmentEffect>) -> Option<Job> {
        match job.then {
            Then::Append(appended) => self.appended(gid, *appended, out),
            Then::CutRead { from, base } => return self.cut_read(gid, from, base, job.reads.pop_front(), out),
            Then::Cut { from, left } => self.cut_done(gid, from, left),
            Then::Sync { lsn, upto, flush } => {
                let group = self.groups.get_mut(&gid)?;
                for segment in group.segments.iter_mut().filter(|s| s.is_open()) {
                    segment.dirty = false;
                }
                if group.made {
                    (group.names_dirty, group.name_durable, group.manifest_dirty) = (false, true, false);
                }
                self.dirty_bytes -= std::mem::take(&mut group.dirty_bytes);
                group.synced = group.synced.max(upto);
                group.drained_lsn = group.drained_lsn.max(lsn);
                out.push(SegmentEffect::Drained(gid, lsn));
                if flush {
                    out.push(SegmentEffect::Flushed(gid, upto));
                }
            }
            Then::Sums { base, part, mut left, mut sums } => {
                let sum = match part {
                    Part::Log => &mut sums.log,
                    Part::Ent => &mut sums.ent,
                    Part::Ext => &mut sums.ext,
                };
                job.reads.iter().for_each(|b| sum.update(b));
                let group = self.groups.get_mut(&gid)?;
                let segment = group.segments.iter_mut().find(|s| s.base_index == base)?;
                match left.pop_front() {
                    None => segment.sums = Some(sums),
                    Some(part) => {
                        let segment = segment.clone();
                        let steps = self.sum_steps(gid, &segment, part);
                        let then = Then::Sums { base, part, left, sums };
                        return Some(Job { current: None, steps, reads: VecDeque::new(), then });
                    }
                }
            }
            Then::Seal { base } => {
                let group = self.groups.get_mut(&gid)?;
                (group.names_dirty, group.name_durable) = (false, true);
                if let Some(segment) = group.segments.iter_mut().find(|s| s.base_index == base) {
                    segment.dirty = false;
                    segment.sums = None;
                    out.push(SegmentEffect::Sealed(gid, segment.base_offset));
                }
                (group.snap_asked, group.told) = (true, txn::Told::default());
                out.push(SegmentEffect::WantSnap(gid));
            }
            Then::Snap { index, .. } => {
                let group = self.groups.get_mut(&gid)?;
                let gone = group.snaps.len().saturating_sub(1);
                group.snaps.drain(..gone);
                group.snaps.push(index);
                (group.snap_durable, group.snap_begun, group.bytes_since_snap) = (index, false, 0);
            }
            Then::Trim { gone } => self.doom(now, gid, gone),
            Then::Switch { gone, replaced } => {
                out.push(SegmentEffect::Switched(gid, Some(replaced)));
                self.doom(now, gid, gone);
            }
            Then::Nothing => {}
            Then::Install { snapshot, state } => self.installed(gid, &snapshot, state),
            Then::Mute => {}
            Then::DropList { lsn } => {
                let gone = format!("{}.deleted", group_dir(&self.config.dir, gid));
                let mut steps: VecDeque<_> = job
                    .reads
                    .iter()
                    .map(|name| {
                        let path = format!("{gone}/{}", String::from_utf8_lossy(name)).into();
                        (DiskOp::Unlink { path }, SegmentPoint::DelRemove)
                    })
                    .collect();
                if self.groups.get(&gid).is_some_and(|g| g.made) {
                    steps.push_back((DiskOp::RemoveDir { path: gone.into() }, SegmentPoint::DelRemove));
                }
                return Some(Job { current: None, steps, reads: VecDeque::new(), then: Then::Drop { lsn } });
            }
            Then::Drop { lsn } => {
                if let Some(group) = self.groups.remove(&gid) {
                    self.dirty_bytes -= group.dirty_bytes;
                    self.queued_bytes -= group.queue.iter().map(piece_bytes).sum::<u64>();
                    if group.leave != leave::Leave::No {
                        out.push(SegmentEffect::Left(gid));
                    }
                }
                out.push(SegmentEffect::Drained(gid, lsn));
                out.push(SegmentEffect::Removed(gid));
            }
        }
        None
    }
}

impl Local for Segments {
    type Event = SegmentEvent;
    type Effect = SegmentEffect;

    fn handle(&mut self, now: Now, event: SegmentEvent, out: &mut Effects<SegmentEffect>) {
        match event {
            SegmentEvent::Open(found) => self.open_group(*found),
            SegmentEvent::Queue(pieces) => {
                for piece in pieces {
                    let (gid, lsn) = (piece.gid, piece.lsn);
                    if piece.drop && !self.groups.contains_key(&gid) {
                        out.push(SegmentEffect::Drained(gid, lsn));
                    } else {
                        self.take_in(piece);
                    }
                }
            }
            SegmentEvent::CutComing(gid) => {
                if let Some(group) = self.groups.get_mut(&gid) {
                    group.cuts_coming += 1;
                }
            }
            SegmentEvent::Committed(gid, index) => {
                if let Some(group) = self.groups.get_mut(&gid)
                    && group.committed < index
                {
                    group.committed = index;
                    let open = group.segments.iter().filter(|s| s.is_open()).count();
                    let again = group.told.look_again();
                    if again || open > 1 || group.snap.is_some() || group.trim_wanted.is_some() {
                        self.enlist(gid);
                    }
                }
            }
            SegmentEvent::Sync(gids) => {
                for gid in gids {
                    match self.groups.get_mut(&gid) {
                        Some(group) => {
                            let newest = group.newest_lsn;
                            if newest <= group.drained_lsn {
                                out.push(SegmentEffect::Drained(gid, group.drained_lsn));
                            } else {
                                group.sync_wanted = group.sync_wanted.max(newest);
                                self.enlist(gid);
                            }
                        }
                        // Nothing of it is here: nothing of it can be lost.
                        None => out.push(SegmentEffect::Drained(gid, u64::MAX)),
                    }
                }
            }
            SegmentEvent::Mode(gid, relaxed) => {
                if let Some(group) = self.groups.get_mut(&gid) {
                    group.relaxed = relaxed;
                }
            }
            SegmentEvent::Flush { gid, all } => {
                if let Some(group) = self.groups.get_mut(&gid) {
                    (group.flush_wanted, group.flush_all) = (true, all);
                    self.enlist(gid);
                }
            }
            SegmentEvent::Snap(gid, index, next_offset, payload) => {
                if let Some(group) = self.groups.get_mut(&gid) {
                    group.committed = group.committed.max(index);
                    if group.told.hear(index, &payload) {
                        self.enlist(gid);
                    }
                    let Some(group) = self.groups.get_mut(&gid) else { return };
                    // Unasked (at close), it is worth a file and two syncs only if it saves a later start some reading.
                    if !std::mem::take(&mut group.snap_asked) && group.bytes_since_snap < self.config.snap_bytes / 16 {
                        return;
                    }
                    group.snap = Some((index, next_offset, payload));
                    self.enlist(gid);
                }
            }
            SegmentEvent::Trim(gid, log_start, snap) => {
                if let Some(group) = self.groups.get_mut(&gid) {
                    if let Some((index, ..)) = &snap {
                        group.committed = group.committed.max(*index);
                        group.snap = snap;
                    }
                    group.trim_wanted = group.trim_wanted.max(Some(log_start));
                    self.enlist(gid);
                }
            }
            SegmentEvent::Mute(gid, on) => {
                if let Some(group) = self.groups.get_mut(&gid) {
                    group.mute_wanted = Some(on);
                    self.enlist(gid);
                }
            }
            SegmentEvent::Limits(gid, limits) => {
                if let Some(group) = self.groups.get_mut(&gid) {
                    group.limits = limits;
                }
            }
            SegmentEvent::Switch(gid, replacement) => match self.groups.get_mut(&gid) {
                Some(group) if group.switch.is_none() && !self.closing => {
                    group.switch = Some(replacement);
                    self.enlist(gid);
                }
                _ => out.push(SegmentEffect::Switched(gid, None)),
            },
            SegmentEvent::Leave(gid) => self.leave(gid, out),
            SegmentEvent::Done(token, result) => self.done(now, token, result, out),
            SegmentEvent::Close => {
                self.closing = true;
                let all: Vec<Gid> = self.groups.keys().copied().collect();
                all.into_iter().for_each(|gid| self.enlist(gid));
            }
            SegmentEvent::SpaceBack => self.space_back(),
            SegmentEvent::Wake => {}
        }
        self.ring(now);
        self.pump(now, out);
        self.cuts_done.drain(..).for_each(|gid| out.push(SegmentEffect::CutDone(gid)));
    }

    fn deadline(&self) -> Option<Mono> {
        self.next_alarm()
    }
}
