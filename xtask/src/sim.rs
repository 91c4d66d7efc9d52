//! `cargo xtask sim [--seconds N] [ARGS…]`: runs the simulator's own tests and its mutants under `--cfg sim`, then seeds
//! for so long (`catchwater-sim`, which takes the arguments), in a target directory of its own, since the flag reaches
//! every crate.

use anyhow::{Context, ensure};
use std::process::Command;

pub fn run(args: &[String]) -> anyhow::Result<()> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), Into::into);
    let cargo = |verb: &str, rest: &[String]| {
        Command::new("cargo")
            .current_dir(crate::root())
            .args([verb, "--locked", "--profile", "gate", "-p", "catchwater-sim", "--target-dir"])
            .arg(target.join("sim"))
            .args(rest)
            .env("RUSTFLAGS", "--cfg sim")
            .status()
            .context("starting cargo")
    };
    let tests = ["--", "--nocapture"].map(String::from);
    ensure!(cargo("test", &tests)?.success(), "the simulator's own tests failed, or a mutant survived");
    let mut seeds = vec!["--bin".to_owned(), "catchwater-sim".to_owned(), "--".to_owned()];
    seeds.extend(args.iter().cloned());
    ensure!(cargo("run", &seeds)?.success(), "the simulator found a violation");
    Ok(())
}
