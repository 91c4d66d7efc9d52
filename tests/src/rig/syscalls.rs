//! Death at exact system calls of the shipped binary: `strace` kills it at the entry of the n-th write, sync, truncation,
//! rename or removal of one thread, over a script of 200 operations that makes, fills, rolls, trims and deletes topics and ends
//! with a clean stop. One fresh log per point; afterwards it starts again and the ledger judges.

use super::load::{Load, Shape};
use super::node::{Launch, Node, Started};
use super::strace::{Strace, calls_per_thread};
use super::{Outcome, Work};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;

/// Calls that change the disk.
pub const CALLS: [&str; 10] =
    ["pwrite64", "pwritev", "fdatasync", "fsync", "ftruncate", "fallocate", "rename", "unlink", "rmdir", "mkdirat"];
/// Batches of the script; topics are made, and half-way deleted and made again, besides.
const OPERATIONS: u64 = 200;

/// One point: the `when`-th `call` of any one thread.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Point {
    pub call: String,
    pub when: u32,
}

struct Life {
    load: Load,
    node: Node,
}

impl Life {
    fn new(seed: u64, work: &Path) -> Life {
        let shape = Shape { producers: 2, value_bytes_max: 40_000, records_max: 4, era_cycles: 1, relaxed: false };
        let _ = std::fs::remove_dir_all(work.join("data"));
        Life { load: Load::new(seed, shape), node: Node::new(work, &work.join("data"), super::power::small()) }
    }

    /// The script; true if the process died before its end.
    fn script(&mut self, trace: Strace) -> Result<bool> {
        match self.node.start(&Launch { env: Vec::new(), strace: Some(trace) })? {
            Started::Ended(_) => return Ok(true),
            Started::Ready => {}
        }
        let pid = self.node.pid().unwrap_or_default();
        for half in 1..=2 {
            let sent = self.load.tally.clone();
            let until = OPERATIONS * half / 2;
            self.load.run(self.node.kafka(), &move || {
                sent.sent.load(Ordering::Relaxed) >= until || super::kills::is_gone(pid)
            });
        }
        if !self.node.alive() {
            self.node.kill();
            return Ok(true);
        }
        Ok(self.node.stop()?.code() != Some(143))
    }
}

/// How often the busiest thread makes each call in one script: the points there are.
pub fn points(seed: u64) -> Result<Vec<Point>> {
    let work = Work::new("calls");
    let mut life = Life::new(seed, work.path());
    let trace = Strace::new(&work.path().join("trace"), &CALLS.join(","));
    life.script(trace.clone())?;
    let calls = calls_per_thread(&trace.read());
    let point = |(call, most): (&String, &u32)| {
        let call = call.clone();
        (1..=*most).map(move |when| Point { call: call.clone(), when }).collect::<Vec<_>>()
    };
    Ok(calls.iter().filter(|(c, _)| CALLS.contains(&c.as_str())).flat_map(point).collect())
}

/// At most `most` of `all`, evenly over calls and time, begun at the seed's place.
pub fn share(all: &[Point], most: usize, seed: u64) -> Vec<Point> {
    if all.len() <= most {
        return all.to_vec();
    }
    let from = (seed as usize).wrapping_mul(7919) % all.len();
    (0..most).map(|i| all[(from + i * all.len() / most) % all.len()].clone()).collect()
}

/// Scripts side by side: most of a script waits for a start or a sync.
const LANES: usize = 3;

/// One death and one judgement per point.
pub fn run(seed: u64, points: &[Point]) -> Result<Outcome> {
    let lane = |at: usize| points.iter().skip(at).step_by(LANES).cloned().collect::<Vec<_>>();
    let outcomes: Vec<Result<Outcome>> = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES).map(|at| scope.spawn(move || run_lane(seed, &lane(at)))).collect();
        lanes.into_iter().map(|l| l.join().unwrap_or_else(|_| anyhow::bail!("a lane panicked"))).collect()
    });
    let mut out = Outcome { seed, ..Outcome::default() };
    for outcome in outcomes {
        out.merge(outcome?);
    }
    Ok(out)
}

fn run_lane(seed: u64, points: &[Point]) -> Result<Outcome> {
    let work = Work::new("syscalls");
    let mut out = Outcome { seed, ..Outcome::default() };
    let mut hit: BTreeMap<&str, u64> = BTreeMap::new();
    let mut missed = 0;
    for point in points {
        let name = format!("{}:{}", point.call, point.when);
        let mut life = Life::new(seed, work.path());
        let trace = Strace::new(&work.path().join("trace"), &point.call).kill_at(&point.call, point.when);
        match life.script(trace) {
            Ok(true) => {
                out.faults += 1;
                *hit.entry(&point.call).or_default() += 1;
            }
            // Threads share the work differently from run to run: a late point may not come.
            Ok(false) => missed += 1,
            Err(e) => out.violations.push(format!("{name}: {e:#}")),
        }
        life.node.kill();
        let after = life.node.start_clean().and_then(|()| life.load.verify(life.node.kafka()));
        let after = after.and_then(|_| life.node.stop().map(drop)).context("after the death");
        if let Err(e) = after {
            out.violations.push(format!("{name}: {e:#}"));
        }
        out.violations.extend(life.load.take_wrong().into_iter().map(|w| format!("{name}: {w}")));
        out.acked += life.load.tally.acked.load(Ordering::Relaxed);
        out.compared += life.load.tally.compared.load(Ordering::Relaxed);
        if out.violations.len() > 20 {
            break;
        }
    }
    for (call, times) in hit {
        out.note(call, times);
    }
    out.note("points that did not come", missed);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_even_and_moves_with_the_seed() {
        let all: Vec<Point> = (1..=100).map(|when| Point { call: "fsync".into(), when }).collect();
        let (a, b) = (share(&all, 10, 1), share(&all, 10, 2));
        assert_eq!(a.len(), 10);
        assert_ne!(a, b);
        let mut gaps: Vec<u32> = a.iter().map(|p| p.when % 10).collect();
        gaps.dedup();
        assert_eq!(gaps.len(), 1, "{a:?}");
        assert_eq!(share(&all, 1000, 1), all);
    }
}
