//! Turns of producers and capture workers, and what answers do to them.

use crate::engine::Micros;
use crate::workload::{Reply, Who, Wish, Worker, WorkerState, number};
use crate::world::{Happens, World};
use catchwater_record::CaptureId;

impl World {
    pub(crate) fn producer_turn(&mut self, id: usize, timed_out: bool) {
        let ending = self.full && self.producers[id].has_open_txn();
        if self.full && self.producers[id].idle() && !ending {
            return;
        }
        let at_ms = (self.engine.now() / 1000) as i64;
        let records = self.rng.between(1, 3) as u32;
        if timed_out && !self.producers[id].idle() {
            self.producers[id].target = self.rng.below(self.nodes.len() as u64) as usize;
        }
        // Drawn only where it is needed: a run without such a load is the run it was.
        let ends = self.producers[id].txn.is_some() && (ending || self.rng.chance(300_000));
        let ends = ends.then(|| self.rng.chance(600_000));
        let dice = if self.producers[id].has_keys { self.rng.next_u64() } else { 0 };
        let wish = Wish { records, at_ms, value_bytes: self.swarm.value_bytes, ends, dice };
        let request = self.producers[id].request(wish, self.engine.now());
        let target = self.producers[id].target;
        self.ask(target, request);
        self.producer_turns[id] += 1;
        let (turn, patience) = (self.producer_turns[id], self.rng.between(100_000, 600_000));
        self.engine.after(patience, Happens::ProducerTurn { id, turn });
    }

    pub(crate) fn next_producer_turn(&mut self, id: usize, delay: Micros) {
        self.producer_turns[id] += 1;
        self.engine.after(delay, Happens::ProducerTurn { id, turn: self.producer_turns[id] });
    }

    pub(crate) fn next_worker_turn(&mut self, id: usize, delay: Micros, again: bool) {
        self.worker_turns[id] += 1;
        self.engine.after(delay, Happens::WorkerTurn { id, turn: self.worker_turns[id], again });
    }

    pub(crate) fn answered(&mut self, who: Who, id: u64, reply: Reply) {
        let mut think = self.rng.between(self.swarm.think.0, self.swarm.think.1);
        if self.swarm.load.compact.is_some() && self.rng.chance(20_000) {
            // Silent for a while: all of its records may go, and its newest batch stays.
            think = self.rng.between(200_000, 2_000_000);
        }
        let back_off = self.rng.between(5_000, 60_000);
        match who {
            Who::Producer(p) => {
                if !self.producers[p].is_waiting_for(id) {
                    return;
                }
                match reply {
                    Reply::Done { base, .. } => {
                        let (now, txn) = (self.engine.now(), self.producers[p].txn);
                        let ended = self.producers[p].done(id, base).flatten();
                        let name = |n| self.producers[p].txn_name(n);
                        if let (Some(commits), Some(txn)) = (ended, txn) {
                            self.out.txns += 1;
                            self.story.ended(now, p, (name(txn.number), txn.ending.unwrap_or(now)), Some(commits));
                        }
                        self.story.acked(now, p, id, base, txn.map(|t| name(t.number)));
                        self.out.acked += 1;
                        if self.full && !self.producers[p].has_open_txn() {
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

    pub(crate) fn worker_turn(&mut self, id: usize, again: bool) {
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
    pub(crate) fn new_worker(&mut self, capture: usize) {
        let id = self.workers.len();
        let epoch = self.workers.iter().filter(|w| w.capture == CaptureId(capture as u64)).count() as u32 + 1;
        let gid = self.gids[capture % self.gids.len()];
        self.workers.push(Worker::new(id, CaptureId(capture as u64), epoch, gid, self.swarm.value_bytes));
        self.worker_turns.push(0);
        self.captures[capture] = id;
        self.worker_turn(id, false);
        if !self.is_calm() {
            let life = self.rng.between(500_000, 4_000_000);
            self.engine.after(life, Happens::NewWorker { capture });
        }
    }
}
