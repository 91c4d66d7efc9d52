//! `cargo xtask history check FILE…`: judges histories of clients (docs/formats/history.md). `cargo xtask history selftest
//! [N]`: the checker's own test with its table, N histories of each sort (row S26 of the scoreboard).

use anyhow::{Context, bail, ensure};
use std::process::Command;

pub fn run(args: &[String]) -> anyhow::Result<()> {
    let rest = match args.first().map(String::as_str) {
        Some("check") if args.len() > 1 => &args[1..],
        Some("selftest") => args,
        _ => bail!("usage: cargo xtask history <check FILE… | selftest [N]>"),
    };
    let status = Command::new("cargo")
        .args(["run", "--quiet", "--locked", "--profile", "gate", "-p", "catchwater-check", "--"])
        .args(rest)
        .status()
        .context("starting cargo")?;
    ensure!(status.success(), "the history has anomalies, or cannot be read");
    Ok(())
}
