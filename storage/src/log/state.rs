//! Pure. What a log knows beside its rows, as the payload of a `.snap` file: producers, captures, aborted transactions, log
//! start, members; and how it is read again.

use super::{Log, Undo};
use crate::capture_pos::Captures;
use crate::entry::Thinned;
use crate::format::snap::SECTION_ABORTED;
use crate::format::txn::Aborted;
use crate::producer::Producers;
use crate::txn::Transactions;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use catchwater_base::mutant;
use catchwater_record::{EntryIndex, Offset};

const SECTION_PRODUCERS: u16 = 1;
const SECTION_CAPTURES: u16 = 2;
/// `offset u64`: the log start at the snapshot's index. The manifest says it too, but not always that early.
const SECTION_LOG_START: u16 = 3;
/// `index u64 | conf state`: the members that the entries up to `index` make; absent as long as they are the first ones.
const SECTION_CONF: u16 = 5;

impl Log {
    /// Entries tell of something that no later entry tells again: without a snapshot of it, what is trimmed takes it along.
    pub fn has_state(&self) -> bool {
        let members = self.conf.0 > EntryIndex::ZERO || !self.conf_states.is_empty();
        members || !self.producers.is_empty() || !self.captures.is_empty() || !self.foreign_sections.is_empty()
    }

    /// What compaction has taken from this log.
    pub fn thinned(&self) -> Thinned {
        let segments = self.table.segments();
        let taken = segments.iter().rev().find(|s| s.generation > 0);
        let Some(below) = taken.and_then(|s| s.rows.last()).map(|r| r.base_offset.plus(u64::from(r.count))) else {
            return Thinned { deletes_gone: self.deletes_gone, ..Thinned::default() };
        };
        // No run has mapped keys of the newest segment, or above the last stable offset.
        let whole_from = segments.last().map_or(below, |s| s.base_offset.max(below));
        let whole_from = whole_from.min(self.last_stable_offset()).max(below);
        Thinned { below, whole_from, deletes_gone: self.deletes_gone }
    }

    /// State for `.snap`: the index it stands at, the next offset there, and the payload (sections of storage.md 4.6).
    pub fn snapshot_payload(&self) -> (EntryIndex, Offset, Bytes) {
        // State is never older than what it was begun with.
        let at = self.commit.min(self.persisted).max(self.known);
        let (producers, captures) = self.state_at(at);
        let mut out = BytesMut::new();
        put_section(&mut out, SECTION_PRODUCERS, |out| producers.as_ref().unwrap_or(&self.producers).encode(out));
        put_section(&mut out, SECTION_CAPTURES, |out| captures.as_ref().unwrap_or(&self.captures).encode(out));
        put_section(&mut out, SECTION_LOG_START, |out| out.put_u64_le(self.log_start_at(at).0));
        let mut aborted = Vec::new();
        self.transactions.encode(self.end_offset_at(at), &mut aborted);
        if !aborted.is_empty() {
            put_section(&mut out, SECTION_ABORTED, |out| out.put_slice(&aborted));
        }
        let applied = self.conf_states.iter().rev().find(|(i, _)| *i <= at);
        if let Some((index, state)) = applied.or(Some(&self.conf)).filter(|(i, _)| *i > EntryIndex::ZERO) {
            put_section(&mut out, SECTION_CONF, |out| {
                out.put_u64_le(index.0);
                out.put_slice(state);
            });
        }
        for (kind, bytes) in &self.foreign_sections {
            put_section(&mut out, *kind, |out| out.put_slice(bytes));
        }
        (at, self.end_offset_at(at), out.freeze())
    }

    /// Producers and captures as the entries up to `at` make them; `None` = as they are. Undo records reach down to the smaller
    /// of what is committed and what is durable.
    pub(super) fn state_at(&self, at: EntryIndex) -> (Option<Producers>, Option<Captures>) {
        let (mut producers, mut captures) = (None, None);
        for (_, undo) in self.undo.iter().rev().take_while(|(i, _)| *i > at) {
            match undo {
                Undo::Producer(id, before) => {
                    producers.get_or_insert_with(|| self.producers.clone()).restore(*id, *before);
                }
                Undo::Capture(before) => {
                    captures.get_or_insert_with(|| self.captures.clone()).restore(before.clone());
                }
            }
        }
        (producers, captures)
    }

    /// The log start that the entries up to `at` make. A follower may know of a later one, of entries that are committed and
    /// not durable here: after a loss of power it would stand beyond the end of the log. And a log that began behind a
    /// prefix snapshot may not have reached the one that its state tells of.
    fn log_start_at(&self, at: EntryIndex) -> Offset {
        if mutant!("log_start_beyond_the_log") {
            return self.log_start;
        }
        let due = self.starts.iter().filter(|(i, _)| *i <= at).map(|(_, offset)| *offset).max();
        let start = due.unwrap_or_default().max(self.log_start);
        if at <= self.last_index() { start.min(self.end_offset_at(at)) } else { start }
    }

    /// `at`: the index it stands at; `end`: the last one here.
    pub(super) fn read_snapshot(&mut self, mut payload: Bytes, at: EntryIndex, end: EntryIndex) -> Option<()> {
        let mut aborted = Vec::new();
        while payload.has_remaining() {
            if payload.remaining() < 8 {
                return None;
            }
            let kind = payload.get_u16_le();
            payload.get_u16_le();
            let len = payload.get_u32_le() as usize;
            if payload.remaining() < len {
                return None;
            }
            let section = payload.split_to(len);
            match kind {
                SECTION_PRODUCERS => self.producers = Producers::decode(section)?,
                SECTION_CAPTURES => self.captures = Captures::decode(section)?,
                SECTION_ABORTED => aborted = Aborted::decode_all(&section)?,
                SECTION_LOG_START => {
                    let offset = Offset(u64::from_le_bytes(section[..].try_into().ok()?));
                    // The log may not reach so far yet.
                    if at > end {
                        self.starts.push_front((at, offset));
                    } else {
                        self.log_start = self.log_start.max(offset);
                    }
                }
                SECTION_CONF => {
                    let (index, state) = section.split_at_checked(8)?;
                    let index = u64::from_le_bytes(index.try_into().ok()?);
                    self.conf = (EntryIndex(index), Bytes::copy_from_slice(state));
                }
                _ => self.foreign_sections.push((kind, section)),
            }
        }
        self.transactions = Transactions::restored(self.producers.open_transactions(), aborted);
        self.transactions.trim(self.log_start);
        Some(())
    }
}

pub(super) fn put_section(out: &mut BytesMut, kind: u16, write: impl FnOnce(&mut BytesMut)) {
    out.put_u16_le(kind);
    out.put_u16_le(0);
    let at = out.len();
    out.put_u32_le(0);
    write(out);
    let len = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&len.to_le_bytes());
}
