//! Planted bugs: each must be found within twenty seconds of seeds. One that survives is a hole in this rig.

use crate::run;
use catchwater_base::mutant;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);

/// Seeds with `voters` until one reports a violation.
fn must_be_caught(name: &'static str, voters: &[usize]) {
    std::panic::set_hook(Box::new(|_| {}));
    mutant::set(name);
    let began = Instant::now();
    let mut seed = 0;
    while began.elapsed() < LIMIT {
        for v in voters {
            if let Some(violation) = run(seed, *v).violation {
                mutant::set("");
                let took = began.elapsed().as_secs_f64();
                println!("{name}: caught at seed {seed} with {v} voters after {took:.2} s: {violation}");
                return;
            }
        }
        seed += 1;
    }
    mutant::set("");
    let _ = std::panic::take_hook();
    panic!("{name} survived {seed} seeds");
}

#[test]
fn ack_on_leader_append_is_caught() {
    must_be_caught("ack_on_leader_append", &[1]);
    must_be_caught("ack_on_leader_append", &[3]);
}

#[test]
fn fsync_lies_is_caught() {
    must_be_caught("fsync_lies", &[1]);
    must_be_caught("fsync_lies", &[3]);
}

#[test]
fn ack_or_vote_before_fsync_is_caught() {
    must_be_caught("ack_or_vote_before_fsync", &[1]);
    must_be_caught("ack_or_vote_before_fsync", &[3]);
}

#[test]
fn vote_not_persisted_is_caught() {
    must_be_caught("vote_not_persisted", &[3]);
}

#[test]
fn no_crc_at_recovery_is_caught() {
    must_be_caught("no_crc_at_recovery", &[1, 3]);
}
