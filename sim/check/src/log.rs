//! Pure. Offsets and values: what was sent, acknowledged and read of one partition, whenever it happened.

use crate::anomaly::{Kind, Report};
use crate::checker::{Partition, Poll, Txn, Value};
use crate::history::{Ending, Isolation, Micros, Outcome};
use std::collections::{BTreeMap, BTreeSet};

/// A partition as its readers saw it.
pub(crate) struct Index {
    /// What was read at an offset first: value, crc, when the poll ended, its line.
    pub read: BTreeMap<u64, (Value, u32, Micros, u64)>,
    /// Values by id: place in `Partition::sends`.
    pub sent: BTreeMap<Value, usize>,
    /// Offsets of each value that was read.
    pub places: BTreeMap<Value, Vec<u64>>,
    /// Highest log start that anybody was told or asked for: what lies below may be gone.
    pub log_start: u64,
    /// The final read of uncommitted records: offsets, and whether there was one.
    pub last: Option<BTreeSet<u64>>,
}

pub(crate) fn id(names: &[&str], v: Value) -> String {
    format!("{}:{}", names.get(v.0 as usize).unwrap_or(&"?"), v.1)
}

pub(crate) fn is_aborted(txns: &BTreeMap<u32, Vec<Txn>>, txn: Option<u32>) -> bool {
    let ends = txn.and_then(|t| txns.get(&t));
    ends.is_some_and(|e| e.iter().any(|t| t.ending == Ending::Abort && t.result == Outcome::Ok))
}

pub(crate) fn is_committed(txns: &BTreeMap<u32, Vec<Txn>>, txn: Option<u32>) -> bool {
    let Some(txn) = txn else { return true };
    txns.get(&txn).is_some_and(|e| e.iter().any(|t| t.ending == Ending::Commit && t.result == Outcome::Ok))
}

pub(crate) fn judge(
    p: &Partition,
    names: &[&str],
    final_at: Option<Micros>,
    txns: &BTreeMap<u32, Vec<Txn>>,
    report: &mut Report,
) -> Index {
    let index = index(p, names, final_at, report);
    one_value_per_offset(p, &index, names, report);
    one_offset_per_value(p, &index, names, report);
    order(p, &index, names, report);
    consumers(p, &index, names, report);
    lost(p, &index, names, final_at, txns, report);
    index
}

fn index(p: &Partition, names: &[&str], final_at: Option<Micros>, report: &mut Report) -> Index {
    let mut index = Index {
        read: BTreeMap::new(),
        sent: BTreeMap::new(),
        places: BTreeMap::new(),
        log_start: (p.bounds.iter().filter_map(|b| b.log_start).chain(p.trims.iter().map(|t| t.1))).max().unwrap_or(0),
        last: None,
    };
    for (n, s) in p.sends.iter().enumerate() {
        index.sent.insert(s.value, n);
    }
    for poll in &p.polls {
        if final_at.is_some_and(|f| poll.at >= f) && poll.isolation == Isolation::Uncommitted {
            index.last.get_or_insert_default().extend(poll.records.iter().map(|r| r.0));
        }
        for (offset, value, crc) in &poll.records {
            match index.sent.get(value).map(|n| &p.sends[*n]) {
                None => report.add(Kind::Phantom, || {
                    format!("{} offset {offset}: nobody sent {} (line {})", p.name, id(names, *value), poll.line)
                }),
                Some(s) if s.crc != *crc => report.add(Kind::Corrupted, || {
                    format!(
                        "{} offset {offset}: {} reads with crc {crc} (line {}), was sent with {} (line {})",
                        p.name,
                        id(names, *value),
                        poll.line,
                        s.crc,
                        s.line
                    )
                }),
                Some(s) if poll.end < s.at => report.add(Kind::Phantom, || {
                    format!(
                        "{} offset {offset}: {} was read (line {}) before it was sent (line {})",
                        p.name,
                        id(names, *value),
                        poll.line,
                        s.line
                    )
                }),
                Some(s) => {
                    if s.result == Outcome::Fail {
                        report.add(Kind::AbortedRead, || {
                            format!(
                                "{} offset {offset}: {} was refused (line {}) and is there (line {})",
                                p.name,
                                id(names, *value),
                                s.line,
                                poll.line
                            )
                        });
                    }
                    if s.end != crate::checker::NEVER && s.end < poll.end && poll.end != crate::checker::NEVER {
                        report.worst_lag = report.worst_lag.max(match index.places.get(value) {
                            None => poll.end - s.end,
                            Some(_) => 0,
                        });
                    }
                }
            }
            let places = index.places.entry(*value).or_default();
            if !places.contains(offset) {
                places.push(*offset);
            }
            let first = index.read.entry(*offset).or_insert((*value, *crc, poll.end, poll.line));
            if poll.end < first.2 {
                *first = (first.0, first.1, poll.end, poll.line);
            }
            if first.0 != *value {
                let other = *first;
                report.add(Kind::InconsistentOffset, || {
                    format!(
                        "{} offset {offset}: {} (line {}) and {} (line {})",
                        p.name,
                        id(names, other.0),
                        other.3,
                        id(names, *value),
                        poll.line
                    )
                });
            }
        }
    }
    index
}

/// What acknowledgements say about an offset, against reads and each other.
fn one_value_per_offset(p: &Partition, index: &Index, names: &[&str], report: &mut Report) {
    let mut acked: BTreeMap<u64, usize> = BTreeMap::new();
    for (n, s) in p.sends.iter().enumerate() {
        let (Outcome::Ok, Some(offset)) = (s.result, s.offset) else { continue };
        let other = match index.read.get(&offset) {
            Some((value, _, _, line)) if *value != s.value => Some((*value, *line)),
            _ => acked.insert(offset, n).map(|o| &p.sends[o]).filter(|o| o.value != s.value).map(|o| (o.value, o.line)),
        };
        if let Some((value, line)) = other {
            report.add(Kind::InconsistentOffset, || {
                format!(
                    "{} offset {offset}: {} was acknowledged there (line {}), {} is there (line {line})",
                    p.name,
                    id(names, s.value),
                    s.line,
                    id(names, value)
                )
            });
        }
    }
}

fn one_offset_per_value(p: &Partition, index: &Index, names: &[&str], report: &mut Report) {
    for (value, places) in &index.places {
        let Some(s) = index.sent.get(value).map(|n| &p.sends[*n]) else { continue };
        let elsewhere = s.offset.filter(|o| s.result == Outcome::Ok && !places.contains(o));
        if s.idempotent && (places.len() > 1 || elsewhere.is_some()) {
            report.add(Kind::Duplicate, || {
                format!(
                    "{}: {} (line {}) was read at {places:?}, acknowledged at {:?}",
                    p.name,
                    id(names, *value),
                    s.line,
                    s.offset
                )
            });
        }
    }
}

fn order(p: &Partition, index: &Index, names: &[&str], report: &mut Report) {
    // Where each value of an idempotent producer lies, read or acknowledged.
    let mut by_offset: BTreeMap<u64, Value> = index.read.iter().map(|(o, r)| (*o, r.0)).collect();
    for s in p.sends.iter().filter(|s| s.result == Outcome::Ok) {
        if let Some(offset) = s.offset {
            by_offset.entry(offset).or_insert(s.value);
        }
    }
    let mut highest: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for (offset, value) in by_offset {
        if !index.sent.get(&value).is_some_and(|n| p.sends[*n].idempotent) {
            continue;
        }
        let last = highest.entry(value.0).or_insert((value.1, offset));
        if value.1 < last.0 {
            let before = *last;
            report.add(Kind::Order, || {
                format!(
                    "{}: {} at {offset} behind {}:{} at {}",
                    p.name,
                    id(names, value),
                    names.get(value.0 as usize).unwrap_or(&"?"),
                    before.0,
                    before.1
                )
            });
        } else {
            *last = (value.1, offset);
        }
    }
}

/// Each poll by itself, and the polls of one consumer after each other.
fn consumers(p: &Partition, index: &Index, names: &[&str], report: &mut Report) {
    let mut polls: Vec<&Poll> = p.polls.iter().collect();
    polls.sort_by_key(|x| (x.process, x.at, x.line));
    let mut before: Option<&Poll> = None;
    for poll in polls {
        let inside = poll.records.iter().all(|r| poll.from <= r.0 && r.0 < poll.next);
        let rising = poll.records.windows(2).all(|w| w[0].0 < w[1].0);
        let last = before.filter(|b| b.process == poll.process && !poll.seek).map(|b| b.next);
        if !inside || !rising || poll.next < poll.from || last.is_some_and(|l| poll.from < l) {
            report.add(Kind::NonmonotonicPoll, || {
                format!(
                    "{} line {}: {} asked from {}, got {:?}, next {}; its last poll ended at {last:?}",
                    p.name,
                    poll.line,
                    names.get(poll.process as usize).unwrap_or(&"?"),
                    poll.from,
                    poll.records.iter().map(|r| r.0).take(8).collect::<Vec<_>>(),
                    poll.next
                )
            });
        }
        let from = last.unwrap_or(poll.from).max(index.log_start);
        if from < poll.from
            && let Some((offset, seen)) = index.read.range(from..poll.from).next()
        {
            report.add(Kind::PollSkip, || {
                format!(
                    "{} line {}: {} went on at {}, over {} at {offset}",
                    p.name,
                    poll.line,
                    names.get(poll.process as usize).unwrap_or(&"?"),
                    poll.from,
                    id(names, seen.0)
                )
            });
        }
        before = Some(poll);
    }
}

/// Whoever read a range has seen all of it.
fn lost(
    p: &Partition,
    index: &Index,
    names: &[&str],
    final_at: Option<Micros>,
    txns: &BTreeMap<u32, Vec<Txn>>,
    report: &mut Report,
) {
    // Highest offset at which each key was seen or acknowledged: what is older may be compacted.
    let mut newest: BTreeMap<u32, u64> = BTreeMap::new();
    if p.compact {
        for s in &p.sends {
            let read = index.places.get(&s.value).and_then(|o| o.iter().max());
            if let (Some(key), Some(at)) = (s.key, s.offset.into_iter().chain(read.copied()).max()) {
                let n = newest.entry(key).or_default();
                *n = (*n).max(at);
            }
        }
    }
    let plain = !p.compact && p.sends.iter().all(|s| s.txn.is_none());
    let mut holes = BTreeSet::new();
    for poll in p.polls.iter().filter(|_| plain) {
        // A poll may have begun below today's log start; what it gave counts, what it did not give was trimmed.
        let from = poll.from.max(index.log_start);
        let seen: BTreeSet<u64> = poll.records.iter().map(|r| r.0).filter(|o| *o >= from).collect();
        if from < poll.next && (seen.len() as u64) < poll.next - from {
            holes.extend((from..poll.next).filter(|o| !seen.contains(o)).take(8));
        }
    }
    for offset in holes {
        report.add(Kind::Hole, || format!("{} offset {offset}: read over, and nothing is there", p.name));
    }
    let uncommitted = Cover::new(p.polls.iter().filter(|x| x.isolation == Isolation::Uncommitted));
    let any = Cover::new(p.polls.iter());
    for s in p.sends.iter().filter(|s| s.result == Outcome::Ok) {
        let Some(offset) = s.offset.filter(|o| *o >= index.log_start) else { continue };
        let read = index.places.get(&s.value).is_some_and(|o| o.contains(&offset));
        let superseded = p.compact && s.key.is_none_or(|k| newest.get(&k).is_some_and(|n| *n > offset));
        if superseded {
            continue;
        }
        if !read && index.read.get(&offset).is_none_or(|r| r.0 != s.value) {
            let cover = if is_committed(txns, s.txn) { &any } else { &uncommitted };
            if cover.holds(offset) {
                let kind = if p.compact { Kind::CompactionLost } else { Kind::LostWrite };
                report.add(kind, || {
                    format!(
                        "{}: {} was acknowledged at {offset} (line {}); whoever read there did not see it",
                        p.name,
                        id(names, s.value),
                        s.line
                    )
                });
            }
        }
        if final_at.is_some() && !index.last.as_ref().is_some_and(|l| l.contains(&offset)) {
            report.add(Kind::Unseen, || {
                format!(
                    "{}: {} was acknowledged at {offset} (line {}); the final read does not give it",
                    p.name,
                    id(names, s.value),
                    s.line
                )
            });
        }
    }
}

/// Ranges that somebody read, joined.
struct Cover(Vec<(u64, u64)>);

impl Cover {
    fn new<'a>(polls: impl Iterator<Item = &'a Poll>) -> Self {
        let mut all: Vec<(u64, u64)> = polls.map(|p| (p.from, p.next)).filter(|r| r.0 < r.1).collect();
        all.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for (from, next) in all {
            match joined.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(next),
                _ => joined.push((from, next)),
            }
        }
        Cover(joined)
    }
    fn holds(&self, offset: u64) -> bool {
        let after = self.0.partition_point(|r| r.0 <= offset);
        after.checked_sub(1).is_some_and(|n| offset < self.0[n].1)
    }
}
