//! A broker under steady load for minutes: memory, descriptors and threads must not grow once it is warm.
//!
//! Descriptors: the broker keeps the files of its segments open, so their number is a saw as topics roll and go, up to half of
//! what the process may open (the disk's cache). A leak is what is beyond that: a second descriptor of one file, one of a
//! file that is gone, a socket, an event. Those are what is judged; how many there were at most is said too.

use super::load::{Load, Shape};
use super::node::Node;
use super::{Outcome, Work};
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Of RSS, in percent of its size per minute.
const SLOPE_MAX: f64 = 0.2;

#[derive(Clone, Copy, Debug)]
struct Sample {
    minutes: f64,
    rss: f64,
    descriptors: f64,
    /// Beyond one for each file that is open and still there.
    beyond: f64,
    threads: f64,
}

fn sample(pid: u32, from: Instant) -> Result<Sample> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the process")?;
    let field = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|v| v.parse::<f64>().ok()).unwrap_or_default()
    };
    let (mut descriptors, mut files) = (0, BTreeSet::new());
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        descriptors += 1;
        files.extend(std::fs::read_link(entry.path()).ok().filter(|target| target.is_file()));
    }
    let beyond = f64::from(descriptors) - files.len() as f64;
    Ok(Sample {
        minutes: from.elapsed().as_secs_f64() / 60.0,
        rss: field("VmRSS:"),
        descriptors: f64::from(descriptors),
        beyond,
        threads: field("Threads:"),
    })
}

/// Least squares: growth per minute.
fn slope(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let n = samples.len().max(1) as f64;
    let (mx, my) = (samples.iter().map(|s| s.minutes).sum::<f64>() / n, samples.iter().map(&of).sum::<f64>() / n);
    let (mut up, mut down) = (0.0, 0.0);
    for s in samples {
        up += (s.minutes - mx) * (of(s) - my);
        down += (s.minutes - mx).powi(2);
    }
    if down > 0.0 { up / down } else { 0.0 }
}

/// Descriptors by what they are open on: endings of files, else the kind the kernel names.
fn kinds(pid: u32) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        let text = target.to_string_lossy();
        let kind = match target.extension() {
            Some(ending) if text.starts_with('/') => format!(".{}", ending.to_string_lossy()),
            _ => text.split(":[").next().unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned(),
        };
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

/// Cycles until topics are replaced.
const ERA_CYCLES: u32 = 6;
const CYCLE: Duration = Duration::from_secs(5);

/// `seconds` of load over topics that roll, trim, come and go; the last seven ninths are judged.
pub fn run(seed: u64, seconds: u32) -> Result<Outcome> {
    let work = Work::new("soak");
    let shape = Shape { producers: 4, value_bytes_max: 8_000, era_cycles: ERA_CYCLES, ..Shape::default() };
    let mut load = Load::new(seed, shape);
    let mut node = Node::new(work.path(), &work.path().join("data"), super::power::small());
    node.start_clean()?;
    let pid = node.pid().context("a process")?;
    let (from, total) = (Instant::now(), Duration::from_secs(u64::from(seconds)));
    let (mut samples, mut out) = (Vec::new(), Outcome { seed, ..Outcome::default() });
    let (mut first, mut last) = (BTreeMap::new(), BTreeMap::new());
    let taken = Mutex::new(Vec::new());
    while from.elapsed() < total {
        let until = Instant::now() + CYCLE;
        let next = Mutex::new(Instant::now() + Duration::from_millis(500));
        load.run(node.kafka(), &|| {
            let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
            if Instant::now() > *next {
                *next += Duration::from_millis(500);
                taken.lock().unwrap_or_else(PoisonError::into_inner).extend(sample(pid, from));
            }
            Instant::now() > until
        });
        out.faults += 1;
        out.violations.extend(load.take_wrong());
        let new = std::mem::take(&mut *taken.lock().unwrap_or_else(PoisonError::into_inner));
        if from.elapsed() > total * 2 / 9 {
            samples.extend(new);
            last = kinds(pid);
            if first.is_empty() {
                first.clone_from(&last);
            }
        }
    }
    load.verify(node.kafka())?;
    out.violations.extend(load.take_wrong());
    let mean = samples.iter().map(|s| s.rss).sum::<f64>() / samples.len().max(1) as f64;
    let rss = slope(&samples, |s| s.rss) / mean.max(1.0) * 100.0;
    let (descriptors, threads) = (slope(&samples, |s| s.beyond), slope(&samples, |s| s.threads));
    let most = |of: fn(&Sample) -> f64| samples.iter().map(of).fold(0.0, f64::max);
    if rss > SLOPE_MAX {
        out.violations.push(format!("resident memory grows by {rss:.2} % a minute"));
    }
    // Connections come and go: below one in five minutes is none.
    if descriptors > 0.2 || threads > 0.2 {
        out.violations.push(format!(
            "a minute brings {descriptors:.2} descriptors beyond the files there are and {threads:.2} threads; first {first:?}, last {last:?}"
        ));
    }
    out.acked = load.tally.acked.load(Ordering::Relaxed);
    out.compared = load.tally.compared.load(Ordering::Relaxed);
    out.note("minutes", format!("{:.1}", f64::from(seconds) / 60.0));
    out.note("RSS, MiB", format!("{:.0}", mean / 1024.0));
    out.note("RSS, % a minute", format!("{rss:.3}"));
    out.note("descriptors, most", format!("{:.0}", most(|s| s.descriptors)));
    out.note("of them beyond one for each file there is, most", format!("{:.0}", most(|s| s.beyond)));
    out.note("of these, more a minute", format!("{descriptors:.2}"));
    out.note("threads a minute", format!("{threads:.2}"));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_slope() {
        let at = |m: f64| Sample { minutes: m, rss: 100.0 + 3.0 * m, descriptors: 7.0, beyond: 7.0, threads: 1.0 };
        let samples: Vec<Sample> = (0..10).map(|m| at(f64::from(m))).collect();
        assert!((slope(&samples, |s| s.rss) - 3.0).abs() < 1e-9);
        assert!(slope(&samples, |s| s.descriptors).abs() < 1e-9);
    }

    /// A second descriptor of a file that is open, and one of a file that is gone, count; the first of each file does not.
    #[test]
    fn what_is_beyond_the_files_there_are_is_counted() {
        let work = Work::new("beyond");
        let (here, gone) = (work.path().join("here"), work.path().join("gone"));
        std::fs::write(&here, b"x").expect("a file");
        std::fs::write(&gone, b"x").expect("a file");
        let of = |opens: &str| {
            let mut child = std::process::Command::new("sh")
                .args(["-c", &format!("exec {opens}; echo ready; read line")])
                .args([&here, &gone])
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::null())
                .spawn()
                .expect("a shell");
            let mut ready = [0; 6];
            std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut ready).expect("its word");
            let s = sample(child.id(), Instant::now()).expect("it lives");
            drop(child.stdin.take());
            child.wait().expect("it ends");
            (s.descriptors, s.beyond)
        };
        // What a shell inherits is counted in both.
        let none = of("3<&- 4<&- 5<&-");
        let three = of("3<\"$0\" 4<\"$0\" 5<\"$1\"; rm \"$1\"");
        // One of the two on `here`, and the one on `gone`.
        assert_eq!((three.0 - none.0, three.1 - none.1), (3.0, 2.0));
    }
}
