//! The design's section 8, each line as a story of its own: suspect and mute replicas, the roll call, new ids; and followers
//! behind the first index.

use super::*;
use crate::effect::RollRow;
use crate::group::rejoin::{may_begin_empty, unclean};
use catchwater_storage::{PlacedRow, SegmentInfo};
use std::collections::BTreeSet;

/// What recovery found of a replica of which the last `lost` entries are gone.
fn suspect(rig: &Rig, lost: usize) -> RecoveredGroup {
    let mut found = RecoveredGroup::fresh(Gid(5), rig.spec.clone());
    found.hard = rig.hard;
    found.journaled = rig.disk[..rig.disk.len() - lost].to_vec();
    found.verdict = Verdict::Suspect;
    found
}

impl Rig {
    fn open(&mut self, found: RecoveredGroup) {
        self.open_as(&GroupConfig::new(self.core.config.peer), found);
    }
    fn open_as(&mut self, config: &GroupConfig, found: RecoveredGroup) {
        self.queue.clear();
        self.effects.clear();
        self.disk.clone_from(&found.journaled);
        self.core = GroupCore::open(config, found, 1).unwrap();
        self.event(Event::Start);
    }
    fn message(&mut self, from: PeerId, term: u32, body: PeerBody) {
        let to = self.core.config.peer;
        self.event(Event::Message(PeerMsg { gid: Gid(5), from, to, term, body }));
    }
    fn said(&mut self) -> Vec<PeerBody> {
        let all = self.take();
        all.into_iter().filter_map(|e| if let Effect::Send(m) = e { Some(m.body) } else { None }).collect()
    }
}

impl Three {
    fn five() -> Three {
        let voters: Vec<PeerId> = (1..=5).map(peer).collect();
        Three {
            rigs: voters.iter().map(|p| (*p, Rig::new(*p, &voters))).collect(),
            cut: vec![],
            stuck: vec![],
            lose_snapshots: None,
        }
    }
    /// Streams between `p` and all others begin.
    fn connect(&mut self, p: PeerId) {
        let others: Vec<PeerId> = self.rigs.keys().copied().filter(|o| *o != p).collect();
        for other in others {
            if !self.cut.contains(&other) && !self.cut.contains(&p) {
                self.rig(p).event(Event::StreamUp(other));
                self.rig(other).event(Event::StreamUp(p));
            }
        }
        self.settle();
    }
    fn write(&mut self, n: u64) {
        let leader = self.leader();
        for i in 0..n {
            self.rig(leader).propose(i, batch(1));
            self.settle();
        }
        self.ticks(3);
    }
    /// `p` dies, loses its newest `lost` entries and comes back; nobody has heard of it yet.
    fn lose(&mut self, p: PeerId, lost: usize) {
        let found = suspect(&self.rigs[&p], lost);
        self.rig(p).open(found);
    }
}

fn vote(term: u32, last: (u32, u64)) -> PeerBody {
    PeerBody::Vote {
        pre: false,
        transfer: term == 99,
        last_index: EntryIndex(last.1),
        last_term: last.0,
        commit: EntryIndex(0),
        commit_term: 0,
    }
}

fn led(mut t: Three) -> Three {
    t.ticks(25);
    assert_eq!(t.leader(), peer(1));
    t.write(6);
    t
}

#[test]
fn m1_a_suspect_is_mute_and_believes_only_what_is_sealed() {
    let mut t = led(Three::new());
    let (a, b) = (peer(1), peer(2));
    t.lose(b, 3);
    let rig = t.rig(b);
    let view = rig.core.view();
    assert!(view.mute && view.last == EntryIndex(4), "{view:?}");
    assert_eq!(view.commit, EntryIndex(0), "nothing is sealed");
    let term = view.term.0;
    rig.take();
    for body in [vote(term + 1, (99, 99)), vote(99, (99, 99)), PeerBody::TimeoutNow] {
        rig.message(a, term + 1, body);
    }
    for _ in 0..100 {
        rig.event(Event::Tick(1));
    }
    rig.propose(1, batch(1));
    let effects = rig.take();
    assert!(!effects.iter().any(|e| matches!(e, Effect::Send(m) if !matches!(m.body, PeerBody::Roll { .. }))));
    assert_eq!(rig.core.view().role, Role::Follower);
    assert_eq!(rig.core.view().term.0, term, "a vote it does not hear raises no term");
    // The end of the sealed part needs no other proof.
    let mut found = suspect(&t.rigs[&b], 0);
    let rows: Vec<_> = t.rigs[&b].core.log().rows_from(EntryIndex(1)).take(2).copied().collect();
    found.journaled.drain(..2);
    found.segments = vec![SegmentInfo {
        base_index: EntryIndex(1),
        base_offset: Offset(0),
        generation: 0,
        sealed: true,
        compacted: false,
        created_ms: 0,
        rows: rows.into(),
    }];
    t.rig(b).open(found);
    assert_eq!(t.rigs[&b].core.view().commit, EntryIndex(2));
}

#[test]
fn m1_mute_survives_a_restart() {
    let mut t = led(Three::new());
    t.lose(peer(2), 1);
    t.lose(peer(2), 0); // again, before it was fed: recovery still says Suspect
    assert!(t.rigs[&peer(2)].core.is_mute());
}

#[test]
fn m2_a_stream_begins_with_a_row_and_the_leader_forgets_before_it_sends() {
    let mut t = led(Three::new());
    let (a, b) = (peer(1), peer(2));
    let last = t.rigs[&a].core.view().last;
    assert_eq!(t.rigs[&a].core.matched(b), Some(last));
    t.lose(b, 3);
    t.rig(b).take();
    t.rig(b).event(Event::StreamUp(a));
    let said = t.rig(b).said();
    let [PeerBody::Roll { row, ask: false }] = &said[..] else { panic!("{said:?}") };
    assert!(row.suspect && row.last_index == EntryIndex(4));
    let (row, term) = (*row, row.term);
    // It takes nothing before the leader says that it forgot.
    let entry = t.rigs[&a].core.log().cached(EntryIndex(5)).unwrap().clone();
    let append = PeerBody::Append { prev_index: EntryIndex(4), prev_term: term, commit: last, entries: vec![entry] };
    t.rig(b).message(a, term, append);
    assert_eq!(t.rigs[&b].core.view().last, EntryIndex(4));
    t.rig(a).take();
    t.rig(a).message(b, term, PeerBody::Roll { row, ask: false });
    let said = t.rig(a).said();
    assert!(matches!(&said[..], [PeerBody::RollOk { bound }] if *bound == last), "{said:?}");
    assert_eq!(t.rigs[&a].core.matched(b), Some(EntryIndex(0)));
    // Of a healthy one it keeps what it knows.
    let healthy = RollRow { suspect: false, last_index: last, ..row };
    t.rig(a).message(peer(3), term, PeerBody::Roll { row: healthy, ask: false });
    assert_eq!(t.rigs[&a].core.matched(peer(3)), Some(last));
}

#[test]
fn m2_a_loss_that_went_unnoticed_is_noticed_by_the_leader() {
    let mut t = led(Three::new());
    let b = peer(2);
    let mut found = suspect(&t.rigs[&b], 2);
    found.verdict = Verdict::Ok;
    t.rig(b).open(found);
    assert!(!t.rigs[&b].core.is_mute());
    t.connect(b);
    let rig = &t.rigs[&b];
    assert!(rig.effects.iter().any(|e| matches!(e, Effect::Muted)), "{:?}", rig.effects);
    t.ticks(20);
    assert!(!t.rigs[&b].core.is_mute());
    assert_eq!(t.high_watermarks(), vec![6, 6, 6]);
}

/// With the commit as bound, three short logs of five elect each other, and what was acknowledged is gone.
#[test]
fn m3_mute_bound_is_last_index() {
    let mut t = led(Three::five());
    let a = peer(1);
    // An entry that a majority has and the leader does not know to be committed.
    t.cut = vec![peer(4), peer(5)];
    t.stuck = vec![peer(2), peer(3)];
    t.rig(a).propose(1, batch(1));
    t.settle();
    t.lose(peer(2), 1);
    t.cut.push(peer(3));
    t.connect(peer(2));
    let view = t.rigs[&a].core.view();
    assert!(view.commit < view.last);
    let bound = t.rigs[&peer(2)].core.rejoin_bound().unwrap();
    assert_eq!(bound, view.last, "not the commit {}", view.commit);
}

#[test]
fn m4_it_speaks_again_when_it_is_fed_and_a_new_term_voids_the_bound() {
    let mut t = led(Three::new());
    let (a, b) = (peer(1), peer(2));
    t.lose(b, 3);
    t.stuck = vec![b];
    t.connect(b);
    t.ticks(10);
    assert!(t.rigs[&b].core.is_mute(), "what it was sent is not durable");
    // Another leader: it does not know of that one's bound.
    t.stuck.clear();
    t.cut = vec![a];
    t.rig(b).queue.clear();
    let found = suspect(&t.rigs[&b], 0);
    t.rig(b).open(found);
    t.ticks(30);
    assert!(t.rigs[&b].core.is_mute(), "one voter of three that speaks elects nobody");
    t.cut.clear();
    t.connect(b);
    t.ticks(40);
    assert!(!t.rigs[&b].core.is_mute());
    assert!(t.rigs[&b].effects.iter().any(|e| matches!(e, Effect::Unmuted)));
    let leader = t.leader();
    let term = t.rigs[&leader].core.view().term.0;
    t.lose(b, 1);
    t.rig(b).message(leader, term, PeerBody::RollOk { bound: EntryIndex(9) });
    // A leader of a newer term feeds nobody whom it has not answered.
    let beat = PeerBody::Beat { commit: EntryIndex(0), barrier: None };
    t.rig(b).take();
    for _ in 0..6 {
        t.rig(b).event(Event::Tick(1));
    }
    t.rig(b).message(leader, term + 1, beat);
    assert_eq!(t.rigs[&b].core.view().term.0, term);
    assert!(t.rig(b).said().iter().any(|b| matches!(b, PeerBody::Roll { ask: true, .. })), "it asks that one");
}

#[test]
fn m5_a_mute_replica_is_in_elections_like_one_that_is_down() {
    let mut t = led(Three::five());
    t.lose(peer(2), 2);
    t.stuck = vec![peer(2)]; // and so it stays
    t.cut = vec![peer(1)];
    t.ticks(60);
    let leader = t.leader();
    assert!(leader != peer(1) && leader != peer(2), "three that speak are a majority of five: {leader}");
    // With one less there is none.
    t.cut.push(leader);
    t.ticks(80);
    let led = t.rigs.iter().filter(|(p, r)| !t.cut.contains(p) && r.core.view().own_term_committed).count();
    assert_eq!(led, 0);
}

#[test]
fn m6_a_roll_call_of_all_elects_the_greatest() {
    let mut t = led(Three::new());
    // The power goes everywhere: one keeps 6 of 7 entries, one 5, one 4.
    for (p, lost) in [(peer(1), 3), (peer(2), 1), (peer(3), 2)] {
        t.lose(p, lost);
    }
    t.cut = vec![peer(3)];
    for p in [peer(1), peer(2)] {
        t.connect(p);
    }
    t.ticks(80);
    assert!(t.rigs.values().all(|r| r.core.view().role == Role::Follower), "a voter is missing: they wait");
    t.cut.clear();
    for p in [peer(1), peer(2), peer(3)] {
        t.connect(p);
    }
    t.ticks(80);
    assert_eq!(t.leader(), peer(2), "it has the most");
    assert_eq!(t.high_watermarks(), vec![5, 5, 5]);
    assert!(t.rigs.values().all(|r| !r.core.is_mute()));
}

/// An old divergent end must not beat what somebody knows to be committed.
#[test]
fn m6_a_tail_that_contradicts_a_commit_is_void() {
    let mut t = led(Three::new());
    let (a, b, c) = (peer(1), peer(2), peer(3));
    let term = t.rigs[&a].core.view().term.0;
    t.lose(c, 0);
    t.cut = vec![a, b];
    let last = t.rigs[&c].core.view().last;
    // Both others know another entry at the end to be committed.
    let row = RollRow {
        suspect: true,
        leader: false,
        learner: false,
        term: term + 5,
        first_index: EntryIndex(1),
        last_index: last,
        last_term: term + 5,
        commit: last,
        commit_term: term + 5,
    };
    for from in [a, b] {
        t.rig(c).message(from, term, PeerBody::Roll { row, ask: false });
    }
    assert_eq!(t.rigs[&c].core.view().last, last.prev());
    assert!(
        t.rigs[&c].effects.iter().any(|e| matches!(e, Effect::Persist { truncate_from: Some(f), .. } if *f == last))
    );
    // The node of the crate is a new one: it goes on as before.
    t.rig(c).settle();
    for _ in 0..40 {
        t.rig(c).event(Event::Tick(1));
    }
    assert!(!t.rigs[&c].core.view().offline);
}

/// Measured in the design on 1,003 entries of which 801 are kept.
#[test]
fn m7_a_new_id_keeps_its_proved_prefix() {
    let mut t = Three::new();
    t.ticks(25);
    let (a, c) = (peer(1), peer(3));
    for i in 0..1000 {
        t.rig(a).propose(i, batch(1));
        if i % 50 == 0 {
            t.settle();
        }
    }
    t.settle();
    t.ticks(3);
    let mut found = suspect(&t.rigs[&c], 200);
    let kept = found.journaled.len();
    found.verdict = Verdict::HardStateUncertain;
    let same = GroupConfig::new(c);
    assert!(matches!(GroupCore::open(&same, found.clone(), 1), Err(OpenError::NotProven { voters: 3, .. })));
    let new = PeerId::new(NodeId(3), 2);
    let config = GroupConfig { new_id: true, ..GroupConfig::new(new) };
    let mut rig = t.rigs.remove(&c).unwrap();
    rig.open_as(&config, found);
    let view = rig.core.view();
    assert_eq!((view.mute, view.last.0), (false, kept as u64));
    assert!(matches!(&rig.effects[0], Effect::Persist { hard: Some(Hard { vote: 0, .. }), .. }), "{:?}", rig.effects);
    t.rigs.insert(new, rig);
    let change = ConfChange::of([ConfStep::AddLearner(new), ConfStep::Remove(c)]);
    t.rig(a).event(Event::ChangeConf(ProposalId(1), change));
    t.rig(new).take();
    let mut sent = 0;
    for _ in 0..40 {
        t.ticks(1);
        let log = t.rig(new).take();
        sent +=
            log.iter().map(|e| if let Effect::Persist { entries, .. } = e { entries.len() } else { 0 }).sum::<usize>();
    }
    t.rig(a).event(Event::ChangeConf(ProposalId(2), ConfChange::of([ConfStep::AddVoter(new)])));
    t.ticks(10);
    assert_eq!(t.rigs[&a].core.conf().voters, vec![peer(1), peer(2), new]);
    assert_eq!(t.rigs[&new].core.view().commit, t.rigs[&a].core.view().commit);
    assert!((200..260).contains(&sent), "{sent} entries were sent of {kept} + 200");
}

#[test]
fn m8_the_longest_survivor_goes_on_alone_when_somebody_says_so() {
    let mut t = led(Three::new());
    let (b, others) = (peer(2), [peer(1), peer(3)]);
    let mut found = suspect(&t.rigs[&b], 1);
    let term = found.hard.term;
    let plan = unclean(&found, b, &others).unwrap();
    assert_eq!(plan.hard.term, term + 1000);
    found.journaled.extend(plan.entries);
    (found.hard, found.verdict) = (plan.hard, Verdict::Ok);
    t.rig(b).open(found.clone());
    t.rig(b).settle();
    let view = t.rigs[&b].core.view();
    assert_eq!((view.role, view.term.0), (Role::Leader, term + 1001));
    assert!(view.own_term_committed);
    assert_eq!(t.rigs[&b].core.conf().voters, vec![b]);
    assert_eq!(
        t.rigs[&b].core.log().end_of_epoch(LeaderEpoch(term)).unwrap().1,
        Offset(5),
        "clients see where it parted"
    );
    // And after a restart.
    t.rig(b).crash();
    t.rig(b).settle();
    assert_eq!(t.rigs[&b].core.conf().voters, vec![b]);
}

#[test]
fn m9_only_an_id_that_was_assigned_and_never_opened_begins_empty() {
    let opened = BTreeSet::from([1]);
    assert!(may_begin_empty(Some(2), &opened, 2));
    assert!(!may_begin_empty(Some(1), &opened, 1), "it may have voted");
    assert!(!may_begin_empty(None, &opened, 2), "nobody assigned it");
    assert!(!may_begin_empty(Some(2), &opened, 3));
}

/// Everything up to `upto` is in files, and trimmed.
fn trim(t: &mut Three, p: PeerId, upto: u64) {
    let rig = t.rig(p);
    let log = rig.core.log();
    let placed = |base: u64, end: u64| {
        (base..=end).map(move |i| (i, base)).map(|(i, base)| PlacedRow {
            row: log.row(EntryIndex(i)).unwrap(),
            base_index: EntryIndex(base),
            base_offset: log.row(EntryIndex(base)).unwrap().base_offset,
            generation: 0,
            created_ms: 0,
        })
    };
    let last = log.last_index().0;
    let rows: Vec<_> = placed(1, upto).chain(placed(upto + 1, last)).collect();
    rig.event(Event::Segmented(EntryIndex(last), rows));
}

#[test]
fn r11_r13_a_follower_behind_the_first_index_gets_a_prefix_snapshot() {
    let mut t = Three::new();
    t.ticks(25);
    let (a, c) = (peer(1), peer(3));
    t.cut = vec![c];
    t.rig(a).propose(100, idempotent(4, 0));
    t.write(8);
    for p in [a, peer(2)] {
        trim(&mut t, p, 5);
    }
    let start = context::LogStart { offset: Offset(5), reason: context::TrimReason::Retention };
    t.rig(a).event(Event::Propose(vec![Proposal::log_start(ProposalId(1), start)]));
    t.ticks(3);
    assert!(t.rigs[&a].core.log().first_index() > EntryIndex(1));
    t.cut.clear();
    t.rig(c).take();
    t.stuck = vec![c];
    t.ticks(20);
    let effects = t.rig(c).take();
    let installed = effects.iter().filter(|e| matches!(e, Effect::Install { .. })).count();
    assert_eq!(installed, 1, "{effects:?}");
    // R13: taken, not durable: nothing is applied, nobody stands.
    let view = t.rigs[&c].core.view();
    assert_eq!(t.rigs[&c].core.log().first_index(), t.rigs[&a].core.log().first_index());
    assert!(view.persisted < view.last || view.persisted < view.commit);
    t.rig(c).event(Event::Message(PeerMsg {
        gid: Gid(5),
        from: a,
        to: c,
        term: view.term.0,
        body: PeerBody::TimeoutNow,
    }));
    assert_eq!(t.rigs[&c].core.view().role, Role::Follower);
    t.stuck.clear();
    for e in effects {
        if let Effect::Install { ready, .. } = e {
            t.rig(c).event(Event::Persisted(ready));
        }
    }
    t.ticks(20);
    let (ours, theirs) = (t.rigs[&c].core.view(), t.rigs[&a].core.view());
    assert_eq!(
        (ours.commit, ours.high_watermark, ours.log_start),
        (theirs.commit, theirs.high_watermark, theirs.log_start)
    );
    // Producers that wrote only what is gone are known all the same.
    let again = idempotent(4, 0);
    let check = t.rigs[&c].core.log().check(&BatchView::new(&again).unwrap(), None);
    assert!(matches!(check, Check::Duplicate { .. }), "{check:?}");
}

/// R10, R34: a follower far behind hears at once that all it is sent is committed. Its segment files may be reported before
/// its flush; what lies below the log start is still to be applied then.
#[test]
fn r34_a_change_below_the_log_start_is_applied_before_it_is_trimmed() {
    let mut t = Three::new();
    t.ticks(25);
    let (a, c) = (peer(1), peer(3));
    assert_eq!(t.leader(), a);
    t.cut = vec![c];
    t.rig(a).event(Event::ChangeConf(ProposalId(70), ConfChange::of([ConfStep::AddLearner(peer(4))])));
    t.ticks(3);
    let left = t.rigs[&a].core.conf_index();
    t.write(8);
    let start = context::LogStart { offset: Offset(5), reason: context::TrimReason::Retention };
    t.rig(a).event(Event::Propose(vec![Proposal::log_start(ProposalId(1), start)]));
    t.rig(a).event(Event::ChangeConf(ProposalId(71), ConfChange::of([ConfStep::Remove(peer(4))])));
    t.ticks(3);
    let theirs = (t.rigs[&a].core.conf().clone(), t.rigs[&a].core.conf_index());
    assert!(theirs.1 > left && left > EntryIndex(1), "{theirs:?}");
    t.cut.clear();
    t.stuck = vec![c];
    t.ticks(5);
    let view = t.rigs[&c].core.view();
    assert!(view.commit == view.last && view.persisted < left, "{view:?}");
    // The change is entered in the first segment and left in the same one.
    trim(&mut t, c, left.0 + 3);
    assert_eq!(t.rigs[&c].core.log().first_index(), EntryIndex(1), "not durable, so not applied");
    t.stuck.clear();
    t.ticks(5);
    let core = &t.rigs[&c].core;
    assert!(!core.view().offline);
    assert_eq!((core.conf().clone(), core.conf_index()), theirs);
    assert_eq!(core.log().first_index(), EntryIndex(left.0 + 4), "now it goes");
}

#[test]
fn r14_a_lost_snapshot_is_sent_again() {
    let mut t = Three::new();
    t.ticks(25);
    let (a, c) = (peer(1), peer(3));
    t.cut = vec![c];
    t.write(8);
    for p in [a, peer(2)] {
        trim(&mut t, p, 5);
    }
    let start = context::LogStart { offset: Offset(5), reason: context::TrimReason::Retention };
    t.rig(a).event(Event::Propose(vec![Proposal::log_start(ProposalId(1), start)]));
    t.ticks(3);
    // It hears beats and answers, but each snapshot is lost on the way.
    t.cut.clear();
    t.lose_snapshots = Some(0);
    t.ticks(260);
    let snapshots = t.lose_snapshots.unwrap();
    assert!(snapshots >= 2, "one is not waited for longer than ten seconds: {snapshots}");
}

/// R17: the other order would send everything again from the first entry on.
#[test]
fn r17_a_rejoining_follower_is_sent_what_it_lacks() {
    let mut t = Three::new();
    t.ticks(25);
    t.write(60);
    let b = peer(2);
    t.lose(b, 10);
    t.rig(b).take();
    t.connect(b);
    t.ticks(10);
    let sent: usize = t.rigs[&b]
        .effects
        .iter()
        .map(|e| if let Effect::Persist { entries, .. } = e { entries.len() } else { 0 })
        .sum();
    assert!((10..20).contains(&sent), "{sent} entries");
    assert!(!t.rigs[&b].core.is_mute());
}

/// R19 is kept by who carries frames (`old_generation_accepted` in the simulator); here: a second answer changes nothing.
#[test]
fn r19_a_repeated_acknowledgement_moves_nothing_back() {
    let mut t = led(Three::new());
    let (a, b) = (peer(1), peer(2));
    let (term, last) = (t.rigs[&a].core.view().term.0, t.rigs[&a].core.view().last);
    t.rig(a).message(b, term, PeerBody::Ack { index: EntryIndex(2), commit: EntryIndex(2), reject: None });
    assert_eq!(t.rigs[&a].core.matched(b), Some(last));
}

/// R28, R30: terms stay below Kafka's, ids are node and incarnation.
#[test]
fn r30_an_id_is_a_node_and_its_incarnation() {
    let id = PeerId::new(NodeId(7), 3);
    assert_eq!((id.node(), id.incarnation(), id.0), (NodeId(7), 3, 7 << 32 | 3));
    assert_ne!(id, PeerId::new(NodeId(7), 4));
}

/// R36: what the window swallowed is asked for again.
#[test]
fn r36_an_unreachable_peer_is_probed() {
    let mut t = led(Three::new());
    let (a, c) = (peer(1), peer(3));
    t.cut = vec![c];
    t.write(3);
    t.rig(a).event(Event::Unreachable(c));
    t.cut.clear();
    t.ticks(10);
    let highest = t.high_watermarks();
    assert!(highest.iter().all(|h| *h == highest[0]), "{highest:?}");
}

/// R37: a commit that jumps does not build one huge Ready.
#[test]
fn r37_a_jump_of_the_commit_is_taken_in_pieces() {
    let mut t = Three::new();
    t.ticks(25);
    t.stuck = vec![peer(2), peer(3)];
    let round = (0..9000).map(|i| Proposal::data(ProposalId(i), batch(1), Bytes::new())).collect();
    t.rig(peer(1)).event(Event::Propose(round));
    t.settle();
    t.stuck.clear();
    t.ticks(5);
    assert_eq!(t.high_watermarks(), vec![9000, 9000, 9000]);
    const { assert!(super::super::COMMITTED_PER_READY / 16 < 9000) };
}

fn row_of(last: (u32, u64), commit: (u64, u32)) -> RollRow {
    RollRow {
        suspect: true,
        leader: false,
        learner: false,
        term: 9,
        first_index: EntryIndex(1),
        last_index: EntryIndex(last.1),
        last_term: last.0,
        commit: EntryIndex(commit.0),
        commit_term: commit.1,
    }
}

/// A voter that lost nothing, with one entry of its own that nobody else has: it led term 1, and is cut off.
fn old_leader() -> Rig {
    let (me, b) = (peer(1), peer(2));
    let mut rig = Rig::new(me, &[me, b, peer(3)]);
    for _ in 0..20 {
        rig.event(Event::Tick(1));
    }
    for pre in [true, false] {
        rig.settle();
        rig.message(b, 1, PeerBody::VoteReply { pre, reject: false, commit: EntryIndex(0), commit_term: 0 });
    }
    rig.settle();
    assert_eq!((rig.core.view().role, rig.core.view().last), (Role::Leader, EntryIndex(1)));
    rig.event(Event::StepDown);
    rig.take();
    rig
}

#[test]
fn m6_who_lost_nothing_cuts_a_tail_that_contradicts_what_is_known_committed() {
    let b = peer(2);
    let mut rig = old_leader();
    // Two that lost their newest entries hold another entry 1, sealed.
    rig.message(b, 9, PeerBody::Roll { row: row_of((2, 1), (1, 2)), ask: false });
    let effects = rig.take();
    let cut = effects.iter().any(|e| matches!(e, Effect::Persist { truncate_from: Some(EntryIndex(1)), .. }));
    assert!(cut && rig.core.view().last == EntryIndex(0), "{effects:?}");
    // Of a healthy peer the usual way of an append is enough.
    let mut rig = old_leader();
    let row = RollRow { suspect: false, ..row_of((2, 1), (1, 2)) };
    rig.message(b, 9, PeerBody::Roll { row, ask: false });
    assert_eq!(rig.core.view().last, EntryIndex(1));
}

#[test]
fn m6_the_vote_of_one_that_lost_something_counts_in_a_complete_roll_call_alone() {
    let (b, c) = (peer(2), peer(3));
    let stands = |rig: &mut Rig, c_has: Option<RollRow>| {
        rig.message(b, 9, PeerBody::Roll { row: row_of((0, 0), (0, 0)), ask: false });
        if let Some(row) = c_has {
            rig.message(c, 9, PeerBody::Roll { row, ask: false });
        }
        for _ in 0..20 {
            rig.event(Event::Tick(1));
        }
        rig.settle();
        rig.take();
        let term = rig.core.view().term.0 + 1;
        rig.message(b, term, PeerBody::VoteReply { pre: true, reject: false, commit: EntryIndex(0), commit_term: 0 });
        rig.settle();
        rig.said().iter().any(|body| matches!(body, PeerBody::Vote { pre: false, .. }))
    };
    assert!(!stands(&mut old_leader(), None), "nobody knows what the third has");
    assert!(!stands(&mut old_leader(), Some(row_of((2, 4), (3, 2)))), "it lacks what the third knows to be committed");
    assert!(stands(&mut old_leader(), Some(row_of((0, 0), (0, 0)))));
}
