#![allow(clippy::unwrap_used)]
use super::conf::{ConfChange, ConfStep};
use super::*;
use crate::effect::{GuardRule, Hint, PeerBody, ReadyNo};
use bytes::{Bytes, BytesMut};
use catchwater_record::batch::build::Builder;
use catchwater_record::{CaptureEpoch, CaptureId, NodeId, PartitionId, TopicId};
use catchwater_storage::format::context;
use catchwater_storage::{Check, GroupSpec, NewEntry, ReadPlan};
use std::collections::BTreeMap;

fn peer(node: u32) -> PeerId {
    PeerId::new(NodeId(node), 1)
}

fn spec(voters: &[PeerId]) -> GroupSpec {
    GroupSpec {
        topic: TopicId([7; 16]),
        partition: PartitionId(0),
        incarnation: 1,
        conf: ConfState::of_voters(voters).encode(),
        conf_index: EntryIndex::ZERO,
    }
}

fn batch(records: usize) -> BytesMut {
    let mut b = Builder::new();
    for i in 0..records {
        b.push(1000 + i as i64, None, Some(b"value"), []);
    }
    b.finish()
}

fn idempotent(id: i64, sequence: i32) -> BytesMut {
    let mut b = Builder::new().producer(id, 0, sequence);
    b.push(1, None, Some(b"v"), []);
    b.finish()
}

mod rejoin;
mod rules;

/// A replica and the disk it is given: what `Persist` asked for, durable or not.
struct Rig {
    core: GroupCore,
    spec: GroupSpec,
    /// Asked for, not durable.
    queue: Vec<(ReadyNo, Vec<NewEntry>, Option<Hard>)>,
    disk: Vec<NewEntry>,
    hard: Hard,
    effects: Vec<Effect>,
}

impl Rig {
    fn new(me: PeerId, voters: &[PeerId]) -> Rig {
        Rig::with(me, spec(voters))
    }
    fn with(me: PeerId, spec: GroupSpec) -> Rig {
        let core = GroupCore::open(&GroupConfig::new(me), RecoveredGroup::fresh(Gid(5), spec.clone()), 1).unwrap();
        let mut rig = Rig { core, spec, queue: vec![], disk: vec![], hard: Hard::default(), effects: vec![] };
        rig.event(Event::Start);
        rig
    }
    fn event(&mut self, event: Event) {
        let mut out = Effects::new();
        self.core.handle(Now::default(), event, &mut out);
        for e in out.drain() {
            if let Effect::Persist { ready, entries, hard, .. } = &e {
                self.queue.push((*ready, entries.clone(), *hard));
            }
            self.effects.push(e);
        }
    }
    /// The disk catches up.
    fn flush(&mut self) {
        for (ready, entries, hard) in std::mem::take(&mut self.queue) {
            for e in entries {
                self.disk.retain(|d| d.index < e.index);
                self.disk.push(e);
            }
            self.hard = hard.unwrap_or(self.hard);
            self.event(Event::Persisted(ready));
        }
    }
    fn settle(&mut self) {
        while !self.queue.is_empty() {
            self.flush();
        }
    }
    /// Dies and comes back with what was durable.
    fn crash(&mut self) {
        let mut found = RecoveredGroup::fresh(Gid(5), self.spec.clone());
        found.hard = self.hard;
        found.journaled = self.disk.clone();
        self.queue.clear();
        self.effects.clear();
        let me = self.core.config.peer;
        self.core = GroupCore::open(&GroupConfig::new(me), found, 1).unwrap();
        self.event(Event::Start);
    }
    fn propose(&mut self, id: u64, body: BytesMut) {
        self.event(Event::Propose(vec![Proposal::data(ProposalId(id), body, Bytes::new())]));
    }
    fn take(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }
    fn committed(&self) -> Option<(EntryIndex, Offset)> {
        self.effects.iter().rev().find_map(|e| if let Effect::Commit(i, o) = e { Some((*i, *o)) } else { None })
    }
}

fn sole() -> Rig {
    let me = peer(1);
    let mut rig = Rig::new(me, &[me]);
    rig.settle();
    rig
}

#[test]
fn a_sole_voter_leads_at_once_and_its_noop_takes_no_offset() {
    let me = peer(1);
    let mut rig = Rig::new(me, &[me]);
    assert_eq!(rig.core.view().role, Role::Leader);
    assert!(!rig.core.view().own_term_committed);
    let persists = rig.effects.iter().filter(|e| matches!(e, Effect::Persist { hard: Some(h), entries, .. } if h.term == 1 && entries.len() == 1 && entries[0].kind == EntryKind::Noop)).count();
    assert_eq!(persists, 1, "one Persist with HARD and noop: {:?}", rig.effects);
    assert_eq!(rig.committed(), None);
    rig.settle();
    assert!(rig.core.view().own_term_committed);
    assert_eq!(rig.committed(), Some((EntryIndex(1), Offset(0))));
    assert_eq!(rig.core.view().spec_end, Offset(0));
}

#[test]
fn proposals_are_patched_made_durable_then_committed() {
    let mut rig = sole();
    rig.take();
    rig.propose(1, batch(3));
    rig.propose(2, batch(2));
    let proposed: Vec<_> = rig
        .effects
        .iter()
        .filter_map(|e| match e {
            Effect::Proposed { id, index, term, base_offset, end_offset } => {
                Some((id.0, index.0, term.0, base_offset.0, end_offset.0))
            }
            _ => None,
        })
        .collect();
    assert_eq!(proposed, vec![(1, 2, 1, 0, 3), (2, 3, 1, 3, 5)]);
    assert_eq!(rig.committed(), None, "nothing is committed before it is durable");
    assert_eq!((rig.core.view().high_watermark, rig.core.view().spec_end), (Offset(0), Offset(5)));
    rig.settle();
    assert_eq!(rig.committed(), Some((EntryIndex(3), Offset(5))));
    let ReadPlan::Tail(batches) = rig.core.log().plan_read(Offset(1), Offset(5), 1 << 20) else { panic!("in memory") };
    let views: Vec<_> =
        batches.iter().map(|b| BatchView::new(b).unwrap()).map(|b| (b.base_offset(), b.leader_epoch())).collect();
    assert_eq!(views, vec![(0, 1), (3, 1)]);
}

#[test]
fn offsets_stay_dense_over_restarts() {
    let mut rig = sole();
    let mut want = 0;
    for round in 0..4u64 {
        rig.propose(round, batch(2));
        rig.settle();
        want += 2;
        assert_eq!(rig.core.view().high_watermark, Offset(want));
        rig.propose(100 + round, batch(1)); // lost: never durable
        rig.crash();
        rig.settle();
        let view = rig.core.view();
        assert_eq!((view.term, view.spec_end), (LeaderEpoch(2 + round as u32), Offset(want)));
    }
    // One noop per term, and rows say where each term began.
    let starts: Vec<_> = rig.core.log().epochs().iter().map(|e| (e.term, e.offset.0)).collect();
    assert_eq!(starts, vec![(1, 0), (2, 2), (3, 4), (4, 6), (5, 8)]);
}

#[test]
fn a_repeated_batch_is_known_after_a_restart() {
    let mut rig = sole();
    rig.propose(1, idempotent(4, 0));
    rig.propose(2, idempotent(4, 1));
    rig.settle();
    rig.crash();
    rig.settle();
    let again = idempotent(4, 0);
    let check = rig.core.log().check(&BatchView::new(&again).unwrap(), None);
    assert_eq!(check, Check::Duplicate { base: Offset(0), end: Offset(1), index: EntryIndex(2) });
    let next = idempotent(4, 2);
    assert_eq!(rig.core.log().check(&BatchView::new(&next).unwrap(), None), Check::New);
}

#[test]
fn a_fence_is_an_entry_without_offset() {
    let mut rig = sole();
    rig.event(Event::Propose(vec![Proposal::fence(ProposalId(1), CaptureId(3), CaptureEpoch(9))]));
    rig.settle();
    assert_eq!(rig.core.view().spec_end, Offset(0));
    assert_eq!(rig.core.log().capture_last(CaptureId(3)).unwrap().0, CaptureEpoch(9));
    rig.crash();
    rig.settle();
    assert_eq!(rig.core.log().capture_last(CaptureId(3)).unwrap().0, CaptureEpoch(9));
}

#[test]
fn what_does_not_fit_is_refused_and_the_rest_goes_on() {
    let mut rig = sole();
    rig.core.config.uncommitted_bytes_max = 200;
    rig.take();
    let mut bad = Proposal::data(ProposalId(1), batch(1), Bytes::new());
    bad.kind = EntryKind::Ctl;
    let empty = Proposal::data(ProposalId(2), BytesMut::new(), Bytes::new());
    let foreign = Proposal::data(ProposalId(3), batch(1), Bytes::from_static(&[99, 0]));
    let all = vec![
        bad,
        empty,
        foreign,
        Proposal::data(ProposalId(4), batch(10), Bytes::new()),
        Proposal::data(ProposalId(5), batch(10), Bytes::new()),
    ];
    rig.event(Event::Propose(all));
    let refused: Vec<_> = rig
        .effects
        .iter()
        .filter_map(|e| if let Effect::Refused(id, why) = e { Some((id.0, *why)) } else { None })
        .collect();
    assert_eq!(refused, vec![(1, Why::Invalid), (2, Why::Invalid), (3, Why::Invalid), (5, Why::NoRoom)]);
    rig.settle();
    assert_eq!(rig.core.view().high_watermark, Offset(10));
    rig.propose(6, batch(10));
    assert!(rig.effects.iter().any(|e| matches!(e, Effect::Proposed { id: ProposalId(6), .. })));
}

#[test]
fn a_lone_voter_with_uncertain_hard_state_takes_the_next_term() {
    let mut rig = sole();
    rig.propose(1, batch(1));
    rig.settle();
    let mut found = RecoveredGroup::fresh(Gid(5), rig.spec.clone());
    found.journaled = rig.disk.clone();
    found.verdict = Verdict::HardStateUncertain;
    let me = peer(1);
    let mut core = GroupCore::open(&GroupConfig::new(me), found.clone(), 1).unwrap();
    let mut out = Effects::new();
    core.handle(Now::default(), Event::Start, &mut out);
    assert_eq!((core.view().role, core.view().term), (Role::Leader, LeaderEpoch(3)));
    // With others it may have voted: it must not.
    found.spec = spec(&[me, peer(2), peer(3)]);
    assert!(matches!(GroupCore::open(&GroupConfig::new(me), found, 1), Err(OpenError::NotProven { voters: 3, .. })));
}

#[test]
fn barriers_wait_for_the_first_commit_of_the_term() {
    let me = peer(1);
    let mut rig = Rig::new(me, &[me]);
    rig.event(Event::ReadBarrier(77));
    assert!(!rig.effects.iter().any(|e| matches!(e, Effect::ReadReady(..))));
    rig.settle();
    assert!(rig.effects.iter().any(|e| matches!(e, Effect::ReadReady(77, EntryIndex(1)))));
    rig.take();
    rig.event(Event::ReadBarrier(78));
    assert!(rig.effects.iter().any(|e| matches!(e, Effect::ReadReady(78, EntryIndex(1)))));
    rig.event(Event::StepDown);
    rig.event(Event::ReadBarrier(79));
    assert!(rig.effects.iter().any(|e| matches!(e, Effect::ReadRefused(79))));
}

#[test]
fn a_panic_inside_takes_only_this_group_down() {
    let mut rig = sole();
    rig.take();
    // A durability the core never asked for: the log's assertion fires inside `handle`.
    rig.core.node.raft.raft_log.persisted = 99;
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    rig.event(Event::Tick(1));
    std::panic::set_hook(hook);
    assert!(matches!(&rig.effects[..], [Effect::Offline(Cause::Panic(_))]), "{:?}", rig.effects);
    rig.take();
    rig.propose(1, batch(1));
    assert!(matches!(&rig.effects[..], [Effect::Refused(ProposalId(1), Why::Offline)]));
}

/// Three replicas, messages carried by hand.
struct Three {
    rigs: BTreeMap<PeerId, Rig>,
    /// Messages to or from these are lost.
    cut: Vec<PeerId>,
    /// These do not flush.
    stuck: Vec<PeerId>,
    /// Prefix snapshots are lost: how many were.
    lose_snapshots: Option<usize>,
}

impl Three {
    fn new() -> Three {
        let voters = [peer(1), peer(2), peer(3)];
        Three {
            rigs: voters.iter().map(|p| (*p, Rig::new(*p, &voters))).collect(),
            cut: vec![],
            stuck: vec![],
            lose_snapshots: None,
        }
    }
    fn settle(&mut self) {
        loop {
            let mut mail = Vec::new();
            for (id, rig) in &mut self.rigs {
                if !self.stuck.contains(id) {
                    rig.settle();
                }
                for e in &rig.effects {
                    if let Effect::Send(m) = e {
                        mail.push(m.clone());
                    }
                }
                rig.effects.retain(|e| !matches!(e, Effect::Send(_)));
            }
            if mail.is_empty() {
                return;
            }
            for m in mail {
                if let (Some(lost), PeerBody::Snap(_)) = (&mut self.lose_snapshots, &m.body) {
                    *lost += 1;
                    continue;
                }
                if !self.cut.contains(&m.from)
                    && !self.cut.contains(&m.to)
                    && let Some(rig) = self.rigs.get_mut(&m.to)
                {
                    rig.event(Event::Message(m));
                }
            }
        }
    }
    fn ticks(&mut self, n: usize) {
        for _ in 0..n {
            for rig in self.rigs.values_mut() {
                rig.event(Event::Tick(1));
            }
            self.settle();
        }
    }
    fn leader(&self) -> PeerId {
        let led = |r: &&Rig| r.core.view().role == Role::Leader && r.core.view().own_term_committed;
        let mut leaders: Vec<_> =
            self.rigs.values().filter(led).map(|r| (r.core.view().term, r.core.config.peer)).collect();
        leaders.sort_unstable();
        leaders.last().expect("somebody leads").1
    }
    fn rig(&mut self, p: PeerId) -> &mut Rig {
        self.rigs.get_mut(&p).unwrap()
    }
    fn high_watermarks(&self) -> Vec<u64> {
        self.rigs.values().map(|r| r.core.view().high_watermark.0).collect()
    }
}

#[test]
fn three_voters_elect_replicate_and_survive_the_leaders_loss() {
    let mut t = Three::new();
    t.ticks(25);
    let first = t.leader();
    assert_eq!(first, peer(1), "the first in the list is preferred");
    t.rig(first).propose(1, batch(3));
    t.settle();
    t.ticks(3);
    assert_eq!(t.high_watermarks(), vec![3, 3, 3]);
    t.cut = vec![first];
    t.rig(first).propose(2, batch(4)); // never leaves
    t.ticks(40);
    let second = t.leader();
    assert_ne!(second, first);
    t.rig(second).propose(3, batch(2));
    t.ticks(3);
    // The old leader comes back: its own tail is cut, the other's taken.
    t.cut.clear();
    t.ticks(40);
    assert_eq!(t.high_watermarks(), vec![5, 5, 5]);
    let cut = t.rig(first).effects.iter().any(|e| matches!(e, Effect::Persist { truncate_from: Some(_), .. }));
    assert!(cut, "the uncommitted tail was cut");
    let logs: Vec<Vec<_>> = t
        .rigs
        .values()
        .map(|r| r.core.log().rows_from(EntryIndex(1)).map(|r| (r.index, r.term, r.base_offset, r.count)).collect())
        .collect();
    assert!(logs[0] == logs[1] && logs[1] == logs[2]);
}

#[test]
fn a_follower_says_nothing_of_entries_before_they_are_durable_but_answers_beats() {
    let mut t = Three::new();
    t.ticks(25);
    let (a, b, c) = (peer(1), peer(2), peer(3));
    assert_eq!(t.leader(), a);
    t.cut = vec![c];
    t.stuck = vec![b];
    t.rig(b).take();
    t.rig(a).propose(1, batch(1));
    t.settle();
    assert_eq!(t.rigs[&a].core.view().high_watermark, Offset(0), "one durable copy of three is no commit");
    // Its flush hangs for longer than an election timeout: the leader stays.
    t.ticks(30);
    assert_eq!(t.leader(), a);
    t.stuck.clear();
    t.settle();
    assert_eq!(t.rigs[&a].core.view().high_watermark, Offset(1));
}

#[test]
fn a_voter_with_a_tail_that_is_not_durable_does_not_campaign() {
    let mut t = Three::new();
    t.ticks(25);
    let (a, b) = (peer(1), peer(2));
    t.stuck = vec![b];
    t.rig(a).propose(1, batch(1));
    t.settle();
    t.cut = vec![a];
    for _ in 0..60 {
        t.rig(b).event(Event::Tick(1));
    }
    assert_eq!(t.rigs[&b].core.view().role, Role::Follower);
    t.stuck.clear();
    t.settle();
    t.ticks(60);
    assert_ne!(t.leader(), a);
}

#[test]
fn a_vote_leaves_only_when_it_is_durable() {
    let voters = [peer(1), peer(2), peer(3)];
    let mut rig = Rig::new(peer(2), &voters);
    let vote = PeerBody::Vote {
        pre: false,
        transfer: false,
        last_index: EntryIndex(0),
        last_term: 0,
        commit: EntryIndex(0),
        commit_term: 0,
    };
    rig.event(Event::Message(PeerMsg { gid: Gid(5), from: peer(1), to: peer(2), term: 3, body: vote }));
    assert!(!rig.effects.iter().any(|e| matches!(e, Effect::Send(_))));
    assert_eq!(rig.queue.last().unwrap().2, Some(Hard { term: 3, vote: peer(1).0, commit: EntryIndex(0) }));
    rig.flush();
    let granted = rig.effects.iter().any(|e| {
        matches!(e, Effect::Send(PeerMsg { body: PeerBody::VoteReply { pre: false, reject: false, .. }, .. }))
    });
    assert!(granted);
}

#[test]
fn the_guard_refuses_what_would_make_the_crate_panic() {
    let mut t = Three::new();
    t.ticks(25);
    t.rig(peer(1)).propose(1, batch(1));
    t.ticks(3);
    let term = t.rigs[&peer(2)].core.view().term.0;
    let good = t.rigs[&peer(1)].core.log().cached(EntryIndex(2)).unwrap().clone();
    let mut check = |from: PeerId, term: u32, body: PeerBody, want: GuardRule| {
        let rig = t.rig(peer(2));
        rig.take();
        rig.event(Event::Message(PeerMsg { gid: Gid(5), from, to: peer(2), term, body }));
        assert!(
            matches!(&rig.effects[..], [Effect::Guarded(p, rule)] if *p == from && *rule == want),
            "{:?}",
            rig.effects
        );
    };
    let append = |prev: u64, entries: Vec<NewEntry>| PeerBody::Append {
        prev_index: EntryIndex(prev),
        prev_term: term,
        commit: EntryIndex(0),
        entries,
    };
    let with = |change: &dyn Fn(&mut NewEntry)| {
        let mut e = good.clone();
        change(&mut e);
        e
    };
    check(peer(9), term, PeerBody::TimeoutNow, GuardRule::UnknownPeer);
    check(peer(1), 0, PeerBody::TimeoutNow, GuardRule::TermRange);
    check(peer(1), 1 << 31, PeerBody::TimeoutNow, GuardRule::TermRange);
    check(peer(1), term, PeerBody::Beat { commit: EntryIndex(99), barrier: None }, GuardRule::CommitBeyondEnd);
    check(peer(1), term, append(2, vec![good.clone()]), GuardRule::EntryShape);
    check(peer(1), term, append(1, vec![with(&|e| e.term = LeaderEpoch(term + 1))]), GuardRule::TermOrder);
    check(peer(1), term, append(1, vec![with(&|e| e.count = 2)]), GuardRule::EntryShape);
    check(peer(1), term, append(1, vec![with(&|e| e.kind = EntryKind::Noop)]), GuardRule::EntryShape);
    let moved = with(&|e| {
        let mut body = BytesMut::from(&e.body[..]);
        batch::patch(&mut body, Offset(7), e.term);
        e.body = body.freeze();
        e.base_offset = Offset(7);
    });
    check(peer(1), term, append(1, vec![moved]), GuardRule::OffsetChain);
    // A leader that is told more than it has.
    let rig = t.rig(peer(1));
    rig.take();
    let body = PeerBody::Ack { index: EntryIndex(50), commit: EntryIndex(0), reject: None };
    rig.event(Event::Message(PeerMsg { gid: Gid(5), from: peer(2), to: peer(1), term, body }));
    assert!(matches!(&rig.effects[..], [Effect::Guarded(_, GuardRule::CommitBeyondEnd)]));
    let body = PeerBody::Ack {
        index: EntryIndex(50),
        commit: EntryIndex(0),
        reject: Some(Hint { index: EntryIndex(1), term: 1 }),
    };
    rig.event(Event::Message(PeerMsg { gid: Gid(5), from: peer(2), to: peer(1), term, body }));
    assert!(!rig.core.view().offline);
}

#[test]
fn a_lagging_peer_is_fed_by_cold_reads() {
    let mut t = Three::new();
    t.ticks(25);
    t.cut = vec![peer(3)];
    for i in 0..20 {
        t.rig(peer(1)).propose(i, batch(1));
    }
    t.settle();
    // Memory of the leader lets go of everything that is in files.
    let disk = t.rigs[&peer(1)].disk.clone();
    let rig = t.rig(peer(1));
    let placed: Vec<_> = disk
        .iter()
        .map(|e| catchwater_storage::PlacedRow {
            row: rig.core.log().row(e.index).unwrap(),
            base_index: EntryIndex(1),
            base_offset: Offset(0),
            generation: 0,
            created_ms: 0,
        })
        .collect();
    rig.event(Event::Segmented(disk.last().unwrap().index, placed));
    rig.core.log_mut().shrink_tail(0);
    rig.take();
    t.cut.clear();
    let mut reads = 0;
    for _ in 0..40 {
        t.ticks(1);
        let rig = t.rig(peer(1));
        let wanted: Vec<_> = rig
            .take()
            .into_iter()
            .filter_map(|e| if let Effect::ColdRead { token, rows } = e { Some((token, rows)) } else { None })
            .collect();
        for (token, rows) in wanted {
            reads += 1;
            // The first read fails: the peer is not stuck for ever.
            let wanted = |e: &&NewEntry| (rows.from..rows.below).contains(&e.index);
            let found = (reads > 1).then(|| disk.iter().filter(wanted).cloned().collect());
            rig.event(Event::Fetched(token, found));
        }
        t.settle();
    }
    assert!(reads >= 2);
    assert_eq!(t.high_watermarks(), vec![20, 20, 20]);
}

#[test]
fn equal_inputs_give_equal_effects() {
    let run = || {
        let mut t = Three::new();
        t.ticks(30);
        for i in 0..5 {
            let leader = t.leader();
            t.rig(leader).propose(i, batch(1));
            t.cut = if i == 2 { vec![leader] } else { vec![] };
            t.ticks(40);
        }
        t.rigs.values().map(|r| format!("{:?}", r.core.view())).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}
