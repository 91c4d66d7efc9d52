//! Records that transforms of a source change, through the built binary: clients read them, `tap` shows them as they are, a
//! sink stops at the first of them with its code and writes nothing, and a transform that cannot take a record stops the source.

use catchwater_tests::dev::Dev;
use catchwater_tests::pg::Database;
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// The tables are a pattern, and the transform is for one topic: that the sink reads it is not known before its table is there.
fn pipeline(a: &Database, b: &Database, mut transforms: Value, of_one: &str) -> String {
    let name = a.name();
    transforms["predicates"] = json!("one");
    transforms["predicates.one.type"] = json!("org.apache.kafka.connect.transforms.predicates.TopicNameMatches");
    transforms["predicates.one.pattern"] = json!(format!("{name}[.]public[.]t"));
    if !of_one.is_empty() {
        transforms[format!("transforms.{of_one}.predicate")] = json!("one");
    }
    format!(
        "version: 1\npipeline: p\nsources:\n  {name}:\n    postgres: {{ url: \"{}\", tables: [\"public.*\"] }}\n    debezium: {transforms}\nsinks:\n  copy:\n    from: {name}\n    postgres: {{ url: \"{}\" }}\n",
        a.url(),
        b.url()
    )
}

/// What the node says of its tasks of this kind.
fn state(dev: &Dev, kind: &str) -> String {
    let url = format!("http://{}/api/v1/lag", dev.http);
    let out = Command::new("curl").args(["-s", &url]).output().expect("curl");
    let lines: Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
    lines.as_array().into_iter().flatten().find(|l| l["kind"] == kind).cloned().unwrap_or_default().to_string()
}

fn wait(dev: &Dev, kind: &str, words: &[&str]) {
    let seen = || {
        let text = state(dev, kind);
        if words.iter().all(|w| text.contains(w)) { String::new() } else { text }
    };
    dev.wait(LIMIT, seen).unwrap_or_else(|e| panic!("{kind}: {words:?}: {e:#}"));
}

#[test]
fn changed_records_are_for_clients_and_stop_a_sink() {
    let Some(a) = Database::create("pg15", "changed_a") else { return };
    let Some(b) = Database::create("pg15", "changed_b") else { return };
    a.pg.run("CREATE TABLE first (id int PRIMARY KEY)").expect("a table");
    let transforms = json!({
        "transforms": "flat,line",
        "transforms.flat.type": "io.debezium.transforms.ExtractNewRecordState",
        "transforms.line.type": "org.apache.kafka.connect.transforms.InsertField$Value",
        "transforms.line.static.field": "line",
        "transforms.line.static.value": "x",
    });
    let mut dev = Dev::new(&pipeline(&a, &b, transforms, "line"));
    dev.throw_away = true;
    dev.start().expect("start");
    wait(&dev, "source", &["running"]);
    a.pg.run(
        "CREATE TABLE t (id int PRIMARY KEY, note text, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
        INSERT INTO t VALUES (1, 'old', repeat('b', 9000))",
    )
    .expect("a table that comes later");
    wait(&dev, "sink", &["CW0699", "public.t", "transforms of the source changed the records"]);
    a.pg.run("INSERT INTO t VALUES (2, 'new'); UPDATE t SET note = 'newer' WHERE id = 1").expect("rows");
    let topic = format!("{}.public.t", a.name());
    let values = || {
        let out = Command::new("timeout")
            .args(["20", "kcat", "-b", &dev.kafka, "-q", "-C", "-t", &topic, "-o", "beginning", "-e"])
            .output()
            .expect("kcat");
        String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let want = [
        format!(r#"{{"id":1,"note":"old","big":"{}","line":"x"}}"#, "b".repeat(9000)),
        r#"{"id":2,"note":"new","big":null,"line":"x"}"#.to_owned(),
        // What the server did not send is not filled from the log: no row is there to take it from.
        r#"{"id":1,"note":"newer","big":"__debezium_unavailable_value","line":"x"}"#.to_owned(),
    ];
    dev.wait(LIMIT, || if values() == want { String::new() } else { format!("{:?}", values()) }).expect("records");
    let tap = Command::new(catchwater_tests::broker::binary().expect("binary"))
        .args(["tap", "p", "--from", "earliest", "-o", "json", "--limit", "3"])
        .env("CATCHWATER_HTTP", &dev.http)
        .env("CATCHWATER_BOOTSTRAP", &dev.kafka)
        .output()
        .expect("tap");
    let text = String::from_utf8_lossy(&tap.stdout).into_owned();
    let shown: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let shown: Vec<&str> = shown.iter().filter_map(|line| line["value"].as_str()).collect();
    assert_eq!(shown, want, "{}", String::from_utf8_lossy(&tap.stderr));
    assert_eq!(b.pg.one("SELECT to_regclass('t') IS NULL OR (xpath('/row/c/text()', query_to_xml('SELECT count(*) AS c FROM t', true, true, '')))[1]::text = '0'").expect("target"), "t");
    wait(&dev, "source", &["running"]);
    dev.stop().expect("stop");
}

#[test]
fn a_transform_that_cannot_take_a_record_stops_the_source_with_nothing_lost() {
    let Some(a) = Database::create("pg15", "unchangeable_a") else { return };
    let Some(b) = Database::create("pg15", "unchangeable_b") else { return };
    a.pg.run("CREATE TABLE first (id int PRIMARY KEY)").expect("a table");
    let cast = |with: bool| {
        let mut all = json!({
            "transforms": "flat",
            "transforms.flat.type": "io.debezium.transforms.ExtractNewRecordState",
        });
        if with {
            all["transforms"] = json!("flat,cast");
            all["transforms.cast.type"] = json!("org.apache.kafka.connect.transforms.Cast$Value");
            all["transforms.cast.spec"] = json!("note:int32");
        }
        all
    };
    let mut dev = Dev::new(&pipeline(&a, &b, cast(true), "cast"));
    dev.start().expect("start");
    wait(&dev, "source", &["running"]);
    a.pg.run("CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO t VALUES (1, '17')")
        .expect("a table that comes later");
    wait(&dev, "sink", &["CW0699"]);
    a.pg.run("INSERT INTO t VALUES (2, 'secret-word')").expect("a row that is no number");
    wait(&dev, "source", &["CW0586"]);
    assert!(!dev.log().contains("secret-word"), "a value in the log");
    assert!(!state(&dev, "source").contains("secret-word"), "a value in what it says of itself");
    dev.throw_away = true;
    dev.stop().expect("stop");
}
