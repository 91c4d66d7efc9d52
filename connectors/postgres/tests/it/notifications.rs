//! Notifications: the sequence that Debezium 3.7.0.Final writes for the same tables and signals
//! (`tests/notifications.jsonl`, recorded by `tests/notifications.md`), and what a crash makes of it.

use crate::rig::{Rig, Running};
use crate::support::*;
use catchwater_capture::State;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};

const RECORDED: &str = include_str!("../notifications.jsonl");
const SQL: &str = include_str!("../notifications.sql");
const TOPIC: &str = "told";

fn told(rig: &Rig) -> Vec<(Json, Json)> {
    rig.records(TOPIC).into_iter().map(|r| (r.key, r.value)).collect()
}

fn is_told(rig: &Rig, kind: &str, times: usize) -> bool {
    told(rig).iter().filter(|(_, v)| v["type"] == kind).count() >= times
}

/// Without time and random ids; lists of tables are sets (Debezium's order is that of a hash).
fn masked(key: &Json, value: &Json) -> Json {
    let mut value = value.clone();
    assert_eq!(key["id"], value["id"]);
    assert!(value["timestamp"].is_i64(), "{value}");
    value["timestamp"] = json!(0);
    if value["id"].as_str().unwrap().len() == 36 {
        value["id"] = json!("uuid");
    }
    let sorted: BTreeMap<String, Json> = serde_json::from_value(value["additional_data"].take()).unwrap();
    value["additional_data"] = json!(sorted);
    if let Some(list) = value["additional_data"].get_mut("data_collections") {
        let tables: BTreeSet<&str> = list.as_str().unwrap().split(',').collect();
        *list = json!(tables);
    }
    value
}

async fn started(rig: &mut Rig) -> Running {
    let mut running = rig.start();
    running.until("streaming", |s| s.get().state == State::Streaming).await;
    running
}

async fn begin(test: &str) -> Option<(Db, Rig)> {
    let db = database(test).await?;
    db.exec(SQL).await;
    let mut rig = Rig::new(db.config(&["a", "b", "e", "n", "signals"])).await;
    rig.properties = vec![
        ("signal.data.collection", "public.signals".into()),
        ("incremental.snapshot.chunk.size", "2".into()),
        ("notification.enabled.channels", "sink,log".into()),
        ("notification.sink.topic.name", TOPIC.into()),
    ];
    Some((db, rig))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sequence_is_debeziums() {
    let Some((db, mut rig)) = begin("told").await else { return };
    let mut running = started(&mut rig).await;
    for (n, signal) in SIGNALS.iter().enumerate() {
        running.until("what was asked for before", |_| is_told(&rig, "COMPLETED", n + 1)).await;
        db.exec(&format!("INSERT INTO signals VALUES {signal}")).await;
    }
    running.until("the last", |_| is_told(&rig, "COMPLETED", SIGNALS.len() + 1)).await;
    running.stop.stop();
    assert_eq!((&mut running.task).await.unwrap(), "Stopped");
    let mut running = started(&mut rig).await;
    running.until("the next start", |_| is_told(&rig, "SKIPPED", 1)).await;
    let got: Vec<Json> = told(&rig).iter().map(|(key, value)| masked(key, value)).collect();
    let want: Vec<Json> = RECORDED
        .lines()
        .map(|line| {
            let record: Json = serde_json::from_str(line).unwrap();
            masked(&record["key"], &record["value"])
        })
        .collect();
    assert_eq!(got.len(), want.len(), "{got:#?}");
    let end = want.iter().position(|v| v["type"] == "COMPLETED").unwrap();
    // Tables without rows come last here.
    let per_table = |all: &[Json]| {
        let mut lines: Vec<String> = all[2..end].iter().map(Json::to_string).collect();
        lines.sort();
        lines
    };
    assert_eq!(per_table(&got), per_table(&want));
    for i in (0..2).chain(end..want.len()) {
        assert_eq!(got[i], want[i], "notification {i}");
    }
    drop(running);
    db.drop().await;
}

/// As in `notifications.md`.
const SIGNALS: [&str; 3] = [
    r#"('10', 'execute-snapshot', '{"data-collections": ["public.a", "public.b"]}')"#,
    r#"('11', 'execute-snapshot', '{"data-collections": ["public.e", "public.n"]}')"#,
    r#"('12', 'execute-snapshot', '{"type": "blocking", "data-collections": ["public.a", "public.b"]}')"#,
];

/// Killed again and again: what is told of a snapshot is there, in order; only repetitions are allowed.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_loses_no_notification() {
    let Some((db, mut rig)) = begin("told_kill").await else { return };
    db.exec("INSERT INTO a SELECT generate_series(10, 60)").await;
    let mut running = started(&mut rig).await;
    running.until("the first snapshot", |_| is_told(&rig, "COMPLETED", 1)).await;
    db.exec(r#"INSERT INTO signals VALUES ('10', 'execute-snapshot', '{"data-collections": ["public.a"]}')"#).await;
    let mut seen = 0;
    while !is_told(&rig, "COMPLETED", 2) {
        running.until("news", |_| told(&rig).len() > seen + 3 || is_told(&rig, "COMPLETED", 2)).await;
        drop(running);
        seen = told(&rig).len();
        running = started(&mut rig).await;
    }
    running.until("the rows", |s| s.get().ad_hoc.is_empty()).await;
    let of_it: Vec<Json> =
        told(&rig).into_iter().map(|(_, v)| v).filter(|v| v["aggregate_type"] == "Incremental Snapshot").collect();
    assert!(of_it.iter().all(|v| v["id"] == "10"), "{of_it:?}");
    let mut keys: Vec<i64> = Vec::new();
    for value in of_it.iter().filter(|v| v["type"] == "IN_PROGRESS") {
        let data = &value["additional_data"];
        assert_eq!(data["maximum_key"], "60");
        keys.push(data["last_processed_key"].as_str().unwrap().parse().unwrap());
    }
    let keys: BTreeSet<i64> = keys.into_iter().collect();
    let want: BTreeSet<i64> = (2..=4).step_by(2).chain((10..=60).step_by(2)).collect();
    assert_eq!(keys, want, "each chunk: {of_it:#?}");
    let kinds: Vec<&str> = of_it.iter().map(|v| v["type"].as_str().unwrap()).filter(|k| *k != "IN_PROGRESS").collect();
    assert_eq!(kinds.first(), Some(&"STARTED"));
    assert_eq!(kinds[kinds.len() - 2..], ["TABLE_SCAN_COMPLETED", "COMPLETED"]);
    drop(running);
    db.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_a_resume_and_a_stop_are_told() {
    let Some((db, mut rig)) = begin("told_pause").await else { return };
    let mut running = started(&mut rig).await;
    let slow = r#"{"data-collections": ["public.a", "public.b"], "rows-per-second": 1}"#;
    db.exec(&format!("INSERT INTO signals VALUES ('20', 'execute-snapshot', '{slow}')")).await;
    for (n, (kind, told_as)) in
        [("pause-snapshot", "PAUSED"), ("resume-snapshot", "RESUMED"), ("stop-snapshot", "ABORTED")].iter().enumerate()
    {
        running.until("the table", |_| is_told(&rig, "IN_PROGRESS", 5)).await;
        db.exec(&format!("INSERT INTO signals VALUES ('s{n}', '{kind}', NULL)")).await;
        running.until(told_as, |_| is_told(&rig, told_as, 1)).await;
        let (_, last) = told(&rig).into_iter().rfind(|(_, v)| v["type"] == *told_as).unwrap();
        assert_eq!(last["id"], "20");
        let both = json!({"connector_name": "shop", "data_collections": "public.a,public.b"});
        assert_eq!(last["additional_data"], both, "{told_as}");
    }
    assert!(!is_told(&rig, "COMPLETED", 2), "but for the first snapshot");
    drop(running);
    db.drop().await;
}
