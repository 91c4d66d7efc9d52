//! Groups in several lanes: each is a transaction of the target of its own, open at the same time as others that it does
//! not meet; they commit in the order of the source.
//!
//! Lanes are polled by the worker's own task, never spawned: with the session they end. A lane travels in the future that
//! uses it, and comes back with the answer.
//!
//! Invariants: `going` is in the order of the source, and only its front commits; no two of `going` meet; after a failure
//! nothing new begins, and the session ends.

use super::group::micros;
use super::{Session, Trouble, Worker};
use crate::batch::Taken;
use crate::lag::Way;
use crate::order::WriteSet;
use crate::retry::Ordered;
use crate::sink::{Ack, Lane, Mark, SinkError};
use crate::status::StatusHandle;
use catchwater_base::{Clock, Mono, Wall, crash_point};
use catchwater_record::CommitSeq;
use catchwater_runtime::Fut;
use catchwater_runtime::time::timeout;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Rows from which a group is worth a lane while another one is on its way: below, it waits and grows.
const ROWS_MIN: usize = 100;
/// How long the front may write while later groups wait for their turn, before they are suspected to hold it up.
const HELD_UP_MS: u64 = 1000;
/// How often that is looked at.
const LOOK_MS: u64 = 200;
/// Groups that go alone after one was held up, doubled each time it happens again.
const ALONE_MIN: u32 = 32;
const ALONE_MAX: u32 = 1 << 14;

/// And when.
type Wrote = (Box<dyn Lane>, Result<(), SinkError>, Wall);
type Committed = (Box<dyn Lane>, Result<Ack, SinkError>);

enum Stage {
    Writing(Fut<'static, Wrote>),
    Written(Box<dyn Lane>),
    Committing(Fut<'static, Committed>),
    /// Between two of them, and after a failure.
    Gone,
}

/// What a group adds to the counts when it is durable.
#[derive(Default)]
pub(super) struct Tally {
    /// Per schema and kind of operation.
    pub counted: BTreeMap<(u32, &'static str), u64>,
    pub folded: u64,
    pub taken: u64,
    pub filtered: u64,
    pub parked: u64,
    /// Of the newest row.
    pub way: Option<Way>,
}

struct Going {
    stage: Stage,
    set: WriteSet,
    mark: Mark,
    tally: Tally,
    /// Of the oldest row.
    first: Option<Way>,
    last: CommitSeq,
    bytes: usize,
    /// When it was handed over.
    from: Mono,
    clocked: Clocked,
}

/// What a call is timed with.
type Clocked = (Arc<dyn Clock>, StatusHandle);

/// A group that is durable.
pub(super) struct Done {
    pub mark: Mark,
    pub tally: Tally,
    pub ack: Ack,
}

#[derive(Default)]
pub(super) struct Lanes {
    idle: Vec<Box<dyn Lane>>,
    going: VecDeque<Going>,
    done: VecDeque<Done>,
    failed: Option<(SinkError, CommitSeq)>,
}

impl Lanes {
    pub fn is_busy(&self) -> bool {
        !self.going.is_empty() || !self.done.is_empty() || self.failed.is_some()
    }
    pub fn bytes(&self) -> usize {
        self.going.iter().map(|g| g.bytes).sum()
    }
    /// Something to reap.
    pub fn has_news(&self) -> bool {
        !self.done.is_empty() || self.failed.is_some()
    }

    /// Groups that are on their way.
    pub fn count(&self) -> usize {
        self.going.len()
    }

    /// The oldest change in a lane.
    pub fn oldest(&self) -> Option<Way> {
        self.going.iter().find_map(|g| g.first)
    }

    fn meets(&self, set: &WriteSet) -> bool {
        self.going.iter().any(|g| g.set.meets(set))
    }

    /// The front still writes, and others have waited for their turn for long: perhaps for each other.
    fn is_held_up(&self, now: Mono) -> bool {
        let mut all = self.going.iter();
        let writes = |g: &Going| matches!(g.stage, Stage::Writing(_)) && now >= g.from.plus_millis(HELD_UP_MS);
        all.next().is_some_and(writes) && all.any(|g| matches!(g.stage, Stage::Written(_)))
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) {
        for going in &mut self.going {
            if let Stage::Writing(work) = &mut going.stage
                && let Poll::Ready((lane, result, at)) = work.as_mut().poll(cx)
            {
                for way in [&mut going.first, &mut going.tally.way] {
                    *way = way.map(|way| Way { applied: Some(at), ..way });
                }
                going.stage = match result {
                    Ok(()) => Stage::Written(lane),
                    Err(e) => {
                        let last = going.last;
                        self.failed.get_or_insert((e, last));
                        Stage::Gone
                    }
                };
            }
        }
        while self.failed.is_none() {
            let Some(front) = self.going.front_mut() else { return };
            match std::mem::replace(&mut front.stage, Stage::Gone) {
                Stage::Written(mut lane) => {
                    let (mark, clocked) = (front.mark.clone(), front.clocked.clone());
                    front.stage = Stage::Committing(Box::pin(async move {
                        crash_point!("deliver.before_turn");
                        let from = clocked.0.now().mono;
                        let result = lane.commit(&mark).await;
                        clocked.1.timings().commit.observe_us(micros(clocked.0.now().mono.since(from)));
                        crash_point!("deliver.after_turn");
                        (lane, result)
                    }));
                }
                Stage::Committing(mut work) => match work.as_mut().poll(cx) {
                    Poll::Pending => {
                        front.stage = Stage::Committing(work);
                        return;
                    }
                    Poll::Ready((lane, Ok(ack))) => {
                        self.idle.push(lane);
                        let Some(Going { mark, tally, .. }) = self.going.pop_front() else { return };
                        self.done.push_back(Done { mark, tally, ack });
                    }
                    Poll::Ready((_, Err(e))) => self.failed = Some((e, front.last)),
                },
                other => {
                    front.stage = other;
                    return;
                }
            }
        }
    }

    /// Rolls back what is not committed.
    pub async fn abort(&mut self) {
        for going in std::mem::take(&mut self.going) {
            // A lane inside a call is dropped with it, which ends its connection.
            if let Stage::Written(mut lane) = going.stage {
                lane.abort().await;
            }
        }
        self.idle.clear();
    }
}

impl Worker {
    /// May the batch leave in a lane of its own?
    fn may_overlap(&self, session: &Session<'_>) -> bool {
        self.lanes_max > 1
            && self.alone == 0
            && !session.lane_open
            && self.source_order.is_none()
            && session.letters.is_empty()
            && session.parks.is_empty()
            && session.batch.is_whole()
    }

    /// Gives the batch to a lane. False = it has to go the usual way.
    pub(super) async fn hand_over(&mut self, session: &mut Session<'_>) -> Result<bool, Trouble> {
        if session.flight.lanes.has_news() {
            self.reap(session)?;
        }
        if !self.may_overlap(session) {
            self.alone = self.alone.saturating_sub(1);
            return Ok(false);
        }
        if session.flight.lanes.is_busy() && session.batch.rows() < ROWS_MIN.min(session.batch.rows_max()) {
            // The time until the one before it is through lets it grow.
            self.news(session).await?;
            return Ok(true);
        }
        let Taken { group, folded, bytes, .. } = session.batch.take(false);
        self.breaker.rows(group.applies.len() as u64);
        let set = WriteSet::of(&group.applies);
        while session.flight.lanes.going.len() >= self.lanes_max || session.flight.lanes.meets(&set) {
            self.news(session).await?;
        }
        let lane = match session.flight.lanes.idle.pop() {
            Some(lane) => lane,
            None => {
                let work = self.deps.sink.lane();
                session.flight.beside(work).await.map_err(super::sink_trouble)?
            }
        };
        let first = session.first.take();
        let tally = self.tally(session, folded as u64);
        let mark = self.mark(session);
        let last = group.last_seq.max(mark.seq);
        crash_point!("deliver.before_group");
        let mut lane = lane;
        let clocked: Clocked = (self.deps.clock.clone(), self.status.clone());
        let timed = clocked.clone();
        let write = Box::pin(async move {
            let from = timed.0.now().mono;
            let result = if group.applies.is_empty() { Ok(()) } else { lane.write(&group).await };
            let now = timed.0.now();
            timed.1.timings().write.observe_us(micros(now.mono.since(from)));
            (lane, result, now.wall)
        });
        let from = self.now().mono;
        session.flight.lanes.going.push_back(Going {
            stage: Stage::Writing(write),
            set,
            mark,
            tally,
            first,
            last,
            bytes,
            from,
            clocked,
        });
        self.tell_oldest(session);
        Ok(true)
    }

    /// Until a group is through. Ends the session when the front is held up by those behind it, and at a stop.
    async fn news(&mut self, session: &mut Session<'_>) -> Result<(), Trouble> {
        loop {
            if session.flight.lanes.has_news() || !session.flight.lanes.is_busy() {
                return self.reap(session);
            }
            self.look_at_lanes(session)?;
            {
                let mut stop = pin!(self.stop.wait());
                let flight = &mut session.flight;
                let news = poll_fn(|cx| {
                    flight.poll(cx);
                    match flight.lanes.has_news() || stop.as_mut().poll(cx).is_ready() {
                        true => Poll::Ready(()),
                        false => Poll::Pending,
                    }
                });
                let _ = timeout(Duration::from_millis(LOOK_MS), news).await;
            }
            if self.stop.is_stopped() {
                return Err(Trouble::Stopped);
            }
        }
    }

    pub(super) fn look_at_lanes(&self, session: &Session<'_>) -> Result<(), Trouble> {
        if session.flight.lanes.is_held_up(self.now().mono) { Err(Trouble::HeldUp) } else { Ok(()) }
    }

    /// Books what is durable.
    pub(super) fn reap(&mut self, session: &mut Session<'_>) -> Result<(), Trouble> {
        while let Some(done) = session.flight.lanes.done.pop_front() {
            self.booked(session, done);
            crash_point!("deliver.after_group");
        }
        let busy = session.flight.lanes.going.len() > 1;
        let Some((error, last)) = session.flight.lanes.failed.take() else { return Ok(()) };
        if busy {
            self.go_alone();
        }
        // Not alone it may have met what is not seen: as the source did it, it will not.
        Err(Trouble::Sink(error, Some((last, Ordered::Folded))))
    }

    /// Until nothing is in a lane.
    pub(super) async fn settle(&mut self, session: &mut Session<'_>) -> Result<(), Trouble> {
        while session.flight.lanes.is_busy() {
            self.news(session).await?;
        }
        Ok(())
    }

    /// The next groups go one by one.
    pub(super) fn go_alone(&mut self) {
        self.alone = self.alone_next;
        self.alone_next = (self.alone_next * 2).min(ALONE_MAX);
        self.status.update(|s| s.reorders += 1);
    }

    pub(super) const ALONE_FIRST: u32 = ALONE_MIN;

    /// What was counted since the group before.
    pub(super) fn tally(&mut self, session: &mut Session<'_>, folded: u64) -> Tally {
        Tally {
            counted: std::mem::take(&mut session.counted),
            folded: std::mem::take(&mut session.folded) + folded,
            taken: std::mem::take(&mut session.taken),
            filtered: std::mem::take(&mut session.filtered),
            parked: std::mem::take(&mut session.parked),
            way: session.way.take(),
        }
    }
}
