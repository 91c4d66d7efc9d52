//! Random programs by a foreign client, with an oracle of what may be there: a share of each. The long form:
//! `CATCHWATER_BIN=… python tests/clients/mixed.py SEED KILLS [damage]`.

use catchwater_tests::broker::Broker;
use catchwater_tests::{kafka, python, skip};
use std::path::Path;
use std::process::Command;

fn program(kills: &str, more: &[&str]) {
    if std::env::var_os("CW_TEST_KAFKA").is_some() {
        return; // it kills what it runs
    }
    let Ok(python) = python::interpreter().map_err(|e| skip("clients", &e)) else { return };
    let seed = std::env::var("CW_SEED").unwrap_or_else(|_| "15".to_owned());
    let out = Command::new(python)
        .arg("-B")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/mixed.py"))
        .args([&seed, kills])
        .args(more)
        .env("CATCHWATER_BIN", catchwater_tests::broker::binary().expect("the binary"))
        .env("PLACES", "6")
        .output()
        .expect("python runs");
    let (said, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    println!("{said}");
    assert!(out.status.success(), "seed {seed}: {}\n{said}\n{errors}", out.status);
}

/// Deletions of records and topics, compaction and settings beside kills: what was acknowledged is there, or was allowed to go.
#[test]
fn clients_a_random_program_under_kills_finds_what_was_acknowledged() {
    program("3", &[]);
}

/// The same, and copies of its directory are damaged at random: what is served is right and whole, or it is refused.
#[test]
fn clients_after_random_damage_what_is_served_is_right_and_whole() {
    program("2", &["damage"]);
}

/// The same program by librdkafka to both: what they answer and what can be read back. The long form:
/// `python tests/clients/beside.py OURS THEIRS SEED STEPS`. Runs by `cargo xtask compat programs`.
#[test]
fn a_random_program_finds_the_same_in_apache_kafka() {
    let Some(libs) = kafka::libs() else { return };
    let Ok(python) = python::interpreter().map_err(|e| skip("clients", &e)) else { return };
    let ours = Broker::start();
    let theirs =
        kafka::Kafka::start(&libs, &[("num.partitions", "1"), ("group.initial.rebalance.delay.ms", "0")]).unwrap();
    let seed = std::env::var("CW_SEED").unwrap_or_else(|_| "3".to_owned());
    let out = Command::new(python)
        .arg("-B")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/beside.py"))
        .args([ours.kafka(), &theirs.address.to_string(), &seed, "200"])
        .output()
        .expect("python runs");
    let (said, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    println!("{said}");
    assert!(out.status.success(), "seed {seed}: {}\n{said}\n{errors}", out.status);
}

/// Every topic setting, with values that Kafka takes and values it refuses, set one by one, appended to, described and deleted;
/// partitions added, records deleted; by three libraries. Runs by `cargo xtask compat settings`.
#[test]
fn settings_partitions_and_deletes_are_what_they_are_in_apache_kafka() {
    let Some(libs) = kafka::libs() else { return };
    let Ok(python) = python::interpreter().map_err(|e| skip("clients", &e)) else { return };
    let ours = Broker::start();
    let theirs = kafka::Kafka::start(&libs, &[("num.partitions", "1")]).unwrap();
    let out = Command::new(python)
        .arg("-B")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/settings.py"))
        .args([ours.kafka(), &theirs.address.to_string()])
        .output()
        .expect("python runs");
    let (said, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    println!("{said}");
    assert!(out.status.success() && said.contains("librdkafka: 3"), "{}\n{said}\n{errors}", out.status);
}
