//! The log's side of an attempt: lanes, the two internal topics, timers, and the one place where all of them are polled.
//!
//! [`Session::drive`] polls one future of the caller's (the source, a chunk reader, nothing) together with everything that
//! is in flight, and performs what the pure parts ask for. No task and no channel per partition.

use super::beat::Beats;
use super::tell::Notes;
use super::{Config, Limits};
use crate::emit::{Answer, Emitter};
use crate::error::{End, Trouble, code};
use crate::status::StatusHandle;
use crate::track::{BatchId, Mark, Track};
use bytes::Bytes;
use catchwater_base::backoff::Backoff;
use catchwater_base::{Clock, Mono, Now, Rng, crash_point, mutant};
use catchwater_change::checkpoint::{Checkpoint, Stored, StoredKey};
use catchwater_change::{Cut, Native};
use catchwater_client::{Acks, Append, AppendOutcome, CaptureContext, Context, LogClient, LogError, Why};
use catchwater_record::batch::build::Builder;
use catchwater_record::{CommitSeq, Position, TopicPartition};
use catchwater_runtime::shutdown::Stopped;
use catchwater_runtime::{Fut, time};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// A full cut is written at least every so many.
const FULL_CUT_EVERY: u32 = 256;
/// A batch of stored records is closed above this, bytes.
const META_BATCH_BYTES: usize = 768 * 1024;
/// So long, and so many passes, the loop may go on without waiting before it gives the node's other tasks a turn. A turn is
/// not free: the runtime wakes another of its threads to take over what is left lying.
const PASS: Duration = Duration::from_micros(500);
const PASSES_MAX: u32 = 16;
/// Longest wait for answers when an attempt ends, beyond their own time.
const SETTLE_EXTRA_MS: u64 = 5_000;

/// One append on its way.
struct Flight<'a> {
    at: TopicPartition,
    id: BatchId,
    answer: Fut<'a, AppendOutcome>,
}

/// An internal partition of the source: one append in flight at a time, in order.
pub(super) struct Meta<'a> {
    pub at: TopicPartition,
    pub flight: Option<Fut<'a, AppendOutcome>>,
    /// The batch in flight, to be sent again if it is not proved to have entered.
    pub batch: Bytes,
    pub retry_at: Mono,
    pub backoff: Backoff,
}

/// The partitions of a source that hold no rows.
#[derive(Clone, Copy)]
pub(super) enum Internal {
    Captures,
    Cuts,
    Beats,
    Notes,
}

/// What a captures batch carries beside its bytes.
struct Sent {
    checkpoint: Option<Mark>,
    records: usize,
}

pub(super) struct Session<'a> {
    pub(super) log: &'a dyn LogClient,
    pub(super) clock: Arc<dyn Clock>,
    pub config: Config,
    pub status: StatusHandle,
    pub(super) rng: Rng,
    stop: Pin<Box<dyn Future<Output = ()> + Send>>,
    pub(super) stopping: bool,
    pub emitter: Emitter,
    pub track: Track,
    flights: Vec<Flight<'a>>,
    /// Set to this moment. It stays when what it was set for is over, and is set anew only for something sooner: to set a
    /// timer for every step costs two locks, and a wake of the thread that sleeps over the timers.
    timer: Option<(Mono, Fut<'static, ()>)>,
    /// When the loop last waited, and its passes since.
    waited: Mono,
    passes: u32,
    captures: Meta<'a>,
    captures_queue: Vec<(StoredKey, Stored)>,
    captures_sent: Option<Sent>,
    cuts: Meta<'a>,
    pub beats: Option<Beats<'a>>,
    pub notes: Option<Box<Notes<'a>>>,
    last_cut: Option<(CommitSeq, Native)>,
    last_cut_at: Mono,
    /// No cut below what an earlier worker may have said: cuts only go forward.
    pub cut_floor: CommitSeq,
    cuts_written: u32,
    checkpointed: Mark,
    last_checkpoint_at: Mono,
    /// Bytes put into batches since the last checkpoint that was committed.
    bytes_above: u64,
    pub config_version: u32,
    /// Finished units that the next checkpoint tells of.
    pub finished: Vec<(CommitSeq, StoredKey, Stored)>,
    /// The snapshot is complete: sinks wait for the word, so the checkpoint does not wait for its time.
    pub hurry: bool,
    /// Position the source may be told; taken by the loop that owns the source.
    confirm: Option<Native>,
    confirmed: Option<Native>,
}

/// How [`Session::drive`] came back.
pub(super) enum Driven<T> {
    Done(T),
    /// Tell the source that it may forget everything up to here.
    Confirm(Native),
    Stop,
}

pub(super) struct Place {
    pub captures: TopicPartition,
    pub cuts: TopicPartition,
}

impl<'a> Session<'a> {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        log: &'a dyn LogClient,
        clock: Arc<dyn Clock>,
        config: Config,
        status: StatusHandle,
        rng: Rng,
        mut stop: Stopped,
        emitter: Emitter,
        at: Mark,
        place: Place,
    ) -> Self {
        let limits = &config.limits;
        let meta = |at| Meta {
            at,
            flight: None,
            batch: Bytes::new(),
            retry_at: Mono::ZERO,
            backoff: Backoff::new(limits.retry_base_ms, limits.retry_cap_ms),
        };
        Session {
            log,
            clock,
            captures: meta(place.captures),
            cuts: meta(place.cuts),
            beats: None,
            notes: None,
            config,
            status,
            rng,
            stop: Box::pin(async move { stop.wait().await }),
            stopping: false,
            emitter,
            track: Track::new(at.clone()),
            flights: Vec::new(),
            timer: None,
            waited: Mono::ZERO,
            passes: 0,
            captures_queue: Vec::new(),
            captures_sent: None,
            last_cut: None,
            last_cut_at: Mono::ZERO,
            cut_floor: CommitSeq(0),
            cuts_written: 0,
            checkpointed: at,
            last_checkpoint_at: Mono::ZERO,
            bytes_above: 0,
            config_version: 0,
            finished: Vec::new(),
            hurry: false,
            confirm: None,
            confirmed: None,
        }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.config.limits
    }
    pub fn now(&self) -> Now {
        self.clock.now()
    }
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }
    /// May more of the source be read?
    ///
    /// Only a checkpoint lowers what lies above the last one, so that bound holds the source up where one can come without
    /// more being read. Inside a transaction that alone is larger than the bound none can, and it must come to its end.
    pub fn has_room(&self) -> bool {
        let replay = self.bytes_above < self.limits().replay_bytes_max || !self.is_checkpoint_to_come();
        self.emitter.bytes() < self.limits().credit_bytes && replay
    }
    fn is_checkpoint_to_come(&self) -> bool {
        self.captures_sent.is_some()
            || !self.captures_queue.is_empty()
            || self.is_checkpoint_new()
            || self.track.will_move()
    }
    pub fn wrote(&mut self, bytes: u64) {
        self.bytes_above += bytes;
    }

    /// The log this session works on; lives as long as the attempt.
    pub fn log(&self) -> &'a dyn LogClient {
        self.log
    }
    /// For the few records before the lanes exist.
    pub fn without_cuts(&mut self) {
        self.last_cut = Some((self.track.durable().seq, Native::default()));
        self.last_cut_at = self.now().mono;
    }
    /// Queues a checkpoint of where the attempt begins.
    pub fn store_checkpoint(&mut self) {
        let durable = self.track.durable().clone();
        let checkpoint = Stored::Checkpoint(self.checkpoint(&durable));
        self.captures_queue.push((StoredKey::Checkpoint, checkpoint));
    }

    /// Queues stored records; they are written in order, before anything that is queued later.
    pub fn store(&mut self, records: impl IntoIterator<Item = (StoredKey, Stored)>) {
        self.captures_queue.extend(records);
    }

    /// Writes what is queued and waits until it is committed.
    pub async fn flush_stored(&mut self) -> Result<(), Trouble> {
        self.drive_until(|s| s.captures_queue.is_empty() && s.captures_sent.is_none()).await
    }

    /// Writes what is queued and what a checkpoint is to tell of, and waits until it is committed.
    pub async fn tell_finished(&mut self) -> Result<(), Trouble> {
        self.hurry |= !self.finished.is_empty();
        let told = |s: &Self| s.finished.is_empty() && s.captures_queue.is_empty() && s.captures_sent.is_none();
        self.drive_until(told).await
    }

    /// Drives until `done`. Does not end for a stop: what is waited for is ours to finish.
    pub async fn drive_until(&mut self, done: impl Fn(&Self) -> bool) -> Result<(), Trouble> {
        loop {
            self.pump(false);
            if done(self) {
                return Ok(());
            }
            self.step(std::future::pending::<()>(), false).await?;
        }
    }

    /// Waits until the source may be read again; gives the others a turn if the loop has not waited for long.
    pub async fn make_room(&mut self) -> Result<(), Trouble> {
        self.pump(false);
        self.passes += 1;
        if self.passes > PASSES_MAX || self.now().mono.since(self.waited) > PASS {
            let mut given = false;
            let turn = poll_fn(move |cx| {
                if std::mem::replace(&mut given, true) {
                    return Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            });
            self.step(turn, false).await?;
        }
        self.drive_until(|s| s.has_room()).await
    }

    /// Polls `work` and everything in flight until `work` is done, the source may be told something, or the stop comes.
    /// `work` may be dropped half-way: it must be cancel-safe.
    pub async fn drive<F: Future>(&mut self, work: F) -> Result<Driven<F::Output>, Trouble> {
        let mut work = std::pin::pin!(work);
        loop {
            self.pump(false);
            if let Some(native) = self.confirm.take() {
                return Ok(Driven::Confirm(native));
            }
            if self.stopping {
                return Ok(Driven::Stop);
            }
            if let Some(done) = self.step(work.as_mut(), true).await? {
                return Ok(Driven::Done(done));
            }
        }
    }

    pub fn confirmed(&mut self, native: Native) {
        self.status.update(|s| s.confirmed = native.clone());
        self.confirmed = Some(native);
    }

    /// The checkpoint we begin at is committed: an earlier worker may have died before it told the source.
    pub fn confirm_checkpoint(&mut self) {
        self.confirm = Some(self.checkpointed.native.clone()).filter(|n| !n.is_empty());
    }

    /// A position the source was not told yet.
    pub fn take_confirm(&mut self) -> Option<Native> {
        self.confirm.take()
    }

    /// Waits for one event and handles it. `Some` = `work` is done.
    async fn step<F: Future>(&mut self, work: F, with_stop: bool) -> Result<Option<F::Output>, Trouble> {
        enum Event<T> {
            Rows(usize, AppendOutcome),
            Captures(AppendOutcome),
            Cut(AppendOutcome),
            Beat(AppendOutcome),
            Notes(AppendOutcome),
            Work(T),
            Tick,
            Stop,
        }
        let now = self.now().mono;
        let stuck = self.emitter.stuck(now);
        if !stuck.is_empty() {
            self.ask_where(stuck).await?;
            return Ok(None);
        }
        let deadline = self.deadline();
        if deadline != Mono::NEVER && self.timer.as_ref().is_none_or(|(at, _)| *at > deadline) {
            self.timer = Some((deadline, Box::pin(time::sleep(deadline.since(now)))));
        }
        let mut pending = false;
        let mut work = std::pin::pin!(work);
        let stopping = self.stopping;
        let event = poll_fn(|cx| {
            for (i, flight) in self.flights.iter_mut().enumerate() {
                if let Poll::Ready(outcome) = flight.answer.as_mut().poll(cx) {
                    return Poll::Ready(Event::Rows(i, outcome));
                }
            }
            if let Some(flight) = &mut self.captures.flight
                && let Poll::Ready(outcome) = flight.as_mut().poll(cx)
            {
                return Poll::Ready(Event::Captures(outcome));
            }
            if let Some(flight) = &mut self.cuts.flight
                && let Poll::Ready(outcome) = flight.as_mut().poll(cx)
            {
                return Poll::Ready(Event::Cut(outcome));
            }
            if let Some(flight) = self.beats.as_mut().and_then(|b| b.meta.flight.as_mut())
                && let Poll::Ready(outcome) = flight.as_mut().poll(cx)
            {
                return Poll::Ready(Event::Beat(outcome));
            }
            if let Some(flight) = self.notes.as_mut().and_then(|n| n.meta.flight.as_mut())
                && let Poll::Ready(outcome) = flight.as_mut().poll(cx)
            {
                return Poll::Ready(Event::Notes(outcome));
            }
            if with_stop && !stopping && self.stop.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Stop);
            }
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Event::Work(done));
            }
            if let Some((_, timer)) = &mut self.timer
                && timer.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Event::Tick);
            }
            pending = true;
            Poll::Pending
        })
        .await;
        if pending {
            (self.waited, self.passes) = (self.now().mono, 0);
        }
        match event {
            Event::Rows(i, outcome) => {
                let flight = self.flights.swap_remove(i);
                self.answered(flight.at, flight.id, outcome)?;
            }
            Event::Captures(outcome) => self.captures_answered(outcome)?,
            Event::Cut(outcome) => self.cut_answered(outcome)?,
            Event::Beat(outcome) => self.beat_answered(outcome)?,
            Event::Notes(outcome) => self.notes_answered(outcome)?,
            Event::Work(done) => return Ok(Some(done)),
            Event::Tick => self.timer = None,
            Event::Stop => self.stopping = true,
        }
        Ok(None)
    }

    fn deadline(&self) -> Mono {
        let limits = self.limits();
        let cut = match (self.cuts.flight.is_some(), self.is_cut_new(), self.last_cut.is_some()) {
            (true, ..) => Mono::NEVER,
            (_, true, _) => self.last_cut_at.plus_millis(limits.cut_every_ms).max(self.cuts.retry_at),
            (.., true) => self.last_cut_at.plus_millis(self.pause()).max(self.cuts.retry_at),
            _ => Mono::NEVER,
        };
        let told = !self.notes_wait();
        let checkpoint = if told && self.is_checkpoint_new() && self.captures_sent.is_none() {
            if self.is_hurried() {
                self.captures.retry_at
            } else {
                self.last_checkpoint_at.plus_millis(limits.checkpoint_every_ms)
            }
        } else {
            Mono::NEVER
        };
        let stored = match self.captures_queue.is_empty() && self.captures_sent.is_none() {
            true => Mono::NEVER,
            false if self.captures.flight.is_some() => Mono::NEVER,
            false if self.captures_sent.is_none() && !told => Mono::NEVER,
            false => self.captures.retry_at,
        };
        self.emitter.deadline().min(cut).min(checkpoint).min(stored).min(self.beat_due()).min(self.notes_due())
    }

    /// Hands over everything that may go now. `all` = a clean end: nothing waits for company.
    pub fn pump(&mut self, all: bool) {
        let now = self.now();
        for out in self.emitter.take_outgoing(now.mono, all || self.stopping) {
            let answer = self.log.append(out.at, out.batch, out.how);
            self.flights.push(Flight { at: out.at, id: out.id, answer });
        }
        self.pump_cut(now, all);
        self.pump_notes(now);
        self.pump_captures(now, all);
        self.pump_beat(now);
        if mutant!("confirm_before_checkpoint") {
            let native = self.track.durable().native.clone();
            if self.confirmed.as_ref().is_none_or(|c| native > *c) && !native.is_empty() {
                self.confirmed = Some(native.clone());
                self.confirm = Some(native);
            }
        }
    }

    fn is_cut_new(&self) -> bool {
        let durable = self.track.durable();
        durable.seq >= self.cut_floor && self.last_cut.as_ref().is_none_or(|(seq, _)| durable.seq > *seq)
    }

    /// Between two cuts, ms: by what the next one has to say.
    fn pause(&self) -> u64 {
        let limits = self.limits();
        let moved = || self.last_cut.as_ref().is_some_and(|(_, native)| *native != self.track.durable().native);
        match self.is_cut_new() {
            true => limits.cut_every_ms,
            false if moved() => limits.moved_every_ms.min(limits.idle_every_ms),
            false => limits.idle_every_ms,
        }
    }

    fn pump_cut(&mut self, now: Now, all: bool) {
        let floor = self.track.durable().seq < self.cut_floor;
        if self.cuts.flight.is_some() || now.mono < self.cuts.retry_at || floor {
            return;
        }
        if self.cuts.batch.is_empty() {
            let due = self.last_cut.is_none() || now.mono >= self.last_cut_at.plus_millis(self.pause());
            if !(due || all && self.is_cut_new()) {
                return;
            }
            let durable = self.track.durable().clone();
            let full = self.cuts_written.is_multiple_of(FULL_CUT_EVERY);
            let cut = Cut {
                incarnation: self.config.incarnation,
                commit_seq: durable.seq,
                native: durable.native.clone(),
                commit_time: durable.commit_time,
                written: now.wall,
                full,
                ends: self.emitter.ends(full),
            };
            self.emitter.cut_taken();
            self.cuts_written += 1;
            self.last_cut = Some((durable.seq, durable.native));
            self.last_cut_at = now.mono;
            let key = Cut::key(self.config.capture);
            let mut batch = Builder::new();
            batch.push(now.wall.as_millis(), Some(&key), Some(&cut.encode()), []);
            self.cuts.batch = batch.finish().freeze();
        }
        crash_point!("capture.before_cut");
        self.cuts.flight = Some(self.log.append(self.cuts.at, self.cuts.batch.clone(), self.meta_append()));
    }

    fn is_checkpoint_new(&self) -> bool {
        let durable = self.track.durable();
        *durable != self.checkpointed || self.finished.iter().any(|(seq, ..)| *seq <= durable.seq)
    }

    fn is_hurried(&self) -> bool {
        self.hurry && self.finished.iter().all(|(seq, ..)| *seq <= self.track.durable().seq)
    }

    fn pump_captures(&mut self, now: Now, all: bool) {
        if self.captures.flight.is_some() || now.mono < self.captures.retry_at {
            return;
        }
        if self.captures_sent.is_none() {
            if self.notes_wait() {
                return;
            }
            let limits = self.limits();
            let due = self.is_checkpoint_new()
                && (all
                    || self.is_hurried()
                    || now.mono >= self.last_checkpoint_at.plus_millis(limits.checkpoint_every_ms)
                    || self.bytes_above >= limits.checkpoint_bytes);
            let mut mark = None;
            if due && self.captures_queue.is_empty() {
                let durable = self.track.durable().clone();
                let (told, rest) =
                    std::mem::take(&mut self.finished).into_iter().partition(|(seq, ..)| *seq <= durable.seq);
                let told: Vec<(CommitSeq, StoredKey, Stored)> = told;
                self.finished = rest;
                self.hurry &= !self.finished.is_empty();
                self.captures_queue.extend(told.into_iter().map(|(_, key, stored)| (key, stored)));
                let checkpoint = Stored::Checkpoint(self.checkpoint(&durable));
                self.captures_queue.push((StoredKey::Checkpoint, checkpoint));
                self.last_checkpoint_at = now.mono;
                mark = Some(durable);
            }
            if self.captures_queue.is_empty() {
                return;
            }
            let mut batch = Builder::new();
            let mut records = 0;
            for (key, stored) in &self.captures_queue {
                if records > 0 && batch.bytes() > META_BATCH_BYTES {
                    break;
                }
                let (key, value) = (key.encode(self.config.capture), stored.encode());
                batch.push(now.wall.as_millis(), Some(&key), Some(&value), []);
                records += 1;
            }
            // The mark counts once the batch with the checkpoint itself is in.
            if mark.is_some() && records < self.captures_queue.len() {
                self.captures_queue.pop();
                mark = None;
                records = records.min(self.captures_queue.len());
            }
            self.captures.batch = batch.finish().freeze();
            self.captures_sent = Some(Sent { checkpoint: mark, records });
        }
        if self.captures_sent.as_ref().is_some_and(|s| s.checkpoint.is_some()) {
            crash_point!("capture.before_checkpoint");
        }
        let how = self.meta_append();
        self.captures.flight = Some(self.log.append(self.captures.at, self.captures.batch.clone(), how));
    }

    fn checkpoint(&mut self, at: &Mark) -> Checkpoint {
        Checkpoint {
            incarnation: self.config.incarnation,
            commit_seq: at.seq,
            native: Bytes::copy_from_slice(at.native.as_bytes()),
            config_version: self.config_version,
            emit_version: super::start::EMIT_VERSION,
            commit_time: at.commit_time,
            ends: self.emitter.safe_ends(at.seq),
        }
    }

    /// Fenced by epoch, not deduplicated.
    pub(super) fn meta_append(&self) -> Append {
        let context = CaptureContext {
            capture: self.config.capture,
            epoch: self.config.epoch,
            flags: 0,
            commit_seq: self.track.durable().seq,
            prev: Position::NONE,
            first: Position::NONE,
            last: Position::NONE,
            txn: None,
        };
        let timeout_ms = self.limits().emit.append_timeout_ms;
        Append { context: Context::Capture(context), acks: Acks::All, timeout_ms }
    }

    fn answered(&mut self, at: TopicPartition, id: BatchId, outcome: AppendOutcome) -> Result<(), Trouble> {
        let failures = self.emitter.failures(at);
        // Gap and Partly say where to go on: no pause for the first.
        let pause = match failures {
            0 => 0,
            n => {
                let mut backoff = Backoff::new(self.limits().retry_base_ms, self.limits().retry_cap_ms);
                (1..n.min(20)).fold(0, |_, _| backoff.next_ms(&mut self.rng)).max(backoff.next_ms(&mut self.rng))
            }
        };
        let retry_at = self.now().mono.plus_millis(pause);
        crash_point!("capture.before_acked");
        let answer = self.emitter.answered(at, id, outcome, retry_at, &mut self.track);
        crash_point!("capture.after_acked");
        match answer {
            Answer::Fine | Answer::Stuck => {}
            Answer::Fenced(by) => return Err(Trouble::End(End::Fenced { by })),
            Answer::Refused(why) => return Err(refused(why)),
        }
        self.tell();
        Ok(())
    }

    fn tell(&self) {
        let durable = self.track.durable();
        let quiet = self.track.is_quiet() && !self.track.is_inside();
        let now = self.clock.now().wall;
        self.status.update(|s| {
            s.commit_seq = durable.seq;
            s.native = durable.native.clone();
            // Something got through: what was wrong before is over.
            s.last_error = None;
            s.commit_time = durable.commit_time;
            s.lag_ms = if quiet { 0 } else { (now.as_micros() - durable.commit_time.as_micros()).max(0) / 1000 };
        });
    }

    /// Asks the log where lanes stand and goes on from there.
    async fn ask_where(&mut self, lanes: Vec<TopicPartition>) -> Result<(), Trouble> {
        match self.log.last_positions(self.config.capture, lanes.clone()).await {
            Ok(tails) => {
                for tail in tails {
                    self.emitter.rewound(tail.at, tail.last, tail.end, &mut self.track);
                }
                Ok(())
            }
            Err(LogError::Fenced { by }) => Err(Trouble::End(End::Fenced { by })),
            Err(LogError::NoTopic(at)) => Err(no_topic(at)),
            Err(_) => {
                let then = self.now().mono.plus_millis(self.limits().retry_base_ms.max(1) * 2);
                lanes.into_iter().for_each(|at| self.emitter.ask_later(at, then));
                Ok(())
            }
        }
    }

    fn captures_answered(&mut self, outcome: AppendOutcome) -> Result<(), Trouble> {
        self.captures.flight = None;
        match outcome {
            AppendOutcome::Appended { .. } | AppendOutcome::AlreadyThere { .. } => {
                self.captures.backoff.reset();
                let Some(sent) = self.captures_sent.take() else { return Ok(()) };
                self.captures_queue.drain(..sent.records);
                if let Some(mark) = sent.checkpoint {
                    crash_point!("capture.after_checkpoint");
                    if !mark.native.is_empty() {
                        self.confirm = Some(mark.native.clone());
                    }
                    self.checkpointed = mark;
                    self.bytes_above = self.emitter.bytes() as u64;
                }
                Ok(())
            }
            other => {
                self.captures.retry_at = self.later(other, Internal::Captures)?;
                Ok(())
            }
        }
    }

    fn cut_answered(&mut self, outcome: AppendOutcome) -> Result<(), Trouble> {
        self.cuts.flight = None;
        match outcome {
            AppendOutcome::Appended { .. } | AppendOutcome::AlreadyThere { .. } => {
                crash_point!("capture.after_cut");
                self.cuts.backoff.reset();
                self.cuts.batch = Bytes::new();
                self.tell();
                Ok(())
            }
            other => {
                // The same cut again: it stays true, and its partitions are in no other.
                self.cuts.retry_at = self.later(other, Internal::Cuts)?;
                Ok(())
            }
        }
    }

    /// When an internal append that did not enter for sure may go again; what entered twice says the same twice.
    pub(super) fn later(&mut self, outcome: AppendOutcome, of: Internal) -> Result<Mono, Trouble> {
        match outcome {
            AppendOutcome::Fenced { by } => Err(Trouble::End(End::Fenced { by })),
            AppendOutcome::NotWritten(
                why @ (Why::Invalid | Why::TooLarge | Why::Denied | Why::NoTopic | Why::Unsupported),
            ) => Err(refused(why)),
            _ => {
                let meta = match of {
                    Internal::Captures => Some(&mut self.captures),
                    Internal::Cuts => None,
                    Internal::Beats => self.beats.as_mut().map(|b| &mut b.meta),
                    Internal::Notes => self.notes.as_mut().map(|n| &mut n.meta),
                };
                let backoff = &mut meta.unwrap_or(&mut self.cuts).backoff;
                let pause = backoff.next_ms(&mut self.rng);
                Ok(self.clock.now().mono.plus_millis(pause))
            }
        }
    }

    /// Appends, cuts and checkpoints everything that was read. After it the source may be confirmed and closed.
    pub async fn finish(&mut self) -> Result<(), Trouble> {
        loop {
            self.pump(true);
            let done = self.track.is_quiet()
                && !self.is_checkpoint_new()
                && self.captures_queue.is_empty()
                && self.captures_sent.is_none()
                && self.cuts.flight.is_none()
                && !self.is_cut_new()
                && !self.notes_wait();
            if done {
                return Ok(());
            }
            self.step(std::future::pending::<()>(), false).await?;
        }
    }

    /// Waits for the answers of what was handed over, good or bad: the next attempt must find the log at rest.
    pub async fn settle(&mut self) -> Result<(), Trouble> {
        let limit = u64::from(self.limits().emit.append_timeout_ms) + SETTLE_EXTRA_MS;
        let beat = self.beats.as_mut().and_then(|b| b.meta.flight.take());
        let notes = self.notes.as_mut().and_then(|n| n.meta.flight.take());
        let all = async {
            for flight in self.flights.drain(..) {
                let _ = flight.answer.await;
            }
            for flight in [self.captures.flight.take(), self.cuts.flight.take(), beat, notes].into_iter().flatten() {
                let _ = flight.await;
            }
        };
        // An answer that never comes is Unknown; the fence of the next attempt and the leader's check cover it.
        let _ = time::timeout(Duration::from_millis(limit), all).await;
        Ok(())
    }
}

fn refused(why: Why) -> Trouble {
    let next = match why {
        Why::TooLarge => {
            "a record has at most max.message.bytes of its topic: raise that to 67108864 (kafka-configs.sh --alter), then \
             catchwater pipeline restart"
        }
        Why::NoTopic => "the topic is gone; bring it back, or the source must be read again",
        _ => "",
    };
    Trouble::fail(code::APPEND, format!("the log refuses a batch: {why}"), next)
}

fn no_topic(at: TopicPartition) -> Trouble {
    Trouble::fail(
        code::APPEND,
        format!("topic {} partition {} is gone", at.topic, at.partition),
        "bring it back, or the source must be read again",
    )
}
