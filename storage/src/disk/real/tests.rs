#![allow(clippy::unwrap_used)]

use super::*;
use crate::disk::DiskExt;

/// A reader has opened a file, and before it keeps it the file goes and another comes under its name.
#[test]
fn a_file_that_goes_while_it_is_opened_is_not_what_its_name_means_later() {
    let root = scratch("changes");
    let disk = RealDisk::new();
    let path = format!("{}/file", root.path());
    let key = Key { path: path.as_str().into(), direct: false };
    for again in [false, true] {
        disk.create_new(&path).unwrap();
        disk.write(&path, 0, Bytes::from_static(b"old")).unwrap();
        disk.make_room(0).unwrap();
        let changes = disk.files().changes;
        let opened = disk.open(&path, OFlags::RDWR, Mode::empty()).unwrap();
        disk.unlink(&path).unwrap();
        if again {
            disk.create_new(&path).unwrap();
            disk.make_room(0).unwrap();
        }
        assert!(disk.keep(&key, opened, 0, changes).unwrap().is_none());
        if again {
            disk.write(&path, 0, Bytes::from_static(b"newer")).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"newer", "the writer writes where readers look");
            disk.unlink(&path).unwrap();
        }
        assert_eq!(disk.length(&path).unwrap_err().kind, DiskFault::NotFound);
    }
}

/// The same by chance: one thread makes and removes, the other asks for the length.
#[test]
fn what_is_made_and_removed_beside_a_reader_is_what_its_name_says() {
    let root = scratch("beside");
    let (disk, path) = (RealDisk::new(), format!("{}/file", root.path()));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let _ = disk.length(&path);
            }
        });
        for n in 0..300u32 {
            disk.create_new(&path).unwrap();
            disk.write(&path, 0, Bytes::copy_from_slice(&n.to_le_bytes())).unwrap();
            let there = std::fs::read(&path).unwrap();
            if there != n.to_le_bytes() {
                over.store(true, Ordering::Relaxed);
                panic!("round {n}: what was written went elsewhere, there is {there:?}");
            }
            disk.unlink(&path).unwrap();
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(disk.length(&path).unwrap_err().kind, DiskFault::NotFound);
}

#[test]
fn few_descriptors_serve_many_files() {
    let root = scratch("descriptors");
    let disk = RealDisk::with_descriptor_budget(8);
    for i in 0..50 {
        let path = format!("{}/{i}", root.path());
        disk.create_new(&path).unwrap();
        disk.write(&path, 0, Bytes::from(vec![i; 10])).unwrap();
    }
    assert!(disk.files().open.len() <= 8);
    for i in 0..50 {
        assert_eq!(disk.read(&format!("{}/{i}", root.path()), 0, 10).unwrap(), vec![i; 10]);
    }
}

#[test]
fn many_files_with_bytes_to_sync_are_closed_together() {
    let root = scratch("together");
    let disk = RealDisk::with_descriptor_budget(4 * SYNC_TOGETHER_MIN + 20);
    disk.run(DiskOp::Lock { path: root.path().into() }).unwrap();
    for i in 0..400u32 {
        let path = format!("{}/{i}", root.path());
        disk.create_new(&path).unwrap();
        disk.write(&path, 0, Bytes::copy_from_slice(&i.to_le_bytes())).unwrap();
    }
    assert!(disk.files().open.len() <= 4 * SYNC_TOGETHER_MIN + 20);
    for i in 0..400u32 {
        assert_eq!(disk.read(&format!("{}/{i}", root.path()), 0, 4).unwrap()[..], i.to_le_bytes());
    }
    // The lock is still held, and goes when it is given back.
    let other = RealDisk::new();
    let taken = other.run(DiskOp::Lock { path: root.path().into() });
    assert_eq!(taken.unwrap_err().kind, DiskFault::Locked);
    disk.run(DiskOp::Unlock { path: root.path().into() }).unwrap();
    other.run(DiskOp::Lock { path: root.path().into() }).unwrap();
}

#[test]
fn files_that_nobody_uses_are_closed_and_those_with_bytes_to_sync_only_together() {
    let root = scratch("shed");
    let disk = RealDisk::with_descriptor_budget(1000);
    disk.run(DiskOp::Lock { path: root.path().into() }).unwrap();
    let path = |i: usize| format!("{}/{i}", root.path());
    for i in 0..10 {
        disk.create_new(&path(i)).unwrap();
        disk.write(&path(i), 0, Bytes::from(vec![7; 10])).unwrap();
    }
    disk.fdatasync(&path(0)).unwrap();
    disk.shed().unwrap();
    assert_eq!(disk.files().open.len(), 10, "all were used since the call before");
    assert_eq!(disk.read(&path(1), 0, 10).unwrap(), vec![7; 10]);
    disk.shed().unwrap();
    assert_eq!(disk.files().open.len(), 9, "the clean one that was not used");
    for i in 10..10 + SYNC_TOGETHER_MIN {
        disk.create_new(&path(i)).unwrap();
        disk.write(&path(i), 0, Bytes::from(vec![7; 10])).unwrap();
    }
    disk.shed().unwrap();
    disk.shed().unwrap();
    assert_eq!(disk.files().open.len(), 0, "enough of them for one sync of the filesystem");
    disk.write(&path(3), 10, Bytes::from_static(b"x")).unwrap();
    disk.run(DiskOp::SyncFs { path: root.path().into() }).unwrap();
    assert!(disk.files().open.values().all(|open| !open.marks.is_dirty()));
    assert_eq!(disk.length(&path(3)).unwrap(), 11);
}

#[test]
fn a_failed_sync_at_a_close_that_nobody_asked_for_ends_all_writing() {
    let root = scratch("lost");
    let disk = RealDisk::with_descriptor_budget(8);
    let path = format!("{}/f", root.path());
    disk.create_new(&path).unwrap();
    disk.write(&path, 0, Bytes::from_static(b"x")).unwrap();
    // A descriptor that cannot be synced stands in for a device that failed.
    {
        let (pipe, _) = std::io::pipe().unwrap();
        let mut files = disk.files();
        let open = files.open.values_mut().next().unwrap();
        open.fd = Arc::new(pipe.into());
    }
    assert!(disk.make_room(0).is_err());
    assert_eq!(&disk.read(&path, 0, 1).unwrap()[..], b"x", "reads go on");
    assert_eq!(disk.fdatasync(&path).unwrap_err().kind, DiskFault::Io, "the file's own sync may not say yes");
    assert!(disk.write(&path, 0, Bytes::from_static(b"y")).is_err());
}

#[test]
fn the_probe_says_how_the_journal_is_written_and_leaves_nothing() {
    let root = scratch("probe");
    assert_eq!(RealDisk::buffered().probe(root.path()).unwrap(), JournalWrites::Buffered);
    let disk = RealDisk::new();
    let said = disk.probe(root.path()).unwrap();
    assert_eq!(said == JournalWrites::Buffered, disk.is_buffered());
    assert_eq!(disk.list(root.path()).unwrap(), Vec::<String>::new());
}

#[test]
fn a_large_read_gives_the_bytes_of_the_file() {
    let root = scratch("large");
    let disk = RealDisk::new();
    let path = format!("{}/f", root.path());
    disk.create_new(&path).unwrap();
    let bytes: Vec<u8> = (0..LARGE_READ_BYTES + 5000).map(|i| (i / 7) as u8).collect();
    disk.write(&path, 0, Bytes::from(bytes.clone())).unwrap();
    assert!(disk.read(&path, 0, usize::MAX).unwrap() == bytes);
    assert!(disk.read(&path, 3, LARGE_READ_BYTES + 1).unwrap() == bytes[3..LARGE_READ_BYTES + 4]);
}

#[test]
fn what_is_read_once_is_the_same_past_the_page_cache() {
    let root = scratch("once");
    for disk in [RealDisk::new(), RealDisk::buffered()] {
        let path: FilePath = format!("{}/f{}", root.path(), disk.is_buffered()).into();
        disk.create_new(&path).unwrap();
        assert!(disk.read_once(&path, usize::MAX).unwrap().is_empty());
        // In the page cache and not on the disk; with a last block that is not whole.
        let bytes: Vec<u8> = (0..LARGE_READ_BYTES + 5000).map(|i| (i / 7) as u8).collect();
        disk.write(&path, 0, Bytes::from(bytes.clone())).unwrap();
        for len in
            [0, 1, BLOCK_BYTES, 2 * BLOCK_BYTES - 1, LARGE_READ_BYTES + 4999, LARGE_READ_BYTES + 5000, usize::MAX]
        {
            let wanted = &bytes[..len.min(bytes.len())];
            assert!(disk.read_once(&path, len).unwrap() == wanted, "{len} bytes, buffered: {}", disk.is_buffered());
        }
        let nothing = disk.read_once(&format!("{path}.not").into(), 1).unwrap_err();
        assert_eq!((nothing.op, nothing.kind), ("read", DiskFault::NotFound));
    }
}

#[test]
fn write_back_is_a_hint() {
    let root = scratch("writeback");
    let disk = RealDisk::new();
    let path = format!("{}/f", root.path());
    disk.create_new(&path).unwrap();
    disk.write(&path, 0, Bytes::from(vec![1; 100_000])).unwrap();
    disk.run(DiskOp::StartWriteback { path: path.as_str().into(), at: 0, len: 100_000 }).unwrap();
    disk.run(DiskOp::StartWriteback { path: format!("{path}.none").into(), at: 0, len: 1 }).unwrap();
    assert_eq!(disk.length(&path).unwrap(), 100_000);
}

#[test]
fn the_buffered_path_conforms_too() {
    let root = scratch("buffered");
    crate::disk::conformance::run_all(&RealDisk::buffered(), root.path());
}

#[test]
fn two_disks_are_two_owners() {
    let root = scratch("lock");
    let (a, b) = (RealDisk::new(), RealDisk::new());
    a.run(DiskOp::Lock { path: root.path().into() }).unwrap();
    assert_eq!(b.run(DiskOp::Lock { path: root.path().into() }).unwrap_err().kind, DiskFault::Locked);
    drop(a);
    b.run(DiskOp::Lock { path: root.path().into() }).unwrap();
}

#[test]
fn network_filesystems_are_known_by_their_number() {
    assert_eq!(filesystem(0x6969), FsKind::Unsafe("NFS"));
    assert_eq!(filesystem(0xff53_4d42), FsKind::Unsafe("SMB/CIFS"));
    assert_eq!(filesystem(0x6573_5546), FsKind::Unsafe("FUSE"));
    assert_eq!(filesystem(0xef53), FsKind::Local); // ext4
    let root = scratch("kind");
    let kind = RealDisk::new().run(DiskOp::FsKind { path: root.path().into() });
    assert!(matches!(kind, Ok(DiskDone::FsKind(FsKind::Local))));
}

#[test]
fn boot_and_mount_are_known_here() {
    let root = scratch("identity");
    let identity = RealDisk::new().identity(root.path()).unwrap();
    assert_ne!(identity.boot_id, [0; 16]);
}

/// A file that was made as long as a disk, without a byte in it.
#[test]
fn what_is_far_too_long_to_be_ours_is_not_read_into_memory() {
    let root = scratch("long");
    let disk = RealDisk::new();
    let path = format!("{}/f", root.path());
    disk.create_new(&path).unwrap();
    disk.write(&path, 0, bytes::Bytes::from_static(b"abc")).unwrap();
    disk.truncate(&path, 1 << 40).unwrap();
    assert_eq!(disk.read_all(&path).unwrap_err().kind, DiskFault::TooLong);
    assert_eq!(disk.read(&path, 0, 3).unwrap(), &b"abc"[..], "a part of it may be asked for");
}
