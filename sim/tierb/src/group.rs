//! Members of one group of the classic protocol: join, share the partitions, read, commit, beat, leave or vanish.

use crate::client::{Connection, call};
use crate::consume::{Fetched, Reader};
use crate::ledger::Ledger;
use bytes::{BufMut, Bytes, BytesMut};
use catchwater_base::Rng;
use catchwater_check::history::{Op, Outcome, Span};
use catchwater_protocol::api::join_group::JoinGroupRequestProtocol;
use catchwater_protocol::api::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use catchwater_protocol::api::offset_fetch::OffsetFetchRequestTopic;
use catchwater_protocol::api::sync_group::SyncGroupRequestAssignment;
use catchwater_protocol::api::{
    HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
};
use catchwater_runtime::time;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub const GROUP: &str = "readers";
const JOIN_VERSION: i16 = 5;
const SYNC_VERSION: i16 = 3;
const HEARTBEAT_VERSION: i16 = 3;
const LEAVE_VERSION: i16 = 2;
const COMMIT_VERSION: i16 = 7;
const OFFSETS_VERSION: i16 = 5;
/// MEMBER_ID_REQUIRED: the answer to a first join names the member.
const MEMBER_ID_REQUIRED: i16 = 79;
const SESSION_MS: i32 = 6_000;

struct Member {
    client: String,
    ledger: Arc<Ledger>,
    topics: Vec<(String, i32)>,
    slot: Option<Connection>,
    member_id: String,
    generation: i32,
}

/// One member for ever.
pub async fn member(client: String, topics: Vec<(String, i32)>, mut rng: Rng, ledger: Arc<Ledger>) {
    let mut own = Member { client, ledger, topics, slot: None, member_id: String::new(), generation: -1 };
    while !own.ledger.is_stopped() {
        let Some(places) = own.join().await else {
            time::sleep(Duration::from_millis(100 + rng.below(400))).await;
            continue;
        };
        own.ledger.rebalances.fetch_add(1, Ordering::Relaxed);
        own.work(places, &mut rng).await;
        match rng.below(3) {
            // Vanishes: the group learns it from its silence.
            0 => (own.member_id, own.slot) = (String::new(), None),
            1 => own.leave().await,
            _ => {}
        }
    }
    own.leave().await;
}

impl Member {
    /// Joins and gets its share.
    async fn join(&mut self) -> Option<Vec<usize>> {
        let request = JoinGroupRequest {
            group_id: GROUP.into(),
            session_timeout_ms: SESSION_MS,
            rebalance_timeout_ms: SESSION_MS,
            member_id: self.member_id.as_str().into(),
            protocol_type: "consumer".into(),
            protocols: vec![JoinGroupRequestProtocol { name: "own".into(), metadata: Bytes::from_static(b"m") }],
            ..Default::default()
        };
        let joined = call(&mut self.slot, &self.client, &request, JOIN_VERSION, &self.ledger).await.ok()?;
        if joined.error_code != 0 {
            let named = joined.error_code == MEMBER_ID_REQUIRED;
            self.member_id = if named { joined.member_id.to_string() } else { String::new() };
            return None;
        }
        (self.member_id, self.generation) = (joined.member_id.to_string(), joined.generation_id);
        let members: Vec<String> = joined.members.iter().map(|m| m.member_id.to_string()).collect();
        // Only the leader is told who is there; each gets every n-th partition.
        let assignments = members.iter().enumerate().map(|(n, member)| {
            let mut places = BytesMut::new();
            (n..self.topics.len()).step_by(members.len()).for_each(|place| places.put_u8(place as u8));
            SyncGroupRequestAssignment { member_id: member.as_str().into(), assignment: places.freeze() }
        });
        let request = SyncGroupRequest {
            group_id: GROUP.into(),
            generation_id: self.generation,
            member_id: self.member_id.as_str().into(),
            assignments: assignments.collect(),
            ..Default::default()
        };
        let synced = call(&mut self.slot, &self.client, &request, SYNC_VERSION, &self.ledger).await.ok()?;
        let places = || synced.assignment.iter().map(|place| usize::from(*place)).collect();
        (synced.error_code == 0).then(places)
    }

    /// Reads its share and commits, until something is different.
    async fn work(&mut self, places: Vec<usize>, rng: &mut Rng) {
        let mut readers = Vec::new();
        for place in places {
            let Some((topic, partition)) = self.topics.get(place).cloned() else {
                self.ledger.violation(format!("{}: assigned partition {place}, which nobody gave it", self.client));
                return;
            };
            let Some(from) = self.committed(&topic, partition).await else { return };
            let process = format!("{} of {} gen {}", topic, self.member_id, self.generation);
            readers.push(Reader::new(&process, &topic, partition, from));
        }
        let rounds = rng.between(3, 60);
        for _ in 0..rounds {
            if self.ledger.is_stopped() || !self.beat().await {
                return;
            }
            self.ledger.served(&self.client);
            for reader in &mut readers {
                let Some(connection) = &mut self.slot else { return };
                let before = reader.next;
                match reader.fetch(connection, rng.below(300) as i32, &self.ledger).await {
                    Fetched::Lost => {
                        self.slot = None;
                        return;
                    }
                    Fetched::Refused(_) | Fetched::Nothing => {}
                    Fetched::Records if rng.chance(300_000) => {}
                    Fetched::Records => {
                        let (topic, partition, next) = (reader.topic.clone(), reader.partition, reader.next);
                        if next > before && !self.commit(&topic, partition, next).await {
                            return;
                        }
                    }
                }
            }
            time::sleep(Duration::from_millis(rng.below(800))).await;
        }
    }

    async fn beat(&mut self) -> bool {
        let request = HeartbeatRequest {
            group_id: GROUP.into(),
            generation_id: self.generation,
            member_id: self.member_id.as_str().into(),
            ..Default::default()
        };
        let answer = call(&mut self.slot, &self.client, &request, HEARTBEAT_VERSION, &self.ledger).await;
        answer.is_ok_and(|answer| answer.error_code == 0)
    }

    /// Where the group stands; noted.
    async fn committed(&mut self, topic: &str, partition: i32) -> Option<u64> {
        let ledger = self.ledger.clone();
        committed(&mut self.slot, &self.client, (topic, partition), &ledger).await
    }

    async fn commit(&mut self, topic: &str, partition: i32, offset: u64) -> bool {
        let at = self.ledger.now();
        let asked = OffsetCommitRequestPartition {
            partition_index: partition,
            committed_offset: offset as i64,
            committed_leader_epoch: -1,
            ..Default::default()
        };
        let topics =
            vec![OffsetCommitRequestTopic { name: topic.into(), partitions: vec![asked], ..Default::default() }];
        let request = OffsetCommitRequest {
            group_id: GROUP.into(),
            generation_id_or_member_epoch: self.generation,
            member_id: self.member_id.as_str().into(),
            retention_time_ms: -1,
            topics,
            ..Default::default()
        };
        let answer = call(&mut self.slot, &self.client, &request, COMMIT_VERSION, &self.ledger).await;
        let code = answer.ok().and_then(|a| a.topics.first()?.partitions.first().map(|p| p.error_code));
        let result = match code {
            Some(0) => Outcome::Ok,
            // UNKNOWN_MEMBER_ID, ILLEGAL_GENERATION, REBALANCE_IN_PROGRESS: refused by the group before it wrote.
            Some(22 | 25 | 27) => Outcome::Fail,
            _ => Outcome::Info,
        };
        if result == Outcome::Ok {
            self.ledger.commits.fetch_add(1, Ordering::Relaxed);
        }
        self.ledger.add(Op::Commit {
            span: Span { at, end: (result != Outcome::Info).then(|| self.ledger.now()) },
            process: self.client.clone(),
            group: GROUP.to_owned(),
            tp: format!("{topic}/{partition}"),
            offset,
            result,
        });
        result == Outcome::Ok
    }

    async fn leave(&mut self) {
        let member_id = std::mem::take(&mut self.member_id);
        if !member_id.is_empty() && self.slot.is_some() {
            let request = LeaveGroupRequest {
                group_id: GROUP.into(),
                member_id: member_id.as_str().into(),
                ..Default::default()
            };
            let _ = call(&mut self.slot, &self.client, &request, LEAVE_VERSION, &self.ledger).await;
        }
    }
}

/// Where the group stands, noted; 0 where it stands nowhere, `None` without an answer.
pub async fn committed(
    slot: &mut Option<Connection>,
    client: &str,
    (topic, partition): (&str, i32),
    ledger: &Ledger,
) -> Option<u64> {
    let at = ledger.now();
    let asked = OffsetFetchRequestTopic { name: topic.into(), partition_indexes: vec![partition] };
    let request = OffsetFetchRequest { group_id: GROUP.into(), topics: Some(vec![asked]), ..Default::default() };
    let answer = call(slot, client, &request, OFFSETS_VERSION, ledger).await.ok()?;
    let found = answer.topics.first()?.partitions.first().filter(|p| p.error_code == 0 && answer.error_code == 0)?;
    let offset = u64::try_from(found.committed_offset).ok();
    ledger.add(Op::Committed {
        span: Span { at, end: Some(ledger.now()) },
        process: client.to_owned(),
        group: GROUP.to_owned(),
        tp: format!("{topic}/{partition}"),
        offset,
    });
    Some(offset.unwrap_or(0))
}
