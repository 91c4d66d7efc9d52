//! Pure. SyncGroup (key 14), versions 0-5.
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
pub struct SyncGroupRequest {
    pub group_id: Str,
    pub generation_id: i32,
    pub member_id: Str,
    pub group_instance_id: Option<Str>,
    pub protocol_type: Option<Str>,
    pub protocol_name: Option<Str>,
    pub assignments: Vec<SyncGroupRequestAssignment>,
}

impl Default for SyncGroupRequest {
    fn default() -> Self {
        SyncGroupRequest {
            group_id: Str::default(),
            generation_id: 0,
            member_id: Str::default(),
            group_instance_id: None,
            protocol_type: None,
            protocol_name: None,
            assignments: Vec::new(),
        }
    }
}

impl Message for SyncGroupRequest {
    fn min_size(v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        n += size::min_string(flex);
        n += 4;
        n += size::min_string(flex);
        if v >= 3 {
            n += size::min_string(flex);
        }
        if v >= 5 {
            n += size::min_string(flex);
        }
        if v >= 5 {
            n += size::min_string(flex);
        }
        n += size::min_bytes(flex);
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 4;
        let mut m = Self::default();
        m.group_id = r.string(flex).named("SyncGroupRequest.group_id")?;
        m.generation_id = r.i32().named("SyncGroupRequest.generation_id")?;
        m.member_id = r.string(flex).named("SyncGroupRequest.member_id")?;
        if v >= 3 {
            m.group_instance_id = r.string_opt(flex, v >= 3).named("SyncGroupRequest.group_instance_id")?;
        }
        if v >= 5 {
            m.protocol_type = r.string_opt(flex, v >= 5).named("SyncGroupRequest.protocol_type")?;
        }
        if v >= 5 {
            m.protocol_name = r.string_opt(flex, v >= 5).named("SyncGroupRequest.protocol_name")?;
        }
        m.assignments = r
            .array(flex, SyncGroupRequestAssignment::min_size(v), |r| SyncGroupRequestAssignment::decode(r, v))
            .named("SyncGroupRequest.assignments")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        n += size::string(&self.group_id, flex);
        n += 4;
        n += size::string(&self.member_id, flex);
        if v >= 3 {
            n += size::string_opt(&self.group_instance_id, flex);
        }
        if v >= 5 {
            n += size::string_opt(&self.protocol_type, flex);
        }
        if v >= 5 {
            n += size::string_opt(&self.protocol_name, flex);
        }
        n += size::array(&self.assignments, flex, |x| x.size(v));
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 4;
        w.string(&self.group_id, flex, "SyncGroupRequest.group_id");
        w.i32(self.generation_id);
        w.string(&self.member_id, flex, "SyncGroupRequest.member_id");
        if v >= 3 {
            w.string_opt(&self.group_instance_id, flex, v >= 3, "SyncGroupRequest.group_instance_id");
        } else if self.group_instance_id.is_some() {
            w.refuse("SyncGroupRequest.group_instance_id");
        }
        if v >= 5 {
            w.string_opt(&self.protocol_type, flex, v >= 5, "SyncGroupRequest.protocol_type");
        }
        if v >= 5 {
            w.string_opt(&self.protocol_name, flex, v >= 5, "SyncGroupRequest.protocol_name");
        }
        w.array(&self.assignments, flex, "SyncGroupRequest.assignments", |w, x| x.encode(w, v));
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncGroupRequestAssignment {
    pub member_id: Str,
    pub assignment: Bytes,
}

impl Default for SyncGroupRequestAssignment {
    fn default() -> Self {
        SyncGroupRequestAssignment { member_id: Str::default(), assignment: Bytes::new() }
    }
}

impl Message for SyncGroupRequestAssignment {
    fn min_size(v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        n += size::min_string(flex);
        n += size::min_bytes(flex);
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 4;
        let mut m = Self::default();
        m.member_id = r.string(flex).named("SyncGroupRequestAssignment.member_id")?;
        m.assignment = r.bytes(flex).named("SyncGroupRequestAssignment.assignment")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        n += size::string(&self.member_id, flex);
        n += size::bytes(&self.assignment, flex);
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 4;
        w.string(&self.member_id, flex, "SyncGroupRequestAssignment.member_id");
        w.bytes(&self.assignment, flex, "SyncGroupRequestAssignment.assignment");
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncGroupResponse {
    pub throttle_time_ms: i32,
    pub error_code: i16,
    pub protocol_type: Option<Str>,
    pub protocol_name: Option<Str>,
    pub assignment: Bytes,
}

impl Default for SyncGroupResponse {
    fn default() -> Self {
        SyncGroupResponse {
            throttle_time_ms: 0,
            error_code: 0,
            protocol_type: None,
            protocol_name: None,
            assignment: Bytes::new(),
        }
    }
}

impl Message for SyncGroupResponse {
    fn min_size(v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        if v >= 1 {
            n += 4;
        }
        n += 2;
        if v >= 5 {
            n += size::min_string(flex);
        }
        if v >= 5 {
            n += size::min_string(flex);
        }
        n += size::min_bytes(flex);
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 4;
        let mut m = Self::default();
        if v >= 1 {
            m.throttle_time_ms = r.i32().named("SyncGroupResponse.throttle_time_ms")?;
        }
        m.error_code = r.i16().named("SyncGroupResponse.error_code")?;
        if v >= 5 {
            m.protocol_type = r.string_opt(flex, v >= 5).named("SyncGroupResponse.protocol_type")?;
        }
        if v >= 5 {
            m.protocol_name = r.string_opt(flex, v >= 5).named("SyncGroupResponse.protocol_name")?;
        }
        m.assignment = r.bytes(flex).named("SyncGroupResponse.assignment")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        if v >= 1 {
            n += 4;
        }
        n += 2;
        if v >= 5 {
            n += size::string_opt(&self.protocol_type, flex);
        }
        if v >= 5 {
            n += size::string_opt(&self.protocol_name, flex);
        }
        n += size::bytes(&self.assignment, flex);
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 4;
        if v >= 1 {
            w.i32(self.throttle_time_ms);
        }
        w.i16(self.error_code);
        if v >= 5 {
            w.string_opt(&self.protocol_type, flex, v >= 5, "SyncGroupResponse.protocol_type");
        }
        if v >= 5 {
            w.string_opt(&self.protocol_name, flex, v >= 5, "SyncGroupResponse.protocol_name");
        }
        w.bytes(&self.assignment, flex, "SyncGroupResponse.assignment");
        if flex {
            w.uvarint(0);
        }
    }
}

impl crate::Request for SyncGroupRequest {
    const KEY: i16 = 14;
    const NAME: &'static str = "SyncGroup";
    const MIN: i16 = 0;
    const MAX: i16 = 5;
    const FLEX: Option<i16> = Some(4);
    type Response = SyncGroupResponse;
}
