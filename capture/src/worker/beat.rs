//! Heartbeats: a record that the source is alive, every so many milliseconds. It belongs to no transaction, so it is
//! fenced by epoch and not deduplicated; after an unknown outcome the next one says the same.

use super::session::{Internal, Meta, Session};
use crate::error::Trouble;
use bytes::Bytes;
use catchwater_base::backoff::Backoff;
use catchwater_base::{Mono, Now};
use catchwater_client::AppendOutcome;
use catchwater_record::TopicPartition;
use catchwater_record::batch::build::Builder;

pub(super) struct Beats<'a> {
    pub meta: Meta<'a>,
    every_ms: u64,
    next_at: Mono,
}

impl Session<'_> {
    /// From now on heartbeats go there; the first at once.
    pub fn beat_at(&mut self, at: TopicPartition, every_ms: u64) {
        let limits = self.limits();
        let backoff = Backoff::new(limits.retry_base_ms, limits.retry_cap_ms);
        let meta = Meta { at, flight: None, batch: Bytes::new(), retry_at: Mono::ZERO, backoff };
        self.beats = Some(Beats { meta, every_ms, next_at: self.now().mono });
    }

    pub(super) fn beat_due(&self) -> Mono {
        match &self.beats {
            Some(beats) if beats.meta.flight.is_none() && !self.stopping => beats.next_at.max(beats.meta.retry_at),
            _ => Mono::NEVER,
        }
    }

    pub(super) fn pump_beat(&mut self, now: Now) {
        if now.mono < self.beat_due() {
            return;
        }
        let (record, how) = (self.emitter.heartbeat(now.wall), self.meta_append());
        let Some(beats) = &mut self.beats else { return };
        let mut batch = Builder::new();
        batch.push(now.wall.as_millis(), record.key.as_deref(), record.value.as_deref(), []);
        beats.next_at = now.mono.plus_millis(beats.every_ms);
        beats.meta.batch = batch.finish().freeze();
        beats.meta.flight = Some(self.log.append(beats.meta.at, beats.meta.batch.clone(), how));
    }

    pub(super) fn beat_answered(&mut self, outcome: AppendOutcome) -> Result<(), Trouble> {
        let Some(beats) = &mut self.beats else { return Ok(()) };
        beats.meta.flight = None;
        if matches!(outcome, AppendOutcome::Appended { .. } | AppendOutcome::AlreadyThere { .. }) {
            beats.meta.backoff.reset();
            return Ok(());
        }
        let retry_at = self.later(outcome, Internal::Beats)?;
        if let Some(beats) = &mut self.beats {
            beats.meta.retry_at = retry_at;
        }
        Ok(())
    }
}
