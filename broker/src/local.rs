//! The log for workers in this process: [`LogClient`] straight onto the partitions led here. Walk: row-change 9/17.
//!
//! An append takes its place in the call itself; its future only waits. A batch is copied once, because it is patched;
//! nothing else is. What cannot be placed yet (no leader, no room) waits in the order of the calls, per handle and
//! partition, inside its time. Clauses L1–L14 of the design's client contract; `client/conformance.rs` checks them.
//! Control and tasks are in `local/{control,tasks}.rs`.

mod control;
mod tasks;

use crate::api::list_offsets::scan;
use crate::fetch::plan::Room;
use crate::fetch::wait::{Found, Verdict, Wait};
use crate::fetch::write;
use crate::node::Node;
use crate::partition::shell::{Ack, Partition, Pending, Watch};
use crate::partition::{Ask, FetchError, Look, NotTaken, Until};
use bytes::{Bytes, BytesMut};
use catchwater_base::{Mono, crash_point};
use catchwater_client::{
    APPENDS_IN_FLIGHT_MAX, AbortedTxn, Acks, Append, AppendOutcome, At, Bounds, Context, Fetch, Fetched, Isolation,
    LogClient, LogError, PartitionError, Tail, Thinned, Why,
};
use catchwater_record::batch::validate::{Depth, Refusal, Rules, validate};
use catchwater_record::{CaptureEpoch, CaptureId, GroupName, Offset, TopicPartition};
use catchwater_runtime::sync::{Notify, oneshot};
use catchwater_runtime::{Fut, spawn, time};
use catchwater_storage::format::context::CaptureContext;
use catchwater_storage::{Aborted, ReadPlan};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Every call without a time of its own ends after this long (L9).
const CALL_MS: u64 = 30_000;
/// How long to wait before a partition without room or leader is tried again, if nothing wakes us sooner.
const RETRY_MS: u64 = 20;

/// One handle: its own bound and order of appends in flight. Make a fresh one per worker with [`LocalClient::handle`].
pub struct LocalClient {
    node: Arc<Node>,
    lanes: Mutex<BTreeMap<TopicPartition, Arc<Lane>>>,
}

impl LocalClient {
    pub fn new(node: Arc<Node>) -> Self {
        LocalClient { node, lanes: Mutex::default() }
    }

    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Another handle onto the same node.
    pub fn handle(&self) -> LocalClient {
        LocalClient::new(self.node.clone())
    }

    fn lane(&self, to: TopicPartition) -> Arc<Lane> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        // Lanes at rest cost memory and nothing else; a handle has as many as it has partitions.
        lanes.entry(to).or_default().clone()
    }

    fn now(&self) -> Mono {
        self.node.clock.now().mono
    }

    fn left(&self, deadline: Mono) -> Duration {
        deadline.since(self.now())
    }

    /// The partition once it leads and knows its high watermark.
    async fn settled(&self, at: TopicPartition, deadline: Mono) -> Result<Arc<Partition>, LogError> {
        let partition = self.node.topics.find(at).ok_or(LogError::NoTopic(at))?;
        let watch = Watch::new(vec![partition.clone()]);
        loop {
            let ends = partition.ends();
            if ends.leads && ends.settled {
                return Ok(partition);
            }
            let left = self.left(deadline);
            if left.is_zero() {
                return Err(LogError::NotReady(format!("partition {at:?} has no leader")));
            }
            let _ = time::timeout(left, watch.woken()).await;
            watch.again();
        }
    }

    async fn committed_by(&self, done: oneshot::Receiver<Ack>, deadline: Mono) -> Result<(), LogError> {
        match time::timeout(self.left(deadline), done).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(_)) | Err(_)) => Err(LogError::Unknown),
            Err(_) => Err(LogError::TimedOut),
        }
    }

    /// Fences one partition; waits out a missing leader.
    async fn fence(
        &self,
        at: TopicPartition,
        (capture, epoch): (CaptureId, CaptureEpoch),
        deadline: Mono,
    ) -> Result<Pending, LogError> {
        loop {
            let partition = self.settled(at, deadline).await?;
            match partition.fence(capture, epoch) {
                Ok(pending) => return Ok(pending),
                Err(NotTaken::Fenced(by)) => return Err(LogError::Fenced { by }),
                Err(NotTaken::Storage) => return Err(LogError::Storage("the log directory has stopped".into())),
                Err(NotTaken::Deleted) => return Err(LogError::NoTopic(at)),
                Err(other) if self.left(deadline).is_zero() => return Err(LogError::NotReady(other.to_string())),
                Err(_) => time::sleep(Duration::from_millis(RETRY_MS)).await,
            }
        }
    }

    /// Fences all of these and waits for the commits.
    async fn fence_all(
        &self,
        all: &[TopicPartition],
        of: (CaptureId, CaptureEpoch),
        deadline: Mono,
    ) -> Result<(), LogError> {
        let mut pending = Vec::with_capacity(all.len());
        for at in all {
            pending.push(self.fence(*at, of, deadline).await?);
        }
        for pending in pending {
            self.committed_by(pending.done, deadline).await?;
        }
        Ok(())
    }

    fn tail(&self, capture: CaptureId, at: TopicPartition) -> Result<Tail, LogError> {
        let partition = self.node.topics.find(at).ok_or(LogError::NoTopic(at))?;
        let (known, end) = partition.capture_last(capture);
        Ok(Tail { at, last: known.map(|(_, position)| position).unwrap_or_default(), end })
    }

    /// Tries to place one batch now. `Err(Later)` = ask again inside the time.
    fn place(&self, to: TopicPartition, entry: &mut Option<Entry>) -> Result<Placing, AppendOutcome> {
        let Some(partition) = self.node.topics.find(to) else {
            return Err(AppendOutcome::NotWritten(Why::NoTopic));
        };
        let Some(held) = entry.take() else { return Err(AppendOutcome::Unknown) };
        // Judged again at each try: the copy that is patched is made only when it can enter.
        let batch = BytesMut::from(&held.batch[..]);
        match partition.append(batch, held.capture.as_ref(), 1, held.until) {
            Ok(pending) => Ok(Placing::Placed(pending)),
            Err(NotTaken::NotLeader) => {
                *entry = Some(held);
                Ok(Placing::Later(Why::NoLeader))
            }
            Err(NotTaken::NoRoom | NotTaken::DiskFull) => {
                *entry = Some(held);
                Ok(Placing::Later(Why::NoRoom))
            }
            Err(NotTaken::NotEnoughInSync) => Err(AppendOutcome::NotWritten(Why::NotInSync)),
            Err(NotTaken::Storage) => Err(AppendOutcome::NotWritten(Why::NoLeader)),
            Err(NotTaken::Deleted) => Err(AppendOutcome::NotWritten(Why::NoTopic)),
            Err(NotTaken::Partly(known)) => Err(AppendOutcome::Partly { known }),
            Err(NotTaken::Gap(known)) => Err(AppendOutcome::Gap { known }),
            Err(NotTaken::Fenced(by)) => Err(AppendOutcome::Fenced { by }),
            Err(NotTaken::ProducerFenced { .. } | NotTaken::OutOfOrderSequence | NotTaken::Bug(_)) => {
                Err(AppendOutcome::NotWritten(Why::Invalid))
            }
        }
    }

    /// Everything about a batch that can be judged without the partition.
    fn entry(&self, to: TopicPartition, batch: Bytes, how: &Append) -> Result<Entry, Why> {
        let here = self.node.topics.by_id(to.topic).ok_or(Why::NoTopic)?;
        let topic = self.node.topics.settings(&here).rules;
        // Rows carry the source's clock: a wrong one there must not stop a capture. Keys and structure are ours.
        let rules = Rules {
            depth: Depth::Header,
            compacted: false,
            before_max_ms: i64::MAX,
            after_max_ms: i64::MAX,
            zstd_allowed: true,
            // A row that was changed is not held up by how its topic is cut into files.
            segment_bytes: u32::MAX,
            ..topic
        };
        match validate(Some(&batch), &rules, self.node.clock.now().wall.as_millis()) {
            Ok(_) if batch.len() > self.node.config.batch_bytes_max => return Err(Why::TooLarge),
            Ok(taken) if taken.batch.len() < batch.len() => return Err(Why::Invalid),
            Ok(_) => {}
            Err(Refusal::TooLarge { .. }) => return Err(Why::TooLarge),
            Err(_) => return Err(Why::Invalid),
        }
        let capture = match &how.context {
            Context::None => None,
            Context::Capture(c) => Some(CaptureContext {
                capture: c.capture,
                epoch: c.epoch,
                flags: c.flags,
                commit_seq: c.commit_seq,
                prev: c.prev.clone(),
                first: c.first.clone(),
                last: c.last.clone(),
                txn: c.txn.clone(),
            }),
        };
        // A context demands acks=all.
        let until = if how.acks == Acks::Leader && capture.is_none() { Until::Durable } else { Until::Committed };
        Ok(Entry { batch, capture, until })
    }
}

/// A batch that is not placed yet.
struct Entry {
    batch: Bytes,
    capture: Option<CaptureContext>,
    until: Until,
}

enum Placing {
    Placed(Pending),
    Later(Why),
}

/// The appends of one handle to one partition.
#[derive(Default)]
struct Lane {
    state: Mutex<LaneState>,
    moved: Notify,
}

#[derive(Default)]
struct LaneState {
    in_flight: usize,
    tickets: u64,
    /// Called and not placed, in the order of the calls.
    unplaced: VecDeque<u64>,
}

/// A place in a lane; given back when the append's future ends or is dropped.
struct InFlight {
    lane: Arc<Lane>,
    ticket: u64,
}

impl Lane {
    fn enter(self: &Arc<Self>) -> Option<InFlight> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.in_flight >= APPENDS_IN_FLIGHT_MAX {
            return None;
        }
        state.in_flight += 1;
        state.tickets += 1;
        let ticket = state.tickets;
        state.unplaced.push_back(ticket);
        Some(InFlight { lane: self.clone(), ticket })
    }
}

impl InFlight {
    fn is_next(&self) -> bool {
        let state = self.lane.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.unplaced.front() == Some(&self.ticket)
    }
    /// Placed, or never to be: the next one may try.
    fn settled(&self) {
        let mut state = self.lane.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.unplaced.retain(|t| *t != self.ticket);
        drop(state);
        self.lane.moved.notify_waiters();
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.settled();
        self.lane.state.lock().unwrap_or_else(PoisonError::into_inner).in_flight -= 1;
    }
}

impl LogClient for LocalClient {
    fn append(&self, to: TopicPartition, batch: Bytes, how: Append) -> Fut<'_, AppendOutcome> {
        crash_point!("log.before_append");
        let captured = matches!(how.context, Context::Capture(_));
        let deadline = self.now().plus_millis(u64::from(how.timeout_ms));
        let Some(place) = self.lane(to).enter() else {
            return Box::pin(std::future::ready(AppendOutcome::NotWritten(Why::Busy)));
        };
        let mut entry = match self.entry(to, batch, &how) {
            Ok(entry) => Some(entry),
            Err(why) => return Box::pin(std::future::ready(AppendOutcome::NotWritten(why))),
        };
        // In the call, not in the future: the order of the calls is the order in the log.
        let mut placing = if place.is_next() { self.place(to, &mut entry) } else { Ok(Placing::Later(Why::NoLeader)) };
        if !matches!(placing, Ok(Placing::Later(_))) {
            place.settled();
        }
        Box::pin(async move {
            let pending = loop {
                let why = match placing {
                    Ok(Placing::Placed(pending)) => break pending,
                    Ok(Placing::Later(why)) => why,
                    Err(outcome) => return outcome,
                };
                let left = self.left(deadline);
                if left.is_zero() {
                    return AppendOutcome::NotWritten(why);
                }
                let moved = place.lane.moved.notified();
                let _ = time::timeout(left.min(Duration::from_millis(RETRY_MS)), moved).await;
                placing = if place.is_next() { self.place(to, &mut entry) } else { Ok(Placing::Later(why)) };
                if !matches!(placing, Ok(Placing::Later(_))) {
                    place.settled();
                }
            };
            let placed = pending.placed;
            let outcome = match time::timeout(self.left(deadline), pending.done).await {
                Ok(Ok(Ok(()))) if placed.duplicate && captured => AppendOutcome::AlreadyThere { end: placed.end },
                Ok(Ok(Ok(()))) => AppendOutcome::Appended { offset: placed.base, end: placed.end },
                // It has its place in a log, and nobody here knows whether it keeps it.
                Ok(Ok(Err(_)) | Err(_)) | Err(_) => AppendOutcome::Unknown,
            };
            crash_point!("log.after_append");
            outcome
        })
    }

    fn fetch(&self, want: Fetch) -> Fut<'_, Result<Vec<Fetched>, LogError>> {
        Box::pin(async move {
            let wait = Wait::new(self.now(), want.max_wait_ms, want.min_bytes);
            let mut watch: Option<Watch> = None;
            let parts: Vec<Option<Arc<Partition>>> =
                want.parts.iter().map(|part| self.node.topics.find(part.at)).collect();
            let looks = loop {
                let (looks, found) = look(&want, &parts);
                match wait.judge(self.now(), found) {
                    Verdict::Answer => break looks,
                    Verdict::Park(deadline) => match &watch {
                        None => watch = Some(Watch::new(parts.iter().flatten().cloned().collect())),
                        Some(watch) => {
                            let _ = time::timeout(self.left(deadline), watch.woken()).await;
                            watch.again();
                        }
                    },
                }
            };
            drop(watch);
            Ok(read(&want, parts, looks).await)
        })
    }

    fn bounds(&self, of: Vec<TopicPartition>, at: At) -> Fut<'_, Result<Vec<Bounds>, LogError>> {
        Box::pin(async move {
            let deadline = self.now().plus_millis(CALL_MS);
            let mut out = Vec::with_capacity(of.len());
            for tp in of {
                let partition = self.settled(tp, deadline).await?;
                let mut bounds = bounds(&partition);
                if let At::Time(moment) = at {
                    // Kafka's unit: a record of the same millisecond counts.
                    let ms = moment.as_millis();
                    let found = match partition.find_time(ms) {
                        None => None,
                        Some(from) => spawn::blocking(move || scan(&partition, from, ms))
                            .await
                            .map_err(LogError::Bug)?
                            .map_err(|e| LogError::Storage(e.to_string()))?,
                    };
                    bounds.at_time = found.map(|(_, offset, _)| offset);
                }
                out.push(bounds);
            }
            Ok(out)
        })
    }

    fn committed(&self, group: GroupName, of: Vec<TopicPartition>) -> Fut<'_, Result<Vec<Option<Offset>>, LogError>> {
        Box::pin(self.group_committed(group, of))
    }

    fn commit(&self, group: GroupName, offsets: Vec<(TopicPartition, Offset)>) -> Fut<'_, Result<(), LogError>> {
        Box::pin(self.group_commit(group, offsets))
    }

    fn open_capture(&self, capture: CaptureId, epoch: CaptureEpoch) -> Fut<'_, Result<Vec<Tail>, LogError>> {
        Box::pin(async move {
            let deadline = self.now().plus_millis(CALL_MS);
            self.ensure_capture_topics().await?;
            let mut fenced: Vec<TopicPartition> = Vec::new();
            // Until nothing is new: a topic that was made meanwhile brings its creator's fence, but not ours.
            loop {
                let all = self.partitions_of(capture).await?;
                let new: Vec<_> = all.iter().filter(|at| !fenced.contains(at)).copied().collect();
                if new.is_empty() {
                    return all.into_iter().map(|at| self.tail(capture, at)).collect();
                }
                self.fence_all(&new, (capture, epoch), deadline).await?;
                fenced.extend(new);
            }
        })
    }

    fn last_positions(&self, capture: CaptureId, of: Vec<TopicPartition>) -> Fut<'_, Result<Vec<Tail>, LogError>> {
        Box::pin(async move {
            let deadline = self.now().plus_millis(CALL_MS);
            let mut tails = Vec::with_capacity(of.len());
            let mut barriers = Vec::with_capacity(of.len());
            for at in &of {
                let partition = self.settled(*at, deadline).await?;
                barriers.push(partition.barrier().map_err(|e| LogError::NotReady(e.to_string()))?);
                // Read now, told when it is committed.
                tails.push(self.tail(capture, *at)?);
            }
            for barrier in barriers {
                self.committed_by(barrier, deadline).await?;
            }
            Ok(tails)
        })
    }
}

fn bounds(partition: &Partition) -> Bounds {
    let (ends, thinned) = (partition.ends(), thinned(partition));
    Bounds { log_start: ends.log_start, lso: ends.lso, high_watermark: ends.high_watermark, at_time: None, thinned }
}

fn thinned(partition: &Partition) -> Thinned {
    let catchwater_storage::Thinned { below, whole_from, deletes_gone } = partition.thinned();
    Thinned { below, whole_from, deletes_gone }
}

/// One look at everything a fetch wants.
fn look(want: &Fetch, parts: &[Option<Arc<Partition>>]) -> (Vec<Result<Look, FetchError>>, Found) {
    let mut room = Room::new(u64::from(want.credit_bytes));
    let mut found = Found { bytes: 0, urgent: want.parts.is_empty() };
    let looks = want
        .parts
        .iter()
        .zip(parts)
        .map(|(part, partition)| {
            let asked = room.ask(part.max_bytes);
            let ask = Ask {
                from: part.offset,
                max_bytes: asked,
                current_epoch: -1,
                last_fetched_epoch: -1,
                committed_only: want.isolation == Isolation::Committed,
            };
            match partition.as_ref().ok_or(FetchError::UnknownTopic).and_then(|p| p.look(&ask)) {
                // A new leader is waited out (L9).
                Err(FetchError::NotLeader) => Err(FetchError::NotLeader),
                Err(e) => {
                    found.urgent = true;
                    Err(e)
                }
                Ok(mut look) => {
                    let bytes = write::planned_bytes(&look.plan);
                    found.bytes += bytes;
                    found.urgent |= write::is_behind(&look.plan);
                    if !room.is_empty() {
                        write::within(&mut look.plan);
                    }
                    if !room.take(asked, bytes) {
                        look.plan = ReadPlan::Empty;
                    }
                    Ok(look)
                }
            }
        })
        .collect();
    (looks, found)
}

async fn read(want: &Fetch, parts: Vec<Option<Arc<Partition>>>, looks: Vec<Result<Look, FetchError>>) -> Vec<Fetched> {
    let mut out = Vec::with_capacity(parts.len());
    let mut plans = Vec::new();
    for ((part, partition), look) in want.parts.iter().zip(parts).zip(looks) {
        let mut fetched = Fetched {
            at: part.at,
            bounds: partition.as_deref().map(bounds).unwrap_or_default(),
            aborted: Vec::new(),
            batches: Ok(Bytes::new()),
        };
        match (look, partition) {
            (Ok(look), Some(partition)) => {
                // The bounds of the same moment as the bytes.
                fetched.bounds.high_watermark = look.ends.high_watermark;
                fetched.bounds.lso = look.ends.lso;
                fetched.bounds.log_start = look.ends.log_start;
                if look.plan != ReadPlan::Empty {
                    let told = |a: &Aborted| AbortedTxn { producer: a.producer, first_offset: a.first };
                    fetched.aborted = look.aborted.iter().map(told).collect();
                }
                if look.plan != ReadPlan::Empty {
                    plans.push((out.len(), partition, look.plan));
                }
            }
            (Err(e), _) => fetched.batches = Err(partition_error(e)),
            (Ok(_), None) => fetched.batches = Err(PartitionError::NoTopic),
        }
        out.push(fetched);
    }
    let places: Vec<(usize, Arc<Partition>)> = plans.iter().map(|(at, p, _)| (*at, p.clone())).collect();
    let plans = plans.into_iter().map(|(_, p, plan)| (p, plan)).collect();
    for ((at, partition), batches) in places.into_iter().zip(write::read(plans).await) {
        if let Some(fetched) = out.get_mut(at) {
            fetched.batches = batches.map(joined).map_err(partition_error);
            // A switch may have come between the plan and the bytes: what is known now covers both.
            fetched.bounds.thinned = thinned(&partition);
        }
    }
    out
}

/// Batches back to back; one alone is handed on as it is.
fn joined(mut batches: Vec<Bytes>) -> Bytes {
    if batches.len() <= 1 {
        return batches.pop().unwrap_or_default();
    }
    let mut out = BytesMut::with_capacity(batches.iter().map(Bytes::len).sum());
    for batch in batches {
        out.extend_from_slice(&batch);
    }
    out.freeze()
}

fn partition_error(error: FetchError) -> PartitionError {
    match error {
        FetchError::UnknownTopic | FetchError::UnknownTopicId => PartitionError::NoTopic,
        FetchError::NotLeader | FetchError::NotReady | FetchError::FencedEpoch | FetchError::UnknownEpoch => {
            PartitionError::NotLeader
        }
        FetchError::OutOfRange => PartitionError::OutOfRange,
        FetchError::Storage => PartitionError::Storage("the partition's bytes cannot be read".into()),
        FetchError::Follower => PartitionError::Denied,
        FetchError::Compression | FetchError::Version | FetchError::Session | FetchError::Request => {
            PartitionError::Bug(error.to_string())
        }
        FetchError::Bug(why) => PartitionError::Bug(why),
    }
}
