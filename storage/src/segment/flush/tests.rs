#![allow(clippy::unwrap_used)]

use super::*;
use crate::disk::Disk;
use crate::disk::DiskExt;
use crate::disk::memory::Cut;
use crate::disk::memory::MemoryDisk;
use crate::entry::{EntryKind, GroupSpec, NewEntry};
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::row;
use crate::format::slot::{self, SlotKind};
use crate::journal::Persisted;
use crate::segment::{FoundGroup, SegmentConfig, SegmentEvent};
use crate::segment::{SegmentLimits, group_dir, segment_stem};
use bytes::Bytes;
use catchwater_base::{Local, Rng, Wall};
use catchwater_record::{LeaderEpoch, Offset, PartitionId, TopicId};

const GID: Gid = Gid(7);

/// A relaxed group on a disk in memory; operations run when the test says so.
struct World {
    disk: MemoryDisk,
    segments: Segments,
    out: Effects<SegmentEffect>,
    next: u64,
    /// Of the flush that brings what is appended.
    lsn: u64,
    /// Operations that were asked for and did not run.
    waiting: Vec<(Token, DiskOp)>,
    placed: u64,
    flushed: Vec<u64>,
    cuts: usize,
}

impl World {
    fn new() -> World {
        World::with(SegmentConfig::new("/p".into()))
    }

    fn with(config: SegmentConfig) -> World {
        let disk = MemoryDisk::new();
        disk.run(DiskOp::MkDir { path: "/p".into() }).unwrap();
        disk.sync_dir("/").unwrap();
        let spec = GroupSpec {
            topic: TopicId([1; 16]),
            partition: PartitionId(0),
            incarnation: 1,
            conf: Bytes::from_static(b"conf"),
            conf_index: EntryIndex::ZERO,
        };
        let segments = Segments::new(config);
        let (out, waiting, flushed) = (Effects::new(), Vec::new(), Vec::new());
        let mut world = World { disk, segments, out, next: 1, lsn: 0, waiting, placed: 0, flushed, cuts: 0 };
        world.tell(SegmentEvent::Open(Box::new(FoundGroup::fresh(GID, spec))));
        world.tell(SegmentEvent::Mode(GID, true));
        // The first flush makes the manifest and the names last: a job of its own.
        world.append(1, None);
        world.tell(SegmentEvent::Flush { gid: GID, all: false });
        world.run(|_| true);
        assert_eq!((world.placed, &world.flushed[..]), (1, &[1][..]));
        world
    }

    fn tell(&mut self, event: SegmentEvent) {
        let now = Now { mono: catchwater_base::Mono::from_millis(1), wall: Wall::from_millis(1) };
        self.segments.handle(now, event, &mut self.out);
        for effect in self.out.drain().collect::<Vec<_>>() {
            match effect {
                SegmentEffect::Disk { token, op, .. } => self.waiting.push((token, op)),
                SegmentEffect::Placed(_, upto, _) => self.placed = upto.0,
                SegmentEffect::Flushed(_, upto) => self.flushed.push(upto.0),
                SegmentEffect::CutDone(_) => self.cuts += 1,
                SegmentEffect::Stop(error) => panic!("{error}"),
                _ => {}
            }
        }
    }

    /// Runs what is chosen until nothing chosen waits.
    fn run(&mut self, chosen: impl Fn(&DiskOp) -> bool) {
        while let Some(at) = self.waiting.iter().position(|(_, op)| chosen(op)) {
            let (token, op) = self.waiting.remove(at);
            let result = self.disk.run(op);
            self.tell(SegmentEvent::Done(token, result));
        }
    }

    fn append(&mut self, count: u64, truncate_from: Option<u64>) {
        self.next = truncate_from.unwrap_or(self.next);
        let entry = |index| NewEntry {
            index: EntryIndex(index),
            term: LeaderEpoch(1),
            kind: EntryKind::Data,
            flags: 0,
            base_offset: Offset(index - 1),
            count: 1,
            max_ts: 1,
            body: Bytes::from_static(&[5; 100]),
            context: Bytes::new(),
        };
        let entries = (self.next..self.next + count).map(entry).collect();
        self.next += count;
        let piece = Persisted {
            truncate_from: truncate_from.map(EntryIndex),
            cuts: u32::from(truncate_from.is_some()),
            entries,
            ..Persisted::empty(GID, self.lsn)
        };
        if truncate_from.is_some() {
            self.tell(SegmentEvent::CutComing(GID));
        }
        self.tell(SegmentEvent::Queue(vec![piece]));
    }
}

#[test]
fn write_back_is_asked_for_in_pieces_and_for_each_byte_once() {
    // The kernel never holds more than a piece that nobody has asked it to write.
    let mut world = World::with(SegmentConfig { writeback_bytes: 1000, ..SegmentConfig::new("/p".into()) });
    let mut asked = Vec::new();
    let (mut written, mut asked_upto) = (100, 0);
    for count in [3, 7, 1, 1, 25, 9, 1] {
        world.append(count, None);
        while let Some((token, op)) = world.waiting.pop() {
            match &op {
                DiskOp::Write { path, at, bufs } if path.ends_with(".log") => {
                    assert_eq!(*at, written, "appends follow each other");
                    written += bufs.iter().map(|b| b.len() as u64).sum::<u64>();
                }
                DiskOp::StartWriteback { path, at, len } => {
                    assert!(path.ends_with(".log"), "{path}");
                    assert_eq!(*at, asked_upto, "no byte is left out, none is asked for twice");
                    asked_upto = at + len;
                    assert_eq!(asked_upto, written, "only what was written");
                    asked.push(*len);
                }
                _ => {}
            }
            let result = world.disk.run(op);
            world.tell(SegmentEvent::Done(token, result));
        }
        assert!(written - asked_upto < 1000, "{written} written, {asked_upto} asked for");
    }
    assert_eq!(written, 4800);
    assert_eq!(asked, [1100, 2700, 1000], "small appends are gathered, a large one goes as a whole");
}

fn is_sync(op: &DiskOp) -> bool {
    matches!(op, DiskOp::Fdatasync { .. })
}

#[test]
fn a_flush_covers_what_was_there_and_appends_go_on_beside_it() {
    let mut world = World::new();
    world.append(3, None);
    world.run(|_| true);
    world.tell(SegmentEvent::Flush { gid: GID, all: false });
    assert!(world.waiting.iter().all(|(_, op)| is_sync(op)) && !world.waiting.is_empty());
    world.append(5, None);
    world.run(|op| !is_sync(op));
    assert_eq!(world.placed, 9, "readable while the sync is under way");
    assert_eq!(world.segments.dirty_bytes(), 800);
    world.run(is_sync);
    assert_eq!(world.flushed, [1, 4], "what came meanwhile is not claimed");
    assert_eq!(world.segments.dirty_bytes(), 500);
    // It is dirty again: the next flush has something to sync.
    world.tell(SegmentEvent::Flush { gid: GID, all: false });
    assert!(!world.waiting.is_empty());
    world.run(|_| true);
    assert_eq!((world.flushed.last(), world.segments.dirty_bytes()), (Some(&9), 0));
    assert!(!world.segments.is_busy());
}

#[test]
fn a_cut_waits_for_the_flush() {
    let mut world = World::new();
    world.append(3, None);
    world.run(|_| true);
    world.tell(SegmentEvent::Flush { gid: GID, all: false });
    let syncs = world.waiting.len();
    world.append(2, Some(3));
    assert_eq!((world.waiting.len(), world.cuts), (syncs, 0), "nothing of the cut begins");
    world.run(|_| true);
    assert_eq!((world.cuts, world.placed), (1, 4));
    // Not beside: until the cut is done, a flush is a job of its own.
    world.tell(SegmentEvent::Flush { gid: GID, all: false });
    world.run(|_| true);
    assert_eq!(world.flushed.last(), Some(&4));
    assert!(!world.segments.is_busy());
}

#[test]
fn a_manifest_names_no_row_whose_file_a_power_cut_takes() {
    let mut world = World::new();
    world.tell(SegmentEvent::Limits(GID, SegmentLimits { bytes: 250, ms: u64::MAX, jitter_ms: 0, delete_delay_ms: 0 }));
    let dir = group_dir("/p", GID);
    let mut named = 0;
    for (entries, cut) in [(4, None), (1, None), (3, Some(5)), (4, None)] {
        world.append(entries, cut);
        world.run(|_| true);
        world.tell(SegmentEvent::Flush { gid: GID, all: true });
        while !world.waiting.is_empty() {
            let (token, op) = world.waiting.remove(0);
            let result = world.disk.run(op);
            world.tell(SegmentEvent::Done(token, result));
            let left = world.disk.fork();
            left.power_cut(Cut::LoseAll, &mut Rng::new(1));
            let copy = |side| left.read_all(&format!("{dir}/manifest.{side}")).unwrap();
            let Some(newest) = slot::newest(SlotKind::Manifest, copy("a").as_deref(), copy("b").as_deref()).newest
            else {
                continue;
            };
            for s in Manifest::decode(&newest.payload).unwrap().segments {
                assert_eq!(s.state, SegmentState::Active);
                let stem = segment_stem(s.base_offset, s.generation);
                let ent = left.read_all(&format!("{dir}/{stem}.ent")).unwrap().unwrap_or_default().len();
                let log = left.read_all(&format!("{dir}/{stem}.log")).unwrap().unwrap_or_default().len();
                let rows = s.rows as usize;
                assert!(
                    ent >= row::HEADER_BYTES + row::ROW_BYTES * rows && log >= 100 * rows,
                    "{s:?} has {ent} and {log} bytes"
                );
                named = named.max(s.base_index.0);
            }
        }
    }
    assert!(named > 3, "{named}");
}

/// A group on its way into relaxed mode lets go of its journal when this flush is told.
#[test]
fn a_flush_of_all_is_not_answered_by_the_sync_of_a_checkpoint() {
    let mut world = World::new();
    world.tell(SegmentEvent::Mode(GID, false));
    world.lsn = 5;
    world.append(2, None);
    world.tell(SegmentEvent::Sync(vec![GID]));
    world.lsn = 6;
    world.append(2, None);
    world.tell(SegmentEvent::Flush { gid: GID, all: true });
    world.run(|_| true);
    assert_eq!((world.placed, &world.flushed[..]), (5, &[1, 5][..]));
}

/// No journal says of a relaxed group that rows are void: when a cut is done, its files have lost them for good. Kills the
/// planted `relaxed_truncation_unsynced`, which no seed of the simulator does (`docs/simulator.md`).
#[test]
fn a_cut_of_a_relaxed_group_that_is_done_is_not_taken_back_by_a_power_cut() {
    let mut world = World::new();
    world.append(4, None);
    world.tell(SegmentEvent::Flush { gid: GID, all: false });
    world.run(|_| true);
    world.append(0, Some(3));
    world.run(|_| true);
    assert_eq!(world.cuts, 1);
    let left = world.disk.fork();
    left.power_cut(Cut::LoseAll, &mut Rng::new(1));
    let len =
        |ext: &str| left.length(&format!("{}/{}.{ext}", group_dir("/p", GID), segment_stem(Offset(0), 0))).unwrap();
    assert_eq!((len("ent"), len("log")), ((row::HEADER_BYTES + 2 * row::ROW_BYTES) as u64, 200));
}
