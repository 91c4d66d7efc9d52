//! Pure. Produce (key 0), versions 3-13.
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
pub struct ProduceRequest {
    pub transactional_id: Option<Str>,
    pub acks: i16,
    pub timeout_ms: i32,
    pub topic_data: Vec<TopicProduceData>,
}

impl Default for ProduceRequest {
    fn default() -> Self {
        ProduceRequest { transactional_id: None, acks: 0, timeout_ms: 0, topic_data: Vec::new() }
    }
}

impl Message for ProduceRequest {
    fn min_size(v: i16) -> usize {
        let flex = v >= 9;
        let mut n = 0;
        n += size::min_string(flex);
        n += 2;
        n += 4;
        n += size::min_bytes(flex);
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 9;
        let mut m = Self::default();
        m.transactional_id = r.string_opt(flex, true).named("ProduceRequest.transactional_id")?;
        m.acks = r.i16().named("ProduceRequest.acks")?;
        m.timeout_ms = r.i32().named("ProduceRequest.timeout_ms")?;
        m.topic_data = r
            .array(flex, TopicProduceData::min_size(v), |r| TopicProduceData::decode(r, v))
            .named("ProduceRequest.topic_data")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 9;
        let mut n = 0;
        n += size::string_opt(&self.transactional_id, flex);
        n += 2;
        n += 4;
        n += size::array(&self.topic_data, flex, |x| x.size(v));
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 9;
        w.string_opt(&self.transactional_id, flex, true, "ProduceRequest.transactional_id");
        w.i16(self.acks);
        w.i32(self.timeout_ms);
        w.array(&self.topic_data, flex, "ProduceRequest.topic_data", |w, x| x.encode(w, v));
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicProduceData {
    pub name: Str,
    pub topic_id: TopicId,
    pub partition_data: Vec<PartitionProduceData>,
}

impl Default for TopicProduceData {
    fn default() -> Self {
        TopicProduceData { name: Str::default(), topic_id: Default::default(), partition_data: Vec::new() }
    }
}

impl Message for TopicProduceData {
    fn min_size(v: i16) -> usize {
        let flex = v >= 9;
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
        let flex = v >= 9;
        let mut m = Self::default();
        if v <= 12 {
            m.name = r.string(flex).named("TopicProduceData.name")?;
        }
        if v >= 13 {
            m.topic_id = r.topic_id().named("TopicProduceData.topic_id")?;
        }
        m.partition_data = r
            .array(flex, PartitionProduceData::min_size(v), |r| PartitionProduceData::decode(r, v))
            .named("TopicProduceData.partition_data")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 9;
        let mut n = 0;
        if v <= 12 {
            n += size::string(&self.name, flex);
        }
        if v >= 13 {
            n += 16;
        }
        n += size::array(&self.partition_data, flex, |x| x.size(v));
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 9;
        if v <= 12 {
            w.string(&self.name, flex, "TopicProduceData.name");
        }
        if v >= 13 {
            w.uuid(&self.topic_id.0);
        }
        w.array(&self.partition_data, flex, "TopicProduceData.partition_data", |w, x| x.encode(w, v));
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionProduceData {
    pub index: i32,
    pub records: Option<Records>,
}

impl Default for PartitionProduceData {
    fn default() -> Self {
        PartitionProduceData { index: 0, records: Some(Records::default()) }
    }
}

impl Message for PartitionProduceData {
    fn min_size(v: i16) -> usize {
        let flex = v >= 9;
        let mut n = 0;
        n += 4;
        n += size::min_bytes(flex);
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 9;
        let mut m = Self::default();
        m.index = r.i32().named("PartitionProduceData.index")?;
        m.records = r.records_opt(flex, true).named("PartitionProduceData.records")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 9;
        let mut n = 0;
        n += 4;
        n += size::records_opt(&self.records, flex);
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 9;
        w.i32(self.index);
        w.records_opt(&self.records, flex, true, "PartitionProduceData.records");
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceResponse {
    pub responses: Vec<TopicProduceResponse>,
    pub throttle_time_ms: i32,
    pub node_endpoints: Vec<NodeEndpoint>,
}

impl Default for ProduceResponse {
    fn default() -> Self {
        ProduceResponse { responses: Vec::new(), throttle_time_ms: 0, node_endpoints: Vec::new() }
    }
}

impl Message for ProduceResponse {
    fn min_size(v: i16) -> usize {
        let flex = v >= 9;
        let mut n = 0;
        n += size::min_bytes(flex);
        n += 4;
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 9;
        let mut m = Self::default();
        m.responses = r
            .array(flex, TopicProduceResponse::min_size(v), |r| TopicProduceResponse::decode(r, v))
            .named("ProduceResponse.responses")?;
        m.throttle_time_ms = r.i32().named("ProduceResponse.throttle_time_ms")?;
        if flex {
            r.tags(|r, tag| match tag {
                0 if v >= 10 => {
                    m.node_endpoints = r
                        .array(true, NodeEndpoint::min_size(v), |r| NodeEndpoint::decode(r, v))
                        .named("ProduceResponse.node_endpoints")?;
                    Ok(true)
                }
                _ => Ok(false),
            })?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 9;
        let mut n = 0;
        n += size::array(&self.responses, flex, |x| x.size(v));
        n += 4;
        if flex {
            let mut tags = 0;
            if v >= 10 && !self.node_endpoints.is_empty() {
                tags += 1;
                n += size::tag(0, size::array(&self.node_endpoints, true, |x| x.size(v)));
            }
            n += size::uvarint(tags);
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 9;
        w.array(&self.responses, flex, "ProduceResponse.responses", |w, x| x.encode(w, v));
        w.i32(self.throttle_time_ms);
        if !(v >= 10) && !self.node_endpoints.is_empty() {
            w.refuse("ProduceResponse.node_endpoints");
        }
        if flex {
            let mut tags = 0;
            if v >= 10 && !self.node_endpoints.is_empty() {
                tags += 1;
            }
            w.uvarint(tags);
            if v >= 10 && !self.node_endpoints.is_empty() {
                w.tag(0, size::array(&self.node_endpoints, true, |x| x.size(v)));
                w.array(&self.node_endpoints, true, "ProduceResponse.node_endpoints", |w, x| x.encode(w, v));
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicProduceResponse {
    pub name: Str,
    pub topic_id: TopicId,
    pub partition_responses: Vec<PartitionProduceResponse>,
}

impl Default for TopicProduceResponse {
    fn default() -> Self {
        TopicProduceResponse { name: Str::default(), topic_id: Default::default(), partition_responses: Vec::new() }
    }
}

impl Message for TopicProduceResponse {
    fn min_size(v: i16) -> usize {
        let flex = v >= 9;
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
        let flex = v >= 9;
        let mut m = Self::default();
        if v <= 12 {
            m.name = r.string(flex).named("TopicProduceResponse.name")?;
        }
        if v >= 13 {
            m.topic_id = r.topic_id().named("TopicProduceResponse.topic_id")?;
        }
        m.partition_responses = r
            .array(flex, PartitionProduceResponse::min_size(v), |r| PartitionProduceResponse::decode(r, v))
            .named("TopicProduceResponse.partition_responses")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 9;
        let mut n = 0;
        if v <= 12 {
            n += size::string(&self.name, flex);
        }
        if v >= 13 {
            n += 16;
        }
        n += size::array(&self.partition_responses, flex, |x| x.size(v));
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 9;
        if v <= 12 {
            w.string(&self.name, flex, "TopicProduceResponse.name");
        }
        if v >= 13 {
            w.uuid(&self.topic_id.0);
        }
        w.array(&self.partition_responses, flex, "TopicProduceResponse.partition_responses", |w, x| x.encode(w, v));
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionProduceResponse {
    pub index: i32,
    pub error_code: i16,
    pub base_offset: i64,
    pub log_append_time_ms: i64,
    pub log_start_offset: i64,
    pub record_errors: Vec<BatchIndexAndErrorMessage>,
    pub error_message: Option<Str>,
    pub current_leader: LeaderIdAndEpoch,
}

impl Default for PartitionProduceResponse {
    fn default() -> Self {
        PartitionProduceResponse {
            index: 0,
            error_code: 0,
            base_offset: 0,
            log_append_time_ms: -1,
            log_start_offset: -1,
            record_errors: Vec::new(),
            error_message: None,
            current_leader: LeaderIdAndEpoch::default(),
        }
    }
}

impl Message for PartitionProduceResponse {
    fn min_size(v: i16) -> usize {
        let flex = v >= 9;
        let mut n = 0;
        n += 4;
        n += 2;
        n += 8;
        n += 8;
        if v >= 5 {
            n += 8;
        }
        if v >= 8 {
            n += size::min_bytes(flex);
        }
        if v >= 8 {
            n += size::min_string(flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 9;
        let mut m = Self::default();
        m.index = r.i32().named("PartitionProduceResponse.index")?;
        m.error_code = r.i16().named("PartitionProduceResponse.error_code")?;
        m.base_offset = r.i64().named("PartitionProduceResponse.base_offset")?;
        m.log_append_time_ms = r.i64().named("PartitionProduceResponse.log_append_time_ms")?;
        if v >= 5 {
            m.log_start_offset = r.i64().named("PartitionProduceResponse.log_start_offset")?;
        }
        if v >= 8 {
            m.record_errors = r
                .array(flex, BatchIndexAndErrorMessage::min_size(v), |r| BatchIndexAndErrorMessage::decode(r, v))
                .named("PartitionProduceResponse.record_errors")?;
        }
        if v >= 8 {
            m.error_message = r.string_opt(flex, v >= 8).named("PartitionProduceResponse.error_message")?;
        }
        if flex {
            r.tags(|r, tag| match tag {
                0 if v >= 10 => {
                    m.current_leader =
                        LeaderIdAndEpoch::decode(r, v).named("PartitionProduceResponse.current_leader")?;
                    Ok(true)
                }
                _ => Ok(false),
            })?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 9;
        let mut n = 0;
        n += 4;
        n += 2;
        n += 8;
        n += 8;
        if v >= 5 {
            n += 8;
        }
        if v >= 8 {
            n += size::array(&self.record_errors, flex, |x| x.size(v));
        }
        if v >= 8 {
            n += size::string_opt(&self.error_message, flex);
        }
        if flex {
            let mut tags = 0;
            if v >= 10 && self.current_leader != LeaderIdAndEpoch::default() {
                tags += 1;
                n += size::tag(0, self.current_leader.size(v));
            }
            n += size::uvarint(tags);
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 9;
        w.i32(self.index);
        w.i16(self.error_code);
        w.i64(self.base_offset);
        w.i64(self.log_append_time_ms);
        if v >= 5 {
            w.i64(self.log_start_offset);
        }
        if v >= 8 {
            w.array(&self.record_errors, flex, "PartitionProduceResponse.record_errors", |w, x| x.encode(w, v));
        }
        if v >= 8 {
            w.string_opt(&self.error_message, flex, v >= 8, "PartitionProduceResponse.error_message");
        }
        if !(v >= 10) && self.current_leader != LeaderIdAndEpoch::default() {
            w.refuse("PartitionProduceResponse.current_leader");
        }
        if flex {
            let mut tags = 0;
            if v >= 10 && self.current_leader != LeaderIdAndEpoch::default() {
                tags += 1;
            }
            w.uvarint(tags);
            if v >= 10 && self.current_leader != LeaderIdAndEpoch::default() {
                w.tag(0, self.current_leader.size(v));
                self.current_leader.encode(w, v);
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchIndexAndErrorMessage {
    pub batch_index: i32,
    pub batch_index_error_message: Option<Str>,
}

impl Default for BatchIndexAndErrorMessage {
    fn default() -> Self {
        BatchIndexAndErrorMessage { batch_index: 0, batch_index_error_message: None }
    }
}

impl Message for BatchIndexAndErrorMessage {
    fn min_size(v: i16) -> usize {
        let flex = v >= 9;
        let mut n = 0;
        if v >= 8 {
            n += 4;
        }
        if v >= 8 {
            n += size::min_string(flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 9;
        let mut m = Self::default();
        if v >= 8 {
            m.batch_index = r.i32().named("BatchIndexAndErrorMessage.batch_index")?;
        }
        if v >= 8 {
            m.batch_index_error_message =
                r.string_opt(flex, v >= 8).named("BatchIndexAndErrorMessage.batch_index_error_message")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 9;
        let mut n = 0;
        if v >= 8 {
            n += 4;
        }
        if v >= 8 {
            n += size::string_opt(&self.batch_index_error_message, flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 9;
        if v >= 8 {
            w.i32(self.batch_index);
        } else if self.batch_index != 0 {
            w.refuse("BatchIndexAndErrorMessage.batch_index");
        }
        if v >= 8 {
            w.string_opt(
                &self.batch_index_error_message,
                flex,
                v >= 8,
                "BatchIndexAndErrorMessage.batch_index_error_message",
            );
        } else if self.batch_index_error_message.is_some() {
            w.refuse("BatchIndexAndErrorMessage.batch_index_error_message");
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
        let flex = v >= 9;
        let mut n = 0;
        if v >= 10 {
            n += 4;
        }
        if v >= 10 {
            n += 4;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 9;
        let mut m = Self::default();
        if v >= 10 {
            m.leader_id = r.i32().named("LeaderIdAndEpoch.leader_id")?;
        }
        if v >= 10 {
            m.leader_epoch = r.i32().named("LeaderIdAndEpoch.leader_epoch")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 9;
        let mut n = 0;
        if v >= 10 {
            n += 4;
        }
        if v >= 10 {
            n += 4;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 9;
        if v >= 10 {
            w.i32(self.leader_id);
        } else if self.leader_id != -1 {
            w.refuse("LeaderIdAndEpoch.leader_id");
        }
        if v >= 10 {
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
        let flex = v >= 9;
        let mut n = 0;
        if v >= 10 {
            n += 4;
        }
        if v >= 10 {
            n += size::min_string(flex);
        }
        if v >= 10 {
            n += 4;
        }
        if v >= 10 {
            n += size::min_string(flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 9;
        let mut m = Self::default();
        if v >= 10 {
            m.node_id = r.i32().named("NodeEndpoint.node_id")?;
        }
        if v >= 10 {
            m.host = r.string(flex).named("NodeEndpoint.host")?;
        }
        if v >= 10 {
            m.port = r.i32().named("NodeEndpoint.port")?;
        }
        if v >= 10 {
            m.rack = r.string_opt(flex, v >= 10).named("NodeEndpoint.rack")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 9;
        let mut n = 0;
        if v >= 10 {
            n += 4;
        }
        if v >= 10 {
            n += size::string(&self.host, flex);
        }
        if v >= 10 {
            n += 4;
        }
        if v >= 10 {
            n += size::string_opt(&self.rack, flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 9;
        if v >= 10 {
            w.i32(self.node_id);
        } else if self.node_id != 0 {
            w.refuse("NodeEndpoint.node_id");
        }
        if v >= 10 {
            w.string(&self.host, flex, "NodeEndpoint.host");
        } else if !self.host.is_empty() {
            w.refuse("NodeEndpoint.host");
        }
        if v >= 10 {
            w.i32(self.port);
        } else if self.port != 0 {
            w.refuse("NodeEndpoint.port");
        }
        if v >= 10 {
            w.string_opt(&self.rack, flex, v >= 10, "NodeEndpoint.rack");
        } else if self.rack.is_some() {
            w.refuse("NodeEndpoint.rack");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

impl crate::Request for ProduceRequest {
    const KEY: i16 = 0;
    const NAME: &'static str = "Produce";
    const MIN: i16 = 3;
    const MAX: i16 = 13;
    const FLEX: Option<i16> = Some(9);
    type Response = ProduceResponse;
}
