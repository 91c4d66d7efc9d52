//! Pure. The words that journal, segment, recovery, log and `raft` share: an entry, its row, its frame.

use crate::fences::SegmentRows;
use bytes::Bytes;
use catchwater_record::{EntryIndex, Gid, LeaderEpoch, Offset, PartitionId, TopicId};

/// What an entry is. The number is the stored one (`.ent` row byte 46, journal frame byte 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// One Kafka batch.
    Data = 1,
    /// A leader's first entry of its term.
    Noop = 2,
    /// Membership, in the encoding of `docs/formats/entry-context.md`.
    Conf = 3,
    /// The log start moves.
    LogStart = 4,
    /// A run of entries that compaction removed.
    Gap = 5,
    /// Other internal entries (capture fence, tiering); told apart by the context's tags.
    Ctl = 6,
}

impl EntryKind {
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => EntryKind::Data,
            2 => EntryKind::Noop,
            3 => EntryKind::Conf,
            4 => EntryKind::LogStart,
            5 => EntryKind::Gap,
            6 => EntryKind::Ctl,
            _ => return None,
        })
    }
}

/// Row flags (`.ent` row byte 47).
pub mod row_flag {
    pub const CONTROL: u8 = 1 << 0;
    pub const TRANSACTIONAL: u8 = 1 << 1;
    pub const IDEMPOTENT: u8 = 1 << 2;
    pub const CAPTURE: u8 = 1 << 3;
    pub const DAMAGED: u8 = 1 << 4;
}

/// One entry on its way into a log. `body` is the whole patched batch for `Data`, else empty; `context` holds the TLVs
/// of the entry-context format (empty = none). Both are refcounted: nothing is copied behind the append.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewEntry {
    pub index: EntryIndex,
    pub term: LeaderEpoch,
    pub kind: EntryKind,
    pub flags: u8,
    /// First offset of the batch; for an internal entry the next offset.
    pub base_offset: Offset,
    /// Offsets taken; 0 for internal entries.
    pub count: u32,
    /// The batch's own maximum timestamp, ms; -1 for internal entries.
    pub max_ts: i64,
    pub body: Bytes,
    pub context: Bytes,
}

/// The row flags that an entry's own bytes determine. The journal stores no flags, so recovery derives them with this
/// function; whoever makes a [`NewEntry`] uses it too. `context` starts with its TLV 1 if it carries a capture position.
pub fn derive_flags(kind: EntryKind, body: &[u8], context: &[u8]) -> u8 {
    let mut flags = 0;
    if kind == EntryKind::Data
        && let Ok(batch) = catchwater_record::BatchView::new(body)
    {
        if batch.is_control() {
            flags |= row_flag::CONTROL;
        }
        if batch.is_transactional() {
            flags |= row_flag::TRANSACTIONAL;
        }
        if batch.producer_id().is_some() {
            flags |= row_flag::IDEMPOTENT;
        }
    }
    if context.first() == Some(&1) {
        flags |= row_flag::CAPTURE;
    }
    flags
}

impl NewEntry {
    /// First offset after this entry.
    pub fn end_offset(&self) -> Offset {
        self.base_offset.plus(u64::from(self.count))
    }
}

/// One row of `.ent`, decoded: where an entry's bytes are and what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    pub index: EntryIndex,
    pub term: LeaderEpoch,
    pub kind: EntryKind,
    pub flags: u8,
    pub base_offset: Offset,
    pub count: u32,
    /// Running maximum of the segment, ms.
    pub max_ts: i64,
    /// Byte place and length in `.log`; for `Gap`, `len` is the number of indexes covered.
    pub pos: u32,
    pub len: u32,
    /// Byte place and length in `.ext`; length 0 = no context.
    pub ext_pos: u32,
    pub ext_len: u16,
}

/// Raft's hard state. `vote` is a peer id, 0 = none; `commit` is a hint after a restart, never a truth.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Hard {
    pub term: u32,
    pub vote: u64,
    pub commit: EntryIndex,
}

/// What a new replica is: written as a CREATE frame, then into its manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupSpec {
    pub topic: TopicId,
    pub partition: PartitionId,
    pub incarnation: u32,
    /// Conf state bytes (replication: voters and learners), opaque here.
    pub conf: Bytes,
    /// The entries up to this one made it so; 0 = none did. A member that joins later is told of today's members, and must
    /// not change them by entries of before. Below 2^56.
    pub conf_index: EntryIndex,
}

/// What is said of a group's durability (`storage.durability`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MarkKind {
    /// Claims above the index began: after a power loss they may be gone.
    Dirty,
    /// Everything up to the index is durable in segments.
    Synced,
    /// The group is relaxed from here on: everything up to the index is durable in segments, what follows is not journaled.
    Relaxed,
    /// It is not any more: everything up to the index is durable in segments, what follows is journaled.
    Fsync,
}

/// A DIRTY, SYNCED or MODE frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    pub kind: MarkKind,
    pub index: EntryIndex,
    pub term: LeaderEpoch,
}

/// What the marks of a relaxed group come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Loose {
    /// Durable in segments for certain.
    pub synced: EntryIndex,
    pub term: LeaderEpoch,
    /// More was claimed.
    pub dirty: bool,
}

impl Loose {
    /// `None` = not relaxed.
    pub fn fold(now: Option<Loose>, mark: Mark) -> Option<Loose> {
        let Mark { kind, index, term } = mark;
        match kind {
            MarkKind::Fsync => None,
            MarkKind::Relaxed | MarkKind::Synced => Some(Loose { synced: index, term, dirty: false }),
            MarkKind::Dirty => {
                let synced = now.map_or(index, |l| l.synced);
                Some(Loose { synced, term, dirty: true })
            }
        }
    }

    /// The mark that says this alone, for copying forward.
    pub fn mark(self) -> Mark {
        let Loose { synced: index, term, dirty } = self;
        Mark { kind: if dirty { MarkKind::Dirty } else { MarkKind::Relaxed }, index, term }
    }
}

/// Where a replica's log begins when what is before it was trimmed everywhere: for a follower behind the first index. The
/// state of producers and captures stands at a later, committed entry; entries up to there change it no more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PrefixSnapshot {
    /// The entry before the first one, and its term.
    pub index: EntryIndex,
    pub term: u32,
    /// Where the first entry begins.
    pub next_offset: Offset,
    pub log_start: Offset,
    /// Conf state (opaque here) that the entries up to `conf_index` make.
    pub conf: Bytes,
    pub conf_index: EntryIndex,
    /// Terms that began up to `index`.
    pub epochs: Vec<EpochStart>,
    /// The whole of a `.snap` file.
    pub snap: Bytes,
}

/// One element of a journal flush.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    Entry(Gid, NewEntry),
    Hard(Gid, Hard),
    /// The same of a group that has files: its manifest was durable when this was written.
    HardInFiles(Gid, Hard),
    Snapshot(Gid, Box<PrefixSnapshot>),
    Create(Gid, GroupSpec),
    Drop(Gid),
    Mark(Gid, Mark),
}

impl Frame {
    pub fn gid(&self) -> Gid {
        match self {
            Frame::Entry(g, _) | Frame::Hard(g, _) | Frame::Create(g, _) | Frame::Drop(g) | Frame::Mark(g, _) => *g,
            Frame::HardInFiles(g, _) => *g,
            Frame::Snapshot(g, _) => *g,
        }
    }
}

/// What recovery may say of a replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Ok,
    /// Entries that were claimed durable are missing: the replica is mute until repaired.
    Suspect,
    /// The newest hard state is lost; a lone voter goes on with term + 1.
    HardStateUncertain,
    /// A range of a sealed segment is bad; reads of it are refused.
    Damaged,
}

/// Where a term begins in a replica's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochStart {
    pub term: u32,
    pub index: EntryIndex,
    pub offset: Offset,
}

/// One segment of a replica, as found or as written. Files are named by `base_offset` and `generation`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentInfo {
    pub base_index: EntryIndex,
    pub base_offset: Offset,
    pub generation: u32,
    pub sealed: bool,
    /// Compaction has seen all of its keys.
    pub compacted: bool,
    pub created_ms: i64,
    pub rows: SegmentRows,
}

/// What recovery hands out for one replica; [`GroupSpec`] of a new one gives the same with empty lists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecoveredGroup {
    pub gid: Gid,
    pub spec: GroupSpec,
    pub hard: Hard,
    pub verdict: Verdict,
    pub log_start: Offset,
    /// A delete below it may have left the log by compaction.
    pub deletes_gone: Offset,
    pub first_index: EntryIndex,
    /// Term of `first_index - 1`.
    pub prev_term: u32,
    pub epochs: Vec<EpochStart>,
    /// Ascending; the last one may be unsealed.
    pub segments: Vec<SegmentInfo>,
    /// Entries whose bytes are only in the journal so far, ascending, right behind the last row.
    pub journaled: Vec<NewEntry>,
    /// Payload of the newest valid `.snap` and the index it stands at.
    pub snap: Option<(EntryIndex, Bytes)>,
    /// Rows behind `snap` that are in segments, with the 61 header bytes of a data batch of an idempotent producer (the whole
    /// of a control batch, nothing of any other entry) and the context: what producer and capture state is rebuilt from.
    pub since_snap: Vec<(Row, Bytes, Bytes)>,
}

/// A compacted segment that is in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replaced {
    pub segment: SegmentInfo,
    /// A delete below it may have left the log.
    pub deletes_gone: Offset,
}

/// What compaction has taken from a log, for readers that build states of many records.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Thinned {
    /// Records are missing below this offset only.
    pub below: Offset,
    /// What took the place of the missing ones lies below this offset: from here on a state is whole again.
    pub whole_from: Offset,
    /// A delete below it may be missing for good; who has read what it deletes must begin again.
    pub deletes_gone: Offset,
}

impl RecoveredGroup {
    /// The last entry; the one before the first if there is none.
    pub fn last_index(&self) -> EntryIndex {
        let row = self.segments.iter().rev().find_map(|s| s.rows.last()).map(crate::compact::rows::last_index);
        self.journaled.last().map(|e| e.index).or(row).unwrap_or(self.first_index.prev())
    }

    /// A replica that has never held an entry. Its first entry has index 1.
    pub fn fresh(gid: Gid, spec: GroupSpec) -> Self {
        RecoveredGroup {
            gid,
            spec,
            hard: Hard::default(),
            verdict: Verdict::Ok,
            log_start: Offset::ZERO,
            deletes_gone: Offset::ZERO,
            first_index: EntryIndex(1),
            prev_term: 0,
            epochs: Vec::new(),
            segments: Vec::new(),
            journaled: Vec::new(),
            snap: None,
            since_snap: Vec::new(),
        }
    }
}

/// One entry whose bytes can now be read from files. A row with `row.index == base_index` begins a new segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlacedRow {
    pub row: Row,
    /// The segment it is in; the files are named by `base_offset` and `generation`.
    pub base_index: EntryIndex,
    pub base_offset: Offset,
    pub generation: u32,
    /// When the segment was begun, ms since 1970.
    pub created_ms: i64,
}

/// Whole batches of one segment, as far as memory knows where they are: `read.rs` finds them by the rows in the file, and
/// checks each against its row before it serves it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileRead {
    pub gid: Gid,
    /// The segment; its files are named by `base_offset` and `generation`.
    pub base_index: EntryIndex,
    pub base_offset: Offset,
    pub generation: u32,
    /// Numbers of the rows among which they are: from this one on, below that one.
    pub first: u32,
    pub rows: u32,
    /// The first batch ends behind this offset.
    pub from: Offset,
    /// No batch begins here or later.
    pub upto: Offset,
    pub max_bytes: u32,
    /// The first batch even if it is larger than `max_bytes`.
    pub at_least_one: bool,
    /// What it will give, bytes: exact but for fenced rows, there at most `max_bytes` or one batch.
    pub bytes: u64,
    /// No batch of it ends behind this offset.
    pub end: Offset,
    /// There is more below `upto`, in another segment or in memory.
    pub more: bool,
}

impl FileRead {
    /// The one batch of `row`, which is somewhere in the segment that is named so.
    pub fn of_row(gid: Gid, (base_index, base_offset, generation): (EntryIndex, Offset, u32), row: &Row) -> FileRead {
        let end = row.base_offset.plus(u64::from(row.count));
        FileRead {
            gid,
            base_index,
            base_offset,
            generation,
            first: 0,
            rows: u32::MAX,
            from: row.base_offset,
            upto: end,
            max_bytes: row.len,
            at_least_one: true,
            bytes: u64::from(row.len),
            end,
            more: false,
        }
    }
}

/// Rows of one segment that are to be read from its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowRead {
    pub gid: Gid,
    pub base_index: EntryIndex,
    pub base_offset: Offset,
    pub generation: u32,
    /// Numbers of the rows: from this one on, below that one.
    pub first: u32,
    pub rows: u32,
    /// Of these, the ones that cover an index from here on, below that one.
    pub from: EntryIndex,
    pub below: EntryIndex,
    /// They stand for so many bytes of batches and contexts at most; the first one for any number.
    pub max_bytes: u64,
}
