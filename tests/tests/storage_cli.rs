//! `catchwater storage …` on a directory that the built broker wrote, and the directories that a start refuses.

use catchwater_tests::broker::{Broker, Settings, binary};
use catchwater_tests::skip;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn run(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(binary().expect("binary"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("written");
    child.wait_with_output().expect("ends")
}

#[track_caller]
fn refused(args: &[&str], exit: i32, code: &str) -> String {
    let out = run(args, "");
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(exit), "{args:?}: {text}");
    assert!(text.contains(&format!("error[{code}]")) && text.contains("next:"), "{args:?}: wanted {code}: {text}");
    text
}

/// Some batches in a topic of three partitions.
fn filled(settings: Settings) -> Broker {
    let broker = Broker::start_with(settings.with("num.partitions", "3"));
    for n in 0..20 {
        let lines: String = (0..50).map(|i| format!("line {n} {i} of a batch that has some length\n")).collect();
        let partition = format!("{}", n % 3);
        let out = run(&["topic", "produce", "words", "-b", broker.kafka(), "-p", &partition], &lines);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    broker
}

fn json(args: &[&str]) -> (i32, serde_json::Value) {
    let out = run(args, "");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    (out.status.code().expect("an exit code"), serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")))
}

/// The largest file with this ending.
fn largest(dir: &Path, ending: &str) -> PathBuf {
    let mut left = vec![dir.to_owned()];
    let mut found: Option<(u64, PathBuf)> = None;
    while let Some(at) = left.pop() {
        for entry in std::fs::read_dir(&at).expect("a folder").flatten() {
            let (path, len) = (entry.path(), entry.metadata().map_or(0, |m| m.len()));
            if path.is_dir() {
                left.push(path);
            } else if path.to_string_lossy().ends_with(ending) && found.as_ref().is_none_or(|(most, _)| len > *most) {
                found = Some((len, path));
            }
        }
    }
    found.expect("such a file").1
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).expect("readable");
    bytes[at] ^= 1;
    std::fs::write(path, bytes).expect("writable");
}

#[test]
fn check_and_dump_say_what_is_there_and_what_is_damaged() {
    let mut broker = filled(Settings::default());
    if broker.is_foreign() {
        return;
    }
    let data = broker.data_dir();
    let dir = data.to_str().expect("utf-8").to_owned();
    refused(&["storage", "check", &dir], 3, "CW0201");

    // After a death as after a clean end: sound, and every batch was compared.
    for clean in [false, true] {
        if clean {
            broker.restart().expect("restart");
            broker.stop().expect("stop");
        } else {
            broker.kill();
        }
        let (exit, out) = json(&["-o", "json", "storage", "check", &dir]);
        assert_eq!((exit, &out["ok"]), (0, &serde_json::json!(true)), "{out}");
        let result = &out["result"];
        let journaled: u64 = result["partitions"]
            .as_array()
            .expect("partitions")
            .iter()
            .filter_map(|p| p["entries_in_journal_only"].as_u64())
            .sum();
        let batches = result["batches"].as_u64().expect("a count");
        assert!(batches + journaled >= 20, "{out}");
        let ends: u64 = result["partitions"]
            .as_array()
            .expect("partitions")
            .iter()
            .filter_map(|p| p["end_offset"].as_u64())
            .filter(|end| *end >= 300)
            .sum();
        assert_eq!(ends, 1000, "20 × 50 records in three partitions: {out}");
    }

    let log = largest(&data, ".log");
    let shown = run(&["storage", "dump", log.to_str().expect("utf-8")], "");
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(text.starts_with("batch at=0 ") && text.contains("count=50") && !text.contains("DAMAGED"), "{text}");
    let one = run(&["storage", "dump", "-n", "1", log.to_str().expect("utf-8")], "");
    assert_eq!(String::from_utf8_lossy(&one.stdout).lines().count(), 1);
    let all = run(&["-o", "json", "storage", "dump", &dir], "");
    let text = String::from_utf8_lossy(&all.stdout).into_owned();
    for word in
        ["dir.meta", "boot.state", "journal", "flush", "create", "hard", "entry", "manifest", "table", "row", "batch"]
    {
        let wanted = format!("\"is\":\"{word}\"");
        assert!(text.lines().any(|line| line.contains(&wanted)), "no line of {word}");
    }
    assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "each line is JSON");

    flip(&log, 100);
    let (exit, out) = json(&["-o", "json", "storage", "check", &dir]);
    assert_eq!((exit, out["error"]["code"].as_str()), (1, Some("CW0230")), "{out}");
    let found = out["error"]["details"]["findings"].as_array().expect("findings");
    let named =
        |f: &serde_json::Value| f["kind"] == "batch" && f["file"].as_str() == log.to_str() && f["weight"] == "damage";
    assert!(found.iter().any(named), "{out}");
    let text = refused(&["storage", "check", &dir], 1, "CW0230");
    assert!(text.contains("1 damage"), "{text}");
    flip(&log, 100);
    flip(&data.join("dir.meta.a"), 40);
    let (exit, out) = json(&["-o", "json", "storage", "check", &dir]);
    let found = &out["error"]["details"]["findings"][0];
    assert_eq!((exit, found["kind"].as_str(), found["weight"].as_str()), (1, Some("slot"), Some("warning")), "{out}");

    refused(&["storage", "check", "/nowhere/at/all"], 3, "CW0223");
    refused(&["storage", "dump", "/nowhere/at/all"], 3, "CW0223");
    refused(&["storage", "dump", binary().expect("binary").to_str().expect("utf-8")], 2, "CW0232");
}

#[test]
fn directories_that_are_not_ours_are_refused_and_not_touched() {
    let mut broker = filled(Settings::default().with("cluster.id", "oqkHbGV3Qg2dUySKJ4Lx0A").with("node.id", "7"));
    if broker.is_foreign() {
        return;
    }
    broker.stop().expect("stop");
    let data = broker.data_dir();
    let dir = data.to_str().expect("utf-8").to_owned();
    let before: Vec<u8> = ["dir.meta.a", "dir.meta.b", "boot.state.a", "boot.state.b"]
        .iter()
        .flat_map(|name| std::fs::read(data.join(name)).unwrap_or_default())
        .collect();
    let config = data.with_file_name("node.yaml");
    let name = config.to_str().expect("utf-8").to_owned();
    let start = ["start", "-c", &name, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", &dir];
    std::fs::write(&config, "cluster.id: AAAAAAAAAAAAAAAAAAAAAQ\n").expect("file");
    let text = refused(&start, 2, "CW0221");
    assert!(text.contains("oqkHbGV3Qg2dUySKJ4Lx0A") && text.contains("AAAAAAAAAAAAAAAAAAAAAQ"), "{text}");
    std::fs::write(&config, "node.id: 8\n").expect("file");
    refused(&start, 2, "CW0221");
    let after: Vec<u8> = ["dir.meta.a", "dir.meta.b", "boot.state.a", "boot.state.b"]
        .iter()
        .flat_map(|name| std::fs::read(data.join(name)).unwrap_or_default())
        .collect();
    assert_eq!(before, after, "a refused directory is not touched");
    // The same identity opens.
    broker.restart().expect("its own cluster and node");
    broker.stop().expect("stop");
    // A format of a later version: the payload's number (byte 72 of a slot) and the sum over it.
    for side in ["a", "b"] {
        let path = data.join(format!("dir.meta.{side}"));
        let mut bytes = std::fs::read(&path).expect("readable");
        bytes[72] = 9;
        let crc = catchwater_record::crc::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(&path, bytes).expect("writable");
    }
    std::fs::write(&config, "").expect("file");
    let plain = ["start", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", &dir];
    let text = refused(&plain, 3, "CW0220");
    assert!(text.contains("format is 9"), "{text}");
    refused(&["storage", "check", &dir], 3, "CW0220");
}

/// A mount of FUSE, as of sshfs: a sync there promises what somebody else keeps.
#[test]
fn a_directory_on_fuse_is_refused() {
    let mounted = std::env::temp_dir().join(format!("catchwater-fuse-{}", std::process::id()));
    let (under, at) = (mounted.join("under"), mounted.join("at"));
    for dir in [&under, &at] {
        std::fs::create_dir_all(dir).expect("a folder");
    }
    let mount = Command::new("bindfs").args([&under, &at]).output();
    if !mount.as_ref().is_ok_and(|out| out.status.success()) {
        return skip("storage_cli fuse", &format!("bindfs cannot mount here: {mount:?}"));
    }
    let dir = at.join("data").to_str().expect("utf-8").to_owned();
    let start = ["start", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", &dir];
    let judged = std::panic::catch_unwind(|| {
        let text = refused(&start, 3, "CW0222");
        assert!(text.contains("FUSE") && text.contains("storage.allow.unsafe.filesystem"), "{text}");
        assert!(std::fs::read_dir(&under).expect("a folder").next().is_none(), "nothing was made there");
    });
    let end = Command::new("fusermount").arg("-u").arg(&at).status();
    assert!(end.is_ok_and(|status| status.success()), "still mounted: {}", at.display());
    let _ = std::fs::remove_dir_all(&mounted);
    judged.unwrap_or_else(|why| std::panic::resume_unwind(why));
}

/// The newest journal file is cut at a block's boundary: nobody can say whose entries stood behind it, so nothing opens until
/// somebody says that it may.
#[test]
fn a_repair_lets_a_closed_directory_go_on() {
    let mut broker = filled(Settings::default());
    if broker.is_foreign() {
        return;
    }
    let data = broker.data_dir();
    let dir = data.to_str().expect("utf-8").to_owned();
    let (http, kafka) = ("127.0.0.1:0", "127.0.0.1:0");
    refused(&["storage", "repair", &dir], 3, "CW0201");
    // Everything in segments, then a death.
    broker.stop().expect("stop");
    broker.restart().expect("restart");
    broker.kill();
    let generation = |path: &Path| {
        let bytes = std::fs::read(path).expect("readable");
        let word: [u8; 8] = bytes[8..16].try_into().expect("eight bytes");
        (bytes.starts_with(b"CWJF")).then(|| u64::from_le_bytes(word))
    };
    let files = std::fs::read_dir(data.join("journal")).expect("a folder").flatten().map(|e| e.path());
    let newest = files.filter_map(|path| Some((generation(&path)?, path))).max().expect("a used file").1;
    let before = std::fs::read(&newest).expect("readable");
    let file = std::fs::OpenOptions::new().write(true).open(&newest).expect("opens");
    file.set_len(8192).expect("cut");

    refused(&["start", "--listen", kafka, "--http", http, "--data-dir", &dir], 1, "CW0203");
    let (exit, out) = json(&["-o", "json", "storage", "check", &dir]);
    assert_eq!((exit, out["error"]["code"].as_str()), (1, Some("CW0230")), "{out}");
    let (exit, out) = json(&["-o", "json", "storage", "repair", &dir]);
    let partitions = out["result"]["partitions"].as_array().expect("partitions").clone();
    assert_eq!((exit, &out["result"]["done"]), (0, &serde_json::json!(false)), "{out}");
    let ends: u64 = partitions.iter().filter_map(|p| p["end_offset"].as_u64()).filter(|end| *end >= 300).sum();
    assert!(ends == 1000 && partitions.iter().all(|p| p["verdict"] == "suspect"), "{out}");
    let text = String::from_utf8_lossy(&run(&["storage", "repair", &dir], "").stdout).into_owned();
    let lost = format!("lost: {} offset ", partitions[0]["gid"].as_str().expect("gid"));
    assert!(text.contains(&lost) && text.ends_with("Nothing was changed: --yes does it.\n"), "{text}");
    // It only looked.
    refused(&["start", "--listen", kafka, "--http", http, "--data-dir", &dir], 1, "CW0203");

    let (exit, out) = json(&["-o", "json", "storage", "repair", "--yes", &dir]);
    assert_eq!((exit, &out["result"]["done"]), (0, &serde_json::json!(true)), "{out}");
    let kept = out["result"]["kept_aside"].as_array().expect("names");
    let whole = |path: &str| std::fs::read(path).expect("kept").get(..8192) == before.get(..8192);
    assert!(kept.iter().filter_map(|k| k.as_str()).any(|k| k.contains(".wal") && whole(k)), "{out}");
    let (exit, out) = json(&["-o", "json", "storage", "repair", &dir]);
    assert_eq!((exit, &out["result"]["partitions"]), (0, &serde_json::json!([])), "{out}");

    broker.restart().expect("it opens");
    broker.kill();
    broker.restart().expect("and again after a death");
    broker.stop().expect("stop");
    let (exit, out) = json(&["-o", "json", "storage", "check", &dir]);
    assert_eq!(exit, 0, "{out}");
    let partitions = out["result"]["partitions"].as_array().expect("partitions").clone();
    let ends: u64 = partitions.iter().filter_map(|p| p["end_offset"].as_u64()).filter(|end| *end >= 300).sum();
    assert_eq!(ends, 1000, "{out}");
    assert!(partitions.iter().all(|p| p["verdict"] == "ok"), "{out}");
}

/// A log with a flipped byte in its middle and a cut end: the repair says which offsets are lost, gives up nothing else, and
/// who reads from the beginning goes over the holes, as over what compaction took.
#[test]
fn a_repair_cuts_out_what_is_damaged_and_the_rest_is_read() {
    let mut broker = filled(Settings::default());
    if broker.is_foreign() {
        return;
    }
    broker.stop().expect("stop");
    let data = broker.data_dir();
    let dir = data.to_str().expect("utf-8").to_owned();
    let log = largest(&data, ".log");
    let mut bytes = std::fs::read(&log).expect("readable");
    let (len, partition) = (bytes.len(), log.parent().expect("a folder").to_owned());
    bytes[len / 3] ^= 0x10;
    bytes.truncate(len - 20);
    std::fs::write(&log, &bytes).expect("written");

    let (exit, out) = json(&["-o", "json", "storage", "repair", &dir]);
    assert_eq!((exit, &out["result"]["done"]), (0, &serde_json::json!(false)), "{out}");
    let [named] = &out["result"]["partitions"].as_array().expect("partitions")[..] else { panic!("{out}") };
    let lost: Vec<(u64, u64)> = named["lost_offsets"]
        .as_array()
        .expect("ranges")
        .iter()
        .map(|r| (r["from"].as_u64().expect("from"), r["to"].as_u64().expect("to")))
        .collect();
    // Batches of fifty: one in the middle, and the last.
    assert_eq!(lost.iter().map(|(from, to)| to - from).collect::<Vec<_>>(), [50, 50], "{out}");
    assert_eq!(std::fs::read(&log).expect("readable"), bytes, "it only looked");
    let text = String::from_utf8_lossy(&run(&["storage", "repair", &dir], "").stdout).into_owned();
    assert!(text.contains(&format!("offsets {} to {} (50)", lost[0].0, lost[0].1 - 1)), "{text}");

    let (exit, out) = json(&["-o", "json", "storage", "repair", "--yes", &dir]);
    assert_eq!((exit, &out["result"]["done"]), (0, &serde_json::json!(true)), "{out}");
    let kept: Vec<PathBuf> = std::fs::read_dir(&partition).expect("a folder").flatten().map(|e| e.path()).collect();
    let same = |path: &PathBuf| std::fs::read(path).is_ok_and(|b| b == bytes);
    assert!(kept.iter().any(|p| p.to_string_lossy().ends_with(".aside") && same(p)), "{kept:?}");
    let (exit, out) = json(&["-o", "json", "storage", "check", &dir]);
    assert_eq!(exit, 0, "{out}");

    broker.restart().expect("it opens");
    let consume = |broker: &Broker| {
        let out = run(&["topic", "consume", "words", "-b", broker.kafka()], "");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).lines().filter(|l| l.contains("of a batch that has some length")).count()
    };
    assert_eq!(consume(&broker), 900, "all but the two batches");
    // Behind the hole at the end it goes on, and so it does after a death.
    let number = named["partition"].to_string();
    let more = "another line of a batch that has some length\n".repeat(10);
    let out = run(&["topic", "produce", "words", "-b", broker.kafka(), "-p", &number], &more);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(consume(&broker), 910);
    broker.kill();
    broker.restart().expect("and again after a death");
    assert_eq!(consume(&broker), 910);
    broker.stop().expect("stop");
    let (exit, out) = json(&["-o", "json", "storage", "check", &dir]);
    assert_eq!(exit, 0, "{out}");
    let partitions = out["result"]["partitions"].as_array().expect("partitions").clone();
    let ends: u64 = partitions.iter().filter_map(|p| p["end_offset"].as_u64()).filter(|end| *end >= 300).sum();
    assert_eq!(ends, 1010, "{out}");
}

/// A partition's directory is removed while the node is down. It never goes on as if it were new: the journal still has all of it, or
/// it stays closed until the repair, which takes its name from the cluster's own log and its end from the journal.
#[test]
fn a_partition_whose_directory_is_gone_gives_no_offset_twice() {
    let settings = Settings::default().with("storage.journal.file.bytes", "1048576").with("num.partitions", "1");
    let mut broker = Broker::start_with(settings);
    if broker.is_foreign() {
        return;
    }
    let data = broker.data_dir();
    let dir = data.to_str().expect("utf-8").to_owned();
    let produce = |broker: &Broker, lines: usize| {
        let text = format!("{}\n", "of a line that has some length ".repeat(300)).repeat(lines);
        let out = run(&["-o", "json", "topic", "produce", "words", "-b", broker.kafka(), "-p", "0"], &text);
        (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let consume = |broker: &Broker| {
        let out = run(&["-o", "json", "topic", "consume", "words", "-b", broker.kafka()], "");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let of = |l: &str| serde_json::from_str::<serde_json::Value>(l).ok()?["offset"].as_u64();
        text.lines().filter_map(of).collect::<Vec<u64>>()
    };
    assert!(produce(&broker, 10).0);
    broker.stop().expect("stop"); // so that it is in files
    std::fs::remove_dir_all(largest(&data, ".log").parent().expect("a folder")).expect("removed");
    broker.restart().expect("the journal has all of it");
    assert_eq!(consume(&broker), (0..10).collect::<Vec<u64>>());

    let mut end = 10;
    for _ in 0..2 {
        assert!(produce(&broker, 400).0);
        end += 400;
    }
    broker.kill();
    std::fs::remove_dir_all(largest(&data, ".log").parent().expect("a folder")).expect("removed");
    broker.restart().expect("the others open");
    assert!(!produce(&broker, 1).0, "it took a record, at an offset that was given before");
    broker.kill();
    let (exit, out) = json(&["-o", "json", "storage", "check", &dir]);
    assert_eq!(exit, 1, "{out}");
    let findings = out["error"]["details"]["findings"].as_array().expect("findings");
    assert!(findings.iter().any(|f| f["kind"] == "gone"), "{out}");
    let (exit, out) = json(&["-o", "json", "storage", "repair", "--yes", &dir]);
    let [named] = &out["result"]["partitions"].as_array().expect("partitions")[..] else { panic!("{out}") };
    let begins = named["log_start"].as_u64().expect("a number");
    assert_eq!((exit, named["end_offset"].as_u64()), (0, Some(end)), "{out}");
    assert!(begins > 10 && named["lost_offsets"] == serde_json::json!([{"from": 0, "to": begins}]), "{out}");

    broker.restart().expect("all open");
    assert_eq!(consume(&broker), (begins..end).collect::<Vec<u64>>());
    assert!(produce(&broker, 1).0);
    broker.kill();
    broker.restart().expect("and again after a death");
    assert_eq!(consume(&broker), (begins..=end).collect::<Vec<u64>>());
}

/// The points of a repair that its test passes; those of a partition that only begins anew are the same.
const REPAIR_POINTS: [&str; 7] = ["keep", "switch", "drop", "fill", "journal", "aside", "open"];

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        let (at, into) = (entry.path(), to.join(entry.file_name()));
        if at.is_dir() {
            copy(&at, &into)
        } else {
            let _ = std::fs::copy(&at, &into).expect("copied");
        }
    }
}

/// The repair dies at each of its named points. Run again, at once or behind a start, it comes to the same end: all but the two
/// damaged batches is read, and what was damaged is kept aside.
#[test]
fn a_repair_that_dies_at_a_named_point_is_run_again() {
    if !catchwater_tests::broker::has_crash_points("storage_cli repair points") {
        return;
    }
    let mut broker = filled(Settings::default());
    if broker.is_foreign() {
        return;
    }
    broker.stop().expect("stop");
    let data = broker.data_dir();
    let dir = data.to_str().expect("utf-8").to_owned();
    let log = largest(&data, ".log");
    let mut bytes = std::fs::read(&log).expect("readable");
    let len = bytes.len();
    bytes[len / 3] ^= 0x10;
    bytes.truncate(len - 20);
    std::fs::write(&log, &bytes).expect("written");
    let before = data.with_file_name("before");
    copy(&data, &before);
    let consume = |broker: &Broker| {
        let out = run(&["topic", "consume", "words", "-b", broker.kafka()], "");
        let lines = String::from_utf8_lossy(&out.stdout).lines().filter(|l| l.contains("of a batch")).count();
        (lines, out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let mut died = Vec::new();
    for (n, point) in
        REPAIR_POINTS.iter().flat_map(|p| ["before", "after"].map(|s| format!("repair.{s}_{p}"))).enumerate()
    {
        let out = Command::new(binary().expect("binary"))
            .args(["storage", "repair", "--yes", &dir])
            .env("CATCHWATER_CRASH_AT", &point)
            .output()
            .expect("runs");
        if out.status.code().is_none() {
            died.push(point.clone());
        }
        // Somebody may start the node instead of finishing the repair: it serves nothing wrong and takes nothing away.
        if n % 3 == 2 {
            broker.restart().unwrap_or_else(|e| panic!("{point}: {e:#}"));
            let (lines, ..) = consume(&broker);
            assert!(lines <= 900, "{point}: {lines} lines");
            if n % 2 == 0 { broker.kill() } else { broker.stop().expect("stop") }
        }
        let (exit, told) = json(&["-o", "json", "storage", "repair", "--yes", &dir]);
        assert_eq!(exit, 0, "{point}: {told}");
        let (exit, told) = json(&["-o", "json", "storage", "check", &dir]);
        assert_eq!(exit, 0, "{point}: {told}");
        broker.restart().unwrap_or_else(|e| panic!("{point}: {e:#}"));
        let (lines, well, why) = consume(&broker);
        assert!(lines == 900 && well, "{point}: {lines} lines, {why}");
        broker.kill();
        let kept = std::fs::read_dir(log.parent().expect("a folder")).expect("a folder").flatten().map(|e| e.path());
        let same =
            |path: PathBuf| path.to_string_lossy().ends_with(".aside") && std::fs::read(path).is_ok_and(|b| b == bytes);
        assert!(kept.into_iter().any(same), "{point}: the damaged file is not aside");
        std::fs::remove_dir_all(&data).expect("removed");
        copy(&before, &data);
    }
    let named = REPAIR_POINTS.len() * 2;
    assert_eq!(died.len(), named, "only {died:?}");
}

/// Two partitions of the same layout: each batch at the same offset, as long and in the same term.
fn twins() -> Option<(Broker, [PathBuf; 2])> {
    let mut broker = Broker::start_with(Settings::default().with("num.partitions", "1"));
    if broker.is_foreign() {
        return None;
    }
    for n in 0..6 {
        for topic in ["one", "two"] {
            let lines: String = (0..50).map(|i| format!("{topic} {n} {i} of a batch that has some length\n")).collect();
            let out = run(&["topic", "produce", topic, "-b", broker.kafka(), "-p", "0"], &lines);
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        }
    }
    broker.stop().expect("stop");
    let mut found = [PathBuf::new(), PathBuf::new()];
    for group in std::fs::read_dir(broker.data_dir().join("p")).expect("a folder").flatten() {
        let bytes = std::fs::read(group.path().join("00000000000000000000.log")).unwrap_or_default();
        for (at, topic) in ["one", "two"].iter().enumerate() {
            if bytes.windows(12).any(|w| w == format!("{topic} 0 0 of a").as_bytes()) {
                found[at] = group.path();
            }
        }
    }
    Some((broker, found))
}

/// Somebody restores the files of one partition into the directory of another. Its table says whose it is, and nothing is made again
/// from the batches beside it: they are another's.
#[test]
fn files_of_another_partition_are_not_served() {
    let Some((mut broker, [one, two])) = twins() else { return };
    let data = broker.data_dir();
    let dir = data.to_str().expect("utf-8").to_owned();
    for ext in ["log", "ent"] {
        let name = format!("00000000000000000000.{ext}");
        std::fs::copy(one.join(&name), two.join(&name)).expect("copied");
    }
    let consume = |broker: &Broker, topic: &str| {
        let out = run(&["topic", "consume", topic, "-b", broker.kafka()], "");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        (text.lines().filter(|l| l.contains(topic)).count(), text.lines().filter(|l| l.contains("of a batch")).count())
    };
    let (exit, out) = json(&["-o", "json", "storage", "check", &dir]);
    assert_eq!((exit, out["error"]["code"].as_str()), (1, Some("CW0230")), "{out}");
    broker.restart().expect("the other partition opens");
    assert_eq!(consume(&broker, "one"), (300, 300));
    let (own, all) = consume(&broker, "two");
    assert_eq!(own, all, "records of another partition were served");
    assert!(broker.log().contains("CW0208"), "{}", broker.log());
    broker.stop().expect("stop");
    let (exit, out) = json(&["-o", "json", "storage", "repair", "--yes", &dir]);
    assert_eq!(exit, 0, "{out}");
    broker.restart().expect("all open");
    let (own, all) = consume(&broker, "two");
    assert_eq!(own, all, "records of another partition were served");
    assert_eq!(consume(&broker, "one"), (300, 300));
}

/// Files that somebody made as long as a disk, and directories where files should be: said with a code, and nobody's memory is taken.
#[test]
fn files_that_cannot_be_ours_are_said() {
    let mut broker = filled(Settings::default());
    if broker.is_foreign() {
        return;
    }
    broker.stop().expect("stop");
    let data = broker.data_dir();
    let dir = data.to_str().expect("utf-8").to_owned();
    let group = largest(&data, ".log").parent().expect("a folder").to_owned();
    let before = data.with_file_name("before");
    copy(&data, &before);
    let wal = std::fs::read_dir(data.join("journal")).expect("a folder").flatten().next().expect("a file").path();
    let files = [
        group.join("00000000000000000000.ent"),
        group.join("manifest.a"),
        data.join("boot.state.a"),
        data.join("dir.meta.a"),
        wal,
    ];
    for (file, long) in files.iter().flat_map(|f| [(f, true), (f, false)]) {
        if long {
            let opened = std::fs::OpenOptions::new().write(true).open(file).expect("opens");
            opened.set_len(1 << 40).expect("a file may be as long as that here");
        } else {
            std::fs::remove_file(file).expect("removed");
            std::fs::create_dir(file).expect("made");
        }
        let what = format!("{} long={long}", file.display());
        for args in [vec!["storage", "check", &dir], vec!["storage", "dump", &dir], vec!["storage", "repair", &dir]] {
            let out = run(&args, "");
            let text = String::from_utf8_lossy(&out.stderr).into_owned();
            let exit = out.status.code().unwrap_or_else(|| panic!("{what}: {args:?} died: {text}"));
            assert!(!text.contains("panicked") && (exit == 0 || text.contains("error[CW")), "{what}: {args:?}: {text}");
        }
        match broker.restart() {
            Ok(()) => broker.stop().expect("stop"),
            Err(e) => assert!(format!("{e:#}").contains("error[CW0"), "{what}: {e:#}"),
        }
        std::fs::remove_dir_all(&data).expect("removed");
        copy(&before, &data);
    }
}
