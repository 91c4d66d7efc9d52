//! Pure. What the clients of a run saw, as a history that `catchwater-check` judges: the checker that judges real clients
//! also judges the simulated ones, and is tried by every planted bug.

use crate::engine::Micros;
use crate::workload::{Ask, Request, Who};
use bytes::Bytes;
use catchwater_base::hash::xxh3_64;
use catchwater_check::history::{Ending, Head, Isolation, Op, Outcome, Polled, Span, VERSION};
use catchwater_check::{Checker, Report};
use catchwater_record::batch::iterate::records;
use catchwater_record::{BatchView, Gid, Offset};
use std::collections::{BTreeMap, BTreeSet};

/// Records of one producer batch that is not answered yet.
struct Open {
    at: Micros,
    gid: Gid,
    /// (seq, crc)
    records: Vec<(u64, u32)>,
    txn: Option<String>,
}

#[derive(Default)]
pub struct Story {
    pub ops: Vec<Op>,
    open: BTreeMap<(usize, u64), Open>,
    /// Rows of captures that were sent.
    captured: BTreeSet<(String, u64)>,
}

fn tp(gid: Gid) -> String {
    format!("t/{}", gid.0)
}

/// Producer, seq, crc.
type Value = (String, u64, u32);

/// A value as the workload writes it: `who:row:padding`.
fn value(bytes: &[u8]) -> Option<Value> {
    let mut parts = bytes.splitn(3, |b| *b == b':');
    let who = String::from_utf8(parts.next()?.to_vec()).ok()?;
    let row = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    Some((who, row, xxh3_64(bytes) as u32))
}

/// Offset and value of every record.
fn values(batch: &BatchView<'_>) -> Vec<(u64, Option<Value>)> {
    let all = records(batch.records(), batch.offset_count()).flatten();
    all.zip(batch.offset().0..).map(|(r, o)| (o, value(r.value.unwrap_or_default()))).collect()
}

impl Story {
    /// A request leaves its client; repeats of one are one send. `txn`: of a transactional producer.
    pub fn asked(&mut self, now: Micros, request: &Request, txn: Option<String>) {
        let (Ask::Produce(body) | Ask::Append(body, _)) = &request.ask else { return };
        let Ok(batch) = BatchView::new(body) else { return };
        if batch.is_control() {
            return;
        }
        let all: Vec<_> = values(&batch).into_iter().filter_map(|(_, v)| v).collect();
        match request.who {
            Who::Producer(id) => {
                let records = all.into_iter().map(|(_, seq, crc)| (seq, crc)).collect();
                self.open.entry((id, request.id)).or_insert(Open { at: now, gid: request.gid, records, txn });
            }
            // A worker's answers speak of positions, not of offsets: its rows count as sent, not as acknowledged.
            Who::Worker(_) => {
                for (who, row, crc) in all {
                    if self.captured.insert((who.clone(), row)) {
                        self.send(Span { at: now, end: None }, request.gid, who, (row, crc), (None, None));
                    }
                }
            }
        }
    }

    fn send(
        &mut self,
        span: Span,
        gid: Gid,
        producer: String,
        (seq, crc): (u64, u32),
        (offset, txn): (Option<u64>, Option<String>),
    ) {
        self.ops.push(Op::Send {
            span,
            process: producer.clone(),
            client: String::new(),
            tp: tp(gid),
            producer,
            seq,
            crc,
            idempotent: true,
            txn,
            key: None,
            result: if offset.is_some() { Outcome::Ok } else { Outcome::Info },
            offset,
        });
    }

    /// A producer's batch is acknowledged.
    pub fn acked(&mut self, now: Micros, producer: usize, id: u64, base: Offset, txn: Option<String>) {
        let Some(open) = self.open.remove(&(producer, id)) else { return };
        for (record, offset) in open.records.into_iter().zip(base.0..) {
            let span = Span { at: open.at, end: Some(now) };
            self.send(span, open.gid, format!("p{producer}"), record, (Some(offset), txn.clone()));
        }
    }

    /// A transaction has ended, or (`None`) nobody knows: its end was asked for and not answered.
    pub fn ended(&mut self, now: Micros, producer: usize, (txn, began): (String, Micros), commits: Option<bool>) {
        self.ops.push(Op::Txn {
            span: Span { at: began, end: commits.map(|_| now) },
            process: format!("p{producer}"),
            txn,
            // Unknown: it may have been committed.
            ending: if commits == Some(false) { Ending::Abort } else { Ending::Commit },
            result: if commits.is_some() { Outcome::Ok } else { Outcome::Info },
        });
    }

    /// A topic is deleted: what was seen of it is no part of the end.
    pub fn removed(&mut self, gid: Gid) {
        let its = tp(gid);
        self.open.retain(|_, open| open.gid != gid);
        self.ops.retain(|op| match op {
            Op::Send { tp, .. } | Op::Poll { tp, .. } | Op::Trim { tp, .. } => *tp != its,
            _ => true,
        });
    }

    pub fn trimmed(&mut self, now: Micros, gid: Gid, offset: Offset) {
        let span = Span { at: now, end: None };
        let process = "admin".to_owned();
        self.ops.push(Op::Trim { span, process, tp: tp(gid), offset: offset.0, result: Outcome::Info });
    }

    /// Somebody read all of [from, end of the last batch).
    pub fn read(&mut self, now: Micros, gid: Gid, (isolation, from): (Isolation, Offset), batches: &[Bytes]) {
        let views = || batches.iter().filter_map(|b| BatchView::new(b).ok());
        let Some(next) = views().last().map(|b| b.offset().plus(u64::from(b.offset_count()))) else { return };
        let polled = views().filter(|b| !b.is_control()).flat_map(|b| values(&b)).filter(|(o, _)| *o >= from.0);
        let records = polled.map(|(o, v)| {
            let (who, seq, crc) = v.unwrap_or_default();
            Polled(o, who, seq, crc)
        });
        self.ops.push(Op::Poll {
            span: Span { at: now, end: Some(now) },
            process: format!("{isolation:?}"),
            client: String::new(),
            tp: tp(gid),
            isolation,
            from: from.0,
            next: next.0,
            records: records.collect(),
            seek: true,
        });
    }

    pub fn final_from(&mut self, now: Micros) {
        self.ops.push(Op::Final { at: now });
    }

    /// The verdict; sends without an answer have an unknown outcome.
    pub fn judge(&mut self) -> Report {
        for ((producer, _), open) in std::mem::take(&mut self.open) {
            for record in open.records {
                let span = Span { at: open.at, end: None };
                self.send(span, open.gid, format!("p{producer}"), record, (None, open.txn.clone()));
            }
        }
        let mut checker = Checker::new(Head { history: VERSION, run: "simulated".into(), seed: 0 });
        self.ops.iter().cloned().for_each(|op| checker.feed(op));
        checker.finish()
    }
}
