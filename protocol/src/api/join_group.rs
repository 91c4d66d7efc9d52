//! Pure. JoinGroup (key 11), versions 0-9.
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
pub struct JoinGroupRequest {
    pub group_id: Str,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub member_id: Str,
    pub group_instance_id: Option<Str>,
    pub protocol_type: Str,
    pub protocols: Vec<JoinGroupRequestProtocol>,
    pub reason: Option<Str>,
}

impl Default for JoinGroupRequest {
    fn default() -> Self {
        JoinGroupRequest {
            group_id: Str::default(),
            session_timeout_ms: 0,
            rebalance_timeout_ms: -1,
            member_id: Str::default(),
            group_instance_id: None,
            protocol_type: Str::default(),
            protocols: Vec::new(),
            reason: None,
        }
    }
}

impl Message for JoinGroupRequest {
    fn min_size(v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        n += size::min_string(flex);
        n += 4;
        if v >= 1 {
            n += 4;
        }
        n += size::min_string(flex);
        if v >= 5 {
            n += size::min_string(flex);
        }
        n += size::min_string(flex);
        n += size::min_bytes(flex);
        if v >= 8 {
            n += size::min_string(flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 6;
        let mut m = Self::default();
        m.group_id = r.string(flex).named("JoinGroupRequest.group_id")?;
        m.session_timeout_ms = r.i32().named("JoinGroupRequest.session_timeout_ms")?;
        if v >= 1 {
            m.rebalance_timeout_ms = r.i32().named("JoinGroupRequest.rebalance_timeout_ms")?;
        }
        m.member_id = r.string(flex).named("JoinGroupRequest.member_id")?;
        if v >= 5 {
            m.group_instance_id = r.string_opt(flex, v >= 5).named("JoinGroupRequest.group_instance_id")?;
        }
        m.protocol_type = r.string(flex).named("JoinGroupRequest.protocol_type")?;
        m.protocols = r
            .array(flex, JoinGroupRequestProtocol::min_size(v), |r| JoinGroupRequestProtocol::decode(r, v))
            .named("JoinGroupRequest.protocols")?;
        if v >= 8 {
            m.reason = r.string_opt(flex, v >= 8).named("JoinGroupRequest.reason")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        n += size::string(&self.group_id, flex);
        n += 4;
        if v >= 1 {
            n += 4;
        }
        n += size::string(&self.member_id, flex);
        if v >= 5 {
            n += size::string_opt(&self.group_instance_id, flex);
        }
        n += size::string(&self.protocol_type, flex);
        n += size::array(&self.protocols, flex, |x| x.size(v));
        if v >= 8 {
            n += size::string_opt(&self.reason, flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 6;
        w.string(&self.group_id, flex, "JoinGroupRequest.group_id");
        w.i32(self.session_timeout_ms);
        if v >= 1 {
            w.i32(self.rebalance_timeout_ms);
        }
        w.string(&self.member_id, flex, "JoinGroupRequest.member_id");
        if v >= 5 {
            w.string_opt(&self.group_instance_id, flex, v >= 5, "JoinGroupRequest.group_instance_id");
        } else if self.group_instance_id.is_some() {
            w.refuse("JoinGroupRequest.group_instance_id");
        }
        w.string(&self.protocol_type, flex, "JoinGroupRequest.protocol_type");
        w.array(&self.protocols, flex, "JoinGroupRequest.protocols", |w, x| x.encode(w, v));
        if v >= 8 {
            w.string_opt(&self.reason, flex, v >= 8, "JoinGroupRequest.reason");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinGroupRequestProtocol {
    pub name: Str,
    pub metadata: Bytes,
}

impl Default for JoinGroupRequestProtocol {
    fn default() -> Self {
        JoinGroupRequestProtocol { name: Str::default(), metadata: Bytes::new() }
    }
}

impl Message for JoinGroupRequestProtocol {
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
        m.name = r.string(flex).named("JoinGroupRequestProtocol.name")?;
        m.metadata = r.bytes(flex).named("JoinGroupRequestProtocol.metadata")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        n += size::string(&self.name, flex);
        n += size::bytes(&self.metadata, flex);
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 6;
        w.string(&self.name, flex, "JoinGroupRequestProtocol.name");
        w.bytes(&self.metadata, flex, "JoinGroupRequestProtocol.metadata");
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinGroupResponse {
    pub throttle_time_ms: i32,
    pub error_code: i16,
    pub generation_id: i32,
    pub protocol_type: Option<Str>,
    pub protocol_name: Option<Str>,
    pub leader: Str,
    pub skip_assignment: bool,
    pub member_id: Str,
    pub members: Vec<JoinGroupResponseMember>,
}

impl Default for JoinGroupResponse {
    fn default() -> Self {
        JoinGroupResponse {
            throttle_time_ms: 0,
            error_code: 0,
            generation_id: -1,
            protocol_type: None,
            protocol_name: Some(Str::default()),
            leader: Str::default(),
            skip_assignment: false,
            member_id: Str::default(),
            members: Vec::new(),
        }
    }
}

impl Message for JoinGroupResponse {
    fn min_size(v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        if v >= 2 {
            n += 4;
        }
        n += 2;
        n += 4;
        if v >= 7 {
            n += size::min_string(flex);
        }
        n += size::min_string(flex);
        n += size::min_string(flex);
        if v >= 9 {
            n += 1;
        }
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
        if v >= 2 {
            m.throttle_time_ms = r.i32().named("JoinGroupResponse.throttle_time_ms")?;
        }
        m.error_code = r.i16().named("JoinGroupResponse.error_code")?;
        m.generation_id = r.i32().named("JoinGroupResponse.generation_id")?;
        if v >= 7 {
            m.protocol_type = r.string_opt(flex, v >= 7).named("JoinGroupResponse.protocol_type")?;
        }
        m.protocol_name = r.string_opt(flex, v >= 7).named("JoinGroupResponse.protocol_name")?;
        m.leader = r.string(flex).named("JoinGroupResponse.leader")?;
        if v >= 9 {
            m.skip_assignment = r.bool().named("JoinGroupResponse.skip_assignment")?;
        }
        m.member_id = r.string(flex).named("JoinGroupResponse.member_id")?;
        m.members = r
            .array(flex, JoinGroupResponseMember::min_size(v), |r| JoinGroupResponseMember::decode(r, v))
            .named("JoinGroupResponse.members")?;
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
        n += 2;
        n += 4;
        if v >= 7 {
            n += size::string_opt(&self.protocol_type, flex);
        }
        n += size::string_opt(&self.protocol_name, flex);
        n += size::string(&self.leader, flex);
        if v >= 9 {
            n += 1;
        }
        n += size::string(&self.member_id, flex);
        n += size::array(&self.members, flex, |x| x.size(v));
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
        w.i16(self.error_code);
        w.i32(self.generation_id);
        if v >= 7 {
            w.string_opt(&self.protocol_type, flex, v >= 7, "JoinGroupResponse.protocol_type");
        }
        w.string_opt(&self.protocol_name, flex, v >= 7, "JoinGroupResponse.protocol_name");
        w.string(&self.leader, flex, "JoinGroupResponse.leader");
        if v >= 9 {
            w.bool(self.skip_assignment);
        } else if self.skip_assignment {
            w.refuse("JoinGroupResponse.skip_assignment");
        }
        w.string(&self.member_id, flex, "JoinGroupResponse.member_id");
        w.array(&self.members, flex, "JoinGroupResponse.members", |w, x| x.encode(w, v));
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinGroupResponseMember {
    pub member_id: Str,
    pub group_instance_id: Option<Str>,
    pub metadata: Bytes,
}

impl Default for JoinGroupResponseMember {
    fn default() -> Self {
        JoinGroupResponseMember { member_id: Str::default(), group_instance_id: None, metadata: Bytes::new() }
    }
}

impl Message for JoinGroupResponseMember {
    fn min_size(v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        n += size::min_string(flex);
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
        let flex = v >= 6;
        let mut m = Self::default();
        m.member_id = r.string(flex).named("JoinGroupResponseMember.member_id")?;
        if v >= 5 {
            m.group_instance_id = r.string_opt(flex, v >= 5).named("JoinGroupResponseMember.group_instance_id")?;
        }
        m.metadata = r.bytes(flex).named("JoinGroupResponseMember.metadata")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 6;
        let mut n = 0;
        n += size::string(&self.member_id, flex);
        if v >= 5 {
            n += size::string_opt(&self.group_instance_id, flex);
        }
        n += size::bytes(&self.metadata, flex);
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 6;
        w.string(&self.member_id, flex, "JoinGroupResponseMember.member_id");
        if v >= 5 {
            w.string_opt(&self.group_instance_id, flex, v >= 5, "JoinGroupResponseMember.group_instance_id");
        }
        w.bytes(&self.metadata, flex, "JoinGroupResponseMember.metadata");
        if flex {
            w.uvarint(0);
        }
    }
}

impl crate::Request for JoinGroupRequest {
    const KEY: i16 = 11;
    const NAME: &'static str = "JoinGroup";
    const MIN: i16 = 0;
    const MAX: i16 = 9;
    const FLEX: Option<i16> = Some(6);
    type Response = JoinGroupResponse;
}
