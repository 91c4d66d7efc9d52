//! Threads of one log directory: the journal thread (group commit of all partitions) and the segment writer.
//!
//! Walk: row-change 11/17
//!
//! A partition's shell calls [`LogDir::persist`] under its lock: that queues and wakes, nothing else. Later the journal
//! thread calls [`Replica::handle`] with `Event::Persisted`, the segment writer with `Event::Segmented`. After the first
//! failed write or sync nothing is acknowledged any more ([`LogDir::is_stopped`]); the process must end.

use crate::effect::{Event, ReadyNo};
use bytes::Bytes;
use catchwater_record::{EntryIndex, Gid, NodeId, Offset};
use catchwater_storage::disk::{Disk, DiskError};
use catchwater_storage::{FileRange, GroupSpec, Hard, NewEntry, RecoveredGroup};
use std::path::PathBuf;
use std::sync::Arc;

/// A replica as its log directory's threads see it. Implemented by the broker's partition: lock, `GroupCore::handle`,
/// perform the effects, complete waiters. Called from the driver's threads, never while they hold a lock of their own,
/// so an implementation may call [`LogDir::persist`] from inside.
pub trait Replica: Send + Sync {
    fn handle(&self, event: Event);

    /// `Log::snapshot_payload`: state at a committed index, for `.snap`. Asked at a roll, now and then, and at close.
    fn snapshot(&self) -> Option<(EntryIndex, Offset, Bytes)> {
        None
    }
}

/// How a log directory is kept. Every figure is a bound.
#[derive(Clone, Debug)]
pub struct LogDirConfig {
    pub path: PathBuf,
    /// Used when the directory is made; afterwards the stored one counts.
    pub node_id: NodeId,
    /// Length of one journal file, bytes, a multiple of 4096. The largest batch is a quarter of it.
    pub journal_file_bytes: u64,
    /// Journal files at start; the first is made before the directory is ready, the others behind it.
    pub journal_files: u32,
    /// Journal files at most.
    pub journal_files_max: u32,
    /// A segment is rolled before it grows beyond this many bytes (topic setting `segment.bytes`; this is the default).
    pub segment_bytes: u32,
    /// A segment is rolled when its first entry is older, ms.
    pub segment_ms: u64,
    /// Bytes of entries that are journaled but not yet in segments, for the whole directory, before producers are slowed.
    pub unplaced_bytes_max: u64,
    /// Open descriptors for segment files.
    pub descriptors_max: usize,
}

impl Default for LogDirConfig {
    fn default() -> Self {
        LogDirConfig {
            path: PathBuf::from("data"),
            node_id: NodeId(1),
            journal_file_bytes: 16 << 20,
            journal_files: 4,
            journal_files_max: 16,
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3600 * 1000,
            unplaced_bytes_max: 64 << 20,
            descriptors_max: 512,
        }
    }
}

/// Randomness for the ids of a new directory: 32 bytes from the operating system, or from a test's seed.
#[derive(Clone, Copy, Debug)]
pub struct IdentitySeed {
    /// The cluster this node founds, if the directory is new.
    pub cluster_id: [u8; 16],
    pub dir_id: [u8; 16],
}

/// What was found when the directory was opened.
#[derive(Debug)]
pub struct Opened {
    pub cluster_id: [u8; 16],
    pub node_id: NodeId,
    pub dir_id: [u8; 16],
    /// The directory was made just now.
    pub fresh: bool,
    /// Every replica, ascending by gid. Attach each before it persists.
    pub groups: Vec<RecoveredGroup>,
}

/// Whether producers should wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Pressure {
    #[default]
    None,
    /// Delay produce requests.
    Slow,
    /// Refuse them: the journal has no room, or too many bytes wait for the segment writer.
    Stop,
}

/// Why a log directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("another process has the log directory {0}")]
    Locked(String),
    #[error("the log directory {path} cannot be written")]
    NotWritable { path: String, source: DiskError },
    #[error("{path} is not a log directory of this version: {why}")]
    Format { path: String, why: String },
    #[error("the disk failed while the log directory was opened")]
    Disk(#[from] DiskError),
    #[error("no thread could be started")]
    Thread(#[from] std::io::Error),
}

/// The log directory has stopped for good: a write or a sync failed, and what the disk holds is not known any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log directory has stopped and acknowledges nothing more")]
pub struct DirError {
    pub source: DiskError,
}

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

/// One log directory; clones share it.
#[derive(Clone)]
pub struct LogDir {
    // The threads and queues land with the next commits of this lane; until then `open` refuses.
    _disk: Arc<dyn Disk>,
}

impl LogDir {
    /// Takes the directory (or makes it), recovers it, starts its threads. Blocking: call it before the runtime serves.
    pub fn open(disk: Arc<dyn Disk>, config: LogDirConfig, _seed: IdentitySeed) -> Result<(LogDir, Opened), OpenError> {
        let _dir = LogDir { _disk: disk };
        Err(OpenError::Format { path: config.path.display().to_string(), why: "not built yet".into() })
    }

    /// Queues the CREATE frame: durable before the group's first entry. Gives what `Log::open` wants.
    pub fn create(&self, gid: Gid, spec: GroupSpec) -> RecoveredGroup {
        RecoveredGroup::fresh(gid, spec)
    }

    /// From now on `replica` hears of what this group has persisted.
    pub fn attach(&self, _gid: Gid, _replica: Arc<dyn Replica>) {}

    /// The group is gone: its files go, its replica hears nothing more.
    pub fn drop_group(&self, _gid: Gid) {}

    /// Performs `Effect::Persist`. Called under the partition's lock: queues and wakes the journal thread.
    pub fn persist(
        &self,
        _gid: Gid,
        _ready: ReadyNo,
        _entries: Vec<NewEntry>,
        _hard: Option<Hard>,
        _truncate_from: Option<EntryIndex>,
    ) {
    }

    /// Performs the storage part of `Effect::Commit`: a rolled segment may be sealed once its last entry is committed.
    pub fn committed(&self, _gid: Gid, _upto: EntryIndex) {}

    /// Everything below is gone for readers (a committed logstart entry): whole segments below it are removed.
    pub fn trim(&self, _gid: Gid, _log_start: Offset) {}

    /// Bounds of one group's segments (topic settings).
    pub fn set_segment_limits(&self, _gid: Gid, _segment_bytes: u32, _segment_ms: u64) {}

    /// Whole batches, each checked against its row's place and its CRC. Blocks on the disk: not on a runtime thread
    /// unless the caller accepts a page-cache read.
    pub fn read(&self, _ranges: &[FileRange]) -> Result<Vec<Bytes>, ReadError> {
        Ok(Vec::new())
    }

    pub fn pressure(&self) -> Pressure {
        Pressure::None
    }

    /// Set once a write or sync has failed.
    pub fn is_stopped(&self) -> Option<DirError> {
        None
    }

    /// Flushes, brings everything into segments, asks each replica for its snapshot, sets the clean flag, joins the threads.
    pub fn close(self) {}
}
