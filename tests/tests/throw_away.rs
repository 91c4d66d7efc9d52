//! `dev FILE` without `--data-dir`: at its clean end everything that belonged to the thrown-away log is gone from the
//! databases, so a second run begins like the first; what it did not make is left alone, and after `kill -9` the error
//! says how to remove what stayed.

use catchwater_tests::dev::Dev;
use catchwater_tests::pg::{Database, difference};
use rusqlite::Connection;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(40);

fn postgres(a: &Database, b: &Database) -> Dev {
    let mut dev = Dev::new(&format!(
        "version: 1\npipeline: shop\nsources:\n  {name}:\n    postgres: {{ url: \"{}\", tables: [t] }}\nsinks:\n  copy:\n    from: {name}.*\n    postgres: {{ url: \"{}\" }}\n    mode: upsert\n",
        a.url(),
        b.url(),
        name = a.name()
    ));
    dev.throw_away = true;
    dev
}

/// What of ours is in both databases.
fn left(a: &Database, b: &Database) -> String {
    let slots = format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'catchwater_{}'", a.name());
    [
        a.pg.one(&slots),
        a.pg.one("SELECT count(*) FROM pg_publication"),
        b.pg.one("SELECT count(*) FROM catchwater.position"),
    ]
    .map(|n| n.expect("count"))
    .join(" ")
}

fn end(dev: &mut Dev) {
    let (status, took) = dev.stop().expect("stop");
    assert_eq!(status.code(), Some(143), "{}", dev.log_tail());
    // Two seconds are promised (`demo.rs` holds it to them); here several nodes share a disk.
    assert!(took < Duration::from_secs(4), "took {took:?}");
}

#[test]
fn postgres_twice_on_the_same_databases() {
    let Some((a, b)) = Database::create("pg15", "thrown_a").zip(Database::create("pg15", "thrown_b")) else { return };
    a.pg.run("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')").expect("table");
    let mut dev = postgres(&a, &b);
    for round in 1..=2 {
        dev.start().expect("start");
        a.pg.run(&format!("UPDATE t SET v = v || '!'; INSERT INTO t VALUES ({}, 'b')", round + 10)).expect("change");
        dev.wait(LIMIT, || difference(&a.pg, "t", &b.pg, "t")).expect("equal");
        assert_eq!(left(&a, &b), "1 1 1");
        end(&mut dev);
        assert_eq!(left(&a, &b), "0 0 0", "round {round}: {}", dev.log_tail());
    }
    let scratch = std::fs::read_dir(dev.folder()).expect("folder").filter_map(Result::ok);
    let scratch: Vec<_> = scratch.filter(|e| e.file_name().to_string_lossy().starts_with("catchwater-dev")).collect();
    assert!(scratch.is_empty(), "{scratch:?}");
}

#[test]
fn postgres_keeps_what_the_run_did_not_make() {
    let Some((a, b)) = Database::create("pg15", "kept_a").zip(Database::create("pg15", "kept_b")) else { return };
    let name = format!("catchwater_{}", a.name());
    a.pg.run(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, v text);
         CREATE PUBLICATION {name} FOR TABLE t WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)"
    ))
    .expect("table");
    let mut dev = postgres(&a, &b);
    dev.start().expect("start");
    a.pg.run("INSERT INTO t VALUES (1, 'a')").expect("row");
    dev.wait(LIMIT, || difference(&a.pg, "t", &b.pg, "t")).expect("equal");
    b.pg.run("INSERT INTO catchwater.position SELECT pipeline, 'other', source, lane, cluster, fence, incarnation, seq, done, offsets, position, commit_ts, updated_at FROM catchwater.position").expect("another sink");
    end(&mut dev);
    assert_eq!(left(&a, &b), "0 1 1", "the publication was there before: {}", dev.log_tail());

    // A slot of that name that another log holds: refused, and not touched.
    a.pg.run(&format!("SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')")).expect("slot");
    let status = dev.start_or_end(&[]).expect("runs").expect("ends by itself");
    assert!(!status.success());
    assert!(dev.log().contains("CW0520"), "{}", dev.log_tail());
    assert!(left(&a, &b).starts_with("1 1"), "{}", dev.log_tail());
}

#[test]
fn after_a_kill_the_errors_say_what_to_remove() {
    let Some((a, b)) = Database::create("pg15", "killed_a").zip(Database::create("pg15", "killed_b")) else { return };
    a.pg.run("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')").expect("table");
    let mut dev = postgres(&a, &b);
    dev.start().expect("start");
    dev.wait(LIMIT, || difference(&a.pg, "t", &b.pg, "t")).expect("equal");
    dev.kill();
    a.cut();
    let mut removed = Vec::new();
    // Source or sink is seen first: each refusal names the SQL for its database.
    for _ in 0..3 {
        let before = dev.log().len();
        let Some(_) = dev.start_or_end(&[]).expect("runs") else { break };
        // What a person reads; the JSON lines say the same, escaped.
        let log = dev.log()[before..].lines().filter(|l| !l.starts_with('{')).collect::<Vec<_>>().join("\n");
        let sql = |from: &str| {
            let at = log.find(from).unwrap_or_else(|| panic!("no {from} in {log}"));
            let line = log[at..].lines().next().unwrap_or_default();
            line.split("; then: ").next().unwrap_or_default().to_owned()
        };
        if log.contains("CW0520") {
            a.pg.run(&sql("SELECT pg_drop_replication_slot")).expect("the printed SQL");
            removed.push("slot");
        }
        if log.contains("CW0607") {
            b.pg.run(&sql("DELETE FROM")).expect("the printed SQL");
            removed.push("row");
        }
    }
    removed.sort();
    removed.dedup();
    assert_eq!(removed, ["row", "slot"]);
    dev.wait(LIMIT, || difference(&a.pg, "t", &b.pg, "t")).expect("equal");
    end(&mut dev);
    assert_eq!(left(&a, &b), "0 0 0", "{}", dev.log_tail());
}

#[test]
fn sqlite_twice_on_the_same_files() {
    let mut dev = Dev::new(
        "version: 1\npipeline: shop\nsources:\n  shop:\n    sqlite: { file: a.db, tables: [t] }\nsinks:\n  copy:\n    from: shop\n    sqlite: { file: b.db }\n    mode: upsert\n",
    );
    dev.throw_away = true;
    let (from, to) = (dev.folder().join("a.db"), dev.folder().join("b.db"));
    let db = Connection::open(&from).expect("source");
    db.busy_timeout(LIMIT).expect("setting");
    db.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT UNIQUE)")
        .expect("table");
    let rows = |file: &std::path::Path, sql: &str| -> Vec<String> {
        let Ok(db) = Connection::open(file) else { return Vec::new() };
        let Ok(mut statement) = db.prepare(sql) else { return Vec::new() };
        let found = statement.query_map([], |r| r.get::<_, String>(0));
        found.map(|f| f.filter_map(Result::ok).collect()).unwrap_or_default()
    };
    const ALL: &str = "SELECT id || ' ' || v FROM t ORDER BY id";
    const OURS: &str = "SELECT name FROM sqlite_schema WHERE name GLOB '_catchwater_*'";
    const POSITIONS: &str = "SELECT sink FROM catchwater_position";
    for round in 1..=2 {
        dev.start().expect("start");
        db.execute("INSERT INTO t (v) VALUES ('round ' || ?1)", [round]).expect("row");
        let want = rows(&from, ALL);
        dev.wait(LIMIT, || if rows(&to, ALL) == want { String::new() } else { format!("not {want:?}") })
            .expect("equal");
        assert!(!rows(&from, OURS).is_empty() && rows(&to, POSITIONS) == ["copy"]);
        end(&mut dev);
        assert!(rows(&from, OURS).is_empty(), "round {round}: {}", dev.log_tail());
        assert!(rows(&to, POSITIONS).is_empty(), "round {round}: {}", dev.log_tail());
    }
}
