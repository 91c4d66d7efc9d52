//! A real Apache Kafka beside us, for comparisons: one node, from the jars that `CW_KAFKA_LIBS` names (`cargo xtask compat`
//! fetches them). Without that variable, or without Java, what needs it is skipped, loudly.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const READY: Duration = Duration::from_secs(90);
/// Any id will do: the directory is the test's own.
const CLUSTER: &str = "Y2F0Y2h3YXRlci1wZWVyLTE";

/// The folder of jars, if there is one.
pub fn libs() -> Option<PathBuf> {
    match std::env::var_os("CW_KAFKA_LIBS") {
        Some(libs) => Some(PathBuf::from(libs)),
        None => {
            println!("SKIP: no Apache Kafka here; `cargo xtask compat compaction` brings one");
            None
        }
    }
}

/// The same, or what an earlier `cargo xtask compat` has left in the user's cache: for tests of a second or two, which run
/// wherever the jars happen to be.
pub fn cached_libs() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cache = std::env::var_os("CW_KAFKA_CACHE").map_or_else(|| home.join(".cache/catchwater-kafka"), PathBuf::from);
    let version =
        std::fs::read_dir(cache).into_iter().flatten().flatten().map(|e| e.path()).find(|p| p.join(".done").exists());
    let libs = std::env::var_os("CW_KAFKA_LIBS").map(PathBuf::from).or(version.map(|v| v.join("libs")));
    if libs.is_none() {
        println!("SKIP: no jars of Apache Kafka here; `cargo xtask compat compaction` brings them");
    }
    libs
}

/// Killed when dropped.
pub struct Kafka {
    child: Child,
    folder: PathBuf,
    pub address: SocketAddr,
}

fn java(libs: &Path) -> Command {
    let mut command = Command::new("java");
    command.arg("-Xmx768m").arg("-cp").arg(format!("{}/*", libs.display())).stdin(Stdio::null());
    command
}

/// Runs a class of the distribution to its end: what it prints.
pub fn tool(libs: &Path, class: &str, args: &[&str]) -> Result<String> {
    let out = java(libs).arg(class).args(args).output().context("java")?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    if !out.status.success() {
        bail!("{class} {args:?}: {}\n{text}{}", out.status, String::from_utf8_lossy(&out.stderr));
    }
    Ok(text)
}

impl Kafka {
    /// Formats a directory and starts a node with these settings beside the usual ones.
    pub fn start(libs: &Path, settings: &[(&str, &str)]) -> Result<Kafka> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("cw-kafka-{}-{number}", std::process::id()));
        std::fs::create_dir_all(folder.join("log"))?;
        // Free at this moment; another taker in between fails the test, which says so.
        let ports: Vec<TcpListener> =
            (0..2).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<_>>()?;
        let port = |i: usize| ports[i].local_addr().map(|a| a.port());
        let (broker, controller) = (port(0)?, port(1)?);
        let log = folder.join("log");
        let mut text = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             controller.listener.names=CONTROLLER\n\
             listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\nlog.dirs={}\n\
             offsets.topic.replication.factor=1\n",
            log.display()
        );
        for (key, value) in settings {
            text.push_str(&format!("{key}={value}\n"));
        }
        let properties = folder.join("server.properties");
        std::fs::write(&properties, text)?;
        let properties = properties.display().to_string();
        tool(libs, "kafka.tools.StorageTool", &["format", "-t", CLUSTER, "-c", &properties])?;
        drop(ports);
        let output = std::fs::File::create(folder.join("out"))?;
        let child = java(libs)
            .args(["kafka.Kafka", &properties])
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("java")?;
        let mut kafka = Kafka { child, folder, address: SocketAddr::from(([127, 0, 0, 1], broker)) };
        let deadline = Instant::now() + READY;
        while TcpStream::connect(kafka.address).is_err() {
            if let Some(status) = kafka.child.try_wait()? {
                bail!("Kafka ended with {status}: {}", kafka.output());
            }
            if Instant::now() > deadline {
                bail!("Kafka is not ready: {}", kafka.output());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(kafka)
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.folder.join("out")).unwrap_or_default()
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
