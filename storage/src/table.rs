//! Pure. The rows of one replica: those in segment files and those behind them that only the journal holds so far.
//!
//! Walk: row-change 12/17
//! Walk: produce-fetch 12/14
//!
//! ```text
//!  first_index                                    placed end                last_index
//!  | segment | segment | … | active segment ......| rows without a place ...|
//! ```
//! Invariants: indexes are dense (a gap row covers its run), terms never fall, offsets are dense. What is committed, durable
//! and not among the newest is fenced (`fences.rs`): its rows are in the file only, and look-ups say where to go on there.

use crate::compact::rows::{last_index, span};
use crate::entry::{EntryKind, FileRead, PlacedRow, Row, RowRead, SegmentInfo};
use crate::fences::{Fence, KEEP, SegmentRows, end_offset};
use catchwater_base::mutant;
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

    /// The row that covers `at`, if memory has it: of the fenced part only the last of each segment.
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
        self.segment(at)?.rows.row(at)
    }

    fn segment(&self, at: EntryIndex) -> Option<&SegmentInfo> {
        self.segments.get(self.segments.partition_point(|s| s.base_index <= at).checked_sub(1)?)
    }

    /// Offsets between which the entry at `at` has its own: exact if memory has its row, else from fence to fence.
    pub fn around(&self, at: EntryIndex) -> Option<(Offset, Offset)> {
        if let Some(row) = self.row(at) {
            return Some((row.base_offset, end_offset(row)));
        }
        let rows = &self.segment(at).filter(|_| at >= self.first_index)?.rows;
        let last = rows.fenced_last().filter(|r| at <= last_index(r))?;
        let fence = rows.fence_before(|f| f.index <= at)?;
        let next = rows.fences().get(fence + 1).map_or(end_offset(last), |f| f.base_offset);
        Some((rows.fences()[fence].base_offset, next))
    }

    /// The entry whose row ends first behind `offset`, if memory has that row.
    pub fn index_at(&self, offset: Offset) -> Option<EntryIndex> {
        let from = self.segments.partition_point(|s| s.base_offset <= offset).saturating_sub(1);
        let placed = self.segments.iter().skip(from).find(|s| s.rows.last().is_some_and(|r| end_offset(r) > offset));
        if let Some(segment) = placed {
            if segment.rows.fenced_last().is_some_and(|r| end_offset(r) > offset) {
                return None;
            }
            let tail = segment.rows.tail();
            return tail.get(tail.partition_point(|r| end_offset(r) <= offset)).map(|r| r.index);
        }
        self.behind.get(self.behind.partition_point(|r| end_offset(r) <= offset)).map(|r| r.index)
    }

    /// Rows from `from` on, ascending, but for fenced ones.
    pub fn rows_from(&self, from: EntryIndex) -> impl Iterator<Item = &Row> {
        let segment = self.segments.partition_point(|s| s.base_index <= from).saturating_sub(1);
        let placed = self.segments.iter().skip(segment).flat_map(move |s| {
            let tail = s.rows.tail();
            tail.get(tail.partition_point(|r| last_index(r) < from)..).unwrap_or(&[])
        });
        let skip = self.behind.partition_point(|r| r.index < from);
        placed.chain(self.behind.iter().skip(skip))
    }

    /// Term, index and offset of rows, ascending; of each term the first one is among them.
    pub fn terms(&self) -> impl Iterator<Item = (u32, EntryIndex, Offset)> {
        let of_row = |r: &Row| (r.term.0, r.index, r.base_offset);
        let placed = self.segments.iter().flat_map(move |s| {
            let fences = s.rows.fences().iter().map(|f| (f.term, f.index, f.base_offset));
            fences.chain(s.rows.tail().iter().map(of_row))
        });
        placed.chain(self.behind.iter().map(of_row))
    }

    /// Lets go of the rows up to `upto` that are not among the newest. All of them are committed and durable.
    pub fn fence(&mut self, upto: EntryIndex) {
        // Old ones have been through this.
        let count = self.segments.len();
        for (i, segment) in self.segments.iter_mut().enumerate().rev() {
            let before = segment.rows.tail().len();
            segment.rows.fence(upto, if i + 1 == count { KEEP } else { 0 });
            if i + 1 < count && before == 0 {
                break;
            }
        }
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
            if last.rows.last().is_some_and(|r| last_index(r) < from) {
                return;
            }
            assert!(!last.sealed, "a sealed segment is never cut");
            last.rows.truncate(from);
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
        if let Some(new) = self.segments.get_mut(at).filter(|s| s.sealed) {
            new.rows.fence(end, 0);
        }
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
                    rows: SegmentRows::default(),
                });
            }
            if let Some(last) = self.segments.last_mut() {
                last.rows.push(p.row);
            }
        }
    }

    /// Where files have the first batch that ends behind `from`, and what follows it in its segment, below `upto`. `None` =
    /// no file has one.
    pub fn file_read(&self, gid: Gid, from: Offset, upto: Offset, max_bytes: u32) -> Option<FileRead> {
        let first = self.segments.partition_point(|s| s.base_offset <= from).saturating_sub(1);
        let has = |s: &&SegmentInfo| s.rows.data_end().is_some_and(|(end, _)| end > from);
        let segment = self.segments.iter().skip(first).find(has)?;
        let rows = &segment.rows;
        let end = rows.last().map_or(segment.base_offset, end_offset);
        let mut read = FileRead {
            gid,
            base_index: segment.base_index,
            base_offset: segment.base_offset,
            generation: segment.generation,
            first: 0,
            rows: rows.len() as u32,
            from,
            upto,
            max_bytes,
            at_least_one: true,
            bytes: 0,
            end: from,
            more: end < upto && end < self.next_offset(),
        };
        if let Some((old_end, bytes)) = rows.fenced_data_end().filter(|(end, _)| *end > from) {
            let fences = rows.fences();
            let mut at = rows.fence_before(|f| f.base_offset <= from)?;
            if mutant!("fence_behind_what_is_sought") {
                at = (at + 1).min(fences.len() - 1);
            }
            if fences[at].base_offset >= upto {
                return None;
            }
            read.first = fences[at].row;
            // Nobody here knows where the first batch begins, but it ends at the next fence at the latest.
            let behind = |pos: u64| fences.iter().skip(at + 1).find(|f| u64::from(f.pos) >= pos);
            let next = behind(0).map_or(bytes, |f| u64::from(f.pos));
            read.bytes = (rows.log_bytes() - u64::from(fences[at].pos)).min(u64::from(max_bytes).max(1));
            read.end = behind(next + u64::from(max_bytes)).map_or(end.max(old_end), |f| f.base_offset).min(upto);
            return Some(read);
        }
        let tail = rows.tail();
        let ends_behind = tail.partition_point(|r| end_offset(r) <= from);
        let skip = tail.iter().skip(ends_behind).position(|r| r.kind == EntryKind::Data)? + ends_behind;
        read.first = rows.fenced() + skip as u32;
        read.rows = read.first;
        for (i, row) in tail.iter().enumerate().skip(skip).filter(|(_, r)| r.kind == EntryKind::Data) {
            let bytes = read.bytes + u64::from(row.len);
            if row.base_offset >= upto || (read.bytes > 0 && bytes > u64::from(max_bytes)) {
                break;
            }
            (read.bytes, read.end, read.rows) = (bytes, end_offset(row), rows.fenced() + i as u32 + 1);
        }
        (read.bytes > 0).then_some(read)
    }

    /// Where files have the rows from `from` on, below `below`: as many as one segment has from one fence to the next, or
    /// behind the last.
    pub fn row_read(&self, gid: Gid, from: EntryIndex, below: EntryIndex, max_bytes: u64) -> Option<RowRead> {
        let segment = self.segment(from).filter(|s| from >= self.first_index && !s.rows.is_empty())?;
        let rows = &segment.rows;
        let (first, end) = match rows.fenced_last().filter(|r| from <= last_index(r)) {
            Some(_) => {
                let at = rows.fence_before(|f| f.index <= from)?;
                (rows.fences()[at].row, rows.fences().get(at + 1).map_or(rows.fenced(), |f| f.row))
            }
            None => {
                let at = rows.tail().partition_point(|r| last_index(r) < from);
                rows.tail().get(at)?;
                (rows.fenced() + at as u32, rows.len() as u32)
            }
        };
        Some(RowRead {
            gid,
            base_index: segment.base_index,
            base_offset: segment.base_offset,
            generation: segment.generation,
            first,
            rows: end,
            from,
            below,
            max_bytes,
        })
    }

    /// Where to begin to look for the first record with a timestamp of `ms` or later: none before it, at or behind the log
    /// start, has one. The first batch that may, or a fence before it. `None` = no batch has.
    pub fn find_time(&self, ms: i64, log_start: Offset) -> Option<Offset> {
        for segment in &self.segments {
            let rows = &segment.rows;
            if rows.last().is_none_or(|r| r.max_ts < ms || end_offset(r) <= log_start) {
                continue;
            }
            let old = rows.fenced_last().filter(|r| r.max_ts >= ms && end_offset(r) > log_start);
            if old.is_some() {
                // The running maximum reaches it behind this fence; if it did below the log start, each batch may have it.
                let fence = rows.fence_before(|f: &Fence| f.max_ts < ms).and_then(|at| rows.fences().get(at));
                return Some(fence.map_or(segment.base_offset, |f| f.base_offset).max(log_start));
            }
            let tail = rows.tail();
            let mut at = tail.partition_point(|r| r.max_ts < ms);
            // The running maximum may have been raised below the log start: from there on each batch is a candidate.
            at = at.max(tail.partition_point(|r| end_offset(r) <= log_start));
            if let Some(row) = tail.iter().skip(at).find(|r| r.kind == EntryKind::Data) {
                return Some(row.base_offset.max(log_start));
            }
        }
        let behind =
            self.behind.iter().find(|r| r.kind == EntryKind::Data && r.max_ts >= ms && end_offset(r) > log_start);
        behind.map(|r| r.base_offset.max(log_start))
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
            match segment.rows.newest() {
                Some((ms, base)) if base >= log_start => known(ms, base),
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
    #![allow(clippy::unwrap_used)]

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
            rows: (first..first + count).map(row).collect::<Vec<_>>().into(),
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
        let read = table.file_read(Gid(1), Offset(20), Offset(30), 1 << 20).unwrap();
        assert_eq!((read.base_offset, read.generation, read.first <= 10), (Offset(10), 1, true));
        // All of it was trimmed: nothing comes back.
        assert_eq!(table.trim(Offset(30), EntryIndex(35)), Some((EntryIndex(30), LeaderEpoch(1))));
        assert!(!table.replace(segment(11, 20, 2)));
        assert_eq!((table.first_index(), table.segments().len()), (EntryIndex(31), 1));
    }
}
