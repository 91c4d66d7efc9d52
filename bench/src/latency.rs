//! PostgreSQL → topic → PostgreSQL at a steady rate of small transactions: how long after its commit a change is with a stock
//! consumer (kcat), and visible in the target. The commit's time is the server's own (`source.ts_us`), taken before the
//! commit is flushed, so the source's flush is in every figure; all clocks are the machine's one.

use crate::{cpu_seconds, median, pair, quantile, setting};
use anyhow::{Context, Result, ensure};
use catchwater_tests::dev::Dev;
use catchwater_tests::pg::difference;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const TABLE: &str = "CREATE TABLE ticks (id bigserial PRIMARY KEY, n int, note text)";
/// Rest between two looks at the target; it is in the figure.
const LOOK_EVERY: Duration = Duration::from_millis(2);

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

pub fn latency() -> Result<Value> {
    let (rate, seconds) = (setting("CW_TX_PER_S", 2000), setting("CW_SECONDS", 30));
    let (a, b) = pair("latency")?;
    a.pg.run(TABLE)?;
    let mut dev = Dev::new(&format!(
        "version: 1\npipeline: b\nsources:\n  s:\n    postgres: {{ url: \"{}\", tables: [ticks] }}\nsinks:\n  k:\n    from: s\n    postgres: {{ url: \"{}\" }}\n",
        a.url(),
        b.url()
    ));
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
    let script = dev.folder().join("tick.sql");
    std::fs::write(&script, "INSERT INTO ticks (n, note) VALUES (1, 'a note of some length');\n")?;
    let cpu = cpu_seconds(pid);
    let (visible, done) = std::thread::scope(|scope| -> Result<_> {
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
        let load = Command::new("pgbench")
            .args(["-n", "-c", "4", "-R", &rate.to_string(), "-T", &seconds.to_string(), "-f"])
            .arg(&script)
            .arg(a.url())
            .output()
            .context("pgbench")?;
        ensure!(load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));
        let equal = dev.wait(Duration::from_secs(60), || difference(&a.pg, "ticks", &b.pg, "ticks"));
        std::thread::sleep(Duration::from_millis(200));
        over.store(true, Ordering::Relaxed);
        let visible = looks.join().map_err(|_| anyhow::anyhow!("the looks panicked"))??;
        equal?;
        Ok((visible, a.pg.one("SELECT count(*) FROM ticks")?.parse::<u64>()?))
    })?;
    let used = cpu_seconds(pid) - cpu;
    std::thread::sleep(Duration::from_secs(1));
    kcat.kill()?;
    kcat.wait()?;
    let received = consumer.join().map_err(|_| anyhow::anyhow!("the consumer panicked"))?;
    ensure!(received.len() as u64 == done, "the consumer saw {} of {done} rows", received.len());
    // The first two seconds are warm-up.
    let from = received.values().nth(1).context("rows")?.0 + 2_000_000;
    let counted = || received.iter().filter(|(_, (commit, _))| *commit > from);
    let consumer = counted().map(|(_, (commit, at))| (at - commit) as f64 / 1000.0).collect();
    let target = counted().filter_map(|(id, (commit, _))| Some((visible.get(id)? - commit) as f64 / 1000.0)).collect();
    Ok(json!({
        "bench": "latency", "wanted_tx_per_s": rate, "tx_per_s": (done - 1) as f64 / seconds as f64, "rows": done,
        "commit_to_consumer": figures(consumer), "commit_to_visible": figures(target),
        "cpu_us_per_row": used / done as f64 * 1e6,
    }))
}
