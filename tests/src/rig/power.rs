//! Power cuts: the broker's disk is an ext4 image that stops in the middle of the load, with everything that was not synced
//! gone; the ledger is on another disk. After each cut the broker starts again and every partition is read whole.
//!
//! Every second cut is harder than ext4's own: names that no directory sync covers go, too ([`super::names`]). With
//! [`Plant::DirectorySyncs`] the broker's directory syncs do nothing and say they did, as in a build that forgot them: the
//! same rig must find that. `FileSyncs` does the same to `fdatasync`.

use super::image::Image;
use super::ledger::{Taken, Window};
use super::load::{Load, Shape};
use super::names::Names;
use super::node::{Launch, Node, Started};
use super::strace::{self, Strace};
use super::{Outcome, Work};
use crate::broker::Settings;
use anyhow::Result;
use catchwater_base::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Names are read from these calls.
const NAMES: &str = "open,openat,mkdir,mkdirat,rename,renameat,renameat2,fsync";

/// A bug that is planted from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Plant {
    #[default]
    None,
    DirectorySyncs,
    FileSyncs,
}

/// How a run goes.
#[derive(Clone, Debug)]
pub struct Power {
    pub seed: u64,
    pub cuts: u32,
    pub plant: Plant,
    /// Environment of the broker: a mutant's name, for builds that have them.
    pub env: Vec<(String, String)>,
    /// End at the first violation.
    pub until_found: bool,
    /// Every topic is `storage.durability=relaxed`: a cut may take one window from the end of a partition, and the start
    /// after it says so (CW0205); a kill in between takes nothing.
    pub relaxed: bool,
}

/// What `storage.durability=relaxed` may lose, unless a topic says less. Source: docs/configuration.md.
const WINDOW: Window = Window { time: Duration::from_millis(200), bytes: 4 << 20 };

/// Settings of a broker on a small disk: journal files of 1 MiB, so that they are used again all the time.
pub fn small() -> Settings {
    Settings::default()
        .with("storage.journal.file.bytes", "1048576")
        .with("log.retention.check.interval.ms", "50")
        .with("min.free.bytes", "8388608")
        .with("auto.create.topics.enable", "false")
}

/// Why power cannot be cut here, if it cannot.
pub fn probe() -> Result<()> {
    Image::probe()?;
    strace::probe()
}

/// See the file head. An error is the rig's own; what the broker did wrong is in the outcome.
pub fn run(power: &Power) -> Result<Outcome> {
    let work = Work::new("power");
    let mut image = Image::make(work.path(), 256)?;
    let mut rng = Rng::new(power.seed);
    let shape = Shape { value_bytes_max: 20_000, relaxed: power.relaxed, ..Shape::default() };
    let mut load = Load::new(power.seed, shape);
    let (mut taken, mut lossy, mut kills) = (Taken::default(), 0u64, 0);
    let mut node = Node::new(work.path(), &image.path().join("data"), small());
    node.settings_mut().env.extend(power.env.iter().cloned());
    let mut out = Outcome { seed: power.seed, ..Outcome::default() };
    let (mut names_taken, mut before_ready, mut lied) = (0, 0, 0);
    for cut in 0..=power.cuts {
        let last = cut == power.cuts;
        let strict = cut % 2 == 1 || power.plant != Plant::None || !power.env.is_empty();
        let trace = Strace::new(&work.path().join("trace"), NAMES);
        let trace = match power.plant {
            Plant::None => trace,
            Plant::DirectorySyncs => trace.lie("fsync"),
            Plant::FileSyncs => Strace::new(&work.path().join("trace"), &format!("{NAMES},fdatasync")).lie("fdatasync"),
        };
        let _ = std::fs::remove_file(trace.out());
        let launch = Launch { env: Vec::new(), strace: (strict && !last).then(|| trace.clone()) };

        // One in eight hits the start; the first cut of all does not, so that there is something to lose.
        let early = cut > 0 && !last && rng.chance(125_000);
        let delay = Duration::from_micros(if early { rng.between(0, 120_000) } else { rng.between(20_000, 500_000) });
        // Begun, and done: a start may see the first before the cutter's thread goes on to say the second.
        let is_cut = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
        let at_start = early.then(|| cutter(&image, delay, None, &is_cut));
        match node.start(&launch) {
            Ok(Started::Ready) => {}
            Ok(Started::Ended(_)) if is_cut[0].load(Ordering::SeqCst) => {}
            Ok(Started::Ended(status)) => {
                out.violations.push(format!("cut {cut}: does not start ({status}): {}", node.log_tail()));
                let _ = at_start.map(std::thread::JoinHandle::join);
                break;
            }
            Err(e) => {
                out.violations.push(format!("cut {cut}: {e:#}"));
                let _ = at_start.map(std::thread::JoinHandle::join);
                break;
            }
        }
        if early {
            before_ready += 1;
        } else {
            if power.relaxed {
                match load.forgive(node.kafka(), WINDOW) {
                    Ok(lost) => {
                        let said = node.log_since_start().matches("CW0205").count();
                        if said < lost.len() {
                            out.violations
                                .push(format!("cut {cut}: {} partitions lost records, {said} say so", lost.len()));
                        }
                        lossy += lost.len() as u64;
                        for one in lost {
                            taken.records += one.records;
                            taken.bytes = taken.bytes.max(one.bytes);
                            taken.span = taken.span.max(one.span);
                        }
                    }
                    Err(e) => out.violations.push(format!("cut {cut}: reading: {e:#}")),
                }
            }
            if let Err(e) = load.verify(node.kafka()) {
                out.violations.push(format!("cut {cut}: reading: {e:#}"));
            }
            out.violations.extend(load.take_wrong().into_iter().map(|w| format!("cut {cut}: {w}")));
            if last || (power.until_found && !out.violations.is_empty()) || out.violations.len() > 20 {
                break;
            }
            if power.relaxed && cut % 4 == 2 {
                // A death of the process alone: the page cache has all of it. Not where names are traced: that trace ends here.
                let until = Instant::now() + Duration::from_millis(200);
                load.run(node.kafka(), &move || Instant::now() > until);
                node.kill();
                node.start_clean()?;
                load.verify(node.kafka())?;
                kills += 1;
                out.violations.extend(load.take_wrong().into_iter().map(|w| format!("kill before cut {cut}: {w}")));
            }
            let at_load = cutter(&image, delay, node.pid(), &is_cut);
            let seen = is_cut.clone();
            load.run(node.kafka(), &move || seen[1].load(Ordering::SeqCst));
            let _ = at_load.join();
            out.violations.extend(load.take_wrong().into_iter().map(|w| format!("cut {cut}, before it: {w}")));
        }
        if let Some(at_start) = at_start {
            let _ = at_start.join();
        }
        node.kill();
        out.faults += 1;
        let names = (strict && !last).then(|| Names::of(&trace.read(), image.path()));
        image.unmount()?;
        image.mount()?;
        if let Some(names) = names {
            names_taken += names.take_away()?;
            lied += names.lied;
        }
    }
    if node.alive() && out.violations.is_empty() {
        // The last life ends clean, and the next finds all of it.
        node.stop()?;
        node.start_clean()?;
        load.verify(node.kafka())?;
        out.violations.extend(load.take_wrong().into_iter().map(|w| format!("after a clean stop: {w}")));
    }
    node.kill();
    let tally = &load.tally;
    out.acked = tally.acked.load(Ordering::Relaxed);
    out.compared = tally.compared.load(Ordering::Relaxed);
    out.note("cuts during a start", before_ready);
    out.note("names taken that no directory sync covered", names_taken);
    out.note("batches of unknown outcome", tally.unknown.load(Ordering::Relaxed));
    if power.relaxed {
        out.note("relaxed: records taken by cuts", taken.records);
        out.note("partitions that lost some", lossy);
        out.note("most bytes of one", taken.bytes);
        out.note("longest from the first answer to the last send of what one lost, ms", taken.span.as_millis());
        out.note("kills between, which may take none", kills);
    }
    if lied > 0 {
        out.note("directory syncs that did nothing", lied);
    }
    Ok(out)
}

type Cutter = std::thread::JoinHandle<()>;

/// Cuts the power after `delay`, then kills the process as the power would have.
fn cutter(image: &Image, delay: Duration, pid: Option<u32>, is_cut: &Arc<[AtomicBool; 2]>) -> Cutter {
    let (mount, is_cut) = (image.path().to_owned(), is_cut.clone());
    std::thread::spawn(move || {
        // The moment of the cut is the experiment, not a wait for something.
        std::thread::sleep(delay);
        is_cut[0].store(true, Ordering::SeqCst);
        let _ = super::image::cut(&mount);
        is_cut[1].store(true, Ordering::SeqCst);
        if let Some(pid) = pid.and_then(|p| rustix::process::Pid::from_raw(i32::try_from(p).ok()?)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    })
}
