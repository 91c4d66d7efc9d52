//! `catchwater sink rebuild`: a PostgreSQL target that was damaged equals the source again, readers see no state between,
//! and a sink that borrows another pipeline's source is waited for.

use catchwater_tests::broker::binary;
use catchwater_tests::dev::Dev;
use catchwater_tests::pg::{Database, difference};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

fn run(dev: &Dev, args: &[&str]) -> (i32, String) {
    let out = Command::new(binary().expect("binary"))
        .args(args)
        .args(["--http", &dev.http])
        .env_remove("RUST_BACKTRACE")
        .output()
        .expect("runs");
    let text = [out.stdout, out.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
    (out.status.code().unwrap_or(-1), text)
}

#[test]
fn a_damaged_target_equals_the_source_again() {
    let Some(a) = Database::create("pg15", "rebuild_a") else { return };
    let Some(b) = Database::create("pg15", "rebuild_b") else { return };
    let name = a.name();
    a.pg.run(
        "CREATE TABLE parent (id int PRIMARY KEY, v text); CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent);
         CREATE TABLE bare (v int); ALTER TABLE bare REPLICA IDENTITY FULL;
         INSERT INTO parent SELECT i, 'v' || i FROM generate_series(1, 500) i",
    )
    .expect("tables");
    let mut dev = Dev::new(&format!(
        "version: 1\npipeline: p\nsources:\n  {name}:\n    postgres: {{ url: \"{}\", tables: [parent, child, bare] }}\nsinks:\n  k:\n    from: {name}\n    postgres: {{ url: \"{}\" }}\n    batch: {{ rows: 100 }}\n",
        a.url(),
        b.url()
    ));
    dev.start().expect("start");
    a.pg.run(
        "INSERT INTO child SELECT i, i FROM generate_series(1, 400) i; INSERT INTO bare VALUES (1), (1), (2);
         UPDATE parent SET v = v || '!' WHERE id % 3 = 0; DELETE FROM child WHERE id % 4 = 0",
    )
    .expect("changes");
    assert_eq!(run(&dev, &["wait", "p"]).0, 0);
    b.pg.run("ALTER TABLE child ADD FOREIGN KEY (parent) REFERENCES parent DEFERRABLE").expect("a foreign key");
    // Somebody's hand.
    b.pg.run(
        "DELETE FROM child WHERE id < 100; UPDATE parent SET v = 'wrong' WHERE id < 50; INSERT INTO bare VALUES (3);
         INSERT INTO parent VALUES (9999, 'extra')",
    )
    .expect("damage");
    // Readers see the damaged rows or the right ones, nothing between, and are never held up.
    let reader = b.connect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        let looks = s.spawn(|| {
            let mut seen = std::collections::BTreeSet::new();
            while !stop.load(Ordering::Relaxed) {
                let counts = "SELECT (SELECT count(*) FROM parent) || ' ' || (SELECT count(*) FROM child) || ' ' || (SELECT count(*) FROM bare)";
                seen.insert(reader.one(counts).expect("a reader"));
            }
            seen
        });
        let (code, text) = run(&dev, &["sink", "rebuild", "p", "k"]);
        stop.store(true, Ordering::Relaxed);
        let seen = looks.join().expect("the reader");
        assert_eq!(code, 0, "{text}\n{}", dev.log_tail());
        assert!(seen.iter().all(|s| s == "501 225 4" || s == "500 300 3"), "{seen:?}");
    });
    for table in ["parent", "child", "bare"] {
        assert_eq!(difference(&a.pg, table, &b.pg, table), "", "{table}");
    }
    // It goes on.
    a.pg.run("INSERT INTO parent VALUES (1000, 'new')").expect("a row");
    assert_eq!(run(&dev, &["wait", "p"]).0, 0);
    assert_eq!(difference(&a.pg, "parent", &b.pg, "parent"), "");
    let (code, text) = run(&dev, &["sink", "rebuild", "p", "nobody"]);
    assert!(code == 2 && text.contains("CW0344"), "{code} {text}");
}
