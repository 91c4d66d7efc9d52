//! Pure. Streams between nodes: in order per direction (a stream is TCP), but with holes, repeats, delays and cuts.

use crate::engine::Micros;
use crate::swarm::Swarm;
use catchwater_base::Rng;

pub struct Net {
    nodes: usize,
    /// `cut[from * nodes + to]`.
    cut: Vec<bool>,
    /// When the last message of a direction arrives: the next one is not earlier.
    last: Vec<Micros>,
    /// Extra delay of a direction at most: a clogged path.
    slow: Vec<Micros>,
    pub calm: bool,
}

impl Net {
    pub fn new(nodes: usize) -> Self {
        Net {
            nodes,
            cut: vec![false; nodes * nodes],
            last: vec![0; nodes * nodes],
            slow: vec![0; nodes * nodes],
            calm: false,
        }
    }
    pub fn set_cut(&mut self, from: usize, to: usize, cut: bool) {
        self.cut[from * self.nodes + to] = cut;
    }
    pub fn set_slow(&mut self, from: usize, to: usize, most: Micros) {
        self.slow[from * self.nodes + to] = most;
    }
    pub fn heal(&mut self) {
        self.cut.fill(false);
        self.slow.fill(0);
    }
    /// What a new stream carries may overtake what is left of the one before.
    pub fn new_stream(&mut self, from: usize, to: usize) {
        self.last[from * self.nodes + to] = 0;
    }
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut[from * self.nodes + to]
    }

    /// When a message that is neither lost nor repeated arrives. In its order.
    pub fn send_surely(&mut self, now: Micros, from: usize, to: usize, swarm: &Swarm, rng: &mut Rng) -> Micros {
        let link = from * self.nodes + to;
        let at = (now + rng.between(swarm.delay.0, swarm.delay.1)).max(self.last[link] + 1);
        self.last[link] = at;
        at
    }

    /// Times at which a message sent now arrives: none, one, or (repeated) two.
    pub fn send(&mut self, now: Micros, from: usize, to: usize, swarm: &Swarm, rng: &mut Rng) -> Vec<Micros> {
        let link = from * self.nodes + to;
        if self.cut[link] || (!self.calm && rng.chance(swarm.drop)) {
            return Vec::new();
        }
        let mut delay = rng.between(swarm.delay.0, swarm.delay.1);
        if !self.calm && rng.chance(swarm.delay_tail) {
            delay += rng.between(10_000, 200_000);
        }
        if self.slow[link] > 0 {
            delay += rng.below(self.slow[link]);
        }
        let at = (now + delay).max(self.last[link] + 1);
        self.last[link] = at;
        if !self.calm && rng.chance(swarm.duplicate) {
            self.last[link] = at + 1;
            return vec![at, at + 1];
        }
        vec![at]
    }
}
