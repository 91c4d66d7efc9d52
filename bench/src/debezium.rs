//! Beside Debezium on Connect and its JDBC sink: CPU seconds per million rows of capture (slot → log) and of apply (log →
//! upserts by key in a second database), same table, same transactions, ours before and after the peer.
//!
//! The peer is `$CW_DEBEZIUM_BENCH ROWS`, a script that prints one line per measurement: `drain …` and `sink…`, each with
//! `N CPU s/M rows`, where only the Connect worker counts, not its broker. Ours is the whole process, log included.

use crate::{captured, drained, median, pair, resident_mib, setting};
use anyhow::{Context, Result, ensure};
use catchwater_tests::dev::Dev;
use catchwater_tests::pg::{Pg, difference};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

const TABLE: &str =
    "CREATE TABLE bench (id bigserial PRIMARY KEY, c_int int, c_big bigint, c_num numeric(12,2), c_name varchar(40),
    c_text text, c_ts timestamptz, c_date date, c_bool boolean, c_double double precision)";

/// `rows` in transactions of `per_txn`, the way the peer's script makes them.
fn load(pg: &Pg, rows: u64, per_txn: u64) -> Result<()> {
    pg.run(&format!(
        "DO $$ BEGIN FOR t IN 1..{} LOOP
           INSERT INTO bench (c_int, c_big, c_num, c_name, c_text, c_ts, c_date, c_bool, c_double)
             SELECT i, 1000000007::bigint * i, (i % 100000) / 7.0, 'name ' || i, md5(i::text) || md5((i + 1)::text),
               timestamptz '2026-01-01' + i * interval '1 second', date '2026-01-01' + i % 300, i % 2 = 0, i / 3.0
             FROM generate_series(1, {per_txn}) i;
           COMMIT;
         END LOOP; END $$",
        rows / per_txn
    ))
}

/// Rows per second and CPU a row in µs, which is CPU seconds per million rows, of each round.
#[derive(Default)]
struct Ours {
    capture: Vec<(f64, f64)>,
    apply: Vec<(f64, f64)>,
    resident_mib: Vec<f64>,
}

fn ours(into: &mut Ours, rows: u64, per_txn: u64) -> Result<()> {
    let (a, b) = pair("debezium")?;
    a.pg.run(TABLE)?;
    let source =
        format!("version: 1\npipeline: b\nsources:\n  s:\n    postgres: {{ url: \"{}\", tables: [bench] }}\n", a.url());
    let mut dev = Dev::new(&source);
    dev.start()?;
    load(&a.pg, per_txn, per_txn)?;
    dev.wait(Duration::from_secs(30), || if captured(&dev) >= per_txn { String::new() } else { "first rows".into() })?;
    dev.stop()?;
    load(&a.pg, rows, per_txn)?;
    dev.start()?;
    into.capture.push(drained(&dev, "source", rows)?);
    dev.stop()?;
    let with = format!("{source}sinks:\n  k:\n    from: s\n    postgres: {{ url: \"{}\" }}\n", b.url());
    std::fs::write(dev.folder().join("pipeline.yaml"), with)?;
    dev.start()?;
    into.apply.push(drained(&dev, "sink", rows + per_txn)?);
    into.resident_mib.push(resident_mib(dev.pid().context("running")?));
    let d = difference(&a.pg, "bench", &b.pg, "bench");
    ensure!(d.is_empty(), "{d}");
    dev.stop()?;
    Ok(())
}

/// The figures of the peer's lines that begin with `what`: rows/s and CPU s per million rows.
fn of_peer(lines: &str, what: &str) -> Vec<(f64, f64)> {
    let before = |line: &str, word: &str| -> Option<f64> {
        let at = line.find(word)?;
        line[..at].split_whitespace().next_back()?.parse().ok()
    };
    let theirs = lines.lines().filter(|l| l.starts_with(what));
    theirs.filter_map(|l| before(l, "rows/s").zip(before(l, "CPU s/M rows"))).collect()
}

pub fn debezium() -> Result<Value> {
    let (rows, per_txn) = (setting("CW_ROWS", 500_000), setting("CW_TXN_ROWS", 1000));
    let mut figures = Ours::default();
    ours(&mut figures, rows, per_txn)?;
    let peer = match std::env::var("CW_DEBEZIUM_BENCH") {
        Err(_) => None,
        Ok(script) => {
            let out = Command::new(&script)
                .arg(rows.to_string())
                .env("TX", per_txn.to_string())
                .env("WHAT", std::env::var("CW_DEBEZIUM_WHAT").unwrap_or_else(|_| "live drain sink".into()))
                .output()
                .with_context(|| format!("{script} does not run"))?;
            ensure!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
            ours(&mut figures, rows, per_txn)?;
            Some(String::from_utf8_lossy(&out.stdout).into_owned())
        }
    };
    let half = |of: &[(f64, f64)]| (median(of.iter().map(|f| f.0).collect()), median(of.iter().map(|f| f.1).collect()));
    let (capture, apply) = (half(&figures.capture), half(&figures.apply));
    let mut result = json!({
        "bench": "debezium", "rows": rows, "rows_per_transaction": per_txn, "resident_mib": median(figures.resident_mib),
        "capture_rows_per_s": capture.0, "capture_cpu_s_per_million_rows": capture.1,
        "apply_rows_per_s": apply.0, "apply_cpu_s_per_million_rows": apply.1,
    });
    if let Some(lines) = peer {
        // The best of the peer's settings counts, whichever it is.
        let best = |what: &str| of_peer(&lines, what).into_iter().reduce(|a, b| if b.1 < a.1 { b } else { a });
        let (c, s) = best("drain").zip(best("sink")).with_context(|| format!("no figures in: {lines}"))?;
        result["peer_lines"] = lines.lines().map(str::trim).collect();
        result["peer_capture_cpu_s_per_million_rows"] = c.1.into();
        result["peer_apply_cpu_s_per_million_rows"] = s.1.into();
        result["capture_cpu_ratio"] = (c.1 / capture.1).into();
        result["apply_cpu_ratio"] = (s.1 / apply.1).into();
        result["whole_cpu_ratio"] = ((c.1 + s.1) / (capture.1 + apply.1)).into();
    }
    Ok(result)
}
