//! A repair on really damaged directories: closed partitions go on with what is proved, the others are what they were, and
//! every byte that a start had before is still there under some name.

use super::*;
use crate::check::{Weight, check};
use crate::recover::ASIDE;
use crate::repair::{Plan, carry_out, let_go, plan};

/// Flips a bit in the newest flush that holds an entry of `gid`, in that entry's frame.
fn lose_an_entry(world: &World, disk: &MemoryDisk, gid: Gid) -> EntryIndex {
    use crate::format::journal::{FlushHeader, decode_flush};
    let now = world.groups[&gid].now();
    let mut newest: Option<(u64, String, usize, EntryIndex)> = None;
    for (name, bytes) in disk.files().into_iter().filter(|(name, _)| name.ends_with(".wal")) {
        let bytes = Bytes::from(bytes);
        for at in (4096..bytes.len()).step_by(4096) {
            let Some(header) = FlushHeader::decode(&bytes[at..]) else { continue };
            let mut entries = decode_flush(&header, &bytes.slice(at..)).frames.into_iter();
            let mine = entries.find_map(|f| match f {
                // Not one that a cut has taken since.
                crate::entry::Frame::Entry(of, e) if of == gid && !e.body.is_empty() && now.contains(&e) => Some(e),
                _ => None,
            });
            let Some(entry) = mine else { continue };
            let Some(pos) = bytes[at..].windows(entry.body.len()).position(|w| w == &entry.body[..]) else { continue };
            if newest.as_ref().is_none_or(|(lsn, ..)| *lsn < header.lsn) {
                newest = Some((header.lsn, name.clone(), at + pos + 70, entry.index));
            }
        }
    }
    let (_, name, at, index) = newest.unwrap();
    disk.damage(&name, |bytes| bytes[at] ^= 1);
    index
}

fn planned(disk: &MemoryDisk, world: &World) -> Plan {
    disk.kill();
    plan(disk, &world.layout).unwrap()
}

/// As a start does it, up to the first write of the journal.
fn start(disk: &MemoryDisk, world: &World) -> Recovered {
    disk.kill();
    let found = recover_whole(disk, &world.layout, NEW).unwrap();
    quarantine(disk, &world.layout, &found.groups).unwrap();
    settle(disk, &world.layout, &found.leftovers, &found.journal.free).unwrap();
    found
}

/// Every group is open; those of `cut` end where the plan said, the others have all they had.
fn assert_open(world: &World, disk: &MemoryDisk, cut: &BTreeMap<Gid, EntryIndex>) {
    disk.kill();
    let found = recover_whole(disk, &world.layout, NEW).unwrap();
    for (gid, model) in &world.groups {
        let (group, files) = found.groups.iter().find(|(g, _)| g.gid == *gid).unwrap();
        assert!(files.quarantine.is_none(), "group {gid} is still closed: {:?}", group.verdict);
        let first = group.first_index;
        let want: Vec<NewEntry> = model.now().into_iter().filter(|e| e.index >= first).collect();
        let got = contents(disk, &world.layout, group);
        match cut.get(gid) {
            None => assert_eq!(got, want, "group {gid}"),
            Some(last) => {
                assert!(want.starts_with(&got), "group {gid}");
                assert_eq!(got.last().map(|e| e.index), Some(*last), "group {gid}");
            }
        }
        let term = model.hards.last().map_or(0, |h| h.term);
        assert!(group.hard.term >= term, "group {gid}: hard state went back");
    }
    disk.kill();
    let checked = check(disk, &world.layout).unwrap();
    assert!(checked.worst().is_none_or(|w| w == Weight::Note), "{:?}", checked.findings);
}

#[test]
fn a_partition_that_lost_an_entry_goes_on_with_what_is_proved() {
    let mut repaired = 0;
    for (seed, n) in (7..11).flat_map(|seed| (0..6).map(move |n| (seed, n))) {
        let (gid, started) = (Gid(1 + n % 3), n < 3);
        let world = busy(seed);
        let disk = world.disk.memory().fork();
        disk.kill();
        let lost = lose_an_entry(&world, &disk, gid);
        if started {
            start(&disk, &world);
        }
        let sound = planned(&disk, &world);
        let [closed] = &sound.closed[..] else {
            assert!(sound.closed.is_empty(), "{:?}", sound.closed);
            continue; // the entry stood in a segment already
        };
        assert_eq!((closed.gid, closed.last_index, closed.refused), (gid, lost.prev(), None));
        let cut = BTreeMap::from([(gid, closed.last_index)]);
        // A look changes nothing.
        let_go(&disk, &world.layout);
        let before = disk.files();
        let again = planned(&disk, &world);
        assert_eq!(before, disk.files());
        let done = carry_out(&disk, &world.layout, again, Now::default()).unwrap();
        assert_eq!(done.groups, [gid]);
        repaired += 1;
        // Nothing that was there is gone.
        let after = disk.files();
        for (name, bytes) in before.into_iter().filter(|(name, _)| name.ends_with(".wal")) {
            let kept =
                after.iter().any(|(n, b)| n.starts_with(&name) && (n.ends_with(ASIDE) || n == &name) && *b == bytes);
            assert!(kept, "seed {seed}: {name} is not kept");
        }
        assert!(after.iter().any(|(n, _)| n.contains(&format!("{:016x}/salvage", gid.0)) && n.ends_with(ASIDE)));
        assert_open(&world, &disk, &cut);
        disk.power_cut(Cut::LoseAll, &mut Rng::new(1));
        assert_open(&world, &disk, &cut);
        assert!(!planned(&disk, &world).does_something());
    }
    assert!(repaired > 5, "{repaired} repairs");
}

/// A journal file is gone: nobody knows what it held, all are closed, and all go on.
#[test]
fn partitions_that_a_lost_journal_file_closed_go_on() {
    let world = busy(7);
    let disk = world.disk.memory().fork();
    let newest = start(&disk.fork(), &world).journal.live.last().unwrap().path.to_string();
    disk.damage(&newest, |bytes| bytes.truncate(8192));
    let before = planned(&disk, &world);
    assert_eq!(before.closed.len(), 3, "{:?}", before.closed);
    let cut: BTreeMap<Gid, EntryIndex> = before.closed.iter().map(|g| (g.gid, g.last_index)).collect();
    carry_out(&disk, &world.layout, before, Now::default()).unwrap();
    for _ in 0..2 {
        disk.kill();
        let found = recover_whole(&disk, &world.layout, NEW).unwrap();
        for (group, files) in &found.groups {
            assert!(files.quarantine.is_none(), "{}: {:?}", group.gid, group.verdict);
            assert_eq!(group.last_index(), cut[&group.gid]);
        }
        disk.power_cut(Cut::LoseAll, &mut Rng::new(1));
    }
}

/// The repair may die at any write: what was closed is closed or repaired, the others are whole, and it can be run again.
#[test]
fn a_repair_that_dies_can_be_run_again() {
    // The first seed whose entry stood in no segment yet.
    let (world, whole) = (11..60)
        .map(|seed| {
            let world = busy(seed);
            let whole = world.disk.memory().fork();
            whole.kill();
            lose_an_entry(&world, &whole, Gid(2));
            (world, whole)
        })
        .find(|(world, whole)| planned(&whole.fork(), world).does_something())
        .unwrap();
    let (mut died, mut at) = (0, 0);
    loop {
        let memory = Arc::new(whole.fork());
        let disk = FaultyDisk::new(memory.clone(), FaultRates::default(), 3);
        memory.kill();
        let first = plan(&disk, &world.layout).unwrap();
        let cut = BTreeMap::from([(Gid(2), first.closed[0].last_index)]);
        disk.fail_write_in(at);
        let done = carry_out(&disk, &world.layout, first, Now::default());
        match at % 2 {
            0 => disk.kill(),
            _ => disk.power_cut(Cut::LoseAll),
        }
        if done.is_err() {
            died += 1;
            let second = planned(&memory, &world);
            assert!(second.closed.iter().all(|g| g.gid == Gid(2)), "write {at}: {:?}", second.closed);
            let again = second.does_something();
            let done = carry_out(&*memory, &world.layout, second, Now::default());
            assert!(done.is_ok() || !again, "write {at}: {done:?}");
        }
        assert_open(&world, &memory, &cut);
        if done.is_ok() {
            break;
        }
        at += 1;
    }
    assert!(died > 20, "a repair has {died} writes");
}

/// One place of a group's files: a bit flipped, a range zeroed, a file cut, or a table gone with a part of its batches.
fn damage_files(rng: &mut Rng, disk: &MemoryDisk, gid: Gid) -> Option<String> {
    let dir = format!("p/{:016x}/", gid.0);
    let files: Vec<(String, Vec<u8>)> = disk
        .files()
        .into_iter()
        .filter(|(n, b)| n.contains(&dir) && !b.is_empty())
        .filter(|(n, _)| [".log", ".ext"].iter().any(|e| n.ends_with(e)))
        .collect();
    if files.is_empty() {
        return None;
    }
    let (name, bytes) = &files[rng.below(files.len() as u64) as usize];
    let at = rng.below(bytes.len() as u64) as usize;
    match rng.below(4) {
        0 => disk.damage(name, |b| b[at] ^= 1 << (at % 8)),
        1 => disk.damage(name, |b| b[at..].iter_mut().take(700).for_each(|b| *b = 0)),
        2 => disk.damage(name, |b| b.truncate(at)),
        _ => {
            disk.damage(name, |b| b[at] ^= 1);
            let table = format!("{}.ent", name.rsplit_once('.').unwrap().0);
            disk.damage(&table, |b| {
                let len = b.len();
                b[len / 2] ^= 4;
                b[len / 3] ^= 4;
            });
        }
    }
    Some(name.clone())
}

/// Everything that the report does not name is there, in its place; nothing of what it names is, and no bad byte.
fn assert_cut(world: &World, disk: &MemoryDisk, closed: &[crate::repair::ClosedGroup], about: &str) {
    disk.kill();
    let found = recover_whole(disk, &world.layout, NEW).unwrap();
    for (gid, model) in &world.groups {
        let (group, files) = found.groups.iter().find(|(g, _)| g.gid == *gid).unwrap();
        assert!(files.quarantine.is_none(), "{about}: group {gid} is closed: {:?}", group.verdict);
        let got = contents(disk, &world.layout, group);
        let plan = closed.iter().find(|c| c.gid == *gid);
        let end = plan.map_or(Offset(u64::MAX), |c| c.end);
        let lost = |e: &NewEntry| {
            plan.is_some_and(|c| c.lost.offsets.iter().any(|r| r.from <= e.base_offset && e.end_offset() <= r.to))
        };
        let first = group.first_index;
        let mut missing = 0;
        for entry in model.now().into_iter().filter(|e| e.index >= first && e.end_offset() <= end) {
            match got.iter().find(|e| e.index == entry.index) {
                Some(e) => {
                    assert!(entry.count == 0 || !lost(&entry), "{about}: group {gid}: {} is named lost", entry.index);
                    assert_eq!(
                        (&e.body, e.base_offset, e.term, e.kind),
                        (&entry.body, entry.base_offset, entry.term, entry.kind),
                        "{about}"
                    );
                }
                None => {
                    assert!(
                        plan.is_some() && (entry.count == 0 || lost(&entry)),
                        "{about}: group {gid}: {} is gone",
                        entry.index
                    );
                    missing += 1;
                }
            }
        }
        let told = plan.map_or(0, |c| c.lost.entries);
        assert!(missing <= told, "{about}: group {gid}: {missing} entries are gone, {told} were told of");
    }
    disk.kill();
    let checked = check(disk, &world.layout).unwrap();
    assert!(checked.worst().is_none_or(|w| w <= Weight::Warning), "{about}: {:?}", checked.findings);
}

#[test]
fn what_is_damaged_in_files_is_cut_out_and_the_rest_is_served() {
    let (mut cut, mut closed_ones, mut refused) = (0, 0, 0);
    for (seed, n) in (30..34).flat_map(|seed| (0..9u64).map(move |n| (seed, n))) {
        let world = busy(seed);
        let disk = world.disk.memory().fork();
        let mut rng = Rng::new(seed * 100 + n);
        let gid = Gid(1 + n % 3);
        let Some(name) = damage_files(&mut rng, &disk, gid) else { continue };
        let about = format!("seed {seed} n {n} {name}");
        if n % 2 == 0 {
            start(&disk, &world);
        }
        let before = disk.files();
        let look = planned(&disk, &world);
        assert_eq!(before, disk.files(), "{about}: a look changes nothing");
        let closed = look.closed.clone();
        assert!(closed.iter().all(|c| c.gid == gid), "{about}: {closed:?}");
        refused += closed.iter().filter(|c| c.refused.is_some()).count();
        cut += closed.iter().filter(|c| c.lost.entries + c.lost.contexts > 0).count();
        closed_ones += closed.iter().filter(|c| c.verdict == Verdict::Damaged).count();
        carry_out(&disk, &world.layout, look, Now::default()).unwrap();
        let (_, bytes) = before.iter().find(|(n, _)| *n == name).unwrap();
        let kept = |(n, b): &(String, Vec<u8>)| n.starts_with(&name) && b.starts_with(bytes);
        assert!(closed.is_empty() || disk.files().iter().any(kept), "{about}: the damaged file is not kept");
        assert_cut(&world, &disk, &closed, &about);
        disk.power_cut(Cut::LoseAll, &mut Rng::new(1));
        assert_cut(&world, &disk, &closed, &about);
        let again = planned(&disk, &world);
        assert!(!again.does_something(), "{about}: {:?}", again.closed);
    }
    assert!(cut > 10 && closed_ones > 3 && refused == 0, "{cut} cut, {closed_ones} closed, {refused} refused");
}

/// A repair that cuts may die at any write, in any way: run again, it comes to the same.
#[test]
fn a_repair_that_cuts_and_dies_can_be_run_again() {
    let (mut died, mut cases) = (0, 0);
    for (seed, n) in [(31u64, 1u64), (32, 2), (33, 3)] {
        let world = busy(seed);
        let whole = world.disk.memory().fork();
        let mut rng = Rng::new(seed * 100 + n);
        damage_files(&mut rng, &whole, Gid(1 + n % 3)).unwrap();
        let first = planned(&whole.fork(), &world).closed;
        if !first.iter().any(|c| c.lost.entries > 0) {
            continue;
        }
        cases += 1;
        let mut at = 0;
        loop {
            let memory = Arc::new(whole.fork());
            let disk = FaultyDisk::new(memory.clone(), FaultRates::default(), at);
            memory.kill();
            let look = plan(&disk, &world.layout).unwrap();
            disk.fail_write_in(at);
            let done = carry_out(&disk, &world.layout, look, Now::default());
            match at % 2 {
                0 => disk.kill(),
                _ => disk.power_cut(Cut::LoseAll),
            }
            if done.is_err() {
                died += 1;
                let second = planned(&memory, &world);
                let again = second.does_something();
                let done = carry_out(&*memory, &world.layout, second, Now::default());
                assert!(done.is_ok() || !again, "write {at}: {done:?}");
            }
            assert_cut(&world, &memory, &first, &format!("seed {seed} write {at}"));
            if done.is_ok() {
                break;
            }
            // Every one at first, then fewer: the later steps are those of any repair.
            at += 1 + at / 12;
        }
    }
    assert!(died > 20 && cases > 0, "{cases} repairs have {died} writes");
}
