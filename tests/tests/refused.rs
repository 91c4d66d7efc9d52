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
    // A later row of a parked key goes aside, though it would fit; another key's goes on. A kill changes neither.
    source.pg.run("UPDATE t SET a = 1 WHERE id = 7; INSERT INTO t VALUES (30000, 1, 'y')").expect("later rows");
    wait(&dev, "3997");
    dev.kill();
    dev.start().expect("again");
    source.pg.run("UPDATE t SET a = 2 WHERE id = 7; INSERT INTO t VALUES (30001, 1, 'y')").expect("later rows");
    wait(&dev, "3998");
    assert_eq!(shown(&target, "SELECT count(*) FROM t WHERE id % 1000 = 7 AND id < 4000"), "0");
    let letters = read_topic(&dev.kafka, "shop.dlq").expect("the dead letters");
    let of_seven: Vec<i64> =
        letters.iter().filter(|l| l["after"]["id"] == 7).filter_map(|l| l["after"]["a"].as_i64()).collect();
    assert!(letters.len() >= 6, "{} dead letters", letters.len());
    let mut once = of_seven.clone();
    once.dedup();
    assert_eq!(once, [5000, 1, 2], "in the source's order");
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
