//! `/metrics`: OpenMetrics text, made at each scrape from the plain atomics of the other crates and the workers' status.
//! Names are fixed once published.

use crate::assemble::WorkerLine;
use catchwater_base::metric::{Counter, Gauge, HISTOGRAM_BOUNDS_US, Histogram};
use catchwater_client::TaskState;
use catchwater_deliver::lag::STAGES;
use catchwater_deliver::status::Timings;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge as Shown;
use prometheus_client::registry::{Registry, Unit};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};

/// Counters and gauges of the process: name, help, where they are.
#[derive(Debug)]
struct Process;

fn counter(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: u64,
) -> std::fmt::Result {
    let metric = ConstCounter::new(value);
    let encoder = out.encode_descriptor(name, help, unit, metric.metric_type())?;
    metric.encode(encoder)
}

fn gauge(out: &mut DescriptorEncoder<'_>, name: &str, help: &str, unit: Option<&Unit>, value: i64) -> std::fmt::Result {
    let metric = prometheus_client::metrics::gauge::ConstGauge::new(value);
    let encoder = out.encode_descriptor(name, help, unit, metric.metric_type())?;
    metric.encode(encoder)
}

impl Collector for Process {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> std::fmt::Result {
        use catchwater_broker::{budget, connection, partition::shell, server, topics, upkeep as reopened};
        let counters: [(&str, &str, Option<Unit>, &Counter); 13] = [
            ("catchwater_connections_refused", "connections above a limit", None, &server::CONNECTIONS_REFUSED),
            ("catchwater_connections_closed", "connections that ended", None, &connection::CONNECTIONS_CLOSED),
            ("catchwater_requests", "requests answered", None, &connection::REQUESTS),
            ("catchwater_requests_refused", "requests that closed their connection", None, &server::REQUESTS_REFUSED),
            ("catchwater_received", "bytes from Kafka clients", Some(Unit::Bytes), &connection::BYTES_IN),
            ("catchwater_sent", "bytes to Kafka clients", Some(Unit::Bytes), &connection::BYTES_OUT),
            ("catchwater_appended_batches", "batches taken by partitions", None, &shell::APPENDED_BATCHES),
            ("catchwater_appended", "bytes taken by partitions", Some(Unit::Bytes), &shell::APPENDED_BYTES),
            ("catchwater_duplicate_batches", "batches that were in the log already", None, &shell::DUPLICATE_BATCHES),
            ("catchwater_producers_expired", "producers forgotten after their time", None, &topics::PRODUCERS_EXPIRED),
            ("catchwater_producers_evicted", "producers forgotten above the limit", None, &topics::PRODUCERS_EVICTED),
            ("catchwater_partitions_offline", "partitions that a panic took down", None, &shell::OFFLINE),
            ("catchwater_partitions_reopened", "partitions opened again after a panic", None, &reopened::REOPENED),
        ];
        for (name, help, unit, c) in counters {
            counter(&mut out, name, help, unit.as_ref(), c.get())?;
        }
        let gauges: [(&str, &str, Option<Unit>, &Gauge); 4] = [
            ("catchwater_partitions_down", "partitions that are offline now, after panics", None, &reopened::DOWN),
            ("catchwater_producers", "idempotent producers remembered", None, &topics::PRODUCERS),
            ("catchwater_connections", "open connections of Kafka clients", None, &server::CONNECTIONS),
            ("catchwater_request_memory", "memory held by requests", Some(Unit::Bytes), &budget::REQUEST_BYTES),
        ];
        for (name, help, unit, g) in gauges {
            gauge(&mut out, name, help, unit.as_ref(), g.get())?;
        }
        storage(&mut out)?;
        upkeep(&mut out)?;
        counter(
            &mut out,
            "catchwater_invariants_broken",
            "assertions at the edges that did not hold",
            None,
            catchwater_base::check::BROKEN.get(),
        )?;
        if let Some(bytes) = resident_bytes() {
            gauge(&mut out, "process_resident_memory", "resident memory", Some(&Unit::Bytes), bytes)?;
        }
        Ok(())
    }
}

/// The log directory: names and meanings are fixed (docs/configuration.md).
fn storage(out: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
    use catchwater_broker::metrics::disk;
    let counters = [
        ("catchwater_journal_flush", "bytes of journal flushes", Some(Unit::Bytes), &disk::FLUSH_BYTES),
        ("catchwater_journal_seal", "flushes without content, at idle times", None, &disk::SEALS),
        (
            "catchwater_relaxed_lost_records",
            "records of relaxed topics that a power loss took, as far as they left traces",
            None,
            &disk::RELAXED_LOST_RECORDS,
        ),
        ("catchwater_disk_no_space", "operations that found no room and waited", None, &disk::NO_SPACE),
        (
            "catchwater_storage_damage_detected",
            "parts of partitions that could not be read while segments were closed off or cut",
            None,
            &disk::DAMAGE_DETECTED,
        ),
        (
            "catchwater_storage_damage_repaired",
            "files that were lost or damaged and were made again at the start",
            None,
            &disk::DAMAGE_REPAIRED,
        ),
    ];
    for (name, help, unit, c) in counters {
        counter(out, name, help, unit.as_ref(), c.get())?;
    }
    let gauges = [
        ("catchwater_journal_waiting", "bytes not durable yet", Some(Unit::Bytes), &disk::WAITING_BYTES),
        ("catchwater_journal_unplaced", "durable bytes not in segments yet", Some(Unit::Bytes), &disk::UNPLACED_BYTES),
        (
            "catchwater_checkpoint_lag",
            "journal bytes not known durable in segments",
            Some(Unit::Bytes),
            &disk::CHECKPOINT_LAG_BYTES,
        ),
        ("catchwater_segment_dirty", "segment bytes not synced", Some(Unit::Bytes), &disk::SEGMENT_DIRTY_BYTES),
        (
            "catchwater_recovery",
            "of the journal that the recovery at the start read",
            Some(Unit::Bytes),
            &disk::RECOVERY_BYTES,
        ),
        ("catchwater_disk_free", "room on the log directory's filesystem", Some(Unit::Bytes), &disk::DISK_FREE_BYTES),
        ("catchwater_disk_full", "1 while producing is refused for want of room", None, &disk::DISK_LOW),
        ("catchwater_disk_slow", "1 while journal writes take ten times the usual", None, &disk::DISK_SLOW),
        ("catchwater_disk_offline", "1 once a write or sync has failed", None, &disk::DISK_OFFLINE),
    ];
    for (name, help, unit, g) in gauges {
        gauge(out, name, help, unit.as_ref(), g.get())?;
    }
    let times = [
        (
            "catchwater_relaxed_window",
            "age of the oldest acknowledged record that a power loss would take",
            &disk::RELAXED_WINDOW_US,
        ),
        ("catchwater_recovery", "time of the recovery at the start", &disk::RECOVERY_US),
    ];
    for (name, help, us) in times {
        let metric = prometheus_client::metrics::gauge::ConstGauge::new(us.get() as f64 / 1e6);
        let encoder = out.encode_descriptor(name, help, Some(&Unit::Seconds), metric.metric_type())?;
        metric.encode(encoder)?;
    }
    let help = "partitions by the verdict of the recovery at the start";
    let mut family = out.encode_descriptor("catchwater_recovery_verdict", help, None, MetricType::Counter)?;
    for (verdict, count) in &disk::RECOVERY_VERDICTS {
        let labels = [("verdict", *verdict)];
        let encoder = family.encode_family(&labels)?;
        ConstCounter::new(count.get()).encode(encoder)?;
    }
    let used = disk::JOURNAL_USED_PERCENT.get() as f64 / 100.0;
    let metric = prometheus_client::metrics::gauge::ConstGauge::new(used);
    let encoder = out.encode_descriptor(
        "catchwater_journal_used_ratio",
        "share of the journal that is in use",
        None,
        metric.metric_type(),
    )?;
    metric.encode(encoder)?;
    let (buckets, sum_us) = disk::FLUSH_TIME.read();
    let bounds = HISTOGRAM_BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::MAX]);
    let buckets: Vec<(f64, u64)> = bounds.zip(buckets).collect();
    let count = buckets.iter().map(|(_, n)| n).sum();
    let mut encoder = out.encode_descriptor(
        "catchwater_journal_flush",
        "time of a journal flush",
        Some(&Unit::Seconds),
        MetricType::Histogram,
    )?;
    encoder.encode_histogram::<NoLabelSet>(sum_us as f64 / 1e6, count, &buckets, None)
}

/// Reads of stored bytes, compaction, expiry.
fn upkeep(out: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
    use catchwater_broker::{fetch::write, metrics::disk, topics, upkeep};
    let pinned = disk::WAITING_BYTES.get() + disk::UNPLACED_BYTES.get();
    for (name, help, bytes) in [
        ("catchwater_tail_cache", "newest batches kept for readers though files have them", topics::TAIL_BYTES.get()),
        ("catchwater_tail_cache_pinned", "batches in memory that no segment has yet", pinned),
    ] {
        gauge(out, name, help, Some(&Unit::Bytes), bytes)?;
    }
    let (tail, files) = (write::READ_TAIL.get(), write::READ_HOT.get() + write::READ_COLD.get());
    let ratio = tail as f64 / (tail + files).max(1) as f64;
    let metric = prometheus_client::metrics::gauge::ConstGauge::new(ratio);
    let help = "share of the reads that the tail cache answered, since the start";
    let encoder = out.encode_descriptor("catchwater_tail_cache_hit_ratio", help, None, metric.metric_type())?;
    metric.encode(encoder)?;
    let counters = [
        ("catchwater_fetch_hot_reads", "reads of files answered from the page cache", None, &write::READ_HOT),
        ("catchwater_fetch_cold_reads", "reads of files that had to wait", None, &write::READ_COLD),
        ("catchwater_compaction_runs", "compactions that came to their end", None, &upkeep::COMPACTION_RUNS),
        ("catchwater_compaction_failed", "compactions that ended on an error", None, &upkeep::COMPACTION_FAILED),
        (
            "catchwater_compaction_moved",
            "read and written by compaction",
            Some(Unit::Bytes),
            &upkeep::COMPACTION_BYTES_MOVED,
        ),
        ("catchwater_compaction_freed", "let go by compaction", Some(Unit::Bytes), &upkeep::COMPACTION_BYTES_FREED),
    ];
    for (name, help, unit, c) in counters {
        counter(out, name, help, unit.as_ref(), c.get())?;
    }
    Ok(())
}

/// Linux only; absent elsewhere.
fn resident_bytes() -> Option<i64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    statm.split(' ').nth(1)?.parse::<i64>().ok()?.checked_mul(4096)
}

/// How long each sink's target takes.
#[derive(Debug)]
struct Targets(Vec<(Labels, Arc<Timings>)>);

impl Collector for Targets {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> std::fmt::Result {
        type Of = fn(&Timings) -> &Histogram;
        let all: [(&str, &str, Option<Unit>, Of); 3] = [
            ("catchwater_sink_write", "time the target takes for the rows of a group", Some(Unit::Seconds), |t| {
                &t.write
            }),
            ("catchwater_sink_commit", "time of a commit at the target", Some(Unit::Seconds), |t| &t.commit),
            ("catchwater_sink_batch_rows", "row changes of a transaction of the target", None, |t| &t.rows),
        ];
        for (name, help, unit, of) in all {
            let scale = if unit.is_some() { 1e6 } else { 1.0 };
            let mut family = out.encode_descriptor(name, help, unit.as_ref(), MetricType::Histogram)?;
            for (labels, timings) in &self.0 {
                let (buckets, sum) = of(timings).read();
                let bounds = HISTOGRAM_BOUNDS_US.iter().map(|b| *b as f64 / scale).chain([f64::MAX]);
                let buckets: Vec<(f64, u64)> = bounds.zip(buckets).collect();
                let count = buckets.iter().map(|(_, n)| n).sum();
                let mut one = family.encode_family(labels)?;
                one.encode_histogram::<NoLabelSet>(sum as f64 / scale, count, &buckets, None)?;
            }
        }
        Ok(())
    }
}

/// Sets of labels per metric that name tables; the rest is one, `_other`.
const TABLES_MAX: usize = 1000;

pub struct Metrics;

type Labels = Vec<(String, String)>;
type Counted = prometheus_client::metrics::counter::Counter;

impl Metrics {
    pub fn new() -> Self {
        Metrics
    }

    /// The whole page.
    pub fn text(&self, workers: &[WorkerLine]) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        let lag = Family::<Labels, Shown<f64, AtomicU64>>::default();
        let stage = Family::<Labels, Shown<f64, AtomicU64>>::default();
        let info = Family::<Labels, Shown<i64, AtomicI64>>::default();
        let source_bytes = Family::<Labels, Shown<i64, AtomicI64>>::default();
        let connected = Family::<Labels, Shown<i64, AtomicI64>>::default();
        let rows = Family::<Labels, Shown<i64, AtomicI64>>::default();
        let snapshot = Family::<Labels, Shown<i64, AtomicI64>>::default();
        let ad_hoc = Family::<Labels, Shown<i64, AtomicI64>>::default();
        let ad_hoc_of = Family::<Labels, Shown<i64, AtomicI64>>::default();
        let dead_letters = Family::<Labels, Shown<i64, AtomicI64>>::default();
        let parked_keys = Family::<Labels, Shown<i64, AtomicI64>>::default();
        let ledger = Family::<Labels, Shown<i64, AtomicI64>>::default();
        let reorders = Family::<Labels, Shown<i64, AtomicI64>>::default();
        let state = Family::<Labels, Shown<i64, AtomicI64>>::default();
        let records = Family::<Labels, Shown<i64, AtomicI64>>::default();
        let held = Family::<Labels, Shown<i64, AtomicI64>>::default();
        let tables = Family::<Labels, Shown<i64, AtomicI64>>::default();
        let chunks = Family::<Labels, Shown<i64, AtomicI64>>::default();
        let chunks_done = Family::<Labels, Shown<i64, AtomicI64>>::default();
        let snapshot_of = Family::<Labels, Shown<i64, AtomicI64>>::default();
        let slot_bytes = Family::<Labels, Shown<i64, AtomicI64>>::default();
        let slot_safe = Family::<Labels, Shown<i64, AtomicI64>>::default();
        let slot_status = Family::<Labels, Shown<i64, AtomicI64>>::default();
        let lanes_busy = Family::<Labels, Shown<f64, AtomicU64>>::default();
        let retention = Family::<Labels, Shown<f64, AtomicU64>>::default();
        let retries = Family::<Labels, Counted>::default();
        let changes = Family::<Labels, Counted>::default();
        let mut targets = Vec::new();
        let (mut tables_seen, mut topics_seen, mut snapshots_seen) = (0, 0, 0);
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        for w in workers {
            let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
            let pipeline = pair("pipeline", &w.pipeline);
            let seconds = w.lag_ms as f64 / 1000.0;
            let name = pair(w.kind, &w.node);
            if let Some((rows, keys)) = w.parked {
                let whose = vec![pipeline.clone(), name.clone()];
                dead_letters.get_or_create(&whose).set(i64::try_from(rows).unwrap_or(i64::MAX));
                parked_keys.get_or_create(&whose).set(i64::try_from(keys).unwrap_or(i64::MAX));
            }
            if let Some(c) = w.ledger {
                let whose = vec![pipeline.clone(), name.clone()];
                for (outcome, n) in [
                    ("taken", c.taken),
                    ("applied", c.applied),
                    ("folded", c.folded),
                    ("parked", c.parked),
                    ("filtered", c.filtered),
                ] {
                    let row = vec![pipeline.clone(), name.clone(), pair("outcome", outcome)];
                    ledger.get_or_create(&row).set(i64::try_from(n).unwrap_or(i64::MAX));
                }
                reorders.get_or_create(&whose).set(i64::try_from(c.reorders).unwrap_or(i64::MAX));
            }
            if w.kind == "sink" {
                let whose = vec![pipeline.clone(), name.clone()];
                lag.get_or_create(&whose).set(seconds);
                for (word, us) in STAGES.iter().zip(w.stages.unwrap_or_default()) {
                    let labels = vec![pipeline.clone(), pair("stage", word), name.clone()];
                    stage.get_or_create(&labels).set(us as f64 / 1e6);
                }
                if let Some(n) = w.lag_records {
                    records.get_or_create(&whose).set(number(n));
                }
                if let Some(n) = w.held_bytes {
                    held.get_or_create(&vec![pipeline.clone(), name.clone(), pair("state", "held")]).set(number(n));
                }
                for ((table, what), n) in &w.operations {
                    tables_seen += 1;
                    let table = if tables_seen > TABLES_MAX { "_other" } else { table };
                    tables
                        .get_or_create(&vec![pair("op", what), pipeline.clone(), name.clone(), pair("table", table)])
                        .inc_by(number(*n));
                }
                if let Some(share) = w.lanes_busy {
                    lanes_busy.get_or_create(&whose).set(share);
                }
                for (topic, share) in &w.retention_used {
                    topics_seen += 1;
                    let topic = if topics_seen > TABLES_MAX { "_other" } else { topic };
                    let used = retention.get_or_create(&vec![pipeline.clone(), name.clone(), pair("topic", topic)]);
                    used.set(used.get().max(*share));
                }
                for (class, n) in &w.retries {
                    retries.get_or_create(&vec![pipeline.clone(), name.clone(), pair("class", class)]).inc_by(*n);
                }
                changes.get_or_create(&whose).inc_by(w.schema_changes);
                if let Some(timings) = &w.timings {
                    targets.push((whose, Arc::clone(timings)));
                }
                info.get_or_create(&vec![pipeline.clone(), name.clone(), pair("class", "exactly_once")]).set(1);
            } else {
                stage.get_or_create(&vec![pipeline.clone(), pair("stage", "capture"), name.clone()]).set(seconds);
                let running = matches!(w.state, TaskState::Running | TaskState::Snapshot);
                connected.get_or_create(&vec![name.clone()]).set(i64::from(running));
                if let Some(bytes) = w.lag_bytes {
                    source_bytes.get_or_create(&vec![name.clone()]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
                }
                for (table, t) in &w.snapshot_tables {
                    snapshots_seen += 1;
                    let table = if snapshots_seen > TABLES_MAX { "_other" } else { table };
                    let of = vec![name.clone(), pair("table", table)];
                    snapshot.get_or_create(&of).inc_by(number(t.rows));
                    snapshot_of.get_or_create(&of).inc_by(number(t.rows_estimate));
                    chunks_done.get_or_create(&of).inc_by(number(t.units_done));
                    chunks.get_or_create(&of).inc_by(number(t.units));
                }
                if let Some(slot) = &w.slot {
                    slot_bytes.get_or_create(&vec![name.clone()]).set(number(slot.retained_bytes));
                    slot_status.get_or_create(&vec![name.clone(), pair("status", &slot.wal_status)]).set(1);
                    if let Some(bytes) = slot.safe_bytes {
                        slot_safe.get_or_create(&vec![name.clone()]).set(bytes);
                    }
                }
                for a in &w.ad_hoc {
                    let labels = vec![name.clone(), pair("table", &a.table)];
                    ad_hoc.get_or_create(&labels).set(i64::try_from(a.rows).unwrap_or(i64::MAX));
                    ad_hoc_of.get_or_create(&labels).set(i64::try_from(a.rows_estimate).unwrap_or(i64::MAX));
                }
            }
            rows.get_or_create(&vec![pipeline.clone(), name.clone()]).set(number(w.rows));
            state.get_or_create(&vec![pipeline, name, pair("state", w.word())]).set(1);
        }
        registry.register(
            "catchwater_pipeline_lag_seconds",
            "age of the oldest change that is not durable at the sink",
            lag,
        );
        registry.register("catchwater_stage_lag_seconds", "the same, by stage", stage);
        registry.register(
            "catchwater_pipeline_lag_records",
            "records of the log that are not durable at the sink",
            records,
        );
        registry.register("catchwater_deliver_credit_bytes", "row bytes in memory", held);
        registry.register(
            "catchwater_sink_table_rows",
            "row changes by target table and operation since the worker began",
            tables,
        );
        registry.register("catchwater_apply_lane_busy_ratio", "share of the lanes that hold rows", lanes_busy);
        registry.register(
            "catchwater_retention_used_ratio",
            "age of the oldest record that is not at the sink, as a share of the time the log keeps it",
            retention,
        );
        registry.register("catchwater_snapshot_chunks_done", "pieces read by the snapshot", chunks_done);
        registry.register("catchwater_snapshot_chunks", "pieces that the snapshot has", chunks);
        registry.register("catchwater_snapshot_rows_estimated", "rows the server thinks its table has", snapshot_of);
        registry.register("catchwater_source_slot_retained_bytes", "WAL kept because of the slot", slot_bytes);
        registry.register("catchwater_source_slot_safe_bytes", "WAL until the slot may lose some", slot_safe);
        registry.register("catchwater_source_slot_wal_status", "1 for the server's word on the slot", slot_status);
        registry.register(
            "catchwater_sink_retries",
            "times that a sink began again after a failure, by its class",
            retries,
        );
        registry.register("catchwater_schema_changes", "steps of DDL done at the target", changes);
        registry.register_collector(Box::new(Targets(targets)));
        registry.register("catchwater_pipeline", "delivery class", info);
        registry.register(
            "catchwater_source_position_lag_bytes",
            "bytes the source keeps for the capture",
            source_bytes,
        );
        registry.register("catchwater_source_connected", "1 while the source is read", connected);
        registry.register("catchwater_task_rows", "row changes since the worker began", rows);
        registry.register("catchwater_snapshot_rows_done", "rows read by the snapshot", snapshot);
        registry.register(
            "catchwater_ad_hoc_rows_done",
            "rows read by an ad hoc snapshot that is not at its end",
            ad_hoc,
        );
        registry.register("catchwater_ad_hoc_rows_estimate", "rows the server thinks its table has", ad_hoc_of);
        registry.register(
            "catchwater_sink_dead_letters",
            "rows that the target refused, or behind one, since the worker began",
            dead_letters,
        );
        registry.register("catchwater_sink_parked_keys", "keys whose rows are set aside", parked_keys);
        registry.register(
            "catchwater_sink_rows",
            "rows of durable groups since the worker began: taken = applied + folded + parked + filtered",
            ledger,
        );
        registry.register(
            "catchwater_apply_reorders",
            "times that groups in several lanes met after all and were run again one by one",
            reorders,
        );
        registry.register("catchwater_task_state", "1 for the state a task is in", state);
        let mut out = String::new();
        if prometheus_client::encoding::text::encode(&mut out, &registry).is_err() {
            out.clear();
        }
        out
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::assemble::Ledger;
    use catchwater_client::Wish;
    use std::collections::{BTreeMap, BTreeSet};

    fn line(kind: &'static str) -> WorkerLine {
        WorkerLine {
            ad_hoc: if kind == "source" { vec![ad_hoc()] } else { Vec::new() },
            ad_hoc_refused: (0, None),
            pipeline: "shop".into(),
            node: format!("a_{kind}"),
            kind,
            state: TaskState::Running,
            wish: Wish::Run,
            rows: 7,
            lag_ms: 1500,
            lag_bytes: Some(9),
            position: "0/1".into(),
            snapshot: Some((3, 1, 1)),
            tables: [("public.t".to_owned(), 1)].into(),
            operations: [(("public.t".to_owned(), "upsert"), 1)].into(),
            lanes_busy: Some(0.5),
            retention_used: vec![("shop.public.t".to_owned(), 0.25)],
            slot: Some(catchwater_capture::source::SlotState {
                retained_bytes: 1,
                wal_status: "reserved".into(),
                safe_bytes: Some(1),
            }),
            snapshot_tables: [("public.t".to_owned(), Default::default())].into(),
            parked: (kind == "sink").then_some((1, 1)),
            ledger: (kind == "sink").then_some(Ledger::default()),
            error: None,
            next: None,
            stages: (kind == "sink").then_some([1, 2, 3, 4]),
            lag_records: Some(3),
            seq: catchwater_record::CommitSeq(1),
            timings: (kind == "sink").then(Arc::default),
            retries: [("environment", 1)].into(),
            schema_changes: 1,
            rebuilds: (0, 0),
            rebuild_failed: None,
            held_bytes: Some(1),
        }
    }

    fn ad_hoc() -> catchwater_capture::status::AdHoc {
        catchwater_capture::status::AdHoc {
            table: "public.orders".into(),
            state: "running",
            rows: 3,
            chunks: 1,
            rows_estimate: 9,
            eta_ms: None,
        }
    }

    /// Name, type and labels of everything on the page, as `docs/metrics.md` writes it.
    fn served() -> BTreeSet<String> {
        let text = Metrics::new().text(&[line("source"), line("sink")]);
        let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
        for l in text.lines() {
            if let Some((name, kind)) = l.strip_prefix("# TYPE ").and_then(|l| l.split_once(' ')) {
                kinds.insert(name, kind);
            } else if let Some((name, rest)) = l.split_once('{').filter(|_| !l.starts_with('#')) {
                let (inside, _) = rest.rsplit_once('}').unwrap();
                let keys = inside.split("\",").filter_map(|p| p.split_once("=\"")).map(|(k, _)| k);
                // A histogram shows itself by its buckets.
                let name = name.strip_suffix("_bucket").unwrap_or(name);
                labels.entry(name).or_default().extend(keys.filter(|k| *k != "le"));
            }
        }
        let row = |(name, kind): (&&str, &&str)| {
            let shown = if *kind == "counter" { format!("{name}_total") } else { (*name).to_owned() };
            let of = labels.get(shown.as_str()).map(|l| l.iter().copied().collect::<Vec<_>>().join(", "));
            format!("| `{shown}` | {kind} | {} |", of.unwrap_or_default())
        };
        kinds.iter().map(row).collect()
    }

    #[test]
    fn what_is_served_is_documented_and_what_is_documented_is_served() {
        let page = include_str!("../../docs/metrics.md");
        let documented: BTreeSet<String> = page
            .lines()
            .filter(|l| l.starts_with("| `"))
            .map(|l| l.splitn(5, '|').take(4).collect::<Vec<_>>().join("|") + "|")
            .collect();
        let served = served();
        let missing: Vec<_> = served.difference(&documented).collect();
        let gone: Vec<_> = documented.difference(&served).collect();
        assert!(missing.is_empty() && gone.is_empty(), "not documented: {missing:#?}\nnot served: {gone:#?}");
        assert!(served.len() > 30, "{} metrics", served.len());
    }
}
