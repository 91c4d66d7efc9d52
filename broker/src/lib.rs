//! Rank 4. A node of the log: Kafka's protocol on one side, partitions and their machines on the other.
//!
//! [`server`] and [`connection`] take requests in, [`api`] answers them, [`partition`] is where a batch becomes an entry,
//! [`host`] is where replicated machines live. No part of the path from a producer to a consumer decodes a record.

pub mod api;
pub mod audit;
mod broker;
pub mod budget;
pub mod connection;
pub mod error_code;
pub mod fetch;
pub mod host;
pub mod local;
pub mod metadata;
pub mod metrics;
pub mod node;
pub mod owners;
pub mod partition;
pub mod server;
pub mod session;
pub mod topics;
pub mod upkeep;
pub mod waiters;

pub use broker::{Broker, BrokerConfig, StartError};
pub use local::LocalClient;
