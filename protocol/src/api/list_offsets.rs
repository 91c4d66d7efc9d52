//! Pure. ListOffsets (key 2), versions 1-11.
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
pub struct ListOffsetsRequest {
    pub replica_id: i32,
    pub isolation_level: i8,
    pub topics: Vec<ListOffsetsTopic>,
    pub timeout_ms: i32,
}

impl Default for ListOffsetsRequest {
    fn default() -> Self {
        ListOffsetsRequest { replica_id: 0, isolation_level: 0, topics: Vec::new(), timeout_ms: 0 }
    }
}

impl Message for ListOffsetsRequest {
    fn min_size(v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        n += 4;
        if v >= 2 {
            n += 1;
        }
        n += size::min_bytes(flex);
        if v >= 10 {
            n += 4;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 6;
        let mut m = Self::default();
        m.replica_id = r.i32().named("ListOffsetsRequest.replica_id")?;
        if v >= 2 {
            m.isolation_level = r.i8().named("ListOffsetsRequest.isolation_level")?;
        }
        m.topics = r
            .array(flex, ListOffsetsTopic::min_size(v), |r| ListOffsetsTopic::decode(r, v))
            .named("ListOffsetsRequest.topics")?;
        if v >= 10 {
            m.timeout_ms = r.i32().named("ListOffsetsRequest.timeout_ms")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        n += 4;
        if v >= 2 {
            n += 1;
        }
        n += size::array(&self.topics, flex, |x| x.size(v));
        if v >= 10 {
            n += 4;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 6;
        w.i32(self.replica_id);
        if v >= 2 {
            w.i8(self.isolation_level);
        } else if self.isolation_level != 0 {
            w.refuse("ListOffsetsRequest.isolation_level");
        }
        w.array(&self.topics, flex, "ListOffsetsRequest.topics", |w, x| x.encode(w, v));
        if v >= 10 {
            w.i32(self.timeout_ms);
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListOffsetsTopic {
    pub name: Str,
    pub partitions: Vec<ListOffsetsPartition>,
}

impl Default for ListOffsetsTopic {
    fn default() -> Self {
        ListOffsetsTopic { name: Str::default(), partitions: Vec::new() }
    }
}

impl Message for ListOffsetsTopic {
    fn min_size(v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        n += size::min_string(flex);
        n += size::min_bytes(flex);
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 6;
        let mut m = Self::default();
        m.name = r.string(flex).named("ListOffsetsTopic.name")?;
        m.partitions = r
            .array(flex, ListOffsetsPartition::min_size(v), |r| ListOffsetsPartition::decode(r, v))
            .named("ListOffsetsTopic.partitions")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        n += size::string(&self.name, flex);
        n += size::array(&self.partitions, flex, |x| x.size(v));
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 6;
        w.string(&self.name, flex, "ListOffsetsTopic.name");
        w.array(&self.partitions, flex, "ListOffsetsTopic.partitions", |w, x| x.encode(w, v));
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListOffsetsPartition {
    pub partition_index: i32,
    pub current_leader_epoch: i32,
    pub timestamp: i64,
}

impl Default for ListOffsetsPartition {
    fn default() -> Self {
        ListOffsetsPartition { partition_index: 0, current_leader_epoch: -1, timestamp: 0 }
    }
}

impl Message for ListOffsetsPartition {
    fn min_size(v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        n += 4;
        if v >= 4 {
            n += 4;
        }
        n += 8;
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 6;
        let mut m = Self::default();
        m.partition_index = r.i32().named("ListOffsetsPartition.partition_index")?;
        if v >= 4 {
            m.current_leader_epoch = r.i32().named("ListOffsetsPartition.current_leader_epoch")?;
        }
        m.timestamp = r.i64().named("ListOffsetsPartition.timestamp")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        n += 4;
        if v >= 4 {
            n += 4;
        }
        n += 8;
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 6;
        w.i32(self.partition_index);
        if v >= 4 {
            w.i32(self.current_leader_epoch);
        }
        w.i64(self.timestamp);
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListOffsetsResponse {
    pub throttle_time_ms: i32,
    pub topics: Vec<ListOffsetsTopicResponse>,
}

impl Default for ListOffsetsResponse {
    fn default() -> Self {
        ListOffsetsResponse { throttle_time_ms: 0, topics: Vec::new() }
    }
}

impl Message for ListOffsetsResponse {
    fn min_size(v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        if v >= 2 {
            n += 4;
        }
        n += size::min_bytes(flex);
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 6;
        let mut m = Self::default();
        if v >= 2 {
            m.throttle_time_ms = r.i32().named("ListOffsetsResponse.throttle_time_ms")?;
        }
        m.topics = r
            .array(flex, ListOffsetsTopicResponse::min_size(v), |r| ListOffsetsTopicResponse::decode(r, v))
            .named("ListOffsetsResponse.topics")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        if v >= 2 {
            n += 4;
        }
        n += size::array(&self.topics, flex, |x| x.size(v));
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 6;
        if v >= 2 {
            w.i32(self.throttle_time_ms);
        }
        w.array(&self.topics, flex, "ListOffsetsResponse.topics", |w, x| x.encode(w, v));
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListOffsetsTopicResponse {
    pub name: Str,
    pub partitions: Vec<ListOffsetsPartitionResponse>,
}

impl Default for ListOffsetsTopicResponse {
    fn default() -> Self {
        ListOffsetsTopicResponse { name: Str::default(), partitions: Vec::new() }
    }
}

impl Message for ListOffsetsTopicResponse {
    fn min_size(v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        n += size::min_string(flex);
        n += size::min_bytes(flex);
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 6;
        let mut m = Self::default();
        m.name = r.string(flex).named("ListOffsetsTopicResponse.name")?;
        m.partitions = r
            .array(flex, ListOffsetsPartitionResponse::min_size(v), |r| ListOffsetsPartitionResponse::decode(r, v))
            .named("ListOffsetsTopicResponse.partitions")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        n += size::string(&self.name, flex);
        n += size::array(&self.partitions, flex, |x| x.size(v));
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 6;
        w.string(&self.name, flex, "ListOffsetsTopicResponse.name");
        w.array(&self.partitions, flex, "ListOffsetsTopicResponse.partitions", |w, x| x.encode(w, v));
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListOffsetsPartitionResponse {
    pub partition_index: i32,
    pub error_code: i16,
    pub timestamp: i64,
    pub offset: i64,
    pub leader_epoch: i32,
}

impl Default for ListOffsetsPartitionResponse {
    fn default() -> Self {
        ListOffsetsPartitionResponse { partition_index: 0, error_code: 0, timestamp: -1, offset: -1, leader_epoch: -1 }
    }
}

impl Message for ListOffsetsPartitionResponse {
    fn min_size(v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        n += 4;
        n += 2;
        n += 8;
        n += 8;
        if v >= 4 {
            n += 4;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 6;
        let mut m = Self::default();
        m.partition_index = r.i32().named("ListOffsetsPartitionResponse.partition_index")?;
        m.error_code = r.i16().named("ListOffsetsPartitionResponse.error_code")?;
        m.timestamp = r.i64().named("ListOffsetsPartitionResponse.timestamp")?;
        m.offset = r.i64().named("ListOffsetsPartitionResponse.offset")?;
        if v >= 4 {
            m.leader_epoch = r.i32().named("ListOffsetsPartitionResponse.leader_epoch")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        n += 4;
        n += 2;
        n += 8;
        n += 8;
        if v >= 4 {
            n += 4;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 6;
        w.i32(self.partition_index);
        w.i16(self.error_code);
        w.i64(self.timestamp);
        w.i64(self.offset);
        if v >= 4 {
            w.i32(self.leader_epoch);
        } else if self.leader_epoch != -1 {
            w.refuse("ListOffsetsPartitionResponse.leader_epoch");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

impl crate::Request for ListOffsetsRequest {
    const KEY: i16 = 2;
    const NAME: &'static str = "ListOffsets";
    const MIN: i16 = 1;
    const MAX: i16 = 11;
    const FLEX: Option<i16> = Some(6);
    type Response = ListOffsetsResponse;
}
