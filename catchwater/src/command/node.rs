//! `catchwater start` and `catchwater dev`: a node in the foreground until a signal.

use crate::assemble::Node;
use crate::cli::Start;
use crate::config::{self, NodeConfig};
use crate::report::{Done, Exit, Failure};
use crate::{observe, signal};
use catchwater_base::log::Level;
use std::time::Duration;

/// How often a failed disk is looked for.
const WATCH_EVERY: Duration = Duration::from_millis(200);

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
        ready(&config, node).await
    };
    match begun.await {
        Ok(node) => until_signal(node).await,
        Err(f) => f.into(),
    }
}

/// Everything answers: tells whoever waits.
async fn ready(config: &NodeConfig, node: Node) -> Result<Node, Failure> {
    if let Some(path) = &config.port_file
        && let Err(f) = node.write_port_file(path)
    {
        node.shutdown().await?;
        return Err(f);
    }
    eprintln!("catchwater: kafka {}  http {}  data {}", node.kafka, node.http, config.data_dir.display());
    Ok(node)
}

/// Waits for a signal or a failed disk, then ends the node.
async fn until_signal(node: Node) -> Ended {
    let mut signalled = std::pin::pin!(signal::wait());
    let code = loop {
        tokio::select! {
            code = &mut signalled => break code,
            () = tokio::time::sleep(WATCH_EVERY) => if let Some(why) = node.broken() {
                let f = Failure::new(Exit::Runtime, "CW0012", "the log directory failed; nothing is acknowledged any more")
                    .cause(why)
                    .next("check the disk, then start again: everything acknowledged is recovered");
                let _ = node.shutdown().await;
                return f.into();
            },
        }
    };
    Ended { outcome: node.shutdown().await.map(|()| Done::silent()), signal: Some(code) }
}
