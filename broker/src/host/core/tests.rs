//! The host against a counter machine and a log that commits when the test says so.
#![allow(clippy::unwrap_used)]

use super::*;
use bytes::Bytes;
use catchwater_base::{Decision, Wall};
use catchwater_coordinator::stored::KeyValue;
use catchwater_record::batch::patch;

/// Adds numbers; answers the sum; a `Wait` is answered by the next `Add`.
#[derive(Clone, Default, Debug)]
pub(crate) struct Sum(pub i64);
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Added(pub i64);
#[derive(Debug)]
pub(crate) enum Ask {
    Add(i64),
    Get,
    Wait,
    Wake,
}

impl Stored for Added {
    fn to_stored(&self) -> KeyValue {
        KeyValue { key: Bytes::from_static(b"\0\x01"), value: Some(Bytes::copy_from_slice(&self.0.to_be_bytes())) }
    }
    fn from_stored(key: &[u8], value: Option<&[u8]>) -> Result<Option<Self>, StoredError> {
        if key != b"\0\x01" {
            return Ok(None);
        }
        let bytes = value.and_then(|v| v.try_into().ok()).ok_or(StoredError::Null)?;
        Ok(Some(Added(i64::from_be_bytes(bytes))))
    }
}

impl Replicated for Sum {
    type Record = Added;
    type Request = Ask;
    type Reply = i64;
    type Soft = Vec<Ticket>;
    fn soft(&self, _: Now) -> Vec<Ticket> {
        Vec::new()
    }
    fn decide(&self, soft: &mut Vec<Ticket>, _: Now, ticket: Ticket, request: Ask) -> Decision<Added, i64> {
        match request {
            Ask::Add(n) => {
                let sum = self.0 + n;
                let mut replies = vec![(ticket, sum)];
                replies.extend(soft.drain(..).map(|t| (t, sum)));
                Decision { records: vec![Added(n)], replies }
            }
            Ask::Get => Decision::reply(ticket, self.0),
            Ask::Wait => {
                soft.push(ticket);
                Decision::default()
            }
            Ask::Wake => Decision { records: vec![Added(1000)], replies: vec![(ticket, 0)] },
        }
    }
    fn deadline(&self, soft: &Vec<Ticket>) -> Option<Mono> {
        (!soft.is_empty()).then_some(Mono::from_millis(5))
    }
    fn replay(&mut self, record: &Added) {
        self.0 += record.0;
    }
    fn digest(&self) -> u64 {
        self.0 as u64
    }
}

const EPOCH: LeaderEpoch = LeaderEpoch(1);

/// A log of batches, and what is refused next.
#[derive(Default)]
struct Log {
    batches: Vec<Bytes>,
    end: u64,
    refuse: Option<ProposeError>,
}

impl Log {
    fn propose(&mut self, mut batch: BytesMut) -> Result<Offset, ProposeError> {
        if let Some(why) = self.refuse.take() {
            return Err(why);
        }
        patch(&mut batch, Offset(self.end), EPOCH);
        self.end += BatchView::new(&batch).unwrap().records_count() as u64;
        self.batches.push(batch.freeze());
        Ok(Offset(self.end))
    }
}

struct Rig {
    core: HostCore<Sum>,
    log: Log,
    out: Effects<Effect<Sum>>,
    tickets: u64,
}

impl Rig {
    fn idle() -> Self {
        let core = HostCore::new(Sum::default(), || Ask::Wake);
        Rig { core, log: Log::default(), out: Effects::new(), tickets: 0 }
    }
    fn leading() -> Self {
        let mut rig = Rig::idle();
        rig.lead();
        rig.load(true);
        assert!(rig.effects().contains(&"leading".to_owned()));
        rig
    }
    fn lead(&mut self) {
        self.core.role(Some(EPOCH), Offset::ZERO, &mut self.out);
    }
    fn load(&mut self, whole: bool) {
        self.core.loaded(now(), EPOCH, &self.log.batches, whole, &mut self.out);
    }
    fn ask(&mut self, request: Ask) -> u64 {
        self.tickets += 1;
        let log = &mut self.log;
        self.core.ask(now(), Ticket(self.tickets), request, &mut |b| log.propose(b), &mut self.out);
        self.tickets
    }
    fn commit(&mut self, upto: u64) {
        self.core.committed(Offset(upto), &mut self.out);
    }
    fn effects(&mut self) -> Vec<String> {
        let text = |effect: Effect<Sum>| match effect {
            Effect::Load { from, .. } => format!("load {from}"),
            Effect::Committed { records, end } => format!("committed {records:?} {end}"),
            Effect::Leading => "leading".to_owned(),
            Effect::Reply(ticket, sum) => format!("{}={sum}", ticket.0),
            Effect::Fail(ticket, why) => format!("{} fails: {why}", ticket.0),
        };
        self.out.drain().map(text).collect()
    }
}

fn now() -> Now {
    Now { mono: Mono::ZERO, wall: Wall::from_millis(7) }
}

#[test]
fn replies_errors_and_reads_wait_for_what_they_saw() {
    let mut rig = Rig::leading();
    rig.ask(Ask::Get);
    assert_eq!(rig.effects(), ["1=0"], "nothing is uncommitted: at once");
    rig.ask(Ask::Add(5));
    rig.ask(Ask::Get);
    rig.ask(Ask::Add(2));
    assert_eq!(rig.effects(), [""; 0]);
    rig.commit(1);
    assert_eq!(rig.effects(), ["committed [Added(5)] 1", "2=5", "3=5"]);
    rig.commit(2);
    assert_eq!(rig.effects(), ["committed [Added(2)] 2", "4=7"]);
}

#[test]
fn a_ticket_may_wait_for_a_later_decision() {
    let mut rig = Rig::leading();
    rig.ask(Ask::Wait);
    assert_eq!(rig.core.deadline(), Some(Mono::from_millis(5)));
    rig.ask(Ask::Add(1));
    rig.commit(1);
    assert_eq!(rig.effects(), ["committed [Added(1)] 1", "2=1", "1=1"]);
    assert_eq!(rig.core.deadline(), None);
}

#[test]
fn a_wake_up_writes_and_has_no_reader() {
    let mut rig = Rig::leading();
    let log = &mut rig.log;
    rig.core.wake(now(), &mut |b| log.propose(b), &mut rig.out);
    rig.commit(1);
    assert_eq!(rig.effects(), ["committed [Added(1000)] 1"]);
}

#[test]
fn before_leading_nothing_is_decided() {
    let mut rig = Rig::idle();
    rig.ask(Ask::Get);
    rig.lead();
    rig.ask(Ask::Get);
    assert_eq!(
        rig.effects(),
        ["1 fails: this node does not lead the machine's partition", "load 0", "2 fails: the machine is being loaded"]
    );
}

#[test]
fn lost_leadership_fails_tickets_by_what_is_known_and_replay_finds_the_truth() {
    let mut rig = Rig::leading();
    rig.ask(Ask::Add(5));
    rig.ask(Ask::Wait);
    rig.core.role(None, Offset::ZERO, &mut rig.out);
    assert_eq!(
        rig.effects(),
        ["1 fails: leadership was lost before the commit", "2 fails: this node does not lead the machine's partition"]
    );
    rig.commit(1);
    assert_eq!(rig.effects(), [""; 0]);
    rig.lead();
    rig.load(true);
    assert_eq!(rig.effects(), ["load 0", "committed [Added(5)] 1", "leading"]);
    rig.ask(Ask::Get);
    assert_eq!(rig.effects(), ["3=5"]);
}

#[test]
fn a_refused_batch_reloads_and_waits_for_what_was_accepted_before_it() {
    let mut rig = Rig::leading();
    rig.ask(Ask::Add(5));
    rig.log.refuse = Some(ProposeError::NoRoom);
    rig.ask(Ask::Add(100));
    assert_eq!(
        rig.effects(),
        [
            "2 fails: the log takes no records: no room for the batch (memory budget or disk)",
            "1 fails: leadership was lost before the commit",
            "load 0"
        ]
    );
    // The load finds nothing committed yet; the accepted batch is still under way.
    rig.core.loaded(now(), EPOCH, &[] as &[Bytes], true, &mut rig.out);
    assert_eq!(rig.effects(), [""; 0]);
    assert!(!rig.core.is_leading());
    rig.commit(1);
    assert_eq!(rig.effects(), ["load 0"]);
    rig.load(true);
    assert_eq!(rig.effects(), ["committed [Added(5)] 1", "leading"]);
    rig.ask(Ask::Get);
    assert_eq!(rig.effects(), ["3=5"]);
}

#[test]
fn a_load_may_come_in_parts_and_repeat_itself() {
    let mut rig = Rig::leading();
    for n in 1..=3 {
        rig.ask(Ask::Add(n));
    }
    rig.core.role(None, Offset::ZERO, &mut rig.out);
    rig.effects();
    rig.lead();
    rig.core.loaded(now(), EPOCH, &rig.log.batches[..2], false, &mut rig.out);
    rig.core.loaded(now(), LeaderEpoch(9), &rig.log.batches, true, &mut rig.out);
    rig.core.loaded(now(), EPOCH, &rig.log.batches[1..], true, &mut rig.out);
    assert_eq!(
        rig.effects(),
        ["load 0", "committed [Added(1)] 1", "committed [Added(2)] 2", "committed [Added(3)] 3", "leading"]
    );
    assert_eq!(rig.core.machine().map(|m| m.0), Some(6));
}

#[test]
fn damaged_batches_break_the_host_and_say_so() {
    let mut rig = Rig::idle();
    rig.lead();
    rig.core.loaded(now(), EPOCH, &[Bytes::from_static(b"junk")], true, &mut rig.out);
    rig.ask(Ask::Get);
    assert!(rig.effects().pop().unwrap().contains("cannot be loaded"));
    assert!(rig.core.broken().is_some());
}

#[test]
fn kinds_of_a_newer_release_are_skipped() {
    let mut rig = Rig::idle();
    let mut batch = Builder::new();
    batch.push(1, Some(b"\0\x63"), Some(b"?"), []);
    let added = Added(4).to_stored();
    batch.push(1, Some(&added.key), added.value.as_deref(), []);
    rig.log.propose(batch.finish()).unwrap();
    rig.lead();
    rig.load(true);
    assert_eq!(rig.effects(), ["load 0", "committed [Added(4)] 2", "leading"]);
}

/// Random requests, commits, refusals and elections, in which the uncommitted end of the log may be lost: what was
/// answered is in the log for ever, what was surely refused never is, followers see each record once and in order.
#[test]
fn a_storm_of_elections_keeps_what_was_answered_and_nothing_that_was_refused() {
    for seed in 0..300 {
        let mut rng = catchwater_base::Rng::new(seed);
        let mut rig = Rig::idle();
        let mut committed = 0u64;
        let mut epoch = 1;
        // Ticket → the number it added.
        let mut open: std::collections::BTreeMap<u64, i64> = Default::default();
        let (mut kept, mut never, mut told) = (Vec::new(), Vec::new(), 0u64);
        for step in 1..=200i64 {
            match rng.below(10) {
                0..4 => {
                    if rng.chance(50_000) {
                        rig.log.refuse = Some(ProposeError::NoRoom);
                    }
                    // Each adds a number of its own, so that it can be found in the log.
                    let ticket = rig.ask(Ask::Add(step));
                    rig.log.refuse = None;
                    open.insert(ticket, step);
                }
                4 => drop(open.insert(rig.ask(Ask::Get), 0)),
                5 => drop(open.insert(rig.ask(Ask::Wait), 0)),
                6 | 7 => {
                    // The high watermark moves by whole batches; each batch here holds one record.
                    committed = rng.between(committed, rig.log.end);
                    rig.commit(committed);
                }
                8 => {
                    rig.core.role(None, Offset::ZERO, &mut rig.out);
                    // Another leader may not have the uncommitted end.
                    if rng.chance(500_000) {
                        rig.log.end = rng.between(committed, rig.log.end);
                        rig.log.batches.truncate(rig.log.end as usize);
                    }
                    committed = rig.log.end;
                }
                _ => {
                    epoch += 1;
                    // A new leader's own entry commits everything before it.
                    rig.core.role(None, Offset::ZERO, &mut rig.out);
                    committed = rig.log.end;
                    rig.core.role(Some(LeaderEpoch(epoch)), Offset::ZERO, &mut rig.out);
                }
            }
            let mut loads = true;
            while loads {
                loads = false;
                for effect in rig.out.drain().collect::<Vec<_>>() {
                    match effect {
                        Effect::Load { epoch, from } => {
                            loads = true;
                            let part = &rig.log.batches[from.0 as usize..committed as usize];
                            let half = part.len() / 2;
                            rig.core.loaded(now(), epoch, &part[..half], false, &mut rig.out);
                            rig.core.loaded(now(), epoch, &part[half..], true, &mut rig.out);
                        }
                        Effect::Committed { records, end } => {
                            // After a reload all is told again; what is new continues without a gap.
                            assert!(end.0 <= committed);
                            if end.0 > told {
                                assert_eq!(end.0, told + records.len() as u64, "seed {seed}");
                                told = end.0;
                            }
                        }
                        Effect::Leading => {}
                        Effect::Reply(ticket, sum) => {
                            let added = open.remove(&ticket.0).expect("one answer each");
                            let truth: i64 = sum_of(&rig.log.batches[..committed as usize]);
                            assert!(sum <= truth, "seed {seed}: an answer saw {sum}, committed is {truth}");
                            if added > 0 {
                                kept.push(added);
                            }
                        }
                        Effect::Fail(ticket, why) => {
                            let added = open.remove(&ticket.0).expect("one answer each");
                            if why != HostError::Unknown && added > 0 {
                                never.push(added);
                            }
                        }
                    }
                }
            }
        }
        let log: Vec<i64> = rig.log.batches.iter().map(|b| sum_of(std::slice::from_ref(b))).collect();
        assert!(kept.iter().all(|n| log.contains(n)), "seed {seed}: an answered record is lost");
        assert!(!never.iter().any(|n| log.contains(n)), "seed {seed}: a refused record is there");
    }
}

fn sum_of(batches: &[Bytes]) -> i64 {
    let decoded = batches.iter().map(|b| decode::<Added>(b, Offset::ZERO).unwrap().unwrap().0);
    decoded.flatten().map(|added| added.0).sum()
}
