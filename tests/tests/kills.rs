//! W5: `kill -9` at random under a bank load. Afterwards target = source both ways, each source transaction is in the
//! topics exactly once and in order, and the sum is right at every poll of the target, from the first row it shows.
//! `CW_KILLS=50` for a long run.

use catchwater_base::Rng;
use catchwater_tests::bank;
use catchwater_tests::dev::Dev;
use catchwater_tests::pg::Database;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const ACCOUNTS: u32 = 1000;

/// Looks at the target all the time, in a thread of its own.
struct Watcher {
    stop: Arc<AtomicBool>,
    polls: Arc<AtomicU64>,
    thread: JoinHandle<Result<(), String>>,
}

impl Watcher {
    fn start(target: &Database, accounts: u32) -> Watcher {
        let (stop, polls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = {
            let (stop, polls, pg) = (Arc::clone(&stop), Arc::clone(&polls), target.connect());
            std::thread::spawn(move || -> Result<(), String> {
                let mut watch = bank::Watch::default();
                while !stop.load(Ordering::Relaxed) {
                    watch.look(&pg, accounts).map_err(|e| format!("{e:#}"))?;
                    if watch.complete() {
                        polls.fetch_add(1, Ordering::Relaxed);
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(())
            })
        };
        Watcher { stop, polls, thread }
    }

    /// Looks at the target with rows in it; every one of them showed a state that existed.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the watcher lives").expect("every state of the target existed");
        self.polls.load(Ordering::Relaxed)
    }
}

#[test]
fn random_kills_lose_and_double_nothing() {
    let kills: u32 = std::env::var("CW_KILLS").ok().and_then(|v| v.parse().ok()).unwrap_or(6);
    let seed: u64 = std::env::var("CW_SEED").ok().and_then(|v| v.parse().ok()).unwrap_or(1);
    let Some(source) = Database::create("pg15", "kills_source") else { return };
    let Some(target) = Database::create("pg15", "kills_target") else { return };
    bank::create(&source.pg, ACCOUNTS).expect("tables");
    bank::small_memory(&source).expect("a setting of the source");
    let options = bank::options(seed);
    let mut dev = Dev::new(&bank::pipeline_with(&source, &target, &options));
    let writers = bank::Writers::start(source.url(), ACCOUNTS, 4, seed);

    let watcher = Watcher::start(&target, ACCOUNTS);
    let mut rng = Rng::new(seed);
    for kill in 0..kills {
        dev.start().unwrap_or_else(|e| panic!("start {kill}: {e:#}"));
        // Early kills hit the snapshot, later ones the stream.
        let run = Duration::from_millis(rng.between(if kill < 2 { 0 } else { 300 }, if kill < 2 { 300 } else { 2500 }));
        let until = Instant::now() + run;
        while Instant::now() < until && dev.alive() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(dev.alive(), "run {kill} ended by itself:\n{}", dev.log_tail());
        dev.kill();
    }
    dev.start().expect("the last start");
    std::thread::sleep(Duration::from_millis(500));
    let begun = writers.stop();
    dev.wait(Duration::from_secs(120), || bank::missing(&source.pg, &target.pg))
        .expect("the target reaches the source");
    dev.ledger().expect("no row disappears");
    let polls = watcher.stop();
    // Beside other work on the machine a look takes its time.
    assert!(polls > 20, "the target was looked at too rarely: {polls}");
    bank::check_topics(&dev.kafka, &source.pg, source.name()).expect("the topics hold each transaction once");
    println!("{begun} transactions, {kills} kills, {polls} polls of the target, source{options}");
    let (status, took) = dev.stop().expect("a clean end");
    assert_eq!(status.code(), Some(143), "ended with {status}");
    assert!(took < Duration::from_secs(10), "took {took:?}");
}

/// The first snapshot in several units, killed between them, and what is left of it read by chunks beside the stream,
/// killed again: the target stays empty until all of it is there.
#[test]
fn kills_inside_the_first_snapshot_show_no_half_of_it() {
    // Above two units of 50,000 rows.
    const MANY: u32 = 120_000;
    if !catchwater_tests::broker::has_crash_points("kills_inside_the_first_snapshot") {
        return;
    }
    let Some(source) = Database::create("pg15", "half_source") else { return };
    let Some(target) = Database::create("pg15", "half_target") else { return };
    bank::create(&source.pg, MANY).expect("tables");
    let mut dev = Dev::new(&bank::pipeline(&source, &target));
    let writers = bank::Writers::start(source.url(), MANY, 2, 3);
    let watcher = Watcher::start(&target, MANY);
    // The first two hit the snapshot as exported, the others the chunks beside the stream.
    for point in ["capture.after_page:20", "capture.before_chunk:1", "capture.after_chunk:1", "sink.after_rows:3"] {
        let early = dev.start_or_end(&[("CATCHWATER_CRASH_AT", point)]).unwrap_or_else(|e| panic!("{point}: {e:#}"));
        let until = Instant::now() + Duration::from_secs(30);
        while early.is_none() && dev.alive() {
            assert!(Instant::now() < until, "{point} was not reached:\n{}", dev.log_tail());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    dev.start().expect("the last start");
    dev.wait(Duration::from_secs(90), || {
        let seen = target.pg.one("SELECT count(*) FROM accounts").unwrap_or_default();
        if seen == MANY.to_string() { String::new() } else { format!("{seen} accounts") }
    })
    .expect("the whole snapshot becomes visible");
    writers.stop();
    dev.wait(Duration::from_secs(60), || bank::missing(&source.pg, &target.pg)).expect("the target reaches the source");
    watcher.stop();
    bank::check_topics(&dev.kafka, &source.pg, source.name()).expect("the topics hold each transaction once");
}
