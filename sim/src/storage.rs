//! A node's disk and the machines that write to it: the journal and segment machines of the product over a disk in memory
//! that forgets what was not synced. What the driver's two threads do, done by events.
//!
//! An operation takes effect when its time has come, not when it is asked for, so a crash finds it undone, done, or torn.

use crate::engine::Micros;
use crate::swarm::Swarm;
use bytes::Bytes;
use catchwater_base::{Effects, Local, Mono, Now, Rng};
use catchwater_raft::{Event, ReadyNo};
use catchwater_record::{EntryIndex, Gid, Offset};
use catchwater_storage::compact::rows::{last_index, span};
use catchwater_storage::compact::{Choice, Policy, whole};
use catchwater_storage::compact_run::{CompactError, CompactRun, Job, Progress};
use catchwater_storage::dir::{Dir, DirConfig, DirEffect, DirEvent, DirToken};
use catchwater_storage::disk::faulty::{FaultRates, FaultyDisk};
use catchwater_storage::disk::memory::{Cut, MemoryDisk};
use catchwater_storage::disk::{Disk, DiskError, DiskExt, DiskOp};
use catchwater_storage::format::row;
use catchwater_storage::format::slot::{BootState, Side};
use catchwater_storage::journal::JournalBatch;
use catchwater_storage::log::CompactionInput;
use catchwater_storage::read::{read_batches, read_rows};
use catchwater_storage::recover::{
    Layout, NewIdentity, RecoverError, RelaxedLoss, quarantine, recover, settle, settle_relaxed, write_boot_state,
};
use catchwater_storage::relaxed::{Durability, Window};
use catchwater_storage::segment::{group_dir, segment_stem};
use catchwater_storage::{
    EntryKind, FileRead, GroupSpec, Hard, Log, NewEntry, PrefixSnapshot, RecoveredGroup, Row, RowRead,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the storage of a node wants from the world.
pub enum Wish {
    /// Call [`NodeStorage::done`] with this number after that time.
    Done(Micros, u64),
    /// For the replica.
    Event(Gid, Event),
    /// State of the replica at a committed index, please.
    Snapshot(Gid),
    /// A write failed: the process ends.
    Stopped(DiskError),
}

/// Why a node does not come up.
pub enum StartError {
    /// The disk failed: try again.
    Disk(DiskError),
    Broken(String),
}

const WAKE: u64 = u64::MAX;

/// What a `.snap` holds, and where it stands.
pub type State = (EntryIndex, Offset, Bytes);

fn removal(gid: Gid) -> DirEvent {
    DirEvent::Batch(JournalBatch { gid, drop: true, ..JournalBatch::default() })
}

struct Live {
    dir: Dir,
    flying: BTreeMap<u64, (DirToken, DiskOp)>,
    /// The wake under way, so that each moment is asked for once.
    wake: Option<Mono>,
    first: Vec<DirEvent>,
    /// What `boot.state` says, and where the next one goes.
    running: BootState,
    boot: (u64, Side),
}

/// A run of compaction under way.
struct Compacting {
    gid: Gid,
    run: CompactRun,
    /// A switch was asked for.
    waits: bool,
}

pub struct NodeStorage {
    rng: Rng,
    fsync: (Micros, Micros),
    fsync_tail: u32,
    config: DirConfig,
    node: u32,
    specs: Vec<(Gid, GroupSpec)>,
    disk: Arc<FaultyDisk>,
    layout: Layout,
    live: Option<Live>,
    next: u64,
    durability: Durability,
    /// Every second topic is not relaxed.
    half: bool,
    compacting: Option<Compacting>,
    /// What the start found lost of relaxed groups.
    pub lost: BTreeMap<Gid, RelaxedLoss>,
    /// When the machines last asked for something, and when this life ended.
    busy_at: Micros,
    rest_at_crash: bool,
}

/// Longer than the journal waits before it seals, than a slow sync, and than ticks take to come round.
const REST: Micros = 60_000;

impl NodeStorage {
    pub fn new(node: u32, seed: u64, swarm: &Swarm, groups: &[(Gid, GroupSpec)]) -> Self {
        let mut rng = Rng::new(seed);
        let rates = FaultRates {
            write_error: swarm.write_error,
            no_space: swarm.no_space,
            read_error: swarm.read_error,
            ..FaultRates::default()
        };
        let disk = FaultyDisk::new(Arc::new(MemoryDisk::new()), rates, rng.next_u64());
        let config = DirConfig {
            journal_file_bytes: swarm.journal_file_bytes,
            buffer_bytes: swarm.journal_file_bytes as usize / 4,
            segment_bytes: swarm.segment_bytes,
            snap_bytes: swarm.snap_bytes,
            ..DirConfig::tiny()
        };
        NodeStorage {
            rng,
            fsync: swarm.fsync,
            fsync_tail: swarm.fsync_tail,
            config,
            node,
            specs: groups.to_vec(),
            disk: Arc::new(disk),
            layout: Layout::new("/data"),
            live: None,
            next: 0,
            compacting: None,
            durability: swarm.relaxed.map_or(Durability::Fsync, Durability::Relaxed),
            half: swarm.half,
            lost: BTreeMap::new(),
            busy_at: 0,
            rest_at_crash: false,
        }
    }

    /// Recovers, as a process that starts does. Everything in here happens at one moment.
    /// `peers`: others hold what this node may have lost.
    pub fn recover(&mut self, now: Now, peers: bool) -> Result<Vec<RecoveredGroup>, StartError> {
        let id = NewIdentity { cluster_id: [7; 16], dir_id: [self.node as u8 + 1; 16], node: self.node };
        let mut found = recover(&*self.disk, &self.layout, id).map_err(|e| match e {
            RecoverError::Disk(e) => StartError::Disk(e),
            other => StartError::Broken(other.to_string()),
        })?;
        let running = BootState {
            boot_id: found.identity.boot_id,
            mount_id: found.identity.mount_id,
            last_lsn: found.journal.last_lsn,
            checkpoint_lsn: found.checkpoint_lsn,
            clean: false,
        };
        let disk = &*self.disk;
        let gids: Vec<Gid> = found.groups.iter().map(|(g, _)| g.gid).collect();
        self.lost.clone_from(&found.report.relaxed);
        if peers {
            gids.iter().for_each(|gid| found.suspect_relaxed(*gid));
        }
        quarantine(disk, &self.layout, &found.groups).map_err(StartError::Disk)?;
        if peers {
            for gid in gids {
                found.go_on_mute(gid);
            }
        }
        settle_relaxed(disk, &self.layout, &mut found.groups).map_err(StartError::Disk)?;
        let boot = write_boot_state(disk, &self.layout, found.boot, running).map_err(StartError::Disk)?;
        settle(disk, &self.layout, &found.leftovers, &found.journal.free).map_err(StartError::Disk)?;
        disk.mkdir(&self.layout.journal()).map_err(StartError::Disk)?;
        disk.mkdir(&self.layout.groups()).map_err(StartError::Disk)?;
        let mut groups: Vec<RecoveredGroup> = found.groups.iter().map(|(group, _)| group.clone()).collect();
        let known: BTreeSet<Gid> = groups.iter().map(|g| g.gid).collect();
        let mut first = vec![DirEvent::Wake];
        // It died between the end of a topic and that of its files.
        let wanted: BTreeSet<Gid> = self.specs.iter().map(|(gid, _)| *gid).collect();
        first.extend(known.difference(&wanted).map(|gid| removal(*gid)));
        groups.retain(|g| wanted.contains(&g.gid));
        for (gid, spec) in self.specs.iter().filter(|(gid, _)| !known.contains(gid)) {
            first.push(DirEvent::Create(*gid, spec.clone()));
            groups.push(RecoveredGroup::fresh(*gid, spec.clone()));
        }
        // As the product does, each time: what was found may be on its way to the other mode.
        first.extend(groups.iter().map(|g| DirEvent::Durability(g.gid, self.durability_of(g.gid))));
        let dir = Dir::open(&self.layout, &self.config, found, now);
        self.live = Some(Live { dir, flying: BTreeMap::new(), wake: None, first, running, boot });
        Ok(groups)
    }

    fn durability_of(&self, gid: Gid) -> Durability {
        if self.half && gid.0.is_multiple_of(2) { Durability::Fsync } else { self.durability }
    }

    /// One more replica, now and after every start.
    pub fn create(&mut self, now: Now, gid: Gid, spec: GroupSpec, out: &mut Vec<Wish>) {
        self.specs.push((gid, spec.clone()));
        self.drive(now, DirEvent::Create(gid, spec), out);
    }

    /// The replicas are there: the machines may begin.
    pub fn started(&mut self, now: Now, out: &mut Vec<Wish>) {
        if let Some(first) = self.live.as_mut().map(|l| std::mem::take(&mut l.first)) {
            first.into_iter().for_each(|event| self.drive(now, event, out));
        }
    }

    #[allow(clippy::too_many_arguments)]
    pub fn persist(
        &mut self,
        now: Now,
        gid: Gid,
        ready: ReadyNo,
        entries: Vec<NewEntry>,
        hard: Option<Hard>,
        truncate_from: Option<EntryIndex>,
        snapshot: Option<Box<PrefixSnapshot>>,
        out: &mut Vec<Wish>,
    ) {
        let tag = Some(ready.0);
        let batch = JournalBatch { gid, tag, truncate_from, hard, snapshot, entries, ..JournalBatch::default() };
        self.drive(now, DirEvent::Batch(batch), out);
    }

    pub fn mute(&mut self, now: Now, gid: Gid, on: bool, out: &mut Vec<Wish>) {
        self.drive(now, DirEvent::Mute(gid, on), out);
    }

    pub fn committed(&mut self, now: Now, gid: Gid, upto: EntryIndex, out: &mut Vec<Wish>) {
        self.drive(now, DirEvent::Committed(gid, upto), out);
    }

    /// `snap`: as the product gives it, the state of now if there is any.
    pub fn trim(&mut self, now: Now, gid: Gid, log_start: Offset, snap: Option<State>, out: &mut Vec<Wish>) {
        self.drive(now, DirEvent::Trim(gid, log_start, snap), out);
    }

    /// The topic is gone: now if the node is up, else when it comes up and finds what is left of it.
    pub fn remove(&mut self, now: Now, gid: Gid, out: &mut Vec<Wish>) {
        self.specs.retain(|(known, _)| *known != gid);
        self.drive(now, removal(gid), out);
    }

    /// A replica that this node is to have when it comes up.
    pub fn assign(&mut self, gid: Gid, spec: GroupSpec) {
        self.specs.push((gid, spec));
    }

    /// Names of the groups' directories on the disk.
    pub fn directories(&self) -> Vec<String> {
        self.disk.memory().list(&self.layout.groups()).unwrap_or_default()
    }

    pub fn snapshot(&mut self, now: Now, gid: Gid, state: State, out: &mut Vec<Wish>) {
        self.drive(now, DirEvent::Snap(gid, state.0, state.1, state.2), out);
    }

    /// All topics are relaxed from now on, also after a start, or none is.
    pub fn switch_durability(&mut self, now: Now, window: Option<Window>, out: &mut Vec<Wish>) -> Durability {
        self.durability = match (self.durability, window) {
            (Durability::Fsync, Some(window)) => Durability::Relaxed(window),
            _ => Durability::Fsync,
        };
        let gids: Vec<Gid> = self.specs.iter().map(|(gid, _)| *gid).collect();
        gids.into_iter().for_each(|gid| self.drive(now, DirEvent::Durability(gid, self.durability), out));
        self.durability
    }

    pub fn is_compacting(&self) -> bool {
        self.compacting.is_some()
    }

    /// A run of compaction begins, unless one is under way.
    pub fn compact(
        &mut self,
        gid: Gid,
        (choice, input): (Choice, CompactionInput),
        (policy, alone): (Policy, bool),
        now_ms: i64,
    ) {
        let job = Job {
            gid,
            dir: group_dir(&self.layout.groups(), gid),
            segments: input.segments,
            dirty_from: choice.dirty_from,
            policy,
            now_ms,
            secret: (1, 2),
            // A few keys at a time now and then: several passes.
            map_bytes_max: 1 << 12,
            output_bytes_max: 1 << 20,
            producers: input.producers,
            captures: input.captures,
            aborted: input.aborted,
            nature: whole,
            alone,
        };
        self.compacting.get_or_insert_with(|| Compacting { gid, run: CompactRun::new(job), waits: false });
    }

    /// Moves some bytes. True: a segment is to be put in force.
    pub fn compact_step(&mut self, now: Now, out: &mut Vec<Wish>) -> Result<bool, CompactError> {
        let Some(c) = self.compacting.as_mut().filter(|c| !c.waits) else { return Ok(false) };
        match c.run.step(&*self.disk, 2048) {
            Ok(Progress::More(_)) => Ok(false),
            Ok(Progress::Switch(replacement)) => {
                c.waits = true;
                let gid = c.gid;
                self.drive(now, DirEvent::Switch(gid, replacement), out);
                Ok(true)
            }
            Ok(Progress::Done(_)) => {
                self.compacting = None;
                Ok(false)
            }
            Err(error) => {
                self.compacting = None;
                Err(error)
            }
        }
    }

    /// An operation's time has come.
    pub fn done(&mut self, now: Now, token: u64, out: &mut Vec<Wish>) {
        let Some(live) = &mut self.live else { return };
        if token == WAKE {
            live.wake = None;
            self.drive(now, DirEvent::Wake, out);
        } else if let Some((owner, op)) = live.flying.remove(&token) {
            let result = self.disk.run(op);
            self.drive(now, DirEvent::Done(owner, result), out);
        }
    }

    fn drive(&mut self, now: Now, event: DirEvent, out: &mut Vec<Wish>) {
        let Some(live) = &mut self.live else { return };
        if matches!(event, DirEvent::Batch(_) | DirEvent::Create(..)) {
            self.busy_at = now.mono.since(Mono::ZERO).as_micros() as u64;
        }
        let mut effects = Effects::new();
        live.dir.handle(now, event, &mut effects);
        for effect in effects.drain() {
            match effect {
                DirEffect::Disk { token, op, .. } => {
                    let slow = matches!(
                        op,
                        DiskOp::Fdatasync { .. }
                            | DiskOp::WriteDirect { .. }
                            | DiskOp::SyncDir { .. }
                            | DiskOp::SyncFs { .. }
                    );
                    let (least, most) = if slow { self.fsync } else { (5, 200) };
                    let mut delay = self.rng.between(least, most);
                    if slow && self.rng.chance(self.fsync_tail) {
                        delay += 500_000;
                    }
                    self.next += 1;
                    live.flying.insert(self.next, (token, op));
                    out.push(Wish::Done(delay, self.next));
                }
                DirEffect::Persisted(gid, tag) => out.push(Wish::Event(gid, Event::Persisted(ReadyNo(tag)))),
                DirEffect::Placed(gid, upto, rows) => out.push(Wish::Event(gid, Event::Segmented(upto, rows))),
                DirEffect::Switched(gid, segment) => {
                    let run = self.compacting.as_mut().filter(|c| c.gid == gid && c.waits);
                    let ok = run.map(|c| {
                        c.waits = false;
                        c.run.switched(segment.is_some())
                    });
                    if matches!(ok, Some(Err(_))) {
                        self.compacting = None;
                    }
                    out.extend(segment.map(|segment| Wish::Event(gid, Event::Replaced(segment))));
                }
                DirEffect::WantSnap(gid) => out.push(Wish::Snapshot(gid)),
                DirEffect::Checkpointed(lsn) => {
                    live.running.last_lsn = live.running.last_lsn.max(lsn);
                    live.running.checkpoint_lsn = live.running.checkpoint_lsn.max(lsn);
                    match write_boot_state(&*self.disk, &self.layout, live.boot, live.running) {
                        Ok(next) => live.boot = next,
                        Err(error) => out.push(Wish::Stopped(error)),
                    }
                }
                DirEffect::Began(lsn) => {
                    live.running.last_lsn = live.running.last_lsn.max(lsn);
                    match write_boot_state(&*self.disk, &self.layout, live.boot, live.running) {
                        Ok(next) => live.boot = next,
                        Err(error) => out.push(Wish::Stopped(error)),
                    }
                }
                // The simulator's disks are never full yet; if one were, whoever watches it would say so.
                DirEffect::NoSpace(error) => out.push(Wish::Stopped(error)),
                DirEffect::Stop(error) => out.push(Wish::Stopped(error)),
                DirEffect::Removed(_) | DirEffect::JournalClosed(_) | DirEffect::SegmentsClosed => {}
            }
        }
        // What is due already waits for an operation in flight; its completion comes through here again.
        if let Some(at) = live.dir.deadline()
            && (at > now.mono || live.flying.is_empty())
            && live.wake.is_none_or(|before| before > at)
        {
            live.wake = Some(at);
            out.push(Wish::Done(at.since(now.mono).as_micros() as u64 + 1, WAKE));
        }
    }

    /// Nothing was written for so long that everything is durable and sealed.
    pub fn rested(&self, now: Micros) -> bool {
        self.rest_at_crash && now > self.busy_at + REST
    }

    /// The process dies, or the whole machine. What was under way is done, not done, or torn.
    pub fn crash(&mut self, power: bool) {
        self.compacting = None;
        let flying = self.live.take().map(|l| l.flying).unwrap_or_default();
        self.rest_at_crash = flying.is_empty();
        for (_, op) in flying.into_values() {
            match op {
                // A direct write that the power interrupts lies there like any un-synced one: in pieces.
                DiskOp::WriteDirect { path, at, buf } if power => {
                    if self.rng.chance(700_000) {
                        let bufs = vec![Bytes::copy_from_slice(buf.bytes())];
                        let _ = self.disk.memory().run(DiskOp::Write { path, at, bufs });
                    }
                }
                DiskOp::Write { path, at, bufs } => {
                    let all: Vec<u8> = bufs.concat();
                    let keep = self.rng.below(all.len() as u64 + 1) as usize;
                    let bufs = vec![Bytes::copy_from_slice(&all[..keep])];
                    let _ = self.disk.memory().run(DiskOp::Write { path, at, bufs });
                }
                op => {
                    if self.rng.chance(500_000) {
                        let _ = self.disk.memory().run(op);
                    }
                }
            }
        }
        if power {
            let cut = match self.rng.below(8) {
                0 => Cut::LoseAll,
                1 => Cut::KeepAll,
                2..=5 => Cut::Random,
                _ => Cut::GarbageTail,
            };
            self.disk.power_cut(cut);
        } else {
            self.disk.kill();
        }
    }

    /// Whole batches, checked as the driver checks them.
    pub fn read(&self, read: &FileRead) -> Result<Bytes, String> {
        read_batches(&*self.disk, &self.layout, read).map_err(|e| e.to_string())
    }

    /// All rows of a log from `from` to `upto`, from memory where it has them, else from files; `None` = a file cannot be read.
    pub fn rows(&self, log: &Log, from: EntryIndex, upto: EntryIndex) -> Option<Vec<Row>> {
        let mut out: Vec<Row> = Vec::new();
        let mut at = from;
        while at <= upto {
            if let Some(row) = log.row(at) {
                out.push(row);
            } else {
                let read = log.row_read(at, upto.next(), u64::MAX)?;
                out.extend(read_rows(&*self.disk, &self.layout, &read).ok()?);
            }
            at = last_index(out.last()?).next();
        }
        Some(out)
    }

    /// Whole entries for a cold read: body from `.log`, context from `.ext`.
    pub fn entries(&self, log: &Log, rows: &RowRead) -> Option<Vec<NewEntry>> {
        let gid = log.gid();
        read_rows(&*self.disk, &self.layout, rows)
            .ok()?
            .iter()
            .map(|row| {
                if span(row) > 1 {
                    return None; // nobody knows which offsets each of them took
                }
                let segments = log.segments();
                let s = segments.get(segments.partition_point(|s| s.base_index <= row.index).checked_sub(1)?)?;
                let stem =
                    format!("{}/{}", group_dir(&self.layout.groups(), gid), segment_stem(s.base_offset, s.generation));
                let body = match row.kind {
                    EntryKind::Data => {
                        self.disk.read(&format!("{stem}.log"), u64::from(row.pos), row.len as usize).ok()?
                    }
                    _ => Bytes::new(),
                };
                if row.kind == EntryKind::Data && !row::batch_matches(row, &body) {
                    return None;
                }
                let context = match row.ext_len {
                    0 => Bytes::new(),
                    len => {
                        let record =
                            self.disk.read(&format!("{stem}.ext"), u64::from(row.ext_pos), usize::from(len)).ok()?;
                        Bytes::copy_from_slice(row::decode_ext(row.index, &record)?)
                    }
                };
                let max_ts = catchwater_record::BatchView::new(&body).map_or(-1, |b| b.max_timestamp());
                Some(NewEntry {
                    index: row.index,
                    term: row.term,
                    kind: row.kind,
                    flags: row.flags,
                    base_offset: row.base_offset,
                    count: row.count,
                    max_ts,
                    body,
                    context,
                })
            })
            .collect()
    }

    /// The disk itself, for whoever damages it.
    pub fn disk(&self) -> &MemoryDisk {
        self.disk.memory()
    }

    /// No more faults.
    pub fn calm(&mut self) {
        self.fsync_tail = 0;
        self.disk.set_rates(FaultRates::default());
    }
}
