//! The topics this node has: names and ids to partitions, and the settings that produce and fetch need.
//!
//! Follows the committed image of the cluster (`ClusterListener`): a topic is here before any answer that tells of it
//! leaves. Look-ups take a read lock for the time of a map access.

use crate::host::cluster::ClusterListener;
use crate::partition::UNCOMMITTED_BYTES_MAX;
use crate::partition::shell::{Partition, Watch};
use catchwater_base::metric::{Counter, Gauge};
use catchwater_base::{Clock, log};
use catchwater_coordinator::cluster::configs::{FileSettings, topic_value};
use catchwater_coordinator::cluster::image::{Image, Topic};
use catchwater_raft::driver::compaction::CompactLimits;
use catchwater_raft::driver::{Durability, LogDir, Replica, SegmentLimits, Window};
use catchwater_raft::{ConfState, GroupConfig, GroupCore, PeerId};
use catchwater_record::batch::validate::{Depth, Rules};
use catchwater_record::{EntryIndex, Gid, NodeId, PartitionId, TopicId, TopicName, TopicPartition};
use catchwater_runtime::time;
use catchwater_storage::compact::{NatureOf, Policy};
use catchwater_storage::log::TailBudget;
use catchwater_storage::retain::Retention;
use catchwater_storage::{GroupSpec, LogConfig, ProducerBudget, RecoveredGroup};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

/// Idempotent producers that a node remembers, over all partitions; about 160 bytes each.
const PRODUCERS_MAX: u64 = 1_000_000;

pub static PRODUCERS: Gauge = Gauge::new();
/// Bytes of the tail caches that are in files too.
pub static TAIL_BYTES: Gauge = Gauge::new();
pub static PRODUCERS_EXPIRED: Counter = Counter::new();
pub static PRODUCERS_EVICTED: Counter = Counter::new();

/// A topic and its partitions on this node.
pub struct Here {
    pub topic: Arc<Topic>,
    pub internal: bool,
    /// Index = partition number; `None` = not on this node, or could not be opened.
    pub partitions: Vec<Option<Arc<Partition>>>,
    settings: RwLock<Option<Arc<Settings>>>,
}

impl Here {
    pub fn partition(&self, index: i32) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(index).ok()?)?.as_ref()
    }

    /// It is one of the topic's, whether it could be opened or not.
    pub fn has(&self, index: i32) -> bool {
        usize::try_from(index).is_ok_and(|i| i < self.partitions.len())
    }

    /// Returns once every partition of the topic on this node leads and knows its high watermark.
    pub async fn led(&self) {
        for partition in self.partitions.iter().flatten() {
            led(partition.clone()).await;
        }
    }
}

/// What produce needs to know of a topic.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Settings {
    pub rules: Rules,
    pub insync_min: usize,
    pub limits: SegmentLimits,
    pub durability: Durability,
    /// Without limits where the policy is compaction alone, or none.
    pub retention: Retention,
    /// `cleanup.policy` has `compact`.
    pub compact: bool,
    /// `cleanup.policy` has `delete`.
    pub delete: bool,
    pub compaction: Policy,
}

impl Settings {
    /// Values that do not parse are the default's: they were checked when they were set.
    pub fn read(value: impl Fn(&'static str) -> String) -> Self {
        let d = Rules::default();
        let number = |key| value(key).trim().parse::<i64>().ok();
        let policies = value("cleanup.policy");
        let policy = |name| policies.split(',').any(|p| p.trim() == name);
        let small = number("internal.segment.bytes").and_then(|n| u32::try_from(n).ok());
        let segment_bytes =
            small.or_else(|| number("segment.bytes").and_then(|n| u32::try_from(n).ok())).unwrap_or(1 << 30);
        let rules = Rules {
            segment_bytes,
            batch_bytes_max: number("max.message.bytes")
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(d.batch_bytes_max),
            depth: match value("produce.validation").as_str() {
                "full" => Depth::Full,
                "walk" => Depth::Walk,
                _ => Depth::Header,
            },
            compacted: policy("compact"),
            append_time: value("message.timestamp.type") == "LogAppendTime",
            before_max_ms: number("message.timestamp.before.max.ms").unwrap_or(d.before_max_ms),
            after_max_ms: number("message.timestamp.after.max.ms").unwrap_or(d.after_max_ms),
            zstd_allowed: true,
        };
        let insync_min = number("min.insync.replicas").and_then(|n| usize::try_from(n).ok()).unwrap_or(1);
        let segment_ms = number("segment.ms").and_then(|n| u64::try_from(n).ok()).unwrap_or(7 * 24 * 3_600_000);
        // Below zero = without limit.
        let limit = |key| number(key).and_then(|n| u64::try_from(n).ok());
        let retention = if policy("delete") {
            Retention { ms: limit("retention.ms"), bytes: limit("retention.bytes") }
        } else {
            Retention::default()
        };
        let (compact, delete) = (policy("compact"), policy("delete"));
        let durability = durability(&value("storage.durability"), number("flush.ms"), number("flush.messages"));
        let millis = |key, default| number(key).and_then(|n| u64::try_from(n).ok()).unwrap_or(default);
        let lag_ms_max = millis("max.compaction.lag.ms", u64::MAX);
        let limits = SegmentLimits {
            bytes: segment_bytes,
            // As Kafka's `maxSegmentMs`: what must be compacted in time must be rolled in time.
            ms: if compact { segment_ms.min(lag_ms_max) } else { segment_ms },
            jitter_ms: millis("segment.jitter.ms", 0),
            delete_delay_ms: millis("file.delete.delay.ms", 60_000),
        };
        let compaction = Policy {
            dirty_ratio_min: value("min.cleanable.dirty.ratio").trim().parse().unwrap_or(0.5),
            lag_ms_min: millis("min.compaction.lag.ms", 0),
            lag_ms_max,
            delete_retention_ms: millis("delete.retention.ms", 86_400_000),
            segment_bytes,
        };
        Settings { rules, insync_min, limits, durability, retention, compact, delete, compaction }
    }
}

/// Kafka's flush settings bind the window of a relaxed topic; under `fsync` there is nothing left to flush.
fn durability(wanted: &str, flush_ms: Option<i64>, flush_messages: Option<i64>) -> Durability {
    if wanted != "relaxed" {
        return Durability::Fsync;
    }
    let given = |value: Option<i64>| value.filter(|n| *n != i64::MAX).and_then(|n| u64::try_from(n).ok());
    let default = Window::default();
    Durability::Relaxed(Window {
        ms: given(flush_ms).unwrap_or(default.ms),
        records: given(flush_messages).unwrap_or(default.records),
        ..default
    })
}

#[derive(Default)]
struct Index {
    by_id: BTreeMap<TopicId, Arc<Here>>,
    by_name: BTreeMap<TopicName, Arc<Here>>,
}

/// Where the committed image comes from; set once the cluster host stands.
pub type Images = Arc<dyn Fn() -> Arc<Image> + Send + Sync>;

/// All topics of this node.
pub struct Topics {
    index: RwLock<Index>,
    /// Replicas found on disk that no topic has claimed yet.
    found: Mutex<BTreeMap<Gid, RecoveredGroup>>,
    images: OnceLock<Images>,
    pub file: FileSettings,
    node: NodeId,
    dir: LogDir,
    clock: Arc<dyn Clock>,
    seed: u64,
    /// Bytes that are in files already and stay in memory for readers at the end, of all partitions together.
    tail: Arc<TailBudget>,
    producers: Arc<ProducerBudget>,
}

impl Topics {
    pub fn new(
        node: NodeId,
        dir: LogDir,
        found: Vec<RecoveredGroup>,
        (clock, seed): (Arc<dyn Clock>, u64),
        (file, tail_bytes_max): (FileSettings, u64),
    ) -> Self {
        Topics {
            index: RwLock::default(),
            found: Mutex::new(found.into_iter().map(|g| (g.gid, g)).collect()),
            images: OnceLock::new(),
            file,
            node,
            dir,
            clock,
            seed,
            tail: TailBudget::new(tail_bytes_max),
            producers: ProducerBudget::new(PRODUCERS_MAX),
        }
    }

    pub fn set_images(&self, images: Images) {
        let _ = self.images.set(images);
    }

    pub fn by_name(&self, name: &str) -> Option<Arc<Here>> {
        self.read().by_name.get(name).cloned()
    }
    pub fn by_id(&self, id: TopicId) -> Option<Arc<Here>> {
        self.read().by_id.get(&id).cloned()
    }
    pub fn find(&self, at: TopicPartition) -> Option<Arc<Partition>> {
        self.read().by_id.get(&at.topic)?.partitions.get(usize::try_from(at.partition.0).ok()?)?.clone()
    }
    /// Every partition there is, in the order of (topic, number).
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        self.read().by_id.values().flat_map(|here| here.partitions.iter().flatten().cloned()).collect()
    }

    /// The log directory has failed: nothing in it is read or written any more.
    pub fn is_stopped(&self) -> bool {
        self.dir.is_stopped().is_some()
    }

    /// Returns once every partition on this node leads and knows its high watermark, or after `limit`.
    pub async fn led(&self, limit: Duration) {
        let all = async {
            for partition in self.partitions() {
                led(partition).await;
            }
        };
        let _ = time::timeout(limit, all).await;
    }

    pub fn settings(&self, here: &Here) -> Arc<Settings> {
        if let Some(known) = &*here.settings.read().unwrap_or_else(PoisonError::into_inner) {
            return known.clone();
        }
        let settings = Arc::new(match self.images.get() {
            Some(images) => {
                let image = images();
                Settings::read(|key| topic_value(&image, &self.file, &here.topic.name, key))
            }
            None => Settings::read(|_| String::new()),
        });
        *here.settings.write().unwrap_or_else(PoisonError::into_inner) = Some(settings.clone());
        settings
    }

    /// Opens the replica of `gid` on this node, new or found, and lets it act.
    pub fn open(&self, gid: Gid, at: TopicPartition, name: TopicName) -> Result<Arc<Partition>, String> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner).remove(&gid);
        let found = match found {
            Some(found) => found,
            None => self.dir.create(gid, new_spec(at, self.node)),
        };
        let group = self.group(found)?;
        let partition = Partition::new((gid, at, name), group, self.dir.clone(), self.clock.clone());
        self.dir.attach(gid, partition.clone() as Arc<dyn Replica>);
        partition.start();
        Ok(partition)
    }

    fn group(&self, found: RecoveredGroup) -> Result<GroupCore, String> {
        let gid = found.gid;
        let (budget, producers) = (Some(self.tail.clone()), Some(self.producers.clone()));
        let log = LogConfig { budget, producers, ..LogConfig::default() };
        let config = GroupConfig {
            uncommitted_bytes_max: UNCOMMITTED_BYTES_MAX,
            log,
            ..GroupConfig::new(PeerId::new(self.node, 1))
        };
        GroupCore::open(&config, found, self.seed ^ gid.0).map_err(|e| e.to_string())
    }

    /// Opens a partition again that panicked, from disk: all that was acknowledged is there. Blocking.
    pub fn reopen(&self, partition: &Arc<Partition>) -> Result<(), String> {
        let gid = partition.gid;
        let found = self.dir.reopen(gid).map_err(|e| e.to_string())?;
        let group = self.group(found)?;
        if !partition.reopened(group) {
            return Ok(()); // closed or deleted meanwhile
        }
        self.dir.attach(gid, partition.clone() as Arc<dyn Replica>);
        if let Some(here) = self.by_id(partition.at.topic) {
            self.limit_segments(&here);
        }
        partition.start();
        Ok(())
    }

    /// Forgets producers that nothing was heard of for `idle_ms` (`producer.id.expiration.ms`).
    pub fn expire_producers(&self, now_ms: i64, idle_ms: u64) {
        let idle_ms = i64::try_from(idle_ms).unwrap_or(i64::MAX);
        let gone: usize = self.partitions().iter().map(|p| p.expire_producers(now_ms, idle_ms)).sum();
        PRODUCERS_EXPIRED.add(gone as u64);
    }

    /// Above the node's limit: forgets the longest idle ones, whatever their age. Cheap while there is room.
    pub fn evict_producers(&self, now_ms: i64, idle_ms: u64) {
        let excess = usize::try_from(self.producers.excess()).unwrap_or(usize::MAX);
        PRODUCERS.set(i64::try_from(self.producers.known()).unwrap_or(i64::MAX));
        TAIL_BYTES.set(i64::try_from(self.tail.used_bytes()).unwrap_or(i64::MAX));
        if excess == 0 {
            return;
        }
        let idle_ms = i64::try_from(idle_ms).unwrap_or(i64::MAX);
        let (partitions, mut idle) = (self.partitions(), Vec::new());
        partitions.iter().for_each(|p| p.idle_producers(now_ms, idle_ms, &mut idle));
        let Some(last) = excess.min(idle.len()).checked_sub(1) else { return };
        let before_ms = *idle.select_nth_unstable(last).1;
        let mut left = excess;
        for partition in partitions {
            left -= partition.evict_producers(before_ms, left);
        }
        PRODUCERS_EVICTED.add((excess - left) as u64);
    }

    /// Lets go of what no topic keeps any longer, on all partitions led here.
    pub fn retain(&self) {
        let all: Vec<Arc<Here>> = self.read().by_id.values().cloned().collect();
        for here in all {
            let retention = self.settings(&here).retention;
            if retention == Retention::default() {
                continue;
            }
            for partition in here.partitions.iter().flatten() {
                if let Some(start) = partition.retain(retention) {
                    log!(Debug, "partition.retain", "{}-{} begins at {start}", partition.topic, partition.at.partition);
                }
            }
        }
    }

    /// The partition whose log has the largest dirty share of all that are due, with its topic's policy.
    /// Logs that `skip` names are left out.
    pub fn most_dirty(&self, skip: impl Fn(Gid) -> bool) -> Option<(Arc<Partition>, Policy)> {
        let all: Vec<Arc<Here>> = self.read().by_id.values().cloned().collect();
        let mut most: Option<(f64, Arc<Partition>, Policy)> = None;
        for here in all {
            let settings = self.settings(&here);
            if !settings.compact {
                continue;
            }
            for partition in here.partitions.iter().flatten().filter(|p| !skip(p.gid)) {
                if let Some(choice) = partition.compaction_due(&settings.compaction)
                    && most.as_ref().is_none_or(|(ratio, ..)| choice.dirty_ratio > *ratio)
                {
                    most = Some((choice.dirty_ratio, partition.clone(), settings.compaction));
                }
            }
        }
        most.map(|(_, partition, policy)| (partition, policy))
    }

    /// Bounds of one run of compaction.
    pub fn compact_limits(&self, map_bytes_max: u64, nature: NatureOf) -> CompactLimits {
        let part = |n: u64| catchwater_base::hash::xxh3_64(&(self.seed ^ n).to_le_bytes());
        CompactLimits { map_bytes_max, secret: (part(1), part(2)), nature }
    }

    fn limit_segments(&self, here: &Here) {
        let settings = self.settings(here);
        for partition in here.partitions.iter().flatten() {
            self.dir.set_segment_limits(partition.gid, settings.limits);
            // What the node itself lives by is durable before it is acknowledged, whatever its topic's settings say.
            let durability = if here.internal { Durability::Fsync } else { settings.durability };
            self.dir.set_durability(partition.gid, durability);
        }
    }

    /// Opens the partitions behind those in `partitions`, then shows the topic.
    fn stands(&self, topic: &Arc<Topic>, mut partitions: Vec<Option<Arc<Partition>>>) {
        for (number, place) in topic.partitions.iter().enumerate().skip(partitions.len()) {
            if !place.replicas.contains(&self.node) {
                partitions.push(None);
                continue;
            }
            let at = TopicPartition { topic: topic.id, partition: PartitionId(number as u32) };
            let opened = self.open(place.gid, at, topic.name.clone()).inspect_err(|why| {
                log!(Error, "partition.open", "CW0208 partition {}-{number} stays closed: {why}", topic.name);
            });
            partitions.push(opened.ok());
        }
        let here = Arc::new(Here {
            topic: topic.clone(),
            internal: topic.is_internal(),
            partitions,
            settings: RwLock::default(),
        });
        self.limit_segments(&here);
        let mut index = self.write();
        index.by_name.insert(topic.name.clone(), here.clone());
        index.by_id.insert(topic.id, here);
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }
    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a replica of one voter is, on the node that it lives on.
pub(crate) fn new_spec(at: TopicPartition, node: NodeId) -> GroupSpec {
    let conf = ConfState::of_voters([PeerId::new(node, 1)]).encode();
    GroupSpec { topic: at.topic, partition: at.partition, incarnation: 1, conf, conf_index: EntryIndex::ZERO }
}

/// Returns once the partition leads and knows its high watermark.
async fn led(partition: Arc<Partition>) {
    let watch = Watch::new(vec![partition.clone()]);
    while !partition.ends().leads || !partition.ends().settled {
        watch.woken().await;
        watch.again();
    }
}

impl ClusterListener for Topics {
    fn topic_created(&self, topic: &Arc<Topic>) {
        if self.by_id(topic.id).is_none() {
            self.stands(topic, Vec::new());
        }
    }

    fn topic_changed(&self, topic: &Arc<Topic>) {
        let Some(here) = self.by_id(topic.id) else { return };
        // Partitions never leave a topic, and places do not move yet; owners are checked where captures append.
        self.stands(topic, here.partitions.clone());
    }

    fn topic_deleted(&self, topic: TopicId) {
        let gone = {
            let mut index = self.write();
            let Some(gone) = index.by_id.remove(&topic) else { return };
            // The name may belong to a newer topic already.
            if index.by_name.get(&gone.topic.name).is_some_and(|here| here.topic.id == topic) {
                index.by_name.remove(&gone.topic.name);
            }
            gone
        };
        gone.partitions.iter().flatten().for_each(|partition| partition.delete());
        // Also of those that could not be opened.
        for place in gone.topic.partitions.iter().filter(|place| place.replicas.contains(&self.node)) {
            self.dir.drop_group(place.gid);
        }
    }

    fn topic_was(&self, topic: &Arc<Topic>) {
        for place in &topic.partitions {
            let left = self.found.lock().unwrap_or_else(PoisonError::into_inner).remove(&place.gid);
            if left.is_some() {
                log!(Info, "partition.removed", "{} was deleted: its partition {} goes, too", topic.name, place.gid);
                self.dir.drop_group(place.gid);
            }
        }
    }

    fn config_changed(&self, topic: TopicId) {
        if let Some(here) = self.by_id(topic) {
            *here.settings.write().unwrap_or_else(PoisonError::into_inner) = None;
            self.limit_segments(&here);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kafka_flush_settings_bind_the_window_of_a_relaxed_topic_alone() {
        let window = |ms, records| Durability::Relaxed(Window { ms, records, ..Window::default() });
        let max = Some(i64::MAX);
        assert_eq!(durability("fsync", Some(5), Some(1)), Durability::Fsync);
        assert_eq!(durability("relaxed", max, max), window(200, u64::MAX));
        assert_eq!(durability("relaxed", Some(1000), max), window(1000, u64::MAX));
        assert_eq!(durability("relaxed", max, Some(10)), window(200, 10));
        let settings = Settings::read(|key| if key == "storage.durability" { "relaxed" } else { "" }.to_owned());
        assert_eq!(settings.durability, window(200, u64::MAX));
    }

    #[test]
    fn settings_are_read_by_their_kafka_names() {
        let settings = Settings::read(|key| {
            match key {
                "max.message.bytes" => "1000",
                "cleanup.policy" => "delete, compact",
                "message.timestamp.type" => "LogAppendTime",
                "produce.validation" => "walk",
                "message.timestamp.after.max.ms" => "9223372036854775807",
                "min.insync.replicas" => "2",
                "retention.ms" => "60000",
                "retention.bytes" => "-1",
                _ => "",
            }
            .to_owned()
        });
        assert_eq!(settings.rules.batch_bytes_max, 1000);
        assert!(settings.rules.compacted && settings.rules.append_time);
        assert_eq!(settings.rules.depth, Depth::Walk);
        assert_eq!((settings.rules.after_max_ms, settings.rules.before_max_ms), (i64::MAX, i64::MAX));
        assert_eq!(settings.insync_min, 2);
        assert_eq!(settings.retention, Retention { ms: Some(60_000), bytes: None });
    }
}
