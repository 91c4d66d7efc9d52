//! The thread that reads the change table. Everything blocking of the stream happens here.
//!
//! Walk of a change beside PostgreSQL's: wake by `PRAGMA data_version`, close a unit, give out its rows, purge.
//!
//! A *unit* is what was committed between two closings; it may hold several transactions of the writers (capability
//! `superset`), never a part of one. Its end is a row of `_catchwater_units`, committed (synchronously) before its first
//! row is given out: so a restart reads the same units with the same ids, and a power cut of the source cannot take back
//! what was given out.

use super::attach::{self, Shapes};
use crate::codes;
use crate::config::SourceConfig;
use crate::fault;
use crate::source::triggers;
use crate::types::cell_of;
use bytes::Bytes;
use catchwater_base::{Wall, crash_point};
use catchwater_capture::source::{Item, SourceClass, SourceError};
use catchwater_change::{Native, Op, Row, RowChange, SnapshotMark, SourceInfo};
use catchwater_record::TxnId;
use catchwater_runtime::sync::Sender;
use catchwater_runtime::time::wall;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// Rows and bytes handed over in one piece.
const PIECE_ROWS: i64 = 500;
const PIECE_BYTES: usize = 256 * 1024;
const IDLE_EVERY: Duration = Duration::from_millis(900);
/// Purge when this much is confirmed, or at every idle report.
const PURGE_AT: i64 = 5_000;
/// How long the database may be held by others before it is an error.
const BUSY_LIMIT: Duration = Duration::from_secs(30);

/// What the thread and its owner share.
#[derive(Default)]
pub struct Shared {
    pub stop: AtomicBool,
    pub confirmed: AtomicI64,
    /// Changes in the database that are not confirmed.
    pub waiting: AtomicI64,
}

pub struct Stream {
    pub db: Connection,
    pub config: SourceConfig,
    pub shapes: Shapes,
    pub uuid: Vec<u8>,
    /// End of the last unit given out.
    pub last: i64,
    pub shared: Arc<Shared>,
    pub out: Sender<Result<Vec<Item>, SourceError>>,
    /// Version whose shape was announced, per table.
    pub announced: BTreeMap<i64, i64>,
}

/// Why the thread ends.
enum Over {
    /// Nobody listens any more, or stop.
    Gone,
    Failed(SourceError),
}

impl From<SourceError> for Over {
    fn from(e: SourceError) -> Self {
        Over::Failed(e)
    }
}

fn failed(e: rusqlite::Error) -> Over {
    Over::Failed(fault::source("read changes", &e))
}

impl Stream {
    /// Runs until stopped or failed; the failure is the last thing sent.
    pub fn run(mut self) {
        if let Err(Over::Failed(e)) = self.poll_on() {
            let _ = self.out.blocking_send(Err(e));
        }
    }

    fn poll_on(&mut self) -> Result<(), Over> {
        let mut seen = (-1, -1);
        let mut pause = Duration::from_millis(u64::from(self.config.poll_min_ms));
        let most = Duration::from_millis(u64::from(self.config.poll_max_ms));
        let mut reported = Instant::now();
        let mut busy_since: Option<Instant> = None;
        // Units closed by an earlier start, or by a snapshot.
        let mut behind = true;
        loop {
            if self.shared.stop.load(Ordering::Relaxed) {
                return Err(Over::Gone);
            }
            let now: i64 = self.db.query_row("PRAGMA data_version", [], |r| r.get(0)).map_err(failed)?;
            let mut worked = false;
            if now != seen.0 || behind {
                match self.poll(&mut seen.1) {
                    Ok(more) => {
                        seen.0 = now;
                        behind = false;
                        busy_since = None;
                        worked = more;
                    }
                    Err(Over::Failed(e)) if e.class == SourceClass::Retry => {
                        let since = *busy_since.get_or_insert_with(Instant::now);
                        if since.elapsed() > BUSY_LIMIT {
                            return Err(Over::Failed(e));
                        }
                    }
                    Err(other) => return Err(other),
                }
            }
            let idle = reported.elapsed() >= IDLE_EVERY;
            if idle && busy_since.is_none() {
                self.send(vec![Item::Idle(Native::sqlite(self.last as u64))])?;
                reported = Instant::now();
            }
            self.purge(idle)?;
            if worked {
                reported = Instant::now();
                pause = Duration::from_millis(u64::from(self.config.poll_min_ms));
            } else {
                std::thread::sleep(pause);
                pause = (pause * 2).min(most);
            }
        }
    }

    /// Closes a unit if there is something new, and gives out all that are closed. True if rows were given out.
    fn poll(&mut self, schema: &mut i64) -> Result<bool, Over> {
        let shape: i64 = self.db.query_row("PRAGMA schema_version", [], |r| r.get(0)).map_err(failed)?;
        let newest: i64 = self
            .db
            .query_row("SELECT coalesce(max(seq), 0) FROM _catchwater_changes", [], |r| r.get(0))
            .map_err(lost)?;
        if shape != *schema || newest > self.last {
            *schema = self.close_unit(*schema)?;
        }
        let mut gave = false;
        loop {
            let next: Option<(i64, i64)> = {
                let mut statement = self
                    .db
                    .prepare_cached("SELECT seq, at FROM _catchwater_units WHERE seq > ?1 ORDER BY seq LIMIT 1")
                    .map_err(failed)?;
                let mut rows = statement.query([self.last]).map_err(failed)?;
                match rows.next().map_err(failed)? {
                    Some(r) => Some((r.get(0).map_err(failed)?, r.get(1).map_err(failed)?)),
                    None => None,
                }
            };
            let Some((end, at)) = next else { return Ok(gave) };
            self.give_unit(end, Wall::from_micros(at))?;
            gave = true;
        }
    }

    /// Returns the schema's version that was followed: read inside the transaction, so a change that comes right behind
    /// it is not taken for ours.
    fn close_unit(&mut self, followed: i64) -> Result<i64, Over> {
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let version = || tx.query_row("PRAGMA schema_version", [], |r| r.get::<_, i64>(0)).map_err(failed);
        let mut shapes = self.shapes.clone();
        if version()? != followed {
            if attach::uuid(&tx).map_err(failed)?.as_deref() != Some(&self.uuid[..]) {
                return Err(Over::Failed(SourceError::new(
                    SourceClass::Identity,
                    codes::OTHER_DATABASE,
                    "another capture has taken over this database",
                    "stop the other one, or give each its own copy",
                )));
            }
            attach::follow_schema(&tx, &self.config, &mut shapes, self.last)?;
        }
        attach::boundary(&tx, wall()).map_err(failed)?;
        let now = version()?;
        crash_point!("source.before_frame");
        tx.commit().map_err(failed)?;
        crash_point!("source.after_frame");
        self.shapes = shapes;
        Ok(now)
    }

    fn give_unit(&mut self, end: i64, at: Wall) -> Result<(), Over> {
        let (txn, native) = (TxnId(Bytes::from(end.to_string())), Native::sqlite(end as u64));
        let mut piece = vec![Item::Begin { txn: txn.clone(), commit_time: at, xid: None, first_lsn: None }];
        let begun = piece.len();
        let mut from = self.last;
        loop {
            crash_point!("source.before_values");
            let full = self.read_rows(&mut piece, &mut from, end)?;
            crash_point!("source.after_values");
            if !full {
                break;
            }
            self.send(std::mem::take(&mut piece))?;
        }
        let empty = from == self.last && piece.len() == begun;
        if empty {
            // Closed without a change: nothing happened up to here.
            piece = vec![Item::Idle(native)];
        } else {
            piece.push(Item::Commit { native, txn, commit_time: at });
        }
        self.send(piece)?;
        self.last = end;
        self.shared.waiting.store(end - self.shared.confirmed.load(Ordering::Relaxed), Ordering::Relaxed);
        Ok(())
    }

    /// Rows above `from` up to `end`, at most a piece. True if there may be more.
    fn read_rows(&mut self, piece: &mut Vec<Item>, from: &mut i64, end: i64) -> Result<bool, Over> {
        let mut statement = self
            .db
            .prepare_cached("SELECT * FROM _catchwater_changes WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3")
            .map_err(failed)?;
        let mut rows = statement.query([*from, end, PIECE_ROWS]).map_err(failed)?;
        let (mut count, mut bytes) = (0, 0);
        while let Some(r) = rows.next().map_err(failed)? {
            let get = |i: usize| r.get::<_, i64>(i).map_err(failed);
            let (seq, number, op, version) = (get(0)?, get(1)?, get(2)?, get(3)?);
            let unknown = |what: &str| {
                Over::Failed(SourceError::new(
                    SourceClass::Unknown,
                    codes::CHANGES_LOST,
                    format!("change {seq} has {what}"),
                    "the change table was written by something else: capture the database anew",
                ))
            };
            let Some(shape) = self.shapes.all.get(&(number, version)).cloned() else {
                return Err(unknown(&format!("table {number} version {version}, which nobody knows")));
            };
            let mut cells = Vec::with_capacity(shape.columns.len());
            for (i, column) in shape.columns.iter().enumerate() {
                cells.push(cell_of(column, r.get_ref(4 + i).map_err(failed)?));
            }
            let row = Row::new(cells);
            let size = row.bytes();
            let (op, before, after) = match op {
                triggers::CREATE => (Op::Create, None, Some(row)),
                triggers::UPDATE => (Op::Update, None, Some(row)),
                triggers::DELETE => (Op::Delete, Some(row), None),
                other => return Err(unknown(&format!("operation {other}"))),
            };
            if self.announced.get(&number) != Some(&version) {
                self.announced.insert(number, version);
                piece.push(Item::Schema(shape.clone()));
            }
            let info = SourceInfo::Sqlite { seq: seq as u64 };
            piece.push(Item::Row(RowChange { table: shape, op, before, after, snapshot: SnapshotMark::No, info }));
            *from = seq;
            count += 1;
            bytes += size;
            if bytes >= PIECE_BYTES {
                return Ok(true);
            }
        }
        Ok(count == PIECE_ROWS)
    }

    fn send(&self, items: Vec<Item>) -> Result<(), Over> {
        if self.shared.stop.load(Ordering::Relaxed) {
            return Err(Over::Gone);
        }
        self.out.blocking_send(Ok(items)).map_err(|_| Over::Gone)
    }

    /// Forgets what is confirmed. Somebody else's lock is no failure: the next time will do.
    fn purge(&mut self, idle: bool) -> Result<(), Over> {
        let confirmed = self.shared.confirmed.load(Ordering::Relaxed);
        let purged: i64 =
            self.db.query_row("SELECT purged FROM _catchwater_meta WHERE id = 1", [], |r| r.get(0)).map_err(lost)?;
        if confirmed <= purged || !(idle || confirmed - purged >= PURGE_AT) {
            return Ok(());
        }
        crash_point!("source.before_confirm");
        let tx = match self.db.transaction_with_behavior(TransactionBehavior::Immediate) {
            Ok(tx) => tx,
            Err(rusqlite::Error::SqliteFailure(f, _)) if f.code == ErrorCode::DatabaseBusy => return Ok(()),
            Err(e) => return Err(failed(e)),
        };
        let done = attach::purge(&tx, confirmed).and_then(|_| tx.commit());
        crash_point!("source.after_confirm");
        match done {
            Ok(()) => Ok(()),
            Err(rusqlite::Error::SqliteFailure(f, _)) if f.code == ErrorCode::DatabaseBusy => Ok(()),
            Err(e) => Err(failed(e)),
        }
    }
}

/// Our own tables are gone.
fn lost(e: rusqlite::Error) -> Over {
    if fault::text(&e).contains("no such table") {
        return Over::Failed(SourceError::new(
            SourceClass::Gap,
            codes::TRIGGERS_GONE,
            "the capture's tables were removed from the database",
            "changes since then are not known: capture the database anew under another source name",
        ));
    }
    failed(e)
}
