//! Foreign keys that refer to their own table, and tables that refer to each other in a circle, under conflict lanes: keys
//! checked at once and at the commit, children before their parents, rows that move under another parent. The target has the
//! source's keys, so any order that breaks one is an error of the server; at the end both sides are equal and every row is
//! accounted for. `CW_CYCLES=300` transactions behind the kill is the long form.

use catchwater_tests::dev::Dev;
use catchwater_tests::pg::{Database, difference};
use std::time::Duration;

const TABLES: [&str; 5] = ["tree", "late", "a", "b", "c"];

/// `tree` and `late` refer to themselves, `a` → `b` → `c` → `a`. WHEN is put behind each key.
fn schema(at_once: bool) -> String {
    let when = if at_once { "" } else { "DEFERRABLE INITIALLY DEFERRED" };
    format!(
        "CREATE TABLE tree (id int PRIMARY KEY, parent int REFERENCES tree {when}, name text UNIQUE);
         CREATE TABLE late (id int PRIMARY KEY, parent int REFERENCES late DEFERRABLE INITIALLY IMMEDIATE, n int);
         CREATE TABLE a (id int PRIMARY KEY, b int, n int);
         CREATE TABLE b (id int PRIMARY KEY, c int, n int);
         CREATE TABLE c (id int PRIMARY KEY, a int REFERENCES a {when}, n int);
         ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b {when};
         ALTER TABLE b ADD FOREIGN KEY (c) REFERENCES c {when};"
    )
}

/// Transactions `from` to `to`. What is at random is so by the transaction's number: a run can be repeated.
fn load(from: u32, to: u32, at_once: bool) -> String {
    // A circle closes in one transaction: keys at once want its last link as an update.
    let circle = match at_once {
        true => {
            "INSERT INTO a VALUES (i, NULL, 0); INSERT INTO c VALUES (i, i, 0); INSERT INTO b VALUES (i, i, 0); UPDATE a SET b = i WHERE id = i;"
        }
        false => "INSERT INTO a VALUES (i, i, 0); INSERT INTO b VALUES (i, i, 0); INSERT INTO c VALUES (i, i, 0);",
    };
    format!(
        "DO $$ DECLARE pick int; BEGIN
         PERFORM setseed(0.{from:03});
         FOR i IN {from}..{to} LOOP
            -- A chain in one statement, children first; a chain in three.
            INSERT INTO tree VALUES (3 * i + 2, 3 * i + 1, 'x' || i), (3 * i + 1, 3 * i, 'y' || i), (3 * i, NULL, 'z' || i);
            INSERT INTO late VALUES (i, CASE WHEN random() < 0.8 THEN (SELECT max(id) FROM late) END, 0);
            {circle}
            -- Under another parent, perhaps in a circle; names change hands; a leaf goes.
            SELECT id INTO pick FROM tree ORDER BY random() LIMIT 1;
            UPDATE tree SET parent = pick WHERE id = (SELECT id FROM tree WHERE id % 3 = 0 ORDER BY random() LIMIT 1);
            UPDATE tree SET name = 'free' || i WHERE id = pick;
            UPDATE tree SET name = 'y' || i || '-' WHERE name = 'y' || i;
            UPDATE late SET parent = (SELECT id FROM late ORDER BY random() LIMIT 1), n = n + 1 WHERE random() < 0.05;
            DELETE FROM tree t WHERE id = (SELECT id FROM tree o WHERE NOT EXISTS (SELECT 1 FROM tree k WHERE k.parent = o.id AND k.id <> o.id) ORDER BY random() LIMIT 1);
            -- The circle's rows meet other circles; some go again, the last link first.
            UPDATE a SET b = (SELECT id FROM b ORDER BY random() LIMIT 1), n = i WHERE id = (SELECT id FROM a ORDER BY random() LIMIT 1);
            IF i % 7 = 0 THEN
                -- A key that others refer to moves, with them.
                UPDATE late SET parent = NULL WHERE parent = i;
                UPDATE late SET id = id + 1000000 WHERE id = i;
            END IF;
            COMMIT;
         END LOOP; END $$"
    )
}

fn run(at_once: bool) {
    let what = if at_once { "now" } else { "late" };
    let Some(source) = Database::create("pg15", &format!("cycles_{what}_a")) else { return };
    let Some(target) = Database::create("pg15", &format!("cycles_{what}_b")) else { return };
    source.pg.run(&schema(at_once)).expect("the source's tables");
    target.pg.run(&schema(at_once)).expect("the target's tables");
    source.pg.run(&load(1, 20, at_once)).expect("rows of the snapshot");
    let more: u32 = std::env::var("CW_CYCLES").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    let name = source.name();
    let mut dev = Dev::new(&format!(
        "version: 1\npipeline: p\nsources:\n  {name}:\n    postgres: {{ url: \"{}\", tables: [tree, late, a, b, c] }}\nsinks:\n  copy:\n    from: {name}\n    postgres: {{ url: \"{}\" }}\n    apply: {{ lanes: 4 }}\n    batch: {{ rows: 40, linger: 1ms }}\n",
        source.url(),
        target.url()
    ));
    dev.start().expect("start");
    let equal = |dev: &Dev| {
        dev.wait(Duration::from_secs(120), || {
            TABLES.iter().map(|t| difference(&source.pg, t, &target.pg, t)).find(|d| !d.is_empty()).unwrap_or_default()
        })
        .unwrap_or_else(|e| panic!("{e:#}"));
    };
    equal(&dev);
    // Live; then what came while the node was down: every lane has a group.
    source.pg.run(&load(21, 40, at_once)).expect("live rows");
    equal(&dev);
    dev.kill();
    source.pg.run(&load(41, 40 + more, at_once)).expect("rows that wait");
    dev.start().expect("again");
    equal(&dev);
    assert!(!dev.log().contains("task.failed"), "{}", dev.log_tail());
    assert_eq!(
        target.pg.one("SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND condeferrable").expect("keys"),
        if at_once { "1" } else { "5" }
    );
    assert!(dev.ledger().expect("rows in = rows out") > 0);
}

#[test]
fn keys_checked_at_the_commit_under_lanes() {
    run(false);
}

#[test]
fn keys_checked_at_once_under_lanes() {
    run(true);
}
