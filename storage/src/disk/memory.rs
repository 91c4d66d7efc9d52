//! A disk in memory that behaves like a bad real one: bytes since the last sync are a cache, names since the last
//! directory sync are a rumour. Deterministic: the same calls and the same seed give the same disk.
//!
//! [`MemoryDisk::kill`] is `kill -9`: nothing is lost but the locks. [`MemoryDisk::power_cut`] is a power loss: of what was
//! not synced, each 512-byte sector and each change of a directory survives or not, as the [`Cut`] and the seed say.
//!
//! Fault model (testing.md 2): un-synced sectors may persist in any subset, torn in the middle or as garbage; the length of
//! a file grows only with a sync or with luck; a synced byte never changes. Not modelled: loss of synced data (that is
//! [`crate::disk::faulty`]'s business).

use super::{BLOCK_BYTES, Disk, DiskDone, DiskError, DiskFault, DiskOp, FilePath, FsKind, Hot, Identity, Space};
use bytes::Bytes;
use catchwater_base::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Unit in which a power cut keeps or loses bytes.
pub const SECTOR_BYTES: usize = 512;

/// What a power cut does to what was not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// Everything not synced is gone.
    LoseAll,
    /// Everything happened to be written back.
    KeepAll,
    /// Each sector and each name by itself: kept, lost, or (rarely) torn.
    Random,
    /// Per file a prefix of the dirty range is kept, the rest of the file's new length is garbage.
    GarbageTail,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    /// What reads see.
    data: Vec<u8>,
    /// What a power loss leaves for sure.
    durable: Vec<u8>,
    /// Sectors of `data` written since the last sync.
    dirty: BTreeSet<usize>,
    /// Sectors whose write-back failed: reads see them, no sync will bring them to the disk, and only a new write does.
    lost: BTreeSet<usize>,
}

#[derive(Clone, Debug, Default)]
struct State {
    next_inode: u64,
    inodes: BTreeMap<u64, Inode>,
    /// What names mean now, and what they mean after a power loss. Directories are names with inode 0.
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    locks: BTreeSet<String>,
    boot: u64,
    mount: u64,
    used: u64,
    capacity: u64,
    kind: FsKind,
}

/// See the file head. Clones of the `Arc` around it share the disk.
#[derive(Debug)]
pub struct MemoryDisk {
    state: Mutex<State>,
}

impl Default for MemoryDisk {
    fn default() -> Self {
        Self::new()
    }
}

const DIRECTORY: u64 = 0;

impl MemoryDisk {
    /// An empty disk that holds one directory, `/`.
    pub fn new() -> Self {
        let mut state = State { next_inode: 1, boot: 1, mount: 1, capacity: u64::MAX, ..State::default() };
        state.names.insert("/".into(), DIRECTORY);
        state.durable_names.insert("/".into(), DIRECTORY);
        MemoryDisk { state: Mutex::new(state) }
    }

    /// Bytes beyond which writes fail with `NoSpace`.
    pub fn set_capacity(&self, bytes: u64) {
        self.lock().capacity = bytes;
    }

    /// What it says it is.
    pub fn set_kind(&self, kind: FsKind) {
        self.lock().kind = kind;
    }

    /// The process died: its locks are gone, the page cache is not.
    pub fn kill(&self) {
        self.lock().locks.clear();
    }

    /// The machine died. Draws from `rng` what survives of the un-synced bytes and names.
    pub fn power_cut(&self, cut: Cut, rng: &mut Rng) {
        let mut state = self.lock();
        let state = &mut *state;
        state.locks.clear();
        state.mount += 1;
        // Now and then it was the volume alone that went and came back: the machine is the same, and knows nothing of it.
        state.boot += u64::from(state.mount.is_multiple_of(2));
        let names: BTreeSet<String> = state.names.keys().chain(state.durable_names.keys()).cloned().collect();
        for name in names {
            let (now, durable) = (state.names.get(&name).copied(), state.durable_names.get(&name).copied());
            if now == durable {
                continue;
            }
            let keep = match cut {
                Cut::LoseAll => false,
                Cut::KeepAll => true,
                Cut::Random | Cut::GarbageTail => rng.chance(500_000),
            };
            match (keep, now) {
                (false, _) => {}
                (true, Some(inode)) => {
                    state.durable_names.insert(name, inode);
                }
                (true, None) => {
                    state.durable_names.remove(&name);
                }
            }
        }
        // A name whose parent did not survive is gone too.
        let mut names = state.durable_names.clone();
        names.retain(|name, _| name == "/" || ancestors(name).all(|a| state.durable_names.contains_key(a)));
        state.names = names.clone();
        state.durable_names = names;
        let live: BTreeSet<u64> = state.names.values().copied().collect();
        state.inodes.retain(|inode, _| live.contains(inode));
        for inode in state.inodes.values_mut() {
            inode.cut(cut, rng);
        }
        state.used = state.inodes.values().map(|i| i.data.len() as u64).sum();
    }

    /// A copy of the disk as it is, caches included.
    pub fn fork(&self) -> MemoryDisk {
        MemoryDisk { state: Mutex::new(self.lock().clone()) }
    }

    /// Every file with its content as reads see it, sorted by name.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let state = self.lock();
        state
            .names
            .iter()
            .filter_map(|(name, inode)| Some((name.clone(), state.inodes.get(inode)?.data.clone())))
            .collect()
    }

    /// Changes bytes behind everybody's back, durably: for planted damage.
    pub fn damage(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.lock();
        if let Some(inode) = state.names.get(path).copied()
            && let Some(inode) = state.inodes.get_mut(&inode)
        {
            change(&mut inode.data);
            inode.lost.clear();
            inode.sync();
        }
    }

    /// A sync of the file failed as a kernel's does: it was told once, and the pages count as clean from now on. Whoever
    /// syncs the file again hears of no error. Gives how many sectors reads see and the disk has not.
    pub fn sync_fails(&self, path: &str) -> usize {
        let mut state = self.lock();
        let inode = state.names.get(path).copied().and_then(|inode| state.inodes.get_mut(&inode));
        inode.map_or(0, |inode| {
            inode.lost.append(&mut inode.dirty);
            inode.lost.len()
        })
    }

    /// Bytes of all files that a power loss could take.
    pub fn dirty_bytes(&self) -> u64 {
        self.lock().inodes.values().map(|i| (i.dirty.len() * SECTOR_BYTES) as u64).sum()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of another test thread leaves the map whole: every change is one call.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| if at == 0 { "/" } else { &path[..at] }).filter(move |a| *a != path)
}

fn parent(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) | None => "/",
        Some(at) => &path[..at],
    }
}

impl Inode {
    fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        if self.data.len() < end {
            // A hole in front of the write is part of the new length.
            let from = self.data.len();
            self.data.resize(end, 0);
            self.touched(from..end);
        }
        self.data[at..end].copy_from_slice(bytes);
        self.touched(at..end);
    }

    fn touched(&mut self, bytes: std::ops::Range<usize>) {
        for sector in bytes.start / SECTOR_BYTES..bytes.end.div_ceil(SECTOR_BYTES) {
            self.lost.remove(&sector);
            self.dirty.insert(sector);
        }
    }

    fn truncate(&mut self, len: usize) {
        if len < self.data.len() {
            self.touched(len..self.data.len());
        }
        self.data.resize(len, 0);
    }

    fn sync(&mut self) {
        let before = std::mem::replace(&mut self.durable, self.data.clone());
        self.dirty.clear();
        for sector in &self.lost {
            let range = sector_range(*sector, self.durable.len());
            let was = before.get(range.start..before.len().min(range.end)).unwrap_or_default();
            let (old, new) = self.durable[range].split_at_mut(was.len());
            old.copy_from_slice(was);
            new.fill(0);
        }
    }

    fn cut(&mut self, cut: Cut, rng: &mut Rng) {
        let changed = !self.dirty.is_empty() || !self.lost.is_empty() || self.data.len() != self.durable.len();
        match cut {
            _ if !changed => {}
            Cut::LoseAll => self.data = self.durable.clone(),
            Cut::KeepAll => {
                self.sync();
                self.data = self.durable.clone();
            }
            Cut::Random => self.cut_by_sector(rng),
            Cut::GarbageTail => {
                let dirty: Vec<usize> = self.dirty.iter().copied().collect();
                let keep = rng.below(dirty.len() as u64 + 1) as usize;
                let old = std::mem::take(&mut self.data);
                let mut data = self.durable.clone();
                if rng.chance(500_000) || old.len() < data.len() {
                    data.resize(old.len(), 0);
                }
                for (i, sector) in dirty.iter().enumerate() {
                    let range = sector_range(*sector, data.len().min(old.len()));
                    if i < keep {
                        data[range.clone()].copy_from_slice(&old[range]);
                    } else if range.start >= self.durable.len() {
                        data[range].fill_with(|| rng.next_u64() as u8);
                    }
                }
                self.data = data;
            }
        }
        self.lost.clear();
        self.sync();
    }

    fn cut_by_sector(&mut self, rng: &mut Rng) {
        let old = std::mem::take(&mut self.data);
        let mut data = self.durable.clone();
        // The length is metadata of its own: old or new.
        if rng.chance(500_000) {
            data.resize(old.len(), 0);
        }
        for sector in std::mem::take(&mut self.dirty) {
            let range = sector_range(sector, data.len().min(old.len()));
            match rng.below(20) {
                0..=9 => data[range.clone()].copy_from_slice(&old[range]),
                10 => {
                    let torn = range.start..range.start + rng.below(range.len() as u64 + 1) as usize;
                    data[torn.clone()].copy_from_slice(&old[torn]);
                }
                _ => {}
            }
        }
        self.data = data;
    }
}

fn sector_range(sector: usize, len: usize) -> std::ops::Range<usize> {
    let start = (sector * SECTOR_BYTES).min(len);
    start..((sector + 1) * SECTOR_BYTES).min(len)
}

impl State {
    fn inode(&mut self, path: &str) -> Result<&mut Inode, DiskFault> {
        let inode = self.names.get(path).copied().ok_or(DiskFault::NotFound)?;
        self.inodes.get_mut(&inode).ok_or(DiskFault::NotFound)
    }

    fn need_parent(&self, path: &str) -> Result<(), DiskFault> {
        match self.names.get(parent(path)) {
            Some(&DIRECTORY) => Ok(()),
            _ => Err(DiskFault::NotFound),
        }
    }

    /// Accounts for a file growing to `len`.
    fn grow(&mut self, path: &str, len: u64) -> Result<(), DiskFault> {
        let have = self.inode(path)?.data.len() as u64;
        let more = len.saturating_sub(have);
        if more > 0 && self.used + more > self.capacity {
            return Err(DiskFault::NoSpace);
        }
        self.used += more;
        Ok(())
    }

    fn run(&mut self, op: DiskOp) -> Result<DiskDone, DiskFault> {
        match op {
            DiskOp::MkDir { path } => {
                if self.names.contains_key(&*path) {
                    return Ok(DiskDone::Done);
                }
                self.need_parent(&path)?;
                self.names.insert(path.to_string(), DIRECTORY);
            }
            DiskOp::CreateNew { path } => {
                self.need_parent(&path)?;
                if self.names.contains_key(&*path) {
                    return Err(DiskFault::Exists);
                }
                let inode = self.next_inode;
                self.next_inode += 1;
                self.inodes.insert(inode, Inode::default());
                self.names.insert(path.to_string(), inode);
            }
            DiskOp::Fallocate { path, len } => {
                self.grow(&path, len)?;
                let inode = self.inode(&path)?;
                if (inode.data.len() as u64) < len {
                    inode.truncate(len as usize);
                }
            }
            DiskOp::Write { path, at, bufs } => {
                let total: usize = bufs.iter().map(Bytes::len).sum();
                self.grow(&path, at + total as u64)?;
                let inode = self.inode(&path)?;
                let mut at = at as usize;
                for buf in bufs {
                    inode.write(at, &buf);
                    at += buf.len();
                }
            }
            DiskOp::WriteDirect { path, at, buf } => {
                assert_eq!(at as usize % BLOCK_BYTES, 0, "direct writes are aligned");
                assert_eq!(buf.len() % BLOCK_BYTES, 0, "direct writes are whole blocks");
                self.grow(&path, at + buf.len() as u64)?;
                let inode = self.inode(&path)?;
                let (start, end) = (at as usize, at as usize + buf.len());
                inode.write(start, buf.bytes());
                // Only these sectors become durable, and the length with them.
                if inode.durable.len() < end {
                    inode.durable.resize(end, 0);
                }
                inode.durable[start..end].copy_from_slice(buf.bytes());
                inode.dirty.retain(|s| *s < start / SECTOR_BYTES || *s >= end / SECTOR_BYTES);
                return Ok(DiskDone::Buffer(buf));
            }
            DiskOp::Read { path, at, len } => {
                let inode = self.inode(&path)?;
                let start = (at as usize).min(inode.data.len());
                let end = start.saturating_add(len).min(inode.data.len());
                return Ok(DiskDone::Read(Bytes::copy_from_slice(&inode.data[start..end])));
            }
            DiskOp::Length { path } => return Ok(DiskDone::Length(self.inode(&path)?.data.len() as u64)),
            DiskOp::Truncate { path, len } => {
                self.grow(&path, len)?;
                let inode = self.inode(&path)?;
                let less = (inode.data.len() as u64).saturating_sub(len);
                inode.truncate(len as usize);
                self.used -= less;
            }
            DiskOp::Fdatasync { path } => self.inode(&path)?.sync(),
            DiskOp::SyncDir { path } => {
                if self.names.get(&*path) != Some(&DIRECTORY) {
                    return Err(DiskFault::NotFound);
                }
                let prefix = if &*path == "/" { "/".to_owned() } else { format!("{path}/") };
                let inside = |name: &String| {
                    name.len() > prefix.len() && name.starts_with(&prefix) && !name[prefix.len()..].contains('/')
                };
                self.durable_names.retain(|name, _| !inside(name));
                let now: Vec<(String, u64)> =
                    self.names.iter().filter(|(name, _)| inside(name)).map(|(n, i)| (n.clone(), *i)).collect();
                self.durable_names.extend(now);
            }
            DiskOp::SyncFs { path } => {
                if self.names.get(&*path) != Some(&DIRECTORY) {
                    return Err(DiskFault::NotFound);
                }
                self.inodes.values_mut().for_each(Inode::sync);
                self.durable_names = self.names.clone();
            }
            DiskOp::Rename { from, to } => {
                self.need_parent(&to)?;
                let inode = self.names.remove(&*from).ok_or(DiskFault::NotFound)?;
                let prefix = format!("{from}/");
                let inside: Vec<String> = self.names.keys().filter(|n| n.starts_with(&prefix)).cloned().collect();
                for name in inside {
                    if let Some(inode) = self.names.remove(&name) {
                        let new = format!("{to}/{}", &name[prefix.len()..]);
                        // What was durable under the old directory is reached by the new name once that is durable.
                        if let Some(durable) = self.durable_names.get(&name).copied() {
                            self.durable_names.insert(new.clone(), durable);
                        }
                        self.names.insert(new, inode);
                    }
                }
                self.names.insert(to.to_string(), inode);
            }
            DiskOp::Unlink { path } => {
                if let Some(inode) = self.names.remove(&*path) {
                    let gone = self.inodes.get(&inode).map_or(0, |i| i.data.len() as u64);
                    self.used = self.used.saturating_sub(gone);
                }
            }
            DiskOp::RemoveDir { path } => {
                self.names.remove(&*path);
            }
            DiskOp::List { path } => {
                if self.names.get(&*path) != Some(&DIRECTORY) {
                    return Err(DiskFault::NotFound);
                }
                let prefix = if &*path == "/" { "/".to_owned() } else { format!("{path}/") };
                let names = self
                    .names
                    .keys()
                    .filter_map(|name| name.strip_prefix(&prefix))
                    .filter(|rest| !rest.is_empty() && !rest.contains('/'))
                    .map(str::to_owned)
                    .collect();
                return Ok(DiskDone::List(names));
            }
            DiskOp::StartWriteback { .. } => {}
            DiskOp::Lock { path } => {
                if !self.locks.insert(path.to_string()) {
                    return Err(DiskFault::Locked);
                }
            }
            DiskOp::Unlock { path } => {
                self.locks.remove(&*path);
            }
            DiskOp::FsKind { path } => {
                return if self.names.contains_key(&*path) {
                    Ok(DiskDone::FsKind(self.kind))
                } else {
                    Err(DiskFault::NotFound)
                };
            }
            DiskOp::Space { .. } => {
                let free = self.capacity.saturating_sub(self.used);
                return Ok(DiskDone::Space(Space { free, total: self.capacity }));
            }
            DiskOp::Identity { .. } => {
                let mut boot_id = [0; 16];
                boot_id[..8].copy_from_slice(&self.boot.to_le_bytes());
                return Ok(DiskDone::Identity(Identity { boot_id, mount_id: self.mount }));
            }
        }
        Ok(DiskDone::Done)
    }
}

impl Disk for MemoryDisk {
    fn run(&self, op: DiskOp) -> Result<DiskDone, DiskError> {
        let (name, path) = (op.name(), op.path().clone());
        self.lock().run(op).map_err(|kind| DiskError { op: name, path, kind })
    }

    fn try_hot(&self, path: &FilePath, at: u64, buf: &mut [u8]) -> Hot {
        match self.lock().inode(path) {
            Ok(inode) => {
                let start = (at as usize).min(inode.data.len());
                let n = buf.len().min(inode.data.len() - start);
                buf[..n].copy_from_slice(&inode.data[start..start + n]);
                Hot::Hit(n)
            }
            Err(_) => Hot::Unsupported,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::disk::DiskExt;

    #[test]
    fn what_was_not_synced_may_go_and_what_was_synced_stays() {
        for seed in 0..200 {
            let disk = MemoryDisk::new();
            let mut rng = Rng::new(seed);
            disk.mkdir("/d").unwrap();
            disk.create_new("/d/f").unwrap();
            disk.write("/d/f", 0, Bytes::from(vec![1; 3000])).unwrap();
            disk.fdatasync("/d/f").unwrap();
            disk.sync_dir("/d").unwrap();
            disk.sync_dir("/").unwrap();
            disk.write("/d/f", 3000, Bytes::from(vec![2; 3000])).unwrap();
            disk.create_new("/d/new").unwrap();
            let cut = [Cut::LoseAll, Cut::KeepAll, Cut::Random, Cut::GarbageTail][(seed % 4) as usize];
            disk.power_cut(cut, &mut rng);
            let data = disk.read_all("/d/f").unwrap().unwrap();
            assert!(data.len() >= 3000 && data[..3000].iter().all(|b| *b == 1), "seed {seed}");
            match cut {
                Cut::LoseAll => assert_eq!((data.len(), disk.list("/d").unwrap().len()), (3000, 1)),
                Cut::KeepAll => assert_eq!((data.len(), disk.list("/d").unwrap().len()), (6000, 2)),
                _ => {}
            }
        }
    }

    #[test]
    fn a_synced_file_without_a_synced_directory_is_lost() {
        let disk = MemoryDisk::new();
        disk.create_new("/f").unwrap();
        disk.write("/f", 0, Bytes::from_static(b"x")).unwrap();
        disk.fdatasync("/f").unwrap();
        disk.power_cut(Cut::LoseAll, &mut Rng::new(1));
        assert_eq!(disk.read_all("/f").unwrap(), None);
    }

    #[test]
    fn a_full_disk_says_so_and_recovers_when_space_returns() {
        let disk = MemoryDisk::new();
        disk.set_capacity(1000);
        disk.create_new("/f").unwrap();
        let error = disk.write("/f", 0, Bytes::from(vec![0; 1001])).unwrap_err();
        assert_eq!(error.kind, DiskFault::NoSpace);
        disk.write("/f", 0, Bytes::from(vec![0; 1000])).unwrap();
        disk.truncate("/f", 10).unwrap();
        disk.write("/f", 10, Bytes::from(vec![0; 990])).unwrap();
    }
}
