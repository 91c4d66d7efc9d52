//! The machine with the node on it: lives of the broker on one disk, one after the other.

use crate::client::ADDRESS;
use crate::disk::{LifeDisk, Pace};
use crate::ledger::Ledger;
use crate::swarm::Swarm;
use catchwater_base::Rng;
use catchwater_broker::{Broker, BrokerConfig};
use catchwater_runtime::shutdown::{self, Stop};
use catchwater_runtime::sim::net::{Death, Delays};
use catchwater_runtime::sim::{Host, World};
use catchwater_runtime::time;
use catchwater_storage::disk::faulty::{FaultRates, FaultyDisk};
use catchwater_storage::disk::memory::{Cut, MemoryDisk};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bytes of the machine's disk.
const DISK_BYTES: u64 = 256 << 20;
/// A start takes at most so long, however slow the disk; a shutdown too.
const START_LIMIT: Duration = Duration::from_secs(120);
/// What a shutdown may leave to end by itself.
const LEFT_LIMIT: Duration = Duration::from_secs(10);
/// How often the machine looks whether its node has stopped for an error of the disk.
const LOOK: Duration = Duration::from_millis(20);

/// What was done to the node.
#[derive(Default)]
pub struct Counts {
    pub kills: AtomicU64,
    pub power_cuts: AtomicU64,
    pub shutdowns: AtomicU64,
    pub disk_deaths: AtomicU64,
    pub starts: AtomicU64,
}

pub struct Machine {
    world: Arc<World>,
    ledger: Arc<Ledger>,
    swarm: Swarm,
    pub memory: Arc<MemoryDisk>,
    pub disk: Arc<FaultyDisk>,
    pub pace: Arc<Pace>,
    pub counts: Counts,
    rng: Rng,
    life: Option<Life>,
}

/// One process.
pub struct Life {
    pub host: Arc<Host>,
    stop: Stop,
    ended: catchwater_runtime::sync::watch::Receiver<Option<End>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    ShutDown,
    Disk(String),
    NotStarted(String),
}

impl Machine {
    pub fn new(world: Arc<World>, ledger: Arc<Ledger>, swarm: Swarm) -> Machine {
        let mut rng = world.fork(1);
        let memory = Arc::new(MemoryDisk::new());
        memory.set_capacity(DISK_BYTES);
        let disk = Arc::new(FaultyDisk::new(memory.clone(), FaultRates::default(), rng.next_u64()));
        let pace = Arc::new(Pace::default());
        pace.set_sync_ms(swarm.sync_ms);
        let (least, spread) = swarm.link_us;
        world.net().set_delays(Delays { least: Duration::from_micros(least), spread: Duration::from_micros(spread) });
        Machine { world, ledger, swarm, memory, disk, pace, counts: Counts::default(), rng, life: None }
    }

    pub fn life(&self) -> Option<&Life> {
        self.life.as_ref()
    }

    /// Starts the next life; whether it serves is seen by the clients.
    pub fn start(&mut self) {
        self.counts.starts.fetch_add(1, Ordering::Relaxed);
        let host = self.world.host("node");
        let disk = Arc::new(LifeDisk { inner: self.disk.clone(), host: host.clone(), pace: self.pace.clone() });
        let mut config = BrokerConfig::new("/data", ADDRESS.parse().expect("a literal"));
        config.journal_file_bytes = self.swarm.journal_file_bytes;
        config.journal_files = 2;
        config.segment_bytes = self.swarm.segment_bytes;
        config.min_free_bytes = Some(256 << 10);
        config.auto_create = false;
        config.group_initial_delay_ms = 100;
        config.tail_bytes_max = 64 << 10;
        let (stop, mut stopped) = shutdown::channel();
        let (sender, ended) = catchwater_runtime::sync::watch::channel(None);
        host.spawn(async move {
            let end = match Broker::start_on(config, disk).await {
                Err(error) => End::NotStarted(chain(&error)),
                Ok(broker) => loop {
                    if let Some(error) = broker.disk_failure() {
                        break End::Disk(error.to_string());
                    }
                    if time::timeout(LOOK, stopped.wait()).await.is_ok() {
                        broker.shutdown().await;
                        break End::ShutDown;
                    }
                },
            };
            let _ = sender.send(Some(end));
        });
        self.life = Some(Life { host, stop, ended });
    }

    /// The process dies; with `cut`, the machine.
    pub async fn kill(&mut self, cut: Option<Cut>) {
        let Some(life) = self.life.take() else { return };
        let how = if cut.is_some() && self.rng.chance(300_000) { Death::Silent } else { Death::Loud };
        life.host.kill(self.world.net(), how).await;
        match cut {
            None => {
                self.counts.kills.fetch_add(1, Ordering::Relaxed);
                self.disk.kill();
            }
            Some(cut) => {
                self.counts.power_cuts.fetch_add(1, Ordering::Relaxed);
                self.disk.power_cut(cut);
            }
        }
    }

    /// Ends in order; what is left behind is a violation.
    pub async fn shut_down(&mut self) -> Option<End> {
        let mut life = self.life.take()?;
        life.stop.stop();
        let waited = time::timeout(START_LIMIT, life.ended.wait_for(Option::is_some)).await;
        let end = match waited {
            Err(_) => {
                self.ledger.violation("a shutdown takes longer than two minutes".to_owned());
                None
            }
            Ok(end) => end.ok().and_then(|end| end.clone()),
        };
        if end == Some(End::ShutDown) {
            self.counts.shutdowns.fetch_add(1, Ordering::Relaxed);
            // The task that reported it ends in its next poll; a read of the disk for a client that is gone, when it is done.
            let begun = self.world.elapsed();
            while life.host.running() != (0, 0) {
                if self.world.elapsed() - begun > LEFT_LIMIT {
                    let (tasks, threads) = life.host.running();
                    self.ledger.violation(format!("a shutdown leaves {tasks} tasks and {threads} threads behind"));
                    break;
                }
                time::sleep(Duration::from_millis(5)).await;
            }
        }
        life.host.kill(self.world.net(), Death::Loud).await;
        self.disk.kill();
        end
    }

    /// True if the present life has ended by itself, for an error of its disk; it is buried then.
    pub async fn bury(&mut self) -> bool {
        let end = match &self.life {
            None => return false,
            Some(life) => life.ended.borrow().clone(),
        };
        match end {
            None => false,
            Some(End::ShutDown) => {
                self.ledger.violation("the node ended although nobody asked it to".to_owned());
                true
            }
            Some(End::Disk(_) | End::NotStarted(_)) => {
                self.counts.disk_deaths.fetch_add(1, Ordering::Relaxed);
                if let Some(life) = self.life.take() {
                    life.host.kill(self.world.net(), Death::Loud).await;
                }
                // What a failed sync left in the cache: a restart sees it, a loss of power takes it.
                let cut = [None, Some(Cut::LoseAll), Some(Cut::Random)][self.rng.below(3) as usize];
                match cut {
                    None => self.disk.kill(),
                    Some(cut) => self.disk.power_cut(cut),
                }
                true
            }
        }
    }

    /// Why the present life did not start.
    pub fn not_started(&self) -> Option<String> {
        match &*self.life.as_ref()?.ended.borrow() {
            Some(End::NotStarted(why)) => Some(why.clone()),
            _ => None,
        }
    }

    pub fn full(&self) {
        use catchwater_storage::disk::DiskExt;
        let free = self.memory.space("/").map_or(0, |s| s.free);
        self.memory.set_capacity(DISK_BYTES - free + (64 << 10));
    }
    pub fn room(&self) {
        self.memory.set_capacity(DISK_BYTES);
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
