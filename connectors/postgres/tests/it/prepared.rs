//! Two-phase commit: as Debezium's default, a prepared transaction comes when it is committed, with the protocol's newest
//! version the server speaks, kept by the server or streamed while it is open.

use crate::support::*;
use catchwater_capture::source::{Source, Start};
use catchwater_connector_postgres::{PgSource, SourceConfig};

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_comes_when_it_is_committed() {
    for server in servers() {
        let db = database_on(&server, "prepared").await;
        let version = db.version().await;
        db.exec(&format!("ALTER DATABASE {} SET logical_decoding_work_mem = '64kB'", db.name)).await;
        db.exec("CREATE TABLE t(id int PRIMARY KEY, v text); CREATE TABLE marker(id int PRIMARY KEY)").await;
        let mut sources = Vec::new();
        for (name, streaming) in [(db.name.clone(), false), (format!("{}_s", db.name), true)] {
            let plain = db.config(&["t", "marker"]);
            let publication = Some(plain.publication());
            let mut source =
                PgSource::new(SourceConfig { source: name.as_str().into(), publication, streaming, ..plain });
            let known = source.identify().await.unwrap();
            source.open(Start::Fresh, Some(known)).await.unwrap();
            sources.push(source);
        }
        let spoken = match version {
            ..150_000 => 2,
            150_000..160_000 => 3,
            _ => 4,
        };
        let asked = format!(
            "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%proto_version ''{spoken}''%'"
        );
        assert_eq!(db.one(&asked).await, "2", "both speak version {spoken}");
        let gid = |n: u32| format!("{}_{n}", db.name);
        let large = "INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(100, 1100) g";
        db.exec(&format!("BEGIN; INSERT INTO t VALUES (1, 'a'); PREPARE TRANSACTION '{}'", gid(1))).await;
        db.exec(&format!("BEGIN; INSERT INTO t VALUES (2, 'gone'); PREPARE TRANSACTION '{}'", gid(2))).await;
        db.exec(&format!(
            "BEGIN; {large}; SAVEPOINT s; INSERT INTO t SELECT -g, repeat('y', 100) FROM generate_series(1, 1000) g;
             ROLLBACK TO s; INSERT INTO t VALUES (3, 'b'); PREPARE TRANSACTION '{}'",
            gid(3)
        ))
        .await;
        db.exec("INSERT INTO t VALUES (4, 'between')").await;
        db.exec(&format!("ROLLBACK PREPARED '{}'", gid(2))).await;
        db.exec(&format!("COMMIT PREPARED '{}'", gid(3))).await;
        db.exec("INSERT INTO t VALUES (5, 'behind')").await;
        db.exec(&format!("COMMIT PREPARED '{}'", gid(1))).await;
        db.exec("INSERT INTO marker VALUES (1)").await;
        for source in &mut sources {
            let txns = read_to_marker(source).await;
            let firsts: Vec<String> = txns.iter().map(|t| show(&t.rows[0]).replace(&"x".repeat(100), "X")).collect();
            let lens: Vec<usize> = txns.iter().map(|t| t.rows.len()).collect();
            assert_eq!(lens, [1, 1002, 1, 1], "{server}");
            assert_eq!(
                firsts,
                ["c t none -> 4,between", "c t none -> 100,X", "c t none -> 5,behind", "c t none -> 1,a"],
                "{server}"
            );
            assert_eq!(show(txns[1].rows.last().unwrap()), "c t none -> 3,b");
            source.close().await;
        }
        db.drop().await;
    }
}
