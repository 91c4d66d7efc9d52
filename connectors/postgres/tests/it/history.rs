//! Faults of the field, each by its name (capture.md 15): what other connectors lost, doubled or passed over in silence.
//!
//! | fault | test |
//! |---|---|
//! | slot ahead of P | `source::confirming_moves_the_slot_and_a_slot_ahead_of_us_is_a_gap` |
//! | slot re-created behind our back | [`a_slot_made_again_behind_our_back_is_a_gap`] |
//! | two rows on one LSN at the restart point (dbz#1554) | [`rows_that_share_one_lsn_come_once_over_kills`] |
//! | key change last in its transaction (DBZ-8594); delete, tombstone, create split by a crash (dbz#2549) | [`key_changes_are_whole_over_kills`] |
//! | event right after a transactional message (dbz#2058) | `messages::messages_come_once_and_at_their_place` |
//! | snapshot connections not on one snapshot (dbz#2330) | `source::snapshot_and_stream_meet_without_gap_and_without_overlap` |
//! | incremental snapshot resumed after a closed connection (dbz#2275, #2055, #1533) | [`a_snapshot_whose_connection_is_cut_goes_on`] |
//! | stale chunk row under a lagging synchronous standby | `adhoc::chunks_beside_a_lagging_synchronous_standby_bring_no_stale_row` |
//! | quiet publication keeps WAL (dbz#1605, flusso#111) | `quiet::a_quiet_publication_beside_a_busy_database_keeps_little_wal` |
//! | flush position going back (dbz#1489) | `source::ack::tests::a_confirmed_position_never_goes_back` |
//! | DDL between crash and restart (dbz#1541) | [`ddl_between_crash_and_restart_bends_no_row`] |
//! | REPLACE in SQLite | connector-sqlite, `source::tests` |
//! | new partition and zombie (R2) | client, `conformance`: a topic belongs to its capture and older epochs are fenced |
//! | filter changed while a transaction is half appended (R8) | [`properties_that_shape_records_change_at_a_clean_stop_only`] |
//! | replay meets another history (R5) | capture, `resume::tests::another_history_is_refused` |
//! | credentials never in a log (dbz#1869) | `config::tests::what_is_refused_and_that_no_error_shows_the_password` |
//!
//! GTID loops, compressed rows and cascades are MariaDB's, the order across polls is of triggers: not built yet.

use crate::rig::Rig;
use crate::support::*;
use catchwater_capture::{SnapshotMode, State, signal};
use catchwater_change::stamp::flag;
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};

/// Unit → ordinal → operation, key, flags, total.
type Units = BTreeMap<u64, BTreeMap<u64, (u8, Json, u16, u32)>>;

/// Every record of every unit of a topic: unit → ordinal → what it is. Fails on a record that is there twice.
fn units(rig: &Rig, topic: &str) -> Units {
    let mut out = Units::new();
    for record in rig.records(topic) {
        let s = record.stamp.unwrap();
        let what = (s.op, record.key["id"].clone(), s.flags, s.total);
        let before = out.entry(s.version.commit_seq.0).or_default().insert(s.version.ordinal, what);
        assert!(before.is_none(), "{:?} is there twice", s.version);
    }
    out
}

/// COPY writes many rows with one WAL record, so they share an LSN: a resume point made of an LSN loses or doubles them.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_share_one_lsn_come_once_over_kills() {
    for server in servers() {
        let db = database_on(&server, "one_lsn").await;
        db.exec("CREATE TABLE t(id int PRIMARY KEY)").await;
        let mut rig = Rig::new(db.config(&["t"])).await;
        rig.snapshot = SnapshotMode::NoData;
        let mut running = rig.start();
        running.until("streaming", |s| s.get().state == State::Streaming).await;
        let mut want = 0;
        for round in 0..6i64 {
            let (first, last) = (round * 400, round * 400 + 399);
            db.exec(&format!("COPY t FROM PROGRAM 'seq {first} {last}'")).await;
            want += 400;
            // Killed with some, all or none of them in the log.
            let some = want - 400 + [1, 70, 200, 399, 400, 0][round as usize];
            running.until("some", |_| rig.records("shop.public.t").len() >= some).await;
            drop(std::mem::replace(&mut running, rig.start()));
        }
        running.until("all", |_| rig.records("shop.public.t").len() >= want).await;
        let records = rig.records("shop.public.t");
        let lsns: BTreeSet<u64> = records.iter().map(|r| r.value["source"]["lsn"].as_u64().unwrap()).collect();
        assert!(lsns.len() * 10 < records.len(), "{} places of {} rows: they share them", lsns.len(), records.len());
        let ids: BTreeSet<i64> = records.iter().map(|r| r.key["id"].as_i64().unwrap()).collect();
        assert_eq!((records.len(), ids.len()), (want, want), "{server}");
        for (seq, unit) in units(&rig, "shop.public.t") {
            assert_eq!(unit.len(), 400, "unit {seq}");
            assert_eq!(unit.keys().copied().collect::<Vec<_>>(), (0..400).collect::<Vec<_>>());
        }
        drop(running);
        db.drop().await;
    }
}

/// A key change is three records with three ordinals in up to two partitions, also as the last of its transaction: after
/// any kill each is there once, and the end mark stands on the last.
#[tokio::test(flavor = "multi_thread")]
async fn key_changes_are_whole_over_kills() {
    let Some(db) = database("key_changes").await else { return };
    db.exec("CREATE TABLE t(id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 20)").await;
    let mut rig = Rig::new(db.config(&["t"])).await;
    rig.snapshot = SnapshotMode::NoData;
    rig.checkpoint_every_ms = 3_600_000; // every restart replays all of it
    let mut running = rig.start();
    running.until("streaming", |s| s.get().state == State::Streaming).await;
    for round in 0..8u32 {
        for i in 1..=20 {
            let (from, to) = (round * 100 + i, (round + 1) * 100 + i);
            // Alone, behind another row, and followed by one.
            match i % 3 {
                0 => db.exec(&format!("UPDATE t SET id = {to} WHERE id = {from}")).await,
                1 => {
                    db.exec(&format!(
                        "BEGIN; INSERT INTO t VALUES (-{to}); UPDATE t SET id = {to} WHERE id = {from}; COMMIT"
                    ))
                    .await
                }
                _ => {
                    db.exec(&format!(
                        "BEGIN; UPDATE t SET id = {to} WHERE id = {from}; INSERT INTO t VALUES (-{to}); COMMIT"
                    ))
                    .await
                }
            }
        }
        let some = (round as usize * 20 + [1, 3, 8, 20, 0, 15, 6, 11][round as usize]).max(1);
        running.until("some", |_| units(&rig, "shop.public.t").len() >= some).await;
        drop(std::mem::replace(&mut running, rig.start()));
    }
    let whole = |rig: &Rig| {
        let units = units(rig, "shop.public.t");
        units.len() == 160
            && units.values().all(|u| {
                u.len() as u64 == u.keys().last().unwrap() + 1
                    && u.values().any(|(.., flags, _)| flags & flag::LAST != 0)
            })
    };
    running.until("all", |_| whole(&rig)).await;
    let mut kinds = BTreeMap::<String, u32>::new();
    for unit in units(&rig, "shop.public.t").values() {
        let letters: String = unit.values().map(|(op, ..)| char::from(*op)).collect();
        *kinds.entry(letters).or_default() += 1;
        let last = unit.values().next_back().unwrap();
        assert_eq!((last.2 & flag::LAST != 0, last.3 as usize), (true, unit.len()));
        assert!(unit.values().rev().skip(1).all(|(.., flags, _)| flags & flag::LAST == 0));
        // Delete and tombstone carry the old key, the creation the new one.
        let at = unit.values().position(|(op, ..)| *op == b'd').unwrap() as u64;
        assert_eq!(unit[&at].1, unit[&(at + 1)].1);
        assert_eq!(unit[&(at + 2)].1.as_i64(), unit[&at].1.as_i64().map(|id| id + 100));
    }
    assert_eq!(kinds, BTreeMap::from([("dbc".into(), 48), ("cdbc".into(), 56), ("dbcc".into(), 56)]));
    drop(running);
    db.drop().await;
}

/// What is read again after a crash has the shape it had then, whatever was done to the table meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn ddl_between_crash_and_restart_bends_no_row() {
    for server in servers() {
        let db = database_on(&server, "ddl_between").await;
        db.exec("CREATE TABLE t(id int PRIMARY KEY, a text, b int)").await;
        let mut rig = Rig::new(db.config(&["t"])).await;
        rig.snapshot = SnapshotMode::NoData;
        rig.checkpoint_every_ms = 3_600_000;
        let mut running = rig.start();
        running.until("streaming", |s| s.get().state == State::Streaming).await;
        db.exec("INSERT INTO t VALUES (1, 'one', 1)").await;
        running.until("the first", |_| rig.records("shop.public.t").len() == 1).await;
        drop(running);
        db.exec("INSERT INTO t VALUES (2, 'two', 2)").await;
        db.exec("ALTER TABLE t DROP COLUMN a; ALTER TABLE t ADD COLUMN c text DEFAULT 'x'").await;
        db.exec("INSERT INTO t VALUES (3, 3, 'three')").await;
        db.exec("ALTER TABLE t RENAME COLUMN b TO renamed; ALTER TABLE t ALTER COLUMN renamed TYPE text").await;
        db.exec("INSERT INTO t VALUES (4, 'four', 'c')").await;
        let mut running = rig.start();
        running.until("all", |_| rig.records("shop.public.t").len() >= 4).await;
        let mut after: Vec<Json> = rig.records("shop.public.t").into_iter().map(|r| r.value["after"].clone()).collect();
        after.sort_by_key(|a| a["id"].as_i64());
        let want = [
            serde_json::json!({"id": 1, "a": "one", "b": 1}),
            serde_json::json!({"id": 2, "a": "two", "b": 2}),
            serde_json::json!({"id": 3, "b": 3, "c": "three"}),
            serde_json::json!({"id": 4, "renamed": "four", "c": "c"}),
        ];
        assert_eq!(after, want, "{server}");
        drop(running);
        db.drop().await;
    }
}

/// Changes made between the drop and the new slot are in no stream: the capture says so and does not go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_made_again_behind_our_back_is_a_gap() {
    for server in servers() {
        let db = database_on(&server, "slot_again").await;
        db.exec("CREATE TABLE t(id int PRIMARY KEY)").await;
        let mut rig = Rig::new(db.config(&["t"])).await;
        rig.snapshot = SnapshotMode::NoData;
        let mut running = rig.start();
        running.until("streaming", |s| s.get().state == State::Streaming).await;
        db.exec("INSERT INTO t VALUES (1)").await;
        running.until("the row", |_| rig.records("shop.public.t").len() == 1).await;
        running.stop.stop();
        assert_eq!((&mut running.task).await.unwrap(), "Stopped");
        let slot = format!("catchwater_{}", db.name);
        // The walsender ends a little after the worker.
        let start = std::time::Instant::now();
        while db.client.batch_execute(&format!("SELECT pg_drop_replication_slot('{slot}')")).await.is_err() {
            assert!(start.elapsed() < LIMIT, "the slot is let go");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        db.exec("INSERT INTO t VALUES (2)").await;
        db.exec(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")).await;
        db.exec("INSERT INTO t VALUES (3)").await;
        let mut running = rig.start();
        let end = tokio::time::timeout(LIMIT, &mut running.task).await.expect("it ends").unwrap();
        assert!(end.starts_with("Failed") && end.contains("515"), "{server}: {end}");
        assert_eq!(rig.records("shop.public.t").len(), 1, "nothing behind the gap");
        drop(running);
        db.drop().await;
    }
}

/// The reader's connection is ended by the server again and again: the table is read to its end, each row once.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_whose_connection_is_cut_goes_on() {
    for server in servers() {
        let db = database_on(&server, "cut").await;
        db.exec("CREATE TABLE t(id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 300)").await;
        let mut rig = Rig::new(db.config(&["t"])).await;
        rig.snapshot = SnapshotMode::NoData;
        rig.properties = vec![("incremental.snapshot.chunk.size", "10".into())];
        let mut running = rig.start();
        running.until("streaming", |s| s.get().state == State::Streaming).await;
        let asked = r#"{"data-collections":["public.t"],"rows-per-second":100}"#;
        let asked = running.status.signal(signal::parse("execute-snapshot", asked).unwrap()).await;
        asked.expect("the worker lives").unwrap();
        let cut =
            "SELECT count(pg_terminate_backend(pid))::text FROM pg_stat_activity WHERE datname = current_database()
                   AND backend_type = 'client backend' AND pid <> pg_backend_pid()";
        let mut cuts = 0;
        for round in 1..=5u64 {
            running.until("some more", |s| s.get().ad_hoc.first().is_none_or(|a| a.rows >= round * 40)).await;
            cuts += db.one(cut).await.parse::<u32>().unwrap();
        }
        assert!(cuts >= 1, "{cuts} connections were cut");
        running.until("the end", |s| s.get().ad_hoc.is_empty() && s.get().state == State::Streaming).await;
        let ids: Vec<i64> = rig.records("shop.public.t").iter().map(|r| r.key["id"].as_i64().unwrap()).collect();
        let distinct: BTreeSet<i64> = ids.iter().copied().collect();
        assert_eq!((ids.len(), distinct.len()), (300, 300), "{server}");
        drop(running);
        db.drop().await;
    }
}

/// R8: while the log holds rows above the checkpoint, what decides which records exist stays as it was; after a clean stop
/// it may change.
#[tokio::test(flavor = "multi_thread")]
async fn properties_that_shape_records_change_at_a_clean_stop_only() {
    let Some(db) = database("switch").await else { return };
    db.exec("CREATE TABLE t(id int PRIMARY KEY)").await;
    let mut rig = Rig::new(db.config(&["t"])).await;
    rig.snapshot = SnapshotMode::NoData;
    rig.checkpoint_every_ms = 3_600_000;
    let mut running = rig.start();
    running.until("streaming", |s| s.get().state == State::Streaming).await;
    db.exec("INSERT INTO t VALUES (1); DELETE FROM t").await;
    running.until("the rows", |_| rig.records("shop.public.t").len() == 3).await;
    drop(running);
    rig.properties = vec![("tombstones.on.delete", "false".into())];
    let mut running = rig.start();
    let end = tokio::time::timeout(LIMIT, &mut running.task).await.expect("it ends").unwrap();
    assert!(end.starts_with("Failed") && end.contains("tombstones.on.delete"), "{end}");
    rig.properties.clear();
    let mut running = rig.start();
    db.exec("INSERT INTO t VALUES (2)").await;
    running.until("the next row", |_| rig.records("shop.public.t").len() == 4).await;
    running.stop.stop();
    assert_eq!((&mut running.task).await.unwrap(), "Stopped");
    rig.properties = vec![("tombstones.on.delete", "false".into())];
    let mut running = rig.start();
    db.exec("DELETE FROM t; INSERT INTO t VALUES (3)").await;
    running.until("the last row", |_| rig.records("shop.public.t").iter().any(|r| r.key["id"] == 3)).await;
    assert_eq!(rig.records("shop.public.t").len(), 6, "no tombstone this time");
    drop(running);
    db.drop().await;
}
