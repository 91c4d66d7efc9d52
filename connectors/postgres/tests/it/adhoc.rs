//! Ad hoc snapshots of a running source: no row of a chunk is older than what the log has of its key (capture.md 7.4),
//! whatever commits beside it and wherever the worker dies; and what a person may ask for meanwhile.

use crate::rig::{Rig, Running};
use crate::support::*;
use catchwater_base::Rng;
use catchwater_capture::signal::{self, Signal};
use catchwater_capture::{SnapshotMode, State, StatusHandle};
use catchwater_connector_postgres::source::signal_file::follow;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const SIGNALS: &str =
    "CREATE TABLE signals(id varchar(64) PRIMARY KEY, type varchar(32) NOT NULL, data varchar(4096))";

pub async fn ask(running: &Running, signal: Signal) -> Result<String, String> {
    running.status.signal(signal).await.expect("the worker lives").map_err(|e| e.to_string())
}

pub fn execute(data: &str) -> Signal {
    signal::parse("execute-snapshot", data).unwrap()
}

fn reads(rig: &Rig, topic: &str) -> Vec<Json> {
    rig.records(topic).into_iter().filter(|r| r.value["op"] == "r").map(|r| r.value).collect()
}

pub fn is_quiet(status: &StatusHandle) -> bool {
    let s = status.get();
    s.ad_hoc.is_empty() && s.state == State::Streaming
}

/// The last record of each key, and that no key's `n` ever goes back. Keys stay in their partition.
pub fn state_of(rig: &Rig, topic: &str) -> BTreeMap<i64, Json> {
    let (mut state, mut newest) = (BTreeMap::new(), BTreeMap::<i64, i64>::new());
    for record in rig.records(topic) {
        let id = record.key["id"].as_i64().unwrap();
        if record.value.is_null() || record.value["op"] == "d" {
            state.remove(&id);
            continue;
        }
        let after = &record.value["after"];
        let n = after["n"].as_i64().unwrap();
        let before = newest.insert(id, n).unwrap_or(0);
        assert!(n >= before, "key {id}: {n} after {before}: a stale row, {}", record.value);
        state.insert(id, after.clone());
    }
    state
}

/// Chunks of the long form; the check has a share of it.
fn long_form() -> Option<u64> {
    std::env::var("CW_ADHOC_CHUNKS").ok().and_then(|n| n.parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_beside_writers_bring_no_stale_row_over_kills() {
    for (n, server) in servers().into_iter().enumerate() {
        let db = database_on(&server, "adhoc").await;
        race(&db, long_form().unwrap_or(if n == 0 { 150 } else { 50 }), None).await;
        db.drop().await;
    }
}

/// A commit is in the WAL, hence in our stream, long before views show it: where LSN windows let stale rows win.
#[tokio::test(flavor = "multi_thread")]
async fn chunks_beside_a_lagging_synchronous_standby_bring_no_stale_row() {
    let Some(mut standby) = Standby::start().await else { return };
    let db = database_on(&standby.url, "lagging").await;
    race(&db, long_form().unwrap_or(40), Some(&mut standby)).await;
}

/// So has the stream a new column before views show it: what the catalogue says of it is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_column_beside_a_lagging_synchronous_standby_is_as_the_catalogue_says() {
    let Some(mut standby) = Standby::start().await else { return };
    let db = database_on(&standby.url, "late_column").await;
    db.exec("CREATE TABLE t(id int PRIMARY KEY)").await;
    let mut rig = Rig::new(db.config(&["t"])).await;
    rig.snapshot = SnapshotMode::NoData;
    rig.properties = vec![("schemas.enable", "true".into())];
    let mut running = rig.start();
    running.until("streaming", |s| s.get().state == State::Streaming).await;
    standby.attach().await;
    let stop = Arc::new(AtomicBool::new(false));
    let lags = standby.lag(stop.clone());
    for n in 0..10 {
        db.exec(&format!(
            "BEGIN; ALTER TABLE t ADD COLUMN c{n} int NOT NULL DEFAULT {n}; INSERT INTO t VALUES ({n}); COMMIT"
        ))
        .await;
    }
    running.until("the rows", |_| rig.records("shop.public.t").len() == 10).await;
    stop.store(true, Ordering::Relaxed);
    lags.await.unwrap();
    for (n, record) in rig.records("shop.public.t").iter().enumerate() {
        let fields = |of: &Json| of["fields"].as_array().cloned().unwrap_or_default();
        let after = fields(&record.value["schema"]).into_iter().find(|f| f["field"] == "after").unwrap();
        let column = fields(&after).into_iter().find(|f| f["field"] == format!("c{n}")).unwrap();
        assert_eq!((&column["optional"], &column["default"]), (&Json::from(false), &Json::from(n)), "{column}");
    }
    running.stop.stop();
    assert_eq!((&mut running.task).await.unwrap(), "Stopped");
}

/// A server of its own, and a `pg_receivewal` beside it that its commits wait for and that is stopped again and again.
pub struct Standby {
    pub url: String,
    work: std::path::PathBuf,
    xtask: std::path::PathBuf,
    receiver: Option<std::process::Child>,
}

impl Standby {
    pub async fn start() -> Option<Standby> {
        const RECEIVER: &str = "/usr/lib/postgresql/15/bin/pg_receivewal";
        std::env::var_os("CW_PG15_URL")?;
        let Some(xtask) = std::env::var_os("CW_XTASK").filter(|_| std::path::Path::new(RECEIVER).exists()) else {
            eprintln!("SKIP db standby: CW_XTASK is not set, or there is no {RECEIVER}");
            return None;
        };
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let of_test = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let work = std::env::temp_dir().join(format!("cw-standby-{}-{of_test}", std::process::id()));
        std::fs::create_dir_all(&work).unwrap();
        std::fs::set_permissions(&work, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut made = Standby { url: String::new(), work, xtask: xtask.into(), receiver: None };
        made.db("start");
        let said = made.db("env");
        let url = said.lines().find_map(|l| l.strip_prefix("export CW_PG15_URL=")).unwrap();
        made.url = url.trim_matches(['\'', '"']).to_owned();
        Some(made)
    }

    fn db(&self, verb: &str) -> String {
        let mut command = std::process::Command::new(&self.xtask);
        command.args(["db", verb]).env("CW_DB_WORK", &self.work);
        if verb != "wipe" {
            command.arg("pg15");
        }
        let done = command.output().unwrap();
        assert!(done.status.success(), "db {verb}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    /// From here on commits wait for it.
    pub async fn attach(&mut self) {
        let url = self.url.rsplit_once('/').unwrap().0;
        let wal = self.work.join("wal");
        std::fs::create_dir_all(&wal).unwrap();
        let receiver = std::process::Command::new("/usr/lib/postgresql/15/bin/pg_receivewal")
            .args(["--synchronous", "--no-loop", "-D"])
            .arg(wal)
            .args(["-d", &format!("{url}/postgres?application_name=slow")])
            .stderr(std::process::Stdio::null())
            .spawn();
        self.receiver = Some(receiver.unwrap());
        let admin = connect(&self.url).await;
        admin.batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'slow'").await.unwrap();
        admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        let start = Instant::now();
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'slow' AND sync_state = 'sync'";
        while admin.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            assert!(start.elapsed() < LIMIT, "the standby is synchronous");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn signal(&self, which: &str) {
        let id = self.receiver.as_ref().unwrap().id().to_string();
        drop(std::process::Command::new("kill").args([which, &id]).status());
    }

    /// Stops and goes on at random, until told to end; it runs then.
    fn lag(&self, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<()> {
        let id = self.receiver.as_ref().unwrap().id().to_string();
        tokio::task::spawn_blocking(move || {
            let mut rng = Rng::new(11);
            let signal = |which: &str| drop(std::process::Command::new("kill").args([which, &id]).status());
            while !stop.load(Ordering::Relaxed) {
                signal("-STOP");
                std::thread::sleep(Duration::from_millis(20 + rng.below(150)));
                signal("-CONT");
                std::thread::sleep(Duration::from_millis(rng.below(40)));
            }
        })
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            let _ = receiver.kill();
            let _ = receiver.wait();
        }
        let wiped = std::process::Command::new(&self.xtask).args(["db", "wipe"]).env("CW_DB_WORK", &self.work).output();
        drop(wiped);
        let _ = std::fs::remove_dir_all(&self.work);
    }
}

async fn race(db: &Db, wanted: u64, standby: Option<&mut Standby>) {
    // Ten rows a chunk.
    let rows = wanted * 10;
    db.exec(SIGNALS).await;
    // `n` grows with every change of any row, so an older row shows.
    db.exec(&format!(
        "CREATE TABLE t(id int PRIMARY KEY, n bigint NOT NULL, body text); ALTER TABLE t ALTER body SET STORAGE EXTERNAL;
         CREATE SEQUENCE s; INSERT INTO t SELECT g, nextval('s'), repeat(md5(g::text), 2) FROM generate_series(1, {rows}) g;
         UPDATE t SET body = repeat(md5(id::text), 100) WHERE id % 50 = 0"
    ))
    .await;
    let mut rig = Rig::new(db.config(&["t", "signals"])).await;
    rig.snapshot = SnapshotMode::NoData;
    rig.properties =
        vec![("signal.data.collection", "public.signals".into()), ("incremental.snapshot.chunk.size", "10".into())];
    let mut running = rig.start();
    running.until("streaming", |s| s.get().state == State::Streaming).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut lags = None;
    if let Some(standby) = standby {
        standby.attach().await;
        lags = Some(standby.lag(stop.clone()));
    }
    let mut writers = Vec::new();
    // Beside a standby, each has at most one commit that waits for it.
    for writer in 1..=if lags.is_some() { 12 } else { 3u64 } {
        let (url, stop) = (db.url.clone(), stop.clone());
        writers.push(tokio::spawn(async move {
            let client = connect(&url).await;
            let mut rng = Rng::new(writer);
            let mut done = 0u64;
            while !stop.load(Ordering::Relaxed) {
                let id = 1 + rng.below(rows);
                let sql = match rng.below(8) {
                    0 => format!("DELETE FROM t WHERE id = {id}"),
                    1 => format!(
                        "INSERT INTO t VALUES ({id}, nextval('s'), 'again') ON CONFLICT (id) DO UPDATE SET n = nextval('s')"
                    ),
                    2 => format!("UPDATE t SET id = id + 20000, n = nextval('s') WHERE id = {id}"),
                    3 => format!("UPDATE t SET id = id - 20000, n = nextval('s') WHERE id = {id} + 20000 \
                        AND NOT EXISTS (SELECT 1 FROM t x WHERE x.id = {id})"),
                    4 => format!("BEGIN; UPDATE t SET n = nextval('s') WHERE id = {id}; ROLLBACK"),
                    _ => format!("UPDATE t SET n = nextval('s') WHERE id = {id}"),
                };
                match client.batch_execute(&sql).await {
                    Ok(()) => done += 1,
                    Err(e) if e.as_db_error().is_some() => client.batch_execute("ROLLBACK").await.unwrap(),
                    Err(e) => panic!("{e:?}"),
                }
            }
            done
        }));
    }
    let sql = r#"INSERT INTO signals VALUES ('1', 'execute-snapshot', '{"data-collections": ["public.t"]}')"#;
    db.exec(sql).await;
    running.until("the signal is followed", |s| !s.get().ad_hoc.is_empty()).await;
    let (mut rng, mut kills, mut chunks) = (Rng::new(7), 0, 0);
    let start = Instant::now();
    loop {
        // By chunks, not by time: a fast machine meets as many kills as a slow one.
        let life = 1 + rng.below(wanted / 8);
        while running.status.get().ad_hoc_chunks < life && !is_quiet(&running.status) {
            assert!(!running.task.is_finished(), "{:?}", (&mut running.task).await);
            assert!(start.elapsed() < LIMIT * 10, "{:?}", running.status.get());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        chunks += running.status.get().ad_hoc_chunks;
        if is_quiet(&running.status) {
            break;
        }
        assert!(start.elapsed() < LIMIT * 10, "{:?}", running.status.get());
        kills += 1;
        drop(std::mem::replace(&mut running, rig.start()));
        // A restart is not at rest before it has looked at what the log says.
        running.until("streaming", |s| s.get().state == State::Streaming).await;
    }
    stop.store(true, Ordering::Relaxed);
    if let Some(lags) = lags {
        lags.await.unwrap();
    }
    let mut done = 0;
    for w in writers {
        done += w.await.unwrap();
    }
    let rows = db.client.query("SELECT id, n, body FROM t", &[]).await.unwrap();
    let want: BTreeMap<i64, (i64, Option<String>)> =
        rows.iter().map(|r| (i64::from(r.get::<_, i32>(0)), (r.get(1), r.get(2)))).collect();
    db.exec("INSERT INTO signals VALUES ('2', 'log', '{\"message\": \"the end\"}')").await;
    running.until("the end", |_| rig.records("shop.public.signals").len() >= 2).await;
    running.stop.stop();
    assert_eq!((&mut running.task).await.unwrap(), "Stopped");
    let state = state_of(&rig, "shop.public.t");
    let odd = state.keys().filter(|k| !want.contains_key(k)).chain(want.keys().filter(|k| !state.contains_key(k)));
    let odd: Vec<&i64> = odd.take(20).collect();
    assert!(odd.is_empty(), "each key, and no other: {odd:?}");
    for (id, (n, body)) in &want {
        assert_eq!(state[id]["n"].as_i64(), Some(*n), "row {id}");
        assert_eq!(state[id]["body"].as_str(), body.as_deref(), "row {id}");
    }
    let read = reads(&rig, "shop.public.t");
    eprintln!("{chunks} chunks, {} rows read, {done} transactions, {kills} kills, {:?}", read.len(), start.elapsed());
    assert!(
        chunks >= wanted * 9 / 10 && kills >= 3 && read.len() as u64 > wanted * 10 * 8 / 10,
        "{chunks} chunks, {kills} kills, {} rows",
        read.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_a_pause_a_stop_and_a_wrong_signal() {
    let Some(db) = database("asked").await else { return };
    db.exec(SIGNALS).await;
    db.exec(
        "CREATE TABLE t(a int, b text, v text, PRIMARY KEY (b, a)); CREATE TABLE nokey(a int);
         ALTER TABLE nokey REPLICA IDENTITY FULL; CREATE TABLE u(id int PRIMARY KEY, n int);
         INSERT INTO t SELECT g % 7, 'x''' || g, 'v' FROM generate_series(1, 100) g;
         INSERT INTO u SELECT g, 0 FROM generate_series(1, 1000) g",
    )
    .await;
    let mut rig = Rig::new(db.config(&["t", "u", "nokey", "signals"])).await;
    rig.snapshot = SnapshotMode::NoData;
    rig.properties = vec![
        ("signal.data.collection", "public.signals".into()),
        ("incremental.snapshot.chunk.size", "10".into()),
        ("snapshot.max.threads", "2".into()),
    ];
    let mut running = rig.start();
    running.until("streaming", |s| s.get().state == State::Streaming).await;

    // A composite key, an apostrophe in it, and a condition.
    let filter = r#"{"data-collections":["public.t"],"additional-conditions":[{"data-collection":"public.t","filter":"a < 3 -- so"}]}"#;
    assert_eq!(ask(&running, execute(filter)).await.unwrap(), "asked for: public.t");
    running.until("the filtered table", is_quiet).await;
    let read = reads(&rig, "shop.public.t");
    assert_eq!(read.len(), 44);
    assert!(read.iter().all(|r| r["after"]["a"].as_i64().unwrap() < 3 && r["source"]["snapshot"] == "incremental"));

    // What cannot be done is said, and nothing ends.
    let wrong = execute(r#"{"data-collections":["public.nokey"]}"#);
    assert!(ask(&running, wrong).await.unwrap_err().contains("no key"));
    assert!(ask(&running, execute(r#"{"data-collections":["public.x"]}"#)).await.unwrap_err().contains("no captured"));
    let with = |tables: &str, filter: &str| {
        let data = serde_json::json!({"data-collections": [tables],
            "additional-conditions": [{"data-collection": "public.t", "filter": filter}]});
        execute(&data.to_string())
    };
    // What the server does not take as a condition is the answer, and no table of the signal is read.
    for (bad, why) in
        [("nosuch = 1", "42703"), ("true); DROP TABLE u; SELECT (true", "42601"), ("a = 'x'", "22P02"), ("a", "42804")]
    {
        let said = ask(&running, with("public.[tu]", bad)).await.unwrap_err();
        assert!(
            said.contains("condition for public.t") && said.contains("CW0528") && said.contains(why),
            "{bad}: {said}"
        );
    }
    assert!(is_quiet(&running.status) && reads(&rig, "shop.public.u").is_empty());
    assert_eq!(running.status.get().signals_refused, 0);
    // What is wrong with the rows shows when they are read.
    ask(&running, with("public.t", "1/(a-a) = 1")).await.unwrap();
    running.until("given up", |s| s.get().signals_refused == 1 && is_quiet(s)).await;
    assert_eq!(db.one("SELECT count(*)::text FROM u").await, "1000");
    db.exec("INSERT INTO signals VALUES ('1', 'nonsense', '{}')").await;
    running.until("the wrong row", |s| s.get().last_refusal.is_some_and(|r| r.contains("nonsense"))).await;

    // A pause holds over a kill; resumed it goes on where it was.
    let slow = r#"{"data-collections":["public.u"],"rows-per-second":200}"#;
    ask(&running, execute(slow)).await.unwrap();
    running.until("some rows", |s| s.get().ad_hoc.first().is_some_and(|a| a.rows >= 20)).await;
    assert_eq!(ask(&running, Signal::Pause).await.unwrap(), "paused: public.u");
    drop(std::mem::replace(&mut running, rig.start()));
    running.until("streaming", |s| s.get().state == State::Streaming && !s.get().ad_hoc.is_empty()).await;
    let seen = running.status.get().ad_hoc[0].clone();
    assert_eq!((seen.table.as_str(), seen.state), ("public.u", "paused"));
    let (paused_at, begun) = (reads(&rig, "shop.public.u").len(), Instant::now());
    assert!((20..1000).contains(&paused_at), "{paused_at}");
    // Another table is read meanwhile.
    db.exec(r#"INSERT INTO signals VALUES ('2', 'resume-snapshot', NULL)"#).await;
    running.until("all rows", |_| reads(&rig, "shop.public.u").len() >= 400).await;
    let (rows, elapsed) = (reads(&rig, "shop.public.u").len() - paused_at, begun.elapsed());
    // Throttled: no faster than told, but for one chunk.
    assert!(rows as f64 <= 200.0 * elapsed.as_secs_f64() + 20.0, "{rows} rows in {elapsed:?}");
    assert_eq!(ask(&running, signal::parse("stop-snapshot", "").unwrap()).await.unwrap(), "stopped: public.u");
    running.until("the stop", is_quiet).await;
    let ids: Vec<i64> = reads(&rig, "shop.public.u").iter().map(|r| r["after"]["id"].as_i64().unwrap()).collect();
    let distinct: std::collections::BTreeSet<i64> = ids.iter().copied().collect();
    assert_eq!(distinct.len(), ids.len(), "no row twice, over the kill");
    assert!(ids.len() < 1000);
    // Two tables by one signal, and after a clean stop nothing begins again.
    ask(&running, execute(r#"{"type":"blocking","data-collections":["public.[tu]"]}"#)).await.unwrap();
    running.until("both", is_quiet).await;
    let both = [("t", 144), ("u", ids.len() + 1000)];
    for (table, count) in both {
        assert_eq!(reads(&rig, &format!("shop.public.{table}")).len(), count, "{table}");
    }
    running.stop.stop();
    assert_eq!((&mut running.task).await.unwrap(), "Stopped");
    let mut running = rig.start();
    running.until("streaming", |s| s.get().state == State::Streaming).await;
    assert!(running.status.get().ad_hoc.is_empty());
    drop(running);
    db.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_of_the_topic_are_followed_once() {
    let Some(db) = database("topic_signals").await else { return };
    db.exec("CREATE TABLE t(id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 5)").await;
    let mut rig = Rig::new(db.config(&["t"])).await;
    rig.snapshot = SnapshotMode::NoData;
    rig.properties = vec![("signal.enabled.channels", "kafka".into()), ("signal.kafka.topic", "signals".into())];
    let execute = r#"{"type":"execute-snapshot","data":{"data-collections":["public.t"]}}"#;
    rig.produce("signals", "another", execute).await;
    rig.produce("signals", "shop", "no json").await;
    rig.produce("signals", "shop", execute).await;
    let mut running = rig.start();
    running.until("the rows", |s| reads(&rig, "shop.public.t").len() == 5 && is_quiet(s)).await;
    assert_eq!(running.status.get().signals_refused, 1);
    running.stop.stop();
    assert_eq!((&mut running.task).await.unwrap(), "Stopped");
    // Not again after a restart; and a later one is.
    let mut running = rig.start();
    rig.produce("signals", "shop", execute).await;
    running.until("the rows again", |s| reads(&rig, "shop.public.t").len() >= 10 && is_quiet(s)).await;
    db.exec("INSERT INTO t VALUES (6)").await;
    running.until("the end", |_| rig.records("shop.public.t").len() >= 11).await;
    assert_eq!(reads(&rig, "shop.public.t").len(), 10);
    assert_eq!(running.status.get().signals_refused, 0);
    drop(running);
    db.drop().await;
}

/// A line is in the file until what it asks for is in the log; then the file is empty, and there.
#[tokio::test(flavor = "multi_thread")]
async fn signals_of_the_file_are_followed_and_none_is_lost_by_a_crash() {
    let Some(db) = database("file_signals").await else { return };
    db.exec("CREATE TABLE t(id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 5)").await;
    let dir = std::env::temp_dir().join(format!("cw-file-signals-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("signals.txt");
    let execute =
        r#"{"id":"1","type":"execute-snapshot","data":{"data-collections":["public.t"],"type":"incremental"}}"#;
    let len = || std::fs::metadata(&path).unwrap().len();
    let follow = |status: &StatusHandle| {
        tokio::spawn(follow(path.clone(), Duration::from_millis(10), "shop".into(), status.clone()))
    };
    std::fs::write(&path, format!("no json\n{execute}\n")).unwrap();
    // Nobody answers: the line was read, and the process dies.
    let nobody = StatusHandle::default();
    let polling = follow(&nobody);
    let start = Instant::now();
    while nobody.get().signals_refused == 0 {
        assert!(start.elapsed() < LIMIT, "the first line is read");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    polling.abort();
    assert!(polling.await.unwrap_err().is_cancelled());
    assert!(len() > 0, "nothing was followed, and nothing is gone");

    let mut rig = Rig::new(db.config(&["t"])).await;
    rig.snapshot = SnapshotMode::NoData;
    let mut running = rig.start();
    let polling = follow(&running.status);
    running.until("the rows", |s| reads(&rig, "shop.public.t").len() == 5 && is_quiet(s) && len() == 0).await;
    assert_eq!(running.status.get().signals_refused, 1);
    // Without an end of line, as editors and `printf` write it.
    std::fs::write(&path, execute).unwrap();
    running.until("the rows again", |s| reads(&rig, "shop.public.t").len() >= 10 && is_quiet(s) && len() == 0).await;
    // The worker dies; what is written meanwhile waits for the next one, and what was followed does not come again.
    polling.abort();
    drop(running);
    std::fs::write(&path, "{\"id\":\"2\",\"type\":\"log\",\"data\":{\"message\":\"later\"}}\n").unwrap();
    let mut running = rig.start();
    let polling = follow(&running.status);
    running.until("the line", |s| is_quiet(s) && len() == 0).await;
    db.exec("INSERT INTO t VALUES (6)").await;
    running.until("the end", |_| rig.records("shop.public.t").len() >= 11).await;
    assert_eq!(reads(&rig, "shop.public.t").len(), 10);
    polling.abort();
    drop(running);
    std::fs::remove_dir_all(&dir).unwrap();
    db.drop().await;
}

/// A row that was never in the log moves, while its table is read, to a key that was read already: its large column, which
/// the update did not send, is read by its key. Over a kill at any place, with more moves than are kept by key, and with a
/// composite key.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_move_over_the_reader_keep_their_large_columns() {
    for server in servers() {
        let db = database_on(&server, "moved").await;
        db.exec(
            "CREATE TABLE t(a text, id int, n int NOT NULL DEFAULT 0, body text, PRIMARY KEY (a, id));
             ALTER TABLE t ALTER body SET STORAGE EXTERNAL;
             INSERT INTO t SELECT 'it''s', g, 0, repeat(md5(g::text), 100) FROM generate_series(1, 300) g",
        )
        .await;
        let mut rig = Rig::new(db.config(&["t"])).await;
        rig.snapshot = SnapshotMode::NoData;
        rig.properties = vec![("incremental.snapshot.chunk.size", "10".into())];
        let mut running = rig.start();
        running.until("streaming", |s| s.get().state == State::Streaming).await;
        ask(&running, execute(r#"{"data-collections":["public.t"],"rows-per-second":100}"#)).await.unwrap();
        running.until("some rows", |s| s.get().ad_hoc.first().is_some_and(|a| a.rows >= 20)).await;
        ask(&running, Signal::Pause).await.unwrap();
        let read = reads(&rig, "shop.public.t").len() as i64;
        assert!((20..200).contains(&read), "{read}");
        // Behind the reader: 250 was never in the log, goes to -1, and is changed there once more.
        db.exec("UPDATE t SET id = -1 WHERE id = 250; UPDATE t SET n = 7 WHERE id = -1").await;
        db.exec("BEGIN; UPDATE t SET id = -2 WHERE id = 260; UPDATE t SET n = 8 WHERE id = -2; COMMIT").await;
        // In front of it, and one that is gone again.
        db.exec(
            "UPDATE t SET id = 1000 WHERE id = 270; UPDATE t SET id = -3 WHERE id = 280; DELETE FROM t WHERE id = -3",
        )
        .await;
        running
            .until("the moves", |_| rig.records("shop.public.t").iter().any(|r| r.key["id"] == -3 && r.value.is_null()))
            .await;
        for _ in 0..2 {
            drop(std::mem::replace(&mut running, rig.start()));
            running.until("streaming", |s| s.get().state == State::Streaming && !s.get().ad_hoc.is_empty()).await;
        }
        ask(&running, Signal::Resume).await.unwrap();
        running.until("the end", is_quiet).await;
        let want = db.client.query("SELECT id, n, body FROM t", &[]).await.unwrap();
        let mut newest: BTreeMap<i64, Json> = BTreeMap::new();
        for record in rig.records("shop.public.t") {
            newest.insert(record.key["id"].as_i64().unwrap(), record.value);
        }
        for row in want {
            let (id, n, body): (i32, i32, String) = (row.get(0), row.get(1), row.get(2));
            let after = &newest[&i64::from(id)]["after"];
            assert_eq!(
                (after["n"].as_i64(), after["body"].as_str()),
                (Some(i64::from(n)), Some(body.as_str())),
                "row {id}"
            );
        }
        running.stop.stop();
        assert_eq!((&mut running.task).await.unwrap(), "Stopped");
        db.drop().await;
    }
}
