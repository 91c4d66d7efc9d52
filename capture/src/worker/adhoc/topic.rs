//! The signal topic: records `{"type": …, "data": {…}}` of anybody, partition 0.

use crate::signal::{self, Signal, SignalError};
use crate::worker::start::log_trouble;
use catchwater_client::{ControlClient, Fetch, FetchPart, Isolation, LogClient, PartitionError, TopicsWanted};
use catchwater_record::batch::{BatchView, iterate};
use catchwater_record::{Offset, TopicName, TopicPartition, compress};
use catchwater_runtime::{Fut, time};
use std::sync::Arc;
use std::time::Duration;

/// How long the signal topic is waited for, and looked for.
const TOPIC_WAIT_MS: u32 = 1000;
const TOPIC_MISSING: Duration = Duration::from_secs(5);
const TOPIC_BYTES: u32 = 1024 * 1024;

/// Where its signals are taken from.
pub(super) struct Topic<'a> {
    pub name: TopicName,
    pub at: Option<TopicPartition>,
    pub next: Offset,
    pub flight: Option<Fut<'a, Polled>>,
    pub got: Option<Polled>,
}

/// What a look into the signal topic brought.
pub(super) struct Polled {
    pub at: Option<TopicPartition>,
    pub next: Offset,
    pub signals: Vec<Result<Signal, SignalError>>,
}

/// One look into the signal topic: what is behind `next`, or nothing after a while.
pub(super) async fn look_into(
    log: &dyn LogClient,
    control: Arc<dyn ControlClient>,
    name: TopicName,
    prefix: String,
    mut at: Option<TopicPartition>,
    next: Offset,
) -> Polled {
    let mut out = Polled { at, next, signals: Vec::new() };
    let found = control.describe_topics(TopicsWanted::Names(vec![name])).await.unwrap_or_default();
    let here = found.first().map(|t| TopicPartition::new(t.id, 0));
    // Made anew: another topic under the name.
    if here != at {
        at = here;
        (out.at, out.next) = (at, Offset::ZERO);
    }
    let Some(at) = at else {
        time::sleep(TOPIC_MISSING).await;
        return out;
    };
    let want = Fetch {
        parts: vec![FetchPart { at, offset: out.next, max_bytes: TOPIC_BYTES }],
        isolation: Isolation::Uncommitted,
        min_bytes: 1,
        max_wait_ms: TOPIC_WAIT_MS,
        credit_bytes: TOPIC_BYTES,
    };
    let part = match log.fetch(want).await.map_err(log_trouble) {
        Ok(fetched) => fetched.into_iter().next(),
        Err(_) => None,
    };
    let bytes = match part.map(|p| (p.batches, p.bounds)) {
        Some((Ok(bytes), _)) => bytes,
        Some((Err(PartitionError::OutOfRange), bounds)) => {
            out.next = bounds.log_start;
            return out;
        }
        _ => {
            time::sleep(TOPIC_MISSING).await;
            return out;
        }
    };
    let mut rest = &bytes[..];
    while let Ok((view, tail)) = BatchView::split(rest) {
        rest = tail;
        let (first, behind) = (view.offset(), view.offset().plus(u64::from(view.offset_count())));
        if behind <= out.next {
            continue;
        }
        let records = compress::section(&view, TOPIC_BYTES as usize * 16).ok();
        for record in records.iter().flat_map(|s| iterate::records(s, view.records_count().max(0) as u32)).flatten() {
            let here = first.plus(u64::from(record.offset_delta.max(0) as u32));
            // As Debezium: a record of another source's key is not for us.
            let ours = record.key.is_none_or(|k| k == prefix.as_bytes());
            if let Some(value) = record.value.filter(|_| ours && here >= out.next) {
                out.signals.push(signal::parse_record(value));
            }
        }
        out.next = behind;
    }
    out
}
