//! C. Configs and administration: DeleteRecords, AlterConfigs, IncrementalAlterConfigs.

use catchwater_tests::broker::{Broker, Settings, unique};
use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource as Replaced, AlterableConfig as Pair};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::*;

use crate::fetch::offset_at;
use crate::topics::{create, create_all};
use crate::wire::*;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub fn delete_records(wire: &mut Wire, version: i16, topic: &str, partition: i32, offset: i64) -> (i16, i64) {
    let request = kp!(DeleteRecordsRequest {
        topics: vec![kp!(DeleteRecordsTopic {
            name: topic_name(topic),
            partitions: vec![kp!(DeleteRecordsPartition { partition_index: partition, offset: offset })],
        })],
        timeout_ms: 10_000,
    });
    let reply = wire.call(version, &request);
    let part = &reply.topics[0].partitions[0];
    assert_eq!((reply.topics[0].name.as_str(), part.partition_index), (topic, partition));
    (part.error_code, part.low_watermark)
}

#[test]
fn wire_028_delete_records_moves_the_log_start_for_good() {
    let mut broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let name = unique("trim");
    wire.topic(&name);
    for i in 0..6 {
        wire.produce(&name, batch(&[&format!("a{i}"), &format!("b{i}")]));
    }
    for (version, upto) in [(0, 2), (1, 5), (2, 5)] {
        assert_eq!(delete_records(&mut wire, version, &name, 0, upto), (0, upto), "version {version}");
    }
    // Going back is no error and changes nothing.
    assert_eq!(delete_records(&mut wire, 2, &name, 0, 1), (0, 5));
    assert_eq!(delete_records(&mut wire, 2, &name, 0, 13), (1, -1), "above the high watermark");
    assert_eq!(delete_records(&mut wire, 2, &name, 0, -2), (1, -1));
    assert_eq!(delete_records(&mut wire, 2, &name, 9, 0).0, 3);
    assert_eq!(delete_records(&mut wire, 2, &unique("nobody"), 0, 0).0, 3);
    crate::groups::coordinator_ready(&mut wire, "some-group");
    assert_eq!(delete_records(&mut wire, 2, "__consumer_offsets", 0, 0).0, 17);
    let check = |wire: &mut Wire, start: i64| {
        assert_eq!(offset_at(wire, &name, -2), start);
        let part = wire.fetch(&name, start - 1);
        assert_eq!((part.error_code, part.log_start_offset), (1, -1), "below the log start");
        let part = wire.fetch(&name, start);
        assert_eq!((part.error_code, part.log_start_offset), (0, start));
    };
    check(&mut wire, 5);
    // The log start lies inside a batch: the batch comes whole, as Kafka's does; the client drops what it did not ask for.
    assert_eq!(values(&wire.fetch(&name, 5), 5)[0], "b2");
    if !broker.is_foreign() {
        broker.kill();
        broker.restart().unwrap();
        wire = Wire::to(&broker);
        wire.topic(&name);
        check(&mut wire, 5);
    }
    assert_eq!(delete_records(&mut wire, 2, &name, 0, -1), (0, 12), "-1 = the high watermark");
    assert_eq!((offset_at(&mut wire, &name, -2), offset_at(&mut wire, &name, -1)), (12, 12));
    wire.produce(&name, batch(&["next"]));
    assert_eq!(values(&wire.fetch(&name, 12), 12), ["next"]);
    // KIP-107: what is compacted only is not deleted by clients.
    let compacted = unique("compacted");
    wire.call(7, &create_all(vec![create(&compacted, &[("cleanup.policy", "compact")])], false));
    wire.topic(&compacted);
    assert_eq!(delete_records(&mut wire, 2, &compacted, 0, -1).0, 44);
}

fn described(wire: &mut Wire, kind: i8, name: &str, key: &str) -> (Option<String>, i8) {
    let request = kp!(DescribeConfigsRequest {
        resources: vec![kp!(DescribeConfigsResource {
            resource_type: kind,
            resource_name: text(name),
            configuration_keys: Some(vec![text(key)]),
        })],
    });
    let reply = wire.call(4, &request);
    let config = &reply.results[0].configs[0];
    (config.value.as_ref().map(|v| v.to_string()), config.config_source)
}

/// Kafka's broker shows a change a moment after it was answered.
#[track_caller]
fn shows(wire: &mut Wire, name: &str, key: &str, value: &str, source: i8) {
    let mut last = None;
    for _ in 0..200 {
        let now = described(wire, TOPIC, name, key);
        if now == (Some(value.to_owned()), source) {
            return;
        }
        last = Some(now);
    }
    panic!("{key} is {last:?}, not {value} of source {source}");
}

/// (key, operation, value)
pub type Step<'a> = (&'a str, i8, Option<&'a str>);

pub fn alter(wire: &mut Wire, version: i16, resources: &[(i8, &str, &[Step<'_>])], dry: bool) -> Vec<(i16, String)> {
    let one = |(kind, name, steps): &(i8, &str, &[Step<'_>])| {
        let config = |(key, op, value): &Step<'_>| {
            kp!(AlterableConfig { name: text(key), config_operation: *op, value: value.map(text) })
        };
        kp!(AlterConfigsResource {
            resource_type: *kind,
            resource_name: text(name),
            configs: steps.iter().map(config).collect(),
        })
    };
    let request =
        kp!(IncrementalAlterConfigsRequest { resources: resources.iter().map(one).collect(), validate_only: dry });
    let reply = wire.call(version, &request);
    let told = reply.responses.iter().zip(resources).map(|(r, (kind, name, _))| {
        assert_eq!((r.resource_type, r.resource_name.as_str()), (*kind, *name));
        (r.error_code, r.error_message.as_ref().map(|m| m.to_string()).unwrap_or_default())
    });
    told.collect()
}

#[test]
fn wire_030_settings_change_step_by_step() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let name = unique("steps");
    wire.topic(&name);
    let set = |key, value| (key, SET, Some(value));
    for version in 0..=1 {
        let steps = [set("retention.ms", "1000"), set("segment.ms", " 60000 ")];
        assert_eq!(alter(&mut wire, version, &[(TOPIC, &name, &steps)], false)[0].0, 0);
        shows(&mut wire, &name, "retention.ms", "1000", 1);
        let back = [("retention.ms", DELETE, None), ("segment.ms", DELETE, None)];
        assert_eq!(alter(&mut wire, version, &[(TOPIC, &name, &back)], false)[0].0, 0);
        shows(&mut wire, &name, "retention.ms", "604800000", 5);
    }
    // Lists are added to and taken from; what is not set begins at its default.
    let add = [("cleanup.policy", APPEND, Some("compact"))];
    assert_eq!(alter(&mut wire, 1, &[(TOPIC, &name, &add)], true)[0].0, 0);
    shows(&mut wire, &name, "cleanup.policy", "delete", 5);
    assert_eq!(alter(&mut wire, 1, &[(TOPIC, &name, &add)], false)[0].0, 0);
    shows(&mut wire, &name, "cleanup.policy", "delete,compact", 1);
    let less = [("cleanup.policy", SUBTRACT, Some("delete"))];
    assert_eq!(alter(&mut wire, 1, &[(TOPIC, &name, &less)], false)[0].0, 0);
    shows(&mut wire, &name, "cleanup.policy", "compact", 1);
    // One that fails changes nothing, neither in its resource nor in the others.
    let other = unique("other");
    wire.topic(&other);
    let (gone, bad) = (unique("gone"), [set("retention.bytes", "7"), set("retention.ms", "soon")]);
    let fine = [set("retention.bytes", "7")];
    let mixed = alter(&mut wire, 1, &[(TOPIC, &name, &bad), (TOPIC, &other, &fine), (TOPIC, &gone, &fine)], false);
    assert_eq!(mixed.iter().map(|r| r.0).collect::<Vec<_>>(), [40, 0, 3]);
    assert_eq!(mixed[0].1, "Invalid value soon for configuration retention.ms: Not a number of type LONG");
    assert_eq!(described(&mut wire, TOPIC, &name, "retention.bytes").1, 5);
    shows(&mut wire, &other, "retention.bytes", "7", 1);
    let node = wire.call(12, &kp!(MetadataRequest { topics: Some(vec![]) })).brokers[0].node_id.0.to_string();
    let cases: &[(i16, i8, &str, &[Step<'_>])] = &[
        (40, TOPIC, &name, &[("retention.ms", APPEND, Some("1"))]),
        (40, TOPIC, &name, &[("retention.ms", SUBTRACT, Some("1"))]),
        (40, TOPIC, &name, &[set("no.such.key", "1")]),
        (40, TOPIC, &name, &[set("min.compaction.lag.ms", "2"), set("max.compaction.lag.ms", "1")]),
        (42, TOPIC, &name, &[set("retention.ms", "1"), set("retention.ms", "2")]),
        (42, TOPIC, &name, &[("retention.ms", SET, None)]),
        (42, TOPIC, "", &[set("retention.ms", "1")]),
        (17, TOPIC, "a/b", &[set("retention.ms", "1")]),
        (42, 7, "x", &[set("retention.ms", "1")]),
        (42, BROKER, "12345", &[set("message.max.bytes", "1")]),
        (42, BROKER, &node, &[set("log.dirs", "x")]),
    ];
    for (code, kind, name, steps) in cases {
        assert_eq!(alter(&mut wire, 1, &[(*kind, name, steps)], false)[0].0, *code, "{name:?} {steps:?}");
    }
    let twice = alter(&mut wire, 1, &[(TOPIC, &other, &fine), (TOPIC, &other, &fine)], false);
    assert!(twice.iter().all(|r| r.0 == 42), "{twice:?}");
    wire.lives();
}

#[test]
fn wire_031_alter_configs_replaces_all_and_acts_at_once() {
    let mut broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let name = unique("all");
    wire.topic(&name);
    let replace = |wire: &mut Wire, version: i16, pairs: &[(&str, Option<&str>)], dry: bool| {
        let configs = pairs.iter().map(|(k, v)| kp!(Pair { name: text(k), value: v.map(text) })).collect();
        let resources = vec![kp!(Replaced { resource_type: TOPIC, resource_name: text(&name), configs: configs })];
        let reply = wire.call(version, &kp!(AlterConfigsRequest { resources: resources, validate_only: dry }));
        reply.responses[0].error_code
    };
    for version in 0..=2 {
        assert_eq!(replace(&mut wire, version, &[("retention.ms", Some("5000")), ("flush.ms", Some("7"))], false), 0);
        assert_eq!(replace(&mut wire, version, &[("retention.bytes", Some("9"))], true), 0);
        shows(&mut wire, &name, "retention.ms", "5000", 1);
        assert_eq!(replace(&mut wire, version, &[("retention.bytes", Some("9"))], false), 0);
        // Not named, so it is the default's again.
        shows(&mut wire, &name, "retention.ms", "604800000", 5);
        assert_eq!(replace(&mut wire, version, &[("retention.bytes", None)], false), 42);
        assert_eq!(replace(&mut wire, version, &[("nope", Some("9"))], false), 40);
        shows(&mut wire, &name, "retention.bytes", "9", 1);
    }
    // Settings act without a restart: a batch that fitted does not any more, and does again.
    let large = batch(&[&"x".repeat(2_000)]);
    assert_eq!(wire.produce(&name, large.clone()).error_code, 0);
    assert_eq!(replace(&mut wire, 2, &[("max.message.bytes", Some("1000"))], false), 0);
    let refused = |wire: &mut Wire, code: i16| {
        for _ in 0..100 {
            if wire.produce(&name, large.clone()).error_code == code {
                return;
            }
        }
        panic!("no {code}");
    };
    refused(&mut wire, 10);
    if !broker.is_foreign() {
        // And they are there after a crash.
        broker.kill();
        broker.restart().unwrap();
        wire = Wire::to(&broker);
        wire.topic(&name);
        shows(&mut wire, &name, "max.message.bytes", "1000", 1);
        refused(&mut wire, 10);
    }
    assert_eq!(replace(&mut wire, 2, &[], false), 0);
    refused(&mut wire, 0);
}

/// A batch of (key, value); no value is a tombstone.
fn keyed(pairs: &[(&str, Option<&str>)]) -> bytes::Bytes {
    let mut builder = catchwater_record::batch::build::Builder::new();
    for (key, value) in pairs {
        builder.push(now_ms(), Some(key.as_bytes()), value.map(str::as_bytes), []);
    }
    builder.finish().freeze()
}

/// A record that is left: offset, key, value.
pub type Left = (i64, String, Option<String>);

/// What is there.
pub fn all(wire: &mut Wire, topic: &str) -> Vec<Left> {
    let (mut next, end, mut out) = (offset_at(wire, topic, -2), offset_at(wire, topic, -1), Vec::new());
    while next < end {
        let bytes = wire.fetch(topic, next).records.unwrap_or_default();
        let text = |b: bytes::Bytes| String::from_utf8(b.to_vec()).unwrap();
        for r in catchwater_client::remote::decode_records(&bytes, next).unwrap() {
            out.push((r.offset, r.key.map(text).unwrap(), r.value.map(text)));
        }
        next = catchwater_client::remote::end_of_batches(&bytes).expect("there is more");
    }
    out
}

/// Fast enough for a test: small segments, no patience.
pub fn eager() -> Settings {
    Settings::default().with("log.cleaner.backoff.ms", "20").with("log.retention.check.interval.ms", "20")
}

/// Asks again until it is so, at most 30 s.
#[track_caller]
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !so() {
        assert!(begun.elapsed().as_secs() < 30, "{what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn wire_035_a_compacted_topic_keeps_the_newest_of_every_key() {
    let mut broker = Broker::start_with(eager());
    if broker.is_foreign() {
        return; // its cleaner's pause is the broker's own
    }
    let mut wire = Wire::to(&broker);
    let name = unique("compacted");
    let settings = [
        ("cleanup.policy", "compact"),
        ("internal.segment.bytes", "2000"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("delete.retention.ms", "86400000"),
        ("file.delete.delay.ms", "0"),
    ];
    wire.call(7, &create_all(vec![create(&name, &settings)], false));
    wire.topic(&name);
    assert_eq!(wire.produce(&name, batch(&["no key"])).error_code, 87);
    let filler = "x".repeat(100);
    for round in 0..40 {
        let value = format!("{round} {filler}");
        let pairs = [("a", Some(&*value)), ("b", Some(&*value)), ("gone", (round < 20).then_some(&*value))];
        assert_eq!(wire.produce(&name, keyed(&pairs)).error_code, 0);
    }
    let end = offset_at(&mut wire, &name, -1);
    assert_eq!(end, 120);
    until("little is left", || all(&mut wire, &name).len() < 30);
    let check = |wire: &mut Wire| {
        let left = all(wire, &name);
        let last = |key: &str| left.iter().rfind(|r| r.1 == key).cloned().unwrap();
        assert_eq!((last("a").0, last("b").0, last("gone").0), (117, 118, 119));
        assert_eq!(last("gone").2, None, "the newest tombstone");
        assert!(last("a").2.unwrap().starts_with("39 "));
        assert_eq!((offset_at(wire, &name, -2), offset_at(wire, &name, -1)), (0, 120), "offsets do not move");
        left
    };
    let before = check(&mut wire);
    broker.kill();
    broker.restart().unwrap();
    let mut wire = Wire::to(&broker);
    wire.topic(&name);
    let after = check(&mut wire);
    assert!(after.len() <= before.len());
    // It goes on from there.
    assert_eq!(wire.produce(&name, keyed(&[("a", Some("new"))])).base_offset, 120);
    assert_eq!(all(&mut wire, &name).last().unwrap().2.as_deref(), Some("new"));
}

#[test]
fn wire_035b_groups_and_topics_live_through_compaction_of_their_logs() {
    let mut broker = Broker::start_with(eager());
    if broker.is_foreign() {
        return;
    }
    let mut wire = Wire::to(&broker);
    let name = unique("read");
    wire.topic(&name);
    crate::groups::coordinator_ready(&mut wire, "steady");
    let small = [("internal.segment.bytes", SET, Some("1000")), ("min.cleanable.dirty.ratio", SET, Some("0.01"))];
    assert_eq!(alter(&mut wire, 1, &[(TOPIC, "__consumer_offsets", &small)], false)[0].0, 0);
    for offset in 0..300 {
        assert_eq!(crate::groups::commit_simple(&mut wire, "steady", &name, offset), 0);
    }
    until("the offsets topic is compacted", || broker.metric("catchwater_compaction_runs_total") > 0.0);
    assert_eq!(crate::groups::committed(&mut wire, "steady", &name), 299);
    broker.kill();
    broker.restart().unwrap();
    let mut wire = Wire::to(&broker);
    crate::groups::coordinator_ready(&mut wire, "steady");
    assert_eq!(crate::groups::committed(&mut wire, "steady", &name), 299);
    assert_eq!(crate::groups::commit_simple(&mut wire, "steady", &name, 300), 0);
}

#[test]
fn wire_028b_retention_lets_go_of_everything_that_is_old() {
    let broker = Broker::start_with(eager());
    if broker.is_foreign() {
        return;
    }
    let mut wire = Wire::to(&broker);
    let name = unique("old");
    wire.call(7, &create_all(vec![create(&name, &[("retention.ms", "3600000")])], false));
    wire.topic(&name);
    let hours_ago = now_ms() - 7_200_000;
    let old = batch_with(catchwater_record::batch::build::Builder::new(), hours_ago, &["old", "older"]);
    assert_eq!(wire.produce(&name, old).error_code, 0);
    until("the open segment goes too", || offset_at(&mut wire, &name, -2) == 2);
    assert_eq!(wire.fetch(&name, 0).error_code, 1);
    assert_eq!(wire.produce(&name, batch(&["young"])).base_offset, 2);
    assert_eq!(values(&wire.fetch(&name, 2), 2), ["young"]);
    assert_eq!(offset_at(&mut wire, &name, -2), 2);
    // By size: whole segments, until no more than the limit would be left.
    let sized = unique("sized");
    let settings = [("retention.bytes", "3000"), ("internal.segment.bytes", "1000"), ("file.delete.delay.ms", "0")];
    wire.call(7, &create_all(vec![create(&sized, &settings)], false));
    wire.topic(&sized);
    for _ in 0..30 {
        wire.produce(&sized, batch(&[&"y".repeat(300)]));
    }
    until("old segments go", || (17..=22).contains(&offset_at(&mut wire, &sized, -2)));
}
