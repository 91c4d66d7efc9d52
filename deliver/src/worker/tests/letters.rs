//! Dead letters and parked keys on request, unreadable ones, and letters of tables without a key under kills.

use super::*;
use crate::park::PARKED_TOPIC;
use crate::sink::What;
use catchwater_client::TopicsWanted;
use catchwater_record::ErrorCode;
use catchwater_runtime::spawn::{Task, spawn};
use catchwater_runtime::sync::{Sender, oneshot};

struct Running {
    asks: Sender<Request>,
    status: StatusHandle,
    stop: shutdown::Stop,
    task: Task<End>,
}

fn start(cluster: &MemoryCluster, target: &MemoryTarget, config: Config) -> Running {
    let (sender, receiver) = asks();
    let deps = Deps { asks: receiver, ..deps(cluster, target) };
    let status = StatusHandle::new();
    let (stop, stopped) = shutdown::channel();
    let task = spawn("worker", Worker::run(deps, config, status.clone(), stopped));
    Running { asks: sender, status, stop, task }
}

impl Running {
    async fn ask(&self, ask: Ask, which: Which) -> Result<Answer, Failure> {
        let (reply, answer) = oneshot::channel();
        assert!(self.asks.send(Request { ask, which, reply }).await.is_ok());
        answer.await.unwrap()
    }
    async fn end(self) -> End {
        self.stop.stop();
        self.task.join().await.unwrap()
    }
}

fn park(epoch: u32) -> Config {
    let mut c = config(epoch);
    c.on_row_error = OnRowError::ParkKey { most: 1000, of: 1000 };
    c
}

fn second(apply: &Apply) -> i64 {
    match &apply.what {
        What::Upsert(r) | What::Update(r) | What::Insert(r) => match r.cells.get(1) {
            Some(Cell::Value(Value::Int(i))) => *i,
            _ => 0,
        },
        _ => 0,
    }
}

fn pairs(target: &MemoryTarget) -> Vec<(i64, i64)> {
    rows(&target.table(&name("t")), &["id", "a"]).iter().map(|r| (r[0], r[1])).collect()
}

async fn partition(cluster: &MemoryCluster, name: &str) -> TopicPartition {
    let found = cluster.client().describe_topics(TopicsWanted::Names(vec![name.into()])).await.unwrap();
    TopicPartition::new(found[0].id, 0)
}

#[tokio::test(start_paused = true)]
async fn letters_are_applied_or_given_up_while_the_sink_runs() {
    let cluster = MemoryCluster::new(21);
    let mut source = TestSource::new(&cluster).await;
    let target = MemoryTarget::new();
    target.on_row(Some(Box::new(|apply| second(apply) > 100)));
    source.table("t", &["id", "a"], &["id"], 1).await;
    source.begin();
    for id in 1..6 {
        source.row("t", Op::Create, None, Some(&[id, 0])).await;
    }
    source.begin();
    for (id, a) in [(1, 500), (1, 501), (2, 600), (2, 601), (3, 700), (3, 701)] {
        source.row("t", Op::Update, None, Some(&[id, a])).await;
    }
    source.cut(true).await;
    let running = start(&cluster, &target, park(1));
    wait(|| running.status.read().parked == 6).await;
    assert_eq!(running.status.read().parked_keys, 3);
    // Nothing was repaired: nothing moves, and the answer says why.
    let answer = running.ask(Ask::Replay, Which::All).await.unwrap();
    assert_eq!((answer.keys, answer.letters, answer.kept), (0, 0, 3));
    assert_eq!(answer.refused.unwrap().code, ErrorCode(693));
    assert_eq!(pairs(&target), [(1, 0), (2, 0), (3, 0), (4, 0), (5, 0)]);
    // Repaired for two of them; one is asked for by its letter.
    target.on_row(Some(Box::new(|apply| second(apply) > 650)));
    let answer = running.ask(Ask::Replay, Which::Letter(Offset(0))).await.unwrap();
    assert_eq!((answer.keys, answer.letters, answer.kept), (1, 2, 0));
    assert_eq!(pairs(&target)[0], (1, 501));
    let answer = running.ask(Ask::Replay, Which::Table("main.t".into())).await.unwrap();
    assert_eq!((answer.keys, answer.letters, answer.kept), (1, 2, 1));
    // The third is given up: what comes later arrives, what was refused does not.
    let answer = running.ask(Ask::Discard, Which::All).await.unwrap();
    assert_eq!((answer.keys, running.status.read().parked_keys), (1, 0));
    assert_eq!(pairs(&target)[..3], [(1, 501), (2, 601), (3, 0)]);
    source.begin();
    source.row("t", Op::Update, None, Some(&[3, 9])).await;
    source.row("t", Op::Update, None, Some(&[4, 800])).await;
    source.cut(false).await;
    wait(|| running.status.read().parked == 7).await;
    assert_eq!(pairs(&target)[2..4], [(3, 9), (4, 0)]);
    let gone = running.ask(Ask::Replay, Which::Letter(Offset(99))).await.unwrap_err();
    assert_eq!(gone.code, ErrorCode(code::NO_LETTER));
    assert_eq!(running.end().await, End::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_parked_again_is_replayed_from_there() {
    let cluster = MemoryCluster::new(22);
    let mut source = TestSource::new(&cluster).await;
    let target = MemoryTarget::new();
    source.table("t", &["id", "a"], &["id"], 1).await;
    let running = start(&cluster, &target, park(1));
    for (seq, a) in [(1, 500), (2, 600)] {
        target.on_row(Some(Box::new(|apply| second(apply) > 100)));
        source.begin();
        source.row("t", Op::Update, None, Some(&[1, a])).await;
        source.cut(true).await;
        wait(|| running.status.read().parked == seq).await;
        assert_eq!(running.status.read().parked_keys, 1);
        target.on_row(None);
        let answer = running.ask(Ask::Replay, Which::All).await.unwrap();
        assert_eq!((answer.keys, answer.letters, answer.kept), (1, 1, 0), "{answer:?}");
        assert_eq!(pairs(&target), [(1, a)]);
    }
    assert_eq!(running.end().await, End::Stopped);
}

/// The target stays as it is; the source writes over the rows that were refused.
#[tokio::test(start_paused = true)]
async fn rows_repaired_at_the_source_are_taken_by_a_replay() {
    let cluster = MemoryCluster::new(24);
    let mut source = TestSource::new(&cluster).await;
    let target = MemoryTarget::new();
    target.on_row(Some(Box::new(|apply| second(apply) > 100)));
    source.table("t", &["id", "a"], &["id"], 1).await;
    source.begin();
    for id in 1..6 {
        source.row("t", Op::Create, None, Some(&[id, 500])).await;
    }
    source.cut(true).await;
    let running = start(&cluster, &target, park(1));
    wait(|| running.status.read().parked == 5).await;
    source.begin();
    source.row("t", Op::Update, None, Some(&[1, 7])).await;
    source.row("t", Op::Delete, Some(&[2, 500]), None).await;
    source.row("t", Op::Update, Some(&[3, 500]), Some(&[30, 8])).await;
    source.row("t", Op::Delete, Some(&[4, 500]), None).await;
    source.row("t", Op::Create, None, Some(&[4, 9])).await;
    source.cut(true).await;
    wait(|| running.status.read().parked == 10).await;
    let answer = running.ask(Ask::Replay, Which::All).await.unwrap();
    assert_eq!((answer.keys, answer.kept), (4, 1), "{answer:?}");
    assert_eq!(pairs(&target), [(1, 7), (4, 9), (30, 8)]);
    assert_eq!(running.end().await, End::Stopped);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_never_passed_over() {
    let cluster = MemoryCluster::new(23);
    let mut source = TestSource::new(&cluster).await;
    let target = MemoryTarget::new();
    target.on_row(Some(Box::new(|apply| second(apply) > 100)));
    source.table("t", &["id", "a"], &["id"], 1).await;
    source.begin();
    source.row("t", Op::Create, None, Some(&[1, 500])).await;
    source.row("t", Op::Create, None, Some(&[2, 500])).await;
    source.cut(true).await;
    let running = start(&cluster, &target, park(1));
    wait(|| running.status.read().parked == 2).await;
    assert_eq!(running.end().await, End::Stopped);
    target.on_row(None);
    // A second letter of the first key, damaged: the key stays parked, the other one goes.
    let first = crate::ident::of(&Row::new(vec![Cell::Value(Value::Int(1))]), [0]).unwrap();
    let key = KeyOf { table: "main.t".into(), key: catchwater_base::hash::xxh3_128(&first) };
    let keys = crate::park::encode_keys(std::slice::from_ref(&key));
    let headers = [("cw.sink", "shop.copy"), ("cw.keys", &keys), ("cw.stamp", "\u{1}damaged")]
        .map(|(k, v)| (Bytes::copy_from_slice(k.as_bytes()), Some(Bytes::copy_from_slice(v.as_bytes()))));
    source.append(partition(&cluster, "shop.dlq").await, None, Some(b"{}"), &headers).await;
    let running = start(&cluster, &target, park(2));
    wait(|| pairs(&target) == [(2, 500)]).await;
    wait(|| running.status.read().parked_keys == 1).await;
    let answer = running.ask(Ask::Replay, Which::All).await.unwrap();
    assert_eq!((answer.keys, answer.kept), (0, 1));
    assert_eq!(answer.refused.unwrap().code, ErrorCode(code::LETTER_UNREADABLE));
    assert_eq!(running.end().await, End::Stopped);
    // A parked key that nobody can read may be any: the sink stands still.
    source.append(partition(&cluster, PARKED_TOPIC).await, Some(b"\x02new"), Some(b"x"), &[]).await;
    let running = start(&cluster, &target, park(3));
    wait(|| running.task.is_finished()).await;
    let end = running.end().await;
    assert!(matches!(&end, End::Failed(f) if f.code.0 == code::PARKED_UNREADABLE), "{end:?}");
}

/// Rows of a table without a key, some refused; kills at every call of the sink, and at any await, while a person asks
/// for the letters again and again. At the end each row is there exactly as often as the source wrote it.
async fn storm(seed: u64) -> u64 {
    let mut rng = Rng::new(seed);
    let cluster = MemoryCluster::new(seed);
    let mut source = TestSource::new(&cluster).await;
    let target = MemoryTarget::new();
    source.table("t", &["id", "a"], &[], 1).await;
    let bad = |apply: &Apply| second(apply) > 100;
    target.on_row(Some(Box::new(bad)));
    let every = rng.between(4, 40);
    let mut faults = rng.fork(1);
    target.on_call(Some(Box::new(move |_| {
        (faults.below(every) == 0).then(|| match faults.below(4) {
            0 => Fault::Die { after: false },
            1 => Fault::Die { after: true },
            2 => Fault::Unknown { after: faults.below(2) == 0 },
            _ => Fault::Fail(SinkClass::Environment),
        })
    })));
    let mut epoch = 0;
    let mut begin = |rng: &mut Rng| {
        epoch += 1;
        let mut c = park(epoch);
        c.batch = BatchLimits { rows: rng.between(1, 30) as usize, bytes: 1 << 20, linger_ms: rng.below(20) };
        start(&cluster, &target, c)
    };
    let (mut running, mut want) = (begin(&mut rng), Vec::new());
    for i in 0..60 {
        source.begin();
        for _ in 0..rng.between(1, 5) {
            let a = if rng.chance(60_000) { 500 + i } else { rng.below(100) as i64 };
            let id = rng.below(4) as i64;
            want.push((id, a));
            source.row("t", Op::Create, None, Some(&[id, a])).await;
        }
        source.cut(true).await;
        tokio::time::sleep(Duration::from_millis(rng.below(40))).await;
        // The target is repaired now and then, and spoilt again.
        match rng.below(6) {
            0 => target.on_row(None),
            1 => target.on_row(Some(Box::new(bad))),
            2 => {
                let (reply, _answer) = oneshot::channel();
                let _ = running.asks.try_send(Request { ask: Ask::Replay, which: Which::All, reply });
                tokio::time::sleep(Duration::from_millis(rng.below(30))).await;
            }
            _ => {}
        }
        if target.take_death() || running.task.is_finished() || rng.chance(80_000) {
            drop(running);
            running = begin(&mut rng);
        }
    }
    target.on_call(None);
    target.on_row(None);
    drop(running);
    let running = begin(&mut rng);
    wait(|| target.mark("shop", "copy", "main").is_some_and(|m| m.seq.0 == source.seq)).await;
    let answer = running.ask(Ask::Replay, Which::All).await.unwrap();
    assert_eq!(answer.refused, None, "seed {seed}");
    assert_eq!(running.ask(Ask::Replay, Which::All).await.unwrap().letters, 0, "seed {seed}: nothing is left");
    assert_eq!(running.end().await, End::Stopped);
    want.sort_unstable();
    assert_eq!(pairs(&target), want, "seed {seed}");
    answer.letters
}

#[test]
fn letters_of_a_table_without_a_key_arrive_exactly_once() {
    let mut letters = 0;
    for seed in 0..25 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        letters += runtime.block_on(storm(seed));
    }
    assert!(letters > 25, "{letters} letters at the ends: the storm shows nothing");
}
