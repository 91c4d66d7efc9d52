//! The entry table of a compacted segment made again.
//!
//! Batches say what stayed; where the segment begins and ends, and where terms begin, the manifest says. Entries with a context
//! have theirs in `.ext`, with the index ([`super::anchors`]). So in the log of a capture, where every batch has one, each
//! index is known. In another one, what went between two batches is known in offsets, and over the whole of a term in indexes;
//! which index went with which offset nobody can say any more, and nobody asks: no row stands for it. So the runs are laid
//! out anew, dense as they were, in as many rows as the manifest names:
//!
//! ```text
//!  was  | gap 3 idx, 7 off | batch | gap 2 idx, 2 off | batch |      known: 7 idx, 11 off, rows 4
//!  made | gap 4 idx, 7 off | batch | gap 1 idx, 2 off | batch |      equal to any reader
//! ```
//! An internal entry between them (membership, log start) keeps its index; its place among the offsets that went is any. Not
//! where each row stands for one index (a group of several members sends them) and one of them is not certain, nor where
//! some batches have contexts and others have none: there the segment is damaged, as before.

use super::anchors::{Anchor, anchors};
use super::group::Reader;
use super::rebuild::{LogReader, Lost, Made};
use crate::disk::DiskError;
use crate::entry::{EntryKind, Row, derive_flags};
use crate::format::manifest::ManifestSegment;
use crate::format::row::Footer;
use bytes::Bytes;
use catchwater_record::crc::Crc64;
use catchwater_record::{BatchView, EntryIndex, LeaderEpoch, Offset};
use std::iter::Peekable;

/// Indexes of one gap row, see `compact/rows.rs`.
const RUN_MAX: u64 = u32::MAX as u64 >> 1;

/// Rows of one term: from its first index to the next term's.
struct Stretch {
    term: u32,
    from: (EntryIndex, Offset),
    upto: (EntryIndex, Offset),
}

/// A row to be: indexes it covers, offsets it takes, its batch and its context if it has one. Neither = a gap.
#[derive(Default)]
struct Piece {
    indexes: u64,
    offsets: u64,
    batch: Option<Batch>,
    anchor: Option<Anchor>,
}

impl Piece {
    fn gap(indexes: u64, offsets: u64) -> Piece {
        Piece { indexes, offsets, ..Piece::default() }
    }
    fn of(batch: Option<Batch>, anchor: Option<Anchor>) -> Piece {
        Piece { indexes: 1, offsets: batch.map_or(0, |b| u64::from(b.offsets)), batch, anchor }
    }
    fn is_gap(&self) -> bool {
        self.batch.is_none() && self.anchor.is_none()
    }
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

/// The rows of a term, and whether each stands for what it stood for before, beyond doubt.
struct Laid {
    pieces: Vec<Piece>,
    sure: bool,
}

impl Reader<'_> {
    /// `listed` = what the manifest says of it; `next` = where the next segment begins; `footer` = that of the table, if it can be
    /// read. `None`: beyond doubt it cannot be made.
    ///
    /// A batch that is missing leaves a hole as one that was compacted does. So the files must be what the footer says; without
    /// it, the manifest's number of rows and largest time must come out.
    pub(super) fn rebuild_thinned(
        &self,
        lost: &Lost<'_>,
        listed: &ManifestSegment,
        next: (EntryIndex, Offset),
        footer: Option<Footer>,
    ) -> Result<Option<Made>, DiskError> {
        let (rows, last_term) = (listed.rows, listed.last_term);
        let ext = self.all(&format!("{}.ext", lost.stem))?.unwrap_or_default();
        let mut ext_sum = Crc64::default();
        ext_sum.update(&ext);
        let Some(anchors) = anchors(&ext, lost.header.base_index, next.0) else { return Ok(None) };
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
        let inner = !anchors.is_empty();
        let bound = anchors.iter().filter(|a| a.kind == EntryKind::Data).count();
        if bound != 0 && bound != batches.len() {
            return Ok(None);
        }
        let (mut batches, mut anchors) = (batches.into_iter().peekable(), anchors.into_iter().peekable());
        let (mut pieces, mut sure): (Vec<(u32, Vec<Piece>)>, bool) = (Vec::new(), true);
        for stretch in stretches(lost, next) {
            let laid = match bound {
                0 => lay_out(&stretch, &mut batches, &mut anchors),
                _ => lay_bound(&stretch, &mut batches, &mut anchors),
            };
            let Some(laid) = laid.filter(|l| l.pieces.iter().all(|p| p.indexes <= RUN_MAX)) else { return Ok(None) };
            if laid.pieces.iter().any(|p| p.offsets > u64::from(u32::MAX)) {
                return Ok(None);
            }
            sure &= laid.sure;
            pieces.push((stretch.term, laid.pieces));
        }
        let left = batches.next().is_some() || anchors.next().is_some();
        if left || pieces.last().is_none_or(|(term, _)| *term != last_term) {
            return Ok(None);
        }
        let indexes = next.0.0.saturating_sub(lost.header.base_index.0);
        if indexes <= u64::from(rows) && !sure {
            return Ok(None);
        }
        let have: usize = pieces.iter().map(|(_, of_term)| of_term.len()).sum();
        let whole = match footer {
            Some(f) => {
                (f.log_len, f.log_crc64, f.ext_crc64) == (u64::from(pos), sum.finish(), ext_sum.finish())
                    && f.ext_len as usize == ext.len()
            }
            // A repair keeps the noop that begins a term.
            None if bound != 0 => rows as usize <= have + pieces.len(),
            None => rows as usize == have || (rows as usize) < have && inner,
        };
        if !whole {
            return Ok(None);
        }
        split_to(&mut pieces, rows);
        let made = made(lost, pieces, sum.finish());
        let newest = made.rows.last().map_or(-1, |r| r.max_ts);
        Ok(Some(made).filter(|_| newest == listed.max_ts))
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

/// Each batch has a context, and so an index. What went between two of them took the offsets between them; where internal
/// entries stand in between, any of its runs may have taken them.
fn lay_bound(
    stretch: &Stretch,
    batches: &mut Peekable<impl Iterator<Item = Batch>>,
    anchors: &mut Peekable<impl Iterator<Item = Anchor>>,
) -> Option<Laid> {
    let mut out: Vec<Piece> = Vec::new();
    let ((mut index, mut offset), mut sure) = (stretch.from, true);
    // Runs since the last batch: the last one, and how many indexes they have.
    let (mut run, mut ran) = (None, 0u64);
    let hole = |out: &mut Vec<Piece>, run: Option<usize>, ran: u64, offsets: u64| {
        if offsets > 0 {
            out[run?].offsets += offsets;
        }
        Some(ran <= 1 || offsets == 0)
    };
    loop {
        let anchor = anchors.next_if(|a| a.index < stretch.upto.0);
        let at = anchor.as_ref().map_or(stretch.upto.0, |a| a.index);
        let indexes = at.0.checked_sub(index.0)?;
        if indexes > 0 {
            (run, ran) = (Some(out.len()), ran + indexes);
            out.push(Piece::gap(indexes, 0));
        }
        let Some(anchor) = anchor else { break };
        index = anchor.index.next();
        if anchor.kind != EntryKind::Data {
            out.push(Piece::of(None, Some(anchor)));
            continue;
        }
        let batch = batches.next()?;
        if i64::from(batch.term) != i64::from(stretch.term) {
            return None;
        }
        sure &= hole(&mut out, run, ran, batch.base.0.checked_sub(offset.0)?)?;
        (run, ran) = (None, 0);
        offset = batch.base.plus(u64::from(batch.offsets));
        out.push(Piece::of(Some(batch), Some(anchor)));
    }
    sure &= hole(&mut out, run, ran, stretch.upto.1.0.checked_sub(offset.0)?)?;
    Some(Laid { pieces: out, sure })
}

/// No batch has a context: batches and the runs between them, from the first free index on. What indexes are left over up to
/// the next internal entry go to the largest run there; if there is none (only noops went), to one of its own in front.
fn lay_out(
    stretch: &Stretch,
    batches: &mut Peekable<impl Iterator<Item = Batch>>,
    anchors: &mut Peekable<impl Iterator<Item = Anchor>>,
) -> Option<Laid> {
    let mut units = std::collections::VecDeque::new();
    let mut offset = stretch.from.1;
    while let Some(batch) = batches.next_if(|b| b.base < stretch.upto.1) {
        if batch.base < offset || i64::from(batch.term) != i64::from(stretch.term) {
            return None;
        }
        if batch.base > offset {
            units.push_back(Piece::gap(1, batch.base.0 - offset.0));
        }
        offset = batch.base.plus(u64::from(batch.offsets));
        units.push_back(Piece::of(Some(batch), None));
    }
    match stretch.upto.1.0.checked_sub(offset.0)? {
        0 => {}
        rest => units.push_back(Piece::gap(1, rest)),
    }
    let (mut out, mut index, mut sure) = (Vec::with_capacity(units.len() + 1), stretch.from.0, true);
    loop {
        let anchor = anchors.next_if(|a| a.index < stretch.upto.0);
        let at = anchor.as_ref().map_or(stretch.upto.0, |a| a.index);
        let free = at.0.checked_sub(index.0)?;
        let from = out.len();
        out.extend(units.drain(..units.len().min(usize::try_from(free).unwrap_or(usize::MAX))));
        let spare = free - (out.len() - from) as u64;
        if spare > 0 {
            sure = false;
            match out[from..].iter_mut().filter(|p| p.is_gap()).max_by_key(|p| p.offsets) {
                Some(largest) => largest.indexes += spare,
                None => out.insert(from, Piece::gap(spare, 0)),
            }
        }
        let Some(anchor) = anchor else { break };
        sure = false;
        index = anchor.index.next();
        out.push(Piece::of(None, Some(anchor)));
    }
    units.is_empty().then_some(Laid { pieces: out, sure })
}

/// Divides runs until there are so many rows, as far as that goes.
fn split_to(pieces: &mut [(u32, Vec<Piece>)], rows: u32) {
    let have: usize = pieces.iter().map(|(_, of_term)| of_term.len()).sum();
    let mut more = (rows as usize).saturating_sub(have);
    for (_, of_term) in pieces {
        let mut at = 0;
        while at < of_term.len() && more > 0 {
            let parts = more.min(of_term[at].indexes as usize - 1);
            of_term[at].indexes -= parts as u64;
            more -= parts;
            of_term.splice(at + 1..at + 1, (0..parts).map(|_| Piece::gap(1, 0)));
            at += parts + 1;
        }
    }
}

fn made(lost: &Lost<'_>, pieces: Vec<(u32, Vec<Piece>)>, log_sum: u64) -> Made {
    let mut made = Made { rows: Vec::new(), log_sum, min_ts: i64::MAX };
    let (mut index, mut offset, mut pos, mut max_ts) = (lost.header.base_index, lost.header.base_offset, 0u32, -1i64);
    let mut ext_end = 0u32;
    for (term, of_term) in pieces {
        for Piece { indexes, offsets, batch, anchor } in of_term {
            if let Some(batch) = batch {
                max_ts = max_ts.max(batch.max_ts);
                made.min_ts = made.min_ts.min(batch.max_ts);
            }
            let kind = match (&batch, &anchor) {
                (Some(_), _) => EntryKind::Data,
                (None, Some(anchor)) => anchor.kind,
                (None, None) => EntryKind::Gap,
            };
            let (ext_pos, ext_len) = anchor.as_ref().map_or((ext_end, 0), |a| (a.at, a.len));
            let of_context = anchor.map_or(0, |a| derive_flags(kind, &[], &a.context));
            made.rows.push(Row {
                index,
                term: LeaderEpoch(term),
                kind,
                flags: batch.map_or(0, |b| b.flags) | of_context,
                base_offset: offset,
                count: offsets as u32,
                max_ts,
                pos,
                len: batch.map_or(if kind == EntryKind::Gap { indexes as u32 } else { 0 }, |b| b.len),
                ext_pos,
                ext_len,
            });
            index = EntryIndex(index.0 + indexes);
            offset = offset.plus(offsets);
            pos += batch.map_or(0, |b| b.len);
            ext_end = ext_pos + u32::from(ext_len);
        }
    }
    made
}
