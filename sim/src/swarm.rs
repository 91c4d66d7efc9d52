//! Pure. What a seed means: each run draws its own sizes, rates and habits, so that rare mixes happen at all.

use crate::engine::Micros;
use catchwater_base::Rng;

/// Rates are per million.
#[derive(Clone, Debug)]
pub struct Swarm {
    pub voters: usize,
    pub groups: usize,
    pub clients: usize,
    pub captures: usize,
    /// Length of the phase with faults.
    pub chaos: Micros,
    pub drop: u32,
    pub duplicate: u32,
    pub delay: (Micros, Micros),
    pub delay_tail: u32,
    pub fsync: (Micros, Micros),
    pub fsync_tail: u32,
    /// One tick per node.
    pub ticks: Vec<Micros>,
    /// Mean time between faults of the nemesis.
    pub fault_every: Micros,
    /// Share of crashes that are power cuts.
    pub power: u32,
    pub down: (Micros, Micros),
    /// Crash right after a vote was granted, after an append was handed to the disk, after a reply.
    pub crash_after_vote: u32,
    pub crash_after_append: u32,
    pub crash_after_reply: u32,
    pub think: (Micros, Micros),
    /// Sizes of the storage engine: small, so that files roll and are used again within a run.
    pub journal_file_bytes: u64,
    pub segment_bytes: u32,
    pub tail_bytes: u64,
    pub snap_bytes: u64,
    /// Padding of a record's value: batches from one sector to many.
    pub value_bytes: usize,
    /// Writes and syncs that fail once.
    pub write_error: u32,
}

impl Swarm {
    pub fn draw(seed: u64, voters: usize) -> Swarm {
        let mut r = Rng::new(seed ^ 0x5377_6172_6d00 ^ voters as u64);
        let rate = |r: &mut Rng, max: u32| if r.chance(400_000) { 0 } else { r.below(u64::from(max) + 1) as u32 };
        let delay_max = r.between(300, 20_000);
        let fsync_max = r.between(100, 15_000);
        let lively = r.chance(300_000);
        Swarm {
            voters,
            groups: r.between(1, 2) as usize,
            clients: r.between(1, 4) as usize,
            captures: r.below(2) as usize,
            chaos: r.between(6_000_000, 12_000_000),
            drop: rate(&mut r, 80_000),
            duplicate: rate(&mut r, 40_000),
            delay: (100, delay_max),
            delay_tail: rate(&mut r, 10_000),
            fsync: (50, fsync_max),
            fsync_tail: rate(&mut r, 5_000),
            ticks: (0..voters).map(|_| r.between(7_000, 13_000)).collect(),
            fault_every: r.between(150_000, 2_000_000),
            power: r.below(1_000_001) as u32,
            down: if lively { (1_000, 60_000) } else { (20_000, 1_500_000) },
            crash_after_vote: if r.chance(500_000) { r.below(600_000) as u32 } else { 0 },
            crash_after_append: rate(&mut r, 3_000),
            crash_after_reply: rate(&mut r, 2_000),
            think: (100, r.between(500, 40_000)),
            journal_file_bytes: 4096 * r.between(16, 64),
            segment_bytes: r.between(2_000, 40_000) as u32,
            value_bytes: if r.chance(500_000) { 0 } else { r.below(1_500) as usize },
            snap_bytes: r.between(1_000, 30_000),
            write_error: if r.chance(300_000) { r.below(300) as u32 } else { 0 },
            tail_bytes: if r.chance(500_000) { 0 } else { r.below(20_000) },
        }
    }
}
