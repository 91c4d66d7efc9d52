//! A source in whose tables nothing happens: heartbeats, and a server that need not keep WAL for it.

use crate::rig::Rig;
use crate::support::*;
use catchwater_capture::State;
use std::time::Instant;

/// Capture.md, C3: a quiet publication beside a busy database.
const RETAINED_MAX: i64 = 64 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_publication_beside_a_busy_database_keeps_little_wal() {
    for server in servers() {
        let db = database_on(&server, "kept_wal").await;
        db.exec("CREATE TABLE quiet(id int PRIMARY KEY); INSERT INTO quiet VALUES (1)").await;
        db.exec("CREATE TABLE busy(n int, pad text); ALTER TABLE busy ALTER pad SET STORAGE EXTERNAL").await;
        let mut rig = Rig::new(db.config(&["quiet"])).await;
        let mut running = rig.start();
        running.until("streaming", |s| s.get().state == State::Streaming).await;
        let retained = "SELECT (pg_current_wal_lsn() - restart_lsn)::int8::text FROM pg_replication_slots";
        let retained = format!("{retained} WHERE slot_name = 'catchwater_{}'", db.name);
        let begin = db.one("SELECT pg_current_wal_lsn()::text").await;
        for _ in 0..4 {
            db.exec("INSERT INTO busy SELECT n, repeat(md5(n::text), 2000) FROM generate_series(1, 500) n").await;
            // What a busy server logs every 15 seconds: which transactions run.
            db.exec("CHECKPOINT").await;
        }
        let written: i64 =
            db.one(&format!("SELECT (pg_current_wal_lsn() - '{begin}')::int8::text")).await.parse().unwrap();
        assert!(written > RETAINED_MAX * 3 / 2, "{written} bytes");
        let start = Instant::now();
        let mut kept = i64::MAX;
        // The slot moves when the server has logged once more what runs, and we have confirmed beyond it.
        while kept > RETAINED_MAX / 4 {
            assert!(start.elapsed() < LIMIT, "{kept} bytes of {written} are kept");
            db.exec("CHECKPOINT").await;
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            kept = db.one(&retained).await.parse().unwrap();
        }
        assert_eq!(rig.records("shop.public.quiet").len(), 1);
        running.stop.stop();
        assert_eq!((&mut running.task).await.unwrap(), "Stopped");
        db.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_come_and_their_query_runs() {
    let Some(db) = database("beats").await else { return };
    db.exec("CREATE TABLE beat(id int PRIMARY KEY, n int); INSERT INTO beat VALUES (1, 0)").await;
    let mut rig = Rig::new(db.config(&["beat"])).await;
    rig.properties = vec![
        ("heartbeat.interval.ms", "100".into()),
        ("heartbeat.action.query", "UPDATE beat SET n = n + 1".into()),
        ("topic.heartbeat.prefix", "beats".into()),
    ];
    for round in 1..=2 {
        let mut running = rig.start();
        let read = |topic: &str| rig.records(topic);
        let enough = |_: &_| read("beats.shop").len() >= 3 * round && read("shop.public.beat").len() > 3 * round;
        running.until("heartbeats", enough).await;
    }
    for record in rig.records("beats.shop") {
        assert_eq!(record.key, serde_json::json!({"serverName": "shop"}));
        assert!(record.value["ts_ms"].as_i64().unwrap() > 1_600_000_000_000, "{record:?}");
        assert_eq!(record.value.as_object().unwrap().len(), 1);
        assert!(record.stamp.is_none());
    }
    let rows = rig.records("shop.public.beat");
    let values: Vec<i64> = rows.iter().map(|r| r.value["after"]["n"].as_i64().unwrap()).collect();
    assert!(values.is_sorted() && values[0] == 0, "{values:?}");
    db.drop().await;
}

/// A server process that stands still goes on when it is dropped.
struct Stopped(String);

impl Stopped {
    fn signal(&self, what: &str) {
        let done = std::process::Command::new("kill").args([what, &self.0]).status();
        assert!(done.is_ok_and(|s| s.success()), "kill {what} {}", self.0);
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.signal("-CONT");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_sends_nothing_for_now_is_asked_how_far_it_is() {
    let Some(db) = database("silent").await else { return };
    db.exec("CREATE TABLE t(id int PRIMARY KEY, pad text)").await;
    let mut rig = Rig::new(db.config(&["t"])).await;
    let mut running = rig.start();
    running.until("streaming", |s| s.get().state == State::Streaming).await;
    let pid = format!("SELECT active_pid::text FROM pg_replication_slots WHERE slot_name = 'catchwater_{}'", db.name);
    // As while it decodes what it kept.
    let silent = Stopped(db.one(&pid).await);
    silent.signal("-STOP");
    db.exec("INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series(1, 2000) n").await;
    running.until("behind", |s| s.get().behind_since.is_some() && s.get().lag_bytes > Some(1_000_000)).await;
    assert_eq!(running.status.get().rows, 0);
    drop(silent);
    running.until("all there", |s| s.get().rows == 2000 && s.get().behind_since.is_none()).await;
    running.stop.stop();
    assert_eq!((&mut running.task).await.unwrap(), "Stopped");
    db.drop().await;
}
