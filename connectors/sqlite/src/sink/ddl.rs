//! Tables of the target: describing them, making them like the source's, adding columns. Each step is one transaction
//! and may be repeated.

use crate::catalog::{RowIdentity, Table, TableError};
use crate::codes;
use crate::fault;
use crate::types::{bound, declared_for, quoted};
use catchwater_change::{Cell, Column, TableSchema, Type, exact};
use catchwater_deliver::columns::is_type;
use catchwater_deliver::sink::{DdlStep, ForeignKey, Refilled, SinkClass, SinkError, TargetName, TargetTable, Types};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, TransactionBehavior};

fn table_error(e: TableError) -> SinkError {
    let what = e.to_string();
    match e {
        TableError::Sql(_) => SinkError::new(SinkClass::Environment, codes::SINK_BUSY, what, ""),
        _ => SinkError::new(SinkClass::Config, codes::SINK_TABLE, what, "give the sink a table it can write"),
    }
}

pub fn describe(db: &Connection, name: &TargetName) -> Result<Option<TargetTable>, SinkError> {
    let failed = |e: rusqlite::Error| fault::sink("describe the target", &e);
    let table = match Table::read(db, &name.name) {
        Ok(table) => table,
        Err(TableError::Missing(_)) => return Ok(None),
        Err(e) => return Err(table_error(e)),
    };
    let schema = table.schema("");
    let mut columns = schema.columns;
    if matches!(table.identity, RowIdentity::Alias(_)) && columns.len() > 1 {
        // The rowid takes any value we write; it fills itself only when nothing is written.
        columns.iter_mut().for_each(|c| c.identity = false);
    }
    let mut statement = db
        .prepare("SELECT id, \"from\", \"table\", \"to\" FROM pragma_foreign_key_list(?1) ORDER BY id, seq")
        .map_err(failed)?;
    let mut rows = statement.query([&table.name]).map_err(failed)?;
    let mut foreign_keys: Vec<(i64, ForeignKey)> = Vec::new();
    while let Some(r) = rows.next().map_err(failed)? {
        let get = || -> rusqlite::Result<(i64, String, String, Option<String>)> {
            Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?))
        };
        let (id, column, parent, to) = get().map_err(failed)?;
        match foreign_keys.last_mut() {
            Some((last, key)) if *last == id => {
                key.columns.push(column);
                key.parent_columns.extend(to);
            }
            _ => foreign_keys.push((
                id,
                ForeignKey {
                    columns: vec![column],
                    parent: TargetName { schema: name.schema.clone(), name: parent },
                    parent_columns: to.into_iter().collect(),
                    at_commit: false,
                },
            )),
        }
    }
    for (_, key) in foreign_keys.iter_mut().filter(|(_, k)| k.parent_columns.is_empty()) {
        key.parent_columns = super::keys::primary_key(db, &key.parent.name).map_err(failed)?;
    }
    Ok(Some(TargetTable {
        name: name.clone(),
        columns,
        key: table.key.iter().map(|k| table.columns[*k].name.clone()).collect(),
        // One lane: nothing is asked of these.
        unique: Vec::new(),
        foreign_keys: foreign_keys.into_iter().map(|(_, k)| k).collect(),
        opaque: true,
    }))
}

pub fn apply(db: &mut Connection, step: &DdlStep) -> Result<(), SinkError> {
    let failed = |e: rusqlite::Error| fault::sink("change the target's tables", &e);
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    match step {
        DdlStep::CreateTable { name, like, types } => tx.execute_batch(&create(name, like, types)).map_err(failed)?,
        DdlStep::AddColumns { name, columns, types } => {
            let table = Table::read(&tx, &name.name).map_err(table_error)?;
            for column in columns {
                if table.columns.iter().any(|c| c.name.eq_ignore_ascii_case(&column.name)) {
                    continue;
                }
                let (t, c) = (quoted(&table.name), quoted(&column.name));
                let default = default_of(column);
                tx.execute_batch(&format!("ALTER TABLE {t} ADD COLUMN {c} {}{default}", declared(column, types)))
                    .map_err(failed)?;
            }
        }
        DdlStep::Refill { name, columns } => {
            let table = Table::read(&tx, &name.name).map_err(table_error)?;
            let one = |r: &Refilled| {
                let value = r.column.missing.as_deref().and_then(|text| default(&r.column.kind, text));
                let value = match &r.from {
                    Some(from) => quoted(from),
                    None => value.as_deref().and_then(|d| d.strip_prefix(" DEFAULT ")).unwrap_or("NULL").to_owned(),
                };
                format!("{} = {value}", quoted(&r.column.name))
            };
            let sets: Vec<String> = columns.iter().map(one).collect();
            tx.execute_batch(&format!("UPDATE {} SET {}", quoted(&table.name), sets.join(", "))).map_err(failed)?;
        }
        DdlStep::DropNotNull { name, column } => {
            let table = Table::read(&tx, &name.name).map_err(table_error)?;
            if table.columns.iter().any(|c| c.name == *column && c.not_null) {
                let (t, c) = (quoted(&table.name), quoted(column));
                tx.execute_batch(&format!("ALTER TABLE {t} ALTER COLUMN {c} DROP NOT NULL")).map_err(failed)?;
            }
        }
    }
    tx.commit().map_err(failed)
}

/// What old rows have, as SQL: a constant, which SQLite notes once and writes into no row.
fn default_of(column: &Column) -> String {
    column.missing.as_deref().and_then(|text| default(&column.kind, text)).unwrap_or_default()
}

fn default(kind: &Type, text: &str) -> Option<String> {
    let value = exact::value_of(kind, text)?;
    Some(match bound(kind, &Cell::Value(value))? {
        Sql::Null => return None,
        Sql::Integer(i) => format!(" DEFAULT {i}"),
        Sql::Real(f) if f.is_finite() => format!(" DEFAULT {f:?}"),
        Sql::Real(_) => return None,
        Sql::Text(t) if t.contains('\0') => return None,
        Sql::Text(t) => format!(" DEFAULT '{}'", t.replace('\'', "''")),
        Sql::Blob(b) => format!(" DEFAULT x'{}'", b.iter().map(|b| format!("{b:02x}")).collect::<String>()),
    })
}

/// What somebody gives, else what the source's type becomes.
fn declared(column: &Column, given: &Types) -> String {
    given.get(&column.name).filter(|t| is_type(t)).cloned().unwrap_or_else(|| declared_for(column))
}

fn create(name: &TargetName, like: &TableSchema, types: &Types) -> String {
    let key: Vec<&Column> = like.key.iter().filter_map(|k| like.columns.get(usize::from(*k))).collect();
    let mut parts: Vec<String> = like
        .columns
        .iter()
        .filter(|c| !c.generated)
        .map(|c| {
            let not_null = if c.nullable == Some(false) { " NOT NULL" } else { "" };
            format!("{} {}{not_null}{}", quoted(&c.name), declared(c, types), default_of(c))
        })
        .collect();
    if !key.is_empty() {
        let names: Vec<String> = key.iter().map(|c| quoted(&c.name)).collect();
        parts.push(format!("PRIMARY KEY ({})", names.join(", ")));
    }
    format!("CREATE TABLE IF NOT EXISTS {} ({})", quoted(&name.name), parts.join(", "))
}
