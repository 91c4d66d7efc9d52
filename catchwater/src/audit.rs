//! `__catchwater_audit`: who changed what, chained so that a record which is changed or taken out is seen. Page:
//! `docs/formats/audit.md`.
//!
//! What is allowed is written *before* it is done, and done only if it was written: no change without its record. What
//! is refused is written, too. One writer per node; the chain goes on from the newest record after a restart.

use crate::report::{Exit, Failure};
use bytes::Bytes;
use catchwater_broker::LocalClient;
use catchwater_broker::audit::{Auditor, Decision, Note, Unwritten};
use catchwater_client::remote::decode_records;
use catchwater_client::{
    Acks, Append, AppendOutcome, At, Context, ControlClient, Fetch, FetchPart, Isolation, LogClient, TopicsWanted, Why,
};
use catchwater_record::batch::build::Builder;
use catchwater_record::{Offset, TopicName, TopicPartition};
use catchwater_runtime::Fut;
use catchwater_runtime::sync::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::{Arc, Mutex as StdMutex, OnceLock, PoisonError, Weak};

pub const TOPIC: &str = "__catchwater_audit";
/// Of requests that change nothing, as many are written in a minute; the rest is counted.
const REFUSED_A_MINUTE: u32 = 60;
/// Bytes of values in one batch: far below what a batch may hold.
const BATCH_BYTES: usize = 256 << 10;
const MINUTE_MS: i64 = 60_000;

/// What is said of one call.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// As the caller called himself; there are no accounts yet.
    pub who: String,
    /// By which face, and from which address where it is known.
    pub from: String,
    /// `pipeline.apply`
    pub action: &'static str,
    /// `pipeline shop`
    pub on: String,
    pub before: Value,
    pub after: Value,
    /// `allowed`, or `refused CW0343`.
    pub decision: String,
}

impl Entry {
    pub fn allowed(self) -> Entry {
        Entry { decision: "allowed".into(), ..self }
    }
}

/// The record's value. Fields in this order, without spaces.
fn value(e: &Entry, at_ms: i64, prev: &str) -> String {
    json!({
        "version": 2, "at_ms": at_ms, "who": e.who, "action": e.action, "on": e.on, "before": e.before,
        "after": e.after, "decision": e.decision, "from": e.from, "prev": prev,
    })
    .to_string()
}

/// SHA-256 in hex: what the next record carries of this one.
pub fn digest(value: &[u8]) -> String {
    Sha256::digest(value).iter().map(|b| format!("{b:02x}")).collect()
}

/// Does the record follow the one before? `None` = it is the first that is kept.
pub fn follows(before: Option<&[u8]>, value: &[u8]) -> Result<(), String> {
    let parsed: Value = serde_json::from_slice(value).map_err(|e| format!("it is not JSON: {e}"))?;
    let Some(prev) = parsed["prev"].as_str() else { return Err("it carries no `prev`".into()) };
    match before.map(digest) {
        Some(wanted) if prev != wanted => Err(format!("it says {prev:?} of the record before, which is {wanted}")),
        _ => Ok(()),
    }
}

/// Why entries were not written, or not for certain.
enum NotNoted {
    Topic(Failure),
    Append(AppendOutcome),
}

/// The writer of this node.
pub struct Audit {
    local: Arc<LocalClient>,
    /// Digest of the newest record; `None` = it must be read.
    newest: Mutex<Option<(TopicPartition, String)>>,
}

fn failed(why: impl ToString) -> Failure {
    Failure::new(Exit::Runtime, "CW0348", "the audit record could not be written, so nothing was changed")
        .cause(why.to_string())
        .next("look at the node's log; without a record of it no change is made")
}

impl Audit {
    pub fn new(local: Arc<LocalClient>) -> Self {
        Audit { local, newest: Mutex::new(None) }
    }

    /// Durable when it returns.
    pub async fn note(&self, entry: &Entry) -> Result<(), Failure> {
        match self.note_all(std::slice::from_ref(entry), 10_000).await {
            Ok(()) => Ok(()),
            Err(NotNoted::Topic(f)) => Err(f),
            Err(NotNoted::Append(AppendOutcome::NotWritten(Why::NoRoom))) => {
                Err(failed("the disk has no more room than min.free.bytes keeps free")
                    .next("make room on the disk of the data directory"))
            }
            Err(NotNoted::Append(outcome)) => Err(failed(format!("{outcome:?}"))),
        }
    }

    /// The same for several, in their order. Where it fails, the first of them may be written.
    async fn note_all(&self, entries: &[Entry], timeout_ms: u32) -> Result<(), NotNoted> {
        let mut newest = self.newest.lock().await;
        let mut entries = entries.iter().peekable();
        while entries.peek().is_some() {
            let (at, mut prev) = match newest.take() {
                Some(known) => known,
                None => self.read_newest().await.map_err(NotNoted::Topic)?,
            };
            let at_ms = catchwater_runtime::time::wall().as_millis();
            let (mut batch, mut bytes) = (Builder::new(), 0);
            while let Some(entry) = entries.next_if(|_| bytes < BATCH_BYTES) {
                let value = value(entry, at_ms, &prev);
                batch.push(at_ms, None, Some(value.as_bytes()), []);
                bytes += value.len();
                prev = digest(value.as_bytes());
            }
            let how = Append { context: Context::None, acks: Acks::All, timeout_ms };
            match self.local.append(at, batch.finish().freeze(), how).await {
                AppendOutcome::Appended { .. } => *newest = Some((at, prev)),
                // It may be in the log: the next one reads what is.
                other => return Err(NotNoted::Append(other)),
            }
        }
        Ok(())
    }

    async fn read_newest(&self) -> Result<(TopicPartition, String), Failure> {
        let configs = [("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")];
        self.local.ensure_internal(TOPIC, 1, &configs).await.map_err(failed)?;
        let topics = self.local.describe_topics(TopicsWanted::Names(vec![TopicName::from(TOPIC)])).await;
        let topic = topics.map_err(failed)?.first().map(|t| t.id).ok_or_else(|| failed("the topic is not there"))?;
        let at = TopicPartition::new(topic, 0);
        let bounds = self.local.bounds(vec![at], At::Now).await.map_err(failed)?;
        let bounds = bounds.first().copied().unwrap_or_default();
        if bounds.high_watermark == bounds.log_start {
            return Ok((at, String::new()));
        }
        let from = Offset(bounds.high_watermark.0 - 1);
        let want = Fetch {
            parts: vec![FetchPart { at, offset: from, max_bytes: 1 << 20 }],
            isolation: Isolation::Uncommitted,
            min_bytes: 1,
            max_wait_ms: 5_000,
            credit_bytes: 1 << 20,
        };
        let fetched = self.local.fetch(want).await.map_err(failed)?;
        let batches: Bytes = match fetched.into_iter().next() {
            Some(f) => f.batches.map_err(failed)?,
            None => return Err(failed("the newest record was not answered")),
        };
        let records = decode_records(&batches, from.wire()).map_err(failed)?;
        let newest = records.last().and_then(|r| r.value.clone());
        Ok((at, newest.map(|v| digest(&v)).ok_or_else(|| failed("the newest record is empty"))?))
    }
}

/// What Kafka's requests change goes into the same chain.
#[derive(Default)]
pub struct KafkaRequests {
    /// Weak: the broker holds this, and the writer the broker. Not there while the node starts.
    audit: OnceLock<Weak<Audit>>,
    refused: StdMutex<Refused>,
}

/// Requests that changed nothing, in this minute.
#[derive(Debug, Default)]
struct Refused {
    minute: i64,
    written: u32,
    left_out: u64,
}

impl Refused {
    /// Is there room for one more?
    fn take(&mut self, minute: i64) -> bool {
        if self.minute != minute {
            (self.minute, self.written) = (minute, 0);
        }
        let room = self.written < REFUSED_A_MINUTE;
        if room {
            self.written += 1;
        } else {
            self.left_out += 1;
        }
        room
    }

    /// How many were left out, once another minute has begun.
    fn owed(&mut self, minute: i64) -> Option<u64> {
        let owed = self.minute != minute && self.left_out > 0;
        owed.then(|| std::mem::take(&mut self.left_out))
    }
}

/// How long a request of Kafka waits for its record.
const KAFKA_LIMIT_MS: u32 = 3_000;

impl KafkaRequests {
    pub fn write_to(&self, audit: &Arc<Audit>) {
        let _ = self.audit.set(Arc::downgrade(audit));
    }

    /// What of these is written.
    fn entries(&self, notes: Vec<Note>, minute: i64) -> Vec<Entry> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries: Vec<Entry> = refused.owed(minute).map(left_out).into_iter().collect();
        entries
            .extend(notes.into_iter().filter(|n| n.decision == Decision::Allowed || refused.take(minute)).map(entry));
        entries
    }
}

fn left_out(count: u64) -> Entry {
    Entry {
        who: "node".into(),
        from: "node".into(),
        action: "audit.left_out",
        on: "refused requests".into(),
        before: Value::Null,
        after: json!({"count": count}),
        decision: "allowed".into(),
    }
}

fn entry(n: Note) -> Entry {
    let after = n.deed.after.into_iter().map(|(k, v)| (k.to_owned(), Value::String(v))).collect();
    Entry {
        who: n.who,
        from: n.from,
        action: n.deed.action,
        on: n.deed.on,
        before: Value::Null,
        after: Value::Object(after),
        decision: match n.decision {
            Decision::Allowed => "allowed".into(),
            Decision::Refused(why) => format!("refused {why}"),
            Decision::Failed(why) => format!("failed {why}"),
        },
    }
}

impl std::fmt::Debug for KafkaRequests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KafkaRequests")
    }
}

impl Auditor for KafkaRequests {
    fn note(&self, notes: Vec<Note>) -> Fut<'_, Result<(), Unwritten>> {
        Box::pin(async move {
            let audit = self.audit.get().and_then(Weak::upgrade).ok_or(Unwritten::Other)?;
            let minute = catchwater_runtime::time::wall().as_millis() / MINUTE_MS;
            match audit.note_all(&self.entries(notes, minute), KAFKA_LIMIT_MS).await {
                Ok(()) => Ok(()),
                Err(NotNoted::Append(AppendOutcome::NotWritten(Why::NoRoom))) => Err(Unwritten::NoRoom),
                Err(_) => Err(Unwritten::Other),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry() -> Entry {
        Entry {
            who: "ann".into(),
            from: "http".into(),
            action: "pipeline.pause",
            on: "pipeline shop".into(),
            before: json!({"running": true}),
            after: json!({"running": false}),
            decision: "allowed".into(),
        }
    }

    #[test]
    fn the_records_are_those_of_the_page() {
        let first = value(&entry(), 1_700_000_000_000, "");
        let second = value(&entry(), 1_700_000_000_001, &digest(first.as_bytes()));
        let page = include_str!("../../docs/formats/audit.md");
        for line in [&first, &second] {
            assert!(page.contains(line.as_str()), "the page lacks {line}");
        }
    }

    #[test]
    fn refused_requests_are_bounded_and_what_changes_is_not() {
        let kafka = KafkaRequests::default();
        let note = |decision| Note {
            who: "User:ANONYMOUS".into(),
            from: "kafka 127.0.0.1:1".into(),
            deed: catchwater_broker::audit::Deed::new("topic.create", "topic", "t"),
            decision,
        };
        let mut written = 0;
        for _ in 0..100 {
            written += kafka.entries(vec![note(Decision::Refused("TOPIC_ALREADY_EXISTS"))], 1).len();
        }
        assert_eq!(written, 60);
        assert_eq!(kafka.entries(vec![note(Decision::Allowed); 100], 1).len(), 100, "changes are all written");
        let next = kafka.entries(vec![note(Decision::Failed("REQUEST_TIMED_OUT"))], 2);
        let said: Vec<_> = next.iter().map(|e| (e.action, e.decision.as_str(), e.after["count"].clone())).collect();
        assert_eq!(said[0], ("audit.left_out", "allowed", json!(40)));
        assert_eq!(said[1], ("topic.create", "failed REQUEST_TIMED_OUT", Value::Null));
        assert_eq!(kafka.entries(vec![], 3).len(), 0, "they are owed once");
    }

    #[test]
    fn a_changed_a_missing_and_a_foreign_record_are_seen() {
        let mut chain: Vec<Vec<u8>> = Vec::new();
        for n in 0..4 {
            let prev = chain.last().map(|v| digest(v)).unwrap_or_default();
            chain.push(value(&entry(), n, &prev).into_bytes());
        }
        let broken = |chain: &[Vec<u8>]| {
            let pairs = chain.windows(2).map(|w| follows(Some(&w[0]), &w[1]).is_err());
            pairs.collect::<Vec<_>>()
        };
        assert_eq!(broken(&chain), [false; 3]);
        assert!(follows(None, &chain[2]).is_ok(), "the first kept one follows nothing");
        let mut changed = chain.clone();
        let text = String::from_utf8(changed[1].clone()).unwrap().replace("ann", "eve");
        changed[1] = text.into_bytes();
        assert_eq!(broken(&changed), [false, true, false]);
        chain.remove(1);
        assert_eq!(broken(&chain), [true, false]);
        assert!(follows(Some(&chain[0]), b"{}").is_err() && follows(None, b"x").is_err());
    }
}
