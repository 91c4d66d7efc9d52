//! Hostile bytes: only the connection they came on ends, and memory stays flat.

use std::time::Duration;

use catchwater_base::rng::Rng;
use catchwater_protocol::versions::{self, State};
use catchwater_tests::broker::{Broker, unique};

use crate::layout;
use crate::wire::*;

/// CVE-2022-34917 and its heirs, on a running broker: the largest count at the first count of every served request.
#[test]
fn wire_106_hostile_counts_close_only_their_connection_and_memory_stays_flat() {
    let broker = Broker::start();
    if broker.is_foreign() {
        return;
    }
    let mut bystander = Wire::to(&broker);
    let topic = unique("calm");
    bystander.topic(&topic);
    bystander.produce(&topic, batch(&["a"]));
    let before = broker.resident_bytes().unwrap();
    let mut sent = 0;
    for api in versions::APIS.iter().filter(|a| a.state == State::Served) {
        for version in [api.served_min, api.max] {
            let flexible = api.flex.is_some_and(|f| version >= f);
            for body in [
                vec![0x7f, 0xff, 0xff, 0xff],
                vec![0xff, 0xff, 0xff, 0xff, 0x07],
                vec![0xff; 40],
                [vec![0; 12], vec![0x7f, 0xff, 0xff, 0xff], vec![0; 40]].concat(),
                [vec![1; 9], vec![0xff, 0xff, 0xff, 0xff, 0x07], vec![1; 40]].concat(),
            ] {
                let mut wire = Wire::to(&broker);
                wire.patience(Duration::from_millis(300));
                wire.frame(api.key, version, Some("w"), flexible, &body);
                // It closes, or answers what it could make sense of; it never hangs the others.
                let _ = wire.next();
                sent += 1;
            }
        }
    }
    // A tag flood in the header that precedes authentication (CVE-2026-111115).
    let mut flood = vec![0, 18, 0, 3, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x07];
    flood.extend([0; 1000]);
    let mut wire = Wire::to(&broker);
    wire.bytes(&(flood.len() as i32).to_be_bytes());
    wire.bytes(&flood);
    wire.closes("tag flood");
    assert!(sent >= 150);
    bystander.lives();
    assert_eq!(values(&bystander.fetch(&topic, 0), 0), ["a"]);
    let after = broker.resident_bytes().unwrap();
    assert!(after < before + 64 * 1024 * 1024, "resident memory grew from {before} to {after}");
}

#[test]
fn wire_106b_random_bytes_do_no_harm() {
    let broker = Broker::start();
    if broker.is_foreign() {
        return;
    }
    let mut bystander = Wire::to(&broker);
    let before = broker.resident_bytes().unwrap();
    let mut rng = Rng::new(0xcafe);
    for round in 0..300 {
        let mut wire = Wire::to(&broker);
        wire.patience(Duration::from_millis(50));
        let len = 8 + rng.below(400) as usize;
        let mut bytes: Vec<u8> = (0..len).map(|_| rng.below(256) as u8).collect();
        if round % 2 == 0 {
            // A header that is right, so that the body is reached.
            let served: Vec<_> = versions::advertised().collect();
            let api = served[rng.below(served.len() as u64) as usize];
            let version = api.served_min + rng.below((api.max - api.served_min + 1) as u64) as i16;
            wire.frame(api.key, version, None, api.flex.is_some_and(|f| version >= f), &bytes);
        } else {
            bytes.splice(0..0, (len as i32).to_be_bytes());
            wire.bytes(&bytes);
        }
        let _ = wire.next();
        if round % 50 == 0 {
            bystander.lives();
        }
    }
    bystander.lives();
    let after = broker.resident_bytes().unwrap();
    assert!(after < before + 64 * 1024 * 1024, "resident memory grew from {before} to {after}");
}

#[test]
fn wire_107_idle_and_half_open_connections_do_not_hinder_others() {
    let broker = Broker::start();
    let idle: Vec<Wire> = (0..300).map(|_| Wire::to(&broker)).collect();
    let mut half = Vec::new();
    for _ in 0..50 {
        let mut wire = Wire::to(&broker);
        // A length of 1 MiB and nothing more: nothing may be reserved for it.
        wire.bytes(&(1i32 << 20).to_be_bytes());
        half.push(wire);
    }
    let mut wire = Wire::to(&broker);
    let topic = unique("busy");
    wire.topic(&topic);
    for _ in 0..20 {
        assert_eq!(wire.produce(&topic, batch(&["x"])).error_code, 0);
    }
    drop((idle, half));
    wire.lives();
}

/// Random but well-formed requests, straight from the descriptions: absurd counts, names, times and offsets in every field.
#[test]
fn wire_106c_well_formed_nonsense_is_answered_or_closes() {
    let broker = Broker::start();
    if broker.is_foreign() {
        return;
    }
    let rounds: u64 = std::env::var("CW_TEST_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(3);
    let mut bystander = Wire::to(&broker);
    let topic = unique("calm");
    bystander.topic(&topic);
    let before = broker.resident_bytes().unwrap();
    let (mut answered, mut closed, mut silent) = (0, 0, 0);
    for api in layout::apis() {
        let served = versions::find(api.key).unwrap();
        for version in served.served_min..=served.max {
            for round in 0..rounds {
                let mut rng = Rng::new(round << 32 | (api.key as u64) << 8 | version as u64);
                let mut body = layout::random(&api, layout::Direction::Request, version, &mut rng).body;
                if round % 3 == 2 && !body.is_empty() {
                    let at = rng.below(body.len() as u64) as usize;
                    body[at] = rng.below(256) as u8;
                }
                let mut wire = Wire::to(&broker);
                wire.patience(Duration::from_millis(400));
                wire.frame(api.key, version, Some("w"), api.flex.is_some_and(|f| version >= f), &body);
                match wire.next() {
                    Next::Frame(_) => answered += 1,
                    Next::Closed => closed += 1,
                    // A parked fetch or join, or acks=0.
                    Next::Silent => silent += 1,
                }
            }
        }
        bystander.lives();
    }
    println!("answered {answered}, closed {closed}, silent {silent}");
    assert!(answered > 100, "answered {answered}, closed {closed}, silent {silent}");
    assert_eq!(bystander.produce(&topic, batch(&["a"])).error_code, 0);
    let after = broker.resident_bytes().unwrap();
    assert!(after < before + 96 * 1024 * 1024, "resident memory grew from {before} to {after}");
    let log = broker.log();
    assert!(!log.contains("panic") && !log.contains("\"ERROR\""), "{log}");
}
