//! Signals, and the snapshots they ask for while the source streams: tables, or parts of them, read again by chunks.
//!
//! A signal comes by an insert into the signal table (in its transaction's place), by the signal topic, or from outside
//! ([`crate::StatusHandle::signal`]). What it asks for is one record per table in `__catchwater_captures`, committed
//! before anything else happens, so it outlives a crash; one of the table is known by its transaction when that comes again.
//!
//! A table is read by a reader with its own connection, in the order of its key; each chunk has a view of its own and is
//! placed by `crate::adhoc`. The record says up to which key the durable log has it. After a crash the chunks above
//! that are read again, but for the rows that are in the log.

use super::fill::{Ask, Reader, Told, encode_view};
use super::start::{Begun, Inserted, Numbered, read_all, whole_table};
use super::stream::Stream;
use crate::backfill::{Verdict, may_place};
use crate::emit::Unit;
use crate::error::{Trouble, code};
use crate::notification::Ended;
use crate::signal::{self, Execute, Signal, SignalError};
use crate::source::{Source, SourceError, Stretch, StretchEnd};
use crate::status::{AdHoc as Shown, Asked, StatusHandle};
use crate::track::Mark;
use bytes::Bytes;
use catchwater_base::hash::{Map, xxh3_128};
use catchwater_base::{Mono, crash_point, log};
use catchwater_change::checkpoint::{
    ChunkPhase, ChunkRecord, SignalsRecord, Stored, StoredKey, WHOLE_TABLE, chunk_flag,
};
use catchwater_change::decode::debezium_json;
use catchwater_change::json::{self, Node};
use catchwater_change::stamp::flag;
use catchwater_change::{Cell, Native, Op, RowChange, SnapshotMark, TableSchema, Value};
use catchwater_record::{CommitSeq, Offset, TopicName, TopicPartition, TxnId};
use catchwater_runtime::time;
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// Tables that wait or are read, all signals together.
const JOBS_MAX: usize = 10_000;
pub(super) struct AdHoc<'a> {
    /// In the order they were asked for.
    jobs: Vec<Job>,
    next_snapshot: u32,
    topic: Option<Topic<'a>>,
    shown: bool,
    /// Of the newest signal whose tables are read beside the stream.
    id: Option<String>,
    /// Blocking ones, and all their tables.
    blocking: BTreeMap<u32, Vec<String>>,
    /// The one of them in work.
    hold: Option<Box<Hold>>,
    looks: Looks,
}

mod again;
mod hold;
mod job;
mod late;
mod look;
mod moved;
mod told;
mod topic;
pub(super) use again::is_begun;
use hold::Hold;
use job::Job;
use look::Looks;
pub(super) use moved::look as look_for_moved;
use told::About;
use topic::{Topic, look_into};

/// `source.snapshot` of the rows of a stretch.
#[derive(Clone, Copy)]
struct Marking {
    each: SnapshotMark,
    first: Option<SnapshotMark>,
    last: Option<SnapshotMark>,
}

/// An insert into the signal table is kept for the next turn.
pub(super) fn look(begun: &mut Begun<'_>, seq: CommitSeq, row: &RowChange) {
    let Some(wanted) = &begun.session.config.signals.table else { return };
    if row.op != Op::Create || row.table.qualified() != *wanted {
        return;
    }
    let text = |i: usize| match row.after.as_ref().and_then(|r| r.cells.get(i)) {
        Some(Cell::Value(Value::Text(t) | Value::Json(t))) => String::from_utf8_lossy(t.as_bytes()).into_owned(),
        _ => String::new(),
    };
    begun.signals.push(Inserted { seq, id: text(0), kind: text(1), data: text(2) });
}

impl<'a> AdHoc<'a> {
    /// What was asked for and is not at its end.
    pub async fn begin(begun: &mut Begun<'a>) -> Result<AdHoc<'a>, Trouble> {
        let next_snapshot =
            begun.history.chunks.keys().map(|(snapshot, ..)| snapshot + 1).max().unwrap_or(2).max(2) + 1; // one is the rest's (`fill`)
        let config = &begun.session.config;
        let topic = config.signals.kafka.clone().map(|name| {
            let name = TopicName::from(name.unwrap_or_else(|| format!("{}-signal", config.prefix)));
            let taken = begun.history.signals.first().copied();
            let (at, next) = taken.map_or((None, Offset::ZERO), |(at, next)| (Some(at), next));
            Topic { name, at, next, flight: None, got: None }
        });
        let (id, blocking, looks) = (None, BTreeMap::new(), Looks::default());
        let mut out = AdHoc { jobs: Vec::new(), next_snapshot, topic, shown: false, id, blocking, hold: None, looks };
        let open: Vec<((u32, u32, u32), ChunkRecord)> = begun
            .history
            .chunks
            .iter()
            .filter(|((.., unit), c)| *unit == WHOLE_TABLE && c.flags & chunk_flag::AD_HOC != 0)
            .filter(|(_, c)| matches!(c.phase, ChunkPhase::Planned | ChunkPhase::Open))
            .map(|(key, c)| (*key, c.clone()))
            .collect();
        for ((snapshot, table_no, _), record) in open {
            let mut job = Job::restored(snapshot, table_no, &record);
            let Some(table) = newest(begun, table_no) else {
                let of = begun.history.tables.iter().rev().find(|t| t.schema.table_no == table_no);
                let name = of.map_or_else(|| format!("table {table_no}"), |t| t.schema.qualified());
                refuse(
                    begun,
                    &format!("ad hoc snapshot {snapshot} of {name} is given up: it is not captured any more"),
                );
                begun.session.store([(job.key(), job.stored(begun, ChunkPhase::GivenUp))]);
                continue;
            };
            job.name = table.qualified();
            job.failed = (!has_order(&table)).then_some(Ended::NoPrimaryKey);
            job.restore_moved(&table, &record);
            job.learn(begun).await?;
            if job.is_late() {
                begun.late.open.insert(table_no);
            }
            match job.blocking {
                true => out.blocking.entry(snapshot).or_default().push(job.name.clone()),
                false => out.id = job.id.clone().or(out.id),
            }
            out.jobs.push(job);
        }
        out.shown = true;
        out.show(begun);
        Ok(out)
    }

    /// Waits until a turn has something to do. Cancel-safe.
    pub async fn ready(&mut self, status: &StatusHandle, now: Mono) {
        let due = self
            .jobs
            .iter()
            .filter(|j| j.waits())
            .map(|j| j.not_before)
            .filter(|at| *at > now)
            .chain(self.hold_due())
            .min();
        let mut timer = std::pin::pin!(time::sleep(due.map_or(Duration::from_secs(3600), |at| at.since(now))));
        let mut asked = std::pin::pin!(status.asked());
        let (jobs, topic, hold, looks) = (&mut self.jobs, &mut self.topic, &mut self.hold, &mut self.looks);
        poll_fn(|cx| {
            let ended = || {
                let what = "the reader ended";
                Told::Failed(SourceError::new(crate::source::SourceClass::Retry, code::LOG, what, ""))
            };
            if let Some(hold) = hold.as_mut().filter(|h| h.busy)
                && let Poll::Ready(told) = hold.reader.told.poll_recv(cx)
            {
                hold.busy = false;
                hold.told = Some(told.unwrap_or_else(ended));
                return Poll::Ready(());
            }
            for job in jobs.iter_mut().filter(|j| j.busy) {
                if let Some(reader) = &mut job.reader
                    && let Poll::Ready(told) = reader.told.poll_recv(cx)
                {
                    job.busy = false;
                    job.told = Some(told.unwrap_or_else(ended));
                    return Poll::Ready(());
                }
            }
            if looks.poll(cx, ended).is_ready() {
                return Poll::Ready(());
            }
            if let Some(topic) = topic
                && let Some(flight) = &mut topic.flight
                && let Poll::Ready(got) = flight.as_mut().poll(cx)
            {
                topic.flight = None;
                topic.got = Some(got);
                return Poll::Ready(());
            }
            if asked.as_mut().poll(cx).is_ready() || timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
    }

    /// True if a chunk could be placed at this boundary, or a signal stands in the transaction that ended here.
    pub fn waits_for_a_boundary(&self, begun: &Begun<'_>, at: &Native) -> bool {
        !begun.signals.is_empty()
            || !begun.moved.is_empty()
            || self.hold.as_ref().is_some_and(|h| h.may_place(at))
            || self.jobs.iter().any(|j| j.ready.as_ref().is_some_and(|(_, end)| may_place(&end.view, at)))
    }

    /// Follows signals, places chunks, asks for the next ones. `may_read` = no first snapshot is in work.
    pub async fn turn(
        &mut self,
        begun: &mut Begun<'a>,
        source: &mut dyn Source,
        stream: &mut Stream,
        may_read: bool,
    ) -> Result<(), Trouble> {
        self.note_moved(begun);
        self.ask_late(begun);
        self.follow(begun, source).await?;
        self.poll_topic(begun);
        if stream.is_between() && begun.resume.is_caught_up() {
            let mut at = 0;
            while at < self.jobs.len() {
                let done = match self.jobs[at].failed {
                    // When its turn comes.
                    Some(_) if at == 0 => {
                        self.jobs[at].give_up(begun);
                        true
                    }
                    Some(_) => false,
                    None if self.jobs[at].reader.is_none() => false,
                    None => {
                        let about = About::of(self, begun);
                        Box::pin(self.jobs[at].go_on(begun, stream, &about)).await?
                    }
                };
                if done {
                    let failed = self.jobs[at].failed;
                    self.finished(begun, at, failed);
                } else {
                    at += 1;
                }
            }
            if may_read {
                self.start(begun, source)?;
                self.start_hold(begun, source)?;
            }
            if self.hold.is_some() {
                Box::pin(self.turn_hold(begun, source, stream)).await?;
            }
        }
        self.show(begun);
        Ok(())
    }

    /// A table is done with.
    fn finished(&mut self, begun: &mut Begun<'_>, at: usize, failed: Option<Ended>) {
        let beside = self.beside();
        let job = self.jobs.remove(at);
        self.forget(begun, &job);
        let empty = job.rows == 0 && job.cursor.is_empty() && !job.blocking;
        let ended = failed.unwrap_or(if empty { Ended::Empty } else { Ended::Succeeded });
        self.tell_scanned(begun, &beside, &job, ended);
    }

    fn forget(&self, begun: &mut Begun<'_>, job: &Job) {
        if !self.jobs.iter().any(|j| j.table_no == job.table_no && j.is_late()) {
            begun.late.open.remove(&job.table_no);
        }
        if !self.jobs.iter().any(|j| j.table_no == job.table_no && (j.reader.is_some() || self.is_held(j))) {
            begun.touched.done(job.table_no);
        }
    }

    async fn follow(&mut self, begun: &mut Begun<'a>, source: &mut dyn Source) -> Result<(), Trouble> {
        for Inserted { seq, id, kind, data } in std::mem::take(&mut begun.signals) {
            // What Debezium writes there for itself.
            if kind.starts_with("snapshot-window-") {
                continue;
            }
            let done = signal::parse(&kind, &data).and_then(|s| self.act(begun, s.named(&id), seq));
            if let Err(why) = done {
                refuse(begun, &format!("signal {kind}: {why}"));
            }
        }
        if let Some(got) = self.topic.as_mut().and_then(|t| t.got.take()) {
            let any = !got.signals.is_empty();
            for signal in got.signals {
                if let Err(why) = signal.and_then(|s| self.act(begun, s, CommitSeq(0))) {
                    refuse(begun, &format!("signal by topic: {why}"));
                }
            }
            if let Some(topic) = &mut self.topic {
                (topic.at, topic.next) = (got.at, got.next);
                if let Some(at) = topic.at.filter(|_| any) {
                    let next = vec![(at, topic.next)];
                    let record = SignalsRecord { incarnation: begun.session.config.incarnation, next };
                    begun.session.finished.push((last_given(begun), StoredKey::Signals, Stored::Signals(record)));
                }
            }
        }
        let asked = if begun.session.status.has_asked() { begun.session.status.take_asked() } else { Vec::new() };
        let mut ready: Vec<Asked> = asked.into_iter().filter_map(|a| self.look_first(begun, a)).collect();
        ready.extend(self.turn_looks(begun, source));
        for asked in ready {
            let done = self.act(begun, asked.signal, CommitSeq(0));
            begun.session.tell_finished().await?;
            self.show(begun);
            // Whoever asked may be gone.
            let _ = asked.answer.send(done);
        }
        Ok(())
    }

    fn poll_topic(&mut self, begun: &Begun<'a>) {
        if let Some(topic) = &mut self.topic
            && topic.flight.is_none()
            && topic.got.is_none()
        {
            let (log, control) = (begun.session.log(), begun.control.clone());
            let (name, prefix) = (topic.name.clone(), begun.session.config.prefix.clone());
            topic.flight = Some(Box::pin(look_into(log, control, name, prefix, topic.at, topic.next)));
        }
    }

    /// Does what a signal asks for, as far as records say it; the rest is a turn's. Returns a sentence.
    fn act(&mut self, begun: &mut Begun<'_>, signal: Signal, seq: CommitSeq) -> Result<String, SignalError> {
        match signal {
            Signal::Log(message) => {
                let message = message.replace("{}", &begun.session.track.durable().native.to_string());
                log!(Info, "source.signal", "source {}: {message}", begun.session.config.source);
                Ok(message)
            }
            Signal::Execute(execute) => self.execute(begun, &execute, seq),
            Signal::Pause | Signal::Resume => {
                let paused = signal == Signal::Pause;
                let mut tables = Vec::new();
                // As Debezium: a blocking one is not paused.
                let held: BTreeSet<u32> = self.jobs.iter().filter(|j| self.is_held(j)).map(|j| j.table_no).collect();
                for job in self.jobs.iter_mut().filter(|j| j.paused != paused && !j.blocking) {
                    job.paused = paused;
                    job.let_go();
                    if !held.contains(&job.table_no) {
                        begun.touched.done(job.table_no);
                    }
                    tables.push(job.name.clone());
                    // With the cursor: told once what lies below it is durable.
                    let record = job.stored(begun, ChunkPhase::Open);
                    begun.session.finished.push((last_given(begun), job.key(), record));
                }
                if !tables.is_empty() {
                    self.tell_pause(begun, paused);
                }
                let word = if paused { "paused" } else { "resumed" };
                Ok(said(word, &tables))
            }
            Signal::Stop(which) => {
                let fits = |j: &Job| which.is_empty() || which.iter().any(|t| t.fits(&j.name));
                let (gone, kept) = std::mem::take(&mut self.jobs).into_iter().partition(fits);
                let gone: Vec<Job> = gone;
                self.jobs = kept;
                self.tell_stop(begun, &gone);
                for job in &gone {
                    job.give_up(begun);
                    self.forget(begun, job);
                }
                Ok(said("stopped", &gone.iter().map(|j| j.name.clone()).collect::<Vec<_>>()))
            }
        }
    }

    fn execute(&mut self, begun: &mut Begun<'_>, execute: &Execute, seq: CommitSeq) -> Result<String, SignalError> {
        if !begun.late.has_stretches {
            return Err(SignalError::Wrong("this kind of source has no ad hoc snapshots".into()));
        }
        // In the order of the list; what one expression fits, by name.
        let named: BTreeMap<String, u32> =
            begun.numbered.values().map(|n| (n.table.qualified(), n.table.table_no)).collect();
        let mut numbers: Vec<u32> = Vec::new();
        let mut taken = BTreeSet::new();
        for wanted in &execute.tables {
            let fits = named.iter().filter(|(name, _)| wanted.fits(name)).map(|(_, no)| *no);
            numbers.extend(fits.filter(|no| taken.insert(*no)));
        }
        if numbers.is_empty() {
            return Err(SignalError::Wrong("`data-collections` fits no captured table".into()));
        }
        self.ask_for(begun, execute, numbers, seq)
    }

    /// What `execute` says, of these tables.
    fn ask_for(
        &mut self,
        begun: &mut Begun<'_>,
        execute: &Execute,
        numbers: Vec<u32>,
        seq: CommitSeq,
    ) -> Result<String, SignalError> {
        if self.jobs.len() + numbers.len() > JOBS_MAX {
            return Err(SignalError::Wrong(format!("more than {JOBS_MAX} tables wait")));
        }
        let mut tables = Vec::new();
        let mut refused = Vec::new();
        let was_quiet = self.jobs.iter().all(|j| j.blocking);
        let snapshot = self.next_snapshot;
        for table_no in numbers {
            let Some(table) = newest(begun, table_no) else { continue };
            let name = table.qualified();
            // The transaction came again after a crash: its record says so.
            let again = |c: &ChunkRecord| c.flags & chunk_flag::AD_HOC != 0 && c.commit_seq == seq && seq.0 > 0;
            let known = begun.history.chunks.iter();
            if known.filter(|((_, t, unit), _)| *t == table_no && *unit == WHOLE_TABLE).any(|(_, c)| again(c)) {
                tables.push(name);
                continue;
            }
            let is_ordered = has_order(&table);
            if !is_ordered {
                refused.push(format!("{name} has no key without NULL"));
                // It takes its turn where somebody is told of it.
                if execute.blocking || !begun.session.config.notifications.is_any() {
                    continue;
                }
            }
            let filter = execute.filter_of(&name).to_owned();
            let mut job = Job::new(snapshot, table_no, name.clone(), filter);
            job.rows_per_second = execute.rows_per_second;
            job.blocking = execute.blocking;
            job.seq = seq;
            job.id.clone_from(&execute.id);
            job.failed = (!is_ordered).then_some(Ended::NoPrimaryKey);
            begun.session.store([(job.key(), job.stored(begun, ChunkPhase::Open))]);
            self.jobs.push(job);
            self.next_snapshot = snapshot + 1;
            if is_ordered {
                tables.push(name);
            }
        }
        if self.next_snapshot > snapshot {
            self.tell_taken(begun, execute, snapshot, was_quiet);
        }
        match (tables.is_empty(), refused.is_empty()) {
            (true, _) => Err(SignalError::Wrong(refused.join("; "))),
            (false, true) => Ok(said("asked for", &tables)),
            (false, false) => Ok(format!("{}; not: {}", said("asked for", &tables), refused.join("; "))),
        }
    }

    /// Readers for the tables whose turn has come.
    fn start(&mut self, begun: &mut Begun<'_>, source: &mut dyn Source) -> Result<(), Trouble> {
        let now = begun.session.now().mono;
        let parallel = begun.session.config.signals.parallel as usize;
        let mut read: BTreeSet<u32> = self.jobs.iter().filter(|j| j.reader.is_some()).map(|j| j.table_no).collect();
        for job in &mut self.jobs {
            if read.len() >= parallel {
                break;
            }
            if job.blocking
                || job.failed.is_some()
                || job.paused
                || job.reader.is_some()
                || now < job.not_before
                || read.contains(&job.table_no)
            {
                continue;
            }
            let Some(of) = job.stretch(begun) else { continue };
            begun.touched.watch(job.table_no);
            job.described = job.described_by(begun);
            let name = format!("capture.{}.adhoc.{}", begun.session.config.source, job.name);
            let mut snapshot = source.snapshot()?;
            if begun.late.open.contains(&job.table_no) {
                snapshot.joined(std::slice::from_ref(&of.table));
            }
            let reader = Reader::start(name, snapshot);
            reader.ask(Ask::Stretches(Box::new(of)));
            job.reader = Some(reader);
            job.busy = true;
            read.insert(job.table_no);
        }
        Ok(())
    }

    fn show(&mut self, begun: &Begun<'_>) {
        if self.jobs.is_empty() && !self.shown {
            return;
        }
        self.shown = !self.jobs.is_empty();
        let now = begun.session.now().mono;
        let shown: Vec<Shown> = self.jobs.iter().map(|j| j.shown(now, self.is_held(j))).collect();
        begun.session.status.update(|s| s.ad_hoc = shown);
    }
}

/// The newest number that was given out.
fn last_given(begun: &Begun<'_>) -> CommitSeq {
    CommitSeq(begun.resume.next().0.saturating_sub(1))
}

fn said(what: &str, tables: &[String]) -> String {
    if tables.is_empty() { format!("nothing is {what}") } else { format!("{what}: {}", tables.join(", ")) }
}

fn refuse(begun: &Begun<'_>, what: &str) {
    log!(Warn, "source.signal", "source {}: CW0591 {what}", begun.session.config.source);
    begun.session.status.refused(what);
}

/// Its rows can be read in the order of a key.
pub(super) fn has_order(table: &TableSchema) -> bool {
    !table.key.is_empty() && !table.key.iter().any(|k| may_be_null(table, *k))
}

fn may_be_null(table: &TableSchema, at: u16) -> bool {
    table.columns.get(usize::from(at)).is_none_or(|c| c.nullable == Some(true))
}

/// The table's newest shape, as the source gave it: what the stream brought since the start, else what the catalogue showed then.
fn newest(begun: &Begun<'_>, table_no: u32) -> Option<Arc<TableSchema>> {
    let of = || begun.numbered.values().filter(|n| n.table.table_no == table_no);
    let heard = of().filter(|n| n.is_heard).max_by_key(|n| n.table.schema_no);
    let shown = of().find(|n| !n.is_heard);
    // What is not heard has the number of the newest that was known at the start.
    let is_behind = |n: &&Numbered| shown.is_some_and(|shown| n.table.schema_no <= shown.table.schema_no);
    heard.filter(|n| !is_behind(n)).or(shown).map(|n| n.given.clone())
}
