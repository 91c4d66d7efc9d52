//! `engine`: the storage engine in this process, without sockets or Raft, against the probes (bars B1-B6, B9).

use crate::limits::{Folder, How, Ring, drop_cache, scan};
use crate::{load, median, quantile, setting};
use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use catchwater_raft::driver::{Durability, IdentitySeed, LogDir, LogDirConfig, Pressure, Replica, Window};
use catchwater_raft::{Event, ReadyNo};
use catchwater_record::batch::patch;
use catchwater_record::{BatchView, EntryIndex, Gid, LeaderEpoch, Offset, PartitionId, TopicId};
use catchwater_storage::disk::real::RealDisk;
use catchwater_storage::recover::{Layout, NewIdentity, recover};
use catchwater_storage::{EntryKind, GroupSpec, Hard, NewEntry};
use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

const SEED: IdentitySeed = IdentitySeed { cluster_id: [1; 16], dir_id: [2; 16] };
/// Bytes that were handed over and are not durable: the same for every engine and partition count.
const OUTSTANDING_BYTES: u64 = 4 << 20;
/// Between two batches of 16 KiB where latency under load counts: 32 MB/s.
const PACE: Duration = Duration::from_micros(500);

/// Batches that became durable, of all groups.
#[derive(Default)]
struct Durable {
    batches: Mutex<u64>,
    moved: Condvar,
}

impl Durable {
    fn now(&self) -> u64 {
        *self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn reach(&self, n: u64) {
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        while *batches < n {
            batches = self.moved.wait(batches).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

struct Counting {
    gid: Gid,
    dir: LogDir,
    last: Mutex<u64>,
    durable: Arc<Durable>,
}

impl Replica for Counting {
    fn handle(&self, event: Event) {
        if let Event::Persisted(ReadyNo(upto)) = event {
            let new = {
                let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                upto - std::mem::replace(&mut *last, upto)
            };
            // A sole voter commits what it has.
            self.dir.committed(self.gid, EntryIndex(upto));
            *self.durable.batches.lock().unwrap_or_else(PoisonError::into_inner) += new;
            self.durable.moved.notify_one();
        }
    }
}

/// An engine with so many groups, and the batch that is written again and again.
struct Engine {
    dir: LogDir,
    durable: Arc<Durable>,
    batch: Bytes,
    records: u32,
    written: Vec<u64>,
    sent: u64,
    next: usize,
}

/// What differs between the engines that are measured.
#[derive(Clone, Copy)]
struct Kind {
    durability: Durability,
    journal_files: u32,
}

impl Default for Kind {
    fn default() -> Self {
        Kind { durability: Durability::Fsync, journal_files: LogDirConfig::default().journal_files }
    }
}

impl Engine {
    fn open(path: &Path, groups: usize, batch_bytes: usize) -> Result<Engine> {
        Engine::open_as(Kind::default(), path, groups, batch_bytes)
    }

    fn open_as(kind: Kind, path: &Path, groups: usize, batch_bytes: usize) -> Result<Engine> {
        let journal_files = kind.journal_files;
        let config = LogDirConfig {
            path: path.to_owned(),
            journal_files,
            journal_files_max: journal_files.max(16),
            ..LogDirConfig::default()
        };
        let (dir, _) = LogDir::open(Arc::new(RealDisk::new()), config, SEED)?;
        let durable = Arc::new(Durable::default());
        for n in 0..groups {
            let gid = Gid(n as u64 + 1);
            let partition = PartitionId(u32::try_from(n)?);
            let conf = Bytes::from_static(&[1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
            dir.create(gid, GroupSpec { topic: TopicId([7; 16]), partition, incarnation: 1, conf });
            let replica = Counting { gid, dir: dir.clone(), last: Mutex::new(0), durable: durable.clone() };
            dir.attach(gid, Arc::new(replica));
            if kind.durability != Durability::Fsync {
                dir.set_durability(gid, kind.durability);
            }
        }
        let batch = load::batch(batch_bytes);
        let records = u32::try_from(BatchView::new(&batch)?.records_count())?;
        let mut engine = Engine { dir, durable, batch, records, written: vec![0; groups], sent: 0, next: 0 };
        // Each group's files and its first frame are there before the clock runs.
        (0..groups).for_each(|_| engine.put());
        engine.durable.reach(engine.sent);
        Ok(engine)
    }

    /// One batch into the next partition.
    fn put(&mut self) {
        let at = self.next;
        self.next = (at + 1) % self.written.len();
        self.written[at] += 1;
        let (n, gid) = (self.written[at], Gid(at as u64 + 1));
        let base = Offset((n - 1) * u64::from(self.records));
        let mut body = BytesMut::from(&self.batch[..]);
        patch(&mut body, base, LeaderEpoch(1));
        let entry = NewEntry {
            index: EntryIndex(n),
            term: LeaderEpoch(1),
            kind: EntryKind::Data,
            flags: 0,
            base_offset: base,
            count: self.records,
            max_ts: 1,
            body: body.freeze(),
            context: Bytes::new(),
        };
        let hard = (n == 1).then_some(Hard { term: 1, vote: 1 << 32, commit: EntryIndex(0) });
        self.dir.persist(gid, ReadyNo(n), vec![entry], hard, None);
        self.sent += 1;
    }

    /// MB/s that became durable with [`OUTSTANDING_BYTES`] in flight.
    fn ingest(&mut self, limit: Duration) -> f64 {
        let window = (OUTSTANDING_BYTES / self.batch.len() as u64).max(1);
        let (from, began) = (Instant::now(), self.durable.now());
        while from.elapsed() < limit {
            while self.sent - self.durable.now() >= window {
                let some = self.sent - window + window / 4 + 1;
                self.durable.reach(some.min(self.sent));
            }
            // As a partition does: the segment writer must not fall behind without end.
            while self.dir.pressure() == Pressure::Stop {
                std::thread::sleep(Duration::from_millis(1));
            }
            self.put();
        }
        self.durable.reach(self.sent);
        ((self.durable.now() - began) * self.batch.len() as u64) as f64 / 1e6 / from.elapsed().as_secs_f64()
    }

    /// One batch at a time: how long each took, µs.
    fn alone(&mut self, count: usize) -> Vec<f64> {
        let mut took = Vec::with_capacity(count);
        for _ in 0..count {
            let from = Instant::now();
            self.put();
            self.durable.reach(self.sent);
            took.push(from.elapsed().as_secs_f64() * 1e6);
        }
        took
    }

    /// One batch every [`PACE`], each waited for: the slowest hundredth, µs. Late ones count from when they were due.
    fn paced_p99(&mut self, limit: Duration) -> f64 {
        let (began, mut took) = (Instant::now(), Vec::new());
        while began.elapsed() < limit {
            let due = began + PACE * u32::try_from(took.len()).unwrap_or(u32::MAX);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.put();
            self.durable.reach(self.sent);
            took.push(due.elapsed().as_secs_f64() * 1e6);
        }
        took.sort_by(f64::total_cmp);
        quantile(&took, 0.99)
    }
}

/// What most logs do: a file per partition, written and synced for each batch. Here for comparison alone.
struct PerPartition {
    files: Vec<std::os::fd::OwnedFd>,
    ends: Vec<u64>,
    batch: Bytes,
    next: usize,
}

impl PerPartition {
    fn open(path: &Path, partitions: usize, batch_bytes: usize) -> Result<PerPartition> {
        std::fs::create_dir_all(path)?;
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let open = |n| rustix::fs::open(path.join(format!("{n}.log")), flags, Mode::from_raw_mode(0o644));
        let files = (0..partitions).map(open).collect::<Result<_, _>>()?;
        Ok(PerPartition { files, ends: vec![0; partitions], batch: load::batch(batch_bytes), next: 0 })
    }

    /// MB/s; what is in flight goes to as many partitions as it reaches, and each that was written is synced once.
    fn ingest(&mut self, limit: Duration) -> Result<f64> {
        let window = (OUTSTANDING_BYTES as usize / self.batch.len()).max(1);
        let (from, mut bytes) = (Instant::now(), 0u64);
        while from.elapsed() < limit {
            let first = self.next;
            for _ in 0..window {
                let at = self.next;
                self.next = (at + 1) % self.files.len();
                ensure!(rustix::io::pwrite(&self.files[at], &self.batch, self.ends[at])? == self.batch.len(), "short");
                self.ends[at] += self.batch.len() as u64;
                bytes += self.batch.len() as u64;
            }
            for n in 0..window.min(self.files.len()) {
                rustix::fs::fdatasync(&self.files[(first + n) % self.files.len()])?;
            }
        }
        Ok(bytes as f64 / 1e6 / from.elapsed().as_secs_f64())
    }
}

fn journal_files(path: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(path.join("journal"))?.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
    files.sort();
    Ok(files)
}

pub fn engine() -> Result<Value> {
    let rounds = setting("CW_ROUNDS", 5);
    let limit = Duration::from_millis(setting("CW_RUN_MS", 2_000));
    let folder = Folder::new("engine")?;
    let mut bars = Vec::new();

    // B1: acknowledged from the page cache.
    let mut probe = Ring::new(&folder.0, How::Buffered)?;
    let relaxed = Kind { durability: Durability::Relaxed(Window::default()), ..Kind::default() };
    for partitions in [1, 16] {
        let path = folder.0.join(format!("b1-{partitions}"));
        let mut engine = Engine::open_as(relaxed, &path, partitions, 64 << 10)?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            theirs.push(probe.run(64 << 10, limit / 2)?.mb_per_s);
            ours.push(engine.ingest(limit));
        }
        engine.dir.close();
        std::fs::remove_dir_all(&path)?;
        let what =
            format!("relaxed ingest, {partitions} partitions, 64 KiB batches, MB/s against buffered writes of 64 KiB");
        bars.push(bar("B1", &what, 0.6, ours, theirs));
    }

    // B2 and B3: one partition.
    let mut probe = Ring::new(&folder.0, How::Direct)?;
    let mut large = Engine::open(&folder.0.join("b2"), 1, 64 << 10)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        theirs.push(probe.run(1 << 20, limit / 2)?.mb_per_s);
        ours.push(large.ingest(limit));
    }
    large.dir.close();
    bars.push(bar("B2", "fsync ingest, 64 KiB batches, MB/s against O_DIRECT|O_DSYNC 1 MiB", 0.4, ours, theirs));
    let mut small = Engine::open(&folder.0.join("b3"), 1, 1 << 10)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        theirs.push(probe.run(4 << 10, limit / 8)?.median_us);
        ours.push(median(small.alone(300)));
    }
    small.dir.close();
    bars.push(bar(
        "B3",
        "one 1 KB batch until durable, µs against one O_DIRECT|O_DSYNC write of 4 KiB",
        1.5,
        ours,
        theirs,
    ));

    // B4 and B5: many partitions, equal bytes in flight; against one partition, and against a sync per partition.
    for batch_bytes in [1 << 10, 16 << 10] {
        let mut one = Vec::new();
        for partitions in [1usize, 100, 1000] {
            let name = format!("{partitions}-{batch_bytes}");
            let mut ours = Engine::open(&folder.0.join(&name), partitions, batch_bytes)?;
            let mut theirs = PerPartition::open(&folder.0.join(format!("files-{name}")), partitions, batch_bytes)?;
            let (mut a, mut b) = (Vec::new(), Vec::new());
            for _ in 0..rounds {
                a.push(ours.ingest(limit));
                b.push(theirs.ingest(limit)?);
            }
            ours.dir.close();
            drop(theirs);
            std::fs::remove_dir_all(folder.0.join(&name))?;
            std::fs::remove_dir_all(folder.0.join(format!("files-{name}")))?;
            let what = |of: &str| format!("{partitions} partitions, batches of {batch_bytes}, MB/s against {of}");
            if partitions == 1 {
                one = a.clone();
            } else {
                bars.push(bar("B4", &what("one partition"), 0.5, a.clone(), one.clone()));
            }
            let least = if partitions == 1 { 2.0 } else { 5.0 };
            bars.push(bar("B5", &what("one fdatasync per partition"), least, a, b));
        }
    }

    // B9: the same load with a journal that holds all of it, and with one that must be emptied all the time.
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        for (list, journal_files) in [(&mut without, 64), (&mut with, 2)] {
            let path = folder.0.join(format!("b9-{round}-{journal_files}"));
            let mut engine = Engine::open_as(Kind { journal_files, ..Kind::default() }, &path, 100, 16 << 10)?;
            list.push(engine.paced_p99(limit * 2));
            engine.dir.close();
            std::fs::remove_dir_all(&path)?;
        }
    }
    bars.push(bar(
        "B9",
        "p99 of one 16 KiB batch at 32 MB/s, µs, with checkpoints against without",
        2.0,
        with,
        without,
    ));

    // B6: what a killed process left: the scan, against reading the journal; and until the directory is open.
    let path = folder.0.join("b6");
    let (mut scanned, mut theirs) = (Vec::new(), Vec::new());
    let mut engine = Engine::open(&path, 100, 16 << 10)?;
    engine.ingest(limit);
    engine.dir.abandon();
    for _ in 0..rounds {
        let files = journal_files(&path)?;
        let (bytes, seconds) = scan(&files, true)?;
        let mb = bytes as f64 / 1e6;
        theirs.push(mb / seconds);
        drop_cache(&files)?;
        let from = Instant::now();
        let new = NewIdentity { cluster_id: SEED.cluster_id, dir_id: SEED.dir_id, node: 1 };
        // Its lock goes with the disk.
        let found = recover(&RealDisk::new(), &Layout::new(path.display().to_string()), new).context("recovery")?;
        scanned.push(mb / from.elapsed().as_secs_f64());
        drop(found);
    }
    bars.push(bar(
        "B6",
        "recovery scan after a kill, MB of journal per second against reading it cold",
        0.65,
        scanned,
        theirs,
    ));
    // The first start also writes into segments what the journal holds beyond its usual size: once.
    let config = LogDirConfig { path: path.clone(), ..LogDirConfig::default() };
    let from = Instant::now();
    let (dir, _) = LogDir::open(Arc::new(RealDisk::new()), config, SEED).context("recovery")?;
    let ready_ms = from.elapsed().as_secs_f64() * 1000.0;
    dir.abandon();
    Ok(
        json!({ "bench": "engine", "rounds": rounds, "outstanding_bytes": OUTSTANDING_BYTES, "open_after_kill_ms": ready_ms, "bars": bars }),
    )
}

/// Medians of both sides, the median of the rounds' ratios, and what is wanted (for B3 and B9 at most, else at least).
fn bar(name: &str, what: &str, wanted: f64, ours: Vec<f64>, probe: Vec<f64>) -> Value {
    let ratios: Vec<f64> = ours.iter().zip(&probe).map(|(a, b)| a / b).collect();
    let (low, high) = ratios.iter().fold((f64::MAX, f64::MIN), |(l, h), r| (l.min(*r), h.max(*r)));
    let line = json!({
        "bar": name, "what": what, "ours": median(ours), "probe": median(probe), "ratio": median(ratios), "ratio_min": low,
        "ratio_max": high, "wanted": wanted,
    });
    eprintln!("{line}");
    line
}
