//! Partitions of the offsets topic that open after the image names it.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::host::shell::tests::FakeLog;
use crate::node::ControllerError;
use catchwater_coordinator::cluster::image::{Image, Owner, Place};
use catchwater_coordinator::cluster::records::ClusterRecord;
use catchwater_record::{Gid, NodeId, TopicName};
use catchwater_runtime::time::SystemClock;
use std::sync::atomic::{AtomicUsize, Ordering};

const TOPIC: TopicId = TopicId([7; 16]);
const PARTITIONS: usize = 3;

struct Controller(Arc<Image>);

impl ControllerAccess for Controller {
    fn image(&self) -> Arc<Image> {
        self.0.clone()
    }
    fn ask(&self, _: controller::Request) -> Fut<'_, Result<controller::Reply, ControllerError>> {
        Box::pin(async { Err(ControllerError::NotReady) })
    }
    fn draw(&self) -> [u8; 16] {
        [1; 16]
    }
}

/// The first `open` partitions are open.
#[derive(Default)]
struct Opening {
    open: AtomicUsize,
}

impl Logs for Opening {
    fn log(&self, at: TopicPartition) -> Option<Arc<dyn HostLog>> {
        let number = at.partition.0 as usize;
        (number < self.open.load(Ordering::Relaxed)).then(|| Arc::new(FakeLog::default()) as Arc<dyn HostLog>)
    }
}

#[tokio::test]
async fn partitions_that_open_after_the_first_question_are_found() {
    let mut image = Image::default();
    let topic = Topic {
        id: TOPIC,
        name: TopicName::from(OFFSETS_TOPIC),
        partitions: vec![Place { gid: Gid(1), replicas: vec![NodeId(1)] }; PARTITIONS],
        owner: Owner::Nobody,
        created_ms: 0,
    };
    image.apply(&ClusterRecord::Topic { id: TOPIC, topic: Some(topic) });
    let controller: Arc<dyn ControllerAccess> = Arc::new(Controller(Arc::new(image)));
    let logs = Arc::new(Opening::default());
    let hosts = GroupHosts {
        settings: Settings::default(),
        topics: logs.clone(),
        controller: Arc::downgrade(&controller),
        clock: Arc::new(SystemClock::default()),
        hosts: Mutex::default(),
    };
    let group = "a";
    // The image names the topic before a partition is open: for now this node is no coordinator.
    assert!(matches!(hosts.host(group), Some(Err(GroupsError::NotCoordinator))));
    logs.open.store(1, Ordering::Relaxed);
    assert!(hosts.open());
    assert_eq!(hosts.all().len(), 1);
    let first = hosts.all().remove(0);
    logs.open.store(PARTITIONS, Ordering::Relaxed);
    assert!(matches!(hosts.host(group), Some(Ok(_))));
    assert_eq!(hosts.all().len(), PARTITIONS);
    assert!(Arc::ptr_eq(&first, &hosts.all()[0]), "a machine that was there runs on");
}
