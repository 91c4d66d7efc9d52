//! A connection that speaks in frames, and the few requests every test needs.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use catchwater_record::batch::build::Builder;
use catchwater_tests::broker::Broker;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{ApiKey, FetchRequest, MetadataRequest, ProduceRequest, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

/// A struct of kafka-protocol with some fields set; its structs cannot be written as literals.
macro_rules! kp {
    ($name:ident { $($field:ident : $value:expr),* $(,)? }) => {{
        #[allow(unused_mut)]
        let mut it = $name::default();
        $(it.$field = $value;)*
        it
    }};
}
pub(crate) use kp;

pub fn text(s: &str) -> StrBytes {
    StrBytes::from_string(s.to_owned())
}
pub fn topic_name(s: &str) -> TopicName {
    TopicName(text(s))
}

/// The tests run against a real Kafka.
pub fn foreign() -> bool {
    std::env::var_os("CW_TEST_KAFKA").is_some()
}

pub struct Wire {
    stream: TcpStream,
    correlation: i32,
}

/// How a connection ended, or did not.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Frame(Bytes),
    Closed,
    Silent,
}

impl Wire {
    pub fn to(broker: &Broker) -> Wire {
        Wire::at(broker.address())
    }

    pub fn at(address: std::net::SocketAddr) -> Wire {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut wire = Wire { stream, correlation: 0 };
        wire.patience(Duration::from_secs(20));
        wire
    }

    /// How long [`Wire::next`] waits.
    pub fn patience(&mut self, limit: Duration) {
        self.stream.set_read_timeout(Some(limit)).unwrap();
        self.stream.set_write_timeout(Some(limit)).unwrap();
    }

    /// Bytes as they are. A connection that is being closed may refuse some of them.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// A frame around `body` with a header of our own making.
    pub fn frame(&mut self, key: i16, version: i16, client_id: Option<&str>, flexible: bool, body: &[u8]) -> i32 {
        self.correlation += 1;
        let mut head = Vec::new();
        head.extend(key.to_be_bytes());
        head.extend(version.to_be_bytes());
        head.extend(self.correlation.to_be_bytes());
        match client_id {
            Some(id) => {
                head.extend((id.len() as i16).to_be_bytes());
                head.extend(id.as_bytes());
            }
            None => head.extend((-1i16).to_be_bytes()),
        }
        if flexible {
            head.push(0);
        }
        let mut frame = ((head.len() + body.len()) as i32).to_be_bytes().to_vec();
        frame.extend(head);
        frame.extend(body);
        self.bytes(&frame);
        self.correlation
    }

    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        self.frame(R::KEY, version, Some("wire"), R::header_version(version) == 2, &encoded(request, version))
    }

    pub fn next(&mut self) -> Next {
        let mut prefix = [0; 4];
        if let Some(end) = self.fill(&mut prefix) {
            return end;
        }
        let mut body = vec![0; i32::from_be_bytes(prefix) as usize];
        match self.fill(&mut body) {
            None => Next::Frame(body.into()),
            Some(end) => end,
        }
    }

    fn fill(&mut self, into: &mut [u8]) -> Option<Next> {
        match self.stream.read_exact(into) {
            Ok(()) => None,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Some(Next::Silent),
            Err(_) => Some(Next::Closed),
        }
    }

    /// The next reply, which must be the one to `correlation`.
    pub fn reply<R: Request>(&mut self, version: i16, correlation: i32) -> R::Response {
        let Next::Frame(mut frame) = self.next() else { panic!("{} v{version}: no reply", api_name(R::KEY)) };
        assert_eq!(frame.get_i32(), correlation, "{} v{version}: correlation id", api_name(R::KEY));
        if R::Response::header_version(version) == 1 {
            assert_eq!(frame.get_u8(), 0, "tags of the response header");
        }
        let reply = R::Response::decode(&mut frame, version).unwrap();
        assert!(frame.is_empty(), "{} v{version}: {} bytes behind the reply", api_name(R::KEY), frame.len());
        reply
    }

    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let correlation = self.send(version, request);
        self.reply::<R>(version, correlation)
    }

    #[track_caller]
    pub fn closes(&mut self, what: &str) {
        assert_eq!(self.next(), Next::Closed, "{what}");
    }

    /// The connection still answers.
    #[track_caller]
    pub fn lives(&mut self) {
        self.call(0, &kafka_protocol::messages::ApiVersionsRequest::default());
    }

    // The requests every test needs.

    /// One topic by name at Metadata 12, created if it is missing; waits until it has leaders.
    pub fn topic(&mut self, name: &str) -> MetadataResponseTopic {
        for _ in 0..100 {
            let request = kp!(MetadataRequest {
                topics: Some(vec![kp!(MetadataRequestTopic { name: Some(topic_name(name)) })]),
                allow_auto_topic_creation: true,
            });
            let reply = self.call(12, &request);
            let topic = reply.topics.into_iter().next().unwrap();
            if topic.error_code == 0 && topic.partitions.iter().all(|p| p.leader_id.0 >= 0) {
                // A Kafka's Metadata may show a leader a moment before it knows.
                match self.call(7, &crate::fetch::list(name, -1)).topics[0].partitions[0].error_code {
                    0 => return topic,
                    code => {
                        assert!(foreign() && matches!(code, 3 | 5 | 6 | 78), "{name}: error {code} from its leader")
                    }
                }
            }
            assert!(matches!(topic.error_code, 0 | 3 | 5), "metadata of {name}: {}", topic.error_code);
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{name} has no leader");
    }

    /// Produce 9 with acks=all to partition 0.
    pub fn produce(&mut self, topic: &str, batch: Bytes) -> PartitionProduceResponse {
        self.produce_at(9, topic, -1, batch)
    }

    pub fn produce_at(&mut self, version: i16, topic: &str, acks: i16, batch: Bytes) -> PartitionProduceResponse {
        let reply = self.call(version, &produce_request(topic, acks, Some(batch)));
        reply.responses.into_iter().next().unwrap().partition_responses.into_iter().next().unwrap()
    }

    /// Fetch 11 from partition 0, waiting at most 500 ms.
    pub fn fetch(&mut self, topic: &str, offset: i64) -> PartitionData {
        self.fetch_bytes(topic, offset, 1 << 20)
    }

    pub fn fetch_bytes(&mut self, topic: &str, offset: i64, max_bytes: i32) -> PartitionData {
        let reply = self.call(11, &fetch_request(topic, offset, max_bytes, 500));
        assert_eq!(reply.error_code, 0);
        reply.responses.into_iter().next().unwrap().partitions.into_iter().next().unwrap()
    }
}

pub fn produce_request(topic: &str, acks: i16, records: Option<Bytes>) -> ProduceRequest {
    kp!(ProduceRequest {
        acks: acks,
        timeout_ms: 10_000,
        topic_data: vec![kp!(TopicProduceData {
            name: topic_name(topic),
            partition_data: vec![kp!(PartitionProduceData { index: 0, records: records })],
        })],
    })
}

pub fn fetch_request(topic: &str, offset: i64, max_bytes: i32, max_wait_ms: i32) -> FetchRequest {
    kp!(FetchRequest {
        max_wait_ms: max_wait_ms,
        min_bytes: 1,
        max_bytes: max_bytes,
        session_epoch: -1,
        topics: vec![kp!(FetchTopic {
            topic: topic_name(topic),
            partitions: vec![kp!(FetchPartition {
                partition: 0,
                fetch_offset: offset,
                partition_max_bytes: max_bytes,
                current_leader_epoch: -1,
                log_start_offset: -1,
            })],
        })],
    })
}

pub fn encoded<M: Encodable>(message: &M, version: i16) -> BytesMut {
    let mut body = BytesMut::new();
    message.encode(&mut body, version).unwrap();
    body
}

pub fn api_name(key: i16) -> String {
    ApiKey::try_from(key).map_or_else(|_| key.to_string(), |k| format!("{k:?}"))
}

pub fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64
}

/// A batch of these values, keyless, at the present time.
pub fn batch(values: &[&str]) -> Bytes {
    batch_with(Builder::new(), now_ms(), values)
}

pub fn batch_with(mut builder: Builder, timestamp_ms: i64, values: &[&str]) -> Bytes {
    for value in values {
        builder.push(timestamp_ms, None, Some(value.as_bytes()), []);
    }
    builder.finish().freeze()
}

/// The values of fetched batches, from `from` on.
pub fn values(part: &PartitionData, from: i64) -> Vec<String> {
    let bytes = part.records.clone().unwrap_or_default();
    catchwater_client::remote::decode_records(&bytes, from)
        .unwrap()
        .into_iter()
        .map(|r| String::from_utf8(r.value.unwrap_or_default().to_vec()).unwrap())
        .collect()
}
