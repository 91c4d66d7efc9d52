//! Pure. DescribeConfigs (key 32), versions 1-4.
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
pub struct DescribeConfigsRequest {
    pub resources: Vec<DescribeConfigsResource>,
    pub include_synonyms: bool,
    pub include_documentation: bool,
}

impl Default for DescribeConfigsRequest {
    fn default() -> Self {
        DescribeConfigsRequest { resources: Vec::new(), include_synonyms: false, include_documentation: false }
    }
}

impl Message for DescribeConfigsRequest {
    fn min_size(v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        n += size::min_bytes(flex);
        n += 1;
        if v >= 3 {
            n += 1;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 4;
        let mut m = Self::default();
        m.resources = r
            .array(flex, DescribeConfigsResource::min_size(v), |r| DescribeConfigsResource::decode(r, v))
            .named("DescribeConfigsRequest.resources")?;
        m.include_synonyms = r.bool().named("DescribeConfigsRequest.include_synonyms")?;
        if v >= 3 {
            m.include_documentation = r.bool().named("DescribeConfigsRequest.include_documentation")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        n += size::array(&self.resources, flex, |x| x.size(v));
        n += 1;
        if v >= 3 {
            n += 1;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 4;
        w.array(&self.resources, flex, "DescribeConfigsRequest.resources", |w, x| x.encode(w, v));
        w.bool(self.include_synonyms);
        if v >= 3 {
            w.bool(self.include_documentation);
        } else if self.include_documentation {
            w.refuse("DescribeConfigsRequest.include_documentation");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeConfigsResource {
    pub resource_type: i8,
    pub resource_name: Str,
    pub configuration_keys: Option<Vec<Str>>,
}

impl Default for DescribeConfigsResource {
    fn default() -> Self {
        DescribeConfigsResource {
            resource_type: 0,
            resource_name: Str::default(),
            configuration_keys: Some(Vec::new()),
        }
    }
}

impl Message for DescribeConfigsResource {
    fn min_size(v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        n += 1;
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
        m.resource_type = r.i8().named("DescribeConfigsResource.resource_type")?;
        m.resource_name = r.string(flex).named("DescribeConfigsResource.resource_name")?;
        m.configuration_keys = r
            .array_opt(flex, true, size::min_string(flex), |r| r.string(flex))
            .named("DescribeConfigsResource.configuration_keys")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        n += 1;
        n += size::string(&self.resource_name, flex);
        n += size::array_opt(&self.configuration_keys, flex, |x| size::string(x, flex));
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 4;
        w.i8(self.resource_type);
        w.string(&self.resource_name, flex, "DescribeConfigsResource.resource_name");
        w.array_opt(&self.configuration_keys, flex, true, "DescribeConfigsResource.configuration_keys", |w, x| {
            w.string(x, flex, "DescribeConfigsResource.configuration_keys")
        });
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeConfigsResponse {
    pub throttle_time_ms: i32,
    pub results: Vec<DescribeConfigsResult>,
}

impl Default for DescribeConfigsResponse {
    fn default() -> Self {
        DescribeConfigsResponse { throttle_time_ms: 0, results: Vec::new() }
    }
}

impl Message for DescribeConfigsResponse {
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
        m.throttle_time_ms = r.i32().named("DescribeConfigsResponse.throttle_time_ms")?;
        m.results = r
            .array(flex, DescribeConfigsResult::min_size(v), |r| DescribeConfigsResult::decode(r, v))
            .named("DescribeConfigsResponse.results")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        n += 4;
        n += size::array(&self.results, flex, |x| x.size(v));
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 4;
        w.i32(self.throttle_time_ms);
        w.array(&self.results, flex, "DescribeConfigsResponse.results", |w, x| x.encode(w, v));
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeConfigsResult {
    pub error_code: i16,
    pub error_message: Option<Str>,
    pub resource_type: i8,
    pub resource_name: Str,
    pub configs: Vec<DescribeConfigsResourceResult>,
}

impl Default for DescribeConfigsResult {
    fn default() -> Self {
        DescribeConfigsResult {
            error_code: 0,
            error_message: Some(Str::default()),
            resource_type: 0,
            resource_name: Str::default(),
            configs: Vec::new(),
        }
    }
}

impl Message for DescribeConfigsResult {
    fn min_size(v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        n += 2;
        n += size::min_string(flex);
        n += 1;
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
        m.error_code = r.i16().named("DescribeConfigsResult.error_code")?;
        m.error_message = r.string_opt(flex, true).named("DescribeConfigsResult.error_message")?;
        m.resource_type = r.i8().named("DescribeConfigsResult.resource_type")?;
        m.resource_name = r.string(flex).named("DescribeConfigsResult.resource_name")?;
        m.configs = r
            .array(flex, DescribeConfigsResourceResult::min_size(v), |r| DescribeConfigsResourceResult::decode(r, v))
            .named("DescribeConfigsResult.configs")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        n += 2;
        n += size::string_opt(&self.error_message, flex);
        n += 1;
        n += size::string(&self.resource_name, flex);
        n += size::array(&self.configs, flex, |x| x.size(v));
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 4;
        w.i16(self.error_code);
        w.string_opt(&self.error_message, flex, true, "DescribeConfigsResult.error_message");
        w.i8(self.resource_type);
        w.string(&self.resource_name, flex, "DescribeConfigsResult.resource_name");
        w.array(&self.configs, flex, "DescribeConfigsResult.configs", |w, x| x.encode(w, v));
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeConfigsResourceResult {
    pub name: Str,
    pub value: Option<Str>,
    pub read_only: bool,
    pub config_source: i8,
    pub is_sensitive: bool,
    pub synonyms: Vec<DescribeConfigsSynonym>,
    pub config_type: i8,
    pub documentation: Option<Str>,
}

impl Default for DescribeConfigsResourceResult {
    fn default() -> Self {
        DescribeConfigsResourceResult {
            name: Str::default(),
            value: Some(Str::default()),
            read_only: false,
            config_source: -1,
            is_sensitive: false,
            synonyms: Vec::new(),
            config_type: 0,
            documentation: Some(Str::default()),
        }
    }
}

impl Message for DescribeConfigsResourceResult {
    fn min_size(v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        n += size::min_string(flex);
        n += size::min_string(flex);
        n += 1;
        n += 1;
        n += 1;
        n += size::min_bytes(flex);
        if v >= 3 {
            n += 1;
        }
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
        m.name = r.string(flex).named("DescribeConfigsResourceResult.name")?;
        m.value = r.string_opt(flex, true).named("DescribeConfigsResourceResult.value")?;
        m.read_only = r.bool().named("DescribeConfigsResourceResult.read_only")?;
        m.config_source = r.i8().named("DescribeConfigsResourceResult.config_source")?;
        m.is_sensitive = r.bool().named("DescribeConfigsResourceResult.is_sensitive")?;
        m.synonyms = r
            .array(flex, DescribeConfigsSynonym::min_size(v), |r| DescribeConfigsSynonym::decode(r, v))
            .named("DescribeConfigsResourceResult.synonyms")?;
        if v >= 3 {
            m.config_type = r.i8().named("DescribeConfigsResourceResult.config_type")?;
        }
        if v >= 3 {
            m.documentation = r.string_opt(flex, true).named("DescribeConfigsResourceResult.documentation")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        n += size::string(&self.name, flex);
        n += size::string_opt(&self.value, flex);
        n += 1;
        n += 1;
        n += 1;
        n += size::array(&self.synonyms, flex, |x| x.size(v));
        if v >= 3 {
            n += 1;
        }
        if v >= 3 {
            n += size::string_opt(&self.documentation, flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 4;
        w.string(&self.name, flex, "DescribeConfigsResourceResult.name");
        w.string_opt(&self.value, flex, true, "DescribeConfigsResourceResult.value");
        w.bool(self.read_only);
        w.i8(self.config_source);
        w.bool(self.is_sensitive);
        w.array(&self.synonyms, flex, "DescribeConfigsResourceResult.synonyms", |w, x| x.encode(w, v));
        if v >= 3 {
            w.i8(self.config_type);
        }
        if v >= 3 {
            w.string_opt(&self.documentation, flex, true, "DescribeConfigsResourceResult.documentation");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeConfigsSynonym {
    pub name: Str,
    pub value: Option<Str>,
    pub source: i8,
}

impl Default for DescribeConfigsSynonym {
    fn default() -> Self {
        DescribeConfigsSynonym { name: Str::default(), value: Some(Str::default()), source: 0 }
    }
}

impl Message for DescribeConfigsSynonym {
    fn min_size(v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        n += size::min_string(flex);
        n += size::min_string(flex);
        n += 1;
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 4;
        let mut m = Self::default();
        m.name = r.string(flex).named("DescribeConfigsSynonym.name")?;
        m.value = r.string_opt(flex, true).named("DescribeConfigsSynonym.value")?;
        m.source = r.i8().named("DescribeConfigsSynonym.source")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 4;
        let mut n = 0;
        n += size::string(&self.name, flex);
        n += size::string_opt(&self.value, flex);
        n += 1;
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 4;
        w.string(&self.name, flex, "DescribeConfigsSynonym.name");
        w.string_opt(&self.value, flex, true, "DescribeConfigsSynonym.value");
        w.i8(self.source);
        if flex {
            w.uvarint(0);
        }
    }
}

impl crate::Request for DescribeConfigsRequest {
    const KEY: i16 = 32;
    const NAME: &'static str = "DescribeConfigs";
    const MIN: i16 = 1;
    const MAX: i16 = 4;
    const FLEX: Option<i16> = Some(4);
    type Response = DescribeConfigsResponse;
}
