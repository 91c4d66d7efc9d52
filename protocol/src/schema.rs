//! Pure. Records of the coordinators: a key or value is an i16 and a body. For a value the i16 is the version; for a key of
//! `__consumer_offsets` it is the kind of record, which is [`Schema::ID`] (Kafka's readers skip kinds they do not know).

use bytes::Bytes;

use crate::Message;
use crate::reader::{DecodeError, Kind, Named, Reader};
use crate::writer::{EncodeError, Writer};

pub trait Schema: Message {
    const NAME: &'static str;
    const MIN: i16;
    const MAX: i16;
    const FLEX: Option<i16>;
    /// Kind of the record, of schemas that are keys.
    const ID: Option<i16>;
}

/// A value: version, body.
pub fn encode_value<S: Schema>(value: &S, version: i16) -> Result<Bytes, EncodeError> {
    if version < S::MIN || version > S::MAX {
        return Err(EncodeError::Refused(S::NAME));
    }
    prefixed(value, version, version)
}

/// Version and value.
pub fn decode_value<S: Schema>(bytes: &Bytes) -> Result<(i16, S), DecodeError> {
    let mut r = Reader::new(bytes.clone());
    let version = r.i16().named(S::NAME)?;
    if version < S::MIN || version > S::MAX {
        return Err(DecodeError { field: S::NAME, ..r.error(Kind::Version) });
    }
    Ok((version, S::decode(&mut r, version)?))
}

/// A key: its kind, then the body at the schema's lowest version (keys never change their layout).
pub fn encode_key<S: Schema>(key: &S) -> Result<Bytes, EncodeError> {
    let Some(kind) = S::ID else { return Err(EncodeError::Refused(S::NAME)) };
    prefixed(key, kind, S::MIN)
}

/// The kind of a key; `None` if it is too short to have one.
pub fn key_kind(bytes: &[u8]) -> Option<i16> {
    bytes.first_chunk::<2>().map(|b| i16::from_be_bytes(*b))
}

/// A key whose kind the caller has looked at.
pub fn decode_key<S: Schema>(bytes: &Bytes) -> Result<S, DecodeError> {
    let mut r = Reader::new(bytes.clone());
    r.i16().named(S::NAME)?;
    S::decode(&mut r, S::MIN)
}

fn prefixed<S: Schema>(value: &S, prefix: i16, version: i16) -> Result<Bytes, EncodeError> {
    let mut w = Writer::with_capacity(2 + value.size(version));
    w.i16(prefix);
    value.encode(&mut w, version);
    Ok(w.finish()?.to_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::records::group::{GroupMetadataKey, OffsetCommitKey, OffsetCommitValue};

    #[test]
    fn an_offset_commit_has_kafkas_bytes() {
        // Source: Kafka's OffsetCommitKey v1 and OffsetCommitValue v3 as its console tools print and write them.
        let key = OffsetCommitKey { group: "g".into(), topic: "t".into(), partition: 2 };
        assert_eq!(&encode_key(&key).unwrap()[..], b"\0\x01\0\x01g\0\x01t\0\0\0\x02");
        let value = OffsetCommitValue { offset: 5, leader_epoch: 1, commit_timestamp: 9, ..Default::default() };
        let bytes = encode_value(&value, 3).unwrap();
        assert_eq!(&bytes[..], b"\0\x03\0\0\0\0\0\0\0\x05\0\0\0\x01\0\0\0\0\0\0\0\0\0\x09");
        assert_eq!(decode_value::<OffsetCommitValue>(&bytes).unwrap(), (3, value));
        assert_eq!(decode_key::<OffsetCommitKey>(&encode_key(&key).unwrap()).unwrap(), key);
        assert_eq!(key_kind(&encode_key(&GroupMetadataKey { group: "g".into() }).unwrap()), Some(2));
    }

    #[test]
    fn a_value_of_an_unknown_version_is_refused() {
        let error = decode_value::<OffsetCommitValue>(&Bytes::from_static(b"\0\x63")).unwrap_err();
        assert_eq!(error.kind, Kind::Version);
    }
}
