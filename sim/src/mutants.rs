//! Planted bugs: each must be found within twenty processor seconds of seeds. One that survives is a hole in this rig.
//!
//! `base::mutant!("name")` stands where the bug is planted, in the product; it is `false` outside `--cfg sim`.

use crate::swarm::{Profile, Swarm};
use crate::world::run_swarm;
use catchwater_base::mutant;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

/// A bug and the clusters in which it must be found, each by itself.
pub struct Mutant {
    pub name: &'static str,
    /// Numbers of voters; 0 = as the seed draws.
    pub voters: &'static [usize],
    /// What the runs lean towards; seeds as drawn are half of them.
    pub profile: Profile,
    /// What must notice it.
    pub by: &'static str,
}

const fn m(name: &'static str, voters: &'static [usize], profile: Profile, by: &'static str) -> Mutant {
    Mutant { name, voters, profile, by }
}

/// Every planted bug that touches the log.
pub const MUTANTS: &[Mutant] = &[
    m("ack_on_leader_append", &[1, 3], Profile::Mixed, "acknowledged is committed"),
    m("fsync_lies", &[1, 3], Profile::Mixed, "acknowledged is committed"),
    m("ack_or_vote_before_fsync", &[1, 3], Profile::Mixed, "acknowledged is committed"),
    m("one_flush_persists_all", &[1], Profile::Mixed, "acknowledged is committed"),
    m("vote_not_persisted", &[3], Profile::Votes, "one leader per term"),
    m("rollcall_missing_voter", &[3], Profile::Majority, "who leads after a majority forgot has the greatest log"),
    m(
        "rollcall_ignores_commit",
        &[3],
        Profile::OldTail,
        "who leads after a majority forgot has what is known committed",
    ),
    m("mute_not_stored", &[3], Profile::Amnesia, "acknowledged is committed"),
    m("mark_frame_not_forwarded", &[3], Profile::Amnesia, "acknowledged is committed"),
    m("rejoin_reset_wrong_order", &[3], Profile::Amnesia, "what a replica has is not sent again"),
    m("mute_bound_is_commit", &[5], Profile::Fresh, "acknowledged is committed"),
    m("suspect_keeps_commit", &[3], Profile::Amnesia, "who lost something believes what is sealed"),
    m("old_generation_accepted", &[3], Profile::Overtaken, "acknowledged is committed"),
    m("vote_before_hard", &[3], Profile::Churn, "one leader per term"),
    // `campaign_before_persisted` is planted in raft's group, and not hunted: 533 seeds of Churn do not kill it; the unit test
    // `a_voter_with_a_tail_that_is_not_durable_does_not_campaign` does.
    m("barrier_without_quorum", &[3], Profile::Churn, "reads see what was acknowledged"),
    m("joint_never_left", &[3], Profile::Moves, "liveness"),
    m("members_of_the_first_day", &[3], Profile::Moves, "one leader per term"),
    m("conf_applied_twice", &[3], Profile::Moves, "members are what entries say"),
    m("hw_moves_back", &[1], Profile::Mixed, "high watermark monotone"),
    m("uncommitted_counted_by_the_crate", &[1], Profile::Mixed, "liveness"),
    m("truncation_forgotten", &[3], Profile::Churn, "files follow the log"),
    m("undo_forgotten", &[3], Profile::Churn, "producer state equals a replay"),
    m("duplicate_acked_before_commit", &[3], Profile::Churn, "acknowledged is committed"),
    m("stale_snap_accepted", &[1], Profile::Mixed, "producer state equals a replay"),
    m("tail_drops_what_no_file_has", &[1], Profile::Files, "what is committed can be read"),
    m("no_crc_at_recovery", &[0], Profile::Damage, "cold re-open"),
    m("truncate_at_first_bad_crc", &[1], Profile::Damage, "nothing durable is cut"),
    m("ent_trusted_by_length", &[1], Profile::Damage, "cold re-open"),
    m("idle_seal_missing", &[1], Profile::Damage, "nothing durable is cut"),
    m("no_directory_fsync", &[1], Profile::Mixed, "cold re-open"),
    m("manifest_before_segment", &[1], Profile::Files, "cold re-open"),
    m("checkpoint_in_place", &[1], Profile::Files, "cold re-open"),
    m("seal_before_commit", &[3], Profile::Files, "no cut reaches a sealed file"),
    m("retry_after_fsync_error", &[1], Profile::Errors, "acknowledged is committed"),
    m("hard_frame_not_forwarded", &[0], Profile::Mixed, "cold re-open"),
    m("drained_before_sync", &[1], Profile::Mixed, "cold re-open"),
    m("checkpoint_beyond_drained", &[1], Profile::Mixed, "cold re-open"),
    m("mute_rule_off", &[3], Profile::Relaxed, "acknowledged is committed"),
    m("snapshot_applied_before_persist", &[3], Profile::Moves, "no panic"),
    m("barrier_missing", &[1], Profile::Relaxed, "barriers outlive the power"),
    // Planted and not hunted are some more: docs/simulator.md names them, with the reason.
    m("relaxed_window_stretched", &[1], Profile::Relaxed, "a loss of power takes one window"),
    m("flush_of_all_is_of_some", &[1], Profile::Switching, "acknowledged is committed"),
    m("log_start_goes_back", &[1], Profile::Txn, "log start monotone"),
    m("lso_passes_open_txn", &[1, 3], Profile::Txn, "last stable offset before open transactions"),
    m("aborted_range_lost", &[1, 3], Profile::Txn, "read_committed shows nothing that was aborted"),
    m("compaction_drops_last", &[1], Profile::Compact, "newest of each key"),
    m("tombstone_too_early", &[1], Profile::Compact, "a tombstone stays its time"),
    m("aborted_takes_the_place", &[1], Profile::Compact, "newest of each key"),
    m("marker_behind_unseen", &[1], Profile::Compact, "newest of each key"),
    m("newest_of_producer_dropped", &[1], Profile::Compact, "newest batch of each producer"),
    m("tombstone_goes_in_a_group", &[3], Profile::Behind, "newest of each key"),
    m("gap_takes_no_offsets", &[3], Profile::Behind, "offsets without holes"),
    m("gaps_fold_in_a_group", &[3], Profile::Behind, "liveness"),
    m("trim_beyond_log_start", &[1], Profile::Mixed, "what is committed can be read"),
    m("journal_file_passed_over", &[1], Profile::Files, "cold re-open"),
    m("stale_recycled_journal_block", &[1], Profile::Files, "cold re-open"),
    m("boot_id_without_mount_id", &[1], Profile::Relaxed, "cold re-open"),
    m("read_unverified", &[1], Profile::Damage, "no wrong bytes are served"),
    m("fence_behind_what_is_sought", &[1], Profile::Files, "what is committed can be read"),
    m("fenced_before_commit", &[3], Profile::Files, "no cut reaches a fenced row"),
    m("producer_state_lost_on_leader_change", &[3], Profile::Churn, "nothing twice"),
    m("removed_leaves_files", &[1, 3], Profile::Topics, "nothing is left of a topic that is gone"),
    m("lost_snapshot_not_reported", &[3], Profile::Moves, "liveness"),
];

/// What a hunt found: the seed, how long it took, what fell.
pub struct Found {
    pub seed: u64,
    pub voters: usize,
    pub seconds: f64,
    pub violation: Option<String>,
}

/// Time this thread has had on a processor: a busy machine makes no mutant survive. Wall time where the system does not say.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    match stat.split(' ').next().and_then(|ns| ns.parse().ok()) {
        Some(ns) => Duration::from_nanos(ns),
        None => std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default(),
    }
}

/// Seeds with `voters` until one reports a violation.
fn hunt_one(mutant: &Mutant, voters: usize, limit: Duration) -> Found {
    mutant::set(mutant.name);
    let began = cpu();
    let mut found = Found { seed: 0, voters, seconds: 0.0, violation: None };
    while cpu() < began + limit && found.violation.is_none() {
        found.seed += 1;
        let profile = Some(mutant.profile).filter(|_| !found.seed.is_multiple_of(4));
        found.violation = run_swarm(found.seed, Swarm::draw(found.seed, voters, profile)).violation;
    }
    mutant::set("");
    found.seconds = (cpu() - began).as_secs_f64();
    found
}

/// Hunts the planted bug of that name, in the list or not, in one sort of cluster for so long: for whoever looks for one that
/// survives.
pub fn hunt_in(name: String, voters: usize, profile: Profile, limit: Duration) -> bool {
    let mutant = m(String::leak(name), &[], profile, "");
    let found = hunt_one(&mutant, voters, limit);
    let text = found.violation.as_deref().unwrap_or("SURVIVED");
    println!("{} | {voters} voters | seed {} {profile:?} | {:.2} s | {text}", mutant.name, found.seed, found.seconds);
    found.violation.is_some()
}

/// Hunts all (or the named) mutants on two threads, prints the table; true if each was caught.
pub fn hunt(names: &[String]) -> bool {
    let work: Vec<(&Mutant, usize)> = MUTANTS
        .iter()
        .filter(|m| names.is_empty() || names.iter().any(|n| n == m.name))
        .flat_map(|m| m.voters.iter().map(move |v| (m, *v)))
        .collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let mut times: Vec<f64> = Vec::new();
    let mut survived = 0;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut mine = Vec::new();
                    while let Some((m, voters)) =
                        work.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)).copied()
                    {
                        let found = hunt_one(m, voters, LIMIT);
                        let text = found.violation.as_deref().unwrap_or("SURVIVED");
                        let short: String = text.chars().take(140).collect();
                        println!(
                            "{} | {} | seed {}{} | {:.2} s | {} | {short}",
                            m.name,
                            if voters == 0 { "any".to_owned() } else { format!("{voters} voters") },
                            found.seed,
                            if found.seed.is_multiple_of(4) { String::new() } else { format!(" {:?}", m.profile) },
                            found.seconds,
                            m.by
                        );
                        mine.push(found);
                    }
                    mine
                })
            })
            .collect();
        for thread in threads {
            for found in thread.join().unwrap_or_default() {
                survived += u64::from(found.violation.is_none());
                times.push(found.seconds);
            }
        }
    });
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len() / 2).copied().unwrap_or(0.0);
    let mutants = MUTANTS.iter().filter(|m| names.is_empty() || names.iter().any(|n| n == m.name)).count();
    let killed = times.len() as u64 - survived;
    println!("{mutants} mutants in {} hunts: {killed} killed, {survived} survived, median {median:.2} s", times.len());
    survived == 0 && !times.is_empty()
}
