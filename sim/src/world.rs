//! One run: nodes, network, clients and faults on one heap of events, checked after every step.
//!
//! Two phases: first anything may fail; then everything is healed, and twenty new writes must commit and all replicas
//! must become equal within a minute of simulated time. At the end the log is read from offset 0 and held against the
//! ledgers.

use crate::check::Checker;
use crate::clock::Clocks;
use crate::disk_atlas::Atlas;
use crate::engine::{Engine, Micros};
use crate::net::Net;
use crate::plots::Plot;
use crate::storage::NodeStorage;
use crate::story::Story;
use crate::swarm::Swarm;
use crate::workload::{Producer, Reply, Request, Who, Worker};
use catchwater_base::{Now, Rng, mutant};
use catchwater_raft::{ConfState, Event, GroupCore, PeerBody, PeerId, PeerMsg, RollRow};
use catchwater_record::{CaptureId, EntryIndex, Gid, NodeId, Offset, PartitionId, TopicId};
use catchwater_storage::{GroupSpec, NewEntry};
use std::collections::BTreeMap;

const STEPS_MAX: u64 = 20_000_000;

/// How a run ended.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub seed: u64,
    pub voters: usize,
    pub violation: Option<String>,
    pub trace: u64,
    pub steps: u64,
    pub simulated: Micros,
    pub acked: u64,
    pub committed: u64,
    pub crashes: u64,
    pub power_cuts: u64,
    pub cuts: u64,
    pub elections: u64,
    pub duplicates: u64,
    pub cold_reads: u64,
    pub barriers: u64,
    pub disk_errors: u64,
    pub trims: u64,
    pub damages: u64,
    /// Nodes that did not open a damaged disk.
    pub refused: u64,
    /// Records read while faults went on.
    pub reads: u64,
    pub stops: u64,
    /// Changes of members that were proposed, and leaderships handed over.
    pub moves: u64,
    pub transfers: u64,
    /// Replicas that opened mute, and were fed; ids that were burnt; logs that began anew behind a prefix snapshot.
    pub mutes: u64,
    pub unmutes: u64,
    pub new_ids: u64,
    pub installs: u64,
    /// Losses of power that took acknowledged records of relaxed topics, and how many entries they took.
    pub relaxed_losses: u64,
    pub relaxed_lost: u64,
    /// Transactions that were ended, compacted segments put in force, and changes of durability.
    pub txns: u64,
    pub compacted: u64,
    pub switches: u64,
    /// Topics that were deleted, and made again.
    pub remade: u64,
    /// Plots that came to their end.
    pub plots: u64,
}

impl Outcome {
    fn new(seed: u64, voters: usize) -> Self {
        Outcome { seed, voters, ..Outcome::default() }
    }
}

pub(crate) enum Happens {
    Tick {
        node: usize,
        boot: u64,
    },
    /// From one life to another: a stream does not outlive either end.
    Arrives {
        boots: (u64, u64),
        msg: Box<PeerMsg>,
    },
    Disk {
        node: usize,
        boot: u64,
        token: u64,
    },
    Fetched {
        node: usize,
        boot: u64,
        gid: Gid,
        token: u64,
        entries: Option<Vec<NewEntry>>,
    },
    Asked {
        node: usize,
        request: Box<Request>,
    },
    Answered {
        who: Who,
        id: u64,
        reply: Reply,
    },
    /// The producer acts, or its patience ends.
    ProducerTurn {
        id: usize,
        turn: u64,
    },
    WorkerTurn {
        id: usize,
        turn: u64,
        again: bool,
    },
    NewWorker {
        capture: usize,
    },
    Fault,
    Heal {
        from: usize,
        to: usize,
    },
    /// The node dies, and its disk was at rest.
    Doom {
        node: usize,
    },
    Faster {
        from: usize,
        to: usize,
    },
    Start {
        node: usize,
    },
    /// A look at what may be compacted, or a step of a run.
    Compact {
        node: usize,
        boot: u64,
    },
    Calm,
    Look,
}

pub(crate) struct Waiter {
    pub(crate) index: EntryIndex,
    pub(crate) term: u32,
    pub(crate) who: Who,
    pub(crate) id: u64,
    pub(crate) fence: Option<CaptureId>,
    pub(crate) base: Offset,
    pub(crate) end: Offset,
}

pub(crate) struct Node {
    pub(crate) boot: u64,
    pub(crate) cores: BTreeMap<Gid, GroupCore>,
    /// Those of the life before, which was killed and lost nothing.
    pub(crate) ghosts: BTreeMap<Gid, GroupCore>,
    pub(crate) storage: NodeStorage,
    pub(crate) waiters: BTreeMap<Gid, Vec<Waiter>>,
    /// Proposals on their way through the core: (who, id, fence).
    pub(crate) proposing: BTreeMap<u64, (Who, u64, Option<CaptureId>)>,
    pub(crate) next_proposal: u64,
    /// Read barriers: token → highest acknowledged index when it was asked.
    pub(crate) barriers: BTreeMap<u64, (Gid, EntryIndex)>,
    /// Log starts that the storage was told.
    pub(crate) trimmed: BTreeMap<Gid, Offset>,
    pub(crate) running: bool,
    /// Its disk is damaged and it does not open it, or it was taken out after the last fault.
    pub(crate) out: bool,
    /// Set inside a step: die at its end.
    pub(crate) doomed: Option<bool>,
}

impl Node {
    pub(crate) fn up(&self) -> bool {
        self.running
    }
}

pub(crate) struct World {
    pub(crate) engine: Engine<Happens>,
    pub(crate) rng: Rng,
    pub(crate) swarm: Swarm,
    pub(crate) net: Net,
    pub(crate) clocks: Clocks,
    pub(crate) atlas: Atlas,
    pub(crate) nodes: Vec<Node>,
    /// Topics that are there, by their groups; and those that were.
    pub(crate) gids: Vec<Gid>,
    pub(crate) removed: Vec<Gid>,
    /// Lives between which a stream goes, by `from * nodes + to`.
    pub(crate) streams: Vec<Option<(u64, u64)>>,
    /// Who a node is in a group, if not the first id.
    pub(crate) ids: BTreeMap<(usize, Gid), PeerId>,
    /// Ids to be replaced: group, old, new.
    pub(crate) burnt: Vec<(Gid, PeerId, PeerId)>,
    /// When a loss of power last took claims of a relaxed replica of this node.
    pub(crate) forgot: Vec<Option<Micros>>,
    pub(crate) producers: Vec<Producer>,
    pub(crate) producer_turns: Vec<u64>,
    pub(crate) workers: Vec<Worker>,
    pub(crate) worker_turns: Vec<u64>,
    /// Newest worker of each capture.
    pub(crate) captures: Vec<usize>,
    pub(crate) checker: Checker,
    pub(crate) calm_at: Option<Micros>,
    pub(crate) acked_when_calm: usize,
    /// Enough was written: nobody starts anything new.
    pub(crate) full: bool,
    pub(crate) out: Outcome,
    pub(crate) finished: bool,
    pub(crate) story: Story,
    /// Until then nobody asks for anything: the disks come to rest.
    pub(crate) hush_until: Micros,
    /// For the text of a violation.
    pub(crate) last_damage: Option<String>,
    pub(crate) plot: Plot,
    /// What a replica last said that it has, and was reset to: by leader, replica, group.
    pub(crate) rolled: BTreeMap<(usize, usize, Gid), RollRow>,
    pub(crate) reset: BTreeMap<(usize, usize, Gid), (u32, RollRow)>,
}

/// Runs `seed` with so many voters; 0 = as many as the seed draws.
pub fn run(seed: u64, voters: usize) -> Outcome {
    run_swarm(seed, Swarm::draw(seed, voters, None))
}

/// A panic anywhere is a violation: the product's process would be gone.
pub fn run_swarm(seed: u64, swarm: Swarm) -> Outcome {
    let voters = swarm.voters;
    let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run_to_end(seed, swarm)));
    run.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        let text = text.unwrap_or_else(|| "of no text".into());
        Outcome { violation: Some(format!("panic: {text}")), ..Outcome::new(seed, voters) }
    })
}

fn run_to_end(seed: u64, swarm: Swarm) -> Outcome {
    let mut world = World::new(seed, swarm);
    while !world.finished && world.checker.violation.is_none() {
        let Some(event) = world.engine.pop() else { break };
        world.happen(event);
        if world.engine.steps() > STEPS_MAX {
            world.checker.fail("the run does not end");
        }
    }
    if world.checker.violation.is_none() {
        world.story.final_from(world.engine.now());
        world.read_everything();
    }
    if world.checker.violation.is_none() {
        world.judge_story();
    }
    let mut out = world.out;
    out.violation = world.checker.violation.map(|v| match world.last_damage {
        Some(damage) => format!("{v}; damaged: {damage}"),
        None => v,
    });
    out.trace = world.engine.trace();
    out.steps = world.engine.steps();
    out.simulated = world.engine.now();
    out.committed = world.checker.groups.values().map(|g| g.committed.len() as u64).sum();
    out
}

pub(crate) fn peer(node: usize) -> PeerId {
    PeerId::new(NodeId(node as u32 + 1), 1)
}

impl World {
    pub(crate) fn new(seed: u64, swarm: Swarm) -> World {
        let voters: Vec<PeerId> = (0..swarm.voters).map(peer).collect();
        let gids: Vec<Gid> = (1..=swarm.groups as u64).map(Gid).collect();
        let specs: Vec<(Gid, GroupSpec)> = gids
            .iter()
            .map(|g| {
                let conf = ConfState::of_voters(voters.clone()).encode();
                (
                    *g,
                    GroupSpec {
                        topic: TopicId([g.0 as u8; 16]),
                        partition: PartitionId(0),
                        incarnation: 1,
                        conf,
                        conf_index: EntryIndex::ZERO,
                    },
                )
            })
            .collect();
        let mut rng = Rng::new(seed);
        let nodes = (0..swarm.nodes())
            .map(|n| Node {
                boot: 0,
                cores: BTreeMap::new(),
                ghosts: BTreeMap::new(),
                storage: NodeStorage::new(
                    n as u32,
                    rng.next_u64(),
                    &swarm,
                    if n < swarm.voters { &specs } else { &[] },
                ),
                waiters: BTreeMap::new(),
                proposing: BTreeMap::new(),
                next_proposal: 0,
                barriers: BTreeMap::new(),
                trimmed: BTreeMap::new(),
                running: false,
                out: false,
                doomed: None,
            })
            .collect();
        let out = Outcome::new(seed, swarm.voters);
        let producer = |id: usize| {
            let mut p = Producer::new(id, gids[id % gids.len()]);
            p.has_keys = swarm.load.compact.is_some();
            if swarm.load.txn { p.transactional() } else { p }
        };
        let producers: Vec<Producer> = (0..swarm.clients).map(producer).collect();
        let mut world = World {
            engine: Engine::default(),
            net: Net::new(swarm.nodes()),
            clocks: Clocks::new(&swarm),
            atlas: Atlas::new(swarm.nodes()),
            streams: vec![None; swarm.nodes() * swarm.nodes()],
            ids: BTreeMap::new(),
            burnt: Vec::new(),
            forgot: vec![None; swarm.nodes()],
            nodes,
            gids,
            removed: Vec::new(),
            producer_turns: vec![0; producers.len()],
            producers,
            workers: Vec::new(),
            worker_turns: Vec::new(),
            captures: Vec::new(),
            checker: Checker::default(),
            calm_at: None,
            acked_when_calm: 0,
            full: false,
            out,
            finished: false,
            story: Story::default(),
            hush_until: 0,
            last_damage: None,
            plot: Plot::of(swarm.nodes()),
            rolled: BTreeMap::new(),
            reset: BTreeMap::new(),
            rng,
            swarm,
        };
        for node in 0..world.nodes.len() {
            let delay = world.rng.below(20_000);
            world.engine.after(delay, Happens::Start { node });
        }
        for id in 0..world.producers.len() {
            world.engine.after(1_000 + id as u64, Happens::ProducerTurn { id, turn: 0 });
        }
        let captures = if world.swarm.load.compact.is_some() { 0 } else { world.swarm.captures };
        for capture in 0..captures {
            world.captures.push(usize::MAX);
            world.engine.after(2_000, Happens::NewWorker { capture });
        }
        let first = world.rng.below(world.swarm.fault_every) + 200_000;
        world.engine.after(first, Happens::Fault);
        world.engine.at(world.swarm.chaos, Happens::Calm);
        world
    }

    pub(crate) fn now(&self, node: usize) -> Now {
        self.clocks.now(node, self.engine.now())
    }
    pub(crate) fn is_calm(&self) -> bool {
        self.calm_at.is_some()
    }

    pub(crate) fn happen(&mut self, event: Happens) {
        let whose = match &event {
            Happens::Tick { node, .. }
            | Happens::Disk { node, .. }
            | Happens::Fetched { node, .. }
            | Happens::Compact { node, .. }
            | Happens::Asked { node, .. } => Some(*node),
            Happens::Arrives { msg, .. } => Some(msg.to.node().0 as usize - 1),
            _ => None,
        };
        if let Some(until) = whose.and_then(|node| self.clocks.stopped(node, self.engine.now())) {
            self.engine.fold(0xd00);
            return self.engine.at(until, event);
        }
        match event {
            Happens::Tick { node, boot } => {
                self.engine.fold(1 + node as u64);
                if self.nodes[node].boot != boot || !self.nodes[node].up() {
                    return;
                }
                let gids: Vec<Gid> = self.nodes[node].cores.keys().copied().collect();
                for gid in gids {
                    self.core_event(node, gid, Event::Tick(1));
                }
                let tick = self.clocks.tick(node);
                self.engine.after(tick, Happens::Tick { node, boot });
            }
            Happens::Arrives { boots, msg } => {
                let (from, node) = (msg.from.node().0 as usize - 1, msg.to.node().0 as usize - 1);
                self.engine.fold(0x100 + node as u64);
                let current = (self.nodes[from].boot, self.nodes[node].boot) == boots;
                if self.nodes[node].up() && (current || mutant!("old_generation_accepted")) {
                    self.tell_message(node, &msg);
                    if let PeerBody::Roll { row, .. } = &msg.body {
                        self.rolled.insert((node, from, msg.gid), *row);
                    }
                    self.core_event(node, msg.gid, Event::Message(*msg));
                }
            }
            Happens::Disk { node, boot, token } => {
                self.engine.fold(0x200 + node as u64);
                if self.nodes[node].boot == boot && self.nodes[node].up() {
                    let mut wishes = Vec::new();
                    let now = self.now(node);
                    self.nodes[node].storage.done(now, token, &mut wishes);
                    self.grant(node, wishes);
                }
            }
            Happens::Fetched { node, boot, gid, token, entries } => {
                self.engine.fold(0x300 + node as u64);
                if self.nodes[node].boot == boot && self.nodes[node].up() {
                    self.core_event(node, gid, Event::Fetched(token, entries));
                }
            }
            Happens::Asked { node, request } => {
                self.engine.fold(0x400 + node as u64);
                if self.nodes[node].up() {
                    self.serve(node, *request);
                }
            }
            Happens::Answered { who, id, reply } => {
                self.engine.fold(0x500);
                self.answered(who, id, reply);
            }
            Happens::ProducerTurn { id, turn } => {
                self.engine.fold(0x600);
                if self.producer_turns[id] == turn {
                    self.producer_turn(id, true);
                }
            }
            Happens::WorkerTurn { id, turn, again } => {
                self.engine.fold(0x700);
                if self.worker_turns[id] == turn {
                    self.worker_turn(id, again);
                }
            }
            Happens::NewWorker { capture } => {
                self.engine.fold(0x800);
                self.new_worker(capture);
            }
            Happens::Fault => {
                self.engine.fold(0x900);
                self.fault();
            }
            Happens::Heal { from, to } => {
                self.engine.fold(0xa00);
                self.net.set_cut(from, to, false);
            }
            Happens::Doom { node } => {
                self.engine.fold(0xf00 + node as u64);
                if self.nodes[node].up() && !self.is_calm() {
                    self.doom(node);
                }
            }
            Happens::Faster { from, to } => {
                self.engine.fold(0xe00);
                self.net.set_slow(from, to, 0);
            }
            Happens::Start { node } => {
                self.engine.fold(0xb00 + node as u64);
                self.start(node);
            }
            Happens::Compact { node, boot } => {
                self.engine.fold(0x1000 + node as u64);
                if self.nodes[node].boot == boot && self.nodes[node].up() {
                    self.compact(node);
                }
            }
            Happens::Calm => self.calm(),
            Happens::Look => self.look(),
        }
        for node in 0..self.nodes.len() {
            if let Some(power) = self.nodes[node].doomed.take()
                && self.nodes[node].up()
            {
                self.crash(node, power);
            }
        }
    }
}
