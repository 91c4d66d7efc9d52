//! The whole way with both ends real: PostgreSQL → capture worker → log in memory → deliver worker → PostgreSQL, under a
//! load of bank transfers, with the workers dropped at random awaits and followed by new epochs, now and then while the
//! old one still runs. At the end target equals source, row by row; at every look the sum of the accounts is right.

use crate::support::*;
use catchwater_base::Rng;
use catchwater_capture::{Properties, worker as capture};
use catchwater_change::Stamp;
use catchwater_change::stamp::{STAMP_HEADER, flag};
use catchwater_client::ControlClient;
use catchwater_client::memory::MemoryCluster;
use catchwater_connector_postgres::{ConnectConfig, PgSink, PgSource, SinkConfig, SourceConfig};
use catchwater_deliver::{status, wire::ChangeWire, worker as deliver};
use catchwater_record::batch::{BatchView, iterate};
use catchwater_record::{
    Caller, CaptureEpoch, CaptureId, Incarnation, NodeId, Offset, RevisionNo, TaskEpoch, TopicPartition,
};
use catchwater_runtime::shutdown::{self, Stop};
use catchwater_runtime::time::SystemClock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const TABLES: &[&str] = &["account", "entry", "doc", "bag", "nokey", "marker"];
const ACCOUNTS: i64 = 100;

const SCHEMA: &str = "
    CREATE TABLE account(id int PRIMARY KEY, balance numeric(12,2) NOT NULL, slot int UNIQUE, pad text);
    CREATE TABLE entry(id bigint PRIMARY KEY, account int NOT NULL REFERENCES account, delta numeric(12,2), at timestamptz);
    CREATE TABLE doc(id int PRIMARY KEY, n int, body text);
    ALTER TABLE doc ALTER body SET STORAGE EXTERNAL;
    CREATE TABLE bag(id int PRIMARY KEY, v text); ALTER TABLE bag REPLICA IDENTITY FULL;
    CREATE TABLE nokey(a int, b text); ALTER TABLE nokey REPLICA IDENTITY FULL;
    CREATE TABLE marker(id int PRIMARY KEY)";

pub(crate) struct Rig {
    cluster: MemoryCluster,
    capture: CaptureId,
    pub(crate) source: SourceConfig,
    pub(crate) target: ConnectConfig,
    capture_epoch: u32,
    deliver_epoch: u32,
    /// Records in another form than the default's, and a topic of transactions.
    other_form: bool,
}

/// A worker that runs; dropping it is a kill at whatever await it stands.
pub(crate) struct Running {
    task: tokio::task::JoinHandle<String>,
    /// Of a source.
    pub(crate) status: Option<catchwater_capture::StatusHandle>,
    _stop: Stop,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Rig {
    pub(crate) async fn new(source: &Db, target: &Db) -> Rig {
        let cluster = MemoryCluster::new(7);
        let who = Caller::node(NodeId(1));
        let (capture, _) = cluster.client().source(&who, "shop".into()).await.unwrap();
        Rig {
            cluster,
            capture,
            source: source.config(TABLES),
            target: ConnectConfig::parse(&target.url).unwrap(),
            capture_epoch: 0,
            deliver_epoch: 0,
            other_form: false,
        }
    }

    pub(crate) fn capture(&mut self) -> Running {
        self.capture_epoch += 1;
        let client = self.cluster.client();
        let source = SourceConfig { epoch: CaptureEpoch(self.capture_epoch), ..self.source.clone() };
        let deps = capture::Deps {
            log: client.clone(),
            control: client,
            clock: Arc::new(SystemClock::default()),
            make_source: Box::new(move || Box::new(PgSource::new(source.clone()))),
            seed: u64::from(self.capture_epoch),
        };
        let properties = match self.other_form {
            false => Properties::default(),
            true => Properties::parse([
                ("provide.transaction.metadata", "true"),
                ("decimal.handling.mode", "double"),
                ("time.precision.mode", "connect"),
                ("tombstones.on.delete", "false"),
                // Rows without their envelope: the sink, and who fills columns that were not sent, read them all the same.
                ("transforms", "u"),
                ("transforms.u.type", UNWRAP),
                ("transforms.u.delete.tombstone.handling.mode", "rewrite"),
                ("transforms.u.add.fields", "op,lsn"),
            ])
            .unwrap(),
        };
        let config = capture::Config {
            source: "shop".into(),
            capture: self.capture,
            incarnation: Incarnation(0),
            epoch: CaptureEpoch(self.capture_epoch),
            who: Caller::node(NodeId(1)),
            connector: "postgresql",
            prefix: "shop".into(),
            pipeline: "p".into(),
            revision: RevisionNo(1),
            canonical: "{}".into(),
            partitions: 2,
            snapshot: catchwater_capture::SnapshotMode::Initial,
            snapshot_tables: None,
            options: properties.options,
            transaction_topic: properties.transaction_topic,
            heartbeat: properties.heartbeat,
            signals: properties.signals,
            notifications: Default::default(),
            creation: Default::default(),
            limits: capture::Limits { checkpoint_every_ms: 50, idle_every_ms: 100, ..capture::Limits::default() },
        };
        let (worker, status) = capture::Worker::new(deps, config);
        let (stop, stopped) = shutdown::channel();
        let task = tokio::spawn(async move { format!("{:?}", worker.run(stopped).await) });
        Running { task, status: Some(status), _stop: stop }
    }

    pub(crate) fn has(&self, topic: &str, text: &str) -> bool {
        let Some((_, id, _)) = self.cluster.topics().into_iter().find(|(name, ..)| name.as_str() == topic) else {
            return false;
        };
        let is_in = |bytes: &[u8]| bytes.windows(text.len()).any(|w| w == text.as_bytes());
        self.cluster.batches(TopicPartition::new(id, 0)).iter().any(|(_, batch)| is_in(batch))
    }

    /// How often the table without a key was begun again.
    fn truncates_of_snapshots(&self, table: &str) -> usize {
        let find = |bytes: &[u8], text: &str| bytes.windows(text.len()).filter(|w| *w == text.as_bytes()).count();
        let topics = self.cluster.topics().into_iter().filter(|(name, ..)| name.as_str().ends_with(table));
        let of = |id| self.cluster.batches(TopicPartition::new(id, 0));
        topics.flat_map(|(_, id, _)| of(id)).map(|(_, batch)| find(&batch, "\"snapshot\":\"first\"")).sum()
    }

    /// Each transaction begins and ends once, in one order, and counts its events. Returns how many there were.
    fn transactions(&self) -> usize {
        let topic = self.cluster.topics().into_iter().find(|(name, ..)| name.as_str() == "shop.transaction");
        let (_, id, _) = topic.expect("a topic of transactions");
        let (mut open, mut seen) = (None, std::collections::BTreeSet::new());
        for (_, batch) in self.cluster.batches(TopicPartition::new(id, 0)) {
            let view = BatchView::new(&batch).unwrap();
            for record in iterate::records(view.records(), view.records_count() as u32) {
                let value: serde_json::Value = serde_json::from_slice(record.unwrap().value.unwrap()).unwrap();
                let value = &value;
                let id = value["id"].as_str().unwrap().to_owned();
                match value["status"].as_str() {
                    Some("BEGIN") => {
                        assert!(open.is_none(), "{id} begins inside {open:?}");
                        assert!(seen.insert(id.clone()), "{id} begins again");
                        open = Some(id);
                    }
                    _ => {
                        assert_eq!(open.take(), Some(id), "an end without its beginning");
                        let parts = value["data_collections"].as_array().unwrap();
                        let sum: u64 = parts.iter().map(|p| p["event_count"].as_u64().unwrap()).sum();
                        assert_eq!(value["event_count"].as_u64(), Some(sum));
                    }
                }
            }
        }
        assert_eq!(open, None);
        seen.len()
    }

    /// What the log itself makes of the table without a key: its rows, or the first change of a row that it does not have.
    fn folded(&self, topic: &str) -> Result<std::collections::BTreeMap<String, u64>, String> {
        let mut rows = std::collections::BTreeMap::<String, u64>::new();
        let mut newest = None;
        for (offset, stamp, value) in changes(&self.cluster, topic) {
            if newest.is_some_and(|n| n >= stamp.version) {
                return Err(format!("{:?} after {newest:?} at {offset:?}", stamp.version));
            }
            newest = Some(stamp.version);
            let is_truncate = value["op"] == "t";
            if stamp.flags & flag::ROW_COMES != 0 && !is_truncate {
                continue;
            }
            if is_truncate {
                rows.clear();
            }
            if !value["before"].is_null() {
                match rows.get_mut(&value["before"].to_string()) {
                    Some(n) if *n > 0 => *n -= 1,
                    _ => {
                        return Err(format!(
                            "{:?} at {offset:?} changes a row that is not there: {value}",
                            stamp.version
                        ));
                    }
                }
            }
            if !value["after"].is_null() {
                *rows.entry(value["after"].to_string()).or_default() += 1;
            }
        }
        rows.retain(|_, n| *n > 0);
        Ok(rows)
    }

    pub(crate) fn deliver(&mut self) -> Running {
        self.deliver_epoch += 1;
        let client = self.cluster.client();
        let deps = deliver::Deps {
            log: client.clone(),
            control: client,
            clock: Arc::new(SystemClock::default()),
            sink: Box::new(PgSink::new(SinkConfig::new(self.target.clone()))),
            wire: Arc::new(ChangeWire),
            asks: deliver::asks().1,
        };
        let mut config = deliver::Config::new("p".into(), "copy".into(), "shop".into(), self.capture);
        config.epoch = TaskEpoch(self.deliver_epoch);
        config.seed = u64::from(self.deliver_epoch);
        config.cluster = [9; 16];
        let (stop, stopped) = shutdown::channel();
        let run = deliver::Worker::run(deps, config, status::StatusHandle::new(), stopped);
        Running { task: tokio::spawn(async move { format!("{:?}", run.await) }), status: None, _stop: stop }
    }
}

const UNWRAP: &str = "io.debezium.transforms.ExtractNewRecordState";

/// One transaction of the application; the sum over `account` never changes.
fn transaction(rng: &mut Rng, writer: u64, n: u64, moves: bool) -> String {
    let account = |rng: &mut Rng| 1 + rng.below(ACCOUNTS as u64);
    let (a, b, id) = (account(rng), account(rng), writer * 1_000_000 + n * 10);
    let cents = rng.below(1000);
    let transfer = format!(
        "UPDATE account SET balance = balance - {cents}/100.0 WHERE id = {a}; UPDATE account SET balance = balance + {cents}/100.0 WHERE id = {b};
         INSERT INTO entry VALUES ({id}, {a}, -{cents}/100.0, now()), ({id}+1, {b}, {cents}/100.0, now());"
    );
    let doc = 1 + rng.below(50);
    let extra = match rng.below(12) {
        0 => format!(
            "INSERT INTO doc VALUES ({doc}, {n}, repeat(md5('{n}'), 300)) ON CONFLICT (id) DO UPDATE SET body = excluded.body;"
        ),
        1 | 2 => format!("UPDATE doc SET n = {n} WHERE id = {doc};"),
        // A key change that leaves the TOASTed body alone.
        3 if moves => format!(
            "UPDATE doc SET id = id + 1000 WHERE id = {doc} AND NOT EXISTS (SELECT 1 FROM doc d WHERE d.id = {doc} + 1000);"
        ),
        4 => format!("DELETE FROM doc WHERE id IN ({doc}, {doc} + 1000);"),
        5 => format!("INSERT INTO nokey SELECT {}, 'b' FROM generate_series(1, 3);", n % 5),
        6 => format!(
            "UPDATE nokey SET b = b || 'x' WHERE ctid = (SELECT ctid FROM nokey LIMIT 1); DELETE FROM nokey WHERE a = {} AND length(b) > 3;",
            n % 5
        ),
        7 => format!(
            "SAVEPOINT s; INSERT INTO bag VALUES ({id}, 'gone'); ROLLBACK TO s; INSERT INTO bag VALUES ({id}, 'kept');"
        ),
        8 => format!("DELETE FROM bag WHERE id < {id} AND id % 7 = 0;"),
        // Two unique values swap.
        9 if a != b => format!(
            "UPDATE account SET slot = -{id} WHERE id = {a}; UPDATE account SET slot = {a} WHERE id = {b} AND slot <> {a} AND NOT EXISTS (SELECT 1 FROM account x WHERE x.slot = {a});"
        ),
        // The transform of the late storm leaves truncates out.
        10 if n.is_multiple_of(40) && moves => "DELETE FROM bag WHERE id % 2 = 0;".to_owned(),
        10 if n.is_multiple_of(40) => "TRUNCATE bag, nokey;".to_owned(),
        _ => String::new(),
    };
    let end = if rng.below(10) == 0 { "ROLLBACK" } else { "COMMIT" };
    format!("BEGIN; {transfer} {extra} {end}")
}

/// Every record of a topic that has a value: where its batch begins, its stamp, the value; partition by partition.
fn changes(cluster: &MemoryCluster, topic: &str) -> Vec<(Offset, Stamp, serde_json::Value)> {
    let found = cluster.topics().into_iter().find(|(name, ..)| name.as_str() == topic);
    let Some((_, id, partitions)) = found else { return Vec::new() };
    let mut out = Vec::new();
    for partition in 0..partitions {
        for (offset, batch) in cluster.batches(TopicPartition::new(id, partition)) {
            let view = BatchView::new(&batch).unwrap();
            for record in iterate::records(view.records(), view.records_count() as u32) {
                let record = record.unwrap();
                let stamp = Stamp::decode(record.header(STAMP_HEADER).unwrap().unwrap()).unwrap();
                let Some(value) = record.value else { continue };
                out.push((offset, stamp, serde_json::from_slice(value).unwrap()));
            }
        }
    }
    out
}

/// Values of column `body` of every record that has a new row of topic `doc`, in order, with the stamp's flags.
fn bodies(cluster: &MemoryCluster) -> Vec<(String, u16)> {
    let body = |(_, stamp, value): (Offset, Stamp, serde_json::Value)| {
        Some((value["after"]["body"].as_str()?.to_owned(), stamp.flags))
    };
    changes(cluster, "shop.public.doc").into_iter().filter_map(body).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_were_not_sent_are_filled_from_the_log_over_restarts() {
    let Some(db) = database("unchanged").await else { return };
    db.exec(SCHEMA).await;
    // Every row has a body of its own, so that another row's would show.
    db.exec("INSERT INTO doc SELECT g, 0, g || '=' || repeat(md5(g::text), 100) FROM generate_series(1, 40) g").await;
    let mut rig = Rig::new(&db, &db).await;
    let mut capture = rig.capture();
    let mut updates = 0;
    let start = Instant::now();
    while bodies(&rig.cluster).len() < 40 {
        assert!(start.elapsed() < LIMIT && !capture.task.is_finished(), "the snapshot comes");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut rng = Rng::new(5);
    for round in 1..=6 {
        // Plain updates, twice in one transaction, a new key, a new body between, a delete and the key again.
        for _ in 0..20 {
            let id = 1 + rng.below(30);
            db.exec(&format!("UPDATE doc SET n = n + 1 WHERE id = {id}")).await;
            db.exec(&format!("UPDATE doc SET n = n + 1 WHERE id = {id}; UPDATE doc SET n = n + 1 WHERE id = {id}"))
                .await;
            updates += 3;
        }
        let (moved, again) = (30 + round, 1 + round);
        db.exec(&format!(
            "UPDATE doc SET id = id + 1000 WHERE id = {moved}; UPDATE doc SET n = 7 WHERE id = {moved} + 1000"
        ))
        .await;
        db.exec(&format!(
            "UPDATE doc SET body = id || '=' || repeat('new', 1000) WHERE id = {again}; UPDATE doc SET n = 8 WHERE id = {again}"
        ))
        .await;
        db.exec(&format!(
            "DELETE FROM doc WHERE id = 40; INSERT INTO doc VALUES (40, 0, '40=' || repeat('r{round}', 2000)); UPDATE doc SET n = 1 WHERE id = 40"
        ))
        .await;
        updates += 6;
        while bodies(&rig.cluster).len() < 40 + updates {
            assert!(start.elapsed() < LIMIT, "{} of {}", bodies(&rig.cluster).len(), 40 + updates);
            assert!(!capture.task.is_finished());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // A kill: what was known is gone.
        drop(std::mem::replace(&mut capture, rig.capture()));
    }
    let all = bodies(&rig.cluster);
    assert_eq!(all.len(), 40 + updates, "none twice, none lost");
    let filled = all.iter().filter(|(_, flags)| flags & flag::FILLED != 0).count();
    assert_eq!(filled, updates - 12, "all but the new bodies and the inserts");
    assert!(all.iter().all(|(body, flags)| flags & flag::INCOMPLETE == 0 && body.contains('=')), "every row is whole");
    // And they are the right ones: the last of each row is what the table has.
    let mut last = std::collections::BTreeMap::new();
    for (_, _, value) in changes(&rig.cluster, "shop.public.doc") {
        if let (Some(id), Some(body)) = (value["after"]["id"].as_i64(), value["after"]["body"].as_str()) {
            last.insert(id, body.to_owned());
        }
    }
    for row in db.client.query("SELECT id, body FROM doc", &[]).await.unwrap() {
        let (id, body): (i32, String) = (row.get(0), row.get(1));
        assert_eq!(last.get(&i64::from(id)), Some(&body), "row {id}");
    }
    drop(capture);
    db.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_workers_lose_nothing_double_nothing_and_show_no_half_transaction() {
    storm("early", false).await;
}

/// Kills begin when the snapshot is in the target, and rows move to new keys with columns that were not sent.
#[tokio::test(flavor = "multi_thread")]
async fn killed_workers_move_rows_with_columns_that_were_not_sent() {
    storm("late", true).await;
}

/// There is a table without a key: rows of two reads of it cannot be told apart, so it begins again when its snapshot is
/// interrupted. `late`: kills begin when the snapshot is in the target, and then rows move to new keys with columns that
/// were not sent (capture cannot complete such a row while a snapshot is filled up).
async fn storm(name: &str, late: bool) {
    let Some(source) = database(&format!("from_{name}")).await else { return };
    let target = database(&format!("to_{name}")).await.unwrap();
    source.exec(SCHEMA).await;
    source
        .exec(&format!(
            "INSERT INTO account SELECT g, 1000, g, repeat('p', 50) FROM generate_series(1, {ACCOUNTS}) g;
             INSERT INTO entry SELECT g, 1, 0, now() FROM generate_series(1, 3000) g;
             INSERT INTO doc SELECT g, 0, repeat(md5(g::text), 300) FROM generate_series(1, 50) g;
             INSERT INTO bag SELECT g, 'first' FROM generate_series(1, 100) g; INSERT INTO nokey SELECT g % 5, 'b' FROM generate_series(1, 60000) g"
        ))
        .await;
    // The target knows the constraints, too; while a first snapshot comes, a child may come before its parent.
    target.exec(&SCHEMA.replace("REPLICA IDENTITY FULL", "REPLICA IDENTITY DEFAULT")).await;
    let mut rig = Rig::new(&source, &target).await;
    rig.other_form = late;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 1..=3u64 {
        let (url, stop) = (source.url.clone(), stop.clone());
        writers.push(tokio::spawn(async move {
            let client = connect(&url).await;
            let mut rng = Rng::new(writer);
            let (mut n, mut done) = (0, 0u64);
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                match client.batch_execute(&transaction(&mut rng, writer, n, late)).await {
                    Ok(()) => done += 1,
                    // Deadlocks and collisions are the application's own business.
                    Err(e) if e.as_db_error().is_some() => client.batch_execute("ROLLBACK").await.unwrap(),
                    Err(e) => panic!("{e:?}"),
                }
            }
            done
        }));
    }
    let looks = {
        let (url, stop) = (target.url.clone(), stop.clone());
        tokio::spawn(async move {
            let client = connect(&url).await;
            let mut looks = 0u64;
            while !stop.load(Ordering::Relaxed) {
                let sql = "SELECT sum(balance)::text, (SELECT count(*) FROM entry e WHERE NOT EXISTS (SELECT 1 FROM account a WHERE a.id = e.account)) FROM account";
                let row = client.query_one(sql, &[]).await.unwrap();
                let sum: Option<String> = row.get(0);
                assert!(sum.is_none() || sum.as_deref() == Some("100000.00"), "half a transaction is visible: {sum:?}");
                looks += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            looks
        })
    };
    let mut rng = Rng::new(42);
    let (mut capture, mut deliver) = (rig.capture(), rig.deliver());
    let start = Instant::now();
    // Early: in the middle of it, as the log has some of the table without a key, and the target has nothing yet.
    let is_due = async |rig: &Rig| match late {
        true => {
            let seen = "SELECT least((SELECT count(*) FROM nokey), (SELECT count(*) FROM entry) - 3000)::text";
            !target.one(seen).await.starts_with(['0', '-'])
        }
        false => rig.has("shop.public.nokey", "\"op\":\"r\""),
    };
    while !is_due(&rig).await {
        for (name, worker) in [("capture", &mut capture), ("deliver", &mut deliver)] {
            if worker.task.is_finished() {
                panic!("{name} ended: {:?}", (&mut worker.task).await);
            }
        }
        assert!(start.elapsed() < LIMIT * 3, "the snapshot arrives");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut zombies: Vec<(Running, Instant)> = Vec::new();
    let begun = Instant::now();
    let seconds = std::env::var("CW_PG_STORM_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(12);
    let (mut kills, mut interrupted) = (0, false);
    while begun.elapsed() < Duration::from_secs(seconds) {
        let first = kills == 0 && !late;
        if !first {
            tokio::time::sleep(Duration::from_millis(20 + rng.below(500))).await;
        }
        kills += 1;
        let (new, old) = match rng.below(2) {
            _ if first => (rig.capture(), &mut capture),
            0 => (rig.capture(), &mut capture),
            _ => (rig.deliver(), &mut deliver),
        };
        let old = std::mem::replace(old, new);
        if first {
            drop(old);
            // On a machine that lets us wait it may have come to its end before.
            interrupted = !rig.has("shop.public.nokey", "\"snapshot\":\"last");
            continue;
        }
        // Now and then the old one goes on beside the new.
        if rng.below(3) == 0 {
            zombies.push((old, Instant::now()));
        }
        zombies.retain(|(z, since)| !z.task.is_finished() && since.elapsed() < Duration::from_secs(2));
    }
    stop.store(true, Ordering::Relaxed);
    let mut done = 0;
    for w in writers {
        done += w.await.unwrap();
    }
    let looks = looks.await.unwrap();
    source.exec("INSERT INTO marker VALUES (1)").await;
    let start = Instant::now();
    while target.one("SELECT count(*)::text FROM marker").await != "1" {
        for (name, worker) in [("capture", &mut capture), ("deliver", &mut deliver)] {
            if worker.task.is_finished() {
                let log = if late { Ok(Default::default()) } else { rig.folded("shop.public.nokey") };
                panic!("{name} ended: {:?}; the log by itself: {log:?}", (&mut worker.task).await);
            }
        }
        assert!(start.elapsed() < LIMIT * 2, "the marker arrives");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Chunks of an interrupted snapshot may still come.
    let tables =
        [("account", "id"), ("entry", "id"), ("doc", "id"), ("bag", "id"), ("nokey", "a, b"), ("marker", "id")];
    for (table, order) in tables {
        let want = source.rows(table, order).await;
        let mut got = target.rows(table, order).await;
        while got != want && start.elapsed() < LIMIT * 2 {
            assert!(!capture.task.is_finished() && !deliver.task.is_finished());
            tokio::time::sleep(Duration::from_millis(50)).await;
            got = target.rows(table, order).await;
        }
        assert_eq!(got.len(), want.len(), "{table}");
        for (g, w) in got.iter().zip(&want) {
            assert_eq!(g, w, "{table}");
        }
    }
    let begun_again = rig.truncates_of_snapshots("nokey");
    eprintln!("{done} transactions, {kills} kills, {looks} looks at the target, {begun_again} times begun again");
    assert!(done > 100 && kills > 10 && looks > 50);
    if !late {
        assert!(begun_again > 0 || !interrupted, "what was interrupted begins again");
        let log = rig.folded("shop.public.nokey").unwrap();
        assert_eq!(log.values().sum::<u64>() as usize, source.rows("nokey", "a, b").await.len(), "by the log itself");
    }
    if late {
        let told = rig.transactions();
        assert!(told > 100, "{told} transactions were told of");
    }
    drop((capture, deliver, zombies));
    target.drop().await;
    source.drop().await;
}

const LATE_TABLES: &str = "
    CREATE TABLE prep.parent(id int PRIMARY KEY, v text);
    CREATE TABLE prep.child(id int PRIMARY KEY, parent int NOT NULL REFERENCES prep.parent);
    CREATE TABLE prep.toast(id int PRIMARY KEY, n int, body text NOT NULL); ALTER TABLE prep.toast ALTER body SET STORAGE EXTERNAL;
    CREATE TABLE prep.bare(a int, b text); ALTER TABLE prep.bare REPLICA IDENTITY FULL";

const LATE_ROWS: &str = "
    INSERT INTO prep.parent SELECT g, 'old' FROM generate_series(1, 2500) g; INSERT INTO prep.child SELECT g, g FROM generate_series(1, 1500) g;
    INSERT INTO prep.toast SELECT g, 0, g || repeat(md5(g::text), 70) FROM generate_series(1, 1500) g;
    INSERT INTO prep.bare SELECT g % 50, 'old' FROM generate_series(1, 2000) g";

/// One transaction of those who write into the tables of a schema that came later.
fn of_late(rng: &mut Rng, schema: &str, id: u64) -> String {
    let (old, new) = (1 + rng.below(1500), 100_000 + id * 10);
    let what = match rng.below(8) {
        0 => format!(
            "INSERT INTO {schema}.parent VALUES ({new}, 'new'); INSERT INTO {schema}.child VALUES ({new}, {new})"
        ),
        1 => format!(
            "UPDATE {schema}.parent SET v = v || 'x' WHERE id = {old}; DELETE FROM {schema}.child WHERE id = {old}"
        ),
        2 | 3 => format!("UPDATE {schema}.toast SET n = n + 1 WHERE id = {old}"),
        4 => format!(
            "UPDATE {schema}.toast SET id = {new}, n = -1 WHERE id = {old}; UPDATE {schema}.toast SET n = 5 WHERE id = {new}"
        ),
        5 => format!(
            "DELETE FROM {schema}.toast WHERE id = {old}; INSERT INTO {schema}.toast VALUES ({new}, 1, repeat('new', 900))"
        ),
        6 => format!(
            "UPDATE {schema}.bare SET b = b || 'x' WHERE ctid = (SELECT ctid FROM {schema}.bare LIMIT 1 OFFSET {})",
            rng.below(500)
        ),
        _ => format!(
            "INSERT INTO {schema}.bare VALUES ({old}, 'new'); DELETE FROM {schema}.bare WHERE a = {} AND b = 'oldx'",
            old % 50
        ),
    };
    format!("BEGIN; {what}; COMMIT")
}

pub(crate) async fn alive(when: &str, capture: &mut Running, deliver: &mut Running) {
    for (name, worker) in [("capture", capture), ("deliver", deliver)] {
        if worker.task.is_finished() {
            panic!("{when}: {name} ended: {:?}", (&mut worker.task).await);
        }
    }
}

/// Tables with rows come to patterns while the capture is down (`down`) and while it streams (`live`), under writers; one
/// transaction of each had written into them before, and goes on after that.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_tables_that_come_later_arrive_once_over_kills() {
    let Some(source) = database("from_later").await else { return };
    let target = database("to_later").await.unwrap();
    source
        .exec("CREATE SCHEMA down; CREATE SCHEMA live; CREATE SCHEMA prep; CREATE TABLE down.first(id int PRIMARY KEY)")
        .await;
    source.exec("INSERT INTO down.first VALUES (1); CREATE TABLE live.first(id int PRIMARY KEY)").await;
    for schema in ["down", "live"] {
        let tables = LATE_TABLES.replace("prep.", &format!("{schema}.")).replace("IDENTITY FULL", "IDENTITY DEFAULT");
        target.exec(&format!("CREATE SCHEMA {schema}; {tables}")).await;
    }
    let mut rig = Rig::new(&source, &target).await;
    rig.source = SourceConfig { compare_every: Duration::from_millis(100), ..source.config(&["down.*", "live.*"]) };
    let (mut capture, mut deliver) = (rig.capture(), rig.deliver());
    let start = Instant::now();
    let sees = "SELECT CASE WHEN to_regclass('down.first') IS NULL THEN '0' ELSE \
        (xpath('//c/text()', query_to_xml('SELECT count(*) AS c FROM down.first', true, true, '')))[1]::text END";
    while target.one(sees).await != "1" {
        assert!(start.elapsed() < LIMIT);
        alive("first", &mut capture, &mut deliver).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    let mut open = Vec::new();
    let mut rng = Rng::new(7);
    for (no, schema) in ["down", "live"].into_iter().enumerate() {
        if schema == "down" {
            drop(std::mem::replace(&mut capture, rig.deliver()));
        }
        source.exec(&format!("{LATE_TABLES}; {LATE_ROWS}")).await;
        let moves: String =
            ["parent", "child", "toast", "bare"].map(|t| format!("ALTER TABLE prep.{t} SET SCHEMA {schema};")).concat();
        source.exec(&format!("BEGIN; {moves} COMMIT")).await;
        // Before the publication has them, if it is down; as a rule, if it is live.
        let client = connect(&source.url).await;
        let before = format!("BEGIN; INSERT INTO {schema}.parent VALUES (-1, 'before'); UPDATE {schema}.bare SET b = 'before' WHERE a = 7;
            UPDATE {schema}.toast SET n = 3 WHERE id = 3");
        client.batch_execute(&before).await.unwrap();
        open.push((client, schema));
        for writer in 0..2u64 {
            let (url, stop) = (source.url.clone(), stop.clone());
            writers.push(tokio::spawn(async move {
                let client = connect(&url).await;
                let mut rng = Rng::new(writer + no as u64 * 10);
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    n += 1;
                    match client.batch_execute(&of_late(&mut rng, schema, n * 2 + writer)).await {
                        Ok(()) => {}
                        Err(e) if e.as_db_error().is_some() => client.batch_execute("ROLLBACK").await.unwrap(),
                        Err(e) => panic!("{e:?}"),
                    }
                    tokio::time::sleep(Duration::from_millis(12)).await;
                }
                n
            }));
        }
        if schema == "down" {
            capture = rig.capture();
        }
        tokio::time::sleep(Duration::from_millis(400)).await;
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(20 + rng.below(150))).await;
            match rng.below(3) {
                0 => drop(std::mem::replace(&mut deliver, rig.deliver())),
                _ => drop(std::mem::replace(&mut capture, rig.capture())),
            }
        }
        // What it wrote before nobody has, what it writes now the stream has.
        let (client, _) = &open[no];
        let after = format!(
            "UPDATE {schema}.parent SET v = v || ' and after' WHERE id = -1; UPDATE {schema}.toast SET n = 4 WHERE id = 3; COMMIT"
        );
        client.batch_execute(&after).await.unwrap();
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(20 + rng.below(150))).await;
            drop(std::mem::replace(&mut capture, rig.capture()));
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut done = 0;
    for w in writers {
        done += w.await.unwrap();
    }
    let start = Instant::now();
    for schema in ["down", "live"] {
        for (table, order) in [("parent", "id"), ("child", "id"), ("toast", "id"), ("bare", "a, b")] {
            let table = format!("{schema}.{table}");
            let want = source.rows(&table, order).await;
            let mut got = target.rows(&table, order).await;
            while got != want && start.elapsed() < LIMIT {
                alive(&table, &mut capture, &mut deliver).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
                got = target.rows(&table, order).await;
            }
            assert_eq!(got.len(), want.len(), "{table}");
            for (g, w) in got.iter().zip(&want) {
                assert_eq!(g, w, "{table}");
            }
        }
    }
    assert!(done > 100, "{done} transactions");
    drop((capture, deliver));
    target.drop().await;
    source.drop().await;
}
