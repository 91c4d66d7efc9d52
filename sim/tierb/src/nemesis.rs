//! What goes wrong, one thing after the other, sometimes two at once.

use crate::node::Machine;
use crate::swarm::Swarm;
use catchwater_base::Rng;
use catchwater_runtime::sim::{Host, World};
use catchwater_runtime::time;
use catchwater_storage::disk::faulty::FaultRates;
use catchwater_storage::disk::memory::Cut;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Sorts of faults.
pub const NAMES: [&str; 11] = [
    "kill",
    "power cut",
    "kill in a start",
    "shutdown",
    "connections cut",
    "links held",
    "disk full",
    "error of a write",
    "slow disk",
    "errors of reads",
    "clock set",
];

pub struct Nemesis {
    pub world: Arc<World>,
    pub clients: Vec<Arc<Host>>,
    pub swarm: Swarm,
    pub rng: Rng,
    pub counts: BTreeMap<&'static str, u64>,
}

fn cut(rng: &mut Rng) -> Cut {
    [Cut::LoseAll, Cut::KeepAll, Cut::Random, Cut::Random, Cut::GarbageTail][rng.below(5) as usize]
}

impl Nemesis {
    /// Breaks things until the time has come.
    pub async fn rage(&mut self, machine: &mut Machine, until: Duration) {
        while self.world.elapsed() < until {
            let (least, most) = self.swarm.fault_ms;
            let rest = Duration::from_millis(self.rng.between(least, most));
            self.rest(machine, rest.min(until.saturating_sub(self.world.elapsed()))).await;
            let sort = self.swarm.faults[self.rng.below(self.swarm.faults.len() as u64) as usize];
            *self.counts.entry(NAMES[sort as usize]).or_default() += 1;
            self.strike(machine, sort).await;
            if machine.life().is_none() {
                let down = Duration::from_millis(self.rng.below(3_000));
                time::sleep(down).await;
                machine.start();
            }
        }
        self.heal(machine);
    }

    /// Everything as it should be; what is down is started by the caller.
    pub fn heal(&mut self, machine: &mut Machine) {
        machine.room();
        machine.disk.set_rates(FaultRates::default());
        machine.pace.set_sync_ms(self.swarm.sync_ms);
        self.world.net().release_all();
        if machine.life().is_none() {
            machine.start();
        }
    }

    /// Time passes; a node whose disk has failed is started again.
    pub async fn rest(&mut self, machine: &mut Machine, time: Duration) {
        let until = self.world.elapsed() + time;
        loop {
            let left = until.saturating_sub(self.world.elapsed());
            if left.is_zero() {
                return;
            }
            time::sleep(left.min(Duration::from_millis(100))).await;
            if machine.bury().await {
                time::sleep(Duration::from_millis(self.rng.below(500))).await;
                machine.start();
            }
        }
    }

    async fn strike(&mut self, machine: &mut Machine, sort: u64) {
        match sort {
            0 => machine.kill(None).await,
            1 => {
                let cut = cut(&mut self.rng);
                machine.kill(Some(cut)).await;
            }
            2 => {
                for _ in 0..self.rng.between(1, 4) {
                    let cut = self.rng.chance(500_000).then(|| cut(&mut self.rng));
                    machine.kill(cut).await;
                    machine.start();
                    let alive = self.rng.below(60);
                    self.rest(machine, Duration::from_millis(alive)).await;
                }
            }
            3 => drop(machine.shut_down().await),
            4 => {
                for client in &self.clients {
                    if self.rng.chance(600_000) {
                        self.world.net().cut(client.id());
                    }
                }
            }
            5 => {
                let Some(node) = machine.life().map(|life| life.host.id()) else { return };
                let one_way = self.rng.below(3);
                for client in &self.clients {
                    if self.rng.chance(600_000) {
                        if one_way != 1 {
                            self.world.net().hold(node, client.id());
                        }
                        if one_way != 2 {
                            self.world.net().hold(client.id(), node);
                        }
                    }
                }
                let long = if self.rng.chance(200_000) { 25_000 } else { 3_000 };
                let held = Duration::from_millis(self.rng.below(long));
                self.rest(machine, held).await;
                self.world.net().release_all();
            }
            6 => {
                machine.full();
                let full = Duration::from_millis(self.rng.between(100, 6_000));
                self.rest(machine, full).await;
                if self.rng.chance(200_000) {
                    machine.kill(None).await;
                    machine.start();
                    self.rest(machine, Duration::from_millis(1_000)).await;
                }
                machine.room();
            }
            7 => machine.disk.fail_write_in(self.rng.below(40)),
            8 => {
                machine.pace.set_sync_ms(self.rng.between(100, 900));
                let slow = Duration::from_millis(self.rng.between(500, 8_000));
                self.rest(machine, slow).await;
                machine.pace.set_sync_ms(self.swarm.sync_ms);
            }
            9 => {
                let rates = FaultRates { read_error: self.rng.between(1_000, 200_000) as u32, ..FaultRates::default() };
                machine.disk.set_rates(rates);
                let bad = Duration::from_millis(self.rng.between(100, 3_000));
                self.rest(machine, bad).await;
                machine.disk.set_rates(FaultRates::default());
            }
            _ => {
                if let Some(life) = machine.life() {
                    let by = self.rng.below(7_200_000_000) as i64 - 3_600_000_000;
                    life.host.set_skew_us(by);
                }
            }
        }
    }
}
