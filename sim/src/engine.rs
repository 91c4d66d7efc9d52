//! Pure. Simulated time: events by (time, order of making), and a hash over everything that happened.

use std::collections::BTreeMap;

/// Microseconds of simulated time.
pub type Micros = u64;

pub struct Engine<E> {
    now: Micros,
    made: u64,
    steps: u64,
    trace: u64,
    queue: BTreeMap<(Micros, u64), E>,
}

impl<E> Default for Engine<E> {
    fn default() -> Self {
        Engine { now: 0, made: 0, steps: 0, trace: 0xcbf2_9ce4_8422_2325, queue: BTreeMap::new() }
    }
}

impl<E> Engine<E> {
    pub fn now(&self) -> Micros {
        self.now
    }
    pub fn steps(&self) -> u64 {
        self.steps
    }
    pub fn trace(&self) -> u64 {
        self.trace
    }
    /// Runs `event` after `delay`; equal times keep their order.
    pub fn after(&mut self, delay: Micros, event: E) {
        self.at(self.now + delay, event);
    }
    pub fn at(&mut self, when: Micros, event: E) {
        self.made += 1;
        self.queue.insert((when.max(self.now), self.made), event);
    }
    pub fn pop(&mut self) -> Option<E> {
        let ((when, _), event) = self.queue.pop_first()?;
        self.now = when;
        self.steps += 1;
        self.fold(when);
        Some(event)
    }
    /// Puts a fact into the trace hash (FNV-1a).
    pub fn fold(&mut self, fact: u64) {
        for byte in fact.to_le_bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}
