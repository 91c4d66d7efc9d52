//! What people do wrong gives one error with code, cause and next step, and loses nothing.

use catchwater_tests::broker::binary;
use catchwater_tests::dev::Dev;
use catchwater_tests::pg::{Database, difference};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(40);

fn run(args: &[&str]) -> Output {
    Command::new(binary().expect("binary"))
        .args(args)
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::null())
        .output()
        .expect("runs")
}

/// Ends by itself with that exit code and says code, cause and next step on standard error.
fn refused(args: &[&str], exit: i32, code: &str) {
    let out = run(args);
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(exit), "{args:?}: {text}");
    assert!(text.contains(&format!("error[{code}]")), "{args:?}: wanted {code}: {text}");
    assert!(text.contains("next:"), "{args:?}: no next step: {text}");
    assert!(!text.contains("stack backtrace") && !text.contains("panicked"), "{text}");
    let page = run(&["explain", code]);
    assert!(
        page.status.success() && String::from_utf8_lossy(&page.stdout).starts_with(&format!("# {code}")),
        "{code} has no page"
    );
}

fn folder(name: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("catchwater-bad.{}.{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("folder");
    path
}

#[test]
fn addresses_and_directories() {
    let dir = folder("addresses");
    let data = dir.join("data");
    let data = data.to_str().expect("utf-8");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    let start = ["start", "--data-dir", data, "--http", "127.0.0.1:0", "--listen"];
    refused(&[&start[..], &[&taken]].concat(), 3, "CW0001");
    refused(&["start", "--data-dir", data, "--listen", "127.0.0.1:0", "--http", &taken], 3, "CW0001");
    refused(&[&start[..], &["0.0.0.0:0"]].concat(), 2, "CW0005");
    refused(&[&start[..], &["nonsense"]].concat(), 2, "CW0004");
    let file = dir.join("file");
    std::fs::write(&file, "x").expect("file");
    let below = file.join("data");
    refused(
        &["start", "--http", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--data-dir", below.to_str().expect("utf-8")],
        3,
        "CW0002",
    );
    refused(&["topic", "list", "-b", "127.0.0.1:1"], 3, "CW0007");
    refused(&["lag", "--http", "127.0.0.1:1"], 3, "CW0007");
    let _ = std::fs::remove_dir_all(&dir);
}

#[test]
fn a_read_only_data_directory() {
    // Root may write anywhere, but not on a filesystem that is mounted read-only.
    let dir = if rustix::process::geteuid().is_root() {
        std::path::PathBuf::from("/proc/catchwater")
    } else {
        use std::os::unix::fs::PermissionsExt;
        let d = folder("read-only");
        std::fs::set_permissions(&d, std::fs::Permissions::from_mode(0o555)).expect("mode");
        d.join("data")
    };
    refused(
        &["start", "--http", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--data-dir", dir.to_str().expect("utf-8")],
        3,
        "CW0002",
    );
}

#[test]
fn one_directory_two_processes() {
    let Some((a, b)) = Database::create("pg15", "lock_a").zip(Database::create("pg15", "lock_b")) else { return };
    a.pg.run("CREATE TABLE t (id int PRIMARY KEY)").expect("table");
    let mut dev = Dev::new(&pipeline(a.url(), b.url(), "t"));
    dev.start().expect("start");
    let data = dev.data_dir();
    refused(
        &["start", "--http", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().expect("utf-8")],
        3,
        "CW0201",
    );
}

/// The source is called as its database: slots are one name space per server.
fn pipeline(source: &str, target: &str, tables: &str) -> String {
    let name = source.rsplit('/').next().unwrap_or("s");
    format!(
        "version: 1\npipeline: p\nsources:\n  {name}:\n    postgres: {{ url: \"{source}\", tables: [{tables}] }}\nsinks:\n  k:\n    from: {name}\n    postgres: {{ url: \"{target}\" }}\n"
    )
}

/// `dev FILE` ends before it is ready, with the code.
fn dev_refused(file: &str, code: &str) {
    let mut dev = Dev::new(file);
    let ended = dev
        .start_or_end(&[])
        .expect("no time-out")
        .unwrap_or_else(|| panic!("started; wanted {code}:\n{}", dev.log_tail()));
    let log = dev.log();
    assert_eq!(ended.code(), Some(3), "{log}");
    assert!(log.contains(&format!("error[{code}]")), "wanted {code}: {log}");
    assert!(log.contains("next:"), "{log}");
    assert!(!log.contains("stack backtrace") && !log.contains("panicked") && !log.contains("canary"), "{log}");
}

#[test]
fn sources_that_cannot_be_captured() {
    let Some((a, b)) = Database::create("pg15", "source_a").zip(Database::create("pg15", "source_b")) else { return };
    a.pg.run(
        "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE keyless (v int); CREATE ROLE cw_plain LOGIN;
         GRANT SELECT ON t TO cw_plain;",
    )
    .or_else(|_| a.pg.run("CREATE TABLE IF NOT EXISTS t (id int PRIMARY KEY); CREATE TABLE IF NOT EXISTS keyless (v int); GRANT SELECT ON t TO cw_plain;"))
    .expect("tables");
    dev_refused(&pipeline(a.url(), b.url(), "t, nowhere"), "CW0511");
    dev_refused(&pipeline(&a.url().replace("/cw_", "/missing_cw_"), b.url(), "t"), "CW0503");
    dev_refused(&pipeline("postgres://postgres@127.0.0.1:1/x", b.url(), "t"), "CW0501");
    dev_refused(&pipeline(&a.url().replace("postgres@", "cw_plain@"), b.url(), "t"), "CW0509");
    // A slot of that name that somebody else uses.
    let slot = format!("catchwater_{}", a.name());
    a.pg.run(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding')")).expect("slot");
    dev_refused(&pipeline(a.url(), b.url(), "t"), "CW0520");
    a.pg.run(&format!("SELECT pg_drop_replication_slot('{slot}')")).expect("slot");
}

#[test]
fn a_sink_that_is_down_stops_neither_capture_nor_clients() {
    let Some(a) = Database::create("pg15", "down_a") else { return };
    let Some(b) = Database::create("pg15", "down_b") else { return };
    a.pg.run("CREATE TABLE t (id int PRIMARY KEY)").expect("table");
    let mut dev = Dev::new(&pipeline(a.url(), b.url(), "t"));
    dev.start().expect("start");
    a.pg.run("INSERT INTO t VALUES (1)").expect("row");
    dev.wait(LIMIT, || difference(&a.pg, "t", &b.pg, "t")).expect("first");
    // The target refuses every connection.
    let admin = a.connect();
    admin.run(&format!("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false", b.name())).expect("closed");
    b.cut();
    a.pg.run("INSERT INTO t SELECT i FROM generate_series(2, 500) i").expect("rows");
    dev.wait(LIMIT, || {
        let n =
            catchwater_tests::bank::read_topic(&dev.kafka, &format!("{}.public.t", a.name())).map_or(0, |r| r.len());
        if n == 500 { String::new() } else { format!("{n} of 500 records in the topic") }
    })
    .expect("capture and clients go on");
    admin.run(&format!("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true", b.name())).expect("open");
    let b2 = b.connect();
    dev.wait(LIMIT, || difference(&a.pg, "t", &b2, "t")).expect("caught up");
}
