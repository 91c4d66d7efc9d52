#![allow(clippy::unwrap_used)]
//! The contract's conformance suite (`client/conformance.rs`) against the clients in process, over a whole node on disk.

use catchwater_broker::{Broker, BrokerConfig};
use catchwater_client::{LogClient, conformance};
use std::path::PathBuf;
use std::sync::Arc;

/// A directory of its own, gone with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        let mut id = [0; 8];
        catchwater_runtime::random::fill(&mut id).unwrap();
        let path = std::env::temp_dir().join(format!("catchwater-conformance-{:016x}", u64::from_le_bytes(id)));
        std::fs::create_dir_all(&path).unwrap();
        Dir(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_client_conforms() {
    let dir = Dir::new();
    let mut config = BrokerConfig::new(dir.0.join("data"), "127.0.0.1:0".parse().unwrap());
    config.journal_files = 1;
    let broker = Broker::start(config).await.unwrap();
    let make = || -> Arc<dyn LogClient> { Arc::new(broker.local().handle()) };
    conformance::run(&make, broker.local(), broker.local()).await;
    broker.shutdown().await;
}
