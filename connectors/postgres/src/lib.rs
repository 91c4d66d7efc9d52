//! Rank 5. PostgreSQL: reads its changes (`source`), applies changes to it (`sink`), and maps its types both ways
//! (`types`). The only crate that names a PostgreSQL driver.

mod catalog;
mod codes;
pub mod config;
mod dial;
mod fault;
mod session;
pub mod sink;
pub mod source;
mod tls;
pub mod types;

pub use config::{ConnectConfig, TableRef, UrlError};
pub use sink::{PgSink, SinkConfig};
pub use source::{PgSource, SourceConfig};
