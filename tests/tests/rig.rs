//! The log on real disks: what was acknowledged survives kills, crash points and power cuts, judged by a ledger kept
//! elsewhere. A share of each; the long form is `cargo xtask rig` and `cargo xtask scoreboard`.

use catchwater_tests::rig::power::{Plant, Power};
use catchwater_tests::rig::{Outcome, errors, flips, kills, power, strace, syscalls, witness};
use std::time::Duration;

fn number(variable: &str, default: u32) -> u32 {
    std::env::var(variable).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn seed() -> u64 {
    u64::from(number("CW_SEED", 1))
}

fn green(what: &str, outcome: &Outcome) {
    println!("{}", outcome.json(what));
    assert!(outcome.is_green(), "{what}, seed {}: {:#?}", outcome.seed, outcome.violations);
}

/// Is the machine able to cut power? A SKIP, said loudly, if not.
fn can_cut(test: &str) -> bool {
    match power::probe() {
        Ok(()) => true,
        Err(e) => {
            catchwater_tests::skip(test, &format!("power cannot be cut here: {e:#}"));
            false
        }
    }
}

#[test]
fn power_cuts_lose_nothing() {
    if !can_cut("power_cuts_lose_nothing") {
        return;
    }
    let cuts = number("CW_POWER_CUTS", 10);
    let run = Power { seed: seed(), cuts, plant: Plant::None, env: vec![], until_found: false, relaxed: false };
    green("power", &power::run(&run).expect("the rig works"));
}

/// A power cut takes at most one window from the end of a relaxed partition, and the start after it says so.
#[test]
fn power_cuts_take_at_most_the_window_of_relaxed_topics() {
    if !can_cut("power_cuts_take_at_most_the_window_of_relaxed_topics") {
        return;
    }
    let cuts = number("CW_POWER_CUTS", 8);
    let run = Power { seed: seed(), cuts, plant: Plant::None, env: vec![], until_found: false, relaxed: true };
    green("relaxed", &power::run(&run).expect("the rig works"));
}

#[test]
fn a_broker_without_directory_syncs_is_caught() {
    if !can_cut("a_broker_without_directory_syncs_is_caught") {
        return;
    }
    let run =
        Power { seed: seed(), cuts: 10, plant: Plant::DirectorySyncs, env: vec![], until_found: true, relaxed: false };
    let outcome = power::run(&run).expect("the rig works");
    assert!(!outcome.violations.is_empty(), "ten cuts found nothing: {}", outcome.json("power"));
}

#[test]
fn a_broker_without_file_syncs_is_caught() {
    if !can_cut("a_broker_without_file_syncs_is_caught") {
        return;
    }
    let run = Power { seed: seed(), cuts: 20, plant: Plant::FileSyncs, env: vec![], until_found: true, relaxed: false };
    let outcome = power::run(&run).expect("the rig works");
    assert!(!outcome.violations.is_empty(), "twenty cuts found nothing: {}", outcome.json("power"));
}

/// strace is there and may trace; a SKIP, said loudly, if not.
fn can_trace(test: &str) -> bool {
    match strace::probe() {
        Ok(()) => true,
        Err(e) => {
            catchwater_tests::skip(test, &format!("{e:#}"));
            false
        }
    }
}

#[test]
fn deaths_at_system_calls_lose_nothing() {
    if !can_trace("deaths_at_system_calls_lose_nothing") {
        return;
    }
    let all = syscalls::points(seed()).expect("a script");
    // Fewer than two for each, since entries wait for each other before they go to files.
    assert!(all.len() >= 250, "only {} calls in a script of 200 operations", all.len());
    let share = syscalls::share(&all, number("CW_SYSCALLS", 30) as usize, seed());
    green("syscalls", &syscalls::run(seed(), &share).expect("the rig works"));
}

#[test]
fn after_an_error_of_the_disk_nothing_is_acknowledged_and_nothing_is_lost() {
    if !can_trace("after_an_error_of_the_disk_nothing_is_acknowledged_and_nothing_is_lost") {
        return;
    }
    green("eio", &errors::eio(seed(), number("CW_EIO", 10)).expect("the rig works"));
}

#[test]
fn without_descriptors_the_broker_lives_and_loses_nothing() {
    if !can_trace("without_descriptors_the_broker_lives_and_loses_nothing") {
        return;
    }
    green("descriptors", &errors::descriptors(seed(), number("CW_DESCRIPTORS", 2)).expect("the rig works"));
}

#[test]
fn a_slow_disk_slows_and_loses_nothing() {
    if !can_trace("a_slow_disk_slows_and_loses_nothing") {
        return;
    }
    green("slow", &errors::slow(seed(), number("CW_SLOW", 2)).expect("the rig works"));
}

#[test]
fn a_full_disk_refuses_serves_readers_and_comes_back() {
    if !can_cut("a_full_disk_refuses_serves_readers_and_comes_back") {
        return;
    }
    green("full", &errors::full(seed(), number("CW_FULL", 3)).expect("the rig works"));
}

#[test]
fn a_damaged_bit_is_found_or_harmless() {
    green("flips", &flips::run(seed(), number("CW_FLIPS", 12)).expect("the rig works"));
}

#[test]
fn a_disk_that_fails_while_the_node_starts_ends_it_at_once() {
    if !can_trace("a_disk_that_fails_while_the_node_starts_ends_it_at_once") {
        return;
    }
    let outcome = errors::at_start(Duration::from_secs(5)).expect("the rig works");
    println!("{}", outcome.json("start"));
    assert!(outcome.faults >= 15 && outcome.violations.is_empty(), "{:#?}", outcome.violations);
}

/// librdkafka writes and reads through every death; the history checker judges what it saw.
#[test]
fn a_foreign_witness_finds_no_anomaly() {
    let python = match catchwater_tests::python::interpreter() {
        Ok(python) => python,
        Err(e) => return catchwater_tests::skip("a_foreign_witness_finds_no_anomaly", &e),
    };
    green("witness", &witness::run(seed(), number("CW_WITNESS", 5), &python, None).expect("the rig works"));
}

#[test]
fn random_kills_of_the_broker_lose_nothing() {
    green("kills", &kills::at_random(seed(), number("CW_KILLS", 12)).expect("the rig works"));
}

/// Every named point with `CW_POINTS=all`, else a dozen that change with the seed.
#[test]
fn deaths_at_named_points_lose_nothing() {
    if !catchwater_tests::broker::has_crash_points("deaths_at_named_points_lose_nothing") {
        return;
    }
    let all = kills::points().expect("the sources");
    assert!(all.len() >= 60, "only {} named points", all.len());
    let share = match std::env::var("CW_POINTS").as_deref() {
        Ok("all") => all,
        _ => {
            let expected = |p: &String| kills::NOT_REACHED.iter().any(|(prefix, _)| p.starts_with(prefix));
            let reached: Vec<String> = all.into_iter().filter(|p| !expected(p)).collect();
            let from = (seed() * 12) as usize % reached.len();
            reached.iter().cycle().skip(from).step_by(5).take(12).cloned().collect()
        }
    };
    let points: Vec<String> = share.into_iter().map(|p| format!("{p}:1")).collect();
    let outcome = kills::at_points(seed(), &points, Duration::from_secs(6)).expect("the rig works");
    green("points", &outcome);
    // A few wait for something rare (a second journal file to go, a folder to be empty) and may miss their six seconds.
    assert!(outcome.faults * 4 >= points.len() as u64 * 3, "too few points reached: {:?}", outcome.notes);
}
