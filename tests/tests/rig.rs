//! The log on real disks: what was acknowledged survives kills, crash points and power cuts, judged by a ledger kept
//! elsewhere. A share of each; the long form is `cargo xtask rig` and `cargo xtask scoreboard`.

use catchwater_tests::rig::power::{Plant, Power};
use catchwater_tests::rig::{Outcome, kills, power};
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
    let run = Power { seed: seed(), cuts, plant: Plant::None, env: vec![], until_found: false };
    green("power", &power::run(&run).expect("the rig works"));
}

#[test]
fn a_broker_without_directory_syncs_is_caught() {
    if !can_cut("a_broker_without_directory_syncs_is_caught") {
        return;
    }
    let run = Power { seed: seed(), cuts: 10, plant: Plant::DirectorySyncs, env: vec![], until_found: true };
    let outcome = power::run(&run).expect("the rig works");
    assert!(!outcome.violations.is_empty(), "ten cuts found nothing: {}", outcome.json("power"));
}

#[test]
fn a_broker_without_file_syncs_is_caught() {
    if !can_cut("a_broker_without_file_syncs_is_caught") {
        return;
    }
    let run = Power { seed: seed(), cuts: 20, plant: Plant::FileSyncs, env: vec![], until_found: true };
    let outcome = power::run(&run).expect("the rig works");
    assert!(!outcome.violations.is_empty(), "twenty cuts found nothing: {}", outcome.json("power"));
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
    let missed = outcome.notes.iter().find(|(k, _)| k == "not reached").map(|(_, v)| v.as_str());
    assert_eq!(missed, Some(""), "points that the load should reach");
}
