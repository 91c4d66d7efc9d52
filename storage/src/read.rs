//! Reads of stored bytes, each checked against the row that vouches for it. Blocking; called from the broker's blocking
//! pool, from the driver and from the simulator. [`read_range_hot`] does not wait: it may be called anywhere.

use crate::disk::{Disk, DiskDone, DiskError, DiskExt, DiskFault, DiskOp, Hot};
use crate::entry::{EntryKind, FileRange, Row};
use crate::format::row::{self, EntHeader};
use crate::recover::Layout;
use crate::segment::{group_dir, segment_stem};
use bytes::Bytes;
use catchwater_base::mutant;
use catchwater_record::Gid;
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

struct Segment<'a> {
    disk: &'a dyn Disk,
    range: &'a FileRange,
    log: String,
    ent: String,
}

/// The batches of a range, whole: length, base offset, term, count and CRC of each agree with its row.
pub fn read_range(disk: &dyn Disk, layout: &Layout, range: &FileRange) -> Result<Bytes, ReadError> {
    let stem =
        format!("{}/{}", group_dir(&layout.groups(), range.gid), segment_stem(range.base_offset, range.generation));
    let segment = Segment { disk, range, log: format!("{stem}.log"), ent: format!("{stem}.ent") };
    segment.read()
}

/// The same, if every byte it looks at is in memory: the batches and the rows that vouch for them. `None` = something is
/// not, or the disk cannot say; then [`read_range`] on a thread that may wait.
pub fn read_range_hot(disk: &dyn Disk, layout: &Layout, range: &FileRange) -> Option<Result<Bytes, ReadError>> {
    let warm = Warm { disk, cold: AtomicBool::new(false) };
    let read = read_range(&warm, layout, range);
    // Whatever went wrong on the way is judged by the reader that may wait.
    (!warm.cold.load(Ordering::Relaxed)).then_some(read)
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

impl Segment<'_> {
    fn gone(&self, error: DiskError) -> ReadError {
        if error.kind == DiskFault::NotFound { ReadError::Gone(self.range.gid) } else { ReadError::Disk(error) }
    }

    fn damaged(&self, pos: u32) -> ReadError {
        ReadError::Damaged { gid: self.range.gid, file: self.log.clone(), pos }
    }

    fn row(&self, header: &EntHeader, at: u64) -> Result<Option<Row>, ReadError> {
        let at = row::HEADER_BYTES as u64 + at * row::ROW_BYTES as u64;
        let bytes = self.disk.read(&self.ent, at, row::ROW_BYTES).map_err(|e| self.gone(e))?;
        Ok(row::decode_row(&bytes, self.range.gid, header.base_index))
    }

    fn read(&self) -> Result<Bytes, ReadError> {
        let range = self.range;
        let bytes = self.disk.read(&self.log, u64::from(range.pos), range.len as usize).map_err(|e| self.gone(e))?;
        if bytes.len() != range.len as usize {
            return Err(self.damaged(range.pos));
        }
        let header = self.disk.read(&self.ent, 0, row::HEADER_BYTES).map_err(|e| self.gone(e))?;
        let header = EntHeader::decode(&header).ok_or_else(|| self.damaged(range.pos))?;
        let length = self.disk.length(&self.ent).map_err(|e| self.gone(e))?;
        let rows = length.saturating_sub(row::HEADER_BYTES as u64) / row::ROW_BYTES as u64;
        // The first row at or behind the range's start. What is no row (a footer) ends the search like a high key; a
        // damaged row in the way leads to a row that does not fit, and so to an error, never to other bytes.
        let (mut low, mut high) = (0, rows);
        while low < high {
            let mid = low + (high - low) / 2;
            match self.row(&header, mid)? {
                Some(row) if row.pos < range.pos => low = mid + 1,
                _ => high = mid,
            }
        }
        let mut at = 0usize;
        while at < bytes.len() {
            let pos = range.pos + at as u32;
            let row = self.row(&header, low)?.ok_or_else(|| self.damaged(pos))?;
            low += 1;
            if row.kind != EntryKind::Data {
                continue; // an internal entry, or a gap, between the batches
            }
            let end = at + row.len as usize;
            let body = bytes.get(at..end).filter(|_| row.pos == pos).ok_or_else(|| self.damaged(pos))?;
            if !row::batch_matches(&row, body) && !mutant!("read_unverified") {
                return Err(self.damaged(pos));
            }
            at = end;
        }
        Ok(bytes)
    }
}
