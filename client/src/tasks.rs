//! Who runs what. The lease only moves tasks; safety rests on the fences, never on its clock (L11).

use bytes::Bytes;
use catchwater_record::{CaptureId, ErrorCode, NodeName, PipelineName, RevisionNo, TaskEpoch, TaskId, TasksVersion};
use catchwater_runtime::Fut;

pub trait TaskClient: Send + Sync {
    /// Answers when something changed against `seen`, at the latest after `lease_ms / 3`; renews the node's lease.
    fn mine(&self, seen: TasksVersion) -> Fut<'_, Result<Tasks, TaskError>>;
    /// Returns the tasks that are no longer ours: their workers must end.
    fn report(&self, reports: Vec<Report>) -> Fut<'_, Result<Vec<TaskId>, TaskError>>;
    /// Drained: may start elsewhere at once.
    fn release(&self, task: TaskId, epoch: TaskEpoch) -> Fut<'_, Result<(), TaskError>>;
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tasks {
    pub version: TasksVersion,
    pub lease_ms: u32,
    pub tasks: Vec<Task>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Task {
    pub id: TaskId,
    pub kind: TaskKind,
    /// Strictly rising per task; a capture's `CaptureEpoch` is this number.
    pub epoch: TaskEpoch,
    pub wish: Wish,
    pub pipeline: PipelineName,
    pub revision: RevisionNo,
    /// Name of the source or sink inside the pipeline.
    pub node: NodeName,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TaskKind {
    Capture(CaptureId),
    Deliver,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    Run,
    Pause,
    Stop,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TaskState {
    Starting,
    Snapshot,
    Running,
    Retrying,
    Stopped,
    /// A person must act; the code says what.
    NeedsPerson,
    /// Everything it was to do is done.
    Complete,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    pub task: TaskId,
    pub epoch: TaskEpoch,
    pub state: TaskState,
    pub code: Option<ErrorCode>,
    pub progress: Bytes,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TaskError {
    #[error("not ready: {0}")]
    NotReady(String),
    #[error("outcome unknown")]
    Unknown,
    #[error("this client cannot do that")]
    Unsupported,
}
