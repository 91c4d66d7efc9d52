//! SQLite → capture → log (in memory) → deliver → SQLite, over the demo shop and over odd values, while workers are killed
//! at any moment. The copy never shows half a transaction and ends equal to its source.

#![allow(clippy::unwrap_used)]

use catchwater_base::Rng;
use catchwater_capture::source::Source;
use catchwater_client::memory::{CAPTURES_TOPIC, CUTS_TOPIC, MemoryCluster};
use catchwater_client::{ControlClient, NewTopic, Owner};
use catchwater_connector_sqlite::{SinkConfig, SourceConfig, SqliteSink, SqliteSource, demo};
use catchwater_deliver::{ChangeWire, SchemaNaming};
use catchwater_record::{Caller, CaptureEpoch, CaptureId, Incarnation, NodeId, RevisionNo, TaskEpoch};
use catchwater_runtime::shutdown::{self, Stop};
use catchwater_runtime::spawn::{Task, spawn};
use catchwater_runtime::time::SystemClock;
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let dir = std::env::temp_dir().join(format!("catchwater-round-trip-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }
}
impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Bench {
    cluster: MemoryCluster,
    capture: CaptureId,
    source: PathBuf,
    copy: PathBuf,
    epoch: u32,
}

struct Running {
    capture: Option<(Task<catchwater_capture::End>, Stop)>,
    deliver: Option<(Task<catchwater_deliver::End>, Stop)>,
    captured: catchwater_capture::StatusHandle,
    delivered: catchwater_deliver::StatusHandle,
}

impl Bench {
    async fn new(source: PathBuf, copy: PathBuf) -> Bench {
        let cluster = MemoryCluster::new(7);
        let who = Caller::node(NodeId(1));
        let client = cluster.client();
        let new = |name: &str| NewTopic {
            name: name.into(),
            partitions: Some(4),
            replication: None,
            configs: vec![],
            owner: Owner::Nobody,
        };
        client.create_topics(&who, vec![new(CAPTURES_TOPIC), new(CUTS_TOPIC)]).await.unwrap();
        let (capture, _) = client.source(&who, "shop".into()).await.unwrap();
        Bench { cluster, capture, source, copy, epoch: 0 }
    }

    fn start_capture(&mut self, running: &mut Running) {
        self.epoch += 1;
        let client = self.cluster.client();
        let config = SourceConfig { chunk_rows: 50, ..SourceConfig::new(&self.source) };
        let deps = catchwater_capture::Deps {
            log: client.clone(),
            control: client,
            clock: Arc::new(SystemClock::default()),
            make_source: Box::new(move || Box::new(SqliteSource::new(config.clone())) as Box<dyn Source>),
            seed: u64::from(self.epoch),
        };
        let config = catchwater_capture::Config {
            source: "shop".into(),
            capture: self.capture,
            incarnation: Incarnation(0),
            epoch: CaptureEpoch(self.epoch),
            who: Caller::node(NodeId(1)),
            connector: "sqlite",
            prefix: "shop".into(),
            pipeline: "p".into(),
            revision: RevisionNo(1),
            canonical: "{}".into(),
            partitions: 2,
            snapshot: catchwater_capture::SnapshotMode::Initial,
            snapshot_tables: None,
            options: Default::default(),
            transaction_topic: None,
            heartbeat: None,
            signals: catchwater_capture::signal::Signals::default(),
            notifications: Default::default(),
            creation: Default::default(),
            limits: Default::default(),
        };
        let (worker, status) = catchwater_capture::Worker::new(deps, config);
        let (stop, stopped) = shutdown::channel();
        running.captured = status;
        running.capture = Some((spawn("capture", worker.run(stopped)), stop));
    }

    fn start_deliver(&mut self, running: &mut Running) {
        self.epoch += 1;
        let client = self.cluster.client();
        let deps = catchwater_deliver::Deps {
            log: client.clone(),
            control: client,
            clock: Arc::new(SystemClock::default()),
            sink: Box::new(SqliteSink::new(SinkConfig { busy_ms: 1_000, ..SinkConfig::new(&self.copy) })),
            wire: Arc::new(ChangeWire),
            asks: catchwater_deliver::worker::asks().1,
        };
        let mut config = catchwater_deliver::Config::new("p".into(), "copy".into(), "shop".into(), self.capture);
        config.epoch = TaskEpoch(self.epoch);
        config.naming = SchemaNaming::Into(String::new());
        config.batch.rows = 50;
        let (stop, stopped) = shutdown::channel();
        let status = catchwater_deliver::StatusHandle::new();
        running.delivered = status.clone();
        running.deliver =
            Some((spawn("deliver", catchwater_deliver::Worker::run(deps, config, status, stopped)), stop));
    }

    fn start(&mut self) -> Running {
        let mut running =
            Running { capture: None, deliver: None, captured: Default::default(), delivered: Default::default() };
        self.start_capture(&mut running);
        self.start_deliver(&mut running);
        running
    }
}

/// Rows of a table as text that keeps storage classes apart.
fn dump(file: &Path, table: &str) -> Option<Vec<String>> {
    let db = Connection::open(file).ok()?;
    db.busy_timeout(Duration::from_secs(5)).ok()?;
    let mut statement = db.prepare(&format!("SELECT * FROM {table}")).ok()?;
    let width = statement.column_count();
    let mut rows = statement.query([]).ok()?;
    let mut out = Vec::new();
    while let Some(r) = rows.next().ok()? {
        out.push((0..width).map(|i| format!("{:?}", r.get_ref(i).unwrap())).collect::<Vec<_>>().join("|"));
    }
    out.sort();
    Some(out)
}

async fn until_equal(bench: &Bench, running: &Running, tables: &[&str]) {
    let begun = Instant::now();
    loop {
        if tables.iter().all(|t| dump(&bench.source, t).unwrap() == dump(&bench.copy, t).unwrap_or(vec!["-".into()])) {
            return;
        }
        if begun.elapsed() > Duration::from_secs(40) {
            for t in tables {
                let (a, b) = (dump(&bench.source, t).unwrap(), dump(&bench.copy, t).unwrap_or_default());
                let only = |x: &[String], y: &[String]| {
                    x.iter().filter(|r| !y.contains(r)).take(5).cloned().collect::<Vec<_>>()
                };
                println!("{t}: only in source {:#?}, only in copy {:#?}", only(&a, &b), only(&b, &a));
            }
            panic!("never equal\n{:#?}\n{:#?}", running.captured.get(), running.delivered.read());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_shop_survives_kills_and_its_copy_is_never_torn() {
    let dir = Dir::new("shop");
    let (shop, copy) = (dir.0.join("shop.db"), dir.0.join("copy.db"));
    demo::make_shop(&shop, 1).unwrap();
    let mut bench = Bench::new(shop.clone(), copy.clone()).await;
    let mut running = bench.start();
    let writer = demo::ShopWriter::start(&shop, 200, 2).unwrap();
    let mut rng = Rng::new(3);
    let (mut looks, mut kills, mut settled) = (0, 0, false);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(8) {
        tokio::time::sleep(Duration::from_millis(rng.between(1, 60))).await;
        // A snapshot comes in chunks, table by table; from its end on every state of the copy was one of the source.
        let (captured, delivered) = (running.captured.get(), running.delivered.read());
        let read = captured.state == catchwater_capture::State::Streaming
            && captured.snapshot_units_done == captured.snapshot_units;
        if !settled && read && captured.commit_seq.0 > 3 && delivered.seq >= captured.commit_seq {
            settled = true;
        }
        if settled {
            assert_eq!(demo::check(&copy).unwrap().broken, 0, "the copy shows half a transaction");
            looks += 1;
        }
        if rng.chance(80_000) {
            kills += 1;
            match rng.below(3) {
                0 => {
                    running.capture = None;
                    bench.start_capture(&mut running);
                }
                1 => {
                    running.deliver = None;
                    bench.start_deliver(&mut running);
                }
                // A newer owner beside a living one.
                _ => {
                    let old = running.deliver.take();
                    bench.start_deliver(&mut running);
                    if let Some((task, _stop)) = old {
                        assert_eq!(task.join().await.unwrap(), catchwater_deliver::End::Fenced);
                    }
                }
            }
        }
    }
    let transactions = writer.transactions();
    writer.stop();
    println!("{transactions} transactions, {kills} kills, {looks} looks");
    assert!(transactions > 100 && looks > 20, "{transactions} transactions, {looks} looks");
    until_equal(&bench, &running, &demo::TABLES).await;
    let totals = demo::check(&copy).unwrap();
    assert_eq!((totals.broken, totals.orders), (0, demo::check(&shop).unwrap().orders));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_storage_class_in_every_column_arrives_as_it_was() {
    let dir = Dir::new("values");
    let (file, copy) = (dir.0.join("odd.db"), dir.0.join("copy.db"));
    let db = Connection::open(&file).unwrap();
    db.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
    db.execute_batch(
        "CREATE TABLE odd(id INTEGER PRIMARY KEY, i INTEGER, t TEXT, r REAL, b BLOB, n NUMERIC, d DECIMAL(10,2), o BOOLEAN, x);
         CREATE TABLE bag(x, y);
         CREATE TABLE pairs(a TEXT, b INTEGER, v, PRIMARY KEY (a, b)) WITHOUT ROWID;",
    )
    .unwrap();
    let values = [
        "NULL",
        "0",
        "1",
        "-1",
        "9223372036854775807",
        "-9223372036854775808",
        "1.5",
        "0.1",
        "-1e300",
        "1e-300",
        "2.0",
        "12.34",
        "''",
        "'text'",
        "'12'",
        "'1.50'",
        "'ünï ☃'",
        "'it''s \"quoted\"'",
        "x''",
        "x'00ff'",
        "'a' || char(10) || 'b'",
        "123456789.123456789",
    ];
    for (i, v) in values.iter().enumerate() {
        db.execute_batch(&format!(
            "INSERT INTO odd VALUES ({i}, {v}, {v}, {v}, {v}, {v}, {v}, {v}, {v});
             INSERT INTO bag VALUES ({v}, {v}); INSERT INTO bag VALUES ({v}, {v}); INSERT INTO pairs VALUES ('{i}', {i}, {v});"
        ))
        .unwrap();
    }
    let mut bench = Bench::new(file, copy).await;
    let running = bench.start();
    until_equal(&bench, &running, &["odd", "bag", "pairs"]).await;
    // The same through the stream: every value moves to another row; keys change; equal rows keep their number.
    db.execute_batch(
        "UPDATE odd SET i = (SELECT i FROM odd o WHERE o.id = (odd.id + 7) % 22), x = (SELECT x FROM odd o WHERE o.id = (odd.id + 3) % 22);
         UPDATE odd SET id = id + 100 WHERE id % 3 = 0; DELETE FROM odd WHERE id % 5 = 0;
         DELETE FROM bag WHERE rowid % 3 = 0; UPDATE bag SET y = x, x = 5 WHERE rowid % 4 = 0;
         UPDATE pairs SET b = b + 1, a = a || 'x' WHERE b > 5; ALTER TABLE bag ADD COLUMN z; INSERT INTO bag VALUES (1, 2, 3);
         ALTER TABLE pairs ADD COLUMN d INTEGER DEFAULT 7; ALTER TABLE pairs ADD COLUMN e TEXT NOT NULL DEFAULT 'it''s';
         ALTER TABLE pairs ADD COLUMN f DEFAULT x'00ff'; ALTER TABLE pairs ADD COLUMN g REAL DEFAULT -1.5;
         ALTER TABLE pairs ADD COLUMN h BOOLEAN DEFAULT TRUE; INSERT INTO pairs(a, b) VALUES ('new', -5);
         UPDATE pairs SET d = NULL WHERE b = 3;
         CREATE TABLE late(k TEXT PRIMARY KEY, v); INSERT INTO late VALUES ('a', 1.5), ('b', x'01');",
    )
    .unwrap();
    until_equal(&bench, &running, &["odd", "bag", "pairs", "late"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_without_a_key_whose_snapshot_is_killed_ends_equal() {
    let dir = Dir::new("keyless");
    let (file, copy) = (dir.0.join("bag.db"), dir.0.join("copy.db"));
    let db = Connection::open(&file).unwrap();
    db.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
    db.execute_batch(
        "CREATE TABLE bag(x, y); CREATE TABLE keyed(id INTEGER PRIMARY KEY, v);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000)
         INSERT INTO bag SELECT i % 7, 'row ' || (i % 5) FROM n; INSERT INTO keyed VALUES (1, 'a');",
    )
    .unwrap();
    db.busy_timeout(Duration::from_secs(5)).unwrap();
    let mut bench = Bench::new(file, copy).await;
    let mut running = bench.start();
    for kill in 0..3 {
        let begun = Instant::now();
        // The first is killed between units, the others wherever they are.
        while kill == 0 && running.captured.get().snapshot_units_done < 3 {
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", running.captured.get());
            tokio::task::yield_now().await;
        }
        if kill == 0 {
            let status = running.captured.get();
            assert!(status.snapshot_units_done < status.snapshot_units, "killed too late: {status:?}");
        }
        running.capture = None;
        // Rows of the part that never came change and go, equal ones come.
        db.execute_batch(
            "DELETE FROM bag WHERE rowid > 5000 AND rowid % 3 = 0; UPDATE bag SET x = 100 WHERE rowid > 5000 AND rowid % 5 = 0;
             INSERT INTO bag VALUES (1, 'row 1'), (1, 'row 1'); UPDATE keyed SET v = v || 'b'; UPDATE bag SET y = 'early' WHERE rowid < 9;",
        )
        .unwrap();
        bench.start_capture(&mut running);
    }
    for _ in 0..50 {
        db.execute_batch(
            "INSERT INTO bag VALUES (1, 'row 1'); DELETE FROM bag WHERE rowid = (SELECT max(rowid) - 9 FROM bag)",
        )
        .unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    until_equal(&bench, &running, &["bag", "keyed"]).await;
    db.execute_batch("DELETE FROM bag WHERE rowid % 2 = 0").unwrap();
    until_equal(&bench, &running, &["bag", "keyed"]).await;
    assert_eq!(running.delivered.read().last_error, None);
}
