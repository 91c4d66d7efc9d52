//! Reading what is there: tables in chunks, each in an exact view.
//!
//! A view is exact because a unit is closed first and a read transaction begun after it, and the two are compared: if
//! nothing was committed in between, the view is the end of that unit. The first snapshot reads everything in one such
//! view, the stream's start, which `open` prepares; later (after a crash) each chunk has a view of its own.

use super::attach::{self, boundary};
use crate::catalog::{RowIdentity, Table};
use crate::codes;
use crate::config::SourceConfig;
use crate::fault;
use crate::types::{bound_text, bound_value, cell_of, output, quoted};
use catchwater_capture::source::{Chunk, ChunkEnd, ChunkMethod, Snapshot, SourceClass, SourceError, View};
use catchwater_change::{Native, Op, Row, RowChange, SnapshotMark, SourceInfo, TableSchema};
use catchwater_runtime::Fut;
use catchwater_runtime::spawn::blocking;
use catchwater_runtime::time::wall;
use rusqlite::{Connection, TransactionBehavior};
use std::sync::Arc;

/// Tries to begin a view before a writer gets in between.
const VIEW_TRIES: u32 = 200;

/// A connection inside a read transaction, and the end of the unit it shows.
pub struct Pinned {
    pub db: Connection,
    pub seq: i64,
}

/// Begins an exact view. `writer` closes the unit.
pub fn pin(config: &SourceConfig, writer: &mut Connection) -> Result<Pinned, SourceError> {
    let failed = |e: rusqlite::Error| fault::source("begin a snapshot", &e);
    let db = attach::connect(config)?;
    for _ in 0..VIEW_TRIES {
        let tx = writer.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let seq = boundary(&tx, wall()).map_err(failed)?;
        tx.commit().map_err(failed)?;
        db.execute_batch("BEGIN").map_err(failed)?;
        let seen: i64 =
            db.query_row("SELECT coalesce(max(seq), 0) FROM _catchwater_changes", [], |r| r.get(0)).map_err(failed)?;
        if seen <= seq {
            return Ok(Pinned { db, seq });
        }
        db.execute_batch("ROLLBACK").map_err(failed)?;
    }
    Err(SourceError::new(
        SourceClass::Retry,
        codes::SOURCE_BUSY,
        "writers leave no moment to begin a snapshot",
        "it is tried again",
    ))
}

/// Reads chunks; blocking work is on the pool.
pub struct SqliteSnapshot {
    config: SourceConfig,
    /// The view at the stream's start; gone after a crash or when a read was dropped in its middle.
    pinned: Option<Pinned>,
    exported: bool,
    /// Closes units for views of single chunks.
    writer: Option<Connection>,
}

impl SqliteSnapshot {
    pub fn new(config: SourceConfig, pinned: Option<Pinned>) -> Self {
        SqliteSnapshot { config, exported: pinned.is_some(), pinned, writer: None }
    }

    /// The connections, for a job on the pool; they come back with its result.
    fn job<'a, T: Send + 'static>(
        &'a mut self,
        work: impl FnOnce(&Connection, i64) -> Result<T, SourceError> + Send + 'static,
    ) -> Fut<'a, Result<(T, i64), SourceError>> {
        let config = self.config.clone();
        let (pinned, writer, exported) = (self.pinned.take(), self.writer.take(), self.exported);
        Box::pin(async move {
            let done = blocking(move || {
                if exported {
                    let Some(pinned) = pinned else {
                        return Err(SourceError::new(
                            SourceClass::Retry,
                            codes::SOURCE_BUSY,
                            "the snapshot's view is gone",
                            "",
                        ));
                    };
                    let result = work(&pinned.db, pinned.seq).map(|t| (t, pinned.seq));
                    return Ok((result, Some(pinned), None));
                }
                let mut writer = match writer {
                    Some(w) => w,
                    None => attach::connect(&config)?,
                };
                let view = pin(&config, &mut writer)?;
                let result = work(&view.db, view.seq).map(|t| (t, view.seq));
                Ok((result, None, Some(writer)))
            })
            .await;
            match done {
                Ok(Ok((result, pinned, writer))) => {
                    self.pinned = pinned;
                    self.writer = writer;
                    result
                }
                Ok(Err(e)) => Err(e),
                Err(e) => Err(SourceError::new(SourceClass::Bug, codes::SOURCE_BUSY, e, "report this")),
            }
        })
    }
}

impl Snapshot for SqliteSnapshot {
    fn plan(&mut self, tables: &[Arc<TableSchema>]) -> Fut<'_, Result<Vec<Chunk>, SourceError>> {
        let tables = tables.to_vec();
        let (rows, exported) = (self.config.chunk_rows.max(1), self.exported);
        let method = if exported { ChunkMethod::Exported } else { ChunkMethod::Chunked };
        let work = self.job(move |db, _| {
            let mut out = Vec::new();
            for table in tables {
                plan_table(db, table, rows, method, &mut out)?;
            }
            Ok(out)
        });
        Box::pin(async move { Ok(work.await?.0) })
    }

    fn read<'a>(&'a mut self, chunk: &'a Chunk, out: &'a mut Vec<RowChange>) -> Fut<'a, Result<ChunkEnd, SourceError>> {
        let wanted = chunk.clone();
        let exported = self.exported;
        let work = self.job(move |db, seq| read_chunk(db, &wanted, seq));
        Box::pin(async move {
            let (rows, seq) = work.await?;
            let count = rows.len() as u64;
            out.extend(rows);
            let view = if exported { View::Exported } else { View::Exact(Native::sqlite(seq as u64)) };
            Ok(ChunkEnd { view, rows: count })
        })
    }

    fn close(&mut self) -> Fut<'_, ()> {
        self.pinned = None;
        self.writer = None;
        Box::pin(std::future::ready(()))
    }
}

/// Columns by which a table is walked: what identifies its rows.
fn walk_columns(table: &Table) -> Vec<String> {
    match table.identity {
        RowIdentity::Alias(i) => vec![quoted(&table.columns[i].name)],
        RowIdentity::Rowid(name) => vec![name.to_owned()],
        RowIdentity::Key => table.key.iter().map(|k| quoted(&table.columns[*k].name)).collect(),
    }
}

fn plan_table(
    db: &Connection,
    schema: Arc<TableSchema>,
    rows: u32,
    method: ChunkMethod,
    out: &mut Vec<Chunk>,
) -> Result<(), SourceError> {
    let failed = |e: rusqlite::Error| fault::source("plan a snapshot", &e);
    let table = Table::read(db, &schema.name).map_err(attach::table_error)?;
    let columns = walk_columns(&table).join(", ");
    let count = walk_columns(&table).len();
    let t = quoted(&table.name);
    let first = out.len();
    let mut lower: Vec<String> = Vec::new();
    loop {
        let (condition, values) = range(&table, &lower, &[]);
        let sql = format!("SELECT {columns} FROM {t}{condition} ORDER BY {columns} LIMIT 1 OFFSET {rows}");
        let mut statement = db.prepare(&sql).map_err(failed)?;
        let mut found = statement.query(rusqlite::params_from_iter(values.iter().map(output))).map_err(failed)?;
        // Chunks have views of their own; a table without a key needs one.
        let whole = method == ChunkMethod::Chunked && schema.key.is_empty();
        let upper: Vec<String> = match found.next().map_err(failed)? {
            Some(r) if !whole => {
                (0..count).map(|i| r.get_ref(i).map(bound_text)).collect::<rusqlite::Result<_>>().map_err(failed)?
            }
            _ => Vec::new(),
        };
        let last = upper.is_empty();
        out.push(Chunk {
            table: schema.clone(),
            unit: (out.len() - first) as u32,
            method,
            lower: std::mem::replace(&mut lower, upper.clone()),
            upper,
            last_of_table: last,
            rows_estimate: u64::from(rows),
        });
        if last {
            return Ok(());
        }
    }
}

/// `WHERE lower <= key < upper`, with the values to bind; empty = open.
fn range(table: &Table, lower: &[String], upper: &[String]) -> (String, Vec<rusqlite::types::Value>) {
    let columns = walk_columns(table);
    let (mut parts, mut values) = (Vec::new(), Vec::new());
    for (bounds, relation) in [(lower, ">="), (upper, "<")] {
        if bounds.len() != columns.len() {
            continue;
        }
        values.extend(bounds.iter().filter_map(|b| bound_value(b)));
        let marks = vec!["?"; columns.len()].join(", ");
        parts.push(format!("({}) {relation} ({marks})", columns.join(", ")));
    }
    if parts.is_empty() { (String::new(), values) } else { (format!(" WHERE {}", parts.join(" AND ")), values) }
}

fn read_chunk(db: &Connection, chunk: &Chunk, seq: i64) -> Result<Vec<RowChange>, SourceError> {
    let failed = |e: rusqlite::Error| fault::source("read a snapshot", &e);
    let schema = &chunk.table;
    let table = Table::read(db, &schema.name).map_err(attach::table_error)?;
    for column in &schema.columns {
        if !table.columns.iter().any(|c| c.name == column.name) {
            return Err(SourceError::new(
                SourceClass::Retry,
                codes::SOURCE_BUSY,
                format!("{} has changed its columns since the snapshot was planned", schema.name),
                "it is planned again",
            ));
        }
    }
    let cells: Vec<String> = schema.columns.iter().map(|c| quoted(&c.name)).collect();
    let (condition, values) = range(&table, &chunk.lower, &chunk.upper);
    let order = walk_columns(&table).join(", ");
    let sql = format!("SELECT {} FROM {}{condition} ORDER BY {order}", cells.join(", "), quoted(&table.name));
    let mut statement = db.prepare(&sql).map_err(failed)?;
    let mut rows = statement.query(rusqlite::params_from_iter(values.iter().map(output))).map_err(failed)?;
    let mut out = Vec::new();
    while let Some(r) = rows.next().map_err(failed)? {
        let cells = schema
            .columns
            .iter()
            .enumerate()
            .map(|(i, c)| r.get_ref(i).map(|v| cell_of(c, v)))
            .collect::<rusqlite::Result<_>>()
            .map_err(failed)?;
        out.push(RowChange {
            table: schema.clone(),
            op: Op::Read,
            before: None,
            after: Some(Row::new(cells)),
            snapshot: SnapshotMark::Middle,
            info: SourceInfo::Sqlite { seq: seq as u64 },
        });
    }
    Ok(out)
}
