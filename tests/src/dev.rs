//! `catchwater dev FILE` for one test: pipeline file, data folder, the process; killed when dropped.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const READY: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(10);

pub struct Dev {
    folder: PathBuf,
    child: Option<Child>,
    /// Passed to every start.
    pub env: Vec<(String, String)>,
    pub kafka: String,
    pub http: String,
    /// Without `--data-dir`: each start has a log of its own, thrown away at its end.
    pub throw_away: bool,
}

/// Crash points that are passed again and again while rows flow: `area.step` for `area.before_step` and `area.after_step`.
pub const STREAM_POINTS: [&str; 28] = [
    "source.frame",
    "source.decode",
    "source.values",
    "capture.boundary",
    "capture.route",
    "capture.encode",
    "capture.track",
    "log.append",
    "partition.check",
    "partition.propose",
    "raft.step",
    "journal.submit",
    "journal.complete",
    "seg.log",
    "seg.ext",
    "seg.ent",
    "fetch.wake",
    "capture.acked",
    "capture.cut",
    "capture.checkpoint",
    "source.confirm",
    "deliver.fetch",
    "deliver.group",
    "deliver.turn",
    "deliver.mirror",
    "sink.rows",
    "sink.position",
    "sink.commit",
];

/// Every row that a sink took from the log was applied, folded, parked or filtered, says the node. The sinks' sums.
pub fn ledger(http: &str) -> Result<u64> {
    let url = format!("http://{http}/api/v1/lag");
    let out = Command::new("curl").args(["-s", &url]).output().context("curl")?;
    let lines: serde_json::Value = serde_json::from_slice(&out.stdout).context("the lag")?;
    let mut sum = 0;
    for line in lines.as_array().into_iter().flatten().filter(|l| l["kind"] == "sink") {
        let of = |k: &str| line["ledger"][k].as_u64().with_context(|| format!("{k} of {line}"));
        let parts = of("applied")? + of("folded")? + of("parked")? + of("filtered")?;
        anyhow::ensure!(of("taken")? == parts, "rows in are not rows out: {line}");
        sum += parts;
    }
    Ok(sum)
}

impl Dev {
    /// Writes the pipeline file; starts nothing.
    pub fn new(pipeline: &str) -> Dev {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("catchwater-dev.{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        std::fs::write(folder.join("pipeline.yaml"), pipeline).expect("the pipeline file");
        Dev { folder, child: None, env: Vec::new(), kafka: String::new(), http: String::new(), throw_away: false }
    }

    pub fn ledger(&self) -> Result<u64> {
        ledger(&self.http)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn command(&self, port_file: &Path) -> Result<Command> {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.folder.join("log"))?;
        let mut command = Command::new(crate::broker::binary()?);
        command
            .arg("dev")
            .arg(self.folder.join("pipeline.yaml"))
            .args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--port-file"])
            .arg(port_file)
            .env("TMPDIR", &self.folder)
            .env("CATCHWATER_MIN_FREE_BYTES", crate::broker::FREE_BYTES)
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(log));
        if !self.throw_away {
            command.arg("--data-dir").arg(self.data_dir());
        }
        Ok(command)
    }

    /// Starts and waits until the node answers.
    pub fn start(&mut self) -> Result<()> {
        match self.start_or_end(&[])? {
            None => Ok(()),
            Some(status) => bail!("ended with {status}:\n{}", self.log_tail()),
        }
    }

    /// Starts with more environment; `Some` = the process ended before it was ready.
    pub fn start_or_end(&mut self, env: &[(&str, &str)]) -> Result<Option<ExitStatus>> {
        assert!(self.child.is_none(), "already running");
        let port_file = self.folder.join("ports.json");
        let _ = std::fs::remove_file(&port_file);
        let mut command = self.command(&port_file)?;
        command.envs(env.iter().copied());
        let mut child = command.spawn().context("the binary")?;
        let deadline = Instant::now() + READY;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status));
            }
            if let Ok(text) = std::fs::read_to_string(&port_file)
                && let Ok(json) = serde_json::from_str::<serde_json::Value>(&text)
            {
                self.kafka = json["kafka"].as_str().unwrap_or_default().to_owned();
                self.http = json["http"].as_str().unwrap_or_default().to_owned();
                self.child = Some(child);
                return Ok(None);
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                bail!("not ready within {READY:?}:\n{}", self.log_tail());
            }
            std::thread::sleep(POLL);
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM; the exit status and how long it took.
    pub fn stop(&mut self) -> Result<(ExitStatus, Duration)> {
        let mut child = self.child.take().context("not running")?;
        let from = Instant::now();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok((status, from.elapsed()));
            }
            if from.elapsed() > Duration::from_secs(30) {
                let _ = child.kill();
                let _ = child.wait();
                bail!("did not end within 30 s of SIGTERM:\n{}", self.log_tail());
            }
            std::thread::sleep(POLL);
        }
    }

    /// True while the process lives.
    pub fn alive(&mut self) -> bool {
        match &mut self.child {
            Some(child) => match child.try_wait() {
                Ok(None) => true,
                _ => {
                    self.child = None;
                    false
                }
            },
            None => false,
        }
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Waits until `done` says nothing is missing (an empty text); its last word is the error.
    pub fn wait(&self, limit: Duration, mut done: impl FnMut() -> String) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let missing = done();
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("after {limit:?}: {missing}\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            println!("log:\n{}", self.log_tail());
        }
        if std::env::var_os("CW_KEEP_WORK").is_none() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
