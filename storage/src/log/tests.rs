#![allow(clippy::unwrap_used)]
mod times;

use super::state::put_section;
use super::*;
use crate::entry::{GroupSpec, Hard, derive_flags};
use crate::fences::STEP;
use crate::format::context::{LogStart, TrimReason};
use bytes::{BufMut, BytesMut};
use catchwater_record::batch::build::Builder;
use catchwater_record::batch::patch;
use catchwater_record::{CommitSeq, PartitionId, TopicId};
use proptest::prelude::*;

const GID: Gid = Gid(9);

pub(super) fn spec() -> GroupSpec {
    GroupSpec {
        topic: TopicId([1; 16]),
        partition: PartitionId(0),
        incarnation: 1,
        conf: Bytes::new(),
        conf_index: EntryIndex::ZERO,
    }
}

pub(super) fn fresh(config: LogConfig) -> Log {
    Log::open_with(RecoveredGroup::fresh(GID, spec()), config).unwrap()
}

fn batch(records: usize, ts: i64, producer: Option<(i64, i16, i32)>) -> BytesMut {
    let mut b = Builder::new();
    if let Some((id, epoch, seq)) = producer {
        b = b.producer(id, epoch, seq);
    }
    for _ in 0..records {
        b.push(ts, None, Some(b"0123456789"), []);
    }
    b.finish()
}

/// Sets attribute bits of a batch: what a transactional producer or its coordinator writes.
fn with_attributes(mut batch: BytesMut, bits: i16) -> BytesMut {
    batch[21..23].copy_from_slice(&bits.to_be_bytes());
    let crc = catchwater_record::crc::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// What ends a transaction.
fn marker(producer: i64, epoch: i16, commits: bool, coordinator_epoch: i32, ts: i64) -> BytesMut {
    let mut b = Builder::new().producer(producer, epoch, -1);
    let key = [0, 0, 0, u8::from(commits)];
    let mut value = vec![0, 0];
    value.extend(coordinator_epoch.to_be_bytes());
    b.push(ts, Some(&key), Some(&value), []);
    with_attributes(b.finish(), TRANSACTIONAL | CONTROL)
}

fn data(log: &Log, term: u32, mut body: BytesMut, context: Bytes) -> NewEntry {
    let base = log.next_offset();
    patch(&mut body, base, LeaderEpoch(term));
    let body = body.freeze();
    let view = BatchView::new(&body).unwrap();
    NewEntry {
        index: log.last_index().next(),
        term: LeaderEpoch(term),
        kind: EntryKind::Data,
        flags: derive_flags(EntryKind::Data, &body, &context),
        base_offset: base,
        count: view.offset_count(),
        max_ts: view.max_timestamp(),
        body: body.clone(),
        context,
    }
}

fn internal(log: &Log, term: u32, kind: EntryKind, context: Bytes) -> NewEntry {
    NewEntry {
        index: log.last_index().next(),
        term: LeaderEpoch(term),
        kind,
        flags: 0,
        base_offset: log.next_offset(),
        count: 0,
        max_ts: -1,
        body: Bytes::new(),
        context,
    }
}

pub(super) fn push(log: &mut Log, term: u32, records: usize, ts: i64) {
    let e = data(log, term, batch(records, ts, None), Bytes::new());
    log.append(vec![e]);
}

fn capture(epoch: u32, prev: u32, first: u32, last: u32) -> CaptureContext {
    let pos = |n: u32| if n == 0 { Position::NONE } else { Position::copy_from(&n.to_be_bytes()).unwrap() };
    CaptureContext {
        capture: CaptureId(1),
        epoch: CaptureEpoch(epoch),
        flags: 0,
        commit_seq: CommitSeq(u64::from(last)),
        prev: pos(prev),
        first: pos(first),
        last: pos(last),
        txn: None,
    }
}

/// A segment writer: gives rows places, `per_segment` to a segment.
pub(super) struct Writer {
    pub(super) per_segment: usize,
    pub(super) placed: Vec<PlacedRow>,
}

impl Writer {
    pub(super) fn place(&mut self, log: &Log, upto: EntryIndex) -> Vec<PlacedRow> {
        self.placed.retain(|p| p.row.index >= log.first_index() && log.term(p.row.index) == Some(p.row.term));
        let from = self.placed.last().map_or(log.first_index(), |p| p.row.index.next());
        let mut new = Vec::new();
        for row in log.rows_from(from).take_while(|r| r.index <= upto) {
            let last = self.placed.last().copied();
            let n = last.map_or(0, |l| self.placed.iter().filter(|p| p.base_index == l.base_index).count());
            // As the product: never rolled without a record.
            let same = last.filter(|l| n < self.per_segment || row.base_offset == l.base_offset);
            let mut row = *row;
            row.pos = same.map_or(0, |l| if l.row.kind == EntryKind::Data { l.row.pos + l.row.len } else { l.row.pos });
            row.max_ts = row.max_ts.max(same.map_or(-1, |l| l.row.max_ts));
            let p = PlacedRow {
                row,
                base_index: same.map_or(row.index, |l| l.base_index),
                base_offset: same.map_or(row.base_offset, |l| l.base_offset),
                generation: 0,
                created_ms: 0,
            };
            self.placed.push(p);
            new.push(p);
        }
        new
    }
}

#[test]
fn reads_come_from_memory_until_bytes_are_in_files() {
    let mut log = fresh(LogConfig { tail_bytes_max: 0, ..LogConfig::default() });
    let noop = internal(&log, 1, EntryKind::Noop, Bytes::new());
    log.append(vec![noop]);
    for i in 0..6 {
        push(&mut log, 1, 2, i);
    }
    let ReadPlan::Tail(all) = log.plan_read(Offset(0), Offset(12), 1 << 20) else { panic!() };
    assert_eq!(all.len(), 6);
    // At least one batch above the limit; the first may begin before the wanted offset.
    let ReadPlan::Tail(one) = log.plan_read(Offset(3), Offset(12), 1) else { panic!() };
    assert_eq!((one.len(), BatchView::new(&one[0]).unwrap().offset()), (1, Offset(2)));
    let placed = Writer { per_segment: 3, placed: vec![] }.place(&log, EntryIndex(5));
    log.segmented(EntryIndex(5), &placed);
    assert_eq!(log.placed_end(), EntryIndex(5));
    let size = all[0].len() as u64;
    let shape = |from| match log.plan_read(Offset(from), Offset(12), 1 << 20) {
        ReadPlan::Files(r) => (r.base_offset.0, r.first, r.rows, r.bytes, r.end.0, r.more),
        other => panic!("{other:?}"),
    };
    assert_eq!(shape(0), (0, 1, 3, 2 * size, 4, true), "the first row is of no batch");
    assert_eq!(shape(3), (0, 2, 3, size, 4, true));
    assert_eq!(shape(4), (4, 0, 2, 2 * size, 8, true));
    let ReadPlan::Tail(rest) = log.plan_read(Offset(8), Offset(12), 1 << 20) else { panic!() };
    assert_eq!(rest.len(), 2);
    assert_eq!(log.plan_read(Offset(12), Offset(12), 1), ReadPlan::Empty);
    assert_eq!(log.plan_read(Offset(10), Offset(10), 1), ReadPlan::Empty);
    assert_eq!(log.plan_read(Offset(13), Offset(12), 1), ReadPlan::OutOfRange);
}

#[test]
fn the_tail_cache_is_bounded_by_its_own_limit_and_by_the_nodes() {
    let one = batch(1, 0, None).len() as u64 + ENTRY_COST;
    let budget = TailBudget::new(10 * one);
    let mut log = fresh(LogConfig { tail_bytes_max: 3 * one, budget: Some(budget.clone()), ..LogConfig::default() });
    let mut writer = Writer { per_segment: 100, placed: vec![] };
    for _ in 0..10 {
        push(&mut log, 1, 1, 0);
    }
    assert_eq!((budget.used_bytes(), log.pinned_bytes()), (0, 10 * one));
    let placed = writer.place(&log, EntryIndex(10));
    log.segmented(EntryIndex(10), &placed);
    assert_eq!((budget.used_bytes(), log.pinned_bytes()), (3 * one, 0));
    assert!(log.cached(EntryIndex(7)).is_none() && log.cached(EntryIndex(8)).is_some());
    // Others fill the node's budget: this log keeps nothing that is in files.
    budget.add(10 * one);
    push(&mut log, 1, 1, 0);
    let placed = writer.place(&log, EntryIndex(11));
    log.segmented(EntryIndex(11), &placed);
    assert_eq!(budget.used_bytes(), 10 * one);
    drop(log);
    assert_eq!(budget.used_bytes(), 10 * one);
}

#[test]
fn truncation_puts_producers_and_captures_back() {
    let mut log = fresh(LogConfig::default());
    let add = |log: &mut Log, seq: i32, c: CaptureContext| {
        let e = data(log, 1, batch(1, 0, Some((4, 0, seq))), c.encode());
        log.append(vec![e]);
    };
    add(&mut log, 0, capture(1, 0, 1, 2));
    add(&mut log, 1, capture(1, 2, 3, 4));
    log.committed(EntryIndex(1));
    log.persisted(EntryIndex(2));
    let known = log.snapshot_payload();
    assert_eq!((known.0, known.1), (EntryIndex(1), Offset(1)));
    add(&mut log, 2, capture(2, 4, 5, 6));
    assert_eq!(log.capture_last(CaptureId(1)).unwrap().0, CaptureEpoch(2));
    assert_eq!(log.snapshot_payload(), known, "a state snapshot knows nothing uncommitted");
    log.truncate(EntryIndex(2));
    let (epoch, position) = log.capture_last(CaptureId(1)).unwrap();
    assert_eq!((epoch, position), (CaptureEpoch(1), capture(1, 0, 1, 2).last));
    let again = batch(1, 0, Some((4, 0, 1)));
    assert_eq!(log.check(&BatchView::new(&again).unwrap(), Some(&capture(1, 2, 3, 4))), Check::New);
    assert_eq!((log.next_offset(), log.uncommitted_bytes()), (Offset(1), 0));
}

#[test]
fn a_duplicate_names_the_entry_to_wait_for() {
    let mut log = fresh(LogConfig::default());
    let e = data(&log, 1, batch(3, 0, Some((4, 0, 0))), Bytes::new());
    log.append(vec![e]);
    let e = data(&log, 1, batch(2, 0, None), capture(1, 0, 1, 2).encode());
    log.append(vec![e]);
    let again = batch(3, 0, Some((4, 0, 0)));
    let want = Check::Duplicate { base: Offset(0), end: Offset(3), index: EntryIndex(1) };
    assert_eq!(log.check(&BatchView::new(&again).unwrap(), None), want);
    let plain = batch(2, 0, None);
    let want = Check::Duplicate { base: Offset(3), end: Offset(5), index: EntryIndex(2) };
    assert_eq!(log.check(&BatchView::new(&plain).unwrap(), Some(&capture(1, 0, 1, 2))), want);
    assert_eq!(
        log.check_fence(Fence { capture: CaptureId(1), epoch: CaptureEpoch(0) }),
        Check::Fenced(CaptureEpoch(1))
    );
}

#[test]
fn the_log_start_moves_when_its_entry_is_committed() {
    let mut log = fresh(LogConfig::default());
    push(&mut log, 1, 5, 0);
    push(&mut log, 1, 5, 0);
    let start = LogStart { offset: Offset(7), reason: TrimReason::DeleteRecords };
    let e = internal(&log, 1, EntryKind::LogStart, start.encode());
    log.append(vec![e]);
    log.committed(EntryIndex(2));
    assert_eq!(log.log_start(), Offset(0));
    log.committed(EntryIndex(3));
    assert_eq!(log.log_start(), Offset(7));
    assert_eq!(log.plan_read(Offset(6), Offset(10), 1 << 20), ReadPlan::OutOfRange);
    assert!(matches!(log.plan_read(Offset(7), Offset(10), 1 << 20), ReadPlan::Tail(b) if b.len() == 1));
}

#[test]
fn segments_below_the_log_start_are_forgotten_and_it_survives_in_the_snapshot() {
    let mut log = fresh(LogConfig::default());
    for term in [1, 1, 2, 2, 3, 3] {
        push(&mut log, term, 1, 0);
    }
    let mut writer = Writer { per_segment: 2, placed: vec![] };
    let placed = writer.place(&log, EntryIndex(6));
    log.segmented(EntryIndex(6), &placed);
    let start = LogStart { offset: Offset(5), reason: TrimReason::Retention };
    let e = internal(&log, 3, EntryKind::LogStart, start.encode());
    log.append(vec![e]);
    log.persisted(EntryIndex(7));
    log.committed(EntryIndex(7));
    assert_eq!((log.log_start(), log.first_index(), log.segments().len()), (Offset(5), EntryIndex(5), 1));
    assert_eq!(
        (log.term(EntryIndex(4)), log.term(EntryIndex(3)), log.row(EntryIndex(4))),
        (Some(LeaderEpoch(2)), None, None)
    );
    assert!(log.cached(EntryIndex(4)).is_none() && log.cached(EntryIndex(5)).is_some());
    assert!(matches!(log.plan_read(Offset(5), Offset(6), 100), ReadPlan::Tail(b) if b.len() == 1));
    assert_eq!(log.plan_read(Offset(4), Offset(6), 100), ReadPlan::OutOfRange);
    push(&mut log, 3, 1, 0);
    log.truncate(EntryIndex(8));
    // The manifest may lag behind: the state snapshot knows.
    let (at, _, payload) = log.snapshot_payload();
    let mut found = RecoveredGroup::fresh(GID, spec());
    found.snap = Some((at, payload));
    assert_eq!(Log::open(found).unwrap().log_start(), Offset(5));
}

/// What is not committed may be cut: a producer whose newest batch it was would have none left, had compaction taken the one
/// before for it.
#[test]
fn compaction_keeps_the_newest_committed_batch_of_a_producer() {
    let mut log = fresh(LogConfig::default());
    for sequence in 0..4 {
        let e = data(&log, 1, batch(1, 0, Some((7, 0, sequence))), Bytes::new());
        log.append(vec![e]);
    }
    let placed = Writer { per_segment: 1, placed: vec![] }.place(&log, EntryIndex(3));
    log.segmented(EntryIndex(3), &placed);
    log.persisted(EntryIndex(4));
    log.committed(EntryIndex(3));
    let policy = crate::compact::Policy {
        dirty_ratio_min: 0.0,
        lag_ms_min: 0,
        lag_ms_max: u64::MAX,
        delete_retention_ms: 1,
        segment_bytes: 1000,
    };
    let (choice, input) = log.plan_compaction(&policy, 1).unwrap();
    assert_eq!((choice.upto, input.producers[&7].last_offset), (2, Some(2)));
    log.committed(EntryIndex(4));
    assert_eq!(log.plan_compaction(&policy, 1).unwrap().1.producers[&7].last_offset, Some(3));
}

/// A follower hears that entries are committed, and with them a log start, before its own journal has them. Its state must
/// not speak of a log that a loss of power takes.
#[test]
fn a_snapshot_tells_no_log_start_beyond_the_entries_it_stands_at() {
    let mut log = fresh(LogConfig::default());
    push(&mut log, 1, 3, 0);
    push(&mut log, 1, 30, 0);
    let start = LogStart { offset: Offset(33), reason: TrimReason::Retention };
    let e = internal(&log, 1, EntryKind::LogStart, start.encode());
    let durable = log.rows_from(EntryIndex(1)).next().and_then(|r| log.cached(r.index)).cloned();
    log.append(vec![e]);
    log.persisted(EntryIndex(1));
    log.committed(EntryIndex(3));
    assert_eq!(log.log_start(), Offset(33));
    let (at, _, payload) = log.snapshot_payload();
    assert_eq!(at, EntryIndex(1));
    let mut found = RecoveredGroup::fresh(GID, spec());
    found.snap = Some((at, payload));
    found.journaled.extend(durable);
    let again = Log::open(found).unwrap();
    assert_eq!((again.next_offset(), again.log_start()), (Offset(3), Offset(3)));
}

/// A log that began behind a prefix snapshot has the log start of its state before it, as soon as it reaches that; state
/// that it writes down on the way there must not forget it, since those entries are not looked at again.
#[test]
fn a_log_start_that_a_prefix_snapshot_told_of_is_in_the_next_snapshot_too() {
    let mut leader = fresh(LogConfig::default());
    for _ in 0..4 {
        push(&mut leader, 1, 1, 0);
    }
    let mut writer = Writer { per_segment: 2, placed: vec![] };
    let placed = writer.place(&leader, EntryIndex(4));
    leader.segmented(EntryIndex(4), &placed);
    for offset in [2, 3] {
        let start = LogStart { offset: Offset(offset), reason: TrimReason::DeleteRecords };
        let e = internal(&leader, 1, EntryKind::LogStart, start.encode());
        leader.append(vec![e]);
    }
    leader.persisted(EntryIndex(6));
    leader.committed(EntryIndex(6));
    assert_eq!((leader.first_index(), leader.log_start()), (EntryIndex(3), Offset(3)));

    let mut follower = fresh(LogConfig::default());
    follower.install(&leader.prefix_snapshot()).unwrap();
    let rest: Vec<NewEntry> = (3..=6).filter_map(|i| leader.cached(EntryIndex(i)).cloned()).collect();
    follower.append(rest.clone());
    let (at, _, payload) = follower.snapshot_payload();
    assert_eq!(at, EntryIndex(6));
    // All of it becomes durable, and the process ends.
    let mut found = RecoveredGroup::fresh(GID, spec());
    (found.first_index, found.prev_term, found.log_start) = (EntryIndex(3), 1, Offset(2));
    found.hard.commit = EntryIndex(6);
    found.snap = Some((at, payload));
    found.journaled = rest;
    assert_eq!(Log::open(found).unwrap().log_start(), Offset(3));
}

/// A segment may end in entries without offsets that are not committed yet, whatever the log start says of its records.
#[test]
fn a_segment_with_an_entry_above_the_commit_is_kept() {
    let mut log = fresh(LogConfig::default());
    push(&mut log, 1, 5, 0);
    let start = LogStart { offset: Offset(5), reason: TrimReason::DeleteRecords };
    let e = internal(&log, 1, EntryKind::LogStart, start.encode());
    log.append(vec![e]);
    let e = internal(&log, 2, EntryKind::Noop, Bytes::new());
    log.append(vec![e]);
    push(&mut log, 2, 5, 0);
    let mut writer = Writer { per_segment: 3, placed: vec![] };
    let placed = writer.place(&log, EntryIndex(4));
    log.segmented(EntryIndex(4), &placed);
    log.persisted(EntryIndex(4));
    log.committed(EntryIndex(2));
    assert_eq!((log.log_start(), log.first_index()), (Offset(5), EntryIndex(1)), "entry 3 is to be committed yet");
    assert!(log.row(EntryIndex(3)).is_some());
    log.committed(EntryIndex(4));
    assert_eq!(log.first_index(), EntryIndex(4));
}

/// A follower far behind is told of the commit before its own flush, and files may be reported before that: the replica
/// applies an entry when it is durable, so until then it is there.
#[test]
fn a_segment_with_an_entry_that_is_not_told_durable_is_kept() {
    let mut log = fresh(LogConfig::default());
    for _ in 0..4 {
        push(&mut log, 1, 1, 0);
    }
    let start = LogStart { offset: Offset(4), reason: TrimReason::Retention };
    let e = internal(&log, 1, EntryKind::LogStart, start.encode());
    log.append(vec![e]);
    log.persisted(EntryIndex(1));
    log.committed(EntryIndex(5));
    let mut writer = Writer { per_segment: 2, placed: vec![] };
    let placed = writer.place(&log, EntryIndex(5));
    log.segmented(EntryIndex(5), &placed);
    assert_eq!((log.log_start(), log.first_index()), (Offset(4), EntryIndex(1)));
    assert!(log.row(EntryIndex(2)).is_some());
    log.persisted(EntryIndex(3));
    assert_eq!(log.first_index(), EntryIndex(3), "the second segment is half durable");
    log.persisted(EntryIndex(5));
    assert_eq!(log.first_index(), EntryIndex(5));
}

#[test]
fn epochs_answer_where_a_term_ends() {
    let mut log = fresh(LogConfig::default());
    push(&mut log, 1, 3, 0);
    let noop = internal(&log, 4, EntryKind::Noop, Bytes::new());
    log.append(vec![noop]);
    push(&mut log, 4, 2, 0);
    let end = |e| log.end_of_epoch(LeaderEpoch(e)).map(|(t, o)| (t.0, o.0));
    assert_eq!(
        (end(0), end(1), end(3), end(4), end(9)),
        (None, Some((1, 3)), Some((1, 3)), Some((4, 5)), Some((4, 5)))
    );
    assert_eq!(log.term(EntryIndex(0)), Some(LeaderEpoch(0)));
    assert_eq!(log.term(EntryIndex(4)), None);
}

#[test]
fn unknown_sections_of_a_snapshot_are_kept() {
    let mut payload = BytesMut::new();
    put_section(&mut payload, 77, |out| out.put_slice(b"later"));
    let mut found = RecoveredGroup::fresh(GID, spec());
    found.snap = Some((EntryIndex(0), payload.freeze()));
    let log = Log::open(found.clone()).unwrap();
    let (_, _, bytes) = log.snapshot_payload();
    assert!(bytes.windows(5).any(|w| w == b"later"));
    found.snap = Some((EntryIndex(3), Bytes::from_static(&[1, 0, 0, 0, 9, 0, 0, 0])));
    assert_eq!(Log::open(found).unwrap_err(), LogOpenError::Snapshot(EntryIndex(3)));
}

/// What a log must agree with: a plain list of entries.
#[derive(Default)]
struct Model {
    entries: Vec<NewEntry>,
    commit: usize,
    persisted: usize,
}

#[derive(Clone, Debug)]
enum Op {
    Data { records: usize, producer: Option<(i64, bool, bool)>, capture: bool, ts: i64 },
    Marker { producer: i64, commits: bool },
    LogStart(u64),
    Noop,
    NewTerm,
    Truncate(usize),
    Commit(usize),
    Persist(usize),
    Place(usize),
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let producer = prop::option::weighted(0.7, (0i64..3, prop::bool::weighted(0.2), any::<bool>()));
    prop_oneof![
        6 => (1usize..4, producer, any::<bool>(), 0i64..50)
            .prop_map(|(records, producer, capture, ts)| Op::Data { records, producer, capture, ts }),
        2 => (0i64..3, any::<bool>()).prop_map(|(producer, commits)| Op::Marker { producer, commits }),
        1 => (0u64..20).prop_map(Op::LogStart),
        1 => Just(Op::Noop),
        1 => Just(Op::NewTerm),
        1 => (0usize..6).prop_map(Op::Truncate),
        2 => (0usize..6).prop_map(Op::Commit),
        2 => (0usize..6).prop_map(Op::Persist),
        2 => (0usize..6).prop_map(Op::Place),
        1 => Just(Op::Reopen),
    ]
}

/// Everything that a log derives from its entries, made anew from the first entry on.
fn replay(entries: &[NewEntry], commit: usize) -> Log {
    let mut log = fresh(LogConfig::default());
    log.append(entries.to_vec());
    log.persisted(EntryIndex(entries.len() as u64));
    log.committed(EntryIndex(commit as u64));
    log
}

/// The oldest transaction that is open at `commit`, told from the list alone.
fn first_unstable(entries: &[NewEntry], commit: usize) -> Option<Offset> {
    let mut open: std::collections::BTreeMap<i64, Offset> = std::collections::BTreeMap::new();
    for e in &entries[..commit] {
        let Ok(b) = BatchView::new(&e.body) else { continue };
        if b.is_control() {
            open.remove(&b.raw_producer_id());
        } else if b.is_transactional() {
            open.entry(b.raw_producer_id()).or_insert(e.base_offset);
        }
    }
    open.into_values().min()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
    #[test]
    fn agrees_with_a_list(ops in prop::collection::vec(op(), 1..60)) {
        let mut log = fresh(LogConfig { tail_bytes_max: 300 + 3 * ENTRY_COST, ..LogConfig::default() });
        let mut model = Model::default();
        let mut writer = Writer { per_segment: 4, placed: vec![] };
        let mut snap: Option<(EntryIndex, Bytes)> = None;
        let mut term = 1;
        for op in ops {
            match op {
                Op::Data { records, producer, capture: with_capture, ts } => {
                    let transactional = producer.is_some_and(|(_, _, t)| t);
                    let producer = producer.map(|(id, bump, _)| {
                        let mut all = model.entries.iter().rev().filter_map(|e| BatchView::new(&e.body).ok())
                            .filter(|b| b.raw_producer_id() == id);
                        let epoch = all.clone().next().map_or(0, |b| b.producer_epoch().0);
                        let known = all.find(|b| !b.is_control()).filter(|b| b.producer_epoch().0 == epoch);
                        match known {
                            Some(b) if !bump => (id, b.producer_epoch().0, b.last_sequence() + 1),
                            Some(b) => (id, b.producer_epoch().0 + 1, 0),
                            None => (id, epoch, 0),
                        }
                    });
                    let context = if with_capture {
                        let (_, known) = log.capture_last(CaptureId(1)).unwrap_or((CaptureEpoch(0), Position::NONE));
                        let n = known.as_bytes().try_into().map_or(0, u32::from_be_bytes);
                        let c = capture(1, n, n + 1, n + 2);
                        prop_assert_eq!(log.check_capture(&c), Check::New);
                        c.encode()
                    } else { Bytes::new() };
                    let mut body = batch(records, ts, producer);
                    if transactional {
                        body = with_attributes(body, TRANSACTIONAL);
                    }
                    prop_assert_eq!(log.check(&BatchView::new(&body).unwrap(), None), Check::New);
                    let e = data(&log, term, body, context);
                    model.entries.push(e.clone());
                    log.append(vec![e]);
                }
                Op::Marker { producer, commits } => {
                    let open = log.producers.get(ProducerId(producer)).and_then(Producer::open_transaction);
                    if open.is_some() {
                        let last = model.entries.iter().rev().filter_map(|e| BatchView::new(&e.body).ok())
                            .find(|b| b.raw_producer_id() == producer).unwrap();
                        let body = marker(producer, last.producer_epoch().0, commits, 3, 9);
                        let e = data(&log, term, body, Bytes::new());
                        model.entries.push(e.clone());
                        log.append(vec![e]);
                    }
                }
                Op::LogStart(back) => {
                    let offset = Offset(log.high_watermark().0.saturating_sub(back));
                    if offset > log.log_start() {
                        let context = LogStart { offset, reason: TrimReason::Retention }.encode();
                        let e = internal(&log, term, EntryKind::LogStart, context);
                        model.entries.push(e.clone());
                        log.append(vec![e]);
                    }
                }
                Op::Noop => {
                    let e = internal(&log, term, EntryKind::Noop, Bytes::new());
                    model.entries.push(e.clone());
                    log.append(vec![e]);
                }
                Op::NewTerm => term += 1,
                Op::Truncate(n) => {
                    let keep = model.entries.len().saturating_sub(n).max(model.commit);
                    if keep < model.entries.len() {
                        term += 1;
                        model.entries.truncate(keep);
                        model.persisted = model.persisted.min(keep);
                        log.truncate(EntryIndex(keep as u64 + 1));
                    }
                }
                Op::Commit(n) => {
                    model.commit = (model.commit + n).min(model.entries.len());
                    log.committed(EntryIndex(model.commit as u64));
                }
                Op::Persist(n) => {
                    model.persisted = (model.persisted + n).min(model.entries.len());
                    log.persisted(EntryIndex(model.persisted as u64));
                }
                Op::Place(n) => {
                    // Only what the journal has.
                    let most = (model.persisted as u64).max(log.placed_end().0);
                    let upto = EntryIndex((log.placed_end().0 + n as u64).min(most));
                    let placed = writer.place(&log, upto);
                    log.segmented(upto, &placed);
                    let (at, _, payload) = log.snapshot_payload();
                    snap = Some((at, payload));
                }
                Op::Reopen => {
                    // Everything was durable. Segments and journal come back, state from the snapshot or the rows.
                    let mut found = RecoveredGroup::fresh(GID, spec());
                    (found.first_index, found.log_start) = (log.first_index(), log.log_start());
                    found.prev_term = log.term(log.first_index().prev()).unwrap().0;
                    found.segments = log.segments().to_vec();
                    found.hard = Hard { term, vote: 0, commit: EntryIndex(model.commit as u64) };
                    let placed = log.placed_end().0 as usize;
                    found.journaled = model.entries[placed..].to_vec();
                    let there = log.first_index().0 as usize - 1..placed;
                    found.since_snap = model.entries[there].iter().map(|e| {
                        let control = BatchView::new(&e.body).is_ok_and(|b| b.is_control());
                        let head = if control { e.body.clone() } else { e.body.slice(..e.body.len().min(61)) };
                        let placed = writer.placed.iter().find(|p| p.row.index == e.index).unwrap();
                        (placed.row, head, e.context.clone())
                    }).collect();
                    found.snap = snap.clone();
                    log = Log::open_with(found, LogConfig { tail_bytes_max: 300 + 3 * ENTRY_COST, ..LogConfig::default() }).unwrap();
                    model.persisted = model.entries.len();
                }
            }
            if log.first_index() > EntryIndex(1) && snap.as_ref().is_none_or(|(at, _)| at.next() < log.first_index()) {
                // What the shell hands over with every trim.
                let (at, _, payload) = log.snapshot_payload();
                snap = Some((at, payload));
            }
            // Rows, offsets, terms.
            prop_assert_eq!(log.last_index().0 as usize, model.entries.len());
            prop_assert_eq!(log.commit().0 as usize, model.commit);
            let end = model.entries.last().map_or(Offset(0), NewEntry::end_offset);
            prop_assert_eq!(log.next_offset(), end);
            for e in model.entries.iter().filter(|e| e.index >= log.first_index()) {
                let Some(row) = log.row(e.index) else {
                    // Fenced: what memory has left of it leads to where it is.
                    prop_assert!(e.index <= log.commit() && e.index <= log.persisted_index());
                    let (base, end) = log.table.around(e.index).unwrap();
                    prop_assert!(base <= e.base_offset && e.end_offset() <= end);
                    let read = log.row_read(e.index, e.index.next(), 0).unwrap();
                    let number = (e.index.0 - read.base_index.0) as u32;
                    prop_assert!(read.first <= number && number < read.rows && (read.rows - read.first) as usize <= STEP);
                    continue;
                };
                prop_assert_eq!((row.term, row.base_offset, row.count, row.kind), (e.term, e.base_offset, e.count, e.kind));
                prop_assert_eq!(log.term(e.index), Some(e.term));
                if e.index > log.placed_end() {
                    prop_assert_eq!(log.cached(e.index), Some(e));
                }
            }
            let above: usize = model.entries[model.commit..].iter().map(|e| e.body.len()).sum();
            prop_assert_eq!(log.uncommitted_bytes() as usize, above);
            // F10: state equals a full replay, of everything and of what a snapshot stands for.
            let whole = replay(&model.entries, model.commit);
            prop_assert_eq!(&log.producers, &whole.producers);
            prop_assert_eq!(&log.captures, &whole.captures);
            prop_assert_eq!(log.log_start(), whole.log_start());
            prop_assert_eq!(&log.transactions, &whole.transactions);
            let unstable = first_unstable(&model.entries, model.commit).unwrap_or(Offset(u64::MAX));
            prop_assert_eq!(log.last_stable_offset(), log.high_watermark().min(unstable));
            let (at, next, payload) = log.snapshot_payload();
            let settled = &model.entries[..at.0 as usize];
            prop_assert_eq!(next, settled.last().map_or(Offset(0), NewEntry::end_offset));
            let mut found = RecoveredGroup::fresh(GID, spec());
            found.snap = Some((at, payload));
            let restored = Log::open(found).unwrap();
            let whole = replay(settled, settled.len());
            prop_assert_eq!(&restored.producers, &whole.producers);
            prop_assert_eq!(&restored.captures, &whole.captures);
            let listed = |log: &Log| log.aborted(log.log_start(), Offset(u64::MAX)).copied().collect::<Vec<_>>();
            let kept: Vec<Aborted> = listed(&whole).into_iter().filter(|a| a.last >= restored.log_start()).collect();
            prop_assert_eq!(listed(&restored), kept);
            // A read from every offset gives the batch that holds it, or the files do.
            for offset in log.log_start().0..end.0 {
                let holder = model.entries.iter().find(|e| e.end_offset().0 > offset).unwrap();
                match log.plan_read(Offset(offset), end, 1) {
                    ReadPlan::Tail(b) => prop_assert_eq!(&b, &vec![holder.body.clone()]),
                    ReadPlan::Files(r) => {
                        let number = (holder.index.0 - r.base_index.0) as u32;
                        prop_assert!(r.first <= number && number < r.rows && r.end >= holder.end_offset());
                        prop_assert!((number - r.first) as usize <= STEP);
                        prop_assert_eq!((r.from, r.upto), (Offset(offset), end));
                    }
                    other => prop_assert!(false, "{:?}", other),
                }
            }
        }
    }
}

#[test]
fn a_reader_of_committed_transactions_stops_at_the_open_one_and_skips_the_aborted() {
    let mut log = fresh(LogConfig::default());
    let put = |log: &mut Log, body: BytesMut| {
        let e = data(log, 1, body, Bytes::new());
        log.append(vec![e]);
        log.persisted(log.last_index());
    };
    let txn = |id, seq| with_attributes(batch(2, 5, Some((id, 0, seq))), TRANSACTIONAL);
    put(&mut log, batch(1, 5, None)); // 0
    put(&mut log, txn(1, 0)); // 1, 2
    put(&mut log, txn(2, 0)); // 3, 4
    put(&mut log, marker(1, 0, false, 7, 5)); // 5
    log.committed(EntryIndex(3));
    assert_eq!(log.last_stable_offset(), Offset(1));
    // Aborted here, but not committed: a leader after this one may not know of it.
    assert_eq!(log.aborted(Offset(0), Offset(99)).count(), 0);
    log.committed(EntryIndex(4));
    assert_eq!(log.last_stable_offset(), Offset(3));
    let row = Aborted { producer: ProducerId(1), first: Offset(1), last: Offset(5), last_stable: Offset(3) };
    assert_eq!(log.aborted(Offset(2), Offset(3)).collect::<Vec<_>>(), [&row]);
    assert_eq!(log.aborted(Offset(0), Offset(1)).count() + log.aborted(Offset(6), Offset(9)).count(), 0);
    put(&mut log, marker(2, 0, true, 7, 5)); // 6
    put(&mut log, txn(1, 2)); // 7, 8
    log.truncate(EntryIndex(5));
    assert_eq!(log.last_stable_offset(), Offset(3));
    put(&mut log, marker(2, 0, true, 8, 5));
    log.committed(log.last_index());
    assert_eq!((log.last_stable_offset(), log.aborted(Offset(0), Offset(99)).count()), (Offset(7), 1));
    assert_eq!(log.check(&BatchView::new(&txn(1, 2)).unwrap(), None), Check::New);
}

#[test]
fn a_nodes_producers_are_counted_over_all_its_logs() {
    let budget = ProducerBudget::new(3);
    let config = || LogConfig { producers: Some(budget.clone()), ..LogConfig::default() };
    let mut a = fresh(config());
    let mut b = fresh(config());
    for id in 0..3 {
        for log in [&mut a, &mut b] {
            let e = data(log, 1, batch(1, 10 * id, Some((id, 0, 0))), Bytes::new());
            log.append(vec![e]);
        }
    }
    assert_eq!((budget.known(), budget.excess()), (6, 3));
    b.truncate(EntryIndex(3));
    assert_eq!(budget.known(), 5);
    let mut idle = Vec::new();
    a.idle_producers(100, 50, &mut idle);
    b.idle_producers(200, 50, &mut idle);
    assert_eq!(idle, [100, 100, 100, 200, 200]);
    // No more than there are too many, however many are as idle.
    assert_eq!((a.evict_producers(100, 2), b.evict_producers(100, 0), budget.excess()), (2, 0, 0));
    drop(a);
    assert_eq!(budget.known(), 2);
}

/// Members change only with several voters, but their entries are trimmed like any other.
#[test]
fn members_that_moved_are_state_that_a_trim_must_not_take_along() {
    let mut log = fresh(LogConfig::default());
    push(&mut log, 1, 1, 5);
    assert!(!log.has_state(), "records tell of themselves");
    let state = Bytes::from_static(b"members");
    log.conf_applied(EntryIndex(1), state.clone());
    assert!(log.has_state());
    // And so after a start with a snapshot of it.
    log.persisted(EntryIndex(1));
    log.committed(EntryIndex(1));
    let (at, _, payload) = log.snapshot_payload();
    let mut found = RecoveredGroup::fresh(GID, spec());
    found.snap = Some((at, payload));
    let again = Log::open(found).unwrap();
    assert!(again.has_state());
    assert_eq!(again.conf().1, &state);
    let mut producer = fresh(LogConfig::default());
    let e = data(&producer, 1, batch(1, 5, Some((7, 0, 0))), Bytes::new());
    producer.append(vec![e]);
    assert!(producer.has_state());
}
