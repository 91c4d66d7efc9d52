//! `cargo xtask rig WHAT [ARGS…]`: the long runs of the rig (`tests/src/bin/rig.rs`) against the built binary: `power`,
//! `kills`, `points`, `syscalls`, `eio`, `full`, `flips`, `witness`, `soak`, `kafka-cut`. `CATCHWATER_BIN` names the binary, else the gate profile is built.

use anyhow::{Context, ensure};
use std::process::Command;

pub fn run(args: &[String]) -> anyhow::Result<()> {
    let status = command()?.args(args).status().context("starting the rig")?;
    ensure!(status.success(), "rig {}: not green ({status})", args.join(" "));
    Ok(())
}

/// The rig's program (`CW_RIG`, else built), with the binary under test in its environment; builds what is missing.
pub fn command() -> anyhow::Result<Command> {
    if let (Some(rig), Some(_)) = (std::env::var_os("CW_RIG"), std::env::var_os("CATCHWATER_BIN")) {
        return Ok(Command::new(rig));
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), Into::into);
    let cargo = |package: &str, more: &[&str]| -> anyhow::Result<()> {
        let status = Command::new("cargo")
            .current_dir(crate::root())
            .args(["build", "--quiet", "--locked", "--profile", "gate", "-p", package])
            .args(more)
            .status()
            .context("starting cargo")?;
        ensure!(status.success(), "{package} does not build");
        Ok(())
    };
    let gate = target.join("gate");
    cargo("catchwater-tests", &["--bin", "rig"])?;
    let mut command = Command::new(gate.join("rig"));
    if std::env::var_os("CATCHWATER_BIN").is_none() {
        cargo("catchwater", &[])?;
        command.env("CATCHWATER_BIN", gate.join("catchwater"));
    }
    Ok(command)
}
