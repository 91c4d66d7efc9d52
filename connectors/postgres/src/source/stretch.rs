//! Parts of a table in the order of its key, each in a view of its own, for ad hoc snapshots (capture.md 7.3).
//!
//! A stretch ends at the key that the server finds as the last of its first rows behind the one before: no offset, no plan
//! ahead, so it goes on from any key after a crash. Its filter is a person's SQL: looked at as one expression by the extended
//! protocol (which takes one statement), read in read-only transactions, with the rights of the source's user.

use super::snapshot::{copy, key_columns, select_list, whole_relation};
use super::transport::Transport;
use super::view::{self, begin_view, end_view, keep_view};
use super::{SourceConfig, login, source_error};
use crate::catalog::{self, Wanted};
use crate::config::quote_literal;
use crate::fault::Fault;
use crate::types::literal;
use crate::types::schema::PgTypes;
use bytes::Bytes;
use catchwater_capture::source::{Expected, SourceClass, SourceError, Stretch, StretchEnd, View};
use catchwater_change::{RowChange, TableSchema, Value};
use std::sync::Arc;

/// A stretch is meant to have no more bytes, by the server's statistics.
const STRETCH_BYTES: u64 = 16 * 1024 * 1024;
const UNDEFINED_COLUMN: &str = "42703";

fn number(rows: &[Vec<Option<Bytes>>], at: usize) -> u64 {
    let text = rows.first().and_then(|r| r.get(at)?.as_ref());
    text.and_then(|b| std::str::from_utf8(b).ok()?.parse().ok()).unwrap_or(0)
}

/// Key columns in the server's own text.
fn texts(keys: &[String]) -> String {
    keys.iter().map(|k| format!("{k}::pg_catalog.text")).collect::<Vec<_>>().join(", ")
}

/// The condition of a stretch; a comment in the filter ends with its line.
fn condition(of: &Stretch, bounds: &[String]) -> String {
    let filter = (!of.filter.trim().is_empty()).then(|| format!("({}\n)", of.filter));
    let all: Vec<String> = filter.into_iter().chain(bounds.iter().cloned()).collect();
    if all.is_empty() { "true".into() } else { all.join(" AND ") }
}

/// `(a, b) > ('1'::integer, 'x'::text)`.
fn bound(of: &Stretch, op: &str, values: &[String]) -> Option<String> {
    if values.len() != of.table.key.len() || values.is_empty() {
        return None;
    }
    let columns = of.table.key.iter().map(|k| &of.table.columns[usize::from(*k)].native_type);
    let literals: Vec<String> = columns.zip(values).map(|(t, v)| format!("{}::{t}", quote_literal(v))).collect();
    let keys: Vec<String> = key_columns(&of.table).collect();
    Some(format!("({}) {op} ({})", keys.join(", "), literals.join(", ")))
}

/// `(a, b) IN (('1'::integer, 'x'::text), …)`.
fn keyed(of: &Stretch) -> Option<String> {
    let row = |values: &Vec<Value>| -> Option<String> {
        let types = of.table.key.iter().map(|k| &of.table.columns[usize::from(*k)].native_type);
        let literals: Vec<String> =
            types.zip(values).map(|(t, v)| format!("{}::{t}", quote_literal(&literal(v)))).collect();
        (values.len() == of.table.key.len()).then(|| format!("({})", literals.join(", ")))
    };
    let rows: Option<Vec<String>> = of.keys.iter().map(row).collect();
    let keys: Vec<String> = key_columns(&of.table).collect();
    Some(format!("({}) IN ({})", keys.join(", "), rows?.join(", ")))
}

/// The table as the catalogue shows it: changes of it that no row follows, the stream does not tell, and the stream may be behind
/// others. One that has another name by now stays as it is known.
pub(super) async fn today(config: &SourceConfig, known: &Arc<TableSchema>) -> Result<Arc<TableSchema>, SourceError> {
    let session = login::session(config).await?;
    let mut types = PgTypes::new();
    let Ok(oid) = u32::try_from(known.native_id) else { return Ok(known.clone()) };
    let found = catalog::load(&session.client, Wanted::Oids(&[oid]), &mut types).await;
    let found = found.map_err(|fault| source_error(config, fault))?.into_iter().next();
    let Some(mut table) = found.filter(|t| (&t.schema, &t.name) == (&known.schema, &known.name)) else {
        return Ok(known.clone());
    };
    // A column that is sent is none that the server makes, to who reads it.
    let is_sent = |name: &str| known.columns.iter().any(|c| c.name == name && !c.generated);
    table.generated_sent = table.columns.iter().any(|c| c.generated && c.stored && is_sent(&c.name));
    table.generated_read = config.without_identity;
    let today = table.table_schema(&types);
    Ok(if today.fingerprint == known.fingerprint { known.clone() } else { Arc::new(today) })
}

/// The server's word on the filter, before any row is read: it is one condition over the table. Returns what rows are read from.
pub(super) async fn look(config: &SourceConfig, reader: &mut Transport, of: &Stretch) -> Result<String, SourceError> {
    let from = whole_relation(config, reader, &of.table).await?;
    let sql = format!("SELECT {} FROM {from} WHERE {}", select_list(&of.table), condition(of, &[]));
    let session = login::session(config).await?;
    session.client.prepare(&sql).await.map_err(|e| judged(config, Fault::from(e), true))?;
    Ok(from)
}

/// Looks at the filter, waits for what is committed and not visible yet, and estimates the rows.
pub(super) async fn prepare(
    config: &SourceConfig,
    reader: &mut Transport,
    of: &Stretch,
) -> Result<Expected, SourceError> {
    let from = look(config, reader, of).await?;
    wait_for_standbys(config, reader).await?;
    let sql = format!(
        "SELECT greatest(sum(c.reltuples), 0)::int8 FROM pg_catalog.pg_class c \
         WHERE c.oid = {0} OR c.oid IN (SELECT relid FROM pg_catalog.pg_partition_tree({0}) WHERE isleaf)",
        of.table.native_id
    );
    let rows = reader.query(&sql).await.map_err(|f| source_error(config, f))?;
    let mut expected = Expected { rows: number(&rows, 0), maximum: Vec::new() };
    if of.to_maximum {
        let keys: Vec<String> = key_columns(&of.table).collect();
        let (list, backwards) = (keys.join(", "), keys.join(" DESC, "));
        let sql = format!(
            "SELECT {} FROM (SELECT {list} FROM {from} WHERE {} ORDER BY {backwards} DESC LIMIT 1) AS _f",
            texts(&keys),
            condition(of, &[]),
        );
        let found = reader.query(&sql).await.map_err(|f| judged(config, f, false))?;
        let text = |v: Option<Bytes>| v.map_or_else(String::new, |v| String::from_utf8_lossy(&v).into_owned());
        expected.maximum = found.into_iter().next().into_iter().flatten().map(text).collect();
        // Who asks for the greatest key wants to tell how far it is: as Debezium, by counting.
        let sql = format!("SELECT count(*) FROM {from} WHERE {}", condition(of, &[]));
        expected.rows = number(&reader.query(&sql).await.map_err(|f| judged(config, f, false))?, 0);
    }
    Ok(expected)
}

/// Waits for commits that stand before a synchronous standby, where there are such. (The others are visible by the time that
/// a person's wish has come here.)
async fn wait_for_standbys(config: &SourceConfig, reader: &mut Transport) -> Result<(), SourceError> {
    let sql = "SELECT (pg_catalog.current_setting('synchronous_standby_names') <> '')::int4";
    let found = reader.query(sql).await.map_err(|f| source_error(config, f))?;
    if number(&found, 0) == 0 { Ok(()) } else { view::wait_for_commits(config, reader).await }
}

/// An error of the person's SQL ends the snapshot of the table; of the connection, an attempt, and so does a column that went since
/// the filter was looked at.
fn judged(config: &SourceConfig, fault: Fault, is_theirs: bool) -> SourceError {
    let state = fault.sqlstate().to_owned();
    let mut error = source_error(config, fault);
    // Syntax, names and rights; data (a division by zero in the filter).
    if state == UNDEFINED_COLUMN && !is_theirs {
        error.class = SourceClass::Retry;
    } else if state.starts_with("42") || state.starts_with("22") {
        error.class = SourceClass::Config;
    }
    error
}

pub(super) async fn read(
    config: &SourceConfig,
    reader: &mut Transport,
    of: &Stretch,
    out: &mut Vec<RowChange>,
) -> Result<StretchEnd, SourceError> {
    let from = whole_relation(config, reader, &of.table).await?;
    let first = out.len();
    for _ in 0..view::VIEWS_MAX {
        let seen = begin_view(config, reader).await?;
        match read_in_view(config, reader, of, &from, out).await {
            Ok(Some(upto)) => return Ok(StretchEnd { view: end_view(config, reader, seen).await?, upto }),
            Ok(None) => out.truncate(first),
            Err(e) => {
                let _ = reader.query("ROLLBACK").await;
                return Err(e);
            }
        }
        reader.query("ROLLBACK").await.map_err(|f| source_error(config, f))?;
    }
    Err(view::rewritten(&of.table))
}

/// As [`read`], in the view that `held` has, or takes one for it. An error ends it, and a table that is rewritten meanwhile.
pub(super) async fn read_held(
    config: &SourceConfig,
    reader: &mut Transport,
    held: &mut Option<View>,
    of: &Stretch,
    out: &mut Vec<RowChange>,
) -> Result<StretchEnd, SourceError> {
    let view = match held.take() {
        Some(view) => view,
        None => {
            let seen = begin_view(config, reader).await?;
            keep_view(config, reader, seen).await?
        }
    };
    let from = whole_relation(config, reader, &of.table).await?;
    let first = out.len();
    let upto = read_in_view(config, reader, of, &from, out).await;
    if let View::Visibility { xmax, place, .. } = &view
        && let Some(lsn) = place.as_postgres()
    {
        out.iter_mut().skip(first).for_each(|row| row.info = super::snapshot::place(Some(*xmax), lsn));
    }
    let upto = match upto {
        Ok(Some(upto)) => upto,
        ended => {
            let _ = reader.query("ROLLBACK").await;
            return Err(ended.err().unwrap_or_else(|| view::rewritten(&of.table)));
        }
    };
    let end = StretchEnd { view: view.clone(), upto };
    *held = Some(view);
    Ok(end)
}

/// Up to which key it came; `None` = the view does not show the table any more.
async fn read_in_view(
    config: &SourceConfig,
    reader: &mut Transport,
    of: &Stretch,
    from: &str,
    out: &mut Vec<RowChange>,
) -> Result<Option<Vec<String>>, SourceError> {
    let upto = read_rows(config, reader, of, from, out).await?;
    Ok(if view::is_rewritten(config, reader, &of.table).await? { None } else { Some(upto) })
}

async fn read_rows(
    config: &SourceConfig,
    reader: &mut Transport,
    of: &Stretch,
    from: &str,
    out: &mut Vec<RowChange>,
) -> Result<Vec<String>, SourceError> {
    let fail = |f: Fault| judged(config, f, false);
    if !of.keys.is_empty() {
        let Some(these) = keyed(of) else {
            let what = format!("a key of {} has not its columns", of.table.qualified());
            return Err(SourceError::new(SourceClass::Bug, crate::codes::source::NOT_UNDERSTOOD, what, ""));
        };
        let sql = format!("COPY (SELECT {} FROM {from} WHERE {these}) TO STDOUT", select_list(&of.table));
        copy(config, reader, &sql, &of.table, out).await?;
        return Ok(Vec::new());
    }
    let behind = bound(of, ">", &of.after);
    let keys: Vec<String> = key_columns(&of.table).collect();
    let list = keys.join(", ");
    // By name alone they would be the texts, and in the order of texts.
    let backwards = keys.iter().map(|k| format!("_f.{k} DESC")).collect::<Vec<_>>().join(", ");
    let width = format!(
        "SELECT (sum(pg_catalog.pg_table_size(c.oid)) / greatest(sum(c.reltuples), 1))::int8 FROM pg_catalog.pg_class c \
         WHERE c.reltuples > 0 AND (c.oid = {0} OR c.oid IN \
           (SELECT relid FROM pg_catalog.pg_partition_tree({0}) WHERE isleaf))",
        of.table.native_id
    );
    let width = number(&reader.query(&width).await.map_err(fail)?, 0).max(1);
    let rows_max = u64::from(of.rows_max).min(STRETCH_BYTES / width).max(1);
    let first = condition(of, behind.as_slice());
    let last = format!(
        "SELECT {} FROM (SELECT {list} FROM {from} WHERE {first} ORDER BY {list} LIMIT {rows_max}) AS _f \
         ORDER BY {backwards} LIMIT 1",
        texts(&keys)
    );
    let found = reader.query(&last).await.map_err(fail)?;
    let Some(row) = found.into_iter().next() else { return Ok(Vec::new()) };
    let upto: Option<Vec<String>> =
        row.iter().map(|v| Some(String::from_utf8_lossy(v.as_ref()?).into_owned())).collect();
    let Some(upto) = upto else {
        let what = format!("a key of {} holds NULL", of.table.qualified());
        return Err(SourceError::new(SourceClass::Config, crate::codes::source::NOT_UNDERSTOOD, what, ""));
    };
    let bounds: Vec<String> = behind.into_iter().chain(bound(of, "<=", &upto)).collect();
    let sql =
        format!("COPY (SELECT {} FROM {from} WHERE {}) TO STDOUT", select_list(&of.table), condition(of, &bounds));
    copy(config, reader, &sql, &of.table, out).await?;
    Ok(upto)
}
