//! The host of group 0: the cluster's image and its tasks.
//!
//! What others read is the *committed* image; a [`ClusterListener`] hears of each change after it is committed and
//! before any answer that depends on it leaves.

use super::core::HostError;
use super::log::HostLog;
use super::shell::{Follower, Host, Hosted};
use crate::node::{ControllerAccess, ControllerError};
use catchwater_base::hash::Seeded;
use catchwater_base::{Clock, log};
use catchwater_coordinator::Controller;
use catchwater_coordinator::cluster::brokers::Registration;
use catchwater_coordinator::cluster::image::{Change, Image, Topic};
use catchwater_coordinator::controller::{Record, Reply, Request, Settings};
use catchwater_coordinator::tasks::state::Tasks;
use catchwater_record::{NodeId, Offset, ProducerId, TopicId};
use catchwater_runtime::Fut;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// Acts on committed changes of the image: opens and drops partitions. Called in the order of the log, from one thread
/// at a time, without a lock of the cluster host that the listener could need; returns soon (it may queue disk work).
pub trait ClusterListener: Send + Sync {
    /// Also called for every topic there is, once, when the image is loaded at start.
    fn topic_created(&self, topic: &Arc<Topic>);
    /// Its owner is another, or it has more partitions.
    fn topic_changed(&self, _topic: &Arc<Topic>) {}
    fn topic_deleted(&self, topic: TopicId);
    fn config_changed(&self, topic: TopicId);
    /// As [`ClusterListener::topic_deleted`], for those who need its name.
    fn topic_gone(&self, topic: &Arc<Topic>) {
        self.topic_deleted(topic.id);
    }
    /// For every topic that is not there any more, once, when the image is loaded at start: a death may have come between
    /// its end and that of its files. Its name may be another topic's today.
    fn topic_was(&self, _topic: &Arc<Topic>) {}
}

/// How long a request waits for group 0 to be led and loaded.
const READY: Duration = Duration::from_secs(10);

impl Hosted for Controller {
    fn wake() -> Request {
        Request::Wake
    }
    fn may_write(request: &Request) -> bool {
        !matches!(request, Request::Barrier)
    }
}

/// Group 0 on this node.
pub struct ClusterHost {
    host: Arc<Host<Controller>>,
    published: Arc<Published>,
    /// Keyed by a secret, fed by a counter: nobody who has seen some ids can guess others.
    draw: (Seeded, AtomicU64),
    /// What is left of this node's block: the next id and how many.
    producer_ids: Mutex<(ProducerId, u32)>,
}

impl ClusterHost {
    /// Starts the host over the log of group 0. `seed` must be unguessable: topic ids are drawn from it. Listeners hear
    /// in the order given.
    pub fn start(
        settings: Settings,
        log: Arc<dyn HostLog>,
        clock: Arc<dyn Clock>,
        seed: u64,
        listeners: Vec<Arc<dyn ClusterListener>>,
    ) -> Arc<Self> {
        let published = Arc::new(Published {
            image: RwLock::default(),
            tasks: RwLock::default(),
            upto: Mutex::new(Progress { upto: Offset::ZERO, loaded: false, gone: Vec::new() }),
            listeners: RwLock::new(listeners),
        });
        let host = Host::start("cluster", Controller::new(settings), log, clock, published.clone());
        let producer_ids = Mutex::new((ProducerId(0), 0));
        Arc::new(ClusterHost { host, published, draw: (Seeded::new(seed), AtomicU64::new(0)), producer_ids })
    }

    /// First words of a node: founds the cluster if it has no id yet, then registers. Waits for group 0.
    pub async fn begin(&self, cluster_id: [u8; 16], node: Registration) -> Result<(), HostError> {
        self.host.ask_ready(Request::Found { cluster_id }, READY).await?;
        self.host.ask(Request::Register(node)).await?;
        Ok(())
    }

    /// Adds a listener behind the others; it hears of what is committed from now on.
    pub fn also(&self, listener: Arc<dyn ClusterListener>) {
        self.published.listeners.write().unwrap_or_else(PoisonError::into_inner).push(listener);
    }

    /// At the node's end: nobody is told of anything any more.
    pub fn forget_listeners(&self) {
        self.published.listeners.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The committed image.
    pub fn image(&self) -> Arc<Image> {
        self.published.image.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The committed tasks.
    pub fn tasks(&self) -> Arc<Tasks> {
        self.published.tasks.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Decided in the call, answered when committed and listened to; waits out a load.
    pub async fn ask(&self, request: Request) -> Result<Reply, HostError> {
        self.host.ask_ready(request, READY).await
    }

    pub async fn ready(&self, limit: Duration) -> bool {
        self.host.ready(limit).await
    }

    /// Why the log of group 0 could not be loaded.
    pub fn broken(&self) -> Option<String> {
        self.host.broken()
    }

    /// From this node's block; a new one is asked for when it is used up. Two callers at that moment ask twice, and what
    /// is left of one block is never used: ids are plenty.
    async fn next_producer_id(&self) -> Result<ProducerId, HostError> {
        let stock = || self.producer_ids.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut stock = stock();
            if stock.1 > 0 {
                let id = stock.0;
                *stock = (ProducerId(id.0 + 1), stock.1 - 1);
                return Ok(id);
            }
        }
        // The block's owner is for people who read the log.
        let node = self.image().brokers().next().map_or(NodeId(0), |b| b.id);
        match self.ask(Request::ProducerIds { node }).await? {
            Reply::ProducerIds { first, count } => {
                *stock() = (ProducerId(first.0 + 1), count.saturating_sub(1));
                Ok(first)
            }
            other => Err(HostError::Broken(format!("{other:?} to a request for producer ids"))),
        }
    }

    /// 16 unguessable bytes: topic ids, member ids.
    pub fn draw(&self) -> [u8; 16] {
        let (secret, counter) = &self.draw;
        let n = counter.fetch_add(1, Ordering::Relaxed);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&secret.hash_one((n, 0u8)).to_le_bytes());
        bytes[8..].copy_from_slice(&secret.hash_one((n, 1u8)).to_le_bytes());
        // The form of a random UUID (RFC 9562, version 4), as Kafka's ids have.
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        bytes
    }
}

impl ControllerAccess for ClusterHost {
    fn image(&self) -> Arc<Image> {
        ClusterHost::image(self)
    }
    fn ask(&self, request: Request) -> Fut<'_, Result<Reply, ControllerError>> {
        Box::pin(async move { ClusterHost::ask(self, request).await.map_err(|e| controller_error(&e)) })
    }
    fn draw(&self) -> [u8; 16] {
        ClusterHost::draw(self)
    }
    fn producer_id(&self) -> Fut<'_, Result<ProducerId, ControllerError>> {
        Box::pin(async move { self.next_producer_id().await.map_err(|e| controller_error(&e)) })
    }
}

/// What an unanswered request means to its asker.
pub fn controller_error(error: &HostError) -> ControllerError {
    match error {
        HostError::Unknown => ControllerError::Unknown,
        HostError::NotLeader | HostError::Loading | HostError::Refused(_) | HostError::Broken(_) => {
            ControllerError::NotReady
        }
    }
}

/// The committed state, as everybody else reads it.
struct Published {
    image: RwLock<Arc<Image>>,
    tasks: RwLock<Arc<Tasks>>,
    upto: Mutex<Progress>,
    listeners: RwLock<Vec<Arc<dyn ClusterListener>>>,
}

struct Progress {
    /// A reload tells of batches that were told before; what ends here or below is known.
    upto: Offset,
    /// Until the first load is whole nobody is told of topics that may be gone a moment later.
    loaded: bool,
    /// Those that were gone a moment later.
    gone: Vec<Arc<Topic>>,
}

impl Published {
    fn tell(&self, change: &Change) {
        let listeners = self.listeners.read().unwrap_or_else(PoisonError::into_inner).clone();
        for listener in &listeners {
            match change {
                Change::TopicCreated(topic) => listener.topic_created(topic),
                Change::TopicDeleted(topic) => listener.topic_gone(topic),
                Change::TopicConfig(topic) => listener.config_changed(*topic),
                Change::TopicChanged(topic) => listener.topic_changed(topic),
                Change::BrokerConfig | Change::Other => {}
            }
        }
    }
}

impl Follower<Controller> for Published {
    fn committed(&self, records: Vec<Record>, end: Offset) {
        let loaded = {
            let mut progress = self.upto.lock().unwrap_or_else(PoisonError::into_inner);
            if end <= progress.upto {
                return;
            }
            progress.upto = end;
            progress.loaded
        };
        let mut changes = Vec::new();
        {
            // Cloned only if a reader holds the old one at this moment.
            let mut image = self.image.write().unwrap_or_else(PoisonError::into_inner);
            let mut tasks = self.tasks.write().unwrap_or_else(PoisonError::into_inner);
            for record in &records {
                match record {
                    Record::Cluster(record) => changes.push(Arc::make_mut(&mut image).apply(record)),
                    Record::Task(record) => Arc::make_mut(&mut tasks).apply(record),
                }
            }
        }
        if loaded {
            changes.iter().for_each(|change| self.tell(change));
        } else {
            let gone = changes.into_iter().filter_map(|c| if let Change::TopicDeleted(t) = c { Some(t) } else { None });
            self.upto.lock().unwrap_or_else(PoisonError::into_inner).gone.extend(gone);
        }
    }

    fn leading(&self) {
        let (first, gone) = {
            let mut progress = self.upto.lock().unwrap_or_else(PoisonError::into_inner);
            (!std::mem::replace(&mut progress.loaded, true), std::mem::take(&mut progress.gone))
        };
        if first {
            let image = self.image.read().unwrap_or_else(PoisonError::into_inner).clone();
            log!(Debug, "cluster.loaded", "{} topics", image.topics_count());
            for topic in image.topics() {
                self.tell(&Change::TopicCreated(topic.clone()));
            }
            let listeners = self.listeners.read().unwrap_or_else(PoisonError::into_inner).clone();
            gone.iter().for_each(|topic| listeners.iter().for_each(|listener| listener.topic_was(topic)));
        }
    }
}
