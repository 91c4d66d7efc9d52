//! The operating system's disk, through `rustix`. Not pure; one of the few files of the crate that touch the world.
//!
//! Descriptors are an LRU with a budget, half of what the process may open, keyed by path. A descriptor with writes
//! that were not synced is synced before it is closed: the kernel may forget a write-back error once nobody
//! has the file open. Journal writes go past the page cache (O_DIRECT | O_DSYNC); where the filesystem refuses that
//! (some overlays, some tmpfs), they are buffered and followed by fdatasync. [`Disk::probe`] asks once, at the start.
//! If the sync before such a close fails, nobody who asked for that file hears of it: from then on every write and sync of
//! this disk fails. If the process is out of descriptors, the budget is halved and the open tried once more.

use super::{
    AlignedBuf, BLOCK_BYTES, Disk, DiskDone, DiskError, DiskExt, DiskFault, DiskOp, FilePath, FsKind, Hot, Identity,
    JournalWrites, READ_BYTES_MAX, Space, sys,
};
use bytes::Bytes;
use catchwater_base::hash::Map;
use catchwater_base::mutant;
use rustix::fs::{AtFlags, FallocateFlags, FlockOperation, Mode, OFlags, StatxFlags};
use rustix::io::{Errno, ReadWriteFlags};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Budget of open files at most, and where the process's limit is unknown. Below that it is half of what the process may
/// open: connections and the rest of the process take the other half.
const DESCRIPTORS_MAX: usize = 65_536;
/// So many files with bytes to sync are synced together, by syncing their filesystem.
const SYNC_TOGETHER_MIN: usize = 64;
/// Below this the budget does not shrink.
const DESCRIPTORS_MIN: usize = 8;
/// `O_DSYNC`; `rustix` maps its own constant to O_SYNC, which also waits for the modification time.
const O_DSYNC: OFlags = OFlags::from_bits_retain(0o10000);
/// `STATX_MNT_ID_UNIQUE`, Linux ≥ 6.8.
const MOUNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
/// Reads of so many bytes go into memory of large pages, if the system gives any.
const LARGE_READ_BYTES: usize = 4 << 20;
/// Threads that read the journal at a start: more of them than the device serves at once gain nothing.
const READERS_MAX: usize = 4;
/// What one system call takes (IOV_MAX).
const BUFFERS_PER_WRITE: usize = 1024;

/// See the file head.
pub struct RealDisk {
    files: Mutex<Files>,
    locks: Mutex<Map<FilePath, Arc<OwnedFd>>>,
    /// Direct writes were refused once: never tried again.
    buffered: AtomicBool,
    /// A file was closed after its sync had failed, see the file head.
    lost: AtomicBool,
    clock: AtomicU64,
    /// The clock at the last [`Disk::shed`].
    shed_at: AtomicU64,
}

struct Files {
    budget: usize,
    open: Map<Key, Open>,
    /// How often a name came to mean something else. Who opens a file keeps it under its name only if none did meanwhile: else
    /// it might be one that is gone, for all who ask for that name later.
    changes: u64,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    path: FilePath,
    direct: bool,
}

/// An open file, and what is known of it.
type Kept = (Arc<OwnedFd>, Arc<Marks>);

struct Open {
    fd: Arc<OwnedFd>,
    used: u64,
    marks: Arc<Marks>,
}

#[derive(Default)]
struct Marks {
    /// Bytes wait for a sync.
    dirty: AtomicBool,
}

impl Marks {
    fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Acquire)
    }
    fn set_dirty(&self, dirty: bool) {
        self.dirty.store(dirty, Ordering::Release);
    }
}

impl Default for RealDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl RealDisk {
    pub fn new() -> Self {
        let allowed = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let half = allowed.map_or(DESCRIPTORS_MAX, |n| usize::try_from(n / 2).unwrap_or(DESCRIPTORS_MAX));
        Self::with_descriptor_budget(half.min(DESCRIPTORS_MAX))
    }

    /// Files that may stay open; less than it began with once the process ran out of descriptors.
    pub fn descriptor_budget(&self) -> usize {
        self.files().budget
    }

    /// At most about `budget` files stay open.
    pub fn with_descriptor_budget(budget: usize) -> Self {
        RealDisk {
            files: Mutex::new(Files { budget: budget.max(DESCRIPTORS_MIN), open: Map::default(), changes: 0 }),
            locks: Mutex::new(Map::default()),
            buffered: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            clock: AtomicU64::new(0),
            shed_at: AtomicU64::new(0),
        }
    }

    /// Never uses O_DIRECT: the path that overlays force, for tests and measurements.
    pub fn buffered() -> Self {
        let disk = Self::new();
        disk.buffered.store(true, Ordering::Relaxed);
        disk
    }

    /// True once direct writes were refused (or were never wanted).
    pub fn is_buffered(&self) -> bool {
        self.buffered.load(Ordering::Relaxed)
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, path: &FilePath, direct: bool) -> Result<Kept, Errno> {
        let key = Key { path: path.clone(), direct };
        let used = self.clock.fetch_add(1, Ordering::Relaxed);
        let flags = if direct { OFlags::RDWR | OFlags::DIRECT | O_DSYNC } else { OFlags::RDWR };
        loop {
            let changes = {
                let mut files = self.files();
                if let Some(open) = files.open.get_mut(&key) {
                    open.used = used;
                    return Ok((open.fd.clone(), open.marks.clone()));
                }
                files.changes
            };
            let fd = self.open(path, flags, Mode::empty())?;
            if let Some(kept) = self.keep(&key, fd, used, changes)? {
                return Ok(kept);
            }
        }
    }

    /// Opens; out of descriptors, the budget is halved (for good: others need them too) and the open tried once more.
    fn open(&self, path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let open = || rustix::fs::open(path, flags | OFlags::CLOEXEC, mode);
        match open() {
            Err(Errno::MFILE | Errno::NFILE) => {
                let keep = {
                    let mut files = self.files();
                    files.budget = (files.budget.min(files.open.len()) / 2).max(DESCRIPTORS_MIN);
                    files.budget
                };
                self.make_room(keep)?;
                open()
            }
            other => other,
        }
    }

    fn open_dir(&self, path: &str) -> Result<OwnedFd, Errno> {
        self.open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
    }

    /// `changes` as they were before it was opened; `None`: there are more now, so nobody knows what was opened.
    fn keep(&self, key: &Key, fd: OwnedFd, used: u64, changes: u64) -> Result<Option<Kept>, Errno> {
        let open = Open { fd: Arc::new(fd), used, marks: Arc::default() };
        let out = (open.fd.clone(), open.marks.clone());
        let over = {
            let mut files = self.files();
            if files.changes != changes {
                return Ok(None);
            }
            // Another thread may have opened it too; whoever came first stays, so that dirt is never split.
            if let Some(first) = files.open.get(key) {
                return Ok(Some((first.fd.clone(), first.marks.clone())));
            }
            files.open.insert(key.clone(), open);
            (files.open.len() > files.budget).then_some(files.budget * 3 / 4)
        };
        if let Some(keep) = over {
            self.make_room(keep)?;
        }
        Ok(Some(out))
    }

    /// Closes the least recently used until `keep` are left; syncs what is dirty first.
    fn make_room(&self, keep: usize) -> Result<(), Errno> {
        let mut victims = Vec::new();
        {
            let mut files = self.files();
            let mut by_age: Vec<(u64, Key)> = files.open.iter().map(|(k, o)| (o.used, k.clone())).collect();
            by_age.sort_unstable_by_key(|(used, _)| *used);
            for (_, key) in by_age.iter().take(by_age.len().saturating_sub(keep)) {
                victims.extend(files.open.remove(key).map(|open| (key.path.clone(), open)));
            }
        }
        self.close(victims)
    }

    /// Syncs those that are dirty; then all of them go.
    fn close(&self, mut victims: Vec<(FilePath, Open)>) -> Result<(), Errno> {
        victims.retain(|(_, open)| open.marks.is_dirty());
        // One by one each waits for the filesystem's journal: with ten thousand partitions that is minutes.
        let together = victims.len() >= SYNC_TOGETHER_MIN;
        let lock = victims.first().filter(|_| together).and_then(|(path, _)| self.lock_above(path));
        for (at, (path, victim)) in victims.iter().enumerate() {
            let covered = lock.as_ref().is_some_and(|(root, _)| path.starts_with(&**root));
            let synced = match &lock {
                Some((_, fd)) if at == 0 => rustix::fs::syncfs(fd),
                _ if covered => Ok(()),
                _ => rustix::fs::fdatasync(&*victim.fd),
            };
            if let Err(error) = synced {
                // Whoever syncs that file next would be told that all is well: the kernel has said it, once, here.
                self.lost.store(true, Ordering::SeqCst);
                return Err(if error == Errno::NOSPC { Errno::IO } else { error });
            }
        }
        Ok(())
    }

    /// The kernel reports a write-back error to every descriptor of the filesystem that was open before it (Linux ≥ 5.8),
    /// so this uses the one that holds the lock, opened before the first write, if `path` lies below it.
    fn sync_filesystem(&self, path: &FilePath) -> Result<(), Errno> {
        let Some((root, fd)) = self.lock_above(path) else { return rustix::fs::syncfs(self.open_dir(path)?) };
        let covered: Vec<Arc<Marks>> = {
            let files = self.files();
            let dirty = files.open.iter().filter(|(key, open)| key.path.starts_with(&*root) && open.marks.is_dirty());
            dirty.map(|(_, open)| open.marks.clone()).collect()
        };
        // Cleared first: what is written during the sync may not be in it.
        covered.iter().for_each(|marks| marks.set_dirty(false));
        rustix::fs::syncfs(fd).inspect_err(|_| covered.iter().for_each(|marks| marks.set_dirty(true)))
    }

    /// The locked directory that `path` lies in, and the descriptor that holds its lock.
    fn lock_above(&self, path: &FilePath) -> Option<(FilePath, Arc<OwnedFd>)> {
        let locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        let found = locks.iter().find(|(root, _)| path.starts_with(&***root));
        found.map(|(root, fd)| (root.clone(), fd.clone()))
    }

    /// The path, and everything below it, means something else now: said when it does, not before.
    fn forget(&self, path: &str) {
        let below = format!("{path}/");
        let mut files = self.files();
        files.changes += 1;
        files.open.retain(|key, _| &*key.path != path && !key.path.starts_with(&below));
    }

    fn write_bufs(&self, path: &FilePath, mut at: u64, bufs: &[Bytes]) -> Result<(), Errno> {
        let (fd, marks) = self.get(path, false)?;
        marks.set_dirty(true);
        let mut rest: Vec<&[u8]> = bufs.iter().map(|b| &b[..]).filter(|b| !b.is_empty()).collect();
        rest.reverse();
        while !rest.is_empty() {
            let slices: Vec<IoSlice<'_>> = rest.iter().rev().take(BUFFERS_PER_WRITE).map(|b| IoSlice::new(b)).collect();
            let mut done = rustix::io::retry_on_intr(|| rustix::io::pwritev(&*fd, &slices, at))?;
            if done == 0 {
                return Err(Errno::IO);
            }
            at += done as u64;
            while let Some(front) = rest.pop() {
                if done < front.len() {
                    rest.push(&front[done..]);
                    break;
                }
                done -= front.len();
            }
        }
        Ok(())
    }

    fn write_direct(&self, path: &FilePath, at: u64, buf: &AlignedBuf) -> Result<(), Errno> {
        if !self.is_buffered() {
            match self.get(path, true).and_then(|(fd, _)| write_whole(&fd, buf.bytes(), at)) {
                // Refused before anything was written: not a failed write.
                Err(Errno::INVAL | Errno::OPNOTSUPP) => self.buffered.store(true, Ordering::Relaxed),
                other => return other,
            }
        }
        let (fd, _) = self.get(path, false)?;
        write_whole(&fd, buf.bytes(), at)?;
        rustix::fs::fdatasync(&*fd)
    }

    /// The first `len` bytes, or all if there are fewer, without a copy in the page cache.
    fn read_direct(&self, path: &str, len: usize) -> Result<Bytes, Errno> {
        if self.is_buffered() {
            return Err(Errno::OPNOTSUPP);
        }
        let fd = self.open(path, OFlags::RDONLY | OFlags::DIRECT, Mode::empty())?;
        let size = usize::try_from(rustix::fs::fstat(&fd)?.st_size).unwrap_or(usize::MAX);
        // The last block may be asked for beyond the end; the buffer begins at a block.
        if len.min(size) > READ_BYTES_MAX {
            return Err(Errno::FBIG);
        }
        let room = len.min(size).next_multiple_of(BLOCK_BYTES);
        let mut out = vec![0; room + BLOCK_BYTES];
        let start = out.as_ptr().align_offset(BLOCK_BYTES).min(BLOCK_BYTES);
        sys::want_large_pages(&mut out);
        let done = read_whole(&fd, &mut out[start..start + room], 0)?;
        Ok(Bytes::from(out).slice(start..start + done.min(len)))
    }

    fn do_run(&self, op: DiskOp) -> Result<DiskDone, Errno> {
        if op.is_write() && self.lost.load(Ordering::SeqCst) {
            return Err(Errno::IO);
        }
        match op {
            DiskOp::MkDir { path } => match rustix::fs::mkdir(&*path, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e),
            },
            DiskOp::CreateNew { path } => {
                let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
                let fd = self.open(&path, flags, Mode::from_raw_mode(0o644))?;
                self.forget(&path);
                // Whoever needs it opens it again; under its name nobody can have kept another one.
                let changes = self.files().changes;
                let used = self.clock.fetch_add(1, Ordering::Relaxed);
                self.keep(&Key { path, direct: false }, fd, used, changes)?;
            }
            DiskOp::Fallocate { path, len } => {
                let (fd, marks) = self.get(&path, false)?;
                marks.set_dirty(true);
                match rustix::fs::fallocate(&*fd, FallocateFlags::empty(), 0, len) {
                    // A filesystem without it: the length alone.
                    Err(Errno::OPNOTSUPP) if rustix::fs::fstat(&*fd)?.st_size < len as i64 => {
                        rustix::fs::ftruncate(&*fd, len)?;
                    }
                    Err(Errno::OPNOTSUPP) => {}
                    other => other?,
                }
            }
            DiskOp::Write { path, at, bufs } => self.write_bufs(&path, at, &bufs)?,
            DiskOp::WriteDirect { path, at, buf } => {
                self.write_direct(&path, at, &buf)?;
                return Ok(DiskDone::Buffer(buf));
            }
            DiskOp::Read { path, at, len } => {
                let (fd, _) = self.get(&path, false)?;
                // Never allocate for bytes that are not there.
                let size = u64::try_from(rustix::fs::fstat(&*fd)?.st_size).unwrap_or(0);
                let len = len.min(usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX));
                if len > READ_BYTES_MAX {
                    return Err(Errno::FBIG);
                }
                let mut out = vec![0; len];
                if len >= LARGE_READ_BYTES {
                    sys::want_large_pages(&mut out);
                }
                let done = read_whole(&fd, &mut out, at)?;
                out.truncate(done);
                return Ok(DiskDone::Read(out.into()));
            }
            DiskOp::Length { path } => {
                let (fd, _) = self.get(&path, false)?;
                let size = rustix::fs::fstat(&*fd)?.st_size;
                return Ok(DiskDone::Length(u64::try_from(size).unwrap_or(0)));
            }
            DiskOp::Truncate { path, len } => {
                let (fd, marks) = self.get(&path, false)?;
                marks.set_dirty(true);
                rustix::fs::ftruncate(&*fd, len)?;
            }
            DiskOp::Fdatasync { path } => {
                let (fd, marks) = self.get(&path, false)?;
                // Cleared first: somebody may write to the end of the file during this call.
                marks.set_dirty(false);
                rustix::fs::fdatasync(&*fd).inspect_err(|_| marks.set_dirty(true))?;
            }
            DiskOp::SyncDir { .. } if mutant!("no_directory_fsync") => {}
            DiskOp::SyncDir { path } => {
                let fd = self.open_dir(&path)?;
                rustix::fs::fsync(&fd)?;
            }
            DiskOp::SyncFs { path } => self.sync_filesystem(&path)?,
            DiskOp::Rename { from, to } => {
                rustix::fs::rename(&*from, &*to)?;
                self.forget(&from);
                self.forget(&to);
            }
            DiskOp::Unlink { path } => {
                let gone = rustix::fs::unlink(&*path);
                self.forget(&path);
                match gone {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(e) => return Err(e),
                }
            }
            DiskOp::RemoveDir { path } => match rustix::fs::rmdir(&*path) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(e),
            },
            DiskOp::List { path } => {
                let fd = self.open_dir(&path)?;
                let mut names = Vec::new();
                for entry in rustix::fs::Dir::read_from(&fd)? {
                    let name = entry?.file_name().to_string_lossy().into_owned();
                    if name != "." && name != ".." {
                        names.push(name);
                    }
                }
                names.sort_unstable();
                return Ok(DiskDone::List(names));
            }
            DiskOp::StartWriteback { path, at, len } => {
                // A hint; a filesystem without it writes back when it pleases. An error of earlier pages is not taken
                // here: the sync that follows reports it.
                if let Ok((fd, _)) = self.get(&path, false) {
                    sys::start_writeback(&fd, at, len);
                }
            }
            DiskOp::Lock { path } => {
                let fd = self.open_dir(&path)?;
                rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)?;
                self.locks.lock().unwrap_or_else(PoisonError::into_inner).insert(path, Arc::new(fd));
            }
            DiskOp::Unlock { path } => {
                self.locks.lock().unwrap_or_else(PoisonError::into_inner).remove(&path);
            }
            DiskOp::Space { path } => {
                let fs = rustix::fs::statvfs(&*path)?;
                let bytes = |blocks: u64| blocks.saturating_mul(fs.f_frsize);
                return Ok(DiskDone::Space(Space { free: bytes(fs.f_bavail), total: bytes(fs.f_blocks) }));
            }
            DiskOp::Identity { path } => return Ok(DiskDone::Identity(identity(&path)?)),
            DiskOp::FsKind { path } => {
                let magic = rustix::fs::statfs(&*path)?.f_type;
                return Ok(DiskDone::FsKind(filesystem(magic as u64 & 0xffff_ffff)));
            }
        }
        Ok(DiskDone::Done)
    }
}

fn write_whole(fd: &OwnedFd, mut bytes: &[u8], mut at: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let n = rustix::io::retry_on_intr(|| rustix::io::pwrite(fd, bytes, at))?;
        if n == 0 {
            return Err(Errno::IO);
        }
        bytes = &bytes[n..];
        at += n as u64;
    }
    Ok(())
}

fn identity(path: &str) -> Result<Identity, Errno> {
    let mut out = Identity::default();
    if let Ok(text) = std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        let digits: Vec<u8> = text.bytes().filter_map(|b| char::from(b).to_digit(16).map(|d| d as u8)).collect();
        for (byte, pair) in out.boot_id.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
    }
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    if let Ok(stat) = rustix::fs::statx(&fd, "", AtFlags::EMPTY_PATH, MOUNT_ID_UNIQUE)
        && stat.stx_mask & MOUNT_ID_UNIQUE.bits() != 0
    {
        out.mount_id = stat.stx_mnt_id;
    }
    Ok(out)
}

/// As many bytes as there are, at most the buffer's.
fn read_whole(fd: &OwnedFd, buf: &mut [u8], at: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while done < buf.len() {
        let n = rustix::io::retry_on_intr(|| rustix::io::pread(fd, &mut buf[done..], at + done as u64))?;
        done += n;
        if n == 0 {
            break;
        }
    }
    Ok(done)
}

/// By the number of `statfs`. Source: Linux, include/uapi/linux/magic.h and the filesystems' own headers.
fn filesystem(magic: u64) -> FsKind {
    FsKind::Unsafe(match magic {
        0x6969 => "NFS",
        0x517b | 0xfe53_4d42 | 0xff53_4d42 => "SMB/CIFS",
        0x00c3_6400 => "Ceph",
        0x0102_1997 => "9P",
        0x0bd0_0bd0 => "Lustre",
        0x4750_4653 => "GPFS",
        0x5346_414f | 0x6b41_4653 => "AFS",
        0x7375_7245 => "Coda",
        0x564c => "NCP",
        0x6573_5546 => "FUSE",
        _ => return FsKind::Local,
    })
}

fn fault(errno: Errno) -> DiskFault {
    match errno {
        Errno::NOENT => DiskFault::NotFound,
        Errno::EXIST => DiskFault::Exists,
        Errno::NOSPC | Errno::DQUOT => DiskFault::NoSpace,
        Errno::AGAIN => DiskFault::Locked,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => DiskFault::Denied,
        Errno::MFILE | Errno::NFILE => DiskFault::TooManyFiles,
        Errno::IO => DiskFault::Io,
        Errno::FBIG => DiskFault::TooLong,
        other => DiskFault::Other(other.raw_os_error()),
    }
}

impl Disk for RealDisk {
    fn run(&self, op: DiskOp) -> Result<DiskDone, DiskError> {
        let (name, path) = (op.name(), op.path().clone());
        self.do_run(op).map_err(|errno| DiskError { op: name, path, kind: fault(errno) })
    }

    fn probe(&self, dir: &str) -> Result<JournalWrites, DiskError> {
        let path: FilePath = format!("{dir}/probe.direct").into();
        let mut buf = AlignedBuf::with_capacity(BLOCK_BYTES);
        buf.put_zeros(BLOCK_BYTES);
        self.run(DiskOp::Unlink { path: path.clone() })?;
        self.run(DiskOp::CreateNew { path: path.clone() })?;
        let written = self
            .run(DiskOp::Write { path: path.clone(), at: 0, bufs: vec![Bytes::copy_from_slice(buf.bytes())] })
            .and_then(|_| self.run(DiskOp::WriteDirect { path: path.clone(), at: 0, buf }));
        self.run(DiskOp::Unlink { path })?;
        written?;
        Ok(if self.is_buffered() { JournalWrites::Buffered } else { JournalWrites::Direct })
    }

    fn read_once(&self, path: &FilePath, len: usize) -> Result<Bytes, DiskError> {
        match self.read_direct(path, len) {
            // Not every filesystem has direct reads, or takes any buffer.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => self.read(path, 0, len),
            other => other.map_err(|errno| DiskError { op: "read", path: path.clone(), kind: fault(errno) }),
        }
    }

    fn readers(&self) -> usize {
        // Two of one core gain too: one waits for the device while the other works.
        std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, READERS_MAX))
    }

    fn shed(&self) -> Result<(), DiskError> {
        let before = self.shed_at.swap(self.clock.load(Ordering::Relaxed), Ordering::Relaxed);
        let mut files = self.files();
        let idle = |open: &Open| open.used < before;
        let dirty = files.open.values().filter(|open| idle(open) && open.marks.is_dirty()).count();
        // A few with bytes to sync stay until somebody syncs them: one by one, each would wait for the device.
        let all = dirty >= SYNC_TOGETHER_MIN;
        let gone = |open: &mut Open| idle(open) && (all || !open.marks.is_dirty());
        let victims = files.open.extract_if(|_, open| gone(open)).map(|(key, open)| (key.path, open)).collect();
        drop(files);
        self.close(victims).map_err(|errno| DiskError { op: "shed", path: "".into(), kind: fault(errno) })
    }

    fn try_hot(&self, path: &FilePath, at: u64, buf: &mut [u8]) -> Hot {
        let Ok((fd, _)) = self.get(path, false) else { return Hot::Unsupported };
        match rustix::io::preadv2(&*fd, &mut [IoSliceMut::new(buf)], at, ReadWriteFlags::NOWAIT) {
            Ok(n) => Hot::Hit(n),
            Err(Errno::AGAIN) => Hot::Cold,
            Err(_) => Hot::Unsupported,
        }
    }
}

/// A directory of its own for one test, removed when it is dropped.
#[cfg(test)]
pub(crate) struct Scratch(String);

#[cfg(test)]
impl Scratch {
    pub fn path(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
pub(crate) fn scratch(name: &str) -> Scratch {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("catchwater-storage-{name}-{}-{n}", std::process::id()));
    std::fs::create_dir_all(&path).expect("a scratch directory can be made");
    Scratch(path.display().to_string())
}

#[cfg(test)]
mod tests;
