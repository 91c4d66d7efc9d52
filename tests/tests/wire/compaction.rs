//! Compaction beside a real Apache Kafka (`cargo xtask compat compaction`): the same batches to both, then the same keys,
//! values and tombstones must be left at the same offsets; and Kafka's own tool reads our files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use catchwater_base::Rng;
use catchwater_record::BatchView;
use catchwater_record::batch::Codec;
use catchwater_record::batch::build::Builder;
use catchwater_record::compress::{SnappyFraming, compress_batch};
use catchwater_tests::broker::{Broker, unique};
use catchwater_tests::kafka::{Kafka, cached_libs, libs, tool};

use crate::configs::{Left, all, eager};
use crate::topics::{create, create_all};
use crate::wire::*;

/// Quiet for so long = both have compacted what there is.
const QUIET: Duration = Duration::from_secs(4);
const LIMIT: Duration = Duration::from_secs(90);

/// Batches of a seeded run: keys that come again, tombstones, codecs, producers.
fn batches(rng: &mut Rng, rounds: u32, base_ms: i64, sequences: &mut BTreeMap<i64, i32>) -> Vec<Bytes> {
    let mut out = Vec::new();
    for round in 0..rounds {
        let count = rng.between(1, 6) as i32;
        let producer = if rng.chance(400_000) { Some(rng.between(9_000, 9_002) as i64) } else { None };
        let mut builder = match producer {
            Some(id) => {
                let sequence = sequences.entry(id).or_insert(0);
                *sequence += count;
                Builder::new().producer(id, 0, *sequence - count)
            }
            None => Builder::new(),
        };
        for i in 0..count {
            let keys = if rng.chance(300_000) { 300 } else { 12 };
            let key = format!("key-{}", rng.below(keys));
            let value = format!("value {round} {i} {}", "y".repeat(rng.below(60) as usize));
            let alive = rng.chance(800_000);
            let ms = base_ms + i64::from(round) * 10 + i64::from(i);
            builder.push(ms, Some(key.as_bytes()), alive.then_some(value.as_bytes()), []);
        }
        let mut batch = builder.finish();
        let codec = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd][rng.below(5) as usize];
        if codec != Codec::None {
            batch = compress_batch(&BatchView::new(&batch).unwrap(), codec, SnappyFraming::Xerial).unwrap();
        }
        out.push(batch.freeze());
    }
    out
}

/// Asks until nothing has changed for a while.
fn settled(wire: &mut Wire, topic: &str) -> Vec<Left> {
    let begun = Instant::now();
    let (mut last, mut since) = (all(wire, topic), Instant::now());
    while since.elapsed() < QUIET && begun.elapsed() < LIMIT {
        std::thread::sleep(Duration::from_millis(250));
        let now = all(wire, topic);
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

fn make(wire: &mut Wire, topic: &str, retention_ms: &str) {
    let settings = [
        ("cleanup.policy", "compact"),
        ("internal.segment.bytes", "4000"),
        ("min.cleanable.dirty.ratio", "0.0"),
        ("delete.retention.ms", retention_ms),
        ("file.delete.delay.ms", "100"),
    ];
    let reply = wire.call(7, &create_all(vec![create(topic, &settings)], false));
    assert_eq!(reply.topics[0].error_code, 0, "{:?}", reply.topics[0].error_message);
    wire.topic(topic);
}

fn feed(wire: &mut Wire, topic: &str, batches: &[Bytes]) {
    for batch in batches {
        assert_eq!(wire.produce(topic, batch.clone()).error_code, 0);
    }
}

/// Keys with their newest record; without tombstones if `values` alone are meant.
fn newest(left: &[Left], values: bool) -> BTreeMap<String, (i64, Option<String>)> {
    let mut out = BTreeMap::new();
    for (offset, key, value) in left {
        out.insert(key.clone(), (*offset, value.clone()));
    }
    out.retain(|_, (_, value)| !values || value.is_some());
    out
}

#[test]
fn compaction_leaves_what_apache_kafka_leaves() {
    let Some(libs) = libs() else { return };
    let broker = Broker::start_with(eager());
    let kafka = Kafka::start(&libs, &[("log.cleaner.backoff.ms", "200")]).unwrap();
    let mut wires = [Wire::to(&broker), Wire::at(kafka.address)];
    let (kept, gone) = (unique("kept"), unique("gone"));
    let seed = std::env::var("CW_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7);
    let mut rng = Rng::new(seed);
    let (now, mut sequences) = (now_ms(), BTreeMap::new());
    let first = batches(&mut rng, 500, now - 100_000, &mut sequences);
    let second = batches(&mut rng, 500, now - 50_000, &mut sequences);
    for wire in &mut wires {
        make(wire, &kept, "86400000");
        make(wire, &gone, "1");
        feed(wire, &kept, &first);
        feed(wire, &gone, &first);
    }
    let [ours, theirs] = &mut wires;
    // Long-lived tombstones: everything is equal, record by record.
    let before = (settled(ours, &kept), settled(theirs, &kept));
    assert!(before.0.len() * 2 < 1_700, "{} records are left", before.0.len());
    assert_eq!(before.0, before.1, "seed {seed}");
    feed(ours, &kept, &second);
    feed(theirs, &kept, &second);
    let after = (settled(ours, &kept), settled(theirs, &kept));
    assert_eq!(after.0, after.1, "seed {seed}");
    assert!(after.0.iter().any(|r| r.2.is_none()), "tombstones are among them");
    // Short-lived ones: when each pass comes is the broker's own matter, so the values must be equal, and of the first
    // half no tombstone may be left once its segments were compacted twice.
    settled(ours, &gone);
    settled(theirs, &gone);
    let half = crate::fetch::offset_at(ours, &gone, -1);
    feed(ours, &gone, &second);
    feed(theirs, &gone, &second);
    let after = (settled(ours, &gone), settled(theirs, &gone));
    assert_eq!(newest(&after.0, true), newest(&after.1, true), "seed {seed}");
    // The newest segment of the first half may have been open at its end: one segment's worth is left out.
    for (who, left) in [("ours", &after.0), ("theirs", &after.1)] {
        let old = left.iter().filter(|r| r.2.is_none() && r.0 + 200 < half).count();
        assert_eq!(old, 0, "{who}: tombstones of the first half");
    }
    check_files(&libs, broker);
}

/// P4: `.log` files hold Kafka's batches and nothing else, before and after compaction.
#[test]
fn apache_kafkas_own_tool_reads_our_log_files() {
    let Some(libs) = cached_libs() else { return };
    let broker = Broker::start_with(eager());
    let mut wire = Wire::to(&broker);
    let (compacted, plain) = (unique("compacted"), unique("plain"));
    make(&mut wire, &compacted, "86400000");
    wire.topic(&plain);
    let (mut rng, mut sequences) = (Rng::new(11), BTreeMap::new());
    let all = batches(&mut rng, 300, now_ms() - 100_000, &mut sequences);
    feed(&mut wire, &compacted, &all);
    feed(&mut wire, &plain, &all);
    let begun = Instant::now();
    while broker.metric("catchwater_compaction_freed_bytes_total") == 0.0 {
        assert!(begun.elapsed() < LIMIT, "nothing was compacted");
        std::thread::sleep(Duration::from_millis(50));
    }
    check_files(&libs, broker);
}

/// Kafka's own reader over every log file of ours.
fn check_files(libs: &Path, mut broker: Broker) {
    broker.stop().unwrap();
    let mut files: Vec<PathBuf> = Vec::new();
    for group in std::fs::read_dir(broker.data_dir().join("p")).unwrap() {
        for file in std::fs::read_dir(group.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|e| e == "log") && path.metadata().unwrap().len() > 0 {
                files.push(path);
            }
        }
    }
    let compacted = |f: &&PathBuf| f.file_stem().is_some_and(|s| s.to_string_lossy().contains('.'));
    assert!(files.iter().filter(compacted).count() >= 1, "{files:?}");
    let names: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
    let text = tool(
        libs,
        "org.apache.kafka.tools.DumpLogSegments",
        &["--deep-iteration", "--print-data-log", "--files", &names.join(",")],
    )
    .unwrap();
    let batches = text.lines().filter(|l| l.starts_with("baseOffset:")).count();
    assert!(batches > 100, "{text}");
    let bad = |line: &&str| {
        let line = line.to_lowercase();
        line.contains("isvalid: false") || line.contains("error") || line.contains("found") || line.contains("trailing")
    };
    let complaints: Vec<&str> = text.lines().filter(bad).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
    println!("{} files, {batches} batches read by DumpLogSegments", files.len());
}
