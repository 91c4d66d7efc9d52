//! A witness that is not ours: librdkafka writes and reads through every death of the broker and tells what it saw
//! (`tests/clients/witness.py`), and the history checker (`sim/check`) judges. Kills and power cuts take turns where power can be
//! cut.

use super::image::Image;
use super::node::Node;
use super::{Outcome, Work};
use anyhow::{Context, Result, ensure};
use catchwater_base::Rng;
use catchwater_check::history::{decode, decode_head};
use catchwater_check::{Checker, Report};
use catchwater_client::remote::{Kafka, NewTopic, Options};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

const TOPIC: &str = "witness";
const PARTITIONS: i32 = 3;

/// The program, spoken to line by line.
struct Witness {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Witness {
    fn start(python: &Path, kafka: &str, history: &Path, seed: u64) -> Result<Witness> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/witness.py");
        let mut child = Command::new(python)
            .arg(script)
            .args([kafka, TOPIC, &PARTITIONS.to_string()])
            .arg(history)
            .arg(seed.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the witness")?;
        let input = child.stdin.take().context("its input")?;
        let output = BufReader::new(child.stdout.take().context("its output")?);
        let mut witness = Witness { child, input, output };
        witness.answer("ready")?;
        Ok(witness)
    }

    fn answer(&mut self, want: &str) -> Result<()> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(line.trim() == want, "the witness said {line:?} instead of {want}");
        Ok(())
    }

    fn tell(&mut self, what: &str) -> Result<()> {
        writeln!(self.input, "{what}")?;
        self.input.flush()?;
        self.answer("done")
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Judges a history file.
pub fn judge(history: &Path) -> Result<Report> {
    let mut lines = BufReader::new(std::fs::File::open(history)?).lines();
    let mut checker = Checker::new(decode_head(&lines.next().context("an empty history")??)?);
    for (n, line) in lines.enumerate() {
        checker.feed(decode(&line?, n as u64 + 2)?);
    }
    Ok(checker.finish())
}

/// `faults` deaths under the witness; its history is judged and, with `keep`, left there.
pub fn run(seed: u64, faults: u32, python: &Path, keep: Option<&Path>) -> Result<Outcome> {
    let work = Work::new("witness");
    let mut rng = Rng::new(seed);
    let mut image = Image::probe().and_then(|()| Image::make(work.path(), 256)).ok();
    let data = image.as_ref().map_or_else(|| work.path().join("data"), |i| i.path().join("data"));
    let mut node = Node::new(work.path(), &data, super::power::small());
    node.keep_port();
    node.start_clean()?;
    create(node.kafka())?;
    let history = keep.map_or_else(|| work.path().join("history.jsonl"), Path::to_owned);
    let mut witness = Witness::start(python, node.kafka(), &history, seed)?;
    let (mut out, mut cuts) = (Outcome { seed, ..Outcome::default() }, 0u32);
    for fault in 0..faults {
        // How long it lives is the experiment.
        std::thread::sleep(Duration::from_micros(rng.between(200_000, 1_200_000)));
        match &mut image {
            Some(image) if fault % 2 == 1 => {
                witness.tell("fault power cut")?;
                image.cut()?;
                node.kill();
                image.unmount()?;
                image.mount()?;
                cuts += 1;
            }
            _ => {
                witness.tell("fault kill -9")?;
                node.kill();
            }
        }
        out.faults += 1;
        node.start_clean().with_context(|| format!("after fault {fault}"))?;
    }
    witness.tell("stop")?;
    witness.tell("final")?;
    let status = witness.child.wait()?;
    if !status.success() {
        out.violations.push(format!("the witness ended with {status}: see its words above"));
    }
    let report = judge(&history)?;
    out.acked = report.acked;
    out.compared = report.polled;
    if !report.clean() {
        out.violations.push(report.to_string());
    }
    out.note("power cuts", cuts);
    out.note("kills", u64::from(faults) - u64::from(cuts));
    node.kill();
    Ok(out)
}

fn create(kafka: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let kafka = Kafka::connect(&[kafka], Options::default()).await?;
        let topic =
            NewTopic { name: TOPIC.into(), partitions: Some(PARTITIONS), replication: Some(1), configs: Vec::new() };
        kafka.create_topic(&topic).await?;
        anyhow::Ok(())
    })
}
