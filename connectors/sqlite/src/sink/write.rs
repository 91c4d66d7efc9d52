//! Rows of a group as statements of SQLite, inside the lane's transaction.
//!
//! Walk of a row beside PostgreSQL's step 15. Row by row, in the group's order: a prepared statement costs microseconds
//! here, and no round trip is saved by batching. Foreign keys are checked at the commit (`defer_foreign_keys`), of a guarded
//! write behind its rows (`keys`).

use crate::codes;
use crate::fault;
use crate::types::{bound, kind_at, output, quoted};
use catchwater_change::{Cell, Row};
use catchwater_deliver::sink::{Apply, SinkClass, SinkError, TargetPlan, What};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params_from_iter};

/// Writes the rows of one group. Remembers the statements of whole rows, so their text is made once per table.
#[derive(Default)]
pub struct Writer {
    texts: Vec<(*const TargetPlan, Kind, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Upsert,
    Insert,
    InsertNew,
    Delete,
}

impl Writer {
    pub fn apply(&mut self, db: &Connection, apply: &Apply) -> Result<(), SinkError> {
        let plan = &*apply.table;
        match &apply.what {
            What::Upsert(row) => {
                let values = whole(plan, row);
                // A key that was not sent is found here, not by the target.
                key(plan, row)?;
                let sql = self.text(plan, Kind::Upsert, || upsert(plan));
                run(db, plan, sql, &values).map(|_| ())
            }
            What::InsertNew(row) => {
                let values = whole(plan, row);
                key(plan, row)?;
                let sql = self.text(plan, Kind::InsertNew, || insert_new(plan));
                run(db, plan, sql, &values).map(|_| ())
            }
            What::Update(row) => match update(db, plan, row)? {
                0 => Err(missing(plan)),
                _ => Ok(()),
            },
            What::Retire(row) => update(db, plan, row).map(|_| ()),
            What::RetireAll(row) => {
                let (names, values) = sent(plan, row);
                let sets: Vec<String> = names.iter().map(|n| format!("{n} = ?")).collect();
                let lives: Vec<String> = names.iter().map(|n| format!("{n} IS NULL")).collect();
                let sql = format!("UPDATE {} SET {} WHERE {}", target(plan), sets.join(", "), lives.join(" AND "));
                run(db, plan, &sql, &values).map(|_| ())
            }
            What::Delete(row) => {
                let values = key(plan, row)?;
                let sql =
                    self.text(plan, Kind::Delete, || format!("DELETE FROM {} WHERE {}", target(plan), key_equal(plan)));
                run(db, plan, sql, &values).map(|_| ())
            }
            What::Truncate | What::Clear => run(db, plan, &format!("DELETE FROM {}", target(plan)), &[]).map(|_| ()),
            What::Insert(row) => {
                let values = whole(plan, row);
                let sql = self.text(plan, Kind::Insert, || insert(plan));
                run(db, plan, sql, &values).map(|_| ())
            }
            What::DeleteOne(row) => {
                let (names, values) = sent(plan, row);
                let same: Vec<String> = names.iter().map(|n| format!("{n} IS ?")).collect();
                let t = target(plan);
                let sql = format!(
                    "DELETE FROM {t} WHERE rowid = (SELECT rowid FROM {t} WHERE {} LIMIT 1)",
                    same.join(" AND ")
                );
                match run(db, plan, &sql, &values)? {
                    0 => Err(missing(plan)),
                    _ => Ok(()),
                }
            }
        }
    }

    /// A delete and an incomplete row of another key behind it: the source moved a row and did not send what it left alone.
    /// The values are in the row that is about to go: it is moved, unless the new key is there.
    pub fn move_key(&mut self, db: &Connection, delete: &Apply, update: &Apply) -> Result<(), SinkError> {
        let (What::Delete(old), What::Update(new) | What::Upsert(new)) = (&delete.what, &update.what) else {
            return Err(SinkError::new(SinkClass::Bug, codes::SINK_BUG, "no key change", "report this"));
        };
        let plan = &*update.table;
        let there = format!("SELECT 1 FROM {} WHERE {}", target(plan), key_equal(plan));
        if is_there(db, plan, &there, &key(plan, new)?)? {
            self.apply(db, delete)?;
            return self.apply(db, update);
        }
        let (names, mut values) = sent(plan, new);
        values.extend(key(plan, old)?);
        let sets: Vec<String> = names.iter().map(|n| format!("{n} = ?")).collect();
        let sql = format!("UPDATE {} SET {} WHERE {}", target(plan), sets.join(", "), key_equal(plan));
        match run(db, plan, &sql, &values)? {
            0 => Err(missing(plan)),
            _ => Ok(()),
        }
    }

    fn text(&mut self, plan: &TargetPlan, kind: Kind, make: impl FnOnce() -> String) -> &str {
        let at = match self.texts.iter().position(|(p, k, _)| std::ptr::eq(*p, plan) && *k == kind) {
            Some(at) => at,
            None => {
                self.texts.push((plan, kind, make()));
                self.texts.len() - 1
            }
        };
        self.texts.get(at).map_or("", |(_, _, text)| text)
    }
}

/// True if `second` continues `first`: a row left its key and came back under another one, not complete.
pub fn moves_key(first: &Apply, second: &Apply) -> bool {
    let (What::Delete(_), What::Update(new) | What::Upsert(new)) = (&first.what, &second.what) else { return false };
    let plan = &second.table;
    first.table.target == plan.target
        && first.version.commit_seq == second.version.commit_seq
        && sent(plan, new).0.len() < plan.columns.len()
}

fn insert_new(plan: &TargetPlan) -> String {
    let keys: Vec<String> = key_names(plan).collect();
    format!("{} ON CONFLICT ({}) DO NOTHING", insert(plan), keys.join(", "))
}

fn upsert(plan: &TargetPlan) -> String {
    // The key's own cells, too: equal under the target's collation is not always the same bytes.
    let sets: Vec<String> = plan.columns.iter().map(|(_, n)| format!("{0} = excluded.{0}", quoted(n))).collect();
    let keys: Vec<String> = key_names(plan).collect();
    format!("{} ON CONFLICT ({}) DO UPDATE SET {}", insert(plan), keys.join(", "), sets.join(", "))
}

/// Cells that were not sent keep what the target has.
/// Rows hit.
fn update(db: &Connection, plan: &TargetPlan, row: &Row) -> Result<usize, SinkError> {
    let (names, mut values) = sent(plan, row);
    values.extend(key(plan, row)?);
    let sets: Vec<String> = names.iter().map(|n| format!("{n} = ?")).collect();
    let sql = format!("UPDATE {} SET {} WHERE {}", target(plan), sets.join(", "), key_equal(plan));
    run(db, plan, &sql, &values)
}

fn insert(plan: &TargetPlan) -> String {
    let names: Vec<String> = plan.columns.iter().map(|(_, n)| quoted(n)).collect();
    let marks = vec!["?"; names.len()].join(", ");
    format!("INSERT INTO {} ({}) VALUES ({marks})", target(plan), names.join(", "))
}

pub(super) fn target(plan: &TargetPlan) -> String {
    quoted(&plan.target.name)
}

pub(super) fn key_names(plan: &TargetPlan) -> impl Iterator<Item = String> {
    plan.key.iter().filter_map(|k| plan.columns.get(usize::from(*k)).map(|(_, n)| quoted(n)))
}

pub(super) fn key_equal(plan: &TargetPlan) -> String {
    key_names(plan).map(|n| format!("{n} = ?")).collect::<Vec<_>>().join(" AND ")
}

/// Values of all columns of the plan; a cell that was never captured is NULL.
fn whole(plan: &TargetPlan, row: &Row) -> Vec<Sql> {
    plan.columns
        .iter()
        .map(|(index, _)| {
            let cell = row.cells.get(usize::from(*index)).unwrap_or(&Cell::Absent);
            bound(kind_at(&plan.source, *index), cell).unwrap_or(Sql::Null)
        })
        .collect()
}

/// The column of this index came with the row.
pub(super) fn is_sent(row: &Row, index: u16) -> bool {
    row.cells.get(usize::from(index)).is_some_and(|c| !matches!(c, Cell::Unavailable | Cell::Absent))
}

/// Columns and values of the cells that are there.
pub(super) fn sent(plan: &TargetPlan, row: &Row) -> (Vec<String>, Vec<Sql>) {
    plan.columns
        .iter()
        .filter_map(|(index, name)| {
            let cell = row.cells.get(usize::from(*index)).unwrap_or(&Cell::Absent);
            Some((quoted(name), bound(kind_at(&plan.source, *index), cell)?))
        })
        .unzip()
}

pub(super) fn key(plan: &TargetPlan, row: &Row) -> Result<Vec<Sql>, SinkError> {
    plan.key
        .iter()
        .map(|k| {
            let (index, _) = plan.columns.get(usize::from(*k))?;
            bound(kind_at(&plan.source, *index), row.cells.get(usize::from(*index))?)
        })
        .collect::<Option<Vec<Sql>>>()
        .ok_or_else(|| {
            SinkError::new(
                SinkClass::Bug,
                codes::SINK_BUG,
                format!("a change of {} came without its key", plan.target.name),
                "report this",
            )
        })
}

fn missing(plan: &TargetPlan) -> SinkError {
    SinkError::new(
        SinkClass::Row,
        codes::SINK_ROW,
        format!("a row of {} that the source changed is not in the target", plan.target.name),
        "somebody removed rows from the target: begin again under a new sink name",
    )
}

fn is_there(db: &Connection, plan: &TargetPlan, sql: &str, values: &[Sql]) -> Result<bool, SinkError> {
    let failed = |e: rusqlite::Error| fault::sink(&format!("read {}", plan.target.name), &e);
    let mut statement = db.prepare_cached(sql).map_err(failed)?;
    statement.exists(params_from_iter(values.iter().map(output))).map_err(failed)
}

fn run(db: &Connection, plan: &TargetPlan, sql: &str, values: &[Sql]) -> Result<usize, SinkError> {
    let what = || format!("write {}", plan.target.name);
    let mut statement = db.prepare_cached(sql).map_err(|e| fault::sink(&what(), &e))?;
    statement.execute(params_from_iter(values.iter().map(output))).map_err(|e| fault::sink(&what(), &e))
}
