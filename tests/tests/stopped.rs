//! Sinks that are down for long cost room in the log, and no WAL at the source; then they catch up, and nothing is missing.
//!
//! A share runs in the check. The long form writes what comes in an hour at 20 k changes/s (46 GB of log, with
//! `CW_STOPPED_CODEC=zstd` a fiftieth of it):
//! `CW_STOPPED_CHANGES=72000000 CW_STOPPED_RATE=20000 CATCHWATER_BIN=… cargo test -p catchwater-tests --test stopped --
//! --nocapture`. It prints one line of JSON; `docs/benchmarks.md` has figures, and what they were measured with.

use catchwater_tests::dev::Dev;
use catchwater_tests::pg::{Database, Pg, difference};
use std::path::Path;
use std::time::{Duration, Instant};

const KEYS: u64 = 20_000;
/// Changes of one source transaction.
const TXN: u64 = 200;
/// What a slot may hold while its capture keeps up: the bar for a quiet publication, and what is on its way.
const WAL_MAX: u64 = 64 << 20;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// Bytes of WAL that the database's slot keeps.
fn retained(source: &Pg, name: &str) -> u64 {
    let sql = format!(
        "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::int8 FROM pg_replication_slots WHERE database = '{name}'"
    );
    source.one(&sql).expect("the slot").parse().unwrap_or(0)
}

fn wal_files(source: &Pg) -> u64 {
    source.one("SELECT coalesce(sum(size), 0)::int8 FROM pg_ls_waldir()").expect("pg_wal").parse().unwrap_or(0)
}

fn size(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|e| if e.path().is_dir() { size(&e.path()) } else { e.metadata().map_or(0, |m| m.len()) }).sum()
}

#[test]
fn sinks_that_are_down_for_long_cost_log_and_no_wal() {
    let Some(a) = Database::create("pg15", "stopped_a") else { return };
    let Some(b) = Database::create("pg15", "stopped_b") else { return };
    let (changes, rate) = (number("CW_STOPPED_CHANGES", 4_000), number("CW_STOPPED_RATE", 20_000).max(1));
    let name = a.name();
    a.pg.run("CREATE TABLE t (id int PRIMARY KEY, n bigint NOT NULL, pad text NOT NULL)").expect("a table");
    a.pg.run(&format!("INSERT INTO t SELECT i, 0, repeat('x', 40) FROM generate_series(0, {}) i", KEYS - 1))
        .expect("rows");
    a.pg.run(&format!(
        "CREATE PROCEDURE load(first int, txns int) LANGUAGE plpgsql AS $$ BEGIN FOR i IN first .. first + txns - 1 LOOP
           UPDATE t SET n = n + 1 WHERE id >= (i * {TXN}) % {KEYS} AND id < (i * {TXN}) % {KEYS} + {TXN}; COMMIT; END LOOP; END $$"
    ))
    .expect("a load");
    let codec = std::env::var("CW_STOPPED_CODEC").unwrap_or_else(|_| "none".into());
    let mut dev = Dev::new(&format!(
        "version: 1\npipeline: p\nsources:\n  {name}:\n    postgres: {{ url: \"{}\", tables: [t] }}\n    debezium: {{ producer.override.compression.type: {codec} }}\nsinks:\n  copy:\n    from: {name}\n    postgres: {{ url: \"{}\" }}\n",
        a.url(),
        b.url()
    ));
    dev.start().expect("start");
    let minute = Duration::from_secs(60);
    dev.wait(minute, || difference(&a.pg, "t", &b.pg, "t")).unwrap_or_else(|e| panic!("{e:#}"));

    // The target is gone: nobody may enter it, and who is inside is thrown out.
    let admin = Pg::connect(&format!("{}/postgres", a.url().rsplit_once('/').expect("a URL").0)).expect("the server");
    let gate =
        |open: bool| admin.run(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS {open}", b.name())).expect("the gate");
    gate(false);
    b.cut();
    let before = size(&dev.data_dir());
    let (from, mut done, mut most, mut files) = (Instant::now(), 0u64, 0, (u64::MAX, 0));
    while done < changes {
        // Half a second of load, then what is left of it.
        let txns = (rate / 2 / TXN).clamp(1, (changes - done).div_ceil(TXN));
        a.pg.run(&format!("CALL load({}, {txns})", done / TXN)).expect("load");
        done += txns * TXN;
        most = most.max(retained(&a.pg, name));
        let now = wal_files(&a.pg);
        files = (files.0.min(now), files.1.max(now));
        let due = Duration::from_secs_f64(done as f64 / rate as f64);
        std::thread::sleep(due.saturating_sub(from.elapsed()));
    }
    let wrote_seconds = from.elapsed().as_secs_f64();
    // The capture is through; only the sink is behind.
    let now = a.pg.one("SELECT pg_current_wal_lsn()").expect("lsn");
    let sql =
        format!("SELECT bool_and(confirmed_flush_lsn >= '{now}') FROM pg_replication_slots WHERE database = '{name}'");
    let through = || a.pg.one(&sql).unwrap_or_default();
    let hour = Duration::from_secs(3600);
    dev.wait(hour, || if through() == "t" { String::new() } else { format!("the slot is not at {now}") })
        .unwrap_or_else(|e| panic!("{e:#}"));
    let captured_seconds = from.elapsed().as_secs_f64();
    dev.wait(minute, || match retained(&a.pg, name) {
        n if n <= WAL_MAX => String::new(),
        n => format!("{n} bytes of WAL are kept though all of it is in the log"),
    })
    .unwrap_or_else(|e| panic!("{e:#}"));
    assert!(Pg::connect(b.url()).is_err(), "the target was down all the time");
    let log = size(&dev.data_dir()).saturating_sub(before);

    let from = Instant::now();
    gate(true);
    let sum = "SELECT sum(n) FROM t";
    let (want, target) = (a.pg.one(sum).expect("the sum"), b.connect());
    let missing = || match target.one(sum) {
        Ok(n) if n == want => String::new(),
        n => format!("{n:?} of {want}"),
    };
    dev.wait(hour, missing).unwrap_or_else(|e| panic!("{e:#}"));
    assert_eq!(difference(&a.pg, "t", &target, "t"), "");
    let caught_up_seconds = from.elapsed().as_secs_f64();
    let rows = dev.ledger().expect("rows in = rows out");
    assert!(rows >= done, "{rows} rows of {done} changes and the snapshot");
    println!(
        "{}",
        serde_json::json!({
            "changes": done, "rate": rate, "codec": codec, "wrote_seconds": wrote_seconds, "captured_seconds": captured_seconds,
            "retained_bytes_most": most, "pg_wal_bytes_least": files.0, "pg_wal_bytes_most": files.1,
            "log_bytes": log, "caught_up_seconds": caught_up_seconds,
        })
    );
}
