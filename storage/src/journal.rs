//! Pure. The journal of one log directory: group commit of all partitions, and when a file may be used again.
//!
//! One write is in flight; what arrives meanwhile becomes the next flush, so the flush itself is the group commit and no
//! timer is needed. ≤ [`SEAL_AFTER_MS`] after the last flush with content an empty one follows, so that damage to the
//! last acknowledged flush differs from a torn write.
//!
//! ```text
//!  file:  preparing ──> ready ──> active ──> full ──(all its groups drained, newest HARD/CREATE forwarded)──> ready
//!                       └──(more files than configured, and the burst is over or was in a life before)──> removed
//!  cost of an acknowledged entry: 64 + 24 bytes of frame and directory, one copy into the aligned buffer, a share of one write
//! ```
//! Invariants: `Persisted` leaves only after the write that holds the frames returned; a file is used again only when every
//! group with an entry in it is durable in segments past it, and the newest HARD and CREATE of every group lie in a later
//! file; generations on disk stay one unbroken run, so files are used again and removed oldest first, never both at one
//! time; after a failed operation nothing is persisted any more. What a life before left is drained at once and noted
//! ([`JournalEffect::Checkpointed`]), so that lives too short to finish do not begin anew each time. Not here: reading (`recover.rs`), threads (`raft/driver.rs`).

use crate::disk::{AlignedBuf, BLOCK_BYTES, DiskDone, DiskError, DiskOp, FilePath};
use crate::entry::{Frame, GroupSpec, Hard, NewEntry};
use crate::format::journal::{FLAG_CLEAN_STOP, FLAG_SEAL, FileHeader, FlushBuilder, HEADER_BYTES, frame_bytes};
use bytes::Bytes;
use catchwater_base::{Effects, Local, Mono, Now};
use catchwater_record::{EntryIndex, Gid};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Idle time after which a flush with content is sealed, ms.
pub const SEAL_AFTER_MS: u64 = 10;
/// Zeros are written to a new file in pieces of this size, bytes.
const PREPARE_BYTES: u64 = 1 << 20;

#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// The `journal` directory.
    pub dir: String,
    pub dir_id: [u8; 16],
    /// Length of a new file, bytes; a multiple of the block size.
    pub file_bytes: u64,
    /// Files that are made ahead.
    pub files: usize,
    /// Files at most.
    pub files_max: usize,
    /// Usual size of the flush buffer, bytes; a larger frame gets a larger one.
    pub buffer_bytes: usize,
}

/// Names one operation in flight.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Token(pub u64);

/// Where the shell runs an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// On the journal thread: somebody waits for it.
    Commit,
    /// Anywhere else: preparing a file ahead.
    Behind,
}

/// For the shell's crash points around the operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JournalPoint {
    /// A flush with content.
    Submit,
    Seal,
    /// Block 0 of a file that is used (again).
    Recycle,
    Prepare,
    /// A file beyond the configured number goes.
    Remove,
}

/// What one group wants durable, in this order: create, drop, truncation, hard state, entries.
#[derive(Clone, Debug, Default)]
pub struct JournalBatch {
    pub gid: Gid,
    /// Comes back in [`Persisted`]; `None` = nobody waits for it.
    pub tag: Option<u64>,
    pub create: Option<GroupSpec>,
    pub drop: bool,
    pub truncate_from: Option<EntryIndex>,
    pub hard: Option<Hard>,
    pub entries: Vec<NewEntry>,
}

/// What has become durable for one group; the pieces of one group come in order.
#[derive(Clone, Debug)]
pub struct Persisted {
    pub gid: Gid,
    pub lsn: u64,
    pub create: Option<GroupSpec>,
    pub drop: bool,
    pub truncate_from: Option<EntryIndex>,
    /// Truncations that `truncate_from` stands for.
    pub cuts: u32,
    pub entries: Vec<NewEntry>,
    /// Bytes of bodies that became durable, cut ones included.
    pub body_bytes: u64,
    /// Batches that are whole now, in order.
    pub tags: Vec<u64>,
}

impl Persisted {
    /// The truncation is done: how many it stood for.
    pub(crate) fn take_cut(&mut self) -> u32 {
        self.truncate_from = None;
        std::mem::take(&mut self.cuts)
    }
}

#[derive(Debug)]
pub enum JournalEvent {
    Queue(Vec<JournalBatch>),
    Done(Token, Result<DiskDone, DiskError>),
    /// Everything of the group in flushes up to this one is durable in segments (or void), its manifest too.
    Drained(Gid, u64),
    Wake,
    /// Flush what is queued, then mark a clean stop.
    Close,
}

#[derive(Debug)]
pub enum JournalEffect {
    /// Run it and answer with `Done`.
    Disk { token: Token, op: DiskOp, lane: Lane, point: JournalPoint },
    /// To the replicas, then to the segment writer.
    Persisted(Vec<Persisted>),
    /// The segment writer must make these groups durable: their journal file is wanted back.
    Checkpoint(Vec<Gid>),
    /// Every entry in flushes up to this one is durable in segments: a recovery that knows it need not replay them.
    Checkpointed(u64),
    /// Share of the journal that is in use, percent, when it changes.
    Used(u8),
    /// Nothing will be persisted any more.
    Stop(DiskError),
    /// The clean stop is durable; the number is the last flush.
    Closed(u64),
}

/// A journal file as recovery found it.
#[derive(Clone, Debug)]
pub struct FoundFile {
    pub path: FilePath,
    pub len: u64,
    pub file_gen: u64,
    pub first_lsn: u64,
    pub last_lsn: u64,
    /// Group → newest flush here with an entry of it that is not known durable in segments.
    pub pins: BTreeMap<Gid, u64>,
}

/// The newest state frames of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub hard: Option<(Hard, u64)>,
    /// Until the group's manifest is durable.
    pub create: Option<(GroupSpec, u64)>,
}

/// What recovery hands over.
#[derive(Clone, Debug, Default)]
pub struct FoundJournal {
    /// Ascending by generation.
    pub live: Vec<FoundFile>,
    /// Pre-written, content of no interest.
    pub free: Vec<(FilePath, u64)>,
    /// Of the last valid flush.
    pub last_lsn: u64,
    /// Highest generation seen. Generations on disk are one unbroken run: files are freed and used again in order.
    pub last_gen: u64,
    /// Highest number in a file's name; the name of a file stays when it is used again.
    pub last_name: u64,
    pub heads: BTreeMap<Gid, Head>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FileState {
    /// Next step of preparing it.
    Preparing(PrepareStep),
    Ready,
    Active,
    Full,
    /// Its name goes; `true` once it is gone and the directory must be synced.
    Removing(bool),
    /// A free place in the list: the others are known by their place.
    Gone,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PrepareStep {
    Create,
    Allocate,
    Zero(u64),
    Sync,
    SyncDir,
}

#[derive(Debug)]
struct File {
    path: FilePath,
    len: u64,
    state: FileState,
    file_gen: u64,
    last_lsn: u64,
    /// Where the next flush starts.
    next: u64,
    pins: BTreeMap<Gid, u64>,
    checkpoint_asked: bool,
    /// A life before wrote it.
    found: bool,
}

#[derive(Debug)]
enum What {
    Create(GroupSpec),
    Drop,
    Truncate(EntryIndex),
    Hard(Hard),
    Entry(NewEntry),
}

#[derive(Debug)]
struct Item {
    gid: Gid,
    what: What,
    /// The batch is whole with this item.
    tag: Option<u64>,
    forwarded: bool,
}

impl Item {
    /// `None`: takes no frame.
    fn frame(&self) -> Option<Frame> {
        match &self.what {
            What::Create(spec) => Some(Frame::Create(self.gid, spec.clone())),
            What::Drop => Some(Frame::Drop(self.gid)),
            What::Truncate(_) => None,
            What::Hard(hard) => Some(Frame::Hard(self.gid, *hard)),
            What::Entry(entry) => Some(Frame::Entry(self.gid, entry.clone())),
        }
    }
}

#[derive(Debug)]
enum Writing {
    Header { file: usize },
    Flush { file: usize, lsn: u64, bytes: u64, items: Vec<Item>, seal: bool, close: bool },
}

#[derive(Debug)]
pub struct Journal {
    config: JournalConfig,
    files: Vec<File>,
    queue: VecDeque<Item>,
    writing: Option<(Token, Writing)>,
    /// One file is prepared at a time: which.
    preparing: Option<(Token, usize)>,
    buffer: Option<AlignedBuf>,
    next_token: u64,
    next_lsn: u64,
    next_gen: u64,
    next_name: u64,
    heads: BTreeMap<Gid, Head>,
    drained: BTreeMap<Gid, u64>,
    /// What was reported last.
    checkpoint_lsn: u64,
    /// Files that may stay: the configured number, more after a burst until the journal is idle.
    allowed: usize,
    found_asked: bool,
    seal_at: Option<Mono>,
    closing: bool,
    closed: bool,
    stopped: bool,
    used_percent: u8,
}

impl Journal {
    /// Starts where recovery ended. Send [`JournalEvent::Wake`] once to get it going.
    pub fn open(config: JournalConfig, found: FoundJournal) -> Self {
        assert_eq!(config.file_bytes % BLOCK_BYTES as u64, 0, "journal files are whole blocks");
        assert!(config.file_bytes >= 4 * BLOCK_BYTES as u64, "a journal file holds its block 0 and some flushes");
        let mut files = Vec::new();
        for f in found.live {
            files.push(File {
                path: f.path,
                len: f.len,
                state: FileState::Full,
                file_gen: f.file_gen,
                last_lsn: f.last_lsn,
                next: f.len,
                pins: f.pins,
                checkpoint_asked: false,
                found: true,
            });
        }
        for (path, len) in found.free {
            files.push(File::new(path, len, FileState::Ready));
        }
        Journal {
            files,
            queue: VecDeque::new(),
            writing: None,
            preparing: None,
            buffer: None,
            next_token: 1,
            next_lsn: found.last_lsn + 1,
            next_gen: found.last_gen + 1,
            next_name: found.last_name + 1,
            heads: found.heads,
            drained: BTreeMap::new(),
            checkpoint_lsn: 0,
            allowed: config.files,
            found_asked: false,
            seal_at: None,
            closing: false,
            closed: false,
            stopped: false,
            used_percent: 0,
            config,
        }
    }

    /// Number of the newest durable flush.
    pub fn durable_lsn(&self) -> u64 {
        match &self.writing {
            Some((_, Writing::Flush { lsn, .. })) => lsn - 1,
            _ => self.next_lsn - 1,
        }
    }

    /// Files that lie on the disk.
    pub fn file_count(&self) -> usize {
        self.files.iter().filter(|f| f.state != FileState::Gone).count()
    }

    /// Files that stay.
    fn kept(&self) -> usize {
        self.files.iter().filter(|f| !matches!(f.state, FileState::Gone | FileState::Removing(_))).count()
    }

    /// Frames that wait.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// True while an operation is in flight.
    pub fn is_busy(&self) -> bool {
        self.writing.is_some() || self.preparing.is_some()
    }

    /// The largest body one frame may carry, bytes.
    pub fn body_bytes_max(&self) -> u64 {
        self.config.file_bytes / 4
    }

    fn token(&mut self) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        token
    }

    fn take_in(&mut self, batch: JournalBatch) {
        let gid = batch.gid;
        let mut whats = Vec::with_capacity(batch.entries.len() + 2);
        whats.extend(batch.create.map(What::Create));
        whats.extend(batch.drop.then_some(What::Drop));
        whats.extend(batch.truncate_from.map(What::Truncate));
        whats.extend(batch.hard.map(What::Hard));
        whats.extend(batch.entries.into_iter().map(What::Entry));
        let last = whats.len().saturating_sub(1);
        if whats.is_empty() && batch.tag.is_some() {
            // Nothing to write, but its place in the order counts: an impossible truncation stands for it.
            whats.push(What::Truncate(EntryIndex(u64::MAX)));
        }
        for (i, what) in whats.into_iter().enumerate() {
            let tag = if i == last { batch.tag } else { None };
            self.queue.push_back(Item { gid, what, tag, forwarded: false });
        }
    }

    fn pump(&mut self, now: Now, out: &mut Effects<JournalEffect>) {
        if self.stopped || self.closed {
            return;
        }
        self.free_files(out);
        self.write_next(now, out);
        self.prepare_next(out);
        self.report_use(out);
    }

    /// Full files, oldest first.
    fn full(&self) -> Vec<usize> {
        let mut full: Vec<usize> = (0..self.files.len()).filter(|i| self.files[*i].state == FileState::Full).collect();
        full.sort_unstable_by_key(|i| self.files[*i].file_gen);
        full
    }

    /// Gives back full files, oldest first, and asks for those that hold too much.
    fn free_files(&mut self, out: &mut Effects<JournalEffect>) {
        self.ask_found(out);
        let full = self.full();
        let many = full.len() * 2 >= self.config.files.max(2);
        let (mut drained_upto, mut forwarded) = (0, true);
        for at in full {
            let drained = &self.drained;
            let file = &mut self.files[at];
            file.pins.retain(|gid, lsn| drained.get(gid).is_none_or(|d| d < lsn));
            if !file.pins.is_empty() {
                if many && !file.checkpoint_asked {
                    file.checkpoint_asked = true;
                    out.push(JournalEffect::Checkpoint(file.pins.keys().copied().collect()));
                }
                // Files are freed in order, so what is left is one unbroken run of flushes.
                break;
            }
            let last = file.last_lsn;
            drained_upto = last;
            // If not, then with the next flush.
            forwarded = forwarded && !self.heads.values().any(|head| head.is_within(last));
            if forwarded {
                let file = &mut self.files[at];
                file.state = FileState::Ready;
                file.checkpoint_asked = false;
                file.found = false;
            }
        }
        if drained_upto > self.checkpoint_lsn {
            self.checkpoint_lsn = drained_upto;
            out.push(JournalEffect::Checkpointed(drained_upto));
        }
    }

    /// Once: what a life before left goes to segments now, not when the journal is half full. A life that ends before it
    /// comes so far leaves one file more than it found.
    fn ask_found(&mut self, out: &mut Effects<JournalEffect>) {
        if std::mem::replace(&mut self.found_asked, true) {
            return;
        }
        let mut gids = BTreeSet::new();
        for file in self.files.iter_mut().filter(|f| f.found && !f.pins.is_empty()) {
            file.checkpoint_asked = true;
            gids.extend(file.pins.keys().copied());
        }
        if !gids.is_empty() {
            out.push(JournalEffect::Checkpoint(gids.into_iter().collect()));
        }
    }

    /// The end of the oldest full files that only wait for their newest HARD and CREATE frames to be copied forward.
    fn forward_limit(&self) -> Option<u64> {
        let full = self.full();
        let last = full.into_iter().take_while(|at| self.files[*at].pins.is_empty()).last()?;
        let last = self.files[last].last_lsn;
        self.heads.values().any(|h| h.is_within(last)).then_some(last)
    }

    fn write_next(&mut self, now: Now, out: &mut Effects<JournalEffect>) {
        if self.writing.is_some() {
            return;
        }
        let forward = self.forward_limit();
        let seal = self.seal_at.is_some_and(|at| at <= now.mono);
        if self.queue.is_empty() && forward.is_none() && !seal && !self.closing {
            return;
        }
        let first = self.queue.front().and_then(Item::frame).map_or(0, |f| frame_bytes(&f));
        let least = (HEADER_BYTES + first).next_multiple_of(BLOCK_BYTES);
        let active = self.files.iter().position(|f| f.state == FileState::Active);
        let room = active.map_or(0, |at| self.files[at].len - self.files[at].next);
        match active {
            Some(at) if room >= least as u64 => {
                let wish = self.config.buffer_bytes.max(least).next_multiple_of(BLOCK_BYTES);
                let limit = usize::try_from(room).unwrap_or(usize::MAX).min(wish);
                self.submit_flush(at, limit, forward, out);
            }
            _ => self.switch_file(now, least as u64, out),
        }
    }

    fn submit_flush(&mut self, at: usize, limit: usize, forward: Option<u64>, out: &mut Effects<JournalEffect>) {
        let buf = match self.buffer.take() {
            Some(buf) if buf.capacity() >= limit => buf,
            _ => AlignedBuf::with_capacity(limit),
        };
        let lsn = self.next_lsn;
        let mut builder = FlushBuilder::new(buf, lsn, limit);
        let mut items = Vec::new();
        // Nothing is in flight, so `heads` is the newest durable state; put first, nothing newer can be overtaken.
        if let Some(last) = forward {
            for (gid, head) in &self.heads {
                let create = head.create.iter().filter(|(_, l)| *l <= last).map(|(spec, _)| What::Create(spec.clone()));
                let hard = head.hard.iter().filter(|(_, l)| *l <= last).map(|(hard, _)| What::Hard(*hard));
                for what in create.chain(hard) {
                    items.push(Item { gid: *gid, what, tag: None, forwarded: true });
                }
            }
            items.retain(|item| match item.frame() {
                Some(frame) if builder.fits(&frame) => {
                    builder.push(&frame);
                    true
                }
                _ => false,
            });
        }
        while let Some(item) = self.queue.front() {
            if let Some(frame) = item.frame() {
                if !builder.fits(&frame) {
                    break;
                }
                builder.push(&frame);
            }
            items.extend(self.queue.pop_front());
        }
        let close = self.closing && self.queue.is_empty();
        let seal = builder.count() == 0;
        let flags = if close { FLAG_CLEAN_STOP } else { 0 } | if seal { FLAG_SEAL } else { 0 };
        let file = &self.files[at];
        let buf = builder.finish(file.file_gen, lsn - 1, flags, self.config.dir_id);
        let bytes = buf.len() as u64;
        let op = DiskOp::WriteDirect { path: file.path.clone(), at: file.next, buf };
        self.next_lsn += 1;
        self.seal_at = None;
        let token = self.token();
        self.writing = Some((token, Writing::Flush { file: at, lsn, bytes, items, seal, close }));
        let point = if seal { JournalPoint::Seal } else { JournalPoint::Submit };
        out.push(JournalEffect::Disk { token, op, lane: Lane::Commit, point });
    }

    /// The active file is full (or there is none): the next ready one gets a generation.
    fn switch_file(&mut self, now: Now, least: u64, out: &mut Effects<JournalEffect>) {
        // The oldest first: what lies on disk stays one unbroken run of generations, so that a hole means damage.
        // One that is being removed is older than they: using them first would tear the run if its name came back. Never
        // used ones are in no run.
        let removing = self.files.iter().any(|f| matches!(f.state, FileState::Removing(_)) && f.file_gen > 0);
        let fits = |f: &File| {
            f.state == FileState::Ready && f.len >= least + BLOCK_BYTES as u64 && !(removing && f.file_gen > 0)
        };
        let ready = (0..self.files.len()).filter(|i| fits(&self.files[*i]));
        let Some(next) = ready.min_by_key(|i| self.files[*i].file_gen) else {
            return; // one is being prepared, or the segment writer must free one
        };
        if let Some(active) = self.files.iter_mut().find(|f| f.state == FileState::Active) {
            active.state = FileState::Full;
        }
        let header = FileHeader {
            file_gen: self.next_gen,
            first_lsn: self.next_lsn,
            dir_id: self.config.dir_id,
            created_ms: now.wall.as_millis(),
        };
        let mut buf = AlignedBuf::with_capacity(BLOCK_BYTES);
        buf.put(&header.encode());
        let file = &mut self.files[next];
        file.file_gen = self.next_gen;
        file.last_lsn = self.next_lsn - 1;
        file.next = BLOCK_BYTES as u64;
        file.pins.clear();
        file.state = FileState::Active;
        let op = DiskOp::WriteDirect { path: file.path.clone(), at: 0, buf };
        self.next_gen += 1;
        let token = self.token();
        self.writing = Some((token, Writing::Header { file: next }));
        out.push(JournalEffect::Disk { token, op, lane: Lane::Commit, point: JournalPoint::Recycle });
    }

    fn prepare_next(&mut self, out: &mut Effects<JournalEffect>) {
        // Frames to copy forward wait for room too: producers that were told to wait queue nothing, so nobody else would ask.
        let waits = !self.queue.is_empty() || self.closing || self.forward_limit().is_some();
        let waited_for = self.writing.is_none() && waits;
        if self.preparing.is_some() || (self.closing && !waited_for) {
            return;
        }
        let ready = self.files.iter().filter(|f| f.state == FileState::Ready).count();
        let half_made = |f: &File| matches!(f.state, FileState::Preparing(_) | FileState::Removing(_));
        let at = match self.files.iter().position(half_made) {
            Some(at) => at,
            None => {
                let total = self.kept();
                let active = self.files.iter().find(|f| f.state == FileState::Active);
                let soon = active.is_none_or(|f| f.next * 2 >= f.len) || waited_for;
                let wanted = total < self.config.files || (ready == 0 && soon && total < self.config.files_max);
                // After a crash loop every file may hold something; or the oldest could be freed if only there were room
                // to copy a few frames forward. One more is allowed then, else nothing would ever move again.
                let stuck = ready == 0 && waited_for && (active.is_none() || self.forward_limit().is_some());
                if wanted || stuck {
                    self.add_file()
                } else if let Some(at) = self.surplus() {
                    self.files[at].state = FileState::Removing(false);
                    at
                } else {
                    return;
                }
            }
        };
        let lane = if waited_for && ready == 0 { Lane::Commit } else { Lane::Behind };
        let file = &self.files[at];
        let path = file.path.clone();
        let sync_dir = DiskOp::SyncDir { path: self.config.dir.as_str().into() };
        let step = match file.state {
            FileState::Preparing(step) => step,
            FileState::Removing(gone) => {
                let op = if gone { sync_dir } else { DiskOp::Unlink { path } };
                let token = self.token();
                self.preparing = Some((token, at));
                out.push(JournalEffect::Disk { token, op, lane, point: JournalPoint::Remove });
                return;
            }
            _ => return,
        };
        let op = match step {
            PrepareStep::Create => DiskOp::CreateNew { path },
            PrepareStep::Allocate => DiskOp::Fallocate { path, len: file.len },
            PrepareStep::Zero(from) => {
                let len = PREPARE_BYTES.min(file.len - from) as usize;
                static ZEROS: [u8; PREPARE_BYTES as usize] = [0; PREPARE_BYTES as usize];
                DiskOp::Write { path, at: from, bufs: vec![Bytes::from_static(&ZEROS[..len])] }
            }
            PrepareStep::Sync => DiskOp::Fdatasync { path },
            PrepareStep::SyncDir => sync_dir,
        };
        let token = self.token();
        self.preparing = Some((token, at));
        out.push(JournalEffect::Disk { token, op, lane, point: JournalPoint::Prepare });
    }

    /// A new file, its place in the list.
    fn add_file(&mut self) -> usize {
        let path = format!("{}/{:016x}.wal", self.config.dir, self.next_name);
        self.next_name += 1;
        // A burst may keep what it made until it is over. Room that is only wanted because a life before left its files
        // full goes when they are given back.
        if !self.files.iter().any(|f| f.found && f.state == FileState::Full) {
            self.allowed = self.allowed.max(self.kept() + 1);
        }
        let file = File::new(path.into(), self.config.file_bytes, FileState::Preparing(PrepareStep::Create));
        match self.files.iter().position(|f| f.state == FileState::Gone) {
            Some(at) => {
                self.files[at] = file;
                at
            }
            None => {
                self.files.push(file);
                self.files.len() - 1
            }
        }
    }

    /// The file that goes next, if there are more than may stay: one that was never used, else the oldest, so that what
    /// lies on disk stays one unbroken run. Never the newest: that is not the oldest of two.
    fn surplus(&self) -> Option<usize> {
        // Until a header is durable, the file it goes to still counts as the oldest.
        if self.closing || self.kept() <= self.allowed || matches!(self.writing, Some((_, Writing::Header { .. }))) {
            return None;
        }
        let ready: Vec<usize> = (0..self.files.len()).filter(|i| self.files[*i].state == FileState::Ready).collect();
        if ready.len() < 2 {
            return None;
        }
        ready.into_iter().min_by_key(|i| self.files[*i].file_gen)
    }

    fn report_use(&mut self, out: &mut Effects<JournalEffect>) {
        let total = self.config.files_max.max(1) as u64 * 100;
        let used: u64 = self
            .files
            .iter()
            .map(|f| match f.state {
                FileState::Full => 100,
                FileState::Active => f.next * 100 / f.len.max(1),
                _ => 0,
            })
            .sum();
        let percent = u8::try_from(used * 100 / total).unwrap_or(u8::MAX).min(100);
        if percent != self.used_percent {
            self.used_percent = percent;
            out.push(JournalEffect::Used(percent));
        }
    }

    fn done(&mut self, now: Now, token: Token, result: Result<DiskDone, DiskError>, out: &mut Effects<JournalEffect>) {
        let done = match result {
            Ok(done) => done,
            Err(error) => {
                // The kernel reports once, then lies: never again. Nothing more leaves this machine.
                if !std::mem::replace(&mut self.stopped, true) {
                    out.push(JournalEffect::Stop(error));
                }
                return;
            }
        };
        if self.preparing.is_some_and(|(t, _)| t == token) {
            if let Some((_, at)) = self.preparing.take() {
                self.prepared(at);
            }
            return;
        }
        let Some((_, writing)) = self.writing.take_if(|(t, _)| *t == token) else {
            return;
        };
        match writing {
            Writing::Header { file } => debug_assert_eq!(self.files[file].state, FileState::Active),
            Writing::Flush { file, lsn, bytes, items, seal, close } => {
                if let DiskDone::Buffer(buf) = done
                    && buf.capacity() <= self.config.buffer_bytes.next_multiple_of(BLOCK_BYTES)
                {
                    self.buffer = Some(buf);
                }
                self.flushed(file, lsn, bytes, items, out);
                if !seal && self.queue.is_empty() {
                    self.seal_at = Some(now.mono.plus_millis(SEAL_AFTER_MS));
                }
                if seal {
                    self.allowed = self.config.files; // idle
                }
                if close {
                    self.closed = true;
                    out.push(JournalEffect::Closed(lsn));
                }
            }
        }
    }

    fn prepared(&mut self, at: usize) {
        let file = &mut self.files[at];
        let step = match file.state {
            FileState::Preparing(step) => step,
            FileState::Removing(gone) => {
                file.state = if gone { FileState::Gone } else { FileState::Removing(true) };
                return;
            }
            _ => return,
        };
        let next = match step {
            PrepareStep::Create => PrepareStep::Allocate,
            PrepareStep::Allocate => PrepareStep::Zero(0),
            PrepareStep::Zero(from) if from + PREPARE_BYTES < file.len => PrepareStep::Zero(from + PREPARE_BYTES),
            PrepareStep::Zero(_) => PrepareStep::Sync,
            PrepareStep::Sync => PrepareStep::SyncDir,
            PrepareStep::SyncDir => {
                file.state = FileState::Ready;
                return;
            }
        };
        file.state = FileState::Preparing(next);
    }

    fn flushed(&mut self, at: usize, lsn: u64, bytes: u64, items: Vec<Item>, out: &mut Effects<JournalEffect>) {
        let file = &mut self.files[at];
        file.last_lsn = lsn;
        file.next += bytes;
        let mut persisted: Vec<Persisted> = Vec::new();
        let mut place: BTreeMap<Gid, usize> = BTreeMap::new();
        for item in items {
            let gid = item.gid;
            match &item.what {
                What::Create(spec) => self.heads.entry(gid).or_default().create = Some((spec.clone(), lsn)),
                What::Hard(hard) => self.heads.entry(gid).or_default().hard = Some((*hard, lsn)),
                What::Drop => {
                    self.heads.remove(&gid);
                    file.pins.insert(gid, lsn);
                }
                What::Entry(_) => {
                    file.pins.insert(gid, lsn);
                }
                What::Truncate(_) => {}
            }
            if item.forwarded {
                continue;
            }
            let slot = *place.entry(gid).or_insert_with(|| {
                persisted.push(Persisted {
                    gid,
                    lsn,
                    create: None,
                    drop: false,
                    truncate_from: None,
                    cuts: 0,
                    entries: Vec::new(),
                    body_bytes: 0,
                    tags: Vec::new(),
                });
                persisted.len() - 1
            });
            let p = &mut persisted[slot];
            match item.what {
                What::Create(spec) => p.create = Some(spec),
                What::Drop => p.drop = true,
                What::Truncate(EntryIndex(u64::MAX)) => {}
                What::Truncate(from) => {
                    // Entries of this very flush that a later batch of it cut again never reach a segment.
                    p.entries.retain(|e| e.index < from);
                    p.cuts += 1;
                    p.truncate_from = Some(p.truncate_from.map_or(from, |f| f.min(from)));
                }
                What::Entry(entry) => {
                    p.body_bytes += entry.body.len() as u64;
                    p.entries.push(entry);
                }
                What::Hard(_) => {}
            }
            p.tags.extend(item.tag);
        }
        if !persisted.is_empty() {
            out.push(JournalEffect::Persisted(persisted));
        }
    }
}

impl Head {
    /// True if a newest frame of this group lies in a flush up to `last`.
    fn is_within(&self, last: u64) -> bool {
        self.hard.as_ref().is_some_and(|(_, l)| *l <= last) || self.create.as_ref().is_some_and(|(_, l)| *l <= last)
    }
}

impl File {
    fn new(path: FilePath, len: u64, state: FileState) -> Self {
        File {
            path,
            len,
            state,
            file_gen: 0,
            last_lsn: 0,
            next: 0,
            pins: BTreeMap::new(),
            checkpoint_asked: false,
            found: false,
        }
    }
}

impl Local for Journal {
    type Event = JournalEvent;
    type Effect = JournalEffect;

    fn handle(&mut self, now: Now, event: JournalEvent, out: &mut Effects<JournalEffect>) {
        match event {
            JournalEvent::Queue(batches) => batches.into_iter().for_each(|batch| self.take_in(batch)),
            JournalEvent::Done(token, result) => self.done(now, token, result, out),
            JournalEvent::Drained(gid, lsn) => {
                let known = self.drained.entry(gid).or_insert(0);
                *known = (*known).max(lsn);
                if let Some(head) = self.heads.get_mut(&gid)
                    && head.create.as_ref().is_some_and(|(_, l)| *l <= lsn)
                {
                    head.create = None;
                }
            }
            JournalEvent::Wake => {}
            JournalEvent::Close => self.closing = true,
        }
        self.pump(now, out);
    }

    fn deadline(&self) -> Option<Mono> {
        if self.stopped || self.closed || self.writing.is_some() { None } else { self.seal_at }
    }
}
