//! What administrators and their tools ask: the cluster, more partitions, log directories, producers, resources; and where
//! epochs end.

use catchwater_record::batch::build::Builder;
use catchwater_tests::broker::{Broker, unique};
use kafka_protocol::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_log_dirs_response::DescribeLogDirsTopic;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::describe_producers_response::PartitionResponse;
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::*;

use crate::produce::producer_id;
use crate::topics::{create, create_all, delete};
use crate::wire::*;

fn epochs(topic: &str, replica: i32, asked: &[(i32, i32, i32)]) -> OffsetForLeaderEpochRequest {
    let partition = |(partition, current, epoch): &(i32, i32, i32)| {
        kp!(OffsetForLeaderPartition { partition: *partition, current_leader_epoch: *current, leader_epoch: *epoch })
    };
    let topic =
        kp!(OffsetForLeaderTopic { topic: topic_name(topic), partitions: asked.iter().map(partition).collect() });
    kp!(OffsetForLeaderEpochRequest { replica_id: BrokerId(replica), topics: vec![topic] })
}

/// (error, epoch, end) of each.
fn ends(wire: &mut Wire, version: i16, topic: &str, asked: &[(i32, i32, i32)]) -> Vec<(i16, i32, i64)> {
    let replica = if version >= 3 { -1 } else { -2 };
    let reply = wire.call(version, &epochs(topic, replica, asked));
    assert_eq!(reply.topics[0].topic, topic_name(topic));
    reply.topics[0].partitions.iter().map(|p| (p.error_code, p.leader_epoch, p.end_offset)).collect()
}

#[test]
fn wire_054_where_an_epoch_ends_is_told_to_consumers() {
    let mut broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let name = unique("epochs");
    let now = wire.topic(&name).partitions[0].leader_epoch;
    wire.produce(&name, batch(&["a", "b", "c"]));
    for version in 2..=4 {
        let asked = [(0, -1, now), (0, now, now), (0, -1, now - 1), (0, -1, -1), (0, -1, now + 1), (0, -1, i32::MAX)];
        // Below the oldest: where the log begins. -1 is nobody's, and Kafka's first epoch is 0.
        let before = if now == 0 { (0, -1, -1) } else { (0, now - 1, 0) };
        let expect = [(0, now, 3), (0, now, 3), before, (0, -1, -1), (0, -1, -1), (0, -1, -1)];
        assert_eq!(ends(&mut wire, version, &name, &asked), expect, "version {version}");
        let fenced = [(0, now + 1, now), (0, -2, now), (0, i32::MAX, -1), (7, -1, now), (-1, -1, now), (7, 9, now)];
        let codes: Vec<_> = ends(&mut wire, version, &name, &fenced).into_iter().map(|e| e.0).collect();
        assert_eq!(codes, [75, 74, 75, 3, 3, 3], "version {version}");
        assert_eq!(ends(&mut wire, version, "no-such-topic", &[(0, -1, 0)]), [(3, -1, -1)]);
    }
    if broker.is_foreign() {
        return;
    }
    // Replicas of nobody's are refused for everyone (CVE-2018-1288); -2 is a consumer that looks.
    let follower = |wire: &mut Wire, replica| wire.call(4, &epochs(&name, replica, &[(0, -1, now)])).topics[0].clone();
    assert_eq!([-2, -1, 0, 1].map(|r| follower(&mut wire, r).partitions[0].error_code), [0, 0, 31, 31]);
    // A start is a new epoch; the one before ends where it ended.
    broker.kill();
    broker.restart().unwrap();
    let mut wire = Wire::to(&broker);
    let next = wire.topic(&name).partitions[0].leader_epoch;
    assert!(next > now);
    wire.produce(&name, batch(&["d"]));
    let asked = [(0, next, now), (0, next, next), (0, now, now)];
    assert_eq!(ends(&mut wire, 4, &name, &asked), [(0, now, 3), (0, next, 4), (74, -1, -1)]);
}

#[test]
fn wire_025_the_cluster_is_described() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let known = wire.call(12, &kp!(MetadataRequest { topics: Some(vec![]) }));
    for version in 0..=2 {
        for all in [false, true] {
            let request = kp!(DescribeClusterRequest {
                include_cluster_authorized_operations: all,
                endpoint_type: 1,
                include_fenced_brokers: all && version == 2,
            });
            let told = wire.call(version, &request);
            assert_eq!((told.error_code, told.error_message), (0, None));
            assert_eq!(Some(told.cluster_id), known.cluster_id);
            assert_eq!(told.endpoint_type, 1);
            assert_eq!(told.cluster_authorized_operations, if all { 8096 } else { i32::MIN });
            let there: Vec<_> = told.brokers.iter().map(|b| (b.broker_id, b.host.clone(), b.port)).collect();
            let expect: Vec<_> = known.brokers.iter().map(|b| (b.node_id, b.host.clone(), b.port)).collect();
            assert_eq!(there, expect);
            assert!(told.brokers.iter().all(|b| b.rack.is_none() && !b.is_fenced));
            assert!(there.iter().any(|b| b.0 == told.controller_id), "the controller is one of them");
        }
    }
    for (kind, code) in [(0, 115), (2, 114), (3, 115), (-1, 115)] {
        for version in 1..=2 {
            let told = wire.call(version, &kp!(DescribeClusterRequest { endpoint_type: kind }));
            assert_eq!((told.error_code, told.brokers.len(), told.controller_id.0), (code, 0, -1), "type {kind}");
            assert!(told.error_message.is_some_and(|text| !text.is_empty()));
        }
    }
}

pub type Widen<'a> = (&'a str, i32, Option<&'a [&'a [i32]]>);

/// (name, error) of each, in the order of names.
pub fn widen(wire: &mut Wire, version: i16, topics: &[Widen<'_>], trial: bool) -> Vec<(String, i16)> {
    let topic = |(name, count, assignments): &Widen<'_>| {
        let assignment = |nodes: &&[i32]| {
            kp!(CreatePartitionsAssignment { broker_ids: nodes.iter().map(|n| BrokerId(*n)).collect() })
        };
        kp!(CreatePartitionsTopic {
            name: topic_name(name),
            count: *count,
            assignments: assignments.map(|all| all.iter().map(assignment).collect()),
        })
    };
    let topics = topics.iter().map(topic).collect();
    let request = kp!(CreatePartitionsRequest { topics: topics, timeout_ms: 10_000, validate_only: trial });
    let reply = wire.call(version, &request);
    assert!(reply.results.iter().all(|r| r.error_code != 0 || r.error_message.is_none()));
    let mut told: Vec<_> = reply.results.iter().map(|r| (r.name.0.to_string(), r.error_code)).collect();
    told.sort();
    told
}

fn count(wire: &mut Wire, name: &str) -> usize {
    wire.topic(name).partitions.len()
}

#[test]
fn wire_022_topics_get_more_partitions() {
    let mut broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let (name, other) = (unique("wide"), unique("other"));
    let made = create_all(vec![create(&name, &[]), create(&other, &[])], false);
    assert!(wire.call(7, &made).topics.iter().all(|t| t.error_code == 0));
    let node = wire.topic(&name).partitions[0].replica_nodes[0].0;
    wire.topic(&other);
    wire.produce(&name, batch(&["before"]));
    let had = count(&mut wire, &name) as i32;
    let id = wire.topic(&name).topic_id;
    for version in 0..=3 {
        for trial in [true, false] {
            let refused: [(Widen<'_>, i16); 10] = [
                ((&name, had, None), 37),
                ((&name, had, Some(&[])), 37),
                ((&name, had - 1, None), 37),
                ((&name, -1, None), 37),
                ((&name, had + 1, Some(&[])), 39),
                ((&name, had + 1, Some(&[&[node], &[node]])), 39),
                ((&name, had + 1, Some(&[&[]])), 39),
                ((&name, had + 1, Some(&[&[node, node]])), 39),
                ((&name, had + 1, Some(&[&[node + 9]])), 39),
                (("no-such-topic", had + 1, None), 3),
            ];
            for (asked, code) in refused {
                let told = widen(&mut wire, version, &[asked], trial);
                assert_eq!(told, [(asked.0.to_owned(), code)], "{asked:?} at version {version}");
            }
        }
    }
    // A trial changes nothing; a name that stands twice fails once, and the others do not.
    assert_eq!(widen(&mut wire, 3, &[(&name, had + 4, None)], true), [(name.clone(), 0)]);
    let mut expect = vec![(name.clone(), 42), (other.clone(), 0)];
    expect.sort();
    let twice = [(&*name, had + 1, None), (&*other, 5, None), (&*name, had + 2, None)];
    assert_eq!(widen(&mut wire, 3, &twice, false), expect);
    assert_eq!(settled_count(&mut wire, &other, 5), 5);
    assert_eq!(count(&mut wire, &name), had as usize);
    // Behind those that are there, on the nodes that were chosen.
    let chosen: &[&[i32]] = &[&[node], &[node]];
    assert_eq!(widen(&mut wire, 2, &[(&name, had + 2, Some(chosen))], false), [(name.clone(), 0)]);
    assert_eq!(settled_count(&mut wire, &name, had as usize + 2), had as usize + 2);
    let topic = wire.topic(&name);
    assert_eq!(topic.topic_id, id, "it is the same topic");
    assert!(topic.partitions.iter().all(|p| p.error_code == 0 && p.replica_nodes == [BrokerId(node)]));
    assert_eq!(values(&wire.fetch(&name, 0), 0), ["before"]);
    if broker.is_foreign() {
        return;
    }
    // Acknowledged is durable: partitions, and what the new ones hold.
    let last = had + 1;
    for (partition, value) in [(0, "old"), (last, "new")] {
        let mut request = produce_request(&name, -1, Some(batch(&[value])));
        request.topic_data[0].partition_data[0].index = partition;
        assert_eq!(wire.call(9, &request).responses[0].partition_responses[0].error_code, 0);
    }
    broker.kill();
    broker.restart().unwrap();
    let mut wire = Wire::to(&broker);
    assert_eq!((count(&mut wire, &name), count(&mut wire, &other)), (had as usize + 2, 5));
    let mut request = fetch_request(&name, 0, 1 << 20, 500);
    request.topics[0].partitions[0].partition = last;
    let part = wire.call(11, &request).responses[0].partitions[0].clone();
    assert_eq!(values(&part, 0), ["new"]);
    assert_eq!(values(&wire.fetch(&name, 0), 0), ["before", "old"]);
    // They go with their topic, and no directory stays.
    let groups = || std::fs::read_dir(broker.data_dir().join("p")).unwrap().count();
    let before = groups();
    delete(&mut wire, &name);
    let begun = std::time::Instant::now();
    while groups() != before - (had as usize + 2) {
        assert!(begun.elapsed().as_secs() < 20, "{} directories of {before} are left", groups());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // Where a key belongs would change: machines would not find what they wrote.
    let audit = "__catchwater_audit";
    assert_eq!(widen(&mut wire, 3, &[(audit, 3, None)], false), [(audit.to_owned(), 17)]);
    assert_eq!(
        widen(&mut wire, 3, &[(&other, 10_001, None)], false),
        [(other.clone(), 37)],
        "more than a topic may have"
    );
    assert_eq!(widen(&mut wire, 3, &[(&other, i32::MAX, None)], true), [(other.clone(), 37)]);
}

/// A Kafka's Metadata shows new partitions a moment later.
fn settled_count(wire: &mut Wire, name: &str, wanted: usize) -> usize {
    let begun = std::time::Instant::now();
    while foreign() && count(wire, name) != wanted && begun.elapsed().as_secs() < 20 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    count(wire, name)
}

#[test]
fn wire_034_log_directories_are_described() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let (name, other) = (unique("dirs"), unique("other"));
    wire.topic(&name);
    wire.topic(&other);
    assert_eq!(widen(&mut wire, 3, &[(&name, 3, None)], false), [(name.clone(), 0)]);
    settled_count(&mut wire, &name, 3);
    let bytes = batch(&["a", "b", "c"]);
    wire.produce(&name, bytes.clone());
    let ask = |wire: &mut Wire, version, topics: Option<&[(&str, &[i32])]>| {
        let topic = |(name, partitions): &(&str, &[i32])| {
            kp!(DescribableLogDirTopic { topic: topic_name(name), partitions: partitions.to_vec() })
        };
        let topics = topics.map(|all| all.iter().map(topic).collect());
        let reply = wire.call(version, &kp!(DescribeLogDirsRequest { topics: topics }));
        assert_eq!((reply.error_code, reply.results.len(), reply.results[0].error_code), (0, 1, 0));
        reply.results[0].clone()
    };
    let partitions = |topics: &[DescribeLogDirsTopic], name: &str| {
        let of_it = topics.iter().filter(|t| t.name.as_str() == name).flat_map(|t| &t.partitions);
        let mut all: Vec<_> = of_it.map(|p| (p.partition_index, p.partition_size)).collect();
        all.sort_unstable();
        all
    };
    let begun = std::time::Instant::now();
    let size = bytes.len() as i64;
    // The size is that of files: the journal may have it for a moment alone.
    while partitions(&ask(&mut wire, 4, None).topics, &name) != [(0, size), (1, 0), (2, 0)] {
        assert!(begun.elapsed().as_secs() < 20, "{:?}", ask(&mut wire, 4, None).topics);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    for version in 1..=4 {
        let all = ask(&mut wire, version, None);
        assert!(std::path::Path::new(all.log_dir.as_str()).is_absolute());
        if !broker.is_foreign() {
            assert_eq!(all.log_dir.as_str(), broker.data_dir().to_str().unwrap());
        }
        assert_eq!(partitions(&all.topics, &other), [(0, 0)]);
        assert!(all.topics.iter().flat_map(|t| &t.partitions).all(|p| p.offset_lag == 0 && !p.is_future_key));
        let space = (all.total_bytes, all.usable_bytes);
        assert!(if version >= 4 { 0 < space.1 && space.1 <= space.0 } else { space == (-1, -1) }, "{space:?}");
        // Only what is asked for and there; named twice, told once.
        let some = [(&*name, &[2, 0, 77, -1][..]), ("no-such-topic", &[0]), (&name, &[0])];
        let told = ask(&mut wire, version, Some(&some)).topics;
        assert_eq!((told.len(), partitions(&told, &name)), (1, vec![(0, size), (2, 0)]));
        assert!(ask(&mut wire, version, Some(&[])).topics.is_empty());
        assert!(ask(&mut wire, version, Some(&[(&name, &[])])).topics.is_empty());
    }
}

fn producers(wire: &mut Wire, topic: &str, partitions: &[i32]) -> Vec<PartitionResponse> {
    let topic = kp!(TopicRequest { name: topic_name(topic), partition_indexes: partitions.to_vec() });
    let reply = wire.call(0, &kp!(DescribeProducersRequest { topics: vec![topic] }));
    reply.topics.into_iter().next().unwrap().partitions
}

#[test]
fn wire_097_producers_of_a_partition_are_described() {
    let mut broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let name = unique("producers");
    wire.topic(&name);
    assert!(producers(&mut wire, &name, &[0])[0].active_producers.is_empty());
    wire.produce(&name, batch(&["of nobody"]));
    let (one, two) = (producer_id(&mut wire), producer_id(&mut wire));
    let at = now_ms();
    for (producer, sequence, ms, values) in
        [(one, 0, at, &["a", "b"][..]), (two, 0, at, &["c"]), (one, 2, at - 500, &["d", "e", "f"])]
    {
        let builder = Builder::new().producer(producer.0, producer.1, sequence);
        assert_eq!(wire.produce(&name, batch_with(builder, ms, values)).error_code, 0);
    }
    let told = |wire: &mut Wire| {
        let part = producers(wire, &name, &[0]).remove(0);
        assert_eq!((part.error_code, part.error_message), (0, None));
        let producer = |p: &kafka_protocol::messages::describe_producers_response::ProducerState| {
            let ends = (p.coordinator_epoch, p.current_txn_start_offset);
            (p.producer_id.0, p.producer_epoch, p.last_sequence, p.last_timestamp, ends)
        };
        let mut all: Vec<_> = part.active_producers.iter().map(producer).collect();
        all.sort_unstable();
        all
    };
    let mut expect = vec![(one.0, 0, 4, at - 500, (-1, -1)), (two.0, 0, 0, at, (-1, -1))];
    expect.sort_unstable();
    assert_eq!(told(&mut wire), expect);
    let codes = |parts: Vec<PartitionResponse>| -> Vec<i16> { parts.iter().map(|p| p.error_code).collect() };
    assert_eq!(codes(producers(&mut wire, &name, &[99, -1])), [3, 3]);
    assert_eq!(codes(producers(&mut wire, "no-such-topic", &[0])), [3]);
    assert_eq!(codes(producers(&mut wire, "", &[0])), [17]);
    if broker.is_foreign() {
        return;
    }
    // One partition may have as many producers as the node: it is told once.
    assert_eq!(codes(producers(&mut wire, &name, &[0, 0])), [0, 42]);
    broker.kill();
    broker.restart().unwrap();
    let mut wire = Wire::to(&broker);
    wire.topic(&name);
    assert_eq!(told(&mut wire), expect, "after a death");
}

#[test]
fn wire_032_resources_with_settings_are_listed() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let name = unique("listed");
    wire.topic(&name);
    let node = wire.call(12, &kp!(MetadataRequest { topics: Some(vec![]) })).brokers[0].node_id.0.to_string();
    let mut ask = |version, kinds: &[i8]| {
        let reply = wire.call(version, &kp!(ListConfigResourcesRequest { resource_types: kinds.to_vec() }));
        let all = reply.config_resources.iter().map(|r| (r.resource_type, r.resource_name.to_string()));
        (reply.error_code, all.collect::<Vec<_>>())
    };
    assert_eq!(ask(0, &[]), (0, vec![]), "client metrics");
    assert_eq!(ask(1, &[4]), (0, vec![(4, node.clone())]));
    for kinds in [&[][..], &[2], &[4, 2, 4]] {
        let (code, all) = ask(1, kinds);
        assert!(code == 0 && all.contains(&(2, name.clone())), "{kinds:?}: {all:?}");
        assert_eq!(all.contains(&(4, node.clone())), kinds.len() != 1, "{kinds:?}: {all:?}");
    }
    for none in [16, 32] {
        assert_eq!(ask(1, &[none]), (0, vec![]));
    }
    for unknown in [&[0][..], &[1], &[3], &[64], &[-1], &[2, 99]] {
        assert_eq!(ask(1, unknown), (35, vec![]));
    }
}
