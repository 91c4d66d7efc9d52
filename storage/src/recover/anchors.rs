//! Pure. Which entry each record of an `.ext` file is of, when the table that says it is lost.
//!
//! A record's checksum covers the index of its entry, and of all indexes that share their upper half one only fits: it is
//! computed, not searched. Where a record ends, its values say, each with a length; an end at which no index of the segment
//! fits, or behind which no record begins, is none. More than one way to read the file is no way.

use crate::entry::EntryKind;
use crate::format::context::{CONTEXT_BYTES_MAX, EntryContext, capture_flag};
use crate::format::row::EXT_CRC_BYTES;
use bytes::Bytes;
use catchwater_record::EntryIndex;
use catchwater_record::crc::crc32c_first_word;

/// Values of one context: eight tags exist, each at most once.
pub(super) const VALUES_MAX: usize = 16;

/// One record of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Anchor {
    pub index: EntryIndex,
    /// `Data`: a batch belongs to it.
    pub kind: EntryKind,
    pub at: u32,
    pub len: u16,
    pub context: Bytes,
}

/// What an entry with this context is. `Data`: it came with a batch.
pub(super) fn kind_of(context: &EntryContext) -> EntryKind {
    match &context.capture {
        Some(capture) if capture.flags & capture_flag::NO_ROWS == 0 => EntryKind::Data,
        _ => context.kind_without_body(),
    }
}

/// All records, of entries `from..upto`; `None` = the file does not say it beyond doubt.
pub(super) fn anchors(ext: &Bytes, from: EntryIndex, upto: EntryIndex) -> Option<Vec<Anchor>> {
    let (mut out, mut at, mut index) = (Vec::new(), 0, from);
    while at < ext.len() {
        let mut fits = records_at(ext, at, index, upto);
        if fits.len() > 1 {
            fits.retain(|a| {
                let end = a.at as usize + usize::from(a.len);
                end == ext.len() || !records_at(ext, end, a.index.next(), upto).is_empty()
            });
        }
        let (Some(anchor), None) = (fits.pop(), fits.pop()) else { return None };
        at += usize::from(anchor.len);
        index = anchor.index.next();
        out.push(anchor);
    }
    Some(out)
}

/// Every record that may begin at `at`, by the ends it may have.
fn records_at(ext: &Bytes, at: usize, from: EntryIndex, upto: EntryIndex) -> Vec<Anchor> {
    let mut out = Vec::new();
    let rest = &ext[at..];
    let Some(crc) = rest.first_chunk::<EXT_CRC_BYTES>().map(|b| u32::from_le_bytes(*b)) else { return out };
    let mut end = EXT_CRC_BYTES;
    for _ in 0..VALUES_MAX {
        let Some(len) = rest.get(end + 1) else { break };
        end += 2 + usize::from(*len);
        let Some(data) = rest.get(EXT_CRC_BYTES..end).filter(|data| data.len() <= CONTEXT_BYTES_MAX) else { break };
        let context = ext.slice(at + EXT_CRC_BYTES..at + end);
        let Ok(decoded) = EntryContext::decode(&context) else { continue };
        for upper in from.0 >> 32..=upto.0.saturating_sub(1) >> 32 {
            let lower = crc32c_first_word(crc, &[&(upper as u32).to_le_bytes(), data]);
            let index = EntryIndex(upper << 32 | u64::from(lower));
            if (from..upto).contains(&index) {
                let (at, len) = (at as u32, end as u16);
                out.push(Anchor { index, kind: kind_of(&decoded), at, len, context: context.clone() });
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::format::context::{CaptureContext, LogStart, TrimReason};
    use crate::format::row::encode_ext;
    use catchwater_base::Rng;
    use catchwater_record::{CaptureEpoch, CaptureId, CommitSeq, Offset, Position, TxnId};

    fn context(rng: &mut Rng, n: u64) -> (EntryKind, Bytes) {
        if rng.below(5) == 0 {
            let start = LogStart { offset: Offset(n), reason: TrimReason::DeleteRecords };
            return (EntryKind::LogStart, start.encode());
        }
        let rows = rng.below(4) > 0;
        let position = |n: u64| Position::copy_from(&n.to_be_bytes()).unwrap();
        let context = CaptureContext {
            capture: CaptureId(7),
            epoch: CaptureEpoch(1),
            flags: if rows { 0 } else { capture_flag::NO_ROWS },
            commit_seq: CommitSeq(n),
            prev: Position::NONE,
            first: position(n),
            last: position(n + 1),
            txn: (rng.below(2) == 0).then(|| TxnId(Bytes::from(format!("txn {n}")))),
        };
        (if rows { EntryKind::Data } else { EntryKind::Ctl }, context.encode())
    }

    #[test]
    fn every_record_is_found_with_its_index_and_a_damaged_file_says_nothing() {
        let mut rng = Rng::new(15);
        for base in [1, 1_000_000, (1u64 << 32) - 40, 5 << 40] {
            let (mut ext, mut want, mut index) = (Vec::new(), Vec::new(), base);
            for n in 0..60 {
                index += 1 + rng.below(9);
                let (kind, context) = context(&mut rng, n);
                want.push((EntryIndex(index), kind, context.clone()));
                encode_ext(&mut ext, EntryIndex(index), &context);
            }
            let (from, upto) = (EntryIndex(base), EntryIndex(index + 3));
            let found = anchors(&Bytes::from(ext.clone()), from, upto).unwrap();
            let got: Vec<_> = found.iter().map(|a| (a.index, a.kind, a.context.clone())).collect();
            assert_eq!(got, want);
            for _ in 0..200 {
                let mut bad = ext.clone();
                let bit = rng.below(8 * bad.len() as u64) as usize;
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(anchors(&Bytes::from(bad), from, upto), None, "bit {bit} behind index {base}");
            }
            assert_eq!(anchors(&Bytes::from(ext).slice(..40), from, upto), None, "cut");
        }
        assert_eq!(anchors(&Bytes::new(), EntryIndex(1), EntryIndex(1)), Some(Vec::new()));
    }
}
