//! Pure. Whole transactions → groups; inside a group one write per (table, key).
//!
//! Walk: row-change 14/17
//!
//! A group closes at `rows`, `bytes` or `linger_ms`, but only at the end of a transaction; with nothing behind it, it
//! closes at once, so latency is low. A transaction that makes a group twice as large leaves in parts, all of them
//! inside one sink transaction: [`Verdict::Part`] hands out what is here, [`Verdict::Close`] comes at its end.
//!
//! Fold (deliver.md 9), because PostgreSQL refuses a key twice in one upsert: insert or update after anything but a
//! delete merges into one write, cells that were not sent take the earlier value; a delete wins over what came before; a
//! full row after a delete is an upsert. Tables without a key and groups in source order are not folded, and nothing is
//! folded across a truncate. A folded write stands where its key appeared first, a folded delete where it came last, so
//! parents keep standing before children and children go before parents.

use crate::ident;
use crate::order;
use crate::sink::{Apply, Group, TargetPlan, What};
use catchwater_base::Mono;
use catchwater_base::hash::{Map, Seeded, xxh3_64};
use catchwater_change::{Cell, Op, Row, RowChange, Version};
use catchwater_record::CommitSeq;
use std::sync::Arc;

/// When a group closes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchLimits {
    pub rows: usize,
    pub bytes: usize,
    /// How long a group may wait for more while there is lag.
    pub linger_ms: u64,
}

impl Default for BatchLimits {
    fn default() -> Self {
        BatchLimits { rows: 10_000, bytes: 8 << 20, linger_ms: 20 }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Goes on collecting.
    More,
    /// Full inside a transaction: write what is here, the sink transaction stays open.
    Part,
    /// At the end of a transaction: write and commit.
    Close,
}

/// The group being collected.
pub struct Batch {
    limits: BatchLimits,
    applies: Vec<Apply>,
    bytes: usize,
    first: Option<CommitSeq>,
    last: CommitSeq,
    /// Rows of `last` may still come.
    inside: bool,
    /// A part of this group was taken out already.
    parted: bool,
    /// A row of the stream is in it, not of a snapshot.
    stale: bool,
    since: Mono,
}

impl Batch {
    pub fn new(limits: BatchLimits) -> Self {
        Batch {
            limits,
            applies: Vec::new(),
            bytes: 0,
            first: None,
            last: CommitSeq(0),
            inside: false,
            parted: false,
            stale: false,
            since: Mono::ZERO,
        }
    }

    pub fn push(&mut self, now: Mono, seq: CommitSeq, bytes: usize, applies: impl IntoIterator<Item = Apply>) {
        if self.first.is_none() {
            self.first = Some(seq);
            self.since = now;
        }
        assert!(seq >= self.last, "transactions come in order");
        self.last = seq;
        self.inside = true;
        self.bytes += bytes;
        self.applies.extend(applies);
    }

    /// The next row is one of the stream.
    pub fn stale(&mut self) {
        self.stale = true;
    }

    pub fn end_txn(&mut self, seq: CommitSeq) {
        assert!(self.first.is_none() || seq >= self.last, "the end of a transaction comes after its rows");
        self.inside = false;
    }

    /// `dry` = nothing more can be pushed now; `behind` = the log has more that is not fetched yet.
    pub fn verdict(&self, now: Mono, dry: bool, behind: bool) -> Verdict {
        if self.first.is_none() && !self.parted {
            return Verdict::More;
        }
        // A transaction at the edge of a group may end it: only a large one is written in parts, because a group in parts
        // has the target for itself.
        let over = if self.inside && !self.parted { 2 } else { 1 };
        let (rows, bytes) = (self.limits.rows.saturating_mul(over), self.limits.bytes.saturating_mul(over));
        let full = self.applies.len() >= rows || self.bytes >= bytes;
        // Once a part is written, the group closes with its transaction.
        match (self.inside, full || (self.parted && !self.inside)) {
            (true, true) => Verdict::Part,
            (true, false) => Verdict::More,
            (false, true) => Verdict::Close,
            (false, false) if dry && (!behind || now >= self.since.plus_millis(self.limits.linger_ms)) => {
                Verdict::Close
            }
            (false, false) => Verdict::More,
        }
    }

    /// When a lingering group must close.
    pub fn deadline(&self) -> Option<Mono> {
        (self.first.is_some() && !self.inside).then(|| self.since.plus_millis(self.limits.linger_ms))
    }

    pub fn is_empty(&self) -> bool {
        self.applies.is_empty()
    }
    pub fn bytes(&self) -> usize {
        self.bytes
    }
    pub fn rows(&self) -> usize {
        self.applies.len()
    }
    /// A group closes at so many.
    pub fn rows_max(&self) -> usize {
        self.limits.rows
    }
    /// It ends with its last transaction, and no part of it was taken out.
    pub fn is_whole(&self) -> bool {
        !self.inside && !self.parted
    }
    /// First transaction of what `take` would give.
    pub fn first_seq(&self) -> CommitSeq {
        self.first.unwrap_or(self.last)
    }

    /// Takes the rows out as a group. `source_order` = a folded attempt has failed; the write sets may demand it, too.
    pub fn take(&mut self, source_order: bool) -> Taken {
        let applies = std::mem::take(&mut self.applies);
        let rows = applies.len();
        let bytes = std::mem::take(&mut self.bytes);
        let first_seq = self.first.take().unwrap_or(self.last);
        self.parted = self.inside;
        let source_order = source_order || order::needs_source_order(&applies);
        let applies = if source_order { applies } else { fold(applies) };
        let folded = rows - applies.len();
        let fresh = !std::mem::take(&mut self.stale);
        let group = Group {
            first_seq,
            last_seq: self.last,
            applies,
            source_order,
            fresh,
            guarded: false,
            partial: self.inside,
            together: false,
        };
        Taken { group, rows, folded, bytes }
    }
}

/// A group and what went into it: `rows` applies before the fold, `folded` of them merged away.
pub struct Taken {
    pub group: Group,
    pub rows: usize,
    pub folded: usize,
    pub bytes: usize,
}

/// Why a change cannot be applied to its target.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("{op:?} of {table} without the row it needs")]
    NoRow { table: String, op: Op },
    #[error("{op:?} of {table} without a complete key")]
    NoKey { table: String, op: Op },
    #[error("{op:?} of {table}, which has no key, needs the whole row before; set REPLICA IDENTITY FULL or a key")]
    NoBefore { table: String, op: Op },
}

/// What one change does to the target: one apply, or two when its key changed.
pub fn applies_of(change: RowChange, plan: &Arc<TargetPlan>, version: Version) -> Result<Vec<Apply>, ApplyError> {
    let apply = |what| Apply { table: plan.clone(), what, version };
    let table = || plan.source.qualified();
    let op = change.op;
    let keyed = !plan.key.is_empty();
    let whole = |row: &Row| ident::is_complete(row, plan.columns.iter().map(|(c, _)| *c));
    if op == Op::Truncate {
        return Ok(vec![apply(What::Truncate)]);
    }
    match (op, keyed) {
        (Op::Create | Op::Read, false) => {
            let row = change.after.ok_or_else(|| ApplyError::NoRow { table: table(), op })?;
            Ok(vec![apply(What::Insert(row))])
        }
        (Op::Delete, false) => {
            let row = change.before.filter(whole).ok_or_else(|| ApplyError::NoBefore { table: table(), op })?;
            Ok(vec![apply(What::DeleteOne(row))])
        }
        (_, false) => {
            let before = change.before.filter(whole).ok_or_else(|| ApplyError::NoBefore { table: table(), op })?;
            let after = change.after.ok_or_else(|| ApplyError::NoRow { table: table(), op })?;
            Ok(vec![apply(What::DeleteOne(before)), apply(What::Insert(after))])
        }
        (Op::Delete, true) => {
            let row = change.before.ok_or_else(|| ApplyError::NoRow { table: table(), op })?;
            if !ident::is_known(&row, key_columns(plan)) {
                return Err(ApplyError::NoKey { table: table(), op });
            }
            Ok(vec![apply(What::Delete(row))])
        }
        (_, true) => {
            let after = change.after.ok_or_else(|| ApplyError::NoRow { table: table(), op })?;
            if !ident::is_known(&after, key_columns(plan)) {
                return Err(ApplyError::NoKey { table: table(), op });
            }
            let moves = |before: &Row| {
                let was = ident::of(before, key_columns(plan));
                was.is_some() && was != ident::of(&after, key_columns(plan))
            };
            let moved = change.before.filter(moves);
            let write = apply(if whole(&after) { What::Upsert(after) } else { What::Update(after) });
            Ok(match moved {
                Some(before) => vec![apply(What::Delete(before)), write],
                None => vec![write],
            })
        }
    }
}

/// The key as indexes into the source's columns.
pub fn key_columns(plan: &TargetPlan) -> impl Iterator<Item = u16> {
    plan.key.iter().filter_map(|k| plan.columns.get(usize::from(*k)).map(|(c, _)| *c))
}

/// Where each key of a group stands: no memory block a key, for most groups have each once.
struct Places {
    /// Tables are told apart by their target; there are few.
    tables: Vec<Arc<TargetPlan>>,
    /// Table and key of each entry, one behind the other; and where each ends, with its place.
    keys: Vec<u8>,
    entries: Vec<(usize, usize)>,
    /// Hash → entry. One whose hash is taken by another key has the next free number.
    at: Map<u64, usize>,
}

impl Places {
    fn new(rows: usize) -> Self {
        let at = Map::with_capacity_and_hasher(rows, Seeded::default());
        Places { tables: Vec::new(), keys: Vec::new(), entries: Vec::with_capacity(rows), at }
    }

    fn table(&mut self, plan: &Arc<TargetPlan>) -> usize {
        let same = |t: &Arc<TargetPlan>| Arc::ptr_eq(t, plan) || t.target == plan.target;
        self.tables.iter().position(same).unwrap_or_else(|| {
            self.tables.push(plan.clone());
            self.tables.len() - 1
        })
    }

    /// The place of the row's key, `usize::MAX` at first; `None` = it has no key.
    fn of(&mut self, plan: &Arc<TargetPlan>, row: &Row) -> Option<&mut usize> {
        let table = self.table(plan);
        let from = self.keys.len();
        self.keys.extend_from_slice(&table.to_be_bytes());
        if !ident::append(&mut self.keys, row, key_columns(plan)) {
            self.keys.truncate(from);
            return None;
        }
        let mut hash = xxh3_64(&self.keys[from..]);
        let entry = loop {
            let Some(entry) = self.at.get(&hash).copied() else {
                self.at.insert(hash, self.entries.len());
                self.entries.push((self.keys.len(), usize::MAX));
                return self.entries.last_mut().map(|(_, place)| place);
            };
            let begins = entry.checked_sub(1).and_then(|e| self.entries.get(e)).map_or(0, |(end, _)| *end);
            if self.keys[begins..self.entries[entry].0] == self.keys[from..] {
                break entry;
            }
            hash = hash.wrapping_add(1);
        };
        self.keys.truncate(from);
        self.entries.get_mut(entry).map(|(_, place)| place)
    }
}

/// One write per (table, key): also what the dead letters of a key come to.
pub(crate) fn fold(applies: Vec<Apply>) -> Vec<Apply> {
    let mut places = Places::new(applies.len());
    let mut out: Vec<Option<Apply>> = Vec::with_capacity(applies.len());
    for apply in applies {
        let row = match &apply.what {
            What::Upsert(r) | What::Update(r) | What::Delete(r) | What::InsertNew(r) | What::Retire(r) => r,
            // Never met: a group with a truncate goes in source order, keyless rows are not folded.
            What::Truncate | What::Clear | What::RetireAll(_) | What::Insert(_) | What::DeleteOne(_) => {
                out.push(Some(apply));
                continue;
            }
        };
        let Some(place) = places.of(&apply.table, row) else {
            out.push(Some(apply));
            continue;
        };
        let earlier = out.get_mut(*place).and_then(Option::take);
        let (what, stays) = match (earlier.as_ref().map(|e| &e.what), apply.what) {
            (Some(What::Upsert(old)), What::Upsert(new) | What::Update(new)) => (What::Upsert(merge(old, new)), true),
            (Some(What::Update(old)), What::Update(new)) => {
                let row = merge(old, new);
                let whole = ident::is_complete(&row, apply.table.columns.iter().map(|(c, _)| *c));
                (if whole { What::Upsert(row) } else { What::Update(row) }, true)
            }
            (Some(What::Update(old)), What::Upsert(new)) => (What::Upsert(merge(old, new)), true),
            (Some(What::Upsert(old)), What::Retire(new)) => (What::Upsert(merge(old, new)), true),
            (Some(What::Update(old)), What::Retire(new)) => (What::Update(merge(old, new)), true),
            // The first one stays.
            (Some(What::InsertNew(old)), What::InsertNew(_)) => (What::InsertNew(old.clone()), true),
            (_, what) => (what, false),
        };
        let apply = Apply { what, ..apply };
        // Another schema of the table: its rows have other cells, so they do not merge.
        match earlier {
            Some(e) if stays && Arc::ptr_eq(&e.table, &apply.table) => out[*place] = Some(apply),
            Some(e) if stays => {
                out[*place] = Some(e);
                *place = out.len();
                out.push(Some(apply));
            }
            _ => {
                *place = out.len();
                out.push(Some(apply));
            }
        }
    }
    out.into_iter().flatten().collect()
}

/// The later row; cells it did not send are the earlier ones.
fn merge(old: &Row, mut new: Row) -> Row {
    for (i, cell) in new.cells.iter_mut().enumerate() {
        if matches!(cell, Cell::Unavailable | Cell::Absent)
            && let Some(was) = old.cells.get(i)
        {
            *cell = was.clone();
        }
    }
    new
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
