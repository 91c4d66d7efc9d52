//! Pure. The bounded reader: every decoder of the wire goes through it.
//!
//! Bounds (each has a test below or in `tests/hostile.rs`):
//! - a count n is accepted only if n × smallest element ≤ remaining bytes; room is reserved for at most 1,024 elements
//!   and then doubles as elements really decode;
//! - every growth is charged at `size_of` the Rust type to the frame's decode budget, 16 × length + 64 KiB;
//! - lengths below −1, null where it is not allowed, strings above 32,767 bytes, bad UTF-8, varints above five bytes:
//!   refused; tagged fields: 64 a struct, 1,024 a frame (16 in a header before authentication);
//! - nesting is what the description says, so there is no recursion by input.
//!
//! Strings, bytes and records are slices of the frame: nothing is copied.

use bytes::Bytes;
use catchwater_record::TopicId;

use crate::text::Str;
use crate::writer::Records;
use crate::{Message, Uuid};

/// Longest string in bytes, Kafka's `Short.MAX_VALUE`, in compact form too.
pub const STRING_BYTES_MAX: usize = 32_767;
/// Elements for which room is reserved before the first one is read.
pub const RESERVE_COUNT_MAX: usize = 1_024;
pub const TAGS_PER_STRUCT_MAX: u32 = 64;
pub const TAGS_PER_FRAME_MAX: u32 = 1_024;
/// Of the decode budget: this many bytes of memory for each byte of the frame…
pub const BUDGET_FACTOR: usize = 16;
/// …plus this many.
pub const BUDGET_BASE_BYTES: usize = 64 * 1024;

/// Why a body was refused. The connection closes, as for Kafka's InvalidRequest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Kind {
    #[error("ends too early")]
    Short,
    #[error("count is more than the bytes can hold")]
    Count,
    #[error("bad length")]
    Length,
    #[error("not UTF-8")]
    Utf8,
    #[error("null where a value must stand")]
    Null,
    #[error("varint is too long")]
    Varint,
    #[error("too many tagged fields")]
    Tags,
    #[error("needs more memory than its size allows")]
    Budget,
    #[error("unknown version")]
    Version,
}

/// A refused body: what, in which field, and at which byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{kind} in {} at byte {at}", if field.is_empty() { "a field" } else { field })]
pub struct DecodeError {
    pub kind: Kind,
    /// `Struct.field` of the innermost field, empty outside of one.
    pub field: &'static str,
    pub at: usize,
}

impl DecodeError {
    pub fn new(kind: Kind) -> DecodeError {
        DecodeError { kind, field: "", at: 0 }
    }
}

/// Gives an error the name of the field it came from; the innermost name stays.
pub trait Named {
    fn named(self, field: &'static str) -> Self;
}

impl<T> Named for Result<T, DecodeError> {
    fn named(self, field: &'static str) -> Self {
        self.map_err(|e| if e.field.is_empty() { DecodeError { field, ..e } } else { e })
    }
}

/// Reads one frame. Cheap to make; consumes nothing on error that anybody should rely on.
pub struct Reader {
    frame: Bytes,
    at: usize,
    /// End of the part being read: the frame's, or a tagged field's.
    end: usize,
    budget: usize,
    tags_left: u32,
}

type Read<T> = Result<T, DecodeError>;

macro_rules! numbers {
    ($($name:ident)*) => { $(
        pub fn $name(&mut self) -> Read<$name> {
            Ok($name::from_be_bytes(self.fixed()?))
        }
    )* };
}

impl Reader {
    pub fn new(frame: Bytes) -> Reader {
        let budget = frame.len().saturating_mul(BUDGET_FACTOR).saturating_add(BUDGET_BASE_BYTES);
        Reader { at: 0, end: frame.len(), frame, budget, tags_left: TAGS_PER_FRAME_MAX }
    }
    /// With a lower cap of tagged fields than [`TAGS_PER_FRAME_MAX`]: headers before authentication.
    pub fn with_tags_max(mut self, tags: u32) -> Reader {
        self.tags_left = tags;
        self
    }
    /// Gives back the full number of tags, after a header was read with fewer.
    pub fn set_tags_max(&mut self, tags: u32) {
        self.tags_left = tags;
    }
    pub fn remaining(&self) -> usize {
        self.end - self.at
    }
    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.at
    }
    /// What has not been read yet.
    pub fn rest(&self) -> Bytes {
        self.frame.slice(self.at..self.end)
    }
    /// An error of `kind` at the present position.
    pub fn error(&self, kind: Kind) -> DecodeError {
        DecodeError { kind, field: "", at: self.at }
    }
    fn fixed<const N: usize>(&mut self) -> Read<[u8; N]> {
        let Some(bytes) = self.frame[self.at..self.end].first_chunk::<N>() else {
            return Err(self.error(Kind::Short));
        };
        let bytes = *bytes;
        self.at += N;
        Ok(bytes)
    }
    numbers!(i8 u8 i16 u16 i32 u32 i64 u64 f64);

    /// Any byte but 0 is true, as Kafka reads it.
    pub fn bool(&mut self) -> Read<bool> {
        Ok(self.u8()? != 0)
    }
    pub fn uuid(&mut self) -> Read<Uuid> {
        self.fixed()
    }
    pub fn topic_id(&mut self) -> Read<TopicId> {
        Ok(TopicId(self.fixed()?))
    }
    pub fn uvarint(&mut self) -> Read<u32> {
        let mut value: u32 = 0;
        for i in 0..5 {
            let byte = self.u8()?;
            let low = u32::from(byte & 0x7f);
            if i == 4 && low > 0x0f {
                return Err(self.error(Kind::Varint));
            }
            value |= low << (7 * i);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error(Kind::Varint))
    }
    fn take(&mut self, len: usize) -> Read<Bytes> {
        if len > self.remaining() {
            return Err(self.error(Kind::Short));
        }
        let bytes = self.frame.slice(self.at..self.at + len);
        self.at += len;
        Ok(bytes)
    }
    /// A length in compact form: 0 is null, else length + 1.
    fn compact_len(&mut self) -> Read<Option<usize>> {
        let raw = self.uvarint()?;
        if raw > i32::MAX as u32 {
            return Err(self.error(Kind::Length));
        }
        Ok(raw.checked_sub(1).map(|n| n as usize))
    }
    fn signed_len(&mut self, raw: i32) -> Read<Option<usize>> {
        match raw {
            -1 => Ok(None),
            n => usize::try_from(n).map(Some).map_err(|_| self.error(Kind::Length)),
        }
    }
    fn string_len(&mut self, flex: bool) -> Read<Option<usize>> {
        let len = if flex {
            self.compact_len()?
        } else {
            let raw = self.i16()?;
            self.signed_len(i32::from(raw))?
        };
        match len {
            Some(n) if n > STRING_BYTES_MAX => Err(self.error(Kind::Length)),
            len => Ok(len),
        }
    }
    fn wide_len(&mut self, flex: bool) -> Read<Option<usize>> {
        if flex {
            return self.compact_len();
        }
        let raw = self.i32()?;
        self.signed_len(raw)
    }
    /// `nullable`: whether this version allows null.
    pub fn string_opt(&mut self, flex: bool, nullable: bool) -> Read<Option<Str>> {
        match self.string_len(flex)? {
            None if nullable => Ok(None),
            None => Err(self.error(Kind::Null)),
            Some(len) => {
                let bytes = self.take(len)?;
                Str::from_utf8(bytes).map(Some).ok_or_else(|| self.error(Kind::Utf8))
            }
        }
    }
    pub fn string(&mut self, flex: bool) -> Read<Str> {
        self.string_opt(flex, false).map(Option::unwrap_or_default)
    }
    pub fn bytes_opt(&mut self, flex: bool, nullable: bool) -> Read<Option<Bytes>> {
        match self.wide_len(flex)? {
            None if nullable => Ok(None),
            None => Err(self.error(Kind::Null)),
            Some(len) => self.take(len).map(Some),
        }
    }
    pub fn bytes(&mut self, flex: bool) -> Read<Bytes> {
        self.bytes_opt(flex, false).map(Option::unwrap_or_default)
    }
    pub fn records_opt(&mut self, flex: bool, nullable: bool) -> Read<Option<Records>> {
        let bytes = self.bytes_opt(flex, nullable)?;
        if bytes.as_ref().is_some_and(|b| !b.is_empty()) {
            self.charge(size_of::<Bytes>())?;
        }
        Ok(bytes.map(Records::from))
    }
    pub fn records(&mut self, flex: bool) -> Read<Records> {
        self.records_opt(flex, false).map(Option::unwrap_or_default)
    }
    /// A struct behind a marker byte; negative = null.
    pub fn struct_opt<M: Message>(&mut self, v: i16, nullable: bool) -> Read<Option<M>> {
        match self.i8()? {
            n if n >= 0 => M::decode(self, v).map(Some),
            _ if nullable => Ok(None),
            _ => Err(self.error(Kind::Null)),
        }
    }
    /// `element_min`: fewest bytes of one element, at least 1 is assumed.
    pub fn array_opt<T>(
        &mut self,
        flex: bool,
        nullable: bool,
        element_min: usize,
        mut read: impl FnMut(&mut Reader) -> Read<T>,
    ) -> Read<Option<Vec<T>>> {
        let count = match self.wide_len(flex)? {
            None if nullable => return Ok(None),
            None => return Err(self.error(Kind::Null)),
            Some(count) => count,
        };
        if count > self.remaining() / element_min.max(1) {
            return Err(self.error(Kind::Count));
        }
        let mut items: Vec<T> = Vec::new();
        self.grow(&mut items, count.min(RESERVE_COUNT_MAX))?;
        for _ in 0..count {
            if items.len() == items.capacity() {
                let room = items.len().saturating_mul(2).min(count);
                self.grow(&mut items, room)?;
            }
            items.push(read(self)?);
        }
        Ok(Some(items))
    }
    pub fn array<T>(
        &mut self,
        flex: bool,
        element_min: usize,
        read: impl FnMut(&mut Reader) -> Read<T>,
    ) -> Read<Vec<T>> {
        Ok(self.array_opt(flex, false, element_min, read)?.unwrap_or_default())
    }
    fn charge(&mut self, bytes: usize) -> Read<()> {
        self.budget = self.budget.checked_sub(bytes).ok_or(self.error(Kind::Budget))?;
        Ok(())
    }
    /// Makes room for `room` elements in all. The whole new block is charged, since old and new live at once for a moment.
    fn grow<T>(&mut self, items: &mut Vec<T>, room: usize) -> Read<()> {
        if room <= items.capacity() {
            return Ok(());
        }
        self.charge(room.saturating_mul(size_of::<T>()))?;
        items.reserve_exact(room - items.len());
        Ok(())
    }
    /// Tagged fields: `known` reads the field of a tag it knows and says so; all others are skipped.
    pub fn tags(&mut self, mut known: impl FnMut(&mut Reader, u32) -> Read<bool>) -> Read<()> {
        let count = self.uvarint()?;
        if count > TAGS_PER_STRUCT_MAX || count > self.tags_left {
            return Err(self.error(Kind::Tags));
        }
        self.tags_left -= count;
        for _ in 0..count {
            let tag = self.uvarint()?;
            let size = self.uvarint()? as usize;
            if size > self.remaining() {
                return Err(self.error(Kind::Short));
            }
            let outer = self.end;
            self.end = self.at + size;
            known(self, tag)?;
            self.at = self.end;
            self.end = outer;
        }
        Ok(())
    }
    pub fn skip_tags(&mut self) -> Read<()> {
        self.tags(|_, _| Ok(false))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn reader(bytes: &[u8]) -> Reader {
        Reader::new(Bytes::copy_from_slice(bytes))
    }

    /// One rule of refusal per line.
    #[test]
    fn foreign_bytes_are_refused_by_kind() {
        type Try = fn(&mut Reader) -> Option<Kind>;
        let count: Try =
            |r| r.array(false, 2, |r| -> Read<i16> { unreachable!("{}", r.remaining()) }).err().map(|e| e.kind);
        let cases: [(&str, &[u8], Try, Option<Kind>); 13] = [
            ("count above the bytes", b"\0\0\0\x03\0\0\0\0\0", count, Some(Kind::Count)),
            ("largest count", b"\x7f\xff\xff\xff", count, Some(Kind::Count)),
            ("negative count", b"\xff\xff\xff\xfe", count, Some(Kind::Length)),
            ("null array", b"\xff\xff\xff\xff", count, Some(Kind::Null)),
            ("null string", b"\xff\xff", |r| r.string(false).err().map(|e| e.kind), Some(Kind::Null)),
            ("null compact string", b"\0", |r| r.string(true).err().map(|e| e.kind), Some(Kind::Null)),
            ("string beyond the end", b"\0\x02a", |r| r.string(false).err().map(|e| e.kind), Some(Kind::Short)),
            ("bad text", b"\0\x01\xff", |r| r.string(false).err().map(|e| e.kind), Some(Kind::Utf8)),
            ("compact string too long", b"\x81\x80\x02", |r| r.string(true).err().map(|e| e.kind), Some(Kind::Length)),
            (
                "varint of six bytes",
                b"\x80\x80\x80\x80\x80\0",
                |r| r.uvarint().err().map(|e| e.kind),
                Some(Kind::Varint),
            ),
            (
                "varint above 32 bits",
                b"\xff\xff\xff\xff\x1f",
                |r| r.uvarint().err().map(|e| e.kind),
                Some(Kind::Varint),
            ),
            ("65 tagged fields", b"\x41\0\0", |r| r.skip_tags().err().map(|e| e.kind), Some(Kind::Tags)),
            (
                "compact length of 2^31",
                b"\x80\x80\x80\x80\x08",
                |r| r.bytes(true).err().map(|e| e.kind),
                Some(Kind::Length),
            ),
        ];
        for (what, bytes, attempt, expect) in cases {
            assert_eq!(attempt(&mut reader(bytes)), expect, "{what}");
        }
    }

    #[test]
    fn tags_of_a_frame_are_capped_and_unknown_ones_skipped() {
        let one = |r: &mut Reader| r.tags(|r, tag| if tag == 1 { r.i8().map(|_| true) } else { Ok(false) });
        let mut r = reader(b"\x02\x01\x02\x05\x06\x09\x01\xaa\x07");
        one(&mut r).unwrap();
        assert_eq!(r.rest(), &b"\x07"[..], "a known tag may be shorter than its size, an unknown one is skipped");
        let mut r = reader(&[1, 0, 0].repeat(20)).with_tags_max(16);
        for _ in 0..16 {
            r.skip_tags().unwrap();
        }
        assert_eq!(r.skip_tags().unwrap_err().kind, Kind::Tags);
        assert_eq!(reader(b"\x01\x01\x00").tags(|r, _| r.i8().map(|_| true)).unwrap_err().kind, Kind::Short);
    }

    #[test]
    fn room_is_reserved_in_steps() {
        let mut r = reader(&{
            let mut bytes = 5_000i32.to_be_bytes().to_vec();
            bytes.extend([0; 100 * 1_000]);
            bytes
        });
        let mut seen = 0;
        let failed = r.array(false, 1, |r| {
            seen += 1;
            if seen == 10 { Err(r.error(Kind::Short)) } else { Ok([0u64; 2]) }
        });
        assert!(failed.is_err());
        assert_eq!(r.budget, 16 * 100_004 + BUDGET_BASE_BYTES - RESERVE_COUNT_MAX * 16);
    }
}
