//! Aborted transactions of sealed segments: read from their `.txn`, or found again in the batches, and put back into the state
//! that the newest snapshot tells, which leaves them out.

use super::group::{Found, Reader};
use crate::disk::DiskError;
use crate::entry::row_flag;
use crate::format::snap::{SECTION_ABORTED, put_section, sections};
use crate::format::txn::Aborted;
use crate::producer::{BatchMark, Producer, Producers};
use crate::segment::segment_stem;
use crate::txn::{Marker, Transactions};
use bytes::Bytes;
use catchwater_record::{EntryIndex, Offset};

impl Reader<'_> {
    /// What the segment's `.txn` says; `None` = it is not whole.
    pub(super) fn txn_file(&self, stem: &str) -> Result<Option<(u32, Vec<Aborted>)>, DiskError> {
        let Some(bytes) = self.all(&format!("{stem}.txn"))? else { return Ok(None) };
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Ok(Aborted::decode_all(&bytes).map(|rows| (len, rows)))
    }

    /// The payload of the newest snapshot with everything that was aborted below it. Files that are lost are made again if
    /// the batches say exactly as much as the footer does.
    pub(super) fn with_aborted(
        &mut self,
        segments: &[Found],
        snap: (EntryIndex, Offset, Bytes),
    ) -> Result<(EntryIndex, Bytes), DiskError> {
        let (index, next_offset, payload) = snap;
        let (mut filed, mut lost) = (Vec::new(), Vec::new());
        for found in segments.iter().filter(|f| !f.segment.is_open()) {
            let s = &found.segment;
            let stem = segment_stem(s.base_offset, s.generation);
            let inside = |a: &Aborted| s.base_offset <= a.last && a.last < s.next_offset;
            match if s.txn_len > 0 || found.table_lost { self.txn_file(&stem)? } else { None } {
                Some((len, rows)) if (len == s.txn_len || found.table_lost) && rows.iter().all(inside) => {
                    filed.extend(rows);
                }
                // A table that was made again does not say whether there was one.
                _ if s.txn_len > 0 || (found.table_lost && s.control) => lost.push((s.clone(), stem)),
                _ => {}
            }
        }
        if !lost.is_empty() {
            let all = self.aborted_of(segments)?;
            for (segment, stem) in lost {
                let mine = all.iter().filter(|a| segment.base_offset <= a.last && a.last < segment.next_offset);
                let mut bytes = Vec::new();
                mine.clone().for_each(|a| a.encode(&mut bytes));
                if bytes.len() == segment.txn_len as usize && !bytes.is_empty() {
                    self.made_again(&format!("{stem}.txn"), bytes.into());
                }
                filed.extend(mine.copied());
            }
        }
        filed.retain(|a| a.last < next_offset);
        if filed.is_empty() {
            return Ok((index, payload));
        }
        let Some(all) = sections(&payload) else { return Ok((index, payload)) };
        let mut out = Vec::with_capacity(payload.len());
        for (kind, section) in all {
            match Aborted::decode_all(&section).filter(|_| kind == SECTION_ABORTED) {
                Some(rows) => filed.extend(rows),
                None => put_section(&mut out, kind, &section),
            }
        }
        filed.sort_by_key(|a| a.last);
        filed.dedup_by_key(|a| a.last);
        let mut rows = Vec::new();
        filed.iter().for_each(|a| a.encode(&mut rows));
        put_section(&mut out, SECTION_ABORTED, &rows);
        Ok((index, out.into()))
    }

    /// What was aborted, by the batches of all segments. A batch that is damaged makes the replica `Damaged`.
    fn aborted_of(&mut self, segments: &[Found]) -> Result<Vec<Aborted>, DiskError> {
        let (mut producers, mut transactions) = (Producers::default(), Transactions::default());
        let mut last = EntryIndex::ZERO;
        for (row, header, _) in self.since(segments, EntryIndex::ZERO)? {
            last = row.index;
            if row.flags & (row_flag::TRANSACTIONAL | row_flag::CONTROL) == 0 {
                continue;
            }
            let Some(mark) = BatchMark::read(&header) else { continue };
            let Some((id, before)) = producers.append(&mark, row.base_offset) else { continue };
            let was = before.and_then(|p| p.open_transaction());
            let now = producers.get(id).and_then(Producer::open_transaction);
            transactions.moved(id, was, now);
            if let (Some(marker), Some(first), None) = (Marker::read(&header), was, now) {
                transactions.end(row.index, id, first, row.base_offset, marker);
            }
        }
        transactions.committed(last);
        Ok(transactions.aborted(Offset::ZERO, Offset(u64::MAX)).copied().collect())
    }
}
