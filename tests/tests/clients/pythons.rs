//! One test per library: every scenario in a process of its own, all against one broker, so that a failure names its
//! scenario and the others still run.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use catchwater_tests::broker::{Broker, Settings};
use catchwater_tests::{python, skip};

/// Longest time of one scenario.
const SCENARIO_SECONDS: u64 = 120;
const RESTART: &str = "k42_restart_in_the_middle";

const SCENARIOS: [&str; 23] = [
    "k01_connect",
    "k02_create_describe_configs",
    "k03_auto_create",
    "k04_acks_0",
    "k04_acks_1",
    "k04_acks_all",
    "k05_gzip",
    "k06_snappy",
    "k07_lz4",
    "k08_zstd",
    "k09_headers",
    "k10_nulls_and_sizes",
    "k11_idempotent",
    "k12_seek",
    "k13_offsets",
    "k14_group_of_three",
    "k15_commit_and_resume",
    "k16_static_member",
    "k17_manual_commit_with_metadata",
    "k18_pause_and_resume",
    "k19_rebalance_while_committing",
    "k32_delete_and_create_again",
    "k34_log_append_time",
];

#[test]
fn clients_confluent_kafka() {
    all("confluent");
}

#[test]
fn clients_kafka_python() {
    all("kafkapython");
}

#[test]
fn clients_aiokafka() {
    all("aio");
}

#[test]
fn clients_idempotent_producers_survive_kills_of_the_broker() {
    let Ok(_) = python::interpreter().map_err(|e| skip("clients", &e)) else { return };
    for driver in ["confluent", "kafkapython", "aio"] {
        let mut broker = Broker::start();
        if broker.is_foreign() {
            return;
        }
        let (sender, running) = mpsc::channel();
        let address = broker.kafka().to_owned();
        let script = std::thread::spawn(move || run(driver, RESTART, &address, Some(sender)));
        running.recv_timeout(Duration::from_secs(30)).expect("the producer runs");
        for _ in 0..3 {
            // Time for some batches; not a synchronisation: any moment will do.
            std::thread::sleep(Duration::from_millis(700));
            broker.kill();
            broker.restart().unwrap();
        }
        script.join().unwrap().unwrap_or_else(|e| panic!("{driver}: {e}"));
    }
}

fn all(driver: &str) {
    let Ok(_) = python::interpreter().map_err(|e| skip(driver, &e)) else { return };
    let broker = Broker::start_with(Settings::default());
    let only = std::env::var("CW_TEST_SCENARIO").ok();
    let mut failed = Vec::new();
    for scenario in SCENARIOS.into_iter().filter(|s| only.as_deref().is_none_or(|o| s.starts_with(o))) {
        let outcome = run(driver, scenario, broker.kafka(), None);
        match outcome {
            Ok(line) => println!("{line}"),
            Err(e) => failed.push(format!("{scenario}: {e}")),
        }
    }
    assert!(failed.is_empty(), "{driver}: {} of {} failed\n{}", failed.len(), SCENARIOS.len(), failed.join("\n\n"));
}

/// Runs one scenario; its JSON line, or what went wrong. `running` hears when the script says that it may be disturbed.
fn run(driver: &str, scenario: &str, bootstrap: &str, running: Option<mpsc::Sender<()>>) -> Result<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    let mut child = Command::new(python::interpreter()?)
        .arg("-B")
        .arg(folder.join(format!("{driver}.py")))
        .args(["--bootstrap", bootstrap, "--scenario", scenario])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let mut stderr = child.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        text
    });
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let mut result = Err(format!("not done within {SCENARIO_SECONDS} s"));
    while let Ok(line) = lines.recv_timeout(Duration::from_secs(SCENARIO_SECONDS)) {
        if line == "running" {
            if let Some(running) = &running {
                let _ = running.send(());
            }
            continue;
        }
        let json: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        result = match json["result"].as_str() {
            Some("pass") => Ok(line),
            Some("cannot") => {
                println!("cannot: {line}");
                Ok(line)
            }
            _ => Err(line),
        };
        break;
    }
    let _ = child.kill();
    let _ = child.wait();
    let errors = errors.join().unwrap_or_default();
    result.map_err(|e| {
        let lines: Vec<&str> = errors.lines().collect();
        format!("{e}\n{}", lines[lines.len().saturating_sub(25)..].join("\n"))
    })
}
