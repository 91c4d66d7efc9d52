//! Pure. What the segment writer is told, what it asks for, and its settings.

use super::{FoundGroup, Replacement};
use crate::disk::{DiskDone, DiskError, DiskOp};
use crate::entry::{PlacedRow, Replaced};
use crate::journal::{Persisted, Token};
use bytes::Bytes;
use catchwater_record::{EntryIndex, Gid, Offset};

/// What a topic's settings say of one group's segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentLimits {
    /// `segment.bytes`
    pub bytes: u32,
    /// `segment.ms`: from the first batch's timestamp to the one that is appended.
    pub ms: u64,
    /// `segment.jitter.ms`: at most so much less.
    pub jitter_ms: u64,
    /// `file.delete.delay.ms`
    pub delete_delay_ms: u64,
}

#[derive(Clone, Debug)]
pub struct SegmentConfig {
    /// The directory `p`.
    pub dir: String,
    /// Defaults of a group's limits.
    pub segment_bytes: u32,
    pub segment_ms: u64,
    /// Rows of a segment at most.
    pub rows_max: u32,
    /// Bytes of one append job at most (one entry may be larger).
    pub write_bytes_max: usize,
    /// Write-back is asked for after so many bytes of a `.log`, so that the kernel never holds seconds of dirty pages that
    /// a sync must wait for.
    pub writeback_bytes: u32,
    /// A snapshot of producer and capture state is asked for after so many bytes.
    pub snap_bytes: u64,
    /// Groups with an operation in flight at one time.
    pub parallel: usize,
    /// So many groups that want to be durable at one time are made so together, by syncing the filesystem.
    pub sweep_groups_min: usize,
}

impl SegmentConfig {
    pub fn new(dir: String) -> Self {
        SegmentConfig {
            dir,
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3600 * 1000,
            rows_max: 1_000_000,
            write_bytes_max: 1 << 20,
            writeback_bytes: 256 << 10,
            snap_bytes: 16 << 20,
            parallel: 1,
            sweep_groups_min: 64,
        }
    }
}

/// For the shell's crash points around the operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentPoint {
    SegLog,
    SegExt,
    SegEnt,
    RollCreate,
    RollDirsync,
    /// The first rows of a new segment: from then on it is one.
    RollUse,
    CkptSync,
    SealLog,
    SealEnt,
    SealExt,
    SealTxn,
    SealManifest,
    TruncRows,
    TruncFile,
    /// What was cut stays cut, where no journal says so.
    TruncSync,
    TrimManifest,
    TrimUnlink,
    SwitchManifest,
    SwitchDrop,
    SnapWrite,
    SnapSync,
    DelRename,
    DelRemove,
    Read,
    WriteBack,
}

#[derive(Debug)]
pub enum SegmentEvent {
    /// A group that recovery found. Before anything else of the group.
    Open(Box<FoundGroup>),
    /// What the journal has made durable.
    Queue(Vec<Persisted>),
    /// A truncation of this group is on its way through the journal. Told before any commit index that speaks of the log
    /// behind it: until it is applied, files may hold rows of the old tail, and nothing of the group is sealed.
    CutComing(Gid),
    /// Commit indexes as far as they are known.
    Committed(Gid, EntryIndex),
    /// Make durable what has been queued for these groups, then `Drained`.
    Sync(Vec<Gid>),
    /// The group is relaxed from now on, or not any more: its entries come without a journal behind them.
    Mode(Gid, bool),
    /// Make durable what is in files (`all`: first what is queued too), then `Flushed`.
    Flush {
        gid: Gid,
        all: bool,
    },
    /// State at a committed index, answer to `WantSnap`, or unasked at close.
    Snap(Gid, EntryIndex, Offset, Bytes),
    /// The group goes on mute: whatever it looks like after a crash, it comes back as Suspect. Or it does not any more.
    Mute(Gid, bool),
    /// A committed log start. Before segments go, the state that they alone held so far must be in a snapshot.
    Trim(Gid, Offset, Option<(EntryIndex, Offset, Bytes)>),
    Limits(Gid, SegmentLimits),
    /// A compacted segment is durable beside those it was made from.
    Switch(Gid, Box<Replacement>),
    Done(Token, Result<DiskDone, DiskError>),
    /// Whoever watches the disk says that there may be room again: what stands is tried once more.
    SpaceBack,
    /// Place and make durable what the group has, then forget it: `Left`. See `leave.rs`.
    Leave(Gid),
    /// Write, seal and sync everything, then `Closed`.
    Close,
    Wake,
}

#[derive(Debug)]
pub enum SegmentEffect {
    /// Run it and answer with `Done`.
    Disk {
        token: Token,
        op: DiskOp,
        point: SegmentPoint,
    },
    /// Readable in files up to the index: `Event::Segmented` of the replica.
    Placed(Gid, EntryIndex, Vec<PlacedRow>),
    /// To the journal.
    Drained(Gid, u64),
    /// Answer to `Flush`: everything up to the entry is durable.
    Flushed(Gid, EntryIndex),
    /// A truncation of a relaxed group is done: what is placed from now on lies behind it.
    CutDone(Gid),
    Sealed(Gid, Offset),
    /// The replacement is in force (`None` = refused: the segments it was made from are not all there any more).
    Switched(Gid, Option<Box<Replaced>>),
    /// Ask the replica for its snapshot.
    WantSnap(Gid),
    /// The group's files are gone.
    Removed(Gid),
    /// Everything of the group is durable in files that nobody writes to any more.
    Left(Gid),
    /// A group stands: an operation found no room. Its entries stay in the journal and in memory; it goes on at
    /// [`SegmentEvent::SpaceBack`].
    NoSpace(DiskError),
    /// Bytes of the group's files cannot be read: it goes on without what they were needed for, see `contain.rs`.
    Unreadable(Gid, DiskError),
    Stop(DiskError),
    /// Everything is in files and durable.
    Closed,
}
