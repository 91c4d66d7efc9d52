//! E. Fetch and offsets.

use std::time::{Duration, Instant};

use catchwater_record::BatchView;
use catchwater_record::batch::build::Builder;
use catchwater_tests::broker::{Broker, unique};
use kafka_protocol::messages::fetch_request::ReplicaState;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::ListOffsetsPartitionResponse;
use kafka_protocol::messages::{BrokerId, FetchRequest, ListOffsetsRequest};

use crate::configs::delete_records;
use crate::wire::*;

pub fn list(topic: &str, timestamp: i64) -> ListOffsetsRequest {
    kp!(ListOffsetsRequest {
        replica_id: BrokerId(-1),
        topics: vec![kp!(ListOffsetsTopic {
            name: topic_name(topic),
            partitions: vec![kp!(ListOffsetsPartition {
                partition_index: 0,
                timestamp: timestamp,
                current_leader_epoch: -1
            })],
        })],
    })
}

fn listed(wire: &mut Wire, version: i16, topic: &str, timestamp: i64) -> ListOffsetsPartitionResponse {
    wire.call(version, &list(topic, timestamp)).topics[0].partitions[0].clone()
}

/// ListOffsets 7 for partition 0; -1 latest, -2 earliest.
pub fn offset_at(wire: &mut Wire, topic: &str, timestamp: i64) -> i64 {
    let part = listed(wire, 7, topic, timestamp);
    assert_eq!(part.error_code, 0);
    part.offset
}

#[test]
fn wire_049_an_offset_inside_a_batch_returns_the_whole_batch() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let topic = unique("inside");
    wire.topic(&topic);
    wire.produce(&topic, batch(&["0", "1", "2"]));
    wire.produce(&topic, batch(&["3", "4", "5"]));
    for (offset, base) in [(0, 0), (1, 0), (2, 0), (3, 3), (4, 3), (5, 3)] {
        let part = wire.fetch(&topic, offset);
        assert_eq!(part.error_code, 0);
        let records = part.records.clone().unwrap();
        assert_eq!(BatchView::split(&records).unwrap().0.base_offset(), base, "offset {offset}");
        let expect: Vec<String> = (offset..6).map(|i| i.to_string()).collect();
        assert_eq!(values(&part, offset), expect);
    }
}

#[test]
fn wire_050_the_first_batch_comes_even_above_the_limits() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let topic = unique("large");
    wire.topic(&topic);
    let large = "x".repeat(200_000);
    for _ in 0..3 {
        assert_eq!(wire.produce(&topic, batch(&[&large])).error_code, 0);
    }
    let one = wire.fetch_bytes(&topic, 0, 1);
    assert_eq!(values(&one, 0), [large.as_str()], "KIP-74: one batch, and only one");
    let two = wire.fetch_bytes(&topic, 0, 450_000);
    assert!(two.records.unwrap().len() <= 450_000);
}

#[test]
fn wire_051_no_preferred_replica_beside_records() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let topic = unique("pref");
    wire.topic(&topic);
    wire.produce(&topic, batch(&["a"]));
    let part = wire.fetch(&topic, 0);
    assert_eq!((part.preferred_read_replica.0, part.high_watermark, part.log_start_offset), (-1, 1, 0));
    assert_eq!(part.last_stable_offset, 1);
}

#[test]
fn wire_052_a_client_that_asks_for_a_session_is_served_with_or_without_one() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let topic = unique("session");
    wire.topic(&topic);
    wire.produce(&topic, batch(&["a"]));
    let mut request = fetch_request(&topic, 0, 1 << 20, 100);
    (request.session_id, request.session_epoch) = (0, 0);
    let reply = wire.call(11, &request);
    assert_eq!(reply.error_code, 0);
    assert_eq!(values(&reply.responses[0].partitions[0], 0), ["a"]);
    // A session nobody knows.
    (request.session_id, request.session_epoch) = (0x7fff_0001, 5);
    assert_eq!(wire.call(11, &request).error_code, 70);
}

#[test]
fn wire_054_leader_epochs_are_compared() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let topic = unique("epoch");
    let epoch = wire.topic(&topic).partitions[0].leader_epoch;
    wire.produce(&topic, batch(&["a"]));
    for (asked, code) in [(epoch, 0), (-1, 0), (epoch + 1, 75)] {
        let mut request = fetch_request(&topic, 0, 1 << 20, 100);
        request.topics[0].partitions[0].current_leader_epoch = asked;
        assert_eq!(wire.call(11, &request).responses[0].partitions[0].error_code, code, "epoch {asked} of {epoch}");
        let mut request = list(&topic, -1);
        request.topics[0].partitions[0].current_leader_epoch = asked;
        assert_eq!(wire.call(7, &request).topics[0].partitions[0].error_code, code, "epoch {asked} of {epoch}");
    }
    if epoch > 0 {
        let mut request = fetch_request(&topic, 0, 1 << 20, 100);
        request.topics[0].partitions[0].current_leader_epoch = epoch - 1;
        assert_eq!(wire.call(11, &request).responses[0].partitions[0].error_code, 74);
    }
}

#[test]
fn wire_056_list_offsets_finds_ends_and_times() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let topic = unique("times");
    wire.topic(&topic);
    assert_eq!((offset_at(&mut wire, &topic, -1), offset_at(&mut wire, &topic, -2)), (0, 0));
    let start = now_ms() - 100_000;
    for base in [0, 10_000, 5_000] {
        let mut builder = Builder::new();
        for i in 0..3 {
            builder.push(start + base + i * 1_000, None, Some(b"x"), []);
        }
        assert_eq!(wire.produce(&topic, builder.finish().freeze()).error_code, 0);
    }
    for version in 1..=10 {
        let of = |wire: &mut Wire, at| {
            let part = listed(wire, version, &topic, at);
            assert_eq!(part.error_code, 0, "version {version} at {at}");
            (part.offset, part.timestamp)
        };
        assert_eq!(of(&mut wire, -1), (9, -1));
        assert_eq!(of(&mut wire, -2), (0, -1));
        // The first record at or after the time, inside its batch.
        assert_eq!(of(&mut wire, start), (0, start));
        assert_eq!(of(&mut wire, start + 1), (1, start + 1_000));
        assert_eq!(of(&mut wire, start + 2_001), (3, start + 10_000));
        assert_eq!(of(&mut wire, start + 12_000), (5, start + 12_000));
        assert_eq!(of(&mut wire, start + 12_001), (-1, -1), "later than all");
    }
    // Sentinels: -3 from version 7 on; -4 8, -5 9, -6 11; below their version 35.
    let max = listed(&mut wire, 7, &topic, -3);
    assert_eq!((max.error_code, max.offset, max.timestamp), (0, 5, start + 12_000));
    for (version, sentinel) in [(6, -3), (7, -4), (8, -5)] {
        assert_eq!(listed(&mut wire, version, &topic, sentinel).error_code, 35, "{sentinel} at {version}");
    }
    let local = listed(&mut wire, 8, &topic, -4);
    assert_eq!((local.error_code, local.offset), (0, 0));
    assert_eq!(listed(&mut wire, 7, &unique("nobody"), -1).error_code, 3);
}

/// DeleteRecords may leave the log start inside a batch, or behind the batch with the largest time.
#[test]
fn wire_057_times_are_looked_for_from_the_log_start_on() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let topic = unique("times-cut");
    wire.topic(&topic);
    let start = now_ms() - 100_000;
    for base in [50_000, 10_000, 30_000, 20_000] {
        let mut builder = Builder::new();
        for i in 0..3 {
            builder.push(start + base - i * 1_000, None, Some(b"x"), []);
        }
        assert_eq!(wire.produce(&topic, builder.finish().freeze()).error_code, 0);
    }
    let of = |wire: &mut Wire, at| {
        let part = listed(wire, 7, &topic, at);
        (part.error_code, part.offset, part.timestamp)
    };
    assert_eq!(of(&mut wire, -3), (0, 0, start + 50_000));
    for (log_start, first, at_25_s, largest) in [(1, 1, 1, (1, 49_000)), (4, 4, 6, (6, 30_000)), (7, 7, 7, (7, 29_000))]
    {
        assert_eq!(delete_records(&mut wire, 2, &topic, 0, log_start), (0, log_start));
        let (code, found, _) = of(&mut wire, start);
        assert_eq!((code, found), (0, first), "any time, from {log_start}");
        let (code, found, _) = of(&mut wire, start + 25_000);
        assert_eq!((code, found), (0, at_25_s), "25 s, from {log_start}");
        let (code, offset, timestamp) = of(&mut wire, -3);
        assert_eq!(code, 0, "largest, from {log_start}");
        // Kafka names a record that it no longer gives.
        if !broker.is_foreign() {
            assert_eq!((offset, timestamp - start), largest, "largest, from {log_start}");
        }
    }
}

#[test]
fn wire_058_offsets_outside_the_log_are_1_and_the_end_is_waited_at() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let topic = unique("outside");
    wire.topic(&topic);
    wire.produce(&topic, batch(&["a", "b"]));
    assert_eq!(wire.fetch(&topic, 3).error_code, 1);
    assert_eq!(wire.fetch(&topic, -1).error_code, 1);
    assert_eq!(wire.fetch(&unique("nobody"), 0).error_code, 3);
    let began = Instant::now();
    let part = wire.fetch(&topic, 2);
    assert_eq!((part.error_code, part.records.unwrap_or_default().len(), part.high_watermark), (0, 0, 2));
    assert!(began.elapsed() >= Duration::from_millis(450), "an empty fetch waits max_wait: {:?}", began.elapsed());
    // An append ends the wait at once.
    let id = wire.send(11, &fetch_request(&topic, 2, 1 << 20, 20_000));
    let mut other = Wire::to(&broker);
    let began = Instant::now();
    other.produce(&topic, batch(&["c"]));
    let reply = wire.reply::<FetchRequest>(11, id);
    assert_eq!(values(&reply.responses[0].partitions[0], 2), ["c"]);
    assert!(began.elapsed() < Duration::from_secs(10));
    // Min bytes: nothing below them before the time is over.
    let mut request = fetch_request(&topic, 2, 1 << 20, 400);
    request.min_bytes = 100_000;
    let began = Instant::now();
    let reply = wire.call(11, &request);
    assert_eq!(values(&reply.responses[0].partitions[0], 2), ["c"]);
    assert!(began.elapsed() >= Duration::from_millis(350), "{:?}", began.elapsed());
}

/// CVE-2018-1288.
#[test]
fn wire_060_replica_id_in_fetch_is_refused() {
    let broker = Broker::start();
    if broker.is_foreign() {
        // A Kafka without authorizer takes anybody for a follower; that is what the CVE is about.
        return;
    }
    let mut wire = Wire::to(&broker);
    let topic = unique("replica");
    wire.topic(&topic);
    wire.produce(&topic, batch(&["a"]));
    let mut request = fetch_request(&topic, 0, 1 << 20, 100);
    request.replica_id = BrokerId(1);
    let reply = wire.call(11, &request);
    let code = reply.responses.first().map_or(reply.error_code, |t| t.partitions[0].error_code);
    assert_eq!(code, 31);
    let mut request = fetch_request("", 0, 1 << 20, 100);
    request.replica_state = kp!(ReplicaState { replica_id: BrokerId(1), replica_epoch: 1 });
    request.topics[0].topic_id = wire.topic(&topic).topic_id;
    let reply = wire.call(15, &request);
    let code = reply.responses.first().map_or(reply.error_code, |t| t.partitions[0].error_code);
    assert_eq!(code, 31);
    let mut request = list(&topic, -1);
    request.replica_id = BrokerId(1);
    assert_eq!(wire.call(7, &request).topics[0].partitions[0].error_code, 31);
    request.replica_id = BrokerId(-2);
    assert_eq!(wire.call(7, &request).topics[0].partitions[0].error_code, 0, "-2 counts as a consumer");
}

#[test]
fn wire_053_every_partition_of_a_fetch_is_answered() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let topics: Vec<String> = (0..5).map(|_| unique("many")).collect();
    let mut request = fetch_request("", 0, 64 * 1024, 200);
    let template = request.topics.remove(0);
    for topic in &topics {
        wire.topic(topic);
        wire.produce(topic, batch(&[&"x".repeat(30_000)]));
        let mut one = template.clone();
        one.topic = topic_name(topic);
        request.topics.push(one);
    }
    request.max_bytes = 64 * 1024;
    let reply = wire.call(11, &request);
    assert_eq!(reply.responses.len(), 5, "a full fetch answers all partitions, with records or without");
    let bytes: usize = reply.responses.iter().map(|t| t.partitions[0].records.as_ref().map_or(0, |r| r.len())).sum();
    assert!(bytes > 30_000 && bytes <= 64 * 1024, "{bytes}");
}

#[test]
fn wire_055_read_committed_lists_aborted_transactions_and_read_uncommitted_none() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let topic = unique("isolation");
    wire.topic(&topic);
    wire.produce(&topic, batch(&["a", "b"]));
    for (level, aborted) in [(0, None), (1, Some(0))] {
        let mut request = fetch_request(&topic, 0, 1 << 20, 100);
        request.isolation_level = level;
        let reply = wire.call(11, &request);
        let part = &reply.responses[0].partitions[0];
        assert_eq!(values(part, 0), ["a", "b"]);
        assert_eq!(part.aborted_transactions.as_ref().map(Vec::len), aborted, "isolation {level}");
    }
}

#[test]
fn wire_061_a_thousand_partitions_in_one_fetch() {
    let broker = Broker::start();
    if broker.is_foreign() {
        // A Kafka takes minutes to make them.
        return;
    }
    let mut wire = Wire::to(&broker);
    let topic = unique("wide");
    let mut wide = crate::topics::create(&topic, &[]);
    wide.num_partitions = 1_000;
    let reply = wire.call(7, &crate::topics::create_all(vec![wide], false));
    assert_eq!(reply.topics[0].error_code, 0);
    assert_eq!(wire.topic(&topic).partitions.len(), 1_000);
    let mut request = fetch_request(&topic, 0, 50 << 20, 100);
    let template = request.topics[0].partitions[0].clone();
    request.topics[0].partitions = (0..1_000)
        .map(|partition| {
            let mut one = template.clone();
            one.partition = partition;
            one
        })
        .collect();
    let answer = |wire: &mut Wire| {
        let reply = wire.call(11, &request);
        let parts = reply.responses[0].partitions.clone();
        assert_eq!(parts.len(), 1_000);
        parts
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while answer(&mut wire).iter().any(|p| p.error_code != 0) {
        assert!(Instant::now() < deadline, "all partitions are led");
    }
    wire.produce(&topic, batch(&["x"]));
    let parts = answer(&mut wire);
    assert_eq!(parts.iter().map(|p| p.high_watermark).sum::<i64>(), 1);
    let began = Instant::now();
    request.max_wait_ms = 0;
    for _ in 0..10 {
        wire.call(11, &request);
    }
    println!("a fetch of 1,000 partitions: {:?}", began.elapsed() / 10);
}
