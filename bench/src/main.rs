//! Paired measurements of the built binary: each prints one JSON line with probe, result and ratio. Never a test: figures
//! travel only as ratios to a probe of the same run, interleaved, medians. Commands and results: `docs/benchmarks.md`.
//!
//! `catchwater-bench start | stream | snapshot | copy | upserts | debezium | latency | limits | engine | produce | stalls | scale` with `CATCHWATER_BIN` (a release build);
//! `stream`, `snapshot`, `copy`, `upserts`, `debezium` and `latency` with `CW_PG15_URL`, `produce` with `CW_KAFKA`.

mod debezium;
mod engine;
mod latency;
mod limits;
mod load;
mod produce;
mod snapshot;
mod stalls;
mod upserts;

use anyhow::{Context, Result, bail};
use catchwater_tests::dev::Dev;
use catchwater_tests::pg::{Database, difference};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn main() -> Result<()> {
    let what = std::env::args().nth(1).unwrap_or_default();
    let result = match what.as_str() {
        "start" => start()?,
        "stream" => stream()?,
        "copy" => copy()?,
        "upserts" => upserts::upserts()?,
        "debezium" => debezium::debezium()?,
        "snapshot" => snapshot::snapshot()?,
        "latency" => latency::latency()?,
        "limits" => limits::limits()?,
        "engine" => engine::engine()?,
        "produce" => produce::produce()?,
        "stalls" => stalls::stalls()?,
        "scale" => produce::scale()?,
        _ => bail!(
            "usage: catchwater-bench start | stream | snapshot | copy | upserts | debezium | latency | limits | engine | produce | stalls | scale"
        ),
    };
    println!("{result}");
    Ok(())
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = |i: usize| values.get(i).copied().unwrap_or(f64::NAN);
    // Of an even number the mean of the two in the middle: one of them alone would lean to a side.
    let half = values.len() / 2;
    if values.len().is_multiple_of(2) { (at(half.wrapping_sub(1)) + at(half)) / 2.0 } else { at(half) }
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = ((sorted.len() as f64 - 1.0) * q).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

fn resident_mib(pid: u32) -> f64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    statm.split(' ').nth(1).and_then(|p| p.parse::<f64>().ok()).unwrap_or(f64::NAN) * 4096.0 / 1048576.0
}

/// User and system time of a process so far, seconds.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = after.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum();
    ticks / 100.0
}

/// Start to ready on a fresh directory and on an old one, and memory at rest. The probe is the start of `true`.
fn start() -> Result<Value> {
    let (mut fresh, mut again, mut probe, mut rest) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..setting("CW_ROUNDS", 7) {
        let from = Instant::now();
        Command::new("true").status()?;
        probe.push(from.elapsed().as_secs_f64() * 1000.0);
        let from = Instant::now();
        let mut broker = catchwater_tests::broker::Broker::start();
        fresh.push(from.elapsed().as_secs_f64() * 1000.0);
        std::thread::sleep(Duration::from_secs(2));
        rest.push(resident_mib(broker.pid().context("running")?));
        broker.kill();
        let from = Instant::now();
        broker.restart()?;
        again.push(from.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(json!({
        "bench": "start", "probe_spawn_ms": median(probe), "fresh_ms": median(fresh), "after_kill_ms": median(again),
        "idle_resident_mib": median(rest),
    }))
}

fn pair(test: &str) -> Result<(Database, Database)> {
    let make = |side: &str| Database::create("pg15", &format!("{test}_{side}"));
    make("a").zip(make("b")).context("CW_PG15_URL is not set: cargo xtask db start pg15")
}

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, a int, b bigint, c text, d timestamptz, e numeric(12,2), f bool, g text, h int, i double precision)";

fn fill(from: u64, to: u64) -> String {
    format!(
        "INSERT INTO t SELECT i, i % 1000, i * 7, 'name ' || i, now(), (i % 10000) / 100.0, i % 2 = 0, repeat('x', 40), i % 77, i / 3.0 FROM generate_series({from}, {to}) i;"
    )
}

/// Rows per second from the replication stream into the durable log, against `pg_recvlogical` to nowhere over the same
/// WAL in the same run, interleaved. `CW_SOURCE` adds properties to the source (`binary: true`); the probe then asks for
/// binary values too when it says so.
fn stream() -> Result<Value> {
    let more = std::env::var("CW_SOURCE").map(|of| format!(", {of}")).unwrap_or_default();
    let rows = setting("CW_ROWS", 300_000);
    let per_txn = setting("CW_TXN_ROWS", 100);
    let bin = std::env::var("CW_PG_BIN").unwrap_or_else(|_| "/usr/lib/postgresql/15/bin".into());
    let (mut ours, mut probe, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..setting("CW_ROUNDS", 3) {
        let Some(a) = Database::create("pg15", "stream") else { bail!("no server") };
        a.pg.run(TABLE)?;
        let mut dev = Dev::new(&format!(
            "version: 1\npipeline: b\nsources:\n  s:\n    postgres: {{ url: \"{}\", tables: [t]{more} }}\n",
            a.url()
        ));
        dev.start()?;
        a.pg.run(&fill(0, 0))?;
        dev.wait(Duration::from_secs(30), || if captured(&dev) >= 1 { String::new() } else { "first row".into() })?;
        dev.stop()?;
        a.pg.run("SELECT pg_create_logical_replication_slot('probe', 'pgoutput')")?;
        let mut at = 1;
        while at <= rows {
            let batch: String = (0..20)
                .map(|i| fill(at + i * per_txn, at + (i + 1) * per_txn - 1).replace(';', "; COMMIT; BEGIN;"))
                .collect();
            a.pg.run(&format!("BEGIN; {batch} COMMIT"))?;
            at += 20 * per_txn;
        }
        let rows = (at - 1) as f64;
        let end = a.pg.one("SELECT pg_current_wal_lsn()")?;
        let from = Instant::now();
        let status = Command::new(format!("{bin}/pg_recvlogical"))
            .args([
                "-d",
                a.url(),
                "-S",
                "probe",
                "--start",
                "-f",
                "/dev/null",
                "-o",
                "proto_version=1",
                "-o",
                "publication_names=catchwater_s",
                "-o",
                if more.contains("binary: true") { "binary=true" } else { "binary=false" },
                "--no-loop",
                "-E",
                &end,
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        anyhow::ensure!(status.success(), "pg_recvlogical failed");
        probe.push(rows / from.elapsed().as_secs_f64());
        dev.start()?;
        let (speed, used) = drained(&dev, "source", rows as u64)?;
        ours.push(speed);
        cpu.push(used);
        dev.stop()?;
    }
    let ratios = ours.iter().zip(&probe).map(|(o, p)| o / p).collect();
    Ok(json!({
        "bench": "stream", "source": more, "rows": rows, "rows_per_transaction": per_txn, "probe_pg_recvlogical_rows_per_s": median(probe),
        "rows_per_s": median(ours), "ratio": median(ratios), "cpu_us_per_row": median(cpu),
    }))
}

/// Between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until `kind` has counted all rows: rows per second and CPU a row in µs, both from the first rows seen on.
fn drained(dev: &Dev, kind: &str, rows: u64) -> Result<(f64, f64)> {
    let pid = dev.pid().context("running")?;
    let (mut first, from) = (None, Instant::now());
    loop {
        let seen = task_rows(dev, kind);
        if seen > 0 && first.is_none() {
            first = Some((Instant::now(), seen, cpu_seconds(pid)));
        }
        if seen >= rows {
            break;
        }
        anyhow::ensure!(from.elapsed() < Duration::from_secs(600), "stuck at {seen} of {rows} rows");
        std::thread::sleep(LOOK_EVERY);
    }
    let (began, seen, used) = first.context("rows")?;
    let left = rows.saturating_sub(seen) as f64;
    Ok((left / began.elapsed().as_secs_f64(), (cpu_seconds(pid) - used) / left * 1e6))
}

fn captured(dev: &Dev) -> u64 {
    task_rows(dev, "source")
}

fn task_rows(dev: &Dev, kind: &str) -> u64 {
    let json = lag(dev).unwrap_or_default();
    json.as_array().into_iter().flatten().filter(|t| t["kind"] == kind).filter_map(|t| t["rows"].as_u64()).sum()
}

/// Without a process for each question: on two cores those would be a tenth of the figure.
fn lag(dev: &Dev) -> Result<Value> {
    let mut stream = TcpStream::connect(&dev.http)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /api/v1/lag HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let body = text.split_once("\r\n\r\n").context("no body")?.1;
    Ok(serde_json::from_str(body)?)
}

/// PostgreSQL → PostgreSQL: rows per second while it catches up, and commit → visible under a steady load.
fn copy() -> Result<Value> {
    let rows = setting("CW_ROWS", 200_000);
    let (a, b) = pair("copy")?;
    a.pg.run(TABLE)?;
    let mut dev = Dev::new(&format!(
        "version: 1\npipeline: b\nsources:\n  s:\n    postgres: {{ url: \"{}\", tables: [t] }}\nsinks:\n  k:\n    from: s\n    postgres: {{ url: \"{}\" }}\n",
        a.url(),
        b.url()
    ));
    dev.start()?;
    a.pg.run(&fill(0, 0))?;
    dev.wait(Duration::from_secs(30), || difference(&a.pg, "t", &b.pg, "t"))?;
    let from = Instant::now();
    let mut at = 1;
    while at <= rows {
        a.pg.run(&fill(at, at + 99))?;
        at += 100;
    }
    let source_seconds = from.elapsed().as_secs_f64();
    let want = at.to_string();
    loop {
        if b.pg.one("SELECT count(*) FROM t")? == want {
            break;
        }
        anyhow::ensure!(from.elapsed() < Duration::from_secs(600), "stuck");
        std::thread::sleep(Duration::from_millis(10));
    }
    let total = from.elapsed().as_secs_f64();
    // Steady: one marker row every 5 ms; the time from the commit's return to the first look that sees it.
    let mut latencies = Vec::new();
    let watch = b.connect();
    for i in 0..setting("CW_MARKERS", 400) {
        let id = 10_000_000 + i;
        a.pg.run(&fill(id, id))?;
        let from = Instant::now();
        while watch.one(&format!("SELECT 1 FROM t WHERE id = {id}"))?.is_empty() {
            anyhow::ensure!(from.elapsed() < Duration::from_secs(30), "marker {id} does not arrive");
        }
        latencies.push(from.elapsed().as_secs_f64() * 1000.0);
        std::thread::sleep(Duration::from_millis(5));
    }
    latencies.sort_by(f64::total_cmp);
    let d = difference(&a.pg, "t", &b.pg, "t");
    anyhow::ensure!(d.is_empty(), "{d}");
    Ok(json!({
        "bench": "copy", "rows": rows, "source_rows_per_s": rows as f64 / source_seconds, "rows_per_s": rows as f64 / total,
        "ratio_to_source": source_seconds / total, "commit_to_visible_ms_p50": quantile(&latencies, 0.5),
        "commit_to_visible_ms_p99": quantile(&latencies, 0.99),
    }))
}
