//! Pure. Borrowed iteration over the records of an *uncompressed* record section. Foreign bytes: every length is
//! checked against the end, a count never reserves memory, the first error ends the iteration.

/// Why a record could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum RecordError {
    #[error("record ends {missing} bytes after the batch")]
    Short { missing: usize },
    #[error("varint is longer than its type")]
    Varint,
    #[error("length {0} is negative")]
    Negative(i64),
    #[error("record says {said} bytes and has {had}")]
    Size { said: usize, had: usize },
    #[error("{0} bytes are left after the last record")]
    Trailing(usize),
    #[error("offset delta {got} where {want} was due")]
    OffsetDelta { got: i64, want: i64 },
}

/// One record, borrowed from its batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordView<'a> {
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// The record from its length varint to its end.
    pub raw: &'a [u8],
    headers: &'a [u8],
    header_count: u32,
}

impl<'a> RecordView<'a> {
    /// Headers in order; a key may repeat. They were checked when the record was read.
    pub fn headers(&self) -> Headers<'a> {
        Headers { rest: self.headers, left: self.header_count }
    }
    /// The record's attributes byte, and its bytes behind the timestamp delta.
    pub fn behind_timestamp(&self) -> Result<(u8, &'a [u8]), RecordError> {
        let mut rest = self.raw;
        take_length(&mut rest)?;
        let (attributes, mut rest) = rest.split_first().ok_or(RecordError::Short { missing: 1 })?;
        take_varint(&mut rest)?;
        Ok((*attributes, rest))
    }
    /// The last header of that key.
    pub fn header(&self, key: &[u8]) -> Option<Option<&'a [u8]>> {
        self.headers().filter(|(k, _)| *k == key).last().map(|(_, v)| v)
    }
}

/// Iterator over a record's headers.
#[derive(Clone)]
pub struct Headers<'a> {
    rest: &'a [u8],
    left: u32,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let key = take_bytes(&mut self.rest).ok()??;
        let value = take_bytes(&mut self.rest).ok()?;
        Some((key, value))
    }
}

/// Iterates `count` records of `section`; yields an error once and stops.
pub fn records(section: &[u8], count: u32) -> Records<'_> {
    Records { rest: section, left: count, index: 0, failed: false }
}

pub struct Records<'a> {
    rest: &'a [u8],
    left: u32,
    index: u32,
    failed: bool,
}

impl<'a> Records<'a> {
    /// After the last record: were there bytes left over?
    pub fn finish(&self) -> Result<(), RecordError> {
        if self.rest.is_empty() { Ok(()) } else { Err(RecordError::Trailing(self.rest.len())) }
    }
    /// Index of the next record.
    pub fn index(&self) -> u32 {
        self.index
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordView<'a>, RecordError>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.left == 0 {
            return None;
        }
        match take_record(&mut self.rest) {
            Ok(record) => {
                self.left -= 1;
                self.index += 1;
                Some(Ok(record))
            }
            Err(e) => {
                self.failed = true;
                Some(Err(e))
            }
        }
    }
}

fn take_record<'a>(rest: &mut &'a [u8]) -> Result<RecordView<'a>, RecordError> {
    let start = *rest;
    let said = take_length(rest)?.ok_or(RecordError::Negative(-1))?;
    if rest.len() < said {
        return Err(RecordError::Short { missing: said - rest.len() });
    }
    let (mut body, after) = rest.split_at(said);
    let raw = &start[..start.len() - after.len()];
    let (_attributes, tail) = body.split_first().ok_or(RecordError::Short { missing: 1 })?;
    body = tail;
    let timestamp_delta = take_varint(&mut body)?;
    let offset_delta = i32::try_from(take_varint(&mut body)?).map_err(|_| RecordError::Varint)?;
    let key = take_bytes(&mut body)?;
    let value = take_bytes(&mut body)?;
    let header_count = take_length(&mut body)?.ok_or(RecordError::Negative(-1))?;
    // A header takes at least two bytes.
    if header_count > body.len() / 2 {
        return Err(RecordError::Short { missing: header_count });
    }
    let headers = body;
    for _ in 0..header_count {
        take_bytes(&mut body)?.ok_or(RecordError::Negative(-1))?;
        take_bytes(&mut body)?;
    }
    if !body.is_empty() {
        return Err(RecordError::Size { said, had: said - body.len() });
    }
    *rest = after;
    Ok(RecordView { timestamp_delta, offset_delta, key, value, raw, headers, header_count: header_count as u32 })
}

fn take_varint(rest: &mut &[u8]) -> Result<i64, RecordError> {
    let mut z = 0u64;
    for (i, b) in rest.iter().enumerate().take(10) {
        if i == 9 && *b > 1 {
            return Err(RecordError::Varint);
        }
        z |= u64::from(b & 0x7f) << (7 * i);
        if b & 0x80 == 0 {
            *rest = &rest[i + 1..];
            return Ok(((z >> 1) as i64) ^ -((z & 1) as i64));
        }
    }
    if rest.len() < 10 { Err(RecordError::Short { missing: 1 }) } else { Err(RecordError::Varint) }
}

/// A length: -1 = null, other negatives refused.
fn take_length(rest: &mut &[u8]) -> Result<Option<usize>, RecordError> {
    match take_varint(rest)? {
        -1 => Ok(None),
        n if n < 0 => Err(RecordError::Negative(n)),
        n => usize::try_from(n).map(Some).map_err(|_| RecordError::Varint),
    }
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, RecordError> {
    match take_length(rest)? {
        None => Ok(None),
        Some(n) if n > rest.len() => Err(RecordError::Short { missing: n - rest.len() }),
        Some(n) => {
            let (head, tail) = rest.split_at(n);
            *rest = tail;
            Ok(Some(head))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchView, build::Builder};

    #[test]
    fn built_records_come_back_with_repeated_and_null_headers() {
        let mut b = Builder::new().producer(7, 1, 5);
        b.push(1000, Some(b"k"), None, [(&b"h"[..], Some(&b"1"[..])), (&b"h"[..], None), (&b""[..], Some(&b""[..]))]);
        b.push(990, None, Some(b"v"), []);
        let bytes = b.finish();
        let view = BatchView::new(&bytes).expect("one whole batch");
        view.check_crc().expect("crc");
        assert_eq!((view.records_count(), view.last_offset_delta(), view.last_sequence()), (2, 1, 6));
        assert_eq!((view.base_timestamp(), view.max_timestamp()), (1000, 1000));
        let mut it = records(view.records(), 2);
        let first = it.next().expect("first").expect("valid");
        assert_eq!((first.key, first.value, first.offset_delta), (Some(&b"k"[..]), None, 0));
        let headers: Vec<_> = first.headers().collect();
        assert_eq!(headers, vec![(&b"h"[..], Some(&b"1"[..])), (&b"h"[..], None), (&b""[..], Some(&b""[..]))]);
        assert_eq!(first.header(b"h"), Some(None));
        let second = it.next().expect("second").expect("valid");
        assert_eq!((second.timestamp_delta, second.key, second.value), (-10, None, Some(&b"v"[..])));
        assert!(it.next().is_none());
        it.finish().expect("nothing left");
    }

    #[test]
    fn hostile_counts_end_the_iteration_with_an_error() {
        // length 2^34, then nothing
        let mut huge = bytes::BytesMut::new();
        crate::batch::build::put_varint(&mut huge, 1 << 34);
        assert!(matches!(records(&huge, 1).next(), Some(Err(RecordError::Short { .. }))));
        // a record whose header count is 2^30
        let mut body = bytes::BytesMut::new();
        for v in [0i64, 0, 0, -1, -1, 1 << 30] {
            if body.is_empty() { body.extend_from_slice(&[0]) } else { crate::batch::build::put_varint(&mut body, v) }
        }
        let mut rec = bytes::BytesMut::new();
        crate::batch::build::put_varint(&mut rec, body.len() as i64);
        rec.extend_from_slice(&body);
        assert!(matches!(records(&rec, 1).next(), Some(Err(RecordError::Short { .. }))));
        assert!(matches!(records(&[0xff; 12], 1).next(), Some(Err(RecordError::Varint))));
    }
}
