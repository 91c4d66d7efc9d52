//! Blocking ad hoc snapshots: no change of the stream stands between their rows, whatever commits meanwhile; none of them
//! is stale; and a kill in the middle splits them and loses nothing.

use crate::adhoc::{SIGNALS, ask, execute, is_quiet, state_of};
use crate::rig::{Rig, Running};
use crate::support::*;
use catchwater_base::Rng;
use catchwater_capture::signal::{self, Signal};
use catchwater_capture::{SnapshotMode, State};
use catchwater_change::Version;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::task::JoinHandle;

const TABLES: [&str; 3] = ["t", "u", "other"];
const ROWS: u64 = 400;

/// `n` grows with every change of any row, so an older row shows.
async fn begin(test: &str) -> Option<(Db, Rig)> {
    let db = database(test).await?;
    db.exec(SIGNALS).await;
    db.exec("CREATE SEQUENCE s").await;
    for table in TABLES {
        db.exec(&format!(
            "CREATE TABLE {table}(id int PRIMARY KEY, n bigint NOT NULL);
             INSERT INTO {table} SELECT g, nextval('s') FROM generate_series(1, {ROWS}) g"
        ))
        .await;
    }
    let mut rig = Rig::new(db.config(&["t", "u", "other", "signals"])).await;
    rig.snapshot = SnapshotMode::NoData;
    rig.properties =
        vec![("signal.data.collection", "public.signals".into()), ("incremental.snapshot.chunk.size", "20".into())];
    Some((db, rig))
}

/// Transactions over all tables until `stop`; how many are there so far.
fn write(db: &Db, stop: &Arc<AtomicBool>, done: &Arc<AtomicU64>) -> Vec<JoinHandle<()>> {
    let one = |seed: u64| {
        let (url, stop, done) = (db.url.clone(), stop.clone(), done.clone());
        tokio::spawn(async move {
            let client = connect(&url).await;
            let mut rng = Rng::new(seed);
            while !stop.load(Ordering::Relaxed) {
                let table = TABLES[rng.below(3) as usize];
                let id = 1 + rng.below(ROWS);
                let sql = match rng.below(6) {
                    0 => format!("DELETE FROM {table} WHERE id = {id}"),
                    1 => format!(
                        "INSERT INTO {table} VALUES ({id}, nextval('s')) ON CONFLICT (id) DO UPDATE SET n = nextval('s')"
                    ),
                    _ => format!("UPDATE {table} SET n = nextval('s') WHERE id = {id}"),
                };
                client.batch_execute(&sql).await.unwrap();
                done.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    (1..=2).map(one).collect()
}

/// Operation and `source.snapshot` of all records of the tables, in the order of the source; the partitions do not matter.
fn all(rig: &Rig) -> Vec<(Version, &'static str, String, String)> {
    let mut out = Vec::new();
    for table in TABLES {
        for record in rig.records(&format!("shop.public.{table}")).into_iter().filter(|r| !r.value.is_null()) {
            let text = |v: &serde_json::Value| v.as_str().unwrap_or("false").to_owned();
            let mark = text(&record.value["source"]["snapshot"]);
            out.push((record.stamp.unwrap().version, table, text(&record.value["op"]), mark));
        }
    }
    out.sort();
    out
}

async fn states_are_equal(db: &Db, rig: &Rig, running: &mut Running) {
    db.exec("INSERT INTO signals VALUES ('end', 'log', '{\"message\": \"the end\"}')").await;
    let is_there = |rig: &Rig| rig.records("shop.public.signals").iter().any(|r| r.key["id"] == "end");
    running.until("the end", |_| is_there(rig)).await;
    for table in TABLES {
        let rows = db.client.query(&format!("SELECT id, n FROM {table}"), &[]).await.unwrap();
        let want: BTreeMap<i64, i64> = rows.iter().map(|r| (i64::from(r.get::<_, i32>(0)), r.get(1))).collect();
        let state = state_of(rig, &format!("shop.public.{table}"));
        let got: BTreeMap<i64, i64> = state.iter().map(|(id, row)| (*id, row["n"].as_i64().unwrap())).collect();
        // What nobody touched, and nobody read, is not in the log.
        assert!(got.iter().all(|(id, n)| want.get(id) == Some(n)), "{table}");
        if table != "other" {
            assert_eq!(got, want, "{table}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_change_stands_between_the_rows_of_a_blocking_snapshot() {
    let Some((db, mut rig)) = begin("blocking").await else { return };
    let mut running = rig.start();
    running.until("streaming", |s| s.get().state == State::Streaming).await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writers = write(&db, &stop, &done);
    // One beside the stream, which waits meanwhile; a pause is for that one alone.
    ask(&running, execute(r#"{"data-collections":["public.other"],"rows-per-second":10}"#)).await.unwrap();
    running.until("some rows", |s| s.get().ad_hoc.first().is_some_and(|a| a.rows >= 20)).await;
    let slow = r#"{"type":"BLOCKING","data-collections":["public.u","public.t"],"rows-per-second":1000}"#;
    assert_eq!(ask(&running, execute(slow)).await.unwrap(), "asked for: public.u, public.t");
    running.until("it reads", |s| s.get().ad_hoc.iter().any(|a| a.table == "public.u" && a.rows > 0)).await;
    let written = done.load(Ordering::Relaxed);
    assert_eq!(ask(&running, Signal::Pause).await.unwrap(), "paused: public.other");
    running.until("both tables", |s| s.get().ad_hoc.iter().all(|a| a.table == "public.other")).await;
    assert!(done.load(Ordering::Relaxed) > written, "the source went on meanwhile");
    ask(&running, signal::parse("stop-snapshot", "").unwrap()).await.unwrap();
    running.until("the stop", is_quiet).await;
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    states_are_equal(&db, &rig, &mut running).await;
    let all = all(&rig);
    let is_read = |(_, table, op, _): &(Version, &str, String, String)| op == "r" && *table != "other";
    let first = all.iter().position(is_read).unwrap();
    let last = all.iter().rposition(is_read).unwrap();
    let between = &all[first..=last];
    assert!(between.iter().all(is_read), "a change, or a row of another snapshot, between the rows");
    assert!(between.len() as u64 > ROWS, "{} rows", between.len());
    assert!(all[..first].len() > 10 && all[last + 1..].len() > 10, "changes before and behind");
    let tables: Vec<&str> = between.iter().map(|(_, table, ..)| *table).collect();
    let turn = tables.iter().position(|t| *t == "t").unwrap();
    assert!(tables[..turn].iter().all(|t| *t == "u") && tables[turn..].iter().all(|t| *t == "t"), "one by one");
    let marks: Vec<&str> = between.iter().map(|(.., mark)| mark.as_str()).collect();
    assert_eq!((marks[0], marks[marks.len() - 1]), ("first", "last"));
    assert_eq!((marks[turn - 1], marks[turn]), ("last_in_data_collection", "first_in_data_collection"));
    assert_eq!(marks.iter().filter(|m| **m == "true").count(), marks.len() - 4);
    drop(running);
    db.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocking_snapshot_that_is_killed_goes_on_and_loses_nothing() {
    let Some((db, mut rig)) = begin("blocking_kill").await else { return };
    let mut running = rig.start();
    running.until("streaming", |s| s.get().state == State::Streaming).await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writers = write(&db, &stop, &done);
    let sql = r#"INSERT INTO signals VALUES ('1', 'execute-snapshot', '{"type": "blocking", "data-collections": ["public.t", "public.u"]}')"#;
    db.exec(sql).await;
    running.until("the signal is followed", |s| !s.get().ad_hoc.is_empty() || s.get().ad_hoc_chunks > 0).await;
    let (mut rng, mut kills) = (Rng::new(5), 0);
    while !is_quiet(&running.status) {
        let life = 1 + rng.below(5);
        running.until("some chunks", |s| s.get().ad_hoc_chunks >= life || is_quiet(s)).await;
        if is_quiet(&running.status) {
            break;
        }
        kills += 1;
        drop(std::mem::replace(&mut running, rig.start()));
        running.until("streaming", |s| s.get().state == State::Streaming).await;
    }
    assert!(kills >= 3, "{kills} kills");
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    states_are_equal(&db, &rig, &mut running).await;
    drop(running);
    db.drop().await;
}
