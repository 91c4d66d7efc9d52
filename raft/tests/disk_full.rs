//! A disk that is nearly full, then full, then has room again, under a running log directory: in memory, on tmpfs, and on
//! ext4 in a loop file (storage.md 14, F6).
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use catchwater_raft::driver::{IdentitySeed, LogDir, LogDirConfig, Pressure, Replica};
use catchwater_raft::{Event, ReadyNo};
use catchwater_record::batch::{build::Builder, patch};
use catchwater_record::{EntryIndex, Gid, LeaderEpoch, Offset, PartitionId, TopicId};
use catchwater_storage::disk::memory::MemoryDisk;
use catchwater_storage::disk::real::RealDisk;
use catchwater_storage::disk::{Disk, DiskExt};
use catchwater_storage::{EntryKind, FileRead, GroupSpec, Hard, NewEntry, PlacedRow, RecoveredGroup, Verdict};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

const GID: Gid = Gid(3);
const VALUE_BYTES: usize = 8 << 10;
/// F6: producing goes on so soon after there is room.
const RESUME: Duration = Duration::from_secs(5);
/// Everything else, on however busy a machine.
const SOON: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Seen {
    acked: u64,
    rows: Vec<PlacedRow>,
}

#[derive(Default)]
struct Watcher {
    seen: Mutex<Seen>,
    moved: Condvar,
}

impl Replica for Watcher {
    fn handle(&self, event: Event) {
        let mut seen = self.seen.lock().unwrap();
        match event {
            Event::Persisted(ReadyNo(n)) => seen.acked = seen.acked.max(n),
            Event::Segmented(_, rows) => seen.rows.extend(rows),
            _ => {}
        }
        self.moved.notify_all();
    }
}

impl Watcher {
    fn wait(&self, what: &str, limit: Duration, until: impl Fn(&Seen) -> bool) {
        let begun = Instant::now();
        let mut seen = self.seen.lock().unwrap();
        while !until(&seen) {
            let left = limit.checked_sub(begun.elapsed()).unwrap_or_else(|| panic!("{what}: not within {limit:?}"));
            seen = self.moved.wait_timeout(seen, left).unwrap().0;
        }
    }
}

/// Polls something that no event tells of; a directory that has stopped never gets there.
fn poll(node: &Node, what: &str, limit: Duration, until: impl Fn() -> bool) -> Duration {
    let begun = Instant::now();
    while !until() {
        let over = begun.elapsed() >= limit;
        assert_eq!(node.dir.is_stopped(), None, "{what}: a full disk is no failure");
        assert!(!over, "{what}: not within {limit:?}, {:?}", node.watcher.seen.lock().unwrap().acked);
        // Not as synchronisation: so that polling does not take the processor from what is polled.
        std::thread::park_timeout(Duration::from_millis(1));
    }
    begun.elapsed()
}

fn entry(index: u64) -> NewEntry {
    let mut builder = Builder::new();
    let value: Vec<u8> = (0..VALUE_BYTES).map(|i| (i as u64 * 31 + index) as u8).collect();
    builder.push(1000 + index as i64, None, Some(&value), std::iter::empty());
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

fn config(path: &str) -> LogDirConfig {
    LogDirConfig {
        path: path.into(),
        journal_file_bytes: 512 << 10,
        journal_files: 3,
        journal_files_max: 6,
        segment_bytes: 1 << 20,
        min_free_bytes: Some(8 << 20),
        reserve_bytes: 1 << 20,
        ..LogDirConfig::default()
    }
}

struct Node {
    dir: LogDir,
    watcher: Arc<Watcher>,
    last: u64,
}

impl Node {
    fn open(disk: Arc<dyn Disk>, path: &str) -> (Node, Option<RecoveredGroup>) {
        let seed = IdentitySeed { cluster_id: [1; 16], dir_id: [2; 16] };
        let (dir, mut opened) = LogDir::open(disk, config(path), seed).unwrap();
        let group = opened.groups.pop();
        let watcher = Arc::new(Watcher::default());
        if group.is_none() {
            let conf = Bytes::from_static(&[1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
            let spec = GroupSpec {
                topic: TopicId([7; 16]),
                partition: PartitionId(0),
                incarnation: 1,
                conf,
                conf_index: EntryIndex::ZERO,
            };
            dir.create(GID, spec);
        }
        dir.attach(GID, watcher.clone());
        let last = group.as_ref().map_or(0, entries_of);
        (Node { dir, watcher, last }, group)
    }

    fn append(&mut self) {
        self.last += 1;
        let hard = (self.last == 1).then_some(Hard { term: 1, vote: 1 << 32, commit: EntryIndex(0) });
        self.dir.persist(GID, ReadyNo(self.last), vec![entry(self.last)], hard, None);
        self.dir.committed(GID, EntryIndex(self.last));
    }

    fn read(&self, row: &PlacedRow) -> Bytes {
        let name = (row.base_index, row.base_offset, row.generation);
        self.dir.read(&FileRead::of_row(GID, name, &row.row)).unwrap()
    }
}

fn entries_of(group: &RecoveredGroup) -> u64 {
    assert_eq!(group.verdict, Verdict::Ok);
    let rows: u64 = group.segments.iter().map(|s| s.rows.len() as u64).sum();
    group.first_index.0 - 1 + rows + group.journaled.len() as u64
}

/// For whoever looks why nothing moves.
fn what_is_there(disk: &dyn Disk, path: &str) -> String {
    let dir = format!("{path}/p/{:016x}", GID.0);
    let names = disk.list(&dir).unwrap_or_default();
    let files: Vec<String> =
        names.iter().map(|n| format!("{n} {:?}", disk.length(&format!("{dir}/{n}")).ok())).collect();
    format!("{:?}; {}", disk.space(path).ok(), files.join(", "))
}

/// `eat` takes all room there is, `give` gives it back.
fn full_and_back(disk: Arc<dyn Disk>, path: &str, eat: &dyn Fn(), give: &dyn Fn()) {
    let (mut node, _) = Node::open(disk.clone(), path);
    let reserve = format!("{path}/reserve");
    assert_eq!(disk.length(&reserve).unwrap(), 1 << 20, "the reserve is there");

    // Nearly full: producing is refused while there still is room for everything that was taken.
    while node.dir.pressure() != Pressure::Full {
        (0..16).for_each(|_| node.append());
        let last = node.last;
        node.watcher.wait("acknowledged", SOON, |seen| seen.acked == last);
        assert!(last < 20_000, "the floor is never reached");
    }
    let last = node.last;
    node.watcher.wait("placed", SOON, |seen| seen.rows.last().is_some_and(|r| r.row.index.0 == last));
    assert!(disk.length(&reserve).is_ok(), "at the floor nothing is given up yet");

    // Full: somebody else takes the rest. What the node itself writes is acknowledged by the journal all the same, as long
    // as its files have room. The journal may give a file back meanwhile, so how much that is, is not known; when neither
    // file nor reserve is left, what was appended last waits for room, and is not acknowledged before.
    eat();
    let reserve_is_gone = || disk.length(&reserve).is_err();
    let acked = |node: &Node| node.watcher.seen.lock().unwrap().acked;
    while !reserve_is_gone() {
        node.append();
        let last = node.last;
        poll(&node, "acknowledged, or the reserve goes", SOON, || acked(&node) == last || reserve_is_gone());
        assert!(last < 20_000, "the reserve never goes");
    }
    let last = acked(&node);
    eat();
    for _ in 0..200 {
        node.append();
    }
    assert_eq!(node.dir.is_stopped(), None, "a full disk is no failure");
    assert_eq!(node.dir.pressure(), Pressure::Full);
    let rows = node.watcher.seen.lock().unwrap().rows.clone();
    let some = rows[rows.len() / 2];
    assert_eq!(node.read(&some), entry(some.row.index.0).body, "reading goes on");
    // Retention goes on: the journal has its entry, and whole segments go.
    let before = rows.iter().rev().find(|r| r.base_offset < some.base_offset).unwrap().base_offset;
    let newest_gone = format!("{path}/p/{:016x}/{:020}.ent", GID.0, before.0);
    assert!(disk.length(&newest_gone).is_ok());
    let (begun, said) = (Instant::now(), std::cell::Cell::new(false));
    node.dir.trim(GID, some.base_offset, None);
    let gone = || {
        let gone = disk.length(&newest_gone).is_err();
        if !gone && begun.elapsed() > SOON / 2 && !said.replace(true) {
            println!("late: {}", what_is_there(&*disk, path));
        }
        gone
    };
    poll(&node, "old segments go", SOON, gone);
    eat();
    let acked = acked(&node);
    assert!(acked >= last, "what is acknowledged stays so");

    // Killed on the full disk: it starts, and everything acknowledged is there.
    node.dir.abandon();
    for _ in 0..3 {
        let (again, group) = Node::open(disk.clone(), path);
        let found = entries_of(&group.unwrap());
        assert!(found >= acked, "{found} entries, {acked} were acknowledged");
        assert_eq!(again.dir.pressure(), Pressure::Full);
        again.dir.abandon();
    }
    let (mut node, _) = Node::open(disk.clone(), path);
    give();
    let took = poll(&node, "producing goes on", RESUME, || node.dir.pressure() == Pressure::None);
    println!("producing went on {took:?} after there was room");
    for _ in 0..50 {
        node.append();
    }
    let last = node.last;
    node.watcher.wait("placed", SOON, |seen| seen.rows.last().is_some_and(|r| r.row.index.0 == last));
    poll(&node, "the reserve comes back", SOON, || disk.length(&reserve).is_ok_and(|len| len == 1 << 20));
    node.dir.close();
    let (node, group) = Node::open(disk, path);
    assert_eq!(entries_of(&group.unwrap()), last);
    node.dir.abandon();
}

#[test]
fn a_full_disk_in_memory() {
    let disk = Arc::new(MemoryDisk::new());
    disk.set_capacity(24 << 20);
    let used = |disk: &MemoryDisk| disk.files().iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
    let (eat, give) = (disk.clone(), disk.clone());
    full_and_back(disk, "/d", &move || eat.set_capacity(used(&eat)), &move || give.set_capacity(64 << 20));
}

/// A filesystem of our own, gone at the end.
struct Mount(PathBuf);

impl Mount {
    fn at(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("catchwater-{name}-{}", std::process::id()));
        std::fs::create_dir_all(path.join("mnt")).unwrap();
        path
    }
    fn root(&self) -> PathBuf {
        self.0.join("mnt")
    }
    /// Takes all room, in steps, the last of one block.
    fn eat(&self) {
        use std::io::Write;
        let mut file = std::fs::File::options().create(true).append(true).open(self.root().join("filler")).unwrap();
        for size in [1 << 20, 64 << 10, 4 << 10] {
            while file.write_all(&vec![0xAA; size]).is_ok() && file.sync_all().is_ok() {}
        }
    }
    fn give(&self) {
        std::fs::remove_file(self.root().join("filler")).unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.root()).output();
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn ran(command: &mut Command) -> Result<(), String> {
    let out = command.output().map_err(|e| e.to_string())?;
    if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).trim().to_owned()) }
}

fn tmpfs() -> Result<Mount, String> {
    let mount = Mount(Mount::at("full-tmpfs"));
    ran(Command::new("mount").args(["-t", "tmpfs", "-o", "size=32m", "none"]).arg(mount.root()))?;
    Ok(mount)
}

fn ext4() -> Result<Mount, String> {
    let mount = Mount(Mount::at("full-ext4"));
    let image = mount.0.join("img");
    std::fs::File::create(&image).and_then(|f| f.set_len(64 << 20)).map_err(|e| e.to_string())?;
    ran(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))?;
    ran(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(mount.root()))?;
    Ok(mount)
}

/// Without the right to mount: said loudly, and counted by the check.
fn on(test: &str, mount: Result<Mount, String>, run: impl Fn(&Mount, &Path)) {
    match mount {
        Ok(mount) => run(&mount, &mount.root().join("data")),
        Err(why) => {
            println!("SKIP {test}: {why}");
            if let Some(path) = std::env::var_os("CW_SKIP_FILE") {
                use std::io::Write;
                if let Ok(mut file) = std::fs::OpenOptions::new().append(true).create(true).open(path) {
                    let _ = writeln!(file, "{test}: {why}");
                }
            }
        }
    }
}

#[test]
fn a_full_tmpfs() {
    on("a_full_tmpfs", tmpfs(), |mount, path| {
        full_and_back(Arc::new(RealDisk::new()), &path.display().to_string(), &|| mount.eat(), &|| mount.give());
    });
}

#[test]
fn a_full_ext4() {
    on("a_full_ext4", ext4(), |mount, path| {
        full_and_back(Arc::new(RealDisk::new()), &path.display().to_string(), &|| mount.eat(), &|| mount.give());
    });
}
