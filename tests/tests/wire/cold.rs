//! E. Fetches of what is in files only: the node has started again since it was written, so no byte of it is in its memory.

use std::time::{Duration, Instant};

use catchwater_tests::broker::{Broker, unique};
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::fetch_response::PartitionData;

use crate::topics::{create, create_all};
use crate::wire::*;

/// Values of one batch, bytes, and batches of a partition: some three segments.
const VALUE_BYTES: usize = 40_000;
const BATCHES: usize = 70;
/// Long enough to tell an answer at once from one that waited.
const WAIT: Duration = Duration::from_secs(8);

/// A topic of segments of 1 MiB whose first partitions hold [`BATCHES`] batches of one record each; the node has none of them in
/// memory.
fn cold(broker: &mut Broker, partitions: i32) -> (Wire, String) {
    let mut wire = Wire::to(broker);
    let name = unique("cold");
    let mut topic = create(&name, &[("segment.bytes", "1048576")]);
    topic.num_partitions = partitions;
    assert_eq!(wire.call(7, &create_all(vec![topic], false)).topics[0].error_code, 0);
    wire.topic(&name);
    for partition in 0..partitions {
        for i in 0..BATCHES {
            let value = format!("{partition}/{i}/{}", "x".repeat(VALUE_BYTES));
            let mut request = produce_request(&name, -1, Some(batch(&[&value])));
            request.topic_data[0].partition_data[0].index = partition;
            let reply = wire.call(9, &request);
            assert_eq!(reply.responses[0].partition_responses[0].error_code, 0);
        }
    }
    if !broker.is_foreign() {
        broker.stop().unwrap();
        broker.restart().unwrap();
        wire = Wire::to(broker);
        wire.topic(&name);
    }
    (wire, name)
}

/// Asks for two partitions, the first of them from `first` on.
fn both(name: &str, first: i64, max_bytes: i32) -> FetchRequest {
    let mut request = fetch_request(name, first, max_bytes, 0);
    let mut second = request.topics[0].partitions[0].clone();
    (second.partition, second.fetch_offset) = (1, 3);
    request.topics[0].partitions.push(second);
    request
}

fn names(part: &PartitionData, from: i64) -> Vec<String> {
    values(part, from).iter().map(|v| v[..v.rfind('/').unwrap()].to_owned()).collect()
}

/// Who reads an older segment is answered at once, whatever it would like to wait for (Kafka: `onOlderSegment` of a delayed fetch);
/// who reads the newest bytes waits for more of them.
#[test]
fn wire_062_who_catches_up_does_not_wait_for_more_bytes() {
    let mut broker = Broker::start();
    let (mut wire, name) = cold(&mut broker, 1);
    let mut ask = |offset: i64, wait: Duration| {
        let mut request = fetch_request(&name, offset, 100_000, wait.as_millis() as i32);
        request.min_bytes = 1 << 20;
        let began = Instant::now();
        let reply = wire.call(11, &request);
        let part = reply.responses[0].partitions[0].clone();
        assert_eq!(part.error_code, 0);
        (names(&part, offset), began.elapsed())
    };
    for offset in [0, 30, 50] {
        let (got, took) = ask(offset, WAIT);
        assert_eq!(got, [format!("0/{offset}"), format!("0/{}", offset + 1)]);
        assert!(took < WAIT / 2, "offset {offset} of {BATCHES}: {took:?}");
    }
    let last = BATCHES as i64 - 1;
    let (got, took) = ask(last, Duration::from_millis(600));
    assert_eq!(got, [format!("0/{last}")]);
    assert!(took >= Duration::from_millis(550), "the newest bytes: {took:?}");
}

/// KIP-74: the first batch comes above the limits, and no other, wherever it is read from.
#[test]
fn wire_063_only_the_first_batch_comes_above_the_limits_from_files_too() {
    let mut broker = Broker::start();
    let (mut wire, name) = cold(&mut broker, 2);
    let end = BATCHES as i64;
    let mut ask = |first: i64, max_bytes: i32| {
        let reply = wire.call(11, &both(&name, first, max_bytes));
        let parts = &reply.responses[0].partitions;
        assert!(parts.iter().all(|p| p.error_code == 0), "{parts:?}");
        (names(&parts[0], first), names(&parts[1], 3))
    };
    let none = Vec::<String>::new();
    let of = |partition: i32, from: i32, count: i32| -> Vec<String> {
        (from..from + count).map(|i| format!("{partition}/{i}")).collect()
    };
    assert_eq!(ask(5, 1), (of(0, 5, 1), none.clone()), "above all limits");
    assert_eq!(ask(5, 60_000), (of(0, 5, 1), none.clone()), "what is left is less than a batch of the second one");
    assert_eq!(ask(end, 1), (none.clone(), of(1, 3, 1)), "the first one has nothing: the second gives the first batch");
    assert_eq!(ask(5, 200_000), (of(0, 5, 4), none), "what is left is less than a batch again");
    // The limits of the partitions alone: each gives what is within its own, and one batch at least only as the first.
    let mut request = both(&name, 5, 60_000);
    request.max_bytes = 1 << 20;
    let reply = wire.call(11, &request);
    let parts = &reply.responses[0].partitions;
    assert_eq!((names(&parts[0], 5), names(&parts[1], 3)), (of(0, 5, 1), of(1, 3, 1)));
    request.topics[0].partitions[1].partition_max_bytes = 1_000;
    let reply = wire.call(11, &request);
    let parts = &reply.responses[0].partitions;
    assert_eq!((names(&parts[0], 5), names(&parts[1], 3)), (of(0, 5, 1), Vec::new()));
}
