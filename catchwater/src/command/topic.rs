//! `catchwater topic …`: over the Kafka protocol, so it works with any cluster.

use crate::cli::{Kafka as Where, Topic};
use crate::report::{self, Done, Exit, Failure, Output};
use bytes::Bytes;
use catchwater_client::remote::{
    Acks, FetchFrom, FetchLimits, Kafka, NewTopic, OffsetAt, Options, ProduceOutcome, Record, RemoteError,
    ResourceKind, TopicInfo, decode_records, end_of_batches,
};
use catchwater_record::batch::build::Builder;
use catchwater_record::murmur2;
use serde_json::{Value, json};
use std::io::BufRead;
use std::time::Duration;

/// Most bytes of one batch that `produce` builds; larger single lines go alone.
const BATCH_BYTES_MAX: usize = 512 * 1024;

pub async fn run(command: Topic, output: Output) -> Result<Done, Failure> {
    match command {
        Topic::List { kafka, all } => list(&connect(&kafka).await?, all).await,
        Topic::Describe { topic, kafka } => describe(&connect(&kafka).await?, &topic).await,
        Topic::Produce { topic, kafka, key_separator, partition } => {
            produce(&connect(&kafka).await?, &topic, key_separator.as_deref(), partition).await
        }
        Topic::Consume { topic, kafka, partition, offset, limit, follow } => {
            let from = match offset.as_str() {
                "earliest" | "beginning" => From::At(OffsetAt::Earliest),
                "latest" | "end" => From::At(OffsetAt::Latest),
                n => From::Number(n.parse().map_err(|_| {
                    Failure::new(Exit::Refused, "CW0004", format!("--offset {n}: `earliest`, `latest` or a number"))
                })?),
            };
            let consume = Consume { topic, partition, from, limit, follow, output };
            consume.run(&connect(&kafka).await?).await
        }
    }
}

pub(super) async fn connect(kafka: &Where) -> Result<Kafka, Failure> {
    let options =
        Options { client_id: "catchwater-cli".into(), timeout: Duration::from_secs(15), ..Options::default() };
    let addresses: Vec<&str> = kafka.bootstrap.split(',').collect();
    Kafka::connect(&addresses, options).await.map_err(|e| failure(&e))
}

fn chain(e: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut at = e.source();
    while let Some(e) = at {
        text.push_str(if text.is_empty() { "" } else { ": " });
        text.push_str(&e.to_string());
        at = e.source();
    }
    text
}

pub(super) fn failure(e: &RemoteError) -> Failure {
    match e.code() {
        Some(code) => Failure::new(Exit::Runtime, "CW0009", format!("{e}")).cause(format!("Kafka error {code}")),
        None => Failure::new(Exit::Environment, "CW0007", format!("{e}"))
            .cause(chain(e))
            .next("is the node running? give its Kafka address with --bootstrap-server"),
    }
}

pub(super) async fn find(kafka: &Kafka, topic: &str) -> Result<TopicInfo, Failure> {
    kafka.topic(topic).await.map_err(|e| failure(&e))?.ok_or_else(|| {
        Failure::new(Exit::Runtime, "CW0008", format!("no topic {topic}")).next("catchwater topic list shows the names")
    })
}

async fn list(kafka: &Kafka, all: bool) -> Result<Done, Failure> {
    let topics = kafka.topics().await.map_err(|e| failure(&e))?;
    let shown: Vec<&TopicInfo> = topics.iter().filter(|t| all || !(t.internal || t.name.starts_with("__"))).collect();
    let rows: Vec<Vec<String>> =
        shown.iter().map(|t| vec![t.name.clone(), t.partitions.len().to_string(), t.id.to_string()]).collect();
    let result: Vec<Value> = shown
        .iter()
        .map(|t| json!({"name": t.name, "partitions": t.partitions.len(), "id": t.id.to_string(), "internal": t.internal}))
        .collect();
    let text = report::table(&["TOPIC", "PARTITIONS", "ID"], &rows);
    Ok(Done::new(format!("{} topics", shown.len()), json!(result), text))
}

async fn describe(kafka: &Kafka, name: &str) -> Result<Done, Failure> {
    let topic = find(kafka, name).await?;
    let mut rows = Vec::new();
    let mut partitions = Vec::new();
    for p in &topic.partitions {
        let first = kafka.list_offset(name, p.index, OffsetAt::Earliest).await.map_err(|e| failure(&e))?;
        let end = kafka.list_offset(name, p.index, OffsetAt::Latest).await.map_err(|e| failure(&e))?;
        let leader = p.leader.map_or("-".into(), |l| l.to_string());
        rows.push(vec![
            p.index.to_string(),
            leader,
            p.leader_epoch.to_string(),
            first.to_string(),
            end.to_string(),
            (end - first).to_string(),
        ]);
        partitions.push(json!({"partition": p.index, "leader": p.leader, "leader_epoch": p.leader_epoch, "log_start": first, "end": end, "replicas": p.replicas, "in_sync": p.in_sync}));
    }
    let configs = kafka.describe_configs(ResourceKind::Topic, name).await.map_err(|e| failure(&e))?;
    let set: Vec<Vec<String>> = configs
        .iter()
        .filter(|c| c.source == 1)
        .map(|c| vec![c.name.clone(), c.value.clone().unwrap_or_else(|| "***".into())])
        .collect();
    let all: serde_json::Map<String, Value> = configs.iter().map(|c| (c.name.clone(), json!(c.value))).collect();
    let mut text = format!("topic {name}  id {}\n\n", topic.id);
    text.push_str(&report::table(&["PARTITION", "LEADER", "EPOCH", "START", "END", "OFFSETS"], &rows));
    if !set.is_empty() {
        text.push('\n');
        text.push_str(&report::table(&["SETTING", "VALUE"], &set));
    }
    let result = json!({"name": name, "id": topic.id.to_string(), "partitions": partitions, "configs": all});
    Ok(Done::new(format!("topic {name}"), result, text))
}

fn now_ms() -> i64 {
    catchwater_runtime::time::wall().as_millis()
}

async fn produce(kafka: &Kafka, topic: &str, separator: Option<&str>, partition: Option<u32>) -> Result<Done, Failure> {
    let info = match kafka.topic(topic).await.map_err(|e| failure(&e))? {
        Some(info) => info,
        // As Kafka's own tools: the topic is made with the cluster's defaults.
        None => {
            let new = NewTopic { name: topic.to_owned(), partitions: None, replication: None, configs: Vec::new() };
            kafka.create_topic(&new).await.map_err(|e| failure(&e))?;
            find(kafka, topic).await?
        }
    };
    let count = info.partitions.len().max(1) as u32;
    if let Some(p) = partition.filter(|p| *p >= count) {
        return Err(Failure::new(
            Exit::Runtime,
            "CW0008",
            format!("topic {topic} has no partition {p}, only 0–{}", count - 1),
        ));
    }
    let mut builders: Vec<Builder> = (0..count).map(|_| Builder::new()).collect();
    let mut sent = 0u64;
    let input = std::io::stdin().lock();
    for line in input.split(b'\n') {
        let line = line.map_err(|e| {
            Failure::new(Exit::Environment, "CW0011", "cannot read standard input").cause(e.to_string())
        })?;
        let (key, value) = match separator.and_then(|s| find_bytes(&line, s.as_bytes()).map(|at| (at, s.len()))) {
            Some((at, len)) => (Some(&line[..at]), &line[at + len..]),
            None => (None, &line[..]),
        };
        let to = partition.unwrap_or_else(|| key.map_or(0, |k| murmur2::partition_for_key(k, count).0)) as usize;
        let builder = &mut builders[to];
        builder.push(now_ms(), key, Some(value), []);
        if builder.bytes() >= BATCH_BYTES_MAX {
            sent += flush(kafka, topic, to, std::mem::take(builder)).await?;
        }
    }
    for (to, builder) in builders.into_iter().enumerate() {
        if !builder.is_empty() {
            sent += flush(kafka, topic, to, builder).await?;
        }
    }
    Ok(Done::new(format!("{sent} records written to {topic}"), json!({"topic": topic, "records": sent}), ""))
}

async fn flush(kafka: &Kafka, topic: &str, partition: usize, batch: Builder) -> Result<u64, Failure> {
    let count = u64::from(batch.count());
    match kafka.produce(topic, partition as i32, batch.finish().freeze(), Acks::All).await {
        ProduceOutcome::Written(_) => Ok(count),
        ProduceOutcome::Refused(e) => Err(failure(&e)),
        ProduceOutcome::Unknown(e) => {
            let mut f = failure(&e);
            f.message = format!("{count} records may or may not be written: {}", f.message);
            Err(f)
        }
    }
}

fn find_bytes(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len().max(1)).position(|w| w == needle)
}

enum From {
    At(OffsetAt),
    Number(i64),
}

struct Consume {
    topic: String,
    partition: Option<u32>,
    from: From,
    limit: Option<u64>,
    follow: bool,
    output: Output,
}

impl Consume {
    async fn run(&self, kafka: &Kafka) -> Result<Done, Failure> {
        let info = find(kafka, &self.topic).await?;
        let mut parts: Vec<(i32, i64, i64)> = Vec::new();
        for p in info.partitions.iter().filter(|p| self.partition.is_none_or(|w| i64::from(w) == i64::from(p.index))) {
            let end = kafka.list_offset(&self.topic, p.index, OffsetAt::Latest).await.map_err(|e| failure(&e))?;
            let from = match self.from {
                From::Number(n) => n,
                From::At(at) => kafka.list_offset(&self.topic, p.index, at).await.map_err(|e| failure(&e))?,
            };
            parts.push((p.index, from, end));
        }
        if parts.is_empty() {
            let p = self.partition.unwrap_or_default();
            return Err(Failure::new(Exit::Runtime, "CW0008", format!("topic {} has no partition {p}", self.topic)));
        }
        let mut left = self.limit.unwrap_or(u64::MAX);
        while left > 0 && (self.follow || parts.iter().any(|(_, at, end)| at < end)) {
            for (partition, at, end) in &mut parts {
                if !self.follow && *at >= *end {
                    continue;
                }
                let limits = FetchLimits { max_wait: Duration::from_millis(200), ..FetchLimits::default() };
                let from = FetchFrom { topic: &self.topic, partition: *partition, offset: *at };
                let fetched = kafka.fetch(from, limits).await.map_err(|e| failure(&e))?;
                let records = decode_records(&fetched.batches, *at).map_err(|e| {
                    Failure::new(Exit::Runtime, "CW0009", format!("{}: {e}", self.topic)).cause(chain(&e))
                })?;
                for record in records {
                    *at = record.offset + 1;
                    let is_read = report::print(&self.line(*partition, &record));
                    left -= 1;
                    if left == 0 || !is_read {
                        return Ok(Done::silent());
                    }
                }
                // Compaction may have taken the records at the end of the last batch.
                *at = (*at).max(end_of_batches(&fetched.batches).unwrap_or(*at));
                if fetched.batches.is_empty() && !self.follow {
                    // Only offsets without records (control batches) can be left.
                    *at = (*at).max(*end);
                }
            }
        }
        Ok(Done::silent())
    }

    fn line(&self, partition: i32, r: &Record) -> String {
        let text = |b: &Option<Bytes>| b.as_ref().map(|b| String::from_utf8_lossy(b).into_owned());
        if self.output == Output::Table {
            let (key, value) = (text(&r.key), text(&r.value));
            let key = key.map(|k| format!("{k}\t")).unwrap_or_default();
            return format!("{key}{}\n", value.as_deref().unwrap_or("(null)"));
        }
        let headers: Vec<Value> = r
            .headers
            .iter()
            .map(|(k, v)| json!({"key": String::from_utf8_lossy(k), "value": v.as_ref().map(|v| printable(v))}))
            .collect();
        let line = json!({"topic": self.topic, "partition": partition, "offset": r.offset, "timestamp": r.timestamp_ms, "key": text(&r.key), "value": text(&r.value), "headers": headers});
        format!("{line}\n")
    }
}

/// UTF-8 text as it is, other bytes as hex.
fn printable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(t) if !t.chars().any(|c| c.is_control() && c != '\n' && c != '\t') => t.to_owned(),
        _ => bytes.iter().map(|b| format!("{b:02x}")).collect(),
    }
}
