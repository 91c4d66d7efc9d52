//! Pure. The writer: small fields go into one scratch buffer, record bytes are pushed as they are, so they are never
//! copied. The result is a list of pieces for a vectored write.
//!
//! A value that the version cannot carry is an error that stays in the writer until [`Writer::finish`], so that the
//! generated code needs no `?` and nothing half-true leaves.

use bytes::{BufMut, Bytes, BytesMut};

use crate::reader::STRING_BYTES_MAX;
use crate::text::Str;
use crate::{Message, Uuid};

/// Record pieces shorter than this are copied into the scratch buffer: cheaper than one more piece in a vectored write.
pub const INLINE_BYTES_MAX: usize = 512;

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("{0} cannot be expressed at this version")]
    Refused(&'static str),
    #[error("{0} is null, which this version does not allow")]
    Null(&'static str),
    #[error("{0} is too long")]
    TooLong(&'static str),
}

/// Record bytes as a list of pieces: one when decoded, several when a reply is put together from segments of a log.
#[derive(Clone, Default)]
pub struct Records(Vec<Bytes>);

impl Records {
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Bytes::is_empty)
    }
    pub fn pieces(&self) -> &[Bytes] {
        &self.0
    }
    pub fn push(&mut self, piece: Bytes) {
        self.0.push(piece);
    }
    pub fn into_pieces(self) -> Vec<Bytes> {
        self.0
    }
    /// As one slice: free for a single piece, a copy otherwise.
    pub fn to_bytes(&self) -> Bytes {
        join(&self.0)
    }
}

impl From<Bytes> for Records {
    fn from(bytes: Bytes) -> Records {
        // An empty piece costs no allocation, so that a frame of many empty records stays in its budget.
        if bytes.is_empty() { Records::default() } else { Records(vec![bytes]) }
    }
}
impl From<Vec<Bytes>> for Records {
    fn from(pieces: Vec<Bytes>) -> Records {
        Records(pieces)
    }
}
impl PartialEq for Records {
    /// Equal bytes, however they are cut.
    fn eq(&self, other: &Records) -> bool {
        self.len() == other.len() && self.to_bytes() == other.to_bytes()
    }
}
impl Eq for Records {}
impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Records({} bytes in {} pieces)", self.len(), self.0.len())
    }
}

fn join(pieces: &[Bytes]) -> Bytes {
    if let [one] = pieces {
        return one.clone();
    }
    let mut all = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    for piece in pieces {
        all.extend_from_slice(piece);
    }
    all.freeze()
}

/// What goes out, in order.
#[derive(Clone, Debug, Default)]
pub struct Segments {
    pieces: Vec<Bytes>,
    len: usize,
}

impl Segments {
    pub fn len(&self) -> usize {
        self.len
    }
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }
    pub fn into_pieces(self) -> Vec<Bytes> {
        self.pieces
    }
    /// As one slice: free for a single piece, a copy otherwise.
    pub fn to_bytes(&self) -> Bytes {
        join(&self.pieces)
    }
}

#[derive(Debug)]
pub struct Writer {
    scratch: BytesMut,
    pieces: Vec<Bytes>,
    len: usize,
    error: Option<EncodeError>,
}

macro_rules! numbers {
    ($($name:ident $put:ident;)*) => { $(
        pub fn $name(&mut self, value: $name) {
            self.scratch.$put(value);
        }
    )* };
}

impl Default for Writer {
    fn default() -> Writer {
        Writer::with_capacity(0)
    }
}

impl Writer {
    /// `bytes`: expected size without records; only a hint.
    pub fn with_capacity(bytes: usize) -> Writer {
        Writer { scratch: BytesMut::with_capacity(bytes.min(64 * 1024)), pieces: Vec::new(), len: 0, error: None }
    }
    numbers!(i8 put_i8; u8 put_u8; i16 put_i16; u16 put_u16; i32 put_i32; u32 put_u32; i64 put_i64; u64 put_u64; f64 put_f64;);

    pub fn bool(&mut self, value: bool) {
        self.scratch.put_u8(u8::from(value));
    }
    pub fn uuid(&mut self, value: &Uuid) {
        self.scratch.put_slice(value);
    }
    pub fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.scratch.put_u8((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        self.scratch.put_u8(value as u8);
    }
    /// Notes that a field holds something this version cannot carry.
    #[cold]
    pub fn refuse(&mut self, field: &'static str) {
        self.error.get_or_insert(EncodeError::Refused(field));
    }
    fn null(&mut self, field: &'static str) {
        self.error.get_or_insert(EncodeError::Null(field));
    }
    fn too_long(&mut self, field: &'static str) {
        self.error.get_or_insert(EncodeError::TooLong(field));
    }
    fn wide_len(&mut self, len: usize, flex: bool, field: &'static str) {
        let Ok(n) = i32::try_from(len) else { return self.too_long(field) };
        if flex { self.uvarint(n.unsigned_abs().saturating_add(1)) } else { self.i32(n) }
    }
    fn wide_null(&mut self, flex: bool, nullable: bool, field: &'static str) {
        if !nullable {
            self.null(field);
        }
        if flex { self.uvarint(0) } else { self.i32(-1) }
    }
    pub fn string(&mut self, value: &Str, flex: bool, field: &'static str) {
        let bytes = value.as_bytes();
        if bytes.len() > STRING_BYTES_MAX {
            return self.too_long(field);
        }
        if flex {
            self.uvarint(bytes.len() as u32 + 1)
        } else {
            self.i16(bytes.len() as i16)
        }
        self.scratch.put_slice(bytes);
    }
    pub fn string_opt(&mut self, value: &Option<Str>, flex: bool, nullable: bool, field: &'static str) {
        match value {
            Some(value) => self.string(value, flex, field),
            None => {
                if !nullable {
                    self.null(field);
                }
                if flex { self.uvarint(0) } else { self.i16(-1) }
            }
        }
    }
    pub fn bytes(&mut self, value: &Bytes, flex: bool, field: &'static str) {
        self.wide_len(value.len(), flex, field);
        self.piece(value);
    }
    pub fn bytes_opt(&mut self, value: &Option<Bytes>, flex: bool, nullable: bool, field: &'static str) {
        match value {
            Some(value) => self.bytes(value, flex, field),
            None => self.wide_null(flex, nullable, field),
        }
    }
    pub fn records(&mut self, value: &Records, flex: bool, field: &'static str) {
        self.wide_len(value.len(), flex, field);
        for piece in &value.0 {
            self.piece(piece);
        }
    }
    pub fn records_opt(&mut self, value: &Option<Records>, flex: bool, nullable: bool, field: &'static str) {
        match value {
            Some(value) => self.records(value, flex, field),
            None => self.wide_null(flex, nullable, field),
        }
    }
    pub fn struct_opt<M: Message>(&mut self, value: &Option<M>, v: i16, nullable: bool, field: &'static str) {
        match value {
            Some(value) => {
                self.i8(1);
                value.encode(self, v);
            }
            None => {
                if !nullable {
                    self.null(field);
                }
                self.i8(-1);
            }
        }
    }
    pub fn array<T>(&mut self, items: &[T], flex: bool, field: &'static str, mut each: impl FnMut(&mut Writer, &T)) {
        self.wide_len(items.len(), flex, field);
        for item in items {
            each(self, item);
        }
    }
    pub fn array_opt<T>(
        &mut self,
        items: &Option<Vec<T>>,
        flex: bool,
        nullable: bool,
        field: &'static str,
        each: impl FnMut(&mut Writer, &T),
    ) {
        match items {
            Some(items) => self.array(items, flex, field, each),
            None => self.wide_null(flex, nullable, field),
        }
    }
    /// Head of a tagged field whose value takes `size` bytes. Ascending order is the caller's (the generator's) duty.
    pub fn tag(&mut self, tag: u32, size: usize) {
        self.uvarint(tag);
        self.uvarint(size as u32);
    }
    /// Bytes as they are: long ones become a piece of their own.
    pub fn piece(&mut self, bytes: &Bytes) {
        if bytes.len() < INLINE_BYTES_MAX {
            return self.scratch.put_slice(bytes);
        }
        self.cut();
        self.len += bytes.len();
        self.pieces.push(bytes.clone());
    }
    fn cut(&mut self) {
        if !self.scratch.is_empty() {
            self.len += self.scratch.len();
            self.pieces.push(self.scratch.split().freeze());
        }
    }
    pub fn finish(mut self) -> Result<Segments, EncodeError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        self.cut();
        Ok(Segments { pieces: self.pieces, len: self.len })
    }
}

/// Sizes, as the writer writes; used by the generated `size` and `min_size`.
pub mod size {
    use super::{Bytes, Records, Str};

    pub const fn uvarint(value: u32) -> usize {
        match value {
            0..0x80 => 1,
            0x80..0x4000 => 2,
            0x4000..0x20_0000 => 3,
            0x20_0000..0x1000_0000 => 4,
            _ => 5,
        }
    }
    pub const fn min_string(flex: bool) -> usize {
        if flex { 1 } else { 2 }
    }
    /// Of bytes, records and arrays.
    pub const fn min_bytes(flex: bool) -> usize {
        if flex { 1 } else { 4 }
    }
    fn wide(len: usize, flex: bool) -> usize {
        if flex { uvarint((len as u32).saturating_add(1)) } else { 4 }
    }
    pub fn string(value: &Str, flex: bool) -> usize {
        let len = value.as_bytes().len();
        len + if flex { uvarint(len as u32 + 1) } else { 2 }
    }
    pub fn string_opt(value: &Option<Str>, flex: bool) -> usize {
        value.as_ref().map_or(min_string(flex), |v| string(v, flex))
    }
    pub fn bytes(value: &Bytes, flex: bool) -> usize {
        value.len() + wide(value.len(), flex)
    }
    pub fn bytes_opt(value: &Option<Bytes>, flex: bool) -> usize {
        value.as_ref().map_or(min_bytes(flex), |v| bytes(v, flex))
    }
    pub fn records(value: &Records, flex: bool) -> usize {
        value.len() + wide(value.len(), flex)
    }
    pub fn records_opt(value: &Option<Records>, flex: bool) -> usize {
        value.as_ref().map_or(min_bytes(flex), |v| records(v, flex))
    }
    pub fn array<T>(items: &[T], flex: bool, each: impl Fn(&T) -> usize) -> usize {
        wide(items.len(), flex) + items.iter().map(each).sum::<usize>()
    }
    pub fn array_opt<T>(items: &Option<Vec<T>>, flex: bool, each: impl Fn(&T) -> usize) -> usize {
        items.as_ref().map_or(min_bytes(flex), |v| array(v, flex, each))
    }
    /// Tag, length and value.
    pub fn tag(tag: u32, size: usize) -> usize {
        uvarint(tag) + uvarint(size as u32) + size
    }
}
