//! A disk that fails: EIO once, then success again, at a write, a sync or a read; and a disk that is full.
//!
//! Once the node knows of a failed write or sync nothing that is sent later may be acknowledged, the process is offline within a second, and the
//! restart on the healed disk has everything. A failed read never ends in wrong bytes. On a full disk the broker lives, refuses,
//! serves readers, and takes writes again within five seconds of having space.

use super::image::Image;
use super::load::{Load, Shape};
use super::node::{Launch, Node, Started};
use super::strace::{Strace, time_of};
use super::{Outcome, Work};
use anyhow::{Context, Result, ensure};
use catchwater_base::Rng;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Where the error strikes, and whether the process must stop over it.
const CASES: [(&str, bool); 5] =
    [("pwrite64", true), ("fdatasync", true), ("pwritev", true), ("fsync", true), ("pread64", false)];
/// Longest time from the error to the end of the process.
const OFFLINE: Duration = Duration::from_secs(1);
/// Longest time from space to the first acknowledgement.
const RESUME: Duration = Duration::from_secs(5);

/// `faults` errors, one life each, on one log.
pub fn eio(seed: u64, faults: u32) -> Result<Outcome> {
    let work = Work::new("eio");
    let mut rng = Rng::new(seed);
    let mut load = Load::new(seed, Shape { value_bytes_max: 20_000, era_cycles: 6, ..Shape::default() });
    let mut node = Node::new(work.path(), &work.path().join("data"), super::power::small());
    let mut out = Outcome { seed, ..Outcome::default() };
    let (mut not_struck, mut slowest, mut slowest_heard) = (0, Duration::ZERO, Duration::ZERO);
    for fault in 0..faults {
        let (call, must_stop) = CASES[fault as usize % CASES.len()];
        let when = rng.between(1, if call == "pwrite64" || call == "pwritev" { 60 } else { 12 }) as u32;
        // What a life does not reach is tried again, earlier each time: the first call of a thread always comes.
        let mut when = when;
        loop {
            let name = format!("fault {fault}, {call}:{when}");
            let trace = Strace::new(&work.path().join("trace"), call).fail_at(call, "EIO", when);
            let _ = std::fs::remove_file(trace.out());
            let started = node.start(&Launch { env: Vec::new(), strace: Some(trace.clone()) })?;
            let mut ended_at = SystemTime::now();
            if matches!(started, Started::Ready) {
                *load.tally.last_ack_sent.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
                if !must_stop {
                    // Readers meet the error; what they get instead of bytes is judged below.
                    let _ = load.verify(node.kafka());
                }
                let pid = node.pid().unwrap_or_default();
                let until = Instant::now() + Duration::from_millis(1500);
                load.run(node.kafka(), &move || Instant::now() > until || super::kills::is_gone(pid));
                // The error may have struck just now.
                let _ = node.wait_end(if must_stop { OFFLINE } else { Duration::ZERO })?;
                ended_at = SystemTime::now();
            }
            let lived = node.alive();
            node.kill();
            let text = trace.read();
            let Some(struck) = text.lines().find(|l| l.contains("(INJECTED)")).and_then(time_of) else {
                not_struck += 1;
                ensure!(when > 1, "{name} was not reached: no life makes that call");
                when /= 2;
                continue;
            };
            out.faults += 1;
            let struck = SystemTime::UNIX_EPOCH + Duration::from_secs_f64(struck);
            if must_stop {
                let took = end_of(&text).unwrap_or(ended_at).duration_since(struck).unwrap_or_default();
                slowest = slowest.max(took);
                if lived || took > OFFLINE {
                    out.violations.push(format!("{name}: lives {took:?} after the error\n{}", node.log_tail()));
                }
                let last = *load.tally.last_ack_sent.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                // Between the stamp of strace, the call's entry, and the node's own word two tracer stops and the scheduler
                // lie: meanwhile other threads rightly acknowledge what the journal has made durable.
                let heard = heard(&node.log_since_start());
                slowest_heard =
                    slowest_heard.max(heard.and_then(|h| h.duration_since(struck).ok()).unwrap_or_default());
                let late = last.and_then(|sent| sent.duration_since(heard.unwrap_or(struck)).ok());
                if let Some(late) = late {
                    out.violations.push(format!(
                        "{name}: a batch sent {late:?} after the node knew of the error was acknowledged\n{}",
                        node.log_tail()
                    ));
                }
            } else if !lived && matches!(started, Started::Ready) {
                out.violations.push(format!("{name}: a failed read ended the process\n{}", node.log_tail()));
            }
            out.violations.extend(load.take_wrong().into_iter().map(|w| format!("{name}: {w}")));
            if let Err(e) = node.start_clean().and_then(|()| load.verify(node.kafka())) {
                out.violations.push(format!("{name}, after it: {e:#}"));
            }
            node.kill();
            out.violations.extend(load.take_wrong().into_iter().map(|w| format!("{name}, after it: {w}")));
            break;
        }
        if out.violations.len() > 20 {
            break;
        }
    }
    out.acked = load.tally.acked.load(Ordering::Relaxed);
    out.compared = load.tally.compared.load(Ordering::Relaxed);
    out.note("lives that did not reach their error, tried again", not_struck);
    out.note("slowest end after an error, ms", slowest.as_millis());
    out.note("slowest to know of it, ms", slowest_heard.as_millis());
    Ok(out)
}

/// When a node said that its disk failed, which it does once nothing more is acknowledged: the end of that millisecond.
fn heard(log: &str) -> Option<SystemTime> {
    let line = log.lines().find(|l| l.contains("\"event\":\"disk.failed\""))?;
    let ms: u64 = line.split_once("\"ts_ms\":")?.1.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_millis(ms + 1))
}

/// An error at each of the first writes and syncs of a first start and of a later one: the start ends with a code of its own,
/// soon, and the next one works. Returns what did not.
pub fn at_start(limit: Duration) -> Result<Outcome> {
    let work = Work::new("start");
    let mut out = Outcome::default();
    let mut slowest = Duration::ZERO;
    for (call, most) in [("pwrite64", 4), ("pwritev", 6), ("fdatasync", 6), ("fsync", 5)] {
        for when in 1..=most {
            let name = format!("{call}:{when}");
            let _ = std::fs::remove_dir_all(work.path().join("data"));
            let mut node = Node::new(work.path(), &work.path().join("data"), super::power::small());
            let trace = Strace::new(&work.path().join("trace"), call).fail_at(call, "EIO", when);
            let from = Instant::now();
            let ended = match node.start(&Launch { env: Vec::new(), strace: Some(trace.clone()) })? {
                Started::Ended(status) => Some(status),
                Started::Ready => node.wait_end(limit)?,
            };
            let took = from.elapsed();
            node.kill();
            if !trace.read().contains("(INJECTED)") {
                continue;
            }
            out.faults += 1;
            slowest = slowest.max(took);
            // 1 and 3: a failure that is said, with its code. 101 would be a panic.
            if !ended.is_some_and(|s| matches!(s.code(), Some(1 | 3))) || took > limit {
                out.violations.push(format!("{name}: {ended:?} after {took:?}"));
            }
            if let Err(e) = node.start_clean() {
                out.violations.push(format!("{name}: the next start: {e:#}"));
            }
        }
    }
    out.note("slowest end, ms", slowest.as_millis());
    Ok(out)
}

/// When the last thread of a trace ended.
fn end_of(trace: &str) -> Option<SystemTime> {
    let line = trace.lines().rev().find(|l| l.contains("+++ exited") || l.contains("+++ killed"))?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(time_of(line)?))
}

/// `cycles` times: the disk fills up under load, stays full for a while (every third time over a restart), has space again.
pub fn full(seed: u64, cycles: u32) -> Result<Outcome> {
    let work = Work::new("full");
    let image = Image::make(work.path(), 64)?;
    let mut load = Load::new(seed, Shape { value_bytes_max: 20_000, era_cycles: 4, ..Shape::default() });
    let mut node = Node::new(work.path(), &image.path().join("data"), super::power::small());
    let mut out = Outcome { seed, ..Outcome::default() };
    let mut slowest = Duration::ZERO;
    node.start_clean()?;
    for cycle in 0..cycles {
        let name = format!("full {cycle}");
        let until = Instant::now() + Duration::from_millis(300);
        load.run(node.kafka(), &move || Instant::now() > until);
        image.fill()?;
        let (before, tally) = (refusals(&load), load.tally.clone());
        let until = Instant::now() + Duration::from_secs(3);
        load.run(node.kafka(), &move || {
            let n = tally.refused.load(Ordering::Relaxed) + tally.unknown.load(Ordering::Relaxed);
            Instant::now() > until || n > before + 20
        });
        if refusals(&load) == before {
            out.note("cycles without a refusal", cycle);
        } else {
            out.faults += 1;
        }
        if !node.alive() {
            out.violations.push(format!("{name}: the broker ended\n{}", node.log_tail()));
            node.kill();
        } else if let Err(e) = load.verify(node.kafka()) {
            out.violations.push(format!("{name}: readers are not served: {e:#}"));
        }
        if cycle % 3 == 2 || !node.alive() {
            node.kill();
            match node.start_clean() {
                Ok(()) => {
                    if let Err(e) = load.verify(node.kafka()) {
                        out.violations.push(format!("{name}, started while full: {e:#}"));
                    }
                }
                Err(e) => out.violations.push(format!("{name}: does not start while full: {e:#}")),
            }
        }
        image.drain()?;
        if !node.alive() {
            node.start_clean()?;
        }
        let (from, acked, tally) = (Instant::now(), load.tally.acked.load(Ordering::Relaxed), load.tally.clone());
        let again = AtomicBool::new(false);
        load.run(node.kafka(), &|| {
            again.store(tally.acked.load(Ordering::Relaxed) > acked, Ordering::Relaxed);
            again.load(Ordering::Relaxed) || from.elapsed() > RESUME * 2
        });
        let took = from.elapsed();
        slowest = slowest.max(took);
        if !again.load(Ordering::Relaxed) || took > RESUME {
            out.violations.push(format!("{name}: nothing acknowledged {took:?} after space returned"));
        }
        out.violations.extend(load.take_wrong().into_iter().map(|w| format!("{name}: {w}")));
        if out.violations.len() > 20 {
            break;
        }
    }
    node.kill();
    node.start_clean()?;
    load.verify(node.kafka())?;
    out.violations.extend(load.take_wrong().into_iter().map(|w| format!("at the end: {w}")));
    node.kill();
    out.acked = load.tally.acked.load(Ordering::Relaxed);
    out.compared = load.tally.compared.load(Ordering::Relaxed);
    out.note("slowest resume, ms", slowest.as_millis());
    Ok(out)
}

/// `cycles` times: under load the process may open nothing more for a while (its soft limit is lowered to what it has open),
/// then may again. It lives, loses nothing, and takes writes once it may.
pub fn descriptors(seed: u64, cycles: u32) -> Result<Outcome> {
    let work = Work::new("descriptors");
    let mut load = Load::new(seed, Shape { value_bytes_max: 20_000, era_cycles: 2, ..Shape::default() });
    let mut node = Node::new(work.path(), &work.path().join("data"), super::power::small());
    let mut out = Outcome { seed, ..Outcome::default() };
    for cycle in 0..cycles {
        let name = format!("descriptors {cycle}");
        let trace = Strace::new(&work.path().join("trace"), "open,openat,accept,accept4");
        let _ = std::fs::remove_file(trace.out());
        match node.start(&Launch { env: Vec::new(), strace: Some(trace.clone()) })? {
            Started::Ready => {}
            Started::Ended(status) => anyhow::bail!("{name}: does not start ({status}): {}", node.log_tail()),
        }
        load.verify(node.kafka())?;
        let pid = node.pid().context("a process")?;
        let whole = limit(pid, None)?;
        let (from, state) = (Instant::now(), AtomicU32::new(0));
        load.run(node.kafka(), &|| {
            let now = from.elapsed();
            if now > Duration::from_millis(300) && state.load(Ordering::Relaxed) == 0 {
                state.store(1, Ordering::Relaxed);
                let open = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
                let _ = limit(pid, Some(open as u64));
            }
            now > Duration::from_millis(1500)
        });
        let lived = node.alive();
        if lived {
            limit(pid, whole)?;
        }
        let acked = load.tally.acked.load(Ordering::Relaxed);
        if lived {
            let (until, tally) = (Instant::now() + RESUME, load.tally.clone());
            load.run(node.kafka(), &move || Instant::now() > until || tally.acked.load(Ordering::Relaxed) > acked);
        }
        if !lived || !node.alive() {
            out.violations.push(format!("{name}: the broker ended\n{}", node.log_tail()));
        } else if load.tally.acked.load(Ordering::Relaxed) == acked {
            out.violations.push(format!("{name}: nothing acknowledged {RESUME:?} after it may open files again"));
        } else if let Err(e) = load.verify(node.kafka()) {
            out.violations.push(format!("{name}: {e:#}"));
        }
        node.kill();
        out.faults += trace.read().matches("EMFILE").count() as u64;
        node.start_clean()?;
        load.verify(node.kafka())?;
        node.stop()?;
        out.violations.extend(load.take_wrong().into_iter().map(|w| format!("{name}: {w}")));
        if out.violations.len() > 20 {
            break;
        }
    }
    out.acked = load.tally.acked.load(Ordering::Relaxed);
    out.compared = load.tally.compared.load(Ordering::Relaxed);
    out.note("cycles", cycles);
    Ok(out)
}

/// The soft limit of open files before; sets it if told.
fn limit(pid: u32, to: Option<u64>) -> Result<Option<u64>> {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process")?;
    let text = std::fs::read_to_string(format!("/proc/{}/limits", pid.as_raw_nonzero()))?;
    let line = text.lines().find(|l| l.starts_with("Max open files")).context("a limit")?;
    let mut numbers = line.split_whitespace().filter_map(|w| w.parse::<u64>().ok());
    let (soft, hard) = (numbers.next(), numbers.next());
    if let Some(to) = to {
        prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(to), maximum: hard })?;
    }
    Ok(soft)
}

/// `cycles` lives on a disk where every seventh call of one kind takes 300 ms (a read 20 ms), each ended by `kill -9` under load: slow, but
/// alive, going on, and nothing lost.
pub fn slow(seed: u64, cycles: u32) -> Result<Outcome> {
    let work = Work::new("slow");
    let mut load = Load::new(seed, Shape { value_bytes_max: 20_000, era_cycles: 6, ..Shape::default() });
    let mut node = Node::new(work.path(), &work.path().join("data"), super::power::small());
    let mut out = Outcome { seed, ..Outcome::default() };
    let calls = ["pwrite64", "fdatasync", "pwritev", "fsync", "pread64"];
    for cycle in 0..cycles {
        let call = calls[cycle as usize % calls.len()];
        // A fetch of a cold log makes hundreds of reads, and clients wait ten seconds.
        let delay = Duration::from_millis(if call == "pread64" { 20 } else { 300 });
        let name = format!("slow {cycle}, {call}");
        let trace = Strace::new(&work.path().join("trace"), call).slow(call, delay);
        let _ = std::fs::remove_file(trace.out());
        match node.start(&Launch { env: Vec::new(), strace: Some(trace.clone()) })? {
            Started::Ready => {}
            Started::Ended(status) => anyhow::bail!("{name}: does not start ({status}): {}", node.log_tail()),
        }
        load.verify(node.kafka())?;
        let acked = load.tally.acked.load(Ordering::Relaxed);
        let until = Instant::now() + Duration::from_secs(3);
        load.run(node.kafka(), &move || Instant::now() > until);
        if !node.alive() {
            out.violations.push(format!("{name}: the broker ended\n{}", node.log_tail()));
        } else if load.tally.acked.load(Ordering::Relaxed) == acked {
            out.violations.push(format!("{name}: nothing acknowledged in three seconds"));
        }
        node.kill();
        out.faults += trace.read().matches("(DELAYED)").count() as u64;
        node.start_clean()?;
        load.verify(node.kafka())?;
        node.kill();
        out.violations.extend(load.take_wrong().into_iter().map(|w| format!("{name}: {w}")));
        if out.violations.len() > 20 {
            break;
        }
    }
    out.acked = load.tally.acked.load(Ordering::Relaxed);
    out.compared = load.tally.compared.load(Ordering::Relaxed);
    out.note("lives", cycles);
    Ok(out)
}

fn refusals(load: &Load) -> u64 {
    load.tally.refused.load(Ordering::Relaxed) + load.tally.unknown.load(Ordering::Relaxed)
}
