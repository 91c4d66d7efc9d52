//! Reads of stored bytes, each checked against the row that vouches for it. Blocking; called from the broker's blocking
//! pool, from the driver and from the simulator. [`read_batches_hot`] does not wait: it may be called anywhere.

use crate::compact::rows::last_index;
use crate::disk::{Disk, DiskDone, DiskError, DiskExt, DiskFault, DiskOp, Hot};
use crate::entry::{EntryKind, FileRead, Row, RowRead, SegmentInfo};
use crate::fences::{STEP, end_offset};
use crate::format::row;
use crate::recover::Layout;
use crate::segment::{group_dir, segment_stem};
use bytes::Bytes;
use catchwater_base::mutant;
use catchwater_record::{EntryIndex, Gid, Offset};
use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

/// Why stored bytes could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("the disk failed")]
    Disk(#[from] DiskError),
    /// The bytes are not what was written: never served.
    #[error("stored bytes of partition {gid} at {file}:{pos} are damaged")]
    Damaged { gid: Gid, file: String, pos: u32 },
    /// Retention or truncation has removed them since the read was planned; plan again.
    #[error("stored bytes of partition {0} are gone")]
    Gone(Gid),
}

/// Batches of a segment, whole: length, base offset, term, count and CRC of each agree with its row. Ends before one that
/// does not, and says so only when it is the first.
pub fn read_batches(disk: &dyn Disk, layout: &Layout, read: &FileRead) -> Result<Bytes, ReadError> {
    let segment = Segment::new(disk, layout, read.gid, (read.base_index, read.base_offset, read.generation));
    segment.batches(read)
}

/// The same, if every byte it looks at is in memory: the batches and the rows that vouch for them. `None` = something is
/// not, or the disk cannot say; then [`read_batches`] on a thread that may wait.
pub fn read_batches_hot(disk: &dyn Disk, layout: &Layout, read: &FileRead) -> Option<Result<Bytes, ReadError>> {
    let warm = Warm { disk, cold: AtomicBool::new(false) };
    let read = read_batches(&warm, layout, read);
    // Whatever went wrong on the way is judged by the reader that may wait.
    (!warm.cold.load(Ordering::Relaxed)).then_some(read)
}

/// Rows of a segment. Each is what was written, or it is an error.
pub fn read_rows(disk: &dyn Disk, layout: &Layout, read: &RowRead) -> Result<Vec<Row>, ReadError> {
    let segment = Segment::new(disk, layout, read.gid, (read.base_index, read.base_offset, read.generation));
    let mut out = Vec::new();
    let mut rows = Rows::new(&segment, read.first, read.rows);
    let mut bytes = 0;
    while let Some(row) = rows.next(PAGE_ROWS_MAX)? {
        let row = row.ok_or_else(|| segment.damaged(0))?;
        if last_index(&row) < read.from {
            continue;
        }
        let body = if row.kind == EntryKind::Data { row.len } else { 0 };
        bytes += u64::from(body) + u64::from(row.ext_len);
        if row.index >= read.below || (!out.is_empty() && bytes > read.max_bytes) {
            break;
        }
        out.push(row);
    }
    Ok(out)
}

/// All rows of a segment, of what recovery left in memory or from its file (`dir` = the partition's directory).
pub(crate) fn rows_of<'a>(
    disk: &dyn Disk,
    (dir, gid): (&str, Gid),
    info: &'a SegmentInfo,
) -> Result<Cow<'a, [Row]>, DiskError> {
    if info.rows.fenced() == 0 {
        return Ok(info.rows.whole().into());
    }
    let path = format!("{dir}/{}.ent", segment_stem(info.base_offset, info.generation));
    let count = info.rows.len();
    let bytes = disk.read(&path, row::HEADER_BYTES as u64, count * row::ROW_BYTES)?;
    let rows: Option<Vec<Row>> =
        (0..count).map(|i| row::decode_row(bytes.get(i * row::ROW_BYTES..)?, gid, info.base_index)).collect();
    // Recovery could read them.
    rows.map(Cow::from).ok_or(DiskError { op: "read again", path: path.into(), kind: DiskFault::Io })
}

/// A disk that gives what is in memory, and otherwise fails and says so.
struct Warm<'a> {
    disk: &'a dyn Disk,
    cold: AtomicBool,
}

impl Disk for Warm<'_> {
    fn run(&self, op: DiskOp) -> Result<DiskDone, DiskError> {
        match op {
            DiskOp::Read { path, at, len } => {
                let mut bytes = vec![0; len];
                let mut have = 0;
                while have < len {
                    match self.disk.try_hot(&path, at + have as u64, &mut bytes[have..]) {
                        Hot::Hit(0) => break,
                        Hot::Hit(n) => have += n,
                        Hot::Cold | Hot::Unsupported => {
                            self.cold.store(true, Ordering::Relaxed);
                            return Err(DiskError { op: "read", path, kind: DiskFault::Io });
                        }
                    }
                }
                bytes.truncate(have);
                Ok(DiskDone::Read(bytes.into()))
            }
            // What the kernel knows of an open file.
            DiskOp::Length { .. } => self.disk.run(op),
            other => {
                self.cold.store(true, Ordering::Relaxed);
                Err(DiskError { op: "read", path: other.path().clone(), kind: DiskFault::Io })
            }
        }
    }
}

/// Rows read at once behind the first page, at most.
const PAGE_ROWS_MAX: usize = 4 * STEP;

struct Segment<'a> {
    disk: &'a dyn Disk,
    gid: Gid,
    base_index: EntryIndex,
    log: String,
    ent: String,
}

/// The rows of a segment, page by page.
struct Rows<'a> {
    segment: &'a Segment<'a>,
    page: Bytes,
    /// Number of the row after those of the page, and where rows end.
    next: u32,
    end: u32,
}

impl<'a> Rows<'a> {
    fn new(segment: &'a Segment<'a>, first: u32, end: u32) -> Self {
        Rows { segment, page: Bytes::new(), next: first, end }
    }

    /// The next row, `None` inside = it is damaged. The first page is of [`STEP`] rows: there a look-up ends mostly; those
    /// behind it of `ahead`.
    fn next(&mut self, ahead: usize) -> Result<Option<Option<Row>>, ReadError> {
        if self.page.len() < row::ROW_BYTES {
            let count = self.end.saturating_sub(self.next).min(ahead as u32);
            if count == 0 {
                return Ok(None);
            }
            let at = row::HEADER_BYTES as u64 + u64::from(self.next) * row::ROW_BYTES as u64;
            let segment = self.segment;
            let read = segment.disk.read(&segment.ent, at, count as usize * row::ROW_BYTES);
            self.page = read.map_err(|e| segment.gone(e))?;
            self.next += count;
            if self.page.len() < row::ROW_BYTES {
                return Ok(None);
            }
        }
        let bytes = self.page.split_to(row::ROW_BYTES);
        Ok(Some(row::decode_row(&bytes, self.segment.gid, self.segment.base_index)))
    }
}

impl<'a> Segment<'a> {
    fn new(disk: &'a dyn Disk, layout: &Layout, gid: Gid, of: (EntryIndex, Offset, u32)) -> Self {
        let (base_index, base_offset, generation) = of;
        let stem = format!("{}/{}", group_dir(&layout.groups(), gid), segment_stem(base_offset, generation));
        Segment { disk, gid, base_index, log: format!("{stem}.log"), ent: format!("{stem}.ent") }
    }

    fn gone(&self, error: DiskError) -> ReadError {
        if error.kind == DiskFault::NotFound { ReadError::Gone(self.gid) } else { ReadError::Disk(error) }
    }

    fn damaged(&self, pos: u32) -> ReadError {
        ReadError::Damaged { gid: self.gid, file: self.log.clone(), pos }
    }

    /// The rows of the batches that are wanted: one run of bytes.
    fn wanted(&self, read: &FileRead) -> Result<Vec<Row>, ReadError> {
        let mut rows = Rows::new(self, read.first, read.rows);
        let mut out: Vec<Row> = Vec::new();
        let (mut bytes, mut doubt) = (0u64, false);
        while let Some(row) = rows.next(if out.is_empty() { STEP } else { PAGE_ROWS_MAX })? {
            let Some(row) = row else {
                // A damaged row: it may be of the first batch, and what is behind it cannot follow what is before it.
                doubt = true;
                if out.is_empty() { continue } else { break }
            };
            if row.base_offset >= read.upto {
                break;
            }
            // An internal entry, or a gap, takes no bytes; before the first one there are old ones, down to the fence.
            if row.kind != EntryKind::Data || (out.is_empty() && end_offset(&row) <= read.from) {
                continue;
            }
            if out.is_empty() && doubt && row.base_offset > read.from {
                return Err(self.damaged(row.pos));
            }
            let sum = bytes + u64::from(row.len);
            let first = out.is_empty() && read.at_least_one;
            let follows =
                out.last().is_none_or(|before| u64::from(before.pos) + u64::from(before.len) == u64::from(row.pos));
            if !follows || (!first && sum > u64::from(read.max_bytes)) {
                break;
            }
            bytes = sum;
            out.push(row);
        }
        if out.is_empty() && doubt { Err(self.damaged(0)) } else { Ok(out) }
    }

    fn batches(&self, read: &FileRead) -> Result<Bytes, ReadError> {
        let rows = self.wanted(read)?;
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(Bytes::new()) };
        let len = (last.pos - first.pos) as usize + last.len as usize;
        let mut bytes = self.disk.read(&self.log, u64::from(first.pos), len).map_err(|e| self.gone(e))?;
        for row in &rows {
            let at = (row.pos - first.pos) as usize;
            let body = bytes.get(at..at + row.len as usize);
            if body.is_some_and(|body| row::batch_matches(row, body)) || mutant!("read_unverified") {
                continue;
            }
            if at == 0 {
                return Err(self.damaged(row.pos));
            }
            bytes.truncate(at);
            break;
        }
        Ok(bytes)
    }
}
