//! Parked keys are tried again when a worker begins: whoever repaired the target restarts the pipeline, or pauses and
//! resumes it, and the dead letters of each key are applied in their order. A key all of whose letters are taken is parked
//! no more; one that is refused again stays as it is.
//!
//! The letters of a key become visible at the sink before the key is un-parked in the log: after a crash between the two
//! they are applied once more, to the same end. Letters above the sink's position are left alone: their rows come again.

use super::letters::SINK_HEADER;
use super::{Session, Trouble, Worker};
use crate::park::{KeyOf, OnRowError, keys_of};
use crate::sink::{Apply, Group, Mark, SinkClass};
use crate::wire::{RawRecord, records_with};
use catchwater_change::{Stamp, Version};
use catchwater_client::{At, FetchPart, LogError};
use catchwater_record::Offset;
use catchwater_record::batch::build::Builder;
use std::collections::BTreeMap;

/// Bytes of dead letters held for one replay; keys above it wait for the next start.
const REPLAY_BYTES_MAX: usize = 64 << 20;
const REPLAY_FETCH_BYTES: u32 = 8 << 20;

/// Letters by key, each in the source's order.
type Letters = BTreeMap<KeyOf, BTreeMap<Version, Vec<Apply>>>;

impl Worker {
    /// Once per worker, before the first new row.
    pub(super) async fn replay(&mut self, session: &mut Session<'_>) -> Result<(), Trouble> {
        let parks = matches!(self.config.on_row_error, OnRowError::ParkKey { .. });
        let Some(mark) = session.commit.durable().cloned() else { return Ok(()) };
        if std::mem::replace(&mut self.replayed, true) || !parks || self.parked.is_empty() {
            return Ok(());
        }
        let letters = self.letters_of_parked(session, &mark).await?;
        let mut free = Vec::new();
        for (key, changes) in letters {
            // Without its first letter, which has left the topic, what is missing is not known.
            let first = changes.keys().next().copied();
            if first.is_none() || first != self.parked.since(&key) {
                continue;
            }
            let group = Group {
                first_seq: first.map(|v| v.commit_seq).unwrap_or_default(),
                last_seq: mark.seq,
                applies: changes.into_values().flatten().collect(),
                source_order: true,
                guarded: true,
                fresh: false,
            };
            session.lane_open = true;
            session.wrote_at = self.now().mono;
            let work = session.lane.write(&group);
            match session.flight.beside(work).await {
                Ok(()) => free.push(key),
                Err(e) if e.class == SinkClass::Row => {}
                Err(e) => return Err(Trouble::Sink(e, None)),
            }
        }
        if free.is_empty() {
            if std::mem::take(&mut session.lane_open) {
                session.lane.abort().await;
            }
            return Ok(());
        }
        self.commit(session, mark).await?;
        let Some(to) = self.letters_to(true).await? else { return Ok(()) };
        let (by, log, mut batch) = (self.parked_by(), self.deps.log.clone(), Builder::new());
        for key in &free {
            batch.push(self.now().wall.as_millis(), Some(&by.encode_key(key)), None, []);
        }
        super::letters::append(&log, to.parked, batch).await?;
        for key in &free {
            self.parked.unpark(key);
        }
        let parked_keys = self.parked.len() as u64;
        self.status.update(|s| s.parked_keys = parked_keys);
        Ok(())
    }

    /// All dead letters of this sink whose key is parked, up to the sink's position.
    async fn letters_of_parked(&mut self, session: &mut Session<'_>, mark: &Mark) -> Result<Letters, Trouble> {
        let mut out = Letters::new();
        let Some(to) = self.letters_to(false).await? else { return Ok(out) };
        let log = self.deps.log.clone();
        let bounds = log.bounds(vec![to.letters], At::Now).await?;
        let Some(bounds) = bounds.first().copied() else { return Ok(out) };
        let (mut next, mut held) = (bounds.log_start, 0);
        while next < bounds.lso {
            if self.stop.is_stopped() {
                return Err(Trouble::Stopped);
            }
            let part = FetchPart { at: to.letters, offset: next, max_bytes: REPLAY_FETCH_BYTES };
            let mut after: Option<Offset> = None;
            for f in log.fetch(super::letters::fetch(part)).await? {
                let bytes = f.batches.map_err(|e| Trouble::Log(LogError::NotReady(e.to_string())))?;
                let (found, end) = records_with(f.at, next, &bytes, Some(SINK_HEADER.as_bytes()))?;
                for record in found {
                    let bytes = record.bytes();
                    if let Some((version, applies)) = self.letter(session, &record, mark).await?
                        && let Some(key) = keys_of(&applies).into_iter().find(|k| self.parked.since(k).is_some())
                        && (held < REPLAY_BYTES_MAX || out.contains_key(&key))
                    {
                        held += bytes;
                        out.entry(key).or_default().insert(version, applies);
                    }
                }
                after = Some(end);
            }
            next = after.filter(|a| *a > next).unwrap_or(next);
        }
        Ok(out)
    }

    /// What a dead letter would do to the target, if it is one of this sink's.
    async fn letter(
        &mut self,
        session: &mut Session<'_>,
        record: &RawRecord,
        mark: &Mark,
    ) -> Result<Option<(Version, Vec<Apply>)>, Trouble> {
        let ours = record.more.as_deref() == Some(self.sink_name().as_bytes());
        let Some(stamp) = record.stamp.as_deref().filter(|_| ours) else { return Ok(None) };
        let Ok(stamp) = Stamp::decode(stamp) else { return Ok(None) };
        let version = stamp.version;
        let above = version.incarnation != self.config.incarnation || version.commit_seq > mark.seq;
        if stamp.source != self.config.capture || above {
            return Ok(None);
        }
        let Some(schema) = self.book.schemas.get(&stamp.schema_no).cloned() else { return Ok(None) };
        if !self.plans.contains_key(&stamp.schema_no) {
            self.prepare(session, stamp.schema_no).await?;
        }
        let Some(plan) = self.plans.get(&stamp.schema_no).cloned() else { return Ok(None) };
        let Ok(change) = self.deps.wire.row(record, &stamp, &schema) else { return Ok(None) };
        let at = crate::mode::At { version, commit_time: stamp.commit_time };
        Ok(self.config.applies(change, &plan, at).ok().map(|applies| (version, applies)))
    }
}
