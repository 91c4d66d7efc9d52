//! Pure. One function per sort of anomaly: it changes a clean history as little as the anomaly would.

// One signature for all: some lengthen the history.
#![allow(clippy::ptr_arg)]

use crate::anomaly::Kind;
use crate::history::{Ending, Isolation, Op, Outcome, Polled, Span};
use catchwater_base::Rng;

/// A planted anomaly. `plant` panics if the history has no place for it: the twin makes them long enough.
pub struct Plant {
    pub name: &'static str,
    /// What the checker must call it (it may find more).
    pub kind: Kind,
    pub plant: fn(&mut Vec<Op>, u64),
}

/// All that the checker's own test plants.
pub const PLANTS: [Plant; 23] = [
    Plant { name: "an acknowledged record is lost", kind: Kind::LostWrite, plant: lost },
    Plant { name: "the newest acknowledged record is cut off", kind: Kind::Unseen, plant: cut_off },
    Plant { name: "an idempotent record is there twice", kind: Kind::Duplicate, plant: duplicate },
    Plant { name: "two records of a producer change places", kind: Kind::Order, plant: reorder },
    Plant { name: "an offset is left out", kind: Kind::Hole, plant: hole },
    Plant { name: "two values at one offset", kind: Kind::InconsistentOffset, plant: two_values },
    Plant { name: "a record that was read is gone at the end", kind: Kind::Vanished, plant: vanished },
    Plant { name: "the end falls below what was read", kind: Kind::Vanished, plant: end_below_read },
    Plant { name: "the high watermark goes back", kind: Kind::WatermarkBack, plant: watermark_back },
    Plant { name: "the log start goes back", kind: Kind::WatermarkBack, plant: log_start_back },
    Plant { name: "the last stable offset beyond the high watermark", kind: Kind::WatermarkOrder, plant: lso_beyond },
    Plant { name: "the log start jumps", kind: Kind::LogStartJump, plant: log_start_jump },
    Plant { name: "a record nobody sent", kind: Kind::Phantom, plant: phantom },
    Plant { name: "a flipped bit in a value", kind: Kind::Corrupted, plant: corrupted },
    Plant { name: "records of a poll out of order", kind: Kind::NonmonotonicPoll, plant: out_of_order },
    Plant { name: "a consumer jumps over records", kind: Kind::PollSkip, plant: skip },
    Plant { name: "the end is below an acknowledged record", kind: Kind::Stale, plant: stale },
    Plant { name: "a committed position goes back", kind: Kind::CommitBack, plant: commit_back },
    Plant { name: "a position nobody committed", kind: Kind::CommitPhantom, plant: commit_phantom },
    Plant { name: "a record of an aborted transaction", kind: Kind::AbortedRead, plant: aborted },
    Plant { name: "a record before its commit", kind: Kind::PrecommittedRead, plant: precommitted },
    Plant { name: "half of a transaction", kind: Kind::TornTransaction, plant: torn },
    Plant { name: "the last value of a key is gone", kind: Kind::CompactionLost, plant: compaction_lost },
];

const PLAIN: &str = "t/0";

/// One of what `of` picks, by the seed.
fn one<T>(seed: u64, all: Vec<T>) -> T {
    assert!(!all.is_empty(), "the history of seed {seed} has no place for this anomaly");
    let at = Rng::new(seed ^ 0x706c_616e).below(all.len() as u64) as usize;
    all.into_iter().nth(at).expect("below its length")
}

fn final_at(ops: &[Op]) -> u64 {
    ops.iter().find_map(|o| if let Op::Final { at } = o { Some(*at) } else { None }).unwrap_or(u64::MAX)
}

fn log_start(ops: &[Op]) -> u64 {
    let trims = ops.iter().filter_map(|o| if let Op::Trim { offset, .. } = o { Some(*offset) } else { None });
    trims.max().unwrap_or(0)
}

/// (place, offset) of acknowledged sends to `tp` that must still be there.
fn acked(ops: &[Op], partition: &str) -> Vec<(usize, u64)> {
    let start = if partition == PLAIN { log_start(ops) } else { 0 };
    ops.iter()
        .enumerate()
        .filter_map(|(n, o)| match o {
            Op::Send { tp, result: Outcome::Ok, offset: Some(at), idempotent: true, .. }
                if tp == partition && *at >= start =>
            {
                Some((n, *at))
            }
            _ => None,
        })
        .collect()
}

/// Calls `change` with the records of every poll of `partition` that `which` chooses (at, isolation).
fn polls(
    ops: &mut [Op],
    partition: &str,
    which: impl Fn(u64, Isolation) -> bool,
    mut change: impl FnMut(&mut Vec<Polled>),
) {
    for op in ops {
        if let Op::Poll { span, tp, isolation, records, .. } = op
            && tp == partition
            && which(span.at, *isolation)
        {
            change(records);
        }
    }
}

fn lost(ops: &mut Vec<Op>, seed: u64) {
    let (_, at) = one(seed, acked(ops, PLAIN));
    polls(ops, PLAIN, |_, _| true, |r| r.retain(|r| r.0 != at));
}

fn cut_off(ops: &mut Vec<Op>, _: u64) {
    let end = acked(ops, PLAIN).into_iter().map(|a| a.1).max().expect("something was sent");
    let last = final_at(ops);
    for op in ops.iter_mut() {
        if let Op::Poll { span, tp, from, next, records, .. } = op
            && tp == PLAIN
            && span.at >= last
        {
            records.retain(|r| r.0 < end);
            *next = (*next).min(end).max(*from);
        }
    }
}

fn duplicate(ops: &mut Vec<Op>, seed: u64) {
    let (n, _) = one(seed, acked(ops, PLAIN));
    let Op::Send { producer, seq, crc, .. } = ops[n].clone() else { return };
    let last = final_at(ops);
    let longest = ops.iter().filter_map(|o| match o {
        Op::Poll { span, tp, next, .. } if tp == PLAIN && span.at >= last => Some(*next),
        _ => None,
    });
    let end = longest.max().unwrap_or(0);
    for op in ops {
        if let Op::Poll { span, tp, next, records, .. } = op
            && tp == PLAIN
            && span.at >= last
            && *next == end
        {
            records.push(Polled(end, producer.clone(), seq, crc));
            *next = end + 1;
        }
    }
}

fn reorder(ops: &mut Vec<Op>, seed: u64) {
    let all = acked(ops, PLAIN);
    let name = |n: usize| if let Op::Send { producer, .. } = &ops[n] { producer.clone() } else { String::new() };
    let pairs: Vec<_> =
        all.iter().flat_map(|a| all.iter().filter(|b| a.1 < b.1 && name(a.0) == name(b.0)).map(|b| (*a, *b))).collect();
    let (a, b) = one(seed, pairs);
    for op in ops {
        match op {
            Op::Send { tp, offset: Some(at), .. } if tp == PLAIN => {
                *at = if *at == a.1 {
                    b.1
                } else if *at == b.1 {
                    a.1
                } else {
                    *at
                };
            }
            Op::Poll { tp, records, .. } if tp == PLAIN => {
                let place = |records: &[Polled], at| records.iter().position(|r| r.0 == at);
                match (place(records, a.1), place(records, b.1)) {
                    (Some(x), Some(y)) => {
                        records.swap(x, y);
                        (records[x].0, records[y].0) = (a.1, b.1);
                    }
                    // Only one of them in this poll: leave it out, as if the range ended there.
                    (None, None) => {}
                    (x, y) => {
                        for at in [x, y].into_iter().flatten() {
                            records.remove(at);
                        }
                    }
                }
            }
            _ => {}
        }
    }
}

fn hole(ops: &mut Vec<Op>, seed: u64) {
    let (_, hole) = one(seed, acked(ops, PLAIN));
    let up = |o: &mut u64| *o += u64::from(*o >= hole);
    let end_up = |o: &mut u64| *o += u64::from(*o > hole);
    for op in ops {
        match op {
            Op::Send { tp, offset: Some(at), .. } if tp == PLAIN => up(at),
            Op::Poll { tp, records, from, next, .. } if tp == PLAIN => {
                records.iter_mut().for_each(|r| up(&mut r.0));
                end_up(from);
                end_up(next);
            }
            Op::Bounds { tp, lso, hw, .. } if tp == PLAIN => {
                lso.iter_mut().chain(hw).for_each(end_up);
            }
            _ => {}
        }
    }
}

/// Records of polls: (operation, record).
fn polled(ops: &[Op], partition: &str, least: usize) -> Vec<(usize, usize)> {
    let start = if partition == PLAIN { log_start(ops) } else { 0 };
    let places = ops.iter().enumerate().filter_map(|(n, o)| match o {
        Op::Poll { tp, records, .. } if tp == partition && records.len() >= least => {
            Some(records.iter().enumerate().filter(move |(_, r)| r.0 >= start).map(move |(r, _)| (n, r)))
        }
        _ => None,
    });
    places.flatten().collect()
}

fn record(ops: &mut [Op], at: (usize, usize)) -> &mut Polled {
    match &mut ops[at.0] {
        Op::Poll { records, .. } => &mut records[at.1],
        other => unreachable!("{other:?} is no poll"),
    }
}

fn two_values(ops: &mut Vec<Op>, seed: u64) {
    let at = one(seed, polled(ops, PLAIN, 2));
    let others: Vec<Polled> = match &ops[at.0] {
        Op::Poll { records, .. } => records.iter().filter(|r| r.0 != records[at.1].0).cloned().collect(),
        _ => vec![],
    };
    let other = one(seed, others);
    let r = record(ops, at);
    *r = Polled(r.0, other.1, other.2, other.3);
}

fn phantom(ops: &mut Vec<Op>, seed: u64) {
    let at = one(seed, polled(ops, PLAIN, 1));
    record(ops, at).2 += 1_000_000;
}

fn corrupted(ops: &mut Vec<Op>, seed: u64) {
    let at = one(seed, polled(ops, PLAIN, 1));
    record(ops, at).3 ^= 1 << (seed % 32);
}

fn out_of_order(ops: &mut Vec<Op>, seed: u64) {
    let at = one(seed, polled(ops, PLAIN, 2));
    if let Op::Poll { records, .. } = &mut ops[at.0] {
        let other = (at.1 + 1) % records.len();
        records.swap(at.1, other);
    }
}

fn vanished(ops: &mut Vec<Op>, seed: u64) {
    let (last, start) = (final_at(ops), log_start(ops));
    let read: Vec<u64> = ops
        .iter()
        .filter_map(|o| match o {
            Op::Poll { span, tp, records, .. } if tp == PLAIN && span.at < last => Some(records.iter().map(|r| r.0)),
            _ => None,
        })
        .flatten()
        .filter(|o| *o >= start)
        .collect();
    let at = one(seed, read);
    polls(ops, PLAIN, |t, _| t >= last, |r| r.retain(|r| r.0 != at));
}

/// A question that an observer of its own asks after everything.
fn ask(ops: &mut Vec<Op>, partition: &str, log_start: Option<u64>, lso: Option<u64>, hw: Option<u64>) {
    let at = ops.iter().filter_map(Op::span).filter_map(|s| s.end).max().unwrap_or(0) + 1_000;
    let span = Span { at, end: Some(at + 10) };
    ops.push(Op::Bounds { span, process: "late".into(), tp: partition.into(), log_start, lso, hw });
}

fn end_below_read(ops: &mut Vec<Op>, seed: u64) {
    let at = one(seed, polled(ops, PLAIN, 1));
    let offset = record(ops, at).0;
    ask(ops, PLAIN, None, None, Some(offset));
}

fn stale(ops: &mut Vec<Op>, seed: u64) {
    let (n, offset) = one(seed, acked(ops, PLAIN));
    // Right after the acknowledgement, not at the end.
    let at = ops[n].span().and_then(|s| s.end).unwrap_or(0) + 1;
    let span = Span { at, end: Some(at + 10) };
    let (process, tp) = ("late".into(), PLAIN.into());
    ops.push(Op::Bounds { span, process, tp, log_start: None, lso: None, hw: Some(offset) });
}

fn log_start_jump(ops: &mut Vec<Op>, _: u64) {
    let start = log_start(ops);
    ask(ops, PLAIN, Some(start + 1), None, None);
}

fn lso_beyond(ops: &mut Vec<Op>, _: u64) {
    ask(ops, "t/1", None, Some(1_000_001), Some(1_000_000));
}

/// The later of two questions of one observer whose first answer was above 0.
fn asked_twice(ops: &[Op], pick: fn(&Op) -> Option<u64>) -> Vec<(usize, u64)> {
    let mut out = Vec::new();
    for (n, op) in ops.iter().enumerate() {
        let Op::Bounds { process, tp, .. } = op else { continue };
        let before = ops[..n].iter().filter(|o| match o {
            Op::Bounds { process: p, tp: t, .. } => p == process && t == tp,
            _ => false,
        });
        let most = before.filter_map(pick).max().unwrap_or(0);
        if most > 0 {
            out.push((n, most));
        }
    }
    out
}

fn watermark_back(ops: &mut Vec<Op>, seed: u64) {
    let pick = |o: &Op| if let Op::Bounds { hw, .. } = o { *hw } else { None };
    let (n, most) = one(seed, asked_twice(ops, pick));
    if let Op::Bounds { hw, lso, log_start, .. } = &mut ops[n] {
        (*hw, *lso, *log_start) = (Some(most - 1), None, None);
    }
}

fn log_start_back(ops: &mut Vec<Op>, _: u64) {
    ask(ops, "t/2", Some(3), None, None);
    ask(ops, "t/2", Some(2), None, None);
}

fn skip(ops: &mut Vec<Op>, seed: u64) {
    let start = log_start(ops);
    let mut places = Vec::new();
    for (n, op) in ops.iter().enumerate() {
        let Op::Poll { process, tp, records, .. } = op else { continue };
        let after = ops[n + 1..].iter().find_map(|o| match o {
            Op::Poll { process: p, tp: t, seek, .. } if p == process && t == tp => Some(*seek),
            _ => None,
        });
        let first =
            !ops[..n].iter().any(|o| matches!(o, Op::Poll { process: p, tp: t, .. } if p == process && t == tp));
        if tp == PLAIN && !first && after == Some(false) && records.iter().any(|r| r.0 >= start) {
            places.push(n);
        }
    }
    let at = one(seed, places);
    // Who seeks first of all has no place he comes from.
    if let Op::Poll { seek: true, process, tp, .. } = ops[at].clone() {
        for op in ops.iter_mut().skip(at + 1) {
            if let Op::Poll { process: p, tp: t, from, .. } = op
                && *p == process
                && *t == tp
            {
                *from += 1_000_000;
                return;
            }
        }
    }
    ops.remove(at);
}

fn commit_back(ops: &mut Vec<Op>, seed: u64) {
    // (offset, begun, ended)
    let commits: Vec<(u64, u64, u64)> = ops
        .iter()
        .filter_map(|o| match o {
            Op::Commit { span, offset, result, .. } if *result != Outcome::Fail => {
                Some((*offset, span.at, span.end.unwrap_or(u64::MAX)))
            }
            _ => None,
        })
        .collect();
    let last = commits.iter().filter(|c| c.2 < u64::MAX).map(|c| c.1).max().unwrap_or(0);
    // A position that was replaced, and that nobody may have written since.
    let replaced = |offset: u64| commits.iter().filter(|c| c.0 == offset).all(|c| c.2 < last);
    let old = commits.iter().map(|c| c.0).filter(|o| replaced(*o)).collect();
    ask_group(ops, one(seed, old));
}

fn commit_phantom(ops: &mut Vec<Op>, _: u64) {
    ask_group(ops, 5_000_000);
}

fn ask_group(ops: &mut Vec<Op>, offset: u64) {
    let at = ops.iter().filter_map(Op::span).filter_map(|s| s.end).max().unwrap_or(0) + 1_000;
    let span = Span { at, end: Some(at + 10) };
    let (process, group, tp) = ("late".into(), "g".into(), PLAIN.into());
    ops.push(Op::Committed { span, process, group, tp, offset: Some(offset) });
}

/// Sends of transactions that ended so, surely: (transaction, offset, record).
fn of_txns(ops: &[Op], ending: Ending) -> Vec<(String, Polled)> {
    let ended: Vec<&String> = ops
        .iter()
        .filter_map(|o| match o {
            Op::Txn { txn, ending: e, result: Outcome::Ok, .. } if *e == ending => Some(txn),
            _ => None,
        })
        .collect();
    ops.iter()
        .filter_map(|o| match o {
            Op::Send { txn: Some(txn), offset: Some(at), producer, seq, crc, .. } if ended.contains(&txn) => {
                Some((txn.clone(), Polled(*at, producer.clone(), *seq, *crc)))
            }
            _ => None,
        })
        .collect()
}

fn aborted(ops: &mut Vec<Op>, seed: u64) {
    let all = of_txns(ops, Ending::Abort);
    if all.is_empty() {
        // None was aborted: a plain send that was refused is there.
        let at = one(seed, polled(ops, PLAIN, 1));
        let r = record(ops, at).clone();
        for op in ops {
            if let Op::Send { producer, seq, result, offset, .. } = op
                && (&*producer, *seq) == (&r.1, r.2)
            {
                (*result, *offset) = (Outcome::Fail, None);
            }
        }
        return;
    }
    let (_, r) = one(seed, all);
    let last = final_at(ops);
    for op in ops {
        if let Op::Poll { span, tp, isolation: Isolation::Committed, from, next, records, .. } = op
            && tp == "t/1"
            && span.at >= last
            && *from <= r.0
            && r.0 < *next
        {
            records.push(r.clone());
            records.sort_by_key(|r| r.0);
        }
    }
}

fn precommitted(ops: &mut Vec<Op>, seed: u64) {
    let (txn, _) = one(seed, of_txns(ops, Ending::Commit));
    let end = ops.iter().filter_map(Op::span).filter_map(|s| s.end).max().unwrap_or(0);
    for op in ops {
        if let Op::Txn { span, txn: t, .. } = op
            && *t == txn
        {
            *span = Span { at: end + 1, end: Some(end + 2) };
        }
    }
}

fn torn(ops: &mut Vec<Op>, seed: u64) {
    let (_, r) = one(seed, of_txns(ops, Ending::Commit));
    polls(ops, "t/1", |_, i| i == Isolation::Committed, |records| records.retain(|x| x.0 != r.0));
}

fn compaction_lost(ops: &mut Vec<Op>, seed: u64) {
    let mut newest = std::collections::BTreeMap::new();
    for op in ops.iter() {
        if let Op::Send { tp, key: Some(key), offset, seq, producer, .. } = op
            && tp == "t/2"
        {
            newest.insert(key.clone(), (*offset, producer.clone(), *seq));
        }
    }
    // Only keys whose last send was acknowledged: of others nobody knows what is last.
    let sure: Vec<u64> = newest.values().filter_map(|(o, ..)| *o).collect();
    let at = one(seed, sure);
    polls(ops, "t/2", |_, _| true, |r| r.retain(|r| r.0 != at));
}
