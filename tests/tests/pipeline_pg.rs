//! W3 and W4: changes of a PostgreSQL table are read by a stock client as Debezium events, and stand in a second
//! PostgreSQL with its position row; every built-in type arrives as it left.

use catchwater_tests::bank::read_topic;
use catchwater_tests::dev::Dev;
use catchwater_tests::pg::{Database, difference};
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(40);

fn pipeline(source: &Database, target: &Database, tables: &str) -> Dev {
    Dev::new(&format!(
        "version: 1\npipeline: shop\nsources:\n  {name}:\n    postgres: {{ url: \"{}\", tables: [{tables}] }}\nsinks:\n  copy:\n    from: {name}.*\n    postgres: {{ url: \"{}\" }}\n    mode: upsert\n",
        source.url(),
        target.url(),
        name = source.name()
    ))
}

fn pair(test: &str) -> Option<(Database, Database)> {
    Some((Database::create("pg15", &format!("{test}_a"))?, Database::create("pg15", &format!("{test}_b"))?))
}

#[test]
fn insert_update_key_change_delete_truncate_reach_client_and_target() {
    let Some((a, b)) = pair("events") else { return };
    a.pg.run(
        "CREATE TABLE orders (id int PRIMARY KEY, v text, n numeric(10,2)); INSERT INTO orders VALUES (1, 'old', 1.50)",
    )
    .expect("table");
    let mut dev = pipeline(&a, &b, "orders");
    dev.start().expect("start");
    let same = || difference(&a.pg, "orders", &b.pg, "orders");
    dev.wait(LIMIT, same).expect("snapshot");
    a.pg.run("INSERT INTO orders VALUES (2, 'new', 2.25)").expect("insert");
    a.pg.run("UPDATE orders SET v = 'changed' WHERE id = 1").expect("update");
    a.pg.run("UPDATE orders SET id = 9 WHERE id = 2").expect("key change");
    a.pg.run("DELETE FROM orders WHERE id = 1").expect("delete");
    dev.wait(LIMIT, same).expect("changes");
    let events: Vec<Value> = read_topic(&dev.kafka, &format!("{}.public.orders", a.name())).expect("kcat reads");
    let ops: Vec<Value> = events.iter().map(|e| e["op"].clone()).collect();
    assert_eq!(ops, [json!("r"), json!("c"), json!("u"), json!("d"), json!(null), json!("c"), json!("d"), json!(null)]);
    assert_eq!(events[0]["after"]["v"], "old");
    // numeric(10,2) 1.50: unscaled 150 = 0x96, base64 of the big-endian bytes 00 96
    assert_eq!(events[0]["after"]["n"], "AJY=");
    assert_eq!(events[1]["after"], json!({"id": 2, "v": "new", "n": "AOE="}));
    assert_eq!(events[1]["before"], Value::Null);
    assert_eq!(events[2]["after"]["v"], "changed");
    assert_eq!(events[3]["before"]["id"], 2);
    assert_eq!(events[5]["after"]["id"], 9);
    let keys: Vec<&str> = events[1].as_object().expect("envelope").keys().map(String::as_str).collect();
    assert_eq!(keys, ["before", "after", "source", "transaction", "op", "ts_ms", "ts_us", "ts_ns"]);
    let source = &events[1]["source"];
    assert_eq!(
        (&source["connector"], &source["name"], &source["db"], &source["schema"], &source["table"]),
        (&json!("postgresql"), &json!(a.name()), &json!(a.name()), &json!("public"), &json!("orders"))
    );
    assert!(source["lsn"].is_u64() && source["txId"].is_u64(), "{source}");

    a.pg.run("TRUNCATE orders; INSERT INTO orders VALUES (5, 'after', 0)").expect("truncate");
    dev.wait(LIMIT, same).expect("truncate");
    let row =
        b.pg.rows("SELECT pipeline, sink, source, lane, seq, fence > 0, position <> '' FROM catchwater.position")
            .expect("position row");
    assert_eq!(row.len(), 1, "{row:?}");
    let text: Vec<&str> = row[0].iter().map(|c| c.as_deref().unwrap_or("")).collect();
    assert_eq!((&text[..4], &text[5..]), (&["shop", "copy", a.name(), "0"][..], &["t", "t"][..]));
    let (status, _) = dev.stop().expect("stop");
    assert_eq!(status.code(), Some(143), "SIGTERM after a clean end");
    // Changes made while nothing runs are there after the next start, once.
    a.pg.run("INSERT INTO orders VALUES (6, 'offline', 0); UPDATE orders SET v = 'x' WHERE id = 5").expect("offline");
    dev.start().expect("second start");
    dev.wait(LIMIT, same).expect("resume");
    let after = read_topic(&dev.kafka, &format!("{}.public.orders", a.name())).expect("kcat reads");
    let tail: Vec<(&Value, &Value)> = after[after.len() - 2..].iter().map(|e| (&e["op"], &e["after"]["id"])).collect();
    assert_eq!(tail, [(&json!("c"), &json!(6)), (&json!("u"), &json!(5))]);
}

#[test]
fn every_built_in_type_arrives_as_it_left() {
    let Some((a, b)) = pair("types") else { return };
    a.pg.run(
        "CREATE TYPE mood AS ENUM ('sad', 'ok', 'very happy');
         CREATE DOMAIN positive AS int CHECK (value > 0);
         CREATE TYPE pair AS (x int, y text);
         CREATE TABLE everything (id bigint PRIMARY KEY, b bool, i2 smallint, i4 int, i8 bigint, f4 real, f8 double precision,
           n numeric, n2 numeric(20,6), m money, c char(5), vc varchar(20), t text, nm name, by bytea, d date, tm time, tm0 time(0), tz timetz,
           ts timestamp, ts3 timestamp(3), tstz timestamptz, iv interval, u uuid, j json, jb jsonb, x xml, bi bit(5), vb varbit,
           ina inet, ci cidr, ma macaddr, p point, l line, bx box, pa path, po polygon, cr circle, tsv tsvector, tsq tsquery,
           ai int[], at text[], a2 int[][], an numeric(8,2)[], ats timestamptz[], r int4range, nr numrange, mr int4multirange,
           e mood, dom positive, comp pair, o oid, rc regclass, lsn pg_lsn, ae mood[], xi xid8, jp jsonpath);
         ALTER TABLE everything REPLICA IDENTITY DEFAULT",
    )
    .expect("table");
    let rows = [
        "(1, true, -32768, 2147483647, -9223372036854775808, 1.5e-30, 1.7976931348623157e308, 123456789012345678901234567890.123456789, 1.5, 12.34, 'ab', 'vär', E'line\\nquote\"\\\\back', 'nm', '\\xdeadbeef00', '2024-02-29', '23:59:59.999999', '24:00:00', '12:00:00.5+05:30',
          '2024-01-02 03:04:05.678901', '2024-01-02 03:04:05.679', '2024-01-02 03:04:05.678901+02', '1 year 2 mons 3 days 04:05:06.789', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{\"a\" : 1.10, \"a\": 2}', '{\"z\": [1, null, \"x\"]}', '<a>b</a>', B'10101', B'110',
          '10.0.0.1/24', '10.0.0.0/8', '08:00:2b:01:02:03', '(1.5,-2)', '{1,2,3}', '(3,4),(1,2)', '[(0,0),(1,1)]', '((0,0),(1,1),(2,0))', '<(1,2),3>', 'a fat cat'::tsvector, 'fat & cat'::tsquery,
          '{1,NULL,3}', '{\"a b\",\"c\\\"d\",NULL,\"NULL\"}', '{{1,2},{3,4}}', '{1.10,NULL}', '{\"2024-01-01 00:00:00+00\"}', '[1,10)', '(1.5,)', '{[1,3),[5,7)}', 'very happy', 7, '(1,\"a,b\")', 42, 'pg_class', '16/B374D848', '{sad,ok}', '99999999999', '$.a[*]')",
        "(2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
        "(3, false, 0, 0, 0, 'NaN', '-Infinity', 'NaN', -0.000001, -1, '', '', '', '', '', 'infinity', '00:00', '00:00', '00:00-12', '-infinity', 'infinity', 'infinity', '-1 mons +1 day -00:00:01', '00000000-0000-0000-0000-000000000000', 'null', 'null', NULL, B'00000', B'',
          '::1', '::/0', '00:00:00:00:00:00', '(0,0)', '{1,0,0}', '(0,0),(0,0)', '((0,0))', '((0,0))', '<(0,0),0>', ''::tsvector, ''::tsquery, '{}', '{}', '{}', '{}', '{}', 'empty', 'empty', '{}', 'sad', 1, '(,)', 0, '-', '0/0', '{}', '0', '$')",
        "(4, true, 1, 1, 1, '-0', '-0', 1000.00, 0, 0, 'x', 'y', 'z', 'n', '\\x00', '0044-03-15 BC', '12:00', '12:00', '12:00+00', '294276-12-31 23:59:59.999999', '4713-01-01 00:00:00 BC', '4713-01-01 00:00:00+00 BC', '178000000 years', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '1', '1', '<x/>', B'11111', B'1',
          '192.168.0.1', '192.168.0.0/16', 'ff:ff:ff:ff:ff:ff', '(1e300,1e-300)', '{1,-1,0}', '(1,1),(0,0)', '((0,0),(1,0))', '((0,0),(1,0))', '<(0,0),1>', '''it''''s'':1'::tsvector, '!x'::tsquery, '[2:3]={7,8}', '{a}', '[0:1][1:1]={{1},{2}}', '{0.01}', '{infinity}', '(,)', '[,]', '{(,)}', 'ok', 2, '(5,)', 4294967295, 'pg_type', 'FFFFFFFF/FFFFFFFF', '{\"very happy\"}', '1', '$')",
    ];
    // Half of the rows come by the snapshot, half by the stream.
    a.pg.run(&format!("INSERT INTO everything VALUES {}, {}", rows[0], rows[1])).expect("rows");
    b.pg.run("CREATE TYPE mood AS ENUM ('sad', 'ok', 'very happy'); CREATE DOMAIN positive AS int; CREATE TYPE pair AS (x int, y text);").expect("types");
    let mut dev = pipeline(&a, &b, "everything");
    dev.start().expect("start");
    let same = || difference(&a.pg, "everything", &b.pg, "everything");
    dev.wait(LIMIT, same).expect("snapshot");
    a.pg.run(&format!("INSERT INTO everything VALUES {}, {}", rows[2], rows[3])).expect("rows");
    a.pg.run("UPDATE everything SET t = t || '!' WHERE id = 1; UPDATE everything SET i4 = 5 WHERE id = 2")
        .expect("update");
    dev.wait(LIMIT, same).expect("stream");
}

#[test]
fn whole_transactions_keyless_tables_and_unchanged_toast() {
    let Some((a, b)) = pair("shapes") else { return };
    a.pg.run(
        "CREATE TABLE big (id int PRIMARY KEY, doc text, n int); ALTER TABLE big ALTER doc SET STORAGE EXTERNAL;
         CREATE TABLE events (at int, what text); ALTER TABLE events REPLICA IDENTITY FULL;
         CREATE TABLE \"Odd Näme\" (\"K ey\" text, \"select\" int, PRIMARY KEY (\"K ey\"));
         INSERT INTO big SELECT i, repeat(md5(i::text), 500), 0 FROM generate_series(1, 20) i;
         INSERT INTO events VALUES (1, 'a'), (1, 'a'), (2, 'b');",
    )
    .expect("tables");
    let mut dev = pipeline(&a, &b, "big, events, \"Odd Näme\"");
    dev.start().expect("start");
    let same = || {
        ["big", "events", "\"Odd Näme\""]
            .iter()
            .map(|t| difference(&a.pg, t, &b.pg, t))
            .find(|d| !d.is_empty())
            .unwrap_or_default()
    };
    dev.wait(LIMIT, same).expect("snapshot");
    a.pg.run("UPDATE big SET n = n + 1; UPDATE big SET id = id + 100 WHERE id < 5; DELETE FROM events WHERE ctid = (SELECT min(ctid) FROM events)").expect("changes");
    a.pg.run("INSERT INTO \"Odd Näme\" VALUES ('ä', 1), ('', 2); UPDATE events SET what = 'c' WHERE at = 2; BEGIN; SAVEPOINT s; INSERT INTO big VALUES (999, 'x', 1); ROLLBACK TO s; INSERT INTO big VALUES (998, 'y', 1); COMMIT").expect("more");
    dev.wait(LIMIT, same).expect("stream");
}

/// `producer.override.compression.type`: what is stored is small, what a client and a sink read is the same, and a column that an
/// update does not send is found in a compressed batch, too.
#[test]
fn batches_of_a_source_are_compressed_by_each_codec() {
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let Some((a, b)) = pair(&format!("codec_{codec}")) else { return };
        a.pg.run(
            "CREATE TABLE t (id int PRIMARY KEY, doc text, n int); ALTER TABLE t ALTER doc SET STORAGE EXTERNAL;
             INSERT INTO t SELECT i, repeat(md5(i::text), 200), 0 FROM generate_series(1, 300) i;",
        )
        .expect("a table");
        let mut dev = Dev::new(&format!(
            "version: 1\npipeline: shop\nsources:\n  {name}:\n    postgres: {{ url: \"{}\", tables: [t] }}\n    debezium: {{ producer.override.compression.type: {codec} }}\nsinks:\n  copy:\n    from: {name}\n    postgres: {{ url: \"{}\" }}\n",
            a.url(),
            b.url(),
            name = a.name()
        ));
        dev.start().expect("start");
        let same = || difference(&a.pg, "t", &b.pg, "t");
        dev.wait(LIMIT, same).expect("snapshot");
        a.pg.run("UPDATE t SET n = id; DELETE FROM t WHERE id > 290").expect("changes");
        dev.wait(LIMIT, same).expect("stream");
        let events: Vec<Value> = read_topic(&dev.kafka, &format!("{}.public.t", a.name())).expect("kcat reads");
        assert_eq!(events.len(), 300 + 300 + 20, "{codec}");
        let doc = |e: &Value| e["after"]["doc"].as_str().map(str::len);
        assert!(events.iter().filter(|e| e["after"].is_object()).all(|e| doc(e) == Some(6400)), "{codec}: not filled");
        dev.stop().expect("stop");
        let stored: u64 = log_bytes(&dev.data_dir());
        // 600 documents of 6,400 bytes, each 200 times the same 32.
        assert_eq!(stored < 1_500_000, codec != "none", "{codec}: {stored} bytes");
    }
}

/// Bytes of all `.log` files below.
fn log_bytes(dir: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|e| match e.path() {
            path if path.is_dir() => log_bytes(&path),
            path if path.extension().is_some_and(|x| x == "log") => e.metadata().map_or(0, |m| m.len()),
            _ => 0,
        })
        .sum()
}

/// What `ADD COLUMN … DEFAULT` gives to old rows is in no stream; the target's old rows have it all the same, and a default that
/// was set later is none of theirs.
#[test]
fn old_rows_have_in_a_new_column_what_the_source_gave_them() {
    let Some((a, b)) = pair("missing") else { return };
    a.pg.run(
        "CREATE TYPE mood AS ENUM ('sad', 'it''s ok'); CREATE DOMAIN small AS int;
         CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'old' FROM generate_series(1, 50) i;
         CREATE TABLE bag (x int); ALTER TABLE bag REPLICA IDENTITY FULL; INSERT INTO bag VALUES (1), (1), (2)",
    )
    .expect("tables");
    let mut dev = pipeline(&a, &b, "t, bag");
    dev.start().expect("start");
    let same = || {
        let both = [difference(&a.pg, "t", &b.pg, "t"), difference(&a.pg, "bag", &b.pg, "bag")];
        both.into_iter().find(|d| !d.is_empty()).unwrap_or_default()
    };
    dev.wait(LIMIT, same).expect("snapshot");
    // One after the other: a column comes beside others that are there already.
    for (n, column) in [
        "int DEFAULT 7",
        "boolean NOT NULL DEFAULT true",
        "text NOT NULL DEFAULT 'it''s \\ \"so\"'",
        "text DEFAULT ''",
        "numeric(10,2) DEFAULT 1.5",
        "double precision DEFAULT 'NaN'",
        "bytea DEFAULT '\\x00ff'",
        "date DEFAULT '0044-03-15 BC'",
        "timestamptz NOT NULL DEFAULT now()",
        "timestamp DEFAULT 'infinity'",
        "interval DEFAULT '1 mon -3 days 04:05:06.7'",
        "jsonb DEFAULT '{\"a\": [1, null]}'",
        "uuid DEFAULT '00000000-0000-0000-0000-00000000000a'",
        "int[] DEFAULT '{1,NULL,3}'",
        "text[] DEFAULT '{\"a b\",\"c,d\"}'",
        "mood DEFAULT 'it''s ok'",
        "small DEFAULT 9",
        "inet DEFAULT '10.0.0.1/8'",
        "varchar(20) DEFAULT current_user",
        "int",
    ]
    .into_iter()
    .enumerate()
    {
        a.pg.run(&format!("ALTER TABLE t ADD COLUMN c{n} {column}; UPDATE t SET v = 'new' WHERE id = {}", n + 1))
            .expect("a column");
        dev.wait(LIMIT, same).unwrap_or_else(|e| panic!("{column}: {e:#}"));
    }
    // NULL in old rows, whatever new ones get; and a row of before that changes first now.
    a.pg.run(
        "ALTER TABLE t ADD COLUMN late int; ALTER TABLE t ALTER late SET DEFAULT 9; ALTER TABLE t ALTER c0 SET DEFAULT 8;
         INSERT INTO t (id) VALUES (99); UPDATE t SET v = 'new' WHERE id = 45; UPDATE t SET c0 = NULL WHERE id = 44;
         ALTER TABLE bag ADD COLUMN y int DEFAULT 3; DELETE FROM bag WHERE ctid = (SELECT min(ctid) FROM bag); UPDATE bag SET y = 4 WHERE x = 2",
    )
    .expect("late");
    dev.wait(LIMIT, same).expect("a default that came later");
    let seen = b.pg.rows("SELECT c0, late FROM t WHERE id IN (43, 44, 45, 99) ORDER BY id").expect("rows");
    let seen: Vec<Vec<&str>> = seen.iter().map(|r| r.iter().map(|c| c.as_deref().unwrap_or("-")).collect()).collect();
    assert_eq!(seen, [["7", "-"], ["-", "-"], ["7", "-"], ["8", "9"]]);
    // From the log alone: rows of before the columns, then the columns.
    let out = std::process::Command::new(catchwater_tests::broker::binary().expect("a binary"))
        .args(["sink", "rebuild", "shop", "copy", "--http", &dev.http])
        .output()
        .expect("rebuild");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    dev.wait(LIMIT, same).expect("rebuilt");
}

#[test]
fn a_new_column_and_a_server_that_goes_away() {
    let Some((a, b)) = pair("ddl") else { return };
    a.pg.run("CREATE TABLE t (id int PRIMARY KEY, v text)").expect("table");
    let mut dev = pipeline(&a, &b, "t");
    dev.start().expect("start");
    a.pg.run("INSERT INTO t VALUES (1, 'a')").expect("row");
    let same = || difference(&a.pg, "t", &b.pg, "t");
    dev.wait(LIMIT, same).expect("first");
    a.pg.run("ALTER TABLE t ADD COLUMN extra int; INSERT INTO t VALUES (2, 'b', 7)").expect("column");
    dev.wait(LIMIT, same).expect("new column");
    // Both servers cut every connection; everything is resumed.
    a.cut();
    b.cut();
    a.pg.run("INSERT INTO t VALUES (3, 'c', 8)").expect("row");
    dev.wait(LIMIT, same).expect("after the cut");
    assert!(dev.alive());
}

/// As [`pipeline`], with the source's Debezium properties.
fn with_properties(source: &Database, target: &Database, tables: &str, properties: &str) -> Dev {
    Dev::new(&format!(
        "version: 1\npipeline: shop\nsources:\n  {name}:\n    postgres: {{ url: \"{}\", tables: [{tables}] }}\n    debezium: {{ {properties} }}\nsinks:\n  copy:\n    from: {name}.*\n    postgres: {{ url: \"{}\" }}\n    mode: upsert\n",
        source.url(),
        target.url(),
        name = source.name()
    ))
}

#[test]
fn rows_without_their_envelope_reach_a_sink_as_they_are() {
    const UNWRAP: &str = "transforms: u, transforms.u.type: io.debezium.transforms.ExtractNewRecordState";
    const ROUTE: &str = "transforms: \"u, r\", transforms.u.type: io.debezium.transforms.ExtractNewRecordState, \
        transforms.u.add.fields: \"op,source.ts_ms\", schemas.enable: \"true\", \
        transforms.r.type: org.apache.kafka.connect.transforms.RegexRouter, transforms.r.regex: \"(.*)[.]public[.](.*)\", \
        transforms.r.replacement: \"$1-$2\"";
    let rewrite = format!("{UNWRAP}, transforms.u.delete.tombstone.handling.mode: rewrite-with-tombstone");
    let tombstone = format!("{UNWRAP}, compat.defects: \"true\"");
    for (name, properties) in [("flat_r", ROUTE), ("flat_w", &rewrite), ("flat_d", &tombstone)] {
        let Some((a, b)) = pair(name) else { return };
        a.pg.run(
            "CREATE TABLE big (id int PRIMARY KEY, doc text, n numeric); ALTER TABLE big ALTER doc SET STORAGE EXTERNAL;
             CREATE TABLE events (at int, what text); ALTER TABLE events REPLICA IDENTITY FULL;
             INSERT INTO big SELECT i, repeat(md5(i::text), 500), 0 FROM generate_series(1, 20) i;
             INSERT INTO events VALUES (1, 'a'), (1, 'a'), (2, 'b');",
        )
        .expect("tables");
        let mut dev = with_properties(&a, &b, "big, events", properties);
        dev.start().expect("start");
        let same = || {
            let of = ["big", "events"].map(|t| difference(&a.pg, t, &b.pg, t));
            of.into_iter().find(|d| !d.is_empty()).unwrap_or_default()
        };
        dev.wait(LIMIT, same).expect("snapshot");
        let placeholder = properties.contains("defects");
        let update = if placeholder { "n = 'NaN', doc = doc || 'x'" } else { "n = 'NaN'" };
        a.pg.run(&format!(
            "UPDATE big SET {update} WHERE id > 3; DELETE FROM big WHERE id IN (7, 8); \
             DELETE FROM events WHERE ctid = (SELECT min(ctid) FROM events)"
        ))
        .expect("changes");
        a.pg.run("UPDATE events SET what = 'c' WHERE at = 2; INSERT INTO big VALUES (7, NULL, 1.50)").expect("more");
        if !placeholder {
            a.pg.run("UPDATE big SET id = id + 100 WHERE id < 5").expect("keys");
        }
        dev.wait(LIMIT, same).expect("stream");
        let topic = if name == "flat_r" { format!("{}-big", a.name()) } else { format!("{}.public.big", a.name()) };
        let rows: Vec<Value> = read_topic(&dev.kafka, &topic).expect("kcat reads");
        assert!(rows.iter().all(|r| r["source"].is_null() && r["before"].is_null()), "{name}: no envelope");
        let first = if name == "flat_r" { &rows[0]["payload"] } else { &rows[0] };
        assert_eq!(first["id"], 1, "{name}: {first}");
        let nulls = rows.iter().filter(|r| r.is_null()).count();
        assert!(nulls >= 2, "{name}: {nulls} nulls of two deletes");
        match name {
            "flat_r" => assert_eq!((&first["__op"], &rows[0]["schema"]["type"]), (&json!("r"), &json!("struct"))),
            "flat_w" => assert_eq!(rows.iter().filter(|r| r["__deleted"] == "true").count(), 6, "{rows:?}"),
            _ => {}
        }
    }
}

#[test]
fn tables_that_share_a_topic_are_for_clients_and_refused_by_a_sink() {
    let Some((a, b)) = pair("shards") else { return };
    a.pg.run(
        "CREATE TABLE shard_a (id int PRIMARY KEY, v text); CREATE TABLE shard_b (id int PRIMARY KEY, v text);
              INSERT INTO shard_a VALUES (1, 'a'); INSERT INTO shard_b VALUES (1, 'b')",
    )
    .expect("tables");
    let router = "transforms: r, transforms.r.type: io.debezium.transforms.ByLogicalTableRouter, \
                  transforms.r.topic.regex: \"(.*)[.]public[.]shard_.\", transforms.r.topic.replacement: \"$1.shards\"";
    let of = |dev: &Dev| read_topic(&dev.kafka, &format!("{}.shards", a.name())).unwrap_or_default();
    let mut refused = with_properties(&a, &b, "shard_a, shard_b", router);
    let ended = refused.start_or_end(&[]).expect("it ends");
    assert!(ended.is_some() && refused.log().contains("CW0697"), "{}", refused.log());
    let alone = format!(
        "version: 1\npipeline: shop\nsources:\n  {}:\n    postgres: {{ url: \"{}\", tables: [shard_a, shard_b] }}\n    debezium: {{ {router} }}\n",
        a.name(),
        a.url()
    );
    // It was refused before anything was made at the server.
    let made = format!(
        "SELECT slot_name::text FROM pg_replication_slots WHERE slot_name = 'catchwater_{0}'
         UNION ALL SELECT pubname::text FROM pg_publication WHERE pubname = 'catchwater_{0}'",
        a.name()
    );
    assert!(a.pg.rows(&made).expect("rows").is_empty(), "something was made");
    let mut dev = Dev::new(&alone);
    dev.start().expect("start");
    let has = |n: usize| if of(&dev).len() == n { String::new() } else { format!("{} rows", of(&dev).len()) };
    dev.wait(LIMIT, || has(2)).expect("both");
    a.pg.run("UPDATE shard_b SET v = 'c'; DELETE FROM shard_a").expect("changes");
    dev.wait(LIMIT, || has(5)).expect("stream");
}
