//! Pure. Which segments retention lets go: a choice, not a deed. The leader proposes the new log start; once that is
//! committed the segment writer removes what lies below.
//!
//! Whole segments only, oldest first, nothing above the high watermark. The newest one goes too when everything in it is
//! due (the segment writer then closes it, and the next batch begins another), as Kafka's active segment does.

use crate::compact::log_bytes as bytes;
use crate::entry::SegmentInfo;
use catchwater_record::Offset;

/// What a topic keeps; `None` = without limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Retention {
    /// `retention.ms`
    pub ms: Option<u64>,
    /// `retention.bytes`, per partition.
    pub bytes: Option<u64>,
}

/// The offset the log should begin at; `None` = nothing goes.
///
/// A segment is as old as its newest record says, but no younger than its roll: a record from the future pins nothing. A
/// time that nobody knows (a record without one, a table that was made again and has lost when it was begun) makes nothing
/// old.
pub fn choose(segments: &[SegmentInfo], high_watermark: Offset, retention: Retention, now_ms: i64) -> Option<Offset> {
    let mut kept_bytes: u64 = segments.iter().map(bytes).sum();
    let mut start = None;
    for (i, segment) in segments.iter().enumerate() {
        let next = segments.get(i + 1);
        let (Some(first), Some(last)) = (segment.rows.first(), segment.rows.last()) else { continue };
        let end = next.map_or(last.base_offset.plus(u64::from(last.count)), |next| next.base_offset);
        // Without a record there is nothing to let go of.
        if end > high_watermark || end == first.base_offset {
            break;
        }
        let record_ms = Some(last.max_ts).filter(|ms| *ms >= 0);
        // Whatever was begun later was begun behind its roll: unless the clock was put back meanwhile, then nobody knows when.
        let roll_ms = segments[i + 1..].iter().map(|s| s.created_ms).find(|ms| *ms > 0);
        let roll_ms = roll_ms.filter(|ms| segments[..=i].iter().all(|s| s.created_ms <= *ms));
        let newest_ms = record_ms.into_iter().chain(roll_ms).min().unwrap_or(i64::MAX);
        let age_ms = u64::try_from(now_ms.saturating_sub(newest_ms)).unwrap_or(0);
        let rest_bytes = kept_bytes - bytes(segment);
        // Kafka's rule: a segment goes by size only if what stays is still as large as the limit.
        let goes = retention.ms.is_some_and(|ms| age_ms > ms) || retention.bytes.is_some_and(|most| rest_bytes >= most);
        if !goes {
            break;
        }
        kept_bytes = rest_bytes;
        start = Some(end);
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{EntryKind, Row};
    use crate::fences::SegmentRows;
    use catchwater_record::{EntryIndex, LeaderEpoch};

    /// Segments of ten offsets and 100 bytes each, as (newest record, rolled in) in ms.
    fn segments(times: &[(i64, i64)]) -> Vec<SegmentInfo> {
        let segment = |(i, (max_ts, created_ms)): (usize, &(i64, i64))| SegmentInfo {
            base_index: EntryIndex(i as u64 * 10 + 1),
            base_offset: Offset(i as u64 * 10),
            generation: 0,
            sealed: false,
            compacted: false,
            created_ms: *created_ms,
            rows: SegmentRows::from(vec![Row {
                index: EntryIndex(i as u64 * 10 + 1),
                term: LeaderEpoch(1),
                kind: EntryKind::Data,
                flags: 0,
                base_offset: Offset(i as u64 * 10),
                count: 10,
                max_ts: *max_ts,
                pos: 0,
                len: 100,
                ext_pos: 0,
                ext_len: 0,
            }]),
        };
        times.iter().enumerate().map(segment).collect()
    }

    #[track_caller]
    fn check(times: &[(i64, i64)], ms: Option<u64>, bytes: Option<u64>, want: Option<u64>) {
        let got = choose(&segments(times), Offset(1_000), Retention { ms, bytes }, 10_000);
        assert_eq!(got, want.map(Offset));
    }

    #[test]
    fn old_segments_go_and_the_newest_when_all_of_it_is_old() {
        let times = [(1_000, 0), (2_000, 1_500), (9_000, 2_500)];
        check(&times, Some(8_500), None, Some(10));
        check(&times, Some(1_000), None, Some(20));
        check(&times, Some(999), None, Some(30));
        check(&times, Some(0), None, Some(30));
        check(&times, Some(9_500), None, None);
        check(&times, None, None, None);
        check(&[], Some(0), Some(0), None);
        // An old one behind a young one stays: a log has no holes.
        check(&[(9_900, 0), (10, 9_950), (9_990, 9_960)], Some(1_000), None, None);
    }

    #[test]
    fn a_record_from_the_future_pins_nothing() {
        check(&[(i64::MAX, 0), (2_000, 1_500), (9_000, 2_500)], Some(8_000), None, Some(10));
        // The newest one was not rolled yet: its own word counts.
        check(&[(1_000, 0), (i64::MAX, 1_500)], Some(1), None, Some(10));
    }

    /// Found by the rig (S13): a table made again began at time 0, and everything before it went.
    /// A machine without a clock of its own starts in the past, and rolls a segment before it is told the time.
    #[test]
    fn a_clock_that_was_put_back_makes_nothing_old() {
        let now = 10_000;
        let whole = [(now - 30, now - 200), (now - 20, now - 150), (now - 10, 7)];
        check(&whole, Some(100), None, Some(10));
        let back = [(now - 30, now - 90), (now - 20, 7), (now - 10, 8)];
        check(&back, Some(100), None, None);
    }

    #[test]
    fn a_time_that_nobody_knows_makes_nothing_old() {
        check(&[(9_000, 0), (9_100, 0), (9_200, 0)], Some(5_000), None, None);
        check(&[(-1, 0), (9_100, 9_050), (9_200, 9_150)], Some(5_000), None, None);
        check(&[(-1, 0), (9_100, 0), (9_200, 0)], Some(5_000), None, None);
        check(&[(-1, 0), (-1, 0), (9_200, 4_000)], Some(5_000), None, Some(20));
    }

    #[test]
    fn size_keeps_at_least_the_limit() {
        let times = [(1, 0), (2, 1), (3, 2), (4, 3)];
        check(&times, None, Some(400), None);
        check(&times, None, Some(300), Some(10));
        check(&times, None, Some(250), Some(10));
        check(&times, None, Some(0), Some(40));
    }

    #[test]
    fn nothing_uncommitted_goes() {
        let all = segments(&[(1, 0), (2, 1), (3, 2)]);
        assert_eq!(choose(&all, Offset(15), Retention { ms: Some(0), bytes: None }, 10_000), Some(Offset(10)));
        assert_eq!(choose(&all, Offset(29), Retention { ms: Some(0), bytes: None }, 10_000), Some(Offset(20)));
        assert_eq!(choose(&all, Offset(5), Retention { ms: Some(0), bytes: None }, 10_000), None);
    }
}
