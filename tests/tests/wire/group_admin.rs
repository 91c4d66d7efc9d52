//! F. What administrators ask about groups: DescribeGroups, ListGroups, DeleteGroups, OffsetDelete.

use std::collections::BTreeMap;

use bytes::Bytes;
use catchwater_tests::broker::{Broker, unique};
use kafka_protocol::messages::describe_groups_response::DescribedGroup;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::*;

use crate::groups::{commit, committed_code, coordinator_ready, group_id, heartbeat, join, lone_member, settled, sync};
use crate::wire::*;

fn describe(wire: &mut Wire, version: i16, group: &str, operations: bool) -> DescribedGroup {
    let request = kp!(DescribeGroupsRequest {
        groups: vec![group_id(group)],
        include_authorized_operations: operations && version >= 3,
    });
    wire.call(version, &request).groups.remove(0)
}

/// Name → protocol type, state, type.
fn list(wire: &mut Wire, version: i16, states: &[&str], types: &[&str]) -> BTreeMap<String, [String; 3]> {
    let texts = |words: &[&str]| words.iter().map(|w| text(w)).collect::<Vec<_>>();
    let request = kp!(ListGroupsRequest { states_filter: texts(states), types_filter: texts(types) });
    let reply = wire.call(version, &request);
    assert_eq!(reply.error_code, 0);
    let told = |s: &kafka_protocol::protocol::StrBytes| s.to_string();
    let row = |g: list_groups_response::ListedGroup| {
        (g.group_id.to_string(), [told(&g.protocol_type), told(&g.group_state), told(&g.group_type)])
    };
    reply.groups.into_iter().map(row).collect()
}

pub fn delete(wire: &mut Wire, version: i16, groups: &[&str]) -> Vec<(String, i16)> {
    let request = kp!(DeleteGroupsRequest { groups_names: groups.iter().map(|g| group_id(g)).collect() });
    let mut results: Vec<_> =
        wire.call(version, &request).results.into_iter().map(|r| (r.group_id.to_string(), r.error_code)).collect();
    results.sort();
    results
}

/// Error of the whole, and of each topic's partitions 0 and 9.
pub fn forget(wire: &mut Wire, group: &str, topics: &[&str]) -> (i16, BTreeMap<String, Vec<i16>>) {
    let request = kp!(OffsetDeleteRequest {
        group_id: group_id(group),
        topics: topics
            .iter()
            .map(|t| kp!(OffsetDeleteRequestTopic {
                name: topic_name(t),
                partitions: [0, 9].map(|p| kp!(OffsetDeleteRequestPartition { partition_index: p })).to_vec(),
            }))
            .collect(),
    });
    let reply = wire.call(0, &request);
    let codes = |partitions: Vec<offset_delete_response::OffsetDeleteResponsePartition>| {
        let by_index: BTreeMap<i32, i16> = partitions.iter().map(|p| (p.partition_index, p.error_code)).collect();
        by_index.into_values().collect()
    };
    (reply.error_code, reply.topics.into_iter().map(|t| (t.name.to_string(), codes(t.partitions))).collect())
}

/// ConsumerProtocolSubscription v0.
fn subscription(topic: &str) -> Bytes {
    let mut out = vec![0, 0, 0, 0, 0, 1];
    out.extend((topic.len() as i16).to_be_bytes());
    out.extend(topic.as_bytes());
    out.extend((-1i32).to_be_bytes());
    out.into()
}

/// A consumer of one topic, stable.
fn reader(wire: &mut Wire, group: &str, topic: &str) -> (String, i32) {
    coordinator_ready(wire, group);
    let mut request = join(group, "", &[]);
    request.protocols = vec![kp!(JoinGroupRequestProtocol { name: text("range"), metadata: subscription(topic) })];
    let (code, joined) = settled(|| {
        let reply = wire.call(3, &request);
        (reply.error_code, reply)
    });
    assert_eq!(code, 0);
    let synced = wire.call(3, &sync(group, joined.generation_id, &joined.member_id, &[(&joined.member_id, b"all")]));
    assert_eq!(synced.error_code, 0);
    (joined.member_id.to_string(), joined.generation_id)
}

fn leave(wire: &mut Wire, group: &str, member: &str) {
    assert_eq!(
        wire.call(2, &kp!(LeaveGroupRequest { group_id: group_id(group), member_id: text(member) })).error_code,
        0
    );
}

#[test]
fn wire_073_groups_are_described_and_listed_at_every_version() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let (group, simple, nobody) = (unique("shown"), unique("simple"), unique("nobody"));
    let (member, generation) = lone_member(&mut wire, &group);
    let topic = unique("t");
    wire.topic(&topic);
    coordinator_ready(&mut wire, &simple);
    assert_eq!(committed_code(&mut wire, &commit(&simple, -1, "", &topic, 1, None)), 0);
    for version in 0..=6 {
        let found = describe(&mut wire, version, &group, true);
        let told =
            (found.error_code, found.group_state.as_str(), found.protocol_type.as_str(), found.protocol_data.as_str());
        assert_eq!(told, (0, "Stable", "consumer", "range"), "v{version}");
        let one = &found.members[0];
        assert_eq!((found.members.len(), one.member_id.as_str()), (1, member.as_str()));
        assert_eq!((one.client_id.as_str(), one.client_host.as_str()), ("wire", "/127.0.0.1"));
        assert_eq!((&one.member_metadata[..], &one.member_assignment[..]), (&b"meta"[..], &b"all"[..]));
        let operations = if version >= 3 { 3400 } else { i32::MIN };
        assert_eq!(found.authorized_operations, operations, "v{version}");
        assert_eq!(describe(&mut wire, version, &group, false).authorized_operations, i32::MIN, "not asked");
        let empty = describe(&mut wire, version, &simple, false);
        assert_eq!((empty.error_code, empty.group_state.as_str(), empty.members.len()), (0, "Empty", 0));
        let unknown = describe(&mut wire, version, &nobody, false);
        let code = if version >= 6 { 69 } else { 0 };
        assert_eq!((unknown.error_code, unknown.group_state.as_str()), (code, "Dead"), "v{version}");
        assert_eq!(unknown.error_message.is_some(), version >= 6);
    }
    for version in 0..=5 {
        let all = list(&mut wire, version, &[], &[]);
        let type_of = if version >= 5 { "classic" } else { "" };
        let state = |s: &str| if version >= 4 { s.to_owned() } else { String::new() };
        assert_eq!(all[&group], ["consumer".to_owned(), state("Stable"), type_of.to_owned()], "v{version}");
        assert_eq!(all[&simple], [String::new(), state("Empty"), type_of.to_owned()], "v{version}");
        assert!(!all.contains_key(&nobody), "v{version}: a question makes no group");
    }
    for (states, types, shown) in [
        (&["stable"][..], &[][..], (true, false)),
        (&["EMPTY", "Dead"], &["Classic"], (false, true)),
        (&["preparingrebalance"], &[], (false, false)),
        (&[], &["consumer"], (false, false)),
        (&[], &["no such type", "classic"], (true, true)),
    ] {
        let all = list(&mut wire, 5, states, types);
        assert_eq!((all.contains_key(&group), all.contains_key(&simple)), shown, "{states:?} {types:?}");
    }
    // Not stable: the members are there, their subscriptions are not told.
    let mut other = Wire::to(&broker);
    let waiting = other.send(3, &join(&group, "", &["range"]));
    while wire.call(3, &heartbeat(&group, generation, &member)).error_code != 27 {}
    let found = describe(&mut wire, 6, &group, false);
    assert_eq!((found.group_state.as_str(), found.protocol_data.as_str()), ("PreparingRebalance", ""));
    assert_eq!(found.members.len(), 2);
    assert!(found.members.iter().all(|m| m.member_metadata.is_empty()));
    let mut assigned: Vec<_> = found.members.iter().map(|m| &m.member_assignment[..]).collect();
    assigned.sort();
    assert_eq!(assigned, [&b""[..], b"all"], "what a member had is told until it gets another");
    leave(&mut wire, &group, &member);
    assert_eq!(other.reply::<JoinGroupRequest>(3, waiting).error_code, 0);
}

#[test]
fn wire_072_groups_are_deleted_when_empty_and_offsets_when_nobody_reads_the_topic() {
    let mut broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let (topic, other, group) = (unique("read"), unique("other"), unique("deleted"));
    wire.topic(&topic);
    wire.topic(&other);
    let (member, generation) = reader(&mut wire, &group, &topic);
    for name in [&topic, &other] {
        assert_eq!(committed_code(&mut wire, &commit(&group, generation, &member, name, 5, None)), 0);
    }
    let committed = |wire: &mut Wire, topic: &str| {
        let topics = vec![kp!(OffsetFetchRequestTopic { name: topic_name(topic), partition_indexes: vec![0] })];
        let request = kp!(OffsetFetchRequest { group_id: group_id(&group), topics: Some(topics) });
        settled(|| {
            let reply = wire.call(5, &request);
            (reply.error_code, reply.topics[0].partitions[0].committed_offset)
        })
        .1
    };
    let missing = unique("missing");
    let (code, topics) = forget(&mut wire, &group, &[&topic, &other, &missing]);
    assert_eq!(code, 0);
    assert_eq!(topics[&topic], [86, 3], "subscribed; there is no partition 9");
    assert_eq!(topics[&other], [0, 3]);
    assert_eq!(topics[&missing], [3, 3]);
    assert_eq!((committed(&mut wire, &topic), committed(&mut wire, &other)), (5, -1));
    assert_eq!(forget(&mut wire, &unique("nobody"), &[&topic]).0, 69);
    assert_eq!(forget(&mut wire, "", &[&topic]).0, 24);
    // A group whose protocol type is another has members that nobody can judge.
    let worker = unique("worker");
    coordinator_ready(&mut wire, &worker);
    let mut request = join(&worker, "", &["default"]);
    request.protocol_type = text("connect");
    let at_work = wire.call(3, &request).member_id.to_string();
    assert_eq!(forget(&mut wire, &worker, &[&topic]).0, 68);

    let nobody = unique("nobody");
    for version in 0..=2 {
        let mut expect = vec![(group.clone(), 68), (nobody.clone(), 69), (worker.clone(), 68)];
        expect.sort();
        assert_eq!(delete(&mut wire, version, &[&group, &nobody, &group, &worker]), expect, "v{version}");
    }
    leave(&mut wire, &worker, &at_work);
    leave(&mut wire, &group, &member);
    assert_eq!(forget(&mut wire, &group, &[&topic]).1[&topic], [0, 3], "nobody reads it any more");
    assert_eq!(committed(&mut wire, &topic), -1);
    for (version, name) in [(0, &worker), (2, &group)] {
        assert_eq!(delete(&mut wire, version, &[name]), [(name.clone(), 0)]);
        assert_eq!(describe(&mut wire, 6, name, false).error_code, 69);
    }
    if !broker.is_foreign() {
        broker.kill();
        broker.restart().unwrap();
        wire = Wire::to(&broker);
        coordinator_ready(&mut wire, &group);
        assert_eq!(describe(&mut wire, 6, &group, false).error_code, 69, "deleted for good");
        assert!(list(&mut wire, 5, &[], &[]).is_empty());
    }
}
