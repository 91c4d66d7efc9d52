//! Pure. ApiVersions (key 18), versions 0-4.
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
pub struct ApiVersionsRequest {
    pub client_software_name: Str,
    pub client_software_version: Str,
}

impl Default for ApiVersionsRequest {
    fn default() -> Self {
        ApiVersionsRequest { client_software_name: Str::default(), client_software_version: Str::default() }
    }
}

impl Message for ApiVersionsRequest {
    fn min_size(v: i16) -> usize {
        let flex = v >= 3;
        let mut n = 0;
        if v >= 3 {
            n += size::min_string(flex);
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
        let flex = v >= 3;
        let mut m = Self::default();
        if v >= 3 {
            m.client_software_name = r.string(flex).named("ApiVersionsRequest.client_software_name")?;
        }
        if v >= 3 {
            m.client_software_version = r.string(flex).named("ApiVersionsRequest.client_software_version")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 3;
        let mut n = 0;
        if v >= 3 {
            n += size::string(&self.client_software_name, flex);
        }
        if v >= 3 {
            n += size::string(&self.client_software_version, flex);
        }
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 3;
        if v >= 3 {
            w.string(&self.client_software_name, flex, "ApiVersionsRequest.client_software_name");
        }
        if v >= 3 {
            w.string(&self.client_software_version, flex, "ApiVersionsRequest.client_software_version");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiVersionsResponse {
    pub error_code: i16,
    pub api_keys: Vec<ApiVersion>,
    pub throttle_time_ms: i32,
    pub supported_features: Vec<SupportedFeatureKey>,
    pub finalized_features_epoch: i64,
    pub finalized_features: Vec<FinalizedFeatureKey>,
    pub zk_migration_ready: bool,
}

impl Default for ApiVersionsResponse {
    fn default() -> Self {
        ApiVersionsResponse {
            error_code: 0,
            api_keys: Vec::new(),
            throttle_time_ms: 0,
            supported_features: Vec::new(),
            finalized_features_epoch: -1,
            finalized_features: Vec::new(),
            zk_migration_ready: false,
        }
    }
}

impl Message for ApiVersionsResponse {
    fn min_size(v: i16) -> usize {
        let flex = v >= 3;
        let mut n = 0;
        n += 2;
        n += size::min_bytes(flex);
        if v >= 1 {
            n += 4;
        }
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 3;
        let mut m = Self::default();
        m.error_code = r.i16().named("ApiVersionsResponse.error_code")?;
        m.api_keys = r
            .array(flex, ApiVersion::min_size(v), |r| ApiVersion::decode(r, v))
            .named("ApiVersionsResponse.api_keys")?;
        if v >= 1 {
            m.throttle_time_ms = r.i32().named("ApiVersionsResponse.throttle_time_ms")?;
        }
        if flex {
            r.tags(|r, tag| match tag {
                0 if v >= 3 => {
                    m.supported_features = r
                        .array(true, SupportedFeatureKey::min_size(v), |r| SupportedFeatureKey::decode(r, v))
                        .named("ApiVersionsResponse.supported_features")?;
                    Ok(true)
                }
                1 if v >= 3 => {
                    m.finalized_features_epoch = r.i64().named("ApiVersionsResponse.finalized_features_epoch")?;
                    Ok(true)
                }
                2 if v >= 3 => {
                    m.finalized_features = r
                        .array(true, FinalizedFeatureKey::min_size(v), |r| FinalizedFeatureKey::decode(r, v))
                        .named("ApiVersionsResponse.finalized_features")?;
                    Ok(true)
                }
                3 if v >= 3 => {
                    m.zk_migration_ready = r.bool().named("ApiVersionsResponse.zk_migration_ready")?;
                    Ok(true)
                }
                _ => Ok(false),
            })?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 3;
        let mut n = 0;
        n += 2;
        n += size::array(&self.api_keys, flex, |x| x.size(v));
        if v >= 1 {
            n += 4;
        }
        if flex {
            let mut tags = 0;
            if v >= 3 && !self.supported_features.is_empty() {
                tags += 1;
                n += size::tag(0, size::array(&self.supported_features, true, |x| x.size(v)));
            }
            if v >= 3 && self.finalized_features_epoch != -1 {
                tags += 1;
                n += size::tag(1, 8);
            }
            if v >= 3 && !self.finalized_features.is_empty() {
                tags += 1;
                n += size::tag(2, size::array(&self.finalized_features, true, |x| x.size(v)));
            }
            if v >= 3 && self.zk_migration_ready {
                tags += 1;
                n += size::tag(3, 1);
            }
            n += size::uvarint(tags);
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 3;
        w.i16(self.error_code);
        w.array(&self.api_keys, flex, "ApiVersionsResponse.api_keys", |w, x| x.encode(w, v));
        if v >= 1 {
            w.i32(self.throttle_time_ms);
        }
        if flex {
            let mut tags = 0;
            if v >= 3 && !self.supported_features.is_empty() {
                tags += 1;
            }
            if v >= 3 && self.finalized_features_epoch != -1 {
                tags += 1;
            }
            if v >= 3 && !self.finalized_features.is_empty() {
                tags += 1;
            }
            if v >= 3 && self.zk_migration_ready {
                tags += 1;
            }
            w.uvarint(tags);
            if v >= 3 && !self.supported_features.is_empty() {
                w.tag(0, size::array(&self.supported_features, true, |x| x.size(v)));
                w.array(&self.supported_features, true, "ApiVersionsResponse.supported_features", |w, x| {
                    x.encode(w, v)
                });
            }
            if v >= 3 && self.finalized_features_epoch != -1 {
                w.tag(1, 8);
                w.i64(self.finalized_features_epoch);
            }
            if v >= 3 && !self.finalized_features.is_empty() {
                w.tag(2, size::array(&self.finalized_features, true, |x| x.size(v)));
                w.array(&self.finalized_features, true, "ApiVersionsResponse.finalized_features", |w, x| {
                    x.encode(w, v)
                });
            }
            if v >= 3 && self.zk_migration_ready {
                w.tag(3, 1);
                w.bool(self.zk_migration_ready);
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiVersion {
    pub api_key: i16,
    pub min_version: i16,
    pub max_version: i16,
}

impl Default for ApiVersion {
    fn default() -> Self {
        ApiVersion { api_key: 0, min_version: 0, max_version: 0 }
    }
}

impl Message for ApiVersion {
    fn min_size(v: i16) -> usize {
        let flex = v >= 3;
        let mut n = 0;
        n += 2;
        n += 2;
        n += 2;
        if flex {
            n += 1;
        }
        n
    }
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {
        let flex = v >= 3;
        let mut m = Self::default();
        m.api_key = r.i16().named("ApiVersion.api_key")?;
        m.min_version = r.i16().named("ApiVersion.min_version")?;
        m.max_version = r.i16().named("ApiVersion.max_version")?;
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 3;
        let mut n = 0;
        n += 2;
        n += 2;
        n += 2;
        if flex {
            n += 1;
        }
        n
    }
    fn encode(&self, w: &mut Writer, v: i16) {
        let flex = v >= 3;
        w.i16(self.api_key);
        w.i16(self.min_version);
        w.i16(self.max_version);
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupportedFeatureKey {
    pub name: Str,
    pub min_version: i16,
    pub max_version: i16,
}

impl Default for SupportedFeatureKey {
    fn default() -> Self {
        SupportedFeatureKey { name: Str::default(), min_version: 0, max_version: 0 }
    }
}

impl Message for SupportedFeatureKey {
    fn min_size(v: i16) -> usize {
        let flex = v >= 3;
        let mut n = 0;
        if v >= 3 {
            n += size::min_string(flex);
        }
        if v >= 3 {
            n += 2;
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
        let flex = v >= 3;
        let mut m = Self::default();
        if v >= 3 {
            m.name = r.string(flex).named("SupportedFeatureKey.name")?;
        }
        if v >= 3 {
            m.min_version = r.i16().named("SupportedFeatureKey.min_version")?;
        }
        if v >= 3 {
            m.max_version = r.i16().named("SupportedFeatureKey.max_version")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 3;
        let mut n = 0;
        if v >= 3 {
            n += size::string(&self.name, flex);
        }
        if v >= 3 {
            n += 2;
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
        let flex = v >= 3;
        if v >= 3 {
            w.string(&self.name, flex, "SupportedFeatureKey.name");
        } else if !self.name.is_empty() {
            w.refuse("SupportedFeatureKey.name");
        }
        if v >= 3 {
            w.i16(self.min_version);
        } else if self.min_version != 0 {
            w.refuse("SupportedFeatureKey.min_version");
        }
        if v >= 3 {
            w.i16(self.max_version);
        } else if self.max_version != 0 {
            w.refuse("SupportedFeatureKey.max_version");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalizedFeatureKey {
    pub name: Str,
    pub max_version_level: i16,
    pub min_version_level: i16,
}

impl Default for FinalizedFeatureKey {
    fn default() -> Self {
        FinalizedFeatureKey { name: Str::default(), max_version_level: 0, min_version_level: 0 }
    }
}

impl Message for FinalizedFeatureKey {
    fn min_size(v: i16) -> usize {
        let flex = v >= 3;
        let mut n = 0;
        if v >= 3 {
            n += size::min_string(flex);
        }
        if v >= 3 {
            n += 2;
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
        let flex = v >= 3;
        let mut m = Self::default();
        if v >= 3 {
            m.name = r.string(flex).named("FinalizedFeatureKey.name")?;
        }
        if v >= 3 {
            m.max_version_level = r.i16().named("FinalizedFeatureKey.max_version_level")?;
        }
        if v >= 3 {
            m.min_version_level = r.i16().named("FinalizedFeatureKey.min_version_level")?;
        }
        if flex {
            r.skip_tags()?;
        }
        Ok(m)
    }
    fn size(&self, v: i16) -> usize {
        let flex = v >= 3;
        let mut n = 0;
        if v >= 3 {
            n += size::string(&self.name, flex);
        }
        if v >= 3 {
            n += 2;
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
        let flex = v >= 3;
        if v >= 3 {
            w.string(&self.name, flex, "FinalizedFeatureKey.name");
        } else if !self.name.is_empty() {
            w.refuse("FinalizedFeatureKey.name");
        }
        if v >= 3 {
            w.i16(self.max_version_level);
        } else if self.max_version_level != 0 {
            w.refuse("FinalizedFeatureKey.max_version_level");
        }
        if v >= 3 {
            w.i16(self.min_version_level);
        } else if self.min_version_level != 0 {
            w.refuse("FinalizedFeatureKey.min_version_level");
        }
        if flex {
            w.uvarint(0);
        }
    }
}

impl crate::Request for ApiVersionsRequest {
    const KEY: i16 = 18;
    const NAME: &'static str = "ApiVersions";
    const MIN: i16 = 0;
    const MAX: i16 = 4;
    const FLEX: Option<i16> = Some(3);
    type Response = ApiVersionsResponse;
}
