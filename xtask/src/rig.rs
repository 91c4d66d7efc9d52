//! `cargo xtask rig WHAT [ARGS…]`: the long runs of the rig (`tests/src/bin/rig.rs`) against the built binary: `power`,
//! `relaxed`, `kills`, `points`, `syscalls`, `eio`, `full`, `descriptors`, `slow`, `flips`, `witness`, `soak`, `kafka-cut`.
//! `CATCHWATER_BIN` names the binary, else the gate profile is built. `--mutant NAME` (`power`) plants a bug in a binary that was built
//! with `--cfg sim` (`CW_SIM_BIN`, else built), and is good if it is caught.

use anyhow::{Context, ensure};
use std::process::Command;

pub fn run(args: &[String]) -> anyhow::Result<()> {
    let status = command(args.iter().any(|a| a == "--mutant"))?.args(args).status().context("starting the rig")?;
    ensure!(status.success(), "rig {}: not green ({status})", args.join(" "));
    Ok(())
}

/// The rig's program (`CW_RIG`, else built), with the binary under test in its environment, one with planted bugs if
/// `mutants`; builds what is missing.
pub fn command(mutants: bool) -> anyhow::Result<Command> {
    let given = std::env::var_os(if mutants { "CW_SIM_BIN" } else { "CATCHWATER_BIN" });
    if let (Some(rig), Some(binary)) = (std::env::var_os("CW_RIG"), &given) {
        let mut command = Command::new(rig);
        command.env("CATCHWATER_BIN", binary);
        return Ok(command);
    }
    let target: std::path::PathBuf =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), Into::into);
    let cargo = |package: &str, more: &[&str], flags: Option<&str>| -> anyhow::Result<()> {
        let mut build = Command::new("cargo");
        build.current_dir(crate::root()).args(["build", "--quiet", "--locked", "--profile", "gate", "-p", package]);
        if let Some(flags) = flags {
            build.env("RUSTFLAGS", flags).env("CARGO_TARGET_DIR", target.join("sim"));
        }
        let status = build.args(more).status().context("starting cargo")?;
        ensure!(status.success(), "{package} does not build");
        Ok(())
    };
    let gate = target.join("gate");
    cargo("catchwater-tests", &["--bin", "rig"], None)?;
    let mut command = Command::new(gate.join("rig"));
    match given {
        Some(binary) => {
            command.env("CATCHWATER_BIN", binary);
        }
        None if mutants => {
            cargo("catchwater", &[], Some("--cfg sim"))?;
            command.env("CATCHWATER_BIN", target.join("sim/gate/catchwater"));
        }
        None => {
            cargo("catchwater", &[], None)?;
            command.env("CATCHWATER_BIN", gate.join("catchwater"));
        }
    }
    Ok(command)
}
