//! Reading what is there. Two methods (capture.md 7): under the snapshot exported with the slot, at exactly the stream's
//! start, by ctid ranges; after a kill that view is gone, so by key ranges, each in a view of its own whose visibility is
//! told with it. Rows come by `COPY … TO STDOUT`: in the binary format if it is known of all columns' types, else in text; the
//! values are the same (`tests/it/binary.rs`). Several readers may share an exported snapshot, each with its connection; each unit
//! is a transaction of its own there, so that a table that is truncated or rewritten meanwhile is seen (`view.rs`) and not
//! held up. Tables that join later come by key ranges, too, once nobody is left who wrote into them before.
//!
//! A unit is planned for at most 50,000 rows or 16 MiB; a table without a key is one unit when it is read after a kill.

use super::transport::{Mode, Transport};
use super::{SourceConfig, source_error, stretch, view};
use crate::codes::source as code;
use crate::config::{quote_ident, quote_literal};
use crate::fault::Fault;
use crate::source::values;
use bytes::Bytes;
use catchwater_capture::source::{
    Chunk, ChunkEnd, ChunkMethod, Each, Expected, Snapshot, SourceClass, SourceError, Stretch, StretchEnd, View,
};
use catchwater_change::{Op, RowChange, SnapshotMark, SourceInfo, TableSchema};
use catchwater_runtime::Fut;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const UNIT_ROWS_MAX: u64 = 50_000;
const UNIT_BYTES_MAX: u64 = 16 * 1024 * 1024;
const PAGE_BYTES: u64 = 8192;
/// Rows on a page of 8 KiB: (8192 − 24) / (4 + 24 + 8 bytes of the smallest row with a column).
const ROWS_PER_PAGE_MAX: u64 = 226;
/// Last page plus one a ctid can name; the upper end of an open range.
const PAGES_END: u64 = 0xffff_ffff;

/// A person's statements mean names as in a session of theirs; ours have an empty path.
const THEIR_PATH: &str = "SET search_path = \"$user\", public";

/// The connection that exported the snapshot, and its name. It is kept idle: its next command would end the export.
pub struct Export {
    _exporter: Transport,
    name: String,
    /// Where the slot begins, which is what the snapshot shows.
    point: u64,
}

impl Export {
    pub(super) fn new(exporter: Transport, name: String, point: u64) -> Self {
        Export { _exporter: exporter, name, point }
    }
}

const NO_PLACE: SourceInfo = SourceInfo::Postgres { lsn: None, txid: None, last_commit_lsn: None };

/// `source.txId` and `source.lsn` of rows that a view at `lsn` shows, before transaction `next`.
pub(super) fn place(next: Option<u64>, lsn: u64) -> SourceInfo {
    // As the wire has ids: 32 bits.
    SourceInfo::Postgres { lsn: Some(lsn), txid: next.map(|id| id as u32), last_commit_lsn: None }
}

pub struct PgSnapshot {
    config: SourceConfig,
    export: Option<Arc<Export>>,
    /// Made at the first use.
    reader: Option<Transport>,
    /// A use began and did not end well, or was dropped: the connection is in the middle of something.
    busy: bool,
    /// The view that the reader's transaction holds.
    held: Option<View>,
    /// What rows of the exported snapshot say of their place.
    info: SourceInfo,
    /// Columns of the statements that stand for tables, by table.
    selected: BTreeMap<String, BTreeSet<String>>,
    /// Types that COPY gives in binary.
    copied: Arc<BTreeSet<u32>>,
    /// Units are that much smaller.
    share: u64,
    /// Tables that came to the stream later, by relation.
    joined: BTreeSet<u64>,
    /// Tables that are read in the order of their keys, as they were when that began.
    today: BTreeMap<u64, Arc<TableSchema>>,
}

impl PgSnapshot {
    pub(super) fn new(config: SourceConfig, export: Option<Arc<Export>>, copied: Arc<BTreeSet<u32>>) -> Self {
        let selected = BTreeMap::new();
        let joined = BTreeSet::new();
        PgSnapshot {
            config,
            export,
            reader: None,
            busy: false,
            held: None,
            info: NO_PLACE,
            selected,
            copied,
            share: 1,
            joined,
            today: BTreeMap::new(),
        }
    }

    fn fail(&self, fault: Fault) -> SourceError {
        source_error(&self.config, fault)
    }

    async fn connect(&self) -> Result<Transport, SourceError> {
        let made = Transport::connect(&self.config.connect, &self.config.application(), Mode::Sql).await;
        let mut made = made.map_err(|f| self.fail(f))?;
        if !self.config.reading.snapshot_selects.is_empty() {
            made.query(THEIR_PATH).await.map_err(|f| self.fail(f))?;
        }
        Ok(made)
    }

    /// The connection, outside of any transaction.
    async fn reader(&mut self) -> Result<&mut Transport, SourceError> {
        if self.reader.is_none() {
            self.reader = Some(self.connect().await?);
        }
        let config = &self.config;
        self.reader.as_mut().ok_or_else(|| source_error(config, Fault::Closed("no reader".into())))
    }

    /// Begins a transaction inside the exported snapshot. One for each unit: no table is locked for longer than it is read, so
    /// nobody's DDL waits for the whole of the first snapshot, and nobody's for a table that waits for another one's.
    async fn enter(&mut self) -> Result<(), SourceError> {
        let Some(export) = self.export.clone() else {
            return Err(SourceError::new(
                SourceClass::Bug,
                code::SNAPSHOT_GONE,
                "a chunk of an exported snapshot is read after the export ended",
                "",
            ));
        };
        let config = self.config.clone();
        let reader = self.reader().await?;
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
            quote_literal(&export.name)
        );
        reader.query(&begin).await.map_err(|fault| match fault.sqlstate() {
            "22023" | "42704" | "55000" => SourceError::new(
                SourceClass::Retry,
                code::SNAPSHOT_GONE,
                format!("the snapshot exported with the slot is gone: {fault}"),
                "the rest is read by key ranges",
            ),
            _ => source_error(&config, fault),
        })?;
        if self.info == NO_PLACE {
            // The next id there is: as with Debezium, whose snapshot takes one for itself.
            let sql = "SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::pg_catalog.text";
            let rows = self.reader().await?.query(sql).await.map_err(|f| source_error(&config, f))?;
            let next = rows.first().and_then(|r| std::str::from_utf8(r.first()?.as_ref()?).ok()?.parse::<u64>().ok());
            self.info = place(next, export.point);
        }
        Ok(())
    }

    async fn plan_now(&mut self, tables: &[Arc<TableSchema>]) -> Result<Vec<Chunk>, SourceError> {
        let mut out = Vec::new();
        for table in &self.parents_first(tables).await? {
            let planned = match self.export {
                _ if !self.config.reading.reads(&table.qualified()) => Ok(self.plan_nothing(table)),
                Some(_) => self.plan_ctid(table).await,
                None => self.plan_keys(table).await,
            };
            let mut chunks = planned.map_err(|e| self.judged(table, e))?;
            for (unit, chunk) in (0..).zip(&mut chunks) {
                chunk.unit = unit;
            }
            if let Some(last) = chunks.last_mut() {
                last.last_of_table = true;
            }
            out.append(&mut chunks);
        }
        Ok(out)
    }

    /// A table after those that it refers to, else in the given order: who applies the rows one table after another then
    /// meets a child before its parent only where tables refer to each other in a circle.
    async fn parents_first(&mut self, tables: &[Arc<TableSchema>]) -> Result<Vec<Arc<TableSchema>>, SourceError> {
        if tables.len() < 2 {
            return Ok(tables.to_vec());
        }
        let config = self.config.clone();
        let sql = "SELECT conrelid, confrelid FROM pg_constraint WHERE contype = 'f' AND conrelid <> confrelid";
        let rows = self.reader().await?.query(sql).await.map_err(|f| source_error(&config, f))?;
        let oid = |v: &Option<Bytes>| -> Option<u64> { std::str::from_utf8(v.as_ref()?).ok()?.parse().ok() };
        let references: Vec<(u64, u64)> =
            rows.iter().filter_map(|r| Some((oid(r.first()?)?, oid(r.get(1)?)?))).collect();
        let ids: Vec<u64> = tables.iter().map(|t| t.native_id).collect();
        Ok(in_order_of(&ids, &references).into_iter().map(|i| tables[i].clone()).collect())
    }

    /// What the table's rows are read from when a statement stands for it (`snapshot.select.statement.overrides`), and
    /// which columns; what the statement lacks is NULL.
    async fn override_of(&mut self, table: &TableSchema) -> Result<Option<(String, String)>, SourceError> {
        let name = table.qualified();
        let Some(statement) = self.config.reading.snapshot_selects.get(&name) else { return Ok(None) };
        // A comment at its end ends with its line.
        let from = format!("({statement}\n) AS _rows");
        if !self.selected.contains_key(&name) {
            // By the extended protocol, which takes one statement.
            let session = super::login::session(&self.config).await?;
            let path = session.client.batch_execute(THEIR_PATH).await;
            path.map_err(|e| self.fail(Fault::from(e)))?;
            let prepared = session.client.prepare(&format!("SELECT * FROM {from}")).await;
            let prepared = prepared.map_err(|e| self.refused(&name, Fault::from(e)))?;
            let columns: BTreeSet<String> = prepared.columns().iter().map(|c| c.name().to_owned()).collect();
            let lacking =
                table.key.iter().map(|k| &table.columns[usize::from(*k)].name).find(|c| !columns.contains(*c));
            if let Some(column) = lacking {
                return Err(self.statement_error(&name, format!("it lacks the key column {column}")));
            }
            self.selected.insert(name.clone(), columns);
        }
        let columns = &self.selected[&name];
        let list = table.columns.iter().map(|c| match columns.contains(&c.name) {
            true => quote_ident(&c.name),
            false => format!("NULL AS {}", quote_ident(&c.name)),
        });
        Ok(Some((from, list.collect::<Vec<_>>().join(", "))))
    }

    fn statement_error(&self, table: &str, what: impl std::fmt::Display) -> SourceError {
        SourceError::new(
            SourceClass::Config,
            code::STATEMENT,
            format!("snapshot.select.statement.overrides.{table}: {what}"),
            "mend the statement: one SELECT with the table's columns, its key among them",
        )
    }

    /// An error of the person's SQL, or of the connection.
    fn refused(&self, table: &str, fault: Fault) -> SourceError {
        match fault.sqlstate() {
            state if state.starts_with("42") || state.starts_with("22") => self.statement_error(table, fault),
            _ => self.fail(fault),
        }
    }

    /// Nothing is read of the table: one chunk that says so.
    fn plan_nothing(&self, table: &Arc<TableSchema>) -> Vec<Chunk> {
        let (method, bound) = match self.export {
            Some(_) => (ChunkMethod::Exported, vec!["(0,0)".to_owned()]),
            None => (ChunkMethod::Chunked, Vec::new()),
        };
        let (lower, upper) = (bound.clone(), bound);
        vec![Chunk { table: table.clone(), unit: 0, method, lower, upper, last_of_table: true, rows_estimate: 0 }]
    }

    /// Ranges of pages; a partitioned table leaf by leaf (the second lower bound names the leaf).
    async fn plan_ctid(&mut self, table: &Arc<TableSchema>) -> Result<Vec<Chunk>, SourceError> {
        if self.config.reading.snapshot_selects.contains_key(&table.qualified()) {
            // A statement has no pages.
            let mut chunks = self.plan_keys(table).await?;
            chunks.iter_mut().for_each(|c| c.method = ChunkMethod::Exported);
            return Ok(chunks);
        }
        let sql = format!(
            "SELECT c.oid, pg_relation_size(c.oid), pg_table_size(c.oid), c.reltuples::int8 FROM pg_class c \
             WHERE c.relkind = 'r' AND (c.oid = {0} OR c.oid IN (SELECT relid FROM pg_partition_tree({0}) WHERE isleaf)) \
             ORDER BY c.oid",
            table.native_id
        );
        let config = self.config.clone();
        let rows = self.reader().await?.query(&sql).await.map_err(|f| source_error(&config, f))?;
        let number = |v: &Option<Bytes>| -> Option<i64> { std::str::from_utf8(v.as_ref()?).ok()?.parse().ok() };
        let mut out = Vec::new();
        for row in rows {
            let at = |i: usize| row.get(i).and_then(number).unwrap_or(0);
            let (leaf, main, all, tuples) = (at(0), at(1).max(0) as u64, at(2).max(0) as u64, at(3));
            let pages = main.div_ceil(PAGE_BYTES);
            let step = (pages_per_unit(pages, all, tuples) / self.share).max(1);
            let mut from = 0;
            loop {
                let to = from + step;
                let open = to >= pages;
                let mut lower = vec![format!("({from},0)")];
                if leaf as u64 != table.native_id {
                    lower.push(leaf.to_string());
                }
                out.push(Chunk {
                    table: table.clone(),
                    unit: 0,
                    method: ChunkMethod::Exported,
                    lower,
                    upper: if open { Vec::new() } else { vec![format!("({to},0)")] },
                    last_of_table: false,
                    rows_estimate: (tuples.max(0) as u64).checked_mul(step.min(pages)).map_or(0, |n| n / pages.max(1)),
                });
                if open {
                    break;
                }
                from = to;
            }
        }
        Ok(out)
    }

    /// Ranges of keys from a sample of the table's pages, ordered by the server (collations are its own).
    async fn plan_keys(&mut self, table: &Arc<TableSchema>) -> Result<Vec<Chunk>, SourceError> {
        let whole = |lower: Vec<String>, upper: Vec<String>, estimate| Chunk {
            table: table.clone(),
            unit: 0,
            method: ChunkMethod::Chunked,
            lower,
            upper,
            last_of_table: false,
            rows_estimate: estimate,
        };
        if table.key.is_empty() {
            return Ok(vec![whole(Vec::new(), Vec::new(), 0)]);
        }
        let config = self.config.clone();
        let sql = format!(
            "SELECT greatest(sum(c.reltuples), 0)::int8, sum(pg_table_size(c.oid))::int8 FROM pg_class c \
             WHERE c.oid = {0} OR c.oid IN (SELECT relid FROM pg_partition_tree({0}) WHERE isleaf)",
            table.native_id
        );
        let reader = self.reader().await?;
        let rows = reader.query(&sql).await.map_err(|f| source_error(&config, f))?;
        let at = |i: usize| -> u64 {
            let text = rows.first().and_then(|r| r.get(i)?.as_ref());
            text.and_then(|b| std::str::from_utf8(b).ok()?.parse().ok()).unwrap_or(0)
        };
        let (tuples, bytes) = (at(0), at(1));
        let tuples = if tuples == 0 { bytes / 100 } else { tuples };
        let per_unit = UNIT_ROWS_MAX.min(if tuples == 0 {
            UNIT_ROWS_MAX
        } else {
            (UNIT_BYTES_MAX * tuples / bytes.max(1)).max(1)
        });
        // About 40 sampled rows for each boundary keep the ranges even; small tables are read whole.
        let percent = if tuples <= 200_000 { 100.0 } else { (4_000.0 / per_unit as f64).clamp(0.1, 100.0) };
        let every = ((per_unit as f64 * percent / 100.0) as u64).max(1);
        let keys: Vec<String> = key_columns(table).collect();
        let list = keys.join(", ");
        // Of a statement there is no sample: it is read once more, for its keys.
        let (from, every) = match self.override_of(table).await? {
            Some((from, _)) => (from, per_unit),
            None => {
                let of = whole_relation(&config, self.reader().await?, table).await?;
                (format!("{of} TABLESAMPLE SYSTEM ({percent})"), every)
            }
        };
        let sql = format!(
            "SELECT {list} FROM (SELECT {list}, row_number() OVER (ORDER BY {list}) AS _n \
             FROM {from}) s WHERE _n % {every} = 0 ORDER BY {list}"
        );
        let rows = self.reader().await?.query(&sql).await.map_err(|f| self.refused(&table.qualified(), f))?;
        let mut out = Vec::new();
        let mut lower: Vec<String> = Vec::new();
        for row in rows {
            let key: Option<Vec<String>> =
                row.iter().map(|v| Some(String::from_utf8_lossy(v.as_ref()?).into_owned())).collect();
            let Some(key) = key else { continue };
            out.push(whole(std::mem::replace(&mut lower, key.clone()), key, per_unit));
        }
        out.push(whole(lower, Vec::new(), per_unit));
        Ok(out)
    }

    async fn read_now(&mut self, chunk: &Chunk, out: &mut Vec<RowChange>) -> Result<ChunkEnd, SourceError> {
        match chunk.method {
            ChunkMethod::Exported => self.read_exported(chunk, out).await,
            ChunkMethod::Chunked => self.read_chunked(chunk, out).await,
        }
    }

    async fn read_exported(&mut self, chunk: &Chunk, out: &mut Vec<RowChange>) -> Result<ChunkEnd, SourceError> {
        let from = out.len();
        self.copy_exported(chunk, &mut |row| {
            out.push(row);
            Ok(())
        })
        .await?;
        Ok(ChunkEnd { view: View::Exported, rows: (out.len() - from) as u64 })
    }

    async fn copy_exported(&mut self, chunk: &Chunk, each: &mut Each<'_>) -> Result<(), SourceError> {
        let config = self.config.clone();
        let table = &chunk.table;
        let (sql, format) = match self.override_of(table).await? {
            Some((from, list)) => {
                (format!("COPY (SELECT {list} FROM {from} WHERE {}) TO STDOUT", within(chunk)), Format::Text)
            }
            None => self.copy_of(chunk).await?,
        };
        self.enter().await?;
        let info = self.info.clone();
        let reader = self.reader().await?;
        copy_each(&config, reader, &sql, format, table, &info, each).await?;
        if view::is_rewritten(&config, reader, table).await? {
            return Err(view::rewritten(table));
        }
        reader.query("COMMIT").await.map_err(|f| source_error(&config, f))?;
        Ok(())
    }

    /// The statement that copies a range of pages.
    async fn copy_of(&mut self, chunk: &Chunk) -> Result<(String, Format), SourceError> {
        let from = chunk.lower.first().map_or("(0,0)", String::as_str);
        let to = chunk.upper.first().cloned().unwrap_or_else(|| format!("({},0)", PAGES_END - 1));
        // Bounds come back from a stored CHUNK record: literals, whatever they hold.
        let condition = format!(
            "ctid >= {}::pg_catalog.tid AND ctid < {}::pg_catalog.tid",
            quote_literal(from),
            quote_literal(&to)
        );
        let leaf = chunk.lower.get(1).and_then(|l| l.parse::<u32>().ok());
        let config = self.config.clone();
        let is_known = chunk.table.columns.iter().all(|c| self.copied.contains(&c.native_id));
        let reader = self.reader().await?;
        let relation = match leaf {
            None => relation(&chunk.table),
            Some(oid) => {
                let rows = reader
                    .query(&format!("SELECT {oid}::pg_catalog.oid::pg_catalog.regclass::pg_catalog.text"))
                    .await
                    .map_err(|f| source_error(&config, f))?;
                let text = rows.first().and_then(|r| r.first()?.clone());
                String::from_utf8_lossy(&text.unwrap_or_default()).into_owned()
            }
        };
        let (format, how) = match is_known {
            true => (Format::Binary, " (FORMAT binary)"),
            false => (Format::Text, ""),
        };
        let list = select_list(&chunk.table);
        Ok((format!("COPY (SELECT {list} FROM ONLY {relation} WHERE {condition}) TO STDOUT{how}"), format))
    }

    async fn read_chunked(&mut self, chunk: &Chunk, out: &mut Vec<RowChange>) -> Result<ChunkEnd, SourceError> {
        let config = self.config.clone();
        let (from, list) = match self.override_of(&chunk.table).await? {
            Some(given) => given,
            None => {
                let from = whole_relation(&config, self.reader().await?, &chunk.table).await?;
                (from, select_list(&chunk.table))
            }
        };
        let reads = config.reading.reads(&chunk.table.qualified());
        let condition = if reads { within(chunk) } else { "false".to_owned() };
        let sql = format!("COPY (SELECT {list} FROM {from} WHERE {condition}) TO STDOUT");
        let is_joined = chunk.unit == 0 && self.joined.contains(&chunk.table.native_id);
        let reader = self.reader().await?;
        if is_joined {
            view::wait_for_writers(&config, reader, &chunk.table).await?;
        }
        if chunk.table.key.is_empty() || is_joined {
            // Of what the log held before the stream's start nothing is known by a key: the view has to show all of it.
            view::wait_for_commits(&config, reader).await?;
        }
        let (rows, view) = view::copy_in_view(&config, reader, &sql, &chunk.table, out).await?;
        Ok(ChunkEnd { view, rows })
    }
}

/// The condition of a range of keys.
fn within(chunk: &Chunk) -> String {
    let bound = |op: &str, values: &[String]| -> Option<String> {
        if values.len() != chunk.table.key.len() || values.is_empty() {
            return None;
        }
        let types = chunk.table.key.iter().map(|k| &chunk.table.columns[usize::from(*k)].native_type);
        let literals: Vec<String> = types.zip(values).map(|(t, v)| format!("{}::{t}", quote_literal(v))).collect();
        let keys: Vec<String> = key_columns(&chunk.table).collect();
        Some(format!("({}) {op} ({})", keys.join(", "), literals.join(", ")))
    };
    let all: Vec<String> = [bound(">=", &chunk.lower), bound("<", &chunk.upper)].into_iter().flatten().collect();
    if all.is_empty() { "true".to_owned() } else { all.join(" AND ") }
}

/// Pages of a unit: as many as hold `UNIT_ROWS_MAX` rows and `UNIT_BYTES_MAX` bytes, TOAST included, by the server's
/// estimates; without them by the worst case.
fn pages_per_unit(pages: u64, bytes_with_toast: u64, tuples: i64) -> u64 {
    let density = match u64::try_from(tuples) {
        Ok(n) if n > 0 && pages > 0 => (n.div_ceil(pages)).clamp(1, ROWS_PER_PAGE_MAX),
        _ => ROWS_PER_PAGE_MAX,
    };
    let page_bytes = (bytes_with_toast / pages.max(1)).max(PAGE_BYTES);
    (UNIT_ROWS_MAX / density).min(UNIT_BYTES_MAX / page_bytes).max(1)
}

fn relation(table: &TableSchema) -> String {
    format!("{}.{}", quote_ident(&table.schema), quote_ident(&table.name))
}

/// The table with its partitions, but without tables that inherit from it: those are tables of their own.
pub(super) async fn whole_relation(
    config: &SourceConfig,
    reader: &mut Transport,
    table: &TableSchema,
) -> Result<String, SourceError> {
    let sql = format!("SELECT relkind::pg_catalog.text FROM pg_catalog.pg_class WHERE oid = {}", table.native_id);
    let rows = reader.query(&sql).await.map_err(|f| source_error(config, f))?;
    let partitioned = rows.first().and_then(|r| r.first()?.as_ref()).is_some_and(|k| &k[..] == b"p");
    Ok(if partitioned { relation(table) } else { format!("ONLY {}", relation(table)) })
}

pub(super) fn key_columns(table: &TableSchema) -> impl Iterator<Item = String> + '_ {
    table.key.iter().map(|k| quote_ident(&table.columns[usize::from(*k)].name))
}

pub(super) fn select_list(table: &TableSchema) -> String {
    table.columns.iter().map(|c| quote_ident(&c.name)).collect::<Vec<_>>().join(", ")
}

/// How rows are copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    Text,
    Binary,
}

/// Copies in text, rows to be marked later.
pub(super) async fn copy(
    config: &SourceConfig,
    reader: &mut Transport,
    sql: &str,
    table: &Arc<TableSchema>,
    out: &mut Vec<RowChange>,
) -> Result<u64, SourceError> {
    let from = out.len();
    let mut each = |row| {
        out.push(row);
        Ok(())
    };
    copy_each(config, reader, sql, Format::Text, table, &NO_PLACE, &mut each).await?;
    Ok((out.len() - from) as u64)
}

async fn copy_each(
    config: &SourceConfig,
    reader: &mut Transport,
    sql: &str,
    format: Format,
    table: &Arc<TableSchema>,
    info: &SourceInfo,
    each: &mut Each<'_>,
) -> Result<(), SourceError> {
    let mut bad = None;
    let mut binary = values::BinaryCopy::default();
    // One CopyData is one row; escaping at most doubles a value.
    let bytes_max = match format {
        Format::Text => config.row_bytes_max.saturating_mul(2),
        Format::Binary => config.row_bytes_max,
    };
    let done = reader
        .copy_out(sql, bytes_max.saturating_add(1024 * 1024), |message| {
            let row = match format {
                Format::Text => values::copy_row(table, &message).map(Some),
                Format::Binary => binary.row(table, &message),
            };
            let change = |row| RowChange {
                table: table.clone(),
                op: Op::Read,
                before: None,
                after: Some(row),
                snapshot: SnapshotMark::Middle,
                info: info.clone(),
            };
            let taken = match row {
                Ok(Some(row)) => each(change(row)),
                Ok(None) => Ok(()),
                Err(e) => Err(super::row_error(e)),
            };
            taken.map_err(|e| {
                let text = e.to_string();
                bad.get_or_insert(e);
                Fault::Protocol(text)
            })
        })
        .await;
    match (done, bad) {
        (Ok(()), _) if format == Format::Binary && !binary.is_whole() => {
            Err(source_error(config, Fault::Protocol("a COPY ended before its last row".into())))
        }
        (Ok(()), _) => Ok(()),
        (Err(_), Some(e)) => Err(e),
        (Err(fault), None) => Err(source_error(config, fault)),
    }
}

/// Of a statement on a table that lost a column, its name or itself since the source was opened: nobody's fault. The source is opened
/// anew, and what is left is read as it is then.
fn altered(error: SourceError) -> SourceError {
    let is_it = ["42703", "42P01", "3F000"].iter().any(|state| error.what.contains(&format!("(SQLSTATE {state})")));
    if !is_it || error.class != SourceClass::Config {
        return error;
    }
    let what = format!("a table was altered or dropped since its snapshot began: {}", error.what);
    SourceError::new(SourceClass::Retry, code::SNAPSHOT_GONE, what, "the rest is read by key ranges")
}

impl PgSnapshot {
    /// A person's own statement stays wrong until somebody looks at it.
    fn judged(&self, table: &TableSchema, error: SourceError) -> SourceError {
        let is_theirs = self.config.reading.snapshot_selects.contains_key(&table.qualified());
        if is_theirs { error } else { altered(error) }
    }

    fn begin(&mut self) {
        if std::mem::replace(&mut self.busy, true) {
            self.reader = None;
            self.held = None;
        }
    }
}

impl Snapshot for PgSnapshot {
    fn plan(&mut self, tables: &[Arc<TableSchema>]) -> Fut<'_, Result<Vec<Chunk>, SourceError>> {
        let tables = tables.to_vec();
        Box::pin(async move {
            self.begin();
            let chunks = self.plan_now(&tables).await?;
            self.busy = false;
            Ok(chunks)
        })
    }

    fn read<'a>(&'a mut self, chunk: &'a Chunk, out: &'a mut Vec<RowChange>) -> Fut<'a, Result<ChunkEnd, SourceError>> {
        Box::pin(async move {
            self.begin();
            let end = self.read_now(chunk, out).await.map_err(|e| self.judged(&chunk.table, e))?;
            self.busy = false;
            Ok(end)
        })
    }

    fn read_each<'a>(&'a mut self, chunk: &'a Chunk, each: &'a mut Each<'_>) -> Fut<'a, Result<View, SourceError>> {
        Box::pin(async move {
            self.begin();
            let view = match chunk.method {
                ChunkMethod::Exported => {
                    self.copy_exported(chunk, each).await.map_err(|e| self.judged(&chunk.table, e))?;
                    View::Exported
                }
                ChunkMethod::Chunked => {
                    let mut rows = Vec::new();
                    let end = self.read_now(chunk, &mut rows).await.map_err(|e| self.judged(&chunk.table, e))?;
                    rows.into_iter().try_for_each(each)?;
                    end.view
                }
            };
            self.busy = false;
            Ok(view)
        })
    }

    fn joined(&mut self, tables: &[Arc<TableSchema>]) {
        self.joined.extend(tables.iter().map(|t| t.native_id));
    }

    fn share(&mut self, readers: usize) {
        self.share = readers.max(1) as u64;
    }

    fn stretches<'a>(&'a mut self, of: &'a Stretch) -> Fut<'a, Result<Expected, SourceError>> {
        Box::pin(async move {
            // An export of the first snapshot that nobody took is no view for this.
            self.export = None;
            self.begin();
            self.reader = None;
            self.held = None;
            let config = self.config.clone();
            let is_joined = self.joined.contains(&of.table.native_id);
            let reader = self.reader().await?;
            if is_joined {
                view::wait_for_writers(&config, reader, &of.table).await?;
                view::wait_for_commits(&config, reader).await?;
            }
            let today = stretch::today(&config, &of.table).await?;
            let now = Stretch { table: today.clone(), ..of.clone() };
            let expected = stretch::prepare(&config, reader, &now).await?;
            self.today.insert(of.table.native_id, today);
            self.busy = false;
            Ok(expected)
        })
    }

    fn look<'a>(&'a mut self, of: &'a Stretch) -> Fut<'a, Result<(), SourceError>> {
        Box::pin(async move {
            self.export = None;
            self.begin();
            let config = self.config.clone();
            let reader = self.reader().await?;
            let now = Stretch { table: stretch::today(&config, &of.table).await?, ..of.clone() };
            let looked_at = stretch::look(&config, reader, &now).await;
            self.busy = false;
            looked_at.map(drop)
        })
    }

    fn stretch<'a>(
        &'a mut self,
        of: &'a Stretch,
        out: &'a mut Vec<RowChange>,
    ) -> Fut<'a, Result<StretchEnd, SourceError>> {
        Box::pin(async move {
            self.begin();
            let config = self.config.clone();
            let mut held = self.held.take();
            let today = self.today.get(&of.table.native_id).unwrap_or(&of.table).clone();
            let of = &Stretch { table: today, ..of.clone() };
            let reader = self.reader().await?;
            let end = match of.hold {
                true => stretch::read_held(&config, reader, &mut held, of, out).await?,
                false => stretch::read(&config, reader, of, out).await?,
            };
            self.held = held;
            self.busy = false;
            Ok(end)
        })
    }

    fn close(&mut self) -> Fut<'_, ()> {
        Box::pin(async move {
            self.export = None;
            if let Some(reader) = self.reader.take() {
                reader.close().await;
            }
        })
    }
}

/// The places of `tables` in the order to read them. `references`: a table and the one it refers to.
fn in_order_of(tables: &[u64], references: &[(u64, u64)]) -> Vec<usize> {
    let at: BTreeMap<u64, usize> = tables.iter().enumerate().map(|(i, id)| (*id, i)).collect();
    let mut waits: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); tables.len()];
    let mut children: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); tables.len()];
    for (child, parent) in references {
        if let (Some(child), Some(parent)) = (at.get(child), at.get(parent))
            && child != parent
        {
            waits[*child].insert(*parent);
            children[*parent].insert(*child);
        }
    }
    let mut rest: BTreeSet<usize> = (0..tables.len()).collect();
    let mut free: BTreeSet<usize> = rest.iter().copied().filter(|i| waits[*i].is_empty()).collect();
    let mut out = Vec::with_capacity(tables.len());
    // In a circle the first one begins.
    while let Some(next) = free.pop_first().or_else(|| rest.first().copied()) {
        rest.remove(&next);
        out.push(next);
        for child in std::mem::take(&mut children[next]) {
            waits[child].remove(&next);
            if waits[child].is_empty() && rest.contains(&child) {
                free.insert(child);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_stay_within_rows_and_bytes() {
        assert_eq!(pages_per_unit(10_000, 10_000 * 8192, -1), UNIT_ROWS_MAX / ROWS_PER_PAGE_MAX);
        assert_eq!(pages_per_unit(10_000, 10_000 * 8192, 400_000), 1250);
        // TOAST weighs ten times the table.
        assert_eq!(pages_per_unit(1000, 10_000 * 8192, 1000), 204);
        assert_eq!(pages_per_unit(0, 0, 0), UNIT_ROWS_MAX / ROWS_PER_PAGE_MAX);
        assert_eq!(pages_per_unit(1, 1 << 40, 1), 1);
    }

    #[test]
    fn parents_come_first_and_circles_end() {
        let order = |references: &[(u64, u64)]| -> Vec<u64> {
            in_order_of(&[1, 2, 3, 4, 5, 6], references).into_iter().map(|i| i as u64 + 1).collect()
        };
        assert_eq!(order(&[]), [1, 2, 3, 4, 5, 6]);
        assert_eq!(order(&[(1, 4), (4, 6), (2, 99), (5, 5)]), [2, 3, 5, 6, 4, 1]);
        // 1 and 2 refer to each other, 3 to 2.
        assert_eq!(order(&[(1, 2), (2, 1), (3, 2)]), [4, 5, 6, 1, 2, 3]);
        assert_eq!(order(&[(1, 2), (2, 1), (3, 4), (4, 3), (5, 6), (6, 5)]), [1, 2, 3, 4, 5, 6]);
    }
}
