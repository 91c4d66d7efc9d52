//! What goes wrong, and when it stops.

use crate::swarm::Profile;
use crate::tell::tell;
use crate::world::{Happens, World};
use catchwater_raft::{Event, Proposal, ProposalId};
use catchwater_record::{EntryIndex, Offset};
use catchwater_storage::format::context::{LogStart, TrimReason};

impl World {
    pub(crate) fn fault(&mut self) {
        if self.is_calm() {
            return;
        }
        self.replace_burnt();
        if self.swarm.profile.cast().is_some() {
            let next = self.act();
            return self.engine.after(next, Happens::Fault);
        }
        let nodes = self.nodes.len() as u64;
        // Retention where there are followers: what lags behind it is told the rest in a snapshot.
        // (Relaxed topics with several voters are not switched through one yet.)
        if nodes > 1
            && self.swarm.relaxed.is_none()
            && self.rng.chance(if self.swarm.profile == Profile::Journals { 150_000 } else { 50_000 })
        {
            self.trim_somewhere();
            return self.next_fault();
        }
        if nodes > 1 && self.swarm.load.compact.is_some() && self.rng.chance(250_000) {
            let node = self.rng.below(nodes) as usize;
            self.read_compacted_meanwhile(node);
            return self.next_fault();
        }
        if self.swarm.load.switching && self.rng.chance(600_000) {
            self.switch_durability();
            return self.next_fault();
        }
        if self.swarm.load.topics && self.rng.chance(300_000) {
            self.replace_topic();
            return self.next_fault();
        }
        if self.swarm.spares > 0 && self.rng.chance(600_000) {
            self.move_somebody();
            return self.next_fault();
        }
        match self.rng.below(if self.swarm.stops { 13 } else { 10 }) {
            0 if self.swarm.damage > 0 => {
                // At rest first, so that what is damaged then was durable for a while.
                let node = self.rng.below(nodes) as usize;
                self.hush_until = self.engine.now() + 400_000;
                self.engine.after(390_000, Happens::Doom { node });
            }
            10..=11 => {
                let node = self.rng.below(nodes) as usize;
                let until = self.engine.now() + self.rng.between(20_000, 2_500_000);
                self.out.stops += 1;
                self.clocks.stop(node, until);
                self.clocks.jump(node, &mut self.rng);
            }
            12 => {
                let (from, to) = (self.rng.below(nodes) as usize, self.rng.below(nodes) as usize);
                let (most, time) = (self.rng.between(20_000, 900_000), self.rng.between(100_000, 3_000_000));
                self.net.set_slow(from, to, most);
                self.engine.after(time, Happens::Faster { from, to });
            }
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
            5..=6 => self.trim_somewhere(),
            8 => {
                let (node, gid) = (self.rng.below(nodes) as usize, self.any_gid());
                if self.nodes[node].up() {
                    self.core_event(node, gid, Event::StepDown);
                }
            }
            _ => {
                for node in 0..self.nodes.len() {
                    for gid in self.gids.clone() {
                        if self.nodes[node].up() {
                            let acked = self.checker.groups.get(&gid).map_or(EntryIndex(0), |g| g.acked.0);
                            let n = &mut self.nodes[node];
                            n.next_proposal += 1;
                            let token = n.next_proposal;
                            n.barriers.insert(token, (gid, acked));
                            self.core_event(node, gid, Event::ReadBarrier(token));
                        }
                    }
                }
            }
        }
        self.next_fault();
    }

    /// The setting of a topic changes while it is written.
    fn switch_durability(&mut self) {
        let (node, now) = (self.rng.below(self.nodes.len() as u64) as usize, self.engine.now());
        if self.nodes[node].up() {
            let (now, mut wishes) = (self.clocks.now(node, now), Vec::new());
            self.out.switches += 1;
            let to = self.nodes[node].storage.switch_durability(now, self.swarm.relaxed, &mut wishes);
            tell!(self, "node {node}: its topics are {to:?} from now on");
            self.grant(node, wishes);
            if self.rng.chance(500_000) {
                // While the change is under way.
                let soon = self.rng.between(1_000, 60_000);
                self.engine.after(soon, Happens::Doom { node });
            }
        }
    }

    /// Retention, by whoever leads.
    fn trim_somewhere(&mut self) {
        let gid = self.any_gid();
        let leader = if self.nodes.len() == 1 { Some(0) } else { self.leader_of(gid) };
        let Some((node, core)) = leader.and_then(|n| Some((n, self.nodes[n].cores.get(&gid)?))) else { return };
        let offset = Offset(self.rng.below(core.view().high_watermark.0 + 1));
        let start = LogStart { offset, reason: TrimReason::Retention };
        self.out.trims += 1;
        tell!(self, "log start of {gid:?} to {offset}, at node {node}");
        self.story.trimmed(self.engine.now(), gid, offset);
        self.core_event(node, gid, Event::Propose(vec![Proposal::log_start(ProposalId(0), start)]));
    }

    pub(crate) fn next_fault(&mut self) {
        let next = self.rng.between(self.swarm.fault_every / 4, self.swarm.fault_every * 2);
        self.engine.after(next, Happens::Fault);
    }

    pub(crate) fn calm(&mut self) {
        self.calm_at = Some(self.engine.now());
        tell!(self, "calm");
        self.acked_when_calm = self.ledger_len();
        self.net.calm = true;
        self.net.heal();
        self.plot.held.fill(false);
        self.hush_until = 0;
        self.clocks.calm();
        // A damaged node of several is taken out, as an operator would: the others are the core that must be well.
        for node in 0..self.nodes.len() {
            let whole = self.atlas.files_are_whole(node) && !self.atlas.is_damaged(node);
            let whole = whole || (self.atlas.files_are_whole(node) && self.swarm.profile.damages_journals());
            if self.nodes.len() > 1 && !whole && !self.nodes[node].out {
                self.read_damaged(node);
                self.refuse(node);
            }
        }
        for node in &mut self.nodes {
            node.storage.calm();
        }
        for node in 0..self.nodes.len() {
            self.engine.after(1_000, Happens::Start { node });
        }
        self.engine.after(100_000, Happens::Look);
    }
}
