//! Rank 3. The four traits through which everything above the log sees it: [`LogClient`] (records), [`TaskClient`]
//! (who runs what), [`ControlClient`] (topics, configs, sources, pipelines). Implementations: `memory` (fake),
//! `broker/local` (in process), `remote` (Kafka's protocol, foreign clusters and the CLI).

pub mod conformance;
pub mod control;
pub mod log;
pub mod memory;
pub mod remote;
pub mod tasks;

pub use control::*;
pub use log::*;
pub use tasks::*;
