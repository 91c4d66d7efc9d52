//! Pure. The fold of the task records: equal on every node at one offset of group 0.

use super::Kind;
use super::records::{Status, Task, TaskRecord};
use catchwater_record::{CaptureId, NodeId, PipelineName, TaskEpoch, TaskId, TasksVersion};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tasks {
    /// TASK records folded so far.
    version: TasksVersion,
    tasks: BTreeMap<TaskId, Task>,
    status: BTreeMap<TaskId, Status>,
    /// Highest epoch a capture ever had, also of tasks that are gone: its partitions are fenced by it.
    floors: BTreeMap<CaptureId, TaskEpoch>,
}

impl Tasks {
    pub fn version(&self) -> TasksVersion {
        self.version
    }
    pub fn iter(&self) -> impl Iterator<Item = (TaskId, &Task)> {
        self.tasks.iter().map(|(id, task)| (*id, task))
    }
    pub fn get(&self, id: TaskId) -> Option<&Task> {
        self.tasks.get(&id)
    }
    pub fn status(&self, id: TaskId) -> Option<&Status> {
        self.status.get(&id)
    }
    pub fn of_pipeline<'a>(&'a self, name: &'a PipelineName) -> impl Iterator<Item = (TaskId, &'a Task)> {
        self.iter().filter(move |(_, task)| task.pipeline == *name)
    }
    pub fn held_by(&self, node: NodeId) -> impl Iterator<Item = (TaskId, &Task)> {
        self.iter().filter(move |(_, task)| task.holder.is_some_and(|h| h.node == node))
    }
    /// The epoch below which nobody may act for the capture.
    pub fn capture_floor(&self, capture: CaptureId) -> TaskEpoch {
        self.floors.get(&capture).copied().unwrap_or_default()
    }

    /// The only change of state.
    pub fn apply(&mut self, record: &TaskRecord) {
        match record {
            TaskRecord::Task { id, task } => {
                self.version.0 += 1;
                match task {
                    Some(task) => {
                        if let Some(before) = self.tasks.get(id) {
                            assert!(before.epoch <= task.epoch, "the epoch of {id} would fall");
                        }
                        if let Kind::Capture(capture) = task.kind {
                            let floor = self.floors.entry(capture).or_default();
                            *floor = (*floor).max(task.epoch);
                        }
                        self.tasks.insert(*id, task.clone());
                    }
                    None => {
                        self.tasks.remove(id);
                        self.status.remove(id);
                    }
                }
            }
            TaskRecord::Status { id, status: Some(status) } => {
                self.status.insert(*id, status.clone());
            }
            TaskRecord::Status { id, status: None } => {
                self.status.remove(id);
            }
        }
    }
}
