//! A rebuild: the target is emptied and filled anew from the log, all of it in one transaction of the target. Who reads the
//! target sees the old rows until it commits, and then a state that the source had, not older than the one before.
//!
//! Nothing is stored of it: the position in the target moves with the commit and not before, so a rebuild that a crash or a
//! restart ends has changed nothing. It is given up where an error would stop the sink, which then goes on as before.

use super::{Ask, Session, Trouble, Worker};
use crate::error::{Failure, code};
use crate::mode::Mode;
use crate::plan;
use crate::sink::{Apply, Mark, What};
use crate::status::State;
use catchwater_base::log;
use catchwater_change::Version;
use catchwater_record::CommitSeq;
use std::collections::BTreeSet;

impl Worker {
    /// Where a session begins: was a rebuild asked for, and may it be?
    pub(super) async fn take_rebuild(&mut self, found: Option<&Mark>) -> Result<(), Trouble> {
        let Some(request) = self.asked.take_if(|r| r.ask == Ask::Rebuild) else { return Ok(()) };
        self.read_parked().await?;
        let Some(mark) = found else {
            // Everything comes anyway.
            self.status.update(|s| s.rebuilds = (s.rebuilds.0 + 1, s.rebuilds.1 + 1));
            let _ = request.reply.send(Ok(super::Answer::default()));
            return Ok(());
        };
        let refused = |what: &str, next: &str| Err(Failure::new(code::REBUILD, what, next));
        let answer = if self.config.mode != Mode::Upsert {
            refused(
                "only a sink in mode upsert can be rebuilt: of the others the log does not hold all that the target has",
                "a sink of another name, with tables of its own, begins anew",
            )
        } else if !self.parked.is_empty() {
            refused(
                "keys are parked, and a rebuild would park their rows again",
                "catchwater dlq replay, or discard, then rebuild",
            )
        } else {
            Ok(super::Answer::default())
        };
        if answer.is_ok() {
            self.rebuild = Some(mark.seq);
            self.status.update(|s| (s.rebuilds.0, s.rebuild_failed) = (s.rebuilds.0 + 1, None));
            log!(Info, "sink.rebuild", "{} {}: begins", self.config.pipeline, self.config.sink);
        }
        let _ = request.reply.send(answer);
        Ok(())
    }

    /// The source has begun again: what the target holds is of a history that has ended, and the new one takes its place
    /// as a rebuild does. Not before the log holds all of its first snapshot: until then the target stays as it is.
    pub(super) async fn take_over(&mut self, mark: &Mark) -> Result<(), Trouble> {
        let ours = self.config.incarnation;
        let what = format!("the sink holds incarnation {} of the source, which is at {ours}", mark.incarnation);
        let refused = |next: &str| Err(Trouble::Fatal(Failure::new(code::OTHER_INCARNATION, what.clone(), next)));
        if mark.incarnation > ours {
            return refused(
                "the log is older than the target: bring the right log back, or deliver under a new sink name",
            );
        }
        if self.config.mode != Mode::Upsert {
            return refused("the source was read again: only mode upsert can follow; deliver it under a new sink name");
        }
        self.read_parked().await?;
        if !self.parked.is_empty() {
            return refused(
                "keys are parked that are of the history before: catchwater dlq discard, then pipeline restart",
            );
        }
        let Some(whole) = self.book.whole_from().filter(|_| self.book.has_begun()) else {
            self.status.update(|s| s.state = State::Snapshot);
            return Err(Trouble::NotReady);
        };
        if self.rebuild.is_none() {
            self.status.update(|s| (s.rebuilds.0, s.rebuild_failed) = (s.rebuilds.0 + 1, None));
            log!(Info, "sink.rebuild", "{} {}: begins: {what}", self.config.pipeline, self.config.sink);
        }
        self.rebuild = Some(whole);
        Ok(())
    }

    /// The first rows of the transaction: all targets are emptied.
    pub(super) fn clear_targets(&mut self, session: &mut Session<'_>) {
        let mut seen = BTreeSet::new();
        let mut applies = Vec::new();
        for schema in self.book.newest() {
            let Some(table) = self.plans.get(&schema.schema_no) else { continue };
            if seen.insert(plan::shown(&table.target)) {
                applies.push(Apply { table: table.clone(), what: What::Clear, version: Version::default() });
            }
        }
        session.batch.push(self.now().mono, CommitSeq(0), 0, applies);
        session.batch.end_txn(CommitSeq(0));
        session.batch.stale();
    }

    /// A group is durable: nothing commits in a rebuild but its end.
    pub(super) fn rebuilt(&mut self) {
        if self.rebuild.take().is_some() {
            self.status.update(|s| s.rebuilds.1 += 1);
            log!(Info, "sink.rebuild", "{} {}: done", self.config.pipeline, self.config.sink);
        }
    }

    /// True if there was one; the sink goes on where it was.
    pub(super) fn give_up_rebuild(&mut self, why: &Failure) -> bool {
        if self.rebuild.take().is_none() {
            return false;
        }
        log!(Warn, "sink.rebuild", "{} {}: given up: {}", self.config.pipeline, self.config.sink, why.what);
        self.source_order = None;
        self.status.update(|s| s.rebuild_failed = Some(why.clone()));
        true
    }
}
