//! ApiVersions: what is served, made from the one table. At a version that is not ours the answer is a version 0 body
//! with code 35 and the whole list, and the request's body is not looked at (KIP-511).

use super::{Refuse, RequestContext, Response, decode, respond};
use crate::error_code::{self, ApiVersionsError};
use bytes::Bytes;
use catchwater_protocol::api::api_versions::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
use catchwater_protocol::api::{ApiVersionsRequest, ApiVersionsResponse};
use catchwater_protocol::versions;

/// Feature levels: name, lowest, highest. A level stands here once its APIs are served.
const FEATURES: [(&str, i16, i16); 1] = [("metadata.version", 7, 30)];

pub async fn handle(_ctx: &RequestContext, version: i16, body: Bytes) -> Result<Response, Refuse> {
    if !versions::find(versions::API_VERSIONS).is_some_and(|api| api.serves(version)) {
        return respond(&answer(Some(ApiVersionsError::Version), 0), 0);
    }
    let request: ApiVersionsRequest = decode(body, version)?;
    let named = version < 3 || (is_name(&request.client_software_name) && is_name(&request.client_software_version));
    let error = if named { None } else { Some(ApiVersionsError::Software) };
    respond(&answer(error, version), version)
}

fn answer(error: Option<ApiVersionsError>, version: i16) -> ApiVersionsResponse {
    let mut response = ApiVersionsResponse { error_code: error_code::api_versions(error), ..Default::default() };
    if error == Some(ApiVersionsError::Software) {
        return response;
    }
    response.api_keys = versions::advertised()
        .map(|api| ApiVersion { api_key: api.key, min_version: api.min, max_version: api.max })
        .collect();
    if version >= 3 {
        // KAFKA-17011: clients up to version 3 stumble over a feature that begins at 0.
        response.supported_features = FEATURES
            .iter()
            .filter(|(_, min, _)| *min > 0 || version >= 4)
            .map(|(name, min_version, max_version)| SupportedFeatureKey {
                name: (*name).into(),
                min_version: *min_version,
                max_version: *max_version,
            })
            .collect();
        response.finalized_features_epoch = 0;
        response.finalized_features = FEATURES
            .iter()
            .map(|(name, _, level)| FinalizedFeatureKey {
                name: (*name).into(),
                max_version_level: *level,
                min_version_level: *level,
            })
            .collect();
    }
    response
}

/// `[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?`
fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let word = |b: &u8| b.is_ascii_alphanumeric();
    bytes.first().is_some_and(word)
        && bytes.last().is_some_and(word)
        && bytes.iter().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_follow_kip_511() {
        for good in ["a", "librdkafka", "apache-kafka-java", "3.7.0", "1"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", ".", "a b", "a\nb", "ä"] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn an_unknown_version_still_learns_ours() {
        let answer = answer(Some(ApiVersionsError::Version), 0);
        assert_eq!(answer.error_code, 35);
        assert!(answer.api_keys.iter().any(|k| k.api_key == 18 && k.max_version == 4));
        assert!(answer.supported_features.is_empty());
    }
}
