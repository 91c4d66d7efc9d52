//! From rows in their turn to a commit at the sink: what a change does, the write, the mark, and what is told of it.
//!
//! Walk: row-change 14/17

use super::flight::{Content, Held};
use super::lanes::{Done, Tally};
use super::{Place, Session, Trouble, Worker};
use crate::batch::Taken;
use crate::commit::mirror_group;
use crate::error::transformed;
use crate::lag::Way;
use crate::park::OnRowError;
use crate::plan;
use crate::regroup::Run;
use crate::retry::Ordered;
use crate::sink::{Ack, Mark, What, is_note, operation};
use crate::status::State;
use crate::wire::WireError;
use catchwater_base::{Wall, crash_point};
use catchwater_change::Op;
use catchwater_change::stamp::flag;
use catchwater_record::{CommitSeq, TopicPartition};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

impl Worker {
    pub(super) async fn take(
        &mut self,
        session: &mut Session<'_>,
        at: TopicPartition,
        run: Run<Held>,
    ) -> Result<(), Trouble> {
        let Held { stamp, captured, read, content } = run.row;
        let no = stamp.schema_no;
        if !self.book.schemas.contains_key(&no) {
            // Committed before the row, so it is there by now.
            self.read_book(session.internal).await?;
        }
        let Some(schema) = self.book.schemas.get(&no).cloned() else {
            return Err(WireError::NoSchema { at, offset: run.offset, no }.into());
        };
        if stamp.flags & flag::TRANSFORMED != 0 {
            return Err(Trouble::Fatal(transformed(&schema.qualified())));
        }
        if !self.plans.contains_key(&no) {
            if session.lane_open {
                return Err(Trouble::Prepare(no));
            }
            self.settle(session).await?;
            self.prepare(session, no).await?;
        }
        let Some(plan) = self.plans.get(&no).cloned() else {
            return Err(WireError::NoSchema { at, offset: run.offset, no }.into());
        };
        let change = match content {
            Content::Row(row) => *row,
            Content::Raw(record) => self.deps.wire.row(&record, &stamp, &schema).map_err(|why| WireError::Record {
                at,
                offset: run.offset,
                why,
            })?,
        };
        let comes = stamp.flags & flag::ROW_COMES != 0;
        let mut applies = Vec::new();
        // Of a table without a key that begins again, nothing here counts: the truncate and the rows to come say it all.
        if !comes || !schema.key.is_empty() || change.op == Op::Truncate {
            let at = crate::mode::At { version: stamp.version, commit_time: stamp.commit_time };
            applies = self.config.applies(change, &plan, at).map_err(|e| Trouble::Fatal(e.into()))?;
        }
        if comes {
            // The row is not in the target; the chunk that brings it brings this change, too.
            applies.retain(|a| !matches!(a.what, What::Update(_)));
        }
        let (seq, from) = (stamp.version.commit_seq, (at, run.offset));
        session.at = Place { seq, native: stamp.native, commit_time: stamp.commit_time };
        let committed = stamp.commit_time;
        session.way = Some(Way { seq, committed, captured, read: Some(read), applied: None });
        session.first = session.first.or(session.way);
        session.taken += 1;
        if applies.is_empty() {
            session.filtered += 1;
        } else if self.set_aside(session, &applies, stamp.version, from) {
            applies.clear();
        } else {
            *session.counted.entry((no, operation(&applies))).or_default() += 1;
            if self.source_order.is_some() {
                session.origins.insert(stamp.version, from);
            }
        }
        if stamp.flags & flag::SNAPSHOT == 0 {
            session.batch.stale();
        }
        session.batch.push(self.now().mono, seq, run.bytes, applies);
        Ok(())
    }

    /// Writes what the batch holds into the open sink transaction.
    pub(super) async fn write(&mut self, session: &mut Session<'_>) -> Result<(), Trouble> {
        // What goes this way has the target for itself.
        self.settle(session).await?;
        // Behind rows that wait, a part of their state is not looked at as a whole.
        let in_order =
            self.source_order.is_some_and(|upto| session.batch.first_seq() <= upto) || !session.waiting.is_empty();
        let Taken { mut group, folded, .. } = session.batch.take(in_order);
        group.partial |= self.is_held(session);
        session.folded += folded as u64;
        if group.applies.is_empty() {
            return Ok(());
        }
        if in_order && matches!(self.config.on_row_error, OnRowError::ParkKey { .. }) {
            let done = self.write_guarded(session, group).await;
            session.origins.clear();
            return done;
        }
        self.breaker.rows(group.applies.len() as u64);
        if !group.source_order {
            session.ordered = Ordered::Folded;
        }
        crash_point!("deliver.before_group");
        session.lane_open = true;
        session.wrote_at = self.now().mono;
        self.tell_oldest(session);
        let work = session.lane.write(&group);
        let done = session.flight.beside(work).await;
        done.map_err(|e| Trouble::Sink(e, Some((group.last_seq, session.ordered))))?;
        self.wrote(session);
        Ok(())
    }

    /// The end of a group: it is committed, or only written while no state of the source is whole.
    pub(super) async fn close(&mut self, session: &mut Session<'_>) -> Result<(), Trouble> {
        if !session.book_is_new {
            // What a capture plans is committed before its first row.
            self.read_book(session.internal).await?;
            session.book_is_new = true;
        }
        if !self.is_held(session) {
            return self.flush(session).await;
        }
        self.status.update(|s| s.state = State::Snapshot);
        self.write(session).await
    }

    /// No state of the source is whole in the log where this session stands.
    pub(super) fn is_held(&self, session: &Session<'_>) -> bool {
        self.rebuild.is_some_and(|at| session.at.seq < at)
            || self.book.whole_from().is_none_or(|at| session.at.seq < at)
            || session.thin.holds(|at| session.regroup.given_out(at))
            || self.lacks_parents(Some(session.at.seq))
    }

    /// A foreign key of the target points to a table that came later and whose rows are still being read: what refers to one
    /// that has not come cannot be committed, and nothing that came with it.
    pub(super) fn lacks_parents(&self, at: Option<CommitSeq>) -> bool {
        let open: BTreeSet<u32> = self.book.incomplete(at).collect();
        if open.is_empty() {
            return false;
        }
        let of_open = self.plans.values().filter(|p| open.contains(&p.source.table_no)).map(|p| p.meets.table);
        let seeds: BTreeSet<u64> = of_open.collect();
        self.plans.values().any(|p| p.meets.parent_tables.iter().any(|t| seeds.contains(t)))
    }

    /// Writes the rest and commits: rows, position and fence become visible as one.
    pub(super) async fn flush(&mut self, session: &mut Session<'_>) -> Result<(), Trouble> {
        if self.hand_over(session).await? {
            return Ok(());
        }
        self.write(session).await?;
        self.write_waiting(session).await?;
        self.post_letters(session).await?;
        let mark = self.mark(session);
        self.commit(session, mark).await?;
        crash_point!("deliver.after_group");
        Ok(())
    }

    pub(super) async fn commit(&mut self, session: &mut Session<'_>, mark: Mark) -> Result<(), Trouble> {
        let last = mark.seq;
        self.tell_oldest(session);
        let from = self.now().mono;
        let work = session.lane.commit(&mark);
        let done = session.flight.beside(work).await;
        self.status.timings().commit.observe_us(micros(self.now().mono.since(from)));
        let ack = done.map_err(|e| Trouble::Sink(e, Some((last, session.ordered))))?;
        session.lane_open = false;
        session.ordered = Ordered::AsTheSource;
        session.first = None;
        let tally = self.tally(session, 0);
        self.booked(session, Done { mark, tally, ack });
        Ok(())
    }

    /// A group is durable.
    pub(super) fn booked(&mut self, session: &mut Session<'_>, done: Done) {
        let Done { mark, tally, ack } = done;
        if self.source_order.is_some_and(|upto| mark.seq >= upto) {
            self.source_order = None;
        }
        self.retry.progress();
        self.rebuilt();
        self.patient = false;
        let now = self.now();
        if ack == Ack::Durable {
            session.commit.handle_durable(now.mono, mark.clone());
        }
        let Tally { counted, folded, taken, filtered, parked, way } = tally;
        let counted: Vec<(String, &'static str, u64)> = counted
            .into_iter()
            .filter(|(_, n)| *n > 0)
            .filter_map(|((no, what), n)| Some((plan::shown(&self.plans.get(&no)?.target), what, n)))
            .collect();
        let parked_keys = self.parked.len() as u64;
        let bytes = session.held_bytes();
        let age_ms = age_ms(now.wall, mark.commit_time);
        let stages = way.map_or([0; 4], |way| way.stages(now.wall));
        let hidden = [session.internal.cuts, session.internal.captures];
        let ours = |at: &TopicPartition| !is_note(*at) && !hidden.contains(at);
        let durable: Arc<[_]> = mark.offsets.iter().filter(|(at, _)| ours(at)).copied().collect();
        let oldest = session.oldest();
        if !counted.is_empty() {
            self.status.timings().rows.observe_us(taken);
        }
        self.status.update(|s| {
            s.state = State::Running;
            s.last_error = None;
            s.seq = mark.seq;
            s.position = mark.native;
            s.commit_time = mark.commit_time;
            s.bytes = bytes;
            s.durable = Some(durable);
            s.waits(oldest, mark.seq);
            s.taken += taken;
            s.filtered += filtered;
            s.parked += parked;
            s.parked_keys = parked_keys;
            if counted.is_empty() {
                // The position alone, of a quiet source: no delivery took that long.
                return;
            }
            s.rows += counted.iter().map(|(.., n)| n).sum::<u64>();
            s.folded += folded;
            s.groups += 1;
            for (table, what, n) in counted {
                *s.tables.entry(table.clone()).or_default() += n;
                *s.operations.entry((table, what)).or_default() += n;
            }
            s.lag_ms = age_ms;
            s.latency_ms = age_ms;
            s.stages = stages;
        });
    }

    pub(super) fn mark(&self, session: &Session<'_>) -> Mark {
        let mut mark = Mark {
            incarnation: self.config.incarnation,
            seq: session.at.seq,
            offsets: session.regroup.offsets(session.internal.cuts),
            native: session.at.native.clone(),
            commit_time: session.at.commit_time,
        };
        if let Some((topic, below)) = session.settled {
            mark.settle_letters(topic, below);
        }
        for (topic, shape) in self.shapes(session) {
            mark.take_shape(topic, shape);
        }
        mark
    }

    /// Nothing to apply: the mirror, and now and then the position alone.
    pub(super) async fn idle(&mut self, session: &mut Session<'_>, behind: bool) -> Result<(), Trouble> {
        self.commit_letters(session).await?;
        let now = self.now().mono;
        if let Some(mark) = session.commit.poll_idle(now) {
            self.commit(session, mark).await?;
        }
        // Before the log has answered nobody knows what waits there.
        if session.has_looked && !behind && !session.regroup.has_backlog() {
            // Inside the first snapshot (or a rebuild) what was read is not to be seen, nor what came beside it.
            let reached = (!self.is_held(session)).then(|| (session.at.seq, session.at.native.clone()));
            self.status.update(|s| {
                s.lag_ms = 0;
                s.oldest = None;
                s.bytes = 0;
                // A cut was reached without trouble.
                s.last_error = None;
                s.state = State::Snapshot;
                if let Some((seq, native)) = reached {
                    s.seq = seq;
                    s.position = native;
                    s.state = State::Running;
                }
            });
        }
        Ok(())
    }

    /// The group offsets for lag tools, at most once a second.
    pub(super) async fn mirror(&mut self, session: &mut Session<'_>) {
        let hidden = [session.internal.cuts, session.internal.captures];
        let Some(offsets) = session.commit.poll_mirror(self.now().mono, &hidden) else { return };
        crash_point!("deliver.before_mirror");
        let group = mirror_group(&self.config.pipeline, &self.config.sink);
        let work = self.deps.log.commit(group, offsets);
        // A failure costs those tools a second, nothing else.
        let _ = session.flight.beside(work).await;
        crash_point!("deliver.after_mirror");
    }
}

impl Worker {
    /// The lane has taken what it was given.
    pub(super) fn wrote(&mut self, session: &mut Session<'_>) {
        let now = self.now();
        self.status.timings().write.observe_us(micros(now.mono.since(session.wrote_at)));
        for way in [&mut session.first, &mut session.way] {
            *way = way.map(|way| Way { applied: Some(now.wall), ..way });
        }
    }

    /// What waits longest and how busy the lanes are, for who asks while the target works or stands.
    pub(super) fn tell_oldest(&mut self, session: &Session<'_>) {
        let lanes = session.flight.lanes.count() + usize::from(session.lane_open);
        let share = self.busy.see(self.now().mono, lanes, self.lanes_max.max(1));
        if let Some(share) = share {
            self.status.update(|s| s.lanes_busy = Some(share));
        }
        let oldest = session.oldest();
        let quiet = session.batch.is_empty() && !session.lane_open && !session.flight.lanes.is_busy();
        let done = if quiet { session.at.seq } else { CommitSeq(0) };
        self.status.update(|s| s.waits(oldest, done));
    }
}

impl Session<'_> {
    /// The oldest change that is here and not durable.
    fn oldest(&self) -> Option<Way> {
        let waits = || {
            let run = self.regroup.first()?;
            let (seq, Held { stamp, captured, read, .. }) = (run.version.commit_seq, &run.row);
            let (committed, captured, read) = (stamp.commit_time, *captured, Some(*read));
            Some(Way { seq, committed, captured, read, applied: None })
        };
        self.flight.lanes.oldest().or(self.first).or_else(waits)
    }
}

pub(super) fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

fn age_ms(now: Wall, then: Wall) -> u64 {
    u64::try_from(now.as_millis().saturating_sub(then.as_millis())).unwrap_or(0)
}
