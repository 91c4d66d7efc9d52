//! Pure. What the engine asks of a disk: one blocking call per operation, files named by path.
//!
//! Journal and segment machines emit [`DiskOp`]s with a token; a runner performs them with [`Disk::run`] and hands the
//! outcome back, so a simulator can delay, reorder, tear and fail every one. Handles are the implementation's own
//! business (`real` keeps an LRU of descriptors), so a partition at rest owns none.
//!
//! Contract, checked by `disk/conformance.rs` against every implementation:
//! - a write is visible to reads at once; it is durable only after `Fdatasync` of the file returned, or, for
//!   `WriteDirect`, when the call returned;
//! - a new, renamed or removed name is durable only after `SyncDir` of its directory returned;
//! - after an error of a write or a sync the caller never repeats it (the kernel reports once, then lies);
//! - reads return fewer bytes than asked only at the end of the file.

pub mod conformance;
pub mod faulty;
pub mod memory;
pub mod real;
mod sys;

use bytes::Bytes;
use std::sync::Arc;

/// A path as the operating system takes it; made of the log directory and names of our own, never of a user's name.
pub type FilePath = Arc<str>;

/// Alignment and block size of direct writes, bytes.
pub const BLOCK_BYTES: usize = 4096;

/// One operation. It owns its buffers; [`DiskDone`] hands a direct buffer back for reuse.
#[derive(Debug, Clone)]
pub enum DiskOp {
    /// Makes a directory; fine if it exists. The parent must exist.
    MkDir {
        path: FilePath,
    },
    /// Makes an empty file; `Exists` if the name is taken.
    CreateNew {
        path: FilePath,
    },
    /// Gives the file `len` bytes of blocks and that length.
    Fallocate {
        path: FilePath,
        len: u64,
    },
    /// Writes the buffers one after the other at `at`, through the page cache.
    Write {
        path: FilePath,
        at: u64,
        bufs: Vec<Bytes>,
    },
    /// Writes the filled part of `buf` at `at` past the page cache; durable when it returns. Everything is a multiple of
    /// [`BLOCK_BYTES`]. The file must exist with its full length.
    WriteDirect {
        path: FilePath,
        at: u64,
        buf: AlignedBuf,
    },
    /// At most `len` bytes from `at`.
    Read {
        path: FilePath,
        at: u64,
        len: usize,
    },
    Length {
        path: FilePath,
    },
    Truncate {
        path: FilePath,
        len: u64,
    },
    Fdatasync {
        path: FilePath,
    },
    SyncDir {
        path: FilePath,
    },
    /// Makes everything durable that was written, named or removed on the filesystem of this directory: files and names.
    SyncFs {
        path: FilePath,
    },
    Rename {
        from: FilePath,
        to: FilePath,
    },
    /// Fine if the name is not there.
    Unlink {
        path: FilePath,
    },
    /// Removes an empty directory; fine if it is not there.
    RemoveDir {
        path: FilePath,
    },
    /// Names in a directory, sorted; `NotFound` if there is none.
    List {
        path: FilePath,
    },
    /// Asks for write-back of a file's dirty pages without waiting for it; a hint.
    StartWriteback {
        path: FilePath,
        at: u64,
        len: u64,
    },
    /// Takes the directory for this process; `Locked` if another has it. Held until [`DiskOp::Unlock`] or the end of the process.
    Lock {
        path: FilePath,
    },
    Unlock {
        path: FilePath,
    },
    /// How much room the filesystem of this path has.
    Space {
        path: FilePath,
    },
    /// Which boot and which mount this directory is on.
    Identity {
        path: FilePath,
    },
    /// What filesystem this directory is on.
    FsKind {
        path: FilePath,
    },
}

impl DiskOp {
    /// True if an error of this operation stops the directory: bytes may be lost that were handed over.
    pub fn is_write(&self) -> bool {
        matches!(
            self,
            DiskOp::CreateNew { .. }
                | DiskOp::MkDir { .. }
                | DiskOp::Fallocate { .. }
                | DiskOp::Write { .. }
                | DiskOp::WriteDirect { .. }
                | DiskOp::Truncate { .. }
                | DiskOp::Fdatasync { .. }
                | DiskOp::SyncDir { .. }
                | DiskOp::SyncFs { .. }
                | DiskOp::Rename { .. }
        )
    }

    /// True if the same operation may run again after it found no space: what it left is overwritten, and nobody was told
    /// that it is durable. Never a sync and never a direct write: there an error is the only word the kernel says about
    /// bytes that were handed over before.
    pub fn may_wait_for_space(&self) -> bool {
        matches!(
            self,
            DiskOp::CreateNew { .. }
                | DiskOp::MkDir { .. }
                | DiskOp::Fallocate { .. }
                | DiskOp::Write { .. }
                | DiskOp::Truncate { .. }
                | DiskOp::Rename { .. }
        )
    }

    /// The path it works on; for a rename the old one.
    pub fn path(&self) -> &FilePath {
        match self {
            DiskOp::MkDir { path }
            | DiskOp::CreateNew { path }
            | DiskOp::Fallocate { path, .. }
            | DiskOp::Write { path, .. }
            | DiskOp::WriteDirect { path, .. }
            | DiskOp::Read { path, .. }
            | DiskOp::Length { path }
            | DiskOp::Truncate { path, .. }
            | DiskOp::Fdatasync { path }
            | DiskOp::SyncDir { path }
            | DiskOp::SyncFs { path }
            | DiskOp::Unlink { path }
            | DiskOp::RemoveDir { path }
            | DiskOp::List { path }
            | DiskOp::StartWriteback { path, .. }
            | DiskOp::Lock { path }
            | DiskOp::Unlock { path }
            | DiskOp::Space { path }
            | DiskOp::Identity { path }
            | DiskOp::FsKind { path } => path,
            DiskOp::Rename { from, .. } => from,
        }
    }

    /// A word for error texts.
    pub fn name(&self) -> &'static str {
        match self {
            DiskOp::MkDir { .. } => "make directory",
            DiskOp::CreateNew { .. } => "create",
            DiskOp::Fallocate { .. } => "allocate",
            DiskOp::Write { .. } => "write",
            DiskOp::WriteDirect { .. } => "direct write",
            DiskOp::Read { .. } => "read",
            DiskOp::Length { .. } => "stat",
            DiskOp::Truncate { .. } => "truncate",
            DiskOp::Fdatasync { .. } => "sync",
            DiskOp::SyncDir { .. } => "sync directory",
            DiskOp::SyncFs { .. } => "sync the filesystem of",
            DiskOp::Rename { .. } => "rename",
            DiskOp::Unlink { .. } => "remove",
            DiskOp::RemoveDir { .. } => "remove directory",
            DiskOp::List { .. } => "list",
            DiskOp::StartWriteback { .. } => "start write-back",
            DiskOp::Lock { .. } => "lock",
            DiskOp::Unlock { .. } => "unlock",
            DiskOp::Space { .. } => "ask free space of",
            DiskOp::Identity { .. } => "identify",
            DiskOp::FsKind { .. } => "ask the filesystem of",
        }
    }
}

/// What an operation gives back.
#[derive(Debug)]
pub enum DiskDone {
    Done,
    Buffer(AlignedBuf),
    Read(Bytes),
    Length(u64),
    List(Vec<String>),
    Space(Space),
    Identity(Identity),
    FsKind(FsKind),
}

/// Can a filesystem be trusted with a log?
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FsKind {
    #[default]
    Local,
    /// Shared between machines, or a program of somebody's that answers for the kernel: its name.
    Unsafe(&'static str),
}

/// Room on a filesystem, bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// What an ordinary user may still take.
    pub free: u64,
    pub total: u64,
}

/// Tells a process restart from a power loss: both equal and no clean flag = the page cache survived.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Identity {
    pub boot_id: [u8; 16],
    /// Unique mount id of Linux ≥ 6.8; 0 = unknown, equal to nothing.
    pub mount_id: u64,
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {op} {path}: {kind}")]
pub struct DiskError {
    pub op: &'static str,
    pub path: FilePath,
    pub kind: DiskFault,
}

/// The kinds that callers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DiskFault {
    #[error("no such file")]
    NotFound,
    #[error("the name is taken")]
    Exists,
    #[error("no space left on the disk")]
    NoSpace,
    #[error("another process holds it")]
    Locked,
    #[error("permission denied, or the filesystem is read-only")]
    Denied,
    #[error("too many open files")]
    TooManyFiles,
    #[error("input/output error")]
    Io,
    /// More than [`READ_BYTES_MAX`] would be read at once: no file of ours is that long.
    #[error("longer than any file that belongs here")]
    TooLong,
    #[error("system error {0}")]
    Other(i32),
    /// Not of the disk: the thread that works on it panicked, and what it had begun nobody finishes.
    #[error("a bug: its thread panicked")]
    Panic,
}

/// Most bytes of one read. What is read whole is far shorter (a table has 48 MB at most); a file that somebody made as long as a
/// disk must not take the memory for it.
pub const READ_BYTES_MAX: usize = 1 << 30;

/// How journal writes reach the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JournalWrites {
    /// O_DIRECT | O_DSYNC.
    Direct,
    /// The filesystem refuses that: buffered, then fdatasync. Slower, as safe.
    Buffered,
}

/// Looks at bytes only if they are in memory already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hot {
    Hit(usize),
    Cold,
    Unsupported,
}

/// A disk. Blocking: called from the journal thread, the segment writer and the blocking pool, never from an async task.
/// All methods may be called from many threads at once; two operations on one file are the caller's to order.
pub trait Disk: Send + Sync {
    fn run(&self, op: DiskOp) -> Result<DiskDone, DiskError>;

    /// How [`DiskOp::WriteDirect`] reaches the device in this directory; asked once, at the start.
    fn probe(&self, _dir: &str) -> Result<JournalWrites, DiskError> {
        Ok(JournalWrites::Direct)
    }

    /// The first `len` bytes of a file that is read once and not soon again: past the page cache, where that can be.
    fn read_once(&self, path: &FilePath, len: usize) -> Result<Bytes, DiskError> {
        match self.run(DiskOp::Read { path: path.clone(), at: 0, len })? {
            DiskDone::Read(bytes) => Ok(bytes),
            _ => Ok(Bytes::new()),
        }
    }

    /// How many threads may read files at once, at least 1. Where the order of operations decides what happens (a
    /// simulated disk, errors by count) it is 1, and everything is read by the caller's thread.
    fn readers(&self) -> usize {
        1
    }

    /// Lets go of what is held for files that nobody has used since the call before this one. Waits for the device at most
    /// once; what it may not let go of stays. An error is that of a sync: nothing written before it may be relied on.
    fn shed(&self) -> Result<(), DiskError> {
        Ok(())
    }

    /// Reads without waiting for the device; may always say it cannot.
    fn try_hot(&self, _path: &FilePath, _at: u64, _buf: &mut [u8]) -> Hot {
        Hot::Unsupported
    }
}

/// Short forms of the operations for code that runs them in line (recovery, tests).
pub trait DiskExt: Disk {
    fn mkdir(&self, path: &str) -> Result<(), DiskError> {
        self.run(DiskOp::MkDir { path: path.into() }).map(drop)
    }
    fn create_new(&self, path: &str) -> Result<(), DiskError> {
        self.run(DiskOp::CreateNew { path: path.into() }).map(drop)
    }
    fn write(&self, path: &str, at: u64, bytes: Bytes) -> Result<(), DiskError> {
        self.run(DiskOp::Write { path: path.into(), at, bufs: vec![bytes] }).map(drop)
    }
    fn read(&self, path: &str, at: u64, len: usize) -> Result<Bytes, DiskError> {
        match self.run(DiskOp::Read { path: path.into(), at, len })? {
            DiskDone::Read(bytes) => Ok(bytes),
            _ => Ok(Bytes::new()),
        }
    }
    fn length(&self, path: &str) -> Result<u64, DiskError> {
        match self.run(DiskOp::Length { path: path.into() })? {
            DiskDone::Length(len) => Ok(len),
            _ => Ok(0),
        }
    }
    /// The whole file; `None` if there is none.
    fn read_all(&self, path: &str) -> Result<Option<Bytes>, DiskError> {
        let bytes = self.length(path).and_then(|len| self.read(path, 0, usize::try_from(len).unwrap_or(usize::MAX)));
        match bytes {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind == DiskFault::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
    fn list(&self, path: &str) -> Result<Vec<String>, DiskError> {
        match self.run(DiskOp::List { path: path.into() })? {
            DiskDone::List(names) => Ok(names),
            _ => Ok(Vec::new()),
        }
    }
    fn truncate(&self, path: &str, len: u64) -> Result<(), DiskError> {
        self.run(DiskOp::Truncate { path: path.into(), len }).map(drop)
    }
    fn fdatasync(&self, path: &str) -> Result<(), DiskError> {
        self.run(DiskOp::Fdatasync { path: path.into() }).map(drop)
    }
    fn sync_dir(&self, path: &str) -> Result<(), DiskError> {
        self.run(DiskOp::SyncDir { path: path.into() }).map(drop)
    }
    fn space(&self, path: &str) -> Result<Space, DiskError> {
        match self.run(DiskOp::Space { path: path.into() })? {
            DiskDone::Space(space) => Ok(space),
            _ => Ok(Space { free: u64::MAX, total: u64::MAX }),
        }
    }
    fn unlink(&self, path: &str) -> Result<(), DiskError> {
        self.run(DiskOp::Unlink { path: path.into() }).map(drop)
    }
    fn identity(&self, path: &str) -> Result<Identity, DiskError> {
        match self.run(DiskOp::Identity { path: path.into() })? {
            DiskDone::Identity(identity) => Ok(identity),
            _ => Ok(Identity::default()),
        }
    }
}

impl<D: Disk + ?Sized> DiskExt for D {}

/// A buffer whose bytes begin at a multiple of [`BLOCK_BYTES`] in memory, as direct writes need. It over-allocates by one
/// block and hands out the aligned slice, so no `unsafe` is needed.
pub struct AlignedBuf {
    raw: Vec<u8>,
    start: usize,
    capacity: usize,
    len: usize,
}

impl AlignedBuf {
    /// Room for `capacity` bytes, rounded up to whole blocks.
    pub fn with_capacity(capacity: usize) -> Self {
        let capacity = capacity.div_ceil(BLOCK_BYTES).max(1) * BLOCK_BYTES;
        let raw = vec![0; capacity + BLOCK_BYTES];
        let start = raw.as_ptr().align_offset(BLOCK_BYTES).min(BLOCK_BYTES);
        AlignedBuf { raw, start, capacity, len: 0 }
    }
    pub fn capacity(&self) -> usize {
        self.capacity
    }
    pub fn len(&self) -> usize {
        self.len
    }
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    pub fn clear(&mut self) {
        self.len = 0;
    }
    pub fn bytes(&self) -> &[u8] {
        &self.raw[self.start..self.start + self.len]
    }
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.raw[self.start..self.start + self.len]
    }
    /// Appends; the caller has asked [`AlignedBuf::room`] before.
    pub fn put(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "aligned buffer is full");
        let at = self.start + self.len;
        self.raw[at..at + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
    /// Appends `n` zero bytes.
    pub fn put_zeros(&mut self, n: usize) {
        assert!(n <= self.room(), "aligned buffer is full");
        let at = self.start + self.len;
        self.raw[at..at + n].fill(0);
        self.len += n;
    }
    pub fn room(&self) -> usize {
        self.capacity - self.len
    }
    /// Zeros up to the next block boundary.
    pub fn pad(&mut self) {
        self.put_zeros(self.len.next_multiple_of(BLOCK_BYTES) - self.len);
    }
}

impl Clone for AlignedBuf {
    fn clone(&self) -> Self {
        let mut out = AlignedBuf::with_capacity(self.capacity);
        out.put(self.bytes());
        out
    }
}

impl std::fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedBuf({} of {})", self.len, self.capacity)
    }
}
