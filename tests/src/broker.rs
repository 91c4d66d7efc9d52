//! A broker for one test: the built binary on free loopback ports and a data folder of its own, killed when dropped.
//!
//! `CATCHWATER_BIN` names the binary, else it is looked for beside the test's own folder. With `CW_TEST_KAFKA=host:port`
//! the tests run against a foreign broker instead (a real Kafka: what they expect is checked there first).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Longest time from start to "everything answers".
const PORT_WAIT: Duration = Duration::from_secs(5);
const READY_SECONDS: u64 = 30;
const POLL: Duration = Duration::from_millis(10);

/// `min.free.bytes` of nodes under test: their default, 5 % of a large disk, may not be free where tests run.
pub const FREE_BYTES: &str = "16777216";

/// How a broker is started; `Default` is what most tests want.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Keys of the node's configuration, given as environment.
    pub config: Vec<(String, String)>,
    /// More words for the command line.
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
}

impl Default for Settings {
    /// One partition for topics nobody described, no waiting for more group members, no Connect face, and a floor of free space that the
    /// disk of a test machine has.
    fn default() -> Self {
        let set = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        Settings {
            config: vec![
                set("num.partitions", "1"),
                set("group.initial.rebalance.delay.ms", "0"),
                set("min.free.bytes", FREE_BYTES),
                // One port for all; a test of it asks for a free one.
                set("connect", "off"),
            ],
            args: Vec::new(),
            env: Vec::new(),
        }
    }
}

impl Settings {
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.config.retain(|(k, _)| k != key);
        self.config.push((key.to_owned(), value.to_owned()));
        self
    }
    pub fn arg(mut self, word: &str) -> Self {
        self.args.push(word.to_owned());
        self
    }
}

#[derive(Debug)]
pub struct Broker {
    settings: Settings,
    child: Option<Child>,
    folder: Folder,
    kafka: String,
    http: String,
    starts: u32,
}

impl Broker {
    pub fn start() -> Broker {
        Broker::start_with(Settings::default())
    }

    pub fn start_with(settings: Settings) -> Broker {
        let mut broker = Broker {
            settings,
            child: None,
            folder: Folder::new(),
            kafka: String::new(),
            http: String::new(),
            starts: 0,
        };
        match std::env::var("CW_TEST_KAFKA") {
            Ok(foreign) => broker.kafka = foreign,
            Err(_) => broker.run().expect("the broker starts"),
        }
        broker
    }

    /// `host:port` of the Kafka listener.
    pub fn kafka(&self) -> &str {
        &self.kafka
    }
    pub fn address(&self) -> SocketAddr {
        self.kafka.parse().expect("an address")
    }
    /// `host:port` of metrics, health and status.
    pub fn http(&self) -> &str {
        &self.http
    }
    /// A figure of the metrics page, summed over its labels; 0 if it is not there.
    pub fn metric(&self, name: &str) -> f64 {
        metric(&self.http, name)
    }
    /// A real Kafka is under test, which cannot be killed or measured.
    pub fn is_foreign(&self) -> bool {
        self.child.is_none() && self.starts == 0
    }
    pub fn data_dir(&self) -> PathBuf {
        self.folder.0.join("data")
    }
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> Option<u64> {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.pid()?)).ok()?;
        let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
        Some(pages * 4096)
    }

    /// Everything it has written to its standard error since the first start.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.0.join("log")).unwrap_or_default()
    }

    /// SIGKILL; the data stays.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM and its clean end.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let deadline = Instant::now() + Duration::from_secs(READY_SECONDS);
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait()? {
                // A clean end after SIGTERM has its own exit code.
                if status.code() != Some(143) {
                    bail!("ended with {status}:\n{}", tail(&self.log()));
                }
                return Ok(());
            }
            std::thread::sleep(POLL);
        }
        let _ = child.kill();
        let _ = child.wait();
        bail!("did not end within {READY_SECONDS} s of SIGTERM:\n{}", tail(&self.log()))
    }

    /// Starts it again on the same data and the same ports.
    pub fn restart(&mut self) -> Result<()> {
        self.run()
    }

    /// The same with more environment, in the place of what it had.
    pub fn restart_with(&mut self, env: &[(&str, &str)]) -> Result<()> {
        self.settings.env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.run()
    }

    /// A port that was free a moment ago may be another process's for a moment: an outgoing connection has it, or another test's
    /// node that asked for any. Clients know the port, so it is waited for.
    fn run(&mut self) -> Result<()> {
        let until = Instant::now() + PORT_WAIT;
        loop {
            match self.once() {
                Err(e) if !self.kafka.is_empty() && Instant::now() < until && e.to_string().contains("CW0001") => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                other => return other,
            }
        }
    }

    fn once(&mut self) -> Result<()> {
        let binary = binary()?;
        let port_file = self.folder.0.join("ports.json");
        let _ = std::fs::remove_file(&port_file);
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.folder.0.join("log"))?;
        let listen = if self.kafka.is_empty() { "127.0.0.1:0" } else { &self.kafka };
        let http = if self.http.is_empty() { "127.0.0.1:0" } else { &self.http };
        let mut command = Command::new(&binary);
        command
            .args(["start", "--listen", listen, "--http", http, "--port-file"])
            .arg(&port_file)
            .arg("--data-dir")
            .arg(self.data_dir())
            .args(&self.settings.args)
            // A machine that runs tests may be nearly full; a test of that says so itself.
            .envs(
                self.settings
                    .config
                    .iter()
                    .map(|(k, v)| (format!("CATCHWATER_{}", k.to_uppercase().replace('.', "_")), v)),
            )
            .envs(self.settings.env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log));
        let mut child = command.spawn().with_context(|| binary.display().to_string())?;
        self.starts += 1;
        let deadline = Instant::now() + Duration::from_secs(READY_SECONDS);
        loop {
            if let Some(status) = child.try_wait()? {
                bail!("ended at once with {status}:\n{}", tail(&self.log()));
            }
            if let Some((kafka, http)) = std::fs::read_to_string(&port_file).ok().as_deref().and_then(ports) {
                (self.kafka, self.http) = (kafka, http);
                self.child = Some(child);
                return Ok(());
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                bail!("not ready within {READY_SECONDS} s:\n{}", tail(&self.log()));
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() && self.starts > 0 {
            println!("broker log:\n{}", tail(&self.log()));
        }
    }
}

/// A figure of the metrics page of the node at `http`, summed over its labels; 0 if it is not there.
pub fn metric(http: &str, name: &str) -> f64 {
    let page = metrics_page(http);
    let lines = page.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Upper bounds and cumulative counts of a histogram without labels of the metrics page; the last bound is infinite.
pub fn buckets(http: &str, name: &str) -> Vec<(f64, f64)> {
    let page = metrics_page(http);
    let begins = format!("{name}_bucket{{le=\"");
    let lines = page.lines().filter_map(|line| line.strip_prefix(&begins)?.split_once("\"} "));
    lines.filter_map(|(le, count)| Some((le.parse().ok()?, count.parse().ok()?))).collect()
}

/// Empty if nobody answers.
fn metrics_page(http: &str) -> String {
    use std::io::{Read, Write};
    let page = || -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect(http)?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nconnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    };
    page().unwrap_or_default()
}

/// The binary under test.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("CATCHWATER_BIN") {
        return Ok(path.into());
    }
    let exe = std::env::current_exe()?;
    let beside = exe.parent().and_then(Path::parent).context("no target folder")?.join("catchwater");
    if !beside.exists() {
        bail!("{} is missing: cargo build -p catchwater, or name it in CATCHWATER_BIN", beside.display());
    }
    Ok(beside)
}

/// Whether the binary has crash points (debug assertions; the check builds the `gate` profile); a SKIP if not.
pub fn has_crash_points(test: &str) -> bool {
    let out = Command::new(binary().expect("the binary")).args(["-o", "json", "version"]).output();
    let text = out.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    let has = text.contains("debug assertions");
    if !has {
        crate::skip(test, "the binary has no debug assertions; build with --profile gate");
    }
    has
}

fn ports(text: &str) -> Option<(String, String)> {
    let json: serde_json::Value = serde_json::from_str(text).ok()?;
    Some((json["kafka"].as_str()?.to_owned(), json["http"].as_str().unwrap_or_default().to_owned()))
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// A folder of its own below the temporary one, removed at the end.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("catchwater-test.{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::env::var_os("CW_KEEP_WORK").is_none() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// A name no other test uses, also not on a foreign broker that lives longer than one run.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map(|d| d.subsec_nanos());
    format!("{prefix}-{}-{}-{}", std::process::id(), nanos.unwrap_or(0), NEXT.fetch_add(1, Ordering::Relaxed))
}
