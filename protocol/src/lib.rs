//! Rank 2, pure. Kafka's wire protocol: descriptions of the messages in `messages/`, a bounded reader, a writer that never
//! copies record bytes, and the one table of what is served.
//!
//! Invariants: no decoder allocates more than 16 × its frame + 64 KiB ([`reader`]); no number from outside reserves
//! memory by itself; what the bytes of a record batch hold is nobody's business here (that is `record`).
//! Generated: `api/`, `records/` (by `cargo xtask codegen`). Not done here: sockets, dispatch, meaning.

pub mod api;
pub mod code;
pub mod frame;
pub mod header;
pub mod produce;
pub mod reader;
pub mod records;
pub mod schema;
pub mod text;
pub mod versions;
pub mod writer;

pub use reader::{DecodeError, Reader};
pub use text::Str;
pub use writer::{EncodeError, Records, Segments, Writer};

/// 16 bytes that are an id but not a topic's (those are `record::TopicId`); zero = none.
pub type Uuid = [u8; 16];

/// A struct of the wire at its versions. Both directions exist for requests and responses alike: the broker decodes
/// requests, `client/` decodes responses, tests do both. A version outside the API's range is a bug of the caller:
/// ask [`versions`] first.
pub trait Message: Default {
    /// Fewest bytes one value takes at version `v`; what an array count is checked against.
    fn min_size(v: i16) -> usize;
    fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError>;
    /// Exact number of bytes that [`Message::encode`] writes.
    fn size(&self, v: i16) -> usize;
    /// Errors (a value that this version cannot carry) are kept in the writer and come out of [`Writer::finish`].
    fn encode(&self, w: &mut Writer, v: i16);
}

/// A request, with what the table says about its API.
pub trait Request: Message {
    const KEY: i16;
    const NAME: &'static str;
    /// Lowest version that is described and can be served.
    const MIN: i16;
    const MAX: i16;
    /// First flexible version.
    const FLEX: Option<i16>;
    type Response: Message;
}

/// Decodes one body; bytes behind its last field are ignored, as Kafka does, and counted in the second value.
pub fn decode<M: Message>(body: bytes::Bytes, version: i16) -> Result<(M, usize), DecodeError> {
    let mut reader = Reader::new(body);
    let message = M::decode(&mut reader, version)?;
    Ok((message, reader.remaining()))
}

/// Encodes one body, without header or length.
pub fn encode<M: Message>(message: &M, version: i16) -> Result<Segments, EncodeError> {
    let mut writer = Writer::with_capacity(message.size(version));
    message.encode(&mut writer, version);
    writer.finish()
}
