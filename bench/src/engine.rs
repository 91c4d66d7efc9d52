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
/// Bytes that were handed over and are not durable, where the largest throughput is looked for.
const OUTSTANDING_BYTES: u64 = 4 << 20;
/// Batches that were handed over and are not durable where partitions are compared: K of the bars' method.
const OUTSTANDING_BATCHES: u64 = 256;
/// Journal files that hold all that B9 sends at [`PACE`] in 8 s, twice: nothing need be brought into segments meanwhile.
const JOURNAL_OF_ALL: u32 = 40;
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
    path: PathBuf,
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
            dir.create(
                gid,
                GroupSpec { topic: TopicId([7; 16]), partition, incarnation: 1, conf, conf_index: EntryIndex::ZERO },
            );
            let replica = Counting { gid, dir: dir.clone(), last: Mutex::new(0), durable: durable.clone() };
            dir.attach(gid, Arc::new(replica));
            if kind.durability != Durability::Fsync {
                dir.set_durability(gid, kind.durability);
            }
        }
        let batch = load::batch(batch_bytes);
        let records = u32::try_from(BatchView::new(&batch)?.records_count())?;
        let path = path.to_owned();
        let mut engine = Engine { path, dir, durable, batch, records, written: vec![0; groups], sent: 0, next: 0 };
        // Each group's files and its first frame are there before the clock runs.
        (0..groups).for_each(|_| engine.put());
        engine.durable.reach(engine.sent);
        Ok(engine)
    }

    /// Returns once the journal's files are made: that is work of the disk which no figure is about.
    fn prepared(&mut self, files: u32) -> Result<()> {
        let from = Instant::now();
        loop {
            let made = journal_files(&self.path)?.iter().filter(|f| f.extension().is_some_and(|e| e == "wal")).count();
            if made >= files as usize {
                return Ok(());
            }
            ensure!(from.elapsed() < Duration::from_secs(60), "{made} of {files} journal files in a minute");
            // The journal thread goes on with it whenever it has something to do.
            self.put();
            self.durable.reach(self.sent);
            std::thread::sleep(Duration::from_millis(5));
        }
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

    /// Batches of [`OUTSTANDING_BYTES`].
    fn many(&self) -> u64 {
        (OUTSTANDING_BYTES / self.batch.len() as u64).max(1)
    }

    /// MB/s that became durable with `window` batches in flight.
    fn ingest(&mut self, window: u64, limit: Duration) -> f64 {
        let (from, began) = (Instant::now(), self.durable.now());
        while from.elapsed() < limit {
            while self.sent - self.durable.now() >= window {
                let some = self.sent - window + window.div_ceil(4);
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
    fn ingest(&mut self, window: u64, limit: Duration) -> Result<f64> {
        let window = usize::try_from(window)?;
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

/// What all bars share.
struct Run {
    rounds: u64,
    limit: Duration,
    folder: Folder,
}

/// `CW_BARS=B1,B6`: these alone.
fn is_wanted(bars: &[&str]) -> bool {
    let Ok(list) = std::env::var("CW_BARS") else { return true };
    list.split(',').any(|name| bars.contains(&name.trim()))
}

pub fn engine() -> Result<Value> {
    let run = Run {
        rounds: setting("CW_ROUNDS", 5),
        limit: Duration::from_millis(setting("CW_RUN_MS", 2_000)),
        folder: Folder::new("engine")?,
    };
    let (mut bars, mut ready_ms) = (Vec::new(), None);
    if is_wanted(&["B1"]) {
        relaxed(&run, &mut bars)?;
    }
    if is_wanted(&["B2", "B3"]) {
        one_partition(&run, &mut bars)?;
    }
    if is_wanted(&["B4", "B5"]) {
        partitions(&run, &mut bars)?;
    }
    if is_wanted(&["B9"]) {
        checkpoints(&run, &mut bars)?;
    }
    if is_wanted(&["B6"]) {
        ready_ms = Some(recovery(&run, &mut bars)?);
    }
    Ok(json!({
        "bench": "engine", "rounds": run.rounds, "outstanding_bytes": OUTSTANDING_BYTES,
        "outstanding_batches": OUTSTANDING_BATCHES, "open_after_kill_ms": ready_ms, "bars": bars,
    }))
}

fn relaxed(run: &Run, bars: &mut Vec<Value>) -> Result<()> {
    // B1: acknowledged from the page cache.
    let mut grows = Ring::new(&run.folder.0, How::Growing)?;
    let mut stays = Ring::new(&run.folder.0, How::Buffered)?;
    let relaxed = Kind { durability: Durability::Relaxed(Window::default()), ..Kind::default() };
    for partitions in [1, 16] {
        let path = run.folder.0.join(format!("b1-{partitions}"));
        let mut engine = Engine::open_as(relaxed, &path, partitions, 64 << 10)?;
        let (mut ours, mut growing, mut staying) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..run.rounds {
            growing.push(grows.run(64 << 10, run.limit / 2)?.mb_per_s);
            staying.push(stays.run(64 << 10, run.limit / 2)?.mb_per_s);
            ours.push(engine.ingest(engine.many(), run.limit));
        }
        engine.dir.close();
        std::fs::remove_dir_all(&path)?;
        let what = |of| format!("relaxed ingest, {partitions} partitions, 64 KiB batches, MB/s against {of}");
        bars.push(bar("B1", &what("buffered writes of 64 KiB to a file that grows"), 0.6, ours.clone(), growing));
        bars.push(bar("B1", &what("buffered writes of 64 KiB over pages in memory"), 0.6, ours, staying));
    }
    drop((grows, stays));
    Ok(())
}

fn one_partition(run: &Run, bars: &mut Vec<Value>) -> Result<()> {
    // B2 and B3: one partition.
    let mut probe = Ring::new(&run.folder.0, How::Direct)?;
    let mut large = Engine::open(&run.folder.0.join("b2"), 1, 64 << 10)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..run.rounds {
        theirs.push(probe.run(1 << 20, run.limit / 2)?.mb_per_s);
        ours.push(large.ingest(large.many(), run.limit));
    }
    large.dir.close();
    bars.push(bar("B2", "fsync ingest, 64 KiB batches, MB/s against O_DIRECT|O_DSYNC 1 MiB", 0.4, ours, theirs));
    let mut small = Engine::open(&run.folder.0.join("b3"), 1, 1 << 10)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..run.rounds {
        theirs.push(probe.run(4 << 10, run.limit / 8)?.median_us);
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
    Ok(())
}

fn partitions(run: &Run, bars: &mut Vec<Value>) -> Result<()> {
    // B4 and B5: partitions with the same number of batches in flight; against one partition, against the same engine with a
    // sync of each partition's file in the place of the journal, and against such files alone, without tables and threads.
    let synced = Kind { durability: Durability::Relaxed(Window { ms: 0, bytes: 0, records: 0 }), ..Kind::default() };
    for batch_bytes in [1 << 10, 16 << 10] {
        let mut one = Vec::new();
        for (partitions, window) in
            [(1usize, 1), (1, OUTSTANDING_BATCHES), (100, OUTSTANDING_BATCHES), (1000, OUTSTANDING_BATCHES)]
        {
            let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
            let name = format!("{partitions}-{window}-{batch_bytes}");
            let mut ours = Engine::open(&run.folder.0.join(&name), partitions, batch_bytes)?;
            let mut same =
                Engine::open_as(synced, &run.folder.0.join(format!("synced-{name}")), partitions, batch_bytes)?;
            let mut files = PerPartition::open(&run.folder.0.join(format!("files-{name}")), partitions, batch_bytes)?;
            for _ in 0..run.rounds {
                a.push(ours.ingest(window, run.limit));
                b.push(same.ingest(window, run.limit));
                c.push(files.ingest(window, run.limit)?);
            }
            ours.dir.close();
            same.dir.close();
            drop(files);
            for kind in ["", "synced-", "files-"] {
                std::fs::remove_dir_all(run.folder.0.join(format!("{kind}{name}")))?;
            }
            let what = |of: &str| {
                format!("{partitions} partitions, batches of {batch_bytes}, {window} in flight, MB/s against {of}")
            };
            if partitions > 1 {
                bars.push(bar("B4", &what("one partition"), 0.5, a.clone(), one.clone()));
            } else {
                one = a.clone();
            }
            let least = if partitions == 1 { 2.0 } else { 5.0 };
            let name = if (partitions == 1) == (window == 1) { "B5" } else { "B5 (more in flight than the bar asks)" };
            bars.push(bar(name, &what("the same engine, an fdatasync per partition"), least, a.clone(), b));
            bars.push(bar(name, &what("files alone, an fdatasync per partition"), least, a, c));
        }
    }
    Ok(())
}

fn checkpoints(run: &Run, bars: &mut Vec<Value>) -> Result<()> {
    // B9: the same load with a journal that holds all of it, and with one that must be emptied all the time.
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..run.rounds {
        for (list, journal_files) in [(&mut without, JOURNAL_OF_ALL), (&mut with, 2)] {
            let path = run.folder.0.join(format!("b9-{round}-{journal_files}"));
            let mut engine = Engine::open_as(Kind { journal_files, ..Kind::default() }, &path, 100, 16 << 10)?;
            engine.prepared(journal_files)?;
            list.push(engine.paced_p99(run.limit * 2));
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
    Ok(())
}

fn recovery(run: &Run, bars: &mut Vec<Value>) -> Result<f64> {
    // B6: what a killed process left: the scan, against reading the journal; and until the directory is open.
    let path = run.folder.0.join("b6");
    let (mut scanned, mut theirs) = (Vec::new(), Vec::new());
    let mut engine = Engine::open(&path, 100, 16 << 10)?;
    engine.ingest(engine.many(), run.limit);
    engine.dir.abandon();
    for _ in 0..run.rounds {
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
    Ok(ready_ms)
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
