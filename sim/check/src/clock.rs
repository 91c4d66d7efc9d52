//! Pure. Real time: what was known before an operation began must hold in its answer.

use crate::anomaly::{Kind, Report};
use crate::checker::{Bounds, NEVER, Partition};
use crate::history::{Micros, Outcome};
use crate::log::{Index, id};

pub(crate) fn judge(p: &Partition, index: &Index, names: &[&str], final_at: Option<Micros>, report: &mut Report) {
    watermarks(p, names, report);
    ends(p, names, report);
    log_start(p, report);
    vanished(p, index, names, final_at, report);
}

/// Each observer by himself; he asks one thing after the other.
fn watermarks(p: &Partition, names: &[&str], report: &mut Report) {
    let mut all: Vec<&Bounds> = p.bounds.iter().collect();
    all.sort_by_key(|b| (b.process, b.at, b.line));
    let mut before: (u32, [u64; 3]) = (u32::MAX, [0; 3]);
    for b in all {
        if b.process != before.0 {
            before = (b.process, [0; 3]);
        }
        for (n, (what, now)) in [("log start", b.log_start), ("last stable offset", b.lso), ("high watermark", b.hw)]
            .into_iter()
            .enumerate()
        {
            let Some(now) = now else { continue };
            if now < before.1[n] {
                let was = before.1[n];
                report.add(Kind::WatermarkBack, || {
                    let who = names.get(b.process as usize).unwrap_or(&"?");
                    format!("{} line {}: for {who} the {what} fell from {was} to {now}", p.name, b.line)
                });
            }
            before.1[n] = before.1[n].max(now);
        }
        let chain: Vec<u64> = [b.log_start, b.lso, b.hw].into_iter().flatten().collect();
        if chain.windows(2).any(|w| w[0] > w[1]) {
            report.add(Kind::WatermarkOrder, || {
                format!(
                    "{} line {}: log start {:?}, last stable offset {:?}, high watermark {:?}",
                    p.name, b.line, b.log_start, b.lso, b.hw
                )
            });
        }
    }
}

/// The end a client is told is not below what was acknowledged, or read by anybody, before it asked.
fn ends(p: &Partition, names: &[&str], report: &mut Report) {
    // (known since, end, sort, what)
    let mut known: Vec<(Micros, u64, Kind, String)> = Vec::new();
    for s in p.sends.iter().filter(|s| s.result == Outcome::Ok && s.end != NEVER) {
        if let Some(o) = s.offset {
            known.push((s.end, o + 1, Kind::Stale, String::new()));
        }
    }
    for poll in p.polls.iter().filter(|x| x.end != NEVER) {
        if let Some((o, ..)) = poll.records.iter().max_by_key(|r| r.0) {
            known.push((poll.end, o + 1, Kind::Vanished, String::new()));
        }
    }
    known.sort_by_key(|k| (k.0, k.1));
    let mut asked: Vec<&Bounds> = p.bounds.iter().filter(|b| b.hw.is_some()).collect();
    asked.sort_by_key(|b| (b.at, b.line));
    let mut rest = known.iter().peekable();
    // Highest end by acknowledgement, and by reading.
    let (mut acked, mut read) = (0, 0);
    for b in asked {
        while let Some(k) = rest.next_if(|k| k.0 < b.at) {
            match k.2 {
                Kind::Stale => acked = acked.max(k.1),
                _ => read = read.max(k.1),
            }
        }
        let hw = b.hw.unwrap_or(0);
        for (kind, due, verb) in [(Kind::Stale, acked, "acknowledged"), (Kind::Vanished, read, "read")] {
            if hw < due {
                report.add(kind, || {
                    let who = names.get(b.process as usize).unwrap_or(&"?");
                    let name = &p.name;
                    format!("{name} line {}: {who} was told {hw}, offset {} was {verb} before", b.line, due - 1)
                });
            }
        }
    }
}

/// The log start moves as far as somebody allowed.
fn log_start(p: &Partition, report: &mut Report) {
    if p.retention || p.compact {
        return;
    }
    for b in &p.bounds {
        let allowed = p.trims.iter().filter(|t| t.0 <= b.end).map(|t| t.1).max().unwrap_or(0);
        if let Some(start) = b.log_start.filter(|s| *s > allowed) {
            report.add(Kind::LogStartJump, || {
                format!("{} line {}: the log starts at {start}, trims allow {allowed}", p.name, b.line)
            });
        }
    }
}

/// What somebody read is there at the end.
fn vanished(p: &Partition, index: &Index, names: &[&str], final_at: Option<Micros>, report: &mut Report) {
    let (Some(last), Some(_), false) = (&index.last, final_at, p.compact) else { return };
    for (offset, (value, _, _, line)) in index.read.range(index.log_start..) {
        if !last.contains(offset) {
            report.add(Kind::Vanished, || {
                format!(
                    "{} offset {offset}: {} was read (line {line}), the final read does not give it",
                    p.name,
                    id(names, *value)
                )
            });
        }
    }
}
