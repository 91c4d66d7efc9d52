//! Rank 8. Tier A: the cores in a loop of our own, one thread, simulated time. One `u64` seed gives one run.
//!
//! ```text
//!  swarm (rates of this seed) ─▶ world (event heap) ─▶ node = GroupCore per group + journal, segments, recovery
//!                                   │   ▲                      over a memory disk that forgets what was not synced
//!                                   ▼   │
//!                          net · nemesis · workload ─▶ check (after every step, and at the end)
//! ```
//! Nothing here is drawn from anything but the seed: equal seeds give equal trace hashes (`meta.rs`).

pub mod check;
mod clients;
pub mod clock;
mod compacted;
pub mod disk_atlas;
mod ending;
pub mod engine;
mod moves;
mod nemesis;
pub mod net;
mod node;
mod plots;
mod serve;
pub mod storage;
mod story;
pub mod swarm;
pub mod tell;
mod topics;
mod totals;
pub mod workload;
pub mod world;

pub use swarm::{Profile, Swarm};
pub use totals::Totals;
pub use world::{Outcome, run, run_swarm};

#[cfg(test)]
mod known;
#[cfg(test)]
mod meta;
#[cfg(sim)]
pub mod mutants;
