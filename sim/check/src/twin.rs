//! Pure. A log in a few lines with clients around it: histories that a correct log may give, and anomalies planted in them.
//!
//! Three partitions: `t/0` idempotent and plain producers with trims, `t/1` transactions, `t/2` compacted. Outcomes are
//! sometimes unknown or refused, consumers seek, groups commit, operations of different clients overlap. The checker's own
//! test and row S26 of the scoreboard stand on this.

mod plant;

pub use plant::{PLANTS, Plant};

use crate::history::{Ending, Head, Isolation, Micros, Op, Outcome, Polled, Span, VERSION};
use crate::{Checker, Report};
use catchwater_base::Rng;
use std::collections::BTreeMap;

const STEPS: usize = 400;

/// Feeds all of it to a checker.
pub fn judge(ops: &[Op]) -> Report {
    let mut checker = Checker::new(Head { history: VERSION, run: "twin".into(), seed: 0 });
    ops.iter().cloned().for_each(|op| checker.feed(op));
    checker.finish()
}

/// What lies at an offset.
#[derive(Clone)]
struct Entry {
    /// `None`: a marker of a transaction.
    value: Option<Polled>,
    key: Option<u64>,
    txn: Option<usize>,
    /// Compacted away.
    gone: bool,
}

#[derive(Default)]
struct Log {
    entries: Vec<Entry>,
    start: u64,
}

impl Log {
    fn end(&self) -> u64 {
        self.entries.len() as u64
    }
    fn push(&mut self, mut value: Option<Polled>, key: Option<u64>, txn: Option<usize>) -> u64 {
        let offset = self.end();
        if let Some(v) = &mut value {
            v.0 = offset;
        }
        self.entries.push(Entry { value, key, txn, gone: false });
        offset
    }
}

struct Made {
    rng: Rng,
    now: Micros,
    /// When each process is free again.
    free: BTreeMap<String, Micros>,
    logs: Vec<Log>,
    /// Ending of each transaction, once it has one.
    txns: Vec<Option<Ending>>,
    /// Open transaction of each transactional producer.
    open: [Option<usize>; 2],
    seqs: BTreeMap<String, u64>,
    /// Next offset of each consumer; `None`: it seeks first.
    positions: BTreeMap<(String, usize), Option<u64>>,
    committed: Option<u64>,
    ops: Vec<Op>,
}

/// A history without anomaly. Equal seeds give equal ones.
pub fn clean(seed: u64) -> Vec<Op> {
    let mut m = Made {
        rng: Rng::new(seed),
        now: 1_000,
        free: BTreeMap::new(),
        logs: (0..3).map(|_| Log::default()).collect(),
        txns: Vec::new(),
        open: [None; 2],
        seqs: BTreeMap::new(),
        positions: BTreeMap::new(),
        committed: None,
        ops: vec![Op::Topic { tp: tp(2), retention: false, compact: true }],
    };
    for _ in 0..STEPS {
        m.step();
    }
    m.finish();
    m.ops
}

fn tp(n: usize) -> String {
    format!("t/{n}")
}

fn crc(producer: &str, seq: u64) -> u32 {
    catchwater_base::hash::xxh3_64(format!("{producer}:{seq}").as_bytes()) as u32
}

impl Made {
    /// An operation of `process` that takes effect now: begun before, answered after.
    fn span(&mut self, process: &str) -> Span {
        let free = self.free.get(process).copied().unwrap_or(0);
        self.now = self.now.max(free) + self.rng.between(2, 400);
        let at = self.now - self.rng.below((self.now - free).min(300));
        let end = self.now + self.rng.between(1, 900);
        self.free.insert(process.to_owned(), end);
        Span { at, end: Some(end) }
    }

    fn step(&mut self) {
        match self.rng.below(20) {
            0..=4 => self.send(0),
            5 => self.send(2),
            6..=8 => self.transact(),
            9..=13 => self.poll(),
            14..=15 => self.bounds(),
            16 => self.trim(),
            17..=18 => self.group(),
            _ => {
                let at = self.now;
                self.ops.push(Op::Fault { at, what: "the wind".into() });
            }
        }
    }

    fn send(&mut self, partition: usize) {
        let idempotent = self.rng.chance(700_000);
        let producer = format!("{}{}", if idempotent { "i" } else { "n" }, self.rng.below(2));
        let key = (partition == 2).then(|| self.rng.below(4));
        self.send_as(partition, producer, idempotent, None, key);
    }

    fn send_as(&mut self, partition: usize, producer: String, idempotent: bool, txn: Option<usize>, key: Option<u64>) {
        let span = self.span(&producer);
        let seq = self.seqs.entry(producer.clone()).or_default();
        *seq += 1;
        let seq = *seq;
        let crc = crc(&producer, seq);
        let result = match self.rng.below(12) {
            0 if txn.is_none() => Outcome::Fail,
            1 if txn.is_none() => Outcome::Info,
            _ => Outcome::Ok,
        };
        let there = result == Outcome::Ok || (result == Outcome::Info && self.rng.chance(500_000));
        let mut offset = None;
        if there {
            let value = Some(Polled(0, producer.clone(), seq, crc));
            offset = Some(self.logs[partition].push(value.clone(), key, txn));
            // A producer without idempotence may write twice.
            if !idempotent && self.rng.chance(100_000) {
                self.logs[partition].push(value, key, txn);
            }
        }
        let span = if result == Outcome::Info { Span { end: None, ..span } } else { span };
        self.ops.push(Op::Send {
            span,
            process: producer.clone(),
            client: "twin 1".into(),
            tp: tp(partition),
            producer,
            seq,
            crc,
            idempotent,
            txn: txn.map(|t| format!("x{t}")),
            key: key.map(|k| format!("k{k}")),
            result,
            offset: offset.filter(|_| result == Outcome::Ok),
        });
    }

    fn transact(&mut self) {
        let who = self.rng.below(2) as usize;
        let txn = match self.open[who] {
            None => {
                self.txns.push(None);
                self.open[who] = Some(self.txns.len() - 1);
                self.txns.len() - 1
            }
            Some(txn) => txn,
        };
        let sent = self.logs[1].entries.iter().filter(|e| e.txn == Some(txn) && e.value.is_some()).count();
        if sent >= 2 && self.rng.chance(600_000) {
            self.end_txn(who, txn);
        } else {
            self.send_as(1, format!("tx{who}"), true, Some(txn), None);
        }
    }

    fn end_txn(&mut self, who: usize, txn: usize) {
        let process = format!("tx{who}");
        let span = self.span(&process);
        let ending = if self.rng.chance(700_000) { Ending::Commit } else { Ending::Abort };
        let result = if self.rng.chance(100_000) { Outcome::Info } else { Outcome::Ok };
        self.txns[txn] = Some(ending);
        self.logs[1].push(None, None, Some(txn));
        self.open[who] = None;
        let span = if result == Outcome::Info { Span { end: None, ..span } } else { span };
        self.ops.push(Op::Txn { span, process, txn: format!("x{txn}"), ending, result });
    }

    fn lso(&self, partition: usize) -> u64 {
        let log = &self.logs[partition];
        let open = log.entries.iter().position(|e| e.txn.is_some_and(|t| self.txns[t].is_none()));
        open.map_or(log.end(), |o| o as u64)
    }

    fn read(&mut self, process: &str, partition: usize, isolation: Isolation, from: u64, most: u64, seek: bool) -> u64 {
        let span = self.span(process);
        let until = if isolation == Isolation::Committed { self.lso(partition) } else { self.logs[partition].end() };
        let next = until.min(from + most).max(from);
        let aborted = |t: Option<usize>| t.is_some_and(|t| self.txns[t] == Some(Ending::Abort));
        let records = self.logs[partition].entries[from as usize..next as usize]
            .iter()
            .filter(|e| !e.gone && (isolation == Isolation::Uncommitted || !aborted(e.txn)))
            .filter_map(|e| e.value.clone())
            .collect();
        self.ops.push(Op::Poll {
            span,
            process: process.to_owned(),
            client: "twin 1".into(),
            tp: tp(partition),
            isolation,
            from,
            next,
            records,
            seek,
        });
        next
    }

    fn poll(&mut self) {
        let partition = self.rng.below(3) as usize;
        let isolation = if self.rng.chance(400_000) { Isolation::Committed } else { Isolation::Uncommitted };
        let process = format!("c{}{}", if isolation == Isolation::Committed { "c" } else { "u" }, self.rng.below(2));
        let start = self.logs[partition].start;
        let place = (process.clone(), partition);
        let known = self.positions.get(&place).copied().flatten().filter(|p| *p >= start);
        let seek = known.is_none() || self.rng.chance(50_000);
        let from = if seek { start } else { known.unwrap_or(start) };
        if partition == 2 {
            self.compact();
        }
        let most = self.rng.between(1, 12);
        let next = self.read(&process, partition, isolation, from, most, seek);
        self.positions.insert(place, Some(next));
    }

    fn compact(&mut self) {
        let entries = &mut self.logs[2].entries;
        for n in 0..entries.len() {
            let newer = entries[n + 1..].iter().any(|e| e.key == entries[n].key);
            if newer && self.rng.chance(100_000) {
                entries[n].gone = true;
            }
        }
    }

    fn bounds(&mut self) {
        let partition = self.rng.below(3) as usize;
        let process = format!("b{}", self.rng.below(2));
        let span = self.span(&process);
        self.ops.push(Op::Bounds {
            span,
            process,
            tp: tp(partition),
            log_start: Some(self.logs[partition].start),
            lso: Some(self.lso(partition)),
            hw: Some(self.logs[partition].end()),
        });
    }

    fn trim(&mut self) {
        if self.rng.chance(800_000) {
            return;
        }
        let span = self.span("admin");
        let log = &mut self.logs[0];
        let offset = self.rng.between(log.start, log.end().min(log.start + 5));
        log.start = offset;
        let op = Op::Trim { span, process: "admin".into(), tp: tp(0), offset, result: Outcome::Ok };
        self.ops.push(op);
    }

    fn group(&mut self) {
        let process = format!("g{}", self.rng.below(2));
        let span = self.span(&process);
        let (group, tp) = ("g".to_owned(), tp(0));
        if self.rng.chance(500_000) {
            let offset = self.committed.unwrap_or(0) + self.rng.below(3);
            let result = match self.rng.below(10) {
                0 => Outcome::Info,
                1 => Outcome::Fail,
                _ => Outcome::Ok,
            };
            if result == Outcome::Ok || (result == Outcome::Info && self.rng.chance(500_000)) {
                self.committed = Some(offset);
            }
            let span = if result == Outcome::Info { Span { end: None, ..span } } else { span };
            self.ops.push(Op::Commit { span, process, group, tp, offset, result });
        } else {
            self.ops.push(Op::Committed { span, process, group, tp, offset: self.committed });
        }
    }

    fn finish(&mut self) {
        for who in 0..2 {
            if let Some(txn) = self.open[who] {
                self.end_txn(who, txn);
            }
        }
        self.now += 2_000;
        self.ops.push(Op::Final { at: self.now });
        for partition in 0..3 {
            for isolation in [Isolation::Uncommitted, Isolation::Committed] {
                let process = format!("final {isolation:?} {partition}");
                self.free.insert(process.clone(), self.now);
                let (mut from, end) = (self.logs[partition].start, self.logs[partition].end());
                let mut seek = true;
                while from < end {
                    let most = self.rng.between(5, 40);
                    from = self.read(&process, partition, isolation, from, most, seek);
                    seek = false;
                }
            }
        }
        let group = Op::Committed {
            span: self.span("g0"),
            process: "g0".into(),
            group: "g".into(),
            tp: tp(0),
            offset: self.committed,
        };
        self.ops.push(group);
    }
}
