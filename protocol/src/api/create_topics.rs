//! Pure. CreateTopics (key 19), versions 2-7.
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
pub struct CreateTopicsRequest {
    pub topics: Vec<CreatableTopic>,
    pub timeout_ms: i32,
    pub validate_only: bool,
}

impl Default for CreateTopicsRequest {
    fn default() -> Self {
        CreateTopicsRequest { topics: Vec::new(), timeout_ms: 60000, validate_only: false }
    }
}

impl Message for CreateTopicsRequest {
    fn min_size(v: i16) -> usize {
        let flex = v >= 5;
        let mut n = 0;
        n += size::min_bytes(flex);
        n += 4;
        n += 1;
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 5;
        let mut m = Self::default();
        m.topics = r
            .array(flex, CreatableTopic::min_size(v), |r| CreatableTopic::decode(r, v))
            .named("CreateTopicsRequest.topics")?;
        m.timeout_ms = r.i32().named("CreateTopicsRequest.timeout_ms")?;
        m.validate_only = r.bool().named("CreateTopicsRequest.validate_only")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 5;
        let mut n = 0;
        n += size::array(&self.topics, flex, |x| x.size(v));
        n += 4;
        n += 1;
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 5;
        w.array(&self.topics, flex, "CreateTopicsRequest.topics", |w, x| x.encode(w, v));
        w.i32(self.timeout_ms);
        w.bool(self.validate_only);
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatableTopic {
    pub name: Str,
    pub num_partitions: i32,
    pub replication_factor: i16,
    pub assignments: Vec<CreatableReplicaAssignment>,
    pub configs: Vec<CreatableTopicConfig>,
}

impl Default for CreatableTopic {
    fn default() -> Self {
        CreatableTopic {
            name: Str::default(),
            num_partitions: 0,
            replication_factor: 0,
            assignments: Vec::new(),
            configs: Vec::new(),
        }
    }
}

impl Message for CreatableTopic {
    fn min_size(v: i16) -> usize {
        let flex = v >= 5;
        let mut n = 0;
        n += size::min_string(flex);
        n += 4;
        n += 2;
        n += size::min_bytes(flex);
        n += size::min_bytes(flex);
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 5;
        let mut m = Self::default();
        m.name = r.string(flex).named("CreatableTopic.name")?;
        m.num_partitions = r.i32().named("CreatableTopic.num_partitions")?;
        m.replication_factor = r.i16().named("CreatableTopic.replication_factor")?;
        m.assignments = r
            .array(flex, CreatableReplicaAssignment::min_size(v), |r| CreatableReplicaAssignment::decode(r, v))
            .named("CreatableTopic.assignments")?;
        m.configs = r
            .array(flex, CreatableTopicConfig::min_size(v), |r| CreatableTopicConfig::decode(r, v))
            .named("CreatableTopic.configs")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 5;
        let mut n = 0;
        n += size::string(&self.name, flex);
        n += 4;
        n += 2;
        n += size::array(&self.assignments, flex, |x| x.size(v));
        n += size::array(&self.configs, flex, |x| x.size(v));
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 5;
        w.string(&self.name, flex, "CreatableTopic.name");
        w.i32(self.num_partitions);
        w.i16(self.replication_factor);
        w.array(&self.assignments, flex, "CreatableTopic.assignments", |w, x| x.encode(w, v));
        w.array(&self.configs, flex, "CreatableTopic.configs", |w, x| x.encode(w, v));
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatableReplicaAssignment {
    pub partition_index: i32,
    pub broker_ids: Vec<i32>,
}

impl Default for CreatableReplicaAssignment {
    fn default() -> Self {
        CreatableReplicaAssignment { partition_index: 0, broker_ids: Vec::new() }
    }
}

impl Message for CreatableReplicaAssignment {
    fn min_size(v: i16) -> usize {
        let flex = v >= 5;
        let mut n = 0;
        n += 4;
        n += size::min_bytes(flex);
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 5;
        let mut m = Self::default();
        m.partition_index = r.i32().named("CreatableReplicaAssignment.partition_index")?;
        m.broker_ids = r.array(flex, 4, |r| r.i32()).named("CreatableReplicaAssignment.broker_ids")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 5;
        let mut n = 0;
        n += 4;
        n += size::array(&self.broker_ids, flex, |_| 4);
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 5;
        w.i32(self.partition_index);
        w.array(&self.broker_ids, flex, "CreatableReplicaAssignment.broker_ids", |w, x| w.i32(*x));
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatableTopicConfig {
    pub name: Str,
    pub value: Option<Str>,
}

impl Default for CreatableTopicConfig {
    fn default() -> Self {
        CreatableTopicConfig { name: Str::default(), value: Some(Str::default()) }
    }
}

impl Message for CreatableTopicConfig {
    fn min_size(v: i16) -> usize {
        let flex = v >= 5;
        let mut n = 0;
        n += size::min_string(flex);
        n += size::min_string(flex);
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 5;
        let mut m = Self::default();
        m.name = r.string(flex).named("CreatableTopicConfig.name")?;
        m.value = r.string_opt(flex, true).named("CreatableTopicConfig.value")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 5;
        let mut n = 0;
        n += size::string(&self.name, flex);
        n += size::string_opt(&self.value, flex);
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 5;
        w.string(&self.name, flex, "CreatableTopicConfig.name");
        w.string_opt(&self.value, flex, true, "CreatableTopicConfig.value");
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTopicsResponse {
    pub throttle_time_ms: i32,
    pub topics: Vec<CreatableTopicResult>,
}

impl Default for CreateTopicsResponse {
    fn default() -> Self {
        CreateTopicsResponse { throttle_time_ms: 0, topics: Vec::new() }
    }
}

impl Message for CreateTopicsResponse {
    fn min_size(v: i16) -> usize {
        let flex = v >= 5;
        let mut n = 0;
        n += 4;
        n += size::min_bytes(flex);
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 5;
        let mut m = Self::default();
        m.throttle_time_ms = r.i32().named("CreateTopicsResponse.throttle_time_ms")?;
        m.topics = r
            .array(flex, CreatableTopicResult::min_size(v), |r| CreatableTopicResult::decode(r, v))
            .named("CreateTopicsResponse.topics")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 5;
        let mut n = 0;
        n += 4;
        n += size::array(&self.topics, flex, |x| x.size(v));
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 5;
        w.i32(self.throttle_time_ms);
        w.array(&self.topics, flex, "CreateTopicsResponse.topics", |w, x| x.encode(w, v));
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatableTopicResult {
    pub name: Str,
    pub topic_id: TopicId,
    pub error_code: i16,
    pub error_message: Option<Str>,
    pub topic_config_error_code: i16,
    pub num_partitions: i32,
    pub replication_factor: i16,
    pub configs: Option<Vec<CreatableTopicConfigs>>,
}

impl Default for CreatableTopicResult {
    fn default() -> Self {
        CreatableTopicResult {
            name: Str::default(),
            topic_id: Default::default(),
            error_code: 0,
            error_message: Some(Str::default()),
            topic_config_error_code: 0,
            num_partitions: -1,
            replication_factor: -1,
            configs: Some(Vec::new()),
        }
    }
}

impl Message for CreatableTopicResult {
    fn min_size(v: i16) -> usize {
        let flex = v >= 5;
        let mut n = 0;
        n += size::min_string(flex);
        if v >= 7 {
            n += 16;
        }
        n += 2;
        n += size::min_string(flex);
        if v >= 5 {
            n += 4;
        }
        if v >= 5 {
            n += 2;
        }
        if v >= 5 {
            n += size::min_bytes(flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 5;
        let mut m = Self::default();
        m.name = r.string(flex).named("CreatableTopicResult.name")?;
        if v >= 7 {
            m.topic_id = r.topic_id().named("CreatableTopicResult.topic_id")?;
        }
        m.error_code = r.i16().named("CreatableTopicResult.error_code")?;
        m.error_message = r.string_opt(flex, true).named("CreatableTopicResult.error_message")?;
        if v >= 5 {
            m.num_partitions = r.i32().named("CreatableTopicResult.num_partitions")?;
        }
        if v >= 5 {
            m.replication_factor = r.i16().named("CreatableTopicResult.replication_factor")?;
        }
        if v >= 5 {
            m.configs = r
                .array_opt(flex, v >= 5, CreatableTopicConfigs::min_size(v), |r| CreatableTopicConfigs::decode(r, v))
                .named("CreatableTopicResult.configs")?;
        }
        if flex {
            r.tags(|r, tag| match tag {
                0 if v >= 5 => {
                    m.topic_config_error_code = r.i16().named("CreatableTopicResult.topic_config_error_code")?;
                    Ok(true)
                }
                _ => Ok(false),
            })?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 5;
        let mut n = 0;
        n += size::string(&self.name, flex);
        if v >= 7 {
            n += 16;
        }
        n += 2;
        n += size::string_opt(&self.error_message, flex);
        if v >= 5 {
            n += 4;
        }
        if v >= 5 {
            n += 2;
        }
        if v >= 5 {
            n += size::array_opt(&self.configs, flex, |x| x.size(v));
        }
        if flex {
            let mut tags = 0;
            if v >= 5 && self.topic_config_error_code != 0 {
                tags += 1;
                n += size::tag(0, 2);
            }
            n += size::uvarint(tags);
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 5;
        w.string(&self.name, flex, "CreatableTopicResult.name");
        if v >= 7 {
            w.uuid(&self.topic_id.0);
        }
        w.i16(self.error_code);
        w.string_opt(&self.error_message, flex, true, "CreatableTopicResult.error_message");
        if v >= 5 {
            w.i32(self.num_partitions);
        }
        if v >= 5 {
            w.i16(self.replication_factor);
        }
        if v >= 5 {
            w.array_opt(&self.configs, flex, v >= 5, "CreatableTopicResult.configs", |w, x| x.encode(w, v));
        }
        if flex {
            let mut tags = 0;
            if v >= 5 && self.topic_config_error_code != 0 {
                tags += 1;
            }
            w.uvarint(tags);
            if v >= 5 && self.topic_config_error_code != 0 {
                w.tag(0, 2);
                w.i16(self.topic_config_error_code);
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatableTopicConfigs {
    pub name: Str,
    pub value: Option<Str>,
    pub read_only: bool,
    pub config_source: i8,
    pub is_sensitive: bool,
}

impl Default for CreatableTopicConfigs {
    fn default() -> Self {
        CreatableTopicConfigs {
            name: Str::default(),
            value: Some(Str::default()),
            read_only: false,
            config_source: -1,
            is_sensitive: false,
        }
    }
}

impl Message for CreatableTopicConfigs {
    fn min_size(v: i16) -> usize {
        let flex = v >= 5;
        let mut n = 0;
        if v >= 5 {
            n += size::min_string(flex);
        }
        if v >= 5 {
            n += size::min_string(flex);
        }
        if v >= 5 {
            n += 1;
        }
        if v >= 5 {
            n += 1;
        }
        if v >= 5 {
            n += 1;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 5;
        let mut m = Self::default();
        if v >= 5 {
            m.name = r.string(flex).named("CreatableTopicConfigs.name")?;
        }
        if v >= 5 {
            m.value = r.string_opt(flex, v >= 5).named("CreatableTopicConfigs.value")?;
        }
        if v >= 5 {
            m.read_only = r.bool().named("CreatableTopicConfigs.read_only")?;
        }
        if v >= 5 {
            m.config_source = r.i8().named("CreatableTopicConfigs.config_source")?;
        }
        if v >= 5 {
            m.is_sensitive = r.bool().named("CreatableTopicConfigs.is_sensitive")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 5;
        let mut n = 0;
        if v >= 5 {
            n += size::string(&self.name, flex);
        }
        if v >= 5 {
            n += size::string_opt(&self.value, flex);
        }
        if v >= 5 {
            n += 1;
        }
        if v >= 5 {
            n += 1;
        }
        if v >= 5 {
            n += 1;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 5;
        if v >= 5 {
            w.string(&self.name, flex, "CreatableTopicConfigs.name");
        } else if !self.name.is_empty() {
            w.refuse("CreatableTopicConfigs.name");
        }
        if v >= 5 {
            w.string_opt(&self.value, flex, v >= 5, "CreatableTopicConfigs.value");
        } else if self.value.as_ref().is_none_or(|x| !x.is_empty()) {
            w.refuse("CreatableTopicConfigs.value");
        }
        if v >= 5 {
            w.bool(self.read_only);
        } else if self.read_only {
            w.refuse("CreatableTopicConfigs.read_only");
        }
        if v >= 5 {
            w.i8(self.config_source);
        }
        if v >= 5 {
            w.bool(self.is_sensitive);
        } else if self.is_sensitive {
            w.refuse("CreatableTopicConfigs.is_sensitive");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

impl crate::Request for CreateTopicsRequest {
    const KEY: i16 = 19;
    const NAME: &'static str = "CreateTopics";
    const MIN: i16 = 2;
    const MAX: i16 = 7;
    const FLEX: Option<i16> = Some(5);
    type Response = CreateTopicsResponse;
}
