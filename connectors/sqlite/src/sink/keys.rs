//! Foreign keys of the rows of one write, looked at behind it: SQLite itself leaves them to the commit
//! (`defer_foreign_keys`), and says there neither which row nor which table is meant.
//!
//! Looked at: what rows of the write refer to, and which rows still refer to what it removed by its primary key.

use super::write::{key, sent};
use crate::codes;
use crate::fault;
use crate::types::{output, quoted};
use catchwater_deliver::sink::{Apply, Others, SinkClass, SinkError, TargetPlan, What};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params_from_iter};
use std::collections::BTreeMap;

/// One foreign key: child and parent, and their columns in pairs.
struct ForeignKey {
    child: String,
    parent: String,
    pairs: Vec<(String, String)>,
}

impl ForeignKey {
    /// A row of the child, called `c`, refers to nothing.
    fn is_open(&self) -> String {
        let set: Vec<String> = self.pairs.iter().map(|(from, _)| format!("c.{} IS NOT NULL", quoted(from))).collect();
        let same: Vec<String> =
            self.pairs.iter().map(|(from, to)| format!("p.{} = c.{}", quoted(to), quoted(from))).collect();
        let parent = quoted(&self.parent);
        format!("{} AND NOT EXISTS (SELECT 1 FROM {parent} AS p WHERE {})", set.join(" AND "), same.join(" AND "))
    }
}

/// Keys that the table has, and keys that point to it.
type OfTable = (Vec<ForeignKey>, Vec<ForeignKey>);

/// # Errors
/// Of class `Row`, if a foreign key does not hold for what was written.
pub fn check(db: &Connection, applies: &[Apply]) -> Result<(), SinkError> {
    let failed = |e: rusqlite::Error| fault::sink("look at foreign keys", &e);
    let mut known: BTreeMap<&str, OfTable> = BTreeMap::new();
    for apply in applies {
        let plan = &*apply.table;
        let name = plan.target.name.as_str();
        if !known.contains_key(name) {
            let of = "SELECT ?1, f.\"table\", f.id, f.\"from\", f.\"to\" FROM pragma_foreign_key_list(?1) f ORDER BY f.id, f.seq";
            let to = "SELECT m.name, ?1, f.id, f.\"from\", f.\"to\" FROM sqlite_schema m JOIN pragma_foreign_key_list(m.name) f \
                 WHERE m.type = 'table' AND lower(f.\"table\") = lower(?1) ORDER BY m.name, f.id, f.seq";
            known.insert(name, (list(db, of, name).map_err(failed)?, list(db, to, name).map_err(failed)?));
        }
        let Some((own, others)) = known.get(name) else { continue };
        let (names, values) = match &apply.what {
            What::Delete(row) => {
                let values = key(plan, row)?;
                for f in others {
                    if let Some((terms, bound)) = by_parent(plan, f, &values) {
                        refuse(db, &f.child, &terms, f, &bound)?;
                    }
                }
                continue;
            }
            What::Upsert(row) | What::Update(row) | What::InsertNew(row) if !plan.key.is_empty() => {
                (super::write::key_names(plan).collect::<Vec<_>>(), key(plan, row)?)
            }
            What::Insert(row) => sent(plan, row),
            _ => continue,
        };
        let terms: Vec<String> = names.iter().map(|n| format!("c.{n} IS ?")).collect();
        for f in own {
            refuse(db, &plan.target.name, &terms.join(" AND "), f, &values)?;
        }
    }
    Ok(())
}

/// The child's rows that refer to this key of the parent; `None` = the foreign key is to other columns.
fn by_parent(plan: &TargetPlan, f: &ForeignKey, key: &[Sql]) -> Option<(String, Vec<Sql>)> {
    let of_key =
        |to: &String| plan.key.iter().position(|k| plan.columns.get(usize::from(*k)).is_some_and(|(_, n)| n == to));
    let places: Option<Vec<usize>> = f.pairs.iter().map(|(_, to)| of_key(to)).collect();
    let values: Option<Vec<Sql>> = places?.into_iter().map(|p| key.get(p).cloned()).collect();
    let terms: Vec<String> = f.pairs.iter().map(|(from, _)| format!("c.{} = ?", quoted(from))).collect();
    Some((terms.join(" AND "), values?))
}

fn refuse(db: &Connection, child: &str, terms: &str, f: &ForeignKey, values: &[Sql]) -> Result<(), SinkError> {
    let failed = |e: rusqlite::Error| fault::sink("look at foreign keys", &e);
    let sql = format!("SELECT 1 FROM {} AS c WHERE {terms} AND {}", quoted(child), f.is_open());
    let mut statement = db.prepare_cached(&sql).map_err(failed)?;
    if !statement.exists(params_from_iter(values.iter().map(output))).map_err(failed)? {
        return Ok(());
    }
    let columns: Vec<&str> = f.pairs.iter().map(|(from, _)| from.as_str()).collect();
    let what = format!("write {child}: FOREIGN KEY constraint failed, ({}) to {}", columns.join(", "), f.parent);
    let e = SinkError::new(
        SinkClass::Row,
        codes::SINK_ROW,
        what,
        "the target's constraint does not hold for a row of the source",
    );
    Err(SinkError { others: Some(Others::Missing), ..e })
}

/// A foreign key that names no columns of its parent means the parent's primary key.
fn list(db: &Connection, sql: &str, name: &str) -> rusqlite::Result<Vec<ForeignKey>> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([name])?;
    let mut out: Vec<(i64, ForeignKey)> = Vec::new();
    while let Some(r) = rows.next()? {
        let (child, parent, id): (String, String, i64) = (r.get(0)?, r.get(1)?, r.get(2)?);
        let (from, to): (String, Option<String>) = (r.get(3)?, r.get(4)?);
        if out.last().is_none_or(|(last, f)| *last != id || f.child != child) {
            out.push((id, ForeignKey { child, parent: parent.clone(), pairs: Vec::new() }));
        }
        if let Some((_, f)) = out.last_mut() {
            let to = match to {
                Some(to) => to,
                None => primary_key(db, &parent)?.get(f.pairs.len()).cloned().unwrap_or_default(),
            };
            f.pairs.push((from, to));
        }
    }
    // Of a parent that is not there, SQLite says so itself.
    Ok(out.into_iter().map(|(_, f)| f).filter(|f| f.pairs.iter().all(|(_, to)| !to.is_empty())).collect())
}

/// Names of its columns, in key order.
pub fn primary_key(db: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = db.prepare_cached("SELECT name FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk")?;
    let names = statement.query_map([table], |r| r.get(0))?;
    names.collect()
}
