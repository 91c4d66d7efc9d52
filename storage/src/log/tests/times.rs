//! Look-ups by time, in rows that memory has and in such that it has fences of.
use super::*;
use crate::fences::{KEEP, STEP};
use crate::table::Unknown;

#[test]
fn a_time_finds_the_first_batch_that_reaches_it() {
    let mut log = fresh(LogConfig::default());
    for ts in [10, 30, 20, 40, 40, 5] {
        push(&mut log, 1, 1, ts);
    }
    let check = |log: &Log| {
        let at = |ms| log.find_time(ms).map(|o| o.0);
        assert_eq!((at(0), at(11), at(31), at(40), at(41)), (Some(0), Some(1), Some(3), Some(3), None));
        assert_eq!(log.max_time(), MaxTime { known: Some((40, Offset(3))), look: None });
    };
    check(&log);
    let placed = Writer { per_segment: 2, placed: vec![] }.place(&log, EntryIndex(5));
    log.segmented(EntryIndex(5), &placed);
    check(&log);
}

/// The log start lies inside a batch, or behind the batch that raised a segment's running maximum: what is below it is
/// neither looked for nor taken for the largest.
#[test]
fn times_below_the_log_start_do_not_count() {
    let mut log = fresh(LogConfig::default());
    for ts in [40, 10, 30, 20] {
        push(&mut log, 1, 3, ts);
    }
    let placed = Writer { per_segment: 4, placed: vec![] }.place(&log, EntryIndex(4));
    log.segmented(EntryIndex(4), &placed);
    push(&mut log, 1, 3, 25);
    assert_eq!(log.max_time(), MaxTime { known: Some((40, Offset(0))), look: None });
    let unknown = |from| Some(Unknown { from: Offset(from), upto: Offset(12), at_most: 40 });
    log.log_start = Offset(1);
    assert_eq!(log.find_time(35), Some(Offset(1)), "the record may be in the batch, but not below 1");
    assert_eq!(log.max_time(), MaxTime { known: Some((25, Offset(12))), look: unknown(1) });
    log.log_start = Offset(4);
    assert_eq!(log.find_time(5), Some(Offset(4)));
    assert_eq!(log.max_time(), MaxTime { known: Some((25, Offset(12))), look: unknown(4) });
    log.log_start = Offset(12);
    assert_eq!(log.max_time(), MaxTime { known: Some((25, Offset(12))), look: None });
    log.log_start = Offset(13);
    let last = Some(Unknown { from: Offset(13), upto: Offset(15), at_most: 25 });
    assert_eq!((log.find_time(25), log.max_time()), (Some(Offset(13)), MaxTime { known: None, look: last }));
    log.log_start = Offset(15);
    assert_eq!((log.find_time(0), log.max_time()), (None, MaxTime::default()));
}

/// Times as random as they come, in segments of seven batches: whatever rows are fenced, a look-up begins at most a fence
/// before the batch that has it, and never behind it.
#[test]
fn fences_lead_to_the_first_batch_of_a_time() {
    for seed in 0..200u64 {
        let mut rng = catchwater_base::Rng::new(seed);
        let times: Vec<i64> = (0..40).map(|_| rng.below(60) as i64).collect();
        let mut log = fresh(LogConfig { tail_bytes_max: 0, ..LogConfig::default() });
        times.iter().for_each(|ts| push(&mut log, 1, 1, *ts));
        log.persisted(log.last_index());
        log.committed(EntryIndex(38));
        let placed = Writer { per_segment: 7, placed: vec![] }.place(&log, EntryIndex(40));
        log.segmented(EntryIndex(40), &placed);
        let whole = (1..=40).filter(|i| log.row(EntryIndex(*i)).is_some()).count();
        assert!(whole <= 5 + 5 + KEEP + STEP, "{whole} rows are whole: the last of each segment, and the newest");
        log.log_start = Offset(rng.below(20));
        let start = log.log_start.0 as usize;
        for ms in 0..62 {
            let first = times.iter().enumerate().skip(start).find(|(_, ts)| **ts >= ms).map(|(at, _)| at);
            let found = log.find_time(ms).map(|o| o.0 as usize);
            let Some(first) = first else { continue };
            let found = found.unwrap();
            assert!(start <= found && found <= first, "seed {seed}: {ms} ms is at {first}, not from {found} on");
            // Below the start of the log the running maximum may have been there before.
            assert!(start > 0 || first - found <= STEP, "seed {seed}: {ms} ms is at {first}, far from {found}");
        }
        let most = times[start..].iter().max().unwrap();
        let first = times.iter().skip(start).position(|ts| ts == most).unwrap() + start;
        let MaxTime { known, look } = log.max_time();
        let is_known = known == Some((*most, Offset(first as u64)));
        let is_looked_for =
            look.is_some_and(|l| l.from.0 as usize <= first && l.upto.0 as usize > first && l.at_most >= *most);
        assert!(is_known || is_looked_for, "seed {seed}: {most} is at {first}, {known:?}, {look:?}");
    }
}
