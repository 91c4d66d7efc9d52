//! Properties that say how the source is read: which rows the first snapshot has, what a partition is, who confirms.

use crate::rig::Rig;
use crate::support::*;
use catchwater_capture::State;
use catchwater_capture::reading::Reading;
use catchwater_capture::source::{Source, SourceError, Start};
use catchwater_connector_postgres::{PgSource, SourceConfig};
use std::collections::BTreeMap;

/// Of each row of a topic how often it was read, and how often it came by the stream.
fn counted(rig: &Rig, topic: &str) -> BTreeMap<i64, (u32, u32)> {
    let mut out: BTreeMap<i64, (u32, u32)> = BTreeMap::new();
    for r in rig.records(topic) {
        let n = out.entry(r.value["after"]["id"].as_i64().unwrap()).or_default();
        if r.value["op"] == "r" { n.0 += 1 } else { n.1 += 1 }
    }
    out
}

/// Two thirds of a table, in two units, whether the snapshot runs through or is killed between them; a statement
/// may lack columns, and the stream has every row.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_says_which_rows_the_first_snapshot_has() {
    const ROWS: i64 = 110_000;
    for kills in [0, 1] {
        let Some(db) = database(&format!("selects_{kills}")).await else { return };
        db.exec(&format!(
            "CREATE TABLE a(id int PRIMARY KEY, v text NOT NULL, w text DEFAULT 'w');
             INSERT INTO a SELECT n, 'v' || n FROM generate_series(1, {ROWS}) n;
             CREATE TABLE b(id int PRIMARY KEY, w int); INSERT INTO b VALUES (1, 1);
             CREATE TABLE c(id int PRIMARY KEY); INSERT INTO c VALUES (1)"
        ))
        .await;
        let mut rig = Rig::new(db.config(&["a", "b", "c"])).await;
        rig.properties = vec![
            ("snapshot.include.collection.list", "public[.](a|b)".into()),
            ("snapshot.select.statement.overrides", "public.a".into()),
            (
                "snapshot.select.statement.overrides.public.a",
                "SELECT 'not ' || v AS v, id FROM a WHERE id % 3 <> 0 ORDER BY v -- a comment".into(),
            ),
        ];
        for at in 1..=kills {
            let mut running = rig.start();
            running.until("rows", |_| rig.records("shop.public.a").len() > at * 30_000).await;
            // Dropped: a kill.
        }
        let mut running = rig.start();
        running.until("streaming", |s| s.get().state == State::Streaming).await;
        db.exec("UPDATE a SET v = 'new' WHERE id = 3; UPDATE c SET id = 2").await;
        running.until("the stream", |_| rig.records("shop.public.c").len() >= 3).await;
        let found = counted(&rig, "shop.public.a");
        let expected = |id: i64| (u32::from(id % 3 != 0), u32::from(id == 3));
        let wrong: Vec<_> =
            (1..=ROWS).filter(|id| found.get(id).copied().unwrap_or_default() != expected(*id)).collect();
        assert!(wrong.is_empty(), "{kills} kills, {} wrong: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
        let first = &rig.records("shop.public.a")[0].value["after"];
        assert!(first["v"].as_str().unwrap().starts_with("not v") && first["w"].is_null(), "{first}");
        assert_eq!(counted(&rig, "shop.public.b"), [(1, (1, 0))].into());
        assert!(rig.records("shop.public.c").iter().all(|r| r.value["op"] != "r"), "c is not in the list");
        running.stop.stop();
        assert_eq!((&mut running.task).await.unwrap(), "Stopped");
        db.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_cannot_be_read_is_named() {
    let Some(db) = database("bad_selects").await else { return };
    db.exec("CREATE TABLE t(id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 0)").await;
    for (at, (statement, why)) in [
        ("SELECT v FROM t", "it lacks the key column id"),
        ("SELECT id FROM nothing", "does not exist"),
        ("SELECT id FROM t); DELETE FROM t; SELECT (1", "42601"),
    ]
    .into_iter()
    .enumerate()
    {
        let source = format!("{}_{at}", db.name);
        let mut rig = Rig::new(SourceConfig { source: source.as_str().into(), ..db.config(&["t"]) }).await;
        rig.properties = vec![
            ("snapshot.select.statement.overrides", "public.t".into()),
            ("snapshot.select.statement.overrides.public.t", statement.into()),
        ];
        let mut running = rig.start();
        let end = tokio::time::timeout(LIMIT, &mut running.task).await.expect(statement).unwrap();
        assert!(end.contains("CW0528") && end.contains(why), "{statement}: {end}");
    }
    assert_eq!(db.one("SELECT count(*)::text FROM t").await, "1");
    db.drop().await;
}

async fn fresh(source: &mut PgSource) -> Result<Vec<String>, SourceError> {
    let known = source.identify().await?;
    let opened = source.open(Start::Fresh, Some(known)).await?;
    Ok(opened.tables.iter().map(|t| t.qualified()).collect())
}

/// Without `publish.via.partition.root` each partition is a table, also one that is made later.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_tables_of_their_own_when_roots_are_not_asked_for() {
    let Some(db) = database("leaves").await else { return };
    db.exec(
        "CREATE TABLE p(id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
         CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (30) PARTITION BY RANGE (id);
         CREATE TABLE p21 PARTITION OF p2 FOR VALUES FROM (10) TO (20);
         CREATE TABLE plain(id int PRIMARY KEY); INSERT INTO p VALUES (1, 1), (11, 1)",
    )
    .await;
    let leaves = Reading { leaves: true, ..Reading::default() };
    let mut root = PgSource::new(SourceConfig { reading: leaves, ..db.config(&["p"]) });
    let refused = fresh(&mut root).await.unwrap_err();
    assert!(refused.code.0 == 513 && refused.what.contains("partition"), "{refused:?}");
    let mut rig = Rig::new(db.config(&["public.*"])).await;
    rig.properties = vec![("publish.via.partition.root", "false".into())];
    let mut running = rig.start();
    running.until("streaming", |s| s.get().state == State::Streaming).await;
    let published = format!(
        "SELECT string_agg(tablename, ',' ORDER BY tablename) FROM pg_publication_tables WHERE pubname = 'catchwater_{}'",
        db.name
    );
    assert_eq!(db.one(&published).await, "p1,p21,plain");
    db.exec(&format!(
        "UPDATE p SET id = 12 WHERE id = 1;
         CREATE TABLE p22 PARTITION OF p2 FOR VALUES FROM (20) TO (30);
         ALTER PUBLICATION catchwater_{} ADD TABLE p22; INSERT INTO p VALUES (25, 1)",
        db.name
    ))
    .await;
    running.until("the new partition", |_| !rig.records("shop.public.p22").is_empty()).await;
    let ops = |topic: &str| -> Vec<String> {
        let of = |v: &serde_json::Value| v["op"].as_str().unwrap_or("-").to_owned();
        rig.records(topic).iter().map(|r| of(&r.value)).collect()
    };
    assert_eq!(ops("shop.public.p1"), ["r", "d", "-"]);
    assert_eq!(ops("shop.public.p21").concat(), "rc");
    assert_eq!(ops("shop.public.p22"), ["c"]);
    assert!(ops("shop.public.p").is_empty() && ops("shop.public.p2").is_empty());
    running.stop.stop();
    assert_eq!((&mut running.task).await.unwrap(), "Stopped");
    // A publication that hides the partitions does not fit.
    db.exec(&format!("ALTER PUBLICATION catchwater_{} SET (publish_via_partition_root = true)", db.name)).await;
    let mut running = rig.start();
    let end = tokio::time::timeout(LIMIT, &mut running.task).await.unwrap().unwrap();
    assert!(end.contains("CW0521") && end.contains("through their roots"), "{end}");
    db.drop().await;
}

/// `lsn.flush.mode` = manual: the slot stays where it is until somebody else moves it, and no row comes twice all the same.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_confirmed_when_others_confirm() {
    let Some(db) = database("manual").await else { return };
    db.exec("CREATE TABLE t(id int PRIMARY KEY)").await;
    let mut rig = Rig::new(db.config(&["t"])).await;
    rig.properties = vec![("lsn.flush.mode", "manual".into())];
    let place = format!(
        "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'catchwater_{}'",
        db.name
    );
    let mut at_first = None;
    for round in 1..=3 {
        let mut running = rig.start();
        running.until("streaming", |s| s.get().state == State::Streaming).await;
        db.exec(&format!("INSERT INTO t VALUES ({round})")).await;
        running.until("the row", |_| rig.records("shop.public.t").len() >= round).await;
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        let now = db.one(&place).await;
        assert_eq!(*at_first.get_or_insert(now.clone()), now, "round {round}");
        running.stop.stop();
        assert_eq!((&mut running.task).await.unwrap(), "Stopped");
    }
    assert_eq!(rig.records("shop.public.t").len(), 3);
    db.drop().await;
}

/// Each session for SQL begins with them, the stream's connection does not; our forms stay, limits are theirs.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_begin_with_the_initial_statements() {
    let Some(db) = database("initial_statements").await else { return };
    db.exec(
        "CREATE TABLE t(id int PRIMARY KEY, d date NOT NULL DEFAULT '2020-02-01', b bytea, z timestamptz);
         INSERT INTO t VALUES (1, '2020-02-01', '\\x00ff', '2020-02-01 00:00:00+00');
         CREATE SCHEMA app; CREATE TABLE app.told(pid int, said text); CREATE TABLE app.beats(said text)",
    )
    .await;
    let mut rig = Rig::new(db.config(&["t"])).await;
    rig.properties = vec![
        (
            "database.initial.statements",
            "SET search_path TO app; SET datestyle TO 'German'; SET timezone TO 'Asia/Tokyo'; SET bytea_output TO escape;
             SET statement_timeout TO '77s';; SELECT 1; INSERT INTO told SELECT pg_backend_pid(), ';;'"
                .into(),
        ),
        ("value.converter.schemas.enable", "true".into()),
        ("heartbeat.interval.ms", "100".into()),
        ("heartbeat.action.query", "INSERT INTO beats SELECT current_setting('statement_timeout')".into()),
    ];
    let mut running = rig.start();
    running.until("streaming", |s| s.get().state == State::Streaming).await;
    db.exec("INSERT INTO t SELECT 2, d, b, z FROM t").await;
    running.until("the row", |_| rig.records("shop.public.t").len() >= 2).await;
    for r in rig.records("shop.public.t") {
        // The catalogue prints a default as the session's forms have it.
        assert!(r.value["schema"].to_string().contains(r#""default":18293"#), "{}", r.value["schema"]);
        let row = &r.value["payload"]["after"];
        assert_eq!((&row["d"], &row["b"]), (&18_293.into(), &"AP8=".into()), "{row}");
        assert_eq!(row["z"], "2020-02-01T00:00:00.000000Z", "{row}");
    }
    // The catalogue, the reader, the beat.
    let sessions = "SELECT count(DISTINCT pid)::text FROM app.told WHERE said = ';'";
    assert!(db.one(sessions).await.parse::<u32>().unwrap() >= 3);
    let stream = format!(
        "SELECT count(*)::text FROM app.told JOIN pg_replication_slots ON active_pid = pid WHERE slot_name = 'catchwater_{}'",
        db.name
    );
    assert_eq!(db.one(&stream).await, "0", "the stream's connection");
    running.until("a beat", |_| true).await;
    let beats = "SELECT coalesce(max(said), '') FROM app.beats";
    let begun = std::time::Instant::now();
    while db.one(beats).await != "77s" {
        assert!(begun.elapsed() < LIMIT, "{}", db.one(beats).await);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    running.stop.stop();
    assert_eq!((&mut running.task).await.unwrap(), "Stopped");
    db.drop().await;
}

/// `xmin.fetch.interval.ms`: asked for before the first row of the stream and again; rows of the snapshot have none.
#[tokio::test(flavor = "multi_thread")]
async fn the_slots_xmin_stands_in_records_of_the_stream() {
    let Some(db) = database("xmin").await else { return };
    db.exec("CREATE TABLE t(id serial PRIMARY KEY); INSERT INTO t DEFAULT VALUES").await;
    let mut rig = Rig::new(db.config(&["t"])).await;
    rig.properties = vec![("xmin.fetch.interval.ms", "20".into())];
    let mut running = rig.start();
    running.until("streaming", |s| s.get().state == State::Streaming).await;
    let first: u64 = db
        .one("SELECT catalog_xmin::text FROM pg_replication_slots WHERE database = current_database()")
        .await
        .parse()
        .unwrap();
    db.exec("INSERT INTO t DEFAULT VALUES; SELECT pg_logical_emit_message(true, 'p', 'x')").await;
    running.until("the row", |_| rig.records("shop.public.t").len() >= 2).await;
    let xmins = |topic: &str| -> Vec<Option<u64>> {
        rig.records(topic).iter().map(|r| r.value["source"]["xmin"].as_u64()).collect()
    };
    let shown = xmins("shop.public.t");
    assert_eq!(shown[0], None, "of the snapshot");
    assert!(shown[1].is_some_and(|xmin| xmin >= first), "{shown:?}, {first}");
    running.until("the message", |_| !rig.records("shop.message").is_empty()).await;
    assert!(xmins("shop.message")[0].is_some(), "of a message");
    // What runs is written down by a checkpoint; once that is confirmed, the slot's xmin goes on.
    let begun = std::time::Instant::now();
    while xmins("shop.public.t").last().copied().flatten() <= shown[1] {
        assert!(begun.elapsed() < LIMIT, "{:?}", xmins("shop.public.t"));
        db.exec("CHECKPOINT").await;
        db.exec("INSERT INTO t DEFAULT VALUES").await;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    running.stop.stop();
    assert_eq!((&mut running.task).await.unwrap(), "Stopped");
    db.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_initial_statement_that_fails_is_named_by_its_number() {
    let Some(db) = database("bad_statement").await else { return };
    db.exec("CREATE TABLE t(id int PRIMARY KEY)").await;
    for (statements, why) in [
        ("SET statement_timeout TO '9s'; SET ROLE nobody_there", "SQLSTATE 22023"),
        ("SET a.b TO 'x'; SET geheim geheim", "it is no SQL (SQLSTATE 42601)"),
    ] {
        let mut rig = Rig::new(db.config(&["t"])).await;
        rig.properties = vec![("database.initial.statements", statements.into())];
        let mut running = rig.start();
        let end = tokio::time::timeout(LIMIT, &mut running.task).await.expect(statements).unwrap();
        assert!(end.contains("CW0534") || end.contains("534"), "{end}");
        assert!(end.contains("statement 2") && end.contains(why) && !end.contains("geheim"), "{end}");
    }
    assert_eq!(db.one("SELECT count(*)::text FROM pg_publication").await, "0", "nothing was made");
    db.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_tables_than_the_guardrail_are_said_or_refused() {
    let Some(db) = database("guardrail").await else { return };
    db.exec(
        "CREATE TABLE a(id int PRIMARY KEY); CREATE TABLE b(id int PRIMARY KEY); CREATE TABLE c(id int PRIMARY KEY)",
    )
    .await;
    let slots = format!("SELECT count(*)::text FROM pg_replication_slots WHERE slot_name = 'catchwater_{}'", db.name);
    let most = |n: &str, action: &str| {
        vec![("guardrail.collections.max", n.into()), ("guardrail.collections.limit.action", action.into())]
    };
    let mut rig = Rig::new(db.config(&["public.*"])).await;
    rig.properties = most("2", "fail");
    let mut running = rig.start();
    let end = tokio::time::timeout(LIMIT, &mut running.task).await.unwrap().unwrap();
    assert!(end.contains("3 tables would be captured, above guardrail.collections.max = 2"), "{end}");
    assert_eq!(db.one(&slots).await, "0", "nothing was made");
    // As many as are allowed; then one comes, and the next start counts again.
    for (n, action, streams) in [("3", "fail", true), ("3", "fail", false), ("3", "warn", true)] {
        rig.properties = most(n, action);
        let mut running = rig.start();
        if streams {
            running.until("streaming", |s| s.get().state == State::Streaming).await;
            running.stop.stop();
            assert_eq!((&mut running.task).await.unwrap(), "Stopped");
            db.exec("CREATE TABLE IF NOT EXISTS d(id int PRIMARY KEY)").await;
        } else {
            let end = tokio::time::timeout(LIMIT, &mut running.task).await.unwrap().unwrap();
            assert!(end.contains("4 tables would be captured"), "{end}");
        }
    }
    db.drop().await;
}
