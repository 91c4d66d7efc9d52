//! What ad hoc snapshots tell of themselves (`crate::notification`). Those beside the stream are one snapshot, as Debezium
//! has it: it starts with the first table that is asked for and is completed when none is left; its id is the newest
//! signal's. Blocking ones are told of as first snapshots are, each by itself.

use super::{AdHoc, Job};
use crate::notification::{Aggregate, Chunk, Ended, News};
use crate::signal::Execute;
use crate::worker::start::Begun;

impl AdHoc<'_> {
    /// Tables that are read beside the stream, or wait for it.
    pub(super) fn beside(&self) -> Vec<String> {
        self.jobs.iter().filter(|j| !j.blocking).map(|j| j.name.clone()).collect()
    }

    fn tell(&self, begun: &mut Begun<'_>, tables: &[String], news: &News<'_>) {
        begun.session.notify(Aggregate::Incremental, self.id.as_deref(), tables, news);
    }

    /// A signal was followed: its tables are among the jobs. `was_quiet` = nothing else was read beside the stream.
    pub(super) fn tell_taken(&mut self, begun: &mut Begun<'_>, execute: &Execute, snapshot: u32, was_quiet: bool) {
        if execute.blocking {
            let of = |j: &&Job| j.snapshot == snapshot;
            let names: Vec<String> = self.jobs.iter().filter(of).map(|j| j.name.clone()).collect();
            for news in [News::Started, News::Resolved] {
                begun.session.notify(Aggregate::Initial, None, &names, &news);
            }
            self.blocking.insert(snapshot, names);
            return;
        }
        self.id.clone_from(&execute.id);
        if was_quiet {
            let tables = self.beside();
            self.tell(begun, &tables, &News::Started);
            self.tell(begun, &tables, &News::Resolved);
        }
    }

    pub(super) fn tell_pause(&self, begun: &mut Begun<'_>, paused: bool) {
        let tables = self.beside();
        if !tables.is_empty() {
            self.tell(begun, &tables, if paused { &News::Paused } else { &News::Resumed });
        }
    }

    /// `gone` are no longer among the jobs.
    pub(super) fn tell_stop(&mut self, begun: &mut Begun<'_>, gone: &[Job]) {
        let stopped: Vec<String> = gone.iter().filter(|j| !j.blocking).map(|j| j.name.clone()).collect();
        if !stopped.is_empty() {
            self.tell(begun, &stopped, &News::Aborted(Some(&stopped)));
        }
        for job in gone.iter().filter(|j| j.blocking) {
            if let Some(names) = self.blocking.remove(&job.snapshot) {
                begun.session.notify(Aggregate::Initial, None, &names, &News::Aborted(None));
            }
        }
        if self.beside().is_empty() {
            self.id = None;
        }
    }

    /// A table's part is at its end; `names` from before it was taken from the jobs.
    pub(super) fn tell_scanned(&mut self, begun: &mut Begun<'_>, names: &[String], job: &Job, ended: Ended) {
        let of = (ended == Ended::Succeeded && !job.blocking).then_some(job.estimate);
        let news = News::Scanned { table: &job.name, rows: job.rows, of, ended };
        if !job.blocking {
            self.tell(begun, names, &news);
            self.tell_end(begun);
            return;
        }
        let names = self.blocking.get(&job.snapshot).cloned().unwrap_or_default();
        if !job.told_of {
            let begins = News::Table { table: &job.name, chunk: None };
            begun.session.notify(Aggregate::Initial, None, &names, &begins);
        }
        begun.session.notify(Aggregate::Initial, None, &names, &news);
        if !self.jobs.iter().any(|j| j.snapshot == job.snapshot) {
            begun.session.notify(Aggregate::Initial, None, &names, &News::Completed);
            self.blocking.remove(&job.snapshot);
        }
    }

    fn tell_end(&mut self, begun: &mut Begun<'_>) {
        if self.beside().is_empty() {
            self.tell(begun, &[], &News::Completed);
            self.id = None;
        }
    }
}

impl Job {
    /// A chunk of it was read, and is not in the log yet. `upto` = its last key.
    pub(super) fn tell_chunk(&mut self, begun: &mut Begun<'_>, about: &About, read: u64, upto: &[String]) {
        if !self.blocking {
            let rows_max = u64::from(begun.session.config.signals.chunk_rows).max(1);
            let chunk = Chunk {
                index: (self.rows + read).div_ceil(rows_max),
                count: self.estimate.div_ceil(rows_max),
                rows: self.estimate,
                maximum: &self.maximum,
                last: upto,
            };
            let news = News::Table { table: &self.name, chunk: Some(chunk) };
            begun.session.notify(Aggregate::Incremental, about.id.as_deref(), &about.beside, &news);
        } else if !std::mem::replace(&mut self.told_of, true) {
            let names = about.blocking.iter().find(|(s, _)| *s == self.snapshot).map(|(_, names)| &names[..]);
            let news = News::Table { table: &self.name, chunk: None };
            begun.session.notify(Aggregate::Initial, None, names.unwrap_or_default(), &news);
        }
    }
}

/// What a job has to know of the others to tell of itself.
pub(super) struct About {
    pub id: Option<String>,
    pub beside: Vec<String>,
    pub blocking: Vec<(u32, Vec<String>)>,
}

impl About {
    /// Nothing, if nobody listens.
    pub fn of(all: &AdHoc<'_>, begun: &Begun<'_>) -> About {
        if !begun.session.config.notifications.is_any() {
            return About { id: None, beside: Vec::new(), blocking: Vec::new() };
        }
        let blocking = all.blocking.iter().map(|(s, names)| (*s, names.clone())).collect();
        About { id: all.id.clone(), beside: all.beside(), blocking }
    }
}
