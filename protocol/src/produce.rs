//! Pure. A Produce body taken apart without a copy: each partition's records come out as `BytesMut`, still writable, so
//! that the few header fields the append patches are patched in place and the same memory goes to the log.
//!
//! Cost per request: one pass over the body, one flat list (no `Vec` per topic), one `split_off` per partition.
//! Not done here: what the records hold (`record::batch::validate`).

use bytes::BytesMut;
use catchwater_record::TopicId;

use crate::reader::{
    BUDGET_BASE_BYTES, BUDGET_FACTOR, DecodeError, Kind, Named, STRING_BYTES_MAX, TAGS_PER_FRAME_MAX,
    TAGS_PER_STRUCT_MAX,
};
use crate::text::Str;
use crate::{Request, api::ProduceRequest};

/// A Produce request with its records still writable. Topics and partitions stand in the order of the request.
#[derive(Debug, Default)]
pub struct ProduceParts {
    pub transactional_id: Option<Str>,
    pub acks: i16,
    pub timeout_ms: i32,
    pub topics: Vec<TopicPart>,
    pub partitions: Vec<PartitionPart>,
}

/// By name up to version 12, by id from 13 on; the other one is empty.
#[derive(Debug)]
pub struct TopicPart {
    pub name: Str,
    pub id: TopicId,
}

#[derive(Debug)]
pub struct PartitionPart {
    /// Place in `topics`.
    pub topic: usize,
    pub index: i32,
    pub records: Option<BytesMut>,
}

/// Takes the body (behind the request header) apart. Same bounds as [`crate::reader`]; names are copied, since the body
/// is cut up. A walk of its own over the plain slice, because the reader's slices would keep the body shared.
pub fn split(mut body: BytesMut, version: i16) -> Result<ProduceParts, DecodeError> {
    let flex = ProduceRequest::FLEX.is_some_and(|first| version >= first);
    let mut c = Cursor { bytes: &body, at: 0, flex, tags_left: TAGS_PER_FRAME_MAX };
    let mut parts = ProduceParts {
        transactional_id: c.string().named("ProduceRequest.transactional_id")?,
        acks: i16::from_be_bytes(c.fixed().named("ProduceRequest.acks")?),
        timeout_ms: i32::from_be_bytes(c.fixed().named("ProduceRequest.timeout_ms")?),
        ..ProduceParts::default()
    };
    // Memory per partition: its range, doubled while the list grows, and its part.
    let cost = 3 * size_of::<Range>() + size_of::<PartitionPart>();
    let mut budget = body.len().saturating_mul(BUDGET_FACTOR).saturating_add(BUDGET_BASE_BYTES);
    let mut charge = |c: &Cursor<'_>, bytes: usize| -> Result<(), DecodeError> {
        budget = budget.checked_sub(bytes).ok_or(c.error(Kind::Budget))?;
        Ok(())
    };
    let mut ranges: Vec<Range> = Vec::new();
    for topic in 0..c.count(if flex { 3 } else { 6 }).named("ProduceRequest.topic_data")? {
        let (name, id) = if version <= 12 {
            let name = c.string().named("TopicProduceData.name")?;
            (name.ok_or(c.error(Kind::Null)).named("TopicProduceData.name")?, TopicId::NONE)
        } else {
            (Str::default(), TopicId(c.fixed().named("TopicProduceData.topic_id")?))
        };
        charge(&c, 3 * size_of::<TopicPart>() + name.len())?;
        parts.topics.push(TopicPart { name, id });
        for _ in 0..c.count(if flex { 6 } else { 8 }).named("TopicProduceData.partition_data")? {
            charge(&c, cost)?;
            let index = i32::from_be_bytes(c.fixed().named("PartitionProduceData.index")?);
            let records = c.bytes().named("PartitionProduceData.records")?;
            ranges.push(Range { topic, index, records });
            c.skip_tags()?;
        }
        c.skip_tags()?;
    }
    c.skip_tags()?;
    parts.partitions.reserve_exact(ranges.len());
    for range in ranges.into_iter().rev() {
        let records = range.records.map(|(start, end)| {
            body.truncate(end);
            body.split_off(start)
        });
        parts.partitions.push(PartitionPart { topic: range.topic, index: range.index, records });
    }
    parts.partitions.reverse();
    Ok(parts)
}

struct Range {
    topic: usize,
    index: i32,
    records: Option<(usize, usize)>,
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    flex: bool,
    tags_left: u32,
}

impl Cursor<'_> {
    fn error(&self, kind: Kind) -> DecodeError {
        DecodeError { at: self.at, ..DecodeError::new(kind) }
    }
    fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let bytes = *self.bytes[self.at..].first_chunk::<N>().ok_or(self.error(Kind::Short))?;
        self.at += N;
        Ok(bytes)
    }
    fn uvarint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0;
        for i in 0..5 {
            let [byte] = self.fixed()?;
            let low = u32::from(byte & 0x7f);
            if i == 4 && byte > 0x0f {
                break;
            }
            value |= low << (7 * i);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error(Kind::Varint))
    }
    /// A length, `None` for null; `wide` is the number's width where it is not compact.
    fn len(&mut self, wide: bool) -> Result<Option<usize>, DecodeError> {
        let raw = if self.flex {
            i64::from(self.uvarint()?) - 1
        } else if wide {
            i64::from(i32::from_be_bytes(self.fixed()?))
        } else {
            i64::from(i16::from_be_bytes(self.fixed()?))
        };
        match raw {
            -1 => Ok(None),
            0..=0x7fff_ffff => Ok(Some(raw as usize)),
            _ => Err(self.error(Kind::Length)),
        }
    }
    fn take(&mut self, len: usize) -> Result<(usize, usize), DecodeError> {
        if len > self.remaining() {
            return Err(self.error(Kind::Short));
        }
        self.at += len;
        Ok((self.at - len, self.at))
    }
    fn string(&mut self) -> Result<Option<Str>, DecodeError> {
        let Some(len) = self.len(false)? else { return Ok(None) };
        if len > STRING_BYTES_MAX {
            return Err(self.error(Kind::Length));
        }
        let (start, end) = self.take(len)?;
        let text = std::str::from_utf8(&self.bytes[start..end]).map_err(|_| self.error(Kind::Utf8))?;
        Ok(Some(Str::from(text)))
    }
    fn bytes(&mut self) -> Result<Option<(usize, usize)>, DecodeError> {
        self.len(true)?.map(|len| self.take(len)).transpose()
    }
    fn count(&mut self, element_min: usize) -> Result<usize, DecodeError> {
        let count = self.len(true)?.ok_or(self.error(Kind::Null))?;
        if count > self.remaining() / element_min {
            return Err(self.error(Kind::Count));
        }
        Ok(count)
    }
    fn skip_tags(&mut self) -> Result<(), DecodeError> {
        if !self.flex {
            return Ok(());
        }
        let count = self.uvarint()?;
        if count > TAGS_PER_STRUCT_MAX || count > self.tags_left {
            return Err(self.error(Kind::Tags));
        }
        self.tags_left -= count;
        for _ in 0..count {
            self.uvarint()?;
            let size = self.uvarint()? as usize;
            self.take(size)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Records;
    use crate::api::produce::{PartitionProduceData, TopicProduceData};
    use bytes::Bytes;

    fn sample(version: i16) -> ProduceRequest {
        let part = |index, records: Option<&'static [u8]>| PartitionProduceData {
            index,
            records: records.map(|r| Records::from(Bytes::from_static(r))),
        };
        let topic = |n: u8, partition_data| TopicProduceData {
            name: if version <= 12 { format!("t{n}").into() } else { Str::default() },
            topic_id: if version <= 12 { TopicId::NONE } else { TopicId([n; 16]) },
            partition_data,
        };
        ProduceRequest {
            transactional_id: Some("tx".into()),
            acks: -1,
            timeout_ms: 5,
            topic_data: vec![
                topic(1, vec![part(0, Some(b"abc")), part(1, None), part(2, Some(b""))]),
                topic(2, vec![part(7, Some(b"defg"))]),
            ],
        }
    }

    #[test]
    fn splitting_sees_what_the_generated_decoder_sees() {
        for version in ProduceRequest::MIN..=ProduceRequest::MAX {
            let request = sample(version);
            let body = crate::encode(&request, version).unwrap().to_bytes();
            let parts = split(BytesMut::from(&body[..]), version).unwrap();
            assert_eq!(parts.transactional_id.as_deref(), Some("tx"));
            assert_eq!((parts.acks, parts.timeout_ms), (-1, 5));
            let seen: Vec<_> = parts.partitions.iter().map(|p| (p.topic, p.index, p.records.as_deref())).collect();
            let want: [(usize, i32, Option<&[u8]>); 4] =
                [(0, 0, Some(b"abc")), (0, 1, None), (0, 2, Some(b"")), (1, 7, Some(b"defg"))];
            assert_eq!(seen, want, "version {version}");
            for (topic, data) in parts.topics.iter().zip(&request.topic_data) {
                assert_eq!((&topic.name, topic.id), (&data.name, data.topic_id));
            }
            for cut in 0..body.len() {
                assert!(split(BytesMut::from(&body[..cut]), version).is_err(), "version {version} cut at {cut}");
            }
        }
    }

    #[test]
    fn records_come_out_without_a_copy() {
        let body = crate::encode(&sample(9), 9).unwrap().to_bytes();
        let body = BytesMut::from(&body[..]);
        let (start, end) = (body.as_ptr() as usize, body.as_ptr() as usize + body.len());
        for part in split(body, 9).unwrap().partitions {
            if let Some(records) = part.records.filter(|r| !r.is_empty()) {
                assert!((start..end).contains(&(records.as_ptr() as usize)));
            }
        }
    }
}
