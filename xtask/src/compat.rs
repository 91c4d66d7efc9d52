//! `cargo xtask compat compaction`: comparisons with a real Apache Kafka that are too long for `./check`.
//!
//! The jars come from Maven Central by `mvn` once, into `CW_KAFKA_CACHE` (default: a folder of the user's cache); then the
//! tests that need them run with `CW_KAFKA_LIBS`. Needs Java 17 and Maven.

use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::Command;

const VERSION: &str = "4.3.1";

/// By the name of the comparison: a test of `catchwater-tests` and where it is.
const COMPARISONS: [(&str, &str, &str); 4] = [
    ("compaction", "wire", "compaction_leaves_what_apache_kafka_leaves"),
    ("tools", "wire", "apache_kafkas_tools_administer_the_node"),
    ("programs", "clients", "a_random_program_finds_the_same_in_apache_kafka"),
    ("settings", "clients", "settings_partitions_and_deletes_are_what_they_are_in_apache_kafka"),
];

pub fn run(args: &[String]) -> Result<()> {
    let test = args.first().and_then(|name| COMPARISONS.iter().find(|(n, ..)| n == name));
    let Some((_, file, test)) = test else {
        let names: Vec<&str> = COMPARISONS.iter().map(|(name, ..)| *name).collect();
        bail!("usage: cargo xtask compat <{}>", names.join(" | "));
    };
    let libs = fetch()?;
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["test", "-p", "catchwater-tests", "--test", file, "--", test, "--nocapture"])
        .env("CW_KAFKA_LIBS", libs)
        .current_dir(crate::root())
        .status()
        .context("cargo test")?;
    if !status.success() {
        bail!("{test} failed");
    }
    Ok(())
}

/// The folder of jars, filled at the first call.
fn fetch() -> Result<PathBuf> {
    if let Some(libs) = std::env::var_os("CW_KAFKA_LIBS") {
        return Ok(PathBuf::from(libs));
    }
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cache = std::env::var_os("CW_KAFKA_CACHE").map_or_else(|| home.join(".cache/catchwater-kafka"), PathBuf::from);
    let folder = cache.join(VERSION);
    let (libs, done) = (folder.join("libs"), folder.join(".done"));
    if done.exists() {
        return Ok(libs);
    }
    std::fs::create_dir_all(&folder)?;
    let dependency = |group: &str, artifact: &str, version: &str| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
        )
    };
    let pom = format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <groupId>catchwater</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>\
         <dependencies>{}{}{}</dependencies></project>",
        dependency("org.apache.kafka", "kafka_2.13", VERSION),
        dependency("org.apache.kafka", "kafka-tools", VERSION),
        dependency("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.4"),
    );
    std::fs::write(folder.join("pom.xml"), pom)?;
    let status = Command::new("mvn")
        .args(["-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=libs", "-DincludeScope=runtime"])
        .current_dir(&folder)
        .status()
        .context("mvn (Maven) is needed to fetch Kafka")?;
    if !status.success() {
        bail!("mvn could not fetch Kafka {VERSION}");
    }
    std::fs::write(done, "")?;
    Ok(libs)
}
