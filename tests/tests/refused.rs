//! Rows that a PostgreSQL target refuses, and modes, by the built binary: the pipeline file's words do what they say.

use catchwater_tests::bank::read_topic;
use catchwater_tests::dev::Dev;
use catchwater_tests::pg::Database;
use std::time::Duration;

fn pipeline(source: &Database, target: &Database, more: &str) -> String {
    let (name, source, target) = (source.name(), source.url(), target.url());
    format!(
        "version: 1\npipeline: shop\nsources:\n  {name}:\n    postgres: {{ url: \"{source}\", tables: [t] }}\nsinks:\n  copy:\n    from: {name}\n    postgres: {{ url: \"{target}\" }}\n{more}"
    )
}

fn shown(target: &Database, sql: &str) -> String {
    let rows = target.pg.rows(sql).unwrap_or_default();
    let row = |r: &Vec<Option<String>>| r.iter().map(|c| c.as_deref().unwrap_or("NULL")).collect::<Vec<_>>().join(",");
    rows.iter().map(row).collect::<Vec<_>>().join(" ")
}

#[test]
fn poison_rows_are_set_aside_and_everything_else_arrives() {
    let Some(source) = Database::create("pg15", "poison_source") else { return };
    let Some(target) = Database::create("pg15", "poison_target") else { return };
    let create = "CREATE TABLE t (id int PRIMARY KEY, a int, b text)";
    source.pg.run(create).expect("the source's table");
    // A foreign shape: the target refuses what the source takes.
    target.pg.run(&format!("{create}; ALTER TABLE t ADD CHECK (a < 1000)")).expect("the target's table");
    // Four bad in a snapshot of 4,000.
    source.pg.run("INSERT INTO t SELECT i, CASE WHEN i % 1000 = 7 THEN 5000 ELSE i % 500 END, 'x' FROM generate_series(1, 4000) i").expect("rows");
    let mut dev = Dev::new(&pipeline(&source, &target, "    on_error: { row: park_key }\n"));
    dev.start().expect("start");
    let count = || shown(&target, "SELECT count(*) FROM t");
    let wait = |dev: &Dev, want: &str| {
        dev.wait(Duration::from_secs(90), || if count() == want { String::new() } else { format!("{} rows", count()) })
            .unwrap_or_else(|e| panic!("{e:#}"));
    };
    wait(&dev, "3996");
    // A later row of a parked key goes aside, though it would fit; another key's goes on. A kill changes neither: the start after
    // it looks at what the key's letters come to, and that does not fit again.
    source
        .pg
        .run(
            "UPDATE t SET a = 1 WHERE id = 7; UPDATE t SET a = 6000 WHERE id = 7; INSERT INTO t VALUES (30000, 1, 'y')",
        )
        .expect("later rows");
    wait(&dev, "3997");
    dev.kill();
    dev.start().expect("again");
    source.pg.run("UPDATE t SET a = 2 WHERE id = 7; INSERT INTO t VALUES (30001, 1, 'y')").expect("later rows");
    wait(&dev, "3998");
    assert_eq!(shown(&target, "SELECT count(*) FROM t WHERE id % 1000 = 7 AND id < 4000"), "0");
    let letters = read_topic(&dev.kafka, "shop.dlq").expect("the dead letters");
    let of_seven: Vec<i64> =
        letters.iter().filter(|l| l["after"]["id"] == 7).filter_map(|l| l["after"]["a"].as_i64()).collect();
    assert!(letters.len() >= 7, "{} dead letters", letters.len());
    let mut once = of_seven.clone();
    once.dedup();
    assert_eq!(once, [5000, 1, 6000, 2], "in the source's order");
    // The target is repaired; the next start applies what was set aside.
    target.pg.run("ALTER TABLE t DROP CONSTRAINT t_a_check").expect("repaired");
    dev.kill();
    dev.start().expect("after the repair");
    wait(&dev, "4002");
    assert_eq!(shown(&target, "SELECT a FROM t WHERE id IN (7, 1007) ORDER BY id"), "2 5000");
    source.pg.run("UPDATE t SET a = 3 WHERE id = 7").expect("a later row");
    let seven = || shown(&target, "SELECT a FROM t WHERE id = 7");
    dev.wait(Duration::from_secs(60), || if seven() == "3" { String::new() } else { seven() })
        .expect("it is un-parked");
}

/// The built binary's command line against this node: exit code and standard output as JSON.
fn cli(dev: &Dev, args: &[&str]) -> (i32, serde_json::Value) {
    let binary = catchwater_tests::broker::binary().expect("binary");
    let out = std::process::Command::new(binary)
        .args(args)
        .args(["--http", &dev.http, "-o", "json"])
        .env_remove("RUST_BACKTRACE")
        .output()
        .expect("runs");
    let json = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| {
        panic!("{args:?}: {e}: {} {}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
    });
    (out.status.code().unwrap_or(-1), json)
}

fn states(dev: &Dev) -> Vec<String> {
    let (_, listed) = cli(dev, &["dlq", "list", "shop", "--all"]);
    let letters = listed["result"]["letters"].as_array().cloned().unwrap_or_default();
    let mut states: Vec<String> = letters.iter().map(|l| format!("{}:{}", l["topic"], l["state"])).collect();
    states.sort();
    states
}

/// Two tables, one without a key; the target refuses rows of both. Replays die at every step that matters; at the end each
/// row is there exactly once, in the source's order.
#[test]
fn dead_letters_are_replayed_exactly_once_over_kills_and_given_up() {
    let Some(source) = Database::create("pg15", "dlq_source") else { return };
    let Some(target) = Database::create("pg15", "dlq_target") else { return };
    let create = "CREATE TABLE t (id int PRIMARY KEY, a int); CREATE TABLE log (id int, a int)";
    source.pg.run(&format!("{create}; ALTER TABLE log REPLICA IDENTITY FULL")).expect("the source's tables");
    let check = |on: bool| match on {
        true => {
            "ALTER TABLE t ADD CONSTRAINT small CHECK (a < 1000); ALTER TABLE log ADD CONSTRAINT small CHECK (a < 1000)"
        }
        false => "ALTER TABLE t DROP CONSTRAINT small; ALTER TABLE log DROP CONSTRAINT small",
    };
    target.pg.run(&format!("{create}; {}", check(true))).expect("the target's tables");
    let text = pipeline(&source, &target, "    on_error: { row: park_key }\n").replace("[t]", "[t, log]");
    let mut dev = Dev::new(&text);
    dev.start().expect("start");
    source
        .pg
        .run("INSERT INTO t VALUES (1, 1), (2, 2); INSERT INTO log VALUES (1, 1), (1, 5000), (1, 5000), (2, 6000), (3, 3)")
        .expect("rows");
    source.pg.run("UPDATE t SET a = 7000 WHERE id = 1; UPDATE t SET a = 8 WHERE id = 1").expect("a refused row");
    source.pg.run("UPDATE t SET a = 9000 WHERE id = 2; INSERT INTO t VALUES (4, 4)").expect("another");
    let wait = |dev: &Dev, sql: &str, want: &str| {
        let seen = || shown(&target, sql);
        dev.wait(Duration::from_secs(60), || if seen() == want { String::new() } else { seen() })
            .unwrap_or_else(|e| panic!("{sql}: {e:#}"));
    };
    wait(&dev, "SELECT count(*) FROM t", "3");
    dev.wait(Duration::from_secs(60), || {
        let seen = states(&dev);
        if seen.iter().filter(|s| s.contains("parked")).count() == 3 && seen.len() == 6 {
            String::new()
        } else {
            format!("{seen:?}")
        }
    })
    .expect("six dead letters, three of parked keys");
    // One with all it says; the row is in it, but in no log line.
    let (code, listed) = cli(&dev, &["dlq", "list", "shop"]);
    let first = listed["result"]["letters"][0]["offset"].as_u64().expect("a letter");
    let (_, one) = cli(&dev, &["dlq", "show", "shop", &first.to_string()]);
    assert_eq!((code, one["result"]["value"]["after"]["a"].as_i64().is_some()), (0, true), "{one}");
    assert!(!dev.log().contains("5000") && !dev.log().contains("7000"), "a row's value in the log: {}", dev.log());
    // Not repaired: nothing moves, and the command says why.
    let (code, refused) = cli(&dev, &["dlq", "replay", "shop"]);
    assert_eq!((code, refused["ok"].as_bool()), (1, Some(false)), "{refused}");
    assert!(refused["error"]["cause"].as_str().is_some_and(|c| c.contains("small")), "{refused}");
    assert_eq!(shown(&target, "SELECT id, a FROM log ORDER BY id, a"), "1,1 3,3");
    // Repaired; the node dies before a commit of the replay, after it, and before what is un-parked is written.
    dev.kill();
    for (point, pass) in [("deliver.before_replay", 1), ("deliver.after_replay", 1), ("deliver.after_replay", 2)] {
        target
            .pg
            .run("ALTER TABLE t DROP CONSTRAINT IF EXISTS small; ALTER TABLE log DROP CONSTRAINT IF EXISTS small")
            .expect("repaired");
        // The replay of a start takes the keys; the one asked for takes both kinds.
        if dev.start_or_end(&[("CATCHWATER_CRASH_AT", &format!("{point}:{pass}"))]).expect("no time-out").is_none() {
            let binary = catchwater_tests::broker::binary().expect("binary");
            // Its sink may not have begun yet, and then says so: it is asked again.
            let deadline = std::time::Instant::now() + Duration::from_secs(60);
            while dev.alive() {
                let out = std::process::Command::new(&binary)
                    .args(["dlq", "replay", "shop", "--http", &dev.http])
                    .output()
                    .expect("runs");
                let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
                assert!(std::time::Instant::now() < deadline, "{point}:{pass} was not passed: {said}");
            }
        }
    }
    dev.start().expect("after the kills");
    dev.wait(Duration::from_secs(60), || {
        let (code, done) = cli(&dev, &["dlq", "replay", "shop"]);
        if code == 0 { String::new() } else { done.to_string() }
    })
    .expect("everything is replayed");
    assert_eq!(shown(&target, "SELECT id, a FROM t ORDER BY id"), "1,8 2,9000 4,4");
    assert_eq!(shown(&target, "SELECT id, a FROM log ORDER BY id, a"), "1,1 1,5000 1,5000 2,6000 3,3");
    let (_, left) = cli(&dev, &["dlq", "list", "shop"]);
    assert_eq!(left["result"]["letters"].as_array().map(Vec::len), Some(0), "{left}");
    // Refused again, and given up: the letter stays unapplied, what comes later arrives.
    target.pg.run(&format!("DELETE FROM log; UPDATE t SET a = 0; {}", check(true))).expect("spoilt again");
    source.pg.run("UPDATE t SET a = 5555 WHERE id = 4; INSERT INTO log VALUES (9, 9999)").expect("refused");
    dev.wait(Duration::from_secs(60), || {
        let (_, left) = cli(&dev, &["dlq", "list", "shop"]);
        let n = left["result"]["letters"].as_array().map_or(0, Vec::len);
        if n == 2 { String::new() } else { left.to_string() }
    })
    .expect("two letters");
    let (code, _) = cli(&dev, &["dlq", "discard", "shop"]);
    assert_eq!(code, 2, "what is given up must be said");
    let (code, done) = cli(&dev, &["dlq", "discard", "shop", "--all"]);
    assert_eq!((code, done["result"]["sinks"]["copy"]["keys"].as_u64()), (0, Some(1)), "{done}");
    source.pg.run("UPDATE t SET a = 10 WHERE id = 4; INSERT INTO log VALUES (10, 10)").expect("later rows");
    wait(&dev, "SELECT a FROM t WHERE id = 4", "10");
    wait(&dev, "SELECT id, a FROM log", "10,10");
    dev.ledger().expect("rows in = rows out");
}

#[test]
fn each_mode_of_a_sink() {
    let Some(source) = Database::create("pg15", "modes_source") else { return };
    source
        .pg
        .run("CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t VALUES (1, 0), (2, 0), (3, 0)")
        .expect("t");
    let changes =
        "UPDATE t SET a = 5 WHERE id = 1; DELETE FROM t WHERE id IN (2, 3); INSERT INTO t VALUES (3, 7), (4, 0)";
    let cases = [
        (
            "append",
            "SELECT id, a, _op FROM t ORDER BY _version",
            "1,0,r 2,0,r 3,0,r 1,5,u 2,NULL,d 3,NULL,d 3,7,c 4,0,c",
        ),
        ("insert_once", "SELECT id, a FROM t ORDER BY id", "1,0 2,0 3,0 4,0"),
        ("soft_delete", "SELECT id, a, _deleted_at IS NULL FROM t ORDER BY id", "1,5,t 2,0,f 3,7,t 4,0,t"),
    ];
    let targets: Vec<Database> =
        cases.iter().filter_map(|(mode, ..)| Database::create("pg15", &format!("modes_{mode}"))).collect();
    let name = source.name();
    let mut text = format!(
        "version: 1\npipeline: shop\nsources:\n  {name}:\n    postgres: {{ url: \"{}\", tables: [t] }}\nsinks:\n",
        source.url()
    );
    for ((mode, ..), target) in cases.iter().zip(&targets) {
        let url = target.url();
        text += &format!("  s_{mode}:\n    from: {name}\n    postgres: {{ url: \"{url}\" }}\n    mode: {mode}\n");
    }
    let mut dev = Dev::new(&text);
    dev.start().expect("start");
    for target in &targets {
        let seen = || shown(target, "SELECT count(*) FROM t");
        dev.wait(Duration::from_secs(60), || if seen() == "3" { String::new() } else { seen() }).expect("the snapshot");
    }
    source.pg.run(changes).expect("changes");
    for ((mode, sql, want), target) in cases.iter().zip(&targets) {
        let seen = || shown(target, sql);
        dev.wait(Duration::from_secs(60), || if seen() == *want { String::new() } else { seen() })
            .unwrap_or_else(|e| panic!("{mode}: {e:#}"));
    }
}
