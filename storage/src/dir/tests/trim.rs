//! A log start that is ahead of the files: a follower hears that entries are committed before its own journal has them.

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
    world.tell(DirEvent::Trim(gid, last.end_offset().plus(50)));
    world.settle();
    assert!(logs(&world) < 3, "what is there and lies below the log start goes");
    world.disk.power_cut(Cut::LoseAll);
    let found = recover(&*world.disk, &world.layout, NEW).unwrap();
    let (group, files) = found.groups.iter().find(|(g, _)| g.gid == gid).unwrap();
    let end = group.journaled.last().map(NewEntry::end_offset);
    let end = end
        .or(group.segments.last().and_then(|s| s.rows.last()).map(|r| r.base_offset.plus(u64::from(r.count))))
        .unwrap_or(files.first_offset);
    assert_eq!(group.verdict, Verdict::Ok);
    assert_eq!(end, last.end_offset(), "nothing durable is lost");
    assert!(group.log_start <= end, "the log starts at {} and ends at {end}", group.log_start);
}
