//! Pure. FindCoordinator (key 10), versions 0-6.
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
pub struct FindCoordinatorRequest {
    pub key: Str,
    pub key_type: i8,
    pub coordinator_keys: Vec<Str>,
}

impl Default for FindCoordinatorRequest {
    fn default() -> Self {
        FindCoordinatorRequest { key: Str::default(), key_type: 0, coordinator_keys: Vec::new() }
    }
}

impl Message for FindCoordinatorRequest {
    fn min_size(v: i16) -> usize {
        let flex = v >= 3;
        let mut n = 0;
        if v <= 3 {
            n += size::min_string(flex);
        }
        if v >= 1 {
            n += 1;
        }
        if v >= 4 {
            n += size::min_bytes(flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 3;
        let mut m = Self::default();
        if v <= 3 {
            m.key = r.string(flex).named("FindCoordinatorRequest.key")?;
        }
        if v >= 1 {
            m.key_type = r.i8().named("FindCoordinatorRequest.key_type")?;
        }
        if v >= 4 {
            m.coordinator_keys = r
                .array(flex, size::min_string(flex), |r| r.string(flex))
                .named("FindCoordinatorRequest.coordinator_keys")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 3;
        let mut n = 0;
        if v <= 3 {
            n += size::string(&self.key, flex);
        }
        if v >= 1 {
            n += 1;
        }
        if v >= 4 {
            n += size::array(&self.coordinator_keys, flex, |x| size::string(x, flex));
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 3;
        if v <= 3 {
            w.string(&self.key, flex, "FindCoordinatorRequest.key");
        } else if !self.key.is_empty() {
            w.refuse("FindCoordinatorRequest.key");
        }
        if v >= 1 {
            w.i8(self.key_type);
        } else if self.key_type != 0 {
            w.refuse("FindCoordinatorRequest.key_type");
        }
        if v >= 4 {
            w.array(&self.coordinator_keys, flex, "FindCoordinatorRequest.coordinator_keys", |w, x| {
                w.string(x, flex, "FindCoordinatorRequest.coordinator_keys")
            });
        } else if !self.coordinator_keys.is_empty() {
            w.refuse("FindCoordinatorRequest.coordinator_keys");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FindCoordinatorResponse {
    pub throttle_time_ms: i32,
    pub error_code: i16,
    pub error_message: Option<Str>,
    pub node_id: i32,
    pub host: Str,
    pub port: i32,
    pub coordinators: Vec<Coordinator>,
}

impl Default for FindCoordinatorResponse {
    fn default() -> Self {
        FindCoordinatorResponse {
            throttle_time_ms: 0,
            error_code: 0,
            error_message: Some(Str::default()),
            node_id: 0,
            host: Str::default(),
            port: 0,
            coordinators: Vec::new(),
        }
    }
}

impl Message for FindCoordinatorResponse {
    fn min_size(v: i16) -> usize {
        let flex = v >= 3;
        let mut n = 0;
        if v >= 1 {
            n += 4;
        }
        if v <= 3 {
            n += 2;
        }
        if (1..=3).contains(&v) {
            n += size::min_string(flex);
        }
        if v <= 3 {
            n += 4;
        }
        if v <= 3 {
            n += size::min_string(flex);
        }
        if v <= 3 {
            n += 4;
        }
        if v >= 4 {
            n += size::min_bytes(flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 3;
        let mut m = Self::default();
        if v >= 1 {
            m.throttle_time_ms = r.i32().named("FindCoordinatorResponse.throttle_time_ms")?;
        }
        if v <= 3 {
            m.error_code = r.i16().named("FindCoordinatorResponse.error_code")?;
        }
        if (1..=3).contains(&v) {
            m.error_message =
                r.string_opt(flex, (1..=3).contains(&v)).named("FindCoordinatorResponse.error_message")?;
        }
        if v <= 3 {
            m.node_id = r.i32().named("FindCoordinatorResponse.node_id")?;
        }
        if v <= 3 {
            m.host = r.string(flex).named("FindCoordinatorResponse.host")?;
        }
        if v <= 3 {
            m.port = r.i32().named("FindCoordinatorResponse.port")?;
        }
        if v >= 4 {
            m.coordinators = r
                .array(flex, Coordinator::min_size(v), |r| Coordinator::decode(r, v))
                .named("FindCoordinatorResponse.coordinators")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 3;
        let mut n = 0;
        if v >= 1 {
            n += 4;
        }
        if v <= 3 {
            n += 2;
        }
        if (1..=3).contains(&v) {
            n += size::string_opt(&self.error_message, flex);
        }
        if v <= 3 {
            n += 4;
        }
        if v <= 3 {
            n += size::string(&self.host, flex);
        }
        if v <= 3 {
            n += 4;
        }
        if v >= 4 {
            n += size::array(&self.coordinators, flex, |x| x.size(v));
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 3;
        if v >= 1 {
            w.i32(self.throttle_time_ms);
        }
        if v <= 3 {
            w.i16(self.error_code);
        } else if self.error_code != 0 {
            w.refuse("FindCoordinatorResponse.error_code");
        }
        if (1..=3).contains(&v) {
            w.string_opt(&self.error_message, flex, (1..=3).contains(&v), "FindCoordinatorResponse.error_message");
        }
        if v <= 3 {
            w.i32(self.node_id);
        } else if self.node_id != 0 {
            w.refuse("FindCoordinatorResponse.node_id");
        }
        if v <= 3 {
            w.string(&self.host, flex, "FindCoordinatorResponse.host");
        } else if !self.host.is_empty() {
            w.refuse("FindCoordinatorResponse.host");
        }
        if v <= 3 {
            w.i32(self.port);
        } else if self.port != 0 {
            w.refuse("FindCoordinatorResponse.port");
        }
        if v >= 4 {
            w.array(&self.coordinators, flex, "FindCoordinatorResponse.coordinators", |w, x| x.encode(w, v));
        } else if !self.coordinators.is_empty() {
            w.refuse("FindCoordinatorResponse.coordinators");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coordinator {
    pub key: Str,
    pub node_id: i32,
    pub host: Str,
    pub port: i32,
    pub error_code: i16,
    pub error_message: Option<Str>,
}

impl Default for Coordinator {
    fn default() -> Self {
        Coordinator {
            key: Str::default(),
            node_id: 0,
            host: Str::default(),
            port: 0,
            error_code: 0,
            error_message: Some(Str::default()),
        }
    }
}

impl Message for Coordinator {
    fn min_size(v: i16) -> usize {
        let flex = v >= 3;
        let mut n = 0;
        if v >= 4 {
            n += size::min_string(flex);
        }
        if v >= 4 {
            n += 4;
        }
        if v >= 4 {
            n += size::min_string(flex);
        }
        if v >= 4 {
            n += 4;
        }
        if v >= 4 {
            n += 2;
        }
        if v >= 4 {
            n += size::min_string(flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 3;
        let mut m = Self::default();
        if v >= 4 {
            m.key = r.string(flex).named("Coordinator.key")?;
        }
        if v >= 4 {
            m.node_id = r.i32().named("Coordinator.node_id")?;
        }
        if v >= 4 {
            m.host = r.string(flex).named("Coordinator.host")?;
        }
        if v >= 4 {
            m.port = r.i32().named("Coordinator.port")?;
        }
        if v >= 4 {
            m.error_code = r.i16().named("Coordinator.error_code")?;
        }
        if v >= 4 {
            m.error_message = r.string_opt(flex, v >= 4).named("Coordinator.error_message")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 3;
        let mut n = 0;
        if v >= 4 {
            n += size::string(&self.key, flex);
        }
        if v >= 4 {
            n += 4;
        }
        if v >= 4 {
            n += size::string(&self.host, flex);
        }
        if v >= 4 {
            n += 4;
        }
        if v >= 4 {
            n += 2;
        }
        if v >= 4 {
            n += size::string_opt(&self.error_message, flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 3;
        if v >= 4 {
            w.string(&self.key, flex, "Coordinator.key");
        } else if !self.key.is_empty() {
            w.refuse("Coordinator.key");
        }
        if v >= 4 {
            w.i32(self.node_id);
        } else if self.node_id != 0 {
            w.refuse("Coordinator.node_id");
        }
        if v >= 4 {
            w.string(&self.host, flex, "Coordinator.host");
        } else if !self.host.is_empty() {
            w.refuse("Coordinator.host");
        }
        if v >= 4 {
            w.i32(self.port);
        } else if self.port != 0 {
            w.refuse("Coordinator.port");
        }
        if v >= 4 {
            w.i16(self.error_code);
        } else if self.error_code != 0 {
            w.refuse("Coordinator.error_code");
        }
        if v >= 4 {
            w.string_opt(&self.error_message, flex, v >= 4, "Coordinator.error_message");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

impl crate::Request for FindCoordinatorRequest {
    const KEY: i16 = 10;
    const NAME: &'static str = "FindCoordinator";
    const MIN: i16 = 0;
    const MAX: i16 = 6;
    const FLEX: Option<i16> = Some(3);
    type Response = FindCoordinatorResponse;
}
