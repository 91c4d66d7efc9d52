//! Pure. OffsetFetch (key 9), versions 1-10.
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
pub struct OffsetFetchRequest {
    pub group_id: Str,
    pub topics: Option<Vec<OffsetFetchRequestTopic>>,
    pub groups: Vec<OffsetFetchRequestGroup>,
    pub require_stable: bool,
}

impl Default for OffsetFetchRequest {
    fn default() -> Self {
        OffsetFetchRequest {
            group_id: Str::default(),
            topics: Some(Vec::new()),
            groups: Vec::new(),
            require_stable: false,
        }
    }
}

impl Message for OffsetFetchRequest {
    fn min_size(v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        if v <= 7 {
            n += size::min_string(flex);
        }
        if v <= 7 {
            n += size::min_bytes(flex);
        }
        if v >= 8 {
            n += size::min_bytes(flex);
        }
        if v >= 7 {
            n += 1;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 6;
        let mut m = Self::default();
        if v <= 7 {
            m.group_id = r.string(flex).named("OffsetFetchRequest.group_id")?;
        }
        if v <= 7 {
            m.topics = r
                .array_opt(flex, (2..=7).contains(&v), OffsetFetchRequestTopic::min_size(v), |r| {
                    OffsetFetchRequestTopic::decode(r, v)
                })
                .named("OffsetFetchRequest.topics")?;
        }
        if v >= 8 {
            m.groups = r
                .array(flex, OffsetFetchRequestGroup::min_size(v), |r| OffsetFetchRequestGroup::decode(r, v))
                .named("OffsetFetchRequest.groups")?;
        }
        if v >= 7 {
            m.require_stable = r.bool().named("OffsetFetchRequest.require_stable")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        if v <= 7 {
            n += size::string(&self.group_id, flex);
        }
        if v <= 7 {
            n += size::array_opt(&self.topics, flex, |x| x.size(v));
        }
        if v >= 8 {
            n += size::array(&self.groups, flex, |x| x.size(v));
        }
        if v >= 7 {
            n += 1;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 6;
        if v <= 7 {
            w.string(&self.group_id, flex, "OffsetFetchRequest.group_id");
        } else if !self.group_id.is_empty() {
            w.refuse("OffsetFetchRequest.group_id");
        }
        if v <= 7 {
            w.array_opt(&self.topics, flex, (2..=7).contains(&v), "OffsetFetchRequest.topics", |w, x| x.encode(w, v));
        } else if self.topics.as_ref().is_none_or(|x| !x.is_empty()) {
            w.refuse("OffsetFetchRequest.topics");
        }
        if v >= 8 {
            w.array(&self.groups, flex, "OffsetFetchRequest.groups", |w, x| x.encode(w, v));
        } else if !self.groups.is_empty() {
            w.refuse("OffsetFetchRequest.groups");
        }
        if v >= 7 {
            w.bool(self.require_stable);
        } else if self.require_stable {
            w.refuse("OffsetFetchRequest.require_stable");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetFetchRequestTopic {
    pub name: Str,
    pub partition_indexes: Vec<i32>,
}

impl Default for OffsetFetchRequestTopic {
    fn default() -> Self {
        OffsetFetchRequestTopic { name: Str::default(), partition_indexes: Vec::new() }
    }
}

impl Message for OffsetFetchRequestTopic {
    fn min_size(v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        if v <= 7 {
            n += size::min_string(flex);
        }
        if v <= 7 {
            n += size::min_bytes(flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 6;
        let mut m = Self::default();
        if v <= 7 {
            m.name = r.string(flex).named("OffsetFetchRequestTopic.name")?;
        }
        if v <= 7 {
            m.partition_indexes = r.array(flex, 4, |r| r.i32()).named("OffsetFetchRequestTopic.partition_indexes")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        if v <= 7 {
            n += size::string(&self.name, flex);
        }
        if v <= 7 {
            n += size::array(&self.partition_indexes, flex, |_| 4);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 6;
        if v <= 7 {
            w.string(&self.name, flex, "OffsetFetchRequestTopic.name");
        } else if !self.name.is_empty() {
            w.refuse("OffsetFetchRequestTopic.name");
        }
        if v <= 7 {
            w.array(&self.partition_indexes, flex, "OffsetFetchRequestTopic.partition_indexes", |w, x| w.i32(*x));
        } else if !self.partition_indexes.is_empty() {
            w.refuse("OffsetFetchRequestTopic.partition_indexes");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetFetchRequestGroup {
    pub group_id: Str,
    pub member_id: Option<Str>,
    pub member_epoch: i32,
    pub topics: Option<Vec<OffsetFetchRequestTopics>>,
}

impl Default for OffsetFetchRequestGroup {
    fn default() -> Self {
        OffsetFetchRequestGroup {
            group_id: Str::default(),
            member_id: None,
            member_epoch: -1,
            topics: Some(Vec::new()),
        }
    }
}

impl Message for OffsetFetchRequestGroup {
    fn min_size(v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        if v >= 8 {
            n += size::min_string(flex);
        }
        if v >= 9 {
            n += size::min_string(flex);
        }
        if v >= 9 {
            n += 4;
        }
        if v >= 8 {
            n += size::min_bytes(flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 6;
        let mut m = Self::default();
        if v >= 8 {
            m.group_id = r.string(flex).named("OffsetFetchRequestGroup.group_id")?;
        }
        if v >= 9 {
            m.member_id = r.string_opt(flex, v >= 9).named("OffsetFetchRequestGroup.member_id")?;
        }
        if v >= 9 {
            m.member_epoch = r.i32().named("OffsetFetchRequestGroup.member_epoch")?;
        }
        if v >= 8 {
            m.topics = r
                .array_opt(flex, v >= 8, OffsetFetchRequestTopics::min_size(v), |r| {
                    OffsetFetchRequestTopics::decode(r, v)
                })
                .named("OffsetFetchRequestGroup.topics")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        if v >= 8 {
            n += size::string(&self.group_id, flex);
        }
        if v >= 9 {
            n += size::string_opt(&self.member_id, flex);
        }
        if v >= 9 {
            n += 4;
        }
        if v >= 8 {
            n += size::array_opt(&self.topics, flex, |x| x.size(v));
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 6;
        if v >= 8 {
            w.string(&self.group_id, flex, "OffsetFetchRequestGroup.group_id");
        } else if !self.group_id.is_empty() {
            w.refuse("OffsetFetchRequestGroup.group_id");
        }
        if v >= 9 {
            w.string_opt(&self.member_id, flex, v >= 9, "OffsetFetchRequestGroup.member_id");
        }
        if v >= 9 {
            w.i32(self.member_epoch);
        }
        if v >= 8 {
            w.array_opt(&self.topics, flex, v >= 8, "OffsetFetchRequestGroup.topics", |w, x| x.encode(w, v));
        } else if self.topics.as_ref().is_none_or(|x| !x.is_empty()) {
            w.refuse("OffsetFetchRequestGroup.topics");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetFetchRequestTopics {
    pub name: Str,
    pub topic_id: TopicId,
    pub partition_indexes: Vec<i32>,
}

impl Default for OffsetFetchRequestTopics {
    fn default() -> Self {
        OffsetFetchRequestTopics { name: Str::default(), topic_id: Default::default(), partition_indexes: Vec::new() }
    }
}

impl Message for OffsetFetchRequestTopics {
    fn min_size(v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        if (8..=9).contains(&v) {
            n += size::min_string(flex);
        }
        if v >= 10 {
            n += 16;
        }
        if v >= 8 {
            n += size::min_bytes(flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 6;
        let mut m = Self::default();
        if (8..=9).contains(&v) {
            m.name = r.string(flex).named("OffsetFetchRequestTopics.name")?;
        }
        if v >= 10 {
            m.topic_id = r.topic_id().named("OffsetFetchRequestTopics.topic_id")?;
        }
        if v >= 8 {
            m.partition_indexes = r.array(flex, 4, |r| r.i32()).named("OffsetFetchRequestTopics.partition_indexes")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        if (8..=9).contains(&v) {
            n += size::string(&self.name, flex);
        }
        if v >= 10 {
            n += 16;
        }
        if v >= 8 {
            n += size::array(&self.partition_indexes, flex, |_| 4);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 6;
        if (8..=9).contains(&v) {
            w.string(&self.name, flex, "OffsetFetchRequestTopics.name");
        }
        if v >= 10 {
            w.uuid(&self.topic_id.0);
        }
        if v >= 8 {
            w.array(&self.partition_indexes, flex, "OffsetFetchRequestTopics.partition_indexes", |w, x| w.i32(*x));
        } else if !self.partition_indexes.is_empty() {
            w.refuse("OffsetFetchRequestTopics.partition_indexes");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetFetchResponse {
    pub throttle_time_ms: i32,
    pub topics: Vec<OffsetFetchResponseTopic>,
    pub error_code: i16,
    pub groups: Vec<OffsetFetchResponseGroup>,
}

impl Default for OffsetFetchResponse {
    fn default() -> Self {
        OffsetFetchResponse { throttle_time_ms: 0, topics: Vec::new(), error_code: 0, groups: Vec::new() }
    }
}

impl Message for OffsetFetchResponse {
    fn min_size(v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        if v >= 3 {
            n += 4;
        }
        if v <= 7 {
            n += size::min_bytes(flex);
        }
        if (2..=7).contains(&v) {
            n += 2;
        }
        if v >= 8 {
            n += size::min_bytes(flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 6;
        let mut m = Self::default();
        if v >= 3 {
            m.throttle_time_ms = r.i32().named("OffsetFetchResponse.throttle_time_ms")?;
        }
        if v <= 7 {
            m.topics = r
                .array(flex, OffsetFetchResponseTopic::min_size(v), |r| OffsetFetchResponseTopic::decode(r, v))
                .named("OffsetFetchResponse.topics")?;
        }
        if (2..=7).contains(&v) {
            m.error_code = r.i16().named("OffsetFetchResponse.error_code")?;
        }
        if v >= 8 {
            m.groups = r
                .array(flex, OffsetFetchResponseGroup::min_size(v), |r| OffsetFetchResponseGroup::decode(r, v))
                .named("OffsetFetchResponse.groups")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        if v >= 3 {
            n += 4;
        }
        if v <= 7 {
            n += size::array(&self.topics, flex, |x| x.size(v));
        }
        if (2..=7).contains(&v) {
            n += 2;
        }
        if v >= 8 {
            n += size::array(&self.groups, flex, |x| x.size(v));
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 6;
        if v >= 3 {
            w.i32(self.throttle_time_ms);
        }
        if v <= 7 {
            w.array(&self.topics, flex, "OffsetFetchResponse.topics", |w, x| x.encode(w, v));
        } else if !self.topics.is_empty() {
            w.refuse("OffsetFetchResponse.topics");
        }
        if (2..=7).contains(&v) {
            w.i16(self.error_code);
        }
        if v >= 8 {
            w.array(&self.groups, flex, "OffsetFetchResponse.groups", |w, x| x.encode(w, v));
        } else if !self.groups.is_empty() {
            w.refuse("OffsetFetchResponse.groups");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetFetchResponseTopic {
    pub name: Str,
    pub partitions: Vec<OffsetFetchResponsePartition>,
}

impl Default for OffsetFetchResponseTopic {
    fn default() -> Self {
        OffsetFetchResponseTopic { name: Str::default(), partitions: Vec::new() }
    }
}

impl Message for OffsetFetchResponseTopic {
    fn min_size(v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        if v <= 7 {
            n += size::min_string(flex);
        }
        if v <= 7 {
            n += size::min_bytes(flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 6;
        let mut m = Self::default();
        if v <= 7 {
            m.name = r.string(flex).named("OffsetFetchResponseTopic.name")?;
        }
        if v <= 7 {
            m.partitions = r
                .array(flex, OffsetFetchResponsePartition::min_size(v), |r| OffsetFetchResponsePartition::decode(r, v))
                .named("OffsetFetchResponseTopic.partitions")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        if v <= 7 {
            n += size::string(&self.name, flex);
        }
        if v <= 7 {
            n += size::array(&self.partitions, flex, |x| x.size(v));
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 6;
        if v <= 7 {
            w.string(&self.name, flex, "OffsetFetchResponseTopic.name");
        } else if !self.name.is_empty() {
            w.refuse("OffsetFetchResponseTopic.name");
        }
        if v <= 7 {
            w.array(&self.partitions, flex, "OffsetFetchResponseTopic.partitions", |w, x| x.encode(w, v));
        } else if !self.partitions.is_empty() {
            w.refuse("OffsetFetchResponseTopic.partitions");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetFetchResponsePartition {
    pub partition_index: i32,
    pub committed_offset: i64,
    pub committed_leader_epoch: i32,
    pub metadata: Option<Str>,
    pub error_code: i16,
}

impl Default for OffsetFetchResponsePartition {
    fn default() -> Self {
        OffsetFetchResponsePartition {
            partition_index: 0,
            committed_offset: 0,
            committed_leader_epoch: -1,
            metadata: Some(Str::default()),
            error_code: 0,
        }
    }
}

impl Message for OffsetFetchResponsePartition {
    fn min_size(v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        if v <= 7 {
            n += 4;
        }
        if v <= 7 {
            n += 8;
        }
        if (5..=7).contains(&v) {
            n += 4;
        }
        if v <= 7 {
            n += size::min_string(flex);
        }
        if v <= 7 {
            n += 2;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 6;
        let mut m = Self::default();
        if v <= 7 {
            m.partition_index = r.i32().named("OffsetFetchResponsePartition.partition_index")?;
        }
        if v <= 7 {
            m.committed_offset = r.i64().named("OffsetFetchResponsePartition.committed_offset")?;
        }
        if (5..=7).contains(&v) {
            m.committed_leader_epoch = r.i32().named("OffsetFetchResponsePartition.committed_leader_epoch")?;
        }
        if v <= 7 {
            m.metadata = r.string_opt(flex, v <= 7).named("OffsetFetchResponsePartition.metadata")?;
        }
        if v <= 7 {
            m.error_code = r.i16().named("OffsetFetchResponsePartition.error_code")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        if v <= 7 {
            n += 4;
        }
        if v <= 7 {
            n += 8;
        }
        if (5..=7).contains(&v) {
            n += 4;
        }
        if v <= 7 {
            n += size::string_opt(&self.metadata, flex);
        }
        if v <= 7 {
            n += 2;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 6;
        if v <= 7 {
            w.i32(self.partition_index);
        } else if self.partition_index != 0 {
            w.refuse("OffsetFetchResponsePartition.partition_index");
        }
        if v <= 7 {
            w.i64(self.committed_offset);
        } else if self.committed_offset != 0 {
            w.refuse("OffsetFetchResponsePartition.committed_offset");
        }
        if (5..=7).contains(&v) {
            w.i32(self.committed_leader_epoch);
        }
        if v <= 7 {
            w.string_opt(&self.metadata, flex, v <= 7, "OffsetFetchResponsePartition.metadata");
        } else if self.metadata.as_ref().is_none_or(|x| !x.is_empty()) {
            w.refuse("OffsetFetchResponsePartition.metadata");
        }
        if v <= 7 {
            w.i16(self.error_code);
        } else if self.error_code != 0 {
            w.refuse("OffsetFetchResponsePartition.error_code");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetFetchResponseGroup {
    pub group_id: Str,
    pub topics: Vec<OffsetFetchResponseTopics>,
    pub error_code: i16,
}

impl Default for OffsetFetchResponseGroup {
    fn default() -> Self {
        OffsetFetchResponseGroup { group_id: Str::default(), topics: Vec::new(), error_code: 0 }
    }
}

impl Message for OffsetFetchResponseGroup {
    fn min_size(v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        if v >= 8 {
            n += size::min_string(flex);
        }
        if v >= 8 {
            n += size::min_bytes(flex);
        }
        if v >= 8 {
            n += 2;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 6;
        let mut m = Self::default();
        if v >= 8 {
            m.group_id = r.string(flex).named("OffsetFetchResponseGroup.group_id")?;
        }
        if v >= 8 {
            m.topics = r
                .array(flex, OffsetFetchResponseTopics::min_size(v), |r| OffsetFetchResponseTopics::decode(r, v))
                .named("OffsetFetchResponseGroup.topics")?;
        }
        if v >= 8 {
            m.error_code = r.i16().named("OffsetFetchResponseGroup.error_code")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        if v >= 8 {
            n += size::string(&self.group_id, flex);
        }
        if v >= 8 {
            n += size::array(&self.topics, flex, |x| x.size(v));
        }
        if v >= 8 {
            n += 2;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 6;
        if v >= 8 {
            w.string(&self.group_id, flex, "OffsetFetchResponseGroup.group_id");
        } else if !self.group_id.is_empty() {
            w.refuse("OffsetFetchResponseGroup.group_id");
        }
        if v >= 8 {
            w.array(&self.topics, flex, "OffsetFetchResponseGroup.topics", |w, x| x.encode(w, v));
        } else if !self.topics.is_empty() {
            w.refuse("OffsetFetchResponseGroup.topics");
        }
        if v >= 8 {
            w.i16(self.error_code);
        } else if self.error_code != 0 {
            w.refuse("OffsetFetchResponseGroup.error_code");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetFetchResponseTopics {
    pub name: Str,
    pub topic_id: TopicId,
    pub partitions: Vec<OffsetFetchResponsePartitions>,
}

impl Default for OffsetFetchResponseTopics {
    fn default() -> Self {
        OffsetFetchResponseTopics { name: Str::default(), topic_id: Default::default(), partitions: Vec::new() }
    }
}

impl Message for OffsetFetchResponseTopics {
    fn min_size(v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        if (8..=9).contains(&v) {
            n += size::min_string(flex);
        }
        if v >= 10 {
            n += 16;
        }
        if v >= 8 {
            n += size::min_bytes(flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 6;
        let mut m = Self::default();
        if (8..=9).contains(&v) {
            m.name = r.string(flex).named("OffsetFetchResponseTopics.name")?;
        }
        if v >= 10 {
            m.topic_id = r.topic_id().named("OffsetFetchResponseTopics.topic_id")?;
        }
        if v >= 8 {
            m.partitions = r
                .array(flex, OffsetFetchResponsePartitions::min_size(v), |r| {
                    OffsetFetchResponsePartitions::decode(r, v)
                })
                .named("OffsetFetchResponseTopics.partitions")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        if (8..=9).contains(&v) {
            n += size::string(&self.name, flex);
        }
        if v >= 10 {
            n += 16;
        }
        if v >= 8 {
            n += size::array(&self.partitions, flex, |x| x.size(v));
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 6;
        if (8..=9).contains(&v) {
            w.string(&self.name, flex, "OffsetFetchResponseTopics.name");
        }
        if v >= 10 {
            w.uuid(&self.topic_id.0);
        }
        if v >= 8 {
            w.array(&self.partitions, flex, "OffsetFetchResponseTopics.partitions", |w, x| x.encode(w, v));
        } else if !self.partitions.is_empty() {
            w.refuse("OffsetFetchResponseTopics.partitions");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetFetchResponsePartitions {
    pub partition_index: i32,
    pub committed_offset: i64,
    pub committed_leader_epoch: i32,
    pub metadata: Option<Str>,
    pub error_code: i16,
}

impl Default for OffsetFetchResponsePartitions {
    fn default() -> Self {
        OffsetFetchResponsePartitions {
            partition_index: 0,
            committed_offset: 0,
            committed_leader_epoch: -1,
            metadata: Some(Str::default()),
            error_code: 0,
        }
    }
}

impl Message for OffsetFetchResponsePartitions {
    fn min_size(v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        if v >= 8 {
            n += 4;
        }
        if v >= 8 {
            n += 8;
        }
        if v >= 8 {
            n += 4;
        }
        if v >= 8 {
            n += size::min_string(flex);
        }
        if v >= 8 {
            n += 2;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 6;
        let mut m = Self::default();
        if v >= 8 {
            m.partition_index = r.i32().named("OffsetFetchResponsePartitions.partition_index")?;
        }
        if v >= 8 {
            m.committed_offset = r.i64().named("OffsetFetchResponsePartitions.committed_offset")?;
        }
        if v >= 8 {
            m.committed_leader_epoch = r.i32().named("OffsetFetchResponsePartitions.committed_leader_epoch")?;
        }
        if v >= 8 {
            m.metadata = r.string_opt(flex, v >= 8).named("OffsetFetchResponsePartitions.metadata")?;
        }
        if v >= 8 {
            m.error_code = r.i16().named("OffsetFetchResponsePartitions.error_code")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        if v >= 8 {
            n += 4;
        }
        if v >= 8 {
            n += 8;
        }
        if v >= 8 {
            n += 4;
        }
        if v >= 8 {
            n += size::string_opt(&self.metadata, flex);
        }
        if v >= 8 {
            n += 2;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 6;
        if v >= 8 {
            w.i32(self.partition_index);
        } else if self.partition_index != 0 {
            w.refuse("OffsetFetchResponsePartitions.partition_index");
        }
        if v >= 8 {
            w.i64(self.committed_offset);
        } else if self.committed_offset != 0 {
            w.refuse("OffsetFetchResponsePartitions.committed_offset");
        }
        if v >= 8 {
            w.i32(self.committed_leader_epoch);
        }
        if v >= 8 {
            w.string_opt(&self.metadata, flex, v >= 8, "OffsetFetchResponsePartitions.metadata");
        } else if self.metadata.as_ref().is_none_or(|x| !x.is_empty()) {
            w.refuse("OffsetFetchResponsePartitions.metadata");
        }
        if v >= 8 {
            w.i16(self.error_code);
        } else if self.error_code != 0 {
            w.refuse("OffsetFetchResponsePartitions.error_code");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

impl crate::Request for OffsetFetchRequest {
    const KEY: i16 = 9;
    const NAME: &'static str = "OffsetFetch";
    const MIN: i16 = 1;
    const MAX: i16 = 10;
    const FLEX: Option<i16> = Some(6);
    type Response = OffsetFetchResponse;
}
