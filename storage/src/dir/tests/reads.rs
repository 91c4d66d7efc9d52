//! Reads that fail while segments are sealed and cut: the directory goes on, and loses nothing.

use super::*;
use std::sync::atomic::{AtomicU32, Ordering};

#[test]
fn a_read_that_fails_costs_its_own_group_a_seal_and_nothing_else() {
    let (mut unread, mut stops, mut restarts) = (0, 0, 0);
    for seed in 0..16 {
        let mut world = World::new(9000 + seed);
        for _ in 0..800 {
            let fails = world.rng.chance(500_000);
            let rates = FaultRates { read_error: if fails { 600_000 } else { 0 }, ..FaultRates::default() };
            // Not at a start: what it reads then is another matter.
            match world.rng.below(100) {
                0..=29 => world.append(),
                30..=39 => world.commit(),
                40..=42 => world.trim(),
                43..=97 => {
                    world.disk.set_rates(rates);
                    world.complete_one();
                    world.disk.set_rates(FaultRates::default());
                }
                98 => world.crash(),
                _ => world.tell(DirEvent::Wake),
            }
            if world.dir.used_percent() >= 90 {
                world.settle();
            }
            unread += world.dir.segments.unreadable_groups();
            if world.stopped {
                stops += 1;
                world.crash();
            }
        }
        world.settle();
        let acked: Vec<usize> = world.groups.values().map(|m| m.acked).collect();
        let submitted: Vec<usize> = world.groups.values().map(|m| m.submitted.len()).collect();
        assert_eq!(acked, submitted, "seed {seed}: everything is acknowledged in the end");
        assert_eq!(world.dir.unplaced_bytes(), 0, "seed {seed}: and in files");
        // Everything committed may go, sealed or not.
        for gid in [1, 2, 3].map(Gid) {
            let model = world.groups.get_mut(&gid).unwrap();
            let Some(last) = model.now().last().cloned() else { continue };
            (model.committed, model.trimmed) = (last.index.0, last.base_offset);
            world.tell(DirEvent::Committed(gid, last.index));
            world.tell(DirEvent::Trim(gid, last.base_offset, None));
        }
        world.settle();
        assert_eq!(world.dir.segments.unreadable_groups(), 0, "seed {seed}: retention takes what cannot be read");
        world.crash();
        restarts += world.restarts;
        world.close();
    }
    assert!(unread > 100 && restarts > 20, "{unread} steps with a part that cannot be read, {restarts} restarts");
    assert_eq!(stops, 0, "nothing that is read ends the node");
}

/// One file cannot be read, `left` times.
struct BadFile {
    disk: MemoryDisk,
    path: String,
    left: AtomicU32,
}

impl Disk for BadFile {
    fn run(&self, op: DiskOp) -> Result<crate::disk::DiskDone, crate::disk::DiskError> {
        let fails = |left: u32| left.checked_sub(1);
        if matches!(op, DiskOp::Read { .. })
            && **op.path() == *self.path
            && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fails).is_ok()
        {
            let (path, kind) = (op.path().clone(), crate::disk::DiskFault::Io);
            return Err(crate::disk::DiskError { op: "read", path, kind });
        }
        self.disk.run(op)
    }
}

#[test]
fn a_file_that_cannot_be_read_at_a_start_is_the_trouble_of_its_group() {
    let (mut closed, mut open, mut named) = (0, 0, 0);
    for seed in [7, 8] {
        let world = busy(seed);
        let memory = world.disk.memory().fork();
        let names: Vec<String> = memory.files().into_iter().map(|(name, _)| name).collect();
        for path in names.into_iter().filter(|name| name.contains("p/0000000000000001/")) {
            let disk = BadFile { disk: memory.fork(), path: path.clone(), left: AtomicU32::new(u32::MAX) };
            disk.disk.kill();
            let found = recover_whole(&disk, &world.layout, NEW).unwrap();
            for (group, _) in &found.groups {
                if group.verdict != Verdict::Ok {
                    assert_eq!((group.gid, group.verdict), (Gid(1), Verdict::Damaged), "{path}");
                    closed += 1;
                    continue;
                }
                // The file itself is there: only its reader is refused.
                settle(&disk.disk, &world.layout, &found.leftovers, &found.journal.free).unwrap();
                let first = group.first_index;
                let want: Vec<NewEntry> =
                    world.groups[&group.gid].now().into_iter().filter(|e| e.index >= first).collect();
                assert_eq!(contents(&disk.disk, &world.layout, group), want, "{path}: group {}", group.gid);
                open += u64::from(group.gid == Gid(1));
            }
            disk.disk.kill();
            let checked = crate::check::check(&disk, &world.layout).unwrap();
            // Not a file whose content the journal still has: nobody reads it.
            named += checked.findings.iter().filter(|f| f.kind == "unreadable" && f.file == path).count();
        }
    }
    assert!(closed > 3 && open > 5 && named > 8, "{closed} closed, {open} open, {named} named");
}

/// A verdict outlives the start that gave it, so an error that passes must give none.
#[test]
fn a_read_that_fails_twice_at_a_start_closes_nothing() {
    let world = busy(7);
    let memory = world.disk.memory().fork();
    let names: Vec<String> = memory.files().into_iter().map(|(name, _)| name).collect();
    for path in names.into_iter().filter(|name| name.contains("p/0000000000000001/")) {
        let disk = BadFile { disk: memory.fork(), path: path.clone(), left: AtomicU32::new(2) };
        disk.disk.kill();
        let found = recover_whole(&disk, &world.layout, NEW).unwrap();
        assert!(found.groups.iter().all(|(group, _)| group.verdict == Verdict::Ok), "{path}");
    }
}

/// A disk that lets several threads read, slow enough for each of them to get a file.
struct Shared {
    disk: BadFile,
    readers: usize,
}

impl Disk for Shared {
    fn run(&self, op: DiskOp) -> Result<crate::disk::DiskDone, crate::disk::DiskError> {
        if matches!(op, DiskOp::Length { .. }) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        self.disk.run(op)
    }

    fn readers(&self) -> usize {
        self.readers
    }
}

#[test]
fn several_readers_of_the_journal_find_what_one_finds() {
    let (mut damaged, mut refused) = (0, 0);
    let world = busy(21);
    let memory = world.disk.memory().fork();
    let journal: Vec<(String, Vec<u8>)> =
        memory.files().into_iter().filter(|(name, _)| name.ends_with(".wal")).collect();
    let files = journal.len();
    let mut rng = Rng::new(21);
    // Whole, each file with a bad byte, each file that cannot be read.
    for n in 0..=2 * journal.len() {
        let (of, bad) = (n.checked_sub(1).map(|n| n / 2), n % 2 == 1);
        let (image, mut path) = (memory.fork(), String::new());
        if let Some((name, bytes)) = of.map(|of| &journal[of]) {
            if bad {
                let at = rng.below(bytes.len() as u64);
                image.write(name, at, Bytes::copy_from_slice(&[!bytes[usize::try_from(at).unwrap()]])).unwrap();
            } else {
                path.clone_from(name);
            }
        }
        let found = [1, 3].map(|readers| {
            let disk = BadFile { disk: image.fork(), path: path.clone(), left: AtomicU32::new(u32::MAX) };
            disk.disk.kill();
            let found = recover_whole(&Shared { disk, readers }, &world.layout, NEW);
            (found.as_ref().is_ok_and(|f| f.report.lost_frames > 0), found.is_err(), format!("{found:?}"))
        });
        damaged += u64::from(found[0].0);
        refused += u64::from(found[0].1);
        assert_eq!(found[1].2, found[0].2, "case {n}");
    }
    assert!(
        files >= 3 && damaged > 0 && refused > 0,
        "{files} files, {damaged} with lost frames, {refused} unreadable"
    );
}
