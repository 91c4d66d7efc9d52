//! The long runs of the rig: `cargo xtask rig WHAT [--cycles N] [--seed N]`. One JSON line at the end; exit 1 if not green.

use anyhow::{Context, Result, bail};
use catchwater_tests::rig::power::{Plant, Power};
use catchwater_tests::rig::{Outcome, errors, flips, kafka_cut, kills, power, soak, syscalls, witness};
use std::time::Duration;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let what = args.first().cloned().unwrap_or_default();
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)).cloned();
    let number = |name: &str, default: u64| -> Result<u64> {
        value(name).map_or(Ok(default), |v| v.parse().with_context(|| format!("{name} {v}")))
    };
    let seed = number("--seed", 1)?;
    let cycles = u32::try_from(number("--cycles", 50)?)?;
    let mutant: Vec<_> = value("--mutant").map(|m| ("CATCHWATER_MUTANT".to_owned(), m)).into_iter().collect();
    let must_find = value("--plant").is_some() || !mutant.is_empty();
    let plant = match value("--plant").as_deref() {
        None => Plant::None,
        Some("directory-syncs") => Plant::DirectorySyncs,
        Some("file-syncs") => Plant::FileSyncs,
        Some(other) => bail!("--plant {other}: directory-syncs or file-syncs"),
    };
    let outcome: Outcome = match what.as_str() {
        "power" => {
            power::run(&Power { seed, cuts: cycles, plant, env: mutant, until_found: must_find, relaxed: false })?
        }
        "relaxed" => {
            power::run(&Power { seed, cuts: cycles, plant, env: mutant, until_found: must_find, relaxed: true })?
        }
        "kills" => kills::at_random(seed, cycles)?,
        "points" => {
            let passes = number("--passes", 1)?;
            let mut points = Vec::new();
            for pass in 1..=passes {
                let wanted = |p: &String| value("--only").is_none_or(|prefix| p.starts_with(&prefix));
                points.extend(kills::points()?.into_iter().filter(wanted).map(|p| format!("{p}:{}", 2 * pass - 1)));
            }
            kills::at_points(seed, &points, Duration::from_secs(6))?
        }
        "syscalls" => {
            // A script has several hundred calls: the next seeds' scripts follow until there are enough.
            let mut outcome = Outcome { seed, ..Outcome::default() };
            // A point that did not come is no death: the goal is deaths.
            let (mut next, mut calls) = (seed, Vec::new());
            while outcome.faults < u64::from(cycles) && outcome.violations.is_empty() {
                let all = syscalls::points(next)?;
                let points = syscalls::share(&all, usize::try_from(u64::from(cycles) - outcome.faults)?, next);
                let before = outcome.faults;
                outcome.merge(syscalls::run(next, &points)?);
                anyhow::ensure!(outcome.faults > before, "no point of script {next} came");
                calls.push(all.len().to_string());
                next += 1;
            }
            outcome.note("scripts, each of the next seed, and the calls of their busiest threads", calls.join(" "));
            outcome
        }
        "witness" => {
            let python = catchwater_tests::python::interpreter().map_err(anyhow::Error::msg)?;
            witness::run(seed, cycles, &python, value("--history").map(std::path::PathBuf::from).as_deref())?
        }
        "kafka-cut" => {
            let python = catchwater_tests::python::interpreter().map_err(anyhow::Error::msg)?;
            kafka_cut::run(seed, cycles, &python)?
        }
        "flips" => flips::run(seed, cycles)?,
        "soak" => soak::run(seed, cycles)?,
        "eio" => errors::eio(seed, cycles)?,
        "descriptors" => errors::descriptors(seed, cycles)?,
        "slow" => errors::slow(seed, cycles)?,
        "full" => errors::full(seed, cycles)?,
        _ => {
            eprintln!(
                "usage: rig <power | relaxed | kills | points | syscalls | eio | full | descriptors | slow | witness | soak | flips | kafka-cut> [--cycles N] [--seed N] [--plant directory-syncs | file-syncs]"
            );
            std::process::exit(2)
        }
    };
    println!("{}", outcome.json(&what));
    for v in outcome.violations.iter().take(40) {
        eprintln!("{v}");
    }
    let good = if must_find { !outcome.violations.is_empty() } else { outcome.is_green() };
    std::process::exit(i32::from(!good))
}
