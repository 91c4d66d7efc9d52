//! House tools: `cargo xtask tidy | walks | errors | stats | codegen | compat | db | fuzz | rig | scoreboard | sim | tierb | mutants | history`. Knows nothing of the product's crates.

mod codegen;
mod compat;
mod db;
mod errors;
mod fuzz;
mod history;
mod rig;
mod scoreboard;
mod sim;
mod stats;
mod tidy;
mod walks;

use std::path::PathBuf;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(code) = sim::as_rustc(&args) {
        std::process::exit(code?);
    }
    let rest = args.get(1..).unwrap_or_default();
    match args.first().map(String::as_str) {
        Some("tidy") => tidy::run(),
        Some("walks") => walks::run(),
        Some("errors") => errors::run(),
        Some("stats") => stats::run(),
        Some("codegen") => codegen::run(rest),
        Some("compat") => compat::run(rest),
        Some("db") => db::run(rest),
        Some("fuzz") => fuzz::run(rest),
        Some("history") => history::run(rest),
        Some("mutants") => sim::mutants(rest),
        Some("scoreboard") => scoreboard::run(rest),
        Some("rig") => rig::run(rest),
        Some("sim") => sim::run(rest),
        Some("tierb") => sim::tier_b(rest),
        _ => {
            eprintln!(
                "usage: cargo xtask <tidy | walks | errors | stats | codegen | compat | db | fuzz | rig | scoreboard | sim | tierb | mutants | history>"
            );
            std::process::exit(2)
        }
    }
}

/// The repository's root: the parent of this package.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().map(PathBuf::from).unwrap_or_default()
}

/// Every file under `dir` (relative to the root) whose name ends in `ext`, sorted, build output left out.
pub fn files(dir: &str, ext: &str) -> Vec<PathBuf> {
    fn walk(at: &std::path::Path, ext: &str, out: &mut Vec<PathBuf>) {
        let Ok(entries) = std::fs::read_dir(at) else { return };
        for e in entries.flatten() {
            let (path, name) = (e.path(), e.file_name());
            if path.is_dir() {
                if name != "target" && name != ".git" && name != "node_modules" {
                    walk(&path, ext, out);
                }
            } else if name.to_string_lossy().ends_with(ext) {
                out.push(path);
            }
        }
    }
    let mut out = Vec::new();
    walk(&root().join(dir), ext, &mut out);
    out.sort();
    out
}
