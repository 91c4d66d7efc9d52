//! The same power cut for Apache Kafka and for us, counted by the same client (librdkafka, `tests/clients/cutter.py`).
//!
//! Kafka: three nodes on three ext4 images, replication 3, acks=all, min.insync.replicas=2, all three images cut at once: what
//! a rack that loses power does. Ours: one node on one image. The client writes at a steady pace and keeps its ledger in its
//! own memory. Two ages of topic: **fresh** was made right before the load; **settled** was made, written to, and then every
//! disk was synced (`syncfs`), as half a minute of age would do. Kafka in two configurations: as shipped (it never syncs before
//! it acknowledges), and with `log.flush.interval.messages=1`.
//!
//! The judge condemns only us: Kafka promises nothing for this fault. Its losses are notes.

use super::image::Image;
use super::kafka::Cluster;
use super::node::Node;
use super::{Outcome, Work};
use anyhow::{Context, Result, ensure};
use catchwater_base::Rng;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

const PARTITIONS: u32 = 6;
/// Records of 256 bytes a second: about a third of what three nodes take on two cores.
const PACE: u32 = 4000;
const IMAGE_MIB: u64 = 512;

/// The client, spoken to line by line.
struct Client {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Client {
    fn start(python: &Path, bootstrap: &str) -> Result<Client> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/cutter.py");
        let mut child = Command::new(python)
            .arg(script)
            .arg(bootstrap)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the client")?;
        let input = child.stdin.take().context("its input")?;
        let output = BufReader::new(child.stdout.take().context("its output")?);
        Ok(Client { child, input, output })
    }

    fn ask(&mut self, command: &str) -> Result<Value> {
        writeln!(self.input, "{command}")?;
        self.input.flush()?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line).with_context(|| format!("{command}: {line:?}"))?;
        ensure!(answer["failed"].is_null(), "{command}: {}", answer["failed"]);
        Ok(answer)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is cut: a log on one disk or more.
trait Log {
    fn start(&mut self) -> Result<()>;
    fn kill(&mut self);
    fn bootstrap(&self) -> String;
    fn replicas(&self) -> u32;
}

impl Log for Cluster {
    fn start(&mut self) -> Result<()> {
        Cluster::start(self)
    }
    fn kill(&mut self) {
        Cluster::kill(self);
    }
    fn bootstrap(&self) -> String {
        Cluster::bootstrap(self).to_owned()
    }
    fn replicas(&self) -> u32 {
        3
    }
}

impl Log for Node {
    fn start(&mut self) -> Result<()> {
        self.start_clean()
    }
    fn kill(&mut self) {
        Node::kill(self);
    }
    fn bootstrap(&self) -> String {
        self.kafka().to_owned()
    }
    fn replicas(&self) -> u32 {
        1
    }
}

/// Of all cuts of one log at one age of topic.
#[derive(Debug, Default)]
struct Count {
    cuts: u64,
    with_loss: u64,
    acked: u64,
    read: u64,
    lost: u64,
    wrong: u64,
    /// Partitions that nobody serves a minute after the restart.
    dark: u64,
    /// Of one cut, from its first disk to its last.
    slowest: Duration,
    failed: Vec<String>,
}

impl Count {
    fn words(&self) -> String {
        let dark = if self.dark > 0 { format!(", {} partitions without a leader", self.dark) } else { String::new() };
        let wrong = if self.wrong > 0 { format!(", {} with another body", self.wrong) } else { String::new() };
        format!("{} of {} lost, in {} of {} cuts{dark}{wrong}", self.lost, self.acked, self.with_loss, self.cuts)
    }
}

/// All disks stop at once; the time from before the first call to after the last.
fn cut(images: &[Image]) -> Result<Duration> {
    let together = Barrier::new(images.len());
    let times: Vec<Result<(Instant, Instant)>> = std::thread::scope(|scope| {
        let cut_one = |image: &Image| {
            // Opened before the signal: only the call itself is left.
            let root = std::fs::File::open(image.path());
            together.wait();
            let from = Instant::now();
            super::sys::power_cut(&root?)?;
            Ok((from, Instant::now()))
        };
        let threads: Vec<_> = images.iter().map(|image| scope.spawn(move || cut_one(image))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| anyhow::bail!("a cutter panicked"))).collect()
    });
    let times = times.into_iter().collect::<Result<Vec<_>>>()?;
    let (first, last) = (times.iter().map(|t| t.0).min(), times.iter().map(|t| t.1).max());
    Ok(last.context("disks")? - first.context("disks")?)
}

/// Everything that was written so far is on the disks.
fn settle(images: &[Image]) -> Result<()> {
    for image in images {
        rustix::fs::syncfs(std::fs::File::open(image.path())?).context("syncfs")?;
    }
    Ok(())
}

fn disks(work: &Path, count: usize) -> Result<Vec<Image>> {
    (1..=count)
        .map(|at| {
            let folder = work.join(format!("disk{at}"));
            std::fs::create_dir_all(&folder)?;
            Image::make(&folder, IMAGE_MIB)
        })
        .collect()
}

/// `cuts` of each age, in turn, on one log; fresh first.
fn rounds(log: &mut dyn Log, images: &mut [Image], seed: u64, cuts: u32, python: &Path) -> Result<[Count; 2]> {
    let mut rng = Rng::new(seed);
    let mut counts = [Count::default(), Count::default()];
    settle(images)?;
    log.start()?;
    for cycle in 0..cuts * 2 {
        let count = &mut counts[cycle as usize % 2];
        let settled = cycle % 2 == 1;
        let topic = format!("cut-{cycle}");
        let mut slowest = count.slowest;
        let mut client = Client::start(python, &log.bootstrap())?;
        let mut round = || -> Result<Value> {
            client.ask(&format!("make {topic} {PARTITIONS} {}", log.replicas()))?;
            client.ask(&format!("load {topic} {PACE}"))?;
            // How long it lives is the experiment: below half a minute, after which the kernel writes back by itself.
            let life = Duration::from_millis(rng.between(2000, 6000));
            if settled {
                std::thread::sleep(Duration::from_secs(1));
                settle(images)?;
            }
            std::thread::sleep(life);
            slowest = slowest.max(cut(images)?);
            log.kill();
            client.ask(&format!("still {topic}"))?;
            for image in images.iter_mut() {
                image.unmount()?;
                image.mount()?;
            }
            log.start()?;
            client.ask(&format!("read {topic} {}", log.bootstrap()))
        };
        let round = round();
        count.slowest = slowest;
        match round {
            Ok(found) => {
                let n = |name: &str| found[name].as_u64().unwrap_or_default();
                eprintln!("{} {topic}: {found}", if settled { "settled" } else { "fresh" });
                count.cuts += 1;
                count.with_loss += u64::from(n("lost") > 0);
                count.acked += n("acked");
                count.read += n("read");
                count.lost += n("lost");
                count.wrong += n("wrong");
                count.dark += n("dark");
            }
            Err(e) => {
                count.failed.push(format!("cut {cycle}: {e:#}"));
                break;
            }
        }
    }
    log.kill();
    Ok(counts)
}

/// `cuts` of each age on each of three logs.
pub fn run(seed: u64, cuts: u32, python: &Path) -> Result<Outcome> {
    let mut out = Outcome { seed, ..Outcome::default() };
    let work = Work::new("kafka-cut");
    let mut images = disks(work.path(), 1)?;
    let mut node = Node::new(work.path(), &images[0].path().join("data"), crate::broker::Settings::default());
    node.keep_port();
    let ours = rounds(&mut node, &mut images, seed, cuts, python)?;
    for (count, age) in ours.iter().zip(["fresh", "settled"]) {
        out.faults += count.cuts;
        out.acked += count.acked;
        out.compared += count.read;
        out.note(&format!("ours, one node, {age} topics:"), count.words());
        if count.lost + count.wrong + count.dark > 0 {
            out.violations.push(format!("{age}: {}", count.words()));
        }
        out.violations.extend(count.failed.iter().map(|f| format!("{age}: {f}")));
    }
    drop((node, images));
    let mut slowest = Duration::ZERO;
    for (name, more) in [("as shipped", &[][..]), ("flushing every message", &["log.flush.interval.messages=1"][..])] {
        let work = Work::new("kafka-cut");
        let mut images = disks(work.path(), 3)?;
        let logs: Vec<PathBuf> = images.iter().map(|i| i.path().join("log")).collect();
        let mut cluster = Cluster::format(work.path(), &logs, more)?;
        let theirs = rounds(&mut cluster, &mut images, seed, cuts, python)?;
        for (count, age) in theirs.iter().zip(["fresh", "settled"]) {
            out.note(&format!("Kafka {}, 3 nodes, {name}, {age} topics:", super::kafka::VERSION), count.words());
            slowest = slowest.max(count.slowest);
            for failed in &count.failed {
                out.note("Kafka did not come back:", failed.lines().next().unwrap_or_default());
                eprintln!("{failed}");
            }
        }
    }
    out.note("three disks gone within, ms", slowest.as_millis());
    Ok(out)
}
