//! What a repair takes out of a segment: entries whose row or batch is damaged or cannot be read become gaps, as compaction
//! leaves them; everything else is copied, byte for byte, into a sealed segment of a new generation.
//!
//! ```text
//!  before   <base>.log .ent .ext         data | data | ##### | data | noop | ##### (the table ends here)
//!  after    <base>.<gen>.log .ent .ext   data | data | gap   | data | noop | gap   footer
//! ```
//! Indexes and offsets stay dense, so whoever reads meets a hole in the offsets and goes on behind it. Where a lost run ends,
//! its neighbours say: the next row, the next segment, the first entry of the journal. A batch whose context alone is damaged
//! stays and loses the context.

use crate::compact::rows::{Folding, last_index, span};
use crate::disk::{Disk, DiskError, DiskExt, DiskFault};
use crate::entry::{EntryKind, Row, SegmentInfo, row_flag};
use crate::format::context::EntryContext;
use crate::format::manifest::SegmentState;
use crate::format::row::{self, EntHeader, Footer};
use crate::read::rows_of;
use crate::recover::forgiving::Forgiving;
use crate::segment::{Segment, segment_stem};
use bytes::Bytes;
use catchwater_record::crc::Crc64;
use catchwater_record::{BatchView, EntryIndex, Gid, LeaderEpoch, Offset};

/// Bytes read or written at a time, about.
const PIECE_BYTES: usize = 1 << 20;

/// Offsets `from..to` that are lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LostRange {
    pub from: Offset,
    pub to: Offset,
}

/// What is lost of a partition's files.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lost {
    /// Ascending, apart from each other.
    pub offsets: Vec<LostRange>,
    /// Entries, records or not.
    pub entries: u64,
    /// Batches that stay and lose what their entry said besides (a capture's position).
    pub contexts: u64,
}

/// What stays of one segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Cut {
    /// Which of the partition's segments.
    pub at: usize,
    /// Where what follows begins.
    pub end: (EntryIndex, Offset),
}

/// Where bytes of one segment are read from.
struct Source<'a> {
    disk: &'a dyn Disk,
    log: String,
    ext: String,
    window: (u64, Bytes),
}

impl<'a> Source<'a> {
    fn new(disk: &'a dyn Disk, dir: &str, segment: &Segment) -> Self {
        let stem = format!("{dir}/{}", segment_stem(segment.base_offset, segment.generation));
        Source { disk, log: format!("{stem}.log"), ext: format!("{stem}.ext"), window: (0, Bytes::new()) }
    }

    /// What cannot be read is not there.
    fn read(&self, path: &str, at: u64, len: usize) -> Result<Bytes, DiskError> {
        match self.disk.read(path, at, len) {
            Err(e) if matches!(e.kind, DiskFault::NotFound | DiskFault::Io) => Ok(Bytes::new()),
            other => other,
        }
    }

    /// The row's batch, if it is what was written.
    fn batch(&mut self, row: &Row) -> Result<Option<Bytes>, DiskError> {
        let (at, len) = (u64::from(row.pos), row.len as usize);
        let inside = |w: &(u64, Bytes)| at >= w.0 && at + len as u64 <= w.0 + w.1.len() as u64;
        if !inside(&self.window) {
            self.window = (at, self.read(&self.log, at, len.max(PIECE_BYTES))?);
            if !inside(&self.window) {
                // A bad sector behind this batch spoils the piece, not the batch.
                self.window = (at, self.read(&self.log, at, len)?);
            }
        }
        if !inside(&self.window) {
            return Ok(None);
        }
        let from = (at - self.window.0) as usize;
        let body = self.window.1.slice(from..from + len);
        Ok(row::batch_matches(row, &body).then_some(body))
    }

    /// What stays of a row, if it may follow at `at` and end at `end`, and what it points at is whole.
    fn kept(
        &mut self,
        row: &Row,
        (index, offset): (EntryIndex, Offset),
        end: (EntryIndex, Offset),
    ) -> Result<Option<Row>, DiskError> {
        let fits = row.index >= index && row.base_offset >= offset && last_index(row) < end.0 && end_of(row) <= end.1;
        // The next index at another offset: not of this log.
        let follows = row.index > index || row.base_offset == offset;
        if row.flags & row_flag::DAMAGED != 0 || !fits || !follows {
            return Ok(None);
        }
        if row.kind == EntryKind::Data && self.batch(row)?.is_none() {
            return Ok(None);
        }
        if self.context(row)?.is_some() {
            return Ok(Some(*row));
        }
        let without = Row { ext_len: 0, flags: row.flags & !row_flag::CAPTURE, ..*row };
        Ok((row.kind == EntryKind::Data).then_some(without))
    }

    /// The row's context record, if it is what was written.
    fn context(&self, row: &Row) -> Result<Option<Bytes>, DiskError> {
        if row.ext_len == 0 {
            return Ok(Some(Bytes::new()));
        }
        let record = self.read(&self.ext, u64::from(row.ext_pos), usize::from(row.ext_len))?;
        let whole = record.len() == usize::from(row.ext_len);
        let context = if whole { row::decode_ext(row.index, &record) } else { None };
        let sound = context.is_some_and(|bytes| EntryContext::decode(&Bytes::copy_from_slice(bytes)).is_ok());
        Ok(sound.then_some(record))
    }
}

fn end_of(row: &Row) -> Offset {
    row.base_offset.plus(u64::from(row.count))
}

/// Looks at everything that the segment's rows point at. `next` = where what follows begins. `None` = nothing is lost and
/// `always` is not set.
pub(super) fn survey(
    disk: &dyn Disk,
    (dir, gid, at): (&str, Gid, usize),
    (info, segment): (&SegmentInfo, &Segment),
    next: Option<(EntryIndex, Offset)>,
    always: bool,
    lost: &mut Lost,
) -> Result<Option<Cut>, DiskError> {
    let mut source = Source::new(disk, dir, segment);
    let rows = rows_of(&Forgiving::new(disk), (dir, gid), info)?;
    let rows_end =
        info.rows.last().map_or((segment.base_index, segment.base_offset), |r| (last_index(r).next(), end_of(r)));
    let end = next
        .unwrap_or((EntryIndex(rows_end.0.0.max(segment.last_index().next().0)), rows_end.1.max(segment.next_offset)));
    let (mut index, mut offset) = (segment.base_index, segment.base_offset);
    let (mut holes, mut contexts) = (Lost::default(), 0);
    let hole = |holes: &mut Lost, (index, offset): (EntryIndex, Offset), to: (EntryIndex, Offset)| {
        holes.entries += to.0.0.saturating_sub(index.0);
        if to.1 > offset {
            holes.offsets.push(LostRange { from: offset, to: to.1 });
        }
    };
    for row in rows.iter() {
        let Some(kept) = source.kept(row, (index, offset), end)? else { continue };
        contexts += u64::from(kept.ext_len != row.ext_len);
        if row.index > index {
            hole(&mut holes, (index, offset), (row.index, row.base_offset));
        }
        (index, offset) = (last_index(row).next(), end_of(row));
    }
    if index < end.0 {
        hole(&mut holes, (index, offset), end);
    }
    let whole = holes == Lost::default() && contexts == 0;
    if whole && !always {
        return Ok(None);
    }
    lost.entries += holes.entries;
    lost.contexts += contexts;
    for range in holes.offsets {
        match lost.offsets.last_mut().filter(|last| last.to == range.from) {
            Some(last) => last.to = range.to,
            None => lost.offsets.push(range),
        }
    }
    Ok(Some(Cut { at, end }))
}

/// A file that grows piece by piece.
struct Growing<'a> {
    disk: &'a dyn Disk,
    path: String,
    buffer: Vec<u8>,
    written: u64,
    sum: Crc64,
}

impl Growing<'_> {
    fn push(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() < PIECE_BYTES { Ok(()) } else { self.flush() }
    }
    fn flush(&mut self) -> Result<(), DiskError> {
        let bytes = Bytes::from(std::mem::take(&mut self.buffer));
        self.sum.update(&bytes);
        let len = bytes.len() as u64;
        self.disk.write(&self.path, self.written, bytes)?;
        self.written += len;
        Ok(())
    }
    fn close(&mut self) -> Result<(), DiskError> {
        self.flush()?;
        self.disk.fdatasync(&self.path)
    }
}

/// Writes what stays of a segment beside it, durable but for the names. Gives the segment that takes its place.
pub(super) fn write(
    disk: &dyn Disk,
    (dir, gid): (&str, Gid),
    (info, old, cut): (&SegmentInfo, &Segment, &Cut),
    (generation, prev_term, now_ms): (u32, u32, i64),
) -> Result<Segment, DiskError> {
    let mut source = Source::new(disk, dir, old);
    let stem = format!("{dir}/{}", segment_stem(old.base_offset, generation));
    let file = |ext: &str| -> Result<Growing<'_>, DiskError> {
        let path = format!("{stem}.{ext}");
        disk.create_new(&path)?;
        Ok(Growing { disk, path, buffer: Vec::new(), written: 0, sum: Crc64::default() })
    };
    let all = rows_of(&Forgiving::new(disk), (dir, gid), info)?;
    let mut keep: Vec<Row> = Vec::with_capacity(all.len());
    for row in all.iter() {
        let at = keep.last().map_or((old.base_index, old.base_offset), |r| (last_index(r).next(), end_of(r)));
        keep.extend(source.kept(row, at, cut.end)?);
    }
    drop(all);
    let mut log = file("log")?;
    let mut ext = if keep.iter().any(|r| r.ext_len > 0) { Some(file("ext")?) } else { None };
    let mut folding = Folding::new();
    let (mut index, mut offset) = (old.base_index, old.base_offset);
    let gap = |index: EntryIndex, offset: Offset, to: (EntryIndex, Offset), term: LeaderEpoch| Row {
        index,
        term,
        kind: EntryKind::Gap,
        flags: 0,
        base_offset: offset,
        count: u32::try_from(to.1.0.saturating_sub(offset.0)).unwrap_or(u32::MAX),
        max_ts: -1,
        pos: 0,
        len: u32::try_from(to.0.0 - index.0).unwrap_or(u32::MAX),
        ext_pos: 0,
        ext_len: 0,
    };
    let changed = |path: &str| DiskError { op: "read again", path: path.into(), kind: DiskFault::Io };
    for row in &keep {
        if row.index > index {
            folding.fold(&gap(index, offset, (row.index, row.base_offset), row.term));
        }
        (index, offset) = (last_index(row).next(), end_of(row));
        if row.kind == EntryKind::Gap {
            folding.fold(row);
            continue;
        }
        let mut max_ts = -1;
        if row.kind == EntryKind::Data {
            let body = source.batch(row)?.ok_or_else(|| changed(&source.log))?;
            max_ts = BatchView::new(&body).map_or(-1, |b| b.max_timestamp());
            log.push(&body)?;
        }
        if let Some(ext) = ext.as_mut().filter(|_| row.ext_len > 0) {
            let record = source.context(row)?.ok_or_else(|| changed(&source.ext))?;
            ext.push(&record)?;
        }
        let body = if row.kind == EntryKind::Data { row.len } else { 0 };
        folding.keep(row, body, row.ext_len, max_ts);
    }
    if index < cut.end.0 {
        let term = LeaderEpoch(old.last_term.max(keep.last().map_or(prev_term, |r| r.term.0)));
        folding.fold(&gap(index, offset, cut.end, term));
    }
    log.close()?;
    if let Some(ext) = &mut ext {
        ext.close()?;
    }
    // What was aborted stays so, whatever is lost: readers must not get it as if it had been committed.
    let txn = if old.txn_len > 0 { disk.read_all(&source.log.replace(".log", ".txn"))? } else { None };
    let txn_len = match txn.filter(|bytes| bytes.len() == old.txn_len as usize) {
        Some(bytes) => {
            let mut copy = file("txn")?;
            copy.push(&bytes)?;
            copy.close()?;
            old.txn_len
        }
        None => 0,
    };
    let rows = folding.rows();
    let last_term = rows.last().map_or(prev_term, |r| r.term.0);
    let header = EntHeader {
        gid,
        base_index: old.base_index,
        base_offset: old.base_offset,
        prev_term,
        generation,
        created_ms: old.created_ms,
    };
    let mut table = header.encode();
    for row in rows {
        row::encode_row(&mut table, gid, old.base_index, row);
    }
    let mut sum = Crc64::default();
    sum.update(&table);
    let footer = Footer {
        rows: rows.len() as u32,
        last_index: cut.end.0.prev(),
        next_offset: cut.end.1,
        log_len: log.written,
        log_crc64: log.sum.finish(),
        ent_crc64: sum.finish(),
        ext_crc64: ext.as_ref().map_or(Crc64::default().finish(), |e| e.sum.finish()),
        min_ts: folding.min_ts(),
        max_ts: folding.max_ts(),
        ext_len: folding.ext_len(),
        txn_len,
        last_term,
    };
    table.extend_from_slice(&footer.encode());
    let mut ent = file("ent")?;
    ent.push(&table)?;
    ent.close()?;
    let state = if old.state == SegmentState::Compacted { SegmentState::Compacted } else { SegmentState::Sealed };
    Ok(Segment {
        generation,
        state,
        rows: rows.len() as u32,
        gaps: rows.iter().map(span).sum::<u64>() - rows.len() as u64,
        last_term,
        next_offset: cut.end.1,
        max_ts: folding.max_ts(),
        min_ts: folding.min_ts(),
        first_ts: None,
        log_len: folding.log_len(),
        ext_len: folding.ext_len(),
        has_ext: ext.is_some(),
        txn_len,
        control: rows.iter().any(|r| r.flags & row_flag::CONTROL != 0),
        sealed_at_ms: if old.sealed_at_ms > 0 { old.sealed_at_ms } else { now_ms },
        cut: false,
        dirty: false,
        sums: None,
        ..old.clone()
    })
}
