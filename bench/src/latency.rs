//! PostgreSQL → topic → PostgreSQL at a steady rate of small transactions: how long after its commit a change is with a stock
//! consumer (kcat), and visible in the target. The commit's time is the server's own (`source.ts_us`), taken before the
//! commit is flushed, so the source's flush is in every figure; all clocks are the machine's one.

use crate::{cpu_seconds, median, pair, quantile, setting};
use anyhow::{Context, Result, ensure};
use catchwater_tests::dev::Dev;
use catchwater_tests::pg::{Database, difference};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn table(name: &str) -> String {
    format!("CREATE TABLE {name} (id bigserial PRIMARY KEY, n int, note text)")
}
/// Rest between two looks at the target; it is in the figure.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// The first two seconds are warm-up.
const WARM_US: i64 = 2_000_000;

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
}

/// What the consumer saw: id → (commit, receipt), µs.
type Received = BTreeMap<i64, (i64, i64)>;

fn received(out: impl std::io::Read, ready: &mpsc::Sender<()>) -> Received {
    let mut all = Received::new();
    for line in BufReader::new(out).lines().map_while(Result::ok) {
        let at = now_us();
        let Ok(record) = serde_json::from_str::<Value>(&line) else { continue };
        let payload = if record["payload"].is_object() { &record["payload"] } else { &record };
        if let (Some(id), Some(commit)) = (payload["after"]["id"].as_i64(), payload["source"]["ts_us"].as_i64()) {
            all.insert(id, (commit, at));
            let _ = ready.send(());
        }
    }
    all
}

fn figures(mut ms: Vec<f64>) -> Value {
    ms.sort_by(f64::total_cmp);
    json!({ "p50_ms": median(ms.clone()), "p99_ms": quantile(&ms, 0.99), "max_ms": ms.last() })
}

/// pgbench at a fixed rate; what it says of its own commits, ms on the average.
fn load(url: &str, table: &str, folder: &Path, (rate, seconds): (u64, u64)) -> Result<f64> {
    let script = folder.join(format!("{table}.sql"));
    std::fs::write(&script, format!("INSERT INTO {table} (n, note) VALUES (1, 'a note of some length');\n"))?;
    let load = Command::new("pgbench")
        .args(["-n", "-c", "4", "-R", &rate.to_string(), "-T", &seconds.to_string(), "-f"])
        .arg(&script)
        .arg(url)
        .output()
        .context("pgbench")?;
    ensure!(load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));
    let said = String::from_utf8_lossy(&load.stdout);
    let average = said.lines().find_map(|l| l.strip_prefix("latency average = ")?.split(' ').next()?.parse().ok());
    average.context("pgbench says no latency")
}

/// `COMMIT 745 (at 2026-11-28 09:42:01.123456+00)` of `test_decoding` → µs since 1970.
fn committed(line: &str) -> Option<i64> {
    let (day, clock) = line.strip_prefix("COMMIT ")?.split_once("(at ")?.1.strip_suffix("+00)")?.split_once(' ')?;
    let number = |text: &str| text.parse::<i64>().ok();
    let parts = |text: &str, by: char| text.split(by).map(number).collect::<Option<Vec<_>>>();
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let (&[year, month, day], &[h, m, s]) = (&parts(day, '-')?[..], &parts(clock, ':')?[..]) else { return None };
    // Source: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil; years from 1970 on.
    let (y, shifted) = (if month <= 2 { year - 1 } else { year }, (month + 9) % 12);
    let (era, of_era) = (y / 400, y % 400);
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * shifted + 2) / 5 + day - 1 - 719_468;
    Some((((days * 24 + h) * 60 + m) * 60 + s) * 1_000_000 + number(&format!("{fraction:0<6}"))?)
}

/// The load with the probe alone: commit → seen by it, and pgbench's own latency.
fn probe(a: &Database, folder: &Path, name: &str, how: (u64, u64)) -> Result<Value> {
    let bin = std::env::var("CW_PG_BIN").unwrap_or_else(|_| "/usr/lib/postgresql/15/bin".into());
    a.pg.run(&table(name))?;
    a.pg.run(&format!("SELECT pg_create_logical_replication_slot('{name}', 'test_decoding')"))?;
    let mut reader = Command::new(format!("{bin}/pg_recvlogical"))
        .args(["-d", a.url(), "-S", name, "--start", "-f", "-", "--no-loop"])
        .args(["-o", "include-timestamp=on", "-o", "skip-empty-xacts=on"])
        .envs([("PGTZ", "UTC"), ("PGDATESTYLE", "ISO")])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("pg_recvlogical")?;
    let out = reader.stdout.take().context("pg_recvlogical")?;
    let seen = std::thread::spawn(move || {
        let lines = BufReader::new(out).lines().map_while(Result::ok);
        lines
            .filter_map(|line| {
                let at = now_us();
                Some((committed(&line)?, at))
            })
            .collect::<Vec<_>>()
    });
    let average = load(a.url(), name, folder, how)?;
    std::thread::sleep(Duration::from_secs(1));
    reader.kill()?;
    reader.wait()?;
    let seen = seen.join().map_err(|_| anyhow::anyhow!("the probe panicked"))?;
    let rows: usize = a.pg.one(&format!("SELECT count(*) FROM {name}"))?.parse()?;
    ensure!(seen.len() == rows, "the probe saw {} of {rows} commits", seen.len());
    a.pg.run(&format!("SELECT pg_drop_replication_slot('{name}')"))?;
    let from = seen.first().context("commits")?.0 + WARM_US;
    let all = seen.iter().filter(|(commit, _)| *commit > from).map(|(c, at)| (at - c) as f64 / 1000.0).collect();
    Ok(
        json!({ "commit_to_reader": figures(all), "pgbench_latency_ms": average, "tx_per_s": rows as f64 / how.1 as f64 }),
    )
}

pub fn latency() -> Result<Value> {
    let (rate, seconds) = (setting("CW_TX_PER_S", 2000), setting("CW_SECONDS", 30));
    let (a, b) = pair("latency")?;
    a.pg.run(&table("ticks"))?;
    let mut dev = Dev::new(&format!(
        "version: 1\npipeline: b\nsources:\n  s:\n    postgres: {{ url: \"{}\", tables: [ticks] }}\nsinks:\n  k:\n    from: s\n    postgres: {{ url: \"{}\" }}\n",
        a.url(),
        b.url()
    ));
    let probed = (rate, setting("CW_PROBE_SECONDS", (seconds / 2).max(4)));
    let before = probe(&a, dev.folder(), "probe_before", probed)?;
    dev.start()?;
    a.pg.run("INSERT INTO ticks (n) VALUES (0)")?;
    dev.wait(Duration::from_secs(60), || difference(&a.pg, "ticks", &b.pg, "ticks"))?;
    let mut kcat = Command::new("kcat")
        .args(["-C", "-u", "-q", "-b", &dev.kafka, "-t", "s.public.ticks", "-o", "beginning", "-f", "%s\\n"])
        .stdout(Stdio::piped())
        .spawn()
        .context("kcat")?;
    let out = kcat.stdout.take().context("kcat")?;
    let (ready, seen_one) = mpsc::channel();
    let consumer = std::thread::spawn(move || received(out, &ready));
    seen_one.recv_timeout(Duration::from_secs(60)).context("the consumer receives nothing")?;
    // Looks at the target until all that was written is there.
    let (over, watch) = (AtomicBool::new(false), b.connect());
    let pid = dev.pid().context("running")?;
    let cpu = cpu_seconds(pid);
    let (visible, done, average) = std::thread::scope(|scope| -> Result<_> {
        let looks = scope.spawn(|| -> Result<BTreeMap<i64, i64>> {
            let (mut visible, mut low) = (BTreeMap::new(), 1);
            while !over.load(Ordering::Relaxed) {
                let rows = watch.rows(&format!("SELECT id FROM ticks WHERE id > {low}"))?;
                let at = now_us();
                for id in rows.iter().filter_map(|r| r.first()?.as_ref()?.parse().ok()) {
                    visible.entry(id).or_insert(at);
                }
                while visible.contains_key(&(low + 1)) {
                    low += 1;
                }
                std::thread::sleep(LOOK_EVERY);
            }
            Ok(visible)
        });
        let average = load(a.url(), "ticks", dev.folder(), (rate, seconds))?;
        let equal = dev.wait(Duration::from_secs(60), || difference(&a.pg, "ticks", &b.pg, "ticks"));
        std::thread::sleep(Duration::from_millis(200));
        over.store(true, Ordering::Relaxed);
        let visible = looks.join().map_err(|_| anyhow::anyhow!("the looks panicked"))??;
        equal?;
        Ok((visible, a.pg.one("SELECT count(*) FROM ticks")?.parse::<u64>()?, average))
    })?;
    let used = cpu_seconds(pid) - cpu;
    std::thread::sleep(Duration::from_secs(1));
    kcat.kill()?;
    kcat.wait()?;
    let received = consumer.join().map_err(|_| anyhow::anyhow!("the consumer panicked"))?;
    ensure!(received.len() as u64 == done, "the consumer saw {} of {done} rows", received.len());
    dev.stop()?;
    let after = probe(&a, dev.folder(), "probe_after", probed)?;
    let from = received.values().nth(1).context("rows")?.0 + WARM_US;
    let counted = || received.iter().filter(|(_, (commit, _))| *commit > from);
    let consumer = counted().map(|(_, (commit, at))| (at - commit) as f64 / 1000.0).collect();
    let target = counted().filter_map(|(id, (commit, _))| Some((visible.get(id)? - commit) as f64 / 1000.0)).collect();
    Ok(json!({
        "bench": "latency", "wanted_tx_per_s": rate, "tx_per_s": (done - 1) as f64 / seconds as f64, "rows": done,
        "commit_to_consumer": figures(consumer), "commit_to_visible": figures(target),
        "cpu_us_per_row": used / done as f64 * 1e6, "pgbench_latency_ms": average,
        "probe_before": before, "probe_after": after,
    }))
}

#[cfg(test)]
mod tests {
    use super::committed;

    #[test]
    fn commit_times_of_test_decoding() {
        assert_eq!(committed("COMMIT 7 (at 1970-01-01 00:00:00.000001+00)"), Some(1));
        assert_eq!(committed("COMMIT 745 (at 2026-11-28 09:42:01.1234+00)"), Some(1_795_858_921_123_400));
        assert_eq!(committed("COMMIT 745 (at 2024-02-29 23:59:59+00)"), Some(1_709_251_199_000_000));
        assert_eq!(committed("BEGIN 745"), None);
    }
}
