//! Seeds that once found something. A seed means the same only as long as what is drawn from it stays the same, so each
//! names what it found; the story itself lives on as a unit test or a planted bug where one could be written.

use crate::swarm::{Load, Swarm};
use crate::world::run_swarm;

/// (seed, voters as given, what it found)
const KNOWN: [(u64, usize, &str); 6] = [
    (100_055, 0, "the checker expected of a late winner of an old term what a newer term had acknowledged"),
    (200_478, 0, "one damaged manifest that named a trimmed segment kept the whole directory from starting"),
    (300_011, 0, "a snapshot after a restart carried members of before the restart"),
    (310_020, 0, "the same, with members that had moved twice"),
    (3_931, 0, "a follower's manifest and snapshot said a log start beyond the entries that it had made durable"),
    (610_049, 0, "a sync that failed while the directory was made left a dir.meta that only the page cache had"),
];

#[test]
fn seeds_that_once_found_something_are_silent() {
    for (seed, voters, what) in KNOWN {
        // They are older than what transactions and compaction add to a run.
        let out = run_swarm(seed, Swarm { load: Load::default(), ..Swarm::draw(seed, voters, None) });
        assert_eq!(out.violation, None, "seed {seed}: {what}");
    }
}
