//! Threads of one log directory: the journal thread (group commit of all partitions) and the segment writer.
//!
//! Walk: row-change 11/17
//!
//! A partition's shell calls [`LogDir::persist`] under its lock: that queues and wakes, nothing else. Later the journal
//! thread calls [`Replica::handle`] with `Event::Persisted`, the segment writer with `Event::Segmented`. After the first
//! failed write or sync nothing is acknowledged any more ([`LogDir::is_stopped`]); the process must end.

use crate::effect::{Event, ReadyNo};
use bytes::Bytes;
use catchwater_base::{Clock, Effects, Local, Mono, crash_point};
use catchwater_record::{EntryIndex, Gid, NodeId, Offset};
use catchwater_runtime::thread;
use catchwater_runtime::time::SystemClock;
use catchwater_storage::disk::{Disk, DiskDone, DiskError, DiskExt, DiskFault, DiskOp, Identity};
use catchwater_storage::format::slot::{BootState, Side};
use catchwater_storage::journal::{
    Journal, JournalBatch, JournalConfig, JournalEffect, JournalEvent, JournalPoint, Lane, Token,
};
pub use catchwater_storage::read::{ReadError, read_range};
use catchwater_storage::recover::{
    Layout, NewIdentity, RecoverError, Recovered, Report, Survivor, quarantine, recover, settle, write_boot_state,
};
use catchwater_storage::segment::{FoundGroup, SegmentConfig, SegmentEffect, SegmentEvent, SegmentPoint, Segments};
use catchwater_storage::{FileRange, GroupSpec, Hard, NewEntry, RecoveredGroup};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
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

/// How a log directory is kept. Every figure is a bound.
#[derive(Clone, Debug)]
pub struct LogDirConfig {
    pub path: PathBuf,
    /// Used when the directory is made; afterwards the stored one counts.
    pub node_id: NodeId,
    /// Length of one journal file, bytes, a multiple of 4096. The largest batch is a quarter of it.
    pub journal_file_bytes: u64,
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
}

impl Default for LogDirConfig {
    fn default() -> Self {
        LogDirConfig {
            path: PathBuf::from("data"),
            node_id: NodeId(1),
            journal_file_bytes: 16 << 20,
            journal_files: 4,
            journal_files_max: 16,
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3600 * 1000,
            unplaced_bytes_max: 64 << 20,
            close_ms_max: 3000,
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
    /// Refuse them: the journal has no room, or too many bytes wait for the segment writer.
    Stop,
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
    #[error("the disk failed while the log directory was opened")]
    Disk(#[from] DiskError),
    #[error("no thread could be started")]
    Thread(#[from] std::io::Error),
}

/// The log directory has stopped for good: a write or a sync failed, and what the disk holds is not known any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log directory has stopped and acknowledges nothing more")]
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
    body_bytes_max: u64,
    journal: Mutex<JournalInbox>,
    journal_wake: Condvar,
    segments: Mutex<SegmentInbox>,
    segments_wake: Condvar,
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
    closed: Mutex<Closed>,
    closed_wake: Condvar,
    boot: Mutex<(u64, Side)>,
    dir_identity: Identity,
    /// Entries in flushes up to here are durable in segments, and `boot.state` says so.
    checkpoint_lsn: AtomicU64,
    /// The last flush that was found at the start.
    found_lsn: u64,
    close_ms_max: u64,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

type StopHook = Box<dyn FnOnce(DirError) + Send>;

#[derive(Default)]
struct JournalInbox {
    batches: Vec<JournalBatch>,
    events: Vec<JournalEvent>,
}

#[derive(Default)]
struct SegmentInbox {
    events: Vec<SegmentEvent>,
    /// Commit indexes, delivered with whatever wakes the thread next.
    committed: BTreeMap<Gid, EntryIndex>,
    /// Journal files to prepare or to remove, where nobody waits for it.
    behind: Vec<(Token, DiskOp, JournalPoint)>,
    /// To be noted in `boot.state`.
    checkpoint: Option<u64>,
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
}

struct EndThreads(Weak<Inner>);

impl Drop for EndThreads {
    fn drop(&mut self) {
        if let Some(inner) = self.0.upgrade() {
            inner.abandon();
        }
    }
}

/// A panic of a replica must not take the directory down with it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogDir {
    /// Takes the directory (or makes it), recovers it, starts its threads. Blocking: call it before the runtime serves.
    pub fn open(disk: Arc<dyn Disk>, config: LogDirConfig, seed: IdentitySeed) -> Result<(LogDir, Opened), OpenError> {
        let layout = Layout::new(config.path.display().to_string());
        let new = NewIdentity { cluster_id: seed.cluster_id, dir_id: seed.dir_id, node: config.node_id.0 };
        let found = recover(&*disk, &layout, new).map_err(open_error)?;
        match Self::start(disk.clone(), config, layout.clone(), found) {
            Ok(opened) => Ok(opened),
            Err(error) => {
                let _ = disk.run(DiskOp::Unlock { path: layout.root.as_str().into() });
                Err(error)
            }
        }
    }

    fn start(
        disk: Arc<dyn Disk>,
        config: LogDirConfig,
        layout: Layout,
        found: Recovered,
    ) -> Result<(LogDir, Opened), OpenError> {
        let clock = SystemClock::default();
        // The clean flag goes before the first write: from here on a death is a death.
        crash_point!("boot.before_clear");
        let running = BootState {
            boot_id: found.identity.boot_id,
            mount_id: found.identity.mount_id,
            last_lsn: found.journal.last_lsn,
            checkpoint_lsn: found.checkpoint_lsn,
            clean: false,
        };
        let boot = write_boot_state(&*disk, &layout, found.boot, running)?;
        crash_point!("boot.after_clear");
        settle(&*disk, &layout, &found.leftovers, &found.journal.free)?;
        // A write that the process before did not see return counts from now on: it must last.
        if let Some(newest) = found.journal.live.last() {
            disk.fdatasync(&newest.path)?;
        }
        quarantine(&*disk, &layout, &found.groups)?;

        let journal_config = JournalConfig {
            dir: layout.journal(),
            dir_id: found.meta.dir_id,
            file_bytes: config.journal_file_bytes.max(64 << 10) / 4096 * 4096,
            files: config.journal_files.max(2) as usize,
            files_max: config.journal_files_max.max(config.journal_files).max(2) as usize,
            buffer_bytes: usize::try_from((config.journal_file_bytes / 4).min(4 << 20)).unwrap_or(4 << 20),
        };
        let mut segment_config = SegmentConfig::new(layout.groups());
        segment_config.segment_bytes = config.segment_bytes;
        segment_config.segment_ms = config.segment_ms;
        let (files, found_lsn) = (journal_config.files, found.journal.last_lsn);
        let mut journal = Journal::open(journal_config, found.journal);
        let mut segments = Segments::new(segment_config);

        let mut groups = Vec::with_capacity(found.groups.len());
        let mut replicas = BTreeMap::new();
        let mut inbox = SegmentInbox::default();
        for (group, files) in found.groups {
            replicas.insert(group.gid, Slot::Waiting(Vec::new()));
            if files.quarantine.is_none() {
                inbox.events.push(SegmentEvent::Open(Box::new(files)));
            }
            groups.push(group);
        }
        let inner = Arc::new(Inner {
            disk,
            layout,
            clock,
            unplaced_bytes_max: config.unplaced_bytes_max,
            body_bytes_max: journal.body_bytes_max(),
            journal: Mutex::new(JournalInbox { batches: Vec::new(), events: vec![JournalEvent::Wake] }),
            journal_wake: Condvar::new(),
            segments: Mutex::new(inbox),
            segments_wake: Condvar::new(),
            replicas: Mutex::new(replicas),
            stopped: Mutex::new(None),
            on_stop: Mutex::new(None),
            abandoned: AtomicBool::new(false),
            journal_used_percent: AtomicU8::new(0),
            waiting_bytes: AtomicU64::new(0),
            unplaced_bytes: AtomicU64::new(0),
            closed: Mutex::new(Closed::default()),
            closed_wake: Condvar::new(),
            boot: Mutex::new(boot),
            dir_identity: found.identity,
            checkpoint_lsn: AtomicU64::new(found.checkpoint_lsn),
            found_lsn,
            close_ms_max: config.close_ms_max,
            threads: Mutex::new(Vec::new()),
        });
        let dir = LogDir { inner: inner.clone(), _end: Arc::new(EndThreads(Arc::downgrade(&inner))) };
        catch_up(&inner, &mut journal, &mut segments, files);
        if let Some(stopped) = inner.stopped_error() {
            return Err(OpenError::Disk(stopped.source));
        }
        let shared = inner.clone();
        let journal_thread = thread::spawn("cw-journal", move || run_journal(&shared, journal))?;
        lock(&inner.threads).push(journal_thread);
        let shared = inner.clone();
        let segment_thread = thread::spawn("cw-segment", move || run_segments(&shared, &mut segments))?;
        lock(&inner.threads).push(segment_thread);
        let opened = Opened {
            cluster_id: found.meta.cluster_id,
            node_id: NodeId(found.meta.node),
            dir_id: found.meta.dir_id,
            fresh: found.survivor == Survivor::Fresh,
            survivor: found.survivor,
            report: found.report,
            groups,
        };
        Ok((dir, opened))
    }

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

    /// The group is gone: its replica hears nothing more, its files go.
    pub fn drop_group(&self, gid: Gid) {
        lock(&self.inner.replicas).remove(&gid);
        self.inner.queue(JournalBatch { gid, drop: true, ..JournalBatch::default() });
    }

    /// Performs `Effect::Persist`. Called under the partition's lock: queues and wakes the journal thread.
    pub fn persist(
        &self,
        gid: Gid,
        ready: ReadyNo,
        entries: Vec<NewEntry>,
        hard: Option<Hard>,
        truncate_from: Option<EntryIndex>,
    ) {
        let bytes: u64 = entries.iter().map(|e| e.body.len() as u64).sum();
        self.inner.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        if truncate_from.is_some() {
            self.inner.tell_segments([SegmentEvent::CutComing(gid)]);
        }
        self.inner.queue(JournalBatch {
            gid,
            tag: Some(ready.0),
            create: None,
            drop: false,
            truncate_from,
            hard,
            entries,
        });
    }

    /// Performs the storage part of `Effect::Commit`: a rolled segment may be sealed once its last entry is committed.
    /// Wakes nobody.
    pub fn committed(&self, gid: Gid, upto: EntryIndex) {
        lock(&self.inner.segments).committed.insert(gid, upto);
    }

    /// Everything below is gone for readers (a committed logstart entry): whole segments below it are removed.
    pub fn trim(&self, gid: Gid, log_start: Offset) {
        self.inner.tell_segments([SegmentEvent::Trim(gid, log_start)]);
    }

    /// Bounds of one group's segments (topic settings).
    pub fn set_segment_limits(&self, gid: Gid, segment_bytes: u32, segment_ms: u64) {
        self.inner.tell_segments([SegmentEvent::Limits { gid, segment_bytes, segment_ms }]);
    }

    /// The largest batch this directory takes, bytes: a quarter of a journal file.
    pub fn batch_bytes_max(&self) -> u64 {
        self.inner.body_bytes_max
    }

    /// Whole batches, each checked against its row and its CRC. Blocks on the disk: not on a runtime thread unless the
    /// caller accepts a page-cache read.
    pub fn read(&self, ranges: &[FileRange]) -> Result<Vec<Bytes>, ReadError> {
        ranges.iter().map(|range| read_range(&*self.inner.disk, &self.inner.layout, range)).collect()
    }

    pub fn pressure(&self) -> Pressure {
        let inner = &*self.inner;
        let used = inner.journal_used_percent.load(Ordering::Relaxed);
        let waiting = inner.waiting_bytes.load(Ordering::Relaxed);
        let unplaced = inner.unplaced_bytes.load(Ordering::Relaxed);
        let most = waiting.max(unplaced);
        if used >= 90 || most > inner.unplaced_bytes_max {
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
        let last_lsn = inner.wait_closed(Duration::MAX, |closed| closed.journal);
        if last_lsn.is_some() {
            let replicas: Vec<(Gid, Arc<dyn Replica>)> = lock(&inner.replicas)
                .iter()
                .filter_map(|(gid, slot)| match slot {
                    Slot::Attached(replica) => Some((*gid, replica.clone())),
                    Slot::Waiting(_) => None,
                })
                .collect();
            let snaps = replicas.into_iter().filter_map(|(gid, replica)| {
                let (index, offset, payload) = replica.snapshot()?;
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

fn open_error(error: RecoverError) -> OpenError {
    match error {
        RecoverError::Locked(path) => OpenError::Locked(path),
        RecoverError::Format { path, why } => OpenError::Format { path, why: why.to_owned() },
        RecoverError::Disk(source) if source.kind == DiskFault::Denied => {
            OpenError::NotWritable { path: source.path.to_string(), source }
        }
        RecoverError::Disk(source) => OpenError::Disk(source),
    }
}

impl Inner {
    fn queue(&self, batch: JournalBatch) {
        lock(&self.journal).batches.push(batch);
        self.journal_wake.notify_one();
    }

    fn tell_journal(&self, event: JournalEvent) {
        lock(&self.journal).events.push(event);
        self.journal_wake.notify_one();
    }

    fn tell_segments(&self, events: impl IntoIterator<Item = SegmentEvent>) {
        lock(&self.segments).events.extend(events);
        self.segments_wake.notify_one();
    }

    fn abandon(&self) {
        self.abandoned.store(true, Ordering::SeqCst);
        // The locks are taken so that no thread misses the wake between its check and its wait.
        drop(lock(&self.journal));
        self.journal_wake.notify_all();
        drop(lock(&self.segments));
        self.segments_wake.notify_all();
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

    /// Nothing is acknowledged any more, by any thread.
    fn stop(&self, source: DiskError) {
        let error = DirError { source };
        {
            let mut stopped = lock(&self.stopped);
            if stopped.is_some() {
                return;
            }
            *stopped = Some(error.clone());
        }
        if let Some(hook) = lock(&self.on_stop).take() {
            hook(error);
        }
        self.abandon();
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
            closed = match limit {
                Duration::MAX => self.closed_wake.wait(closed).unwrap_or_else(PoisonError::into_inner),
                _ => self.closed_wake.wait_timeout(closed, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    /// Tells a replica, or keeps it for the one that comes.
    fn deliver(&self, gid: Gid, event: Event) {
        let replica = match lock(&self.replicas).get_mut(&gid) {
            None => return, // dropped
            Some(Slot::Waiting(events)) => {
                events.push(event);
                return;
            }
            Some(Slot::Attached(replica)) => replica.clone(),
        };
        // The group's own guard handles a panic of the core; one of its shell must not stop the other groups' flushes.
        if catch_unwind(AssertUnwindSafe(|| replica.handle(event))).is_err() {
            lock(&self.replicas).remove(&gid);
        }
    }

    fn run(&self, op: DiskOp) -> Result<DiskDone, DiskError> {
        self.disk.run(op)
    }
}

// ---- the journal thread ----

fn run_journal(inner: &Inner, mut journal: Journal) {
    thread::raise_priority();
    let mut out = Effects::new();
    let mut batches = Vec::new();
    let mut events = Vec::new();
    let mut seal_at = journal.deadline();
    while wait_journal(inner, seal_at, &mut batches, &mut events) {
        let now = inner.clock.now();
        if !batches.is_empty() {
            journal.handle(now, JournalEvent::Queue(std::mem::take(&mut batches)), &mut out);
        }
        if events.is_empty() {
            journal.handle(now, JournalEvent::Wake, &mut out);
        }
        for event in events.drain(..) {
            journal.handle(now, event, &mut out);
        }
        perform_all_journal(inner, &mut journal, &mut out);
        seal_at = journal.deadline();
    }
}

fn perform_all_journal(inner: &Inner, journal: &mut Journal, out: &mut Effects<JournalEffect>) {
    while !out.is_empty() {
        let effects: Vec<JournalEffect> = out.drain().collect();
        for effect in effects {
            if inner.is_over() {
                return;
            }
            perform_journal(inner, journal, effect, out);
        }
    }
}

/// Before the threads start, if there are more journal files than configured: lives too short to drain what they found
/// left them, so this one drains before it is ready, until the files are back at their number. Work is noted as it
/// goes: killed in here, the next start goes on where this one ended.
fn catch_up(inner: &Inner, journal: &mut Journal, segments: &mut Segments, files: usize) {
    let (mut journal_out, mut segment_out) = (Effects::new(), Effects::new());
    while journal.file_count() > files && !inner.is_over() {
        let events = std::mem::take(&mut lock(&inner.journal).events);
        let work = lock(&inner.segments).take();
        if events.is_empty() && work.is_none() {
            return; // the rest comes with what is queued later
        }
        let now = inner.clock.now();
        for event in events {
            journal.handle(now, event, &mut journal_out);
        }
        perform_all_journal(inner, journal, &mut journal_out);
        if let Some(work) = work {
            segments_work(inner, segments, work, &mut segment_out);
        }
    }
}

/// Waits for work or for the moment to seal; false = the end.
fn wait_journal(
    inner: &Inner,
    seal_at: Option<Mono>,
    batches: &mut Vec<JournalBatch>,
    events: &mut Vec<JournalEvent>,
) -> bool {
    let mut inbox = lock(&inner.journal);
    loop {
        if inner.is_over() {
            return false;
        }
        if !inbox.batches.is_empty() || !inbox.events.is_empty() {
            std::mem::swap(&mut inbox.batches, batches);
            std::mem::swap(&mut inbox.events, events);
            return true;
        }
        inbox = match seal_at {
            None => inner.journal_wake.wait(inbox).unwrap_or_else(PoisonError::into_inner),
            Some(at) => {
                let left = at.since(inner.clock.now().mono);
                if left.is_zero() {
                    return true;
                }
                inner.journal_wake.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0
            }
        };
    }
}

fn perform_journal(inner: &Inner, journal: &mut Journal, effect: JournalEffect, out: &mut Effects<JournalEffect>) {
    match effect {
        JournalEffect::Disk { token, op, lane: Lane::Behind, point } => {
            lock(&inner.segments).behind.push((token, op, point));
            inner.segments_wake.notify_one();
        }
        JournalEffect::Disk { token, op, lane: Lane::Commit, point } => {
            before_journal(point);
            let result = inner.run(op);
            after_journal(point);
            // What arrived during the write belongs into the next flush, which `Done` starts.
            let batches = std::mem::take(&mut lock(&inner.journal).batches);
            let now = inner.clock.now();
            if !batches.is_empty() {
                journal.handle(now, JournalEvent::Queue(batches), out);
            }
            journal.handle(now, JournalEvent::Done(token, result), out);
        }
        JournalEffect::Persisted(groups) => {
            crash_point!("journal.before_complete");
            let mut pieces = Vec::with_capacity(groups.len());
            let mut told = Vec::with_capacity(groups.len());
            for mut group in groups {
                inner.waiting_bytes.fetch_sub(group.body_bytes, Ordering::Relaxed);
                if let Some(tag) = group.tags.pop() {
                    told.push((group.gid, tag));
                }
                group.tags.clear();
                pieces.push(group);
            }
            // Acknowledgements first; the segment writer is in nobody's way.
            for (gid, tag) in told {
                inner.deliver(gid, Event::Persisted(ReadyNo(tag)));
            }
            crash_point!("journal.after_complete");
            inner.tell_segments([SegmentEvent::Queue(pieces)]);
        }
        JournalEffect::Checkpoint(gids) => inner.tell_segments([SegmentEvent::Sync(gids)]),
        JournalEffect::Checkpointed(lsn) => {
            lock(&inner.segments).checkpoint = Some(lsn);
            inner.segments_wake.notify_one();
        }
        JournalEffect::Used(percent) => inner.journal_used_percent.store(percent, Ordering::Relaxed),
        JournalEffect::Stop(error) => inner.stop(error),
        JournalEffect::Closed(lsn) => {
            lock(&inner.closed).journal = Some(lsn);
            inner.closed_wake.notify_all();
        }
    }
}

// ---- the segment writer ----

fn run_segments(inner: &Inner, segments: &mut Segments) {
    let mut out = Effects::new();
    while let Some(work) = wait_segments(inner) {
        segments_work(inner, segments, work, &mut out);
    }
}

fn segments_work(
    inner: &Inner,
    segments: &mut Segments,
    (events, errands): SegmentWork,
    out: &mut Effects<SegmentEffect>,
) {
    run_errands(inner, errands);
    for event in events {
        segments.handle(inner.clock.now(), event, out);
        inner.unplaced_bytes.store(segments.queued_bytes(), Ordering::Relaxed);
    }
    while !out.is_empty() {
        let effects: Vec<SegmentEffect> = out.drain().collect();
        for effect in effects {
            if inner.is_over() {
                return;
            }
            perform_segment(inner, segments, effect, out);
        }
        // Between two operations: journal files that somebody may soon wait for.
        let errands = lock(&inner.segments).take_errands();
        run_errands(inner, errands);
    }
    inner.unplaced_bytes.store(segments.queued_bytes(), Ordering::Relaxed);
}

/// What this thread does for the journal.
#[derive(Default)]
struct Errands {
    behind: Vec<(Token, DiskOp, JournalPoint)>,
    checkpoint: Option<u64>,
}

type SegmentWork = (Vec<SegmentEvent>, Errands);

impl SegmentInbox {
    fn take_errands(&mut self) -> Errands {
        Errands { behind: std::mem::take(&mut self.behind), checkpoint: self.checkpoint.take() }
    }

    fn take(&mut self) -> Option<SegmentWork> {
        if self.events.is_empty() && self.behind.is_empty() && self.checkpoint.is_none() {
            return None;
        }
        let mut events: Vec<SegmentEvent> = std::mem::take(&mut self.events);
        let committed = std::mem::take(&mut self.committed);
        let at = if matches!(events.last(), Some(SegmentEvent::Close)) { events.len() - 1 } else { events.len() };
        let committed = committed.into_iter().map(|(gid, index)| SegmentEvent::Committed(gid, index));
        events.splice(at..at, committed);
        Some((events, self.take_errands()))
    }
}

fn run_errands(inner: &Inner, errands: Errands) {
    for (token, op, point) in errands.behind {
        if inner.is_over() {
            return;
        }
        before_journal(point);
        let result = inner.run(op);
        after_journal(point);
        inner.tell_journal(JournalEvent::Done(token, result));
    }
    if let Some(lsn) = errands.checkpoint.filter(|lsn| *lsn > inner.checkpoint_lsn.load(Ordering::SeqCst))
        && !inner.is_over()
    {
        note_checkpoint(inner, lsn);
    }
}

/// The next recovery need not replay what is durable in segments, even if the files that held it are still there.
fn note_checkpoint(inner: &Inner, lsn: u64) {
    let state = BootState {
        boot_id: inner.dir_identity.boot_id,
        mount_id: inner.dir_identity.mount_id,
        last_lsn: inner.found_lsn.max(lsn),
        checkpoint_lsn: lsn,
        clean: false,
    };
    let mut boot = lock(&inner.boot);
    crash_point!("ckpt.before_note");
    match write_boot_state(&*inner.disk, &inner.layout, *boot, state) {
        Ok(next) => {
            *boot = next;
            inner.checkpoint_lsn.store(lsn, Ordering::SeqCst);
            crash_point!("ckpt.after_note");
        }
        Err(error) => {
            drop(boot);
            inner.stop(error);
        }
    }
}

fn wait_segments(inner: &Inner) -> Option<SegmentWork> {
    let mut inbox = lock(&inner.segments);
    loop {
        if inner.is_over() {
            return None;
        }
        if let Some(work) = inbox.take() {
            return Some(work);
        }
        inbox = inner.segments_wake.wait(inbox).unwrap_or_else(PoisonError::into_inner);
    }
}

fn perform_segment(inner: &Inner, segments: &mut Segments, effect: SegmentEffect, out: &mut Effects<SegmentEffect>) {
    match effect {
        SegmentEffect::Disk { token, op, point } => {
            before_segment(point);
            let result = inner.run(op);
            after_segment(point);
            segments.handle(inner.clock.now(), SegmentEvent::Done(token, result), out);
        }
        SegmentEffect::Placed(gid, upto, rows) => inner.deliver(gid, Event::Segmented(upto, rows)),
        SegmentEffect::Drained(gid, lsn) => inner.tell_journal(JournalEvent::Drained(gid, lsn)),
        SegmentEffect::WantSnap(gid) => {
            let replica = match lock(&inner.replicas).get(&gid) {
                Some(Slot::Attached(replica)) => replica.clone(),
                _ => return,
            };
            if let Some((index, next_offset, payload)) = replica.snapshot() {
                let event = SegmentEvent::Snap(gid, index, next_offset, payload);
                segments.handle(inner.clock.now(), event, out);
            }
        }
        SegmentEffect::Sealed(..) | SegmentEffect::Removed(_) => {}
        SegmentEffect::Stop(error) => inner.stop(error),
        SegmentEffect::Closed => {
            lock(&inner.closed).segments = true;
            inner.closed_wake.notify_all();
        }
    }
}

// ---- crash points ----

fn before_journal(point: JournalPoint) {
    match point {
        JournalPoint::Submit => crash_point!("journal.before_submit"),
        JournalPoint::Seal => crash_point!("journal.before_seal"),
        JournalPoint::Recycle => crash_point!("journal.before_recycle"),
        JournalPoint::Prepare => crash_point!("journal.before_prepare"),
        JournalPoint::Remove => crash_point!("journal.before_remove"),
    }
}

fn after_journal(point: JournalPoint) {
    match point {
        JournalPoint::Submit => crash_point!("journal.after_submit"),
        JournalPoint::Seal => crash_point!("journal.after_seal"),
        JournalPoint::Recycle => crash_point!("journal.after_recycle"),
        JournalPoint::Prepare => crash_point!("journal.after_prepare"),
        JournalPoint::Remove => crash_point!("journal.after_remove"),
    }
}

fn before_segment(point: SegmentPoint) {
    match point {
        SegmentPoint::SegLog => crash_point!("seg.before_log"),
        SegmentPoint::SegExt => crash_point!("seg.before_ext"),
        SegmentPoint::SegEnt => crash_point!("seg.before_ent"),
        SegmentPoint::RollCreate => crash_point!("roll.before_create"),
        SegmentPoint::RollDirsync => crash_point!("roll.before_dirsync"),
        SegmentPoint::CkptSync => crash_point!("ckpt.before_sync"),
        SegmentPoint::SealLog => crash_point!("seal.before_log"),
        SegmentPoint::SealEnt => crash_point!("seal.before_ent"),
        SegmentPoint::SealExt => crash_point!("seal.before_ext"),
        SegmentPoint::SealManifest => crash_point!("seal.before_manifest"),
        SegmentPoint::TruncRows => crash_point!("trunc.before_rows"),
        SegmentPoint::TruncFile => crash_point!("trunc.before_file"),
        SegmentPoint::TrimManifest => crash_point!("trim.before_manifest"),
        SegmentPoint::TrimUnlink => crash_point!("trim.before_unlink"),
        SegmentPoint::SnapWrite => crash_point!("snap.before_write"),
        SegmentPoint::SnapSync => crash_point!("snap.before_sync"),
        SegmentPoint::DelRename => crash_point!("del.before_rename"),
        SegmentPoint::DelRemove => crash_point!("del.before_remove"),
        SegmentPoint::Read => {}
    }
}

fn after_segment(point: SegmentPoint) {
    match point {
        SegmentPoint::SegLog => crash_point!("seg.after_log"),
        SegmentPoint::SegExt => crash_point!("seg.after_ext"),
        SegmentPoint::SegEnt => crash_point!("seg.after_ent"),
        SegmentPoint::RollCreate => crash_point!("roll.after_create"),
        SegmentPoint::RollDirsync => crash_point!("roll.after_dirsync"),
        SegmentPoint::CkptSync => crash_point!("ckpt.after_sync"),
        SegmentPoint::SealLog => crash_point!("seal.after_log"),
        SegmentPoint::SealEnt => crash_point!("seal.after_ent"),
        SegmentPoint::SealExt => crash_point!("seal.after_ext"),
        SegmentPoint::SealManifest => crash_point!("seal.after_manifest"),
        SegmentPoint::TruncRows => crash_point!("trunc.after_rows"),
        SegmentPoint::TruncFile => crash_point!("trunc.after_file"),
        SegmentPoint::TrimManifest => crash_point!("trim.after_manifest"),
        SegmentPoint::TrimUnlink => crash_point!("trim.after_unlink"),
        SegmentPoint::SnapWrite => crash_point!("snap.after_write"),
        SegmentPoint::SnapSync => crash_point!("snap.after_sync"),
        SegmentPoint::DelRename => crash_point!("del.after_rename"),
        SegmentPoint::DelRemove => crash_point!("del.after_remove"),
        SegmentPoint::Read => {}
    }
}
