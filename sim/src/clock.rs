//! Pure. Each node's clocks: its own rate of ticks, a wall clock that is off and jumps, and times in which it is stopped
//! (SIGSTOP): what was meant for it happens when it goes on.

use crate::engine::Micros;
use crate::swarm::Swarm;
use catchwater_base::{Mono, Now, Rng, Wall};

/// Where simulated wall clocks begin, microseconds since 1970.
const WALL: i64 = 1_700_000_000_000_000;
/// A wall clock jumps at most so far, microseconds.
const JUMP: u64 = 3_600_000_000;

pub struct Clocks {
    ticks: Vec<Micros>,
    wall: Vec<i64>,
    stopped: Vec<Micros>,
}

impl Clocks {
    pub fn new(swarm: &Swarm) -> Self {
        let nodes = swarm.ticks.len();
        Clocks { ticks: swarm.ticks.clone(), wall: vec![0; nodes], stopped: vec![0; nodes] }
    }
    /// Time between two ticks of `node`.
    pub fn tick(&self, node: usize) -> Micros {
        self.ticks[node]
    }
    pub fn now(&self, node: usize, at: Micros) -> Now {
        Now { mono: Mono::from_nanos(at * 1000), wall: Wall::from_micros(WALL + at as i64 + self.wall[node]) }
    }
    /// The wall clock is set, forwards or back.
    pub fn jump(&mut self, node: usize, rng: &mut Rng) {
        self.wall[node] = rng.below(2 * JUMP) as i64 - JUMP as i64;
    }
    pub fn stop(&mut self, node: usize, until: Micros) {
        self.stopped[node] = self.stopped[node].max(until);
    }
    /// When it goes on, if it is stopped now.
    pub fn stopped(&self, node: usize, now: Micros) -> Option<Micros> {
        (self.stopped[node] > now).then_some(self.stopped[node])
    }
    pub fn calm(&mut self) {
        self.stopped.fill(0);
    }
}
