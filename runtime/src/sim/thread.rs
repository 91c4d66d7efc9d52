//! Threads, mutexes and condition variables of a simulated world; outside of one they are the real ones.
//!
//! A strand runs while the executor stands still in the poll of the strand's task; when it waits (for a condition, for
//! simulated time, for another strand) it hands the turn back and its task waits in its place. So exactly one of all
//! threads of a world runs at any moment, and which one depends on the seed alone.

use super::{Here, Host, enter, here, lock};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LockResult, PoisonError, TryLockError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How a strand of a killed host unwinds.
struct HostDied;

/// A strand that finds a mutex taken looks again after so long.
const CONTENDED: Duration = Duration::from_millis(1);
/// When a strand may run again it waits up to so many turns of the executor, so that orders differ between seeds.
const TURNS_MAX: u64 = 4;

/// One thread of the world.
pub struct Strand {
    id: u64,
    name: String,
    host: Arc<Host>,
    turn: std::sync::Mutex<Turn>,
    turned: std::sync::Condvar,
    wake: Notify,
    done: AtomicBool,
}

#[derive(Default)]
struct Turn {
    is_strands: bool,
    /// What the strand waits for, told when it hands the turn back.
    until: Option<Instant>,
}

impl Strand {
    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }
    pub(super) fn rouse(&self) {
        self.wake.notify_one();
    }
    /// For whoever looks from outside why nothing moves.
    pub(super) fn state(&self) -> String {
        let turn = self.turn.try_lock().map(|turn| turn.is_strands);
        let state = match (self.is_done(), turn) {
            (true, _) => "has ended",
            (false, Ok(true)) => "RUNS, and all others wait for it",
            (false, Ok(false)) => "waits",
            (false, Err(_)) => "takes or gives its turn",
        };
        format!("{} ({}) {state}", self.name, self.id)
    }

    /// By the executor: lets it run until it waits or ends; until when it waits.
    fn resume(&self) -> Option<Instant> {
        let mut turn = lock(&self.turn);
        turn.is_strands = true;
        self.turned.notify_all();
        while turn.is_strands {
            turn = self.turned.wait(turn).unwrap_or_else(PoisonError::into_inner);
        }
        turn.until.take()
    }

    fn await_turn(&self) {
        let mut turn = lock(&self.turn);
        while !turn.is_strands {
            turn = self.turned.wait(turn).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give_turn(&self, until: Option<Instant>) {
        let mut turn = lock(&self.turn);
        (turn.until, turn.is_strands) = (until, false);
        self.turned.notify_all();
    }

    /// By the strand: waits until it is roused, or until then.
    fn park(&self, until: Option<Instant>) {
        self.die_if_killed();
        self.give_turn(until);
        self.await_turn();
        self.die_if_killed();
    }

    fn die_if_killed(&self) {
        if self.host.is_dead() && !std::thread::panicking() {
            resume_unwind(Box::new(HostDied));
        }
    }
}

/// The task in whose polls a strand runs.
async fn drive(here: Here, strand: Arc<Strand>) {
    loop {
        here.world.fold("strand", strand.id);
        let until = strand.resume();
        if strand.is_done() {
            return;
        }
        match until {
            Some(at) => drop(tokio::time::timeout_at(at, strand.wake.notified()).await),
            None => strand.wake.notified().await,
        }
        for _ in 0..here.world.draw(TURNS_MAX) {
            tokio::task::yield_now().await;
        }
    }
}

/// Starts a strand; the handle gives what it returned, or its panic.
pub(super) fn start<T: Send + 'static>(
    at: Here,
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    let strand = Arc::new(Strand {
        id: at.world.number(),
        name: name.to_owned(),
        host: at.host.clone(),
        turn: std::sync::Mutex::default(),
        turned: std::sync::Condvar::new(),
        wake: Notify::new(),
        done: AtomicBool::new(false),
    });
    {
        let mut strands = lock(&at.host.strands);
        strands.retain(|strand| !strand.is_done());
        strands.push(strand.clone());
    }
    let result = Arc::new(std::sync::Mutex::new(None));
    let (place, own) = (result.clone(), strand.clone());
    let inside = Here { strand: Some(strand.clone()), ..at.clone() };
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let handle = inside.world.handle.clone();
        let _entered = handle.enter();
        let _here = enter(Some(inside));
        own.await_turn();
        let ended = catch_unwind(AssertUnwindSafe(|| {
            own.die_if_killed();
            body()
        }));
        *lock(&place) = Some(ended);
        own.done.store(true, Ordering::SeqCst);
        own.give_turn(None);
    });
    let world = at.world.clone();
    world.handle.spawn(async move {
        match started {
            Err(error) => panic_any(format!("no thread: {error}")),
            Ok(thread) => {
                drive(at, strand).await;
                let _ = thread.join();
            }
        }
        match lock(&result).take() {
            Some(Ok(value)) => value,
            Some(Err(panic)) => resume_unwind(panic),
            None => panic_any("a strand without an end"),
        }
    })
}

/// Lets simulated time pass for a strand; on the executor and outside of a world it returns at once.
pub fn pause(duration: Duration) {
    if let Some(strand) = here().and_then(|here| here.strand) {
        let until = Instant::now() + duration;
        while Instant::now() < until && !std::thread::panicking() {
            strand.park(Some(until));
        }
    }
}

/// As [`std::thread::JoinHandle`], for `()`.
pub enum JoinHandle {
    Real(std::thread::JoinHandle<()>),
    Strand(Arc<Strand>),
}

impl JoinHandle {
    pub fn join(self) -> Result<(), String> {
        match self {
            JoinHandle::Real(handle) => handle.join().map_err(|_| "panicked".to_owned()),
            JoinHandle::Strand(strand) => {
                while !strand.is_done() {
                    match here().and_then(|here| here.strand) {
                        Some(own) => own.park(Some(Instant::now() + CONTENDED)),
                        // On the executor, in a destructor: it ends by itself.
                        None => return Ok(()),
                    }
                    if strand.host.is_dead() {
                        return Ok(());
                    }
                }
                Ok(())
            }
        }
    }
}

/// See [`crate::thread::spawn`].
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle> {
    let Some(at) = here() else {
        return std::thread::Builder::new().name(name.to_owned()).spawn(body).map(JoinHandle::Real);
    };
    let host = at.host.clone();
    drop(start(at, name, body));
    let strand = lock(&host.strands).last().cloned().expect("it was put there just now");
    Ok(JoinHandle::Strand(strand))
}

/// As [`std::sync::Mutex`].
#[derive(Default)]
pub struct Mutex<T> {
    inner: std::sync::Mutex<T>,
}

pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// Empty while a condition is waited for.
    inner: Option<std::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Self {
        Mutex { inner: std::sync::Mutex::new(value) }
    }

    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let guard = |inner| MutexGuard { mutex: self, inner: Some(inner) };
        loop {
            match self.inner.try_lock() {
                Ok(inner) => return Ok(guard(inner)),
                Err(TryLockError::Poisoned(poisoned)) => return Err(PoisonError::new(guard(poisoned.into_inner()))),
                Err(TryLockError::WouldBlock) => {}
            }
            match here() {
                Some(Here { strand: Some(strand), .. }) => {
                    strand.park(Some(Instant::now() + CONTENDED));
                }
                Some(Here { strand: None, .. }) if !std::thread::panicking() => {
                    panic_any("a task waits for a mutex whose holder waits for simulated time");
                }
                Some(Here { strand: None, .. }) => {
                    // Its holder gets its turn from this thread only: to wait here would be for ever.
                    eprintln!("a task that unwinds waits for a mutex whose holder waits for simulated time");
                    std::process::abort();
                }
                None => {
                    return match self.inner.lock() {
                        Ok(inner) => Ok(guard(inner)),
                        Err(poisoned) => Err(PoisonError::new(guard(poisoned.into_inner()))),
                    };
                }
            }
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.inner.as_ref().expect("held but for the time of a wait")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().expect("held but for the time of a wait")
    }
}

/// As [`std::sync::Condvar`]. Which of several waiters is notified is drawn.
#[derive(Default)]
pub struct Condvar {
    real: std::sync::Condvar,
    waiting: std::sync::Mutex<VecDeque<Arc<Waiter>>>,
}

struct Waiter {
    strand: Arc<Strand>,
    notified: AtomicBool,
}

/// As [`std::sync::WaitTimeoutResult`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    pub const fn new() -> Self {
        Condvar { real: std::sync::Condvar::new(), waiting: std::sync::Mutex::new(VecDeque::new()) }
    }

    pub fn notify_one(&self) {
        self.real.notify_one();
        let mut waiting = lock(&self.waiting);
        if !waiting.is_empty() {
            let which = super::draw(waiting.len() as u64) as usize;
            if let Some(waiter) = waiting.remove(which) {
                waiter.notify();
            }
        }
    }

    pub fn notify_all(&self) {
        self.real.notify_all();
        lock(&self.waiting).drain(..).for_each(|waiter| waiter.notify());
    }

    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        match self.wait_until(guard, None) {
            Ok((guard, _)) => Ok(guard),
            Err(poisoned) => Err(PoisonError::new(poisoned.into_inner().0)),
        }
    }

    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        limit: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        self.wait_until(guard, Some(limit))
    }

    fn wait_until<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        limit: Option<Duration>,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let strand = match here() {
            Some(Here { strand: Some(strand), .. }) => strand,
            Some(_) => panic_any("a task waits for a condition variable"),
            None => return self.wait_really(guard, limit),
        };
        let until = limit.map(|limit| Instant::now() + limit);
        let waiter = Arc::new(Waiter { strand: strand.clone(), notified: AtomicBool::new(false) });
        lock(&self.waiting).push_back(waiter.clone());
        let mutex = guard.mutex;
        guard.inner = None;
        drop(guard);
        let is_late = || until.is_some_and(|at| Instant::now() >= at);
        loop {
            strand.park(until);
            // What unwinds was killed: nobody will notify it any more.
            if waiter.notified.load(Ordering::SeqCst) || is_late() || std::thread::panicking() {
                break;
            }
        }
        let notified = waiter.notified.load(Ordering::SeqCst);
        if !notified {
            lock(&self.waiting).retain(|other| !Arc::ptr_eq(other, &waiter));
        }
        match mutex.lock() {
            Ok(guard) => Ok((guard, WaitTimeoutResult(!notified))),
            Err(poisoned) => Err(PoisonError::new((poisoned.into_inner(), WaitTimeoutResult(!notified)))),
        }
    }

    fn wait_really<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        limit: Option<Duration>,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let inner = guard.inner.take().expect("held but for the time of a wait");
        let (inner, late) = match limit {
            None => (self.real.wait(inner).unwrap_or_else(PoisonError::into_inner), false),
            Some(limit) => {
                let (inner, late) = self.real.wait_timeout(inner, limit).unwrap_or_else(PoisonError::into_inner);
                (inner, late.timed_out())
            }
        };
        guard.inner = Some(inner);
        Ok((guard, WaitTimeoutResult(late)))
    }
}

impl Waiter {
    fn notify(&self) {
        self.notified.store(true, Ordering::SeqCst);
        self.strand.rouse();
    }
}
