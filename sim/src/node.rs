//! A node of the simulation: what `raft/driver.rs` and the process around it do. Starting, dying, and performing the
//! effects of its replicas and its storage.

use crate::storage::{StartError, Wish};
use crate::workload::Reply;
use crate::world::{Happens, Waiter, World};
use catchwater_base::Effects;
use catchwater_raft::{Effect, Event, GroupConfig, GroupCore, GuardRule, PeerBody, PeerMsg, Role};
use catchwater_record::{Gid, Offset};
use catchwater_storage::{GroupSpec, RecoveredGroup};
use std::collections::VecDeque;

impl World {
    pub(crate) fn start(&mut self, node: usize) {
        if self.nodes[node].up() || self.nodes[node].out {
            return;
        }
        let now = self.now(node);
        let found = match self.nodes[node].storage.recover(now) {
            Ok(found) => found,
            Err(StartError::Disk(_)) if !self.is_calm() => {
                self.nodes[node].storage.crash(false);
                return self.engine.after(100_000, Happens::Start { node });
            }
            Err(StartError::Broken(_)) if self.atlas.is_damaged(node) => return self.refuse(node),
            Err(StartError::Disk(e)) => return self.checker.fail(format!("node {node} cannot recover: {e}")),
            Err(StartError::Broken(why)) => return self.checker.fail(format!("node {node} cannot recover: {why}")),
        };
        let boot = self.nodes[node].boot;
        self.nodes[node].running = true;
        for group in found {
            let gid = group.gid;
            match GroupCore::open(&self.config(node), group, 1) {
                Ok(core) => {
                    self.checker.opened(node, &core);
                    self.nodes[node].cores.insert(gid, core);
                }
                Err(_) if self.atlas.is_damaged(node) => return self.refuse(node),
                Err(e) => return self.checker.fail(format!("node {node} cannot open {gid:?}: {e}")),
            }
        }
        let mut wishes = Vec::new();
        let now = self.now(node);
        self.nodes[node].storage.started(now, &mut wishes);
        self.grant(node, wishes);
        let gids: Vec<Gid> = self.nodes[node].cores.keys().copied().collect();
        for gid in gids {
            self.core_event(node, gid, Event::Start);
        }
        let tick = self.clocks.tick(node);
        self.engine.after(tick, Happens::Tick { node, boot });
    }

    fn config(&self, node: usize) -> GroupConfig {
        let mut config = GroupConfig::new(self.nodes[node].peer);
        config.log.tail_bytes_max = self.swarm.tail_bytes;
        config
    }

    /// A replica that the controller has assigned to this node: it opens empty.
    pub(crate) fn create_replica(&mut self, node: usize, gid: Gid, spec: GroupSpec) {
        if !self.nodes[node].up() || self.nodes[node].cores.contains_key(&gid) {
            return;
        }
        let (now, mut wishes) = (self.now(node), Vec::new());
        self.nodes[node].storage.create(now, gid, spec.clone(), &mut wishes);
        match GroupCore::open(&self.config(node), RecoveredGroup::fresh(gid, spec), 1) {
            Ok(core) => {
                self.checker.opened(node, &core);
                self.nodes[node].cores.insert(gid, core);
            }
            Err(e) => return self.checker.fail(format!("node {node} cannot make {gid:?}: {e}")),
        }
        self.grant(node, wishes);
        self.core_event(node, gid, Event::Start);
    }

    /// The node does not open what it found. A person would repair or replace it; here it stays down.
    pub(crate) fn refuse(&mut self, node: usize) {
        self.engine.fold(0xf00);
        self.out.refused += 1;
        self.nodes[node].cores.clear();
        self.nodes[node].running = false;
        self.nodes[node].storage.crash(false);
        self.nodes[node].out = true;
        self.nodes[node].boot += 1;
    }

    pub(crate) fn crash(&mut self, node: usize, power: bool) {
        self.out.crashes += 1;
        self.out.power_cuts += u64::from(power);
        self.engine.fold(0xc00 + u64::from(power));
        let n = &mut self.nodes[node];
        n.boot += 1;
        n.running = false;
        n.cores.clear();
        n.waiters.clear();
        n.proposing.clear();
        n.barriers.clear();
        n.trimmed.clear();
        n.doomed = None;
        n.storage.crash(power);
        if self.chance(self.swarm.damage) && self.atlas.may_damage(node, self.swarm.voters) {
            // The newest flush may only be damaged behind its seal: before that, damage and a torn write look alike, and
            // no engine can tell (the design gives it ten milliseconds).
            let rest = self.nodes[node].storage.rested(self.engine.now());
            let done = self.atlas.damage(node, self.nodes[node].storage.disk(), rest, &mut self.rng);
            self.out.damages += u64::from(done.is_some());
            self.last_damage = done.or(self.last_damage.take());
        }
        let down = if self.is_calm() { 1_000 } else { self.rng.between(self.swarm.down.0, self.swarm.down.1) };
        self.engine.after(down, Happens::Start { node });
    }

    pub(crate) fn core_event(&mut self, node: usize, gid: Gid, event: Event) {
        let now = self.now(node);
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

    pub(crate) fn chance(&mut self, rate: u32) -> bool {
        !self.is_calm() && rate > 0 && self.rng.chance(rate)
    }
    pub(crate) fn doom(&mut self, node: usize) {
        let power = self.rng.chance(self.swarm.power);
        self.nodes[node].doomed = Some(power);
    }

    pub(crate) fn perform(&mut self, node: usize, gid: Gid, effect: Effect) {
        match effect {
            Effect::Persist { ready, entries, hard, truncate_from } => {
                self.engine.fold(ready.0);
                let mut wishes = Vec::new();
                let appends = !entries.is_empty();
                let now = self.now(node);
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
                let (now, mut wishes) = (self.now(node), Vec::new());
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
            // A replica that was removed, or is behind with the list of members, may hear answers to what it never asked.
            Effect::Guarded(_, GuardRule::UnknownPeer) if self.swarm.spares > 0 => {}
            Effect::Guarded(from, rule) => {
                self.checker.fail(format!("node {node} {gid:?}: a message of {from:?} was refused: {rule:?}"));
            }
            Effect::Offline(cause) => self.checker.fail(format!("node {node} {gid:?}: offline: {cause}")),
        }
    }

    pub(crate) fn send(&mut self, node: usize, m: PeerMsg) {
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

    pub(crate) fn grant(&mut self, node: usize, wishes: Vec<Wish>) {
        let boot = self.nodes[node].boot;
        for wish in wishes {
            match wish {
                Wish::Done(delay, token) => self.engine.after(delay, Happens::Disk { node, boot, token }),
                Wish::Event(gid, event) => self.core_event(node, gid, event),
                Wish::Snapshot(gid) => {
                    if let Some(core) = self.nodes[node].cores.get(&gid) {
                        let payload = core.log().snapshot_payload();
                        let (now, mut more) = (self.now(node), Vec::new());
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
}
