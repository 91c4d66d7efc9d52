//! `catchwater wait`: when it says so, what was committed before is visible, from PostgreSQL to PostgreSQL and to SQLite.

use catchwater_tests::broker::binary;
use catchwater_tests::dev::Dev;
use catchwater_tests::pg::Database;
use std::process::Command;
use std::time::Duration;

fn wait(dev: &Dev, args: &[&str]) -> (i32, String) {
    let out = Command::new(binary().expect("binary"))
        .args(["wait", "p", "--http", &dev.http])
        .args(args)
        .env_remove("RUST_BACKTRACE")
        .output()
        .expect("runs");
    let text = [out.stdout, out.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
    (out.status.code().unwrap_or(-1), text)
}

#[test]
fn what_was_committed_before_is_visible_after_it() {
    let Some(a) = Database::create("pg15", "wait_a") else { return };
    let Some(b) = Database::create("pg15", "wait_b") else { return };
    let name = a.name();
    a.pg.run("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int)").expect("tables");
    let mut dev = Dev::new(&format!(
        "version: 1\npipeline: p\nsources:\n  {name}:\n    postgres: {{ url: \"{}\", tables: [t] }}\nsinks:\n  k:\n    from: {name}\n    postgres: {{ url: \"{}\" }}\n  file:\n    from: {name}\n    sqlite: {{ file: copy.db }}\n",
        a.url(),
        b.url()
    ));
    dev.start().expect("start");
    for i in 0..8 {
        // Now and then nothing but a table that is not captured changes: the position moves all the same.
        let table = if i % 4 == 3 { "other" } else { "t" };
        a.pg.run(&format!("INSERT INTO {table} VALUES ({i})")).expect("a row");
        let (code, text) = wait(&dev, &[]);
        assert_eq!(code, 0, "{text}\n{}", dev.log_tail());
        if table == "t" {
            let seen = b.pg.one(&format!("SELECT count(*) FROM t WHERE id = {i}")).expect("the target");
            assert_eq!(seen, "1", "row {i} is not there though it was said: {text}");
        }
    }
    // A position by hand; one of the future is not reached.
    let at = a.pg.one("SELECT pg_current_wal_flush_lsn()").expect("a position");
    assert_eq!(wait(&dev, &["--sink", "k", "--position", &at]).0, 0);
    let (code, text) = wait(&dev, &["--position", "FFFF/0", "--timeout", "50ms"]);
    assert!(code == 1 && text.contains("CW0690"), "{code} {text}");
    // A target that holds the sink up: not visible, so not said.
    let holder = b.connect();
    holder.run("BEGIN; LOCK TABLE t IN EXCLUSIVE MODE").expect("the lock");
    a.pg.run("INSERT INTO t VALUES (100)").expect("a row");
    let (code, text) = wait(&dev, &["--sink", "k", "--timeout", "300ms"]);
    assert!(code == 1 && text.contains("CW0690"), "{code} {text}");
    holder.run("COMMIT").expect("let go");
    assert_eq!(wait(&dev, &[]).0, 0);
    assert_eq!(b.pg.one("SELECT count(*) FROM t WHERE id = 100").expect("the target"), "1");
    for (args, code) in
        [(["--sink", "nobody"], "CW0344"), (["--position", "x"], "CW0346"), (["--timeout", "5"], "CW0346")]
    {
        let (exit, text) = wait(&dev, &args);
        assert!(exit == 2 && text.contains(code), "{args:?}: {exit} {text}");
    }
    // A paused pipeline is said at once.
    let paused = Command::new(binary().expect("binary")).args(["pipeline", "pause", "p", "--http", &dev.http]).output();
    assert!(paused.expect("runs").status.success());
    dev.wait(Duration::from_secs(20), || {
        let (code, text) = wait(&dev, &["--timeout", "1ms"]);
        if code == 1 && text.contains("CW0689") { String::new() } else { text }
    })
    .expect("it says that the sink does not run");
}
