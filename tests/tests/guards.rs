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

/// Status and text of an answer.
fn get(dev: &Dev, path: &str) -> String {
    let url = format!("http://{}{path}", dev.http);
    let out = Command::new("curl").args(["-s", "-w", "%{stderr}%{http_code}", &url]).output().expect("curl");
    format!("{} {}", String::from_utf8_lossy(&out.stderr), String::from_utf8_lossy(&out.stdout))
}

/// What a person can do, as the node tells it.
fn next(dev: &Dev, sink: &str) -> String {
    let out = Command::new("curl").args(["-s", &format!("http://{}/api/v1/lag", dev.http)]).output();
    let text = out.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    let lines: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let of = lines.as_array().into_iter().flatten().find(|l| l["node"] == sink).cloned().unwrap_or_default();
    of["next"].as_str().unwrap_or_default().to_owned()
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

fn cli(dev: &Dev, args: &[&str]) {
    let binary = catchwater_tests::broker::binary().expect("binary");
    let out = Command::new(binary).args(args).args(["--http", &dev.http]).output().expect("runs");
    assert!(out.status.success(), "{args:?}: {out:?}");
}

/// A target table of another shape stops its sink, because a sink shows whole states of the source or none
/// (docs/decisions/misfit-tables.md); the error says what, why and what to do. The source and the pipeline's
/// other sink go on.
#[test]
fn a_misfit_table_stops_its_own_sink_and_nothing_else() {
    let Some(source) = Database::create("pg15", "misfit_source") else { return };
    let targets: Vec<Database> =
        ["bad", "good"].iter().filter_map(|t| Database::create("pg15", &format!("misfit_{t}"))).collect();
    let [bad, good] = targets.as_slice() else { return };
    let from = source.name();
    let tables = "CREATE TABLE t (id int PRIMARY KEY, a int); CREATE TABLE ok (id int PRIMARY KEY, a int); CREATE TABLE late (id int PRIMARY KEY, a int)";
    source.pg.run(tables).expect("tables");
    bad.pg.run("CREATE VIEW late AS SELECT 1 AS id, 1 AS a").expect("a view with a table's name");
    let mut dev = Dev::new(&format!(
        "version: 1\npipeline: shop\nsources:\n  {from}:\n    postgres: {{ url: \"{}\", tables: [t, ok, late] }}\nsinks:\n  bad:\n    from: {from}\n    postgres: {{ url: \"{}\" }}\n  good:\n    from: {from}\n    postgres: {{ url: \"{}\" }}\n",
        source.url(),
        bad.url(),
        good.url()
    ));
    dev.start().expect("start");
    let row = |table: &str, n: i64| source.pg.run(&format!("INSERT INTO {table} VALUES ({n}, {n})")).expect("a row");
    row("t", 1);
    row("ok", 1);
    wait_equal(&dev, &source, bad);
    // What the node counted, as a scrape sees it.
    let page = || get(&dev, "/metrics");
    for (metric, labels) in [
        ("catchwater_sink_table_rows", ["op=\"upsert\"", "sink=\"good\"", "table=\"public.t\""]),
        ("catchwater_source_slot_wal_status", ["status=\"reserved\"", "", ""]),
        ("catchwater_source_slot_retained_bytes", ["source=", "", ""]),
        ("catchwater_snapshot_chunks_done", ["source=", "table=\"public.t\"", ""]),
        ("catchwater_retention_used_ratio", ["sink=\"bad\"", "topic=", ".public.t\""]),
        ("catchwater_apply_lane_busy_ratio", ["sink=\"good\"", "", ""]),
    ] {
        let holds = |l: &str| l.starts_with(&format!("{metric}{{")) && labels.iter().all(|w| l.contains(w));
        dev.wait(LIMIT, || if page().lines().any(holds) { String::new() } else { format!("no {metric} {labels:?}") })
            .unwrap_or_else(|e| panic!("{e:#}"));
    }
    let raise = "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not %', NEW.a; END $$; CREATE TRIGGER no BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION no()";
    let misfits: [(&str, &str, &str, &[&str]); 4] = [
        (
            "t",
            "ALTER TABLE t ALTER COLUMN a TYPE date USING NULL",
            "ALTER TABLE t ALTER COLUMN a TYPE int USING id",
            &["CW0676", "column a of public.t is date"],
        ),
        (
            "t",
            "ALTER TABLE t RENAME COLUMN a TO b",
            "ALTER TABLE t RENAME COLUMN b TO a",
            &["CW0696", "column a of public.t"],
        ),
        ("t", raise, "DROP FUNCTION no() CASCADE", &["CW0609", "public.t", "a trigger or function of the target"]),
        ("late", "SELECT 1", "DROP VIEW late", &["CW0692", "public.late"]),
    ];
    for ((table, broken, repaired, words), n) in misfits.into_iter().zip(7000..) {
        bad.pg.run(broken).expect("a misfit");
        row(table, n);
        wait_told(&dev, "bad", &[&["needs_person"], words].concat());
        assert!(!told(&dev, "bad").contains(&n.to_string()), "a value in the error");
        let health = get(&dev, "/healthz/pipelines");
        assert!(health.starts_with("503") && health.contains("shop sink bad needs_person CW"), "{health}");
        assert!(get(&dev, "/readyz?verbose").starts_with("200") && get(&dev, "/livez").starts_with("200"));
        assert!(!next(&dev, "bad").is_empty(), "no next step: {}", told(&dev, "bad"));
        // All else goes on: the same rows, later ones, and the source lets go of its WAL.
        row("ok", n);
        dev.wait(LIMIT, || difference(&source.pg, "ok", &good.pg, "ok")).unwrap_or_else(|e| panic!("{e:#}"));
        dev.wait(LIMIT, || difference(&source.pg, table, &good.pg, table)).unwrap_or_else(|e| panic!("{e:#}"));
        let now = source.pg.one("SELECT pg_current_wal_lsn()").expect("lsn");
        let sql = format!(
            "SELECT bool_and(confirmed_flush_lsn >= '{now}') FROM pg_replication_slots WHERE database = '{from}'"
        );
        let confirmed = || source.pg.one(&sql).unwrap_or_default();
        dev.wait(LIMIT, || if confirmed() == "t" { String::new() } else { format!("not confirmed up to {now}") })
            .unwrap_or_else(|e| panic!("{e:#}"));
        // What was never shown in part: nothing of the row behind the misfit one.
        assert_eq!(bad.pg.one(&format!("SELECT count(*) FROM ok WHERE id = {n}")).expect("target"), "0");
        bad.pg.run(repaired).expect("repaired");
        cli(&dev, &["pipeline", "restart", "shop"]);
        for table in ["t", "ok", table] {
            dev.wait(LIMIT, || difference(&source.pg, table, &bad.pg, table)).unwrap_or_else(|e| panic!("{e:#}"));
        }
    }
    assert!(get(&dev, "/healthz/pipelines").starts_with("200"), "{}", get(&dev, "/healthz/pipelines"));
    dev.ledger().expect("rows in = rows out");
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
