//! Pure. Topics with `storage.durability=relaxed`: acknowledged from the page cache, synced within a window.
//!
//! ```text
//!            Want(relaxed): marker through the journal, segments synced, MODE durable
//!   fsync ───────────────────────────────────────────────────────────────────────────▶ relaxed
//!         ◀───────────────────────────────────────────────────────────────────────────
//!            Want(fsync): everything placed and synced, MODE durable        (batches that come meanwhile are held)
//!
//!   relaxed: entries ─▶ segment writer ─ placed ─▶ acknowledged, if   DIRTY is durable (once per burst)
//!            hard    ─▶ journal                                       and the un-synced bytes stay within the window
//!            window half over ─▶ Flush; 1 s of silence, all synced ─▶ SYNCED
//! ```
//! Invariants: a power loss takes at most one window of what was acknowledged; if the disk cannot keep the window,
//! acknowledgements wait, the window does not stretch. Conf, log-start and ctl entries are barriers: acknowledged only
//! when they are synced and a SYNCED frame behind them is durable. Batches of a group are acknowledged in their order.
//! A power loss makes only those groups suspect that were being written: the others' last word is SYNCED.

use crate::entry::{EntryKind, Loose, Mark, MarkKind};
use crate::journal::{JournalBatch, Persisted};
use catchwater_base::{Effects, Mono, Now, mutant};
use catchwater_record::{EntryIndex, Gid, LeaderEpoch};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Silence after which a synced group says SYNCED.
const SILENCE: Duration = Duration::from_secs(1);
/// More than any window.
const FOUND_BYTES: u64 = 1 << 40;
/// Set in the tags of this machine's own journal batches.
pub const OWN_TAG: u64 = 1 << 63;

/// What may be lost at a power cut, per partition: whichever bound is reached first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// `flush.ms`
    pub ms: u64,
    pub bytes: u64,
    /// `flush.messages`, in batches' records.
    pub records: u64,
}

impl Default for Window {
    fn default() -> Self {
        Window { ms: 200, bytes: 4 << 20, records: u64::MAX }
    }
}

/// `storage.durability` of a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// Durable before it is acknowledged.
    #[default]
    Fsync,
    /// In the page cache before it is acknowledged, durable within the window.
    Relaxed(Window),
}

#[derive(Debug)]
pub enum RelaxedEvent {
    /// What the topic's settings say.
    Want(Gid, Durability),
    /// A group that recovery found in this mode, and its last entry.
    Found(Gid, Loose, EntryIndex),
    /// Only of groups that [`Relaxed::owns`].
    Persist(JournalBatch),
    /// A batch with this tag is durable in the journal, and its entries are queued for segments.
    Journaled(Gid, u64),
    Placed(Gid, EntryIndex),
    /// The oldest truncation under way is done.
    CutDone(Gid),
    /// Everything up to the entry is durable in segments.
    Flushed(Gid, EntryIndex),
    Dropped(Gid),
    Wake,
}

#[derive(Debug)]
pub enum RelaxedEffect {
    Journal(JournalBatch),
    /// To the segment writer, at once.
    Segment(Box<Persisted>),
    /// To the segment writer: the group's cuts must last from now on (or need not).
    Mode(Gid, bool),
    /// To the segment writer: sync; `all` = first place what is queued.
    Flush {
        gid: Gid,
        all: bool,
    },
    /// Bytes that were handed over by a group that is gone, and of which nothing else will be told.
    Forgotten(u64),
    /// To the replica.
    Persisted {
        gid: Gid,
        tag: u64,
        bytes: u64,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// The marker is on its way through the journal.
    EnterMarker,
    EnterFlush,
    EnterMode,
    Relaxed,
    LeaveFlush,
    LeaveMode,
}

#[derive(Debug)]
struct Waiting {
    tag: u64,
    /// Its last entry, or the newest before it.
    last: EntryIndex,
    bytes: u64,
    records: u64,
    barrier: bool,
    /// Its hard state is durable, or it has none.
    journaled: bool,
}

#[derive(Debug)]
struct Acked {
    last: EntryIndex,
    bytes: u64,
    records: u64,
    at: Mono,
}

#[derive(Debug)]
struct Group {
    phase: Phase,
    want: Durability,
    window: Window,
    held: Vec<JournalBatch>,
    waiting: VecDeque<Waiting>,
    /// Acknowledged and not synced.
    acked: VecDeque<Acked>,
    acked_bytes: u64,
    acked_records: u64,
    last: EntryIndex,
    term: LeaderEpoch,
    placed: EntryIndex,
    /// Truncations under way: until they are done, what is told of files speaks of the old tail.
    cuts: u32,
    synced: EntryIndex,
    /// A durable SYNCED frame says so.
    marked: EntryIndex,
    /// The newest mark that was queued is DIRTY; and it is durable.
    dirty: bool,
    dirty_durable: bool,
    flushing: bool,
    last_append: Mono,
    /// Marks on their way: tag, kind, index.
    marks: VecDeque<(u64, MarkKind, EntryIndex)>,
}

/// See the file head.
#[derive(Debug, Default)]
pub struct Relaxed {
    groups: BTreeMap<Gid, Group>,
    next_tag: u64,
}

impl Relaxed {
    /// The group's batches go through here.
    pub fn owns(&self, gid: Gid) -> bool {
        self.groups.contains_key(&gid)
    }

    /// The batch's part in the journal is not all that is waited for.
    pub fn waits_for(&self, gid: Gid, tag: u64) -> bool {
        tag & OWN_TAG != 0 || self.groups.get(&gid).is_some_and(|g| g.waiting.iter().any(|w| w.tag == tag))
    }

    #[cfg(test)]
    pub(crate) fn names_groups(&self) -> Vec<(&'static str, usize)> {
        vec![("relaxed groups", self.groups.len())]
    }

    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Age of the oldest acknowledged entry that a power loss would take.
    pub fn window_age(&self, now: Mono) -> Duration {
        self.groups.values().filter_map(|g| g.acked.front()).map(|a| now.since(a.at)).max().unwrap_or_default()
    }

    pub fn handle(&mut self, now: Now, event: RelaxedEvent, out: &mut Effects<RelaxedEffect>) {
        let at = now.mono;
        match event {
            RelaxedEvent::Want(gid, want) => self.want(at, gid, want, out),
            RelaxedEvent::Found(gid, loose, last) => {
                let mut group = Group::new(at, Phase::Relaxed, Durability::Relaxed(Window::default()));
                (group.synced, group.marked) = (loose.synced.min(last), loose.synced.min(last));
                (group.placed, group.last, group.term) = (last, last, loose.term);
                (group.dirty, group.dirty_durable) = (loose.dirty, loose.dirty);
                if last > group.synced {
                    // How much of the window the life before has used up is not known: all of it.
                    group.acked.push_back(Acked { last, bytes: FOUND_BYTES, records: 0, at });
                    group.acked_bytes = FOUND_BYTES;
                }
                self.groups.insert(gid, group);
                out.push(RelaxedEffect::Mode(gid, true));
                self.advance(at, gid, out);
            }
            RelaxedEvent::Persist(batch) => {
                let gid = batch.gid;
                let Some(group) = self.groups.get_mut(&gid) else { return };
                if group.phase == Phase::Relaxed {
                    self.append(at, batch, out);
                    self.advance(at, gid, out);
                } else {
                    group.held.push(batch);
                }
            }
            RelaxedEvent::Journaled(gid, tag) => {
                let Some(group) = self.groups.get_mut(&gid) else { return };
                if tag & OWN_TAG != 0 {
                    self.own_batch(at, gid, tag, out);
                } else {
                    group.waiting.iter_mut().filter(|w| w.tag == tag).for_each(|w| w.journaled = true);
                }
                self.advance(at, gid, out);
            }
            RelaxedEvent::Placed(gid, upto) => {
                let Some(group) = self.groups.get_mut(&gid) else { return };
                if group.cuts == 0 {
                    group.placed = upto;
                }
                self.advance(at, gid, out);
            }
            RelaxedEvent::CutDone(gid) => {
                if let Some(group) = self.groups.get_mut(&gid) {
                    group.cuts = group.cuts.saturating_sub(1);
                }
            }
            RelaxedEvent::Flushed(gid, upto) => {
                self.flushed(gid, upto, out);
                self.advance(at, gid, out);
            }
            RelaxedEvent::Dropped(gid) => {
                let Some(group) = self.groups.remove(&gid) else { return };
                let held = group.held.iter().flat_map(|batch| &batch.entries).map(|e| e.body.len() as u64);
                let bytes = held.sum::<u64>() + group.waiting.iter().map(|w| w.bytes).sum::<u64>();
                out.push(RelaxedEffect::Forgotten(bytes));
            }
            RelaxedEvent::Wake => {
                let gids: Vec<Gid> = self.groups.keys().copied().collect();
                gids.into_iter().for_each(|gid| self.advance(at, gid, out));
            }
        }
    }

    /// The next moment at which [`RelaxedEvent::Wake`] does something.
    pub fn deadline(&self) -> Option<Mono> {
        self.groups.values().filter_map(Group::deadline).min()
    }

    fn want(&mut self, at: Mono, gid: Gid, want: Durability, out: &mut Effects<RelaxedEffect>) {
        match self.groups.get_mut(&gid) {
            Some(group) => {
                group.want = want;
                self.advance(at, gid, out);
            }
            None if want == Durability::Fsync => {}
            None => {
                // Everything of the group that is in the journal's queue now is durable, and on its way to segments,
                // when this is.
                let tag = self.own_tag();
                self.groups.insert(gid, Group::new(at, Phase::EnterMarker, want));
                out.push(RelaxedEffect::Journal(JournalBatch { gid, tag: Some(tag), ..JournalBatch::default() }));
            }
        }
    }

    fn own_tag(&mut self) -> u64 {
        self.next_tag += 1;
        OWN_TAG | self.next_tag
    }

    fn mark(&mut self, gid: Gid, kind: MarkKind, out: &mut Effects<RelaxedEffect>) {
        let tag = self.own_tag();
        let Some(group) = self.groups.get_mut(&gid) else { return };
        let mark = Mark { kind, index: group.synced, term: group.term };
        group.marks.push_back((tag, kind, group.synced));
        match kind {
            MarkKind::Dirty => (group.dirty, group.dirty_durable) = (true, false),
            MarkKind::Synced | MarkKind::Relaxed | MarkKind::Fsync => group.dirty = false,
        }
        let batch = JournalBatch { gid, tag: Some(tag), mark: Some(mark), ..JournalBatch::default() };
        out.push(RelaxedEffect::Journal(batch));
    }

    /// A batch of a group in relaxed mode: hard state to the journal, the rest to segments.
    fn append(&mut self, at: Mono, batch: JournalBatch, out: &mut Effects<RelaxedEffect>) {
        let gid = batch.gid;
        debug_assert!(batch.snapshot.is_none(), "held until the group is not relaxed any more");
        let JournalBatch { tag, create, drop, truncate_from, hard, entries, .. } = batch;
        let Some(group) = self.groups.get_mut(&gid) else { return };
        if let Some(from) = truncate_from {
            group.last = group.last.min(from.prev());
            group.placed = group.placed.min(from.prev());
            group.synced = group.synced.min(from.prev());
            group.cuts += 1;
            // What is cut again before it is durable is never waited for.
            let before = from.prev();
            group.waiting.iter_mut().for_each(|w| w.last = w.last.min(before));
            group.acked.iter_mut().for_each(|a| a.last = a.last.min(before));
        }
        let begins = !entries.is_empty() && !group.dirty;
        if let Some(last) = entries.last() {
            (group.last, group.term, group.last_append) = (last.index, last.term, at);
        }
        let barrier = |kind| matches!(kind, EntryKind::Conf | EntryKind::LogStart | EntryKind::Ctl);
        let journaled = hard.is_none() && create.is_none() && !drop;
        if let Some(tag) = tag {
            group.waiting.push_back(Waiting {
                tag,
                last: group.last,
                bytes: entries.iter().map(|e| e.body.len() as u64).sum(),
                records: entries.iter().map(|e| u64::from(e.count)).sum(),
                barrier: entries.iter().any(|e| barrier(e.kind)) && !mutant!("barrier_missing"),
                journaled,
            });
        }
        if begins {
            self.mark(gid, MarkKind::Dirty, out);
        }
        if !journaled {
            out.push(RelaxedEffect::Journal(JournalBatch { gid, tag, create, drop, hard, ..JournalBatch::default() }));
        }
        if !entries.is_empty() || truncate_from.is_some() {
            out.push(RelaxedEffect::Segment(Box::new(Persisted {
                truncate_from,
                cuts: u32::from(truncate_from.is_some()),
                entries,
                ..Persisted::empty(gid, 0)
            })));
        }
    }

    /// A marker or a mark of this machine is durable.
    fn own_batch(&mut self, at: Mono, gid: Gid, tag: u64, out: &mut Effects<RelaxedEffect>) {
        let Some(group) = self.groups.get_mut(&gid) else { return };
        if group.phase == Phase::EnterMarker {
            (group.phase, group.flushing) = (Phase::EnterFlush, true);
            out.push(RelaxedEffect::Flush { gid, all: true });
            return;
        }
        while let Some((_, kind, index)) = group.marks.front().copied().filter(|(t, ..)| *t <= tag) {
            group.marks.pop_front();
            match kind {
                MarkKind::Dirty => group.dirty_durable = true,
                MarkKind::Synced => group.marked = group.marked.max(index),
                MarkKind::Relaxed => {
                    group.phase = Phase::Relaxed;
                    out.push(RelaxedEffect::Mode(gid, true));
                }
                MarkKind::Fsync => {
                    out.push(RelaxedEffect::Mode(gid, false));
                    let held = std::mem::take(&mut group.held);
                    debug_assert!(group.waiting.is_empty(), "everything was acknowledged before the mode was left");
                    let want = group.want;
                    self.groups.remove(&gid);
                    held.into_iter().for_each(|batch| out.push(RelaxedEffect::Journal(batch)));
                    // Changed again meanwhile.
                    self.want(at, gid, want, out);
                    return;
                }
            }
        }
        let Some(group) = self.groups.get_mut(&gid) else { return };
        if group.phase == Phase::Relaxed {
            for batch in std::mem::take(&mut group.held) {
                self.append(at, batch, out);
            }
        }
    }

    fn flushed(&mut self, gid: Gid, upto: EntryIndex, out: &mut Effects<RelaxedEffect>) {
        let Some(group) = self.groups.get_mut(&gid) else { return };
        group.flushing = false;
        if group.cuts > 0 {
            return; // of the old tail; asked for again
        }
        group.synced = group.synced.max(upto);
        group.placed = group.placed.max(upto);
        while group.acked.front().is_some_and(|a| a.last <= upto) {
            let Some(acked) = group.acked.pop_front() else { break };
            group.acked_bytes -= acked.bytes;
            group.acked_records -= acked.records;
        }
        if group.phase == Phase::EnterFlush {
            group.phase = Phase::EnterMode;
            (group.last, group.marked) = (upto, upto);
            self.mark(gid, MarkKind::Relaxed, out);
        }
    }

    /// Acknowledges what may be, and asks for what is missing.
    fn advance(&mut self, at: Mono, gid: Gid, out: &mut Effects<RelaxedEffect>) {
        let Some(group) = self.groups.get_mut(&gid) else { return };
        if let Durability::Relaxed(window) = group.want {
            group.window = window;
        }
        let mut blocked = false;
        while let Some(front) = group.waiting.front() {
            let (last, bytes, records) = (front.last, front.bytes, front.records);
            let synced = last <= group.synced;
            if !front.journaled || group.placed < last || !(group.dirty_durable || synced) {
                break;
            }
            let fresh = group.acked.front().is_none_or(|a| at.since(a.at).as_millis() < u128::from(group.window.ms));
            let fits = group.acked_bytes + bytes <= group.window.bytes
                && group.acked_records.saturating_add(records) <= group.window.records;
            if !(synced || (fresh && fits) || mutant!("relaxed_window_stretched"))
                || (front.barrier && group.marked < last)
            {
                blocked = true;
                break;
            }
            if let Some(done) = group.waiting.pop_front() {
                out.push(RelaxedEffect::Persisted { gid, tag: done.tag, bytes: done.bytes });
                if !synced {
                    group.acked.push_back(Acked { last, bytes, records, at });
                    group.acked_bytes += bytes;
                    group.acked_records += records;
                }
            }
        }
        match group.phase {
            Phase::Relaxed => {
                let half =
                    group.acked.front().is_some_and(|a| at.since(a.at).as_millis() as u64 >= group.window.ms / 2)
                        || group.acked_bytes > group.window.bytes / 2;
                if (half || blocked) && !group.flushing && group.placed > group.synced {
                    group.flushing = true;
                    out.push(RelaxedEffect::Flush { gid, all: false });
                }
                let barrier = group.waiting.front().filter(|w| w.barrier && blocked && w.last <= group.synced);
                let asked = |last| group.marks.iter().any(|(_, kind, i)| *kind == MarkKind::Synced && *i >= last);
                if barrier.is_some_and(|w| !asked(w.last)) {
                    let behind = group.last > group.synced;
                    self.mark(gid, MarkKind::Synced, out);
                    if behind {
                        self.mark(gid, MarkKind::Dirty, out);
                    }
                    return;
                }
                let quiet = group.waiting.is_empty() && group.last <= group.synced;
                if matches!(group.want, Durability::Fsync) {
                    group.phase = Phase::LeaveFlush;
                    self.advance(at, gid, out);
                } else if quiet && group.dirty && group.dirty_durable && at.since(group.last_append) >= SILENCE {
                    self.mark(gid, MarkKind::Synced, out);
                }
            }
            Phase::LeaveFlush => {
                // Not before the answer to the last sync is here: were the mode entered again meanwhile, it would be taken for
                // the answer to the one that the entry waits for, though it knows nothing of what was journaled since.
                let idle = !group.flushing && group.waiting.is_empty() && group.marks.is_empty();
                if idle && group.last <= group.synced {
                    group.phase = Phase::LeaveMode;
                    self.mark(gid, MarkKind::Fsync, out);
                } else if !group.flushing && group.last > group.synced {
                    group.flushing = true;
                    out.push(RelaxedEffect::Flush { gid, all: true });
                } else if group.waiting.front().is_some_and(|w| w.barrier && w.last <= group.synced)
                    && group.marks.is_empty()
                {
                    self.mark(gid, MarkKind::Synced, out);
                }
            }
            Phase::EnterMarker | Phase::EnterFlush | Phase::EnterMode | Phase::LeaveMode => {}
        }
    }
}

impl Group {
    fn new(at: Mono, phase: Phase, want: Durability) -> Self {
        Group {
            phase,
            want,
            window: Window::default(),
            held: Vec::new(),
            waiting: VecDeque::new(),
            acked: VecDeque::new(),
            acked_bytes: 0,
            acked_records: 0,
            last: EntryIndex::ZERO,
            term: LeaderEpoch(0),
            placed: EntryIndex::ZERO,
            cuts: 0,
            synced: EntryIndex::ZERO,
            marked: EntryIndex::ZERO,
            dirty: false,
            dirty_durable: false,
            flushing: false,
            last_append: at,
            marks: VecDeque::new(),
        }
    }

    fn deadline(&self) -> Option<Mono> {
        if self.phase != Phase::Relaxed {
            return None;
        }
        let flush = self
            .acked
            .front()
            .filter(|_| !self.flushing && self.placed > self.synced)
            .map(|a| a.at.plus_millis(self.window.ms / 2));
        let quiet = self.waiting.is_empty() && self.last <= self.synced && self.dirty && self.dirty_durable;
        let silence = quiet.then(|| self.last_append.plus_millis(SILENCE.as_millis() as u64));
        flush.into_iter().chain(silence).min()
    }
}

#[cfg(test)]
mod tests;
