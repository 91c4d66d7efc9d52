//! Pure. `cw.stamp`: what every captured record says of where it comes from. Page: `docs/formats/stamp.md`.

use bytes::{BufMut, Bytes, BytesMut};
use catchwater_base::Wall;
use catchwater_record::{CaptureId, CommitSeq, Incarnation, Position, TxnId};
use std::fmt;

/// Name of the record header that holds the stamp.
pub const STAMP_HEADER: &[u8] = b"cw.stamp";
/// Longest native position, bytes.
pub const NATIVE_BYTES_MAX: usize = 48;
const VERSION: u8 = 1;
const FIXED: usize = 44;

/// Order of two states of one row of one source; big-endian compare of its 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version {
    pub incarnation: Incarnation,
    pub commit_seq: CommitSeq,
    /// Number of the record inside its transaction, below 2^48.
    pub ordinal: u64,
}

impl Version {
    pub fn to_bytes(self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..2].copy_from_slice(&self.incarnation.0.to_be_bytes());
        out[2..10].copy_from_slice(&self.commit_seq.0.to_be_bytes());
        out[10..].copy_from_slice(&self.ordinal.to_be_bytes()[2..]);
        out
    }
    pub fn from_bytes(b: [u8; 16]) -> Self {
        let [i0, i1, c @ .., o0, o1, o2, o3, o4, o5] = b;
        Version {
            incarnation: Incarnation(u16::from_be_bytes([i0, i1])),
            commit_seq: CommitSeq(u64::from_be_bytes(c)),
            ordinal: u64::from_be_bytes([0, 0, o0, o1, o2, o3, o4, o5]),
        }
    }
    /// The position of a record: this version, then the native resume token.
    pub fn position(self, native: &Native) -> Position {
        let mut out = BytesMut::with_capacity(16 + native.0.len());
        out.put_slice(&self.to_bytes());
        out.put_slice(&native.0);
        Position::new(out.freeze()).unwrap_or(Position::NONE)
    }
    /// The version inside a position made by [`Version::position`].
    pub fn of(position: &Position) -> Option<(Version, Native)> {
        let (head, rest) = position.as_bytes().split_first_chunk::<16>()?;
        Some((Version::from_bytes(*head), Native::new(Bytes::copy_from_slice(rest))?))
    }
}

impl fmt::Display for Version {
    /// `0000/0000000000000001/000000000000`: sorts as text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}/{:016x}/{:012x}", self.incarnation.0, self.commit_seq.0, self.ordinal)
    }
}
impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A connector's own resume token; the first byte names the system (1 PostgreSQL, 6 SQLite). At most 48 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Native(Bytes);

impl Native {
    pub fn new(bytes: Bytes) -> Option<Self> {
        (bytes.len() <= NATIVE_BYTES_MAX).then_some(Native(bytes))
    }
    /// `01 | end_lsn u64` of the commit record.
    pub fn postgres(end_lsn: u64) -> Self {
        let mut b = BytesMut::with_capacity(9);
        b.put_u8(1);
        b.put_u64(end_lsn);
        Native(b.freeze())
    }
    pub fn as_postgres(&self) -> Option<u64> {
        let (tag, rest) = self.0.split_first()?;
        (*tag == 1).then(|| rest.try_into().map(u64::from_be_bytes).ok())?
    }
    /// `06 | seq u64`.
    pub fn sqlite(seq: u64) -> Self {
        let mut b = BytesMut::with_capacity(9);
        b.put_u8(6);
        b.put_u64(seq);
        Native(b.freeze())
    }
    pub fn as_sqlite(&self) -> Option<u64> {
        let (tag, rest) = self.0.split_first()?;
        (*tag == 6).then(|| rest.try_into().map(u64::from_be_bytes).ok())?
    }
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Native {
    /// For people: `0/16B3748`, `seq 12`, else hex.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(lsn) = self.as_postgres() {
            return write!(f, "{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff);
        }
        if let Some(seq) = self.as_sqlite() {
            return write!(f, "seq {seq}");
        }
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}
impl fmt::Debug for Native {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Flags of a stamp, by bit.
pub mod flag {
    pub const FIRST: u16 = 1 << 0;
    /// Last of its transaction: `total` is set.
    pub const LAST: u16 = 1 << 1;
    pub const SNAPSHOT: u16 = 1 << 2;
    pub const LAST_OF_CHUNK: u16 = 1 << 3;
    pub const FILLED: u16 = 1 << 4;
    pub const INCOMPLETE: u16 = 1 << 5;
    /// The unit may hold several source transactions.
    pub const SUPERSET: u16 = 1 << 6;
    pub const SYNTHETIC: u16 = 1 << 7;
    pub const SUB: u16 = 1 << 8;
    /// An incomplete update of a row that the log holds no whole record of, because a snapshot chunk that is still to come
    /// brings it, this change included: who builds state from the log passes over it.
    pub const ROW_COMES: u16 = 1 << 9;
    /// Transforms of the source changed the value: it is no row any more.
    pub const TRANSFORMED: u16 = 1 << 10;
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// `c u d r t m s`, `b` = tombstone.
    pub op: u8,
    pub flags: u16,
    pub version: Version,
    /// Records of the transaction, 0 = not known yet.
    pub total: u32,
    pub source: CaptureId,
    pub commit_time: Wall,
    /// Number of the TABLE record that describes the row, 0 = none.
    pub schema_no: u32,
    pub native: Native,
    /// `None` = equals `native`.
    pub txn: Option<TxnId>,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum StampError {
    #[error("stamp of {0} bytes is too short")]
    Short(usize),
    #[error("stamp version {0} is not known")]
    Version(u8),
    #[error("native position of {0} bytes is too long")]
    Native(usize),
}

impl Stamp {
    pub fn encode(&self) -> Bytes {
        self.encode_in(&mut BytesMut::new())
    }

    /// As [`Stamp::encode`], in a buffer that many stamps have in turn: nothing is allocated if the one before is dropped.
    pub fn encode_in(&self, out: &mut BytesMut) -> Bytes {
        // To the byte: `freeze` of a fresh buffer then has nothing to allocate.
        let id = self.txn.as_ref().map_or(0, |t| t.0.len().min(64));
        out.reserve(FIXED + 2 + self.native.0.len() + id);
        out.put_u8(VERSION);
        out.put_u8(self.op);
        out.put_u16(self.flags);
        out.put_slice(&self.version.to_bytes());
        out.put_u32(self.total);
        out.put_u64(self.source.0);
        out.put_i64(self.commit_time.as_micros());
        out.put_u32(self.schema_no);
        out.put_u8(self.native.0.len() as u8);
        out.put_slice(&self.native.0);
        match &self.txn {
            None => out.put_u8(255),
            Some(t) => {
                let id = &t.0[..t.0.len().min(64)];
                out.put_u8(id.len() as u8);
                out.put_slice(id);
            }
        }
        out.split().freeze()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, StampError> {
        Self::read(bytes, Bytes::copy_from_slice)
    }

    /// As [`Stamp::decode`]; position and transaction are slices of `bytes`.
    pub fn decode_slice(bytes: &Bytes) -> Result<Self, StampError> {
        Self::read(bytes, |part| bytes.slice_ref(part))
    }

    fn read(bytes: &[u8], part: impl Fn(&[u8]) -> Bytes) -> Result<Self, StampError> {
        let short = || StampError::Short(bytes.len());
        let (head, rest) = bytes.split_first_chunk::<FIXED>().ok_or_else(short)?;
        if head[0] != VERSION {
            return Err(StampError::Version(head[0]));
        }
        let u32_at = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) << 32 | u64::from(u32_at(at + 4));
        let mut version = [0; 16];
        version.copy_from_slice(&head[4..20]);
        let (native_len, rest) = rest.split_first().ok_or_else(short)?;
        let (native, rest) = rest.split_at_checked(usize::from(*native_len)).ok_or_else(short)?;
        let native = Native::new(part(native)).ok_or(StampError::Native(native.len()))?;
        let (txn_len, rest) = rest.split_first().ok_or_else(short)?;
        let txn = match *txn_len {
            255 => None,
            n => Some(TxnId(part(rest.get(..usize::from(n)).ok_or_else(short)?))),
        };
        Ok(Stamp {
            op: head[1],
            flags: u16::from_be_bytes([head[2], head[3]]),
            version: Version::from_bytes(version),
            total: u32_at(20),
            source: CaptureId(u64_at(24)),
            commit_time: Wall::from_micros(u64_at(32) as i64),
            schema_no: u32_at(40),
            native,
            txn,
        })
    }

    /// Operation letter and flags of an encoded stamp, without the rest; `None` = no stamp of this version.
    pub fn peek(bytes: &[u8]) -> Option<(u8, u16)> {
        let head = bytes.get(..FIXED)?;
        (head[0] == VERSION).then(|| (head[1], u16::from_be_bytes([head[2], head[3]])))
    }

    pub fn is_last(&self) -> bool {
        self.flags & flag::LAST != 0
    }
    pub fn is_snapshot(&self) -> bool {
        self.flags & flag::SNAPSHOT != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Stamp {
        Stamp {
            op: b'u',
            flags: flag::FIRST | flag::LAST,
            version: Version { incarnation: Incarnation(1), commit_seq: CommitSeq(0x0102), ordinal: 3 },
            total: 1,
            source: CaptureId(9),
            commit_time: Wall::from_micros(1_700_000_000_000_001),
            schema_no: 4,
            native: Native::postgres(0x16b_3748),
            txn: Some(TxnId(Bytes::from_static(b"743"))),
        }
    }

    #[test]
    fn golden_bytes() {
        let hex: String = sample().encode().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "0175000300010000000000000102000000000003000000010000000000000009\
             00060a24181e40010000000409010000000 0016b374803373433"
                .replace(' ', "")
        );
        let page = include_str!("../../docs/formats/stamp.md").replace(' ', "");
        assert!(page.contains(&format!("`{hex}`")), "the page has other golden bytes");
    }

    #[test]
    fn stamps_that_share_a_buffer_are_those_that_do_not() {
        let mut buffer = BytesMut::new();
        let mut kept = Vec::new();
        for n in 0..200 {
            let txn = TxnId(Bytes::from(vec![b'7'; n % 70]));
            let stamp = Stamp { total: n as u32, txn: Some(txn).filter(|_| n % 3 > 0), ..sample() };
            let bytes = stamp.encode_in(&mut buffer);
            assert_eq!(bytes, stamp.encode(), "{n}");
            // Those that somebody keeps stay as they are.
            kept.extend((n % 7 == 0).then_some((stamp, bytes)));
        }
        assert!(kept.iter().all(|(stamp, bytes)| stamp.encode() == *bytes));
        assert!(buffer.is_empty());
    }

    #[test]
    fn decodes_what_it_encodes_and_refuses_every_prefix() {
        for stamp in [sample(), Stamp { txn: None, ..sample() }] {
            let bytes = stamp.encode();
            assert_eq!(Stamp::decode(&bytes), Ok(stamp.clone()));
            assert_eq!(Stamp::decode_slice(&bytes), Ok(stamp));
            for n in 0..bytes.len() {
                assert!(Stamp::decode(&bytes[..n]).is_err(), "prefix {n}");
            }
        }
    }

    #[test]
    fn positions_sort_as_versions() {
        let a = Version { incarnation: Incarnation(0), commit_seq: CommitSeq(1), ordinal: 255 };
        let b = Version { incarnation: Incarnation(0), commit_seq: CommitSeq(1), ordinal: 256 };
        let (pa, pb) = (a.position(&Native::postgres(9)), b.position(&Native::postgres(1)));
        assert!(pa < pb);
        assert_eq!(Version::of(&pa), Some((a, Native::postgres(9))));
    }
}
