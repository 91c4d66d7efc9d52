//! Pure. What a seed means: each run draws its own sizes, rates and habits, so that rare mixes happen at all.

use crate::engine::Micros;
use catchwater_base::Rng;
use catchwater_storage::relaxed::Window;

/// What a run leans towards. The seed draws it; a hunt for one planted bug may ask for one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    /// As drawn.
    Mixed,
    /// Few writes, many elections: cuts, deaths right after a vote, leaders that step down.
    Churn,
    /// Damage to synced bytes of disks at rest.
    Damage,
    /// Writes, syncs and reads that fail.
    Errors,
    /// Tiny files that roll all the time, and power cuts.
    Files,
    /// Members come and go.
    Moves,
    /// Damage to journals at rest: replicas that come back mute, or under a new id; followers behind the first index.
    Journals,
    /// Nothing but losses of power, in runs of well under a second: many seeds for their price.
    Power,
    /// Topics that are acknowledged from the page cache, and losses of power.
    Relaxed,
    /// The same with one voter, and the durability changes while topics are written.
    Switching,
    /// Transactions, in files that roll all the time.
    Txn,
    /// One voter whose topics are compacted while it writes, with transactions.
    Compact,
    /// Three or five voters compact, each by itself; members that lag, come, go, lose their journal or their page cache.
    Several,
    /// Topics are deleted while they are written, and others made in their place.
    Topics,
    /// One course of events again and again, see `plots.rs`.
    Votes,
    Amnesia,
    Majority,
    Fresh,
    OldTail,
    Overtaken,
    Behind,
}

impl Profile {
    pub const ALL: [Profile; 21] = [
        Profile::Mixed,
        Profile::Churn,
        Profile::Damage,
        Profile::Errors,
        Profile::Files,
        Profile::Moves,
        Profile::Journals,
        Profile::Power,
        Profile::Relaxed,
        Profile::Switching,
        Profile::Txn,
        Profile::Compact,
        Profile::Several,
        Profile::Topics,
        Profile::Votes,
        Profile::Amnesia,
        Profile::Majority,
        Profile::Fresh,
        Profile::OldTail,
        Profile::Overtaken,
        Profile::Behind,
    ];

    /// What a long run leans towards with this seed: every third has one that a seed does not draw by itself.
    pub fn of_hours(seed: u64) -> Option<Profile> {
        const NAMED: [Profile; 14] = [
            Profile::Journals,
            Profile::Relaxed,
            Profile::Switching,
            Profile::Txn,
            Profile::Compact,
            Profile::Several,
            Profile::Topics,
            Profile::Votes,
            Profile::Amnesia,
            Profile::Majority,
            Profile::Fresh,
            Profile::OldTail,
            Profile::Overtaken,
            Profile::Behind,
        ];
        seed.is_multiple_of(3).then(|| NAMED[(seed / 3 % 14) as usize])
    }

    /// How many voters a plot has.
    pub(crate) fn cast(self) -> Option<usize> {
        match self {
            Profile::Fresh => Some(5),
            Profile::Votes
            | Profile::Amnesia
            | Profile::Majority
            | Profile::OldTail
            | Profile::Overtaken
            | Profile::Behind => Some(3),
            _ => None,
        }
    }

    /// Of a disk at rest, only its journal is damaged: the node comes back mute, or under a new id.
    pub(crate) fn damages_journals(self) -> bool {
        matches!(self, Profile::Journals | Profile::Several)
    }

    /// A lone voter: it alone folds what compaction takes, and a change of durability is of one voter so far.
    fn is_of_one(self) -> bool {
        matches!(self, Profile::Switching | Profile::Compact)
    }
}

/// What clients do besides plain writes. Drawn apart from the rest, so that a seed without it is the run it was.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// Producers write in transactions, and end each with a marker.
    pub txn: bool,
    /// Records have keys, and logs are compacted.
    pub compact: Option<Compacting>,
    /// The durability of relaxed topics changes while they are written.
    pub switching: bool,
    /// Topics are deleted, and made again.
    pub topics: bool,
}

/// How logs are compacted.
#[derive(Clone, Copy, Debug)]
pub struct Compacting {
    pub dirty_ratio: f64,
    pub delete_retention_ms: u64,
    /// Between two looks at one node's logs.
    pub every: Micros,
}

/// Rates are per million.
#[derive(Clone, Debug)]
pub struct Swarm {
    pub profile: Profile,
    pub voters: usize,
    /// Nodes that hold nothing at first; members move to them.
    pub spares: usize,
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
    /// Writes and syncs that fail once, writes that find no space, reads that fail once.
    pub write_error: u32,
    pub no_space: u32,
    pub read_error: u32,
    /// Share of crashes after which synced bytes are damaged, as far as the atlas allows.
    pub damage: u32,
    /// Share of faults that stop a node's process for a while, or slow a link.
    pub stops: bool,
    /// All topics are relaxed, with this window; every second one is not, if `half`.
    pub relaxed: Option<Window>,
    pub half: bool,
    /// Bytes of one message to a follower at most; 0 = as the product has it.
    pub append_bytes: u64,
    pub load: Load,
}

impl Swarm {
    /// With so many voters (0 = as drawn) and that profile (`None` = as drawn).
    pub fn draw(seed: u64, voters: usize, profile: Option<Profile>) -> Swarm {
        let mut r = Rng::new(seed ^ 0x5377_6172_6d00 ^ voters as u64);
        let drawn = if voters == 0 { [1, 1, 3, 3, 3, 5, 2, 4][r.below(8) as usize] } else { voters };
        let voters = match profile {
            Some(profile) if voters == 0 && profile.is_of_one() => 1,
            Some(Profile::Several) => drawn.max(3) | 1,
            Some(profile) if profile.cast().is_some() => profile.cast().unwrap_or(drawn),
            _ => drawn,
        };
        let rate = |r: &mut Rng, max: u32| if r.chance(400_000) { 0 } else { r.below(u64::from(max) + 1) as u32 };
        let delay_max = r.between(300, 20_000);
        let fsync_max = r.between(100, 15_000);
        let lively = r.chance(300_000);
        let mut swarm = Swarm {
            profile: Profile::Mixed,
            voters,
            spares: 0,
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
            no_space: if r.chance(150_000) { r.below(300) as u32 } else { 0 },
            read_error: if r.chance(150_000) { r.below(1_000) as u32 } else { 0 },
            damage: if r.chance(250_000) { r.below(400_000) as u32 } else { 0 },
            stops: r.chance(400_000),
            relaxed: None,
            half: false,
            append_bytes: 0,
            load: Load::default(),
            tail_bytes: if r.chance(500_000) { 0 } else { r.below(20_000) },
        };
        // Journals and Relaxed are asked for by name.
        const DRAWN: [Profile; 9] = [
            Profile::Mixed,
            Profile::Mixed,
            Profile::Mixed,
            Profile::Mixed,
            Profile::Churn,
            Profile::Damage,
            Profile::Errors,
            Profile::Files,
            Profile::Moves,
        ];
        let drawn = DRAWN[r.below(9) as usize];
        swarm.lean(profile.unwrap_or(drawn), &mut r);
        swarm.load(&mut Rng::new(seed ^ 0x4c6f_6164 ^ ((voters as u64) << 56)));
        swarm
    }

    fn load(&mut self, r: &mut Rng) {
        let (alone, several) = (self.nodes() == 1, matches!(self.profile, Profile::Several | Profile::Behind));
        let (txn, compact) = match self.profile {
            Profile::Txn => (true, false),
            Profile::Compact | Profile::Several | Profile::Behind => (r.chance(500_000), true),
            Profile::Switching => {
                self.load.switching = alone;
                (false, false)
            }
            Profile::Topics => {
                self.load.topics = true;
                (false, false)
            }
            // Asked for by name, until enough seeds of them are behind us.
            _ => (false, false),
        };
        // Files so short that batches want longer ones.
        let plain = matches!(self.profile, Profile::Mixed | Profile::Files | Profile::Churn | Profile::Errors);
        if plain && r.chance(200_000) {
            self.journal_file_bytes = 4096 * r.between(4, 8);
            self.value_bytes = r.below(25_000) as usize;
        }
        // A loss of power that takes part of a transaction is nobody's load yet.
        self.load.txn = txn && self.relaxed.is_none_or(|_| !several);
        if compact && (alone || several) {
            self.load.compact = Some(Compacting {
                dirty_ratio: if r.chance(500_000) { 0.0 } else { r.below(60) as f64 / 100.0 },
                delete_retention_ms: r.between(50, 1_500),
                every: r.between(20_000, 200_000),
            });
        }
        if self.profile == Profile::Behind
            && let Some(compact) = &mut self.load.compact
        {
            // Tombstones whose time comes while one hears nothing; logs short enough to be read in each round.
            *compact =
                Compacting { delete_retention_ms: r.between(10, 200), every: r.between(60_000, 200_000), ..*compact };
        }
    }

    /// Nodes of the run.
    pub fn nodes(&self) -> usize {
        self.voters + self.spares
    }

    fn lean(&mut self, profile: Profile, r: &mut Rng) {
        self.profile = profile;
        if profile != Profile::Mixed {
            // Short and sparse: the fault is what the run is for.
            self.chaos = r.between(3_000_000, 6_000_000);
            self.fault_every = r.between(80_000, 400_000);
            self.down = (1_000, 150_000);
            self.clients = r.between(1, 2) as usize;
            self.think = (100, r.between(4_000, 40_000));
        }
        match profile {
            Profile::Mixed => {}
            Profile::Churn => {
                self.crash_after_vote = if r.chance(500_000) { r.between(100_000, 600_000) as u32 } else { 0 };
                self.fsync = (50, r.between(100, 15_000));
                // Flushes that take longer than an election: tails that are not durable when it is time to stand.
                self.fsync_tail = if r.chance(500_000) { r.below(150_000) as u32 } else { 0 };
                self.groups = 1;
                self.damage = 0;
            }
            Profile::Damage => {
                self.damage = r.between(300_000, 900_000) as u32;
                self.groups = 1;
                self.fsync_tail = 0;
            }
            Profile::Errors => {
                self.write_error = r.between(200, 3_000) as u32;
                self.read_error = r.below(1_000) as u32;
                self.no_space = r.below(1_000) as u32;
                self.power = 1_000_000;
            }
            Profile::Relaxed | Profile::Switching => {
                self.relaxed =
                    Some(Window { ms: r.between(20, 300), bytes: r.between(2_000, 60_000), records: u64::MAX });
                (self.groups, self.damage) = (1, 0);
                (self.write_error, self.no_space, self.read_error) = (0, 0, 0);
                self.power = r.between(500_000, 1_000_000) as u32;
                self.segment_bytes = r.between(500, 8_000) as u32;
                self.fault_every = r.between(80_000, 900_000);
            }
            Profile::Power => {
                self.chaos = r.between(150_000, 600_000);
                self.fault_every = r.between(15_000, 120_000);
                self.down = (500, 10_000);
                self.power = 1_000_000;
                self.groups = 1;
                (self.captures, self.clients) = (0, r.between(1, 3) as usize);
                self.ticks = (0..self.voters).map(|_| r.between(2_000, 4_000)).collect();
                (self.drop, self.duplicate, self.delay, self.delay_tail) = (0, 0, (50, r.between(100, 1_000)), 0);
                self.fsync = (20, r.between(50, 4_000));
                (self.fsync_tail, self.damage, self.stops) = (0, 0, false);
                (self.write_error, self.no_space, self.read_error) = (0, 0, 0);
                self.think = (50, r.between(100, 3_000));
                self.segment_bytes = r.between(500, 8_000) as u32;
                self.journal_file_bytes = 4096 * r.between(16, 24);
                self.crash_after_append = r.below(5_000) as u32;
                self.crash_after_reply = r.below(5_000) as u32;
            }
            Profile::Journals => {
                self.damage = r.between(500_000, 1_000_000) as u32;
                self.groups = 1;
                self.fsync_tail = 0;
                self.segment_bytes = r.between(500, 3_000) as u32;
                self.chaos = r.between(4_000_000, 8_000_000);
            }
            Profile::Moves => {
                self.spares = if self.voters > 1 { r.between(1, 2) as usize } else { 2 };
                self.ticks.extend((0..self.spares).map(|_| r.between(7_000, 13_000)));
                self.chaos = r.between(5_000_000, 10_000_000);
                self.damage = 0;
                self.crash_after_append = r.below(10_000) as u32;
                // Small ones: what a new member lacks is trimmed, and it begins behind a prefix snapshot.
                self.segment_bytes = r.between(500, 3_000) as u32;
            }
            Profile::Txn | Profile::Compact | Profile::Several => {
                self.segment_bytes = r.between(500, 3_000) as u32;
                self.snap_bytes = r.between(500, 5_000);
                self.think = (100, r.between(500, 5_000));
                self.value_bytes = r.below(200) as usize;
                self.fault_every = r.between(150_000, 900_000);
                self.captures = 0;
                (self.groups, self.damage) = (1, 0);
                (self.write_error, self.no_space, self.read_error) = (0, 0, 0);
                if profile == Profile::Several {
                    self.of_several(r);
                }
            }
            Profile::Topics => {
                self.segment_bytes = r.between(500, 3_000) as u32;
                self.snap_bytes = r.between(500, 5_000);
                self.journal_file_bytes = 4096 * r.between(16, 24);
                self.think = (100, r.between(500, 5_000));
                self.value_bytes = r.below(200) as usize;
                self.fault_every = r.between(60_000, 500_000);
                (self.captures, self.damage) = (0, 0);
                self.groups = r.between(1, 3) as usize;
            }
            Profile::Votes
            | Profile::Amnesia
            | Profile::Majority
            | Profile::Fresh
            | Profile::OldTail
            | Profile::Overtaken
            | Profile::Behind => self.of_plot(profile, r),
            Profile::Files => {
                self.segment_bytes = r.between(500, 3_000) as u32;
                self.snap_bytes = r.between(500, 5_000);
                self.journal_file_bytes = 4096 * 16;
                self.power = r.between(700_000, 1_000_000) as u32;
                self.think = (100, r.between(500, 5_000));
                self.value_bytes = r.below(600) as usize;
            }
        }
    }

    /// What befalls members besides crashes and lost links.
    fn of_several(&mut self, r: &mut Rng) {
        self.chaos = r.between(3_000_000, 8_000_000);
        self.tail_bytes = if r.chance(700_000) { 0 } else { r.below(20_000) };
        match r.below(5) {
            0 => {
                self.spares = r.between(1, 2) as usize;
                self.ticks.extend((0..self.spares).map(|_| r.between(7_000, 13_000)));
            }
            1 => {
                self.damage = r.between(500_000, 1_000_000) as u32;
                self.fsync_tail = 0;
            }
            2 => {
                self.relaxed =
                    Some(Window { ms: r.between(20, 300), bytes: r.between(2_000, 60_000), records: u64::MAX });
                self.power = r.between(500_000, 1_000_000) as u32;
            }
            _ => {}
        }
    }

    /// Nothing fails but what the plot breaks; clients write all the time.
    fn of_plot(&mut self, profile: Profile, r: &mut Rng) {
        self.chaos = r.between(4_000_000, 9_000_000);
        self.fault_every = 200_000;
        self.down = (500, 20_000);
        self.power = 0;
        (self.groups, self.captures, self.clients) = (1, 0, r.between(1, 3) as usize);
        (self.drop, self.duplicate, self.delay, self.delay_tail) = (0, 0, (100, r.between(300, 4_000)), 0);
        self.fsync = (50, r.between(100, 4_000));
        (self.fsync_tail, self.damage, self.stops) = (0, 0, false);
        (self.write_error, self.no_space, self.read_error) = (0, 0, 0);
        (self.crash_after_vote, self.crash_after_append, self.crash_after_reply) = (0, 0, 0);
        self.think = (100, r.between(500, 10_000));
        self.segment_bytes = r.between(500, 8_000) as u32;
        let window = Window { ms: r.between(20, 300), bytes: r.between(20_000, 200_000), records: u64::MAX };
        match profile {
            Profile::Votes => {}
            Profile::Behind => {
                self.segment_bytes = r.between(500, 2_000) as u32;
                self.tail_bytes = if r.chance(700_000) { 0 } else { r.below(20_000) };
                self.append_bytes = if r.chance(500_000) { r.between(1, 2_000) } else { 0 };
                self.think = (100, r.between(2_000, 12_000));
                self.chaos = r.between(3_000_000, 6_000_000);
            }
            Profile::Amnesia => {
                self.relaxed = Some(window);
                self.half = r.chance(500_000);
                self.groups = 1 + usize::from(self.half);
                self.clients = if self.half { r.between(4, 8) } else { r.between(1, 3) } as usize;
                self.think = if self.half { (100, r.between(500, 3_000)) } else { self.think };
                self.segment_bytes = r.between(4_000, 60_000) as u32;
                self.journal_file_bytes = 4096 * 16;
            }
            Profile::Fresh => {
                self.relaxed = Some(window);
                self.append_bytes = r.between(1, 1_000);
                self.tail_bytes = 1 << 20;
                self.segment_bytes = r.between(20_000, 60_000) as u32;
            }
            Profile::OldTail => {
                self.relaxed = Some(Window { ms: 300, ..window });
                self.segment_bytes = r.between(600, 3_000) as u32;
                self.value_bytes = 600 + r.below(900) as usize;
                self.think = (1_000, r.between(5_000, 30_000));
            }
            _ => {
                self.relaxed = Some(window);
                self.segment_bytes = r.between(4_000, 60_000) as u32;
            }
        }
    }
}
