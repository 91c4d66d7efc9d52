//! One group is read again from disk while the directory goes on: what was acknowledged is there, other groups are
//! acknowledged meanwhile, and what follows survives kills and power cuts as if nothing had happened.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use catchwater_raft::driver::{Durability, IdentitySeed, LogDir, LogDirConfig, ReopenError, Replica, Window};
use catchwater_raft::{Event, ReadyNo};
use catchwater_record::batch::{build::Builder, patch};
use catchwater_record::{EntryIndex, Gid, LeaderEpoch, Offset, PartitionId, TopicId};
use catchwater_storage::disk::Disk;
use catchwater_storage::disk::memory::{Cut, MemoryDisk};
use catchwater_storage::{EntryKind, GroupSpec, Hard, NewEntry, RecoveredGroup, Verdict};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

const WINDOW: Window = Window { ms: 200, bytes: 64 << 10, records: u64::MAX };

#[derive(Default)]
struct Acks {
    newest: Mutex<u64>,
    moved: Condvar,
}

impl Replica for Acks {
    fn handle(&self, event: Event) {
        if let Event::Persisted(ReadyNo(n)) = event {
            let mut newest = self.newest.lock().unwrap();
            *newest = n.max(*newest);
            self.moved.notify_all();
        }
    }
}

impl Acks {
    fn wait(&self, n: u64) {
        let begun = Instant::now();
        let mut newest = self.newest.lock().unwrap();
        while *newest < n {
            let left = Duration::from_secs(600).checked_sub(begun.elapsed());
            let left = left.unwrap_or_else(|| panic!("{n} is not acknowledged, {newest} is"));
            newest = self.moved.wait_timeout(newest, left).unwrap().0;
        }
    }
    fn newest(&self) -> u64 {
        *self.newest.lock().unwrap()
    }
}

fn entry(index: u64) -> NewEntry {
    let mut builder = Builder::new();
    builder.push(1000 + index as i64, None, Some(&[index as u8; 300]), std::iter::empty());
    let mut body = builder.finish();
    patch(&mut body, Offset(index - 1), LeaderEpoch(1));
    NewEntry {
        index: EntryIndex(index),
        term: LeaderEpoch(1),
        kind: EntryKind::Data,
        flags: 0,
        base_offset: Offset(index - 1),
        count: 1,
        max_ts: 1000 + index as i64,
        body: body.freeze(),
        context: Bytes::new(),
    }
}

fn entries_of(group: &RecoveredGroup) -> u64 {
    assert_eq!(group.verdict, Verdict::Ok);
    let ends = group.segments.iter().filter_map(|s| Some((s.rows.first()?, s.rows.last()?, s.rows.len() as u64)));
    let rows = ends.flat_map(|(first, last, count)| {
        assert_eq!(last.index.0 - first.index.0 + 1, count);
        first.index.0..=last.index.0
    });
    let all: Vec<u64> = rows.chain(group.journaled.iter().map(|e| e.index.0)).collect();
    assert!(all.iter().zip(1..).all(|(found, want)| *found == want), "{all:?}");
    all.len() as u64
}

struct Writer {
    dir: LogDir,
    gid: Gid,
    acks: Arc<Acks>,
    last: u64,
}

impl Writer {
    fn new(dir: &LogDir, gid: Gid, found: Option<&RecoveredGroup>) -> Writer {
        let acks = Arc::new(Acks::default());
        let last = match found {
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
                dir.create(gid, spec);
                0
            }
        };
        *acks.newest.lock().unwrap() = last;
        dir.attach(gid, acks.clone());
        Writer { dir: dir.clone(), gid, acks, last }
    }

    fn append(&mut self, n: u64) {
        for _ in 0..n {
            self.last += 1;
            let hard = (self.last == 1).then_some(Hard { term: 1, vote: 1 << 32, commit: EntryIndex(0) });
            self.dir.persist(self.gid, ReadyNo(self.last), vec![entry(self.last)], hard, None);
        }
        self.dir.committed(self.gid, EntryIndex(self.last));
    }

    fn wait(&self) {
        self.acks.wait(self.last);
    }

    /// Its replica is no longer trusted: a new one takes over what is on disk. `held` = entries that a change of mode
    /// held back may be gone; they were not acknowledged.
    fn reopen(&mut self, held: bool) {
        let acked = self.acks.newest();
        let found = self.dir.reopen(self.gid).unwrap();
        let there = entries_of(&found);
        assert!(found.journaled.is_empty(), "all of it is in files");
        assert!(there >= acked, "{} acknowledged entries are gone", acked - there);
        assert!(held || there == self.last, "{there} of {} are there", self.last);
        assert_eq!(found.hard.term, u32::from(there > 0));
        *self = Writer::new(&self.dir, self.gid, Some(&found));
    }
}

fn open(disk: &Arc<MemoryDisk>) -> (LogDir, Writer, Writer) {
    let config = LogDirConfig {
        path: "/d".into(),
        journal_file_bytes: 64 << 10,
        segment_bytes: 16 << 10,
        reserve_bytes: 0,
        ..LogDirConfig::default()
    };
    let seed = IdentitySeed { cluster_id: [1; 16], dir_id: [2; 16] };
    let (dir, opened) = LogDir::open(disk.clone() as Arc<dyn Disk>, config, seed).unwrap();
    let of = |gid| opened.groups.iter().find(|g| g.gid == gid);
    let (one, other) = (Writer::new(&dir, Gid(1), of(Gid(1))), Writer::new(&dir, Gid(2), of(Gid(2))));
    (dir, one, other)
}

/// Lives of two groups, the first of which is opened again and again at any moment; the other never stands still.
fn lives(relaxed: bool, end: impl Fn(&MemoryDisk, u64)) {
    let disk = Arc::new(MemoryDisk::new());
    let (mut kept, mut kept_other) = (0, 0);
    for round in 0..3u64 {
        let (dir, mut one, mut other) = open(&disk);
        assert!(one.last >= kept && other.last >= kept_other, "round {round}: {} of {kept}", one.last);
        let stop = Arc::new(AtomicBool::new(false));
        let others = other.acks.clone();
        let beside = {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    other.append(20);
                    other.wait();
                }
                other.last
            })
        };
        for turn in 0..8 {
            if relaxed {
                let mode = if turn % 3 == 2 { Durability::Fsync } else { Durability::Relaxed(WINDOW) };
                dir.set_durability(Gid(1), mode);
            }
            // Nothing, a little in flight, more than a journal file.
            one.append([0, 5, 60, 300][(turn % 4) as usize]);
            if turn % 2 == 0 {
                one.acks.wait(one.last.saturating_sub(20));
            }
            one.reopen(relaxed);
        }
        if round == 0 {
            one.append(40);
            one.wait();
        } else {
            // The other one turns the whole journal over: what it had of the first group is gone from it.
            let now = others.newest();
            others.wait(now + 2_500);
        }
        stop.store(true, Ordering::SeqCst);
        kept_other = beside.join().unwrap();
        kept = if relaxed { 0 } else { one.last };
        assert!(dir.is_stopped().is_none());
        drop(one);
        match round % 3 {
            0 => dir.close(),
            _ => dir.abandon(),
        }
        end(&disk, round);
    }
}

#[test]
fn a_group_comes_back_whole_while_others_go_on() {
    lives(false, |disk, _| disk.kill());
}

#[test]
fn what_came_before_and_after_outlives_power_cuts() {
    lives(false, |disk, round| {
        let cut = [Cut::LoseAll, Cut::Random, Cut::GarbageTail][round as usize % 3];
        disk.power_cut(cut, &mut catchwater_base::Rng::new(round));
    });
}

#[test]
fn a_relaxed_group_comes_back_in_any_phase() {
    lives(true, |disk, _| disk.kill());
}

#[test]
fn a_group_that_is_dropped_meanwhile_stays_away() {
    let disk = Arc::new(MemoryDisk::new());
    let (dir, mut one, mut other) = open(&disk);
    for gone in [false, true] {
        one.append(30);
        if gone {
            dir.drop_group(Gid(1));
        }
        let dropper = (!gone).then(|| {
            let dir = dir.clone();
            std::thread::spawn(move || dir.drop_group(Gid(1)))
        });
        match dir.reopen(Gid(1)) {
            Ok(_) => assert!(!gone),
            Err(ReopenError::Busy) => {}
            Err(e) => panic!("{e}"),
        }
        dropper.into_iter().for_each(|d| d.join().unwrap());
        other.append(10);
        other.wait();
        if !gone {
            one = Writer::new(&dir, Gid(1), None);
        }
    }
    drop((one, other));
    dir.close();
    let (dir, one, other) = open(&disk);
    assert_eq!((one.last, other.last), (0, 20));
    drop((one, other));
    dir.abandon();
}
