//! The codec against other people's bytes: golden frames of a JVM, random values through kafka-protocol, hostile counts under
//! a counting allocator.
#![allow(clippy::unwrap_used)]

mod differential;
mod golden;
mod hostile;
mod layout;
mod page;
mod sys;

pub use layout::Direction;

use bytes::Bytes;
use catchwater_protocol::{DecodeError, Message, Reader, Request, api};

/// What became of a body.
#[derive(Debug)]
pub struct Outcome {
    pub left: usize,
    /// Encoded again, if asked.
    pub again: Option<Bytes>,
}

fn through<M: Message>(body: Bytes, version: i16, encode: bool) -> Result<Outcome, DecodeError> {
    let mut reader = Reader::new(body);
    let message = M::decode(&mut reader, version)?;
    let left = reader.remaining();
    let again = encode.then(|| {
        let segments = catchwater_protocol::encode(&message, version).expect("what was decoded can be encoded");
        assert_eq!(segments.len(), message.size(version), "size() against encode()");
        segments.to_bytes()
    });
    Ok(Outcome { left, again })
}

macro_rules! dispatch {
    ($($name:ident $request:ident $response:ident;)*) => {
        /// Decodes (and encodes) a body by key; `None` for an API that is not described.
        pub fn pass(key: i16, d: Direction, v: i16, body: Bytes, encode: bool) -> Option<Result<Outcome, DecodeError>> {
            $(if key == <api::$request as Request>::KEY {
                return Some(match d {
                    Direction::Request => through::<api::$request>(body, v, encode),
                    Direction::Response => through::<api::$response>(body, v, encode),
                });
            })*
            None
        }
        /// Key, name, lowest and highest described version.
        pub const DESCRIBED: &[(i16, &str, i16, i16)] = &[
            $((<api::$request as Request>::KEY, <api::$request as Request>::NAME,
               <api::$request as Request>::MIN, <api::$request as Request>::MAX),)*
        ];
    };
}
catchwater_protocol::each_api!(dispatch);
