//! Pure. Where the records of a leader's term end, as Kafka's cache of epochs tells it.
//!
//! ```text
//!  terms of the log    1@0   2@5   3@5   4@9          end 12, log start 7
//!  terms that count                3@7   4@9          (2 has no records; 1 ended below the log start)
//!  asked 4 -> 4, 12    3 -> 3, 9    2, 1 -> the term asked for, 7    5 -> nothing
//! ```
//! Source: `LeaderEpochFileCache.endOffsetFor`, `assign` and `truncateFromStart` of Apache Kafka 4.x.

use catchwater_record::Offset;
use catchwater_storage::EpochStart;
use std::ops::Range;

/// Kafka's "no epoch".
const NONE: i32 = -1;

/// The largest term not above `asked` and the first offset behind its records; `None` = nobody here knows of such a term.
/// Below the oldest term that is known it is `asked` itself, with the offset where the log begins.
pub(super) fn end_of(epochs: &[EpochStart], log: Range<Offset>, asked: i32) -> Option<(i32, Offset)> {
    if asked == NONE {
        return None;
    }
    let mut below: Option<i32> = None;
    for (at, epoch) in epochs.iter().enumerate() {
        let next = epochs.get(at + 1);
        if next.is_some_and(|next| next.offset <= epoch.offset || next.offset <= log.start) {
            continue;
        }
        let term = i32::try_from(epoch.term).unwrap_or(i32::MAX);
        if term > asked {
            return Some((below.unwrap_or(asked), epoch.offset.max(log.start)));
        }
        below = Some(term);
    }
    // The newest term is still being written to.
    below.filter(|newest| *newest == asked).map(|newest| (newest, log.end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use catchwater_record::EntryIndex;

    #[test]
    fn terms_end_where_kafkas_do() {
        let epochs: Vec<EpochStart> = [(1, 0), (2, 5), (3, 5), (5, 9)]
            .map(|(term, offset)| EpochStart { term, index: EntryIndex(offset + 1), offset: Offset(offset) })
            .into();
        let end = |start, asked| end_of(&epochs, Offset(start)..Offset(12), asked).map(|(t, o)| (t, o.0));
        assert_eq!([-1, 6, i32::MAX].map(|asked| end(0, asked)), [None; 3]);
        assert_eq!(end(0, 5), Some((5, 12)), "the newest: the end of the log");
        assert_eq!((end(0, 4), end(0, 3)), (Some((3, 9)), Some((3, 9))));
        assert_eq!((end(0, 2), end(0, 1)), (Some((1, 5)), Some((1, 5))), "2 wrote nothing");
        assert_eq!((end(0, 0), end(0, -5)), (Some((0, 0)), Some((-5, 0))), "before the oldest: where the log begins");
        assert_eq!((end(7, 1), end(7, 3)), (Some((1, 7)), Some((3, 9))), "1 is gone");
        assert_eq!((end(12, 3), end(12, 5)), (Some((3, 12)), Some((5, 12))), "an empty log keeps its newest");
        assert_eq!(end_of(&[], Offset(0)..Offset(0), 0), None);
    }
}
