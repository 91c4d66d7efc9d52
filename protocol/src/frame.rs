//! Pure. The four-byte length before every request and response, checked before anything is allocated.
//!
//! Walk: produce-fetch 3/14

use bytes::{Buf, Bytes, BytesMut};

use crate::header::{self, RequestHeader};
use crate::reader::{DecodeError, Reader};
use crate::text::Str;
use crate::writer::{EncodeError, Segments, Writer};
use crate::{Message, Request};

pub const LENGTH_BYTES: usize = 4;
/// Smallest body that can hold a request header: key, version, correlation id.
pub const REQUEST_BYTES_MIN: usize = 8;
/// Smallest reply: a correlation id.
pub const RESPONSE_BYTES_MIN: usize = 4;
/// Cap before authentication on a listener that has one. Source: Kafka's `sasl.server.max.receive.size`.
pub const UNAUTHENTICATED_BYTES_MAX: usize = 512 * 1024;
/// Default of `socket.request.max.bytes`, and what our client accepts as a reply.
pub const REQUEST_BYTES_MAX: usize = 100 * 1024 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    #[error("frame length {0} is below {1}")]
    TooSmall(i32, usize),
    #[error("frame length {0} is above {1}")]
    TooLarge(i32, usize),
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub min: usize,
    pub max: usize,
}

impl Limits {
    pub const fn request(max: usize) -> Limits {
        Limits { min: REQUEST_BYTES_MIN, max }
    }
    pub const fn response(max: usize) -> Limits {
        Limits { min: RESPONSE_BYTES_MIN, max }
    }
    /// The length a frame announces, if it is acceptable.
    pub fn length(self, prefix: [u8; LENGTH_BYTES]) -> Result<usize, FrameError> {
        let raw = i32::from_be_bytes(prefix);
        match usize::try_from(raw) {
            Ok(n) if n < self.min => Err(FrameError::TooSmall(raw, self.min)),
            Ok(n) if n > self.max => Err(FrameError::TooLarge(raw, self.max)),
            Ok(n) => Ok(n),
            Err(_) => Err(FrameError::TooSmall(raw, self.min)),
        }
    }
    /// Takes one complete frame (without its length) off the front of `buffer`; `None` while bytes are missing.
    /// It never reserves: the caller reads on in pieces of its own choice.
    pub fn take(self, buffer: &mut BytesMut) -> Result<Option<BytesMut>, FrameError> {
        let Some(prefix) = buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let len = self.length(*prefix)?;
        if buffer.len() < LENGTH_BYTES + len {
            return Ok(None);
        }
        buffer.advance(LENGTH_BYTES);
        Ok(Some(buffer.split_to(len)))
    }
}

/// A whole request frame: length, header, body.
pub fn request<R: Request>(
    request: &R,
    version: i16,
    correlation: i32,
    client_id: Option<&str>,
) -> Result<Segments, EncodeError> {
    let header = RequestHeader { key: R::KEY, version, correlation, client_id: client_id.map(Str::from) };
    let flexible = R::FLEX.is_some_and(|first| version >= first);
    framed(header.size(flexible) + request.size(version), |w| {
        header.encode(w, flexible);
        request.encode(w, version);
    })
}

/// A whole response frame for the API `key`: length, response header, body.
pub fn response<M: Message>(message: &M, key: i16, version: i16, correlation: i32) -> Result<Segments, EncodeError> {
    let flexible = header::response_is_flexible(key, version);
    framed(4 + usize::from(flexible) + message.size(version), |w| {
        header::encode_response(w, correlation, flexible);
        message.encode(w, version);
    })
}

fn framed(len: usize, write: impl FnOnce(&mut Writer)) -> Result<Segments, EncodeError> {
    let prefix = i32::try_from(len).map_err(|_| EncodeError::TooLong("frame"))?;
    let mut w = Writer::with_capacity(LENGTH_BYTES + len);
    w.i32(prefix);
    write(&mut w);
    let segments = w.finish()?;
    assert_eq!(segments.len(), LENGTH_BYTES + len, "size() and encode() of a message disagree");
    Ok(segments)
}

/// A reply frame (without its length) into correlation id and message.
pub fn decode_response<R: Request>(frame: Bytes, version: i16) -> Result<(i32, R::Response), DecodeError> {
    let mut reader = Reader::new(frame);
    let correlation = header::decode_response(&mut reader, header::response_is_flexible(R::KEY, version))?;
    Ok((correlation, R::Response::decode(&mut reader, version)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lengths_are_bounded_before_anything_is_read() {
        let limits = Limits::request(1_000);
        for (raw, fine) in [
            (-1, false),
            (i32::MIN, false),
            (0, false),
            (7, false),
            (8, true),
            (1_000, true),
            (1_001, false),
            (i32::MAX, false),
        ] {
            assert_eq!(limits.length(i32::to_be_bytes(raw)).is_ok(), fine, "{raw}");
        }
    }

    #[test]
    fn a_frame_is_taken_only_when_complete() {
        let limits = Limits::request(100);
        let bytes = b"\0\0\0\x08abcdefgh\0\0";
        for cut in 0..12 {
            assert_eq!(limits.take(&mut BytesMut::from(&bytes[..cut])).unwrap(), None, "{cut}");
        }
        let mut buffer = BytesMut::from(&bytes[..]);
        assert_eq!(limits.take(&mut buffer).unwrap().unwrap(), &b"abcdefgh"[..]);
        assert_eq!(buffer, &b"\0\0"[..]);
    }
}
