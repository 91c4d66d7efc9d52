//! The lag of a sink that stands still grows, whatever it is that stands: its target, its worker, its source; and it is
//! nothing once everything is there. PostgreSQL to PostgreSQL, by the command line.

use catchwater_tests::broker::binary;
use catchwater_tests::dev::Dev;
use catchwater_tests::pg::{Database, Pg};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(90);

fn run(dev: &Dev, args: &[&str]) -> (bool, String) {
    let out = Command::new(binary().expect("binary"))
        .args(args)
        .args(["--http", &dev.http])
        .env_remove("RUST_BACKTRACE")
        .output()
        .expect("runs");
    (out.status.success(), [out.stdout, out.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat())
}

fn sink(dev: &Dev) -> Value {
    let (ok, text) = run(dev, &["-o", "json", "lag"]);
    assert!(ok, "{text}");
    let all: Value = serde_json::from_str(&text).expect("JSON");
    all["result"].as_array().into_iter().flatten().find(|l| l["kind"] == "sink").cloned().unwrap_or_default()
}

fn lag(dev: &Dev) -> u64 {
    sink(dev)["lag_ms"].as_u64().unwrap_or(0)
}

/// Until the lag has risen by a second; the sum of the stages is the lag.
fn grows(dev: &Dev, least: u64) -> u64 {
    let first = lag(dev).max(least);
    dev.wait(LIMIT, || match lag(dev) {
        n if n >= first + 1000 => String::new(),
        n => format!("{first} ms, then {n}: it does not grow"),
    })
    .expect("it grows");
    let line = sink(dev);
    let stages = ["capture", "log", "apply", "commit"].map(|s| line["stages_us"][s].as_u64().unwrap_or(0));
    assert_eq!(stages.iter().sum::<u64>() / 1000, line["lag_ms"].as_u64().unwrap_or(0), "{line}");
    line["lag_ms"].as_u64().unwrap_or(0)
}

fn settled(dev: &Dev, target: &Pg, rows: &str) {
    dev.wait(LIMIT, || {
        let there = target.one("SELECT count(*) FROM t").unwrap_or_default();
        let line = sink(dev);
        let done = there == rows && line["lag_ms"] == 0 && line["lag_records"] == 0;
        if done { String::new() } else { format!("{there} rows, {line}") }
    })
    .expect("everything arrives and nothing lags");
}

#[test]
fn the_lag_of_whatever_stands_still_grows() {
    let Some(a) = Database::create("pg15", "lag_a") else { return };
    let Some(b) = Database::create("pg15", "lag_b") else { return };
    let (source, target) = (a.name(), b.name());
    a.pg.run("CREATE TABLE t (id int PRIMARY KEY)").expect("the table");
    let mut dev = Dev::new(&format!(
        "version: 1\npipeline: p\nsources:\n  {source}:\n    postgres: {{ url: \"{}\", tables: [t] }}\nsinks:\n  k:\n    from: {source}\n    postgres: {{ url: \"{}\" }}\n",
        a.url(),
        b.url()
    ));
    dev.start().expect("start");
    a.pg.run("INSERT INTO t VALUES (1)").expect("a row");
    settled(&dev, &b.pg, "1");
    // What became of the rows that the sink took stands in the table.
    let (ok, text) = run(&dev, &["lag"]);
    let columns = text.lines().next().map_or(0, |head| head.split_whitespace().position(|w| w == "ROWS").unwrap_or(0));
    let of_sink = text.lines().find(|l| l.contains(" sink ")).unwrap_or_default();
    let shown: Vec<&str> = of_sink.split_whitespace().skip(columns).take(2).collect();
    assert!(ok && shown == ["1", "1+0+0+0"] && text.contains("APPLIED+FOLDED+PARKED+FILTERED"), "{text}");

    // The target holds the sink up: what it stands in says so.
    let holder = b.connect();
    holder.run("BEGIN; LOCK TABLE t IN EXCLUSIVE MODE").expect("the lock");
    a.pg.run("INSERT INTO t VALUES (2)").expect("a row");
    grows(&dev, 0);
    holder.run("COMMIT").expect("let go");
    settled(&dev, &b.pg, "2");

    // The target is gone; then the node starts again and has never seen it.
    a.pg.run(&format!("ALTER DATABASE {target} ALLOW_CONNECTIONS false")).expect("closed");
    b.cut();
    a.pg.run("INSERT INTO t VALUES (3)").expect("a row");
    let before = grows(&dev, 0);
    dev.kill();
    dev.start().expect("start");
    let before = grows(&dev, before);
    let (ok, text) = run(&dev, &["top", "--frames", "1"]);
    assert!(ok && text.contains("retrying") && text.contains("CAPTURE+LOG+APPLY+COMMIT"), "{text}");
    let metrics = Command::new("curl").args(["-s", &format!("http://{}/metrics", dev.http)]).output().expect("curl");
    let metrics = String::from_utf8_lossy(&metrics.stdout).into_owned();
    let has = |line: &str| metrics.lines().any(|l| l.starts_with(line));
    // The mirror of the position may be a second older than the target.
    assert!(
        (1..=3).any(|n| has(&format!("catchwater_pipeline_lag_records{{pipeline=\"p\",sink=\"k\"}} {n}"))),
        "{metrics}"
    );
    assert!(has("catchwater_sink_retries_total{pipeline=\"p\",sink=\"k\",class=\"environment\"}"), "{metrics}");

    // It is paused: nobody works, the change waits all the same.
    assert!(run(&dev, &["pipeline", "pause", "p"]).0);
    grows(&dev, before);
    a.pg.run(&format!("ALTER DATABASE {target} ALLOW_CONNECTIONS true")).expect("open");
    assert!(run(&dev, &["pipeline", "resume", "p"]).0);
    settled(&dev, &b.pg, "3");

    // The source is not read: nobody knows what it holds, so nobody says 0.
    b.pg.run(&format!("ALTER DATABASE {source} ALLOW_CONNECTIONS false")).expect("closed");
    a.cut();
    grows(&dev, 0);
    b.pg.run(&format!("ALTER DATABASE {source} ALLOW_CONNECTIONS true")).expect("open");
    // A database that does not want to be asked stops its capture for good, and what is to be said then is told.
    let told = || {
        let out = Command::new("curl").args(["-s", &format!("http://{}/api/v1/lag", dev.http)]).output().expect("curl");
        let lines: Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
        let next = lines.as_array().into_iter().flatten().find(|l| l["kind"] == "source").map(|l| l["next"].clone());
        let next = next.unwrap_or_default().as_str().unwrap_or_default().to_owned();
        if next.contains("catchwater pipeline restart p") { String::new() } else { next }
    };
    dev.wait(LIMIT, told).expect("the next step");
    assert!(run(&dev, &["pipeline", "restart", "p"]).0);
    a.pg.run("INSERT INTO t VALUES (4)").expect("a row");
    settled(&dev, &b.pg, "4");
}
