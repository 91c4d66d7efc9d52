//! Pure. The rows of one replica: those in segment files and those behind them that only the journal holds so far.
//!
//! Walk: row-change 12/17
//! Walk: produce-fetch 12/14
//!
//! ```text
//!  first_index                                    placed end                last_index
//!  | segment | segment | … | active segment ......| rows without a place ...|
//! ```
//! Invariants: indexes are dense (a gap row covers its run), terms never fall, offsets are dense.

use crate::compact::rows::{last_index, span};
use crate::entry::{EntryKind, FileRange, PlacedRow, Row, SegmentInfo};
use catchwater_record::{EntryIndex, Gid, LeaderEpoch, Offset};
use std::collections::VecDeque;

#[derive(Clone, Debug)]
pub struct Table {
    first_index: EntryIndex,
    /// Offset of the first index: where a log without rows ends.
    empty_end: Offset,
    segments: Vec<SegmentInfo>,
    behind: VecDeque<Row>,
}

fn end_offset(row: &Row) -> Offset {
    row.base_offset.plus(u64::from(row.count))
}

impl Table {
    pub fn new(first_index: EntryIndex, empty_end: Offset, mut segments: Vec<SegmentInfo>) -> Self {
        segments.retain(|s| !s.rows.is_empty());
        Table { first_index, empty_end, segments, behind: VecDeque::new() }
    }

    pub fn first_index(&self) -> EntryIndex {
        self.first_index
    }
    pub fn last(&self) -> Option<&Row> {
        self.behind.back().or_else(|| self.segments.last().and_then(|s| s.rows.last()))
    }
    pub fn last_index(&self) -> EntryIndex {
        self.last().map_or(self.first_index.prev(), |r| EntryIndex(r.index.0 + span(r) - 1))
    }
    /// Offset of the first row.
    pub fn first_offset(&self) -> Offset {
        let first = self.segments.first().and_then(|s| s.rows.first()).or(self.behind.front());
        first.map_or(self.empty_end, |r| r.base_offset)
    }
    /// First offset after the last row.
    pub fn next_offset(&self) -> Offset {
        self.last().map_or(self.empty_end, end_offset)
    }
    /// Last index that has a place in a segment.
    pub fn placed_end(&self) -> EntryIndex {
        let last = self.segments.last().and_then(|s| s.rows.last());
        last.map_or(self.first_index.prev(), |r| EntryIndex(r.index.0 + span(r) - 1))
    }
    pub fn segments(&self) -> &[SegmentInfo] {
        &self.segments
    }

    pub fn push(&mut self, row: Row) {
        assert_eq!(row.index, self.last_index().next(), "rows are dense");
        assert_eq!(row.base_offset, self.next_offset(), "offsets are dense");
        if let Some(last) = self.last() {
            assert!(last.term <= row.term, "terms never fall");
        }
        self.behind.push_back(row);
    }

    /// The row that covers `at`.
    pub fn row(&self, at: EntryIndex) -> Option<&Row> {
        if at < self.first_index {
            return None;
        }
        if let Some(front) = self.behind.front()
            && at >= front.index
        {
            // Rows without a place are never folded: one index each.
            return self.behind.get((at.0 - front.index.0) as usize);
        }
        let segment = self.segments.get(self.segments.partition_point(|s| s.base_index <= at).checked_sub(1)?)?;
        let row = segment.rows.get(segment.rows.partition_point(|r| r.index <= at).checked_sub(1)?)?;
        (at.0 < row.index.0 + span(row)).then_some(row)
    }

    /// The first row that ends behind `offset`: the batch that holds it, or in a compacted log the next one.
    pub fn row_at(&self, offset: Offset) -> Option<&Row> {
        if let Some(front) = self.behind.front()
            && offset >= front.base_offset
        {
            return self.behind.get(self.behind.partition_point(|r| end_offset(r) <= offset));
        }
        let from = self.segments.partition_point(|s| s.base_offset <= offset).saturating_sub(1);
        for segment in self.segments.iter().skip(from) {
            if let Some(row) = segment.rows.get(segment.rows.partition_point(|r| end_offset(r) <= offset)) {
                return Some(row);
            }
        }
        self.behind.get(self.behind.partition_point(|r| end_offset(r) <= offset))
    }

    /// Rows from `from` on, ascending.
    pub fn rows_from(&self, from: EntryIndex) -> impl Iterator<Item = &Row> {
        let segment = self.segments.partition_point(|s| s.base_index <= from).saturating_sub(1);
        let placed = self.segments.iter().skip(segment).flat_map(move |s| {
            let skip = s.rows.partition_point(|r| r.index.0 + span(r) <= from.0);
            s.rows.iter().skip(skip)
        });
        let skip = self.behind.partition_point(|r| r.index < from);
        placed.chain(self.behind.iter().skip(skip))
    }

    /// Drops every row at or behind `from`.
    pub fn truncate(&mut self, from: EntryIndex) {
        assert!(from >= self.first_index, "a cut below the first index");
        while self.behind.back().is_some_and(|r| r.index >= from) {
            self.behind.pop_back();
        }
        if !self.behind.is_empty() {
            return;
        }
        while let Some(last) = self.segments.last_mut() {
            if last.rows.last().is_none_or(|r| r.index.0 + span(r) <= from.0) && !last.rows.is_empty() {
                return;
            }
            assert!(!last.sealed, "a sealed segment is never cut");
            let keep = last.rows.partition_point(|r| r.index < from);
            last.rows.truncate(keep);
            if !last.rows.is_empty() {
                return;
            }
            self.segments.pop();
        }
    }

    /// Lets go of leading segments that end at or below `log_start`, never of the last one, and of none with an entry above
    /// `applied`: entries without offsets may follow the last record there, and are still to be committed and applied. Gives
    /// the last index that went and its term.
    pub fn trim(&mut self, log_start: Offset, applied: EntryIndex) -> Option<(EntryIndex, LeaderEpoch)> {
        let below =
            |s: &SegmentInfo| s.rows.last().is_some_and(|r| end_offset(r) <= log_start && last_index(r) <= applied);
        let gone = self.segments.iter().take(self.segments.len().saturating_sub(1)).take_while(|s| below(s)).count();
        let last = self.segments.drain(..gone).next_back().and_then(|s| s.rows.last().copied())?;
        let index = EntryIndex(last.index.0 + span(&last) - 1);
        self.first_index = index.next();
        self.empty_end = end_offset(&last);
        Some((index, last.term))
    }

    /// First offset behind the last batch of a range that was planned here.
    pub fn end_of(&self, range: &FileRange) -> Option<Offset> {
        let same = |s: &&SegmentInfo| (s.base_offset, s.generation) == (range.base_offset, range.generation);
        let segment = self.segments.iter().find(same)?;
        let end = u64::from(range.pos) + u64::from(range.len);
        let behind = segment.rows.partition_point(|r| u64::from(r.pos) < end);
        let last = segment.rows.get(..behind)?.iter().rev().find(|r| r.kind == EntryKind::Data)?;
        Some(last.base_offset.plus(u64::from(last.count)))
    }

    /// A compacted segment takes the place of those it was made from. Leading ones may have been trimmed since it was put in
    /// force: the files have it whole, so the log begins where it does again, and true is said. If all were trimmed, its
    /// files go too.
    pub fn replace(&mut self, new: SegmentInfo) -> bool {
        let Some(end) = new.rows.last().map(last_index) else { return false };
        let inside =
            |s: &SegmentInfo| s.base_index >= new.base_index && s.rows.last().is_some_and(|r| last_index(r) <= end);
        let Some(at) = self.segments.iter().position(inside) else { return false };
        let count = self.segments[at..].iter().take_while(|s| inside(s)).count();
        let old = &self.segments[at..at + count];
        let covered = old.last().and_then(|s| s.rows.last()).map(last_index);
        let first = old.first().map_or(EntryIndex::ZERO, |s| s.base_index);
        let trimmed = at == 0 && first == self.first_index && new.base_index < first;
        if covered != Some(end) || (first != new.base_index && !trimmed) {
            return false;
        }
        if trimmed {
            self.first_index = new.base_index;
        }
        self.segments.splice(at..at + count, [new]);
        trimmed
    }

    /// Takes over the places of rows. One that is not the next without a place, by index and term, was cut meanwhile.
    pub fn place(&mut self, placed: &[PlacedRow]) {
        for p in placed {
            let Some(front) = self.behind.front() else { return };
            if front.index != p.row.index || front.term != p.row.term {
                continue;
            }
            assert_eq!((front.base_offset, front.count), (p.row.base_offset, p.row.count), "a row keeps its offsets");
            self.behind.pop_front();
            let new =
                self.segments.last().is_none_or(|s| s.base_index != p.base_index || s.base_offset != p.base_offset);
            if new {
                self.segments.push(SegmentInfo {
                    base_index: p.base_index,
                    base_offset: p.base_offset,
                    generation: p.generation,
                    sealed: false,
                    compacted: false,
                    created_ms: p.created_ms,
                    rows: Vec::new(),
                });
            }
            if let Some(last) = self.segments.last_mut() {
                last.rows.push(p.row);
            }
        }
    }

    /// Whole batches from the row at `from` on, below `upto`, as few ranges as possible. At least one batch.
    pub fn file_ranges(&self, gid: Gid, from: EntryIndex, upto: Offset, max_bytes: u64) -> Vec<FileRange> {
        let mut out: Vec<FileRange> = Vec::new();
        let mut bytes = 0u64;
        let start = self.segments.partition_point(|s| s.base_index <= from).saturating_sub(1);
        'all: for segment in self.segments.iter().skip(start) {
            let skip = segment.rows.partition_point(|r| r.index < from);
            for row in segment.rows.iter().skip(skip).filter(|r| r.kind == EntryKind::Data) {
                let first = out.is_empty();
                if row.base_offset >= upto || (!first && bytes + u64::from(row.len) > max_bytes) {
                    break 'all;
                }
                bytes += u64::from(row.len);
                match out.last_mut() {
                    Some(r)
                        if r.base_offset == segment.base_offset
                            && r.generation == segment.generation
                            && u64::from(r.pos) + u64::from(r.len) == u64::from(row.pos)
                            && r.len.checked_add(row.len).is_some() =>
                    {
                        r.len += row.len;
                    }
                    _ => out.push(FileRange {
                        gid,
                        base_offset: segment.base_offset,
                        generation: segment.generation,
                        pos: row.pos,
                        len: row.len,
                    }),
                }
            }
        }
        out
    }

    /// The first batch whose own largest timestamp reaches `ms`. Inside a segment rows carry the running maximum.
    pub fn find_time(&self, ms: i64, log_start: Offset) -> Option<&Row> {
        for segment in &self.segments {
            if segment.rows.last().is_none_or(|r| r.max_ts < ms || end_offset(r) <= log_start) {
                continue;
            }
            let mut at = segment.rows.partition_point(|r| r.max_ts < ms);
            // The running maximum may have been raised below the log start: from there on each batch is a candidate.
            at = at.max(segment.rows.partition_point(|r| end_offset(r) <= log_start));
            if let Some(row) = segment.rows.iter().skip(at).find(|r| r.kind == EntryKind::Data) {
                return Some(row);
            }
        }
        self.behind.iter().find(|r| r.kind == EntryKind::Data && r.max_ts >= ms && end_offset(r) > log_start)
    }

    /// Where the largest timestamp at or behind `log_start` is. A row of a segment says the largest so far, so what the
    /// rows behind a log start in the middle of a segment have themselves is not known where it was reached before.
    pub fn max_time(&self, log_start: Offset) -> MaxTime {
        let mut out = MaxTime::default();
        let mut known = |ms: i64, base: Offset| {
            if ms >= 0 && out.known.is_none_or(|(best, _)| best < ms) {
                out.known = Some((ms, base));
            }
        };
        for segment in &self.segments {
            let Some(last) = segment.rows.last().filter(|r| end_offset(r) > log_start) else { continue };
            let reached = segment.rows.partition_point(|r| r.max_ts < last.max_ts);
            match segment.rows.get(reached) {
                Some(row) if row.base_offset >= log_start => known(last.max_ts, row.base_offset),
                _ => out.look = Some(Unknown { from: log_start, upto: end_offset(last), at_most: last.max_ts }),
            }
        }
        for row in self.behind.iter().filter(|r| r.kind == EntryKind::Data && end_offset(r) > log_start) {
            if row.base_offset >= log_start {
                known(row.max_ts, row.base_offset);
            } else {
                out.look = Some(Unknown { from: log_start, upto: end_offset(row), at_most: row.max_ts });
            }
        }
        let better = |look: &Unknown| out.known.is_none_or(|(ms, _)| ms <= look.at_most);
        out.look = out.look.filter(better);
        out
    }
}

/// What the rows say of the largest timestamp of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaxTime {
    /// The largest of those batches whose own is known, and the base offset of the first that has it.
    pub known: Option<(i64, Offset)>,
    /// Records before all of those that must be looked at, because one of them may have a larger or equal one.
    pub look: Option<Unknown>,
}

/// Offsets whose timestamps no row tells, and the largest that they can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown {
    pub from: Offset,
    pub upto: Offset,
    pub at_most: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(first: u64, count: u64, generation: u32) -> SegmentInfo {
        let row = |i: u64| Row {
            index: EntryIndex(i),
            term: LeaderEpoch(1),
            kind: EntryKind::Data,
            flags: 0,
            base_offset: Offset(i - 1),
            count: 1,
            max_ts: 0,
            pos: 100 * (i - first) as u32,
            len: 100,
            ext_pos: 0,
            ext_len: 0,
        };
        SegmentInfo {
            base_index: EntryIndex(first),
            base_offset: Offset(first - 1),
            generation,
            sealed: true,
            compacted: generation > 0,
            created_ms: 0,
            rows: (first..first + count).map(row).collect(),
        }
    }

    /// The two old files go once the new one is in force: a table that still names them could not be read any more.
    #[test]
    fn a_compacted_segment_is_taken_though_the_log_start_has_moved_into_it() {
        let old = vec![segment(1, 10, 0), segment(11, 10, 0), segment(21, 10, 0), segment(31, 5, 0)];
        let mut table = Table::new(EntryIndex(1), Offset(0), old);
        assert_eq!(table.trim(Offset(20), EntryIndex(35)), Some((EntryIndex(20), LeaderEpoch(1))));
        // It was made from the second and the third, and the second is trimmed.
        assert!(table.replace(segment(11, 20, 1)));
        assert_eq!((table.first_index(), table.first_offset()), (EntryIndex(11), Offset(10)));
        let ranges = table.file_ranges(Gid(1), EntryIndex(21), Offset(30), 1 << 20);
        assert_eq!(
            ranges.iter().map(|r| (r.base_offset, r.generation, r.pos)).collect::<Vec<_>>(),
            [(Offset(10), 1, 1000)]
        );
        // All of it was trimmed: nothing comes back.
        assert_eq!(table.trim(Offset(30), EntryIndex(35)), Some((EntryIndex(30), LeaderEpoch(1))));
        assert!(!table.replace(segment(11, 20, 2)));
        assert_eq!((table.first_index(), table.segments().len()), (EntryIndex(31), 1));
    }
}
