//! A group whose directory, or what was in it, is removed while nothing runs: it never goes on as if it were new. Either the
//! journal still has all of it, or it stays closed until a repair; and that gives no offset a second time.

use super::*;
use crate::check::check;
use crate::repair::{ClosedGroup, carry_out, let_go, plan};

#[derive(Default, Debug)]
struct Seen {
    /// Opened with all they had; began with what the journal had; had nobody left to say whose they are; nothing was left.
    whole: u32,
    begun: u32,
    adopted: u32,
    refused: u32,
    /// Closed though the journal had the record of their making.
    made: u32,
}

/// One more group, made early and written late, and then the others alone until the journal has come round.
fn a_late_one(world: &mut World, gid: Gid, between: u64, behind: u64) {
    world.groups.insert(gid, Model { term: 1, ..Model::default() });
    world.tell(DirEvent::Create(gid, spec(gid.0)));
    world.journal_only();
    let others = |world: &mut World, n: u64| {
        for _ in 0..n {
            world.append();
            world.commit();
            world.journal_only();
            if world.dir.used_percent() >= 50 {
                // All but the late one go to files.
                world.tell(DirEvent::Wake);
                for _ in 0..40 {
                    world.complete_one();
                }
            }
        }
    };
    others(world, between);
    for _ in 0..3 {
        world.append_to(gid);
    }
    others(world, behind);
    world.settle();
}

fn remove(disk: &MemoryDisk, world: &World, gid: Gid, with_dir: bool) {
    let dir = crate::segment::group_dir(&world.layout.groups(), gid);
    let inside = format!("{dir}/");
    for (name, _) in disk.files().into_iter().filter(|(name, _)| name.starts_with(&inside)) {
        disk.unlink(&name).unwrap();
    }
    if disk.list(&dir).is_ok() {
        disk.sync_dir(&dir).unwrap();
        if with_dir {
            disk.run(DiskOp::RemoveDir { path: dir.as_str().into() }).unwrap();
            disk.sync_dir(&world.layout.groups()).unwrap();
        }
    }
}

/// The group is open and ends where it ended; what is missing of it is missing in front.
fn assert_tail(disk: &MemoryDisk, world: &World, closed: Option<&ClosedGroup>, gid: Gid, about: &str) {
    let found = recover_whole(disk, &world.layout, NEW).unwrap();
    let (group, files) = found.groups.iter().find(|(g, _)| g.gid == gid).unwrap();
    assert!(files.quarantine.is_none(), "{about}: {:?}", group.verdict);
    assert_eq!(group.spec.topic, spec(gid.0).topic, "{about}");
    let (got, now) = (contents(disk, &world.layout, group), world.groups[&gid].now());
    assert_eq!(got.last(), now.last(), "{about}: offsets would be given again");
    let first = got.first().map_or(EntryIndex(1), |e| e.index);
    let want: Vec<_> = now.into_iter().filter(|e| e.index >= first).collect();
    assert_eq!(got, want, "{about}");
    let Some(closed) = closed else {
        assert_eq!(first, EntryIndex(1), "{about}: something is missing, and nobody said so");
        return;
    };
    let begins = got[0].base_offset;
    assert_eq!((group.first_index, group.log_start, closed.log_start), (first, begins, begins), "{about}");
    let lost: Vec<_> = closed.lost.offsets.iter().map(|r| (r.from, r.to)).collect();
    assert_eq!(lost, if begins > Offset::ZERO { vec![(Offset::ZERO, begins)] } else { vec![] }, "{about}");
    assert!(closed.whole_end && closed.end == got.last().unwrap().end_offset(), "{about}");
}

#[test]
fn a_group_whose_files_are_gone_never_gives_an_offset_twice() {
    let mut seen = Seen::default();
    for (n, (seed, steps)) in (7..11).flat_map(|s| [20, 120, 400].map(|steps| (s, steps))).enumerate() {
        let mut world = busy_with(World::new(seed), steps);
        if n % 4 == 3 {
            world.settle(); // everything is in files, and the checkpoint is said to be there
            world.clock += 120_000;
            world.tell(DirEvent::Wake);
            world.settle();
            world.mark(n % 8 == 3, world.last_lsn.max(world.noted_lsn).max(world.began_lsn), world.noted_lsn);
        }
        if n % 2 == 1 {
            a_late_one(&mut world, Gid(4), 10 + 11 * n as u64, 30 + 9 * n as u64);
        }
        for gid in world.groups.keys().copied() {
            if world.groups[&gid].now().is_empty() {
                continue;
            }
            let about = format!("seed {seed}, {steps} steps, group {gid}");
            let disk = world.disk.memory().fork();
            match n % 3 {
                0 => disk.power_cut(Cut::LoseAll, &mut Rng::new(1)),
                _ => disk.kill(),
            }
            remove(&disk, &world, gid, n % 2 == 0);
            if n % 5 > 1 {
                // A start came before anybody looked, and another one.
                for _ in 0..n % 5 - 1 {
                    disk.kill();
                    let found = recover_whole(&disk, &world.layout, NEW).unwrap();
                    quarantine(&disk, &world.layout, &found.groups).unwrap();
                    settle(&disk, &world.layout, &found.leftovers, &found.journal.free).unwrap();
                }
            }
            disk.kill();
            let mut look = plan(&disk, &world.layout).unwrap();
            let made = !look.lacks_owners();
            seen.adopted += u32::from(!made);
            look.adopt(&BTreeMap::from([(gid, spec(gid.0))]));
            assert!(look.closed.iter().all(|c| c.gid == gid), "{about}: {:?}", look.closed);
            let Some(closed) = look.closed.first().cloned() else {
                let_go(&disk, &world.layout);
                assert_tail(&disk, &world, None, gid, &about);
                seen.whole += 1;
                continue;
            };
            seen.made += u32::from(made);
            let_go(&disk, &world.layout);
            let checked = check(&disk, &world.layout).unwrap();
            assert!(checked.findings.iter().any(|f| f.kind == "gone" && f.gid == Some(gid)), "{about}");
            if closed.refused.is_some() {
                assert_eq!(closed.kept, 0, "{about}: there is something left of it");
                seen.refused += 1;
                continue;
            }
            disk.kill();
            let mut look = plan(&disk, &world.layout).unwrap();
            look.adopt(&BTreeMap::from([(gid, spec(gid.0))]));
            carry_out(&disk, &world.layout, look, Now::default()).unwrap();
            for _ in 0..2 {
                disk.kill();
                assert_tail(&disk, &world, Some(&closed), gid, &about);
                disk.power_cut(Cut::LoseAll, &mut Rng::new(1));
            }
            seen.begun += u32::from(closed.log_start > Offset::ZERO);
        }
    }
    assert!(seen.whole > 3 && seen.begun > 9 && seen.adopted > 3 && seen.refused > 0 && seen.made > 1, "{seen:?}");
}

/// It may die at any write, in any way: run again, it comes to the same.
#[test]
fn a_repair_of_a_group_whose_files_are_gone_can_die_and_be_run_again() {
    let (world, gid) = (busy_with(World::new(9), 900), Gid(1));
    let whole = world.disk.memory().fork();
    whole.kill();
    remove(&whole, &world, gid, true);
    let owners = BTreeMap::from([(gid, spec(gid.0))]);
    let (mut died, mut at) = (0, 0);
    loop {
        let memory = Arc::new(whole.fork());
        let disk = FaultyDisk::new(memory.clone(), FaultRates::default(), at);
        memory.kill();
        let mut look = plan(&disk, &world.layout).unwrap();
        look.adopt(&owners);
        let first = look.closed[0].clone();
        assert!(first.log_start > Offset::ZERO && first.refused.is_none(), "{first:?}");
        disk.fail_write_in(at);
        let done = carry_out(&disk, &world.layout, look, Now::default());
        match at % 2 {
            0 => disk.kill(),
            _ => disk.power_cut(Cut::LoseAll),
        }
        if done.is_err() {
            died += 1;
            memory.kill();
            let mut second = plan(&*memory, &world.layout).unwrap();
            second.adopt(&owners);
            let again = second.does_something();
            let done = carry_out(&*memory, &world.layout, second, Now::default());
            assert!(done.is_ok() || !again, "write {at}: {done:?}");
        }
        memory.kill();
        assert_tail(&memory, &world, Some(&first), gid, &format!("write {at}"));
        if done.is_ok() {
            break;
        }
        at += 1;
    }
    assert!(died > 20, "a repair has {died} writes");
}

/// Half of the cluster's own log would be another cluster: nobody goes on with that.
#[test]
fn the_clusters_own_log_is_not_begun_in_its_middle() {
    let mut refused = 0;
    for behind in [20, 60, 120] {
        let mut world = World::new(behind);
        a_late_one(&mut world, Gid(0), 5, behind);
        (0..3).for_each(|_| world.append_to(Gid(0)));
        world.settle();
        let disk = world.disk.memory().fork();
        disk.kill();
        remove(&disk, &world, Gid(0), true);
        disk.kill();
        let look = plan(&disk, &world.layout).unwrap();
        let Some(closed) = look.closed.iter().find(|c| c.gid == Gid(0)) else { continue };
        assert!(closed.refused.is_some(), "{closed:?}");
        refused += 1;
    }
    assert!(refused > 0);
}
