//! A cluster in memory: [`LogClient`], [`TaskClient`] and [`ControlClient`] with all their clauses, for tests of what
//! stands above the log. One [`MemoryCluster`], any number of handles ([`MemoryCluster::client`]).
//!
//! An append takes its place and is committed when it is called; what a caller sees of it is up to the fault hook
//! ([`MemoryCluster::on_append`]): refused, answered `Unknown` though written, lost with `Unknown`, answered late. So a
//! worker meets every outcome of the contract, and the state stays a plain list of batches one can look at.
//! Not done here: retention, compaction but by hand ([`MemoryCluster::compact`]), Kafka transactions.

mod control;

use crate::control::*;
use crate::log::*;
use crate::tasks::*;
use bytes::{Bytes, BytesMut};
use catchwater_base::{Rng, crash_point};
use catchwater_record::batch::{self, BatchView, iterate};
use catchwater_record::compress;
use catchwater_record::{
    Caller, CaptureEpoch, CaptureId, GroupName, Incarnation, LeaderEpoch, NodeName, Offset, PipelineName, Position,
    RevisionNo, SourceName, TaskEpoch, TaskId, TasksVersion, TopicId, TopicName, TopicPartition,
};
use catchwater_runtime::{Fut, sync::watch};
use std::collections::BTreeMap;
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Names of the two topics every capture's fence stands in (capture.md 4.4).
pub const CAPTURES_TOPIC: &str = "__catchwater_captures";
pub const CUTS_TOPIC: &str = "__catchwater_cuts";
/// Partitions of each of the two.
pub const INTERNAL_PARTITIONS: u32 = 16;

/// What happens to one append.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AppendFault {
    #[default]
    None,
    /// Surely not in the log.
    Refuse(Why),
    /// In the log, but the answer is lost.
    UnknownWritten,
    /// Not in the log, and nobody says so.
    UnknownLost,
    /// In the log; the answer comes after so many milliseconds.
    Late(u64),
}

/// Decides for each append, in the order of the calls.
pub type AppendHook = dyn FnMut(&TopicPartition, &Append) -> AppendFault + Send;

/// The cluster. Cheap to clone.
#[derive(Clone)]
pub struct MemoryCluster {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Rises with every change; long polls watch it.
    changed: watch::Sender<u64>,
    hook: Mutex<Option<Box<AppendHook>>>,
    /// Most that a fetch asked of a partition, bytes.
    asked: Mutex<BTreeMap<TopicPartition, u32>>,
}

struct State {
    rng: Rng,
    topics: BTreeMap<TopicId, TopicState>,
    sources: BTreeMap<SourceName, CaptureId>,
    /// Of those that have begun again.
    incarnations: BTreeMap<SourceName, u16>,
    /// Highest epoch seen per capture: from tasks and from `open_capture`.
    leases: BTreeMap<CaptureId, CaptureEpoch>,
    offsets: BTreeMap<(GroupName, TopicPartition), Offset>,
    pipelines: BTreeMap<PipelineName, Pipeline>,
    revisions: BTreeMap<PipelineName, Vec<Revision>>,
    tasks: BTreeMap<TaskId, Task>,
    tasks_version: u64,
    reports: BTreeMap<TaskId, Report>,
    next_capture: u64,
    next_task: u64,
}

struct TopicState {
    name: TopicName,
    owner: Owner,
    configs: BTreeMap<String, String>,
    partitions: Vec<PartitionState>,
}

#[derive(Default)]
struct PartitionState {
    batches: Vec<(Offset, Bytes)>,
    end: Offset,
    captures: BTreeMap<CaptureId, (CaptureEpoch, Position)>,
    thinned: Thinned,
}

/// One handle: its own bound of appends in flight.
pub struct MemoryClient {
    shared: Arc<Shared>,
    in_flight: Arc<Mutex<BTreeMap<TopicPartition, usize>>>,
}

impl MemoryCluster {
    /// `seed` draws the topic ids.
    pub fn new(seed: u64) -> Self {
        let state = State {
            rng: Rng::new(seed),
            topics: BTreeMap::new(),
            sources: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            leases: BTreeMap::new(),
            offsets: BTreeMap::new(),
            pipelines: BTreeMap::new(),
            revisions: BTreeMap::new(),
            tasks: BTreeMap::new(),
            tasks_version: 1,
            reports: BTreeMap::new(),
            next_capture: 1,
            next_task: 1,
        };
        let (changed, _) = watch::channel(0);
        let (state, hook, asked) = (Mutex::new(state), Mutex::default(), Mutex::default());
        MemoryCluster { shared: Arc::new(Shared { state, changed, hook, asked }) }
    }

    /// A handle that implements all three traits.
    pub fn client(&self) -> Arc<MemoryClient> {
        Arc::new(MemoryClient { shared: self.shared.clone(), in_flight: Arc::default() })
    }

    /// Sets the fault hook; `None` = no faults.
    pub fn on_append(&self, hook: Option<Box<AppendHook>>) {
        *self.shared.hook.lock().unwrap_or_else(|e| e.into_inner()) = hook;
    }

    /// Most that a fetch asked of the partition so far, bytes.
    pub fn asked_max(&self, at: TopicPartition) -> u32 {
        self.shared.asked.lock().unwrap_or_else(|e| e.into_inner()).get(&at).copied().unwrap_or(0)
    }

    /// All batches of a partition with their base offsets, as a reader would get them.
    pub fn batches(&self, at: TopicPartition) -> Vec<(Offset, Bytes)> {
        self.shared.lock().partition(at).map(|p| p.batches.clone()).unwrap_or_default()
    }

    /// What compaction makes of a partition: records that `keep` does not want are not there any more, and readers are told
    /// `thinned`. A batch that has lost its last record goes, unless it is the newest.
    pub fn compact(&self, at: TopicPartition, thinned: Thinned, keep: &mut dyn FnMut(Offset) -> bool) {
        use catchwater_record::batch::rewrite::{Rewrite, Rewritten, empty, rewrite};
        let mut state = self.shared.lock();
        let Some(p) = state.topics.get_mut(&at.topic).and_then(|t| t.partitions.get_mut(at.partition.0 as usize))
        else {
            return;
        };
        let newest = p.batches.last().map(|(base, _)| *base);
        p.batches.retain_mut(|(base, bytes)| {
            let Ok(view) = BatchView::new(bytes) else { return true };
            let how = Rewrite { output_bytes_max: 64 << 20, horizon_ms: 0, horizon_always: false };
            let mut keep =
                |r: &iterate::RecordView<'_>| keep(base.plus(u64::try_from(r.offset_delta).unwrap_or_default()));
            let left = match rewrite(&view, how, &mut keep) {
                Ok(Rewritten::New(left)) => left,
                Ok(Rewritten::Nothing) if Some(*base) == newest => empty(&view),
                Ok(Rewritten::Nothing) => return false,
                Ok(Rewritten::Same) | Err(_) => return true,
            };
            *bytes = left.freeze();
            true
        });
        p.thinned = thinned;
    }

    /// Every topic: name, id, partitions.
    pub fn topics(&self) -> Vec<(TopicName, TopicId, u32)> {
        self.shared.lock().topics.iter().map(|(id, t)| (t.name.clone(), *id, t.partitions.len() as u32)).collect()
    }

    /// The settings a topic was made with.
    pub fn topic_configs(&self, id: TopicId) -> BTreeMap<String, String> {
        self.shared.lock().topics.get(&id).map(|t| t.configs.clone()).unwrap_or_default()
    }

    /// Gives a task out (again): a fresh epoch, so the holder before has lost it.
    pub fn assign(&self, kind: TaskKind, pipeline: &str, node: &str) -> Task {
        let mut state = self.shared.lock();
        let task = state.assign(kind, pipeline.into(), node.into());
        drop(state);
        self.shared.bump();
        task
    }

    /// Changes what a task is wished to do.
    pub fn wish(&self, id: TaskId, wish: Wish) {
        let mut state = self.shared.lock();
        if let Some(t) = state.tasks.get_mut(&id) {
            t.wish = wish;
        }
        state.tasks_version += 1;
        drop(state);
        self.shared.bump();
    }

    /// The last report of a task.
    pub fn report_of(&self, id: TaskId) -> Option<Report> {
        self.shared.lock().reports.get(&id).cloned()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
    fn bump(&self) {
        self.changed.send_modify(|v| *v += 1);
    }
}

impl State {
    fn partition(&self, at: TopicPartition) -> Option<&PartitionState> {
        self.topics.get(&at.topic)?.partitions.get(at.partition.0 as usize)
    }
    fn by_name(&self, name: &TopicName) -> Option<(TopicId, &TopicState)> {
        self.topics.iter().find(|(_, t)| t.name == *name).map(|(id, t)| (*id, t))
    }
    fn describe(&self, id: TopicId, created: bool) -> Option<Topic> {
        let t = self.topics.get(&id)?;
        Some(Topic { id, name: t.name.clone(), partitions: t.partitions.len() as u32, owner: t.owner, created })
    }
    /// Partitions that bear this capture's fence: its topics and the two internal ones.
    fn of_capture(&self, capture: CaptureId) -> Vec<TopicPartition> {
        self.topics
            .iter()
            .filter(|(_, t)| {
                matches!(t.owner, Owner::Capture(c, _) if c == capture)
                    || matches!(t.name.as_str(), CAPTURES_TOPIC | CUTS_TOPIC)
            })
            .flat_map(|(id, t)| (0..t.partitions.len() as u32).map(|p| TopicPartition::new(*id, p)))
            .collect()
    }
    fn tails(&self, capture: CaptureId, of: &[TopicPartition]) -> Result<Vec<Tail>, LogError> {
        of.iter()
            .map(|at| {
                let p = self.partition(*at).ok_or(LogError::NoTopic(*at))?;
                let last = p.captures.get(&capture).map(|(_, last)| last.clone()).unwrap_or_default();
                Ok(Tail { at: *at, last, end: p.end })
            })
            .collect()
    }

    /// The leader's check and the write (capture.md 4.3).
    fn append(&mut self, to: TopicPartition, bytes: &Bytes, context: &Context) -> AppendOutcome {
        let Some(partition) =
            self.topics.get_mut(&to.topic).and_then(|t| t.partitions.get_mut(to.partition.0 as usize))
        else {
            return AppendOutcome::NotWritten(Why::NoTopic);
        };
        let Ok(view) = BatchView::new(bytes) else { return AppendOutcome::NotWritten(Why::Invalid) };
        if view.check_crc().is_err() || view.records_count() < 1 {
            return AppendOutcome::NotWritten(Why::Invalid);
        }
        if let Context::Capture(c) = context {
            let (epoch, known) = partition.captures.get(&c.capture).cloned().unwrap_or_default();
            if c.epoch < epoch {
                return AppendOutcome::Fenced { by: epoch };
            }
            let empty = c.first.is_none() && c.last.is_none();
            if !empty {
                if c.first.is_none() || c.last < c.first {
                    return AppendOutcome::NotWritten(Why::Invalid);
                }
                if c.last <= known {
                    return AppendOutcome::AlreadyThere { end: partition.end };
                }
                if c.first <= known {
                    return AppendOutcome::Partly { known };
                }
                if c.prev != known && !catchwater_base::mutant!("gap_accepted") {
                    return AppendOutcome::Gap { known };
                }
            }
            let last = if empty { known } else { c.last.clone() };
            partition.captures.insert(c.capture, (c.epoch, last));
        }
        let offset = partition.end;
        let end = offset.plus(u64::from(view.offset_count()));
        let mut stored = BytesMut::from(&bytes[..]);
        batch::patch(&mut stored, offset, LeaderEpoch(1));
        partition.batches.push((offset, stored.freeze()));
        partition.end = end;
        AppendOutcome::Appended { offset, end }
    }
}

/// Releases the place in flight, also when the answer is dropped.
struct Flight {
    at: TopicPartition,
    all: Arc<Mutex<BTreeMap<TopicPartition, usize>>>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some(n) = self.all.lock().unwrap_or_else(|e| e.into_inner()).get_mut(&self.at) {
            *n = n.saturating_sub(1);
        }
    }
}

impl MemoryClient {
    fn take_flight(&self, at: TopicPartition) -> Option<Flight> {
        let mut all = self.in_flight.lock().unwrap_or_else(|e| e.into_inner());
        let n = all.entry(at).or_insert(0);
        if *n >= APPENDS_IN_FLIGHT_MAX {
            return None;
        }
        *n += 1;
        drop(all);
        Some(Flight { at, all: self.in_flight.clone() })
    }
}

impl LogClient for MemoryClient {
    fn append(&self, to: TopicPartition, bytes: Bytes, how: Append) -> Fut<'_, AppendOutcome> {
        let Some(flight) = self.take_flight(to) else {
            return Box::pin(ready(AppendOutcome::NotWritten(Why::Busy)));
        };
        crash_point!("log.before_append");
        let fault = match &mut *self.shared.hook.lock().unwrap_or_else(|e| e.into_inner()) {
            Some(hook) => hook(&to, &how),
            None => AppendFault::None,
        };
        let (outcome, late_ms) = match fault {
            AppendFault::Refuse(why) => (AppendOutcome::NotWritten(why), 0),
            AppendFault::UnknownLost => (AppendOutcome::Unknown, 0),
            AppendFault::UnknownWritten => {
                let _ = self.shared.lock().append(to, &bytes, &how.context);
                (AppendOutcome::Unknown, 0)
            }
            AppendFault::Late(ms) => (self.shared.lock().append(to, &bytes, &how.context), ms),
            AppendFault::None => (self.shared.lock().append(to, &bytes, &how.context), 0),
        };
        self.shared.bump();
        crash_point!("log.after_append");
        let timeout_ms = u64::from(how.timeout_ms);
        Box::pin(async move {
            let _flight = flight;
            if late_ms > 0 {
                catchwater_runtime::time::sleep(Duration::from_millis(late_ms.min(timeout_ms))).await;
                if late_ms > timeout_ms {
                    return AppendOutcome::Unknown;
                }
            }
            outcome
        })
    }

    fn fetch(&self, want: Fetch) -> Fut<'_, Result<Vec<Fetched>, LogError>> {
        Box::pin(async move {
            for part in &want.parts {
                let mut asked = self.shared.asked.lock().unwrap_or_else(|e| e.into_inner());
                let most = asked.entry(part.at).or_default();
                *most = part.max_bytes.max(*most);
            }
            let mut changed = self.shared.changed.subscribe();
            let look = || {
                let state = self.shared.lock();
                let mut sum = 0usize;
                let mut failed = false;
                let parts: Vec<Fetched> = want
                    .parts
                    .iter()
                    .map(|part| fetch_part(&state, part, want.credit_bytes as usize, &mut sum, &mut failed))
                    .collect();
                (parts, sum, failed)
            };
            let wait = async {
                loop {
                    changed.borrow_and_update();
                    let (parts, sum, failed) = look();
                    if sum >= want.min_bytes as usize || failed {
                        return parts;
                    }
                    if changed.changed().await.is_err() {
                        return parts;
                    }
                }
            };
            match catchwater_runtime::time::timeout(Duration::from_millis(u64::from(want.max_wait_ms)), wait).await {
                Ok(parts) => Ok(parts),
                Err(_) => Ok(look().0),
            }
        })
    }

    fn bounds(&self, of: Vec<TopicPartition>, at: At) -> Fut<'_, Result<Vec<Bounds>, LogError>> {
        let state = self.shared.lock();
        let answer = of
            .iter()
            .map(|tp| {
                let p = state.partition(*tp).ok_or(LogError::NoTopic(*tp))?;
                Ok(Bounds {
                    at_time: match at {
                        At::Now => None,
                        At::Time(wall) => first_at_time(p, wall.as_millis()),
                    },
                    ..bounds_of(p)
                })
            })
            .collect();
        drop(state);
        Box::pin(ready(answer))
    }

    fn committed(&self, group: GroupName, of: Vec<TopicPartition>) -> Fut<'_, Result<Vec<Option<Offset>>, LogError>> {
        let state = self.shared.lock();
        let known = |at: &TopicPartition| state.partition(*at).ok_or(LogError::NoTopic(*at));
        let answer = of.iter().map(|at| known(at).map(|_| state.offsets.get(&(group.clone(), *at)).copied())).collect();
        drop(state);
        Box::pin(ready(answer))
    }

    fn commit(&self, group: GroupName, offsets: Vec<(TopicPartition, Offset)>) -> Fut<'_, Result<(), LogError>> {
        let mut state = self.shared.lock();
        if let Some((at, _)) = offsets.iter().find(|(at, _)| state.partition(*at).is_none()) {
            return Box::pin(ready(Err(LogError::NoTopic(*at))));
        }
        for (at, offset) in offsets {
            state.offsets.insert((group.clone(), at), offset);
        }
        drop(state);
        Box::pin(ready(Ok(())))
    }

    fn open_capture(&self, capture: CaptureId, epoch: CaptureEpoch) -> Fut<'_, Result<Vec<Tail>, LogError>> {
        Box::pin(async move {
            let mut state = self.shared.lock();
            for name in [CAPTURES_TOPIC, CUTS_TOPIC] {
                if state.by_name(&name.into()).is_none() {
                    let new = NewTopic {
                        name: name.into(),
                        partitions: Some(INTERNAL_PARTITIONS),
                        replication: None,
                        configs: Vec::new(),
                        owner: Owner::Nobody,
                    };
                    state.create(new).map_err(|e| LogError::Bug(e.to_string()))?;
                }
            }
            let known = state.leases.get(&capture).copied().unwrap_or_default();
            let all = state.of_capture(capture);
            let fence = all.iter().filter_map(|at| state.partition(*at)?.captures.get(&capture)).map(|(e, _)| *e).max();
            let highest = fence.unwrap_or_default().max(known);
            if epoch < highest {
                return Err(LogError::Fenced { by: highest });
            }
            state.leases.insert(capture, epoch);
            for at in &all {
                if let Some(p) =
                    state.topics.get_mut(&at.topic).and_then(|t| t.partitions.get_mut(at.partition.0 as usize))
                {
                    p.captures.entry(capture).or_default().0 = epoch;
                }
            }
            state.tails(capture, &all)
        })
    }

    fn last_positions(&self, capture: CaptureId, of: Vec<TopicPartition>) -> Fut<'_, Result<Vec<Tail>, LogError>> {
        Box::pin(async move { self.shared.lock().tails(capture, &of) })
    }
}

fn bounds_of(p: &PartitionState) -> Bounds {
    Bounds { log_start: Offset::ZERO, lso: p.end, high_watermark: p.end, at_time: None, thinned: p.thinned }
}

fn fetch_part(state: &State, part: &FetchPart, credit: usize, sum: &mut usize, failed: &mut bool) -> Fetched {
    let Some(p) = state.partition(part.at) else {
        *failed = true;
        let bounds = Bounds::default();
        return Fetched { at: part.at, bounds, aborted: Vec::new(), batches: Err(PartitionError::NoTopic) };
    };
    if part.offset > p.end {
        *failed = true;
        let batches = Err(PartitionError::OutOfRange);
        return Fetched { at: part.at, bounds: bounds_of(p), aborted: Vec::new(), batches };
    }
    let mut out = BytesMut::new();
    let from = p.batches.partition_point(|(base, _)| *base <= part.offset).saturating_sub(1);
    for (base, bytes) in &p.batches[from..] {
        let end = BatchView::new(bytes).map_or(*base, |v| base.plus(u64::from(v.offset_count())));
        if end <= part.offset {
            continue;
        }
        let first_of_all = *sum == 0;
        let fits = out.len() + bytes.len() <= part.max_bytes as usize && *sum + bytes.len() <= credit;
        if !first_of_all && !fits {
            break;
        }
        out.extend_from_slice(bytes);
        *sum += bytes.len();
    }
    Fetched { at: part.at, bounds: bounds_of(p), aborted: Vec::new(), batches: Ok(out.freeze()) }
}

fn first_at_time(p: &PartitionState, ms: i64) -> Option<Offset> {
    for (base, bytes) in &p.batches {
        let view = BatchView::new(bytes).ok()?;
        let section = compress::section(&view, usize::MAX).ok()?;
        for record in iterate::records(&section, view.records_count() as u32).flatten() {
            if view.base_timestamp() + record.timestamp_delta >= ms {
                return Some(base.plus(record.offset_delta as u64));
            }
        }
    }
    None
}

impl TaskClient for MemoryClient {
    fn mine(&self, seen: TasksVersion) -> Fut<'_, Result<Tasks, TaskError>> {
        const LEASE_MS: u32 = 9_000;
        Box::pin(async move {
            let mut changed = self.shared.changed.subscribe();
            let look = || {
                let state = self.shared.lock();
                let tasks = state.tasks.values().cloned().collect();
                Tasks { version: TasksVersion(state.tasks_version), lease_ms: LEASE_MS, tasks }
            };
            let wait = async {
                loop {
                    changed.borrow_and_update();
                    let tasks = look();
                    if tasks.version > seen || changed.changed().await.is_err() {
                        return tasks;
                    }
                }
            };
            match catchwater_runtime::time::timeout(Duration::from_millis(u64::from(LEASE_MS / 3)), wait).await {
                Ok(tasks) => Ok(tasks),
                Err(_) => Ok(look()),
            }
        })
    }

    fn report(&self, reports: Vec<Report>) -> Fut<'_, Result<Vec<TaskId>, TaskError>> {
        let mut state = self.shared.lock();
        let mut lost = Vec::new();
        for r in reports {
            if state.tasks.get(&r.task).is_some_and(|t| t.epoch == r.epoch) {
                state.reports.insert(r.task, r);
            } else {
                lost.push(r.task);
            }
        }
        drop(state);
        Box::pin(ready(Ok(lost)))
    }

    fn release(&self, task: TaskId, epoch: TaskEpoch) -> Fut<'_, Result<(), TaskError>> {
        let mut state = self.shared.lock();
        if let Some(t) = state.tasks.get_mut(&task).filter(|t| t.epoch == epoch) {
            t.epoch = TaskEpoch(epoch.0 + 1);
            let (kind, next) = (t.kind, t.epoch);
            if let TaskKind::Capture(capture) = kind {
                state.leases.insert(capture, CaptureEpoch(next.0));
            }
            state.tasks_version += 1;
        }
        drop(state);
        self.shared.bump();
        Box::pin(ready(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::conformance;

    #[test]
    fn conforms() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let cluster = MemoryCluster::new(1);
            let make = || -> Arc<dyn LogClient> { cluster.client() };
            conformance::run(&make, cluster.client(), cluster.client()).await;
        });
    }

    #[test]
    fn tasks_rise_in_epoch_and_tell_who_lost_them() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let cluster = MemoryCluster::new(1);
            let client = cluster.client();
            let first = cluster.assign(TaskKind::Deliver, "p", "sink");
            let seen = client.mine(TasksVersion(0)).await.unwrap();
            assert_eq!(seen.tasks, vec![first.clone()]);
            let second = cluster.assign(TaskKind::Deliver, "p", "sink");
            assert_eq!((second.id, second.epoch), (first.id, TaskEpoch(2)));
            let report =
                |epoch| Report { task: first.id, epoch, state: TaskState::Running, code: None, progress: Bytes::new() };
            assert_eq!(client.report(vec![report(first.epoch)]).await, Ok(vec![first.id]));
            assert_eq!(client.report(vec![report(second.epoch)]).await, Ok(vec![]));
            client.release(second.id, second.epoch).await.unwrap();
            assert_eq!(client.mine(seen.version).await.unwrap().tasks[0].epoch, TaskEpoch(3));
        });
    }
}
