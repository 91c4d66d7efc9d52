//! Targets that change under a running sink: read-only, rights taken away, restored from a backup. Each one clear error with
//! its code, or none; the other sinks go on; after the repair the target equals the source, and no row has disappeared.

use catchwater_tests::dev::Dev;
use catchwater_tests::pg::{Database, difference};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(90);

fn pipeline(source: &Database, sinks: &[(&str, &str)]) -> String {
    let name = source.name();
    let mut text = format!(
        "version: 1\npipeline: shop\nsources:\n  {name}:\n    postgres: {{ url: \"{}\", tables: [t] }}\nsinks:\n",
        source.url()
    );
    for (sink, url) in sinks {
        text += &format!("  {sink}:\n    from: {name}\n    postgres: {{ url: \"{url}\" }}\n");
    }
    text
}

/// State and error of a sink, as the node tells them.
fn told(dev: &Dev, sink: &str) -> String {
    let out = Command::new("curl").args(["-s", &format!("http://{}/api/v1/lag", dev.http)]).output();
    let text = out.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    let lines: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let of = lines.as_array().into_iter().flatten().find(|l| l["node"] == sink).cloned().unwrap_or_default();
    format!("{} {}", of["state"].as_str().unwrap_or_default(), of["error"].as_str().unwrap_or_default())
}

fn wait_equal(dev: &Dev, source: &Database, target: &Database) {
    dev.wait(LIMIT, || difference(&source.pg, "t", &target.pg, "t")).unwrap_or_else(|e| panic!("{e:#}"));
}

fn wait_told(dev: &Dev, sink: &str, want: &[&str]) {
    let says = || {
        let told = told(dev, sink);
        if want.iter().all(|w| told.contains(w)) { String::new() } else { told }
    };
    dev.wait(LIMIT, says).unwrap_or_else(|e| panic!("{sink}: {e:#}"));
}

/// New sessions meet what was changed.
fn end_sessions(target: &Database) {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'catchwater%'";
    target.pg.rows(sql).expect("sessions end");
}

#[test]
fn read_only_targets_and_rights_that_were_taken_away() {
    let Some(source) = Database::create("pg15", "guards_source") else { return };
    let targets: Vec<Database> =
        ["good", "still", "poor"].iter().filter_map(|t| Database::create("pg15", &format!("guards_{t}"))).collect();
    let [good, still, poor] = targets.as_slice() else { return };
    source
        .pg
        .run("CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t SELECT i, i FROM generate_series(1, 100) i")
        .expect("t");
    // One sink works as a user of its own.
    let (user, database) = (format!("{}_user", poor.name()), poor.name());
    poor.pg
        .run(&format!(
            "CREATE ROLE {user} LOGIN; GRANT ALL ON DATABASE {database} TO {user}; GRANT ALL ON SCHEMA public TO {user}"
        ))
        .expect("a user");
    let (_, rest) = poor.url().split_once('@').expect("a URL with a user");
    let as_user = format!("postgres://{user}@{rest}");
    let mut dev = Dev::new(&pipeline(&source, &[("good", good.url()), ("still", still.url()), ("poor", &as_user)]));
    dev.start().expect("start");
    targets.iter().for_each(|t| wait_equal(&dev, &source, t));

    let name = still.name();
    still.pg.run(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).expect("read-only");
    end_sessions(still);
    poor.pg.run(&format!("REVOKE INSERT, UPDATE ON t FROM {user}")).expect("revoked");
    source
        .pg
        .run("UPDATE t SET a = a + 1; INSERT INTO t SELECT i, i FROM generate_series(101, 200) i")
        .expect("changes");
    // Read-only is the environment's: it is tried again. Rights are a person's.
    wait_told(&dev, "still", &["retrying", "CW0612"]);
    wait_told(&dev, "poor", &["needs_person", "CW0611"]);
    wait_equal(&dev, &source, good);
    assert!(told(&dev, "good").starts_with("running"), "{}", told(&dev, "good"));

    still.pg.run(&format!("ALTER DATABASE {name} RESET default_transaction_read_only")).expect("writable");
    poor.pg.run(&format!("GRANT INSERT, UPDATE ON t TO {user}")).expect("granted");
    wait_equal(&dev, &source, still);
    dev.stop().expect("stop");
    dev.start().expect("again");
    wait_equal(&dev, &source, poor);
    dev.ledger().expect("no row disappears");
    dev.kill();
    poor.pg.run(&format!("DROP OWNED BY {user} CASCADE; DROP ROLE {user}")).expect("the user goes");
}

#[test]
fn a_restored_target_is_brought_forward_again() {
    let Some(source) = Database::create("pg15", "restored_source") else { return };
    let Some(target) = Database::create("pg15", "restored_target") else { return };
    source
        .pg
        .run("CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t SELECT i, i FROM generate_series(1, 100) i")
        .expect("t");
    let mut dev = Dev::new(&pipeline(&source, &[("copy", target.url())]));
    dev.start().expect("start");
    source.pg.run("UPDATE t SET a = 0 WHERE id = 1").expect("a change");
    wait_equal(&dev, &source, &target);
    target.pg.run("CREATE TABLE was_t AS TABLE t; CREATE TABLE was_p AS TABLE catchwater.position").expect("a backup");
    source
        .pg
        .run("UPDATE t SET a = -1 WHERE id < 50; DELETE FROM t WHERE id > 90; INSERT INTO t VALUES (500, 5)")
        .expect("changes");
    wait_equal(&dev, &source, &target);
    let back = "BEGIN; DELETE FROM t; INSERT INTO t TABLE was_t; DELETE FROM catchwater.position;
        INSERT INTO catchwater.position TABLE was_p; COMMIT";
    target.pg.run(back).expect("the backup is put back");
    assert!(!difference(&source.pg, "t", &target.pg, "t").is_empty(), "the target went back");
    // The next change finds the position where it was not left.
    source.pg.run("INSERT INTO t VALUES (501, 6)").expect("one more");
    wait_equal(&dev, &source, &target);
    dev.ledger().expect("no row disappears");
}
