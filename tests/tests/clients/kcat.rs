//! kcat (W1): produces and reads back, bytes equal.

use std::io::Write;
use std::process::{Command, Stdio};

use catchwater_tests::broker::{Broker, unique};
use catchwater_tests::skip;

fn installed() -> bool {
    let found = Command::new("kcat").arg("-V").output().is_ok();
    if !found {
        skip("kcat", "not installed");
    }
    found
}

/// Runs kcat with `input` on its standard input; its standard output.
fn kcat(broker: &Broker, args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("timeout")
        .args(["60", "kcat", "-b", broker.kafka()])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&input));
    let out = child.wait_with_output().unwrap();
    let _ = feeder.join();
    assert!(out.status.success(), "kcat {args:?}: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr));
    out.stdout
}

#[test]
fn w1_kcat_produces_and_reads_back_with_every_codec_and_acks() {
    if !installed() {
        return;
    }
    let broker = Broker::start();
    let lines: String = (0..500).map(|i| format!("key-{i}\tvalue {i} {}\n", "ä✓".repeat(i % 50))).collect();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        for acks in ["1", "-1"] {
            let topic = unique("kcat");
            kcat(
                &broker,
                &["-P", "-t", &topic, "-K", "\\t", "-z", codec, "-X", &format!("acks={acks}")],
                lines.as_bytes(),
            );
            let got = kcat(&broker, &["-C", "-t", &topic, "-o", "beginning", "-e", "-q", "-f", "%k\t%s\n"], b"");
            assert!(got == lines.as_bytes(), "{codec} acks={acks}: other bytes came back");
        }
    }
}

#[test]
fn kcat_acks_0_headers_and_the_end_of_a_partition() {
    if !installed() {
        return;
    }
    let broker = Broker::start();
    // The client is gone the moment it has sent, with replies unread, which resets the connection: what reached us counts.
    let topic = unique("kcat");
    kcat(&broker, &["-P", "-t", &topic, "-X", "acks=0"], b"one\ntwo\nthree\n");
    let read = || kcat(&broker, &["-C", "-t", &topic, "-o", "beginning", "-e", "-q"], b"");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while read() != b"one\ntwo\nthree\n" {
        assert!(std::time::Instant::now() < deadline, "acks=0 records arrive");
    }
    kcat(&broker, &["-P", "-t", &topic, "-H", "h=1", "-H", "h=2", "-H", "empty="], b"four\n");
    let got = kcat(&broker, &["-C", "-t", &topic, "-o", "3", "-c", "1", "-q", "-f", "%o %h %s\n"], b"");
    assert_eq!(String::from_utf8(got).unwrap(), "3 h=1,h=2,empty= four\n");
    let last = kcat(&broker, &["-C", "-t", &topic, "-o", "-2", "-e", "-q"], b"");
    assert_eq!(last, b"three\nfour\n");
    let listed = kcat(&broker, &["-L", "-J"], b"");
    let json: serde_json::Value = serde_json::from_slice(&listed).unwrap();
    assert!(json["topics"].as_array().unwrap().iter().any(|t| t["topic"] == topic.as_str()));
}

#[test]
fn w2_a_group_commits_the_broker_is_killed_and_the_group_resumes() {
    if !installed() {
        return;
    }
    let mut broker = Broker::start();
    let (topic, group) = (unique("kcat"), unique("group"));
    kcat(&broker, &["-P", "-t", &topic], b"1\n2\n3\n");
    let read = |broker: &Broker, n: &str| {
        kcat(broker, &["-G", &group, "-c", n, "-q", "-X", "auto.offset.reset=earliest", &topic], b"")
    };
    assert_eq!(read(&broker, "3"), b"1\n2\n3\n");
    if !broker.is_foreign() {
        broker.kill();
        broker.restart().expect("starts again on the same data");
    }
    kcat(&broker, &["-P", "-t", &topic], b"4\n5\n");
    assert_eq!(read(&broker, "2"), b"4\n5\n", "the group goes on where it stopped");
}
