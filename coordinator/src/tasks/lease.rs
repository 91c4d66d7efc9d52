//! Pure. Who was heard when, who waits for news, and what follows from silence.
//!
//! ```text
//!  registers (new process) ─▶ its old holds are void ─▶ assigned again, epoch + 1
//!  asks for its tasks       ─▶ heard; may be given tasks; waits for a change, at most a third of the lease
//!  silent for the lease     ─▶ its tasks go to another live node, if there is one
//!  releases                 ─▶ free at once; a stopped task is gone then
//! ```
//! The lease only moves tasks. That the old holder can do no harm rests on the epoch in the fences.

use super::assign::{Candidate, assign};
use super::records::{Holder, Status, Task, TaskRecord};
use super::state::Tasks;
use super::{Given, Mine, Report, Wish};
use crate::cluster::image::Image;
use catchwater_base::{Mono, Now, Ticket};
use catchwater_record::{NodeId, TaskEpoch, TaskId, TasksVersion};
use std::collections::BTreeMap;

/// Progress of a task that changes neither state nor code is written at most this often.
const PROGRESS_EVERY_MS: i64 = 10_000;

/// The leader's own knowledge.
#[derive(Debug, Default)]
pub struct Soft {
    /// Last sign of a node; absent = silent past its lease.
    heard: BTreeMap<NodeId, Mono>,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    node: NodeId,
    seen: TasksVersion,
    until: Mono,
}

impl Soft {
    /// After a load every registered node counts as just heard.
    pub fn new(image: &Image, now: Now) -> Self {
        Soft { heard: image.brokers().map(|b| (b.id, now.mono)).collect(), waiting: Vec::new() }
    }

    pub fn hear(&mut self, node: NodeId, now: Now) {
        self.heard.insert(node, now.mono);
    }

    pub fn deadline(&self, lease_ms: u32) -> Option<Mono> {
        let lease = self.heard.values().min().map(|at| at.plus_millis(u64::from(lease_ms)));
        let wait = self.waiting.iter().map(|w| w.until).min();
        lease.into_iter().chain(wait).min()
    }

    /// Forgets nodes that were silent for the lease.
    pub fn expire(&mut self, now: Now, lease_ms: u32) {
        self.heard.retain(|_, at| at.plus_millis(u64::from(lease_ms)) > now.mono);
    }

    pub fn wait(&mut self, ticket: Ticket, node: NodeId, seen: TasksVersion, until: Mono) {
        self.waiting.push(Waiting { ticket, node, seen, until });
    }

    /// Those who wait and are due: something changed against what they saw, or their time is over.
    pub fn due(&mut self, now: Now, version: TasksVersion) -> Vec<(Ticket, NodeId)> {
        let (due, rest) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition::<Vec<_>, _>(|w| w.seen != version || w.until <= now.mono);
        self.waiting = rest;
        due.into_iter().map(|w| (w.ticket, w.node)).collect()
    }

    fn live(&self, image: &Image) -> Vec<Candidate> {
        image
            .brokers()
            .filter(|b| self.heard.contains_key(&b.id))
            .map(|b| Candidate { holder: Holder { node: b.id, process: b.process }, roles: b.roles })
            .collect()
    }
}

/// What follows from who is alive now.
pub fn settle(image: &Image, tasks: &Tasks, soft: &Soft) -> Vec<TaskRecord> {
    assign(tasks, &soft.live(image))
}

/// The tasks of a node, as its present process holds them.
pub fn mine(image: &Image, tasks: &Tasks, node: NodeId, lease_ms: u32) -> Mine {
    let process = image.broker(node).map(|b| b.process);
    let tasks_of = tasks
        .held_by(node)
        .filter(|(_, t)| t.holder.map(|h| h.process) == process)
        .map(|(id, t)| Given {
            id,
            kind: t.kind,
            epoch: t.epoch,
            wish: t.wish,
            pipeline: t.pipeline.clone(),
            revision: t.revision,
            node: t.node.clone(),
        })
        .collect();
    Mine { version: tasks.version(), lease_ms, tasks: tasks_of }
}

/// Keeps what is worth keeping of the reports; returns the tasks that are not the reporter's.
pub fn report(tasks: &Tasks, now: Now, node: NodeId, reports: &[Report], out: &mut Vec<TaskRecord>) -> Vec<TaskId> {
    let at_ms = now.wall.as_millis();
    let mut lost = Vec::new();
    for report in reports {
        if held(tasks, node, report.task, report.epoch).is_none() {
            lost.push(report.task);
            continue;
        }
        let keep = tasks.status(report.task).is_none_or(|s| {
            let changed = s.epoch != report.epoch || s.state != report.state || s.code != report.code;
            changed || (s.progress != report.progress && at_ms - s.at_ms >= PROGRESS_EVERY_MS)
        });
        if keep {
            let Report { task, epoch, state, code, progress } = report.clone();
            let status = Status { epoch, state, code, at_ms, progress };
            out.push(TaskRecord::Status { id: task, status: Some(status) });
        }
    }
    lost
}

/// The holder has drained its task; one that was to stop is gone then. A release of an older epoch changes nothing: the task has gone on.
pub fn release(tasks: &Tasks, node: NodeId, id: TaskId, epoch: TaskEpoch, out: &mut Vec<TaskRecord>) {
    let Some(task) = held(tasks, node, id, epoch) else { return };
    if task.wish == Wish::Stop {
        out.push(TaskRecord::Status { id, status: None });
        out.push(TaskRecord::Task { id, task: None });
        return;
    }
    out.push(TaskRecord::Task { id, task: Some(Task { holder: None, ..task.clone() }) });
}

fn held(tasks: &Tasks, node: NodeId, id: TaskId, epoch: TaskEpoch) -> Option<&Task> {
    tasks.get(id).filter(|t| t.epoch == epoch && t.holder.is_some_and(|h| h.node == node))
}
