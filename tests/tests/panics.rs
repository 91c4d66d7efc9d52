//! A panic inside one partition: that partition alone is down, is opened again from disk with all that was acknowledged,
//! and stays offline, saying so, when it panics again and again. The built binary, its panics asked for by name.

use bytes::Bytes;
use catchwater_client::remote::{
    Acks, FetchFrom, FetchLimits, Kafka, NewTopic, Options, ProduceOutcome, decode_records,
};
use catchwater_record::batch::build::Builder;
use catchwater_tests::broker::{Broker, Settings, has_crash_points};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const TOPIC: &str = "t";
const LIMIT: Duration = Duration::from_secs(60);

async fn connect(broker: &Broker) -> Kafka {
    let options = Options { timeout: Duration::from_secs(5), ..Options::default() };
    Kafka::connect(&[broker.kafka()], options).await.expect("connects")
}

fn batch(n: u64) -> Bytes {
    let mut builder = Builder::new();
    builder.push(1, None, Some(n.to_string().as_bytes()), []);
    builder.finish().freeze()
}

/// What one partition has acknowledged: offset → value.
#[derive(Default)]
struct Acked(BTreeMap<i64, u64>);

impl Acked {
    /// Sends until it is taken; how often it was not.
    async fn write(&mut self, kafka: &Kafka, partition: i32, n: u64) -> u32 {
        let until = Instant::now() + LIMIT;
        for failed in 0.. {
            match kafka.produce(TOPIC, partition, batch(n), Acks::All).await {
                ProduceOutcome::Written(Some(offset)) => {
                    assert_eq!(self.0.insert(offset, n), None, "offset {offset} was given twice");
                    return failed;
                }
                other => assert!(Instant::now() < until, "partition {partition} does not come back: {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        unreachable!("the loop has no end")
    }

    /// Every acknowledged value is at its offset.
    async fn check(&self, kafka: &Kafka, partition: i32) {
        let mut there = BTreeMap::new();
        let end = self.0.keys().next_back().map_or(0, |last| last + 1);
        let (mut offset, until) = (0, Instant::now() + LIMIT);
        while offset < end {
            let from = FetchFrom { topic: TOPIC, partition, offset };
            match kafka.fetch(from, FetchLimits::default()).await {
                Ok(fetched) => {
                    for record in decode_records(&fetched.batches, offset).expect("whole records") {
                        let text = String::from_utf8(record.value.expect("a value").to_vec()).expect("text");
                        there.insert(record.offset, text.parse().expect("a number"));
                        offset = record.offset + 1;
                    }
                }
                Err(e) => assert!(Instant::now() < until, "partition {partition}: {e}"),
            }
        }
        for (offset, n) in &self.0 {
            assert_eq!(there.get(offset), Some(n), "partition {partition}, offset {offset}");
        }
    }
}

fn groups(broker: &Broker) -> BTreeSet<u64> {
    let names = std::fs::read_dir(broker.data_dir().join("p")).expect("groups");
    names.filter_map(|n| u64::from_str_radix(&n.ok()?.file_name().to_string_lossy(), 16).ok()).collect()
}

fn wait_metric(broker: &Broker, name: &str, want: f64) {
    let until = Instant::now() + LIMIT;
    while broker.metric(name) != want {
        assert!(Instant::now() < until, "{name} is {}, not {want}", broker.metric(name));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn wait_log(broker: &Broker, what: &str) {
    let until = Instant::now() + LIMIT;
    while !broker.log().contains(what) {
        assert!(Instant::now() < until, "{what} is not in the log");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A node with two partitions, some acknowledged batches in each, stopped; and the partitions' gids.
async fn prepared(acked: &mut [Acked; 2]) -> (Broker, [u64; 2]) {
    let mut broker = Broker::start_with(Settings::default().with("segment.bytes", "1048576"));
    let topic =
        |name: &str, n| NewTopic { name: name.into(), partitions: Some(n), replication: Some(1), configs: vec![] };
    // The first topic that anybody makes brings the audit's own with it.
    connect(&broker).await.create_topic(&topic("earlier", 1)).await.expect("made");
    broker.stop().expect("a clean end");
    let before = groups(&broker);
    broker.restart().expect("starts");
    let kafka = connect(&broker).await;
    kafka.create_topic(&topic(TOPIC, 2)).await.expect("made");
    for n in 0..30 {
        for (partition, acked) in (0..).zip(acked.iter_mut()) {
            acked.write(&kafka, partition, n).await;
        }
    }
    drop(kafka);
    broker.stop().expect("a clean end");
    let made: Vec<u64> = groups(&broker).difference(&before).copied().collect();
    let gids = made.try_into().expect("two groups were made");
    (broker, gids)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_costs_one_partition_a_moment_and_nothing_acknowledged() {
    if !has_crash_points("a_panic_costs_one_partition_a_moment_and_nothing_acknowledged") {
        return;
    }
    for point in ["group.propose", "group.persisted"] {
        let mut acked = [Acked::default(), Acked::default()];
        let (mut broker, [first, _]) = prepared(&mut acked).await;
        broker.restart_with(&[("CATCHWATER_PANIC_AT", &format!("{point}@{first}:12"))]).expect("starts");
        let kafka = connect(&broker).await;
        let [one, mut other] = acked;
        let beside = {
            let kafka = connect(&broker).await;
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let work = tokio::spawn(async move {
                let mut stopped = std::pin::pin!(stopped);
                for n in 1000.. {
                    assert_eq!(other.write(&kafka, 1, n).await, 0, "{n}: the other partition serves all along");
                    if let Ok(_) | Err(tokio::sync::oneshot::error::TryRecvError::Closed) = stopped.try_recv() {
                        break;
                    }
                }
                other
            });
            (stop, work)
        };
        let mut one = one;
        let mut failed = 0;
        for n in 100..160 {
            failed += one.write(&kafka, 0, n).await;
        }
        assert!(failed > 0, "{point}: nobody has seen a panic");
        drop(beside.0);
        let other = beside.1.await.expect("the other partition");
        wait_metric(&broker, "catchwater_partitions_reopened_total", 1.0);
        wait_metric(&broker, "catchwater_partitions_down", 0.0);
        one.check(&kafka, 0).await;
        other.check(&kafka, 1).await;
        drop(kafka);
        broker.kill();
        broker.restart_with(&[]).expect("starts");
        let kafka = connect(&broker).await;
        one.check(&kafka, 0).await;
        other.check(&kafka, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_panics_again_and_again_stays_offline_and_says_so() {
    if !has_crash_points("a_partition_that_panics_again_and_again_stays_offline_and_says_so") {
        return;
    }
    let mut acked = [Acked::default(), Acked::default()];
    let (mut broker, [first, _]) = prepared(&mut acked).await;
    broker.restart_with(&[("CATCHWATER_PANIC_AT", &format!("group.propose@{first}:1+"))]).expect("starts");
    let kafka = connect(&broker).await;
    let until = Instant::now() + LIMIT;
    while !broker.log().contains("CW0206") {
        let outcome = kafka.produce(TOPIC, 0, batch(1), Acks::All).await;
        assert!(!matches!(outcome, ProduceOutcome::Written(_)), "every attempt panics");
        assert!(Instant::now() < until, "it is opened again for ever:\n{}", broker.log());
    }
    wait_metric(&broker, "catchwater_partitions_down", 1.0);
    assert_eq!(broker.metric("catchwater_partitions_reopened_total"), 3.0);
    assert_eq!(broker.metric("catchwater_partitions_offline_total"), 4.0);
    let ready = get(&broker, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("CW0206"), "{ready}");
    // The other one does not care.
    assert_eq!(acked[1].write(&kafka, 1, 7).await, 0);
    acked[1].check(&kafka, 1).await;
    let from = FetchFrom { topic: TOPIC, partition: 0, offset: 0 };
    assert!(kafka.fetch(from, FetchLimits::default()).await.is_err(), "nothing is read from what is not trusted");
    drop(kafka);
    broker.stop().expect("a clean end all the same");
    broker.restart_with(&[]).expect("starts");
    let kafka = connect(&broker).await;
    assert_eq!(acked[0].write(&kafka, 0, 8).await, 0, "the next start begins anew");
    acked[0].check(&kafka, 0).await;
    acked[1].check(&kafka, 1).await;
}

/// The cluster's own log: topics are made again as soon as it is back, partitions never notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_the_controller_is_one_refused_request() {
    if !has_crash_points("a_panic_of_the_controller_is_one_refused_request") {
        return;
    }
    let mut acked = [Acked::default(), Acked::default()];
    let (mut broker, _) = prepared(&mut acked).await;
    // The first entry of a start is its registration.
    broker.restart_with(&[("CATCHWATER_PANIC_AT", "group.propose@0:3")]).expect("starts");
    let kafka = connect(&broker).await;
    let (mut made, until) = (0, Instant::now() + LIMIT);
    let mut refused = 0;
    while made < 5 {
        let name = format!("more{made}");
        let topic = NewTopic { name, partitions: Some(1), replication: Some(1), configs: vec![] };
        match kafka.create_topic(&topic).await {
            Ok(_) => made += 1,
            Err(e) if e.code().is_some_and(|c| c.0 == 36) => made += 1, // by the attempt whose answer was lost
            Err(e) => {
                refused += 1;
                assert!(Instant::now() < until, "no topic is made any more: {e}");
                assert_eq!(acked[0].write(&kafka, 0, 1000 + refused).await, 0);
            }
        }
    }
    wait_log(&broker, "was opened again from disk");
    assert!(refused > 0, "nobody has seen a panic");
    for (partition, acked) in (0..).zip(&acked) {
        acked.check(&kafka, partition).await;
    }
    drop(kafka);
    broker.stop().expect("a clean end");
}

fn get(broker: &Broker, path: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(broker.http()).expect("the HTTP listener");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}
