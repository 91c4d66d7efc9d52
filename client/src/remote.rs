//! A bounded Kafka client over `runtime::net`: one connection per broker, one request in flight on each. Used by the CLI, the
//! tests and (later) sources and sinks that are Kafka clusters.
//!
//! Invariants: a reply is foreign, so it goes through the same reader and caps as a request does in the broker; a write
//! whose answer is lost is [`ProduceOutcome::Unknown`], never sent again and never given an offset; a call dropped or
//! timed out in the middle throws its connection away.
//! Not done here: consumer groups with membership, transactions, TLS, SASL.

mod admin;
mod connection;
mod fetch;
mod group;
mod metadata;
mod produce;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use catchwater_protocol::reader::DecodeError;
use catchwater_protocol::writer::EncodeError;
use catchwater_protocol::{Request, code, frame};

pub use admin::{ConfigEntry, CreatedTopic, NewTopic, ResourceKind};
pub use fetch::{
    FetchFrom, FetchLimits, Fetched, Isolation, OffsetAt, Record, RecordsError, decode_records, end_of_batches,
};
pub use group::{CommittedOffset, GroupOffset};
pub use metadata::{BrokerInfo, ClusterInfo, PartitionInfo, TopicInfo};
pub use produce::{Acks, ProduceOutcome};

use connection::Connection;

/// Settings of a client; all have defaults.
#[derive(Clone, Debug)]
pub struct Options {
    pub client_id: String,
    /// Limit of one call, waiting for a leader included.
    pub timeout: Duration,
    /// Largest reply that is accepted, bytes.
    pub reply_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            client_id: "catchwater".into(),
            timeout: Duration::from_secs(30),
            reply_bytes_max: frame::REQUEST_BYTES_MAX,
        }
    }
}

/// A Kafka error code with its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Code(pub i16);

impl Code {
    pub fn name(self) -> &'static str {
        code::name(self.0)
    }
    fn check(code: i16) -> Result<(), Code> {
        if code == 0 { Ok(()) } else { Err(Code(code)) }
    }
    /// The answer may be another one after the metadata was read again.
    fn is_stale_metadata(self) -> bool {
        matches!(self.0, 3 | 5 | 6 | 9 | 74 | 75 | 100 | 103)
    }
    /// Coordinator loading, unknown or moved.
    fn is_stale_coordinator(self) -> bool {
        matches!(self.0, 14..=16)
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}

/// What can happen to a call.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("cannot connect to {address}")]
    Connect {
        address: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{api} to {address}: no answer within {limit:?}")]
    TimedOut { api: &'static str, address: String, limit: Duration },
    #[error("{api}: {address} closed the connection")]
    Closed { api: &'static str, address: String },
    #[error("{api}: connection to {address} failed")]
    Io {
        api: &'static str,
        address: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{api}: reply of {address} is not a frame")]
    Frame {
        api: &'static str,
        address: String,
        #[source]
        source: frame::FrameError,
    },
    #[error("{api}: reply of {address} cannot be read")]
    Decode {
        api: &'static str,
        address: String,
        #[source]
        source: DecodeError,
    },
    #[error("{api}: request cannot be expressed at version {version}")]
    Encode {
        api: &'static str,
        version: i16,
        #[source]
        source: EncodeError,
    },
    #[error("{api}: {address} answered another request")]
    Correlation { api: &'static str, address: String },
    #[error("{api}: {address} speaks versions {theirs:?}, we speak {ours:?}")]
    Unsupported { api: &'static str, address: String, ours: (i16, i16), theirs: Option<(i16, i16)> },
    #[error("{api}: {code}{}", message.as_ref().map(|m| format!(": {m}")).unwrap_or_default())]
    Refused { api: &'static str, code: Code, message: Option<String> },
    #[error("topic {topic} partition {partition} has no leader")]
    NoLeader { topic: String, partition: i32 },
    #[error("{api}: the reply lacks what was asked for")]
    Missing { api: &'static str },
}

impl RemoteError {
    fn refused(api: &'static str, code: i16, message: Option<&str>) -> RemoteError {
        RemoteError::Refused { api, code: Code(code), message: message.map(str::to_owned) }
    }
    /// The broker surely did nothing with the request: it never left, or its refusal was read.
    pub fn is_sure(&self) -> bool {
        matches!(
            self,
            RemoteError::Connect { .. }
                | RemoteError::Encode { .. }
                | RemoteError::Unsupported { .. }
                | RemoteError::Refused { .. }
                | RemoteError::NoLeader { .. }
        )
    }
    pub fn code(&self) -> Option<Code> {
        match self {
            RemoteError::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// Pause before metadata or a coordinator is asked for again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A cluster seen through its bootstrap addresses. Cheap to clone; dropping the last clone closes every socket.
#[derive(Clone)]
pub struct Kafka {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    bootstrap: Vec<Arc<Connection>>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    brokers: HashMap<i32, Arc<Connection>>,
    topics: HashMap<String, TopicInfo>,
}

impl Kafka {
    /// Connects to the first of `bootstrap` (`host:port`) that answers.
    pub async fn connect<S: AsRef<str>>(bootstrap: &[S], options: Options) -> Result<Kafka, RemoteError> {
        let connections =
            bootstrap.iter().map(|a| Arc::new(Connection::new(a.as_ref().to_owned(), &options))).collect();
        let kafka =
            Kafka { inner: Arc::new(Inner { options, bootstrap: connections, known: Mutex::new(Known::default()) }) };
        kafka.cluster().await?;
        Ok(kafka)
    }

    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.inner.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request to any broker; `make` gets the version that both sides speak.
    async fn anywhere<R: Request>(&self, make: impl Fn(i16) -> R) -> Result<(i16, R::Response), RemoteError> {
        let mut last = None;
        for connection in &self.inner.bootstrap {
            match connection.call(R::MAX, self.inner.options.timeout, &make).await {
                Ok(reply) => return Ok(reply),
                Err(e @ RemoteError::Connect { .. }) => last = Some(e),
                Err(e) => return Err(e),
            }
        }
        Err(last.unwrap_or(RemoteError::Missing { api: R::NAME }))
    }

    fn broker(&self, node: i32) -> Option<Arc<Connection>> {
        self.known().brokers.get(&node).cloned()
    }
}
