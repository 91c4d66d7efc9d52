//! F. Classic groups and offsets.

use std::time::{Duration, Instant};

use bytes::Bytes;
use catchwater_tests::broker::{Broker, Settings, unique};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;

use crate::wire::*;

pub fn group_id(s: &str) -> GroupId {
    GroupId(text(s))
}

pub fn coordinator_ready(wire: &mut Wire, group: &str) {
    for _ in 0..200 {
        let reply = wire.call(4, &kp!(FindCoordinatorRequest { key_type: 0, coordinator_keys: vec![text(group)] }));
        let found = &reply.coordinators[0];
        match found.error_code {
            0 => return,
            15 => {
                assert_eq!((found.node_id.0, found.host.as_str(), found.port), (-1, "", -1), "not there yet");
                std::thread::sleep(Duration::from_millis(50));
            }
            code => panic!("FindCoordinator: {code}"),
        }
    }
    panic!("no coordinator for {group}");
}

/// A coordinator may still be loading (14) or just have moved (15, 16).
pub fn settled<T>(mut attempt: impl FnMut() -> (i16, T)) -> (i16, T) {
    for _ in 0..200 {
        let (code, value) = attempt();
        if !matches!(code, 14..=16) {
            return (code, value);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the coordinator never settled");
}

pub fn join(group: &str, member: &str, protocols: &[&str]) -> JoinGroupRequest {
    kp!(JoinGroupRequest {
        group_id: group_id(group),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 20_000,
        member_id: text(member),
        protocol_type: text("consumer"),
        protocols: protocols
            .iter()
            .map(|p| kp!(JoinGroupRequestProtocol { name: text(p), metadata: Bytes::from_static(b"meta") }))
            .collect(),
    })
}

pub fn sync(group: &str, generation: i32, member: &str, assignments: &[(&str, &[u8])]) -> SyncGroupRequest {
    kp!(SyncGroupRequest {
        group_id: group_id(group),
        generation_id: generation,
        member_id: text(member),
        assignments: assignments
            .iter()
            .map(|(m, a)| kp!(SyncGroupRequestAssignment { member_id: text(m), assignment: Bytes::copy_from_slice(a) }))
            .collect(),
    })
}

pub fn heartbeat(group: &str, generation: i32, member: &str) -> HeartbeatRequest {
    kp!(HeartbeatRequest { group_id: group_id(group), generation_id: generation, member_id: text(member) })
}

pub fn commit(
    group: &str,
    generation: i32,
    member: &str,
    topic: &str,
    offset: i64,
    metadata: Option<&str>,
) -> OffsetCommitRequest {
    kp!(OffsetCommitRequest {
        group_id: group_id(group),
        generation_id_or_member_epoch: generation,
        member_id: text(member),
        retention_time_ms: -1,
        topics: vec![kp!(OffsetCommitRequestTopic {
            name: topic_name(topic),
            partitions: vec![kp!(OffsetCommitRequestPartition {
                partition_index: 0,
                committed_offset: offset,
                committed_leader_epoch: -1,
                committed_metadata: metadata.map(text),
            })],
        })],
    })
}

/// A commit without membership; its code.
pub fn commit_simple(wire: &mut Wire, group: &str, topic: &str, offset: i64) -> i16 {
    committed_code(wire, &commit(group, -1, "", topic, offset, None))
}

/// What the group has committed for partition 0.
pub fn committed(wire: &mut Wire, group: &str, topic: &str) -> i64 {
    let topics = Some(vec![kp!(OffsetFetchRequestTopic { name: topic_name(topic), partition_indexes: vec![0] })]);
    let request = kp!(OffsetFetchRequest { group_id: group_id(group), topics: topics });
    let (code, offset) = settled(|| {
        let reply = wire.call(7, &request);
        let part = &reply.topics[0].partitions[0];
        (part.error_code, part.committed_offset)
    });
    assert_eq!(code, 0);
    offset
}

pub fn committed_code(wire: &mut Wire, request: &OffsetCommitRequest) -> i16 {
    settled(|| (wire.call(7, request).topics[0].partitions[0].error_code, ())).0
}

/// One member, stable at its generation: member id and generation.
pub fn lone_member(wire: &mut Wire, group: &str) -> (String, i32) {
    coordinator_ready(wire, group);
    // v3 joins at once.
    let (code, reply) = settled(|| {
        let reply = wire.call(3, &join(group, "", &["range"]));
        (reply.error_code, reply)
    });
    assert_eq!(code, 0);
    let member = reply.member_id.to_string();
    assert_eq!(reply.leader.as_str(), member);
    let synced = wire.call(3, &sync(group, reply.generation_id, &member, &[(&member, b"all")]));
    assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"all"[..]));
    (member, reply.generation_id)
}

/// Waits until the member is told to rejoin, that is until another one's join has arrived.
fn told_to_rejoin(wire: &mut Wire, group: &str, generation: i32, member: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while wire.call(3, &heartbeat(group, generation, member)).error_code != 27 {
        assert!(Instant::now() < deadline, "27 in PreparingRebalance");
    }
}

#[test]
fn wire_062_a_new_member_is_given_an_id_first() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let group = unique("ids");
    coordinator_ready(&mut wire, &group);
    for version in 4..=9 {
        let (code, reply) = settled(|| {
            let reply = wire.call(version, &join(&group, "", &["range"]));
            (reply.error_code, reply)
        });
        assert_eq!(code, 79, "version {version}");
        assert!(reply.member_id.starts_with("wire-"), "{}", reply.member_id);
        assert_eq!(reply.member_id.len(), "wire-".len() + 36);
    }
    // Joined with the id it was given.
    let id = wire.call(4, &join(&group, "", &["range"])).member_id.to_string();
    let joined = wire.call(4, &join(&group, &id, &["range"]));
    assert_eq!((joined.error_code, joined.member_id.as_str()), (0, id.as_str()));
    // An id nobody gave.
    assert_eq!(wire.call(4, &join(&group, "somebody", &["range"])).error_code, 25);
    // v0 to v3 join at once.
    for version in 0..=3 {
        let group = unique("old");
        let (code, reply) = settled(|| {
            let reply = wire.call(version, &join(&group, "", &["range"]));
            (reply.error_code, reply)
        });
        assert_eq!((code, reply.members.len()), (0, 1), "version {version}");
        assert_eq!(reply.generation_id, 1);
    }
}

#[test]
fn wire_063_a_static_member_comes_back_without_a_rebalance_and_fences_its_old_self() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let (group, topic) = (unique("static"), unique("t"));
    wire.topic(&topic);
    coordinator_ready(&mut wire, &group);
    let request = |member: &str| {
        let mut request = join(&group, member, &["range"]);
        request.group_instance_id = Some(text("inst-1"));
        request
    };
    let (code, first) = settled(|| {
        let reply = wire.call(5, &request(""));
        (reply.error_code, reply)
    });
    assert_eq!(code, 0, "static members need no round for an id");
    assert!(first.member_id.starts_with("inst-1-"), "{}", first.member_id);
    let mut first_sync = sync(&group, first.generation_id, &first.member_id, &[(&first.member_id, b"mine")]);
    first_sync.group_instance_id = Some(text("inst-1"));
    assert_eq!(wire.call(3, &first_sync).error_code, 0);
    let second = wire.call(9, &request(""));
    assert_eq!((second.error_code, second.generation_id), (0, first.generation_id), "no rebalance");
    assert_ne!(second.member_id, first.member_id);
    assert!(second.skip_assignment || second.leader != second.member_id, "the leader must not assign anew (KIP-814)");
    let mut second_sync = sync(&group, second.generation_id, &second.member_id, &[]);
    second_sync.group_instance_id = Some(text("inst-1"));
    let synced = wire.call(3, &second_sync);
    assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"mine"[..]));
    // The old process is fenced everywhere.
    let mut old_heartbeat = heartbeat(&group, first.generation_id, &first.member_id);
    old_heartbeat.group_instance_id = Some(text("inst-1"));
    assert_eq!(wire.call(3, &old_heartbeat).error_code, 82);
    assert_eq!(wire.call(3, &first_sync).error_code, 82);
    assert_eq!(wire.call(5, &request(&first.member_id)).error_code, 82);
    let mut old_commit = commit(&group, first.generation_id, &first.member_id, &topic, 1, None);
    old_commit.group_instance_id = Some(text("inst-1"));
    assert_eq!(committed_code(&mut wire, &old_commit), 82);
}

#[test]
fn wire_064_members_without_a_common_protocol_are_refused() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let group = unique("proto");
    let (member, _) = lone_member(&mut wire, &group);
    let mut other = Wire::to(&broker);
    assert_eq!(other.call(3, &join(&group, "", &["sticky"])).error_code, 23);
    assert_eq!(other.call(3, &join(&group, "", &[])).error_code, 23);
    let mut wrong = join(&group, "", &["range"]);
    wrong.protocol_type = text("connect");
    assert_eq!(other.call(3, &wrong).error_code, 23);
    // The one with most votes among those all members know.
    let again = wire.call(7, &join(&group, &member, &["sticky", "range"]));
    assert_eq!((again.error_code, again.protocol_name.as_ref().map(|p| p.as_str())), (0, Some("sticky")));
    assert_eq!(again.generation_id, 2);
}

#[test]
fn wire_065_heartbeats_tell_the_state() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let (group, topic) = (unique("beat"), unique("t"));
    wire.topic(&topic);
    let (member, generation) = lone_member(&mut wire, &group);
    assert_eq!(wire.call(3, &heartbeat(&group, generation, &member)).error_code, 0);
    assert_eq!(wire.call(3, &heartbeat(&group, generation + 1, &member)).error_code, 22);
    assert_eq!(wire.call(3, &heartbeat(&group, generation, "nobody")).error_code, 25);
    assert_eq!(wire.call(3, &heartbeat(&unique("no-group"), 1, "nobody")).error_code, 25);
    // A second member joins: the first must rejoin.
    let mut other = Wire::to(&broker);
    let waiting = other.send(3, &join(&group, "", &["range"]));
    told_to_rejoin(&mut wire, &group, generation, &member);
    // In PreparingRebalance a commit of the current generation is accepted (line 66).
    assert_eq!(committed_code(&mut wire, &commit(&group, generation, &member, &topic, 3, None)), 0);
    let first = wire.call(3, &join(&group, &member, &["range"]));
    let second = other.reply::<JoinGroupRequest>(3, waiting);
    assert_eq!((first.error_code, second.error_code), (0, 0));
    assert_eq!((first.generation_id, second.generation_id), (generation + 1, generation + 1));
    let (leader, follower) = if first.leader == first.member_id { (&first, &second) } else { (&second, &first) };
    assert_eq!((leader.members.len(), follower.members.len()), (2, 0));
    // CompletingRebalance: heartbeats are fine, commits are not.
    assert_eq!(wire.call(3, &heartbeat(&group, generation + 1, &first.member_id)).error_code, 0);
    assert_eq!(committed_code(&mut wire, &commit(&group, generation + 1, &first.member_id, &topic, 4, None)), 27);
}

#[test]
fn wire_067_assignments_arrive_whole_and_only_when_the_leader_sent_them() {
    let broker = Broker::start();
    let mut one = Wire::to(&broker);
    let group = unique("sync");
    let (member, generation) = lone_member(&mut one, &group);
    let mut two = Wire::to(&broker);
    let waiting = two.send(3, &join(&group, "", &["range"]));
    told_to_rejoin(&mut one, &group, generation, &member);
    let first = one.call(3, &join(&group, &member, &["range"]));
    let second = two.reply::<JoinGroupRequest>(3, waiting);
    let generation = first.generation_id;
    let (first_id, second_id) = (first.member_id.to_string(), second.member_id.to_string());
    let leader_is_first = first.leader == first.member_id;
    let large = vec![7u8; 300_000];
    let plan: Vec<(&str, &[u8])> = vec![(&first_id, &large), (&second_id, b"small")];
    // The follower waits.
    let (leader, follower, follower_id, leader_id) = if leader_is_first {
        (&mut one, &mut two, &second_id, &first_id)
    } else {
        (&mut two, &mut one, &first_id, &second_id)
    };
    let parked = follower.send(3, &sync(&group, generation, follower_id, &[]));
    follower.patience(Duration::from_millis(300));
    assert_eq!(follower.next(), Next::Silent, "no assignment before the leader's");
    follower.patience(Duration::from_secs(20));
    let leader_reply = leader.call(3, &sync(&group, generation, leader_id, &plan));
    let follower_reply = follower.reply::<SyncGroupRequest>(3, parked);
    let of = |id: &str| if id == first_id { large.clone() } else { b"small".to_vec() };
    assert_eq!((leader_reply.error_code, leader_reply.assignment.to_vec()), (0, of(leader_id)));
    assert_eq!((follower_reply.error_code, follower_reply.assignment.to_vec()), (0, of(follower_id)));
    // Wrong protocol (v5) and generation.
    let mut wrong = sync(&group, generation, leader_id, &[]);
    wrong.protocol_type = Some(text("consumer"));
    wrong.protocol_name = Some(text("sticky"));
    assert_eq!(leader.call(5, &wrong).error_code, 23);
    assert_eq!(leader.call(3, &sync(&group, generation + 1, leader_id, &[])).error_code, 22);
}

#[test]
fn wire_069_leaving_and_bounds() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let group = unique("leave");
    let (member, generation) = lone_member(&mut wire, &group);
    let identity = |m: &str| kp!(MemberIdentity { member_id: text(m), group_instance_id: None });
    let leave =
        kp!(LeaveGroupRequest { group_id: group_id(&group), members: vec![identity(&member), identity("nobody")] });
    let reply = wire.call(4, &leave);
    assert_eq!(reply.error_code, 0);
    assert_eq!(reply.members.iter().map(|m| m.error_code).collect::<Vec<_>>(), [0, 25]);
    assert_eq!(wire.call(3, &heartbeat(&group, generation, &member)).error_code, 25);
    // v0-2: one member.
    let (member, _) = lone_member(&mut wire, &group);
    let old = kp!(LeaveGroupRequest { group_id: group_id(&group), member_id: text(&member) });
    assert_eq!(wire.call(1, &old).error_code, 0);
    // Bounds.
    let mut short = join(&unique("bounds"), "", &["range"]);
    short.session_timeout_ms = 10;
    assert_eq!(wire.call(3, &short).error_code, 26);
    short.session_timeout_ms = 7_200_000;
    assert_eq!(wire.call(3, &short).error_code, 26);
    assert_eq!(wire.call(3, &join("", "", &["range"])).error_code, 24);
}

#[test]
fn wire_066_070_071_offsets_are_committed_and_read_back() {
    let mut broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let group = unique("offsets");
    let (topic, other) = (unique("t"), unique("t"));
    wire.topic(&topic);
    wire.topic(&other);
    coordinator_ready(&mut wire, &group);
    // Simple commits of an empty group.
    assert_eq!(committed_code(&mut wire, &commit(&group, -1, "", &topic, 41, Some("märk"))), 0);
    assert_eq!(committed_code(&mut wire, &commit(&group, -1, "", &other, 7, None)), 0);
    assert_eq!(committed_code(&mut wire, &commit(&group, -1, "", &topic, 42, Some(&"x".repeat(4_097)))), 12);
    assert_eq!(committed_code(&mut wire, &commit(&group, 5, "somebody", &topic, 42, None)), 25);
    let check = |wire: &mut Wire, when: &str| {
        for version in 1..=7 {
            let request = kp!(OffsetFetchRequest {
                group_id: group_id(&group),
                topics: Some(vec![kp!(OffsetFetchRequestTopic {
                    name: topic_name(&topic),
                    partition_indexes: vec![0, 9]
                })]),
            });
            let (code, reply) = settled(|| {
                let reply = wire.call(version, &request);
                (reply.topics[0].partitions[0].error_code, reply)
            });
            assert_eq!(code, 0);
            let parts = &reply.topics[0].partitions;
            assert_eq!(
                (parts[0].committed_offset, parts[0].metadata.as_ref().map(|m| m.as_str())),
                (41, Some("märk")),
                "{when} v{version}"
            );
            assert_eq!(
                (parts[1].committed_offset, parts[1].error_code, parts[1].metadata.as_ref().map(|m| m.as_str())),
                (-1, 0, Some("")),
                "{when} v{version}"
            );
        }
        // All topics; null metadata reads back as "".
        let all = wire.call(7, &kp!(OffsetFetchRequest { group_id: group_id(&group), topics: None }));
        let mut found: Vec<_> =
            all.topics.iter().map(|t| (t.name.to_string(), t.partitions[0].committed_offset)).collect();
        found.sort();
        let mut expect = vec![(topic.clone(), 41), (other.clone(), 7)];
        expect.sort();
        assert_eq!(found, expect, "{when}");
        // Many groups in one request.
        let many = kp!(OffsetFetchRequest {
            groups: vec![
                kp!(OffsetFetchRequestGroup {
                    group_id: group_id(&group),
                    topics: Some(vec![kp!(OffsetFetchRequestTopics {
                        name: topic_name(&other),
                        partition_indexes: vec![0]
                    })]),
                }),
                kp!(OffsetFetchRequestGroup { group_id: group_id(&unique("nobody")), topics: None }),
            ],
        });
        for version in 8..=9 {
            let reply = wire.call(version, &many);
            assert_eq!(reply.groups.len(), 2);
            assert_eq!(reply.groups.iter().map(|g| g.error_code).collect::<Vec<_>>(), [0, 0]);
            let part = &reply.groups[0].topics[0].partitions[0];
            assert_eq!(
                (part.committed_offset, part.metadata.as_ref().map(|m| m.as_str())),
                (7, Some("")),
                "v{version}"
            );
            assert!(reply.groups[1].topics.is_empty());
        }
    };
    check(&mut wire, "running");
    if !broker.is_foreign() {
        broker.kill();
        broker.restart().unwrap();
        wire = Wire::to(&broker);
        coordinator_ready(&mut wire, &group);
        check(&mut wire, "after a kill");
    }
    // With members a simple commit is refused.
    let (member, generation) = lone_member(&mut wire, &group);
    assert_eq!(committed_code(&mut wire, &commit(&group, -1, "", &topic, 50, None)), 25);
    assert_eq!(committed_code(&mut wire, &commit(&group, generation, &member, &topic, 50, None)), 0);
    assert_eq!(committed_code(&mut wire, &commit(&group, generation + 1, &member, &topic, 51, None)), 22);
}

#[test]
fn wire_074_the_coordinator_is_found_at_every_version() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let group = unique("coord");
    coordinator_ready(&mut wire, &group);
    for version in 0..=3 {
        let reply = wire.call(version, &kp!(FindCoordinatorRequest { key: text(&group) }));
        assert_eq!(
            (reply.error_code, format!("{}:{}", reply.host, reply.port)),
            (0, broker.kafka().to_owned()),
            "v{version}"
        );
    }
    for version in 4..=6 {
        let (one, two) = (unique("a"), unique("b"));
        let reply = wire.call(version, &kp!(FindCoordinatorRequest { coordinator_keys: vec![text(&one), text(&two)] }));
        assert_eq!(reply.coordinators.iter().map(|c| c.key.as_str()).collect::<Vec<_>>(), [&one, &two], "v{version}");
        assert!(
            reply.coordinators.iter().all(|c| c.error_code == 0 && format!("{}:{}", c.host, c.port) == broker.kafka())
        );
    }
}

/// A member that falls silent is removed after its session timeout and the others are told.
#[test]
fn wire_068_a_dead_member_is_removed_after_its_session_timeout() {
    let broker = Broker::start_with(Settings::default().with("group.min.session.timeout.ms", "1000"));
    let mut one = Wire::to(&broker);
    let group = unique("dead");
    coordinator_ready(&mut one, &group);
    let mut request = join(&group, "", &["range"]);
    request.session_timeout_ms = 6_000;
    let (code, first) = settled(|| {
        let reply = one.call(3, &request);
        (reply.error_code, reply)
    });
    assert_eq!(code, 0);
    let mut two = Wire::to(&broker);
    let waiting = two.send(3, &join(&group, "", &["range"]));
    request.member_id = first.member_id.clone();
    told_to_rejoin(&mut one, &group, first.generation_id, &first.member_id);
    let again = one.call(3, &request);
    let second = two.reply::<JoinGroupRequest>(3, waiting);
    assert_eq!((again.error_code, second.error_code), (0, 0));
    let generation = second.generation_id;
    let plan: Vec<(&str, &[u8])> = vec![(&again.member_id, b"1"), (&second.member_id, b"2")];
    let (leader, leader_id) =
        if again.leader == again.member_id { (&mut one, &again.member_id) } else { (&mut two, &second.member_id) };
    assert_eq!(leader.call(3, &sync(&group, generation, leader_id, &plan)).error_code, 0);
    // Member one goes away without a word.
    drop(one);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match two.call(3, &heartbeat(&group, generation, &second.member_id)).error_code {
            0 => assert!(Instant::now() < deadline, "the dead member was not removed"),
            27 => break,
            code => panic!("heartbeat: {code}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let third = two.call(3, &join(&group, &second.member_id, &["range"]));
    assert_eq!((third.error_code, third.members.len(), third.generation_id), (0, 1, generation + 1));
}
