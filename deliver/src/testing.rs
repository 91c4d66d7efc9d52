//! A target in memory, with the faults a real one has. For tests of the worker, and as the model the conformance suite
//! was written against. Shipped with the crate because connectors' tests use it, too.

use crate::ident;
use crate::sink::*;
use catchwater_base::Rng;
use catchwater_base::hash::xxh3_64;
use catchwater_change::{Cell, Column, KeyFrom, Row, TableSchema, Type};
use catchwater_record::TopicId;
use catchwater_runtime::Fut;
use catchwater_runtime::time::sleep;
use std::collections::BTreeMap;
use std::future::{pending, ready};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// A table schema with columns `(name, type)` and the key's names. Key columns are NOT NULL.
pub fn table(schema: &str, name: &str, columns: &[(&str, Type)], key: &[&str]) -> Arc<TableSchema> {
    let columns: Vec<Column> = columns
        .iter()
        .enumerate()
        .map(|(i, (name, kind))| Column {
            id: i as u32,
            name: (*name).to_owned(),
            native_type: String::new(),
            domain: String::new(),
            native_id: 0,
            modifier: -1,
            kind: kind.clone(),
            nullable: Some(!key.contains(name)),
            generated: false,
            identity: false,
            default: String::new(),
            missing: None,
            comment: String::new(),
        })
        .collect();
    let key: Vec<u16> =
        key.iter().filter_map(|k| columns.iter().position(|c| c.name == *k)).map(|i| i as u16).collect();
    Arc::new(TableSchema {
        schema_no: 1,
        table_no: 1,
        native_id: 0,
        database: "db".into(),
        schema: schema.into(),
        name: name.into(),
        comment: String::new(),
        identity: 0,
        key_from: if key.is_empty() { KeyFrom::None } else { KeyFrom::PrimaryKey },
        columns,
        key,
        unique: Vec::new(),
        fingerprint: [0; 16],
        topic: TopicId::NONE,
    })
}

/// What may happen to one call of the sink, before or after its effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The process dies here: the call never answers. `after` = the effect stands.
    Die { after: bool },
    /// An error of this class; nothing happened.
    Fail(SinkClass),
    /// `UnknownOutcome`; `after` = it happened.
    Unknown { after: bool },
}

/// The calls that faults are asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Call {
    Open,
    Describe,
    Lane,
    Ddl,
    Write,
    Commit,
}

type Hook = dyn FnMut(Call) -> Option<Fault> + Send;

/// The target: shared by all sinks made for it, like a database by its connections.
#[derive(Clone, Default)]
pub struct MemoryTarget {
    shared: Arc<Mutex<Target>>,
    hook: Arc<Mutex<Option<Box<Hook>>>>,
    /// Longest time a call takes, ms; the calls made so far decide how long each one does.
    slow: Arc<(AtomicU64, AtomicU64)>,
}

#[derive(Default)]
struct Target {
    tables: BTreeMap<TargetName, Table>,
    positions: BTreeMap<(String, String, String), Position>,
    commits: u64,
    /// Most transactions of one open that held rows at the same time.
    lanes_at_once: usize,
    /// Called with the tables after each commit: every state a reader could see.
    watch: Option<Box<Watch>>,
    /// Rows the target does not take.
    refuse: Option<Box<Refuse>>,
    died: bool,
}

type Refuse = dyn FnMut(&Apply) -> bool + Send;
type Watch = dyn FnMut(&BTreeMap<TargetName, Table>, &Mark) + Send;

struct Position {
    cluster: [u8; 16],
    fence: i64,
    mark: Option<Mark>,
}

/// Rows by key; keyless tables keep a list.
#[derive(Clone, Default, Debug)]
pub struct Table {
    pub shape: Option<TargetTable>,
    pub rows: BTreeMap<Vec<u8>, BTreeMap<String, Cell>>,
    pub bag: Vec<BTreeMap<String, Cell>>,
}

impl MemoryTarget {
    pub fn new() -> Self {
        Self::default()
    }
    /// A sink of its own on this target.
    pub fn sink(&self) -> MemorySink {
        MemorySink { target: self.clone(), claim: None, seen: Arc::default(), open: Arc::default() }
    }
    /// Calls take up to so long from now on.
    pub fn slow(&self, most_ms: u64) {
        self.slow.0.store(most_ms, Ordering::Relaxed);
    }
    /// Asked before each call.
    pub fn on_call(&self, hook: Option<Box<Hook>>) {
        *self.hook.lock().unwrap_or_else(|e| e.into_inner()) = hook;
    }
    /// Shown every state that becomes visible.
    pub fn on_commit(&self, watch: Box<Watch>) {
        self.lock().watch = Some(watch);
    }
    /// Refuses rows as a constraint would: true = this one is not taken.
    pub fn on_row(&self, refuse: Option<Box<Refuse>>) {
        self.lock().refuse = refuse;
    }
    /// True once a [`Fault::Die`] has struck; cleared by this call.
    pub fn take_death(&self) -> bool {
        std::mem::take(&mut self.lock().died)
    }
    pub fn commits(&self) -> u64 {
        self.lock().commits
    }
    /// Most transactions of one sink that held rows at the same time.
    pub fn lanes_at_once(&self) -> usize {
        self.lock().lanes_at_once
    }
    pub fn table(&self, name: &TargetName) -> Table {
        self.lock().tables.get(name).cloned().unwrap_or_default()
    }
    /// Makes a table by hand, as a user would have.
    pub fn create(&self, table: TargetTable) {
        let mut target = self.lock();
        let name = table.name.clone();
        target.tables.entry(name).or_default().shape = Some(table);
    }
    /// The target as it was: for tests of a restored database.
    pub fn mark(&self, pipeline: &str, sink: &str, source: &str) -> Option<Mark> {
        let key = (pipeline.to_owned(), sink.to_owned(), source.to_owned());
        self.lock().positions.get(&key).and_then(|p| p.mark.clone())
    }
    pub fn set_mark(&self, pipeline: &str, sink: &str, source: &str, mark: Mark) {
        let key = (pipeline.to_owned(), sink.to_owned(), source.to_owned());
        if let Some(p) = self.lock().positions.get_mut(&key) {
            p.mark = Some(mark);
        }
    }
    fn lock(&self) -> MutexGuard<'_, Target> {
        self.shared.lock().unwrap_or_else(|e| e.into_inner())
    }
    /// Runs one call under the hook.
    fn call<'a, T: Send + 'a>(
        &self,
        call: Call,
        work: impl FnOnce(&mut Target) -> Result<T, SinkError> + Send + 'a,
    ) -> Fut<'a, Result<T, SinkError>> {
        let fault = self.hook.lock().unwrap_or_else(|e| e.into_inner()).as_mut().and_then(|h| h(call));
        let target = self.clone();
        let fail = move |class| Err(SinkError::new(class, 699, format!("fault in {call:?}"), ""));
        let most = self.slow.0.load(Ordering::Relaxed);
        let turn = self.slow.1.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            if most > 0 {
                let ms = xxh3_64(&turn.to_be_bytes()) % (most + 1);
                sleep(Duration::from_millis(ms)).await;
            }
            match fault {
                None => work(&mut target.lock()),
                Some(Fault::Fail(class)) => fail(class),
                Some(Fault::Unknown { after }) => {
                    if after {
                        let _ = work(&mut target.lock())?;
                    }
                    fail(SinkClass::UnknownOutcome)
                }
                Some(Fault::Die { after }) => {
                    {
                        let mut t = target.lock();
                        if after {
                            let _ = work(&mut t);
                        }
                        t.died = true;
                    }
                    pending().await
                }
            }
        })
    }
}

pub struct MemorySink {
    target: MemoryTarget,
    claim: Option<Claim>,
    /// `seq` of the position as a lane of this open left it.
    seen: Arc<Mutex<Option<u64>>>,
    /// Keys that transactions of this open hold, by lane: what row locks are for a real target.
    open: Arc<Mutex<Locks>>,
}

#[derive(Default)]
struct Locks {
    by: BTreeMap<(TargetName, Vec<u8>), u64>,
    lanes: u64,
    most: usize,
}

impl Locks {
    fn free(&mut self, lane: u64) {
        self.by.retain(|_, holder| *holder != lane);
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(|e| e.into_inner())
}

fn key_of(claim: &Claim) -> (String, String, String) {
    (claim.pipeline.to_string(), claim.sink.to_string(), claim.source.to_string())
}

impl Sink for MemorySink {
    fn open(&mut self, claim: Claim) -> Fut<'_, Result<Recovered, SinkError>> {
        self.claim = Some(claim.clone());
        (self.seen, self.open) = (Arc::default(), Arc::default());
        let seen = self.seen.clone();
        self.target.call(Call::Open, move |t| {
            let found = t.positions.entry(key_of(&claim)).or_insert(Position {
                cluster: claim.cluster,
                fence: i64::MIN,
                mark: None,
            });
            if found.cluster != claim.cluster {
                return Err(SinkError::new(SinkClass::Config, 698, "the target belongs to another cluster", ""));
            }
            if found.fence >= claim.fence {
                return Err(SinkError::new(SinkClass::Fenced, 697, "a newer owner holds the target", ""));
            }
            found.fence = claim.fence;
            *lock(&seen) = found.mark.as_ref().map(|m| m.seq.0);
            Ok(Recovered { mark: found.mark.clone() })
        })
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            atomic_position: true,
            multi_table_tx: true,
            truncate: true,
            lanes_max: 8,
            rows_max: 1 << 20,
            bytes_max: 1 << 30,
        }
    }

    fn describe<'a>(&'a mut self, names: &'a [TargetName]) -> Fut<'a, Result<Vec<Option<TargetTable>>, SinkError>> {
        self.target.call(Call::Describe, move |t| {
            Ok(names.iter().map(|n| t.tables.get(n).and_then(|table| table.shape.clone())).collect())
        })
    }

    fn lane(&mut self) -> Fut<'_, Result<Box<dyn Lane>, SinkError>> {
        let Some(claim) = self.claim.clone() else {
            return Box::pin(ready(Err(SinkError::new(SinkClass::Bug, 696, "lane before open", ""))));
        };
        let target = self.target.clone();
        let (seen, open) = (self.seen.clone(), self.open.clone());
        self.target.call(Call::Lane, move |_| {
            let no = {
                let mut locks = lock(&open);
                locks.lanes += 1;
                locks.lanes
            };
            Ok(Box::new(MemoryLane { target, claim, held: Vec::new(), seen, open, no }) as Box<dyn Lane>)
        })
    }

    fn apply_ddl<'a>(&'a mut self, step: &'a DdlStep) -> Fut<'a, Result<(), SinkError>> {
        self.target.call(Call::Ddl, move |t| {
            match step {
                DdlStep::CreateTable { name, like, .. } => {
                    let shape = TargetTable {
                        name: name.clone(),
                        columns: like.columns.iter().filter(|c| !c.generated).cloned().collect(),
                        key: like.key.iter().map(|k| like.columns[usize::from(*k)].name.clone()).collect(),
                        unique: Vec::new(),
                        foreign_keys: Vec::new(),
                        opaque: false,
                    };
                    t.tables.entry(name.clone()).or_default().shape.get_or_insert(shape);
                }
                DdlStep::AddColumns { name, columns, .. } => {
                    if let Some(shape) = t.tables.get_mut(name).and_then(|t| t.shape.as_mut()) {
                        for c in columns {
                            if !shape.columns.iter().any(|have| have.name == c.name) {
                                shape.columns.push(c.clone());
                            }
                        }
                    }
                }
                // Its rows have no columns to fill.
                DdlStep::Refill { .. } => {}
                DdlStep::DropNotNull { name, column } => {
                    let shape = t.tables.get_mut(name).and_then(|t| t.shape.as_mut());
                    if let Some(c) = shape.and_then(|s| s.columns.iter_mut().find(|c| c.name == *column)) {
                        c.nullable = Some(true);
                    }
                }
            }
            Ok(())
        })
    }

    fn shutdown(&mut self) -> Fut<'_, ()> {
        self.claim = None;
        Box::pin(ready(()))
    }
}

struct MemoryLane {
    target: MemoryTarget,
    claim: Claim,
    held: Vec<Apply>,
    seen: Arc<Mutex<Option<u64>>>,
    open: Arc<Mutex<Locks>>,
    no: u64,
}

impl MemoryLane {
    /// Takes the locks of a group; another lane that holds one of them would have been waited for.
    fn take_locks(&self, applies: &[Apply]) -> Result<(), SinkError> {
        let mut locks = lock(&self.open);
        for apply in applies {
            let row = match &apply.what {
                What::Upsert(r) | What::Update(r) | What::Delete(r) | What::InsertNew(r) | What::Retire(r) => r,
                What::Insert(_) | What::DeleteOne(_) | What::Truncate | What::Clear | What::RetireAll(_) => continue,
            };
            let Some(key) = ident::of(row, crate::batch::key_columns(&apply.table)) else { continue };
            let holder = *locks.by.entry((apply.table.target.clone(), key)).or_insert(self.no);
            if holder != self.no {
                return Err(SinkError::new(SinkClass::Bug, 692, "two open transactions write one key", ""));
            }
        }
        let mut holders: Vec<u64> = locks.by.values().copied().collect();
        holders.sort_unstable();
        holders.dedup();
        locks.most = locks.most.max(holders.len());
        let most = locks.most;
        drop(locks);
        let mut target = self.target.lock();
        target.lanes_at_once = target.lanes_at_once.max(most);
        Ok(())
    }
}

impl Drop for MemoryLane {
    fn drop(&mut self) {
        lock(&self.open).free(self.no);
    }
}

impl Lane for MemoryLane {
    fn write<'a>(&'a mut self, group: &'a Group) -> Fut<'a, Result<(), SinkError>> {
        let locked = self.take_locks(&group.applies);
        let held = &mut self.held;
        self.target.call(Call::Write, move |t| {
            locked?;
            if group.guarded || t.refuse.is_some() {
                let mut after = t.tables.clone();
                held.iter().try_for_each(|a| apply_one(&mut after, a))?;
                for apply in &group.applies {
                    if t.refuse.as_mut().is_some_and(|r| r(apply)) {
                        return Err(SinkError::new(SinkClass::Row, 693, "a value was refused", ""));
                    }
                    apply_one(&mut after, apply)?;
                }
            }
            for apply in &group.applies {
                let shape = t.tables.get(&apply.table.target).and_then(|t| t.shape.as_ref());
                let known = |name: &str| shape.is_some_and(|s| s.columns.iter().any(|c| c.name == name));
                if !apply.table.columns.iter().all(|(_, name)| known(name)) {
                    return Err(SinkError::new(SinkClass::Schema, 695, "table or column missing", ""));
                }
            }
            held.extend(group.applies.iter().cloned());
            Ok(())
        })
    }

    fn commit<'a>(&'a mut self, mark: &'a Mark) -> Fut<'a, Result<Ack, SinkError>> {
        let held = std::mem::take(&mut self.held);
        let (claim, seen, open, no) = (&self.claim, &self.seen, &self.open, self.no);
        let prev = *lock(seen);
        self.target.call(Call::Commit, move |t| {
            let Some(position) = t.positions.get(&key_of(claim)) else {
                return Err(SinkError::new(SinkClass::Bug, 694, "no position row", ""));
            };
            if position.fence != claim.fence {
                return Err(SinkError::new(SinkClass::Fenced, 697, "a newer owner holds the target", ""));
            }
            if position.mark.as_ref().map(|m| m.seq.0) != prev {
                return Err(SinkError::new(SinkClass::UnknownOutcome, 697, "the position is not where we left it", ""));
            }
            let mut after = t.tables.clone();
            for apply in &held {
                apply_one(&mut after, apply)?;
            }
            t.tables = after;
            if let Some(p) = t.positions.get_mut(&key_of(claim)) {
                p.mark = Some(mark.clone());
            }
            *lock(seen) = Some(mark.seq.0);
            lock(open).free(no);
            t.commits += 1;
            if let Some(watch) = &mut t.watch {
                watch(&t.tables, mark);
            }
            Ok(Ack::Durable)
        })
    }

    fn abort(&mut self) -> Fut<'_, ()> {
        self.held.clear();
        lock(&self.open).free(self.no);
        Box::pin(ready(()))
    }
}

fn is_sent(cell: &Cell) -> bool {
    !matches!(cell, Cell::Unavailable | Cell::Absent)
}

fn set_sent(have: &mut BTreeMap<String, Cell>, cells: BTreeMap<String, Cell>) {
    have.extend(cells.into_iter().filter(|(_, c)| is_sent(c)));
}

fn apply_one(tables: &mut BTreeMap<TargetName, Table>, apply: &Apply) -> Result<(), SinkError> {
    let plan = &apply.table;
    let table = tables.entry(plan.target.clone()).or_default();
    let cells = |row: &Row| -> BTreeMap<String, Cell> {
        plan.columns
            .iter()
            .filter_map(|(i, name)| Some((name.clone(), row.cells.get(usize::from(*i))?.clone())))
            .collect()
    };
    let row_error = |what: &str| Err(SinkError::new(SinkClass::Row, 693, what, ""));
    match &apply.what {
        What::Upsert(row) => match ident::of(row, crate::batch::key_columns(plan)) {
            Some(k) => {
                table.rows.insert(k, cells(row));
            }
            None => return row_error("upsert without a key"),
        },
        What::Update(row) => {
            let Some(k) = ident::of(row, crate::batch::key_columns(plan)) else {
                return row_error("update without a key");
            };
            let Some(have) = table.rows.get_mut(&k) else { return row_error("row missing") };
            set_sent(have, cells(row));
        }
        What::Delete(row) => {
            let Some(k) = ident::of(row, crate::batch::key_columns(plan)) else {
                return row_error("delete without a key");
            };
            table.rows.remove(&k);
        }
        What::Truncate | What::Clear => {
            table.rows.clear();
            table.bag.clear();
        }
        What::InsertNew(row) => match ident::of(row, crate::batch::key_columns(plan)) {
            Some(k) => drop(table.rows.entry(k).or_insert_with(|| cells(row))),
            None => return row_error("insert without a key"),
        },
        What::Retire(row) => {
            let Some(k) = ident::of(row, crate::batch::key_columns(plan)) else {
                return row_error("retire without a key");
            };
            if let Some(have) = table.rows.get_mut(&k) {
                set_sent(have, cells(row));
            }
        }
        What::RetireAll(row) => {
            let sent = cells(row);
            let lives = |have: &BTreeMap<String, Cell>| {
                sent.iter().all(|(n, c)| !is_sent(c) || matches!(have.get(n), None | Some(Cell::Null)))
            };
            for have in table.rows.values_mut().filter(|have| lives(have)) {
                set_sent(have, sent.clone());
            }
        }
        What::Insert(row) => table.bag.push(cells(row)),
        What::DeleteOne(row) => {
            let want = cells(row);
            match table.bag.iter().position(|r| *r == want) {
                Some(i) => {
                    table.bag.remove(i);
                }
                None => return row_error("row missing"),
            }
        }
    }
    Ok(())
}

/// A hook that strikes at random: about one call in `every`.
pub fn random_faults(mut rng: Rng, every: u64, faults: Vec<Fault>) -> Box<Hook> {
    Box::new(move |_| (rng.below(every) == 0).then(|| faults[rng.below(faults.len() as u64) as usize]))
}
