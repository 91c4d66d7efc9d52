//! The journal thread: takes what partitions queue, flushes it, tells the replicas.

use super::pace::{Change, Pace};
use super::points::{after_journal, before_journal};
use super::reopen::Reopening;
use super::segment_thread::segments_work;
use super::{Inner, lock, metrics};
use crate::effect::{Event, ReadyNo};
use catchwater_base::{Clock, Effects, Local, Mono, crash_point, log};
use catchwater_runtime::thread;
use catchwater_storage::disk::DiskOp;
use catchwater_storage::journal::{Journal, JournalBatch, JournalEffect, JournalEvent, JournalPoint, Lane};
use catchwater_storage::relaxed::RelaxedEvent;
use catchwater_storage::segment::{SegmentEvent, Segments};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

pub(super) fn run_journal(inner: &Inner, mut journal: Journal) {
    let priority = thread::raise_priority();
    log!(Info, "journal.priority", "the journal thread's priority is {}", priority.name());
    let mut pace = Pace::default();
    let mut out = Effects::new();
    let mut batches = Vec::new();
    let mut events = Vec::new();
    let mut seal_at = journal.deadline();
    while wait_journal(inner, seal_at, &mut batches, &mut events) {
        let now = inner.clock.now();
        if !batches.is_empty() {
            journal.handle(now, JournalEvent::Queue(std::mem::take(&mut batches)), &mut out);
        }
        if events.is_empty() {
            journal.handle(now, JournalEvent::Wake, &mut out);
        }
        for event in events.drain(..) {
            journal.handle(now, event, &mut out);
        }
        perform_all_journal(inner, &mut journal, &mut pace, &mut out);
        metrics::CHECKPOINT_LAG_BYTES.set(i64::try_from(journal.lag_bytes()).unwrap_or(i64::MAX));
        metrics::WAITING_BYTES.set(i64::try_from(inner.waiting_bytes.load(Ordering::Relaxed)).unwrap_or(i64::MAX));
        seal_at = journal.deadline();
    }
}

pub(super) fn perform_all_journal(
    inner: &Inner,
    journal: &mut Journal,
    pace: &mut Pace,
    out: &mut Effects<JournalEffect>,
) {
    while !out.is_empty() {
        let effects: Vec<JournalEffect> = out.drain().collect();
        for effect in effects {
            if inner.is_over() {
                return;
            }
            perform_journal(inner, journal, pace, effect, out);
        }
    }
}

/// Before the threads start, if there are more journal files than configured: lives too short to drain what they found
/// left them, so this one drains before it is ready, until the files are back at their number. Work is noted as it
/// goes: killed in here, the next start goes on where this one ended.
pub(super) fn catch_up(inner: &Inner, journal: &mut Journal, segments: &mut Segments, files: usize) {
    let (mut journal_out, mut segment_out) = (Effects::new(), Effects::new());
    while journal.file_count() > files && !inner.is_over() {
        let events = std::mem::take(&mut lock(&inner.journal).events);
        let work = lock(&inner.segments).take();
        if events.is_empty() && work.is_none() {
            return; // the rest comes with what is queued later
        }
        let now = inner.clock.now();
        for event in events {
            journal.handle(now, event, &mut journal_out);
        }
        perform_all_journal(inner, journal, &mut Pace::default(), &mut journal_out);
        if let Some(work) = work {
            segments_work(inner, None, segments, work, &mut segment_out);
        }
    }
}

/// Waits for work or for the moment to seal; false = the end.
fn wait_journal(
    inner: &Inner,
    seal_at: Option<Mono>,
    batches: &mut Vec<JournalBatch>,
    events: &mut Vec<JournalEvent>,
) -> bool {
    let mut inbox = lock(&inner.journal);
    loop {
        if inner.is_over() {
            return false;
        }
        if !inbox.batches.is_empty() || !inbox.events.is_empty() {
            std::mem::swap(&mut inbox.batches, batches);
            std::mem::swap(&mut inbox.events, events);
            return true;
        }
        inbox.asleep = true;
        inbox = match seal_at {
            None => inner.journal_wake.wait(inbox).unwrap_or_else(PoisonError::into_inner),
            Some(at) => {
                let left = at.since(inner.clock.now().mono);
                if left.is_zero() {
                    inbox.asleep = false;
                    return true;
                }
                inner.journal_wake.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        inbox.asleep = false;
    }
}

fn perform_journal(
    inner: &Inner,
    journal: &mut Journal,
    pace: &mut Pace,
    effect: JournalEffect,
    out: &mut Effects<JournalEffect>,
) {
    match effect {
        JournalEffect::Disk { token, op, lane: Lane::Behind, point } => {
            lock(&inner.segments).behind.push((token, op, point));
            inner.segments_wake.notify_one();
        }
        JournalEffect::Disk { token, op, lane: Lane::Commit, point } => {
            let bytes = if let DiskOp::WriteDirect { buf, .. } = &op { buf.len() as u64 } else { 0 };
            let began = inner.clock.now().mono;
            before_journal(point);
            let result = inner.run(op);
            after_journal(point);
            counted(inner, pace, (point, bytes, began));
            // What arrived during the write belongs into the next flush, which `Done` starts.
            let batches = std::mem::take(&mut lock(&inner.journal).batches);
            let now = inner.clock.now();
            if !batches.is_empty() {
                journal.handle(now, JournalEvent::Queue(batches), out);
            }
            journal.handle(now, JournalEvent::Done(token, result), out);
        }
        JournalEffect::Persisted(groups) => {
            crash_point!("journal.before_complete");
            let mut pieces = Vec::with_capacity(groups.len());
            let mut told = Vec::with_capacity(groups.len());
            let (mut ours, mut marked) = (Vec::new(), Vec::new());
            let relaxed = lock(&inner.relaxed);
            for mut group in groups {
                inner.waiting_bytes.fetch_sub(group.body_bytes, Ordering::Relaxed);
                if group.drop {
                    crash_point!("del.after_frame");
                }
                let mut newest = None;
                for tag in group.tags.drain(..) {
                    if Reopening::is_marker(tag) {
                        marked.push(group.gid);
                    } else if relaxed.waits_for(group.gid, tag) {
                        ours.push((group.gid, tag));
                    } else {
                        newest = Some(tag);
                    }
                }
                told.extend(newest.map(|tag| (group.gid, tag)));
                pieces.push(group);
            }
            drop(relaxed);
            // Acknowledgements first; the segment writer is in nobody's way.
            for (gid, tag) in told {
                inner.deliver(gid, Event::Persisted(ReadyNo(tag)));
            }
            crash_point!("journal.after_complete");
            inner.queue_entries(pieces);
            // Behind the pieces: a flush that this asks for finds them.
            ours.into_iter().for_each(|(gid, tag)| inner.relaxed(RelaxedEvent::Journaled(gid, tag)));
            marked.into_iter().for_each(|gid| inner.marked(gid, journal.head(gid)));
        }
        JournalEffect::Checkpoint(gids) => inner.tell_segments([SegmentEvent::Sync(gids)]),
        JournalEffect::Checkpointed(lsn) => {
            // Its files may be used again from here on; that recovery need not read them is noted later.
            crash_point!("ckpt.before_free");
            lock(&inner.segments).checkpoint = Some(lsn);
            inner.segments_wake.notify_one();
            crash_point!("ckpt.after_free");
        }
        JournalEffect::Began(lsn) => {
            lock(&inner.segments).began = Some(lsn);
            inner.segments_wake.notify_one();
        }
        JournalEffect::Used(percent) => {
            metrics::JOURNAL_USED_PERCENT.set(i64::from(percent));
            inner.journal_used_percent.store(percent, Ordering::Relaxed);
        }
        JournalEffect::NoSpace(error) => inner.no_space(&error),
        JournalEffect::Stop(error) => inner.stop(error),
        JournalEffect::Closed(lsn) => {
            lock(&inner.closed).journal = Some(lsn);
            inner.closed_wake.notify_all();
        }
    }
}

/// What the metrics and the log say of one write.
fn counted(inner: &Inner, pace: &mut Pace, (point, bytes, began): (JournalPoint, u64, Mono)) {
    match point {
        JournalPoint::Submit | JournalPoint::Forward => {
            let now = inner.clock.now().mono;
            let us = u32::try_from(now.since(began).as_micros()).unwrap_or(u32::MAX);
            metrics::FLUSH_TIME.observe_us(u64::from(us));
            metrics::FLUSH_BYTES.add(bytes);
            match pace.observe(now, us) {
                Some(Change::Slow { p99_us, usual_us }) => {
                    metrics::DISK_SLOW.set(1);
                    log!(
                        Warn,
                        "disk.slow",
                        "the slowest hundredth of journal writes has taken {p99_us} µs for 5 s, usual are {usual_us} µs"
                    );
                }
                Some(Change::Recovered) => {
                    metrics::DISK_SLOW.set(0);
                    log!(Info, "disk.slow", "journal writes take what they usually take again");
                }
                None => {}
            }
        }
        JournalPoint::Seal => metrics::SEALS.inc(),
        JournalPoint::Recycle | JournalPoint::Prepare | JournalPoint::Remove => {}
    }
}
