//! Pure. The packed big-endian form that checkpoint and cut records share: `text`, `bytes` = `len u32 | bytes`;
//! n × = `n u32`, then the items.

use bytes::{BufMut, Bytes, BytesMut};
use catchwater_record::{Offset, TopicId, TopicPartition};

/// Why stored bytes are not what they should be.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum StoredError {
    #[error("record ends early")]
    Short,
    #[error("{0} bytes are left over")]
    LeftOver(usize),
    #[error("format {0} is not known")]
    Format(u8),
    #[error("kind {0} is not known")]
    Kind(u8),
    #[error("text is not UTF-8")]
    Utf8,
    #[error("{what} {got} is not legal")]
    Illegal { what: &'static str, got: u64 },
    #[error("types nest deeper than 8")]
    Depth,
}

pub(crate) struct Writer(pub BytesMut);

impl Writer {
    pub fn new() -> Self {
        Writer(BytesMut::with_capacity(256))
    }
    pub fn bytes(&mut self, b: &[u8]) {
        self.0.put_u32(b.len() as u32);
        self.0.put_slice(b);
    }
    pub fn text(&mut self, t: &str) {
        self.bytes(t.as_bytes());
    }
    pub fn count(&mut self, n: usize) {
        self.0.put_u32(n as u32);
    }
    pub fn texts(&mut self, all: &[String]) {
        self.count(all.len());
        all.iter().for_each(|t| self.text(t));
    }
    pub fn indexes(&mut self, all: &[u16]) {
        self.count(all.len());
        all.iter().for_each(|i| self.0.put_u16(*i));
    }
    pub fn ends(&mut self, all: &[(TopicPartition, Offset)]) {
        self.count(all.len());
        for (at, end) in all {
            self.0.put_slice(&at.topic.0);
            self.0.put_u32(at.partition.0);
            self.0.put_u64(end.0);
        }
    }
}

pub(crate) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], StoredError> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(StoredError::Short)?;
        self.0 = tail;
        Ok(head)
    }
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], StoredError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(StoredError::Short)?;
        self.0 = tail;
        Ok(*head)
    }
    pub fn u8(&mut self) -> Result<u8, StoredError> {
        self.array::<1>().map(|[b]| b)
    }
    pub fn u16(&mut self) -> Result<u16, StoredError> {
        self.array().map(u16::from_be_bytes)
    }
    pub fn u32(&mut self) -> Result<u32, StoredError> {
        self.array().map(u32::from_be_bytes)
    }
    pub fn i32(&mut self) -> Result<i32, StoredError> {
        self.array().map(i32::from_be_bytes)
    }
    pub fn u64(&mut self) -> Result<u64, StoredError> {
        self.array().map(u64::from_be_bytes)
    }
    pub fn i64(&mut self) -> Result<i64, StoredError> {
        self.array().map(i64::from_be_bytes)
    }
    pub fn u48(&mut self) -> Result<u64, StoredError> {
        let b = self.array::<6>()?;
        Ok(u64::from_be_bytes([0, 0, b[0], b[1], b[2], b[3], b[4], b[5]]))
    }
    pub fn bytes(&mut self) -> Result<Bytes, StoredError> {
        let n = self.u32()? as usize;
        self.take(n).map(Bytes::copy_from_slice)
    }
    pub fn text(&mut self) -> Result<String, StoredError> {
        let n = self.u32()? as usize;
        std::str::from_utf8(self.take(n)?).map(str::to_owned).map_err(|_| StoredError::Utf8)
    }
    /// A count of items that take at least `least` bytes each.
    pub fn count(&mut self, least: usize) -> Result<usize, StoredError> {
        let n = self.u32()? as usize;
        if n > self.0.len() / least { Err(StoredError::Short) } else { Ok(n) }
    }
    pub fn many<T>(
        &mut self,
        least: usize,
        mut one: impl FnMut(&mut Self) -> Result<T, StoredError>,
    ) -> Result<Vec<T>, StoredError> {
        let n = self.count(least)?;
        (0..n).map(|_| one(self)).collect()
    }
    pub fn ends(&mut self) -> Result<Vec<(TopicPartition, Offset)>, StoredError> {
        self.many(28, |r| {
            let topic = TopicId(r.array()?);
            Ok((TopicPartition::new(topic, r.u32()?), Offset(r.u64()?)))
        })
    }
    pub fn end(&self) -> Result<(), StoredError> {
        if self.0.is_empty() { Ok(()) } else { Err(StoredError::LeftOver(self.0.len())) }
    }
}
