//! Compaction of one replica's log, step by step: maps keys, writes new segments beside the old ones, hands each over for
//! the switch. Blocking; called from a thread that may wait, never under a partition's lock.
//!
//! ```text
//!  begin ─▶ markers ─▶ map keys ─▶ write a group of segments ─▶ sync ─▶ Switch ─(switched)─▶ next group … ─▶ Done
//!              ▲                                                                                  │ the map was full
//!              └──────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! Sketch: every byte is read twice (map, write) and written once; memory is the map, one window of 1 MiB per file, the
//! rows of the segment that is read and of the one that is written. The caller paces it by what each step says it moved.
//!
//! Invariants: nothing of the old files is touched; a new file is named by a generation that no file of the directory
//! has; its names and bytes are durable before `Switch` is said; a batch that does not agree with its row ends the run
//! (damage is never copied into a file that looks whole). What a crash leaves behind belongs to nothing and is removed.

use crate::compact::map::KeyMap;
use crate::compact::rows::{Folding, folds, last_index, span};
use crate::compact::{Fate, LastOfProducers, Markers, Nature, NatureOf, Pass, Policy, group, marker};
use crate::disk::{Disk, DiskError, DiskExt, DiskFault};
use crate::entry::{EntryKind, Row, SegmentInfo, row_flag};
use crate::fences::{SegmentRows, end_offset as end};
use crate::format::manifest::SegmentState;
use crate::format::row::{self, EntHeader, Footer};
use crate::format::txn::Aborted;
use crate::segment::{Replacement, Segment, segment_stem};
use bytes::Bytes;
use catchwater_base::{crash_point, mutant};
use catchwater_record::batch::rewrite::RewriteError;
use catchwater_record::crc::Crc64;
use catchwater_record::{BatchView, EntryIndex, Gid, Offset};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// What a run works on.
#[derive(Clone, Debug)]
pub struct Job {
    pub gid: Gid,
    /// The group's directory.
    pub dir: String,
    /// Sealed segments from the first one on; those from `dirty_from` on have not been compacted.
    pub segments: Vec<SegmentInfo>,
    pub dirty_from: usize,
    pub policy: Policy,
    pub now_ms: i64,
    /// Key of the map's hash: unguessable.
    pub secret: (u64, u64),
    /// Memory of the map, bytes.
    pub map_bytes_max: u64,
    /// What one batch may give out when it is opened, bytes.
    pub output_bytes_max: usize,
    pub producers: LastOfProducers,
    /// Entries that hold the newest position of a capture.
    pub captures: BTreeSet<EntryIndex>,
    /// Aborted transactions with records in these segments and the marker behind them.
    pub aborted: Vec<Aborted>,
    pub nature: NatureOf,
    /// No other replica has this log or ever gets it. If others have, what went stays apart index by index, and tombstones and
    /// markers stay.
    pub alone: bool,
}

/// Why a run ended before its end. The old segments stay.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    #[error("the disk failed")]
    Disk(#[from] DiskError),
    #[error("stored bytes at {file}:{pos} are damaged")]
    Damaged { file: String, pos: u32 },
    #[error("the batch at offset {at} cannot be opened: {why}")]
    Batch { at: Offset, why: RewriteError },
    #[error("the keys of one batch do not fit into {0} bytes of memory")]
    Memory(u64),
    /// Retention has taken a segment, or the topic is gone.
    #[error("the segments have changed meanwhile")]
    Changed,
}

impl CompactError {
    /// Nothing is wrong: the log moved on.
    pub fn is_harmless(&self) -> bool {
        match self {
            CompactError::Changed => true,
            CompactError::Disk(e) => e.kind == DiskFault::NotFound,
            _ => false,
        }
    }
}

/// What a run did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    pub passes: u32,
    pub bytes_before: u64,
    pub bytes_after: u64,
    pub batches_before: u64,
    pub batches_after: u64,
    pub segments_before: u32,
    pub segments_after: u32,
}

/// What a step has come to.
#[derive(Debug)]
pub enum Progress {
    /// So many bytes were read and written.
    More(u64),
    /// Durable beside the old ones: switch, then call [`CompactRun::switched`].
    Switch(Box<Replacement>),
    Done(Stats),
}

/// Bytes read from a file at a time, and written.
const WINDOW_BYTES: usize = 1 << 20;

/// See the file head.
pub struct CompactRun {
    job: Job,
    phase: Phase,
    generation: u32,
    markers: Markers,
    map: KeyMap,
    /// First offset whose keys are mapped in this pass, and behind the last one.
    mapped_from: Offset,
    mapped_to: Offset,
    /// Lengths of the groups that are still to be written; the first begins at `next`.
    groups: VecDeque<usize>,
    next: usize,
    with_data: BTreeSet<i64>,
    window: Window,
    /// Rows of the segment that is worked on, and its number.
    table: Option<(usize, Arc<[Row]>)>,
    stats: Stats,
}

enum Phase {
    Begin,
    Markers {
        segment: usize,
        row: usize,
    },
    Map {
        segment: usize,
        row: usize,
    },
    Write(Box<Output>),
    /// Waits for [`CompactRun::switched`].
    Switching(Box<Replacement>),
    Over,
}

/// The segment that is being written.
struct Output {
    segments: usize,
    /// The next row to look at.
    segment: usize,
    row: usize,
    prev_term: u32,
    stem: String,
    folding: Folding,
    log: Writer,
    ext: Writer,
    batches: u64,
    deletes_gone: Offset,
}

struct Writer {
    path: String,
    buffer: Vec<u8>,
    written: u64,
    sum: Crc64,
    made: bool,
}

impl Writer {
    fn new(path: String) -> Self {
        Writer { path, buffer: Vec::new(), written: 0, sum: Crc64::default(), made: false }
    }
    fn flush(&mut self, disk: &dyn Disk) -> Result<(), DiskError> {
        if !std::mem::replace(&mut self.made, true) {
            disk.create_new(&self.path)?;
        }
        let bytes = Bytes::from(std::mem::take(&mut self.buffer));
        if !bytes.is_empty() {
            self.sum.update(&bytes);
            crash_point!("switch.before_write");
            disk.write(&self.path, self.written, bytes.clone())?;
            crash_point!("switch.after_write");
            self.written += bytes.len() as u64;
        }
        Ok(())
    }
}

/// The last piece read of a file.
#[derive(Default)]
struct Window {
    path: String,
    at: u64,
    bytes: Bytes,
    read: u64,
}

impl Window {
    fn get(&mut self, disk: &dyn Disk, path: &str, at: u64, len: usize) -> Result<Bytes, DiskError> {
        let inside = |w: &Window| {
            let from = usize::try_from(at.checked_sub(w.at)?).ok()?;
            (w.path == path && from + len <= w.bytes.len()).then_some(from)
        };
        if let Some(from) = inside(self) {
            return Ok(self.bytes.slice(from..from + len));
        }
        self.bytes = disk.read(path, at, len.max(WINDOW_BYTES))?;
        self.read += self.bytes.len() as u64;
        (self.path, self.at) = (path.to_owned(), at);
        Ok(self.bytes.slice(..len.min(self.bytes.len())))
    }
}

impl CompactRun {
    pub fn new(job: Job) -> Self {
        let map = KeyMap::new(job.map_bytes_max, job.secret);
        let mapped_from = job.segments.get(job.dirty_from).map_or(Offset::ZERO, |s| s.base_offset);
        // Those in the segments are read from them.
        let mut markers = Markers::default();
        for aborted in &job.aborted {
            markers.note(aborted.producer.0, aborted.last, true);
        }
        CompactRun {
            job,
            phase: Phase::Begin,
            generation: 0,
            markers,
            map,
            mapped_from,
            mapped_to: mapped_from,
            groups: VecDeque::new(),
            next: 0,
            with_data: BTreeSet::new(),
            window: Window::default(),
            table: None,
            stats: Stats::default(),
        }
    }

    /// Goes on until about `budget_bytes` were moved or something is to be told.
    pub fn step(&mut self, disk: &dyn Disk, budget_bytes: u64) -> Result<Progress, CompactError> {
        let read_before = self.window.read;
        let mut written = 0;
        while self.window.read - read_before + written < budget_bytes {
            match std::mem::replace(&mut self.phase, Phase::Over) {
                Phase::Begin => self.begin(disk)?,
                Phase::Markers { segment, row } => self.mark(disk, segment, row)?,
                Phase::Map { segment, row } => self.map(disk, segment, row)?,
                Phase::Write(output) => {
                    let before = output.log.written;
                    if let Some(replacement) = self.write(disk, output)? {
                        self.phase = Phase::Switching(replacement.clone());
                        return Ok(Progress::Switch(replacement));
                    }
                    if let Phase::Write(output) = &self.phase {
                        written += output.log.written - before;
                    }
                }
                waiting @ Phase::Switching(_) => {
                    self.phase = waiting;
                    break;
                }
                Phase::Over => return Ok(Progress::Done(self.stats)),
            }
        }
        Ok(Progress::More(self.window.read - read_before + written))
    }

    /// The replacement that was handed out is in force (`Some`), or was refused: the segments have changed.
    pub fn switched(&mut self, done: bool) -> Result<(), CompactError> {
        let Phase::Switching(replacement) = std::mem::replace(&mut self.phase, Phase::Over) else { return Ok(()) };
        if !done {
            return Err(CompactError::Changed);
        }
        self.stats.segments_before += replacement.old.len() as u32;
        self.stats.segments_after += 1;
        let range = self.next..self.next + replacement.old.len();
        self.job.segments.splice(range, [replacement.info]);
        self.table = None;
        self.next += 1;
        self.next_group();
        Ok(())
    }

    fn path(&self, segment: &SegmentInfo, ext: &str) -> String {
        format!("{}/{}.{ext}", self.job.dir, segment_stem(segment.base_offset, segment.generation))
    }

    fn begin(&mut self, disk: &dyn Disk) -> Result<(), CompactError> {
        // Above every generation there is, also those that a crash has left behind.
        let found = disk.list(&self.job.dir)?;
        let generations = found.iter().filter_map(|name| name.split('.').nth(1)?.parse::<u32>().ok());
        let known = self.job.segments.iter().map(|s| s.generation);
        self.generation = generations.chain(known).max().unwrap_or(0).saturating_add(1);
        self.phase = Phase::Markers { segment: 0, row: 0 };
        Ok(())
    }

    /// The rows of a segment, from its file; `None` = there is no such segment.
    fn rows(&mut self, disk: &dyn Disk, segment: usize) -> Result<Option<Arc<[Row]>>, CompactError> {
        let Some(info) = self.job.segments.get(segment) else { return Ok(None) };
        if let Some((_, rows)) = self.table.as_ref().filter(|(at, _)| *at == segment) {
            return Ok(Some(rows.clone()));
        }
        let path = self.path(info, "ent");
        let bytes = disk.read(&path, row::HEADER_BYTES as u64, info.rows.len() * row::ROW_BYTES)?;
        let decode = |at| row::decode_row(bytes.get(at..)?, self.job.gid, info.base_index);
        let rows: Option<Arc<[Row]>> = (0..info.rows.len()).map(|i| decode(i * row::ROW_BYTES)).collect();
        let rows = rows.ok_or(CompactError::Damaged { file: path, pos: 0 })?;
        self.table = Some((segment, rows.clone()));
        Ok(Some(rows))
    }

    /// The batch of a row, checked.
    fn batch(&mut self, disk: &dyn Disk, segment: usize, row: &Row) -> Result<Bytes, CompactError> {
        let path = self.path(&self.job.segments[segment], "log");
        let bytes = self.window.get(disk, &path, u64::from(row.pos), row.len as usize)?;
        if row.flags & row_flag::DAMAGED != 0 || !row::batch_matches(row, &bytes) {
            return Err(CompactError::Damaged { file: path, pos: row.pos });
        }
        Ok(bytes)
    }

    /// One row's turn: notes a marker.
    fn mark(&mut self, disk: &dyn Disk, segment: usize, from: usize) -> Result<(), CompactError> {
        let Some(rows) = self.rows(disk, segment)? else {
            self.begin_pass();
            return Ok(());
        };
        let control = |r: &Row| r.kind == EntryKind::Data && r.flags & row_flag::CONTROL != 0;
        let Some(row) = rows.iter().skip(from).position(control).map(|i| from + i) else {
            self.phase = Phase::Markers { segment: segment + 1, row: 0 };
            return Ok(());
        };
        let at = rows[row];
        let bytes = self.batch(disk, segment, &at)?;
        if let Ok(batch) = BatchView::new(&bytes)
            && let Some(aborts) = marker(&batch)
        {
            self.markers.note(batch.raw_producer_id(), at.base_offset, aborts);
        }
        self.phase = Phase::Markers { segment, row: row + 1 };
        Ok(())
    }

    fn begin_pass(&mut self) {
        self.stats.passes += 1;
        self.map = KeyMap::new(self.job.map_bytes_max, self.job.secret);
        self.mapped_to = self.mapped_from;
        self.with_data = BTreeSet::new();
        let from = self.mapped_from;
        let segment = self.job.segments.partition_point(|s| s.rows.last().is_none_or(|r| end(r) <= from));
        self.phase = Phase::Map { segment, row: 0 };
    }

    /// One row's turn: maps its keys.
    fn map(&mut self, disk: &dyn Disk, segment: usize, row: usize) -> Result<(), CompactError> {
        let Some(rows) = self.rows(disk, segment)? else {
            self.mapped();
            return Ok(());
        };
        let Some(at) = rows.get(row).copied() else {
            self.phase = Phase::Map { segment: segment + 1, row: 0 };
            return Ok(());
        };
        self.phase = Phase::Map { segment, row: row + 1 };
        if end(&at) <= self.mapped_from {
            return Ok(());
        }
        if at.kind == EntryKind::Data && at.flags & row_flag::CONTROL == 0 && !self.put(disk, segment, &at)? {
            if self.mapped_to == self.mapped_from {
                return Err(CompactError::Memory(self.job.map_bytes_max));
            }
            self.mapped();
            return Ok(());
        }
        self.mapped_to = end(&at);
        Ok(())
    }

    /// False if the map is full.
    fn put(&mut self, disk: &dyn Disk, segment: usize, row: &Row) -> Result<bool, CompactError> {
        let bytes = self.batch(disk, segment, row)?;
        let batch = BatchView::new(&bytes).map_err(|_| self.damaged(segment, row))?;
        if batch.is_transactional() && self.markers.aborted(batch.raw_producer_id(), row.base_offset) {
            return Ok(true);
        }
        let failed = |why| CompactError::Batch { at: row.base_offset, why };
        let section = catchwater_record::compress::section(&batch, self.job.output_bytes_max)
            .map_err(|e| failed(RewriteError::Compress(e)))?;
        let count = u32::try_from(batch.records_count()).unwrap_or(0);
        let captured = row.flags & row_flag::CAPTURE != 0;
        for record in catchwater_record::batch::iterate::records(&section, count) {
            let record = record.map_err(|e| failed(RewriteError::Record(e)))?;
            let (Some(key), Ok(delta)) = (record.key, u64::try_from(record.offset_delta)) else { continue };
            if captured && (self.job.nature)(&record) == Nature::Part {
                continue;
            }
            if !self.map.put(key, row.base_offset.plus(delta)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn damaged(&self, segment: usize, row: &Row) -> CompactError {
        CompactError::Damaged { file: self.path(&self.job.segments[segment], "log"), pos: row.pos }
    }

    /// The map is made: what it covers is written in groups. A segment that it covers in part is one of its own.
    fn mapped(&mut self) {
        let (all, to) = (&self.job.segments, self.mapped_to);
        let whole = all.partition_point(|s| s.rows.last().is_none_or(|r| end(r) <= to));
        self.groups = group(&all[..whole], self.job.policy.segment_bytes).into();
        if all.get(whole).is_some_and(|s| s.base_offset < to) {
            self.groups.push_back(1);
        }
        self.next = 0;
        self.next_group();
    }

    fn next_group(&mut self) {
        let Some(segments) = self.groups.pop_front() else {
            let last = self.job.segments.last().and_then(|s| s.rows.last()).map_or(Offset::ZERO, end);
            if self.mapped_to < last {
                self.mapped_from = self.mapped_to;
                self.begin_pass();
            } else {
                self.phase = Phase::Over;
            }
            return;
        };
        let first = &self.job.segments[self.next];
        let stem = format!("{}/{}", self.job.dir, segment_stem(first.base_offset, self.generation));
        self.phase = Phase::Write(Box::new(Output {
            segments,
            segment: self.next,
            row: 0,
            prev_term: 0,
            folding: match self.job.alone || mutant!("gaps_fold_in_a_group") {
                true => Folding::new(),
                false => Folding::singly(),
            },
            log: Writer::new(format!("{stem}.log")),
            ext: Writer::new(format!("{stem}.ext")),
            stem,
            batches: 0,
            deletes_gone: Offset::ZERO,
        }));
    }

    /// Goes through rows until a window's worth is written; gives the replacement when the group is whole.
    fn write(&mut self, disk: &dyn Disk, mut out: Box<Output>) -> Result<Option<Box<Replacement>>, CompactError> {
        if out.segment == self.next && out.row == 0 {
            let path = self.path(&self.job.segments[self.next], "ent");
            let header = EntHeader::decode(&disk.read(&path, 0, row::HEADER_BYTES)?);
            out.prev_term = header.ok_or(CompactError::Damaged { file: path, pos: 0 })?.prev_term;
        }
        let read_before = self.window.read;
        while self.window.read - read_before < WINDOW_BYTES as u64 {
            let inside = out.segment < self.next + out.segments;
            let Some(rows) = (if inside { self.rows(disk, out.segment)? } else { None }) else {
                return self.close(disk, *out).map(Some);
            };
            let Some(row) = rows.get(out.row).copied() else {
                (out.segment, out.row) = (out.segment + 1, 0);
                continue;
            };
            self.write_row(disk, &mut out, &row)?;
            out.row += 1;
            if out.log.buffer.len() >= WINDOW_BYTES {
                out.log.flush(disk)?;
            }
            if out.ext.buffer.len() >= WINDOW_BYTES {
                out.ext.flush(disk)?;
            }
        }
        self.phase = Phase::Write(out);
        Ok(None)
    }

    fn write_row(&mut self, disk: &dyn Disk, out: &mut Output, row: &Row) -> Result<(), CompactError> {
        let body = if row.kind == EntryKind::Data {
            let bytes = self.batch(disk, out.segment, row)?;
            let batch = BatchView::new(&bytes).map_err(|_| self.damaged(out.segment, row))?;
            self.stats.batches_before += 1;
            self.stats.bytes_before += u64::from(row.len);
            let mut pass = Pass::new(
                (&self.map, self.mapped_to),
                &self.markers,
                &self.job.producers,
                &self.job.captures,
                (self.job.now_ms, self.job.policy.delete_retention_ms),
                (self.job.output_bytes_max, self.job.nature, self.job.alone),
                std::mem::take(&mut self.with_data),
            );
            let fate = pass.judge(row, &batch);
            let (with_data, gone) = pass.into_open();
            self.with_data = with_data;
            out.deletes_gone = out.deletes_gone.max(gone);
            match fate.map_err(|why| CompactError::Batch { at: row.base_offset, why })? {
                Fate::Same => bytes,
                Fate::New(new) => new.freeze(),
                Fate::Gone => {
                    out.folding.fold(row);
                    return Ok(());
                }
            }
        } else if folds(row.kind) && row.ext_len == 0 {
            out.folding.fold(row);
            return Ok(());
        } else {
            Bytes::new()
        };
        if row.ext_len > 0 {
            let path = self.path(&self.job.segments[out.segment], "ext");
            let record = disk.read(&path, u64::from(row.ext_pos), usize::from(row.ext_len))?;
            if row::decode_ext(row.index, &record).is_none() || record.len() != usize::from(row.ext_len) {
                return Err(CompactError::Damaged { file: path, pos: row.ext_pos });
            }
            out.ext.buffer.extend_from_slice(&record);
        }
        let max_ts = BatchView::new(&body).map_or(-1, |b| b.max_timestamp());
        if row.kind == EntryKind::Data {
            out.batches += 1;
        }
        out.folding.keep(row, body.len() as u32, row.ext_len, max_ts);
        out.log.buffer.extend_from_slice(&body);
        Ok(())
    }

    /// Everything durable, names too.
    fn close(&mut self, disk: &dyn Disk, mut out: Output) -> Result<Box<Replacement>, CompactError> {
        let old = &self.job.segments[self.next..self.next + out.segments];
        let first = &old[0];
        out.log.flush(disk)?;
        let has_ext = out.folding.ext_len() > 0;
        if has_ext {
            out.ext.flush(disk)?;
        }
        let rows = out.folding.rows();
        let end_row = rows.last().ok_or(CompactError::Changed)?;
        let (last_at, next_offset) = (last_index(end_row), end(end_row));
        let indexes: u64 = rows.iter().map(span).sum();
        let header = EntHeader {
            gid: self.job.gid,
            base_index: first.base_index,
            base_offset: first.base_offset,
            prev_term: out.prev_term,
            generation: self.generation,
            created_ms: first.created_ms,
        };
        let mut ent = header.encode();
        for row in rows {
            row::encode_row(&mut ent, self.job.gid, first.base_index, row);
        }
        let mut sum = Crc64::default();
        sum.update(&ent);
        let footer = Footer {
            rows: rows.len() as u32,
            last_index: last_at,
            next_offset,
            log_len: out.log.written,
            log_crc64: out.log.sum.finish(),
            ent_crc64: sum.finish(),
            ext_crc64: out.ext.sum.finish(),
            min_ts: out.folding.min_ts(),
            max_ts: out.folding.max_ts(),
            ext_len: out.folding.ext_len(),
            txn_len: 0,
            last_term: end_row.term.0,
        };
        ent.extend_from_slice(&footer.encode());
        let ent_path = format!("{}.ent", out.stem);
        disk.create_new(&ent_path)?;
        crash_point!("switch.before_write");
        disk.write(&ent_path, 0, ent.into())?;
        crash_point!("switch.after_write");
        crash_point!("switch.before_sync");
        disk.fdatasync(&out.log.path)?;
        if has_ext {
            disk.fdatasync(&out.ext.path)?;
        }
        disk.fdatasync(&ent_path)?;
        crash_point!("switch.after_sync");
        crash_point!("switch.before_dirsync");
        disk.sync_dir(&self.job.dir)?;
        crash_point!("switch.after_dirsync");
        self.stats.bytes_after += out.log.written;
        self.stats.batches_after += out.batches;
        // What the map does not cover to its end is dirty still.
        let compacted = next_offset <= self.mapped_to;
        let segment = Segment {
            base_index: first.base_index,
            base_offset: first.base_offset,
            generation: self.generation,
            created_ms: first.created_ms,
            state: if compacted { SegmentState::Compacted } else { SegmentState::Sealed },
            rows: rows.len() as u32,
            gaps: indexes - rows.len() as u64,
            last_term: end_row.term.0,
            next_offset,
            max_ts: out.folding.max_ts(),
            min_ts: out.folding.min_ts(),
            first_ts: None,
            log_len: out.folding.log_len(),
            ext_len: out.folding.ext_len(),
            has_ext,
            txn_len: 0,
            control: false,
            sealed_at_ms: 0,
            cut: false,
            dirty: false,
            sums: None,
        };
        let old = old.iter().map(|s| (s.base_index, s.generation)).collect();
        let mut rows = SegmentRows::from(out.folding.into_rows());
        rows.fence(last_at, 0);
        let info = SegmentInfo {
            base_index: first.base_index,
            base_offset: first.base_offset,
            generation: self.generation,
            sealed: true,
            compacted,
            created_ms: first.created_ms,
            rows,
        };
        // A name of one generation is used once, also by the passes of one run.
        self.generation = self.generation.saturating_add(1);
        Ok(Box::new(Replacement { old, segment, info, deletes_gone: out.deletes_gone }))
    }
}
