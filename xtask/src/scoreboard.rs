//! `cargo xtask scoreboard [ROW…] [--share N]`: the rows of the scoreboard in their long form, each result written into
//! `docs/scoreboard.md` with seed, faults, commit and date; worse ones too. Without names: every row there is a program for.
//! With `CW_RIG` and `CATCHWATER_BIN` nothing is built; `CW_COMMIT` then says what they were built from.
//! `--share N` runs a hundredth N of each count, for trying the rows; what it writes says so.
//!
//! A row whose run injected no fault is red. A row without a program stands there as not run, with the reason.

use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::process::Command;

/// How a row is run.
#[derive(Clone, Copy)]
enum How {
    /// `rig ARGS --cycles N`; its last JSON line is the result. With `--mutant` a planted bug must be caught.
    Rig(&'static str, u64),
    /// `cargo ARGS` and a count; the last line of its output that holds the word is the result, the exit code the colour.
    Cargo { words: &'static [&'static str], count: u64, result: &'static str, sim: bool },
    /// `cargo ARGS` in this environment; all lines of its output that begin so are the result.
    Tests { words: &'static [&'static str], env: (&'static str, &'static str), begins: &'static str },
    /// The test `storm` with so many faults; needs `CATCHWATER_BIN`, and `CW_PG15_URL` and `CW_PG16_URL` of servers that nobody
    /// else uses, for it crashes them.
    Storm(u64),
}

struct Row {
    id: &'static str,
    figure: &'static str,
    goal: &'static str,
    how: How,
}

const ROWS: [Row; 28] = [
    Row {
        id: "F4",
        figure: "one bit flipped at every byte of a 256 KiB image of a directory (journal, segments, snapshots, manifests, slots), and of `.txn` files: wrong bytes served, silent losses, groups touched by a bit of the journal",
        goal: "all said or harmless, 0 wrong, ≤ 1 group",
        how: How::Tests {
            words: &[
                "test",
                "--locked",
                "--profile",
                "gate",
                "-p",
                "catchwater-storage",
                "--lib",
                "a_bit_flipped_at_any_byte",
                "--",
                "--nocapture",
            ],
            env: ("CW_DAMAGE", "1"),
            begins: "F4 ",
        },
    },
    Row {
        id: "F13",
        figure: "the soak of S22 for 30 minutes: slope of memory, descriptors, threads",
        goal: "RSS ≤ 0.2 %/min, others 0",
        how: How::Rig("soak", 1800),
    },
    Row {
        id: "S1",
        figure: "simulated cluster-hours without violation",
        goal: "≥ 10 h",
        how: How::Cargo {
            words: &[
                "run",
                "--quiet",
                "--locked",
                "--profile",
                "gate",
                "-p",
                "catchwater-sim",
                "--bin",
                "catchwater-sim",
                "--",
                "--threads",
                "2",
                "--hours",
            ],
            count: 10,
            result: "real time",
            sim: true,
        },
    },
    Row {
        id: "S1p",
        figure: "simulated losses of power, 1 and 3 nodes: acknowledged records lost",
        goal: "100,000 seeds, 0",
        how: How::Cargo {
            words: &[
                "run",
                "--quiet",
                "--locked",
                "--profile",
                "gate",
                "-p",
                "catchwater-sim",
                "--bin",
                "catchwater-sim",
                "--",
                "power",
                "--seeds",
            ],
            count: 100_000,
            result: "power:",
            sim: true,
        },
    },
    Row {
        id: "S2",
        figure: "planted bugs of the log that the simulator kills",
        goal: "all, median < 5 s",
        how: How::Cargo { words: &["xtask", "mutants"], count: 0, result: "killed", sim: false },
    },
    Row {
        id: "S3",
        figure: "whole broker under a simulated network and disk",
        goal: "≥ 3 h",
        how: How::Cargo { words: &["xtask", "tierb", "--hours"], count: 3, result: "real time", sim: false },
    },
    Row {
        id: "S4",
        figure: "same seed twice, equal hash",
        goal: "50/50",
        how: How::Cargo {
            words: &[
                "test",
                "--locked",
                "--profile",
                "gate",
                "-p",
                "catchwater-sim",
                "--lib",
                "meta::the_same_seed_twice",
                "--",
                "--nocapture",
            ],
            count: 0,
            result: "same seed twice:",
            sim: true,
        },
    },
    Row {
        id: "S4b",
        figure: "the same, tier B: same seed twice, equal trace and outcome",
        goal: "50/50",
        how: How::Cargo { words: &["xtask", "tierb", "same"], count: 50, result: "same seed twice:", sim: false },
    },
    Row {
        id: "S5",
        figure: "SIGKILL of one node under a librdkafka witness, power cuts in turn: anomalies",
        goal: "0",
        how: How::Rig("witness", 60),
    },
    Row {
        id: "S6",
        figure: "power cuts of one node: acknowledged records lost",
        goal: "500 cuts, 0",
        how: How::Rig("power", 500),
    },
    Row {
        id: "S6f",
        figure: "the same cut, same client (librdkafka): three Kafka 4.3.1 nodes at once, and one of ours: acknowledged records lost",
        goal: "ours 0; Kafka's counted",
        how: How::Rig("kafka-cut", 5),
    },
    Row {
        id: "S6m",
        figure: "the same rig over a build whose directory syncs do nothing (planted): caught",
        goal: "caught",
        how: How::Rig("power --mutant no_directory_fsync", 60),
    },
    Row {
        id: "S6r",
        figure: "power cuts of one node with relaxed topics: loss beyond one window, or not said; a kill between takes nothing",
        goal: "0",
        how: How::Rig("relaxed", 200),
    },
    Row {
        id: "S6k",
        figure: "kill -9 of one node at random: lost, doubled, out of order",
        goal: "0",
        how: How::Rig("kills", 300),
    },
    Row {
        id: "S7",
        figure: "deaths at system calls of a 200-operation script: violations",
        goal: "≥ 2,000, 0",
        how: How::Rig("syscalls", 2000),
    },
    Row {
        id: "S7p",
        figure: "deaths at the named points of the log: violations",
        goal: "≥ 60, 0",
        how: How::Rig("points", 1),
    },
    Row {
        id: "S11",
        figure: "disk full: stays up, serves readers, resumes",
        goal: "10/10, ≤ 5 s",
        how: How::Rig("full", 10),
    },
    Row {
        id: "S12",
        figure: "EIO once at a write, sync or read: stops within 1 s, nothing acknowledged after, nothing lost",
        goal: "50/50",
        how: How::Rig("eio", 50),
    },
    Row {
        id: "S12d",
        figure: "no descriptors left for a while (EMFILE): lives, loses nothing, goes on",
        goal: "0 violations",
        how: How::Rig("descriptors", 20),
    },
    Row {
        id: "S12s",
        figure: "every seventh write or sync takes 300 ms (read: 20 ms), kill -9 under it: lives, goes on, loses nothing",
        goal: "0 violations",
        how: How::Rig("slow", 30),
    },
    Row {
        id: "S13",
        figure: "bits flipped and files cut in the data of one node: wrong bytes served, silent losses",
        goal: "300 places, 0",
        how: How::Rig("flips", 300),
    },
    Row {
        id: "S16",
        figure: "PostgreSQL to PostgreSQL with a foreign key and a second unique key: kills of the node at random and at crash points, cuts at any byte, ends by the server, crashes of both servers: lost, doubled, torn, states that never were",
        goal: "≥ 100 kills, 0",
        how: How::Storm(260),
    },
    Row {
        id: "S17",
        figure: "gaps of a PostgreSQL source (slot lost, made again or read by another, publication dropped, narrowed or widened, restored database): stops, names the repair, equals the source after it",
        goal: "≥ 10 cases, 0 silent",
        how: How::Cargo {
            words: &["test", "--locked", "--profile", "gate", "-p", "catchwater-tests", "--test", "gaps"],
            count: 0,
            result: "test result:",
            sim: false,
        },
    },
    Row {
        id: "S18",
        figure: "fuzz executions without crash or budget breach",
        goal: "≥ 20 M",
        how: How::Cargo { words: &["xtask", "fuzz", "--seconds"], count: 45, result: "executions", sim: false },
    },
    Row {
        id: "S22",
        figure: "soak: slope of memory, descriptors, threads",
        goal: "RSS ≤ 0.2 %/min, others 0",
        how: How::Rig("soak", 540),
    },
    Row {
        id: "S24",
        figure: "passwords in any output or file but their own, values of rows in logs, pages and errors, over errors, a kill and a refused login",
        goal: "0",
        how: How::Cargo {
            words: &["test", "--locked", "--profile", "gate", "-p", "catchwater-tests", "--test", "secrets"],
            count: 0,
            result: "test result:",
            sim: false,
        },
    },
    Row {
        id: "S26",
        figure: "history checker: planted anomalies found, false alarms",
        goal: "all × 50, 0",
        how: How::Cargo { words: &["xtask", "history", "selftest"], count: 50, result: "silent", sim: false },
    },
    Row {
        id: "S30",
        figure: "deaths at every named point of the row-change walk (first and later passes), and the points of one row in the walk's order",
        goal: "all, 0 lost or doubled",
        how: How::Cargo {
            words: &[
                "test",
                "--locked",
                "--profile",
                "gate",
                "-p",
                "catchwater-tests",
                "--test",
                "crash_points",
                "--test",
                "walks",
            ],
            count: 0,
            result: "test result:",
            sim: false,
        },
    },
];

/// What came out of a row.
struct Result {
    green: Option<bool>,
    text: String,
    faults: String,
    seed: String,
}

pub fn run(args: &[String]) -> anyhow::Result<()> {
    let share = match args.iter().position(|a| a == "--share") {
        None => 100,
        Some(at) => args.get(at + 1).context("--share N")?.parse::<u64>()?.clamp(1, 100),
    };
    let seed = match args.iter().position(|a| a == "--seed") {
        None => seed_of_commit()?,
        Some(at) => args.get(at + 1).context("--seed N")?.parse()?,
    };
    let names: Vec<&String> = args.iter().filter(|a| a.starts_with(['S', 'F'])).collect();
    if let Some(unknown) = names.iter().find(|n| !ROWS.iter().any(|r| r.id == n.as_str())) {
        bail!("no row {unknown}; there are {}", ROWS.map(|r| r.id).join(" "));
    }
    let mut red = Vec::new();
    for row in ROWS.iter().filter(|r| names.is_empty() || names.iter().any(|n| *n == r.id)) {
        println!("== {}: {}", row.id, row.figure);
        let mut result = play(row, share, seed).unwrap_or_else(|e| Result {
            green: Some(false),
            text: format!("did not run: {e:#}").replace('\n', " "),
            faults: "0".into(),
            seed: seed.to_string(),
        });
        if share < 100 && result.green.is_some() {
            result.text.push_str(&format!("; {share} % of the full count"));
        }
        if result.green == Some(false) {
            red.push(row.id);
        }
        // After each row, so that a run that is broken off leaves what it has.
        write(row, &result)?;
    }
    anyhow::ensure!(red.is_empty(), "red: {}", red.join(" "));
    Ok(())
}

fn play(row: &Row, share: u64, seed: u64) -> anyhow::Result<Result> {
    match row.how {
        How::Rig(what, count) => {
            let count = (count * share / 100).max(1).to_string();
            let planted = what.contains("--mutant");
            let mut rig = crate::rig::command(planted)?;
            rig.args(what.split(' ')).args(["--cycles", &count, "--seed", &seed.to_string()]);
            let out = rig.output()?;
            let text = String::from_utf8_lossy(&out.stdout);
            let line = text.lines().rev().find(|l| l.starts_with("{\"rig\"")).with_context(|| {
                format!("no result; {}", String::from_utf8_lossy(&out.stderr).lines().last().unwrap_or_default())
            })?;
            let json: serde_json::Value = serde_json::from_str(line)?;
            let faults = json["faults"].as_u64().unwrap_or(0);
            let mut words = format!(
                "{} violations; {} records acknowledged, {} compared",
                json["violations"], json["acked"], json["compared"]
            );
            for (name, value) in json["notes"].as_object().into_iter().flatten() {
                let value = value.as_str().unwrap_or_default();
                if !value.is_empty() {
                    words.push_str(&format!("; {name} {value}"));
                }
            }
            if let Some(first) = json["first"].as_str() {
                words.push_str(&format!("; first: {}", first.lines().next().unwrap_or_default()));
            }
            Ok(Result {
                green: Some(match planted {
                    true => out.status.success() && json["violations"].as_u64().unwrap_or(0) > 0,
                    false => json["green"].as_bool() == Some(true),
                }),
                text: words,
                faults: faults.to_string(),
                seed: seed.to_string(),
            })
        }
        How::Storm(count) => {
            for server in ["CW_PG15_URL", "CW_PG16_URL"] {
                anyhow::ensure!(std::env::var_os(server).is_some(), "{server}: cargo xtask db start pg15, and pg16");
            }
            let words = [
                "test",
                "--locked",
                "--profile",
                "gate",
                "-p",
                "catchwater-tests",
                "--test",
                "storm",
                "--",
                "--nocapture",
            ];
            let mut command = Command::new("cargo");
            command.current_dir(crate::root()).args(words);
            command.env("CW_KILL_SERVERS", "1").env("CW_STORM_TARGET", "pg16");
            command.env("CW_KILLS", (count * share / 100).max(1).to_string()).env("CW_SEED", seed.to_string());
            let out = command.output().context("starting cargo")?;
            let text = String::from_utf8_lossy(&out.stdout);
            // Without the line something was violated: the panic says what.
            let Some(line) = text.lines().find(|l| l.starts_with("{\"row\"")) else {
                let all = String::from_utf8_lossy(&out.stderr);
                let said = all.lines().skip_while(|l| !l.contains("panicked")).nth(1).unwrap_or("no result");
                let (text, faults, seed) = (said.to_owned(), "in the seed".to_owned(), seed.to_string());
                return Ok(Result { green: Some(false), text, faults, seed });
            };
            let json: serde_json::Value = serde_json::from_str(line)?;
            let names = [
                "violations",
                "transactions",
                "polls",
                "kills",
                "deaths_at_points",
                "cuts",
                "sessions_ended",
                "server_crashes",
            ];
            let words: Vec<String> = names.iter().map(|n| format!("{} {}", json[n], n.replace('_', " "))).collect();
            Ok(Result {
                green: Some(out.status.success() && json["faults"].as_u64().unwrap_or(0) > 0),
                text: words.join("; "),
                faults: json["faults"].to_string(),
                seed: seed.to_string(),
            })
        }
        How::Tests { words, env, begins } => {
            let mut command = Command::new("cargo");
            let out = command.current_dir(crate::root()).args(words).env(env.0, env.1).output();
            let out = out.context("starting cargo")?;
            let text = String::from_utf8_lossy(&out.stdout);
            let (green, _) = verdict(&text, begins, out.status.success());
            let lines: Vec<&str> = text.lines().filter_map(|l| l.find(begins).map(|at| &l[at..])).collect();
            Ok(Result {
                green: Some(green),
                text: if lines.is_empty() { "nothing was said".into() } else { lines.join("; ") },
                faults: "in the result".into(),
                seed: "the program's own".into(),
            })
        }
        How::Cargo { words, count, result, sim } => {
            let mut command = Command::new("cargo");
            command.current_dir(crate::root()).args(words);
            if count > 0 {
                command.arg((count * share / 100).max(1).to_string());
            }
            if sim {
                crate::sim::with_cfg_sim(&mut command)?;
            }
            let out = command.output().context("starting cargo")?;
            let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
            let (green, line) = verdict(&text, result, out.status.success());
            Ok(Result {
                green: Some(green),
                text: line,
                faults: "in the result".into(),
                seed: "the program's own".into(),
            })
        }
    }
}

/// The colour and the line of a row that cargo ran. Without the line that the row quotes nothing was proved, and a filter
/// that fits no test proves nothing either: cargo ends well and says "0 passed".
fn verdict(output: &str, quoted: &str, success: bool) -> (bool, String) {
    let ran = |l: &&str| l.starts_with("test result:") && !l.contains(" 0 passed");
    let tests = output.lines().any(|l| l.starts_with("test result:"));
    let idle = tests && !output.lines().any(|l| ran(&l));
    let line = match output.lines().rev().find(|l| l.contains(quoted)) {
        _ if idle => "no test ran: the filter fits none",
        Some(line) => line.trim(),
        None => {
            return (false, format!("nothing said {quoted:?}; {}", output.lines().last().unwrap_or_default().trim()));
        }
    };
    (success && !idle, line.into())
}

fn git(args: &[&str]) -> anyhow::Result<String> {
    let out = Command::new("git").current_dir(crate::root()).args(args).output().context("git")?;
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// Fresh with each commit, the same for its reruns.
fn seed_of_commit() -> anyhow::Result<u64> {
    let hash = git(&["rev-parse", "HEAD"])?;
    Ok(u64::from_str_radix(hash.get(..8).context("a commit")?, 16)?)
}

const HEAD: &str = "# Scoreboard

Written by `cargo xtask scoreboard [ROW…]`; each row by the run that its line names, worse results too. Green: faults were
injected and nothing was violated. A row without a program, or never run, says so. How each is measured: `tests/src/rig`
(real binary, real disks), `sim/` (simulator), `sim/check` (histories).

| row | figure | goal | state | result | faults | seed | commit | date |
|---|---|---|---|---|---|---|---|---|
";

fn write(row: &Row, result: &Result) -> anyhow::Result<()> {
    let path = crate::root().join("docs/scoreboard.md");
    let old = std::fs::read_to_string(&path).unwrap_or_default();
    let mut lines: BTreeMap<usize, String> = BTreeMap::new();
    for (at, r) in ROWS.iter().enumerate() {
        let prefix = format!("| {} |", r.id);
        let kept = old.lines().find(|l| l.starts_with(&prefix)).map(str::to_owned);
        let empty = format!("| {} | {} | {} | not run | never run | | | | |", r.id, r.figure, r.goal);
        lines.insert(at, kept.unwrap_or(empty));
    }
    let at = ROWS.iter().position(|r| r.id == row.id).context("a row")?;
    if let Some(green) = result.green {
        // A binary that was given may be older than the tree, and whoever gives it says what it was built from. Else the
        // tree counts, without the board itself: each row of a run changes it.
        let commit = match std::env::var("CW_COMMIT") {
            Ok(given) => given,
            Err(_) => {
                let changed = ["status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/scoreboard.md"];
                let dirty = if git(&changed)?.is_empty() { "" } else { "+" };
                format!("{}{dirty}", git(&["rev-parse", "--short", "HEAD"])?)
            }
        };
        let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output().context("date")?;
        let date = String::from_utf8_lossy(&date.stdout).trim().to_owned();
        let text = result.text.replace('|', "/");
        lines.insert(
            at,
            format!(
                "| {} | {} | {} | {} | {text} | {} | {} | {commit} | {date} |",
                row.id,
                row.figure,
                row.goal,
                if green { "green" } else { "**red**" },
                result.faults,
                result.seed
            ),
        );
    }
    let body: String = lines.values().map(|l| format!("{l}\n")).collect();
    std::fs::write(&path, format!("{HEAD}{body}")).context("docs/scoreboard.md")
}

#[cfg(test)]
mod tests {
    use super::verdict;

    #[test]
    fn a_row_that_ran_nothing_is_red() {
        let nothing = "running 0 tests\n\ntest result: ok. 0 passed; 0 failed; 0 ignored; 9 filtered out\n";
        assert_eq!(verdict(nothing, "test result", true), (false, "no test ran: the filter fits none".into()));
        assert!(!verdict(nothing, "same seed twice:", true).0);
        // One of several binaries is enough.
        let some = "test result: ok. 1 passed; 0 failed\nsame seed twice: 50 of 50 equal\ntest result: ok. 0 passed\n";
        assert_eq!(verdict(some, "same seed twice:", true), (true, "same seed twice: 50 of 50 equal".into()));
        assert!(!verdict(some, "same seed twice:", false).0);
        // A program that says nothing of what the row quotes.
        assert!(!verdict("all well\n", "killed", true).0);
        assert!(verdict("20 mutants: 20 killed\n", "killed", true).0);
    }
}
