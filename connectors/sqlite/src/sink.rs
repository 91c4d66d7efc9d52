//! SQLite as a sink: rows, fence and position in one transaction of the target file.
//!
//! One lane, one connection, WAL, `synchronous=FULL`. A transaction of SQLite holds the file's write lock from its first
//! row, so while a lane is inside one nobody else can claim the target, and a claim that came before is seen by
//! `position::check`. Blocking calls run on the pool; a connection whose call was dropped is not used again.

pub mod ddl;
mod keys;
pub mod position;
pub mod write;
mod yielding;

use crate::codes;
use crate::config::SinkConfig;
use crate::fault;
use catchwater_base::crash_point;
use catchwater_deliver::sink::{
    Ack, Capabilities, Claim, DdlStep, Group, Lane, Mark, Others, Owner, Recovered, Sink, SinkClass, SinkError,
    TargetName, TargetTable,
};
use catchwater_runtime::Fut;
use catchwater_runtime::spawn::blocking;
use rusqlite::{Connection, OpenFlags};
use rustix::fs::Access;
use std::path::Path;
use std::time::Duration;

/// How long `forget` waits for another writer: its caller is about to end.
const FORGET_BUSY_MS: u32 = 400;

pub struct SqliteSink {
    config: SinkConfig,
    db: Option<Connection>,
    claim: Option<Claim>,
}

impl SqliteSink {
    pub fn new(config: SinkConfig) -> Self {
        SqliteSink { config, db: None, claim: None }
    }

    /// One job on the connection, which comes back with its result.
    fn job<'a, T: Send + 'static>(
        &'a mut self,
        work: impl FnOnce(&mut Connection) -> Result<T, SinkError> + Send + 'static,
    ) -> Fut<'a, Result<T, SinkError>> {
        let (db, config) = (self.db.take(), self.config.clone());
        Box::pin(async move {
            let (db, result) = on_pool(db, config, work).await?;
            self.db = Some(db);
            result
        })
    }
}

async fn on_pool<T: Send + 'static>(
    db: Option<Connection>,
    config: SinkConfig,
    work: impl FnOnce(&mut Connection) -> Result<T, SinkError> + Send + 'static,
) -> Result<(Connection, Result<T, SinkError>), SinkError> {
    let done = blocking(move || {
        let mut db = match db {
            Some(db) => db,
            None => connect(&config)?,
        };
        let result = work(&mut db);
        Ok((db, result))
    })
    .await;
    match done {
        Ok(done) => done,
        Err(e) => Err(SinkError::new(SinkClass::Bug, codes::SINK_BUG, e, "report this")),
    }
}

fn connect(config: &SinkConfig) -> Result<Connection, SinkError> {
    let failed = |e: rusqlite::Error| fault::sink(&format!("open {}", config.file.display()), &e);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(&config.file, flags).map_err(failed)?;
    db.busy_timeout(Duration::from_millis(u64::from(config.busy_ms))).map_err(failed)?;
    db.set_prepared_statement_cache_capacity(256);
    let mode: String = db.query_row("PRAGMA journal_mode", [], |r| r.get(0)).map_err(failed)?;
    if !mode.eq_ignore_ascii_case("wal") {
        db.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).map_err(failed)?;
    }
    db.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    Ok(db)
}

/// Can the file be used, or made? Makes nothing, and leaves a file's journal mode as it is.
fn look(config: &SinkConfig) -> Result<(), SinkError> {
    let said = |e: &dyn std::fmt::Display| format!("open {}: {e}", config.file.display());
    let next = "give a path in a directory that exists and that this user may write";
    let bad_file = |e: &dyn std::fmt::Display| SinkError::new(SinkClass::Config, codes::SINK_FILE, said(e), next);
    let parent = match config.file.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    if !std::fs::metadata(parent).map_err(|e| bad_file(&e))?.is_dir() {
        return Err(bad_file(&format!("{} is no directory", parent.display())));
    }
    // A file that exists needs it, too: SQLite's log stands beside it.
    rustix::fs::access(parent, Access::WRITE_OK | Access::EXEC_OK).map_err(|e| {
        let what = said(&format!("the directory cannot be written: {e}"));
        SinkError::new(SinkClass::Config, codes::SINK_READ_ONLY, what, "give this user write access to the directory")
    })?;
    match std::fs::metadata(&config.file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(bad_file(&e)),
        Ok(found) if !found.is_file() => return Err(bad_file(&"it is no file")),
        Ok(_) => {}
    }
    let failed = |e: rusqlite::Error| fault::sink(&format!("open {}", config.file.display()), &e);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(&config.file, flags).map_err(failed)?;
    db.busy_timeout(Duration::from_millis(u64::from(config.busy_ms))).map_err(failed)?;
    db.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(failed)?;
    if db.is_readonly("main").map_err(failed)? {
        let next = "give this user write access to the file and its directory";
        return Err(SinkError::new(
            SinkClass::Config,
            codes::SINK_READ_ONLY,
            said(&"the file cannot be written"),
            next,
        ));
    }
    Ok(())
}

impl Sink for SqliteSink {
    fn preflight(&mut self) -> Fut<'_, Result<(), SinkError>> {
        let config = self.config.clone();
        Box::pin(async move {
            let done = blocking(move || look(&config)).await;
            done.unwrap_or_else(|e| Err(SinkError::new(SinkClass::Bug, codes::SINK_BUG, e, "report this")))
        })
    }
    fn open(&mut self, claim: Claim) -> Fut<'_, Result<Recovered, SinkError>> {
        // A connection of before may be in any state.
        self.db = None;
        self.claim = Some(claim.clone());
        self.job(move |db| Ok(Recovered { mark: position::claim(db, &claim)? }))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            atomic_position: true,
            multi_table_tx: true,
            truncate: true,
            lanes_max: 1,
            rows_max: 100_000,
            bytes_max: 1 << 30,
        }
    }

    fn describe<'a>(&'a mut self, names: &'a [TargetName]) -> Fut<'a, Result<Vec<Option<TargetTable>>, SinkError>> {
        let names = names.to_vec();
        self.job(move |db| names.iter().map(|n| ddl::describe(db, n)).collect())
    }

    fn lane(&mut self) -> Fut<'_, Result<Box<dyn Lane>, SinkError>> {
        let (config, claim) = (self.config.clone(), self.claim.clone());
        Box::pin(async move {
            let Some(claim) = claim else {
                return Err(SinkError::new(SinkClass::Bug, codes::SINK_BUG, "lane before open", "report this"));
            };
            let (db, ()) = match on_pool(None, config.clone(), |_| Ok(())).await? {
                (db, Ok(())) => (db, ()),
                (_, Err(e)) => return Err(e),
            };
            let lane = SqliteLane { config, claim, db: Some(db), prev: None, broken: false };
            Ok(Box::new(lane) as Box<dyn Lane>)
        })
    }

    fn apply_ddl<'a>(&'a mut self, step: &'a DdlStep) -> Fut<'a, Result<(), SinkError>> {
        let step = step.clone();
        self.job(move |db| ddl::apply(db, &step))
    }

    fn shutdown(&mut self) -> Fut<'_, ()> {
        let db = self.db.take();
        self.claim = None;
        Box::pin(async move {
            // Closing checkpoints the WAL, which may take a moment.
            let _ = blocking(move || drop(db)).await;
        })
    }

    fn forget<'a>(&'a mut self, owner: &'a Owner) -> Fut<'a, Result<(), SinkError>> {
        let (config, owner) = (SinkConfig { busy_ms: FORGET_BUSY_MS, ..self.config.clone() }, owner.clone());
        Box::pin(async move {
            self.shutdown().await;
            // A file that was never made is not made now.
            if !config.file.exists() {
                return Ok(());
            }
            let (_, result) = on_pool(None, config, move |db| position::forget(db, &owner)).await?;
            result
        })
    }

    fn forget_sql(&self, owner: &Owner) -> String {
        position::forget_sql(owner.pipeline.as_str(), owner.sink.as_str(), &owner.cluster)
    }
}

struct SqliteLane {
    config: SinkConfig,
    claim: Claim,
    db: Option<Connection>,
    /// Inside a transaction: the position it began at.
    prev: Option<Option<i64>>,
    /// A call was dropped in its middle: what it did is unknown until the next `abort`.
    broken: bool,
}

impl SqliteLane {
    fn job<'a, T: Send + 'static>(
        &'a mut self,
        work: impl FnOnce(&mut Connection, Option<Option<i64>>) -> (Result<T, SinkError>, Option<Option<i64>>)
        + Send
        + 'static,
    ) -> Fut<'a, Result<T, SinkError>> {
        if self.broken {
            let e = SinkError::new(SinkClass::UnknownOutcome, codes::SINK_MOVED, "the lane was left in its middle", "");
            return Box::pin(std::future::ready(Err(e)));
        }
        let (db, config, prev) = (self.db.take(), self.config.clone(), self.prev.take());
        self.broken = true;
        Box::pin(async move {
            let (db, result) = on_pool(db, config, move |db| Ok(work(db, prev))).await?;
            self.broken = false;
            self.db = Some(db);
            let (result, prev) = result?;
            self.prev = prev;
            result
        })
    }
}

/// Begins the transaction if it is not open, and proves that this claim holds the target.
fn begin(db: &Connection, claim: &Claim, prev: Option<Option<i64>>) -> Result<Option<i64>, SinkError> {
    if let Some(prev) = prev {
        return Ok(prev);
    }
    let failed = |e: rusqlite::Error| fault::sink("begin", &e);
    db.execute_batch("BEGIN IMMEDIATE; PRAGMA defer_foreign_keys = ON").map_err(failed)?;
    match position::check(db, claim) {
        Ok(seq) => Ok(seq),
        Err(e) => {
            roll_back(db);
            Err(e)
        }
    }
}

fn rows(db: &Connection, group: &Group) -> Result<(), SinkError> {
    let (mut writer, mut at) = (write::Writer::default(), 0);
    while let Some(apply) = group.applies.get(at) {
        let next = group.applies.get(at + 1).filter(|next| write::moves_key(apply, next));
        let mut write = || match next {
            Some(next) => writer.move_key(db, apply, next),
            None => writer.apply(db, apply),
        };
        let place = at + usize::from(next.is_some());
        // A statement that is refused leaves nothing.
        if let Err(e) = write() {
            let again = e.others == Some(Others::InTheWay) && yielding::make_way(db, &group.applies, place)?;
            if !again {
                return Err(SinkError { at: Some(at), ..e });
            }
            write().map_err(|e| SinkError { at: Some(at), ..e })?;
        }
        at = place + 1;
    }
    Ok(())
}

/// A row that fails undoes this write, not the transaction.
fn guarded(db: &Connection, group: &Group) -> Result<(), SinkError> {
    let failed = |e: rusqlite::Error| fault::sink("write a guarded group", &e);
    db.execute_batch("SAVEPOINT guarded").map_err(failed)?;
    // Whether a row stands or falls is said now, and not at the commit, where all foreign keys are looked at.
    let done = rows(db, group).and_then(|()| keys::check(db, &group.applies));
    // A full disk or a broken file has ended the whole transaction: then there is no savepoint either.
    if done.is_err() && !db.is_autocommit() {
        db.execute_batch("ROLLBACK TO guarded").map_err(failed)?;
    }
    if !db.is_autocommit() {
        db.execute_batch("RELEASE guarded").map_err(failed)?;
    }
    done
}

fn roll_back(db: &Connection) {
    if !db.is_autocommit() {
        // A rollback that fails leaves a connection that the next call will find broken.
        let _ = db.execute_batch("ROLLBACK");
    }
}

impl Lane for SqliteLane {
    fn write<'a>(&'a mut self, group: &'a Group) -> Fut<'a, Result<(), SinkError>> {
        let (group, claim) = (group.clone(), self.claim.clone());
        self.job(move |db, prev| {
            let seq = match begin(db, &claim, prev) {
                Ok(seq) => seq,
                Err(e) => return (Err(e), None),
            };
            crash_point!("sink.before_rows");
            let done = if group.guarded { guarded(db, &group) } else { rows(db, &group) };
            crash_point!("sink.after_rows");
            // After an error the worker aborts; the transaction stays open until then.
            (done, Some(seq))
        })
    }

    fn commit<'a>(&'a mut self, mark: &'a Mark) -> Fut<'a, Result<Ack, SinkError>> {
        let (mark, claim) = (mark.clone(), self.claim.clone());
        self.job(move |db, prev| {
            let seq = match begin(db, &claim, prev) {
                Ok(seq) => seq,
                Err(e) => return (Err(e), None),
            };
            crash_point!("sink.before_position");
            if let Err(e) = position::advance(db, &claim, seq, &mark) {
                roll_back(db);
                return (Err(e), None);
            }
            crash_point!("sink.after_position");
            crash_point!("sink.before_commit");
            let done = db.execute_batch("COMMIT");
            crash_point!("sink.after_commit");
            match done {
                Ok(()) => (Ok(Ack::Durable), None),
                Err(e) => {
                    let e = fault::sink("commit", &e);
                    // A failed COMMIT of SQLite leaves the transaction open: rolled back, nothing happened. An I/O error
                    // may have closed it; then only the file knows.
                    let unknown = db.is_autocommit() && e.class != SinkClass::Row;
                    roll_back(db);
                    if unknown {
                        return (Err(SinkError { class: SinkClass::UnknownOutcome, ..e }), None);
                    }
                    (Err(e), None)
                }
            }
        })
    }

    fn abort(&mut self) -> Fut<'_, ()> {
        let db = self.db.take();
        self.prev = None;
        self.broken = false;
        Box::pin(async move {
            let Some(db) = db else { return };
            let rolled = blocking(move || {
                roll_back(&db);
                db
            });
            if let Ok(db) = rolled.await {
                self.db = Some(db);
            }
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests;
