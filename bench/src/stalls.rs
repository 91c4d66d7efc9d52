//! `stalls`: does the journal ever hold a producer up? (F13 of the scoreboard, the half that is about time.)
//!
//! Producers send batches of 64 KiB at a fixed pace, half of what the disk took from the probe in the same minute; the time from
//! a batch's turn to its answer is kept of each. A batch whose turn comes while the broker is slow still counts from its turn, so a
//! stall is not hidden by the producer waiting with it. The probe writes alike, without a broker, before and after:
//! a machine that stops for 100 ms stops both.

use crate::limits::{Folder, How, Ring};
use crate::load::{Admin, batch, code, produce_frame};
use crate::{cpu_seconds, quantile, setting};
use anyhow::{Context, Result, ensure};
use catchwater_tests::broker::{Broker, buckets};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};

const BATCH_BYTES: usize = 64 << 10;
/// What counts as a stall.
const STALL: Duration = Duration::from_millis(100);
const PRODUCERS: usize = 4;
const PARTITIONS: i32 = 8;
/// Batches of one producer without an answer; beyond it the sender waits, and its batches' turns pass.
const UNANSWERED_MAX: usize = 64;

pub fn stalls() -> Result<Value> {
    let seconds = setting("CW_SECONDS", 60);
    let folder = Folder::new("stalls")?;
    let probe_time = Duration::from_millis(setting("CW_PROBE_MS", 2000));
    let before = Ring::new(&folder.0, How::Direct)?.run(BATCH_BYTES, probe_time)?;
    let pace = setting("CW_PACE_MB", (before.mb_per_s / 2.0) as u64).max(1) as f64 * 1e6;
    let broker = Broker::start();
    let pid = broker.pid().context("running")?;
    let mut admin = Admin::connect(broker.kafka())?;
    admin.create("stalls", PARTITIONS, &[("retention.bytes", "268435456"), ("segment.bytes", "67108864")])?;
    let (from, cpu) = (Instant::now(), cpu_seconds(pid));
    let each = Duration::from_secs_f64(BATCH_BYTES as f64 * PRODUCERS as f64 / pace);
    let mut took: Vec<f64> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..PRODUCERS)
            .map(|n| {
                let address = broker.kafka();
                scope.spawn(move || producer(address, n as i32, each, Duration::from_secs(seconds)))
            })
            .collect();
        all.into_iter().try_fold(Vec::new(), |mut sum, one| {
            sum.extend(one.join().map_err(|_| anyhow::anyhow!("a producer panicked"))??);
            anyhow::Ok(sum)
        })
    })?;
    let (ran, cpu) = (from.elapsed().as_secs_f64(), cpu_seconds(pid) - cpu);
    let flushes = buckets(broker.http(), "catchwater_journal_flush_seconds");
    let after = Ring::new(&folder.0, How::Direct)?.run(BATCH_BYTES, probe_time)?;
    took.sort_by(f64::total_cmp);
    let slow = |below: f64| flushes.iter().filter(|(le, _)| *le <= below).map(|(_, n)| *n).fold(0.0, f64::max);
    let count = flushes.iter().map(|(_, n)| *n).fold(0.0, f64::max);
    let sent = took.len() as f64 * BATCH_BYTES as f64;
    Ok(json!({
        "bench": "stalls", "seconds": ran, "pace_mb_per_s": pace / 1e6, "sent_mb_per_s": sent / 1e6 / ran,
        "probe_mb_per_s": [before.mb_per_s, after.mb_per_s], "probe_longest_ms": [before.longest_us / 1e3, after.longest_us / 1e3],
        "batches": took.len(), "answers_over_100_ms": took.iter().filter(|ms| **ms > STALL.as_secs_f64() * 1e3).count(),
        "answer_ms": { "p50": quantile(&took, 0.5), "p99": quantile(&took, 0.99), "p999": quantile(&took, 0.999), "max": took.last() },
        "journal_flushes": count, "journal_flushes_over_100_ms": count - slow(0.1), "over_25_ms": count - slow(0.025),
        "cpu_s_per_gb": cpu / (sent / 1e9),
    }))
}

/// Milliseconds from each batch's turn to its answer.
fn producer(address: &str, number: i32, each: Duration, limit: Duration) -> Result<Vec<f64>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut answers = stream.try_clone()?;
    let (turns, due) = mpsc::sync_channel::<Instant>(UNANSWERED_MAX);
    let reader = std::thread::spawn(move || -> Result<Vec<f64>> {
        let (mut took, mut reply) = (Vec::new(), Vec::new());
        for (n, turn) in due.iter().enumerate() {
            let mut length = [0; 4];
            answers.read_exact(&mut length)?;
            let length = u32::from_be_bytes(length) as usize;
            ensure!(length < 4096, "an answer of {length} bytes");
            reply.resize(length, 0);
            answers.read_exact(&mut reply)?;
            let code = code(&reply, i32::try_from(n + 1)?)?;
            ensure!(code == 0, "error {code}");
            took.push(turn.elapsed().as_secs_f64() * 1e3);
        }
        Ok(took)
    });
    let (mut frame, index_at) = produce_frame("stalls", &batch(BATCH_BYTES))?;
    let from = Instant::now();
    // Producers take turns within one interval, so that the pace is even.
    let mut turn = from + each * number.unsigned_abs() / PRODUCERS as u32;
    let mut sent = 0i32;
    while turn < from + limit {
        std::thread::sleep(turn.saturating_duration_since(Instant::now()));
        sent += 1;
        frame[8..12].copy_from_slice(&sent.to_be_bytes());
        frame[index_at..index_at + 4].copy_from_slice(&((sent + number) % PARTITIONS).to_be_bytes());
        // The reader is gone only with an error of its own.
        if turns.send(turn).is_err() || stream.write_all(&frame).is_err() {
            break;
        }
        turn += each;
    }
    drop(turns);
    reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))?
}
