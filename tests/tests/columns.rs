//! Columns of a PostgreSQL target as the file says: left out, renamed, of another type, in small letters; and what of that is
//! refused. Every row is accounted for.

use catchwater_tests::dev::Dev;
use catchwater_tests::pg::Database;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

fn pipeline(a: &Database, b: &Database, more: &str) -> String {
    let name = a.name();
    format!(
        "version: 1\npipeline: p\nsources:\n  {name}:\n    postgres: {{ url: \"{}\", tables: [t] }}\nsinks:\n  copy:\n    from: {name}\n    postgres: {{ url: \"{}\" }}\n{more}",
        a.url(),
        b.url()
    )
}

fn wait(dev: &Dev, db: &Database, sql: &str, want: &str) {
    let seen = || {
        let rows = db.pg.rows(sql).unwrap_or_default();
        let row =
            |r: &Vec<Option<String>>| r.iter().map(|c| c.as_deref().unwrap_or("NULL")).collect::<Vec<_>>().join(",");
        rows.iter().map(row).collect::<Vec<_>>().join(" ")
    };
    dev.wait(LIMIT, || if seen() == want { String::new() } else { format!("`{}`", seen()) })
        .unwrap_or_else(|e| panic!("{sql}: {e:#}"));
}

const SHAPE: &str = "SELECT string_agg(attname || ':' || format_type(atttypid, atttypmod), ' ' ORDER BY attnum)
    FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attnum > 0 AND NOT attisdropped";

#[test]
fn columns_are_left_out_renamed_and_typed() {
    let Some(a) = Database::create("pg15", "columns_a") else { return };
    let Some(b) = Database::create("pg15", "columns_b") else { return };
    a.pg.run("CREATE TABLE t (\"Id\" int PRIMARY KEY, \"Total\" numeric, secret text, note text)").expect("table");
    a.pg.run("INSERT INTO t VALUES (1, 1.25, 's', 'n'), (2, 2, 's', NULL)").expect("rows");
    let name = a.name();
    let columns = "select: { drop: [secret] }, columns: { Total: { name: Amount, type: \"numeric(9,3)\" } }";
    let mut dev = Dev::new(&pipeline(
        &a,
        &b,
        &format!("    names: fold\n    tables:\n      {name}.public.t: {{ name: Orders, {columns} }}\n"),
    ));
    dev.start().expect("start");
    wait(&dev, &b, "SELECT id, amount, note FROM orders ORDER BY id", "1,1.250,n 2,2.000,NULL");
    assert_eq!(b.pg.one(SHAPE).expect("shape"), "id:integer amount:numeric(9,3) note:text");
    // Changes of what is left out alone, of the key, deletes; then a new column, in its turn.
    a.pg.run("UPDATE t SET secret = 'x'; UPDATE t SET \"Id\" = 3, \"Total\" = 7 WHERE \"Id\" = 1; DELETE FROM t WHERE \"Id\" = 2")
        .expect("changes");
    wait(&dev, &b, "SELECT id, amount, note FROM orders ORDER BY id", "3,7.000,n");
    a.pg.run("ALTER TABLE t ADD COLUMN \"More\" text; INSERT INTO t VALUES (4, 4, 's', 'n', 'm')").expect("a column");
    wait(&dev, &b, "SELECT id, more FROM orders ORDER BY id", "3,NULL 4,m");
    // The column that is left out goes from the source: the file may go on naming it, over a restart, too.
    a.pg.run("ALTER TABLE t DROP COLUMN secret; INSERT INTO t VALUES (5, 5, 'n', 'm')").expect("a column less");
    wait(&dev, &b, "SELECT count(*) FROM orders", "3");
    dev.kill();
    dev.start().expect("again");
    a.pg.run("INSERT INTO t VALUES (6, 6, 'n', 'm')").expect("a row");
    wait(&dev, &b, "SELECT count(*) FROM orders", "4");
    // What the given type does not hold is refused as a row.
    a.pg.run("INSERT INTO t VALUES (7, 10000000, 'n', 'm')").expect("a row");
    dev.wait(LIMIT, || if state(&dev).contains("CW0609 public.orders") { String::new() } else { state(&dev) })
        .expect("one clear error");
    assert!(!dev.log().contains("10000000"), "a value in the log");
    dev.ledger().expect("rows in = rows out");
}

/// What the sink says of itself.
fn state(dev: &Dev) -> String {
    let url = format!("http://{}/api/v1/lag", dev.http);
    let out = std::process::Command::new("curl").args(["-s", &url]).output().expect("curl");
    let lines: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
    let sink = lines.as_array().into_iter().flatten().find(|l| l["kind"] == "sink").cloned();
    sink.unwrap_or_default().to_string()
}

#[test]
fn a_choice_of_columns_that_cannot_be_is_one_error() {
    let Some(a) = Database::create("pg15", "choice_a") else { return };
    let Some(b) = Database::create("pg15", "choice_b") else { return };
    a.pg.run("CREATE TABLE t (id int PRIMARY KEY, a text, \"A\" text); INSERT INTO t VALUES (1, 'x', 'y')")
        .expect("table");
    let name = a.name();
    for (i, (more, word)) in [
        ("select: { drop: [secrte] }", "no column secrte"),
        ("select: { keep: [a] }", "part of the key"),
        ("columns: { a: { name: A } }", "would both be"),
    ]
    .into_iter()
    .enumerate()
    {
        let table = format!("    tables:\n      {name}.public.t: {{ name: t{i}, {more} }}\n");
        let mut dev = Dev::new(&pipeline(&a, &b, &table));
        dev.throw_away = true;
        dev.start().expect("start");
        dev.wait(LIMIT, || {
            let text = state(&dev);
            if text.contains("CW0694") && text.contains(word) { String::new() } else { text }
        })
        .unwrap_or_else(|e| panic!("{more}: {e:#}"));
        assert_eq!(b.pg.one(&format!("SELECT to_regclass('t{i}') IS NULL")).expect("target"), "t");
        dev.stop().expect("ends, and takes its slot with it");
    }
}

/// `on_schema_change: fail`: each change that the target would need is one error, and what a person did to the target is taken.
#[test]
fn with_fail_nobody_but_a_person_changes_the_target() {
    let Some(a) = Database::create("pg18", "fail_a") else { return };
    let Some(b) = Database::create("pg18", "fail_b") else { return };
    a.pg.run("CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t VALUES (1, 'x')").expect("table");
    let mut dev = Dev::new(&pipeline(&a, &b, "    on_schema_change: fail\n"));
    dev.start().expect("start");
    // (what the source does, what the sink says, what the person does to the target, columns that are equal then)
    for (source, says, target, columns) in [
        ("", "the table is missing", "CREATE TABLE t (id int PRIMARY KEY, a text)", "id, a"),
        (
            "ALTER TABLE t ADD COLUMN b int; INSERT INTO t VALUES (2, 'y', 2)",
            "column b is missing",
            "ALTER TABLE t ADD COLUMN b int",
            "id, a, b",
        ),
        (
            "ALTER TABLE t RENAME COLUMN a TO c; INSERT INTO t VALUES (3, 'z', 3)",
            "column c is missing",
            "ALTER TABLE t RENAME COLUMN a TO c",
            "id, c, b",
        ),
        // What the source drops stays.
        ("ALTER TABLE t DROP COLUMN b; INSERT INTO t VALUES (4, 'w')", "", "", "id, c"),
    ] {
        for sql in source.split("; ").filter(|s| !s.is_empty()) {
            a.pg.run(sql).expect(sql);
        }
        if !says.is_empty() {
            let said = || state(&dev);
            dev.wait(LIMIT, || if said().contains("CW0680") && said().contains(says) { String::new() } else { said() })
                .unwrap_or_else(|e| panic!("{says}: {e:#}"));
            b.pg.run(target).expect(target);
            let restart = ["pipeline", "restart", "p", "--http", &dev.http];
            let binary = catchwater_tests::broker::binary().expect("binary");
            let out = std::process::Command::new(binary).args(restart).output().expect("runs");
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        }
        let query = format!("SELECT {columns} FROM t ORDER BY id");
        let rows = |db: &Database| format!("{:?}", db.pg.rows(&query).map_err(|e| e.to_string()));
        dev.wait(LIMIT, || if rows(&a) == rows(&b) { String::new() } else { rows(&b) })
            .unwrap_or_else(|e| panic!("{source}: {e:#}"));
    }
    dev.ledger().expect("rows in = rows out");
}

/// A table, or a column, that was dropped before its changes were read: the catalogue does not show it any more, so nobody says
/// that a column of it is another one than before, and what the target has stays.
#[test]
fn what_was_dropped_before_it_was_read_keeps_its_rows() {
    let Some(a) = Database::create("pg15", "dropped_a") else { return };
    let Some(b) = Database::create("pg15", "dropped_b") else { return };
    a.pg.run(
        "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE bare (id int, v text); CREATE TABLE u (id int PRIMARY KEY, v text);
         ALTER TABLE bare REPLICA IDENTITY FULL; CREATE TABLE mark (id int PRIMARY KEY);
         INSERT INTO t VALUES (1, 'a'), (2, 'b'); INSERT INTO bare VALUES (1, 'a'), (2, 'b'); INSERT INTO u VALUES (1, 'a'), (2, 'b')",
    )
    .expect("tables");
    let text = pipeline(&a, &b, "").replace("tables: [t]", "tables: [\"public.*\"]");
    let mut dev = Dev::new(&text);
    dev.start().expect("start");
    for table in ["t", "bare", "u"] {
        wait(&dev, &b, &format!("SELECT id, v FROM {table} ORDER BY id"), "1,a 2,b");
    }
    dev.kill();
    for table in ["t", "bare"] {
        let more = format!("ALTER TABLE {table} ADD w int; UPDATE {table} SET w = 1 WHERE id = 2; DROP TABLE {table}");
        a.pg.run(&more).expect("dropped");
    }
    a.pg.run(
        "BEGIN; ALTER TABLE u ADD w int; UPDATE u SET w = 1 WHERE id = 2; ALTER TABLE u ADD x int;
         ALTER TABLE u DROP v; COMMIT; INSERT INTO u VALUES (3, 3, 3)",
    )
    .expect("a column is dropped");
    a.pg.run("INSERT INTO mark VALUES (1)").expect("mark");
    dev.start().expect("again");
    wait(&dev, &b, "SELECT id FROM mark", "1");
    wait(&dev, &b, "SELECT id, v, w FROM u ORDER BY id", "1,a,NULL 2,b,1 3,NULL,3");
    wait(&dev, &b, "SELECT id, v FROM t ORDER BY id", "1,a 2,b");
    wait(&dev, &b, "SELECT id, v FROM bare ORDER BY id", "1,a 2,b");
    dev.ledger().expect("rows in = rows out");
}

/// The stream has no TRUNCATE of a partition that comes under its root. Where it is the only one, its file alone does not say whether
/// the table was truncated: that the stream has none of the table does.
#[test]
fn a_truncate_of_the_only_partition_is_told_and_one_of_the_table_is_followed() {
    let Some(a) = Database::create("pg15", "only_a") else { return };
    let Some(b) = Database::create("pg15", "only_b") else { return };
    for table in ["alone", "whole", "wider"] {
        a.pg.run(&format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
             CREATE TABLE {table}_1 PARTITION OF {table} DEFAULT; INSERT INTO {table} VALUES (1, 1)"
        ))
        .expect("table");
    }
    let mut dev = Dev::new(&pipeline(&a, &b, "").replace("tables: [t]", "tables: [alone, whole, wider]"));
    dev.start().expect("start");
    for table in ["alone", "whole", "wider"] {
        wait(&dev, &b, &format!("SELECT id FROM {table}"), "1");
    }
    a.pg.run("TRUNCATE alone_1; TRUNCATE whole; ALTER TABLE wider ALTER v TYPE bigint").expect("truncated");
    a.pg.run("INSERT INTO alone VALUES (2, 2)").expect("a row");
    wait(&dev, &b, "SELECT count(*) FROM whole", "0");
    let told = || {
        let log = dev.log();
        let lines: Vec<&str> = log.lines().filter(|l| l.contains("CW0536")).collect();
        let is_told = lines.len() == 1 && lines[0].contains("public.alone_1 of public.alone was truncated by itself");
        if is_told { String::new() } else { format!("{lines:?}") }
    };
    dev.wait(LIMIT, told).unwrap_or_else(|e| panic!("{e:#}"));
    assert_eq!(b.pg.one("SELECT string_agg(id::text, ',' ORDER BY id) FROM alone").expect("rows"), "1,2");
}
