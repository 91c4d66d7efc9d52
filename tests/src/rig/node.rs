//! The binary under the rig: any data folder, more environment per start, optionally below `strace`, watched until it ends.

use super::strace::Strace;
use crate::broker::{Settings, binary};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longest time from start to "everything answers". strace stops every system call, and the machine may be busy.
const READY: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(2);

/// How one start differs from the next.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    pub env: Vec<(String, String)>,
    pub strace: Option<Strace>,
}

/// What a start came to.
#[derive(Debug)]
pub enum Started {
    Ready,
    /// It ended before it was ready: killed by an injection, or refused.
    Ended(ExitStatus),
}

/// See the file head.
#[derive(Debug)]
pub struct Node {
    settings: Settings,
    /// Log, port file.
    folder: PathBuf,
    data: PathBuf,
    child: Option<Child>,
    kafka: String,
    /// Each start listens where the one before did.
    same_port: bool,
    /// How long its log was at the last start, bytes.
    log_before: usize,
}

impl Node {
    /// Nothing is started. `folder` is where its log goes, `data` its log directory; they should lie on different disks.
    pub fn new(folder: &Path, data: &Path, settings: Settings) -> Node {
        Node {
            settings,
            folder: folder.to_owned(),
            data: data.to_owned(),
            child: None,
            kafka: String::new(),
            same_port: false,
            log_before: 0,
        }
    }

    pub fn kafka(&self) -> &str {
        &self.kafka
    }
    /// For clients that live longer than the process: every start takes the first one's port.
    pub fn keep_port(&mut self) {
        self.same_port = true;
    }
    pub fn data(&self) -> &Path {
        &self.data
    }
    pub fn set_data(&mut self, data: &Path) {
        self.data = data.to_owned();
    }
    pub fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// Starts it and waits until it answers or ends. Each start has a port of its own, unless [`Node::keep_port`] was called.
    pub fn start(&mut self, launch: &Launch) -> Result<Started> {
        assert!(self.child.is_none(), "already running");
        let binary = binary()?;
        let port_file = self.folder.join("ports.json");
        let _ = std::fs::remove_file(&port_file);
        self.log_before = self.log().len();
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.folder.join("log"))?;
        let mut command = match &launch.strace {
            None => Command::new(&binary),
            Some(strace) => strace.command(&binary),
        };
        let listen = if self.same_port && !self.kafka.is_empty() { self.kafka.as_str() } else { "127.0.0.1:0" };
        command
            .args(["start", "--listen", listen, "--http", "127.0.0.1:0", "--port-file"])
            .arg(&port_file)
            .arg("--data-dir")
            .arg(&self.data)
            .args(&self.settings.args)
            .envs(
                self.settings
                    .config
                    .iter()
                    .map(|(k, v)| (format!("CATCHWATER_{}", k.to_uppercase().replace('.', "_")), v)),
            )
            .envs(self.settings.env.iter().map(|(k, v)| (k, v)))
            .envs(launch.env.iter().map(|(k, v)| (k, v)))
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log));
        let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
        let deadline = Instant::now() + READY;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Started::Ended(status));
            }
            if let Some(kafka) = std::fs::read_to_string(&port_file).ok().as_deref().and_then(kafka_of) {
                self.kafka = kafka;
                self.child = Some(child);
                return Ok(Started::Ready);
            }
            if Instant::now() > deadline {
                let threads = threads(child.id());
                let _ = child.kill();
                let _ = child.wait();
                let trace = launch.strace.as_ref().map(|s| tail(&s.read(), 6)).unwrap_or_default();
                bail!("not ready within {READY:?}: {threads}\n{trace}\n{}", self.log_tail());
            }
            std::thread::sleep(POLL);
        }
    }

    /// A start that must succeed.
    pub fn start_clean(&mut self) -> Result<()> {
        match self.start(&Launch::default())? {
            Started::Ready => Ok(()),
            Started::Ended(status) => bail!("ended at once with {status}:\n{}", self.log_tail()),
        }
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// True while the process lives.
    pub fn alive(&mut self) -> bool {
        match &mut self.child {
            Some(child) => matches!(child.try_wait(), Ok(None)),
            None => false,
        }
    }

    /// SIGKILL, and gone when this returns.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Waits for its own end; `None` if it still lives after `limit`.
    pub fn wait_end(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else { bail!("not running") };
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = child.try_wait()? {
                self.child = None;
                return Ok(Some(status));
            }
            if Instant::now() > deadline {
                return Ok(None);
            }
            std::thread::sleep(POLL);
        }
    }

    /// SIGTERM and its end.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let Some(child) = &self.child else { bail!("not running") };
        rustix::process::kill_process(rustix::process::Pid::from_child(child), rustix::process::Signal::TERM)?;
        match self.wait_end(Duration::from_secs(30))? {
            Some(status) => Ok(status),
            None => {
                self.kill();
                bail!("did not end within 30 s of SIGTERM:\n{}", self.log_tail())
            }
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
    /// What it said since the last start.
    pub fn log_since_start(&self) -> String {
        let log = self.log();
        log.get(self.log_before..).unwrap_or(&log).to_owned()
    }
    pub fn log_tail(&self) -> String {
        tail(&self.log(), 30)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn kafka_of(text: &str) -> Option<String> {
    let json: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(json["kafka"].as_str()?.to_owned())
}

/// What each thread of a process that hangs waits for in the kernel.
fn threads(pid: u32) -> String {
    let mut out = String::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let word = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default().trim().to_owned();
        let state =
            word("stat").rsplit_once(") ").map(|(_, s)| s.chars().take(1).collect::<String>()).unwrap_or_default();
        out.push_str(&format!("[{} {state} {} {}] ", word("comm"), word("wchan"), word("syscall")));
    }
    out
}
