//! The walks of `docs/walks/` as they happen: the binary records every named point it passes, one row (or record) goes
//! through, and the points come in the order of the page. What runs beside the rest (the segment writer behind the journal,
//! the confirmation back to the source) is ordered against what it needs, not against the others.

use anyhow::{Context, Result, ensure};
use catchwater_tests::bank;
use catchwater_tests::broker::{Broker, Settings, has_crash_points};
use catchwater_tests::dev::Dev;
use catchwater_tests::pg::Database;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// From the source to the durable log.
const INTO_THE_LOG: &[&str] = &[
    "source.before_frame",
    "source.before_decode",
    "source.after_decode",
    "source.before_values",
    "source.after_values",
    "capture.before_boundary",
    "capture.before_route",
    "capture.before_encode",
    "capture.before_track",
    "log.before_append",
    "partition.before_check",
    "partition.before_propose",
    "journal.before_submit",
    "journal.after_submit",
    "journal.before_complete",
    "raft.before_step",
];
/// Behind the journal.
const INTO_SEGMENTS: &[&str] = &["seg.before_ext", "seg.before_log", "seg.before_ent"];
/// From the log to the target: rows are given out once a cut covers them.
const INTO_THE_TARGET: &[&str] = &[
    "fetch.before_wake",
    "deliver.after_fetch",
    "deliver.before_group",
    "sink.before_rows",
    "sink.after_rows",
    "sink.before_position",
    "sink.after_position",
    "sink.before_commit",
    "sink.after_commit",
    "deliver.after_group",
    "deliver.before_mirror",
];
/// Back to the source, never before the log has it.
const BACK: &[&str] = &[
    "capture.before_acked",
    "capture.after_acked",
    "capture.before_cut",
    "capture.before_checkpoint",
    "capture.after_checkpoint",
    "source.before_confirm",
];
/// Not passed by a row of the stream: topics are made at the start, and a window is open beside a chunk only.
const ELSEWHERE: &[&str] = &["capture.topic", "capture.window"];
/// Passed by rows alone, so their first passes are this row's: exactly in this order.
const ROW_ONLY: &[&str] = &[
    "source.before_decode",
    "source.before_values",
    "capture.before_route",
    "capture.before_encode",
    "capture.before_acked",
    "deliver.before_group",
    "sink.before_rows",
    "sink.before_position",
    "sink.before_commit",
    "sink.after_commit",
];

fn read(steps: &Path) -> Vec<String> {
    std::fs::read_to_string(steps).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Place of the last point, if they are passed one after the other from `from` on.
fn follows(trace: &[String], from: usize, points: &[&str]) -> Result<usize> {
    let mut at = from;
    for point in points {
        let next = trace.iter().skip(at).position(|t| t == point);
        at += next.with_context(|| {
            format!("{point} is not passed after {}", trace.get(at.saturating_sub(1)).map_or("the start", |t| t))
        })? + 1;
    }
    Ok(at)
}

/// `area.step` of each point that the page's table names.
fn points_of(page: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/walks").join(page);
    let text = std::fs::read_to_string(path).expect("the page");
    let mut out = BTreeSet::new();
    for line in text.lines().filter(|l| l.starts_with("| ") && l.trim_end().ends_with("} |")) {
        let cell = line.trim_end().trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        for group in cell.split('}').filter(|g| g.contains('{')) {
            let (area, steps) = group.split_once('{').expect("area {steps}");
            let area = area.trim().trim_start_matches(',').trim();
            out.extend(steps.split(',').map(|s| format!("{area}.{}", s.trim())));
        }
    }
    out
}

#[test]
fn the_page_and_this_test_name_the_same_points() {
    let tested = [INTO_THE_LOG, INTO_SEGMENTS, INTO_THE_TARGET, BACK].concat();
    let tested: BTreeSet<String> = tested
        .iter()
        .map(|p| p.replace(".before_", ".").replace(".after_", "."))
        .chain(ELSEWHERE.iter().map(|p| (*p).to_owned()))
        .collect();
    assert_eq!(points_of("row-change.md"), tested);
}

#[test]
fn one_row_passes_the_steps_of_the_walk_in_order() {
    if !has_crash_points("walks") {
        return;
    }
    let Some(source) = Database::create("pg15", "walk_source") else { return };
    let Some(target) = Database::create("pg15", "walk_target") else { return };
    bank::create(&source.pg, 5).expect("tables");
    let mut dev = Dev::new(&bank::pipeline(&source, &target));
    let steps = dev.folder().join("steps");
    dev.env.push(("CATCHWATER_STEPS".into(), steps.display().to_string()));
    dev.start().expect("start");
    dev.wait(Duration::from_secs(60), || bank::missing(&source.pg, &target.pg)).expect("the snapshot");
    // What the snapshot still has to say is said when its mirror and a confirmation have passed, and after that only
    // heartbeats go by.
    let settled = |from: usize| {
        let trace = read(&steps);
        let tail = trace.get(from..).unwrap_or_default().to_vec();
        let back = follows(&tail, 0, &["capture.after_checkpoint", "source.after_confirm"]).is_ok();
        if back && tail.iter().any(|t| t == "deliver.after_mirror") { String::new() } else { "not settled".to_owned() }
    };
    dev.wait(Duration::from_secs(60), || settled(0)).expect("the first start settles");
    let from = read(&steps).len();
    source.pg.run("INSERT INTO txlog VALUES (77, 0, 1)").expect("one row");
    dev.wait(Duration::from_secs(60), || bank::missing(&source.pg, &target.pg)).expect("the row arrives");
    dev.wait(Duration::from_secs(60), || settled(from)).expect("the row is confirmed");
    let trace = read(&steps).split_off(from);
    let check = || -> Result<()> {
        let logged = follows(&trace, 0, INTO_THE_LOG)?;
        for point in INTO_SEGMENTS {
            follows(&trace, logged, &[point])?;
        }
        follows(&trace, logged, INTO_THE_TARGET)?;
        follows(&trace, logged, BACK)?;
        let cut = follows(&trace, logged, &["capture.before_acked", "capture.before_cut"])?;
        follows(&trace, cut, &["deliver.before_group"])?;
        let mut last = (0, "the start");
        for point in ROW_ONLY {
            let at = trace.iter().position(|t| t == point).with_context(|| format!("{point} is not passed"))?;
            ensure!(at >= last.0, "{point} is passed before {}", last.1);
            last = (at, point);
        }
        Ok(())
    };
    check().unwrap_or_else(|e| panic!("{e:#}; the trace:\n{}", trace.join("\n")));
}

/// Produce-fetch, as far as it has named points: the partition, the group's flush, and the wait that a fetch ends.
#[test]
fn one_produced_record_is_durable_before_a_fetch_is_woken() {
    if !has_crash_points("walks") {
        return;
    }
    let steps = std::env::temp_dir().join(format!("catchwater-steps.{}", std::process::id()));
    let _ = std::fs::remove_file(&steps);
    let mut settings = Settings::default();
    settings.env.push(("CATCHWATER_STEPS".into(), steps.display().to_string()));
    let broker = Broker::start_with(settings);
    let produce = |value: &str| {
        let mut child = Command::new("timeout")
            .args(["30", "kcat", "-b", broker.kafka(), "-P", "-t", "walk", "-X", "acks=all"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("kcat");
        child.stdin.take().expect("a pipe").write_all(value.as_bytes()).expect("the value");
        assert!(child.wait().expect("kcat ends").success());
    };
    // The first makes the topic.
    produce("a");
    let mut reader = Command::new("timeout")
        .args(["120", "kcat", "-b", broker.kafka(), "-C", "-t", "walk", "-q", "-u"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("kcat");
    // It reads once it has said the first.
    let mut said = BufReader::new(reader.stdout.take().expect("a pipe")).lines();
    assert_eq!(said.next().expect("a line").expect("kcat reads"), "a");
    // Nothing may fill the pipe.
    let rest = std::thread::spawn(move || said.count());
    let chain = &INTO_THE_LOG[INTO_THE_LOG.iter().position(|p| *p == "partition.before_check").unwrap_or(0)..];
    // A record that comes while the reader is between two fetches wakes nobody: then the next one does.
    let mut last = String::new();
    let woken = (0..100).any(|_| {
        let from = read(&steps).len();
        produce("b");
        let trace = read(&steps).split_off(from);
        let logged = follows(&trace, 0, chain).unwrap_or_else(|e| panic!("{e:#}: {trace:?}"));
        last = format!("{trace:?}");
        follows(&trace, logged, &["fetch.before_wake"]).is_ok()
    });
    // `timeout` hands it on to kcat.
    let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&reader), rustix::process::Signal::TERM);
    let _ = reader.wait();
    let _ = rest.join();
    assert!(woken, "no fetch is woken behind the flush: {last}");
    let _ = std::fs::remove_file(&steps);
}
