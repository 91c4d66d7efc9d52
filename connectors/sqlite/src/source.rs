//! SQLite as a source: triggers in the same database, so any program and any version of the library may write it.
//!
//! `triggers` is the SQL, `attach` makes and follows it, `stream` is the thread that reads, `snapshot` reads what is
//! there. Units of the stream may hold several transactions of the writers; the order of changes is the commit order.
//! Between CREATE UNIQUE INDEX and the next poll (at most 50 ms) the triggers do not watch the new index: a REPLACE that
//! removes another row by it in that time is not seen.

pub mod attach;
pub mod snapshot;
pub mod stream;
pub mod triggers;

use crate::catalog::{self, Table, TableError};
use crate::codes;
use crate::config::SourceConfig;
use crate::fault;
use bytes::Bytes;
use catchwater_capture::source::{
    Capabilities, EventBatch, Finding, Identity, Item, Opened, Progress, Severity, Snapshot, Source, SourceClass,
    SourceError, Start, identity_tag,
};
use catchwater_change::Native;
use catchwater_record::ErrorCode;
use catchwater_runtime::spawn::blocking;
use catchwater_runtime::sync::{Receiver, bounded};
use catchwater_runtime::time::wall;
use catchwater_runtime::{Fut, thread};
use snapshot::{Pinned, SqliteSnapshot};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use stream::{Shared, Stream};

/// First byte of our natives.
const SYSTEM: u8 = 6;
/// How long `detach` waits for another writer: its caller is about to end.
const DETACH_BUSY_MS: u32 = 400;
/// Pieces of the stream that wait for the capture.
const PIECES: usize = 4;

pub struct SqliteSource {
    config: SourceConfig,
    running: Option<Running>,
    carry: VecDeque<Item>,
    /// The view at the stream's start, until the snapshot takes it.
    pinned: Option<Pinned>,
}

struct Running {
    shared: Arc<Shared>,
    pieces: Receiver<Result<Vec<Item>, SourceError>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl SqliteSource {
    pub fn new(config: SourceConfig) -> Self {
        SqliteSource { config, running: None, carry: VecDeque::new(), pinned: None }
    }
}

/// Where the database stands now: every change that was committed before the question is at or below the answer. Reads
/// only. The capture has made its tables there.
pub async fn head(config: &SourceConfig) -> Result<Native, SourceError> {
    let config = config.clone();
    pool(move || {
        let db = attach::connect(&config)?;
        let sql = "SELECT max((SELECT coalesce(max(seq), 0) FROM _catchwater_changes), \
                   (SELECT coalesce(max(purged), 0) FROM _catchwater_meta))";
        let seq: i64 = db.query_row(sql, [], |r| r.get(0)).map_err(|e| fault::source("read the position", &e))?;
        Ok(Native::sqlite(seq.unsigned_abs()))
    })
    .await
}

/// The tables that the source would capture now, as `main.table`. Reads only.
///
/// # Errors
/// What opening the file says.
pub async fn captured(config: &SourceConfig) -> Result<Vec<String>, SourceError> {
    let config = config.clone();
    pool(move || {
        let db = attach::connect(&config)?;
        let names = catalog::user_tables(&db).map_err(|e| fault::source("read the tables", &e))?;
        Ok(names.iter().filter(|t| config.takes(t)).map(|t| format!("main.{t}")).collect())
    })
    .await
}

async fn pool<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    match blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(SourceError::new(SourceClass::Bug, codes::SOURCE_BUSY, e, "report this")),
    }
}

impl Source for SqliteSource {
    fn capabilities(&self) -> Capabilities {
        Capabilities { superset: true, truncate: false, has_snapshot: true, has_stretches: false }
    }

    fn preflight(&mut self) -> Fut<'_, Vec<Finding>> {
        let config = self.config.clone();
        Box::pin(async move {
            match blocking(move || findings(&config)).await {
                Ok(found) => found,
                Err(e) => vec![finding(codes::SOURCE_BUSY, Severity::Error, e, String::new(), "report this", vec![])],
            }
        })
    }

    fn identify(&mut self) -> Fut<'_, Result<Identity, SourceError>> {
        let config = self.config.clone();
        Box::pin(pool(move || {
            let db = attach::connect(&config)?;
            let uuid = attach::uuid(&db).map_err(|e| fault::source("identify", &e))?;
            Ok(identity(&config, uuid))
        }))
    }

    fn open(&mut self, start: Start, known: Option<Identity>) -> Fut<'_, Result<Opened, SourceError>> {
        let config = self.config.clone();
        self.running = None;
        self.carry.clear();
        self.pinned = None;
        Box::pin(async move {
            let opened = pool(move || match start {
                Start::Fresh => {
                    let mut db = attach::connect(&config)?;
                    let shapes = attach::attach(&mut db, &config, wall())?;
                    let pinned = snapshot::pin(&config, &mut db)?;
                    Ok((db, shapes, pinned.seq, Some(pinned)))
                }
                Start::After(native) => {
                    let after = native.as_sqlite().and_then(|s| i64::try_from(s).ok()).ok_or_else(|| {
                        SourceError::new(
                            SourceClass::Identity,
                            codes::OTHER_DATABASE,
                            "the position is not SQLite's",
                            "",
                        )
                    })?;
                    let db = attach::connect(&config)?;
                    check_identity(&db, known.as_ref())?;
                    let shapes = attach::reattach(&db, &config, after)?;
                    Ok((db, shapes, after, None))
                }
            })
            .await?;
            let (db, shapes, last, pinned) = opened;
            let uuid = attach::uuid(&db).map_err(|e| fault::source("identify", &e))?.unwrap_or_default();
            let answer = Opened {
                identity: identity(&self.config, Some(uuid.clone())),
                native: Native::sqlite(last as u64),
                tables: shapes.tables(),
            };
            let announced = shapes.current.iter().map(|(n, c)| (*n, c.version)).collect();
            let (out, pieces) = bounded(PIECES);
            let shared = Arc::new(Shared::default());
            shared.confirmed.store(-1, Ordering::Relaxed);
            let stream =
                Stream { db, config: self.config.clone(), shapes, uuid, last, shared: shared.clone(), out, announced };
            let thread = thread::spawn("sqlite-source", move || stream.run()).map_err(|e| {
                SourceError::new(SourceClass::Retry, codes::SOURCE_BUSY, format!("start a thread: {e}"), "")
            })?;
            self.running = Some(Running { shared, pieces, thread: Some(thread) });
            self.pinned = pinned;
            Ok(answer)
        })
    }

    fn next<'a>(&'a mut self, out: &'a mut EventBatch) -> Fut<'a, Result<Progress, SourceError>> {
        Box::pin(async move {
            let Some(running) = &mut self.running else {
                return Err(SourceError::new(SourceClass::Bug, codes::SOURCE_BUSY, "next before open", "report this"));
            };
            if self.carry.is_empty() {
                // Cancel-safe: a piece is taken whole or not at all.
                match running.pieces.recv().await {
                    Some(Ok(items)) => self.carry.extend(items),
                    Some(Err(e)) => return Err(e),
                    None => {
                        let what = fault::thread("the SQLite source");
                        return Err(SourceError::new(SourceClass::Retry, codes::SOURCE_BUSY, what, ""));
                    }
                }
            }
            loop {
                while out.room() > 0 {
                    let Some(item) = self.carry.pop_front() else { break };
                    out.push(item);
                }
                if out.room() == 0 {
                    return Ok(Progress::Items);
                }
                match running.pieces.try_recv() {
                    Ok(Ok(items)) => self.carry.extend(items),
                    // An error comes again as the thread's end, once what stands before it is taken.
                    Ok(Err(e)) => {
                        if out.items.is_empty() {
                            return Err(e);
                        }
                        let (late, pieces) = bounded(1);
                        let _ = late.try_send(Err(e));
                        running.pieces = pieces;
                        return Ok(Progress::Items);
                    }
                    Err(_) => return Ok(Progress::Items),
                }
            }
        })
    }

    fn confirm(&mut self, upto: &Native) {
        if let (Some(running), Some(seq)) = (&self.running, upto.as_sqlite()) {
            let seq = i64::try_from(seq).unwrap_or(i64::MAX);
            running.shared.confirmed.fetch_max(seq, Ordering::Relaxed);
        }
    }

    fn snapshot(&mut self) -> Result<Box<dyn Snapshot>, SourceError> {
        Ok(Box::new(SqliteSnapshot::new(self.config.clone(), self.pinned.take())))
    }

    fn close(&mut self) -> Fut<'_, ()> {
        self.pinned = None;
        self.carry.clear();
        let running = self.running.take();
        Box::pin(async move {
            let Some(mut running) = running else { return };
            running.shared.stop.store(true, Ordering::Relaxed);
            running.pieces.close();
            if let Some(thread) = running.thread.take() {
                let _ = blocking(move || thread.join()).await;
            }
        })
    }

    fn detach<'a>(&'a mut self, identity: &'a Identity, opened: bool) -> Fut<'a, Result<(), SourceError>> {
        // Before `open` answers, what stands in the file is an earlier capture's.
        let ours = identity.tags.get(&identity_tag::SQLITE_UUID).filter(|_| opened).cloned();
        let config = SourceConfig { busy_ms: DETACH_BUSY_MS, ..self.config.clone() };
        Box::pin(async move {
            self.close().await;
            let Some(ours) = ours else { return Ok(()) };
            pool(move || {
                let failed = |e: rusqlite::Error| fault::source("remove our triggers and tables", &e);
                let mut db = attach::connect(&config)?;
                // After a power cut they may be there again: harmless, and the end does not wait for the disk.
                db.pragma_update(None, "synchronous", "NORMAL").map_err(failed)?;
                attach::detach(&mut db, &ours).map_err(failed)
            })
            .await
        })
    }

    fn detach_sql(&self, identity: &Identity, opened: bool) -> String {
        let ours = opened && identity.tags.contains_key(&identity_tag::SQLITE_UUID);
        if ours { attach::LIST_DROPS.to_owned() } else { String::new() }
    }
}

fn identity(config: &SourceConfig, uuid: Option<Vec<u8>>) -> Identity {
    let mut tags = std::collections::BTreeMap::new();
    tags.insert(identity_tag::DATABASE, Bytes::from(attach::database_name(config)));
    if let Some(uuid) = uuid {
        tags.insert(identity_tag::SQLITE_UUID, Bytes::from(uuid));
    }
    tags.insert(identity_tag::SERVER_VERSION, Bytes::from_static(rusqlite::version().as_bytes()));
    Identity { system: SYSTEM, tags }
}

fn check_identity(db: &rusqlite::Connection, known: Option<&Identity>) -> Result<(), SourceError> {
    let now = attach::uuid(db).map_err(|e| fault::source("identify", &e))?;
    let want = known.and_then(|k| k.tags.get(&identity_tag::SQLITE_UUID));
    match (now, want) {
        (None, _) => Err(SourceError::new(
            SourceClass::Gap,
            codes::TRIGGERS_GONE,
            "the capture's tables were removed from the database",
            "changes since then are not known: capture the database anew under another source name",
        )),
        (Some(now), Some(want)) if now[..] != want[..] => Err(SourceError::new(
            SourceClass::Identity,
            codes::OTHER_DATABASE,
            "the file is not the database this capture knows, or another capture has taken it over",
            "put the old file back, or capture this one under another source name",
        )),
        _ => Ok(()),
    }
}

fn finding(code: u16, severity: Severity, fault: String, evidence: String, cure: &str, sql: Vec<String>) -> Finding {
    Finding { code: ErrorCode(code), severity, fault, evidence, cure: cure.into(), sql, retry: false }
}

/// Everything preflight can see without changing the file.
fn findings(config: &SourceConfig) -> Vec<Finding> {
    let of = |e: SourceError| {
        vec![Finding {
            retry: e.is_retry(),
            code: e.code,
            severity: Severity::Error,
            fault: e.what,
            evidence: config.file.display().to_string(),
            cure: e.next,
            sql: Vec::new(),
        }]
    };
    let db = match attach::connect(config) {
        Ok(db) => db,
        Err(e) => return of(e),
    };
    let mut out = Vec::new();
    match db.is_readonly("main") {
        Ok(false) => {
            // A write transaction that changes nothing: is the directory writable, too?
            if let Err(e) = db.execute_batch("BEGIN IMMEDIATE; ROLLBACK") {
                out.extend(of(fault::source("begin a write", &e)));
            }
        }
        Ok(true) => out.push(finding(
            codes::READ_ONLY,
            Severity::Error,
            "the file cannot be written".into(),
            config.file.display().to_string(),
            "the capture writes triggers and a change table: give it write access to the file and its directory",
            vec![],
        )),
        Err(e) => return of(fault::source("open", &e)),
    }
    let names = match catalog::user_tables(&db) {
        Ok(names) => names,
        Err(e) => return of(fault::source("read the tables", &e)),
    };
    let named = config.named().map(str::to_owned).filter(|n| !names.iter().any(|t| t.eq_ignore_ascii_case(n)));
    let wanted: Vec<String> = names.iter().filter(|t| config.takes(t)).cloned().chain(named).collect();
    if wanted.is_empty() {
        out.push(finding(
            codes::TABLE_MISSING,
            Severity::Error,
            "no table matches".into(),
            config.tables.join(", "),
            "name tables that exist in the database",
            vec![],
        ));
    }
    for name in wanted {
        let table = match Table::read(&db, &name).and_then(|t| t.check_capturable().map(|()| t)) {
            Ok(table) => table,
            Err(e) => {
                let missing = matches!(e, TableError::Missing(_) | TableError::View(_));
                let e = attach::table_error(e);
                let evidence = if missing { format!("tables there: {}", names.join(", ")) } else { String::new() };
                out.push(Finding {
                    retry: e.is_retry(),
                    code: e.code,
                    severity: Severity::Error,
                    fault: e.what,
                    evidence,
                    cure: e.next,
                    sql: Vec::new(),
                });
                continue;
            }
        };
        if table.user_triggers && !table.uniques.is_empty() {
            out.push(finding(
                codes::NOT_CAPTURABLE,
                Severity::Warning,
                format!("{name} has triggers of its own and unique keys"),
                "if such a trigger writes the same table by INSERT OR REPLACE, a row it removes may not be seen".into(),
                "use ON CONFLICT DO UPDATE in that trigger",
                vec![],
            ));
        }
    }
    let mode: rusqlite::Result<String> = db.query_row("PRAGMA journal_mode", [], |r| r.get(0));
    if mode.is_ok_and(|m| !m.eq_ignore_ascii_case("wal")) {
        out.push(finding(
            codes::WRITERS_WAIT,
            Severity::Warning,
            "the database is not in WAL mode: writers wait while the first snapshot is read".into(),
            config.file.display().to_string(),
            "switch it once, if its programs allow it",
            vec!["PRAGMA journal_mode = WAL;".into()],
        ));
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
