//! Pure. InitProducerId (key 22), versions 0-5.
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
pub struct InitProducerIdRequest {
    pub transactional_id: Option<Str>,
    pub transaction_timeout_ms: i32,
    pub producer_id: i64,
    pub producer_epoch: i16,
}

impl Default for InitProducerIdRequest {
    fn default() -> Self {
        InitProducerIdRequest {
            transactional_id: Some(Str::default()),
            transaction_timeout_ms: 0,
            producer_id: -1,
            producer_epoch: -1,
        }
    }
}

impl Message for InitProducerIdRequest {
    fn min_size(v: i16) -> usize {
        let flex = v >= 2;
        let mut n = 0;
        n += size::min_string(flex);
        n += 4;
        if v >= 3 {
            n += 8;
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
        let flex = v >= 2;
        let mut m = Self::default();
        m.transactional_id = r.string_opt(flex, true).named("InitProducerIdRequest.transactional_id")?;
        m.transaction_timeout_ms = r.i32().named("InitProducerIdRequest.transaction_timeout_ms")?;
        if v >= 3 {
            m.producer_id = r.i64().named("InitProducerIdRequest.producer_id")?;
        }
        if v >= 3 {
            m.producer_epoch = r.i16().named("InitProducerIdRequest.producer_epoch")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 2;
        let mut n = 0;
        n += size::string_opt(&self.transactional_id, flex);
        n += 4;
        if v >= 3 {
            n += 8;
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
        let flex = v >= 2;
        w.string_opt(&self.transactional_id, flex, true, "InitProducerIdRequest.transactional_id");
        w.i32(self.transaction_timeout_ms);
        if v >= 3 {
            w.i64(self.producer_id);
        } else if self.producer_id != -1 {
            w.refuse("InitProducerIdRequest.producer_id");
        }
        if v >= 3 {
            w.i16(self.producer_epoch);
        } else if self.producer_epoch != -1 {
            w.refuse("InitProducerIdRequest.producer_epoch");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitProducerIdResponse {
    pub throttle_time_ms: i32,
    pub error_code: i16,
    pub producer_id: i64,
    pub producer_epoch: i16,
}

impl Default for InitProducerIdResponse {
    fn default() -> Self {
        InitProducerIdResponse { throttle_time_ms: 0, error_code: 0, producer_id: -1, producer_epoch: 0 }
    }
}

impl Message for InitProducerIdResponse {
    fn min_size(v: i16) -> usize {
        let flex = v >= 2;
        let mut n = 0;
        n += 4;
        n += 2;
        n += 8;
        n += 2;
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 2;
        let mut m = Self::default();
        m.throttle_time_ms = r.i32().named("InitProducerIdResponse.throttle_time_ms")?;
        m.error_code = r.i16().named("InitProducerIdResponse.error_code")?;
        m.producer_id = r.i64().named("InitProducerIdResponse.producer_id")?;
        m.producer_epoch = r.i16().named("InitProducerIdResponse.producer_epoch")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 2;
        let mut n = 0;
        n += 4;
        n += 2;
        n += 8;
        n += 2;
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 2;
        w.i32(self.throttle_time_ms);
        w.i16(self.error_code);
        w.i64(self.producer_id);
        w.i16(self.producer_epoch);
        if flex {
            w.uvarint(0);
        }
    }
}

impl crate::Request for InitProducerIdRequest {
    const KEY: i16 = 22;
    const NAME: &'static str = "InitProducerId";
    const MIN: i16 = 0;
    const MAX: i16 = 5;
    const FLEX: Option<i16> = Some(2);
    type Response = InitProducerIdResponse;
}
