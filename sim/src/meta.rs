//! The simulator's own promises: equal seeds give equal runs, different ones do not, and faults really happen.

use crate::run;

#[test]
fn the_same_seed_twice_gives_the_same_trace() {
    for (seed, voters) in [(1, 1), (2, 3)] {
        let (a, b) = (run(seed, voters), run(seed, voters));
        assert_eq!((a.trace, a.steps, a.acked), (b.trace, b.steps, b.acked), "seed {seed} with {voters} voters");
    }
    assert_ne!(run(5, 3).trace, run(6, 3).trace);
}

#[test]
fn a_few_seeds_hold_under_faults() {
    let (mut crashes, mut power, mut cuts, mut acked, mut elections) = (0, 0, 0, 0, 0);
    for seed in 0..5 {
        for voters in [1, 3] {
            let out = run(seed, voters);
            assert_eq!(out.violation, None, "seed {seed} with {voters} voters");
            crashes += out.crashes;
            power += out.power_cuts;
            cuts += out.cuts;
            acked += out.acked;
            elections += out.elections;
        }
    }
    // A run without faults is not green.
    assert!(crashes > 20 && power > 5 && cuts > 0 && acked > 500 && elections > 20);
}
