//! One group's files as they are found: sealed segments by their tables, open ones by their rows, and what each of them
//! can still be made of when a part is gone.

use super::super::rebuild::{self, Lost, LostEnd, open_found};
use super::{End, Found, KeepRows, Reader, end_of, log_end};
use crate::compact::rows::last_index;
use crate::disk::{DiskError, DiskExt, DiskFault};
use crate::entry::{EntryKind, NewEntry, Row, Verdict, row_flag};
use crate::fences::SegmentRows;
use crate::format::manifest::{ManifestSegment, SegmentState, lengths_check};
use crate::format::row::{self, EntHeader, FOOTER_BYTES, Footer, HEADER_BYTES, ROW_BYTES};
use crate::format::snap::Snap;
use crate::segment::{Segment, segment_stem};
use bytes::Bytes;
use catchwater_record::batch::HEADER_BYTES as BATCH_HEADER_BYTES;
use catchwater_record::crc::Crc64;
use catchwater_record::{BatchView, EntryIndex, LeaderEpoch, Offset};

impl Reader<'_> {
    pub(in crate::recover) fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.dir)
    }

    pub(in crate::recover) fn all(&self, name: &str) -> Result<Option<Bytes>, DiskError> {
        self.disk.read_all(&self.path(name))
    }

    /// A file that was made again, by its name.
    pub(in crate::recover) fn made_again(&mut self, name: &str, bytes: Bytes) {
        self.rebuilt.push((self.path(name), bytes));
    }

    /// The worst verdict stays: damaged over suspect over uncertain over ok.
    pub(in crate::recover) fn worse(&mut self, verdict: Verdict) {
        let rank = |v| match v {
            Verdict::Ok => 0,
            Verdict::HardStateUncertain => 1,
            Verdict::Suspect => 2,
            Verdict::Damaged => 3,
        };
        if rank(verdict) > rank(self.verdict) {
            self.verdict = verdict;
        }
    }

    /// `next` = where the segment behind it begins, if the manifest names one.
    pub(super) fn sealed(
        &mut self,
        listed: &ManifestSegment,
        (prev_term, next): (u32, Option<(EntryIndex, Offset)>),
        has_ext: bool,
    ) -> Result<Found, DiskError> {
        let stem = segment_stem(listed.base_offset, listed.generation);
        let ent = self.all(&format!("{stem}.ent"))?.unwrap_or_default();
        let header = EntHeader::decode(&ent).filter(|h| h.gid == self.gid && h.base_index == listed.base_index);
        let rows_end = HEADER_BYTES + listed.rows as usize * ROW_BYTES;
        let foreign = self.is_foreign(&ent);
        let footer = ent.get(rows_end..rows_end + FOOTER_BYTES).filter(|_| !foreign).and_then(Footer::decode);
        let log_len = match self.disk.length(&self.path(&format!("{stem}.log"))) {
            Err(e) if e.kind == DiskFault::NotFound => 0,
            other => other?,
        };
        let mut damaged = footer.is_none_or(|f| log_len < f.log_len || f.rows != listed.rows);
        let mut bad_rows = header.is_none();
        let mut rows: Vec<Option<Row>> = Vec::new();
        // A table that cannot hold the rows it should has lost them all at once: no row is guessed.
        let fit = ent.len().saturating_sub(HEADER_BYTES) / ROW_BYTES;
        damaged |= fit < listed.rows as usize;
        for i in 0..(listed.rows as usize).min(fit) {
            let at = HEADER_BYTES + i * ROW_BYTES;
            let row = ent.get(at..).and_then(|bytes| row::decode_row(bytes, self.gid, listed.base_index));
            rows.push(row);
        }
        // A gap row covers a run, so a row's index follows from the rows before it; one that cannot be read covers what
        // the next one leaves.
        let (mut at, mut sure) = (listed.base_index, true);
        for row in &mut rows {
            *row = row.filter(|r| if sure { r.index == at } else { r.index >= at });
            sure = row.is_some() || listed.generation == 0;
            at = row.map_or(at, |r| last_index(&r)).next();
        }
        let segment = Segment {
            base_index: listed.base_index,
            base_offset: listed.base_offset,
            generation: listed.generation,
            created_ms: header.map_or(0, |h| h.created_ms),
            state: listed.state,
            rows: listed.rows,
            gaps: footer.map_or(0, |f| (f.last_index.0 + 1).saturating_sub(listed.base_index.0 + u64::from(f.rows))),
            last_term: listed.last_term,
            next_offset: footer.map_or(listed.base_offset, |f| f.next_offset),
            max_ts: listed.max_ts,
            min_ts: footer.map_or(-1, |f| f.min_ts),
            first_ts: None,
            log_len: footer.map_or(u32::try_from(log_len).unwrap_or(u32::MAX), |f| f.log_len as u32),
            ext_len: footer.map_or(0, |f| f.ext_len),
            has_ext,
            txn_len: footer.map_or(0, |f| f.txn_len),
            control: false,
            sealed_at_ms: listed.sealed_at_ms,
            cut: false,
            dirty: false,
            sums: None,
        };
        let (table_lost, kept) = (footer.is_none(), Vec::with_capacity(rows.len()));
        let mut found = Found { segment, rows: kept, fenced: None, table_lost, stored: true };
        for (i, row) in rows.iter().enumerate() {
            let row = match row {
                Some(row) => *row,
                None => {
                    bad_rows = true;
                    let next = rows[i + 1..].iter().flatten().next().copied();
                    let (row, sure) = self.lost_row(&found, next, footer)?;
                    damaged |= !sure;
                    row
                }
            };
            found.rows.push(row);
        }
        found.stored = !damaged && !bad_rows && !table_lost;
        if damaged || bad_rows {
            let header = header.unwrap_or(EntHeader {
                gid: self.gid,
                base_index: listed.base_index,
                base_offset: listed.base_offset,
                prev_term,
                generation: listed.generation,
                created_ms: listed.sealed_at_ms,
            });
            let footers = (footer.filter(|_| !damaged), footer.filter(|f| f.rows == listed.rows));
            damaged = foreign || !self.sealed_again(&mut found, &header, (listed, next), footers, &stem)?;
        } else if footer.is_none() && !rows.is_empty() {
            // The rows themselves say where the segment ends.
            let generation_end = found.rows.last().map(end_of);
            found.segment.next_offset = generation_end.unwrap_or(listed.base_offset);
        }
        if damaged {
            self.worse(Verdict::Damaged);
        }
        found.segment.control = found.rows.iter().any(|r| r.flags & row_flag::CONTROL != 0);
        if found.stored && self.keep != KeepRows::All {
            found.fenced = Some(self.take_rows(&mut found));
        }
        Ok(found)
    }

    /// The rows of a segment to be handed out. What is sealed is committed and applied.
    pub(super) fn take_rows(&self, found: &mut Found) -> SegmentRows {
        let mut rows = found.fenced.take().unwrap_or_else(|| std::mem::take(&mut found.rows).into());
        let Some(last) = rows.last().map(last_index) else { return rows };
        match self.keep {
            KeepRows::All => {}
            // The log fences them, once it knows what is applied.
            KeepRows::Start if found.segment.state == SegmentState::Active => {}
            KeepRows::Start => rows.fence(last, 0),
            KeepRows::Look if found.stored => rows.fence(last, 0),
            KeepRows::Look => {}
        }
        rows
    }

    /// The rows of a sealed segment once more, from its file. If they are not what they were a moment ago, it is damaged.
    pub(in crate::recover) fn rows_again(&mut self, found: &Found) -> Result<Vec<Row>, DiskError> {
        let s = &found.segment;
        let ent = self.path(&format!("{}.ent", segment_stem(s.base_offset, s.generation)));
        let bytes = self.disk.read(&ent, HEADER_BYTES as u64, s.rows as usize * ROW_BYTES)?;
        let rows: Option<Vec<Row>> = (0..s.rows as usize)
            .map(|i| row::decode_row(bytes.get(i * ROW_BYTES..)?, self.gid, s.base_index))
            .collect();
        if rows.is_none() {
            self.worse(Verdict::Damaged);
        }
        Ok(rows.unwrap_or_default())
    }

    /// Makes the table of a sealed segment again: from its rows, if those are sure and agree with the footer, else from the
    /// batches. False: it cannot be.
    pub(super) fn sealed_again(
        &mut self,
        found: &mut Found,
        header: &EntHeader,
        (listed, next): (&ManifestSegment, Option<(EntryIndex, Offset)>),
        (sure, footer): (Option<Footer>, Option<Footer>),
        stem: &str,
    ) -> Result<bool, DiskError> {
        let path = self.path(&format!("{stem}.ent"));
        if let Some(footer) = sure {
            let bytes = rebuild::encode(header, &found.rows, Some(footer));
            if Footer::decode(&bytes[bytes.len() - FOOTER_BYTES..]) == Some(footer) {
                self.rebuilt.push((path, bytes));
                return Ok(true);
            }
        }
        let end = LostEnd::Sealed { rows: found.segment.rows, last_term: found.segment.last_term };
        let lost = Lost { stem, header: *header, epochs: &self.epochs, end };
        let mut made = self.rebuild(&lost)?;
        if let (None, Some(next), 1..) = (&made, next, header.generation) {
            made = self.rebuild_thinned(&lost, listed, next, footer)?;
        }
        let Some(made) = made else { return Ok(false) };
        let mut ext_sum = Crc64::default();
        ext_sum.update(&self.all(&format!("{stem}.ext"))?.unwrap_or_default());
        let mut footer = rebuild::footer(&made, ext_sum.finish(), header.base_offset);
        let lengths = lengths_check(footer.log_len as u32, footer.ext_len);
        if listed.lengths != 0 && listed.lengths != lengths {
            return Ok(false);
        }
        footer.txn_len = self.txn_file(stem)?.map_or(0, |(len, _)| len);
        found.segment.txn_len = footer.txn_len;
        self.rebuilt.push((path, rebuild::encode(header, &made.rows, Some(footer))));
        found.rows = made.rows;
        let s = &mut found.segment;
        if found.rows.len() != s.rows as usize {
            // Laid out anew in another number of rows: the manifest must say so before long, until then they are made again.
            (s.rows, self.manifest_stale) = (found.rows.len() as u32, true);
        }
        (s.next_offset, s.log_len, s.ext_len) = (footer.next_offset, footer.log_len as u32, footer.ext_len);
        (s.min_ts, s.max_ts, s.created_ms) = (footer.min_ts, footer.max_ts, header.created_ms);
        s.gaps = (footer.last_index.0 + 1).saturating_sub(s.base_index.0 + u64::from(s.rows));
        Ok(true)
    }

    /// An open segment that is not what it was: rows that were claimed durable are missing from its table, or the table is.
    /// `opened` = what can be read of it; `listed` = what the newest manifest says.
    pub(super) fn complete(
        &mut self,
        opened: Option<Found>,
        listed: Option<&ManifestSegment>,
        stem: &str,
        (end, cut): (End, Option<EntryIndex>),
        has_ext: bool,
    ) -> Result<Option<Found>, DiskError> {
        let base = match (&opened, listed) {
            (Some(found), _) => (found.segment.base_index, found.segment.base_offset),
            (None, Some(listed)) => (listed.base_index, listed.base_offset),
            (None, None) => return Ok(None), // all of it is in the journal
        };
        if base != (end.index.next(), end.offset) || cut.is_some_and(|cut| cut <= base.0) {
            return Ok(opened); // not the next one, or all of it is written again
        }
        let have = opened.as_ref().map_or(0, |f| f.rows.len() as u64);
        // The manifest was written behind a sync of as many rows; entries that the journal has are written again.
        let claimed = listed.map_or(0, |s| u64::from(s.rows));
        let claimed = cut.map_or(claimed, |cut| claimed.min(cut.0 - base.0.0));
        let short = match cut {
            Some(cut) => base.0.0 + have < cut.0,
            None => have < claimed || self.has_more(opened.as_ref(), stem)?,
        };
        if !short {
            return Ok(opened);
        }
        let created_ms = opened.as_ref().map_or(0, |f| f.segment.created_ms);
        let generation = opened.as_ref().map_or(listed.map_or(0, |s| s.generation), |f| f.segment.generation);
        let header = EntHeader {
            gid: self.gid,
            base_index: base.0,
            base_offset: base.1,
            prev_term: end.term,
            generation,
            created_ms,
        };
        let lost = Lost { stem, header, epochs: &self.epochs, end: LostEnd::Open { before: cut } };
        let foreign = opened.is_none() && self.is_foreign(&self.head(stem)?);
        match if foreign { None } else { self.rebuild(&lost)? } {
            Some(made) if made.rows.len() as u64 >= have.max(claimed) && !made.rows.is_empty() => {
                let bytes = rebuild::encode(&header, &made.rows, None);
                self.rebuilt.push((self.path(&format!("{stem}.ent")), bytes));
                Ok(Some(Found { stored: false, ..open_found(&header, made.rows, has_ext) }))
            }
            _ => {
                if have < claimed {
                    self.worse(Verdict::Damaged);
                }
                Ok(opened)
            }
        }
    }

    /// Where a segment's table says that it begins.
    pub(super) fn base_index(&self, stem: &str) -> Result<Option<EntryIndex>, DiskError> {
        Ok(EntHeader::decode(&self.head(stem)?).filter(|h| h.gid == self.gid).map(|h| h.base_index))
    }

    /// The head of a segment's table, as far as it is there.
    fn head(&self, stem: &str) -> Result<Bytes, DiskError> {
        match self.disk.read(&self.path(&format!("{stem}.ent")), 0, HEADER_BYTES) {
            Err(e) if e.kind == DiskFault::NotFound => Ok(Bytes::new()),
            other => other,
        }
    }

    /// A whole table, but another partition's: somebody has put files where they do not belong, and the `.log` beside it is
    /// no witness of what was here. Nothing is made again from that.
    fn is_foreign(&self, ent: &[u8]) -> bool {
        EntHeader::decode(ent).is_some_and(|h| h.gid != self.gid)
    }

    /// Bytes, contexts or a term behind the last row, though the journal has nothing more of the group.
    pub(super) fn has_more(&self, opened: Option<&Found>, stem: &str) -> Result<bool, DiskError> {
        let last = opened.and_then(|f| f.rows.last());
        let (log_end, ext_end) = last.map_or((0, 0), |r| {
            let bytes = if r.kind == EntryKind::Gap { 0 } else { u64::from(r.len) };
            (u64::from(r.pos) + bytes, u64::from(r.ext_pos) + u64::from(r.ext_len))
        });
        let behind = |ext: &str, end: u64| match self.disk.length(&self.path(&format!("{stem}.{ext}"))) {
            Err(e) if e.kind == DiskFault::NotFound => Ok(false),
            other => other.map(|len| len > end),
        };
        let index = last.map_or(EntryIndex::ZERO, |r| r.index);
        let term = self.epochs.last().is_some_and(|e| e.index > index);
        Ok(term || behind("log", log_end)? || behind("ext", ext_end)?)
    }

    /// A file that is not there has no bytes: damage of one group, never a reason not to start the others.
    pub(super) fn read_if_there(&self, name: &str, pos: u32, len: usize) -> Result<Bytes, DiskError> {
        match self.disk.read(&self.path(name), u64::from(pos), len) {
            Err(e) if e.kind == DiskFault::NotFound => Ok(Bytes::new()),
            other => other,
        }
    }

    /// A row that cannot be read, made again from the batch it pointed at; the second value is false if it is a guess.
    pub(super) fn lost_row(
        &self,
        found: &Found,
        next: Option<Row>,
        footer: Option<Footer>,
    ) -> Result<(Row, bool), DiskError> {
        let s = &found.segment;
        let before = found.rows.last();
        let (pos, offset) = before.map_or((0, s.base_offset), |r| (log_end(r), end_of(r)));
        let ext_pos = before.map_or(0, |r| r.ext_pos + u32::from(r.ext_len));
        let index = before.map_or(s.base_index, |r| last_index(r).next());
        let log_end = next.map(|n| n.pos).or(footer.map(|f| f.log_len as u32));
        let ext_end = next.map(|n| n.ext_pos).or(footer.map(|f| f.ext_len)).unwrap_or(ext_pos);
        let name = format!("{}.log", segment_stem(s.base_offset, s.generation));
        let header = self.read_if_there(&name, pos, BATCH_HEADER_BYTES)?;
        let len = header.get(8..12).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]).saturating_add(12));
        let guess = Row {
            index,
            term: LeaderEpoch(before.map_or(s.last_term, |r| r.term.0)),
            kind: EntryKind::Ctl,
            flags: row_flag::DAMAGED,
            base_offset: offset,
            count: next.map_or(0, |n| u32::try_from(n.base_offset.0.saturating_sub(offset.0)).unwrap_or(0)),
            max_ts: before.map_or(-1, |r| r.max_ts),
            pos,
            len: log_end.map_or(0, |end| end.saturating_sub(pos)),
            ext_pos,
            ext_len: u16::try_from(ext_end.saturating_sub(ext_pos)).unwrap_or(0),
        };
        let fits = log_end.is_none_or(|end| pos.checked_add(len).is_some_and(|e| e <= end));
        if header.len() < BATCH_HEADER_BYTES || !fits || len as usize > crate::format::journal::BODY_BYTES_MAX {
            return Ok((guess, false));
        }
        let body = self.read_if_there(&name, pos, len as usize)?;
        let Ok(batch) = BatchView::new(&body) else { return Ok((guess, false)) };
        let term = u32::try_from(batch.leader_epoch()).unwrap_or(0);
        let mut row = Row {
            term: LeaderEpoch(term),
            kind: EntryKind::Data,
            count: batch.offset_count(),
            max_ts: guess.max_ts.max(batch.max_timestamp()),
            len,
            ..guess
        };
        let context = self.context(s, &row)?;
        row.flags = crate::entry::derive_flags(row.kind, &body, context.as_deref().unwrap_or_default());
        // More than one entry may hide in the gap (an internal one has no bytes): then the place is not unambiguous. And
        // without anything behind it, nobody says whether it has a context.
        let alone = next.map_or(footer.is_some(), |n| n.index == index.next());
        let sure = alone && row::batch_matches(&row, &body) && context.is_some();
        Ok((row, sure))
    }

    /// An open segment's valid rows; `None` if its header is bad (then all of it is still in the journal).
    pub(super) fn open(&mut self, stem: &str, has_ext: bool) -> Result<Option<Found>, DiskError> {
        let Some(ent) = self.all(&format!("{stem}.ent"))? else { return Ok(None) };
        let Some(header) = EntHeader::decode(&ent).filter(|h| h.gid == self.gid) else { return Ok(None) };
        if segment_stem(header.base_offset, header.generation) != stem {
            return Ok(None);
        }
        let mut rows: Vec<Row> = Vec::new();
        let mut at = HEADER_BYTES;
        while let Some(bytes) = ent.get(at..at + ROW_BYTES) {
            let expect = EntryIndex(header.base_index.0 + rows.len() as u64);
            let row = row::decode_row(bytes, self.gid, header.base_index).filter(|r| {
                r.index == expect
                    && r.term.0 >= rows.last().map_or(header.prev_term, |l: &Row| l.term.0)
                    && r.base_offset == rows.last().map_or(header.base_offset, end_of)
            });
            match row {
                Some(row) => rows.push(row),
                None if self.more_rows(&ent, at + ROW_BYTES, &header) => {
                    // Valid rows follow: one bad row, not the end. Made again in `mend`.
                    rows.push(Row {
                        index: expect,
                        term: LeaderEpoch(rows.last().map_or(header.prev_term, |l| l.term.0)),
                        kind: EntryKind::Ctl,
                        flags: row_flag::DAMAGED,
                        base_offset: rows.last().map_or(header.base_offset, end_of),
                        count: 0,
                        max_ts: -1,
                        pos: 0,
                        len: 0,
                        ext_pos: 0,
                        ext_len: 0,
                    });
                    // Its successor says where it ends.
                    let next = row::decode_row(&ent[at + ROW_BYTES..], self.gid, header.base_index);
                    if let (Some(last), Some(next)) = (rows.last_mut(), next) {
                        last.count = u32::try_from(next.base_offset.0.saturating_sub(last.base_offset.0)).unwrap_or(0);
                    }
                }
                None => break,
            }
            at += ROW_BYTES;
        }
        Ok(Some(open_found(&header, rows, has_ext)))
    }

    /// True if the row behind a bad one is a valid successor.
    pub(super) fn more_rows(&self, ent: &Bytes, at: usize, header: &EntHeader) -> bool {
        let index = header.base_index.0 + ((at - HEADER_BYTES) / ROW_BYTES) as u64;
        ent.get(at..at + ROW_BYTES)
            .and_then(|bytes| row::decode_row(bytes, self.gid, header.base_index))
            .is_some_and(|r| r.index.0 == index)
    }

    /// Makes the bad rows of an open segment again, and checks that the bytes its rows point at are there.
    pub(super) fn mend(&mut self, found: &mut Found, prev_term: u32) -> Result<(), DiskError> {
        let rows = std::mem::take(&mut found.rows);
        let (mut bad, mut unsure) = (false, false);
        for (i, row) in rows.iter().enumerate() {
            if row.flags & row_flag::DAMAGED == 0 {
                found.rows.push(*row);
                continue;
            }
            let next = rows.get(i + 1).copied();
            let (row, sure) = self.lost_row(found, next, None)?;
            (bad, unsure) = (true, unsure || !sure);
            found.rows.push(row);
        }
        found.stored &= !bad;
        if bad {
            unsure = !self.open_again(found, prev_term, unsure)?;
        }
        if unsure {
            self.worse(Verdict::Damaged);
        }
        found.settle();
        let name = format!("{}.log", segment_stem(found.segment.base_offset, found.segment.generation));
        let len = match self.disk.length(&self.path(&name)) {
            Err(e) if e.kind == DiskFault::NotFound => 0,
            other => other?,
        };
        if len < u64::from(found.segment.log_len) {
            // These rows were claimed durable, their bytes are not there.
            self.worse(Verdict::Damaged);
        }
        Ok(())
    }

    /// Writes the table of an open segment again, whose bad rows were made again from their batches, or all of them if that
    /// left doubt. False: the doubt stays.
    pub(super) fn open_again(&mut self, found: &mut Found, prev_term: u32, unsure: bool) -> Result<bool, DiskError> {
        let s = &found.segment;
        let stem = segment_stem(s.base_offset, s.generation);
        let header = EntHeader {
            gid: self.gid,
            base_index: s.base_index,
            base_offset: s.base_offset,
            prev_term,
            generation: s.generation,
            created_ms: s.created_ms,
        };
        if unsure {
            let before = found.rows.last().map(|r| r.index.next());
            let lost = Lost { stem: &stem, header, epochs: &self.epochs, end: LostEnd::Open { before } };
            let Some(made) = self.rebuild(&lost)? else { return Ok(false) };
            found.rows = made.rows;
        }
        self.rebuilt.push((self.path(&format!("{stem}.ent")), rebuild::encode(&header, &found.rows, None)));
        Ok(true)
    }

    /// A lost journal frame whose entry already stands in a segment, bytes and all.
    pub(super) fn rescue(&self, hints: &[Found], index: EntryIndex) -> Result<Option<NewEntry>, DiskError> {
        for found in hints {
            let Some(row) = found.rows.iter().find(|r| r.index == index && r.flags & row_flag::DAMAGED == 0) else {
                continue;
            };
            let s = &found.segment;
            let name = format!("{}.log", segment_stem(s.base_offset, s.generation));
            let body = if row.kind == EntryKind::Data {
                let body = match self.disk.read(&self.path(&name), u64::from(row.pos), row.len as usize) {
                    Err(e) if e.kind == DiskFault::NotFound => continue,
                    other => other?,
                };
                if !row::batch_matches(row, &body) {
                    continue;
                }
                body
            } else {
                Bytes::new()
            };
            let Some(context) = self.context(s, row)? else { continue };
            let max_ts = BatchView::new(&body).map_or(-1, |b| b.max_timestamp());
            return Ok(Some(NewEntry {
                index,
                term: row.term,
                kind: row.kind,
                flags: row.flags,
                base_offset: row.base_offset,
                count: row.count,
                max_ts,
                body,
                context,
            }));
        }
        Ok(None)
    }

    /// A row's context; `None` if it is damaged.
    pub(in crate::recover) fn context(&self, segment: &Segment, row: &Row) -> Result<Option<Bytes>, DiskError> {
        if row.ext_len == 0 {
            return Ok(Some(Bytes::new()));
        }
        let name = format!("{}.ext", segment_stem(segment.base_offset, segment.generation));
        let record = match self.disk.read(&self.path(&name), u64::from(row.ext_pos), usize::from(row.ext_len)) {
            Err(e) if e.kind == DiskFault::NotFound => return Ok(None),
            other => other?,
        };
        if record.len() != usize::from(row.ext_len) {
            return Ok(None);
        }
        Ok(row::decode_ext(row.index, &record).map(Bytes::copy_from_slice))
    }

    pub(super) fn newest_snap(
        &self,
        snaps: &[EntryIndex],
        last: EntryIndex,
    ) -> Result<Option<(EntryIndex, Offset, Bytes)>, DiskError> {
        for index in snaps.iter().rev() {
            let Some(bytes) = self.all(&format!("{:020}.snap", index.0))? else { continue };
            if let Some(snap) = Snap::decode(&bytes).filter(|s| s.gid == self.gid && s.index == *index)
                && (*index <= last || snap.ahead)
            {
                return Ok(Some((*index, snap.next_offset, snap.payload)));
            }
        }
        Ok(None)
    }
}
