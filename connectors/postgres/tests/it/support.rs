//! Databases for one test each, and reading a source until something has come.

use catchwater_capture::source::{EventBatch, Item, Opened, Source, Start};
use catchwater_change::{Cell, Native, Op, Row, RowChange, Value};
use catchwater_connector_postgres::{ConnectConfig, PgSource, SourceConfig, TableRef};
use catchwater_record::CaptureEpoch;
use std::time::Duration;
use tokio_postgres::{Client, NoTls};

pub const LIMIT: Duration = Duration::from_secs(60);

/// URLs of the servers at hand, PostgreSQL 15 first.
pub fn servers() -> Vec<String> {
    ["CW_PG15_URL", "CW_PG14_URL", "CW_PG16_URL", "CW_PG17_URL", "CW_PG18_URL"]
        .iter()
        .filter_map(|v| std::env::var(v).ok())
        .collect()
}

pub struct Db {
    pub url: String,
    pub name: String,
    pub client: Client,
    server: String,
}

pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    client
}

fn with_database(url: &str, name: &str) -> String {
    let (head, _) = url.rsplit_once('/').unwrap();
    format!("{head}/{name}")
}

/// A fresh database on PostgreSQL 15, or a loud SKIP.
pub async fn database(test: &str) -> Option<Db> {
    let Ok(server) = std::env::var("CW_PG15_URL") else {
        eprintln!("SKIP db pg15: CW_PG15_URL is not set ({test})");
        return None;
    };
    Some(database_on(&server, test).await)
}

pub async fn database_on(server: &str, test: &str) -> Db {
    let admin = connect(server).await;
    let name = format!("cw_{test}_{}", std::process::id());
    admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await.unwrap();
    admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    let url = with_database(server, &name);
    let client = connect(&url).await;
    Db { url, name, client, server: server.to_owned() }
}

impl Db {
    pub async fn exec(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }
    pub async fn one(&self, sql: &str) -> String {
        self.client.query_one(sql, &[]).await.unwrap_or_else(|e| panic!("{sql}: {e:?}")).get(0)
    }
    /// All rows, as JSON text, in order.
    pub async fn rows(&self, table: &str, order: &str) -> Vec<String> {
        let sql = format!("SELECT to_jsonb(t)::text FROM {table} t ORDER BY {order}");
        self.client.query(&sql, &[]).await.unwrap().iter().map(|r| r.get(0)).collect()
    }
    /// `server_version_num`.
    pub async fn version(&self) -> i32 {
        self.one("SELECT current_setting('server_version_num')").await.parse().unwrap()
    }
    /// Slots first, then the database.
    pub async fn drop(self) {
        let admin = connect(&self.server).await;
        let sql = format!(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = '{}' AND active",
            self.name
        );
        admin.batch_execute(&sql).await.unwrap();
        for _ in 0..200 {
            let sql = format!(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '{}' AND NOT active",
                self.name
            );
            let _ = admin.batch_execute(&sql).await;
            let sql = format!("SELECT count(*) FROM pg_replication_slots WHERE database = '{}'", self.name);
            if admin.query_one(&sql, &[]).await.unwrap().get::<_, i64>(0) == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        admin.batch_execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)).await.unwrap();
    }
    pub fn config(&self, tables: &[&str]) -> SourceConfig {
        let connect = ConnectConfig::parse(&self.url).unwrap();
        let tables = tables.iter().map(|t| TableRef::parse(t)).collect();
        // Slots are the server's, not the database's: the database's name makes them unique.
        SourceConfig::new(self.name.as_str().into(), CaptureEpoch(1), connect, tables)
    }
    pub async fn open(&self, tables: &[&str]) -> (PgSource, Opened) {
        let mut source = PgSource::new(self.config(tables));
        let known = source.identify().await.unwrap();
        let opened = source.open(Start::Fresh, Some(known)).await.unwrap();
        (source, opened)
    }
}

/// One source transaction as it was given out.
#[derive(Debug, Clone, PartialEq)]
pub struct Txn {
    pub id: String,
    pub xid: u64,
    pub rows: Vec<RowChange>,
    pub native: Native,
}

/// Reads until `done` says so of the transactions so far.
pub async fn read_until(source: &mut PgSource, mut done: impl FnMut(&[Txn]) -> bool) -> Vec<Txn> {
    let mut txns: Vec<Txn> = Vec::new();
    let mut open: Option<Txn> = None;
    let mut described = std::collections::BTreeSet::new();
    let run = async {
        while !done(&txns) {
            let mut batch = EventBatch::new(64 * 1024);
            source.next(&mut batch).await.unwrap();
            for item in batch.items {
                match item {
                    Item::Begin { txn, xid, .. } => {
                        assert!(open.is_none(), "a transaction inside another");
                        let id = String::from_utf8(txn.0.to_vec()).unwrap();
                        // A logical message of no transaction has no id of one.
                        open = Some(Txn { id, xid: xid.unwrap_or(0), rows: vec![], native: Native::default() });
                    }
                    Item::Row(row) => {
                        let is_message = row.op == Op::Message;
                        assert!(is_message || described.contains(&row.table.fingerprint), "schema before rows (S4)");
                        open.as_mut().expect("rows stand inside a transaction").rows.push(row);
                    }
                    Item::Schema(s) => {
                        described.insert(s.fingerprint);
                    }
                    Item::Commit { native, .. } => {
                        let mut txn = open.take().unwrap();
                        txn.native = native;
                        // PostgreSQL 14 sends those of others too that have nothing for us, as autovacuum's.
                        if !txn.rows.is_empty() {
                            txns.push(txn);
                        }
                    }
                    Item::Again(_) => assert!(open.is_some(), "a table is read again behind a transaction"),
                    Item::Idle(_) => assert!(open.is_none(), "idle inside a transaction"),
                }
            }
        }
    };
    tokio::time::timeout(LIMIT, run).await.expect("the stream gives what was asked in time");
    txns
}

/// Until a transaction with a row of table `marker` has come; it is left out.
pub async fn read_to_marker(source: &mut PgSource) -> Vec<Txn> {
    let mut txns = read_until(source, |t| t.iter().any(|t| t.rows.iter().any(|r| r.table.name == "marker"))).await;
    txns.retain(|t| !t.rows.iter().any(|r| r.table.name == "marker"));
    txns
}

pub fn text(cell: &Cell) -> String {
    match cell {
        Cell::Value(v) => catchwater_connector_postgres::types::literal(v),
        Cell::Null => "NULL".into(),
        Cell::Unavailable => "UNAVAILABLE".into(),
        Cell::Absent => "-".into(),
    }
}

pub fn show_row(row: &Option<Row>) -> String {
    match row {
        None => "none".into(),
        Some(r) => r.cells.iter().map(text).collect::<Vec<_>>().join(","),
    }
}

/// `c t none -> 1,a`.
pub fn show(row: &RowChange) -> String {
    let head = format!("{} {}", row.op.letter(), row.table.name);
    if row.op == Op::Truncate { head } else { format!("{head} {} -> {}", show_row(&row.before), show_row(&row.after)) }
}

pub fn show_all(txns: &[Txn]) -> Vec<Vec<String>> {
    txns.iter().map(|t| t.rows.iter().map(show).collect()).collect()
}

pub fn int(cell: &Cell) -> i64 {
    match cell {
        Cell::Value(Value::Int(v)) => *v,
        other => panic!("not an int: {other:?}"),
    }
}
