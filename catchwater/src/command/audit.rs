//! `catchwater audit list` and `audit verify`: the audit topic, read as any client reads it.

use super::topic::{connect, failure, find};
use crate::audit::{TOPIC, digest, follows};
use crate::cli::Audit;
use crate::command::group::text;
use crate::command::pipeline::utc;
use crate::report::{self, Done, Exit, Failure, Output};
use bytes::Bytes;
use catchwater_client::remote::{FetchFrom, FetchLimits, Kafka, OffsetAt, decode_records};
use serde_json::{Value, json};
use std::time::Duration;

pub async fn run(command: Audit, output: Output) -> Result<Done, Failure> {
    match command {
        Audit::List { limit, kafka } => list(&connect(&kafka).await?, limit, output).await,
        Audit::Verify { kafka } => verify(&connect(&kafka).await?).await,
    }
}

async fn bounds(kafka: &Kafka) -> Result<(i64, i64), Failure> {
    find(kafka, TOPIC).await.map_err(|f| match f.code.as_str() {
        "CW0008" => Failure::new(Exit::Runtime, "CW0008", "there is no audit record yet")
            .next("the first change of a pipeline makes the topic"),
        _ => f,
    })?;
    let first = kafka.list_offset(TOPIC, 0, OffsetAt::Earliest).await.map_err(|e| failure(&e))?;
    let end = kafka.list_offset(TOPIC, 0, OffsetAt::Latest).await.map_err(|e| failure(&e))?;
    Ok((first, end))
}

/// Every record from `at` to `end`, in order.
async fn each(
    kafka: &Kafka,
    mut at: i64,
    end: i64,
    mut see: impl FnMut(i64, &Bytes) -> Result<(), Failure>,
) -> Result<(), Failure> {
    while at < end {
        let limits = FetchLimits { max_wait: Duration::from_millis(500), ..FetchLimits::default() };
        let from = FetchFrom { topic: TOPIC, partition: 0, offset: at };
        let fetched = kafka.fetch(from, limits).await.map_err(|e| failure(&e))?;
        let damaged = |e: String| Failure::new(Exit::Runtime, "CW0009", format!("{TOPIC}: {e}"));
        let records = decode_records(&fetched.batches, at).map_err(|e| damaged(e.to_string()))?;
        if records.is_empty() {
            return Err(damaged(format!("no record at offset {at}")));
        }
        for r in records.iter().filter(|r| r.offset < end) {
            see(r.offset, r.value.as_ref().ok_or_else(|| damaged(format!("offset {} is empty", r.offset)))?)?;
            at = r.offset + 1;
        }
    }
    Ok(())
}

async fn list(kafka: &Kafka, limit: u64, output: Output) -> Result<Done, Failure> {
    let (first, end) = bounds(kafka).await?;
    let from = first.max(end.saturating_sub_unsigned(limit));
    let (mut rows, mut all) = (Vec::new(), Vec::new());
    each(kafka, from, end, |offset, value| {
        let mut v: Value =
            serde_json::from_slice(value).unwrap_or_else(|_| json!({"who": "?", "decision": "not JSON"}));
        rows.push(vec![
            utc(&v["at_ms"]),
            text(&v["who"]),
            text(&v["from"]),
            text(&v["action"]),
            text(&v["on"]),
            text(&v["decision"]),
            text(&v["after"]),
        ]);
        v["offset"] = json!(offset);
        all.push(v);
        Ok(())
    })
    .await?;
    let table = match output {
        Output::Table => report::table(&["AT", "WHO", "FROM", "ACTION", "ON", "DECISION", "AFTER"], &rows),
        Output::Json => String::new(),
    };
    Ok(Done::new(format!("{} records", rows.len()), all.into(), table))
}

async fn verify(kafka: &Kafka) -> Result<Done, Failure> {
    let (first, end) = bounds(kafka).await?;
    let (mut before, mut seen) = (None::<Bytes>, 0u64);
    each(kafka, first, end, |offset, value| {
        follows(before.as_deref(), value).map_err(|why| {
            Failure::new(Exit::Runtime, "CW0349", format!("the chain of {TOPIC} is broken at offset {offset}"))
                .cause(why)
                .next("the record there, or the one before, was changed, or one was taken out")
        })?;
        before = Some(value.clone());
        seen += 1;
        Ok(())
    })
    .await?;
    let newest = before.map(|v| digest(&v)).unwrap_or_default();
    let said = format!("{seen} records, one chain; newest {newest}");
    Ok(Done::new(said, json!({"records": seen, "first": first, "end": end, "newest": newest}), ""))
}
