//! Pure. Kafka's record batch, magic 2: header fields read in place, patched in place.
//!
//! ```text
//!  0 base_offset i64*   8 batch_length i32   12 leader_epoch i32*  16 magic i8 = 2   17 crc u32 (bytes 21..end)
//! 21 attributes i16    23 last_offset_delta i32   27 base_timestamp i64   35 max_timestamp i64
//! 43 producer_id i64   51 producer_epoch i16   53 base_sequence i32   57 records_count i32   61 records
//! * = patched on append; outside the CRC.        Everything big endian.
//! ```
//! Source: Kafka documentation, "Record Batch"; KIP-98.

pub mod build;
pub mod iterate;
pub mod rewrite;
pub mod validate;

use crate::crc::crc32c;
use crate::id::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

/// Bytes before the first record.
pub const HEADER_BYTES: usize = 61;
/// Bytes before the ones that `batch_length` counts.
pub const LOG_OVERHEAD: usize = 12;
const CRC_FROM: usize = 21;

/// Compression codec, attribute bits 0–2.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum Codec {
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    pub fn from_attribute(bits: i16) -> Option<Codec> {
        Some(match bits & 7 {
            0 => Codec::None,
            1 => Codec::Gzip,
            2 => Codec::Snappy,
            3 => Codec::Lz4,
            4 => Codec::Zstd,
            _ => return None,
        })
    }
    pub const fn attribute(self) -> i16 {
        match self {
            Codec::None => 0,
            Codec::Gzip => 1,
            Codec::Snappy => 2,
            Codec::Lz4 => 3,
            Codec::Zstd => 4,
        }
    }
}

pub const ATTR_LOG_APPEND_TIME: i16 = 1 << 3;
pub const ATTR_TRANSACTIONAL: i16 = 1 << 4;
pub const ATTR_CONTROL: i16 = 1 << 5;
pub const ATTR_DELETE_HORIZON: i16 = 1 << 6;

/// Why bytes are not one whole v2 batch.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum BatchError {
    #[error("{have} bytes are fewer than the {HEADER_BYTES} of a batch header")]
    Short { have: usize },
    #[error("batch length {length} does not agree with {have} bytes")]
    Length { length: i32, have: usize },
    #[error("magic {0} is not 2")]
    Magic(i8),
    #[error("crc {stored:08x} does not match {computed:08x}")]
    Crc { stored: u32, computed: u32 },
}

/// One whole batch, borrowed. Construction proves header length, batch length and magic; [`BatchView::check_crc`]
/// proves the content.
#[derive(Clone, Copy)]
pub struct BatchView<'a> {
    bytes: &'a [u8],
}

fn be<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

impl<'a> BatchView<'a> {
    /// Exactly one batch.
    pub fn new(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let (view, rest) = Self::split(bytes)?;
        if !rest.is_empty() {
            return Err(BatchError::Length { length: view.batch_length(), have: bytes.len() });
        }
        Ok(view)
    }

    /// The first batch of `bytes` and what follows it.
    pub fn split(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), BatchError> {
        if bytes.len() < HEADER_BYTES {
            return Err(BatchError::Short { have: bytes.len() });
        }
        let magic = bytes[16] as i8;
        if magic != 2 {
            return Err(BatchError::Magic(magic));
        }
        let length = i32::from_be_bytes(be(bytes, 8));
        let whole = usize::try_from(length).ok().and_then(|l| l.checked_add(LOG_OVERHEAD));
        match whole {
            Some(whole) if whole >= HEADER_BYTES && whole <= bytes.len() => {
                let (head, rest) = bytes.split_at(whole);
                Ok((BatchView { bytes: head }, rest))
            }
            _ => Err(BatchError::Length { length, have: bytes.len() }),
        }
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
    pub fn is_empty(&self) -> bool {
        false
    }
    pub fn base_offset(&self) -> i64 {
        i64::from_be_bytes(be(self.bytes, 0))
    }
    /// Base offset of a stored batch, where it is never negative.
    pub fn offset(&self) -> Offset {
        Offset(self.base_offset().max(0) as u64)
    }
    pub fn batch_length(&self) -> i32 {
        i32::from_be_bytes(be(self.bytes, 8))
    }
    pub fn leader_epoch(&self) -> i32 {
        i32::from_be_bytes(be(self.bytes, 12))
    }
    pub fn crc(&self) -> u32 {
        u32::from_be_bytes(be(self.bytes, 17))
    }
    pub fn attributes(&self) -> i16 {
        i16::from_be_bytes(be(self.bytes, 21))
    }
    pub fn codec(&self) -> Option<Codec> {
        Codec::from_attribute(self.attributes())
    }
    pub fn last_offset_delta(&self) -> i32 {
        i32::from_be_bytes(be(self.bytes, 23))
    }
    pub fn base_timestamp(&self) -> i64 {
        i64::from_be_bytes(be(self.bytes, 27))
    }
    pub fn max_timestamp(&self) -> i64 {
        i64::from_be_bytes(be(self.bytes, 35))
    }
    pub fn raw_producer_id(&self) -> i64 {
        i64::from_be_bytes(be(self.bytes, 43))
    }
    /// `None` for a batch without idempotence.
    pub fn producer_id(&self) -> Option<ProducerId> {
        Some(self.raw_producer_id()).filter(|id| *id >= 0).map(ProducerId)
    }
    pub fn producer_epoch(&self) -> ProducerEpoch {
        ProducerEpoch(i16::from_be_bytes(be(self.bytes, 51)))
    }
    pub fn base_sequence(&self) -> i32 {
        i32::from_be_bytes(be(self.bytes, 53))
    }
    /// Sequence of the last record, wrapping from 2^31-1 to 0.
    pub fn last_sequence(&self) -> i32 {
        let last = i64::from(self.base_sequence()) + i64::from(self.last_offset_delta());
        (last & 0x7fff_ffff) as i32
    }
    pub fn records_count(&self) -> i32 {
        i32::from_be_bytes(be(self.bytes, 57))
    }
    /// Offsets the batch takes: `last_offset_delta + 1`.
    pub fn offset_count(&self) -> u32 {
        u32::try_from(i64::from(self.last_offset_delta()) + 1).unwrap_or(0)
    }
    pub fn is_control(&self) -> bool {
        self.attributes() & ATTR_CONTROL != 0
    }
    pub fn is_transactional(&self) -> bool {
        self.attributes() & ATTR_TRANSACTIONAL != 0
    }
    pub fn records(&self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..]
    }
    pub fn check_crc(&self) -> Result<(), BatchError> {
        let (stored, computed) = (self.crc(), crc32c(&self.bytes[CRC_FROM..]));
        if stored == computed { Ok(()) } else { Err(BatchError::Crc { stored, computed }) }
    }
}

impl std::fmt::Debug for BatchView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Batch {{ base {}, records {}, {} bytes }}", self.base_offset(), self.records_count(), self.len())
    }
}

/// Writes base offset and leader epoch, the two fields outside the CRC. `batch` must hold a checked batch.
pub fn patch(batch: &mut [u8], base_offset: Offset, epoch: LeaderEpoch) {
    assert!(batch.len() >= HEADER_BYTES, "patch needs a whole header");
    batch[0..8].copy_from_slice(&base_offset.0.to_be_bytes());
    batch[12..16].copy_from_slice(&epoch.0.to_be_bytes());
}

/// LogAppendTime topics: sets attribute bit 3 and the maximum timestamp, and computes the CRC again.
pub fn stamp_append_time(batch: &mut [u8], now_ms: i64) {
    assert!(batch.len() >= HEADER_BYTES, "stamp needs a whole header");
    let attributes = i16::from_be_bytes(be(batch, 21)) | ATTR_LOG_APPEND_TIME;
    batch[21..23].copy_from_slice(&attributes.to_be_bytes());
    batch[35..43].copy_from_slice(&now_ms.to_be_bytes());
    let crc = crc32c(&batch[CRC_FROM..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// Writes another maximum timestamp (the walk found it) and computes the CRC again.
pub fn set_max_timestamp(batch: &mut [u8], max_ms: i64) {
    assert!(batch.len() >= HEADER_BYTES, "the header must be whole");
    batch[35..43].copy_from_slice(&max_ms.to_be_bytes());
    let crc = crc32c(&batch[CRC_FROM..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}
