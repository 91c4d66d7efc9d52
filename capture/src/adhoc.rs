//! Pure. Which rows of an ad hoc snapshot's chunk are stale (capture.md 7.4).
//!
//! A chunk is read in one view of the source and placed into the stream behind everything visible in that view. Rows of
//! keys that were emitted by transactions the view does not show are dropped: the log has newer values. LSN windows are
//! wrong: a commit is in the WAL, and streamed, before snapshots see it.
//!
//! Of a table in work each key emitted since the work began is known with its transaction; of the time before, the last
//! `RECENT_MAX` transactions of the whole source without their keys: a view that does not show one of those is too old and
//! the chunk is read again. What lies further back the connector has waited for (`Snapshot::stretches`).
//!
//! A key's newest transaction speaks for its older ones: the row's lock is held until a commit is visible.

use crate::backfill::{Verdict, When, is_visible, settled};
use crate::source::View;
use bytes::Bytes;
use catchwater_base::hash::{Map, xxh3_128};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Transactions remembered without their keys.
const RECENT_MAX: usize = if cfg!(test) { 4 } else { 65_536 };
/// Keys remembered, all tables together (about 100 MiB); beyond it their transactions alone.
const KEYS_MAX: usize = if cfg!(test) { 4 } else { 1024 * 1024 };

#[derive(Debug, Default)]
pub struct Touched {
    recent: VecDeque<u64>,
    tables: BTreeMap<u32, Seen>,
    keys: usize,
}

#[derive(Debug, Default)]
struct Seen {
    keys: Map<u128, Touch>,
    truncates: Vec<When>,
    /// Transactions whose keys are not known.
    blind: BTreeSet<u64>,
}

#[derive(Debug)]
struct Touch {
    whole: bool,
    when: When,
}

impl Touched {
    /// A transaction was emitted.
    pub fn committed(&mut self, xid: u64) {
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(xid);
    }

    /// Chunks of the table will be read from now on.
    pub fn watch(&mut self, table_no: u32) {
        let blind = self.recent.iter().copied().collect();
        self.tables.entry(table_no).or_insert(Seen { blind, ..Seen::default() });
    }
    pub fn watches(&self, table_no: u32) -> bool {
        self.tables.contains_key(&table_no)
    }
    pub fn done(&mut self, table_no: u32) {
        if let Some(seen) = self.tables.remove(&table_no) {
            self.keys -= seen.keys.len();
        }
    }

    /// A record of this key goes into the log. `whole` = no column of its row is missing.
    pub fn emitted(&mut self, table_no: u32, key: &[u8], whole: bool, when: &When) {
        let Some(seen) = self.tables.get_mut(&table_no) else { return };
        let touch = Touch { whole, when: when.clone() };
        if seen.keys.insert(xxh3_128(key), touch).is_none() {
            self.keys += 1;
        }
        if self.keys > KEYS_MAX {
            self.keys -= seen.keys.len();
            let xids = seen.keys.values().filter_map(|t| match t.when {
                When::Now { xid, .. } => xid,
                When::Earlier => None,
            });
            seen.blind.extend(xids);
            seen.keys = Map::default();
        }
    }

    pub fn truncated(&mut self, table_no: u32, when: &When) {
        if let Some(seen) = self.tables.get_mut(&table_no) {
            seen.truncates.push(when.clone());
        }
    }

    /// Judges the rows of a chunk at the moment it is placed, and forgets what every later view shows.
    pub fn decide(&mut self, table_no: u32, keys: &[Option<Bytes>], view: &View) -> Verdict {
        let Some(seen) = self.tables.get_mut(&table_no) else { return Verdict::Rows(vec![true; keys.len()]) };
        let shown = |xid: &u64| is_visible(&When::Now { xid: Some(*xid), native: Default::default() }, view);
        if !seen.blind.iter().all(shown) {
            return Verdict::Again;
        }
        seen.blind.clear();
        let gone = seen.truncates.iter().any(|when| !is_visible(when, view));
        seen.truncates.retain(|when| !is_visible(when, view));
        let mut keep = Vec::with_capacity(keys.len());
        for key in keys {
            match key.as_ref().and_then(|k| seen.keys.get(&xxh3_128(k))) {
                _ if gone => keep.push(false),
                None => keep.push(true),
                Some(t) if is_visible(&t.when, view) => keep.push(true),
                Some(t) if t.whole => keep.push(false),
                // The log has only a part of the newer row: a view that shows it brings the rest.
                Some(_) => return Verdict::Again,
            }
        }
        let before = seen.keys.len();
        seen.keys.retain(|_, t| !settled(&t.when, view));
        self.keys -= before - seen.keys.len();
        Verdict::Rows(keep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use catchwater_change::Native;

    fn key(k: &str) -> Option<Bytes> {
        Some(Bytes::copy_from_slice(k.as_bytes()))
    }
    fn at(xid: u64) -> When {
        When::Now { xid: Some(xid), native: Native::postgres(xid * 10) }
    }
    fn view(xmin: u64, xmax: u64, running: &[u64]) -> View {
        View::Visibility { xmin, xmax, running: running.to_vec(), place: Native::postgres(0) }
    }

    #[test]
    fn rows_that_the_view_is_too_old_for_are_dropped_and_others_come() {
        let mut t = Touched::default();
        t.watch(1);
        t.emitted(1, b"a", true, &at(50));
        t.emitted(1, b"b", true, &at(60));
        t.emitted(2, b"c", true, &at(60));
        let keys = [key("a"), key("b"), key("c")];
        // 60 is in the WAL and streamed, and not visible: a lagging synchronous standby.
        assert_eq!(t.decide(1, &keys, &view(60, 61, &[60])), Verdict::Rows(vec![true, false, true]));
        assert_eq!(t.decide(1, &keys, &view(55, 60, &[55])), Verdict::Rows(vec![true, false, true]));
        assert_eq!(t.decide(1, &keys, &view(61, 61, &[])), Verdict::Rows(vec![true, true, true]));
        assert_eq!(t.keys, 0, "every later view shows them");
    }

    #[test]
    fn what_was_emitted_before_the_table_was_watched_must_be_shown() {
        let mut t = Touched::default();
        t.committed(40);
        t.committed(50);
        t.watch(1);
        t.committed(60);
        assert_eq!(t.decide(1, &[key("a")], &view(50, 61, &[50])), Verdict::Again);
        assert_eq!(t.decide(1, &[key("a")], &view(51, 61, &[])), Verdict::Rows(vec![true]));
        assert_eq!(t.decide(1, &[key("a")], &view(50, 61, &[])), Verdict::Rows(vec![true]));
    }

    #[test]
    fn an_incomplete_row_waits_for_a_view_that_shows_it() {
        let mut t = Touched::default();
        t.watch(1);
        t.emitted(1, b"a", false, &at(50));
        assert_eq!(t.decide(1, &[key("a")], &view(50, 60, &[50])), Verdict::Again);
        assert_eq!(t.decide(1, &[key("a")], &view(60, 60, &[])), Verdict::Rows(vec![true]));
    }

    #[test]
    fn rows_older_than_a_truncate_stay_away() {
        let mut t = Touched::default();
        t.watch(1);
        t.truncated(1, &at(50));
        assert_eq!(t.decide(1, &[key("a")], &view(50, 60, &[50])), Verdict::Rows(vec![false]));
        assert_eq!(t.decide(1, &[key("a")], &view(60, 60, &[])), Verdict::Rows(vec![true]));
    }

    #[test]
    fn too_many_keys_leave_their_transactions() {
        let mut t = Touched::default();
        t.watch(1);
        for n in 0..6u8 {
            t.emitted(1, &[n], true, &at(50 + u64::from(n)));
        }
        assert_eq!(t.decide(1, &[key("z")], &view(52, 70, &[52])), Verdict::Again);
        assert_eq!(t.decide(1, &[key("z")], &view(55, 70, &[])), Verdict::Rows(vec![true]));
        t.done(1);
        assert_eq!(t.keys, 0);
    }
}
