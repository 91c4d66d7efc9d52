//! Events of an outbox table through the built binary, read by a stock client: topic, time, key, value and headers are those
//! that a real Debezium 3.7.0.Final wrote in a Connect with the same `EventRouter` and converters.
//! Source: recordings of the connector's own test (`connectors/postgres/tests/golden/outbox.txt`, its form is said in
//! `connectors/postgres/tests/it/outbox.rs`).

use catchwater_tests::dev::Dev;
use catchwater_tests::pg::Database;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

const RECORDED: &str = include_str!("../../connectors/postgres/tests/golden/outbox.txt");
const LIMIT: Duration = Duration::from_secs(40);
/// Recordings, and whether records have their schemas beside them: JSON with headers out of columns, and texts under topics
/// by a pattern.
const RUNS: [(&str, bool); 2] = [("outbox-headers", true), ("outbox-route", false)];

/// Topic → time, key, value, headers.
type Topics = BTreeMap<String, Vec<[String; 4]>>;

struct Run {
    setup: String,
    changes: Vec<String>,
    properties: BTreeMap<String, String>,
    topics: Topics,
}

fn recorded(name: &str, schemas: bool) -> Run {
    let part = RECORDED.split("#sql ").find(|p| p.contains(&format!("\n#run {name} "))).expect("recorded");
    let (sql, _) = part.split_once("\n#run ").expect("runs");
    let (_, sql) = sql.split_once("-- @setup").expect("setup");
    let mut sql = sql.split("-- @changes").map(str::to_owned);
    let (_, run) = part.split_once(&format!("\n#run {name} ")).expect("the run");
    let (properties, lines) = run.split_once("\n#plain\n").expect("its lines");
    let lines = lines.split("\n#run ").next().unwrap_or_default();
    let (plain, with_schemas) = lines.split_once("#schemas\n").expect("both forms");
    let mut topics = Topics::new();
    for line in (if schemas { with_schemas } else { plain }).lines().filter(|l| !l.is_empty()) {
        let f: Vec<&str> = line.split('\t').collect();
        topics.entry(f[0].into()).or_default().push([f[1].into(), f[2].into(), f[3].into(), headers(f[4])]);
    }
    let setup = sql.next().expect("setup");
    Run { setup, changes: sql.collect(), properties: serde_json::from_str(properties).expect("JSON"), topics }
}

/// Without what is another in each run.
fn headers(json: &str) -> String {
    let mut all: Vec<(String, Option<String>)> = serde_json::from_str(json).expect("headers");
    all.retain(|(name, _)| name != "__debezium.context.runId" && !name.starts_with("cw."));
    serde_json::to_string(&all).expect("JSON")
}

fn kcat(kafka: &str, arguments: &[&str]) -> String {
    let out = Command::new("timeout").args(["20", "kcat", "-b", kafka, "-q", "-J"]).args(arguments).output();
    let out = out.expect("kcat");
    assert!(out.status.success(), "kcat: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn read(kafka: &str) -> Topics {
    let listed: Value = serde_json::from_str(&kcat(kafka, &["-L"])).expect("topics");
    let mut out = Topics::new();
    for topic in listed["topics"].as_array().expect("topics").iter().filter_map(|t| t["topic"].as_str()) {
        if topic.starts_with("__") {
            continue;
        }
        let lines = kcat(kafka, &["-C", "-t", topic, "-o", "beginning", "-e"]);
        for line in lines.lines() {
            let record: Value = serde_json::from_str(line).expect("kcat's line");
            let text = |part: &Value| match part.as_str() {
                None => "-".to_owned(),
                Some("null") => "!null".into(),
                Some("") => "!empty".into(),
                Some(text) => text.to_owned(),
            };
            let pairs: Vec<Value> = record["headers"].as_array().cloned().unwrap_or_default();
            let pairs: Vec<(&Value, &Value)> = pairs.chunks(2).map(|p| (&p[0], &p[1])).collect();
            let headers = headers(&serde_json::to_string(&pairs).expect("JSON"));
            let made = [record["ts"].to_string(), text(&record["key"]), text(&record["payload"]), headers];
            out.entry(topic.to_owned()).or_default().push(made);
        }
    }
    out
}

#[test]
fn events_of_an_outbox_table_are_debeziums() {
    for (name, schemas) in RUNS {
        let Some(db) = Database::create("pg15", &name.replace('-', "_")) else { return };
        let run = recorded(name, schemas);
        db.pg.run(&run.setup).expect("setup");
        let mut properties = run.properties.clone();
        for (key, value) in [("compat.defects", "true"), ("extended.headers.enabled", "true")] {
            properties.insert(key.into(), value.into());
        }
        properties.insert("schemas.enable".into(), schemas.to_string());
        let mut dev = Dev::new(&format!(
            "version: 1\npipeline: box\nsources:\n  pg:\n    postgres: {{ url: \"{}\", tables: [public.*], slot: {slot}, publication: {slot} }}\n    debezium: {}\n",
            db.url(),
            serde_json::to_string(&properties).expect("JSON"),
            slot = db.name(),
        ));
        dev.start().expect("start");
        let all = |topics: &Topics| topics.values().map(Vec::len).sum::<usize>();
        let of_snapshot = db.pg.rows("SELECT count(*) FROM outbox").expect("rows")[0][0].clone().unwrap_or_default();
        let snapshot = || (all(&read(&dev.kafka)).to_string() != of_snapshot).then(|| "the snapshot".to_owned());
        dev.wait(LIMIT, || snapshot().unwrap_or_default()).expect("snapshot");
        for change in &run.changes {
            db.pg.run(change).expect("change");
        }
        dev.wait(LIMIT, || match all(&read(&dev.kafka)) {
            n if n >= all(&run.topics) => String::new(),
            n => format!("{n} of {} events", all(&run.topics)),
        })
        .expect("events");
        let mut ours = read(&dev.kafka);
        assert_eq!(ours.keys().collect::<Vec<_>>(), run.topics.keys().collect::<Vec<_>>(), "{name}: topics");
        for (topic, theirs) in &run.topics {
            let ours = ours.get_mut(topic).expect("topic");
            for (ours, theirs) in ours.iter_mut().zip(theirs).filter(|(_, theirs)| theirs[0] == "now") {
                ours[0] = theirs[0].clone();
            }
            assert_eq!(ours, theirs, "{name}: {topic}");
        }
        dev.stop().expect("stop");
    }
}
