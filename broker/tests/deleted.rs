#![allow(clippy::unwrap_used)]
//! A topic is deleted, and the node dies at each write of the journal from then on: once the deletion counts, no later start
//! leaves files of it behind; until then it is there with all it has.

use catchwater_broker::{Broker, BrokerConfig, LocalClient};
use catchwater_client::{
    Acks, Append, AppendOutcome, Context, ControlClient, LogClient, NewTopic, Owner, TopicsWanted,
};
use catchwater_record::batch::build::Builder;
use catchwater_record::{Caller, NodeId, Offset, TopicId, TopicPartition};
use catchwater_runtime::time;
use catchwater_storage::disk::memory::MemoryDisk;
use catchwater_storage::disk::{Disk, DiskDone, DiskError, DiskOp, FilePath, Hot};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);

/// Keeps what the disk was before each write of the journal, while it is asked to.
struct Moments {
    inner: Arc<MemoryDisk>,
    kept: Mutex<Option<Vec<MemoryDisk>>>,
}

impl Disk for Moments {
    fn run(&self, op: DiskOp) -> Result<DiskDone, DiskError> {
        if let (DiskOp::WriteDirect { .. }, Some(kept)) = (&op, &mut *self.kept.lock().unwrap()) {
            kept.push(self.inner.fork());
        }
        self.inner.run(op)
    }
    fn try_hot(&self, path: &FilePath, at: u64, buf: &mut [u8]) -> Hot {
        self.inner.try_hot(path, at, buf)
    }
}

/// Group directories of topics, also of those that are being removed.
fn groups(disk: &MemoryDisk) -> BTreeSet<String> {
    let files = disk.files();
    let names = files.iter().filter_map(|(path, _)| path.strip_prefix("/data/p/")?.split('/').next());
    names.map(|name| name[..16].to_owned()).filter(|name| *name != format!("{:016x}", 0)).collect()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < SOON, "{what}: not within {SOON:?}");
        time::sleep(Duration::from_millis(5)).await;
    }
}

async fn start(disk: Arc<dyn Disk>) -> (Broker, LocalClient) {
    let mut config = BrokerConfig::new("/data", "127.0.0.1:0".parse().unwrap());
    config.journal_file_bytes = 64 << 10;
    config.journal_files = 2;
    config.min_free_bytes = Some(1);
    let broker = Broker::start_on(config, disk).await.unwrap();
    let client = broker.local().handle();
    (broker, client)
}

async fn topic(client: &LocalClient, name: &str) -> TopicId {
    let (owner, configs) = (Owner::Nobody, vec![]);
    let topic = NewTopic { name: name.into(), partitions: Some(2), replication: None, configs, owner };
    let made = client.create_topics(&Caller::node(NodeId(1)), vec![topic]).await.unwrap().remove(0).unwrap();
    for partition in 0..2 {
        append(client, TopicPartition::new(made.id, partition), 0).await;
    }
    made.id
}

async fn append(client: &LocalClient, at: TopicPartition, due: u64) {
    let mut builder = Builder::new();
    builder.push(1_000, None, Some(b"v"), []);
    let plain = Append { context: Context::None, acks: Acks::All, timeout_ms: 60_000 };
    let outcome = client.append(at, builder.finish().freeze(), plain).await;
    assert_eq!(outcome, AppendOutcome::Appended { offset: Offset(due), end: Offset(due + 1) });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_death_while_a_topic_is_deleted_leaves_the_topic_or_none_of_its_files() {
    let inner = Arc::new(MemoryDisk::new());
    let disk = Arc::new(Moments { inner: inner.clone(), kept: Mutex::default() });
    let (broker, client) = start(disk.clone()).await;
    let gone = topic(&client, "gone").await;
    until("the files of one topic", || groups(&inner).len() == 2).await;
    let its = groups(&inner);
    let kept = topic(&client, "kept").await;
    until("the files of both", || groups(&inner).len() == 4).await;

    *disk.kept.lock().unwrap() = Some(Vec::new());
    let answer = client.delete_topics(&Caller::node(NodeId(1)), vec![gone]).await.unwrap();
    assert_eq!(answer, [Ok(())]);
    until("its files go", || groups(&inner).is_disjoint(&its)).await;
    let moments = disk.kept.lock().unwrap().take().unwrap();
    broker.shutdown().await;

    let (mut there, mut left) = (0, 0);
    for moment in moments.into_iter().map(Arc::new) {
        moment.kill();
        let had = !groups(&moment).is_disjoint(&its);
        let (broker, client) = start(moment.clone()).await;
        let topics = client.describe_topics(TopicsWanted::Names(vec!["gone".into()])).await.unwrap();
        if topics.is_empty() {
            left += u32::from(had);
            until("what was left goes", || groups(&moment).is_disjoint(&its)).await;
        } else {
            there += 1;
            append(&client, TopicPartition::new(gone, 1), 1).await;
        }
        append(&client, TopicPartition::new(kept, 0), 1).await;
        broker.shutdown().await;
    }
    assert!(there > 0 && left > 0, "{there} moments before it counted, {left} between that and the end of its files");
}
