//! Sinks over compacted topics of tables with a key: compaction takes records that later ones replaced, so a reader meets
//! states that never were. A sink shows none of them, whether it lags or begins when the topic has long been compacted,
//! and killed in between.

use bytes::{BufMut, Bytes, BytesMut};
use catchwater_base::Rng;
use catchwater_tests::bank;
use catchwater_tests::broker::{has_crash_points, metric};
use catchwater_tests::dev::Dev;
use catchwater_tests::pg::{Database, Pg};
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use kafka_protocol::protocol::{Decodable, Encodable};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const ACCOUNTS: u32 = 300;
const SUM: i64 = ACCOUNTS as i64 * bank::START_BALANCE;
const LIMIT: Duration = Duration::from_secs(90);

/// Money moves between accounts; accounts are closed (deleted) and opened under other numbers, in one transaction with
/// who takes their money. Only the sum stays.
struct Movers {
    stop: Arc<AtomicBool>,
    moved: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Movers {
    fn start(source: &Database, seed: u64) -> Movers {
        let (stop, moved) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..2u64)
            .map(|n| {
                let (stop, moved, pg) = (Arc::clone(&stop), Arc::clone(&moved), source.connect());
                std::thread::spawn(move || {
                    let mut rng = Rng::new(seed ^ n << 40);
                    while !stop.load(Ordering::Relaxed) {
                        // What another one has changed meanwhile is a transaction that never was.
                        if step(&pg, &mut rng).is_err() {
                            let _ = pg.run("ROLLBACK");
                        }
                        moved.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(1));
                    }
                })
            })
            .collect();
        Movers { stop, moved, threads }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|t| t.join().expect("a mover"));
        self.moved.load(Ordering::Relaxed)
    }
}

/// Each writes a row into `txlog`, whose topic keeps all records: what is there twice, or not at all, is seen.
fn step(pg: &Pg, rng: &mut Rng) -> anyhow::Result<()> {
    let (a, b) = (rng.between(1, u64::from(ACCOUNTS)), rng.between(1, u64::from(ACCOUNTS)));
    // Low numbers move more: the newest records of the others lie far back.
    let (a, b) = if rng.chance(700_000) { (a % 20 + 1, b % 20 + 1) } else { (a, b) };
    if a == b {
        return Ok(());
    }
    pg.run(&match rng.below(20) {
        0 => format!(
            "BEGIN ISOLATION LEVEL SERIALIZABLE; INSERT INTO txlog VALUES (txid_current(), 0, 0); UPDATE accounts SET balance = balance + coalesce((SELECT balance FROM accounts WHERE id = {a}), 0) \
             WHERE id = {b}; DELETE FROM accounts WHERE id = {a} AND EXISTS (SELECT 1 FROM accounts WHERE id = {b}); COMMIT"
        ),
        1 => format!(
            "BEGIN ISOLATION LEVEL SERIALIZABLE; INSERT INTO txlog VALUES (txid_current(), 0, 0); INSERT INTO accounts SELECT {a}, 0, 0, 'opened' WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE id = {a}); COMMIT"
        ),
        2 => format!("BEGIN ISOLATION LEVEL SERIALIZABLE; INSERT INTO txlog VALUES (txid_current(), 0, 0); UPDATE accounts SET id = {a} WHERE id = {b} AND NOT EXISTS (SELECT 1 FROM accounts WHERE id = {a}); COMMIT"),
        _ => format!(
            "BEGIN ISOLATION LEVEL SERIALIZABLE; INSERT INTO txlog VALUES (txid_current(), 0, 0); UPDATE accounts SET balance = balance + CASE id WHEN {a} THEN -1 ELSE 1 END, version = version + 1 \
             WHERE id IN ({a}, {b}) AND (SELECT count(*) FROM accounts WHERE id IN ({a}, {b})) = 2; COMMIT"
        ),
    })
}

/// Looks at a target all the time: no rows, or the whole sum.
struct Watcher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64, String>>,
}

impl Watcher {
    fn start(target: &Database) -> Watcher {
        let (stop, pg) = (Arc::new(AtomicBool::new(false)), target.connect());
        let thread = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut whole = 0;
                while !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(2));
                    if pg.one("SELECT to_regclass('public.accounts')").map_err(|e| format!("{e:#}"))?.is_empty() {
                        continue;
                    }
                    let seen = pg.one("SELECT count(*) || ' ' || coalesce(sum(balance), 0) FROM accounts");
                    let seen = seen.map_err(|e| format!("{e:#}"))?;
                    match seen.split_once(' ') {
                        Some((_, sum)) if sum == SUM.to_string() => whole += 1,
                        Some(("0", "0")) if whole == 0 => {}
                        _ => return Err(format!("{seen} where the sum is always {SUM}")),
                    }
                }
                Ok(whole)
            })
        };
        Watcher { stop, thread }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the watcher lives").expect("every state of the target existed")
    }
}

fn pipeline(source: &Database, targets: &[(&str, &Database)]) -> String {
    let sink = |(name, target): &(&str, &Database)| {
        format!(
            "  {name}:\n    from: {}\n    batch: {{ rows: 10 }}\n    postgres: {{ url: \"{}\" }}\n",
            source.name(),
            target.url()
        )
    };
    let sinks: String = targets.iter().map(sink).collect();
    let (name, url) = (source.name(), source.url());
    format!(
        "version: 1\npipeline: bank\nsources:\n  {name}:\n    postgres: {{ url: \"{url}\", tables: [accounts, txlog] }}\n    debezium: {{ producer.override.compression.type: zstd }}\nsinks:\n{sinks}"
    )
}

/// Segments of a few kilobytes, compacted at once: one IncrementalAlterConfigs.
fn compact_eagerly(dev: &Dev, topic: &str, segment_bytes: &str) {
    let settings = [
        ("internal.segment.bytes", segment_bytes),
        ("min.compaction.lag.ms", "0"),
        ("min.cleanable.dirty.ratio", "0.1"),
        ("file.delete.delay.ms", "100"),
    ];
    let mut resource = AlterConfigsResource::default();
    (resource.resource_type, resource.resource_name) = (2, topic.to_owned().into());
    for (key, value) in settings {
        let mut config = AlterableConfig::default();
        (config.name, config.value) = (key.into(), Some(value.to_owned().into()));
        resource.configs.push(config);
    }
    let mut request = IncrementalAlterConfigsRequest::default();
    request.resources.push(resource);
    let mut frame = BytesMut::new();
    // Header version 2: key, version, correlation, client id, no tags.
    frame.put_slice(&[0, 44, 0, 1, 0, 0, 0, 1, 0, 1, b't', 0]);
    request.encode(&mut frame, 1).expect("a request");
    let mut stream = TcpStream::connect(&dev.kafka).expect("the node");
    stream.write_all(&(frame.len() as u32).to_be_bytes()).and_then(|()| stream.write_all(&frame)).expect("sent");
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("a reply");
    let mut reply = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut reply).expect("a whole reply");
    let reply = IncrementalAlterConfigsResponse::decode(&mut Bytes::from(reply).slice(5..), 1).expect("decoded");
    assert_eq!(reply.responses[0].error_code, 0, "{:?}", reply.responses[0].error_message);
}

/// Records of a topic that were taken: offsets that a reader from the beginning does not meet.
fn missing_records(dev: &Dev, topic: &str) -> usize {
    let out = std::process::Command::new("timeout")
        .args(["60", "kcat", "-b", &dev.kafka, "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-f", "%p %o\\n"])
        .output()
        .expect("kcat");
    // Per partition: records seen, and behind the last of them.
    let mut seen: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for line in String::from_utf8_lossy(&out.stdout).lines() {
        let (partition, offset) = line.split_once(' ').expect("kcat's line");
        let (count, end) = seen.entry(partition.to_owned()).or_default();
        (*count, *end) = (*count + 1, offset.parse::<usize>().expect("an offset") + 1);
    }
    seen.values().map(|(count, end)| end - count).sum()
}

#[test]
fn sinks_on_compacted_topics_show_only_states_that_were() {
    let kills = has_crash_points("kills between compaction and sinks");
    let Some(source) = Database::create("pg15", "thin_source") else { return };
    let Some(early) = Database::create("pg15", "thin_early") else { return };
    let Some(late) = Database::create("pg15", "thin_late") else { return };
    bank::create(&source.pg, ACCOUNTS).expect("tables");
    let topic = format!("{}.public.accounts", source.name());
    let mut dev = Dev::new(&pipeline(&source, &[("early", &early)]));
    dev.env.push(("CATCHWATER_LOG_CLEANER_BACKOFF_MS".into(), "50".into()));
    dev.start().expect("start");
    dev.wait(LIMIT, || bank::missing(&source.pg, &early.pg)).expect("the first snapshot");
    // What the captures remember is compacted as eagerly: each start reads positions, tables and progress out of it.
    for (topic, segment_bytes) in [(&*topic, "30000"), ("__catchwater_captures", "1000"), ("__catchwater_cuts", "1000")]
    {
        compact_eagerly(&dev, topic, segment_bytes);
    }
    let movers = Movers::start(&source, 7);
    let watchers = [Watcher::start(&early), Watcher::start(&late)];
    let runs = |dev: &Dev| metric(&dev.http, "catchwater_compaction_runs_total");
    dev.wait(LIMIT, || if runs(&dev) >= 4.0 { String::new() } else { format!("{} runs", runs(&dev)) })
        .expect("the topic is compacted");
    // A second sink begins at offset 0, and is killed inside what it holds back; so is the compaction beside it.
    dev.stop().expect("stop");
    std::fs::write(dev.folder().join("pipeline.yaml"), pipeline(&source, &[("early", &early), ("late", &late)]))
        .expect("the pipeline file");
    let points = ["sink.after_rows:3", "switch.after_manifest:1", "sink.before_commit:1", "switch.before_drop:2"];
    for point in points.iter().filter(|_| kills) {
        let ended = dev.start_or_end(&[("CATCHWATER_CRASH_AT", point)]).unwrap_or_else(|e| panic!("{point}: {e:#}"));
        let until = Instant::now() + Duration::from_secs(30);
        while ended.is_none() && dev.alive() {
            assert!(Instant::now() < until, "{point} was not reached:\n{}", dev.log_tail());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    dev.start().expect("the last start");
    let seen = || late.pg.one("SELECT count(*) > 0 FROM accounts").unwrap_or_default();
    dev.wait(LIMIT, || if seen() == "t" { String::new() } else { "nothing is shown".into() })
        .expect("the late sink shows");
    let moved = movers.stop();
    assert_eq!(
        source.pg.one("SELECT sum(balance) FROM accounts").expect("sum"),
        SUM.to_string(),
        "the movers' own books"
    );
    for target in [&early, &late] {
        dev.wait(LIMIT, || bank::missing(&source.pg, &target.pg)).expect("the target reaches the source");
    }
    let looks = watchers.map(Watcher::stop);
    bank::check_transactions(&dev.kafka, &source.pg, source.name()).expect("the topic holds each transaction once");
    let remembered = missing_records(&dev, "__catchwater_captures");
    assert!(remembered > 0, "nothing of the captures' memory was compacted away");
    let missing = missing_records(&dev, &topic);
    println!(
        "{moved} transactions, {missing} records and {remembered} of the captures' compacted away, {looks:?} looks at whole targets"
    );
    assert!(missing > 500, "{missing} records were compacted away: too few to show anything");
    dev.stop().expect("stop");
}
