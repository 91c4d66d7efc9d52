//! The [`Disk`] contract as named cases; every implementation passes them (`run_all`), so what the simulator proves on the
//! memory disk means something on the real one.

use super::{AlignedBuf, BLOCK_BYTES, Disk, DiskDone, DiskExt, DiskFault, DiskOp};
use bytes::Bytes;

/// Runs every case below `root`, an existing empty directory. Panics at the first breach.
pub fn run_all(disk: &dyn Disk, root: &str) {
    names(disk, &format!("{root}/names"));
    bytes(disk, &format!("{root}/bytes"));
    direct(disk, &format!("{root}/direct"));
    renames(disk, &format!("{root}/renames"));
    many_files(disk, &format!("{root}/many"));
    facts(disk, root);
}

fn kind<T: std::fmt::Debug>(result: Result<T, super::DiskError>) -> DiskFault {
    result.expect_err("this must fail").kind
}

fn names(disk: &dyn Disk, dir: &str) {
    assert_eq!(kind(disk.create_new(&format!("{dir}/f"))), DiskFault::NotFound, "no parent directory");
    disk.mkdir(dir).expect("mkdir");
    disk.mkdir(dir).expect("mkdir of an existing directory is fine");
    disk.create_new(&format!("{dir}/b")).expect("create");
    disk.create_new(&format!("{dir}/a")).expect("create");
    assert_eq!(kind(disk.create_new(&format!("{dir}/a"))), DiskFault::Exists);
    assert_eq!(disk.list(dir).expect("list"), ["a", "b"], "sorted");
    disk.unlink(&format!("{dir}/a")).expect("unlink");
    disk.unlink(&format!("{dir}/a")).expect("unlink of nothing is fine");
    assert_eq!(disk.list(dir).expect("list"), ["b"]);
    assert_eq!(kind(disk.list(&format!("{dir}/none"))), DiskFault::NotFound);
    assert_eq!(disk.read_all(&format!("{dir}/none")).expect("missing is no error"), None);
    assert_eq!(kind(disk.read(&format!("{dir}/none"), 0, 1)), DiskFault::NotFound);
    disk.sync_dir(dir).expect("sync dir");
    disk.run(DiskOp::SyncFs { path: dir.into() }).expect("sync the filesystem");
    disk.unlink(&format!("{dir}/b")).expect("unlink");
    disk.run(DiskOp::RemoveDir { path: dir.into() }).expect("remove dir");
    disk.run(DiskOp::RemoveDir { path: dir.into() }).expect("remove of nothing is fine");
    assert_eq!(kind(disk.list(dir)), DiskFault::NotFound);
}

fn bytes(disk: &dyn Disk, dir: &str) {
    disk.mkdir(dir).expect("mkdir");
    let path = format!("{dir}/f");
    disk.create_new(&path).expect("create");
    let bufs = vec![Bytes::from_static(b"hello "), Bytes::new(), Bytes::from_static(b"world")];
    disk.run(DiskOp::Write { path: path.as_str().into(), at: 0, bufs }).expect("write");
    assert_eq!(&disk.read(&path, 0, 100).expect("read")[..], b"hello world", "short only at the end");
    assert_eq!(&disk.read(&path, 6, 5).expect("read")[..], b"world");
    assert_eq!(disk.read(&path, 11, 5).expect("read behind the end").len(), 0);
    disk.write(&path, 20, Bytes::from_static(b"!")).expect("write behind the end");
    assert_eq!(&disk.read(&path, 10, 11).expect("read")[..], b"d\0\0\0\0\0\0\0\0\0!", "a hole is zeros");
    assert_eq!(disk.length(&path).expect("length"), 21);
    disk.truncate(&path, 5).expect("truncate");
    assert_eq!(&disk.read(&path, 0, 100).expect("read")[..], b"hello");
    disk.truncate(&path, 7).expect("truncate may extend");
    assert_eq!(&disk.read(&path, 0, 100).expect("read")[..], b"hello\0\0");
    disk.fdatasync(&path).expect("sync");
    // More buffers than one system call takes.
    let many: Vec<Bytes> = (0..3000u32).map(|i| Bytes::copy_from_slice(&i.to_le_bytes())).collect();
    disk.run(DiskOp::Write { path: path.as_str().into(), at: 0, bufs: many }).expect("write");
    let back = disk.read(&path, 0, 12_000).expect("read");
    assert!(back.chunks_exact(4).enumerate().all(|(i, b)| b == (i as u32).to_le_bytes()));
    disk.run(DiskOp::StartWriteback { path: path.as_str().into(), at: 0, len: 12_000 }).expect("a hint");
}

fn direct(disk: &dyn Disk, dir: &str) {
    disk.mkdir(dir).expect("mkdir");
    let path = format!("{dir}/f");
    disk.create_new(&path).expect("create");
    disk.run(DiskOp::Fallocate { path: path.as_str().into(), len: 4 * BLOCK_BYTES as u64 }).expect("allocate");
    assert_eq!(disk.length(&path).expect("length"), 4 * BLOCK_BYTES as u64);
    let mut buf = AlignedBuf::with_capacity(2 * BLOCK_BYTES);
    buf.put(&[7; 5000]);
    buf.pad();
    let done =
        disk.run(DiskOp::WriteDirect { path: path.as_str().into(), at: BLOCK_BYTES as u64, buf }).expect("direct");
    assert!(matches!(done, DiskDone::Buffer(b) if b.capacity() == 2 * BLOCK_BYTES), "the buffer comes back");
    let back = disk.read(&path, 0, 4 * BLOCK_BYTES).expect("read");
    assert!(back[..BLOCK_BYTES].iter().all(|b| *b == 0), "what was not written is zero");
    assert!(back[BLOCK_BYTES..BLOCK_BYTES + 5000].iter().all(|b| *b == 7));
    assert!(back[BLOCK_BYTES + 5000..].iter().all(|b| *b == 0));
}

fn renames(disk: &dyn Disk, dir: &str) {
    disk.mkdir(dir).expect("mkdir");
    disk.mkdir(&format!("{dir}/one")).expect("mkdir");
    disk.create_new(&format!("{dir}/one/f")).expect("create");
    disk.write(&format!("{dir}/one/f"), 0, Bytes::from_static(b"x")).expect("write");
    let (from, to) = (format!("{dir}/one").as_str().into(), format!("{dir}/two").as_str().into());
    disk.run(DiskOp::Rename { from, to }).expect("rename a directory");
    assert_eq!(disk.list(dir).expect("list"), ["two"]);
    assert_eq!(&disk.read(&format!("{dir}/two/f"), 0, 9).expect("read")[..], b"x");
    assert_eq!(kind(disk.read(&format!("{dir}/one/f"), 0, 9)), DiskFault::NotFound);
    // A name that was removed and made anew is a new file.
    disk.unlink(&format!("{dir}/two/f")).expect("unlink");
    disk.create_new(&format!("{dir}/two/f")).expect("create");
    assert_eq!(disk.length(&format!("{dir}/two/f")).expect("length"), 0);
}

/// More files than an implementation keeps open.
fn many_files(disk: &dyn Disk, dir: &str) {
    disk.mkdir(dir).expect("mkdir");
    for i in 0..600u32 {
        let path = format!("{dir}/{i:04}");
        disk.create_new(&path).expect("create");
        disk.write(&path, 0, Bytes::copy_from_slice(&i.to_le_bytes())).expect("write");
    }
    for i in 0..600u32 {
        let path = format!("{dir}/{i:04}");
        disk.write(&path, 4, Bytes::from_static(b"+")).expect("write");
        let back = disk.read(&path, 0, 10).expect("read");
        assert_eq!((&back[..4], &back[4..]), (&i.to_le_bytes()[..], &b"+"[..]));
    }
}

fn facts(disk: &dyn Disk, root: &str) {
    let first = disk.identity(root).expect("identity");
    assert_eq!(first, disk.identity(root).expect("identity"), "the same as long as nothing restarts");
    assert!(disk.space(root).is_ok_and(|s| s.free > 0 && s.total >= s.free), "there is room");
    disk.run(DiskOp::Lock { path: root.into() }).expect("lock");
    assert_eq!(kind(disk.run(DiskOp::Lock { path: root.into() })), DiskFault::Locked);
    disk.run(DiskOp::Unlock { path: root.into() }).expect("unlock");
    disk.run(DiskOp::Lock { path: root.into() }).expect("lock again");
    disk.run(DiskOp::Unlock { path: root.into() }).expect("unlock");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::disk::faulty::{FaultRates, FaultyDisk};
    use crate::disk::memory::MemoryDisk;
    use std::sync::Arc;

    #[test]
    fn memory_conforms() {
        let disk = MemoryDisk::new();
        disk.mkdir("/t").unwrap();
        run_all(&disk, "/t");
    }

    #[test]
    fn faulty_without_faults_conforms() {
        let disk = FaultyDisk::new(Arc::new(MemoryDisk::new()), FaultRates::default(), 1);
        disk.mkdir("/t").unwrap();
        run_all(&disk, "/t");
    }

    #[test]
    fn real_conforms() {
        let root = crate::disk::real::scratch("conformance");
        let disk = crate::disk::real::RealDisk::with_descriptor_budget(16);
        run_all(&disk, root.path());
    }
}
