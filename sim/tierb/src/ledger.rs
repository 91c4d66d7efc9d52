//! What clients asked and were told, as a history for `sim/check`, and what nobody else judges: who is served, what an
//! administrator was promised.

use catchwater_check::history::{Head, Micros, Op, VERSION};
use catchwater_check::{Checker, Report};
use catchwater_runtime::sim::World;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shared by all clients of a run.
pub struct Ledger {
    world: Arc<World>,
    inside: Mutex<Inside>,
    /// No client begins anything new.
    pub stop: AtomicBool,
    pub acked: AtomicU64,
    pub polled: AtomicU64,
    pub commits: AtomicU64,
    pub rebalances: AtomicU64,
    pub admin: AtomicU64,
    pub timeouts: AtomicU64,
}

#[derive(Default)]
struct Inside {
    ops: Vec<Op>,
    /// How often each client was served.
    served: BTreeMap<String, u64>,
    violations: Vec<String>,
    /// Topics by name: `Some(partitions)` = must be there, `None` = must be gone.
    topics: BTreeMap<String, Option<u64>>,
}

impl Ledger {
    pub fn new(world: Arc<World>) -> Arc<Ledger> {
        Arc::new(Ledger {
            world,
            inside: Mutex::default(),
            stop: AtomicBool::new(false),
            acked: AtomicU64::new(0),
            polled: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            rebalances: AtomicU64::new(0),
            admin: AtomicU64::new(0),
            timeouts: AtomicU64::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn now(&self) -> Micros {
        self.world.elapsed().as_micros() as u64
    }
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
    pub fn add(&self, op: Op) {
        self.lock().ops.push(op);
    }
    pub fn served(&self, client: &str) {
        *self.lock().served.entry(client.to_owned()).or_default() += 1;
    }
    pub fn expect_client(&self, client: &str) {
        self.lock().served.entry(client.to_owned()).or_default();
    }
    pub fn all_served(&self) -> BTreeMap<String, u64> {
        self.lock().served.clone()
    }
    pub fn violation(&self, what: String) {
        let at = self.world.elapsed().as_secs_f64();
        self.lock().violations.push(format!("at {at:.3} s: {what}"));
    }
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }
    /// `None` = it must be gone.
    pub fn topic(&self, name: &str, partitions: Option<u64>) {
        self.lock().topics.insert(name.to_owned(), partitions);
    }
    /// Nothing is known of it any more.
    pub fn topic_unknown(&self, name: &str) {
        self.lock().topics.remove(name);
    }
    pub fn topics(&self) -> BTreeMap<String, Option<u64>> {
        self.lock().topics.clone()
    }

    /// The checker's word on all that was noted.
    pub fn judge(&self, seed: u64) -> Report {
        let mut checker = Checker::new(Head { history: VERSION, run: "tier B".to_owned(), seed });
        std::mem::take(&mut self.lock().ops).into_iter().for_each(|op| checker.feed(op));
        checker.finish()
    }
}
