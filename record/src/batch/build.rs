//! Pure. Builds one uncompressed batch record by record. Headers are an ordered list; a key may repeat.

use crate::batch::{HEADER_BYTES, LOG_OVERHEAD};
use crate::crc::crc32c;
use bytes::{BufMut, Bytes, BytesMut};

/// One record header: key and value are bytes to us; `None` = null value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    pub key: Bytes,
    pub value: Option<Bytes>,
}

/// Collects records; [`Builder::finish`] writes the header. Offsets are deltas from 0, patched on append.
pub struct Builder {
    out: BytesMut,
    count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    producer: Option<(i64, i16, i32)>,
    attributes: i16,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    pub fn new() -> Self {
        Self::with_capacity(0)
    }

    /// With room for so many bytes: a batch that grows copies itself over and over.
    pub fn with_capacity(bytes: usize) -> Self {
        let mut out = BytesMut::with_capacity(bytes);
        out.resize(HEADER_BYTES, 0);
        Builder { out, count: 0, base_timestamp: 0, max_timestamp: -1, producer: None, attributes: 0 }
    }

    /// Producer id, epoch and base sequence for an idempotent batch.
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.producer = Some((id, epoch, base_sequence));
        self
    }

    pub fn count(&self) -> u32 {
        self.count as u32
    }
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
    /// Size of the batch if finished now, bytes.
    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    /// Adds one record. `timestamp_ms` is absolute.
    pub fn push<'h>(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = (&'h [u8], Option<&'h [u8]>)> + Clone,
    ) {
        if self.count == 0 {
            self.base_timestamp = timestamp_ms;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp_ms);
        let ts_delta = timestamp_ms.wrapping_sub(self.base_timestamp);
        let offset_delta = i64::from(self.count);
        let mut header_count = 0i64;
        let mut body = 1 + varint_size(ts_delta) + varint_size(offset_delta) + bytes_size(key) + bytes_size(value);
        for (k, v) in headers.clone() {
            header_count += 1;
            body += bytes_size(Some(k)) + bytes_size(v);
        }
        body += varint_size(header_count);
        self.out.reserve(body + 10);
        put_varint(&mut self.out, body as i64);
        self.out.put_i8(0);
        put_varint(&mut self.out, ts_delta);
        put_varint(&mut self.out, offset_delta);
        put_bytes(&mut self.out, key);
        put_bytes(&mut self.out, value);
        put_varint(&mut self.out, header_count);
        for (k, v) in headers {
            put_bytes(&mut self.out, Some(k));
            put_bytes(&mut self.out, v);
        }
        self.count += 1;
    }

    /// Writes over bytes of a record that was pushed, at `at` from the batch's beginning. For values that are not known
    /// when the record is made; the CRC is made at the end.
    pub fn patch(&mut self, at: usize, bytes: &[u8]) {
        assert!(at >= HEADER_BYTES, "the header is written at the end");
        self.out[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Writes the header and gives the batch out, still writable so that it can be patched without a copy.
    pub fn finish(mut self) -> BytesMut {
        let length = (self.out.len() - LOG_OVERHEAD) as i32;
        let (pid, epoch, seq) = self.producer.unwrap_or((-1, -1, -1));
        let out = &mut self.out[..];
        out[8..12].copy_from_slice(&length.to_be_bytes());
        out[12..16].copy_from_slice(&(-1i32).to_be_bytes());
        out[16] = 2;
        out[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        out[23..27].copy_from_slice(&(self.count - 1).to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        out[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        out[43..51].copy_from_slice(&pid.to_be_bytes());
        out[51..53].copy_from_slice(&epoch.to_be_bytes());
        out[53..57].copy_from_slice(&seq.to_be_bytes());
        out[57..61].copy_from_slice(&self.count.to_be_bytes());
        let crc = crc32c(&out[21..]);
        out[17..21].copy_from_slice(&crc.to_be_bytes());
        self.out
    }
}

fn zigzag(v: i64) -> u64 {
    ((v << 1) ^ (v >> 63)) as u64
}

fn varint_size(v: i64) -> usize {
    let z = zigzag(v);
    (64 - (z | 1).leading_zeros() as usize).div_ceil(7)
}

/// Zig-zag varint, as Kafka's `varint` and `varlong`.
pub fn put_varint(out: &mut BytesMut, v: i64) {
    let mut z = zigzag(v);
    while z >= 0x80 {
        out.put_u8((z as u8) | 0x80);
        z >>= 7;
    }
    out.put_u8(z as u8);
}

fn bytes_size(b: Option<&[u8]>) -> usize {
    match b {
        None => varint_size(-1),
        Some(b) => varint_size(b.len() as i64) + b.len(),
    }
}

fn put_bytes(out: &mut BytesMut, b: Option<&[u8]>) {
    match b {
        None => put_varint(out, -1),
        Some(b) => {
            put_varint(out, b.len() as i64);
            out.put_slice(b);
        }
    }
}
