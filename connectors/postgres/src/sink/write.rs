//! Walk: row-change 15/17. A lane: rows of a group, then the position, in one transaction.
//!
//! Two plans (deliver.md 9), both inside the transaction and behind a savepoint. **Columnar**: table by table, parents
//! before children, one statement per table and set of columns; deletes last, children before parents. **Source order**:
//! row by row as the source did it, pipelined. The second is used when the group asks for it, when one key occurs twice
//! or a row moves to another key with columns missing, and when the first fails with a unique or foreign-key error.
//! A foreign key that refuses this, too, waits for the commit (`keys`).
//!
//! Rows of a snapshot go by COPY (`copy`), which is twice as fast, until a table refuses it once. A guarded group stands
//! behind a savepoint of its own: a row that fails undoes that write alone.

mod copy;
mod keys;
mod steps;
mod texts;

use super::error::{fault, is_reference, misuse, row_fault};
use super::position;
use super::sql::{self, Target, shown};
use super::{Claimed, SinkConfig};
use crate::codes::sink as code;
use crate::session::Session;
use catchwater_base::crash_point;
use catchwater_base::hash::{Map, Seeded};
use catchwater_deliver::sink::{Ack, Apply, Group, Lane, Mark, SinkClass, SinkError, TargetName, TargetPlan, What};
use catchwater_runtime::Fut;
use catchwater_runtime::time::timeout;
use keys::Keys;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use texts::{
    Columns, Texts, cell_text, is_sent, key_targets, key_texts, missing_mask, moves_key, row_texts, update_texts,
};
use tokio_postgres::Statement;

/// Prepared statements kept; above it all are dropped and made again as needed.
const STATEMENTS_MAX: usize = 512;
/// Statements in flight in source order.
const PIPELINE_MAX: usize = 64;
/// A COMMIT that is not answered for so long is of unknown outcome.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(330);

pub struct PgLane {
    config: SinkConfig,
    session: Session,
    claimed: Claimed,
    state: State,
    statements: Map<String, Statement>,
    targets: BTreeMap<TargetName, Arc<TargetInfo>>,
    /// Tables that refused a COPY: they hold rows already.
    filled: BTreeSet<TargetName>,
    /// Tables whose rows have values that only text can say.
    wordy: BTreeSet<TargetName>,
    keys: Keys,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle,
    /// A transaction holds rows that were written whole.
    Open,
    /// A write began and has not ended well: only `abort` helps.
    Broken,
}

/// What the target's catalogue says of a table we write.
struct TargetInfo {
    columns: BTreeMap<String, TargetColumn>,
    parents: Vec<TargetName>,
    /// Foreign keys point to it.
    referred: bool,
}

struct TargetColumn {
    /// Its type without length.
    cast: String,
    /// Updates may not set it.
    fixed: bool,
    native: u32,
}

/// How many rows a statement must hit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Hits {
    Any,
    /// Each row: fewer means the target lacks one.
    All,
}

/// One statement to run.
struct Step {
    table: TargetName,
    sql: String,
    columns: Columns,
    hits: Hits,
}

impl PgLane {
    pub(super) fn new(config: SinkConfig, session: Session, claimed: Claimed) -> Self {
        PgLane {
            config,
            session,
            claimed,
            state: State::Idle,
            statements: Map::with_hasher(Seeded::default()),
            targets: BTreeMap::new(),
            filled: BTreeSet::new(),
            wordy: BTreeSet::new(),
            keys: Keys::default(),
        }
    }

    async fn sql(&self, text: &str) -> Result<(), SinkError> {
        self.session.client.batch_execute(text).await.map_err(|e| fault(&self.config, e.into()))
    }

    async fn begin(&mut self) -> Result<(), SinkError> {
        match self.state {
            State::Open => Ok(()),
            State::Broken => Err(misuse("a write after a failed one without an abort between")),
            State::Idle => {
                self.state = State::Broken;
                self.keys.forget();
                self.sql("BEGIN ISOLATION LEVEL READ COMMITTED; SET CONSTRAINTS ALL DEFERRED").await
            }
        }
    }

    async fn write_now(&mut self, group: &Group) -> Result<(), SinkError> {
        self.begin().await?;
        self.state = State::Broken;
        crash_point!("sink.before_rows");
        let result = if group.guarded { self.guarded(group).await } else { self.rows(group).await };
        if let Err(e) = &result
            && e.class == SinkClass::Schema
        {
            // What we knew of the target is old.
            self.targets.clear();
            self.statements.clear();
        }
        result?;
        crash_point!("sink.after_rows");
        self.state = State::Open;
        Ok(())
    }

    async fn guarded(&mut self, group: &Group) -> Result<(), SinkError> {
        self.sql("SAVEPOINT cw_guard").await?;
        let done = self.rows(group).await;
        match &done {
            Ok(()) => self.sql("RELEASE SAVEPOINT cw_guard").await?,
            Err(e) if e.class == SinkClass::Row => {
                self.sql("ROLLBACK TO SAVEPOINT cw_guard; RELEASE SAVEPOINT cw_guard").await?;
                self.state = State::Open;
            }
            Err(_) => {}
        }
        done
    }

    async fn rows(&mut self, group: &Group) -> Result<(), SinkError> {
        if group.applies.is_empty() {
            return Ok(());
        }
        let mut before: Option<&Arc<TargetPlan>> = None;
        for Apply { table, .. } in &group.applies {
            // Mostly long runs of one table.
            if !before.is_some_and(|b| Arc::ptr_eq(b, table)) {
                self.know(table).await?;
            }
            before = Some(table);
        }
        if group.fresh && !group.source_order && self.copied(&group.applies).await? {
            return Ok(());
        }
        if !group.source_order
            && let Some(steps) = self.columnar(&group.applies)?
        {
            self.sql("SAVEPOINT cw").await?;
            match self.run_steps(steps).await {
                Ok(()) => return self.sql("RELEASE SAVEPOINT cw").await,
                Err(Failed { sqlstate, error }) => {
                    if !matches!(sqlstate.as_str(), "23505" | "23503" | "23P01" | "21000") {
                        return Err(error);
                    }
                    self.sql("ROLLBACK TO SAVEPOINT cw; RELEASE SAVEPOINT cw").await?;
                }
            }
        }
        // What is guarded may be a row whose parent was refused: of whole states, the row is the one to set aside.
        // A part's children may be in the next one, so that its tables show the key from the other side alone.
        let may_wait = match group.partial {
            true => self.has_keys(&group.applies) || self.are_referred(&group.applies),
            false => !group.guarded && self.has_keys(&group.applies),
        };
        if !may_wait {
            return self.in_order(&group.applies).await;
        }
        self.sql("SAVEPOINT cw").await?;
        match self.in_order(&group.applies).await {
            Ok(()) => self.sql("RELEASE SAVEPOINT cw").await,
            Err(e) if is_reference(&e) => {
                self.sql("ROLLBACK TO SAVEPOINT cw; RELEASE SAVEPOINT cw").await?;
                self.with_waiting_keys(group, e).await
            }
            Err(e) => Err(e),
        }
    }

    /// One of the tables refers to another.
    fn has_keys(&self, applies: &[Apply]) -> bool {
        applies.iter().any(|a| self.targets.get(&a.table.target).is_some_and(|i| !i.parents.is_empty()))
    }

    /// Foreign keys point to one of the tables.
    fn are_referred(&self, applies: &[Apply]) -> bool {
        applies.iter().any(|a| self.targets.get(&a.table.target).is_some_and(|i| i.referred))
    }

    /// Reads the catalogue of a target once, and again when a plan names a column we have not seen.
    async fn know(&mut self, plan: &TargetPlan) -> Result<(), SinkError> {
        let fits = |info: &TargetInfo| plan.columns.iter().all(|(_, name)| info.columns.contains_key(name));
        if self.targets.get(&plan.target).is_some_and(|i| fits(i)) {
            return Ok(());
        }
        let missing = |what: String| {
            SinkError::new(SinkClass::Schema, code::SCHEMA, what, "the target's tables were changed by somebody else")
        };
        let info = self.read_target(&plan.target).await?;
        let Some(info) = info else {
            return Err(missing(format!("table {} does not exist in the target", shown(&plan.target))));
        };
        if let Some((_, name)) = plan.columns.iter().find(|(_, n)| !info.columns.contains_key(n)) {
            return Err(missing(format!("table {} has no column {name} in the target", shown(&plan.target))));
        }
        self.targets.insert(plan.target.clone(), Arc::new(info));
        Ok(())
    }

    async fn read_target(&self, name: &TargetName) -> Result<Option<TargetInfo>, SinkError> {
        let fail = |e: tokio_postgres::Error| fault(&self.config, e.into());
        let (schema, table) = (sql::schema_of(name), name.name.as_str());
        // format_type with -1: the type without its length, so that too long a text is an error and not cut by the cast.
        let rows = self
            .session
            .client
            .query(
                "SELECT a.attname::text, format_type(a.atttypid, -1), c.oid, coalesce(a.attidentity = 'a', false), a.atttypid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
                 WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r','p','f','v')",
                &[&schema, &table],
            )
            .await
            .map_err(fail)?;
        let Some(first) = rows.first() else { return Ok(None) };
        let oid: u32 = first.get(2);
        let column = |r: &tokio_postgres::Row| {
            let (name, cast, fixed, native) = (r.get::<_, Option<String>>(0)?, r.get(1), r.get(3), r.get(4));
            Some((name, TargetColumn { cast, fixed, native }))
        };
        let columns = rows.iter().filter_map(column).collect();
        let parents = self
            .session
            .client
            .query(
                "SELECT DISTINCT n.nspname::text, p.relname::text FROM pg_constraint f JOIN pg_class p ON p.oid = f.confrelid \
                 JOIN pg_namespace n ON n.oid = p.relnamespace WHERE f.conrelid = $1::oid AND f.contype = 'f'",
                &[&oid],
            )
            .await
            .map_err(fail)?;
        let parents = parents.iter().map(|r| TargetName { schema: r.get(0), name: r.get(1) }).collect();
        let referred = "SELECT EXISTS (SELECT 1 FROM pg_constraint WHERE confrelid = $1::oid AND contype = 'f')";
        let referred = self.session.client.query_one(referred, &[&oid]).await.map_err(fail)?.get(0);
        Ok(Some(TargetInfo { columns, parents, referred }))
    }

    /// The plan's columns with the target's types.
    fn columns_of(&self, plan: &TargetPlan) -> Result<Vec<Target>, SinkError> {
        let info = self.targets.get(&plan.target).ok_or_else(|| misuse("a target that was not read"))?;
        let target = |(_, name): &(u16, String)| {
            let of = info.columns.get(name).ok_or_else(|| misuse("a column that was not read"))?;
            Ok(Target { name: name.clone(), cast: of.cast.clone(), fixed: of.fixed, native: of.native })
        };
        plan.columns.iter().map(target).collect()
    }

    /// Parents before children; a circle is left as it came (the fall-back handles it).
    fn parents_first<'a>(&self, tables: &[&'a TargetName]) -> Vec<&'a TargetName> {
        let mut out: Vec<&TargetName> = Vec::new();
        let mut rest: Vec<&'a TargetName> = tables.to_vec();
        while !rest.is_empty() {
            let waits = |t: &TargetName, among: &[&TargetName]| {
                let parents = self.targets.get(t).map_or(&[][..], |i| &i.parents);
                parents.iter().any(|p| p != t && among.contains(&p))
            };
            let (free, waiting): (Vec<_>, Vec<_>) = rest.iter().copied().partition(|t| !waits(t, &rest));
            if free.is_empty() {
                out.extend(waiting);
                break;
            }
            out.extend(free);
            rest = waiting;
        }
        out
    }

    /// Row by row. Statements of one window are sent at once; the server runs them in order.
    async fn in_order(&mut self, applies: &[Apply]) -> Result<(), SinkError> {
        let mut at = 0;
        while at < applies.len() {
            let mut window = Vec::new();
            while at < applies.len() && window.len() < PIPELINE_MAX {
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
                        self.move_key(apply, next).await?;
                        at += 2;
                        continue;
                    }
                    break;
                }
                window.push(self.single(apply)?);
                at += 1;
            }
            self.run_window(window).await?;
        }
        Ok(())
    }

    async fn run_window(&mut self, window: Vec<Step>) -> Result<(), SinkError> {
        let mut statements = Vec::with_capacity(window.len());
        for step in &window {
            statements.push(self.prepare(&step.table, &step.sql).await.map_err(|f| f.error)?);
        }
        let client = &self.session.client;
        let parameters: Vec<_> = window.iter().map(|s| s.columns.parameters()).collect();
        let calls = statements.iter().zip(&parameters).map(|(s, p)| client.execute(s, p)).collect();
        for (step, hit) in window.iter().zip(all(calls).await) {
            let hit = hit.map_err(|e| row_fault(&self.config, &shown(&step.table), e))?;
            if step.hits == Hits::All && hit == 0 {
                return Err(row_missing(&step.table, 1));
            }
        }
        Ok(())
    }

    fn single(&self, apply: &Apply) -> Result<Step, SinkError> {
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
    /// only be truncated together. Where the target has more references than the source, the rows are deleted instead; so
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
            Err(e) if e.code().is_some_and(|c| c.code() == "0A000") => {
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
        self.run_window(steps).await
    }

    async fn prepare(&mut self, table: &TargetName, text: &str) -> Result<Statement, Failed> {
        if let Some(statement) = self.statements.get(text) {
            return Ok(statement.clone());
        }
        let statement = self.session.client.prepare(text).await.map_err(|e| self.failed(table, e))?;
        if self.statements.len() >= STATEMENTS_MAX {
            self.statements.clear();
        }
        self.statements.insert(text.to_owned(), statement.clone());
        Ok(statement)
    }

    fn failed(&self, table: &TargetName, e: tokio_postgres::Error) -> Failed {
        Failed {
            sqlstate: e.code().map(|c| c.code().to_owned()).unwrap_or_default(),
            error: row_fault(&self.config, &shown(table), e),
        }
    }

    async fn commit_now(&mut self, mark: &Mark) -> Result<Ack, SinkError> {
        self.begin().await?;
        self.state = State::Broken;
        crash_point!("sink.before_position");
        self.put_keys_back().await?;
        position::advance(&self.config, &self.session, &self.claimed, mark).await?;
        crash_point!("sink.after_position");
        crash_point!("sink.before_commit");
        let done = timeout(COMMIT_TIMEOUT, self.session.client.batch_execute("COMMIT")).await;
        let unknown = |why: String| {
            let what = format!("the commit may or may not have happened: {why}");
            SinkError::new(SinkClass::UnknownOutcome, code::UNKNOWN_OUTCOME, what, "")
        };
        match done {
            Err(_) => return Err(unknown(format!("no answer within {} s", COMMIT_TIMEOUT.as_secs()))),
            // The server's own word is sure, but for its last ones: it may have been told to die after the commit.
            Ok(Err(e)) => match e.as_db_error() {
                Some(db) if !db.code().code().starts_with("57P") => {
                    return Err(row_fault(&self.config, "deferred constraint at commit", e));
                }
                _ => return Err(unknown(crate::fault::Fault::from(e).to_string())),
            },
            Ok(Ok(())) => {}
        }
        crash_point!("sink.after_commit");
        self.claimed.advanced(i64::try_from(mark.seq.0).unwrap_or(i64::MAX));
        self.state = State::Idle;
        Ok(Ack::Durable)
    }

    async fn abort_now(&mut self) {
        if self.state != State::Idle {
            // A closed session has rolled back by itself; the next call says that it is closed.
            let _ = self.session.client.batch_execute("ROLLBACK").await;
            self.state = State::Idle;
        }
    }
}

/// A statement's failure with its SQLSTATE, which decides about the fall-back.
struct Failed {
    sqlstate: String,
    error: SinkError,
}

impl From<SinkError> for Failed {
    fn from(error: SinkError) -> Self {
        Failed { sqlstate: String::new(), error }
    }
}

fn row_missing(table: &TargetName, rows: u64) -> SinkError {
    SinkError::new(
        SinkClass::Row,
        code::ROW_MISSING,
        format!("{}: {rows} rows that the source changed are not in the target", shown(table)),
        "somebody else changes the target's rows: repair them, or deliver the table again",
    )
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

impl Lane for PgLane {
    fn write<'a>(&'a mut self, group: &'a Group) -> Fut<'a, Result<(), SinkError>> {
        Box::pin(self.write_now(group))
    }
    fn commit<'a>(&'a mut self, mark: &'a Mark) -> Fut<'a, Result<Ack, SinkError>> {
        Box::pin(self.commit_now(mark))
    }
    fn abort(&mut self) -> Fut<'_, ()> {
        Box::pin(self.abort_now())
    }
}
