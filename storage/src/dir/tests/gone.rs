//! Groups that come and go leave nothing in the machines' memory.

use super::*;

/// What journal, segment writer and window keep of groups.
fn kept(world: &World) -> Vec<(&'static str, usize)> {
    [world.dir.journal.names_groups(), world.dir.segments.names_groups(), world.dir.relaxed.names_groups()].concat()
}

#[test]
fn of_groups_that_are_gone_nothing_is_kept() {
    let mut world = World::new(71);
    let mut next = 3;
    let mut bases = Vec::new();
    for round in 0..12 {
        // Two come, are written (every fourth is relaxed), and go.
        let new: Vec<Gid> = (0..2).map(|n| Gid(next + 1 + n)).collect();
        next += 2;
        for gid in new.iter().copied() {
            world.groups.insert(gid, Model { term: 1, ..Model::default() });
            world.tell(DirEvent::Create(gid, spec(gid.0)));
            if gid.0 % 4 == 0 {
                world.tell(DirEvent::Durability(gid, Durability::Relaxed(Window::default())));
            }
        }
        world.settle();
        for n in 0..40 {
            match n % 4 {
                0 => world.append_to(new[0]),
                1 => world.append_to(new[1]),
                2 => world.append(),
                _ => world.complete_one(),
            }
        }
        if round % 2 == 0 {
            world.settle();
        }
        for gid in new.iter().copied() {
            world.groups.get_mut(&gid).unwrap().dropped = true;
            world.tell(DirEvent::Batch(JournalBatch { gid, drop: true, ..JournalBatch::default() }));
        }
        world.settle();
        world.clock += 120_000;
        world.tell(DirEvent::Wake);
        world.settle();
        new.iter().for_each(|gid| drop(world.groups.remove(gid)));
        // The journal comes round, so that nothing of them is in any of its files.
        for _ in 0..40 {
            world.append();
            world.commit();
            world.settle();
        }
        bases.push(kept(&world));
    }
    let most = |at: usize, of: &[Vec<(&'static str, usize)>]| of.iter().map(|k| k[at].1).max().unwrap_or(0);
    for at in 0..bases[0].len() {
        let (early, late) = (most(at, &bases[..4]), most(at, &bases[8..]));
        assert!(late <= early + 3, "{}: {early} at most in the first rounds, {late} in the last", bases[0][at].0);
    }
}
