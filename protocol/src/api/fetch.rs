//! Pure. Fetch (key 1), versions 4-18.
// Written by `cargo xtask codegen` from protocol/messages; do not edit.
#![allow(unused_variables, unused_mut, clippy::all)]

#[allow(unused_imports)]
use bytes::Bytes;
#[allow(unused_imports)]
use catchwater_record::TopicId;

#[allow(unused_imports)]
use crate::reader::{DecodeError, Named, Reader};
#[allow(unused_imports)]
use crate::text::Str;
#[allow(unused_imports)]
use crate::writer::{Records, Writer, size};
#[allow(unused_imports)]
use crate::{Message, Uuid};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchRequest {
    pub cluster_id: Option<Str>,
    pub replica_id: i32,
    pub replica_state: ReplicaState,
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
    pub isolation_level: i8,
    pub session_id: i32,
    pub session_epoch: i32,
    pub topics: Vec<FetchTopic>,
    pub forgotten_topics_data: Vec<ForgottenTopic>,
    pub rack_id: Str,
}

impl Default for FetchRequest {
    fn default() -> Self {
        FetchRequest {
            cluster_id: None,
            replica_id: -1,
            replica_state: ReplicaState::default(),
            max_wait_ms: 0,
            min_bytes: 0,
            max_bytes: 2147483647,
            isolation_level: 0,
            session_id: 0,
            session_epoch: -1,
            topics: Vec::new(),
            forgotten_topics_data: Vec::new(),
            rack_id: Str::default(),
        }
    }
}

impl Message for FetchRequest {
    fn min_size(v: i16) -> usize {
        let flex = v >= 12;
        let mut n = 0;
        if v <= 14 {
            n += 4;
        }
        n += 4;
        n += 4;
        n += 4;
        n += 1;
        if v >= 7 {
            n += 4;
        }
        if v >= 7 {
            n += 4;
        }
        n += size::min_bytes(flex);
        if v >= 7 {
            n += size::min_bytes(flex);
        }
        if v >= 11 {
            n += size::min_string(flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 12;
        let mut m = Self::default();
        if v <= 14 {
            m.replica_id = r.i32().named("FetchRequest.replica_id")?;
        }
        m.max_wait_ms = r.i32().named("FetchRequest.max_wait_ms")?;
        m.min_bytes = r.i32().named("FetchRequest.min_bytes")?;
        m.max_bytes = r.i32().named("FetchRequest.max_bytes")?;
        m.isolation_level = r.i8().named("FetchRequest.isolation_level")?;
        if v >= 7 {
            m.session_id = r.i32().named("FetchRequest.session_id")?;
        }
        if v >= 7 {
            m.session_epoch = r.i32().named("FetchRequest.session_epoch")?;
        }
        m.topics = r.array(flex, FetchTopic::min_size(v), |r| FetchTopic::decode(r, v)).named("FetchRequest.topics")?;
        if v >= 7 {
            m.forgotten_topics_data = r
                .array(flex, ForgottenTopic::min_size(v), |r| ForgottenTopic::decode(r, v))
                .named("FetchRequest.forgotten_topics_data")?;
        }
        if v >= 11 {
            m.rack_id = r.string(flex).named("FetchRequest.rack_id")?;
        }
        if flex {
            r.tags(|r, tag| match tag {
                0 if v >= 12 => {
                    m.cluster_id = r.string_opt(true, v >= 12).named("FetchRequest.cluster_id")?;
                    Ok(true)
                }
                1 if v >= 15 => {
                    m.replica_state = ReplicaState::decode(r, v).named("FetchRequest.replica_state")?;
                    Ok(true)
                }
                _ => Ok(false),
            })?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 12;
        let mut n = 0;
        if v <= 14 {
            n += 4;
        }
        n += 4;
        n += 4;
        n += 4;
        n += 1;
        if v >= 7 {
            n += 4;
        }
        if v >= 7 {
            n += 4;
        }
        n += size::array(&self.topics, flex, |x| x.size(v));
        if v >= 7 {
            n += size::array(&self.forgotten_topics_data, flex, |x| x.size(v));
        }
        if v >= 11 {
            n += size::string(&self.rack_id, flex);
        }
        if flex {
            let mut tags = 0;
            if v >= 12 && self.cluster_id.is_some() {
                tags += 1;
                n += size::tag(0, size::string_opt(&self.cluster_id, true));
            }
            if v >= 15 && self.replica_state != ReplicaState::default() {
                tags += 1;
                n += size::tag(1, self.replica_state.size(v));
            }
            n += size::uvarint(tags);
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 12;
        if v <= 14 {
            w.i32(self.replica_id);
        } else if self.replica_id != -1 {
            w.refuse("FetchRequest.replica_id");
        }
        w.i32(self.max_wait_ms);
        w.i32(self.min_bytes);
        w.i32(self.max_bytes);
        w.i8(self.isolation_level);
        if v >= 7 {
            w.i32(self.session_id);
        }
        if v >= 7 {
            w.i32(self.session_epoch);
        }
        w.array(&self.topics, flex, "FetchRequest.topics", |w, x| x.encode(w, v));
        if v >= 7 {
            w.array(&self.forgotten_topics_data, flex, "FetchRequest.forgotten_topics_data", |w, x| x.encode(w, v));
        } else if !self.forgotten_topics_data.is_empty() {
            w.refuse("FetchRequest.forgotten_topics_data");
        }
        if v >= 11 {
            w.string(&self.rack_id, flex, "FetchRequest.rack_id");
        }
        if !(v >= 15) && self.replica_state != ReplicaState::default() {
            w.refuse("FetchRequest.replica_state");
        }
        if flex {
            let mut tags = 0;
            if v >= 12 && self.cluster_id.is_some() {
                tags += 1;
            }
            if v >= 15 && self.replica_state != ReplicaState::default() {
                tags += 1;
            }
            w.uvarint(tags);
            if v >= 12 && self.cluster_id.is_some() {
                w.tag(0, size::string_opt(&self.cluster_id, true));
                w.string_opt(&self.cluster_id, true, v >= 12, "FetchRequest.cluster_id");
            }
            if v >= 15 && self.replica_state != ReplicaState::default() {
                w.tag(1, self.replica_state.size(v));
                self.replica_state.encode(w, v);
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaState {
    pub replica_id: i32,
    pub replica_epoch: i64,
}

impl Default for ReplicaState {
    fn default() -> Self {
        ReplicaState { replica_id: -1, replica_epoch: -1 }
    }
}

impl Message for ReplicaState {
    fn min_size(v: i16) -> usize {
        let flex = v >= 12;
        let mut n = 0;
        if v >= 15 {
            n += 4;
        }
        if v >= 15 {
            n += 8;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 12;
        let mut m = Self::default();
        if v >= 15 {
            m.replica_id = r.i32().named("ReplicaState.replica_id")?;
        }
        if v >= 15 {
            m.replica_epoch = r.i64().named("ReplicaState.replica_epoch")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 12;
        let mut n = 0;
        if v >= 15 {
            n += 4;
        }
        if v >= 15 {
            n += 8;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 12;
        if v >= 15 {
            w.i32(self.replica_id);
        } else if self.replica_id != -1 {
            w.refuse("ReplicaState.replica_id");
        }
        if v >= 15 {
            w.i64(self.replica_epoch);
        } else if self.replica_epoch != -1 {
            w.refuse("ReplicaState.replica_epoch");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchTopic {
    pub topic: Str,
    pub topic_id: TopicId,
    pub partitions: Vec<FetchPartition>,
}

impl Default for FetchTopic {
    fn default() -> Self {
        FetchTopic { topic: Str::default(), topic_id: Default::default(), partitions: Vec::new() }
    }
}

impl Message for FetchTopic {
    fn min_size(v: i16) -> usize {
        let flex = v >= 12;
        let mut n = 0;
        if v <= 12 {
            n += size::min_string(flex);
        }
        if v >= 13 {
            n += 16;
        }
        n += size::min_bytes(flex);
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 12;
        let mut m = Self::default();
        if v <= 12 {
            m.topic = r.string(flex).named("FetchTopic.topic")?;
        }
        if v >= 13 {
            m.topic_id = r.topic_id().named("FetchTopic.topic_id")?;
        }
        m.partitions = r
            .array(flex, FetchPartition::min_size(v), |r| FetchPartition::decode(r, v))
            .named("FetchTopic.partitions")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 12;
        let mut n = 0;
        if v <= 12 {
            n += size::string(&self.topic, flex);
        }
        if v >= 13 {
            n += 16;
        }
        n += size::array(&self.partitions, flex, |x| x.size(v));
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 12;
        if v <= 12 {
            w.string(&self.topic, flex, "FetchTopic.topic");
        }
        if v >= 13 {
            w.uuid(&self.topic_id.0);
        }
        w.array(&self.partitions, flex, "FetchTopic.partitions", |w, x| x.encode(w, v));
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchPartition {
    pub partition: i32,
    pub current_leader_epoch: i32,
    pub fetch_offset: i64,
    pub last_fetched_epoch: i32,
    pub log_start_offset: i64,
    pub partition_max_bytes: i32,
    pub replica_directory_id: Uuid,
    pub high_watermark: i64,
}

impl Default for FetchPartition {
    fn default() -> Self {
        FetchPartition {
            partition: 0,
            current_leader_epoch: -1,
            fetch_offset: 0,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            partition_max_bytes: 0,
            replica_directory_id: Default::default(),
            high_watermark: 9223372036854775807,
        }
    }
}

impl Message for FetchPartition {
    fn min_size(v: i16) -> usize {
        let flex = v >= 12;
        let mut n = 0;
        n += 4;
        if v >= 9 {
            n += 4;
        }
        n += 8;
        if v >= 12 {
            n += 4;
        }
        if v >= 5 {
            n += 8;
        }
        n += 4;
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 12;
        let mut m = Self::default();
        m.partition = r.i32().named("FetchPartition.partition")?;
        if v >= 9 {
            m.current_leader_epoch = r.i32().named("FetchPartition.current_leader_epoch")?;
        }
        m.fetch_offset = r.i64().named("FetchPartition.fetch_offset")?;
        if v >= 12 {
            m.last_fetched_epoch = r.i32().named("FetchPartition.last_fetched_epoch")?;
        }
        if v >= 5 {
            m.log_start_offset = r.i64().named("FetchPartition.log_start_offset")?;
        }
        m.partition_max_bytes = r.i32().named("FetchPartition.partition_max_bytes")?;
        if flex {
            r.tags(|r, tag| match tag {
                0 if v >= 17 => {
                    m.replica_directory_id = r.uuid().named("FetchPartition.replica_directory_id")?;
                    Ok(true)
                }
                1 if v >= 18 => {
                    m.high_watermark = r.i64().named("FetchPartition.high_watermark")?;
                    Ok(true)
                }
                _ => Ok(false),
            })?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 12;
        let mut n = 0;
        n += 4;
        if v >= 9 {
            n += 4;
        }
        n += 8;
        if v >= 12 {
            n += 4;
        }
        if v >= 5 {
            n += 8;
        }
        n += 4;
        if flex {
            let mut tags = 0;
            if v >= 17 && self.replica_directory_id != Uuid::default() {
                tags += 1;
                n += size::tag(0, 16);
            }
            if v >= 18 && self.high_watermark != 9223372036854775807 {
                tags += 1;
                n += size::tag(1, 8);
            }
            n += size::uvarint(tags);
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 12;
        w.i32(self.partition);
        if v >= 9 {
            w.i32(self.current_leader_epoch);
        }
        w.i64(self.fetch_offset);
        if v >= 12 {
            w.i32(self.last_fetched_epoch);
        } else if self.last_fetched_epoch != -1 {
            w.refuse("FetchPartition.last_fetched_epoch");
        }
        if v >= 5 {
            w.i64(self.log_start_offset);
        }
        w.i32(self.partition_max_bytes);
        if flex {
            let mut tags = 0;
            if v >= 17 && self.replica_directory_id != Uuid::default() {
                tags += 1;
            }
            if v >= 18 && self.high_watermark != 9223372036854775807 {
                tags += 1;
            }
            w.uvarint(tags);
            if v >= 17 && self.replica_directory_id != Uuid::default() {
                w.tag(0, 16);
                w.uuid(&self.replica_directory_id);
            }
            if v >= 18 && self.high_watermark != 9223372036854775807 {
                w.tag(1, 8);
                w.i64(self.high_watermark);
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForgottenTopic {
    pub topic: Str,
    pub topic_id: TopicId,
    pub partitions: Vec<i32>,
}

impl Default for ForgottenTopic {
    fn default() -> Self {
        ForgottenTopic { topic: Str::default(), topic_id: Default::default(), partitions: Vec::new() }
    }
}

impl Message for ForgottenTopic {
    fn min_size(v: i16) -> usize {
        let flex = v >= 12;
        let mut n = 0;
        if (7..=12).contains(&v) {
            n += size::min_string(flex);
        }
        if v >= 13 {
            n += 16;
        }
        if v >= 7 {
            n += size::min_bytes(flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 12;
        let mut m = Self::default();
        if (7..=12).contains(&v) {
            m.topic = r.string(flex).named("ForgottenTopic.topic")?;
        }
        if v >= 13 {
            m.topic_id = r.topic_id().named("ForgottenTopic.topic_id")?;
        }
        if v >= 7 {
            m.partitions = r.array(flex, 4, |r| r.i32()).named("ForgottenTopic.partitions")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 12;
        let mut n = 0;
        if (7..=12).contains(&v) {
            n += size::string(&self.topic, flex);
        }
        if v >= 13 {
            n += 16;
        }
        if v >= 7 {
            n += size::array(&self.partitions, flex, |_| 4);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 12;
        if (7..=12).contains(&v) {
            w.string(&self.topic, flex, "ForgottenTopic.topic");
        }
        if v >= 13 {
            w.uuid(&self.topic_id.0);
        }
        if v >= 7 {
            w.array(&self.partitions, flex, "ForgottenTopic.partitions", |w, x| w.i32(*x));
        } else if !self.partitions.is_empty() {
            w.refuse("ForgottenTopic.partitions");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchResponse {
    pub throttle_time_ms: i32,
    pub error_code: i16,
    pub session_id: i32,
    pub responses: Vec<FetchableTopicResponse>,
    pub node_endpoints: Vec<NodeEndpoint>,
}

impl Default for FetchResponse {
    fn default() -> Self {
        FetchResponse {
            throttle_time_ms: 0,
            error_code: 0,
            session_id: 0,
            responses: Vec::new(),
            node_endpoints: Vec::new(),
        }
    }
}

impl Message for FetchResponse {
    fn min_size(v: i16) -> usize {
        let flex = v >= 12;
        let mut n = 0;
        n += 4;
        if v >= 7 {
            n += 2;
        }
        if v >= 7 {
            n += 4;
        }
        n += size::min_bytes(flex);
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 12;
        let mut m = Self::default();
        m.throttle_time_ms = r.i32().named("FetchResponse.throttle_time_ms")?;
        if v >= 7 {
            m.error_code = r.i16().named("FetchResponse.error_code")?;
        }
        if v >= 7 {
            m.session_id = r.i32().named("FetchResponse.session_id")?;
        }
        m.responses = r
            .array(flex, FetchableTopicResponse::min_size(v), |r| FetchableTopicResponse::decode(r, v))
            .named("FetchResponse.responses")?;
        if flex {
            r.tags(|r, tag| match tag {
                0 if v >= 16 => {
                    m.node_endpoints = r
                        .array(true, NodeEndpoint::min_size(v), |r| NodeEndpoint::decode(r, v))
                        .named("FetchResponse.node_endpoints")?;
                    Ok(true)
                }
                _ => Ok(false),
            })?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 12;
        let mut n = 0;
        n += 4;
        if v >= 7 {
            n += 2;
        }
        if v >= 7 {
            n += 4;
        }
        n += size::array(&self.responses, flex, |x| x.size(v));
        if flex {
            let mut tags = 0;
            if v >= 16 && !self.node_endpoints.is_empty() {
                tags += 1;
                n += size::tag(0, size::array(&self.node_endpoints, true, |x| x.size(v)));
            }
            n += size::uvarint(tags);
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 12;
        w.i32(self.throttle_time_ms);
        if v >= 7 {
            w.i16(self.error_code);
        }
        if v >= 7 {
            w.i32(self.session_id);
        } else if self.session_id != 0 {
            w.refuse("FetchResponse.session_id");
        }
        w.array(&self.responses, flex, "FetchResponse.responses", |w, x| x.encode(w, v));
        if !(v >= 16) && !self.node_endpoints.is_empty() {
            w.refuse("FetchResponse.node_endpoints");
        }
        if flex {
            let mut tags = 0;
            if v >= 16 && !self.node_endpoints.is_empty() {
                tags += 1;
            }
            w.uvarint(tags);
            if v >= 16 && !self.node_endpoints.is_empty() {
                w.tag(0, size::array(&self.node_endpoints, true, |x| x.size(v)));
                w.array(&self.node_endpoints, true, "FetchResponse.node_endpoints", |w, x| x.encode(w, v));
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchableTopicResponse {
    pub topic: Str,
    pub topic_id: TopicId,
    pub partitions: Vec<PartitionData>,
}

impl Default for FetchableTopicResponse {
    fn default() -> Self {
        FetchableTopicResponse { topic: Str::default(), topic_id: Default::default(), partitions: Vec::new() }
    }
}

impl Message for FetchableTopicResponse {
    fn min_size(v: i16) -> usize {
        let flex = v >= 12;
        let mut n = 0;
        if v <= 12 {
            n += size::min_string(flex);
        }
        if v >= 13 {
            n += 16;
        }
        n += size::min_bytes(flex);
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 12;
        let mut m = Self::default();
        if v <= 12 {
            m.topic = r.string(flex).named("FetchableTopicResponse.topic")?;
        }
        if v >= 13 {
            m.topic_id = r.topic_id().named("FetchableTopicResponse.topic_id")?;
        }
        m.partitions = r
            .array(flex, PartitionData::min_size(v), |r| PartitionData::decode(r, v))
            .named("FetchableTopicResponse.partitions")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 12;
        let mut n = 0;
        if v <= 12 {
            n += size::string(&self.topic, flex);
        }
        if v >= 13 {
            n += 16;
        }
        n += size::array(&self.partitions, flex, |x| x.size(v));
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 12;
        if v <= 12 {
            w.string(&self.topic, flex, "FetchableTopicResponse.topic");
        }
        if v >= 13 {
            w.uuid(&self.topic_id.0);
        }
        w.array(&self.partitions, flex, "FetchableTopicResponse.partitions", |w, x| x.encode(w, v));
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionData {
    pub partition_index: i32,
    pub error_code: i16,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start_offset: i64,
    pub diverging_epoch: EpochEndOffset,
    pub current_leader: LeaderIdAndEpoch,
    pub snapshot_id: SnapshotId,
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    pub preferred_read_replica: i32,
    pub records: Option<Records>,
}

impl Default for PartitionData {
    fn default() -> Self {
        PartitionData {
            partition_index: 0,
            error_code: 0,
            high_watermark: 0,
            last_stable_offset: -1,
            log_start_offset: -1,
            diverging_epoch: EpochEndOffset::default(),
            current_leader: LeaderIdAndEpoch::default(),
            snapshot_id: SnapshotId::default(),
            aborted_transactions: Some(Vec::new()),
            preferred_read_replica: -1,
            records: Some(Records::default()),
        }
    }
}

impl Message for PartitionData {
    fn min_size(v: i16) -> usize {
        let flex = v >= 12;
        let mut n = 0;
        n += 4;
        n += 2;
        n += 8;
        n += 8;
        if v >= 5 {
            n += 8;
        }
        n += size::min_bytes(flex);
        if v >= 11 {
            n += 4;
        }
        n += size::min_bytes(flex);
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 12;
        let mut m = Self::default();
        m.partition_index = r.i32().named("PartitionData.partition_index")?;
        m.error_code = r.i16().named("PartitionData.error_code")?;
        m.high_watermark = r.i64().named("PartitionData.high_watermark")?;
        m.last_stable_offset = r.i64().named("PartitionData.last_stable_offset")?;
        if v >= 5 {
            m.log_start_offset = r.i64().named("PartitionData.log_start_offset")?;
        }
        m.aborted_transactions = r
            .array_opt(flex, true, AbortedTransaction::min_size(v), |r| AbortedTransaction::decode(r, v))
            .named("PartitionData.aborted_transactions")?;
        if v >= 11 {
            m.preferred_read_replica = r.i32().named("PartitionData.preferred_read_replica")?;
        }
        m.records = r.records_opt(flex, true).named("PartitionData.records")?;
        if flex {
            r.tags(|r, tag| match tag {
                0 if v >= 12 => {
                    m.diverging_epoch = EpochEndOffset::decode(r, v).named("PartitionData.diverging_epoch")?;
                    Ok(true)
                }
                1 if v >= 12 => {
                    m.current_leader = LeaderIdAndEpoch::decode(r, v).named("PartitionData.current_leader")?;
                    Ok(true)
                }
                2 if v >= 12 => {
                    m.snapshot_id = SnapshotId::decode(r, v).named("PartitionData.snapshot_id")?;
                    Ok(true)
                }
                _ => Ok(false),
            })?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 12;
        let mut n = 0;
        n += 4;
        n += 2;
        n += 8;
        n += 8;
        if v >= 5 {
            n += 8;
        }
        n += size::array_opt(&self.aborted_transactions, flex, |x| x.size(v));
        if v >= 11 {
            n += 4;
        }
        n += size::records_opt(&self.records, flex);
        if flex {
            let mut tags = 0;
            if v >= 12 && self.diverging_epoch != EpochEndOffset::default() {
                tags += 1;
                n += size::tag(0, self.diverging_epoch.size(v));
            }
            if v >= 12 && self.current_leader != LeaderIdAndEpoch::default() {
                tags += 1;
                n += size::tag(1, self.current_leader.size(v));
            }
            if v >= 12 && self.snapshot_id != SnapshotId::default() {
                tags += 1;
                n += size::tag(2, self.snapshot_id.size(v));
            }
            n += size::uvarint(tags);
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 12;
        w.i32(self.partition_index);
        w.i16(self.error_code);
        w.i64(self.high_watermark);
        w.i64(self.last_stable_offset);
        if v >= 5 {
            w.i64(self.log_start_offset);
        }
        w.array_opt(&self.aborted_transactions, flex, true, "PartitionData.aborted_transactions", |w, x| {
            x.encode(w, v)
        });
        if v >= 11 {
            w.i32(self.preferred_read_replica);
        } else if self.preferred_read_replica != -1 {
            w.refuse("PartitionData.preferred_read_replica");
        }
        w.records_opt(&self.records, flex, true, "PartitionData.records");
        if !(v >= 12) && self.diverging_epoch != EpochEndOffset::default() {
            w.refuse("PartitionData.diverging_epoch");
        }
        if !(v >= 12) && self.current_leader != LeaderIdAndEpoch::default() {
            w.refuse("PartitionData.current_leader");
        }
        if !(v >= 12) && self.snapshot_id != SnapshotId::default() {
            w.refuse("PartitionData.snapshot_id");
        }
        if flex {
            let mut tags = 0;
            if v >= 12 && self.diverging_epoch != EpochEndOffset::default() {
                tags += 1;
            }
            if v >= 12 && self.current_leader != LeaderIdAndEpoch::default() {
                tags += 1;
            }
            if v >= 12 && self.snapshot_id != SnapshotId::default() {
                tags += 1;
            }
            w.uvarint(tags);
            if v >= 12 && self.diverging_epoch != EpochEndOffset::default() {
                w.tag(0, self.diverging_epoch.size(v));
                self.diverging_epoch.encode(w, v);
            }
            if v >= 12 && self.current_leader != LeaderIdAndEpoch::default() {
                w.tag(1, self.current_leader.size(v));
                self.current_leader.encode(w, v);
            }
            if v >= 12 && self.snapshot_id != SnapshotId::default() {
                w.tag(2, self.snapshot_id.size(v));
                self.snapshot_id.encode(w, v);
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochEndOffset {
    pub epoch: i32,
    pub end_offset: i64,
}

impl Default for EpochEndOffset {
    fn default() -> Self {
        EpochEndOffset { epoch: -1, end_offset: -1 }
    }
}

impl Message for EpochEndOffset {
    fn min_size(v: i16) -> usize {
        let flex = v >= 12;
        let mut n = 0;
        if v >= 12 {
            n += 4;
        }
        if v >= 12 {
            n += 8;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 12;
        let mut m = Self::default();
        if v >= 12 {
            m.epoch = r.i32().named("EpochEndOffset.epoch")?;
        }
        if v >= 12 {
            m.end_offset = r.i64().named("EpochEndOffset.end_offset")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 12;
        let mut n = 0;
        if v >= 12 {
            n += 4;
        }
        if v >= 12 {
            n += 8;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 12;
        if v >= 12 {
            w.i32(self.epoch);
        } else if self.epoch != -1 {
            w.refuse("EpochEndOffset.epoch");
        }
        if v >= 12 {
            w.i64(self.end_offset);
        } else if self.end_offset != -1 {
            w.refuse("EpochEndOffset.end_offset");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderIdAndEpoch {
    pub leader_id: i32,
    pub leader_epoch: i32,
}

impl Default for LeaderIdAndEpoch {
    fn default() -> Self {
        LeaderIdAndEpoch { leader_id: -1, leader_epoch: -1 }
    }
}

impl Message for LeaderIdAndEpoch {
    fn min_size(v: i16) -> usize {
        let flex = v >= 12;
        let mut n = 0;
        if v >= 12 {
            n += 4;
        }
        if v >= 12 {
            n += 4;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 12;
        let mut m = Self::default();
        if v >= 12 {
            m.leader_id = r.i32().named("LeaderIdAndEpoch.leader_id")?;
        }
        if v >= 12 {
            m.leader_epoch = r.i32().named("LeaderIdAndEpoch.leader_epoch")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 12;
        let mut n = 0;
        if v >= 12 {
            n += 4;
        }
        if v >= 12 {
            n += 4;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 12;
        if v >= 12 {
            w.i32(self.leader_id);
        } else if self.leader_id != -1 {
            w.refuse("LeaderIdAndEpoch.leader_id");
        }
        if v >= 12 {
            w.i32(self.leader_epoch);
        } else if self.leader_epoch != -1 {
            w.refuse("LeaderIdAndEpoch.leader_epoch");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotId {
    pub end_offset: i64,
    pub epoch: i32,
}

impl Default for SnapshotId {
    fn default() -> Self {
        SnapshotId { end_offset: -1, epoch: -1 }
    }
}

impl Message for SnapshotId {
    fn min_size(v: i16) -> usize {
        let flex = v >= 12;
        let mut n = 0;
        n += 8;
        n += 4;
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 12;
        let mut m = Self::default();
        m.end_offset = r.i64().named("SnapshotId.end_offset")?;
        m.epoch = r.i32().named("SnapshotId.epoch")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 12;
        let mut n = 0;
        n += 8;
        n += 4;
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 12;
        w.i64(self.end_offset);
        w.i32(self.epoch);
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    pub producer_id: i64,
    pub first_offset: i64,
}

impl Default for AbortedTransaction {
    fn default() -> Self {
        AbortedTransaction { producer_id: 0, first_offset: 0 }
    }
}

impl Message for AbortedTransaction {
    fn min_size(v: i16) -> usize {
        let flex = v >= 12;
        let mut n = 0;
        n += 8;
        n += 8;
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 12;
        let mut m = Self::default();
        m.producer_id = r.i64().named("AbortedTransaction.producer_id")?;
        m.first_offset = r.i64().named("AbortedTransaction.first_offset")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 12;
        let mut n = 0;
        n += 8;
        n += 8;
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 12;
        w.i64(self.producer_id);
        w.i64(self.first_offset);
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEndpoint {
    pub node_id: i32,
    pub host: Str,
    pub port: i32,
    pub rack: Option<Str>,
}

impl Default for NodeEndpoint {
    fn default() -> Self {
        NodeEndpoint { node_id: 0, host: Str::default(), port: 0, rack: None }
    }
}

impl Message for NodeEndpoint {
    fn min_size(v: i16) -> usize {
        let flex = v >= 12;
        let mut n = 0;
        if v >= 16 {
            n += 4;
        }
        if v >= 16 {
            n += size::min_string(flex);
        }
        if v >= 16 {
            n += 4;
        }
        if v >= 16 {
            n += size::min_string(flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 12;
        let mut m = Self::default();
        if v >= 16 {
            m.node_id = r.i32().named("NodeEndpoint.node_id")?;
        }
        if v >= 16 {
            m.host = r.string(flex).named("NodeEndpoint.host")?;
        }
        if v >= 16 {
            m.port = r.i32().named("NodeEndpoint.port")?;
        }
        if v >= 16 {
            m.rack = r.string_opt(flex, v >= 16).named("NodeEndpoint.rack")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 12;
        let mut n = 0;
        if v >= 16 {
            n += 4;
        }
        if v >= 16 {
            n += size::string(&self.host, flex);
        }
        if v >= 16 {
            n += 4;
        }
        if v >= 16 {
            n += size::string_opt(&self.rack, flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 12;
        if v >= 16 {
            w.i32(self.node_id);
        } else if self.node_id != 0 {
            w.refuse("NodeEndpoint.node_id");
        }
        if v >= 16 {
            w.string(&self.host, flex, "NodeEndpoint.host");
        } else if !self.host.is_empty() {
            w.refuse("NodeEndpoint.host");
        }
        if v >= 16 {
            w.i32(self.port);
        } else if self.port != 0 {
            w.refuse("NodeEndpoint.port");
        }
        if v >= 16 {
            w.string_opt(&self.rack, flex, v >= 16, "NodeEndpoint.rack");
        } else if self.rack.is_some() {
            w.refuse("NodeEndpoint.rack");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

impl crate::Request for FetchRequest {
    const KEY: i16 = 1;
    const NAME: &'static str = "Fetch";
    const MIN: i16 = 4;
    const MAX: i16 = 18;
    const FLEX: Option<i16> = Some(12);
    type Response = FetchResponse;
}
