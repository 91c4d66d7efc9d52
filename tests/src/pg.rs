//! A PostgreSQL database for one test, on the server that `cargo xtask db` started (`CW_PG15_URL` …). Dropped, with its
//! slots, at the end. Calls block; every value comes as the server's own text.

use anyhow::{Context, Result};
use std::sync::atomic::{AtomicU32, Ordering};
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// One connection.
pub struct Pg {
    runtime: tokio::runtime::Runtime,
    client: tokio_postgres::Client,
    url: String,
}

impl Pg {
    pub fn connect(url: &str) -> Result<Pg> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (client, connection) = runtime.block_on(tokio_postgres::connect(url, NoTls)).context("connecting")?;
        runtime.spawn(async move {
            let _ = connection.await;
        });
        Ok(Pg { runtime, client, url: url.to_owned() })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Runs statements separated by `;`.
    pub fn run(&self, sql: &str) -> Result<()> {
        self.runtime.block_on(self.client.batch_execute(sql)).with_context(|| sql.chars().take(200).collect::<String>())
    }

    /// Rows as text, NULL as `None`.
    pub fn rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let messages = self
            .runtime
            .block_on(self.client.simple_query(sql))
            .with_context(|| sql.chars().take(200).collect::<String>())?;
        Ok(messages
            .into_iter()
            .filter_map(|m| match m {
                SimpleQueryMessage::Row(r) => Some((0..r.len()).map(|i| r.get(i).map(str::to_owned)).collect()),
                _ => None,
            })
            .collect())
    }

    /// The first column of the first row; empty for none or NULL.
    pub fn one(&self, sql: &str) -> Result<String> {
        Ok(self.rows(sql)?.into_iter().next().and_then(|r| r.into_iter().next().flatten()).unwrap_or_default())
    }
}

/// A database of its own.
pub struct Database {
    admin: Pg,
    name: String,
    pub pg: Pg,
}

impl Database {
    /// `None`, said loudly, if the server of that name is not there.
    pub fn create(server: &str, test: &str) -> Option<Database> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let variable = format!("CW_{}_URL", server.to_uppercase());
        let Ok(url) = std::env::var(&variable) else {
            crate::skip(test, &format!("{variable} is not set; cargo xtask db start {server}"));
            return None;
        };
        let admin = Pg::connect(&url).expect("the server named in the environment answers");
        let name =
            format!("cw_{}_{}_{}", test.replace('-', "_"), std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let name = name.chars().take(60).collect::<String>();
        admin.run(&format!("CREATE DATABASE {name}")).expect("a database can be made");
        let (base, _) = url.rsplit_once('/').expect("a URL with a database");
        let pg = Pg::connect(&format!("{base}/{name}")).expect("the new database answers");
        Some(Database { admin, name, pg })
    }

    pub fn url(&self) -> &str {
        self.pg.url()
    }
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Another connection.
    pub fn connect(&self) -> Pg {
        Pg::connect(self.pg.url()).expect("the database answers")
    }
    /// Ends every connection but ours, as a restart of the server would.
    pub fn cut(&self) {
        let sql = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}' AND application_name LIKE 'catchwater%' OR backend_type = 'walsender' AND datname = '{0}'",
            self.name
        );
        let _ = self.admin.rows(&sql);
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if std::env::var_os("CW_KEEP_WORK").is_some() {
            return;
        }
        for _ in 0..50 {
            self.cut();
            let slots = format!(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '{}'",
                self.name
            );
            if self.admin.rows(&slots).is_ok()
                && self.admin.run(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)).is_ok()
            {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

/// Both tables, compared row by row in both directions; the difference in words, empty = equal.
pub fn difference(a: &Pg, a_table: &str, b: &Pg, b_table: &str) -> String {
    let read = |pg: &Pg, table: &str| -> Result<Vec<String>> {
        let mut rows: Vec<String> = pg
            .rows(&format!("SELECT t::text FROM {table} t"))?
            .into_iter()
            .map(|r| r.into_iter().flatten().collect())
            .collect();
        rows.sort();
        Ok(rows)
    };
    let (left, right) = match (read(a, a_table), read(b, b_table)) {
        (Ok(l), Ok(r)) => (l, r),
        (l, r) => return format!("cannot read: {l:?} {r:?}"),
    };
    if left == right {
        return String::new();
    }
    let missing: Vec<&String> = left.iter().filter(|r| right.binary_search(r).is_err()).take(5).collect();
    let extra: Vec<&String> = right.iter().filter(|r| left.binary_search(r).is_err()).take(5).collect();
    format!("{} rows against {}; only left {missing:?}; only right {extra:?}", left.len(), right.len())
}
