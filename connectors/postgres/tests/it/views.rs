//! What a view of the server does not show, and a snapshot has all the same: commits that are in the stream and not visible yet,
//! and what was in a table before a TRUNCATE or an ALTER TABLE that rewrote it.

use crate::adhoc::Standby;
use crate::rig::{Rig, Running};
use crate::support::*;
use catchwater_capture::{State, StatusHandle};
use catchwater_change::stamp::flag;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Rows of the topic by their value, since the last truncate. No change is of a row that is not there.
fn rows_of(rig: &Rig, topic: &str) -> BTreeMap<i64, i64> {
    let mut rows = BTreeMap::new();
    for record in rig.records(topic) {
        if record.stamp.unwrap().flags & flag::ROW_COMES != 0 && record.value["op"] != "t" {
            continue;
        }
        if record.value["op"] == "t" {
            rows.clear();
        }
        if let Some(before) = record.value["before"]["a"].as_i64() {
            let n = rows.entry(before).or_insert(0i64);
            *n -= 1;
            assert!(*n >= 0, "{}", record.value);
        }
        if let Some(after) = record.value["after"]["a"].as_i64() {
            *rows.entry(after).or_insert(0i64) += 1;
        }
    }
    rows.retain(|_, n| *n > 0);
    rows
}

/// A commit is in the WAL, in the log and below the checkpoint while views do not show it. Who takes a view then has a table
/// without that row, and has truncated what the log knew of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_views_do_not_show_yet_is_not_lost_when_a_table_without_a_key_begins_again() {
    let Some(mut standby) = Standby::start().await else { return };
    let db = database_on(&standby.url, "keyless").await;
    db.exec(
        "CREATE TABLE first(id int PRIMARY KEY); CREATE TABLE nokey(a int); CREATE TABLE other(a int);
         ALTER TABLE nokey REPLICA IDENTITY FULL;
         INSERT INTO first VALUES (1); INSERT INTO nokey SELECT generate_series(1, 9)",
    )
    .await;
    let mut rig = held(&db, &["first", "nokey"]).await;
    db.exec("SELECT pg_advisory_lock(7)").await;
    let running = rig.start();
    until(&db, &format!("{WAITS} 'advisory'")).await;
    drop(running);

    standby.attach().await;
    let mut running = rig.start();
    standby.signal("-STOP");
    let (url, sql) = (db.url.clone(), "INSERT INTO nokey VALUES (777)");
    let insert = tokio::spawn(async move { connect(&url).await.batch_execute(sql).await.unwrap() });
    let of_insert = |rig: &Rig| {
        let records = rig.records("shop.public.nokey");
        records.into_iter().find(|r| r.value["after"]["a"] == 777).map(|r| r.stamp.unwrap().native)
    };
    running.until("the insert is in the log", |_| of_insert(&rig).is_some()).await;
    let place = of_insert(&rig).unwrap();
    running.until("the server is told", |s| s.get().confirmed >= place).await;
    assert_eq!(db.one("SELECT count(*)::text FROM nokey").await, "9", "it waits for the standby");
    drop(running);

    // Somebody's transaction that is open and idle is in nobody's way.
    let idle = connect(&db.url).await;
    idle.batch_execute("BEGIN; INSERT INTO other VALUES (1)").await.unwrap();
    db.exec("SELECT pg_advisory_unlock(7)").await;
    let mut running = rig.start();
    let is_done = |s: &StatusHandle, table: &str| s.get().snapshot_tables.get(table).is_some_and(|t| t.units_done > 0);
    running.until("the other table", |s| is_done(s, "public.first")).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) && !is_done(&running.status, "public.nokey") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    standby.signal("-CONT");
    insert.await.unwrap();
    running.until("the snapshot", |s| s.get().state == State::Streaming).await;
    let want = (1..=9).chain([777]).map(|a| (a, 1)).collect();
    assert_eq!(rows_of(&rig, "shop.public.nokey"), want);
    let begins = rig.records("shop.public.nokey").iter().filter(|r| r.value["op"] == "t").count();
    assert_eq!(begins, 1, "it began again");
    running.stop.stop();
    assert_eq!((&mut running.task).await.unwrap(), "Stopped");
    drop(idle);
}

/// A source whose first snapshot waits for the advisory lock 7 before it reads any table, with its view taken.
async fn held(db: &Db, tables: &[&str]) -> Rig {
    let mut rig = Rig::new(db.config(tables)).await;
    rig.properties = vec![
        ("snapshot.select.statement.overrides", "public.first".into()),
        (
            "snapshot.select.statement.overrides.public.first",
            "SELECT f.* FROM first f, (SELECT pg_advisory_lock_shared(7)) AS x".into(),
        ),
    ];
    rig
}

async fn until(db: &Db, sql: &str) {
    let start = Instant::now();
    while db.one(sql).await != "true" {
        assert!(start.elapsed() < LIMIT, "{sql}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn end(mut running: Running, db: Db) {
    running.stop.stop();
    assert_eq!((&mut running.task).await.unwrap(), "Stopped");
    db.drop().await;
}

const WAITS: &str = "SELECT (count(*) > 0)::text FROM pg_locks l JOIN pg_database d ON d.oid = l.database \
     WHERE d.datname = current_database() AND NOT l.granted AND l.locktype = ";

/// To views that are older, a table is empty once it was truncated or rewritten. The stream has what happened to its rows before.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_rewritten_under_the_first_snapshot_is_read_in_a_newer_view() {
    let Some(db) = database("rewritten").await else { return };
    db.exec(
        "CREATE TABLE first(id int PRIMARY KEY); CREATE TABLE nokey(a int); CREATE TABLE wide(a int PRIMARY KEY, n int);
         CREATE TABLE part(a int PRIMARY KEY) PARTITION BY RANGE (a); CREATE TABLE part_1 PARTITION OF part DEFAULT;
         ALTER TABLE nokey REPLICA IDENTITY FULL; INSERT INTO first VALUES (1);
         INSERT INTO nokey SELECT generate_series(1, 9); INSERT INTO wide SELECT generate_series(1, 9);
         INSERT INTO part SELECT generate_series(1, 9)",
    )
    .await;
    let mut rig = held(&db, &["first", "nokey", "wide", "part"]).await;
    db.exec("SELECT pg_advisory_lock(7)").await;
    let mut running = rig.start();
    until(&db, &format!("{WAITS} 'advisory'")).await;
    db.exec("UPDATE nokey SET a = a + 100; DELETE FROM nokey WHERE a > 105").await;
    db.exec("BEGIN; TRUNCATE nokey; INSERT INTO nokey VALUES (5), (5); COMMIT").await;
    db.exec("UPDATE wide SET n = a; ALTER TABLE wide ALTER a TYPE bigint").await;
    db.exec("UPDATE part SET a = a + 10").await;
    db.exec("VACUUM FULL part_1").await;
    db.exec("SELECT pg_advisory_unlock(7)").await;
    running.until("the snapshot", |s| s.get().state == State::Streaming).await;
    db.exec("INSERT INTO nokey VALUES (7); UPDATE nokey SET a = 6 WHERE ctid = (SELECT min(ctid) FROM nokey)").await;
    running.until("the last change", |_| rows_of(&rig, "shop.public.nokey").contains_key(&6)).await;
    assert_eq!(rows_of(&rig, "shop.public.nokey"), [(5, 1), (6, 1), (7, 1)].into());
    let keys = |topic: &str| -> BTreeMap<i64, Json> {
        let mut rows = BTreeMap::new();
        for record in rig.records(topic) {
            let (key, after) = (record.key["a"].as_i64().unwrap(), &record.value["after"]);
            rows.insert(key, after.clone());
        }
        rows.retain(|_, after| !after.is_null());
        rows
    };
    assert_eq!(keys("shop.public.wide"), (1..=9).map(|a| (a, json!({"a": a, "n": a}))).collect());
    let moved: Vec<i64> = keys("shop.public.part").into_keys().collect();
    assert_eq!(moved, (11..=19).collect::<Vec<i64>>(), "a delete takes what a row before it brought");
    end(running, db).await;
}

/// Tables lose a column, its name or themselves under the first snapshot, and again under what is left of it by key ranges: nobody
/// has to come for that.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_altered_under_the_first_snapshot_are_read_as_they_are_then() {
    let Some(db) = database("altered").await else { return };
    db.exec(
        "CREATE TABLE first(id int PRIMARY KEY); INSERT INTO first VALUES (1); CREATE TABLE gone(a int PRIMARY KEY);
         CREATE TABLE late(a int PRIMARY KEY, x int, y int); CREATE TABLE less(a int PRIMARY KEY, b int, c int);
         CREATE TABLE named(a int PRIMARY KEY, b int); INSERT INTO gone SELECT generate_series(1, 9);
         INSERT INTO less SELECT g, g, g FROM generate_series(1, 9) g; INSERT INTO named SELECT g, g FROM generate_series(1, 9) g;
         INSERT INTO late SELECT g, g, g FROM generate_series(1, 9) g",
    )
    .await;
    let mut rig = held(&db, &["public.*"]).await;
    db.exec("SELECT pg_advisory_lock(7)").await;
    let mut running = rig.start();
    until(&db, &format!("{WAITS} 'advisory'")).await;
    db.exec("ALTER TABLE less DROP c; UPDATE less SET b = 10 WHERE a = 1; ALTER TABLE named RENAME b TO r; INSERT INTO named VALUES (10, 10)")
        .await;
    db.exec("DROP TABLE gone").await;
    let alters = connect(&db.url).await;
    alters.batch_execute("BEGIN; ALTER TABLE late DROP x").await.unwrap();
    db.exec("SELECT pg_advisory_unlock(7)").await;
    until(&db, &format!("{WAITS} 'relation'")).await;
    alters.batch_execute("COMMIT").await.unwrap();
    running.until("the snapshot", |s| s.get().state == State::Streaming).await;
    let newest = |topic: &str| -> BTreeMap<i64, Json> {
        let of = rig.records(topic).into_iter().map(|r| (r.key["a"].as_i64().unwrap(), r.value["after"].clone()));
        of.collect()
    };
    let all = |of: fn(i64) -> Json| (1..=9).map(|a| (a, of(a))).collect::<BTreeMap<_, _>>();
    let mut less = all(|a| json!({"a": a, "b": a}));
    less.insert(1, json!({"a": 1, "b": 10}));
    running.until("the rows", |_| newest("shop.public.less") == less).await;
    let mut named = all(|a| json!({"a": a, "r": a}));
    named.insert(10, json!({"a": 10, "r": 10}));
    running.until("the rows of another name", |_| newest("shop.public.named") == named).await;
    running.until("the rows of a chunk", |_| newest("shop.public.late") == all(|a| json!({"a": a, "y": a}))).await;
    end(running, db).await;
}

/// The same between the view of a chunk and its read.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_rewritten_under_a_chunk_is_read_in_a_newer_view() {
    let Some(db) = database("rewritten_chunk").await else { return };
    db.exec(
        "CREATE TABLE first(id int PRIMARY KEY); CREATE TABLE nokey(a int); ALTER TABLE nokey REPLICA IDENTITY FULL;
         INSERT INTO first VALUES (1); INSERT INTO nokey SELECT generate_series(1, 9)",
    )
    .await;
    let mut rig = held(&db, &["first", "nokey"]).await;
    db.exec("SELECT pg_advisory_lock(7)").await;
    let running = rig.start();
    until(&db, &format!("{WAITS} 'advisory'")).await;
    drop(running);
    let alters = connect(&db.url).await;
    alters.batch_execute("BEGIN; ALTER TABLE nokey ALTER a TYPE bigint").await.unwrap();
    db.exec("SELECT pg_advisory_unlock(7)").await;
    let mut running = rig.start();
    until(&db, &format!("{WAITS} 'relation'")).await;
    alters.batch_execute("COMMIT").await.unwrap();
    running.until("the snapshot", |s| s.get().state == State::Streaming).await;
    running.until("its rows", |_| rows_of(&rig, "shop.public.nokey").len() == 9).await;
    end(running, db).await;
}

/// A reader locks what it reads, and that until the unit is read: nobody's DDL waits for the whole snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_read_is_not_locked_for_the_rest_of_the_first_snapshot() {
    let Some(db) = database("unlocked").await else { return };
    db.exec(
        "CREATE TABLE early(a int PRIMARY KEY); CREATE TABLE first(id int PRIMARY KEY);
         INSERT INTO first VALUES (1); INSERT INTO early SELECT generate_series(1, 9)",
    )
    .await;
    let mut rig = Rig::new(db.config(&["early", "first"])).await;
    // It waits where rows are read, not where they are planned.
    let statement = "SELECT f.* FROM first f, (SELECT CASE WHEN current_setting('transaction_read_only') = 'on' \
         THEN pg_advisory_lock_shared(7) END) AS x";
    rig.properties = vec![
        ("snapshot.select.statement.overrides", "public.first".into()),
        ("snapshot.select.statement.overrides.public.first", statement.into()),
        ("snapshot.max.threads", "1".into()),
    ];
    db.exec("SELECT pg_advisory_lock(7)").await;
    let mut running = rig.start();
    until(&db, &format!("{WAITS} 'advisory'")).await;
    running.until("the table before it", |_| rig.records("shop.public.early").len() == 9).await;
    db.exec("SET lock_timeout = '5s'; ALTER TABLE early ADD COLUMN n int").await;
    db.exec("INSERT INTO early VALUES (10, 10)").await;
    db.exec("SELECT pg_advisory_unlock(7)").await;
    running.until("all rows", |_| rig.records("shop.public.early").len() == 10).await;
    assert_eq!(rig.records("shop.public.early").iter().filter(|r| r.value["op"] == "r").count(), 9);
    end(running, db).await;
}
