//! Stories of classic groups, by Kafka's rules.
#![allow(clippy::unwrap_used)]

mod storm;

use super::records::Committed;
use super::*;
use catchwater_base::{Rng, Wall};
use std::collections::BTreeMap;

/// The machine with a host that commits at once.
pub(super) struct Rig {
    pub groups: Groups,
    soft: Soft,
    now: Now,
    tickets: u64,
    replies: BTreeMap<u64, Reply>,
    pub log: Vec<GroupRecord>,
}

const DAY_MS: u64 = 24 * 3_600_000;

impl Rig {
    fn new() -> Self {
        Rig::with(Settings { initial_delay_ms: 0, ..Settings::default() })
    }
    fn with(settings: Settings) -> Self {
        let now = Now { mono: Mono::from_millis(1_000), wall: Wall::from_millis(1_700_000_000_000) };
        let groups = Groups::new(settings);
        let soft = groups.soft(now);
        Rig { groups, soft, now, tickets: 0, replies: BTreeMap::new(), log: Vec::new() }
    }
    fn send(&mut self, request: Request) -> u64 {
        self.tickets += 1;
        let decision = self.groups.decide(&mut self.soft, self.now, Ticket(self.tickets), request);
        for record in decision.records {
            self.groups.replay(&record);
            self.log.push(record);
        }
        for (ticket, reply) in decision.replies {
            assert!(self.replies.insert(ticket.0, reply).is_none(), "ticket {} answered twice", ticket.0);
        }
        self.tickets
    }
    /// The answer of a ticket, if it has come.
    fn got(&mut self, ticket: u64) -> Option<Reply> {
        self.replies.remove(&ticket)
    }
    fn ask(&mut self, request: Request) -> Reply {
        let ticket = self.send(request);
        self.got(ticket).expect("an answer at once")
    }
    /// Time passes; the machine is woken at its own deadlines on the way.
    fn pass(&mut self, ms: u64) {
        let until = self.now.mono.plus_millis(ms);
        while let Some(at) = self.groups.deadline(&self.soft).filter(|at| *at <= until) {
            self.set(at);
            self.ask(Request::Wake);
        }
        self.set(until);
    }
    fn set(&mut self, mono: Mono) {
        let ms = mono.as_millis() as i64 - self.now.mono.as_millis() as i64;
        assert!(ms >= 0);
        self.now = Now { mono, wall: Wall::from_millis(self.now.wall.as_millis() + ms) };
    }
    /// Another coordinator takes over: only the log is left.
    fn failover(&mut self) {
        let mut groups = Groups::new(self.groups.settings().clone());
        self.log.iter().for_each(|record| groups.replay(record));
        assert_eq!(groups.digest(), self.groups.digest());
        self.soft = groups.soft(self.now);
        self.groups = groups;
    }

    fn join(&mut self, join: Join) -> u64 {
        self.send(Request::Join(join))
    }
    fn joined(&mut self, ticket: u64) -> Result<Joined, GroupError> {
        match self.got(ticket) {
            Some(Reply::Join(result)) => result,
            other => panic!("{other:?}"),
        }
    }
    fn sync(&mut self, j: &Joined, assignments: &[(&str, &str)]) -> u64 {
        let assignments =
            assignments.iter().map(|(m, a)| ((*m).to_owned(), Bytes::copy_from_slice(a.as_bytes()))).collect();
        self.send(Request::Sync(Sync {
            group: "g".into(),
            generation: j.generation,
            member: j.member.clone(),
            instance: None,
            protocol_type: None,
            protocol: None,
            assignments,
        }))
    }
    fn synced(&mut self, ticket: u64) -> Result<String, GroupError> {
        match self.got(ticket) {
            Some(Reply::Sync(result)) => result.map(|s| String::from_utf8(s.assignment.to_vec()).unwrap()),
            other => panic!("{other:?}"),
        }
    }
    fn beat(&mut self, member: &str, generation: i32) -> Result<(), GroupError> {
        let beat = Heartbeat { group: "g".into(), generation, member: member.into(), instance: None };
        match self.ask(Request::Heartbeat(beat)) {
            Reply::Heartbeat(result) => result,
            other => panic!("{other:?}"),
        }
    }
    fn leave(&mut self, members: &[(&str, Option<&str>)]) -> Vec<Result<(), GroupError>> {
        let members =
            members.iter().map(|(m, i)| LeaveMember { member: (*m).into(), instance: i.map(str::to_owned) }).collect();
        match self.ask(Request::Leave(Leave { group: "g".into(), members })) {
            Reply::Leave(Ok(results)) => results.into_iter().map(|(_, r)| r).collect(),
            other => panic!("{other:?}"),
        }
    }
    fn commit(&mut self, member: &str, generation: i32, offset: i64) -> Result<(), GroupError> {
        match self.ask(Request::Commit(commit_of(member, generation, offset))) {
            Reply::Commit(mut results) => results.pop().unwrap(),
            other => panic!("{other:?}"),
        }
    }
    fn offset(&mut self, topic: &str) -> i64 {
        let topics = Some(vec![(topic.into(), vec![0])]);
        match self.ask(Request::Fetch(FetchOffsets { group: "g".into(), member: None, topics })) {
            Reply::Fetch(Ok(found)) => found[0].offset,
            other => panic!("{other:?}"),
        }
    }
    fn state(&mut self) -> &'static str {
        match self.ask(Request::Describe { group: "g".into() }) {
            Reply::Describe(Ok(d)) => d.state,
            Reply::Describe(Err(GroupError::NotFound)) => "none",
            other => panic!("{other:?}"),
        }
    }
    /// One dynamic member in a stable group.
    fn stable(&mut self) -> Joined {
        let ticket = self.join(new_member());
        let joined = self.joined(ticket).unwrap();
        let ticket = self.sync(&joined, &[(&joined.member, "all")]);
        assert_eq!(self.synced(ticket), Ok("all".into()));
        joined
    }
}

/// As JoinGroup v3: the id comes at once.
fn new_member() -> Join {
    Join {
        group: "g".into(),
        member: String::new(),
        instance: None,
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 30_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), subscription(&["t"]))],
        require_known_member: false,
        supports_skip: false,
        uuid: [7; 16],
    }
}
fn again(j: &Joined) -> Join {
    Join { member: j.member.clone(), ..new_member() }
}
fn nth(n: u8) -> Join {
    Join { uuid: [n; 16], ..new_member() }
}
fn fixed(instance: &str, n: u8) -> Join {
    Join { instance: Some(instance.into()), ..nth(n) }
}
fn subscription(topics: &[&str]) -> Bytes {
    let mut out = crate::stored::Out::version(1);
    out.i32(topics.len() as i32);
    topics.iter().for_each(|t| out.string(t));
    out.i32(-1);
    out.finish()
}
fn commit_of(member: &str, generation: i32, offset: i64) -> Commit {
    let offsets = vec![CommitOffset {
        topic: "t".into(),
        topic_id: TopicId::NONE,
        partition: 0,
        offset,
        leader_epoch: 3,
        metadata: "m".into(),
        commit_ms: None,
    }];
    Commit { group: "g".into(), generation, member: member.into(), instance: None, retention_ms: None, offsets }
}

#[test]
fn partitions_are_those_of_javas_hash() {
    // Computed apart from this code, by the definition of java.lang.String.hashCode.
    assert_eq!(partition_of("", 50), 0);
    assert_eq!(partition_of("my-group", 50), 12);
    // "polygenelubricants".hashCode() is the smallest integer: abs counts as 0.
    assert_eq!(partition_of("polygenelubricants", 50), 0);
    // UTF-16 units, not characters: U+1F600 is d83d de00.
    assert_eq!(partition_of("\u{1F600}", u32::MAX), 0xd83d * 31 + 0xde00);
}

#[test]
fn a_member_without_id_gets_one_that_stays_valid_for_its_session() {
    let mut rig = Rig::new();
    let ticket = rig.join(Join { require_known_member: true, ..new_member() });
    let Err(GroupError::MemberIdRequired(id)) = rig.joined(ticket) else { panic!() };
    assert_eq!(id, "c-07070707-0707-0707-0707-070707070707");
    rig.pass(9_999);
    let ticket = rig.join(Join { member: id.clone(), require_known_member: true, ..new_member() });
    assert_eq!(rig.joined(ticket).unwrap().member, id);
    // Another is given and never used: forgotten, and nobody's rebalance.
    let ticket = rig.join(Join { require_known_member: true, ..nth(8) });
    let Err(GroupError::MemberIdRequired(unused)) = rig.joined(ticket) else { panic!() };
    for _ in 0..6 {
        rig.pass(2_000);
        assert_eq!(rig.beat(&id, 1), Ok(()));
    }
    let ticket = rig.join(Join { member: unused, ..nth(8) });
    assert_eq!(rig.joined(ticket), Err(GroupError::UnknownMember));
}

#[test]
fn an_empty_group_waits_its_initial_delay_and_longer_while_members_come() {
    let mut rig = Rig::with(Settings { initial_delay_ms: 3_000, ..Settings::default() });
    let a = rig.join(nth(1));
    rig.pass(2_000);
    let b = rig.join(nth(2));
    rig.pass(2_500);
    assert!(rig.replies.is_empty(), "b came in the first delay: another is waited");
    rig.pass(1_500);
    let (a, b) = (rig.joined(a).unwrap(), rig.joined(b).unwrap());
    assert_eq!((a.generation, b.generation), (1, 1));
    assert_eq!((a.members.len(), b.members.len()), (2, 0), "the first leads");
    assert_eq!(a.leader, b.leader);
}

#[test]
fn everybody_syncs_after_the_assignment_is_stored() {
    let mut rig = Rig::new();
    let a = rig.stable();
    let b = rig.join(nth(2));
    assert_eq!(rig.beat(&a.member, 1), Err(GroupError::Rebalancing));
    let a = rig.join(again(&a));
    let (a, b) = (rig.joined(a).unwrap(), rig.joined(b).unwrap());
    assert_eq!((a.generation, b.generation), (2, 2));
    let early = rig.sync(&b, &[]);
    assert!(rig.replies.is_empty());
    assert_eq!((rig.beat(&b.member, 2), rig.state()), (Ok(()), "CompletingRebalance"));
    let stored = rig.log.len();
    let leads = rig.sync(&a, &[(&a.member, "p0"), (&b.member, "p1"), ("stranger", "x")]);
    assert_eq!((rig.synced(leads), rig.synced(early)), (Ok("p0".into()), Ok("p1".into())));
    assert_eq!(rig.log.len(), stored + 1);
    // A lost answer is asked for again.
    let lost = rig.sync(&b, &[]);
    assert_eq!(rig.synced(lost), Ok("p1".into()));
    assert_eq!(rig.state(), "Stable");
}

#[test]
fn a_join_while_others_sync_sends_them_all_back() {
    let mut rig = Rig::new();
    let a = rig.stable();
    let b = rig.join(nth(2));
    let a = rig.join(again(&a));
    let (a, b) = (rig.joined(a).unwrap(), rig.joined(b).unwrap());
    let waiting = rig.sync(&b, &[]);
    let c = rig.join(nth(3));
    assert_eq!(rig.synced(waiting), Err(GroupError::Rebalancing));
    let late = rig.sync(&a, &[]);
    assert_eq!(rig.synced(late), Err(GroupError::Rebalancing));
    let (a, b) = (rig.join(again(&a)), rig.join(again(&b)));
    assert_eq!([a, b, c].map(|t| rig.joined(t).unwrap().generation), [3, 3, 3]);
}

#[test]
fn wrong_generation_member_type_and_name_are_told_apart() {
    let mut rig = Rig::new();
    let a = rig.stable();
    let illegal = GroupError::IllegalGeneration { asked: 9, have: 1 };
    assert_eq!(rig.beat(&a.member, 9), Err(illegal.clone()));
    assert_eq!(rig.beat("x", 1), Err(GroupError::UnknownMember));
    let sync = |rig: &mut Rig, change: &dyn Fn(&mut Sync)| {
        let mut sync = Sync {
            group: "g".into(),
            generation: 1,
            member: a.member.clone(),
            instance: None,
            protocol_type: Some("consumer".into()),
            protocol: Some("range".into()),
            assignments: Vec::new(),
        };
        change(&mut sync);
        let ticket = rig.send(Request::Sync(sync));
        rig.synced(ticket)
    };
    assert_eq!(sync(&mut rig, &|_| ()), Ok("all".into()));
    assert_eq!(sync(&mut rig, &|s| s.generation = 9), Err(illegal));
    assert_eq!(sync(&mut rig, &|s| s.protocol_type = Some("connect".into())), Err(GroupError::InconsistentProtocol));
    assert_eq!(sync(&mut rig, &|s| s.protocol = Some("x".into())), Err(GroupError::InconsistentProtocol));
    assert_eq!(sync(&mut rig, &|s| s.group = "other".into()), Err(GroupError::UnknownMember));
}

/// A frame holds millions of names: each of one member was looked for in all of each other's, at every join.
#[test]
fn members_with_very_many_protocols_are_judged_in_a_moment() {
    let mut rig = Rig::with(Settings { initial_delay_ms: 1_000, ..Settings::default() });
    let begun = std::time::Instant::now();
    let many = |who: &str| {
        let mut all: Vec<_> = (0..20_000).map(|n| (format!("{who}-{n}"), Bytes::new())).collect();
        all.push(("range".to_owned(), Bytes::new()));
        all
    };
    let tickets: Vec<u64> = (0..3).map(|n| rig.join(Join { protocols: many(&format!("m{n}")), ..nth(n) })).collect();
    rig.pass(2_500);
    let chosen: Vec<_> = tickets.iter().map(|t| rig.joined(*t).unwrap().protocol.unwrap()).collect();
    assert_eq!(chosen, ["range", "range", "range"]);
    let mut others = many("other");
    others.pop();
    let ticket = rig.join(Join { protocols: others, ..nth(9) });
    assert_eq!(rig.joined(ticket).unwrap_err(), GroupError::InconsistentProtocol);
    assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn the_protocol_is_the_one_all_have_and_most_prefer() {
    let names = |names: &[&str]| names.iter().map(|n| ((*n).to_owned(), Bytes::new())).collect::<Vec<_>>();
    let mut rig = Rig::with(Settings { initial_delay_ms: 1_000, ..Settings::default() });
    let offers: [&[&str]; 3] = [&["sticky", "range"], &["range", "sticky"], &["mine", "range", "sticky"]];
    let tickets: Vec<u64> = offers
        .iter()
        .enumerate()
        .map(|(n, offer)| rig.join(Join { protocols: names(offer), ..nth(n as u8) }))
        .collect();
    rig.pass(2_500);
    let chosen: Vec<_> = tickets.iter().map(|t| rig.joined(*t).unwrap().protocol.unwrap()).collect();
    assert_eq!(chosen, ["range", "range", "range"]);
    let refused = |rig: &mut Rig, join: Join| {
        let ticket = rig.join(join);
        rig.joined(ticket).unwrap_err()
    };
    assert_eq!(refused(&mut rig, Join { protocols: names(&["other"]), ..nth(9) }), GroupError::InconsistentProtocol);
    assert_eq!(refused(&mut rig, Join { protocols: Vec::new(), ..nth(9) }), GroupError::InconsistentProtocol);
    let other_type = Join { protocol_type: "connect".into(), protocols: names(&["range"]), ..nth(9) };
    assert_eq!(refused(&mut rig, other_type), GroupError::InconsistentProtocol);
}

#[test]
fn a_lone_member_may_change_its_protocols() {
    let mut rig = Rig::new();
    let a = rig.stable();
    let ticket = rig.join(Join { protocols: vec![("sticky".into(), Bytes::new())], ..again(&a) });
    let joined = rig.joined(ticket).unwrap();
    assert_eq!((joined.generation, joined.protocol.as_deref()), (2, Some("sticky")));
}

#[test]
fn a_follower_that_joins_again_unchanged_is_told_what_is() {
    let mut rig = Rig::new();
    let a = rig.stable();
    let b = rig.join(nth(2));
    let a = rig.join(again(&a));
    let (a, b) = (rig.joined(a).unwrap(), rig.joined(b).unwrap());
    // Both missed the answers to their joins.
    let (a2, b2) = (rig.join(again(&a)), rig.join(again(&b)));
    assert_eq!((rig.joined(a2).as_ref(), rig.joined(b2).as_ref()), (Ok(&a), Ok(&b)));
    let (s, t) = (rig.sync(&a, &[]), rig.sync(&b, &[]));
    assert!(rig.synced(s).is_ok() && rig.synced(t).is_ok());
    let b3 = rig.join(again(&b));
    assert_eq!(rig.joined(b3).unwrap().generation, 2);
    // The leader wants a new assignment.
    let a3 = rig.join(again(&a));
    assert_eq!((rig.got(a3), rig.state()), (None, "PreparingRebalance"));
}

#[test]
fn a_static_member_comes_back_without_a_rebalance_and_its_old_self_is_fenced() {
    let mut rig = Rig::new();
    let a = rig.join(fixed("i", 1));
    let a = rig.joined(a).unwrap();
    assert!(a.member.starts_with("i-"), "{}", a.member);
    let ticket = rig.sync(&a, &[(&a.member, "all")]);
    assert_eq!(rig.synced(ticket), Ok("all".into()));
    let b = rig.join(fixed("i", 2));
    let b = rig.joined(b).unwrap();
    assert_eq!((b.generation, rig.state()), (1, "Stable"));
    assert_ne!(a.member, b.member);
    assert_eq!((b.leader.as_str(), b.skip_assignment), (a.member.as_str(), false), "an old client must not assign");
    let ticket = rig.sync(&b, &[]);
    assert_eq!(rig.synced(ticket), Ok("all".into()));
    let fenced = Err(GroupError::FencedInstance("i".into()));
    let beat = |rig: &mut Rig, member: &str| {
        let (group, instance) = ("g".into(), Some("i".to_owned()));
        match rig.ask(Request::Heartbeat(Heartbeat { group, generation: 1, member: member.into(), instance })) {
            Reply::Heartbeat(result) => result,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((beat(&mut rig, &a.member), beat(&mut rig, &b.member)), (fenced.clone(), Ok(())));
    let old = Commit { instance: Some("i".into()), ..commit_of(&a.member, 1, 5) };
    assert_eq!(rig.ask(Request::Commit(old)), Reply::Commit(vec![fenced.clone()]));
    let old = rig.join(Join { member: a.member.clone(), ..fixed("i", 3) });
    assert_eq!(rig.joined(old).map(|_| ()), fenced);
    // Stored: a new coordinator knows the new id.
    rig.failover();
    assert_eq!(beat(&mut rig, &b.member), Ok(()));
    // KIP-814: a newer client that led goes on leading and is told to skip the assignment.
    let c = rig.join(Join { supports_skip: true, ..fixed("i", 4) });
    let c = rig.joined(c).unwrap();
    assert_eq!((&c.leader, c.skip_assignment, c.members.len()), (&c.member, true, 1));
}

#[test]
fn a_static_member_with_another_subscription_rebalances() {
    let mut rig = Rig::new();
    let a = rig.join(fixed("i", 1));
    let a = rig.joined(a).unwrap();
    let ticket = rig.sync(&a, &[]);
    rig.synced(ticket).unwrap();
    let b = rig.join(Join { protocols: vec![("range".into(), subscription(&["u"]))], ..fixed("i", 2) });
    assert_eq!(rig.joined(b).unwrap().generation, 2);
}

#[test]
fn a_silent_member_is_forgotten_once_and_costs_one_rebalance() {
    let mut rig = Rig::new();
    let a = rig.stable();
    let b = rig.join(nth(2));
    let a = rig.join(again(&a));
    let (a, b) = (rig.joined(a).unwrap(), rig.joined(b).unwrap());
    let (s, t) = (rig.sync(&a, &[]), rig.sync(&b, &[]));
    rig.synced(s).unwrap();
    rig.synced(t).unwrap();
    for _ in 0..2 {
        rig.pass(4_000);
        assert_eq!(rig.beat(&a.member, 2), Ok(()));
    }
    rig.pass(2_001);
    assert_eq!(rig.beat(&a.member, 2), Err(GroupError::Rebalancing));
    assert_eq!(rig.beat(&b.member, 2), Err(GroupError::UnknownMember));
    let a = rig.join(again(&a));
    assert_eq!(rig.joined(a).unwrap().generation, 3);
}

#[test]
fn members_that_do_not_join_or_sync_in_time_are_left_behind() {
    let mut rig = Rig::new();
    let a = rig.stable();
    let b = rig.join(nth(2));
    // a beats but never joins.
    for _ in 0..15 {
        assert_eq!(rig.beat(&a.member, 1), Err(GroupError::Rebalancing));
        rig.pass(2_000);
    }
    let b = rig.joined(b).unwrap();
    assert_eq!((b.generation, &b.leader), (2, &b.member));
    assert_eq!(rig.beat(&a.member, 1), Err(GroupError::UnknownMember));
    // b leads, beats, and never syncs.
    for _ in 0..14 {
        assert_eq!(rig.beat(&b.member, 2), Ok(()));
        rig.pass(2_000);
    }
    rig.pass(2_000);
    assert_eq!((rig.beat(&b.member, 2), rig.state()), (Err(GroupError::UnknownMember), "Empty"));
}

#[test]
fn who_waits_for_a_slow_rebalance_is_not_silent() {
    let mut rig = Rig::new();
    let a = rig.stable();
    let b = rig.join(nth(2));
    let a = rig.join(again(&a));
    let (a, b) = (rig.joined(a).unwrap(), rig.joined(b).unwrap());
    // b waits for its assignment longer than its session; the leader takes its time, but is heard.
    let waiting = rig.sync(&b, &[]);
    for _ in 0..5 {
        rig.pass(5_000);
        assert_eq!(rig.beat(&a.member, 2), Ok(()));
    }
    let leads = rig.sync(&a, &[(&b.member, "p1")]);
    assert_eq!((rig.synced(leads), rig.synced(waiting)), (Ok(String::new()), Ok("p1".into())));
    rig.pass(5_000);
    assert_eq!(rig.beat(&b.member, 2), Ok(()), "its session began anew with the assignment");
    // The same while it waits in a join: b only beats, until the rebalance timeout leaves it behind.
    let a = rig.join(again(&a));
    for _ in 0..5 {
        rig.pass(5_000);
        assert_eq!(rig.beat(&b.member, 2), Err(GroupError::Rebalancing));
    }
    rig.pass(5_000);
    let a = rig.joined(a).unwrap();
    assert_eq!((a.generation, a.members.len()), (3, 1));
}

#[test]
fn a_static_member_keeps_its_place_in_a_rebalance_until_its_session_ends() {
    let mut rig = Rig::with(Settings { initial_delay_ms: 100, ..Settings::default() });
    let (a, s) = (rig.join(nth(1)), rig.join(Join { session_timeout_ms: 60_000, ..fixed("i", 2) }));
    rig.pass(1_000);
    let (a, s) = (rig.joined(a).unwrap(), rig.joined(s).unwrap());
    for j in [&a, &s] {
        rig.sync(j, &[]);
    }
    // The leader asks for a rebalance; the static one is away, and stays a member of the next generation.
    let a = rig.join(again(&a));
    rig.pass(30_000);
    let a = rig.joined(a).unwrap();
    assert_eq!((a.generation, a.members.len()), (2, 2));
    // It comes back before the assignment is made: that must be made anew, for its new id.
    let back = rig.join(Join { session_timeout_ms: 60_000, ..fixed("i", 3) });
    assert_eq!((rig.got(back), rig.state()), (None, "PreparingRebalance"));
    let a = rig.join(again(&a));
    assert_eq!((rig.joined(a).unwrap().generation, rig.joined(back).unwrap().generation), (3, 3));
}

#[test]
fn leaving_is_told_one_by_one_and_by_instance() {
    let mut rig = Rig::with(Settings { initial_delay_ms: 100, ..Settings::default() });
    let (a, b, c) = (rig.join(nth(1)), rig.join(fixed("i", 2)), rig.join(fixed("j", 3)));
    rig.pass(1_000);
    let [a, b, c] = [a, b, c].map(|t| rig.joined(t).unwrap());
    for j in [&b, &c, &a] {
        rig.sync(j, &[]);
    }
    let results = rig.leave(&[
        ("x", None),
        ("", Some("nobody")),
        ("", Some("i")),
        (&c.member, Some("k")),
        (&c.member, Some("j")),
    ]);
    let unknown = || Err(GroupError::UnknownMember);
    assert_eq!(results, [unknown(), unknown(), Ok(()), unknown(), Ok(())]);
    assert_eq!(rig.beat(&a.member, 1), Err(GroupError::Rebalancing));
    assert_eq!(rig.leave(&[(&a.member, None)]), [Ok(())]);
    assert_eq!(rig.state(), "Empty");
    assert!(matches!(rig.ask(Request::Leave(Leave { group: "none".into(), members: vec![] })), Reply::Leave(Err(_))));
    // What is stored of an empty group is its generation: the next one is higher.
    rig.failover();
    let d = rig.join(nth(4));
    rig.pass(1_000);
    assert_eq!(rig.joined(d).unwrap().generation, 3);
}

#[test]
fn bounds_of_the_session_the_group_and_its_name() {
    let mut rig = Rig::with(Settings { size_max: 1, initial_delay_ms: 0, ..Settings::default() });
    let mut refused = |join: Join| {
        let ticket = rig.join(join);
        rig.joined(ticket).err()
    };
    assert_eq!(refused(Join { group: "".into(), ..new_member() }), Some(GroupError::IllegalGroup));
    assert_eq!(refused(Join { session_timeout_ms: 5_999, ..new_member() }), Some(GroupError::SessionTimeout(5_999)));
    let long = 1_800_001;
    assert_eq!(refused(Join { session_timeout_ms: long, ..new_member() }), Some(GroupError::SessionTimeout(long)));
    assert_eq!(refused(Join { member: "stranger".into(), ..new_member() }), Some(GroupError::UnknownMember));
    assert_eq!(refused(new_member()), None);
    assert_eq!(refused(nth(2)), Some(GroupError::Full));
    // Times of zero from a client are no time, not a panic.
    let mut rig = Rig::new();
    let ticket = rig.join(Join { rebalance_timeout_ms: 0, ..new_member() });
    assert_eq!(rig.joined(ticket).unwrap().generation, 1);
    rig.pass(20_000);
    assert_eq!(rig.state(), "Empty");
}

#[test]
fn a_group_stays_small_enough_to_be_stored() {
    let mut rig = Rig::with(Settings { group_bytes_max: 100, initial_delay_ms: 0, ..Settings::default() });
    let sized = |n| vec![("range".to_owned(), Bytes::from(vec![0; n]))];
    let ticket = rig.join(Join { protocols: sized(96), ..nth(1) });
    assert_eq!(rig.joined(ticket), Err(GroupError::TooLarge { max: 100 }));
    let a = rig.join(Join { protocols: sized(60), ..nth(1) });
    let a = rig.joined(a).unwrap();
    let ticket = rig.join(Join { protocols: sized(60), ..nth(2) });
    assert_eq!(rig.joined(ticket), Err(GroupError::TooLarge { max: 100 }), "together with the first");
    let ticket = rig.sync(&a, &[(&a.member, &"x".repeat(101))]);
    assert_eq!(rig.synced(ticket), Err(GroupError::TooLarge { max: 100 }));
    let ticket = rig.sync(&a, &[(&a.member, "x")]);
    assert_eq!(rig.synced(ticket), Ok("x".into()));
}

#[test]
fn settings_come_from_the_file_by_kafkas_names() {
    let file = [("offsets.retention.minutes", "2"), ("group.min.session.timeout.ms", "1000"), ("group.max.size", "x")];
    let file = file.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let s = Settings::from_file(&file);
    assert_eq!((s.retention_ms, s.session_min_ms, s.size_max), (120_000, 1_000, i32::MAX as usize));
}

#[test]
fn a_new_coordinator_goes_on_with_the_last_stable_generation() {
    let mut rig = Rig::new();
    let a = rig.stable();
    assert_eq!(rig.commit(&a.member, 1, 42), Ok(()));
    rig.failover();
    assert_eq!(rig.beat(&a.member, 1), Ok(()));
    let ticket = rig.sync(&a, &[]);
    assert_eq!(rig.synced(ticket), Ok("all".into()));
    assert_eq!(rig.commit(&a.member, 1, 43), Ok(()));
    assert_eq!(rig.offset("t"), 43);
    // It counts as just heard, and as no more than that.
    rig.pass(10_001);
    assert_eq!(rig.beat(&a.member, 1), Err(GroupError::UnknownMember));
}

#[test]
fn commits_follow_the_state_of_the_group() {
    let mut rig = Rig::new();
    assert_eq!(rig.commit("x", 3, 1), Err(GroupError::IllegalGeneration { asked: 3, have: -1 }));
    assert_eq!(rig.commit("", -1, 7), Ok(()), "a simple consumer");
    let a = rig.join(nth(1));
    let a = rig.joined(a).unwrap();
    assert_eq!(rig.commit(&a.member, 1, 8), Err(GroupError::Rebalancing), "completing");
    let ticket = rig.sync(&a, &[]);
    rig.synced(ticket).unwrap();
    assert_eq!(rig.commit(&a.member, 1, 8), Ok(()));
    assert_eq!(rig.commit("", -1, 9), Err(GroupError::UnknownMember), "members are there");
    assert_eq!(rig.commit(&a.member, 0, 9), Err(GroupError::IllegalGeneration { asked: 0, have: 1 }));
    rig.join(nth(2));
    assert_eq!((rig.state(), rig.commit(&a.member, 1, 10)), ("PreparingRebalance", Ok(())));
    assert_eq!(rig.offset("t"), 10);
}

#[test]
fn offsets_come_back_whole_and_unknown_is_minus_one() {
    let mut rig = Rig::new();
    rig.commit("", -1, 7).unwrap();
    let fetch =
        |rig: &mut Rig, topics| match rig.ask(Request::Fetch(FetchOffsets { group: "g".into(), member: None, topics }))
        {
            Reply::Fetch(Ok(found)) => found,
            other => panic!("{other:?}"),
        };
    let found = FetchedOffset { topic: "t".into(), partition: 0, offset: 7, leader_epoch: 3, metadata: "m".into() };
    let none = FetchedOffset { partition: 1, offset: -1, leader_epoch: -1, metadata: String::new(), ..found.clone() };
    assert_eq!(fetch(&mut rig, None), std::slice::from_ref(&found));
    assert_eq!(fetch(&mut rig, Some(vec![("t".into(), vec![0, 1])])), [found, none]);
    let mut long = commit_of("", -1, 8);
    long.offsets[0].metadata = "x".repeat(4097);
    long.offsets.push(CommitOffset { partition: 1, ..commit_of("", -1, 9).offsets.remove(0) });
    assert_eq!(
        rig.ask(Request::Commit(long)),
        Reply::Commit(vec![Err(GroupError::MetadataTooLong(4097)), Ok(())]),
        "one that is too long fails alone"
    );
    assert_eq!(fetch(&mut rig, None).iter().map(|f| f.offset).collect::<Vec<_>>(), [7, 9]);
    rig.ask(Request::TopicDeleted { name: "t".into() });
    assert_eq!(fetch(&mut rig, None), []);
}

#[test]
fn retention_counts_from_the_moment_the_group_is_empty() {
    let mut rig = Rig::new();
    let a = rig.stable();
    rig.commit(&a.member, 1, 42).unwrap();
    for _ in 0..(8 * DAY_MS / 8_000) {
        rig.pass(8_000);
        rig.beat(&a.member, 1).unwrap();
    }
    assert_eq!(rig.offset("t"), 42, "subscribed: never");
    rig.leave(&[(&a.member, None)]);
    rig.pass(7 * DAY_MS - 700_000);
    assert_eq!(rig.offset("t"), 42);
    rig.pass(1_400_000);
    assert_eq!((rig.offset("t"), rig.state()), (-1, "none"), "and the group itself is forgotten");
    assert!(rig.groups.groups.is_empty());
}

#[test]
fn a_topic_nobody_reads_expires_in_a_stable_group_and_a_simple_commit_by_its_own_time() {
    let mut rig = Rig::new();
    let a = rig.stable();
    let mut other = commit_of(&a.member, 1, 5);
    other.offsets[0].topic = "unread".into();
    rig.ask(Request::Commit(other));
    let simple = Commit { group: "s".into(), ..commit_of("", -1, 1) };
    rig.ask(Request::Commit(simple.clone()));
    rig.ask(Request::Commit(Commit { group: "short".into(), retention_ms: Some(1_000), ..simple }));
    rig.commit(&a.member, 1, 42).unwrap();
    for n in 0..(8 * DAY_MS / 8_000) {
        rig.pass(8_000);
        rig.beat(&a.member, 1).unwrap();
        if n == 200 {
            assert!(!rig.groups.groups.contains_key(&GroupName::from("short")), "its own retention was a second");
            assert!(rig.groups.groups.contains_key(&GroupName::from("s")));
        }
    }
    assert_eq!((rig.offset("unread"), rig.offset("t")), (-1, 42));
    assert!(!rig.groups.groups.contains_key(&GroupName::from("s")));
}

#[test]
fn groups_are_listed_and_deleted_when_empty() {
    let mut rig = Rig::new();
    let a = rig.stable();
    rig.ask(Request::Commit(Commit { group: "s".into(), ..commit_of("", -1, 1) }));
    let Reply::List(listed) = rig.ask(Request::List) else { panic!() };
    let listed: Vec<_> = listed.iter().map(|l| (l.group.as_str(), l.protocol_type.as_str(), l.state)).collect();
    assert_eq!(listed, [("g", "consumer", "Stable"), ("s", "", "Empty")]);
    assert_eq!(rig.ask(Request::Delete { group: "g".into() }), Reply::Delete(Err(GroupError::NotEmpty)));
    assert_eq!(rig.ask(Request::Delete { group: "x".into() }), Reply::Delete(Err(GroupError::NotFound)));
    rig.leave(&[(&a.member, None)]);
    for group in ["g", "s"] {
        assert_eq!(rig.ask(Request::Delete { group: group.into() }), Reply::Delete(Ok(())));
    }
    assert!(rig.groups.groups.is_empty());
}

#[test]
fn a_group_that_only_gave_an_id_out_can_be_deleted() {
    let mut rig = Rig::new();
    rig.ask(Request::Commit(commit_of("", -1, 1)));
    let ticket = rig.join(Join { require_known_member: true, ..new_member() });
    assert!(matches!(rig.joined(ticket), Err(GroupError::MemberIdRequired(_))));
    assert_eq!(rig.ask(Request::Delete { group: "g".into() }), Reply::Delete(Ok(())));
    assert!(rig.groups.groups.is_empty());
}

#[test]
fn offsets_are_deleted_but_not_of_topics_that_members_read() {
    let mut rig = Rig::new();
    let delete = |rig: &mut Rig, group: &str, topics: &[&str]| {
        let topics = topics.iter().map(|t| ((*t).into(), vec![0, 7])).collect();
        let Reply::DeleteOffsets(result) = rig.ask(Request::DeleteOffsets { group: group.into(), topics }) else {
            panic!()
        };
        result
    };
    let subscribed = |topic: &str| Err(GroupError::Subscribed(topic.into()));
    assert_eq!(delete(&mut rig, "g", &["t"]), Err(GroupError::NotFound));
    assert_eq!(delete(&mut rig, "", &["t"]), Err(GroupError::IllegalGroup));
    let a = rig.stable();
    rig.commit(&a.member, 1, 42).unwrap();
    let mut other = commit_of(&a.member, 1, 5);
    other.offsets[0].topic = "unread".into();
    rig.ask(Request::Commit(other));
    // A topic without an offset costs no record.
    assert_eq!(delete(&mut rig, "g", &["t", "unread", "none"]), Ok(vec![subscribed("t"), Ok(()), Ok(())]));
    assert_eq!((rig.offset("t"), rig.offset("unread")), (42, -1));
    // A subscription nobody can read may cover anything.
    let ticket = rig.join(Join { protocols: vec![("range".into(), Bytes::from_static(b"?"))], ..again(&a) });
    let joined = rig.joined(ticket).unwrap();
    assert_eq!(delete(&mut rig, "g", &["unread"]), Ok(vec![subscribed("unread")]));
    rig.leave(&[(&joined.member, None)]);
    assert_eq!(delete(&mut rig, "g", &["t"]), Ok(vec![Ok(())]));
    assert_eq!(rig.offset("t"), -1);
    // A worker's group is not a consumer's.
    let ticket = rig.join(Join { group: "w".into(), protocol_type: "connect".into(), ..new_member() });
    rig.joined(ticket).unwrap();
    assert_eq!(delete(&mut rig, "w", &["t"]), Err(GroupError::NotEmpty));
}

#[test]
fn old_commits_are_kept_by_the_client_own_clock() {
    let mut rig = Rig::new();
    let mut commit = commit_of("", -1, 1);
    commit.offsets[0].commit_ms = Some(5);
    rig.ask(Request::Commit(commit));
    let stored = rig.groups.groups[&GroupName::from("g")].offsets.values().next().cloned();
    assert_eq!(
        stored,
        Some(Committed { offset: 1, leader_epoch: 3, metadata: "m".into(), commit_ms: 5, expire_ms: -1 })
    );
}
