//! Events of outbox tables, against those that a real Debezium 3.7.0.Final wrote in a Connect 4.3.1 with the same
//! `EventRouter` and converters: topic, time, key, value and headers of each record, byte by byte.
//!
//! `tests/golden/outbox.txt`: `#sql NAME` and SQL; `#run NAME {properties}`; `#plain` and `#schemas` (schemas.enable) with a line
//! per record: topic, time (`now` = of the processing), key, value, headers. `-` is nothing, `!null` the four letters, `!empty`
//! no byte, `!hex 00ff` bytes that are no text. `#failed` = Debezium's task stopped there: what it had written before is
//! compared. With `compat.defects` nothing may differ; without, a NULL is nothing where Debezium writes the word, and what
//! [`expected`] says.

use crate::golden::{Scenario, capture_until};
use crate::rig::Rig;
use catchwater_capture::properties::Properties;
use catchwater_client::memory::MemoryCluster;
use catchwater_record::TopicPartition;
use catchwater_record::batch::{BatchView, iterate};
use std::collections::BTreeMap;
use std::sync::Arc;

const RECORDED: &str = include_str!("../golden/outbox.txt");
const DELEGATE: &str = "value.converter.delegate.converter.type";

/// Time, key, value, headers.
type Line = [String; 4];
type Topics = BTreeMap<String, Vec<Line>>;

struct Run {
    name: String,
    sql: String,
    properties: BTreeMap<String, String>,
    plain: Recorded,
    schemas: Recorded,
}

#[derive(Clone, Default)]
struct Recorded {
    topics: Topics,
    failed: bool,
}

fn runs() -> Vec<Run> {
    let mut out = Vec::new();
    let other = std::env::var("CW_OUTBOX").ok().map(|path| std::fs::read_to_string(path).unwrap());
    for part in other.as_deref().unwrap_or(RECORDED).split("#sql ").skip(1) {
        let mut pieces = part.split("\n#run ");
        let sql = pieces.next().unwrap();
        for piece in pieces {
            let (head, rest) = piece.split_once("\n#plain\n").unwrap();
            let (name, properties) = head.split_once(' ').unwrap();
            let (plain, schemas) = rest.split_once("#schemas\n").unwrap();
            out.push(Run {
                name: name.into(),
                sql: sql.into(),
                properties: serde_json::from_str(properties).unwrap(),
                plain: recorded(plain),
                schemas: recorded(schemas),
            });
        }
    }
    out
}

fn recorded(lines: &str) -> Recorded {
    let mut out = Recorded::default();
    for line in lines.lines().filter(|l| !l.is_empty()) {
        if line.starts_with("#failed") {
            out.failed = true;
            continue;
        }
        let f: Vec<&str> = line.split('\t').collect();
        let all: Line = [f[1].into(), f[2].into(), f[3].into(), f[4].into()];
        out.topics.entry(f[0].into()).or_default().push(all);
    }
    out
}

/// Without what is another in each run: marks and ids of Debezium's, transaction ids and positions.
fn masked(topic: &str, line: &Line) -> Line {
    let [time, key, value, headers] = line;
    let mut headers: Vec<(String, Option<String>)> = serde_json::from_str(headers).unwrap();
    headers.retain(|(name, _)| name != "__debezium.context.runId");
    let own = topic.starts_with("pg.") || topic.starts_with("other.") || topic.starts_with("log.");
    let mut value = if own { crate::transforms::masked(value) } else { value.clone() };
    let key = if own { crate::transforms::masked(key) } else { key.clone() };
    // The address of an object.
    if let Some((front, rest)) = value.split_once("LogicalDecodingMessageId@") {
        value =
            format!("{front}LogicalDecodingMessageId{}", rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric()));
    }
    [time.clone(), key, value, serde_json::to_string(&headers).unwrap()]
}

/// A value with its schema, without the schema's name: Debezium's is that of the first event with such a schema.
fn nameless(value: &str) -> String {
    const NAME: &str = "\"optional\":false,\"name\":\"";
    let Some((schema, payload)) = value.split_once("},\"payload\":") else { return value.to_owned() };
    let Some((front, (name, back))) = schema.rsplit_once(NAME).and_then(|(f, rest)| Some((f, rest.split_once('"')?)))
    else {
        return value.to_owned();
    };
    match name.ends_with(".Value") {
        true => format!("{front}{NAME}*\"{back}}},\"payload\":{payload}"),
        false => value.to_owned(),
    }
}

fn read(cluster: &MemoryCluster, db: &str) -> Topics {
    let shown = |bytes: Option<&[u8]>| match bytes.map(|b| (b, std::str::from_utf8(b))) {
        None => "-".to_owned(),
        Some((_, Ok("null"))) => "!null".into(),
        Some((_, Ok(""))) => "!empty".into(),
        Some((_, Ok(text))) if !text.bytes().any(|b| b < 32) => text.replace(db, "golden"),
        Some((bytes, _)) => format!("!hex {}", bytes.iter().map(|b| format!("{b:02x}")).collect::<String>()),
    };
    let mut out = Topics::new();
    for (topic, id, _) in cluster.topics() {
        if topic.as_str().starts_with("__catchwater") {
            continue;
        }
        for (_, batch) in cluster.batches(TopicPartition::new(id, 0)) {
            let view = BatchView::new(&batch).unwrap();
            for record in iterate::records(view.records(), view.records_count() as u32) {
                let record = record.unwrap();
                let headers = record.headers().filter(|(k, _)| !k.starts_with(b"cw."));
                let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
                let headers: Vec<_> = headers.map(|(k, v)| (text(k), v.map(text))).collect();
                let millis = view.base_timestamp() + record.timestamp_delta;
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
                let time = match (now.as_millis() as i64 - millis).abs() < 600_000 {
                    true => "now".to_owned(),
                    false => millis.to_string(),
                };
                let line = [time, shown(record.key), shown(record.value), serde_json::to_string(&headers).unwrap()];
                out.entry(topic.as_str().into()).or_default().push(line);
            }
        }
    }
    out
}

/// What ours should be of theirs. Each difference is a row of `docs/debezium.md`.
fn expected(recorded: &Recorded, defects: bool) -> Topics {
    let mut topics = recorded.topics.clone();
    // An END counts what is left.
    topics.retain(|topic, _| defects || !topic.ends_with(".transaction"));
    for (topic, lines) in &mut topics {
        for line in lines.iter_mut() {
            *line = masked(topic, line);
            if !defects {
                line[2] = nameless(&line[2]);
            }
            let [_, key, value, _] = line;
            for text in [key, value] {
                let is_null = text == "!null" || text.starts_with("{\"schema\"") && text.ends_with("\"payload\":null}");
                if is_null && !defects {
                    *text = "-".into();
                }
            }
        }
    }
    topics
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn events_of_outbox_tables_are_debeziums() {
    let Ok(server) = std::env::var("CW_PG15_URL") else {
        eprintln!("SKIP db pg15: CW_PG15_URL is not set (outbox)");
        return;
    };
    let only = std::env::var("CW_GOLDEN").unwrap_or_default();
    let by_hand = std::env::var("CW_OUTBOX").is_ok();
    let room = Arc::new(tokio::sync::Semaphore::new(6));
    let mut tasks = tokio::task::JoinSet::new();
    for (at, run) in runs().into_iter().map(Arc::new).enumerate().filter(|(_, r)| r.name.starts_with(&only)) {
        // Each run in one of the four ways, all in all of them by hand: CW_OUTBOX names a file of recordings.
        let all = [(false, false), (true, true), (true, false), (false, true)];
        let ways = if by_hand { &all[..] } else { &all[at % 4..=at % 4] };
        for (schemas, defects) in ways.iter().copied() {
            let (run, room, server) = (run.clone(), room.clone(), server.clone());
            tasks.spawn(async move {
                let _place = room.acquire().await.unwrap();
                let recorded = if schemas { &run.schemas } else { &run.plain };
                let mut given = run.properties.clone();
                for (key, value) in [
                    ("include.unknown.datatypes", "false"),
                    ("extended.headers.enabled", "true"),
                    ("skipped.operations", "t"),
                ] {
                    given.entry(key.into()).or_insert(value.into());
                }
                given.insert("schemas.enable".into(), schemas.to_string());
                if given.contains_key(DELEGATE) {
                    given.insert(format!("{DELEGATE}.schemas.enable"), schemas.to_string());
                }
                given.insert("compat.defects".into(), defects.to_string());
                given.insert("replace.null.with.default".into(), "true".into());
                let mut properties = Properties::parse(given.iter().map(|(k, v)| (k.as_str(), v.as_str()))).unwrap();
                properties.rules.tell(&mut properties.options);
                let name = format!("{}_{schemas}_{defects}", run.name.replace('-', "_"));
                let scenario = Scenario::parse(&run.sql);
                let count = recorded.topics.values().map(Vec::len).sum::<usize>();
                let cluster =
                    capture_until(&server, &name, &run.name, &scenario, properties, defects, Some(count)).await;
                let mut ours = read(&cluster, &format!("cw_{name}_{}", std::process::id()));
                for (topic, lines) in &mut ours {
                    lines.iter_mut().for_each(|line| *line = masked(topic, line));
                    if !defects {
                        lines.iter_mut().for_each(|line| line[2] = nameless(&line[2]));
                    }
                }
                ours.retain(|topic, _| defects || !topic.ends_with(".transaction"));
                let theirs = expected(recorded, defects);
                let mut report = Vec::new();
                for topic in theirs.keys().chain(ours.keys()) {
                    let none = Vec::new();
                    let (t, o) = (theirs.get(topic).unwrap_or(&none), ours.get(topic).unwrap_or(&none));
                    // Debezium's task stopped: ours went on.
                    let most = if recorded.failed { t.len() } else { t.len().max(o.len()) };
                    for i in (0..most).filter(|i| t.get(*i) != o.get(*i)) {
                        report.push(format!("{name} {topic} {i}\n  theirs {:?}\n  ours   {:?}", t.get(i), o.get(i)));
                    }
                }
                (report, theirs.values().map(Vec::len).sum::<usize>())
            });
        }
    }
    let (mut report, mut compared) = (Vec::new(), 0);
    while let Some(done) = tasks.join_next().await {
        let (found, count) = done.unwrap();
        report.extend(found);
        compared += count;
    }
    report.sort();
    report.dedup();
    assert!(report.is_empty(), "{} differences in {compared} records:\n{}", report.len(), report.join("\n"));
    assert!(!only.is_empty() || compared > 150, "{compared} records");
}

/// A source of `orders` and an outbox beside it, routed by `options`.
async fn outbox_rig(name: &str, options: &[(&'static str, &str)]) -> Option<(crate::support::Db, Rig)> {
    let db = crate::support::database(name).await?;
    db.exec("CREATE TABLE outbox(id int PRIMARY KEY, aggregatetype text, aggregateid text, payload text, p int)").await;
    db.exec("CREATE TABLE orders(id int PRIMARY KEY)").await;
    let mut rig = Rig::new(db.config(&["outbox", "orders"])).await;
    let all = [
        ("transforms", "o"),
        ("transforms.o.type", "io.debezium.transforms.outbox.EventRouter"),
        ("transforms.o.predicate", "p"),
        ("predicates", "p"),
        ("predicates.p.type", "org.apache.kafka.connect.transforms.predicates.TopicNameMatches"),
        ("predicates.p.pattern", ".*outbox"),
    ];
    rig.properties = all.iter().chain(options).map(|(k, v)| (*k, (*v).to_owned())).collect();
    Some((db, rig))
}

/// Values of a topic's records, over all of its partitions.
fn values(cluster: &MemoryCluster, topic: &str) -> Vec<String> {
    let mut out = Vec::new();
    let Some((_, id, partitions)) = cluster.topics().into_iter().find(|(name, ..)| name.as_str() == topic) else {
        return out;
    };
    for partition in 0..partitions {
        for (_, batch) in cluster.batches(TopicPartition::new(id, partition)) {
            let view = BatchView::new(&batch).unwrap();
            let all = iterate::records(view.records(), view.records_count() as u32);
            out.extend(all.map(|r| String::from_utf8(r.unwrap().value.unwrap_or_default().to_vec()).unwrap()));
        }
    }
    out
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !done() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{what}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_row_without_a_legal_topic_stops_the_source_and_loses_nothing() {
    let regex = "transforms.o.route.topic.regex";
    let Some((db, mut rig)) = outbox_rig("outbox_illegal", &[]).await else { return };
    let mut running = rig.start();
    running.until("the stream", |s| s.get().state == catchwater_capture::State::Streaming).await;
    db.exec("INSERT INTO outbox VALUES (1, 'a', 'k', 'one')").await;
    db.exec(
        "INSERT INTO orders VALUES (1); INSERT INTO outbox VALUES (2, 'a', 'k', 'two'), (3, 'no secret place', 'k', 'three')",
    )
    .await;
    db.exec("INSERT INTO outbox VALUES (4, 'a', 'k', 'four')").await;
    let end = (&mut running.task).await.unwrap();
    assert!(end.contains("592") && end.contains("route.topic.replacement") && !end.contains("secret"), "{end}");
    assert_eq!(values(&rig.cluster, "outbox.event.a"), ["\"one\""], "what came before, and nothing of its transaction");
    assert!(values(&rig.cluster, "shop.public.orders").is_empty());
    // With a place for it the source goes on where it stood.
    rig.properties.push((regex, "(?<routedByValue>[a-z]+).*".into()));
    let mut running = rig.start();
    until("the rest", || values(&rig.cluster, "outbox.event.a").len() == 3).await;
    assert_eq!(values(&rig.cluster, "outbox.event.a"), ["\"one\"", "\"two\"", "\"four\""]);
    assert_eq!(values(&rig.cluster, "outbox.event.no"), ["\"three\""]);
    assert_eq!(values(&rig.cluster, "shop.public.orders").len(), 1);
    // Another table's topic is none for events.
    rig.properties.pop();
    db.exec("INSERT INTO outbox VALUES (5, NULL, 'k', 'five')").await;
    let end = (&mut running.task).await.unwrap();
    assert!(end.contains("aggregatetype of an event is NULL"), "{end}");
    drop(running);
    db.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn events_come_once_whatever_is_killed() {
    let options = [
        ("transforms.o.table.fields.additional.placement", "p:partition"),
        ("topic.creation.default.partitions", "-1"),
        ("value.converter", "io.debezium.converters.BinaryDataConverter"),
    ];
    let Some((db, mut rig)) = outbox_rig("outbox_kills", &options[..2]).await else { return };
    rig.snapshot = catchwater_capture::SnapshotMode::NoData;
    let mut id = 0;
    for round in 0..8 {
        let mut running = rig.start();
        running.until("the stream", |s| s.get().state == catchwater_capture::State::Streaming).await;
        for _ in 0..10 {
            let (a, b, c) = (id, id + 1, id + 2);
            id += 3;
            db.exec(&format!(
                "BEGIN; INSERT INTO outbox VALUES ({a}, 'x', 'k', '{a}', 0); INSERT INTO orders VALUES ({a}); \
                 INSERT INTO outbox VALUES ({b}, 'y', 'k', '{b}', 1), ({c}, 'z{round}', 'k', '{c}', NULL); \
                 DELETE FROM outbox; COMMIT"
            ))
            .await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(3 * round)).await;
        drop(running);
    }
    let running = rig.start();
    let all = |cluster: &MemoryCluster| {
        let topics =
            (0..8).map(|r| format!("outbox.event.z{r}")).chain(["outbox.event.x".into(), "outbox.event.y".into()]);
        let mut all: Vec<u32> =
            topics.flat_map(|t| values(cluster, &t)).map(|v| v.trim_matches('"').parse().unwrap()).collect();
        all.sort_unstable();
        all
    };
    until("all events", || all(&rig.cluster).len() >= id as usize).await;
    assert_eq!(all(&rig.cluster), (0..id as u32).collect::<Vec<_>>());
    let (_, y, _) = rig.cluster.topics().into_iter().find(|(name, ..)| name.as_str() == "outbox.event.y").unwrap();
    assert!(rig.cluster.batches(TopicPartition::new(y, 0)).is_empty(), "the row says partition 1");
    // A partition that is none.
    db.exec(&format!("INSERT INTO outbox VALUES ({id}, 'x', 'k', 'v', 2)")).await;
    let mut running = running;
    let end = (&mut running.task).await.unwrap();
    assert!(end.contains("partition 2 of a topic that has 2"), "{end}");
    // Before it stops, what cannot be a table's is said, too.
    rig.properties.push((options[2].0, options[2].1.into()));
    let end = (&mut rig.start().task).await.unwrap();
    assert!(end.contains("592") && end.contains("public.o"), "{end}");
    drop(running);
    db.drop().await;
}
