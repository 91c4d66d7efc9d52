//! `snapshot.mode`: what is read at which start, and what is left behind.

use crate::rig::{Rig, Running};
use crate::support::*;
use catchwater_capture::{SnapshotMode, State};
use std::collections::BTreeMap;

/// Operations of a topic's records in the order of the source, and of each what its row says.
fn ops(rig: &Rig, topic: &str) -> Vec<(String, i64)> {
    let mut all: Vec<_> = rig.records(topic).into_iter().filter(|r| !r.value.is_null()).collect();
    all.sort_by_key(|r| r.stamp.as_ref().map(|s| s.version));
    let one = |v: &serde_json::Value| (v["op"].as_str().unwrap().to_owned(), v["after"]["v"].as_i64().unwrap_or(-1));
    all.iter().map(|r| one(&r.value)).collect()
}

async fn stop(mut running: Running) {
    running.stop.stop();
    assert_eq!((&mut running.task).await.unwrap(), "Stopped");
}

async fn slots(db: &Db) -> String {
    let of = format!("WHERE slot_name = 'catchwater_{}'", db.name);
    let publications = format!("SELECT count(*) FROM pg_publication WHERE pubname = 'catchwater_{}'", db.name);
    db.one(&format!("SELECT (SELECT count(*) FROM pg_replication_slots {of}) || '/' || ({publications})")).await
}

/// The rows, then nothing more: no slot, no publication, also behind a later start; asked for what it does not do, it says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_of_the_first_snapshot_alone_is_complete_and_leaves_nothing() {
    let Some(db) = database("initial_only").await else { return };
    db.exec("CREATE TABLE t(id int PRIMARY KEY, v int); INSERT INTO t SELECT n, n FROM generate_series(1, 100) n")
        .await;
    db.exec("CREATE TABLE log(v int); ALTER TABLE log REPLICA IDENTITY FULL; INSERT INTO log VALUES (1)").await;
    let mut rig = Rig::new(db.config(&["t", "log"])).await;
    rig.snapshot = SnapshotMode::InitialOnly;
    let mut running = rig.start();
    running.until("the end", |s| s.get().state == State::Complete).await;
    assert_eq!(slots(&db).await, "0/0");
    db.exec("UPDATE t SET v = -1; DROP TABLE log").await;
    let execute = r#"{"data-collections":["public.t"]}"#;
    let asked = running.status.signal(catchwater_capture::signal::parse("execute-snapshot", execute).unwrap());
    let answer = tokio::time::timeout(LIMIT, asked).await.unwrap().unwrap();
    assert!(answer.unwrap_err().to_string().contains("initial_only"));
    stop(running).await;
    // The source may be gone as it is: it is not opened again, only asked for what it still keeps.
    let mut running = rig.start();
    running.until("the end again", |s| s.get().state == State::Complete).await;
    assert_eq!(slots(&db).await, "0/0");
    stop(running).await;
    let rows = ops(&rig, "shop.public.t");
    assert!(rows.len() == 100 && rows.iter().all(|(op, v)| op == "r" && *v > 0), "{rows:?}");
    assert_eq!(ops(&rig, "shop.public.log"), [("r".to_owned(), 1)]);
    // To follow changes now would be to miss some.
    rig.snapshot = SnapshotMode::Initial;
    let mut running = rig.start();
    let end = tokio::time::timeout(LIMIT, &mut running.task).await.unwrap().unwrap();
    assert!(end.contains("Failed") && end.contains("514"), "{end}");
    db.drop().await;
}

/// Killed while it reads: the next start goes on, and is complete with each row as it is then.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_of_the_first_snapshot_alone_goes_on_after_a_kill() {
    let Some(db) = database("initial_only_kill").await else { return };
    const ROWS: i64 = 60_000;
    db.exec(&format!(
        "CREATE TABLE t(id int PRIMARY KEY, v int); INSERT INTO t SELECT n, n FROM generate_series(1, {ROWS}) n"
    ))
    .await;
    let mut rig = Rig::new(db.config(&["t"])).await;
    rig.snapshot = SnapshotMode::InitialOnly;
    let mut running = rig.start();
    running.until("rows", |_| !rig.records("shop.public.t").is_empty()).await;
    drop(running);
    db.exec("UPDATE t SET v = 0 WHERE id % 1000 = 0; DELETE FROM t WHERE id = 1").await;
    let mut running = rig.start();
    running.until("the end", |s| s.get().state == State::Complete).await;
    assert_eq!(slots(&db).await, "0/0");
    let mut state: BTreeMap<i64, i64> = BTreeMap::new();
    let mut records = rig.records("shop.public.t");
    records.sort_by_key(|r| r.stamp.as_ref().map(|s| s.version));
    for r in records.iter().filter(|r| !r.value.is_null()) {
        let id = r.key["id"].as_i64().unwrap();
        match r.value["after"]["v"].as_i64() {
            Some(v) => drop(state.insert(id, v)),
            None => drop(state.remove(&id)),
        }
    }
    let want: BTreeMap<i64, i64> = (2..=ROWS).map(|id| (id, if id % 1000 == 0 { 0 } else { id })).collect();
    // What came behind the snapshot's end does not belong to it.
    let early: BTreeMap<i64, i64> = (1..=ROWS).map(|id| (id, id)).collect();
    assert!(state == want || state == early, "{} rows of neither state", state.len());
    stop(running).await;
    db.drop().await;
}

/// Every start reads the rows once more, in the order of the source; one that is killed while it does so goes on.
#[tokio::test(flavor = "multi_thread")]
async fn every_start_reads_the_rows_again() {
    let Some(db) = database("always").await else { return };
    db.exec(
        "CREATE TABLE t(id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1), (2, 1);
         CREATE TABLE left_out(id int PRIMARY KEY, v int); INSERT INTO left_out VALUES (1, 1);
         CREATE TABLE keyless(v int); ALTER TABLE keyless REPLICA IDENTITY FULL; INSERT INTO keyless VALUES (1), (1)",
    )
    .await;
    let mut rig = Rig::new(db.config(&["public.*"])).await;
    rig.snapshot = SnapshotMode::Always;
    rig.properties = vec![("snapshot.include.collection.list", "public[.](t|keyless)".into())];
    let is_quiet =
        |s: &catchwater_capture::StatusHandle| s.get().ad_hoc.is_empty() && s.get().state == State::Streaming;
    let mut running = rig.start();
    running.until("the first", is_quiet).await;
    db.exec("UPDATE t SET v = 2 WHERE id = 1").await;
    running.until("the change", |_| ops(&rig, "shop.public.t").len() >= 3).await;
    stop(running).await;
    db.exec("UPDATE t SET v = 3 WHERE id = 2; DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (3, 3); INSERT INTO keyless VALUES (2)").await;
    let mut running = rig.start();
    let of = |rows: &[(String, i64)]| rows.iter().map(|(op, v)| format!("{op}{v}")).collect::<Vec<_>>().join(" ");
    running.until("the second", |_| ops(&rig, "shop.public.t").iter().filter(|(op, _)| op == "r").count() >= 4).await;
    running.until("its end", is_quiet).await;
    running
        .until("the table without a key", |_| {
            ops(&rig, "shop.public.keyless").iter().filter(|(op, _)| op == "r").count() >= 5
        })
        .await;
    assert_eq!(of(&ops(&rig, "shop.public.t")), "r1 r1 u2 u3 d-1 c3 r3 r3");
    // Emptied, and read as one.
    assert_eq!(of(&ops(&rig, "shop.public.keyless")), "r1 r1 c2 t-1 r1 r1 r2");
    assert_eq!(of(&ops(&rig, "shop.public.left_out")), "");
    // No start of the connector: the same worker, with another connection, once the end of the snapshot is in the log.
    db.exec("INSERT INTO t VALUES (4, 4)").await;
    let at = db.one("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::text").await.parse::<u64>().unwrap();
    running.until("the checkpoint", |s| s.get().confirmed.as_postgres().is_some_and(|n| n >= at)).await;
    db.exec(&format!(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'catchwater_{}'",
        db.name
    ))
    .await;
    running.until("another connection", |s| s.get().restarts > 0).await;
    db.exec("INSERT INTO t VALUES (5, 5)").await;
    running.until("the row", |_| ops(&rig, "shop.public.t").last().is_some_and(|(_, v)| *v == 5)).await;
    running.until("quiet", is_quiet).await;
    assert_eq!(of(&ops(&rig, "shop.public.t")), "r1 r1 u2 u3 d-1 c3 r3 r3 c4 c5");
    stop(running).await;
    // Read as they are now, and not at all where the mode is another.
    rig.snapshot = SnapshotMode::Initial;
    let mut running = rig.start();
    running.until("streaming", is_quiet).await;
    db.exec("INSERT INTO t VALUES (6, 6)").await;
    running.until("the row", |_| ops(&rig, "shop.public.t").last().is_some_and(|(_, v)| *v == 6)).await;
    assert_eq!(of(&ops(&rig, "shop.public.t")), "r1 r1 u2 u3 d-1 c3 r3 r3 c4 c5 c6");
    stop(running).await;
    db.drop().await;
}

/// A start that finds an unfinished snapshot of an earlier one goes on with that and begins none.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_inside_a_snapshot_goes_on_with_it() {
    let Some(db) = database("always_kill").await else { return };
    db.exec("CREATE TABLE t(id int PRIMARY KEY, v int); INSERT INTO t SELECT n, n FROM generate_series(1, 2000) n")
        .await;
    let mut rig = Rig::new(db.config(&["t"])).await;
    rig.snapshot = SnapshotMode::Always;
    rig.properties = vec![("incremental.snapshot.chunk.size", "100".into())];
    let is_quiet =
        |s: &catchwater_capture::StatusHandle| s.get().ad_hoc.is_empty() && s.get().state == State::Streaming;
    let mut running = rig.start();
    running.until("the first", is_quiet).await;
    stop(running).await;
    for chunks in [3, 4] {
        let mut running = rig.start();
        running.until("some chunks", |s| s.get().ad_hoc_chunks >= chunks).await;
        drop(running);
    }
    let mut running = rig.start();
    running.until("the end", is_quiet).await;
    running.until("all rows", |_| ops(&rig, "shop.public.t").len() >= 4000).await;
    stop(running).await;
    let rows = ops(&rig, "shop.public.t");
    assert_eq!(rows.len(), 4000, "the first and one more, each row once");
    db.drop().await;
}
