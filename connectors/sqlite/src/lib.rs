//! Rank 5. SQLite as source (triggers in the same database), as sink (rows and position in one transaction), and the
//! demo shop of `catchwater dev`.
//!
//! `rusqlite` is named here and nowhere else. Its calls block, so they run on a thread of their own (`source/stream`) or
//! on the blocking pool, never on a worker thread of the runtime.

pub mod catalog;
pub mod codes;
pub mod config;
pub mod demo;
pub mod fault;
pub mod sink;
pub mod source;
pub mod types;

pub use config::{SinkConfig, SourceConfig};
pub use sink::SqliteSink;
pub use source::SqliteSource;
