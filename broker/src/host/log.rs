//! The log a machine stands on, as its host sees it. Implemented by the partition.
//!
//! Walk: commit-offset 8/8
//!
//! A machine's log is a log like any other: followers replicate it and replay nothing until they lead.

use bytes::{Bytes, BytesMut};
use catchwater_record::{LeaderEpoch, Offset};
use std::sync::Arc;

/// One partition, led here or not. Cheap to call but for [`HostLog::read_committed`], which may read files.
pub trait HostLog: Send + Sync {
    /// Proposes one batch of records; the order of the calls is the order in the log. Returns the offset after its last
    /// record. `Err` = surely not in the log. After `Ok` the batch is committed, or leadership is lost (then
    /// [`HostObserver::role`] says so and the outcome is unknown until the log is read again).
    fn propose(&self, batch: BytesMut) -> Result<Offset, ProposeError>;
    /// Whole batches from the one that holds `from` up to the high watermark, at least one unless `from` stands there;
    /// bounded by about 1 MiB a call. Blocking: called on a thread that may block.
    fn read_committed(&self, from: Offset) -> Result<Vec<Bytes>, ReadError>;
    /// Whether a batch would find room now. A host asks before it decides, because a decision that cannot be written
    /// costs a reload.
    fn room(&self) -> Result<(), ProposeError> {
        Ok(())
    }
    fn high_watermark(&self) -> Offset;
    /// First offset that is still there; a machine begins to replay here.
    fn log_start(&self) -> Offset {
        Offset::ZERO
    }
    /// The epoch this node leads in, from the moment an entry of its own term is committed (so that the high watermark
    /// is known and everything before it is there to replay).
    fn leader_epoch(&self) -> Option<LeaderEpoch>;
    /// Adds an observer; it first hears the present role, if this node leads, in a call of its own.
    fn watch(&self, observer: Arc<dyn HostObserver>);
}

/// Hears of a partition. Called after the partition's lock is released; implementations return at once and may call
/// the log.
pub trait HostObserver: Send + Sync {
    fn committed(&self, high_watermark: Offset);
    /// `Some` as [`HostLog::leader_epoch`] means it; `None` when leadership is lost or the partition goes away.
    fn role(&self, leads: Option<LeaderEpoch>);
}

/// Why a batch was not taken. Each is sure: the batch is not in the log and never will be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProposeError {
    #[error("this node does not lead the partition")]
    NotLeader,
    #[error("no room for the batch (memory budget or disk)")]
    NoRoom,
    #[error("batch is too large")]
    TooLarge,
    #[error("the log directory has stopped")]
    Stopped,
}

/// Why committed batches could not be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    #[error("offset {0} is below the log start")]
    BelowStart(Offset),
    #[error("damaged or unreadable: {0}")]
    Damaged(String),
    #[error("the partition is closed")]
    Closed,
}
