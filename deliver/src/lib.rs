//! Rank 4. Applies change topics to target systems: whole source transactions, rows and position in one target
//! transaction. Knows the log only through `client` and rows only as `change` types.
//!
//! `worker` is the one loop; `regroup` (partitions → transactions), `order` and `batch` (transactions → groups),
//! `commit` (what is durable), `retry` (what a failure leads to), `plan` and `evolve` (source tables → target tables)
//! `columns` (which columns, under which names), `mode` (what a change does), `park` (what the target refuses), `lag` (how far a change is on its way)
//! decide and are pure; `wire` reads records. `sink` is the contract, `conformance` the suite every sink passes,
//! `testing` a sink in memory, `trial` runs changes through all of it without a log.

pub mod batch;
pub mod busy;
pub mod columns;
pub mod commit;
pub mod conformance;
pub mod credit;
pub mod error;
pub mod evolve;
pub mod ident;
pub mod lag;
pub mod mode;
pub mod order;
pub mod park;
pub mod plan;
pub mod regroup;
pub mod retry;
pub mod sink;
pub mod status;
pub mod testing;
pub mod together;
pub mod trial;
pub mod wire;
pub mod worker;

pub use batch::BatchLimits;
pub use columns::Columns;
pub use error::Failure;
pub use evolve::OnSchemaChange;
pub use mode::Mode;
pub use park::OnRowError;
pub use plan::{ByTable, SchemaNaming, TableFilter};
pub use status::{State, Status, StatusHandle};
pub use wire::ChangeWire;
pub use worker::{Config, Deps, End, Worker};
