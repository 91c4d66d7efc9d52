//! The binary format gives the very events that text gives, for each type that is taken in it, and gives way to text when
//! a column comes that is not.

use crate::support::*;
use catchwater_capture::source::{EventBatch, Source, SourceClass, Start, View};
use catchwater_change::{Cell, Row, RowChange, Value};
use catchwater_connector_postgres::{PgSource, SourceConfig};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Column type → texts of values at its edges. Random ones are made by the server.
const TYPES: &[(&str, &[&str], &str)] = &[
    ("bool", &["t", "f"], "random() < 0.5"),
    ("int2", &["-32768", "32767", "0"], "(random() * 60000 - 30000)::int2"),
    ("int4", &["-2147483648", "2147483647"], "(random() * 4e9 - 2e9)::int4"),
    ("int8", &["-9223372036854775808", "9223372036854775807"], "(random() * 1.8e19 - 9e18)::int8"),
    ("oid", &["0", "4294967295"], "(random() * 4e9)::int8::oid"),
    ("float4", &["NaN", "Infinity", "-Infinity", "-0", "1e-45", "3.4028235e38"], "(random() * 1e6 - 5e5)::float4"),
    (
        "float8",
        &["NaN", "Infinity", "-Infinity", "-0", "5e-324", "1.7976931348623157e308"],
        "random() * exp(random() * 600 - 300)",
    ),
    (
        "numeric",
        &[
            "NaN",
            "Infinity",
            "-Infinity",
            "0",
            "0.00",
            "-0.0001",
            "10000",
            "1e30",
            "12345678901234567890.0987654321000",
            "0.00000000000000000001",
            "99999999999999.9999",
            "-999999999999999999",
            "1000000000000000000",
            "10000.0001",
            "0.1230",
        ],
        "round((random() * exp(random() * 80 - 40))::numeric, (random() * 20)::int)",
    ),
    ("numeric(12,2)", &["0", "-9999999999.99", "1.5", "NaN"], "round((random() * 2e6 - 1e6)::numeric, 2)"),
    ("numeric(20,0)", &["99999999999999999999", "-1"], "round((random() * 1e15)::numeric)"),
    ("text", &["", "NULL", "ü\\\"'", "\t"], "md5(random()::text)"),
    ("varchar(20)", &["", "x"], "left(md5(random()::text), 20)"),
    ("char(5)", &["", "ab"], "left(md5(random()::text), 3)"),
    ("name", &["", "a name"], "md5(random()::text)::name"),
    ("bytea", &["", "\\x00ff5c"], "decode(md5(random()::text), 'hex')"),
    ("uuid", &["00000000-0000-0000-0000-000000000000", "FFFFFFFF-0123-4567-89AB-CDEF01234567"], "gen_random_uuid()"),
    (
        "date",
        &["infinity", "-infinity", "4713-01-01 BC", "5874897-12-31", "1970-01-01", "0001-01-01 BC"],
        "date '1900-01-01' + (random() * 80000)::int",
    ),
    ("time", &["00:00", "24:00", "23:59:59.999999"], "time '00:00' + random() * interval '1 day'"),
    (
        "timestamp",
        &[
            "infinity",
            "-infinity",
            "4713-01-01 00:00 BC",
            "294276-12-31 23:59:59.999999",
            "294247-01-10 04:00:54.775807",
            "294246-12-31 12:00",
            "1969-12-31 23:59:59.5",
        ],
        "timestamp '1900-01-01' + random() * interval '200 years'",
    ),
    (
        "timestamptz",
        &["infinity", "-infinity", "4713-01-02 00:00 BC", "294276-12-31 00:00+00", "2024-02-29 12:00+05:30"],
        "timestamptz '1900-01-01' + random() * interval '200 years'",
    ),
    ("timestamp(3)", &["2024-02-29 12:00:00.1239"], "timestamp(3) '2000-01-01' + random() * interval '1 day'"),
    (
        "interval",
        &["0", "-1 year +2 mons -3 days", "178000000 years", "-04:05:06.789", "1 day -00:00:00.000001"],
        "random() * interval '3 years' - interval '40 days'",
    ),
    ("json", &["null", "{\"a\" : 1,  \"a\": 2}"], "json_build_object('k', random())"),
    ("jsonb", &["null", "{\"b\": [1, \"ü\"], \"a\": 1.50}"], "jsonb_build_object('k', random(), 'l', 'x')"),
    ("mood", &["sad", "it's \"ok\""], "'sad'::mood"),
    ("amount", &["0.10", "99"], "random()::numeric(10,4)"),
    ("feeling", &["sad"], "'sad'::feeling"),
    ("bit(5)", &["00000", "10110"], "(random() * 31)::int::bit(5)"),
    ("varbit", &["", "1", "101010101"], "(random() * 1000000)::int::bit(20)::varbit"),
    (
        "int4[]",
        &["{}", "{NULL,1,-2}", "{{1,2},{3,NULL}}", "[0:1]={7,8}", "[2:3][-1:0]={{1,2},{3,4}}"],
        "ARRAY[1, NULL, (random() * 100)::int]",
    ),
    (
        "text[]",
        &["{}", "{NULL,\"NULL\",\"\",\"a b\",\"c,d\",\"q\\\"\\\\\",\"{x}\",ü}", "{{a,\"b c\"},{null,\"NULL\"}}"],
        "ARRAY[md5(random()::text), NULL, 'x y']",
    ),
    ("numeric(10,2)[]", &["{1.50,NaN,NULL}", "{{0.00},{-1}}"], "ARRAY[round(random()::numeric, 2)]"),
    (
        "timestamptz[]",
        &["{infinity,\"2024-02-29 12:00+05:30\"}", "{{\"0044-03-15 00:00 BC\"},{-infinity}}"],
        "ARRAY[ARRAY[now() + random() * interval '1 year']]",
    ),
    ("date[]", &["{{2024-02-29},{infinity}}"], "ARRAY[current_date + (random() * 100)::int]"),
    ("bytea[]", &["{\"\\\\x00ff\"}", "{{\"\\\\x\"},{\"\\\\x01\"}}"], "ARRAY[decode(md5(random()::text), 'hex')]"),
    ("bool[]", &["{t,f,NULL}", "{{t},{f}}"], "ARRAY[random() < 0.5]"),
    ("uuid[]", &["{{FFFFFFFF-0123-4567-89AB-CDEF01234567}}"], "ARRAY[gen_random_uuid()]"),
    ("jsonb[]", &["{\"{\\\"a\\\": 1}\",null}", "{{\"{}\"},{\"[1]\"}}"], "ARRAY[jsonb_build_object('k', random())]"),
    ("mood[]", &["{sad,\"it's \\\"ok\\\"\"}", "{{sad},{NULL}}"], "ARRAY['sad'::mood]"),
    ("amount[]", &["{0.10}"], "ARRAY[random()::numeric(10,4)::amount]"),
    (
        "float4[]",
        &["{1.5,NaN,NULL}", "{{0.1,1e10},{1e-45,-Infinity}}"],
        "ARRAY[ARRAY[(random() * exp(random() * 60 - 30))::float4]]",
    ),
    (
        "float8[]",
        &["{{1e23,9007199254740993},{5e-324,-0}}", "{{1e15,123456789012345},{0.0001,0.00001}}"],
        "ARRAY[ARRAY[random() * exp(random() * 600 - 300)]]",
    ),
    (
        "interval[]",
        &["{1 day,NULL}", "{{\"-1 year +2 mons -3 days\",0},{\"1 day -00:00:00.000001\",\"-1 mon +04:05:06.789\"}}"],
        "ARRAY[ARRAY[random() * interval '3 years' - interval '40 days']]",
    ),
    ("timetz", &["10:00+02", "24:00-15:59:59", "11:30:00.5-05:30"], "timetz '00:00+01' + random() * interval '1 day'"),
    ("money", &["-92233720368547758.08", "0", "1234.5"], "(random() * 1e6)::numeric::money"),
    (
        "inet",
        &[
            "10.0.0.1",
            "10.1.0.0/16",
            "::1",
            "::",
            "::2",
            "::1.2.3.4",
            "::ffff:1.2.3.4",
            "2001:db8::1:0:0:1/64",
            "1:0:0:2:0:0:0:3",
        ],
        "inet '10.0.0.0' + (random() * 1000000)::int",
    ),
    ("cidr", &["10.1.0.0/16", "10.0.0.1", "2001:db8::/32"], "cidr '10.0.0.0/8'"),
    ("macaddr", &["08:00:2b:01:02:03"], "macaddr '08:00:2b:01:02:03'"),
    ("macaddr8", &["08:00:2b:01:02:03:04:05"], "macaddr8 '08:00:2b:01:02:03:04:05'"),
    ("pg_lsn", &["0/0", "16/B374D848"], "pg_lsn '0/0' + (random() * 1e12)::int8"),
    ("xid", &["42", "4294967295"], "'7'::xid"),
    ("point", &["(1e300,-1e-300)", "(Infinity,NaN)"], "point(random(), random() * 1e6)"),
    ("lseg", &["[(-1,-1),(0.1,0)]"], "lseg(point(random(), 1), point(2, random()))"),
    ("box", &["(1e10,1e10),(-1e10,-1e10)"], "box(point(random(), 1), point(2, random()))"),
    ("path", &["[(0,0),(1,1)]", "((0,0),(1,1),(2,0))"], "path '[(0,0),(1,1)]'"),
    ("polygon", &["((0,0))", "((0,0),(1,1),(2,0))"], "polygon '((0,0),(1,1))'"),
    ("line", &["{0,1,0}", "{1.5,-2,3e20}"], "line(point(random(), 1), point(2, random()))"),
    ("circle", &["<(0,0),0>", "<(1.5,2),3>"], "circle(point(random(), 1), random())"),
    ("tsvector", &["", "a:1 fat:2A,3B,4C cat", "'it''s' 'a\\\\b'"], "to_tsvector('simple', md5(random()::text))"),
    ("jsonpath", &["$.a[*] ? (@ > 1)", "strict $.\"b c\""], "'$.x'::jsonpath"),
    ("int4range", &["empty", "(,)", "[1,5)", "(,9]"], "int4range(1, 2 + (random() * 10)::int)"),
    ("int8range", &["[-9223372036854775808,9223372036854775807)"], "int8range(1, NULL)"),
    ("numrange", &["[1.50,2.250]", "(-1e10,NaN]"], "numrange(random()::numeric, NULL)"),
    (
        "daterange",
        &["[2024-01-01,2024-02-01]", "[-infinity,infinity]", "[0044-03-15 BC,)"],
        "daterange(current_date, NULL)",
    ),
    (
        "tsrange",
        &["[\"2024-01-01 10:00\",\"2024-02-01 00:00:00.5\")", "[-infinity,infinity]", "[294276-12-31,)"],
        "tsrange(localtimestamp, NULL)",
    ),
    ("tstzrange", &["[\"2024-01-01 10:00+02\",)", "(,\"0044-03-15 00:00 BC\")"], "tstzrange(now(), NULL)"),
    ("int4multirange", &["{}", "{[1,3),[5,7)}"], "'{[1,3)}'::int4multirange"),
    ("tstzmultirange", &["{[\"2024-01-01 10:00+02\",)}"], "tstzmultirange(tstzrange(now(), NULL))"),
    ("int4range[]", &["{\"[1,5)\",empty,NULL}", "{{\"[1,5)\"},{empty}}"], "ARRAY[int4range(1, NULL)]"),
    ("inet[]", &["{10.0.0.1,::1,NULL}", "{{10.0.0.1/8}}"], "ARRAY[inet '10.0.0.1']"),
    ("point[]", &["{\"(1,2)\",NULL}", "{{\"(1,2)\"},{\"(3,4)\"}}"], "ARRAY[point(random(), 1)]"),
    ("hstore", &["", "a=>1, \"b c\"=>\"d,\\\"e\\\"\", n=>NULL", "\"q\\\\\"=>\"\""], "hstore('k', md5(random()::text))"),
    ("hstore[]", &["{\"\\\"a\\\"=>\\\"1\\\"\",NULL}"], "ARRAY[hstore('k', 'v')]"),
    ("ltree", &["", "Top.Science"], "'a.b'::ltree"),
    ("lquery", &["Top.*{0,2}.x|y"], "'a.*'::lquery"),
    ("ltxtquery", &["a & b*"], "'a'::ltxtquery"),
    ("ltree[]", &["{a.b,NULL,\"\"}"], "ARRAY['a.b'::ltree]"),
    ("bag", &["a=>1"], "hstore('k', 'v')"),
    ("vector", &["[1,2.5,-3e-10,1e20]"], "ARRAY[random(), random() * 1e6]::vector"),
    ("vector(2)", &["[0.1,16777216]"], "ARRAY[random(), 1]::vector"),
    ("halfvec", &["[0.1,65504,-6e-8,0]"], "ARRAY[random(), random() * 1000]::halfvec"),
    ("sparsevec", &["{}/5", "{1:1.5,3:-2,10:1e-5}/12"], "ARRAY[0, random(), 0]::vector::sparsevec"),
    ("vector[]", &["{\"[1,2]\",NULL}", "{{\"[1,2]\"}}"], "ARRAY['[1]'::vector]"),
    (
        "geometry",
        &["POINT EMPTY", "SRID=4326;POINT Z (1 2 3)", "POLYGON((0 0,1 0,1 1,0 0))"],
        "ST_MakePoint(random(), 1)",
    ),
    ("geography", &["POINT(1 2)"], "ST_MakePoint(random(), 1)::geography"),
    ("geometry(Point,4326)", &["SRID=4326;POINT(1 2)"], "ST_SetSRID(ST_MakePoint(random(), 1), 4326)"),
    (
        "xml",
        &[
            "",
            "<a b=\"1\">ü</a>",
            "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><a/>",
            "<?xml version=\"1.1\" standalone=\"yes\"?><b/>",
            "x<c/>y",
        ],
        "xmlelement(name x, random())",
    ),
    ("xml[]", &["{<a/>,NULL,\"<b>x y</b>\"}"], "ARRAY[xmlelement(name x)]"),
    ("\"char\"", &["", "a", "\"", "\\"], "chr(97 + (random() * 20)::int)::\"char\""),
    ("\"char\"[]", &["{a,NULL,\"\",\"\\\"\",\" \"}"], "ARRAY['x'::\"char\"]"),
    (
        "tsquery",
        &[
            "",
            "a",
            "it''s:*AB & !(fat | cat)",
            "(a <-> b) <3> c",
            "a <-> (b <-> c)",
            "a <2> (b & c | !d)",
            "!!x & (y | z:D)",
            "!(a & b) <-> c",
            "'q\\\\w' | 'a b'",
            "a & (b & c) & (d | (e | f))",
        ],
        "to_tsquery('simple', 'x' || (random() * 100)::int || ' & y')",
    ),
    ("int2vector", &["", "1", "1 -2 3"], "'7 8'::int2vector"),
    ("oidvector", &["", "4294967295 1"], "'26 23'::oidvector"),
    ("txid_snapshot", &["10:20:10,14,15", "7:7:"], "txid_current_snapshot()"),
    ("pg_snapshot", &["10:20:10,14,15"], "pg_current_snapshot()"),
    ("tid", &["(0,1)", "(4294967295,65535)"], "'(3,4)'::tid"),
    ("cid", &["42"], "'7'::cid"),
    ("refcursor", &["", "a cursor"], "'c'::refcursor"),
    (
        "pair",
        &["(1,a)", "(,)", "(-5,\"\")", "(2,\"x, \"\"y\"\" \\\\ (z) ü\")", "(3,null)"],
        "ROW((random() * 100)::int, md5(random()::text))::pair",
    ),
    ("pair[]", &["{\"(1,\\\"a b\\\")\",NULL,\"(,)\"}", "{{\"(1,a)\"},{\"(2,b)\"}}"], "ARRAY[ROW(1, 'x y')::pair]"),
    (
        "wide",
        &[
            concat!(
                "(t,1.50,1e-05,0.1,2024-02-29,\"2024-02-29 12:00:00.5\",\"2024-02-29 12:00:00+02\",\"-1 mons +3 days\",\\\\x00ff,\"{\"\"a\"\": 1}\"",
                ",10110,x,24:00:00,11:30:00.5-05:30,ffffffff-0123-4567-89ab-cdef01234567)"
            ),
            "(,NaN,-0,Infinity,infinity,infinity,\"0044-03-15 00:00:00+00 BC\",,,,,,,,)",
        ],
        concat!(
            "ROW(true, random(), random(), random(), current_date, localtimestamp, now(), random() * interval '3 years', '\\x01', '1', '1', 'y', localtime, '10:00+01',",
            " gen_random_uuid())::wide"
        ),
    ),
    ("varbit[]", &["{101,NULL}", "{{1},{01}}"], "ARRAY[(random() * 1000)::int::bit(10)::varbit]"),
];

/// The extension that brings a type.
fn of_extension(name: &str) -> Option<&'static str> {
    match name.trim_end_matches("[]").split('(').next().unwrap() {
        "hstore" | "bag" => Some("hstore"),
        "ltree" | "lquery" | "ltxtquery" => Some("ltree"),
        "vector" | "halfvec" | "sparsevec" => Some("vector"),
        "geometry" | "geography" => Some("postgis"),
        _ => None,
    }
}

/// Those that the server has. PostGIS and pgvector are not brought by PostgreSQL itself.
async fn extensions(db: &Db) -> Vec<String> {
    let sql = "SELECT name::text FROM pg_available_extensions WHERE name IN ('hstore', 'ltree', 'vector', 'postgis')";
    db.client.query(sql, &[]).await.unwrap().iter().map(|r| r.get(0)).collect()
}

fn config(db: &Db, name: &str, binary: bool) -> SourceConfig {
    let plain = db.config(&["every", "marker"]);
    SourceConfig { source: name.into(), publication: Some(plain.publication()), binary, ..plain }
}

async fn open(config: SourceConfig) -> PgSource {
    let mut source = PgSource::new(config);
    let known = source.identify().await.unwrap();
    source.open(Start::Fresh, Some(known)).await.unwrap();
    source
}

/// Bits of floats, so that NaN equals NaN and 0 is not -0.
fn bits(cell: &Cell) -> String {
    match cell {
        Cell::Value(Value::Float32(v)) if !v.is_nan() => format!("f32 {:x}", v.to_bits()),
        Cell::Value(Value::Float64(v)) if !v.is_nan() => format!("f64 {:x}", v.to_bits()),
        cell => format!("{cell:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_gives_what_text_gives() {
    for server in servers() {
        let db = database_on(&server, "binary").await;
        let available = extensions(&db).await;
        for name in &available {
            db.exec(&format!("CREATE EXTENSION {name}")).await;
        }
        if available.contains(&"hstore".to_owned()) {
            db.exec("CREATE DOMAIN bag AS hstore").await;
        }
        // A server may be built without it.
        let has_xml = db.client.execute("SELECT '<a/>'::xml", &[]).await.is_ok();
        let is_there = |t: &str| match of_extension(t) {
            Some(extension) => available.iter().any(|a| a == extension),
            None => has_xml || !t.starts_with("xml"),
        };
        let types: Vec<_> = TYPES.iter().filter(|(t, ..)| is_there(t)).collect();
        db.exec(
            "CREATE TYPE mood AS ENUM ('sad', 'it''s \"ok\"'); CREATE DOMAIN amount AS numeric(10,4);
             CREATE TYPE pair AS (a int, b text);
             CREATE TYPE wide AS (a bool, b numeric, c float4, d float8, e date, f timestamp, g timestamptz, h interval,
               i bytea, j jsonb, k varbit, l \"char\", m time, n timetz, o uuid);
             CREATE DOMAIN feeling AS mood; CREATE TABLE marker(id int PRIMARY KEY)",
        )
        .await;
        let columns: Vec<String> = types.iter().enumerate().map(|(i, (t, ..))| format!("c{i} {t}")).collect();
        db.exec(&format!("CREATE TABLE every(id serial PRIMARY KEY, {})", columns.join(", "))).await;
        db.exec("ALTER TABLE every REPLICA IDENTITY FULL").await;
        let mut text = open(config(&db, &format!("{}_t", db.name), false)).await;
        let mut binary = open(config(&db, &format!("{}_b", db.name), true)).await;
        let used = "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%binary ''true''%' AND backend_type = 'walsender'";
        assert_eq!(db.one(used).await, "1", "one stream is binary");
        for (i, (_, edges, _)) in types.iter().enumerate() {
            for edge in *edges {
                db.client
                    .execute(&format!("INSERT INTO every(c{i}) VALUES ('{}')", edge.replace('\'', "''")), &[])
                    .await
                    .unwrap();
            }
        }
        let random: Vec<&str> = types.iter().map(|(.., sql)| *sql).collect();
        let names: Vec<String> = (0..types.len()).map(|i| format!("c{i}")).collect();
        let (names, random) = (names.join(", "), random.join(", "));
        db.exec(&format!("INSERT INTO every({names}) SELECT {random} FROM generate_series(1, 300)")).await;
        db.exec("UPDATE every SET c1 = 1; DELETE FROM every WHERE id % 3 = 0").await;
        db.exec("INSERT INTO marker VALUES (1)").await;
        // PostgreSQL 14 sends transactions without rows, too: of autovacuum, whenever it runs.
        let filled = |txns: Vec<Txn>| txns.into_iter().filter(|t| !t.rows.is_empty()).collect::<Vec<_>>();
        let want = filled(read_to_marker(&mut text).await);
        let got = filled(read_to_marker(&mut binary).await);
        assert_eq!(got.len(), want.len());
        let mut seen = 0;
        for (g, w) in got.iter().zip(&want) {
            assert_eq!((&g.id, &g.native, g.rows.len()), (&w.id, &w.native, w.rows.len()));
            for (g, w) in g.rows.iter().zip(&w.rows) {
                assert_eq!(g.table, w.table);
                for (g, w) in [(&g.before, &w.before), (&g.after, &w.after)] {
                    assert_eq!(g.is_some(), w.is_some());
                    let cells = g.iter().flat_map(|r| &r.cells).zip(w.iter().flat_map(|r| &r.cells)).enumerate();
                    for (i, (g, w)) in cells {
                        assert_eq!(bits(g), bits(w), "{server}: {:?}", i.checked_sub(1).map(|i| types[i].0));
                        seen += 1;
                    }
                }
            }
        }
        assert!(seen > 300 * types.len() * 2, "{seen} cells were compared");
        // What the first snapshot's COPY brings is what the stream's text says of the same rows.
        let mut rows: BTreeMap<String, Row> = BTreeMap::new();
        for change in want.iter().flat_map(|t| &t.rows).filter(|r| r.table.name == "every") {
            let id = |row: &Option<Row>| row.as_ref().map(|r| bits(&r.cells[0]));
            id(&change.before).and_then(|id| rows.remove(&id));
            if let (Some(id), Some(row)) = (id(&change.after), &change.after) {
                rows.insert(id, row.clone());
            }
        }
        let mut source = PgSource::new(config(&db, &format!("{}_s", db.name), false));
        let known = source.identify().await.unwrap();
        let tables = source.open(Start::Fresh, Some(known)).await.unwrap().tables;
        let every = tables.iter().find(|t| t.name == "every").unwrap().clone();
        let mut readers = [source.snapshot().unwrap(), source.snapshot().unwrap()];
        let chunks = readers[0].plan(&[every]).await.unwrap();
        // The first COPY waits for a lock, so that the server tells its text.
        let lock = connect(&db.url).await;
        lock.batch_execute("BEGIN; LOCK TABLE every IN ACCESS EXCLUSIVE MODE").await.unwrap();
        for (n, (chunk, reader)) in chunks.iter().zip([1, 0].into_iter().cycle()).enumerate() {
            let mut each = |row: RowChange| {
                let got = row.after.unwrap();
                let want = rows.remove(&bits(&got.cells[0])).expect("a row that the stream has, once");
                for (i, (g, w)) in got.cells.iter().zip(&want.cells).enumerate() {
                    assert_eq!(bits(g), bits(w), "{server}: {:?} of a COPY", i.checked_sub(1).map(|i| types[i].0));
                }
                Ok(())
            };
            let copied = "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() \
                 AND wait_event_type = 'Lock' AND query LIKE 'COPY%(FORMAT binary)'";
            let look = async {
                let start = Instant::now();
                while n == 0 && db.one(copied).await != "1" {
                    assert!(start.elapsed() < LIMIT, "the copy is binary");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                if n == 0 {
                    lock.batch_execute("COMMIT").await.unwrap();
                }
            };
            let (read, ()) = tokio::join!(readers[reader].read_each(chunk, &mut each), look);
            assert_eq!(read.unwrap(), View::Exported);
        }
        assert!(rows.is_empty(), "{} rows are in no unit", rows.len());
        for mut reader in readers {
            reader.close().await;
        }
        source.close().await;
        text.close().await;
        binary.close().await;
        db.drop().await;
    }
}

/// A column whose binary form is not known: the stream breaks off once, begins again as text, and no row is lost or wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_of_another_type_turns_the_stream_to_text() {
    let Some(db) = database("totext").await else { return };
    db.exec("CREATE TABLE every(id int PRIMARY KEY, v text); CREATE TABLE marker(id int PRIMARY KEY)").await;
    let config = config(&db, &db.name, true);
    let mut source = open(config.clone()).await;
    db.exec("INSERT INTO every VALUES (1, 'a')").await;
    let first = read_until(&mut source, |t| t.len() == 1).await;
    // Added and gone again: the catalogue does not show it any more when the row is read.
    db.exec("ALTER TABLE every ADD COLUMN p regclass; INSERT INTO every VALUES (2, 'b', 'pg_class'); ALTER TABLE every DROP COLUMN p").await;
    db.exec("INSERT INTO marker VALUES (1)").await;
    let error = async {
        loop {
            if let Err(e) = source.next(&mut EventBatch::new(1 << 20)).await {
                break e;
            }
        }
    };
    let error = tokio::time::timeout(LIMIT, error).await.expect("it breaks off");
    assert_eq!(error.class, SourceClass::Retry, "{error}");
    source.close().await;
    // As the worker does: a new instance of the same configuration.
    let mut source = PgSource::new(config);
    source.open(Start::After(first[0].native.clone()), None).await.unwrap();
    let rest = read_to_marker(&mut source).await;
    assert_eq!(show_all(&rest), [["c every none -> 2,b,pg_class"]]);
    source.close().await;
    db.drop().await;
}
