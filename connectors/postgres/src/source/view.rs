//! What a view of the server shows, and what it does not.
//!
//! A view's place in the stream is told with it: it may be placed behind everything the server has written by the time it was
//! taken. Two things it does not show although the stream has them in order:
//!
//! - **Commits that are not visible yet.** A commit is in the WAL, hence in our stream, before views show it: for
//!   microseconds as a rule, for as long as it takes where its backend waits for a synchronous standby. Whoever does not know by
//!   name what came before the stream's start waits for it first ([`wait_for_commits`]).
//! - **Tables that were written anew.** A TRUNCATE, or an ALTER TABLE that rewrites, throws away what older views should see:
//!   to them the table is empty (PostgreSQL 15 manual, 13.5). So a read is good only if the table has the file that the
//!   view's catalogue names ([`is_rewritten`]).

use super::snapshot::copy;
use super::transport::Transport;
use super::{SourceConfig, source_error};
use crate::codes::source as code;
use crate::fault::Fault;
use bytes::Bytes;
use catchwater_base::log;
use catchwater_capture::source::{SourceClass, SourceError, View};
use catchwater_change::{Native, RowChange, TableSchema};
use catchwater_runtime::time::sleep;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// After so many (10 s) it is told what is waited for.
const LOOKS: u32 = 200;

/// How often a table may be rewritten between a view and its read before the attempt ends.
pub(super) const VIEWS_MAX: u32 = 5;

/// Where the server's WAL ends.
const PLACE: &str = "SELECT (pg_catalog.pg_current_wal_insert_lsn() - '0/0'::pg_catalog.pg_lsn)::pg_catalog.text";

/// On a quiet server nothing would ever be committed at or above that place: this is, and flushed here. No standby needs to
/// have it. One string of statements is one transaction.
fn push() -> String {
    format!(
        "SET LOCAL synchronous_commit = 'local'; SELECT pg_catalog.pg_logical_emit_message(true, '{}', '')",
        super::OWN_PREFIX
    )
}

/// Opens a view of its own; the server's word for it.
pub(super) async fn begin_view(config: &SourceConfig, reader: &mut Transport) -> Result<Bytes, SourceError> {
    let fail = |f: Fault| source_error(config, f);
    reader.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(fail)?;
    let seen = reader.query("SELECT pg_catalog.pg_current_snapshot()::pg_catalog.text").await.map_err(fail)?;
    Ok(seen.first().and_then(|r| r.first()?.clone()).unwrap_or_default())
}

/// Ends the view; it may be placed behind everything the server has written by now.
pub(super) async fn end_view(config: &SourceConfig, reader: &mut Transport, seen: Bytes) -> Result<View, SourceError> {
    let fail = |f: Fault| source_error(config, f);
    let place = reader.query(&format!("{PLACE}; COMMIT")).await.map_err(fail)?;
    reader.query(&push()).await.map_err(fail)?;
    view_of(config, &seen, &place)
}

/// Keeps the view open; else as [`end_view`].
pub(super) async fn keep_view(config: &SourceConfig, reader: &mut Transport, seen: Bytes) -> Result<View, SourceError> {
    let fail = |f: Fault| source_error(config, f);
    let place = reader.query(PLACE).await.map_err(fail)?;
    let session = super::login::session(config).await?;
    session.client.batch_execute(&push()).await.map_err(|e| fail(Fault::from(e)))?;
    view_of(config, &seen, &place)
}

fn view_of(config: &SourceConfig, seen: &[u8], place: &[Vec<Option<Bytes>>]) -> Result<View, SourceError> {
    let place = place.first().and_then(|r| std::str::from_utf8(r.first()?.as_ref()?).ok()?.parse::<u64>().ok());
    match (std::str::from_utf8(seen).ok().and_then(parse_snapshot), place) {
        (Some((xmin, xmax, running)), Some(place)) => {
            Ok(View::Visibility { xmin, xmax, running, place: Native::postgres(place) })
        }
        _ => Err(source_error(config, Fault::Protocol("the view of a chunk has no answer".into()))),
    }
}

/// True if the table, or a partition of it, is not what the reader's view has: truncated, rewritten, dropped, detached since.
/// Behind the read, which holds a lock: so it stays what it is.
pub(super) async fn is_rewritten(
    config: &SourceConfig,
    reader: &mut Transport,
    table: &TableSchema,
) -> Result<bool, SourceError> {
    // Tables are read as the view has them; functions ask the catalogue as it is now.
    let sql = format!(
        "WITH RECURSIVE tree(id) AS (SELECT {0}::pg_catalog.oid UNION SELECT i.inhrelid FROM tree \
           JOIN pg_catalog.pg_class p ON p.oid = tree.id AND p.relkind = 'p' \
           JOIN pg_catalog.pg_inherits i ON i.inhparent = p.oid) \
         SELECT 1 FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.id WHERE c.relkind = 'r' \
           AND (c.relfilenode IS DISTINCT FROM pg_catalog.pg_relation_filenode(c.oid) OR c.oid <> {0} \
             AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_partition_tree({0}) t WHERE t.relid = c.oid)) LIMIT 1",
        table.native_id
    );
    Ok(!reader.query(&sql).await.map_err(|f| source_error(config, f))?.is_empty())
}

/// The view cannot be read to its end.
pub(super) fn rewritten(table: &TableSchema) -> SourceError {
    SourceError::new(
        SourceClass::Retry,
        code::SNAPSHOT_GONE,
        format!("table {} was truncated or rewritten since the snapshot's view was taken", table.qualified()),
        "the rest is read by key ranges",
    )
}

/// Copies in a view of its own, taken anew where the table was rewritten between view and read.
pub(super) async fn copy_in_view(
    config: &SourceConfig,
    reader: &mut Transport,
    sql: &str,
    table: &Arc<TableSchema>,
    out: &mut Vec<RowChange>,
) -> Result<(u64, View), SourceError> {
    let from = out.len();
    for _ in 0..VIEWS_MAX {
        let seen = begin_view(config, reader).await?;
        let done = match copy(config, reader, sql, table, out).await {
            Ok(rows) => is_rewritten(config, reader, table).await.map(|rewritten| (rows, rewritten)),
            Err(e) => Err(e),
        };
        match done {
            Ok((rows, false)) => return Ok((rows, end_view(config, reader, seen).await?)),
            Ok(_) => out.truncate(from),
            Err(e) => {
                let _ = reader.query("ROLLBACK").await;
                return Err(e);
            }
        }
        reader.query("ROLLBACK").await.map_err(|f| source_error(config, f))?;
    }
    Err(rewritten(table))
}

/// Waits until every view shows all that had committed before the call. Of the transactions that had an id then, those are
/// waited for that may have committed: one that is seen idle, in wait for its client's next statement, has not. (Who may
/// not see others' activity cannot tell, and waits for the end of all of them; so does everybody for prepared ones.)
pub(super) async fn wait_for_commits(config: &SourceConfig, reader: &mut Transport) -> Result<(), SourceError> {
    let fail = |f| source_error(config, f);
    // Ids that are given out from here on are above it.
    let own = reader.query("SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text").await.map_err(fail)?;
    let own = own.first().and_then(|r| text(r.first()?)).unwrap_or_default();
    // An activity is read before its backend's id, so one that is idle here was idle with this id or before it had one.
    let sql = format!(
        "SELECT x::pg_catalog.text, EXISTS (SELECT 1 FROM pg_catalog.pg_stat_activity a \
           WHERE a.backend_xid = x::pg_catalog.xid AND a.state LIKE 'idle in transaction%')::pg_catalog.text \
         FROM pg_catalog.pg_snapshot_xip(pg_catalog.pg_current_snapshot()) AS x WHERE x < '{own}'::pg_catalog.xid8"
    );
    let (mut idle, mut looks) = (BTreeSet::new(), 0u32);
    loop {
        let mut waits = Vec::new();
        for row in reader.query(&sql).await.map_err(fail)? {
            let Some(xid) = row.first().and_then(text) else { continue };
            if row.get(1).and_then(text).as_deref() == Some("true") {
                idle.insert(xid);
            } else if !idle.contains(&xid) {
                waits.push(xid);
            }
        }
        if waits.is_empty() {
            return Ok(());
        }
        looks = looks.saturating_add(1);
        if looks == LOOKS {
            let (name, ids) = (&config.source, waits.join(", "));
            log!(Warn, "source.waits_for_commits", "source {name}: a snapshot waits for the end of transactions {ids}");
        }
        sleep(PAUSE).await;
    }
}

/// Waits for the end of every transaction that has written into the table, or may have, and had not ended when this was
/// called. A publication is asked at each change: what such a transaction wrote before its table was published, the stream does
/// not have, and what it wrote behind that it has. No lock is taken.
pub(super) async fn wait_for_writers(
    config: &SourceConfig,
    reader: &mut Transport,
    table: &TableSchema,
) -> Result<(), SourceError> {
    let fail = |f| source_error(config, f);
    // A lock is kept to the end of its transaction, and let go when its commit is visible; of a prepared one, too.
    let sql = format!(
        "SELECT DISTINCT l.virtualtransaction || ' ' || coalesce('of process ' || l.pid, 'prepared') FROM pg_catalog.pg_locks l \
         WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid() \
           AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()) \
           AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') \
           AND (l.relation = {0} OR l.relation IN (SELECT t.relid FROM pg_catalog.pg_partition_tree({0}) t))",
        table.native_id
    );
    let mut waits: Option<BTreeSet<String>> = None;
    let mut looks = 0u32;
    loop {
        let found = reader.query(&sql).await.map_err(fail)?;
        let now: BTreeSet<String> = found.iter().filter_map(|r| text(r.first()?)).collect();
        let left: BTreeSet<String> = match waits {
            None => now,
            Some(before) => before.intersection(&now).cloned().collect(),
        };
        if left.is_empty() {
            return Ok(());
        }
        looks = looks.saturating_add(1);
        if looks == LOOKS {
            let (name, who) = (&config.source, left.iter().cloned().collect::<Vec<_>>().join(", "));
            log!(
                Warn,
                "source.waits_for_commits",
                "source {name}: the rows of {}, which came later, wait for the end of transactions that wrote into it before: {who}",
                table.qualified()
            );
        }
        waits = Some(left);
        sleep(PAUSE).await;
    }
}

fn text(value: &Option<Bytes>) -> Option<String> {
    Some(String::from_utf8_lossy(value.as_ref()?).into_owned())
}

/// `xmin:xmax:xid,xid`.
fn parse_snapshot(text: &str) -> Option<(u64, u64, Vec<u64>)> {
    let mut parts = text.splitn(3, ':');
    let (xmin, xmax) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let list = parts.next()?;
    let running = if list.is_empty() { Ok(Vec::new()) } else { list.split(',').map(str::parse).collect() };
    Some((xmin, xmax, running.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_as_the_server_prints_them() {
        assert_eq!(parse_snapshot("10:20:11,15"), Some((10, 20, vec![11, 15])));
        assert_eq!(parse_snapshot("10:10:"), Some((10, 10, vec![])));
        assert_eq!(parse_snapshot("10"), None);
    }
}
