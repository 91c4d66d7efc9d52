//! Plots: instead of faults at random, one course of events that a rule was written for, again and again with other moments.
//! A random mix reaches them once in thousands of seeds; a bug that only such a course shows would live for long.
//!
//! | plot | course | rule |
//! |---|---|---|
//! | Votes | who granted a vote dies the moment it is counted; one that missed the election asks it in the same term | a vote is durable before it counts |
//! | Amnesia | of two that acknowledged, one dies and the other loses its page cache, and dies once more; the third never had it | M1, M2, R17; marks outlive their journal file |
//! | Majority | one dies with what was acknowledged, the two others lose their page caches | M6: every voter, the greatest |
//! | Fresh | of five, a leader that knows of no commit feeds one that lost its page cache, and dies when that one is fed | M3: the bound is the last index |
//! | OldTail | an old leader's tail is longer than what was committed over it, whose newer half is lost with the power | M6: not against what is known committed |
//! | Behind | one hears nothing while the others compact, each by itself; of those that feed it then one dies on the way | tombstones stay, a gap has its offsets |
//! | Overtaken | acknowledgements of a life that lost its page cache arrive behind the first words of the next life | R19, M4 |
//!
//! Clients write all the time; links neither drop nor repeat. A plot that does not come on within seconds begins anew.

use crate::engine::Micros;
use crate::swarm::Profile;
use crate::tell::tell;
use crate::world::World;
use catchwater_raft::Event;
use catchwater_record::{EntryIndex, Gid};

/// A plot that hangs begins anew.
const PATIENCE: Micros = 4_000_000;

#[derive(Default)]
pub(crate) struct Plot {
    step: u8,
    since: Micros,
    /// Nothing is done before.
    until: Micros,
    /// Who plays what.
    cast: Vec<usize>,
    /// Do not come up before the plot says so.
    pub(crate) held: Vec<bool>,
    mark: EntryIndex,
    /// Compacted segments when the step began.
    compacted: u64,
}

impl Plot {
    pub(crate) fn of(nodes: usize) -> Plot {
        Plot { held: vec![false; nodes], ..Plot::default() }
    }
}

impl World {
    /// The plot goes on; when to look again.
    pub(crate) fn act(&mut self) -> Micros {
        let now = self.engine.now();
        if now >= self.plot.until {
            if self.plot.step > 0 && now > self.plot.since + PATIENCE {
                self.curtain();
            }
            match self.swarm.profile {
                Profile::Votes => self.votes(),
                Profile::Amnesia => self.amnesia(),
                Profile::Majority => self.majority(),
                Profile::Fresh => self.fresh(),
                Profile::OldTail => self.old_tail(),
                Profile::Behind => self.behind(),
                _ => self.overtaken(),
            }
        }
        self.rng.between(300, 4_000)
    }

    /// Everything heals, everybody comes up; the plot begins anew after a while.
    pub(crate) fn curtain(&mut self) {
        self.net.heal();
        for node in 0..self.nodes.len() {
            self.let_up(node);
        }
        self.hush_until = 0;
        self.next(0, 300_000);
    }

    /// The next step, at most so much later.
    fn next(&mut self, step: u8, most: Micros) {
        let now = self.engine.now();
        (self.plot.step, self.plot.since) = (step, now);
        self.plot.until = now + self.rng.below(most + 1);
        tell!(self, "step {step} of the plot, {:?}", self.plot.cast);
    }

    fn hold(&mut self, node: usize, power: bool) {
        self.plot.held[node] = true;
        if self.nodes[node].up() {
            self.crash(node, power);
        }
    }

    fn let_up(&mut self, node: usize) {
        if std::mem::take(&mut self.plot.held[node]) {
            self.engine.after(0, crate::world::Happens::Start { node });
        }
    }

    /// Falls, and comes up again soon.
    fn fall(&mut self, node: usize, power: bool) {
        if self.nodes[node].up() {
            self.crash(node, power);
        }
    }

    /// No way between two nodes, or one again.
    fn part(&mut self, a: usize, b: usize, cut: bool) {
        self.net.set_cut(a, b, cut);
        self.net.set_cut(b, a, cut);
    }

    fn of_plot(&self) -> Gid {
        self.gids[0]
    }

    fn last(&self, node: usize) -> EntryIndex {
        let core = self.nodes[node].cores.get(&self.of_plot());
        core.map_or(EntryIndex::ZERO, |c| c.view().last)
    }

    fn persisted(&self, node: usize) -> EntryIndex {
        let core = self.nodes[node].cores.get(&self.of_plot());
        core.map_or(EntryIndex::ZERO, |c| c.view().persisted)
    }

    fn term(&self, node: usize) -> u32 {
        self.nodes[node].cores.get(&self.of_plot()).map_or(0, |c| c.view().term.0)
    }

    /// The first entry of its term is durable here.
    fn began_its_term(&self, node: usize) -> bool {
        self.nodes[node].cores.get(&self.of_plot()).is_some_and(|c| {
            let view = c.view();
            c.log().last_term() == view.term && view.persisted == view.last
        })
    }

    fn all_up(&self) -> bool {
        self.nodes.iter().all(|n| n.up())
    }

    /// Everybody is up, follows the same leader, and is not behind with its disk.
    fn at_ease(&self) -> Option<usize> {
        let leader = self.leader_of(self.of_plot())?;
        let views: Vec<_> = self.nodes.iter().filter_map(|n| Some(n.cores.get(&self.gids[0])?.view())).collect();
        let well = views.len() == self.nodes.len()
            && views.iter().all(|v| v.term == views[0].term && v.leader.is_some() && !v.mute)
            && views.iter().all(|v| v.persisted.0 + 3 >= v.last.0);
        (well && self.all_up()).then_some(leader)
    }

    /// The leader, then the others in any order.
    fn assign(&mut self, leader: usize) {
        let mut others: Vec<usize> = (0..self.nodes.len()).filter(|n| *n != leader).collect();
        for at in (1..others.len()).rev() {
            others.swap(at, self.rng.below(at as u64 + 1) as usize);
        }
        self.plot.cast = [vec![leader], others].concat();
    }

    fn end_round(&mut self) {
        self.out.plots += 1;
        self.curtain();
    }

    /// `node` leads from now on.
    pub(crate) fn plot_leads(&mut self, node: usize, gid: Gid) {
        if gid != self.of_plot() || self.is_calm() {
            return;
        }
        match (self.swarm.profile, self.plot.step) {
            // [old leader, one that hears nothing, the third]
            (Profile::Votes, 1) if node != self.plot.cast[1] => {
                let other = self.plot.cast[0] + self.plot.cast[2] - node;
                let deaf = self.plot.cast[1];
                self.part(node, other, true);
                self.part(node, deaf, true);
                self.part(other, deaf, false);
                self.nodes[other].doomed = Some(self.rng.chance(500_000));
                self.next(2, 0);
            }
            // [first leader, the second, the third]
            (Profile::OldTail, 2) if node != self.plot.cast[0] => {
                let third = self.plot.cast[1] + self.plot.cast[2] - node;
                self.plot.cast = vec![self.plot.cast[0], node, third];
                self.part(node, third, true);
                self.next(3, 30_000);
            }
            // [first leader, two that have everything, two that do not]
            (Profile::Fresh, 2) if self.plot.cast[1..3].contains(&node) => {
                let other = self.plot.cast[1] + self.plot.cast[2] - node;
                let (late, later) = (self.plot.cast[3], self.plot.cast[4]);
                self.part(node, late, true);
                self.part(node, later, true);
                self.nodes[other].doomed = Some(true);
                self.plot.cast = vec![self.plot.cast[0], node, other, late, later];
                self.next(3, 0);
            }
            _ => {}
        }
    }

    /// `node` grants its vote: the answer arrives, and what its candidate says from then on does not.
    pub(crate) fn plot_granted(&mut self, node: usize, to: usize, gid: Gid) {
        if gid == self.of_plot() && !self.is_calm() && (self.swarm.profile, self.plot.step) == (Profile::OldTail, 2) {
            self.net.set_cut(to, node, true);
        }
    }

    /// `node` is not mute any more.
    pub(crate) fn plot_unmuted(&mut self, node: usize, gid: Gid) {
        if gid == self.of_plot()
            && !self.is_calm()
            && (self.swarm.profile, self.plot.step) == (Profile::Fresh, 3)
            && self.plot.cast.get(2) == Some(&node)
        {
            let leader = self.plot.cast[1];
            self.plot.held[leader] = true;
            self.nodes[leader].doomed = Some(false);
            self.next(4, 0);
        }
    }

    fn votes(&mut self) {
        match self.plot.step {
            0 => {
                let Some(leader) = self.at_ease() else { return };
                self.assign(leader);
                let deaf = self.plot.cast[1];
                // Logs that differ decide elections.
                self.hush_until = self.engine.now() + 1_500_000;
                if (0..3).any(|n| self.last(n) != self.last(leader)) {
                    return;
                }
                self.part(deaf, leader, true);
                self.part(deaf, self.plot.cast[2], true);
                self.next(1, 0);
                let gid = self.of_plot();
                self.core_event(leader, gid, Event::StepDown);
            }
            2 if self.engine.now() > self.plot.since + 500_000 => self.end_round(),
            _ => {}
        }
    }

    fn amnesia(&mut self) {
        match self.plot.step {
            0 => {
                let Some(leader) = self.at_ease() else { return };
                self.assign(leader);
                let third = self.plot.cast[2];
                self.part(third, leader, true);
                self.part(third, self.plot.cast[1], true);
                // The journal, which other topics fill, must come round before the mark of this one is due again.
                self.next(1, if self.swarm.half { 1_500_000 } else { 150_000 });
            }
            1 => {
                let (leader, forgets) = (self.plot.cast[0], self.plot.cast[1]);
                self.hold(leader, false);
                self.fall(forgets, true);
                self.next(2, 40_000);
            }
            2 if self.nodes[self.plot.cast[1]].up() => {
                let (forgets, third) = (self.plot.cast[1], self.plot.cast[2]);
                if self.rng.chance(600_000) {
                    self.fall(forgets, false);
                }
                self.part(forgets, third, false);
                self.next(3, 0);
            }
            3 if self.engine.now() > self.plot.since + 600_000 => {
                let leader = self.plot.cast[0];
                self.part(self.plot.cast[2], leader, false);
                self.let_up(leader);
                self.next(4, 0);
            }
            4 if self.at_ease().is_some() => self.end_round(),
            _ => {}
        }
    }

    fn majority(&mut self) {
        match self.plot.step {
            0 => {
                let Some(leader) = self.at_ease() else { return };
                self.assign(leader);
                if self.rng.chance(500_000) {
                    self.plot.cast.rotate_left(1);
                }
                self.next(1, 150_000);
            }
            1 => {
                let cast = self.plot.cast.clone();
                self.hold(cast[0], false);
                self.fall(cast[1], true);
                self.fall(cast[2], true);
                self.next(2, 0);
            }
            2 if self.engine.now() > self.plot.since + 700_000 => {
                self.let_up(self.plot.cast[0]);
                self.next(3, 0);
            }
            3 if self.at_ease().is_some() => self.end_round(),
            _ => {}
        }
    }

    fn fresh(&mut self) {
        match self.plot.step {
            0 => {
                let Some(leader) = self.at_ease() else { return };
                self.assign(leader);
                let cast = self.plot.cast.clone();
                for late in [cast[3], cast[4]] {
                    cast[..3].iter().for_each(|n| self.part(*n, late, true));
                }
                self.next(1, 200_000);
            }
            1 => {
                let cast = self.plot.cast.clone();
                self.hold(cast[0], false);
                for late in [cast[3], cast[4]] {
                    cast[1..3].iter().for_each(|n| self.part(*n, late, false));
                }
                self.next(2, 0);
            }
            // One of the two leads and the other loses its page cache: `plot_leads`. It is fed, and its feeder dies:
            // `plot_unmuted`.
            4 => {
                let cast = self.plot.cast.clone();
                for late in [cast[3], cast[4]] {
                    self.part(cast[2], late, false);
                }
                self.next(5, 0);
            }
            5 if self.engine.now() > self.plot.since + 800_000 => {
                self.end_round();
            }
            _ => {}
        }
    }

    fn old_tail(&mut self) {
        let now = self.engine.now();
        match self.plot.step {
            0 => {
                let Some(leader) = self.at_ease() else { return };
                self.assign(leader);
                self.part(leader, self.plot.cast[1], true);
                self.part(leader, self.plot.cast[2], true);
                self.plot.mark = self.last(leader);
                self.next(1, 0);
            }
            // What only the first leader has.
            1 if self.persisted(self.plot.cast[0]) > self.plot.mark => {
                self.hush_until = now + 3_000_000;
                self.next(2, 0);
            }
            1 if now > self.plot.since + 150_000 => self.curtain(),
            3 if self.began_its_term(self.plot.cast[1]) => {
                self.part(self.plot.cast[0], self.plot.cast[2], false);
                self.next(4, 0);
            }
            // Not as the old one any more.
            4 if self.leader_of(self.of_plot()) == Some(self.plot.cast[0])
                && self.term(self.plot.cast[0]) > self.term(self.plot.cast[1]) =>
            {
                self.next(5, 60_000);
            }
            5 => {
                let (cast, all) = (self.plot.cast.clone(), self.rng.chance(500_000));
                self.fall(cast[0], true);
                self.fall(cast[2], true);
                if all {
                    let power = self.rng.chance(500_000);
                    self.fall(cast[1], power);
                }
                self.net.heal();
                self.next(6, 0);
            }
            6 if self.engine.now() > self.plot.since + 300_000 && self.at_ease().is_some() => self.end_round(),
            _ => {}
        }
    }

    fn behind(&mut self) {
        let now = self.engine.now();
        match self.plot.step {
            0 => {
                let Some(leader) = self.at_ease() else { return };
                self.assign(leader);
                let late = self.plot.cast[2];
                self.part(late, leader, true);
                self.part(late, self.plot.cast[1], true);
                self.plot.compacted = self.out.compacted;
                let least = self.rng.between(100_000, 1_200_000);
                self.next(1, 0);
                self.plot.until = now + least;
            }
            1 if self.out.compacted >= self.plot.compacted + 4 => {
                let (feeds, late) = (self.plot.cast[self.rng.below(2) as usize], self.plot.cast[2]);
                if self.rng.chance(300_000) {
                    let power = self.rng.chance(500_000);
                    self.fall(late, power);
                }
                if self.rng.chance(700_000) {
                    // What it has got is looked at before its keys are written again.
                    self.hush_until = now + 1_500_000;
                }
                self.part(late, feeds, false);
                self.next(2, 60_000);
            }
            2 => {
                let (leader, late) = (self.plot.cast[0], self.plot.cast[2]);
                if self.rng.chance(600_000) {
                    self.fall(leader, false);
                }
                if self.rng.chance(300_000) {
                    self.fall(late, true);
                }
                self.net.heal();
                self.next(3, 0);
            }
            3 if self.at_ease().is_some() => {
                (0..self.nodes.len()).for_each(|node| self.read_compacted_meanwhile(node));
                self.end_round();
            }
            _ => {}
        }
    }

    fn overtaken(&mut self) {
        match self.plot.step {
            0 => {
                let Some(leader) = self.at_ease() else { return };
                self.assign(leader);
                let (forgets, third) = (self.plot.cast[1], self.plot.cast[2]);
                self.part(leader, third, true);
                self.part(forgets, third, true);
                self.net.set_slow(forgets, leader, 400_000);
                self.next(1, 60_000);
            }
            1 => {
                let (leader, forgets) = (self.plot.cast[0], self.plot.cast[1]);
                self.fall(forgets, true);
                self.net.set_slow(forgets, leader, 0);
                self.next(2, 0);
            }
            2 if self.engine.now() > self.plot.since + 150_000 => {
                let (leader, forgets) = (self.plot.cast[0], self.plot.cast[1]);
                // Nobody feeds it, or the loss is made good.
                if self.rng.chance(500_000) {
                    self.part(leader, forgets, true);
                }
                self.next(3, 250_000);
            }
            3 => {
                let leader = self.plot.cast[0];
                self.fall(leader, true);
                self.net.heal();
                self.next(4, 0);
            }
            4 if self.engine.now() > self.plot.since + 300_000 && self.at_ease().is_some() => self.end_round(),
            _ => {}
        }
    }
}
