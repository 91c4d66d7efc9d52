//! A. Handshake and framing.

use std::time::Duration;

use bytes::{Buf, Bytes};
use catchwater_protocol::versions::{self, State};
use catchwater_tests::broker::{Broker, unique};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, VersionRange};

use crate::wire::*;

fn versions_request() -> ApiVersionsRequest {
    kp!(ApiVersionsRequest { client_software_name: text("wire-test"), client_software_version: text("1.0") })
}

#[test]
fn wire_001_an_unknown_api_versions_version_gets_a_v0_body_with_error_35() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    for version in [5, 42, i16::MAX] {
        // The body is garbage: it must not be parsed.
        let id = wire.frame(18, version, Some("w"), true, &[0xff; 9]);
        let Next::Frame(mut frame) = wire.next() else { panic!("closed at version {version}") };
        assert_eq!(frame.get_i32(), id);
        let reply = ApiVersionsResponse::decode(&mut frame, 0).unwrap();
        assert!(frame.is_empty());
        assert_eq!(reply.error_code, 35);
        let own = reply.api_keys.iter().find(|k| k.api_key == 18).unwrap();
        assert_eq!((own.min_version, own.max_version), (0, 4));
    }
    wire.lives();
}

#[test]
fn wire_002_api_versions_replies_have_response_header_v0() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    for version in 0..=4 {
        let id = wire.frame(18, version, Some("w"), version >= 3, &encoded(&versions_request(), version));
        let Next::Frame(mut frame) = wire.next() else { panic!("closed at version {version}") };
        assert_eq!(frame.get_i32(), id);
        let reply = ApiVersionsResponse::decode(&mut frame, version).unwrap();
        assert!(frame.is_empty(), "version {version}");
        assert_eq!(reply.error_code, 0);
        assert!(reply.api_keys.len() >= 20);
    }
}

#[test]
fn wire_003_features_whose_minimum_is_zero_are_left_out_below_v4() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let reply = wire.call(3, &versions_request());
    assert!(reply.supported_features.iter().all(|f| f.min_version > 0), "{:?}", reply.supported_features);
}

#[test]
fn wire_004_a_bad_client_name_answers_42() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let ask = |name: &str, version: &str| {
        kp!(ApiVersionsRequest { client_software_name: text(name), client_software_version: text(version) })
    };
    for (name, version, code) in [
        ("librdkafka", "v2.10.0-rc1", 0),
        ("a", "1", 0),
        ("", "1", 42),
        ("-a", "1", 42),
        ("a b", "1", 42),
        ("a", "1\n", 42),
        ("a", "", 42),
        ("a.", "1", 42),
    ] {
        for v in [3, 4] {
            assert_eq!(wire.call(v, &ask(name, version)).error_code, code, "{name:?} {version:?}");
        }
    }
    wire.lives();
}

#[test]
fn wire_005_what_is_advertised_is_served_and_nothing_else() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let shown = wire.call(4, &versions_request()).api_keys;
    let row = |key: i16| shown.iter().find(|k| k.api_key == key).map(|k| (k.min_version, k.max_version));
    assert_eq!(row(0), Some((0, 13)), "Produce shows 0 (KAFKA-18659)");
    assert_eq!(row(11), Some((0, 9)), "JoinGroup shows 0 (KAFKA-19444)");
    if !broker.is_foreign() {
        for api in &versions::APIS {
            let expect = (api.state == State::Served).then_some((api.min, api.max));
            assert_eq!(row(api.key), expect, "{}", api.name);
        }
    }
    for version in 0..3 {
        let mut wire = Wire::to(&broker);
        wire.frame(0, version, Some("w"), false, &[0, 1, 0, 0, 0, 1, 0, 0, 0, 0]);
        wire.closes("Produce below 3");
    }
}

#[test]
fn wire_006_unknown_keys_and_versions_close_without_a_reply() {
    let broker = Broker::start();
    let mut cases: Vec<(i16, i16)> = vec![(-1, 0), (4, 0), (7, 0), (999, 0), (i16::MAX, 0), (3, -1)];
    for api in versions::APIS.iter().filter(|a| a.key != 18) {
        if api.state == State::NotYet && !broker.is_foreign() {
            cases.push((api.key, api.max));
        }
        if api.state == State::Served {
            cases.push((api.key, api.max + 1));
            cases.push((api.key, i16::MAX));
        }
    }
    for (key, version) in cases {
        let mut wire = Wire::to(&broker);
        wire.frame(key, version, Some("w"), true, &[0; 20]);
        wire.closes(&format!("key {key} version {version}"));
    }
    Wire::to(&broker).lives();
}

#[test]
fn wire_007_a_bad_frame_length_closes_at_once() {
    let broker = Broker::start();
    let mut bystander = Wire::to(&broker);
    for length in [-1, i32::MIN, 0, 7, 100 * 1024 * 1024 + 1, i32::MAX] {
        if broker.is_foreign() && (0..8).contains(&length) {
            continue;
        }
        let mut wire = Wire::to(&broker);
        wire.bytes(&length.to_be_bytes());
        wire.closes(&format!("length {length}"));
    }
    bystander.lives();
}

#[test]
fn wire_008_a_null_client_id_is_accepted_at_every_header_version() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    for version in 0..=12 {
        let request = kp!(MetadataRequest { topics: Some(vec![]), allow_auto_topic_creation: version != 4 });
        let body = encoded(&request, version);
        for client in [None, Some(""), Some("ünïcode")] {
            let id = wire.frame(3, version, client, version >= 9, &body);
            wire.reply::<MetadataRequest>(version, id);
        }
    }
}

#[test]
fn wire_009_garbage_behind_a_complete_body_is_ignored() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    for version in [1, 12] {
        let mut body = encoded(&kp!(MetadataRequest { topics: Some(vec![]) }), version);
        body.extend_from_slice(&[0xee; 7]);
        let id = wire.frame(3, version, Some("w"), version >= 9, &body);
        wire.reply::<MetadataRequest>(version, id);
    }
}

#[test]
fn wire_010_acks_0_has_no_reply_and_a_failing_one_closes() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let topic = unique("acks0");
    wire.topic(&topic);
    wire.send(9, &produce_request(&topic, 0, Some(batch(&["a", "b"]))));
    let id = wire.send(12, &kp!(MetadataRequest { topics: Some(vec![]) }));
    wire.reply::<MetadataRequest>(12, id);
    let mut found = Vec::new();
    for _ in 0..50 {
        found = values(&wire.fetch(&topic, 0), 0);
        if !found.is_empty() {
            break;
        }
    }
    assert_eq!(found, ["a", "b"]);
    wire.send(9, &produce_request(&unique("no such topic!"), 0, Some(batch(&["x"]))));
    wire.closes("acks=0 with an error");
}

#[test]
fn wire_011_replies_come_in_request_order_and_produces_in_request_order() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let topic = unique("order");
    wire.topic(&topic);
    enum Asked {
        Produce(i32),
        Metadata(i32),
        Fetch(i32),
    }
    let mut asked = Vec::new();
    for i in 0..150 {
        match i % 5 {
            0 | 1 => {
                asked.push(Asked::Produce(wire.send(9, &produce_request(&topic, -1, Some(batch(&[&format!("v{i}")]))))))
            }
            // Beyond the end: parked for a moment.
            2 if i % 3 == 0 => asked.push(Asked::Fetch(wire.send(11, &fetch_request(&topic, 60, 1 << 20, 30)))),
            _ => asked.push(Asked::Metadata(wire.send(12, &kp!(MetadataRequest { topics: Some(vec![]) })))),
        }
    }
    let mut last = -1;
    for request in asked {
        match request {
            Asked::Metadata(id) => drop(wire.reply::<MetadataRequest>(12, id)),
            Asked::Fetch(id) => drop(wire.reply::<FetchRequest>(11, id)),
            Asked::Produce(id) => {
                let reply = wire.reply::<ProduceRequest>(9, id);
                let part = &reply.responses[0].partition_responses[0];
                assert_eq!(part.error_code, 0);
                assert_eq!(part.base_offset, last + 1, "produces of one connection land in their order");
                last = part.base_offset;
            }
        }
    }
    let sent: Vec<String> = (0..150).filter(|i| i % 5 < 2).map(|i| format!("v{i}")).collect();
    assert_eq!(values(&wire.fetch(&topic, 0), 0), sent);
}

#[test]
fn wire_013_brokers_are_given_with_the_address_of_the_listener() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let reply = wire.call(12, &kp!(MetadataRequest { topics: Some(vec![]) }));
    let addresses: Vec<String> = reply.brokers.iter().map(|b| format!("{}:{}", b.host, b.port)).collect();
    assert_eq!(addresses, [broker.kafka()]);
    assert_eq!(reply.controller_id, reply.brokers[0].node_id);
    assert!(reply.cluster_id.is_some_and(|c| !c.is_empty()));
}

/// Every served key and version: a default-valued request gets a reply that decodes at that version.
#[test]
fn wire_table_every_served_key_and_version_answers_a_default_request() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    let mut answered = 0;
    for api in versions::APIS.iter().filter(|a| a.state == State::Served) {
        let key = ApiKey::try_from(api.key).unwrap();
        let VersionRange { min, max } = key.valid_versions();
        for version in api.served_min..=api.max {
            let body = default_body(api.key, version);
            let flexible = api.flex.is_some_and(|f| version >= f);
            let id = wire.frame(api.key, version, Some("w"), flexible, &body);
            let Next::Frame(mut frame) = wire.next() else { panic!("{} v{version}: no reply", api.name) };
            assert_eq!(frame.get_i32(), id);
            if flexible && api.key != 18 {
                assert_eq!(frame.get_u8(), 0);
            }
            decodes(api.key, version, frame.clone(), api.name);
            if (min..=max).contains(&version) && !matches!((api.key, version), (8 | 9, 10)) {
                ResponseKind::decode(key, &mut frame, version)
                    .unwrap_or_else(|e| panic!("{} v{version}: {e:#}", api.name));
            }
            answered += 1;
        }
    }
    assert_eq!(answered, 174, "key-versions of the 29 served keys");
}

macro_rules! defaults {
    ($($name:ident $request:ident $response:ident;)*) => {
        fn default_body(key: i16, version: i16) -> Bytes {
            use catchwater_protocol::{Request as _, api};
            if key == 0 {
                // acks=0, the default, has no reply.
                let request = api::ProduceRequest { acks: -1, ..Default::default() };
                return catchwater_protocol::encode(&request, version).unwrap().to_bytes();
            }
            $(if key == api::$request::KEY {
                return catchwater_protocol::encode(&api::$request::default(), version).unwrap().to_bytes();
            })*
            panic!("key {key}");
        }
        fn decodes(key: i16, version: i16, body: Bytes, name: &str) {
            use catchwater_protocol::{Request as _, api};
            $(if key == api::$request::KEY {
                let (_, left) = catchwater_protocol::decode::<api::$response>(body, version)
                    .unwrap_or_else(|e| panic!("{name} v{version}: {e}"));
                assert_eq!(left, 0, "{name} v{version}");
                return;
            })*
            panic!("key {key}");
        }
    };
}
catchwater_protocol::each_api!(defaults);

#[test]
fn wire_013b_a_slow_sender_is_served() {
    let broker = Broker::start();
    let mut wire = Wire::to(&broker);
    wire.patience(Duration::from_secs(30));
    // Metadata 1 for no topic, byte by byte.
    let frame = b"\0\0\0\x0f\0\x03\0\x01\0\0\0\x09\0\x01w\0\0\0\0";
    for byte in frame {
        wire.bytes(&[*byte]);
    }
    let reply = wire.reply::<MetadataRequest>(1, 9);
    assert_eq!(reply.brokers.len(), 1);
}

#[test]
fn wire_014_connections_killed_in_the_middle_leak_nothing() {
    let broker = Broker::start();
    let mut bystander = Wire::to(&broker);
    let topic = unique("killed");
    bystander.topic(&topic);
    bystander.produce(&topic, batch(&[&"x".repeat(300_000)]));
    let files = |broker: &Broker| broker.pid().map(|pid| std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count());
    let before = files(&broker);
    for i in 0..200 {
        let mut wire = Wire::to(&broker);
        match i % 4 {
            // In the middle of a request.
            0 => wire.bytes(b"\0\0\x10\0\0\x03\0\x0c\0\0\0\x01\xff\xff"),
            // While a fetch is parked.
            1 => drop(wire.send(11, &fetch_request(&topic, 1, 1 << 20, 60_000))),
            // In the middle of a large reply.
            2 => drop(wire.send(11, &fetch_request(&topic, 0, 1 << 20, 100))),
            // With a produce under way.
            _ => drop(wire.send(9, &produce_request(&topic, -1, Some(batch(&["y"]))))),
        }
    }
    // A new fetch beyond the end is parked and woken as before.
    let part = bystander.fetch(&topic, 1);
    assert_eq!(part.error_code, 0);
    if let Some(before) = before {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while files(&broker).is_some_and(|now| now > before + 5) {
            assert!(std::time::Instant::now() < deadline, "{:?} open files, {before} before", files(&broker));
            bystander.lives();
        }
    }
}

/// A client that sends and never reads: it stops being read, and the others do not notice.
#[test]
fn wire_107b_a_consumer_that_never_reads_is_held_back() {
    let broker = Broker::start();
    if broker.is_foreign() {
        return;
    }
    let mut bystander = Wire::to(&broker);
    let topic = unique("greedy");
    bystander.topic(&topic);
    for _ in 0..8 {
        bystander.produce(&topic, batch(&[&"x".repeat(900_000)]));
    }
    let before = broker.resident_bytes().unwrap();
    let mut greedy = Vec::new();
    for _ in 0..10 {
        let mut wire = Wire::to(&broker);
        wire.patience(Duration::from_millis(200));
        // 7 MB each, 100 times: 7 GB of replies over the ten connections.
        for _ in 0..100 {
            wire.send(11, &fetch_request(&topic, 0, 50 << 20, 100));
        }
        greedy.push(wire);
    }
    for _ in 0..20 {
        assert_eq!(bystander.produce(&topic, batch(&["z"])).error_code, 0);
        bystander.fetch_bytes(&topic, 7, 1 << 20);
    }
    let after = broker.resident_bytes().unwrap();
    assert!(after < before + 400 * 1024 * 1024, "resident memory grew from {before} to {after}");
    drop(greedy);
    bystander.lives();
}
