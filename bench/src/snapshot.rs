//! A first snapshot: rows per second from a table into the durable log, against two parallel binary COPYs of the same table
//! to nowhere; then from the log's snapshot into a second database. Interleaved rounds, medians.

use crate::{TABLE, cpu_seconds, fill, median, pair, setting, task_rows};
use anyhow::{Context, Result, ensure};
use catchwater_tests::dev::Dev;
use catchwater_tests::pg::{Pg, difference};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Both halves of the table at a time, binary, to nowhere. Seconds.
fn two_copies(url: &str, rows: u64) -> Result<f64> {
    let half = rows / 2;
    let from = Instant::now();
    let each: Vec<_> = [(1, half), (half + 1, rows)]
        .iter()
        .map(|(first, last)| {
            let sql = format!("COPY (SELECT * FROM t WHERE id BETWEEN {first} AND {last}) TO STDOUT (FORMAT binary)");
            Command::new("psql").args(["-q", url, "-c", &sql]).stdout(Stdio::null()).spawn()
        })
        .collect::<std::io::Result<_>>()?;
    for mut copy in each {
        ensure!(copy.wait()?.success(), "psql failed");
    }
    Ok(from.elapsed().as_secs_f64())
}

/// Runs until `kind` has counted all rows: rows per second from the start of the process, and CPU a row, µs.
fn timed(dev: &mut Dev, kind: &str, rows: u64) -> Result<(f64, f64)> {
    let from = Instant::now();
    dev.start()?;
    let pid = dev.pid().context("running")?;
    while task_rows(dev, kind) < rows {
        ensure!(from.elapsed() < Duration::from_secs(600), "stuck at {} of {rows} rows", task_rows(dev, kind));
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok((rows as f64 / from.elapsed().as_secs_f64(), cpu_seconds(pid) / rows as f64 * 1e6))
}

fn source(a: &str) -> String {
    format!("version: 1\npipeline: b\nsources:\n  s:\n    postgres: {{ url: \"{a}\", tables: [t] }}\n")
}

pub fn snapshot() -> Result<Value> {
    let rows = setting("CW_ROWS", 1_000_000);
    let (a, b) = pair("snapshot")?;
    a.pg.run(TABLE)?;
    a.pg.run(&fill(1, rows))?;
    a.pg.run("VACUUM ANALYZE t")?;
    two_copies(a.url(), rows)?; // the cache is warm for all alike
    let (mut probe, mut log, mut log_cpu, mut sink, mut sink_cpu) = (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..setting("CW_ROUNDS", 3) {
        probe.push(rows as f64 / two_copies(a.url(), rows)?);
        let mut dev = Dev::new(&source(a.url()));
        let (speed, cpu) = timed(&mut dev, "source", rows)?;
        log.push(speed);
        log_cpu.push(cpu);
        dev.stop()?;
        // The log holds it all: a new sink drains it.
        let with = format!("{}sinks:\n  k:\n    from: s\n    postgres: {{ url: \"{}\" }}\n", source(a.url()), b.url());
        std::fs::write(dev.folder().join("pipeline.yaml"), with)?;
        let (speed, cpu) = timed(&mut dev, "sink", rows)?;
        sink.push(speed);
        sink_cpu.push(cpu);
        dev.wait(Duration::from_secs(120), || {
            if b.pg.one("SELECT count(*) FROM t").is_ok_and(|n| n == rows.to_string()) {
                String::new()
            } else {
                "count".into()
            }
        })?;
        let d = difference(&a.pg, "t", &b.pg, "t");
        ensure!(d.is_empty(), "{d}");
        dev.stop()?;
        again(&a.pg, &b.pg)?;
    }
    let ratios = log.iter().zip(&probe).map(|(o, p)| o / p).collect();
    Ok(json!({
        "bench": "snapshot", "rows": rows, "probe_two_binary_copies_rows_per_s": median(probe), "into_log_rows_per_s": median(log),
        "ratio": median(ratios), "into_log_cpu_us_per_row": median(log_cpu), "into_postgres_rows_per_s": median(sink),
        "into_postgres_cpu_us_per_row": median(sink_cpu),
    }))
}

/// Both databases as at the beginning.
fn again(a: &Pg, b: &Pg) -> Result<()> {
    let slots =
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()";
    a.rows(slots)?;
    a.run("DROP PUBLICATION IF EXISTS catchwater_s")?;
    b.run("DROP TABLE t; DROP SCHEMA catchwater CASCADE")
}
