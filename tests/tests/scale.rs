//! Many partitions on one node: no thread, timer or open file for each, and starts that do not take minutes.
//!
//! A share runs in the check. The full form (issue bars: create ≤ 60 s, idle ≤ 5 % of a core, ≤ 400 MB, restart ≤ 10 s,
//! after a kill ≤ 20 s; a million small appends over 1,000 partitions), on a quiet machine, with a release build:
//! `CW_SCALE_PARTITIONS=10000 CW_SCALE_APPENDS=1000000 CATCHWATER_BIN=… cargo test -p catchwater-tests --test scale --
//! --nocapture`. It prints one line of JSON; `docs/benchmarks.md` has figures.

use bytes::Bytes;
use catchwater_client::remote::{Acks, Kafka, NewTopic, OffsetAt, Options, ProduceOutcome};
use catchwater_record::batch::build::Builder;
use catchwater_tests::broker::{Broker, Settings};
use std::time::{Duration, Instant};

const PER_TOPIC: i32 = 100;
/// Partitions that the appends go to, at most.
const APPEND_PARTITIONS: u64 = 1_000;
const WRITERS: u64 = 32;
const IDLE: Duration = Duration::from_secs(5);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

#[derive(Clone, Copy, Debug)]
struct Use {
    cpu_seconds: f64,
    threads: usize,
    files: usize,
    resident_mib: u64,
}

fn used(broker: &Broker) -> Use {
    let pid = broker.pid().expect("it runs");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
    let count = |what: &str| std::fs::read_dir(format!("/proc/{pid}/{what}")).expect("readable").count();
    Use {
        cpu_seconds: ticks as f64 / 100.0, // USER_HZ of Linux
        threads: count("task"),
        files: count("fd"),
        resident_mib: broker.resident_bytes().unwrap_or(0) >> 20,
    }
}

async fn connect(broker: &Broker) -> Kafka {
    let options = Options { timeout: Duration::from_secs(60), ..Options::default() };
    Kafka::connect(&[broker.kafka()], options).await.expect("connects")
}

/// Each writer has its own connection and waits for each batch: many small appends, none combined by the client.
async fn append(broker: &Broker, appends: u64, partitions: u64) {
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let kafka = connect(broker).await;
        writers.spawn(async move {
            let mut builder = Builder::new();
            builder.push(1, None, Some(&[7; 100]), []);
            let batch: Bytes = builder.finish().freeze();
            for n in (writer..appends).step_by(WRITERS as usize) {
                let at = n % partitions;
                let topic = format!("t{}", at / PER_TOPIC as u64);
                let partition = (at % PER_TOPIC as u64) as i32;
                match kafka.produce(&topic, partition, batch.clone(), Acks::All).await {
                    ProduceOutcome::Written(_) => {}
                    other => panic!("append {n}: {other:?}"),
                }
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.expect("a writer");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_partitions_cost_neither_threads_nor_minutes() {
    let (partitions, appends) = (number("CW_SCALE_PARTITIONS", 400), number("CW_SCALE_APPENDS", 4_000));
    let full = partitions >= 10_000;
    let mut broker = Broker::start_with(Settings::default());
    if broker.is_foreign() {
        return;
    }
    let fresh = used(&broker);
    let kafka = connect(&broker).await;
    let began = Instant::now();
    for n in 0..partitions.div_ceil(PER_TOPIC as u64) {
        let new =
            NewTopic { name: format!("t{n}"), partitions: Some(PER_TOPIC), replication: None, configs: Vec::new() };
        kafka.create_topic(&new).await.expect("created");
    }
    let create = began.elapsed();
    // Entries of the new leaders are brought to files behind the scenes.
    let mut idle_percent = 0.0;
    for _ in 0..if full { 12 } else { 0 } {
        let before = used(&broker);
        tokio::time::sleep(IDLE).await;
        idle_percent = (used(&broker).cpu_seconds - before.cpu_seconds) / IDLE.as_secs_f64() * 100.0;
        if idle_percent <= 5.0 {
            break;
        }
    }
    let created = used(&broker);

    let over = partitions.min(APPEND_PARTITIONS);
    let began = Instant::now();
    append(&broker, appends, over).await;
    let took = began.elapsed();
    let after = used(&broker);
    assert!(after.threads <= fresh.threads + 8, "threads: {} at first, {} now", fresh.threads, after.threads);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    assert!(after.files as u64 <= limit / 2 + 300, "{} open files of {limit}", after.files);

    drop(kafka);
    broker.stop().expect("a clean end");
    let began = Instant::now();
    broker.restart().expect("restart");
    let clean = began.elapsed();
    let again = used(&broker);
    broker.kill();
    let began = Instant::now();
    broker.restart().expect("restart after a kill");
    let killed = began.elapsed();
    let kafka = connect(&broker).await;
    let mut found = 0;
    for at in 0..over {
        let topic = format!("t{}", at / PER_TOPIC as u64);
        let end = kafka.list_offset(&topic, (at % PER_TOPIC as u64) as i32, OffsetAt::Latest).await.expect("an end");
        found += u64::try_from(end).expect("an offset");
    }
    assert_eq!(found, appends, "every append is there once");
    println!(
        "{}",
        serde_json::json!({
            "partitions": partitions, "create_s": create.as_secs_f64(), "idle_percent": idle_percent,
            "resident_mib": created.resident_mib, "appends": appends, "over": over,
            "appends_per_s": appends as f64 / took.as_secs_f64(),
            "cpu_us_per_append": (after.cpu_seconds - created.cpu_seconds) * 1e6 / appends as f64,
            "resident_mib_after": after.resident_mib, "threads": after.threads, "open_files": after.files,
            "restart_s": clean.as_secs_f64(), "resident_mib_restarted": again.resident_mib,
            "restart_after_kill_s": killed.as_secs_f64(),
        })
    );
    if full {
        assert!(create.as_secs() < 60 && idle_percent <= 5.0, "create {create:?}, idle {idle_percent} %");
        assert!(created.resident_mib <= 400 && again.resident_mib <= 400, "{created:?} {again:?}");
        assert!(clean.as_secs_f64() <= 10.0 && killed.as_secs_f64() <= 20.0, "restart {clean:?}, killed {killed:?}");
    }
}
