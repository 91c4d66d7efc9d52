//! Pure. What memory keeps of the rows of one segment: of the old ones a fence in [`STEP`], of the newest ones all.
//!
//! Walk: produce-fetch 12/14
//!
//! ```text
//!  row 0                                  fenced                    len
//!  | fence . . . | fence . . . | fence . . | row row row row row row |      . = only in `.ent`
//! ```
//! A fence is 40 bytes, a row 48: a log of 1 KiB batches costs 0.6 MB of memory a GiB, with all rows it was 48. Whoever
//! looks for something in the fenced part is told where to begin, and `read.rs` goes on in the file.
//!
//! Invariants: only rows that are committed and durable are fenced, so no cut ever reaches them; the last row of the fenced
//! part is known whole (where the log ends, what the commit index stands at); a term begins at a fence.

use crate::compact::rows::last_index;
use crate::entry::{EntryKind, Row};
use catchwater_record::{EntryIndex, Offset};

/// Rows from one fence to the next, at most. A look-up reads so many from the file: 3 KiB.
pub const STEP: usize = if cfg!(any(test, sim)) { 3 } else { 64 };
/// The newest rows of a segment that stay whole, at least.
pub const KEEP: usize = if cfg!(any(test, sim)) { 2 } else { 64 };

/// One row of the fenced part, as much of it as look-ups need.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fence {
    /// Its number in the table.
    pub row: u32,
    pub term: u32,
    pub index: EntryIndex,
    pub base_offset: Offset,
    /// Running maximum of the segment up to this row, ms.
    pub max_ts: i64,
    /// Bytes of `.log` before its batch.
    pub pos: u32,
}

/// The fenced part.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Old {
    fences: Vec<Fence>,
    rows: u32,
    first: Row,
    last: Row,
    sums: Sums,
}

/// What is asked of all rows together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Sums {
    /// Largest timestamp of the first batch.
    first_ms: Option<i64>,
    /// The largest of all, and the first batch that has it.
    newest: Option<(i64, Offset)>,
    /// Of the last batch: offset and byte behind it.
    data_end: Option<(Offset, u64)>,
}

impl Sums {
    fn add(&mut self, row: &Row) {
        if row.kind == EntryKind::Data {
            self.first_ms = self.first_ms.or(Some(row.max_ts));
            self.data_end = Some((end_offset(row), u64::from(row.pos) + u64::from(row.len)));
        }
        if self.newest.is_none_or(|(ms, _)| ms < row.max_ts) {
            self.newest = Some((row.max_ts, row.base_offset));
        }
    }
}

/// See the file head.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SegmentRows {
    old: Option<Box<Old>>,
    tail: Vec<Row>,
}

/// First offset behind a row.
pub fn end_offset(row: &Row) -> Offset {
    row.base_offset.plus(u64::from(row.count))
}

impl From<Vec<Row>> for SegmentRows {
    fn from(tail: Vec<Row>) -> Self {
        SegmentRows { old: None, tail }
    }
}

impl SegmentRows {
    pub fn len(&self) -> usize {
        self.fenced() as usize + self.tail.len()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    pub fn first(&self) -> Option<&Row> {
        self.old.as_ref().map(|o| &o.first).or(self.tail.first())
    }
    pub fn last(&self) -> Option<&Row> {
        self.tail.last().or(self.old.as_ref().map(|o| &o.last))
    }
    /// Rows of the fenced part.
    pub fn fenced(&self) -> u32 {
        self.old.as_ref().map_or(0, |o| o.rows)
    }
    /// The last row of the fenced part.
    pub fn fenced_last(&self) -> Option<&Row> {
        self.old.as_ref().map(|o| &o.last)
    }
    pub fn fences(&self) -> &[Fence] {
        self.old.as_ref().map_or(&[], |o| &o.fences)
    }
    /// The rows behind the fenced part.
    pub fn tail(&self) -> &[Row] {
        &self.tail
    }
    /// All rows: of what recovery was asked to keep whole, and of what was just written. Panics if some are fenced.
    pub fn whole(&self) -> &[Row] {
        assert!(self.old.is_none(), "rows that only the file has");
        &self.tail
    }

    /// Largest timestamp of the first batch, ms.
    pub fn first_ms(&self) -> Option<i64> {
        let tail = || self.tail.iter().find(|r| r.kind == EntryKind::Data).map(|r| r.max_ts);
        self.old.as_ref().and_then(|o| o.sums.first_ms).or_else(tail)
    }
    /// Bytes of `.log` up to the end of the last batch.
    pub fn log_bytes(&self) -> u64 {
        self.data_end().map_or(0, |(_, bytes)| bytes)
    }
    /// The last batch ends at this offset, and at this byte of `.log`. `None` = there is none.
    pub fn data_end(&self) -> Option<(Offset, u64)> {
        let tail = self.tail.iter().rev().find(|r| r.kind == EntryKind::Data);
        tail.map(|r| (end_offset(r), u64::from(r.pos) + u64::from(r.len))).or(self.fenced_data_end())
    }
    /// The same of the fenced part.
    pub fn fenced_data_end(&self) -> Option<(Offset, u64)> {
        self.old.as_ref().and_then(|o| o.sums.data_end)
    }
    /// The largest timestamp, ms, and the offset of the first row that has reached it.
    pub fn newest(&self) -> Option<(i64, Offset)> {
        let old = self.old.as_ref().and_then(|o| o.sums.newest);
        let Some(ms) = self.tail.last().map(|r| r.max_ts) else { return old };
        if old.is_some_and(|(known, _)| known >= ms) {
            return old;
        }
        let reached = self.tail.partition_point(|r| r.max_ts < ms);
        self.tail.get(reached).map(|r| (ms, r.base_offset))
    }

    pub fn push(&mut self, row: Row) {
        self.tail.push(row);
    }

    /// Drops rows at and behind `from`. Panics if one of them is fenced: it is committed.
    pub fn truncate(&mut self, from: EntryIndex) {
        assert!(self.fenced_last().is_none_or(|r| last_index(r) < from), "a cut never reaches what is committed");
        let keep = self.tail.partition_point(|r| r.index < from);
        self.tail.truncate(keep);
    }

    /// Rows up to `upto` may be fenced; at least `keep` stay whole.
    pub fn fence(&mut self, upto: EntryIndex, keep: usize) {
        let may = self.tail.partition_point(|r| last_index(r) <= upto).min(self.tail.len().saturating_sub(keep));
        // Some at a time, so that moving up the others costs little.
        if may == 0 || (keep > 0 && may < STEP) {
            return;
        }
        for row in self.tail.drain(..may) {
            match &mut self.old {
                Some(old) => old.push(&row),
                None => self.old = Some(Box::new(Old::new(&row))),
            }
        }
        if self.tail.is_empty() {
            self.tail = Vec::new();
            if let Some(old) = &mut self.old {
                old.fences.shrink_to_fit();
            }
        }
    }

    /// The row that covers `at`, if memory has it.
    pub fn row(&self, at: EntryIndex) -> Option<&Row> {
        let place = self.tail.partition_point(|r| r.index <= at).checked_sub(1);
        let row = place.and_then(|p| self.tail.get(p)).or(self.fenced_last().filter(|_| place.is_none()));
        row.filter(|r| r.index <= at && at <= last_index(r))
    }

    /// The last fence at or before the row that `before` ends at: `before` says of a fence that what is looked for does not
    /// lie before it.
    pub fn fence_before(&self, before: impl Fn(&Fence) -> bool) -> Option<usize> {
        let fences = self.fences();
        (!fences.is_empty()).then(|| fences.partition_point(before).saturating_sub(1))
    }
}

impl Old {
    fn new(first: &Row) -> Self {
        let mut old = Old { fences: Vec::new(), rows: 0, first: *first, last: *first, sums: Sums::default() };
        old.push(first);
        old
    }

    fn push(&mut self, row: &Row) {
        let due = self.fences.last().is_none_or(|f| self.rows - f.row >= STEP as u32 || f.term < row.term.0);
        if due {
            self.fences.push(Fence {
                row: self.rows,
                term: row.term.0,
                index: row.index,
                base_offset: row.base_offset,
                max_ts: row.max_ts,
                pos: row.pos,
            });
        }
        self.rows += 1;
        self.last = *row;
        self.sums.add(row);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use catchwater_base::Rng;
    use catchwater_record::LeaderEpoch;

    fn rows(seed: u64) -> Vec<Row> {
        let mut rng = Rng::new(seed);
        let (mut index, mut offset, mut pos, mut term, mut max_ts) = (1, 0, 0, 1, -1);
        let mut out = Vec::new();
        for _ in 0..rng.between(1, 30) {
            let kind = [EntryKind::Data, EntryKind::Data, EntryKind::Noop, EntryKind::Gap][rng.below(4) as usize];
            term += u32::from(rng.below(8) == 0);
            let (count, len) = match kind {
                EntryKind::Data => (rng.between(1, 5) as u32, rng.between(70, 200) as u32),
                EntryKind::Gap => (rng.below(9) as u32, rng.between(1, 6) as u32),
                _ => (0, 0),
            };
            if kind == EntryKind::Data {
                max_ts = max_ts.max(rng.below(50) as i64);
            }
            out.push(Row {
                index: EntryIndex(index),
                term: LeaderEpoch(term),
                kind,
                flags: 0,
                base_offset: Offset(offset),
                count,
                max_ts,
                pos,
                len,
                ext_pos: 0,
                ext_len: 0,
            });
            (index, offset) = (last_index(out.last().unwrap()).0 + 1, offset + u64::from(count));
            pos += if kind == EntryKind::Data { len } else { 0 };
        }
        out
    }

    #[test]
    fn what_is_asked_of_all_rows_does_not_depend_on_how_many_are_fenced() {
        for seed in 0..500 {
            let all = rows(seed);
            let whole = SegmentRows::from(all.clone());
            let told = |r: &SegmentRows| {
                (r.len(), r.first().copied(), r.last().copied(), r.first_ms(), r.data_end(), r.newest())
            };
            let mut fenced = SegmentRows::default();
            for row in &all {
                fenced.push(*row);
                // As it grows, and once more all of it.
                fenced.fence(EntryIndex(row.index.0 / 2), KEEP);
            }
            assert_eq!(told(&fenced), told(&whole), "seed {seed}");
            fenced.fence(last_index(all.last().unwrap()), 0);
            assert_eq!((told(&fenced), fenced.tail().len()), (told(&whole), 0), "seed {seed}");
            let fences = fenced.fences();
            assert!(fences.windows(2).all(|w| w[1].row - w[0].row <= STEP as u32), "seed {seed}");
            for (number, row) in all.iter().enumerate() {
                let last = fences.iter().rposition(|f| f.row as usize <= number).unwrap();
                let fence = fences[last];
                assert_eq!((fence.term, fence.index <= row.index), (row.term.0, true), "a term begins at a fence");
                let of = &all[fence.row as usize];
                assert_eq!(
                    (fence.index, fence.base_offset, fence.pos, fence.max_ts),
                    (of.index, of.base_offset, of.pos, of.max_ts)
                );
            }
        }
    }

    #[test]
    #[should_panic(expected = "a cut never reaches what is committed")]
    fn a_cut_never_reaches_a_fenced_row() {
        let mut rows = SegmentRows::from(rows(3));
        rows.fence(EntryIndex(4), 0);
        let last = last_index(rows.fenced_last().unwrap());
        rows.truncate(last);
    }

    #[test]
    fn a_run_is_fenced_when_all_of_it_may_be_and_covers_its_own_indexes() {
        let run = rows(3)
            .into_iter()
            .map(|r| Row { kind: EntryKind::Gap, index: EntryIndex(1), len: 5, ..r })
            .next()
            .unwrap();
        let mut one = SegmentRows::from(vec![run]);
        one.fence(EntryIndex(4), 0);
        for fenced in [0, 1] {
            assert_eq!(one.fenced(), fenced);
            let covers = |at: u64| one.row(EntryIndex(at)).is_some();
            assert_eq!([0, 1, 5, 6].map(covers), [false, true, true, false], "{fenced} fenced");
            one.fence(EntryIndex(5), 0);
        }
    }
}
