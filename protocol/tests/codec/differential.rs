//! Random values: interpreter → kafka-protocol → ours → bytes, all equal. kafka-protocol never sees hostile input: it aborts.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use catchwater_base::rng::Rng;
use kafka_protocol::messages::{ApiKey, RequestKind, ResponseKind};

use crate::{Direction, layout, pass};

/// Random bodies per version and direction.
const ROUNDS: u64 = 40;

#[test]
fn random_values_mean_the_same_to_kafka_protocol() {
    let mut compared = 0;
    let mut unknown = BTreeSet::new();
    for api in layout::apis() {
        let theirs = ApiKey::try_from(api.key).unwrap();
        let known = theirs.valid_versions();
        for direction in [Direction::Request, Direction::Response] {
            for version in api.versions.min..=api.versions.max {
                for round in 0..ROUNDS {
                    let mut rng = Rng::new(round << 16 | (api.key as u64) << 8 | version as u64);
                    let body = Bytes::from(layout::random(&api, direction, version, &mut rng).body);
                    let what = format!("{} {direction:?} v{version} round {round}", api.name);
                    let ours = pass(api.key, direction, version, body.clone(), true)
                        .unwrap()
                        .unwrap_or_else(|e| panic!("{what}: {e}"));
                    assert_eq!(ours.left, 0, "{what}");
                    assert_eq!(ours.again.unwrap(), body, "{what}");
                    if version < known.min || version > known.max {
                        unknown.insert((api.key, version));
                        break;
                    }
                    let mut input = body.clone();
                    let mut output = BytesMut::new();
                    let through = match direction {
                        Direction::Request => RequestKind::decode(theirs, &mut input, version)
                            .and_then(|m| m.encode(&mut output, version)),
                        Direction::Response => ResponseKind::decode(theirs, &mut input, version)
                            .and_then(|m| m.encode(&mut output, version)),
                    };
                    if let Err(e) = through {
                        let why = format!("{e:#}");
                        assert!(why.contains("version not supported"), "{what}: kafka-protocol: {why}");
                        unknown.insert((api.key, version));
                        break;
                    }
                    assert!(input.is_empty(), "{what}: kafka-protocol left {} bytes", input.len());
                    assert_eq!(output, body, "{what}: kafka-protocol");
                    compared += 1;
                }
            }
        }
    }
    let unknown: Vec<_> = unknown.into_iter().collect();
    // Newer than the release it was generated from, or marked unstable there.
    assert_eq!(unknown, [(2, 11), (8, 10), (9, 10), (35, 5)], "versions kafka-protocol does not know");
    assert!(compared > 0);
}
