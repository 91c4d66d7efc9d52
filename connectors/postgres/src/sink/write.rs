//! Walk: row-change 15/17. A lane: rows of a group, then the position, in one transaction.
//!
//! Two plans (deliver.md 9), both inside the transaction and behind a savepoint. **Columnar**: table by table, parents
//! before children, one statement per table and set of columns; deletes last, children before parents. **Source order**:
//! row by row as the source did it, pipelined. The second is used when the group asks for it, when one key occurs twice
//! or a row moves to another key with columns missing, and when the first fails with a unique or foreign-key error.
//! A foreign key that refuses this, too, waits for the commit (`keys`); rows that give each other a unique value give way
//! (`yielding`).
//!
//! Rows of a snapshot go by COPY (`copy`), which is twice as fast, until a table refuses it once. A guarded group stands
//! behind a savepoint of its own: a row that fails undoes that write alone.

mod copy;
mod keys;
mod ordered;
mod steps;
mod texts;
mod yielding;

use super::error::{fault, is_reference, is_taken, misuse, row_fault};
use super::position;
use super::sql::{self, Target, shown};
use super::{Claimed, SinkConfig};
use crate::codes::sink as code;
use crate::session::Session;
use catchwater_base::crash_point;
use catchwater_base::hash::{Map, Seeded};
use catchwater_deliver::sink::{Ack, Apply, Group, Lane, Mark, SinkClass, SinkError, TargetName, TargetPlan};
use catchwater_runtime::Fut;
use catchwater_runtime::time::timeout;
use keys::Keys;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use texts::Columns;
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
    /// Second unique keys that are checked at each row: names of their columns.
    unique: Vec<Vec<String>>,
}

struct TargetColumn {
    /// Its type without length.
    cast: String,
    /// Updates may not set it.
    fixed: bool,
    native: u32,
    not_null: bool,
    /// Name of its type, and how many characters a text of it has at most.
    base: String,
    length: Option<i32>,
}

/// Foreign keys that were made to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Waits {
    None,
    /// Of the group's tables.
    Own,
    /// Those that point to its tables, too.
    All,
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
        let keys = self.keys.clone();
        let mut done = self.rows(group).await;
        // Whether a row stands or falls is said now, and not by a deferred key at the commit.
        if done.is_ok() && (self.has_keys(&group.applies) || self.are_referred(&group.applies)) {
            done = self.check_keys().await;
        }
        match &done {
            Ok(()) => self.sql("RELEASE SAVEPOINT cw_guard").await?,
            Err(e) if e.class == SinkClass::Row => {
                self.sql("ROLLBACK TO SAVEPOINT cw_guard; RELEASE SAVEPOINT cw_guard").await?;
                self.keys = keys;
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
        // A guarded write is of rows that may have to be set aside: each says by itself whether it fits, until they are
        // tried together. A part's children may be in the next one, so that its tables show the key from the other side alone.
        let may_wait = !group.guarded || group.together;
        let (has_keys, referred) = (self.has_keys(&group.applies), self.are_referred(&group.applies));
        let may_give = self.has_unique(&group.applies);
        if !(may_wait && (has_keys || referred)) && !may_give {
            return self.in_order(&group.applies, false).await;
        }
        let (mut waits, mut gives) = (Waits::None, false);
        loop {
            self.sql("SAVEPOINT cw").await?;
            let mut done = self.in_order(&group.applies, gives).await;
            if waits != Waits::None && done.is_ok() && !group.partial {
                done = self.check_keys().await;
            }
            let e = match done {
                Ok(()) => return self.sql("RELEASE SAVEPOINT cw").await,
                Err(e) => e,
            };
            let next = match waits {
                Waits::None if has_keys && !group.partial => Waits::Own,
                Waits::None | Waits::Own => Waits::All,
                Waits::All => Waits::None,
            };
            let by_key = may_wait && is_reference(&e) && next != Waits::None;
            let by_value = may_give && !gives && is_taken(&e);
            if !by_key && !by_value {
                return Err(e);
            }
            self.sql("ROLLBACK TO SAVEPOINT cw; RELEASE SAVEPOINT cw").await?;
            if !by_key {
                gives = true;
                continue;
            }
            waits = next;
            let mut made = self.let_keys_wait(&group.applies, waits == Waits::All).await?;
            if !made && waits == Waits::Own && referred {
                waits = Waits::All;
                made = self.let_keys_wait(&group.applies, true).await?;
            }
            if !made {
                return Err(e);
            }
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
                "SELECT a.attname::text, format_type(a.atttypid, -1), c.oid, coalesce(a.attidentity = 'a', false), a.atttypid, coalesce(a.attnotnull, false), t.typname::text, \
                 CASE WHEN t.typname IN ('varchar', 'bpchar') AND a.atttypmod > 4 THEN a.atttypmod - 4 END \
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
                 LEFT JOIN pg_type t ON t.oid = a.atttypid \
                 WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r','p','f','v')",
                &[&schema, &table],
            )
            .await
            .map_err(fail)?;
        let Some(first) = rows.first() else { return Ok(None) };
        let oid: u32 = first.get(2);
        let column = |r: &tokio_postgres::Row| {
            let (name, cast, fixed, native) = (r.get::<_, Option<String>>(0)?, r.get(1), r.get(3), r.get(4));
            let (not_null, base, length) = (r.get(5), r.get(6), r.get(7));
            Some((name, TargetColumn { cast, fixed, native, not_null, base, length }))
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
        let unique = self.session.client.query(yielding::UNIQUE_KEYS, &[&oid]).await.map_err(fail)?;
        let unique = yielding::unique_keys(&unique);
        Ok(Some(TargetInfo { columns, parents, referred, unique }))
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
