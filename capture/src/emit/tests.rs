#![allow(clippy::unwrap_used)]

use super::*;
use crate::track::Mark;
use catchwater_change::{Cell, Op, Row, SnapshotMark, SourceInfo, Value};
use catchwater_record::TopicId;
use catchwater_record::batch::HEADER_BYTES;
use std::sync::Arc;

const AT: TopicPartition = TopicPartition::new(TopicId([1; 16]), 0);

struct Bench {
    emitter: Emitter,
    track: Track,
    now: Now,
}

fn bench(limits: Limits) -> Bench {
    let encoder = Encoder::new("postgresql", "pg");
    let mut emitter = Emitter::new(encoder, CaptureId(1), CaptureEpoch(1), Incarnation(1), limits);
    emitter.lane(AT, Position::NONE, Offset(0), Offset(0));
    let at = Mark { seq: CommitSeq(0), native: Native::default(), commit_time: Wall::default() };
    Bench { emitter, track: Track::new(at), now: Now { mono: Mono::from_millis(1), wall: Wall::from_millis(1) } }
}

impl Bench {
    /// One transaction of `rows` inserts.
    fn unit(&mut self, seq: u64, rows: u64) {
        let mut table = crate::tables::tests::table("s", "t");
        table.topic = AT.topic;
        let table = Arc::new(table);
        let native = Native::postgres(seq * 10);
        let unit = Unit {
            seq: CommitSeq(seq),
            native: Some(native.clone()),
            txn: TxnId(Bytes::from(seq.to_string())),
            commit_time: Wall::default(),
            flags: 0,
        };
        for i in 0..rows {
            let change = RowChange {
                table: table.clone(),
                op: Op::Create,
                before: None,
                after: Some(Row { cells: vec![Cell::Value(Value::Int((seq * 100 + i) as i64))] }),
                snapshot: SnapshotMark::No,
                info: SourceInfo::None,
            };
            let place = Place { ordinal: i, last: i + 1 == rows };
            self.emitter.put(self.now, &unit, place, &change, 1, None, &mut self.track, &mut 0, None).unwrap();
        }
        self.track.completed(Mark { seq: CommitSeq(seq), native, commit_time: Wall::default() });
    }
    fn send(&mut self) -> Vec<Outgoing> {
        self.emitter.take_outgoing(self.now.mono, false)
    }
    fn answer(&mut self, id: BatchId, outcome: AppendOutcome) -> Answer {
        self.emitter.answered(AT, id, outcome, self.now.mono, &mut self.track)
    }
}

fn context(out: &Outgoing) -> CaptureContext {
    match &out.how.context {
        Context::Capture(c) => c.clone(),
        Context::None => panic!("rows always have a context"),
    }
}

fn versions(batch: &Bytes) -> Vec<(u64, u64)> {
    let view = BatchView::new(batch).unwrap();
    view.check_crc().unwrap();
    let section = compress::section(&view, usize::MAX).unwrap();
    iterate::records(&section, view.records_count() as u32)
        .map(|r| Stamp::decode(r.unwrap().header(STAMP_HEADER).unwrap().unwrap()).unwrap().version)
        .map(|v| (v.commit_seq.0, v.ordinal))
        .collect()
}

fn entered(end: u64) -> AppendOutcome {
    AppendOutcome::Appended { offset: Offset(0), end: Offset(end) }
}

#[test]
fn a_lone_commit_goes_at_once_and_the_next_ones_gather_behind_it() {
    let mut b = bench(Limits::default());
    b.unit(1, 1);
    let first = b.send();
    assert_eq!(first.len(), 1);
    assert!(context(&first[0]).prev.is_none());
    assert_eq!(context(&first[0]).flags, capture_flag::ENDS);
    b.unit(2, 1);
    b.unit(3, 1);
    assert!(b.send().is_empty(), "something is in flight and nothing is full");
    assert_eq!(b.answer(first[0].id, entered(1)), Answer::Fine);
    assert_eq!(b.track.durable().seq, CommitSeq(1));
    let second = b.send();
    assert_eq!(versions(&second[0].batch), [(2, 0), (3, 0)]);
    assert_eq!(context(&second[0]).prev, context(&first[0]).last);
    b.answer(second[0].id, entered(3));
    assert_eq!((b.track.durable().seq, b.emitter.bytes()), (CommitSeq(3), 0));
}

#[test]
fn batches_are_bounded_and_at_most_so_many_are_in_flight() {
    let mut b = bench(Limits { batch_records: 2, in_flight: 3, ..Limits::default() });
    b.unit(1, 11);
    let out = b.send();
    assert_eq!(out.len(), 3);
    for pair in out.windows(2) {
        assert_eq!(context(&pair[1]).prev, context(&pair[0]).last, "each names the one before");
    }
    assert!(b.send().is_empty());
    b.answer(out[0].id, entered(2));
    assert_eq!(b.send().len(), 1);
}

#[test]
fn sealed_batches_are_compressed_also_what_is_left_of_one() {
    let mut plain = 0;
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut b = bench(Limits { batch_records: 50, compression: codec, ..Limits::default() });
        b.unit(1, 100);
        let out = b.send();
        assert_eq!(out.len(), 2);
        for one in &out {
            assert_eq!(BatchView::new(&one.batch).unwrap().codec(), Some(codec));
        }
        let bodies: usize = out.iter().map(|o| o.batch.len() - HEADER_BYTES).sum();
        assert_eq!(b.emitter.bytes(), bodies, "what waits is what it takes now");
        match codec {
            Codec::None => plain = bodies,
            _ => assert!(bodies < plain / 3, "{codec:?}: {bodies} of {plain}"),
        }
        // A part of the first entered: the rest goes as a batch of its own.
        let known = Version { incarnation: Incarnation(1), commit_seq: CommitSeq(1), ordinal: 20 }
            .position(&Native::postgres(10));
        assert_eq!(b.answer(out[0].id, AppendOutcome::Unknown), Answer::Stuck);
        assert_eq!(b.answer(out[1].id, AppendOutcome::Gap { known: known.clone() }), Answer::Stuck);
        b.emitter.rewound(AT, known, Offset(21), &mut b.track);
        let again = b.send();
        assert_eq!(BatchView::new(&again[0].batch).unwrap().codec(), Some(codec));
        let all: Vec<_> = again.iter().flat_map(|o| versions(&o.batch)).collect();
        assert_eq!(all, (21..100).map(|i| (1, i)).collect::<Vec<_>>());
        for one in &again {
            b.answer(one.id, entered(100));
        }
        assert_eq!(b.emitter.bytes(), 0);
    }
}

/// A batch that would grow is left as it is.
#[test]
fn what_does_not_become_smaller_stays() {
    let noise: Vec<u8> = (0..200u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut builder = Builder::new();
    builder.push(1, None, Some(&noise), []);
    let batch = builder.finish().freeze();
    assert_eq!(compressed(batch.clone(), Codec::Lz4), batch);
}

#[test]
fn after_a_lost_append_the_lane_goes_on_from_what_the_log_names() {
    let mut b = bench(Limits { batch_records: 2, ..Limits::default() });
    b.unit(1, 8);
    let out = b.send();
    assert_eq!(out.len(), 4);
    // The first entered without an answer, the second was refused, so the others are gaps.
    let known = context(&out[0]).last;
    assert_eq!(b.answer(out[0].id, AppendOutcome::Unknown), Answer::Stuck);
    assert_eq!(b.answer(out[1].id, AppendOutcome::NotWritten(Why::NoLeader)), Answer::Stuck);
    b.answer(out[2].id, AppendOutcome::Gap { known: known.clone() });
    assert!(b.emitter.stuck(b.now.mono).is_empty(), "an answer is still out");
    assert!(b.send().is_empty());
    b.answer(out[3].id, AppendOutcome::Gap { known: known.clone() });
    assert_eq!(b.emitter.stuck(b.now.mono), [AT]);
    b.emitter.rewound(AT, known.clone(), Offset(2), &mut b.track);
    let again = b.send();
    assert_eq!(
        again.iter().map(|o| versions(&o.batch)).collect::<Vec<_>>().concat(),
        [(1, 2), (1, 3), (1, 4), (1, 5), (1, 6), (1, 7)]
    );
    assert_eq!(context(&again[0]).prev, known);
    for o in &again {
        b.answer(o.id, entered(9));
    }
    assert_eq!((b.track.durable().seq, b.emitter.bytes()), (CommitSeq(1), 0));
}

#[test]
fn a_batch_that_is_there_in_part_is_cut() {
    let mut b = bench(Limits::default());
    b.unit(1, 4);
    let out = b.send();
    let middle =
        Version { incarnation: Incarnation(1), commit_seq: CommitSeq(1), ordinal: 1 }.position(&Native::postgres(10));
    b.answer(out[0].id, AppendOutcome::Partly { known: middle.clone() });
    b.emitter.rewound(AT, middle.clone(), Offset(2), &mut b.track);
    let rest = b.send();
    assert_eq!(versions(&rest[0].batch), [(1, 2), (1, 3)]);
    assert_eq!(context(&rest[0]).prev, middle);
    assert!(context(&rest[0]).first > middle);
    b.answer(rest[0].id, entered(4));
    assert_eq!(b.emitter.bytes(), 0);
}

#[test]
fn records_at_or_below_the_tail_are_not_made_again() {
    let mut b = bench(Limits::default());
    let tail =
        Version { incarnation: Incarnation(1), commit_seq: CommitSeq(2), ordinal: 0 }.position(&Native::postgres(20));
    b.emitter = Emitter::new(
        Encoder::new("postgresql", "pg"),
        CaptureId(1),
        CaptureEpoch(2),
        Incarnation(1),
        Limits::default(),
    );
    b.emitter.lane(AT, tail.clone(), Offset(5), Offset(3));
    b.unit(1, 2);
    b.unit(2, 2);
    let out = b.send();
    assert_eq!(versions(&out[0].batch), [(2, 1)]);
    assert_eq!(context(&out[0]).prev, tail);
    // A checkpoint of unit 1 must let a restart see what is above it.
    assert_eq!(b.emitter.safe_ends(CommitSeq(1)), [(AT, Offset(3))]);
    b.answer(out[0].id, entered(6));
    assert_eq!(b.emitter.safe_ends(CommitSeq(2)), [(AT, Offset(6))]);
}

#[test]
fn the_last_record_says_how_many_there_were() {
    let mut b = bench(Limits::default());
    b.unit(1, 3);
    let out = b.send();
    let view = BatchView::new(&out[0].batch).unwrap();
    let stamps: Vec<Stamp> = iterate::records(view.records(), 3)
        .map(|r| Stamp::decode(r.unwrap().header(STAMP_HEADER).unwrap().unwrap()).unwrap())
        .collect();
    let seen: Vec<(u16, u32)> = stamps.iter().map(|s| (s.flags & (flag::FIRST | flag::LAST), s.total)).collect();
    assert_eq!(seen, [(flag::FIRST, 0), (0, 0), (flag::LAST, 3)]);
    assert_eq!(stamps[0].txn, Some(TxnId(Bytes::from_static(b"1"))));
}
