//! Pure. The journal's files: made ahead, used, drained, used again, removed.

use super::{BLOCK_BYTES, Journal, JournalEffect, JournalPoint, Lane, Token, Writing};
use crate::disk::{AlignedBuf, DiskError, DiskFault, DiskOp, FilePath};
use crate::format::journal::FileHeader;
use bytes::Bytes;
use catchwater_base::{Effects, Now, mutant};
use catchwater_record::Gid;
use std::collections::{BTreeMap, BTreeSet};

/// Ending of a file that is being made.
pub(crate) const NEW: &str = ".new";

/// Zeros are written to a new file in pieces of this size, bytes.
const PREPARE_BYTES: u64 = 1 << 20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FileState {
    /// Next step of preparing it.
    Preparing(PrepareStep),
    Ready,
    /// A used or ready one that becomes longer, to this many bytes: an entry waits that fits into none. `true` once it has
    /// its length and must be synced. What is added is not pre-written: the entry it is for covers most of it.
    Growing(u64, bool),
    Active,
    Full,
    /// Its name goes; `true` once it is gone and the directory must be synced.
    Removing(bool),
    /// A free place in the list: the others are known by their place.
    Gone,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PrepareStep {
    Create,
    Allocate,
    Zero(u64),
    Sync,
    /// From the name under which it was made: whatever a power cut leaves of a half-made one, no recovery takes it for a
    /// journal file that was destroyed.
    Name,
    SyncDir,
}

/// Where the next flush goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    Use(usize),
    /// This one, once it is longer.
    Grow(usize),
    None,
}

#[derive(Debug)]
pub(super) struct File {
    pub(super) path: FilePath,
    pub(super) len: u64,
    pub(super) state: FileState,
    pub(super) file_gen: u64,
    pub(super) last_lsn: u64,
    /// Where the next flush starts.
    pub(super) next: u64,
    pub(super) pins: BTreeMap<Gid, u64>,
    pub(super) checkpoint_asked: bool,
    /// A life before wrote it.
    pub(super) found: bool,
    /// It is being made, under its name with [`NEW`] behind.
    pub(super) unnamed: bool,
}

impl Journal {
    /// Files that stay.
    pub(super) fn kept(&self) -> usize {
        self.files.iter().filter(|f| !matches!(f.state, FileState::Gone | FileState::Removing(_))).count()
    }

    /// Full files, oldest first.
    pub(super) fn full(&self) -> Vec<usize> {
        let mut full: Vec<usize> = (0..self.files.len()).filter(|i| self.files[*i].state == FileState::Full).collect();
        full.sort_unstable_by_key(|i| self.files[*i].file_gen);
        full
    }

    /// Gives back full files, oldest first, and asks for those that hold too much.
    pub(super) fn free_files(&mut self, out: &mut Effects<JournalEffect>) {
        self.ask_found(out);
        let full = self.full();
        let many = full.len() * 2 >= self.config.files.max(2);
        let (mut drained_upto, mut forwarded) = (0, true);
        for at in full {
            let file = &mut self.files[at];
            if mutant!("checkpoint_beyond_drained") {
                drained_upto = file.last_lsn;
            }
            if !file.pins.is_empty() {
                if many && !file.checkpoint_asked {
                    file.checkpoint_asked = true;
                    out.push(JournalEffect::Checkpoint(file.pins.keys().copied().collect()));
                }
                // Files are freed in order, so what is left is one unbroken run of flushes.
                break;
            }
            let last = file.last_lsn;
            drained_upto = last;
            // If not, then with the next flush.
            forwarded = forwarded && !self.heads.values().any(|head| head.is_within(last));
            if forwarded {
                let file = &mut self.files[at];
                file.state = FileState::Ready;
                file.checkpoint_asked = false;
                file.found = false;
            }
        }
        if drained_upto > self.checkpoint_lsn {
            self.checkpoint_lsn = drained_upto;
            out.push(JournalEffect::Checkpointed(drained_upto));
        }
    }

    /// Once: what a life before left goes to segments now, not when the journal is half full. A life that ends before it
    /// comes so far leaves one file more than it found.
    pub(super) fn ask_found(&mut self, out: &mut Effects<JournalEffect>) {
        if std::mem::replace(&mut self.found_asked, true) {
            return;
        }
        let mut gids = BTreeSet::new();
        for file in self.files.iter_mut().filter(|f| f.found && !f.pins.is_empty()) {
            file.checkpoint_asked = true;
            gids.extend(file.pins.keys().copied());
        }
        if !gids.is_empty() {
            out.push(JournalEffect::Checkpoint(gids.into_iter().collect()));
        }
    }

    /// The end of the oldest full files that only wait for their newest HARD and CREATE frames to be copied forward.
    pub(super) fn forward_limit(&self) -> Option<u64> {
        let full = self.full();
        let last = full.into_iter().take_while(|at| self.files[*at].pins.is_empty()).last()?;
        let last = self.files[last].last_lsn;
        self.heads.values().any(|h| h.is_within(last)).then_some(last)
    }

    /// Bytes that a file keeps free behind a large entry, so that the newest frames of every group can be copied forward
    /// into it: without that room no older file could be freed, and large entries would take one file more each.
    fn slack(&self, least: u64) -> u64 {
        if least <= self.config.file_bytes / 4 {
            return 0;
        }
        // A hard state and two marks; CREATE frames are few.
        let heads = self.heads.len() as u64 * 3 * 88;
        (self.config.file_bytes / 8).max(heads).max(2 * BLOCK_BYTES as u64)
    }

    /// Length of a file that takes a flush of `least` bytes.
    fn length_for(&self, least: u64) -> u64 {
        let wanted = BLOCK_BYTES as u64 + least + self.slack(least);
        wanted.next_multiple_of(self.config.file_bytes)
    }

    /// Which file the next flush goes to, if it takes `least` bytes and the active one has no room for it.
    fn next_file(&self, least: u64) -> Next {
        let wanted = BLOCK_BYTES as u64 + least + self.slack(least);
        // The oldest first: what lies on disk stays one unbroken run of generations, so that a hole means damage. Whatever
        // its length, then: one that is too short becomes longer, none is passed over.
        // One that is being removed is older than they: using them first would tear the run if its name came back. Never
        // used ones are in no run.
        let removing = self.files.iter().any(|f| matches!(f.state, FileState::Removing(_)) && f.file_gen > 0);
        let is_free = |f: &File| matches!(f.state, FileState::Ready | FileState::Growing(..));
        let free = || (0..self.files.len()).filter(|i| is_free(&self.files[*i]));
        let new = |i: &usize| self.files[*i].file_gen == 0;
        let oldest = free().filter(|i| !new(i) && !removing).min_by_key(|i| self.files[*i].file_gen);
        let fitting = free().filter(new).find(|i| self.files[*i].len >= wanted);
        let passed = || free().find(|i| self.files[*i].len >= wanted && self.files[*i].state == FileState::Ready);
        match fitting
            .or_else(|| mutant!("journal_file_passed_over").then(passed).flatten())
            .or(oldest)
            .or_else(|| free().find(new))
        {
            None => Next::None, // one is being prepared, or the segment writer must free one
            Some(at) if self.files[at].state != FileState::Ready => Next::None,
            Some(at) if self.files[at].len >= wanted => Next::Use(at),
            Some(at) => Next::Grow(at),
        }
    }

    /// The active file is full (or there is none): the next ready one gets a generation.
    pub(super) fn switch_file(&mut self, now: Now, least: u64, out: &mut Effects<JournalEffect>) {
        let Next::Use(next) = self.next_file(least) else { return };
        if let Some(active) = self.files.iter_mut().find(|f| f.state == FileState::Active) {
            active.state = FileState::Full;
            self.keep_until = now.mono.plus_millis(super::KEEP_MS);
        }
        let header = FileHeader {
            file_gen: self.next_gen,
            first_lsn: self.next_lsn,
            dir_id: self.config.dir_id,
            created_ms: now.wall.as_millis(),
            blocks: u32::try_from(self.files[next].len / BLOCK_BYTES as u64).unwrap_or(0),
        };
        let mut buf = AlignedBuf::with_capacity(BLOCK_BYTES);
        buf.put(&header.encode());
        let file = &mut self.files[next];
        file.file_gen = self.next_gen;
        file.last_lsn = self.next_lsn - 1;
        file.next = BLOCK_BYTES as u64;
        file.pins.clear();
        file.state = FileState::Active;
        let op = DiskOp::WriteDirect { path: file.path.clone(), at: 0, buf };
        self.next_gen += 1;
        let token = self.token();
        self.writing = Some((token, Writing::Header { file: next }));
        out.push(JournalEffect::Disk { token, op, lane: Lane::Commit, point: JournalPoint::Recycle });
    }

    pub(super) fn prepare_next(&mut self, out: &mut Effects<JournalEffect>) {
        // Frames to copy forward wait for room too: producers that were told to wait queue nothing, so nobody else would ask.
        let waits = !self.queue.is_empty() || self.closing || self.forward_limit().is_some();
        let waited_for = self.writing.is_none() && waits;
        if self.preparing.is_some() || (self.closing && !waited_for) {
            return;
        }
        let ready = self.files.iter().filter(|f| f.state == FileState::Ready).count();
        let half_made =
            |f: &File| matches!(f.state, FileState::Preparing(_) | FileState::Removing(_) | FileState::Growing(..));
        let least = self.least();
        let at = match (self.files.iter().position(half_made), self.next_file(least)) {
            (Some(at), _) => at,
            (None, Next::Grow(at)) if waited_for && !self.no_space => {
                self.files[at].state = FileState::Growing(self.length_for(least), false);
                at
            }
            (None, _) => {
                let total = self.kept();
                let active = self.files.iter().find(|f| f.state == FileState::Active);
                let soon = active.is_none_or(|f| f.next * 2 >= f.len) || waited_for;
                let wanted = total < self.config.files || (ready == 0 && soon && total < self.config.files_max);
                // After a crash loop every file may hold something; or the oldest could be freed if only there were room
                // to copy a few frames forward. One more is allowed then, else nothing would ever move again.
                let stuck = ready == 0 && waited_for && (active.is_none() || self.forward_limit().is_some());
                if (wanted || stuck) && !self.no_space {
                    self.add_file(self.length_for(if waited_for { least } else { 0 }))
                } else if let Some(at) = self.surplus() {
                    self.files[at].state = FileState::Removing(false);
                    at
                } else {
                    return;
                }
            }
        };
        let file = &self.files[at];
        let growing = matches!(file.state, FileState::Growing(..));
        let lane = if waited_for && (ready == 0 || growing) { Lane::Commit } else { Lane::Behind };
        let path = file.path.clone();
        let sync_dir = DiskOp::SyncDir { path: self.config.dir.as_str().into() };
        let new: FilePath = format!("{path}{NEW}").into();
        let step = match file.state {
            FileState::Preparing(step) => step,
            FileState::Removing(gone) => {
                let op = if gone { sync_dir } else { DiskOp::Unlink { path: if file.unnamed { new } else { path } } };
                let token = self.token();
                self.preparing = Some((token, at));
                out.push(JournalEffect::Disk { token, op, lane, point: JournalPoint::Remove });
                return;
            }
            FileState::Growing(len, allocated) => {
                let op = if allocated { DiskOp::Fdatasync { path } } else { DiskOp::Fallocate { path, len } };
                let token = self.token();
                self.preparing = Some((token, at));
                out.push(JournalEffect::Disk { token, op, lane, point: JournalPoint::Prepare });
                return;
            }
            _ => return,
        };
        let op = match step {
            PrepareStep::Create => DiskOp::CreateNew { path: new },
            PrepareStep::Allocate => DiskOp::Fallocate { path: new, len: file.len },
            PrepareStep::Zero(from) => {
                let len = PREPARE_BYTES.min(self.zeroed(file.len) - from) as usize;
                static ZEROS: [u8; PREPARE_BYTES as usize] = [0; PREPARE_BYTES as usize];
                DiskOp::Write { path: new, at: from, bufs: vec![Bytes::from_static(&ZEROS[..len])] }
            }
            PrepareStep::Sync => DiskOp::Fdatasync { path: new },
            PrepareStep::Name => DiskOp::Rename { from: new, to: path },
            PrepareStep::SyncDir => sync_dir,
        };
        let token = self.token();
        self.preparing = Some((token, at));
        out.push(JournalEffect::Disk { token, op, lane, point: JournalPoint::Prepare });
    }

    /// True if this was a file being made ahead that found no room: it goes again, nobody has trusted it with anything. A
    /// failed sync is another matter, whatever it says, and so is a write that somebody waits for.
    pub(super) fn found_no_room(&mut self, token: Token, error: &DiskError) -> bool {
        let Some((_, at)) = self.preparing.filter(|(t, _)| *t == token) else { return false };
        let state = self.files[at].state;
        if error.kind == DiskFault::NoSpace && matches!(state, FileState::Growing(_, false)) {
            // As long as it was for all who use it, whatever of the rest has come to be.
            self.preparing = None;
            self.files[at].state = FileState::Ready;
            return true;
        }
        let waits =
            matches!(state, FileState::Preparing(step) if !matches!(step, PrepareStep::Sync | PrepareStep::SyncDir));
        if error.kind != DiskFault::NoSpace || !waits {
            return false;
        }
        self.preparing = None;
        self.files[at].state = FileState::Removing(false);
        true
    }

    /// Bytes of a new file that are pre-written: what is longer is so for one large entry.
    fn zeroed(&self, len: u64) -> u64 {
        len.min(self.config.file_bytes)
    }

    /// A new file of so many bytes, its place in the list.
    pub(super) fn add_file(&mut self, len: u64) -> usize {
        let path = format!("{}/{:016x}.wal", self.config.dir, self.next_name);
        self.next_name += 1;
        // A burst may keep what it made until it is over. Room that is only wanted because a life before left its files
        // full goes when they are given back.
        if !self.files.iter().any(|f| f.found && f.state == FileState::Full) {
            self.allowed = self.allowed.max(self.kept() + 1);
        }
        let file = File::new(path.into(), len, FileState::Preparing(PrepareStep::Create));
        match self.files.iter().position(|f| f.state == FileState::Gone) {
            Some(at) => {
                self.files[at] = file;
                at
            }
            None => {
                self.files.push(file);
                self.files.len() - 1
            }
        }
    }

    /// The file that goes next, if there are more than may stay: one that was never used, else the oldest, so that what
    /// lies on disk stays one unbroken run. Never the newest: that is not the oldest of two.
    pub(super) fn surplus(&self) -> Option<usize> {
        // Until a header is durable, the file it goes to still counts as the oldest.
        if self.closing || self.kept() <= self.allowed || matches!(self.writing, Some((_, Writing::Header { .. }))) {
            return None;
        }
        let ready: Vec<usize> = (0..self.files.len()).filter(|i| self.files[*i].state == FileState::Ready).collect();
        if ready.len() < 2 {
            return None;
        }
        ready.into_iter().min_by_key(|i| self.files[*i].file_gen)
    }

    pub(super) fn report_use(&mut self, out: &mut Effects<JournalEffect>) {
        let total = self.config.files_max.max(1) as u64 * 100;
        let used: u64 = self
            .files
            .iter()
            .map(|f| match f.state {
                FileState::Full => 100,
                FileState::Active => f.next * 100 / f.len.max(1),
                _ => 0,
            })
            .sum();
        let percent = u8::try_from(used * 100 / total).unwrap_or(u8::MAX).min(100);
        if percent != self.used_percent {
            self.used_percent = percent;
            out.push(JournalEffect::Used(percent));
        }
    }

    pub(super) fn prepared(&mut self, at: usize) {
        let zeroed = self.zeroed(self.files[at].len);
        let file = &mut self.files[at];
        let step = match file.state {
            FileState::Preparing(step) => step,
            FileState::Removing(gone) => {
                file.state = if gone { FileState::Gone } else { FileState::Removing(true) };
                return;
            }
            FileState::Growing(len, false) => {
                file.state = FileState::Growing(len, true);
                return;
            }
            FileState::Growing(len, true) => {
                (file.len, file.state) = (len, FileState::Ready);
                return;
            }
            _ => return,
        };
        let next = match step {
            PrepareStep::Create => PrepareStep::Allocate,
            PrepareStep::Allocate => PrepareStep::Zero(0),
            PrepareStep::Zero(from) if from + PREPARE_BYTES < zeroed => PrepareStep::Zero(from + PREPARE_BYTES),
            PrepareStep::Zero(_) => PrepareStep::Sync,
            PrepareStep::Sync => PrepareStep::Name,
            PrepareStep::Name => {
                file.unnamed = false;
                PrepareStep::SyncDir
            }
            PrepareStep::SyncDir => {
                file.state = FileState::Ready;
                return;
            }
        };
        file.state = FileState::Preparing(next);
    }
}

impl File {
    pub(super) fn lag_bytes(&self) -> u64 {
        match self.state {
            FileState::Full | FileState::Active if !self.pins.is_empty() => {
                if self.found {
                    self.len
                } else {
                    self.next.saturating_sub(BLOCK_BYTES as u64)
                }
            }
            _ => 0,
        }
    }

    pub(super) fn new(path: FilePath, len: u64, state: FileState) -> Self {
        File {
            path,
            len,
            state,
            file_gen: 0,
            last_lsn: 0,
            next: 0,
            pins: BTreeMap::new(),
            checkpoint_asked: false,
            found: false,
            unnamed: matches!(state, FileState::Preparing(_)),
        }
    }
}
