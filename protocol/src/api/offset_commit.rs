//! Pure. OffsetCommit (key 8), versions 2-10.
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
pub struct OffsetCommitRequest {
    pub group_id: Str,
    pub generation_id_or_member_epoch: i32,
    pub member_id: Str,
    pub group_instance_id: Option<Str>,
    pub retention_time_ms: i64,
    pub topics: Vec<OffsetCommitRequestTopic>,
}

impl Default for OffsetCommitRequest {
    fn default() -> Self {
        OffsetCommitRequest {
            group_id: Str::default(),
            generation_id_or_member_epoch: -1,
            member_id: Str::default(),
            group_instance_id: None,
            retention_time_ms: -1,
            topics: Vec::new(),
        }
    }
}

impl Message for OffsetCommitRequest {
    fn min_size(v: i16) -> usize {
        let flex = v >= 8;
        let mut n = 0;
        n += size::min_string(flex);
        n += 4;
        n += size::min_string(flex);
        if v >= 7 {
            n += size::min_string(flex);
        }
        if v <= 4 {
            n += 8;
        }
        n += size::min_bytes(flex);
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 8;
        let mut m = Self::default();
        m.group_id = r.string(flex).named("OffsetCommitRequest.group_id")?;
        m.generation_id_or_member_epoch = r.i32().named("OffsetCommitRequest.generation_id_or_member_epoch")?;
        m.member_id = r.string(flex).named("OffsetCommitRequest.member_id")?;
        if v >= 7 {
            m.group_instance_id = r.string_opt(flex, v >= 7).named("OffsetCommitRequest.group_instance_id")?;
        }
        if v <= 4 {
            m.retention_time_ms = r.i64().named("OffsetCommitRequest.retention_time_ms")?;
        }
        m.topics = r
            .array(flex, OffsetCommitRequestTopic::min_size(v), |r| OffsetCommitRequestTopic::decode(r, v))
            .named("OffsetCommitRequest.topics")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 8;
        let mut n = 0;
        n += size::string(&self.group_id, flex);
        n += 4;
        n += size::string(&self.member_id, flex);
        if v >= 7 {
            n += size::string_opt(&self.group_instance_id, flex);
        }
        if v <= 4 {
            n += 8;
        }
        n += size::array(&self.topics, flex, |x| x.size(v));
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 8;
        w.string(&self.group_id, flex, "OffsetCommitRequest.group_id");
        w.i32(self.generation_id_or_member_epoch);
        w.string(&self.member_id, flex, "OffsetCommitRequest.member_id");
        if v >= 7 {
            w.string_opt(&self.group_instance_id, flex, v >= 7, "OffsetCommitRequest.group_instance_id");
        } else if self.group_instance_id.is_some() {
            w.refuse("OffsetCommitRequest.group_instance_id");
        }
        if v <= 4 {
            w.i64(self.retention_time_ms);
        }
        w.array(&self.topics, flex, "OffsetCommitRequest.topics", |w, x| x.encode(w, v));
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommitRequestTopic {
    pub name: Str,
    pub topic_id: TopicId,
    pub partitions: Vec<OffsetCommitRequestPartition>,
}

impl Default for OffsetCommitRequestTopic {
    fn default() -> Self {
        OffsetCommitRequestTopic { name: Str::default(), topic_id: Default::default(), partitions: Vec::new() }
    }
}

impl Message for OffsetCommitRequestTopic {
    fn min_size(v: i16) -> usize {
        let flex = v >= 8;
        let mut n = 0;
        if v <= 9 {
            n += size::min_string(flex);
        }
        if v >= 10 {
            n += 16;
        }
        n += size::min_bytes(flex);
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 8;
        let mut m = Self::default();
        if v <= 9 {
            m.name = r.string(flex).named("OffsetCommitRequestTopic.name")?;
        }
        if v >= 10 {
            m.topic_id = r.topic_id().named("OffsetCommitRequestTopic.topic_id")?;
        }
        m.partitions = r
            .array(flex, OffsetCommitRequestPartition::min_size(v), |r| OffsetCommitRequestPartition::decode(r, v))
            .named("OffsetCommitRequestTopic.partitions")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 8;
        let mut n = 0;
        if v <= 9 {
            n += size::string(&self.name, flex);
        }
        if v >= 10 {
            n += 16;
        }
        n += size::array(&self.partitions, flex, |x| x.size(v));
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 8;
        if v <= 9 {
            w.string(&self.name, flex, "OffsetCommitRequestTopic.name");
        }
        if v >= 10 {
            w.uuid(&self.topic_id.0);
        }
        w.array(&self.partitions, flex, "OffsetCommitRequestTopic.partitions", |w, x| x.encode(w, v));
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommitRequestPartition {
    pub partition_index: i32,
    pub committed_offset: i64,
    pub committed_leader_epoch: i32,
    pub committed_metadata: Option<Str>,
}

impl Default for OffsetCommitRequestPartition {
    fn default() -> Self {
        OffsetCommitRequestPartition {
            partition_index: 0,
            committed_offset: 0,
            committed_leader_epoch: -1,
            committed_metadata: Some(Str::default()),
        }
    }
}

impl Message for OffsetCommitRequestPartition {
    fn min_size(v: i16) -> usize {
        let flex = v >= 8;
        let mut n = 0;
        n += 4;
        n += 8;
        if v >= 6 {
            n += 4;
        }
        n += size::min_string(flex);
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 8;
        let mut m = Self::default();
        m.partition_index = r.i32().named("OffsetCommitRequestPartition.partition_index")?;
        m.committed_offset = r.i64().named("OffsetCommitRequestPartition.committed_offset")?;
        if v >= 6 {
            m.committed_leader_epoch = r.i32().named("OffsetCommitRequestPartition.committed_leader_epoch")?;
        }
        m.committed_metadata = r.string_opt(flex, true).named("OffsetCommitRequestPartition.committed_metadata")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 8;
        let mut n = 0;
        n += 4;
        n += 8;
        if v >= 6 {
            n += 4;
        }
        n += size::string_opt(&self.committed_metadata, flex);
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 8;
        w.i32(self.partition_index);
        w.i64(self.committed_offset);
        if v >= 6 {
            w.i32(self.committed_leader_epoch);
        }
        w.string_opt(&self.committed_metadata, flex, true, "OffsetCommitRequestPartition.committed_metadata");
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommitResponse {
    pub throttle_time_ms: i32,
    pub topics: Vec<OffsetCommitResponseTopic>,
}

impl Default for OffsetCommitResponse {
    fn default() -> Self {
        OffsetCommitResponse { throttle_time_ms: 0, topics: Vec::new() }
    }
}

impl Message for OffsetCommitResponse {
    fn min_size(v: i16) -> usize {
        let flex = v >= 8;
        let mut n = 0;
        if v >= 3 {
            n += 4;
        }
        n += size::min_bytes(flex);
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 8;
        let mut m = Self::default();
        if v >= 3 {
            m.throttle_time_ms = r.i32().named("OffsetCommitResponse.throttle_time_ms")?;
        }
        m.topics = r
            .array(flex, OffsetCommitResponseTopic::min_size(v), |r| OffsetCommitResponseTopic::decode(r, v))
            .named("OffsetCommitResponse.topics")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 8;
        let mut n = 0;
        if v >= 3 {
            n += 4;
        }
        n += size::array(&self.topics, flex, |x| x.size(v));
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 8;
        if v >= 3 {
            w.i32(self.throttle_time_ms);
        }
        w.array(&self.topics, flex, "OffsetCommitResponse.topics", |w, x| x.encode(w, v));
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommitResponseTopic {
    pub name: Str,
    pub topic_id: TopicId,
    pub partitions: Vec<OffsetCommitResponsePartition>,
}

impl Default for OffsetCommitResponseTopic {
    fn default() -> Self {
        OffsetCommitResponseTopic { name: Str::default(), topic_id: Default::default(), partitions: Vec::new() }
    }
}

impl Message for OffsetCommitResponseTopic {
    fn min_size(v: i16) -> usize {
        let flex = v >= 8;
        let mut n = 0;
        if v <= 9 {
            n += size::min_string(flex);
        }
        if v >= 10 {
            n += 16;
        }
        n += size::min_bytes(flex);
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 8;
        let mut m = Self::default();
        if v <= 9 {
            m.name = r.string(flex).named("OffsetCommitResponseTopic.name")?;
        }
        if v >= 10 {
            m.topic_id = r.topic_id().named("OffsetCommitResponseTopic.topic_id")?;
        }
        m.partitions = r
            .array(flex, OffsetCommitResponsePartition::min_size(v), |r| OffsetCommitResponsePartition::decode(r, v))
            .named("OffsetCommitResponseTopic.partitions")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 8;
        let mut n = 0;
        if v <= 9 {
            n += size::string(&self.name, flex);
        }
        if v >= 10 {
            n += 16;
        }
        n += size::array(&self.partitions, flex, |x| x.size(v));
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 8;
        if v <= 9 {
            w.string(&self.name, flex, "OffsetCommitResponseTopic.name");
        }
        if v >= 10 {
            w.uuid(&self.topic_id.0);
        }
        w.array(&self.partitions, flex, "OffsetCommitResponseTopic.partitions", |w, x| x.encode(w, v));
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommitResponsePartition {
    pub partition_index: i32,
    pub error_code: i16,
}

impl Default for OffsetCommitResponsePartition {
    fn default() -> Self {
        OffsetCommitResponsePartition { partition_index: 0, error_code: 0 }
    }
}

impl Message for OffsetCommitResponsePartition {
    fn min_size(v: i16) -> usize {
        let flex = v >= 8;
        let mut n = 0;
        n += 4;
        n += 2;
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 8;
        let mut m = Self::default();
        m.partition_index = r.i32().named("OffsetCommitResponsePartition.partition_index")?;
        m.error_code = r.i16().named("OffsetCommitResponsePartition.error_code")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 8;
        let mut n = 0;
        n += 4;
        n += 2;
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 8;
        w.i32(self.partition_index);
        w.i16(self.error_code);
        if flex {
            w.uvarint(0);
        }
    }
}

impl crate::Request for OffsetCommitRequest {
    const KEY: i16 = 8;
    const NAME: &'static str = "OffsetCommit";
    const MIN: i16 = 2;
    const MAX: i16 = 10;
    const FLEX: Option<i16> = Some(8);
    type Response = OffsetCommitResponse;
}
