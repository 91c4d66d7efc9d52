//! How far sinks are behind, also those that stand still: a look into the log, from where the target is known to be.
//!
//! A worker knows the lag of what it has read. While its target is down, while it is paused, and when it has stopped,
//! changes come that it never sees; so this task looks at the first record that is not applied yet. The two are joined in
//! [`State::lines`], where the number is made for the moment in which it is asked.
//!
//! A source that is not read hides what it holds: from the moment on at which its capture stood still, seen from here, its
//! sinks count as behind. Where the target of a sink stands is told by its worker, else by the mirror of its position
//! (the consumer group), which is at most a second older.

use super::State;
use super::supervisor::WorkerStatus;
use catchwater_base::Wall;
use catchwater_capture as capture;
use catchwater_change::Stamp;
use catchwater_client::{At, ControlClient, Fetch, FetchPart, Isolation, LogClient, Task, TaskKind, TopicsWanted};
use catchwater_coordinator::group::{FetchOffsets, Reply, Request};
use catchwater_deliver::commit::mirror_group;
use catchwater_deliver::lag::Way;
use catchwater_deliver::wire::records;
use catchwater_record::{CommitSeq, Offset, RevisionNo, SinkName, TaskId, TopicId, TopicPartition};
use catchwater_runtime::shutdown::Stopped;
use catchwater_runtime::time::{timeout, wall};
use catchwater_storage::compact::Policy;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Partitions whose first record is read at one look; of a sink with more, the oldest change among these counts.
const PARTS_MAX: usize = 64;
/// Asked of one partition; its first batch comes whatever its size.
const PART_BYTES: u32 = 64 * 1024;

/// What a look has found of one sink.
#[derive(Clone, Debug, Default)]
pub(super) struct Behind {
    /// Name of the source it reads.
    pub source: String,
    /// The oldest change in the log that is not at the target.
    pub way: Option<Way>,
    /// Records from there on, tombstones and changes that will be filtered included; `None` = not known.
    pub records: Option<u64>,
    /// By topic: the age of the oldest record that is not applied, as a share of the time for which the log keeps it.
    pub retention_used: Vec<(String, f64)>,
}

/// What is known of sources and sinks beside their workers.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub sinks: BTreeMap<TaskId, Behind>,
    /// Captures that are not reading their source, by its name, and since when.
    pub standing: BTreeMap<String, Wall>,
}

/// Where a sink's target stands.
struct Stand {
    offsets: Vec<(TopicPartition, Offset)>,
    /// Everything up to it is applied; 0 = not known.
    seq: CommitSeq,
}

pub(super) struct Watcher {
    state: Arc<State>,
    /// What each sink reads, by the revision of its text: source, and `from` as written.
    texts: BTreeMap<TaskId, (RevisionNo, String, Vec<String>)>,
}

impl Watcher {
    pub fn new(state: Arc<State>) -> Watcher {
        Watcher { state, texts: BTreeMap::new() }
    }

    pub async fn run(mut self, mut stopped: Stopped) {
        while timeout(LOOK_EVERY, stopped.wait()).await.is_err() {
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let tasks = self.state.tasks().clone();
        let mut standing = BTreeMap::new();
        for task in tasks.iter().filter(|t| matches!(t.kind, TaskKind::Capture(_))) {
            let reads = self.state.workers().get(&task.id).is_some_and(|w| match &w.status {
                WorkerStatus::Capture(h) => {
                    use capture::State::{Complete, Snapshot, Streaming};
                    w.failure.is_none() && matches!(h.get().state, Streaming | Snapshot | Complete)
                }
                WorkerStatus::Deliver(_) => false,
            });
            if !reads {
                standing.insert(task.node.to_string(), wall());
            }
        }
        {
            let mut seen = self.state.seen();
            for (source, since) in &mut standing {
                *since = seen.standing.get(source).copied().unwrap_or(*since);
            }
            seen.standing = standing;
            seen.sinks.retain(|id, _| tasks.iter().any(|t| t.id == *id));
        }
        self.texts.retain(|id, _| tasks.iter().any(|t| t.id == *id));
        for task in tasks.iter().filter(|t| t.kind == TaskKind::Deliver) {
            if let Some(behind) = self.behind(task).await {
                self.state.seen().sinks.insert(task.id, behind);
            }
        }
    }

    async fn behind(&mut self, task: &Task) -> Option<Behind> {
        let (source, from) = self.text(task).await?;
        let stand = match self.told(task) {
            Some(stand) => stand,
            None => self.mirrored(task, &from).await?,
        };
        let log = &self.state.local;
        let at: Vec<TopicPartition> = stand.offsets.iter().map(|(at, _)| *at).collect();
        let bounds = log.bounds(at, At::Now).await.ok()?;
        let (mut records, mut parts) = (0, Vec::new());
        for ((at, offset), bound) in stand.offsets.iter().zip(bounds) {
            let offset = (*offset).max(bound.log_start);
            if bound.lso > offset {
                records += bound.lso.0 - offset.0;
                parts.push((*at, offset));
            }
        }
        parts.truncate(PARTS_MAX);
        let (way, oldest) = self.first_of(parts, stand.seq).await;
        let topics: BTreeSet<TopicId> = stand.offsets.iter().map(|(at, _)| at.topic).collect();
        let retention_used =
            topics.into_iter().filter_map(|t| self.retention_used(t, oldest.get(&t).copied())).collect();
        Some(Behind { source, way, records: Some(records), retention_used })
    }

    async fn text(&mut self, task: &Task) -> Option<(String, Vec<String>)> {
        if let Some((_, source, from)) = self.texts.get(&task.id).filter(|(no, ..)| *no == task.revision) {
            return Some((source.clone(), from.clone()));
        }
        let (no, pipeline) = self.state.stored(task.pipeline.as_str()).await.ok().flatten()?;
        let sink = pipeline.sinks.get(task.node.as_str())?;
        let (source, from) = (sink.source().to_owned(), sink.from.clone());
        if no == task.revision {
            self.texts.insert(task.id, (no, source.clone(), from.clone()));
        }
        Some((source, from))
    }

    /// By the worker, if it has opened its target.
    fn told(&self, task: &Task) -> Option<Stand> {
        let workers = self.state.workers();
        let WorkerStatus::Deliver(h) = &workers.get(&task.id)?.status else { return None };
        let status = h.read();
        Some(Stand { offsets: status.durable.filter(|d| !d.is_empty())?.to_vec(), seq: status.seq })
    }

    /// By the mirror; a sink that was never at work stands at the start of every topic that it takes.
    async fn mirrored(&self, task: &Task, from: &[String]) -> Option<Stand> {
        let local = &self.state.local;
        let topics = local.describe_topics(TopicsWanted::All).await.ok()?;
        let group = mirror_group(&task.pipeline, &SinkName::from(task.node.as_str()));
        let ask = Request::Fetch(FetchOffsets { group: group.clone(), member: None, topics: None });
        let mut offsets = Vec::new();
        if let Ok(Reply::Fetch(Ok(committed))) = local.node().groups.ask(&group, ask).await {
            for o in committed.iter().filter(|o| o.offset >= 0) {
                let Some(topic) = topics.iter().find(|t| t.name == o.topic) else { continue };
                let at = TopicPartition::new(topic.id, u32::try_from(o.partition).ok()?);
                offsets.push((at, Offset(o.offset.unsigned_abs())));
            }
        }
        if offsets.is_empty() {
            let takes = |name: &str| from.iter().any(|f| takes(f, name));
            for topic in topics.iter().filter(|t| takes(t.name.as_str())) {
                offsets.extend((0..topic.partitions).map(|p| (TopicPartition::new(topic.id, p), Offset::ZERO)));
            }
        }
        Some(Stand { offsets, seq: CommitSeq(0) })
    }

    /// `oldest` = time of the oldest record that is not applied. `None` = the topic keeps everything.
    fn retention_used(&self, topic: TopicId, oldest: Option<Wall>) -> Option<(String, f64)> {
        let topics = &self.state.local.node().topics;
        let here = topics.by_id(topic)?;
        let settings = topics.settings(&here);
        let ms = kept_ms(settings.retention.ms, settings.compact.then_some(settings.compaction))?;
        let age_ms = oldest.map_or(0, |at| wall().as_millis().saturating_sub(at.as_millis()).max(0));
        Some((here.topic.name.to_string(), age_ms as f64 / ms.max(1) as f64))
    }

    /// The oldest change above `seq` that begins one of these partitions, and the time of each topic's oldest record.
    async fn first_of(
        &self,
        parts: Vec<(TopicPartition, Offset)>,
        seq: CommitSeq,
    ) -> (Option<Way>, BTreeMap<TopicId, Wall>) {
        let (mut first, mut oldest): (Option<Way>, BTreeMap<TopicId, Wall>) = Default::default();
        if parts.is_empty() {
            return (first, oldest);
        }
        let from: BTreeMap<TopicPartition, Offset> = parts.iter().copied().collect();
        let want = Fetch {
            parts: parts.into_iter().map(|(at, offset)| FetchPart { at, offset, max_bytes: PART_BYTES }).collect(),
            isolation: Isolation::Committed,
            min_bytes: 0,
            max_wait_ms: 0,
            credit_bytes: PART_BYTES,
        };
        let Ok(fetched) = self.state.local.fetch(want).await else { return (first, oldest) };
        for fetched in fetched {
            let (Ok(bytes), Some(from)) = (fetched.batches, from.get(&fetched.at)) else { continue };
            let Ok((found, _)) = records(fetched.at, *from, &bytes) else { continue };
            if let Some(at) = found.first().map(|r| Wall::from_millis(r.timestamp_ms)) {
                let known = oldest.entry(fetched.at.topic).or_insert(at);
                *known = (*known).min(at);
            }
            let way = found.iter().find_map(|r| {
                let stamp = Stamp::decode(r.stamp.as_ref()?).ok()?;
                // Schema changes and messages are no rows, and what ends a schema is not waited for.
                let row = !matches!(stamp.op, b'b' | b's' | b'm') && stamp.version.commit_seq > seq;
                row.then(|| Way {
                    seq: stamp.version.commit_seq,
                    committed: stamp.commit_time,
                    captured: Wall::from_millis(r.timestamp_ms),
                    read: None,
                    applied: None,
                })
            });
            first = match (first, way) {
                (Some(a), Some(b)) => Some(if b.seq < a.seq { b } else { a }),
                (a, b) => a.or(b),
            };
        }
        (first, oldest)
    }
}

/// For how long a topic promises to keep a record, ms: by age, and where it is compacted the deletes, which are the first
/// that a sink would miss. `None` = for ever.
fn kept_ms(retention_ms: Option<u64>, compaction: Option<Policy>) -> Option<u64> {
    let deletes = compaction.map(|p| p.lag_ms_min.saturating_add(p.delete_retention_ms));
    [retention_ms, deletes].into_iter().flatten().min()
}

/// `shop`, `shop.*`, `shop.public.*`, `shop.public.orders` and the topic of a table.
fn takes(from: &str, topic: &str) -> bool {
    let below = |prefix: &str| topic.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.'));
    topic == from || below(from.strip_suffix(".*").unwrap_or(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_a_record_is_kept_is_the_shortest_promise() {
        let policy = |min: u64, deletes: u64| Policy {
            dirty_ratio_min: 0.5,
            lag_ms_min: min,
            lag_ms_max: u64::MAX,
            delete_retention_ms: deletes,
            segment_bytes: 1,
        };
        assert_eq!(kept_ms(None, None), None);
        assert_eq!(kept_ms(Some(7), None), Some(7));
        assert_eq!(kept_ms(None, Some(policy(5, 4))), Some(9), "a delete goes that long after it was written");
        assert_eq!(kept_ms(Some(8), Some(policy(5, 4))), Some(8));
        assert_eq!(kept_ms(None, Some(policy(u64::MAX, 4))), Some(u64::MAX));
    }

    #[test]
    fn what_a_sink_takes() {
        for (from, topic, yes) in [
            ("shop", "shop.public.orders", true),
            ("shop.*", "shop.public.orders", true),
            ("shop.public.*", "shop.public.orders", true),
            ("shop.public.orders", "shop.public.orders", true),
            ("shop.public.orders", "shop.public.orders_old", false),
            ("shop", "shopping.public.orders", false),
            ("shop.public.*", "shop.audit.orders", false),
        ] {
            assert_eq!(takes(from, topic), yes, "{from} {topic}");
        }
    }
}
