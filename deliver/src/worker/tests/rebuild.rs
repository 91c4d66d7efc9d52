//! A rebuild: the target is filled anew in one commit, or stays as it is.

use super::*;
use crate::testing::Call;
use catchwater_runtime::sync::{Sender, oneshot};

struct Running {
    status: StatusHandle,
    asks: Sender<Request>,
    stop: shutdown::Stop,
    task: catchwater_runtime::spawn::Task<End>,
}

impl Running {
    fn start(cluster: &MemoryCluster, target: &MemoryTarget, c: Config) -> Running {
        let (sender, receiver) = asks();
        let mut deps = deps(cluster, target);
        deps.asks = receiver;
        let (stop, stopped) = shutdown::channel();
        let status = StatusHandle::new();
        let work = Worker::run(deps, c, status.clone(), stopped);
        Running { status, asks: sender, stop, task: catchwater_runtime::spawn::spawn("worker", work) }
    }
    async fn rebuild(&self) -> Result<Answer, Failure> {
        let (reply, answer) = oneshot::channel();
        let request = Request { ask: Ask::Rebuild, which: Which::All, reply };
        assert!(self.asks.send(request).await.is_ok());
        answer.await.unwrap()
    }
    async fn until(&self, done: impl Fn(&crate::Status) -> bool) -> crate::Status {
        for _ in 0..20_000 {
            let status = self.status.read();
            if done(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{:?}", self.status.read());
    }
}

/// Five rows of `t`, one of them deleted and one changed, and three equal ones of a table without a key.
async fn history(cluster: &MemoryCluster) -> TestSource {
    let mut source = TestSource::new(cluster).await;
    source.table("t", &["id", "a"], &["id"], 2).await;
    source.table("bare", &["id"], &[], 1).await;
    for id in 0..5 {
        source.begin();
        source.row("t", Op::Create, None, Some(&[id, 10])).await;
        source.cut(false).await;
    }
    source.begin();
    source.row("t", Op::Delete, Some(&[4, 10]), None).await;
    source.row("t", Op::Update, None, Some(&[0, 11])).await;
    for _ in 0..3 {
        source.row("bare", Op::Create, None, Some(&[7])).await;
    }
    source.cut(true).await;
    source
}

fn is_whole(tables: &BTreeMap<TargetName, crate::testing::Table>) -> bool {
    let of = |t: &str, c: &[&str]| tables.get(&name(t)).map(|t| rows(t, c)).unwrap_or_default();
    let t = of("t", &["id", "a"]);
    t.starts_with(&[vec![0, 11], vec![1, 10], vec![2, 10], vec![3, 10]]) && of("bare", &["id"]) == [[7], [7], [7]]
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_shows_the_old_rows_until_all_new_ones_are_there() {
    let (cluster, target) = (MemoryCluster::new(3), MemoryTarget::new());
    let mut source = history(&cluster).await;
    let mut c = config(1);
    c.batch.rows = 2;
    let running = Running::start(&cluster, &target, c);
    running.until(|s| s.rows == 10 && s.lag_ms == 0).await;
    let torn = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let (seen, seqs) = (torn.clone(), Arc::new(Mutex::new(Vec::new())));
    let kept = seqs.clone();
    target.on_commit(Box::new(move |tables, mark| {
        kept.lock().unwrap().push(mark.seq);
        if !is_whole(tables) {
            seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }));
    assert_eq!(running.rebuild().await, Ok(Answer::default()));
    let done = running.until(|s| s.rebuilds == (1, 1)).await;
    assert_eq!(done.rows, 20, "all rows came again");
    // The sink goes on where the rebuild ended.
    source.begin();
    source.row("t", Op::Create, None, Some(&[9, 1])).await;
    source.cut(false).await;
    running.until(|s| s.rows == 21).await;
    assert_eq!(*seqs.lock().unwrap(), [CommitSeq(6), CommitSeq(7)], "one commit, and it does not go back");
    assert_eq!(torn.load(std::sync::atomic::Ordering::Relaxed), 0, "a reader saw a target that was not whole");
    running.stop.stop();
    assert_eq!(running.task.join().await.unwrap(), End::Stopped);
    counts_are_whole(&running.status.read());
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_that_fails_or_dies_changes_nothing() {
    let (cluster, target) = (MemoryCluster::new(4), MemoryTarget::new());
    let mut source = history(&cluster).await;
    let running = Running::start(&cluster, &target, config(1));
    running.until(|s| s.rows == 10 && s.lag_ms == 0).await;
    let commits = target.mark("shop", "copy", "main").unwrap();
    // What passes is tried again; what stops a sink gives the rebuild up, and the sink goes on.
    let mut times = 0;
    target.on_call(Some(Box::new(move |call| match call {
        Call::Write => {
            times += 1;
            Some(Fault::Fail(if times < 3 { SinkClass::Environment } else { SinkClass::Config }))
        }
        _ => None,
    })));
    assert_eq!(running.rebuild().await, Ok(Answer::default()));
    let given_up = running.until(|s| s.rebuild_failed.is_some()).await;
    assert_eq!(given_up.rebuilds, (1, 0));
    target.on_call(None);
    source.begin();
    source.row("t", Op::Create, None, Some(&[9, 1])).await;
    source.cut(false).await;
    running.until(|s| s.rows == 11).await;
    assert_eq!(commits.seq, CommitSeq(6));
    // The process dies in the middle.
    target.on_call(Some(Box::new(|call| (call == Call::Commit).then_some(Fault::Die { after: false }))));
    assert_eq!(running.rebuild().await, Ok(Answer::default()));
    running.until(|_| target.take_death()).await;
    drop(running.task);
    target.on_call(None);
    assert_eq!(rows(&target.table(&name("t")), &["id"]), [[0], [1], [2], [3], [9]]);
    let again = Running::start(&cluster, &target, config(2));
    again.until(|s| s.state == State::Running && s.lag_ms == 0).await;
    assert_eq!((again.status.read().rows, again.status.read().rebuilds), (0, (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn what_the_log_does_not_hold_is_not_rebuilt() {
    let (cluster, target) = (MemoryCluster::new(5), MemoryTarget::new());
    let _source = history(&cluster).await;
    let mut c = config(1);
    c.mode = Mode::Append;
    let running = Running::start(&cluster, &target, c);
    running.until(|s| s.rows == 10).await;
    let refused = running.rebuild().await.unwrap_err();
    assert_eq!(refused.code.to_string(), "CW0691");
    assert_eq!(running.status.read().rebuilds, (0, 0));
}
