//! Rank 4. Reads the changes of one source and appends them to topics, each source transaction exactly once. Knows the
//! log only through `client`; connectors know neither Kafka nor topics.
//!
//! ```text
//! connectors/<system>/source ─► worker ─► backfill ─► route ─► emit ─► LogClient::append
//!                             ▲ confirm ◄── track ◄── answers      resume at start
//! ```

pub mod adhoc;
pub mod backfill;
pub mod bulk;
pub mod conformance;
pub mod converters;
pub mod creation;
pub mod emit;
pub mod error;
pub mod notification;
pub mod processors;
pub mod properties;
pub mod reading;
pub mod resume;
pub mod route;
pub mod shape;
pub mod signal;
pub mod source;
pub mod status;
pub mod tables;
pub mod testing;
pub mod track;
pub mod transforms;
pub mod wanted;
pub mod worker;

pub use error::{End, code};
pub use properties::Properties;
pub use reading::SnapshotMode;
pub use status::{State, Status, StatusHandle, TOO_MANY};
pub use wanted::TableLists;
pub use worker::{Config, Deps, Worker};
