//! `cargo xtask walks`: every numbered step of `docs/walks/*.md` names files that exist and carry the line
//! `Walk: <page> <n>/<of>`; every such line in the code is a step of the page. So a reader can follow a row by file heads.

use anyhow::{Context, ensure};
use std::collections::BTreeMap;

pub fn run() -> anyhow::Result<()> {
    let problems = check()?;
    for p in &problems {
        eprintln!("walks: {p}");
    }
    ensure!(problems.is_empty(), "{} problems in the walks", problems.len());
    println!("walks: ok");
    Ok(())
}

/// Problems found, one line each.
pub fn check() -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    // (walk, step) → files named by the page
    let mut pages: BTreeMap<String, BTreeMap<u32, Vec<String>>> = BTreeMap::new();
    for page in crate::files("docs/walks", ".md") {
        let name = page.file_stem().context("page name")?.to_string_lossy().into_owned();
        let steps = pages.entry(name).or_default();
        for line in std::fs::read_to_string(&page)?.lines() {
            // A step line is a table row: | 7 | `a/b.rs`, `c/d.rs` | what happens |
            let mut cells = line.trim().trim_matches('|').split('|').map(str::trim);
            let (Some(number), Some(files)) = (cells.next(), cells.next()) else { continue };
            let Ok(number) = number.parse::<u32>() else { continue };
            let files = files.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            steps.insert(number, files);
        }
    }
    let mut heads: BTreeMap<(String, u32), Vec<String>> = BTreeMap::new();
    for file in crate::files("", ".rs") {
        let rel = file.strip_prefix(crate::root())?.to_string_lossy().into_owned();
        if rel.starts_with("xtask/") {
            continue;
        }
        for line in std::fs::read_to_string(&file)?.lines().take_while(|l| l.starts_with("//!") || l.is_empty()) {
            let Some(rest) = line.split("Walk: ").nth(1) else { continue };
            for item in rest.split(',') {
                let mut words = item.split_whitespace();
                let (Some(walk), Some(step)) = (words.next(), words.next()) else { continue };
                let Some((n, of)) = step.trim_end_matches('.').split_once('/') else { continue };
                let (Ok(n), Ok(of)) = (n.parse::<u32>(), of.parse::<u32>()) else { continue };
                match pages.get(walk) {
                    None => problems.push(format!("{rel}: walk `{walk}` has no page")),
                    Some(steps) if steps.keys().last() != Some(&of) => {
                        problems.push(format!("{rel}: {walk} has {} steps, not {of}", steps.len()))
                    }
                    Some(_) => heads.entry((walk.to_owned(), n)).or_default().push(rel.clone()),
                }
            }
        }
    }
    for (walk, steps) in &pages {
        for (want, n) in (1..).zip(steps.keys()) {
            if want != *n {
                problems.push(format!("{walk}: step {want} is missing"));
                break;
            }
        }
        for (n, files) in steps {
            for file in files {
                if !crate::root().join(file).exists() {
                    problems.push(format!("{walk} {n}: {file} does not exist"));
                }
            }
            let marked = heads.get(&(walk.clone(), *n));
            if !files.iter().any(|f| marked.is_some_and(|m| m.contains(f))) {
                problems.push(format!("{walk} {n}: none of {files:?} carries `Walk: {walk} {n}/…` in its head"));
            }
        }
    }
    Ok(problems)
}
