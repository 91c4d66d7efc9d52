//! Pure. Records as bytes: the trait every machine's record implements, and the few field forms they are written in.
//!
//! Keys and values have the description format of Kafka's own coordinator records: big endian, a `version i16` first,
//! then the fields; *flexible* structs write compact strings and arrays and end with tagged fields. Bytes read back may
//! be foreign (a copied directory, a newer release): every length is checked, nothing panics.

use bytes::{BufMut, Bytes, BytesMut};

/// One record of a machine, as the log holds it. `value` none = tombstone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Option<Bytes>,
}

/// Why a stored record could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum StoredError {
    #[error("record ends {0} bytes too early")]
    Short(usize),
    #[error("length {0} is out of range")]
    Length(i64),
    #[error("text is not UTF-8")]
    Utf8,
    #[error("null where a value is due")]
    Null,
    #[error("{what} {value} is unknown")]
    Unknown { what: &'static str, value: i64 },
    #[error("{0}")]
    Field(String),
    #[error("key version {key} has value version {value}, newer than this release")]
    Newer { key: i16, value: i16 },
}

/// A record that has a place in an internal log.
pub trait Stored: Sized {
    fn to_stored(&self) -> KeyValue;
    /// `None` = a key version this release does not know and may skip (Kafka's readers do the same).
    fn from_stored(key: &[u8], value: Option<&[u8]>) -> Result<Option<Self>, StoredError>;
}

/// Writes fields of one key or value.
#[derive(Default)]
pub struct Out {
    bytes: BytesMut,
}

impl Out {
    /// Begins with the `version i16` that every key and value has.
    pub fn version(version: i16) -> Self {
        let mut out = Out::default();
        out.i16(version);
        out
    }
    pub fn finish(self) -> Bytes {
        self.bytes.freeze()
    }
    pub fn i8(&mut self, v: i8) {
        self.bytes.put_i8(v);
    }
    pub fn i16(&mut self, v: i16) {
        self.bytes.put_i16(v);
    }
    pub fn i32(&mut self, v: i32) {
        self.bytes.put_i32(v);
    }
    pub fn i64(&mut self, v: i64) {
        self.bytes.put_i64(v);
    }
    pub fn uuid(&mut self, v: &[u8; 16]) {
        self.bytes.put_slice(v);
    }
    pub fn raw(&mut self, v: &[u8]) {
        self.bytes.put_slice(v);
    }
    pub fn uvarint(&mut self, mut v: u32) {
        while v >= 0x80 {
            self.bytes.put_u8((v as u8) | 0x80);
            v >>= 7;
        }
        self.bytes.put_u8(v as u8);
    }
    /// `len i16 | bytes`, the form of structs that are not flexible.
    pub fn string(&mut self, v: &str) {
        self.bytes.put_i16(i16::try_from(v.len()).expect("names are bounded below 32 KiB at the edge"));
        self.bytes.put_slice(v.as_bytes());
    }
    pub fn nullable_string(&mut self, v: Option<&str>) {
        match v {
            None => self.bytes.put_i16(-1),
            Some(v) => self.string(v),
        }
    }
    /// `len i32 | bytes`.
    pub fn bytes(&mut self, v: &[u8]) {
        self.bytes.put_i32(i32::try_from(v.len()).expect("blobs are bounded by the frame limit"));
        self.bytes.put_slice(v);
    }
    /// Compact form: `uvarint len + 1 | bytes`.
    pub fn compact(&mut self, v: &[u8]) {
        self.uvarint(u32::try_from(v.len()).expect("blobs are bounded by the frame limit") + 1);
        self.bytes.put_slice(v);
    }
    pub fn compact_string(&mut self, v: &str) {
        self.compact(v.as_bytes());
    }
    pub fn compact_nullable(&mut self, v: Option<&str>) {
        match v {
            None => self.uvarint(0),
            Some(v) => self.compact_string(v),
        }
    }
    /// Number of elements of a compact array.
    pub fn compact_count(&mut self, n: usize) {
        self.uvarint(u32::try_from(n).expect("arrays are bounded at the edge") + 1);
    }
    /// No tagged fields: the end of a flexible struct.
    pub fn end(&mut self) {
        self.uvarint(0);
    }
}

/// Reads fields of one key or value. Every length is checked against what is left.
#[derive(Clone)]
pub struct In<'a> {
    rest: &'a [u8],
}

impl<'a> In<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        In { rest: bytes }
    }
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
    pub fn raw(&mut self, n: usize) -> Result<&'a [u8], StoredError> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(StoredError::Short(n - self.rest.len().min(n)))?;
        self.rest = tail;
        Ok(head)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoredError> {
        let mut out = [0; N];
        out.copy_from_slice(self.raw(N)?);
        Ok(out)
    }
    pub fn i8(&mut self) -> Result<i8, StoredError> {
        Ok(i8::from_be_bytes(self.array()?))
    }
    pub fn i16(&mut self) -> Result<i16, StoredError> {
        Ok(i16::from_be_bytes(self.array()?))
    }
    pub fn i32(&mut self) -> Result<i32, StoredError> {
        Ok(i32::from_be_bytes(self.array()?))
    }
    pub fn i64(&mut self) -> Result<i64, StoredError> {
        Ok(i64::from_be_bytes(self.array()?))
    }
    pub fn uuid(&mut self) -> Result<[u8; 16], StoredError> {
        self.array()
    }
    pub fn uvarint(&mut self) -> Result<u32, StoredError> {
        let mut v = 0u64;
        for i in 0..5 {
            let [b] = self.array()?;
            v |= u64::from(b & 0x7f) << (7 * i);
            if b & 0x80 == 0 {
                return u32::try_from(v).map_err(|_| StoredError::Length(v as i64));
            }
        }
        Err(StoredError::Length(v as i64))
    }
    pub fn nullable_string(&mut self) -> Result<Option<&'a str>, StoredError> {
        match self.i16()? {
            -1 => Ok(None),
            n => text(self.raw(size(i64::from(n))?)?).map(Some),
        }
    }
    pub fn string(&mut self) -> Result<&'a str, StoredError> {
        self.nullable_string()?.ok_or(StoredError::Null)
    }
    pub fn bytes(&mut self) -> Result<&'a [u8], StoredError> {
        let n = self.i32()?;
        self.raw(size(i64::from(n))?)
    }
    /// Element count of a non-flexible array whose elements take at least `min` bytes each.
    pub fn count(&mut self, min: usize) -> Result<usize, StoredError> {
        let n = size(i64::from(self.i32()?))?;
        self.bounded(n, min)
    }
    pub fn compact_nullable_bytes(&mut self) -> Result<Option<&'a [u8]>, StoredError> {
        match self.uvarint()? {
            0 => Ok(None),
            n => self.raw(n as usize - 1).map(Some),
        }
    }
    pub fn compact(&mut self) -> Result<&'a [u8], StoredError> {
        self.compact_nullable_bytes()?.ok_or(StoredError::Null)
    }
    pub fn compact_string(&mut self) -> Result<&'a str, StoredError> {
        text(self.compact()?)
    }
    pub fn compact_nullable(&mut self) -> Result<Option<&'a str>, StoredError> {
        self.compact_nullable_bytes()?.map(text).transpose()
    }
    /// Element count of a compact array whose elements take at least `min` bytes each.
    pub fn compact_count(&mut self, min: usize) -> Result<usize, StoredError> {
        match self.uvarint()? {
            0 => Err(StoredError::Null),
            n => self.bounded(n as usize - 1, min),
        }
    }
    fn bounded(&self, n: usize, min: usize) -> Result<usize, StoredError> {
        if n > self.rest.len() / min.max(1) { Err(StoredError::Length(n as i64)) } else { Ok(n) }
    }
    /// Tagged fields of a flexible struct; `each` sees (tag, bytes). Unknown tags are skipped by ignoring them.
    pub fn tags(&mut self, mut each: impl FnMut(u32, &'a [u8]) -> Result<(), StoredError>) -> Result<(), StoredError> {
        let n = self.uvarint()?;
        let n = self.bounded(n as usize, 2)?;
        for _ in 0..n {
            let tag = self.uvarint()?;
            let len = self.uvarint()?;
            each(tag, self.raw(len as usize)?)?;
        }
        Ok(())
    }
    pub fn end(&mut self) -> Result<(), StoredError> {
        self.tags(|_, _| Ok(()))
    }
}

fn size(n: i64) -> Result<usize, StoredError> {
    usize::try_from(n).map_err(|_| StoredError::Length(n))
}

fn text(bytes: &[u8]) -> Result<&str, StoredError> {
    std::str::from_utf8(bytes).map_err(|_| StoredError::Utf8)
}

/// Refuses a value of a release after this one: its meaning is not known, and skipping it would lose state silently.
pub(crate) fn known(key: i16, value: i16, newest: i16) -> Result<i16, StoredError> {
    if (0..=newest).contains(&value) { Ok(value) } else { Err(StoredError::Newer { key, value }) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn fields_come_back() {
        let mut out = Out::version(3);
        out.string("a");
        out.nullable_string(None);
        out.compact_string("é");
        out.compact_nullable(None);
        out.bytes(b"xyz");
        out.uvarint(300);
        out.end();
        let bytes = out.finish();
        let mut i = In::new(&bytes);
        assert_eq!(i.i16().unwrap(), 3);
        assert_eq!(i.string().unwrap(), "a");
        assert_eq!(i.nullable_string().unwrap(), None);
        assert_eq!(i.compact_string().unwrap(), "é");
        assert_eq!(i.compact_nullable().unwrap(), None);
        assert_eq!(i.bytes().unwrap(), b"xyz");
        assert_eq!(i.uvarint().unwrap(), 300);
        i.end().unwrap();
        assert!(i.rest().is_empty());
    }

    #[test]
    fn hostile_counts_are_refused_before_anything_is_reserved() {
        assert_eq!(In::new(&[0x7f, 0xff, 0xff, 0xff]).count(1), Err(StoredError::Length(0x7fff_ffff)));
        assert_eq!(In::new(&[0xff, 0xff, 0xff, 0xff]).count(1), Err(StoredError::Length(-1)));
        assert_eq!(In::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).compact_count(1), Err(StoredError::Length(0xffff_fffe)));
        assert!(In::new(&[0xff; 6]).uvarint().is_err());
        assert_eq!(In::new(&[0x00, 0x05, b'a']).string(), Err(StoredError::Short(4)));
        assert_eq!(In::new(&[0x02, 0xff]).compact_string(), Err(StoredError::Utf8));
        assert!(In::new(&[0x40]).end().is_err());
    }
}
