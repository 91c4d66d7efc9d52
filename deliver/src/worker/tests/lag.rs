//! The lag while a sink stands still, tries again, and is through.

use super::*;
use crate::lag::Way;
use crate::testing::Call;

struct Running {
    status: StatusHandle,
    clock: Arc<TestClock>,
    stop: shutdown::Stop,
    task: catchwater_runtime::spawn::Task<End>,
}

impl Running {
    fn start(cluster: &MemoryCluster, target: &MemoryTarget, lanes: usize) -> Running {
        let (mut deps, mut c) = (deps(cluster, target), config(1));
        let clock = Arc::new(TestClock(tokio::time::Instant::now()));
        deps.clock = clock.clone();
        c.lanes = lanes;
        let (stop, stopped) = shutdown::channel();
        let status = StatusHandle::new();
        let work = Worker::run(deps, c, status.clone(), stopped);
        Running { status, clock, stop, task: catchwater_runtime::spawn::spawn("worker", work) }
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
    fn lag_us(&self) -> u64 {
        self.status.read().lag(self.clock.now().wall).iter().sum()
    }
}

async fn one_row(cluster: &MemoryCluster) -> TestSource {
    let mut source = TestSource::new(cluster).await;
    source.table("t", &["id"], &["id"], 1).await;
    source.begin();
    source.row("t", Op::Create, None, Some(&[1])).await;
    source.cut(true).await;
    source
}

/// The row is of second 0 of the test clock: its age is what the clock shows.
async fn grows(running: &Running, stage: usize) {
    let first = running.lag_us();
    tokio::time::sleep(Duration::from_secs(40)).await;
    let second = running.lag_us();
    assert!(second >= first + 39_000_000, "{first} then {second} after 40 s: {:?}", running.status.read());
    let stages = running.status.read().lag(running.clock.now().wall);
    assert!(stages[stage] >= 39_000_000, "not in the stage that it stands in: {stages:?}");
}

#[tokio::test(start_paused = true)]
async fn the_lag_grows_while_the_target_fails_and_is_gone_afterwards() {
    for lanes in [1, 4] {
        let (cluster, target) = (MemoryCluster::new(7), MemoryTarget::new());
        let mut source = one_row(&cluster).await;
        target.on_call(Some(Box::new(|call| (call == Call::Write).then_some(Fault::Fail(SinkClass::Environment)))));
        let running = Running::start(&cluster, &target, lanes);
        running.until(|s| s.state == State::Retrying && s.retries.get("environment").is_some_and(|n| *n > 1)).await;
        grows(&running, 2).await;
        // Also when the target does not even open.
        target.on_call(Some(Box::new(|_| Some(Fault::Fail(SinkClass::Environment)))));
        tokio::time::sleep(Duration::from_secs(60)).await;
        grows(&running, 2).await;
        target.on_call(None);
        let done = running.until(|s| s.rows == 1 && s.lag_ms == 0).await;
        assert_eq!((done.oldest, running.lag_us()), (None, 0));
        assert!((done.stages.iter().sum::<u64>() / 1000).abs_diff(done.latency_ms) <= 1, "{done:?}");
        // A new one is new.
        source.begin();
        source.row("t", Op::Create, None, Some(&[2])).await;
        source.cut(false).await;
        running.until(|s| s.rows == 2).await;
        running.stop.stop();
        assert_eq!(running.task.join().await.unwrap(), End::Stopped);
    }
}

#[tokio::test(start_paused = true)]
async fn the_lag_grows_while_a_call_of_the_target_does_not_come_back() {
    for (call, stage, lanes) in [(Call::Write, 2, 1), (Call::Write, 2, 4), (Call::Commit, 3, 1), (Call::Commit, 3, 4)] {
        let (cluster, target) = (MemoryCluster::new(8), MemoryTarget::new());
        let _source = one_row(&cluster).await;
        target.on_call(Some(Box::new(move |c| (c == call).then_some(Fault::Die { after: false }))));
        let running = Running::start(&cluster, &target, lanes);
        running.until(|s| s.oldest.is_some_and(|w: Way| stage == 2 || w.applied.is_some())).await;
        grows(&running, stage).await;
        assert_eq!(running.status.read().rows, 0);
    }
}
