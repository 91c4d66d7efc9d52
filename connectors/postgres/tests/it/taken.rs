//! Another's slot and publication are taken over: wherever Debezium stood, at the middle of a COPY or in a transaction that
//! began before the one it had done last, the rest comes, and nothing of what it had.

use crate::support::*;
use catchwater_capture::source::{Source, SourceClass, Start};
use catchwater_change::SourceInfo;
use catchwater_connector_postgres::source::taken::{ConnectOffset, Taken};
use catchwater_connector_postgres::{PgSource, SourceConfig};

fn config(db: &Db, offset: &ConnectOffset) -> SourceConfig {
    SourceConfig {
        slot: Some(db.name.clone()),
        publication: Some("theirs".into()),
        taken: Some(Taken::from_connect(offset).unwrap()),
        ..db.config(&["t", "marker"])
    }
}

async fn open(config: SourceConfig) -> Result<PgSource, catchwater_capture::source::SourceError> {
    let mut source = PgSource::new(config);
    let known = source.identify().await?;
    source.open(Start::Fresh, Some(known)).await?;
    Ok(source)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_take_over_begins_behind_the_last_row_that_was_given_out() {
    let Some(db) = database("taken").await else { return };
    // As Debezium makes them: of every table, not through roots.
    db.exec(
        "CREATE TABLE t(id int PRIMARY KEY, v text); CREATE TABLE other(id int); CREATE TABLE marker(id int PRIMARY KEY);
         CREATE PUBLICATION theirs FOR ALL TABLES",
    )
    .await;
    let made = format!("SELECT lsn::text FROM pg_create_logical_replication_slot('{}', 'pgoutput')", db.name);
    let point = db.one(&made).await;
    let lsn = |text: &str| {
        let (high, low) = text.split_once('/').unwrap();
        u64::from_str_radix(high, 16).unwrap() << 32 | u64::from_str_radix(low, 16).unwrap()
    };
    let second = connect(&db.url).await;
    second.batch_execute("BEGIN; INSERT INTO t VALUES (1, 'begins first')").await.unwrap();
    db.exec("BEGIN; INSERT INTO t VALUES (2, 'a'); INSERT INTO other VALUES (1); UPDATE t SET v = 'b'; COMMIT").await;
    db.exec("COPY t(id) FROM PROGRAM 'seq 100 104'").await;
    second.batch_execute("INSERT INTO t VALUES (3, 'and ends last'); COMMIT").await.unwrap();
    db.exec("BEGIN; INSERT INTO t VALUES (4, 'x'); SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; DELETE FROM t WHERE id = 2; COMMIT").await;
    db.exec("INSERT INTO marker VALUES (1)").await;

    let at_start =
        ConnectOffset { lsn: Some(lsn(&point)), snapshot: true, snapshot_completed: true, ..Default::default() };
    let mut source = open(config(&db, &at_start)).await.unwrap();
    let all = read_to_marker(&mut source).await;
    source.close().await;
    let rows: Vec<String> = all.iter().flat_map(|t| t.rows.iter().map(show)).collect();
    assert_eq!(rows.len(), 2 + 5 + 2 + 2, "{rows:?}");

    // Each row in turn is the last that Debezium gave out.
    let (mut done, mut commit) = (0, lsn(&point));
    for txn in &all {
        let (mut last, mut count) = (0, 0);
        for row in &txn.rows {
            let SourceInfo::Postgres { lsn: Some(here), txid: Some(xid), .. } = row.info else { panic!("{row:?}") };
            // A row of another table may stand between; it is counted only with those at its own place.
            count = if here == last { count + 1 } else { 1 };
            (last, done) = (here, done + 1);
            let offset = ConnectOffset {
                lsn: Some(here),
                lsn_proc: Some(here),
                lsn_commit: Some(commit),
                lsn_events_processed: Some(count),
                tx_id: Some(u64::from(xid)),
                message_type: "INSERT".into(),
                ..Default::default()
            };
            let mut source = open(config(&db, &offset)).await.unwrap();
            let rest = read_to_marker(&mut source).await;
            source.close().await;
            let rest: Vec<String> = rest.iter().flat_map(|t| t.rows.iter().map(show)).collect();
            assert_eq!(rest, rows[done..], "after {}", rows[done - 1]);
        }
        commit = txn.native.as_postgres().unwrap();
    }

    // The slot's owner reads on: what it has confirmed is gone.
    let held = format!("SELECT active::text FROM pg_replication_slots WHERE slot_name = '{}'", db.name);
    let free = async {
        while db.one(&held).await != "false" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, free).await.expect("the last stream ends");
    db.exec(&format!("SELECT pg_replication_slot_advance('{}', pg_current_wal_lsn())", db.name)).await;
    let error = open(config(&db, &at_start)).await.map(drop).expect_err("the slot is ahead");
    assert_eq!((error.class, error.code.0), (SourceClass::Gap, 515), "{error}");
    db.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_no_connections_is_tried_again() {
    let Some(db) = database("closed").await else { return };
    db.exec("CREATE TABLE t(id int PRIMARY KEY)").await;
    let admin = connect(&std::env::var("CW_PG15_URL").unwrap()).await;
    // Superusers get in all the same.
    let role = format!("{}_r", db.name);
    admin
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN REPLICATION; ALTER DATABASE {} ALLOW_CONNECTIONS false",
            db.name
        ))
        .await
        .unwrap();
    let mut config = db.config(&["t"]);
    config.connect.user.clone_from(&role);
    let mut source = PgSource::new(config);
    let error = source.identify().await.expect_err("nobody gets in");
    let findings = source.preflight().await;
    admin.batch_execute(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS true; DROP ROLE {role}", db.name)).await.unwrap();
    assert_eq!((error.class, error.code.0), (SourceClass::Retry, 501), "{error}");
    assert!(error.next.contains("ALLOW_CONNECTIONS true"), "{error:?}");
    assert!(findings.iter().all(|f| f.retry), "{findings:?}");
    db.drop().await;
}
