//! The long runs of the rig: `cargo xtask rig WHAT [--cycles N] [--seed N]`. One JSON line at the end; exit 1 if not green.

use anyhow::{Context, Result, bail};
use catchwater_tests::rig::power::{Plant, Power};
use catchwater_tests::rig::{Outcome, errors, flips, kills, power, soak, syscalls, witness};
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
        "power" => power::run(&Power { seed, cuts: cycles, plant, env: mutant, until_found: must_find })?,
        "kills" => kills::at_random(seed, cycles)?,
        "points" => {
            let passes = number("--passes", 1)?;
            let mut points = Vec::new();
            for pass in 1..=passes {
                points.extend(kills::points()?.into_iter().map(|p| format!("{p}:{}", 2 * pass - 1)));
            }
            kills::at_points(seed, &points, Duration::from_secs(6))?
        }
        "syscalls" => {
            // A script has several hundred calls: the next seeds' scripts follow until there are enough.
            let mut outcome = Outcome { seed, ..Outcome::default() };
            let (mut left, mut next) = (cycles as usize, seed);
            while left > 0 && outcome.violations.is_empty() {
                let all = syscalls::points(next)?;
                let points = syscalls::share(&all, left, next);
                left -= points.len().min(left);
                outcome.merge(syscalls::run(next, &points)?);
                outcome.note("script of seed and its calls", format!("{next}: {}", all.len()));
                next += 1;
            }
            outcome
        }
        "witness" => {
            let python = catchwater_tests::python::interpreter().map_err(anyhow::Error::msg)?;
            witness::run(seed, cycles, &python, value("--history").map(std::path::PathBuf::from).as_deref())?
        }
        "flips" => flips::run(seed, cycles)?,
        "soak" => soak::run(seed, cycles)?,
        "eio" => errors::eio(seed, cycles)?,
        "full" => errors::full(seed, cycles)?,
        _ => {
            eprintln!(
                "usage: rig <power | kills | points | syscalls | eio | full | witness | soak | flips> [--cycles N] [--seed N] [--plant directory-syncs | file-syncs]"
            );
            std::process::exit(2)
        }
    };
    println!("{}", outcome.json(&what));
    for v in &outcome.violations {
        eprintln!("{v}");
    }
    let good = if must_find { !outcome.violations.is_empty() } else { outcome.is_green() };
    std::process::exit(i32::from(!good))
}
