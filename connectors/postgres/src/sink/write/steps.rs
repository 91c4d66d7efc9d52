//! The columnar plan: what a group does to each table, as statements of many rows.
//!
//! A statement holds no texts before its turn, and then those of a bounded part of its rows: a group is in memory once, as
//! rows, whatever its size. Behind the texts of a part stand the driver's message and what its connection writes from, each as
//! large, for each lane.

use super::texts::{Columns, Texts, key_targets, key_texts, missing_mask, moves_key, row_texts, update_texts};
use super::{Failed, Hits, PgLane, row_missing};
use crate::sink::sql::{self, Target};
use catchwater_base::hash::{Map, Seeded, Set};
use catchwater_change::Row;
use catchwater_deliver::sink::{Apply, SinkError, TargetName, TargetPlan, What};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rows in one statement, and bytes of their texts, but for the last row.
const STATEMENT_ROWS_MAX: usize = 10_000;
const STATEMENT_BYTES_MAX: usize = 1 << 20;

/// What of its rows a statement binds.
#[derive(Clone, PartialEq, Eq)]
enum Bind {
    Row,
    Key,
    /// The key, then these places.
    Update(Vec<u16>),
}

/// One statement and the rows it is to run for.
pub(super) struct Many<'a> {
    plan: Arc<TargetPlan>,
    sql: String,
    bind: Bind,
    rows: Vec<&'a Row>,
    hits: Hits,
}

impl Many<'_> {
    fn texts(&self, row: &Row) -> Result<Texts, SinkError> {
        match &self.bind {
            Bind::Row => Ok(row_texts(&self.plan, row)),
            Bind::Key => key_texts(&self.plan, row),
            Bind::Update(set) => update_texts(&self.plan, row, set),
        }
    }
}

/// Rows of one plan.
type OfPlan<'a> = (Arc<TargetPlan>, Vec<&'a Row>);

impl PgLane {
    /// Statements table by table; `None` = the group has to go in source order.
    pub(super) fn columnar<'a>(&self, applies: &'a [Apply]) -> Result<Option<Vec<Many<'a>>>, SinkError> {
        let mut keys: Map<&TargetName, Set<Texts>> = Map::with_hasher(Seeded::default());
        let mut tables: Vec<&TargetName> = Vec::new();
        let mut before: Option<&Apply> = None;
        for apply in applies {
            let plan = &apply.table;
            let rows = match &apply.what {
                What::Truncate | What::Clear | What::RetireAll(_) => return Ok(None),
                What::Insert(_) | What::DeleteOne(_) => None,
                What::Upsert(row)
                | What::Update(row)
                | What::Delete(row)
                | What::InsertNew(row)
                | What::Retire(row) => Some(row),
            };
            if before.is_some_and(|b| moves_key(b, apply)) {
                return Ok(None);
            }
            before = Some(apply);
            if !tables.contains(&&plan.target) {
                tables.push(&plan.target);
            }
            if let Some(row) = rows {
                let seen = keys.entry(&plan.target).or_insert_with(|| Set::with_hasher(Seeded::default()));
                if !seen.insert(key_texts(plan, row)?) {
                    return Ok(None);
                }
            }
        }
        let order = self.parents_first(&tables);
        let mut steps = Vec::new();
        for table in &order {
            let of = |a: &&Apply| a.table.target == **table;
            self.table_steps(applies.iter().filter(of), &mut steps)?;
        }
        for table in order.iter().rev() {
            // One statement for each key's columns: two schemas of one table may have different ones.
            let mut open: Vec<OfPlan> = Vec::new();
            for apply in applies.iter().filter(|a| a.table.target == **table) {
                if let What::Delete(row) = &apply.what {
                    place(&mut open, &apply.table).push(row);
                }
            }
            for (plan, rows) in open {
                let targets = self.columns_of(&plan)?;
                let sql = sql::delete(&plan.target, &key_targets(&plan, &targets));
                steps.push(Many { plan, sql, bind: Bind::Key, rows, hits: Hits::Any });
            }
        }
        Ok(Some(steps))
    }

    /// Upserts, partial updates, and what happens to a table without a key, in its order.
    fn table_steps<'a>(
        &self,
        applies: impl Iterator<Item = &'a Apply>,
        steps: &mut Vec<Many<'a>>,
    ) -> Result<(), SinkError> {
        let (mut upserts, mut fresh): (Vec<OfPlan>, Vec<OfPlan>) = (Vec::new(), Vec::new());
        let mut updates: BTreeMap<(Vec<u16>, Hits), Vec<OfPlan>> = BTreeMap::new();
        for apply in applies {
            let plan = &apply.table;
            match &apply.what {
                What::Upsert(row) | What::Update(row) => match missing_mask(plan, row) {
                    None => place(&mut upserts, plan).push(row),
                    Some(set) => place(updates.entry((set, Hits::All)).or_default(), plan).push(row),
                },
                What::InsertNew(row) => place(&mut fresh, plan).push(row),
                What::Retire(row) => {
                    let set = missing_mask(plan, row).unwrap_or_default();
                    place(updates.entry((set, Hits::Any)).or_default(), plan).push(row);
                }
                What::Insert(row) => {
                    let sql = sql::insert(&plan.target, &self.columns_of(plan)?, &[]);
                    match steps.last_mut() {
                        // Neighbours go together; a delete between must stay between.
                        Some(last) if last.sql == sql && Arc::ptr_eq(&last.plan, plan) => last.rows.push(row),
                        _ => {
                            let (plan, rows) = (plan.clone(), vec![row]);
                            steps.push(Many { plan, sql, bind: Bind::Row, rows, hits: Hits::Any });
                        }
                    }
                }
                What::DeleteOne(row) => {
                    let sql = sql::delete_one(&plan.target, &self.columns_of(plan)?);
                    let (plan, rows) = (plan.clone(), vec![row]);
                    steps.push(Many { plan, sql, bind: Bind::Row, rows, hits: Hits::All });
                }
                What::Delete(_) | What::Truncate | What::Clear | What::RetireAll(_) => {}
            }
        }
        for (plan, rows) in upserts {
            let sql = sql::insert(&plan.target, &self.columns_of(&plan)?, &plan.key);
            steps.push(Many { plan, sql, bind: Bind::Row, rows, hits: Hits::Any });
        }
        for (plan, rows) in fresh {
            let sql = sql::insert_or(&plan.target, &self.columns_of(&plan)?, &plan.key, sql::Meets::Keep);
            steps.push(Many { plan, sql, bind: Bind::Row, rows, hits: Hits::Any });
        }
        for ((set, hits), open) in updates {
            for (plan, rows) in open {
                let targets = self.columns_of(&plan)?;
                let sets: Vec<&Target> = set.iter().map(|i| &targets[usize::from(*i)]).collect();
                let sql = sql::update(&plan.target, &key_targets(&plan, &targets), &sets);
                steps.push(Many { plan, sql, bind: Bind::Update(set.clone()), rows, hits });
            }
        }
        Ok(())
    }

    pub(super) async fn run_steps(&mut self, steps: Vec<Many<'_>>) -> Result<(), Failed> {
        for step in steps {
            let mut rows = step.rows.iter().copied();
            while let Some(first) = rows.next() {
                let part = part(&step, first, &mut rows)?;
                let statement = self.prepare(&step.plan.target, &step.sql).await?;
                let hit = self.session.client.execute(&statement, &part.parameters()).await;
                let hit = hit.map_err(|e| self.failed(&step.plan.target, e))?;
                if step.hits == Hits::All && hit < part.rows as u64 {
                    return Err(row_missing(&step.plan.target, part.rows as u64 - hit).into());
                }
            }
        }
        Ok(())
    }
}

/// The texts of `first` and of those behind it that go with it.
fn part<'a>(step: &Many<'_>, first: &'a Row, rest: &mut impl Iterator<Item = &'a Row>) -> Result<Columns, SinkError> {
    let mut bytes = 0;
    let size = |texts: &Texts| texts.iter().flatten().map(String::len).sum::<usize>();
    let texts = step.texts(first)?;
    let mut columns = Columns::new(texts.len());
    bytes += size(&texts);
    columns.push(texts);
    while bytes < STATEMENT_BYTES_MAX && columns.rows < STATEMENT_ROWS_MAX {
        let Some(row) = rest.next() else { break };
        let texts = step.texts(row)?;
        bytes += size(&texts);
        columns.push(texts);
    }
    Ok(columns)
}

/// The rows of a plan, begun at the first.
fn place<'a, 'b>(open: &'b mut Vec<OfPlan<'a>>, plan: &Arc<TargetPlan>) -> &'b mut Vec<&'a Row> {
    let found = open.iter().position(|(p, _)| Arc::ptr_eq(p, plan));
    let at = found.unwrap_or_else(|| {
        open.push((plan.clone(), Vec::new()));
        open.len() - 1
    });
    &mut open[at].1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use catchwater_change::{Cell, Type, Value};
    use catchwater_deliver::testing::table;

    #[test]
    fn a_statement_has_bounded_texts_whatever_its_group_has() {
        let source = table(
            "main",
            "t",
            &[("id", Type::Int { bits: 64, unsigned: false }), ("note", Type::Text { length: 0 })],
            &["id"],
        );
        let columns = vec![(0, "id".to_owned()), (1, "note".to_owned())];
        let target = TargetName { schema: "public".into(), name: "t".into() };
        let plan = Arc::new(TargetPlan { source, target, columns, key: vec![0], meets: Default::default() });
        let row = |id: i64, bytes: usize| {
            Row::new(vec![Cell::Value(Value::Int(id)), Cell::Value(Value::Text("x".repeat(bytes).into()))])
        };
        let check = |rows: &[Row], bind: Bind, want: &[usize]| {
            let rows: Vec<&Row> = rows.iter().collect();
            let many = Many { plan: plan.clone(), sql: String::new(), bind, rows: rows.clone(), hits: Hits::Any };
            let mut rest = rows.into_iter();
            let mut got = Vec::new();
            while let Some(first) = rest.next() {
                let part = part(&many, first, &mut rest).unwrap();
                assert!(part.arrays.iter().all(|a| a.len() == part.rows));
                got.push(part.rows);
            }
            assert_eq!(got, want);
        };
        let large: Vec<Row> = (0..5).map(|id| row(id, 400 << 10)).collect();
        check(&large, Bind::Row, &[3, 2]);
        check(&[row(1, 3 << 20), row(2, 1), row(3, 1)], Bind::Row, &[1, 2]);
        let small: Vec<Row> = (0..STATEMENT_ROWS_MAX as i64 + 1).map(|id| row(id, 1)).collect();
        check(&small, Bind::Row, &[STATEMENT_ROWS_MAX, 1]);
        // Of a delete the key alone counts.
        check(&large, Bind::Key, &[5]);
    }
}
