//! `cargo xtask sim [--seconds N | --hours N] [ARGS…]`: runs the tests that need `--cfg sim` (the simulator's own, and
//! capture's mutants over a source and a log in memory), plants every bug that touches the log, then runs seeds for so long
//! (`catchwater-sim`, which takes the arguments). The flag reaches the crates of this repository only ([`with_cfg_sim`]).
//! `cargo xtask sim power [ARGS…]`: only the short runs with losses of power (`--seeds 100000` for all of them).
//! `cargo xtask mutants [NAME…]`: only the planted bugs, with the table of what found them.
//! `cargo xtask tierb [ARGS…]`: the whole broker in a simulated world (`sim/tierb`); its arguments are in `sim/tierb/src/main.rs`.
//! Not part of `./check`: with the flag that seeds `select!` everything is built once more, minutes on two cores.

use anyhow::{Context, ensure};
use std::process::Command;

/// Set where this program stands in for the compiler.
const AS_RUSTC: &str = "CATCHWATER_XTASK_AS_RUSTC";

/// Has cargo give `--cfg sim` to the crates of this repository: cargo calls this program in the compiler's place for them,
/// and keeps what comes of it apart from what is built without. Crates of others are those of every other build.
pub fn with_cfg_sim(cargo: &mut Command) -> anyhow::Result<()> {
    let own = std::env::current_exe().context("finding this program")?;
    cargo.env("RUSTC_WORKSPACE_WRAPPER", own).env(AS_RUSTC, "sim");
    Ok(())
}

/// In the compiler's place, its arguments behind its path: the same with the flag. `None` = this is not such a call.
pub fn as_rustc(args: &[String]) -> Option<anyhow::Result<i32>> {
    let cfg = std::env::var(AS_RUSTC).ok()?;
    // What cargo starts otherwise may call this program for its own sake.
    let (rustc, rest) = args.split_first().filter(|(first, _)| first.ends_with("rustc"))?;
    let status = Command::new(rustc).args(rest).args(["--cfg", &cfg]).status();
    Some(status.map(|s| s.code().unwrap_or(1)).context("starting rustc"))
}

/// Runs cargo with `--cfg sim`.
fn cargo(verb: &str, package: &str, rest: &[&str]) -> anyhow::Result<bool> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(crate::root()).args([verb, "--locked", "--profile", "gate", "-p", package]).args(rest);
    with_cfg_sim(&mut cargo)?;
    Ok(cargo.status().context("starting cargo")?.success())
}

/// The same with flags that crates of others must see, too: in a target directory of its own.
fn cargo_in(under: &str, flags: &str, verb: &str, package: &str, rest: &[&str]) -> anyhow::Result<bool> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), Into::into);
    let status = Command::new("cargo")
        .current_dir(crate::root())
        .args([verb, "--locked", "--profile", "gate", "-p", package, "--target-dir"])
        .arg(target.join(under))
        .args(rest)
        .env("RUSTFLAGS", flags)
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
        simulator(&["power".into(), "--seconds".into(), "5".into()])?,
        "a loss of power took what was acknowledged"
    );
    Ok(())
}

pub fn tier_b(args: &[String]) -> anyhow::Result<()> {
    let tests = args == ["test"];
    let mut all = vec!["--"];
    all.extend(args.iter().filter(|_| !tests).map(String::as_str));
    let verb = if tests { "test" } else { "run" };
    ensure!(
        cargo_in("tierb", "--cfg sim --cfg tokio_unstable", verb, "catchwater-tierb", &all)?,
        "tier B found a violation"
    );
    Ok(())
}
