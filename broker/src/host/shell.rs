//! The shell of one host: its lock, its log, its one timer, and the requests that wait.
//!
//! Walk: commit-offset 5/8
//!
//! A request is decided in the call, under a short lock, and proposed under it too, so that the order of decisions is
//! the order in the log. Whatever the log reports comes in through an inbox, because it may call on a thread that is
//! inside `propose`; whoever holds the lock empties it. Effects leave through one queue that one thread at a time works
//! off, in the order they were made and without the lock, so a follower of commits may call back.

use super::core::{Effect, HostCore, HostError};
use super::log::{HostLog, HostObserver, ReadError};
use bytes::Bytes;
use catchwater_base::{Clock, Effects, Replicated, Ticket, crash_point, log};
use catchwater_coordinator::stored::Stored;
use catchwater_record::{LeaderEpoch, Offset};
use catchwater_runtime::spawn::{self, Tasks};
use catchwater_runtime::sync::{Notify, oneshot, watch};
use catchwater_runtime::{Fut, time};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::Duration;

/// Follows the commits of a host. Called in the order of the log, one call at a time, without a lock of the host.
pub trait Follower<M: Replicated>: Send + Sync {
    /// Committed records that end at `end`; after a reload those that were told before come again, with their ends.
    fn committed(&self, records: Vec<M::Record>, end: Offset);
    /// Everything committed so far has been told; the machine answers from here on.
    fn leading(&self) {}
}

/// Nobody follows.
pub struct NoFollower;

impl<M: Replicated> Follower<M> for NoFollower {
    fn committed(&self, _: Vec<M::Record>, _: Offset) {}
}

/// What a machine must be to be hosted.
pub trait Hosted:
    Replicated<Record: Stored + Send, Request: Send, Reply: Send, Soft: Send> + Clone + Send + 'static
{
    /// The request that tells the machine its deadline came.
    fn wake() -> Self::Request;
    /// Whether the answer may need a record. Those are not decided while the log has no room.
    fn may_write(request: &Self::Request) -> bool;
}

/// A wake-up that finds no room is tried again after so long.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(100);

enum Event {
    Role,
    Committed(Offset),
}

struct Inner<M: Replicated> {
    core: HostCore<M>,
    effects: Effects<Effect<M>>,
    waiting: BTreeMap<Ticket, oneshot::Sender<Result<M::Reply, HostError>>>,
    /// A load the host's task has to do.
    load: Option<(LeaderEpoch, Offset)>,
    /// When the timer will look next, at the latest.
    armed: Option<catchwater_base::Mono>,
}

/// What leaves the lock, in order.
enum Out<M: Replicated> {
    Committed(Vec<M::Record>, Offset),
    Leading,
    Answer(oneshot::Sender<Result<M::Reply, HostError>>, Result<M::Reply, HostError>),
}

/// One machine on one partition of this node.
pub struct Host<M: Hosted> {
    name: String,
    log: Arc<dyn HostLog>,
    clock: Arc<dyn Clock>,
    follower: Arc<dyn Follower<M>>,
    inner: Mutex<Inner<M>>,
    inbox: Mutex<VecDeque<Event>>,
    outbox: Mutex<VecDeque<Out<M>>>,
    /// Held by the one who works the outbox off.
    performing: Mutex<()>,
    wake: Arc<Notify>,
    tickets: AtomicU64,
    leading: watch::Sender<bool>,
    /// Its log could not be loaded.
    load_failed: AtomicBool,
    tasks: Tasks,
}

impl<M: Hosted> Host<M> {
    /// Starts the host and its task. Call inside the runtime.
    pub fn start(
        name: impl Into<String>,
        empty: M,
        log: Arc<dyn HostLog>,
        clock: Arc<dyn Clock>,
        follower: Arc<dyn Follower<M>>,
    ) -> Arc<Self> {
        let host = Arc::new(Host {
            name: name.into(),
            log: log.clone(),
            clock,
            follower,
            inner: Mutex::new(Inner {
                core: HostCore::new(empty, M::wake),
                effects: Effects::new(),
                waiting: BTreeMap::new(),
                load: None,
                armed: None,
            }),
            inbox: Mutex::default(),
            outbox: Mutex::new(VecDeque::new()),
            performing: Mutex::default(),
            wake: Arc::default(),
            tickets: AtomicU64::new(1),
            leading: watch::channel(false).0,
            load_failed: AtomicBool::new(false),
            tasks: Tasks::new(),
        });
        let weak = Arc::downgrade(&host);
        host.tasks.spawn(format!("host {}", host.name), run(weak, host.wake.clone()));
        log.watch(Arc::new(Observer(Arc::downgrade(&host))));
        host
    }

    /// Decides now; the future waits for the commit. Dropping it leaves the decision as it is.
    pub fn ask(&self, request: M::Request) -> Fut<'static, Result<M::Reply, HostError>> {
        let ticket = Ticket(self.tickets.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = oneshot::channel();
        {
            let mut inner = self.lock();
            let inner = &mut *inner;
            if inner.core.is_leading()
                && M::may_write(&request)
                && let Err(why) = self.log.room()
            {
                return Box::pin(std::future::ready(Err(HostError::Refused(why))));
            }
            inner.waiting.insert(ticket, sender);
            let now = self.clock.now();
            crash_point!("host.before_propose");
            inner.core.ask(now, ticket, request, &mut |batch| self.log.propose(batch), &mut inner.effects);
            crash_point!("host.after_propose");
            self.collect(inner);
        }
        self.pump();
        Box::pin(async move { receiver.await.unwrap_or(Err(HostError::Unknown)) })
    }

    /// As [`Host::ask`], but waits out a load or a missing leader first, at most `limit`.
    pub async fn ask_ready(&self, request: M::Request, limit: Duration) -> Result<M::Reply, HostError> {
        if self.ready(limit).await { self.ask(request).await } else { Err(HostError::Loading) }
    }

    /// Returns once the machine answers, or false after `limit`.
    pub async fn ready(&self, limit: Duration) -> bool {
        let mut leading = self.leading.subscribe();
        // A load that failed settles it, too: such a host never leads. No lock of ours in here: the channel holds its own.
        let failed = || self.load_failed.load(Ordering::SeqCst);
        let settled = async { leading.wait_for(|leads| *leads || failed()).await.is_ok() };
        time::timeout(limit, settled).await.unwrap_or(false) && self.is_leading()
    }

    /// Whoever waits for it to lead waits in vain.
    fn give_up(&self) {
        self.load_failed.store(true, Ordering::SeqCst);
        self.leading.send_modify(|_| ());
    }

    /// Why its log could not be loaded.
    pub fn broken(&self) -> Option<String> {
        self.lock().core.broken().map(str::to_owned)
    }

    pub fn is_leading(&self) -> bool {
        *self.leading.borrow()
    }

    /// A look at the speculative machine: for metrics and tests, never for an answer.
    pub fn peek<T>(&self, look: impl FnOnce(&M) -> T) -> Option<T> {
        self.lock().core.machine().map(look)
    }

    fn lock(&self) -> MutexGuard<'_, Inner<M>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves what the core wants into the outbox, under the lock, so that the order stays.
    fn collect(&self, inner: &mut Inner<M>) {
        let Inner { core, effects, waiting, load, .. } = inner;
        if !effects.is_empty() {
            let mut outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
            for effect in effects.drain() {
                match effect {
                    Effect::Load { epoch, from } => {
                        *load = Some((epoch, from));
                        self.wake.notify_one();
                    }
                    Effect::Committed { records, end } => outbox.push_back(Out::Committed(records, end)),
                    Effect::Leading => outbox.push_back(Out::Leading),
                    Effect::Reply(ticket, reply) => {
                        if let Some(sender) = waiting.remove(&ticket) {
                            outbox.push_back(Out::Answer(sender, Ok(reply)));
                        }
                    }
                    Effect::Fail(ticket, why) => {
                        if let Some(sender) = waiting.remove(&ticket) {
                            outbox.push_back(Out::Answer(sender, Err(why)));
                        }
                    }
                }
            }
        }
        if !core.is_leading() {
            self.leading.send_if_modified(|leads| std::mem::replace(leads, false));
        }
        let deadline = core.deadline();
        if let Some(at) = deadline
            && inner.armed.is_none_or(|armed| at < armed)
        {
            inner.armed = Some(at);
            self.wake.notify_one();
        }
    }

    /// Empties the inbox and the outbox, unless somebody else is at it (who then does it for us).
    fn pump(&self) {
        loop {
            {
                let mut inner = match self.inner.try_lock() {
                    Ok(inner) => inner,
                    Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                    Err(TryLockError::WouldBlock) => return,
                };
                let inner = &mut *inner;
                loop {
                    let event = self.inbox.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    match event {
                        None => break,
                        Some(Event::Role) => {
                            // Asked anew: two reports may have overtaken each other.
                            let leads = self.log.leader_epoch();
                            let log_start = if leads.is_some() { self.log.log_start() } else { Offset::ZERO };
                            inner.core.role(leads, log_start, &mut inner.effects);
                        }
                        Some(Event::Committed(high_watermark)) => {
                            inner.core.committed(high_watermark, &mut inner.effects);
                        }
                    }
                }
                self.collect(inner);
            }
            self.perform();
            // Something came in while the lock was held and its bringer went away.
            if self.inbox.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
                return;
            }
        }
    }

    fn perform(&self) {
        loop {
            {
                let _one_at_a_time = match self.performing.try_lock() {
                    Ok(guard) => guard,
                    Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                    Err(TryLockError::WouldBlock) => return,
                };
                loop {
                    let next = self.outbox.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    match next {
                        None => break,
                        Some(Out::Committed(records, end)) => self.follower.committed(records, end),
                        Some(Out::Leading) => {
                            self.follower.leading();
                            self.leading.send_replace(true);
                        }
                        // Nobody listens any more: the connection is gone.
                        Some(Out::Answer(sender, answer)) => drop(sender.send(answer)),
                    }
                }
            }
            if self.outbox.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
                return;
            }
        }
    }

    /// The timer: wakes the machine if its time has come; says how long to sleep.
    fn tick(&self) -> Option<Duration> {
        let left = {
            let mut inner = self.lock();
            let inner = &mut *inner;
            let now = self.clock.now();
            if inner.core.deadline().is_some_and(|at| at <= now.mono) {
                if self.log.room().is_err() {
                    return Some(NO_ROOM_PAUSE);
                }
                inner.core.wake(now, &mut |batch| self.log.propose(batch), &mut inner.effects);
            }
            inner.armed = inner.core.deadline();
            self.collect(inner);
            inner.armed.map(|at| at.since(self.clock.now().mono))
        };
        self.pump();
        left
    }

    fn take_load(&self) -> Option<(LeaderEpoch, Offset)> {
        self.lock().load.take()
    }

    /// Reads the log to its high watermark. Blocking.
    fn load(&self, epoch: LeaderEpoch, mut from: Offset) {
        loop {
            let upto = self.log.high_watermark();
            let batches = if from < upto { self.log.read_committed(from) } else { Ok(Vec::new()) };
            let batches: Vec<Bytes> = match batches {
                Ok(batches) => batches,
                Err(ReadError::Closed) => return,
                Err(why) => {
                    log!(Error, "host.load", "{}: the log cannot be read at {from}: {why}", self.name);
                    self.lock().core.load_failed(epoch, why.to_string());
                    self.give_up();
                    return;
                }
            };
            let end = batches
                .last()
                .and_then(|b| catchwater_record::BatchView::new(b).ok())
                .map(|b| b.offset().plus(u64::try_from(b.last_offset_delta()).unwrap_or(0) + 1));
            let whole = end.is_none_or(|end| end >= upto);
            let broken = {
                let mut inner = self.lock();
                let inner = &mut *inner;
                inner.core.loaded(self.clock.now(), epoch, &batches, whole, &mut inner.effects);
                self.collect(inner);
                inner.core.broken().map(str::to_owned)
            };
            self.pump();
            if let Some(why) = broken {
                log!(Error, "host.load", "{}: {why}", self.name);
                self.give_up();
                return;
            }
            match end {
                Some(end) if !whole => from = end,
                _ => return,
            }
        }
    }
}

/// The host's one task: its timer, and its loads. Ends with the host.
async fn run<M: Hosted>(host: Weak<Host<M>>, wake: Arc<Notify>) {
    loop {
        let left = {
            let Some(host) = host.upgrade() else { return };
            if let Some((epoch, from)) = host.take_load() {
                let name = host.name.clone();
                if let Err(why) = spawn::blocking(move || host.load(epoch, from)).await {
                    log!(Error, "host.load", "{name}: {why}");
                }
                continue;
            }
            host.tick()
        };
        match left {
            // Cancel-safe: a notification that comes late is kept for the next round.
            Some(left) => drop(time::timeout(left.max(Duration::from_millis(1)), wake.notified()).await),
            None => wake.notified().await,
        }
    }
}

struct Observer<M: Hosted>(Weak<Host<M>>);

impl<M: Hosted> Observer<M> {
    fn hear(&self, event: Event) {
        if let Some(host) = self.0.upgrade() {
            host.inbox.lock().unwrap_or_else(PoisonError::into_inner).push_back(event);
            host.pump();
        }
    }
}

impl<M: Hosted> HostObserver for Observer<M> {
    fn committed(&self, high_watermark: Offset) {
        self.hear(Event::Committed(high_watermark));
    }
    fn role(&self, _: Option<LeaderEpoch>) {
        self.hear(Event::Role);
    }
}

#[cfg(test)]
pub(super) mod tests;
