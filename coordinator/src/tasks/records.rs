//! Pure. Records of tasks in group 0. Page: `docs/formats/task-records.md`.

use super::{Kind, Wish};
use bytes::Bytes;
use catchwater_record::{NodeId, NodeName, PipelineName, RevisionNo, TaskEpoch, TaskId};

/// One fact. `None` = removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskRecord {
    Task { id: TaskId, task: Option<Task> },
    Status { id: TaskId, status: Option<Status> },
}

/// A task: what it is and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub kind: Kind,
    pub pipeline: PipelineName,
    /// Name of the source or sink inside the pipeline.
    pub node: NodeName,
    pub revision: RevisionNo,
    pub wish: Wish,
    /// Of the present holder, or the last one.
    pub epoch: TaskEpoch,
    pub holder: Option<Holder>,
}

/// The node that runs a task, and which start of it: another process under the id is not the holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    pub node: NodeId,
    pub process: [u8; 16],
}

/// What the holder reported last, of what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub epoch: TaskEpoch,
    pub state: u8,
    pub code: u16,
    pub at_ms: i64,
    pub progress: Bytes,
}
