//! Members that come and go, as a controller without judgement would have it: learners on spare nodes, promotions, one
//! for another, removals, leadership handed over.

use crate::world::World;
use catchwater_raft::{ConfChange, ConfState, ConfStep, Event, PeerId, ProposalId, Role};
use catchwater_record::{EntryIndex, Gid, PartitionId, TopicId};
use catchwater_storage::GroupSpec;

/// What a new replica of a group is.
pub(crate) fn spec_of(gid: Gid, conf: &ConfState, conf_index: EntryIndex) -> GroupSpec {
    GroupSpec {
        topic: TopicId([gid.0 as u8; 16]),
        partition: PartitionId(0),
        incarnation: 1,
        conf: conf.encode(),
        conf_index,
    }
}

impl World {
    /// The node that leads `gid` and knows it.
    pub(crate) fn leader_of(&self, gid: Gid) -> Option<usize> {
        let leads = |n: usize| {
            let view = self.nodes[n].cores.get(&gid)?.view();
            (view.role == Role::Leader && view.own_term_committed).then_some((view.term, n))
        };
        (0..self.nodes.len()).filter_map(leads).max().map(|(_, n)| n)
    }

    pub(crate) fn move_somebody(&mut self) {
        let gid = self.any_gid();
        let Some(leader) = self.leader_of(gid) else { return };
        let Some(core) = self.nodes[leader].cores.get(&gid) else { return };
        let (conf, conf_index) = (core.conf().clone(), core.conf_index());
        if conf.is_joint() {
            return;
        }
        let me = self.id(leader, gid);
        let last = core.view().last;
        let caught_up = |p: &&PeerId| core.matched(**p).is_some_and(|m| m.0 + 20 >= last.0);
        let ready: Vec<PeerId> = conf.learners.iter().filter(caught_up).copied().collect();
        let others: Vec<PeerId> = conf.voters.iter().filter(|p| **p != me).copied().collect();
        let fresh: Vec<usize> =
            (0..self.nodes.len()).filter(|n| !conf.has(self.id(*n, gid)) && self.nodes[*n].up()).collect();
        let any = |world: &mut World, n: usize| world.rng.below(n as u64) as usize;
        let steps = match self.rng.below(10) {
            0..=2 if !fresh.is_empty() => {
                let node = fresh[any(self, fresh.len())];
                let mut with = conf.clone();
                let new = self.id(node, gid);
                with.learners.push(new);
                self.create_replica(node, gid, spec_of(gid, &with, conf_index));
                vec![ConfStep::AddLearner(new)]
            }
            0..=4 if !ready.is_empty() => {
                let learner = ready[any(self, ready.len())];
                let mut steps = vec![ConfStep::AddVoter(learner)];
                // One for another, in one change.
                if conf.voters.len() > 2 && self.rng.chance(600_000) {
                    steps.push(ConfStep::Remove(others[any(self, others.len())]));
                }
                steps
            }
            5 if !conf.learners.is_empty() => vec![ConfStep::Remove(conf.learners[any(self, conf.learners.len())])],
            6 if conf.voters.len() > 3 => vec![ConfStep::Remove(others[any(self, others.len())])],
            7 if conf.voters.len() > 3 => vec![ConfStep::AddLearner(others[any(self, others.len())])],
            8..=9 if !others.is_empty() => {
                let to = others[any(self, others.len())];
                self.out.transfers += 1;
                return self.core_event(leader, gid, Event::Transfer(to));
            }
            _ => return,
        };
        self.out.moves += 1;
        self.core_event(leader, gid, Event::ChangeConf(ProposalId(0), ConfChange::of(steps)));
    }

    /// What the controller does with burnt ids: the old one goes as the new one comes, a learner first.
    pub(crate) fn replace_burnt(&mut self) {
        for (gid, old, new) in self.burnt.clone() {
            let node = new.node().0 as usize - 1;
            let done = |world: &mut World| world.burnt.retain(|b| *b != (gid, old, new));
            if self.id(node, gid) != new {
                // Burnt again meanwhile: this one was never more than a learner, or is replaced itself.
                let later = self.burnt.iter().any(|(g, o, _)| *g == gid && *o == new);
                let member = self.leader_conf(gid).is_some_and(|c| c.has(old));
                if later && !member {
                    done(self);
                    continue;
                }
            }
            let Some(leader) = self.leader_of(gid) else { continue };
            let Some(core) = self.nodes[leader].cores.get(&gid) else { continue };
            let conf = core.conf().clone();
            if conf.is_joint() {
                continue;
            }
            let last = core.view().last;
            let caught_up = core.matched(new).is_some_and(|m| m.0 + 20 >= last.0);
            let steps = match (conf.has(old), conf.has(new)) {
                (true, false) => vec![ConfStep::AddLearner(new), ConfStep::Remove(old)],
                (true, true) => vec![ConfStep::Remove(old)],
                (false, true) if conf.learners.contains(&new) && caught_up => vec![ConfStep::AddVoter(new)],
                (false, true) if conf.learners.contains(&new) => continue,
                _ => {
                    done(self);
                    continue;
                }
            };
            self.core_event(leader, gid, Event::ChangeConf(ProposalId(0), ConfChange::of(steps)));
        }
    }

    fn leader_conf(&self, gid: Gid) -> Option<ConfState> {
        self.leader_of(gid).and_then(|n| self.nodes[n].cores.get(&gid)).map(|c| c.conf().clone())
    }

    /// Nodes that belong to `gid`, as its leader knows; all voters while nobody leads.
    pub(crate) fn members(&self, gid: Gid) -> Vec<usize> {
        let conf = self.leader_of(gid).and_then(|n| self.nodes[n].cores.get(&gid)).map(|c| c.conf().clone());
        match conf {
            Some(conf) => (0..self.nodes.len()).filter(|n| conf.has(self.id(*n, gid))).collect(),
            None => (0..self.swarm.voters).collect(),
        }
    }

    /// No change of members is under way.
    pub(crate) fn settled(&self, gid: Gid) -> bool {
        self.leader_of(gid).and_then(|n| self.nodes[n].cores.get(&gid)).is_some_and(|c| !c.conf().is_joint())
    }
}
