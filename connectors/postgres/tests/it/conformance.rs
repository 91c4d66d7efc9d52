//! The capture's conformance suite against the source.

use crate::support::*;
use catchwater_capture::conformance::{self, Ask, Change, ITEM, OTHER, Probe};
use catchwater_capture::source::Source;
use catchwater_change::Native;
use catchwater_connector_postgres::source::LargeLimits;
use catchwater_connector_postgres::{PgSource, SourceConfig};
use catchwater_record::CaptureEpoch;
use catchwater_runtime::Fut;
use std::time::Duration;
use tokio_postgres::Client;

const ROW_BYTES_MAX: usize = 100_000;

struct PgProbe {
    server: String,
    streaming: bool,
    db: Option<Db>,
    databases: u32,
    epoch: u32,
    open: Option<Client>,
}

fn sql(changes: &[Change]) -> String {
    let one = |change: &Change| match change {
        Change::Insert(t, id, v) => format!("INSERT INTO {t}(id, v) VALUES ({id}, '{v}');"),
        Change::Update(t, id, v) => format!("UPDATE {t} SET v = '{v}' WHERE id = {id};"),
        Change::Delete(t, id) => format!("DELETE FROM {t} WHERE id = {id};"),
        Change::Truncate(t) => format!("TRUNCATE {t};"),
    };
    changes.iter().map(one).collect()
}

impl PgProbe {
    fn db(&self) -> &Db {
        self.db.as_ref().unwrap()
    }
    async fn exec(&self, sql: &str) {
        self.db().exec(sql).await;
    }
    async fn end_database(&mut self) {
        self.open = None;
        if let Some(db) = self.db.take() {
            db.drop().await;
        }
    }
}

impl Probe for PgProbe {
    fn unmet(&self) -> Vec<(Ask, &'static str)> {
        vec![
            (Ask::Restart, "the server is shared with the tests that run beside"),
            (Ask::Unknown, "no server at hand sends a message we do not know; the decoder's own tests do"),
        ]
    }
    fn fresh(&mut self) -> Fut<'_, ()> {
        Box::pin(async move {
            self.end_database().await;
            self.databases += 1;
            let db = database_on(&self.server, &format!("suite{}", self.databases)).await;
            db.exec(&format!("ALTER DATABASE {} SET wal_sender_timeout = '2s'", db.name)).await;
            if self.streaming && db.version().await >= 160_000 {
                // Each change at once, not only when the server's memory is full.
                let setting = "debug_logical_replication_streaming = 'immediate'";
                db.exec(&format!("ALTER DATABASE {} SET {setting}", db.name)).await;
            }
            for table in [ITEM, OTHER] {
                db.exec(&format!("CREATE TABLE {table}(id bigint PRIMARY KEY, v text)")).await;
            }
            self.db = Some(db);
        })
    }
    fn source(&mut self) -> Box<dyn Source> {
        self.epoch += 1;
        let config = self.db().config(&[ITEM, OTHER]);
        Box::new(PgSource::new(SourceConfig {
            epoch: CaptureEpoch(self.epoch),
            row_bytes_max: ROW_BYTES_MAX,
            streaming: self.streaming,
            binary: self.streaming,
            large: LargeLimits { memory_max: 0, ..config.large.clone() },
            ..config
        }))
    }
    fn commit<'a>(&'a mut self, changes: &'a [Change]) -> Fut<'a, ()> {
        Box::pin(async move { self.exec(&format!("BEGIN; {} COMMIT", sql(changes))).await })
    }
    fn roll_back<'a>(&'a mut self, changes: &'a [Change]) -> Fut<'a, ()> {
        Box::pin(async move { self.exec(&format!("BEGIN; {} ROLLBACK", sql(changes))).await })
    }
    fn savepoint<'a>(&'a mut self, kept: &'a [Change], undone: &'a [Change]) -> Fut<'a, ()> {
        Box::pin(async move {
            let (kept, undone) = (sql(kept), sql(undone));
            self.exec(&format!("BEGIN; {kept} SAVEPOINT s; {undone} ROLLBACK TO s; RELEASE s; COMMIT")).await;
        })
    }
    fn begin<'a>(&'a mut self, changes: &'a [Change]) -> Fut<'a, ()> {
        Box::pin(async move {
            let client = connect(&self.db().url).await;
            client.batch_execute(&format!("BEGIN; {}", sql(changes))).await.unwrap();
            self.open = Some(client);
        })
    }
    fn end(&mut self, commit: bool) -> Fut<'_, ()> {
        Box::pin(async move {
            let client = self.open.take().unwrap();
            client.batch_execute(if commit { "COMMIT" } else { "ROLLBACK" }).await.unwrap();
        })
    }
    fn add_column(&mut self) -> Fut<'_, ()> {
        Box::pin(async move { self.exec(&format!("ALTER TABLE {ITEM} ADD COLUMN extra int DEFAULT 7")).await })
    }
    fn cut(&mut self) -> Fut<'_, ()> {
        Box::pin(async move {
            self.exec(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name LIKE 'catchwater/%'",
            )
            .await;
        })
    }
    fn restart(&mut self) -> Fut<'_, ()> {
        unreachable!()
    }
    fn row_bytes_max(&self) -> usize {
        ROW_BYTES_MAX
    }
    fn unknown(&mut self) -> Fut<'_, ()> {
        unreachable!()
    }
    fn forgot<'a>(&'a mut self, upto: &'a Native) -> Fut<'a, bool> {
        Box::pin(async move {
            let sql = "SELECT (confirmed_flush_lsn - '0/0')::text FROM pg_replication_slots WHERE database = current_database()";
            self.db().one(sql).await.parse::<u64>().unwrap() >= upto.as_postgres().unwrap()
        })
    }
    fn patience(&self) -> Option<Duration> {
        Some(Duration::from_secs(2))
    }
    fn leftovers(&mut self) -> Fut<'_, Vec<String>> {
        Box::pin(async move {
            let sql = "SELECT 'session ' || application_name || ' ' || coalesce(state, '') FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name LIKE 'catchwater/%'
                 UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots
                 WHERE database = current_database() AND (temporary OR active)
                 UNION ALL SELECT 'lock on ' || c.relname FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
                 WHERE l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                   AND c.relname IN ('item', 'other')";
            self.db().client.query(sql, &[]).await.unwrap().iter().map(|r| r.get(0)).collect()
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_passes_the_conformance_suite() {
    if servers().is_empty() {
        eprintln!("SKIP db pg15: CW_PG15_URL is not set (conformance)");
    }
    for server in servers() {
        // Streamed and in binary: on the newest server, which streams each change at once.
        let newest = servers().last() == Some(&server);
        for streaming in [false, true].into_iter().filter(|s| !s || newest) {
            let server = server.clone();
            let mut probe = PgProbe { server, streaming, db: None, databases: 0, epoch: 0, open: None };
            conformance::run(&mut probe).await;
            probe.end_database().await;
        }
    }
}
