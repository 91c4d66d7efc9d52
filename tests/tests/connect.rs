//! Kafka Connect's REST API: a dialogue of 120 requests that was recorded from a real worker (`tests/connect`) is held with
//! the node, and each answer is the same but for those listed here; a connector's data arrives; what it was told to do
//! survives `kill -9`; passwords stay out of the log.

use catchwater_tests::broker::{Broker, Settings};
use catchwater_tests::pg::Database;
use catchwater_tests::python::interpreter;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(40);
/// Never to be found in a file of the log.
const CANARY: &str = "pw-canary-73b1";

/// Steps whose answers differ, and why.
const DIFFERENT: [(&str, &str); 17] = [
    ("not JSON", "a bad request is 400 here, not 500 with a Java message"),
    ("empty body", "the same"),
    ("no config", "the same"),
    ("unknown field", "the same"),
    ("unknown initial state", "the same"),
    ("validate, no class", "the same"),
    ("validate, unknown plugin", "the same"),
    ("unknown class", "the list of what is there"),
    ("plugin config, unknown", "the list of what is there"),
    ("null value", "each null is counted"),
    ("a wrong value", "order of the words"),
    ("no server", "our sentence, with code and next step"),
    ("validate, missing", "tables must be named"),
    ("validate sink, missing", "a URL and a key mode are needed"),
    ("tasks", "the password is a reference"),
    ("restart failed only", "the task of the restart before is still starting"),
    ("is paused", "the task is there, and paused"),
];

fn node() -> (Broker, String) {
    let broker = Broker::start_with(Settings::default().with("connect", "127.0.0.1:0"));
    let rest = rest(&broker);
    (broker, rest)
}

/// Address of the face, as the node says it.
fn rest(broker: &Broker) -> String {
    let log = broker.log();
    let at = log.rfind(" connect 127.0.0.1:").unwrap_or_else(|| panic!("no face: {log}"));
    log[at + 9..].chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect()
}

/// One request; status and body.
fn ask(rest: &str, method: &str, path: &str, body: Option<&Value>, more: &str) -> (u16, Value) {
    let answer = raw(rest, method, path, body, more);
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("status");
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, b)| b);
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

/// One request; the whole answer.
fn raw(rest: &str, method: &str, path: &str, body: Option<&Value>, more: &str) -> String {
    let mut stream = TcpStream::connect(rest).expect("connects");
    let text = body.map(Value::to_string).unwrap_or_default();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {rest}\r\nContent-Type: application/json\r\n{more}Content-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )
    .expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answers");
    answer
}

fn until(what: &str, broker: &Broker, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < deadline, "{what}\n{}", broker.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// `postgres://user@host:port/db` → host, port, database.
fn place(url: &str) -> (String, String, String) {
    let rest = url.rsplit('@').next().expect("place");
    let (hostport, database) = rest.split_once('/').expect("database");
    let (host, port) = hostport.split_once(':').expect("port");
    (host.into(), port.into(), database.split('?').next().unwrap_or_default().into())
}

fn source(d: &Database, prefix: &str) -> Value {
    let (host, port, database) = place(d.url());
    json!({
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector", "tasks.max": "1",
        "database.hostname": host, "database.port": port, "database.user": "postgres", "database.password": CANARY,
        "database.dbname": database, "topic.prefix": prefix, "plugin.name": "pgoutput",
        "slot.name": format!("{prefix}_slot"), "publication.name": format!("{prefix}_pub"),
        "table.include.list": "public.items", "skipped.operations": "none",
    })
}

fn sink(d: &Database, prefix: &str, table: &str, more: &[(&str, &str)]) -> Value {
    let (host, port, database) = place(d.url());
    let mut config = json!({
        "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector", "topics": format!("{prefix}.public.items"),
        "connection.url": format!("jdbc:postgresql://{host}:{port}/{database}"), "connection.username": "postgres",
        "connection.password": CANARY, "insert.mode": "upsert", "delete.enabled": "true", "truncate.enabled": "true",
        "primary.key.mode": "record_key", "schema.evolution": "basic", "collection.name.format": table,
    });
    for (k, v) in more {
        config[*k] = json!(v);
    }
    config
}

fn rows(d: &Database, table: &str) -> String {
    d.pg.one(&format!("SELECT coalesce(string_agg(id || name, ',' ORDER BY id), '') FROM {table}")).unwrap_or_default()
}

#[test]
fn the_dialogue_is_that_of_a_real_worker() {
    let python = match interpreter() {
        Ok(python) => python,
        Err(why) => return catchwater_tests::skip("connect dialogue", &why),
    };
    let Some((a, b)) = Database::create("pg15", "dialogue_a").zip(Database::create("pg15", "dialogue_b")) else {
        return;
    };
    a.pg.run("CREATE TABLE items (id int PRIMARY KEY, name text); INSERT INTO items VALUES (1, 'a'), (2, 'b')")
        .expect("rows");
    let (broker, rest) = node();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("connect");
    let without_login = |d: &Database| {
        let (host, port, database) = place(d.url());
        format!("{host}:{port}/{database}")
    };
    // The slot is the server's, not the database's: another name than in the record.
    let slot = format!("inv_{}", std::process::id());
    let out = Command::new(python)
        .arg(folder.join("dialogue.py"))
        .args([format!("http://{rest}"), without_login(&a), without_login(&b)])
        .env("CW_SLOT", &slot)
        .output()
        .expect("python");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let ours = String::from_utf8_lossy(&out.stdout).into_owned();
    let real = std::fs::read_to_string(folder.join("real.jsonl")).expect("record");
    let (host, port, source_name) = place(a.url());
    let target_name = place(b.url()).2;
    let steps = |text: &str| -> BTreeMap<String, (u64, String)> {
        text.lines()
            .map(|line| {
                let v: Value = serde_json::from_str(line).expect("line");
                let body = plain(
                    v["body"].to_string(),
                    &[
                        (&source_name, "src"),
                        (&target_name, "dst"),
                        (&slot, "inv_slot"),
                        (&port, "25415"),
                        (&host, "127.0.0.1"),
                    ],
                );
                (v["step"].as_str().expect("step").to_owned(), (v["status"].as_u64().expect("status"), body))
            })
            .collect()
    };
    let (real, ours) = (steps(&real), steps(&ours));
    assert_eq!(real.len(), 120);
    let mut wrong = Vec::new();
    for (step, wanted) in &real {
        let allowed = DIFFERENT.iter().any(|(s, _)| s == step);
        let got = ours.get(step);
        // A refusal may be worded otherwise; it must be one. The rest is the same to the letter.
        let right = if allowed { got.is_some_and(|g| (g.0 >= 400) == (wanted.0 >= 400)) } else { got == Some(wanted) };
        if !right {
            wrong.push(format!("{step}\n  real {wanted:?}\n  ours {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), broker.log());
}

/// Names of this run as in the record, references as the password they stand for.
fn plain(mut text: String, names: &[(&String, &str)]) -> String {
    for (ours, theirs) in names {
        text = text
            .replace(&format!("/{ours}\""), &format!("/{theirs}\""))
            .replace(&format!("\"{ours}\""), &format!("\"{theirs}\""))
            .replace(&format!(":{ours}/"), &format!(":{theirs}/"));
    }
    while let Some(at) = text.find("${secret:") {
        let end = text[at..].find('}').map_or(text.len(), |e| at + e + 1);
        text.replace_range(at..end, "secret");
    }
    let value: Value = serde_json::from_str(&text).expect("JSON");
    sorted(&value).to_string()
}

/// Keys in order: the real one's maps have none.
fn sorted(v: &Value) -> Value {
    match v {
        Value::Object(map) => {
            let ordered: BTreeMap<&String, Value> = map.iter().map(|(k, v)| (k, sorted(v))).collect();
            json!(ordered)
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

#[test]
fn connectors_carry_rows_and_go_on_where_they_were() {
    let Some((a, b)) = Database::create("pg16", "connect_a").zip(Database::create("pg16", "connect_b")) else { return };
    a.pg.run("CREATE TABLE items (id int PRIMARY KEY, name text); INSERT INTO items VALUES (1, 'a'), (2, 'b')")
        .expect("rows");
    let prefix = format!("c{}", std::process::id());
    let (mut broker, mut at) = node();
    let state = |at: &str, name: &str| {
        let (_, v) = ask(at, "GET", &format!("/connectors/{name}/status"), None, "");
        let task = v["tasks"][0]["state"].as_str().unwrap_or("-").to_owned();
        format!("{} {task}", v["connector"]["state"].as_str().unwrap_or("-"))
    };
    // The sink first: it waits for its topic.
    let put =
        |at: &str, name: &str, config: &Value| ask(at, "PUT", &format!("/connectors/{name}/config"), Some(config), "");
    // What is made has a place; tools that look without reading are answered.
    let made = raw(&at, "PUT", "/connectors/copy/config", Some(&sink(&b, &prefix, "items_copy", &[])), "");
    assert!(made.starts_with("HTTP/1.1 201") && made.contains("location: /connectors/copy\r\n"), "{made}");
    let head = raw(&at, "HEAD", "/connectors", None, "");
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    let keep = sink(&b, &prefix, "kept.items", &[("delete.enabled", "false"), ("truncate.enabled", "false")]);
    b.pg.run("CREATE SCHEMA kept").expect("schema");
    assert_eq!(put(&at, "keep", &keep).0, 201);
    let (status, answer) = put(&at, "inv", &source(&a, &prefix));
    assert_eq!(status, 201, "{answer}");
    assert_eq!(answer["config"]["database.password"], json!("${secret:connect/inv/database.password}"));
    until("the snapshot arrives", &broker, || rows(&b, "items_copy") == "1a,2b" && rows(&b, "kept.items") == "1a,2b");
    a.pg.run("UPDATE items SET name = 'x' WHERE id = 1; DELETE FROM items WHERE id = 2").expect("changes");
    until("changes arrive", &broker, || rows(&b, "items_copy") == "1x" && rows(&b, "kept.items") == "1x,2b");

    // What was put is what is read back, and may be put again.
    let (_, config) = ask(&at, "GET", "/connectors/inv/config", None, "");
    assert_eq!(put(&at, "inv", &config).0, 200);

    // Stopped and paused are remembered by the log.
    assert_eq!(ask(&at, "PUT", "/connectors/copy/stop", None, "").0, 204);
    assert_eq!(ask(&at, "PUT", "/connectors/keep/pause", None, "").0, 202);
    until("both stand still", &broker, || state(&at, "copy") == "STOPPED -" && state(&at, "keep") == "PAUSED PAUSED");
    broker.kill();
    broker.restart().expect("restart");
    at = rest(&broker);
    until("as before", &broker, || {
        state(&at, "copy") == "STOPPED -"
            && state(&at, "keep") == "PAUSED PAUSED"
            && state(&at, "inv") == "RUNNING RUNNING"
    });
    a.pg.run("INSERT INTO items VALUES (3, 'c')").expect("change");
    // Its position is given up: it writes everything again, over what is there.
    b.pg.run("DELETE FROM items_copy").expect("empty");
    assert_eq!(ask(&at, "DELETE", "/connectors/copy/offsets", None, "").0, 200);
    assert_eq!(rows(&b, "items_copy"), "", "it stands still");
    assert_eq!(ask(&at, "PUT", "/connectors/copy/resume", None, "").0, 202);
    assert_eq!(ask(&at, "PUT", "/connectors/keep/resume", None, "").0, 202);
    until("both go on", &broker, || rows(&b, "items_copy") == "1x,3c" && rows(&b, "kept.items") == "1x,2b,3c");

    // Deleted and put again under its name: the slot stayed, nothing in between is lost.
    assert_eq!(ask(&at, "DELETE", "/connectors/inv", None, "").0, 204);
    until("the slot is free", &broker, || {
        let sql = format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{prefix}_slot'");
        a.pg.one(&sql).expect("the slot stays") == "f"
    });
    a.pg.run("INSERT INTO items VALUES (4, 'd')").expect("change");
    let (status, answer) = put(&at, "inv", &source(&a, &prefix));
    assert_eq!(status, 201, "{answer}\n{}", broker.log());
    until("nothing is lost", &broker, || rows(&b, "items_copy") == "1x,3c,4d");

    // The password is in files of its own, for the node's user alone.
    let data = broker.data_dir();
    let found = holding(&data, CANARY.as_bytes());
    let inside: Vec<String> = found.iter().map(|p| p.strip_prefix(&data).unwrap_or(p).display().to_string()).collect();
    assert_eq!(inside.len(), 3, "{inside:?}");
    assert!(inside.iter().all(|p| p.starts_with("secrets/connect/")), "{inside:?}");
    for file in &found {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(file.metadata().expect("file").permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    assert!(!broker.log().contains(CANARY));

    // A page in a browser on this machine gets nowhere.
    let (status, _) = ask(&at, "POST", "/connectors/inv/restart", None, "Origin: http://example.com\r\n");
    assert_eq!(status, 403);
    for name in ["inv", "copy", "keep"] {
        assert_eq!(ask(&at, "DELETE", &format!("/connectors/{name}"), None, "").0, 204);
    }
    until("tasks have ended", &broker, || {
        let sql = format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{prefix}_slot' AND NOT active"
        );
        a.pg.rows(&sql).is_ok_and(|r| !r.is_empty())
    });
    assert_eq!(holding(&data, CANARY.as_bytes()), [] as [PathBuf; 0], "deleted with their connectors");
}

/// Refused rows go to the topic that the connector names, of which another one may make use, too, with the headers that it asks for;
/// the node's own commands find them there, also under a connector's name with a dot in it.
#[test]
fn refused_rows_are_in_the_topic_that_the_connector_names() {
    let Some((a, b)) = Database::create("pg18", "letters_a").zip(Database::create("pg18", "letters_b")) else { return };
    a.pg.run("CREATE TABLE items (id int PRIMARY KEY, name text); INSERT INTO items VALUES (1, 'a'), (2, 'toolong')")
        .expect("rows");
    b.pg.run("CREATE TABLE one (id int PRIMARY KEY, name varchar(3)); CREATE TABLE two (id int PRIMARY KEY, name varchar(3))")
        .expect("tables");
    let prefix = format!("d{}", std::process::id());
    let (broker, at) = node();
    let put = |name: &str, config: &Value| ask(&at, "PUT", &format!("/connectors/{name}/config"), Some(config), "");
    assert_eq!(put("inv", &source(&a, &prefix)).0, 201);
    let dlq = [("errors.tolerance", "all"), ("errors.deadletterqueue.topic.name", "shop-errors")];
    let with = [&dlq[..], &[("errors.deadletterqueue.context.headers.enable", "true")]].concat();
    let told = [&dlq[..], &[("errors.log.enable", "true"), ("errors.log.include.messages", "true")]].concat();
    assert_eq!(put("copy.1", &sink(&b, &prefix, "one", &with)).0, 201);
    assert_eq!(put("copy.2", &sink(&b, &prefix, "two", &told)).0, 201);
    let (status, answer) = put(
        "copy.3",
        &sink(&b, &prefix, "x", &[("errors.deadletterqueue.topic.name", &format!("{prefix}.public.items"))]),
    );
    assert!(status == 400 && answer.to_string().contains("may not be included in the list of topics"), "{answer}");
    a.pg.run("UPDATE items SET name = 'b' WHERE id = 1; INSERT INTO items VALUES (3, 'long, too'), (4, 'c')")
        .expect("rows");
    until("the others arrive", &broker, || rows(&b, "one") == "1b,4c" && rows(&b, "two") == "1b,4c");

    let listed = |pipeline: &str| -> Vec<String> {
        let out = cli(&broker, &["dlq", "list", pipeline]);
        let letters = out["result"]["letters"].as_array().cloned().unwrap_or_default();
        letters
            .iter()
            .map(|l| format!("{} {} {} {}", l["sink"], l["topic"], l["source_offset"].is_u64(), l["state"]))
            .collect()
    };
    let topic = format!("{prefix}.public.items");
    for name in ["copy.1", "copy.2"] {
        let want = format!("\"{name}\" \"{topic}\" true \"parked\"");
        let want = [want.clone(), want];
        assert_eq!(listed(name), want);
    }
    let out = Command::new("timeout")
        .args(["60", "kcat", "-b", broker.kafka(), "-C", "-t", "shop-errors", "-o", "beginning", "-e", "-q", "-J"])
        .output()
        .expect("kcat");
    let lines = String::from_utf8_lossy(&out.stdout).into_owned();
    let letters: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).expect("a line")).collect();
    assert_eq!(letters.len(), 4);
    for letter in letters {
        let pairs = letter["headers"].as_array().cloned().unwrap_or_default();
        let pairs: Vec<&str> = pairs.iter().filter_map(Value::as_str).collect();
        let header = |name: &str| pairs.chunks(2).find(|p| p[0] == name).map(|p| p[1]);
        let by_connect = ["topic", "partition", "offset", "connector.name", "task.id", "stage", "exception.message"]
            .map(|k| header(&format!("__connect.errors.{k}")));
        match header("cw.sink") {
            Some("copy.1.copy.1") => {
                assert_eq!(by_connect[0], Some(topic.as_str()));
                assert_eq!((by_connect[3], by_connect[5]), (Some("copy.1"), Some("TASK_PUT")));
                assert!(by_connect[6].is_some_and(|m| m.contains("too long")), "{pairs:?}");
            }
            Some("copy.2.copy.2") => assert!(by_connect.iter().all(Option::is_none), "{pairs:?}"),
            other => panic!("{other:?}"),
        }
    }
    let told = broker.log().matches("sink.refused").count();
    assert!(told >= 2 && !broker.log().contains("copy.1.copy.1: CW"), "{told}");
    // Repaired: replayed from there.
    b.pg.run("ALTER TABLE one ALTER name TYPE text").expect("a wider column");
    let done = cli(&broker, &["dlq", "replay", "copy.1"]);
    assert_eq!(done["result"]["sinks"]["copy.1"]["keys"], 2, "{done}");
    assert_eq!(
        (rows(&b, "one"), listed("copy.1").len(), listed("copy.2").len()),
        ("1b,2toolong,3long, too,4c".into(), 0, 2)
    );
}

/// The command line against this node, as JSON.
fn cli(broker: &Broker, args: &[&str]) -> Value {
    let out = Command::new(catchwater_tests::broker::binary().expect("binary"))
        .args(args)
        .args(["--http", broker.http(), "-o", "json"])
        .env_remove("RUST_BACKTRACE")
        .output()
        .expect("runs");
    serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|e| panic!("{args:?}: {e}: {}", String::from_utf8_lossy(&out.stderr)))
}

/// Debezium's lists of regular expressions, an expression for a sink's topics, a router before its names, and a signal.
#[test]
fn expressions_mean_what_they_mean_to_debezium() {
    let Some((a, b)) = Database::create("pg17", "regex_a").zip(Database::create("pg17", "regex_b")) else { return };
    a.pg.run(
        "CREATE SCHEMA s1; CREATE SCHEMA s2; CREATE SCHEMA tmp_1; \
         CREATE TABLE s1.items (id int PRIMARY KEY, name text); INSERT INTO s1.items VALUES (1, 'a'); \
         CREATE TABLE s2.\"Orders\" (id int PRIMARY KEY, name text); INSERT INTO s2.\"Orders\" VALUES (2, 'b'); \
         CREATE TABLE s2.log_1 (id int PRIMARY KEY, name text); INSERT INTO s2.log_1 VALUES (3, 'c'); \
         CREATE TABLE tmp_1.items (id int PRIMARY KEY, name text); INSERT INTO tmp_1.items VALUES (4, 'd'); \
         CREATE TABLE public.signals (id text PRIMARY KEY, type text, data text)",
    )
    .expect("tables");
    let prefix = format!("r{}", std::process::id());
    let (broker, at) = node();
    let put = |name: &str, config: &Value| ask(&at, "PUT", &format!("/connectors/{name}/config"), Some(config), "");
    let mut inv = source(&a, &prefix);
    inv["table.include.list"] = json!(".*\\.items,s[12]\\.(orders|log_\\d+)");
    inv["schema.exclude.list"] = json!("tmp_\\d");
    inv["signal.data.collection"] = json!("public.signals");
    let (status, answer) = put("inv", &inv);
    assert_eq!(status, 201, "{answer}");
    let mut copy = sink(
        &b,
        &prefix,
        "${topic}",
        &[
            ("topics.regex", &format!("{prefix}\\.s\\d\\.(items|Orders)")),
            ("quote.identifiers", "true"),
            ("transforms", "route"),
            ("transforms.route.type", "org.apache.kafka.connect.transforms.RegexRouter"),
            ("transforms.route.regex", "([^.]+)\\.([^.]+)\\.([^.]+)"),
            ("transforms.route.replacement", "$2_$3"),
        ],
    );
    copy.as_object_mut().expect("an object").remove("topics");
    let (status, answer) = put("copy", &copy);
    assert_eq!(status, 201, "{answer}");
    until("the snapshot arrives", &broker, || rows(&b, "s1_items") == "1a" && rows(&b, "\"s2_Orders\"") == "2b");
    let topics =
        |name: &str| ask(&at, "GET", &format!("/connectors/{name}/topics"), None, "").1[name]["topics"].to_string();
    assert!(topics("inv").contains("s2.log_1") && !topics("inv").contains("tmp_1"), "{}", topics("inv"));
    let tables =
        "SELECT string_agg(tablename, ',' ORDER BY tablename COLLATE \"C\") FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(b.pg.one(tables).expect("tables"), "s1_items,s2_Orders");
    // Rows that are gone from the target come again by a signal through a table that stands in no list.
    b.pg.run("DELETE FROM s1_items").expect("empty");
    a.pg.run("INSERT INTO signals VALUES ('s1', 'execute-snapshot', '{\"data-collections\": [\"s1.items\"]}')")
        .expect("signal");
    until("the table is read again", &broker, || rows(&b, "s1_items") == "1a");
    a.pg.run("INSERT INTO s1.items VALUES (5, 'e'); INSERT INTO tmp_1.items VALUES (6, 'f')").expect("changes");
    until("changes arrive", &broker, || rows(&b, "s1_items") == "1a,5e");
}

/// Files below `folder` that hold `needle`.
fn holding(folder: &Path, needle: &[u8]) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder).expect("folder").filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            out.extend(holding(&path, needle));
        } else if std::fs::read(&path).is_ok_and(|b| b.windows(needle.len()).any(|w| w == needle)) {
            out.push(path);
        }
    }
    out
}

/// What a Kafka Connect worker answers about one connector, and which changes were asked of it.
#[derive(Default)]
struct There {
    config: Value,
    offsets: Value,
    stopped: bool,
    changes: Vec<String>,
}

fn worker(there: Arc<Mutex<There>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("address").to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut head = Vec::new();
            let mut byte = [0; 1];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let mut words = head.split(' ');
            let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let mut there = there.lock().expect("no panic");
            if method != "GET" {
                there.changes.push(format!("{method} {path}"));
                there.stopped |= path.ends_with("/stop");
            }
            let body = match path.rsplit('/').next().unwrap_or_default() {
                "config" => there.config.clone(),
                "offsets" => there.offsets.clone(),
                "status" if there.stopped => json!({"connector": {"state": "STOPPED"}, "tasks": []}),
                "status" => json!({"connector": {"state": "RUNNING"}, "tasks": [{"id": 0, "state": "RUNNING"}]}),
                _ => json!({"version": "4.3.1", "commit": "26b2eb3c2f0b4d0a", "kafka_cluster_id": "x"}),
            };
            let body = body.to_string();
            let _ =
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
        }
    });
    address
}

#[test]
fn a_connector_is_not_stopped_before_it_can_go_on_here() {
    let Some(d) = Database::create("pg15", "connect_import") else { return };
    let pg = d.connect();
    pg.run("CREATE TABLE items (id int PRIMARY KEY, name text); CREATE PUBLICATION imp_pub FOR TABLE items")
        .expect("table");
    pg.run("SELECT pg_create_logical_replication_slot('imp_slot', 'pgoutput')").expect("slot");
    let lsn = pg.one("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn").expect("place");
    let lsn: u64 = lsn.parse().expect("number");
    let offset = |server: &str, offset: Value| json!({"partition": {"server": server}, "offset": offset});
    let unfinished = json!({"lsn": lsn, "txId": 7, "snapshot": "INITIAL", "snapshot_completed": false});
    let there = Arc::new(Mutex::new(There { config: source(&d, "imp"), ..There::default() }));
    let worker = worker(there.clone());
    let (broker, rest) = node();
    let binary = catchwater_tests::broker::binary().expect("binary");
    let import = |to: &str, more: &[&str]| {
        let words = ["import", "connect", &format!("http://{worker}"), "inv", "--stop", "--to", to];
        let out = Command::new(&binary).args(words).args(more).env_remove("RUST_BACKTRACE").output().expect("runs");
        let text = [out.stdout, out.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
        (out.status.code().unwrap_or(-1), text)
    };
    let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("port").to_string();
    // The offset of a prefix it had once says nothing.
    let old = offset("before", json!({"lsn": 1, "lsn_commit": 1, "messageType": "COMMIT", "txId": 1}));
    let place = json!({"lsn": lsn, "lsn_commit": lsn, "messageType": "COMMIT", "txId": 7});
    let ready = json!([old, offset("imp", place)]);
    for (to, more, offsets, code, says) in [
        (worker.as_str(), &[][..], &ready, 2, "is no node of Catchwater"),
        (free.as_str(), &[], &ready, 3, "nothing answers at"),
        (rest.as_str(), &["--set", "slot.name=gone"], &ready, 2, "slot does not exist"),
        (rest.as_str(), &["--set", "database.dbname=postgres"], &ready, 3, "in database"),
        (rest.as_str(), &[], &json!([old]), 2, "has no offset of server imp"),
        (rest.as_str(), &[], &json!([offset("imp", unfinished)]), 2, "a snapshot is under way there"),
    ] {
        there.lock().expect("no panic").offsets = json!({ "offsets": offsets });
        let (exit, text) = import(to, more);
        assert_eq!(exit, code, "{says}: {text}");
        assert!(text.contains(says) && text.contains("nothing was stopped"), "{says}: {text}");
        let changes = there.lock().expect("no panic").changes.clone();
        assert!(changes.is_empty(), "{says}: {changes:?}");
    }

    there.lock().expect("no panic").offsets = json!({ "offsets": ready });
    // What a worker's file of properties says, and a command line must not.
    let properties = broker.data_dir().with_file_name("worker.properties");
    std::fs::write(&properties, format!("name={}\n", d.name())).expect("a file");
    let name = format!("database.dbname=${{file:{}:name}}", properties.display());
    let (exit, text) = import(&rest, &["--set", &name]);
    assert_eq!(exit, 0, "{text}\n{}", broker.log());
    assert!(text.contains("value.converter is the worker's own there"), "{text}");
    let (exit, text) = import(&rest, &[]);
    assert!(exit == 2 && text.contains("is on this node already"), "{text}");
    assert_eq!(there.lock().expect("no panic").changes, ["PUT /connectors/inv/stop"]);
}

/// What a sink would stop at is said when it is made, and when it is validated.
#[test]
fn a_sink_of_changed_records_is_refused_before_it_begins() {
    let Some((a, b)) = Database::create("pg15", "changed_c").zip(Database::create("pg15", "changed_d")) else { return };
    a.pg.run("CREATE TABLE items (id int PRIMARY KEY, name text); INSERT INTO items VALUES (1, 'a')").expect("rows");
    let (broker, rest) = node();
    let mut of = source(&a, "chg");
    let line = |side: &str| format!("org.apache.kafka.connect.transforms.InsertField${side}");
    for (key, value) in [
        ("transforms", "flat,line".to_owned()),
        ("transforms.flat.type", "io.debezium.transforms.ExtractNewRecordState".into()),
        ("transforms.line.type", line("Value")),
        ("transforms.line.static.field", "line".into()),
        ("transforms.line.static.value", "x".into()),
    ] {
        of[key] = json!(value);
    }
    assert_eq!(ask(&rest, "PUT", "/connectors/from/config", Some(&of), "").0, 201);
    let to = sink(&b, "chg", "copy", &[("name", "to")]);
    let (status, answer) = ask(&rest, "PUT", "/connectors/to/config", Some(&to), "");
    let message = answer["message"].as_str().unwrap_or_default();
    assert!(status == 400 && message.contains("CW0699") && message.contains("public.items"), "{status} {answer}");
    assert_eq!(ask(&rest, "GET", "/connectors/to/status", None, "").0, 404);
    let path = "/connector-plugins/io.debezium.connector.jdbc.JdbcSinkConnector/config/validate";
    let (status, answer) = ask(&rest, "PUT", path, Some(&to), "");
    let configs = answer["configs"].as_array().expect("configs");
    let topics = configs.iter().find(|c| c["value"]["name"] == "topics").expect("topics");
    assert_eq!((status, &answer["error_count"]), (200, &json!(1)));
    assert!(topics["value"]["errors"][0].as_str().is_some_and(|e| e.contains("CW0699")), "{topics}");

    // Of the keys alone it is no matter: the sink reads the rows.
    of["transforms.line.type"] = json!(line("Key"));
    let source_of = json!({"topic.prefix": "chk", "slot.name": "chk_slot", "publication.name": "chk_pub"});
    for (key, value) in source_of.as_object().expect("some") {
        of[key.as_str()] = value.clone();
    }
    assert_eq!(ask(&rest, "PUT", "/connectors/keys/config", Some(&of), "").0, 201);
    let to = sink(&b, "chk", "copy", &[("name", "to")]);
    assert_eq!(ask(&rest, "PUT", path, Some(&to), "").1["error_count"], 0);
    // A source that is changed so under a sink is changed, as in Connect; the sink's owner finds it in the node's log.
    assert_eq!(ask(&rest, "PUT", "/connectors/to/config", Some(&to), "").0, 201);
    of["transforms.line.type"] = json!(line("Value"));
    assert_eq!(ask(&rest, "PUT", "/connectors/keys/config", Some(&of), "").0, 200);
    until("the warning", &broker, || {
        let log = broker.log();
        let said = log.lines().find(|l| l.contains("connect.warning")).unwrap_or_default().to_owned();
        said.contains("sink") && said.contains("of pipeline to: ") && said.contains("CW0699")
    });
    assert_eq!(ask(&rest, "DELETE", "/connectors/to", None, "").0, 204);

    // What a list takes, the catalogue says: of a connector that runs as of one that is new.
    for (key, value) in [
        ("table.include.list", "public[.]it.*"),
        ("predicates", "of"),
        ("predicates.of.type", "org.apache.kafka.connect.transforms.predicates.TopicNameMatches"),
        ("predicates.of.pattern", ".*[.]items"),
        ("transforms.line.predicate", "of"),
    ] {
        of[key] = json!(value);
    }
    assert_eq!(ask(&rest, "PUT", "/connectors/keys/config", Some(&of), "").0, 200);
    let (status, answer) = ask(&rest, "PUT", path, Some(&to), "");
    assert!(status == 200 && answer["error_count"] == 1 && answer.to_string().contains("CW0699"), "{answer}");
    let (status, answer) = ask(&rest, "PUT", "/connectors/to/config", Some(&to), "");
    assert!(status == 400 && answer.to_string().contains("CW0699"), "{status} {answer}");
}

/// Topics and offsets of sinks that name them by an expression, and of sources whose transforms name them; small things that tools send.
#[test]
fn topics_are_those_that_a_connector_uses() {
    let Some((a, b)) = Database::create("pg15", "topics_a").zip(Database::create("pg15", "topics_b")) else { return };
    a.pg.run("CREATE TABLE items (id int PRIMARY KEY, name text); INSERT INTO items VALUES (1, 'a')").expect("rows");
    let (broker, rest) = node();
    let post = |name: &str, config: &Value, state: &str| {
        let body = json!({"name": name, "config": config, "initial_state": state});
        ask(&rest, "POST", "/connectors", Some(&body), "")
    };
    let (status, answer) = post("from", &source(&a, "tpc"), "running");
    assert_eq!(status, 201, "{answer}");
    let mut to = sink(&b, "tpc", "copy", &[("topics.regex", "tpc[.]public[.]it.*")]);
    to.as_object_mut().expect("properties").remove("topics");
    assert_eq!(post("to", &to, "Running").0, 201);
    let topics = |name: &str| ask(&rest, "GET", &format!("/connectors/{name}/topics"), None, "").1;
    until("the sink's topic", &broker, || topics("to") == json!({"to": {"topics": ["tpc.public.items"]}}));
    assert_eq!(topics("from"), json!({"from": {"topics": ["tpc.public.items"]}}));
    let offsets = ask(&rest, "GET", "/connectors/to/offsets", None, "").1;
    assert_eq!(
        offsets["offsets"][0]["partition"],
        json!({"kafka_partition": 0, "kafka_topic": "tpc.public.items"}),
        "{offsets}"
    );

    let mut routed = source(&a, "rtd");
    for (key, value) in [
        ("transforms", "r"),
        ("transforms.r.type", "org.apache.kafka.connect.transforms.RegexRouter"),
        ("transforms.r.regex", ".*[.](.*)"),
        ("transforms.r.replacement", "moved-$1"),
    ] {
        routed[key] = json!(value);
    }
    assert_eq!(post("routed", &routed, "RUNNING").0, 201);
    until("the routed topic", &broker, || topics("routed") == json!({"routed": {"topics": ["moved-items"]}}));

    for (method, path, message) in [
        ("GET", "tasks/-1/status", "No status found for task from--1"),
        ("POST", "tasks/-1/restart", "Unknown task: from--1"),
    ] {
        let (status, answer) = ask(&rest, method, &format!("/connectors/from/{path}"), None, "");
        assert_eq!((status, &answer["message"]), (404, &json!(message)));
    }
}
