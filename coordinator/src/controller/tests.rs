//! Stories of group 0, and a storm of requests against its replay.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::cluster::configs::{ConfigChange, ConfigError, ConfigHow, ConfigStep};
use crate::cluster::image::{ConfigKey, Listener, Owner, role};
use crate::cluster::pipelines::{Note, PipelineChange, PipelineError};
use crate::cluster::topics::{CreateTopic, CreatedTopic, TopicError, WhichTopic, WidenTopic};
use crate::tasks::{Kind, Wish};
use bytes::Bytes;
use catchwater_base::{Rng, Wall};
use std::collections::{BTreeMap, BTreeSet};

/// The machine with a host that commits at once.
struct Rig {
    machine: Controller,
    soft: lease::Soft,
    now: Now,
    tickets: u64,
    replies: BTreeMap<u64, Reply>,
    log: Vec<Record>,
    ids: u8,
}

impl Rig {
    /// A founded cluster of these nodes, all roles.
    fn of(nodes: &[u32]) -> Self {
        let machine = Controller::new(Settings::default());
        let now = Now { mono: Mono::from_millis(1), wall: Wall::from_millis(1_700_000_000_000) };
        let soft = machine.soft(now);
        let (replies, log) = (BTreeMap::new(), Vec::new());
        let mut rig = Rig { machine, soft, now, tickets: 0, replies, log, ids: 0 };
        assert_eq!(rig.ask(Request::Found { cluster_id: [9; 16] }), Reply::Done);
        nodes.iter().for_each(|n| rig.register(*n, 1));
        rig
    }
    fn send(&mut self, request: Request) -> u64 {
        self.tickets += 1;
        let decision = self.machine.decide(&mut self.soft, self.now, Ticket(self.tickets), request);
        for record in decision.records {
            // What is read back is what was written.
            let stored = record.to_stored();
            assert_eq!(Record::from_stored(&stored.key, stored.value.as_deref()), Ok(Some(record.clone())));
            self.machine.replay(&record);
            self.log.push(record);
        }
        for (ticket, reply) in decision.replies {
            assert!(self.replies.insert(ticket.0, reply).is_none(), "ticket {} answered twice", ticket.0);
        }
        self.tickets
    }
    fn ask(&mut self, request: Request) -> Reply {
        let ticket = self.send(request);
        self.replies.remove(&ticket).expect("an answer at once")
    }
    fn pass(&mut self, ms: u64) {
        let until = self.now.mono.plus_millis(ms);
        while let Some(at) = self.machine.deadline(&self.soft).filter(|at| *at <= until) {
            self.now.mono = at;
            self.ask(Request::Wake);
        }
        self.now.mono = until;
    }
    fn failover(&mut self) {
        let mut machine = Controller::new(Settings::default());
        self.log.iter().for_each(|record| machine.replay(record));
        assert_eq!(machine.digest(), self.machine.digest());
        self.soft = machine.soft(self.now);
        self.machine = machine;
    }
    fn register(&mut self, node: u32, process: u8) {
        let listener = Listener { name: "PLAINTEXT".into(), host: "h".into(), port: 9092 };
        let registration = brokers::Registration {
            id: NodeId(node),
            process: [process; 16],
            listeners: vec![listener],
            rack: None,
            roles: role::ALL,
            dirs: vec![[node as u8; 16]],
        };
        assert!(matches!(self.ask(Request::Register(registration)), Reply::Registered { .. }));
    }
    fn topic(&mut self, name: &str) -> CreateTopic {
        self.ids += 1;
        CreateTopic::named(name, TopicId([self.ids; 16]))
    }
    fn create(&mut self, topics: Vec<CreateTopic>) -> Vec<Result<CreatedTopic, TopicError>> {
        match self.ask(Request::CreateTopics { topics, validate_only: false }) {
            Reply::Topics(results) => results,
            other => panic!("{other:?}"),
        }
    }
    fn create_one(&mut self, topic: CreateTopic) -> Result<CreatedTopic, TopicError> {
        self.create(vec![topic]).pop().unwrap()
    }
    fn delete(&mut self, which: Vec<WhichTopic>) -> Vec<Result<(TopicId, TopicName), TopicError>> {
        match self.ask(Request::DeleteTopics { topics: which }) {
            Reply::Deleted(results) => results,
            other => panic!("{other:?}"),
        }
    }
    fn source(&mut self, name: &str) -> CaptureId {
        match self.ask(Request::Source { name: name.into() }) {
            Reply::Source { capture, .. } => capture,
            other => panic!("{other:?}"),
        }
    }
    fn pipeline(&mut self, change: PipelineChange) -> Result<RevisionNo, PipelineError> {
        match self.ask(Request::ChangePipeline(change)) {
            Reply::Pipeline(result) => result,
            other => panic!("{other:?}"),
        }
    }
    fn mine(&mut self, node: u32, seen: u64) -> Option<tasks::Mine> {
        let request = Request::Mine { node: NodeId(node), roles: role::ALL, seen: TasksVersion(seen) };
        let ticket = self.send(request);
        self.mine_of(ticket)
    }
    fn mine_of(&mut self, ticket: u64) -> Option<tasks::Mine> {
        self.replies.remove(&ticket).map(|reply| match reply {
            Reply::Mine(mine) => mine,
            other => panic!("{other:?}"),
        })
    }
    /// (task, epoch, wish) of a node, asked without waiting.
    fn tasks_of(&mut self, node: u32) -> Vec<(u64, u32, Wish)> {
        let mine = self.mine(node, u64::MAX).unwrap();
        mine.tasks.iter().map(|t| (t.id.0, t.epoch.0, t.wish)).collect()
    }
}

fn put(name: &str, base: u64, text: &str, captures: &[(&str, CaptureId)], sinks: &[&str]) -> PipelineChange {
    PipelineChange::Put {
        name: name.into(),
        base: RevisionNo(base),
        text: text.into(),
        captures: captures.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect(),
        sinks: sinks.iter().map(|s| (*s).to_owned()).collect(),
        note: Note { author: "ann".into(), message: "why".into(), base_dir: "/d".into() },
    }
}

#[test]
fn a_cluster_is_founded_once() {
    let mut rig = Rig::of(&[1]);
    assert_eq!(rig.ask(Request::Found { cluster_id: [8; 16] }), Reply::Done);
    assert_eq!(rig.machine.image().cluster_id, Some([9; 16]));
    let before = rig.log.len();
    rig.register(1, 1);
    assert_eq!(rig.log.len(), before, "the same process again writes nothing");
    rig.register(1, 2);
    assert_eq!(rig.machine.image().broker(NodeId(1)).unwrap().epoch, 2);
}

#[test]
fn names_are_judged_by_kafkas_rules() {
    let mut rig = Rig::of(&[1]);
    let first = rig.topic("a.b");
    assert!(rig.create_one(first).unwrap().created);
    let mut refused = |name: &str| {
        let topic = rig.topic(name);
        rig.create_one(topic).unwrap_err()
    };
    for name in ["", ".", "..", "a b", "ä", &"x".repeat(250)] {
        assert!(matches!(refused(name), TopicError::IllegalName { .. }), "{name}");
    }
    assert!(matches!(refused("a_b"), TopicError::Collides { .. }));
    assert_eq!(refused("a.b"), TopicError::Exists("a.b".into()));
    assert_eq!(refused("__consumer_offsets"), TopicError::Internal("__consumer_offsets".into()));
    assert_eq!(refused("__catchwater_cuts"), TopicError::Internal("__catchwater_cuts".into()));
}

#[test]
fn one_bad_topic_among_good_ones_fails_alone_and_a_repeated_name_fails_everywhere() {
    let mut rig = Rig::of(&[1]);
    let mut topics: Vec<CreateTopic> = ["good", "twice", "bad", "twice", "x.y", "x_y"].map(|n| rig.topic(n)).into();
    topics[2].configs = vec![("retention.ms".into(), Some("soon".into()))];
    let results = rig.create(topics);
    let told: Vec<_> = results
        .iter()
        .map(|r| match r {
            Ok(made) => format!("{} {}", made.name, made.partitions),
            Err(TopicError::Duplicate(_)) => "twice".into(),
            Err(TopicError::Config(ConfigError::Value { key, .. })) => key.clone(),
            Err(TopicError::Collides { with, .. }) => format!("collides with {with}"),
            Err(other) => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, ["good 1", "twice", "retention.ms", "twice", "x.y 1", "collides with x.y"]);
    let names: Vec<_> = rig.machine.image().topics_by_name().map(|t| t.name.to_string()).collect();
    assert_eq!(names, ["good", "x.y"]);
}

#[test]
fn numbers_and_assignments_are_judged() {
    let mut rig = Rig::of(&[1, 2]);
    let mut refused = |change: &dyn Fn(&mut CreateTopic)| {
        let mut topic = rig.topic("t");
        change(&mut topic);
        rig.create_one(topic).unwrap_err()
    };
    assert_eq!(refused(&|t| t.partitions = Some(0)), TopicError::Partitions { got: 0, max: 10_000 });
    assert_eq!(refused(&|t| t.partitions = Some(10_001)), TopicError::Partitions { got: 10_001, max: 10_000 });
    assert_eq!(refused(&|t| t.replication = Some(0)), TopicError::ReplicationBelowOne(0));
    assert_eq!(refused(&|t| t.replication = Some(3)), TopicError::Replication { wanted: 3, alive: 2 });
    assert_eq!(
        refused(&|t| t.configs = vec![("retention.ms".into(), None)]),
        TopicError::Config(ConfigError::Null("retention.ms".into()))
    );
    let assign = |parts: &[(i32, &[i32])]| parts.iter().map(|(p, n)| (*p, n.to_vec())).collect::<Vec<_>>();
    let both = refused(&|t| (t.assignments, t.partitions) = (assign(&[(0, &[1])]), Some(1)));
    assert!(matches!(both, TopicError::Invalid(_)));
    let bad: [&[(i32, &[i32])]; 6] =
        [&[(0, &[])], &[(0, &[3])], &[(0, &[1, 1])], &[(0, &[1]), (1, &[1, 2])], &[(1, &[1])], &[(0, &[1]), (0, &[2])]];
    for parts in bad {
        assert!(matches!(refused(&|t| t.assignments = assign(parts)), TopicError::Assignment(_)), "{parts:?}");
    }
    let mut topic = rig.topic("t");
    topic.assignments = assign(&[(1, &[1, 2]), (0, &[2, 1])]);
    assert_eq!(rig.create_one(topic).map(|t| (t.partitions, t.replication)), Ok((2, 2)));
    let places = &rig.machine.image().topic_by_name("t").unwrap().partitions;
    let nodes: Vec<Vec<u32>> = places.iter().map(|p| p.replicas.iter().map(|n| n.0).collect()).collect();
    assert_eq!(nodes, [[2, 1], [1, 2]]);
}

#[test]
fn validate_only_changes_nothing_and_groups_are_never_given_twice() {
    let mut rig = Rig::of(&[1]);
    let topic = rig.topic("t");
    let request = Request::CreateTopics { topics: vec![topic.clone()], validate_only: true };
    assert!(matches!(rig.ask(request), Reply::Topics(results) if results[0].is_ok()));
    assert_eq!(rig.machine.image().topics_count(), 0);
    let made = rig.create_one(CreateTopic { partitions: Some(3), ..topic }).unwrap();
    let gids = |rig: &Rig, name: &str| {
        rig.machine.image().topic_by_name(name).unwrap().partitions.iter().map(|p| p.gid.0).collect::<Vec<_>>()
    };
    assert_eq!(gids(&rig, "t"), [1, 2, 3]);
    assert_eq!(rig.delete(vec![WhichTopic::Id(made.id)]), [Ok((made.id, "t".into()))]);
    rig.failover();
    let again = rig.topic("t");
    let again = rig.create_one(again).unwrap();
    assert_ne!(again.id, made.id);
    assert_eq!(gids(&rig, "t"), [4]);
}

fn widen(rig: &mut Rig, name: &str, count: i32, assignments: Option<&[&[i32]]>) -> Result<u32, TopicError> {
    let assignments = assignments.map(|all| all.iter().map(|nodes| nodes.to_vec()).collect());
    let topics = vec![WidenTopic { name: name.into(), count, assignments }];
    match rig.ask(Request::CreatePartitions { topics, validate_only: false }) {
        Reply::Widened(mut results) => results.pop().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_topic_gets_partitions_behind_those_it_has() {
    let mut rig = Rig::of(&[1, 2]);
    let topic = CreateTopic { partitions: Some(2), replication: Some(2), ..rig.topic("t") };
    rig.create_one(topic).unwrap();
    let other = rig.topic("other");
    rig.create_one(other).unwrap();
    let before = rig.machine.image().topic_by_name("t").unwrap().clone();
    assert_eq!(widen(&mut rig, "t", 3, None), Ok(3));
    assert_eq!(widen(&mut rig, "t", 5, Some(&[&[2, 1], &[1, 2]])), Ok(5));
    rig.failover();
    let after = rig.machine.image().topic_by_name("t").unwrap().clone();
    assert_eq!((after.id, &after.partitions[..2]), (before.id, &before.partitions[..]), "what was there stays");
    let gids: Vec<u64> = after.partitions.iter().map(|p| p.gid.0).collect();
    assert_eq!(gids, [1, 2, 4, 5, 6], "group 3 is another topic's");
    assert_eq!(after.partitions[3].replicas, [NodeId(2), NodeId(1)]);
    assert_eq!(after.partitions[2].replicas.len(), 2, "as many as the others");
    // Nothing of these changes anything.
    let digest = rig.machine.digest();
    let more = |rig: &mut Rig, name: &str, count, nodes| widen(rig, name, count, nodes).unwrap_err();
    for count in [5, 4, 0, -1, i32::MIN] {
        assert!(matches!(more(&mut rig, "t", count, None), TopicError::NoIncrease { has: 5, .. }), "{count}");
    }
    assert_eq!(more(&mut rig, "x", 9, None), TopicError::UnknownName("x".into()));
    assert!(matches!(more(&mut rig, "t", 10_001, None), TopicError::Partitions { got: 10_001, .. }));
    assert!(matches!(more(&mut rig, "t", i32::MAX, Some(&[])), TopicError::Partitions { .. }));
    let wrong: [&[&[i32]]; 6] = [&[], &[&[1, 2], &[1, 2]], &[&[]], &[&[1]], &[&[1, 1]], &[&[1, 9]]];
    for nodes in wrong {
        assert!(matches!(more(&mut rig, "t", 6, Some(nodes)), TopicError::Assignment(_)), "{nodes:?}");
    }
    let twice: Vec<WidenTopic> = [6, 7].map(|count| WidenTopic { name: "t".into(), count, assignments: None }).into();
    let Reply::Widened(both) = rig.ask(Request::CreatePartitions { topics: twice, validate_only: false }) else {
        panic!()
    };
    assert_eq!(both, [Err(TopicError::Duplicate("t".into())), Err(TopicError::Duplicate("t".into()))]);
    let trial = vec![WidenTopic { name: "t".into(), count: 6, assignments: None }];
    let Reply::Widened(trial) = rig.ask(Request::CreatePartitions { topics: trial, validate_only: true }) else {
        panic!()
    };
    assert_eq!((trial, rig.machine.digest()), (vec![Ok(6)], digest));
}

#[test]
fn topics_of_captures_and_of_the_node_keep_their_partitions() {
    let mut rig = Rig::of(&[1]);
    let capture = rig.source("pg");
    let owner = Owner::Capture(capture, CaptureEpoch(1));
    let (captured, internal) = (rig.topic("c"), rig.topic("__consumer_offsets"));
    rig.create_one(CreateTopic { owner, ..captured }).unwrap();
    rig.create_one(CreateTopic { internal: true, ..internal }).unwrap();
    assert_eq!(widen(&mut rig, "c", 2, None), Err(TopicError::Captured("c".into())));
    assert_eq!(widen(&mut rig, "__consumer_offsets", 60, None), Err(TopicError::Internal("__consumer_offsets".into())));
}

/// A frame holds a million names. Each of these took minutes while every name was held against every other.
#[test]
fn many_names_in_one_request_are_decided_in_a_moment() {
    let mut rig = Rig::of(&[1]);
    let known = rig.topic("known");
    rig.create_one(known).unwrap();
    let begun = std::time::Instant::now();
    let names = 0..60_000;
    let topics = names.clone().map(|n| CreateTopic::named(format!("not legal {n}"), TopicId([7; 16]))).collect();
    assert!(rig.create(topics).iter().all(|r| matches!(r, Err(TopicError::IllegalName { .. }))));
    let which = names.clone().map(|_| WhichTopic::Name("known".into())).collect();
    assert!(rig.delete(which).iter().all(|r| matches!(r, Err(TopicError::Duplicate(_)))));
    let wide = |n| WidenTopic { name: format!("none {n}"), count: 9, assignments: None };
    let request = Request::CreatePartitions { topics: names.clone().map(wide).collect(), validate_only: false };
    let Reply::Widened(results) = rig.ask(request) else { panic!() };
    assert!(results.iter().all(|r| matches!(r, Err(TopicError::UnknownName(_)))));
    let of = |n| ConfigKey::Topic(format!("none-{n}").as_str().into());
    let changes = names.map(|n| ConfigChange { of: of(n), how: ConfigHow::Steps(Vec::new()) });
    let Reply::Configs(results) = rig.ask(Request::AlterConfigs { changes: changes.collect(), validate_only: false })
    else {
        panic!()
    };
    assert!(results.iter().all(|r| matches!(r, Err(ConfigError::UnknownTopic(_)))));
    assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn deletes_name_what_they_do_not_find() {
    let mut rig = Rig::of(&[1]);
    let mut topic = rig.topic("t");
    topic.configs = vec![("retention.ms".into(), Some("1".into()))];
    let id = rig.create_one(topic).unwrap().id;
    let internal = CreateTopic { internal: true, ..rig.topic("__consumer_offsets") };
    rig.create_one(internal).unwrap();
    let none = TopicId([99; 16]);
    let which = vec![
        WhichTopic::Name("x".into()),
        WhichTopic::Id(none),
        WhichTopic::Name("t".into()),
        WhichTopic::Id(id),
        WhichTopic::Name("__consumer_offsets".into()),
    ];
    let results = rig.delete(which);
    assert_eq!(
        results,
        [
            Err(TopicError::UnknownName("x".into())),
            Err(TopicError::UnknownId(none)),
            Err(TopicError::Duplicate("t".into())),
            Err(TopicError::Duplicate("t".into())),
            Err(TopicError::Internal("__consumer_offsets".into()))
        ]
    );
    assert_eq!(rig.delete(vec![WhichTopic::Name("t".into())]), [Ok((id, "t".into()))]);
    let topic = rig.topic("t");
    rig.create_one(topic).unwrap();
    assert_eq!(rig.machine.image().topic_configs(&"t".into()), None, "settings went with the old topic");
}

#[test]
fn settings_change_as_a_whole_or_step_by_step() {
    let mut rig = Rig::of(&[1]);
    let topic = rig.topic("t");
    rig.create_one(topic).unwrap();
    let of = || ConfigKey::Topic("t".into());
    let mut alter = |how: ConfigHow| {
        let changes = vec![ConfigChange { of: of(), how }];
        let result = match rig.ask(Request::AlterConfigs { changes, validate_only: false }) {
            Reply::Configs(mut results) => results.pop().unwrap(),
            other => panic!("{other:?}"),
        };
        let set = rig.machine.image().configs(&of()).map(|e| format!("{e:?}")).unwrap_or_default();
        (result, set)
    };
    let set = |k: &str, v: &str| (k.to_owned(), ConfigStep::Set(v.into()));
    let replace = |pairs: &[(&str, &str)]| {
        ConfigHow::Replace(pairs.iter().map(|(k, v)| ((*k).to_owned(), Some((*v).to_owned()))).collect())
    };
    assert_eq!(alter(replace(&[("retention.ms", "5")])), (Ok(()), r#"{"retention.ms": "5"}"#.into()));
    let kept = r#"{"cleanup.policy": "delete,compact", "retention.ms": "5"}"#;
    let append = ConfigHow::Steps(vec![("cleanup.policy".into(), ConfigStep::Append("compact".into()))]);
    assert_eq!(alter(append), (Ok(()), kept.into()));
    let bad = ConfigHow::Steps(vec![set("retention.bytes", "7"), set("retention.ms", "x")]);
    assert!(
        matches!(alter(bad), (Err(ConfigError::Value { .. }), set) if set == kept),
        "a failing one changes nothing"
    );
    let twice = ConfigHow::Steps(vec![set("retention.ms", "1"), set("retention.ms", "2")]);
    assert_eq!(alter(twice), (Err(ConfigError::Twice), kept.into()));
    let no_list = ConfigHow::Steps(vec![("retention.ms".into(), ConfigStep::Append("1".into()))]);
    assert_eq!(alter(no_list).0, Err(ConfigError::NotAList { op: "APPEND", key: "retention.ms".into() }));
    let less = ConfigHow::Steps(vec![
        ("cleanup.policy".into(), ConfigStep::Subtract("delete".into())),
        ("retention.ms".into(), ConfigStep::Delete),
    ]);
    assert_eq!(alter(less), (Ok(()), r#"{"cleanup.policy": "compact"}"#.into()));
    assert_eq!(alter(replace(&[])), (Ok(()), String::new()));
}

#[test]
fn a_topic_belongs_to_its_capture_and_older_epochs_are_fenced() {
    let mut rig = Rig::of(&[1]);
    let (mine, other) = (rig.source("pg"), rig.source("my"));
    assert_eq!((mine, other, rig.source("pg")), (CaptureId(1), CaptureId(2), CaptureId(1)));
    let owned = |rig: &mut Rig, name: &str, capture, epoch| {
        let owner = Owner::Capture(capture, CaptureEpoch(epoch));
        let topic = CreateTopic { owner, ..rig.topic(name) };
        rig.create_one(topic)
    };
    assert!(owned(&mut rig, "t", mine, 3).unwrap().created);
    assert!(!owned(&mut rig, "t", mine, 3).unwrap().created, "the same change again gives the same answer");
    assert!(!owned(&mut rig, "t", mine, 4).unwrap().created);
    assert_eq!(owned(&mut rig, "t", mine, 3), Err(TopicError::Fenced { by: CaptureEpoch(4) }));
    assert_eq!(owned(&mut rig, "t", other, 9), Err(TopicError::Owned("t".into())));
    // A topic of nobody is adopted if somebody has seen that it is empty.
    let free = rig.topic("free");
    let id = rig.create_one(free).unwrap().id;
    assert_eq!(owned(&mut rig, "free", mine, 4), Err(TopicError::OfNobody { id, name: "free".into() }));
    let owner = Owner::Capture(mine, CaptureEpoch(4));
    let adopt = CreateTopic { owner, adopt_empty: true, ..rig.topic("free") };
    assert_eq!(rig.create_one(adopt).map(|t| (t.id, t.owner, t.created)), Ok((id, owner, false)));
    // The lease's epoch fences too, also for topics that are not there yet.
    rig.pipeline(put("p", 0, "x", &[("pg", mine)], &[])).unwrap();
    rig.register(1, 2);
    rig.register(1, 3);
    let epoch = rig.tasks_of(1)[0].1;
    assert!(epoch >= 2);
    assert_eq!(owned(&mut rig, "new", mine, epoch - 1), Err(TopicError::Fenced { by: CaptureEpoch(epoch) }));
    assert!(owned(&mut rig, "new", mine, epoch).unwrap().created);
}

#[test]
fn producer_ids_are_given_once() {
    let mut rig = Rig::of(&[1, 2]);
    let mut firsts = BTreeSet::new();
    for node in [1, 2, 1] {
        match rig.ask(Request::ProducerIds { node: NodeId(node) }) {
            Reply::ProducerIds { first, count } => assert!(firsts.insert((first, count))),
            other => panic!("{other:?}"),
        }
        rig.failover();
    }
    assert_eq!(firsts.iter().map(|(f, n)| (f.0, *n)).collect::<Vec<_>>(), [(0, 1000), (1000, 1000), (2000, 1000)]);
}

#[test]
fn pipelines_make_tasks_and_stop_them() {
    let mut rig = Rig::of(&[1]);
    let pg = rig.source("pg");
    assert_eq!(rig.pipeline(put("p", 0, "v1", &[("pg", pg)], &["out", "log"])), Ok(RevisionNo(1)));
    assert_eq!(rig.pipeline(put("p", 0, "v1", &[("pg", pg)], &["out", "log"])), Ok(RevisionNo(1)), "again");
    let stale = PipelineError::StaleBase { base: RevisionNo(0), have: RevisionNo(1) };
    assert_eq!(rig.pipeline(put("p", 0, "v2", &[], &["out"])), Err(stale));
    let taken = PipelineError::CaptureTaken(pg, "p".into());
    assert_eq!(rig.pipeline(put("q", 0, "v1", &[("x", pg)], &[])), Err(taken));
    let unknown = PipelineError::UnknownCapture(CaptureId(77));
    assert_eq!(rig.pipeline(put("q", 0, "v1", &[("x", CaptureId(77))], &[])), Err(unknown));
    assert_eq!(rig.pipeline(put("q", 0, "v1", &[], &["a", "a"])), Err(PipelineError::Twice("a".into())));
    assert_eq!(rig.pipeline(PipelineChange::Pause { name: "none".into() }), Err(PipelineError::Unknown("none".into())));
    assert_eq!(rig.tasks_of(1), [(1, 1, Wish::Run), (2, 1, Wish::Run), (3, 1, Wish::Run)]);
    rig.pipeline(PipelineChange::Pause { name: "p".into() }).unwrap();
    assert_eq!(rig.tasks_of(1), [(1, 1, Wish::Pause), (2, 1, Wish::Pause), (3, 1, Wish::Pause)]);
    // A source begins again while nothing of its pipeline runs, under the same id.
    let again = |name: &str, source: &str| PipelineChange::Again { name: name.into(), source: source.into() };
    let incarnation = |rig: &Rig| rig.machine.image().source(&"pg".into()).map(|s| (s.capture, s.incarnation.0));
    assert_eq!(incarnation(&rig), Some((pg, 1)));
    assert_eq!(rig.pipeline(again("p", "pg")), Ok(RevisionNo(1)));
    assert_eq!(incarnation(&rig), Some((pg, 2)));
    assert_eq!(rig.pipeline(again("p", "out")), Err(PipelineError::NoSource("p".into(), "out".into())));
    assert_eq!(rig.pipeline(again("none", "pg")), Err(PipelineError::Unknown("none".into())));
    rig.pipeline(PipelineChange::Resume { name: "p".into() }).unwrap();
    assert_eq!(rig.pipeline(again("p", "pg")), Err(PipelineError::Runs("p".into())));
    // A node that left the text is stopped, and gone when its worker has drained.
    assert_eq!(rig.pipeline(put("p", 1, "v2", &[("pg", pg)], &["out"])), Ok(RevisionNo(2)));
    assert_eq!(rig.tasks_of(1), [(1, 1, Wish::Run), (2, 1, Wish::Run), (3, 1, Wish::Stop)]);
    rig.ask(Request::Release { node: NodeId(1), task: TaskId(3), epoch: TaskEpoch(1) });
    assert_eq!(rig.tasks_of(1), [(1, 1, Wish::Run), (2, 1, Wish::Run)]);
    // Deleted and made anew: the capture's epochs go on rising, its partitions remember them.
    rig.pipeline(PipelineChange::Delete { name: "p".into() }).unwrap();
    for task in [1, 2] {
        rig.ask(Request::Release { node: NodeId(1), task: TaskId(task), epoch: TaskEpoch(1) });
    }
    assert_eq!(rig.tasks_of(1), []);
    assert_eq!(rig.pipeline(put("p", 0, "v1", &[("pg", pg)], &["out"])), Ok(RevisionNo(3)), "no number twice");
    assert_eq!(rig.tasks_of(1), [(4, 2, Wish::Run), (5, 1, Wish::Run)]);
    let texts: Vec<_> = rig.machine.image().revisions(&"p".into()).map(|(n, r)| (n.0, r.text.clone())).collect();
    assert_eq!(texts, [(1, "v1".into()), (2, "v2".into()), (3, "v1".into())]);
    // The node ends while a stopped task is being cleaned up: its next process cleans up.
    rig.pipeline(PipelineChange::Pause { name: "p".into() }).unwrap();
    rig.pipeline(PipelineChange::Delete { name: "p".into() }).unwrap();
    rig.register(1, 9);
    assert_eq!(rig.tasks_of(1), [(4, 3, Wish::Stop), (5, 2, Wish::Stop)]);
    rig.ask(Request::Release { node: NodeId(1), task: TaskId(4), epoch: TaskEpoch(2) });
    assert_eq!(rig.tasks_of(1).len(), 2, "an older process releases nothing");
    for (task, epoch) in [(4, 3), (5, 2)] {
        rig.ask(Request::Release { node: NodeId(1), task: TaskId(task), epoch: TaskEpoch(epoch) });
    }
    assert_eq!(rig.machine.tasks().iter().count(), 0);
}

#[test]
fn a_hundred_revisions_are_kept_and_none_is_larger_than_the_bound() {
    let mut rig = Rig::of(&[1]);
    for n in 0..130 {
        rig.pipeline(put("p", n, &format!("v{n}"), &[], &["out"])).unwrap();
    }
    let kept: Vec<u64> = rig.machine.image().revisions(&"p".into()).map(|(n, _)| n.0).collect();
    assert_eq!(kept, (31..=130).collect::<Vec<_>>());
    let large = "x".repeat(5 << 20);
    for n in 130..133 {
        rig.pipeline(put("p", n, &format!("{large}{n}"), &[], &["out"])).unwrap();
    }
    let kept: Vec<u64> = rig.machine.image().revisions(&"p".into()).map(|(n, _)| n.0).collect();
    assert_eq!(kept, [133]);
    let newest = rig.machine.image().revision(&"p".into(), RevisionNo(133)).unwrap();
    assert_eq!((newest.author.as_str(), newest.message.as_str(), newest.base_dir.as_str()), ("ann", "why", "/d"));
}

#[test]
fn a_node_waits_for_news_and_gets_them_or_its_time_back() {
    let mut rig = Rig::of(&[1]);
    assert_eq!(rig.mine(1, 0), None, "nothing is new");
    rig.pass(2_999);
    assert!(rig.replies.is_empty());
    rig.pass(1);
    let (_, Reply::Mine(mine)) = rig.replies.pop_first().unwrap() else { panic!() };
    assert_eq!((mine.version, mine.lease_ms, mine.tasks.len()), (TasksVersion(0), 9_000, 0));
    let ticket = rig.send(Request::Mine { node: NodeId(1), roles: role::ALL, seen: TasksVersion(0) });
    rig.pipeline(put("p", 0, "v1", &[], &["out"])).unwrap();
    let mine = rig.mine_of(ticket).expect("told at once");
    assert_eq!(mine.tasks.len(), 1);
    assert_eq!(rig.mine(1, mine.version.0), None);
}

#[test]
fn a_silent_node_loses_its_tasks_to_a_live_one_and_its_reports_are_lost() {
    let mut rig = Rig::of(&[1, 2]);
    rig.pipeline(put("p", 0, "v1", &[], &["a", "b"])).unwrap();
    assert_eq!((rig.tasks_of(1), rig.tasks_of(2)), (vec![(1, 1, Wish::Run)], vec![(2, 1, Wish::Run)]));
    for _ in 0..4 {
        rig.pass(2_500);
        rig.tasks_of(1);
    }
    assert_eq!(rig.tasks_of(1), [(1, 1, Wish::Run), (2, 2, Wish::Run)]);
    let report = |task, epoch| tasks::Report {
        task: TaskId(task),
        epoch: TaskEpoch(epoch),
        state: 2,
        code: 0,
        progress: Bytes::new(),
    };
    let lost = rig.ask(Request::Report { node: NodeId(2), reports: vec![report(2, 1)] });
    assert_eq!(lost, Reply::Lost(vec![TaskId(2)]));
    // Its late release changes nothing.
    rig.ask(Request::Release { node: NodeId(2), task: TaskId(2), epoch: TaskEpoch(1) });
    assert_eq!(rig.tasks_of(1), [(1, 1, Wish::Run), (2, 2, Wish::Run)]);
    let reports = vec![report(1, 1), report(2, 2)];
    assert_eq!(rig.ask(Request::Report { node: NodeId(1), reports: reports.clone() }), Reply::Lost(vec![]));
    let before = rig.log.len();
    rig.ask(Request::Report { node: NodeId(1), reports });
    assert_eq!(rig.log.len(), before, "the same again is not written");
    assert_eq!(rig.machine.tasks().status(TaskId(2)).map(|s| (s.epoch.0, s.state)), Some((2, 2)));
}

#[test]
fn a_restart_of_the_node_raises_the_epoch_of_all_it_held() {
    let mut rig = Rig::of(&[1]);
    let pg = rig.source("pg");
    rig.pipeline(put("p", 0, "v1", &[("pg", pg)], &["out"])).unwrap();
    rig.failover();
    assert_eq!(rig.tasks_of(1), [(1, 1, Wish::Run), (2, 1, Wish::Run)], "a new leader of group 0 moves nothing");
    rig.register(1, 2);
    assert_eq!(rig.tasks_of(1), [(1, 2, Wish::Run), (2, 2, Wish::Run)]);
    // What the old process held paused is not the new one's, until it runs again.
    rig.pipeline(PipelineChange::Pause { name: "p".into() }).unwrap();
    rig.register(1, 3);
    assert_eq!(rig.tasks_of(1), []);
    rig.pipeline(PipelineChange::Resume { name: "p".into() }).unwrap();
    assert_eq!(rig.tasks_of(1), [(1, 3, Wish::Run), (2, 3, Wish::Run)]);
    // Silent beyond its lease, but alone: a task without any node helps nobody.
    rig.pass(60_000);
    assert_eq!(rig.tasks_of(1), [(1, 3, Wish::Run), (2, 3, Wish::Run)]);
    // Released at the end of the process, it is given again.
    rig.ask(Request::Release { node: NodeId(1), task: TaskId(2), epoch: TaskEpoch(3) });
    assert_eq!(rig.tasks_of(1), [(1, 3, Wish::Run), (2, 4, Wish::Run)]);
}

/// Random requests of three nodes: epochs never fall, one holder each, a folded log equals the machine at every step,
/// group ids and capture ids stay unique.
#[test]
fn a_storm_of_requests_keeps_the_rules() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let mut rig = Rig::of(&[1, 2, 3]);
        let captures: Vec<CaptureId> = (0..3).map(|n| rig.source(&format!("s{n}"))).collect();
        let mut epochs: BTreeMap<TaskId, TaskEpoch> = BTreeMap::new();
        let mut capture_epochs: BTreeMap<CaptureId, (TaskEpoch, TaskId)> = BTreeMap::new();
        let mut gids: BTreeMap<u64, TopicId> = BTreeMap::new();
        for _ in 0..150 {
            let n = rng.below(3) as u32;
            let name = format!("p{n}");
            match rng.below(10) {
                0 => {
                    let base = rig.machine.image().pipeline(&name.as_str().into()).map_or(0, |p| p.revision.0);
                    let text = format!("v{}", rng.below(9));
                    let captures: Vec<_> = if rng.chance(700_000) { vec![("c", captures[n as usize])] } else { vec![] };
                    rig.pipeline(put(&name, base, &text, &captures, &["a", "b"][..rng.below(3) as usize])).unwrap();
                }
                1 => drop(rig.pipeline(PipelineChange::Delete { name: name.as_str().into() })),
                2 => drop(rig.pipeline(PipelineChange::Pause { name: name.as_str().into() })),
                3 => drop(rig.pipeline(PipelineChange::Resume { name: name.as_str().into() })),
                4 => rig.register(n + 1, rng.below(4) as u8),
                5 => rig.pass(rng.between(100, 12_000)),
                6 => {
                    let held: Vec<_> =
                        rig.machine.tasks().held_by(NodeId(n + 1)).map(|(id, t)| (id, t.epoch)).collect();
                    if let Some((task, epoch)) = held.first() {
                        rig.ask(Request::Release { node: NodeId(n + 1), task: *task, epoch: *epoch });
                    }
                }
                7 => {
                    let topic = CreateTopic { partitions: Some(2), id: TopicId(rng.bytes16()), ..rig.topic(&name) };
                    drop(rig.create_one(topic));
                }
                8 => drop(rig.delete(vec![WhichTopic::Name(name)])),
                _ => drop(rig.tasks_of(n + 1)),
            }
            for (id, task) in rig.machine.tasks().iter() {
                let known = epochs.entry(id).or_default();
                assert!(task.epoch >= *known, "seed {seed}: the epoch of {id} fell");
                *known = task.epoch;
                if let Kind::Capture(capture) = task.kind {
                    let (epoch, by) = capture_epochs.entry(capture).or_insert((task.epoch, id));
                    assert!(task.epoch >= *epoch, "seed {seed}: {capture} went back from {epoch} of task {by}");
                    (*epoch, *by) = (task.epoch, id);
                }
            }
            for topic in rig.machine.image().topics() {
                for place in &topic.partitions {
                    assert_eq!(*gids.entry(place.gid.0).or_insert(topic.id), topic.id, "seed {seed}: a gid twice");
                }
            }
            if rng.chance(100_000) {
                rig.failover();
            }
        }
        rig.failover();
    }
}
