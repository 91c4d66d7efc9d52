//! Dead letters of a pipeline: which there are and what became of them, and what people ask of the sinks about them.

use super::State;
use super::pipelines::{said, unknown};
use super::supervisor::WorkerStatus;
use crate::pipeline::Pipeline;
use crate::report::{Exit, Failure};
use bytes::Bytes;
use catchwater_client::remote::{Record, decode_records};
use catchwater_client::{At, ControlClient, Fetch, FetchPart, Isolation, LogClient, TaskKind, TopicsWanted};
use catchwater_deliver::park::{KeyOf, PARKED_TOPIC, Parked, ParkedBy, decode_keys};
use catchwater_deliver::worker::{Answer, Ask, HEADERS, KEYS_HEADER, Request, SINK_HEADER, Which};
use catchwater_record::{Offset, PipelineName, SinkName, SourceName, TopicId, TopicName, TopicPartition};
use catchwater_runtime::sync::{Sender, oneshot};
use catchwater_runtime::time::timeout;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Letters of one answer.
const LETTERS_MAX: u64 = 10_000;
const FETCH_BYTES: u32 = 4 << 20;
/// How long a sink may take for what it is asked; below the command line's patience.
const ASK_LIMIT: Duration = Duration::from_secs(50);

/// Which letters are to be shown.
#[derive(Default)]
pub(super) struct Wanted {
    pub sink: Option<String>,
    pub from: u64,
    pub limit: u64,
    /// Those that are settled, too.
    pub all: bool,
    /// With value and headers.
    pub whole: bool,
}

fn failed(what: &str, why: impl ToString) -> Failure {
    Failure::new(Exit::Runtime, "CW0681", what).cause(why.to_string()).next("try again")
}

/// What a letter is to its sink now.
struct Standing {
    parked: BTreeMap<String, Parked>,
    /// Sink → below where letters without a key are settled.
    settled: BTreeMap<String, Option<(TopicId, Offset)>>,
}

impl Standing {
    /// `parked`: its key is · `waiting`: of a table without a key, for a replay · `settled`: applied, or given up ·
    /// `unknown`: an older version wrote it, or its sink does not run.
    fn of(&self, sink: &str, keys: Option<&[KeyOf]>, version: &str, at: (TopicId, Offset)) -> &'static str {
        let Some(keys) = keys else { return "unknown" };
        if keys.is_empty() {
            return match self.settled.get(sink) {
                None => "unknown",
                Some(Some((topic, below))) if *topic == at.0 && at.1 < *below => "settled",
                Some(_) => "waiting",
            };
        }
        let Some(parked) = self.parked.get(sink) else { return "settled" };
        // The text form of a version sorts as the version.
        let held = |k: &KeyOf| parked.since(k).is_some_and(|since| *since.to_string() <= *version);
        if keys.iter().any(held) { "parked" } else { "settled" }
    }
}

impl State {
    async fn partition(&self, name: TopicName) -> Result<Option<TopicPartition>, Failure> {
        let found = self.local.describe_topics(TopicsWanted::Names(vec![name])).await;
        let found = found.map_err(|e| failed("the dead letters cannot be read", e))?;
        Ok(found.first().map(|t| TopicPartition::new(t.id, 0)))
    }

    /// Every record of a partition from `from` on, until `each` says false.
    async fn each(
        &self,
        at: TopicPartition,
        from: u64,
        mut each: impl FnMut(Record) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let wrong = |e: &dyn std::fmt::Display| failed("the dead letters cannot be read", e);
        let bounds = self.local.bounds(vec![at], At::Now).await.map_err(|e| wrong(&e))?;
        let Some(bounds) = bounds.first().copied() else { return Ok(()) };
        let mut next = Offset(from).max(bounds.log_start);
        while next < bounds.lso {
            let fetch = Fetch {
                parts: vec![FetchPart { at, offset: next, max_bytes: FETCH_BYTES }],
                isolation: Isolation::Committed,
                min_bytes: 1,
                max_wait_ms: 100,
                credit_bytes: FETCH_BYTES,
            };
            let before = next;
            for f in self.local.fetch(fetch).await.map_err(|e| wrong(&e))? {
                let bytes = f.batches.map_err(|e| wrong(&e))?;
                let from = i64::try_from(next.0).unwrap_or(i64::MAX);
                for record in decode_records(&bytes, from).map_err(|e| wrong(&e))? {
                    next = Offset(record.offset.unsigned_abs() + 1);
                    if !each(record)? {
                        return Ok(());
                    }
                }
                if let Some(end) = catchwater_client::remote::end_of_batches(&bytes) {
                    next = next.max(Offset(end.unsigned_abs()));
                }
            }
            if next == before {
                // Nothing but gaps is left.
                return Ok(());
            }
        }
        Ok(())
    }

    async fn standing(&self, name: &str, pipeline: &Pipeline) -> Result<Standing, Failure> {
        let of = |sink: &String, source: &str| ParkedBy {
            pipeline: PipelineName::from(name),
            sink: SinkName::from(sink.as_str()),
            source: SourceName::from(source),
        };
        let sinks: Vec<(String, ParkedBy)> =
            pipeline.sinks.iter().map(|(n, s)| (n.clone(), of(n, s.source()))).collect();
        let mut parked: BTreeMap<String, Parked> = BTreeMap::new();
        if let Some(at) = self.partition(TopicName::from(PARKED_TOPIC)).await? {
            self.each(at, 0, |record| {
                for (sink, by) in &sinks {
                    let of = parked.entry(sink.clone()).or_default();
                    of.read(by, record.key.as_deref(), record.value.as_deref()).map_err(|_| {
                        let what = format!("the record of {PARKED_TOPIC} at offset {} cannot be read", record.offset);
                        Failure::new(Exit::Runtime, "CW0685", what)
                    })?;
                }
                Ok(true)
            })
            .await?;
        }
        let mut settled = BTreeMap::new();
        for w in self.workers().values().filter(|w| w.task.pipeline.as_str() == name && w.failure.is_none()) {
            if let WorkerStatus::Deliver(status) = &w.status {
                settled.insert(w.task.node.to_string(), status.read().letters_settled);
            }
        }
        Ok(Standing { parked, settled })
    }

    /// Dead letters in the order of their topic. `next` = where to go on.
    pub(super) async fn letters_json(&self, name: &str, wanted: &Wanted) -> Result<Value, Failure> {
        let (_, pipeline) = self.stored(name).await?.ok_or_else(|| unknown(name))?;
        let standing = self.standing(name, &pipeline).await?;
        let Some(at) = self.partition(pipeline.letters_topic()).await? else {
            return Ok(json!({"letters": [], "next": null}));
        };
        let limit = usize::try_from(wanted.limit.clamp(1, LETTERS_MAX)).unwrap_or(1);
        let (mut letters, mut next, mut seen) = (Vec::new(), None, BTreeSet::new());
        self.each(at, wanted.from, |record| {
            // Another pipeline may have the same topic, and so may anybody.
            let Some(letter) = letter_json(&record, name, &standing, at.topic, wanted.whole) else { return Ok(true) };
            let sink = letter["sink"].as_str().unwrap_or_default();
            let other = wanted.sink.as_ref().is_some_and(|s| s != sink);
            let settled = matches!(letter["state"].as_str(), Some("settled"));
            // After a crash a letter may be there twice.
            if other || settled && !wanted.all || !seen.insert(format!("{sink} {}", letter["version"])) {
                return Ok(true);
            }
            if letters.len() == limit {
                next = Some(record.offset);
                return Ok(false);
            }
            letters.push(letter);
            Ok(true)
        })
        .await?;
        Ok(json!({"letters": letters, "next": next}))
    }

    /// Has every sink concerned do it, one after the other.
    pub(super) async fn ask_letters(
        &self,
        name: &str,
        (ask, which): (Ask, Which),
        sink: Option<String>,
        author: &str,
    ) -> Result<Value, Failure> {
        let (_, pipeline) = self.stored(name).await?.ok_or_else(|| unknown(name))?;
        let mut sinks: Vec<String> = pipeline.sinks.keys().cloned().collect();
        let one = match (&which, sink) {
            (Which::Letter(offset), None) => Some(self.sink_of(name, *offset).await?),
            (_, sink) => sink,
        };
        if let Some(one) = one {
            sinks.retain(|s| *s == one);
            if sinks.is_empty() {
                return Err(Failure::new(Exit::Refused, "CW0344", format!("pipeline {name} has no sink {one}"))
                    .next(format!("catchwater pipeline show {name}")));
            }
        }
        let action = match ask {
            Ask::Replay => "dlq.replay",
            Ask::Discard => "dlq.discard",
            Ask::Rebuild => "sink.rebuild",
        };
        let after = json!({"which": which_json(&which), "sinks": sinks});
        self.audited(said(author, action, name, after), Ok(()), async {
            let (mut out, mut failed) = (serde_json::Map::new(), None);
            for sink in sinks {
                // A sink that stands holds up none of the others.
                match self.ask_sink(name, &sink, ask, which.clone()).await {
                    Ok(answer) => drop(out.insert(sink, answer_json(&answer))),
                    Err(failure) => failed = failed.or(Some(failure)),
                }
            }
            match failed {
                None => Ok(json!({"pipeline": name, "topic": pipeline.letters_topic().as_str(), "sinks": out})),
                Some(failure) => Err(failure),
            }
        })
        .await
    }

    async fn sink_of(&self, name: &str, offset: Offset) -> Result<String, Failure> {
        let wanted = Wanted { from: offset.0, limit: 1, all: true, ..Wanted::default() };
        let found = self.letters_json(name, &wanted).await?;
        let letter = &found["letters"][0];
        if letter["offset"].as_u64() != Some(offset.0) {
            let what = format!("{name} has no dead letter at offset {offset}");
            return Err(Failure::new(Exit::Refused, "CW0687", what).next(format!("catchwater dlq list {name}")));
        }
        Ok(letter["sink"].as_str().unwrap_or_default().to_owned())
    }

    async fn ask_sink(&self, name: &str, sink: &str, ask: Ask, which: Which) -> Result<Answer, Failure> {
        let stands = |why: String| {
            Failure::new(Exit::Runtime, "CW0689", format!("sink {sink} of {name} does not run"))
                .cause(why)
                .next(format!("catchwater lag shows why; catchwater pipeline resume {name}, or restart"))
        };
        let to = self.asks_of(name, sink).map_err(stands)?;
        let (reply, answer) = oneshot::channel();
        let late = || {
            let limit = ASK_LIMIT.as_secs();
            Failure::new(Exit::Runtime, "CW0688", format!("sink {sink} of {name} gave no answer within {limit} s"))
                .cause("its target does not answer, or a large transaction or the first snapshot is being written")
                .next("what it has begun it ends; catchwater lag shows what it does, then ask again")
        };
        let asked = async {
            to.send(Request { ask, which, reply }).await.ok()?;
            answer.await.ok()
        };
        match timeout(ASK_LIMIT, asked).await {
            Err(_) => Err(late()),
            Ok(None) => Err(stands("it ended meanwhile".into())),
            Ok(Some(Ok(answer))) => Ok(answer),
            Ok(Some(Err(f))) => {
                Err(Failure::new(Exit::Runtime, &f.code.to_string(), format!("sink {sink}: {}", f.what)).next(f.next))
            }
        }
    }

    /// By what a running sink is asked; else why it does not run.
    fn asks_of(&self, name: &str, sink: &str) -> Result<Sender<Request>, String> {
        let workers = self.workers();
        let found = workers.values().find(|w| {
            matches!(w.task.kind, TaskKind::Deliver) && w.task.pipeline.as_str() == name && w.task.node.as_str() == sink
        });
        match found {
            None => Err("it is paused, or did not begin".into()),
            Some(w) => match (&w.failure, &w.asks) {
                (Some(f), _) => Err(format!("{} {}", f.code, f.message)),
                (None, Some(asks)) => Ok(asks.clone()),
                (None, None) => Err("it is no sink".into()),
            },
        }
    }
}

fn which_json(which: &Which) -> Value {
    match which {
        Which::All => json!("all"),
        Which::Table(table) => json!({"table": table}),
        Which::Letter(offset) => json!({"offset": offset.0}),
    }
}

fn answer_json(a: &Answer) -> Value {
    json!({
        "keys": a.keys, "letters": a.letters, "kept": a.kept,
        "refused": a.refused.as_ref().map(|r| json!({
            "offset": r.offset.map(|o| o.0), "code": r.code.to_string(), "what": r.what,
        })),
    })
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `None` = it is no dead letter of this pipeline.
fn letter_json(record: &Record, pipeline: &str, standing: &Standing, topic: TopicId, whole: bool) -> Option<Value> {
    let header = |name: &str| {
        let found = record.headers.iter().find(|(k, _)| k == name.as_bytes());
        found.and_then(|(_, v)| v.as_ref()).map(text)
    };
    let number = |text: Option<String>| text.and_then(|t| t.parse::<u64>().ok());
    let [of_topic, partition, offset, message] = HEADERS.map(|(name, ours)| header(name).or_else(|| header(ours)));
    // A connector's name may have a dot.
    let sink = header(SINK_HEADER)?.strip_prefix(pipeline)?.strip_prefix('.')?.to_owned();
    let (version, keys) = (header("cw.version").unwrap_or_default(), header(KEYS_HEADER));
    let keys = keys.as_deref().and_then(decode_keys);
    let at = (topic, Offset(record.offset.unsigned_abs()));
    let mut out = json!({
        "offset": record.offset, "at_ms": record.timestamp_ms, "sink": sink,
        "topic": of_topic, "partition": number(partition), "source_offset": number(offset),
        "key": record.key.as_ref().map(text), "version": version, "code": header("cw.error.code"),
        "message": message,
        "state": standing.of(&sink, keys.as_deref(), &version, at),
    });
    if whole {
        let headers = record.headers.iter().filter_map(|(k, v)| {
            let value = std::str::from_utf8(v.as_deref()?).ok().filter(|v| !v.chars().any(char::is_control))?;
            Some((text(k), Value::from(value)))
        });
        out["headers"] = Value::Object(headers.collect());
        out["value"] = record.value.as_ref().map_or(Value::Null, |v| match serde_json::from_slice(v) {
            Ok(value) => value,
            Err(_) => text(v).into(),
        });
    }
    Some(out)
}
