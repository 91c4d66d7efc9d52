//! Pure. Journal and segment machines of one log directory behind one event and one effect: for the simulator and for tests.
//!
//! The product runs the two machines on two threads (`raft/driver.rs`), with exactly this wiring between them; here one
//! caller runs them, performs each operation when it pleases and hands completions back in any order.

use crate::disk::{DiskDone, DiskError, DiskOp};
use crate::entry::{GroupSpec, PlacedRow, Replaced};
use crate::journal::{Journal, JournalBatch, JournalConfig, JournalEffect, JournalEvent, JournalPoint, Token};
use crate::recover::{Layout, Recovered};
use crate::relaxed::{Durability, Relaxed, RelaxedEffect, RelaxedEvent};
use crate::segment::{
    FoundGroup, Replacement, SegmentConfig, SegmentEffect, SegmentEvent, SegmentLimits, SegmentPoint, Segments,
};
use bytes::Bytes;
use catchwater_base::{Effects, Local, Mono, Now};
use catchwater_record::{EntryIndex, Gid, Offset};

/// Bounds of both machines.
#[derive(Clone, Debug)]
pub struct DirConfig {
    pub journal_file_bytes: u64,
    pub journal_files: usize,
    pub journal_files_max: usize,
    pub buffer_bytes: usize,
    pub segment_bytes: u32,
    pub rows_max: u32,
    pub write_bytes_max: usize,
    pub snap_bytes: u64,
    /// Groups with a segment operation in flight at one time.
    pub parallel: usize,
    /// Groups that are made durable together, at least.
    pub sweep_groups_min: usize,
}

impl DirConfig {
    /// Everything so small that a short run rolls, seals, fills and recycles.
    pub fn tiny() -> Self {
        DirConfig {
            journal_file_bytes: 64 << 10,
            journal_files: 3,
            journal_files_max: 6,
            buffer_bytes: 16 << 10,
            segment_bytes: 8 << 10,
            rows_max: 40,
            write_bytes_max: 4 << 10,
            snap_bytes: 32 << 10,
            parallel: 3,
            sweep_groups_min: 2,
        }
    }
}

/// Names one operation in flight.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum DirToken {
    Journal(Token),
    Segment(Token),
}

/// Which step of the engine an operation belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DirPoint {
    Journal(JournalPoint),
    Segment(SegmentPoint),
}

#[derive(Debug)]
pub enum DirEvent {
    /// Makes a group: its CREATE frame goes before everything else of it.
    Create(Gid, GroupSpec),
    Batch(JournalBatch),
    /// `storage.durability` of the group.
    Durability(Gid, Durability),
    Committed(Gid, EntryIndex),
    Snap(Gid, EntryIndex, Offset, Bytes),
    /// With [`crate::Log::snapshot_payload`] of now, if there is state.
    Trim(Gid, Offset, Option<(EntryIndex, Offset, Bytes)>),
    Switch(Gid, Box<Replacement>),
    Limits(Gid, SegmentLimits),
    /// The replica lost something (and comes back as Suspect, whatever happens), or has it again.
    Mute(Gid, bool),
    Done(DirToken, Result<DiskDone, DiskError>),
    Wake,
    /// There may be room on the disk again.
    SpaceBack,
    /// Journal first, then [`DirEvent::CloseSegments`] when `JournalClosed` came.
    CloseJournal,
    CloseSegments,
}

#[derive(Debug)]
pub enum DirEffect {
    Disk {
        token: DirToken,
        op: DiskOp,
        point: DirPoint,
    },
    /// The batch with this tag, and all of the group before it, is durable.
    Persisted(Gid, u64),
    Placed(Gid, EntryIndex, Vec<PlacedRow>),
    WantSnap(Gid),
    /// A compacted segment is in force; `None` = refused.
    Switched(Gid, Option<Box<Replaced>>),
    Removed(Gid),
    /// Every entry in flushes up to this one is durable in segments: may be noted in `boot.state`.
    Checkpointed(u64),
    /// This flush is durable, the first of a journal file: may be noted in `boot.state`.
    Began(u64),
    /// An operation found no room and waits for [`DirEvent::SpaceBack`].
    NoSpace(DiskError),
    Stop(DiskError),
    JournalClosed(u64),
    SegmentsClosed,
}

/// See the file head.
#[derive(Debug)]
pub struct Dir {
    journal: Journal,
    segments: Segments,
    journal_out: Effects<JournalEffect>,
    segment_out: Effects<SegmentEffect>,
    relaxed: Relaxed,
    relaxed_out: Effects<RelaxedEffect>,
    used_percent: u8,
    stopped: bool,
}

impl Dir {
    /// Starts from what recovery found; send [`DirEvent::Wake`] once.
    pub fn open(layout: &Layout, config: &DirConfig, found: Recovered, now: Now) -> Self {
        let journal = Journal::open(
            JournalConfig {
                dir: layout.journal(),
                dir_id: found.meta.dir_id,
                file_bytes: config.journal_file_bytes,
                files: config.journal_files,
                files_max: config.journal_files_max,
                buffer_bytes: config.buffer_bytes,
            },
            found.journal,
        );
        let mut segments = Segments::new(SegmentConfig {
            segment_bytes: config.segment_bytes,
            rows_max: config.rows_max,
            write_bytes_max: config.write_bytes_max,
            snap_bytes: config.snap_bytes,
            parallel: config.parallel,
            sweep_groups_min: config.sweep_groups_min,
            ..SegmentConfig::new(layout.groups())
        });
        let mut segment_out = Effects::new();
        let (mut relaxed, mut relaxed_out) = (Relaxed::default(), Effects::new());
        for (group, files) in found.groups.iter().filter(|(_, g)| g.quarantine.is_none()) {
            if let Some(loose) = files.loose {
                let last = group.last_index();
                relaxed.handle(now, RelaxedEvent::Found(group.gid, loose, last), &mut relaxed_out);
            }
        }
        for (_, group) in found.groups.into_iter().filter(|(_, g)| g.quarantine.is_none()) {
            segments.handle(now, SegmentEvent::Open(Box::new(group)), &mut segment_out);
        }
        Dir {
            journal,
            segments,
            journal_out: Effects::new(),
            segment_out,
            relaxed,
            relaxed_out,
            used_percent: 0,
            stopped: false,
        }
    }

    /// Share of the journal in use.
    pub fn used_percent(&self) -> u8 {
        self.used_percent
    }
    /// Journal files on the disk.
    pub fn journal_files(&self) -> usize {
        self.journal.file_count()
    }
    /// Bytes that are durable and not in files yet.
    pub fn unplaced_bytes(&self) -> u64 {
        self.segments.queued_bytes()
    }

    fn drain(&mut self, now: Now, out: &mut Effects<DirEffect>) {
        while !self.journal_out.is_empty() || !self.segment_out.is_empty() || !self.relaxed_out.is_empty() {
            for effect in self.relaxed_out.drain().collect::<Vec<_>>() {
                let (journal, segments) = (&mut self.journal, &mut self.segments);
                match effect {
                    RelaxedEffect::Journal(batch) => {
                        if batch.truncate_from.is_some() {
                            segments.handle(now, SegmentEvent::CutComing(batch.gid), &mut self.segment_out);
                        }
                        journal.handle(now, JournalEvent::Queue(vec![batch]), &mut self.journal_out);
                    }
                    RelaxedEffect::Segment(piece) => {
                        if piece.truncate_from.is_some() {
                            segments.handle(now, SegmentEvent::CutComing(piece.gid), &mut self.segment_out);
                        }
                        segments.handle(now, SegmentEvent::Queue(vec![*piece]), &mut self.segment_out);
                    }
                    RelaxedEffect::Mode(gid, on) => {
                        segments.handle(now, SegmentEvent::Mode(gid, on), &mut self.segment_out);
                    }
                    RelaxedEffect::Flush { gid, all } => {
                        segments.handle(now, SegmentEvent::Flush { gid, all }, &mut self.segment_out);
                    }
                    RelaxedEffect::Forgotten(_) => {}
                    RelaxedEffect::Persisted { gid, tag, .. } => out.push(DirEffect::Persisted(gid, tag)),
                }
            }
            for effect in self.journal_out.drain().collect::<Vec<_>>() {
                match effect {
                    JournalEffect::Disk { token, op, point, .. } => {
                        let (token, point) = (DirToken::Journal(token), DirPoint::Journal(point));
                        out.push(DirEffect::Disk { token, op, point });
                    }
                    JournalEffect::Persisted(groups) => {
                        let mut ours = Vec::new();
                        for group in &groups {
                            let (relaxed, gid) = (&self.relaxed, group.gid);
                            let waits = |tag: &&u64| relaxed.waits_for(gid, **tag);
                            ours.extend(group.tags.iter().filter(waits).map(|tag| (gid, *tag)));
                            if let Some(tag) = group.tags.iter().rfind(|tag| !waits(tag)) {
                                out.push(DirEffect::Persisted(gid, *tag));
                            }
                        }
                        self.segments.handle(now, SegmentEvent::Queue(groups), &mut self.segment_out);
                        for (gid, tag) in ours {
                            self.relaxed.handle(now, RelaxedEvent::Journaled(gid, tag), &mut self.relaxed_out);
                        }
                    }
                    JournalEffect::Checkpoint(gids) => {
                        self.segments.handle(now, SegmentEvent::Sync(gids), &mut self.segment_out);
                    }
                    JournalEffect::Checkpointed(lsn) => out.push(DirEffect::Checkpointed(lsn)),
                    JournalEffect::Began(lsn) => out.push(DirEffect::Began(lsn)),
                    JournalEffect::Used(percent) => self.used_percent = percent,
                    JournalEffect::NoSpace(error) => out.push(DirEffect::NoSpace(error)),
                    JournalEffect::Stop(error) => self.stop(error, out),
                    JournalEffect::Closed(lsn) => out.push(DirEffect::JournalClosed(lsn)),
                }
            }
            for effect in self.segment_out.drain().collect::<Vec<_>>() {
                match effect {
                    SegmentEffect::Disk { token, op, point } => {
                        let (token, point) = (DirToken::Segment(token), DirPoint::Segment(point));
                        out.push(DirEffect::Disk { token, op, point });
                    }
                    SegmentEffect::Placed(gid, upto, rows) => {
                        out.push(DirEffect::Placed(gid, upto, rows));
                        self.relaxed.handle(now, RelaxedEvent::Placed(gid, upto), &mut self.relaxed_out);
                    }
                    SegmentEffect::CutDone(gid) => {
                        self.relaxed.handle(now, RelaxedEvent::CutDone(gid), &mut self.relaxed_out);
                    }
                    SegmentEffect::Flushed(gid, upto) => {
                        self.relaxed.handle(now, RelaxedEvent::Flushed(gid, upto), &mut self.relaxed_out);
                    }
                    SegmentEffect::Drained(gid, lsn) => {
                        self.journal.handle(now, JournalEvent::Drained(gid, lsn), &mut self.journal_out);
                    }
                    SegmentEffect::Switched(gid, info) => out.push(DirEffect::Switched(gid, info)),
                    SegmentEffect::WantSnap(gid) => out.push(DirEffect::WantSnap(gid)),
                    SegmentEffect::Sealed(..) | SegmentEffect::Unreadable(..) => {}
                    SegmentEffect::Removed(gid) => out.push(DirEffect::Removed(gid)),
                    // Nobody asks for it here.
                    SegmentEffect::Left(_) => {}
                    SegmentEffect::NoSpace(error) => out.push(DirEffect::NoSpace(error)),
                    SegmentEffect::Stop(error) => self.stop(error, out),
                    SegmentEffect::Closed => out.push(DirEffect::SegmentsClosed),
                }
            }
        }
    }

    fn stop(&mut self, error: DiskError, out: &mut Effects<DirEffect>) {
        if !std::mem::replace(&mut self.stopped, true) {
            out.push(DirEffect::Stop(error));
        }
    }
}

impl Local for Dir {
    type Event = DirEvent;
    type Effect = DirEffect;

    fn handle(&mut self, now: Now, event: DirEvent, out: &mut Effects<DirEffect>) {
        if self.stopped {
            return; // one failure stops both: nothing is acknowledged any more
        }
        let (journal, segments) = (&mut self.journal, &mut self.segments);
        let (journal_out, segment_out) = (&mut self.journal_out, &mut self.segment_out);
        match event {
            DirEvent::Create(gid, spec) => {
                let group = Box::new(FoundGroup::fresh(gid, spec.clone()));
                segments.handle(now, SegmentEvent::Open(group), segment_out);
                let batch = JournalBatch { gid, create: Some(spec), ..JournalBatch::default() };
                journal.handle(now, JournalEvent::Queue(vec![batch]), journal_out);
            }
            DirEvent::Durability(gid, durability) => {
                self.relaxed.handle(now, RelaxedEvent::Want(gid, durability), &mut self.relaxed_out);
            }
            DirEvent::Batch(batch) if batch.drop => {
                self.relaxed.handle(now, RelaxedEvent::Dropped(batch.gid), &mut self.relaxed_out);
                journal.handle(now, JournalEvent::Queue(vec![batch]), journal_out);
            }
            DirEvent::Batch(batch) if self.relaxed.owns(batch.gid) => {
                self.relaxed.handle(now, RelaxedEvent::Persist(batch), &mut self.relaxed_out);
            }
            DirEvent::Batch(batch) => {
                if batch.truncate_from.is_some() {
                    segments.handle(now, SegmentEvent::CutComing(batch.gid), segment_out);
                }
                journal.handle(now, JournalEvent::Queue(vec![batch]), journal_out);
            }
            DirEvent::Committed(gid, index) => {
                segments.handle(now, SegmentEvent::Committed(gid, index), segment_out);
            }
            DirEvent::Snap(gid, index, offset, payload) => {
                segments.handle(now, SegmentEvent::Snap(gid, index, offset, payload), segment_out);
            }
            DirEvent::Switch(gid, new) => segments.handle(now, SegmentEvent::Switch(gid, new), segment_out),
            DirEvent::Limits(gid, limits) => segments.handle(now, SegmentEvent::Limits(gid, limits), segment_out),
            DirEvent::Trim(gid, offset, snap) => {
                segments.handle(now, SegmentEvent::Trim(gid, offset, snap), segment_out)
            }
            DirEvent::Mute(gid, on) => segments.handle(now, SegmentEvent::Mute(gid, on), segment_out),
            DirEvent::Done(DirToken::Journal(token), result) => {
                journal.handle(now, JournalEvent::Done(token, result), journal_out);
            }
            DirEvent::Done(DirToken::Segment(token), result) => {
                segments.handle(now, SegmentEvent::Done(token, result), segment_out);
            }
            DirEvent::Wake => {
                self.relaxed.handle(now, RelaxedEvent::Wake, &mut self.relaxed_out);
                journal.handle(now, JournalEvent::Wake, journal_out);
                segments.handle(now, SegmentEvent::Wake, segment_out);
            }
            DirEvent::SpaceBack => {
                journal.handle(now, JournalEvent::SpaceBack, journal_out);
                segments.handle(now, SegmentEvent::SpaceBack, segment_out);
            }
            DirEvent::CloseJournal => journal.handle(now, JournalEvent::Close, journal_out),
            DirEvent::CloseSegments => segments.handle(now, SegmentEvent::Close, segment_out),
        }
        self.drain(now, out);
    }

    fn deadline(&self) -> Option<Mono> {
        let all = [self.journal.deadline(), self.relaxed.deadline(), self.segments.deadline()];
        all.into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
