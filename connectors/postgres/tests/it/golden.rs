//! Our records against those a real Debezium 3.7.0.Final wrote: the recordings' SQL is run on our own server, captured by
//! the real worker into a log in memory, and compared record by record, in order, per topic: keys, values, headers,
//! schemas; field order and number forms included. Times, positions and transaction ids are masked.
//!
//! `tests/golden/debezium.txt`: `#sql NAME` and the scenario's SQL; `#run VARIANT {properties}`, then one line per record
//! (topic, key, value without what is masked, headers), `#schemas` and the fields of each key and row. Where the two
//! differ on purpose stands in [`OURS`], and in `docs/debezium.md` for people; with `compat.defects` nothing may.

use crate::support::*;
use catchwater_capture::TableLists;
use catchwater_capture::properties::Properties;
use catchwater_capture::shape::shaped;
use catchwater_capture::worker as capture;
use catchwater_client::ControlClient;
use catchwater_client::memory::MemoryCluster;
use catchwater_connector_postgres::{PgSource, TableRef};
use catchwater_record::batch::{BatchView, iterate};
use catchwater_record::{Caller, CaptureEpoch, Incarnation, NodeId, RevisionNo, TopicPartition};
use catchwater_runtime::shutdown;
use catchwater_runtime::time::SystemClock;
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const RECORDED: &str = include_str!("../golden/debezium.txt");
pub const MARKER: &str = "zz_marker";

#[derive(Clone, Debug, PartialEq)]
struct Record {
    key: String,
    value: String,
    headers: Vec<String>,
}

#[derive(Clone, Debug, Default)]
struct Run {
    name: String,
    properties: BTreeMap<String, String>,
    records: BTreeMap<String, Vec<Record>>,
    /// Name of a key or envelope → fields, in the order they came.
    schemas: Vec<(String, String)>,
}

pub struct Scenario {
    setup: String,
    changes: Vec<String>,
    runs: Vec<Run>,
}

impl Scenario {
    /// `-- @setup`, then parts that begin with `-- @changes`.
    pub fn parse(sql: &str) -> Scenario {
        let (_, sql) = sql.split_once("-- @setup").unwrap();
        let mut sql = sql.split("-- @changes");
        let setup = sql.next().unwrap().to_owned();
        Scenario { setup, changes: sql.map(str::to_owned).collect(), runs: Vec::new() }
    }
}

fn scenarios() -> BTreeMap<String, Scenario> {
    let mut out = BTreeMap::new();
    for part in RECORDED.split("#sql ").skip(1) {
        let (name, rest) = part.split_once('\n').unwrap();
        let mut pieces = rest.split("\n#run ");
        let sql = pieces.next().unwrap();
        let runs = pieces.map(run).collect();
        out.insert(name.to_owned(), Scenario { runs, ..Scenario::parse(sql) });
    }
    out
}

fn run(text: &str) -> Run {
    let mut lines = text.lines();
    let (name, config) = lines.next().unwrap().split_once(' ').unwrap();
    let mut out = Run { name: name.into(), properties: serde_json::from_str(config).unwrap(), ..Run::default() };
    let mut schemas = false;
    for line in lines {
        if line == "#schemas" {
            schemas = true;
            continue;
        }
        let f: Vec<&str> = line.split('\t').collect();
        if schemas {
            out.schemas.push((f[0].into(), canonical(f[1])));
            continue;
        }
        let headers = f[3].split(' ').filter(|h| !h.is_empty()).map(str::to_owned).collect();
        let record = Record { key: canonical(f[1]), value: canonical(f[2]), headers };
        out.records.entry(f[0].into()).or_default().push(record);
    }
    out
}

/// The same JSON in one spelling; order of fields stays.
fn canonical(text: &str) -> String {
    serde_json::from_str::<Json>(text).unwrap().to_string()
}

/// What the recordings leave out, left out of ours.
fn masked(value: Json) -> Json {
    let Json::Object(mut value) = value else { return value };
    if let Some(source) = value.get("source").cloned() {
        let text = |k: &str| source.get(k).and_then(Json::as_str).unwrap_or_default().to_owned();
        // Null where nothing puts the schema's default, which is "false".
        let is_stream = source["snapshot"].is_null() || text("snapshot") == "false";
        let snapshot = if is_stream { "false" } else { "true" };
        // Every record but those of an incremental snapshot says where it is of.
        assert!(snapshot == "false" || text("snapshot") == "incremental" || source["lsn"].is_u64(), "{source}");
        assert!(snapshot == "false" || text("snapshot") == "incremental" || source["txId"].is_u64(), "{source}");
        let source = serde_json::json!({"snapshot": snapshot, "schema": text("schema"), "table": text("table")});
        value.insert("source".into(), source);
        if let Some(Json::Object(block)) = value.get_mut("transaction") {
            block.shift_remove("id");
        }
        for k in ["ts_ms", "ts_us", "ts_ns"] {
            value.shift_remove(k);
        }
    } else if value.contains_key("status") {
        value.shift_remove("ts_ms");
        value.shift_remove("id");
    }
    Json::Object(value)
}

/// How our records are made.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Setting {
    schemas: bool,
    /// `compat.defects`: nothing may differ.
    defects: bool,
}

/// Properties of the recording's converters and names that mean nothing to us.
fn properties(run: &Run, setting: Setting) -> Properties {
    let mut given = run.properties.clone();
    // Debezium's defaults where ours are others.
    given.entry("include.unknown.datatypes".into()).or_insert("false".into());
    given.entry("extended.headers.enabled".into()).or_insert("true".into());
    given.entry("skipped.operations".into()).or_insert("t".into());
    given.insert("schemas.enable".into(), setting.schemas.to_string());
    given.insert("compat.defects".into(), setting.defects.to_string());
    let mut out = Properties::parse(given.iter().map(|(k, v)| (k.as_str(), v.as_str()))).unwrap();
    // The recordings have placeholders where ours have the values.
    out.options.fill_unchanged = false;
    out.rules.tell(&mut out.options);
    out
}

/// The first server that has the scenario's extensions. PostGIS and pgvector are not brought by PostgreSQL itself.
async fn server_for(scenario: &Scenario) -> Option<String> {
    let wanted: Vec<&str> = scenario.setup.split("CREATE EXTENSION ").skip(1).map(word).collect();
    for server in servers() {
        let client = connect(&server).await;
        let sql = "SELECT count(*) FROM pg_available_extensions WHERE name = ANY($1)";
        let count: i64 = client.query_one(sql, &[&wanted]).await.unwrap().get(0);
        if count == wanted.len() as i64 {
            return Some(server);
        }
    }
    None
}

fn word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap()
}

/// Captures a scenario; records by topic in order, and the schemas that came with them.
async fn captured(server: &str, scenario: &Scenario, run: &Run, setting: Setting) -> Run {
    let Setting { schemas, defects } = setting;
    let letter = |v: bool| if v { 'y' } else { 'n' };
    let name = format!("golden_{}_{}{}", run.name.replace('-', "_"), letter(schemas), letter(defects));
    let cluster = capture_sql(server, &name, &run.name, scenario, properties(run, setting), defects).await;
    let mut out = read(&cluster);
    out.records.retain(|topic, _| !topic.ends_with(MARKER));
    if let Some(ends) = out.records.get_mut("pg.transaction") {
        assert!(ends.last().is_some_and(|r| r.value.contains(MARKER)));
        ends.truncate(ends.len() - 2);
        // One id for a transaction, or one for its beginning and another for its end.
        let ids: BTreeSet<&str> = ends.iter().map(|r| r.key.as_str()).collect();
        assert_eq!(ids.len(), if defects { ends.len() } else { ends.len() / 2 }, "{ends:?}");
    }
    out.schemas.retain(|(name, _)| !name.contains(MARKER));
    out
}

/// Runs a scenario's SQL on a database of its own while it is captured; the log then, the marker's record behind all others.
pub async fn capture_sql(
    server: &str,
    name: &str,
    run: &str,
    scenario: &Scenario,
    properties: Properties,
    defects: bool,
) -> MemoryCluster {
    capture_until(server, name, run, scenario, properties, defects, None).await
}

/// As [`capture_sql`]; `until` = so many records and no more, where a table of ours would be an outbox, too.
pub async fn capture_until(
    server: &str,
    name: &str,
    run: &str,
    scenario: &Scenario,
    properties: Properties,
    defects: bool,
    until: Option<usize>,
) -> MemoryCluster {
    let db = database_on(server, name).await;
    db.exec(&scenario.setup).await;
    if until.is_none() {
        db.exec(&format!("CREATE TABLE {MARKER}(id int PRIMARY KEY)")).await;
    }
    let leaves = properties.reading.leaves;
    let tables = db
        .client
        .query(
            "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE (c.relkind = 'r' OR c.relkind = 'p' AND ($1 OR NOT $2)) AND ($1 OR $2 OR NOT c.relispartition) \
               AND n.nspname IN ('public', 'other', 'Sch-ema 1') \
               AND ($1 OR c.relreplident IN ('f', 'i') OR c.relreplident = 'd' AND EXISTS \
                 (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary))",
            &[&defects, &leaves],
        )
        .await
        .unwrap();
    let mut source = db.config(&[]);
    source.tables = tables.iter().map(|r| TableRef { schema: r.get(0), name: r.get(1) }).collect();
    source.without_identity = defects;
    // As Debezium's own publication: what is made later is captured.
    if defects && scenario.changes.iter().any(|sql| sql.to_lowercase().contains("create table")) {
        let with = "publish = 'insert, update, delete, truncate', publish_via_partition_root = true";
        db.exec(&format!("CREATE PUBLICATION every FOR ALL TABLES WITH ({with})")).await;
        let all = ["/(public|other)[.].*/".to_owned()];
        (source.tables, source.lists) = (Vec::new(), TableLists::parse(&all).unwrap().1);
        source.publication = Some("every".into());
    }
    (source.reading, source.leaves) = (properties.reading.clone(), defects);
    let cluster = MemoryCluster::new(7);
    let who = Caller::node(NodeId(1));
    let (id, _) = cluster.client().source(&who, "pg".into()).await.unwrap();
    let client = cluster.client();
    let rules = properties.rules.clone();
    let deps = capture::Deps {
        log: client.clone(),
        control: client,
        clock: Arc::new(SystemClock::default()),
        make_source: Box::new(move || shaped(Box::new(PgSource::new(source.clone())), &rules)),
        seed: 1,
    };
    let config = capture::Config {
        source: "pg".into(),
        capture: id,
        incarnation: Incarnation(0),
        epoch: CaptureEpoch(1),
        who,
        connector: "postgresql",
        prefix: "pg".into(),
        pipeline: "p".into(),
        revision: RevisionNo(1),
        canonical: "{}".into(),
        partitions: 1,
        snapshot: catchwater_capture::SnapshotMode::Initial,
        snapshot_tables: None,
        options: properties.options,
        transaction_topic: properties.transaction_topic,
        heartbeat: properties.heartbeat,
        signals: properties.signals,
        notifications: Default::default(),
        creation: Default::default(),
        limits: capture::Limits { checkpoint_every_ms: 50, ..capture::Limits::default() },
    };
    let (worker, status) = capture::Worker::new(deps, config);
    let (stop, stopped) = shutdown::channel();
    let task = tokio::spawn(async move { worker.run(stopped).await });
    let streaming = async {
        while status.get().state != catchwater_capture::State::Streaming {
            assert!(!task.is_finished(), "{run}: the capture ended: {:?}", status.get());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT * 4, streaming).await.expect("the snapshot ends in time");
    for part in &scenario.changes {
        // Statements sent together are one transaction, and a message of none stands before it: they were recorded alone.
        let alone = matches!(run, "message" | "transaction");
        let each = run.starts_with("unwrap-") || run.starts_with("routed-") || until.is_some();
        for some in part.split(|c| alone && c == '\n' || each && c == ';') {
            db.exec(some).await;
        }
    }
    if let Some(count) = until {
        let records = || {
            let topics = cluster.topics().into_iter().filter(|(t, ..)| !t.as_str().starts_with("__catchwater"));
            let batches = topics.flat_map(|(_, id, _)| cluster.batches(TopicPartition::new(id, 0)));
            batches.map(|(_, b)| BatchView::new(&b).unwrap().records_count() as usize).sum::<usize>()
        };
        let begun = std::time::Instant::now();
        while records() < count && begun.elapsed() < LIMIT {
            assert!(!task.is_finished(), "{run}: the capture ended: {:?}", status.get().last_error);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        stop.stop();
        task.await.unwrap();
        db.drop().await;
        return cluster;
    }
    db.exec(&format!("INSERT INTO {MARKER} VALUES (1)")).await;
    let marked = async {
        let has_rows = |id| !cluster.batches(TopicPartition::new(id, 0)).is_empty();
        while cluster.topics().into_iter().all(|(t, id, _)| !t.as_str().ends_with(MARKER) || !has_rows(id)) {
            assert!(!task.is_finished(), "{run}: the capture ended: {:?}", status.get());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT * 4, marked).await.expect("the changes come in time");
    stop.stop();
    task.await.unwrap();
    db.drop().await;
    cluster
}

fn read(cluster: &MemoryCluster) -> Run {
    let mut out = Run::default();
    for (topic, id, _) in cluster.topics() {
        if topic.as_str().starts_with("__") {
            continue;
        }
        for (_, batch) in cluster.batches(TopicPartition::new(id, 0)) {
            let view = BatchView::new(&batch).unwrap();
            for record in iterate::records(view.records(), view.records_count() as u32) {
                let record = record.unwrap();
                let headers = record.headers().map(|(k, v)| {
                    let (k, v) =
                        (String::from_utf8_lossy(k).into_owned(), v.map(String::from_utf8_lossy).unwrap_or_default());
                    if k.contains("key") { format!("{k}={v}") } else { k }
                });
                let headers = headers.filter(|h| !h.starts_with("cw.")).collect();
                let mut part = |bytes: Option<&[u8]>| {
                    let Some(bytes) = bytes else { return Json::Null };
                    let mut json: Json = serde_json::from_slice(bytes).unwrap();
                    if let Json::Object(both) = &mut json
                        && both.len() == 2
                        && let (Some(schema), Some(payload)) = (both.get("schema"), both.get("payload"))
                    {
                        let name = schema["name"].as_str().unwrap().to_owned();
                        let fields = schema["fields"].as_array().unwrap();
                        let after = fields.iter().find(|f| f["field"] == "after");
                        let fields = after.map_or(&schema["fields"], |f| &f["fields"]).to_string();
                        if !out.schemas.contains(&(name.clone(), fields.clone())) {
                            out.schemas.push((name, fields));
                        }
                        return payload.clone();
                    }
                    json
                };
                let key = part(record.key).to_string();
                let value = masked(part(record.value)).to_string();
                out.records.entry(topic.to_string()).or_default().push(Record { key, value, headers });
            }
        }
    }
    out
}

/// Runs that ask for what we do not serve (see `docs/debezium.md`), and heartbeats, whose number depends on time.
const NOT_SERVED: &[&str] = &["columns-unknown", "heartbeat"];

/// Differences on purpose: run (a prefix), topic, field. Each must occur; each is a row of `docs/debezium.md`.
const OURS: &[(&str, &str, &str)] = &[
    // A NULL stays NULL: JsonConverter's default makes it the column's default, and 0 in a delete's `before`.
    ("default", "pg.public.types", "after.d_ts"),
    ("default", "pg.public.types", "after.d_numeric"),
    ("default", "pg.public.types", "after.d_bool"),
    ("default", "pg.public.types", "after.d_date"),
    ("default", "pg.public.types", "before.*"),
    ("schema-change", "pg.public.t", "before.*"),
    // A `name` is null in the stream.
    ("default", "pg.public.types", "after.c_name"),
    ("nulls-", "pg.public.t", "after.n"),
    // Nested arrays are [null, null].
    ("default", "pg.public.types", "after.a_int_2d"),
    // A generated column is in the snapshot alone.
    ("default", "pg.public.types", "after.g_stored"),
    ("default", "pg.public.types", "schema.g_stored"),
    ("names-", "pg.Sch-ema_1.t.x_y", "before.*"),
    // NaN and infinities become null.
    ("decimal-special-precise", "pg.public.dec", "after.n*"),
    // Infinite dates are wrong numbers, infinite ISO timestamps a far year, 24:00 is midnight; nanoseconds end in 2262;
    // times inside arrays lose their microseconds.
    ("time-special", "pg.public.tim", "after.d"),
    ("time-isostring", "pg.public.tim", "after.ts*"),
    ("time-isostring", "pg.public.tim", "after.t*"),
    ("time-nanoseconds", "pg.public.tim", "after.ts*"),
    ("time-", "pg.public.tim", "after.at"),
    // The placeholder as numbers, as another uuid.
    ("toast-", "pg.public.toast", "after.a*"),
    // The key of an index identity is that index's columns, so that a delete has one.
    ("identity", "pg.public.id_index", "*"),
    // UPDATE and DELETE of the application would fail: refused at the start (CW0512).
    ("identity", "pg.public.id_nothing", "*"),
    // A tombstone without a key.
    ("keys", "pg.public.nokey", "missing"),
    // The rows of a leaf come once, under the root, or under the leaf.
    ("partitioned-root", "pg.public.p_2025", "*"),
    ("partitioned-leaves", "pg.public.p", "*"),
    // Tables made later are captured when the publication has them.
    ("schema-change", "pg.public.later", "*"),
    ("transaction", "pg.public.c", "*"),
    ("transaction", "pg.transaction", "missing"),
    // Arrays of bits, boxes, ltrees and vectors, and of enums with a NULL among them, are null; int2vector and oidvector are
    // empty lists; nested arrays are [null]; arrays of domains are not known.
    ("extensions-", "pg.public.ext", "after.bit_a"),
    ("extensions-", "pg.public.ext", "schema.bit_a"),
    ("extensions-", "pg.public.ext", "after.bx_a"),
    ("extensions-", "pg.public.ext", "after.lt_a"),
    ("extensions-", "pg.public.ext", "after.iv2"),
    ("extensions-", "pg.public.ext", "schema.iv2"),
    ("extensions-", "pg.public.ext", "after.ov"),
    ("extensions-", "pg.public.ext", "schema.ov"),
    ("extensions-", "pg.public.ext", "after.pos_a"),
    ("extensions-", "pg.public.ext", "schema.pos_a"),
    ("extensions-", "pg.public.ext", "before.*"),
    ("postgis", "pg.public.spots", "after.g_a"),
    ("postgis", "pg.public.spots", "before.*"),
    ("vectors", "pg.public.vec", "after.v_a"),
    ("vectors", "pg.public.vec", "after.sv_a"),
    // Times in arrays lose their microseconds; the placeholder in arrays is null.
    ("extensions-", "pg.public.ext", "after.t_a"),
    ("extensions-", "pg.public.ext", "after.h_a"),
    ("extensions-", "pg.public.ext", "after.ttz_a"),
    // A NULL stays NULL, an expression is no default; keys are those that the table has; intervals are exact.
    ("defaults", "pg.public.d_int", "after.*"),
    ("defaults", "pg.public.d_int", "before.*"),
    ("defaults", "pg.public.d_int", "schema.*"),
    ("defaults", "pg.public.d_big", "after.*"),
    ("defaults", "pg.public.d_big", "before.*"),
    ("defaults", "pg.public.d_big", "schema.*"),
    ("defaults", "pg.public.d_num", "after.*"),
    ("defaults", "pg.public.d_num", "before.*"),
    ("defaults", "pg.public.d_num", "schema.*"),
    ("defaults", "pg.public.d_text", "after.*"),
    ("defaults", "pg.public.d_text", "before.*"),
    ("defaults", "pg.public.d_text", "schema.*"),
    ("defaults", "pg.public.d_time", "after.*"),
    ("defaults", "pg.public.d_time", "before.*"),
    ("defaults", "pg.public.d_time", "schema.*"),
    ("defaults", "pg.public.d_ts", "after.*"),
    ("defaults", "pg.public.d_ts", "before.*"),
    ("defaults", "pg.public.d_ts", "schema.*"),
    ("defaults", "pg.public.d_misc", "after.*"),
    ("defaults", "pg.public.d_misc", "before.*"),
    ("defaults", "pg.public.d_misc", "schema.*"),
    ("defaults", "pg.public.d_gen", "after.*"),
    ("defaults", "pg.public.d_gen", "schema.*"),
    ("unique-keys", "pg.public.k1", "*"),
    ("unique-keys", "pg.public.k2", "*"),
    ("unique-keys", "pg.public.k3", "*"),
    ("unique-keys", "pg.public.k4", "*"),
    ("unique-keys", "pg.public.k5", "*"),
    ("unique-keys", "pg.public.k6", "*"),
    ("unique-keys", "pg.public.k7", "*"),
    ("unique-keys", "pg.public.k8", "*"),
    ("unique-keys", "pg.public.k9", "*"),
    ("values", "pg.public.iv", "*"),
    ("values", "pg.public.vb", "*"),
    ("values", "pg.public.nn", "*"),
    ("values", "pg.public.nul", "*"),
];

/// As [`OURS`], but it depends on the moment: nullability is the catalogue's, which both read when a shape is new.
const AT_TIMES: &[(&str, &str, &str)] = &[
    ("schema-change", "pg.public.t", "schema.n"),
    ("schema-change", "pg.public.t", "after.n"),
    // In both settings: a numeric that says nothing of its digits is described in two ways, one in the snapshot; a domain
    // over a type that is known by its name alone is that type here.
    ("propagate-", "pg.public.t", "schema.n"),
    ("propagate-", "pg.public.t", "schema.dinet"),
];

fn fits(pattern: &str, text: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(head) => text.starts_with(head),
        None => pattern == text,
    }
}

/// `[Ljava.lang.String;@5ab976fe` without what is behind the `@`.
fn without_addresses(text: &str) -> String {
    let mut parts = text.split(";@");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(";@");
        out.push_str(part.trim_start_matches(|c: char| c.is_ascii_hexdigit()));
    }
    out
}

/// The key of a transaction's record without the numbers of its id.
fn without_places(key: &str) -> String {
    let numbers = |c: char| c.is_ascii_digit() || c == ':';
    match key.strip_prefix("{\"id\":\"").and_then(|k| k.strip_suffix("\"}")) {
        Some(id) if id.contains(':') && id.chars().all(numbers) => "txId:lsn".into(),
        _ => key.to_owned(),
    }
}

/// What differs between two records, by field.
fn differences(theirs: Option<&Record>, ours: Option<&Record>) -> Vec<(String, String)> {
    let (theirs, ours) = match (theirs, ours) {
        (Some(t), Some(o)) => (t, o),
        (Some(t), None) => return vec![("missing".into(), format!("{t:?}"))],
        (None, o) => return vec![("extra".into(), format!("{o:?}"))],
    };
    let mut out = Vec::new();
    let mut unequal = |what: String, t: String, o: String| {
        // What an object's default text ends with is another number in each run.
        if t != o && without_addresses(&t) != without_addresses(&o) {
            out.push((what, format!("theirs {t}, ours {o}")));
        }
    };
    unequal("key".into(), without_places(&theirs.key), without_places(&ours.key));
    unequal("headers".into(), theirs.headers.join(" "), ours.headers.join(" "));
    let value = |r: &Record| serde_json::from_str::<Json>(&r.value).unwrap();
    let (Json::Object(mut t), Json::Object(mut o)) = (value(theirs), value(ours)) else {
        unequal("value".into(), theirs.value.clone(), ours.value.clone());
        return out;
    };
    for image in ["before", "after"] {
        let (Some(Json::Object(t)), Some(Json::Object(o))) = (t.get_mut(image), o.get_mut(image)) else { continue };
        let names: Vec<String> = t.keys().chain(o.keys()).cloned().collect();
        for name in names {
            let (x, y) = (t.get(&name).cloned(), o.get(&name).cloned());
            if x != y {
                t.shift_remove(&name);
                o.shift_remove(&name);
                let text = |v: Option<Json>| v.map_or("nothing".into(), |v| v.to_string());
                unequal(format!("{image}.{name}"), text(x), text(y));
            }
        }
    }
    // Order of fields, and all the rest.
    unequal("value".into(), Json::Object(t).to_string(), Json::Object(o).to_string());
    out
}

/// Whether `field` of record `at` has the value of the row's record before it at one of the two, and is missing (null, or
/// the placeholder) at the other. Which columns of a row of many are moved out of it, and so are not sent when an update
/// leaves them alone, depends on how well each compresses, and an array holds the OID of its items' type.
fn sent_by_one_server(theirs: &[Record], ours: &[Record], at: usize, field: &str) -> bool {
    let Some(column) = field.strip_prefix("after.") else { return false };
    let value = |r: &Record| serde_json::from_str::<Json>(&r.value).unwrap()["after"][column].clone();
    let is_missing = |v: &Json| v.is_null() || v.to_string().contains("__debezium_unavailable_value");
    let is_unchanged = |of: &[Record]| {
        of[..at].iter().rfind(|r| r.key == of[at].key).is_some_and(|before| value(before) == value(&of[at]))
    };
    let (their_value, our_value) = (value(&theirs[at]), value(&ours[at]));
    is_missing(&their_value) && is_unchanged(ours) || is_missing(&our_value) && is_unchanged(theirs)
}

/// As above for the fields of a key or a row.
fn schema_differences(theirs: &str, ours: Option<&String>) -> Vec<(String, String)> {
    let Some(ours) = ours else { return vec![("schema".into(), "ours has none".into())] };
    let list = |text: &str| serde_json::from_str::<Vec<Json>>(text).unwrap();
    let (t, o) = (list(theirs), list(ours));
    let name = |f: &Json| f["field"].as_str().unwrap_or_default().to_owned();
    let names: BTreeSet<String> = t.iter().chain(&o).map(name).collect();
    let mut out = Vec::new();
    for n in names {
        let find = |l: &[Json]| l.iter().find(|f| name(f) == n).map(ToString::to_string).unwrap_or_default();
        if find(&t) != find(&o) {
            out.push((format!("schema.{n}"), format!("theirs {}, ours {}", find(&t), find(&o))));
        }
    }
    out
}

/// Columns that were not sent are null in the bare form, and something that their schema has room for in the other.
fn with_deletes_unknown(mut records: BTreeMap<String, Vec<Record>>) -> BTreeMap<String, Vec<Record>> {
    for record in records.values_mut().flatten() {
        let Ok(mut value) = serde_json::from_str::<Json>(&record.value) else { continue };
        if value["op"] == "d" {
            value["before"] = Json::Null;
            record.value = value.to_string();
        }
    }
    records
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn our_records_are_debeziums() {
    if std::env::var("CW_PG15_URL").is_err() {
        eprintln!("SKIP db pg15: CW_PG15_URL is not set (golden)");
        return;
    }
    let only = std::env::var("CW_GOLDEN").unwrap_or_default();
    let room = Arc::new(tokio::sync::Semaphore::new(6));
    let mut tasks = tokio::task::JoinSet::new();
    let mut met = vec![false; OURS.len()];
    for scenario in scenarios().into_values().map(Arc::new) {
        let Some(server) = server_for(&scenario).await else {
            let names: Vec<&str> = scenario.runs.iter().map(|r| r.name.as_str()).collect();
            let why = format!("golden {names:?}: no server has their extension");
            eprintln!("SKIP {why}");
            // The check's summary counts them.
            if let Some(path) = std::env::var_os("CW_SKIP_FILE") {
                let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
                std::io::Write::write_all(&mut file.unwrap(), format!("{why}\n").as_bytes()).unwrap();
            }
            for (at, (run, ..)) in OURS.iter().enumerate() {
                met[at] |= names.iter().any(|n| n.starts_with(run));
            }
            continue;
        };
        for run in scenario.runs.clone() {
            if !run.name.starts_with(&only) || NOT_SERVED.contains(&run.name.as_str()) {
                continue;
            }
            for defects in [false, true] {
                let (scenario, room, server, run) = (scenario.clone(), room.clone(), server.clone(), run.clone());
                tasks.spawn(async move {
                    let _place = room.acquire().await.unwrap();
                    let made = captured(&server, &scenario, &run, Setting { schemas: true, defects }).await;
                    // The bare form is the payload of the other, but for what a delete does not know: looked at once.
                    if run.name == "default" {
                        let bare =
                            captured(&server, &scenario, &run, Setting { schemas: false, defects }).await.records;
                        let known = |r: BTreeMap<_, _>| if defects { r } else { with_deletes_unknown(r) };
                        assert_eq!(known(bare), known(made.records.clone()));
                    }
                    (run, made, defects)
                });
            }
        }
    }
    let (mut report, mut compared) = (Vec::new(), 0);
    while let Some(done) = tasks.join_next().await {
        let (run, made, defects) = done.unwrap();
        let mut judge = |topic: &str, place: String, found: Vec<(String, String)>| {
            for (field, what) in found {
                let fits = |(r, t, f): &(&str, &str, &str)| run.name.starts_with(r) && *t == topic && fits(f, &field);
                if AT_TIMES.iter().any(fits) {
                    continue;
                }
                match OURS.iter().position(fits) {
                    Some(at) if !defects => met[at] = true,
                    _ => {
                        let setting = if defects { "with defects" } else { "right" };
                        report.push(format!("{} {setting} {topic} {place} {field}: {what}", run.name));
                    }
                }
            }
        };
        for topic in run.records.keys().chain(made.records.keys()).collect::<BTreeSet<_>>() {
            let none = Vec::new();
            let (theirs, ours) = (run.records.get(topic).unwrap_or(&none), made.records.get(topic).unwrap_or(&none));
            compared += theirs.len();
            for i in 0..theirs.len().max(ours.len()) {
                let mut found = differences(theirs.get(i), ours.get(i));
                if run.name.starts_with("extensions-") {
                    found.retain(|(field, _)| !sent_by_one_server(theirs, ours, i, field));
                }
                judge(topic, i.to_string(), found);
            }
        }
        // A shape that both have, or else the nearest of its name.
        for (name, fields) in &run.schemas {
            if made.schemas.iter().any(|(n, f)| n == name && f == fields) {
                continue;
            }
            let near = made.schemas.iter().filter(|(n, _)| n == name).map(|(_, f)| f);
            let near = near.min_by_key(|f| schema_differences(fields, Some(f)).len());
            let topic = name.rsplit_once('.').map_or(name.as_str(), |(t, _)| t);
            judge(topic, "schema".into(), schema_differences(fields, near));
        }
    }
    report.sort();
    assert!(report.is_empty(), "{} differences in {compared} records:\n{}", report.len(), report.join("\n"));
    if only.is_empty() {
        let unmet: Vec<_> = OURS.iter().zip(met).filter(|(_, met)| !met).map(|(o, _)| o).collect();
        assert!(unmet.is_empty(), "differences that are none any more: {unmet:?}");
        assert!(compared > 250, "{compared} records");
    }
}
