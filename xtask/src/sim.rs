//! `cargo xtask sim [--seconds N | --hours N] [ARGS…]`: runs the tests that need `--cfg sim` (the simulator's own, and
//! capture's mutants over a source and a log in memory), plants every bug that touches the log, then runs seeds for so long
//! (`catchwater-sim`, which takes the arguments) and a share of tier B (`catchwater-tierb`), in a target directory of its own, since the flag reaches every crate.
//! `cargo xtask sim power [ARGS…]`: only the short runs with losses of power (`--seeds 100000` for all of them).
//! `cargo xtask mutants [NAME…]`: only the planted bugs, with the table of what found them.

use anyhow::{Context, ensure};
use std::process::Command;

/// Of every build of a simulator; `tokio_unstable` lets tier B seed what `select!` draws.
pub const RUSTFLAGS: &str = "--cfg sim --cfg tokio_unstable";

/// Runs cargo with `--cfg sim`.
fn cargo(verb: &str, package: &str, rest: &[&str]) -> anyhow::Result<bool> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), Into::into);
    let status = Command::new("cargo")
        .current_dir(crate::root())
        .args([verb, "--locked", "--profile", "gate", "-p", package, "--target-dir"])
        .arg(target.join("sim"))
        .args(rest)
        .env("RUSTFLAGS", RUSTFLAGS)
        .status()
        .context("starting cargo")?;
    Ok(status.success())
}

fn simulator(args: &[String]) -> anyhow::Result<bool> {
    let mut all = vec!["--bin", "catchwater-sim", "--"];
    all.extend(args.iter().map(String::as_str));
    cargo("run", "catchwater-sim", &all)
}

pub fn mutants(names: &[String]) -> anyhow::Result<()> {
    let mut args = vec!["mutants".to_owned()];
    args.extend(names.iter().cloned());
    ensure!(simulator(&args)?, "a mutant survived");
    Ok(())
}

pub fn run(args: &[String]) -> anyhow::Result<()> {
    if args.first().is_some_and(|a| a == "power") {
        ensure!(simulator(args)?, "a loss of power took what was acknowledged");
        return Ok(());
    }
    ensure!(cargo("test", "catchwater-sim", &["--", "--nocapture"])?, "the simulator's own tests failed");
    ensure!(
        cargo("test", "catchwater-capture", &["--lib", "mutants_die", "--", "--nocapture", "--test-threads=1"])?,
        "a mutant of capture survived"
    );
    mutants(&[])?;
    ensure!(simulator(args)?, "the simulator found a violation");
    ensure!(
        cargo("run", "catchwater-tierb", &["--", "mutants"])?
            && cargo("run", "catchwater-tierb", &["--", "same", "2"])?
            && cargo("run", "catchwater-tierb", &["--", "--seconds", "10"])?,
        "tier B found a violation"
    );
    ensure!(
        simulator(&["power".into(), "--seconds".into(), "5".into()])?,
        "a loss of power took what was acknowledged"
    );
    Ok(())
}
