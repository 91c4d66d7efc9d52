//! `cargo xtask stats`: the shape of the code per crate. It reports; only the ratchets of `tidy` fail.

use std::collections::BTreeMap;

pub fn run() -> anyhow::Result<()> {
    let mut crates: BTreeMap<String, Vec<(usize, usize, usize)>> = BTreeMap::new();
    for file in crate::files("", ".rs") {
        let rel = file.strip_prefix(crate::root())?.to_string_lossy().into_owned();
        let mut parts = rel.split('/');
        let mut name = parts.next().unwrap_or_default().to_owned();
        if name == "connectors" {
            name = format!("connectors/{}", parts.next().unwrap_or_default());
        }
        let text = std::fs::read_to_string(&file)?;
        let comments = text.lines().filter(|l| l.trim_start().starts_with("//")).count();
        let unwraps = text.matches(".unwrap()").count();
        crates.entry(name).or_default().push((text.lines().count(), comments, unwraps));
    }
    println!(
        "{:<22}{:>7}{:>9}{:>9}{:>9}{:>11}{:>10}",
        "crate", "files", "lines", "median", "p90", "comments", "unwraps"
    );
    for (name, mut files) in crates {
        files.sort();
        let lines: usize = files.iter().map(|f| f.0).sum();
        let at = |q: usize| files.get(files.len() * q / 100).or(files.last()).map_or(0, |f| f.0);
        let comments: usize = files.iter().map(|f| f.1).sum();
        let unwraps: usize = files.iter().map(|f| f.2).sum();
        println!(
            "{name:<22}{:>7}{lines:>9}{:>9}{:>9}{:>10}%{unwraps:>10}",
            files.len(),
            at(50),
            at(90),
            comments * 100 / lines.max(1)
        );
    }
    Ok(())
}
