//! Rank 2. Judges what clients of a log saw: a history of their operations in, a list of anomalies out.
//!
//! ```text
//!  client in any language ─▶ history (JSON lines, docs/formats/history.md) ─▶ Checker::feed ─▶ finish ─▶ Report
//!                                                                                               │
//!                     log.rs: offsets, acks, reads   clock.rs: real time   transaction.rs   group.rs: commits
//! ```
//! The checker knows no broker and no protocol: it holds what was promised (acknowledged sends, acknowledged commits)
//! against what was shown (polls, bounds), over all clients and in real time. It never calls something lost that has an
//! unknown outcome, and stays silent about a history that a correct log may give. `twin.rs` makes such histories and
//! plants anomalies in them; the crate's own test finds each sort in each of fifty.
//!
//! Not done here: writing histories of real clients (the rig does), moving data, reading files (`main.rs`).

mod anomaly;
mod checker;
mod clock;
mod group;
pub mod history;
mod log;
mod transaction;
pub mod twin;

pub use anomaly::{Anomaly, Kind, Report};
pub use checker::Checker;
