//! Rows that the target refuses, dead letters and their replay, and the modes, from the log to a target in memory.

use super::*;
use catchwater_client::{Fetch, FetchPart, Isolation, TopicsWanted};
use catchwater_record::batch::{BatchView, iterate};
use catchwater_record::compress;

/// Records of a topic by its name, with their headers.
async fn topic(cluster: &MemoryCluster, name: &str) -> Vec<(Option<Bytes>, BTreeMap<String, String>)> {
    raw(cluster, name).await.into_iter().map(|r| (r.1, r.2)).collect()
}

async fn keyed(cluster: &MemoryCluster, name: &str) -> Vec<(Bytes, Option<Bytes>)> {
    raw(cluster, name).await.into_iter().map(|r| (r.0.unwrap_or_default(), r.1)).collect()
}

type RawOf = (Option<Bytes>, Option<Bytes>, BTreeMap<String, String>);

async fn raw(cluster: &MemoryCluster, name: &str) -> Vec<RawOf> {
    let client = cluster.client();
    let found = client.describe_topics(TopicsWanted::Names(vec![name.into()])).await.unwrap();
    let Some(topic) = found.first() else { return Vec::new() };
    let at = TopicPartition::new(topic.id, 0);
    let part = FetchPart { at, offset: Offset::ZERO, max_bytes: 16 << 20 };
    let want = Fetch {
        parts: vec![part],
        isolation: Isolation::Committed,
        min_bytes: 0,
        max_wait_ms: 0,
        credit_bytes: 1 << 20,
    };
    let mut out = Vec::new();
    for f in client.fetch(want).await.unwrap() {
        let bytes = f.batches.unwrap();
        let mut rest: &[u8] = &bytes;
        while !rest.is_empty() {
            let (view, tail) = BatchView::split(rest).unwrap();
            rest = tail;
            let section = compress::section(&view, 1 << 24).unwrap();
            for record in iterate::records(&section, view.records_count() as u32) {
                let record = record.unwrap();
                let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
                let headers = record.headers();
                let headers = headers.map(|(k, v)| (text(k), text(v.unwrap_or_default()))).collect();
                out.push((record.key.map(Bytes::copy_from_slice), record.value.map(Bytes::copy_from_slice), headers));
            }
        }
    }
    out
}

fn value_of(apply: &crate::sink::Apply, column: usize) -> i64 {
    use crate::sink::What;
    match &apply.what {
        What::Upsert(r) | What::Update(r) | What::Insert(r) | What::InsertNew(r) => match r.cells.get(column) {
            Some(Cell::Value(Value::Int(i))) => *i,
            _ => 0,
        },
        _ => 0,
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_row_and_all_of_its_key_after_it_become_dead_letters() {
    let cluster = MemoryCluster::new(11);
    let mut source = TestSource::new(&cluster).await;
    let target = MemoryTarget::new();
    // A constraint of the target: no value above 100.
    target.on_row(Some(Box::new(|apply| value_of(apply, 1) > 100)));
    source.table("t", &["id", "a"], &["id"], 1).await;
    source.begin();
    for id in 0..40 {
        source.row("t", Op::Create, None, Some(&[id, id])).await;
    }
    source.begin();
    source.row("t", Op::Update, None, Some(&[7, 700])).await;
    source.row("t", Op::Update, None, Some(&[7, 8])).await;
    source.row("t", Op::Update, None, Some(&[8, 9])).await;
    // Moves away from a parked key: its end is a dead letter, what lives on under the new one arrives.
    source.begin();
    source.row("t", Op::Update, Some(&[7, 8]), Some(&[107, 8])).await;
    source.row("t", Op::Update, None, Some(&[107, 9])).await;
    source.row("t", Op::Create, None, Some(&[50, 500])).await;
    source.cut(true).await;
    let mut c = config(1);
    c.on_row_error = OnRowError::ParkKey { most: 5, of: 1000 };
    let (end, status) = run_until(deps(&cluster, &target), c.clone(), |s| s.seq == CommitSeq(3)).await;
    assert_eq!(end, End::Stopped, "{status:?}");
    let at = |id: i64| rows(&target.table(&name("t")), &["id", "a"]).into_iter().find(|r| r[0] == id).map(|r| r[1]);
    assert_eq!(
        [at(7), at(8), at(107), at(50), at(39)],
        [Some(7), Some(9), Some(9), None, Some(39)],
        "nothing overtook"
    );
    assert_eq!((status.taken, status.rows, status.parked, status.parked_keys), (47, 43, 4, 2));
    let letters = topic(&cluster, "shop.dlq").await;
    let versions: Vec<&str> = letters.iter().map(|(_, h)| h["cw.version"].as_str()).collect();
    let mut sorted = versions.clone();
    sorted.sort_unstable();
    assert_eq!((versions.len(), &versions), (4, &sorted), "each once, in order");
    assert_eq!(letters[0].1["__connect.errors.topic"], "shop.main.t");
    assert_eq!((letters[0].1["cw.error.code"].as_str(), letters[0].1["cw.sink"].as_str()), ("CW0693", "shop.copy"));
    let (first, why) = (&letters[0].1["cw.version"], &letters[1].1["__connect.errors.exception.message"]);
    let said = format!("was refused and is parked (CW0693; its dead letter has cw.version {first})");
    assert!(why.ends_with(&said), "{why}");
    let value: String = letters[0].0.as_ref().map(|v| String::from_utf8_lossy(v).into_owned()).unwrap();
    assert!(value.contains("700"), "the record as it stands in the log: {value}");
    // Another worker reads what is parked: what the letters of 7 come to, its end, is taken, and 700 is no matter any more;
    // rows of 50 still go aside, all others arrive.
    source.begin();
    source.row("t", Op::Update, None, Some(&[50, 500])).await;
    source.row("t", Op::Update, None, Some(&[9, 10])).await;
    source.cut(false).await;
    c.epoch = TaskEpoch(2);
    let (end, status) = run_until(deps(&cluster, &target), c.clone(), |s| s.seq == CommitSeq(4)).await;
    assert_eq!((end, status.rows, status.parked), (End::Stopped, 1, 1));
    assert_eq!(topic(&cluster, "shop.dlq").await.len(), 5);
    // The target is repaired, but for one row; who begins now tries them again.
    target.on_row(Some(Box::new(|apply| value_of(apply, 1) == 500)));
    source.begin();
    source.row("t", Op::Update, None, Some(&[7, 11])).await;
    source.row("t", Op::Update, None, Some(&[50, 12])).await;
    source.cut(false).await;
    c.epoch = TaskEpoch(3);
    let (end, status) = run_until(deps(&cluster, &target), c.clone(), |s| s.seq == CommitSeq(5)).await;
    assert_eq!((end, status.rows, status.parked, status.parked_keys), (End::Stopped, 1, 1, 1));
    let all = rows(&target.table(&name("t")), &["id", "a"]);
    let at = |id: i64| all.iter().find(|r| r[0] == id).map(|r| r[1]);
    // 7 moved to 107 at its source and was made again.
    assert_eq!([at(7), at(50), at(9)], [Some(11), None, Some(10)]);
    target.on_row(None);
    c.epoch = TaskEpoch(4);
    let done = |_: &crate::Status| rows(&target.table(&name("t")), &["id", "a"]).iter().any(|r| *r == [50, 12]);
    let (end, status) = run_until(deps(&cluster, &target), c.clone(), done).await;
    assert_eq!((end, status.parked_keys), (End::Stopped, 0));
    // What was un-parked stays so.
    source.begin();
    source.row("t", Op::Update, None, Some(&[50, 13])).await;
    source.cut(false).await;
    c.epoch = TaskEpoch(5);
    let (_, status) = run_until(deps(&cluster, &target), c, |s| s.seq == CommitSeq(6)).await;
    assert_eq!((status.rows, status.parked), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn too_many_refused_rows_stop_the_sink_and_so_does_the_first_without_a_policy() {
    let cluster = MemoryCluster::new(12);
    let mut source = TestSource::new(&cluster).await;
    source.table("t", &["id", "a"], &["id"], 1).await;
    source.begin();
    for id in 0..20 {
        source.row("t", Op::Create, None, Some(&[id, 500])).await;
    }
    source.cut(true).await;
    for (policy, code) in [(OnRowError::Stop, 693), (OnRowError::ParkKey { most: 4, of: 1000 }, code::TOO_MANY_REFUSED)]
    {
        let target = MemoryTarget::new();
        target.on_row(Some(Box::new(|apply| value_of(apply, 1) > 100)));
        let mut c = config(1);
        c.on_row_error = policy;
        let (end, status) = run_until(deps(&cluster, &target), c, |_| false).await;
        assert!(matches!(&end, End::Failed(f) if f.code.0 == code), "{end:?}");
        assert_eq!((target.commits(), status.rows), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn modes_from_the_log_to_the_target() {
    let cluster = MemoryCluster::new(13);
    let mut source = TestSource::new(&cluster).await;
    source.table("t", &["id", "a"], &["id"], 1).await;
    source.begin();
    for id in 1..4 {
        source.row("t", Op::Create, None, Some(&[id, 0])).await;
    }
    source.begin();
    source.row("t", Op::Update, None, Some(&[1, 5])).await;
    source.row("t", Op::Delete, Some(&[2, 0]), None).await;
    source.row("t", Op::Delete, Some(&[3, 0]), None).await;
    source.row("t", Op::Create, None, Some(&[3, 7])).await;
    source.cut(true).await;
    let null = i64::MIN;
    for (mode, want, filtered) in [
        (Mode::Upsert, vec![vec![1, 5], vec![3, 7]], 0),
        (Mode::InsertOnce, vec![vec![1, 0], vec![2, 0], vec![3, 0]], 3),
        (Mode::SoftDelete, vec![vec![1, 5], vec![2, 0], vec![3, 7]], 0),
        (Mode::Append, vec![vec![1, 0], vec![1, 5], vec![2, 0], vec![2, 0], vec![3, 0], vec![3, 0], vec![3, 7]], 0),
    ] {
        for batch in [1, 100] {
            let target = MemoryTarget::new();
            let mut c = config(1);
            (c.mode, c.batch.rows) = (mode, batch);
            let (end, status) = run_until(deps(&cluster, &target), c, |s| s.seq == CommitSeq(2)).await;
            assert_eq!((end, status.filtered, status.taken), (End::Stopped, filtered, 7), "{mode:?}: {status:?}");
            let table = target.table(&name("t"));
            assert_eq!(rows(&table, &["id", "a"]), want, "{mode:?}");
            if mode == Mode::SoftDelete {
                let gone =
                    |r: &BTreeMap<String, Cell>| matches!(r.get("_deleted_at"), Some(Cell::Value(Value::Instant(2))));
                let ids: Vec<i64> = table
                    .rows
                    .values()
                    .filter(|r| gone(r))
                    .map(|r| if let Some(Cell::Value(Value::Int(i))) = r.get("id") { *i } else { null })
                    .collect();
                assert_eq!(ids, [2], "the one that came again lives");
            }
        }
    }
}

/// What is parked, as the log says at the end.
async fn parked(cluster: &MemoryCluster) -> BTreeMap<u128, u64> {
    let by = crate::park::ParkedBy { pipeline: "shop".into(), sink: "copy".into(), source: "main".into() };
    let mut out = BTreeMap::new();
    for (key, value) in keyed(cluster, crate::park::PARKED_TOPIC).await {
        let key = by.decode_key(&key).unwrap().unwrap().key;
        match value {
            Some(value) => out.insert(key, Since::decode(&value).unwrap().version.commit_seq.0),
            None => out.remove(&key),
        };
    }
    out
}

/// Random rows, some of them refused, with kills at every call of the sink and at any await: each key is either equal to
/// the source, or stands as it was before the transaction it is parked at, and every later change of it is a dead letter.
async fn storm(seed: u64) -> usize {
    let mut rng = Rng::new(seed);
    let cluster = MemoryCluster::new(seed);
    let mut source = TestSource::new(&cluster).await;
    let target = MemoryTarget::new();
    source.table("t", &["id", "a"], &["id"], 2).await;
    target.on_row(Some(Box::new(|apply| value_of(apply, 1) > 100)));
    let every = rng.between(5, 80);
    let mut faults = rng.fork(1);
    target.on_call(Some(Box::new(move |_| {
        (faults.below(every) == 0).then(|| match faults.below(4) {
            0 => Fault::Die { after: false },
            1 => Fault::Die { after: true },
            2 => Fault::Unknown { after: faults.below(2) == 0 },
            _ => Fault::Fail(SinkClass::Environment),
        })
    })));
    // Key → its values by transaction.
    let mut history: BTreeMap<i64, BTreeMap<u64, i64>> = BTreeMap::new();
    let mut epoch = 0;
    let mut start = |rng: &mut Rng| {
        epoch += 1;
        let mut c = config(epoch);
        c.seed = rng.next_u64();
        c.on_row_error = OnRowError::ParkKey { most: 1000, of: 1000 };
        c.batch = BatchLimits { rows: rng.between(1, 30) as usize, bytes: 1 << 20, linger_ms: rng.below(20) };
        let (stop, stopped) = shutdown::channel();
        let work = Worker::run(deps(&cluster, &target), c, StatusHandle::new(), stopped);
        (catchwater_runtime::spawn::spawn("worker", work), stop)
    };
    let mut running = start(&mut rng);
    for _ in 0..80 {
        source.begin();
        for id in 0..rng.between(1, 4) as i64 * 3 {
            let id = (id + rng.below(12) as i64) % 12;
            let a = if rng.chance(40_000) { 500 } else { rng.below(100) as i64 };
            // One change per key and transaction, so that a transaction names a state.
            if let std::collections::btree_map::Entry::Vacant(new) = history.entry(id).or_default().entry(source.seq) {
                new.insert(a);
                source.row("t", Op::Update, None, Some(&[id, a])).await;
            }
        }
        source.cut(rng.chance(50_000)).await;
        tokio::time::sleep(Duration::from_millis(rng.below(40))).await;
        if target.take_death() || running.0.is_finished() || rng.chance(50_000) {
            drop(running);
            running = start(&mut rng);
        }
    }
    target.on_call(None);
    drop(running);
    let (last, stop) = start(&mut rng);
    wait(|| target.mark("shop", "copy", "main").is_some_and(|m| m.seq.0 == source.seq)).await;
    stop.stop();
    assert_eq!(last.join().await.unwrap(), End::Stopped, "seed {seed}");
    let parked = parked(&cluster).await;
    let letters: std::collections::BTreeSet<(i64, u64)> = topic(&cluster, "shop.dlq")
        .await
        .iter()
        .map(|(value, headers)| {
            let value = String::from_utf8_lossy(value.as_ref().unwrap()).into_owned();
            let (_, id) = value.rsplit_once("\"after\":{\"id\":").unwrap();
            let id = id.split([',', '}']).next().unwrap().parse().unwrap();
            (id, u64::from_str_radix(headers["cw.version"].split('/').nth(1).unwrap(), 16).unwrap())
        })
        .collect();
    let seen: BTreeMap<i64, i64> = rows(&target.table(&name("t")), &["id", "a"]).iter().map(|r| (r[0], r[1])).collect();
    for (id, values) in &history {
        let row = Row::new(vec![Cell::Value(Value::Int(*id))]);
        let key = catchwater_base::hash::xxh3_128(&crate::ident::of(&row, [0]).unwrap());
        let since = parked.get(&key).copied();
        let want = values.range(..since.unwrap_or(u64::MAX)).next_back().map(|(_, a)| *a);
        assert_eq!(seen.get(id).copied(), want, "seed {seed}: key {id}, parked since {since:?}, {values:?}");
        for seq in since.iter().flat_map(|s| values.range(s..)).map(|(seq, _)| seq) {
            assert!(letters.contains(&(*id, *seq)), "seed {seed}: transaction {seq} of key {id} is nowhere");
        }
    }
    parked.len()
}

#[test]
fn kills_between_dead_letters_parked_keys_and_positions_lose_no_row() {
    let mut parked = 0;
    for seed in 0..25 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        parked += runtime.block_on(storm(seed));
    }
    assert!(parked > 25, "{parked} parked keys in all: the storm shows nothing");
}
