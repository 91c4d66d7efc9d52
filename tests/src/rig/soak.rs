//! A broker under steady load for minutes: memory, descriptors and threads must not grow once it is warm.

use super::load::{Load, Shape};
use super::node::Node;
use super::{Outcome, Work};
use anyhow::{Context, Result};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Of RSS, in percent of its size per minute.
const SLOPE_MAX: f64 = 0.2;

#[derive(Clone, Copy, Debug)]
struct Sample {
    minutes: f64,
    rss: f64,
    descriptors: f64,
    threads: f64,
}

fn sample(pid: u32, from: Instant) -> Result<Sample> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the process")?;
    let field = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|v| v.parse::<f64>().ok()).unwrap_or_default()
    };
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as f64;
    Ok(Sample {
        minutes: from.elapsed().as_secs_f64() / 60.0,
        rss: field("VmRSS:"),
        descriptors,
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

/// `seconds` of load over topics that roll, trim, come and go; the last seven ninths are judged.
pub fn run(seed: u64, seconds: u32) -> Result<Outcome> {
    let work = Work::new("soak");
    let shape = Shape { producers: 4, value_bytes_max: 8_000, era_cycles: 6, ..Shape::default() };
    let mut load = Load::new(seed, shape);
    let mut node = Node::new(work.path(), &work.path().join("data"), super::power::small());
    node.start_clean()?;
    let pid = node.pid().context("a process")?;
    let (from, total) = (Instant::now(), Duration::from_secs(u64::from(seconds)));
    let (mut samples, mut out) = (Vec::new(), Outcome { seed, ..Outcome::default() });
    while from.elapsed() < total {
        let until = Instant::now() + Duration::from_secs(5);
        load.run(node.kafka(), &move || Instant::now() > until);
        out.faults += 1;
        out.violations.extend(load.take_wrong());
        if from.elapsed() > total * 2 / 9 {
            samples.push(sample(pid, from)?);
        }
    }
    load.verify(node.kafka())?;
    out.violations.extend(load.take_wrong());
    let mean = samples.iter().map(|s| s.rss).sum::<f64>() / samples.len().max(1) as f64;
    let rss = slope(&samples, |s| s.rss) / mean.max(1.0) * 100.0;
    let (descriptors, threads) = (slope(&samples, |s| s.descriptors), slope(&samples, |s| s.threads));
    if rss > SLOPE_MAX {
        out.violations.push(format!("resident memory grows by {rss:.2} % a minute"));
    }
    // Connections come and go: below one in five minutes is none.
    if descriptors > 0.2 || threads > 0.2 {
        out.violations.push(format!("a minute brings {descriptors:.2} descriptors and {threads:.2} threads"));
    }
    out.acked = load.tally.acked.load(Ordering::Relaxed);
    out.compared = load.tally.compared.load(Ordering::Relaxed);
    out.note("minutes", format!("{:.1}", f64::from(seconds) / 60.0));
    out.note("RSS, MiB", format!("{:.0}", mean / 1024.0));
    out.note("RSS, % a minute", format!("{rss:.3}"));
    out.note("descriptors a minute", format!("{descriptors:.2}"));
    out.note("threads a minute", format!("{threads:.2}"));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_slope() {
        let at = |m: f64| Sample { minutes: m, rss: 100.0 + 3.0 * m, descriptors: 7.0, threads: 1.0 };
        let samples: Vec<Sample> = (0..10).map(|m| at(f64::from(m))).collect();
        assert!((slope(&samples, |s| s.rss) - 3.0).abs() < 1e-9);
        assert!(slope(&samples, |s| s.descriptors).abs() < 1e-9);
    }
}
