//! Equal seeds, equal runs; each sort of fault alone.

use crate::nemesis::NAMES;
use crate::run::{run, run_swarm};
use crate::swarm::Swarm;

#[test]
fn equal_seeds_give_equal_runs() {
    let (one, two) = (run(1), run(1));
    assert_eq!(one, two);
    assert_eq!(one.violations, Vec::<String>::new());
    assert_ne!(run(2).trace, one.trace);
}

#[test]
fn each_sort_of_fault_alone_breaks_nothing() {
    for sort in 0..NAMES.len() as u64 {
        let mut swarm = Swarm::draw(sort, NAMES.len() as u64);
        (swarm.faults, swarm.fault_ms, swarm.safety_ms) = (vec![sort], (200, 2_000), 20_000);
        let out = run_swarm(sort, swarm);
        assert_eq!(out.violations, Vec::<String>::new(), "{}", NAMES[sort as usize]);
        assert!(out.acked > 0 && out.polled > 0, "{}: {out}", NAMES[sort as usize]);
    }
}
