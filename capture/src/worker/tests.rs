//! The worker over a database and a log in memory: killed at every await and crash point, with refused, unknown and late
//! appends and broken connections; then every record is there once, in order, and every cut is true.

#![allow(clippy::unwrap_used)]

use super::{Config, Deps, Limits, Worker};
use crate::emit::Limits as EmitLimits;
use crate::error::End;
use crate::status::{State, Status, StatusHandle};
use crate::testing::memory_source::{DbChange, DbRow, Fault, Habits, MemoryDb};
use catchwater_base::{Clock, Mono, Now, Rng, Wall};
use catchwater_change::checkpoint::{Stored, StoredKey};
use catchwater_change::decode::debezium_json::{self, Decoded};
use catchwater_change::json;
use catchwater_change::stamp::flag;
use catchwater_change::{Cell, Cut, Op, Row, TableSchema, Value};
use catchwater_client::memory::{AppendFault, AppendHook, CAPTURES_TOPIC, CUTS_TOPIC, MemoryCluster};
use catchwater_client::{Context, ControlClient, Why};
use catchwater_record::batch::{BatchView, Codec, iterate};
use catchwater_record::compress;
use catchwater_record::{
    Caller, CaptureEpoch, CaptureId, Incarnation, NodeId, Offset, RevisionNo, TopicId, TopicPartition,
};
use catchwater_runtime::shutdown;
use std::cell::Cell as StdCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

thread_local! {
    /// Crash points to pass before the next one kills; 0 = none does.
    static FUSE: StdCell<u64> = const { StdCell::new(0) };
    static PASSED: StdCell<u64> = const { StdCell::new(0) };
}

struct Crash;

/// Where the worker tells of its snapshot.
const TOLD: &str = "__told";

fn hook(_name: &'static str) {
    PASSED.with(|p| p.set(p.get() + 1));
    FUSE.with(|f| match f.get() {
        0 => {}
        1 => {
            f.set(0);
            resume_unwind(Box::new(Crash));
        }
        n => f.set(n - 1),
    });
}

/// The runtime's paused clock.
struct TestClock(tokio::time::Instant);

impl Clock for TestClock {
    fn now(&self) -> Now {
        let since = self.0.elapsed();
        let mono = Mono::from_nanos(since.as_nanos() as u64 + 1);
        Now { mono, wall: Wall::from_micros(1_700_000_000_000_000 + since.as_micros() as i64) }
    }
}

pub struct Bench {
    pub cluster: MemoryCluster,
    pub db: MemoryDb,
    pub capture: CaptureId,
    epoch: u32,
    clock: Arc<TestClock>,
}

fn limits(rng: &mut Rng) -> Limits {
    Limits {
        emit: EmitLimits {
            batch_bytes: 600 + rng.below(4000) as usize,
            batch_records: 1 + rng.below(8) as u32,
            record_bytes_max: 64 << 10,
            in_flight: 1 + rng.below(4) as usize,
            linger_ms: 5,
            append_timeout_ms: 2_000,
            compression: [Codec::None, Codec::Lz4, Codec::Zstd][rng.below(3) as usize],
        },
        credit_bytes: 20_000,
        replay_bytes_max: 60_000,
        read_bytes: 300 + rng.below(4000) as usize,
        txn_bytes: 200 + rng.below(4000) as usize,
        ..Limits::default()
    }
}

impl Bench {
    async fn new(seed: u64) -> Self {
        let cluster = MemoryCluster::new(seed);
        let db = MemoryDb::new(seed, &[("a", true), ("b", true), ("log", false)]);
        let who = Caller::node(NodeId(1));
        let (capture, _) = cluster.client().source(&who, "shop".into()).await.unwrap();
        Bench { cluster, db, capture, epoch: 0, clock: Arc::new(TestClock(tokio::time::Instant::now())) }
    }

    fn worker(&mut self, rng: &mut Rng, epoch: u32) -> (Worker, StatusHandle) {
        let client = self.cluster.client();
        let db = self.db.clone();
        let deps = Deps {
            log: client.clone(),
            control: client,
            clock: self.clock.clone(),
            make_source: Box::new(move || db.source()),
            seed: rng.next_u64(),
        };
        let config = Config {
            source: "shop".into(),
            capture: self.capture,
            incarnation: Incarnation(1),
            epoch: CaptureEpoch(epoch),
            who: Caller::node(NodeId(1)),
            connector: "postgresql",
            prefix: "shop".into(),
            pipeline: "p".into(),
            revision: RevisionNo(1),
            canonical: "{}".into(),
            partitions: 3,
            snapshot: crate::SnapshotMode::Initial,
            snapshot_tables: None,
            options: Default::default(),
            transaction_topic: None,
            heartbeat: None,
            // The first snapshot by one, two or three readers.
            signals: crate::signal::Signals { readers: Some(1 + rng.below(3) as u32), ..Default::default() },
            notifications: crate::notification::Channels { log: false, topic: Some(TOLD.into()) },
            creation: Default::default(),
            limits: limits(rng),
        };
        Worker::new(deps, config)
    }

    fn next_with(&mut self, rng: &mut Rng, change: impl Fn(&mut Limits)) -> (Worker, StatusHandle) {
        self.epoch += 1;
        let (mut worker, status) = self.worker(rng, self.epoch);
        change(&mut worker.config.limits);
        (worker, status)
    }

    fn next(&mut self, rng: &mut Rng) -> (Worker, StatusHandle) {
        self.epoch += 1;
        self.worker(rng, self.epoch)
    }

    /// Runs a worker while the database is written to, until it has been polled `polls` times or a crash point kills it.
    async fn run_and_kill(&mut self, rng: &mut Rng, polls: u64, writes_per_mille: u64) -> Option<End> {
        let (worker, _status) = self.next(rng);
        let (_stop, stopped) = shutdown::channel();
        let mut run: Option<Pin<Box<dyn Future<Output = End> + Send>>> = Some(Box::pin(worker.run(stopped)));
        let mut left = polls;
        let db = self.db.clone();
        std::future::poll_fn(|cx| {
            if rng.below(1000) < writes_per_mille {
                db.random_commit(rng, 6, 30);
            }
            let Some(alive) = &mut run else { return Poll::Ready(None) };
            let polled = catch_unwind(AssertUnwindSafe(|| alive.as_mut().poll(cx)));
            left = left.saturating_sub(1);
            match polled {
                Ok(Poll::Ready(end)) => Poll::Ready(Some(end)),
                Ok(Poll::Pending) if left > 0 => Poll::Pending,
                Ok(Poll::Pending) | Err(_) => {
                    run = None;
                    Poll::Ready(None)
                }
            }
        })
        .await
    }

    /// Runs without faults until everything is durable, then stops cleanly.
    async fn run_to_the_end(&mut self, rng: &mut Rng) -> End {
        self.cluster.on_append(None);
        let habits = Habits { breaks: 0, ..Habits::default() };
        self.db.set_habits(habits);
        let (worker, status) = self.next(rng);
        let (stop, stopped) = shutdown::channel();
        let run = worker.run(stopped);
        let db = self.db.clone();
        let mut run = Box::pin(run);
        let mut sent = false;
        // Fill-up needs idle places; a minute of the paused clock is plenty.
        let clock = self.clock.clone();
        let began = clock.now().mono;
        std::future::poll_fn(move |cx| {
            let s = status.get();
            let done = s.state == State::Streaming && s.native.as_postgres().is_some_and(|n| n >= db.lsn());
            let late = clock.now().mono > began.plus_millis(600_000);
            if (done || late) && !sent {
                sent = true;
                assert!(!late, "not done in time: {s:?}, database at {}", db.lsn());
                stop.stop();
            }
            run.as_mut().poll(cx)
        })
        .await
    }

    fn records(&self, topic: TopicId, partitions: u32) -> Vec<(TopicPartition, Offset, Rec)> {
        let mut out = Vec::new();
        for p in 0..partitions {
            let at = TopicPartition::new(topic, p);
            for (base, bytes) in self.cluster.batches(at) {
                let view = BatchView::new(&bytes).unwrap();
                let section = compress::section(&view, usize::MAX).unwrap();
                for r in iterate::records(&section, view.records_count() as u32) {
                    let r = r.unwrap();
                    out.push((
                        at,
                        base.plus(r.offset_delta as u64),
                        Rec {
                            key: r.key.map(<[u8]>::to_vec),
                            value: r.value.map(<[u8]>::to_vec),
                            headers: r.headers().map(|(k, v)| (k.to_vec(), v.map(<[u8]>::to_vec))).collect(),
                        },
                    ));
                }
            }
        }
        out
    }

    /// Everything in the log, for a person.
    fn dump(&self) {
        for (name, id, n) in self.cluster.topics() {
            for (at, offset, rec) in self.records(id, n) {
                if name.as_str() == CAPTURES_TOPIC {
                    let (_, key) = StoredKey::decode(rec.key.as_ref().unwrap()).unwrap();
                    let stored = Stored::decode(key, rec.value.as_ref().unwrap()).unwrap();
                    if !matches!(stored, Stored::Table(_) | Stored::Identity(_) | Stored::Config(_)) {
                        eprintln!("{name} {offset} {key:?} {stored:?}");
                    }
                } else if !matches!(name.as_str(), CUTS_TOPIC | TOLD) {
                    let headers: Vec<(&[u8], Option<&[u8]>)> =
                        rec.headers.iter().map(|(k, v)| (&k[..], v.as_deref())).collect();
                    let s = debezium_json::stamp(headers.iter().copied()).unwrap().unwrap();
                    let op = char::from(s.op);
                    eprintln!(
                        "{name} {:?} {offset} {:?} {op} flags {:x} {:?} {:?}",
                        at.partition, s.version, s.flags, s.native, s.txn
                    );
                }
            }
        }
        for txn in self.db.wal() {
            eprintln!("wal {} ends {} with {}", txn.xid, txn.end, txn.changes.len());
        }
    }

    fn check(&self) {
        let topics = self.cluster.topics();
        let by_name = |name: &str| topics.iter().find(|(n, ..)| n.as_str() == name).map(|(_, id, n)| (*id, *n));
        let mut schemas: BTreeMap<u32, Arc<TableSchema>> = BTreeMap::new();
        let (captures, n) = by_name(CAPTURES_TOPIC).unwrap();
        for (_, _, rec) in self.records(captures, n) {
            let (_, key) = StoredKey::decode(rec.key.as_ref().unwrap()).unwrap();
            if let Stored::Table(t) = Stored::decode(key, rec.value.as_ref().unwrap()).unwrap() {
                schemas.insert(t.schema.schema_no, Arc::new(t.schema));
            }
        }
        let mut all = Vec::new();
        for (name, id, n) in &topics {
            if name.as_str().starts_with("__") {
                continue;
            }
            let mut last: BTreeMap<TopicPartition, catchwater_change::Version> = BTreeMap::new();
            for (at, offset, rec) in self.records(*id, *n) {
                let headers: Vec<(&[u8], Option<&[u8]>)> =
                    rec.headers.iter().map(|(k, v)| (&k[..], v.as_deref())).collect();
                let stamp = debezium_json::stamp(headers.iter().copied()).unwrap().unwrap();
                let before = last.insert(at, stamp.version);
                assert!(before.is_none_or(|b| b < stamp.version), "{name} {at:?}: {before:?} then {:?}", stamp.version);
                let table = &schemas[&stamp.schema_no];
                let decoded = debezium_json::decode(rec.value.as_deref(), headers.iter().copied(), table).unwrap();
                all.push((stamp, at, offset, decoded));
            }
        }
        all.sort_by_key(|(stamp, ..)| stamp.version);
        self.check_transactions(&all);
        self.check_state(&all);
        self.check_cuts(&all, by_name(CUTS_TOPIC).unwrap());
        self.check_told(by_name(TOLD).unwrap());
    }

    /// Each transaction since the slot began is there once, whole, in commit order; numbers name one transaction each.
    fn check_transactions(&self, all: &[Entry]) {
        let slot = self.db.slot().unwrap();
        let mut got: Vec<(u64, String, Vec<char>)> = Vec::new();
        for (stamp, _, _, _) in all.iter().filter(|(s, ..)| !s.is_snapshot()) {
            let id = stamp.txn.as_ref().map_or(String::new(), |t| String::from_utf8(t.0.to_vec()).unwrap());
            let letter = char::from(stamp.op);
            match got.last_mut() {
                Some((seq, of, letters)) if *seq == stamp.version.commit_seq.0 => {
                    assert_eq!(*of, id, "one number, one transaction");
                    letters.push(letter);
                }
                _ => got.push((stamp.version.commit_seq.0, id, vec![letter])),
            }
            let ordinal = got.last().unwrap().2.len() as u64 - 1;
            assert_eq!(stamp.version.ordinal, ordinal, "ordinals are dense");
            if stamp.is_last() {
                assert_eq!(u64::from(stamp.total), ordinal + 1);
            }
        }
        let mut want = Vec::new();
        for txn in self.db.wal().iter().filter(|t| t.end > slot) {
            let mut letters = Vec::new();
            for (table, change) in &txn.changes {
                let keyed = !self.db.tables()[*table].key.is_empty();
                match change {
                    DbChange::Insert(_) => letters.push('c'),
                    DbChange::Update(old, new) if keyed && old.id != new.id => letters.extend(['d', 'b', 'c']),
                    DbChange::Update(..) => letters.push('u'),
                    DbChange::Delete(_) if keyed => letters.extend(['d', 'b']),
                    DbChange::Delete(_) => letters.push('d'),
                    DbChange::Truncate => letters.push('t'),
                }
            }
            if !letters.is_empty() {
                want.push((txn.xid.to_string(), letters));
            }
        }
        let got: Vec<(String, Vec<char>)> = got.into_iter().map(|(_, id, letters)| (id, letters)).collect();
        for (i, (g, w)) in got.iter().zip(&want).enumerate() {
            assert_eq!(g, w, "transaction {i} of {}", want.len());
        }
        assert_eq!(got.len(), want.len(), "number of transactions");
    }

    /// Applying everything in order gives the database; no key is in the snapshot twice.
    fn check_state(&self, all: &[Entry]) {
        let mut state: BTreeMap<(String, i64), Row> = BTreeMap::new();
        let mut snapshot: BTreeMap<(String, i64), u32> = BTreeMap::new();
        let mut bags: BTreeMap<String, Vec<Row>> = BTreeMap::new();
        for (stamp, _, _, decoded) in all {
            let Decoded::Event(event) = decoded else { continue };
            let change = &event.change;
            let name = change.table.name.clone();
            if change.table.key.is_empty() {
                let bag = bags.entry(name).or_default();
                match change.op {
                    Op::Truncate => bag.clear(),
                    _ if stamp.flags & flag::ROW_COMES != 0 => {}
                    _ => {
                        if let Some(before) = &change.before {
                            let at = bag.iter().position(|r| r == before);
                            bag.swap_remove(at.unwrap_or_else(|| panic!("{:?}: no {before:?}", stamp.version)));
                        }
                        bag.extend(change.after.clone());
                    }
                }
                continue;
            }
            let id = |row: &Row| match &row.cells[0] {
                Cell::Value(Value::Int(id)) => *id,
                other => panic!("key {other:?}"),
            };
            match change.op {
                Op::Message => panic!("a message in a topic of a table"),
                Op::Truncate => state.retain(|(table, _), _| *table != name),
                Op::Delete => drop(state.remove(&(name, id(change.before.as_ref().unwrap())))),
                Op::Create | Op::Read | Op::Update => {
                    let after = change.after.as_ref().unwrap();
                    let at = (name, id(after));
                    if change.op == Op::Read {
                        *snapshot.entry(at.clone()).or_default() += 1;
                    }
                    let old = state.get(&at).cloned();
                    let cells = after.cells.iter().enumerate().map(|(i, c)| match (c, &old) {
                        (Cell::Unavailable, Some(old)) => old.cells[i].clone(),
                        (c, _) => c.clone(),
                    });
                    let row = Row { cells: cells.collect() };
                    state.insert(at, row);
                }
            }
        }
        for (at, times) in snapshot {
            assert_eq!(times, 1, "{at:?} is in the snapshot more than once");
        }
        for (i, table) in self.db.tables().iter().enumerate().filter(|(_, t)| t.key.is_empty()) {
            let show = |id: i64, v: &str, big: &str| format!("{id} {v} {big}");
            let mut want: Vec<String> = self.db.rows(i).values().map(|r| show(r.id, &r.v, &r.big)).collect();
            let mut got: Vec<String> = bags
                .remove(&table.name)
                .unwrap_or_default()
                .iter()
                .map(|r| match &r.cells[..] {
                    [Cell::Value(Value::Int(id)), Cell::Value(Value::Text(v)), Cell::Value(Value::Text(big))] => {
                        show(*id, v.as_str(), big.as_str())
                    }
                    other => panic!("{other:?}"),
                })
                .collect();
            want.sort();
            got.sort();
            assert_eq!(got, want, "rows of {}, which has no key", table.name);
        }
        let mut want: BTreeMap<(String, i64), DbRow> = BTreeMap::new();
        for (i, table) in self.db.tables().iter().enumerate().filter(|(_, t)| !t.key.is_empty()) {
            for (id, row) in self.db.rows(i) {
                want.insert((table.name.clone(), id), row);
            }
        }
        let text = |c: &Cell| match c {
            Cell::Value(Value::Text(t)) => t.as_str().to_owned(),
            other => format!("{other:?}"),
        };
        let got: BTreeMap<(String, i64), DbRow> = state
            .into_iter()
            .map(|(at, row)| {
                let row = DbRow { id: at.1, v: text(&row.cells[1]), big: text(&row.cells[2]) };
                (at, row)
            })
            .collect();
        // A key change carries its large value only in the old row: sinks move it, this model cannot.
        let moved = |row: &DbRow| row.big == "Unavailable";
        for (at, row) in &want {
            let have = got.get(at).unwrap_or_else(|| panic!("{at:?} is missing"));
            assert_eq!(have.v, row.v, "{at:?}");
            if !moved(have) {
                assert_eq!(have.big, row.big, "{at:?}");
            }
        }
        assert_eq!(got.len(), want.len(), "number of rows");
    }

    /// Of the first snapshot nothing is lost: it ends when it has told of each table. What was told may be told again.
    fn check_told(&self, (topic, partitions): (TopicId, u32)) {
        let (mut begun, mut scanned) = (BTreeSet::new(), BTreeSet::new());
        let (mut runs, mut ends) = (false, 0);
        for (.., rec) in self.records(topic, partitions) {
            let value = rec.value.unwrap();
            let node = json::parse(&value).unwrap();
            let text = |name: &str| node.get(name).and_then(|n| n.as_str()).unwrap_or_default().to_owned();
            let data = node.get("additional_data").unwrap();
            let of = |name: &str| data.get(name).and_then(|n| n.as_str()).unwrap_or_default().to_owned();
            assert_eq!(of("connector_name"), "shop");
            match text("type").as_str() {
                "DATA_COLLECTIONS_RESOLVED" => {}
                "STARTED" => {
                    runs = true;
                    begun.clear();
                }
                "IN_PROGRESS" => drop(begun.insert(of("current_collection_in_progress"))),
                "TABLE_SCAN_COMPLETED" => {
                    assert_eq!(of("status"), "SUCCEEDED");
                    assert!(begun.contains(&of("scanned_collection")), "{begun:?}");
                    scanned.insert(of("scanned_collection"));
                }
                "COMPLETED" => {
                    assert!(begun.is_subset(&scanned), "{begun:?} began, {scanned:?} ended");
                    (runs, ends) = (false, ends + 1);
                }
                "ABORTED" => runs = false,
                "SKIPPED" => assert!(!runs && ends > 0, "skipped before there was an end"),
                other => panic!("{other}"),
            }
        }
        assert_eq!((runs, ends > 0, scanned.len()), (false, true, 3), "{scanned:?}");
    }

    /// Every cut is true, and they only move forward.
    fn check_cuts(&self, all: &[Entry], (topic, partitions): (TopicId, u32)) {
        let mut ends: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
        let mut last = 0;
        let mut seen = 0;
        for (_, _, rec) in self.records(topic, partitions) {
            let cut = Cut::decode(rec.value.as_ref().unwrap()).unwrap();
            assert!(cut.commit_seq.0 >= last, "cuts go forward: {last} then {}", cut.commit_seq);
            last = cut.commit_seq.0;
            seen += 1;
            for (at, end) in &cut.ends {
                let before = ends.insert(*at, *end);
                assert!(before.is_none_or(|b| b <= *end), "ends go forward");
            }
            for (stamp, at, offset, _) in all {
                if stamp.version.commit_seq <= cut.commit_seq {
                    let end = ends.get(at).copied().unwrap_or_default();
                    assert!(*offset < end, "cut {} says {end:?}, {at:?} has {offset:?}", cut.commit_seq);
                }
            }
        }
        assert!(seen > 0, "cuts are written");
        let newest = all.last().map_or(0, |(s, ..)| s.version.commit_seq.0);
        assert_eq!(last, newest, "the newest cut covers everything");
    }
}

type Entry = (catchwater_change::Stamp, TopicPartition, Offset, Decoded);

struct Rec {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

fn faults(seed: u64) -> Box<AppendHook> {
    let mut rng = Rng::new(seed ^ 0xfa17);
    Box::new(move |_, how| {
        let rows = matches!(&how.context, Context::Capture(c) if !c.last.is_none());
        match rng.below(if rows { 20 } else { 30 }) {
            0 => AppendFault::Refuse(Why::NoLeader),
            1 => AppendFault::Refuse(Why::NotInSync),
            2 => AppendFault::UnknownWritten,
            3 => AppendFault::UnknownLost,
            4..=9 => AppendFault::Late(1 + rng.below(30)),
            _ => AppendFault::None,
        }
    })
}

fn runtime() -> tokio::runtime::Runtime {
    catchwater_base::crash::set_hook(hook);
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// One life: several workers that are killed, one that is not.
fn life(seed: u64) {
    runtime().block_on(async {
        let mut rng = Rng::new(seed);
        let mut bench = Bench::new(seed).await;
        for _ in 0..rng.below(12) {
            bench.db.random_commit(&mut rng, 8, 30);
        }
        let resends = rng.below(2) == 0;
        for round in 0..2 + rng.below(6) {
            let breaks = if rng.below(3) == 0 { 20_000 } else { 0 };
            let visibility_lag = rng.below(4) as usize;
            bench.db.set_habits(Habits { resends, visibility_lag, breaks, ..Habits::default() });
            if rng.below(4) != 0 {
                bench.cluster.on_append(Some(faults(seed ^ round)));
            }
            // A poll is what lies between two waits: several passes of the loop.
            let most = [30, 150, 500][rng.below(3) as usize];
            let polls = 1 + rng.below(most);
            if rng.below(2) == 0 {
                FUSE.with(|f| f.set(1 + rng.below(400)));
            }
            let end = bench.run_and_kill(&mut rng, polls, 200).await;
            FUSE.with(|f| f.set(0));
            if end.is_some() && std::env::var("CAPTURE_DUMP").is_ok() {
                bench.dump();
            }
            assert!(end.is_none(), "seed {seed} round {round}: {end:?}");
        }
        let end = bench.run_to_the_end(&mut rng).await;
        assert_eq!(end, End::Stopped, "seed {seed}");
        let (confirmed, lsn) = (bench.db.confirmed(), bench.db.lsn());
        if std::env::var("CAPTURE_DUMP").is_ok() {
            bench.dump();
        }
        assert_eq!(confirmed, lsn, "a clean end confirms everything");
        bench.check();
    });
}

fn lives(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        if let Err(e) = catch_unwind(|| life(seed)) {
            eprintln!("seed {seed} failed");
            resume_unwind(e);
        }
    }
}

#[test]
fn killed_anywhere_every_transaction_is_there_once_and_in_order() {
    let seeds = std::env::var("CAPTURE_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(60);
    let from = std::env::var("CAPTURE_FROM").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    lives(from..from + seeds);
}

/// No checkpoint can come inside a transaction, so the bound on what lies above the last one must not hold it up.
#[test]
fn a_transaction_larger_than_every_bound_comes_to_its_end() {
    for seed in 0..3 {
        runtime().block_on(async {
            let mut rng = Rng::new(seed);
            let mut bench = Bench::new(seed).await;
            assert_eq!(bench.run_to_the_end(&mut rng).await, End::Stopped);
            bench.db.random_commit(&mut rng, 8, 30);
            let row = |id| DbRow { id, v: format!("value {id}"), big: "b".repeat(50) };
            bench.db.commit((1000..3000).map(|id| (0, DbChange::Insert(row(id)))).collect());
            bench.db.random_commit(&mut rng, 8, 30);
            if seed > 0 {
                FUSE.with(|f| f.set(seed * 4000));
                let end = bench.run_and_kill(&mut rng, 3000, 1).await;
                FUSE.with(|f| f.set(0));
                assert!(end.is_none(), "seed {seed}: {end:?}");
            }
            assert_eq!(bench.run_to_the_end(&mut rng).await, End::Stopped, "seed {seed}");
            bench.check();
        });
    }
}

/// A planted bug must be found by the lives above.
#[cfg(sim)]
#[test]
fn mutants_die() {
    // Without one all is well.
    lives(0..13);
    for mutant in ["confirm_before_checkpoint", "resume_compares_less_than", "gap_accepted"] {
        catchwater_base::mutant::set(mutant);
        let died = (0..60).find(|seed| catch_unwind(|| life(*seed)).is_err());
        catchwater_base::mutant::set("");
        eprintln!("mutant {mutant} dies at seed {died:?}");
        assert!(died.is_some(), "{mutant} lives");
    }
}

/// Nothing behind it is in the log, what came before it is, and it goes on when its table is left out.
#[test]
fn a_row_too_large_stops_its_source_so_that_its_table_can_be_left_out() {
    for seed in 0..20 {
        runtime().block_on(async {
            let mut rng = Rng::new(seed);
            let mut bench = Bench::new(seed).await;
            assert_eq!(bench.run_to_the_end(&mut rng).await, End::Stopped);
            let row = |id, bytes| DbRow { id, v: format!("value {id}"), big: "b".repeat(bytes) };
            // In a transaction of its own or beside others, behind some that are of its table alone.
            bench.db.commit(vec![(0, DbChange::Insert(row(1, 10)))]);
            bench.db.commit(vec![(1, DbChange::Insert(row(1, 10))), (0, DbChange::Insert(row(2, 10)))]);
            bench.db.commit(vec![(0, DbChange::Insert(row(3, 10)))]);
            let mut large = vec![(0, DbChange::Insert(row(4, 70_000)))];
            if seed % 2 == 0 {
                large.insert(0, (1, DbChange::Insert(row(2, 10))));
                large.push((1, DbChange::Insert(row(3, 10))));
            }
            bench.db.commit(large);
            for id in 10..20 {
                bench.db.commit(vec![(1, DbChange::Insert(row(id, 10)))]);
            }
            let (worker, _status) = bench.next_with(&mut rng, |limits| limits.txn_bytes = 1 << 20);
            let (_stop, stopped) = shutdown::channel();
            match worker.run(stopped).await {
                End::Failed { code, what, next } => {
                    assert_eq!(code.0, 584, "seed {seed}: {what}");
                    assert!(what.contains("a row of public.a makes a record of 7"), "{what}");
                    assert!(next.contains("leave the table out"), "{next}");
                }
                other => panic!("seed {seed}: {other:?}"),
            }
            bench.db.leave_out(0);
            assert_eq!(bench.run_to_the_end(&mut rng).await, End::Stopped, "seed {seed}");
            let topics = bench.cluster.topics();
            let (_, topic, n) = topics.iter().find(|(name, ..)| name.as_str() == "shop.public.b").unwrap();
            let ids: BTreeSet<String> =
                bench.records(*topic, *n).iter().map(|(_, _, r)| format!("{:?}", r.key)).collect();
            assert_eq!(ids.len(), if seed % 2 == 0 { 13 } else { 11 }, "seed {seed}: {ids:?}");
        });
    }
}

#[test]
fn a_zombie_ends_itself_and_writes_nothing() {
    runtime().block_on(async {
        let mut rng = Rng::new(7);
        let mut bench = Bench::new(7).await;
        bench.db.random_commit(&mut rng, 8, 30);
        let (zombie, zombie_status) = bench.next(&mut rng);
        let (_stop, stopped) = shutdown::channel();
        let zombie = catchwater_runtime::spawn::spawn("zombie", zombie.run(stopped));
        while zombie_status.get().state != State::Streaming {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        // The next holder takes over while the old one still works.
        let (heir, heir_status) = bench.next(&mut rng);
        let (stop, stopped) = shutdown::channel();
        let heir = catchwater_runtime::spawn::spawn("heir", heir.run(stopped));
        for _ in 0..20 {
            bench.db.random_commit(&mut rng, 4, 30);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(zombie.join().await, Ok(End::Fenced { by: CaptureEpoch(2) }));
        while heir_status.get().native.as_postgres().is_none_or(|n| n < bench.db.lsn()) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        stop.stop();
        assert_eq!(heir.join().await, Ok(End::Stopped));
        bench.check();
    });
}

#[test]
fn a_lone_commit_is_appended_and_cut_without_waiting_for_a_timer() {
    runtime().block_on(async {
        let mut rng = Rng::new(3);
        let mut bench = Bench::new(3).await;
        let (worker, status) = bench.next(&mut rng);
        let (stop, stopped) = shutdown::channel();
        let worker = catchwater_runtime::spawn::spawn("worker", worker.run(stopped));
        while status.get().state != State::Streaming {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let before = bench.clock.now().mono;
        bench.db.commit(vec![(0, DbChange::Insert(DbRow { id: 1, v: "a".into(), big: "b".into() }))]);
        while status.get().native.as_postgres() != Some(bench.db.lsn()) {
            tokio::task::yield_now().await;
        }
        let took = bench.clock.now().mono.since(before);
        assert!(took < std::time::Duration::from_millis(1), "{took:?} of the paused clock");
        // The cut follows within its pace, the confirmation only with the checkpoint.
        tokio::time::sleep(std::time::Duration::from_millis(15)).await;
        let topics = bench.cluster.topics();
        let (_, cuts, n) = topics.iter().find(|(name, ..)| name.as_str() == CUTS_TOPIC).unwrap();
        let newest = bench.records(*cuts, *n).last().map(|(_, _, r)| Cut::decode(r.value.as_ref().unwrap()).unwrap());
        assert_eq!(newest.unwrap().native.as_postgres(), Some(bench.db.lsn()));
        assert!(bench.db.confirmed() < bench.db.lsn(), "not before the checkpoint");
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        assert_eq!(bench.db.confirmed(), bench.db.lsn());
        stop.stop();
        assert_eq!(worker.join().await, Ok(End::Stopped));
    });
}

#[test]
fn foreign_wal_is_confirmed_on_a_quiet_source() {
    runtime().block_on(async {
        let mut rng = Rng::new(4);
        let mut bench = Bench::new(4).await;
        let (worker, status) = bench.next(&mut rng);
        let (stop, stopped) = shutdown::channel();
        let worker = catchwater_runtime::spawn::spawn("worker", worker.run(stopped));
        while status.get().state != State::Streaming {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        bench.db.other_wal(10_000_000);
        tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
        assert_eq!(bench.db.confirmed(), bench.db.lsn());
        stop.stop();
        assert_eq!(worker.join().await, Ok(End::Stopped));
    });
}

#[test]
fn a_server_that_is_down_at_the_first_start_is_waited_for_and_a_wrong_setting_is_not() {
    runtime().block_on(async {
        let mut rng = Rng::new(9);
        let mut bench = Bench::new(9).await;
        bench.db.random_commit(&mut rng, 8, 30);
        bench.db.set_habits(Habits { fault: Fault::Setting, ..Habits::default() });
        let (worker, _) = bench.next(&mut rng);
        let (_stop, stopped) = shutdown::channel();
        let end = worker.run(stopped).await;
        assert!(matches!(&end, End::Failed { what, .. } if what.contains("CW0597")), "{end:?}");
        bench.db.set_habits(Habits { fault: Fault::Unreachable, ..Habits::default() });
        let (worker, status) = bench.next(&mut rng);
        let (stop, stopped) = shutdown::channel();
        let worker = catchwater_runtime::spawn::spawn("worker", worker.run(stopped));
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        assert!(!worker.is_finished());
        let s = status.get();
        assert_eq!(s.state, State::Retrying, "{s:?}");
        assert!(s.last_error.is_some(), "{s:?}");
        bench.db.set_habits(Habits::default());
        // Units of the snapshot stand where the stream begins, which is the end here.
        let is_behind =
            |s: Status| s.state != State::Streaming || s.native.as_postgres().is_none_or(|n| n < bench.db.lsn());
        while is_behind(status.get()) {
            assert!(!worker.is_finished());
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        assert_eq!(status.get().last_error, None, "it is over");
        stop.stop();
        assert_eq!(worker.join().await, Ok(End::Stopped));
        bench.check();
    });
}

#[test]
fn a_lost_slot_stops_with_its_code() {
    runtime().block_on(async {
        let mut rng = Rng::new(5);
        let mut bench = Bench::new(5).await;
        let end = bench.run_to_the_end(&mut rng).await;
        assert_eq!(end, End::Stopped);
        bench.db.drop_slot();
        let (worker, status) = bench.next(&mut rng);
        let (_stop, stopped) = shutdown::channel();
        let end = worker.run(stopped).await;
        assert!(matches!(end, End::Failed { .. }), "{end:?}");
        assert_eq!(status.get().state, State::NeedsPerson);
    });
}

#[test]
fn keyed_topics_are_compacted_and_keyless_ones_kept_by_time() {
    runtime().block_on(async {
        let mut rng = Rng::new(6);
        let mut bench = Bench::new(6).await;
        assert_eq!(bench.run_to_the_end(&mut rng).await, End::Stopped);
        for (name, policy) in [("shop.public.a", "compact"), ("shop.public.log", "delete")] {
            let topics = bench.cluster.topics();
            let (_, id, partitions) = topics.iter().find(|(n, ..)| n.as_str() == name).unwrap();
            assert_eq!(bench.cluster.topic_configs(*id)["cleanup.policy"], policy);
            assert_eq!(*partitions, 3);
        }
    });
}
