#![allow(clippy::unwrap_used)]
//! The clients in process, over a whole node.

use bytes::Bytes;
use catchwater_base::Wall;
use catchwater_broker::{Broker, BrokerConfig, LocalClient};
use catchwater_client::{
    Acks, Append, AppendOutcome, At, CaptureContext, Context, ControlClient, ControlError, Fetch, FetchPart, Fetched,
    Isolation, LogClient, LogError, NewTopic, Owner, PartitionError, TopicsWanted, Why,
};
use catchwater_record::batch::BatchView;
use catchwater_record::batch::build::Builder;
use catchwater_record::{
    Caller, CaptureEpoch, CaptureId, CommitSeq, GroupName, NodeId, Offset, Position, SourceName, TopicId,
    TopicPartition,
};
use std::path::PathBuf;

struct Bed {
    broker: Option<Broker>,
    client: LocalClient,
    dir: PathBuf,
    who: Caller,
}

impl Bed {
    async fn new() -> Bed {
        let mut id = [0; 8];
        catchwater_runtime::random::fill(&mut id).unwrap();
        let dir = std::env::temp_dir().join(format!("catchwater-local-{:016x}", u64::from_le_bytes(id)));
        std::fs::create_dir_all(&dir).unwrap();
        let (broker, client) = Bed::start(&dir).await;
        Bed { broker: Some(broker), client, dir, who: Caller::node(NodeId(1)) }
    }

    async fn start(dir: &std::path::Path) -> (Broker, LocalClient) {
        let mut config = BrokerConfig::new(dir.join("data"), "127.0.0.1:0".parse().unwrap());
        config.journal_files = 1;
        let broker = Broker::start(config).await.unwrap();
        let client = broker.local().handle();
        (broker, client)
    }

    /// Ends it and starts it again.
    async fn again(&mut self) {
        self.broker.take().unwrap().shutdown().await;
        let (broker, client) = Bed::start(&self.dir).await;
        (self.broker, self.client) = (Some(broker), client);
    }

    async fn topic(&self, name: &str, owner: Owner) -> Result<TopicId, ControlError> {
        let topic = NewTopic { name: name.into(), partitions: Some(2), replication: None, configs: vec![], owner };
        let mut made = self.client.create_topics(&self.who, vec![topic]).await.unwrap();
        made.remove(0).map(|t| t.id)
    }

    async fn capture(&self, name: &str) -> CaptureId {
        self.client.source(&self.who, SourceName::from(name)).await.unwrap().0
    }

    async fn end(mut self) {
        if let Some(broker) = self.broker.take() {
            broker.shutdown().await;
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn batch(count: usize) -> Bytes {
    let mut builder = Builder::new();
    for i in 0..count {
        builder.push(1_000 + i as i64, Some(b"k"), Some(b"v"), []);
    }
    builder.finish().freeze()
}

fn plain() -> Append {
    Append { context: Context::None, acks: Acks::All, timeout_ms: 10_000 }
}

fn position(n: u8) -> Position {
    Position::copy_from(&[n]).unwrap()
}

fn captured(capture: CaptureId, epoch: u32, prev: Position, first: u8, last: u8) -> Append {
    let context = CaptureContext {
        capture,
        epoch: CaptureEpoch(epoch),
        flags: 0,
        commit_seq: CommitSeq(u64::from(first)),
        prev,
        first: position(first),
        last: position(last),
        txn: None,
    };
    Append { context: Context::Capture(context), acks: Acks::All, timeout_ms: 10_000 }
}

fn fetch(at: TopicPartition, offset: u64, max_wait_ms: u32) -> Fetch {
    Fetch {
        parts: vec![FetchPart { at, offset: Offset(offset), max_bytes: 1 << 20 }],
        isolation: Isolation::Committed,
        min_bytes: 1,
        max_wait_ms,
        credit_bytes: 1 << 20,
    }
}

fn bases(fetched: &Fetched) -> Vec<i64> {
    let bytes = fetched.batches.clone().unwrap();
    let (mut rest, mut out) = (&bytes[..], Vec::new());
    while let Ok((batch, after)) = BatchView::split(rest) {
        out.push(batch.base_offset());
        rest = after;
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_enter_in_the_order_of_the_calls_and_are_read_back() {
    let bed = Bed::new().await;
    let id = bed.topic("t", Owner::Nobody).await.unwrap();
    let at = TopicPartition::new(id, 0);
    // Called in order, polled backwards.
    let futures: Vec<_> = (1..=5).map(|n| bed.client.append(at, batch(n), plain())).collect();
    let mut outcomes = Vec::new();
    for future in futures.into_iter().rev() {
        outcomes.push(future.await);
    }
    outcomes.reverse();
    let mut base = 0;
    for (n, outcome) in (1..=5).zip(outcomes) {
        assert_eq!(outcome, AppendOutcome::Appended { offset: Offset(base), end: Offset(base + n) });
        base += n;
    }
    let got = bed.client.fetch(fetch(at, 4, 1_000)).await.unwrap();
    assert_eq!(bases(&got[0]), [3, 6, 10]);
    assert_eq!(got[0].bounds.high_watermark, Offset(15));
    let one = Fetch { credit_bytes: 1, ..fetch(at, 0, 0) };
    assert_eq!(bases(&bed.client.fetch(one).await.unwrap()[0]), [0], "the first batch comes above the credit");
    let beyond = bed.client.fetch(fetch(at, 99, 1_000)).await.unwrap();
    assert_eq!(beyond[0].batches, Err(PartitionError::OutOfRange));
    let nowhere = bed.client.fetch(fetch(TopicPartition::new(TopicId([9; 16]), 0), 0, 1_000)).await.unwrap();
    assert_eq!(nowhere[0].batches, Err(PartitionError::NoTopic));
    let bounds = bed.client.bounds(vec![at], At::Time(Wall::from_millis(1_002))).await.unwrap();
    assert_eq!((bounds[0].at_time, bounds[0].high_watermark), (Some(Offset(5)), Offset(15)));
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ninth_append_in_flight_is_busy_and_what_cannot_be_is_not_written() {
    let bed = Bed::new().await;
    let id = bed.topic("t", Owner::Nobody).await.unwrap();
    let at = TopicPartition::new(id, 1);
    let futures: Vec<_> = (0..9).map(|_| bed.client.append(at, batch(1), plain())).collect();
    let mut outcomes = Vec::new();
    for future in futures {
        outcomes.push(future.await);
    }
    assert_eq!(outcomes.pop(), Some(AppendOutcome::NotWritten(Why::Busy)));
    assert!(outcomes.iter().all(|o| matches!(o, AppendOutcome::Appended { .. })));
    let mut bad = batch(1).to_vec();
    bad[30] ^= 1;
    let check = async |at, bytes, want| {
        assert_eq!(bed.client.append(at, bytes, plain()).await, AppendOutcome::NotWritten(want));
    };
    check(at, Bytes::from(bad), Why::Invalid).await;
    check(TopicPartition::new(id, 7), batch(1), Why::NoTopic).await;
    check(TopicPartition::new(TopicId([9; 16]), 0), batch(1), Why::NoTopic).await;
    let mut large = Builder::new();
    large.push(0, None, Some(&vec![0; 2 << 20]), []);
    check(at, large.finish().freeze(), Why::TooLarge).await;
    bed.end().await;
}

/// Sixty-four times a default record, through a journal whose files are shorter, and back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_at_the_bound_is_kept_and_one_byte_more_is_not_written() {
    let bed = Bed::new().await;
    let configs = vec![("max.message.bytes".into(), "2000000000".into())];
    let topic = NewTopic { name: "t".into(), partitions: Some(1), replication: None, configs, owner: Owner::Nobody };
    let id = bed.client.create_topics(&bed.who, vec![topic]).await.unwrap().remove(0).unwrap().id;
    let at = TopicPartition::new(id, 0);
    let sized = |bytes: usize| {
        let build = |value: usize| {
            let mut builder = Builder::new();
            builder.push(1_000, None, Some(&vec![b'v'; value]), []);
            builder.finish().freeze()
        };
        let batch = build(bytes - (build(bytes).len() - bytes));
        assert_eq!(batch.len(), bytes);
        batch
    };
    const MOST: usize = 64 << 20;
    assert_eq!(bed.client.append(at, sized(MOST + 1), plain()).await, AppendOutcome::NotWritten(Why::TooLarge));
    let largest = sized(MOST);
    let taken = bed.client.append(at, largest.clone(), plain()).await;
    assert!(matches!(taken, AppendOutcome::Appended { .. }), "{taken:?}");
    let small = bed.client.append(at, batch(1), plain()).await;
    assert!(matches!(small, AppendOutcome::Appended { .. }), "{small:?}");
    // The first batch comes whatever its size.
    let got = bed.client.fetch(fetch(at, 0, 1_000)).await.unwrap();
    let back = got[0].batches.clone().unwrap();
    assert!(back.len() == MOST && back[61..] == largest[61..], "the batch came back");
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn captures_are_fenced_everywhere_and_each_position_enters_once() {
    let bed = Bed::new().await;
    let capture = bed.capture("shop").await;
    assert_eq!(bed.capture("shop").await, capture);
    let owner = |epoch| Owner::Capture(capture, CaptureEpoch(epoch));
    let id = bed.topic("shop.orders", owner(1)).await.unwrap();
    let at = TopicPartition::new(id, 0);
    let tails = bed.client.open_capture(capture, CaptureEpoch(1)).await.unwrap();
    assert_eq!(tails.iter().filter(|t| t.at.topic == id).count(), 2);
    assert!(tails.len() > 2, "the two internal topics are fenced too");
    assert!(tails.iter().all(|t| t.last.is_none()));

    let append = async |how| bed.client.append(at, batch(2), how).await;
    let first = append(captured(capture, 1, Position::NONE, 1, 3)).await;
    assert_eq!(first, AppendOutcome::Appended { offset: Offset(0), end: Offset(2) });
    let again = append(captured(capture, 1, Position::NONE, 1, 3)).await;
    assert_eq!(again, AppendOutcome::AlreadyThere { end: Offset(2) });
    let partly = append(captured(capture, 1, position(3), 2, 5)).await;
    assert_eq!(partly, AppendOutcome::Partly { known: position(3) });
    let gap = append(captured(capture, 1, position(4), 5, 6)).await;
    assert_eq!(gap, AppendOutcome::Gap { known: position(3) });

    let tails = bed.client.open_capture(capture, CaptureEpoch(2)).await.unwrap();
    let tail = tails.iter().find(|t| t.at == at).unwrap();
    assert_eq!((tail.last.clone(), tail.end), (position(3), Offset(2)));
    let zombie = append(captured(capture, 1, position(3), 4, 5)).await;
    assert_eq!(zombie, AppendOutcome::Fenced { by: CaptureEpoch(2) });
    let older = bed.client.open_capture(capture, CaptureEpoch(1)).await;
    assert_eq!(older, Err(LogError::Fenced { by: CaptureEpoch(2) }));
    let next = append(captured(capture, 2, position(3), 4, 5)).await;
    assert_eq!(next, AppendOutcome::Appended { offset: Offset(2), end: Offset(4) });
    let tails = bed.client.last_positions(capture, vec![at]).await.unwrap();
    assert_eq!(tails[0].last, position(5));

    // A topic made later begins with its creator's fence.
    let later = bed.topic("shop.items", owner(2)).await.unwrap();
    let zombie = bed.client.append(TopicPartition::new(later, 1), batch(1), captured(capture, 1, Position::NONE, 1, 1));
    assert_eq!(zombie.await, AppendOutcome::Fenced { by: CaptureEpoch(2) });
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_of_nobody_are_adopted_only_while_empty() {
    let bed = Bed::new().await;
    let capture = bed.capture("shop").await;
    let owner = Owner::Capture(capture, CaptureEpoch(1));
    let empty = bed.topic("empty", Owner::Nobody).await.unwrap();
    assert_eq!(bed.topic("empty", owner).await, Ok(empty));
    let used = bed.topic("used", Owner::Nobody).await.unwrap();
    let appended = bed.client.append(TopicPartition::new(used, 0), batch(1), plain()).await;
    assert!(matches!(appended, AppendOutcome::Appended { .. }));
    assert!(matches!(bed.topic("used", owner).await, Err(ControlError::Owned(_))));
    let mine = bed.client.describe_topics(TopicsWanted::OwnedBy(capture)).await.unwrap();
    assert_eq!(mine.iter().map(|t| t.name.to_string()).collect::<Vec<_>>(), ["empty"]);
    let gone = bed.client.delete_topics(&bed.who, vec![used]).await.unwrap();
    assert_eq!(gone, [Ok(())]);
    let after = bed.client.append(TopicPartition::new(used, 0), batch(1), plain()).await;
    assert_eq!(after, AppendOutcome::NotWritten(Why::NoTopic));
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_of_a_group_are_committed_without_membership() {
    let bed = Bed::new().await;
    let id = bed.topic("t", Owner::Nobody).await.unwrap();
    let (a, b) = (TopicPartition::new(id, 0), TopicPartition::new(id, 1));
    let group = GroupName::from("sink");
    assert_eq!(bed.client.committed(group.clone(), vec![a, b]).await, Ok(vec![None, None]));
    bed.client.commit(group.clone(), vec![(b, Offset(7))]).await.unwrap();
    assert_eq!(bed.client.committed(group, vec![a, b]).await, Ok(vec![None, Some(Offset(7))]));
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_waits_for_a_commit_and_ends_in_time() {
    let bed = Bed::new().await;
    let id = bed.topic("t", Owner::Nobody).await.unwrap();
    let at = TopicPartition::new(id, 0);
    let other = bed.broker.as_ref().unwrap().local().handle();
    let reader = catchwater_runtime::spawn::spawn("reader", async move { other.fetch(fetch(at, 0, 60_000)).await });
    let appended = bed.client.append(at, batch(3), plain()).await;
    assert!(matches!(appended, AppendOutcome::Appended { .. }));
    assert_eq!(bases(&reader.join().await.unwrap().unwrap()[0]), [0]);
    let nothing = bed.client.fetch(fetch(at, 3, 30)).await.unwrap();
    assert_eq!(bases(&nothing[0]), Vec::<i64>::new());
    bed.end().await;
}

/// The node has started again, so all of it is in files: who reads an older segment is answered at once whatever it would like to
/// wait for, and only the first batch of an answer comes above its limits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_files_only_is_fetched_within_the_limits_and_without_waiting() {
    const VALUE_BYTES: usize = 40_000;
    const BATCHES: u64 = 70;
    let mut bed = Bed::new().await;
    let configs = vec![("segment.bytes".into(), "1048576".into())];
    let topic = NewTopic { name: "t".into(), partitions: Some(2), replication: None, configs, owner: Owner::Nobody };
    let id = bed.client.create_topics(&bed.who, vec![topic]).await.unwrap().remove(0).unwrap().id;
    let at = |partition| TopicPartition::new(id, partition);
    for partition in 0..2 {
        for _ in 0..BATCHES {
            let mut builder = Builder::new();
            builder.push(1_000, None, Some(&vec![b'v'; VALUE_BYTES]), []);
            let appended = bed.client.append(at(partition), builder.finish().freeze(), plain()).await;
            assert!(matches!(appended, AppendOutcome::Appended { .. }), "{appended:?}");
        }
    }
    bed.again().await;
    let ask = async |first: u64, (first_max, second_max): (u32, u32), credit_bytes: u32| {
        let part = |partition, offset, max_bytes| FetchPart { at: at(partition), offset: Offset(offset), max_bytes };
        let want = Fetch {
            parts: vec![part(0, first, first_max), part(1, 3, second_max)],
            isolation: Isolation::Committed,
            min_bytes: 0,
            max_wait_ms: 0,
            credit_bytes,
        };
        let got = bed.client.fetch(want).await.unwrap();
        (bases(&got[0]), bases(&got[1]))
    };
    let all = (1 << 20, 1 << 20);
    assert_eq!(ask(5, all, 1).await, (vec![5], vec![]), "above all limits");
    assert_eq!(ask(5, all, 60_000).await, (vec![5], vec![]), "what is left is less than a batch");
    assert_eq!(ask(BATCHES, all, 1).await, (vec![], vec![3]), "the first one has nothing");
    assert_eq!(ask(5, (60_000, 60_000), 1 << 20).await, (vec![5], vec![3]), "each within its own limit");
    assert_eq!(ask(5, (60_000, 1_000), 1 << 20).await, (vec![5], vec![]), "less than a batch may come from the second");
    let more = async |offset, wait_ms| {
        let began = std::time::Instant::now();
        let want = Fetch { min_bytes: 1 << 20, credit_bytes: 100_000, ..fetch(at(0), offset, wait_ms) };
        (bases(&bed.client.fetch(want).await.unwrap()[0]), began.elapsed().as_millis())
    };
    let (got, took_ms) = more(30, 8_000).await;
    assert_eq!(got, [30, 31]);
    assert!(took_ms < 4_000, "an older segment: {took_ms} ms");
    let (got, took_ms) = more(BATCHES - 1, 300).await;
    assert_eq!(got, [BATCHES as i64 - 1]);
    assert!(took_ms >= 280, "the newest bytes: {took_ms} ms");
    bed.end().await;
}
