//! One bit flipped, or one file cut, anywhere in the data of a node at rest: found or harmless, never served, never a silent end.
//!
//! Two logs are made once, one that ended clean and one that was killed. Each place is tried on a fresh copy: the start may
//! refuse with a code, a read may be refused as a storage error; what is given must be what was written, all of it.

use super::ledger::{Ledger, Part};
use super::load::{Load, Shape, read};
use super::node::{Launch, Node, Started};
use super::{Outcome, Work};
use anyhow::{Context, Result, ensure};
use catchwater_base::Rng;
use catchwater_client::remote::{Code, RemoteError};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A made log: its files by kind, and what was promised about it.
struct Base {
    dir: PathBuf,
    kinds: BTreeMap<String, Vec<PathBuf>>,
    ledger: Ledger,
    ended: &'static str,
}

/// `places` damages.
pub fn run(seed: u64, places: u32) -> Result<Outcome> {
    let work = Work::new("flips");
    let mut rng = Rng::new(seed);
    let mut out = Outcome { seed, ..Outcome::default() };
    let mut load = Load::new(seed, Shape { value_bytes_max: 30_000, ..Shape::default() });
    let bases = [make(&mut load, work.path(), "stopped")?, make(&mut load, work.path(), "killed")?];
    out.acked = load.tally.acked.load(Ordering::Relaxed);
    let data = work.path().join("data");
    let (mut refused_reads, mut harmless) = (0, 0);
    let mut refused_starts: BTreeMap<String, u64> = BTreeMap::new();
    let mut by_kind: BTreeMap<String, u64> = BTreeMap::new();
    for place in 0..places {
        let base = &bases[place as usize % 2];
        copy(&base.dir, &data)?;
        let _ = std::fs::remove_file(work.path().join("log"));
        let kinds: Vec<&String> = base.kinds.keys().collect();
        let kind = kinds[place as usize / 2 % kinds.len()];
        let files = &base.kinds[kind];
        let file = &files[rng.below(files.len() as u64) as usize];
        let what = damage(&data.join(file), &mut rng)?;
        let name = format!("place {place}, {} ({}): {what}", file.display(), base.ended);
        out.faults += 1;
        *by_kind.entry(kind.clone()).or_default() += 1;
        let mut node = Node::new(work.path(), &data, super::power::small());
        match node.start(&Launch::default()) {
            Ok(Started::Ready) => {}
            // Refused, and said so with a code: found. 101 would be a panic.
            Ok(Started::Ended(status))
                if matches!(status.code(), Some(1 | 3)) && node.log_tail().contains("error[CW") =>
            {
                *refused_starts.entry(kind.clone()).or_default() += 1;
                continue;
            }
            Ok(Started::Ended(status)) => {
                out.violations.push(format!("{name}: the start ended with {status}\n{}", node.log_tail()));
                continue;
            }
            Err(e) => {
                out.violations.push(format!("{name}: {e:#}"));
                continue;
            }
        }
        let mut ledger = base.ledger.clone();
        let before = out.violations.len();
        let mut refused = false;
        for part in ledger.parts() {
            match load.with(node.kafka(), async |kafka| Ok(read(&kafka, &part).await)) {
                Ok(Ok(reading)) => {
                    out.compared += reading.records.len() as u64;
                    out.violations.extend(ledger.judge(&part, &reading).into_iter().map(|w| format!("{name}: {w}")));
                }
                Ok(Err(e)) if is_refusal(&e) => refused = true,
                Ok(Err(e)) | Err(e) => out.violations.push(format!("{name}: reading {part:?}: {e:#}")),
            }
        }
        refused_reads += u32::from(refused);
        harmless += u32::from(!refused && out.violations.len() == before);
        if !node.alive() {
            out.violations.push(format!("{name}: the broker died of it\n{}", node.log_tail()));
        }
        if out.violations.len() > 40 {
            break;
        }
    }
    for (kind, count) in by_kind {
        out.note(&format!("places in {kind}"), count);
    }
    let refused = refused_starts.iter().map(|(kind, n)| format!("{kind} {n}")).collect::<Vec<_>>().join(" ");
    out.note("starts refused", refused);
    out.note("places where a read was refused", refused_reads);
    out.note("harmless", harmless);
    Ok(out)
}

/// KAFKA_STORAGE_ERROR, or a partition without a leader: damage that is said.
fn is_refusal(e: &anyhow::Error) -> bool {
    e.chain().filter_map(|c| c.downcast_ref::<RemoteError>()).any(|e| match e {
        RemoteError::Refused { code: Code(code), .. } => matches!(code, 5 | 6 | 56),
        RemoteError::NoLeader { .. } => true,
        _ => false,
    })
}

/// A second of load on a log of its own, ended in this way.
fn make(load: &mut Load, work: &Path, ended: &'static str) -> Result<Base> {
    let dir = work.join(ended);
    let mut node = Node::new(work, &dir, super::power::small());
    node.start_clean()?;
    load.replace_topics();
    let until = Instant::now() + Duration::from_millis(1500);
    load.run(node.kafka(), &move || Instant::now() > until);
    load.verify(node.kafka())?;
    let wrong = load.take_wrong();
    ensure!(wrong.is_empty(), "before any damage: {wrong:?}");
    if ended == "stopped" {
        node.stop()?;
    }
    node.kill();
    let mut ledger = load.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // The other log's topics are not in this one.
    let here: Vec<Part> = ledger.parts();
    for (topic, _) in here.iter().filter(|(topic, _)| !load.is_newest(topic)) {
        ledger.close(topic);
    }
    let mut kinds: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for file in files(&dir)? {
        let name = file.file_name().context("a name")?.to_string_lossy().into_owned();
        // Slots by their name, the others by their ending.
        let kind = match name.rsplit_once('.') {
            Some((slot, "a" | "b")) => slot.to_owned(),
            Some((_, ending)) => format!(".{ending}"),
            None => continue,
        };
        if std::fs::metadata(&file)?.len() > 0 {
            kinds.entry(kind).or_default().push(file.strip_prefix(&dir)?.to_owned());
        }
    }
    ensure!(kinds.len() >= 5, "only {:?}", kinds.keys());
    Ok(Base { dir, kinds, ledger, ended })
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(&at)? {
            let path = entry?.path();
            if path.is_dir() { open.push(path) } else { out.push(path) }
        }
    }
    out.sort();
    Ok(out)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let _ = std::fs::remove_dir_all(to);
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(status.success(), "cp: {status}");
    Ok(())
}

/// Four flips to one cut. Where most of a file is unused (a journal), half of the flips go where it is not zero.
fn damage(path: &Path, rng: &mut Rng) -> Result<String> {
    let mut bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let used = bytes.iter().rposition(|b| *b != 0).map_or(bytes.len(), |at| at + 1) as u64;
    let within = if rng.chance(500_000) { used } else { bytes.len() as u64 };
    let at = rng.below(within) as usize;
    let what = if rng.chance(200_000) {
        bytes.truncate(at);
        format!("cut at {at}")
    } else {
        let bit = rng.below(8);
        bytes[at] ^= 1 << bit;
        format!("bit {bit} of byte {at}")
    };
    std::fs::write(path, bytes)?;
    Ok(what)
}
