//! `catchwater start` and `catchwater dev`: a node in the foreground until a signal.

use crate::assemble::{Node, Wanted};
use crate::cli::{Dev, Start};
use crate::command::validate;
use crate::config::{self, NodeConfig};
use crate::observe;
use crate::pipeline::Options;
use crate::report::{Done, Exit, Failure, Output};
use crate::screen::Screen;
use crate::signal::Signals;
use catchwater_base::log::Level;
use catchwater_client::RevisionNote;
use catchwater_connector_sqlite::demo::{ShopWriter, make_shop};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a failed disk is looked for.
const WATCH_EVERY: Duration = Duration::from_millis(200);

/// The demo's shop: how its rows are drawn, and how lively it is.
const SHOP_SEED: u64 = 7;
const SHOP_TRANSACTIONS_PER_S: u32 = 50;

/// What a foreground command ends with: its outcome and, after a signal, the exit code of the signal.
pub struct Ended {
    pub outcome: Result<Done, Failure>,
    pub signal: Option<u8>,
}

impl From<Failure> for Ended {
    fn from(f: Failure) -> Self {
        Ended { outcome: Err(f), signal: None }
    }
}

pub async fn start(args: Start) -> Ended {
    observe::start_logging(Level::Info);
    let begun = async {
        let config = config::load(&args.node, args.profile.as_deref(), args.config.as_deref(), &[])?;
        let node = Node::start(&config).await?;
        node.run_stored();
        ready(&config, node).await
    };
    match begun.await {
        Ok((node, signals)) => {
            let why = until_signal(&node, signals).await;
            end(node, why).await
        }
        Err(f) => f.into(),
    }
}

/// Everything answers: tells whoever waits.
async fn ready(config: &NodeConfig, node: Node) -> Result<(Node, Signals), Failure> {
    let signals = Signals::listen();
    if let Some(path) = &config.port_file
        && let Err(f) = node.write_port_file(path)
    {
        node.shutdown().await?;
        return Err(f);
    }
    let connect = node.connect.as_ref().map(|c| format!("  connect {c}")).unwrap_or_default();
    eprintln!("catchwater: kafka {}  http {}{connect}  data {}", node.kafka, node.http, config.data_dir.display());
    Ok((node, signals))
}

/// Waits for a signal, which is answered with its exit code, or for a failed disk.
async fn until_signal(node: &Node, signals: Signals) -> Result<u8, Failure> {
    let mut signalled = std::pin::pin!(signals.wait());
    loop {
        tokio::select! {
            code = &mut signalled => return Ok(code),
            () = tokio::time::sleep(WATCH_EVERY) => if let Some(why) = node.broken() {
                return Err(Failure::new(Exit::Runtime, "CW0012", "the log directory failed; nothing is acknowledged any more")
                    .cause(why)
                    .next("check the disk, then start again: everything acknowledged is recovered"));
            },
        }
    }
}

async fn end(node: Node, why: Result<u8, Failure>) -> Ended {
    match why {
        Ok(code) => Ended { outcome: node.shutdown().await.map(|()| Done::silent()), signal: Some(code) },
        // Nothing can be made durable any more: there is nothing to drain, and who waits must hear of it within a second.
        Err(f) => f.into(),
    }
}

/// A directory that is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Scratch, Failure> {
        let nanos = catchwater_runtime::time::wall().as_micros();
        let path = std::env::temp_dir().join(format!("catchwater-dev.{}.{nanos}", std::process::id()));
        make_dir(&path, "set TMPDIR, or give --data-dir")?;
        Ok(Scratch(path))
    }
}

fn make_dir(path: &Path, next: &str) -> Result<(), Failure> {
    std::fs::create_dir_all(path).map_err(|e| {
        Failure::new(Exit::Environment, "CW0002", format!("cannot make {}", path.display()))
            .cause(e.to_string())
            .next(next)
    })
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A log that was not closed in time may make a file while this runs.
        for _ in 0..3 {
            if std::fs::remove_dir_all(&self.0).is_ok() {
                return;
            }
        }
    }
}

/// The demo's pipeline file: a shop in SQLite, copied into a second file.
const DEMO: &str = "\
version: 1
pipeline: demo
sources:
  shop:
    sqlite: { file: shop.db, tables: [customers, orders, items] }
sinks:
  copy:
    from: shop
    sqlite: { file: copy.db }
    mode: upsert
";

pub async fn dev(args: Dev, output: Output) -> Ended {
    observe::start_logging(Level::Warn);
    match prepare_dev(&args, output) {
        Ok(dev) => dev.run().await,
        Err(f) => f.into(),
    }
}

/// `dev` before anything runs.
struct Prepared {
    config: NodeConfig,
    text: String,
    /// Files of the pipeline are relative to it.
    base: PathBuf,
    demo: bool,
    /// Removed last.
    scratch: Option<Scratch>,
}

fn prepare_dev(args: &Dev, output: Output) -> Result<Prepared, Failure> {
    let scratch = if args.node.data_dir.is_none() { Some(Scratch::new()?) } else { None };
    let root = scratch.as_ref().map(|s| s.0.clone()).or(args.node.data_dir.clone()).unwrap_or_default();
    let mut flags = args.node.clone();
    if args.file.is_none() || flags.data_dir.is_none() {
        // The demo keeps its databases beside the log.
        flags.data_dir = Some(root.join("log"));
    }
    // A trial on a laptop's nearly full disk should run; what it keeps is small.
    let defaults = [
        ("group.initial.rebalance.delay.ms", "0".to_owned()),
        ("min.free.bytes", (256u64 << 20).to_string()),
        ("connect", "off".to_owned()),
    ];
    let config = NodeConfig { audit: false, ..config::load(&flags, None, None, &defaults)? };
    match &args.file {
        Some(file) => {
            let (_, text, _) = validate::load(file, Options { plain_secrets: true }, output)?;
            let base = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Ok(Prepared { config, text, base: base.to_path_buf(), demo: false, scratch })
        }
        None => {
            make_dir(&root, "give a writable --data-dir")?;
            Ok(Prepared { config, text: DEMO.into(), base: root, demo: true, scratch })
        }
    }
}

impl Prepared {
    async fn run(self) -> Ended {
        let Prepared { config, text, base, demo, scratch } = self;
        let shop = demo.then(|| base.join("shop.db"));
        let no_shop = |e: catchwater_connector_sqlite::demo::DemoError| {
            Failure::new(Exit::Environment, "CW0011", "cannot make the demo's database")
                .cause(e.to_string())
                .next("give a writable --data-dir")
        };
        if let Some(file) = shop.as_ref().filter(|f| !f.exists())
            && let Err(e) = make_shop(file, SHOP_SEED)
        {
            return no_shop(e).into();
        }
        // Absolute: the stored text may run from elsewhere.
        let base_dir = std::path::absolute(&base).unwrap_or_else(|_| base.clone()).display().to_string();
        let note = RevisionNote { base_dir, message: "catchwater dev".into(), ..RevisionNote::default() };
        let wanted = Wanted { text, note, dev: true, ..Wanted::default() };
        // The demo's databases are thrown away whole.
        let throw_away = scratch.is_some() && !demo;
        let begun = async {
            let node = Node::start(&config).await?;
            if let Err(f) = node.run_pipeline(wanted, throw_away).await {
                node.shutdown().await?;
                return Err(f);
            }
            ready(&config, node).await
        };
        let (node, signals) = match begun.await {
            Ok(both) => both,
            Err(f) => return f.into(),
        };
        let writer = match shop.map(|file| ShopWriter::start(&file, SHOP_TRANSACTIONS_PER_S, SHOP_SEED)).transpose() {
            Ok(writer) => writer,
            Err(e) => {
                let _ = node.shutdown().await;
                return no_shop(e).into();
            }
        };
        let screen = Screen::start(node.state(), node.kafka.clone(), demo.then(|| base.clone()));
        let why = until_signal(&node, signals).await;
        // Before the workers go: its last line shows them.
        drop(screen);
        let ended = end(node, why).await;
        if let Some(writer) = writer {
            writer.stop();
        }
        drop(scratch);
        ended
    }
}
