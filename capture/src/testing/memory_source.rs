//! A database in memory with a log, a slot and snapshots: the in-memory twin of [`Source`].
//!
//! It behaves as PostgreSQL does where that matters: a transaction's position is the end of its commit; what was confirmed
//! is forgotten, and asking for it is a `Gap`; an update sends its key only if the key changed and a large value only if
//! it changed (all of a table without a key, which has REPLICA IDENTITY FULL); a commit may be streamed before it is visible to snapshots. Time goes by the caller's runtime.

use crate::source::*;
use bytes::Bytes;
use catchwater_base::{Rng, Wall};
use catchwater_change::{
    Cell, Column, KeyFrom, Native, Op, Row, RowChange, SnapshotMark, SourceInfo, TableSchema, Type, Value,
};
use catchwater_record::{TopicId, TxnId};
use catchwater_runtime::sync::watch;
use catchwater_runtime::{Fut, time};
use std::collections::BTreeMap;
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

/// System byte of its natives: they are PostgreSQL's.
const SYSTEM: u8 = 1;
/// How often a silent stream says where it is.
const IDLE_MS: u64 = 500;
const CHUNK_ROWS: usize = 5;

/// A row of a table: the key's value and the other two.
#[derive(Clone, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub struct DbRow {
    pub id: i64,
    pub v: String,
    pub big: String,
}

/// One statement's effect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DbChange {
    Insert(DbRow),
    /// Old and new row.
    Update(DbRow, DbRow),
    Delete(DbRow),
    Truncate,
}

/// A committed transaction.
#[derive(Clone, Debug)]
pub struct DbTxn {
    pub xid: u64,
    pub end: u64,
    pub time: Wall,
    /// Table number (index into [`MemoryDb::tables`]) and change.
    pub changes: Vec<(usize, DbChange)>,
}

/// How the twin misbehaves, within the contract.
#[derive(Clone, Copy, Debug, Default)]
pub struct Habits {
    /// Sends the transaction at the start position again, if it is of one change, as a start at its beginning would.
    pub resends: bool,
    /// A transaction of this many newest ones may be streamed and not yet visible.
    pub visibility_lag: usize,
    /// Chance per million of `next` that the connection breaks.
    pub breaks: u32,
    /// What preflight finds.
    pub fault: Fault,
}

/// What stands in the way of a first start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fault {
    #[default]
    None,
    /// The server is down.
    Unreachable,
    /// The server is down, and a setting is wrong: a person must act.
    Setting,
}

struct State {
    rng: Rng,
    rows: Vec<BTreeMap<i64, DbRow>>,
    wal: Vec<DbTxn>,
    lsn: u64,
    xid: u64,
    /// Where the slot began, if there is one.
    slot: Option<u64>,
    confirmed: u64,
    habits: Habits,
    /// The source no longer means this table: a transaction without other changes is not sent at all.
    left_out: Option<usize>,
    /// Rises when all connections break.
    cuts: u64,
}

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct MemoryDb {
    state: Arc<Mutex<State>>,
    grown: watch::Sender<u64>,
    tables: Vec<Arc<TableSchema>>,
}

impl MemoryDb {
    /// `tables`: name and whether it has a key.
    pub fn new(seed: u64, tables: &[(&str, bool)]) -> Self {
        let rows = tables.iter().map(|_| BTreeMap::new()).collect();
        let state = State {
            rng: Rng::new(seed),
            rows,
            wal: Vec::new(),
            lsn: 100,
            xid: 700,
            slot: None,
            confirmed: 0,
            habits: Habits::default(),
            left_out: None,
            cuts: 0,
        };
        let tables = tables.iter().enumerate().map(|(i, (name, keyed))| Arc::new(schema(i, name, *keyed))).collect();
        MemoryDb { state: Arc::new(Mutex::new(state)), grown: watch::channel(0).0, tables }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
    pub fn set_habits(&self, habits: Habits) {
        self.lock().habits = habits;
    }
    pub fn tables(&self) -> &[Arc<TableSchema>] {
        &self.tables
    }
    pub fn rows(&self, table: usize) -> BTreeMap<i64, DbRow> {
        self.lock().rows[table].clone()
    }
    pub fn wal(&self) -> Vec<DbTxn> {
        self.lock().wal.clone()
    }
    /// End of the newest commit.
    pub fn lsn(&self) -> u64 {
        self.lock().lsn
    }
    pub fn slot(&self) -> Option<u64> {
        self.lock().slot
    }
    pub fn confirmed(&self) -> u64 {
        self.lock().confirmed
    }
    pub fn leave_out(&self, table: usize) {
        self.lock().left_out = Some(table);
    }
    pub fn drop_slot(&self) {
        self.lock().slot = None;
    }
    /// Breaks the streams that are open.
    pub fn cut(&self) {
        self.lock().cuts += 1;
        self.grown.send_modify(|n| *n += 1);
    }

    /// Commits a transaction.
    pub fn commit(&self, changes: Vec<(usize, DbChange)>) {
        let mut state = self.lock();
        for (table, change) in &changes {
            let rows = &mut state.rows[*table];
            match change {
                DbChange::Insert(new) => drop(rows.insert(new.id, new.clone())),
                DbChange::Update(old, new) => {
                    rows.remove(&old.id);
                    rows.insert(new.id, new.clone());
                }
                DbChange::Delete(old) => drop(rows.remove(&old.id)),
                DbChange::Truncate => rows.clear(),
            }
        }
        state.lsn += 8 + state.rng.below(40);
        state.xid += 1;
        let (xid, end) = (state.xid, state.lsn);
        state.wal.push(DbTxn { xid, end, time: Wall::from_micros(1_700_000_000_000_000 + end as i64), changes });
        drop(state);
        self.grown.send_modify(|n| *n += 1);
    }

    /// WAL that concerns nobody here.
    pub fn other_wal(&self, bytes: u64) {
        self.lock().lsn += bytes;
        self.grown.send_modify(|n| *n += 1);
    }

    /// Commits a random transaction of up to `most` changes over ids below `ids`.
    pub fn random_commit(&self, rng: &mut Rng, most: u64, ids: u64) {
        let count = 1 + rng.below(most);
        let mut rows: Vec<BTreeMap<i64, DbRow>> = self.lock().rows.clone();
        let mut changes = Vec::new();
        for _ in 0..count {
            let table = rng.below(self.tables.len() as u64) as usize;
            let id = rng.below(ids) as i64;
            let text = |rng: &mut Rng| format!("v{}", rng.below(1000));
            let here = rows[table].get(&id).cloned();
            let change = match here {
                None => DbChange::Insert(DbRow { id, v: text(rng), big: text(rng) }),
                Some(old) => match rng.below(20) {
                    0..=3 => DbChange::Delete(old),
                    4 if rng.below(4) == 0 => DbChange::Truncate,
                    5..=7 => {
                        let to = rng.below(ids) as i64;
                        if rows[table].contains_key(&to) {
                            continue;
                        }
                        DbChange::Update(old.clone(), DbRow { id: to, ..old })
                    }
                    8..=10 => DbChange::Update(old.clone(), DbRow { big: text(rng), ..old }),
                    _ => DbChange::Update(old.clone(), DbRow { v: text(rng), ..old }),
                },
            };
            let rows = &mut rows[table];
            match &change {
                DbChange::Insert(new) => drop(rows.insert(new.id, new.clone())),
                DbChange::Update(old, new) => {
                    rows.remove(&old.id);
                    rows.insert(new.id, new.clone());
                }
                DbChange::Delete(old) => drop(rows.remove(&old.id)),
                DbChange::Truncate => rows.clear(),
            }
            changes.push((table, change));
        }
        self.commit(changes);
    }

    /// A connection.
    pub fn source(&self) -> Box<dyn Source> {
        Box::new(MemorySource { db: self.clone(), stream: None, exported: None, lent: Weak::new() })
    }

    /// Rows of a table as a snapshot saw them that sees the first `visible` transactions.
    fn rows_at(&self, table: usize, visible: usize) -> Vec<DbRow> {
        let state = self.lock();
        let mut rows: BTreeMap<i64, DbRow> = BTreeMap::new();
        for txn in &state.wal[..visible.min(state.wal.len())] {
            for (at, change) in &txn.changes {
                if *at != table {
                    continue;
                }
                match change {
                    DbChange::Insert(new) => drop(rows.insert(new.id, new.clone())),
                    DbChange::Update(old, new) => {
                        rows.remove(&old.id);
                        rows.insert(new.id, new.clone());
                    }
                    DbChange::Delete(old) => drop(rows.remove(&old.id)),
                    DbChange::Truncate => rows.clear(),
                }
            }
        }
        rows.into_values().collect()
    }

    fn change(&self, table: usize, change: &DbChange, lsn: u64, xid: u64) -> RowChange {
        let schema = self.tables[table].clone();
        let keyed = !schema.key.is_empty();
        let key_only = |row: &DbRow| Row { cells: vec![Cell::Value(Value::Int(row.id)), Cell::Absent, Cell::Absent] };
        let (op, before, after) = match change {
            DbChange::Insert(new) => (Op::Create, None, Some(full(new))),
            DbChange::Update(old, new) => {
                let mut after = full(new);
                // An unchanged large value is not sent.
                if keyed && old.big == new.big {
                    after.cells[2] = Cell::Unavailable;
                }
                let before = match keyed {
                    true => (old.id != new.id).then(|| key_only(old)),
                    false => Some(full(old)),
                };
                (Op::Update, before, Some(after))
            }
            DbChange::Delete(old) => (Op::Delete, Some(if keyed { key_only(old) } else { full(old) }), None),
            DbChange::Truncate => (Op::Truncate, None, None),
        };
        let info = SourceInfo::Postgres { lsn: Some(lsn), txid: Some(xid as u32), last_commit_lsn: None };
        RowChange { table: schema, op, before, after, snapshot: SnapshotMark::No, info }
    }
}

fn full(row: &DbRow) -> Row {
    Row {
        cells: vec![
            Cell::Value(Value::Int(row.id)),
            Cell::Value(Value::Text(row.v.as_str().into())),
            Cell::Value(Value::Text(row.big.as_str().into())),
        ],
    }
}

fn schema(at: usize, name: &str, keyed: bool) -> TableSchema {
    let column = |id: u32, name: &str, kind: Type| Column {
        id,
        name: name.into(),
        native_type: "x".into(),
        domain: String::new(),
        native_id: 0,
        modifier: -1,
        kind,
        nullable: Some(false),
        generated: false,
        identity: false,
        default: String::new(),
        missing: None,
        comment: String::new(),
    };
    TableSchema {
        schema_no: 0,
        table_no: 0,
        native_id: 16_384 + at as u64,
        database: "memory".into(),
        schema: "public".into(),
        name: name.into(),
        comment: String::new(),
        identity: if keyed { b'd' } else { b'f' },
        key_from: if keyed { KeyFrom::PrimaryKey } else { KeyFrom::None },
        columns: vec![
            column(1, "id", Type::Int { bits: 64, unsigned: false }),
            column(2, "v", Type::Text { length: 0 }),
            column(3, "big", Type::Text { length: 0 }),
        ],
        key: if keyed { vec![0] } else { vec![] },
        unique: Vec::new(),
        fingerprint: [at as u8 + 1; 16],
        topic: TopicId::NONE,
    }
}

/// One connection.
pub struct MemorySource {
    db: MemoryDb,
    stream: Option<StreamAt>,
    /// Number of transactions the slot's export sees.
    exported: Option<Arc<usize>>,
    /// Readers hold it.
    lent: Weak<usize>,
}

struct StreamAt {
    /// Index of the next transaction.
    next: usize,
    /// Items of it that were given out: 0 = not begun, 1 = Begin, …
    part: usize,
    told: Vec<bool>,
    /// [`State::cuts`] when it was opened.
    cuts: u64,
}

impl MemorySource {
    fn fail<T>(class: SourceClass, what: &str) -> Result<T, SourceError> {
        Err(SourceError::new(class, 599, what, ""))
    }

    fn open_now(&mut self, start: Start, known: Option<Identity>) -> Result<Opened, SourceError> {
        let id = identity_tag::SYSTEM_ID;
        if known.is_some_and(|k| k.tags.get(&id).is_some_and(|of| Some(of) != self.identity().tags.get(&id))) {
            return Self::fail(SourceClass::Identity, "another server");
        }
        let mut state = self.db.lock();
        let native = match &start {
            Start::Fresh => {
                state.slot = Some(state.lsn);
                state.confirmed = state.lsn;
                self.exported = Some(Arc::new(state.wal.len()));
                Native::postgres(state.lsn)
            }
            Start::After(native) => {
                let Some(at) = native.as_postgres() else {
                    return Self::fail(SourceClass::Bug, "not a position of mine");
                };
                if state.slot.is_none() {
                    return Self::fail(SourceClass::Gap, "the slot is gone");
                }
                if at < state.confirmed {
                    return Self::fail(SourceClass::Gap, "what lies between was confirmed and is gone");
                }
                native.clone()
            }
        };
        let at = native.as_postgres().unwrap_or(0);
        let next = match (state.habits.resends, &start) {
            (true, Start::After(_)) => {
                let after = state.wal.partition_point(|t| t.end <= at);
                let again = after > 0 && state.wal[after - 1].end == at && state.wal[after - 1].changes.len() <= 1;
                after - usize::from(again)
            }
            _ => state.wal.partition_point(|t| t.end <= at),
        };
        let cuts = state.cuts;
        drop(state);
        self.stream = Some(StreamAt { next, part: 0, told: vec![false; self.db.tables.len()], cuts });
        let mut identity = self.identity();
        identity.tags.insert(identity_tag::CONSISTENT_POINT, Bytes::copy_from_slice(&[0; 8]));
        let left_out = self.db.lock().left_out;
        let mut tables = self.db.tables.clone();
        left_out.map(|table| tables.remove(table));
        Ok(Opened { identity, native, tables })
    }

    fn identity(&self) -> Identity {
        Identity { system: SYSTEM, tags: [(identity_tag::SYSTEM_ID, Bytes::from_static(&[7; 8]))].into() }
    }

    /// Adds up to `most` items; false = nothing is there.
    fn step(&mut self, out: &mut EventBatch, most: u64) -> Result<bool, SourceError> {
        let Some(at) = &mut self.stream else { return Self::fail(SourceClass::Bug, "not open") };
        let mut given = 0;
        while given < most && out.room() > 0 {
            let (txn, left_out) = {
                let state = self.db.lock();
                (state.wal.get(at.next).cloned(), state.left_out)
            };
            let Some(mut txn) = txn else { break };
            txn.changes.retain(|(table, _)| left_out != Some(*table));
            if txn.changes.is_empty() && left_out.is_some() {
                (at.next, at.part) = (at.next + 1, 0);
                given += 1;
                continue;
            }
            let id = TxnId(Bytes::from(txn.xid.to_string()));
            if at.part == 0 {
                out.push(Item::Begin { txn: id, commit_time: txn.time, xid: Some(txn.xid), first_lsn: None });
                at.part = 1;
            } else if let Some((table, change)) = txn.changes.get(at.part - 1) {
                if !std::mem::replace(&mut at.told[*table], true) {
                    out.push(Item::Schema(self.db.tables[*table].clone()));
                }
                out.push(Item::Row(self.db.change(*table, change, txn.end - 1, txn.xid)));
                at.part += 1;
            } else {
                out.push(Item::Commit { native: Native::postgres(txn.end), txn: id, commit_time: txn.time });
                (at.next, at.part) = (at.next + 1, 0);
            }
            given += 1;
        }
        Ok(given > 0)
    }
}

impl Source for MemorySource {
    fn capabilities(&self) -> Capabilities {
        Capabilities { superset: false, truncate: true, has_snapshot: true, has_stretches: false }
    }
    fn preflight(&mut self) -> Fut<'_, Vec<Finding>> {
        let finding = |code, retry| Finding {
            code: catchwater_record::ErrorCode(code),
            severity: Severity::Error,
            fault: "not as it should be".into(),
            evidence: String::new(),
            cure: String::new(),
            sql: Vec::new(),
            retry,
        };
        let found = match self.db.lock().habits.fault {
            Fault::None => vec![],
            Fault::Unreachable => vec![finding(598, true)],
            Fault::Setting => vec![finding(598, true), finding(597, false)],
        };
        Box::pin(ready(found))
    }
    fn identify(&mut self) -> Fut<'_, Result<Identity, SourceError>> {
        let identity = self.identity();
        Box::pin(ready(Ok(identity)))
    }
    fn open(&mut self, start: Start, known: Option<Identity>) -> Fut<'_, Result<Opened, SourceError>> {
        Box::pin(async move { self.open_now(start, known) })
    }
    fn next<'a>(&'a mut self, out: &'a mut EventBatch) -> Fut<'a, Result<Progress, SourceError>> {
        Box::pin(async move {
            let mut grown = self.db.grown.subscribe();
            loop {
                grown.borrow_and_update();
                let (most, breaks) = {
                    let mut state = self.db.lock();
                    let breaks = state.habits.breaks;
                    let cut = self.stream.as_ref().is_some_and(|s| s.cuts != state.cuts);
                    (1 + state.rng.below(12), state.rng.chance(breaks) || cut)
                };
                if breaks {
                    return Self::fail(SourceClass::Retry, "the connection broke");
                }
                if self.step(out, most)? {
                    return Ok(Progress::Items);
                }
                let waited = time::timeout(Duration::from_millis(IDLE_MS), grown.changed()).await;
                let at = self.stream.as_ref().map_or(0, |s| s.part);
                if waited.is_err() && at == 0 {
                    let state = self.db.lock();
                    let behind = self.stream.as_ref().is_some_and(|s| s.next < state.wal.len());
                    if !behind {
                        out.push(Item::Idle(Native::postgres(state.lsn)));
                        return Ok(Progress::Items);
                    }
                }
            }
        })
    }
    fn confirm(&mut self, upto: &Native) {
        let mut state = self.db.lock();
        let upto = upto.as_postgres().unwrap_or(0);
        state.confirmed = state.confirmed.max(upto);
    }
    fn snapshot(&mut self) -> Result<Box<dyn Snapshot>, SourceError> {
        let exported = self.exported.take().or_else(|| self.lent.upgrade());
        self.lent = exported.as_ref().map_or_else(Weak::new, Arc::downgrade);
        Ok(Box::new(MemorySnapshot { db: self.db.clone(), exported }))
    }
    fn readers_max(&self) -> usize {
        4
    }
    fn close(&mut self) -> Fut<'_, ()> {
        self.stream = None;
        Box::pin(ready(()))
    }
}

struct MemorySnapshot {
    db: MemoryDb,
    exported: Option<Arc<usize>>,
}

impl MemorySnapshot {
    fn table_of(&self, table: &TableSchema) -> usize {
        self.db.tables.iter().position(|t| t.name == table.name).unwrap_or(0)
    }
}

impl Snapshot for MemorySnapshot {
    fn plan(&mut self, tables: &[Arc<TableSchema>]) -> Fut<'_, Result<Vec<Chunk>, SourceError>> {
        let mut chunks = Vec::new();
        for table in tables {
            let at = self.table_of(table);
            let seen = self.exported.as_deref().copied().unwrap_or(usize::MAX);
            let ids: Vec<i64> = self.db.rows_at(at, seen).iter().map(|r| r.id).collect();
            // Keyless tables have no bounds to go by: one unit.
            let size = if table.key.is_empty() { usize::MAX } else { CHUNK_ROWS };
            let starts: Vec<i64> = ids.iter().step_by(size).skip(1).copied().collect();
            for unit in 0..=starts.len() {
                chunks.push(Chunk {
                    table: table.clone(),
                    unit: unit as u32,
                    method: if self.exported.is_some() { ChunkMethod::Exported } else { ChunkMethod::Chunked },
                    lower: unit.checked_sub(1).map(|i| starts[i].to_string()).into_iter().collect(),
                    upper: starts.get(unit).map(|s| s.to_string()).into_iter().collect(),
                    last_of_table: unit == starts.len(),
                    rows_estimate: 0,
                });
            }
        }
        Box::pin(ready(Ok(chunks)))
    }

    fn read<'a>(&'a mut self, chunk: &'a Chunk, out: &'a mut Vec<RowChange>) -> Fut<'a, Result<ChunkEnd, SourceError>> {
        let at = self.table_of(&chunk.table);
        let (visible, view) = match self.exported.as_deref().copied() {
            Some(seen) => (seen, View::Exported),
            None => {
                let mut state = self.db.lock();
                let lag = state.habits.visibility_lag as u64;
                let hidden = state.rng.below(lag + 1) as usize;
                // Everything below the slot's start is visible: see `backfill`.
                let slot = state.slot.unwrap_or(0);
                let below = state.wal.partition_point(|t| t.end <= slot);
                let visible = state.wal.len().saturating_sub(hidden).max(below);
                let running: Vec<u64> = state.wal[visible..].iter().map(|t| t.xid).collect();
                let xmin = running.first().copied().unwrap_or(state.xid + 1);
                let view = View::Visibility { xmin, xmax: state.xid + 1, running, place: Native::postgres(state.lsn) };
                (visible, view)
            }
        };
        let bound = |b: &[String]| b.first().and_then(|t| t.parse::<i64>().ok());
        let (lower, upper) = (bound(&chunk.lower), bound(&chunk.upper));
        for row in self.db.rows_at(at, visible) {
            if lower.is_some_and(|l| row.id < l) || upper.is_some_and(|u| row.id >= u) {
                continue;
            }
            out.push(RowChange {
                table: self.db.tables[at].clone(),
                op: Op::Read,
                before: None,
                after: Some(full(&row)),
                snapshot: SnapshotMark::Middle,
                info: SourceInfo::None,
            });
        }
        let rows = out.len() as u64;
        Box::pin(async move {
            // A server takes its time.
            time::sleep(Duration::from_millis(3)).await;
            Ok(ChunkEnd { view, rows })
        })
    }

    fn close(&mut self) -> Fut<'_, ()> {
        Box::pin(ready(()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::conformance::{self, Ask, Change, ITEM, OTHER, Probe};

    struct Twin {
        db: MemoryDb,
        databases: u64,
    }

    impl Twin {
        fn made() -> Self {
            Twin { db: MemoryDb::new(0, &[]), databases: 0 }
        }
    }

    impl Probe for Twin {
        fn unmet(&self) -> Vec<(Ask, &'static str)> {
            let no_sessions = "its transactions are made in one piece";
            vec![
                (Ask::OpenTxn, no_sessions),
                (Ask::Beside, no_sessions),
                (Ask::Savepoint, no_sessions),
                (Ask::Reshape, "its tables keep their shape"),
                (Ask::LargeRow, "its rows are the tests' own"),
                (Ask::Unknown, "nothing is decoded"),
            ]
        }
        fn fresh(&mut self) -> Fut<'_, ()> {
            self.databases += 1;
            self.db = MemoryDb::new(self.databases, &[(ITEM, true), (OTHER, true)]);
            Box::pin(ready(()))
        }
        fn source(&mut self) -> Box<dyn Source> {
            self.db.source()
        }
        fn commit<'a>(&'a mut self, changes: &'a [Change]) -> Fut<'a, ()> {
            let mut rows = [self.db.rows(0), self.db.rows(1)];
            let at = |name: &str| usize::from(name == OTHER);
            let row = |id: i64, v: &str| DbRow { id, v: v.into(), big: "big".into() };
            let mut made = Vec::new();
            for change in changes {
                made.push(match change {
                    Change::Insert(t, id, v) => {
                        rows[at(t)].insert(*id, row(*id, v));
                        (at(t), DbChange::Insert(row(*id, v)))
                    }
                    Change::Update(t, id, v) => {
                        let old = rows[at(t)].insert(*id, row(*id, v)).unwrap();
                        (at(t), DbChange::Update(old, row(*id, v)))
                    }
                    Change::Delete(t, id) => (at(t), DbChange::Delete(rows[at(t)].remove(id).unwrap())),
                    Change::Truncate(t) => {
                        rows[at(t)].clear();
                        (at(t), DbChange::Truncate)
                    }
                });
            }
            self.db.commit(made);
            Box::pin(ready(()))
        }
        fn roll_back<'a>(&'a mut self, _: &'a [Change]) -> Fut<'a, ()> {
            Box::pin(ready(()))
        }
        fn savepoint<'a>(&'a mut self, _: &'a [Change], _: &'a [Change]) -> Fut<'a, ()> {
            unreachable!()
        }
        fn begin<'a>(&'a mut self, _: &'a [Change]) -> Fut<'a, ()> {
            unreachable!()
        }
        fn end(&mut self, _: bool) -> Fut<'_, ()> {
            unreachable!()
        }
        fn add_column(&mut self) -> Fut<'_, ()> {
            unreachable!()
        }
        fn cut(&mut self) -> Fut<'_, ()> {
            self.db.cut();
            Box::pin(ready(()))
        }
        fn restart(&mut self) -> Fut<'_, ()> {
            self.cut()
        }
        fn unknown(&mut self) -> Fut<'_, ()> {
            unreachable!()
        }
        fn forgot<'a>(&'a mut self, upto: &'a Native) -> Fut<'a, bool> {
            Box::pin(ready(upto.as_postgres().is_some_and(|lsn| self.db.confirmed() >= lsn)))
        }
        fn leftovers(&mut self) -> Fut<'_, Vec<String>> {
            Box::pin(ready(Vec::new()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_twin_passes_the_conformance_suite() {
        conformance::run(&mut Twin::made()).await;
    }
}
