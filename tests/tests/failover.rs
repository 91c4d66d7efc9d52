//! A primary dies under load, its standby takes over with the slot it has copied (PostgreSQL 17), and the pipeline goes on
//! there: each transaction that the new primary knows is in the log once, no other, and the target equals the new primary.

use catchwater_tests::bank;
use catchwater_tests::dev::Dev;
use catchwater_tests::pg::{Database, Pg};
use std::cell::Cell;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(90);
const ACCOUNTS: u32 = 100;

/// A primary and its standby, made and wiped by `xtask db`.
struct Pair {
    xtask: PathBuf,
    work: PathBuf,
    urls: [String; 2],
}

impl Pair {
    fn start() -> Option<Pair> {
        let Some(xtask) = std::env::var_os("CW_XTASK") else {
            catchwater_tests::skip("failover", "CW_XTASK is not set; it starts the servers");
            return None;
        };
        let work = std::env::temp_dir().join(format!("cw-failover-{}", std::process::id()));
        std::fs::create_dir_all(&work).expect("a folder");
        std::fs::set_permissions(&work, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("its rights");
        let mut pair = Pair { xtask: xtask.into(), work, urls: Default::default() };
        pair.db(&["start", "pg17"]);
        pair.db(&["standby", "pg17"]);
        let said = pair.db(&["env", "pg17", "pg17-standby"]);
        let url = |name: &str| {
            let line = said.lines().find_map(|l| l.strip_prefix(&format!("export CW_{name}_URL="))).expect("a URL");
            line.trim_matches(['\'', '"']).to_owned()
        };
        pair.urls = [url("PG17"), url("PG17_STANDBY")];
        Some(pair)
    }

    fn db(&self, words: &[&str]) -> String {
        let done = Command::new(&self.xtask).arg("db").args(words).env("CW_DB_WORK", &self.work).output();
        let done = done.expect("xtask");
        assert!(done.status.success(), "db {words:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).expect("text")
    }

    fn at(&self, which: usize, database: &str) -> String {
        self.urls[which].rsplit_once('/').map(|(base, _)| format!("{base}/{database}")).expect("a URL")
    }

    /// An immediate shutdown: nothing is flushed, nobody is told.
    fn crash_primary(&self) {
        let pid = std::fs::read_to_string(self.work.join("pg17/data/postmaster.pid")).expect("a pid");
        let pid = pid.lines().next().expect("a pid").trim().to_owned();
        assert!(Command::new("kill").args(["-QUIT", &pid]).status().expect("kill").success());
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = Command::new(&self.xtask).args(["db", "wipe"]).env("CW_DB_WORK", &self.work).output();
        let _ = std::fs::remove_dir_all(&self.work);
    }
}

#[test]
fn a_promoted_standby_goes_on_where_the_primary_ended() {
    let Some(target) = Database::create("pg15", "failover_target") else { return };
    let Some(pair) = Pair::start() else { return };
    let admin = Pg::connect(&pair.urls[0]).expect("the primary");
    admin.run("CREATE DATABASE shop").expect("a database");
    let primary = Pg::connect(&pair.at(0, "shop")).expect("the database");
    bank::create(&primary, ACCOUNTS).expect("tables");
    let host = |which: usize| {
        let url = &pair.urls[which];
        url.split_once('@').and_then(|(_, rest)| rest.split_once('/')).map(|(host, _)| host.to_owned()).expect("a host")
    };
    let yaml = format!(
        "version: 1\npipeline: bank\nsources:\n  shop:\n    postgres: {{ url: \"postgres://postgres@{},{}/shop\", tables: [accounts, txlog], failover: true }}\nsinks:\n  copy:\n    from: shop\n    postgres: {{ url: \"{}\" }}\n",
        host(0),
        host(1),
        target.url()
    );
    let mut dev = Dev::new(&yaml);
    dev.start().expect("start");
    let writers = bank::Writers::start(&pair.at(0, "shop"), ACCOUNTS, 2, 7);
    dev.wait(LIMIT, || bank::missing(&target.pg, &target.pg)).expect("the snapshot");
    // Only a slot that is copied whole outlives the promotion.
    let standby = Pg::connect(&pair.at(1, "postgres")).expect("the standby");
    // The copier sleeps longer and longer while there is nothing to copy, up to 30 s.
    standby.run("ALTER SYSTEM SET sync_replication_slots = on").expect("a setting");
    standby.rows("SELECT pg_reload_conf()").expect("a reload");
    let copied = "SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'logical' AND synced AND NOT temporary AND invalidation_reason IS NULL";
    let again = Cell::new(Instant::now());
    dev.wait(LIMIT, || match standby.one(copied).as_deref() {
        Ok("1") => String::new(),
        other => {
            // What lets the slot move on; the server writes it every 15 s.
            if again.get().elapsed() > Duration::from_secs(1) {
                again.set(Instant::now());
                primary.rows("SELECT pg_log_standby_snapshot()").expect("a snapshot of the transactions");
            }
            format!("the slot is not copied: {other:?}")
        }
    })
    .expect("a copied slot");
    let so_far = writers.begun();
    dev.wait(LIMIT, || if writers.begun() > so_far + 200 { String::new() } else { "load".into() }).expect("load");
    pair.crash_primary();
    writers.stop();
    standby.run("SELECT pg_promote(true, 60)").expect("promoted");
    let promoted = Pg::connect(&pair.at(1, "shop")).expect("the new primary");
    let before: u64 = promoted.one("SELECT count(*) FROM txlog").expect("a count").parse().expect("a number");
    let writers = bank::Writers::start(&pair.at(1, "shop"), ACCOUNTS, 2, 8);
    dev.wait(LIMIT, || match promoted.one("SELECT count(*) FROM txlog").ok().and_then(|n| n.parse::<u64>().ok()) {
        Some(n) if n > before + 100 => String::new(),
        n => format!("{n:?} transactions, {before} before"),
    })
    .expect("load on the new primary");
    writers.stop();
    dev.wait(LIMIT, || bank::missing(&promoted, &target.pg)).unwrap_or_else(|e| panic!("{e:#}"));
    bank::check_topics(&dev.kafka, &promoted, "shop").unwrap_or_else(|e| panic!("{e:#}"));
    // A restart stands on the new timeline.
    dev.kill();
    dev.start().expect("again");
    promoted.run("UPDATE accounts SET version = version + 1 WHERE id = 1").expect("a change");
    dev.wait(LIMIT, || bank::missing(&promoted, &target.pg)).unwrap_or_else(|e| panic!("{e:#}"));
    dev.ledger().expect("no row disappears");
}
