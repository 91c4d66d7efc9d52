//! What recovery reads behind a replica's newest snapshot: the batches and contexts that say what producers, transactions
//! and captures did since.
//!
//! Invariant: nothing is taken from bytes that nobody vouches for. A batch counts when it is the batch of its row and its
//! checksum holds; one that does not makes the replica `Damaged`, for what its producers may write next is then unknown:
//! a start that believed zeros took their next batches for out of order, or their last ones a second time.

use super::group::{Found, Reader};
use crate::disk::{DiskError, DiskExt, DiskFault};
use crate::entry::{EntryKind, Row, Verdict, row_flag};
use crate::format::row;
use crate::segment::segment_stem;
use bytes::Bytes;
use catchwater_record::EntryIndex;
use catchwater_record::batch::HEADER_BYTES as BATCH_HEADER_BYTES;

/// Control batches hold one small record.
const CONTROL_BYTES_MAX: usize = 4096;

/// Read at a time: batches lie behind each other, so one read serves many.
const PIECE_BYTES: usize = 4 << 20;

/// Flags of rows whose batches tell of producers and transactions.
const SAYS_MORE: u8 = row_flag::IDEMPOTENT | row_flag::TRANSACTIONAL | row_flag::CONTROL | row_flag::DAMAGED;

impl Reader<'_> {
    /// Rows behind the snapshot with their contexts, and the headers of those batches that say anything of producers. A log
    /// that nobody writes with a producer id is not read at all: that would be all that 16 MiB per partition hold.
    pub(super) fn since(
        &mut self,
        segments: &[Found],
        snap: EntryIndex,
    ) -> Result<Vec<(Row, Bytes, Bytes)>, DiskError> {
        let mut out = Vec::new();
        for found in segments.iter().filter(|f| f.segment.last_index() > snap) {
            let name = self.path(&format!("{}.log", segment_stem(found.segment.base_offset, found.segment.generation)));
            let (mut piece, mut piece_at) = (Bytes::new(), 0usize);
            let again = if found.fenced.is_some() { self.rows_again(found)? } else { Vec::new() };
            for row in found.rows.iter().chain(&again).filter(|r| r.index > snap) {
                let mut header = Bytes::new();
                if row.kind == EntryKind::Data && row.flags & SAYS_MORE != 0 {
                    let (at, len) = (row.pos as usize, row.len as usize);
                    if at < piece_at || at + len > piece_at + piece.len() {
                        piece = match self.disk.read(&name, at as u64, len.max(PIECE_BYTES)) {
                            Err(e) if e.kind == DiskFault::NotFound => Bytes::new(),
                            other => other?,
                        };
                        piece_at = at;
                    }
                    // A marker says in its record what it ends.
                    let control = row.flags & row_flag::CONTROL != 0 && len < CONTROL_BYTES_MAX;
                    let head = if control { len } else { BATCH_HEADER_BYTES };
                    let batch = piece.get(at - piece_at..at - piece_at + len);
                    match batch.filter(|b| row::batch_matches(row, b)) {
                        Some(batch) => header = Bytes::copy_from_slice(&batch[..head.min(len)]),
                        None => self.worse(Verdict::Damaged),
                    }
                }
                let context = match self.context(&found.segment, row)? {
                    Some(context) => context,
                    None => {
                        self.worse(Verdict::Damaged);
                        Bytes::new()
                    }
                };
                out.push((*row, header, context));
            }
        }
        Ok(out)
    }
}
