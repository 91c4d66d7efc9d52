//! What Kafka's own requests change stands in the audit topic: before it is done, in one chain, without values.

use catchwater_tests::broker::{Broker, unique};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::*;
use serde_json::Value;

use crate::admin::widen;
use crate::configs::{alter, delete_records};
use crate::group_admin::{delete, forget};
use crate::groups::{commit, coordinator_ready};
use crate::topics::{create, create_all};
use crate::wire::*;

const TOPIC: i8 = 2;
const SET: i8 = 0;

/// What the node's own command shows of everything, and that the chain holds.
fn audit(broker: &Broker, what: &str) -> Value {
    let binary = catchwater_tests::broker::binary().unwrap();
    let args = ["audit", what, "-b", broker.kafka(), "-o", "json"];
    let out = std::process::Command::new(binary).args(args).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let mut envelope: Value = serde_json::from_slice(&out.stdout).unwrap();
    envelope["result"].take()
}

fn delete_topic(wire: &mut Wire, name: &str) -> i16 {
    let one = kp!(DeleteTopicState { name: Some(topic_name(name)) });
    wire.call(6, &kp!(DeleteTopicsRequest { topics: vec![one], timeout_ms: 10_000 })).responses[0].error_code
}

#[test]
fn what_kafkas_requests_change_is_in_the_audit() {
    let mut broker = Broker::start();
    if broker.is_foreign() {
        return;
    }
    let mut wire = Wire::to(&broker);
    let (name, auto, group) = (unique("kept"), unique("auto"), unique("group"));
    let made = create_all(vec![create(&name, &[("retention.ms", "60001")])], false);
    assert_eq!(wire.call(7, &made).topics[0].error_code, 0);
    assert_eq!(wire.call(7, &made).topics[0].error_code, 36, "it is there");
    let dry = create_all(vec![create(&unique("dry"), &[])], true);
    assert_eq!(wire.call(7, &dry).topics[0].error_code, 0, "a trial changes nothing");
    wire.topic(&auto);
    wire.topic(&name);
    let set = [("segment.ms", SET, Some("424242"))];
    assert_eq!(alter(&mut wire, 1, &[(TOPIC, &name, &set)], false)[0].0, 0);
    let wrong = [("nonsense", SET, Some("canary"))];
    assert_eq!(alter(&mut wire, 1, &[(TOPIC, &name, &wrong)], false)[0].0, 40);
    wire.produce(&name, batch(&["a", "b"]));
    assert_eq!(delete_records(&mut wire, 2, &name, 0, 1), (0, 1));
    assert_eq!(delete_records(&mut wire, 2, &name, 0, 9).0, 1, "behind the end");
    coordinator_ready(&mut wire, &group);
    wire.call(8, &commit(&group, -1, "", &name, 1, None));
    assert_eq!(forget(&mut wire, &group, &[&name]).0, 0);
    wire.call(8, &commit(&group, -1, "", &name, 1, None));
    assert_eq!(delete(&mut wire, 2, &[&group]), [(group.clone(), 0)]);
    assert_eq!(delete(&mut wire, 2, &[&group]), [(group.clone(), 69)]);
    assert_eq!(widen(&mut wire, 3, &[(&name, 2, None)], true), [(name.clone(), 0)], "a trial changes nothing");
    assert_eq!(widen(&mut wire, 3, &[(&name, 2, None)], false), [(name.clone(), 0)]);
    assert_eq!(widen(&mut wire, 3, &[(&name, 1, None)], false), [(name.clone(), 37)]);
    assert_eq!(delete_topic(&mut wire, &auto), 0);
    assert_eq!(delete_topic(&mut wire, &auto), 3, "gone");
    // The chain goes on where it was after a death.
    broker.kill();
    broker.restart().unwrap();
    assert_eq!(delete_topic(&mut Wire::to(&broker), &name), 0);
    let listed = audit(&broker, "list");
    let told: Vec<String> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|e| {
            assert_eq!(e["who"], "User:ANONYMOUS wire");
            assert!(e["from"].as_str().unwrap().starts_with("kafka 127.0.0.1:"), "{e}");
            let word = |k: &str| e[k].as_str().unwrap().replace(&name, "T").replace(&auto, "A").replace(&group, "G");
            let after: Vec<String> = e["after"].as_object().unwrap().values().map(|v| v.to_string()).collect();
            format!("{} {}: {} {}", word("action"), word("on"), word("decision"), after.join(" ").replace(&name, "T"))
        })
        .collect();
    let wanted = [
        r#"topic.create topic T: allowed "-1" "retention.ms""#,
        r#"topic.create topic T: refused TOPIC_ALREADY_EXISTS "-1" "retention.ms""#,
        r#"topic.create topic A: allowed "auto.create.topics.enable""#,
        r#"topic.alter topic T: allowed "segment.ms""#,
        r#"topic.alter topic T: refused INVALID_CONFIG "nonsense""#,
        r#"topic.delete_records topic T: allowed "0:1""#,
        r#"topic.delete_records topic T: allowed "0:9""#,
        r#"topic.delete_records topic T: failed OFFSET_OUT_OF_RANGE "0:9""#,
        r#"group.delete_offsets group G: allowed "T""#,
        r#"group.delete group G: allowed "#,
        r#"group.delete group G: allowed "#,
        r#"group.delete group G: failed GROUP_ID_NOT_FOUND "#,
        r#"topic.create_partitions topic T: allowed "2""#,
        r#"topic.create_partitions topic T: refused INVALID_PARTITIONS "1""#,
        r#"topic.delete topic A: allowed "#,
        r#"topic.delete topic A: refused UNKNOWN_TOPIC_OR_PARTITION "#,
        r#"topic.delete topic T: allowed "#,
    ];
    assert_eq!(told, wanted);
    let text = listed.to_string();
    for value in ["60001", "424242", "canary"] {
        assert!(!text.contains(value), "the value {value} is in the audit");
    }
    assert_eq!(audit(&broker, "verify")["records"], wanted.len() as u64);
}

#[test]
fn on_a_full_disk_what_makes_room_is_done_and_the_rest_waits() {
    let mut broker = Broker::start();
    if broker.is_foreign() {
        return;
    }
    let name = unique("large");
    let mut wire = Wire::to(&broker);
    wire.topic(&name);
    wire.produce(&name, batch(&["a", "b"]));
    broker.stop().unwrap();
    // No disk has that much: the node is above its floor from the start.
    broker.restart_with(&[("CATCHWATER_MIN_FREE_BYTES", "1125899906842624")]).unwrap();
    let mut wire = Wire::to(&broker);
    assert_eq!(delete_records(&mut wire, 2, &name, 0, 1), (0, 1));
    assert_eq!(delete_topic(&mut wire, &name), 0);
    let refused = wire.call(7, &create_all(vec![create(&unique("more"), &[])], false));
    assert_eq!(refused.topics[0].error_code, 41, "tried again by the client");
    assert!(broker.log().contains("audit.no_room"), "{}", broker.log());
}
