//! The sink: the contract's conformance suite, both write plans, and every type from a source to a sink.

use crate::support::*;
use catchwater_base::Wall;
use catchwater_capture::source::Source;
use catchwater_change::{Cell, Native, Row, RowChange, Stamp, TableSchema, Value, Version};
use catchwater_connector_postgres::types::send;
use catchwater_connector_postgres::{ConnectConfig, PgSink, SinkConfig};
use catchwater_deliver::conformance::{self, Probe};
use catchwater_deliver::sink::*;
use catchwater_record::{CaptureId, CommitSeq, Incarnation};
use catchwater_runtime::Fut;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_postgres::Client;

struct PgProbe {
    url: String,
    client: Client,
}

fn sink_on(url: &str) -> PgSink {
    PgSink::new(SinkConfig::new(ConnectConfig::parse(url).unwrap()))
}

fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Probe for PgProbe {
    fn sink(&mut self) -> Box<dyn Sink> {
        Box::new(sink_on(&self.url))
    }
    fn name(&self, table: &str) -> TargetName {
        TargetName { schema: "suite \"x".into(), name: table.into() }
    }
    fn rows<'a>(&'a mut self, table: &'a TargetName, columns: &'a [String]) -> Fut<'a, Vec<Vec<Option<String>>>> {
        Box::pin(async move {
            let list: Vec<String> = columns
                .iter()
                .map(|c| {
                    let c = ident(c);
                    format!("CASE pg_typeof({c}) WHEN 'bytea'::regtype THEN encode({c}::text::bytea, 'hex') ELSE {c}::text END")
                })
                .collect();
            let sql = format!("SELECT {} FROM {}.{}", list.join(", "), ident(&table.schema), ident(&table.name));
            let rows = self.client.query(&sql, &[]).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
            let mut out: Vec<Vec<Option<String>>> =
                rows.iter().map(|r| (0..columns.len()).map(|i| r.get(i)).collect()).collect();
            out.sort();
            out
        })
    }
    fn sql<'a>(&'a mut self, statements: &'a str) -> Fut<'a, Option<Result<(), String>>> {
        // Several statements of one message are one transaction.
        Box::pin(async move { Some(self.client.batch_execute(statements).await.map_err(|e| format!("{e:?}"))) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sink_passes_the_conformance_suite() {
    for server in servers() {
        let db = database_on(&server, "conformance").await;
        let mut probe = PgProbe { url: db.url.clone(), client: connect(&db.url).await };
        conformance::run(&mut probe).await;
        db.drop().await;
    }
    if servers().is_empty() {
        eprintln!("SKIP db pg15: CW_PG15_URL is not set (conformance)");
    }
}

pub fn claim(fence: i64) -> Claim {
    Claim {
        pipeline: "p".into(),
        sink: "s".into(),
        source: "src".into(),
        cluster: [7; 16],
        fence,
        incarnation: Incarnation(0),
    }
}

pub fn mark(seq: u64) -> Mark {
    Mark {
        incarnation: Incarnation(0),
        seq: CommitSeq(seq),
        offsets: vec![],
        native: Native::postgres(seq),
        commit_time: Wall::from_micros(seq as i64),
    }
}

pub fn plan(source: &Arc<TableSchema>, schema: &str) -> Arc<TargetPlan> {
    let columns = source.columns.iter().enumerate().map(|(i, c)| (i as u16, c.name.clone())).collect();
    let target = TargetName { schema: schema.into(), name: source.name.clone() };
    Arc::new(TargetPlan { source: source.clone(), target, columns, key: source.key.clone(), meets: Default::default() })
}

/// What a refusal for want of rights says to do is enough, however little the sink's user may.
#[tokio::test(flavor = "multi_thread")]
async fn the_sql_of_a_refusal_lets_a_user_without_rights_on_the_database_in() {
    let Some(server) = servers().into_iter().next() else {
        eprintln!("SKIP db pg15: CW_PG15_URL is not set (rights of a sink)");
        return;
    };
    let db = database_on(&server, "sink_rights").await;
    let admin = connect(&db.url).await;
    let user = format!("{}_writer", db.name);
    admin.batch_execute(&format!("CREATE ROLE {user} LOGIN")).await.unwrap();
    let url = format!("postgres://{user}@{}", db.url.split_once('@').unwrap().1);
    let refused = sink_on(&url).open(claim(1)).await.unwrap_err();
    assert_eq!(refused.code.to_string(), "CW0611");
    assert_eq!(sink_on(&url).preflight().await.unwrap_err().next, refused.next);
    let sql = refused.next.strip_prefix("as a superuser: ").unwrap().split_once(';').unwrap().0;
    assert_eq!(sql, format!("CREATE SCHEMA \"catchwater\" AUTHORIZATION \"{user}\""));
    // Somebody else has made the schema.
    admin.batch_execute("CREATE SCHEMA catchwater").await.unwrap();
    let refused = sink_on(&url).open(claim(2)).await.unwrap_err();
    assert_eq!(sink_on(&url).preflight().await.unwrap_err().next, refused.next);
    let grant = refused.next.strip_prefix("as a superuser: ").unwrap().split_once(';').unwrap().0;
    assert_eq!(grant, format!("GRANT USAGE, CREATE ON SCHEMA \"catchwater\" TO \"{user}\""));
    admin.batch_execute(grant).await.unwrap();
    sink_on(&url).open(claim(3)).await.unwrap();
    admin.batch_execute("DROP SCHEMA catchwater CASCADE").await.unwrap();
    admin.batch_execute(sql).await.unwrap();
    sink_on(&url).preflight().await.unwrap();
    let mut sink = sink_on(&url);
    sink.open(claim(4)).await.unwrap();
    // A table with row-level security: what a policy hides would be deleted without being there.
    let sql = "CREATE TABLE hidden (id int PRIMARY KEY); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY; GRANT ALL ON hidden TO";
    admin.batch_execute(&format!("{sql} {user}")).await.unwrap();
    let hidden = TargetName { schema: "public".into(), name: "hidden".into() };
    let refused = sink.describe(std::slice::from_ref(&hidden)).await.unwrap_err();
    assert_eq!((refused.code.to_string().as_str(), refused.class), ("CW0611", SinkClass::Config));
    let sql = refused.next.strip_prefix("as a superuser: ").unwrap().split_once(';').unwrap().0;
    admin.batch_execute(sql).await.unwrap();
    assert!(sink.describe(&[hidden]).await.unwrap()[0].is_some());
    admin.batch_execute(&format!("DROP OWNED BY {user} CASCADE; DROP ROLE {user}")).await.unwrap();
    db.drop().await;
}

fn group(seq: u64, applies: Vec<(&Arc<TargetPlan>, What)>, source_order: bool) -> Group {
    let version = |i| Version { incarnation: Incarnation(0), commit_seq: CommitSeq(seq), ordinal: i };
    let applies = applies
        .into_iter()
        .zip(0..)
        .map(|((plan, what), i)| Apply { table: plan.clone(), what, version: version(i) })
        .collect();
    Group { first_seq: CommitSeq(seq), last_seq: CommitSeq(seq), applies, source_order, ..Group::default() }
}

fn int_cell(v: i64) -> Cell {
    Cell::Value(Value::Int(v))
}
fn text_cell(v: &str) -> Cell {
    Cell::Value(Value::Text(v.into()))
}
fn row(cells: Vec<Cell>) -> Row {
    Row::new(cells)
}

/// Plans of tables that exist in the database, made from its own catalogue.
async fn plans(db: &Db, tables: &[&str]) -> BTreeMap<String, Arc<TargetPlan>> {
    let (mut source, opened) = db.open(tables).await;
    source.close().await;
    opened.tables.iter().map(|t| (t.name.clone(), plan(t, &t.schema))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn constraints_hold_in_both_plans_and_bad_rows_are_named_without_their_values() {
    let Some(db) = database("constraints").await else { return };
    db.exec(
        "CREATE TABLE parent(id int PRIMARY KEY, u int UNIQUE);
         CREATE TABLE child(id int PRIMARY KEY, p int NOT NULL REFERENCES parent);
         CREATE TABLE short(id int PRIMARY KEY, v varchar(3), g int GENERATED ALWAYS AS IDENTITY)",
    )
    .await;
    let plans = plans(&db, &["parent", "child", "short"]).await;
    let (parent, child, short) = (&plans["parent"], &plans["child"], &plans["short"]);
    let mut sink = sink_on(&db.url);
    sink.open(claim(1)).await.unwrap();
    let mut lane = sink.lane().await.unwrap();
    let p = |id, u| (parent, What::Upsert(row(vec![int_cell(id), int_cell(u)])));
    let c = |id, p| (child, What::Upsert(row(vec![int_cell(id), int_cell(p)])));
    let gone = |plan, id| (plan, What::Delete(row(vec![int_cell(id), Cell::Absent])));
    // Children stand before their parents: tables are taken parents first.
    lane.write(&group(1, vec![c(1, 1), c(2, 2), p(1, 10), p(2, 20)], false)).await.unwrap();
    lane.commit(&mark(1)).await.unwrap();
    // Deleting both: children first.
    lane.write(&group(2, vec![gone(parent, 2), gone(child, 2)], false)).await.unwrap();
    lane.commit(&mark(2)).await.unwrap();
    // Two rows swap a unique value over a third value: columnar fails, source order passes, nothing is left of the first.
    lane.write(&group(3, vec![p(2, 20)], false)).await.unwrap();
    lane.write(&group(3, vec![p(1, 99), p(2, 10), p(1, 20)], false)).await.unwrap();
    lane.commit(&mark(3)).await.unwrap();
    assert_eq!(db.rows("parent", "id").await, ["{\"u\": 20, \"id\": 1}", "{\"u\": 10, \"id\": 2}"]);
    // A unique value released by a delete and taken by an insert.
    lane.write(&group(4, vec![gone(parent, 2), p(3, 10)], false)).await.unwrap();
    lane.commit(&mark(4)).await.unwrap();
    // Truncates of one transaction go together; what the target refers to besides is deleted row by row.
    let empty = |plan| (plan, What::Truncate);
    lane.write(&group(4, vec![c(1, 1), empty(parent), empty(child), p(1, 20), p(3, 10)], true)).await.unwrap();
    lane.write(&group(4, vec![empty(parent), p(3, 10), c(3, 3), gone(child, 3), empty(parent), p(1, 1)], true))
        .await
        .unwrap();
    lane.commit(&mark(4)).await.unwrap();
    assert_eq!(db.rows("parent", "id").await, ["{\"u\": 1, \"id\": 1}"]);
    assert_eq!(db.rows("child", "id").await, Vec::<String>::new());
    // An identity column takes the source's value.
    let s = |v: &str| (short, What::Upsert(row(vec![int_cell(1), text_cell(v), int_cell(7)])));
    lane.write(&group(5, vec![s("abc")], false)).await.unwrap();
    lane.commit(&mark(5)).await.unwrap();
    assert_eq!(db.rows("short", "id").await, ["{\"g\": 7, \"v\": \"abc\", \"id\": 1}"]);
    // Too long a text is refused, not cut; the error does not show it.
    for source_order in [false, true] {
        let e = lane.write(&group(6, vec![s("secret")], source_order)).await.unwrap_err();
        assert_eq!((e.class, e.code.0), (SinkClass::Row, 609), "{e}");
        assert!(!e.what.contains("secret") && e.what.contains("22001") && e.what.contains("public.short"), "{e}");
        lane.abort().await;
        let e = lane.write(&group(6, vec![c(9, 555)], source_order)).await.unwrap_err();
        assert_eq!(e.class, SinkClass::Row, "{e}");
        assert!(e.what.contains("child_p_fkey") && !e.what.contains("555"), "{e}");
        lane.abort().await;
    }
    assert_eq!(db.one("SELECT seq::text FROM catchwater.position").await, "5");
    sink.shutdown().await;
    db.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_behind_rows_whose_keys_wait_for_the_commit() {
    let Some(db) = database("deferred_truncate").await else { return };
    db.exec(
        "CREATE TABLE parent(id int PRIMARY KEY);
         CREATE TABLE child(id int PRIMARY KEY, p int NOT NULL REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
         INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (5, 2)",
    )
    .await;
    let plans = plans(&db, &["parent", "child"]).await;
    let (parent, child) = (&plans["parent"], &plans["child"]);
    let mut sink = sink_on(&db.url);
    sink.open(claim(1)).await.unwrap();
    let mut lane = sink.lane().await.unwrap();
    let p = |id| (parent, What::Upsert(row(vec![int_cell(id)])));
    let c = |id, p| (child, What::Upsert(row(vec![int_cell(id), int_cell(p)])));
    let empty = |plan| (plan, What::Truncate);
    lane.write(&group(1, vec![c(1, 1), empty(parent), empty(child), p(3), c(4, 3)], true)).await.unwrap();
    lane.commit(&mark(1)).await.unwrap();
    assert_eq!(db.rows("parent", "id").await, ["{\"id\": 3}"]);
    assert_eq!(db.rows("child", "id").await, ["{\"p\": 3, \"id\": 4}"]);
    sink.shutdown().await;
    db.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_may_come_before_its_parent_until_the_state_is_whole() {
    let Some(db) = database("waiting_keys").await else { return };
    db.exec(
        "CREATE TABLE parent(id int PRIMARY KEY, best int);
         CREATE TABLE child(id int PRIMARY KEY, p int NOT NULL REFERENCES parent);
         ALTER TABLE parent ADD FOREIGN KEY (best) REFERENCES child;
         CREATE TABLE node(id int PRIMARY KEY, up int REFERENCES node)",
    )
    .await;
    let plans = plans(&db, &["parent", "child", "node"]).await;
    let (parent, child, node) = (&plans["parent"], &plans["child"], &plans["node"]);
    let mut sink = sink_on(&db.url);
    sink.open(claim(1)).await.unwrap();
    let mut lane = sink.lane().await.unwrap();
    let two = |plan, a, b: Option<i64>| (plan, What::Upsert(row(vec![int_cell(a), b.map_or(Cell::Null, int_cell)])));
    let part = |seq, applies, fresh| Group { partial: true, fresh, ..group(seq, applies, false) };
    let rigid = "SELECT count(*)::text FROM pg_constraint WHERE contype = 'f' AND NOT condeferrable";
    // Parts of a snapshot, by COPY and by statements: the keys are back after it.
    for (seq, fresh) in [(1, true), (2, false)] {
        let n = seq as i64 * 10;
        lane.write(&part(seq, vec![two(child, n, Some(n)), two(node, n, Some(n + 1))], fresh)).await.unwrap();
        lane.write(&part(seq, vec![two(node, n + 1, None), two(parent, n, Some(n))], fresh)).await.unwrap();
        lane.commit(&mark(seq)).await.unwrap();
        assert_eq!(db.one(rigid).await, "3");
        assert_eq!(
            db.one("SELECT (SELECT count(*) FROM child) || '/' || (SELECT count(*) FROM node)").await,
            format!("{seq}/{}", seq * 2)
        );
    }
    // A parent that takes another key goes before its child is told, which comes with a later part.
    let gone = |plan, a| (plan, What::Delete(row(vec![int_cell(a), Cell::Absent])));
    lane.write(&part(2, vec![gone(parent, 20), two(parent, 21, None)], false)).await.unwrap();
    lane.write(&part(2, vec![two(child, 20, Some(21))], false)).await.unwrap();
    lane.commit(&mark(2)).await.unwrap();
    assert_eq!(
        (db.one(rigid).await, db.one("SELECT p::text FROM child WHERE id = 20").await),
        ("3".into(), "21".into())
    );
    // A parent that never comes is told before the commit, and nothing stays.
    lane.write(&part(3, vec![two(child, 30, Some(31))], false)).await.unwrap();
    let e = lane.commit(&mark(3)).await.unwrap_err();
    assert!(e.class == SinkClass::Row && e.code.0 == 609 && e.what.contains("child_p_fkey"), "{e}");
    lane.abort().await;
    // A source that checks at its commit: a circle, and a child of its own table, in the order of the source.
    let circle =
        || vec![two(parent, 40, Some(40)), two(child, 40, Some(40)), two(node, 40, Some(41)), two(node, 41, Some(40))];
    for (seq, source_order) in [(4, true), (5, false)] {
        lane.write(&group(seq, circle(), source_order)).await.unwrap();
        lane.commit(&mark(seq)).await.unwrap();
        assert_eq!(
            (db.one(rigid).await, db.one("SELECT up::text FROM node WHERE id = 41").await),
            ("3".into(), "40".into())
        );
        db.exec("UPDATE parent SET best = NULL; DELETE FROM child WHERE id = 40; DELETE FROM parent WHERE id = 40; UPDATE node SET up = NULL WHERE id = 41; DELETE FROM node WHERE id >= 40").await;
    }
    // What is wrong whichever way is told as it always was.
    let e = lane.write(&group(6, vec![two(child, 60, Some(61))], true)).await.unwrap_err();
    assert!(e.class == SinkClass::Row && e.what.contains("child_p_fkey"), "{e}");
    lane.abort().await;
    // Who does not own the table cannot change its keys: the row is refused, and the session goes on.
    sink.shutdown().await;
    let role = format!("{}_user", db.name);
    db.exec(&format!(
        "CREATE ROLE {role} LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}; GRANT ALL ON SCHEMA public TO {role}"
    ))
    .await;
    db.exec(&format!(
        "GRANT ALL ON SCHEMA catchwater TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA catchwater TO {role}"
    ))
    .await;
    let (scheme, rest) = db.url.split_once("://").unwrap();
    let mut sink = sink_on(&format!("{scheme}://{role}@{}", rest.split_once('@').unwrap().1));
    sink.open(claim(2)).await.unwrap();
    let mut lane = sink.lane().await.unwrap();
    let e = lane.write(&part(7, vec![two(child, 70, Some(70))], false)).await.unwrap_err();
    assert!(e.class == SinkClass::Row && e.what.contains("child_p_fkey"), "{e}");
    lane.abort().await;
    lane.write(&part(7, vec![two(parent, 70, None), two(child, 70, Some(70))], false)).await.unwrap();
    lane.commit(&mark(7)).await.unwrap();
    sink.shutdown().await;
    db.exec(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    db.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_moves_to_another_key_keeps_what_was_not_sent() {
    let Some(db) = database("rekey").await else { return };
    db.exec("CREATE TABLE t(id int PRIMARY KEY, a text, big text)").await;
    let plans = plans(&db, &["t"]).await;
    let t = &plans["t"];
    let mut sink = sink_on(&db.url);
    sink.open(claim(1)).await.unwrap();
    let mut lane = sink.lane().await.unwrap();
    let full = |id, a: &str, big: &str| (t, What::Upsert(row(vec![int_cell(id), text_cell(a), text_cell(big)])));
    let part = |id, a: &str| (t, What::Update(row(vec![int_cell(id), text_cell(a), Cell::Unavailable])));
    let gone = |id| (t, What::Delete(row(vec![int_cell(id), Cell::Absent, Cell::Absent])));
    lane.write(&group(1, vec![full(1, "a", "B1"), full(5, "a", "B5")], false)).await.unwrap();
    lane.write(&group(1, vec![gone(1), part(2, "moved")], false)).await.unwrap();
    lane.commit(&mark(1)).await.unwrap();
    // A delete and an update of a row that is there are just that.
    lane.write(&group(2, vec![full(9, "x", "B9"), gone(9), part(5, "updated")], true)).await.unwrap();
    lane.commit(&mark(2)).await.unwrap();
    assert_eq!(
        db.rows("t", "id").await,
        ["{\"a\": \"moved\", \"id\": 2, \"big\": \"B1\"}", "{\"a\": \"updated\", \"id\": 5, \"big\": \"B5\"}"]
    );
    // Only the key was sent: nothing to set, but the row has to be there.
    let only_key = |id| (t, What::Update(row(vec![int_cell(id), Cell::Unavailable, Cell::Unavailable])));
    lane.write(&group(3, vec![only_key(2)], false)).await.unwrap();
    let e = lane.write(&group(3, vec![only_key(77)], false)).await.unwrap_err();
    assert_eq!(e.code.0, 615);
    lane.abort().await;
    sink.shutdown().await;
    db.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_got_through_after_all_is_found_by_its_number() {
    let Some(db) = database("moved").await else { return };
    let mut sink = sink_on(&db.url);
    assert_eq!(sink.open(claim(1)).await.unwrap().mark, None);
    let mut one = sink.lane().await.unwrap();
    let mut two = sink.lane().await.unwrap();
    one.commit(&mark(5)).await.unwrap();
    // The same mark once more by a lane that believes in the old position: refused, and the truth is in the target.
    db.exec("UPDATE catchwater.position SET seq = 8").await;
    let e = two.commit(&mark(6)).await.unwrap_err();
    assert_eq!((e.class, e.code.0), (SinkClass::UnknownOutcome, 614), "{e}");
    assert_eq!(sink.open(claim(2)).await.unwrap().mark.unwrap().seq, CommitSeq(8));
    // A session that the server kills in the middle.
    let mut lane = sink.lane().await.unwrap();
    lane.write(&group(9, vec![], false)).await.unwrap();
    // Of this database: other tests have sinks of that name on the same server.
    db.exec(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'catchwater/p/s/0'",
    )
    .await;
    let e = lane.commit(&mark(9)).await.unwrap_err();
    assert_eq!(e.class, SinkClass::Environment, "{e}");
    assert_eq!(sink.open(claim(3)).await.unwrap().mark.unwrap().seq, CommitSeq(8));
    sink.shutdown().await;
    db.drop().await;
}

/// Types of capture.md 8.9, each with values at its edges. Extensions where the server has them.
fn columns(version: i32) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut out: Vec<(&str, Vec<&str>)> = vec![
        ("bool", vec!["true", "false"]),
        ("int2", vec!["-32768", "32767"]),
        ("int4", vec!["-2147483648", "2147483647"]),
        ("int8", vec!["'-9223372036854775808'", "9223372036854775807"]),
        ("float4", vec!["'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "1.1", "3.4e38", "1e-45", "16777217"]),
        ("float8", vec!["'NaN'", "'-Infinity'", "'-0'", "0.1", "1.7976931348623157e308", "5e-324", "1e22"]),
        (
            "numeric",
            vec![
                "'NaN'",
                "'Infinity'",
                "'-Infinity'",
                "1.10",
                "-0.000",
                "1e-300",
                "1e300",
                "123456789012345678901234567890.5",
            ],
        ),
        ("numeric(12,2)", vec!["1.10", "'NaN'", "-9999999999.99"]),
        ("money", vec!["'12.34'", "'-92233720368547758.08'"]),
        (
            "text",
            vec![
                "''",
                "'NULL'",
                "E'tab\\tnew\\nline\\\\ \\x01'",
                "'ünï ☃ 字 \"quoted\" ''single'''",
                "repeat('long ', 5000)",
            ],
        ),
        ("varchar(20)", vec!["'v'", "'  '"]),
        ("char(5)", vec!["'a'", "''"]),
        ("\"char\"", vec!["'x'", "''"]),
        ("name", vec!["'n a m e'"]),
        ("bytea", vec!["'\\x'", "'\\x00ff5c'", "decode(repeat('00ff', 5000), 'hex')"]),
        (
            "date",
            vec![
                "'infinity'",
                "'-infinity'",
                "'4713-01-01 BC'",
                "'0001-01-01'",
                "'10000-02-29'",
                "'5874897-12-31'",
                "'1969-12-31'",
            ],
        ),
        ("time", vec!["'00:00'", "'24:00'", "'23:59:59.999999'"]),
        ("time(0)", vec!["'12:34:56'"]),
        ("timetz", vec!["'12:34:56.789+05:45'", "'24:00-15:59:59'"]),
        (
            "timestamp",
            vec![
                "'infinity'",
                "'-infinity'",
                "'4713-11-24 BC'",
                "'294276-12-31 23:59:59.999999'",
                "'1969-12-31 23:59:59.5'",
            ],
        ),
        ("timestamp(3)", vec!["'2026-01-01 00:00:00.123'"]),
        (
            "timestamptz",
            vec!["'infinity'", "'4713-11-24+00 BC'", "'294276-12-31 23:59:59.999999+00'", "'12345-01-01 00:00+05:45'"],
        ),
        (
            "interval",
            vec![
                "'1 year 2 mons -3 days +04:05:06.789'",
                "'-1 year -2 mons +3 days -04:05:06'",
                "'178000000 years'",
                "'0'",
                "'-00:00:00.000001'",
                "'2147483647 days -2562047788:00:54.775807'",
            ],
        ),
        ("uuid", vec!["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"]),
        ("json", vec!["'{ \"b\": 1.50,  \"a\": [null, \"☃\\n\"], \"b\": 2 }'", "'null'", "'\"x\"'"]),
        ("jsonb", vec!["'{\"a\": 12345678901234567890.10, \"b\": \"\\u00e9\"}'", "'null'", "'[]'"]),
        ("xml", vec!["'<a>b</a>'"]),
        ("int4[]", vec!["'{}'", "'{1,NULL,-3}'", "'{{1,2},{3,4}}'", "'[2:3]={1,2}'"]),
        ("text[]", vec!["ARRAY['a', 'NULL', NULL, 'b,\"c\"\\', '', '{x}', ' ']", "'{}'", "'{{a},{\"b c\"}}'"]),
        ("numeric(6,2)[]", vec!["'{1.10,NaN}'"]),
        ("timestamptz[]", vec!["'{\"2026-01-01 00:00:00+00\",infinity}'"]),
        ("bytea[]", vec!["ARRAY['\\x00ff'::bytea, NULL]"]),
        ("bool[]", vec!["'{t,f,NULL}'"]),
        ("jsonb[]", vec!["ARRAY['{\"a\": \"b\\\\c\"}'::jsonb]"]),
        ("box[]", vec!["'{(1,1),(0,0);(3,3),(2,2)}'"]),
        ("interval[]", vec!["'{1 mon,-00:00:01}'"]),
        ("int4range", vec!["'[1,5)'", "'empty'", "'(,)'"]),
        ("tstzrange", vec!["'[2026-01-01 00:00:00+00,)'"]),
        ("nummultirange", vec!["'{[1,2),(5,)}'", "'{}'"]),
        ("mood", vec!["'sad'", "'so, \"so\"'"]),
        ("mood[]", vec!["'{sad,\"so, \\\"so\\\"\",NULL}'"]),
        ("posint", vec!["1"]),
        ("posint[]", vec!["'{1,2}'"]),
        ("dnum", vec!["1.2345"]),
        ("darr", vec!["'{1,NULL}'"]),
        ("pair", vec!["ROW(1, 'a,\"b\\')", "ROW(NULL, '')"]),
        ("pair[]", vec!["ARRAY[ROW(1,'x')::pair, NULL]"]),
        ("inet", vec!["'10.1.2.3/8'", "'::1'"]),
        ("cidr", vec!["'10.0.0.0/8'"]),
        ("macaddr", vec!["'08:00:2b:01:02:03'"]),
        ("macaddr8", vec!["'08:00:2b:01:02:03:04:05'"]),
        ("bit(5)", vec!["B'10110'"]),
        ("varbit", vec!["B''", "B'101'"]),
        ("varbit(7)", vec!["B'1'"]),
        ("point", vec!["'(1.5,-0)'"]),
        ("line", vec!["'{1,2,3}'"]),
        ("lseg", vec!["'[(0,0),(1,1)]'"]),
        ("box", vec!["'(1,1),(0,0)'"]),
        ("path", vec!["'((0,0),(1,1))'", "'[(0,0),(1,1)]'"]),
        ("polygon", vec!["'((0,0),(1,1),(1,0))'"]),
        ("circle", vec!["'<(0,0),1e300>'"]),
        ("tsvector", vec!["'''a b'':1A fat:2'"]),
        ("tsquery", vec!["'fat & (rat | !cat)'"]),
        ("oid", vec!["4294967295", "0"]),
        ("regclass", vec!["'pg_class'", "'public.source_t'"]),
        ("regtype", vec!["'int4'", "'public.mood'"]),
        ("regproc", vec!["'now'"]),
        ("pg_lsn", vec!["'16/B374D848'"]),
        ("xid8", vec!["'18446744073709551615'"]),
        ("pg_snapshot", vec!["'10:20:10,14,15'"]),
        ("jsonpath", vec!["'$.\"a\"[*]?(@ > 1)'"]),
        ("hstore", vec!["'a=>\"b, c\", d=>NULL'"]),
        ("citext", vec!["'CaSe'"]),
        ("citext[]", vec!["'{A,b}'"]),
        ("ltree", vec!["'Top.Science'"]),
    ];
    if version >= 170_000 {
        out.push(("interval", vec!["'infinity'", "'-infinity'"]));
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_goes_from_source_to_sink_as_it_is() {
    if servers().is_empty() {
        eprintln!("SKIP db pg15: CW_PG15_URL is not set (types)");
    }
    for server in servers() {
        types_on(&server).await;
    }
}

/// The schema as a TABLE record gives it back.
fn through_stored(table: &Arc<TableSchema>) -> Arc<TableSchema> {
    use catchwater_change::checkpoint::{Stored, StoredKey, TableRecord};
    let from = Version { incarnation: Incarnation(0), commit_seq: CommitSeq(1), ordinal: 0 };
    let bytes = Stored::Table(TableRecord { schema: (**table).clone(), from, flags: 0 }).encode();
    let Ok(Stored::Table(back)) = Stored::decode(StoredKey::Table { schema_no: 0 }, &bytes) else { panic!() };
    assert_eq!(back.schema, **table);
    Arc::new(back.schema)
}

/// Event → record → event, as capture writes and deliver reads it.
fn through_log(change: &RowChange, schema: &Arc<TableSchema>) -> RowChange {
    use catchwater_change::decode::debezium_json::{Decoded, decode, rows};
    use catchwater_change::encode::debezium_json::{Encoder, Piece};
    let stamp = Stamp {
        op: change.op.letter() as u8,
        flags: 0,
        version: Version { incarnation: Incarnation(0), commit_seq: CommitSeq(1), ordinal: 0 },
        total: 0,
        source: CaptureId(1),
        commit_time: Wall::from_micros(0),
        schema_no: 0,
        native: Native::postgres(1),
        txn: None,
    };
    let made = Encoder::new("postgresql", "p").encode(change, Piece::Whole, stamp, Wall::from_micros(0)).unwrap();
    let headers = made.headers.iter().map(|(k, v)| (&k[..], v.as_deref()));
    let Decoded::Event(event) = decode(made.value.as_deref(), headers.clone(), schema).unwrap() else { panic!() };
    let alone = rows(made.value.as_ref(), headers, &event.stamp, schema).unwrap();
    assert_eq!(format!("{:?}", (&alone.op, &alone.before, &alone.after)), {
        let whole = &event.change;
        format!("{:?}", (&whole.op, &whole.before, &whole.after))
    });
    let (was, is) = (change.after.as_ref().unwrap(), event.change.after.as_ref().unwrap());
    for ((a, b), column) in was.cells.iter().zip(&is.cells).zip(&schema.columns) {
        assert_eq!(text(a), text(b), "{} through the log", column.native_type);
    }
    event.change
}

/// Rows of a snapshot, each column into a table of its own, so that one that has no binary form keeps no other from it.
async fn copied_one_by_one(lane: &mut dyn Lane, setup: &Client, table: &Arc<TableSchema>, rows: &[RowChange]) {
    let columns: Vec<_> = table.columns.iter().enumerate().skip(1).filter(|(_, c)| send::fits(c.native_id)).collect();
    assert!(columns.len() > 20, "of {} columns", columns.len());
    for (i, column) in &columns {
        setup
            .batch_execute(&format!("CREATE TABLE one{i}(id int PRIMARY KEY, {} {})", column.name, column.native_type))
            .await
            .unwrap();
        let named = [0, *i].map(|c| (c as u16, table.columns[c].name.clone()));
        let target = TargetName { schema: "public".into(), name: format!("one{i}") };
        let plan = Arc::new(TargetPlan {
            source: table.clone(),
            target,
            columns: named.to_vec(),
            key: vec![0],
            meets: Default::default(),
        });
        let applies = rows.iter().map(|r| (&plan, What::Upsert(r.after.clone().unwrap()))).collect();
        lane.write(&Group { fresh: true, ..group(3, applies, false) }).await.unwrap();
    }
    lane.commit(&mark(3)).await.unwrap();
    setup.batch_execute("SET extra_float_digits = 3").await.unwrap();
    for (i, column) in &columns {
        let differ = format!(
            "SELECT count(*) FROM source_t s FULL JOIN one{i} o USING (id) WHERE s.{0}::text IS DISTINCT FROM o.{0}::text",
            column.name
        );
        let differ: i64 = setup.query_one(&differ, &[]).await.unwrap().get(0);
        assert_eq!(differ, 0, "{} copied", column.native_type);
    }
    setup.batch_execute("RESET extra_float_digits").await.unwrap();
}

async fn types_on(server: &str) {
    let db = database_on(server, "types").await;
    // Settings that would bend text forms; our sessions set their own.
    db.exec(&format!(
        "ALTER DATABASE {0} SET timezone = 'Asia/Kathmandu'; ALTER DATABASE {0} SET datestyle = 'SQL, DMY';
         ALTER DATABASE {0} SET intervalstyle = 'sql_standard'; ALTER DATABASE {0} SET bytea_output = 'escape';
         ALTER DATABASE {0} SET extra_float_digits = -5; ALTER DATABASE {0} SET xmloption = 'document'",
        db.name
    ))
    .await;
    let version: i32 =
        db.client.query_one("SELECT current_setting('server_version_num')::int", &[]).await.unwrap().get(0);
    for extension in ["hstore", "citext", "ltree"] {
        db.exec(&format!("CREATE EXTENSION IF NOT EXISTS {extension}")).await;
    }
    db.exec(
        "CREATE TYPE mood AS ENUM ('sad', 'so, \"so\"'); CREATE DOMAIN posint AS int CHECK (value > 0);
         CREATE DOMAIN dnum AS numeric(10,4); CREATE DOMAIN darr AS int[]; CREATE TYPE pair AS (a int, b text);
         CREATE TABLE marker(id int PRIMARY KEY)",
    )
    .await;
    let mut columns = columns(version);
    if version < 150_000 {
        // PostgreSQL 14 does not read intervals of so many hours.
        columns.iter_mut().for_each(|(_, values)| values.retain(|v| !v.contains("2562047788")));
    }
    let definitions: Vec<String> = columns.iter().enumerate().map(|(i, (t, _))| format!("c{i} {t}")).collect();
    db.exec(&format!("CREATE TABLE source_t(id int PRIMARY KEY, {})", definitions.join(", "))).await;
    let rows = columns.iter().map(|(_, v)| v.len()).max().unwrap();
    let insert = |from: usize| -> String {
        let mut sql = String::new();
        for n in 0..=rows {
            // The last row is all NULL.
            let values: Vec<String> = columns
                .iter()
                .map(|(t, v)| if n == rows { "NULL".into() } else { format!("({})::{t}", v[n % v.len()]) })
                .collect();
            sql.push_str(&format!("INSERT INTO source_t VALUES ({}, {});", from + n, values.join(", ")));
        }
        sql
    };
    // Half by the snapshot, half by the stream: both roads must give the same values.
    let setup = connect(&db.url).await;
    setup
        .batch_execute("SET datestyle = 'ISO, MDY'; SET intervalstyle = 'postgres'; SET xmloption = 'content'")
        .await
        .unwrap();
    setup.batch_execute(&insert(0)).await.unwrap_or_else(|e| panic!("{e:?}"));
    let (mut source, opened) = db.open(&["source_t", "marker"]).await;
    let table = opened.tables.iter().find(|t| t.name == "source_t").unwrap();
    let mut snapshot = source.snapshot().unwrap();
    let mut read = Vec::new();
    for chunk in snapshot.plan(std::slice::from_ref(table)).await.unwrap() {
        snapshot.read(&chunk, &mut read).await.unwrap();
    }
    snapshot.close().await;
    setup.batch_execute(&insert(1000)).await.unwrap();
    setup.batch_execute("INSERT INTO marker VALUES (1)").await.unwrap();
    let streamed: Vec<_> = read_to_marker(&mut source).await.into_iter().flat_map(|t| t.rows).collect();
    source.close().await;
    assert_eq!((read.len(), streamed.len()), (rows + 1, rows + 1));
    for (a, b) in read.iter().zip(&streamed) {
        let (a, b) = (a.after.as_ref().unwrap(), b.after.as_ref().unwrap());
        for (i, column) in table.columns.iter().enumerate().skip(1) {
            // Bits: NaN is not equal to itself.
            assert_eq!(text(&a.cells[i]), text(&b.cells[i]), "{}: COPY against stream", column.native_type);
        }
    }
    // Through the log's own form: JSON and its exact cells, against the schema as the TABLE record holds it.
    let stored = through_stored(table);
    let read: Vec<_> = read.iter().map(|c| through_log(c, &stored)).collect();
    let streamed: Vec<_> = streamed.iter().map(|c| through_log(c, &stored)).collect();
    // Into two targets: one in this database, where all types are known, one where user types and extensions are not.
    let other = database_on(server, "types2").await;
    for (target, native) in [(&db, true), (&other, false)] {
        let mut sink = sink_on(&target.url);
        sink.open(claim(1)).await.unwrap();
        let name = TargetName { schema: "copy".into(), name: "source_t".into() };
        sink.apply_ddl(&DdlStep::CreateTable { name: name.clone(), like: table.clone(), types: Default::default() })
            .await
            .unwrap();
        let described = sink.describe(std::slice::from_ref(&name)).await.unwrap().remove(0).unwrap();
        if native {
            for (want, got) in table.columns.iter().zip(&described.columns) {
                assert_eq!(want.native_type, got.native_type, "{}", want.name);
            }
        }
        let plan = plan(table, "copy");
        let mut lane = sink.lane().await.unwrap();
        for (seq, rows) in [(1, &read), (2, &streamed)] {
            // References to this database's objects mean nothing in the other.
            let applies = rows.iter().map(|r| {
                let mut row = r.after.clone().unwrap();
                for (cell, column) in row.cells.iter_mut().zip(&table.columns) {
                    if !native && column.native_type.starts_with("reg") {
                        *cell = Cell::Null;
                    }
                }
                (&plan, What::Upsert(row))
            });
            lane.write(&group(seq, applies.collect(), false)).await.unwrap();
            lane.commit(&mark(seq)).await.unwrap();
        }
        // Compared by the server's own text of each column.
        let client = connect(&target.url).await;
        client
            .batch_execute("SET datestyle = 'ISO, MDY'; SET intervalstyle = 'postgres'; SET timezone = 'Asia/Kathmandu'; SET bytea_output = 'escape'; SET extra_float_digits = -5")
            .await
            .unwrap();
        for (i, (kind, _)) in columns.iter().enumerate() {
            if !native && kind.starts_with("reg") {
                continue;
            }
            let sql = |t: &str| format!("SELECT c{i}::text FROM {t} ORDER BY id");
            let want = setup.query(&sql("source_t"), &[]).await.unwrap();
            let got = client.query(&sql("copy.source_t"), &[]).await.unwrap();
            let texts =
                |rows: &[tokio_postgres::Row]| rows.iter().map(|r| r.get::<_, Option<String>>(0)).collect::<Vec<_>>();
            assert_eq!(texts(&got), texts(&want), "{kind} on {server}, native {native}");
        }
        if native {
            let all: Vec<RowChange> = read.iter().chain(&streamed).cloned().collect();
            copied_one_by_one(&mut *lane, &setup, table, &all).await;
        }
        sink.shutdown().await;
    }
    other.drop().await;
    db.drop().await;
}
