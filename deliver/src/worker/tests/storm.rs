//! Random transactions, late and missing cuts, kills at every call of the sink before and after its effect and at any
//! await, zombies, one to four lanes: at every state a reader could see, the target is a prefix of the source's history.

use super::*;

/// What the source looked like after each transaction.
type History = Arc<Mutex<BTreeMap<u64, State_>>>;
#[derive(Clone, Default, PartialEq, Debug)]
struct State_ {
    accounts: BTreeMap<i64, i64>,
    orders: BTreeMap<i64, i64>,
    /// Keyless: one row per transaction.
    log: Vec<i64>,
}

fn check_prefix(history: &History, tables: &BTreeMap<TargetName, crate::testing::Table>, mark: &Mark) {
    let get = |t: &str, c: &[&str]| tables.get(&name(t)).map(|t| rows(t, c)).unwrap_or_default();
    let pairs = |v: Vec<Vec<i64>>| v.iter().map(|r| (r[0], r[1])).collect::<BTreeMap<i64, i64>>();
    let seen = State_ {
        accounts: pairs(get("accounts", &["id", "balance"])),
        orders: pairs(get("orders", &["id", "state"])),
        log: get("log", &["id"]).iter().map(|r| r[0]).collect(),
    };
    let history = history.lock().unwrap();
    let want = history.range(..=mark.seq.0).next_back().map(|(_, s)| s.clone()).unwrap_or_default();
    assert_eq!(seen, want, "the target at {} is no state of the source", mark.seq);
    if !seen.accounts.is_empty() {
        assert_eq!(seen.accounts.values().sum::<i64>(), 800, "torn transfer at {}", mark.seq);
    }
}

async fn storm(seed: u64) {
    let mut rng = Rng::new(seed);
    let cluster = MemoryCluster::new(seed);
    let mut source = TestSource::new(&cluster).await;
    let target = MemoryTarget::new();
    let history: History = Arc::default();
    let watched = history.clone();
    target.on_commit(Box::new(move |tables, mark| check_prefix(&watched, tables, mark)));
    source.table("accounts", &["id", "balance"], &["id"], 3).await;
    source.table("log", &["id"], &[], 1).await;
    source.first("accounts", None).await;
    source.first("log", None).await;
    // The first snapshot comes in units; the word that it is whole comes late.
    let (units, told) = (4, 4 + rng.below(6) as i64);

    target.slow(if seed % 2 == 1 { 12 } else { 0 });
    let every = rng.between(4, 60);
    let mut fault_rng = rng.fork(1);
    target.on_call(Some(Box::new(move |_| {
        (fault_rng.below(every) == 0).then(|| match fault_rng.below(6) {
            0 => Fault::Die { after: false },
            1 => Fault::Die { after: true },
            2 => Fault::Unknown { after: false },
            3 => Fault::Unknown { after: true },
            4 => Fault::Fail(SinkClass::Environment),
            _ => Fault::Fail(SinkClass::Conflict),
        })
    })));

    let mut epoch = 0;
    let mut running: Vec<(catchwater_runtime::spawn::Task<End>, shutdown::Stop)> = Vec::new();
    let mut kills = 0;
    let mut start = |running: &mut Vec<_>, rng: &mut Rng| {
        epoch += 1;
        let mut c = config(epoch);
        c.seed = rng.next_u64();
        c.batch = BatchLimits { rows: rng.between(1, 40) as usize, bytes: 1 << 20, linger_ms: rng.below(30) };
        c.credit_bytes = rng.between(200, 20_000) as usize;
        c.lanes = rng.between(1, 4) as usize;
        let (stop, stopped) = shutdown::channel();
        let work = Worker::run(deps(&cluster, &target), c, StatusHandle::new(), stopped);
        running.push((catchwater_runtime::spawn::spawn("worker", work), stop));
    };
    start(&mut running, &mut rng);

    let mut state = State_::default();
    let steps = 120;
    let mut orders_made = false;
    for step in 0..steps {
        source.begin();
        if step < units {
            for id in [step * 2, step * 2 + 1] {
                source.row("accounts", Op::Read, None, Some(&[id, 100])).await;
                state.accounts.insert(id, 100);
            }
        } else {
            let most = if rng.chance(50_000) { 60 } else { 3 };
            for _ in 0..rng.between(1, most) {
                let (from, to) = (rng.below(8) as i64, rng.below(8) as i64);
                let amount = rng.below(10) as i64;
                *state.accounts.get_mut(&from).unwrap() -= amount;
                *state.accounts.get_mut(&to).unwrap() += amount;
                for id in [from, to] {
                    source.row("accounts", Op::Update, None, Some(&[id, state.accounts[&id]])).await;
                }
                if rng.chance(100_000) {
                    tokio::time::sleep(Duration::from_millis(rng.below(30))).await;
                }
            }
            if step > 30 {
                if !orders_made {
                    source.table("orders", &["id", "state"], &["id"], 2).await;
                    orders_made = true;
                }
                let id = rng.below(6) as i64;
                if state.orders.remove(&id).is_some() && rng.chance(500_000) {
                    source.row("orders", Op::Delete, Some(&[id, 0]), None).await;
                } else {
                    state.orders.insert(id, step);
                    source.row("orders", Op::Update, None, Some(&[id, step])).await;
                }
            }
        }
        source.row("log", Op::Create, None, Some(&[step])).await;
        state.log.push(step);
        if step >= units - 1 {
            history.lock().unwrap().insert(source.seq, state.clone());
        }
        if step == told {
            source.first("accounts", Some(units as u64)).await;
            source.first("log", Some(units as u64 - 1)).await;
        }
        // Cuts come late, or never.
        if rng.chance(400_000) {
            if rng.chance(300_000) {
                tokio::time::sleep(Duration::from_millis(rng.below(60))).await;
            }
            source.cut(rng.chance(50_000)).await;
        }
        if rng.chance(300_000) {
            tokio::time::sleep(Duration::from_millis(rng.below(40))).await;
        }
        // A kill at any await, a take-over beside a living zombie, or a death inside the sink.
        if target.take_death() || rng.chance(60_000) {
            kills += 1;
            running.clear();
            start(&mut running, &mut rng);
        } else if rng.chance(30_000) {
            start(&mut running, &mut rng);
        }
        running.retain(|(task, _)| !task.is_finished());
        if running.is_empty() {
            start(&mut running, &mut rng);
        }
    }
    source.cut(true).await;
    target.on_call(None);
    running.clear();
    start(&mut running, &mut rng);
    let want = source.seq;
    for _ in 0..40_000 {
        if target.mark("shop", "copy", "main").is_some_and(|m| m.seq.0 == want) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mark = target.mark("shop", "copy", "main").unwrap_or_else(|| panic!("seed {seed}: nothing arrived"));
    assert_eq!(mark.seq.0, want, "seed {seed}: stuck; {kills} kills");
    let tables: BTreeMap<_, _> =
        ["accounts", "orders", "log"].iter().map(|t| (name(t), target.table(&name(t)))).collect();
    check_prefix(&history, &tables, &mark);
    LANES_USED.fetch_add(u64::from(target.lanes_at_once() > 1), std::sync::atomic::Ordering::Relaxed);
}

static LANES_USED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

#[test]
fn kills_zombies_and_late_cuts_never_show_a_state_that_was_not() {
    for seed in 0..40 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(storm(seed));
    }
    let used = LANES_USED.load(std::sync::atomic::Ordering::Relaxed);
    assert!(used > 0, "no storm had two groups open at the same time");
}
