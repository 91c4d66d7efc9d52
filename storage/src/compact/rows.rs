//! Pure. The rows of a segment that compaction writes: what stays gets a new place, what went becomes part of a gap.
//!
//! A gap row covers a run of indexes of one term: `len` counts its indexes, below 2^31, `count` its offsets, below 2^32 (a
//! longer run is split). In a group of several members a row covers one index: whoever is behind gets it as an entry, with
//! the offsets that it took. So indexes and offsets stay dense, and every look-up finds the row that covers it. Membership, log start
//! and other internal entries are never folded: whoever replays rows must see them.

use crate::entry::{EntryKind, Row};
use catchwater_record::EntryIndex;

/// Indexes a row covers.
pub fn span(row: &Row) -> u64 {
    if row.kind == EntryKind::Gap { u64::from(row.len.max(1)) } else { 1 }
}

/// Last index a row covers.
pub fn last_index(row: &Row) -> EntryIndex {
    EntryIndex(row.index.0 + span(row) - 1)
}

/// May an entry of this kind vanish? Data only if its batch went; the caller says so.
pub fn folds(kind: EntryKind) -> bool {
    matches!(kind, EntryKind::Data | EntryKind::Noop | EntryKind::Gap)
}

/// Collects rows in order.
#[derive(Clone, Debug, Default)]
pub struct Folding {
    rows: Vec<Row>,
    max_ts: i64,
    min_ts: i64,
    log_len: u32,
    ext_len: u32,
    /// One row for each index that went.
    singly: bool,
}

impl Folding {
    pub fn new() -> Self {
        Folding { rows: Vec::new(), max_ts: -1, min_ts: i64::MAX, log_len: 0, ext_len: 0, singly: false }
    }
    /// What went stays apart, so that each can still be sent.
    pub fn singly() -> Self {
        Folding { singly: true, ..Folding::new() }
    }

    /// An entry that stays, with `body` bytes in `.log`, `ext` bytes in `.ext` and its batch's largest timestamp.
    pub fn keep(&mut self, row: &Row, body: u32, ext: u16, max_ts: i64) {
        assert!(self.rows.last().is_none_or(|r| last_index(r).next() == row.index), "indexes stay dense");
        if row.kind == EntryKind::Data {
            self.max_ts = self.max_ts.max(max_ts);
            self.min_ts = self.min_ts.min(max_ts);
        }
        self.rows.push(Row {
            max_ts: self.max_ts,
            pos: self.log_len,
            len: body,
            ext_pos: self.ext_len,
            ext_len: ext,
            ..*row
        });
        self.log_len += body;
        self.ext_len += u32::from(ext);
    }

    /// An entry (or a gap) that goes.
    pub fn fold(&mut self, row: &Row) {
        debug_assert!(folds(row.kind));
        let indexes = span(row) as u32;
        if !self.singly
            && let Some(last) = self.rows.last_mut()
            && last.kind == EntryKind::Gap
            && last.term == row.term
            && let (Some(len), Some(count)) = (last.len.checked_add(indexes), last.count.checked_add(row.count))
            && len <= u32::MAX >> 1
        {
            assert_eq!(last_index(last).next(), row.index, "indexes stay dense");
            (last.len, last.count) = (len, count);
            return;
        }
        assert!(self.rows.last().is_none_or(|r| last_index(r).next() == row.index), "indexes stay dense");
        self.rows.push(Row {
            index: row.index,
            term: row.term,
            kind: EntryKind::Gap,
            flags: 0,
            base_offset: row.base_offset,
            count: row.count,
            max_ts: self.max_ts,
            pos: self.log_len,
            len: indexes,
            ext_pos: self.ext_len,
            ext_len: 0,
        });
    }

    pub fn rows(&self) -> &[Row] {
        &self.rows
    }
    pub fn into_rows(self) -> Vec<Row> {
        self.rows
    }
    pub fn log_len(&self) -> u32 {
        self.log_len
    }
    pub fn ext_len(&self) -> u32 {
        self.ext_len
    }
    pub fn max_ts(&self) -> i64 {
        self.max_ts
    }
    /// Smallest largest timestamp of a batch; -1 = none.
    pub fn min_ts(&self) -> i64 {
        if self.min_ts == i64::MAX { -1 } else { self.min_ts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use catchwater_record::{LeaderEpoch, Offset};
    use proptest::prelude::*;

    proptest! {
        /// Any run of entries folds into rows that cover the same indexes and offsets, term by term, and what is not
        /// foldable stays.
        #[test]
        fn nothing_is_lost_by_folding(
            entries in proptest::collection::vec((0u32..3, 0u8..6, any::<bool>(), prop_oneof![1u32..4, Just(u32::MAX / 2)]), 1..60)
        ) {
            let (mut folding, mut index, mut offset, mut term) = (Folding::new(), 7u64, 100u64, 1u32);
            let mut model: Vec<(u64, u32, Option<EntryKind>)> = Vec::new();
            let (mut first, mut ends) = (None, Vec::new());
            for (rise, kind, stays, count) in entries {
                term += u32::from(rise == 2);
                let kind = [EntryKind::Data, EntryKind::Data, EntryKind::Noop, EntryKind::Conf, EntryKind::LogStart, EntryKind::Ctl][kind as usize];
                let count = if kind == EntryKind::Data { count } else { 0 };
                let row = Row {
                    index: EntryIndex(index), term: LeaderEpoch(term), kind, flags: 0, base_offset: Offset(offset), count,
                    max_ts: -1, pos: 0, len: 10, ext_pos: 0, ext_len: 0,
                };
                first.get_or_insert(row.index);
                let keeps = !folds(kind) || (stays && kind == EntryKind::Data);
                if keeps { folding.keep(&row, 10, 0, 5) } else { folding.fold(&row) }
                model.push((index, term, keeps.then_some(kind)));
                index += 1;
                offset += u64::from(count);
                ends.push((row.index, offset));
            }
            let rows = folding.into_rows();
            let (mut at, mut next_offset) = (first.map_or(0, |i| i.0), 100u64);
            for row in &rows {
                prop_assert_eq!(row.index.0, at);
                prop_assert_eq!(row.base_offset.0, next_offset);
                for i in 0..span(row) {
                    let (index, term, kept) = model[(at + i - 7) as usize];
                    prop_assert_eq!((index, term), (at + i, row.term.0));
                    prop_assert_eq!(kept, (row.kind != EntryKind::Gap).then_some(row.kind));
                }
                at += span(row);
                next_offset += u64::from(row.count);
                prop_assert!(ends.contains(&(last_index(row), next_offset)));
            }
            prop_assert_eq!((at, next_offset), (index, offset));
        }
    }
}
