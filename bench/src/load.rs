//! The load of `produce`: raw sockets and ready-made frames, the same bytes to any broker.
//!
//! One thread per producer, `window` requests in flight, one batch per request, partitions in turn. A batch is built
//! once; only the correlation id and the partition differ between frames, so the client costs two system calls per
//! request and no encoding. Records are 1 KB, uncompressed, without producer id.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use catchwater_protocol::api::create_topics::{CreatableTopic, CreatableTopicConfig};
use catchwater_protocol::api::delete_topics::DeleteTopicState;
use catchwater_protocol::api::metadata::MetadataRequestTopic;
use catchwater_protocol::api::produce::{PartitionProduceData, TopicProduceData};
use catchwater_protocol::api::{CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest, ProduceRequest};
use catchwater_protocol::header::{self, RequestHeader};
use catchwater_protocol::{Reader, Request, Writer};
use catchwater_record::batch::build::Builder;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Not flexible, so that an answer has a fixed shape; Kafka 4 serves it from 3 on.
const PRODUCE_VERSION: i16 = 7;
const RECORD_BYTES: usize = 1024;
const WARM_SECONDS_MAX: f64 = 2.0;
const READY: Duration = Duration::from_secs(120);
/// New partitions may refuse so long.
const SETTLED: Duration = Duration::from_secs(15);
/// Largest answer that is believed.
const REPLY_BYTES_MAX: usize = 64 << 20;

/// One connection for administration.
pub struct Admin {
    stream: TcpStream,
    correlation: i32,
}

impl Admin {
    pub fn connect(address: &str) -> Result<Admin> {
        let stream = TcpStream::connect(address).with_context(|| address.to_owned())?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(READY))?;
        Ok(Admin { stream, correlation: 0 })
    }

    fn call<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response> {
        self.correlation += 1;
        self.stream.write_all(&frame(version, request, self.correlation)?)?;
        let mut reader = Reader::new(read_frame(&mut self.stream)?.into());
        let flexible = header::response_is_flexible(R::KEY, version);
        ensure!(header::decode_response(&mut reader, flexible)? == self.correlation, "another answer");
        Ok(catchwater_protocol::Message::decode(&mut reader, version)?)
    }

    /// Makes the topic; returns when every partition has a leader.
    pub fn create(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> Result<()> {
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: 1,
            configs: configs
                .iter()
                .map(|(k, v)| CreatableTopicConfig { name: (*k).into(), value: Some((*v).into()) })
                .collect(),
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 60_000, validate_only: false };
        for result in self.call(5, &request)?.topics {
            ensure!(result.error_code == 0, "{name}: error {} {:?}", result.error_code, result.error_message);
        }
        let topics = Some(vec![MetadataRequestTopic { name: Some(name.into()), ..Default::default() }]);
        let request = MetadataRequest { topics, allow_auto_topic_creation: false, ..Default::default() };
        let deadline = Instant::now() + READY;
        loop {
            let reply = self.call(8, &request)?;
            let led = reply.topics.iter().flat_map(|t| &t.partitions).filter(|p| p.error_code == 0).count();
            if led == usize::try_from(partitions)? {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{name}: {led} of {partitions} partitions have a leader");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn delete(&mut self, name: &str) -> Result<()> {
        let topics = vec![DeleteTopicState { name: Some(name.into()), ..Default::default() }];
        self.call(6, &DeleteTopicsRequest { topics, timeout_ms: 60_000, ..Default::default() })?;
        Ok(())
    }
}

fn frame<R: Request>(version: i16, request: &R, correlation: i32) -> Result<Vec<u8>> {
    let head = RequestHeader { key: R::KEY, version, correlation, client_id: Some("bench".into()) };
    let mut writer = Writer::with_capacity(32);
    head.encode(&mut writer, header::request_is_flexible(R::KEY, version));
    let head = writer.finish()?.to_bytes();
    let body = catchwater_protocol::encode(request, version)?.to_bytes();
    let mut out = u32::try_from(head.len() + body.len())?.to_be_bytes().to_vec();
    out.extend_from_slice(&head);
    out.extend_from_slice(&body);
    Ok(out)
}

fn read_frame(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    ensure!(length <= REPLY_BYTES_MAX, "an answer of {length} bytes");
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(body)
}

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub partitions: i32,
    /// Bytes of a batch, about.
    pub batch_bytes: usize,
    pub producers: usize,
    /// Requests in flight per producer.
    pub window: usize,
    pub seconds: f64,
    /// A run ends before it has sent so much, bytes.
    pub bytes_max: u64,
}

/// What was acknowledged between the end of the warm-up and the end.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub bytes: u64,
    pub batches: u64,
    pub seconds: f64,
    /// Of the broker's process.
    pub cpu_seconds: f64,
}

/// A batch of that many bytes, about, in records of 1 KB.
pub fn batch(bytes: usize) -> Bytes {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
    let mut builder = Builder::new();
    let mut left = bytes.saturating_sub(61).max(16);
    while left > 0 {
        let value = left.min(RECORD_BYTES);
        // Noise, so that nothing below compresses it.
        let noise: Vec<u8> = (0..value).map(|i| ((i * 2_654_435_761usize) >> 13) as u8).collect();
        builder.push(now_ms, None, Some(&noise[..value.saturating_sub(10)]), []);
        left -= value;
    }
    builder.finish().freeze()
}

/// A Produce request of one batch with acks=all, and where in it the partition's index stands.
pub fn produce_frame(topic: &str, records: &Bytes) -> Result<(Vec<u8>, usize)> {
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 60_000,
        topic_data: vec![TopicProduceData {
            name: topic.into(),
            partition_data: vec![PartitionProduceData { index: 0, records: Some(records.clone().into()) }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let template = frame(PRODUCE_VERSION, &request, 0)?;
    // Right before the length of the records.
    let index_at = template.len() - records.len() - 8;
    Ok((template, index_at))
}

/// Runs the load with acks=all against `topic`; a fifth of the time, 2 s at most, is warm-up. `cpu` reads the broker's CPU seconds.
pub fn run(address: &str, topic: &str, load: Load, cpu: impl Fn() -> f64) -> Result<Sent> {
    let records = batch(load.batch_bytes);
    let (template, index_at) = produce_frame(topic, &records)?;
    let (stop, acked) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let producers: Vec<_> = (0..load.producers)
            .map(|n| {
                let producer = Producer { template: template.clone(), index_at, load, acked: &acked, stop: &stop };
                let first = i32::try_from(n).unwrap_or(0).wrapping_mul(7919).rem_euclid(load.partitions);
                scope.spawn(move || producer.run(address, first))
            })
            .collect();
        std::thread::sleep(Duration::from_secs_f64((load.seconds / 5.0).min(WARM_SECONDS_MAX)));
        let (from, cpu_from, acked_from) = (Instant::now(), cpu(), acked.load(Ordering::Relaxed));
        let most = load.bytes_max / records.len() as u64;
        while from.elapsed().as_secs_f64() < load.seconds
            && acked.load(Ordering::Relaxed) < most
            && !producers.iter().any(|p| p.is_finished())
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        let (batches, seconds) = (acked.load(Ordering::Relaxed) - acked_from, from.elapsed().as_secs_f64());
        let cpu_seconds = cpu() - cpu_from;
        stop.store(true, Ordering::Relaxed);
        for producer in producers {
            producer.join().map_err(|_| anyhow::anyhow!("a producer panicked"))??;
        }
        Ok(Sent { bytes: batches * records.len() as u64, batches, seconds, cpu_seconds })
    })
}

struct Producer<'a> {
    template: Vec<u8>,
    index_at: usize,
    load: Load,
    acked: &'a AtomicU64,
    stop: &'a AtomicBool,
}

impl Producer<'_> {
    fn run(mut self, address: &str, first: i32) -> Result<()> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(READY))?;
        let (mut sent, mut answered, mut partition) = (0i32, 0i32, first);
        let (mut reply, began) = (Vec::new(), Instant::now());
        loop {
            let going = !self.stop.load(Ordering::Relaxed);
            if !going && answered == sent {
                return Ok(());
            }
            if going && ((sent - answered) as usize) < self.load.window {
                sent += 1;
                self.template[8..12].copy_from_slice(&sent.to_be_bytes());
                self.template[self.index_at..self.index_at + 4].copy_from_slice(&partition.to_be_bytes());
                partition = (partition + 1) % self.load.partitions;
                stream.write_all(&self.template)?;
                continue;
            }
            let mut length = [0; 4];
            stream.read_exact(&mut length)?;
            let length = u32::from_be_bytes(length) as usize;
            ensure!(length < 4096, "an answer of {length} bytes");
            reply.resize(length, 0);
            stream.read_exact(&mut reply)?;
            answered += 1;
            match code(&reply, answered)? {
                0 => drop(self.acked.fetch_add(1, Ordering::Relaxed)),
                // Metadata of a Kafka shows leaders a moment before they take anything: 3, 5, 6.
                3 | 5 | 6 if began.elapsed() < SETTLED => std::thread::sleep(Duration::from_millis(5)),
                code => bail!("error {code}"),
            }
        }
    }
}

/// The answers come in order; what one says of its partition.
pub fn code(reply: &[u8], correlation: i32) -> Result<i16> {
    let mut reader = Reader::new(Bytes::copy_from_slice(reply));
    ensure!(header::decode_response(&mut reader, false)? == correlation, "answers out of order");
    let reply: catchwater_protocol::api::ProduceResponse =
        catchwater_protocol::Message::decode(&mut reader, PRODUCE_VERSION)?;
    let part = reply.responses.first().and_then(|t| t.partition_responses.first());
    Ok(part.context("an answer without a partition")?.error_code)
}
