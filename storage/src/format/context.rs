//! Pure. The context of an entry: a few TLVs beside the batch, which no consumer sees.
//!
//! Page: `docs/formats/entry-context.md` (golden bytes below are the page's). `tag u8 | len u8 | value`, little-endian,
//! each tag at most once, at most [`CONTEXT_BYTES_MAX`] in all. An unknown tag with bit 7 set is ignored; another one
//! is refused at propose and takes a replica offline at apply: it was written by a newer version.

use bytes::{BufMut, Bytes, BytesMut};
use catchwater_record::position::POSITION_BYTES_MAX;
use catchwater_record::{CaptureEpoch, CaptureId, CommitSeq, Offset, Position, TxnId};

use crate::entry::EntryKind;

/// Largest context of one entry, bytes: `ext_len u16` of a row less the 4 of its CRC.
pub const CONTEXT_BYTES_MAX: usize = 65_531;
/// Longest source transaction id, bytes.
pub const TXN_ID_BYTES_MAX: usize = 64;

/// Flags of a CAPTURE context.
pub mod capture_flag {
    /// A source transaction ends in this batch.
    pub const ENDS: u8 = 1 << 0;
    /// Snapshot rows.
    pub const SNAPSHOT: u8 = 1 << 1;
    /// No rows: the entry only moves the position (kind `Ctl`).
    pub const NO_ROWS: u8 = 1 << 2;
}

mod tag {
    pub const CAPTURE: u8 = 1;
    pub const TXN: u8 = 2;
    pub const CONF: u8 = 3;
    pub const LOGSTART: u8 = 4;
    pub const FENCE: u8 = 5;
    pub const TIERED: u8 = 6;
    pub const GAP: u8 = 7;
    pub const CAPTURE_DROP: u8 = 8;
}

/// What a capture says of the entry it writes. All but `prev` is stored in it (TLV 1 and 2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CaptureContext {
    pub capture: CaptureId,
    pub epoch: CaptureEpoch,
    /// Bits of [`capture_flag`].
    pub flags: u8,
    pub commit_seq: CommitSeq,
    /// `last` of this capture's append before, in this partition; none = there was none. Not stored: decoding gives none.
    pub prev: Position,
    /// Positions of the first and last record; both none for cuts and checkpoints (fenced, never deduplicated).
    pub first: Position,
    pub last: Position,
    pub txn: Option<TxnId>,
}

impl CaptureContext {
    /// Without positions only the epoch is checked.
    pub fn has_positions(&self) -> bool {
        !self.last.is_none()
    }
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        let (first, last) = (self.first.as_bytes(), self.last.as_bytes());
        put_head(&mut out, tag::CAPTURE, 24 + first.len() + last.len());
        out.put_u64_le(self.capture.0);
        out.put_u32_le(self.epoch.0);
        out.put_u8(self.flags);
        out.put_u8(first.len() as u8);
        out.put_u8(last.len() as u8);
        out.put_u8(0);
        out.put_u64_le(self.commit_seq.0);
        out.put_slice(first);
        out.put_slice(last);
        if let Some(txn) = &self.txn {
            put_head(&mut out, tag::TXN, txn.0.len());
            out.put_slice(&txn.0);
        }
        out.freeze()
    }
}

/// An older worker of this capture is out from here on (TLV 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fence {
    pub capture: CaptureId,
    pub epoch: CaptureEpoch,
}

impl Fence {
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        put_head(&mut out, tag::FENCE, 12);
        out.put_u64_le(self.capture.0);
        out.put_u32_le(self.epoch.0);
        out.freeze()
    }
}

/// Forget a capture (TLV 8).
pub fn encode_capture_drop(capture: CaptureId) -> Bytes {
    let mut out = BytesMut::new();
    put_head(&mut out, tag::CAPTURE_DROP, 8);
    out.put_u64_le(capture.0);
    out.freeze()
}

/// Why the log start moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum TrimReason {
    Retention = 0,
    DeleteRecords = 1,
    Tier = 2,
}

/// The log begins at `offset` from here on (TLV 4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogStart {
    pub offset: Offset,
    pub reason: TrimReason,
}

impl LogStart {
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        put_head(&mut out, tag::LOGSTART, 9);
        out.put_u64_le(self.offset.0);
        out.put_u8(self.reason as u8);
        out.freeze()
    }
}

/// Wraps the bytes of a conf state or conf change (opaque here) as TLV 3.
pub fn encode_conf(conf: &[u8]) -> Option<Bytes> {
    let len = u8::try_from(conf.len()).ok()?;
    let mut out = BytesMut::new();
    out.put_u8(tag::CONF);
    out.put_u8(len);
    out.put_slice(conf);
    Some(out.freeze())
}

/// A run of entries that compaction removed (TLV 7), shared by all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GapRun {
    pub first_index: u64,
    pub count: u64,
    pub base_offset: Offset,
    pub end_offset: Offset,
}

impl GapRun {
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        put_head(&mut out, tag::GAP, 32);
        out.put_u64_le(self.first_index);
        out.put_u64_le(self.count);
        out.put_u64_le(self.base_offset.0);
        out.put_u64_le(self.end_offset.0);
        out.freeze()
    }
}

/// A whole context, decoded. Fields are absent unless their TLV was there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EntryContext {
    pub capture: Option<CaptureContext>,
    pub conf: Option<Bytes>,
    pub log_start: Option<LogStart>,
    pub fence: Option<Fence>,
    pub capture_drop: Option<CaptureId>,
    pub gap: Option<GapRun>,
    /// TIERED, opaque until tiering reads it.
    pub tiered: Option<Bytes>,
}

/// Why bytes are not a context of this version.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum ContextError {
    #[error("context of {0} bytes is longer than {CONTEXT_BYTES_MAX}")]
    TooLong(usize),
    #[error("context ends inside tag {0}")]
    Short(u8),
    #[error("tag {0} stands twice")]
    Twice(u8),
    #[error("tag {0} has a bad value")]
    Value(u8),
    #[error("tag {0} is of a newer version")]
    Unknown(u8),
    #[error("a source transaction id without a capture")]
    TxnAlone,
}

impl EntryContext {
    pub fn decode(bytes: &Bytes) -> Result<Self, ContextError> {
        if bytes.len() > CONTEXT_BYTES_MAX {
            return Err(ContextError::TooLong(bytes.len()));
        }
        let mut out = EntryContext::default();
        let mut seen = [false; 16];
        let mut txn = None;
        let mut at = 0;
        while at < bytes.len() {
            let t = bytes[at];
            let len = usize::from(*bytes.get(at + 1).ok_or(ContextError::Short(t))?);
            let value = at + 2..at + 2 + len;
            if value.end > bytes.len() {
                return Err(ContextError::Short(t));
            }
            at = value.end;
            if t & 0x80 != 0 {
                continue;
            }
            match seen.get_mut(usize::from(t)) {
                Some(twice) if *twice => return Err(ContextError::Twice(t)),
                Some(twice) => *twice = true,
                None => return Err(ContextError::Unknown(t)),
            }
            let mut v = Cut { bytes, at: value.start, end: value.end, tag: t };
            match t {
                tag::CAPTURE => out.capture = Some(v.capture()?),
                tag::TXN => {
                    if len > TXN_ID_BYTES_MAX {
                        return Err(ContextError::Value(t));
                    }
                    txn = Some(TxnId(v.rest()));
                }
                tag::CONF => out.conf = Some(v.rest()),
                tag::LOGSTART => {
                    let offset = Offset(v.u64()?);
                    let reason = match v.u8()? {
                        0 => TrimReason::Retention,
                        1 => TrimReason::DeleteRecords,
                        2 => TrimReason::Tier,
                        _ => return Err(ContextError::Value(t)),
                    };
                    out.log_start = Some(LogStart { offset, reason });
                }
                tag::FENCE => {
                    out.fence = Some(Fence { capture: CaptureId(v.u64()?), epoch: CaptureEpoch(v.u32()?) });
                }
                tag::TIERED => {
                    if len != 60 {
                        return Err(ContextError::Value(t));
                    }
                    out.tiered = Some(v.rest());
                }
                tag::GAP => {
                    out.gap = Some(GapRun {
                        first_index: v.u64()?,
                        count: v.u64()?,
                        base_offset: Offset(v.u64()?),
                        end_offset: Offset(v.u64()?),
                    });
                }
                tag::CAPTURE_DROP => out.capture_drop = Some(CaptureId(v.u64()?)),
                _ => return Err(ContextError::Unknown(t)),
            }
            if v.at != v.end {
                return Err(ContextError::Value(t));
            }
        }
        match (&mut out.capture, txn) {
            (_, None) => {}
            (Some(capture), txn) => capture.txn = txn,
            (None, Some(_)) => return Err(ContextError::TxnAlone),
        }
        Ok(out)
    }

    /// The kind an entry without a body has by its context alone; an empty context is a noop.
    pub fn kind_without_body(&self) -> EntryKind {
        if self.conf.is_some() {
            EntryKind::Conf
        } else if self.log_start.is_some() {
            EntryKind::LogStart
        } else if self.gap.is_some() {
            EntryKind::Gap
        } else if self.fence.is_some() || self.tiered.is_some() || self.capture_drop.is_some() || self.capture.is_some()
        {
            EntryKind::Ctl
        } else {
            EntryKind::Noop
        }
    }
}

fn put_head(out: &mut BytesMut, tag: u8, len: usize) {
    let len = u8::try_from(len).expect("values of this format are shorter than 256 bytes");
    out.reserve(2 + usize::from(len));
    out.put_u8(tag);
    out.put_u8(len);
}

/// A bounded reader over one value.
struct Cut<'a> {
    bytes: &'a Bytes,
    at: usize,
    end: usize,
    tag: u8,
}

impl Cut<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], ContextError> {
        if self.end - self.at < N {
            return Err(ContextError::Value(self.tag));
        }
        let mut out = [0; N];
        out.copy_from_slice(&self.bytes[self.at..self.at + N]);
        self.at += N;
        Ok(out)
    }
    fn u8(&mut self) -> Result<u8, ContextError> {
        Ok(self.take::<1>()?[0])
    }
    fn u32(&mut self) -> Result<u32, ContextError> {
        Ok(u32::from_le_bytes(self.take()?))
    }
    fn u64(&mut self) -> Result<u64, ContextError> {
        Ok(u64::from_le_bytes(self.take()?))
    }
    fn slice(&mut self, len: usize) -> Result<Bytes, ContextError> {
        if self.end - self.at < len {
            return Err(ContextError::Value(self.tag));
        }
        let out = self.bytes.slice(self.at..self.at + len);
        self.at += len;
        Ok(out)
    }
    fn rest(&mut self) -> Bytes {
        let out = self.bytes.slice(self.at..self.end);
        self.at = self.end;
        out
    }
    fn position(&mut self, len: u8) -> Result<Position, ContextError> {
        if usize::from(len) > POSITION_BYTES_MAX {
            return Err(ContextError::Value(self.tag));
        }
        let bytes = self.slice(usize::from(len))?;
        Position::new(bytes).map_err(|_| ContextError::Value(self.tag))
    }
    fn capture(&mut self) -> Result<CaptureContext, ContextError> {
        let capture = CaptureId(self.u64()?);
        let epoch = CaptureEpoch(self.u32()?);
        let flags = self.u8()?;
        let (first_len, last_len) = (self.u8()?, self.u8()?);
        if self.u8()? != 0 {
            return Err(ContextError::Value(self.tag));
        }
        let commit_seq = CommitSeq(self.u64()?);
        let first = self.position(first_len)?;
        let last = self.position(last_len)?;
        if first.is_none() != last.is_none() || first > last {
            return Err(ContextError::Value(self.tag));
        }
        Ok(CaptureContext { capture, epoch, flags, commit_seq, prev: Position::NONE, first, last, txn: None })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn hex(s: &str) -> Vec<u8> {
        let digits: Vec<u8> = s.bytes().filter(|b| b.is_ascii_hexdigit()).collect();
        digits.chunks(2).map(|p| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap()).collect()
    }

    fn sample() -> CaptureContext {
        CaptureContext {
            capture: CaptureId(7),
            epoch: CaptureEpoch(3),
            flags: capture_flag::ENDS,
            commit_seq: CommitSeq(0x0102),
            prev: Position::NONE,
            first: Position::copy_from(b"ab").unwrap(),
            last: Position::copy_from(b"abc").unwrap(),
            txn: Some(TxnId(Bytes::from_static(b"tx9"))),
        }
    }

    #[test]
    fn golden_bytes_are_those_of_the_page() {
        let page = include_str!("../../../docs/formats/entry-context.md");
        let cases: Vec<(&str, Bytes)> = vec![
            ("CAPTURE + TXN", sample().encode()),
            ("CONF", encode_conf(&[1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]).unwrap()),
            ("LOGSTART", LogStart { offset: Offset(1000), reason: TrimReason::DeleteRecords }.encode()),
            ("FENCE", Fence { capture: CaptureId(7), epoch: CaptureEpoch(4) }.encode()),
            ("CAPTURE_DROP", encode_capture_drop(CaptureId(7))),
        ];
        for (name, bytes) in cases {
            let line = page.lines().find_map(|l| l.strip_prefix(&format!("golden {name}: "))).expect(name);
            assert_eq!(hex(line), bytes.to_vec(), "{name}");
            EntryContext::decode(&bytes).expect(name);
        }
    }

    #[test]
    fn kinds_follow_the_context() {
        let cases = [
            (Bytes::new(), EntryKind::Noop),
            (encode_conf(&[1]).unwrap(), EntryKind::Conf),
            (LogStart { offset: Offset(1), reason: TrimReason::Retention }.encode(), EntryKind::LogStart),
            (Fence { capture: CaptureId(1), epoch: CaptureEpoch(1) }.encode(), EntryKind::Ctl),
            (encode_capture_drop(CaptureId(1)), EntryKind::Ctl),
            (sample().encode(), EntryKind::Ctl),
        ];
        for (bytes, kind) in cases {
            assert_eq!(EntryContext::decode(&bytes).unwrap().kind_without_body(), kind);
        }
    }

    #[test]
    fn hostile_bytes_are_refused() {
        let check = |bytes: &[u8], want: ContextError| {
            assert_eq!(EntryContext::decode(&Bytes::copy_from_slice(bytes)), Err(want), "{bytes:?}");
        };
        check(&[5], ContextError::Short(5));
        check(&[5, 12, 0], ContextError::Short(5));
        check(&[5, 3, 0, 0, 0], ContextError::Value(5));
        check(&[9, 0], ContextError::Unknown(9));
        check(&[0, 0], ContextError::Unknown(0));
        check(&[127, 0], ContextError::Unknown(127));
        check(&[2, 1, 65], ContextError::TxnAlone);
        let drop = encode_capture_drop(CaptureId(1));
        check(&[&drop[..], &drop[..]].concat(), ContextError::Twice(8));
        // An unknown tag with bit 7 is skipped.
        assert!(EntryContext::decode(&Bytes::from_static(&[0x81, 2, 9, 9])).is_ok());
        // First position after the last one.
        let mut bad = sample();
        bad.first = Position::copy_from(b"b").unwrap();
        assert_eq!(EntryContext::decode(&bad.encode()), Err(ContextError::Value(1)));
    }

    proptest! {
        #[test]
        fn captures_come_back(capture: u64, epoch: u32, flags in 0u8..8, seq: u64,
                              a in prop::collection::vec(any::<u8>(), 1..=64),
                              b in prop::collection::vec(any::<u8>(), 1..=64),
                              txn in prop::option::of(prop::collection::vec(any::<u8>(), 0..=64))) {
            let (first, last) = if a <= b { (a, b) } else { (b, a) };
            let context = CaptureContext {
                capture: CaptureId(capture), epoch: CaptureEpoch(epoch), flags, commit_seq: CommitSeq(seq),
                prev: Position::NONE,
                first: Position::copy_from(&first).unwrap(), last: Position::copy_from(&last).unwrap(),
                txn: txn.map(|t| TxnId(Bytes::from(t))),
            };
            let found = EntryContext::decode(&context.encode()).unwrap();
            prop_assert_eq!(found.capture, Some(context));
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = EntryContext::decode(&Bytes::from(bytes));
        }
    }
}
