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

use crate::disk::{DiskDone, DiskError, DiskFault, DiskOp, FilePath};
use crate::entry::{EpochStart, GroupSpec, NewEntry, PlacedRow, Row};
use crate::format::manifest::{Manifest, ManifestSegment, SegmentState};
use crate::format::row::{self, EntHeader, Footer};
use crate::format::slot::{self, Side, SlotKind};
use crate::format::snap::Snap;
use crate::journal::{Persisted, Token};
use bytes::Bytes;
use catchwater_base::{Effects, Local, Mono, Now};
use catchwater_record::crc::Crc64;
use catchwater_record::{EntryIndex, Gid, Offset};
use std::collections::{BTreeMap, VecDeque};

#[derive(Clone, Debug)]
pub struct SegmentConfig {
    /// The directory `p`.
    pub dir: String,
    /// Defaults of a group's limits.
    pub segment_bytes: u32,
    pub segment_ms: u64,
    /// Rows of a segment at most.
    pub rows_max: u32,
    /// Bytes of one append job at most (one entry may be larger).
    pub write_bytes_max: usize,
    /// A snapshot of producer and capture state is asked for after so many bytes.
    pub snap_bytes: u64,
    /// Groups with an operation in flight at one time.
    pub parallel: usize,
}

impl SegmentConfig {
    pub fn new(dir: String) -> Self {
        SegmentConfig {
            dir,
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3600 * 1000,
            rows_max: 1_000_000,
            write_bytes_max: 1 << 20,
            snap_bytes: 16 << 20,
            parallel: 1,
        }
    }
}

/// For the shell's crash points around the operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentPoint {
    SegLog,
    SegExt,
    SegEnt,
    RollCreate,
    RollDirsync,
    CkptSync,
    SealLog,
    SealEnt,
    SealExt,
    SealManifest,
    TruncRows,
    TruncFile,
    TrimManifest,
    TrimUnlink,
    SnapWrite,
    SnapSync,
    DelRename,
    DelRemove,
    Read,
}

#[derive(Debug)]
pub enum SegmentEvent {
    /// A group that recovery found. Before anything else of the group.
    Open(Box<FoundGroup>),
    /// What the journal has made durable.
    Queue(Vec<Persisted>),
    /// A truncation of this group is on its way through the journal. Told before any commit index that speaks of the log
    /// behind it: until it is applied, files may hold rows of the old tail, and nothing of the group is sealed.
    CutComing(Gid),
    /// Commit indexes as far as they are known.
    Committed(Gid, EntryIndex),
    /// Make durable what has been queued for these groups, then `Drained`.
    Sync(Vec<Gid>),
    /// State at a committed index, answer to `WantSnap`, or unasked at close.
    Snap(Gid, EntryIndex, Offset, Bytes),
    /// A committed log start.
    Trim(Gid, Offset),
    Limits {
        gid: Gid,
        segment_bytes: u32,
        segment_ms: u64,
    },
    Done(Token, Result<DiskDone, DiskError>),
    /// Write, seal and sync everything, then `Closed`.
    Close,
    Wake,
}

#[derive(Debug)]
pub enum SegmentEffect {
    /// Run it and answer with `Done`.
    Disk {
        token: Token,
        op: DiskOp,
        point: SegmentPoint,
    },
    /// Readable in files up to the index: `Event::Segmented` of the replica.
    Placed(Gid, EntryIndex, Vec<PlacedRow>),
    /// To the journal.
    Drained(Gid, u64),
    Sealed(Gid, Offset),
    /// Ask the replica for its snapshot.
    WantSnap(Gid),
    /// The group's files are gone.
    Removed(Gid),
    Stop(DiskError),
    /// Everything is in files and durable.
    Closed,
}

/// One segment as recovery found it (or as it is now).
#[derive(Clone, Debug)]
pub struct Segment {
    pub base_index: EntryIndex,
    pub base_offset: Offset,
    pub generation: u32,
    pub created_ms: i64,
    pub state: SegmentState,
    pub rows: u32,
    pub last_term: u32,
    /// First offset after the segment.
    pub next_offset: Offset,
    pub max_ts: i64,
    pub min_ts: i64,
    pub log_len: u32,
    pub ext_len: u32,
    pub has_ext: bool,
    pub sealed_at_ms: i64,
    /// Bytes behind the known ends must go before anything is appended.
    pub cut: bool,
    /// Written since the last sync.
    pub dirty: bool,
    /// Running checksums; `None` = read the files again at the seal.
    pub sums: Option<Box<Sums>>,
}

/// Running checksums of the three files.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    log: Crc64,
    ent: Crc64,
    ext: Crc64,
}

impl Segment {
    pub fn last_index(&self) -> EntryIndex {
        EntryIndex(self.base_index.0 + u64::from(self.rows)).prev()
    }
    fn has_record(&self) -> bool {
        self.next_offset > self.base_offset
    }
    fn ent_len(&self) -> u64 {
        (row::HEADER_BYTES + self.rows as usize * row::ROW_BYTES) as u64
    }
    fn is_open(&self) -> bool {
        self.state == SegmentState::Active
    }
}

/// What recovery hands over of one group.
#[derive(Clone, Debug)]
pub struct FoundGroup {
    pub gid: Gid,
    pub spec: GroupSpec,
    /// The group's directory exists, and its name is durable.
    pub made: bool,
    /// Generation of the newest valid manifest (0 = none) and the side the next goes to.
    pub manifest: (u64, Side),
    pub manifest_exists: [bool; 2],
    pub log_start: Offset,
    pub first_index: EntryIndex,
    pub prev_term: u32,
    pub epochs: Vec<EpochStart>,
    /// Ascending; all but the last of the open ones are rolled.
    pub segments: Vec<Segment>,
    /// Names in the group's directory that belong to nothing: removed before the next append.
    pub stale: Vec<String>,
    /// Indexes of the `.snap` files, ascending.
    pub snaps: Vec<EntryIndex>,
    /// Bytes of batches behind the newest snapshot.
    pub bytes_since_snap: u64,
    /// Entries that only the journal has, as the flushes brought them.
    pub journaled: Vec<Persisted>,
}

impl FoundGroup {
    /// A replica that has nothing on disk but its CREATE frame.
    pub fn fresh(gid: Gid, spec: GroupSpec) -> Self {
        FoundGroup {
            gid,
            spec,
            made: false,
            manifest: (0, Side::A),
            manifest_exists: [false, false],
            log_start: Offset::ZERO,
            first_index: EntryIndex(1),
            prev_term: 0,
            epochs: Vec::new(),
            segments: Vec::new(),
            stale: Vec::new(),
            snaps: Vec::new(),
            bytes_since_snap: 0,
            journaled: Vec::new(),
        }
    }
}

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
    first_index: EntryIndex,
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
    snap: Option<(EntryIndex, Offset, Bytes)>,
    snap_asked: bool,
    bytes_since_snap: u64,
    segment_bytes: u32,
    segment_ms: u64,
    dropped: bool,
    in_line: bool,
    job: Option<Job>,
}

#[derive(Debug)]
struct Job {
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
    },
    Trim,
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
    next_token: u64,
    queued_bytes: u64,
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
            next_token: 1,
            queued_bytes: 0,
            closing: false,
            closed: false,
            stopped: false,
        }
    }

    /// Bytes of entries that are not in files yet.
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }

    pub fn is_busy(&self) -> bool {
        !self.flying.is_empty() || !self.line.is_empty()
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
        self.queued_bytes += found.journaled.iter().map(piece_bytes).sum::<u64>();
        let group = Group {
            spec: found.spec,
            made: found.made,
            // Made, perhaps, but not synced by the process before.
            name_durable: false,
            manifest_gen: found.manifest.0,
            manifest_side: found.manifest.1,
            manifest_exists: found.manifest_exists,
            manifest_dirty: found.manifest.0 == 0,
            log_start: found.log_start,
            first_index: found.first_index,
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
            snap: None,
            snap_asked: false,
            bytes_since_snap: found.bytes_since_snap,
            segment_bytes: self.config.segment_bytes,
            segment_ms: self.config.segment_ms,
            dropped: false,
            in_line: false,
            job: None,
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
        if piece.entries.is_empty() && piece.truncate_from.is_none() && !piece.drop {
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
            let Some(gid) = self.line.pop_front() else { break };
            if let Some(group) = self.groups.get_mut(&gid) {
                group.in_line = false;
            }
            if let Some(job) = self.next_job(now, gid) {
                self.run_step(now, gid, job, out);
            }
        }
        if self.closing && !self.closed && self.flying.is_empty() && self.line.is_empty() {
            self.closed = true;
            out.push(SegmentEffect::Closed);
        }
    }

    /// Emits the next step of `job`, or finishes it.
    fn run_step(&mut self, now: Now, gid: Gid, mut job: Job, out: &mut Effects<SegmentEffect>) {
        loop {
            if let Some((op, point)) = job.steps.pop_front() {
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
        let Some(gid) = self.flying.remove(&token) else { return };
        match result {
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
    fn next_job(&mut self, now: Now, gid: Gid) -> Option<Job> {
        let closing = self.closing;
        let group = self.groups.get(&gid)?;
        if group.job.is_some() {
            return None;
        }
        if group.queue.front().is_some_and(|p| p.drop) {
            return self.drop_job(gid);
        }
        if group.sync_wanted > group.drained_lsn && group.applied_lsn >= group.sync_wanted {
            return Some(self.sync_job(gid));
        }
        if let Some(job) = self.seal_job(now, gid) {
            return Some(job);
        }
        if let Some(job) = self.trim_job(gid) {
            return Some(job);
        }
        if let Some(job) = self.snap_job(gid) {
            return Some(job);
        }
        let group = self.groups.get(&gid)?;
        if !group.queue.is_empty() {
            return self.append_or_cut_job(now, gid);
        }
        if closing && (group.applied_lsn > group.drained_lsn || (group.made && group.manifest_dirty)) {
            return Some(self.sync_job(gid));
        }
        None
    }

    // ---- append ----

    fn append_or_cut_job(&mut self, now: Now, gid: Gid) -> Option<Job> {
        let group = self.groups.get_mut(&gid)?;
        // Pieces with nothing left to do.
        while let Some(front) = group.queue.front() {
            let last = group.segments.back().map_or(group.first_index.prev(), Segment::last_index);
            match front.truncate_from {
                Some(from) if from <= last => return self.cut_job(gid, from),
                Some(_) => {
                    // Behind everything that is in files: nothing to cut there.
                    let cuts = group.queue.front_mut().map_or(0, Persisted::take_cut);
                    group.cuts_coming = group.cuts_coming.saturating_sub(cuts);
                }
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
    fn enlist_later(&mut self, gid: Gid) {
        if let Some(group) = self.groups.get(&gid)
            && (group.sync_wanted > group.drained_lsn || self.closing)
        {
            self.enlist(gid);
        }
    }

    fn append_job(&mut self, now: Now, gid: Gid) -> Job {
        let (dir, rows_max, bytes_max) =
            (group_dir(&self.config.dir, gid), self.config.rows_max, self.config.write_bytes_max);
        let group = self.groups.get_mut(&gid).expect("the caller looked it up");
        let mut steps: Vec<(DiskOp, SegmentPoint)> = Vec::new();
        if !group.made {
            steps.push((DiskOp::MkDir { path: dir.as_str().into() }, SegmentPoint::RollCreate));
        }
        for name in group.stale.drain(..) {
            steps.push((DiskOp::Unlink { path: format!("{dir}/{name}").into() }, SegmentPoint::TruncFile));
        }
        let first = &group.queue[0].entries[0];
        let age = |s: &Segment| now.wall.as_millis().saturating_sub(s.created_ms);
        let full = |s: &Segment, bytes: usize| {
            s.has_record()
                && (s.log_len as usize + bytes > group.segment_bytes as usize
                    || s.rows >= rows_max
                    || s.next_offset.0 - s.base_offset.0 > u64::from(u32::MAX >> 1) - (1 << 24)
                    || age(s) > i64::try_from(group.segment_ms).unwrap_or(i64::MAX))
        };
        let current = group.segments.back().filter(|s| s.is_open() && !full(s, first.body.len()));
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
                last_term: group.segments.back().map_or(group.prev_term, |s| s.last_term),
                next_offset: first.base_offset,
                max_ts: -1,
                min_ts: i64::MAX,
                log_len: 0,
                ext_len: 0,
                has_ext: false,
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
            if piece.drop || (piece.truncate_from.is_some() && lsn.is_some()) {
                break; // a cut is a job of its own
            }
            let mut used = 0;
            let mut stop = false;
            for entry in &piece.entries {
                let size = entry.body.len() + entry.context.len();
                if taken > 0 && (taken + size > bytes_max || full(&segment, entry.body.len())) {
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
        }
        segment.cut = false;
        // Bytes before the rows that point at them.
        if let Some(sums) = &mut segment.sums {
            bodies.iter().for_each(|b| sums.log.update(b));
            sums.ext.update(&contexts);
        }
        if !bodies.is_empty() {
            steps.push((DiskOp::Write { path: log, at: u64::from(log_at), bufs: bodies }, SegmentPoint::SegLog));
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
        steps.push((DiskOp::Write { path: ent, at: if rolled { 0 } else { ent_at }, bufs }, SegmentPoint::SegEnt));
        segment.dirty = true;
        let appended = Appended { segment, rolled, placed, lsn, bytes: taken as u64 };
        Job { steps: steps.into(), reads: VecDeque::new(), then: Then::Append(Box::new(appended)) }
    }

    // ---- cut ----

    fn cut_job(&mut self, gid: Gid, from: EntryIndex) -> Option<Job> {
        let group = self.groups.get(&gid)?;
        let sealed = group.segments.iter().rev().find(|s| !s.is_open()).map(Segment::last_index);
        assert!(sealed.is_none_or(|end| from > end), "a cut never reaches a sealed segment");
        let inside = group.segments.iter().rev().find(|s| s.base_index < from && from <= s.last_index());
        let Some(segment) = inside else {
            return Some(self.cut_files_job(gid, from, None));
        };
        // The row before the cut tells the running maximum, the row at the cut where the bytes end.
        let at = row::HEADER_BYTES as u64 + (from.0 - 1 - segment.base_index.0) * row::ROW_BYTES as u64;
        let op = DiskOp::Read { path: self.file(gid, segment, "ent"), at, len: 2 * row::ROW_BYTES };
        Some(Job {
            steps: VecDeque::from([(op, SegmentPoint::Read)]),
            reads: VecDeque::new(),
            then: Then::CutRead { from, base: segment.base_index },
        })
    }

    fn cut_files_job(&self, gid: Gid, from: EntryIndex, left: Option<(EntryIndex, CutTo)>) -> Job {
        let group = &self.groups[&gid];
        let mut steps = VecDeque::new();
        for index in group.snaps.iter().filter(|i| **i >= from) {
            let path = self.path(gid, &format!("{:020}.snap", index.0));
            steps.push_back((DiskOp::Unlink { path }, SegmentPoint::TruncFile));
        }
        for segment in group.segments.iter().filter(|s| s.base_index >= from) {
            for ext in ["ent", "ext", "log"] {
                steps.push_back((DiskOp::Unlink { path: self.file(gid, segment, ext) }, SegmentPoint::TruncFile));
            }
        }
        if let Some((base, to)) = left
            && let Some(segment) = group.segments.iter().find(|s| s.base_index == base)
        {
            let ent_len = (row::HEADER_BYTES + to.rows as usize * row::ROW_BYTES) as u64;
            let cuts = [("ent", ent_len), ("log", u64::from(to.log_len)), ("ext", u64::from(to.ext_len))];
            for (ext, len) in cuts.into_iter().filter(|(ext, _)| *ext != "ext" || segment.has_ext) {
                let point = if ext == "ent" { SegmentPoint::TruncRows } else { SegmentPoint::TruncFile };
                steps.push_back((DiskOp::Truncate { path: self.file(gid, segment, ext), len }, point));
            }
        }
        Job { steps, reads: VecDeque::new(), then: Then::Cut { from, left: left.map(|(_, to)| to) } }
    }

    // ---- sync, seal, trim, snap, drop ----

    /// Files, then the manifest that names them, then the names.
    fn sync_steps(&mut self, gid: Gid, manifest: bool) -> VecDeque<(DiskOp, SegmentPoint)> {
        let mut steps = VecDeque::new();
        let group = &self.groups[&gid];
        for segment in group.segments.iter().filter(|s| s.is_open() && s.dirty) {
            steps.push_back((DiskOp::Fdatasync { path: self.file(gid, segment, "log") }, SegmentPoint::CkptSync));
            if segment.has_ext {
                steps.push_back((DiskOp::Fdatasync { path: self.file(gid, segment, "ext") }, SegmentPoint::CkptSync));
            }
            steps.push_back((DiskOp::Fdatasync { path: self.file(gid, segment, "ent") }, SegmentPoint::CkptSync));
        }
        let names_before = group.names_dirty;
        if manifest {
            let bytes = slot::encode(SlotKind::Manifest, group.manifest_gen + 1, &manifest_of(gid, group).encode());
            self.manifest_steps(gid, bytes, &mut steps);
        }
        let group = &self.groups[&gid];
        let dir: FilePath = group_dir(&self.config.dir, gid).into();
        if names_before || group.names_dirty {
            steps.push_back((DiskOp::SyncDir { path: dir }, SegmentPoint::RollDirsync));
        }
        if !group.name_durable {
            steps.push_back((DiskOp::SyncDir { path: self.config.dir.as_str().into() }, SegmentPoint::RollDirsync));
        }
        steps
    }

    fn manifest_steps(&mut self, gid: Gid, bytes: Vec<u8>, steps: &mut VecDeque<(DiskOp, SegmentPoint)>) {
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
        group.manifest_side = side.other();
    }

    fn sync_job(&mut self, gid: Gid) -> Job {
        let group = &self.groups[&gid];
        let (lsn, manifest) = (group.applied_lsn, group.manifest_dirty && group.made);
        let steps = if group.made { self.sync_steps(gid, manifest) } else { VecDeque::new() };
        Job { steps, reads: VecDeque::new(), then: Then::Sync { lsn } }
    }

    /// The oldest rolled segment, if its last entry is committed.
    fn seal_job(&mut self, now: Now, gid: Gid) -> Option<Job> {
        let group = self.groups.get(&gid)?;
        let at = group.segments.iter().position(Segment::is_open)?;
        let segment = &group.segments[at];
        if at + 1 == group.segments.len() || segment.last_index() > group.committed || group.cuts_coming > 0 {
            return None;
        }
        let base = segment.base_index;
        if segment.sums.is_none() {
            let parts = if segment.has_ext { vec![Part::Ent, Part::Ext] } else { vec![Part::Ent] };
            return Some(Job {
                steps: self.sum_steps(gid, segment, Part::Log),
                reads: VecDeque::new(),
                then: Then::Sums { base, part: Part::Log, left: parts.into(), sums: Box::default() },
            });
        }
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
            txn_len: 0,
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
        let at_ms = now.wall.as_millis();
        let group = self.groups.get_mut(&gid)?;
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
        segment.cut = false;
        segment.state = SegmentState::Sealed;
        segment.sealed_at_ms = at_ms;
        steps.extend(self.durable_manifest(gid));
        Some(Job { steps, reads: VecDeque::new(), then: Then::Seal { base } })
    }

    /// The manifest as the group is now, durable with its name.
    fn durable_manifest(&mut self, gid: Gid) -> VecDeque<(DiskOp, SegmentPoint)> {
        let mut steps = VecDeque::new();
        let group = &self.groups[&gid];
        let bytes = slot::encode(SlotKind::Manifest, group.manifest_gen + 1, &manifest_of(gid, group).encode());
        self.manifest_steps(gid, bytes, &mut steps);
        if self.groups[&gid].names_dirty {
            let path: FilePath = group_dir(&self.config.dir, gid).into();
            steps.push_back((DiskOp::SyncDir { path }, SegmentPoint::RollDirsync));
        }
        steps
    }

    fn sum_steps(&self, gid: Gid, segment: &Segment, part: Part) -> VecDeque<(DiskOp, SegmentPoint)> {
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

    fn trim_job(&mut self, gid: Gid) -> Option<Job> {
        let group = self.groups.get_mut(&gid)?;
        let log_start = group.trim_wanted.take()?;
        if log_start <= group.log_start {
            return None;
        }
        group.log_start = log_start;
        group.manifest_dirty = true;
        let upto = group.segments.iter().take_while(|s| !s.is_open() && s.next_offset <= log_start).count();
        if upto == 0 {
            return None; // the manifest says it with its next write
        }
        let last = &group.segments[upto - 1];
        (group.first_index, group.prev_term) = (last.last_index().next(), last.last_term);
        let gone: Vec<Segment> = group.segments.drain(..upto).collect();
        // The manifest (and its name) first: one that names removed files would be damage.
        let mut steps = self.durable_manifest(gid);
        for (_, point) in &mut steps {
            *point = SegmentPoint::TrimManifest;
        }
        for segment in &gone {
            for ext in ["log", "ext", "ent"] {
                steps.push_back((DiskOp::Unlink { path: self.file(gid, segment, ext) }, SegmentPoint::TrimUnlink));
            }
        }
        Some(Job { steps, reads: VecDeque::new(), then: Then::Trim })
    }

    fn snap_job(&mut self, gid: Gid) -> Option<Job> {
        let group = self.groups.get_mut(&gid)?;
        let last = group.segments.back().map_or(EntryIndex::ZERO, Segment::last_index);
        let ready = group.snap.as_ref().is_some_and(|(i, _, _)| *i <= group.committed && *i <= last);
        let ready = ready && group.cuts_coming == 0;
        let (index, next_offset, payload) = group.snap.take_if(|_| ready)?;
        if index == EntryIndex::ZERO || group.snaps.last().is_some_and(|newest| *newest >= index) || !group.made {
            return None;
        }
        let bytes = Snap { gid, index, next_offset, payload }.encode();
        let name = |i: EntryIndex| format!("{:020}.snap", i.0);
        let path = self.path(gid, &name(index));
        let mut steps = VecDeque::from([
            (DiskOp::CreateNew { path: path.clone() }, SegmentPoint::SnapWrite),
            (DiskOp::Write { path: path.clone(), at: 0, bufs: vec![bytes.into()] }, SegmentPoint::SnapWrite),
            (DiskOp::Fdatasync { path }, SegmentPoint::SnapSync),
            (DiskOp::SyncDir { path: group_dir(&self.config.dir, gid).into() }, SegmentPoint::SnapSync),
        ]);
        let snaps = &self.groups[&gid].snaps;
        for old in snaps.iter().take(snaps.len().saturating_sub(1)) {
            steps.push_back((DiskOp::Unlink { path: self.path(gid, &name(*old)) }, SegmentPoint::SnapSync));
        }
        Some(Job { steps, reads: VecDeque::new(), then: Then::Snap { index } })
    }

    fn drop_job(&mut self, gid: Gid) -> Option<Job> {
        let group = self.groups.get_mut(&gid)?;
        let lsn = group.queue.front()?.lsn;
        group.dropped = true;
        self.queued_bytes -= group.queue.iter().map(piece_bytes).sum::<u64>();
        group.queue.iter_mut().for_each(|p| p.entries.clear());
        let dir = group_dir(&self.config.dir, gid);
        let gone: FilePath = format!("{dir}.deleted").into();
        let steps = if group.made {
            VecDeque::from([
                (DiskOp::Rename { from: dir.into(), to: gone.clone() }, SegmentPoint::DelRename),
                (DiskOp::SyncDir { path: self.config.dir.as_str().into() }, SegmentPoint::DelRename),
                (DiskOp::List { path: gone }, SegmentPoint::DelRemove),
            ])
        } else {
            VecDeque::new()
        };
        Some(Job { steps, reads: VecDeque::new(), then: Then::DropList { lsn } })
    }

    /// Applies a finished job; some are followed by another at once.
    fn finish(&mut self, now: Now, gid: Gid, mut job: Job, out: &mut Effects<SegmentEffect>) -> Option<Job> {
        match job.then {
            Then::Append(appended) => self.appended(gid, *appended, out),
            Then::CutRead { from, base } => return self.cut_read(gid, from, base, job.reads.pop_front(), out),
            Then::Cut { from, left } => self.cut_done(gid, from, left),
            Then::Sync { lsn } => {
                let group = self.groups.get_mut(&gid)?;
                for segment in group.segments.iter_mut().filter(|s| s.is_open()) {
                    segment.dirty = false;
                }
                if group.made {
                    (group.names_dirty, group.name_durable, group.manifest_dirty) = (false, true, false);
                }
                group.drained_lsn = group.drained_lsn.max(lsn);
                out.push(SegmentEffect::Drained(gid, lsn));
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
                        return Some(Job { steps, reads: VecDeque::new(), then });
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
                group.snap_asked = true;
                out.push(SegmentEffect::WantSnap(gid));
            }
            Then::Snap { index } => {
                let group = self.groups.get_mut(&gid)?;
                let gone = group.snaps.len().saturating_sub(1);
                group.snaps.drain(..gone);
                group.snaps.push(index);
                group.bytes_since_snap = 0;
            }
            Then::Trim => {
                let group = self.groups.get_mut(&gid)?;
                group.names_dirty = true;
            }
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
                return Some(Job { steps, reads: VecDeque::new(), then: Then::Drop { lsn } });
            }
            Then::Drop { lsn } => {
                if let Some(group) = self.groups.remove(&gid) {
                    self.queued_bytes -= group.queue.iter().map(piece_bytes).sum::<u64>();
                }
                out.push(SegmentEffect::Drained(gid, lsn));
                out.push(SegmentEffect::Removed(gid));
            }
        }
        let _ = now;
        None
    }

    fn appended(&mut self, gid: Gid, done: Appended, out: &mut Effects<SegmentEffect>) {
        let snap_bytes = self.config.snap_bytes;
        let Some(group) = self.groups.get_mut(&gid) else { return };
        group.made = true;
        if done.rolled || done.segment.has_ext != group.segments.back().is_some_and(|s| s.has_ext) {
            group.names_dirty = true;
        }
        for p in &done.placed {
            if group.epochs.last().is_none_or(|e| e.term < p.row.term.0) {
                group.epochs.push(EpochStart { term: p.row.term.0, index: p.row.index, offset: p.row.base_offset });
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
        }
        group.bytes_since_snap += done.bytes;
        if group.bytes_since_snap >= snap_bytes && !group.snap_asked {
            group.snap_asked = true;
            out.push(SegmentEffect::WantSnap(gid));
        }
        if let Some(last) = done.placed.last() {
            out.push(SegmentEffect::Placed(gid, last.row.index, done.placed));
        }
    }

    fn cut_read(
        &mut self,
        gid: Gid,
        from: EntryIndex,
        base: EntryIndex,
        read: Option<Bytes>,
        out: &mut Effects<SegmentEffect>,
    ) -> Option<Job> {
        let bytes = read.unwrap_or_default();
        let before = row::decode_row(&bytes, gid, base);
        let at = bytes.get(row::ROW_BYTES..).and_then(|rest| row::decode_row(rest, gid, base));
        let (Some(before), Some(at)) = (before, at) else {
            // Rows that this process (or recovery) has checked cannot be read any more: the disk lies.
            if !std::mem::replace(&mut self.stopped, true) {
                let path = group_dir(&self.config.dir, gid).into();
                out.push(SegmentEffect::Stop(DiskError { op: "read rows of", path, kind: DiskFault::Io }));
            }
            return None;
        };
        let left = CutTo {
            rows: u32::try_from(from.0 - base.0).unwrap_or(u32::MAX),
            log_len: at.pos,
            ext_len: at.ext_pos,
            max_ts: before.max_ts,
            last_term: before.term.0,
            next_offset: at.base_offset,
        };
        Some(self.cut_files_job(gid, from, Some((base, left))))
    }

    fn cut_done(&mut self, gid: Gid, from: EntryIndex, left: Option<CutTo>) {
        let Some(group) = self.groups.get_mut(&gid) else { return };
        group.segments.retain(|s| s.base_index < from);
        group.snaps.retain(|i| *i < from);
        group.snap.take_if(|(i, _, _)| *i >= from);
        group.epochs.retain(|e| e.index < from);
        (group.names_dirty, group.manifest_dirty) = (true, true);
        if let (Some(to), Some(last)) = (left, group.segments.back_mut()) {
            last.rows = to.rows;
            last.log_len = to.log_len;
            last.ext_len = to.ext_len;
            last.max_ts = to.max_ts;
            last.min_ts = i64::MAX;
            last.last_term = to.last_term;
            last.next_offset = to.next_offset;
            last.dirty = true;
            last.sums = None;
        }
        let cuts = group.queue.front_mut().map_or(0, Persisted::take_cut);
        group.cuts_coming = group.cuts_coming.saturating_sub(cuts);
    }
}

fn entry_bytes(entry: &NewEntry) -> u64 {
    (entry.body.len() + entry.context.len()) as u64
}

fn piece_bytes(piece: &Persisted) -> u64 {
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
    if entry.count > 0 {
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
    segment.rows += 1;
    segment.last_term = entry.term.0;
    segment.next_offset = entry.end_offset();
    segment.log_len += entry.body.len() as u32;
    segment.ext_len += ext_len as u32;
    placed
}

fn manifest_of(gid: Gid, group: &Group) -> Manifest {
    Manifest {
        gid: gid.0,
        topic: group.spec.topic,
        partition: group.spec.partition.0,
        incarnation: group.spec.incarnation,
        log_start: group.log_start,
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
                rows: s.rows,
                last_term: s.last_term,
                sealed_at_ms: s.sealed_at_ms,
                max_ts: s.max_ts,
            })
            .collect(),
        conf: group.spec.conf.to_vec(),
        local_start: group.log_start,
        ..Manifest::default()
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
                    if open > 1 || group.snap.is_some() {
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
            SegmentEvent::Snap(gid, index, next_offset, payload) => {
                if let Some(group) = self.groups.get_mut(&gid) {
                    group.committed = group.committed.max(index);
                    // Unasked (at close), it is worth a file and two syncs only if it saves a later start some reading.
                    if !std::mem::take(&mut group.snap_asked) && group.bytes_since_snap < self.config.snap_bytes / 16 {
                        return;
                    }
                    group.snap = Some((index, next_offset, payload));
                    self.enlist(gid);
                }
            }
            SegmentEvent::Trim(gid, log_start) => {
                if let Some(group) = self.groups.get_mut(&gid) {
                    group.trim_wanted = group.trim_wanted.max(Some(log_start));
                    self.enlist(gid);
                }
            }
            SegmentEvent::Limits { gid, segment_bytes, segment_ms } => {
                if let Some(group) = self.groups.get_mut(&gid) {
                    (group.segment_bytes, group.segment_ms) = (segment_bytes, segment_ms);
                }
            }
            SegmentEvent::Done(token, result) => self.done(now, token, result, out),
            SegmentEvent::Close => {
                self.closing = true;
                let all: Vec<Gid> = self.groups.keys().copied().collect();
                all.into_iter().for_each(|gid| self.enlist(gid));
            }
            SegmentEvent::Wake => {}
        }
        self.pump(now, out);
    }

    fn deadline(&self) -> Option<Mono> {
        None
    }
}
