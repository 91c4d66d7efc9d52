//! Pure. The four codecs of Kafka's record batch: gzip, snappy (raw and xerial framing), lz4 frame, zstd.
//!
//! Foreign bytes. Output is produced in pieces of 64 KiB and the first byte above the caller's cap ends the work, so a
//! bomb costs at most the cap; a length that the input claims (snappy, lz4 content size, zstd window) is compared with
//! the cap before anything is reserved. Nothing on the way from producer to consumer calls this file: the timestamp
//! look-up, compacted-topic checks, sinks and tools do.

use crate::batch::{ATTR_LOG_APPEND_TIME, BatchView, Codec, HEADER_BYTES, LOG_OVERHEAD};
use crate::crc::crc32c;
use bytes::{Bytes, BytesMut};
use std::borrow::Cow;
use std::io::{self, Read, Write};

/// Piece in which output grows, bytes.
const PIECE_BYTES: usize = 64 * 1024;
/// Largest zstd window we open, as a power of two: 128 MiB, what `zstd --long` writes at most without a flag.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// First eight bytes of the framing that the Java client's snappy writes ("xerial").
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_BYTES: usize = 16;
/// Block of the xerial writer, bytes. Source: kafka-clients `SnappyCompression`, 32 KiB.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;

/// Why compressed bytes were refused.
#[derive(Debug, thiserror::Error)]
pub enum CompressError {
    #[error("output of {codec:?} exceeds {cap} bytes")]
    TooLarge { codec: Codec, cap: usize },
    #[error("{codec:?} stream is damaged")]
    Damaged {
        codec: Codec,
        #[source]
        source: io::Error,
    },
    #[error("attribute bits name no codec")]
    UnknownCodec,
}

/// Decompresses all of `input`, giving out at most `cap` bytes.
pub fn decompress(codec: Codec, input: &[u8], cap: usize) -> Result<Bytes, CompressError> {
    let damaged = |source| CompressError::Damaged { codec, source };
    match codec {
        Codec::None if input.len() > cap => Err(CompressError::TooLarge { codec, cap }),
        Codec::None => Ok(Bytes::copy_from_slice(input)),
        Codec::Gzip => drain(codec, flate2::bufread::MultiGzDecoder::new(input), cap),
        Codec::Lz4 => drain(codec, lz4_flex::frame::FrameDecoder::new(input), cap),
        Codec::Zstd => {
            let mut reader = zstd::stream::read::Decoder::with_buffer(input).map_err(damaged)?;
            reader.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(damaged)?;
            drain(codec, reader, cap)
        }
        Codec::Snappy => snappy(input, cap),
    }
}

/// The record section of one batch, decompressed if need be; `cap` bounds the output. Iterate it with
/// [`crate::batch::iterate::records`].
pub fn section<'a>(batch: &BatchView<'a>, cap: usize) -> Result<Cow<'a, [u8]>, CompressError> {
    match batch.codec().ok_or(CompressError::UnknownCodec)? {
        Codec::None => Ok(Cow::Borrowed(batch.records())),
        codec => Ok(Cow::Owned(decompress(codec, batch.records(), cap)?.into())),
    }
}

fn drain(codec: Codec, mut reader: impl Read, cap: usize) -> Result<Bytes, CompressError> {
    let mut out = BytesMut::new();
    let mut piece = vec![0u8; PIECE_BYTES];
    loop {
        let n = reader.read(&mut piece).map_err(|source| CompressError::Damaged { codec, source })?;
        if n == 0 {
            return Ok(out.freeze());
        }
        if out.len() + n > cap {
            return Err(CompressError::TooLarge { codec, cap });
        }
        out.extend_from_slice(&piece[..n]);
    }
}

fn snappy(input: &[u8], cap: usize) -> Result<Bytes, CompressError> {
    let mut out = BytesMut::new();
    if !input.starts_with(&XERIAL_MAGIC) {
        snappy_block(input, &mut out, cap)?;
        return Ok(out.freeze());
    }
    let short = || CompressError::Damaged { codec: Codec::Snappy, source: io::ErrorKind::UnexpectedEof.into() };
    let mut rest = input.get(XERIAL_HEADER_BYTES..).ok_or_else(short)?;
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| short())?;
        if length > tail.len() {
            return Err(short());
        }
        let (block, after) = tail.split_at(length);
        snappy_block(block, &mut out, cap)?;
        rest = after;
    }
    if rest.is_empty() { Ok(out.freeze()) } else { Err(short()) }
}

fn snappy_block(block: &[u8], out: &mut BytesMut, cap: usize) -> Result<(), CompressError> {
    let codec = Codec::Snappy;
    let damaged = |e: snap::Error| CompressError::Damaged { codec, source: io::Error::other(e) };
    let said = snap::raw::decompress_len(block).map_err(damaged)?;
    // A snappy element of three bytes gives at most 64 bytes, so an honest length stays below 64 × the input: the
    // claim reserves no more than that.
    if said > block.len().saturating_mul(64) {
        return Err(CompressError::Damaged { codec, source: io::ErrorKind::InvalidData.into() });
    }
    if said > cap.saturating_sub(out.len()) {
        return Err(CompressError::TooLarge { codec, cap });
    }
    let at = out.len();
    out.resize(at + said, 0);
    snap::raw::Decoder::new().decompress(block, &mut out[at..]).map_err(damaged)?;
    Ok(())
}

/// How snappy output is framed; Java writes xerial, librdkafka raw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnappyFraming {
    Raw,
    Xerial,
}

/// Compresses at each codec's default level. For our own producers, tools and tests; the broker never recompresses.
pub fn compress(codec: Codec, input: &[u8], framing: SnappyFraming) -> Result<Bytes, CompressError> {
    let damaged = |source| CompressError::Damaged { codec, source };
    let snap_failed = |e: snap::Error| CompressError::Damaged { codec, source: io::Error::other(e) };
    Ok(match codec {
        Codec::None => Bytes::copy_from_slice(input),
        Codec::Gzip => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            writer.write_all(input).map_err(damaged)?;
            writer.finish().map_err(damaged)?.into()
        }
        Codec::Lz4 => {
            let mut writer = lz4_flex::frame::FrameEncoder::new(Vec::new());
            writer.write_all(input).map_err(damaged)?;
            writer.finish().map_err(|e| damaged(io::Error::other(e)))?.into()
        }
        // In one piece: knowing the size, the codec takes tables that fit it, and a batch of one row costs no megabyte.
        Codec::Zstd => zstd::bulk::compress(input, 0).map_err(damaged)?.into(),
        Codec::Snappy if framing == SnappyFraming::Raw => {
            snap::raw::Encoder::new().compress_vec(input).map_err(snap_failed)?.into()
        }
        Codec::Snappy => {
            let mut out = BytesMut::new();
            out.extend_from_slice(&XERIAL_MAGIC);
            out.extend_from_slice(&1u32.to_be_bytes());
            out.extend_from_slice(&1u32.to_be_bytes());
            for piece in input.chunks(XERIAL_BLOCK_BYTES) {
                let block = snap::raw::Encoder::new().compress_vec(piece).map_err(snap_failed)?;
                let length = u32::try_from(block.len()).map_err(|_| damaged(io::ErrorKind::InvalidInput.into()))?;
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(&block);
            }
            out.freeze()
        }
    })
}

/// The same batch with its record section compressed: header fields kept, codec bits, length and CRC written anew.
pub fn compress_batch(batch: &BatchView<'_>, codec: Codec, framing: SnappyFraming) -> Result<BytesMut, CompressError> {
    let body = compress(codec, batch.records(), framing)?;
    let mut out = BytesMut::with_capacity(HEADER_BYTES + body.len());
    out.extend_from_slice(&batch.bytes()[..HEADER_BYTES]);
    out.extend_from_slice(&body);
    let length = i32::try_from(out.len() - LOG_OVERHEAD)
        .map_err(|_| CompressError::TooLarge { codec, cap: i32::MAX as usize })?;
    let attributes = (batch.attributes() & !7) | codec.attribute();
    out[8..12].copy_from_slice(&length.to_be_bytes());
    out[21..23].copy_from_slice(&attributes.to_be_bytes());
    let crc = crc32c(&out[21..]);
    out[17..21].copy_from_slice(&crc.to_be_bytes());
    Ok(out)
}

/// A record found by a look-up inside a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimedRecord {
    pub offset_delta: u32,
    pub timestamp: i64,
}

/// The first record with timestamp ≥ `at_ms` at or behind `from_delta` (of its offset), looked up inside the batch. A
/// LogAppendTime batch has one time for all its records: its maximum.
pub fn first_at_or_after(
    batch: &BatchView<'_>,
    at_ms: i64,
    from_delta: u32,
    cap: usize,
) -> Result<Option<TimedRecord>, CompressError> {
    let mut found = None;
    each_time(batch, from_delta, cap, |record| {
        found = Some(record).filter(|r| r.timestamp >= at_ms);
        found.is_none()
    })?;
    Ok(found)
}

/// The first of the records with the largest timestamp at or behind `from_delta`. The header's maximum is not believed:
/// it stands there as a producer sent it, and may be that of a record before `from_delta`.
pub fn first_at_max(batch: &BatchView<'_>, from_delta: u32, cap: usize) -> Result<Option<TimedRecord>, CompressError> {
    let mut found: Option<TimedRecord> = None;
    each_time(batch, from_delta, cap, |record| {
        if found.is_none_or(|best| best.timestamp < record.timestamp) {
            found = Some(record);
        }
        true
    })?;
    Ok(found)
}

/// Shows the records at or behind `from_delta` until `go_on` says no.
fn each_time(
    batch: &BatchView<'_>,
    from_delta: u32,
    cap: usize,
    mut go_on: impl FnMut(TimedRecord) -> bool,
) -> Result<(), CompressError> {
    if batch.attributes() & ATTR_LOG_APPEND_TIME != 0 {
        if from_delta < batch.offset_count() {
            go_on(TimedRecord { offset_delta: from_delta, timestamp: batch.max_timestamp() });
        }
        return Ok(());
    }
    let section = section(batch, cap)?;
    let count = u32::try_from(batch.records_count()).unwrap_or(0);
    for record in crate::batch::iterate::records(&section, count) {
        let Ok(record) = record else {
            let codec = batch.codec().unwrap_or(Codec::None);
            return Err(CompressError::Damaged { codec, source: io::ErrorKind::InvalidData.into() });
        };
        let offset_delta = u32::try_from(record.offset_delta).unwrap_or(0);
        let timestamp = batch.base_timestamp().saturating_add(record.timestamp_delta);
        if offset_delta >= from_delta && !go_on(TimedRecord { offset_delta, timestamp }) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::batch::build::Builder;

    const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    #[test]
    fn every_codec_gives_back_what_went_in() {
        let data: Vec<u8> = (0..200_000u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
        for codec in CODECS {
            for framing in [SnappyFraming::Raw, SnappyFraming::Xerial] {
                let packed = compress(codec, &data, framing).unwrap();
                assert_eq!(decompress(codec, &packed, data.len()).unwrap(), data, "{codec:?} {framing:?}");
                assert!(decompress(codec, &compress(codec, b"", framing).unwrap(), 0).unwrap().is_empty());
            }
        }
    }

    #[test]
    fn output_stops_at_the_cap() {
        let zeros = vec![0u8; 8 << 20];
        for codec in CODECS {
            for framing in [SnappyFraming::Raw, SnappyFraming::Xerial] {
                let packed = compress(codec, &zeros, framing).unwrap();
                let answer = decompress(codec, &packed, 1 << 20);
                assert!(matches!(answer, Err(CompressError::TooLarge { .. })), "{codec:?} {framing:?}");
            }
        }
    }

    #[test]
    fn claimed_lengths_reserve_nothing() {
        // Five bytes of snappy that claim 4 GiB.
        assert!(decompress(Codec::Snappy, &[0xff, 0xff, 0xff, 0xff, 0x0f], 1 << 30).is_err());
        let mut xerial = XERIAL_MAGIC.to_vec();
        xerial.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]);
        assert!(decompress(Codec::Snappy, &xerial, 1 << 30).is_err());
        for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd, Codec::Snappy] {
            assert!(decompress(codec, &[0xff; 40], 1 << 30).is_err(), "{codec:?}");
        }
    }

    #[test]
    fn a_cut_stream_is_an_error_and_not_a_short_answer() {
        let data: Vec<u8> = (0..100_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd, Codec::Snappy] {
            let packed = compress(codec, &data, SnappyFraming::Xerial).unwrap();
            assert!(decompress(codec, &packed[..packed.len() / 2], 1 << 30).is_err(), "{codec:?}");
        }
    }

    #[test]
    fn times_are_looked_up_inside_compressed_batches() {
        let mut builder = Builder::new();
        for t in [1000, 1500, 1200, 3000, 3000] {
            builder.push(t, None, Some(b"value"), []);
        }
        let plain = builder.finish();
        for codec in CODECS {
            let bytes = compress_batch(&BatchView::new(&plain).unwrap(), codec, SnappyFraming::Xerial).unwrap();
            let view = BatchView::new(&bytes).unwrap();
            view.check_crc().unwrap();
            let at = |ms| first_at_or_after(&view, ms, 0, 1 << 20).unwrap().map(|r| (r.offset_delta, r.timestamp));
            assert_eq!(at(0), Some((0, 1000)), "{codec:?}");
            assert_eq!(at(1100), Some((1, 1500)));
            assert_eq!(at(1501), Some((3, 3000)));
            assert_eq!(at(3001), None);
            let behind = |delta| first_at_max(&view, delta, 1 << 20).unwrap().map(|r| (r.offset_delta, r.timestamp));
            assert_eq!((behind(0), behind(4), behind(5)), (Some((3, 3000)), Some((4, 3000)), None));
            let found = first_at_or_after(&view, 1100, 2, 1 << 20).unwrap().unwrap();
            assert_eq!((found.offset_delta, found.timestamp), (2, 1200), "what lies before is not looked at");
        }
        let mut stamped = plain.clone();
        crate::batch::stamp_append_time(&mut stamped, 9_000);
        let view = BatchView::new(&stamped).unwrap();
        let found = first_at_or_after(&view, 5_000, 0, 1 << 20).unwrap().unwrap();
        assert_eq!(found, TimedRecord { offset_delta: 0, timestamp: 9_000 });
        assert_eq!(first_at_max(&view, 2, 1 << 20).unwrap().unwrap().offset_delta, 2);
        assert_eq!(first_at_max(&view, 5, 1 << 20).unwrap(), None);
    }

    /// A header may promise a time that no record has.
    #[test]
    fn the_largest_time_is_one_that_a_record_has() {
        let mut builder = Builder::new();
        for t in [1000, 1500, 1200] {
            builder.push(t, None, Some(b"value"), []);
        }
        let mut bytes = builder.finish().to_vec();
        bytes[35..43].copy_from_slice(&9_000i64.to_be_bytes());
        let crc = crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        let found = first_at_max(&BatchView::new(&bytes).unwrap(), 0, 1 << 20).unwrap();
        assert_eq!(found, Some(TimedRecord { offset_delta: 1, timestamp: 1500 }));
    }
}
