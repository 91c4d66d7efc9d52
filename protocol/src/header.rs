//! Pure. Request and response headers.
//!
//! Facts: a request header is flexible (v2: tagged fields at its end) from the API's first flexible version on, but its
//! client id keeps the two-byte length; a response header is flexible (v1) from there on too, except for ApiVersions,
//! whose replies always carry v0, since the client may not know yet what the broker speaks. Source: KIP-482, KIP-511.
//!
//! Walk: produce-fetch 3/14

use crate::reader::{DecodeError, Named, Reader};
use crate::text::Str;
use crate::versions;
use crate::writer::{Writer, size};

/// Tagged fields in a header before authentication.
pub const TAGS_UNAUTHENTICATED_MAX: u32 = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    pub key: i16,
    pub version: i16,
    pub correlation: i32,
    pub client_id: Option<Str>,
}

/// The part that stands in every header: key and version, to be looked up before anything else is read.
pub fn peek(frame: &[u8]) -> Option<(i16, i16)> {
    let bytes = frame.first_chunk::<4>()?;
    Some((i16::from_be_bytes([bytes[0], bytes[1]]), i16::from_be_bytes([bytes[2], bytes[3]])))
}

impl RequestHeader {
    /// Reads the header of a key in the table; `flexible` as [`request_is_flexible`] says.
    pub fn decode(r: &mut Reader, flexible: bool) -> Result<RequestHeader, DecodeError> {
        let header = RequestHeader {
            key: r.i16().named("RequestHeader.key")?,
            version: r.i16().named("RequestHeader.version")?,
            correlation: r.i32().named("RequestHeader.correlation")?,
            client_id: r.string_opt(false, true).named("RequestHeader.client_id")?,
        };
        if flexible {
            r.skip_tags().named("RequestHeader.tags")?;
        }
        Ok(header)
    }
    pub fn size(&self, flexible: bool) -> usize {
        8 + size::string_opt(&self.client_id, false) + usize::from(flexible)
    }
    pub fn encode(&self, w: &mut Writer, flexible: bool) {
        w.i16(self.key);
        w.i16(self.version);
        w.i32(self.correlation);
        w.string_opt(&self.client_id, false, true, "RequestHeader.client_id");
        if flexible {
            w.uvarint(0);
        }
    }
}

pub fn request_is_flexible(key: i16, version: i16) -> bool {
    versions::find(key).and_then(|a| a.flex).is_some_and(|first| version >= first)
}

pub fn response_is_flexible(key: i16, version: i16) -> bool {
    key != versions::API_VERSIONS && request_is_flexible(key, version)
}

pub fn decode_response(r: &mut Reader, flexible: bool) -> Result<i32, DecodeError> {
    let correlation = r.i32().named("ResponseHeader.correlation")?;
    if flexible {
        r.skip_tags().named("ResponseHeader.tags")?;
    }
    Ok(correlation)
}

pub fn encode_response(w: &mut Writer, correlation: i32, flexible: bool) {
    w.i32(correlation);
    if flexible {
        w.uvarint(0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bytes::Bytes;

    #[test]
    fn the_client_id_keeps_its_two_byte_length_in_a_flexible_header() {
        let header = RequestHeader { key: 3, version: 12, correlation: 7, client_id: Some("ab".into()) };
        let mut w = Writer::default();
        header.encode(&mut w, true);
        let bytes = w.finish().unwrap().to_bytes();
        assert_eq!(&bytes[..], b"\0\x03\0\x0c\0\0\0\x07\0\x02ab\0");
        assert_eq!(header.size(true), bytes.len());
        assert_eq!(RequestHeader::decode(&mut Reader::new(bytes), true).unwrap(), header);
    }

    #[test]
    fn a_null_client_id_is_accepted() {
        let bytes = Bytes::from_static(b"\0\x03\0\x01\0\0\0\x07\xff\xff");
        assert_eq!(RequestHeader::decode(&mut Reader::new(bytes), false).unwrap().client_id, None);
    }

    #[test]
    fn tag_flood_in_header_before_auth() {
        // CVE-2026-111115: tagged fields of the first header.
        let mut frame = b"\0\x12\0\x03\0\0\0\x07\xff\xff\x11".to_vec();
        frame.extend((0..17).flat_map(|tag| [tag, 0]));
        let mut r = Reader::new(frame.into()).with_tags_max(TAGS_UNAUTHENTICATED_MAX);
        assert!(RequestHeader::decode(&mut r, true).is_err());
    }

    #[test]
    fn api_versions_replies_never_have_a_tagged_header() {
        for v in 0..=4 {
            assert!(!response_is_flexible(18, v));
        }
        assert!(request_is_flexible(18, 3));
        assert!(response_is_flexible(3, 9) && !response_is_flexible(3, 8));
    }
}
