//! Tables that a pattern takes and that were made after the source began: they join the publication, at a start and while
//! the source streams. What they hold by then the worker reads (`capture::worker::late`), but where the snapshot mode says no.
//!
//! A publication that Catchwater did not make is not changed; a line says what it lacks.

use super::autoset;
use super::entries::Entries;
use super::open::{Publication, quoted};
use super::{CATALOGUE_LATE_MAX, Known, Running, SourceConfig, login, source_error};
use crate::catalog::{self, CatalogTable, Wanted};
use crate::codes::source as code;
use crate::config::{STATE_SCHEMA, quote_ident};
use crate::fault::Fault;
use crate::session::Session;
use crate::types::{binary, schema::PgTypes};
use catchwater_base::log;
use catchwater_capture::source::{EventBatch, Item, SourceClass, SourceError};
use catchwater_change::TableSchema;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A table that somebody locks is tried again at the next look: the stream does not wait for it.
const LOCK_LIMIT: &str = "1s";

/// What was said of late tables, and whether the publication may be changed.
#[derive(Debug, Default)]
pub(super) struct Late {
    /// The publication was made by this source.
    pub made: bool,
    /// Relations of which a line was written.
    told: BTreeSet<u32>,
}

pub(super) fn full(t: &CatalogTable) -> String {
    format!("{}.{}", t.schema, t.name)
}

/// The file names it, not by a pattern alone.
pub(super) fn is_named(config: &SourceConfig, t: &CatalogTable) -> bool {
    config.tables.iter().any(|r| r.schema == t.schema && r.name == t.name)
}

/// It was not there when the tables were last looked at. Without notes of that nobody knows; a publication of all tables has
/// no entries.
pub(super) fn is_late(config: &SourceConfig, t: &CatalogTable, before: Option<&Entries>) -> bool {
    let known = before.filter(|b| !b.of.is_empty());
    known.is_some_and(|b| !b.of.contains_key(&t.oid)) && !is_named(config, t)
}

/// Tables that patterns take now, by relation: names alone.
pub(super) async fn patterned(config: &SourceConfig, sql: &Session) -> Result<BTreeMap<u32, String>, SourceError> {
    let every = config.lists.adds();
    let schemas: Vec<&str> = config.tables.iter().filter(|t| t.is_pattern()).map(|t| t.schema.as_str()).collect();
    if !every && schemas.is_empty() {
        return Ok(BTreeMap::new());
    }
    let (leaves, roots) = (config.leaves || config.reading.leaves, config.takes_roots());
    let text = "SELECT c.oid, n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE ($1 OR n.nspname = ANY($2::text[])) AND (c.relkind = 'r' OR c.relkind = 'p' AND $4) AND c.relpersistence = 'p' \
           AND ($3 OR NOT c.relispartition) AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%' \
           AND n.nspname <> $5";
    let rows = sql.client.query(text, &[&every, &schemas, &leaves, &roots, &STATE_SCHEMA]).await;
    let rows = rows.map_err(|e| source_error(config, Fault::from(e)))?;
    let name = |r: &tokio_postgres::Row| (r.get::<_, String>(1), r.get::<_, String>(2));
    let taken = rows.iter().filter(|r| {
        let (schema, table) = name(r);
        config.captures(&schema, &table)
    });
    Ok(taken.map(|r| (r.get(0), format!("{}.{}", r.get::<_, String>(1), r.get::<_, String>(2)))).collect())
}

impl Running {
    /// What the wire says of a table does not tell a column from one that is made anew under its name. As the open transaction
    /// left it: a commit is in the stream before views show it (capture.md 7.4).
    pub(super) async fn has_dropped(&mut self, config: &SourceConfig, oid: u32) -> Result<bool, SourceError> {
        if self.sql.client.is_closed() {
            self.sql = login::session(config).await?;
        }
        let text = "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_attribute WHERE attrelid = $1 AND attnum > 0 AND attisdropped), \
             pg_catalog.pg_visible_in_snapshot($2::pg_catalog.text::pg_catalog.xid8, pg_catalog.pg_current_snapshot())";
        let until = Instant::now() + CATALOGUE_LATE_MAX;
        let mut pause = Duration::from_millis(1);
        loop {
            let row = self.sql.client.query_one(text, &[&oid, &self.xid.to_string()]).await;
            let row = row.map_err(|e| source_error(config, Fault::from(e)))?;
            if row.get::<_, bool>(1) || Instant::now() >= until {
                return Ok(row.get(0));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Tables that came to the publication: their shapes are given out before any row of theirs, so that what they have already
    /// can be read.
    pub(super) async fn announce(
        &mut self,
        config: &SourceConfig,
        new: &[u32],
        generated: bool,
        out: &mut EventBatch,
    ) -> Result<(), SourceError> {
        if new.is_empty() {
            return Ok(());
        }
        let found = catalog::load(&self.sql.client, Wanted::Oids(new), &mut self.types).await;
        for mut table in found.map_err(|fault| source_error(config, fault))? {
            if self.binary && !table.captured().all(|c| binary::fits(&self.types, c.type_oid)) {
                return Err(text_from_now_on(config, &full(&table)));
            }
            table.generated_sent = generated;
            table.generated_read = config.without_identity;
            let schema = Arc::new(table.table_schema(&self.types));
            self.tables.insert(table.oid, Known { told: true, ..Known::of(&table, schema.clone()) });
            out.push(Item::Schema(schema));
        }
        Ok(())
    }
}

/// The server chooses one form for all columns of a stream.
pub(super) fn text_from_now_on(config: &SourceConfig, table: &str) -> SourceError {
    config.text_only.store(true, Ordering::Relaxed);
    let what = format!("table {table} has a column now whose binary form is not known: the stream goes on as text");
    SourceError::new(SourceClass::Retry, code::LOST, what, "")
}

impl Known {
    /// As the catalogue shows it.
    pub(super) fn of(table: &CatalogTable, schema: Arc<TableSchema>) -> Known {
        let body = catalog::fingerprint(&table.relation().body, table.generated_read);
        Known { schema, body, told: false, waits: false }
    }
}

impl Late {
    pub fn new(made: bool) -> Self {
        Late { made, told: BTreeSet::new() }
    }

    /// Of `shown`, what is neither known nor published joins. True if the publication was changed.
    pub async fn look(
        &mut self,
        config: &SourceConfig,
        sql: &Session,
        found: &Publication,
        shown: &BTreeMap<u32, String>,
        known: impl Fn(u32) -> bool,
    ) -> Result<bool, SourceError> {
        let is_new = |(oid, name): &(&u32, &String)| !known(**oid) && !found.tables.contains(name);
        let oids: Vec<u32> = shown.iter().filter(is_new).map(|(oid, _)| *oid).collect();
        if oids.is_empty() {
            return Ok(false);
        }
        let late = catalog::load(&sql.client, Wanted::Oids(&oids), &mut PgTypes::new()).await;
        let mut late = late.map_err(|f| source_error(config, f))?;
        if autoset::set(config, sql, &late).await? {
            let again = catalog::load(&sql.client, Wanted::Oids(&oids), &mut PgTypes::new()).await;
            late = again.map_err(|f| source_error(config, f))?;
        }
        Ok(self.join(config, sql, found, &late).await)
    }

    /// True if the publication has them now.
    pub async fn join(
        &mut self,
        config: &SourceConfig,
        sql: &Session,
        found: &Publication,
        late: &[CatalogTable],
    ) -> bool {
        let late = late.iter().filter(|t| !found.implies(t));
        let (without, fit): (Vec<&CatalogTable>, Vec<&CatalogTable>) =
            late.partition(|t| t.lacks_identity() && !config.without_identity);
        for t in without {
            self.tell_without_identity(config, t);
        }
        if fit.is_empty() {
            return false;
        }
        let list = fit.iter().map(|t| quoted(t)).collect::<Vec<_>>().join(", ");
        let names = fit.iter().map(|t| full(t)).collect::<Vec<_>>().join(", ");
        let (source, publication) = (config.source.as_str(), config.publication());
        let change = format!("ALTER PUBLICATION {} ADD TABLE {list}", quote_ident(&publication));
        // Said once; what is in the way is looked at again.
        let news = fit.iter().any(|t| !self.told.contains(&t.oid));
        self.told.extend(fit.iter().map(|t| t.oid));
        if !self.made {
            if !news {
                return false;
            }
            log!(
                Warn,
                "source.late_table",
                "source {source}: {names} came later and fits the file's tables, but publication {publication} has it not: nothing of \
                 it is captured; to do so: {change}"
            );
            return false;
        }
        let batch = format!("BEGIN; SET LOCAL lock_timeout = '{LOCK_LIMIT}'; {change}; COMMIT");
        match sql.client.batch_execute(&batch).await {
            Ok(()) => {
                log!(
                    Info,
                    "source.late_table",
                    "source {source}: {names} came later, is in publication {publication} and captured from now on"
                );
                true
            }
            Err(e) => {
                let _ = sql.client.batch_execute("ROLLBACK").await;
                let fault = Fault::from(e);
                if news {
                    log!(
                        Warn,
                        "source.late_table",
                        "source {source}: {names} came later and is not captured yet, the publication could not be changed (tried again): \
                         {fault}; to do so: {change}"
                    );
                }
                false
            }
        }
    }

    /// Published, the application's own UPDATE and DELETE on it would fail; not a reason to stop what runs.
    pub fn tell_without_identity(&mut self, config: &SourceConfig, t: &CatalogTable) {
        if self.told.insert(t.oid) {
            log!(
                Warn,
                "source.late_table",
                "source {}: {} came later and is not captured, for it has no replica identity: give it a primary key, or: ALTER TABLE {} \
                 REPLICA IDENTITY FULL; then it joins",
                config.source.as_str(),
                full(t),
                quoted(t)
            );
        }
    }
}
