//! S16: a bank with a foreign key and a second unique key between two PostgreSQL servers, under kills of the node at random
//! and at crash points of the stream, cuts of its connections to either database at any byte, ends of its sessions by the
//! server, and, with `CW_KILL_SERVERS=1` (the servers are then this test's alone), crashes of the servers themselves.
//! Nothing lost, nothing doubled, no state that never existed at any look at the target. `CW_KILLS=230` for the long form,
//! `CW_STORM_TARGET=pg16` for a target on a server of its own; the last line is the scoreboard's.

use catchwater_base::Rng;
use catchwater_tests::bank;
use catchwater_tests::dev::{Dev, STREAM_POINTS};
use catchwater_tests::pg::{Database, Pg};
use catchwater_tests::proxy::Proxy;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const ACCOUNTS: u32 = 1000;

/// More than the bank has: each entry of the log belongs to an account, and has a name of its own.
const MORE: &str = "ALTER TABLE txlog ADD COLUMN account int NOT NULL DEFAULT 1 + (random() * 999)::int REFERENCES accounts (id) DEFERRABLE;
    ALTER TABLE txlog ADD COLUMN name text NOT NULL DEFAULT gen_random_uuid()::text UNIQUE";

/// Looks at the target without a pause; a server that is down for now is asked again.
fn watch(url: &str, stop: &AtomicBool, polls: &AtomicU64) -> Result<(), String> {
    let mut watch = bank::Watch::default();
    let mut pg = Pg::connect(url).ok();
    while !stop.load(Ordering::Relaxed) {
        let Some(at) = pg.as_ref().filter(|p| p.one("SELECT 1").is_ok()) else {
            pg = Pg::connect(url).ok();
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        match watch.look(at, ACCOUNTS) {
            Ok(()) if watch.complete() => drop(polls.fetch_add(1, Ordering::Relaxed)),
            Ok(()) => {}
            // The connection ended between the two questions.
            Err(_) if at.one("SELECT 1").is_err() => {}
            Err(e) => return Err(format!("{e:#}")),
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    Ok(())
}

/// Ends our sessions there, or with `crash` the server: the death of one process makes the postmaster start anew.
fn strike(at: &Database, crash: bool) {
    let Ok(pg) = Pg::connect(at.url()) else { return };
    if crash {
        let pid = pg.one("SELECT pg_backend_pid()").ok().and_then(|p| p.parse::<i32>().ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        return;
    }
    let _ = pg.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'catchwater%'",
    );
}

/// The node, its crash point if it was started with one, and how it died so far.
struct Victim<'a> {
    dev: Dev,
    databases: [(&'a Database, &'a Proxy); 2],
    armed: bool,
    points: bool,
    kills: u32,
    at_points: u32,
}

impl Victim<'_> {
    /// A start that does not reach its databases is another test's.
    fn calm(&self) {
        for (database, proxy) in self.databases {
            proxy.calm();
            wait_for(database);
        }
    }

    fn start(&mut self, why: &str) {
        self.calm();
        self.dev.start().unwrap_or_else(|e| panic!("start after {why}: {e:#}"));
        self.armed = false;
    }

    /// The next life ends at a point of the stream, at one of its first passes or a later one, or when it is killed.
    fn start_armed(&mut self, rng: &mut Rng, why: &str) {
        let (area, step) =
            STREAM_POINTS[rng.below(STREAM_POINTS.len() as u64) as usize].split_once('.').expect("area.step");
        let (side, pass) = (["before", "after"][rng.below(2) as usize], 1 + rng.below(8) * rng.below(8));
        let name = format!("{area}.{side}_{step}:{pass}");
        self.calm();
        let ended = self.dev.start_or_end(&[("CATCHWATER_CRASH_AT", &name)]);
        match ended.unwrap_or_else(|e| panic!("start to {name} after {why}: {e:#}")) {
            Some(_) => self.died(why),
            None => self.armed = true,
        }
    }

    fn died(&mut self, why: &str) {
        self.at_points += 1;
        self.dev.kill();
        self.start(why);
    }

    /// False: it ended by itself, and had no point to die at.
    fn lives(&mut self, why: &str) -> bool {
        if self.dev.alive() {
            return true;
        }
        if self.armed {
            self.died(why);
        }
        self.dev.alive()
    }
}

/// Until the server has recovered.
fn wait_for(database: &Database) {
    let until = Instant::now() + Duration::from_secs(60);
    while Pg::connect(database.url()).is_err() {
        assert!(Instant::now() < until, "the server does not come back");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn kills_cuts_and_crashes_lose_double_and_tear_nothing() {
    let faults: u32 = std::env::var("CW_KILLS").ok().and_then(|v| v.parse().ok()).unwrap_or(12);
    let seed: u64 = std::env::var("CW_SEED").ok().and_then(|v| v.parse().ok()).unwrap_or(1);
    let crash = std::env::var("CW_KILL_SERVERS").is_ok_and(|v| v == "1");
    let Some(source) = Database::create("pg15", "storm_source") else { return };
    let server = std::env::var("CW_STORM_TARGET").unwrap_or_else(|_| "pg15".into());
    let Some(target) = Database::create(&server, "storm_target") else { return };
    bank::create(&source.pg, ACCOUNTS).expect("tables");
    source.pg.run(MORE).expect("keys of the source");
    bank::create(&target.pg, 0)
        .and_then(|()| target.pg.run(&format!("TRUNCATE txlog; {MORE}")))
        .expect("the target's tables");
    let (before_source, source_url) = Proxy::before(source.url()).expect("a proxy");
    let (before_target, target_url) = Proxy::before(target.url()).expect("a proxy");
    bank::small_memory(&source).expect("a setting of the source");
    // By the seed, and not the same as the kills' of that seed: both are on for 1.
    let options = bank::options(seed + 2);
    let yaml = bank::pipeline_with(&source, &target, &options)
        .replace(source.url(), &source_url)
        .replace(target.url(), &target_url);
    let points = catchwater_tests::broker::has_crash_points("storm");
    let databases = [(&source, &before_source), (&target, &before_target)];
    let mut node = Victim { dev: Dev::new(&yaml), databases, armed: false, points, kills: 0, at_points: 0 };
    let writers = bank::Writers::start(source.url(), ACCOUNTS, 4, seed);
    let (stop, polls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let watcher = {
        let (stop, polls, url) = (Arc::clone(&stop), Arc::clone(&polls), target.url().to_owned());
        std::thread::spawn(move || watch(&url, &stop, &polls))
    };
    let mut rng = Rng::new(seed);
    let (mut ends, mut crashes) = (0_u32, 0_u32);
    node.start("nothing");
    for fault in 0..faults {
        let why = format!("fault {fault}");
        let at = if rng.chance(500_000) { (&source, &before_source) } else { (&target, &before_target) };
        match rng.below(6) {
            0..=2 => {
                node.dev.kill();
                node.kills += 1;
                if node.points && rng.chance(600_000) { node.start_armed(&mut rng, &why) } else { node.start(&why) }
            }
            3 | 4 => at.1.cut_after(rng.below(300_000)),
            _ if crash => {
                strike(at.0, true);
                crashes += 1;
            }
            _ => {
                strike(at.0, false);
                ends += 1;
            }
        }
        let until = Instant::now() + Duration::from_millis(rng.between(20, 2500));
        while Instant::now() < until {
            if !node.lives(&why) {
                panic!("{why}: the node ended by itself:\n{}", node.dev.log_tail());
            }
            assert!(!watcher.is_finished(), "{why}: a state that never was: {:?}", watcher.join());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let begun = writers.stop();
    if node.armed {
        node.dev.kill();
        node.kills += 1;
        node.start("the last fault");
    }
    let Victim { dev, kills, at_points, .. } = node;
    // Connections of this test's own may have gone with a crash.
    let (source_pg, target_pg) =
        (Pg::connect(source.url()).expect("source"), Pg::connect(target.url()).expect("target"));
    dev.wait(Duration::from_secs(180), || bank::missing(&source_pg, &target_pg))
        .expect("the target reaches the source");
    dev.ledger().expect("no row disappears");
    stop.store(true, Ordering::Relaxed);
    watcher.join().expect("the watcher lives").expect("every state of the target existed");
    let polls = polls.load(Ordering::Relaxed);
    assert!(polls > 100, "the target was looked at {polls} times");
    bank::check_topics(&dev.kafka, &source_pg, source.name()).expect("the topics hold each transaction once");
    let cuts = before_source.cuts() + before_target.cuts();
    println!(
        "{{\"row\": \"S16\", \"violations\": 0, \"faults\": {}, \"transactions\": {begun}, \"polls\": {polls}, \"kills\": {kills}, \"deaths_at_points\": {at_points}, \
         \"cuts\": {cuts}, \"sessions_ended\": {ends}, \"server_crashes\": {crashes}, \"seed\": {seed}, \"options\": \"{}\"}}",
        u64::from(kills + at_points + ends + crashes) + cuts,
        options.trim_start_matches(", ")
    );
}
