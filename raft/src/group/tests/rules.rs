//! The rules about the consensus crate, each as a story of its own name (the design's list R1–R38).
//!
//! | rules | story |
//! |---|---|
//! | R1–R3, R6, R10, R12, R16, R20, R22–R27, R33–R35, R38 | here, by number |
//! | R11, R13, R14, R17, R19, R30, R36, R37 | `rejoin.rs`, by number; M1–M9 beside them |
//! | R4 | `a_follower_says_nothing_of_entries_before_they_are_durable_but_answers_beats` |
//! | R7, R8, R9, R32 | `a_lagging_peer_is_fed_by_cold_reads` |
//! | R15 | `a_voter_with_a_tail_that_is_not_durable_does_not_campaign` |
//! | R18, R28 | `the_guard_refuses_what_would_make_the_crate_panic` |
//! | R29 | `a_panic_inside_takes_only_this_group_down` |
//! | R31 | `a_vote_leaves_only_when_it_is_durable` |
//! | R5, R21 | constants of `crate_config`, no story of their own |

use super::*;
use crate::group::conf::{ConfChange, ConfStep};
use catchwater_storage::EntryContext;

/// Leader of a settled cluster of three.
fn led() -> (Three, PeerId) {
    let mut t = Three::new();
    t.ticks(25);
    let leader = t.leader();
    t.rig(leader).take();
    (t, leader)
}

fn sends(effects: &[Effect]) -> Vec<&PeerMsg> {
    effects.iter().filter_map(|e| if let Effect::Send(m) = e { Some(m) } else { None }).collect()
}

impl Three {
    /// A fourth replica, empty, that takes itself for a learner.
    fn join(&mut self, new: PeerId) {
        let conf = ConfState { learners: vec![new], ..self.rigs.values().next().unwrap().core.conf().clone() };
        let spec = GroupSpec { conf: conf.encode(), ..spec(&[]) };
        self.rigs.insert(new, Rig::with(new, spec));
    }
    fn change(&mut self, leader: PeerId, steps: &[ConfStep]) {
        self.rig(leader).event(Event::ChangeConf(ProposalId(70), ConfChange::of(steps)));
    }
}

#[test]
fn r01_all_proposals_of_a_round_are_one_message() {
    let (mut t, leader) = led();
    let round = (1..=3).map(|i| Proposal::data(ProposalId(i), batch(1), Bytes::new())).collect();
    t.rig(leader).event(Event::Propose(round));
    let effects = t.rig(leader).take();
    let entries: Vec<usize> = sends(&effects)
        .iter()
        .filter_map(|m| if let PeerBody::Append { entries, .. } = &m.body { Some(entries.len()) } else { None })
        .collect();
    assert_eq!(entries, vec![3, 3], "one message for each of two followers");
}

#[test]
fn r02_a_follower_refuses_and_forwards_nothing() {
    let (mut t, leader) = led();
    let follower = [peer(1), peer(2), peer(3)].into_iter().find(|p| *p != leader).unwrap();
    t.rig(follower).take();
    t.rig(follower).propose(9, batch(1));
    let effects = t.rig(follower).take();
    assert!(matches!(&effects[..], [Effect::Refused(ProposalId(9), Why::NotLeader)]), "{effects:?}");
}

#[test]
fn r03_rows_can_be_read_before_they_are_durable() {
    let mut rig = sole();
    rig.propose(1, batch(2));
    let log = rig.core.log();
    assert!(log.persisted_index() < log.last_index());
    assert!(log.cached(log.last_index()).is_some_and(|e| e.count == 2));
}

#[test]
fn r06_the_budget_comes_back_with_each_commit() {
    let mut rig = sole();
    rig.core.config.uncommitted_bytes_max = 300;
    for i in 0..200 {
        rig.propose(i, batch(3));
        assert!(!rig.effects.iter().any(|e| matches!(e, Effect::Refused(..))), "proposal {i} of 40 KiB in all");
        rig.settle();
    }
    assert_eq!(rig.core.view().high_watermark, Offset(600));
}

#[test]
fn r10_applied_follows_committed_at_once() {
    let (mut t, leader) = led();
    for i in 0..20 {
        t.rig(leader).propose(i, batch(1));
        t.settle();
        for rig in t.rigs.values() {
            let log = &rig.core.node.raft.raft_log;
            // What is not durable here is not handed out yet (R12); nothing else may lag.
            assert_eq!(log.applied, log.committed.min(log.persisted));
        }
    }
}

#[test]
fn r12_commit_does_not_wait_for_the_leaders_own_disk() {
    let (mut t, leader) = led();
    t.stuck = vec![leader];
    t.rig(leader).propose(1, batch(4));
    t.settle();
    let view = t.rigs[&leader].core.view();
    assert!(view.persisted < view.last);
    assert_eq!((view.commit, view.high_watermark), (view.last, Offset(4)));
    assert_eq!(t.rigs[&leader].committed(), Some((view.last, Offset(4))));
}

#[test]
fn r16_a_commit_index_from_disk_is_never_beyond_what_is_there() {
    let mut rig = sole();
    rig.propose(1, batch(1));
    rig.settle();
    rig.hard.commit = EntryIndex(900);
    rig.crash();
    rig.settle();
    assert!(rig.core.view().commit <= rig.core.view().last);
    assert!(!rig.core.view().offline);
}

#[test]
fn r20_election_timeouts_are_pinned_and_in_order_of_rank() {
    let (t, leader) = led();
    let mut timeouts: Vec<(PeerId, usize)> =
        t.rigs.iter().filter(|(p, _)| **p != leader).map(|(p, r)| (*p, r.core.election_timeout())).collect();
    timeouts.sort_unstable();
    assert!(timeouts.iter().all(|(_, t)| (12..20).contains(t)), "{timeouts:?}");
    assert!(timeouts[0].1 < timeouts[1].1, "the first of those left stands first: {timeouts:?}");
}

#[test]
fn r22_a_barrier_needs_a_round_of_the_others() {
    let (mut t, leader) = led();
    t.cut = vec![leader];
    t.rig(leader).event(Event::ReadBarrier(5));
    t.ticks(3);
    assert!(!t.rigs[&leader].effects.iter().any(|e| matches!(e, Effect::ReadReady(..))));
    t.ticks(40);
    assert!(t.rigs[&leader].effects.iter().any(|e| matches!(e, Effect::ReadRefused(5))), "the cut leader steps down");
}

#[test]
fn r23_the_leader_is_never_removed_and_a_removed_one_leads_nothing() {
    let (mut t, leader) = led();
    for step in [ConfStep::Remove(leader), ConfStep::AddLearner(leader)] {
        t.rig(leader).take();
        t.change(leader, &[step]);
        let effects = t.rig(leader).take();
        assert!(matches!(&effects[..], [Effect::Refused(ProposalId(70), Why::Invalid)]), "{effects:?}");
    }
}

#[test]
fn r24_a_learner_takes_the_place_of_a_voter_and_the_joint_configuration_is_left() {
    let (mut t, leader) = led();
    for i in 0..5 {
        t.rig(leader).propose(i, batch(1));
    }
    t.settle();
    let new = peer(4);
    t.join(new);
    t.change(leader, &[ConfStep::AddLearner(new)]);
    t.ticks(5);
    assert_eq!(t.rigs[&leader].core.conf().learners, vec![new]);
    assert_eq!(t.rigs[&new].core.view().high_watermark, Offset(5), "the learner has everything");
    let old = [peer(1), peer(2), peer(3)].into_iter().find(|p| *p != leader).unwrap();
    t.change(leader, &[ConfStep::AddVoter(new), ConfStep::Remove(old)]);
    t.ticks(5);
    for (p, rig) in t.rigs.iter().filter(|(p, _)| **p != old) {
        let conf = rig.core.conf();
        assert!(!conf.is_joint() && conf.learners.is_empty(), "{p}: {conf:?}");
        assert!(conf.voters.contains(&new) && !conf.voters.contains(&old), "{p}: {conf:?}");
    }
    // The new voter counts: without the third one, two of three still commit.
    let third = [peer(1), peer(2), peer(3)].into_iter().find(|p| *p != leader && *p != old).unwrap();
    t.cut = vec![old, third];
    t.rig(leader).propose(50, batch(1));
    t.settle();
    assert_eq!(t.rigs[&leader].core.view().high_watermark, Offset(6));
}

#[test]
fn r24_a_new_leader_leaves_what_the_old_one_entered() {
    let (mut t, leader) = led();
    let new = peer(4);
    t.join(new);
    t.change(leader, &[ConfStep::AddLearner(new)]);
    t.ticks(5);
    t.change(leader, &[ConfStep::AddVoter(new)]);
    // The change is on every disk and committed nowhere else when the leader goes.
    let copies: Vec<PeerMsg> = sends(&t.rig(leader).take()).into_iter().cloned().collect();
    t.cut = vec![leader];
    for m in copies {
        t.rig(m.to).event(Event::Message(m));
    }
    t.ticks(60);
    let second = t.leader();
    assert_ne!(second, leader);
    let conf = t.rigs[&second].core.conf();
    assert!(!conf.is_joint() && conf.voters.len() == 4, "{conf:?}");
}

#[test]
fn r25_a_second_change_is_refused_not_emptied() {
    let (mut t, leader) = led();
    let (four, five) = (peer(4), peer(5));
    t.rig(leader).take();
    t.change(leader, &[ConfStep::AddLearner(four)]);
    t.change(leader, &[ConfStep::AddLearner(five)]);
    let effects = t.rig(leader).take();
    let answers: Vec<bool> = effects
        .iter()
        .filter_map(|e| match e {
            Effect::Proposed { .. } => Some(true),
            Effect::Refused(_, Why::Dropped) => Some(false),
            _ => None,
        })
        .collect();
    assert_eq!(answers, vec![true, false]);
    t.ticks(3);
    let kinds: Vec<EntryKind> = t.rigs[&leader].core.log().rows_from(EntryIndex(2)).map(|r| r.kind).collect();
    assert_eq!(kinds, vec![EntryKind::Conf, EntryKind::Conf], "the change and its leave, no empty entry");
}

#[test]
fn r26_an_entry_of_members_holds_our_bytes_and_no_others() {
    let (mut t, leader) = led();
    t.change(leader, &[ConfStep::AddLearner(peer(4))]);
    let effects = t.rig(leader).take();
    let mut seen = 0;
    for m in sends(&effects) {
        let PeerBody::Append { entries, .. } = &m.body else { continue };
        for e in entries.iter().filter(|e| e.kind == EntryKind::Conf) {
            assert!(e.body.is_empty());
            let bytes = EntryContext::decode(&e.context).unwrap().conf.unwrap();
            assert_eq!(ConfChange::decode(&bytes).unwrap().steps, vec![ConfStep::AddLearner(peer(4))]);
            seen += 1;
        }
    }
    assert_eq!(seen, 2);
}

#[test]
fn r27_leadership_goes_only_to_a_voter_that_has_everything() {
    let (mut t, leader) = led();
    let [a, b] = [peer(1), peer(2), peer(3)].into_iter().filter(|p| *p != leader).collect::<Vec<_>>()[..] else {
        panic!("two followers")
    };
    t.cut = vec![a];
    t.rig(leader).propose(1, batch(1));
    t.settle();
    t.rig(leader).take();
    t.rig(leader).event(Event::Transfer(a));
    t.rig(leader).event(Event::Transfer(peer(9)));
    assert!(t.rig(leader).take().is_empty(), "it lags, and the other is nobody");
    t.rig(leader).event(Event::Transfer(b));
    t.settle();
    assert_eq!(t.leader(), b);
}

#[test]
fn r33_answers_of_strangers_are_counted_and_change_nothing() {
    let (mut t, leader) = led();
    let term = t.rigs[&leader].core.view().term.0;
    let body = PeerBody::Ack { index: EntryIndex(1), commit: EntryIndex(0), reject: None };
    t.rig(leader).event(Event::Message(PeerMsg { gid: Gid(5), from: peer(9), to: leader, term, body }));
    let effects = t.rig(leader).take();
    assert!(matches!(&effects[..], [Effect::Guarded(_, GuardRule::UnknownPeer)]), "{effects:?}");
}

#[test]
fn r34_a_change_is_applied_once_also_over_a_restart() {
    let mut rig = sole();
    rig.event(Event::ChangeConf(ProposalId(1), ConfChange::of([ConfStep::AddLearner(peer(4))])));
    rig.settle();
    let conf = rig.core.conf().clone();
    assert_eq!((conf.learners.clone(), conf.is_joint()), (vec![peer(4)], false));
    let index = rig.core.conf_index();
    // The commit index on disk may be of long ago, or right behind the change.
    for commit in [EntryIndex(0), index, rig.core.view().commit] {
        rig.hard.commit = commit;
        rig.crash();
        rig.settle();
        assert!(!rig.core.view().offline);
        assert_eq!((rig.core.conf(), rig.core.conf_index()), (&conf, index));
    }
}

/// A voter that believed an old commit index could elect itself alone in a cluster of three.
#[test]
fn r34_members_of_a_restart_are_at_most_one_step_old() {
    let mut rig = sole();
    let steps = [ConfStep::AddVoter(peer(2)), ConfStep::AddVoter(peer(3))];
    rig.event(Event::ChangeConf(ProposalId(1), ConfChange::of(steps)));
    rig.settle();
    assert!(rig.core.conf().is_joint(), "nobody else answers: it cannot be left");
    let leave = rig.core.log().last_index();
    assert_eq!(rig.core.log().row(leave).unwrap().kind, EntryKind::Conf, "but leaving is proposed");
    rig.hard.commit = EntryIndex(1);
    rig.crash();
    rig.settle();
    assert_eq!(rig.core.conf().voters.len(), 3);
    assert_ne!(rig.core.view().role, Role::Leader, "alone it leads no more");
}

#[test]
fn r35_a_commit_alone_is_worth_no_flush() {
    let (mut t, leader) = led();
    t.rig(leader).propose(1, batch(1));
    t.settle();
    let follower = [peer(1), peer(2), peer(3)].into_iter().find(|p| *p != leader).unwrap();
    t.rig(follower).take();
    t.ticks(6);
    let rig = t.rig(follower);
    assert_eq!(rig.core.view().high_watermark, Offset(1), "it learned the commit by a beat");
    assert!(!rig.effects.iter().any(|e| matches!(e, Effect::Persist { .. })));
}

#[test]
fn r38_a_fresh_commit_rides_with_entries_once_a_second() {
    let mut rig = sole();
    let mut fresh = 0;
    for i in 0..30 {
        rig.take();
        rig.event(Event::Tick(1));
        rig.propose(i, batch(1));
        rig.settle();
        fresh += rig.effects.iter().filter(|e| matches!(e, Effect::Persist { hard: Some(_), .. })).count();
    }
    assert_eq!(fresh, 3, "thirty ticks are three seconds");
}

/// R34 for a member that joins late: it is told of today's members, and entries of before change nothing of them. Applied
/// over today's they would leave no voter here.
#[test]
fn r34_a_late_member_counts_todays_members_as_of_their_entry() {
    let (mut t, first) = led();
    let [second, third] = [peer(1), peer(2), peer(3)].into_iter().filter(|p| *p != first).collect::<Vec<_>>()[..]
    else {
        panic!("two followers")
    };
    let change = |t: &mut Three, leader: PeerId, step: ConfStep| {
        t.change(leader, &[step]);
        t.ticks(5);
        assert!(!t.rigs[&leader].core.conf().is_joint());
    };
    let transfer = |t: &mut Three, from: PeerId, to: PeerId| {
        t.rig(from).event(Event::Transfer(to));
        t.ticks(5);
        assert!(t.rigs[&to].core.view().own_term_committed);
    };
    change(&mut t, first, ConfStep::Remove(third));
    transfer(&mut t, first, second);
    change(&mut t, second, ConfStep::Remove(first));
    change(&mut t, second, ConfStep::AddVoter(first));
    transfer(&mut t, second, first);
    change(&mut t, first, ConfStep::Remove(second));
    t.rig(first).propose(1, batch(3));
    t.settle();

    let new = peer(4);
    let core = &t.rigs[&first].core;
    assert_eq!(core.conf().voters, vec![first]);
    let conf = ConfState { learners: vec![new], ..core.conf().clone() };
    let spec = GroupSpec { conf: conf.encode(), conf_index: core.conf_index(), ..spec(&[]) };
    t.rigs.insert(new, Rig::with(new, spec));
    change(&mut t, first, ConfStep::AddLearner(new));
    // It opens again with what it has, too.
    for _ in 0..2 {
        let (ours, theirs) = (&t.rigs[&first].core, &t.rigs[&new].core);
        assert!(!theirs.view().offline);
        assert_eq!((theirs.conf(), theirs.view().high_watermark), (ours.conf(), Offset(3)));
        t.rig(new).crash();
        t.ticks(5);
    }
}
