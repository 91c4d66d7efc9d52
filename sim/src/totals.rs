//! Pure. What many runs did together: hours, writes, faults. A run without faults is no proof, so faults are counted.

use crate::world::Outcome;
use std::fmt;

#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub runs: u64,
    /// Microseconds of simulated time.
    pub simulated: u64,
    pub steps: u64,
    pub acked: u64,
    pub crashes: u64,
    pub power_cuts: u64,
    pub cuts: u64,
    pub elections: u64,
    pub stops: u64,
    pub disk_errors: u64,
    pub damages: u64,
    pub refused: u64,
    pub trims: u64,
    pub moves: u64,
    pub transfers: u64,
    pub mutes: u64,
    pub unmutes: u64,
    pub new_ids: u64,
    pub installs: u64,
    pub relaxed_losses: u64,
    pub relaxed_lost: u64,
    pub txns: u64,
    pub compacted: u64,
    pub switches: u64,
    pub remade: u64,
    pub plots: u64,
    pub violations: u64,
}

impl Totals {
    pub fn add(&mut self, o: &Outcome) {
        self.merge(&Totals {
            runs: 1,
            simulated: o.simulated,
            steps: o.steps,
            acked: o.acked,
            crashes: o.crashes,
            power_cuts: o.power_cuts,
            cuts: o.cuts,
            elections: o.elections,
            stops: o.stops,
            disk_errors: o.disk_errors,
            damages: o.damages,
            refused: o.refused,
            trims: o.trims,
            moves: o.moves,
            transfers: o.transfers,
            mutes: o.mutes,
            unmutes: o.unmutes,
            new_ids: o.new_ids,
            installs: o.installs,
            relaxed_losses: o.relaxed_losses,
            relaxed_lost: o.relaxed_lost,
            txns: o.txns,
            compacted: o.compacted,
            switches: o.switches,
            remade: o.remade,
            plots: o.plots,
            violations: u64::from(o.violation.is_some()),
        });
    }
    pub fn merge(&mut self, o: &Totals) {
        self.runs += o.runs;
        self.simulated += o.simulated;
        self.steps += o.steps;
        self.acked += o.acked;
        self.crashes += o.crashes;
        self.power_cuts += o.power_cuts;
        self.cuts += o.cuts;
        self.elections += o.elections;
        self.stops += o.stops;
        self.disk_errors += o.disk_errors;
        self.damages += o.damages;
        self.refused += o.refused;
        self.trims += o.trims;
        self.moves += o.moves;
        self.transfers += o.transfers;
        self.mutes += o.mutes;
        self.unmutes += o.unmutes;
        self.new_ids += o.new_ids;
        self.installs += o.installs;
        self.relaxed_losses += o.relaxed_losses;
        self.relaxed_lost += o.relaxed_lost;
        self.txns += o.txns;
        self.compacted += o.compacted;
        self.switches += o.switches;
        self.remade += o.remade;
        self.plots += o.plots;
        self.violations += o.violations;
    }
    pub fn simulated_hours(&self) -> f64 {
        self.simulated as f64 / 3.6e9
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} runs, {:.2} simulated cluster-hours, {} steps, {} acknowledged writes, {} elections; faults: {} crashes \
             ({} power cuts), {} partitions, {} stopped processes, {} disk errors, {} damaged disks ({} refused), {} trims, \
             {} changes of members, {} transfers, {} mute replicas ({} fed), {} burnt ids, {} prefix snapshots, {} losses of relaxed topics ({} entries, within their windows), \
             {} ended transactions, {} compacted segments, {} changes of durability, {} topics made anew, {} plots; {} violations",
            self.runs,
            self.simulated_hours(),
            self.steps,
            self.acked,
            self.elections,
            self.crashes,
            self.power_cuts,
            self.cuts,
            self.stops,
            self.disk_errors,
            self.damages,
            self.refused,
            self.trims,
            self.moves,
            self.transfers,
            self.mutes,
            self.unmutes,
            self.new_ids,
            self.installs,
            self.relaxed_losses,
            self.relaxed_lost,
            self.txns,
            self.compacted,
            self.switches,
            self.remade,
            self.plots,
            self.violations
        )
    }
}
