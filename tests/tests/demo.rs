//! `catchwater dev` without a file: a shop in SQLite, captured, served and delivered, within five seconds and on free
//! ports; one JSON line per second without a terminal; a clean end in under two seconds.

use catchwater_tests::broker::binary;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn the_demo_shows_rows_and_ends_cleanly() {
    let dir = std::env::temp_dir().join(format!("catchwater-demo.{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("folder");
    let ports = dir.join("ports.json");
    let mut child = Command::new(binary().expect("binary"))
        .args(["dev", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--port-file"])
        .arg(&ports)
        .env("TMPDIR", &dir)
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let from = Instant::now();
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    let mut delivered = 0;
    let mut seen = Vec::new();
    while delivered < 20 && from.elapsed() < Duration::from_secs(30) {
        let Some(Ok(line)) = lines.next() else { break };
        let json: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line}: {e}"));
        delivered = json["rows_delivered"].as_u64().unwrap_or_else(|| panic!("{line}"));
        seen.push(line);
    }
    assert!(delivered >= 20, "{delivered} rows delivered: {seen:?}");
    let text = std::fs::read_to_string(&ports).expect("the port file");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let kafka = json["kafka"].as_str().expect("kafka").to_owned();
    // The topic never stands still, so kcat is told how many records to read.
    let read = Command::new("timeout")
        .args(["30", "kcat", "-b", &kafka, "-C", "-t", "shop.main.orders", "-o", "beginning", "-c", "20", "-q"])
        .output();
    let text = String::from_utf8_lossy(&read.expect("kcat").stdout).into_owned();
    assert_eq!(text.lines().filter(|l| l.contains("\"op\":")).count(), 20, "{text}");
    // The copy equals the shop at some moment: compare when the writer pauses between two looks.
    let stop = Instant::now();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .expect("SIGINT");
    let status = child.wait().expect("ends");
    assert!(stop.elapsed() < Duration::from_secs(2), "took {:?}", stop.elapsed());
    assert_eq!(status.code(), Some(130), "SIGINT has its own exit code");
    let _ = std::fs::remove_dir_all(&dir);
}
