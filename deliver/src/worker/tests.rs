//! The worker over a log in memory and a target in memory: random transactions over three tables (one spread over
//! partitions, one without a key), late and missing cuts, kills at every call of the sink before and after its effect,
//! kills at any await, zombies. At every state a reader could see, the target is a prefix of the source's history.

use super::*;
use crate::error::code;
use crate::sink::{Mark, SinkClass};
use crate::testing::{Fault, MemoryTarget, table};
use crate::wire::ChangeWire;
use bytes::Bytes;
use catchwater_base::{Now, Rng};
use catchwater_change::checkpoint::{
    CAPTURES_TOPIC, ChunkPhase, ChunkRecord, FIRST_SNAPSHOT, Stored, StoredKey, TableRecord, WHOLE_TABLE,
};
use catchwater_change::cut::CUTS_TOPIC;
use catchwater_change::encode::debezium_json::Encoder;
use catchwater_change::stamp::flag;
use catchwater_change::{Cell, Op, Row, RowChange, SnapshotMark, SourceInfo, Stamp, TableSchema, Type, Value, Version};
use catchwater_client::memory::{MemoryClient, MemoryCluster};
use catchwater_client::{Acks, Append, AppendOutcome, Context as AppendContext, NewTopic, Owner};
use catchwater_record::batch::build::Builder;
use catchwater_record::murmur2;
use catchwater_record::{Caller, CaptureEpoch, NodeId, TopicId};
use catchwater_runtime::shutdown;
use std::sync::Mutex;

mod lag;
mod lanes;
mod letters;
mod memory;
mod rebuild;
mod refused;
mod shape;
mod storm;
mod thin;

const CAPTURE: CaptureId = CaptureId(1);
const INT: Type = Type::Int { bits: 64, unsigned: false };

/// Tokio's clock, which the tests hold still.
struct TestClock(tokio::time::Instant);
impl Clock for TestClock {
    fn now(&self) -> Now {
        let since = self.0.elapsed();
        Now { mono: Mono::ZERO.plus(since), wall: Wall::from_micros(since.as_micros() as i64) }
    }
}

/// A capture that writes what the test says.
struct TestSource {
    client: Arc<MemoryClient>,
    encoder: Encoder,
    schemas: BTreeMap<u32, Arc<TableSchema>>,
    captures: TopicPartition,
    cuts: TopicPartition,
    tables: BTreeMap<&'static str, (u32, TopicId, u32)>,
    seq: u64,
    ordinal: u64,
    ends: BTreeMap<TopicPartition, Offset>,
    said: BTreeMap<TopicPartition, Offset>,
    flags: u16,
}

impl TestSource {
    async fn new(cluster: &MemoryCluster) -> TestSource {
        let client = cluster.client();
        let who = Caller::node(NodeId(1));
        let new = |name: &str| NewTopic {
            name: name.into(),
            partitions: Some(3),
            replication: None,
            configs: vec![],
            owner: Owner::Nobody,
        };
        let made = client.create_topics(&who, vec![new(CAPTURES_TOPIC), new(CUTS_TOPIC)]).await.unwrap();
        let p = (murmur2::murmur2(&CAPTURE.0.to_be_bytes()) & 0x7fff_ffff) % 3;
        let at = |i: usize| TopicPartition::new(made[i].as_ref().unwrap().id, p);
        TestSource {
            captures: at(0),
            cuts: at(1),
            client,
            encoder: Encoder::new("sqlite", "shop"),
            schemas: BTreeMap::new(),
            tables: BTreeMap::new(),
            seq: 0,
            ordinal: 0,
            ends: BTreeMap::new(),
            said: BTreeMap::new(),
            flags: 0,
        }
    }

    async fn append(
        &self,
        at: TopicPartition,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(Bytes, Option<Bytes>)],
    ) -> Offset {
        let mut b = Builder::new();
        b.push(1000, key, value, headers.iter().map(|(k, v)| (&k[..], v.as_deref())));
        let how = Append { context: AppendContext::None, acks: Acks::All, timeout_ms: 1000 };
        match self.client.append(at, b.finish().freeze(), how).await {
            AppendOutcome::Appended { end, .. } => end,
            other => panic!("{other:?}"),
        }
    }

    /// A new table, or a new shape of one.
    async fn table(&mut self, name: &'static str, columns: &[&str], key: &[&str], partitions: u32) {
        let columns: Vec<(&str, Type)> = columns.iter().map(|c| (*c, INT)).collect();
        let mut schema = (*table("main", name, &columns, key)).clone();
        let no = self.schemas.len() as u32 + 1;
        let topic = match self.tables.get(name) {
            Some((_, topic, _)) => *topic,
            None => {
                let new = NewTopic {
                    name: format!("shop.main.{name}").into(),
                    partitions: Some(partitions),
                    replication: None,
                    configs: vec![],
                    owner: Owner::Capture(CAPTURE, CaptureEpoch(1)),
                };
                let made = self.client.create_topics(&Caller::node(NodeId(1)), vec![new]).await.unwrap();
                made[0].as_ref().unwrap().id
            }
        };
        schema.schema_no = no;
        schema.topic = topic;
        schema.table_no = self.table_no(name);
        self.tables.insert(name, (no, topic, partitions));
        self.schemas.insert(no, Arc::new(schema.clone()));
        let version = Version { incarnation: Incarnation(0), commit_seq: CommitSeq(self.seq), ordinal: self.ordinal };
        let key = StoredKey::Table { schema_no: no };
        let record = Stored::Table(TableRecord { schema, from: version, flags: 0 });
        self.append(self.captures, Some(&key.encode(CAPTURE)), Some(&record.encode()), &[]).await;
    }

    /// A number of its own for each name.
    fn table_no(&self, name: &str) -> u32 {
        name.bytes().fold(7, |n, b| n * 31 % 65_521 + u32::from(b))
    }

    /// What the capture says of a table of its first snapshot.
    async fn first(&mut self, name: &'static str, whole: Option<u64>) {
        let key = StoredKey::Chunk { snapshot: FIRST_SNAPSHOT, table: self.table_no(name), unit: WHOLE_TABLE };
        let record = Stored::Chunk(ChunkRecord {
            phase: if whole.is_some() { ChunkPhase::Finished } else { ChunkPhase::Planned },
            method: 0,
            flags: 0,
            incarnation: Incarnation(0),
            commit_seq: CommitSeq(whole.unwrap_or(0)),
            schema_no: self.tables[name].0,
            rows: 0,
            lower: vec![],
            upper: vec![],
            view: Bytes::new(),
            filter: String::new(),
        });
        self.append(self.captures, Some(&key.encode(CAPTURE)), Some(&record.encode()), &[]).await;
    }

    fn begin(&mut self) {
        self.seq += 1;
        self.ordinal = 0;
    }

    async fn row(&mut self, name: &str, op: Op, before: Option<&[i64]>, after: Option<&[i64]>) {
        let (no, topic, partitions) = self.tables[name];
        let id = after.or(before).map_or(0, |r| r[0]);
        let at = TopicPartition::new(topic, id.unsigned_abs() as u32 % partitions);
        let row = |r: &[i64]| Row::new(r.iter().map(|v| Cell::Value(Value::Int(*v))).collect());
        let change = RowChange {
            table: self.schemas[&no].clone(),
            op,
            before: before.map(row),
            after: after.map(row),
            snapshot: SnapshotMark::No,
            info: SourceInfo::None,
        };
        for piece in self.encoder.pieces(&change) {
            let stamp = Stamp {
                op: Encoder::letter(&change, *piece),
                flags: self.flags,
                version: Version {
                    incarnation: Incarnation(0),
                    commit_seq: CommitSeq(self.seq),
                    ordinal: self.ordinal,
                },
                total: 0,
                source: CAPTURE,
                commit_time: Wall::from_micros(self.seq as i64),
                schema_no: no,
                native: Native::sqlite(self.seq),
                txn: None,
            };
            self.ordinal += 1;
            let e = self.encoder.encode(&change, *piece, stamp, Wall::from_micros(0)).unwrap();
            let end = self.append(at, e.key.as_deref(), e.value.as_deref(), &e.headers).await;
            self.ends.insert(at, end);
        }
    }

    async fn cut(&mut self, full: bool) {
        let ends = self.ends.iter().filter(|(at, end)| full || self.said.get(at) != Some(end));
        let cut = Cut {
            incarnation: Incarnation(0),
            commit_seq: CommitSeq(self.seq),
            native: Native::sqlite(self.seq),
            commit_time: Wall::from_micros(self.seq as i64),
            written: Wall::from_micros(self.seq as i64),
            full,
            ends: ends.map(|(at, end)| (*at, *end)).collect(),
        };
        self.said = self.ends.clone();
        self.append(self.cuts, Some(&Cut::key(CAPTURE)), Some(&cut.encode()), &[]).await;
    }
}

fn config(epoch: u32) -> Config {
    let mut c = Config::new("shop".into(), "copy".into(), "main".into(), CAPTURE);
    c.epoch = TaskEpoch(epoch);
    c.naming = SchemaNaming::Into(String::new());
    c
}
fn deps(cluster: &MemoryCluster, target: &MemoryTarget) -> Deps {
    let client = cluster.client();
    Deps {
        log: client.clone(),
        control: client,
        clock: Arc::new(TestClock(tokio::time::Instant::now())),
        sink: Box::new(target.sink()),
        wire: Arc::new(ChangeWire),
        asks: asks().1,
    }
}
fn name(table: &str) -> TargetName {
    TargetName { schema: String::new(), name: table.into() }
}
/// Rows of a table as numbers.
fn rows(table: &crate::testing::Table, columns: &[&str]) -> Vec<Vec<i64>> {
    let mut out: Vec<Vec<i64>> = table
        .rows
        .values()
        .chain(&table.bag)
        .map(|r| {
            columns
                .iter()
                .map(|c| match r.get(*c) {
                    Some(Cell::Value(Value::Int(i))) => *i,
                    _ => i64::MIN,
                })
                .collect()
        })
        .collect();
    out.sort();
    out
}

/// Runs `worker` until `done`, then stops it.
async fn run_until(deps: Deps, config: Config, done: impl Fn(&crate::Status) -> bool) -> (End, crate::Status) {
    let status = StatusHandle::new();
    let (stop, stopped) = shutdown::channel();
    let task = catchwater_runtime::spawn::spawn("worker", Worker::run(deps, config, status.clone(), stopped));
    for _ in 0..20_000 {
        if task.is_finished() || done(&status.read()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.stop();
    let end = task.join().await.unwrap();
    counts_are_whole(&status.read());
    (end, status.read())
}

#[tokio::test(start_paused = true)]
async fn rows_arrive_once_their_cut_does_and_a_restart_goes_on() {
    let cluster = MemoryCluster::new(1);
    let mut source = TestSource::new(&cluster).await;
    let target = MemoryTarget::new();
    source.table("t", &["id", "a"], &["id"], 2).await;
    source.begin();
    for id in 0..4 {
        source.row("t", Op::Create, None, Some(&[id, 10])).await;
    }
    source.cut(true).await;
    source.begin();
    source.row("t", Op::Update, None, Some(&[1, 11])).await;
    // No cut for the second transaction yet.
    let (end, status) = run_until(deps(&cluster, &target), config(1), |s| s.rows == 4).await;
    assert_eq!(end, End::Stopped);
    assert_eq!((status.rows, status.seq), (4, CommitSeq(1)));
    assert_eq!(rows(&target.table(&name("t")), &["id", "a"]), [[0, 10], [1, 10], [2, 10], [3, 10]]);
    source.cut(false).await;
    let (_, status) = run_until(deps(&cluster, &target), config(2), |s| s.rows == 1).await;
    assert_eq!((status.rows, status.lag_ms), (1, 0).max((1, status.lag_ms)));
    assert_eq!(rows(&target.table(&name("t")), &["id", "a"])[1], [1, 11]);
    assert_eq!(target.mark("shop", "copy", "main").unwrap().seq, CommitSeq(2));
}

#[tokio::test(start_paused = true)]
async fn new_tables_new_columns_and_a_subset() {
    let cluster = MemoryCluster::new(2);
    let mut source = TestSource::new(&cluster).await;
    let target = MemoryTarget::new();
    source.table("a", &["id", "x"], &["id"], 1).await;
    source.table("left_out", &["id"], &["id"], 1).await;
    source.begin();
    source.row("a", Op::Create, None, Some(&[1, 1])).await;
    source.row("left_out", Op::Create, None, Some(&[1])).await;
    source.cut(false).await;
    let mut c = config(1);
    c.tables = TableFilter::Named(vec!["a".into(), "b*".into()]);
    let status = StatusHandle::new();
    let (stop, stopped) = shutdown::channel();
    let work = Worker::run(deps(&cluster, &target), c, status.clone(), stopped);
    let task = catchwater_runtime::spawn::spawn("worker", work);
    let until = async |n: u64| {
        while status.read().rows < n {
            assert!(!task.is_finished(), "{:?}", status.read());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    until(1).await;
    // A table that did not exist, and a column that did not.
    source.table("b2", &["id", "y"], &["id"], 2).await;
    source.table("a", &["id", "x", "z"], &["id"], 1).await;
    source.begin();
    source.row("b2", Op::Create, None, Some(&[1, 5])).await;
    source.row("a", Op::Update, None, Some(&[1, 2, 3])).await;
    source.row("left_out", Op::Create, None, Some(&[2])).await;
    source.cut(false).await;
    until(3).await;
    assert_eq!(rows(&target.table(&name("a")), &["id", "x", "z"]), [[1, 2, 3]]);
    assert_eq!(rows(&target.table(&name("b2")), &["id", "y"]), [[1, 5]]);
    assert!(target.table(&name("left_out")).shape.is_none());
    stop.stop();
    assert_eq!(task.join().await.unwrap(), End::Stopped);
    // The mirror shows what is applied.
    tokio::time::sleep(Duration::from_secs(2)).await;
    // The same sink with the table that was left out: its old rows are missing, so it must not go on quietly.
    source.begin();
    source.row("a", Op::Update, None, Some(&[1, 9, 9])).await;
    source.cut(true).await;
    let (end, _) = run_until(deps(&cluster, &target), config(2), |_| false).await;
    let End::Failed(f) = &end else { panic!("{end:?}") };
    assert_eq!(f.code.0, code::LATE_TABLE);
    assert!(f.what.starts_with("table ") && !f.what.contains('{'), "a person knows tables: {}", f.what);
}

#[tokio::test(start_paused = true)]
async fn failures_by_class() {
    let cluster = MemoryCluster::new(3);
    let mut source = TestSource::new(&cluster).await;
    source.table("t", &["id"], &["id"], 1).await;
    source.begin();
    source.row("t", Op::Create, None, Some(&[1])).await;
    source.cut(true).await;
    for (class, count, want) in [
        (SinkClass::Environment, 5, Ok(())),
        (SinkClass::Conflict, 3, Ok(())),
        (SinkClass::UnknownOutcome, 2, Ok(())),
        (SinkClass::Schema, 1, Ok(())),
        (SinkClass::Schema, 2, Err("stopped")),
        (SinkClass::Row, 1, Ok(())),
        (SinkClass::Row, 2, Err("stopped")),
        (SinkClass::Config, 1, Err("stopped")),
        (SinkClass::Bug, 1, Err("stopped")),
        (SinkClass::Fenced, 1, Err("fenced")),
    ] {
        let target = MemoryTarget::new();
        let mut left = count;
        target.on_call(Some(Box::new(move |call| {
            (call == crate::testing::Call::Write && left > 0).then(|| {
                left -= 1;
                Fault::Fail(class)
            })
        })));
        let (end, status) = run_until(deps(&cluster, &target), config(1), |s| s.rows == 1).await;
        let got = match end {
            End::Stopped if status.rows == 1 => Ok(()),
            End::Failed(_) => Err("stopped"),
            End::Fenced => Err("fenced"),
            other => panic!("{class:?} {other:?} {status:?}"),
        };
        assert_eq!(got, want, "{class:?} × {count}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_ahead_of_the_log_or_of_another_incarnation_stops() {
    let cluster = MemoryCluster::new(4);
    let mut source = TestSource::new(&cluster).await;
    let target = MemoryTarget::new();
    source.table("t", &["id"], &["id"], 1).await;
    source.begin();
    source.row("t", Op::Create, None, Some(&[1])).await;
    source.cut(true).await;
    let (end, _) = run_until(deps(&cluster, &target), config(1), |s| s.rows == 1).await;
    assert_eq!(end, End::Stopped);
    let mark = target.mark("shop", "copy", "main").unwrap();
    let mut far = mark.clone();
    far.offsets[0].1 = Offset(99);
    target.set_mark("shop", "copy", "main", far);
    let (end, _) = run_until(deps(&cluster, &target), config(2), |_| false).await;
    assert!(matches!(&end, End::Failed(f) if f.code.0 == code::SINK_AHEAD), "{end:?}");
    target.set_mark("shop", "copy", "main", Mark { incarnation: Incarnation(4), ..mark });
    let (end, _) = run_until(deps(&cluster, &target), config(3), |_| false).await;
    assert!(matches!(&end, End::Failed(f) if f.code.0 == code::OTHER_INCARNATION), "{end:?}");
}

/// Until it is so; the worker's turns are short, so the first moment is seen.
async fn wait(done: impl Fn() -> bool) {
    for _ in 0..200_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
    panic!("it never is");
}

#[tokio::test(start_paused = true)]
async fn tables_without_rows_exist_at_the_target_too() {
    let cluster = MemoryCluster::new(5);
    let mut source = TestSource::new(&cluster).await;
    let target = MemoryTarget::new();
    source.table("t", &["id"], &["id"], 1).await;
    source.table("empty", &["id", "a"], &["id"], 2).await;
    source.table("empty", &["id", "a", "b"], &["id"], 2).await;
    source.table("left_out", &["id"], &["id"], 1).await;
    // Another shape of the key there: its first row will say so, and only its first row.
    source.table("odd", &["id", "a"], &["id"], 1).await;
    let odd = table("", "odd", &[("id", INT), ("a", INT)], &["a"]);
    let odd = TargetTable {
        name: name("odd"),
        columns: odd.columns.clone(),
        key: vec!["a".into()],
        unique: vec![],
        foreign_keys: vec![],
        opaque: false,
    };
    target.create(odd.clone());
    let mut c = config(1);
    c.tables = TableFilter::Named(vec!["t".into(), "empty".into(), "late".into(), "odd".into()]);
    let status = StatusHandle::new();
    let (stop, stopped) = shutdown::channel();
    let work = Worker::run(deps(&cluster, &target), c, status.clone(), stopped);
    let task = catchwater_runtime::spawn::spawn("worker", work);
    let columns = |t: &str| -> Option<Vec<String>> {
        Some(target.table(&name(t)).shape?.columns.iter().map(|c| c.name.clone()).collect())
    };
    let until = async |t: &str, n: usize| {
        wait(|| columns(t).is_some_and(|c| c.len() >= n) || task.is_finished()).await;
        assert!(!task.is_finished(), "{:?}", status.read());
    };
    until("empty", 3).await;
    assert_eq!((status.read().rows, target.commits()), (0, 0), "no row was waited for");
    assert!(columns("t").is_some() && columns("left_out").is_none());
    // A new table, then a new column of it, while nothing happens.
    source.table("late", &["id"], &["id"], 1).await;
    until("late", 1).await;
    source.table("late", &["id", "x"], &["id"], 1).await;
    until("late", 2).await;
    // A topic that is gone has no table any more.
    let (_, gone, _) = source.tables["late"];
    source.begin();
    source.row("t", Op::Create, None, Some(&[1])).await;
    source.cut(true).await;
    wait(|| status.read().rows == 1).await;
    stop.stop();
    assert_eq!(task.join().await.unwrap(), End::Stopped);
    let who = Caller::node(NodeId(1));
    let client = cluster.client();
    let deleted = client.delete_topics(&who, vec![gone]).await.unwrap();
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    let other = MemoryTarget::new();
    other.create(odd);
    let (end, _) = run_until(deps(&cluster, &other), config(2), |s| s.rows == 1).await;
    assert_eq!(end, End::Stopped);
    assert!(other.table(&name("late")).shape.is_none() && other.table(&name("empty")).shape.is_some());
    // The odd one stops the sink with its first row.
    source.begin();
    source.row("odd", Op::Create, None, Some(&[1, 1])).await;
    source.cut(false).await;
    let (end, _) = run_until(deps(&cluster, &other), config(3), |_| false).await;
    assert!(matches!(&end, End::Failed(f) if f.code.0 == code::KEY), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn a_table_that_comes_inside_an_open_sink_transaction_waits_for_its_end() {
    let cluster = MemoryCluster::new(6);
    let mut source = TestSource::new(&cluster).await;
    let target = MemoryTarget::new();
    source.table("t", &["id"], &["id"], 1).await;
    source.begin();
    for id in 0..10 {
        source.row("t", Op::Create, None, Some(&[id])).await;
    }
    let calls: Arc<Mutex<Vec<crate::testing::Call>>> = Arc::default();
    let seen = calls.clone();
    target.on_call(Some(Box::new(move |call| {
        seen.lock().unwrap().push(call);
        None
    })));
    let mut c = config(1);
    c.batch.rows = 2;
    // The cut is there, half of the rows are fetched at a time.
    c.credit_bytes = 300;
    source.cut(true).await;
    let status = StatusHandle::new();
    let (stop, stopped) = shutdown::channel();
    let task =
        catchwater_runtime::spawn::spawn("worker", Worker::run(deps(&cluster, &target), c, status.clone(), stopped));
    wait(|| calls.lock().unwrap().contains(&crate::testing::Call::Write)).await;
    source.table("late", &["id"], &["id"], 1).await;
    wait(|| target.table(&name("late")).shape.is_some()).await;
    stop.stop();
    assert_eq!(task.join().await.unwrap(), End::Stopped);
    let calls = calls.lock().unwrap();
    let first = calls.iter().position(|c| *c == crate::testing::Call::Write).unwrap();
    let commit = calls.iter().position(|c| *c == crate::testing::Call::Commit).unwrap();
    let inside = &calls[first..commit];
    assert!(inside.iter().all(|c| *c == crate::testing::Call::Write), "{calls:?}");
    assert!(inside.len() >= 4, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_table_without_a_key_that_begins_again_ends_equal() {
    let cluster = MemoryCluster::new(8);
    let mut source = TestSource::new(&cluster).await;
    let target = MemoryTarget::new();
    source.table("bag", &["id"], &[], 1).await;
    source.table("t", &["id"], &["id"], 1).await;
    // A first part of its snapshot, then the kill; the stream goes on and speaks of rows that never came.
    source.begin();
    source.row("bag", Op::Read, None, Some(&[1])).await;
    source.row("bag", Op::Read, None, Some(&[1])).await;
    source.begin();
    source.flags = flag::ROW_COMES;
    source.row("bag", Op::Delete, Some(&[7]), None).await;
    source.row("bag", Op::Update, Some(&[8]), Some(&[9])).await;
    source.row("bag", Op::Create, None, Some(&[5])).await;
    source.row("t", Op::Create, None, Some(&[5])).await;
    source.begin();
    source.flags = flag::SNAPSHOT;
    source.row("bag", Op::Truncate, None, None).await;
    for id in [1, 1, 5, 9] {
        source.row("bag", Op::Read, None, Some(&[id])).await;
    }
    source.cut(true).await;
    let (end, status) = run_until(deps(&cluster, &target), config(1), |s| s.seq == CommitSeq(3)).await;
    assert_eq!(end, End::Stopped, "{status:?}");
    assert_eq!(rows(&target.table(&name("bag")), &["id"]), [[1], [1], [5], [9]]);
    assert_eq!(rows(&target.table(&name("t")), &["id"]), [[5]]);
}

/// A target whose calls of one kind are counted.
fn counted(target: &MemoryTarget, what: crate::testing::Call) -> Arc<Mutex<u64>> {
    let count: Arc<Mutex<u64>> = Arc::default();
    let counts = count.clone();
    target.on_call(Some(Box::new(move |call| {
        *counts.lock().unwrap() += u64::from(call == what);
        None
    })));
    count
}

#[tokio::test(start_paused = true)]
async fn the_first_snapshot_is_one_transaction_of_the_sink() {
    let cluster = MemoryCluster::new(9);
    let mut source = TestSource::new(&cluster).await;
    let target = MemoryTarget::new();
    source.table("a", &["id", "x"], &["id"], 1).await;
    source.table("b", &["id"], &["id"], 1).await;
    source.table("left_out", &["id"], &["id"], 1).await;
    for t in ["a", "b", "left_out"] {
        source.first(t, None).await;
    }
    let mut c = config(1);
    c.tables = TableFilter::Named(vec!["a".into(), "b".into()]);
    c.batch.rows = 3;
    let status = StatusHandle::new();
    let (stop, stopped) = shutdown::channel();
    let writes = counted(&target, crate::testing::Call::Write);
    let work = Worker::run(deps(&cluster, &target), c, status.clone(), stopped);
    let task = catchwater_runtime::spawn::spawn("worker", work);
    for unit in 0..4 {
        source.begin();
        for id in 0..5 {
            source.row("a", Op::Read, None, Some(&[unit * 5 + id, 0])).await;
        }
        source.cut(unit == 0).await;
    }
    source.first("a", Some(4)).await;
    // One table is whole, the other is not: what the source never was is written, and not shown.
    wait(|| *writes.lock().unwrap() >= 4).await;
    source.begin();
    source.row("a", Op::Update, None, Some(&[3, 9])).await;
    source.begin();
    source.row("b", Op::Read, None, Some(&[1])).await;
    source.cut(false).await;
    wait(|| *writes.lock().unwrap() >= 5).await;
    assert_eq!((target.commits(), status.read().state), (0, State::Snapshot));
    assert!(target.table(&name("a")).rows.is_empty() && target.mark("shop", "copy", "main").is_none());
    // Whole from 6 on; the source is quiet after that, and the table we do not take is never ready.
    source.first("b", Some(6)).await;
    wait(|| status.read().rows == 22).await;
    assert_eq!((target.commits(), target.mark("shop", "copy", "main").unwrap().seq), (1, CommitSeq(6)));
    assert_eq!(rows(&target.table(&name("a")), &["id", "x"])[3], [3, 9]);
    // From here on each group is a state of its own again.
    source.begin();
    source.row("b", Op::Create, None, Some(&[2])).await;
    source.cut(false).await;
    wait(|| status.read().rows == 23).await;
    assert_eq!(target.commits(), 2);
    stop.stop();
    assert_eq!(task.join().await.unwrap(), End::Stopped);
    // A sink that comes later reads the same log, and shows as little of it.
    let later = MemoryTarget::new();
    later.on_commit(Box::new(|_, mark| assert!(mark.seq >= CommitSeq(6), "{:?}", mark.seq)));
    let mut c = config(2);
    c.batch.rows = 1;
    c.tables = TableFilter::Named(vec!["a".into(), "b".into()]);
    let (end, status) = run_until(deps(&cluster, &later), c, |s| s.rows == 23).await;
    assert_eq!((end, status.rows), (End::Stopped, 23));
}

/// `catchwater wait` would take it for reached: the target has nothing of what the source held before.
#[tokio::test(start_paused = true)]
async fn a_cut_before_the_first_snapshot_is_whole_is_no_position() {
    let cluster = MemoryCluster::new(11);
    let mut source = TestSource::new(&cluster).await;
    let target = MemoryTarget::new();
    source.table("a", &["id"], &["id"], 1).await;
    source.first("a", None).await;
    source.cut(true).await;
    let status = StatusHandle::new();
    let (stop, stopped) = shutdown::channel();
    let work = Worker::run(deps(&cluster, &target), config(1), status.clone(), stopped);
    let task = catchwater_runtime::spawn::spawn("worker", work);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(status.read().position, Native::default());
    source.begin();
    source.row("a", Op::Read, None, Some(&[1])).await;
    source.cut(false).await;
    source.first("a", Some(1)).await;
    wait(|| status.read().rows == 1).await;
    assert_ne!(status.read().position, Native::default());
    stop.stop();
    assert_eq!(task.join().await.unwrap(), End::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_first_snapshot_that_stalls_leaves_no_open_transaction_behind() {
    let cluster = MemoryCluster::new(10);
    let mut source = TestSource::new(&cluster).await;
    let target = MemoryTarget::new();
    source.table("a", &["id"], &["id"], 1).await;
    source.first("a", None).await;
    source.begin();
    source.row("a", Op::Read, None, Some(&[1])).await;
    source.cut(true).await;
    let opens = counted(&target, crate::testing::Call::Open);
    let status = StatusHandle::new();
    let (stop, stopped) = shutdown::channel();
    let work = Worker::run(deps(&cluster, &target), config(1), status.clone(), stopped);
    let task = catchwater_runtime::spawn::spawn("worker", work);
    wait(|| status.read().state == State::Snapshot).await;
    // Given back after a while, and then the sink waits without one.
    wait(|| *opens.lock().unwrap() == 2).await;
    let writes = counted(&target, crate::testing::Call::Write);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!((*writes.lock().unwrap(), target.commits()), (0, 0));
    source.begin();
    source.row("a", Op::Read, None, Some(&[2])).await;
    source.cut(false).await;
    source.first("a", Some(2)).await;
    wait(|| status.read().rows == 2).await;
    assert_eq!(target.commits(), 1);
    stop.stop();
    assert_eq!(task.join().await.unwrap(), End::Stopped);
}

fn counts_are_whole(s: &crate::Status) {
    assert_eq!(s.taken, s.rows + s.parked + s.filtered, "rows in = applied + parked + filtered: {s:?}");
}
