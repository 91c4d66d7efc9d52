//! `produce`: acks=all side by side with an Apache Kafka, and `scale`: many partitions on one node (bar B8).
//!
//! The peer is started by a script that the caller names in `CW_KAFKA`: `SCRIPT start 1 key=value…` starts one node and
//! prints `host:port`, `SCRIPT stop` ends it; it keeps its data and `1/pid` below `$DATA` and listens on `$PORT`. Without
//! it only our side is measured. One JVM serves both policies: `flush.messages=1` is a setting of a topic.

use crate::load::{Admin, Load, Sent, batch, run};
use crate::{cpu_seconds, median, resident_mib, setting};
use anyhow::{Context, Result, ensure};
use catchwater_tests::broker::{Broker, Settings};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// An Apache Kafka of one node.
struct Peer {
    script: PathBuf,
    data: PathBuf,
    address: String,
    pid: u32,
}

impl Peer {
    fn start(script: PathBuf) -> Result<Peer> {
        let data = std::env::var_os("CW_KAFKA_DATA")
            .map_or_else(|| std::env::temp_dir().join("catchwater-bench-kafka"), PathBuf::from);
        let port = setting("CW_KAFKA_PORT", 19392);
        // What a server of this size gets; deleted topics give their space back at once.
        let out = Command::new(&script)
            .args(["start", "1", "num.partitions=1", "log.segment.delete.delay.ms=0", "num.io.threads=8"])
            .env("DATA", &data)
            .env("PORT", port.to_string())
            .output()
            .with_context(|| script.display().to_string())?;
        ensure!(out.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&out.stderr));
        let pid = std::fs::read_to_string(data.join("1/pid"))?.trim().parse()?;
        Ok(Peer { script, data, address: format!("127.0.0.1:{port}"), pid })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = Command::new(&self.script).arg("stop").env("DATA", &self.data).output();
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

struct Side<'a> {
    name: &'static str,
    address: &'a str,
    pid: u32,
    configs: &'a [(&'a str, &'a str)],
}

impl Side<'_> {
    fn measure(&self, n: u64, load: Load) -> Result<Sent> {
        let mut admin = Admin::connect(self.address)?;
        let topic = format!("bench-{}-{}-{n}", self.name.replace('_', "-"), std::process::id());
        admin.create(&topic, load.partitions, self.configs)?;
        let sent = run(self.address, &topic, load, || cpu_seconds(self.pid))
            .with_context(|| format!("{} {load:?}", self.name))?;
        admin.delete(&topic)?;
        // What deleting costs belongs to nobody's next run.
        std::thread::sleep(Duration::from_millis(setting("CW_PAUSE_MS", 1500)));
        Ok(sent)
    }
}

/// Numbers from a list in the environment.
fn list(name: &str, default: &[usize]) -> Vec<usize> {
    let given = std::env::var(name).ok();
    let given = given.map(|v| v.split(',').filter_map(|n| n.trim().parse().ok()).collect::<Vec<usize>>());
    given.filter(|l| !l.is_empty()).unwrap_or_else(|| default.to_vec())
}

/// One line of JSON per combination.
pub fn produce() -> Result<Value> {
    let peer = std::env::var_os("CW_KAFKA").map(|script| Peer::start(script.into())).transpose()?;
    let ours = Broker::start_with(Settings::default());
    let mut sides =
        vec![Side { name: "ours", address: ours.kafka(), pid: ours.pid().context("running")?, configs: &[] }];
    if let Some(peer) = &peer {
        sides.push(Side { name: "kafka", address: &peer.address, pid: peer.pid, configs: &[] });
        let configs = &[("flush.messages", "1")];
        sides.push(Side { name: "kafka_fsync", address: &peer.address, pid: peer.pid, configs });
        // A JVM is slow before it has compiled what runs often.
        let warm = Load {
            partitions: 16,
            batch_bytes: 16 << 10,
            producers: 4,
            window: 5,
            seconds: setting("CW_WARM_SECONDS", 60) as f64,
            bytes_max: 8 << 30,
        };
        for side in &sides[1..] {
            side.measure(0, warm)?;
        }
    }
    let mut n = 0;
    let mut all = Vec::new();
    for partitions in list("CW_PARTITIONS", &[1, 100, 1000]) {
        for batch_bytes in list("CW_BATCH_BYTES", &[1 << 10, 16 << 10]) {
            for producers in list("CW_PRODUCERS", &[1, 16]) {
                let load = Load {
                    partitions: i32::try_from(partitions)?,
                    batch_bytes,
                    producers,
                    window: setting("CW_WINDOW", 5) as usize,
                    seconds: setting("CW_SECONDS", 8) as f64,
                    bytes_max: setting("CW_MAX_MIB", 2048) << 20,
                };
                let mut found: Vec<Vec<Sent>> = sides.iter().map(|_| Vec::new()).collect();
                for round in 0..setting("CW_ROUNDS", 5) {
                    // A B C, then C B A: what drifts with time hits all alike.
                    let mut order: Vec<usize> = (0..sides.len()).collect();
                    if round % 2 == 1 {
                        order.reverse();
                    }
                    for at in order {
                        n += 1;
                        found[at].push(sides[at].measure(n, load)?);
                    }
                }
                let line = told(&sides, load, &found);
                println!("{line}");
                all.push(line);
            }
        }
    }
    Ok(json!({ "bench": "produce", "combinations": all.len() }))
}

fn told(sides: &[Side<'_>], load: Load, found: &[Vec<Sent>]) -> Value {
    let speed = |s: &Sent| s.bytes as f64 / 1e6 / s.seconds;
    let cost = |s: &Sent| s.cpu_seconds / (s.bytes as f64 / 1e9);
    let mut out = json!({
        "bench": "produce", "partitions": load.partitions, "batch_bytes": load.batch_bytes, "producers": load.producers,
        "window": load.window, "rounds": found[0].len(),
    });
    for (side, sent) in sides.iter().zip(found) {
        out[side.name] = json!({
            "mb_per_s": median(sent.iter().map(speed).collect()),
            "batches_per_s": median(sent.iter().map(|s| s.batches as f64 / s.seconds).collect()),
            "cpu_s_per_gb": median(sent.iter().map(cost).collect()),
        });
    }
    for (side, sent) in sides.iter().zip(found).skip(1) {
        // Per round, because a round's sides saw the same machine.
        let ratio = |of: &dyn Fn(&Sent) -> f64| median(found[0].iter().zip(sent).map(|(a, b)| of(a) / of(b)).collect());
        out[format!("speed_ratio_to_{}", side.name)] = json!(ratio(&speed));
        out[format!("cpu_ratio_to_{}", side.name)] = json!(ratio(&cost));
    }
    out
}

/// Threads or open files of a process.
fn count(pid: u32, what: &str) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count)
}

/// Until the first entries of all partitions are in files: seconds until the process uses less than a tenth of a core, or 120.
fn settle(pid: u32) -> f64 {
    let from = Instant::now();
    loop {
        let cpu = cpu_seconds(pid);
        std::thread::sleep(Duration::from_secs(5));
        if cpu_seconds(pid) - cpu < 0.5 || from.elapsed() > Duration::from_secs(120) {
            return from.elapsed().as_secs_f64();
        }
    }
}

/// Bar B8: many partitions on one node.
pub fn scale() -> Result<Value> {
    let partitions = setting("CW_PARTITIONS", 10_000);
    let per_topic = 1000.min(partitions);
    let mut broker = Broker::start_with(Settings::default());
    let pid = broker.pid().context("running")?;
    let mut admin = Admin::connect(broker.kafka())?;
    let from = Instant::now();
    let mut topics = Vec::new();
    for n in 0..partitions.div_ceil(per_topic) {
        let name = format!("scale-{n}");
        admin.create(&name, i32::try_from(per_topic)?, &[])?;
        topics.push(name);
    }
    let create_s = from.elapsed().as_secs_f64();
    // One batch into each, so that a restart has something to find.
    for name in &topics {
        let load = Load {
            partitions: i32::try_from(per_topic)?,
            batch_bytes: 1 << 10,
            producers: 1,
            window: 5,
            seconds: 1.0,
            bytes_max: per_topic << 11,
        };
        run(broker.kafka(), name, load, || 0.0)?;
    }
    let settled_s = settle(pid);
    let (from, cpu) = (Instant::now(), cpu_seconds(pid));
    std::thread::sleep(Duration::from_secs(setting("CW_IDLE_SECONDS", 30)));
    let idle_percent = 100.0 * (cpu_seconds(pid) - cpu) / from.elapsed().as_secs_f64();
    let resident = resident_mib(pid);
    // Many small appends over the first topic's partitions.
    let fresh_threads = count(pid, "task");
    let appends = setting("CW_APPENDS", 1_000_000);
    let load = Load {
        partitions: i32::try_from(per_topic)?,
        batch_bytes: 170,
        producers: 16,
        window: 5,
        seconds: 600.0,
        bytes_max: appends * batch(170).len() as u64,
    };
    let sent = run(broker.kafka(), &topics[0], load, || cpu_seconds(pid))?;
    let appended = json!({
        "appends": sent.batches, "per_s": sent.batches as f64 / sent.seconds,
        "cpu_us_each": sent.cpu_seconds * 1e6 / sent.batches as f64, "resident_mib": resident_mib(pid),
        "threads": count(pid, "task"), "threads_before": fresh_threads, "open_files": count(pid, "fd"),
    });
    let from = Instant::now();
    broker.stop()?;
    let stop_s = from.elapsed().as_secs_f64();
    let from = Instant::now();
    broker.restart()?;
    let clean_s = from.elapsed().as_secs_f64();
    broker.kill();
    let from = Instant::now();
    broker.restart()?;
    let killed_s = from.elapsed().as_secs_f64();
    Ok(json!({
        "bench": "scale", "partitions": partitions, "create_s": create_s, "settled_s": settled_s, "idle_cpu_percent": idle_percent,
        "resident_mib": resident, "appended": appended, "stop_s": stop_s, "ready_after_stop_s": clean_s, "ready_after_kill_s": killed_s,
        "bars": {
            "create_s": 60, "idle_cpu_percent": 5, "resident_mib": 400, "ready_after_stop_s": 10, "ready_after_kill_s": 20,
        },
    }))
}
