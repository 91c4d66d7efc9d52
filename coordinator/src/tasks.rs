//! Pure. Tasks: units of capture and delivery that exactly one node runs at a time.
//!
//! [`state`] is the fold of the records, [`assign`] chooses a node, [`lease`] is the decision part with its soft state
//! (which node was heard when, who waits). A task's epoch rises at every assignment and at every restart of its node;
//! fences carry it to the partitions and sinks, so an old holder that still runs can do no harm.

pub mod assign;
pub mod lease;
pub mod records;
pub mod state;

use bytes::Bytes;
use catchwater_record::{CaptureId, NodeName, PipelineName, RevisionNo, TaskEpoch, TaskId, TasksVersion};

/// What a node is told of its tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mine {
    pub version: TasksVersion,
    pub lease_ms: u32,
    pub tasks: Vec<Given>,
}

/// A task as its holder sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    pub id: TaskId,
    pub kind: Kind,
    pub epoch: TaskEpoch,
    pub wish: Wish,
    pub pipeline: PipelineName,
    pub revision: RevisionNo,
    pub node: NodeName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Capture(CaptureId),
    Deliver,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Run,
    Pause,
    Stop,
}

/// What a worker says of its task. Numbers of `state` and `code` are the client's; the machine only keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub task: TaskId,
    pub epoch: TaskEpoch,
    pub state: u8,
    /// 0 = none.
    pub code: u16,
    pub progress: Bytes,
}
