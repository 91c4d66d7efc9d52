//! 68: members joining, leaving, dying and coming back at once, as raw frames, so that every code is seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use catchwater_base::rng::Rng;
use catchwater_tests::broker::{Broker, unique};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;

use crate::groups::coordinator_ready;
use crate::wire::*;

const PARTITIONS: u8 = 12;
/// How often each member joins anew.
const LIVES: usize = 25;

/// What every member saw: the partitions each generation gave out.
#[derive(Default)]
struct Seen {
    owners: BTreeMap<i32, BTreeMap<u8, String>>,
    generations: BTreeSet<i32>,
}

struct Member {
    wire: Wire,
    group: String,
    instance: Option<String>,
    id: String,
    generation: i32,
}

impl Member {
    fn join_request(&self) -> JoinGroupRequest {
        kp!(JoinGroupRequest {
            group_id: GroupId(text(&self.group)),
            session_timeout_ms: 6_000,
            rebalance_timeout_ms: 6_000,
            member_id: text(&self.id),
            group_instance_id: self.instance.as_deref().map(text),
            protocol_type: text("consumer"),
            protocols: vec![kp!(JoinGroupRequestProtocol { name: text("range"), metadata: Bytes::from_static(b"m") })],
        })
    }

    /// Joins and syncs until it is in a generation that has an assignment.
    fn enter(&mut self, seen: &Mutex<Seen>) -> Vec<u8> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            assert!(Instant::now() < deadline, "never got into the group");
            let joined = self.wire.call(9, &self.join_request());
            match joined.error_code {
                0 => {}
                79 => {
                    self.id = joined.member_id.to_string();
                    continue;
                }
                14..=16 | 27 => continue,
                code => panic!("join as {:?}: {code}", self.id),
            }
            self.id = joined.member_id.to_string();
            self.generation = joined.generation_id;
            let mut assignments = Vec::new();
            if joined.leader == joined.member_id && !joined.skip_assignment {
                for (i, member) in joined.members.iter().enumerate() {
                    let mine: Vec<u8> = (0..PARTITIONS).filter(|p| *p as usize % joined.members.len() == i).collect();
                    assignments.push(kp!(SyncGroupRequestAssignment {
                        member_id: member.member_id.clone(),
                        assignment: Bytes::from(mine),
                    }));
                }
            }
            let synced = self.wire.call(
                5,
                &kp!(SyncGroupRequest {
                    group_id: GroupId(text(&self.group)),
                    generation_id: self.generation,
                    member_id: text(&self.id),
                    group_instance_id: self.instance.as_deref().map(text),
                    protocol_type: Some(text("consumer")),
                    protocol_name: Some(text("range")),
                    assignments: assignments,
                }),
            );
            match synced.error_code {
                0 => {
                    let mine = synced.assignment.to_vec();
                    let mut seen = seen.lock().unwrap();
                    seen.generations.insert(self.generation);
                    let who = self.instance.clone().unwrap_or_else(|| self.id.clone());
                    let owners = seen.owners.entry(self.generation).or_default();
                    for partition in &mine {
                        let before = owners.insert(*partition, who.clone());
                        assert!(
                            before.as_ref().is_none_or(|b| *b == who),
                            "generation {}: partition {partition} belongs to {before:?} and to {who}",
                            self.generation
                        );
                    }
                    return mine;
                }
                // Another round began; 22 if it is already over.
                14..=16 | 22 | 27 => continue,
                code => panic!("sync of {:?} in generation {}: {code}", self.id, self.generation),
            }
        }
    }

    /// Heartbeats for a while; `false` if it must rejoin.
    fn beat(&mut self, times: u64) -> bool {
        for _ in 0..times {
            let reply = self.wire.call(
                4,
                &kp!(HeartbeatRequest {
                    group_id: GroupId(text(&self.group)),
                    generation_id: self.generation,
                    member_id: text(&self.id),
                    group_instance_id: self.instance.as_deref().map(text),
                }),
            );
            match reply.error_code {
                0 => {}
                22 | 27 => return false,
                code => panic!("heartbeat of {:?} in generation {}: {code}", self.id, self.generation),
            }
        }
        true
    }

    fn leave(&mut self) {
        let identity = kp!(MemberIdentity { member_id: text(&self.id), group_instance_id: None });
        let request = kp!(LeaveGroupRequest { group_id: GroupId(text(&self.group)), members: vec![identity] });
        let reply = self.wire.call(5, &request);
        assert_eq!((reply.error_code, reply.members[0].error_code), (0, 0), "an id we were given is known");
    }
}

fn storm(instances: bool) {
    let broker = Arc::new(Broker::start());
    let group = unique("storm");
    coordinator_ready(&mut Wire::to(&broker), &group);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let threads: Vec<_> = (0..3u64)
        .map(|n| {
            let (broker, group, seen) = (broker.clone(), group.clone(), seen.clone());
            std::thread::spawn(move || {
                let mut rng = Rng::new(n);
                for life in 0..LIVES {
                    let instance = instances.then(|| format!("i-{n}"));
                    let mut wire = Wire::to(&broker);
                    wire.patience(Duration::from_secs(30));
                    let mut member = Member { wire, group: group.clone(), instance, id: String::new(), generation: -1 };
                    for _ in 0..1 + rng.below(3) {
                        member.enter(&seen);
                        if member.beat(1 + rng.below(15)) && rng.below(2) == 0 {
                            break;
                        }
                    }
                    // A static member goes without a word and comes back; a dynamic one says so.
                    if !instances && (life + 1 < LIVES || rng.below(2) == 0) {
                        member.leave();
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let seen = seen.lock().unwrap();
    println!("{} generations", seen.generations.len());
    if instances {
        // Coming back under an instance id is no cause for a rebalance, only doing so while one is under way is: Apache Kafka
        // made 8 generations of these 75 lives.
        assert!(seen.generations.len() <= 25, "{} generations for three static members", seen.generations.len());
    }
}

#[test]
fn wire_068b_dynamic_members_join_and_leave_at_once() {
    storm(false);
}

#[test]
fn wire_068c_static_members_restart_at_once() {
    storm(true);
}
