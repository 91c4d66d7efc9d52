//! Rank 8. Tier B: the whole broker as it is shipped, in a simulated world (`runtime::sim`): its tasks and threads, its
//! sockets, on a disk that forgets what was not synced. One `u64` seed gives one run. Built with `--cfg sim` only.
//!
//! ```text
//!  run ─▶ node: Broker::start_on ── sockets ──▶ clients: produce · consume · group · admin
//!   │       │ killed, cut, shut down, restarted          │ what they asked and what they were told
//!   │     disk (memory, faults, delays)                  ▼
//!   └─▶ nemesis: what goes wrong, when            ledger ─▶ sim/check ─▶ verdict
//! ```
//! Two phases: faults, then a healed world in which everybody must be served within [`run::SERVED_WITHIN`]; then the node
//! is shut down, must leave nothing behind, is started once more, and all is read from the beginning.
//!
//! Tier A (`sim/`) judges the cores with several replicas; here it is what stands around them: connections, waiters,
//! cancellation, threads, recovery in its real order, shutdown.
#![cfg(sim)]

mod admin;
mod client;
mod consume;
mod disk;
mod group;
mod ledger;
mod nemesis;
mod node;
mod produce;
pub mod run;
mod swarm;

#[cfg(test)]
mod tests;
