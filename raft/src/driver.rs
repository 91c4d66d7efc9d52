//! Threads of one log directory: the journal thread (group commit of all partitions) and the segment writer.
//!
//! Walk: row-change 11/17
//!
//! A partition's shell calls [`LogDir::persist`] under its lock: that queues and wakes, nothing else. Later the journal
//! thread calls [`Replica::handle`] with `Event::Persisted`, the segment writer with `Event::Segmented`. After the first
//! failed write or sync nothing is acknowledged any more ([`LogDir::is_stopped`]); the process must end.

pub mod compaction;
mod cork;
mod journal_thread;
pub mod metrics;
mod open;
mod pace;
mod points;
mod reopen;
mod segment_thread;
mod space;
mod syncs;

use crate::effect::{Event, ReadyNo};
use bytes::Bytes;
use catchwater_base::{Clock, Effects, Mono, crash_point, log};
use catchwater_record::{EntryIndex, Gid, NodeId, Offset};
use catchwater_runtime::thread::{Answer, Condvar, JoinHandle, Mutex, MutexGuard};
use catchwater_runtime::time::SystemClock;
use catchwater_storage::disk::{Disk, DiskDone, DiskError, DiskFault, DiskOp, Identity};
use catchwater_storage::format::slot::{BootState, Side};
use catchwater_storage::journal::{JournalBatch, JournalEvent, JournalPoint, Token};
pub use catchwater_storage::read::{ReadError, read_batches, read_batches_hot};
use catchwater_storage::recover::{Layout, Report, Survivor, write_boot_state};
pub use catchwater_storage::relaxed::{Durability, Window};
use catchwater_storage::relaxed::{Relaxed, RelaxedEffect, RelaxedEvent};
pub use catchwater_storage::segment::SegmentLimits;
use catchwater_storage::segment::{FoundGroup, SegmentEvent};
use catchwater_storage::{FileRead, GroupSpec, Hard, NewEntry, RecoveredGroup};
pub use cork::Cork;
pub use reopen::ReopenError;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

/// A replica as its log directory's threads see it. Implemented by the broker's partition: lock, `GroupCore::handle`,
/// perform the effects, complete waiters. Called from the driver's threads, never while they hold a lock of their own,
/// so an implementation may call [`LogDir::persist`] from inside.
pub trait Replica: Send + Sync {
    fn handle(&self, event: Event);

    /// `Log::snapshot_payload`: state at a committed index, for `.snap`. Asked at a roll, now and then, and at close.
    fn snapshot(&self) -> Option<(EntryIndex, Offset, Bytes)> {
        None
    }
}

/// The largest batch there is, bytes: what a reader of the journal accepts.
pub const BATCH_BYTES_MAX: u64 = catchwater_storage::format::journal::BODY_BYTES_MAX as u64;

/// How a log directory is kept. Every figure is a bound.
#[derive(Clone, Debug)]
pub struct LogDirConfig {
    pub path: PathBuf,
    /// Used when the directory is made; afterwards the stored one counts.
    pub node_id: NodeId,
    /// Refuse a directory of another cluster or node.
    pub expect_cluster: Option<[u8; 16]>,
    pub expect_node: Option<NodeId>,
    /// Also on a network filesystem or FUSE, where a sync may promise more than it keeps.
    pub allow_unsafe_filesystem: bool,
    /// Length of one journal file, bytes, a multiple of 4096. A batch that is longer makes one as long as it needs.
    pub journal_file_bytes: u64,
    /// The largest batch, bytes; [`BATCH_BYTES_MAX`] at most.
    pub batch_bytes_max: u64,
    /// Journal files at start; the first is made before the directory is ready, the others behind it.
    pub journal_files: u32,
    /// Journal files at most.
    pub journal_files_max: u32,
    /// A segment is rolled before it grows beyond this many bytes (topic setting `segment.bytes`; this is the default).
    pub segment_bytes: u32,
    /// A segment is rolled when its first entry is older, ms.
    pub segment_ms: u64,
    /// Bytes of entries that are journaled but not yet in segments, for the whole directory, before producers are slowed.
    pub unplaced_bytes_max: u64,
    /// A clean stop takes at most so long for bringing the journal into segments, ms; the rest stays in the journal and
    /// is read from there at the next start.
    pub close_ms_max: u64,
    /// Below so many free bytes producing is refused. `None`: 2 GiB, or 5 % of the filesystem (8 GiB at most), or twice
    /// the journal at its largest, whichever is most. Default here: 64 MiB; the node's configuration says `None`.
    pub min_free_bytes: Option<u64>,
    /// A file that is given up when the disk is full, so that manifests and removals still fit, bytes; 0 = none.
    pub reserve_bytes: u64,
}

impl Default for LogDirConfig {
    fn default() -> Self {
        LogDirConfig {
            path: PathBuf::from("data"),
            node_id: NodeId(1),
            expect_cluster: None,
            expect_node: None,
            allow_unsafe_filesystem: false,
            journal_file_bytes: 16 << 20,
            batch_bytes_max: BATCH_BYTES_MAX,
            journal_files: 4,
            journal_files_max: 16,
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3600 * 1000,
            unplaced_bytes_max: 64 << 20,
            close_ms_max: 3000,
            min_free_bytes: Some(64 << 20),
            reserve_bytes: 16 << 20,
        }
    }
}

/// Randomness for the ids of a new directory: 32 bytes from the operating system, or from a test's seed.
#[derive(Clone, Copy, Debug)]
pub struct IdentitySeed {
    /// The cluster this node founds, if the directory is new.
    pub cluster_id: [u8; 16],
    pub dir_id: [u8; 16],
}

/// What was found when the directory was opened.
#[derive(Debug)]
pub struct Opened {
    pub cluster_id: [u8; 16],
    pub node_id: NodeId,
    pub dir_id: [u8; 16],
    /// The directory was made just now.
    pub fresh: bool,
    /// How the last process ended.
    pub survivor: Survivor,
    pub report: Report,
    /// Every replica, ascending by gid. Attach each before it persists.
    pub groups: Vec<RecoveredGroup>,
}

/// Whether producers should wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Pressure {
    #[default]
    None,
    /// Delay produce requests.
    Slow,
    /// Let them wait: the journal has no room, or too many bytes wait for the segment writer.
    Stop,
    /// Refuse them: the disk is full, or nearly.
    Full,
}

/// Why a log directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("another process has the log directory {0}")]
    Locked(String),
    #[error("the log directory {path} cannot be written")]
    NotWritable { path: String, source: DiskError },
    #[error("{path} is not a log directory of this version: {why}")]
    Format { path: String, why: String },
    #[error("{path} was written in format {found}, this version reads up to {known}")]
    Newer { path: String, found: u32, known: u32 },
    #[error("{path} lies on {kind}")]
    Filesystem { path: String, kind: &'static str },
    /// The directory's own identity is not the one that was asked for.
    #[error("{path} belongs to {found}, not to {wanted}")]
    Foreign { path: String, found: String, wanted: String },
    #[error("the disk failed while the log directory was opened")]
    Disk(#[from] DiskError),
    #[error("no thread could be started")]
    Thread(#[from] std::io::Error),
}

/// The log directory has stopped for good: a write or a sync failed, and what the disk holds is not known any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log directory has stopped and acknowledges nothing more: {source}")]
pub struct DirError {
    pub source: DiskError,
}

/// One log directory; clones share it. When the last clone is dropped without [`LogDir::close`] the threads end as if the
/// process had been killed: nothing more is flushed, nothing more is acknowledged.
#[derive(Clone)]
pub struct LogDir {
    inner: Arc<Inner>,
    _end: Arc<EndThreads>,
}

struct Inner {
    disk: Arc<dyn Disk>,
    layout: Layout,
    clock: SystemClock,
    unplaced_bytes_max: u64,
    batch_bytes_max: u64,
    /// A batch above it may want a journal file of its own.
    large_bytes: u64,
    journal: Mutex<JournalInbox>,
    journal_wake: Condvar,
    segments: Mutex<SegmentInbox>,
    segments_wake: Condvar,
    syncs: Mutex<syncs::Syncs>,
    syncs_wake: Condvar,
    replicas: Mutex<BTreeMap<Gid, Slot>>,
    stopped: Mutex<Option<DirError>>,
    on_stop: Mutex<Option<StopHook>>,
    /// End the threads at once.
    abandoned: AtomicBool,
    journal_used_percent: AtomicU8,
    /// Bytes handed to `persist` that are not durable yet.
    waiting_bytes: AtomicU64,
    /// Bytes that are durable and not in segments yet.
    unplaced_bytes: AtomicU64,
    /// Files wait to be removed.
    segments_due: AtomicBool,
    reopening: Mutex<reopen::Reopening>,
    /// How often each group was opened again.
    opened: Mutex<BTreeMap<Gid, u64>>,
    /// Groups that stay closed, as they are on the disk: the segment writer does not know them.
    shut: Mutex<BTreeMap<Gid, GroupSpec>>,
    /// Who waits for the switch of a group.
    switches: Mutex<BTreeMap<Gid, Arc<Answer<bool>>>>,
    closed: Mutex<Closed>,
    closed_wake: Condvar,
    boot: Mutex<(u64, Side)>,
    dir_identity: Identity,
    /// Entries in flushes up to here are durable in segments, and `boot.state` says so.
    checkpoint_lsn: AtomicU64,
    /// The newest flush that `boot.state` tells of, or that was found at the start.
    noted_lsn: AtomicU64,
    close_ms_max: u64,
    room: space::Room,
    /// Groups that are relaxed, or on their way. Taken before the two inboxes, never while a replica is called.
    relaxed: Mutex<Relaxed>,
    threads: Mutex<Vec<JoinHandle>>,
}

type StopHook = Box<dyn FnOnce(DirError) + Send>;

#[derive(Default)]
struct JournalInbox {
    /// The thread waits and nobody has woken it yet.
    asleep: bool,
    batches: Vec<JournalBatch>,
    events: Vec<JournalEvent>,
}

#[derive(Default)]
struct SegmentInbox {
    events: Vec<SegmentEvent>,
    /// Entries among the events: since when, and how many bytes. They alone may wait a while.
    entries: Option<(Mono, u64)>,
    /// Somebody waits for one of the events.
    urgent: bool,
    /// Commit indexes, delivered with whatever wakes the thread next.
    committed: BTreeMap<Gid, EntryIndex>,
    /// Journal files to prepare or to remove, where nobody waits for it.
    behind: Vec<(Token, DiskOp, JournalPoint)>,
    /// To be noted in `boot.state`.
    checkpoint: Option<u64>,
    /// The same: the first flush of the newest journal file.
    began: Option<u64>,
    /// Answers to syncs that other threads waited for.
    done: Vec<(Token, Result<DiskDone, DiskError>)>,
    /// Acknowledgements of relaxed groups, in order: their partitions' locks may be held where they are decided.
    acks: Vec<(Gid, u64)>,
}

#[derive(Default)]
struct Closed {
    journal: Option<u64>,
    segments: bool,
}

/// A replica, or what it has missed until it is attached.
enum Slot {
    Waiting(Vec<Event>),
    Attached(Arc<dyn Replica>),
    /// It is being opened again: what concerns the old one is of no interest.
    Closed,
}

struct EndThreads(Weak<Inner>);

impl Drop for EndThreads {
    fn drop(&mut self) {
        if let Some(inner) = self.0.upgrade() {
            inner.abandon();
        }
    }
}

/// A replica that cannot give its snapshot gives none; its shell sees to the rest.
fn snapshot_of(gid: Gid, replica: &dyn Replica) -> Option<(EntryIndex, Offset, Bytes)> {
    catch_unwind(AssertUnwindSafe(|| replica.snapshot())).unwrap_or_else(|_| {
        log!(Error, "partition.panic", "the snapshot of group {gid} panicked");
        None
    })
}

/// A panic of a replica must not take the directory down with it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogDir {
    /// Queues the CREATE frame: durable before the group's first entry. Gives what `Log::open` wants.
    pub fn create(&self, gid: Gid, spec: GroupSpec) -> RecoveredGroup {
        lock(&self.inner.replicas).insert(gid, Slot::Waiting(Vec::new()));
        let files = FoundGroup::fresh(gid, spec.clone());
        self.inner.tell_segments([SegmentEvent::Open(Box::new(files))]);
        self.inner.queue(JournalBatch { gid, create: Some(spec.clone()), ..JournalBatch::default() });
        RecoveredGroup::fresh(gid, spec)
    }

    /// From now on `replica` hears of what this group has persisted; what came before is delivered by this call.
    pub fn attach(&self, gid: Gid, replica: Arc<dyn Replica>) {
        loop {
            let missed = {
                let mut replicas = lock(&self.inner.replicas);
                match replicas.get_mut(&gid) {
                    Some(Slot::Waiting(events)) if !events.is_empty() => std::mem::take(events),
                    _ => {
                        replicas.insert(gid, Slot::Attached(replica));
                        return;
                    }
                }
            };
            missed.into_iter().for_each(|event| replica.handle(event));
        }
    }

    /// The group is gone: its replica hears nothing more, its files go, also those of one that recovery keeps closed.
    pub fn drop_group(&self, gid: Gid) {
        lock(&self.inner.replicas).remove(&gid);
        self.inner.relaxed(RelaxedEvent::Dropped(gid));
        if let Some(spec) = lock(&self.inner.shut).remove(&gid) {
            // Nothing of it but that there is a directory, which has its salvage file at least.
            let files = FoundGroup { made: true, ..FoundGroup::fresh(gid, spec) };
            self.inner.tell_segments([SegmentEvent::Open(Box::new(files))]);
        }
        crash_point!("del.before_frame");
        self.inner.queue(JournalBatch { gid, drop: true, ..JournalBatch::default() });
    }

    /// Performs `Effect::Persist`. Called under the partition's lock: queues, and wakes the journal thread now or, under a
    /// [`Cork`] of this thread, at its end.
    pub fn persist(
        &self,
        gid: Gid,
        ready: ReadyNo,
        entries: Vec<NewEntry>,
        hard: Option<Hard>,
        truncate_from: Option<EntryIndex>,
    ) {
        let bytes: u64 = entries.iter().map(|e| e.body.len() as u64).sum();
        let waiting = self.inner.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let tag = Some(ready.0);
        let batch = JournalBatch { gid, tag, truncate_from, hard, entries, ..JournalBatch::default() };
        // Held until the batch is queued: a change of the mode comes wholly before it or wholly behind.
        let mut relaxed = lock(&self.inner.relaxed);
        if relaxed.owns(gid) {
            self.inner.relaxed_with(&mut relaxed, RelaxedEvent::Persist(batch));
        } else if batch.truncate_from.is_none() && cork::is_held(&self.inner, waiting) {
            lock(&self.inner.journal).batches.push(batch);
        } else {
            self.inner.journal_batch(batch);
        }
    }

    /// `storage.durability` of a group; may change at any time. Until it has changed, what is appended waits.
    pub fn set_durability(&self, gid: Gid, durability: Durability) {
        self.inner.relaxed(RelaxedEvent::Want(gid, durability));
    }

    /// Performs the storage part of `Effect::Commit`: a rolled segment may be sealed once its last entry is committed.
    /// Wakes nobody.
    pub fn committed(&self, gid: Gid, upto: EntryIndex) {
        lock(&self.inner.segments).committed.insert(gid, upto);
    }

    /// Everything below is gone for readers (a committed logstart entry): whole segments below it are removed.
    /// `snap` = [`Replica::snapshot`] of now, if there is state: durable before anything goes, since what goes may be all that
    /// tells of a producer or a capture.
    pub fn trim(&self, gid: Gid, log_start: Offset, snap: Option<(EntryIndex, Offset, Bytes)>) {
        crash_point!("trim.before_commit");
        self.inner.tell_segments([SegmentEvent::Trim(gid, log_start, snap)]);
        crash_point!("trim.after_commit");
    }

    /// Bounds of one group's segments (topic settings).
    pub fn set_segment_limits(&self, gid: Gid, limits: SegmentLimits) {
        self.inner.tell_segments([SegmentEvent::Limits(gid, limits)]);
    }

    /// A tick of the node's clock: files whose time has come are removed. Costs nothing while there are none.
    pub fn tick(&self) {
        if self.inner.segments_due.load(Ordering::Relaxed) {
            self.inner.tell_segments([SegmentEvent::Wake]);
        }
    }

    /// The largest batch this directory takes, bytes.
    pub fn batch_bytes_max(&self) -> u64 {
        self.inner.batch_bytes_max
    }

    /// A batch of so many bytes may find no room on the disk: less than a long journal file needs is free above the floor.
    /// It would stand at the front of the journal's queue, and what makes room (a log start that moves) behind it.
    pub fn lacks_room_for(&self, bytes: usize) -> bool {
        let large = self.inner.large_bytes;
        let file = (bytes as u64).saturating_add(8 * large);
        bytes as u64 > large && file > self.inner.room.above_floor()
    }

    /// Whole batches, each checked against its row and its CRC. Blocks on the disk: not on a runtime thread unless the
    /// caller accepts a page-cache read.
    pub fn read(&self, read: &FileRead) -> Result<Bytes, ReadError> {
        read_batches(&*self.inner.disk, &self.inner.layout, read)
    }

    /// The same without waiting for the device: `None` if not all of it is in memory.
    pub fn read_hot(&self, read: &FileRead) -> Option<Result<Bytes, ReadError>> {
        read_batches_hot(&*self.inner.disk, &self.inner.layout, read)
    }

    pub fn pressure(&self) -> Pressure {
        let inner = &*self.inner;
        let used = inner.journal_used_percent.load(Ordering::Relaxed);
        let waiting = inner.waiting_bytes.load(Ordering::Relaxed);
        let unplaced = inner.unplaced_bytes.load(Ordering::Relaxed);
        let most = waiting.max(unplaced);
        if inner.room.is_out() {
            Pressure::Full
        } else if used >= 90 || most > inner.unplaced_bytes_max {
            Pressure::Stop
        } else if used >= 75 || most > inner.unplaced_bytes_max / 2 {
            Pressure::Slow
        } else {
            Pressure::None
        }
    }

    /// Set once a write or sync has failed.
    pub fn is_stopped(&self) -> Option<DirError> {
        self.inner.stopped_error()
    }

    /// Calls `hook` when the directory stops (at once if it has). One hook; a later one replaces it.
    pub fn on_stop(&self, hook: impl FnOnce(DirError) + Send + 'static) {
        let stopped = lock(&self.inner.stopped).clone();
        match stopped {
            Some(error) => hook(error),
            None => *lock(&self.inner.on_stop) = Some(Box::new(hook)),
        }
    }

    /// Flushes, brings everything into segments, asks each replica for its snapshot, sets the clean flag, joins the
    /// threads. Not from a replica's `handle`. After a failure nothing is flushed, only the threads end.
    pub fn close(self) {
        let inner = &*self.inner;
        {
            lock(&inner.journal).events.push(JournalEvent::Close);
            inner.journal_wake.notify_one();
        }
        let last_lsn = inner.wait_journal_closed();
        if last_lsn.is_some() {
            let replicas: Vec<(Gid, Arc<dyn Replica>)> = lock(&inner.replicas)
                .iter()
                .filter_map(|(gid, slot)| match slot {
                    Slot::Attached(replica) => Some((*gid, replica.clone())),
                    Slot::Waiting(_) | Slot::Closed => None,
                })
                .collect();
            let snaps = replicas.into_iter().filter_map(|(gid, replica)| {
                let (index, offset, payload) = snapshot_of(gid, &*replica)?;
                Some(SegmentEvent::Snap(gid, index, offset, payload))
            });
            let mut events: Vec<SegmentEvent> = snaps.collect();
            events.push(SegmentEvent::Close);
            inner.tell_segments(events);
        }
        if let Some(lsn) = last_lsn {
            let limit = Duration::from_millis(inner.close_ms_max);
            let all = inner.wait_closed(limit, |closed| closed.segments.then_some(lsn));
            inner.end_threads();
            // With `all`, every entry up to the last flush is durable in segments; else what was noted last.
            let state = BootState {
                boot_id: inner.dir_identity.boot_id,
                mount_id: inner.dir_identity.mount_id,
                last_lsn: lsn,
                checkpoint_lsn: all.unwrap_or(inner.checkpoint_lsn.load(Ordering::SeqCst)),
                clean: inner.stopped_error().is_none(),
            };
            crash_point!("boot.before_clean");
            let boot = *lock(&inner.boot);
            // A failure here costs a longer start, nothing else.
            if let Ok(next) = write_boot_state(&*inner.disk, &inner.layout, boot, state) {
                *lock(&inner.boot) = next;
            }
            crash_point!("boot.after_clean");
        }
        self.end();
    }

    /// Ends the threads as `kill -9` would, as far as the disk is concerned; for tests and for a stopped directory.
    pub fn abandon(self) {
        self.end();
    }

    fn end(&self) {
        self.inner.end_threads();
        // Replicas hold handles of this directory: the circle ends here.
        let replicas = std::mem::take(&mut *lock(&self.inner.replicas));
        drop(replicas);
        let _ = self.inner.disk.run(DiskOp::Unlock { path: self.inner.layout.root.as_str().into() });
    }
}

impl Inner {
    fn journal_batch(&self, batch: JournalBatch) {
        if batch.truncate_from.is_some() {
            self.tell_segments([SegmentEvent::CutComing(batch.gid)]);
        }
        self.queue(batch);
    }

    fn relaxed(&self, event: RelaxedEvent) {
        self.relaxed_with(&mut lock(&self.relaxed), event);
    }

    /// Hands the event in and performs what comes out, all but the acknowledgements: the segment writer tells those.
    fn relaxed_with(&self, relaxed: &mut Relaxed, event: RelaxedEvent) {
        let mut out = Effects::new();
        relaxed.handle(self.clock.now(), event, &mut out);
        let mut acks = Vec::new();
        for effect in out.drain() {
            match effect {
                RelaxedEffect::Journal(batch) => self.journal_batch(batch),
                RelaxedEffect::Segment(piece) => {
                    let cut = piece.truncate_from.map(|_| SegmentEvent::CutComing(piece.gid));
                    self.tell_segments(cut.into_iter().chain([SegmentEvent::Queue(vec![*piece])]));
                }
                RelaxedEffect::Mode(gid, on) => self.tell_segments([SegmentEvent::Mode(gid, on)]),
                RelaxedEffect::Flush { gid, all } => self.tell_segments([SegmentEvent::Flush { gid, all }]),
                RelaxedEffect::Forgotten(bytes) => drop(self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed)),
                RelaxedEffect::Persisted { gid, tag, bytes } => {
                    self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
                    acks.push((gid, tag));
                }
            }
        }
        if !acks.is_empty() {
            lock(&self.segments).acks.extend(acks);
            self.segments_wake.notify_one();
        }
    }

    fn queue(&self, batch: JournalBatch) {
        let asleep = {
            let mut inbox = lock(&self.journal);
            inbox.batches.push(batch);
            std::mem::take(&mut inbox.asleep)
        };
        // A wake of somebody awake is a system call all the same, and most batches come during a flush.
        if asleep {
            self.journal_wake.notify_one();
        }
    }

    /// The end of a [`Cork`]: the thread is woken if it sleeps over batches.
    fn wake_journal_for_batches(&self) {
        let asleep = {
            let mut inbox = lock(&self.journal);
            !inbox.batches.is_empty() && std::mem::take(&mut inbox.asleep)
        };
        if asleep {
            self.journal_wake.notify_one();
        }
    }

    fn tell_journal(&self, event: JournalEvent) {
        lock(&self.journal).events.push(event);
        self.journal_wake.notify_one();
    }

    fn tell_segments(&self, events: impl IntoIterator<Item = SegmentEvent>) {
        let mut inbox = lock(&self.segments);
        inbox.events.extend(events);
        inbox.urgent = true;
        drop(inbox);
        self.segments_wake.notify_one();
    }

    fn abandon(&self) {
        self.abandoned.store(true, Ordering::SeqCst);
        // The locks are taken so that no thread misses the wake between its check and its wait.
        drop(lock(&self.journal));
        self.journal_wake.notify_all();
        drop(lock(&self.segments));
        self.segments_wake.notify_all();
        drop(lock(&self.syncs));
        self.syncs_wake.notify_all();
        drop(lock(&self.closed));
        self.closed_wake.notify_all();
    }

    fn end_threads(&self) {
        self.abandon();
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            // A panic of ours in there has been reported by the panic hook already.
            let _ = thread.join();
        }
    }

    fn stopped_error(&self) -> Option<DirError> {
        lock(&self.stopped).clone()
    }

    fn is_over(&self) -> bool {
        self.abandoned.load(Ordering::SeqCst)
    }

    /// The body of a thread. Should it panic, the directory stops: what the thread had begun nobody finishes, and a node that
    /// stands and says nothing is worse than one that starts again.
    fn or_stop(&self, op: &'static str, body: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(body)).is_err() {
            self.stop(DiskError { op, path: self.layout.root.as_str().into(), kind: DiskFault::Panic });
        }
    }

    /// Nothing is acknowledged any more, by any thread.
    fn stop(&self, source: DiskError) {
        let error = DirError { source };
        {
            let mut stopped = lock(&self.stopped);
            if stopped.is_some() {
                return;
            }
            *stopped = Some(error.clone());
            // Before it is said: what the log line's time leaves behind is acknowledged by nobody.
            self.abandoned.store(true, Ordering::SeqCst);
        }
        metrics::DISK_OFFLINE.set(1);
        log!(Error, "disk.failed", "CW0012 {error}");
        if let Some(hook) = lock(&self.on_stop).take() {
            hook(error);
        }
        self.abandon();
    }

    /// `None` also if the journal waits for room on a full disk, which may never come: what it still holds was never
    /// acknowledged, and the next start takes this end for a death.
    fn wait_journal_closed(&self) -> Option<u64> {
        let limit = Duration::from_millis(self.close_ms_max);
        loop {
            let closed = self.wait_closed(limit, |closed| closed.journal);
            if closed.is_some() || self.is_over() || self.room.is_out() {
                return closed;
            }
        }
    }

    fn wait_closed(&self, limit: Duration, what: impl Fn(&Closed) -> Option<u64>) -> Option<u64> {
        let mut closed = lock(&self.closed);
        let start = self.clock.now().mono;
        loop {
            if let Some(found) = what(&closed) {
                return Some(found);
            }
            if self.is_over() {
                return None;
            }
            let left = limit.saturating_sub(self.clock.now().mono.since(start));
            if left.is_zero() {
                return None;
            }
            closed = self.closed_wake.wait_timeout(closed, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Tells a replica, or keeps it for the one that comes.
    fn deliver(&self, gid: Gid, event: Event) {
        let replica = match lock(&self.replicas).get_mut(&gid) {
            None | Some(Slot::Closed) => return,
            Some(Slot::Waiting(events)) => {
                events.push(event);
                return;
            }
            Some(Slot::Attached(replica)) => replica.clone(),
        };
        // The group's own guard handles a panic of the core; one of its shell must not stop the other groups' flushes.
        if catch_unwind(AssertUnwindSafe(|| replica.handle(event))).is_err() {
            log!(
                Error,
                "partition.panic",
                "the shell of group {gid} panicked: it hears nothing more until the next start"
            );
            lock(&self.replicas).remove(&gid);
        }
    }

    fn run(&self, op: DiskOp) -> Result<DiskDone, DiskError> {
        self.disk.run(op)
    }
}
