//! The pages in `docs/formats/` suffice: a decoder in Python that was written from them alone (`tests/formats/decode.py`)
//! reads every file of directories that the built broker wrote, to the last byte. What it finds is what consumers were
//! given and what `catchwater storage dump` shows. And the golden bytes of the pages are what it reads them as.
//! Index of the pages: `docs/formats/README.md`.

use catchwater_tests::broker::{Broker, Settings, binary};
use catchwater_tests::decode::{decode, script, seen};
use catchwater_tests::dev::Dev;
use catchwater_tests::python::interpreter;
use rusqlite::Connection;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn clients(python: &Path, args: &[&str]) -> String {
    let out = Command::new(python).arg(script("clients.py")).args(args).output().expect("Python runs");
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("UTF-8")
}

/// What `storage dump` shows, file by file below `dir`: rows, batches or flushes as the decoder writes them.
fn dumped(dir: &Path) -> BTreeMap<String, Vec<Value>> {
    let out = Command::new(binary().expect("binary"))
        .args(["-o", "json", "storage", "dump", "-n", "1000000"])
        .arg(dir)
        .output()
        .expect("runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let (mut files, mut at) = (BTreeMap::<String, Vec<Value>>::new(), String::new());
    let number = |line: &Value, name: &str| -> Value { json!(line[name].as_str().and_then(|n| n.parse::<u64>().ok())) };
    for line in String::from_utf8_lossy(&out.stdout).lines() {
        let line: Value = serde_json::from_str(line).expect("JSON lines");
        let list = |names: &[&str]| Value::Array(names.iter().map(|name| number(&line, name)).collect());
        let item = match line["is"].as_str() {
            Some("file") => {
                let path = Path::new(line["path"].as_str().expect("a path"));
                at = path.strip_prefix(dir).expect("below the directory").display().to_string();
                files.insert(at.clone(), Vec::new());
                continue;
            }
            Some("row") => {
                let mut row = list(&["index", "term", "kind", "base_offset", "count", "pos", "len"]);
                row[2] = line["kind"].clone();
                row
            }
            Some("batch") => list(&["at", "bytes", "base_offset"]),
            Some("flush") => list(&["lsn", "frames"]),
            Some("context") => list(&["index"]),
            _ => {
                assert!(!at.ends_with(".ext"), "{line}");
                continue;
            }
        };
        files.get_mut(&at).expect("a file line comes first").push(item);
    }
    files
}

/// The decoder and the product's own dump see the same files, and the same in them.
fn agrees_with_the_dump(dir: &Path, report: &Value) {
    let dump = dumped(dir);
    let files = report["files"].as_object().expect("files");
    // Contexts stand with their rows, the reserve is only room.
    let shown: BTreeSet<&String> = files.keys().filter(|f| !f.ends_with(".ext") && *f != "reserve").collect();
    let other: BTreeSet<&String> = dump.keys().filter(|f| !f.ends_with(".ext") && *f != "reserve").collect();
    assert_eq!(shown, other, "the same files");
    let mut compared = 0;
    for (path, file) in files {
        let Some(items) = ["rows", "batches", "flushes"].iter().find_map(|name| file[name].as_array()) else {
            continue;
        };
        // A batch says how many records are left in it, the dump how many offsets it covers.
        let cut = if path.ends_with(".log") { 3 } else { 7 };
        let cut = |item: &Value| Value::Array(item.as_array().expect("a list").iter().take(cut).cloned().collect());
        assert_eq!(items.iter().map(cut).collect::<Vec<_>>(), dump[path], "{path}");
        compared += items.len();
    }
    assert!(compared > 1_000, "{compared} rows, batches and flushes");
}

#[test]
fn a_stranger_reads_every_file_of_a_directory_by_the_pages_alone() {
    let test = "formats";
    let settings = Settings::default()
        .with("log.cleaner.backoff.ms", "20")
        .with("log.retention.check.interval.ms", "20")
        .with("storage.journal.file.bytes", "1048576");
    let Ok(python) = interpreter() else {
        return catchwater_tests::skip(test, "Python with the clients");
    };
    let mut broker = Broker::start_with(settings);
    if broker.is_foreign() {
        return;
    }
    let dir = broker.data_dir();
    clients(&python, &["fill", broker.kafka(), "1"]);
    broker.kill();
    // As the death left it: what is half written is where the pages say that it may be.
    let Some((report, _)) = decode(test, &dir) else { return };
    seen(
        &report,
        &["create", "hard", "entry", "entry in both", "entry in the journal only", "drop", "mode", "row", "gap"],
    );

    broker.restart().expect("restart");
    clients(&python, &["fill", broker.kafka(), "2"]);
    let read: Vec<Value> = clients(&python, &["read", broker.kafka()])
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON lines"))
        .collect();
    broker.stop().expect("stop");
    let (report, records) = decode(test, &dir).expect("Python is there");
    assert_eq!(report["notes"], json!([]), "a clean stop leaves nothing half made");
    seen(&report, &["dirty", "synced", "segment", "snapshot", "producer", "compacted batch", "stale bytes"]);
    seen(
        &report,
        &["TOPIC", "CONFIG", "BROKER", "__consumer_offsets OffsetCommit", "__consumer_offsets GroupMetadata"],
    );

    // Record for record what consumers were given, and the same first and last offsets.
    let (bounds, values): (Vec<&Value>, Vec<&Value>) = read.iter().partition(|line| line["high"].is_u64());
    let key = |v: &Value| (v["topic"].to_string(), v["partition"].as_u64(), v["offset"].as_u64(), v["crc"].as_u64());
    let given: BTreeSet<_> = values.iter().map(|v| key(v)).collect();
    let found: BTreeSet<_> = records.iter().map(key).collect();
    assert!(given.len() == values.len() && given.len() > 3_000, "{} records", given.len());
    assert_eq!(given.difference(&found).next(), None, "a consumer was given what the decoder does not find");
    assert_eq!(found.difference(&given).next(), None, "the decoder finds what no consumer was given");
    let partitions = report["partitions"].as_array().expect("partitions");
    for line in bounds {
        let same = |p: &&Value| p["topic"] == line["topic"] && p["partition"] == line["partition"];
        let p = partitions.iter().find(same).expect("the partition");
        assert_eq!((&p["log_start"], &p["end"]), (&line["low"], &line["high"]), "{line}");
    }
    let codecs: BTreeSet<&String> =
        partitions.iter().flat_map(|p| p["codecs"].as_object().expect("codecs").keys()).collect();
    assert_eq!(codecs.len(), 5, "{codecs:?}");
    agrees_with_the_dump(&dir, &report);

    // What no page says is a problem: a file, a bit.
    let problem = |path: &Path| {
        let (report, _) = catchwater_tests::decode::report(test, &dir).expect("Python is there");
        let name = path.strip_prefix(&dir).expect("below the directory").with_extension("");
        let problems = report["problems"].as_array().expect("problems");
        let named = |p: &Value| p.as_str().is_some_and(|p| p.starts_with(&*name.to_string_lossy()));
        assert!(problems.iter().any(named), "{}: {problems:?}", name.display());
    };
    let stranger = dir.join("p/0000000000000001/notes.txt");
    std::fs::write(&stranger, "x").expect("written");
    problem(&stranger);
    std::fs::remove_file(&stranger).expect("removed");
    for ending in [".log", ".ent", ".snap"] {
        let files = report["files"].as_object().expect("files");
        let path = dir.join(files.keys().find(|f| f.ends_with(ending)).expect("such a file"));
        let mut bytes = std::fs::read(&path).expect("readable");
        let at = bytes.len() / 2;
        bytes[at] ^= 4;
        std::fs::write(&path, &bytes).expect("writable");
        problem(&path);
        bytes[at] ^= 4;
        std::fs::write(&path, &bytes).expect("writable");
    }
}

#[test]
fn the_golden_bytes_of_the_pages_are_read_as_they_say() {
    let Ok(python) = interpreter() else {
        return catchwater_tests::skip("golden bytes", "Python");
    };
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/formats");
    let out = Command::new(python).arg(script("golden.py")).arg(pages).output().expect("Python runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn a_stranger_reads_what_pipelines_leave_by_the_pages_alone() {
    let test = "formats of pipelines";
    let mut dev = Dev::new(
        "version: 1\npipeline: shop\nsources:\n  here:\n    sqlite: { file: here.db, tables: [t] }\nsinks:\n  there:\n    from: here\n    sqlite: { file: there.db }\n",
    );
    let source = Connection::open(dev.folder().join("here.db")).expect("source");
    let run = |sql: &str| source.execute_batch(sql).expect("sql");
    run("PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b REAL);");
    run(
        "INSERT INTO t WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 200) SELECT i, 'first', i / 7.0 FROM n",
    );
    let there = dev.folder().join("there.db");
    let count = |want: u32| {
        let seen = Connection::open(&there).and_then(|c| c.query_row("SELECT count(*) FROM t", [], |r| r.get(0)));
        if seen == Ok(want) { String::new() } else { format!("{seen:?} rows, wanted {want}") }
    };
    dev.start().expect("start");
    dev.wait(Duration::from_secs(60), || count(200)).expect("the snapshot");
    run("UPDATE t SET a = 'second' WHERE id < 50; DELETE FROM t WHERE id > 150");
    dev.wait(Duration::from_secs(60), || count(150)).expect("changes");
    dev.kill();
    let Some((report, _)) = decode(test, &dev.data_dir()) else { return };
    seen(&report, &["SOURCE", "PIPELINE", "TASK", "TASK_STATUS", "__catchwater_captures CHECKPOINT", "cw.stamp"]);
    dev.start().expect("again");
    for action in ["pause", "resume"] {
        let out = Command::new(binary().expect("binary"))
            .args(["pipeline", action, "shop"])
            .env("CATCHWATER_HTTP", &dev.http)
            .env("CATCHWATER_BOOTSTRAP", &dev.kafka)
            .output();
        let out = out.expect("runs");
        assert!(out.status.success(), "{action}: {}", String::from_utf8_lossy(&out.stderr));
    }
    run("ALTER TABLE t ADD COLUMN c INTEGER DEFAULT 7; INSERT INTO t VALUES (999, 'third', 1.5, 7)");
    dev.wait(Duration::from_secs(60), || count(151)).expect("after the pause");
    dev.stop().expect("stop");
    let (report, _) = decode(test, &dev.data_dir()).expect("Python is there");
    assert_eq!(report["notes"], json!([]), "a clean stop leaves nothing half made");
    for kind in ["CHECKPOINT", "CONFIG", "CHUNK", "TABLE", "IDENTITY"] {
        seen(&report, &[&format!("__catchwater_captures {kind}")]);
    }
    seen(&report, &["__catchwater_cuts record", "__catchwater_audit record", "capture context", "REVISION"]);
}
