//! The entry table of a compacted segment made again, of a log whose entries have no contexts.
//!
//! Batches say what stayed; where the segment begins and ends, and where terms begin, the manifest says. What went between two
//! batches is known in offsets, and over the whole of a term in indexes; which index went with which offset nobody can
//! say any more, and nobody asks: no row stands for it. So the runs are laid out anew, dense as they were, in as many rows
//! as the manifest names:
//!
//! ```text
//!  was  | gap 3 idx, 7 off | batch | gap 2 idx, 2 off | batch |      known: 7 idx, 11 off, rows 4
//!  made | gap 4 idx, 7 off | batch | gap 1 idx, 2 off | batch |      equal to any reader
//! ```
//! Not for a log with contexts (a capture's positions and members are bound to their index), nor where each row stands for
//! one index (a group of several members sends them): there the segment is damaged, as before.

use super::group::Reader;
use super::rebuild::{LogReader, Lost, Made};
use crate::disk::DiskError;
use crate::entry::{EntryKind, Row, derive_flags};
use bytes::Bytes;
use catchwater_record::crc::Crc64;
use catchwater_record::{BatchView, EntryIndex, LeaderEpoch, Offset};

/// Indexes of one gap row, see `compact/rows.rs`.
const RUN_MAX: u64 = u32::MAX as u64 >> 1;

/// Rows of one term: from its first index to the next term's.
struct Stretch {
    term: u32,
    from: (EntryIndex, Offset),
    upto: (EntryIndex, Offset),
}

/// A row to be: indexes it covers, offsets it takes, and its batch if it has one.
struct Piece {
    indexes: u64,
    offsets: u64,
    batch: Option<Batch>,
}

/// What a row says of its batch.
#[derive(Clone, Copy)]
struct Batch {
    base: Offset,
    offsets: u32,
    term: i32,
    max_ts: i64,
    len: u32,
    flags: u8,
}

impl Batch {
    fn of(body: &Bytes) -> Option<Batch> {
        let view = BatchView::new(body).ok()?;
        Some(Batch {
            base: view.offset(),
            offsets: view.offset_count(),
            term: view.leader_epoch(),
            max_ts: view.max_timestamp(),
            len: body.len() as u32,
            flags: derive_flags(EntryKind::Data, body, &[]),
        })
    }
}

impl Reader<'_> {
    /// `rows` and `last_term` as the manifest has them; `next` = where the next segment begins. `None`: beyond doubt it cannot
    /// be made.
    pub(super) fn rebuild_thinned(
        &self,
        lost: &Lost<'_>,
        (rows, last_term): (u32, u32),
        next: (EntryIndex, Offset),
    ) -> Result<Option<Made>, DiskError> {
        let contexts = self.all(&format!("{}.ext", lost.stem))?.unwrap_or_default();
        let indexes = next.0.0.saturating_sub(lost.header.base_index.0);
        if !contexts.is_empty() || indexes <= u64::from(rows) {
            return Ok(None);
        }
        let mut log = LogReader::new(self, lost.stem);
        let (mut batches, mut pos, mut sum) = (Vec::new(), 0u32, Crc64::default());
        while let Some(body) = log.batch(pos)? {
            let Some(batch) = Batch::of(&body) else { break };
            sum.update(&body);
            pos += batch.len;
            batches.push(batch);
        }
        if log.len()? != u64::from(pos) {
            return Ok(None);
        }
        let mut batches = batches.into_iter().peekable();
        let mut pieces: Vec<(u32, Vec<Piece>)> = Vec::new();
        for stretch in stretches(lost, next) {
            let mut of_term = Vec::new();
            while let Some(batch) = batches.next_if(|b| b.base < stretch.upto.1) {
                of_term.push(batch);
            }
            let Some(laid) = lay_out(&stretch, of_term) else { return Ok(None) };
            pieces.push((stretch.term, laid));
        }
        if batches.next().is_some() || pieces.last().is_none_or(|(term, _)| *term != last_term) {
            return Ok(None);
        }
        Ok(split_to(&mut pieces, rows).then(|| made(lost, pieces, sum.finish())))
    }
}

/// The terms of the segment, in order.
fn stretches(lost: &Lost<'_>, next: (EntryIndex, Offset)) -> Vec<Stretch> {
    let base = (lost.header.base_index, lost.header.base_offset);
    let before = lost.epochs.iter().rfind(|e| e.index <= base.0).map_or(lost.header.prev_term, |e| e.term);
    let mut out = vec![Stretch { term: before, from: base, upto: next }];
    for epoch in lost.epochs.iter().filter(|e| e.index > base.0 && e.index < next.0) {
        let at = (epoch.index, epoch.offset);
        if let Some(last) = out.last_mut() {
            last.upto = at;
        }
        out.push(Stretch { term: epoch.term, from: at, upto: next });
    }
    out
}

/// Batches and the runs between them. What indexes are left over goes to the largest run; if there is none (only noops
/// went), to one of its own in front.
fn lay_out(stretch: &Stretch, batches: Vec<Batch>) -> Option<Vec<Piece>> {
    let mut out = Vec::with_capacity(2 * batches.len() + 1);
    let mut at = stretch.from.1;
    let gap = |offsets: u64| Piece { indexes: 1, offsets, batch: None };
    for batch in batches {
        if batch.base < at || i64::from(batch.term) != i64::from(stretch.term) {
            return None;
        }
        if batch.base > at {
            out.push(gap(batch.base.0 - at.0));
        }
        at = batch.base.plus(u64::from(batch.offsets));
        out.push(Piece { indexes: 1, offsets: u64::from(batch.offsets), batch: Some(batch) });
    }
    match stretch.upto.1.0.checked_sub(at.0)? {
        0 => {}
        rest => out.push(gap(rest)),
    }
    let spare = stretch.upto.0.0.checked_sub(stretch.from.0.0)?.checked_sub(out.len() as u64)?;
    if spare > 0 {
        match out.iter_mut().filter(|p| p.batch.is_none()).max_by_key(|p| p.offsets) {
            Some(largest) => largest.indexes += spare,
            None => out.insert(0, Piece { indexes: spare, offsets: 0, batch: None }),
        }
    }
    out.iter().all(|p| p.indexes <= RUN_MAX && p.offsets <= u64::from(u32::MAX)).then_some(out)
}

/// Divides runs until there are so many rows; false if that cannot be.
fn split_to(pieces: &mut [(u32, Vec<Piece>)], rows: u32) -> bool {
    let have: usize = pieces.iter().map(|(_, of_term)| of_term.len()).sum();
    let Some(mut more) = (rows as usize).checked_sub(have) else { return false };
    for (_, of_term) in pieces {
        let mut at = 0;
        while at < of_term.len() && more > 0 {
            let parts = more.min(of_term[at].indexes as usize - 1);
            of_term[at].indexes -= parts as u64;
            more -= parts;
            of_term.splice(at + 1..at + 1, (0..parts).map(|_| Piece { indexes: 1, offsets: 0, batch: None }));
            at += parts + 1;
        }
    }
    more == 0
}

fn made(lost: &Lost<'_>, pieces: Vec<(u32, Vec<Piece>)>, log_sum: u64) -> Made {
    let mut made = Made { rows: Vec::new(), log_sum, min_ts: i64::MAX };
    let (mut index, mut offset, mut pos, mut max_ts) = (lost.header.base_index, lost.header.base_offset, 0u32, -1i64);
    for (term, of_term) in pieces {
        for Piece { indexes, offsets, batch } in of_term {
            if let Some(batch) = batch {
                max_ts = max_ts.max(batch.max_ts);
                made.min_ts = made.min_ts.min(batch.max_ts);
            }
            made.rows.push(Row {
                index,
                term: LeaderEpoch(term),
                kind: if batch.is_some() { EntryKind::Data } else { EntryKind::Gap },
                flags: batch.map_or(0, |b| b.flags),
                base_offset: offset,
                count: offsets as u32,
                max_ts,
                pos,
                len: batch.map_or(indexes as u32, |b| b.len),
                ext_pos: 0,
                ext_len: 0,
            });
            index = EntryIndex(index.0 + indexes);
            offset = offset.plus(offsets);
            pos += batch.map_or(0, |b| b.len);
        }
    }
    made
}
