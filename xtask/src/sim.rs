//! `cargo xtask sim [--seconds N] [ARGS…]`: runs the tier-A simulator and its mutants under `--cfg sim`, in a target
//! directory of its own, since the flag reaches every crate.

use anyhow::{Context, ensure};
use std::process::Command;

pub fn run(args: &[String]) -> anyhow::Result<()> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), Into::into);
    let status = Command::new("cargo")
        .current_dir(crate::root())
        .args(["test", "--locked", "--profile", "gate", "-p", "catchwater-sim", "--target-dir"])
        .arg(target.join("sim"))
        .arg("--")
        .args(args)
        .env("RUSTFLAGS", "--cfg sim")
        .status()
        .context("starting cargo")?;
    ensure!(status.success(), "the simulator found a violation or a mutant survived");
    Ok(())
}
