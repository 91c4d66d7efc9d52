//! Pure. Takes operations in and keeps what the judges need: values as numbers, per partition and per group.

use crate::anomaly::Report;
use crate::history::{Ending, Head, Isolation, Micros, Op, Outcome};
use std::collections::{BTreeMap, BTreeSet};

/// (producer, seq) of a value.
pub(crate) type Value = (u32, u64);
/// For an outcome that never came.
pub(crate) const NEVER: Micros = Micros::MAX;

pub(crate) struct Send {
    pub line: u64,
    pub at: Micros,
    pub end: Micros,
    pub value: Value,
    pub crc: u32,
    pub idempotent: bool,
    pub txn: Option<u32>,
    pub key: Option<u32>,
    pub result: Outcome,
    pub offset: Option<u64>,
}

pub(crate) struct Poll {
    pub line: u64,
    pub at: Micros,
    pub end: Micros,
    pub process: u32,
    pub isolation: Isolation,
    pub from: u64,
    pub next: u64,
    pub seek: bool,
    /// Offset, value, crc.
    pub records: Vec<(u64, Value, u32)>,
}

pub(crate) struct Bounds {
    pub line: u64,
    pub at: Micros,
    pub end: Micros,
    pub process: u32,
    pub log_start: Option<u64>,
    pub lso: Option<u64>,
    pub hw: Option<u64>,
}

#[derive(Default)]
pub(crate) struct Partition {
    pub name: String,
    pub retention: bool,
    pub compact: bool,
    pub sends: Vec<Send>,
    pub polls: Vec<Poll>,
    pub bounds: Vec<Bounds>,
    /// (at, offset) of trims that may have happened.
    pub trims: Vec<(Micros, u64)>,
}

pub(crate) struct Txn {
    pub line: u64,
    pub at: Micros,
    pub ending: Ending,
    pub result: Outcome,
}

pub(crate) struct Register {
    /// (line, at, end, offset, result)
    pub writes: Vec<(u64, Micros, Micros, u64, Outcome)>,
    /// (line, at, end, offset)
    pub reads: Vec<(u64, Micros, Micros, Option<u64>)>,
}

/// See the crate's head.
pub struct Checker {
    lines: u64,
    names: BTreeMap<String, u32>,
    pub(crate) partitions: BTreeMap<String, Partition>,
    pub(crate) txns: BTreeMap<u32, Vec<Txn>>,
    pub(crate) groups: BTreeMap<(String, String), Register>,
    pub(crate) final_at: Option<Micros>,
    pub(crate) report: Report,
}

impl Checker {
    pub fn new(_head: Head) -> Self {
        Checker {
            lines: 1,
            names: BTreeMap::new(),
            partitions: BTreeMap::new(),
            txns: BTreeMap::new(),
            groups: BTreeMap::new(),
            final_at: None,
            report: Report::default(),
        }
    }

    fn name(&mut self, name: String) -> u32 {
        let next = self.names.len() as u32;
        *self.names.entry(name).or_insert(next)
    }

    fn partition(&mut self, tp: &str) -> &mut Partition {
        self.partitions
            .entry(tp.to_owned())
            .or_insert_with(|| Partition { name: tp.to_owned(), ..Partition::default() })
    }

    /// Takes the next line. Lines need not be in the order of time.
    pub fn feed(&mut self, op: Op) {
        self.lines += 1;
        let line = self.lines;
        self.report.ops += 1;
        match op {
            Op::Topic { tp, retention, compact } => {
                let p = self.partition(&tp);
                (p.retention, p.compact) = (retention, compact);
            }
            Op::Send { span, tp, producer, seq, crc, idempotent, txn, key, result, offset, .. } => {
                self.report.sends += 1;
                self.report.acked += u64::from(result == Outcome::Ok);
                let value = (self.name(producer), seq);
                let txn = txn.map(|t| self.name(t));
                let key = key.map(|k| self.name(k));
                let send = Send {
                    line,
                    at: span.at,
                    end: span.end.unwrap_or(NEVER),
                    value,
                    crc,
                    idempotent,
                    txn,
                    key,
                    result,
                    offset,
                };
                self.partition(&tp).sends.push(send);
            }
            Op::Poll { span, process, tp, isolation, from, next, records, seek, .. } => {
                self.report.polled += records.len() as u64;
                let process = self.name(process);
                let records = records.into_iter().map(|r| (r.0, (self.name(r.1), r.2), r.3)).collect();
                let poll = Poll {
                    line,
                    at: span.at,
                    end: span.end.unwrap_or(NEVER),
                    process,
                    isolation,
                    from,
                    next,
                    seek,
                    records,
                };
                self.partition(&tp).polls.push(poll);
            }
            Op::Bounds { span, process, tp, log_start, lso, hw } => {
                let process = self.name(process);
                let end = span.end.unwrap_or(NEVER);
                self.partition(&tp).bounds.push(Bounds { line, at: span.at, end, process, log_start, lso, hw });
            }
            Op::Trim { span, tp, offset, result, .. } => {
                if result != Outcome::Fail {
                    self.partition(&tp).trims.push((span.at, offset));
                }
            }
            Op::Txn { span, txn, ending, result, .. } => {
                let txn = self.name(txn);
                self.txns.entry(txn).or_default().push(Txn { line, at: span.at, ending, result });
            }
            Op::Commit { span, group, tp, offset, result, .. } => {
                let end = if result == Outcome::Ok { span.end.unwrap_or(NEVER) } else { NEVER };
                self.register(group, tp).writes.push((line, span.at, end, offset, result));
            }
            Op::Committed { span, group, tp, offset, .. } => {
                self.register(group, tp).reads.push((line, span.at, span.end.unwrap_or(NEVER), offset));
            }
            Op::Fault { .. } => self.report.faults += 1,
            Op::Final { at } => self.final_at = Some(self.final_at.map_or(at, |f| f.min(at))),
        }
    }

    fn register(&mut self, group: String, tp: String) -> &mut Register {
        self.groups.entry((group, tp)).or_insert(Register { writes: Vec::new(), reads: Vec::new() })
    }

    /// An empty line: nothing, but counted, so that findings name the right ones.
    pub fn skip_line(&mut self) {
        self.lines += 1;
    }

    /// All lines are in: the verdict.
    pub fn finish(mut self) -> Report {
        let mut report = std::mem::take(&mut self.report);
        report.partitions = self.partitions.len() as u64;
        let mut names: Vec<&str> = vec![""; self.names.len()];
        for (name, n) in &self.names {
            names[*n as usize] = name;
        }
        let mut torn = BTreeSet::new();
        for p in self.partitions.values() {
            let index = crate::log::judge(p, &names, self.final_at, &self.txns, &mut report);
            crate::clock::judge(p, &index, &names, self.final_at, &mut report);
            crate::transaction::judge(p, &index, &names, self.final_at, &self.txns, &mut torn, &mut report);
        }
        crate::group::judge(&self.groups, &mut report);
        report
    }
}
