//! Pure. What a produced batch must be before anything is appended. Walk: produce-fetch 6/14.
//!
//! The order of the checks is the order of Kafka's answers (protocol 3.2): shape → magic → codec → size → CRC →
//! counts → control → producer → timestamps; then, where asked, the walk through the records. By header and CRC alone
//! a batch costs 0.05 CPU-s per GB; opening compressed ones 1.4–2.7, so only compacted topics, `full` and a limit of how old
//! records may be do it (a header says the first and the largest time, and a record between them may be older than both).
//! Leader, epoch, producer state and transactions are judged behind this, under the partition's lock.

use crate::batch::iterate::records;
use crate::batch::{ATTR_LOG_APPEND_TIME, BatchError, BatchView, Codec, LOG_OVERHEAD};
use crate::compress::{CompressError, section};

/// How far a batch is opened on produce (topic setting `produce.validation`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Depth {
    /// Header and CRC.
    Header,
    /// Records of plain batches too: structure, offset deltas, true maximum timestamp.
    Walk,
    /// Compressed batches too.
    Full,
}

/// What the topic and the request allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// `max.message.bytes`: bytes of the batch as sent, header included.
    pub batch_bytes_max: u32,
    /// `segment.bytes`: a batch is never larger than the file it would be in.
    pub segment_bytes: u32,
    pub depth: Depth,
    /// `cleanup.policy` contains `compact`: every record needs a key, so every batch is walked, compressed or not.
    pub compacted: bool,
    /// `message.timestamp.type=LogAppendTime`: the broker writes the time, the client's own is not judged.
    pub append_time: bool,
    /// `message.timestamp.before.max.ms` and `.after.max.ms`, distance from now.
    pub before_max_ms: i64,
    pub after_max_ms: i64,
    /// Produce below version 7 may not carry zstd (KIP-110).
    pub zstd_allowed: bool,
}

impl Default for Rules {
    /// Kafka 4.3's defaults.
    fn default() -> Self {
        Rules {
            batch_bytes_max: 1_048_588,
            segment_bytes: 1 << 30,
            depth: Depth::Header,
            compacted: false,
            append_time: false,
            before_max_ms: i64::MAX,
            after_max_ms: 3_600_000,
            zstd_allowed: true,
        }
    }
}

impl Rules {
    /// Whether every batch is opened, compressed or not.
    pub fn open_all(&self) -> bool {
        self.compacted || self.depth == Depth::Full || (self.before_max_ms != i64::MAX && !self.append_time)
    }

    /// What a batch may give out when it is opened: 64 × its limit, at most 1 GiB.
    pub fn output_bytes_max(&self) -> usize {
        (self.batch_bytes_max as usize).saturating_mul(64).min(1 << 30)
    }
}

/// Why a batch was refused. `broker/error_code.rs` gives each its Kafka code.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("records are null")]
    Null,
    #[error("not one whole batch: {0}")]
    Shape(BatchError),
    #[error("attributes name codec {0}")]
    UnknownCodec(i16),
    #[error("zstd needs produce version 7 or later")]
    ZstdTooEarly,
    #[error("batch of {bytes} bytes exceeds {limit}")]
    TooLarge { bytes: usize, limit: u32 },
    #[error("batch of {bytes} bytes exceeds segment.bytes, {limit}")]
    AboveSegment { bytes: usize, limit: u32 },
    #[error("{0} bytes begin with a size or magic that no batch has")]
    NoBatch(usize),
    #[error("more than one batch")]
    Second,
    #[error("batch is damaged: {0}")]
    Crc(BatchError),
    #[error("{count} records and last offset delta {last_offset_delta} do not agree")]
    Count { count: i32, last_offset_delta: i32 },
    #[error("base offset {0} of a batch that has no offset yet is not 0")]
    BaseOffset(i64),
    #[error("control batches are not for clients")]
    Control,
    #[error("producer {producer_id} without a base sequence")]
    Sequence { producer_id: i64 },
    #[error("clients may not set the append time attribute")]
    AppendTime,
    #[error("timestamp {timestamp} is not within {before_max_ms} ms before and {after_max_ms} ms after {now_ms}")]
    Timestamp { record: Option<u32>, timestamp: i64, now_ms: i64, before_max_ms: i64, after_max_ms: i64 },
    #[error("record {record}: {why}")]
    Record { record: u32, why: RecordFault },
    /// More than one record: each is [`Refusal::Record`] or [`Refusal::Timestamp`].
    #[error("{} and {} more", .0.first().map_or_else(String::new, ToString::to_string), .0.len().saturating_sub(1))]
    Records(Vec<Refusal>),
    #[error("records do not decompress: {0}")]
    Compressed(CompressError),
}

/// What is wrong with one record.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum RecordFault {
    #[error("compacted topic cannot accept message without key")]
    NoKey,
    #[error("{0}")]
    Structure(crate::batch::iterate::RecordError),
}

/// A batch that may be appended; what came behind it is left out.
#[derive(Clone, Copy, Debug)]
pub struct Checked<'a> {
    pub batch: BatchView<'a>,
    /// The walk found another maximum than the header says: to be written before the append.
    pub true_max_timestamp: Option<i64>,
}

/// Checks one partition's `records` of a Produce request. Reads only; nothing is allocated unless the batch must be
/// opened.
pub fn validate<'a>(bytes: Option<&'a [u8]>, rules: &Rules, now_ms: i64) -> Result<Checked<'a>, Refusal> {
    let bytes = bytes.ok_or(Refusal::Null)?;
    let batch = shape(bytes)?;
    match Codec::from_attribute(batch.attributes()) {
        None => return Err(Refusal::UnknownCodec(batch.attributes() & 7)),
        Some(Codec::Zstd) if !rules.zstd_allowed => return Err(Refusal::ZstdTooEarly),
        Some(_) => {}
    }
    if batch.len() > rules.batch_bytes_max as usize {
        return Err(Refusal::TooLarge { bytes: batch.len(), limit: rules.batch_bytes_max });
    }
    batch.check_crc().map_err(Refusal::Crc)?;
    if batch.base_offset() != 0 {
        return Err(Refusal::BaseOffset(batch.base_offset()));
    }
    let (count, last_offset_delta) = (batch.records_count(), batch.last_offset_delta());
    if last_offset_delta < 0 || count < 1 || last_offset_delta.checked_add(1) != Some(count) {
        return Err(Refusal::Count { count, last_offset_delta });
    }
    if batch.is_control() {
        return Err(Refusal::Control);
    }
    if batch.raw_producer_id() >= 0 && (batch.base_sequence() < 0 || batch.producer_epoch().0 < 0) {
        return Err(Refusal::Sequence { producer_id: batch.raw_producer_id() });
    }
    if batch.attributes() & ATTR_LOG_APPEND_TIME != 0 {
        return Err(Refusal::AppendTime);
    }
    for timestamp in [batch.base_timestamp(), batch.max_timestamp()] {
        in_time(rules, now_ms, None, timestamp)?;
    }
    let walks = rules.open_all() || (rules.depth == Depth::Walk && batch.codec() == Some(Codec::None));
    let true_max_timestamp = if walks { walk(&batch, rules, now_ms)? } else { None };
    if batch.len() > rules.segment_bytes as usize {
        return Err(Refusal::AboveSegment { bytes: batch.len(), limit: rules.segment_bytes });
    }
    Ok(Checked { batch, true_max_timestamp })
}

/// One whole batch; magic is told apart from length, as Kafka answers. What comes behind it is dropped if it may be the
/// beginning of another one that was cut.
fn shape(bytes: &[u8]) -> Result<BatchView<'_>, Refusal> {
    if !is_whole(bytes)? {
        return Err(Refusal::Shape(BatchError::Short { have: bytes.len() }));
    }
    let (batch, rest) = BatchView::split(bytes).map_err(Refusal::Shape)?;
    if is_whole(rest)? { Err(Refusal::Second) } else { Ok(batch) }
}

/// Do the bytes begin with a whole batch of any magic? Source: `ByteBufferLogInputStream` of Kafka 4.3 (a size is at least that
/// of a record of magic 0; the magic is looked at once its byte is there).
fn is_whole(bytes: &[u8]) -> Result<bool, Refusal> {
    const RECORD_V0_BYTES_MIN: i32 = 14;
    const MAGIC_AT: usize = 16;
    let Some(size) = bytes.get(8..LOG_OVERHEAD).and_then(|size| size.try_into().ok()).map(i32::from_be_bytes) else {
        return Ok(false);
    };
    let whole = usize::try_from(size).unwrap_or(0).saturating_add(LOG_OVERHEAD);
    match bytes.get(MAGIC_AT).map(|magic| *magic as i8) {
        _ if size < RECORD_V0_BYTES_MIN => Err(Refusal::NoBatch(bytes.len())),
        Some(magic) if !(0..=2).contains(&magic) => Err(Refusal::NoBatch(bytes.len())),
        magic => Ok(magic.is_some() && whole <= bytes.len()),
    }
}

fn in_time(rules: &Rules, now_ms: i64, record: Option<u32>, timestamp: i64) -> Result<(), Refusal> {
    // -1 is "no timestamp"; LogAppendTime topics overwrite whatever stands there.
    if rules.append_time || timestamp == -1 {
        return Ok(());
    }
    // A distance that is no number is refused whatever the limits are, as by Kafka, whose subtraction wraps.
    let ahead = timestamp.checked_sub(now_ms);
    if ahead.is_none_or(|ahead| ahead > rules.after_max_ms || ahead.saturating_neg() > rules.before_max_ms) {
        return Err(Refusal::Timestamp {
            record,
            timestamp,
            now_ms,
            before_max_ms: rules.before_max_ms,
            after_max_ms: rules.after_max_ms,
        });
    }
    Ok(())
}

/// Records of a batch that are named, when so many may not be taken.
const RECORDS_NAMED_MAX: usize = 1_000;

fn walk(batch: &BatchView<'_>, rules: &Rules, now_ms: i64) -> Result<Option<i64>, Refusal> {
    let section = section(batch, rules.output_bytes_max()).map_err(Refusal::Compressed)?;
    let count = u32::try_from(batch.records_count()).unwrap_or(0);
    let mut walked = records(&section, count);
    let (mut seen, mut max) = (0u32, -1i64);
    // A client drops those that are named and sends the others again: all of them, as Kafka does.
    let mut refused: Vec<Refusal> = Vec::new();
    for record in walked.by_ref() {
        let fault = |why| Refusal::Record { record: seen, why };
        let record = record.map_err(|e| fault(RecordFault::Structure(e)))?;
        let (got, want) = (i64::from(record.offset_delta), i64::from(seen));
        if got != want {
            return Err(fault(RecordFault::Structure(crate::batch::iterate::RecordError::OffsetDelta { got, want })));
        }
        // A batch without timestamps has base -1 and deltas 0.
        let timestamp = batch.base_timestamp().saturating_add(record.timestamp_delta);
        let judged = if rules.compacted && record.key.is_none() {
            Err(fault(RecordFault::NoKey))
        } else {
            in_time(rules, now_ms, Some(seen), timestamp)
        };
        if let Err(refusal) = judged
            && refused.len() < RECORDS_NAMED_MAX
        {
            refused.push(refusal);
        }
        max = max.max(timestamp);
        seen += 1;
    }
    let fault = |e| Refusal::Record { record: seen, why: RecordFault::Structure(e) };
    walked.finish().map_err(fault)?;
    if seen != count {
        return Err(fault(crate::batch::iterate::RecordError::Short { missing: 1 }));
    }
    match (refused.pop(), refused.is_empty()) {
        (Some(only), true) => return Err(only),
        (Some(last), false) => {
            refused.push(last);
            return Err(Refusal::Records(refused));
        }
        (None, _) => {}
    }
    Ok(Some(max).filter(|max| *max != batch.max_timestamp() && !rules.append_time))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::batch::build::Builder;
    use crate::batch::{ATTR_CONTROL, set_max_timestamp};
    use crate::compress::{SnappyFraming, compress_batch};
    use crate::crc::crc32c;
    use bytes::BytesMut;

    const NOW: i64 = 1_700_000_000_000;

    fn batch(keys: &[Option<&[u8]>]) -> BytesMut {
        let mut builder = Builder::new();
        for (i, key) in keys.iter().enumerate() {
            builder.push(NOW + i as i64, *key, Some(b"v"), []);
        }
        builder.finish()
    }

    fn changed(change: impl Fn(&mut [u8])) -> BytesMut {
        let mut bytes = batch(&[Some(b"a"), Some(b"b")]);
        change(&mut bytes);
        let crc = crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    fn name(answer: Result<Checked<'_>, Refusal>) -> String {
        let text = format!("{:?}", answer.map(|_| ()));
        let text = text.replace("Err(", "");
        text.chars().take_while(|c| c.is_alphanumeric() || *c == '(').collect::<String>().replace("Ok((", "Ok")
    }

    #[track_caller]
    fn check(bytes: &[u8], rules: Rules, want: &str) {
        assert_eq!(name(validate(Some(bytes), &rules, NOW)), want);
    }

    #[test]
    fn refusals_by_their_own_case() {
        let d = Rules::default();
        check(&changed(|_| ()), d, "Ok");
        assert_eq!(name(validate(None, &d, NOW)), "Null");
        check(&[0; 60], d, "NoBatch(60");
        check(&[0; 11], d, "Shape(Short");
        check(&changed(|_| ())[..60], d, "Shape(Short");
        check(&changed(|b| b[8..12].copy_from_slice(&48i32.to_be_bytes())), d, "Shape(Length");
        check(&changed(|b| b[16] = 3), d, "NoBatch(79");
        check(&changed(|b| b[16] = 1), d, "Shape(Magic(1");
        let mut two = changed(|_| ());
        two.extend_from_slice(&changed(|_| ()));
        check(&two, d, "Second");
        check(&changed(|b| b[8..12].copy_from_slice(&(-1i32).to_be_bytes())), d, "NoBatch(79");
        check(&changed(|b| b[22] |= 5), d, "UnknownCodec(5");
        check(&changed(|b| b[22] |= 4), Rules { zstd_allowed: false, ..d }, "ZstdTooEarly");
        check(&changed(|_| ()), Rules { batch_bytes_max: 61, ..d }, "TooLarge");
        let bytes = changed(|_| ()).len() as u32;
        check(&changed(|_| ()), Rules { segment_bytes: bytes - 1, ..d }, "AboveSegment");
        check(&changed(|_| ()), Rules { segment_bytes: bytes, ..d }, "Ok");
        let mut flipped = changed(|_| ());
        let last = flipped.len() - 1;
        flipped[last] ^= 1;
        check(&flipped, d, "Crc(Crc");
        check(&changed(|b| b[26] = 7), d, "Count");
        check(&changed(|b| b[57..61].copy_from_slice(&0i32.to_be_bytes())), d, "Count");
        check(&changed(|b| b[7] = 77), d, "BaseOffset(77");
        check(&changed(|b| b[..8].fill(0xff)), d, "BaseOffset(");
        check(&changed(|b| b[22] |= ATTR_CONTROL as u8), d, "Control");
        check(&changed(|b| b[43..51].copy_from_slice(&9i64.to_be_bytes())), d, "Sequence");
        check(&changed(|b| b[22] |= ATTR_LOG_APPEND_TIME as u8), d, "AppendTime");
    }

    #[test]
    fn what_may_be_the_beginning_of_another_batch_is_left_out() {
        let d = Rules::default();
        let whole = batch(&[Some(b"c")]);
        let followed = |rest: &[u8]| [&changed(|_| ())[..], rest].concat();
        for cut in 1..whole.len() {
            let bytes = followed(&whole[..cut]);
            assert_eq!(validate(Some(&bytes), &d, NOW).unwrap().batch.bytes(), &changed(|_| ())[..], "{cut}");
        }
        check(&followed(&[0; 11]), d, "Ok");
        check(&followed(&[0; 12]), d, "NoBatch(12");
        check(&followed(&[0xff; 100]), d, "NoBatch(100");
        let sized = |size: i32, magic: u8| {
            let mut rest = vec![0; 17];
            rest[8..12].copy_from_slice(&size.to_be_bytes());
            rest[16] = magic;
            followed(&rest)
        };
        check(&sized(13, 2), d, "NoBatch(17");
        check(&sized(14, 2), d, "Ok");
        check(&sized(14, 3), d, "NoBatch(17");
        check(&sized(14, 3)[..changed(|_| ()).len() + 16], d, "Ok");
    }

    #[test]
    fn size_is_judged_before_the_crc_and_the_crc_before_the_counts() {
        let mut broken = changed(|_| ());
        broken[26] = 9; // CRC and counts are both wrong now
        check(&broken, Rules { batch_bytes_max: 61, ..Rules::default() }, "TooLarge");
        check(&broken, Rules::default(), "Crc(Crc");
    }

    #[test]
    fn times_outside_the_limits_are_refused_and_none_passes() {
        let at = |t: i64| {
            let mut builder = Builder::new();
            builder.push(t, None, Some(b"v"), []);
            builder.finish()
        };
        let d = Rules::default();
        check(&at(NOW + 3_600_001), d, "Timestamp");
        check(&at(NOW + 3_600_000), d, "Ok");
        check(&at(0), d, "Ok");
        check(&at(i64::MIN), d, "Timestamp");
        check(&at(NOW - 11), Rules { before_max_ms: 10, ..d }, "Timestamp");
        check(&at(-1), Rules { before_max_ms: 10, ..d }, "Ok");
        check(&at(NOW + 3_600_001), Rules { append_time: true, ..d }, "Ok");
    }

    /// Header: first and largest time. What lies between may be older than both.
    #[test]
    fn a_record_in_the_middle_is_too_old_plain_and_compressed() {
        let mut builder = Builder::new();
        for t in [NOW, NOW - 11, NOW + 1] {
            builder.push(t, None, Some(b"v"), []);
        }
        let bytes = builder.finish();
        let limited = Rules { before_max_ms: 10, ..Rules::default() };
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let packed = compress_batch(&BatchView::new(&bytes).unwrap(), codec, SnappyFraming::Raw).unwrap();
            let refused = validate(Some(&packed), &limited, NOW).unwrap_err();
            assert!(matches!(refused, Refusal::Timestamp { record: Some(1), .. }), "{codec:?}: {refused}");
            check(&packed, Rules { before_max_ms: 11, ..limited }, "Ok");
            check(&packed, Rules { append_time: true, ..limited }, "Ok");
        }
    }

    #[test]
    fn compacted_topics_need_keys_plain_and_compressed() {
        let rules = Rules { compacted: true, ..Rules::default() };
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let pack =
                |bytes: &BytesMut| compress_batch(&BatchView::new(bytes).unwrap(), codec, SnappyFraming::Raw).unwrap();
            check(&pack(&batch(&[Some(b"a"), None])), rules, "Record");
            check(&pack(&batch(&[Some(b"a"), Some(b"")])), rules, "Ok");
            let refused = validate(Some(&pack(&batch(&[None, Some(b"a"), None]))), &rules, NOW).unwrap_err();
            let Refusal::Records(refused) = refused else { panic!("{refused}") };
            assert!(matches!(refused[..], [Refusal::Record { record: 0, .. }, Refusal::Record { record: 2, .. }]));
            check(&pack(&batch(&[None])), Rules::default(), "Ok");
        }
    }

    #[test]
    fn the_walk_sees_structure_and_the_true_maximum() {
        let walked = Rules { depth: Depth::Walk, ..Rules::default() };
        check(&changed(|b| b[61] = 0x7f), Rules::default(), "Ok");
        check(&changed(|b| b[61] = 0x7f), walked, "Record");
        let mut late = batch(&[Some(b"a"), Some(b"b")]);
        set_max_timestamp(&mut late, NOW + 500);
        let checked = validate(Some(&late), &walked, NOW).unwrap();
        assert_eq!(checked.true_max_timestamp, Some(NOW + 1));
        assert_eq!(validate(Some(&late), &Rules::default(), NOW).unwrap().true_max_timestamp, None);
    }

    #[test]
    fn a_bomb_is_refused_at_the_output_cap() {
        let mut builder = Builder::new();
        builder.push(NOW, Some(b"k"), Some(&vec![0; 8 << 20]), []);
        let plain = builder.finish();
        let bomb = compress_batch(&BatchView::new(&plain).unwrap(), Codec::Zstd, SnappyFraming::Raw).unwrap();
        let rules = Rules { batch_bytes_max: 32 << 10, depth: Depth::Full, ..Rules::default() };
        check(&bomb, rules, "Compressed(TooLarge");
    }
}
