//! W5: `kill -9` at random under a bank load. Afterwards target = source both ways, each source transaction is in the
//! topics exactly once and in order, and the sum is right at every poll of the target. `CW_KILLS=50` for a long run.

use catchwater_base::Rng;
use catchwater_tests::bank;
use catchwater_tests::dev::Dev;
use catchwater_tests::pg::Database;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const ACCOUNTS: u32 = 1000;

#[test]
fn random_kills_lose_and_double_nothing() {
    let kills: u32 = std::env::var("CW_KILLS").ok().and_then(|v| v.parse().ok()).unwrap_or(6);
    let seed: u64 = std::env::var("CW_SEED").ok().and_then(|v| v.parse().ok()).unwrap_or(1);
    let Some(source) = Database::create("pg15", "kills_source") else { return };
    let Some(target) = Database::create("pg15", "kills_target") else { return };
    bank::create(&source.pg, ACCOUNTS).expect("tables");
    let mut dev = Dev::new(&bank::pipeline(&source, &target));
    let writers = bank::Writers::start(source.url(), ACCOUNTS, 4, seed);

    let (stop, polls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let watcher = {
        let (stop, polls, pg) = (Arc::clone(&stop), Arc::clone(&polls), target.connect());
        std::thread::spawn(move || -> Result<(), String> {
            let mut watch = bank::Watch::default();
            while !stop.load(Ordering::Relaxed) {
                watch.look(&pg, ACCOUNTS).map_err(|e| format!("{e:#}"))?;
                if watch.complete() {
                    polls.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        })
    };
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
    stop.store(true, Ordering::Relaxed);
    watcher.join().expect("the watcher lives").expect("every state of the target existed");
    assert!(polls.load(Ordering::Relaxed) > 100, "the target was looked at too rarely");
    bank::check_topics(&dev.kafka, &source.pg, source.name()).expect("the topics hold each transaction once");
    println!("{begun} transactions, {kills} kills, {} polls of the target", polls.load(Ordering::Relaxed));
    let (status, took) = dev.stop().expect("a clean end");
    assert_eq!(status.code(), Some(143), "ended with {status}");
    assert!(took < Duration::from_secs(10), "took {took:?}");
}
