//! An entry table made again from what it describes: the batches, the contexts, and where terms begin.
//!
//! Every batch says its offset, count and term; every context record is bound to its entry by its checksum; a term begins
//! with its leader's noop, at the index that the manifest names or right before the first batch of the term. So each
//! index is one thing only: with a context that, else a noop if a term begins there, else the next batch. The result
//! counts only if it ends exactly where the segment does; anything less is no table, and the segment is damaged.

use super::anchors::{VALUES_MAX, kind_of};
use super::group::{Found, Reader};
use crate::compact::rows::last_index;
use crate::disk::{DiskError, DiskExt, DiskFault};
use crate::entry::{EntryKind, EpochStart, Row, derive_flags};
use crate::format::context::{CONTEXT_BYTES_MAX, EntryContext};
use crate::format::journal::BODY_BYTES_MAX;
use crate::format::manifest::SegmentState;
use crate::format::row::{self, EXT_CRC_BYTES, EntHeader, Footer, HEADER_BYTES, ROW_BYTES};
use crate::segment::Segment;
use bytes::Bytes;
use catchwater_record::batch::HEADER_BYTES as BATCH_HEADER_BYTES;
use catchwater_record::crc::{Crc64, crc32c_of};
use catchwater_record::{BatchView, EntryIndex, LeaderEpoch, Offset};
use std::collections::BTreeMap;

const PIECE_BYTES: usize = 4 << 20;

/// What is known of a segment without its table.
pub(super) struct Lost<'a> {
    pub stem: &'a str,
    pub header: EntHeader,
    pub epochs: &'a [EpochStart],
    pub end: LostEnd,
}

/// Where the segment ends.
#[derive(Clone, Copy)]
pub(super) enum LostEnd {
    /// It is sealed: so many rows, that last term, and nothing behind the last batch.
    Sealed { rows: u32, last_term: u32 },
    /// It was open: up to the first entry that the journal has, or as far as whole batches go.
    Open { before: Option<EntryIndex> },
}

/// A whole table in place of the lost one.
pub(super) struct Made {
    pub rows: Vec<Row>,
    pub log_sum: u64,
    pub min_ts: i64,
}

/// Where contexts lie, as far as the file can be read.
struct Contexts {
    bytes: Bytes,
    at: usize,
}

impl Contexts {
    /// The record of `index`, if it is the next one: its place and length, and the context.
    fn take(&mut self, index: EntryIndex) -> Option<(u32, u16, Bytes)> {
        let rest = &self.bytes[self.at..];
        let crc = u32::from_le_bytes(rest.get(..EXT_CRC_BYTES)?.try_into().ok()?);
        // A context is a chain of values with lengths; where it ends, its checksum says.
        let mut end = EXT_CRC_BYTES;
        for _ in 0..VALUES_MAX {
            end += 2 + usize::from(*rest.get(end + 1)?);
            let data = rest.get(EXT_CRC_BYTES..end)?;
            if end > EXT_CRC_BYTES + CONTEXT_BYTES_MAX {
                return None;
            }
            if crc32c_of(&[&index.0.to_le_bytes(), data]) == crc {
                let found = (self.at as u32, end as u16, self.bytes.slice(self.at + EXT_CRC_BYTES..self.at + end));
                self.at += end;
                return Some(found);
            }
        }
        None
    }
}

impl Reader<'_> {
    /// `None`: it cannot be made again beyond doubt.
    pub(super) fn rebuild(&self, lost: &Lost<'_>) -> Result<Option<Made>, DiskError> {
        let (gid, first) = (lost.header.gid, lost.header.base_index);
        debug_assert_eq!(gid, self.gid);
        let mut contexts = Contexts { bytes: self.all(&format!("{}.ext", lost.stem))?.unwrap_or_default(), at: 0 };
        let mut log = LogReader::new(self, lost.stem);
        let mut made = Made { rows: Vec::new(), log_sum: 0, min_ts: i64::MAX };
        let (mut index, mut offset, mut term, mut pos) = (first, lost.header.base_offset, lost.header.prev_term, 0u32);
        let (mut max_ts, mut sum) = (-1i64, Crc64::default());
        let mut ext_end = 0u32;
        let epochs: BTreeMap<EntryIndex, &EpochStart> = lost.epochs.iter().map(|e| (e.index, e)).collect();
        loop {
            match lost.end {
                LostEnd::Sealed { rows, .. } if made.rows.len() as u32 == rows => break,
                LostEnd::Open { before: Some(before) } if index >= before => break,
                _ => {}
            }
            let context = contexts.take(index);
            let decoded = match &context {
                None => None,
                Some((_, _, bytes)) => match EntryContext::decode(bytes) {
                    Ok(context) => Some(context),
                    Err(_) => return Ok(None),
                },
            };
            let internal = decoded.as_ref().map(kind_of).filter(|kind| *kind != EntryKind::Data);
            let begins = epochs.get(&index).filter(|e| e.offset == offset && e.term > term);
            let batch = log.batch(pos)?;
            let (kind, body) = match (internal, begins, batch) {
                (Some(kind), ..) => (kind, Bytes::new()),
                (None, Some(epoch), _) if decoded.is_none() => {
                    term = epoch.term;
                    (EntryKind::Noop, Bytes::new())
                }
                (None, _, Some(body)) => {
                    let epoch = BatchView::new(&body).map_or(-1, |b| b.leader_epoch());
                    match u32::try_from(epoch) {
                        // The first of its term, and no noop before it: it was here.
                        Ok(epoch) if epoch > term && decoded.is_none() => {
                            term = epoch;
                            (EntryKind::Noop, Bytes::new())
                        }
                        Ok(epoch) if epoch == term => (EntryKind::Data, body),
                        _ => return Ok(None),
                    }
                }
                (None, _, None) => break,
            };
            let view = BatchView::new(&body).ok();
            let count = view.as_ref().map_or(0, BatchView::offset_count);
            if let Some(batch) = &view {
                if batch.base_offset() != offset.wire() {
                    return Ok(None);
                }
                max_ts = max_ts.max(batch.max_timestamp());
                made.min_ts = made.min_ts.min(batch.max_timestamp());
                sum.update(&body);
            }
            let (ext_pos, ext_len) = context.as_ref().map_or((ext_end, 0), |(at, len, _)| (*at, *len));
            made.rows.push(Row {
                index,
                term: LeaderEpoch(term),
                kind,
                flags: derive_flags(kind, &body, context.as_ref().map_or(&[][..], |(_, _, bytes)| bytes)),
                base_offset: offset,
                count,
                max_ts,
                pos,
                len: body.len() as u32,
                ext_pos,
                ext_len,
            });
            ext_end = ext_pos + u32::from(ext_len);
            index = index.next();
            offset = offset.plus(u64::from(count));
            pos += body.len() as u32;
        }
        made.log_sum = sum.finish();
        let whole = match lost.end {
            LostEnd::Sealed { rows, last_term } => {
                made.rows.len() as u32 == rows
                    && term == last_term
                    && log.len()? == u64::from(pos)
                    && contexts.at == contexts.bytes.len()
            }
            LostEnd::Open { before: Some(before) } => index == before,
            // Behind the last whole batch nothing may be left that looks like more.
            LostEnd::Open { before: None } => log.len()? == u64::from(pos) && contexts.at == contexts.bytes.len(),
        };
        Ok(whole.then_some(made))
    }
}

/// Batches one behind the other, read in pieces.
pub(super) struct LogReader<'a> {
    reader: &'a Reader<'a>,
    name: String,
    at: u32,
    bytes: Bytes,
}

impl<'a> LogReader<'a> {
    pub(super) fn new(reader: &'a Reader<'a>, stem: &str) -> Self {
        LogReader { reader, name: format!("{stem}.log"), at: 0, bytes: Bytes::new() }
    }

    pub(super) fn len(&self) -> Result<u64, DiskError> {
        match self.reader.disk.length(&self.reader.path(&self.name)) {
            Err(e) if e.kind == DiskFault::NotFound => Ok(0),
            other => other,
        }
    }

    fn bytes(&mut self, pos: u32, len: usize) -> Result<Option<Bytes>, DiskError> {
        let inside = |s: &Self| pos >= s.at && (pos - s.at) as usize + len <= s.bytes.len();
        if !inside(self) {
            let path = self.reader.path(&self.name);
            self.bytes = match self.reader.disk.read(&path, u64::from(pos), len.max(PIECE_BYTES)) {
                Err(e) if e.kind == DiskFault::NotFound => Bytes::new(),
                other => other?,
            };
            self.at = pos;
        }
        let skip = (pos - self.at) as usize;
        Ok(inside(self).then(|| self.bytes.slice(skip..skip + len)))
    }

    /// The whole, undamaged batch at `pos`.
    pub(super) fn batch(&mut self, pos: u32) -> Result<Option<Bytes>, DiskError> {
        let Some(header) = self.bytes(pos, BATCH_HEADER_BYTES)? else { return Ok(None) };
        let len = u32::from_be_bytes([header[8], header[9], header[10], header[11]]) as usize + 12;
        if !(BATCH_HEADER_BYTES..=BODY_BYTES_MAX).contains(&len) {
            return Ok(None);
        }
        let body = self.bytes(pos, len)?;
        Ok(body.filter(|b| BatchView::new(b).is_ok_and(|batch| batch.check_crc().is_ok())))
    }
}

/// The bytes of a table: of a sealed segment with its footer.
pub(super) fn encode(header: &EntHeader, rows: &[Row], footer: Option<Footer>) -> Bytes {
    let mut out = header.encode();
    out.reserve(rows.len() * ROW_BYTES);
    for row in rows {
        row::encode_row(&mut out, header.gid, header.base_index, row);
    }
    if let Some(mut footer) = footer {
        let mut sum = Crc64::default();
        sum.update(&out);
        footer.ent_crc64 = sum.finish();
        debug_assert_eq!(out.len(), HEADER_BYTES + rows.len() * ROW_BYTES);
        out.extend_from_slice(&footer.encode());
    }
    Bytes::from(out)
}

/// The footer of a sealed segment whose table was made again.
pub(super) fn footer(made: &Made, ext_sum: u64, base_offset: Offset) -> Footer {
    let last = made.rows.last();
    Footer {
        rows: made.rows.len() as u32,
        last_index: last.map_or(EntryIndex::ZERO, last_index),
        next_offset: last.map_or(base_offset, |r| r.base_offset.plus(u64::from(r.count))),
        log_len: last.map_or(0, |r| u64::from(r.pos) + if r.kind == EntryKind::Gap { 0 } else { u64::from(r.len) }),
        log_crc64: made.log_sum,
        ent_crc64: 0,
        ext_crc64: ext_sum,
        min_ts: if made.min_ts == i64::MAX { -1 } else { made.min_ts },
        max_ts: last.map_or(-1, |r| r.max_ts),
        ext_len: last.map_or(0, |r| r.ext_pos + u32::from(r.ext_len)),
        txn_len: 0,
        last_term: last.map_or(0, |r| r.term.0),
    }
}

/// An open segment with these rows, as it is before anything is known of where it ends.
pub(super) fn open_found(header: &EntHeader, rows: Vec<Row>, has_ext: bool) -> Found {
    let segment = Segment {
        base_index: header.base_index,
        base_offset: header.base_offset,
        generation: header.generation,
        created_ms: header.created_ms,
        state: SegmentState::Active,
        rows: rows.len() as u32,
        gaps: 0,
        last_term: header.prev_term,
        next_offset: header.base_offset,
        max_ts: -1,
        min_ts: i64::MAX,
        first_ts: None,
        log_len: 0,
        ext_len: 0,
        has_ext,
        txn_len: 0,
        control: false,
        sealed_at_ms: 0,
        cut: true,
        dirty: true,
        sums: None,
    };
    Found { segment, rows, fenced: None, table_lost: false, stored: true }
}
