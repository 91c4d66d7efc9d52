//! Pure. Which rows of a snapshot chunk are stale, when the stream has run since before the chunk was read.
//!
//! Walk: row-change 5/17
//!
//! A chunk is read in one view of the source and placed into the stream at the first boundary at which everything visible
//! in the view has been emitted. The log is then right about every key it has a whole row of: such a chunk row is
//! dropped. A key of which only an incomplete row came (a TOAST value that was not sent) takes the chunk's row, if the
//! view shows what was emitted; else the chunk is read again. Source: capture.md 7.4, 7.5. LSN windows are wrong: a commit
//! is in the WAL, and streamed, before it is visible to snapshots.
//!
//! Asked of the connector: a chunk's view shows every transaction that committed below the stream's start. (A backend that
//! still waits for a synchronous standby since before the slot was made would break that; the connector waits it out.)
//!
//! Rows without a key cannot be told apart, so such a table begins again: it is truncated, read in one view, and what the
//! stream emitted that the view does not show follows once more, all of it as one unit. Nothing else is exact: a row that
//! was streamed may be in the view or not, and equal rows have no names.

use crate::source::View;
use bytes::Bytes;
use catchwater_base::hash::{self, Map};
use catchwater_change::{Native, Op, RowChange};
use catchwater_record::CommitSeq;
use std::collections::{BTreeMap, VecDeque};

/// Most keys remembered while a snapshot is filled up, all tables together (about 1 GiB).
pub const KEYS_MAX: usize = 16 * 1024 * 1024;
/// Bytes of changes remembered of tables that begin again, all together; a view must show what was forgotten.
const LATER_BYTES_MAX: usize = if cfg!(test) { 2048 } else { 64 * 1024 * 1024 };

/// When a change was emitted, in the words a view is asked with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum When {
    /// Before this worker began: read from the topic.
    Earlier,
    /// Transaction id, if the source has one, and commit position.
    Now { xid: Option<u64>, native: Native },
}

/// The log's knowledge of the tables that are being filled up.
#[derive(Debug, Default)]
pub struct Backfill {
    tables: BTreeMap<u32, Seen>,
    keys: usize,
    again: BTreeMap<u32, Again>,
    later_bytes: usize,
}

/// A table without a key that begins again.
#[derive(Debug, Default)]
struct Again {
    /// The log holds records of it.
    has_records: bool,
    /// What the stream emitted since this worker began, oldest first.
    later: VecDeque<Later>,
    /// The newest change that was forgotten.
    forgotten: Option<(CommitSeq, When)>,
}

#[derive(Debug)]
struct Later {
    seq: CommitSeq,
    when: When,
    change: RowChange,
    bytes: usize,
}

/// How a table without a key begins again.
#[derive(Clone, PartialEq, Debug)]
pub enum Restart {
    /// It does not.
    No,
    /// The view may not show changes that are forgotten: read the table again.
    Again,
    /// After a truncate if the log holds anything of it; `later` comes behind the rows of the view.
    From { truncate: bool, later: Vec<RowChange> },
}

#[derive(Debug, Default)]
struct Seen {
    keys: Map<u128, Touch>,
    truncates: Vec<When>,
}

#[derive(Debug)]
struct Touch {
    /// The log holds the whole row, or that it is gone.
    whole: bool,
    when: When,
}

/// What to do with a chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Per row: keep or drop.
    Rows(Vec<bool>),
    /// The view is too old for a row the log has only in part: read the chunk again.
    Again,
}

/// More keys than [`KEYS_MAX`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("more than {KEYS_MAX} keys changed while the snapshot was filled up")]
pub struct TooMany;

impl Backfill {
    /// The table's remaining rows come by chunks.
    pub fn watch(&mut self, table_no: u32) {
        self.tables.entry(table_no).or_default();
    }
    /// The table is complete.
    pub fn done(&mut self, table_no: u32) {
        if let Some(seen) = self.tables.remove(&table_no) {
            self.keys -= seen.keys.len();
        }
        if let Some(again) = self.again.remove(&table_no) {
            self.later_bytes -= again.later.iter().map(|l| l.bytes).sum::<usize>();
        }
    }

    /// The table has no key and is read from its beginning, in one view.
    pub fn begin_again(&mut self, table_no: u32, has_records: bool) {
        self.again.entry(table_no).or_default().has_records |= has_records;
    }
    pub fn begins_again(&self, table_no: u32) -> bool {
        self.again.contains_key(&table_no)
    }
    /// The stream has emitted a change of a table that begins again.
    pub fn emitted_again(&mut self, table_no: u32, seq: CommitSeq, change: RowChange, when: When) {
        let Some(again) = self.again.get_mut(&table_no) else { return };
        let row = |r: &Option<catchwater_change::Row>| r.as_ref().map_or(0, |r| r.bytes());
        let bytes = 128 + row(&change.before) + row(&change.after);
        self.later_bytes += bytes;
        again.later.push_back(Later { seq, when, change, bytes });
        while self.later_bytes > LATER_BYTES_MAX
            && let Some(oldest) = again.later.pop_front()
        {
            self.later_bytes -= oldest.bytes;
            let when = match &again.forgotten {
                Some((_, newest)) if is_newer(newest, &oldest.when) => newest.clone(),
                _ => oldest.when,
            };
            again.forgotten = Some((oldest.seq, when));
        }
    }
    /// A transaction whose first rows left before its end was known has ended here.
    pub fn ended(&mut self, seq: CommitSeq, at: &Native) {
        for again in self.again.values_mut() {
            let later = again.later.iter_mut().rev().take_while(|l| l.seq == seq).map(|l| &mut l.when);
            let forgotten = again.forgotten.iter_mut().filter(|(s, _)| *s == seq).map(|(_, when)| when);
            for when in later.chain(forgotten) {
                if let When::Now { native, .. } = when {
                    *native = at.clone();
                }
            }
        }
    }
    /// What the first unit of a table is, read in `view`, when it is placed now.
    pub fn restart(&self, table_no: u32, view: &View) -> Restart {
        let Some(again) = self.again.get(&table_no) else { return Restart::No };
        let shown = |when: &When| match (when, view) {
            // Older ones may be running still, and are not known one by one.
            (When::Now { xid: Some(xid), .. }, View::Visibility { xmin, xmax, .. }) => widen(*xid, *xmax) < *xmin,
            _ => is_visible(when, view),
        };
        if again.forgotten.as_ref().is_some_and(|(_, when)| !shown(when)) {
            return Restart::Again;
        }
        let mut later: Vec<&Later> = again.later.iter().filter(|l| !is_visible(&l.when, view)).collect();
        // What stands before a truncate is of rows that the view may have lost to it, and counts no more.
        if let Some(at) = later.iter().rposition(|l| l.change.op == Op::Truncate) {
            later.drain(..at);
        }
        let later = later.into_iter().map(|l| l.change.clone());
        let emitted = again.forgotten.is_some() || !again.later.is_empty();
        Restart::From { truncate: again.has_records || emitted, later: later.collect() }
    }

    pub fn watches(&self, table_no: u32) -> bool {
        self.tables.contains_key(&table_no)
    }
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// A record of this key is in the log or goes there now.
    pub fn emitted(&mut self, table_no: u32, key: &[u8], whole: bool, when: When) -> Result<(), TooMany> {
        let Some(seen) = self.tables.get_mut(&table_no) else { return Ok(()) };
        let before = seen.keys.len();
        let touch = seen.keys.entry(hash::xxh3_128(key)).or_insert(Touch { whole, when: when.clone() });
        // Once whole the log stays whole: what follows changes it field by field.
        touch.whole |= whole;
        touch.when = when;
        self.keys += seen.keys.len() - before;
        if self.keys > KEYS_MAX { Err(TooMany) } else { Ok(()) }
    }

    /// True if the log holds no whole record of this key, and a chunk that is still to come brings the row.
    pub fn row_comes(&self, table_no: u32, key: &[u8]) -> bool {
        let Some(seen) = self.tables.get(&table_no) else { return false };
        !seen.keys.get(&hash::xxh3_128(key)).is_some_and(|touch| touch.whole)
    }

    pub fn truncated(&mut self, table_no: u32, when: When) {
        if let Some(seen) = self.tables.get_mut(&table_no) {
            seen.truncates.push(when);
        }
    }

    /// Judges the rows of a chunk at the moment it is placed. Keyless rows (`None`) are kept.
    pub fn decide(&self, table_no: u32, keys: &[Option<Bytes>], view: &View) -> Verdict {
        let Some(seen) = self.tables.get(&table_no) else { return Verdict::Rows(vec![true; keys.len()]) };
        if seen.truncates.iter().any(|when| !is_visible(when, view)) {
            return Verdict::Rows(vec![false; keys.len()]);
        }
        let mut keep = Vec::with_capacity(keys.len());
        for key in keys {
            let touch = key.as_ref().and_then(|k| seen.keys.get(&hash::xxh3_128(k)));
            match touch {
                None => keep.push(true),
                Some(t) if t.whole => keep.push(false),
                Some(t) if is_visible(&t.when, view) => keep.push(true),
                Some(_) => return Verdict::Again,
            }
        }
        Verdict::Rows(keep)
    }
}

/// May a chunk with this view be placed behind `at`?
pub fn may_place(view: &View, at: &Native) -> bool {
    match view {
        View::Exported => true,
        View::Visibility { place, .. } | View::Exact(place) => at >= place,
    }
}

/// By transaction id, if both have one, else by place.
fn is_newer(a: &When, b: &When) -> bool {
    match (a, b) {
        (When::Now { xid: Some(a), .. }, When::Now { xid: Some(b), .. }) => widen(*a, *b) > *b,
        (When::Now { native: a, .. }, When::Now { native: b, .. }) => a > b,
        (_, When::Earlier) => true,
        _ => false,
    }
}

/// True if every later view shows it, too.
pub(crate) fn settled(when: &When, view: &View) -> bool {
    match (when, view) {
        (When::Now { xid: Some(xid), .. }, View::Visibility { xmin, xmax, .. }) => widen(*xid, *xmax) < *xmin,
        _ => is_visible(when, view),
    }
}

pub(crate) fn is_visible(when: &When, view: &View) -> bool {
    match (when, view) {
        (When::Earlier, View::Exact(_)) => true,
        (When::Now { xid: Some(xid), .. }, View::Visibility { xmin, xmax, running, .. }) => {
            let xid = widen(*xid, *xmax);
            xid < *xmin || (xid < *xmax && !running.contains(&xid))
        }
        (When::Now { native, .. }, View::Exact(at)) => native <= at,
        // Unknown: not proved to be visible. An exported view is older than all that is emitted.
        _ => false,
    }
}

/// An id read back from a stamp has 32 bits: the one nearest to `near` is meant.
fn widen(xid: u64, near: u64) -> u64 {
    const EPOCH: u64 = 1 << 32;
    if xid >= EPOCH {
        return xid;
    }
    let same = (near & !(EPOCH - 1)) | xid;
    match same {
        s if s > near && s - near > EPOCH / 2 && s >= EPOCH => s - EPOCH,
        s if s < near && near - s > EPOCH / 2 => s + EPOCH,
        s => s,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(k: &str) -> Option<Bytes> {
        Some(Bytes::copy_from_slice(k.as_bytes()))
    }
    fn at(xid: u64) -> When {
        When::Now { xid: Some(xid), native: Native::postgres(xid * 10) }
    }
    fn view(xmin: u64, xmax: u64, running: &[u64], place: u64) -> View {
        View::Visibility { xmin, xmax, running: running.to_vec(), place: Native::postgres(place) }
    }

    #[test]
    fn keys_the_log_holds_whole_are_dropped() {
        let mut b = Backfill::default();
        b.watch(1);
        b.emitted(1, b"a", true, When::Earlier).expect("room");
        b.emitted(1, b"c", true, at(50)).expect("room");
        b.emitted(2, b"b", true, at(50)).expect("not watched");
        let got = b.decide(1, &[key("a"), key("b"), key("c"), None], &view(60, 60, &[], 0));
        assert_eq!(got, Verdict::Rows(vec![false, true, false, true]));
    }

    #[test]
    fn ids_of_32_bits_are_those_nearest_to_the_view() {
        let epoch = 1u64 << 32;
        for (xid, near, want) in [
            (7, 9, 7),
            (7, epoch + 9, epoch + 7),
            (epoch - 3, epoch + 9, epoch - 3),
            (7, epoch - 9, epoch + 7),
            (epoch + 1, 5, epoch + 1),
        ] {
            assert_eq!(widen(xid, near), want, "{xid} near {near}");
        }
        let mut b = Backfill::default();
        b.watch(1);
        // Read back after a restart, an epoch later.
        b.emitted(1, b"a", false, at(50)).expect("room");
        assert!(b.row_comes(1, b"a") && b.row_comes(1, b"z") && !b.row_comes(2, b"a"));
        assert_eq!(b.decide(1, &[key("a")], &view(epoch + 60, epoch + 60, &[], 0)), Verdict::Rows(vec![true]));
        assert_eq!(b.decide(1, &[key("a")], &view(epoch + 40, epoch + 60, &[epoch + 50], 0)), Verdict::Again);
        b.emitted(1, b"a", true, at(51)).expect("room");
        assert!(!b.row_comes(1, b"a"));
    }

    #[test]
    fn an_incomplete_row_is_filled_only_by_a_view_that_shows_it() {
        let mut b = Backfill::default();
        b.watch(1);
        b.emitted(1, b"a", false, at(50)).expect("room");
        assert_eq!(b.decide(1, &[key("a")], &view(60, 60, &[], 0)), Verdict::Rows(vec![true]));
        // In the WAL and streamed, but not visible yet: a lagging synchronous standby.
        assert_eq!(b.decide(1, &[key("a")], &view(40, 60, &[50], 0)), Verdict::Again);
        assert_eq!(b.decide(1, &[key("a")], &view(40, 50, &[], 0)), Verdict::Again);
        b.emitted(1, b"a", true, at(51)).expect("room");
        assert_eq!(b.decide(1, &[key("a")], &view(40, 50, &[], 0)), Verdict::Rows(vec![false]));
    }

    #[test]
    fn rows_older_than_a_truncate_do_not_come_back() {
        let mut b = Backfill::default();
        b.watch(1);
        b.truncated(1, at(50));
        assert_eq!(b.decide(1, &[key("a")], &view(40, 45, &[], 0)), Verdict::Rows(vec![false]));
        assert_eq!(b.decide(1, &[key("a")], &view(60, 60, &[], 0)), Verdict::Rows(vec![true]));
    }

    fn change(id: i64) -> RowChange {
        use catchwater_change::{Cell, Row, SnapshotMark, SourceInfo, Value};
        let tables = crate::testing::memory_source::MemoryDb::new(1, &[("t", false)]);
        RowChange {
            table: tables.tables()[0].clone(),
            op: Op::Create,
            before: None,
            after: Some(Row::new(vec![Cell::Value(Value::Int(id))])),
            snapshot: SnapshotMark::No,
            info: SourceInfo::None,
        }
    }

    #[test]
    fn a_table_without_a_key_begins_again_with_what_its_view_does_not_show() {
        let mut b = Backfill::default();
        let nothing = |truncate| Restart::From { truncate, later: vec![] };
        assert_eq!(b.restart(1, &view(60, 60, &[], 0)), Restart::No);
        b.begin_again(1, false);
        assert_eq!(b.restart(1, &view(60, 60, &[], 0)), nothing(false), "the log holds nothing of it");
        b.emitted_again(1, CommitSeq(5), change(50), at(50));
        b.emitted_again(1, CommitSeq(6), change(51), at(51));
        b.emitted_again(2, CommitSeq(6), change(51), at(51));
        assert_eq!(b.restart(1, &view(60, 60, &[], 0)), nothing(true));
        let got = b.restart(1, &view(50, 60, &[50], 0));
        assert_eq!(got, Restart::From { truncate: true, later: vec![change(50)] });
        let got = b.restart(1, &view(51, 51, &[], 0));
        assert_eq!(got, Restart::From { truncate: true, later: vec![change(51)] });
        // The view may be of the time before a truncate, and the read of the time behind it.
        let truncate = RowChange { op: Op::Truncate, before: None, after: None, ..change(52) };
        b.emitted_again(1, CommitSeq(7), truncate.clone(), at(52));
        b.emitted_again(1, CommitSeq(8), change(53), at(53));
        let got = b.restart(1, &view(50, 60, &[50, 52, 53], 0));
        assert_eq!(got, Restart::From { truncate: true, later: vec![truncate, change(53)] });
        b.done(1);
        assert_eq!((b.begins_again(1), b.later_bytes), (false, 0));
    }

    #[test]
    fn rows_of_a_transaction_that_left_before_its_end_stand_at_its_end() {
        let mut b = Backfill::default();
        b.begin_again(1, true);
        let when = |at| When::Now { xid: None, native: Native::sqlite(at) };
        b.emitted_again(1, CommitSeq(4), change(1), when(4));
        b.emitted_again(1, CommitSeq(5), change(2), when(4));
        b.ended(CommitSeq(5), &Native::sqlite(5));
        let got = b.restart(1, &View::Exact(Native::sqlite(4)));
        assert_eq!(got, Restart::From { truncate: true, later: vec![change(2)] });
    }

    #[test]
    fn a_view_must_show_what_was_forgotten() {
        let mut b = Backfill::default();
        b.begin_again(1, true);
        for xid in 100..200 {
            // The ids do not come in their order.
            b.emitted_again(1, CommitSeq(xid), change(1), at(xid ^ 1));
        }
        assert!(b.later_bytes <= LATER_BYTES_MAX);
        assert_eq!(b.restart(1, &view(150, 300, &[150], 0)), Restart::Again);
        let Restart::From { later, .. } = b.restart(1, &view(198, 198, &[], 0)) else { panic!("all is shown") };
        assert_eq!(later.len(), 2);
    }

    #[test]
    fn a_chunk_waits_for_its_place() {
        assert!(!may_place(&view(0, 0, &[], 100), &Native::postgres(99)));
        assert!(may_place(&view(0, 0, &[], 100), &Native::postgres(100)));
        assert!(!may_place(&View::Exact(Native::sqlite(5)), &Native::sqlite(4)));
    }

    #[test]
    fn a_finished_table_gives_its_memory_back() {
        let mut b = Backfill::default();
        b.watch(1);
        b.emitted(1, b"a", true, When::Earlier).expect("room");
        b.done(1);
        assert_eq!((b.keys, b.is_empty()), (0, true));
    }
}
