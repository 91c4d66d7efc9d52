//! Tables that a pattern takes: those that came later join, those that were taken out stop the source.

use crate::rig::Rig;
use crate::support::*;
use catchwater_capture::source::{Opened, Source, SourceClass, SourceError, Start};
use catchwater_capture::{SnapshotMode, State};
use catchwater_connector_postgres::{PgSource, SourceConfig};
use std::time::Duration;

async fn again(db: &Db, before: &Opened) -> Result<(PgSource, Opened), SourceError> {
    let mut source = PgSource::new(db.config(&["app.*"]));
    let opened = source.open(Start::After(before.native.clone()), Some(before.identity.clone())).await?;
    Ok((source, opened))
}

fn names(opened: &Opened) -> Vec<&str> {
    opened.tables.iter().map(|t| t.name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_table_of_a_pattern_joins_and_one_that_was_taken_out_stops_the_source() {
    let Some(db) = database("late").await else { return };
    db.exec("CREATE SCHEMA app; CREATE TABLE app.a(id int PRIMARY KEY); CREATE TABLE app.b(id int PRIMARY KEY)").await;
    db.exec(
        "CREATE TABLE app.part(id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
         CREATE TABLE app.part1 PARTITION OF app.part FOR VALUES FROM (0) TO (9); INSERT INTO app.part VALUES (1, 1)",
    )
    .await;
    let (mut source, opened) = db.open(&["app.*"]).await;
    assert_eq!(names(&opened), ["a", "b", "part"]);
    source.close().await;
    // Without a key it is left out, published it would stop its application; nothing else waits for it.
    db.exec(
        "CREATE TABLE app.late(id int PRIMARY KEY); CREATE TABLE app.none(v int); CREATE UNLOGGED TABLE app.u(id int)",
    )
    .await;
    // What old rows of a partitioned table have in a new column stands at its partitions.
    db.exec("ALTER TABLE app.part ADD w int NOT NULL DEFAULT 68").await;
    let (mut source, opened) = again(&db, &opened).await.unwrap();
    assert_eq!(names(&opened), ["a", "b", "late", "part"]);
    let part = &opened.tables[3];
    assert_eq!(part.columns.iter().map(|c| c.missing.is_some()).collect::<Vec<_>>(), [false, false, true]);
    let published = "SELECT count(*)::text FROM pg_publication_tables WHERE tablename = 'late'";
    assert_eq!(db.one(published).await, "1");
    source.close().await;
    let (mut source, opened) = again(&db, &opened).await.unwrap();
    source.close().await;
    db.exec(&format!("ALTER PUBLICATION catchwater_{} DROP TABLE app.late", db.name)).await;
    let Err(error) = again(&db, &opened).await else { panic!("its changes are missing from now on") };
    assert_eq!((error.code.0, error.class), (521, SourceClass::Config), "{error}");
    db.drop().await;
}

/// The server describes a partition before its root, also where its rows come under the root: it is no table that came late, nor is
/// one that was dropped by the time its changes are read.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_a_pattern_takes_come_under_their_root() {
    let Some(db) = database("late_leaf").await else { return };
    db.exec(
        "CREATE SCHEMA app; CREATE TABLE app.p(id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
         CREATE TABLE app.p1 PARTITION OF app.p FOR VALUES FROM (0) TO (10);
         CREATE TABLE app.p2 PARTITION OF app.p FOR VALUES FROM (10) TO (30) PARTITION BY RANGE (id);
         CREATE TABLE app.p21 PARTITION OF app.p2 FOR VALUES FROM (10) TO (20);
         INSERT INTO app.p VALUES (1, 1), (11, 1)",
    )
    .await;
    let mut rig = Rig::new(db.config(&["app.*"])).await;
    let mut running = rig.start();
    running.until("the stream", |s| s.get().state == State::Streaming).await;
    db.exec("UPDATE app.p SET v = 2").await;
    running.until("the updates", |_| rig.records("shop.app.p").len() == 4).await;
    running.stop.stop();
    assert_eq!((&mut running.task).await.unwrap(), "Stopped");
    db.exec("CREATE TABLE app.p22 PARTITION OF app.p2 FOR VALUES FROM (20) TO (30); INSERT INTO app.p VALUES (21, 1)")
        .await;
    db.exec("UPDATE app.p SET v = 3; DROP TABLE app.p21; DROP TABLE app.p22").await;
    db.exec("ALTER TABLE app.p ADD w int; INSERT INTO app.p VALUES (2, 4, 4)").await;
    let mut running = rig.start();
    running
        .until("what came meanwhile", |_| rig.records("shop.app.p").iter().any(|r| r.value["after"]["w"] == 4))
        .await;
    let v: Vec<i64> = rig.records("shop.app.p").iter().map(|r| r.value["after"]["v"].as_i64().unwrap()).collect();
    assert_eq!(v, [1, 1, 2, 2, 1, 3, 3, 3, 4]);
    let mut topics: Vec<String> = rig.cluster.topics().into_iter().map(|(name, ..)| name.as_str().to_owned()).collect();
    topics.retain(|t| t.starts_with("shop."));
    assert_eq!(topics, ["shop.app.p"]);
    running.stop.stop();
    assert_eq!((&mut running.task).await.unwrap(), "Stopped");
    db.drop().await;
}

/// What a first snapshot would not read, nobody reads of a table that came later either; what it would read in part comes in part.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_later_table_are_read_as_a_first_snapshot_would() {
    let Some(db) = database("late_mode").await else { return };
    type Case = (SnapshotMode, &'static [(&'static str, &'static str)], &'static [i64]);
    let cases: [Case; 4] = [
        (SnapshotMode::Initial, &[], &[1, 2, 3]),
        (SnapshotMode::NoData, &[], &[3]),
        (SnapshotMode::Initial, &[("snapshot.include.collection.list", r"app\..*a")], &[3]),
        (
            SnapshotMode::Initial,
            &[
                ("snapshot.select.statement.overrides", "app.late"),
                ("snapshot.select.statement.overrides.app.late", "SELECT * FROM app.late WHERE id > 1"),
            ],
            &[2, 3],
        ),
    ];
    for (mode, properties, want) in cases {
        db.exec("CREATE SCHEMA app; CREATE TABLE app.a(id int PRIMARY KEY)").await;
        let config = SourceConfig { compare_every: Duration::from_millis(50), ..db.config(&["app.*"]) };
        let mut rig = Rig::new(config).await;
        rig.snapshot = mode;
        rig.properties = properties.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        let mut running = rig.start();
        running.until("it streams", |s| s.get().state == catchwater_capture::State::Streaming).await;
        db.exec("CREATE TABLE app.late(id int PRIMARY KEY); INSERT INTO app.late VALUES (1), (2)").await;
        let joined = "SELECT count(*)::text FROM pg_publication_tables WHERE tablename = 'late'";
        while db.one(joined).await != "1" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        db.exec("INSERT INTO app.late VALUES (3); INSERT INTO app.a VALUES (1)").await;
        let ids = |rig: &Rig| {
            let of = rig.records("shop.app.late").into_iter().map(|r| r.value["after"]["id"].as_i64().unwrap());
            let mut ids: Vec<i64> = of.collect();
            ids.sort_unstable();
            // What changed since it came may be read, too.
            ids.dedup();
            ids
        };
        running
            .until("its rows come", |_| ids(&rig).len() >= want.len() && !rig.records("shop.app.a").is_empty())
            .await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(ids(&rig), want, "{mode:?} {properties:?}");
        drop(running);
        let slot = format!(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{}'",
            rig.source.slot()
        );
        db.exec(&slot).await;
        let gone = format!("SELECT pg_drop_replication_slot('{}')", rig.source.slot());
        while db.client.batch_execute(&gone).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        db.exec(&format!("DROP PUBLICATION {}; DROP SCHEMA app CASCADE", rig.source.publication())).await;
    }
    db.drop().await;
}

/// `replica.identity.autoset.values`: at a start, and of a table that came later.
#[tokio::test(flavor = "multi_thread")]
async fn tables_are_given_the_replica_identity_that_is_named() {
    let Some(db) = database("autoset").await else { return };
    db.exec(
        "CREATE SCHEMA app; CREATE TABLE app.a(id int PRIMARY KEY, v text); CREATE TABLE app.none(v text);
         CREATE TABLE app.i(id int PRIMARY KEY, code int NOT NULL UNIQUE, v text); CREATE TABLE app.d(id int PRIMARY KEY);
         ALTER TABLE app.d REPLICA IDENTITY FULL",
    )
    .await;
    let mut rig = Rig::new(db.config(&["app.*"])).await;
    let list = "app[.](a|none|late):FULL,app.i:INDEX i_code_key,app.d:default";
    rig.properties = vec![("replica.identity.autoset.values", list.into())];
    let mut running = rig.start();
    running.until("the stream", |s| s.get().state == State::Streaming).await;
    let identities = "SELECT string_agg(relname || relreplident::text, ' ' ORDER BY relname) FROM pg_class \
        WHERE relnamespace = 'app'::regnamespace AND relkind = 'r'";
    assert_eq!(db.one(identities).await, "af dd ii nonef");
    db.exec("CREATE TABLE app.late(v text); INSERT INTO app.late VALUES ('x')").await;
    running.until("the late table", |_| rig.records("shop.app.late").len() == 1).await;
    db.exec("INSERT INTO app.a VALUES (1, 'x'); DELETE FROM app.a; DELETE FROM app.late").await;
    running.until("the deletes", |_| rig.records("shop.app.a").len() >= 3).await;
    let old = &rig.records("shop.app.a")[1].value;
    assert_eq!(old["before"]["v"], "x", "{old}");
    assert_eq!(db.one(identities).await, "af dd ii latef nonef");
    running.stop.stop();
    assert_eq!((&mut running.task).await.unwrap(), "Stopped");
    // Two entries that fit one table.
    rig.properties = vec![("replica.identity.autoset.values", "app.*:FULL,app.a:DEFAULT".into())];
    let end = (&mut rig.start().task).await.unwrap();
    assert!(end.contains("more than one entry"), "{end}");
    db.drop().await;
}
