//! Transactions that the server streams while they are open give exactly what they give when it keeps them.

use crate::support::*;
use catchwater_capture::source::{EventBatch, Item, Source, SourceClass, Start};
use catchwater_change::SourceInfo;
use catchwater_connector_postgres::source::LargeLimits;
use catchwater_connector_postgres::{PgSource, SourceConfig};

/// Rows of the large transaction; `CW_LARGE_ROWS` for the long form.
fn rows() -> u64 {
    std::env::var("CW_LARGE_ROWS").ok().and_then(|n| n.parse().ok()).unwrap_or(6_000)
}

fn streamed(config: SourceConfig, name: &str, memory_max: usize) -> SourceConfig {
    let large = LargeLimits { memory_max, ..config.large.clone() };
    SourceConfig { source: name.into(), publication: Some(config.publication()), streaming: true, large, ..config }
}

async fn open(config: SourceConfig) -> PgSource {
    let mut source = PgSource::new(config);
    let known = source.identify().await.unwrap();
    source.open(Start::Fresh, Some(known)).await.unwrap();
    source
}

/// Two large transactions interleaved with each other and with small ones: rolled-back savepoints (nested, and one that is
/// released into a rolled-back one), a change of shape between two of its own rows, TRUNCATE, unchanged TOAST, a message;
/// one that is rolled back as a whole. Read three times: kept by the server, streamed into memory, streamed into files.
#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_transaction_gives_what_a_kept_one_gives() {
    for server in servers() {
        let db = database_on(&server, "large").await;
        db.exec(&format!("ALTER DATABASE {} SET logical_decoding_work_mem = '64kB'", db.name)).await;
        db.exec(
            "CREATE TABLE t(id int PRIMARY KEY, v text); CREATE TABLE u(id int PRIMARY KEY, v text, big text);
             CREATE TABLE emptied(id int PRIMARY KEY); CREATE TABLE marker(id int PRIMARY KEY);
             ALTER TABLE u ALTER big SET STORAGE EXTERNAL; INSERT INTO u VALUES (0, 'a', repeat('x', 9000))",
        )
        .await;
        let config = db.config(&["t", "u", "emptied", "marker"]);
        let mut kept = open(config.clone()).await;
        let mut memory = open(streamed(config.clone(), &format!("{}_m", db.name), usize::MAX)).await;
        let mut files = open(streamed(config.clone(), &format!("{}_f", db.name), 0)).await;
        let n = rows();
        let other = connect(&db.url).await;
        let gone = connect(&db.url).await;
        gone.batch_execute(&format!("BEGIN; INSERT INTO t SELECT -g, 'gone' FROM generate_series(1, {n}) g"))
            .await
            .unwrap();
        db.exec(&format!("BEGIN; INSERT INTO t SELECT g, 'kept ' || g FROM generate_series(1, {n}) g")).await;
        other
            .batch_execute(&format!("BEGIN; INSERT INTO u SELECT g, 'o', 'b' FROM generate_series(1, {n}) g"))
            .await
            .unwrap();
        gone.batch_execute("INSERT INTO emptied VALUES (1); ROLLBACK; INSERT INTO emptied VALUES (2)").await.unwrap();
        db.exec(&format!(
            "SAVEPOINT a; INSERT INTO t SELECT {n} + g, 'x' FROM generate_series(1, {n}) g; SAVEPOINT b;
             UPDATE t SET v = 'x' WHERE id <= {n} / 2; RELEASE b; ROLLBACK TO a;
             SAVEPOINT c; UPDATE t SET v = 'c ' || v WHERE id <= {n} / 2; RELEASE c;
             SELECT pg_logical_emit_message(true, 'app', 'inside');
             ALTER TABLE t ADD COLUMN more int DEFAULT 7; INSERT INTO t VALUES ({n} * 3, 'late', 8);
             DELETE FROM t WHERE id % 7 = 0; TRUNCATE emptied;"
        ))
        .await;
        other.batch_execute(&format!("UPDATE u SET v = 'changed' WHERE id < {n} / 4; COMMIT")).await.unwrap();
        db.exec("COMMIT; INSERT INTO marker VALUES (1)").await;

        let want = read_to_marker(&mut kept).await;
        let shapes: Vec<usize> = want.iter().map(|t| t.rows.len()).collect();
        let deleted = (n / 7) as usize;
        assert_eq!(shapes, [1, (n + n / 4) as usize, (n + n / 2) as usize + 2 + deleted + 1], "{server}");
        assert!(want.iter().all(|t| t.rows.iter().all(|r| !show(r).contains("gone"))));
        same(&read_to_marker(&mut memory).await, &want, &format!("{server}: in memory"));
        same(&read_to_marker(&mut files).await, &want, &format!("{server}: in files"));
        for source in [&mut kept, &mut memory, &mut files] {
            source.close().await;
        }

        // A restart at any of its commits gives the rest, whole; one inside a transaction gives all of it again.
        for (at, txn) in want.iter().enumerate() {
            let mut again = PgSource::new(streamed(config.clone(), &format!("{}_f", db.name), 1000));
            again.open(Start::After(txn.native.clone()), None).await.unwrap();
            if at == 0 {
                let mut seen = 0;
                while seen < 100 {
                    let mut batch = EventBatch::new(1000);
                    again.next(&mut batch).await.unwrap();
                    seen += batch.items.iter().filter(|i| matches!(i, Item::Row(_))).count();
                }
                again.close().await;
                again.open(Start::After(txn.native.clone()), None).await.unwrap();
            }
            let rest = read_to_marker(&mut again).await;
            let ids =
                |t: &[Txn]| t.iter().map(|t| (t.id.clone(), show_all(std::slice::from_ref(t)))).collect::<Vec<_>>();
            assert_eq!(ids(&rest), ids(&want[at + 1..]), "{server}: after transaction {at}");
            again.close().await;
        }
        db.drop().await;
    }
}

/// Equal in everything, places in the WAL included; the first difference is shown, not all rows.
fn same(found: &[Txn], want: &[Txn], what: &str) {
    assert_eq!(found.len(), want.len(), "{what}: transactions");
    for (n, (f, w)) in found.iter().zip(want).enumerate() {
        assert_eq!((&f.id, f.xid, &f.native), (&w.id, w.xid, &w.native), "{what}");
        assert_eq!(f.rows.len(), w.rows.len(), "{what}: rows of {}", w.id);
        for (at, (f, w)) in f.rows.iter().zip(&w.rows).enumerate() {
            let (mut f, mut w) = (f.clone(), w.clone());
            if n == 0 {
                // Each slot begins elsewhere, and rows name the commit before theirs.
                for row in [&mut f, &mut w] {
                    if let SourceInfo::Postgres { last_commit_lsn, .. } = &mut row.info {
                        *last_commit_lsn = None;
                    }
                }
            }
            assert_eq!(f, w, "{what}: row {at}");
        }
    }
}

/// The bound of the disk ends the stream with its own code, and a folder that cannot be written to is tried again.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_finds_no_room_stops_with_a_named_error() {
    let Some(db) = database("largefull").await else { return };
    db.exec(&format!("ALTER DATABASE {} SET logical_decoding_work_mem = '64kB'", db.name)).await;
    db.exec("CREATE TABLE t(id int PRIMARY KEY, v text)").await;
    let mut config = streamed(db.config(&["t"]), &db.name, 0);
    config.large.disk_max = 100_000;
    let mut source = open(config.clone()).await;
    db.exec("BEGIN; INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 10000) g").await;
    let error = fail(&mut source).await;
    assert_eq!((error.code.0, error.class), (532, SourceClass::Config), "{error}");
    source.close().await;

    config.large.disk_max = u64::MAX;
    config.large.dir = "/dev/null/no-folder".into();
    let mut source = PgSource::new(config);
    db.exec("COMMIT").await;
    let from: u64 = db
        .one("SELECT (confirmed_flush_lsn - '0/0')::text FROM pg_replication_slots WHERE database = current_database()")
        .await
        .parse()
        .unwrap();
    source.open(Start::After(catchwater_change::Native::postgres(from)), None).await.unwrap();
    let error = fail(&mut source).await;
    assert_eq!((error.code.0, error.class), (532, SourceClass::Retry), "{error}");
    source.close().await;
    db.drop().await;
}

async fn fail(source: &mut PgSource) -> catchwater_capture::source::SourceError {
    let run = async {
        loop {
            let mut batch = EventBatch::new(1 << 20);
            if let Err(e) = source.next(&mut batch).await {
                return e;
            }
        }
    };
    tokio::time::timeout(LIMIT, run).await.expect("it fails in time")
}

/// A slot made with `failover` is one that standbys copy; older servers say that they have none.
#[tokio::test(flavor = "multi_thread")]
async fn failover_slots() {
    for server in servers() {
        let db = database_on(&server, "failover").await;
        db.exec("CREATE TABLE t(id int PRIMARY KEY)").await;
        let mut source = PgSource::new(SourceConfig { failover: true, ..db.config(&["t"]) });
        let known = source.identify().await.unwrap();
        let opened = source.open(Start::Fresh, Some(known)).await;
        if db.version().await >= 170_000 {
            opened.unwrap();
            let sql = "SELECT failover::text FROM pg_replication_slots WHERE database = current_database()";
            assert_eq!(db.one(sql).await, "true");
        } else {
            let error = opened.unwrap_err();
            assert_eq!((error.code.0, error.class), (533, SourceClass::Config), "{error}");
            let sql = "SELECT count(*)::text FROM pg_replication_slots WHERE database = current_database()";
            assert_eq!(db.one(sql).await, "0", "nothing was made");
        }
        source.close().await;
        db.drop().await;
    }
}
