//! The parts of one node that its requests share.

use crate::api::Address;
use crate::audit::Auditor;
use crate::budget::Budget;
use crate::topics::Topics;
use catchwater_base::Clock;
use catchwater_coordinator::cluster::image::Image;
use catchwater_coordinator::{controller, group};
use catchwater_record::{GroupName, NodeId, ProducerId};
use catchwater_runtime::Fut;
use catchwater_storage::disk::{Disk, DiskExt, FilePath, Space};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Built once by `Broker::start`; handlers reach everything through it.
pub struct Node {
    pub config: NodeConfig,
    pub clock: Arc<dyn Clock>,
    /// `queued.max.request.bytes`
    pub request_budget: Budget,
    /// Bytes of fetch answers that were read and have not left yet.
    pub response_budget: Budget,
    pub topics: Arc<Topics>,
    pub controller: Arc<dyn ControllerAccess>,
    pub groups: Arc<dyn GroupsAccess>,
    /// Who keeps what requests change; `None` = nobody does.
    pub auditor: Option<Arc<dyn Auditor>>,
    pub volume: Volume,
}

/// Where the log directory is.
#[derive(Clone)]
pub struct Volume {
    disk: Arc<dyn Disk>,
    /// As the disk knows it.
    root: FilePath,
    /// Absolute.
    pub path: PathBuf,
}

impl Volume {
    pub fn new(disk: Arc<dyn Disk>, path: &Path) -> Self {
        let root = path.to_string_lossy().into_owned().into();
        Volume { disk, root, path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()) }
    }
    /// What its filesystem has, and what of that is free. Blocking, but of no I/O of the data directory.
    pub fn space(&self) -> Option<Space> {
        self.disk.space(&self.root).ok()
    }
}

/// Settings that handlers look at.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    pub id: NodeId,
    /// `fetch.max.bytes`
    pub fetch_bytes_max: u64,
    /// Largest batch the log takes, whatever a topic says.
    pub batch_bytes_max: usize,
    /// `auto.create.topics.enable`
    pub auto_create: bool,
    /// How long a Metadata request waits for a topic it made to have its leaders.
    pub create_wait_ms: u64,
}

/// Group 0 as the rest of the node sees it: the committed image, and the way to change it.
pub trait ControllerAccess: Send + Sync {
    fn image(&self) -> Arc<Image>;
    /// Answers when what the reply saw is committed and this node's listener has acted on it.
    fn ask(&self, request: controller::Request) -> Fut<'_, Result<controller::Reply, ControllerError>>;
    /// 16 unguessable bytes, for ids that requests bring along.
    fn draw(&self) -> [u8; 16];
    /// A producer id that nobody has. Takes a block for each; the host of group 0 has one in stock.
    fn producer_id(&self) -> Fut<'_, Result<ProducerId, ControllerError>> {
        Box::pin(async move {
            match self.ask(controller::Request::ProducerIds { node: NodeId(0) }).await? {
                controller::Reply::ProducerIds { first, .. } => Ok(first),
                _ => Err(ControllerError::Unknown),
            }
        })
    }
}

/// Why group 0 gave no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ControllerError {
    /// Surely nothing was changed.
    #[error("group 0 is not ready here")]
    NotReady,
    #[error("outcome unknown")]
    Unknown,
}

/// The group coordinators of this node: `__consumer_offsets`, made on demand.
pub trait GroupsAccess: Send + Sync {
    /// Answers when what the reply saw is committed.
    fn ask(&self, group: &GroupName, request: group::Request) -> Fut<'_, Result<group::Reply, GroupsError>>;
    /// Every group of the coordinators led here, by name; an error if one of them does not answer yet.
    fn list(&self) -> Fut<'_, Result<Vec<group::Listed>, GroupsError>>;
}

/// Why a group coordinator gave no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GroupsError {
    /// The topic is being made, or its partition has no leader.
    #[error("the group coordinator is not available")]
    NotAvailable,
    #[error("the group coordinator is loading")]
    Loading,
    #[error("the group coordinator is elsewhere")]
    NotCoordinator,
    #[error("outcome unknown")]
    Unknown,
}

/// A node as clients are told of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    pub id: i32,
    pub host: String,
    pub port: i32,
    pub rack: Option<String>,
}

impl Node {
    /// Every node; this one under the address the request came in on.
    pub fn endpoints(&self, advertised: &Address) -> Vec<Endpoint> {
        let own = Endpoint {
            id: wire_id(self.config.id),
            host: advertised.host.to_string(),
            port: i32::from(advertised.port),
            rack: None,
        };
        let image = self.controller.image();
        let mut all: Vec<Endpoint> = image
            .brokers()
            .filter(|broker| broker.id != self.config.id)
            .filter_map(|broker| {
                let listener = broker.listeners.first()?;
                Some(Endpoint {
                    id: wire_id(broker.id),
                    host: listener.host.clone(),
                    port: i32::from(listener.port),
                    rack: broker.rack.clone(),
                })
            })
            .collect();
        all.push(own);
        all.sort_by_key(|e| e.id);
        all
    }
}

pub fn wire_id(id: NodeId) -> i32 {
    i32::try_from(id.0).unwrap_or(-1)
}
