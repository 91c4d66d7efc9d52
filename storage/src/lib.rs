//! Rank 2. The storage engine: journal, segments, recovery, and the log of one replica. Pure but for
//! `disk/{real,sys}.rs`; Raft indexes and terms are plain numbers to it; it knows no socket and no topic name.

pub mod disk;
pub mod entry;

pub use entry::*;
