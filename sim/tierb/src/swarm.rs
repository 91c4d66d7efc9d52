//! What one seed draws: how many clients of which sort, how the disk and the network behave, which faults come how often.

use catchwater_base::Rng;

/// Rates and sizes of one run.
#[derive(Clone, Debug)]
pub struct Swarm {
    pub idempotent: u64,
    pub plain: u64,
    pub consumers: u64,
    pub members: u64,
    pub admins: u64,
    pub topics: u64,
    pub partitions: u64,
    /// Batches one producer has under way.
    pub pipeline: u64,
    pub records_max: u64,
    pub value_bytes_max: u64,
    /// A producer rests up to so long between two sends, ms.
    pub rest_ms: u64,
    pub journal_file_bytes: u64,
    pub segment_bytes: u32,
    pub sync_ms: u64,
    pub link_us: (u64, u64),
    /// Faults come so far apart, ms.
    pub fault_ms: (u64, u64),
    /// Which faults come, by their number in `nemesis`.
    pub faults: Vec<u64>,
    pub safety_ms: u64,
}

impl Swarm {
    pub fn draw(seed: u64, sorts: u64) -> Swarm {
        let mut rng = Rng::new(seed ^ 0x7469_6572_6221);
        let mut faults: Vec<u64> = (0..sorts).filter(|_| rng.chance(600_000)).collect();
        if faults.is_empty() {
            faults.push(rng.below(sorts));
        }
        let quick = rng.chance(300_000);
        Swarm {
            idempotent: rng.between(1, 3),
            plain: rng.between(0, 2),
            consumers: rng.between(1, 3),
            members: rng.between(0, 3),
            admins: rng.between(0, 1),
            topics: rng.between(1, 2),
            partitions: rng.between(1, 3),
            pipeline: rng.between(1, 5),
            records_max: rng.between(1, 8),
            value_bytes_max: if rng.chance(200_000) { 3_000 } else { 300 },
            rest_ms: if quick { 20 } else { 1 + rng.between(20, 400) },
            journal_file_bytes: [64 << 10, 256 << 10, 1 << 20][rng.below(3) as usize],
            segment_bytes: [16 << 10, 64 << 10, 1 << 20][rng.below(3) as usize],
            sync_ms: [1, 5, 20][rng.below(3) as usize],
            link_us: [(100, 500), (500, 3_000), (5_000, 40_000)][rng.below(3) as usize],
            fault_ms: if rng.chance(300_000) { (50, 1_500) } else { (1_000, 12_000) },
            faults,
            safety_ms: rng.between(40_000, 160_000),
        }
    }
}
