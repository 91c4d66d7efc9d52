//! [`TaskClient`] of this node: its tasks are records of group 0, asked for in process.

use super::LocalClient;
use crate::node::ControllerError;
use catchwater_client as client;
use catchwater_client::{TaskClient, TaskError};
use catchwater_coordinator::cluster::image::role;
use catchwater_coordinator::controller::{Reply, Request};
use catchwater_coordinator::tasks;
use catchwater_record::{TaskEpoch, TaskId, TasksVersion};
use catchwater_runtime::Fut;

impl TaskClient for LocalClient {
    fn mine(&self, seen: TasksVersion) -> Fut<'_, Result<client::Tasks, TaskError>> {
        Box::pin(async move {
            let request = Request::Mine { node: self.node.config.id, roles: role::ALL, seen };
            match self.node.controller.ask(request).await.map_err(refused)? {
                Reply::Mine(mine) => Ok(client::Tasks {
                    version: mine.version,
                    lease_ms: mine.lease_ms,
                    tasks: mine.tasks.into_iter().map(given).collect(),
                }),
                _ => Err(TaskError::Unknown),
            }
        })
    }

    fn report(&self, reports: Vec<client::Report>) -> Fut<'_, Result<Vec<TaskId>, TaskError>> {
        Box::pin(async move {
            let reports = reports
                .into_iter()
                .map(|r| tasks::Report {
                    task: r.task,
                    epoch: r.epoch,
                    state: state_number(r.state),
                    code: r.code.map_or(0, |c| c.0),
                    progress: r.progress,
                })
                .collect();
            let request = Request::Report { node: self.node.config.id, reports };
            match self.node.controller.ask(request).await.map_err(refused)? {
                Reply::Lost(lost) => Ok(lost),
                _ => Err(TaskError::Unknown),
            }
        })
    }

    fn release(&self, task: TaskId, epoch: TaskEpoch) -> Fut<'_, Result<(), TaskError>> {
        Box::pin(async move {
            let request = Request::Release { node: self.node.config.id, task, epoch };
            match self.node.controller.ask(request).await.map_err(refused)? {
                Reply::Released => Ok(()),
                _ => Err(TaskError::Unknown),
            }
        })
    }
}

fn refused(error: ControllerError) -> TaskError {
    match error {
        ControllerError::NotReady => TaskError::NotReady("group 0 is not ready here".into()),
        ControllerError::Unknown => TaskError::Unknown,
    }
}

fn given(task: tasks::Given) -> client::Task {
    client::Task {
        id: task.id,
        kind: match task.kind {
            tasks::Kind::Capture(capture) => client::TaskKind::Capture(capture),
            tasks::Kind::Deliver => client::TaskKind::Deliver,
        },
        epoch: task.epoch,
        wish: match task.wish {
            tasks::Wish::Run => client::Wish::Run,
            tasks::Wish::Pause => client::Wish::Pause,
            tasks::Wish::Stop => client::Wish::Stop,
        },
        pipeline: task.pipeline,
        revision: task.revision,
        node: task.node,
    }
}

/// As the machine keeps it: the place in the enum, fixed.
fn state_number(state: client::TaskState) -> u8 {
    match state {
        client::TaskState::Starting => 0,
        client::TaskState::Snapshot => 1,
        client::TaskState::Running => 2,
        client::TaskState::Retrying => 3,
        client::TaskState::Stopped => 4,
        client::TaskState::NeedsPerson => 5,
        client::TaskState::Complete => 6,
    }
}
