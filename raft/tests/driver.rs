//! The driver with real threads: a fake replica, the memory disk and the real one.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use catchwater_raft::driver::{IdentitySeed, LogDir, LogDirConfig, OpenError, Replica};
use catchwater_raft::{Event, ReadyNo};
use catchwater_record::batch::{build::Builder, patch};
use catchwater_record::{EntryIndex, Gid, Offset};
use catchwater_record::{LeaderEpoch, PartitionId, TopicId};
use catchwater_storage::EntryKind;
use catchwater_storage::disk::Disk;
use catchwater_storage::disk::memory::MemoryDisk;
use catchwater_storage::disk::real::RealDisk;
use catchwater_storage::recover::Survivor;
use catchwater_storage::{FileRange, GroupSpec, Hard, NewEntry, RecoveredGroup};
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

const SEED: IdentitySeed = IdentitySeed { cluster_id: [1; 16], dir_id: [2; 16] };

struct Fake {
    events: Mutex<mpsc::Sender<Event>>,
    snap: Mutex<Option<(EntryIndex, Offset, Bytes)>>,
}

impl Replica for Fake {
    fn handle(&self, event: Event) {
        let _ = self.events.lock().unwrap().send(event);
    }
    fn snapshot(&self) -> Option<(EntryIndex, Offset, Bytes)> {
        self.snap.lock().unwrap().clone()
    }
}

fn fake() -> (Arc<Fake>, mpsc::Receiver<Event>) {
    let (send, receive) = mpsc::channel();
    (Arc::new(Fake { events: Mutex::new(send), snap: Mutex::new(None) }), receive)
}

fn config(path: &str) -> LogDirConfig {
    LogDirConfig { path: path.into(), journal_file_bytes: 256 << 10, ..LogDirConfig::default() }
}

fn spec() -> GroupSpec {
    GroupSpec {
        topic: TopicId([7; 16]),
        partition: PartitionId(0),
        incarnation: 1,
        conf: Bytes::from_static(&[1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]),
    }
}

fn entry(index: u64, offset: u64, value: &[u8]) -> NewEntry {
    let mut builder = Builder::new();
    builder.push(1000 + index as i64, None, Some(value), std::iter::empty());
    let mut body = builder.finish();
    patch(&mut body, Offset(offset), LeaderEpoch(1));
    NewEntry {
        index: EntryIndex(index),
        term: LeaderEpoch(1),
        kind: EntryKind::Data,
        flags: 0,
        base_offset: Offset(offset),
        count: 1,
        max_ts: 1000 + index as i64,
        body: body.freeze(),
        context: Bytes::new(),
    }
}

fn hard() -> Option<Hard> {
    Some(Hard { term: 1, vote: 1 << 32, commit: EntryIndex(0) })
}

fn wait_persisted(events: &mpsc::Receiver<Event>, ready: u64) {
    while !matches!(events.recv().unwrap(), Event::Persisted(n) if n.0 >= ready) {}
}

fn wait_placed(events: &mpsc::Receiver<Event>, index: u64) -> Vec<catchwater_storage::PlacedRow> {
    let mut rows = Vec::new();
    loop {
        if let Event::Segmented(upto, placed) = events.recv().unwrap() {
            rows.extend(placed);
            if upto.0 >= index {
                return rows;
            }
        }
    }
}

/// Writes, reads back, closes, opens again, is killed, opens again.
fn life(disk: &dyn Fn() -> Arc<dyn Disk>, path: &str) {
    let gid = Gid(9);
    let (dir, opened) = LogDir::open(disk(), config(path), SEED).unwrap();
    assert!(opened.fresh && opened.groups.is_empty());
    assert!(matches!(LogDir::open(disk(), config(path), SEED), Err(OpenError::Locked(_))));
    assert_eq!(dir.create(gid, spec()), RecoveredGroup::fresh(gid, spec()));
    let (replica, events) = fake();
    dir.attach(gid, replica.clone());
    for i in 1..=50u64 {
        dir.persist(gid, ReadyNo(i), vec![entry(i, i - 1, b"value")], hard().filter(|_| i == 1), None);
    }
    wait_persisted(&events, 50);
    dir.committed(gid, EntryIndex(50));
    let rows = wait_placed(&events, 50);
    let range = |r: &catchwater_storage::PlacedRow| FileRange {
        gid,
        base_offset: r.base_offset,
        generation: r.generation,
        pos: r.row.pos,
        len: r.row.len,
    };
    let ranges: Vec<FileRange> = rows.iter().map(range).collect();
    let read = dir.read(&ranges).unwrap();
    assert_eq!(read.len(), rows.len());
    *replica.snap.lock().unwrap() = Some((EntryIndex(50), Offset(50), Bytes::new()));
    dir.close();

    let (dir, opened) = LogDir::open(disk(), config(path), SEED).unwrap();
    assert_eq!(opened.survivor, Survivor::Clean);
    let group = &opened.groups[0];
    assert_eq!((group.gid, &group.spec, group.verdict), (gid, &spec(), catchwater_storage::Verdict::Ok));
    assert_eq!(group.hard.term, 1);
    assert!(group.journaled.is_empty(), "a clean stop leaves everything in segments");
    assert_eq!((&group.snap, group.since_snap.len()), (&None, 50), "so little needs no snapshot");
    assert_eq!(group.segments.iter().map(|s| s.rows.len()).sum::<usize>(), 50);
    let (replica, events) = fake();
    dir.attach(gid, replica);
    dir.persist(gid, ReadyNo(1), vec![entry(51, 50, b"more")], None, None);
    wait_persisted(&events, 1);
    dir.abandon();

    let (dir, opened) = LogDir::open(disk(), config(path), SEED).unwrap();
    assert_ne!(opened.survivor, Survivor::Clean);
    let group = &opened.groups[0];
    let rows = group.segments.iter().map(|s| s.rows.len()).sum::<usize>();
    assert_eq!((rows, group.journaled.len()), (50, 1));
    assert_eq!(group.journaled[0], entry(51, 50, b"more"));
    let (replica, events) = fake();
    dir.attach(gid, replica);
    wait_placed(&events, 51);
    dir.drop_group(gid);
    dir.close();

    let (dir, opened) = LogDir::open(disk(), config(path), SEED).unwrap();
    assert!(opened.groups.is_empty(), "a dropped group stays away");
    dir.close();
}

#[test]
fn a_life_on_the_memory_disk() {
    let disk = Arc::new(MemoryDisk::new());
    life(&|| disk.clone(), "/some/where/data");
}

struct Scratch(PathBuf);
impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
fn scratch(name: &str) -> Scratch {
    let path = std::env::temp_dir().join(format!("catchwater-driver-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    Scratch(path)
}

#[test]
fn a_life_on_the_real_disk() {
    let root = scratch("life");
    life(&|| Arc::new(RealDisk::new()), &root.0.join("a/b").display().to_string());
}

#[test]
fn a_life_without_direct_writes() {
    let root = scratch("buffered");
    life(&|| Arc::new(RealDisk::buffered()), &root.0.display().to_string());
}
