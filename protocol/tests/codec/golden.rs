//! Frames of a JVM, see `tests/golden`.

use bytes::Bytes;
use catchwater_protocol::versions::{self, State};
use catchwater_protocol::{Message, Reader, Request, api};

use crate::{DESCRIBED, Direction, pass};

const FRAMES: &str = include_str!("../golden/kafka-4.3.0.frames");

struct Frame {
    key: i16,
    direction: Direction,
    version: i16,
    captured: bool,
    body: Bytes,
}

fn frames() -> Vec<Frame> {
    let hex = |text: &str| -> Bytes {
        let digits = if text == "-" { "" } else { text };
        (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
    };
    let mut found = Vec::new();
    for line in FRAMES.lines().filter(|l| !l.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        found.push(Frame {
            key: words[0].parse().unwrap(),
            direction: if words[1] == "request" { Direction::Request } else { Direction::Response },
            version: words[2].parse().unwrap(),
            captured: words[3] == "captured",
            body: hex(words[4]),
        });
    }
    assert_eq!(found.len(), 606);
    found
}

#[test]
fn every_golden_body_of_a_described_key_decodes_to_its_end_and_encodes_to_the_same_bytes() {
    let mut passed = 0;
    for frame in frames() {
        let Some(api) = versions::find(frame.key).filter(|a| frame.version >= a.served_min && frame.version <= a.max)
        else {
            continue;
        };
        let what = format!("{} {:?} v{}", api.name, frame.direction, frame.version);
        match pass(frame.key, frame.direction, frame.version, frame.body.clone(), true) {
            None => assert_eq!(api.state, State::NotYet, "{what} is served but not described"),
            Some(outcome) => {
                let outcome = outcome.unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(outcome.left, 0, "{what}");
                assert_eq!(outcome.again.unwrap(), frame.body, "{what}");
                passed += 1;
            }
        }
    }
    let versions: usize = DESCRIBED.iter().map(|(_, _, min, max)| (max - min + 1) as usize).sum();
    // Each version in both directions, and the captured frames are among them (the newest version of an API).
    assert_eq!(passed, 2 * versions, "a frame for every described version in both directions");
}

#[test]
fn the_table_is_the_one_of_kafkas_own_broker() {
    let frame = frames()
        .into_iter()
        .find(|f| (f.key, f.direction, f.version, f.captured) == (18, Direction::Response, 4, true))
        .unwrap();
    let reply = api::ApiVersionsResponse::decode(&mut Reader::new(frame.body), 4).unwrap();
    let theirs: Vec<_> = reply.api_keys.iter().map(|k| (k.api_key, k.min_version, k.max_version)).collect();
    let mut ours: Vec<_> = versions::APIS.iter().map(|a| (a.key, a.min, a.max)).collect();
    ours.sort_unstable();
    assert_eq!(ours, theirs);
}

macro_rules! described_as_in_the_table {
    ($($name:ident $request:ident $response:ident;)*) => {
        #[test]
        fn descriptions_agree_with_the_table() {
            $(
                let api = versions::find(<api::$request as Request>::KEY).unwrap();
                assert_eq!(
                    (<api::$request as Request>::NAME, <api::$request as Request>::MIN, <api::$request as Request>::MAX, <api::$request as Request>::FLEX),
                    (api.name, api.served_min, api.max, api.flex)
                );
            )*
        }
    };
}
catchwater_protocol::each_api!(described_as_in_the_table);

#[test]
fn served_keys_are_described() {
    for api in versions::advertised() {
        assert!(DESCRIBED.iter().any(|d| d.0 == api.key), "{} is served but not described", api.name);
    }
    assert_eq!(versions::advertised().count(), 29);
}
