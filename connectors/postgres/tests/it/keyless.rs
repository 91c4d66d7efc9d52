//! A table without a key whose first snapshot was interrupted: what the log held of it before the stream's start, too, is in
//! the view that it begins again with.

use crate::adhoc::Standby;
use crate::rig::Rig;
use crate::support::*;
use catchwater_capture::{State, StatusHandle};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Rows of the topic by their value, since the last truncate.
fn rows_of(rig: &Rig, topic: &str) -> BTreeMap<i64, i64> {
    let mut rows = BTreeMap::new();
    for record in rig.records(topic) {
        let (before, after) = (&record.value["before"]["a"], &record.value["after"]["a"]);
        match record.value["op"].as_str() {
            Some("t") => rows.clear(),
            Some("d") => *rows.entry(before.as_i64().unwrap()).or_default() -= 1,
            _ => *rows.entry(after.as_i64().unwrap()).or_default() += 1,
        }
    }
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
         INSERT INTO first SELECT generate_series(1, 200000); INSERT INTO nokey SELECT generate_series(1, 9)",
    )
    .await;
    let mut rig = Rig::new(db.config(&["first", "nokey"])).await;
    let mut running = rig.start();
    running.until("the first snapshot runs", |s| s.get().snapshot_rows > 0).await;
    drop(running);

    standby.attach().await;
    let lock = connect(&db.url).await;
    lock.batch_execute("BEGIN; LOCK TABLE first IN ACCESS EXCLUSIVE MODE").await.unwrap();
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
    idle.batch_execute("ROLLBACK; BEGIN; INSERT INTO other VALUES (1)").await.unwrap();
    lock.batch_execute("ROLLBACK").await.unwrap();
    let mut running = rig.start();
    let is_done = |s: &StatusHandle, table: &str| s.get().snapshot_tables.get(table).is_some_and(|t| t.units_done > 0);
    running.until("the other table", |s| is_done(s, "public.first")).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(700) && !is_done(&running.status, "public.nokey") {
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
    drop((idle, lock));
}
