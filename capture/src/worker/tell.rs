//! Notifications: what the source tells of its snapshots, into the log's lines and a topic of its own.
//!
//! A notification belongs to no transaction, so it is fenced by epoch and not deduplicated. Progress is not noted before
//! what was told of it is durable (`Session::notes_wait`): a crash loses none, and may have the newest ones come again.

use super::session::{Internal, Meta, Session};
use crate::error::Trouble;
use crate::notification::{Aggregate, News, told, uuid};
use bytes::Bytes;
use catchwater_base::backoff::Backoff;
use catchwater_base::{Mono, Now, crash_point, log};
use catchwater_change::encode::debezium_json::Notification;
use catchwater_client::AppendOutcome;
use catchwater_record::TopicPartition;
use catchwater_record::batch::build::Builder;
use catchwater_runtime::random;
use std::collections::VecDeque;

/// Notifications of one batch. Of those that wait there are a few per table at most: a chunk waits for what was told of it.
const BATCH_MAX: usize = 256;

pub(super) struct Notes<'a> {
    pub meta: Meta<'a>,
    queue: VecDeque<Notification>,
    /// Of the queue, in the batch in flight.
    sent: usize,
}

impl Session<'_> {
    /// From now on notifications go there.
    pub fn tell_at(&mut self, at: TopicPartition) {
        let limits = self.limits();
        let backoff = Backoff::new(limits.retry_base_ms, limits.retry_cap_ms);
        let meta = Meta { at, flight: None, batch: Bytes::new(), retry_at: Mono::ZERO, backoff };
        self.notes = Some(Box::new(Notes { meta, queue: VecDeque::new(), sent: 0 }));
    }

    /// Tells `news`. `id` = of the signal that asked for it; `tables` as [`told`] wants them.
    pub fn notify(&mut self, of: Aggregate, id: Option<&str>, tables: &[String], news: &News<'_>) {
        if !self.config.notifications.is_any() {
            return;
        }
        let id = id.map(str::to_owned).unwrap_or_else(|| {
            let mut bytes = [0; 16];
            if random::fill(&mut bytes).is_err() {
                bytes[..8].copy_from_slice(&self.rng.next_u64().to_be_bytes());
                bytes[8..].copy_from_slice(&self.rng.next_u64().to_be_bytes());
            }
            uuid(bytes)
        });
        let (kind, data) = told(&self.config.prefix, of, tables, news);
        if self.config.notifications.log {
            let text: Vec<String> = data.iter().map(|(name, text)| format!("{name}={text}")).collect();
            let (source, text) = (&self.config.source, text.join(" "));
            log!(Info, "source.notification", "source {source}: {} {kind} {text}", of.name());
        }
        let at = self.now().wall;
        if let Some(notes) = &mut self.notes {
            notes.queue.push_back(Notification { id, aggregate: of.name(), kind, data, at });
        }
    }

    /// Something was told and is not durable yet: no record of progress is written meanwhile.
    pub(super) fn notes_wait(&self) -> bool {
        self.notes.as_ref().is_some_and(|n| !n.queue.is_empty())
    }

    pub(super) fn notes_due(&self) -> Mono {
        match &self.notes {
            Some(n) if n.meta.flight.is_none() && !n.queue.is_empty() => n.meta.retry_at,
            _ => Mono::NEVER,
        }
    }

    pub(super) fn pump_notes(&mut self, now: Now) {
        if now.mono < self.notes_due() {
            return;
        }
        crash_point!("capture.before_told");
        let how = self.meta_append();
        let Some(notes) = &mut self.notes else { return };
        let mut batch = Builder::new();
        notes.sent = notes.queue.len().min(BATCH_MAX);
        for of in notes.queue.iter().take(notes.sent) {
            let record = self.emitter.notification(of);
            batch.push(of.at.as_millis(), record.key.as_deref(), record.value.as_deref(), []);
        }
        notes.meta.batch = batch.finish().freeze();
        notes.meta.flight = Some(self.log.append(notes.meta.at, notes.meta.batch.clone(), how));
    }

    pub(super) fn notes_answered(&mut self, outcome: AppendOutcome) -> Result<(), Trouble> {
        let Some(notes) = &mut self.notes else { return Ok(()) };
        notes.meta.flight = None;
        if matches!(outcome, AppendOutcome::Appended { .. } | AppendOutcome::AlreadyThere { .. }) {
            crash_point!("capture.after_told");
            notes.meta.backoff.reset();
            notes.queue.drain(..notes.sent);
            return Ok(());
        }
        let retry_at = self.later(outcome, Internal::Notes)?;
        if let Some(notes) = &mut self.notes {
            notes.meta.retry_at = retry_at;
        }
        Ok(())
    }
}
