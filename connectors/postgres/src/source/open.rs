//! Opening a source: who the server is, publication, slot, and the checks that keep a gap from being silent
//! (capture.md 8.3). Nothing is re-created, skipped or widened here on its own: what does not fit is an error with the
//! next step. The one exception: a slot whose IDENTITY in the log has no consistent point never gave a row to the log,
//! so it is ours, half made, and is made again.

use super::ahead::Ahead;
use super::autoset;
use super::decode::POSTGRES_EPOCH_MICROS;
use super::detach::remove_sql;
use super::entries::{Entries, warn_written, was_away};
use super::former::{self, publish};
use super::large::Large;
use super::late::{Late, full, is_late, is_named};
use super::leaves::Leaves;
use super::login::{replication, session};
use super::remade::Remade;
use super::slot::{self, SlotRow, Verdict};
use super::snapshot::Export;
use super::stream::{Ask, Stream, parse_lsn};
use super::timeline::{check_end, check_timeline, history};
use super::transport::{Rows, Transport};
use super::{Known, PgSource, Running, SYSTEM, SourceConfig, Taken, source_error};
use crate::catalog::{self, CatalogTable, Wanted};
use crate::codes::source as code;
use crate::config::quote_ident;
use crate::fault::Fault;
use crate::session::Session;
use crate::types::{binary, schema::PgTypes};
use bytes::Bytes;
use catchwater_base::{Mono, crash_point, log};
use catchwater_capture::source::{Identity, Opened, SlotState, SourceClass, SourceError, identity_tag as tag};
use catchwater_change::{Native, TableSchema};
use catchwater_runtime::time::{SystemClock, sleep};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Oldest server we stream from: `messages`, Tid Range Scan, `pg_current_snapshot` are all there.
pub(super) const VERSION_MIN: i32 = 140_000;
/// The next step of a person who has more tables than `guardrail.collections.max`.
pub(super) const GUARDRAIL_CURE: &str = "name fewer tables, or raise guardrail.collections.max";
/// Wait for an older worker's connection to end after it was terminated, and how often to look.
const RELEASE_TRIES: u32 = 100;
const RELEASE_PAUSE: Duration = Duration::from_millis(100);

/// First server that sends stored generated columns, if the publication says so.
pub(super) const GENERATED_MIN: i32 = 180_000;
/// First server that copies a slot to its standbys.
const FAILOVER_MIN: i32 = 170_000;

const _: () = assert!(POSTGRES_EPOCH_MICROS > 0);

/// Text of row 0, column `at`.
fn field(rows: &Rows, at: usize) -> Option<String> {
    let bytes = rows.first()?.get(at)?.as_ref()?;
    Some(String::from_utf8_lossy(bytes).into_owned())
}

struct System {
    id: u64,
    timeline: u32,
    /// Where its log ends.
    end: u64,
}

async fn identify_system(config: &SourceConfig, transport: &mut Transport) -> Result<System, SourceError> {
    let rows = transport.query("IDENTIFY_SYSTEM").await.map_err(|f| source_error(config, f))?;
    let number = |at| field(&rows, at).and_then(|t| t.parse::<u64>().ok());
    match (number(0), number(1), field(&rows, 2).as_deref().and_then(parse_lsn)) {
        (Some(id), Some(timeline), Some(end)) => Ok(System { id, timeline: timeline as u32, end }),
        _ => Err(source_error(config, Fault::Protocol("IDENTIFY_SYSTEM has no answer".into()))),
    }
}

fn identity_of(config: &SourceConfig, system: &System, version: i32) -> Identity {
    let mut tags = BTreeMap::new();
    tags.insert(tag::SYSTEM_ID, Bytes::copy_from_slice(&system.id.to_be_bytes()));
    tags.insert(tag::TIMELINE, Bytes::copy_from_slice(&system.timeline.to_be_bytes()));
    tags.insert(tag::DATABASE, Bytes::from(config.connect.database.clone()));
    tags.insert(tag::SERVER_VERSION, Bytes::from(version.to_string()));
    Identity { system: SYSTEM, tags }
}

pub(super) async fn identify(config: &SourceConfig) -> Result<Identity, SourceError> {
    let mut transport = replication(config).await?;
    let system = identify_system(config, &mut transport).await;
    transport.close().await;
    let sql = session(config).await?;
    let version = sql.version().await.map_err(|f| source_error(config, f))?;
    let mut identity = identity_of(config, &system?, version);
    // The slot's name stands in the identity only if it was seen free: what appears under it later is ours.
    if slot_row(config, &sql).await?.is_none() {
        identity.tags.insert(tag::SLOT, Bytes::from(config.slot()));
        identity.tags.insert(tag::PUBLICATION, Bytes::from(config.publication()));
        // So does this mark of the publication, which may be another's even then.
        if publication(config, &sql, version).await?.is_none() {
            identity.tags.insert(tag::PUBLICATION_MADE, Bytes::new());
        }
    }
    Ok(identity)
}

fn same_server(known: &Option<Identity>, now: &Identity) -> Result<(), SourceError> {
    let Some(known) = known else { return Ok(()) };
    for (name, tag) in [("system identifier", tag::SYSTEM_ID), ("database", tag::DATABASE)] {
        let show = |i: &Identity| match i.tags.get(&tag) {
            Some(b) if tag == tag::SYSTEM_ID => {
                <[u8; 8]>::try_from(&b[..]).map(|b| u64::from_be_bytes(b).to_string()).unwrap_or_default()
            }
            Some(b) => String::from_utf8_lossy(b).into_owned(),
            None => String::new(),
        };
        if known.tags.contains_key(&tag) && known.tags.get(&tag) != now.tags.get(&tag) {
            return Err(SourceError::new(
                SourceClass::Identity,
                code::OTHER_SERVER,
                format!("this is another server: its {name} is {}, the log knows {}", show(now), show(known)),
                "point the URL at the right server; after a restore the source must be read again",
            ));
        }
    }
    Ok(())
}

pub(super) async fn slot_row(config: &SourceConfig, sql: &Session) -> Result<Option<SlotRow>, SourceError> {
    let rows = sql
        .client
        .query(
            "SELECT coalesce(s.plugin::text, ''), coalesce(s.database::text, ''), s.active_pid, a.application_name, \
               s.confirmed_flush_lsn::text, coalesce(s.wal_status, '') \
             FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid WHERE s.slot_name = $1::text::name",
            &[&config.slot()],
        )
        .await
        .map_err(|e| source_error(config, e.into()))?;
    Ok(rows.first().map(|r| SlotRow {
        plugin: r.get(0),
        database: r.get(1),
        active_pid: r.get(2),
        active_application: r.get(3),
        confirmed: r.get::<_, Option<String>>(4).as_deref().and_then(parse_lsn),
        wal_status: r.get(5),
    }))
}

/// What the server keeps because of the slot; `None` = it does not say.
pub(super) async fn slot_state(config: &SourceConfig, sql: &Session) -> Option<SlotState> {
    let row = sql
        .client
        .query_opt(
            "SELECT greatest(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, \
               restart_lsn), 0)::int8, coalesce(wal_status, 'unknown'), safe_wal_size \
             FROM pg_replication_slots WHERE slot_name = $1::text::name",
            &[&config.slot()],
        )
        .await
        .ok()??;
    Some(SlotState {
        retained_bytes: row.get::<_, Option<i64>>(0)?.unsigned_abs(),
        wal_status: row.get(1),
        safe_bytes: row.get(2),
    })
}

/// Judges the slot; an older connection of ours that still holds it is ended first.
async fn claim_slot(config: &SourceConfig, sql: &Session, position: Option<u64>) -> Result<(), SourceError> {
    let mut terminated = false;
    for _ in 0..RELEASE_TRIES {
        let row = slot_row(config, sql).await?;
        let verdict = slot::judge(
            &config.slot(),
            row.as_ref(),
            &config.connect.database,
            position,
            config.source.as_str(),
            config.epoch,
        )?;
        match verdict {
            Verdict::Free => return Ok(()),
            Verdict::OursBefore { pid } if !terminated => {
                terminated = true;
                let done = sql.client.execute("SELECT pg_terminate_backend($1)", &[&pid]).await;
                done.map_err(|e| source_error(config, e.into()))?;
            }
            Verdict::OursBefore { .. } => {}
        }
        sleep(RELEASE_PAUSE).await;
    }
    let limit = RELEASE_PAUSE * RELEASE_TRIES;
    Err(SourceError::new(
        SourceClass::Retry,
        code::SLOT_IN_USE,
        format!(
            "replication slot {} is still held by an older worker of ours after {} s",
            config.slot(),
            limit.as_secs()
        ),
        "",
    ))
}

/// The captured tables as they are now: those of the file, patterns resolved.
pub(super) async fn tables(
    config: &SourceConfig,
    sql: &Session,
    types: &mut PgTypes,
    before: Option<(&Entries, &mut Late)>,
) -> Result<Vec<CatalogTable>, SourceError> {
    let found = catalog::load(&sql.client, Wanted::Captured(config), types).await;
    let mut found = found.map_err(|f| source_error(config, f))?;
    if autoset::set(config, sql, &found).await? {
        let again = catalog::load(&sql.client, Wanted::Captured(config), types).await;
        found = again.map_err(|f| source_error(config, f))?;
    }
    if let Some((before, late)) = before {
        // One that a pattern takes and that came later does not stop the others.
        let unfit = |t: &CatalogTable| t.lacks_identity() && !config.without_identity;
        found.retain(|t| {
            let left_out = unfit(t) && is_late(config, t, Some(before));
            if left_out {
                late.tell_without_identity(config, t);
            }
            !left_out
        });
    }
    limited(config, found.len())?;
    let missing = config.missing(found.iter().map(|f| (f.schema.as_str(), f.name.as_str())));
    if !missing.is_empty() {
        return Err(SourceError::new(
            SourceClass::Config,
            code::NO_TABLE,
            format!("database {} has no table {}", config.connect.database, missing.join(", ")),
            "check the spelling; names are case-sensitive and need their schema unless it is public",
        ));
    }
    for t in &found {
        let name = format!("{}.{}", t.schema, t.name);
        if let Some(what) = uncapturable(config, t) {
            return Err(SourceError::new(
                SourceClass::Config,
                code::TABLE_KIND,
                format!("{name} is {what}: the server writes no logical changes of it"),
                "take it out of the source's tables",
            ));
        }
        if t.lacks_identity() && !config.without_identity {
            return Err(SourceError::new(
                SourceClass::Config,
                code::NO_IDENTITY,
                format!(
                    "table {name} has no replica identity: once it is published, the application's own UPDATE and DELETE on it would fail"
                ),
                format!("give it a primary key, or: ALTER TABLE {} REPLICA IDENTITY FULL;", quoted(t)),
            ));
        }
    }
    Ok(found)
}

/// `guardrail.collections.max`: more tables than that are said, or none is captured.
fn limited(config: &SourceConfig, tables: usize) -> Result<(), SourceError> {
    let Some((guardrail, what)) = config.above_guardrail(tables) else { return Ok(()) };
    if guardrail.fails {
        return Err(SourceError::new(SourceClass::Config, code::GUARDRAIL, what, GUARDRAIL_CURE));
    }
    log!(Warn, "source.guardrail", "source {}: {what}", config.source);
    Ok(())
}

pub(super) fn quoted(t: &CatalogTable) -> String {
    format!("{}.{}", quote_ident(&t.schema), quote_ident(&t.name))
}

/// Why a relation cannot be captured.
pub(super) fn uncapturable(config: &SourceConfig, t: &CatalogTable) -> Option<&'static str> {
    match (t.kind, t.persistence) {
        (b'p', _) if !config.takes_roots() => Some("a partitioned table, captured by its partitions alone"),
        (b'r' | b'p', b'p') => None,
        (b'r' | b'p', b'u') => Some("an unlogged table"),
        (b'r' | b'p', b't') => Some("a temporary table"),
        (b'v', _) => Some("a view"),
        (b'm', _) => Some("a materialized view"),
        (b'f', _) => Some("a foreign table"),
        _ => Some("not a table"),
    }
}

/// What a publication is, as far as it matters.
pub(super) struct Publication {
    pub oid: u32,
    /// All four kinds of changes.
    pub complete: bool,
    /// Rows of partitions come under their root.
    pub via_root: bool,
    /// Row filters or column lists.
    pub filtered: bool,
    /// Stored generated columns are sent (18).
    pub generated: bool,
    /// `schema.table`, ascending.
    pub tables: Vec<String>,
}

pub(super) async fn publication(
    config: &SourceConfig,
    sql: &Session,
    version: i32,
) -> Result<Option<Publication>, SourceError> {
    let name = config.publication();
    let fail = |e: tokio_postgres::Error| source_error(config, e.into());
    let row = sql
        .client
        .query_opt(
            "SELECT oid, pubinsert AND pubupdate AND pubdelete AND pubtruncate, pubviaroot FROM pg_publication WHERE pubname = $1::text::name",
            &[&name],
        )
        .await
        .map_err(fail)?;
    let Some(row) = row else { return Ok(None) };
    let (oid, complete, via_root): (u32, bool, bool) = (row.get(0), row.get(1), row.get(2));
    let filtered = version >= 150_000
        && {
            let row = sql
            .client
            .query_one(
                "SELECT coalesce(bool_or(prqual IS NOT NULL OR prattrs IS NOT NULL), false) FROM pg_publication_rel WHERE prpubid = $1::oid",
                &[&oid],
            )
            .await
            .map_err(fail)?;
            row.get::<_, bool>(0)
        };
    let generated = version >= GENERATED_MIN && {
        let row =
            sql.client.query_one("SELECT pubgencols = 's' FROM pg_publication WHERE oid = $1::oid", &[&oid]).await;
        row.map_err(fail)?.get::<_, bool>(0)
    };
    let rows = sql
        .client
        .query(
            "SELECT schemaname || '.' || tablename FROM pg_publication_tables WHERE pubname = $1::text::name ORDER BY schemaname, tablename",
            &[&name],
        )
        .await
        .map_err(fail)?;
    Ok(Some(Publication {
        oid,
        complete,
        via_root,
        filtered,
        generated,
        tables: rows.iter().map(|r| r.get(0)).collect(),
    }))
}

/// The difference between a publication and the captured tables, if any, and what to do. A publication that was narrower
/// while the source was in use has kept changes from the stream for good: its SQL would only hide that.
pub(super) fn difference(
    config: &SourceConfig,
    publication: &Publication,
    tables: &[CatalogTable],
    fresh: bool,
    before: Option<&Entries>,
    version: i32,
) -> Option<(String, String)> {
    let name = full;
    // A table that a pattern takes and that came later may be missing; one that was there may not.
    let was_there = |t: &CatalogTable| before.is_some_and(|b| b.of.contains_key(&t.oid));
    let asked = |t: &CatalogTable| fresh || is_named(config, t) || was_there(t);
    let named = |t: &&CatalogTable| asked(t) && !publication.implies(t);
    let missing: Vec<String> =
        tables.iter().filter(named).map(name).filter(|n| !publication.tables.contains(n)).collect();
    // What was taken out of the file is left out of the stream.
    let is_extra = |n: &&String| !tables.iter().any(|t| name(t) == **n) && !config.former.meant_full(n);
    let extra: Vec<String> = publication.tables.iter().filter(is_extra).cloned().collect();
    let mut faults = Vec::new();
    if !missing.is_empty() {
        faults.push(format!("it lacks {}", missing.join(", ")));
    }
    // One that was taken over is as its owner made it: what it has besides is left out, what it lacks was never captured.
    let taken = config.taken.is_some();
    if !extra.is_empty() && !taken {
        faults.push(format!("it has {} besides", extra.join(", ")));
    }
    if !publication.complete && !taken {
        faults.push("it does not publish insert, update, delete and truncate".to_owned());
    }
    let any = |of: fn(&CatalogTable) -> bool| tables.iter().any(of);
    let wrong = match config.reading.leaves {
        true => (publication.via_root && any(|t| t.partition)).then_some("it publishes partitions through their roots"),
        false => {
            (!publication.via_root && any(|t| t.kind == b'p')).then_some("it does not publish through partition roots")
        }
    };
    faults.extend(wrong.map(str::to_owned));
    if publication.filtered && !taken {
        faults.push("it has row filters or column lists".to_owned());
    }
    if faults.is_empty() {
        return None;
    }
    let ident = quote_ident(&config.publication());
    let list: Vec<String> = tables.iter().map(quoted).collect();
    let sql = format!(
        "ALTER PUBLICATION {ident} SET TABLE {}; ALTER PUBLICATION {ident} SET {};",
        list.join(", "),
        publish(config, version)
    );
    let next = match (fresh, publication.complete && !publication.filtered, missing.is_empty()) {
        (true, ..) | (false, true, true) => sql,
        (false, true, false) => format!(
            "if a table is new in the file, run: {sql} but where it was captured before, changes are missing and the source must be read again"
        ),
        (false, false, _) => "changes that it did not publish are missing: the source must be read again".to_owned(),
    };
    Some((faults.join("; "), next))
}

pub(super) fn create_publication_sql(config: &SourceConfig, tables: &[CatalogTable], version: i32) -> String {
    let list = tables.iter().map(quoted).collect::<Vec<_>>().join(", ");
    format!(
        "CREATE PUBLICATION {} FOR TABLE {list} WITH {}",
        quote_ident(&config.publication()),
        publish(config, version)
    )
}

fn oids(tables: &[CatalogTable]) -> Vec<u32> {
    tables.iter().map(|t| t.oid).collect()
}

pub(super) fn publication_differs(config: &SourceConfig, what: &str, sql: String) -> SourceError {
    SourceError::new(
        SourceClass::Config,
        code::PUBLICATION,
        format!("publication {} does not fit the source: {what}", config.publication()),
        sql,
    )
}

impl PgSource {
    pub(super) async fn open_fresh(&mut self, known: Option<Identity>) -> Result<Opened, SourceError> {
        let config = &self.config;
        let fail = |f: Fault| source_error(config, f);
        let sql = session(config).await?;
        let version = sql.version().await.map_err(fail)?;
        if version < VERSION_MIN {
            return Err(too_old(version));
        }
        let mut exporter = replication(config).await?;
        let system = identify_system(config, &mut exporter).await?;
        let mut identity = identity_of(config, &system, version);
        same_server(&known, &identity)?;
        if config.failover && version < FAILOVER_MIN {
            return Err(no_failover(version));
        }
        let mut types = PgTypes::new();
        let mut tables = tables(config, &sql, &mut types, None).await?;
        if tables.is_empty() {
            return Err(SourceError::new(
                SourceClass::Config,
                code::NO_TABLE,
                "no table matches the source's tables",
                "",
            ));
        }

        if let Some(taken) = config.taken {
            return self.open_taken(taken, sql, version, tables, types, identity).await;
        }
        let half_made = known.as_ref().is_some_and(|k| {
            k.tags.get(&tag::SLOT).is_some_and(|s| s == config.slot().as_bytes())
                && !k.tags.contains_key(&tag::CONSISTENT_POINT)
        });
        if slot_row(config, &sql).await?.is_some() {
            if !half_made {
                return Err(SourceError::new(
                    SourceClass::Config,
                    code::SLOT_FOREIGN,
                    format!("replication slot {} exists, and the log knows nothing of it", config.slot()),
                    format!(
                        "another log uses it, or a throw-away dev that was killed left it; if nobody needs it: {}",
                        remove_sql(config, true, config.publication.is_none())
                    ),
                ));
            }
            claim_slot(config, &sql, None).await?;
            let dropped =
                sql.client.execute("SELECT pg_drop_replication_slot($1::text::name)", &[&config.slot()]).await;
            dropped.map_err(|e| fail(e.into()))?;
        }

        let mut publication_made = known.as_ref().is_some_and(|k| k.tags.contains_key(&tag::PUBLICATION_MADE));
        let (publication_oid, generated) = match publication(config, &sql, version).await? {
            Some(found) => {
                if let Some((what, sql)) = difference(config, &found, &tables, true, None, version) {
                    return Err(publication_differs(config, &what, sql));
                }
                (found.oid, found.generated)
            }
            None => {
                sql.client.batch_execute(&create_publication_sql(config, &tables, version)).await.map_err(|e| {
                    let fault = Fault::from(e);
                    match fault.sqlstate() {
                        "42501" => SourceError::new(
                            SourceClass::Rights,
                            code::NO_PUBLICATION_RIGHT,
                            format!("user '{}' may not create the publication: {fault}", config.connect.user),
                            format!("as a superuser: {};", create_publication_sql(config, &tables, version)),
                        ),
                        _ => source_error(config, fault),
                    }
                })?;
                publication_made = true;
                publication(config, &sql, version).await?.map_or((0, false), |p| (p.oid, p.generated))
            }
        };
        tables.iter_mut().for_each(|t| t.generated_sent = generated);
        if publication_made {
            identity.tags.insert(tag::PUBLICATION_MADE, Bytes::new());
        }

        crash_point!("source.before_slot");
        let options = match version {
            ..150_000 => "EXPORT_SNAPSHOT",
            _ if config.failover => "(SNAPSHOT 'export', FAILOVER true)",
            _ => "(SNAPSHOT 'export')",
        };
        let command = format!("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput {options}", quote_ident(&config.slot()));
        let made = exporter.query(&command).await.map_err(|fault| match fault.sqlstate() {
            "53400" => SourceError::new(
                SourceClass::Config,
                code::NO_FREE_SLOT,
                format!("no free replication slot: {fault}"),
                "drop an unused slot, or raise max_replication_slots and restart the server",
            ),
            "55000" => SourceError::new(
                SourceClass::Config,
                code::WAL_LEVEL,
                format!("the server does not write logical changes: {fault}"),
                "ALTER SYSTEM SET wal_level = 'logical'; then restart the server",
            ),
            _ => source_error(config, fault),
        })?;
        crash_point!("source.after_slot");
        let (point, snapshot_name) = match (field(&made, 1).as_deref().and_then(parse_lsn), field(&made, 2)) {
            (Some(point), Some(name)) => (point, name),
            _ => return Err(fail(Fault::Protocol("CREATE_REPLICATION_SLOT has no answer".into()))),
        };
        for (t, bytes) in [
            (tag::SLOT, Bytes::from(config.slot())),
            (tag::CONSISTENT_POINT, Bytes::copy_from_slice(&point.to_be_bytes())),
            (tag::PUBLICATION_OID, Bytes::copy_from_slice(&publication_oid.to_be_bytes())),
            (tag::PUBLICATION, Bytes::from(config.publication())),
        ] {
            identity.tags.insert(t, bytes);
        }
        let entries = Entries::of(config, &sql, version, publication_oid, &oids(&tables)).await?;
        identity.tags.insert(tag::PUBLICATION_ENTRIES, Bytes::from(entries.encode()));
        Leaves::look(config, &sql, &oids(&tables)).await?.note(&mut identity);
        // The catalogue may have changed since the tables were read; the stream's Relations bring it right.
        let opened = self.run(sql, version, point, &tables, types, identity).await?;
        if let Some(running) = &mut self.open {
            running.last_commit_lsn = None;
        }
        self.export = Some(Arc::new(Export::new(exporter, snapshot_name, point)));
        Ok(opened)
    }

    /// The first start on another's slot and publication: nothing is made, and nothing is read but the stream.
    async fn open_taken(
        &mut self,
        taken: Taken,
        sql: Session,
        version: i32,
        mut tables: Vec<CatalogTable>,
        types: PgTypes,
        mut identity: Identity,
    ) -> Result<Opened, SourceError> {
        let config = &self.config;
        claim_slot(config, &sql, Some(taken.commit)).await.map_err(|e| match e.code.0 {
            // Its owner was stopped, and the server may not have seen the end of its connection.
            code::SLOT_IN_USE => SourceError { class: SourceClass::Retry, ..e },
            _ => e,
        })?;
        let Some(found) = publication(config, &sql, version).await? else {
            return Err(SourceError::new(
                SourceClass::Config,
                code::PUBLICATION,
                format!("publication {} does not exist", config.publication()),
                "name the publication that the slot was used with",
            ));
        };
        if let Some((what, sql)) = difference(config, &found, &tables, true, None, version) {
            return Err(publication_differs(config, &what, sql));
        }
        tables.iter_mut().for_each(|t| t.generated_sent = found.generated);
        for (t, bytes) in [
            (tag::SLOT, Bytes::from(config.slot())),
            (tag::CONSISTENT_POINT, Bytes::copy_from_slice(&taken.commit.to_be_bytes())),
            (tag::PUBLICATION_OID, Bytes::copy_from_slice(&found.oid.to_be_bytes())),
            (tag::PUBLICATION, Bytes::from(config.publication())),
        ] {
            identity.tags.insert(t, bytes);
        }
        let entries = Entries::of(config, &sql, version, found.oid, &oids(&tables)).await?;
        identity.tags.insert(tag::PUBLICATION_ENTRIES, Bytes::from(entries.encode()));
        Leaves::look(config, &sql, &oids(&tables)).await?.note(&mut identity);
        self.run(sql, version, taken.commit, &tables, types, identity).await
    }

    pub(super) async fn open_after(&mut self, native: Native, known: Option<Identity>) -> Result<Opened, SourceError> {
        let config = &self.config;
        let Some(position) = native.as_postgres() else {
            let what = format!("position {native} is not one of PostgreSQL");
            return Err(SourceError::new(SourceClass::Identity, code::OTHER_SERVER, what, ""));
        };
        let sql = session(config).await?;
        let version = sql.version().await.map_err(|f| source_error(config, f))?;
        let mut transport = replication(config).await?;
        let system = identify_system(config, &mut transport).await?;
        let mut identity = identity_of(config, &system, version);
        same_server(&known, &identity)?;
        if let Some(known) = &known {
            let before = known.tags.get(&tag::TIMELINE).and_then(|b| <[u8; 4]>::try_from(&b[..]).ok());
            if let Some(before) = before.map(u32::from_be_bytes).filter(|t| *t != system.timeline) {
                let history = history(config, &mut transport, system.timeline).await?;
                check_timeline(before, system.timeline, position, &history)?;
                identity.tags.insert(tag::TIMELINE_HISTORY, Bytes::from(history));
            }
            let kept = [
                tag::SLOT,
                tag::CONSISTENT_POINT,
                tag::PUBLICATION_OID,
                tag::PUBLICATION,
                tag::PUBLICATION_MADE,
                tag::TIMELINE_HISTORY,
            ];
            for t in kept {
                if let Some(bytes) = known.tags.get(&t) {
                    identity.tags.entry(t).or_insert_with(|| bytes.clone());
                }
            }
        }
        check_end(system.end, position)?;
        transport.close().await;
        claim_slot(config, &sql, Some(position)).await?;
        let mut types = PgTypes::new();
        let before = known.as_ref().and_then(|k| Entries::decode(k.tags.get(&tag::PUBLICATION_ENTRIES)?));
        let mut late = Late::new(identity.tags.contains_key(&tag::PUBLICATION_MADE));
        let tables = tables(config, &sql, &mut types, before.as_ref().map(|b| (b, &mut late))).await?;
        let Some(mut found) = publication(config, &sql, version).await? else {
            return Err(SourceError::new(
                SourceClass::Config,
                code::PUBLICATION,
                format!("publication {} does not exist any more", config.publication()),
                "changes made since it was dropped are not in the stream: the source must be read again",
            ));
        };
        if late.made
            && let Some(followed) = former::follow(config, &sql, version, &found, &tables).await
        {
            found = followed;
        }
        if let Some((what, sql)) = difference(config, &found, &tables, false, before.as_ref(), version) {
            return Err(publication_differs(config, &what, sql));
        }
        let is_new = |t: &&CatalogTable| is_late(config, t, before.as_ref()) && !found.tables.contains(&full(t));
        let new: Vec<CatalogTable> = tables.iter().filter(is_new).cloned().collect();
        if late.join(config, &sql, &found, &new).await
            && let Some(joined) = publication(config, &sql, version).await?
        {
            found = joined;
        }
        let made_as = identity.tags.get(&tag::PUBLICATION_OID).and_then(|b| <[u8; 4]>::try_from(&b[..]).ok());
        if made_as.map(u32::from_be_bytes).is_some_and(|oid| oid != found.oid) {
            let what = "it was dropped and made again: changes made meanwhile are not in the stream";
            return Err(publication_differs(config, what, "the source must be read again".into()));
        }
        let entries = Entries::of(config, &sql, version, found.oid, &oids(&tables)).await?;
        if let Some(before) = before {
            if let Some(relation) = Entries::was_away(&before, &entries) {
                let name = tables.iter().find(|t| t.oid == relation).map(|t| format!("{}.{}", t.schema, t.name));
                return Err(was_away(config, &name.unwrap_or_default()));
            }
            if before.written_by != entries.written_by {
                warn_written(config);
            }
        }
        identity.tags.insert(tag::PUBLICATION_ENTRIES, Bytes::from(entries.encode()));
        let mut leaves = known.and_then(|k| Some(Leaves::decode(k.tags.get(&tag::PARTITIONS)?))).unwrap_or_default();
        let now = Leaves::look(config, &sql, &oids(&tables)).await?;
        leaves.learn(config, &sql, now, None).await?;
        leaves.note(&mut identity);
        let is_in = |t: &CatalogTable| found.tables.contains(&full(t));
        let mut published: Vec<CatalogTable> = tables.into_iter().filter(|t| is_in(t) || found.implies(t)).collect();
        published.iter_mut().for_each(|t| t.generated_sent = found.generated);
        self.run(sql, version, position, &published, types, identity).await
    }

    /// Starts the stream after `from`.
    async fn run(
        &mut self,
        sql: Session,
        version: i32,
        from: u64,
        tables: &[CatalogTable],
        types: PgTypes,
        identity: Identity,
    ) -> Result<Opened, SourceError> {
        let config = &self.config;
        let fail = |f: Fault| source_error(config, f);
        // 64 bits: the wire's transaction ids have 32.
        let row = sql.client.query_one("SELECT pg_snapshot_xmax(pg_current_snapshot())::text", &[]).await;
        let xid: String = row.map_err(|e| fail(e.into()))?.get(0);
        let xid = xid.parse().map_err(|_| fail(Fault::Protocol("a transaction id is no number".into())))?;
        let transport = replication(config).await?;
        let (slot, publication) = (config.slot(), config.publication());
        let mut columns = tables.iter().flat_map(CatalogTable::captured);
        let binary = config.binary
            && !config.text_only.load(Ordering::Relaxed)
            && columns.all(|c| binary::fits(&types, c.type_oid));
        let oids = tables.iter().flat_map(|t| &t.columns).map(|c| c.type_oid);
        let copied = Arc::new(oids.filter(|oid| binary::copies(&types, *oid)).collect());
        let ask = Ask { slot: &slot, publication: &publication, from, version, streaming: config.streaming, binary };
        let (reader, write) = transport.start_replication(&ask.sql()).await.map_err(fail)?;
        let mut by_oid = BTreeMap::new();
        let mut schemas = Vec::new();
        for t in tables {
            let schema = Arc::new(t.table_schema(&types));
            schemas.push(schema.clone());
            by_oid.insert(t.oid, Known::of(t, schema));
        }
        let xmin = super::beat::ask_xmin(config, &sql).await.map_err(fail)?;
        self.open = Some(Running {
            stream: Stream::start(
                reader,
                write,
                if config.reading.unconfirmed { 0 } else { from },
                config.message_bytes_max(),
            ),
            block: Bytes::new(),
            from,
            txn: None,
            taken: config.taken.filter(|t| t.commit == from).and_then(|t| t.part),
            large: Large::new(config.large.clone()),
            replay: None,
            last_commit_lsn: Some(from),
            idle: from,
            xid,
            tables: by_oid,
            messages: Arc::new(TableSchema::messages(&config.connect.database)),
            sent: 0,
            strangers: BTreeMap::new(),
            remade: Remade::default(),
            types,
            copied,
            binary,
            sql,
            end: from,
            ahead: Ahead::default(),
            version,
            clock: SystemClock::default(),
            compared: Mono::ZERO,
            leaves: identity.tags.get(&tag::PARTITIONS).map(|b| Leaves::decode(b)).unwrap_or_default(),
            late: Late::new(identity.tags.contains_key(&tag::PUBLICATION_MADE)),
            entries: identity.tags.get(&tag::PUBLICATION_ENTRIES).and_then(|b| Entries::decode(b)).unwrap_or_default(),
            slot: None,
            _tasks: [super::beat::start(config), xmin],
        });
        Ok(Opened { identity, native: Native::postgres(from), tables: schemas })
    }
}

fn no_failover(version: i32) -> SourceError {
    SourceError::new(
        SourceClass::Config,
        code::NO_FAILOVER,
        format!("PostgreSQL {}.{} has no failover slots: they came with 17", version / 10_000, version % 10_000),
        "leave `failover` out",
    )
}

pub(super) fn too_old(version: i32) -> SourceError {
    SourceError::new(
        SourceClass::Config,
        code::TOO_OLD,
        format!("PostgreSQL {}.{} is too old: 14 is the oldest we read from", version / 10_000, version % 10_000),
        "",
    )
}
