//! The log as a client sees it.
//!
//! Walk: row-change 9/17
//!
//! Clauses (each a group of cases in `conformance`): **L1** appends of one handle to one partition enter in the order
//! of the calls; with a context nothing enters behind a hole. **L2** with a context each (capture, position) enters a
//! partition at most once. **L3** `Appended`/`AlreadyThere` = committed and durable in the topic's class. **L4**
//! `NotWritten` is sure for ever; a write without an answer is `Unknown`. **L5** after `open_capture(c, e)` no append
//! of `c` below `e` enters any partition of `c`. **L6** dropping a read does nothing; dropping `append` or `commit` is
//! `Unknown`. **L7** whole batches, as stored, ascending, below the high watermark; the first comes even above limits.
//! **L8** at most 8 appends in flight per handle and partition, the ninth is `NotWritten(Busy)`. **L9** every call
//! ends. **L10** reads see every write answered before they were called.

use bytes::Bytes;
use catchwater_base::Wall;
use catchwater_record::{
    CaptureEpoch, CaptureId, CommitSeq, GroupName, Offset, Position, ProducerId, TopicPartition, TxnId,
};
use catchwater_runtime::Fut;

/// Most appends in flight per handle and partition (L8).
pub const APPENDS_IN_FLIGHT_MAX: usize = 8;

pub trait LogClient: Send + Sync {
    /// Takes its place in the partition's order when called, not when polled. `batch` is one v2 batch; its base offset
    /// and epoch are patched on the way.
    fn append(&self, to: TopicPartition, batch: Bytes, how: Append) -> Fut<'_, AppendOutcome>;
    /// Long poll (L7). Ends at `min_bytes`, `max_wait_ms`, an error of a part, or loss of leadership.
    fn fetch(&self, want: Fetch) -> Fut<'_, Result<Vec<Fetched>, LogError>>;
    fn bounds(&self, of: Vec<TopicPartition>, at: At) -> Fut<'_, Result<Vec<Bounds>, LogError>>;
    fn committed(&self, group: GroupName, of: Vec<TopicPartition>) -> Fut<'_, Result<Vec<Option<Offset>>, LogError>>;
    /// Commits offsets without membership.
    fn commit(&self, group: GroupName, offsets: Vec<(TopicPartition, Offset)>) -> Fut<'_, Result<(), LogError>>;
    /// Fences every partition of the capture (its topics and the two internal ones) and returns where each ends.
    fn open_capture(&self, capture: CaptureId, epoch: CaptureEpoch) -> Fut<'_, Result<Vec<Tail>, LogError>>;
    fn last_positions(&self, capture: CaptureId, of: Vec<TopicPartition>) -> Fut<'_, Result<Vec<Tail>, LogError>>;
}

pub struct Append {
    pub context: Context,
    pub acks: Acks,
    pub timeout_ms: u32,
}

/// A context demands `All`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acks {
    All,
    Leader,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Context {
    None,
    Capture(CaptureContext),
}

/// What a capture says of the batch it appends; stored beside the rows in one entry, but for `prev`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CaptureContext {
    pub capture: CaptureId,
    pub epoch: CaptureEpoch,
    /// Bits of [`capture_flag`].
    pub flags: u8,
    pub commit_seq: CommitSeq,
    /// `last` of this capture's append before, in this partition; none = there was none.
    pub prev: Position,
    /// Position of the first and last record; both none for cuts and checkpoints (fenced, not deduplicated).
    pub first: Position,
    pub last: Position,
    pub txn: Option<TxnId>,
}

pub mod capture_flag {
    /// A source transaction ends in this batch.
    pub const ENDS: u8 = 1 << 0;
    /// Snapshot rows.
    pub const SNAPSHOT: u8 = 1 << 1;
}

#[must_use]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AppendOutcome {
    /// Base offset, and the first offset after the batch.
    Appended {
        offset: Offset,
        end: Offset,
    },
    /// Committed before; its rows lie below `end`.
    AlreadyThere {
        end: Offset,
    },
    /// first <= known < last: cut the batch, send the rest.
    Partly {
        known: Position,
    },
    /// known != prev: an earlier append did not enter; go on from `known`.
    Gap {
        known: Position,
    },
    Fenced {
        by: CaptureEpoch,
    },
    NotWritten(Why),
    /// It is, will be or will never be in the log: ask `last_positions`.
    Unknown,
}

/// Why a batch is surely not in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Why {
    #[error("no leader")]
    NoLeader,
    #[error("batch is invalid")]
    Invalid,
    #[error("batch is too large")]
    TooLarge,
    #[error("not enough replicas in sync")]
    NotInSync,
    #[error("no room (memory budget or disk)")]
    NoRoom,
    #[error("not allowed")]
    Denied,
    #[error("no such topic or partition")]
    NoTopic,
    #[error("too many appends in flight")]
    Busy,
    #[error("this client cannot do that")]
    Unsupported,
}

pub struct Fetch {
    pub parts: Vec<FetchPart>,
    pub isolation: Isolation,
    pub min_bytes: u32,
    pub max_wait_ms: u32,
    /// Upper bound of the sum of all batches, but for the first.
    pub credit_bytes: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchPart {
    pub at: TopicPartition,
    pub offset: Offset,
    pub max_bytes: u32,
}

#[derive(Clone, Debug)]
pub struct Fetched {
    pub at: TopicPartition,
    pub bounds: Bounds,
    pub aborted: Vec<AbortedTxn>,
    /// Whole batches back to back, from the one that holds the asked offset; empty = nothing there yet.
    pub batches: Result<Bytes, PartitionError>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AbortedTxn {
    pub producer: ProducerId,
    pub first_offset: Offset,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Isolation {
    Uncommitted,
    Committed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    Now,
    /// The first record with a timestamp at or after this moment, in [`Bounds::at_time`].
    Time(Wall),
}

/// `log_start <= lso <= high_watermark`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bounds {
    pub log_start: Offset,
    pub lso: Offset,
    pub high_watermark: Offset,
    pub at_time: Option<Offset>,
    /// What compaction has taken, at a moment not before the bytes were read. Over Kafka's protocol nobody says it: zeros.
    pub thinned: Thinned,
}

/// What compaction has taken from a partition. Zeros = nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Thinned {
    /// Records are missing below this offset only.
    pub below: Offset,
    /// Who began below `below` and builds states of what it reads has whole ones from this offset on: what took the
    /// place of a missing record lies below it.
    pub whole_from: Offset,
    /// A delete below it may be missing for good: who has read the rows that it deletes must begin again.
    pub deletes_gone: Offset,
}

/// Where a capture stands in one partition; `last` none = it wrote nothing here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tail {
    pub at: TopicPartition,
    pub last: Position,
    /// End of the partition.
    pub end: Offset,
}

/// Why a call of the log failed as a whole.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LogError {
    #[error("not ready: {0}")]
    NotReady(String),
    #[error("no such topic or partition: {0:?}")]
    NoTopic(TopicPartition),
    #[error("fenced by epoch {by}")]
    Fenced { by: CaptureEpoch },
    #[error("not allowed")]
    Denied,
    #[error("this client cannot do that")]
    Unsupported,
    #[error("outcome unknown")]
    Unknown,
    #[error("timed out")]
    TimedOut,
    #[error("storage failed: {0}")]
    Storage(String),
    #[error("connection: {0}")]
    Connection(String),
    /// Only for what should be impossible.
    #[error("bug: {0}")]
    Bug(String),
}

/// Why one partition of a fetch gave nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PartitionError {
    #[error("no such topic or partition")]
    NoTopic,
    #[error("not the leader")]
    NotLeader,
    #[error("offset below the log start or above its end")]
    OutOfRange,
    #[error("storage failed: {0}")]
    Storage(String),
    #[error("not allowed")]
    Denied,
    #[error("bug: {0}")]
    Bug(String),
}
