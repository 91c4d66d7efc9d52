//! Our own client (`client::remote`) against the broker: what the CLI does.

use std::time::Duration;

use bytes::Bytes;
use catchwater_client::remote::{
    Acks, Code, FetchFrom, FetchLimits, GroupOffset, Kafka, NewTopic, OffsetAt, Options, ProduceOutcome, RemoteError,
    ResourceKind, decode_records,
};
use catchwater_tests::broker::{Broker, unique};

use crate::wire::batch;

fn topic(name: &str, partitions: i32) -> NewTopic {
    NewTopic {
        name: name.to_owned(),
        partitions: Some(partitions),
        replication: None,
        configs: vec![("retention.ms".into(), "1000000".into())],
    }
}

async fn client(broker: &Broker) -> Kafka {
    Kafka::connect(&[broker.kafka()], Options { timeout: Duration::from_secs(20), ..Options::default() }).await.unwrap()
}

#[tokio::test]
async fn remote_topics_are_made_described_and_deleted() {
    let broker = Broker::start();
    let kafka = client(&broker).await;
    let name = unique("remote");
    let checked = kafka.check_topic(&topic(&name, 2)).await.unwrap();
    assert_eq!(checked.partitions, Some(2));
    assert_eq!(kafka.topic(&name).await.unwrap(), None, "checking makes nothing");
    let made = kafka.create_topic(&topic(&name, 2)).await.unwrap();
    assert!(!made.id.is_none());
    assert_eq!(kafka.create_topic(&topic(&name, 2)).await.unwrap_err().code(), Some(Code(36)));
    let info = loop {
        match kafka.topic(&name).await.unwrap() {
            Some(info) if info.partitions.iter().all(|p| p.leader.is_some()) => break info,
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert_eq!((info.id, info.partitions.len(), info.internal), (made.id, 2, false));
    assert!(kafka.topics().await.unwrap().iter().any(|t| t.name == name));
    let configs = kafka.describe_configs(ResourceKind::Topic, &name).await.unwrap();
    let retention = configs.iter().find(|c| c.name == "retention.ms").unwrap();
    assert_eq!((retention.value.as_deref(), retention.source), (Some("1000000"), 1));
    kafka.delete_topic(&name).await.unwrap();
    assert_eq!(kafka.delete_topic(&unique("never")).await.unwrap_err().code(), Some(Code(3)));
    let cluster = kafka.cluster().await.unwrap();
    assert_eq!(cluster.brokers.len(), 1);
    assert_eq!(format!("{}:{}", cluster.brokers[0].host, cluster.brokers[0].port), broker.kafka());
}

#[tokio::test]
async fn remote_writes_reads_and_finds_offsets() {
    let broker = Broker::start();
    let kafka = client(&broker).await;
    let name = unique("remote");
    kafka.create_topic(&topic(&name, 1)).await.unwrap();
    for (i, acks) in [Acks::All, Acks::Leader].into_iter().enumerate() {
        let outcome = kafka.produce(&name, 0, batch(&["a", "b"]), acks).await;
        let ProduceOutcome::Written(Some(offset)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(offset, 2 * i as i64);
    }
    assert!(matches!(kafka.produce(&name, 0, batch(&["c"]), Acks::None).await, ProduceOutcome::Written(None)));
    let mut records = Vec::new();
    while records.len() < 4 {
        let from = FetchFrom { topic: &name, partition: 0, offset: 1 };
        let fetched = kafka.fetch(from, FetchLimits::default()).await.unwrap();
        records = decode_records(&fetched.batches, 1).unwrap();
    }
    let seen: Vec<(i64, &[u8])> = records.iter().map(|r| (r.offset, r.value.as_deref().unwrap())).collect();
    assert_eq!(seen, [(1, &b"b"[..]), (2, b"a"), (3, b"b"), (4, b"c")]);
    assert_eq!(kafka.list_offset(&name, 0, OffsetAt::Earliest).await.unwrap(), 0);
    assert_eq!(kafka.list_offset(&name, 0, OffsetAt::Latest).await.unwrap(), 5);
    assert_eq!(kafka.list_offset(&name, 0, OffsetAt::TimeMs(1)).await.unwrap(), 0);
    assert_eq!(kafka.list_offset(&name, 0, OffsetAt::TimeMs(i64::MAX)).await.unwrap(), 5, "later than all is the end");
    let outside = kafka.fetch(FetchFrom { topic: &name, partition: 0, offset: 99 }, FetchLimits::default()).await;
    assert_eq!(outside.unwrap_err().code(), Some(Code(1)));
    let nowhere = kafka.produce(&unique("nobody"), 0, batch(&["x"]), Acks::All).await;
    assert!(matches!(&nowhere, ProduceOutcome::Refused(RemoteError::Refused { code: Code(3), .. })), "{nowhere:?}");
    let broken = kafka.produce(&name, 0, Bytes::from_static(b"no batch at all"), Acks::All).await;
    assert!(matches!(broken, ProduceOutcome::Refused(_)));
}

#[tokio::test]
async fn remote_commits_and_reads_committed_offsets() {
    let broker = Broker::start();
    let kafka = client(&broker).await;
    let (name, group) = (unique("remote"), unique("group"));
    kafka.create_topic(&topic(&name, 2)).await.unwrap();
    assert_eq!(kafka.committed(&group).await.unwrap(), []);
    let offset = |partition, offset| GroupOffset { topic: name.clone(), partition, offset, metadata: Some("m".into()) };
    let mut tries = 0;
    // A Kafka of three threads may not have seen the topic yet.
    while let Err(e) = kafka.commit(&group, &[offset(0, 5), offset(1, 6)]).await {
        assert!(broker.is_foreign() && e.code() == Some(Code(3)) && tries < 100, "{e}");
        tries += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let found = kafka.committed(&group).await.unwrap();
    let found: Vec<_> = found.iter().map(|c| (c.partition, c.offset, c.metadata.as_str())).collect();
    assert_eq!(found, [(0, 5, "m"), (1, 6, "m")]);
}

#[tokio::test]
async fn remote_outcomes_are_honest_when_the_broker_dies() {
    let mut broker = Broker::start();
    if broker.is_foreign() {
        return;
    }
    let options = Options { timeout: Duration::from_secs(3), ..Options::default() };
    let kafka = Kafka::connect(&[broker.kafka()], options).await.unwrap();
    let name = unique("remote");
    kafka.create_topic(&topic(&name, 1)).await.unwrap();
    assert!(matches!(kafka.produce(&name, 0, batch(&["a"]), Acks::All).await, ProduceOutcome::Written(Some(0))));
    broker.kill();
    // The old connection is dead: the request may have left, so nobody knows.
    let first = kafka.produce(&name, 0, batch(&["b"]), Acks::All).await;
    assert!(matches!(first, ProduceOutcome::Unknown(_)), "{first:?}");
    // No connection at all: surely not written.
    let second = kafka.produce(&name, 0, batch(&["c"]), Acks::All).await;
    assert!(matches!(second, ProduceOutcome::Refused(RemoteError::Connect { .. })), "{second:?}");
    broker.restart().unwrap();
    assert_eq!(kafka.list_offset(&name, 0, OffsetAt::Latest).await.unwrap(), 1, "it connects again");
    assert!(matches!(kafka.produce(&name, 0, batch(&["d"]), Acks::All).await, ProduceOutcome::Written(Some(1))));
}

/// A reply is foreign (CVE-2026-10142): a four-byte length of 2 GiB ends the connection and reserves nothing.
#[tokio::test]
async fn client_bounds_a_four_byte_reply_length() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        for reply in [
            &b"\x7f\xff\xff\xff"[..],
            b"\xff\xff\xff\xff",
            b"\0\0\0\0",
            b"\0\0\0\x0c\0\0\0\x01\0\0\x7f\xff\xff\xff\0\0",
        ] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 64];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            stream.write_all(reply).await.unwrap();
            // Until the client gives up.
            let _ = stream.read(&mut request).await;
        }
    });
    for _ in 0..4 {
        let refused =
            Kafka::connect(&[&address], Options { timeout: Duration::from_secs(5), ..Options::default() }).await;
        assert!(matches!(refused.err(), Some(RemoteError::Frame { .. } | RemoteError::Decode { .. })));
    }
    server.await.unwrap();
}
