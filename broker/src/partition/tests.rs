#![allow(clippy::unwrap_used)]
//! The pure core: the test plays journal thread and clients. Waiters are names.

use super::*;
use catchwater_raft::{ConfState, GroupConfig, PeerId};
use catchwater_record::batch::build::Builder;
use catchwater_record::{CommitSeq, EntryIndex, Gid, PartitionId, TopicId};
use catchwater_storage::{GroupSpec, RecoveredGroup};

struct Bed {
    core: PartitionCore<&'static str>,
    out: Vec<Wish<&'static str>>,
    unpersisted: Vec<ReadyNo>,
    told: Vec<String>,
}

impl Bed {
    fn new() -> Bed {
        let peer = PeerId::new(NodeId(1), 1);
        let conf = ConfState::of_voters([peer]).encode();
        let spec = GroupSpec {
            topic: TopicId([1; 16]),
            partition: PartitionId(0),
            incarnation: 1,
            conf,
            conf_index: EntryIndex::ZERO,
        };
        let found = RecoveredGroup::fresh(Gid(1), spec);
        let group = GroupCore::open(&GroupConfig::new(peer), found, 7).unwrap();
        let core = PartitionCore::new(group);
        Bed { core, out: Vec::new(), unpersisted: Vec::new(), told: Vec::new() }
    }

    /// A partition that leads and knows its high watermark.
    fn leading() -> Bed {
        let mut bed = Bed::new();
        bed.event(Event::Start);
        bed.persist_all();
        assert!(bed.core.leads().is_some());
        bed.told.clear();
        bed
    }

    fn event(&mut self, event: Event) {
        let mut out = std::mem::take(&mut self.out);
        self.core.handle(Now::default(), event, &mut out);
        self.out = out;
        self.note();
    }

    fn note(&mut self) {
        for wish in self.out.drain(..) {
            match wish {
                Wish::Persist { ready, .. } => self.unpersisted.push(ready),
                Wish::Done(who, ack) => self.told.push(format!("{who} {}", if ack.is_ok() { "ok" } else { "failed" })),
                Wish::HighWatermark(to) => self.told.push(format!("hw {to}")),
                Wish::Leads(epoch) => self.told.push(format!("leads {}", epoch.is_some())),
                Wish::Settled { .. } => {}
                Wish::Offline(why) => self.told.push(why),
            }
        }
    }

    fn persist_all(&mut self) {
        while !self.unpersisted.is_empty() {
            let ready = self.unpersisted.remove(0);
            self.event(Event::Persisted(ready));
        }
    }

    fn append(
        &mut self,
        who: &'static str,
        batch: &BytesMut,
        capture: Option<&CaptureContext>,
        until: Until,
    ) -> Result<Placed, NotTaken> {
        let judged = self.core.judge(batch, capture, 1, until)?;
        let mut out = std::mem::take(&mut self.out);
        let placed = self.core.enter(Now::default(), judged, (batch.clone(), capture), (until, who), &mut out);
        self.out = out;
        self.note();
        placed
    }

    fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }
}

fn batch(count: usize, producer: Option<(i64, i16, i32)>) -> BytesMut {
    let mut builder = Builder::new();
    if let Some((id, epoch, sequence)) = producer {
        builder = builder.producer(id, epoch, sequence);
    }
    for i in 0..count {
        builder.push(i as i64, None, Some(b"v"), []);
    }
    builder.finish()
}

fn at(base: u64, end: u64) -> Placed {
    Placed { base: Offset(base), end: Offset(end), duplicate: false }
}

#[test]
fn nothing_is_taken_before_the_partition_leads() {
    let mut bed = Bed::new();
    assert_eq!(bed.append("a", &batch(1, None), None, Until::Committed), Err(NotTaken::NotLeader));
    bed.event(Event::Start);
    assert_eq!(bed.core.leads(), None, "the vote is not durable yet");
    bed.persist_all();
    assert_eq!(bed.told(), ["leads true"]);
}

#[test]
fn acks_come_when_the_batch_is_durable_and_not_before() {
    let mut bed = Bed::leading();
    assert_eq!(bed.append("all", &batch(2, None), None, Until::Committed), Ok(at(0, 2)));
    assert_eq!(bed.append("one", &batch(3, None), None, Until::Durable), Ok(at(2, 5)));
    assert_eq!(bed.append("none", &batch(1, None), None, Until::Proposed), Ok(at(5, 6)));
    assert_eq!(bed.told(), Vec::<String>::new());
    let ends = bed.core.ends();
    assert_eq!((ends.high_watermark, ends.spec_end), (Offset(0), Offset(6)));
    bed.persist_all();
    let mut told = bed.told();
    told.retain(|t| !t.starts_with("hw"));
    told.sort();
    assert_eq!(told, ["all ok", "one ok"]);
    assert_eq!(bed.core.ends().high_watermark, Offset(6));
}

#[test]
fn a_repeat_is_acknowledged_with_the_original_only_when_that_is_committed() {
    let mut bed = Bed::leading();
    let first = batch(2, Some((9, 0, 0)));
    assert_eq!(bed.append("first", &first, None, Until::Committed), Ok(at(0, 2)));
    let again = bed.append("again", &first, None, Until::Committed);
    assert_eq!(again, Ok(Placed { duplicate: true, ..at(0, 2) }));
    assert!(bed.told().is_empty());
    bed.persist_all();
    let mut told = bed.told();
    told.retain(|t| !t.starts_with("hw"));
    assert_eq!(told, ["first ok", "again ok"]);
    assert_eq!(bed.append("late", &first, None, Until::Committed), Ok(Placed { duplicate: true, ..at(0, 2) }));
    assert_eq!(bed.told(), ["late ok"]);
    assert_eq!(bed.core.ends().spec_end, Offset(2));
    let gap = bed.append("gap", &batch(1, Some((9, 0, 5))), None, Until::Committed);
    assert_eq!(gap, Err(NotTaken::OutOfOrderSequence));
}

#[test]
fn readers_end_at_the_high_watermark_and_get_whole_batches() {
    let mut bed = Bed::leading();
    bed.append("a", &batch(4, None), None, Until::Committed).unwrap();
    let ask = |from| Ask {
        from: Offset(from),
        max_bytes: 1 << 20,
        current_epoch: -1,
        last_fetched_epoch: -1,
        committed_only: false,
    };
    assert_eq!(bed.core.look(&ask(0)).unwrap().plan, ReadPlan::Empty, "between watermark and end one parks");
    assert_eq!(bed.core.look(&ask(5)).unwrap_err(), FetchError::OutOfRange);
    bed.persist_all();
    let look = bed.core.look(&ask(2)).unwrap();
    let ReadPlan::Tail(batches) = look.plan else { panic!("the newest batch is in memory") };
    assert_eq!(BatchView::new(&batches[0]).unwrap().base_offset(), 0, "an offset inside a batch gets the whole");
    let term = look.ends.epoch.0 as i32;
    let fenced = bed.core.look(&Ask { current_epoch: term - 1, ..ask(0) });
    assert_eq!(fenced.unwrap_err(), FetchError::FencedEpoch);
    let unknown = bed.core.look(&Ask { current_epoch: term + 1, ..ask(0) });
    assert_eq!(unknown.unwrap_err(), FetchError::UnknownEpoch);
    let diverging = bed.core.look(&Ask { last_fetched_epoch: term + 3, ..ask(4) }).unwrap().diverging;
    assert_eq!(diverging, Some((LeaderEpoch(term as u32), Offset(4))));
}

#[test]
fn captures_are_fenced_split_and_told_of_gaps() {
    let mut bed = Bed::leading();
    let position = |n: u8| Position::copy_from(&[n]).unwrap();
    let context = |epoch, prev: Position, first, last| CaptureContext {
        capture: CaptureId(3),
        epoch: CaptureEpoch(epoch),
        flags: 0,
        commit_seq: CommitSeq(1),
        prev,
        first: position(first),
        last: position(last),
        txn: None,
    };
    let mut go = |context: CaptureContext| bed.append("c", &batch(1, None), Some(&context), Until::Committed);
    assert_eq!(go(context(1, Position::NONE, 1, 3)), Ok(at(0, 1)));
    assert_eq!(go(context(1, Position::NONE, 1, 3)), Ok(Placed { duplicate: true, ..at(0, 1) }));
    assert_eq!(go(context(1, position(3), 2, 5)), Err(NotTaken::Partly(position(3))));
    assert_eq!(go(context(1, position(4), 5, 6)), Err(NotTaken::Gap(position(3))));
    let mut out = Vec::new();
    bed.core.fence(Now::default(), CaptureId(3), CaptureEpoch(2), "f", &mut out).unwrap();
    bed.out = out;
    bed.note();
    let zombie = bed.append("c", &batch(1, None), Some(&context(1, position(3), 4, 5)), Until::Committed);
    assert_eq!(zombie, Err(NotTaken::Fenced(CaptureEpoch(2))));
    let mut out = Vec::new();
    let older = bed.core.fence(Now::default(), CaptureId(3), CaptureEpoch(1), "o", &mut out);
    assert_eq!(older, Err(NotTaken::Fenced(CaptureEpoch(2))));
    bed.persist_all();
    assert!(bed.told().contains(&"f ok".to_owned()));
    assert_eq!(bed.core.ends().spec_end, Offset(1), "a fence takes no offset");
}

#[test]
fn lost_leadership_and_closing_fail_who_waits() {
    let mut bed = Bed::leading();
    bed.append("a", &batch(1, None), None, Until::Committed).unwrap();
    bed.event(Event::StepDown);
    let told = bed.told();
    assert!(told.contains(&"a failed".to_owned()) && told.contains(&"leads false".to_owned()), "{told:?}");
    let mut bed = Bed::leading();
    bed.append("b", &batch(1, None), None, Until::Durable).unwrap();
    let mut out = Vec::new();
    bed.core.close(AckError::Storage, &mut out);
    bed.out = out;
    bed.note();
    assert_eq!(bed.told(), ["b failed", "leads false"]);
    assert_eq!(bed.append("c", &batch(1, None), None, Until::Durable), Err(NotTaken::Storage));
}

/// A batch of a transaction, or (`Err(commits)`) the marker that ends it.
fn transactional(producer: i64, what: Result<i32, bool>) -> BytesMut {
    use catchwater_record::batch::{ATTR_CONTROL, ATTR_TRANSACTIONAL};
    let mut builder = Builder::new().producer(producer, 0, what.unwrap_or(-1));
    let attributes = match what {
        Ok(_) => {
            builder.push(1, Some(b"k"), Some(b"v"), []);
            ATTR_TRANSACTIONAL
        }
        Err(commits) => {
            builder.push(1, Some(&[0, 0, 0, u8::from(commits)]), Some(&[0; 6]), []);
            ATTR_TRANSACTIONAL | ATTR_CONTROL
        }
    };
    let mut bytes = builder.finish();
    bytes[21..23].copy_from_slice(&attributes.to_be_bytes());
    let crc = catchwater_record::crc::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

#[test]
fn a_committed_reader_stops_at_the_oldest_open_transaction_and_is_told_what_was_aborted() {
    let mut bed = Bed::leading();
    let give = |bed: &mut Bed, batch: BytesMut| {
        bed.append("w", &batch, None, Until::Committed).unwrap();
        bed.persist_all();
    };
    // Offset, last offset given, aborted transactions told.
    let read = |bed: &Bed, from: u64, committed_only: bool, max_bytes: u32| {
        let ask = Ask { from: Offset(from), max_bytes, current_epoch: -1, last_fetched_epoch: -1, committed_only };
        let look = bed.core.look(&ask).unwrap();
        let ReadPlan::Tail(batches) = &look.plan else { return (look.ends.lso.0, None, Vec::new()) };
        let last = BatchView::new(batches.last().unwrap()).unwrap().offset().0;
        (look.ends.lso.0, Some(last), look.aborted.iter().map(|a| (a.producer.0, a.first.0)).collect::<Vec<_>>())
    };
    give(&mut bed, batch(1, None));
    give(&mut bed, transactional(7, Ok(0)));
    give(&mut bed, transactional(8, Ok(0)));
    give(&mut bed, batch(1, None));
    assert_eq!(read(&bed, 0, true, 1 << 20), (1, Some(0), vec![]));
    assert_eq!(read(&bed, 0, false, 1 << 20), (1, Some(3), vec![]));
    assert_eq!(read(&bed, 1, true, 1 << 20), (1, None, vec![]), "nothing, until 7 has ended");
    // The marker of 7 moves the last stable offset only once it is committed.
    bed.append("m", &transactional(7, Err(false)), None, Until::Committed).unwrap();
    assert_eq!(read(&bed, 0, true, 1 << 20).0, 1);
    bed.persist_all();
    assert_eq!(read(&bed, 0, true, 1 << 20), (2, Some(1), vec![(7, 1)]));
    give(&mut bed, transactional(8, Err(true)));
    give(&mut bed, transactional(7, Ok(1)));
    give(&mut bed, transactional(7, Err(false)));
    assert_eq!(read(&bed, 0, true, 1 << 20), (8, Some(7), vec![(7, 1), (7, 6)]));
    assert_eq!(read(&bed, 5, true, 1 << 20), (8, Some(7), vec![(7, 6)]), "the first one ended before");
    assert_eq!(read(&bed, 0, true, 1), (8, Some(0), vec![]), "none that begins behind what is given");
    assert_eq!(read(&bed, 1, true, 1), (8, Some(1), vec![(7, 1)]));
    assert_eq!(read(&bed, 0, false, 1 << 20), (8, Some(7), vec![]), "the other reader is told of none");
}
