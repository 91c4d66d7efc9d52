//! Records of sources with transforms, against those that a real Debezium 3.7.0.Final wrote in a Connect 4.3.1 with the same
//! transforms: keys, values and headers, byte by byte but for times, positions, ids and marks of the snapshot.
//!
//! `tests/golden/transforms.txt`: `#sql NAME` and SQL; `#run NAME {properties}`; `#plain` and `#schemas` (schemas.enable) with
//! a line per record: topic, key, value, headers. `-` is nothing, `!null` the four letters, `S3 …` has the schema of that line
//! `S3` in its frame. With `compat.defects` nothing may differ; without, what [`expected`] says.

use crate::golden::{MARKER, Scenario, capture_sql};
use crate::rig::Rig;
use catchwater_capture::properties::Properties;
use catchwater_client::memory::MemoryCluster;
use catchwater_record::TopicPartition;
use catchwater_record::batch::{BatchView, iterate};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Transforms that say where a record goes and what its envelope becomes, and those that change records themselves.
const RECORDED: [&str; 5] = [
    include_str!("../golden/transforms.txt"),
    include_str!("../golden/changed.txt"),
    include_str!("../golden/converted.txt"),
    // Geometries, envelopes that say what their columns are, messages that become rows.
    include_str!("../golden/looked-into.txt"),
    // `time.precision.mode` = structured.
    include_str!("../golden/structured.txt"),
];
/// Runs with tombstones, of which a delete of a table without a key has one there.
const WITH_TOMBSTONES: [&str; 5] = ["unwrap-where", "smt-insert", "smt-flatten", "smt-route", "smt-strings"];

#[derive(Clone, Debug, PartialEq)]
struct Record {
    key: Option<String>,
    value: Option<String>,
    headers: String,
}

type Topics = BTreeMap<String, Vec<Record>>;

struct Run {
    name: String,
    sql: String,
    properties: BTreeMap<String, String>,
    plain: Topics,
    schemas: Topics,
}

fn runs() -> Vec<Run> {
    let mut out = Vec::new();
    for part in RECORDED.iter().flat_map(|file| file.split("#sql ").skip(1)) {
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
                plain: records(plain),
                schemas: records(schemas),
            });
        }
    }
    out
}

fn records(lines: &str) -> Topics {
    let (mut out, mut schemas) = (Topics::new(), BTreeMap::new());
    for line in lines.lines() {
        let f: Vec<&str> = line.split('\t').collect();
        if f.len() == 2 {
            schemas.insert(f[0], f[1]);
            continue;
        }
        let part = |text: &str| match (text, text.split_once(' ')) {
            ("-", _) => None,
            ("!null", _) => Some("null".to_owned()),
            (_, Some((s, payload))) if schemas.contains_key(s) => {
                Some(format!("{{\"schema\":{},\"payload\":{payload}}}", schemas[s]))
            }
            _ => Some(text.to_owned()),
        };
        let record = Record { key: part(f[1]), value: part(f[2]), headers: f[3].into() };
        out.entry(f[0].into()).or_default().push(record);
    }
    out
}

/// Without what is another in each run.
pub fn masked(text: &str) -> String {
    let mut out = text.to_owned();
    for mark in ["first", "last", "first_in_data_collection", "last_in_data_collection"] {
        out = out.replace(&format!("\"{mark}\""), "\"true\"");
        out = out.replace(&format!("snapshot={mark},"), "snapshot=true,");
    }
    let mut shown = String::new();
    let mut rest = out.as_str();
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        shown.push_str(&rest[..at]);
        let end = rest[at..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |n| at + n);
        let is_id = shown.ends_with("txId\":")
            || shown.ends_with("txId=")
            || rest[end..].starts_with(':') && shown.ends_with("id\":\"");
        shown.push_str(if end - at >= 7 || is_id { "#" } else { &rest[at..end] });
        rest = &rest[end..];
    }
    shown.push_str(rest);
    shown.replace("[null,\\\"#\\\"]", "[\\\"#\\\",\\\"#\\\"]").replace("[null,\"#\"]", "[\"#\",\"#\"]")
}

fn all_masked(topics: Topics) -> Topics {
    let of = |r: Record| Record {
        key: r.key.map(|k| masked(&k)),
        value: r.value.map(|v| masked(&v)),
        headers: masked(&r.headers),
    };
    topics.into_iter().map(|(t, rs)| (t, rs.into_iter().map(of).collect())).collect()
}

fn read(cluster: &MemoryCluster, db: &str) -> Topics {
    let mut out = Topics::new();
    for (topic, id, _) in cluster.topics() {
        if topic.as_str().starts_with("__catchwater") || topic.as_str().ends_with(MARKER) {
            continue;
        }
        for (_, batch) in cluster.batches(TopicPartition::new(id, 0)) {
            let view = BatchView::new(&batch).unwrap();
            for record in iterate::records(view.records(), view.records_count() as u32) {
                let record = record.unwrap();
                let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap().replace(db, "golden");
                let headers = record.headers().filter(|(k, _)| !k.starts_with(b"cw."));
                let headers: Vec<_> = headers.map(|(k, v)| (text(k), v.map(text))).collect();
                out.entry(topic.as_str().into()).or_default().push(Record {
                    key: record.key.map(text),
                    value: record.value.map(text),
                    headers: serde_json::to_string(&headers).unwrap(),
                });
            }
        }
    }
    // The marker's transaction.
    for (_, ends) in out.iter_mut().filter(|(t, _)| t.ends_with(".transaction")) {
        assert!(ends.last().is_some_and(|r| r.value.as_ref().is_some_and(|v| v.contains(MARKER))));
        ends.truncate(ends.len() - 2);
    }
    out
}

/// What ours should be of theirs. Each difference is a row of `docs/debezium.md`.
fn expected(run: &Run, schemas: bool, defects: bool) -> Topics {
    let mut topics = all_masked(if schemas { run.schemas.clone() } else { run.plain.clone() });
    for ends in topics.values_mut() {
        // A transaction of which everything is left out.
        let is_empty = |r: &Record| r.value.as_ref().is_some_and(|v| v.contains("\"event_count\":0,"));
        while let Some(at) = ends.iter().position(is_empty) {
            ends.drain(at - 1..=at);
        }
    }
    if defects {
        return topics;
    }
    let mut met = 0;
    // There in the order of a hash map.
    let by_name = |value: String| match value.split_once("\"data_collections\":[{") {
        Some((before, rest)) if rest.contains("}]") => {
            let (list, after) = rest.split_once("}]").unwrap();
            let mut tables: Vec<&str> = list.split("},{").collect();
            tables.sort_unstable();
            format!("{before}\"data_collections\":[{{{}}}]{after}", tables.join("},{"))
        }
        _ => value,
    };
    for (topic, records) in &mut topics {
        for record in records.iter_mut().filter(|_| topic.ends_with(".transaction")) {
            record.value = record.value.take().map(by_name);
        }
        let before = records.len();
        // The tombstone of a delete without a key.
        let is_keyless = ["u3", "c3", "k3", "z3"].iter().any(|table| topic.ends_with(table));
        let is_conversion = run.name.starts_with("conv-");
        let with_tombstones = is_conversion || WITH_TOMBSTONES.contains(&run.name.as_str());
        records.retain(|r| !is_keyless || r.key != r.value || !with_tombstones);
        met += if run.name.starts_with("smt-") || is_conversion { 0 } else { before - records.len() };
        for record in records {
            let is_null = record.value.as_ref().is_some_and(|v| v == "null" || v.ends_with(",\"payload\":null}"));
            met += usize::from(is_null);
            if is_null {
                record.value = None;
            }
            record.value = record.value.take().map(|v| v.replace("\"_snapshot\":null", "\"_snapshot\":\"false\""));
            record.headers = record.headers.replace("[\"__SNAP\",null]", "[\"__SNAP\",\"false\"]");
        }
    }
    let has_nulls =
        ["default", "tombstone", "routed", "logical", "where"].iter().any(|m| run.name == format!("unwrap-{m}"))
            || run.name == "conv-decode-route";
    assert_eq!(has_nulls, met > 0, "{}: differences that are none any more", run.name);
    topics
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn records_behind_transforms_are_debeziums() {
    let Ok(server) = std::env::var("CW_PG15_URL") else {
        eprintln!("SKIP db pg15: CW_PG15_URL is not set (transforms)");
        return;
    };
    let only = std::env::var("CW_GOLDEN").unwrap_or_default();
    let room = Arc::new(tokio::sync::Semaphore::new(6));
    let mut tasks = tokio::task::JoinSet::new();
    for (at, run) in runs().into_iter().map(Arc::new).enumerate().filter(|(_, r)| r.name.starts_with(&only)) {
        // Both settings of each run, in one of the two forms: all four take twice as long and say no more.
        // What a column's source type says differs by itself, as times do.
        let of_types = run.name.starts_with("structured") || run.name.starts_with("described");
        for (schemas, defects) in [(at % 2 == 0, of_types), (at % 2 == 1, true)] {
            // The transform puts a default for NULL whatever the converter is told; ours, with the defects alone.
            let is_told = run.properties.contains_key("value.converter.replace.null.with.default");
            // Without the defects what is not set in `source` is said.
            if !defects && (is_told && run.name.starts_with("unwrap") || run.name == "smt-strings") {
                continue;
            }
            let (run, room, server) = (run.clone(), room.clone(), server.clone());
            tasks.spawn(async move {
                let _place = room.acquire().await.unwrap();
                let mut given = run.properties.clone();
                for (key, value) in [
                    ("include.unknown.datatypes", "false"),
                    ("extended.headers.enabled", "true"),
                    ("skipped.operations", "t"),
                ] {
                    given.entry(key.into()).or_insert(value.into());
                }
                given.insert("schemas.enable".into(), schemas.to_string());
                given.insert("compat.defects".into(), defects.to_string());
                if !given.contains_key("value.converter.replace.null.with.default") {
                    given.insert("replace.null.with.default".into(), "true".into());
                }
                let mut properties = Properties::parse(given.iter().map(|(k, v)| (k.as_str(), v.as_str()))).unwrap();
                properties.rules.tell(&mut properties.options);
                let name = format!("{}_{schemas}_{defects}", run.name.replace('-', "_"));
                let scenario = Scenario::parse(&run.sql);
                let cluster = capture_sql(&server, &name, &run.name, &scenario, properties, defects).await;
                let ours = all_masked(read(&cluster, &format!("cw_{name}_{}", std::process::id())));
                let theirs = expected(&run, schemas, defects);
                let mut report = Vec::new();
                for topic in theirs.keys().chain(ours.keys()) {
                    let none = Vec::new();
                    let (t, o) = (theirs.get(topic).unwrap_or(&none), ours.get(topic).unwrap_or(&none));
                    for i in (0..t.len().max(o.len())).filter(|i| t.get(*i) != o.get(*i)) {
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
    assert!(!only.is_empty() || compared > 400, "{compared} records");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn topics_are_made_as_their_group_says() {
    let Some(db) = crate::support::database("creation").await else { return };
    db.exec("CREATE TABLE a(id int PRIMARY KEY); CREATE TABLE b(id int PRIMARY KEY); INSERT INTO a VALUES (1)").await;
    db.exec("CREATE TABLE keyless(id int); ALTER TABLE keyless REPLICA IDENTITY FULL").await;
    let given = [
        ("topic.creation.groups", "deleted"),
        ("topic.creation.default.partitions", "1"),
        ("topic.creation.default.retention.ms", "5"),
        ("topic.creation.deleted.include", "shop[.]public[.]a,.*keyless"),
        ("topic.creation.deleted.cleanup.policy", "delete"),
    ];
    let mut rig = Rig::new(db.config(&["a", "b", "keyless"])).await;
    rig.properties = given.map(|(k, v)| (k, v.to_owned())).to_vec();
    let mut running = rig.start();
    running.until("the stream", |s| s.get().state == catchwater_capture::State::Streaming).await;
    let config = |rig: &Rig, table: &str, key: &str| {
        let topic = format!("shop.public.{table}");
        let (_, id, _) = rig.cluster.topics().into_iter().find(|(name, ..)| name.as_str() == topic).unwrap();
        rig.cluster.topic_configs(id).get(key).cloned().unwrap_or_default()
    };
    assert_eq!([config(&rig, "a", "cleanup.policy"), config(&rig, "a", "retention.ms")], ["delete", ""]);
    assert_eq!([config(&rig, "b", "cleanup.policy"), config(&rig, "b", "retention.ms")], ["compact", "5"]);
    assert!(!config(&rig, "a", "max.message.bytes").is_empty(), "what a captured topic needs stays");
    running.stop.stop();
    assert_eq!((&mut running.task).await.unwrap(), "Stopped");
    // What is there stays as it is.
    rig.properties.push(("topic.creation.deleted.retention.ms", "9".into()));
    let mut running = rig.start();
    running.until("the stream again", |s| s.get().state == catchwater_capture::State::Streaming).await;
    assert_eq!(config(&rig, "a", "retention.ms"), "");
    drop(running);
    db.drop().await;

    let Some(db) = crate::support::database("creation_keyless").await else { return };
    db.exec("CREATE TABLE keyless(id int); ALTER TABLE keyless REPLICA IDENTITY FULL").await;
    let mut rig = Rig::new(db.config(&["keyless"])).await;
    rig.properties = vec![("topic.creation.default.cleanup.policy", "compact".into())];
    let end = (&mut rig.start().task).await.unwrap();
    assert!(end.contains("keyless has no key"), "{end}");
    db.drop().await;
}
