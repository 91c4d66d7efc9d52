//! Pure. DeleteTopics (key 20), versions 1-6.
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
pub struct DeleteTopicsRequest {
    pub topics: Vec<DeleteTopicState>,
    pub topic_names: Vec<Str>,
    pub timeout_ms: i32,
}

impl Default for DeleteTopicsRequest {
    fn default() -> Self {
        DeleteTopicsRequest { topics: Vec::new(), topic_names: Vec::new(), timeout_ms: 0 }
    }
}

impl Message for DeleteTopicsRequest {
    fn min_size(v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        if v >= 6 {
            n += size::min_bytes(flex);
        }
        if v <= 5 {
            n += size::min_bytes(flex);
        }
        n += 4;
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 4;
        let mut m = Self::default();
        if v >= 6 {
            m.topics = r
                .array(flex, DeleteTopicState::min_size(v), |r| DeleteTopicState::decode(r, v))
                .named("DeleteTopicsRequest.topics")?;
        }
        if v <= 5 {
            m.topic_names =
                r.array(flex, size::min_string(flex), |r| r.string(flex)).named("DeleteTopicsRequest.topic_names")?;
        }
        m.timeout_ms = r.i32().named("DeleteTopicsRequest.timeout_ms")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        if v >= 6 {
            n += size::array(&self.topics, flex, |x| x.size(v));
        }
        if v <= 5 {
            n += size::array(&self.topic_names, flex, |x| size::string(x, flex));
        }
        n += 4;
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 4;
        if v >= 6 {
            w.array(&self.topics, flex, "DeleteTopicsRequest.topics", |w, x| x.encode(w, v));
        } else if !self.topics.is_empty() {
            w.refuse("DeleteTopicsRequest.topics");
        }
        if v <= 5 {
            w.array(&self.topic_names, flex, "DeleteTopicsRequest.topic_names", |w, x| {
                w.string(x, flex, "DeleteTopicsRequest.topic_names")
            });
        }
        w.i32(self.timeout_ms);
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteTopicState {
    pub name: Option<Str>,
    pub topic_id: TopicId,
}

impl Default for DeleteTopicState {
    fn default() -> Self {
        DeleteTopicState { name: None, topic_id: Default::default() }
    }
}

impl Message for DeleteTopicState {
    fn min_size(v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        if v >= 6 {
            n += size::min_string(flex);
        }
        if v >= 6 {
            n += 16;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 4;
        let mut m = Self::default();
        if v >= 6 {
            m.name = r.string_opt(flex, v >= 6).named("DeleteTopicState.name")?;
        }
        if v >= 6 {
            m.topic_id = r.topic_id().named("DeleteTopicState.topic_id")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        if v >= 6 {
            n += size::string_opt(&self.name, flex);
        }
        if v >= 6 {
            n += 16;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 4;
        if v >= 6 {
            w.string_opt(&self.name, flex, v >= 6, "DeleteTopicState.name");
        } else if self.name.is_some() {
            w.refuse("DeleteTopicState.name");
        }
        if v >= 6 {
            w.uuid(&self.topic_id.0);
        } else if self.topic_id != TopicId::default() {
            w.refuse("DeleteTopicState.topic_id");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteTopicsResponse {
    pub throttle_time_ms: i32,
    pub responses: Vec<DeletableTopicResult>,
}

impl Default for DeleteTopicsResponse {
    fn default() -> Self {
        DeleteTopicsResponse { throttle_time_ms: 0, responses: Vec::new() }
    }
}

impl Message for DeleteTopicsResponse {
    fn min_size(v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        n += 4;
        n += size::min_bytes(flex);
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 4;
        let mut m = Self::default();
        m.throttle_time_ms = r.i32().named("DeleteTopicsResponse.throttle_time_ms")?;
        m.responses = r
            .array(flex, DeletableTopicResult::min_size(v), |r| DeletableTopicResult::decode(r, v))
            .named("DeleteTopicsResponse.responses")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        n += 4;
        n += size::array(&self.responses, flex, |x| x.size(v));
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 4;
        w.i32(self.throttle_time_ms);
        w.array(&self.responses, flex, "DeleteTopicsResponse.responses", |w, x| x.encode(w, v));
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletableTopicResult {
    pub name: Option<Str>,
    pub topic_id: TopicId,
    pub error_code: i16,
    pub error_message: Option<Str>,
}

impl Default for DeletableTopicResult {
    fn default() -> Self {
        DeletableTopicResult {
            name: Some(Str::default()),
            topic_id: Default::default(),
            error_code: 0,
            error_message: None,
        }
    }
}

impl Message for DeletableTopicResult {
    fn min_size(v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        n += size::min_string(flex);
        if v >= 6 {
            n += 16;
        }
        n += 2;
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
        m.name = r.string_opt(flex, v >= 6).named("DeletableTopicResult.name")?;
        if v >= 6 {
            m.topic_id = r.topic_id().named("DeletableTopicResult.topic_id")?;
        }
        m.error_code = r.i16().named("DeletableTopicResult.error_code")?;
        if v >= 5 {
            m.error_message = r.string_opt(flex, v >= 5).named("DeletableTopicResult.error_message")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        n += size::string_opt(&self.name, flex);
        if v >= 6 {
            n += 16;
        }
        n += 2;
        if v >= 5 {
            n += size::string_opt(&self.error_message, flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 4;
        w.string_opt(&self.name, flex, v >= 6, "DeletableTopicResult.name");
        if v >= 6 {
            w.uuid(&self.topic_id.0);
        }
        w.i16(self.error_code);
        if v >= 5 {
            w.string_opt(&self.error_message, flex, v >= 5, "DeletableTopicResult.error_message");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

impl crate::Request for DeleteTopicsRequest {
    const KEY: i16 = 20;
    const NAME: &'static str = "DeleteTopics";
    const MIN: i16 = 1;
    const MAX: i16 = 6;
    const FLEX: Option<i16> = Some(4);
    type Response = DeleteTopicsResponse;
}
