//! Rows one by one, in the order of the source: the plan for groups in which that order matters.

use super::texts::{Columns, Texts};
use super::texts::{cell_text, is_sent, key_targets, key_texts, missing_mask, moves_key, row_texts, update_texts};
use super::{Hits, PIPELINE_MAX, PgLane, Step, row_missing};
use crate::sink::error::{misuse, row_fault};
use crate::sink::sql::{self, Target, shown};
use catchwater_deliver::sink::{Apply, SinkError, TargetName, What};
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

impl PgLane {
    /// Row by row. Statements of one window are sent at once; the server runs them in order. `gives`: one by one, and rows that
    /// hold a value give way.
    pub(super) async fn in_order(&mut self, applies: &[Apply], gives: bool) -> Result<(), SinkError> {
        let most = if gives { 1 } else { PIPELINE_MAX };
        let mut at = 0;
        while at < applies.len() {
            let mut window = Vec::new();
            let first = at;
            while at < applies.len() && window.len() < most {
                let (apply, next) = (&applies[at], applies.get(at + 1));
                if matches!(apply.what, What::Truncate | What::Clear) {
                    if window.is_empty() {
                        at += self.truncate(&applies[at..]).await?;
                        continue;
                    }
                    break;
                }
                if let Some(next) = next
                    && moves_key(apply, next)
                {
                    // Whether the new key is there decides, so what came before has to be done.
                    if window.is_empty() {
                        if gives {
                            self.make_way(applies, at + 1).await?;
                        }
                        self.move_key(apply, next).await.map_err(|e| SinkError { at: Some(at), ..e })?;
                        at += 2;
                        continue;
                    }
                    break;
                }
                if gives {
                    self.make_way(applies, at).await?;
                }
                window.push(self.single(apply)?);
                at += 1;
            }
            // A window holds neighbours.
            let first = if window.len() == at - first { first } else { at - window.len() };
            self.run_window(window).await.map_err(|(n, e)| SinkError { at: Some(first + n), ..e })?;
        }
        Ok(())
    }

    /// An error comes with its place in the window.
    pub(super) async fn run_window(&mut self, window: Vec<Step>) -> Result<(), (usize, SinkError)> {
        let mut statements = Vec::with_capacity(window.len());
        for (n, step) in window.iter().enumerate() {
            statements.push(self.prepare(&step.table, &step.sql).await.map_err(|f| (n, f.error))?);
        }
        let client = &self.session.client;
        let parameters: Vec<_> = window.iter().map(|s| s.columns.parameters()).collect();
        let calls = statements.iter().zip(&parameters).map(|(s, p)| client.execute(s, p)).collect();
        for (n, (step, hit)) in window.iter().zip(all(calls).await).enumerate() {
            let hit = hit.map_err(|e| (n, row_fault(&self.config, &shown(&step.table), e)))?;
            if step.hits == Hits::All && hit == 0 {
                return Err((n, row_missing(&step.table, 1)));
            }
        }
        Ok(())
    }

    pub(super) fn single(&self, apply: &Apply) -> Result<Step, SinkError> {
        let plan = &apply.table;
        let table = plan.target.clone();
        let targets = self.columns_of(plan)?;
        let one = |texts: Texts| {
            let mut columns = Columns::new(texts.len());
            columns.push(texts);
            columns
        };
        Ok(match &apply.what {
            What::Upsert(row) | What::Update(row) => match missing_mask(plan, row) {
                None => Step {
                    sql: sql::insert(&table, &targets, &plan.key),
                    columns: one(row_texts(plan, row)),
                    hits: Hits::Any,
                    table,
                },
                Some(set) => {
                    let sets: Vec<&Target> = set.iter().map(|i| &targets[usize::from(*i)]).collect();
                    Step {
                        sql: sql::update(&table, &key_targets(plan, &targets), &sets),
                        columns: one(update_texts(plan, row, &set)?),
                        hits: Hits::All,
                        table,
                    }
                }
            },
            What::InsertNew(row) => Step {
                sql: sql::insert_or(&table, &targets, &plan.key, sql::Meets::Keep),
                columns: one(row_texts(plan, row)),
                hits: Hits::Any,
                table,
            },
            What::Retire(row) => {
                let set = missing_mask(plan, row).unwrap_or_default();
                let sets: Vec<&Target> = set.iter().map(|i| &targets[usize::from(*i)]).collect();
                Step {
                    sql: sql::update(&table, &key_targets(plan, &targets), &sets),
                    columns: one(update_texts(plan, row, &set)?),
                    hits: Hits::Any,
                    table,
                }
            }
            What::RetireAll(row) => {
                let set: Vec<u16> = (0..plan.columns.len() as u16).filter(|i| is_sent(plan, row, *i)).collect();
                let sets: Vec<&Target> = set.iter().map(|i| &targets[usize::from(*i)]).collect();
                Step {
                    sql: sql::retire_all(&table, &sets),
                    columns: one(set.iter().map(|i| cell_text(plan, row, *i)).collect()),
                    hits: Hits::Any,
                    table,
                }
            }
            What::Delete(row) => Step {
                sql: sql::delete(&table, &key_targets(plan, &targets)),
                columns: one(key_texts(plan, row)?),
                hits: Hits::Any,
                table,
            },
            What::Truncate | What::Clear => Step {
                sql: match apply.what {
                    What::Clear => format!("DELETE FROM {}", sql::quoted(&table)),
                    _ => format!("TRUNCATE {}", sql::quoted(&table)),
                },
                columns: Columns::new(0),
                hits: Hits::Any,
                table,
            },
            What::Insert(row) => Step {
                sql: sql::insert(&table, &targets, &[]),
                columns: one(row_texts(plan, row)),
                hits: Hits::Any,
                table,
            },
            What::DeleteOne(row) => Step {
                sql: sql::delete_one(&table, &targets),
                columns: one(row_texts(plan, row)),
                hits: Hits::All,
                table,
            },
        })
    }

    /// Children first.
    async fn delete_all(&mut self, tables: &[&TargetName]) -> Result<(), SinkError> {
        for table in self.parents_first(tables).iter().rev() {
            let done = self.session.client.execute(&format!("DELETE FROM {}", sql::quoted(table)), &[]).await;
            done.map_err(|e| row_fault(&self.config, &shown(table), e))?;
        }
        Ok(())
    }

    /// The truncates of one transaction at the front of `applies`, as one statement: tables that refer to each other may
    /// only be truncated together. Where the target has more references than the source, or a deferred key of theirs waits
    /// for the commit behind rows that were written before (55006), the rows are deleted instead; so
    /// they are at a `Clear`, during which others read on.
    async fn truncate(&mut self, applies: &[Apply]) -> Result<usize, SinkError> {
        let first = applies.first().map(|a| a.version.commit_seq);
        let run = applies
            .iter()
            .take_while(|a| std::mem::discriminant(&a.what) == std::mem::discriminant(&applies[0].what))
            .take_while(|a| Some(a.version.commit_seq) == first)
            .count();
        let mut tables: Vec<&TargetName> = applies[..run].iter().map(|a| &a.table.target).collect();
        tables.sort();
        tables.dedup();
        let list: Vec<String> = tables.iter().map(|t| sql::quoted(t)).collect();
        if matches!(applies.first().map(|a| &a.what), Some(What::Clear)) {
            self.delete_all(&tables).await?;
            return Ok(run);
        }
        self.sql("SAVEPOINT cw").await?;
        let done = self.session.client.batch_execute(&format!("TRUNCATE {}", list.join(", "))).await;
        match done {
            Ok(()) => {}
            Err(e) if e.code().is_some_and(|c| matches!(c.code(), "0A000" | "55006")) => {
                self.sql("ROLLBACK TO SAVEPOINT cw").await?;
                self.delete_all(&tables).await?;
            }
            Err(e) => return Err(row_fault(&self.config, &list.join(", "), e)),
        }
        self.sql("RELEASE SAVEPOINT cw").await?;
        Ok(run)
    }

    /// A delete and an incomplete row of another key behind it: the source moved a row to a new key and did not send
    /// columns it left alone (unchanged TOAST). The values are in the row that is about to go: move it.
    async fn move_key(&mut self, delete: &Apply, update: &Apply) -> Result<(), SinkError> {
        let (What::Delete(old), What::Update(new) | What::Upsert(new)) = (&delete.what, &update.what) else {
            return Err(misuse("no key change"));
        };
        let plan = &update.table;
        let targets = self.columns_of(plan)?;
        let key = key_targets(plan, &targets);
        let there = sql::exists(&plan.target, &key);
        let statement = self.prepare(&plan.target, &there).await.map_err(|f| f.error)?;
        let mut columns = Columns::new(key.len());
        columns.push(key_texts(plan, new)?);
        let row = self.session.client.query_one(&statement, &columns.parameters()).await;
        let row = row.map_err(|e| row_fault(&self.config, &shown(&plan.target), e))?;
        let steps = if row.get::<_, bool>(0) {
            vec![self.single(delete)?, self.single(update)?]
        } else {
            let sent: Vec<u16> = (0..plan.columns.len() as u16).filter(|i| is_sent(plan, new, *i)).collect();
            let sets: Vec<&Target> = sent.iter().map(|i| &targets[usize::from(*i)]).collect();
            let mut texts = key_texts(plan, old)?;
            texts.extend(sent.iter().map(|i| cell_text(plan, new, *i)));
            let mut columns = Columns::new(texts.len());
            columns.push(texts);
            vec![Step {
                table: plan.target.clone(),
                sql: sql::rekey(&plan.target, &key, &sets),
                columns,
                hits: Hits::All,
            }]
        };
        self.run_window(steps).await.map_err(|(_, e)| e)
    }
}

/// Polls all, in order, until all are done: what is sent first is sent first.
async fn all<F: Future>(calls: Vec<F>) -> Vec<F::Output> {
    let mut calls: Vec<Pin<Box<F>>> = calls.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = calls.iter().map(|_| None).collect();
    std::future::poll_fn(move |cx| {
        let mut waiting = false;
        for (call, slot) in calls.iter_mut().zip(&mut done) {
            if slot.is_none() {
                match call.as_mut().poll(cx) {
                    Poll::Ready(v) => *slot = Some(v),
                    Poll::Pending => waiting = true,
                }
            }
        }
        if waiting { Poll::Pending } else { Poll::Ready(done.iter_mut().filter_map(Option::take).collect()) }
    })
    .await
}
