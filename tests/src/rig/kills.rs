//! `kill -9` of a real broker, at random and at the named crash points, with one log through all of it.
//!
//! The points are those of the sources themselves (`crash_point!("area.before_step")` in the crates that keep the log), so a
//! new one is in the test from its first day. Points need a build with debug assertions.

use super::load::{Load, Shape};
use super::node::{Launch, Node, Started};
use super::{Outcome, Work};
use anyhow::{Context, Result};
use catchwater_base::Rng;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Crates whose points a broker alone passes.
const CRATES: [&str; 3] = ["storage/src", "raft/src", "broker/src"];

/// Points that this load does not reach, and why.
pub const NOT_REACHED: [(&str, &str); 7] = [
    ("log.", "the log's own client: captures, not producers"),
    ("repair.", "`catchwater storage repair`: tests/storage_cli.rs kills it at each of them"),
    ("seal.before_txn", "transactions, which no client has"),
    ("seal.after_txn", "transactions, which no client has"),
    // The ledger knows nothing of keys: tests/clients/mixed.py, and the power cuts of the storage crate at each step.
    ("switch.", "compaction"),
    // What a start cuts is cut before the node runs; here an uncommitted tail of a follower would be.
    ("trunc.before_sync", "several voters"),
    ("trunc.after_sync", "several voters"),
];

/// What must happen on a log of its own before a point comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Story {
    /// Journal files are made ahead on a new disk.
    FreshLog,
    /// A burst that needs more journal files than may stay, then silence: they go.
    Burst,
    /// Topics with data are deleted.
    Deletion,
    /// The disk is full.
    FullDisk,
    /// A replica panics and is opened again.
    Panic,
    /// Topics are relaxed, and the node has died once in the middle of an append.
    Relaxed,
}

fn story_of(point: &str) -> Option<Story> {
    let (area, step) = point.split(':').next()?.split_once('.')?;
    match (area, step) {
        ("journal", "before_prepare" | "after_prepare") => Some(Story::FreshLog),
        ("journal", "before_remove" | "after_remove") => Some(Story::Burst),
        ("del", _) => Some(Story::Deletion),
        ("reserve", _) => Some(Story::FullDisk),
        ("relaxed", _) => Some(Story::Relaxed),
        ("reopen", _) => Some(Story::Panic),
        _ => None,
    }
}

/// Every named point of the log's crates, sorted.
pub fn points() -> Result<Vec<String>> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the repository")?;
    let mut found = BTreeSet::new();
    let mut open: Vec<std::path::PathBuf> = CRATES.iter().map(|c| root.join(c)).collect();
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(&at).with_context(|| at.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path)?;
                for (_, rest) in text.match_indices("crash_point!(\"").map(|(i, m)| (i, &text[i + m.len()..])) {
                    found.extend(rest.split_once('"').map(|(name, _)| name.to_owned()));
                }
            }
        }
    }
    Ok(found.into_iter().collect())
}

fn is_expected_unreached(point: &str) -> bool {
    NOT_REACHED.iter().any(|(prefix, _)| point.starts_with(prefix))
}

/// `kills` deaths at random moments, then a clean life.
pub fn at_random(seed: u64, kills: u32) -> Result<Outcome> {
    let mut rng = Rng::new(seed);
    run(seed, kills, |_, load, node| {
        let life = Duration::from_micros(rng.between(0, 600_000));
        if !start(node, &[])? {
            return Ok(false);
        }
        load.verify(node.kafka())?;
        let pid = node.pid();
        let until = Instant::now() + life;
        load.run(node.kafka(), &move || {
            let over = Instant::now() >= until;
            if over && let Some(pid) = pid.and_then(|p| rustix::process::Pid::from_raw(i32::try_from(p).ok()?)) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            over
        });
        node.kill();
        Ok(true)
    })
}

/// One death at each of `points` (`name:pass`), reached by load alone. Points that are not reached are noted.
pub fn at_points(seed: u64, points: &[String], limit: Duration) -> Result<Outcome> {
    let mut not_reached = Vec::new();
    let (stories, plain): (Vec<&String>, Vec<&String>) = points.iter().partition(|p| story_of(p).is_some());
    let mut out = run(seed, plain.len() as u32, |at, load, node| {
        let point = plain[at as usize];
        // The process may die while it starts: that is a death at this point, too.
        let died = if start(node, &[("CATCHWATER_CRASH_AT".to_owned(), point.clone())])? {
            load.verify(node.kafka()).ok();
            let until = Instant::now() + limit;
            let pid = node.pid().unwrap_or_default();
            load.run(node.kafka(), &move || Instant::now() > until || is_gone(pid));
            // Some points are passed at a clean stop only.
            !node.alive() || !node.stop().is_ok_and(|status| status.code() == Some(143))
        } else {
            true
        };
        node.kill();
        if !died {
            not_reached.push(point.clone());
        }
        Ok(died)
    })?;
    for point in stories {
        let told = tell(seed, point, limit)?;
        if told.faults == 0 {
            not_reached.push(point.clone());
        }
        out.merge(Outcome { violations: told.violations.iter().map(|v| format!("{point}: {v}")).collect(), ..told });
    }
    let (expected, missed): (Vec<_>, Vec<_>) = not_reached.into_iter().partition(|p| is_expected_unreached(p));
    out.note("points reached", out.faults);
    out.note("not reached, as expected", expected.join(" "));
    out.note("not reached", missed.join(" "));
    Ok(out)
}

/// One death at a point that needs a [`Story`], and what is there afterwards. No fault if it did not come.
fn tell(seed: u64, point: &str, limit: Duration) -> Result<Outcome> {
    let story = story_of(point).context("a story")?;
    let mut out = Outcome { seed, ..Outcome::default() };
    let work = Work::new("story");
    let image = match story {
        // Without a disk to fill the point is not reached, and said to be so.
        Story::FullDisk => match super::image::Image::probe() {
            Ok(()) => Some(super::image::Image::make(work.path(), 64)?),
            Err(_) => return Ok(out),
        },
        _ => None,
    };
    let data = image.as_ref().map_or_else(|| work.path().join("data"), |i| i.path().join("data"));
    let mut node = Node::new(work.path(), &data, super::power::small());
    let relaxed = story == Story::Relaxed;
    let shape = Shape { value_bytes_max: 30_000, era_cycles: 100, relaxed, ..Shape::default() };
    let mut load = Load::new(seed, shape);
    let mut env = vec![("CATCHWATER_CRASH_AT".to_owned(), point.to_owned())];
    let run = |load: &mut Load, node: &Node, limit: Duration| {
        let (until, pid) = (Instant::now() + limit, node.pid().unwrap_or_default());
        load.run(node.kafka(), &move || Instant::now() > until || is_gone(pid));
    };
    if story == Story::Deletion {
        start(&mut node, &[])?;
        run(&mut load, &node, Duration::from_millis(500));
        load.verify(node.kafka())?;
        node.stop()?;
        load.replace_topics();
    }
    if story == Story::Panic {
        start(&mut node, &[])?;
        run(&mut load, &node, Duration::from_millis(500));
        node.kill();
        // The newest of all: a partition of the load's topics.
        let names = std::fs::read_dir(data.join("p"))?.flatten().map(|e| e.file_name());
        let gid = names.filter_map(|n| u64::from_str_radix(n.to_str()?, 16).ok()).max().context("a partition")?;
        env.push(("CATCHWATER_PANIC_AT".to_owned(), format!("group.propose@{gid}:5")));
    }
    if relaxed {
        // Bytes of a batch whose row was not written.
        let middle = [("CATCHWATER_CRASH_AT".to_owned(), "seg.after_log:20".to_owned())];
        if start(&mut node, &middle)? {
            run(&mut load, &node, limit);
        }
        node.kill();
    }
    if start(&mut node, &env)? {
        match story {
            Story::Relaxed | Story::Panic | Story::FreshLog | Story::Deletion => run(&mut load, &node, limit),
            Story::Burst => {
                run(&mut load, &node, limit / 3);
                let _ = node.wait_end(limit)?;
            }
            Story::FullDisk => {
                run(&mut load, &node, Duration::from_millis(300));
                image.as_ref().context("a disk")?.fill()?;
                run(&mut load, &node, limit);
            }
        }
    }
    out.faults = u64::from(!node.alive());
    node.kill();
    if let Some(image) = &image {
        // First while the disk is still full, if it had become so: that start must work, too.
        if image.filler().exists() {
            node.start_clean().context("on the full disk")?;
            load.verify(node.kafka()).context("on the full disk")?;
            node.kill();
            image.drain()?;
        }
    }
    for _ in 0..2 {
        node.start_clean()?;
        load.verify(node.kafka())?;
        run(&mut load, &node, Duration::from_millis(200));
        load.verify(node.kafka())?;
        node.stop()?;
    }
    out.violations = load.take_wrong();
    out.acked = load.tally.acked.load(Ordering::Relaxed);
    out.compared = load.tally.compared.load(Ordering::Relaxed);
    Ok(out)
}

/// A zombie counts as gone.
pub(super) fn is_gone(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| {
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z') || rest.starts_with('X'))
    })
}

fn start(node: &mut Node, env: &[(String, String)]) -> Result<bool> {
    let launch = Launch { env: env.to_vec(), strace: None };
    match node.start(&launch)? {
        Started::Ready => Ok(true),
        Started::Ended(_) if !env.is_empty() => Ok(false),
        Started::Ended(status) => anyhow::bail!("does not start ({status}): {}", node.log_tail()),
    }
}

fn run(seed: u64, cycles: u32, mut cycle: impl FnMut(u32, &mut Load, &mut Node) -> Result<bool>) -> Result<Outcome> {
    let work = Work::new("kills");
    let mut load = Load::new(seed, Shape { value_bytes_max: 20_000, ..Shape::default() });
    let mut node = Node::new(work.path(), &work.path().join("data"), super::power::small());
    let mut out = Outcome { seed, ..Outcome::default() };
    for at in 0..cycles {
        match cycle(at, &mut load, &mut node) {
            Ok(died) => out.faults += u64::from(died),
            Err(e) => out.violations.push(format!("kill {at}: {e:#}")),
        }
        node.kill();
        out.violations.extend(load.take_wrong().into_iter().map(|w| format!("kill {at}: {w}")));
        if out.violations.len() > 20 {
            break;
        }
    }
    // A life that is not killed, a clean stop, and a last reading.
    for life in ["after the last kill", "after a clean stop"] {
        node.start_clean()?;
        load.verify(node.kafka())?;
        let until = Instant::now() + Duration::from_millis(200);
        load.run(node.kafka(), &move || Instant::now() > until);
        load.verify(node.kafka())?;
        node.stop()?;
        out.violations.extend(load.take_wrong().into_iter().map(|w| format!("{life}: {w}")));
    }
    out.acked = load.tally.acked.load(Ordering::Relaxed);
    out.compared = load.tally.compared.load(Ordering::Relaxed);
    out.note("batches of unknown outcome", load.tally.unknown.load(Ordering::Relaxed));
    Ok(out)
}
