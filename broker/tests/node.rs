#![allow(clippy::unwrap_used)]
//! A whole node over TCP, with frames of our own codec; the foreign clients are in `tests/`.

use bytes::{Bytes, BytesMut};
use catchwater_broker::{Broker, BrokerConfig};
use catchwater_protocol::api::fetch::{FetchPartition, FetchTopic, PartitionData};
use catchwater_protocol::api::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use catchwater_protocol::api::metadata::{MetadataRequestTopic, MetadataResponseTopic};
use catchwater_protocol::api::produce::{PartitionProduceData, PartitionProduceResponse, TopicProduceData};
use catchwater_protocol::api::{
    ApiVersionsRequest, DeleteTopicsRequest, FetchRequest, ListOffsetsRequest, MetadataRequest, MetadataResponse,
    ProduceRequest,
};
use catchwater_protocol::{Records, Request, frame};
use catchwater_record::TopicId;
use catchwater_record::batch::build::Builder;
use catchwater_record::batch::{BatchView, Codec};
use catchwater_record::compress::{SnappyFraming, compress_batch};
use catchwater_record::crc::crc32c;
use catchwater_runtime::net::{AsyncReadExt, AsyncWriteExt, TcpStream};
use catchwater_runtime::time::wall;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A directory of its own, gone with the test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let mut id = [0; 8];
        catchwater_runtime::random::fill(&mut id).unwrap();
        let path = std::env::temp_dir().join(format!("catchwater-{name}-{:016x}", u64::from_le_bytes(id)));
        std::fs::create_dir_all(&path).unwrap();
        Dir(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn start(dir: &Dir) -> Broker {
    let mut config = BrokerConfig::new(dir.0.join("data"), "127.0.0.1:0".parse().unwrap());
    config.group_initial_delay_ms = 0;
    config.journal_files = 1;
    Broker::start(config).await.unwrap()
}

struct Client {
    stream: TcpStream,
    correlation: i32,
}

impl Client {
    async fn connect(to: SocketAddr) -> Client {
        Client { stream: TcpStream::connect(to).await.unwrap(), correlation: 0 }
    }

    async fn send<R: Request>(&mut self, request: &R, version: i16) {
        self.correlation += 1;
        let bytes = frame::request(request, version, self.correlation, Some("test")).unwrap().to_bytes();
        self.stream.write_all(&bytes).await.unwrap();
    }

    async fn reply<R: Request>(&mut self, version: i16) -> R::Response {
        let (_, response) = frame::decode_response::<R>(self.raw_reply().await, version).unwrap();
        response
    }

    async fn raw_reply(&mut self) -> Bytes {
        let length = self.stream.read_i32().await.unwrap();
        let mut body = BytesMut::zeroed(usize::try_from(length).unwrap());
        self.stream.read_exact(&mut body).await.unwrap();
        body.freeze()
    }

    async fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        self.send(request, version).await;
        self.reply::<R>(version).await
    }

    async fn closed(&mut self) -> bool {
        matches!(self.stream.read_u8().await, Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof || e.kind() == std::io::ErrorKind::ConnectionReset)
    }

    async fn metadata(&mut self, name: &str, version: i16) -> MetadataResponse {
        let topics = vec![MetadataRequestTopic { name: Some(name.into()), ..Default::default() }];
        self.call(&MetadataRequest { topics: Some(topics), ..Default::default() }, version).await
    }

    /// Creates (or finds) a topic by asking for it.
    async fn topic(&mut self, name: &str) -> MetadataResponseTopic {
        let response = self.metadata(name, 12).await;
        let topic = response.topics[0].clone();
        assert_eq!(topic.error_code, 0, "{name}");
        topic
    }

    async fn produce(&mut self, topic: &Topic, batch: &[u8], version: i16) -> PartitionProduceResponse {
        let response = self.call(&produce(topic, batch, -1, version), version).await;
        response.responses[0].partition_responses[0].clone()
    }

    async fn fetch(&mut self, topic: &Topic, offset: i64, version: i16) -> PartitionData {
        let response = self.call(&fetch(topic, offset, 0, version), version).await;
        assert_eq!(response.error_code, 0);
        response.responses[0].partitions[0].clone()
    }

    async fn offset(&mut self, topic: &Topic, timestamp: i64, version: i16) -> (i16, i64, i64) {
        let partitions = vec![ListOffsetsPartition { partition_index: 0, current_leader_epoch: -1, timestamp }];
        let topics = vec![ListOffsetsTopic { name: topic.name.as_str().into(), partitions }];
        let request = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
        let response = self.call(&request, version).await;
        let p = &response.topics[0].partitions[0];
        (p.error_code, p.timestamp, p.offset)
    }
}

struct Topic {
    name: String,
    id: TopicId,
}

async fn topic(client: &mut Client, name: &str) -> Topic {
    let topic = client.topic(name).await;
    Topic { name: name.into(), id: topic.topic_id }
}

fn produce(topic: &Topic, batch: &[u8], acks: i16, version: i16) -> ProduceRequest {
    let records = Some(Records::from(Bytes::copy_from_slice(batch)));
    let data = TopicProduceData {
        name: if version < 13 { topic.name.as_str().into() } else { Default::default() },
        topic_id: if version < 13 { TopicId::NONE } else { topic.id },
        partition_data: vec![PartitionProduceData { index: 0, records }],
    };
    ProduceRequest { acks, timeout_ms: 10_000, topic_data: vec![data], ..Default::default() }
}

fn fetch(topic: &Topic, offset: i64, max_wait_ms: i32, version: i16) -> FetchRequest {
    let partition = FetchPartition {
        partition: 0,
        current_leader_epoch: -1,
        fetch_offset: offset,
        last_fetched_epoch: -1,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let asked = FetchTopic {
        topic: if version < 13 { topic.name.as_str().into() } else { Default::default() },
        topic_id: if version < 13 { TopicId::NONE } else { topic.id },
        partitions: vec![partition],
    };
    FetchRequest { max_wait_ms, min_bytes: 1, max_bytes: 1 << 20, topics: vec![asked], ..Default::default() }
}

fn batch(values: &[&str]) -> BytesMut {
    let mut builder = Builder::new();
    for value in values {
        let headers = [(&b"h"[..], Some(&b"1"[..])), (&b"h"[..], None)];
        builder.push(wall().as_millis(), Some(b"key"), Some(value.as_bytes()), headers);
    }
    builder.finish()
}

/// What must come back: all but base offset and leader epoch.
fn body(batch: &[u8]) -> Vec<u8> {
    let mut out = batch[8..12].to_vec();
    out.extend_from_slice(&batch[16..]);
    out
}

fn records(data: &PartitionData) -> Bytes {
    data.records.as_ref().unwrap().to_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_come_back_as_they_were_sent_at_every_version_and_after_a_restart() {
    let dir = Dir::new("roundtrip");
    let broker = start(&dir).await;
    let mut client = Client::connect(broker.kafka_address()).await;
    let topic = topic(&mut client, "t").await;
    let mut sent = Vec::new();
    for version in 3..=13 {
        let codec = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd][version as usize % 5];
        let codec = if version < 7 && codec == Codec::Zstd { Codec::Gzip } else { codec };
        let plain = batch(&["one", "two", &format!("v{version}")]);
        let packed = compress_batch(&BatchView::new(&plain).unwrap(), codec, SnappyFraming::Xerial).unwrap();
        let answer = client.produce(&topic, &packed, version).await;
        assert_eq!((answer.error_code, answer.base_offset), (0, 3 * (i64::from(version) - 3)), "v{version}");
        sent.push(packed);
    }
    for version in 4..=18 {
        let data = client.fetch(&topic, 0, version).await;
        if version < 10 {
            assert_eq!(data.error_code, 76, "zstd at v{version}");
            continue;
        }
        assert_eq!((data.error_code, data.high_watermark), (0, 33), "v{version}");
        compare(&records(&data), &sent);
    }
    broker.shutdown().await;

    let broker = start(&dir).await;
    let mut client = Client::connect(broker.kafka_address()).await;
    let data = client.fetch(&topic, 0, 18).await;
    assert_eq!(data.high_watermark, 33);
    compare(&records(&data), &sent);
    let answer = client.produce(&topic, &batch(&["after"]), 13).await;
    assert_eq!((answer.error_code, answer.base_offset), (0, 33));
    broker.shutdown().await;
}

#[track_caller]
fn compare(found: &[u8], sent: &[BytesMut]) {
    let mut rest = found;
    let mut next = 0;
    for want in sent {
        let (got, after) = BatchView::split(rest).unwrap();
        got.check_crc().unwrap();
        assert_eq!(body(got.bytes()), body(want));
        assert_eq!(got.base_offset(), next);
        next += i64::from(got.records_count());
        rest = after;
    }
    assert!(rest.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_creates_with_a_leader_in_the_same_answer() {
    let dir = Dir::new("metadata");
    let broker = start(&dir).await;
    let mut client = Client::connect(broker.kafka_address()).await;
    for version in 0..=13 {
        let name = format!("auto-{version}");
        let response = client.metadata(&name, version).await;
        let topic = &response.topics[0];
        assert_eq!((topic.error_code, topic.partitions.len()), (0, 1), "v{version}");
        assert_eq!((topic.partitions[0].error_code, topic.partitions[0].leader_id), (0, 1), "v{version}");
        assert_eq!(response.brokers[0].port, i32::from(broker.kafka_address().port()));
        assert_eq!(topic.topic_id.is_none(), version < 10);
        if version >= 12 {
            let by_id = vec![MetadataRequestTopic { topic_id: topic.topic_id, name: None }];
            let found = client.call(&MetadataRequest { topics: Some(by_id), ..Default::default() }, version).await;
            assert_eq!(found.topics[0].name.as_deref(), Some(name.as_str()));
            let other = vec![MetadataRequestTopic { topic_id: TopicId([9; 16]), name: None }];
            let found = client.call(&MetadataRequest { topics: Some(other), ..Default::default() }, version).await;
            assert_eq!((found.topics[0].error_code, found.topics[0].name.as_deref()), (100, None));
        }
    }
    assert_eq!(client.metadata("not legal", 12).await.topics[0].error_code, 17);
    assert_eq!(client.metadata("a.b", 12).await.topics[0].error_code, 0);
    assert_eq!(client.metadata("a_b", 12).await.topics[0].error_code, 17, "differs only by . and _");
    let topics = vec![MetadataRequestTopic { name: Some("nobody".into()), ..Default::default() }];
    let quiet = MetadataRequest { topics: Some(topics), allow_auto_topic_creation: false, ..Default::default() };
    assert_eq!(client.call(&quiet, 12).await.topics[0].error_code, 3);
    let all = client.call(&MetadataRequest { topics: None, ..Default::default() }, 12).await;
    assert!(all.topics.len() >= 14);
    let none = client.call(&MetadataRequest { topics: Some(vec![]), ..Default::default() }, 12).await;
    assert!(none.topics.is_empty() && none.cluster_id.is_some());
    let at_zero = client.call(&MetadataRequest { topics: Some(vec![]), ..Default::default() }, 0).await;
    assert!(at_zero.topics.len() >= 14);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_served_closes_and_api_versions_answers_always() {
    let dir = Dir::new("versions");
    let broker = start(&dir).await;
    let mut client = Client::connect(broker.kafka_address()).await;
    for version in 0..=4 {
        let request = ApiVersionsRequest { client_software_name: "test".into(), client_software_version: "1.0".into() };
        let response = client.call(&request, version).await;
        assert!(response.error_code == 0 && response.api_keys.iter().any(|k| k.api_key == 0 && k.min_version == 0));
    }
    // Version 99 with a body nobody can read: an answer in the form of version 0.
    client.stream.write_all(b"\0\0\0\x0c\0\x12\0\x63\0\0\0\x07\xff\xff\xff\xff").await.unwrap();
    let reply = client.raw_reply().await;
    assert_eq!(&reply[..6], b"\0\0\0\x07\0\x23");
    // Unknown key, unserved version, hostile length.
    for frame in [
        &b"\0\0\0\x0a\x03\xe8\0\0\0\0\0\x01\xff\xff"[..],
        b"\0\0\0\x0a\0\0\0\x02\0\0\0\x01\xff\xff",
        b"\xff\xff\xff\xff",
    ] {
        let mut client = Client::connect(broker.kafka_address()).await;
        client.stream.write_all(frame).await.unwrap();
        assert!(client.closed().await, "{frame:?}");
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_is_woken_by_a_produce_and_a_slow_one_by_its_time() {
    let dir = Dir::new("longpoll");
    let broker = start(&dir).await;
    let mut consumer = Client::connect(broker.kafka_address()).await;
    let mut producer = Client::connect(broker.kafka_address()).await;
    let topic = topic(&mut producer, "t").await;
    consumer.send(&fetch(&topic, 0, 60_000, 12), 12).await;
    // The fetch behind it on the same connection is executed, and answered in its turn.
    consumer.send(&fetch(&topic, 0, 0, 12), 12).await;
    assert_eq!(producer.produce(&topic, &batch(&["x"]), 9).await.error_code, 0);
    let woken = consumer.reply::<FetchRequest>(12).await;
    assert_eq!(woken.responses[0].partitions[0].high_watermark, 1);
    consumer.reply::<FetchRequest>(12).await;
    let late = consumer.call(&fetch(&topic, 1, 50, 12), 12).await;
    assert!(records(&late.responses[0].partitions[0]).is_empty());
    let beyond = consumer.call(&fetch(&topic, 2, 60_000, 12), 12).await;
    assert_eq!(beyond.responses[0].partitions[0].error_code, 1);
    // A topic that is deleted ends the wait, by name and by id.
    for (version, code) in [(12, 3), (13, 100)] {
        let name = format!("gone-{version}");
        let gone = self::topic(&mut producer, &name).await;
        consumer.send(&fetch(&gone, 0, 60_000, version), version).await;
        let delete = DeleteTopicsRequest { topic_names: vec![name.as_str().into()], ..Default::default() };
        assert_eq!(producer.call(&delete, 5).await.responses[0].error_code, 0);
        let ended = consumer.reply::<FetchRequest>(version).await;
        assert_eq!(ended.responses[0].partitions[0].error_code, code);
    }
    let follower = FetchRequest { replica_id: 3, ..fetch(&topic, 0, 60_000, 12) };
    assert_eq!(consumer.call(&follower, 12).await.responses[0].partitions[0].error_code, 31);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_batches_have_their_codes_and_leave_the_log_as_it_was() {
    let dir = Dir::new("refusals");
    let broker = start(&dir).await;
    let mut client = Client::connect(broker.kafka_address()).await;
    let topic = topic(&mut client, "t").await;
    let changed = |change: &dyn Fn(&mut BytesMut)| {
        let mut bytes = batch(&["a", "b"]);
        change(&mut bytes);
        let crc = crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    };
    let far = (wall().as_millis() + 2 * 3_600_000).to_be_bytes();
    let cases: Vec<(BytesMut, i16)> = vec![
        (changed(&|b| b[16] = 1), 87),
        (changed(&|b| b[22] |= 7), 76),
        (
            {
                let mut b = batch(&["a"]);
                b[30] ^= 1;
                b
            },
            2,
        ),
        (changed(&|b| b[26] = 9), 87),
        (changed(&|b| b[22] |= 0x20), 87),
        (changed(&|b| b[22] |= 0x08), 32),
        (changed(&|b| b[35..43].copy_from_slice(&far)), 32),
        (batch(&[&"x".repeat(1_100_000)]), 10),
        (BytesMut::from(&b"short"[..]), 87),
    ];
    for (bytes, code) in cases {
        for version in [3, 8, 13] {
            let answer = client.produce(&topic, &bytes, version).await;
            assert_eq!((answer.error_code, answer.base_offset), (code, -1), "v{version}");
        }
    }
    let wrong_acks = client.call(&produce(&topic, &batch(&["a"]), 2, 9), 9).await;
    assert_eq!(wrong_acks.responses[0].partition_responses[0].error_code, 21);
    let nowhere = Topic { name: "nowhere".into(), id: TopicId([7; 16]) };
    assert_eq!(client.produce(&nowhere, &batch(&["a"]), 12).await.error_code, 3);
    assert_eq!(client.produce(&nowhere, &batch(&["a"]), 13).await.error_code, 100);
    assert_eq!(client.offset(&topic, -1, 5).await, (0, -1, 0));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_zero_has_no_reply_and_closes_when_it_fails() {
    let dir = Dir::new("acks0");
    let broker = start(&dir).await;
    let mut client = Client::connect(broker.kafka_address()).await;
    let topic = topic(&mut client, "t").await;
    client.send(&produce(&topic, &batch(&["a"]), 0, 9), 9).await;
    let response = client.metadata("t", 9).await;
    assert_eq!(response.topics[0].error_code, 0, "the first reply on the wire is Metadata's");
    client.send(&produce(&topic, b"rubbish", 0, 9), 9).await;
    assert!(client.closed().await);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_gets_its_first_offset_also_after_a_restart() {
    let dir = Dir::new("idempotence");
    let broker = start(&dir).await;
    let mut client = Client::connect(broker.kafka_address()).await;
    let topic = topic(&mut client, "t").await;
    let numbered = |sequence| {
        let mut builder = Builder::new().producer(77, 0, sequence);
        builder.push(wall().as_millis(), None, Some(b"v"), []);
        builder.finish()
    };
    let (first, second) = (numbered(0), numbered(1));
    assert_eq!(client.produce(&topic, &first, 9).await.base_offset, 0);
    assert_eq!(client.produce(&topic, &second, 9).await.base_offset, 1);
    assert_eq!(client.produce(&topic, &first, 9).await.base_offset, 0);
    broker.shutdown().await;
    let broker = start(&dir).await;
    let mut client = Client::connect(broker.kafka_address()).await;
    assert_eq!(client.produce(&topic, &second, 9).await.base_offset, 1);
    assert_eq!(client.produce(&topic, &numbered(7), 9).await.error_code, 45);
    assert_eq!(client.produce(&topic, &numbered(2), 9).await.base_offset, 2);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_segments_go_and_readers_learn_the_new_start() {
    let dir = Dir::new("retention");
    let config = |dir: &Dir| {
        let mut config = BrokerConfig::new(dir.0.join("data"), "127.0.0.1:0".parse().unwrap());
        config.journal_files = 1;
        config.upkeep.retention_check_ms = 20;
        config.settings.insert("log.retention.bytes".into(), "1048576".into());
        config.settings.insert("log.segment.bytes".into(), "1048576".into());
        config
    };
    let broker = Broker::start(config(&dir)).await.unwrap();
    let mut client = Client::connect(broker.kafka_address()).await;
    let topic = topic(&mut client, "t").await;
    for i in 0..12 {
        let answer = client.produce(&topic, &batch(&[&i.to_string().repeat(400_000)]), 9).await;
        assert_eq!(answer.error_code, 0);
    }
    let start = loop {
        let (code, _, start) = client.offset(&topic, -2, 5).await;
        assert_eq!(code, 0);
        if start > 0 {
            break start;
        }
        catchwater_runtime::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    assert_eq!(client.fetch(&topic, start - 1, 12).await.error_code, 1);
    // The start may still move on; a reader asks again where it is.
    loop {
        let start = client.offset(&topic, -2, 5).await.2;
        let first = client.fetch(&topic, start, 12).await;
        if let Ok((batch, _)) = BatchView::split(&records(&first)) {
            assert_eq!(batch.base_offset(), start);
            break;
        }
    }
    assert_eq!(client.offset(&topic, -1, 5).await, (0, -1, 12), "the end stays");
    broker.shutdown().await;
    let broker = Broker::start(config(&dir)).await.unwrap();
    let mut client = Client::connect(broker.kafka_address()).await;
    assert!(client.offset(&topic, -2, 5).await.2 >= start, "the start stays moved");
    assert_eq!(client.produce(&topic, &batch(&["x"]), 9).await.base_offset, 12);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_are_found_by_time_inside_the_batch() {
    let dir = Dir::new("offsets");
    let broker = start(&dir).await;
    let mut client = Client::connect(broker.kafka_address()).await;
    let topic = topic(&mut client, "t").await;
    assert_eq!(client.offset(&topic, -3, 7).await, (0, -1, -1));
    assert_eq!(client.offset(&topic, 5, 7).await, (0, -1, -1));
    for times in [[1_000, 1_500, 1_200], [2_000, 9_000, 3_000], [4_000, 5_000, 6_000]] {
        let mut builder = Builder::new();
        for t in times {
            builder.push(t, None, Some(b"v"), []);
        }
        let plain = builder.finish();
        let packed = compress_batch(&BatchView::new(&plain).unwrap(), Codec::Lz4, SnappyFraming::Raw).unwrap();
        assert_eq!(client.produce(&topic, &packed, 9).await.error_code, 0);
    }
    for version in 1..=11 {
        let mut check = async |at, want| assert_eq!(client.offset(&topic, at, version).await, want, "v{version} {at}");
        check(-1, (0, -1, 9)).await;
        check(-2, (0, -1, 0)).await;
        check(0, (0, 1_000, 0)).await;
        check(1_001, (0, 1_500, 1)).await;
        check(1_600, (0, 2_000, 3)).await;
        check(2_001, (0, 9_000, 4)).await;
        check(9_001, (0, -1, -1)).await;
        check(-3, if version < 7 { (35, -1, -1) } else { (0, 9_000, 4) }).await;
        check(-4, if version < 8 { (35, -1, -1) } else { (0, -1, 0) }).await;
        check(-5, if version < 9 { (35, -1, -1) } else { (0, -1, -1) }).await;
    }
    let inside = client.fetch(&topic, 4, 12).await;
    assert_eq!(BatchView::split(&records(&inside)).unwrap().0.base_offset(), 3, "the whole batch comes");
    broker.shutdown().await;
}
