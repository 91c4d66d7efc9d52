//! Pure. The journal of one log directory: group commit of all partitions, and when a file may be used again.
//!
//! One write is in flight; what arrives meanwhile becomes the next flush, so the flush itself is the group commit and no
//! timer is needed. ≤ [`SEAL_AFTER_MS`] after the last flush with content an empty one follows, so that damage to the
//! last acknowledged flush differs from a torn write.
//!
//! ```text
//!  file:  preparing ──> ready ──> active ──> full ──(all its groups drained, newest HARD/CREATE forwarded)──> ready
//!                       ready ──(the next entry is longer than it)──> growing ──> ready
//!                       └──(more files than configured, and the burst is over for a minute or was in a life before)──> removed
//!  cost of an acknowledged entry: 64 + 24 bytes of frame and directory, one copy into the aligned buffer, a share of one write
//! ```
//! Invariants: `Persisted` leaves only after the write that holds the frames returned; a file is used again only when every
//! group with an entry in it is durable in segments past it, and the newest HARD and CREATE of every group lie in a later
//! file; generations on disk stay one unbroken run, so files are used again and removed oldest first, never both at one
//! time; after a failed operation nothing is persisted any more. What a life before left is drained at once and noted
//! ([`JournalEffect::Checkpointed`]), so that lives too short to finish do not begin anew each time. Not here: reading (`recover.rs`), threads (`raft/driver.rs`).

mod files;
mod flush;

use crate::disk::{AlignedBuf, BLOCK_BYTES, DiskDone, DiskError, DiskOp, FilePath};
use crate::entry::{Frame, GroupSpec, Hard, Loose, Mark, NewEntry, PrefixSnapshot};
use catchwater_base::{Effects, Local, Mono, Now, mutant};
use catchwater_record::{EntryIndex, Gid};
pub(crate) use files::NEW;
use files::{File, FileState};
use std::collections::{BTreeMap, VecDeque};

/// Idle time after which a flush with content is sealed, ms.
pub const SEAL_AFTER_MS: u64 = 10;
/// What a burst has made is kept so long for the next one, ms from when a file was last filled: making a file costs as much
/// writing as filling it.
pub const KEEP_MS: u64 = 60_000;
/// How a journal is kept.
#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// The `journal` directory.
    pub dir: String,
    pub dir_id: [u8; 16],
    /// Length of a new file, bytes; a multiple of the block size. An entry for which that is too short makes one longer.
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
    /// A flush that copies the newest frames of old files forward, whatever else is in it: those files may be used again then.
    Forward,
    Seal,
    /// Block 0 of a file that is used (again).
    Recycle,
    Prepare,
    /// A file beyond the configured number goes.
    Remove,
}

/// What one group wants durable, in this order: create, drop, truncation, mark, hard state,
/// snapshot, entries.
#[derive(Clone, Debug, Default)]
pub struct JournalBatch {
    pub gid: Gid,
    /// Comes back in [`Persisted`]; `None` = nobody waits for it.
    pub tag: Option<u64>,
    pub create: Option<GroupSpec>,
    pub drop: bool,
    pub truncate_from: Option<EntryIndex>,
    pub mark: Option<Mark>,
    pub hard: Option<Hard>,
    /// The log is void and begins behind this; entries of the same batch come behind it.
    pub snapshot: Option<Box<PrefixSnapshot>>,
    pub entries: Vec<NewEntry>,
}

/// What has become durable for one group; the pieces of one group come in order.
#[derive(Clone, Debug)]
pub struct Persisted {
    pub gid: Gid,
    pub lsn: u64,
    pub create: Option<GroupSpec>,
    pub drop: bool,
    /// The log is void and begins behind this; `entries` come behind it.
    pub snapshot: Option<Box<PrefixSnapshot>>,
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
    /// Of flush `lsn`, with nothing in it yet; 0 = of no flush.
    pub fn empty(gid: Gid, lsn: u64) -> Self {
        Persisted {
            gid,
            lsn,
            create: None,
            drop: false,
            snapshot: None,
            truncate_from: None,
            cuts: 0,
            entries: Vec::new(),
            body_bytes: 0,
            tags: Vec::new(),
        }
    }

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
    /// Whoever watches the disk says that there may be room again.
    SpaceBack,
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
    /// The first flush of a file is durable: noted elsewhere, it is missed should the file be gone one day. The newest file is
    /// followed by none that would tell.
    Began(u64),
    /// Share of the journal that is in use, percent, when it changes.
    Used(u8),
    /// A file that was to be made ahead found no room: none is tried again before [`JournalEvent::SpaceBack`]. Nothing is
    /// lost, the journal goes on in the files it has.
    NoSpace(DiskError),
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
    /// It has files, or had them: nobody may take it for a new one.
    pub in_files: bool,
    /// And no HARD frame says so yet, while a record of its making may be in the journal still.
    pub unsaid: bool,
    /// What a relaxed group's marks come to.
    pub loose: Option<(Loose, u64)>,
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

#[derive(Debug)]
enum What {
    /// Its group is the item's.
    Frame(Frame),
    /// Takes no frame.
    Truncate(EntryIndex),
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
    fn frame(&self) -> Option<&Frame> {
        match &self.what {
            What::Frame(frame) => Some(frame),
            What::Truncate(_) => None,
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
    /// What was reported last.
    checkpoint_lsn: u64,
    /// Files that may stay: the configured number, more after a burst until the journal is idle.
    allowed: usize,
    /// Until then no file goes for being one too many.
    keep_until: Mono,
    found_asked: bool,
    seal_at: Option<Mono>,
    /// The time has come and there is no room: whoever makes some tells the journal, its clock does not.
    seal_waits: bool,
    /// The disk is full: no new file.
    no_space: bool,
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
                unnamed: false,
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
            checkpoint_lsn: 0,
            allowed: config.files,
            keep_until: Mono::ZERO,
            found_asked: false,
            seal_at: None,
            seal_waits: false,
            no_space: false,
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

    /// The newest durable state frames of a group.
    pub fn head(&self, gid: Gid) -> Head {
        self.heads.get(&gid).cloned().unwrap_or_default()
    }

    /// Files that lie on the disk.
    pub fn file_count(&self) -> usize {
        self.files.iter().filter(|f| f.state != FileState::Gone).count()
    }

    /// Bytes of flushes whose entries are not all known durable in segments.
    pub fn lag_bytes(&self) -> u64 {
        self.files.iter().map(File::lag_bytes).sum()
    }

    /// How many groups, and how often, each list here names.
    #[cfg(test)]
    pub(crate) fn names_groups(&self) -> Vec<(&'static str, usize)> {
        let pins = self.files.iter().map(|f| f.pins.len()).sum();
        vec![("journal heads", self.heads.len()), ("journal pins", pins), ("journal queue", self.queue.len())]
    }

    /// Frames that wait.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// True while an operation is in flight.
    pub fn is_busy(&self) -> bool {
        self.writing.is_some() || self.preparing.is_some()
    }

    /// Sealed, and nothing is to be written.
    fn is_idle(&self) -> bool {
        self.writing.is_none() && self.queue.is_empty() && self.seal_at.is_none()
    }

    fn token(&mut self) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        token
    }

    fn take_in(&mut self, batch: JournalBatch) {
        let gid = batch.gid;
        let first = self.queue.len();
        let mut put = |what| self.queue.push_back(Item { gid, what, tag: None, forwarded: false });
        batch.create.into_iter().for_each(|spec| put(What::Frame(Frame::Create(gid, spec))));
        batch.drop.then_some(Frame::Drop(gid)).into_iter().for_each(|frame| put(What::Frame(frame)));
        batch.truncate_from.into_iter().for_each(|from| put(What::Truncate(from)));
        batch.mark.into_iter().for_each(|mark| put(What::Frame(Frame::Mark(gid, mark))));
        batch.hard.into_iter().for_each(|hard| put(What::Frame(Frame::Hard(gid, hard))));
        batch.snapshot.into_iter().for_each(|snapshot| put(What::Frame(Frame::Snapshot(gid, snapshot))));
        batch.entries.into_iter().for_each(|entry| put(What::Frame(Frame::Entry(gid, entry))));
        if self.queue.len() == first && batch.tag.is_some() {
            // Nothing to write, but its place in the order counts: an impossible truncation stands for it.
            let what = What::Truncate(EntryIndex(u64::MAX));
            self.queue.push_back(Item { gid, what, tag: None, forwarded: false });
        }
        if let Some(last) = self.queue.back_mut().filter(|_| batch.tag.is_some()) {
            last.tag = batch.tag;
        }
    }

    fn pump(&mut self, now: Now, out: &mut Effects<JournalEffect>) {
        if self.stopped || self.closed {
            return;
        }
        if self.is_idle() && now.mono >= self.keep_until {
            self.allowed = self.config.files;
        }
        self.free_files(out);
        self.write_next(now, out);
        self.seal_waits = self.writing.is_none() && self.seal_at.is_some_and(|at| at <= now.mono);
        self.prepare_next(out);
        self.report_use(out);
    }

    fn done(&mut self, now: Now, token: Token, result: Result<DiskDone, DiskError>, out: &mut Effects<JournalEffect>) {
        let done = match result {
            Ok(done) => done,
            Err(_) if mutant!("retry_after_fsync_error") => DiskDone::Done,
            Err(error) if self.found_no_room(token, &error) => {
                self.no_space = true;
                out.push(JournalEffect::NoSpace(error));
                return;
            }
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
                if !seal && self.queue.is_empty() && !mutant!("idle_seal_missing") {
                    self.seal_at = Some(now.mono.plus_millis(SEAL_AFTER_MS));
                }
                if close {
                    self.closed = true;
                    out.push(JournalEffect::Closed(lsn));
                }
            }
        }
    }
}

impl Head {
    /// True if a newest frame of this group lies in a flush up to `last`.
    fn is_within(&self, last: u64) -> bool {
        let hard = self.hard.filter(|_| !mutant!("hard_frame_not_forwarded"));
        let loose = self.loose.filter(|_| !mutant!("mark_frame_not_forwarded"));
        hard.is_some_and(|(_, l)| l <= last || self.unsaid)
            || self.create.as_ref().is_some_and(|(_, l)| *l <= last)
            || loose.is_some_and(|(_, l)| l <= last)
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
                // The newest pin of a group is always younger than what was said drained before it was written.
                let mut placed = false;
                for file in self.files.iter_mut().filter(|f| f.pins.get(&gid).is_some_and(|pin| *pin <= lsn)) {
                    placed |= file.pins.remove(&gid).is_some();
                }
                // The record of its making may have been copied behind its first entries: it has files all the same.
                if let Some(head) = self.heads.get_mut(&gid)
                    && head.create.as_ref().is_some_and(|(_, l)| placed || *l <= lsn)
                {
                    (head.create, head.in_files, head.unsaid) = (None, true, true);
                }
            }
            JournalEvent::Wake => {}
            JournalEvent::SpaceBack => self.no_space = false,
            JournalEvent::Close => self.closing = true,
        }
        self.pump(now, out);
    }

    fn deadline(&self) -> Option<Mono> {
        if self.stopped || self.closed || self.writing.is_some() {
            return None;
        }
        let surplus = self.is_idle() && self.allowed > self.config.files;
        self.seal_at.filter(|_| !self.seal_waits).or(surplus.then_some(self.keep_until))
    }
}

#[cfg(test)]
mod tests;
