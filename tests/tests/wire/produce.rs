//! D. Produce.

use bytes::{Bytes, BytesMut};
use catchwater_record::batch::build::Builder;
use catchwater_record::batch::{Codec, patch};
use catchwater_record::compress::{SnappyFraming, compress_batch};
use catchwater_record::crc::crc32c;
use catchwater_record::{BatchView, LeaderEpoch, Offset};
use catchwater_tests::broker::{Broker, Settings, unique};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest};

use crate::topics::{create, create_all};
use crate::wire::*;

fn latest(wire: &mut Wire, topic: &str) -> i64 {
    crate::fetch::offset_at(wire, topic, -1)
}

/// The batch with other bytes at a place, its CRC made right again.
fn with(batch: &Bytes, at: usize, bytes: &[u8]) -> Bytes {
    let mut changed = BytesMut::from(&batch[..]);
    changed[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c(&changed[21..]);
    changed[17..21].copy_from_slice(&crc.to_be_bytes());
    changed.freeze()
}

#[test]
fn wire_036_each_refusal_has_its_code_and_leaves_the_log_alone() {
    let broker = Broker::start_with(Settings::default().arg("--profile").arg("compat"));
    let mut wire = Wire::to(&broker);
    let topic = unique("refuse");
    wire.topic(&topic);
    let good = batch(&["a", "b", "c"]);
    let mut broken = BytesMut::from(&good[..]);
    broken[17] ^= 1;
    let two: Bytes = [&good[..], &good[..]].concat().into();
    let mut short = BytesMut::from(&good[..]);
    short.truncate(60);
    let cases: Vec<(&str, Option<Bytes>, &[i16])> = vec![
        // Kafka says 2 or 87 by the reader that meets it first; a client treats both alike.
        ("no records", Some(Bytes::new()), &[87, 2]),
        ("shorter than a header", Some(short.freeze()), &[87, 2]),
        ("two batches", Some(two), &[87]),
        ("magic 1", Some(with(&good, 16, &[1])), &[87, 2, 43, 76]),
        ("codec 5", Some(with(&good, 21, &[0, 5])), if broker.is_foreign() { &[-1] } else { &[76] }),
        ("crc", Some(broken.freeze()), &[2]),
        ("negative count", Some(with(&good, 57, &(-1i32).to_be_bytes())), &[87]),
        ("count above the delta", Some(with(&good, 57, &4i32.to_be_bytes())), &[87]),
        ("delta above the count", Some(with(&good, 23, &7i32.to_be_bytes())), &[87]),
        ("base offset", Some(with(&good, 0, &(-1i64).to_be_bytes())), &[87]),
        ("control bit", Some(with(&good, 21, &[0, 32])), &[87]),
        ("producer without sequence", Some(with(&good, 43, &5i64.to_be_bytes())), &[87]),
        ("far future", Some(batch_with(Builder::new(), now_ms() + 2 * 3_600_000, &["x"])), &[32]),
    ];
    for (what, records, codes) in cases {
        let reply = wire.call(9, &produce_request(&topic, -1, records));
        let part = &reply.responses[0].partition_responses[0];
        assert!(codes.contains(&part.error_code), "{what}: {} not in {codes:?}", part.error_code);
        assert_eq!(part.base_offset, -1, "{what}: no offset for what was not written");
        // Where the log begins, it says of what it judged itself.
        let request = ["no records", "shorter than a header", "two batches", "magic 1", "crc"].contains(&what);
        assert_eq!(part.log_start_offset, if request { -1 } else { 0 }, "{what}: log start");
    }
    assert_eq!(latest(&mut wire, &topic), 0);
    // A good partition beside a bad one succeeds.
    let other = unique("beside");
    wire.topic(&other);
    let data = |name: &str, records: Bytes| {
        kp!(TopicProduceData {
            name: topic_name(name),
            partition_data: vec![kp!(PartitionProduceData { index: 0, records: Some(records) })],
        })
    };
    let request = kp!(ProduceRequest {
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![data(&topic, with(&good, 57, &4i32.to_be_bytes())), data(&other, good.clone())],
    });
    let reply = wire.call(9, &request);
    let code = |name: &str| {
        reply.responses.iter().find(|t| t.name.as_str() == name).unwrap().partition_responses[0].error_code
    };
    assert_eq!((code(&topic), code(&other)), (87, 0));
    assert_eq!((latest(&mut wire, &topic), latest(&mut wire, &other)), (0, 3));
}

#[test]
fn wire_037_a_batch_above_max_message_bytes_is_refused_as_sent() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let topic = unique("small");
    wire.call(7, &create_all(vec![create(&topic, &[("max.message.bytes", "50000")])], false));
    wire.topic(&topic);
    let large = "x".repeat(60_000);
    assert_eq!(wire.produce(&topic, batch(&[&large])).error_code, 10);
    let plain = batch(&[&large]);
    let packed = compress_batch(&BatchView::new(&plain).unwrap(), Codec::Zstd, SnappyFraming::Raw).unwrap().freeze();
    assert_eq!(wire.produce(&topic, packed).error_code, 0, "compressed size counts");
    assert_eq!(values(&wire.fetch(&topic, 0), 0), [large]);
    let huge = batch(&[&"y".repeat(10 * 1024 * 1024)]);
    assert_eq!(wire.produce(&topic, huge).error_code, 10);
    wire.lives();
}

#[test]
fn wire_048_a_batch_fits_into_a_segment_and_what_is_cut_behind_it_is_left_out() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let topic = unique("fits");
    wire.call(
        7,
        &create_all(vec![create(&topic, &[("max.message.bytes", "3000000"), ("segment.bytes", "1048576")])], false),
    );
    wire.topic(&topic);
    let empty = batch(&[""]).len();
    // A record's length and its value's length take two bytes more each than those of an empty one.
    let fitting = batch(&[&"x".repeat(1_048_576 - empty - 4)]);
    assert_eq!(fitting.len(), 1_048_576);
    let above = batch(&[&"x".repeat(1_048_576 - empty - 3)]);
    assert_eq!((wire.produce(&topic, above).error_code, latest(&mut wire, &topic)), (18, 0));
    assert_eq!(wire.produce(&topic, fitting).error_code, 0);
    let good = batch(&["a"]);
    let followed = |rest: &[u8]| Bytes::from([&good[..], rest].concat());
    assert_eq!(wire.produce(&topic, followed(&good[..good.len() - 1])).error_code, 0);
    assert_eq!(wire.produce(&topic, followed(&[0; 11])).error_code, 0);
    assert_eq!(wire.produce(&topic, followed(&[0; 12])).error_code, 2);
    assert_eq!(latest(&mut wire, &topic), 3);
    assert_eq!(values(&wire.fetch(&topic, 1), 0), ["a", "a"]);
}

pub fn producer_id(wire: &mut Wire) -> (i64, i16) {
    let request = kp!(InitProducerIdRequest { transactional_id: None, transaction_timeout_ms: i32::MAX });
    for _ in 0..100 {
        let reply = wire.call(4, &request);
        match reply.error_code {
            0 => return (reply.producer_id.0, reply.producer_epoch),
            // The coordinator is not ready yet.
            14 | 15 | 51 => std::thread::sleep(std::time::Duration::from_millis(50)),
            code => panic!("InitProducerId: {code}"),
        }
    }
    panic!("no producer id");
}

#[test]
fn wire_040_an_idempotent_producer_is_neither_repeated_nor_reordered() {
    let mut broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let topic = unique("idem");
    wire.topic(&topic);
    let (id, epoch) = producer_id(&mut wire);
    assert_eq!(epoch, 0);
    assert_ne!(producer_id(&mut wire).0, id, "ids are given once");
    let numbered = |epoch: i16, sequence: i32, values: &[&str]| {
        batch_with(Builder::new().producer(id, epoch, sequence), now_ms(), values)
    };
    let batches: Vec<Bytes> = (0..7).map(|i| numbered(0, i * 2, &[&format!("{i}a"), &format!("{i}b")])).collect();
    for (i, batch) in batches.iter().enumerate() {
        let part = wire.produce(&topic, batch.clone());
        assert_eq!((part.error_code, part.base_offset), (0, i as i64 * 2));
    }
    let check = |wire: &mut Wire, when: &str| {
        // One of the last five: success with the original offset.
        for (i, batch) in batches.iter().enumerate().skip(2) {
            let part = wire.produce(&topic, batch.clone());
            assert_eq!((part.error_code, part.base_offset), (0, i as i64 * 2), "{when}: repeat of {i}");
        }
        assert!(matches!(wire.produce(&topic, batches[0].clone()).error_code, 45 | 46), "{when}: too old a repeat");
        assert_eq!(wire.produce(&topic, numbered(0, 16, &["gap"])).error_code, 45, "{when}: a gap");
        assert_eq!(latest(wire, &topic), 14, "{when}");
    };
    check(&mut wire, "running");
    if !broker.is_foreign() {
        broker.kill();
        broker.restart().unwrap();
        wire = Wire::to(&broker);
        wire.topic(&topic);
        check(&mut wire, "after a kill");
    }
    assert_eq!(wire.produce(&topic, numbered(1, 5, &["x"])).error_code, 45, "a new epoch begins at 0");
    assert_eq!(wire.produce(&topic, numbered(1, 0, &["new epoch"])).error_code, 0);
    assert_eq!(wire.produce(&topic, numbered(0, 14, &["old epoch"])).error_code, 47);
    assert_eq!(latest(&mut wire, &topic), 15);
    // A producer unknown to the partition may start anywhere.
    let (other, _) = producer_id(&mut wire);
    let anywhere = batch_with(Builder::new().producer(other, 0, i32::MAX - 1), now_ms(), &["1", "2", "3"]);
    assert_eq!(wire.produce(&topic, anywhere).error_code, 0);
    let wrapped = batch_with(Builder::new().producer(other, 0, 1), now_ms(), &["4"]);
    assert_eq!(wire.produce(&topic, wrapped).error_code, 0, "the sequence wraps after 2^31 - 1");
}

#[test]
fn wire_041_log_append_time_is_stamped_and_answered() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let topic = unique("lat");
    wire.call(7, &create_all(vec![create(&topic, &[("message.timestamp.type", "LogAppendTime")])], false));
    wire.topic(&topic);
    let before = now_ms();
    let part = wire.produce(&topic, batch_with(Builder::new(), 1_000, &["a"]));
    assert_eq!(part.error_code, 0);
    assert!(part.log_append_time_ms >= before && part.log_append_time_ms <= now_ms());
    let fetched = wire.fetch(&topic, 0).records.unwrap();
    let view = BatchView::new(&fetched).unwrap();
    view.check_crc().unwrap();
    assert_eq!((view.attributes() & 8, view.max_timestamp()), (8, part.log_append_time_ms));
    let plain = unique("ct");
    wire.topic(&plain);
    assert_eq!(wire.produce(&plain, batch(&["a"])).log_append_time_ms, -1);
}

#[test]
fn wire_042_timestamps_outside_the_limits_are_refused_with_the_record() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let topic = unique("ts");
    wire.call(7, &create_all(vec![create(&topic, &[("message.timestamp.before.max.ms", "3600000")])], false));
    wire.topic(&topic);
    for (what, at, code) in [
        ("now", now_ms(), 0),
        ("half an hour ahead", now_ms() + 1_800_000, 0),
        ("two hours ahead", now_ms() + 7_200_000, 32),
        ("two hours ago", now_ms() - 7_200_000, 32),
        ("no timestamp", -1, 0),
    ] {
        let part = wire.produce(&topic, batch_with(Builder::new(), at, &["x"]));
        assert_eq!(part.error_code, code, "{what}");
        assert_eq!(part.record_errors.is_empty(), code == 0, "{what}");
    }
    // Neither the first nor the largest time of its batch.
    let mut builder = Builder::new();
    for at in [now_ms(), now_ms() - 7_200_000, now_ms()] {
        builder.push(at, None, Some(b"x"), []);
    }
    let part = wire.produce(&topic, builder.finish().freeze());
    assert_eq!((part.error_code, part.record_errors.len(), part.record_errors[0].batch_index), (32, 1, 1));
}

#[test]
fn wire_043_other_acks_than_minus_one_zero_and_one_are_refused() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let topic = unique("acks");
    wire.topic(&topic);
    for acks in [-2, 2, i16::MAX] {
        assert_eq!(wire.produce_at(9, &topic, acks, batch(&["x"])).error_code, 21, "acks {acks}");
    }
    assert_eq!(wire.produce_at(9, &topic, 1, batch(&["x"])).base_offset, 0);
    assert_eq!(wire.produce_at(3, &topic, -1, batch(&["y"])).base_offset, 1);
}

#[test]
fn wire_044_a_topic_or_partition_nobody_knows_is_3() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    assert_eq!(wire.produce(&unique("nobody"), batch(&["x"])).error_code, 3);
    let topic = unique("one");
    wire.topic(&topic);
    let mut request = produce_request(&topic, -1, Some(batch(&["x"])));
    request.topic_data[0].partition_data[0].index = 7;
    assert_eq!(wire.call(9, &request).responses[0].partition_responses[0].error_code, 3);
    request.topic_data[0].partition_data[0].index = -1;
    assert_eq!(wire.call(9, &request).responses[0].partition_responses[0].error_code, 3);
}

#[test]
fn wire_045_046_consumers_get_the_producers_bytes() {
    let mut broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let topic = unique("bytes");
    wire.topic(&topic);
    let mut builder = Builder::new();
    builder.push(
        now_ms(),
        Some(b"k"),
        Some(b"v"),
        [
            (&b"h"[..], Some(&b"1"[..])),
            (&b"h"[..], None),
            (&b""[..], Some(&b""[..])),
            (&b"\xff\xfe"[..], Some(&b"\0"[..])),
        ],
    );
    builder.push(now_ms(), None, None, []);
    builder.push(now_ms(), Some(b""), Some(b""), []);
    let plain = builder.finish().freeze();
    let view = BatchView::new(&plain).unwrap();
    let mut sent = vec![BytesMut::from(&plain[..])];
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        sent.push(compress_batch(&view, codec, SnappyFraming::Raw).unwrap());
    }
    sent.push(compress_batch(&view, Codec::Snappy, SnappyFraming::Xerial).unwrap());
    for batch in &sent {
        assert_eq!(wire.produce(&topic, batch.clone().freeze()).error_code, 0);
    }
    let check = |wire: &mut Wire| {
        let mut got = wire.fetch(&topic, 0).records.unwrap();
        for (i, batch) in sent.iter().enumerate() {
            let mut expect = batch.clone();
            let epoch = BatchView::split(&got).unwrap().0.leader_epoch();
            patch(&mut expect, Offset(3 * i as u64), LeaderEpoch(epoch as u32));
            let found = got.split_to(expect.len());
            assert!(found == expect, "batch {i}: more than base offset and epoch differs");
        }
        assert!(got.is_empty());
    };
    check(&mut wire);
    if !broker.is_foreign() {
        broker.kill();
        broker.restart().unwrap();
        let mut wire = Wire::to(&broker);
        wire.topic(&topic);
        check(&mut wire);
    }
}

#[test]
fn wire_038_null_keys_on_a_compacted_topic_name_their_records() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let topic = unique("compact");
    wire.call(7, &create_all(vec![create(&topic, &[("cleanup.policy", "compact")])], false));
    wire.topic(&topic);
    let mut builder = Builder::new();
    builder.push(now_ms(), Some(b"k"), Some(b"v"), []);
    builder.push(now_ms(), None, Some(b"v"), []);
    builder.push(now_ms(), Some(b"l"), Some(b"v"), []);
    builder.push(now_ms(), None, None, []);
    let plain = builder.finish().freeze();
    let packed = compress_batch(&BatchView::new(&plain).unwrap(), Codec::Lz4, SnappyFraming::Raw).unwrap().freeze();
    for batch in [plain, packed] {
        let part = wire.produce(&topic, batch);
        assert_eq!(part.error_code, 87);
        assert_eq!(part.record_errors.iter().map(|e| e.batch_index).collect::<Vec<_>>(), [1, 3]);
    }
    assert_eq!(latest(&mut wire, &topic), 0);
}

#[test]
fn wire_acked_batches_survive_a_kill_at_once() {
    let mut broker = Broker::start();
    if broker.is_foreign() {
        return;
    }
    let topic = unique("kill");
    Wire::to(&broker).topic(&topic);
    let mut acked = Vec::new();
    for round in 0..5 {
        let mut wire = Wire::to(&broker);
        wire.topic(&topic);
        for i in 0..20 {
            let value = format!("{round}-{i}");
            let part = wire.produce(&topic, batch(&[&value]));
            assert_eq!((part.error_code, part.base_offset), (0, acked.len() as i64));
            acked.push(value);
        }
        broker.kill();
        broker.restart().unwrap();
    }
    let mut wire = Wire::to(&broker);
    wire.topic(&topic);
    // What is in files already may come in an answer of its own.
    let mut got: Vec<String> = Vec::new();
    while got.len() < acked.len() {
        let more = values(&wire.fetch(&topic, got.len() as i64), 0);
        assert!(!more.is_empty(), "{} of {} are there", got.len(), acked.len());
        got.extend(more);
    }
    assert_eq!(got, acked);
}

#[test]
fn wire_047_transactional_batches_without_a_transactional_id_are_53() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let topic = unique("txn");
    wire.topic(&topic);
    let (id, epoch) = producer_id(&mut wire);
    let plain = batch_with(Builder::new().producer(id, epoch, 0), now_ms(), &["x"]);
    let transactional = with(&plain, 21, &[0, 16]);
    assert_eq!(wire.produce(&topic, transactional).error_code, 53);
    assert_eq!(latest(&mut wire, &topic), 0);
}
