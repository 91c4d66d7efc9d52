//! Rows that give way: the source checked a unique key at its commit, SQLite checks it at each row.
//!
//! A row that was refused by a second unique key is written once more, after the one that holds its value got another,
//! if a later row of the group writes that one's key anew: NULL where the column takes it, else a value that nobody has. Columns
//! are changed and never rows removed, so that foreign keys stay as they are. See the same file of the PostgreSQL sink.

use super::write::{self, is_sent, key, key_equal, key_names, moves_key, target};
use crate::fault;
use crate::types::{output, quoted};
use catchwater_change::Row;
use catchwater_deliver::sink::{Apply, SinkError, TargetPlan, What};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params_from_iter};

/// Whoever holds a unique value of the row of this place, and is written anew behind it, gives way. True = one did.
pub fn make_way(db: &Connection, applies: &[Apply], at: usize) -> Result<bool, SinkError> {
    let Some(apply) = applies.get(at) else { return Ok(false) };
    let (What::Upsert(row) | What::Update(row) | What::Insert(row) | What::InsertNew(row)) = &apply.what else {
        return Ok(false);
    };
    let plan = &*apply.table;
    let failed = |e: rusqlite::Error| fault::sink(&format!("write {}", plan.target.name), &e);
    let (names, values) = write::sent(plan, row);
    let mut moved = false;
    for unique in unique_keys(db, &plan.target.name).map_err(failed)? {
        let value = |n: &Column| names.iter().position(|m| *m == quoted(&n.name)).and_then(|i| values.get(i)).cloned();
        let Some(wanted) = unique.iter().map(value).collect::<Option<Vec<Sql>>>() else { continue };
        let is_key = |c: &&Column| !key_names(plan).any(|k| k == quoted(&c.name));
        let free = unique.iter().filter(is_key).min_by_key(|c| c.not_null);
        let Some(free) = free.filter(|_| !wanted.contains(&Sql::Null)) else { continue };
        let column = quoted(&free.name);
        let same: Vec<String> = unique.iter().map(|c| format!("{} = ?", quoted(&c.name))).collect();
        let sql = format!(
            "UPDATE {} SET {column} = {} WHERE {} AND {}",
            target(plan),
            free_value(free, &column, &target(plan)),
            key_equal(plan),
            same.join(" AND ")
        );
        let mut statement = db.prepare_cached(&sql).map_err(failed)?;
        for (n, later) in applies.iter().enumerate().skip(at + 1) {
            if later.table.target != plan.target || !writes(applies, n, &free.name) {
                continue;
            }
            let (What::Upsert(row) | What::Update(row) | What::Delete(row)) = &later.what else { continue };
            let mut bound = key(&later.table, row)?;
            bound.extend(wanted.iter().cloned());
            if statement.execute(params_from_iter(bound.iter().map(output))).map_err(failed)? > 0 {
                moved = true;
                break;
            }
        }
    }
    Ok(moved)
}

/// The apply of this place leaves nothing in the column of what stood there.
fn writes(applies: &[Apply], n: usize, column: &str) -> bool {
    let sets = |of: &TargetPlan, row: &Row| {
        let place = of.columns.iter().find(|(_, name)| name == column);
        place.is_some_and(|(index, _)| is_sent(row, *index))
    };
    let Some(apply) = applies.get(n) else { return false };
    match &apply.what {
        What::Upsert(row) | What::Update(row) => sets(&apply.table, row),
        // A row that moves to another key takes along what was not sent.
        What::Delete(_) => {
            match applies.get(n + 1).filter(|next| moves_key(apply, next)).map(|a| (&a.table, &a.what)) {
                Some((of, What::Update(new) | What::Upsert(new))) => sets(of, new),
                _ => true,
            }
        }
        _ => false,
    }
}

struct Column {
    name: String,
    not_null: bool,
}

/// Also legal in a STRICT table, where a column keeps its type.
fn free_value(column: &Column, name: &str, table: &str) -> String {
    if !column.not_null {
        return "NULL".into();
    }
    format!(
        "CASE typeof({name}) WHEN 'integer' THEN (SELECT max({name}) + 1 FROM {table} WHERE typeof({name}) = 'integer') \
         WHEN 'real' THEN (SELECT max({name}) + 1.0 FROM {table} WHERE typeof({name}) = 'real') \
         WHEN 'blob' THEN randomblob(16) ELSE hex(randomblob(16)) END"
    )
}

/// Unique keys but the primary one, of whole tables and of columns.
fn unique_keys(db: &Connection, table: &str) -> rusqlite::Result<Vec<Vec<Column>>> {
    let mut statement = db.prepare_cached(
        "SELECT l.seq, i.name, coalesce(c.\"notnull\", 0) FROM pragma_index_list(?1) l JOIN pragma_index_info(l.name) i \
         LEFT JOIN pragma_table_info(?1) c ON c.name = i.name \
         WHERE l.\"unique\" = 1 AND l.origin <> 'pk' AND l.partial = 0 ORDER BY l.seq, i.seqno",
    )?;
    let mut rows = statement.query([table])?;
    let mut out: Vec<(i64, Option<Vec<Column>>)> = Vec::new();
    while let Some(r) = rows.next()? {
        let (of, name, not_null): (i64, Option<String>, bool) = (r.get(0)?, r.get(1)?, r.get(2)?);
        if out.last().is_none_or(|(last, _)| *last != of) {
            out.push((of, Some(Vec::new())));
        }
        let Some((_, key)) = out.last_mut() else { continue };
        match (name, key.as_mut()) {
            (Some(name), Some(key)) => key.push(Column { name, not_null }),
            // An expression.
            _ => *key = None,
        }
    }
    Ok(out.into_iter().filter_map(|(_, key)| key).collect())
}
