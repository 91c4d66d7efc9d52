//! Reads that fail while segments are sealed and cut: the directory goes on, and loses nothing.

use super::*;

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
            world.tell(DirEvent::Trim(gid, last.base_offset));
        }
        world.settle();
        assert_eq!(world.dir.segments.unreadable_groups(), 0, "seed {seed}: retention takes what cannot be read");
        world.crash();
        restarts += world.restarts;
        world.close();
    }
    assert!(unread > 100 && restarts > 20, "{unread} steps with a part that cannot be read, {restarts} restarts");
    // A cut that leaves no record behind, or nothing queued that says where it ends.
    assert!(stops <= 8, "{stops} stops");
}
