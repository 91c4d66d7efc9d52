//! Random operations on journal, segments and recovery, with completions in any order, kills and power cuts, against a
//! model that is a list. And planted damage: whatever bit is flipped, no wrong byte comes back.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::disk::faulty::{FaultRates, FaultyDisk};
use crate::disk::memory::{Cut, MemoryDisk};
use crate::disk::{Disk, DiskExt};
use crate::entry::{EntryKind, FileRead, Hard, NewEntry, RecoveredGroup, SegmentInfo, Verdict, derive_flags, row_flag};
use crate::format::context::{CaptureContext, LogStart, TrimReason};
use crate::format::row::{FOOTER_BYTES, Footer, HEADER_BYTES, ROW_BYTES};
use crate::format::slot::BootState;
use crate::read::read_batches;
use crate::recover::{NewIdentity, quarantine, recover, recover_whole, settle, settle_relaxed, write_boot_state};
use crate::relaxed::Window;
use catchwater_base::{Rng, Wall};
use catchwater_record::batch::{build::Builder, patch};
use catchwater_record::{CaptureEpoch, CaptureId, CommitSeq, LeaderEpoch, PartitionId, Position, TopicId, TxnId};

use contents::{check_fenced, check_least_times, check_since, contents, try_contents};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// So small that acknowledgements wait for it.
const LOOSE: Window = Window { ms: 20, bytes: 3000, records: u64::MAX };
const NEW: NewIdentity = NewIdentity { cluster_id: [1; 16], dir_id: [2; 16], node: 1 };

fn spec(gid: u64) -> GroupSpec {
    GroupSpec {
        topic: TopicId([gid as u8; 16]),
        partition: PartitionId(gid as u32),
        incarnation: 1,
        conf: Bytes::from_static(b"conf"),
        conf_index: EntryIndex::ZERO,
    }
}

/// The first entry of a term is its leader's noop; the others are batches, some of producers, now and then with a capture's
/// position, and log starts.
fn entry(rng: &mut Rng, index: u64, term: u32, offset: u64, begins: bool) -> NewEntry {
    let (mut kind, mut body, mut count, mut max_ts) = (EntryKind::Noop, Bytes::new(), 0, -1);
    let mut context = Bytes::new();
    if !begins && rng.chance(900_000) {
        let mut builder = Builder::new();
        if rng.chance(400_000) {
            builder = builder.producer(rng.between(1, 3) as i64, 0, index as i32);
        }
        for _ in 0..rng.between(1, 3) {
            let value: Vec<u8> = (0..rng.below(700)).map(|_| rng.next_u64() as u8).collect();
            builder.push(rng.below(1_000_000) as i64, None, Some(&value), std::iter::empty());
        }
        count = builder.count();
        let mut batch = builder.finish();
        patch(&mut batch, Offset(offset), LeaderEpoch(term));
        (kind, body) = (EntryKind::Data, batch.freeze());
        max_ts = catchwater_record::BatchView::new(&body).unwrap().max_timestamp();
        if rng.chance(250_000) {
            context = capture(rng, index).encode();
        }
    } else if !begins {
        kind = EntryKind::LogStart;
        context = LogStart { offset: Offset(0), reason: TrimReason::Retention }.encode();
    }
    let flags = derive_flags(kind, &body, &context);
    NewEntry {
        index: EntryIndex(index),
        term: LeaderEpoch(term),
        kind,
        flags,
        base_offset: Offset(offset),
        count,
        max_ts,
        body,
        context,
    }
}

fn capture(rng: &mut Rng, index: u64) -> CaptureContext {
    let position = |n: u64| Position::copy_from(&n.to_be_bytes()).unwrap();
    CaptureContext {
        capture: CaptureId(rng.below(3)),
        epoch: CaptureEpoch(1),
        flags: rng.below(2) as u8,
        commit_seq: CommitSeq(index),
        prev: Position::NONE,
        first: position(index),
        last: position(index + rng.below(5)),
        txn: rng.chance(500_000).then(|| TxnId(Bytes::from(vec![7; rng.below(20) as usize]))),
    }
}

/// What was asked of one group, entry by entry, and how far it was acknowledged.
#[derive(Default, Clone, Debug)]
struct Model {
    /// What a restart found, then what was submitted since.
    base: Vec<NewEntry>,
    submitted: Vec<NewEntry>,
    /// tag → entries of `submitted` that are durable with it.
    tags: BTreeMap<u64, usize>,
    acked: usize,
    term: u32,
    committed: u64,
    trimmed: Offset,
    hards: Vec<Hard>,
    /// tag → hard states durable with it.
    hard_tags: BTreeMap<u64, usize>,
    hards_acked: usize,
    dropped: bool,
    drop_acked: bool,
}

fn fold(base: &[NewEntry], submitted: &[NewEntry]) -> Vec<NewEntry> {
    let mut log = base.to_vec();
    for entry in submitted {
        log.retain(|e| e.index < entry.index);
        log.push(entry.clone());
    }
    log
}

impl Model {
    fn now(&self) -> Vec<NewEntry> {
        fold(&self.base, &self.submitted)
    }
}

struct World {
    seed: u64,
    rng: Rng,
    disk: Arc<FaultyDisk>,
    layout: Layout,
    config: DirConfig,
    dir: Dir,
    boot: (u64, crate::format::slot::Side),
    out: Effects<DirEffect>,
    flight: Vec<(DirToken, DiskOp)>,
    groups: BTreeMap<Gid, Model>,
    tag: u64,
    clock: u64,
    stopped: bool,
    closed: [Option<u64>; 2],
    placed: u64,
    restarts: u64,
    last_lsn: u64,
    /// As noted in `boot.state`: the checkpoint, and the first flush of the newest journal file.
    noted_lsn: u64,
    began_lsn: u64,
    checkpoints: u64,
    /// Operations that found no room, and whether one waits.
    no_space: u64,
    waiting: bool,
    /// Groups whose durability changes at random; acknowledged bytes that power cuts took.
    loose: Vec<Gid>,
    power: bool,
    lost: u64,
}

impl World {
    fn now(&self) -> Now {
        Now { mono: Mono::from_millis(self.clock), wall: Wall::from_millis(1_000_000 + self.clock as i64) }
    }

    fn new(seed: u64) -> World {
        Self::with(seed, DirConfig::tiny())
    }

    fn with(seed: u64, config: DirConfig) -> World {
        let mut rng = Rng::new(seed);
        let disk = Arc::new(FaultyDisk::new(Arc::new(MemoryDisk::new()), FaultRates::default(), rng.next_u64()));
        let layout = Layout::new("/data/log");
        let found = recover_whole(&*disk, &layout, NEW).unwrap();
        let boot = found.boot;
        let dir = Dir::open(&layout, &config, found, Now::default());
        let mut world = World {
            seed,
            rng,
            disk,
            layout,
            config,
            dir,
            boot,
            out: Effects::new(),
            flight: Vec::new(),
            groups: BTreeMap::new(),
            tag: 0,
            clock: 0,
            stopped: false,
            closed: [None; 2],
            placed: 0,
            restarts: 0,
            last_lsn: 0,
            noted_lsn: 0,
            began_lsn: 0,
            checkpoints: 0,
            no_space: 0,
            waiting: false,
            loose: Vec::new(),
            power: false,
            lost: 0,
        };
        world.mark(false, 0, 0);
        world.tell(DirEvent::Wake);
        for gid in 1..=3 {
            world.groups.insert(Gid(gid), Model { term: 1, ..Model::default() });
            world.tell(DirEvent::Create(Gid(gid), spec(gid)));
        }
        world
    }

    fn mark(&mut self, clean: bool, last_lsn: u64, checkpoint_lsn: u64) {
        let identity = self.disk.identity("/data/log").unwrap();
        let state =
            BootState { boot_id: identity.boot_id, mount_id: identity.mount_id, last_lsn, checkpoint_lsn, clean };
        self.boot = write_boot_state(&**self.disk.memory(), &self.layout, self.boot, state).unwrap();
    }

    fn tell(&mut self, event: DirEvent) {
        let now = self.now();
        self.dir.handle(now, event, &mut self.out);
        for effect in self.out.drain().collect::<Vec<_>>() {
            match effect {
                DirEffect::Disk { token, op, .. } => self.flight.push((token, op)),
                DirEffect::Persisted(gid, tag) => {
                    let model = self.groups.get_mut(&gid).unwrap();
                    model.acked = model.acked.max(model.tags.range(..=tag).map(|(_, n)| *n).max().unwrap_or(0));
                    model.hards_acked =
                        model.hards_acked.max(model.hard_tags.range(..=tag).map(|(_, n)| *n).max().unwrap_or(0));
                    model.drop_acked |= model.dropped;
                }
                DirEffect::Placed(gid, upto, rows) => self.check_placed(gid, upto, &rows),
                DirEffect::WantSnap(gid) => self.snap(gid),
                DirEffect::Removed(_) | DirEffect::Switched(..) => {}
                DirEffect::Checkpointed(lsn) => {
                    // Noted at once, or never: both must do.
                    if self.rng.chance(700_000) {
                        let last = self.last_lsn.max(lsn);
                        self.mark(false, last.max(self.began_lsn), lsn);
                        (self.checkpoints, self.noted_lsn) = (self.checkpoints + 1, lsn);
                    }
                }
                DirEffect::Began(lsn) => {
                    self.began_lsn = lsn;
                    self.mark(false, self.last_lsn.max(self.noted_lsn).max(lsn), self.noted_lsn);
                }
                DirEffect::NoSpace(_) => {
                    self.no_space += 1;
                    self.waiting = true;
                }
                DirEffect::Stop(_) => self.stopped = true,
                DirEffect::JournalClosed(lsn) => self.closed[0] = Some(lsn),
                DirEffect::SegmentsClosed => self.closed[1] = Some(1),
            }
        }
    }

    fn check_placed(&mut self, gid: Gid, upto: EntryIndex, rows: &[PlacedRow]) {
        assert_eq!(rows.last().unwrap().row.index, upto);
        let log = self.groups[&gid].clone();
        for placed in rows.iter().filter(|p| p.row.kind == EntryKind::Data) {
            self.placed += 1;
            let name = (placed.base_index, placed.base_offset, placed.generation);
            let range = FileRead::of_row(gid, name, &placed.row);
            let bytes = read_batches(&**self.disk.memory(), &self.layout, &range).unwrap();
            let known = log.base.iter().chain(&log.submitted).any(|e| e.index == placed.row.index && e.body == bytes);
            assert!(known, "seed {}: placed bytes were never written", self.seed);
        }
    }

    fn snap(&mut self, gid: Gid) {
        let model = &self.groups[&gid];
        let at = EntryIndex(model.committed);
        if let Some(entry) = model.now().iter().find(|e| e.index == at) {
            let event = DirEvent::Snap(gid, at, entry.end_offset(), Bytes::from(at.0.to_le_bytes().to_vec()));
            self.tell(event);
        }
    }

    fn complete_one(&mut self) {
        if self.flight.is_empty() {
            return;
        }
        let at = self.rng.below(self.flight.len() as u64) as usize;
        let (token, op) = self.flight.remove(at);
        if std::env::var_os("CATCHWATER_TRACE").is_some() {
            println!("run {} {}", op.name(), op.path());
        }
        let result = self.disk.run(op);
        self.tell(DirEvent::Done(token, result));
    }

    fn settle(&mut self) {
        for _ in 0..100_000 {
            if self.flight.is_empty() {
                if !std::mem::take(&mut self.waiting) {
                    return;
                }
                self.disk.set_rates(FaultRates::default());
                self.tell(DirEvent::SpaceBack);
            }
            self.complete_one();
        }
        panic!("seed {}: never quiet", self.seed);
    }

    fn append(&mut self) {
        let gid = Gid(self.rng.between(1, 3));
        self.append_to(gid);
    }

    fn append_to(&mut self, gid: Gid) {
        let mut rng = self.rng.fork(gid.0);
        let model = self.groups.get_mut(&gid).unwrap();
        if model.dropped {
            return;
        }
        let log = model.now();
        let (mut index, mut offset) = log.last().map_or((1, 0), |e| (e.index.0 + 1, e.end_offset().0));
        let mut truncate_from = None;
        // As Raft does: a group's first write carries its hard state.
        let vote = rng.below(3) << 32;
        let mut hard =
            model.hards.is_empty().then_some(Hard { term: model.term, vote, commit: EntryIndex(model.committed) });
        if rng.chance(100_000) {
            model.term += 1;
            hard = Some(Hard { term: model.term, vote: rng.below(3) << 32, commit: EntryIndex(model.committed) });
            let floor = model.committed.max(log.first().map_or(0, |e| e.index.0)) + 1;
            if rng.chance(600_000) && floor < index {
                index = rng.between(floor, index - 1);
                offset = log.iter().find(|e| e.index.0 == index).map_or(offset, |e| e.base_offset.0);
                truncate_from = Some(EntryIndex(index));
            }
        }
        let mut entries = Vec::new();
        for _ in 0..rng.between(1, 4) {
            let before = entries.last().map(|e: &NewEntry| e.term.0);
            let before = before.or_else(|| log.iter().rev().find(|e| e.index.0 < index).map(|e| e.term.0));
            let entry = entry(&mut rng, index, model.term, offset, before != Some(model.term));
            (index, offset) = (index + 1, entry.end_offset().0);
            entries.push(entry);
        }
        self.tag += 1;
        model.submitted.extend(entries.iter().cloned());
        model.tags.insert(self.tag, model.submitted.len());
        model.hards.extend(hard);
        model.hard_tags.insert(self.tag, model.hards.len());
        let batch = JournalBatch {
            gid,
            tag: Some(self.tag),
            create: None,
            drop: false,
            truncate_from,
            mark: None,
            hard,
            snapshot: None,
            entries,
        };
        self.tell(DirEvent::Batch(batch));
    }

    fn commit(&mut self) {
        let gid = Gid(self.rng.between(1, 3));
        let model = self.groups.get_mut(&gid).unwrap();
        // Only what is acknowledged, and not about to be cut, can be committed.
        let acked = fold(&model.base, &model.submitted[..model.acked]);
        let now = model.now();
        let stable = acked.iter().zip(&now).take_while(|(a, b)| a == b).count();
        let Some(last) = stable.checked_sub(1).map(|at| now[at].index.0) else { return };
        if last > model.committed {
            model.committed = self.rng.between(model.committed, last);
            let index = EntryIndex(model.committed);
            self.tell(DirEvent::Committed(gid, index));
            if self.rng.chance(100_000) {
                self.snap(gid);
            }
        }
    }

    fn trim(&mut self) {
        let gid = Gid(self.rng.between(1, 3));
        let model = self.groups.get_mut(&gid).unwrap();
        let Some(at) = model.now().iter().find(|e| e.index.0 == model.committed).map(|e| e.base_offset) else { return };
        let offset = Offset(self.rng.below(at.0 + 1));
        if offset > model.trimmed {
            model.trimmed = offset;
            self.tell(DirEvent::Trim(gid, offset, None));
        }
    }

    fn close(&mut self) {
        self.stop();
        self.disk.kill();
        self.restart(true);
    }

    fn stop(&mut self) {
        self.tell(DirEvent::CloseJournal);
        self.settle();
        let lsn =
            self.closed[0].unwrap_or_else(|| panic!("seed {}: the journal does not close: {:?}", self.seed, self.dir));
        for gid in 1..=3 {
            self.snap(Gid(gid));
        }
        self.tell(DirEvent::CloseSegments);
        self.settle();
        self.closed[1].expect("the segments close");
        self.mark(true, lsn, lsn);
    }

    fn crash(&mut self) {
        // Operations in flight: some reached the disk, some did not; nobody heard of either.
        while !self.flight.is_empty() && self.rng.chance(500_000) {
            let at = self.rng.below(self.flight.len() as u64) as usize;
            let (_, op) = self.flight.remove(at);
            let _ = self.disk.run(op);
        }
        let power = self.rng.chance(600_000);
        self.power = power;
        if power {
            let cut = [Cut::LoseAll, Cut::KeepAll, Cut::Random, Cut::GarbageTail][self.rng.below(4) as usize];
            self.disk.power_cut(cut);
        } else {
            self.disk.kill();
        }
        self.restart(false);
    }

    fn restart(&mut self, clean: bool) {
        self.restarts += 1;
        self.flight.clear();
        self.waiting = false;
        self.closed = [None; 2];
        self.stopped = false;
        self.disk.set_rates(FaultRates::default());
        let fenced = recover(&self.disk.memory().fork(), &self.layout, NEW).unwrap();
        let mut found = recover_whole(&*self.disk, &self.layout, NEW).unwrap();
        let seed = self.seed;
        check_fenced(seed, &fenced.groups, &found.groups);
        if std::env::var_os("CATCHWATER_TRACE").is_some() {
            let live: Vec<_> =
                found.journal.live.iter().map(|f| (&f.path[19..], f.file_gen, f.first_lsn, f.last_lsn)).collect();
            println!(
                "restart {} clean {clean} {:?} live {live:?} free {:?} left {:?} report {:?}",
                self.restarts, found.survivor, found.journal.free, found.leftovers, found.report
            );
        }
        for gid in self.groups.keys().copied().collect::<Vec<_>>() {
            let group = found.groups.iter().find(|(g, _)| g.gid == gid).map(|(g, _)| g);
            let model = self.groups.get_mut(&gid).unwrap();
            if model.dropped {
                assert!(group.is_none() || !model.drop_acked, "seed {seed}: group {gid} came back");
                continue;
            }
            let Some(group) = group else {
                assert!(
                    model.acked == 0 && model.base.is_empty(),
                    "seed {seed}: group {gid} is gone at restart {}: {:?} {:?} {:?}",
                    self.restarts,
                    found.journal,
                    found.report,
                    self.disk.memory().files().iter().map(|(n, b)| (n.clone(), b.len())).collect::<Vec<_>>()
                );
                let trimmed = model.trimmed;
                assert_eq!(trimmed, Offset::ZERO);
                *model = Model { term: model.term, ..Model::default() };
                continue;
            };
            if group.verdict != Verdict::Ok {
                let files: Vec<_> = self.disk.memory().files().iter().map(|(n, b)| (n.clone(), b.len())).collect();
                let rows: Vec<_> = group.segments.iter().map(|s| (s.base_index, s.sealed, s.rows.len())).collect();
                let journaled: Vec<_> = group.journaled.iter().map(|e| e.index.0).collect();
                panic!(
                    "seed {seed}: group {gid} is {:?} at restart {}: {rows:?} {journaled:?} {:?} {:?} {files:?} acked {} submitted {:?} base {:?}",
                    group.verdict,
                    self.restarts,
                    found.journal,
                    found.report,
                    model.acked,
                    model.submitted.iter().map(|e| (e.index.0, e.term.0)).collect::<Vec<_>>(),
                    model.base.iter().map(|e| (e.index.0, e.term.0)).collect::<Vec<_>>(),
                );
            }
            assert_eq!(group.spec, spec(gid.0));
            let log = contents(&*self.disk, &self.layout, group);
            check_least_times(&*self.disk, group, &log);
            // A trim whose manifest was read but never synced may come undone with the power; it is asked for again then.
            let known = model.base.first().map_or(EntryIndex(1), |e| e.index);
            let first = group.first_index.max(known);
            assert!(group.log_start <= model.trimmed, "seed {seed}");
            let tail = |log: Vec<NewEntry>| log.into_iter().filter(|e| e.index >= first).collect::<Vec<_>>();
            // What is held while the mode changes is not acknowledged, and need not outlive a clean stop.
            let loose = self.loose.contains(&gid);
            let from = if clean && !loose { model.submitted.len() } else { model.acked };
            let found = tail(log.clone());
            if loose {
                // What is missing was acknowledged within the window. A cut may have lasted without what came behind it.
                let mine: Vec<NewEntry> = tail(fold(&model.base, &model.submitted[..model.acked]));
                let wanted = model.now();
                let gone: Vec<&NewEntry> = mine.iter().filter(|e| !found.contains(e) && wanted.contains(e)).collect();
                let lost: u64 = gone.iter().map(|e| e.body.len() as u64).sum();
                if std::env::var_os("CATCHWATER_TRACE").is_some() {
                    let short = |log: &[NewEntry]| log.iter().map(|e| (e.index.0, e.term.0)).collect::<Vec<_>>();
                    let gone: Vec<_> = gone.iter().map(|e| (e.index.0, e.term.0, e.body.len())).collect();
                    println!(
                        "gid {gid} power {} acked {:?} found {:?} gone {gone:?}",
                        self.power,
                        short(&mine),
                        short(&found)
                    );
                }
                assert!(lost <= LOOSE.bytes, "seed {seed} gid {gid}: {lost} acknowledged bytes are lost");
                assert!(
                    (self.power && !clean) || gone.is_empty(),
                    "seed {seed} gid {gid}: a kill took {} entries",
                    gone.len()
                );
                self.lost += lost;
            }
            let agrees = (from..=model.submitted.len())
                .any(|k| tail(fold(&model.base, &model.submitted[..k])) == found)
                || (loose
                    && (0..=model.submitted.len())
                        .any(|k| tail(fold(&model.base, &model.submitted[..k])).starts_with(&found)));
            if !agrees {
                let want: Vec<_> = model.now().iter().map(|e| (e.index.0, e.term.0)).collect();
                let got: Vec<_> = log.iter().map(|e| (e.index.0, e.term.0)).collect();
                panic!(
                    "seed {seed} gid {gid} restart {}: acked {} of {}\nwant {want:?}\ngot {got:?}",
                    self.restarts,
                    model.acked,
                    model.submitted.len()
                );
            }
            let terms: Vec<u32> = model.hards[model.hards_acked.saturating_sub(1)..].iter().map(|h| h.term).collect();
            let last_term = log.last().map_or(group.prev_term, |e| e.term.0);
            if model.hards_acked > 0 {
                assert!(terms.contains(&group.hard.term) || group.hard.term == last_term, "seed {seed}: hard state");
            }
            assert!(group.hard.commit.0 <= log.last().map_or(first.0 - 1, |e| e.index.0).max(model.committed));
            if let Some((at, payload)) = &group.snap {
                assert_eq!(&payload[..], at.0.to_le_bytes(), "seed {seed}: snapshot");
                assert!(at.0 <= model.committed);
            }
            check_since(seed, group, &log);
            model.base = log;
            model.submitted.clear();
            model.tags.clear();
            model.acked = 0;
            model.term = model.term.max(group.hard.term);
            // A relaxed group's hard state may have been derived from its rows: the next write carries one, as a lone
            // voter's does after each start.
            model.hards = if group.hard.term == 0 || loose { Vec::new() } else { vec![group.hard] };
            model.hard_tags.clear();
            model.hards_acked = model.hards.len();
        }
        let found_gids: Vec<Gid> = found.groups.iter().map(|(g, _)| g.gid).collect();
        let (last, checkpoint) = (found.journal.last_lsn, found.checkpoint_lsn);
        settle_relaxed(&*self.disk, &self.layout, &mut found.groups).unwrap();
        self.boot = found.boot;
        self.last_lsn = last;
        self.mark(false, last, checkpoint);
        settle(&*self.disk, &self.layout, &found.leftovers, &found.journal.free).unwrap();
        self.dir = Dir::open(&self.layout, &self.config, found, self.now());
        self.tell(DirEvent::Wake);
        for gid in self.groups.keys().copied().collect::<Vec<_>>() {
            if !found_gids.contains(&gid) && !self.groups[&gid].dropped {
                self.tell(DirEvent::Create(gid, spec(gid.0)));
            }
        }
        // As the topics' settings say at a start.
        for gid in self.loose.clone() {
            self.tell(DirEvent::Durability(gid, Durability::Relaxed(LOOSE)));
        }
    }

    fn step(&mut self) {
        self.clock += self.rng.below(8);
        match self.rng.below(100) {
            0..=29 => self.append(),
            30..=39 => self.commit(),
            40 => self.trim(),
            41..=42 => self.tell(DirEvent::Wake),
            43..=96 => self.complete_one(),
            97 if self.rng.chance(300_000) => self.close(),
            98 if self.rng.chance(400_000) => self.crash(),
            _ => {}
        }
        if self.dir.used_percent() >= 90 {
            self.settle(); // what the broker does by refusing to produce
        }
        if self.stopped {
            self.crash();
        }
    }
}

#[test]
fn random_operations_equal_a_list() {
    let seeds: u64 = std::env::var("CATCHWATER_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(12);
    let from: u64 = std::env::var("CATCHWATER_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let (mut placed, mut restarts, mut checkpoints) = (0, 0, 0);
    for seed in from..from + seeds {
        let mut world = World::new(seed);
        for _ in 0..800 {
            world.step();
        }
        world.crash();
        world.settle();
        // What a seal says of an idle journal.
        world.clock += 20;
        world.tell(DirEvent::Wake);
        world.settle();
        let files = world.dir.journal_files();
        assert!(files <= world.config.journal_files + 1, "seed {seed}: {files} journal files");
        world.close();
        (placed, restarts) = (placed + world.placed, restarts + world.restarts);
        checkpoints += world.checkpoints;
    }
    assert!(placed > seeds * 50 && restarts > seeds * 3, "the load did something: {placed}, {restarts}");
    assert!(checkpoints > seeds * 2, "{checkpoints} checkpoints");
}

/// A directory in the middle of its life: sealed, open and trimmed segments, entries that only the journal has.
fn busy(seed: u64) -> World {
    let world = busy_with(World::new(seed), 500);
    assert!(world.groups.values().all(|m| m.acked == m.submitted.len()));
    world
}

fn busy_with(mut world: World, steps: usize) -> World {
    for _ in 0..steps {
        match world.rng.below(100) {
            0..=39 => world.append(),
            40..=50 => world.commit(),
            51 => world.trim(),
            _ => world.complete_one(),
        }
        if world.dir.used_percent() >= 90 {
            world.settle();
        }
    }
    world.settle();
    for _ in 0..4 {
        world.append();
    }
    // Only the journal's operations: the last entries stay there. Without the seal at the end, damage to the last flush
    // could not be told from a torn write, and would be.
    world.journal_only();
    world.clock += 20;
    world.tell(DirEvent::Wake);
    world.journal_only();
    world
}

impl World {
    fn journal_only(&mut self) {
        let world = self;
        while let Some(at) = world.flight.iter().position(|(token, _)| matches!(token, DirToken::Journal(_))) {
            let (token, op) = world.flight.remove(at);
            let result = world.disk.run(op);
            world.tell(DirEvent::Done(token, result));
        }
    }
}

#[test]
fn after_a_failed_write_nothing_is_acknowledged_and_a_restart_loses_nothing() {
    for seed in 0..12 {
        let mut world = World::new(seed);
        for _ in 0..150 {
            world.step();
        }
        world.disk.fail_write_in(world.rng.below(12));
        let errors = world.disk.errors();
        for _ in 0..200 {
            world.append();
            world.complete_one();
            if world.disk.errors() > errors {
                break;
            }
        }
        if world.disk.errors() == errors {
            continue;
        }
        assert!(world.stopped, "seed {seed}");
        let acked: Vec<usize> = world.groups.values().map(|m| m.acked).collect();
        for _ in 0..50 {
            world.append();
            world.complete_one();
        }
        let after: Vec<usize> = world.groups.values().map(|m| m.acked).collect();
        assert_eq!(acked, after, "seed {seed}: acknowledged after a failure");
        world.crash();
        world.settle();
    }
}

/// Durability changes back and forth, with kills and power cuts in between: a kill loses nothing, a power cut at most the
/// window of a relaxed group, and nothing of the others.
#[test]
fn a_relaxed_group_loses_a_window_to_a_power_cut_and_nothing_else() {
    let (mut lost, mut switched) = (0, 0);
    let from: u64 = std::env::var("CATCHWATER_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(5000);
    let seeds: u64 = std::env::var("CATCHWATER_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(10);
    for seed in from..from + seeds {
        let mut world = World::new(seed);
        world.loose = vec![Gid(2), Gid(3)];
        for gid in [2, 3] {
            world.tell(DirEvent::Durability(Gid(gid), Durability::Relaxed(LOOSE)));
        }
        for _ in 0..700 {
            world.step();
            if world.rng.chance(10_000) {
                let gid = Gid(world.rng.between(2, 3));
                let relaxed = world.rng.chance(600_000);
                let want = if relaxed { Durability::Relaxed(LOOSE) } else { Durability::Fsync };
                world.tell(DirEvent::Durability(gid, want));
                switched += 1;
            }
            if world.rng.chance(100_000) {
                world.tell(DirEvent::Wake);
            }
        }
        for _ in 0..200 {
            world.settle();
            world.clock += 30;
            world.tell(DirEvent::Wake);
        }
        let acked: Vec<usize> = world.groups.values().map(|m| m.acked).collect();
        let submitted: Vec<usize> = world.groups.values().map(|m| m.submitted.len()).collect();
        assert_eq!(acked, submitted, "seed {seed}: everything is acknowledged in the end: {:?}", world.dir);
        // Silence has said SYNCED: a power cut takes nothing now.
        world.power = false;
        world.disk.power_cut(Cut::LoseAll);
        world.restart(false);
        lost += world.lost;
    }
    assert!(lost > 0, "no power cut took anything: the test proves nothing");
    assert!(switched > 20, "{switched}");
}

/// The disk is full again and again, in the middle of whatever is under way: everything goes on once there is room, also
/// over a crash with the disk full, and nothing acknowledged is lost.
#[test]
fn a_full_disk_holds_groups_up_and_loses_nothing() {
    let (mut stalls, mut crashes) = (0, 0);
    for seed in 0..12 {
        let mut world = World::new(1000 + seed);
        for _ in 0..600 {
            world.step();
            match world.rng.below(100) {
                0..=2 => {
                    world.disk.set_rates(FaultRates { no_space: 700_000, ..FaultRates::default() });
                }
                3..=4 => {
                    world.disk.set_rates(FaultRates::default());
                    world.waiting = false;
                    world.tell(DirEvent::SpaceBack);
                }
                // A try that comes too early.
                5 => world.tell(DirEvent::SpaceBack),
                _ => {}
            }
            assert!(!world.stopped, "seed {seed}: a full disk is no failure");
        }
        stalls += world.no_space;
        crashes += world.restarts;
        world.settle();
        let acked: Vec<usize> = world.groups.values().map(|m| m.acked).collect();
        let submitted: Vec<usize> = world.groups.values().map(|m| m.submitted.len()).collect();
        assert_eq!(acked, submitted, "seed {seed}: everything is acknowledged in the end");
        assert_eq!(world.dir.unplaced_bytes(), 0, "seed {seed}: and in files");
        world.crash();
        world.close();
    }
    assert!(stalls > 100 && crashes > 12, "{stalls} stalls, {crashes} restarts");
}

/// While a group stands because the disk is full, its old segments can go; that is what makes room.
#[test]
fn a_group_that_waits_for_room_gives_back_what_retention_lets_go() {
    let mut world = World::new(4);
    let sealed = |world: &World| {
        let names = world.disk.memory().files();
        names.iter().filter(|(n, _)| n.contains("0000000000000001/") && n.ends_with(".log")).count()
    };
    while sealed(&world) < 4 {
        world.append();
        world.settle();
        let model = world.groups.get_mut(&Gid(1)).unwrap();
        model.committed = model.now().last().map_or(0, |e| e.index.0);
        let committed = EntryIndex(model.committed);
        world.tell(DirEvent::Committed(Gid(1), committed));
        world.settle();
    }
    world.disk.set_rates(FaultRates { no_space: 1_000_000, ..FaultRates::default() });
    while world.no_space == 0 {
        world.append();
        while !world.flight.is_empty() {
            world.complete_one();
        }
    }
    let before = sealed(&world);
    let end = world.groups[&Gid(1)].now().last().unwrap().base_offset;
    world.disk.set_rates(FaultRates::default());
    world.tell(DirEvent::Trim(Gid(1), end, None));
    while !world.flight.is_empty() {
        world.complete_one();
    }
    assert!(sealed(&world) < before, "{before} segments before, {} after", sealed(&world));
    assert!(world.dir.segments.is_stalled(), "the group still stands");
    world.tell(DirEvent::SpaceBack);
    world.waiting = false;
    world.settle();
    assert!(!world.dir.segments.is_stalled());
}

/// A lost entry of a lone replica: what is proved stays readable, what lies behind is kept aside, nothing is cut, and the
/// group stays closed over any number of starts.
#[test]
fn a_lost_entry_puts_its_group_aside_and_only_that() {
    let world = busy(7);
    let disk = world.disk.memory().clone();
    disk.kill();
    // An entry of group 1 that only the journal has, with more of the group behind it.
    let found = recover_whole(&*disk, &world.layout, NEW).unwrap();
    disk.kill();
    let group = &found.groups.iter().find(|(g, _)| g.gid == Gid(1)).unwrap().0;
    let placed: u64 = group.segments.iter().map(|s| s.rows.len() as u64).sum::<u64>() + group.first_index.0 - 1;
    let victims: Vec<&NewEntry> =
        group.journaled.iter().rev().skip(1).filter(|e| e.body.len() > 100 && e.index.0 > placed).collect();
    let body = victims.first().expect("the load leaves some in the journal").body.clone();
    let index = victims[0].index;
    for (name, bytes) in disk.files().into_iter().filter(|(name, _)| !name.contains("boot") && !name.contains("meta")) {
        if let Some(at) = bytes.windows(body.len()).position(|w| w == &body[..]) {
            disk.damage(&name, |bytes| bytes[at + 70] ^= 1);
        }
    }
    {
        let found = recover_whole(&*disk, &world.layout, NEW).unwrap();
        for (group, files) in &found.groups {
            let suspect = group.gid == Gid(1);
            assert_eq!(group.verdict, if suspect { Verdict::Suspect } else { Verdict::Ok });
            assert_eq!(files.quarantine.is_some(), suspect);
        }
        settle(&*disk, &world.layout, &found.leftovers, &found.journal.free).unwrap();
        quarantine(&*disk, &world.layout, &found.groups).unwrap();
        // The others go on until the journal has been used all over again.
        let mut dir = Dir::open(&world.layout, &world.config, found, Now::default());
        let mut out = Effects::new();
        let mut next: BTreeMap<Gid, (u64, u64)> = world
            .groups
            .iter()
            .map(|(gid, m)| (*gid, m.now().last().map_or((1, 0), |e| (e.index.0 + 1, e.end_offset().0))))
            .collect();
        let mut rng = Rng::new(5);
        dir.handle(Now::default(), DirEvent::Wake, &mut out);
        for n in 0..300u64 {
            let gid = Gid(2 + n % 2);
            let (index, offset) = next[&gid];
            let entry = entry(&mut rng, index, 100, offset, false);
            next.insert(gid, (index + 1, entry.end_offset().0));
            let batch = JournalBatch { gid, tag: Some(n), entries: vec![entry], ..JournalBatch::default() };
            dir.handle(Now::default(), DirEvent::Batch(batch), &mut out);
            loop {
                let ops: Vec<_> = out.drain().collect();
                if ops.is_empty() {
                    break;
                }
                for effect in ops {
                    match effect {
                        DirEffect::Disk { token, op, .. } => {
                            let result = disk.run(op);
                            dir.handle(Now::default(), DirEvent::Done(token, result), &mut out);
                        }
                        DirEffect::Stop(e) => panic!("{e}"),
                        _ => {}
                    }
                }
            }
        }
        disk.kill();
    }
    for _ in 0..2 {
        let found = recover_whole(&*disk, &world.layout, NEW).unwrap();
        let (group, _) = found.groups.iter().find(|(g, _)| g.gid == Gid(1)).unwrap();
        assert_eq!(group.verdict, Verdict::Suspect, "it stays aside");
        disk.kill();
    }
    let salvage = disk.read_all("/data/log/p/0000000000000001/salvage").unwrap().unwrap();
    let header = crate::format::journal::FlushHeader::decode(&salvage).unwrap();
    let content = crate::format::journal::decode_flush(&header, &salvage);
    let kept: Vec<NewEntry> = content
        .frames
        .into_iter()
        .map(|f| match f {
            crate::entry::Frame::Entry(_, e) => e,
            other => panic!("{other:?}"),
        })
        .collect();
    let last = world.groups[&Gid(1)].now().last().unwrap().index;
    assert!(kept.iter().any(|e| e.index == last) && !kept.iter().any(|e| e.index == index));
}

mod contents;
mod damage;
mod every;
mod gone;
mod missing;
mod reads;
mod repair;
mod trim;
