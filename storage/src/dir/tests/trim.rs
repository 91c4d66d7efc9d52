//! Log starts that are ahead of the files (a follower hears that entries are committed before its own journal has them), and
//! retention on a full disk.

use super::*;

#[test]
fn a_manifest_claims_no_log_start_beyond_what_it_has() {
    let mut world = World::new(11);
    let gid = Gid(1);
    let logs = |world: &World| {
        let names = world.disk.memory().files();
        names.iter().filter(|(n, _)| n.contains("0000000000000001/") && n.ends_with(".log")).count()
    };
    // Several segments, and the newest one is open.
    while logs(&world) < 3 {
        world.append_to(gid);
        world.settle();
    }
    let last = world.groups[&gid].now().last().unwrap().clone();
    world.groups.get_mut(&gid).unwrap().committed = last.index.0;
    world.tell(DirEvent::Committed(gid, last.index));
    world.settle();
    // The others have all of 50 records more, and their leader has let them go.
    world.tell(DirEvent::Trim(gid, last.end_offset().plus(50), None));
    world.settle();
    assert!(logs(&world) < 3, "what is there and lies below the log start goes");
    world.disk.power_cut(Cut::LoseAll);
    let found = recover_whole(&*world.disk, &world.layout, NEW).unwrap();
    let (group, files) = found.groups.iter().find(|(g, _)| g.gid == gid).unwrap();
    let end = group.journaled.last().map(NewEntry::end_offset);
    let end = end
        .or(group.segments.last().and_then(|s| s.rows.last()).map(|r| r.base_offset.plus(u64::from(r.count))))
        .unwrap_or(files.first_offset);
    assert_eq!(group.verdict, Verdict::Ok);
    assert_eq!(end, last.end_offset(), "nothing durable is lost");
    assert!(group.log_start <= end, "the log starts at {} and ends at {end}", group.log_start);
}

/// What waits for room may be the seal of the segment that retention wants to let go.
#[test]
fn a_segment_that_waits_for_room_to_be_sealed_goes_unsealed() {
    let mut world = World::new(5);
    let gid = Gid(1);
    let names = |world: &World| -> Vec<String> {
        let all = world.disk.memory().files();
        let mine = all.into_iter().map(|(n, _)| n).filter(|n| n.contains("0000000000000001/") && n.ends_with(".log"));
        mine.collect()
    };
    while names(&world).len() < 3 {
        world.append_to(gid);
        world.settle();
    }
    let last = world.groups[&gid].now().last().unwrap().clone();
    world.disk.set_rates(FaultRates { no_space: 1_000_000, ..FaultRates::default() });
    world.groups.get_mut(&gid).unwrap().committed = last.index.0;
    world.tell(DirEvent::Committed(gid, last.index));
    while !world.flight.is_empty() {
        world.complete_one();
    }
    assert!(world.dir.segments.is_stalled(), "a seal waits");
    let before = names(&world);
    world.disk.set_rates(FaultRates::default());
    world.groups.get_mut(&gid).unwrap().trimmed = last.base_offset;
    world.tell(DirEvent::Trim(gid, last.base_offset, None));
    while !world.flight.is_empty() {
        world.complete_one();
    }
    let after = names(&world);
    assert!(after.len() < before.len() && world.dir.segments.is_stalled(), "{before:?}, then {after:?}");
    // A power cut now, or going on: either way all that was not let go is there.
    for cut in [true, false] {
        if cut {
            world.disk.power_cut(Cut::LoseAll);
            world.restart(false);
        }
        world.waiting = true;
        world.settle();
        assert!(!world.dir.segments.is_stalled());
        for _ in 0..20 {
            world.append_to(gid);
            world.settle();
        }
        world.close();
    }
}
