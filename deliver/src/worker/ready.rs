//! Targets are made ready for rows: described, changed by DDL where the policy lets us, and planned. DDL runs only while
//! no sink transaction is open.

use super::{Session, Trouble, Worker, sink_trouble};
use crate::error::{Failure, columns_gone, no_table, outbox_table, shared_topic, target_gone};
use crate::evolve::{self, EvolveError, OnSchemaChange};
use crate::mode::Mode;
use crate::plan;
use crate::sink::{DdlStep, Refilled, TargetName, TargetTable};
use catchwater_base::{crash_point, log};
use catchwater_change::{Column, TableSchema};
use catchwater_record::TopicPartition;
use std::sync::Arc;

/// Tables described in one call of the sink.
const TABLES_PER_CALL: usize = 256;

impl Worker {
    /// Makes the targets of all tables ready, whether they have rows or not: a copy has every captured table. What only
    /// a person can cure (a type, a key, a shared target) waits for the first row: rows of an older shape still pass.
    pub(super) async fn prepare_tables(&mut self, session: &mut Session<'_>) -> Result<(), Trouble> {
        self.book.grown = false;
        if let Some((first, second)) = self.book.shared() {
            return Err(Trouble::Fatal(shared_topic(&first, &second)));
        }
        if let Some(table) = self.book.outbox() {
            return Err(Trouble::Fatal(outbox_table(table)));
        }
        let mut due: Vec<(Arc<TableSchema>, TargetName)> = Vec::new();
        for schema in self.book.newest() {
            // A topic that is gone has no table any more.
            let alive = session.regroup.is_subscribed(TopicPartition::new(schema.topic, 0));
            let name = self.config.target(&schema);
            let ready = self.plans.contains_key(&schema.schema_no);
            if alive && !ready && self.claimed.claim_unused(&name, &schema) {
                due.push((schema, name));
            }
        }
        for some in due.chunks(TABLES_PER_CALL) {
            let names: Vec<TargetName> = some.iter().map(|(_, name)| name.clone()).collect();
            self.describe(session, &names).await?;
            for (schema, name) in some {
                match self.make_ready(session, schema, name).await {
                    Ok(()) => {}
                    Err(Trouble::Fatal(_)) => continue,
                    Err(other) => return Err(other),
                }
                if self.stop.is_stopped() {
                    return Err(Trouble::Stopped);
                }
            }
        }
        Ok(())
    }

    /// Makes the target table of a schema whose rows come ready, and its plan. No sink transaction is open.
    pub(super) async fn prepare(&mut self, session: &mut Session<'_>, no: u32) -> Result<(), Trouble> {
        let Some(schema) = self.book.schemas.get(&no).cloned() else { return Ok(()) };
        let name = self.config.target(&schema);
        self.claimed.claim(&name, &schema).map_err(|e| Trouble::Fatal(e.into()))?;
        if !session.described.contains_key(&name) {
            self.describe(session, std::slice::from_ref(&name)).await?;
        }
        self.make_ready(session, &schema, &name).await
    }

    /// DDL, if the target as it was described needs any, and the plan. `Fatal` before the first step changes nothing.
    pub(super) async fn make_ready(
        &mut self,
        session: &mut Session<'_>,
        schema: &Arc<TableSchema>,
        name: &TargetName,
    ) -> Result<(), Trouble> {
        debug_assert!(!session.lane_open, "DDL inside an open sink transaction");
        let fatal = |e: Failure| Trouble::Fatal(e);
        let of = (schema.topic, schema.qualified());
        let was = |column: &str| self.book.schemas.values().any(|s| s.topic == of.0 && s.column(column).is_some());
        let keyed = self.config.mode != Mode::Append;
        let columns = self.config.columns(&of.1);
        let as_target = |s: &Arc<TableSchema>| {
            let shaped = columns.shape(s, keyed, was).ok()?;
            self.config.mode.shape(&shaped.schema).ok()
        };
        let newest = self.book.shapes_of(schema).next().filter(|n| n.schema_no > schema.schema_no).and_then(as_target);
        let newest = newest.filter(|_| matches!(self.config.mode, Mode::Upsert | Mode::SoftDelete));
        let given = schema;
        let shaped = columns.shape(schema, keyed, was).map_err(|e| fatal(e.into()))?;
        let schema = &self.config.mode.shape(&shaped.schema).map_err(|e| fatal(e.into()))?;
        let refilled = match newest {
            None => self.refilled(session, given, schema, as_target),
            Some(_) => Vec::new(),
        };
        if !refilled.is_empty() && !session.batch.is_empty() {
            // Rows that wait are planned by the names of before.
            return Err(Trouble::Prepare(given.schema_no));
        }
        let mut steps: Vec<DdlStep> =
            evolve::steps(schema, name, session.described.get(name), self.config.on_schema_change, &shaped.types)
                .map_err(|e| fatal(e.into()))?;
        if let (Some(newest), Some(target)) = (&newest, session.described.get(name)) {
            // What has another name by now is written under that.
            let is_there = |name: &str| target.columns.iter().any(|c| c.name == name);
            let is_written = |c: &Column| plan::name_now(c, newest).is_none_or(|now| now == c.name || !is_there(&now));
            for step in &mut steps {
                if let DdlStep::AddColumns { columns, .. } = step {
                    columns.retain(is_written);
                }
            }
            steps.retain(|s| !matches!(s, DdlStep::AddColumns { columns, .. } if columns.is_empty()));
        }
        if steps.iter().any(|s| matches!(s, DdlStep::CreateTable { .. }))
            && self.rebuild.is_none()
            && session.commit.durable().is_some_and(|m| m.has_rows_of(schema.topic))
        {
            // Made anew it would lack every row that was delivered before, and nobody would know.
            return Err(fatal(target_gone(&plan::shown(name))));
        }
        let gone = self.columns_gone(session, schema, &steps);
        if !gone.is_empty() {
            return Err(fatal(columns_gone(&plan::shown(name), &gone)));
        }
        self.forget_missing(session, schema, &mut steps);
        let before = self.book.schemas.values().filter(|s| s.topic == of.0 && s.schema_no < given.schema_no);
        self.leave_room(&before.filter_map(as_target).collect::<Vec<_>>(), &mut steps);
        if !refilled.is_empty() {
            steps.extend(self.refill(name, refilled, session.described.get(name)).map_err(|e| fatal(e.into()))?);
            // Older shapes are planned by the names of this one from now on.
            let topic = given.topic;
            self.plans.retain(|_, p| p.source.topic != topic);
        }
        if !steps.is_empty() {
            for step in &steps {
                crash_point!("sink.before_ddl");
                let work = self.deps.sink.apply_ddl(step);
                let done = session.flight.beside(work).await;
                done.map_err(|e| sink_trouble(e.of_table(&plan::shown(name))))?;
                crash_point!("sink.after_ddl");
                log!(Info, "sink.schema", "{}: {step}", self.sink_name());
                self.status.update(|s| s.schema_changes += 1);
            }
            self.describe(session, std::slice::from_ref(name)).await?;
        }
        let Some(target) = session.described.get(name) else {
            // Made, or so the target says, and not there as a table: something else has its name.
            return Err(fatal(no_table(&plan::shown(name))));
        };
        let plan = plan::plan_beside(schema, target, newest.as_deref()).map_err(|e| fatal(e.into()))?;
        self.plans.insert(schema.schema_no, Arc::new(plan));
        Ok(())
    }

    fn refill(
        &self,
        name: &TargetName,
        mut columns: Vec<Refilled>,
        target: Option<&TargetTable>,
    ) -> Result<Vec<DdlStep>, EvolveError> {
        // Somebody renamed it at the target, too: it has what it should.
        let has = |name: &str| target.is_some_and(|t| t.columns.iter().any(|c| c.name == name));
        columns.retain(|r| r.from.as_deref().is_none_or(|from| has(from) || !has(&r.column.name)));
        if columns.is_empty() {
            return Ok(Vec::new());
        }
        if self.config.on_schema_change == OnSchemaChange::Fail {
            let names: Vec<&str> = columns.iter().map(|r| r.column.name.as_str()).collect();
            let what = format!("column {} is another one than rows were delivered with", names.join(", "));
            return Err(EvolveError::Refused { target: plan::shown(name), what });
        }
        let needs_null = |r: &&Refilled| {
            let of = target.and_then(|t| t.columns.iter().find(|c| c.name == r.column.name));
            r.from.is_none() && r.column.missing.is_none() && of.is_some_and(|c| c.nullable == Some(false))
        };
        let mut steps: Vec<DdlStep> = columns
            .iter()
            .filter(needs_null)
            .map(|r| DdlStep::DropNotNull { name: name.clone(), column: r.column.name.clone() })
            .collect();
        steps.push(DdlStep::Refill { name: name.clone(), columns });
        Ok(steps)
    }

    pub(super) async fn describe(&mut self, session: &mut Session<'_>, names: &[TargetName]) -> Result<(), Trouble> {
        let work = self.deps.sink.describe(names);
        let found = session.flight.beside(work).await.map_err(sink_trouble)?;
        for (name, table) in names.iter().zip(found) {
            match table {
                Some(table) => session.described.insert(name.clone(), table),
                None => session.described.remove(name),
            };
        }
        Ok(())
    }
}
