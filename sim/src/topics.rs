//! Topics that are deleted and made again, as the controller does it: a new topic is a new group, under a number that no
//! other ever had. A node that is down hears of it when it comes up, and finds what is left on its disk.

use crate::moves::spec_of;
use crate::tell::tell;
use crate::world::{World, peer};
use catchwater_raft::{ConfState, PeerId};
use catchwater_record::{EntryIndex, Gid};

impl World {
    /// A topic that is there.
    pub(crate) fn any_gid(&mut self) -> Gid {
        self.gids[self.rng.below(self.gids.len() as u64) as usize]
    }

    /// One goes with all its files, another comes in its place.
    pub(crate) fn replace_topic(&mut self) {
        let old = self.any_gid();
        let new = Gid((self.gids.len() + self.removed.len()) as u64 + 1);
        tell!(self, "{old:?} is deleted, {new:?} is made");
        self.out.remade += 1;
        self.removed.push(old);
        self.gids.iter_mut().filter(|gid| **gid == old).for_each(|gid| *gid = new);
        self.story.removed(old);
        let voters: Vec<PeerId> = (0..self.swarm.voters).map(peer).collect();
        let spec = spec_of(new, &ConfState::of_voters(voters), EntryIndex::ZERO);
        for node in 0..self.nodes.len() {
            let (now, mut wishes) = (self.now(node), Vec::new());
            let n = &mut self.nodes[node];
            n.cores.remove(&old);
            n.waiters.remove(&old);
            n.trimmed.remove(&old);
            n.barriers.retain(|_, (gid, _)| *gid != old);
            n.storage.remove(now, old, &mut wishes);
            self.grant(node, wishes);
        }
        for producer in self.producers.iter_mut().filter(|p| p.gid == old) {
            producer.moved(new);
        }
        for node in 0..self.swarm.voters {
            if self.nodes[node].up() {
                self.create_replica(node, new, spec.clone());
            } else {
                self.nodes[node].storage.assign(new, spec.clone());
            }
            if self.nodes[node].up() && self.chance(200_000) {
                // Before the journal has heard of either.
                self.doom(node);
            }
        }
    }

    /// Nothing of a topic that is gone is on the disk of this node.
    pub(crate) fn nothing_is_left(&self, node: usize) -> bool {
        self.removed.is_empty() || {
            let names = self.nodes[node].storage.directories();
            let left = |gid: &Gid| names.iter().any(|name| name.starts_with(&format!("{:016x}", gid.0)));
            !self.removed.iter().any(left)
        }
    }
}
