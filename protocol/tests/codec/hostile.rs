//! Hostile bodies: no count, length or flood makes a decoder use more than 16 × input + 64 KiB, and none panics.

use bytes::Bytes;
use catchwater_base::rng::Rng;
use catchwater_protocol::reader::{BUDGET_BASE_BYTES, BUDGET_FACTOR, Kind};
use catchwater_protocol::{DecodeError, produce};

use crate::layout::{self, Count, CountKind};
use crate::{Direction, Outcome, pass, sys};

/// Decodes under the allocation oracle.
fn decode(key: i16, direction: Direction, version: i16, body: &[u8], what: &str) -> Result<Outcome, DecodeError> {
    let input = Bytes::copy_from_slice(body);
    let (outcome, peak) = sys::peak_of(|| pass(key, direction, version, input, false));
    let allowed = BUDGET_FACTOR * body.len() + BUDGET_BASE_BYTES;
    assert!(peak <= allowed, "{what}: {peak} bytes for an input of {}", body.len());
    if key == 0 && direction == Direction::Request {
        let input = bytes::BytesMut::from(body);
        let (split, peak) = sys::peak_of(|| produce::split(input, version));
        assert!(peak <= allowed, "{what}: split: {peak} bytes for an input of {}", body.len());
        let generated = outcome.as_ref().unwrap();
        let budget = |kind| kind == Kind::Budget;
        match (&split, generated) {
            // Their memory differs, so one may run out of it first.
            (Err(e), _) | (_, Err(e)) if budget(e.kind) => {}
            _ => {
                assert_eq!(split.is_ok(), generated.is_ok(), "{what}: {:?} {:?}", split.err(), generated.as_ref().err())
            }
        }
    }
    outcome.unwrap()
}

/// The body with another count in place of one, cut off behind it or not.
fn with_count(body: &[u8], count: &Count, value: i64) -> Vec<u8> {
    let mut out = body[..count.at].to_vec();
    match (count.kind, count.compact) {
        (_, true) => layout::uvarint(&mut out, (value + 1) as u32),
        (CountKind::String, false) => out.extend((value.min(i64::from(i16::MAX)) as i16).to_be_bytes()),
        (_, false) => out.extend((value as i32).to_be_bytes()),
    }
    out.extend(&body[count.at + count.bytes..]);
    out
}

fn each(rounds: u64, mut check: impl FnMut(i16, Direction, i16, &layout::Sample, &str, &mut Rng)) {
    for api in layout::apis() {
        for direction in [Direction::Request, Direction::Response] {
            for version in api.versions.min..=api.versions.max {
                for round in 0..rounds {
                    let mut rng = Rng::new(0xbad << 32 | round << 16 | (api.key as u64) << 8 | version as u64);
                    let sample = layout::random(&api, direction, version, &mut rng);
                    let what = format!("{} {direction:?} v{version} round {round}", api.name);
                    check(api.key, direction, version, &sample, &what, &mut rng);
                }
            }
        }
    }
}

/// CVE-2022-34917, KAFKA-14063, CVE-2026-111108.
#[test]
fn array_count_is_bounded_in_every_message() {
    let (mut counts, mut arrays) = (0, 0);
    each(4, |key, direction, version, sample, what, _| {
        for count in &sample.counts {
            let what = format!("{what}, {} of {}", count.at, count.field);
            // The largest an i32 holds; two below it (the largest compact one that is no bad length); a million.
            for value in [i64::from(i32::MAX), i64::from(i32::MAX) - 2, 1_000_000] {
                let body = with_count(&sample.body, count, value);
                if decode(key, direction, version, &body, &what).is_ok() {
                    panic!("{what}: count {value} was accepted");
                }
            }
            counts += 1;
            arrays += usize::from(count.kind == CountKind::Array);
        }
    });
    assert!(counts > 5_000 && arrays > 1_000, "{counts} {arrays}");
}

#[test]
fn negative_lengths_but_minus_one_are_refused() {
    each(4, |key, direction, version, sample, what, _| {
        for count in sample.counts.iter().filter(|c| !c.compact) {
            for value in [-2, i64::from(i32::MIN)] {
                let body = with_count(
                    &sample.body,
                    count,
                    value.max(if count.kind == CountKind::String { -32_768 } else { value }),
                );
                assert!(decode(key, direction, version, &body, what).is_err(), "{what}: {} = {value}", count.field);
            }
        }
    });
}

/// As many elements as the remaining bytes allow at all, all of them as small as they can be: amplification after a bound
/// on the count alone (the second part of CVE-2026-111108).
#[test]
fn the_smallest_elements_do_not_amplify() {
    each(1, |key, direction, version, sample, what, _| {
        let zeros = 40_000;
        for count in sample.counts.iter().filter(|c| c.kind == CountKind::Array) {
            for min in [1, 2, 3, 4, 6, 10, 16] {
                for fill in [0, 1] {
                    let mut body = with_count(&sample.body[..count.at + count.bytes], count, zeros / min);
                    body.resize(body.len() + zeros as usize, fill);
                    let _ = decode(key, direction, version, &body, &format!("{what} {} min {min}", count.field));
                }
            }
        }
    });
}

#[test]
fn cut_and_mutated_bodies_neither_panic_nor_amplify() {
    each(4, |key, direction, version, sample, what, rng| {
        for cut in 0..sample.body.len().min(300) {
            let _ = decode(key, direction, version, &sample.body[..cut], what);
        }
        for _ in 0..100 {
            let mut body = sample.body.clone();
            if body.is_empty() {
                continue;
            }
            for _ in 0..=rng.below(4) {
                let at = rng.below(body.len() as u64) as usize;
                body[at] = match rng.below(4) {
                    0 => 0xff,
                    1 => 0x7f,
                    2 => 0,
                    _ => rng.below(256) as u8,
                };
            }
            let _ = decode(key, direction, version, &body, what);
        }
    });
}

#[test]
fn a_body_ends_where_its_last_field_ends() {
    each(4, |key, direction, version, sample, what, _| {
        let mut body = sample.body.clone();
        body.extend([0xee; 7]);
        let outcome = decode(key, direction, version, &body, what).unwrap();
        assert_eq!(outcome.left, 7, "{what}: garbage behind a body is ignored and counted");
        if !sample.body.is_empty() {
            assert!(decode(key, direction, version, &sample.body[..sample.body.len() - 1], what).is_err(), "{what}");
        }
    });
}
