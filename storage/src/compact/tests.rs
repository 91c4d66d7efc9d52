//! Compaction against an oracle map, through journal, segments and recovery on a disk in memory; and a power cut after
//! every single operation of a run and its switch.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::compact_run::{CompactRun, Job, Progress, Stats};
use crate::dir::{Dir, DirConfig, DirEffect, DirEvent};
use crate::disk::memory::{Cut, MemoryDisk};
use crate::disk::{Disk, DiskDone, DiskError, DiskExt, DiskFault, DiskOp};
use crate::entry::{EntryKind, FileRead, GroupSpec, Hard, NewEntry, Verdict, derive_flags};
use crate::format::row;
use crate::format::slot::BootState;
use crate::journal::JournalBatch;
use crate::log::{Log, ReadPlan};
use crate::read::{read_batches, read_rows};
use crate::recover::{Layout, NewIdentity, recover, settle, write_boot_state};
use crate::segment::{SegmentLimits, group_dir};
use bytes::Bytes;
use catchwater_base::{Effects, Local, Mono, Now, Rng, Wall};
use catchwater_record::batch::build::Builder;
use catchwater_record::batch::iterate::records;
use catchwater_record::batch::{ATTR_CONTROL, ATTR_TRANSACTIONAL, Codec, patch};
use catchwater_record::compress::{SnappyFraming, compress_batch, section};
use catchwater_record::{Gid, LeaderEpoch, PartitionId, TopicId};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

mod aborted;
mod captured;
mod state;
mod table;
mod traps;

const GID: Gid = Gid(1);
const NEW: NewIdentity = NewIdentity { cluster_id: [1; 16], dir_id: [2; 16], node: 1 };

/// Lets so many operations through, then fails.
struct Counted {
    disk: MemoryDisk,
    left: AtomicI64,
}

impl Disk for Counted {
    fn run(&self, op: DiskOp) -> Result<DiskDone, DiskError> {
        if self.left.fetch_sub(1, Ordering::Relaxed) <= 0 {
            return Err(DiskError { op: "run", path: op.path().clone(), kind: DiskFault::Io });
        }
        self.disk.run(op)
    }
}

/// A record that came back: offset, timestamp, key, value.
type Got = (u64, i64, Vec<u8>, Option<Vec<u8>>);

struct Rig {
    disk: Arc<Counted>,
    layout: Layout,
    dir: Dir,
    log: Log,
    out: Effects<DirEffect>,
    boot: (u64, crate::format::slot::Side),
    ms: i64,
    tag: u64,
    switched: Option<bool>,
    dead: bool,
    /// Every record that was written, with the offset of the batch it came in.
    written: Vec<Got>,
}

impl Rig {
    fn new(segment_bytes: u32) -> Rig {
        Rig::on(MemoryDisk::new(), segment_bytes, true)
    }

    fn on(disk: MemoryDisk, segment_bytes: u32, fresh: bool) -> Rig {
        let disk = Arc::new(Counted { disk, left: AtomicI64::new(i64::MAX) });
        if fresh {
            disk.mkdir("/data").unwrap();
            disk.sync_dir("/").unwrap();
        }
        let layout = Layout::new("/data/log".to_owned());
        let found = recover(&*disk, &layout, NEW).unwrap();
        let boot = found.boot;
        let group = found.groups.iter().find(|(g, _)| g.gid == GID).map(|(g, _)| g.clone());
        settle(&*disk, &layout, &found.leftovers, &found.journal.free).unwrap();
        let config = DirConfig { segment_bytes, rows_max: 1_000, write_bytes_max: 300, ..DirConfig::tiny() };
        let now = Now { mono: Mono::ZERO, wall: Wall::from_millis(1_000) };
        let dir = Dir::open(&layout, &config, found, now);
        let spec = GroupSpec {
            topic: TopicId([7; 16]),
            partition: PartitionId(0),
            incarnation: 1,
            conf: Bytes::new(),
            conf_index: EntryIndex::ZERO,
        };
        let (log, create) = match group {
            Some(group) => {
                assert_eq!(group.verdict, Verdict::Ok);
                (Log::open(group).unwrap(), None)
            }
            None => (Log::open(crate::entry::RecoveredGroup::fresh(GID, spec.clone())).unwrap(), Some(spec)),
        };
        let mut rig = Rig {
            disk,
            layout,
            dir,
            log,
            out: Effects::new(),
            boot,
            ms: 1_000,
            tag: 0,
            switched: None,
            dead: false,
            written: Vec::new(),
        };
        rig.mark(false, 0);
        rig.tell(DirEvent::Wake);
        // A sole voter finds everything it has committed.
        let last = rig.log.last_index();
        rig.log.committed(last);
        rig.tell(DirEvent::Committed(GID, last));
        rig.tell(DirEvent::Wake);
        if let Some(spec) = create {
            rig.tell(DirEvent::Create(GID, spec));
            let hard = Some(Hard { term: 1, vote: 1, commit: EntryIndex(0) });
            rig.submit(Vec::new(), hard);
        }
        rig
    }

    fn now(&self) -> Now {
        Now { mono: Mono::from_millis(self.ms.unsigned_abs()), wall: Wall::from_millis(self.ms) }
    }

    fn mark(&mut self, clean: bool, lsn: u64) {
        let identity = self.disk.disk.identity("/data/log").unwrap();
        let (boot_id, mount_id) = (identity.boot_id, identity.mount_id);
        let state = BootState { boot_id, mount_id, last_lsn: lsn, checkpoint_lsn: 0, clean };
        self.boot = write_boot_state(&self.disk.disk, &self.layout, self.boot, state).unwrap();
    }

    fn tell(&mut self, event: DirEvent) {
        let now = self.now();
        self.dir.handle(now, event, &mut self.out);
        while !self.out.is_empty() && !self.dead {
            for effect in self.out.drain().collect::<Vec<_>>() {
                match effect {
                    DirEffect::Disk { token, op, .. } => {
                        let result = self.disk.run(op);
                        self.dir.handle(now, DirEvent::Done(token, result), &mut self.out);
                    }
                    DirEffect::Placed(_, upto, rows) => self.log.segmented(upto, &rows),
                    DirEffect::WantSnap(_) => {
                        let (at, next, payload) = self.log.snapshot_payload();
                        self.dir.handle(now, DirEvent::Snap(GID, at, next, payload), &mut self.out);
                    }
                    DirEffect::Switched(_, info) => {
                        self.switched = Some(info.is_some());
                        if let Some(info) = info {
                            self.log.replaced(*info);
                        }
                    }
                    DirEffect::Stop(_) => self.dead = true,
                    _ => {}
                }
            }
        }
    }

    fn submit(&mut self, entries: Vec<NewEntry>, hard: Option<Hard>) {
        self.tag += 1;
        let (tag, gid) = (Some(self.tag), GID);
        self.log.append(entries.clone());
        let batch = JournalBatch { gid, tag, hard, entries, ..JournalBatch::default() };
        self.tell(DirEvent::Batch(batch));
        let last = self.log.last_index();
        self.log.persisted(last);
        self.log.committed(last);
        self.tell(DirEvent::Committed(GID, last));
        self.tell(DirEvent::Wake);
    }

    fn entry(&self, kind: EntryKind, mut body: BytesMut, context: Bytes) -> NewEntry {
        let (index, base_offset) = (self.log.last_index().next(), self.log.next_offset());
        let term = LeaderEpoch(1 + (index.0 / 50) as u32);
        let (mut count, mut max_ts) = (0, -1);
        if kind == EntryKind::Data {
            patch(&mut body, base_offset, term);
            let view = BatchView::new(&body).unwrap();
            (count, max_ts) = (view.offset_count(), view.max_timestamp());
        }
        let body = body.freeze();
        let flags = derive_flags(kind, &body, &context);
        NewEntry { index, term, kind, flags, base_offset, count, max_ts, body, context }
    }

    /// Appends a batch; `keys` with value or tombstone.
    fn append(&mut self, producer: Option<(i64, i32)>, codec: Codec, keys: &[(u8, bool)]) {
        let mut builder = match producer {
            Some((id, sequence)) => Builder::new().producer(id, 0, sequence),
            None => Builder::new(),
        };
        let base = self.log.next_offset().0;
        for (i, (key, alive)) in keys.iter().enumerate() {
            let key = format!("key-{key}").into_bytes();
            let offset = base + i as u64;
            let value = alive.then(|| format!("value of {offset} {}", "x".repeat((offset % 40) as usize)).into_bytes());
            let ms = self.ms + i as i64;
            builder.push(ms, Some(&key), value.as_deref(), []);
            self.written.push((offset, ms, key, value));
        }
        let mut body = builder.finish();
        if codec != Codec::None {
            body = compress_batch(&BatchView::new(&body).unwrap(), codec, SnappyFraming::Raw).unwrap();
        }
        let entry = self.entry(EntryKind::Data, body, Bytes::new());
        self.submit(vec![entry], None);
    }

    fn internal(&mut self) {
        let entry = self.entry(EntryKind::Noop, BytesMut::new(), Bytes::new());
        self.submit(vec![entry], None);
    }

    /// One record of a transaction, or its marker.
    fn transactional(&mut self, id: i64, sequence: i32, record: Result<u8, bool>) {
        let base = self.log.next_offset().0;
        let mut builder = Builder::new().producer(id, 0, if record.is_ok() { sequence } else { -1 });
        let attributes = match record {
            Ok(key) => {
                let (key, value) = (format!("key-{key}").into_bytes(), format!("txn {base}").into_bytes());
                builder.push(self.ms, Some(&key), Some(&value), []);
                self.written.push((base, self.ms, key, Some(value)));
                ATTR_TRANSACTIONAL
            }
            Err(commits) => {
                builder.push(self.ms, Some(&[0, 0, 0, u8::from(commits)]), Some(&[0, 0, 0, 0, 0, 0]), []);
                ATTR_TRANSACTIONAL | ATTR_CONTROL
            }
        };
        let mut body = builder.finish();
        body[21..23].copy_from_slice(&attributes.to_be_bytes());
        let crc = catchwater_record::crc::crc32c(&body[21..]);
        body[17..21].copy_from_slice(&crc.to_be_bytes());
        let entry = self.entry(EntryKind::Data, body, Bytes::new());
        self.submit(vec![entry], None);
    }

    fn policy(&self) -> Policy {
        Policy {
            dirty_ratio_min: 0.0,
            lag_ms_min: 0,
            lag_ms_max: u64::MAX,
            delete_retention_ms: 1_000,
            segment_bytes: 4_000,
        }
    }

    /// A whole run; `None` = nothing is due, or the disk failed.
    fn compact(&mut self, policy: Policy, map_bytes_max: u64) -> Option<Stats> {
        let (choice, input) = self.log.plan_compaction(&policy, self.ms)?;
        let job = Job {
            gid: GID,
            dir: group_dir(&self.layout.groups(), GID),
            segments: input.segments,
            dirty_from: choice.dirty_from,
            policy,
            now_ms: self.ms,
            secret: (1, 2),
            map_bytes_max,
            output_bytes_max: 1 << 20,
            producers: input.producers,
            captures: input.captures,
            aborted: input.aborted,
            nature: captured::nature,
            alone: true,
        };
        let mut run = CompactRun::new(job);
        for _ in 0..100_000 {
            match run.step(&*self.disk, 200) {
                Ok(Progress::More(_)) => {}
                Ok(Progress::Switch(replacement)) => {
                    self.switched = None;
                    self.tell(DirEvent::Switch(GID, replacement));
                    let done = self.switched?;
                    run.switched(done).unwrap();
                }
                Ok(Progress::Done(stats)) => return Some(stats),
                Err(e) if self.disk.left.load(Ordering::Relaxed) <= 0 => {
                    assert!(matches!(e, crate::compact_run::CompactError::Disk(_)), "{e}");
                    return None;
                }
                Err(e) => panic!("{e}"),
            }
        }
        panic!("a run without an end");
    }

    /// All rows that stand in files.
    fn rows(&self) -> Vec<Row> {
        let mut out: Vec<Row> = Vec::new();
        let mut from = self.log.first_index();
        while let Some(read) = self.log.row_read(from, EntryIndex(u64::MAX), u64::MAX) {
            let rows = read_rows(&self.disk.disk, &self.layout, &read).unwrap();
            from = rows::last_index(rows.last().unwrap()).next();
            out.extend(rows);
        }
        out
    }

    /// What a consumer sees, batch by batch from the log start on.
    fn read(&self) -> Vec<Got> {
        let (mut out, mut next, mut batches) = (Vec::new(), self.log.log_start(), 0);
        let end = self.log.high_watermark();
        while next < end {
            let pieces = match self.log.plan_read(next, end, 500) {
                ReadPlan::Tail(pieces) => pieces,
                ReadPlan::Files(read) => {
                    vec![read_batches(&self.disk.disk, &self.layout, &read).unwrap()]
                }
                ReadPlan::Empty => break,
                ReadPlan::OutOfRange => panic!("out of range at {next}"),
            };
            let before = next;
            for piece in pieces {
                let mut rest = &piece[..];
                while let Ok((batch, after)) = BatchView::split(rest) {
                    rest = after;
                    batches += 1;
                    assert!(batch.offset() >= before || batch.offset().plus(u64::from(batch.offset_count())) > before);
                    next = batch.offset().plus(u64::from(batch.offset_count()));
                    if batch.is_control() {
                        continue;
                    }
                    let body = section(&batch, 1 << 20).unwrap();
                    for record in records(&body, batch.records_count() as u32) {
                        let r = record.unwrap();
                        let offset = batch.offset().0 + r.offset_delta as u64;
                        let ms = batch.base_timestamp() + r.timestamp_delta;
                        out.push((offset, ms, r.key.unwrap().to_vec(), r.value.map(<[u8]>::to_vec)));
                    }
                }
            }
            assert!(next > before, "no progress at {before} of {end}: {batches}");
        }
        out
    }

    /// Stops hard and begins again on what the disk has.
    fn reopen(self, cut: Option<(Cut, u64)>) -> Rig {
        let disk = self.disk.disk.fork();
        match cut {
            Some((cut, seed)) => disk.power_cut(cut, &mut Rng::new(seed)),
            None => disk.kill(),
        }
        let mut rig = Rig::on(disk, 700, false);
        rig.ms = self.ms;
        rig.written = self.written;
        rig
    }

    /// Everything before the newest segment.
    fn rolled_to(&self) -> u64 {
        self.log.segments().last().map_or(0, |s| s.base_offset.0)
    }
}

/// What compaction must leave of `written` below `cleaned_to`: per key its newest record; a tombstone may be gone.
#[track_caller]
fn check_oracle(rig: &Rig, cleaned_to: u64) {
    let got = rig.read();
    let mut newest: BTreeMap<&[u8], &Got> = BTreeMap::new();
    for record in rig.written.iter().filter(|r| r.0 < cleaned_to) {
        newest.insert(&record.2, record);
    }
    let mut want: Vec<&Got> = newest.into_values().collect();
    want.extend(rig.written.iter().filter(|r| r.0 >= cleaned_to));
    want.sort();
    let (mut at, mut gone) = (got.iter().peekable(), Vec::new());
    for record in want {
        match at.next_if_eq(&record) {
            Some(_) => {}
            None => gone.push(record.clone()),
        }
    }
    assert_eq!(at.next(), None, "a record that should be gone, or was never written");
    assert!(gone.iter().all(|r| r.3.is_none() && r.0 < cleaned_to), "gone: {gone:?}");
}

#[derive(Clone, Debug)]
enum Step {
    Append { producer: Option<u8>, codec: u8, keys: Vec<(u8, bool)> },
    Internal,
    Compact { map_slots: u64 },
    Later(i64),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let append = (proptest::option::of(0u8..3), 0u8..5, proptest::collection::vec((0u8..12, any::<bool>()), 1..6));
    let step = prop_oneof![
        20 => append.prop_map(|(producer, codec, keys)| Step::Append { producer, codec, keys }),
        1 => Just(Step::Internal),
        2 => prop_oneof![Just(4u64), Just(1_000)].prop_map(|map_slots| Step::Compact { map_slots }),
        1 => (1i64..3_000).prop_map(Step::Later),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..90)
}

fn codec(n: u8) -> Codec {
    [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd][usize::from(n)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_stays_is_the_newest_of_every_key(steps in steps()) {
        let mut rig = Rig::new(700);
        let mut sequences: BTreeMap<u8, i32> = BTreeMap::new();
        let mut cleaned_to = 0;
        for step in steps {
            match step {
                Step::Append { producer, codec: c, keys } => {
                    let with = producer.map(|p| {
                        let sequence = sequences.entry(p).or_insert(0);
                        let this = (i64::from(p) + 100, *sequence);
                        *sequence += keys.len() as i32;
                        this
                    });
                    rig.append(with, codec(c), &keys);
                }
                Step::Internal => rig.internal(),
                Step::Later(ms) => rig.ms += ms,
                Step::Compact { map_slots } => {
                    let policy = rig.policy();
                    let (end, sizes) = (rig.rolled_to(), rig.log.segments().len());
                    if rig.compact(policy, map_slots * map::SLOT_BYTES).is_some() {
                        cleaned_to = end;
                        prop_assert!(rig.log.segments().len() <= sizes);
                        prop_assert!(rig.compact(policy, 1 << 20).is_none(), "nothing is dirty behind a run");
                    }
                }
                Step::Reopen => {
                    let (end, term) = (rig.log.next_offset(), rig.log.last_term());
                    let state = rig.log.snapshot_payload();
                    rig = rig.reopen(None);
                    prop_assert_eq!((rig.log.next_offset(), rig.log.last_term()), (end, term));
                    prop_assert_eq!(rig.log.snapshot_payload().2, state.2, "producers as before");
                }
            }
            check_oracle(&rig, cleaned_to);
        }
    }
}

/// Several keys over several segments, the first of them compacted before, with a tombstone in between.
fn script() -> Rig {
    let mut rig = Rig::new(700);
    for round in 0..12u8 {
        rig.append(
            Some((9, i32::from(round) * 3)),
            codec(round % 5),
            &[(round % 4, true), (9, round != 5), (20 + round, true)],
        );
        if round == 6 {
            let policy = rig.policy();
            rig.compact(policy, 1 << 20).unwrap();
        }
    }
    rig.internal();
    for round in 0..4u8 {
        rig.append(None, Codec::None, &[(round, true), (round, false)]);
    }
    rig
}

#[test]
fn a_power_cut_at_any_step_leaves_the_old_or_the_new() {
    let policy = script().policy();
    let mut whole = script();
    let old = whole.read();
    let before = whole.disk.left.load(Ordering::Relaxed);
    let stats = whole.compact(policy, 1 << 20).unwrap();
    let operations = before - whole.disk.left.load(Ordering::Relaxed);
    let new = whole.read();
    assert!(new.len() < old.len() && stats.segments_after < stats.segments_before, "{stats:?}");
    assert!(operations > 20, "{operations}");
    let (mut olds, mut news) = (0, 0);
    for n in 0..=operations {
        for (i, cut) in [Cut::LoseAll, Cut::KeepAll, Cut::Random, Cut::GarbageTail].into_iter().enumerate() {
            let mut rig = script();
            let segments = rig.log.segments().len();
            rig.disk.left.store(n, Ordering::Relaxed);
            let done = rig.compact(policy, 1 << 20).is_some();
            let rig = rig.reopen(Some((cut, n as u64 * 4 + i as u64)));
            let got = rig.read();
            // Each group of segments is the one or the other; there is one group here, and the rest as it was.
            if got != old && got != new {
                let list = |all: &[Got]| all.iter().map(|r| r.0).collect::<Vec<_>>();
                panic!("operation {n}, {cut:?}: {:?} is neither {:?} nor {:?}", list(&got), list(&old), list(&new));
            }
            olds += u32::from(got == old && rig.log.segments().len() == segments);
            news += u32::from(got == new);
            assert!(!done || got == new, "a run that was done is undone by {cut:?}");
            // Whatever is left lying about does not disturb the next run, nor appends.
            let mut rig = rig;
            rig.append(None, Codec::None, &[(1, true)]);
            rig.compact(policy, 1 << 20);
            check_oracle(&rig, rig.rolled_to());
        }
    }
    assert!(olds > 20 && news > 4, "{olds} {news}");
}

#[test]
fn tombstones_stay_for_their_time_and_then_go() {
    let mut rig = Rig::new(300);
    let policy = Policy { segment_bytes: 300, ..rig.policy() };
    let fill = |rig: &mut Rig| {
        for i in 0..4 {
            rig.append(None, Codec::None, &[(30 + i, true), (40 + i, true), (50 + i, true)]);
        }
    };
    let has = |rig: &Rig| rig.read().iter().any(|r| r.2 == b"key-1");
    rig.append(None, Codec::None, &[(1, true)]);
    rig.append(None, Codec::None, &[(1, false)]);
    fill(&mut rig);
    rig.compact(policy, 1 << 20).unwrap();
    assert!(has(&rig), "its delete horizon is set by this run");
    let first = rig.read().iter().find(|r| r.2 == b"key-1").cloned().unwrap();
    assert_eq!((first.3.clone(), first.1), (None, 1_000), "the tombstone, at its own time");
    rig.ms += 999;
    fill(&mut rig);
    rig.compact(policy, 1 << 20).unwrap();
    assert!(has(&rig), "a millisecond too early");
    rig.ms += 1;
    fill(&mut rig);
    rig.compact(policy, 1 << 20).unwrap();
    assert!(!has(&rig));
}

#[test]
fn aborted_data_goes_at_once_and_markers_when_nothing_is_left_of_their_transaction() {
    let mut rig = Rig::new(250);
    let policy = Policy { segment_bytes: 250, ..rig.policy() };
    rig.append(None, Codec::None, &[(1, true)]);
    rig.transactional(77, 0, Ok(1));
    rig.transactional(78, 0, Ok(2));
    rig.transactional(77, 0, Err(false));
    rig.transactional(78, 0, Err(true));
    // Their newest batches stay for the sake of sequence numbers: other transactions make these old.
    rig.transactional(77, 1, Ok(3));
    rig.transactional(78, 1, Ok(4));
    rig.transactional(77, 0, Err(true));
    rig.transactional(78, 0, Err(true));
    let fill = |rig: &mut Rig, n: u8| {
        for i in 0..4 {
            rig.append(None, Codec::None, &[(100 + 4 * n + i, true), (30, true), (31, true)]);
        }
    };
    let values = |rig: &Rig| rig.read().iter().filter(|r| r.2.len() == 5).map(|r| (r.2[4], r.0)).collect::<Vec<_>>();
    let markers = |rig: &Rig| {
        let control = |r: &&Row| r.flags & crate::entry::row_flag::CONTROL != 0;
        rig.rows().iter().filter(control).map(|r| r.base_offset.0).collect::<Vec<_>>()
    };
    fill(&mut rig, 0);
    rig.compact(policy, 1 << 20).unwrap();
    // Key 1: the aborted record of offset 1 never counted, the plain one before it is the newest.
    assert_eq!(values(&rig), [(b'1', 0), (b'2', 2), (b'3', 5), (b'4', 6)]);
    assert_eq!(markers(&rig), [3, 4, 7, 8]);
    // Now nothing of the aborted transaction is left: its marker gets a horizon, then goes.
    fill(&mut rig, 1);
    rig.compact(policy, 1 << 20).unwrap();
    assert_eq!(markers(&rig), [3, 4, 7, 8]);
    rig.ms += 1_000;
    fill(&mut rig, 2);
    rig.compact(policy, 1 << 20).unwrap();
    assert_eq!(markers(&rig), [4, 7, 8], "the committed ones have their data");
}

/// Its marker lies in a segment that the run does not take: the record before it is still the newest of its key.
#[test]
fn an_aborted_record_takes_no_place_though_its_marker_lies_behind() {
    let mut rig = Rig::new(250);
    let policy = Policy { segment_bytes: 250, ..rig.policy() };
    rig.append(None, Codec::None, &[(1, true), (2, true)]);
    rig.transactional(77, 0, Ok(1));
    rig.transactional(78, 0, Ok(2));
    for i in 0..6 {
        rig.append(None, Codec::None, &[(100 + i, true), (30, true)]);
    }
    rig.transactional(78, 0, Err(true));
    rig.transactional(77, 0, Err(false));
    let marker = rig.log.aborted(Offset(2), Offset(3)).next().unwrap().last.0;
    assert!(marker >= rig.rolled_to(), "the marker is in the newest segment");
    rig.compact(policy, 1 << 20).unwrap();
    let values = rig.read().iter().filter(|r| r.2.len() == 5).map(|r| (r.2[4], r.0)).collect::<Vec<_>>();
    assert_eq!(values, [(b'1', 0), (b'2', 3)], "key 1 as before the transaction, key 2 as committed");
}

/// An idle producer's last batch loses its records and keeps its place: a repeat is still a repeat, from headers alone.
#[test]
fn the_last_batch_of_a_producer_stays_without_records() {
    let mut rig = Rig::new(300);
    rig.append(Some((5, 0)), Codec::Zstd, &[(1, true), (2, true)]);
    for i in 0..8 {
        rig.append(None, Codec::None, &[(1, true), (2, true), (60 + i, true)]);
    }
    let policy = rig.policy();
    rig.compact(policy, 1 << 20).unwrap();
    let dir = group_dir(&rig.layout.groups(), GID);
    for name in rig.disk.disk.list(&dir).unwrap().iter().filter(|n| n.ends_with(".snap")) {
        rig.disk.disk.unlink(&format!("{dir}/{name}")).unwrap();
    }
    let rig = rig.reopen(None);
    let row = rig.rows()[0];
    assert_eq!((row.kind, row.count, row.len), (EntryKind::Data, 2, 61));
    let again = Builder::new().producer(5, 0, 0);
    let mut again = again;
    again.push(1, Some(b"key-1"), Some(b"v"), []);
    again.push(1, Some(b"key-2"), Some(b"v"), []);
    let body = again.finish();
    let check = rig.log.check(&BatchView::new(&body).unwrap(), None);
    assert_eq!(check, crate::Check::Duplicate { base: Offset(0), end: Offset(2), index: EntryIndex::ZERO });
}

/// A reader that planned before the switch reads the old files until their time comes; then it plans again.
#[test]
fn old_files_stay_for_those_who_read_them() {
    let mut rig = script();
    let limits = SegmentLimits { bytes: 700, ms: u64::MAX, jitter_ms: 0, delete_delay_ms: 5_000 };
    rig.tell(DirEvent::Limits(GID, limits));
    let ReadPlan::Files(plan) = rig.log.plan_read(Offset(0), rig.log.high_watermark(), 1 << 20) else { panic!() };
    let policy = rig.policy();
    let read = |rig: &Rig| read_batches(&rig.disk.disk, &rig.layout, &plan);
    let before = read(&rig);
    rig.compact(policy, 1 << 20).unwrap();
    rig.ms += 4_999;
    rig.tell(DirEvent::Wake);
    assert_eq!(read(&rig), before);
    rig.ms += 1;
    rig.tell(DirEvent::Wake);
    assert!(matches!(read(&rig), Err(crate::read::ReadError::Gone(_))));
    check_oracle(&rig, rig.rolled_to());
}

#[test]
fn what_is_due_follows_ratio_and_lags() {
    let mut rig = Rig::new(300);
    for i in 0..12 {
        rig.append(None, Codec::None, &[(i, true), (i + 1, true)]);
        rig.ms += 100;
    }
    let policy = rig.policy();
    let due = |rig: &Rig, policy: Policy| rig.log.compaction_due(&policy, rig.ms).map(|c| (c.dirty_from, c.upto));
    let all = rig.log.segments().len() - 1;
    assert_eq!(due(&rig, policy), Some((0, all)));
    assert_eq!(due(&rig, Policy { dirty_ratio_min: 1.0, ..policy }), None);
    // A minimal lag holds the young ones back, a maximal one makes the old ones due.
    let young = due(&rig, Policy { lag_ms_min: 600, ..policy }).unwrap();
    assert!(young.1 < all && young.1 > 0, "{young:?}");
    assert_eq!(due(&rig, Policy { lag_ms_min: 100_000, ..policy }), None);
    assert_eq!(due(&rig, Policy { dirty_ratio_min: 1.0, lag_ms_max: 900, ..policy }), Some((0, all)));
    assert_eq!(due(&rig, Policy { dirty_ratio_min: 1.0, lag_ms_max: 1_200, ..policy }), None);
    rig.compact(policy, 1 << 20).unwrap();
    assert_eq!(due(&rig, policy), None, "nothing is dirty");
}

/// In memory it is read at once and checked as ever; otherwise it says that it would have to wait.
#[test]
fn hot_reads_are_checked_and_cold_ones_are_refused() {
    use crate::read::{ReadError, read_batches_hot};
    let rig = script();
    let mut next = Offset(0);
    let mut seen = 0;
    while let ReadPlan::Files(read) = rig.log.plan_read(next, rig.log.high_watermark(), 1 << 20) {
        let whole = read_batches(&rig.disk.disk, &rig.layout, &read).unwrap();
        let hot = |read: &FileRead| read_batches_hot(&rig.disk.disk, &rig.layout, read);
        assert_eq!(hot(&read), Some(Ok(whole.clone())));
        assert_eq!(read_batches_hot(&*rig.disk, &rig.layout, &read), None, "this disk cannot say what is in memory");
        let stem = crate::segment::segment_stem(read.base_offset, read.generation);
        let dir = group_dir(&rig.layout.groups(), GID);
        let (log, ent) = (format!("{dir}/{stem}.log"), format!("{dir}/{stem}.ent"));
        let flip = |path: &str, at: usize| rig.disk.disk.damage(path, |bytes| bytes[at] ^= 1);
        let rows = rig.rows().into_iter().filter(|r| r.kind == EntryKind::Data && r.base_offset >= next);
        let segment = rig.log.segments().iter().find(|s| s.base_index == read.base_index).unwrap();
        let last = segment.rows.last().unwrap().index;
        let rows: Vec<Row> = rows.take_while(|r| r.index <= last).collect();
        let (first, second) = (rows[0], rows.get(1).copied());
        // A damaged batch ends what is before it, and is an error where it would be the first.
        if let Some(second) = second {
            flip(&log, second.pos as usize + 70);
            assert_eq!(hot(&read), Some(Ok(whole.slice(..first.len as usize))));
            let behind = FileRead { from: second.base_offset, ..read };
            assert!(matches!(hot(&behind), Some(Err(ReadError::Damaged { .. }))));
            flip(&log, second.pos as usize + 70);
            seen += 1;
        }
        flip(&log, first.pos as usize + 70);
        assert!(matches!(hot(&read), Some(Err(ReadError::Damaged { .. }))));
        flip(&log, first.pos as usize + 70);
        // So does a damaged row; but what can be told from the rows around it is.
        let number = (first.index.0 - read.base_index.0) as usize;
        flip(&ent, row::HEADER_BYTES + number * row::ROW_BYTES + 20);
        assert!(matches!(hot(&read), Some(Err(ReadError::Damaged { .. }))));
        if let Some(second) = second {
            let behind = FileRead { from: second.base_offset, ..read };
            assert_eq!(hot(&behind), Some(Ok(whole.slice(first.len as usize..))));
        }
        flip(&ent, row::HEADER_BYTES + number * row::ROW_BYTES + 20);
        next = rows.last().map(end_offset).unwrap();
    }
    assert!(seen > 0, "{seen} segments with two batches");
}
