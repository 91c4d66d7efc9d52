//! Consumers: read on from where they are, wait for what is not there yet, ask for the ends now and then.

use crate::client::{Connection, PATIENCE};
use crate::ledger::Ledger;
use catchwater_base::Rng;
use catchwater_check::history::{Isolation, Op, Polled, Span};
use catchwater_protocol::api::fetch::{FetchPartition, FetchTopic};
use catchwater_protocol::api::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use catchwater_protocol::api::{FetchRequest, ListOffsetsRequest};
use catchwater_record::BatchView;
use catchwater_record::batch::iterate;
use catchwater_record::crc::crc32c;
use catchwater_runtime::time;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const FETCH_VERSION: i16 = 12;
const LIST_VERSION: i16 = 7;
/// A wait that only a wake-up ends in time for the judge.
pub const LONG_WAIT_MS: i32 = 200_000;
/// A consumer rests up to so long between two fetches, ms.
const REST_MS: u64 = 150;
/// `ListOffsets`: the end.
const LATEST: i64 = -1;

/// What one look at a partition gave.
pub enum Fetched {
    /// Records from where it was asked.
    Records,
    /// Nothing new.
    Nothing,
    /// The connection is of no use any more.
    Lost,
    Refused(i16),
}

/// One partition as one consumer sees it.
pub struct Reader {
    pub process: String,
    pub topic: String,
    pub partition: i32,
    pub next: u64,
    /// The next poll does not go on where the last one ended.
    pub seek: bool,
}

impl Reader {
    pub fn new(process: &str, topic: &str, partition: i32, next: u64) -> Reader {
        Reader { process: process.to_owned(), topic: topic.to_owned(), partition, next, seek: true }
    }

    fn tp(&self) -> String {
        format!("{}/{}", self.topic, self.partition)
    }

    /// One fetch, noted.
    pub async fn fetch(&mut self, connection: &mut Connection, wait_ms: i32, ledger: &Ledger) -> Fetched {
        let at = ledger.now();
        let partition = FetchPartition {
            partition: self.partition,
            current_leader_epoch: -1,
            fetch_offset: self.next as i64,
            last_fetched_epoch: -1,
            partition_max_bytes: 64 << 10,
            ..Default::default()
        };
        let topic = FetchTopic { topic: self.topic.as_str().into(), partitions: vec![partition], ..Default::default() };
        let request = FetchRequest {
            max_wait_ms: wait_ms,
            min_bytes: 1,
            max_bytes: 256 << 10,
            topics: vec![topic],
            ..Default::default()
        };
        if connection.send(&request, FETCH_VERSION).await.is_err() {
            return Fetched::Lost;
        }
        let patience = PATIENCE + Duration::from_millis(wait_ms as u64);
        let Ok(response) = connection.reply::<FetchRequest>(FETCH_VERSION, patience, ledger).await else {
            return Fetched::Lost;
        };
        let Some(data) = response.responses.first().and_then(|t| t.partitions.first()) else {
            return Fetched::Refused(response.error_code);
        };
        if data.error_code != 0 {
            return Fetched::Refused(data.error_code);
        }
        let span = Span { at, end: Some(ledger.now()) };
        let told = |offset: i64| u64::try_from(offset).ok();
        ledger.add(Op::Bounds {
            span,
            process: self.process.clone(),
            tp: self.tp(),
            log_start: told(data.log_start_offset),
            lso: told(data.last_stable_offset),
            hw: told(data.high_watermark),
        });
        let bytes = data.records.as_ref().map(|r| r.to_bytes()).unwrap_or_default();
        let mut next = self.next;
        let mut records = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            // A batch at the end may be cut off where the client's limit is: ours never are.
            let Ok((batch, after)) = BatchView::split(rest) else {
                ledger.violation(format!("{}: {} bytes at {next} are no batch", self.process, rest.len()));
                break;
            };
            rest = after;
            if let Err(error) = batch.check_crc() {
                ledger.violation(format!("{}: the batch at {}: {error}", self.process, batch.base_offset()));
            }
            for record in iterate::records(batch.records(), batch.records_count() as u32) {
                let Ok(record) = record else {
                    ledger.violation(format!("{}: a record at {} cannot be read", self.process, batch.base_offset()));
                    break;
                };
                let offset = (batch.base_offset() + i64::from(record.offset_delta)) as u64;
                next = offset + 1;
                if offset < self.next {
                    continue;
                }
                let key = String::from_utf8_lossy(record.key.unwrap_or_default()).into_owned();
                let (producer, seq) = key.split_once('/').unwrap_or(("nobody", "0"));
                let seq = seq.parse().unwrap_or(u64::MAX);
                records.push(Polled(offset, producer.to_owned(), seq, crc32c(record.value.unwrap_or_default())));
            }
        }
        if next == self.next {
            return Fetched::Nothing;
        }
        ledger.polled.fetch_add(records.len() as u64, Ordering::Relaxed);
        ledger.add(Op::Poll {
            span,
            process: self.process.clone(),
            client: String::new(),
            tp: self.tp(),
            isolation: Isolation::Uncommitted,
            from: self.next,
            next,
            records,
            seek: std::mem::take(&mut self.seek),
        });
        self.next = next;
        Fetched::Records
    }

    /// Asks where the partition ends; noted.
    pub async fn end(&self, connection: &mut Connection, ledger: &Ledger) -> Option<u64> {
        let at = ledger.now();
        let partition =
            ListOffsetsPartition { partition_index: self.partition, current_leader_epoch: -1, timestamp: LATEST };
        let topics = vec![ListOffsetsTopic { name: self.topic.as_str().into(), partitions: vec![partition] }];
        let request = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
        let response = connection.call(&request, LIST_VERSION, ledger).await.ok()?;
        let answer = response.topics.first()?.partitions.first()?;
        let end = u64::try_from(answer.offset).ok().filter(|_| answer.error_code == 0)?;
        let span = Span { at, end: Some(ledger.now()) };
        let process = format!("{} ends", self.process);
        ledger.add(Op::Bounds { span, process, tp: self.tp(), log_start: None, lso: None, hw: Some(end) });
        Some(end)
    }
}

/// Reads one partition for ever; starts anew from the beginning or elsewhere now and then.
pub async fn consumer(client: String, (topic, partition): (String, i32), mut rng: Rng, ledger: Arc<Ledger>) {
    let mut incarnation = 0;
    let mut reader = Reader::new(&format!("{client}.0"), &topic, partition, 0);
    let mut slot = None;
    while !ledger.is_stopped() {
        if slot.is_none() {
            slot = Connection::open(&client, &ledger).await;
        }
        let Some(connection) = &mut slot else { return };
        let wait_ms = match rng.below(4) {
            0 => 0,
            1 => LONG_WAIT_MS,
            _ => rng.below(2_000) as i32,
        };
        match reader.fetch(connection, wait_ms, &ledger).await {
            Fetched::Records => ledger.served(&client),
            Fetched::Nothing => {}
            Fetched::Lost => slot = None,
            Fetched::Refused(code) => {
                // 1 = out of range: nothing of ours is ever trimmed.
                if code == 1 {
                    ledger
                        .violation(format!("{client}: offset {} of {topic}/{partition} is out of range", reader.next));
                }
                time::sleep(Duration::from_millis(100)).await;
            }
        }
        time::sleep(Duration::from_millis(rng.below(REST_MS))).await;
        if rng.chance(50_000)
            && let Some(connection) = &mut slot
            && reader.end(connection, &ledger).await.is_none()
        {
            slot = None;
        }
        if rng.chance(10_000) {
            incarnation += 1;
            let from = rng.below(reader.next + 1);
            reader = Reader::new(&format!("{client}.{incarnation}"), &topic, partition, from);
        }
    }
}
