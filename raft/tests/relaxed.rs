//! Relaxed groups through the driver's real threads: switching under load, kills, power cuts.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use catchwater_raft::driver::{Durability, IdentitySeed, LogDir, LogDirConfig, Opened, Replica, Window};
use catchwater_raft::{Event, ReadyNo};
use catchwater_record::batch::{build::Builder, patch};
use catchwater_record::{EntryIndex, Gid, LeaderEpoch, Offset, PartitionId, TopicId};
use catchwater_storage::disk::memory::{Cut, MemoryDisk};
use catchwater_storage::disk::real::RealDisk;
use catchwater_storage::disk::{Disk, DiskExt};
use catchwater_storage::{EntryKind, GroupSpec, Hard, NewEntry, RecoveredGroup, Verdict};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

const GID: Gid = Gid(1);
const VALUE_BYTES: usize = 500;
const WINDOW: Window = Window { ms: 200, bytes: 64 << 10, records: u64::MAX };
const RELAXED: Durability = Durability::Relaxed(WINDOW);

#[derive(Default)]
struct Acks {
    newest: Mutex<u64>,
    moved: Condvar,
}

impl Replica for Acks {
    fn handle(&self, event: Event) {
        if let Event::Persisted(ReadyNo(n)) = event {
            let mut newest = self.newest.lock().unwrap();
            assert!(n > *newest, "{n} is acknowledged after {newest}");
            *newest = n;
            self.moved.notify_all();
        }
    }
}

impl Acks {
    fn wait(&self, n: u64) {
        let begun = Instant::now();
        let mut newest = self.newest.lock().unwrap();
        while *newest < n {
            let left = Duration::from_secs(60).checked_sub(begun.elapsed());
            let left = left.unwrap_or_else(|| panic!("{n} is not acknowledged, {newest} is"));
            newest = self.moved.wait_timeout(newest, left).unwrap().0;
        }
    }
    fn newest(&self) -> u64 {
        *self.newest.lock().unwrap()
    }
}

fn entry(index: u64, kind: EntryKind) -> NewEntry {
    let (body, count) = if kind == EntryKind::Data {
        let mut builder = Builder::new();
        builder.push(1000 + index as i64, None, Some(&[index as u8; VALUE_BYTES]), std::iter::empty());
        let mut body = builder.finish();
        patch(&mut body, Offset(index - 1), LeaderEpoch(1));
        (body.freeze(), 1)
    } else {
        (Bytes::new(), 0)
    };
    NewEntry {
        index: EntryIndex(index),
        term: LeaderEpoch(1),
        kind,
        flags: 0,
        base_offset: Offset(index - 1),
        count,
        max_ts: if count > 0 { 1000 + index as i64 } else { -1 },
        body,
        context: Bytes::new(),
    }
}

struct Node {
    dir: LogDir,
    acks: Arc<Acks>,
    last: u64,
}

fn entries_of(group: &RecoveredGroup) -> u64 {
    assert_eq!(group.verdict, Verdict::Ok);
    group.segments.iter().map(|s| s.rows.len() as u64).sum::<u64>() + group.journaled.len() as u64
}

impl Node {
    fn open(disk: Arc<dyn Disk>, path: &str) -> (Node, Opened) {
        let config = LogDirConfig {
            path: path.into(),
            journal_file_bytes: 256 << 10,
            segment_bytes: 256 << 10,
            reserve_bytes: 0,
            ..LogDirConfig::default()
        };
        let seed = IdentitySeed { cluster_id: [1; 16], dir_id: [2; 16] };
        let (dir, opened) = LogDir::open(disk, config, seed).unwrap();
        let acks = Arc::new(Acks::default());
        let last = match opened.groups.first() {
            Some(group) => entries_of(group),
            None => {
                let conf = Bytes::from_static(&[1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
                let spec = GroupSpec {
                    topic: TopicId([7; 16]),
                    partition: PartitionId(0),
                    incarnation: 1,
                    conf,
                    conf_index: EntryIndex::ZERO,
                };
                dir.create(GID, spec);
                0
            }
        };
        *acks.newest.lock().unwrap() = last;
        dir.attach(GID, acks.clone());
        (Node { dir, acks, last }, opened)
    }

    fn append(&mut self, n: u64) {
        for _ in 0..n {
            self.last += 1;
            let hard = (self.last == 1).then_some(Hard { term: 1, vote: 1 << 32, commit: EntryIndex(0) });
            self.dir.persist(GID, ReadyNo(self.last), vec![entry(self.last, EntryKind::Data)], hard, None);
        }
    }
}

fn switches(disk: &dyn Fn() -> Arc<dyn Disk>, killed: &dyn Fn(), path: &str) {
    let (mut node, _) = Node::open(disk(), path);
    for round in 0..6 {
        node.dir.set_durability(GID, if round % 2 == 0 { RELAXED } else { Durability::Fsync });
        // Some are held while the mode changes, some come behind.
        node.append(40);
        let last = node.last;
        node.acks.wait(last - 20);
        node.append(40);
    }
    let last = node.last;
    node.acks.wait(last);
    node.dir.set_durability(GID, RELAXED);
    node.append(100);
    let acked = node.acks.newest();
    node.dir.abandon();
    killed();
    let (mut node, opened) = Node::open(disk(), path);
    assert!(node.last >= acked, "a kill took {} acknowledged entries", acked - node.last);
    assert!(opened.report.relaxed.is_empty());
    // Still relaxed, without being told: appends go on.
    node.append(50);
    let last = node.last;
    node.acks.wait(last);
    node.dir.close();
    let (node, opened) = Node::open(disk(), path);
    assert_eq!(node.last, last, "{:?}", opened.report);
    node.dir.abandon();
}

#[test]
fn the_mode_changes_under_load_and_a_kill_takes_nothing() {
    let disk = Arc::new(MemoryDisk::new());
    switches(&|| disk.clone(), &|| disk.kill(), "/d");
}

#[test]
fn the_mode_changes_on_a_real_disk() {
    let path = std::env::temp_dir().join(format!("catchwater-relaxed-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    switches(&|| Arc::new(RealDisk::new()), &|| {}, &path.display().to_string());
    std::fs::remove_dir_all(&path).unwrap();
}

#[test]
fn a_power_cut_takes_a_window_at_most_and_says_so() {
    let mut rng = catchwater_base::Rng::new(7);
    let (mut lost_bytes, mut cuts) = (0, 0);
    let disk = Arc::new(MemoryDisk::new());
    for round in 0..12u64 {
        let (mut node, opened) = Node::open(disk.clone(), "/d");
        node.dir.set_durability(GID, RELAXED);
        cuts += u64::from(opened.report.relaxed.contains_key(&GID));
        for _ in 0..10 {
            node.append(1 + round * 3);
            let last = node.last;
            node.acks.wait(last);
        }
        node.append(30);
        node.dir.abandon();
        let acked = node.acks.newest();
        disk.power_cut([Cut::LoseAll, Cut::Random, Cut::GarbageTail][round as usize % 3], &mut rng);
        let (again, opened) = Node::open(disk.clone(), "/d");
        let lost = acked.saturating_sub(again.last) * (VALUE_BYTES as u64 + 70);
        assert!(lost <= WINDOW.bytes, "round {round}: {lost} acknowledged bytes are gone");
        assert!(lost == 0 || opened.report.relaxed.contains_key(&GID), "round {round}: lost, and nothing is said");
        lost_bytes += lost;
        again.dir.abandon();
        disk.kill();
    }
    assert!(lost_bytes > 0, "no cut took anything: the test proves nothing ({cuts} cuts said so)");
}

#[test]
fn what_was_synced_in_silence_outlives_a_power_cut_and_a_barrier_does_at_once() {
    let disk = Arc::new(MemoryDisk::new());
    let (mut node, _) = Node::open(disk.clone(), "/d");
    node.dir.set_durability(GID, RELAXED);
    node.append(20);
    let last = node.last;
    node.acks.wait(last);
    // A log-start entry: acknowledged only when it, and all before it, are durable.
    node.last += 1;
    let index = node.last;
    let mut barrier = entry(index, EntryKind::LogStart);
    barrier.base_offset = Offset(20);
    node.dir.persist(GID, ReadyNo(index), vec![barrier], None, None);
    node.acks.wait(index);
    node.dir.abandon();
    disk.power_cut(Cut::LoseAll, &mut catchwater_base::Rng::new(1));
    let (node, _) = Node::open(disk.clone(), "/d");
    assert_eq!(node.last, 21);
    node.dir.abandon();
}

/// A roll makes names that nothing has synced yet: a cut may keep the batches and take the table.
#[test]
fn a_table_whose_name_a_power_cut_took_is_made_again_and_the_node_starts() {
    let disk = Arc::new(MemoryDisk::new());
    let (mut node, _) = Node::open(disk.clone(), "/d");
    node.append(20);
    node.dir.set_durability(GID, RELAXED);
    node.append(20);
    node.acks.wait(40);
    node.dir.abandon();
    let dir = format!("/d/p/{:016x}", GID.0);
    let table = disk.list(&dir).unwrap().into_iter().find(|name| name.ends_with(".ent")).unwrap();
    disk.unlink(&format!("{dir}/{table}")).unwrap();
    disk.power_cut(Cut::KeepAll, &mut catchwater_base::Rng::new(7));
    let (again, _) = Node::open(disk.clone(), "/d");
    // One more: a term that begins without the noop of a real leader gets one.
    assert_eq!(again.last, 41, "every batch is there");
    assert!(disk.list(&dir).unwrap().contains(&table));
    again.dir.abandon();
}
