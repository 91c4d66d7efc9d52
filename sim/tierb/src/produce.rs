//! Producers. An idempotent one keeps several batches under way and sends what it has no answer for again, in order,
//! until it has one or takes a new id; a plain one sends once and asks nobody again.

use crate::client::{Connection, Lost, PATIENCE, call};
use crate::ledger::Ledger;
use crate::swarm::Swarm;
use bytes::Bytes;
use catchwater_base::Rng;
use catchwater_check::history::{Micros, Op, Outcome, Span};
use catchwater_protocol::Records;
use catchwater_protocol::api::produce::{PartitionProduceData, TopicProduceData};
use catchwater_protocol::api::{InitProducerIdRequest, ProduceRequest};
use catchwater_record::batch::build::Builder;
use catchwater_record::crc::crc32c;
use catchwater_runtime::time;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const PRODUCE_VERSION: i16 = 9;
/// DUPLICATE_SEQUENCE_NUMBER.
const DUPLICATE: i16 = 46;
/// Sent again so often; then the producer gives the batch up as unknown.
const ATTEMPTS_MAX: u32 = 200;

/// One batch, sent once or more.
pub struct Batch {
    pub topic: String,
    pub partition: i32,
    pub bytes: Bytes,
    /// (sequence of the value, crc of its body) of each record.
    pub values: Vec<(u64, u32)>,
    pub at: Micros,
    attempts: u32,
}

/// Makes values that any reader can tell apart.
pub struct Values {
    /// `client.incarnation`: the producer in the history.
    pub name: String,
    next: u64,
}

impl Values {
    pub fn new(name: String) -> Values {
        Values { name, next: 0 }
    }

    /// A batch of one record without a body.
    fn record(&mut self, (topic, partition): (&str, i32), at: Micros) -> Batch {
        let mut builder = Builder::new();
        let key = format!("{}/{}", self.name, self.next);
        builder.push(time::wall().as_millis(), Some(key.as_bytes()), Some(b""), []);
        let values = vec![(self.next, crc32c(b""))];
        self.next += 1;
        Batch { topic: topic.to_owned(), partition, bytes: builder.finish().freeze(), values, at, attempts: 0 }
    }

    /// `sequence` = the next of this producer id on that partition, or none.
    pub fn batch(
        &mut self,
        (topic, partition): (&str, i32),
        producer: Option<(i64, i16, i32)>,
        swarm: &Swarm,
        rng: &mut Rng,
        at: Micros,
    ) -> Batch {
        let mut builder = Builder::new();
        if let Some((id, epoch, sequence)) = producer {
            builder = builder.producer(id, epoch, sequence);
        }
        let mut values = Vec::new();
        for _ in 0..rng.between(1, swarm.records_max) {
            let body: Vec<u8> = (0..rng.below(swarm.value_bytes_max)).map(|i| (i as u8) ^ (self.next as u8)).collect();
            let key = format!("{}/{}", self.name, self.next);
            builder.push(time::wall().as_millis(), Some(key.as_bytes()), Some(&body), []);
            values.push((self.next, crc32c(&body)));
            self.next += 1;
        }
        let bytes = builder.finish().freeze();
        Batch { topic: topic.to_owned(), partition, bytes, values, at, attempts: 0 }
    }
}

impl Batch {
    pub fn request(&self) -> ProduceRequest {
        let records = Some(Records::from(self.bytes.clone()));
        let data = TopicProduceData {
            name: self.topic.as_str().into(),
            partition_data: vec![PartitionProduceData { index: self.partition, records }],
            ..Default::default()
        };
        ProduceRequest { acks: -1, timeout_ms: 5_000, topic_data: vec![data], ..Default::default() }
    }

    /// Notes how it ended; `base` = where it lies.
    pub fn note(
        &self,
        ledger: &Ledger,
        (process, producer): (&str, &str),
        idempotent: bool,
        end: (Outcome, Option<u64>),
    ) {
        let (result, base) = end;
        if result == Outcome::Ok {
            ledger.acked.fetch_add(self.values.len() as u64, Ordering::Relaxed);
        }
        for (i, (seq, crc)) in self.values.iter().enumerate() {
            ledger.add(Op::Send {
                span: Span { at: self.at, end: (result != Outcome::Info).then(|| ledger.now()) },
                process: process.to_owned(),
                client: String::new(),
                tp: format!("{}/{}", self.topic, self.partition),
                producer: producer.to_owned(),
                seq: *seq,
                crc: *crc,
                idempotent,
                txn: None,
                key: None,
                result,
                offset: base.map(|base| base + i as u64),
            });
        }
    }
}

/// What a broker said to one batch.
pub enum Said {
    At(u64),
    /// It was there already.
    Duplicate,
    Refused(i16),
}

pub fn said(response: &catchwater_protocol::api::ProduceResponse) -> Said {
    let answer = response.responses.first().and_then(|t| t.partition_responses.first());
    match answer.map(|p| (p.error_code, p.base_offset)) {
        Some((0, base)) if base >= 0 => Said::At(base as u64),
        Some((0 | DUPLICATE, _)) => Said::Duplicate,
        Some((code, _)) => Said::Refused(code),
        None => Said::Refused(-1),
    }
}

/// One record of its own, noted; true = acknowledged.
pub async fn one(
    values: &mut Values,
    connection: &mut Connection,
    (topic, partition): (&str, i32),
    ledger: &Ledger,
) -> bool {
    let batch = values.record((topic, partition), ledger.now());
    let answer = connection.call(&batch.request(), PRODUCE_VERSION, ledger).await.map(|response| said(&response));
    let end = match answer {
        Ok(Said::At(base)) => (Outcome::Ok, Some(base)),
        Err(Lost::NotSent) => (Outcome::Fail, None),
        _ => (Outcome::Info, None),
    };
    batch.note(ledger, ("judge", &values.name), false, end);
    end.0 == Outcome::Ok
}

/// Sends each value once; what became of it may stay unknown.
pub async fn plain(client: String, topics: Vec<(String, i32)>, swarm: Swarm, mut rng: Rng, ledger: Arc<Ledger>) {
    let mut slot = None;
    let mut values = Values::new(format!("{client}.0"));
    while !ledger.is_stopped() {
        let (topic, partition) = &topics[rng.below(topics.len() as u64) as usize];
        let batch = values.batch((topic, *partition), None, &swarm, &mut rng, ledger.now());
        let answer = call(&mut slot, &client, &batch.request(), PRODUCE_VERSION, &ledger).await;
        let end = match answer.map(|response| said(&response)) {
            Ok(Said::At(base)) => {
                ledger.served(&client);
                (Outcome::Ok, Some(base))
            }
            // Kafka's REQUEST_TIMED_OUT (7) and the errors after an append leave it open.
            Ok(Said::Refused(code)) if is_surely_refused(code) => (Outcome::Fail, None),
            Ok(_) | Err(Lost::Unknown) => (Outcome::Info, None),
            Err(Lost::NotSent) => (Outcome::Fail, None),
        };
        batch.note(&ledger, (&client, &values.name), false, end);
        time::sleep(Duration::from_millis(rng.below(swarm.rest_ms))).await;
    }
}

/// Refused before anything was written: unknown topic, too large, corrupt, wrong sequence.
fn is_surely_refused(code: i16) -> bool {
    matches!(code, 2 | 3 | 10 | 45)
}

struct Idempotent {
    client: String,
    ledger: Arc<Ledger>,
    slot: Option<Connection>,
    values: Values,
    id: (i64, i16),
    /// Next sequence of each partition.
    sequences: Vec<i32>,
    /// Without an answer, oldest first: place of the partition, batch.
    open: VecDeque<(usize, Batch)>,
    /// Of `open`, so many were sent on this connection.
    sent: usize,
    incarnation: u64,
}

/// See the file head.
pub async fn idempotent(client: String, topics: Vec<(String, i32)>, swarm: Swarm, mut rng: Rng, ledger: Arc<Ledger>) {
    let mut own = Idempotent {
        values: Values::new(String::new()),
        client,
        ledger,
        slot: None,
        id: (-1, -1),
        sequences: Vec::new(),
        open: VecDeque::new(),
        sent: 0,
        incarnation: 0,
    };
    loop {
        let stopped = own.ledger.is_stopped();
        if stopped && own.open.is_empty() {
            return;
        }
        if own.id.0 < 0 && !own.begin(topics.len()).await {
            if own.ledger.is_stopped() {
                return;
            }
            continue;
        }
        if own.open.len() < swarm.pipeline as usize && !stopped {
            let place = rng.below(topics.len() as u64) as usize;
            let (topic, partition) = &topics[place];
            let producer = (own.id.0, own.id.1, own.sequences[place]);
            let batch = own.values.batch((topic, *partition), Some(producer), &swarm, &mut rng, own.ledger.now());
            own.sequences[place] += batch.values.len() as i32;
            own.open.push_back((place, batch));
            if own.flush().await && own.open.len() < swarm.pipeline as usize && rng.chance(600_000) {
                continue;
            }
        }
        own.take_one(&mut rng).await;
        time::sleep(Duration::from_millis(rng.below(swarm.rest_ms))).await;
    }
}

impl Idempotent {
    /// A new producer id; what was open under the old one stays unknown.
    async fn begin(&mut self, partitions: usize) -> bool {
        let name = std::mem::take(&mut self.values.name);
        for (_, batch) in self.open.drain(..) {
            batch.note(&self.ledger, (&self.client, &name), true, (Outcome::Info, None));
        }
        self.incarnation += 1;
        self.sent = 0;
        self.values = Values::new(format!("{}.{}", self.client, self.incarnation));
        let request =
            InitProducerIdRequest { transactional_id: None, producer_id: -1, producer_epoch: -1, ..Default::default() };
        match call(&mut self.slot, &self.client, &request, 4, &self.ledger).await {
            Ok(response) if response.error_code == 0 => {
                self.id = (response.producer_id, response.producer_epoch);
                self.sequences = vec![0; partitions];
                true
            }
            _ => {
                time::sleep(Duration::from_millis(100)).await;
                false
            }
        }
    }

    /// Sends whatever this connection has not seen; false = there is none.
    async fn flush(&mut self) -> bool {
        if self.slot.is_none() {
            self.sent = 0;
            self.slot = Connection::open(&self.client, &self.ledger).await;
        }
        let Some(connection) = &mut self.slot else { return false };
        while let Some((_, batch)) = self.open.get(self.sent) {
            if connection.send(&batch.request(), PRODUCE_VERSION).await.is_err() {
                self.slot = None;
                return false;
            }
            self.sent += 1;
        }
        true
    }

    /// Takes the answer to the oldest batch.
    async fn take_one(&mut self, rng: &mut Rng) {
        if !self.flush().await {
            if self.ledger.is_stopped() && self.slot.is_none() {
                self.give_up();
            }
            return;
        }
        let Some(connection) = &mut self.slot else { return };
        let answer = connection.reply::<ProduceRequest>(PRODUCE_VERSION, PATIENCE, &self.ledger).await;
        let Some((_, batch)) = self.open.front_mut() else { return };
        batch.attempts += 1;
        let tired = batch.attempts > ATTEMPTS_MAX || rng.chance(2_000);
        let end = match answer.map(|response| said(&response)) {
            Ok(Said::At(base)) => (Outcome::Ok, Some(base)),
            Ok(Said::Duplicate) => (Outcome::Ok, None),
            // Whatever came behind it on this connection goes again, in order.
            Ok(Said::Refused(_)) | Err(_) => {
                self.slot = None;
                if tired {
                    self.give_up();
                }
                time::sleep(Duration::from_millis(50)).await;
                return;
            }
        };
        if let Some((_, batch)) = self.open.pop_front() {
            self.sent = self.sent.saturating_sub(1);
            batch.note(&self.ledger, (&self.client, &self.values.name), true, end);
            self.ledger.served(&self.client);
        }
    }

    fn give_up(&mut self) {
        for (_, batch) in self.open.drain(..) {
            batch.note(&self.ledger, (&self.client, &self.values.name), true, (Outcome::Info, None));
        }
        self.sent = 0;
        self.slot = None;
        self.id = (-1, -1);
    }
}
