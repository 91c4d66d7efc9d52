//! The checker's own test: every planted sort of anomaly is found in each of fifty histories, fifty clean ones are silent.
//! Prints the table that row S26 of the scoreboard quotes.

use catchwater_check::twin::{PLANTS, clean, judge};

const HISTORIES: u64 = 50;

#[test]
fn fifty_clean_histories_are_silent() {
    let (mut acked, mut polled, mut faults) = (0, 0, 0);
    for seed in 0..HISTORIES {
        let report = judge(&clean(seed));
        assert!(report.clean(), "seed {seed}: {report}");
        acked += report.acked;
        polled += report.polled;
        faults += report.faults;
    }
    println!(
        "{HISTORIES} clean histories silent: {acked} acknowledged sends, {polled} polled records, {faults} faults"
    );
    // Silence about nothing would be no proof.
    assert!(acked > 50 * HISTORIES && polled > 100 * HISTORIES && faults > HISTORIES);
}

#[test]
fn every_planted_anomaly_is_found_in_each_of_fifty_histories() {
    let kinds: std::collections::BTreeSet<_> = PLANTS.iter().map(|p| p.kind).collect();
    assert!(kinds.len() >= 12, "{kinds:?}");
    for plant in &PLANTS {
        for seed in 0..HISTORIES {
            let mut ops = clean(seed);
            (plant.plant)(&mut ops, seed);
            let report = judge(&ops);
            assert!(
                report.counts.contains_key(&plant.kind),
                "{} ({}) at seed {seed}: {report}",
                plant.name,
                plant.kind
            );
        }
        println!("{} ({}): {HISTORIES} of {HISTORIES} found", plant.name, plant.kind);
    }
}

#[test]
fn lines_may_come_in_any_order() {
    for seed in 0..10 {
        let mut ops = clean(seed);
        ops.reverse();
        assert!(judge(&ops).clean(), "seed {seed}: {}", judge(&ops));
    }
}
