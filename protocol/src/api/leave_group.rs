//! Pure. LeaveGroup (key 13), versions 0-5.
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
pub struct LeaveGroupRequest {
    pub group_id: Str,
    pub member_id: Str,
    pub members: Vec<MemberIdentity>,
}

impl Default for LeaveGroupRequest {
    fn default() -> Self {
        LeaveGroupRequest { group_id: Str::default(), member_id: Str::default(), members: Vec::new() }
    }
}

impl Message for LeaveGroupRequest {
    fn min_size(v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        n += size::min_string(flex);
        if v <= 2 {
            n += size::min_string(flex);
        }
        if v >= 3 {
            n += size::min_bytes(flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 4;
        let mut m = Self::default();
        m.group_id = r.string(flex).named("LeaveGroupRequest.group_id")?;
        if v <= 2 {
            m.member_id = r.string(flex).named("LeaveGroupRequest.member_id")?;
        }
        if v >= 3 {
            m.members = r
                .array(flex, MemberIdentity::min_size(v), |r| MemberIdentity::decode(r, v))
                .named("LeaveGroupRequest.members")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        n += size::string(&self.group_id, flex);
        if v <= 2 {
            n += size::string(&self.member_id, flex);
        }
        if v >= 3 {
            n += size::array(&self.members, flex, |x| x.size(v));
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 4;
        w.string(&self.group_id, flex, "LeaveGroupRequest.group_id");
        if v <= 2 {
            w.string(&self.member_id, flex, "LeaveGroupRequest.member_id");
        } else if !self.member_id.is_empty() {
            w.refuse("LeaveGroupRequest.member_id");
        }
        if v >= 3 {
            w.array(&self.members, flex, "LeaveGroupRequest.members", |w, x| x.encode(w, v));
        } else if !self.members.is_empty() {
            w.refuse("LeaveGroupRequest.members");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberIdentity {
    pub member_id: Str,
    pub group_instance_id: Option<Str>,
    pub reason: Option<Str>,
}

impl Default for MemberIdentity {
    fn default() -> Self {
        MemberIdentity { member_id: Str::default(), group_instance_id: None, reason: None }
    }
}

impl Message for MemberIdentity {
    fn min_size(v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        if v >= 3 {
            n += size::min_string(flex);
        }
        if v >= 3 {
            n += size::min_string(flex);
        }
        if v >= 5 {
            n += size::min_string(flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 4;
        let mut m = Self::default();
        if v >= 3 {
            m.member_id = r.string(flex).named("MemberIdentity.member_id")?;
        }
        if v >= 3 {
            m.group_instance_id = r.string_opt(flex, v >= 3).named("MemberIdentity.group_instance_id")?;
        }
        if v >= 5 {
            m.reason = r.string_opt(flex, v >= 5).named("MemberIdentity.reason")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        if v >= 3 {
            n += size::string(&self.member_id, flex);
        }
        if v >= 3 {
            n += size::string_opt(&self.group_instance_id, flex);
        }
        if v >= 5 {
            n += size::string_opt(&self.reason, flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 4;
        if v >= 3 {
            w.string(&self.member_id, flex, "MemberIdentity.member_id");
        } else if !self.member_id.is_empty() {
            w.refuse("MemberIdentity.member_id");
        }
        if v >= 3 {
            w.string_opt(&self.group_instance_id, flex, v >= 3, "MemberIdentity.group_instance_id");
        } else if self.group_instance_id.is_some() {
            w.refuse("MemberIdentity.group_instance_id");
        }
        if v >= 5 {
            w.string_opt(&self.reason, flex, v >= 5, "MemberIdentity.reason");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaveGroupResponse {
    pub throttle_time_ms: i32,
    pub error_code: i16,
    pub members: Vec<MemberResponse>,
}

impl Default for LeaveGroupResponse {
    fn default() -> Self {
        LeaveGroupResponse { throttle_time_ms: 0, error_code: 0, members: Vec::new() }
    }
}

impl Message for LeaveGroupResponse {
    fn min_size(v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        if v >= 1 {
            n += 4;
        }
        n += 2;
        if v >= 3 {
            n += size::min_bytes(flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 4;
        let mut m = Self::default();
        if v >= 1 {
            m.throttle_time_ms = r.i32().named("LeaveGroupResponse.throttle_time_ms")?;
        }
        m.error_code = r.i16().named("LeaveGroupResponse.error_code")?;
        if v >= 3 {
            m.members = r
                .array(flex, MemberResponse::min_size(v), |r| MemberResponse::decode(r, v))
                .named("LeaveGroupResponse.members")?;
        }
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
        if v >= 3 {
            n += size::array(&self.members, flex, |x| x.size(v));
        }
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
        if v >= 3 {
            w.array(&self.members, flex, "LeaveGroupResponse.members", |w, x| x.encode(w, v));
        } else if !self.members.is_empty() {
            w.refuse("LeaveGroupResponse.members");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberResponse {
    pub member_id: Str,
    pub group_instance_id: Option<Str>,
    pub error_code: i16,
}

impl Default for MemberResponse {
    fn default() -> Self {
        MemberResponse { member_id: Str::default(), group_instance_id: Some(Str::default()), error_code: 0 }
    }
}

impl Message for MemberResponse {
    fn min_size(v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        if v >= 3 {
            n += size::min_string(flex);
        }
        if v >= 3 {
            n += size::min_string(flex);
        }
        if v >= 3 {
            n += 2;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 4;
        let mut m = Self::default();
        if v >= 3 {
            m.member_id = r.string(flex).named("MemberResponse.member_id")?;
        }
        if v >= 3 {
            m.group_instance_id = r.string_opt(flex, v >= 3).named("MemberResponse.group_instance_id")?;
        }
        if v >= 3 {
            m.error_code = r.i16().named("MemberResponse.error_code")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        if v >= 3 {
            n += size::string(&self.member_id, flex);
        }
        if v >= 3 {
            n += size::string_opt(&self.group_instance_id, flex);
        }
        if v >= 3 {
            n += 2;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 4;
        if v >= 3 {
            w.string(&self.member_id, flex, "MemberResponse.member_id");
        } else if !self.member_id.is_empty() {
            w.refuse("MemberResponse.member_id");
        }
        if v >= 3 {
            w.string_opt(&self.group_instance_id, flex, v >= 3, "MemberResponse.group_instance_id");
        } else if self.group_instance_id.as_ref().is_none_or(|x| !x.is_empty()) {
            w.refuse("MemberResponse.group_instance_id");
        }
        if v >= 3 {
            w.i16(self.error_code);
        } else if self.error_code != 0 {
            w.refuse("MemberResponse.error_code");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

impl crate::Request for LeaveGroupRequest {
    const KEY: i16 = 13;
    const NAME: &'static str = "LeaveGroup";
    const MIN: i16 = 0;
    const MAX: i16 = 5;
    const FLEX: Option<i16> = Some(4);
    type Response = LeaveGroupResponse;
}
