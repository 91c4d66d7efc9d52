//! The shell of a partition: its lock, its log directory, and everybody who waits for it.
//! Walk: row-change 10/17, produce-fetch 7/14.
//!
//! A panic in here, or in the core, takes this partition down and nothing else: every entry into it is a boundary. It is
//! opened again from disk (`broker/upkeep.rs`).
//!
//! Lock, decide, queue for the journal, unlock; then answer waiters, wake fetches, tell hosts. No task and no timer per
//! partition: a thread hop costs 8–26 µs, an uncontended lock tens of ns. Entries are queued for the journal *under* the
//! lock, so that the journal's order is the log's.

use super::{AckError, Ask, Ends, FetchError, Look, NotTaken, NotTrimmed, PartitionCore, Placed, Until, Wish};
use crate::host::log::{HostLog, HostObserver, ProposeError, ReadError};
use bytes::{Bytes, BytesMut};
use catchwater_base::metric::Counter;
use catchwater_base::{Clock, Now, crash_point, log, mutant};
use catchwater_raft::driver::compaction::{CompactLimits, Compaction};
use catchwater_raft::driver::{Cork, LogDir, Pressure, Replica};
use catchwater_raft::{Event, GroupCore, panic_text};
use catchwater_record::{
    BatchView, CaptureEpoch, CaptureId, EntryIndex, Gid, LeaderEpoch, NodeId, Offset, Position, TopicName,
    TopicPartition,
};
use catchwater_runtime::sync::{Notify, oneshot};
use catchwater_storage::compact::{Choice, Policy};
use catchwater_storage::format::context::CaptureContext;
use catchwater_storage::producer::ProducerTold;
use catchwater_storage::retain::Retention;
use catchwater_storage::{MaxTime, ReadPlan, Thinned};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// Bytes a host reads at a time while it replays.
const REPLAY_BYTES: u32 = 1 << 20;
/// A log with fewer entries and no state gets no state snapshot.
const SNAPSHOT_ENTRIES_MIN: u64 = 1_000;
/// A planned read whose files went away is planned again so often.
const REPLANS_MAX: usize = 3;

pub static APPENDED_BATCHES: Counter = Counter::new();
pub static APPENDED_BYTES: Counter = Counter::new();
pub static DUPLICATE_BATCHES: Counter = Counter::new();
pub static OFFLINE: Counter = Counter::new();

/// How an append ends.
pub type Ack = Result<(), AckError>;
type Waiter = oneshot::Sender<Ack>;

/// One partition on this node.
pub struct Partition {
    pub gid: Gid,
    pub at: TopicPartition,
    pub topic: TopicName,
    state: Mutex<State>,
    dir: LogDir,
    clock: Arc<dyn Clock>,
    condition: AtomicU8,
}

/// Whether a partition works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    Up,
    /// It panicked, and is to be opened again.
    Fallen,
    /// It panicked too often, or could not be opened again: offline until the next start.
    GivenUp,
}

struct State {
    core: PartitionCore<Waiter>,
    /// What the log directory was told last.
    log_start: Offset,
    /// Scratch, kept for its allocation.
    wishes: Vec<Wish<Waiter>>,
    /// Fetches that want to hear of the next move, by the id of their [`Wake`].
    fetches: BTreeMap<u64, Arc<Wake>>,
    observers: Vec<Arc<dyn HostObserver>>,
}

/// An append that has its place.
pub struct Pending {
    pub placed: Placed,
    /// Ends without an answer only if the partition was dropped.
    pub done: oneshot::Receiver<Ack>,
}

/// A fetch that waits. Woken at most once per look; a wake before the wait is kept.
pub struct Wake {
    id: u64,
    notify: Notify,
}

static WAKES: AtomicU64 = AtomicU64::new(0);

impl Wake {
    pub fn new() -> Arc<Wake> {
        Arc::new(Wake { id: WAKES.fetch_add(1, Ordering::Relaxed), notify: Notify::new() })
    }
    /// Cancel-safe.
    pub async fn woken(&self) {
        self.notify.notified().await;
    }
}

/// A [`Wake`] in the lists of its partitions; leaves them when dropped.
pub struct Watch {
    wake: Arc<Wake>,
    partitions: Vec<Arc<Partition>>,
}

impl Watch {
    pub fn new(partitions: Vec<Arc<Partition>>) -> Self {
        let watch = Watch { wake: Wake::new(), partitions };
        watch.again();
        watch
    }
    /// Back into the lists, before the next look.
    pub fn again(&self) {
        for partition in &self.partitions {
            partition.lock().fetches.insert(self.wake.id, self.wake.clone());
        }
    }
    pub async fn woken(&self) {
        self.wake.woken().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for partition in &self.partitions {
            partition.lock().fetches.remove(&self.wake.id);
        }
    }
}

/// What happens behind the lock.
#[derive(Default)]
struct After {
    done: Vec<(Waiter, Ack)>,
    wake: Vec<Arc<Wake>>,
    observers: Vec<Arc<dyn HostObserver>>,
    high_watermark: Option<Offset>,
    leads: Option<Option<LeaderEpoch>>,
}

impl After {
    fn run(self) {
        for (waiter, ack) in self.done {
            // Nobody listens any more: timed out, or its connection is gone.
            let _ = waiter.send(ack);
        }
        if !self.wake.is_empty() && !mutant!("fetch_wake_lost") {
            crash_point!("fetch.before_wake");
            for wake in &self.wake {
                wake.notify.notify_one();
            }
            crash_point!("fetch.after_wake");
        }
        for observer in &self.observers {
            if let Some(leads) = self.leads {
                observer.role(leads);
            }
            if let Some(high_watermark) = self.high_watermark {
                observer.committed(high_watermark);
            }
        }
    }
}

impl State {
    /// The one exhaustive match on what the core wants.
    fn perform(&mut self, partition: &Partition, wishes: &mut Vec<Wish<Waiter>>) -> After {
        let mut after = After::default();
        for wish in wishes.drain(..) {
            match wish {
                Wish::Persist { ready, entries, hard, truncate_from } => {
                    partition.dir.persist(partition.gid, ready, entries, hard, truncate_from);
                }
                Wish::Settled { commit, log_start } => {
                    partition.dir.committed(partition.gid, commit);
                    if log_start > self.log_start {
                        self.log_start = log_start;
                        let log = self.core.group().log();
                        partition.dir.trim(partition.gid, log_start, log.has_state().then(|| log.snapshot_payload()));
                    }
                }
                Wish::Done(waiter, ack) => after.done.push((waiter, ack)),
                Wish::HighWatermark(offset) => after.high_watermark = Some(offset),
                Wish::Leads(leads) => after.leads = Some(leads),
                Wish::Offline(cause) => {
                    partition.condition.store(Condition::Fallen as u8, Ordering::SeqCst);
                    OFFLINE.inc();
                    log!(
                        Error,
                        "partition.offline",
                        "partition {}-{} is offline: {cause}",
                        partition.topic,
                        partition.at.partition
                    );
                }
            }
        }
        if after.high_watermark.is_some() || after.leads.is_some() {
            after.wake = std::mem::take(&mut self.fetches).into_values().collect();
            after.observers = self.observers.clone();
        }
        after
    }
}

impl Partition {
    /// Call `LogDir::attach`, then [`Partition::start`].
    pub fn new(
        (gid, at, topic): (Gid, TopicPartition, TopicName),
        group: GroupCore,
        dir: LogDir,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let core = PartitionCore::new(group);
        let log_start = core.ends().log_start;
        let state = State { core, log_start, wishes: Vec::new(), fetches: BTreeMap::new(), observers: Vec::new() };
        let condition = AtomicU8::new(Condition::Up as u8);
        Arc::new(Partition { gid, at, topic, state: Mutex::new(state), dir, clock, condition })
    }

    pub fn condition(&self) -> Condition {
        match self.condition.load(Ordering::SeqCst) {
            n if n == Condition::Up as u8 => Condition::Up,
            n if n == Condition::Fallen as u8 => Condition::Fallen,
            _ => Condition::GivenUp,
        }
    }

    /// It stays as it is until the next start.
    pub fn give_up(&self) {
        self.condition.store(Condition::GivenUp as u8, Ordering::SeqCst);
    }

    /// Takes what was read from disk in the place of what fell; false if it was closed or deleted meanwhile. Then
    /// `LogDir::attach` and [`Partition::start`], as for a new one.
    pub fn reopened(&self, group: GroupCore) -> bool {
        let mut state = self.lock();
        if !state.core.reopened(group) {
            return false;
        }
        state.log_start = state.core.ends().log_start;
        state.wishes = Vec::new();
        self.condition.store(Condition::Up as u8, Ordering::SeqCst);
        true
    }

    /// The group may act: a sole voter campaigns and leads once its vote is durable.
    pub fn start(&self) {
        self.handle(Event::Start);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is caught before the lock is left, and its state is not used again.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// `None`: it panicked, and nothing that it wished was done.
    fn with<T>(&self, work: impl FnOnce(&mut PartitionCore<Waiter>, Now, &mut Vec<Wish<Waiter>>) -> T) -> Option<T> {
        let now = self.clock.now();
        // The journal's thread is woken once the lock is free again: it comes back for the lock, and a wake is a system call.
        let turn = Cork::hold();
        let (answer, after) = {
            let mut state = self.lock();
            let state = &mut *state;
            let mut wishes = std::mem::take(&mut state.wishes);
            let answer = catch_unwind(AssertUnwindSafe(|| work(&mut state.core, now, &mut wishes)));
            let answer = answer.map_err(|panic| {
                wishes.clear();
                state.core.fail(panic_text(panic), &mut wishes);
            });
            let performed = catch_unwind(AssertUnwindSafe(|| state.perform(self, &mut wishes)));
            let after = performed.unwrap_or_else(|panic| {
                wishes.clear();
                state.core.fail(panic_text(panic), &mut wishes);
                state.perform(self, &mut wishes)
            });
            state.wishes = wishes;
            (answer, after)
        };
        drop(turn);
        after.run();
        answer.ok()
    }

    /// A look that changes nothing; `None`: it panicked.
    fn see<T>(&self, look: impl FnOnce(&PartitionCore<Waiter>) -> T) -> Option<T> {
        let seen = {
            let state = self.lock();
            catch_unwind(AssertUnwindSafe(|| look(&state.core)))
        };
        match seen {
            Ok(seen) => Some(seen),
            Err(panic) => {
                self.with(|core, _, out| core.fail(panic_text(panic), out));
                None
            }
        }
    }

    /// A tick of the node's clock.
    pub fn tick(&self, event: Event) {
        self.with(|core, now, out| core.handle(now, event, out));
    }

    /// Appends one checked batch; returns as soon as it has its place.
    pub fn append(
        &self,
        batch: BytesMut,
        capture: Option<&CaptureContext>,
        insync_min: usize,
        until: Until,
    ) -> Result<Pending, NotTaken> {
        match self.dir.pressure() {
            _ if self.is_full(batch.len()) => return Err(NotTaken::DiskFull),
            Pressure::None | Pressure::Slow => {}
            Pressure::Stop => return Err(NotTaken::NoRoom),
            Pressure::Full => return Err(NotTaken::DiskFull),
        }
        self.append_always(batch, capture, insync_min, until)
    }

    /// The same without regard to pressure: machines of the node itself. They write little, their log is bounded by the
    /// group, and a node under pressure (just after a crash the journal is full until its content is in segments) must
    /// still be able to say that it is there.
    fn append_always(
        &self,
        batch: BytesMut,
        capture: Option<&CaptureContext>,
        insync_min: usize,
        until: Until,
    ) -> Result<Pending, NotTaken> {
        if self.dir.is_stopped().is_some() {
            return Err(NotTaken::Storage);
        }
        let bytes = batch.len() as u64;
        let (waiter, done) = oneshot::channel();
        let placed = self.with(|core, now, out| {
            crash_point!("partition.before_check");
            let judged = core.judge(&batch, capture, insync_min, until)?;
            crash_point!("partition.after_check");
            crash_point!("partition.before_propose");
            let placed = core.enter(now, judged, (batch, capture), (until, waiter), out);
            crash_point!("partition.after_propose");
            placed
        });
        let placed = placed.unwrap_or(Err(NotTaken::Storage))?;
        if placed.duplicate {
            DUPLICATE_BATCHES.inc();
        } else {
            APPENDED_BATCHES.inc();
            APPENDED_BYTES.add(bytes);
        }
        Ok(Pending { placed, done })
    }

    /// Would `bytes` more find room now?
    pub fn has_room(&self, bytes: usize) -> bool {
        matches!(self.dir.pressure(), Pressure::None | Pressure::Slow) && self.lock().core.has_room(bytes)
    }

    /// The disk is full, or nearly: no batch of `bytes` is produced before there is room again.
    pub fn is_full(&self, bytes: usize) -> bool {
        self.dir.pressure() == Pressure::Full || self.dir.lacks_room_for(bytes)
    }

    /// Producers should be slowed: the journal or the segment writer falls behind.
    pub fn is_pressed(&self) -> bool {
        self.dir.pressure() != Pressure::None
    }

    pub fn fence(&self, capture: CaptureId, epoch: CaptureEpoch) -> Result<Pending, NotTaken> {
        let (waiter, done) = oneshot::channel();
        let placed = self.with(|core, now, out| core.fence(now, capture, epoch, waiter, out));
        let placed = placed.unwrap_or(Err(NotTaken::Storage))?;
        Ok(Pending { placed, done })
    }

    /// Applies the topic's retention; the new log start, if it was proposed.
    pub fn retain(&self, retention: Retention) -> Option<Offset> {
        let (waiter, _) = oneshot::channel();
        self.with(|core, now, out| core.retain(now, retention, waiter, out)).flatten()
    }

    /// Moves the log start to `to` (`None` = the high watermark). `None` = it is there already; else the answer comes when
    /// the move is committed.
    pub fn delete_records(&self, to: Option<Offset>) -> Result<Option<oneshot::Receiver<Ack>>, NotTrimmed> {
        if self.dir.is_stopped().is_some() {
            return Err(NotTaken::Storage.into());
        }
        let (waiter, done) = oneshot::channel();
        let moves = self.with(|core, now, out| core.delete_records(now, to, waiter, out));
        let moves = moves.unwrap_or_else(|| Err(NotTaken::Storage.into()))?;
        Ok(moves.then_some(done))
    }

    /// Forgets producers without an open transaction that nothing was heard of for `idle_ms`; how many.
    pub fn expire_producers(&self, now_ms: i64, idle_ms: i64) -> usize {
        self.with(|core, _, _| core.log_mut().expire_producers(now_ms, idle_ms)).unwrap_or(0)
    }

    /// Adds when each producer that may be forgotten was heard of last, ms.
    pub fn idle_producers(&self, now_ms: i64, idle_ms: i64, out: &mut Vec<i64>) {
        self.with(|core, _, _| core.log_mut().idle_producers(now_ms, idle_ms, out));
    }

    /// Forgets at most so many of those.
    pub fn evict_producers(&self, before_ms: i64, most: usize) -> usize {
        self.with(|core, _, _| core.log_mut().evict_producers(before_ms, most)).unwrap_or(0)
    }

    /// Whether and how much of its log is due for compaction.
    pub fn compaction_due(&self, policy: &Policy) -> Option<Choice> {
        let now_ms = self.clock.now().wall.as_millis();
        self.see(|core| core.group().log().compaction_due(policy, now_ms)).flatten()
    }

    /// A run over what is due now.
    pub fn compaction(&self, policy: Policy, limits: CompactLimits) -> Option<Compaction> {
        let now_ms = self.clock.now().wall.as_millis();
        let (plan, alone) =
            self.see(|core| (core.group().log().plan_compaction(&policy, now_ms), core.group().is_alone()))?;
        Some(Compaction::new(self.dir.clone(), self.gid, plan?, (policy, limits), (now_ms, alone)))
    }

    /// Answers once all that was appended before is committed.
    pub fn barrier(&self) -> Result<oneshot::Receiver<Ack>, NotTaken> {
        let (waiter, done) = oneshot::channel();
        self.with(|core, _, out| core.barrier(waiter, out)).unwrap_or(Err(NotTaken::Storage))?;
        Ok(done)
    }

    pub fn look(&self, ask: &Ask) -> Result<Look, FetchError> {
        self.see(|core| core.look(ask)).unwrap_or(Err(FetchError::Storage))
    }

    pub fn ends(&self) -> Ends {
        self.lock().core.ends()
    }

    pub fn leader(&self) -> Option<NodeId> {
        self.lock().core.leader()
    }

    /// Newest epoch and position of a capture here, and the end of the partition (speculative; behind a barrier it is
    /// committed).
    pub fn capture_last(&self, capture: CaptureId) -> (Option<(CaptureEpoch, Position)>, Offset) {
        let state = self.lock();
        let log = state.core.group().log();
        (log.capture_last(capture), log.next_offset())
    }

    /// Where to look for the first record with a timestamp ≥ `ms`.
    pub fn find_time(&self, ms: i64) -> Option<Offset> {
        self.see(|core| core.group().log().find_time(ms)).flatten()
    }

    /// Where the largest timestamp is.
    pub fn max_time(&self) -> MaxTime {
        self.see(|core| core.group().log().max_time()).unwrap_or_default()
    }

    /// Epoch of the entry that holds `offset`.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let state = self.lock();
        let epochs = state.core.group().log().epochs();
        let place = epochs.partition_point(|e| e.offset <= offset).checked_sub(1)?;
        epochs.get(place).map(|e| LeaderEpoch(e.term))
    }

    /// OffsetForLeaderEpoch; see [`PartitionCore::end_of_epoch`].
    pub fn end_of_epoch(&self, current: i32, asked: i32) -> Result<Option<(i32, Offset)>, FetchError> {
        self.see(|core| core.end_of_epoch(current, asked)).unwrap_or(Err(FetchError::Storage))
    }

    /// Bytes of its batches in files.
    pub fn file_bytes(&self) -> u64 {
        self.see(|core| core.group().log().file_bytes()).unwrap_or(0)
    }

    /// The idempotent producers it remembers, by id; `None` = it does not lead here.
    pub fn producers(&self) -> Option<Vec<ProducerTold>> {
        self.see(|core| core.ends().leads.then(|| core.group().log().producers().told().collect())).flatten()
    }

    /// What compaction has taken from its log.
    pub fn thinned(&self) -> Thinned {
        self.lock().core.group().log().thinned()
    }

    /// The bytes of a plan. Blocking if they are in files.
    pub fn read(&self, plan: ReadPlan) -> Result<Vec<Bytes>, catchwater_raft::driver::ReadError> {
        match plan {
            ReadPlan::Tail(batches) => Ok(batches),
            ReadPlan::Files(read) => self.dir.read(&read).map(one),
            ReadPlan::Empty | ReadPlan::OutOfRange => Ok(Vec::new()),
        }
    }

    /// The same if no byte must be waited for; `None` if one must.
    pub fn read_hot(&self, plan: &ReadPlan) -> Option<Result<Vec<Bytes>, catchwater_raft::driver::ReadError>> {
        match plan {
            ReadPlan::Tail(batches) => Some(Ok(batches.clone())),
            ReadPlan::Files(read) => Some(self.dir.read_hot(read)?.map(one)),
            ReadPlan::Empty | ReadPlan::OutOfRange => Some(Ok(Vec::new())),
        }
    }

    /// Plans and reads whole batches from `from` to the high watermark. Blocking.
    pub fn read_from(&self, from: Offset, max_bytes: u32) -> Result<Vec<Bytes>, ReadError> {
        for _ in 0..REPLANS_MAX {
            let plan = {
                let state = self.lock();
                let (log, ends) = (state.core.group().log(), state.core.ends());
                if from < ends.log_start {
                    return Err(ReadError::BelowStart(ends.log_start));
                }
                log.plan_read(from, ends.high_watermark, max_bytes)
            };
            match self.read(plan) {
                Ok(batches) => return Ok(batches),
                Err(catchwater_raft::driver::ReadError::Gone(_)) => {}
                Err(e) => return Err(ReadError::Damaged(e.to_string())),
            }
        }
        Err(ReadError::Closed)
    }

    /// The topic is gone.
    pub fn delete(&self) {
        self.with(|core, _, out| core.delete(out));
    }

    /// Answers everybody who waits; nothing is taken any more.
    pub fn close(&self, why: AckError) {
        self.with(|core, _, out| core.close(why, out));
    }
}

impl Replica for Partition {
    fn handle(&self, event: Event) {
        crash_point!("raft.before_step");
        self.with(|core, now, out| core.handle(now, event, out));
        crash_point!("raft.after_step");
    }

    fn snapshot(&self) -> Option<(EntryIndex, Offset, Bytes)> {
        self.see(snapshot_of).flatten()
    }
}

fn snapshot_of(core: &PartitionCore<Waiter>) -> Option<(EntryIndex, Offset, Bytes)> {
    let log = core.group().log();
    // A handful of entries without state is read again sooner than a file is made durable: dozens of idle
    // partitions must not hold up the node's end.
    let entries = log.last_index().0.saturating_sub(log.first_index().prev().0);
    if entries < SNAPSHOT_ENTRIES_MIN && !log.has_state() {
        return None;
    }
    Some(log.snapshot_payload())
}

impl HostLog for Partition {
    fn propose(&self, batch: BytesMut) -> Result<Offset, ProposeError> {
        if batch.len() as u64 > self.dir.batch_bytes_max() {
            return Err(ProposeError::TooLarge);
        }
        // A host waits by offsets, not by waiters: the high watermark tells it.
        match self.append_always(batch, None, 1, Until::Proposed) {
            Ok(pending) => Ok(pending.placed.end),
            Err(NotTaken::NotLeader) => Err(ProposeError::NotLeader),
            Err(NotTaken::NoRoom | NotTaken::DiskFull | NotTaken::NotEnoughInSync) => Err(ProposeError::NoRoom),
            Err(NotTaken::Storage | NotTaken::Deleted) => Err(ProposeError::Stopped),
            Err(
                NotTaken::ProducerFenced { .. }
                | NotTaken::OutOfOrderSequence
                | NotTaken::Partly(_)
                | NotTaken::Gap(_)
                | NotTaken::Fenced(_)
                | NotTaken::Bug(_),
            ) => Err(ProposeError::TooLarge),
        }
    }

    fn read_committed(&self, from: Offset) -> Result<Vec<Bytes>, ReadError> {
        let pieces = self.read_from(from, REPLAY_BYTES)?;
        // From files they come many to a piece; a host takes them one by one.
        let mut batches = Vec::with_capacity(pieces.len());
        for mut piece in pieces {
            while !piece.is_empty() {
                let (first, _) = BatchView::split(&piece).map_err(|e| ReadError::Damaged(e.to_string()))?;
                batches.push(piece.split_to(first.len()));
            }
        }
        Ok(batches)
    }

    fn room(&self) -> Result<(), ProposeError> {
        if self.dir.is_stopped().is_some() {
            return Err(ProposeError::Stopped);
        }
        // Not the directory's pressure: see `append_always`.
        if self.lock().core.has_room(REPLAY_BYTES as usize) { Ok(()) } else { Err(ProposeError::NoRoom) }
    }

    fn high_watermark(&self) -> Offset {
        self.ends().high_watermark
    }

    fn log_start(&self) -> Offset {
        self.ends().log_start
    }

    fn leader_epoch(&self) -> Option<LeaderEpoch> {
        self.lock().core.leads()
    }

    fn watch(&self, observer: Arc<dyn HostObserver>) {
        let leads = {
            let mut state = self.lock();
            state.observers.push(observer.clone());
            state.core.leads()
        };
        if leads.is_some() {
            observer.role(leads);
        }
    }
}

/// What files gave, as a list.
fn one(bytes: Bytes) -> Vec<Bytes> {
    if bytes.is_empty() { Vec::new() } else { vec![bytes] }
}
