//! The driver with real threads: a fake replica, the memory disk and the real one.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use catchwater_raft::driver::{Cork, IdentitySeed, LogDir, LogDirConfig, OpenError, Pressure, Replica};
use catchwater_raft::{Event, ReadyNo};
use catchwater_record::batch::{build::Builder, patch};
use catchwater_record::{EntryIndex, Gid, Offset};
use catchwater_record::{LeaderEpoch, PartitionId, TopicId};
use catchwater_storage::EntryKind;
use catchwater_storage::disk::memory::MemoryDisk;
use catchwater_storage::disk::real::RealDisk;
use catchwater_storage::disk::{Disk, DiskExt};
use catchwater_storage::recover::{Layout, Survivor, examine};
use catchwater_storage::{FileRead, GroupSpec, Hard, NewEntry, RecoveredGroup, Verdict};
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
    LogDirConfig {
        path: path.into(),
        journal_file_bytes: 256 << 10,
        reserve_bytes: 64 << 10,
        ..LogDirConfig::default()
    }
}

fn spec() -> GroupSpec {
    GroupSpec {
        topic: TopicId([7; 16]),
        partition: PartitionId(0),
        incarnation: 1,
        conf: Bytes::from_static(&[1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]),
        conf_index: EntryIndex::ZERO,
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
    for placed in &rows {
        let name = (placed.base_index, placed.base_offset, placed.generation);
        let read = dir.read(&FileRead::of_row(gid, name, &placed.row)).unwrap();
        assert_eq!(read.len(), placed.row.len as usize);
    }
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

/// Counts acknowledgements of one group.
struct Counting {
    acked: std::sync::atomic::AtomicU64,
    placed: std::sync::atomic::AtomicU64,
}

impl Replica for Counting {
    fn handle(&self, event: Event) {
        match event {
            Event::Persisted(ready) => {
                self.acked.fetch_max(ready.0, std::sync::atomic::Ordering::SeqCst);
            }
            Event::Segmented(upto, _) => {
                self.placed.fetch_max(upto.0, std::sync::atomic::Ordering::SeqCst);
            }
            _ => {}
        }
    }
}

fn entries_of(group: &RecoveredGroup) -> u64 {
    group.segments.iter().map(|s| s.rows.len() as u64).sum::<u64>() + group.journaled.len() as u64
}

/// Many groups from many threads through tiny files; killed at an arbitrary moment, again and again.
#[test]
fn what_was_acknowledged_outlives_every_kill() {
    use std::sync::atomic::Ordering::SeqCst;
    const GROUPS: u64 = 40;
    let disk = Arc::new(MemoryDisk::new());
    let config = LogDirConfig {
        path: "/d".into(),
        journal_file_bytes: 64 << 10,
        segment_bytes: 4 << 10,
        unplaced_bytes_max: 1 << 20,
        reserve_bytes: 0,
        ..LogDirConfig::default()
    };
    let mut acked = vec![0u64; GROUPS as usize];
    let mut lengths = vec![0u64; GROUPS as usize];
    for round in 0..8u64 {
        let (dir, opened) = LogDir::open(disk.clone(), config.clone(), SEED).unwrap();
        for group in &opened.groups {
            let at = (group.gid.0 - 1) as usize;
            assert_eq!(group.verdict, Verdict::Ok);
            let found = entries_of(group);
            assert!(found >= acked[at], "round {round}: {} lost {} of {}", group.gid, acked[at] - found, acked[at]);
            assert!(found <= lengths[at]);
            lengths[at] = found;
        }
        let replicas: Vec<Arc<Counting>> = (1..=GROUPS)
            .map(|gid| {
                let replica = Arc::new(Counting { acked: Default::default(), placed: Default::default() });
                if !opened.groups.iter().any(|g| g.gid == Gid(gid)) {
                    assert_eq!(acked[(gid - 1) as usize], 0, "round {round}");
                    lengths[(gid - 1) as usize] = 0;
                    dir.create(Gid(gid), spec());
                }
                dir.attach(Gid(gid), replica.clone());
                replica
            })
            .collect();
        // One batch at a time per group, from four threads; each thread stops after a share that differs by round.
        let chunks: Vec<Vec<u64>> = (0..4).map(|t| (1..=GROUPS).filter(|g| g % 4 == t).collect()).collect();
        let ends: Vec<Vec<(u64, u64)>> = std::thread::scope(|scope| {
            let workers: Vec<_> = chunks
                .iter()
                .map(|gids| {
                    let (dir, lengths) = (&dir, &lengths);
                    scope.spawn(move || {
                        let mut ends = Vec::new();
                        for gid in gids {
                            let mut index = lengths[(gid - 1) as usize];
                            for _ in 0..30 + (round * 7 + gid) % 40 {
                                while dir.pressure() == Pressure::Stop {
                                    std::thread::yield_now();
                                }
                                index += 1;
                                let first = hard().filter(|_| index == 1);
                                let entry = entry(index, index - 1, &[7; 200]);
                                dir.persist(Gid(*gid), ReadyNo(index), vec![entry], first, None);
                                dir.committed(Gid(*gid), EntryIndex(index));
                            }
                            ends.push((*gid, index));
                        }
                        ends
                    })
                })
                .collect();
            workers.into_iter().map(|w| w.join().unwrap()).collect()
        });
        if round % 3 == 2 {
            dir.close();
        } else {
            dir.abandon();
            disk.kill();
        }
        for (gid, end) in ends.into_iter().flatten() {
            let at = (gid - 1) as usize;
            lengths[at] = end;
            acked[at] = acked[at].max(replicas[at].acked.load(SeqCst));
            if round % 3 == 2 {
                assert_eq!(acked[at], end, "a clean stop acknowledges everything");
            }
        }
    }
    assert!(acked.iter().all(|n| *n > 50), "{acked:?}");
}

/// A thousand groups need two threads and few descriptors, and come back quickly.
#[test]
fn a_thousand_groups_share_two_threads() {
    let root = scratch("thousand");
    let path = root.0.display().to_string();
    let config = LogDirConfig { journal_file_bytes: 4 << 20, ..config(&path) };
    let disk = || Arc::new(RealDisk::with_descriptor_budget(64));
    let (dir, _) = LogDir::open(disk(), config.clone(), SEED).unwrap();
    let (replica, events) = fake();
    for gid in 1..=1000 {
        dir.create(Gid(gid), spec());
        dir.attach(Gid(gid), replica.clone());
        dir.persist(Gid(gid), ReadyNo(gid), vec![entry(1, 0, b"value")], hard(), None);
    }
    let mut persisted = 0;
    while persisted < 1000 {
        persisted += u32::from(matches!(events.recv().unwrap(), Event::Persisted(_)));
    }
    dir.abandon();
    let (dir, opened) = LogDir::open(disk(), config, SEED).unwrap();
    assert_eq!(opened.groups.len(), 1000);
    assert!(opened.groups.iter().all(|g| entries_of(g) == 1 && g.hard.term == 1));
    dir.abandon();
}

/// Sixty lives, each killed right after its last acknowledgement: what they leave is given back, and nothing is lost.
fn crash_loop(disk: &dyn Fn() -> Arc<dyn Disk>, killed: &dyn Fn(), path: &str) {
    const GROUPS: u64 = 5;
    const EACH: u64 = 3;
    let journal = format!("{path}/journal");
    let files_max = config(path).journal_files as usize + 2;
    for round in 0..60u64 {
        let (dir, opened) = LogDir::open(disk(), config(path), SEED).unwrap();
        for group in &opened.groups {
            assert_eq!((group.verdict, group.hard.term), (Verdict::Ok, 1), "round {round}: {}", group.gid);
            assert_eq!(entries_of(group), round * EACH, "round {round}: {}", group.gid);
        }
        assert_eq!(opened.groups.len() as u64, if round == 0 { 0 } else { GROUPS }, "round {round}");
        let (replica, events) = fake();
        for gid in 1..=GROUPS {
            if round == 0 {
                dir.create(Gid(gid), spec());
            }
            dir.attach(Gid(gid), replica.clone());
            for index in round * EACH + 1..=(round + 1) * EACH {
                let entry = entry(index, index - 1, &[gid as u8; 100]);
                dir.persist(Gid(gid), ReadyNo(gid * 1000 + index), vec![entry], hard().filter(|_| index == 1), None);
            }
        }
        // The last piece of the group that was queued last: flushes go in order.
        wait_persisted(&events, GROUPS * 1000 + (round + 1) * EACH);
        dir.abandon();
        killed();
        let files = disk().list(&journal).unwrap();
        assert!(files.len() <= files_max, "round {round}: {} journal files", files.len());
    }
    let (dir, opened) = LogDir::open(disk(), config(path), SEED).unwrap();
    for group in &opened.groups {
        assert_eq!((group.verdict, entries_of(group)), (Verdict::Ok, 60 * EACH), "{}", group.gid);
    }
    dir.close();
}

#[test]
fn a_crash_loop_gives_its_journal_files_back_in_memory() {
    let disk = Arc::new(MemoryDisk::new());
    crash_loop(&|| disk.clone(), &|| disk.kill(), "/d");
}

#[test]
fn a_crash_loop_gives_its_journal_files_back_on_disk() {
    let root = scratch("crashes");
    crash_loop(&|| Arc::new(RealDisk::new()), &|| {}, &root.0.display().to_string());
}

/// Deaths at any write, many of them before the start is through: each start takes up where the one before ended.
#[test]
fn deaths_at_any_write_do_not_pile_up_journal_files() {
    use catchwater_storage::disk::faulty::{FaultRates, FaultyDisk};
    const GROUPS: u64 = 5;
    let (mut most, mut unborn, mut acked) = (0, 0, vec![0u64; GROUPS as usize + 1]);
    let memory = Arc::new(MemoryDisk::new());
    for round in 0..300u64 {
        let disk = Arc::new(FaultyDisk::new(memory.clone(), FaultRates::default(), round));
        disk.fail_write_in(if round == 299 { u64::MAX } else { round * 7919 % 83 });
        match LogDir::open(disk.clone(), config("/d"), SEED) {
            Err(_) => unborn += 1,
            Ok((dir, opened)) => {
                let (replica, events) = fake();
                let stopped = replica.events.lock().unwrap().clone();
                dir.on_stop(move |_| drop(stopped.send(Event::Persisted(ReadyNo(u64::MAX)))));
                let mut lengths = vec![0u64; GROUPS as usize + 1];
                for group in &opened.groups {
                    assert_eq!(group.verdict, Verdict::Ok, "round {round}: {}", group.gid);
                    lengths[group.gid.0 as usize] = entries_of(group);
                }
                for gid in 1..=GROUPS as usize {
                    assert!(
                        lengths[gid] >= acked[gid],
                        "round {round}: group {gid} {} of {}",
                        lengths[gid],
                        acked[gid]
                    );
                    if !opened.groups.iter().any(|g| g.gid == Gid(gid as u64)) {
                        dir.create(Gid(gid as u64), spec());
                    }
                    dir.attach(Gid(gid as u64), replica.clone());
                    let (index, first) = (lengths[gid] + 1, hard().filter(|_| lengths[gid] == 0));
                    let entry = entry(index, index - 1, &[gid as u8; 100]);
                    dir.persist(Gid(gid as u64), ReadyNo(gid as u64 * 1_000_000 + index), vec![entry], first, None);
                }
                let mut left = GROUPS;
                while left > 0 {
                    match events.recv().unwrap() {
                        Event::Persisted(ReadyNo(u64::MAX)) => break,
                        Event::Persisted(ReadyNo(n)) => {
                            acked[(n / 1_000_000) as usize] = n % 1_000_000;
                            left -= 1;
                        }
                        _ => {}
                    }
                }
                dir.abandon();
            }
        }
        memory.kill();
        // Beside them at most one that was being made: the next start removes it.
        let names = memory.list("/d/journal").unwrap_or_default();
        let (files, new): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.ends_with(".wal"));
        let files = files.len();
        most = most.max(files);
        assert!(files <= config("/d").journal_files as usize + 2 && new.len() <= 1, "round {round}: {names:?}");
    }
    assert!(unborn > 20 && acked[1..].iter().all(|n| *n > 60), "{unborn} unborn, {acked:?}, {most} files at most");
}

/// What one life has drained, the next does not replay, though nothing was closed and the file is still there.
#[test]
fn a_checkpoint_is_noted_without_a_close() {
    use catchwater_storage::format::slot::{BootState, SlotKind, newest};
    let disk = Arc::new(MemoryDisk::new());
    let state = || {
        let slots = ["a", "b"].map(|side| disk.read_all(&format!("/d/boot.state.{side}")).unwrap());
        let pair = newest(SlotKind::BootState, slots[0].as_deref(), slots[1].as_deref());
        BootState::decode(&pair.newest.unwrap().payload).unwrap()
    };
    // The last flush that a start finds. (`boot.state` may speak of one of the life that has just begun.)
    let last_flush = || {
        let copy = disk.fork();
        copy.kill();
        examine(&copy, &Layout::new("/d")).map_or(0, |found| found.journal.last_lsn)
    };
    let life = |round: u64| {
        let found_lsn = last_flush();
        let (dir, opened) = LogDir::open(disk.clone(), config("/d"), SEED).unwrap();
        if round == 0 {
            dir.create(Gid(1), spec());
        }
        let (replica, events) = fake();
        dir.attach(Gid(1), replica);
        let entry = entry(round + 1, round, b"value");
        dir.persist(Gid(1), ReadyNo(round + 1), vec![entry], hard().filter(|_| round == 0), None);
        wait_persisted(&events, round + 1);
        (dir, opened.report.entries_from_journal, found_lsn)
    };
    for round in 0..5 {
        let (dir, replayed, found_lsn) = life(round);
        assert_eq!(replayed, u64::from(round > 0), "round {round}");
        let begin = std::time::Instant::now();
        while state().checkpoint_lsn < found_lsn {
            assert!(begin.elapsed().as_secs() < 60, "round {round}: never noted");
            std::thread::yield_now();
        }
        dir.abandon();
        disk.kill();
    }
}

#[test]
fn a_close_on_a_full_disk_comes_to_its_end_and_loses_nothing_that_was_acknowledged() {
    let disk = Arc::new(MemoryDisk::new());
    let own = LogDirConfig { journal_file_bytes: 64 << 10, journal_files: 2, close_ms_max: 200, ..config("/data") };
    let (dir, _) = LogDir::open(disk.clone(), own.clone(), SEED).unwrap();
    let (replica, events) = fake();
    let gid = Gid(1);
    dir.create(gid, spec());
    dir.attach(gid, replica);
    dir.persist(gid, ReadyNo(1), vec![entry(1, 0, b"first")], hard(), None);
    wait_persisted(&events, 1);
    // Nothing more fits: neither into segments nor into a new journal file.
    disk.set_capacity(0);
    for n in 2..60 {
        dir.persist(gid, ReadyNo(n), vec![entry(n, n - 1, &[7; 8000])], None, None);
    }
    while dir.pressure() != Pressure::Full {
        std::thread::yield_now();
    }
    let (done, closed) = mpsc::channel();
    std::thread::spawn(move || {
        dir.close();
        let _ = done.send(());
    });
    assert_eq!(closed.recv_timeout(std::time::Duration::from_secs(60)), Ok(()));
    let persisted = events.try_iter().filter_map(|e| if let Event::Persisted(n) = e { Some(n.0) } else { None }).max();
    disk.set_capacity(u64::MAX);
    let (dir, opened) = LogDir::open(disk, own, SEED).unwrap();
    assert!(entries_of(&opened.groups[0]) >= persisted.unwrap_or(1), "{persisted:?}");
    dir.close();
}

#[test]
fn what_a_thread_appends_in_one_turn_goes_into_one_flush() {
    let (dir, _) = LogDir::open(Arc::new(MemoryDisk::new()), config("/corked/data"), SEED).unwrap();
    let (one, other) = (Gid(1), Gid(2));
    let (replica, events) = fake();
    let (second, seconds) = fake();
    dir.create(one, spec());
    dir.attach(one, replica);
    dir.create(other, spec());
    dir.attach(other, second);
    let mut next = 0;
    let mut append = |value: &[u8]| {
        next += 1;
        dir.persist(one, ReadyNo(next), vec![entry(next, next - 1, value)], hard().filter(|_| next == 1), None);
        next
    };
    // Now and then the journal is awake for its own sake and takes what is there.
    let (mut told, turns) = (0, 100);
    for _ in 0..turns {
        let last = {
            let _turn = Cork::hold();
            let _within = Cork::hold();
            (0..20).fold(0, |_, _| append(b"value"))
        };
        loop {
            if let Event::Persisted(ready) = events.recv().unwrap() {
                told += 1;
                if ready.0 == last {
                    break;
                }
            }
        }
    }
    assert!(told < turns * 3 / 2, "{told} flushes for {turns} turns");
    // Much is begun with before the turn is over, and what another thread appends takes all along.
    let turn = Cork::hold();
    let large = {
        let _partition = Cork::hold();
        append(&[7; 70 << 10])
    };
    wait_persisted(&events, large);
    let small = append(b"value");
    std::thread::scope(|scope| {
        scope.spawn(|| dir.persist(other, ReadyNo(1), vec![entry(1, 0, b"value")], hard(), None));
    });
    wait_persisted(&events, small);
    wait_persisted(&seconds, 1);
    drop(turn);
    dir.close();
}
