//! One run: nodes, network, clients and faults on one heap of events, checked after every step.
//!
//! Two phases: first anything may fail; then everything is healed, and twenty new writes must commit and all replicas
//! must become equal within a minute of simulated time. At the end the log is read from offset 0 and held against the
//! ledgers.

use crate::check::{Checker, print_of};
use crate::engine::{Engine, Micros};
use crate::net::Net;
use crate::storage::{NodeStorage, StartError, Wish};
use crate::swarm::Swarm;
use crate::workload::{Ask, Producer, Reply, Request, Who, Worker, WorkerState, number};
use bytes::{Bytes, BytesMut};
use catchwater_base::{Effects, Mono, Now, Rng, Wall};
use catchwater_raft::{
    ConfState, Effect, Event, GroupConfig, GroupCore, PeerBody, PeerId, PeerMsg, Proposal, ProposalId, Role,
};
use catchwater_record::batch::iterate::records;
use catchwater_record::{BatchView, CaptureId, EntryIndex, Gid, NodeId, Offset, PartitionId, TopicId};
use catchwater_storage::format::context::{Fence, LogStart, TrimReason};
use catchwater_storage::{Check, GroupSpec, NewEntry, ReadPlan};
use std::collections::{BTreeMap, VecDeque};

const LIVENESS: Micros = 60_000_000;
const WRITES_WANTED: usize = 20;
const STEPS_MAX: u64 = 20_000_000;

/// How a run ended.
#[derive(Clone, Debug)]
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
}

enum Happens {
    Tick {
        node: usize,
        boot: u64,
    },
    Arrives(Box<PeerMsg>),
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
    Start {
        node: usize,
    },
    Calm,
    Look,
}

struct Waiter {
    index: EntryIndex,
    term: u32,
    who: Who,
    id: u64,
    fence: Option<CaptureId>,
    base: Offset,
    end: Offset,
}

struct Node {
    peer: PeerId,
    boot: u64,
    cores: BTreeMap<Gid, GroupCore>,
    storage: NodeStorage,
    waiters: BTreeMap<Gid, Vec<Waiter>>,
    /// Proposals on their way through the core: (who, id, fence).
    proposing: BTreeMap<u64, (Who, u64, Option<CaptureId>)>,
    next_proposal: u64,
    /// Read barriers: token → highest acknowledged index when it was asked.
    barriers: BTreeMap<u64, (Gid, EntryIndex)>,
    /// Log starts that the storage was told.
    trimmed: BTreeMap<Gid, Offset>,
    /// Set inside a step: die at its end.
    doomed: Option<bool>,
}

impl Node {
    fn up(&self) -> bool {
        !self.cores.is_empty()
    }
}

struct World {
    engine: Engine<Happens>,
    rng: Rng,
    swarm: Swarm,
    net: Net,
    nodes: Vec<Node>,
    producers: Vec<Producer>,
    producer_turns: Vec<u64>,
    workers: Vec<Worker>,
    worker_turns: Vec<u64>,
    /// Newest worker of each capture.
    captures: Vec<usize>,
    checker: Checker,
    calm_at: Option<Micros>,
    acked_when_calm: usize,
    /// Enough was written: nobody starts anything new.
    full: bool,
    out: Outcome,
    finished: bool,
}

/// Runs `seed` with so many voters.
pub fn run(seed: u64, voters: usize) -> Outcome {
    run_swarm(seed, Swarm::draw(seed, voters))
}

pub fn run_swarm(seed: u64, swarm: Swarm) -> Outcome {
    let mut world = World::new(seed, swarm);
    while !world.finished && world.checker.violation.is_none() {
        let Some(event) = world.engine.pop() else { break };
        world.happen(event);
        if world.engine.steps() > STEPS_MAX {
            world.checker.fail("the run does not end");
        }
    }
    if world.checker.violation.is_none() {
        world.read_everything();
    }
    let mut out = world.out;
    out.violation = world.checker.violation;
    out.trace = world.engine.trace();
    out.steps = world.engine.steps();
    out.simulated = world.engine.now();
    out.committed = world.checker.groups.values().map(|g| g.committed.len() as u64).sum();
    out
}

fn peer(node: usize) -> PeerId {
    PeerId::new(NodeId(node as u32 + 1), 1)
}

impl World {
    fn new(seed: u64, swarm: Swarm) -> World {
        let voters: Vec<PeerId> = (0..swarm.voters).map(peer).collect();
        let gids: Vec<Gid> = (1..=swarm.groups as u64).map(Gid).collect();
        let specs: Vec<(Gid, GroupSpec)> = gids
            .iter()
            .map(|g| {
                let conf = ConfState::of_voters(voters.clone()).encode();
                (*g, GroupSpec { topic: TopicId([g.0 as u8; 16]), partition: PartitionId(0), incarnation: 1, conf })
            })
            .collect();
        let mut rng = Rng::new(seed);
        let nodes = (0..swarm.voters)
            .map(|n| Node {
                peer: peer(n),
                boot: 0,
                cores: BTreeMap::new(),
                storage: NodeStorage::new(n as u32, rng.next_u64(), &swarm, &specs),
                waiters: BTreeMap::new(),
                proposing: BTreeMap::new(),
                next_proposal: 0,
                barriers: BTreeMap::new(),
                trimmed: BTreeMap::new(),
                doomed: None,
            })
            .collect();
        let out = Outcome {
            seed,
            voters: swarm.voters,
            violation: None,
            trace: 0,
            steps: 0,
            simulated: 0,
            acked: 0,
            committed: 0,
            crashes: 0,
            power_cuts: 0,
            cuts: 0,
            elections: 0,
            duplicates: 0,
            cold_reads: 0,
            barriers: 0,
            disk_errors: 0,
            trims: 0,
        };
        let producers: Vec<Producer> = (0..swarm.clients).map(|id| Producer::new(id, gids[id % gids.len()])).collect();
        let mut world = World {
            engine: Engine::default(),
            net: Net::new(swarm.voters),
            nodes,
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
            rng,
            swarm,
        };
        for node in 0..world.swarm.voters {
            let delay = world.rng.below(20_000);
            world.engine.after(delay, Happens::Start { node });
        }
        for id in 0..world.producers.len() {
            world.engine.after(1_000 + id as u64, Happens::ProducerTurn { id, turn: 0 });
        }
        for capture in 0..world.swarm.captures {
            world.captures.push(usize::MAX);
            world.engine.after(2_000, Happens::NewWorker { capture });
        }
        let first = world.rng.below(world.swarm.fault_every) + 200_000;
        world.engine.after(first, Happens::Fault);
        world.engine.at(world.swarm.chaos, Happens::Calm);
        world
    }

    fn now(&self) -> Now {
        let t = self.engine.now();
        Now { mono: Mono::from_nanos(t * 1000), wall: Wall::from_micros(1_700_000_000_000_000 + t as i64) }
    }
    fn is_calm(&self) -> bool {
        self.calm_at.is_some()
    }

    fn happen(&mut self, event: Happens) {
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
                let tick = self.swarm.ticks[node];
                self.engine.after(tick, Happens::Tick { node, boot });
            }
            Happens::Arrives(msg) => {
                let node = msg.to.node().0 as usize - 1;
                self.engine.fold(0x100 + node as u64);
                if self.nodes[node].up() {
                    self.core_event(node, msg.gid, Event::Message(*msg));
                }
            }
            Happens::Disk { node, boot, token } => {
                self.engine.fold(0x200 + node as u64);
                if self.nodes[node].boot == boot && self.nodes[node].up() {
                    let mut wishes = Vec::new();
                    let now = self.now();
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
            Happens::Start { node } => {
                self.engine.fold(0xb00 + node as u64);
                self.start(node);
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

    // ---- nodes -----------------------------------------------------------------------------------------------------

    fn start(&mut self, node: usize) {
        if self.nodes[node].up() {
            return;
        }
        let now = self.now();
        let found = match self.nodes[node].storage.recover(now) {
            Ok(found) => found,
            Err(StartError::Disk(_)) if !self.is_calm() => {
                self.nodes[node].storage.crash(false);
                return self.engine.after(100_000, Happens::Start { node });
            }
            Err(StartError::Disk(e)) => return self.checker.fail(format!("node {node} cannot recover: {e}")),
            Err(StartError::Broken(why)) => return self.checker.fail(format!("node {node} cannot recover: {why}")),
        };
        let boot = self.nodes[node].boot;
        for group in found {
            let gid = group.gid;
            let mut config = GroupConfig::new(self.nodes[node].peer);
            config.log.tail_bytes_max = self.swarm.tail_bytes;
            match GroupCore::open(&config, group, 1) {
                Ok(core) => {
                    self.checker.opened(node, &core);
                    self.nodes[node].cores.insert(gid, core);
                }
                Err(e) => return self.checker.fail(format!("node {node} cannot open {gid:?}: {e}")),
            }
        }
        let mut wishes = Vec::new();
        let now = self.now();
        self.nodes[node].storage.started(now, &mut wishes);
        self.grant(node, wishes);
        let gids: Vec<Gid> = self.nodes[node].cores.keys().copied().collect();
        for gid in gids {
            self.core_event(node, gid, Event::Start);
        }
        let tick = self.swarm.ticks[node];
        self.engine.after(tick, Happens::Tick { node, boot });
    }

    fn crash(&mut self, node: usize, power: bool) {
        self.out.crashes += 1;
        self.out.power_cuts += u64::from(power);
        self.engine.fold(0xc00 + u64::from(power));
        let n = &mut self.nodes[node];
        n.boot += 1;
        n.cores.clear();
        n.waiters.clear();
        n.proposing.clear();
        n.barriers.clear();
        n.trimmed.clear();
        n.doomed = None;
        n.storage.crash(power);
        let down = if self.is_calm() { 1_000 } else { self.rng.between(self.swarm.down.0, self.swarm.down.1) };
        self.engine.after(down, Happens::Start { node });
    }

    fn core_event(&mut self, node: usize, gid: Gid, event: Event) {
        let now = self.now();
        let mut out = Effects::new();
        match self.nodes[node].cores.get_mut(&gid) {
            Some(core) => core.handle(now, event, &mut out),
            None => return,
        }
        let mut effects: VecDeque<Effect> = out.drain().collect();
        while let Some(effect) = effects.pop_front() {
            self.perform(node, gid, effect);
        }
        if let Some(core) = self.nodes[node].cores.get(&gid) {
            let view = core.view();
            self.checker.order(node, gid, &view);
        }
    }

    fn chance(&mut self, rate: u32) -> bool {
        !self.is_calm() && rate > 0 && self.rng.chance(rate)
    }
    fn doom(&mut self, node: usize) {
        let power = self.rng.chance(self.swarm.power);
        self.nodes[node].doomed = Some(power);
    }

    fn perform(&mut self, node: usize, gid: Gid, effect: Effect) {
        match effect {
            Effect::Persist { ready, entries, hard, truncate_from } => {
                self.engine.fold(ready.0);
                let mut wishes = Vec::new();
                let appends = !entries.is_empty();
                let now = self.now();
                self.nodes[node].storage.persist(now, gid, ready, entries, hard, truncate_from, &mut wishes);
                self.grant(node, wishes);
                if appends && self.chance(self.swarm.crash_after_append) {
                    self.doom(node);
                }
            }
            Effect::Send(m) => self.send(node, m),
            Effect::Commit(upto, high_watermark) => {
                self.engine.fold(upto.0);
                if let Some(core) = self.nodes[node].cores.get(&gid) {
                    self.checker.committed(node, core, upto, high_watermark);
                }
                let (now, mut wishes) = (self.now(), Vec::new());
                self.nodes[node].storage.committed(now, gid, upto, &mut wishes);
                let start = self.nodes[node].cores.get(&gid).map_or(Offset(0), |c| c.log().log_start());
                if start > self.nodes[node].trimmed.get(&gid).copied().unwrap_or_default() {
                    self.nodes[node].trimmed.insert(gid, start);
                    self.nodes[node].storage.trim(now, gid, start, &mut wishes);
                }
                self.grant(node, wishes);
                self.complete(node, gid, upto);
            }
            Effect::Durable(upto, _) => self.engine.fold(upto.0),
            Effect::Role { role, term, .. } => {
                self.engine.fold(u64::from(term.0));
                if role == Role::Leader {
                    self.out.elections += 1;
                    if let Some(core) = self.nodes[node].cores.get(&gid) {
                        self.checker.leads(node, core);
                    }
                } else {
                    let leader = self.hint(node, gid);
                    for w in self.nodes[node].waiters.remove(&gid).unwrap_or_default() {
                        self.answer(w.who, w.id, Reply::NotHere { leader });
                    }
                }
            }
            Effect::Proposed { id, index, term, base_offset, end_offset } => {
                if let Some((who, id, fence)) = self.nodes[node].proposing.remove(&id.0) {
                    let w = Waiter { index, term: term.0, who, id, fence, base: base_offset, end: end_offset };
                    self.nodes[node].waiters.entry(gid).or_default().push(w);
                }
            }
            Effect::Refused(id, _) => {
                if let Some((who, id, _)) = self.nodes[node].proposing.remove(&id.0) {
                    let leader = self.hint(node, gid);
                    self.answer(who, id, Reply::NotHere { leader });
                }
            }
            Effect::ColdRead { token, rows } => {
                self.out.cold_reads += 1;
                let n = &self.nodes[node];
                let entries = n.cores.get(&gid).and_then(|core| n.storage.entries(core.log(), &rows));
                let (boot, delay) = (self.nodes[node].boot, self.rng.between(50, 5_000));
                self.engine.after(delay, Happens::Fetched { node, boot, gid, token, entries });
            }
            Effect::ReadReady(token, index) => {
                if let Some((_, acked)) = self.nodes[node].barriers.remove(&token) {
                    self.out.barriers += 1;
                    self.checker.ensure(index >= acked, || {
                        format!("node {node} {gid:?}: a barrier gave {index}, but {acked} was acknowledged before it")
                    });
                }
            }
            Effect::ReadRefused(token) => {
                self.nodes[node].barriers.remove(&token);
            }
            Effect::Guarded(from, rule) => {
                self.checker.fail(format!("node {node} {gid:?}: a message of {from:?} was refused: {rule:?}"));
            }
            Effect::Offline(cause) => self.checker.fail(format!("node {node} {gid:?}: offline: {cause}")),
        }
    }

    fn send(&mut self, node: usize, m: PeerMsg) {
        let to = m.to.node().0 as usize - 1;
        let granted = matches!(m.body, PeerBody::VoteReply { pre: false, reject: false, .. });
        let ack = matches!(m.body, PeerBody::Ack { reject: None, .. });
        for at in self.net.send(self.engine.now(), node, to, &self.swarm, &mut self.rng) {
            self.engine.at(at, Happens::Arrives(Box::new(m.clone())));
        }
        if (granted && self.chance(self.swarm.crash_after_vote)) || (ack && self.chance(self.swarm.crash_after_reply)) {
            self.doom(node);
        }
    }

    fn grant(&mut self, node: usize, wishes: Vec<Wish>) {
        let boot = self.nodes[node].boot;
        for wish in wishes {
            match wish {
                Wish::Done(delay, token) => self.engine.after(delay, Happens::Disk { node, boot, token }),
                Wish::Event(gid, event) => self.core_event(node, gid, event),
                Wish::Snapshot(gid) => {
                    if let Some(core) = self.nodes[node].cores.get(&gid) {
                        let payload = core.log().snapshot_payload();
                        let (now, mut more) = (self.now(), Vec::new());
                        self.nodes[node].storage.snapshot(now, gid, payload, &mut more);
                        self.grant(node, more);
                    }
                }
                Wish::Stopped(why) => {
                    // The process ends and acknowledges nothing more; what the disk holds, recovery must find out.
                    self.checker.ensure(self.calm_at.is_none(), || format!("node {node}: storage stopped: {why}"));
                    self.out.disk_errors += 1;
                    self.nodes[node].doomed = Some(false);
                }
            }
        }
    }

    // ---- serving ---------------------------------------------------------------------------------------------------

    fn hint(&self, node: usize, gid: Gid) -> Option<usize> {
        let leader = self.nodes[node].cores.get(&gid)?.view().leader?;
        Some(leader.node().0 as usize - 1)
    }

    fn answer(&mut self, who: Who, id: u64, reply: Reply) {
        if !self.is_calm() && self.rng.chance(self.swarm.drop) {
            return;
        }
        let delay = self.rng.between(self.swarm.delay.0, self.swarm.delay.1);
        self.engine.after(delay, Happens::Answered { who, id, reply });
    }

    fn ask(&mut self, node: usize, request: Request) {
        let node = node % self.nodes.len();
        let times = match () {
            () if self.is_calm() => 1,
            () if self.rng.chance(self.swarm.drop) => 0,
            () if self.rng.chance(self.swarm.duplicate) => 2,
            () => 1,
        };
        for _ in 0..times {
            // One connection: what one asker sends arrives in order, so equal delays.
            self.engine.after(self.swarm.delay.0, Happens::Asked { node, request: Box::new(request.clone()) });
        }
    }

    /// What `broker/partition.rs` does: leads? known already? then propose.
    fn serve(&mut self, node: usize, request: Request) {
        let gid = request.gid;
        let Some(core) = self.nodes[node].cores.get(&gid) else { return };
        if core.view().role != Role::Leader {
            let leader = self.hint(node, gid);
            return self.answer(request.who, request.id, Reply::NotHere { leader });
        }
        let log = core.log();
        let (check, body, context, fence) = match &request.ask {
            Ask::Produce(body) => (view(body).map(|b| log.check(&b, None)), body.clone(), Bytes::new(), None),
            Ask::Append(body, c) => (view(body).map(|b| log.check(&b, Some(c))), body.clone(), c.encode(), None),
            Ask::Fence(capture, epoch) => {
                let fence = Fence { capture: *capture, epoch: *epoch };
                (Some(log.check_fence(fence)), Bytes::new(), Bytes::new(), Some(fence))
            }
        };
        let (who, id) = (request.who, request.id);
        match check {
            Some(Check::New) => {
                let n = &mut self.nodes[node];
                n.next_proposal += 1;
                let number = ProposalId(n.next_proposal);
                n.proposing.insert(number.0, (who, id, fence.map(|f| f.capture)));
                let proposal = match fence {
                    Some(f) => Proposal::fence(number, f.capture, f.epoch),
                    None => Proposal::data(number, BytesMut::from(&body[..]), context),
                };
                self.core_event(node, gid, Event::Propose(vec![proposal]));
            }
            Some(Check::Duplicate { base, end, index }) => {
                self.out.duplicates += 1;
                let term = log.term(index).map_or(0, |t| t.0);
                let w = Waiter { index, term, who, id, fence: None, base, end };
                let commit = core.view().commit;
                self.nodes[node].waiters.entry(gid).or_default().push(w);
                if index <= commit {
                    self.complete(node, gid, commit);
                }
            }
            Some(Check::Partly(known)) => self.answer(who, id, Reply::Partly(known)),
            Some(Check::Gap(known)) => self.answer(who, id, Reply::Gap(known)),
            Some(Check::Fenced(_)) => self.answer(who, id, Reply::Fenced),
            // A leader that is no longer one may lack the batch before; another will not.
            _ => self.answer(who, id, Reply::Later),
        }
    }

    fn complete(&mut self, node: usize, gid: Gid, upto: EntryIndex) {
        let waiters = self.nodes[node].waiters.remove(&gid).unwrap_or_default();
        let Some(core) = self.nodes[node].cores.get(&gid) else { return };
        let (done, wait): (Vec<Waiter>, Vec<Waiter>) = waiters.into_iter().partition(|w| w.index <= upto);
        let mut replies = Vec::new();
        for w in done {
            if w.index.0 > 0 && core.log().term(w.index).map(|t| t.0) != Some(w.term) {
                replies.push((w.who, w.id, Reply::NotHere { leader: None }));
                continue;
            }
            if w.index.0 > 0 {
                self.checker.acked(gid, w.index, w.term);
            }
            let reply = match w.fence {
                Some(capture) => Reply::Opened(core.log().capture_last(capture).map(|(_, p)| p).unwrap_or_default()),
                None => Reply::Done { base: w.base, end: w.end },
            };
            replies.push((w.who, w.id, reply));
        }
        if !wait.is_empty() {
            self.nodes[node].waiters.insert(gid, wait);
        }
        for (who, id, reply) in replies {
            self.answer(who, id, reply);
        }
    }

    // ---- writers ---------------------------------------------------------------------------------------------------

    fn producer_turn(&mut self, id: usize, timed_out: bool) {
        if self.full && self.producers[id].idle() {
            return;
        }
        let at_ms = (self.engine.now() / 1000) as i64;
        let records = self.rng.between(1, 3) as u32;
        if timed_out && !self.producers[id].idle() {
            self.producers[id].target = self.rng.below(self.nodes.len() as u64) as usize;
        }
        let request = self.producers[id].request(records, at_ms, self.swarm.value_bytes);
        let target = self.producers[id].target;
        self.ask(target, request);
        self.producer_turns[id] += 1;
        let (turn, patience) = (self.producer_turns[id], self.rng.between(100_000, 600_000));
        self.engine.after(patience, Happens::ProducerTurn { id, turn });
    }

    fn next_producer_turn(&mut self, id: usize, delay: Micros) {
        self.producer_turns[id] += 1;
        self.engine.after(delay, Happens::ProducerTurn { id, turn: self.producer_turns[id] });
    }

    fn next_worker_turn(&mut self, id: usize, delay: Micros, again: bool) {
        self.worker_turns[id] += 1;
        self.engine.after(delay, Happens::WorkerTurn { id, turn: self.worker_turns[id], again });
    }

    fn answered(&mut self, who: Who, id: u64, reply: Reply) {
        let think = self.rng.between(self.swarm.think.0, self.swarm.think.1);
        let back_off = self.rng.between(5_000, 60_000);
        match who {
            Who::Producer(p) => {
                if !self.producers[p].is_waiting_for(id) {
                    return;
                }
                match reply {
                    Reply::Done { base, .. } => {
                        self.producers[p].done(id, base);
                        self.out.acked += 1;
                        if self.full {
                            self.producer_turns[p] += 1;
                        } else {
                            self.next_producer_turn(p, think);
                        }
                    }
                    Reply::NotHere { leader: Some(leader) } if leader != self.producers[p].target => {
                        self.producers[p].target = leader;
                        self.producer_turn(p, false);
                    }
                    _ => self.next_producer_turn(p, back_off),
                }
            }
            Who::Worker(w) => {
                let worker = &mut self.workers[w];
                match reply {
                    Reply::Done { .. } => {
                        if worker.done(id).is_some() {
                            self.out.acked += 1;
                            self.next_worker_turn(w, think, false);
                        }
                    }
                    Reply::Opened(at) => {
                        worker.opened(number(&at));
                        self.next_worker_turn(w, think, false);
                    }
                    Reply::Partly(known) | Reply::Gap(known) => {
                        worker.resume(id, number(&known));
                        self.next_worker_turn(w, back_off, true);
                    }
                    Reply::Fenced => worker.state = WorkerState::Dead,
                    Reply::NotHere { leader } => {
                        if let Some(leader) = leader {
                            worker.target = leader;
                        }
                        self.next_worker_turn(w, back_off, true);
                    }
                    Reply::Later => self.next_worker_turn(w, back_off, true),
                }
            }
        }
    }

    fn worker_turn(&mut self, id: usize, again: bool) {
        if self.full {
            return;
        }
        let rows = self.rng.between(1, 4) as u32;
        if again && self.rng.chance(300_000) {
            self.workers[id].target = self.rng.below(self.nodes.len() as u64) as usize;
        }
        let target = self.workers[id].target;
        for request in self.workers[id].requests(again, rows) {
            self.ask(target, request);
        }
        if self.workers[id].state != WorkerState::Dead {
            let patience = self.rng.between(100_000, 600_000);
            self.next_worker_turn(id, patience, true);
        }
    }

    /// A new life of a capture; the old one does not know and goes on.
    fn new_worker(&mut self, capture: usize) {
        let id = self.workers.len();
        let epoch = self.workers.iter().filter(|w| w.capture == CaptureId(capture as u64)).count() as u32 + 1;
        let gid = Gid(1 + (capture % self.swarm.groups) as u64);
        self.workers.push(Worker::new(id, CaptureId(capture as u64), epoch, gid, self.swarm.value_bytes));
        self.worker_turns.push(0);
        self.captures[capture] = id;
        self.worker_turn(id, false);
        if !self.is_calm() {
            let life = self.rng.between(500_000, 4_000_000);
            self.engine.after(life, Happens::NewWorker { capture });
        }
    }

    // ---- faults ----------------------------------------------------------------------------------------------------

    fn fault(&mut self) {
        if self.is_calm() {
            return;
        }
        let nodes = self.nodes.len() as u64;
        match self.rng.below(10) {
            0..=3 => {
                let node = self.rng.below(nodes) as usize;
                if self.nodes[node].up() {
                    self.doom(node);
                }
            }
            4 => {
                // Everything at once.
                for node in 0..self.nodes.len() {
                    if self.nodes[node].up() {
                        self.doom(node);
                    }
                }
            }
            5..=7 if nodes > 1 => {
                let (a, b) = (self.rng.below(nodes) as usize, self.rng.below(nodes) as usize);
                if a != b {
                    self.out.cuts += 1;
                    let time = self.rng.between(50_000, 3_000_000);
                    let both = self.rng.chance(600_000);
                    let whole = self.rng.chance(400_000);
                    for other in 0..self.nodes.len() {
                        if other != a && (whole || other == b) {
                            self.net.set_cut(a, other, true);
                            self.engine.after(time, Happens::Heal { from: a, to: other });
                            if both {
                                self.net.set_cut(other, a, true);
                                self.engine.after(time, Happens::Heal { from: other, to: a });
                            }
                        }
                    }
                }
            }
            // Retention; a follower behind the first index would need a snapshot, which this version does not send.
            5..=6 => {
                let gid = Gid(1 + self.rng.below(self.swarm.groups as u64));
                let Some(core) = self.nodes[0].cores.get(&gid) else { return self.next_fault() };
                let offset = Offset(self.rng.below(core.view().high_watermark.0 + 1));
                let start = LogStart { offset, reason: TrimReason::Retention };
                self.out.trims += 1;
                self.core_event(0, gid, Event::Propose(vec![Proposal::log_start(ProposalId(0), start)]));
            }
            8 => {
                let (node, gid) = (self.rng.below(nodes) as usize, Gid(1 + self.rng.below(self.swarm.groups as u64)));
                if self.nodes[node].up() {
                    self.core_event(node, gid, Event::StepDown);
                }
            }
            _ => {
                for node in 0..self.nodes.len() {
                    for gid in 1..=self.swarm.groups as u64 {
                        if self.nodes[node].up() {
                            let acked = self.checker.groups.get(&Gid(gid)).map_or(EntryIndex(0), |g| g.acked.0);
                            let n = &mut self.nodes[node];
                            n.next_proposal += 1;
                            let token = n.next_proposal;
                            n.barriers.insert(token, (Gid(gid), acked));
                            self.core_event(node, Gid(gid), Event::ReadBarrier(token));
                        }
                    }
                }
            }
        }
        self.next_fault();
    }

    fn next_fault(&mut self) {
        let next = self.rng.between(self.swarm.fault_every / 4, self.swarm.fault_every * 2);
        self.engine.after(next, Happens::Fault);
    }

    fn calm(&mut self) {
        self.calm_at = Some(self.engine.now());
        self.acked_when_calm = self.ledger_len();
        self.net.calm = true;
        self.net.heal();
        for node in &mut self.nodes {
            node.storage.calm();
        }
        for node in 0..self.nodes.len() {
            self.engine.after(1_000, Happens::Start { node });
        }
        self.engine.after(100_000, Happens::Look);
    }

    fn ledger_len(&self) -> usize {
        self.producers.iter().map(|p| p.acked.len()).sum()
    }

    /// Is everything well again?
    fn look(&mut self) {
        let since = self.calm_at.unwrap_or_default();
        let news = self.ledger_len() - self.acked_when_calm;
        if news >= WRITES_WANTED && self.converged() {
            self.finished = true;
            return;
        }
        if self.engine.now() > since + LIVENESS {
            let views: Vec<String> = self
                .nodes
                .iter()
                .map(|n| format!("{:?}", n.cores.values().map(GroupCore::view).collect::<Vec<_>>()))
                .collect();
            return self
                .checker
                .fail(format!("a minute after all faults ended: {news} new writes, replicas {}", views.join(" | ")));
        }
        // Once enough was written, writers stop so that replicas can become equal.
        self.full |= news >= WRITES_WANTED;
        self.engine.after(50_000, Happens::Look);
    }

    fn converged(&self) -> bool {
        (1..=self.swarm.groups as u64).map(Gid).all(|gid| {
            let views: Vec<_> = self.nodes.iter().filter_map(|n| n.cores.get(&gid)).map(GroupCore::view).collect();
            views.len() == self.nodes.len()
                && views.iter().all(|v| v.commit == v.last && v.persisted == v.last && v.last == views[0].last)
        })
    }

    // ---- the end ---------------------------------------------------------------------------------------------------

    /// All replicas row by row, then one of them read from offset 0 and held against the ledgers.
    fn read_everything(&mut self) {
        for gid in (1..=self.swarm.groups as u64).map(Gid) {
            for node in 0..self.nodes.len() {
                let Some(core) = self.nodes[node].cores.get(&gid) else { continue };
                let history = &self.checker.groups[&gid].committed;
                let first = core.log().first_index();
                let history = &history[first.0 as usize - 1..];
                let rows: Vec<_> = core.log().rows_from(first).map(|r| print_of(core, r)).collect();
                let same = rows.len() == history.len()
                    && rows
                        .iter()
                        .zip(history)
                        .all(|(a, b)| (a.term, a.kind, a.base, a.count) == (b.term, b.kind, b.base, b.count));
                if !same {
                    return self.checker.fail(format!("node {node} {gid:?}: its log differs from what was committed"));
                }
                match self.read_log(node, gid) {
                    Ok(batches) => self.hold_against_ledgers(node, gid, &batches),
                    Err(why) => self.checker.fail(format!("node {node} {gid:?}: {why}")),
                }
            }
        }
    }

    fn read_log(&self, node: usize, gid: Gid) -> Result<Vec<Bytes>, String> {
        let Some(core) = self.nodes[node].cores.get(&gid) else { return Err("not there".into()) };
        let (mut at, end) = (core.log().log_start(), core.view().high_watermark);
        let start = at;
        let mut all = Vec::new();
        while at < end {
            let found = match core.log().plan_read(at, end, 3_000) {
                ReadPlan::Tail(batches) => batches,
                ReadPlan::Files(ranges) => self.nodes[node].storage.read(&ranges)?,
                other => return Err(format!("reading at {at} of {end}: {other:?}")),
            };
            let before = at;
            for bytes in found {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let (batch, tail) = BatchView::split(rest).map_err(|e| format!("reading at {at}: {e}"))?;
                    batch.check_crc().map_err(|e| format!("reading at {at}: {e}"))?;
                    // The log may start inside a batch.
                    let inside = at == start && batch.offset() < at;
                    if batch.offset() != at && !inside {
                        return Err(format!("read {} where {at} was due", batch.offset()));
                    }
                    at = batch.offset().plus(u64::from(batch.offset_count()));
                    all.push(Bytes::copy_from_slice(batch.bytes()));
                    rest = tail;
                }
            }
            if at == before {
                return Err(format!("reading at {at} of {end} gives nothing"));
            }
        }
        Ok(all)
    }

    fn hold_against_ledgers(&mut self, node: usize, gid: Gid, batches: &[Bytes]) {
        let start = self.nodes[node].cores.get(&gid).map_or(Offset(0), |c| c.log().log_start());
        let mut produced: BTreeMap<i64, Vec<(i32, u32, Offset)>> = BTreeMap::new();
        let mut captured: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for b in batches {
            let Some(b) = view(b) else { continue };
            if let Some(id) = b.producer_id() {
                produced.entry(id.0).or_default().push((b.base_sequence(), b.offset_count(), b.offset()));
            } else {
                for r in records(b.records(), b.offset_count()).flatten() {
                    let text = String::from_utf8_lossy(r.value.unwrap_or_default()).into_owned();
                    let mut parts = text.split(':');
                    if let (Some(who), Some(row)) = (parts.next(), parts.next()) {
                        captured.entry(who.to_owned()).or_default().push(row.parse().unwrap_or(0));
                    }
                }
            }
        }
        for p in self.producers.iter().filter(|p| p.gid == gid) {
            let found = produced.get(&(p.id as i64 + 1)).cloned().unwrap_or_default();
            // What was trimmed is not expected.
            let mut due = if start > Offset(0) { found.first().map_or(0, |f| f.0) } else { 0 };
            for (sequence, count, _) in &found {
                if *sequence != due {
                    let what = if *sequence < due { "duplicated or reordered" } else { "missing" };
                    return self.checker.fail(format!(
                        "node {node} {gid:?}: producer {}: sequence {sequence} where {due} was due: {what}",
                        p.id
                    ));
                }
                due += *count as i32;
            }
            for (base, sequence, count) in p.acked.iter().filter(|(base, ..)| *base >= start) {
                if !found.contains(&(*sequence, *count, *base)) {
                    return self.checker.fail(format!(
                        "node {node} {gid:?}: producer {}: sequence {sequence} was acknowledged at {base} and is not there",
                        p.id
                    ));
                }
            }
        }
        for w in self.workers.iter().filter(|w| w.gid == gid) {
            let rows = captured.get(&format!("c{}", w.capture)).cloned().unwrap_or_default();
            let first = if start > Offset(0) { rows.first().copied().unwrap_or(w.acked + 1) } else { 1 };
            if rows.iter().zip(first..).any(|(row, due)| *row != due) || (first + rows.len() as u32) <= w.acked {
                return self.checker.fail(format!(
                    "node {node} {gid:?}: capture {}: rows are not 1, 2, 3, … up to the acknowledged {}: {rows:?}",
                    w.capture, w.acked
                ));
            }
        }
    }
}

fn view(bytes: &[u8]) -> Option<BatchView<'_>> {
    BatchView::new(bytes).ok()
}
