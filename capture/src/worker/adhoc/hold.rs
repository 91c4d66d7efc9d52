//! Blocking snapshots: all tables of one signal are read in one view, and their rows stand in the log with no change of the
//! stream between them, of no table.
//!
//! The view is taken while the stream goes on. At the first boundary at which everything visible in it has been emitted, the
//! stream stands still until the last row is placed; so no row is older than what the log has of its key, as with chunks
//! that are placed one by one. (Debezium stops first and reads then: what was committed in between comes behind the rows
//! that show it already.) A crash, a stop, or a reader that fails ends the view: the rest is read in another one, and
//! changes stand between the two parts.

use super::job::{AGAIN_MS, AGAIN_MS_MAX, Placed};
use super::{About, AdHoc, Job, Marking, refuse};
use crate::backfill::may_place;
use crate::error::Trouble;
use crate::notification::Ended;
use crate::source::{Source, StretchEnd};
use crate::worker::fill::{Ask, Reader, Told};
use crate::worker::session::Driven;
use crate::worker::start::Begun;
use crate::worker::stream::Stream;
use catchwater_base::{Mono, crash_point};
use catchwater_change::{Native, RowChange, SnapshotMark};

/// The blocking snapshot in work.
pub(super) struct Hold {
    snapshot: u32,
    pub reader: Reader,
    /// The reader owes an answer.
    pub busy: bool,
    pub told: Option<Told>,
    ready: Option<(Vec<RowChange>, StretchEnd)>,
    /// The stretch before it: the last row of a table is marked, and only the next answer says which one that is.
    before: Option<(Vec<RowChange>, StretchEnd)>,
    /// Tables whose part was looked at: all are, before the view is taken.
    looked_at: usize,
    /// A row was placed.
    any: bool,
    /// The stream stands still.
    pub stands: bool,
}

impl Hold {
    pub fn may_place(&self, at: &Native) -> bool {
        self.ready.as_ref().is_some_and(|(_, end)| may_place(&end.view, at))
    }
}

impl<'a> AdHoc<'a> {
    /// While the stream stands still: when the next stretch may be asked for, also if that is past. Nothing else wakes us.
    pub(super) fn hold_due(&self) -> Option<Mono> {
        let hold = self.hold.as_ref().filter(|h| h.stands && !h.busy && h.told.is_none() && h.ready.is_none())?;
        self.jobs.iter().find(|j| j.blocking && j.snapshot == hold.snapshot).map(|j| j.not_before)
    }

    /// Where its tables are among the jobs.
    fn group(&self) -> Vec<usize> {
        let Some(hold) = &self.hold else { return Vec::new() };
        let of = |j: &Job| j.blocking && j.failed.is_none() && j.snapshot == hold.snapshot;
        self.jobs.iter().enumerate().filter(|(_, j)| of(j)).map(|(at, _)| at).collect()
    }

    pub(super) fn is_held(&self, job: &Job) -> bool {
        job.blocking && self.hold.as_ref().is_some_and(|h| h.snapshot == job.snapshot)
    }

    /// Begins with the oldest one that waits.
    pub(super) fn start_hold(&mut self, begun: &mut Begun<'_>, source: &mut dyn Source) -> Result<(), Trouble> {
        let now = begun.session.now().mono;
        let Some(first) = self
            .jobs
            .iter()
            .find(|j| j.blocking && j.failed.is_none())
            .filter(|j| self.hold.is_none() && now >= j.not_before)
        else {
            return Ok(());
        };
        let snapshot = first.snapshot;
        for job in self.jobs.iter().filter(|j| j.blocking && j.snapshot == snapshot) {
            begun.touched.watch(job.table_no);
        }
        let name = format!("capture.{}.blocking", begun.session.config.source);
        let reader = Reader::start(name, source.snapshot()?);
        self.hold = Some(Box::new(Hold {
            snapshot,
            reader,
            busy: false,
            told: None,
            ready: None,
            before: None,
            looked_at: 0,
            any: false,
            stands: false,
        }));
        Ok(())
    }

    /// Lets the stream go on, and tries the rest later.
    fn release(&mut self, begun: &mut Begun<'_>, pause_ms: u64) {
        let until = begun.session.now().mono.plus_millis(pause_ms);
        for at in self.group() {
            self.jobs[at].not_before = until;
            self.jobs[at].asked = 0;
        }
        self.hold = None;
    }

    /// A step; and once the stream stands still, until the snapshot is at its end, or has to be given up for now.
    pub(super) async fn turn_hold(
        &mut self,
        begun: &mut Begun<'a>,
        source: &mut dyn Source,
        stream: &mut Stream,
    ) -> Result<(), Trouble> {
        self.step_hold(begun, stream).await?;
        while self.hold.as_ref().is_some_and(|h| h.stands) {
            begun.session.make_room().await?;
            let (status, now) = (begun.session.status.clone(), begun.session.now().mono);
            match begun.session.drive(self.ready(&status, now)).await? {
                Driven::Confirm(native) => {
                    source.confirm(&native);
                    begun.session.confirmed(native);
                }
                // The loop hears of it, too.
                Driven::Stop => {
                    self.hold = None;
                    return Ok(());
                }
                Driven::Done(()) => {}
            }
            self.follow(begun, source).await?;
            self.poll_topic(begun);
            self.step_hold(begun, stream).await?;
            self.show(begun);
        }
        Ok(())
    }

    /// Takes what the reader said, places what may be placed, and asks on.
    async fn step_hold(&mut self, begun: &mut Begun<'a>, stream: &mut Stream) -> Result<(), Trouble> {
        let group = self.group();
        let now = begun.session.now().mono;
        let Some(hold) = &mut self.hold else { return Ok(()) };
        let Some(first) = group.first().copied() else {
            self.hold = None; // stopped
            return Ok(());
        };
        match hold.told.take() {
            Some(Told::Expected(expected)) => {
                let job = &mut self.jobs[group[hold.looked_at.min(group.len() - 1)]];
                job.estimate = expected.rows;
                job.since.get_or_insert((now, job.rows));
                hold.looked_at += 1;
            }
            Some(Told::Stretch(rows, end)) => hold.ready = Some((rows, end)),
            Some(Told::Failed(e)) if e.is_retry() => {
                let job = &mut self.jobs[first];
                let pause = (AGAIN_MS << job.failures.min(8)).min(AGAIN_MS_MAX);
                job.failures += 1;
                self.release(begun, pause);
                return Ok(());
            }
            Some(Told::Failed(e)) => {
                let at = group.get(hold.looked_at).copied().unwrap_or(first);
                let name = self.jobs[at].name.clone();
                refuse(begun, &format!("the ad hoc snapshot of {name} is given up: {} {}", e.code, e.what));
                self.release(begun, 0);
                self.jobs[at].give_up(begun);
                self.finished(begun, at, Some(Ended::SqlException));
                return Ok(());
            }
            Some(Told::Planned(_) | Told::Read(_) | Told::Bulk(..) | Told::LookedAt) | None => {}
        }
        if hold.may_place(&stream.at)
            && let Some((rows, end)) = hold.ready.take()
        {
            if !std::mem::replace(&mut hold.stands, true) {
                crash_point!("capture.stream_stands");
            }
            self.jobs[first].failures = 0;
            let is_end = end.upto.is_empty() && self.jobs[first].asked == 0;
            let by_key = self.jobs[first].asked > 0;
            let before = match by_key {
                true => Some((rows, end.clone())),
                false if is_end => hold.before.take(),
                false => hold.before.replace((rows, end.clone())),
            };
            if let Some((rows, of)) = before {
                let last = is_end.then_some(match group.len() {
                    1 => SnapshotMark::Last,
                    _ => SnapshotMark::LastInCollection,
                });
                let of_table = self.jobs[first].cursor.is_empty() && !by_key;
                let mark = match (of_table, hold.any) {
                    (false, _) => None,
                    (_, false) => Some(SnapshotMark::First),
                    (_, true) => Some(SnapshotMark::FirstInCollection),
                };
                hold.any = true;
                let marking = Marking { each: SnapshotMark::Middle, first: mark, last };
                let about = About::of(self, begun);
                match self.jobs[first].place(begun, stream, rows, of, &about, marking).await? {
                    Placed::Again => {
                        self.release(begun, AGAIN_MS);
                        return Ok(());
                    }
                    Placed::On | Placed::End => {}
                }
            }
            if is_end {
                let about = About::of(self, begun);
                let marking = Marking { each: SnapshotMark::Middle, first: None, last: None };
                if let Placed::End = self.jobs[first].place(begun, stream, Vec::new(), end, &about, marking).await? {
                    crash_point!("capture.table_ends");
                    self.finished(begun, first, None);
                }
            }
        }
        self.ask_hold(begun);
        Ok(())
    }

    fn ask_hold(&mut self, begun: &mut Begun<'_>) {
        let group = self.group();
        let now = begun.session.now().mono;
        let Some(hold) = &mut self.hold else { return };
        let Some(first) = group.first().copied() else {
            self.hold = None; // at its end
            return;
        };
        if hold.busy || hold.ready.is_some() || now < self.jobs[first].not_before {
            return;
        }
        if let Some(at) = group.get(hold.looked_at).filter(|_| !hold.any && !hold.stands) {
            let job = &mut self.jobs[*at];
            job.described = job.described_by(begun);
            if let Some(of) = job.stretch(begun) {
                hold.reader.ask(Ask::Stretches(Box::new(of)));
                hold.busy = true;
            }
            return;
        }
        let job = &mut self.jobs[first];
        if let Some(mut of) = job.stretch(begun) {
            of.hold = true;
            match &hold.before {
                Some((_, end)) => of.after.clone_from(&end.upto),
                None => of.keys.clone_from(&job.again),
            }
            job.asked = of.keys.len();
            hold.reader.ask(Ask::Stretch(Box::new(of)));
            hold.busy = true;
        }
    }
}
