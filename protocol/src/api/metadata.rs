//! Pure. Metadata (key 3), versions 0-13.
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
pub struct MetadataRequest {
    pub topics: Option<Vec<MetadataRequestTopic>>,
    pub allow_auto_topic_creation: bool,
    pub include_cluster_authorized_operations: bool,
    pub include_topic_authorized_operations: bool,
}

impl Default for MetadataRequest {
    fn default() -> Self {
        MetadataRequest {
            topics: Some(Vec::new()),
            allow_auto_topic_creation: true,
            include_cluster_authorized_operations: false,
            include_topic_authorized_operations: false,
        }
    }
}

impl Message for MetadataRequest {
    fn min_size(v: i16) -> usize {
        let flex = v >= 9;
        let mut n = 0;
        n += size::min_bytes(flex);
        if v >= 4 {
            n += 1;
        }
        if (8..=10).contains(&v) {
            n += 1;
        }
        if v >= 8 {
            n += 1;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 9;
        let mut m = Self::default();
        m.topics = r
            .array_opt(flex, v >= 1, MetadataRequestTopic::min_size(v), |r| MetadataRequestTopic::decode(r, v))
            .named("MetadataRequest.topics")?;
        if v >= 4 {
            m.allow_auto_topic_creation = r.bool().named("MetadataRequest.allow_auto_topic_creation")?;
        }
        if (8..=10).contains(&v) {
            m.include_cluster_authorized_operations =
                r.bool().named("MetadataRequest.include_cluster_authorized_operations")?;
        }
        if v >= 8 {
            m.include_topic_authorized_operations =
                r.bool().named("MetadataRequest.include_topic_authorized_operations")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 9;
        let mut n = 0;
        n += size::array_opt(&self.topics, flex, |x| x.size(v));
        if v >= 4 {
            n += 1;
        }
        if (8..=10).contains(&v) {
            n += 1;
        }
        if v >= 8 {
            n += 1;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 9;
        w.array_opt(&self.topics, flex, v >= 1, "MetadataRequest.topics", |w, x| x.encode(w, v));
        if v >= 4 {
            w.bool(self.allow_auto_topic_creation);
        } else if !self.allow_auto_topic_creation {
            w.refuse("MetadataRequest.allow_auto_topic_creation");
        }
        if (8..=10).contains(&v) {
            w.bool(self.include_cluster_authorized_operations);
        } else if self.include_cluster_authorized_operations {
            w.refuse("MetadataRequest.include_cluster_authorized_operations");
        }
        if v >= 8 {
            w.bool(self.include_topic_authorized_operations);
        } else if self.include_topic_authorized_operations {
            w.refuse("MetadataRequest.include_topic_authorized_operations");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataRequestTopic {
    pub topic_id: TopicId,
    pub name: Option<Str>,
}

impl Default for MetadataRequestTopic {
    fn default() -> Self {
        MetadataRequestTopic { topic_id: Default::default(), name: Some(Str::default()) }
    }
}

impl Message for MetadataRequestTopic {
    fn min_size(v: i16) -> usize {
        let flex = v >= 9;
        let mut n = 0;
        if v >= 10 {
            n += 16;
        }
        n += size::min_string(flex);
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 9;
        let mut m = Self::default();
        if v >= 10 {
            m.topic_id = r.topic_id().named("MetadataRequestTopic.topic_id")?;
        }
        m.name = r.string_opt(flex, v >= 10).named("MetadataRequestTopic.name")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 9;
        let mut n = 0;
        if v >= 10 {
            n += 16;
        }
        n += size::string_opt(&self.name, flex);
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 9;
        if v >= 10 {
            w.uuid(&self.topic_id.0);
        }
        w.string_opt(&self.name, flex, v >= 10, "MetadataRequestTopic.name");
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataResponse {
    pub throttle_time_ms: i32,
    pub brokers: Vec<MetadataResponseBroker>,
    pub cluster_id: Option<Str>,
    pub controller_id: i32,
    pub topics: Vec<MetadataResponseTopic>,
    pub cluster_authorized_operations: i32,
    pub error_code: i16,
}

impl Default for MetadataResponse {
    fn default() -> Self {
        MetadataResponse {
            throttle_time_ms: 0,
            brokers: Vec::new(),
            cluster_id: None,
            controller_id: -1,
            topics: Vec::new(),
            cluster_authorized_operations: -2147483648,
            error_code: 0,
        }
    }
}

impl Message for MetadataResponse {
    fn min_size(v: i16) -> usize {
        let flex = v >= 9;
        let mut n = 0;
        if v >= 3 {
            n += 4;
        }
        n += size::min_bytes(flex);
        if v >= 2 {
            n += size::min_string(flex);
        }
        if v >= 1 {
            n += 4;
        }
        n += size::min_bytes(flex);
        if (8..=10).contains(&v) {
            n += 4;
        }
        if v >= 13 {
            n += 2;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 9;
        let mut m = Self::default();
        if v >= 3 {
            m.throttle_time_ms = r.i32().named("MetadataResponse.throttle_time_ms")?;
        }
        m.brokers = r
            .array(flex, MetadataResponseBroker::min_size(v), |r| MetadataResponseBroker::decode(r, v))
            .named("MetadataResponse.brokers")?;
        if v >= 2 {
            m.cluster_id = r.string_opt(flex, v >= 2).named("MetadataResponse.cluster_id")?;
        }
        if v >= 1 {
            m.controller_id = r.i32().named("MetadataResponse.controller_id")?;
        }
        m.topics = r
            .array(flex, MetadataResponseTopic::min_size(v), |r| MetadataResponseTopic::decode(r, v))
            .named("MetadataResponse.topics")?;
        if (8..=10).contains(&v) {
            m.cluster_authorized_operations = r.i32().named("MetadataResponse.cluster_authorized_operations")?;
        }
        if v >= 13 {
            m.error_code = r.i16().named("MetadataResponse.error_code")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 9;
        let mut n = 0;
        if v >= 3 {
            n += 4;
        }
        n += size::array(&self.brokers, flex, |x| x.size(v));
        if v >= 2 {
            n += size::string_opt(&self.cluster_id, flex);
        }
        if v >= 1 {
            n += 4;
        }
        n += size::array(&self.topics, flex, |x| x.size(v));
        if (8..=10).contains(&v) {
            n += 4;
        }
        if v >= 13 {
            n += 2;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 9;
        if v >= 3 {
            w.i32(self.throttle_time_ms);
        }
        w.array(&self.brokers, flex, "MetadataResponse.brokers", |w, x| x.encode(w, v));
        if v >= 2 {
            w.string_opt(&self.cluster_id, flex, v >= 2, "MetadataResponse.cluster_id");
        }
        if v >= 1 {
            w.i32(self.controller_id);
        }
        w.array(&self.topics, flex, "MetadataResponse.topics", |w, x| x.encode(w, v));
        if (8..=10).contains(&v) {
            w.i32(self.cluster_authorized_operations);
        } else if self.cluster_authorized_operations != -2147483648 {
            w.refuse("MetadataResponse.cluster_authorized_operations");
        }
        if v >= 13 {
            w.i16(self.error_code);
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataResponseBroker {
    pub node_id: i32,
    pub host: Str,
    pub port: i32,
    pub rack: Option<Str>,
}

impl Default for MetadataResponseBroker {
    fn default() -> Self {
        MetadataResponseBroker { node_id: 0, host: Str::default(), port: 0, rack: None }
    }
}

impl Message for MetadataResponseBroker {
    fn min_size(v: i16) -> usize {
        let flex = v >= 9;
        let mut n = 0;
        n += 4;
        n += size::min_string(flex);
        n += 4;
        if v >= 1 {
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
        m.node_id = r.i32().named("MetadataResponseBroker.node_id")?;
        m.host = r.string(flex).named("MetadataResponseBroker.host")?;
        m.port = r.i32().named("MetadataResponseBroker.port")?;
        if v >= 1 {
            m.rack = r.string_opt(flex, v >= 1).named("MetadataResponseBroker.rack")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 9;
        let mut n = 0;
        n += 4;
        n += size::string(&self.host, flex);
        n += 4;
        if v >= 1 {
            n += size::string_opt(&self.rack, flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 9;
        w.i32(self.node_id);
        w.string(&self.host, flex, "MetadataResponseBroker.host");
        w.i32(self.port);
        if v >= 1 {
            w.string_opt(&self.rack, flex, v >= 1, "MetadataResponseBroker.rack");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataResponseTopic {
    pub error_code: i16,
    pub name: Option<Str>,
    pub topic_id: TopicId,
    pub is_internal: bool,
    pub partitions: Vec<MetadataResponsePartition>,
    pub topic_authorized_operations: i32,
}

impl Default for MetadataResponseTopic {
    fn default() -> Self {
        MetadataResponseTopic {
            error_code: 0,
            name: Some(Str::default()),
            topic_id: Default::default(),
            is_internal: false,
            partitions: Vec::new(),
            topic_authorized_operations: -2147483648,
        }
    }
}

impl Message for MetadataResponseTopic {
    fn min_size(v: i16) -> usize {
        let flex = v >= 9;
        let mut n = 0;
        n += 2;
        n += size::min_string(flex);
        if v >= 10 {
            n += 16;
        }
        if v >= 1 {
            n += 1;
        }
        n += size::min_bytes(flex);
        if v >= 8 {
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
        m.error_code = r.i16().named("MetadataResponseTopic.error_code")?;
        m.name = r.string_opt(flex, v >= 12).named("MetadataResponseTopic.name")?;
        if v >= 10 {
            m.topic_id = r.topic_id().named("MetadataResponseTopic.topic_id")?;
        }
        if v >= 1 {
            m.is_internal = r.bool().named("MetadataResponseTopic.is_internal")?;
        }
        m.partitions = r
            .array(flex, MetadataResponsePartition::min_size(v), |r| MetadataResponsePartition::decode(r, v))
            .named("MetadataResponseTopic.partitions")?;
        if v >= 8 {
            m.topic_authorized_operations = r.i32().named("MetadataResponseTopic.topic_authorized_operations")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 9;
        let mut n = 0;
        n += 2;
        n += size::string_opt(&self.name, flex);
        if v >= 10 {
            n += 16;
        }
        if v >= 1 {
            n += 1;
        }
        n += size::array(&self.partitions, flex, |x| x.size(v));
        if v >= 8 {
            n += 4;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 9;
        w.i16(self.error_code);
        w.string_opt(&self.name, flex, v >= 12, "MetadataResponseTopic.name");
        if v >= 10 {
            w.uuid(&self.topic_id.0);
        }
        if v >= 1 {
            w.bool(self.is_internal);
        }
        w.array(&self.partitions, flex, "MetadataResponseTopic.partitions", |w, x| x.encode(w, v));
        if v >= 8 {
            w.i32(self.topic_authorized_operations);
        } else if self.topic_authorized_operations != -2147483648 {
            w.refuse("MetadataResponseTopic.topic_authorized_operations");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataResponsePartition {
    pub error_code: i16,
    pub partition_index: i32,
    pub leader_id: i32,
    pub leader_epoch: i32,
    pub replica_nodes: Vec<i32>,
    pub isr_nodes: Vec<i32>,
    pub offline_replicas: Vec<i32>,
}

impl Default for MetadataResponsePartition {
    fn default() -> Self {
        MetadataResponsePartition {
            error_code: 0,
            partition_index: 0,
            leader_id: 0,
            leader_epoch: -1,
            replica_nodes: Vec::new(),
            isr_nodes: Vec::new(),
            offline_replicas: Vec::new(),
        }
    }
}

impl Message for MetadataResponsePartition {
    fn min_size(v: i16) -> usize {
        let flex = v >= 9;
        let mut n = 0;
        n += 2;
        n += 4;
        n += 4;
        if v >= 7 {
            n += 4;
        }
        n += size::min_bytes(flex);
        n += size::min_bytes(flex);
        if v >= 5 {
            n += size::min_bytes(flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 9;
        let mut m = Self::default();
        m.error_code = r.i16().named("MetadataResponsePartition.error_code")?;
        m.partition_index = r.i32().named("MetadataResponsePartition.partition_index")?;
        m.leader_id = r.i32().named("MetadataResponsePartition.leader_id")?;
        if v >= 7 {
            m.leader_epoch = r.i32().named("MetadataResponsePartition.leader_epoch")?;
        }
        m.replica_nodes = r.array(flex, 4, |r| r.i32()).named("MetadataResponsePartition.replica_nodes")?;
        m.isr_nodes = r.array(flex, 4, |r| r.i32()).named("MetadataResponsePartition.isr_nodes")?;
        if v >= 5 {
            m.offline_replicas = r.array(flex, 4, |r| r.i32()).named("MetadataResponsePartition.offline_replicas")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 9;
        let mut n = 0;
        n += 2;
        n += 4;
        n += 4;
        if v >= 7 {
            n += 4;
        }
        n += size::array(&self.replica_nodes, flex, |_| 4);
        n += size::array(&self.isr_nodes, flex, |_| 4);
        if v >= 5 {
            n += size::array(&self.offline_replicas, flex, |_| 4);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 9;
        w.i16(self.error_code);
        w.i32(self.partition_index);
        w.i32(self.leader_id);
        if v >= 7 {
            w.i32(self.leader_epoch);
        }
        w.array(&self.replica_nodes, flex, "MetadataResponsePartition.replica_nodes", |w, x| w.i32(*x));
        w.array(&self.isr_nodes, flex, "MetadataResponsePartition.isr_nodes", |w, x| w.i32(*x));
        if v >= 5 {
            w.array(&self.offline_replicas, flex, "MetadataResponsePartition.offline_replicas", |w, x| w.i32(*x));
        }
        if flex {
            w.uvarint(0);
        }
    }
}

impl crate::Request for MetadataRequest {
    const KEY: i16 = 3;
    const NAME: &'static str = "Metadata";
    const MIN: i16 = 0;
    const MAX: i16 = 13;
    const FLEX: Option<i16> = Some(9);
    type Response = MetadataResponse;
}
