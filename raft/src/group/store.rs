//! Pure. The replica's log as the crate wants to see it.
//!
//! Entries are given out in two ways (R7): with their bytes when a peer needs them, and stripped to index, term and
//! type when the crate only counts them. The second way never fails and costs no I/O (R8); the first may say
//! "temporarily unavailable" and ask the shell for a cold read.

use super::conf::ConfState;
use catchwater_record::{EntryIndex, Offset, PartitionId, TopicId};
use catchwater_storage::{EntryKind, GroupSpec, Hard, Log, NewEntry, PrefixSnapshot, RecoveredGroup, RowRead};
use raft::eraftpb::{Entry, EntryType, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, StorageError};
use std::cell::RefCell;

/// Bytes asked for with one cold read.
const COLD_READ_BYTES: u64 = 1 << 20;
/// What an entry costs beside its bytes when a limit is counted.
const ENTRY_COST: u64 = 16;
/// Cold reads that may be under way at once, one per lagging peer.
const COLD_READS_MAX: usize = 16;

pub(super) struct Store {
    pub log: Log,
    pub hard: Hard,
    pub conf: ConfState,
    /// A prefix snapshot on its way through the crate, which only carries where it stands.
    pub arriving: Option<Box<PrefixSnapshot>>,
    cold: RefCell<Cold>,
}

/// A read that memory could not serve.
pub(super) struct Wanted {
    pub token: u64,
    pub rows: RowRead,
}

#[derive(Default)]
struct Cold {
    next_token: u64,
    /// Under way; the context tells the crate whom to send to.
    waiting: Vec<(u64, EntryIndex, GetEntriesContext)>,
    /// To be handed to the shell.
    wanted: Vec<Wanted>,
    /// Answered, for the call that the answer triggers.
    fetched: Vec<NewEntry>,
}

impl Store {
    pub fn new(log: Log, hard: Hard, conf: ConfState) -> Self {
        Store { log, hard, conf, arriving: None, cold: RefCell::new(Cold::default()) }
    }
    /// All of it, for a node of the crate that is made anew; what stays behind is of no use.
    pub fn take(&mut self, hard: Hard) -> Store {
        let spec = GroupSpec {
            topic: TopicId::NONE,
            partition: PartitionId(0),
            incarnation: 0,
            conf: self.conf.encode(),
            conf_index: EntryIndex::ZERO,
        };
        let empty = RecoveredGroup::fresh(self.log.gid(), spec);
        let empty = Log::open(empty).expect("an empty log opens");
        Store::new(std::mem::replace(&mut self.log, empty), hard, self.conf.clone())
    }
    pub fn take_wanted(&self) -> Vec<Wanted> {
        std::mem::take(&mut self.cold.borrow_mut().wanted)
    }
    /// The shell's answer; gives the crate's context back if the read is still known.
    pub fn fetched(&self, token: u64, entries: Option<Vec<NewEntry>>) -> Option<GetEntriesContext> {
        let mut cold = self.cold.borrow_mut();
        let at = cold.waiting.iter().position(|(t, ..)| *t == token)?;
        let (_, from, context) = cold.waiting.swap_remove(at);
        // Unreadable now: the peer's next answer tries again (R9, R32).
        let entries = entries.filter(|e| e.first().is_some_and(|f| f.index == from))?;
        cold.fetched = entries;
        Some(context)
    }
    /// What was fetched has been sent.
    pub fn forget_fetched(&self) {
        self.cold.borrow_mut().fetched = Vec::new();
    }

    fn want(&self, low: EntryIndex, high: u64, context: GetEntriesContext) {
        let mut cold = self.cold.borrow_mut();
        if cold.waiting.len() >= COLD_READS_MAX || cold.waiting.iter().any(|(_, from, _)| *from == low) {
            return;
        }
        let cached = self.log.first_cached().map_or(high, |at| at.0);
        let Some(rows) = self.log.row_read(low, EntryIndex(high.min(cached)), COLD_READ_BYTES) else { return };
        cold.next_token += 1;
        let token = cold.next_token;
        cold.waiting.push((token, low, context));
        cold.wanted.push(Wanted { token, rows });
    }

    fn with_bytes(&self, low: u64, high: u64, max: u64) -> Vec<Entry> {
        let cold = self.cold.borrow();
        let mut out: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        for index in low..high {
            let at = EntryIndex(index);
            let fetched = || {
                let first = cold.fetched.first()?.index.0;
                cold.fetched.get(usize::try_from(index.checked_sub(first)?).ok()?)
            };
            let Some(entry) = self.log.cached(at).or_else(fetched) else { break };
            bytes += (entry.body.len() + entry.context.len()) as u64 + ENTRY_COST;
            if !out.is_empty() && bytes > max {
                break;
            }
            let mut e = bare(index, u64::from(entry.term.0), entry.kind);
            e.data = entry.body.clone();
            e.context = super::guard::context_of(entry);
            out.push(e);
        }
        out
    }

    /// Where the entry at `index` begins, as far as memory knows; an entry that is sent is in it.
    pub fn base_of(&self, index: EntryIndex) -> Option<Offset> {
        let fetched = || self.cold.borrow().fetched.iter().find(|e| e.index == index).map(|e| e.base_offset);
        self.log.offsets_of(index).map(|(base, _)| base).or_else(fetched)
    }

    fn stripped(&self, low: u64, high: u64, max: u64) -> Vec<Entry> {
        let room = usize::try_from((max / ENTRY_COST).max(1)).unwrap_or(usize::MAX);
        let mut out = Vec::with_capacity(room.min((high - low) as usize));
        let rows = self.log.rows_from(EntryIndex(low));
        let mut rows = rows.peekable();
        let begins = rows.peek().is_none_or(|r| r.index.0 <= low);
        assert!(begins || low >= high, "rows that were not applied yet are whole");
        'rows: for row in rows {
            let run = if row.kind == EntryKind::Gap { u64::from(row.len.max(1)) } else { 1 };
            for index in row.index.0.max(low)..row.index.0 + run {
                if index >= high || out.len() == room {
                    break 'rows;
                }
                out.push(bare(index, u64::from(row.term.0), row.kind));
            }
        }
        out
    }
}

fn bare(index: u64, term: u64, kind: EntryKind) -> Entry {
    let mut e = Entry { index, term, ..Entry::default() };
    if kind == EntryKind::Conf {
        e.set_entry_type(EntryType::EntryConfChangeV2);
    }
    e
}

impl raft::Storage for Store {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let mut hard = HardState::default();
        hard.term = u64::from(self.hard.term);
        hard.vote = self.hard.vote;
        hard.commit = self.hard.commit.0;
        Ok(RaftState::new(hard, self.conf.to_crate()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let max = max_size.into().unwrap_or(u64::MAX);
        if low < self.log.first_index().0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if !context.can_async() {
            return Ok(self.stripped(low, high, max));
        }
        let found = self.with_bytes(low, high, max);
        if found.is_empty() && low < high {
            self.want(EntryIndex(low), high, context);
            return Err(raft::Error::Store(StorageError::LogTemporarilyUnavailable));
        }
        Ok(found)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match self.log.term(EntryIndex(index)) {
            Some(term) => Ok(u64::from(term.0)),
            None if index < self.log.first_index().0 => Err(raft::Error::Store(StorageError::Compacted)),
            None => Err(raft::Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.log.first_index().0)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.log.last_index().0)
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let prefix = self.prefix().and_then(|p| super::prefix::to_crate(&p));
        prefix.ok_or(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}
