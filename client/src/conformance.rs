//! The contract of [`LogClient`], of the topic half of [`ControlClient`] and of [`TaskClient`] as cases, run against every
//! implementation: `memory` here, `broker/local` there. A case panics with its clause when it does not hold.
//!
//! Needs one node or a cluster at rest that makes topics at once and gives this node its tasks; leaves its topics and its
//! pipeline (`conformance-…`) behind.

use crate::control::*;
use crate::log::*;
use crate::tasks::*;
use bytes::Bytes;
use catchwater_record::batch::build::Builder;
use catchwater_record::batch::{self, BatchView};
use catchwater_record::{
    Caller, CaptureEpoch, CaptureId, CommitSeq, GroupName, LeaderEpoch, NodeId, Offset, Position, RevisionNo,
    TaskEpoch, TasksVersion, TopicId, TopicPartition, TxnId,
};
use catchwater_runtime::time;
use std::future::Future;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// Makes a fresh handle.
pub type Make<'m> = &'m (dyn Fn() -> Arc<dyn LogClient> + Sync);

const TIMEOUT_MS: u32 = 10_000;
const NOW_MS: i64 = 1_700_000_000_000;
/// Longest a call without a time of its own may take (L9), and what a loaded machine may add.
const CALL: Duration = Duration::from_secs(35);

/// Runs every case, one after the other.
pub async fn run(make: Make<'_>, control: Arc<dyn ControlClient>, tasks: Arc<dyn TaskClient>) {
    let suite = Suite { log: make(), make, control, tasks, who: Caller::node(NodeId(1)) };
    suite.order_of_calls().await;
    suite.bytes_as_stored().await;
    suite.nothing_behind_a_hole().await;
    suite.each_position_once().await;
    suite.not_written_is_sure().await;
    suite.fence_everywhere().await;
    suite.dropped_appends_keep_their_place().await;
    suite.dropped_reads_and_changes_do_no_harm().await;
    suite.every_call_ends().await;
    suite.fetch_gives_whole_batches().await;
    suite.fetch_waits_and_ends().await;
    suite.ninth_in_flight_is_busy().await;
    suite.group_offsets().await;
    suite.owners().await;
    suite.leases().await;
}

struct Suite<'m> {
    log: Arc<dyn LogClient>,
    make: Make<'m>,
    control: Arc<dyn ControlClient>,
    tasks: Arc<dyn TaskClient>,
    who: Caller,
}

/// Polls once and drops the call.
async fn begun_and_dropped<T>(call: impl Future<Output = T>) -> Option<T> {
    let mut call = std::pin::pin!(call);
    std::future::poll_fn(|cx| match call.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// A batch of `count` records whose values name it.
fn batch(name: &str, count: u32) -> Bytes {
    let mut b = Builder::new();
    for i in 0..count {
        b.push(NOW_MS + i64::from(i), Some(name.as_bytes()), Some(format!("{name} {i}").as_bytes()), []);
    }
    b.finish().freeze()
}

/// 0 = none.
fn at(n: u8) -> Position {
    if n == 0 { Position::NONE } else { Position::copy_from(&[n]).unwrap_or_default() }
}

fn plain() -> Append {
    Append { context: Context::None, acks: Acks::All, timeout_ms: TIMEOUT_MS }
}

fn captured(capture: CaptureId, epoch: u32, prev: Position, first: Position, last: Position) -> Append {
    let context = CaptureContext {
        capture,
        epoch: CaptureEpoch(epoch),
        flags: capture_flag::ENDS,
        commit_seq: CommitSeq(1),
        prev,
        first,
        last,
        txn: Some(TxnId(Bytes::from_static(b"t"))),
    };
    Append { context: Context::Capture(context), acks: Acks::All, timeout_ms: TIMEOUT_MS }
}

impl Suite<'_> {
    async fn topic(&self, name: &str, partitions: u32, owner: Owner) -> Topic {
        let made = self.control.create_topics(&self.who, vec![self.new_topic(name, partitions, owner)]).await;
        made.expect("L12 create_topics answers").remove(0).expect("L12 the topic is made")
    }

    fn new_topic(&self, name: &str, partitions: u32, owner: Owner) -> NewTopic {
        let name = format!("conformance-{name}").into();
        NewTopic { name, partitions: Some(partitions), replication: None, configs: Vec::new(), owner }
    }

    async fn capture(&self, name: &str) -> CaptureId {
        let name = format!("conformance-{name}").into();
        self.control.source(&self.who, name).await.expect("L12 a source gets its id").0
    }

    async fn bounds(&self, of: TopicPartition) -> Bounds {
        self.log.bounds(vec![of], At::Now).await.expect("L10 bounds").remove(0)
    }

    async fn fetch(&self, of: TopicPartition, offset: u64, max_bytes: u32) -> Bytes {
        self.fetch_now(of, offset, max_bytes, 0).await.expect("L7 fetch")
    }

    async fn fetch_now(
        &self,
        of: TopicPartition,
        offset: u64,
        max_bytes: u32,
        max_wait_ms: u32,
    ) -> Result<Bytes, PartitionError> {
        let want = Fetch {
            parts: vec![FetchPart { at: of, offset: Offset(offset), max_bytes }],
            isolation: Isolation::Uncommitted,
            min_bytes: 1,
            max_wait_ms,
            credit_bytes: 1024 * 1024,
        };
        self.log.fetch(want).await.expect("L7 fetch").remove(0).batches
    }

    async fn order_of_calls(&self) {
        let topic = self.topic("order", 1, Owner::Nobody).await;
        let to = TopicPartition::new(topic.id, 0);
        // Called one after the other, answers awaited in the other direction.
        let mut answers: Vec<_> = (0..6u32).map(|i| self.log.append(to, batch(&i.to_string(), 2), plain())).collect();
        let mut ends = Vec::new();
        while let Some(answer) = answers.pop() {
            match answer.await {
                AppendOutcome::Appended { offset, end } => {
                    assert_eq!(end.0, offset.0 + 2, "L1 a batch of two takes two offsets");
                    ends.push(offset.0);
                }
                other => panic!("L1 {other:?}"),
            }
        }
        ends.reverse();
        assert_eq!(ends, [0, 2, 4, 6, 8, 10], "L1 places are taken in the order of the calls");
        assert_eq!(self.bounds(to).await.high_watermark, Offset(12), "L10 bounds see what was answered");
    }

    async fn bytes_as_stored(&self) {
        let topic = self.topic("bytes", 2, Owner::Nobody).await;
        let to = TopicPartition::new(topic.id, 1);
        let sent = batch("x", 3);
        let outcome = self.log.append(to, sent.clone(), plain()).await;
        assert_eq!(outcome, AppendOutcome::Appended { offset: Offset(0), end: Offset(3) }, "L3");
        let got = self.fetch(to, 0, 1 << 20).await;
        let view = BatchView::new(&got).expect("L7 one whole batch");
        view.check_crc().expect("L7 crc");
        let mut want = bytes::BytesMut::from(&sent[..]);
        batch::patch(&mut want, Offset(0), LeaderEpoch(view.leader_epoch().max(0) as u32));
        assert_eq!(got, want, "L7 bytes as sent, but for base offset and epoch");
    }

    async fn nothing_behind_a_hole(&self) {
        let capture = self.capture("hole").await;
        let topic = self.topic("hole", 1, Owner::Capture(capture, CaptureEpoch(1))).await;
        let to = TopicPartition::new(topic.id, 0);
        let outcome = self.log.append(to, batch("b", 1), captured(capture, 1, at(1), at(2), at(2))).await;
        assert_eq!(outcome, AppendOutcome::Gap { known: Position::NONE }, "L1 prev is not known");
        let outcome = self.log.append(to, batch("a", 1), captured(capture, 1, Position::NONE, at(1), at(1))).await;
        assert_eq!(outcome, AppendOutcome::Appended { offset: Offset(0), end: Offset(1) }, "L1 first");
        let first = self.log.append(to, batch("c", 1), captured(capture, 1, at(2), at(3), at(3)));
        let second = self.log.append(to, batch("d", 1), captured(capture, 1, at(3), at(4), at(4)));
        assert_eq!(first.await, AppendOutcome::Gap { known: at(1) }, "L1 one is missing");
        assert_eq!(second.await, AppendOutcome::Gap { known: at(1) }, "L1 and all behind it");
        assert_eq!(self.bounds(to).await.high_watermark, Offset(1), "L1 nothing entered behind the hole");
    }

    async fn each_position_once(&self) {
        let capture = self.capture("once").await;
        let topic = self.topic("once", 1, Owner::Capture(capture, CaptureEpoch(1))).await;
        let to = TopicPartition::new(topic.id, 0);
        let send = || captured(capture, 1, Position::NONE, at(1), at(3));
        let outcome = self.log.append(to, batch("a", 3), send()).await;
        assert_eq!(outcome, AppendOutcome::Appended { offset: Offset(0), end: Offset(3) }, "L2");
        let other = (self.make)();
        match other.append(to, batch("a", 3), send()).await {
            AppendOutcome::AlreadyThere { end } => assert!(end >= Offset(3), "L2 its rows lie below the end"),
            outcome => panic!("L2 the same again: {outcome:?}"),
        }
        let outcome = other.append(to, batch("b", 3), captured(capture, 1, at(1), at(2), at(5))).await;
        assert_eq!(outcome, AppendOutcome::Partly { known: at(3) }, "L2 in part");
        let outcome = other.append(to, batch("b", 2), captured(capture, 1, at(3), at(4), at(5))).await;
        assert!(matches!(outcome, AppendOutcome::Appended { .. }), "L2 the rest: {outcome:?}");
        let tails = self.log.last_positions(capture, vec![to]).await.expect("L10 last_positions");
        assert_eq!(tails, vec![Tail { at: to, last: at(5), end: Offset(5) }], "L10 sees every answered write");
        // Without positions: fenced, not deduplicated.
        for _ in 0..2 {
            let none = || captured(capture, 1, Position::NONE, Position::NONE, Position::NONE);
            let outcome = self.log.append(to, batch("n", 1), none()).await;
            assert!(matches!(outcome, AppendOutcome::Appended { .. }), "L2 no positions: {outcome:?}");
        }
        let tails = self.log.last_positions(capture, vec![to]).await.expect("L10 last_positions");
        assert_eq!(tails[0].last, at(5), "L2 and the position stays");
    }

    async fn not_written_is_sure(&self) {
        let topic = self.topic("sure", 1, Owner::Nobody).await;
        let to = TopicPartition::new(topic.id, 0);
        let mut broken = batch("x", 1).to_vec();
        if let Some(last) = broken.last_mut() {
            *last ^= 1;
        }
        let outcome = self.log.append(to, broken.into(), plain()).await;
        assert_eq!(outcome, AppendOutcome::NotWritten(Why::Invalid), "L4 a damaged batch");
        let nowhere = TopicPartition::new(TopicId([0xee; 16]), 0);
        let outcome = self.log.append(nowhere, batch("x", 1), plain()).await;
        assert_eq!(outcome, AppendOutcome::NotWritten(Why::NoTopic), "L4 no such topic");
        let outcome = self.log.append(TopicPartition::new(topic.id, 9), batch("x", 1), plain()).await;
        assert_eq!(outcome, AppendOutcome::NotWritten(Why::NoTopic), "L4 no such partition");
        assert_eq!(self.bounds(to).await.high_watermark, Offset(0), "L4 nothing entered");
        assert!(self.log.bounds(vec![nowhere], At::Now).await.is_err(), "L4 bounds of nothing");
    }

    async fn fence_everywhere(&self) {
        let capture = self.capture("fence").await;
        let topic = self.topic("fence", 2, Owner::Capture(capture, CaptureEpoch(1))).await;
        let parts: Vec<_> = (0..2).map(|p| TopicPartition::new(topic.id, p)).collect();
        let outcome =
            self.log.append(parts[0], batch("a", 1), captured(capture, 1, Position::NONE, at(1), at(1))).await;
        assert!(matches!(outcome, AppendOutcome::Appended { .. }), "L5 the holder writes: {outcome:?}");
        let tails = self.log.open_capture(capture, CaptureEpoch(2)).await.expect("L5 open_capture");
        for (part, last, end) in [(parts[0], at(1), 1), (parts[1], Position::NONE, 0)] {
            let tail = tails.iter().find(|t| t.at == part);
            assert_eq!(tail, Some(&Tail { at: part, last, end: Offset(end) }), "L5 every partition's tail");
        }
        let internal: Vec<TopicPartition> = tails.iter().map(|t| t.at).filter(|t| t.topic != topic.id).collect();
        assert!(!internal.is_empty(), "L5 the internal topics bear the fence, too");
        let zombie = (self.make)();
        for part in &parts {
            let outcome = zombie.append(*part, batch("z", 1), captured(capture, 1, at(1), at(2), at(2))).await;
            assert_eq!(outcome, AppendOutcome::Fenced { by: CaptureEpoch(2) }, "L5 a zombie");
        }
        let none = captured(capture, 1, Position::NONE, Position::NONE, Position::NONE);
        let outcome = zombie.append(internal[0], batch("z", 1), none).await;
        assert_eq!(outcome, AppendOutcome::Fenced { by: CaptureEpoch(2) }, "L5 a zombie's checkpoint");
        // A partition made later begins with its creator's fence.
        let later = self.topic("fence-later", 1, Owner::Capture(capture, CaptureEpoch(2))).await;
        let part = TopicPartition::new(later.id, 0);
        let outcome = zombie.append(part, batch("z", 1), captured(capture, 1, Position::NONE, at(2), at(2))).await;
        assert_eq!(outcome, AppendOutcome::Fenced { by: CaptureEpoch(2) }, "L5 R2 a new partition");
        match self.log.open_capture(capture, CaptureEpoch(1)).await {
            Err(LogError::Fenced { by }) => assert_eq!(by, CaptureEpoch(2), "L5"),
            other => panic!("L5 an older epoch opens: {other:?}"),
        }
        let outcome = self.log.append(parts[0], batch("b", 1), captured(capture, 2, at(1), at(2), at(2))).await;
        assert!(matches!(outcome, AppendOutcome::Appended { .. }), "L5 the new holder writes: {outcome:?}");
    }

    async fn dropped_appends_keep_their_place(&self) {
        let capture = self.capture("drop").await;
        let topic = self.topic("drop", 1, Owner::Capture(capture, CaptureEpoch(1))).await;
        let to = TopicPartition::new(topic.id, 0);
        let send = || captured(capture, 1, Position::NONE, at(1), at(1));
        drop(self.log.append(to, batch("a", 1), send()));
        match self.log.append(to, batch("a", 1), send()).await {
            AppendOutcome::Appended { .. } | AppendOutcome::AlreadyThere { .. } => {}
            other => panic!("L6 sending again is safe: {other:?}"),
        }
        let tails = self.log.last_positions(capture, vec![to]).await.expect("L10 last_positions");
        assert_eq!(tails[0], Tail { at: to, last: at(1), end: Offset(1) }, "L6 and it is there once");
        // Dropped answers hold no place in flight, and what was handed over does not change the order of the others.
        let handle = (self.make)();
        let mut last = at(1);
        for n in 2..=3 * APPENDS_IN_FLIGHT_MAX as u8 {
            let append = handle.append(to, batch("d", 1), captured(capture, 1, last.clone(), at(n), at(n)));
            begun_and_dropped(append).await;
            last = at(n);
            // Before the next is called: its outcome is unknown, and this is how one finds out.
            let known = handle.last_positions(capture, vec![to]).await.expect("L10 last_positions").remove(0);
            assert!(known.last == last || known.last == at(n - 1), "L6 its place or none: {known:?} after {n}");
            let send = captured(capture, 1, at(n - 1), at(n), at(n));
            match handle.append(to, batch("d", 1), send).await {
                AppendOutcome::Appended { .. } | AppendOutcome::AlreadyThere { .. } => {}
                other => panic!("L6 the place in flight was given back, sending again is safe: {other:?}"),
            }
        }
        let tail = handle.last_positions(capture, vec![to]).await.expect("L10 last_positions").remove(0);
        assert_eq!(
            tail,
            Tail { at: to, last: last.clone(), end: Offset(u64::from(3 * APPENDS_IN_FLIGHT_MAX as u8)) },
            "L6 each once"
        );
        // Dropped without ever being polled.
        drop(handle.append(to, batch("e", 1), captured(capture, 1, last.clone(), at(99), at(99))));
        let behind = handle.append(to, batch("f", 1), captured(capture, 1, at(99), at(100), at(100))).await;
        match behind {
            AppendOutcome::Appended { .. } => {}
            AppendOutcome::Gap { known } => {
                assert_eq!(known, last, "L6 L1 it did not enter, so nothing behind it does")
            }
            other => panic!("L6 {other:?}"),
        }
    }

    async fn dropped_reads_and_changes_do_no_harm(&self) {
        let topic = self.topic("dropped", 1, Owner::Nobody).await;
        let to = TopicPartition::new(topic.id, 0);
        for _ in 0..20 {
            let waiting = begun_and_dropped(self.fetch_now(to, 0, 1 << 20, 20_000)).await;
            assert!(waiting.is_none(), "L6 a fetch that waits was dropped");
        }
        let outcome = self.log.append(to, batch("x", 5), plain()).await;
        assert_eq!(outcome, AppendOutcome::Appended { offset: Offset(0), end: Offset(5) }, "L6 after dropped reads");
        let whole = self.fetch(to, 0, 1 << 20).await;
        begun_and_dropped(self.fetch_now(to, 0, 1 << 20, 0)).await;
        begun_and_dropped(self.log.bounds(vec![to], At::Now)).await;
        assert_eq!(self.fetch(to, 0, 1 << 20).await, whole, "L6 reads change nothing");
        // A dropped commit is unknown: in time it is there or it is not, and what is committed later stands.
        let group = || GroupName::from("conformance-dropped");
        begun_and_dropped(self.log.commit(group(), vec![(to, Offset(2))])).await;
        let found = self.log.committed(group(), vec![to]).await.expect("L10 committed").remove(0);
        assert!(found.is_none() || found == Some(Offset(2)), "L6 a dropped commit: {found:?}");
        assert_eq!(self.log.commit(group(), vec![(to, Offset(4))]).await, Ok(()), "L3 commit");
        assert_eq!(self.log.committed(group(), vec![to]).await, Ok(vec![Some(Offset(4))]), "L6 the later one stands");
        // A dropped change: the same again gives the topic, made before or now.
        begun_and_dropped(self.control.create_topics(&self.who, vec![self.new_topic("unsure", 2, Owner::Nobody)]))
            .await;
        let again = self.control.create_topics(&self.who, vec![self.new_topic("unsure", 2, Owner::Nobody)]).await;
        match again.expect("L12 create_topics answers").remove(0) {
            Ok(made) => assert!(made.created, "L12 made now"),
            Err(ControlError::TopicExists(_)) => {}
            Err(e) => panic!("L6 a dropped change: {e}"),
        }
        let name = self.new_topic("unsure", 2, Owner::Nobody).name;
        let there = self.control.describe_topics(TopicsWanted::Names(vec![name])).await.expect("L10 describe_topics");
        assert_eq!(there.iter().map(|t| t.partitions).collect::<Vec<_>>(), [2], "L6 it is there once");
    }

    /// Runs a call that has no time of its own.
    async fn ends<T>(&self, what: &str, call: impl Future<Output = T>) -> T {
        match time::timeout(CALL, call).await {
            Ok(answer) => answer,
            Err(_) => panic!("L9 {what} does not end"),
        }
    }

    async fn every_call_ends(&self) {
        let capture = self.capture("ends").await;
        let topic = self.topic("ends", 1, Owner::Capture(capture, CaptureEpoch(1))).await;
        let to = TopicPartition::new(topic.id, 0);
        // An append ends at its time, whatever that is, and says no more than it knows.
        // Large enough that the disk is not done within it.
        let large = || {
            let mut b = Builder::new();
            b.push(NOW_MS, Some(b"large"), Some(&vec![b'x'; 900_000]), []);
            b.finish().freeze()
        };
        for (n, timeout_ms) in [(1, 0), (2, 1), (3, 5), (4, 0)] {
            let how = Append { timeout_ms, ..captured(capture, 1, at(n - 1), at(n), at(n)) };
            let asked = Instant::now();
            let outcome = self.ends("append", self.log.append(to, large(), how)).await;
            assert!(asked.elapsed() < Duration::from_secs(5), "L9 an append of {timeout_ms} ms: {:?}", asked.elapsed());
            match outcome {
                AppendOutcome::Appended { .. } | AppendOutcome::Unknown => {}
                // Never in the log, so it can be sent again as if nothing had been.
                AppendOutcome::NotWritten(_) => {
                    let tail = self.log.last_positions(capture, vec![to]).await.expect("L10 last_positions").remove(0);
                    assert_eq!(tail.last, at(n - 1), "L4 not written is sure");
                }
                other => panic!("L9 {other:?}"),
            }
            match self.log.append(to, large(), captured(capture, 1, at(n - 1), at(n), at(n))).await {
                AppendOutcome::Appended { .. } | AppendOutcome::AlreadyThere { .. } => {}
                other => panic!("L4 sending again is safe: {other:?}"),
            }
        }
        let tail = self.log.last_positions(capture, vec![to]).await.expect("L10 last_positions").remove(0);
        assert_eq!(tail, Tail { at: to, last: at(4), end: Offset(4) }, "L2 each once");
        // A fetch ends at its time; an error of one part ends it at once.
        let asked = Instant::now();
        let got = self.ends("fetch", self.fetch_now(to, 4, 1 << 20, 300)).await.expect("L7 fetch");
        assert!(got.is_empty() && asked.elapsed() >= Duration::from_millis(250), "L7 waits for something to come");
        assert!(asked.elapsed() < Duration::from_millis(300 + 5_000), "L9 a fetch of 300 ms: {:?}", asked.elapsed());
        let nowhere = TopicPartition::new(TopicId([0xed; 16]), 0);
        let part = |at, offset| FetchPart { at, offset: Offset(offset), max_bytes: 1 << 20 };
        let want = Fetch {
            parts: vec![part(to, 4), part(nowhere, 0)],
            isolation: Isolation::Committed,
            min_bytes: 1,
            max_wait_ms: 60_000,
            credit_bytes: 1 << 20,
        };
        let got = self.ends("fetch", self.log.fetch(want)).await.expect("L7 fetch");
        assert_eq!(got[1].batches, Err(PartitionError::NoTopic), "L7 the part that failed says so");
        assert_eq!(got[0].batches, Ok(Bytes::new()), "L7 and the other is not harmed");
        // What names nothing ends with a name for it.
        let e = self.ends("bounds", self.log.bounds(vec![to, nowhere], At::Now)).await;
        assert_eq!(e, Err(LogError::NoTopic(nowhere)), "L9 bounds");
        let e = self.ends("last_positions", self.log.last_positions(capture, vec![nowhere])).await;
        assert_eq!(e, Err(LogError::NoTopic(nowhere)), "L9 last_positions");
        let group = || GroupName::from("conformance-ends");
        let e = self.ends("commit", self.log.commit(group(), vec![(nowhere, Offset(1))])).await;
        assert_eq!(e, Err(LogError::NoTopic(nowhere)), "L9 commit");
        let e = self.ends("committed", self.log.committed(group(), vec![nowhere])).await;
        assert_eq!(e, Err(LogError::NoTopic(nowhere)), "L9 committed");
        let tails = self.ends("open_capture", self.log.open_capture(CaptureId(u64::MAX), CaptureEpoch(1))).await;
        assert!(tails.is_ok_and(|t| t.iter().all(|t| t.last.is_none())), "L9 open_capture of a capture without topics");
        let gone = self.ends("delete_topics", self.control.delete_topics(&self.who, vec![nowhere.topic])).await;
        assert!(matches!(gone.as_deref(), Ok([Err(ControlError::NoTopic(_))])), "L9 delete_topics: {gone:?}");
    }

    async fn fetch_gives_whole_batches(&self) {
        let topic = self.topic("fetch", 1, Owner::Nobody).await;
        let to = TopicPartition::new(topic.id, 0);
        for name in ["a", "b", "c"] {
            let outcome = self.log.append(to, batch(name, 10), plain()).await;
            assert!(matches!(outcome, AppendOutcome::Appended { .. }), "L7 {outcome:?}");
        }
        let middle = self.fetch(to, 15, 1 << 20).await;
        let (first, rest) = BatchView::split(&middle).expect("L7 a whole batch");
        assert_eq!(first.offset(), Offset(10), "L7 from the batch that holds the offset");
        let (second, rest) = BatchView::split(rest).expect("L7 the next one");
        assert_eq!((second.offset(), rest.len()), (Offset(20), 0), "L7 ascending, up to the end");
        let small = self.fetch(to, 0, 1).await;
        assert_eq!(
            BatchView::new(&small).map(|v| v.offset()),
            Ok(Offset(0)),
            "L7 the first comes above the limit, alone"
        );
        let end = self.fetch(to, 30, 1 << 20).await;
        assert!(end.is_empty(), "L7 nothing at the end");
        let beyond = self.fetch_now(to, 31, 1 << 20, 0).await;
        assert_eq!(beyond, Err(PartitionError::OutOfRange), "L7 beyond the end");
    }

    async fn fetch_waits_and_ends(&self) {
        let topic = self.topic("wait", 1, Owner::Nobody).await;
        let to = TopicPartition::new(topic.id, 0);
        let empty = self.fetch_now(to, 0, 1 << 20, 50).await.expect("L7 nothing is no error");
        assert!(empty.is_empty(), "L7 ends at max_wait_ms");
        let limit = Duration::from_secs(20);
        let waiting = time::timeout(limit, self.fetch_now(to, 0, 1 << 20, 15_000));
        let append = self.log.append(to, batch("late", 1), plain());
        // The fetch may begin before or after the append enters; it ends with it either way.
        let append = async {
            let outcome = append.await;
            assert!(matches!(outcome, AppendOutcome::Appended { .. }), "L7 {outcome:?}");
        };
        let (mut waiting, mut append) = (std::pin::pin!(waiting), std::pin::pin!(append));
        let mut appended = false;
        let got = std::future::poll_fn(|cx| {
            if !appended {
                appended = append.as_mut().poll(cx).is_ready();
            }
            waiting.as_mut().poll(cx)
        })
        .await;
        let got = got.expect("L9 every call ends").expect("L7 fetch");
        assert!(!got.is_empty(), "L7 a fetch is woken by an append");
    }

    async fn ninth_in_flight_is_busy(&self) {
        let topic = self.topic("busy", 1, Owner::Nobody).await;
        let to = TopicPartition::new(topic.id, 0);
        let handle = (self.make)();
        let answers: Vec<_> =
            (0..APPENDS_IN_FLIGHT_MAX).map(|i| handle.append(to, batch(&i.to_string(), 1), plain())).collect();
        let ninth = handle.append(to, batch("9", 1), plain()).await;
        assert_eq!(ninth, AppendOutcome::NotWritten(Why::Busy), "L8");
        for answer in answers {
            let outcome = answer.await;
            assert!(matches!(outcome, AppendOutcome::Appended { .. }), "L8 the eight enter: {outcome:?}");
        }
        let again = handle.append(to, batch("9", 1), plain()).await;
        assert!(matches!(again, AppendOutcome::Appended { .. }), "L8 there is room again: {again:?}");
    }

    async fn group_offsets(&self) {
        let topic = self.topic("group", 1, Owner::Nobody).await;
        let to = TopicPartition::new(topic.id, 0);
        let outcome = self.log.append(to, batch("g", 5), plain()).await;
        assert!(matches!(outcome, AppendOutcome::Appended { .. }), "{outcome:?}");
        let group = || GroupName::from("conformance-group");
        assert_eq!(self.log.committed(group(), vec![to]).await, Ok(vec![None]), "L10 nothing yet");
        assert_eq!(self.log.commit(group(), vec![(to, Offset(3))]).await, Ok(()), "L3 commit");
        assert_eq!(self.log.committed(group(), vec![to]).await, Ok(vec![Some(Offset(3))]), "L10 sees the commit");
    }

    async fn owners(&self) {
        let (one, two) = (self.capture("owner-1").await, self.capture("owner-2").await);
        assert_ne!(one, two, "L12 each source its own id");
        assert_eq!(self.capture("owner-1").await, one, "L12 the same name, the same id");
        let owner = Owner::Capture(one, CaptureEpoch(3));
        let first = self.topic("owner", 2, owner).await;
        assert!(first.created, "L12 made now");
        let again = self.topic("owner", 2, owner).await;
        assert!(
            !again.created && again.id == first.id && again.partitions == 2,
            "L12 the same change again: {again:?}"
        );
        let make = async |name: &str, owner| {
            let new = self.new_topic(name, 2, owner);
            self.control.create_topics(&self.who, vec![new]).await.expect("L12 answers").remove(0)
        };
        let other = make("owner", Owner::Capture(two, CaptureEpoch(1))).await;
        assert!(matches!(other, Err(ControlError::Owned(_))), "L12 somebody else's: {other:?}");
        let newer = self.topic("owner", 2, Owner::Capture(one, CaptureEpoch(4))).await;
        assert!(!newer.created && newer.id == first.id, "L12 the next holder finds it: {newer:?}");
        let below = make("owner", owner).await;
        assert!(
            matches!(below, Err(ControlError::Fenced { by: CaptureEpoch(4) })),
            "L12 and the one before: {below:?}"
        );
        let nobody = self.topic("nobody", 2, Owner::Nobody).await;
        let adopted = make("nobody", Owner::Capture(one, CaptureEpoch(4))).await.expect("L12 an empty one is adopted");
        assert!(adopted.id == nobody.id && !adopted.created, "L12 adopted: {adopted:?}");
        let part = TopicPartition::new(nobody.id, 0);
        let zombie = self.log.append(part, batch("z", 1), captured(one, 3, Position::NONE, at(1), at(1))).await;
        assert_eq!(zombie, AppendOutcome::Fenced { by: CaptureEpoch(4) }, "L12 with the fence in place");
        let full = self.topic("full", 1, Owner::Nobody).await;
        let outcome = self.log.append(TopicPartition::new(full.id, 0), batch("x", 1), plain()).await;
        assert!(matches!(outcome, AppendOutcome::Appended { .. }), "{outcome:?}");
        let refused = make("full", Owner::Capture(one, CaptureEpoch(4))).await;
        assert!(matches!(refused, Err(ControlError::Owned(_))), "L12 one of nobody with records: {refused:?}");
    }

    /// The task of a capture, as this node holds it, once `fits`.
    async fn task(&self, capture: CaptureId, fits: impl Fn(&Task) -> bool) -> Task {
        let mut seen = TasksVersion(0);
        let look = async {
            loop {
                let tasks = self.tasks.mine(seen).await.expect("L11 mine answers");
                seen = tasks.version;
                if let Some(task) = tasks.tasks.into_iter().find(|t| t.kind == TaskKind::Capture(capture) && fits(t)) {
                    return task;
                }
            }
        };
        time::timeout(CALL, look).await.expect("L11 the task comes to this node")
    }

    async fn leases(&self) {
        let capture = self.capture("lease").await;
        let put = PipelineChange::Put {
            name: "conformance-lease".into(),
            base: RevisionNo(0),
            text: "conformance".into(),
            captures: vec![("in".into(), capture)],
            sinks: Vec::new(),
            note: RevisionNote { base_dir: "/d".into(), author: "ann".into(), message: "why".into() },
        };
        let made = self.control.change_pipeline(&self.who, put.clone()).await.expect("L12 change_pipeline");
        assert_eq!(self.control.change_pipeline(&self.who, put).await, Ok(made), "L12 the same change again");
        let kept = self.control.revisions("conformance-lease".into()).await.expect("L12 revisions");
        let [kept] = kept.as_slice() else { panic!("L12 one revision: {kept:?}") };
        let said = (kept.no, kept.text.as_str(), kept.note.author.as_str(), kept.note.base_dir.as_str());
        assert_eq!(said, (made, "conformance", "ann", "/d"), "L12 a revision is kept as it was put");
        let first = self.task(capture, |_| true).await;
        let report =
            |epoch| Report { task: first.id, epoch, state: TaskState::Running, code: None, progress: Bytes::new() };
        assert_eq!(self.tasks.report(vec![report(first.epoch)]).await, Ok(vec![]), "L11 the holder's report");
        self.tasks.release(first.id, first.epoch).await.expect("L11 release");
        let second = self.task(capture, |t| t.epoch != first.epoch).await;
        assert!(second.id == first.id && second.epoch > first.epoch, "L11 epochs rise: {first:?} {second:?}");
        let lost = self.tasks.report(vec![report(first.epoch), report(second.epoch)]).await;
        assert_eq!(lost, Ok(vec![first.id]), "L11 a report below the epoch");
        self.tasks.release(first.id, first.epoch).await.expect("L11 release");
        let lost = self.tasks.report(vec![report(second.epoch)]).await;
        assert_eq!(lost, Ok(vec![]), "L11 a release below the epoch frees nothing");
        // R2: the lease's epoch counts from the moment it is given, before its holder has fenced anything.
        let TaskEpoch(old) = first.epoch;
        let below = self.new_topic("lease-below", 1, Owner::Capture(capture, CaptureEpoch(old)));
        let below = self.control.create_topics(&self.who, vec![below]).await.expect("L12 answers").remove(0);
        let TaskEpoch(new) = second.epoch;
        let by = CaptureEpoch(new);
        assert_eq!(below, Err(ControlError::Fenced { by }), "L12 R2 an epoch below the lease's");
        let topic = self.topic("lease", 1, Owner::Capture(capture, by)).await;
        let part = TopicPartition::new(topic.id, 0);
        let zombie = self.log.append(part, batch("z", 1), captured(capture, old, Position::NONE, at(1), at(1))).await;
        assert_eq!(zombie, AppendOutcome::Fenced { by }, "L5 the holder before");
    }
}
