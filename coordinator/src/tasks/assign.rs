//! Pure. Which node a task goes to: the live node with the task's role that holds the fewest tasks, the lowest id on a
//! tie. A task that is held by a live node stays.

use super::records::{Holder, Task, TaskRecord};
use super::state::Tasks;
use super::{Kind, Wish};
use crate::cluster::image::role;
use catchwater_record::{NodeId, TaskEpoch, TaskId};
use std::collections::BTreeMap;

/// A node that may be given tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub holder: Holder,
    pub roles: u32,
}

/// Gives every task that should run, or be cleaned up, and has no live holder to a node. A holder that is alive keeps its tasks; one that
/// is gone loses them only if another node can take them, since a task without any node helps nobody.
pub fn assign(tasks: &Tasks, live: &[Candidate]) -> Vec<TaskRecord> {
    let mut load: BTreeMap<NodeId, usize> = live.iter().map(|c| (c.holder.node, 0)).collect();
    for (_, task) in tasks.iter() {
        // What a process held that is gone is no load of the node's present one.
        let holder = task.holder.filter(|h| live.iter().any(|c| c.holder == *h));
        if let Some(n) = holder.and_then(|h| load.get_mut(&h.node)) {
            *n += 1;
        }
    }
    let mut out = Vec::new();
    for (id, task) in tasks.iter() {
        let alive = task.holder.is_some_and(|h| live.iter().any(|c| c.holder == h));
        let wanted = match task.wish {
            Wish::Run => !alive,
            // Nobody is asked to hold a paused task; who holds it goes on holding it, in its present process.
            Wish::Pause => false,
            // Somebody must give back what it made elsewhere, and then release it.
            Wish::Stop => !alive,
        };
        if !wanted {
            continue;
        }
        let best = live
            .iter()
            .filter(|c| c.roles & role_of(task.kind) != 0)
            .min_by_key(|c| (load.get(&c.holder.node).copied().unwrap_or(0), c.holder.node));
        if let Some(candidate) = best {
            *load.entry(candidate.holder.node).or_default() += 1;
            out.push(give(id, task, candidate.holder));
        }
    }
    out
}

/// A new assignment, with the next epoch.
pub fn give(id: TaskId, task: &Task, holder: Holder) -> TaskRecord {
    let epoch = TaskEpoch(task.epoch.0 + 1);
    TaskRecord::Task { id, task: Some(Task { epoch, holder: Some(holder), ..task.clone() }) }
}

fn role_of(kind: Kind) -> u32 {
    match kind {
        Kind::Capture(_) => role::CAPTURE,
        Kind::Deliver => role::DELIVER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use catchwater_record::{CaptureId, RevisionNo};

    fn task(kind: Kind, wish: Wish, epoch: u32, holder: Option<Holder>) -> Task {
        Task {
            kind,
            pipeline: "p".into(),
            node: "n".into(),
            revision: RevisionNo(1),
            wish,
            epoch: TaskEpoch(epoch),
            holder,
        }
    }
    fn holder(node: u32, process: u8) -> Holder {
        Holder { node: NodeId(node), process: [process; 16] }
    }
    fn given(records: &[TaskRecord]) -> Vec<(u64, u32, u32)> {
        let one = |r: &TaskRecord| match r {
            TaskRecord::Task { id, task: Some(t) } => (id.0, t.holder.map_or(0, |h| h.node.0), t.epoch.0),
            other => panic!("{other:?}"),
        };
        records.iter().map(one).collect()
    }

    #[test]
    fn tasks_spread_over_live_nodes_with_the_role_and_epochs_rise() {
        let mut tasks = Tasks::default();
        let kinds = [Kind::Capture(CaptureId(1)), Kind::Deliver, Kind::Deliver, Kind::Deliver];
        for (i, kind) in kinds.into_iter().enumerate() {
            tasks.apply(&TaskRecord::Task { id: TaskId(i as u64 + 1), task: Some(task(kind, Wish::Run, 4, None)) });
        }
        let live = [
            Candidate { holder: holder(1, 1), roles: role::CAPTURE | role::DELIVER },
            Candidate { holder: holder(2, 1), roles: role::DELIVER },
        ];
        let records = assign(&tasks, &live);
        assert_eq!(given(&records), [(1, 1, 5), (2, 2, 5), (3, 1, 5), (4, 2, 5)]);
        records.iter().for_each(|r| tasks.apply(r));
        assert_eq!(assign(&tasks, &live), []);
        // Node 2 is silent: its tasks move; the restart of node 1 is another process.
        assert_eq!(given(&assign(&tasks, &live[..1])), [(2, 1, 6), (4, 1, 6)]);
        let restarted = [Candidate { holder: holder(1, 9), ..live[0] }, live[1]];
        assert_eq!(given(&assign(&tasks, &restarted)), [(1, 1, 6), (3, 1, 6)]);
        assert_eq!(assign(&tasks, &[]), []);
    }

    #[test]
    fn paused_tasks_are_given_to_nobody_and_stopping_ones_to_who_can_clean_up() {
        let mut tasks = Tasks::default();
        tasks.apply(&TaskRecord::Task { id: TaskId(1), task: Some(task(Kind::Deliver, Wish::Pause, 0, None)) });
        let stopping = task(Kind::Deliver, Wish::Stop, 1, Some(holder(1, 1)));
        tasks.apply(&TaskRecord::Task { id: TaskId(2), task: Some(stopping) });
        let live = [Candidate { holder: holder(2, 1), roles: role::ALL }];
        assert_eq!(given(&assign(&tasks, &live)), [(2, 2, 2)]);
        let same = [Candidate { holder: holder(1, 1), roles: role::ALL }];
        assert_eq!(assign(&tasks, &same), []);
    }
}
