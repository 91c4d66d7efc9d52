//! Pure. Who writes: idempotent producers with one batch in flight, and capture workers with several, one of which may be
//! a zombie. Each keeps a ledger of what it was promised.

use bytes::{Bytes, BytesMut};
use catchwater_record::batch::build::Builder;
use catchwater_record::batch::{ATTR_CONTROL, ATTR_TRANSACTIONAL};
use catchwater_record::{CaptureEpoch, CaptureId, CommitSeq, Gid, Offset, Position};
use catchwater_storage::CaptureContext;
use std::collections::{BTreeMap, VecDeque};

/// Appends of a worker that may be unanswered.
const WINDOW: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    Producer(usize),
    Worker(usize),
}

#[derive(Clone, Debug)]
pub enum Ask {
    Produce(Bytes),
    Append(Bytes, CaptureContext),
    Fence(CaptureId, CaptureEpoch),
}

#[derive(Clone, Debug)]
pub struct Request {
    pub who: Who,
    /// Of the asker; an answer to an older one is still true.
    pub id: u64,
    pub gid: Gid,
    pub ask: Ask,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Done {
        base: Offset,
        end: Offset,
    },
    /// The fence is committed; the capture stands here.
    Opened(Position),
    NotHere {
        leader: Option<usize>,
    },
    Partly(Position),
    Gap(Position),
    Fenced,
    /// Refused for another reason; a retry may help.
    Later,
}

pub fn position(n: u32) -> Position {
    if n == 0 { Position::NONE } else { Position::copy_from(&n.to_be_bytes()).unwrap_or_default() }
}

/// So many characters that differ from row to row.
fn padding(row: u32, bytes: usize) -> String {
    let mut x = row.wrapping_mul(0x9e37_79b9) | 1;
    let next = || {
        x = x.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
        char::from(b'a' + (x >> 27) as u8 % 26)
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

pub fn number(p: &Position) -> u32 {
    p.as_bytes().try_into().map_or(0, u32::from_be_bytes)
}

/// (base offset, first sequence, records) of acknowledged batches.
type Acked = Vec<(Offset, i32, u32)>;

/// How a seed wants the next batch, should there be one to make.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    pub records: u32,
    pub at_ms: i64,
    pub value_bytes: usize,
    /// The transaction under way ends here: committed or not.
    pub ends: Option<bool>,
    /// Keys and tombstones come from it, if the topic is compacted.
    pub dice: u64,
}

/// A record of a compacted topic, as it was acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keyed {
    pub offset: Offset,
    pub key: u8,
    pub row: u32,
    pub tombstone: bool,
    pub txn: Option<u32>,
    /// When it was made.
    pub at: u64,
}

/// Keys of one producer.
const KEYS: u64 = 6;

pub fn key_text(producer: usize, key: u8) -> String {
    format!("p{producer}-k{key}")
}

/// What is sent and not answered.
struct Flying {
    number: u64,
    sequence: i32,
    /// 0 = a marker.
    records: u32,
    body: Bytes,
    made: u64,
    /// Key and tombstone of each record, if they have keys.
    keys: Vec<(u8, bool)>,
    /// Of the transaction that it ends.
    ending: Option<bool>,
}

/// A transaction of one producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenTxn {
    pub number: u32,
    /// Of its first acknowledged batch.
    pub first: Option<Offset>,
    /// Its end was asked for, and when.
    pub ending: Option<u64>,
}

/// An idempotent producer.
pub struct Producer {
    pub id: usize,
    pub gid: Gid,
    pub target: usize,
    next_sequence: i32,
    number: u64,
    flying: Option<Flying>,
    /// It writes in transactions: the one under way.
    pub txn: Option<OpenTxn>,
    /// Ended transactions: committed, and the marker's offset.
    pub ends: BTreeMap<u32, (bool, Offset)>,
    /// Records have keys.
    pub has_keys: bool,
    pub keyed: Vec<Keyed>,
    /// (base offset, first sequence, records) of every acknowledged batch.
    pub acked: Acked,
    /// Producer id on the wire; and earlier ones, which ended with a loss, with what is left of their batches.
    wire_id: i64,
    ended: Vec<(i64, Acked)>,
}

impl Producer {
    pub fn new(id: usize, gid: Gid) -> Self {
        Producer {
            id,
            gid,
            target: 0,
            next_sequence: 0,
            number: 0,
            flying: None,
            txn: None,
            ends: BTreeMap::new(),
            has_keys: false,
            keyed: vec![],
            acked: vec![],
            wire_id: id as i64 + 1,
            ended: vec![],
        }
    }
    pub fn idle(&self) -> bool {
        self.flying.is_none()
    }
    pub fn transactional(mut self) -> Self {
        self.txn = Some(OpenTxn { number: 1, first: None, ending: None });
        self
    }
    /// Something of a transaction is in the log, and nobody has said yet how it ends.
    pub fn has_open_txn(&self) -> bool {
        self.txn.is_some_and(|t| t.first.is_some())
    }
    /// The same, or perhaps: what is not answered may be in the log.
    pub fn may_have_open_txn(&self) -> bool {
        self.txn.is_some_and(|t| t.first.is_some() || !self.idle())
    }
    pub fn wire_id(&self) -> i64 {
        self.wire_id
    }
    /// The name of a transaction in a history.
    pub fn txn_name(&self, number: u32) -> String {
        format!("p{}-t{number}", self.id)
    }

    /// The next batch, or the unanswered one again.
    pub fn request(&mut self, wish: Wish, now: u64) -> Request {
        if self.flying.is_none() {
            self.number += 1;
            let made = match (wish.ends, &mut self.txn) {
                (Some(commits), Some(txn)) if txn.first.is_some() => {
                    txn.ending = Some(now);
                    self.marker(commits, wish.at_ms, now)
                }
                _ => self.batch(wish, now),
            };
            self.flying = Some(made);
        }
        let f = self.flying.as_ref().expect("made above");
        Request { who: Who::Producer(self.id), id: f.number, gid: self.gid, ask: Ask::Produce(f.body.clone()) }
    }

    fn batch(&mut self, wish: Wish, made: u64) -> Flying {
        let mut b = Builder::new().producer(self.wire_id, 0, self.next_sequence);
        let mut keys = Vec::new();
        let mut dice = wish.dice;
        for i in 0..wish.records {
            let row = self.next_sequence as u32 + i;
            let value = format!("p{}:{row}:{}", self.id, padding(row, wish.value_bytes));
            if self.has_keys {
                let (key, tombstone) = ((dice % KEYS) as u8, (dice >> 8).is_multiple_of(5));
                dice = dice.rotate_right(17);
                keys.push((key, tombstone));
                let value = Some(value.as_bytes()).filter(|_| !tombstone);
                b.push(wish.at_ms, Some(key_text(self.id, key).as_bytes()), value, []);
            } else {
                b.push(wish.at_ms, None, Some(value.as_bytes()), []);
            }
        }
        let sequence = self.next_sequence;
        self.next_sequence += wish.records as i32;
        let bits = if self.txn.is_some() { ATTR_TRANSACTIONAL } else { 0 };
        let body = with_attributes(b.finish(), bits);
        Flying { number: self.number, sequence, records: wish.records, body, made, keys, ending: None }
    }

    /// What the coordinator writes: a control batch with one record.
    fn marker(&self, commits: bool, at_ms: i64, made: u64) -> Flying {
        let mut b = Builder::new().producer(self.wire_id, 0, -1);
        b.push(at_ms, Some(&[0, 0, 0, u8::from(commits)]), Some(&[0, 0, 0, 0, 0, 0]), []);
        let body = with_attributes(b.finish(), ATTR_TRANSACTIONAL | ATTR_CONTROL);
        Flying { number: self.number, sequence: -1, records: 0, body, made, keys: vec![], ending: Some(commits) }
    }

    /// What was answered, if it was the batch (or marker) in flight: `Some(Some(commits))` = a transaction has ended.
    pub fn done(&mut self, id: u64, base: Offset) -> Option<Option<bool>> {
        let f = self.flying.take_if(|f| f.number == id)?;
        let number = self.txn.map(|t| t.number);
        match f.ending {
            Some(commits) => {
                if let Some(txn) = &mut self.txn {
                    self.ends.insert(txn.number, (commits, base));
                    *txn = OpenTxn { number: txn.number + 1, first: None, ending: None };
                }
            }
            None => {
                self.acked.push((base, f.sequence, f.records));
                if let Some(txn) = &mut self.txn {
                    txn.first.get_or_insert(base);
                }
                for (i, (key, tombstone)) in f.keys.iter().enumerate() {
                    let (offset, row) = (base.plus(i as u64), f.sequence as u32 + i as u32);
                    self.keyed.push(Keyed { offset, key: *key, row, tombstone: *tombstone, txn: number, at: f.made });
                }
            }
        }
        Some(f.ending)
    }
    /// The log ends at `end` now, and what was behind is lost: it begins again under a new id, as a client would.
    pub fn lost(&mut self, end: Offset) {
        let mut left = std::mem::take(&mut self.acked);
        left.retain(|(base, ..)| *base < end);
        self.keyed.retain(|k| k.offset < end);
        self.ended.push((self.wire_id, left));
        self.wire_id += 1000;
        (self.next_sequence, self.flying) = (0, None);
        self.number += 1;
    }
    /// The topic is gone with all it wrote: it goes on in another, under a new id.
    pub fn moved(&mut self, gid: Gid) {
        self.gid = gid;
        self.acked.clear();
        self.ended.clear();
        self.wire_id += 1000;
        (self.next_sequence, self.flying) = (0, None);
        self.number += 1;
    }
    /// Each id it has had, with what was acknowledged and must be there.
    pub fn lives(&self) -> impl Iterator<Item = (i64, &Acked)> {
        self.ended.iter().map(|(id, acked)| (*id, acked)).chain([(self.wire_id, &self.acked)])
    }
    pub fn is_waiting_for(&self, id: u64) -> bool {
        self.flying.as_ref().is_some_and(|f| f.number == id)
    }
}

fn with_attributes(mut batch: BytesMut, bits: i16) -> Bytes {
    if bits != 0 {
        let at = 21..23;
        let before = i16::from_be_bytes([batch[21], batch[22]]);
        batch[at].copy_from_slice(&(before | bits).to_be_bytes());
        let crc = catchwater_record::crc::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    batch.freeze()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WorkerState {
    /// Fence not answered.
    Opening,
    Running,
    /// Fenced by a newer one.
    Dead,
}

/// One life of a capture: an epoch, and runs of a source whose rows are 1, 2, 3, …
pub struct Worker {
    pub id: usize,
    pub capture: CaptureId,
    pub epoch: CaptureEpoch,
    pub gid: Gid,
    pub target: usize,
    value_bytes: usize,
    pub state: WorkerState,
    number: u64,
    /// Last row sent.
    sent: u32,
    /// (request, prev, first, last), oldest first.
    flying: VecDeque<(u64, u32, u32, u32)>,
    /// Highest row that was acknowledged.
    pub acked: u32,
}

impl Worker {
    pub fn new(id: usize, capture: CaptureId, epoch: u32, gid: Gid, value_bytes: usize) -> Self {
        Worker {
            id,
            capture,
            epoch: CaptureEpoch(epoch),
            gid,
            target: 0,
            value_bytes,
            state: WorkerState::Opening,
            number: 0,
            sent: 0,
            flying: VecDeque::new(),
            acked: 0,
        }
    }

    fn build(&self, id: u64, prev: u32, first: u32, last: u32) -> Request {
        let mut b = Builder::new();
        for row in first..=last {
            let value = format!("c{}:{row}:{}", self.capture, padding(row, self.value_bytes));
            b.push(i64::from(row), None, Some(value.as_bytes()), []);
        }
        let body: BytesMut = b.finish();
        let context = CaptureContext {
            capture: self.capture,
            epoch: self.epoch,
            flags: 0,
            commit_seq: CommitSeq(u64::from(last)),
            prev: position(prev),
            first: position(first),
            last: position(last),
            txn: None,
        };
        Request { who: Who::Worker(self.id), id, gid: self.gid, ask: Ask::Append(body.freeze(), context) }
    }

    /// Everything unanswered again, in order, then as much new as the window allows.
    pub fn requests(&mut self, again: bool, rows: u32) -> Vec<Request> {
        match self.state {
            WorkerState::Dead => Vec::new(),
            WorkerState::Opening => {
                self.number += 1;
                let ask = Ask::Fence(self.capture, self.epoch);
                vec![Request { who: Who::Worker(self.id), id: self.number, gid: self.gid, ask }]
            }
            WorkerState::Running => {
                let mut out = Vec::new();
                if again {
                    out.extend(self.flying.iter().map(|(id, prev, first, last)| self.build(*id, *prev, *first, *last)));
                }
                while self.flying.len() < WINDOW {
                    self.number += 1;
                    let (prev, first, last) = (self.sent, self.sent + 1, self.sent + rows);
                    self.flying.push_back((self.number, prev, first, last));
                    self.sent = last;
                    out.push(self.build(self.number, prev, first, last));
                }
                out
            }
        }
    }

    pub fn opened(&mut self, at: u32) {
        if self.state == WorkerState::Opening {
            self.state = WorkerState::Running;
            self.sent = at;
        }
    }
    /// Committed up to what this append ended with.
    pub fn done(&mut self, id: u64) -> Option<u32> {
        let at = self.flying.iter().position(|(number, ..)| *number == id)?;
        let (.., last) = self.flying.remove(at)?;
        self.acked = self.acked.max(last);
        Some(last)
    }
    /// Part of it is there, or something before it is not: go on from what the log knows.
    pub fn resume(&mut self, id: u64, known: u32) {
        if self.state == WorkerState::Running && self.flying.iter().any(|(number, ..)| *number == id) {
            self.flying.clear();
            self.sent = known;
        }
    }
}
