//! Apache Kafka 4.3.1 as a peer: three KRaft nodes, each broker and controller with its log directory where it is told, from the
//! jars of Maven Central. `CW_KAFKA_LIBS` names a folder with the jars; else `mvn` fetches them once into `CW_CHECK_CACHE`.

use anyhow::{Context, Result, bail, ensure};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const VERSION: &str = "4.3.1";
const NODES: usize = 3;
/// Three virtual machines start at once on a busy machine.
const READY: Duration = Duration::from_secs(120);

const POM: &str = r#"<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>peer</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>VERSION</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.4</version></dependency>
</dependencies></project>
"#;
const LOG4J: &str = "status = error
appender.c.type = Console
appender.c.name = C
appender.c.target = SYSTEM_ERR
appender.c.layout.type = PatternLayout
appender.c.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = info
rootLogger.appenderRef.c.ref = C
";

/// Folder of the jars, fetched if need be; or why there is none.
pub fn libs() -> Result<PathBuf> {
    let java = Command::new("java").arg("-version").output().context("java")?;
    ensure!(java.status.success(), "java -version: {}", java.status);
    if let Some(given) = std::env::var_os("CW_KAFKA_LIBS") {
        return Ok(PathBuf::from(given));
    }
    let cache = std::env::var_os("CW_CHECK_CACHE")
        .map_or_else(|| std::env::temp_dir().join("catchwater-check-cache"), PathBuf::from)
        .join(format!("kafka-{VERSION}"));
    let (libs, done) = (cache.join("libs"), cache.join("done"));
    if !done.exists() {
        std::fs::create_dir_all(&cache)?;
        std::fs::write(cache.join("pom.xml"), POM.replace("VERSION", VERSION))?;
        let out = Command::new("mvn")
            .current_dir(&cache)
            .args(["-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime"])
            .arg(format!("-DoutputDirectory={}", libs.display()))
            .output()
            .context("mvn")?;
        ensure!(out.status.success(), "mvn: {}", String::from_utf8_lossy(&out.stdout).trim());
        std::fs::write(done, "")?;
    }
    Ok(libs)
}

/// One node: its folder (configuration, its own words) and, elsewhere, its log directory.
struct Member {
    folder: PathBuf,
    child: Option<Child>,
}

/// Three nodes, each the controllers' voter too. Killed when dropped.
pub struct Cluster {
    libs: PathBuf,
    log4j: PathBuf,
    members: Vec<Member>,
    bootstrap: String,
}

impl Cluster {
    /// Formats the log directories `logs` and writes the configurations below `folder`, `more` (`key=value`) added to each.
    pub fn format(folder: &Path, logs: &[PathBuf], more: &[&str]) -> Result<Cluster> {
        ensure!(logs.len() == NODES, "three log directories");
        // Held open together, so that they differ.
        let held: Vec<TcpListener> =
            (0..2 * NODES).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<_>>()?;
        let ports: Vec<u16> = held.iter().map(|l| l.local_addr().map(|a| a.port())).collect::<std::io::Result<_>>()?;
        let (brokers, controllers) = ports.split_at(NODES);
        drop(held);
        let voters: Vec<String> = controllers.iter().zip(1..).map(|(p, id)| format!("{id}@127.0.0.1:{p}")).collect();
        let bootstrap = brokers.iter().map(|p| format!("127.0.0.1:{p}")).collect::<Vec<_>>().join(",");
        let log4j = folder.join("log4j2.properties");
        std::fs::write(&log4j, LOG4J)?;
        let mut cluster = Cluster { libs: libs()?, log4j, members: Vec::new(), bootstrap };
        for (at, log) in logs.iter().enumerate() {
            let (id, broker, controller) = (at + 1, brokers[at], controllers[at]);
            let folder = folder.join(format!("node{id}"));
            std::fs::create_dir_all(&folder)?;
            let mut lines = format!(
                "process.roles=broker,controller\nnode.id={id}\ncontroller.quorum.voters={}\n\
                 controller.listener.names=CONTROLLER\n\
                 listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}\n\
                 advertised.listeners=PLAINTEXT://127.0.0.1:{broker}\n\
                 listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\nlog.dirs={}\n\
                 default.replication.factor=3\nmin.insync.replicas=2\noffsets.topic.replication.factor=3\n\
                 transaction.state.log.replication.factor=3\ntransaction.state.log.min.isr=2\n\
                 share.coordinator.state.topic.replication.factor=3\nshare.coordinator.state.topic.min.isr=2\n",
                voters.join(","),
                log.display(),
            );
            for line in more {
                lines.push_str(line);
                lines.push('\n');
            }
            let properties = folder.join("server.properties");
            std::fs::write(&properties, lines)?;
            let out = cluster
                .java()
                .args(["kafka.tools.StorageTool", "format", "-t", "Y2F0Y2h3YXRlci1wZWVyLTE", "-c"])
                .arg(&properties)
                .output()?;
            ensure!(out.status.success(), "formatting node {id}: {}", String::from_utf8_lossy(&out.stderr).trim());
            cluster.members.push(Member { folder, child: None });
        }
        Ok(cluster)
    }

    fn java(&self) -> Command {
        let mut java = Command::new("java");
        java.args(["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-Djava.awt.headless=true"])
            .arg(format!("-Dlog4j2.configurationFile={}", self.log4j.display()))
            .arg("-cp")
            .arg(self.libs.join("*"))
            .stdin(Stdio::null());
        java
    }

    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Starts all; returns once each says that it has started.
    pub fn start(&mut self) -> Result<()> {
        for at in 0..self.members.len() {
            let folder = self.members[at].folder.clone();
            let log = std::fs::File::create(folder.join("log"))?;
            let mut java = self.java();
            java.arg("kafka.Kafka").arg(folder.join("server.properties"));
            let child = java.stdout(log.try_clone()?).stderr(log).spawn().context("java")?;
            self.members[at].child = Some(child);
        }
        let deadline = Instant::now() + READY;
        for (at, member) in self.members.iter_mut().enumerate() {
            let words = || std::fs::read_to_string(member.folder.join("log")).unwrap_or_default();
            while !words().contains("Kafka Server started") {
                let ended = member.child.as_mut().map(Child::try_wait).transpose()?.flatten();
                if ended.is_some() || Instant::now() > deadline {
                    let text = words();
                    let last: Vec<&str> = text.lines().rev().take(12).collect();
                    let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
                    bail!("node {} does not start ({ended:?}):\n{last}", at + 1);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    /// SIGKILL to all; gone when this returns.
    pub fn kill(&mut self) {
        for member in &mut self.members {
            if let Some(child) = &mut member.child {
                let _ = child.kill();
            }
        }
        for member in &mut self.members {
            if let Some(mut child) = member.child.take() {
                let _ = child.wait();
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill();
    }
}
