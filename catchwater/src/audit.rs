//! `__catchwater_audit`: who changed what, chained so that a record which is changed or taken out is seen. Page:
//! `docs/formats/audit.md`.
//!
//! What is allowed is written *before* it is done, and done only if it was written: no change without its record. What
//! is refused is written, too. One writer per node; the chain goes on from the newest record after a restart.

use crate::report::{Exit, Failure};
use bytes::Bytes;
use catchwater_broker::LocalClient;
use catchwater_client::remote::decode_records;
use catchwater_client::{
    Acks, Append, AppendOutcome, At, Context, ControlClient, Fetch, FetchPart, Isolation, LogClient, TopicsWanted,
};
use catchwater_record::batch::build::Builder;
use catchwater_record::{Offset, TopicName, TopicPartition};
use catchwater_runtime::sync::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

pub const TOPIC: &str = "__catchwater_audit";

/// What is said of one call.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// As the caller called himself; there are no accounts yet.
    pub who: String,
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
        "version": 1, "at_ms": at_ms, "who": e.who, "action": e.action, "on": e.on, "before": e.before,
        "after": e.after, "decision": e.decision, "prev": prev,
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
        let mut newest = self.newest.lock().await;
        let (at, prev) = match newest.take() {
            Some(known) => known,
            None => self.read_newest().await?,
        };
        let at_ms = catchwater_runtime::time::wall().as_millis();
        let value = value(entry, at_ms, &prev);
        let mut batch = Builder::new();
        batch.push(at_ms, None, Some(value.as_bytes()), []);
        let how = Append { context: Context::None, acks: Acks::All, timeout_ms: 10_000 };
        match self.local.append(at, batch.finish().freeze(), how).await {
            AppendOutcome::Appended { .. } => {
                *newest = Some((at, digest(value.as_bytes())));
                Ok(())
            }
            // It may be in the log: the next one reads what is.
            other => Err(failed(format!("{other:?}"))),
        }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry() -> Entry {
        Entry {
            who: "ann".into(),
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
