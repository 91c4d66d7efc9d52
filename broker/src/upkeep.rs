//! What a node does by itself from time to time: ticks, retention, compaction, opening again what panicked. One loop
//! each, for all partitions.
//!
//! Compaction works on one log at a time, the one with the largest dirty share first; it reads and writes on a thread
//! that may block, in small steps, and sleeps between them so that it moves no more than its bound of bytes per second.

use crate::node::Node;
use crate::partition::shell::{Condition, Partition};
use catchwater_base::metric::{Counter, Gauge};
use catchwater_base::{Mono, log};
use catchwater_raft::Event;
use catchwater_raft::driver::LogDir;
use catchwater_raft::driver::compaction::{CompactError, Compaction, Stats};
use catchwater_record::Gid;
use catchwater_runtime::{memory, spawn, time};
use catchwater_storage::compact::{NatureOf, whole};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub static REOPENED: Counter = Counter::new();
/// Partitions that are offline now.
pub static DOWN: Gauge = Gauge::new();
pub static COMPACTION_RUNS: Counter = Counter::new();
pub static COMPACTION_FAILED: Counter = Counter::new();
pub static COMPACTION_BYTES_MOVED: Counter = Counter::new();
pub static COMPACTION_BYTES_FREED: Counter = Counter::new();

/// Ticks of all groups come this often, and so many at a time: 1 s of 100 ms ticks. A lone voter needs them only to
/// refresh the commit index that is stored for the next start.
const TICK: Duration = Duration::from_secs(1);
const TICKS: u32 = 10;
/// Producers are looked at for their age every so many ticks.
const EXPIRE_TICKS: u32 = 60;
/// How often it is looked whether a partition panicked.
const FALLEN_LOOK: Duration = Duration::from_millis(200);
/// A partition is opened again so often within [`REOPEN_WINDOW_MS`]; at the next panic it stays offline.
const REOPENS_MAX: usize = 3;
const REOPEN_WINDOW_MS: u64 = 600_000;
/// Bytes of one step of compaction.
const STEP_BYTES: u64 = 1 << 20;
/// A log whose compaction failed is left alone for so long.
const FAILED_PAUSE: Duration = Duration::from_secs(600);

/// How the node looks after its logs.
#[derive(Clone, Copy, Debug)]
pub struct UpkeepConfig {
    /// `log.retention.check.interval.ms`
    pub retention_check_ms: u64,
    /// `log.cleaner.backoff.ms`: pause when nothing is due.
    pub cleaner_backoff_ms: u64,
    /// `log.cleaner.dedupe.buffer.size`
    pub cleaner_memory_bytes: u64,
    /// `log.cleaner.io.max.bytes.per.second`, read and written together.
    pub cleaner_bytes_per_second: u64,
    /// `producer.id.expiration.ms`
    pub producer_expiration_ms: u64,
    /// Tells the records of captures apart.
    pub nature: NatureOf,
}

impl Default for UpkeepConfig {
    fn default() -> Self {
        UpkeepConfig {
            retention_check_ms: 300_000,
            cleaner_backoff_ms: 15_000,
            cleaner_memory_bytes: 128 << 20,
            cleaner_bytes_per_second: 50 << 20,
            producer_expiration_ms: 86_400_000,
            nature: whole,
        }
    }
}

/// One tick for all groups of the node, and for its log directory.
pub async fn tick(node: Arc<Node>, controller_log: Arc<Partition>, dir: LogDir, config: UpkeepConfig) {
    for tick in 1u32.. {
        time::sleep(TICK).await;
        let now_ms = node.clock.now().wall.as_millis();
        node.topics.evict_producers(now_ms, config.producer_expiration_ms);
        if tick.is_multiple_of(EXPIRE_TICKS) {
            node.topics.expire_producers(now_ms, config.producer_expiration_ms);
            // What topics that went and bursts that are over leave in the allocator.
            let _ = spawn::blocking(memory::give_back).await;
        }
        controller_log.tick(Event::Tick(TICKS));
        for partition in node.topics.partitions() {
            partition.tick(Event::Tick(TICKS));
        }
        dir.tick();
    }
}

/// Opens partitions again that panicked, one after the other, each [`REOPENS_MAX`] times within [`REOPEN_WINDOW_MS`].
pub async fn reopen(node: Arc<Node>, controller_log: Arc<Partition>) {
    let mut brakes: BTreeMap<Gid, VecDeque<Mono>> = BTreeMap::new();
    loop {
        time::sleep(FALLEN_LOOK).await;
        let mut down = 0;
        for partition in node.topics.partitions().into_iter().chain([controller_log.clone()]) {
            match partition.condition() {
                Condition::Up => continue,
                Condition::GivenUp => {}
                Condition::Fallen => {
                    let now = node.clock.now().mono;
                    let times = brakes.entry(partition.gid).or_default();
                    times.retain(|at| now < at.plus_millis(REOPEN_WINDOW_MS));
                    match try_again(&node, &partition, times.len()).await {
                        true => times.push_back(now),
                        false => partition.give_up(),
                    }
                }
            }
            down += i64::from(partition.condition() != Condition::Up);
        }
        DOWN.set(down);
    }
}

/// False: it stays offline.
async fn try_again(node: &Arc<Node>, partition: &Arc<Partition>, before: usize) -> bool {
    let name = format!("{}-{}", partition.topic, partition.at.partition);
    if before >= REOPENS_MAX {
        log!(
            Error,
            "partition.offline",
            "CW0206 partition {name} was opened again {before} times within 10 minutes and panicked again: it stays offline until \
             the next start; what was acknowledged is on the disk"
        );
        return false;
    }
    let (topics, of) = (node.clone(), partition.clone());
    match spawn::blocking(move || topics.topics.reopen(&of)).await.and_then(|done| done) {
        Ok(()) => {
            REOPENED.inc();
            log!(Warn, "partition.reopened", "partition {name} panicked and was opened again from disk");
            true
        }
        Err(why) => {
            log!(
                Error,
                "partition.offline",
                "CW0206 partition {name} panicked and could not be opened again: {why}; it stays offline until the next start"
            );
            false
        }
    }
}

/// Looks at the retention of all topics, again and again.
pub async fn retain(node: Arc<Node>, config: UpkeepConfig) {
    loop {
        time::sleep(Duration::from_millis(config.retention_check_ms)).await;
        node.topics.retain();
    }
}

/// Compacts what is due, one log after the other.
pub async fn compact(node: Arc<Node>, config: UpkeepConfig) {
    let limits = node.topics.compact_limits(config.cleaner_memory_bytes, config.nature);
    // Logs that failed, with the time from which they are looked at again.
    let mut failed = BTreeMap::new();
    loop {
        let now = node.clock.now().mono;
        failed.retain(|_, until| *until > now);
        let due = node.topics.most_dirty(|gid| failed.contains_key(&gid));
        let run = due.and_then(|(partition, policy)| Some((partition.compaction(policy, limits)?, partition)));
        let Some((run, partition)) = run else {
            time::sleep(Duration::from_millis(config.cleaner_backoff_ms)).await;
            continue;
        };
        let name = format!("{}-{}", partition.topic, partition.at.partition);
        match paced(run, config.cleaner_bytes_per_second).await {
            Ok(stats) => {
                COMPACTION_RUNS.inc();
                COMPACTION_BYTES_FREED.add(stats.bytes_before.saturating_sub(stats.bytes_after));
                log!(
                    Debug,
                    "partition.compact",
                    "{name}: {} batches and {} bytes of {} and {} are left, in {} segments of {}",
                    stats.batches_after,
                    stats.bytes_after,
                    stats.batches_before,
                    stats.bytes_before,
                    stats.segments_after,
                    stats.segments_before
                );
            }
            Err(why) => {
                // Retention was faster, or the topic went: soon again, and others first.
                let mut pause_ms = config.cleaner_backoff_ms;
                if why.as_ref().is_none_or(|e| !e.is_harmless()) {
                    pause_ms = failed_pause_ms();
                    COMPACTION_FAILED.inc();
                    let why = why.map_or_else(|| "its thread ended".to_owned(), |e| e.to_string());
                    log!(Error, "partition.compact", "{name} is not compacted: {why}");
                }
                failed.insert(partition.gid, node.clock.now().mono.plus_millis(pause_ms));
            }
        }
    }
}

fn failed_pause_ms() -> u64 {
    u64::try_from(FAILED_PAUSE.as_millis()).unwrap_or(u64::MAX)
}

/// Runs to the end at most so fast. `Err(None)` = a bug ended the thread.
async fn paced(mut run: Compaction, bytes_per_second: u64) -> Result<Stats, Option<CompactError>> {
    loop {
        let stepped = spawn::blocking(move || {
            let result = run.step(STEP_BYTES);
            (run, result)
        });
        let (back, result) = stepped.await.map_err(|_| None)?;
        run = back;
        match result.map_err(Some)? {
            Err(stats) => return Ok(stats),
            Ok(bytes) => {
                COMPACTION_BYTES_MOVED.add(bytes);
                let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(bytes_per_second.max(1));
                time::sleep(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))).await;
            }
        }
    }
}
