//! Compacted topics: what compaction has taken must not become a state that the source never had.

use super::*;
use crate::wire::records;
use catchwater_client::Thinned;

/// Compacts a partition below `upto` as the log does: the newest record of each key stays, a delete with its tombstone.
fn compact(cluster: &MemoryCluster, at: TopicPartition, upto: Offset) {
    let mut newest: BTreeMap<Bytes, Offset> = BTreeMap::new();
    let mut keys: BTreeMap<Offset, Bytes> = BTreeMap::new();
    for (base, bytes) in cluster.batches(at) {
        for record in records(at, base, &bytes).unwrap().0.into_iter().filter(|r| r.offset < upto) {
            let key = record.key.unwrap();
            newest.insert(key.clone(), record.offset);
            keys.insert(record.offset, key);
        }
    }
    let told = Thinned { below: upto, whole_from: upto, deletes_gone: Offset::ZERO };
    cluster.compact(at, told, &mut |offset| {
        keys.get(&offset).is_none_or(|key| offset == newest[key] || offset.plus(1) == newest[key])
    });
}

/// Accounts by number; what is moved between them never changes the sum.
struct Bank {
    cluster: MemoryCluster,
    source: TestSource,
    rng: Rng,
    accounts: BTreeMap<i64, i64>,
    history: Arc<Mutex<BTreeMap<u64, BTreeMap<i64, i64>>>>,
    compacted: BTreeMap<TopicPartition, u64>,
}

const SUM: i64 = 600;

impl Bank {
    async fn new(seed: u64) -> Bank {
        let cluster = MemoryCluster::new(seed);
        let mut source = TestSource::new(&cluster).await;
        source.table("accounts", &["id", "balance"], &["id"], 3).await;
        let mut bank = Bank {
            cluster,
            source,
            rng: Rng::new(seed),
            accounts: BTreeMap::new(),
            history: Arc::default(),
            compacted: BTreeMap::new(),
        };
        bank.source.begin();
        for id in 0..6 {
            bank.source.row("accounts", Op::Create, None, Some(&[id, 100])).await;
            bank.accounts.insert(id, 100);
        }
        bank.end(true).await;
        bank
    }

    async fn end(&mut self, full: bool) {
        self.source.cut(full).await;
        self.history.lock().unwrap().insert(self.source.seq, self.accounts.clone());
    }

    /// A transfer; now and then one account is closed, or a new one opened, with what another had.
    async fn transfer(&mut self) {
        self.source.begin();
        let ids: Vec<i64> = self.accounts.keys().copied().collect();
        let pick = |rng: &mut Rng| ids[rng.below(ids.len() as u64) as usize];
        let (from, to, how) = (pick(&mut self.rng), pick(&mut self.rng), self.rng.below(10));
        let (had, has) = (self.accounts[&from], self.accounts[&to]);
        if how == 0 && from != to && ids.len() > 3 {
            self.source.row("accounts", Op::Delete, Some(&[from, had]), None).await;
            self.source.row("accounts", Op::Update, None, Some(&[to, has + had])).await;
            self.accounts.remove(&from);
            self.accounts.insert(to, has + had);
        } else if how == 1 && !self.accounts.contains_key(&(from + 7)) {
            self.source.row("accounts", Op::Update, None, Some(&[from, 0])).await;
            self.source.row("accounts", Op::Create, None, Some(&[from + 7, had])).await;
            self.accounts.insert(from, 0);
            self.accounts.insert(from + 7, had);
        } else if from != to {
            self.source.row("accounts", Op::Update, None, Some(&[from, had - 1])).await;
            self.source.row("accounts", Op::Update, None, Some(&[to, has + 1])).await;
            self.accounts.insert(from, had - 1);
            self.accounts.insert(to, has + 1);
        }
        let full = self.rng.below(8) == 0;
        self.end(full).await;
    }

    /// Compacts one partition, or all, up to some place.
    fn compact(&mut self) {
        let ends: Vec<(TopicPartition, Offset)> = self.source.ends.iter().map(|(at, end)| (*at, *end)).collect();
        for (at, end) in ends {
            if self.rng.below(3) > 0 {
                let upto = self.compacted.entry(at).or_default();
                *upto += self.rng.below(end.0 + 1 - *upto);
                compact(&self.cluster, at, Offset(*upto));
            }
        }
    }

    /// A target that refuses to be looked at in a state that never was.
    fn target(&self) -> MemoryTarget {
        let (target, history) = (MemoryTarget::new(), self.history.clone());
        target.on_commit(Box::new(move |tables, mark| {
            let shown = tables.get(&name("accounts")).map(|t| rows(t, &["id", "balance"])).unwrap_or_default();
            let shown: BTreeMap<i64, i64> = shown.iter().map(|r| (r[0], r[1])).collect();
            let history = history.lock().unwrap();
            let want = history.range(..=mark.seq.0).next_back().map(|(_, s)| s.clone()).unwrap_or_default();
            assert_eq!(shown, want, "the target at {} is no state of the source", mark.seq);
            assert_eq!(shown.values().sum::<i64>(), SUM);
        }));
        target
    }

    fn shown(&self, target: &MemoryTarget) -> BTreeMap<i64, i64> {
        let tables = rows(&target.table(&name("accounts")), &["id", "balance"]);
        tables.iter().map(|r| (r[0], r[1])).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_begins_on_a_compacted_topic_shows_nothing_before_it_has_passed_what_was_compacted() {
    let mut bank = Bank::new(1).await;
    for _ in 0..100 {
        bank.transfer().await;
    }
    let last = bank.source.ends.clone();
    let until: Vec<(TopicPartition, Offset)> = last.iter().map(|(at, end)| (*at, Offset(end.0 / 2))).collect();
    until.iter().for_each(|(at, upto)| compact(&bank.cluster, *at, *upto));
    let target = bank.target();
    let mut c = config(1);
    c.batch.rows = 1;
    let (end, status) = run_until(deps(&bank.cluster, &target), c, |s| s.seq.0 == 101).await;
    assert_eq!((end, bank.shown(&target)), (End::Stopped, bank.accounts.clone()));
    // One transaction over what was compacted, one for each of the others.
    assert!((20..90).contains(&status.groups), "{}", status.groups);
}

#[tokio::test(start_paused = true)]
async fn compaction_before_behind_and_around_sinks_never_shows_a_state_that_never_was() {
    for seed in 0..30 {
        let mut bank = Bank::new(seed).await;
        let early = bank.target();
        let mut targets = vec![early.clone()];
        for round in 0..4u32 {
            let target = if round == 2 { bank.target() } else { early.clone() };
            if round == 2 {
                targets.push(target.clone());
            }
            let mut c = config(round + 1);
            c.sink = format!("copy{}", targets.len() - usize::from(round != 2 && targets.len() > 1)).as_str().into();
            c.batch.rows = 1 + bank.rng.below(4) as usize;
            c.credit_bytes = 300 + bank.rng.below(4_000) as usize;
            let (stop, stopped) = shutdown::channel();
            let work = Worker::run(deps(&bank.cluster, &target), c, StatusHandle::new(), stopped);
            let task = catchwater_runtime::spawn::spawn("worker", work);
            for _ in 0..40 {
                bank.transfer().await;
                if bank.rng.below(6) == 0 {
                    bank.compact();
                }
                tokio::time::sleep(Duration::from_millis(bank.rng.below(4))).await;
            }
            stop.stop();
            assert_eq!(task.join().await.unwrap(), End::Stopped, "seed {seed}");
            // While nobody reads, much happens.
            for _ in 0..40 {
                bank.transfer().await;
            }
            bank.compact();
        }
        let seq = bank.source.seq;
        for (i, target) in targets.iter().enumerate() {
            let mut c = config(9);
            c.sink = format!("copy{}", i + 1).as_str().into();
            let (end, _) = run_until(deps(&bank.cluster, target), c, |s| s.seq.0 == seq).await;
            assert_eq!((end, bank.shown(target)), (End::Stopped, bank.accounts.clone()), "seed {seed}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_stood_before_deletes_that_are_gone_must_be_rebuilt() {
    let mut bank = Bank::new(3).await;
    let target = bank.target();
    let (end, _) = run_until(deps(&bank.cluster, &target), config(1), |s| s.seq.0 == 1).await;
    assert_eq!(end, End::Stopped);
    for _ in 0..60 {
        bank.transfer().await;
    }
    let ends = bank.source.ends.clone();
    for (at, end) in ends {
        let told = Thinned { below: end, whole_from: end, deletes_gone: end };
        bank.cluster.compact(at, told, &mut |_| true);
    }
    let (end, _) = run_until(deps(&bank.cluster, &target), config(2), |s| s.seq.0 == 61).await;
    assert!(matches!(&end, End::Failed(f) if f.code.0 == code::NEEDS_REBUILD), "{end:?}");
    // One that begins anew misses nothing: the rows are gone with their deletes.
    let later = bank.target();
    let mut c = config(3);
    c.sink = "later".into();
    let (end, _) = run_until(deps(&bank.cluster, &later), c, |s| s.seq.0 == 61).await;
    assert_eq!((end, bank.shown(&later)), (End::Stopped, bank.accounts.clone()));
}
