//! `--cfg sim` only. A simulated world: one seed, one thread at a time, simulated time.
//!
//! ```text
//!  world = tokio on one thread, its clock paused: time jumps to the next timer when nothing can run
//!    host   = a process: its tasks, its strands, its sockets; killed as a whole
//!    task   = a tokio task, as ever
//!    strand = what is a thread outside: an operating system's thread that runs only while the executor stands still
//!             and waits for it (`thread`), so that blocking code runs here as it is written
//! ```
//! Equal seeds give equal runs ([`World::trace`]): tasks are polled in an order that depends on nothing else, `select!`
//! draws from the seed (`--cfg tokio_unstable`), and whatever is random asks [`draw`]. Outside of [`run`] every type of
//! this crate behaves as without the flag, so a binary that is built with it runs as usual.
//!
//! Interleavings are those of tasks and of what waits: between two waits a strand is not interrupted.

pub mod net;
pub mod thread;

use catchwater_base::Rng;
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

/// Wall time at which every world begins, µs: 2026-01-01.
const BEGIN_US: i64 = 1_767_225_600_000_000;
/// Turns that a killed host's tasks get for their end before this is a fault of the simulator.
const KILL_TURNS: u32 = 100_000;

/// See the file head.
pub struct World {
    rng: Mutex<Rng>,
    trace: AtomicU64,
    events: AtomicU64,
    begin: Instant,
    handle: Handle,
    net: net::Net,
    made: AtomicU64,
    faults: Mutex<Vec<String>>,
    outside: Mutex<Option<Arc<Host>>>,
    hosts: Mutex<Vec<Weak<Host>>>,
}

/// The world of this process, for [`watch`].
static WATCHED: Mutex<Weak<World>> = Mutex::new(Weak::new());

/// A process of the world.
pub struct Host {
    id: u64,
    name: String,
    dead: AtomicBool,
    /// Its wall clock is off by so much, µs.
    skew_us: AtomicI64,
    tasks: Mutex<Vec<AbortHandle>>,
    strands: Mutex<Vec<Arc<thread::Strand>>>,
}

#[derive(Clone)]
struct Here {
    world: Arc<World>,
    host: Arc<Host>,
    strand: Option<Arc<thread::Strand>>,
}

thread_local! {
    static HERE: RefCell<Option<Here>> = const { RefCell::new(None) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn here() -> Option<Here> {
    HERE.with(|here| here.borrow().clone())
}

/// Sets where this thread is until it is dropped.
struct Entered(Option<Here>);

fn enter(here: Option<Here>) -> Entered {
    Entered(HERE.with(|slot| slot.replace(here)))
}

impl Drop for Entered {
    fn drop(&mut self) {
        HERE.with(|slot| *slot.borrow_mut() = self.0.take());
    }
}

/// Runs `main` in a world of its own, outside of every host that it makes.
pub fn run<T, F: Future<Output = T>>(seed: u64, main: impl FnOnce(Arc<World>) -> F) -> T {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
    let runtime = builder.build().expect("a runtime without sockets takes nothing that can be missing");
    let entered = runtime.enter();
    let world = Arc::new(World {
        rng: Mutex::new(Rng::new(seed)),
        trace: AtomicU64::new(0xcbf2_9ce4_8422_2325),
        events: AtomicU64::new(0),
        begin: Instant::now(),
        handle: runtime.handle().clone(),
        net: net::Net::default(),
        made: AtomicU64::new(1),
        faults: Mutex::default(),
        outside: Mutex::new(None),
        hosts: Mutex::default(),
    });
    *lock(&WATCHED) = Arc::downgrade(&world);
    drop(entered);
    let outside = world.host("outside");
    *lock(&world.outside) = Some(outside.clone());
    let _here = enter(Some(Here { world: world.clone(), host: outside, strand: None }));
    let out = runtime.block_on(main(world.clone()));
    drop(runtime);
    lock(&world.outside).take();
    out
}

/// From outside of every world: a thread that looks once a second, and calls `stands` with what every host does when
/// nothing has happened for `looks` of them. A world that stands still does not end by itself: a thread of it waits for
/// something that only this file's clock, or a thread that waits for its turn, could give.
pub fn watch(looks: u32, stands: impl Fn(String) + Send + 'static) -> io::Result<()> {
    let look = move || {
        let (mut seen, mut still) = ((0, 0), 0);
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let Some(world) = lock(&WATCHED).upgrade() else {
                still = 0;
                continue;
            };
            // Looks are counted, not seconds: a process that was stopped from outside does not stand still.
            still = if seen == world.trace() { still + 1 } else { 0 };
            seen = world.trace();
            if still == looks {
                stands(world.report());
            }
        }
    };
    std::thread::Builder::new().name("watch".to_owned()).spawn(look).map(drop)
}

/// True inside of a world.
pub fn is_on() -> bool {
    HERE.with(|here| here.borrow().is_some())
}

/// Uniform in `0..bound`, from the world's seed; 0 outside of a world.
pub fn draw(bound: u64) -> u64 {
    here().map_or(0, |here| here.world.draw(bound))
}

/// Fills `out` from the seed; false outside of a world.
pub(crate) fn fill(out: &mut [u8]) -> bool {
    let Some(here) = here() else { return false };
    out.fill_with(|| here.world.draw(256) as u8);
    true
}

/// The wall clock of this host, µs since 1970.
pub(crate) fn wall_us() -> Option<i64> {
    let here = here()?;
    Some(BEGIN_US + here.world.elapsed().as_micros() as i64 + here.host.skew_us.load(Ordering::Relaxed))
}

/// Puts a fact into the trace.
pub fn note(tag: &'static str, value: u64) {
    if let Some(here) = here() {
        here.world.fold(tag, value);
    }
}

/// Runs two futures side by side to the end of both.
pub async fn both<A: Future, B: Future>(one: A, other: B) -> (A::Output, B::Output) {
    tokio::join!(one, other)
}

/// Something that must not happen; the run's judge reads it with [`World::faults`].
pub fn fault(what: String) {
    if let Some(here) = here() {
        let what = format!("{} at {:.3} s: {what}", here.host.name, here.world.elapsed().as_secs_f64());
        lock(&here.world.faults).push(what);
    }
}

impl World {
    pub fn host(&self, name: &str) -> Arc<Host> {
        let host = Arc::new(Host {
            id: self.number(),
            name: name.to_owned(),
            dead: AtomicBool::new(false),
            skew_us: AtomicI64::new(0),
            tasks: Mutex::default(),
            strands: Mutex::default(),
        });
        let mut hosts = lock(&self.hosts);
        hosts.retain(|host| host.strong_count() > 0);
        hosts.push(Arc::downgrade(&host));
        host
    }
    /// Every host with its tasks and strands, from any thread; waits for no lock.
    fn report(&self) -> String {
        let events = self.events.load(Ordering::Relaxed);
        let Ok(hosts) = self.hosts.try_lock() else { return format!("{events} events; the list of hosts is taken") };
        let mut out = format!("{events} events");
        for host in hosts.iter().filter_map(Weak::upgrade) {
            let dead = if host.is_dead() { ", killed" } else { "" };
            let tasks = host
                .tasks
                .try_lock()
                .map_or("?".to_owned(), |tasks| tasks.iter().filter(|task| !task.is_finished()).count().to_string());
            let strands: Vec<String> = match host.strands.try_lock() {
                Ok(strands) => strands.iter().filter(|s| !s.is_done()).map(|s| s.state()).collect(),
                Err(_) => vec!["?".to_owned()],
            };
            if tasks != "0" || !strands.is_empty() {
                out.push_str(&format!("\n  {}{dead}: {tasks} tasks; {}", host.name, strands.join("; ")));
            }
        }
        out
    }
    pub fn net(&self) -> &net::Net {
        &self.net
    }
    pub fn draw(&self, bound: u64) -> u64 {
        lock(&self.rng).below(bound)
    }
    /// A generator of its own for a part.
    pub fn fork(&self, label: u64) -> Rng {
        lock(&self.rng).fork(label)
    }
    pub fn elapsed(&self) -> Duration {
        Instant::now() - self.begin
    }
    /// The hash over all that happened, and how many things that were.
    pub fn trace(&self) -> (u64, u64) {
        (self.trace.load(Ordering::Relaxed), self.events.load(Ordering::Relaxed))
    }
    /// Panics of tasks and strands, and whatever else called [`fault`].
    pub fn faults(&self) -> Vec<String> {
        lock(&self.faults).clone()
    }

    fn number(&self) -> u64 {
        self.made.fetch_add(1, Ordering::Relaxed)
    }

    fn fold(&self, tag: &'static str, value: u64) {
        let mut trace = self.trace.load(Ordering::Relaxed);
        let time = self.elapsed().as_micros() as u64;
        for byte in tag.bytes().chain(value.to_le_bytes()).chain(time.to_le_bytes()) {
            trace = (trace ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        self.trace.store(trace, Ordering::Relaxed);
        self.events.fetch_add(1, Ordering::Relaxed);
    }
}

impl Host {
    pub fn id(&self) -> u64 {
        self.id
    }
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }
    pub fn set_skew_us(&self, us: i64) {
        self.skew_us.store(us, Ordering::Relaxed);
    }

    /// Starts a task of this host.
    pub fn spawn<T: Send + 'static>(
        self: &Arc<Self>,
        future: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let handle = tokio::spawn(Scoped { host: self.clone(), future: Some(Box::pin(future)) });
        let mut tasks = lock(&self.tasks);
        tasks.retain(|task| !task.is_finished());
        tasks.push(handle.abort_handle());
        handle
    }

    /// Tasks and strands that have not ended.
    pub fn running(&self) -> (usize, usize) {
        let tasks = lock(&self.tasks).iter().filter(|task| !task.is_finished()).count();
        (tasks, lock(&self.strands).iter().filter(|strand| !strand.is_done()).count())
    }

    /// Ends everything of this host where it stands, as a death of its process (`Loud`: its peers learn that their
    /// connections are gone) or of its machine (`Silent`). It does not come back: what restarts is another host.
    pub async fn kill(&self, net: &net::Net, how: net::Death) {
        self.dead.store(true, Ordering::Relaxed);
        net.host_died(self.id, how);
        lock(&self.tasks).iter().for_each(AbortHandle::abort);
        for _ in 0..KILL_TURNS {
            let strands = lock(&self.strands).clone();
            strands.iter().for_each(|strand| strand.rouse());
            if self.running() == (0, 0) {
                lock(&self.strands).clear();
                return;
            }
            tokio::task::yield_now().await;
        }
        fault(format!("{:?} tasks and strands of {} do not end when it is killed", self.running(), self.name));
    }
}

/// A future that knows its host.
struct Scoped<F> {
    host: Arc<Host>,
    future: Option<Pin<Box<F>>>,
}

impl<F> Scoped<F> {
    fn enter(&self) -> Entered {
        let mut at = here();
        if let Some(at) = &mut at {
            at.host = self.host.clone();
        }
        enter(at)
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _entered = self.enter();
        match &mut self.future {
            Some(future) => future.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

impl<F> Drop for Scoped<F> {
    fn drop(&mut self) {
        let _entered = self.enter();
        self.future = None;
    }
}

/// `tokio::spawn`, on the host of the caller.
pub(crate) fn start<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    match here() {
        None => tokio::spawn(future),
        Some(here) => here.host.spawn(future),
    }
}

/// `tokio::task::spawn_blocking`, as a strand of the caller's host.
pub(crate) fn start_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    match here() {
        None => tokio::task::spawn_blocking(work),
        Some(here) => thread::start(here, "blocking", work),
    }
}
