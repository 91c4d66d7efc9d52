//! Pure. Heartbeat (key 12), versions 0-4.
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
pub struct HeartbeatRequest {
    pub group_id: Str,
    pub generation_id: i32,
    pub member_id: Str,
    pub group_instance_id: Option<Str>,
}

impl Default for HeartbeatRequest {
    fn default() -> Self {
        HeartbeatRequest {
            group_id: Str::default(),
            generation_id: 0,
            member_id: Str::default(),
            group_instance_id: None,
        }
    }
}

impl Message for HeartbeatRequest {
    fn min_size(v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        n += size::min_string(flex);
        n += 4;
        n += size::min_string(flex);
        if v >= 3 {
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
        m.group_id = r.string(flex).named("HeartbeatRequest.group_id")?;
        m.generation_id = r.i32().named("HeartbeatRequest.generation_id")?;
        m.member_id = r.string(flex).named("HeartbeatRequest.member_id")?;
        if v >= 3 {
            m.group_instance_id = r.string_opt(flex, v >= 3).named("HeartbeatRequest.group_instance_id")?;
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
        n += 4;
        n += size::string(&self.member_id, flex);
        if v >= 3 {
            n += size::string_opt(&self.group_instance_id, flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 4;
        w.string(&self.group_id, flex, "HeartbeatRequest.group_id");
        w.i32(self.generation_id);
        w.string(&self.member_id, flex, "HeartbeatRequest.member_id");
        if v >= 3 {
            w.string_opt(&self.group_instance_id, flex, v >= 3, "HeartbeatRequest.group_instance_id");
        } else if self.group_instance_id.is_some() {
            w.refuse("HeartbeatRequest.group_instance_id");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatResponse {
    pub throttle_time_ms: i32,
    pub error_code: i16,
}

impl Default for HeartbeatResponse {
    fn default() -> Self {
        HeartbeatResponse { throttle_time_ms: 0, error_code: 0 }
    }
}

impl Message for HeartbeatResponse {
    fn min_size(v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        if v >= 1 {
            n += 4;
        }
        n += 2;
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 4;
        let mut m = Self::default();
        if v >= 1 {
            m.throttle_time_ms = r.i32().named("HeartbeatResponse.throttle_time_ms")?;
        }
        m.error_code = r.i16().named("HeartbeatResponse.error_code")?;
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
        if flex {
            w.uvarint(0);
        }
    }
}

impl crate::Request for HeartbeatRequest {
    const KEY: i16 = 12;
    const NAME: &'static str = "Heartbeat";
    const MIN: i16 = 0;
    const MAX: i16 = 4;
    const FLEX: Option<i16> = Some(4);
    type Response = HeartbeatResponse;
}
