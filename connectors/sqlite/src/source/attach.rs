//! Making a database ready and keeping it so: our tables, triggers, versions of shapes, the purge.

use super::triggers::{FORMAT, TABLES, Triggers};
use crate::catalog::{self, Table, TableColumn, TableError};
use crate::codes;
use crate::config::SourceConfig;
use crate::fault;
use catchwater_base::Wall;
use catchwater_capture::source::{SourceClass, SourceError};
use catchwater_change::TableSchema;
use catchwater_change::json::{self, Node};
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Rows a purge removes in one transaction.
const PURGE_ROWS: i64 = 5_000;

/// A captured table as it stands now.
#[derive(Clone, Debug)]
pub struct Captured {
    pub table: Table,
    pub version: i64,
}

/// What the change table's numbers mean.
#[derive(Clone, Debug, Default)]
pub struct Shapes {
    pub current: BTreeMap<i64, Captured>,
    /// (table, version) → the shape its changes were written in.
    pub all: BTreeMap<(i64, i64), Arc<TableSchema>>,
}

impl Shapes {
    pub fn tables(&self) -> Vec<Arc<TableSchema>> {
        self.current.iter().filter_map(|(n, c)| self.all.get(&(*n, c.version)).cloned()).collect()
    }
}

pub fn table_error(e: TableError) -> SourceError {
    let what = e.to_string();
    match e {
        TableError::Missing(_) | TableError::View(_) => {
            SourceError::new(SourceClass::Config, codes::TABLE_MISSING, what, "name tables that exist in the database")
        }
        TableError::Sql(_) => SourceError::new(SourceClass::Retry, codes::SOURCE_BUSY, what, ""),
        _ => SourceError::new(SourceClass::Config, codes::NOT_CAPTURABLE, what, "leave the table out of the capture"),
    }
}

/// A connection to the captured database. Our commits are synchronous, so nothing that was given out can be lost by the
/// source in a power cut.
pub fn connect(config: &SourceConfig) -> Result<Connection, SourceError> {
    let failed = |e: rusqlite::Error| fault::source(&format!("open {}", config.file.display()), &e);
    if !config.file.exists() {
        return Err(SourceError::new(
            SourceClass::Config,
            codes::FILE_MISSING,
            format!("{} does not exist", config.file.display()),
            "give the path of an existing SQLite file",
        ));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(&config.file, flags).map_err(failed)?;
    db.busy_timeout(Duration::from_millis(u64::from(config.busy_ms))).map_err(failed)?;
    db.set_prepared_statement_cache_capacity(64);
    db.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    // Reads the header: a file that is no database is found here.
    db.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(failed)?;
    Ok(db)
}

/// The id of the capture that stands in the database.
pub fn uuid(db: &Connection) -> rusqlite::Result<Option<Vec<u8>>> {
    if !catalog::exists(db, "_catchwater_meta")? {
        return Ok(None);
    }
    db.query_row("SELECT uuid FROM _catchwater_meta WHERE id = 1", [], |r| r.get(0)).optional()
}

/// Removes everything of ours, tables and triggers, if the capture that stands in the file is `ours`.
pub fn detach(db: &mut Connection, ours: &[u8]) -> rusqlite::Result<()> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if uuid(&tx)?.as_deref() == Some(ours) {
        remove_all(&tx)?;
    }
    tx.commit()
}

/// Prints the statements that do the same by hand, triggers first.
pub const LIST_DROPS: &str = "SELECT 'DROP ' || type || ' \"' || name || '\";' FROM sqlite_schema WHERE type IN ('trigger', 'table') \
     AND name GLOB '_catchwater_*' ORDER BY type DESC; -- prints the statements to run";

fn remove_all(db: &Connection) -> rusqlite::Result<()> {
    let mut statement = db.prepare(
        "SELECT type, name FROM sqlite_schema WHERE type IN ('trigger','table') AND name LIKE '\\_catchwater\\_%' ESCAPE '\\' \
         ORDER BY type DESC",
    )?;
    let found: Vec<(String, String)> =
        statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    for (kind, name) in found {
        db.execute_batch(&format!("DROP {kind} {}", crate::types::quoted(&name)))?;
    }
    Ok(())
}

/// Begins anew: whatever an earlier capture left is removed.
pub fn attach(db: &mut Connection, config: &SourceConfig, now: Wall) -> Result<Shapes, SourceError> {
    let failed = |e: rusqlite::Error| fault::source("attach", &e);
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    remove_all(&tx).map_err(failed)?;
    tx.execute_batch(TABLES).map_err(failed)?;
    tx.execute("INSERT INTO _catchwater_meta VALUES (1, ?1, randomblob(16), 0)", [FORMAT]).map_err(failed)?;
    let mut shapes = Shapes::default();
    for name in wanted(&tx, config).map_err(failed)? {
        let table = Table::read(&tx, &name).map_err(table_error)?;
        table.check_capturable().map_err(table_error)?;
        let number = shapes.current.len() as i64 + 1;
        install(&tx, &mut shapes, config, number, 1, table).map_err(failed)?;
    }
    for name in config.named() {
        if !shapes.current.values().any(|c| c.table.name.eq_ignore_ascii_case(name)) {
            Table::read(&tx, name).map_err(table_error)?;
        }
    }
    boundary(&tx, now).map_err(failed)?;
    tx.commit().map_err(failed)?;
    Ok(shapes)
}

fn wanted(db: &Connection, config: &SourceConfig) -> rusqlite::Result<Vec<String>> {
    Ok(catalog::user_tables(db)?.into_iter().filter(|t| config.takes(t)).collect())
}

fn install(
    db: &Connection,
    shapes: &mut Shapes,
    config: &SourceConfig,
    number: i64,
    version: i64,
    table: Table,
) -> rusqlite::Result<()> {
    widen(db, table.columns.len())?;
    db.execute(
        "INSERT INTO _catchwater_tables VALUES (?1, ?2, ?3, ?4, ?5)",
        rusqlite::params![number, version, table.name, columns_json(&table), key_json(&table)],
    )?;
    db.execute_batch(&Triggers { table: &table, number, version }.install())?;
    shapes.all.insert((number, version), Arc::new(table.schema(&database_name(config))));
    shapes.current.insert(number, Captured { table, version });
    Ok(())
}

/// The change table gets as many cells as the widest table.
fn widen(db: &Connection, cells: usize) -> rusqlite::Result<()> {
    let have: i64 =
        db.query_row("SELECT count(*) - 4 FROM pragma_table_info('_catchwater_changes')", [], |r| r.get(0))?;
    for i in have..cells as i64 {
        db.execute_batch(&format!("ALTER TABLE _catchwater_changes ADD COLUMN c{i}"))?;
    }
    Ok(())
}

/// Name of the file without its directory and extension: Debezium's `source.db`.
pub fn database_name(config: &SourceConfig) -> String {
    config.file.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Everything committed until now is a unit of its own from here on. Returns its end.
pub fn boundary(db: &Connection, now: Wall) -> rusqlite::Result<i64> {
    let last: i64 = db.query_row(
        "SELECT max((SELECT coalesce(max(seq), 0) FROM _catchwater_changes), (SELECT coalesce(max(seq), 0) FROM _catchwater_units))",
        [],
        |r| r.get(0),
    )?;
    db.execute("INSERT OR IGNORE INTO _catchwater_units VALUES (?1, ?2)", rusqlite::params![last, now.as_micros()])?;
    Ok(last)
}

/// Reads what an earlier start left and checks that nothing is missing.
pub fn reattach(db: &Connection, config: &SourceConfig, after: i64) -> Result<Shapes, SourceError> {
    let failed = |e: rusqlite::Error| fault::source("read the capture's tables", &e);
    let gap = |what: String| {
        SourceError::new(
            SourceClass::Gap,
            codes::CHANGES_LOST,
            what,
            "the database was restored, or its triggers removed: capture it anew under another source name",
        )
    };
    let (format, purged): (i64, i64) = db
        .query_row("SELECT format, purged FROM _catchwater_meta WHERE id = 1", [], |r| Ok((r.get(0)?, r.get(1)?)))
        .map_err(failed)?;
    if format != FORMAT {
        return Err(gap(format!("the change tables have format {format}, this program knows {FORMAT}")));
    }
    if after < purged {
        return Err(gap(format!("changes up to {purged} were purged, but {after} was the last one taken")));
    }
    let known: bool = db
        .query_row("SELECT count(*) FROM _catchwater_units WHERE seq = ?1", [after], |r| r.get::<_, i64>(0))
        .map_err(failed)?
        > 0;
    if !known {
        return Err(gap(format!("the database knows no unit of changes that ends at {after}: it went back in time")));
    }
    let mut shapes = Shapes::default();
    let mut statement =
        db.prepare("SELECT tbl, ver, name, columns, key FROM _catchwater_tables ORDER BY tbl, ver").map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    while let Some(r) = rows.next().map_err(failed)? {
        let get = || -> rusqlite::Result<(i64, i64, String, String, String)> {
            Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?))
        };
        let (number, version, name, columns, key) = get().map_err(failed)?;
        let stored = stored_table(name, &columns, &key).ok_or_else(|| gap("_catchwater_tables is damaged".into()))?;
        shapes.all.insert((number, version), Arc::new(stored.schema(&database_name(config))));
        shapes.current.insert(number, Captured { table: stored, version });
    }
    for captured in shapes.current.values_mut() {
        // What our table does not hold stands in the catalogue; whether the columns still agree is seen by the first poll.
        if let Ok(now) = Table::read(db, &captured.table.name) {
            captured.table = Table { identity: now.identity, uniques: now.uniques, ..captured.table.clone() };
        }
    }
    Ok(shapes)
}

/// Compares the captured tables with the catalogue, inside a write transaction: triggers must stand; new columns and
/// new tables are taken in. True if a shape changed.
pub fn follow_schema(
    db: &Connection,
    config: &SourceConfig,
    shapes: &mut Shapes,
    taken_upto: i64,
) -> Result<bool, SourceError> {
    let failed = |e: rusqlite::Error| fault::source("follow a schema change", &e);
    let mut changed = false;
    let known: Vec<(i64, Captured)> = shapes.current.iter().map(|(n, c)| (*n, c.clone())).collect();
    for (number, captured) in &known {
        let now = Table::read(db, &captured.table.name).map_err(|e| match e {
            TableError::Missing(name) => SourceError::new(
                SourceClass::Config,
                codes::TABLE_MISSING,
                format!("captured table {name} was dropped or renamed"),
                "take it out of `tables`, or give it its name back",
            ),
            other => table_error(other),
        })?;
        if !config.takes(&now.name) {
            db.execute_batch(&Triggers { table: &now, number: *number, version: captured.version }.remove())
                .map_err(failed)?;
            shapes.current.remove(number);
            continue;
        }
        let stands = |kind: &str| -> Result<bool, SourceError> {
            db.query_row(
                "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND name = ?1 AND tbl_name = ?2 COLLATE NOCASE",
                [&format!("_catchwater_{number}_{kind}"), &now.name],
                |r| r.get::<_, i64>(0).map(|n| n > 0),
            )
            .map_err(failed)
        };
        for kind in ["ai", "au", "ad"] {
            if !stands(kind)? {
                return Err(SourceError::new(
                    SourceClass::Gap,
                    codes::TRIGGERS_GONE,
                    format!("our triggers no longer stand on {}: the table was rebuilt or they were dropped", now.name),
                    "changes since then are not known: capture the database anew under another source name",
                ));
            }
        }
        let fresh = Triggers { table: &now, number: *number, version: captured.version };
        if captured.table.columns != now.columns || captured.table.key != now.key {
            now.check_capturable().map_err(table_error)?;
            changed = true;
            let version = captured.version + 1;
            install(db, shapes, config, *number, version, now.clone()).map_err(failed)?;
            let known = |name: &str| captured.table.columns.iter().any(|c| c.name == name);
            let new: Vec<usize> = (0..now.columns.len()).filter(|i| !known(&now.columns[*i].name)).collect();
            let again = Triggers { table: &now, number: *number, version }.report_again(&new, taken_upto);
            db.execute_batch(&again).map_err(failed)?;
        } else if now.uniques != captured.table.uniques || stands("bi")? != fresh.needs_pending() {
            // A unique index came or went: the triggers watch other collisions from here on.
            now.check_capturable().map_err(table_error)?;
            db.execute_batch(&fresh.install()).map_err(failed)?;
            shapes.current.insert(*number, Captured { table: now, version: captured.version });
        }
    }
    for name in wanted(db, config).map_err(failed)? {
        if known.iter().any(|(_, c)| c.table.name == name) {
            continue;
        }
        let table = Table::read(db, &name).map_err(table_error)?;
        table.check_capturable().map_err(table_error)?;
        let number = shapes.current.keys().next_back().copied().unwrap_or(0) + 1;
        install(db, shapes, config, number, 1, table.clone()).map_err(failed)?;
        let all = Triggers { table: &table, number, version: 1 }.report_all();
        db.execute_batch(&all).map_err(failed)?;
        changed = true;
    }
    Ok(changed)
}

/// Removes what is confirmed: changes and ends of units; the confirmed end itself stays, to be recognised by.
pub fn purge(db: &Connection, confirmed: i64) -> rusqlite::Result<bool> {
    let purged: i64 = db.query_row("SELECT purged FROM _catchwater_meta WHERE id = 1", [], |r| r.get(0))?;
    let first: Option<i64> = db.query_row("SELECT min(seq) FROM _catchwater_changes", [], |r| r.get(0))?;
    let from = first.unwrap_or(confirmed).max(purged);
    let upto = confirmed.min(from.saturating_add(PURGE_ROWS));
    if upto <= purged {
        return Ok(false);
    }
    db.execute("DELETE FROM _catchwater_changes WHERE seq <= ?1", [upto])?;
    db.execute("DELETE FROM _catchwater_units WHERE seq < ?1", [upto])?;
    db.execute("UPDATE _catchwater_meta SET purged = ?1 WHERE id = 1", [upto])?;
    Ok(upto < confirmed)
}

fn columns_json(table: &Table) -> String {
    let mut out = Vec::new();
    out.push(b'[');
    for (i, c) in table.columns.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.push(b'[');
        json::put_string(&mut out, &c.name);
        out.push(b',');
        json::put_string(&mut out, &c.declared);
        out.extend_from_slice(if c.not_null { b",1," } else { b",0," });
        json::put_string(&mut out, &c.default);
        out.push(b']');
    }
    out.push(b']');
    String::from_utf8(out).unwrap_or_default()
}

/// Key, then what tells rows apart: the rowid's alias or not.
fn key_json(table: &Table) -> String {
    let key: Vec<String> = table.key.iter().map(usize::to_string).collect();
    format!("[{}]", key.join(","))
}

fn stored_table(name: String, columns: &str, key: &str) -> Option<Table> {
    let Ok(Node::Array(columns)) = json::parse(columns.as_bytes()) else { return None };
    let Ok(Node::Array(key)) = json::parse(key.as_bytes()) else { return None };
    let columns = columns
        .iter()
        .map(|c| {
            let Node::Array(parts) = c else { return None };
            Some(TableColumn {
                name: parts.first()?.as_str()?.to_owned(),
                declared: parts.get(1)?.as_str()?.to_owned(),
                not_null: parts.get(2)?.as_i64()? != 0,
                default: parts.get(3)?.as_str()?.to_owned(),
            })
        })
        .collect::<Option<Vec<_>>>()?;
    let key: Vec<usize> =
        key.iter().map(|k| k.as_i64().and_then(|k| usize::try_from(k).ok())).collect::<Option<_>>()?;
    if key.iter().any(|k| *k >= columns.len()) {
        return None;
    }
    Some(Table {
        name,
        columns,
        key,
        // Unknown until the catalogue is read again, which the first poll does.
        identity: crate::catalog::RowIdentity::Key,
        uniques: Vec::new(),
        user_triggers: false,
    })
}
