//! `cargo xtask sim [--seconds N] [ARGS…]`: runs the tests that plant mutants under `--cfg sim` (the simulator's own, and
//! capture's over a source and a log in memory), then seeds for so long (`catchwater-sim`, which takes the arguments), in
//! a target directory of its own, since the flag reaches every crate.

use anyhow::{Context, ensure};
use std::process::Command;

pub fn run(args: &[String]) -> anyhow::Result<()> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), Into::into);
    let cargo = |verb: &str, package: &str, rest: &[&str]| {
        Command::new("cargo")
            .current_dir(crate::root())
            .args([verb, "--locked", "--profile", "gate", "-p", package, "--target-dir"])
            .arg(target.join("sim"))
            .args(rest)
            .env("RUSTFLAGS", "--cfg sim")
            .status()
            .context("starting cargo")
    };
    ensure!(
        cargo("test", "catchwater-sim", &["--", "--nocapture"])?.success(),
        "the simulator's own tests failed, or a mutant survived"
    );
    ensure!(
        cargo("test", "catchwater-capture", &["--lib", "mutants_die", "--", "--nocapture", "--test-threads=1"])?
            .success(),
        "a mutant of capture survived"
    );
    let mut seeds = vec!["--bin", "catchwater-sim", "--"];
    seeds.extend(args.iter().map(String::as_str));
    ensure!(cargo("run", "catchwater-sim", &seeds)?.success(), "the simulator found a violation");
    Ok(())
}
