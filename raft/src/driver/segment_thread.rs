//! The segment writer: brings journaled entries into files behind the acknowledgements, and runs the journal's errands.

use super::points::{after_journal, after_segment, before_journal, before_segment};
use super::space::LOOK_EVERY;
use super::syncs;
use super::{Inner, SegmentInbox, Slot, lock, metrics, snapshot_of};
use crate::effect::{Event, ReadyNo};
use catchwater_base::{Clock, Effects, Local, crash_point, log};
use catchwater_storage::disk::{DiskFault, DiskOp};
use catchwater_storage::format::slot::BootState;
use catchwater_storage::journal::{JournalEvent, JournalPoint, Persisted, Token};
use catchwater_storage::recover::write_boot_state;
use catchwater_storage::relaxed::RelaxedEvent;
use catchwater_storage::segment::{SegmentEffect, SegmentEvent, Segments};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

pub(super) fn run_segments(inner: &Arc<Inner>, segments: &mut Segments) {
    let mut out = Effects::new();
    let mut shed_at = inner.clock.now().mono;
    while let Some(work) = wait_segments(inner) {
        segments_work(inner, Some(inner), segments, work, &mut out);
        let now = inner.clock.now().mono;
        if now.since(shed_at) >= SHED_EVERY {
            shed_at = now;
            if let Err(error) = inner.disk.shed() {
                inner.stop(error);
            }
        }
    }
}

/// `beside` = syncs may be waited for by other threads, whose answers come as work of their own.
pub(super) fn segments_work(
    inner: &Inner,
    beside: Option<&Arc<Inner>>,
    segments: &mut Segments,
    (events, errands): SegmentWork,
    out: &mut Effects<SegmentEffect>,
) {
    run_errands(inner, errands);
    inner.look_at_room(0);
    inner.tell_acks();
    for event in events {
        segments.handle(inner.clock.now(), event, out);
        inner.unplaced_bytes.store(segments.queued_bytes(), Ordering::Relaxed);
    }
    let mut written_bytes = 0;
    while !out.is_empty() {
        let effects: Vec<SegmentEffect> = out.drain().collect();
        for effect in effects {
            if inner.is_over() {
                return;
            }
            written_bytes += effect_bytes(&effect);
            match (effect, beside) {
                (SegmentEffect::Disk { token, op, point }, Some(inner)) if syncs::only_waits(&op) => {
                    syncs::begin(inner, token, op, point);
                }
                (effect, _) => perform_segment(inner, segments, effect, out),
            }
        }
        let done = lock(&inner.segments).take_done();
        for event in done {
            segments.handle(inner.clock.now(), event, out);
        }
        // Between two operations: journal files that somebody may soon wait for.
        let errands = lock(&inner.segments).take_errands();
        run_errands(inner, errands);
        inner.look_at_room(std::mem::take(&mut written_bytes));
    }
    metrics::SEGMENT_DIRTY_BYTES.set(i64::try_from(segments.dirty_bytes()).unwrap_or(i64::MAX));
    metrics::UNPLACED_BYTES.set(i64::try_from(segments.queued_bytes()).unwrap_or(i64::MAX));
    inner.unplaced_bytes.store(segments.queued_bytes(), Ordering::Relaxed);
    inner.segments_due.store(segments.deadline().is_some(), Ordering::Relaxed);
}

fn effect_bytes(effect: &SegmentEffect) -> u64 {
    match effect {
        SegmentEffect::Disk { op: DiskOp::Write { bufs, .. }, .. } => bufs.iter().map(|b| b.len() as u64).sum(),
        _ => 0,
    }
}

/// What this thread does for the journal.
#[derive(Default)]
pub(super) struct Errands {
    behind: Vec<(Token, DiskOp, JournalPoint)>,
    checkpoint: Option<u64>,
    began: Option<u64>,
}

pub(super) type SegmentWork = (Vec<SegmentEvent>, Errands);

/// Files that nobody used for so long are closed.
const SHED_EVERY: Duration = Duration::from_secs(10);
/// How long journaled entries wait for others of their partition, and how many bytes of them: two writes then serve many
/// batches, where each batch cost two. They are durable in the journal and read from memory meanwhile. Whoever waits for
/// them (a checkpoint, a cut, the end) does not wait longer.
const LINGER: Duration = Duration::from_millis(200);
const LINGER_BYTES: u64 = 4 << 20;

impl Inner {
    /// Entries that became durable, for the files.
    pub(super) fn queue_entries(&self, pieces: Vec<Persisted>) {
        let bytes: u64 = pieces.iter().map(|p| p.body_bytes).sum();
        let wake = {
            let mut inbox = lock(&self.segments);
            match inbox.events.last_mut() {
                Some(SegmentEvent::Queue(queued)) => queued.extend(pieces),
                _ => inbox.events.push(SegmentEvent::Queue(pieces)),
            }
            let first = inbox.entries.is_none();
            let (since, had) = inbox.entries.unwrap_or_else(|| (self.clock.now().mono, 0));
            inbox.entries = Some((since, had + bytes));
            // Once to set its timer, once when there is enough.
            first || (had < LINGER_BYTES && had + bytes >= LINGER_BYTES)
        };
        if wake {
            self.segments_wake.notify_one();
        }
    }
}

impl Inner {
    /// What relaxed groups may be told, in order.
    fn tell_acks(&self) {
        let acks = std::mem::take(&mut lock(&self.segments).acks);
        for (gid, tag) in acks {
            crash_point!("relaxed.before_ack");
            self.deliver(gid, Event::Persisted(ReadyNo(tag)));
        }
    }
}

impl SegmentInbox {
    /// How long what is here may still wait; `None` = not at all, or nothing is here.
    fn lingers(&self, inner: &Inner) -> Option<Duration> {
        let (since, bytes) = self.entries?;
        // With little room left every segment is sealed as soon as it can be: retention removes sealed ones alone.
        if inner.room.is_near()
            || self.urgent
            || !self.acks.is_empty()
            || !self.behind.is_empty()
            || self.checkpoint.is_some()
            || self.began.is_some()
            || bytes >= LINGER_BYTES
        {
            return None;
        }
        LINGER.checked_sub(inner.clock.now().mono.since(since)).filter(|left| !left.is_zero())
    }

    fn take_done(&mut self) -> Vec<SegmentEvent> {
        self.done.drain(..).map(|(token, result)| SegmentEvent::Done(token, result)).collect()
    }

    fn take_errands(&mut self) -> Errands {
        let behind = std::mem::take(&mut self.behind);
        Errands { behind, checkpoint: self.checkpoint.take(), began: self.began.take() }
    }

    pub(super) fn take(&mut self) -> Option<SegmentWork> {
        let noted = self.checkpoint.is_none() && self.began.is_none();
        if self.events.is_empty() && self.behind.is_empty() && noted && self.acks.is_empty() {
            return None;
        }
        (self.entries, self.urgent) = (None, false);
        let mut events: Vec<SegmentEvent> = std::mem::take(&mut self.events);
        let committed = std::mem::take(&mut self.committed);
        let at = if matches!(events.last(), Some(SegmentEvent::Close)) { events.len() - 1 } else { events.len() };
        let committed = committed.into_iter().map(|(gid, index)| SegmentEvent::Committed(gid, index));
        events.splice(at..at, committed);
        Some((events, self.take_errands()))
    }
}

fn run_errands(inner: &Inner, errands: Errands) {
    for (token, op, point) in errands.behind {
        if inner.is_over() {
            return;
        }
        before_journal(point);
        let result = inner.run(op);
        after_journal(point);
        inner.tell_journal(JournalEvent::Done(token, result));
    }
    let checkpoint = errands.checkpoint.filter(|lsn| *lsn > inner.checkpoint_lsn.load(Ordering::SeqCst));
    if (checkpoint.is_some() || errands.began.is_some()) && !inner.is_over() {
        note(inner, checkpoint, errands.began);
    }
}

/// The next recovery need not replay what is durable in segments, even if the files that held it are still there; and it
/// misses the newest journal file if that is not.
fn note(inner: &Inner, checkpoint: Option<u64>, began: Option<u64>) {
    let lsn = checkpoint.unwrap_or(inner.checkpoint_lsn.load(Ordering::SeqCst));
    let noted = inner.noted_lsn.load(Ordering::SeqCst).max(lsn).max(began.unwrap_or(0));
    let state = BootState {
        boot_id: inner.dir_identity.boot_id,
        mount_id: inner.dir_identity.mount_id,
        last_lsn: noted,
        checkpoint_lsn: lsn,
        clean: false,
    };
    let mut boot = lock(&inner.boot);
    crash_point!("ckpt.before_note");
    match write_boot_state(&*inner.disk, &inner.layout, *boot, state) {
        Ok(next) => {
            *boot = next;
            inner.checkpoint_lsn.store(lsn, Ordering::SeqCst);
            inner.noted_lsn.store(noted, Ordering::SeqCst);
            crash_point!("ckpt.after_note");
        }
        // A start without this note reads more; the next note says it again.
        Err(error) if error.kind == DiskFault::NoSpace => {
            drop(boot);
            inner.no_space(&error);
        }
        Err(error) => {
            drop(boot);
            inner.stop(error);
        }
    }
}

fn wait_segments(inner: &Inner) -> Option<SegmentWork> {
    // Before the inbox is taken: the order of the two locks.
    let now = inner.clock.now().mono;
    let due = {
        let mut relaxed = lock(&inner.relaxed);
        if relaxed.deadline().is_some_and(|at| at <= now) {
            inner.relaxed_with(&mut relaxed, RelaxedEvent::Wake);
        }
        metrics::RELAXED_WINDOW_US.set(i64::try_from(relaxed.window_age(now).as_micros()).unwrap_or(i64::MAX));
        relaxed.deadline()
    };
    let mut inbox = lock(&inner.segments);
    let wake_in = due.map_or(LOOK_EVERY, |at| at.since(now).clamp(Duration::from_millis(1), LOOK_EVERY));
    loop {
        if inner.is_over() {
            return None;
        }
        if !inbox.done.is_empty() {
            // Entries that wait for more of their kind go on waiting.
            return Some((inbox.take_done(), Errands::default()));
        }
        let limit = match inbox.lingers(inner) {
            Some(left) => left.min(wake_in),
            None => match inbox.take() {
                Some(work) => return Some(work),
                None => LOOK_EVERY.min(wake_in),
            },
        };
        let (woken, slept) = inner.segments_wake.wait_timeout(inbox, limit).unwrap_or_else(PoisonError::into_inner);
        inbox = woken;
        if slept.timed_out() && (inbox.entries.is_none() || limit == wake_in) {
            return Some(SegmentWork::default());
        }
    }
}

fn perform_segment(inner: &Inner, segments: &mut Segments, effect: SegmentEffect, out: &mut Effects<SegmentEffect>) {
    match effect {
        SegmentEffect::Disk { token, op, point } => {
            before_segment(point);
            let result = inner.run(op);
            after_segment(point);
            segments.handle(inner.clock.now(), SegmentEvent::Done(token, result), out);
        }
        SegmentEffect::Placed(gid, upto, rows) => {
            inner.relaxed(RelaxedEvent::Placed(gid, upto));
            inner.tell_acks();
            inner.deliver(gid, Event::Segmented(upto, rows));
        }
        SegmentEffect::CutDone(gid) => inner.relaxed(RelaxedEvent::CutDone(gid)),
        SegmentEffect::Flushed(gid, upto) => {
            crash_point!("relaxed.after_flush");
            inner.relaxed(RelaxedEvent::Flushed(gid, upto));
            inner.tell_acks();
        }
        SegmentEffect::Drained(gid, lsn) => inner.tell_journal(JournalEvent::Drained(gid, lsn)),
        SegmentEffect::WantSnap(gid) => {
            let replica = match lock(&inner.replicas).get(&gid) {
                Some(Slot::Attached(replica)) => replica.clone(),
                _ => return,
            };
            if let Some((index, next_offset, payload)) = snapshot_of(gid, &*replica) {
                let event = SegmentEvent::Snap(gid, index, next_offset, payload);
                segments.handle(inner.clock.now(), event, out);
            }
        }
        SegmentEffect::Switched(gid, segment) => {
            let done = segment.is_some();
            if let Some(segment) = segment {
                inner.deliver(gid, Event::Replaced(segment));
            }
            if let Some(answer) = lock(&inner.switches).remove(&gid) {
                answer.give(done);
            }
        }
        SegmentEffect::Left(gid) => inner.left(gid),
        SegmentEffect::Sealed(..) | SegmentEffect::Removed(_) => {}
        SegmentEffect::Unreadable(gid, error) => {
            metrics::DAMAGE_DETECTED.inc();
            log!(
                Error,
                "partition.unreadable",
                "CW0207 {error}: group {gid} goes on, a part of what is in its files cannot be read"
            );
        }
        SegmentEffect::NoSpace(error) => inner.no_space(&error),
        SegmentEffect::Stop(error) => inner.stop(error),
        SegmentEffect::Closed => {
            lock(&inner.closed).segments = true;
            inner.closed_wake.notify_all();
        }
    }
}
