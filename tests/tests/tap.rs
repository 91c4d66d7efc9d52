//! `catchwater tap`: the changes of a topic, a source, a pipeline, as the source has them, with conditions and as JSON.

use catchwater_tests::broker::binary;
use catchwater_tests::dev::Dev;
use rusqlite::Connection;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn tap(dev: &Dev, args: &[&str]) -> Command {
    let mut command = Command::new(binary().expect("binary"));
    command.arg("tap").args(args).args(["-b", &dev.kafka, "--http", &dev.http]).env_remove("RUST_BACKTRACE");
    command
}

/// Exit code and both outputs.
fn said(dev: &Dev, args: &[&str]) -> (i32, String) {
    let out = tap(dev, args).output().expect("runs");
    let text = [out.stdout, out.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
    (out.status.code().unwrap_or(-1), text)
}

#[test]
fn changes_are_shown_as_the_source_has_them() {
    let mut dev = Dev::new(
        "version: 1\npipeline: shop\nsources:\n  lite:\n    sqlite: { file: a.db, tables: [t, u] }\nsinks:\n  copy:\n    from: lite.main.t\n    sqlite: { file: b.db }\n",
    );
    let db = Connection::open(dev.folder().join("a.db")).expect("the source");
    db.execute_batch(
        "PRAGMA journal_mode = wal; CREATE TABLE t (id INTEGER PRIMARY KEY, status TEXT, total REAL);
         CREATE TABLE u (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1, 'ok', 5.5), (2, 'test', NULL); INSERT INTO u VALUES (7)",
    )
    .expect("tables");
    dev.start().expect("start");
    dev.wait(Duration::from_secs(60), || {
        let (_, text) = said(&dev, &["lite", "--from", "earliest", "--no-follow"]);
        if text.lines().filter(|l| l.contains(" r lite.main.")).count() == 3 { String::new() } else { text }
    })
    .expect("the snapshot's rows");
    // A pipeline's sink reads less than its source has; a condition and a kind of change choose among the rest.
    let (code, text) = said(&dev, &["shop", "--sink", "copy", "--from", "earliest", "--no-follow"]);
    assert!(code == 0 && text.lines().count() == 2 && !text.contains("main.u"), "{text}");
    assert!(text.contains("id=1 status='ok' total=5.5") && text.contains("total=NULL"), "{text}");
    let condition = ["lite.main.t", "--from", "earliest", "--no-follow", "--where", "total is null or total > 6"];
    let (code, text) = said(&dev, &condition);
    assert!(code == 0 && text.lines().count() == 1 && text.contains("id=2"), "{text}");
    // Live: it begins at the end of the log.
    let mut live = tap(&dev, &["lite", "-n", "3", "--op", "c,u,d", "-o", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut lines = BufReader::new(live.stdout.take().expect("stdout")).lines();
    // Only what is committed after it looked is shown, so rows come until it has shown one.
    let enough = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (file, enough) = (dev.folder().join("a.db"), enough.clone());
        move || {
            let db = Connection::open(file).expect("the source");
            db.busy_timeout(Duration::from_secs(30)).expect("a time");
            for id in 100.. {
                if enough.load(Ordering::Relaxed) {
                    return;
                }
                let sql = format!(
                    "INSERT INTO t VALUES ({id}, 'new', 1.5); UPDATE t SET status = 'paid' WHERE id = {id}; DELETE FROM t WHERE id = {id}"
                );
                db.execute_batch(&sql).expect("changes");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    });
    let mut ops = Vec::new();
    for _ in 0..3 {
        let line = lines.next().expect("three changes").expect("a line");
        let json: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert_eq!((&json["topic"], &json["key"]), (&"lite.main.t".into(), &serde_json::json!(["id"])), "{line}");
        let op = json["op"].as_str().unwrap_or_default().to_owned();
        match op.as_str() {
            "c" => assert_eq!(json["after"]["status"], "new", "{line}"),
            "u" => assert_eq!(json["after"]["status"], "paid", "{line}"),
            "d" => assert!(json["before"]["id"].is_i64() && json["after"].is_null(), "{line}"),
            other => panic!("{other}"),
        }
        ops.push(op);
    }
    ops.sort();
    assert_eq!(ops, ["c", "d", "u"], "three changes after each other");
    assert!(live.wait().expect("ends").success());
    enough.store(true, Ordering::Relaxed);
    writer.join().expect("the writer");
    // One of the tables has the column: the others' rows are left out without a word.
    let (code, text) = said(&dev, &["lite", "--where", "status = 'nobody'", "--from", "earliest", "--no-follow"]);
    assert!(code == 0 && text.is_empty(), "{code} {text}");
    // Mistakes have a code, a place, a next step.
    for (args, code, exit, word) in [
        (&["lite.main.t", "--where", "statu = 'ok'", "--from", "earliest"][..], "CW0351", 2, "status"),
        (&["lite", "--where", "statu = 'ok'", "--from", "earliest", "--no-follow"], "CW0351", 2, "none of the tables"),
        (&["lite", "--where", "status = ok"], "CW0351", 2, "column 10"),
        (&["lite", "--op", "x"], "CW0351", 2, "c = insert"),
        (&["nobody"], "CW0008", 1, "pipeline list"),
        (&["shop", "--sink", "nobody"], "CW0344", 2, "pipeline show"),
    ] {
        let (got, text) = said(&dev, args);
        assert!(got == exit && text.contains(code) && text.contains(word), "{args:?}: {got} {text}");
    }
}
