//! The shell over a log that commits from another thread, as the journal thread does.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::host::core::tests::{Added, Ask, Sum};
use crate::host::log::ProposeError;
use bytes::BytesMut;
use catchwater_base::Mono;
use catchwater_record::BatchView;
use catchwater_record::batch::patch;
use catchwater_runtime::time::SystemClock;

impl Hosted for Sum {
    fn wake() -> Ask {
        Ask::Wake
    }
    fn may_write(request: &Ask) -> bool {
        matches!(request, Ask::Add(_))
    }
}

/// Commits at once inside `propose` (`inline`), or when told to.
#[derive(Default)]
pub(in crate::host) struct FakeLog {
    state: Mutex<FakeState>,
    inline: bool,
}

#[derive(Default)]
struct FakeState {
    batches: Vec<(Offset, Bytes)>,
    end: Offset,
    high_watermark: Offset,
    leads: Option<LeaderEpoch>,
    full: bool,
    observers: Vec<Arc<dyn HostObserver>>,
}

impl FakeLog {
    fn commit(&self) {
        let (observers, end) = {
            let mut state = self.state.lock().unwrap();
            state.high_watermark = state.end;
            (state.observers.clone(), state.end)
        };
        observers.iter().for_each(|o| o.committed(end));
    }
    fn lead(&self, leads: Option<u32>) {
        let observers = {
            let mut state = self.state.lock().unwrap();
            state.leads = leads.map(LeaderEpoch);
            state.observers.clone()
        };
        observers.iter().for_each(|o| o.role(leads.map(LeaderEpoch)));
    }
}

impl HostLog for FakeLog {
    fn propose(&self, mut batch: BytesMut) -> Result<Offset, ProposeError> {
        let end = {
            let mut state = self.state.lock().unwrap();
            state.leads.ok_or(ProposeError::NotLeader)?;
            let base = state.end;
            patch(&mut batch, base, LeaderEpoch(1));
            state.end = base.plus(BatchView::new(&batch).unwrap().records_count() as u64);
            state.batches.push((base, batch.freeze()));
            state.end
        };
        if self.inline {
            self.commit();
        }
        Ok(end)
    }
    fn read_committed(&self, from: Offset) -> Result<Vec<Bytes>, ReadError> {
        let state = self.state.lock().unwrap();
        let upto = state.high_watermark;
        // One batch a call: a load of many parts.
        Ok(state.batches.iter().filter(|(b, _)| *b >= from && *b < upto).map(|(_, b)| b.clone()).take(1).collect())
    }
    fn room(&self) -> Result<(), ProposeError> {
        if self.state.lock().unwrap().full { Err(ProposeError::NoRoom) } else { Ok(()) }
    }
    fn high_watermark(&self) -> Offset {
        self.state.lock().unwrap().high_watermark
    }
    fn leader_epoch(&self) -> Option<LeaderEpoch> {
        self.state.lock().unwrap().leads
    }
    fn watch(&self, observer: Arc<dyn HostObserver>) {
        self.state.lock().unwrap().observers.push(observer.clone());
        if let Some(epoch) = self.leader_epoch() {
            observer.role(Some(epoch));
        }
    }
}

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Follower<Sum> for Told {
    fn committed(&self, records: Vec<Added>, end: Offset) {
        self.0.lock().unwrap().push(format!("{records:?}@{end}"));
    }
    fn leading(&self) {
        self.0.lock().unwrap().push("leading".into());
    }
}

fn start(log: &Arc<FakeLog>) -> (Arc<Host<Sum>>, Arc<Told>) {
    let told = Arc::new(Told::default());
    let clock = Arc::new(SystemClock::default());
    (Host::start("test", Sum::default(), log.clone(), clock, told.clone()), told)
}

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_commit_inside_propose_does_not_deadlock_and_followers_hear_before_the_asker() {
    let log = Arc::new(FakeLog { inline: true, ..FakeLog::default() });
    log.lead(Some(1));
    let (host, told) = start(&log);
    assert!(host.ready(LIMIT).await);
    for n in 1..=5 {
        assert_eq!(host.ask(Ask::Add(1)).await, Ok(n));
        assert_eq!(told.0.lock().unwrap().last().unwrap(), &format!("[Added(1)]@{n}"));
    }
}

#[tokio::test]
async fn a_reply_waits_for_the_commit_of_another_thread() {
    let log = Arc::new(FakeLog::default());
    log.lead(Some(1));
    let (host, _) = start(&log);
    assert!(host.ready(LIMIT).await);
    let (first, second) = (host.ask(Ask::Add(2)), host.ask(Ask::Get));
    let journal = {
        let log = log.clone();
        std::thread::spawn(move || log.commit())
    };
    assert_eq!((first.await, second.await), (Ok(2), Ok(2)));
    journal.join().unwrap();
}

#[tokio::test]
async fn leadership_comes_and_goes_and_the_log_is_replayed_in_parts() {
    let log = Arc::new(FakeLog { inline: true, ..FakeLog::default() });
    let (host, told) = start(&log);
    assert_eq!(host.ask(Ask::Get).await, Err(HostError::NotLeader));
    log.lead(Some(1));
    assert!(host.ready(LIMIT).await);
    for n in [1, 2, 3] {
        host.ask(Ask::Add(n)).await.unwrap();
    }
    log.lead(None);
    assert!(!host.is_leading());
    assert_eq!(host.ask(Ask::Get).await, Err(HostError::NotLeader));
    told.0.lock().unwrap().clear();
    log.lead(Some(2));
    assert_eq!(host.ask_ready(Ask::Get, LIMIT).await, Ok(6));
    assert_eq!(*told.0.lock().unwrap(), ["[Added(1)]@1", "[Added(2)]@2", "[Added(3)]@3", "leading"]);
}

#[tokio::test]
async fn without_room_nothing_is_decided_that_might_write_and_nothing_is_lost() {
    let log = Arc::new(FakeLog { inline: true, ..FakeLog::default() });
    log.lead(Some(1));
    let (host, _) = start(&log);
    assert!(host.ready(LIMIT).await);
    let waiting = host.ask(Ask::Wait);
    log.state.lock().unwrap().full = true;
    assert_eq!(host.ask(Ask::Add(1)).await, Err(HostError::Refused(ProposeError::NoRoom)));
    let seen = host.ask(Ask::Get).await.unwrap();
    assert!(host.is_leading());
    log.state.lock().unwrap().full = false;
    // Who waited still waits: no reload has dropped it.
    assert_eq!(host.ask(Ask::Add(1)).await.map(|n| n % 1000), Ok((seen + 1) % 1000));
    assert!(waiting.await.is_ok());
}

#[tokio::test]
async fn the_timer_wakes_the_machine() {
    let log = Arc::new(FakeLog { inline: true, ..FakeLog::default() });
    log.lead(Some(1));
    let (host, _) = start(&log);
    assert!(host.ready(LIMIT).await);
    // The machine's deadline is 5 ms after the process began, so the wake-up is due; it adds 1000 each time until the
    // waiter is answered by the next Add.
    let waiting = host.ask(Ask::Wait);
    while host.peek(|m| m.0).unwrap_or(0) < 1000 {
        tokio::task::yield_now().await;
    }
    host.ask(Ask::Add(1)).await.unwrap();
    assert!(waiting.await.unwrap() >= 1001);
    assert!(Mono::ZERO < SystemClock::default().now().mono);
}

#[tokio::test]
async fn the_task_ends_with_the_host() {
    let log = Arc::new(FakeLog::default());
    let (host, _) = start(&log);
    let weak = Arc::downgrade(&host);
    drop(host);
    while weak.upgrade().is_some() {
        tokio::task::yield_now().await;
    }
    // The log may go on telling: nobody is there any more.
    log.lead(Some(1));
    log.commit();
}
