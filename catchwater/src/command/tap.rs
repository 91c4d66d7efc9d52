//! `catchwater tap NAME`: changes as they go into the log, row by row, with the values that the source had. NAME is a topic,
//! a source or a pipeline. Reads over the Kafka protocol, as any client does; a row's meaning is in the records of
//! `__catchwater_captures`.

use super::topic::{connect, failure};
use crate::cli::Tap;
use crate::http;
use crate::pipeline::{Options, check};
use crate::report::{self, Done, Exit, Failure, Output};
use crate::rows::filter::{self, Filter};
use crate::rows::{cell_line, row_json};
use catchwater_change::stamp::flag;
use catchwater_change::{Cell, Op, Row, RowChange, Stamp, TableSchema};
use catchwater_client::remote::{FetchFrom, FetchLimits, Kafka, OffsetAt, TopicInfo};
use catchwater_deliver::wire::{ChangeWire, RawRecord, Told, Wire, records};
use catchwater_record::{Offset, TopicPartition};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const CAPTURES: &str = "__catchwater_captures";
/// Topics that one `tap` reads at the same time.
const TOPICS_MAX: usize = 1000;
/// Characters of one value on a line; `-o json` shows all.
const VALUE_CHARS_MAX: usize = 200;
/// How long a round waits when nothing came.
const WAIT: Duration = Duration::from_millis(100);

pub async fn run(args: Tap, output: Output) -> Result<Done, Failure> {
    let filter = args.filter.as_deref().map(filter::parse).transpose().map_err(|e| {
        Failure::new(Exit::Refused, "CW0351", format!("--where: {e}"))
            .cause(args.filter.clone().unwrap_or_default())
            .next("as in --where \"status = 'paid' and (total > 10 or note is null)\"")
    })?;
    let mut ops = Vec::new();
    for word in &args.op {
        let op = word.bytes().next().filter(|_| word.len() == 1).and_then(Op::from_letter).ok_or_else(|| {
            Failure::new(Exit::Refused, "CW0351", format!("--op {word}: one of c, u, d, r, t"))
                .next("c = insert, u = update, d = delete, r = read by a snapshot, t = truncate")
        })?;
        ops.push(op);
    }
    let kafka = connect(&args.kafka).await?;
    let topics = topics_of(&args, &kafka).await?;
    let at = if args.from == "earliest" { OffsetAt::Earliest } else { OffsetAt::Latest };
    let mut places = Vec::new();
    for topic in &topics {
        for p in &topic.partitions {
            let from = kafka.list_offset(&topic.name, p.index, at).await.map_err(|e| failure(&e))?;
            let end = kafka.list_offset(&topic.name, p.index, OffsetAt::Latest).await.map_err(|e| failure(&e))?;
            let id = TopicPartition::new(topic.id, u32::try_from(p.index).unwrap_or(0));
            places.push(Place { topic: topic.name.clone(), partition: p.index, id, next: from, end });
        }
    }
    if output == Output::Table && at == OffsetAt::Latest && !args.no_follow {
        let names: Vec<&str> = topics.iter().take(5).map(|t| t.name.as_str()).collect();
        let more = if topics.len() > 5 { ", …" } else { "" };
        eprintln!("waiting for changes of {}{more}; Ctrl-C ends it", names.join(", "));
    }
    let mut tap = Running {
        kafka,
        schemas: BTreeMap::new(),
        captures: BTreeMap::new(),
        filter,
        ops,
        output,
        single: topics.len() == 1,
        unfit: None,
        fits: false,
    };
    tap.pump(places, args.limit.unwrap_or(u64::MAX), !args.no_follow).await
}

struct Place {
    topic: String,
    partition: i32,
    id: TopicPartition,
    next: i64,
    /// Of the log when it was looked at last.
    end: i64,
}

/// The topics that NAME means: one of that name; those of a source; those of a pipeline's sources, or of one of its sinks.
async fn topics_of(args: &Tap, kafka: &Kafka) -> Result<Vec<TopicInfo>, Failure> {
    let mut all = kafka.topics().await.map_err(|e| failure(&e))?;
    all.retain(|t| !t.internal && !t.name.starts_with("__"));
    let under = |name: &str, topic: &str| topic.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
    let found: Vec<TopicInfo> = if all.iter().any(|t| t.name == args.name) {
        all.into_iter().filter(|t| t.name == args.name).collect()
    } else if args.sink.is_none()
        && all.iter().any(|t| under(&args.name, &t.name) && t.name != format!("{}.dlq", args.name))
    {
        all.into_iter().filter(|t| under(&args.name, &t.name)).collect()
    } else {
        let wanted = of_pipeline(args).await?;
        let fits = |topic: &str| {
            wanted.iter().any(|w| match w.strip_suffix(".*") {
                Some(prefix) => under(prefix, topic),
                None => w == topic || under(w, topic),
            })
        };
        all.into_iter().filter(|t| fits(&t.name)).collect()
    };
    // Dead letters and the source's own records have no rows of tables in them.
    let found: Vec<TopicInfo> = found.into_iter().filter(|t| !t.name.ends_with(".dlq")).collect();
    match found.len() {
        0 => Err(Failure::new(Exit::Runtime, "CW0008", format!("{} has no topics yet", args.name))
            .next("a source makes its topics when it begins: catchwater lag shows its state")),
        n if n > TOPICS_MAX => {
            Err(Failure::new(Exit::Refused, "CW0351", format!("{} has {n} topics, at most {TOPICS_MAX}", args.name))
                .next("name one of its topics: catchwater topic list"))
        }
        _ => Ok(found),
    }
}

/// What the stored pipeline of this name reads, as `from` writes it.
async fn of_pipeline(args: &Tap) -> Result<Vec<String>, Failure> {
    let path = format!("pipelines/{}", super::group::escape(&args.name));
    let stored = http::get(&args.http.http, &path).await.map_err(|f| match f.code.as_str() {
        "CW0344" | "CW0008" => {
            Failure::new(Exit::Runtime, "CW0008", format!("no topic, source or pipeline {}", args.name))
                .next("catchwater topic list and catchwater pipeline list show the names")
        }
        _ => f,
    })?;
    let text = stored["text"].as_str().unwrap_or_default();
    let (pipeline, _) = check(text.as_bytes(), Options { plain_secrets: true });
    let Some(pipeline) = pipeline else {
        return Err(Failure::new(
            Exit::Runtime,
            "CW0303",
            format!("the stored text of {} is not understood", args.name),
        ));
    };
    match &args.sink {
        None => {
            let borrowed = pipeline.borrowed().into_iter().map(str::to_owned);
            Ok(pipeline.sources.keys().cloned().chain(borrowed).collect())
        }
        Some(sink) => match pipeline.sinks.get(sink) {
            Some(s) => Ok(s.from.clone()),
            None => Err(Failure::new(Exit::Refused, "CW0344", format!("pipeline {} has no sink {sink}", args.name))
                .next(format!("catchwater pipeline show {}", args.name))),
        },
    }
}

struct Running {
    kafka: Kafka,
    schemas: BTreeMap<(u64, u32), Arc<TableSchema>>,
    /// Next offset of each partition of the captures topic.
    captures: BTreeMap<i32, i64>,
    filter: Option<Filter>,
    ops: Vec<Op>,
    output: Output,
    /// One topic alone: a column that it does not have is a mistake. Among several, each has columns of its own.
    single: bool,
    /// A column of the condition that no table had which was read, and whether one had them all.
    unfit: Option<String>,
    fits: bool,
}

impl Running {
    async fn pump(&mut self, mut places: Vec<Place>, limit: u64, follow: bool) -> Result<Done, Failure> {
        let mut left = limit;
        loop {
            let mut came = false;
            for place in &mut places {
                if place.next >= place.end {
                    continue;
                }
                came = true;
                let limits = FetchLimits { max_wait: WAIT, ..FetchLimits::default() };
                let from = FetchFrom { topic: &place.topic, partition: place.partition, offset: place.next };
                let fetched = self.kafka.fetch(from, limits).await.map_err(|e| failure(&e))?;
                let first = Offset(u64::try_from(place.next).unwrap_or(0));
                let (found, next) = records(place.id, first, &fetched.batches).map_err(|e| damaged(&place.topic, e))?;
                for record in found {
                    let Some(line) = self.line(place, &record).await? else { continue };
                    let is_read = report::print(&line);
                    left -= 1;
                    if left == 0 || !is_read {
                        return Ok(Done::silent());
                    }
                }
                // Offsets without records: compaction, or markers.
                let next = i64::try_from(next.0).unwrap_or(i64::MAX);
                place.next = if fetched.batches.is_empty() { place.end } else { next.max(place.next) };
            }
            if came {
                continue;
            }
            let unfit = self.unfit.take().filter(|_| !self.fits);
            let unfit = unfit
                .map(|column| format!("--where: none of the tables whose changes were read has a column {column}"));
            match (unfit, follow) {
                (Some(what), false) => {
                    return Err(Failure::new(Exit::Refused, "CW0351", what)
                        .next("catchwater tap without --where shows the columns; names are as the source has them"));
                }
                (None, false) => return Ok(Done::silent()),
                (Some(what), true) => eprintln!("warning[CW0351]: {what}"),
                (None, true) => {}
            }
            catchwater_runtime::time::sleep(WAIT).await;
            for place in &mut places {
                let end = self.kafka.list_offset(&place.topic, place.partition, OffsetAt::Latest).await;
                place.end = end.map_err(|e| failure(&e))?;
            }
        }
    }

    async fn schema(&mut self, stamp: &Stamp) -> Result<Option<Arc<TableSchema>>, Failure> {
        let key = (stamp.source.0, stamp.schema_no);
        if !self.schemas.contains_key(&key) {
            self.read_captures().await?;
        }
        Ok(self.schemas.get(&key).cloned())
    }

    /// TABLE records up to the end of the topic; they are committed before the rows they describe.
    async fn read_captures(&mut self) -> Result<(), Failure> {
        let Some(topic) = self.kafka.topic(CAPTURES).await.map_err(|e| failure(&e))? else { return Ok(()) };
        for p in topic.partitions {
            let at = TopicPartition::new(topic.id, u32::try_from(p.index).unwrap_or(0));
            let bound = async |at| self.kafka.list_offset(CAPTURES, p.index, at).await.map_err(|e| failure(&e));
            let end = bound(OffsetAt::Latest).await?;
            let known = self.captures.get(&p.index).copied().unwrap_or(0);
            let mut next = if known < end { known.max(bound(OffsetAt::Earliest).await?) } else { known };
            while next < end {
                let from = FetchFrom { topic: CAPTURES, partition: p.index, offset: next };
                let fetched = self.kafka.fetch(from, FetchLimits { max_wait: WAIT, ..FetchLimits::default() }).await;
                let fetched = fetched.map_err(|e| failure(&e))?;
                if fetched.batches.is_empty() {
                    break;
                }
                let from = Offset(u64::try_from(next).unwrap_or(0));
                let (found, after) = records(at, from, &fetched.batches).map_err(|e| damaged(CAPTURES, e))?;
                for record in found {
                    let (Some(key), Some(value)) = (&record.key, &record.value) else { continue };
                    if let Ok(Some((capture, Told::Table { table, .. }))) = ChangeWire.told(key, value) {
                        self.schemas.insert((capture.0, table.schema_no), Arc::new(*table));
                    }
                }
                next = i64::try_from(after.0).unwrap_or(i64::MAX).max(next + 1);
            }
            self.captures.insert(p.index, next);
        }
        Ok(())
    }

    /// `None` = it is no change of a row, or not one of those that were asked for.
    async fn line(&mut self, place: &Place, record: &RawRecord) -> Result<Option<String>, Failure> {
        let Some(stamp) = record.stamp.as_deref().and_then(|s| Stamp::decode(s).ok()) else { return Ok(None) };
        let Some(op) = Op::from_letter(stamp.op) else { return Ok(None) };
        if !(self.ops.is_empty() || self.ops.contains(&op)) {
            return Ok(None);
        }
        let schema = self.schema(&stamp).await?.ok_or_else(|| {
            let what = format!("{} offset {}: its table is not described", place.topic, record.offset);
            Failure::new(Exit::Runtime, "CW0009", what).next("is this the cluster that captured it?")
        })?;
        // An event of an outbox table is what its row says, and no row; so is what transforms have changed.
        if schema.topic.is_none() || stamp.flags & flag::TRANSFORMED != 0 {
            let is_asked = self.filter.is_none();
            return Ok(is_asked.then(|| event(place, record, &stamp, &schema, self.output)));
        }
        let change = ChangeWire.row(record, &stamp, &schema).map_err(|why| {
            Failure::new(Exit::Runtime, "CW0009", format!("{} offset {}: {why}", place.topic, record.offset))
        })?;
        if let Some(filter) = &self.filter {
            match filter.unknown(&schema) {
                Some(column) if !self.single => self.unfit = Some(column.to_owned()),
                _ => self.fits = true,
            }
            if let Some(column) = filter.unknown(&schema).filter(|_| self.single) {
                let names: Vec<&str> = schema.columns.iter().map(|c| c.name.as_str()).collect();
                return Err(Failure::new(
                    Exit::Refused,
                    "CW0351",
                    format!("--where: {} has no column {column}", place.topic),
                )
                .next(format!("its columns: {}", names.join(", "))));
            }
            let row = change.after.as_ref().or(change.before.as_ref());
            if row.and_then(|r| filter.judge(&schema, r)) != Some(true) {
                return Ok(None);
            }
        }
        Ok(Some(match self.output {
            Output::Table => as_line(place, &stamp, &change),
            Output::Json => as_json(place, record, &stamp, &change),
        }))
    }
}

fn damaged(topic: &str, e: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Runtime, "CW0009", format!("{topic}: {e}"))
}

/// An event of an outbox table: its key and value as they are, bytes that are no text as hex.
fn event(place: &Place, record: &RawRecord, stamp: &Stamp, table: &TableSchema, output: Output) -> String {
    let shown = |bytes: &Option<bytes::Bytes>| {
        let bytes = bytes.as_ref()?;
        Some(match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => bytes.iter().map(|b| format!("{b:02x}")).collect(),
        })
    };
    let (key, value) = (shown(&record.key), shown(&record.value));
    let time = |digits| catchwater_change::calendar::instant_text(stamp.commit_time.as_micros(), digits);
    if output == Output::Table {
        let short = |text: &Option<String>| {
            let text = text.as_deref().unwrap_or("(none)").escape_debug().to_string();
            text.chars().take(VALUE_CHARS_MAX).collect::<String>()
        };
        return format!("{} e {} key={} value={}\n", time(3), place.topic, short(&key), short(&value));
    }
    let line = json!({
        "topic": place.topic,
        "partition": place.partition,
        "offset": record.offset.0,
        "op": "e",
        "table": table.qualified(),
        "key": key,
        "committed": time(6),
        "position": stamp.native.to_string(),
        "version": stamp.version.to_string(),
        "snapshot": stamp.is_snapshot(),
        "value": value,
    });
    format!("{line}\n")
}

/// `2026-11-27T12:03:01.5Z u shop.public.orders id=7 status='new'→'paid' total=5.00`
fn as_line(place: &Place, stamp: &Stamp, change: &RowChange) -> String {
    let time = catchwater_change::calendar::instant_text(stamp.commit_time.as_micros(), 3);
    let mut out = format!("{time} {} {}", change.op.letter(), place.topic);
    let schema = &change.table;
    let Some(row) = change.after.as_ref().or(change.before.as_ref()) else {
        out.push('\n');
        return out;
    };
    let keys = schema.key.iter().map(|k| usize::from(*k));
    let others = (0..schema.columns.len()).filter(|i| !schema.is_key(*i));
    for i in keys.chain(others) {
        let (Some(column), Some(cell)) = (schema.columns.get(i), row.cells.get(i)) else { continue };
        if matches!(cell, Cell::Absent) || (change.op == Op::Delete && matches!(cell, Cell::Unavailable)) {
            continue;
        }
        let now = cell_line(cell, VALUE_CHARS_MAX);
        let was = change.before.as_ref().filter(|_| change.after.is_some()).and_then(|b: &Row| b.cells.get(i));
        match was {
            Some(was @ (Cell::Value(_) | Cell::Null)) if was != cell && !matches!(cell, Cell::Unavailable) => {
                out.push_str(&format!(" {}={}→{now}", column.name, cell_line(was, VALUE_CHARS_MAX)));
            }
            _ => out.push_str(&format!(" {}={now}", column.name)),
        }
    }
    out.push('\n');
    out
}

fn as_json(place: &Place, record: &RawRecord, stamp: &Stamp, change: &RowChange) -> String {
    let row = |row: &Option<Row>| row.as_ref().map(|r| row_json(&change.table, r));
    let (before, after) = (row(&change.before), row(&change.after));
    let unsent = after.as_ref().map(|(_, unsent)| unsent.clone()).unwrap_or_default();
    let map = |of: Option<(Map<String, Value>, Vec<String>)>| of.map(|(map, _)| map);
    let key: Vec<&str> = change.table.key.iter().map(|k| change.table.columns[usize::from(*k)].name.as_str()).collect();
    let line = json!({
        "topic": place.topic,
        "partition": place.partition,
        "offset": record.offset.0,
        "op": change.op.letter().to_string(),
        "table": change.table.qualified(),
        "key": key,
        "committed": catchwater_change::calendar::instant_text(stamp.commit_time.as_micros(), 6),
        "position": stamp.native.to_string(),
        "version": stamp.version.to_string(),
        "snapshot": stamp.is_snapshot(),
        "before": map(before),
        "after": map(after),
        "unsent": unsent,
    });
    format!("{line}\n")
}
