//! `cargo xtask tidy`: the house rules as a test. Ranks and import lists, purity, absences, ratchets.

use anyhow::{Context, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// What each crate may import of ours, by folder. A crate's rank is in its manifest; lower ranks only.
const IMPORTS: [(&str, &[&str]); 21] = [
    ("base", &[]),
    ("runtime", &["base"]),
    ("record", &["base"]),
    ("change", &["record", "base"]),
    ("storage", &["record", "base"]),
    ("protocol", &["record", "base"]),
    ("coordinator", &["protocol", "record", "base"]),
    ("raft", &["storage", "record", "runtime", "base"]),
    ("client", &["protocol", "record", "runtime", "base"]),
    ("broker", &["raft", "client", "storage", "coordinator", "protocol", "record", "runtime", "base"]),
    ("capture", &["client", "change", "record", "runtime", "base"]),
    ("deliver", &["client", "change", "record", "runtime", "base"]),
    ("connector-postgres", &["capture", "deliver", "change", "record", "runtime", "base"]),
    ("connector-sqlite", &["capture", "deliver", "change", "record", "runtime", "base"]),
    ("check", &["base"]),
    ("sim", &["check", "raft", "storage", "record", "runtime", "base"]),
    ("tierb", &["broker", "check", "storage", "protocol", "record", "runtime", "base"]),
    ("tests", &["client", "record", "base", "runtime", "check"]),
    ("bench", &["tests", "raft", "storage", "protocol", "record"]),
    ("fuzz", &["connector-postgres", "change", "storage", "protocol", "record", "base"]),
    ("xtask", &[]),
];

/// A token, and the only places (path prefixes) where it may stand.
const HOMES: [(&str, &[&str]); 10] = [
    ("use raft::", &["raft/src/group"]),
    ("raft::prelude", &["raft/src/group"]),
    ("eraftpb", &["raft/src/group"]),
    ("protobuf::", &["raft/src/group"]),
    ("slog::", &["raft/src/group"]),
    ("tokio_postgres", &["connectors/postgres/", "tests/", "bench/"]),
    ("postgres_protocol", &["connectors/postgres/"]),
    ("rusqlite", &["connectors/sqlite/", "tests/", "bench/"]),
    ("kafka_protocol::", &["protocol/tests/", "record/", "tests/", "bench/", "broker/tests/", "protocol/src/tests"]),
    (
        "std::fs::",
        &[
            "storage/src/disk/",
            "xtask/",
            "tests/",
            "bench/",
            "fuzz/",
            "catchwater/",
            "connectors/",
            "sim/",
            "broker/tests/",
            "protocol/tests/",
            "raft/tests/",
        ],
    ),
];

/// Words a file that says `//! Pure.` may not hold outside its tests.
const IMPURE: [&str; 9] = [
    "async fn",
    "async move",
    "tokio::",
    "std::fs",
    "std::net",
    "std::thread",
    "Instant::now",
    "SystemTime",
    "std::collections::HashMap",
];

const FORBIDDEN: [&str; 4] = ["FIXME", "#[ignore", "unimplemented!(", "todo!("];

pub fn run() -> anyhow::Result<()> {
    let mut problems = Vec::new();
    ranks(&mut problems)?;
    sources(&mut problems)?;
    codes(&mut problems)?;
    if std::fs::read_to_string(crate::errors::path()).unwrap_or_default() != crate::errors::text() {
        problems.push("catchwater/src/command/explain/pages.rs is stale: run cargo xtask errors".into());
    }
    formats(&mut problems)?;
    ratchets(&mut problems)?;
    minimum(&mut problems)?;
    problems.extend(crate::walks::check()?.into_iter().map(|p| format!("walk {p}")));
    for p in &problems {
        eprintln!("tidy: {p}");
    }
    ensure!(problems.is_empty(), "{} problems", problems.len());
    println!("tidy: ok");
    Ok(())
}

fn metadata() -> anyhow::Result<serde_json::Value> {
    let out = Command::new("cargo")
        .args(["metadata", "--no-deps", "--format-version", "1", "--locked"])
        .current_dir(crate::root())
        .output()?;
    ensure!(out.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&out.stderr));
    Ok(serde_json::from_slice(&out.stdout)?)
}

fn ranks(problems: &mut Vec<String>) -> anyhow::Result<()> {
    let meta = metadata()?;
    let packages = meta["packages"].as_array().context("packages")?;
    let short = |name: &str| name.strip_prefix("catchwater-").unwrap_or(name).to_owned();
    let rank: BTreeMap<String, u64> = packages
        .iter()
        .filter_map(|p| Some((short(p["name"].as_str()?), p["metadata"]["layer"]["rank"].as_u64()?)))
        .collect();
    for p in packages {
        let name = short(p["name"].as_str().unwrap_or_default());
        let Some(own) = rank.get(&name) else {
            problems.push(format!("{name}: no rank in its manifest"));
            continue;
        };
        let allowed = IMPORTS.iter().find(|(n, _)| *n == name).map(|(_, l)| *l);
        for d in p["dependencies"].as_array().into_iter().flatten() {
            let full = d["name"].as_str().unwrap_or_default();
            let dep = short(full);
            // TiKV's package is called `raft`, our folder too.
            if !full.starts_with("catchwater-") || !rank.contains_key(&dep) || !d["kind"].is_null() {
                continue;
            }
            if rank[&dep] >= *own {
                problems.push(format!("{name} (rank {own}) imports {dep} (rank {})", rank[&dep]));
            }
            if allowed.is_some_and(|l| !l.contains(&dep.as_str())) {
                problems.push(format!("{name} may not import {dep}"));
            }
        }
    }
    Ok(())
}

/// The part of a file before its unit tests.
fn product(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

fn sources(problems: &mut Vec<String>) -> anyhow::Result<()> {
    for file in crate::files("", ".rs") {
        let rel = file.strip_prefix(crate::root())?.to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file)?;
        let name = rel.rsplit('/').next().unwrap_or_default();
        if ["mod.rs", "utils.rs", "util.rs", "helpers.rs", "common.rs"].contains(&name) {
            problems.push(format!("{rel}: a file of that name says nothing"));
        }
        if !text.starts_with("//!") && !text.starts_with("// Generated") && !text.starts_with("#!") {
            problems.push(format!("{rel}: no `//!` head"));
        }
        if rel.starts_with("xtask/") {
            continue;
        }
        for word in FORBIDDEN {
            if text.contains(word) {
                problems.push(format!("{rel}: `{word}` does not reach main"));
            }
        }
        let code = product(&text);
        let lines = || code.lines().filter(|l| !l.trim_start().starts_with("//"));
        if text.lines().take_while(|l| l.starts_with("//!")).any(|l| l.starts_with("//! Pure.")) {
            for word in IMPURE {
                // base/hash.rs is where the seeded maps are made of std's.
                if rel != "base/src/hash.rs" && lines().any(|l| l.contains(word)) {
                    problems.push(format!("{rel}: says Pure and holds `{word}`"));
                }
            }
        }
        for (token, homes) in HOMES {
            if !homes.iter().any(|h| rel.starts_with(h)) && lines().any(|l| l.contains(token)) {
                problems.push(format!("{rel}: `{token}` belongs to {homes:?}"));
            }
        }
        let below_broker = ["base/", "record/", "change/", "storage/", "protocol/", "coordinator/", "raft/", "client/"];
        if below_broker.iter().any(|d| rel.starts_with(d)) && lines().any(|l| l.contains("tokio::")) {
            problems.push(format!("{rel}: below rank 4 only runtime names tokio"));
        }
        if lines().any(|l| l.contains("unsafe {") || l.contains("unsafe fn")) && name != "sys.rs" {
            problems.push(format!("{rel}: unsafe outside a file named sys.rs"));
        }
    }
    Ok(())
}

/// Error codes: each page names one code, each code used in the product has a page.
fn codes(problems: &mut Vec<String>) -> anyhow::Result<()> {
    let mut pages = BTreeSet::new();
    for page in crate::files("docs/errors", ".md") {
        let name = page.file_stem().context("page")?.to_string_lossy().into_owned();
        if name == "README" {
            continue;
        }
        let text = std::fs::read_to_string(&page)?;
        if !text.starts_with(&format!("# {name}")) {
            problems.push(format!("docs/errors/{name}.md does not begin with `# {name}`"));
        }
        pages.insert(name);
    }
    let mut used = BTreeSet::new();
    for file in crate::files("", ".rs") {
        let rel = file.strip_prefix(crate::root())?.to_string_lossy().into_owned();
        // Twins and tests make codes up.
        let made_up = rel.contains("/testing/") || rel.contains("/tests/") || rel.ends_with("/tests.rs");
        if made_up || rel.starts_with("xtask/") || rel.starts_with("tests/") || rel.starts_with("bench/") {
            continue;
        }
        let text = std::fs::read_to_string(&file)?;
        // Registers: `pub const NAME: u16 = 601;` in files that keep codes of their own.
        if rel.ends_with("/codes.rs") || rel.ends_with("/error.rs") {
            for line in product(&text).lines() {
                let number = line.split_once(": u16 = ").and_then(|(_, n)| n.trim_end_matches(';').parse::<u16>().ok());
                used.extend(number.filter(|n| *n > 0).map(|n| format!("CW{n:04}")));
            }
        }
        for (at, _) in product(&text).match_indices("CW") {
            let digits: String = text[at + 2..].chars().take(5).take_while(char::is_ascii_digit).collect();
            if digits.len() == 4 {
                used.insert(format!("CW{digits}"));
            }
        }
    }
    for code in used.difference(&pages) {
        problems.push(format!("{code} is used and has no page in docs/errors/"));
    }
    Ok(())
}

/// Each page of a stored format is checked by a test that says so: the page's path stands in some source file.
fn formats(problems: &mut Vec<String>) -> anyhow::Result<()> {
    let all: String = crate::files("", ".rs").iter().filter_map(|f| std::fs::read_to_string(f).ok()).collect();
    for page in crate::files("docs/formats", ".md") {
        let name = page.file_name().context("page")?.to_string_lossy().into_owned();
        if !all.contains(&format!("docs/formats/{name}")) {
            problems.push(format!("docs/formats/{name}: no source file names it"));
        }
        let text = std::fs::read_to_string(&page)?;
        if !text.to_lowercase().contains("golden") {
            problems.push(format!("docs/formats/{name}: no golden bytes"));
        }
    }
    Ok(())
}

/// `xtask/ratchet.toml`: per crate the number of files over 1,000 lines and of `.unwrap()` in product code. May only
/// shrink; a number that shrank is to be written down.
fn ratchets(problems: &mut Vec<String>) -> anyhow::Result<()> {
    let mut now: BTreeMap<String, usize> = BTreeMap::new();
    for file in crate::files("", ".rs") {
        let rel = file.strip_prefix(crate::root())?.to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file)?;
        if text.lines().count() > 1000 && !text.starts_with("// Generated") && !text.starts_with("//! Generated") {
            *now.entry("files_over_1000_lines".into()).or_default() += 1;
        }
        let test = rel.starts_with("tests/")
            || rel.starts_with("xtask/")
            || rel.contains("/tests")
            || rel.starts_with("bench/");
        if !test {
            *now.entry("unwraps".into()).or_default() += product(&text).matches(".unwrap()").count();
        }
    }
    let text = std::fs::read_to_string(crate::root().join("xtask/ratchet.toml"))?;
    for line in text.lines().filter(|l| l.contains('=')) {
        let Some((key, value)) = line.split_once('=') else { continue };
        let (key, limit) = (key.trim(), value.trim().parse::<usize>()?);
        let have = now.get(key).copied().unwrap_or(0);
        if have > limit {
            problems.push(format!("ratchet {key}: {have}, at most {limit}"));
        } else if have < limit {
            println!("tidy: ratchet {key} is {have} now; write it into xtask/ratchet.toml (was {limit})");
        }
    }
    Ok(())
}

/// `xtask/minimum.toml`: crates that must not be older than a version with a known fix.
fn minimum(problems: &mut Vec<String>) -> anyhow::Result<()> {
    let lock = std::fs::read_to_string(crate::root().join("Cargo.lock"))?;
    let mut have: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut name = "";
    for line in lock.lines() {
        if let Some(n) = line.strip_prefix("name = ") {
            name = n.trim_matches('"');
        } else if let Some(v) = line.strip_prefix("version = ") {
            have.entry(name).or_default().push(v.trim_matches('"'));
        }
    }
    let numbers = |v: &str| v.split(['.', '-', '+']).map(|p| p.parse::<u64>().unwrap_or(0)).collect::<Vec<_>>();
    let text = std::fs::read_to_string(crate::root().join("xtask/minimum.toml"))?;
    for line in text.lines().filter(|l| l.contains('=') && !l.starts_with('#')) {
        let Some((name, want)) = line.split_once('=') else { continue };
        let (name, want) = (name.trim(), want.split('#').next().unwrap_or_default().trim().trim_matches('"'));
        for v in have.get(name).into_iter().flatten() {
            if want == "absent" || numbers(v) < numbers(want) {
                problems.push(format!("{name} {v}: wanted {want}"));
            }
        }
    }
    Ok(())
}
