//! One operation of each kind fails once, then the disk is well again; or the thread that asked for it panics. Either way
//! the directory stops at once, nothing that is appended later is acknowledged, and the next life has what was. But for
//! reads: what cannot be read is the trouble of the partition that it belongs to.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use catchwater_base::Rng;
use catchwater_raft::driver::{IdentitySeed, LogDir, LogDirConfig, Pressure, Replica};
use catchwater_raft::{Event, ReadyNo};
use catchwater_record::batch::{build::Builder, patch};
use catchwater_record::{EntryIndex, Gid, LeaderEpoch, Offset, PartitionId, TopicId};
use catchwater_storage::disk::memory::{Cut, MemoryDisk};
use catchwater_storage::disk::{Disk, DiskDone, DiskError, DiskFault, DiskOp};
use catchwater_storage::{EntryKind, GroupSpec, Hard, NewEntry, RecoveredGroup, Verdict};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const GROUPS: u64 = 3;
const LIMIT: Duration = Duration::from_secs(60);

/// Strikes once, at the n-th operation of a kind after it was armed.
struct Striking {
    inner: Arc<MemoryDisk>,
    armed: Mutex<Option<(&'static str, u32)>>,
    panics: bool,
    struck: AtomicBool,
}

fn kind(op: &DiskOp) -> &'static str {
    match op {
        DiskOp::WriteDirect { .. } => "journal write",
        DiskOp::Write { .. } => "write",
        DiskOp::Fdatasync { .. } => "file sync",
        DiskOp::SyncDir { .. } => "directory sync",
        DiskOp::CreateNew { .. } => "creation",
        DiskOp::Rename { .. } => "rename",
        _ => "",
    }
}

impl Disk for Striking {
    fn run(&self, op: DiskOp) -> Result<DiskDone, DiskError> {
        let strikes = {
            let mut armed = self.armed.lock().unwrap();
            match &mut *armed {
                Some((wanted, left)) if *wanted == kind(&op) => {
                    *left -= 1;
                    *left == 0
                }
                _ => false,
            }
        };
        if !strikes {
            return self.inner.run(op);
        }
        *self.armed.lock().unwrap() = None;
        self.struck.store(true, SeqCst);
        assert!(!self.panics, "asked for by the test");
        Err(DiskError { op: "go on with", path: "it".into(), kind: DiskFault::Io })
    }
}

#[derive(Default)]
struct Acks(AtomicU64);

impl Replica for Acks {
    fn handle(&self, event: Event) {
        if let Event::Persisted(ReadyNo(n)) = event {
            self.0.fetch_max(n, SeqCst);
        }
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
    group.segments.iter().map(|s| s.rows.len() as u64).sum::<u64>() + group.journaled.len() as u64
}

fn open(disk: Arc<dyn Disk>) -> (LogDir, Vec<RecoveredGroup>) {
    let config = LogDirConfig {
        path: "/d".into(),
        journal_file_bytes: 64 << 10,
        segment_bytes: 8 << 10,
        reserve_bytes: 0,
        ..LogDirConfig::default()
    };
    let (dir, opened) = LogDir::open(disk, config, IdentitySeed { cluster_id: [1; 16], dir_id: [2; 16] }).unwrap();
    (dir, opened.groups)
}

fn append(dir: &LogDir, gid: Gid, index: u64) {
    let hard = (index == 1).then_some(Hard { term: 1, vote: 1 << 32, commit: EntryIndex(0) });
    dir.persist(gid, ReadyNo(index), vec![entry(index)], hard, None);
    dir.committed(gid, EntryIndex(index));
}

/// One life that is struck; false if it never was.
fn life(what: &'static str, at: u32, panics: bool) -> bool {
    let name = format!("{what} {at}, {}", if panics { "panic" } else { "error" });
    let inner = Arc::new(MemoryDisk::new());
    let armed = Mutex::default();
    let disk = Arc::new(Striking { inner: inner.clone(), armed, panics, struck: AtomicBool::new(false) });
    let (dir, _) = open(disk.clone());
    let told = Arc::new(AtomicBool::new(false));
    let hear = told.clone();
    dir.on_stop(move |_| hear.store(true, SeqCst));
    let acks: Vec<Arc<Acks>> = (1..=GROUPS)
        .map(|gid| {
            let conf = Bytes::from_static(&[1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
            let spec = GroupSpec {
                topic: TopicId([7; 16]),
                partition: PartitionId(0),
                incarnation: 1,
                conf,
                conf_index: EntryIndex::ZERO,
            };
            dir.create(Gid(gid), spec);
            let acks = Arc::new(Acks::default());
            dir.attach(Gid(gid), acks.clone());
            acks
        })
        .collect();
    let mut last = 0;
    let until = Instant::now() + LIMIT;
    // The first of a kind must come: a busy machine's segment writer may be far behind.
    let most = if at == 1 { 60_000 } else { 2_000 };
    while last < most && dir.is_stopped().is_none() {
        if last == 30 {
            *disk.armed.lock().unwrap() = Some((what, at));
        }
        last += 1;
        (1..=GROUPS).for_each(|gid| append(&dir, Gid(gid), last));
        while dir.pressure() == Pressure::Stop && dir.is_stopped().is_none() {
            assert!(Instant::now() < until, "{name}: the directory stands");
            std::thread::yield_now();
        }
    }
    if !disk.struck.load(SeqCst) {
        dir.abandon();
        return false;
    }
    while dir.is_stopped().is_none() || !told.load(SeqCst) {
        assert!(Instant::now() < until, "{name}: it goes on as if nothing had happened, or nobody is told");
        std::thread::yield_now();
    }
    let error = dir.is_stopped().unwrap().source;
    assert_eq!(error.kind, if panics { DiskFault::Panic } else { DiskFault::Io }, "{name}: {error}");
    for more in 1..=10 {
        (1..=GROUPS).for_each(|gid| append(&dir, Gid(gid), last + more));
    }
    dir.abandon();
    inner.kill();
    let (again, groups) = open(inner);
    for (gid, acks) in (1..).zip(&acks) {
        let acked = acks.0.load(SeqCst);
        assert!(acked <= last, "{name}: {acked} is acknowledged, {last} was the last before the end");
        let there = groups.iter().find(|g| g.gid == Gid(gid)).map_or(0, entries_of);
        assert!(there >= acked, "{name}: group {gid} has {there}, {acked} were acknowledged");
    }
    again.abandon();
    true
}

#[test]
fn whatever_fails_once_is_the_end_and_nothing_acknowledged_is_lost() {
    for what in ["journal write", "write", "file sync", "directory sync", "creation", "rename"] {
        for panics in [false, true] {
            let struck = [1, 2, 5].into_iter().filter(|at| life(what, *at, panics)).count();
            assert!(struck > 0, "no life came to a {what}");
        }
    }
}

/// The n-th sync of a file fails, as a kernel's does: it says so once, and what it could not write counts as clean then.
struct Forgetting {
    inner: Arc<MemoryDisk>,
    left: AtomicU64,
    lost: AtomicU64,
}

impl Disk for Forgetting {
    fn run(&self, op: DiskOp) -> Result<DiskDone, DiskError> {
        if let DiskOp::Fdatasync { path } = &op
            && path.contains("/p/")
            && self.left.fetch_sub(1, SeqCst) == 1
        {
            self.lost.store(self.inner.sync_fails(path) as u64, SeqCst);
            return Err(DiskError { op: "sync", path: path.clone(), kind: DiskFault::Io });
        }
        self.inner.run(op)
    }
}

/// Appends behind `last` until `until` says so; the last entry.
fn busy(dir: &LogDir, gid: Gid, mut last: u64, until: impl Fn(u64) -> bool) -> u64 {
    let limit = Instant::now() + LIMIT;
    while !until(last) {
        assert!(Instant::now() < limit, "still {last}");
        if dir.pressure() == Pressure::Stop && dir.is_stopped().is_none() {
            std::thread::yield_now();
            continue;
        }
        last += 1;
        append(dir, gid, last);
    }
    last
}

/// Trap: whoever opens a file after an error of its fsync sees all of it and hears of success. What the next life finds in the
/// page cache is not on the disk, whatever its own syncs say.
#[test]
fn a_second_opener_after_a_failed_fsync_trusts_no_page_cache() {
    let (gid, mut lost) = (Gid(1), 0);
    for at in [1, 2, 3, 5, 8, 13] {
        let inner = Arc::new(MemoryDisk::new());
        let disk = Arc::new(Forgetting { inner: inner.clone(), left: AtomicU64::new(at), lost: AtomicU64::new(0) });
        let (dir, _) = open(disk.clone());
        let conf = Bytes::from_static(&[1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
        let (topic, partition) = (TopicId([7; 16]), PartitionId(0));
        dir.create(gid, GroupSpec { topic, partition, incarnation: 1, conf, conf_index: EntryIndex::ZERO });
        let acks = Arc::new(Acks::default());
        dir.attach(gid, acks.clone());
        busy(&dir, gid, 0, |_| dir.is_stopped().is_some());
        dir.abandon();
        let acked = acks.0.load(SeqCst);
        inner.kill();
        lost += disk.lost.load(SeqCst);
        // The same machine: all that was written can be read. It goes on for so long that the journal comes round.
        let (dir, groups) = open(inner.clone());
        let last = groups.iter().find(|g| g.gid == gid).map_or(0, entries_of);
        assert!(last >= acked, "sync {at}: {last} of {acked} are there");
        dir.attach(gid, acks.clone());
        busy(&dir, gid, last, |n| n > last + 6_000 && acks.0.load(SeqCst) + 50 > n);
        let acked = acks.0.load(SeqCst);
        dir.abandon();
        inner.power_cut(Cut::LoseAll, &mut Rng::new(at));
        let (dir, groups) = open(inner);
        let there = groups.iter().find(|g| g.gid == gid).map_or(0, entries_of);
        assert!(there >= acked, "sync {at}: {there} are there, {acked} were acknowledged");
        dir.abandon();
    }
    assert!(lost > 0, "no sync that failed had anything to write");
}

/// Reads of one group's files fail, while they are asked to.
struct Unreadable {
    inner: Arc<MemoryDisk>,
    failing: AtomicBool,
    failed: AtomicU64,
}

impl Disk for Unreadable {
    fn run(&self, op: DiskOp) -> Result<DiskDone, DiskError> {
        if let DiskOp::Read { path, .. } = &op
            && self.failing.load(SeqCst)
            && path.contains("/p/0000000000000001/")
        {
            self.failed.fetch_add(1, SeqCst);
            return Err(DiskError { op: "read", path: path.clone(), kind: DiskFault::Io });
        }
        self.inner.run(op)
    }
}

#[test]
fn a_read_that_fails_stops_nothing() {
    let inner = Arc::new(MemoryDisk::new());
    let disk = Arc::new(Unreadable { inner: inner.clone(), failing: false.into(), failed: 0.into() });
    let attached = |dir: &LogDir| -> Vec<Arc<Acks>> {
        let made = (1..=GROUPS).map(|gid| (gid, Arc::new(Acks::default())));
        made.map(|(gid, acks)| {
            dir.attach(Gid(gid), acks.clone());
            acks
        })
        .collect()
    };
    let until = Instant::now() + LIMIT;
    let wait = |dir: &LogDir, what: &str, done: &dyn Fn() -> bool| {
        while !done() {
            assert_eq!(dir.is_stopped(), None, "{what}");
            assert!(Instant::now() < until, "{what}: not within {LIMIT:?}");
            std::thread::yield_now();
        }
    };
    // A first life leaves open segments behind, whose bytes the next one must read to close them off.
    let (dir, _) = open(disk.clone());
    for gid in 1..=GROUPS {
        let conf = Bytes::from_static(&[1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
        dir.create(
            Gid(gid),
            GroupSpec {
                topic: TopicId([7; 16]),
                partition: PartitionId(0),
                incarnation: 1,
                conf,
                conf_index: EntryIndex::ZERO,
            },
        );
    }
    let acks = attached(&dir);
    let mut last = 0;
    let more = |dir: &LogDir, acks: &[Arc<Acks>], last: &mut u64, count: u64| {
        for _ in 0..count {
            *last += 1;
            (1..=GROUPS).for_each(|gid| append(dir, Gid(gid), *last));
            let now = *last;
            wait(dir, "acknowledged", &|| acks.iter().all(|a| a.0.load(SeqCst) == now));
        }
    };
    more(&dir, &acks, &mut last, 30);
    dir.close();
    let (dir, _) = open(disk.clone());
    let acks = attached(&dir);
    disk.failing.store(true, SeqCst);
    // Until the segment is full that the first life began.
    while disk.failed.load(SeqCst) == 0 {
        more(&dir, &acks, &mut last, 1);
    }
    // Everybody goes on, through many more segments, and retention takes what cannot be read too.
    more(&dir, &acks, &mut last, 200);
    let oldest = "/d/p/0000000000000001/00000000000000000000.log";
    let there = |path: &str| inner.files().iter().any(|(name, _)| name == path);
    assert!(there(oldest));
    dir.trim(Gid(1), Offset(last - 1), None);
    wait(&dir, "retention", &|| !there(oldest));
    more(&dir, &acks, &mut last, 50);
    dir.close();
    disk.failing.store(false, SeqCst);
    let (dir, groups) = open(disk);
    for group in &groups {
        assert_eq!(entries_of(group) + group.first_index.0 - 1, last, "group {}", group.gid);
    }
    dir.abandon();
}

#[test]
fn a_group_that_recovery_keeps_closed_goes_when_it_is_dropped() {
    let disk = Arc::new(MemoryDisk::new());
    let (dir, _) = open(disk.clone());
    let acks = Arc::new(Acks::default());
    for gid in 1..=2 {
        let conf = Bytes::from_static(&[1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
        dir.create(
            Gid(gid),
            GroupSpec {
                topic: TopicId([7; 16]),
                partition: PartitionId(0),
                incarnation: 1,
                conf,
                conf_index: EntryIndex::ZERO,
            },
        );
        dir.attach(Gid(gid), acks.clone());
        (1..=60).for_each(|index| append(&dir, Gid(gid), index));
    }
    dir.close();
    let its = |disk: &MemoryDisk| -> Vec<String> {
        let names = disk.files().into_iter().map(|(name, _)| name);
        names.filter(|name| name.starts_with("/d/p/0000000000000001")).collect()
    };
    for log in its(&disk).iter().filter(|name| name.ends_with(".log")) {
        disk.damage(log, |bytes| bytes.truncate(bytes.len() / 2));
    }
    let (dir, groups) = open(disk.clone());
    let verdicts: Vec<Verdict> = groups.iter().map(|g| g.verdict).collect();
    assert_eq!(verdicts, [Verdict::Damaged, Verdict::Ok]);
    assert!(!its(&disk).is_empty(), "it is kept as it is");
    dir.drop_group(Gid(1));
    let until = Instant::now() + LIMIT;
    while !its(&disk).is_empty() {
        assert_eq!(dir.is_stopped(), None);
        assert!(Instant::now() < until, "left: {:?}", its(&disk));
        std::thread::yield_now();
    }
    dir.abandon();
    disk.kill();
    let (dir, groups) = open(disk);
    assert_eq!(groups.iter().map(|g| g.gid).collect::<Vec<_>>(), [Gid(2)]);
    dir.abandon();
}
