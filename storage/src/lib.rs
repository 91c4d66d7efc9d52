//! Rank 2. The storage engine: journal, segments, recovery, and the log of one replica. Pure but for
//! `disk/{real,sys}.rs`; Raft indexes and terms are plain numbers to it; it knows no socket and no topic name.

pub mod capture_pos;
pub mod check;
pub mod compact;
pub mod compact_run;
pub mod dir;
pub mod disk;
pub mod dump;
pub mod entry;
pub mod fences;
pub mod format;
pub mod journal;
pub mod log;
pub mod producer;
pub mod read;
pub mod recover;
pub mod relaxed;
pub mod repair;
pub mod retain;
pub mod segment;
pub mod table;
pub mod txn;

pub use entry::*;
pub use format::context::{CaptureContext, EntryContext};
pub use format::txn::Aborted;
pub use log::{Check, Log, LogConfig, LogOpenError, ReadPlan, TailBudget};
pub use producer::ProducerBudget;
pub use table::{MaxTime, Unknown};
