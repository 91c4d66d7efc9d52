//! The hosts of `__consumer_offsets`: one machine per partition, made when the topic is.
//!
//! Walk: commit-offset 2/8
//!
//! A group lives in partition `abs(java hash of its id) % partitions`, as tools expect. The topic is made at the first
//! use of a coordinator, through the cluster machine like any other.

use super::cluster::ClusterListener;
use super::core::HostError;
use super::log::HostLog;
use super::shell::{Host, Hosted, NoFollower};
use crate::node::{ControllerAccess, GroupsAccess, GroupsError};
use crate::topics::Topics;
use catchwater_base::{Clock, log};
use catchwater_coordinator::cluster::image::Topic;
use catchwater_coordinator::cluster::topics::{CreateTopic, TopicError};
use catchwater_coordinator::controller;
use catchwater_coordinator::group::{Groups, Listed, Reply, Request, Settings, partition_of};
use catchwater_record::{GroupName, TopicId, TopicPartition};
use catchwater_runtime::Fut;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// Kafka's name, and its `offsets.topic.num.partitions`.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
pub const OFFSETS_PARTITIONS: i32 = 50;

/// How long a first use waits for the topic to be there, led and loaded.
const READY: Duration = Duration::from_secs(5);

impl Hosted for Groups {
    fn wake() -> Request {
        Request::Wake
    }
    fn may_write(request: &Request) -> bool {
        match request {
            Request::Heartbeat(_) | Request::Fetch(_) | Request::Describe { .. } | Request::List => false,
            Request::Wake
            | Request::Join(_)
            | Request::Sync(_)
            | Request::Leave(_)
            | Request::Commit(_)
            | Request::TopicDeleted { .. }
            | Request::DeleteOffsets { .. }
            | Request::Delete { .. } => true,
        }
    }
}

fn unavailable(error: HostError) -> GroupsError {
    match error {
        HostError::Loading => GroupsError::Loading,
        HostError::NotLeader => GroupsError::NotCoordinator,
        HostError::Unknown => GroupsError::Unknown,
        HostError::Refused(_) | HostError::Broken(_) => GroupsError::NotAvailable,
    }
}

/// The partitions that are open on this node; a seam, so that a test can open them late.
trait Logs: Send + Sync {
    fn log(&self, at: TopicPartition) -> Option<Arc<dyn HostLog>>;
}

impl Logs for Topics {
    fn log(&self, at: TopicPartition) -> Option<Arc<dyn HostLog>> {
        Some(self.find(at)?)
    }
}

/// All group coordinators of this node. A [`ClusterListener`] behind [`Topics`], which opens the partitions.
pub struct GroupHosts {
    settings: Settings,
    topics: Arc<dyn Logs>,
    /// Weak: the host of group 0 holds this one as its listener.
    controller: Weak<dyn ControllerAccess>,
    clock: Arc<dyn Clock>,
    hosts: Mutex<Option<Hosts>>,
}

struct Hosts {
    topic: TopicId,
    partitions: u32,
    by_partition: BTreeMap<u32, Arc<Host<Groups>>>,
}

impl GroupHosts {
    pub fn new(
        settings: Settings,
        topics: Arc<Topics>,
        controller: Arc<dyn ControllerAccess>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let controller = Arc::downgrade(&controller);
        Arc::new(GroupHosts { settings, topics, controller, clock, hosts: Mutex::default() })
    }

    /// Starts the machines of the partitions that are here, if the topic is. Call once group 0 is loaded, so that
    /// sessions and retention run before somebody asks; in the runtime, because each machine has a task.
    pub fn open(&self) -> bool {
        let mut hosts = self.lock();
        let image = self.controller.upgrade().map(|c| c.image()).unwrap_or_default();
        let Some(topic) = image.topic_by_name(OFFSETS_TOPIC) else {
            *hosts = None;
            return false;
        };
        let partitions = topic.partitions_count();
        if hosts.as_ref().is_none_or(|h| h.topic != topic.id) {
            *hosts = Some(Hosts { topic: topic.id, partitions, by_partition: BTreeMap::new() });
        }
        let Some(hosts) = hosts.as_mut() else { return false };
        if hosts.by_partition.len() == partitions as usize {
            return true;
        }
        // The image knows a topic a moment before its partitions are open here: what was not there is looked for again.
        for partition in 0..partitions {
            if !hosts.by_partition.contains_key(&partition)
                && let Some(log) = self.topics.log(TopicPartition::new(topic.id, partition))
            {
                let machine = Groups::new(self.settings.clone());
                let name = format!("groups {partition}");
                let host = Host::start(name, machine, log, self.clock.clone(), Arc::new(NoFollower));
                hosts.by_partition.insert(partition, host);
            }
        }
        true
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Hosts>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine of a group, if the topic is there.
    fn host(&self, group: &str) -> Option<Result<Arc<Host<Groups>>, GroupsError>> {
        if !self.open() {
            return None;
        }
        let hosts = self.lock();
        let hosts = hosts.as_ref()?;
        let partition = partition_of(group, hosts.partitions);
        Some(hosts.by_partition.get(&partition).cloned().ok_or(GroupsError::NotCoordinator))
    }

    async fn make_topic(&self) -> Result<(), GroupsError> {
        let controller = self.controller.upgrade().ok_or(GroupsError::NotAvailable)?;
        let set = |key: &str, value: &str| (key.to_owned(), Some(value.to_owned()));
        let topic = CreateTopic {
            partitions: Some(OFFSETS_PARTITIONS),
            internal: true,
            // As Kafka makes it; old positions must never be deleted by age.
            configs: vec![set("cleanup.policy", "compact"), set("segment.bytes", "104857600")],
            ..CreateTopic::named(OFFSETS_TOPIC, TopicId(controller.draw()))
        };
        let request = controller::Request::CreateTopics { topics: vec![topic], validate_only: false };
        match controller.ask(request).await {
            Ok(controller::Reply::Topics(results)) => match results.into_iter().next() {
                Some(Ok(_) | Err(TopicError::Exists(_))) => Ok(()),
                other => {
                    log!(Warn, "groups.topic", "{OFFSETS_TOPIC} cannot be made: {other:?}");
                    Err(GroupsError::NotAvailable)
                }
            },
            _ => Err(GroupsError::NotAvailable),
        }
    }

    async fn answer(&self, group: GroupName, request: Request) -> Result<Reply, GroupsError> {
        let host = match self.host(group.as_str()) {
            Some(host) => host?,
            None => {
                self.make_topic().await?;
                self.host(group.as_str()).ok_or(GroupsError::NotAvailable)??
            }
        };
        host.ask_ready(request, READY).await.map_err(unavailable)
    }

    /// Every machine that is led here.
    pub fn all(&self) -> Vec<Arc<Host<Groups>>> {
        self.lock().iter().flat_map(|h| h.by_partition.values().cloned()).collect()
    }
}

impl GroupsAccess for GroupHosts {
    /// Decided before the first wait once the machine is loaded: requests of one connection keep their order.
    fn ask(&self, group: &GroupName, request: Request) -> Fut<'_, Result<Reply, GroupsError>> {
        Box::pin(self.answer(group.clone(), request))
    }

    fn list(&self) -> Fut<'_, Result<Vec<Listed>, GroupsError>> {
        Box::pin(async move {
            let mut found = Vec::new();
            for host in self.all() {
                match host.ask_ready(Request::List, READY).await {
                    Ok(Reply::List(groups)) => found.extend(groups),
                    // Led elsewhere: told there.
                    Ok(_) | Err(HostError::NotLeader) => {}
                    Err(error) => return Err(unavailable(error)),
                }
            }
            found.sort_by(|a, b| a.group.cmp(&b.group));
            Ok(found)
        })
    }
}

impl ClusterListener for GroupHosts {
    fn topic_created(&self, _: &Arc<Topic>) {}
    fn topic_deleted(&self, _: TopicId) {}
    fn config_changed(&self, _: TopicId) {}
    /// Offsets of a topic that is gone must not be found by one of its name that is made later.
    fn topic_gone(&self, topic: &Arc<Topic>) {
        for host in self.all() {
            drop(host.ask(Request::TopicDeleted { name: topic.name.clone() }));
        }
    }
}

#[cfg(test)]
mod tests;
