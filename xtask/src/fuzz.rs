//! `cargo xtask fuzz [TARGET…] [--seconds N] [--seed N]`: throws mutated bytes at every decoder (`fuzz/`), N seconds each.

use anyhow::{Context, ensure};
use std::process::Command;

pub fn run(args: &[String]) -> anyhow::Result<()> {
    let status = Command::new("cargo")
        .current_dir(crate::root())
        .args(["run", "--quiet", "--locked", "--profile", "gate", "-p", "catchwater-fuzz", "--"])
        .args(args)
        .status()
        .context("starting cargo")?;
    ensure!(status.success(), "a decoder failed");
    Ok(())
}
