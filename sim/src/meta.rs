//! The simulator's own promises: equal seeds give equal runs, different ones do not, and faults really happen.

use crate::swarm::{Profile, Swarm};
use crate::world::run_swarm;
use crate::{Totals, run};

/// Row S4 of the scoreboard.
const SEEDS: u64 = 50;

#[test]
fn the_same_seed_twice_gives_the_same_trace() {
    let mut equal = 0;
    for seed in 0..SEEDS {
        // Short runs of every profile and size.
        let mut swarm = Swarm::draw(seed, 0, None);
        swarm.chaos = swarm.chaos.min(2_000_000);
        let (a, b) = (run_swarm(seed, swarm.clone()), run_swarm(seed, swarm));
        assert_eq!((a.trace, a.steps, a.acked), (b.trace, b.steps, b.acked), "seed {seed} with {} voters", a.voters);
        equal += 1;
    }
    println!("same seed twice: {equal} of {SEEDS} equal");
    assert_ne!(run(5, 3).trace, run(6, 3).trace);
}

#[test]
fn a_few_seeds_of_every_profile_hold_under_faults() {
    let mut totals = Totals::default();
    for (n, profile) in Profile::ALL.into_iter().enumerate() {
        for seed in 0..3 {
            for voters in [1, 3] {
                // Neither has a lone voter, and a run of Behind takes ten times as long as others.
                let again = matches!(profile, Profile::Several | Profile::Behind) && voters == 1;
                if again || (profile == Profile::Behind && seed > 0) {
                    continue;
                }
                let seed = seed + 10 * n as u64;
                let out = run_swarm(seed, Swarm::draw(seed, voters, Some(profile)));
                assert_eq!(out.violation, None, "seed {seed} with {voters} voters, {profile:?}");
                totals.add(&out);
            }
        }
    }
    println!("{totals}");
    // A run without faults is not green.
    assert!(totals.crashes > 100 && totals.power_cuts > 30 && totals.cuts > 5 && totals.acked > 2_000);
    assert!(totals.elections > 100 && totals.damages > 5 && totals.disk_errors > 3);
    assert!(totals.txns > 20 && totals.compacted > 5 && totals.switches > 5 && totals.remade > 5);
}
