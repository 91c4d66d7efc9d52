//! PostgreSQL as a sink: rows, position and fence become visible in one transaction of the target.
//!
//! [`PgSink`] owns a control session (claim, catalogue, DDL), [`write::PgLane`] a session that writes. `write` builds on
//! `sql` (pure): statements over `unnest` of text arrays with a cast per column, so that every type goes one way.

mod ddl;
mod error;
mod position;
mod sql;
mod write;

use crate::catalog::{self, CatalogTable, Wanted};
use crate::codes::sink as code;
use crate::config::{ConnectConfig, STATE_SCHEMA, TableRef, quote_ident};
use crate::session::Session;
use crate::types::schema::PgTypes;
use catchwater_deliver::sink::{
    Capabilities, Claim, DdlStep, ForeignKey, Lane, Owner, Recovered, Sink, SinkClass, SinkError, TargetName,
    TargetTable,
};
use catchwater_runtime::Fut;
use error::{fault, misuse};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

pub use error::url_error;

/// What a sink needs to know.
#[derive(Clone, Debug)]
pub struct SinkConfig {
    pub connect: ConnectConfig,
    /// Schema of the position table.
    pub state_schema: String,
}

impl SinkConfig {
    pub fn new(connect: ConnectConfig) -> Self {
        SinkConfig { connect, state_schema: STATE_SCHEMA.to_owned() }
    }
}

pub struct PgSink {
    config: SinkConfig,
    control: Option<Session>,
    claimed: Option<Claimed>,
    /// Lanes made since the last open, for their names.
    lanes: u32,
}

/// What a successful `open` leaves for lanes.
#[derive(Clone)]
struct Claimed {
    claim: Claim,
    /// `seq` of the position row as our last commit left it; -1 = nothing yet.
    seq: Arc<AtomicI64>,
}

/// Per connection, deliver.md 15.1.
const SETTINGS: &[(&str, &str)] = &[
    ("lock_timeout", "5s"),
    ("statement_timeout", "5min"),
    ("idle_in_transaction_session_timeout", "60s"),
    ("default_transaction_isolation", "read committed"),
];

/// `catchwater/<pipeline>/<sink>/<lane>`; PostgreSQL cuts at 63 bytes.
fn application(claim: &Claim, lane: &str) -> String {
    let mut name = format!("catchwater/{}/{}/{lane}", claim.pipeline, claim.sink);
    let mut cut = name.len().min(crate::config::NAME_BYTES_MAX);
    while !name.is_char_boundary(cut) {
        cut -= 1;
    }
    name.truncate(cut);
    name
}

impl PgSink {
    /// No I/O yet.
    pub fn new(config: SinkConfig) -> Self {
        PgSink { config, control: None, claimed: None, lanes: 0 }
    }

    /// The control session; a lost one is made again.
    async fn control(&mut self) -> Result<&Session, SinkError> {
        let claimed = self.claimed.as_ref().ok_or_else(|| misuse("the sink is not open"))?;
        if self.control.as_ref().is_none_or(|s| s.client.is_closed()) {
            self.control = Some(connect_control(&self.config, &claimed.claim).await?);
        }
        self.control.as_ref().ok_or_else(|| misuse("no control session"))
    }

    async fn open_now(&mut self, claim: Claim) -> Result<Recovered, SinkError> {
        self.control = None;
        self.claimed = None;
        self.lanes = 0;
        let control = connect_control(&self.config, &claim).await?;
        position::ensure(&self.config, &control).await?;
        let found = position::claim(&self.config, &control, &claim).await?;
        self.control = Some(control);
        self.claimed = Some(Claimed { claim, seq: Arc::new(AtomicI64::new(found.seq)) });
        Ok(Recovered { mark: found.mark })
    }

    async fn describe_now(&mut self, names: &[TargetName]) -> Result<Vec<Option<TargetTable>>, SinkError> {
        let config = self.config.clone();
        let control = self.control().await?;
        let refs: Vec<TableRef> =
            names.iter().map(|n| TableRef { schema: sql::schema_of(n).to_owned(), name: n.name.clone() }).collect();
        let mut types = PgTypes::new();
        let found = catalog::load(&control.client, Wanted::Names(&refs), &mut types).await;
        let found = found.map_err(|f| fault(&config, f))?;
        let mut out = Vec::new();
        for (name, wanted) in names.iter().zip(&refs) {
            let table = found.iter().find(|t| t.schema == wanted.schema && t.name == wanted.name);
            if let Some(t) = table.filter(|t| t.rows_hidden) {
                return Err(rows_hidden(&config, t));
            }
            out.push(match table.filter(|t| matches!(t.kind, b'r' | b'p')) {
                None => None,
                Some(t) => Some(TargetTable {
                    name: name.clone(),
                    columns: t.all_columns(&types),
                    key: t.primary_key(),
                    unique: t.other_keys(),
                    foreign_keys: foreign_keys(&config, control, t).await?,
                    opaque: is_opaque(&config, control, t).await?,
                }),
            });
        }
        Ok(out)
    }
}

/// An update or delete of a row that a policy hides would do nothing and say nothing. PostgreSQL's own subscriptions refuse
/// such tables, too (`TargetPrivilegesCheck` in its `worker.c`).
fn rows_hidden(config: &SinkConfig, table: &CatalogTable) -> SinkError {
    let user = &config.connect.user;
    SinkError::new(
        SinkClass::Config,
        code::RIGHTS,
        format!("row-level security of {}.{} may hide rows from user '{user}'", table.schema, table.name),
        format!("as a superuser: ALTER ROLE {} BYPASSRLS; then catchwater pipeline restart", quote_ident(user)),
    )
}

async fn connect_control(config: &SinkConfig, claim: &Claim) -> Result<Session, SinkError> {
    let mut settings = SETTINGS.to_vec();
    // Types and defaults are printed with their schema.
    settings.push(("search_path", "pg_catalog"));
    Session::connect(&config.connect, &application(claim, "ctl"), &settings).await.map_err(|f| fault(config, f))
}

async fn foreign_keys(
    config: &SinkConfig,
    session: &Session,
    table: &CatalogTable,
) -> Result<Vec<ForeignKey>, SinkError> {
    let rows = session
        .client
        .query(
            "SELECT n.nspname::text, p.relname::text, \
               ARRAY(SELECT a.attname::text FROM unnest(f.conkey) WITH ORDINALITY k(n, o) \
                 JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.n ORDER BY k.o), \
               ARRAY(SELECT a.attname::text FROM unnest(f.confkey) WITH ORDINALITY k(n, o) \
                 JOIN pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.n ORDER BY k.o), \
               f.condeferrable AND f.confdeltype = 'a' AND f.confupdtype = 'a' \
             FROM pg_constraint f JOIN pg_class p ON p.oid = f.confrelid JOIN pg_namespace n ON n.oid = p.relnamespace \
             WHERE f.conrelid = $1::oid AND f.contype = 'f' ORDER BY f.conname",
            &[&table.oid],
        )
        .await
        .map_err(|e| fault(config, e.into()))?;
    let key = |r: &tokio_postgres::Row| ForeignKey {
        columns: r.get(2),
        parent: TargetName { schema: r.get(0), name: r.get(1) },
        parent_columns: r.get(3),
        // Each transaction begins with SET CONSTRAINTS ALL DEFERRED.
        at_commit: r.get(4),
    };
    Ok(rows.iter().map(key).collect())
}

/// Has the table anything by which a row meets others, and which its values do not show?
async fn is_opaque(config: &SinkConfig, session: &Session, table: &CatalogTable) -> Result<bool, SinkError> {
    let row = session
        .client
        .query_one(
            "SELECT EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = $1::oid AND NOT tgisinternal AND tgenabled <> 'D') \
               OR EXISTS (SELECT 1 FROM pg_rewrite WHERE ev_class = $1::oid AND rulename <> '_RETURN') \
               OR EXISTS (SELECT 1 FROM pg_constraint WHERE conrelid = $1::oid AND contype = 'x') \
               OR EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = $1::oid AND i.indisunique AND \
                 (i.indpred IS NOT NULL OR i.indexprs IS NOT NULL \
                   OR EXISTS (SELECT 1 FROM unnest(i.indcollation) c(o) JOIN pg_collation n ON n.oid = c.o WHERE NOT n.collisdeterministic) \
                   OR EXISTS (SELECT 1 FROM unnest(i.indkey) k(n) JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.n \
                     JOIN pg_type t ON t.oid = a.atttypid WHERE t.typname IN ('citext', 'bpchar'))))",
            &[&table.oid],
        )
        .await
        .map_err(|e| fault(config, e.into()))?;
    Ok(row.get(0))
}

impl Sink for PgSink {
    fn preflight(&mut self) -> Fut<'_, Result<(), SinkError>> {
        Box::pin(async move {
            let session = Session::connect(&self.config.connect, "catchwater/preflight", SETTINGS).await;
            position::preflight(&self.config, &session.map_err(|f| fault(&self.config, f))?).await
        })
    }
    fn open(&mut self, claim: Claim) -> Fut<'_, Result<Recovered, SinkError>> {
        Box::pin(self.open_now(claim))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            atomic_position: true,
            multi_table_tx: true,
            truncate: true,
            lanes_max: 16,
            rows_max: 100_000,
            bytes_max: 64 * 1024 * 1024,
        }
    }

    fn describe<'a>(&'a mut self, names: &'a [TargetName]) -> Fut<'a, Result<Vec<Option<TargetTable>>, SinkError>> {
        Box::pin(self.describe_now(names))
    }

    fn lane(&mut self) -> Fut<'_, Result<Box<dyn Lane>, SinkError>> {
        Box::pin(async move {
            let claimed = self.claimed.clone().ok_or_else(|| misuse("the sink is not open"))?;
            let name = application(&claimed.claim, &self.lanes.to_string());
            self.lanes += 1;
            let session = Session::connect(&self.config.connect, &name, SETTINGS).await;
            let session = session.map_err(|f| fault(&self.config, f))?;
            let lane: Box<dyn Lane> = Box::new(write::PgLane::new(self.config.clone(), session, claimed));
            Ok(lane)
        })
    }

    fn apply_ddl<'a>(&'a mut self, step: &'a DdlStep) -> Fut<'a, Result<(), SinkError>> {
        Box::pin(async move {
            let config = self.config.clone();
            ddl::apply(&config, self.control().await?, step).await
        })
    }

    fn shutdown(&mut self) -> Fut<'_, ()> {
        self.control = None;
        self.claimed = None;
        Box::pin(std::future::ready(()))
    }

    fn forget<'a>(&'a mut self, owner: &'a Owner) -> Fut<'a, Result<(), SinkError>> {
        Box::pin(async move {
            let session = Session::connect(&self.config.connect, "catchwater/forget", SETTINGS).await;
            let session = session.map_err(|f| fault(&self.config, f))?;
            position::forget(&self.config, &session, owner).await
        })
    }

    fn forget_sql(&self, owner: &Owner) -> String {
        position::forget_sql(&self.config, owner.pipeline.as_str(), owner.sink.as_str(), &owner.cluster)
    }
}

impl Claimed {
    fn seq(&self) -> i64 {
        self.seq.load(Ordering::SeqCst)
    }
    fn advanced(&self, seq: i64) {
        self.seq.store(seq, Ordering::SeqCst);
    }
}
