//! Dead letters are applied after all: those of parked keys when a worker begins, and all of them when a person asks
//! (`asked`). What the dead letters of each key come to in their order is applied in one transaction; a key of which that
//! is taken is parked no more; one that is refused again stays as it is.
//!
//! Exactly once. The letters of a key become visible at the sink before the key is un-parked in the log: after a crash
//! between the two they are applied once more, to the same end. Letters of tables without a key, of which a second
//! application would show, wait in the order of their topic, and how far they are settled commits with their rows
//! ([`crate::sink::Mark::letters_settled`]). Letters above the sink's position are left alone: their rows come again.

use super::asked::{Answer, Refusal};
use super::letters::{KEYS_HEADER, SINK_HEADER};
use super::together::Unit;
use super::{Session, Trouble, Worker};
use crate::batch::fold;
use crate::error::code;
use crate::order::needs_source_order;
use crate::park::{Bisect, KeyOf, OnRowError, decode_keys, keys_of};
use crate::sink::{Apply, Group, Mark, Others, SinkClass, SinkError};
use crate::wire::{RawRecord, records_with};
use catchwater_base::{crash_point, log};
use catchwater_change::{Stamp, Version};
use catchwater_client::{At, FetchPart, LogError};
use catchwater_record::batch::build::Builder;
use catchwater_record::{CommitSeq, ErrorCode, Offset};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of dead letters held at the same time.
const REPLAY_BYTES_MAX: usize = 64 << 20;
const REPLAY_FETCH_BYTES: u32 = 8 << 20;

/// A dead letter of this sink, at or below its position.
pub(super) struct Found {
    offset: Offset,
    /// `None` = it cannot be told.
    pub keys: Option<Vec<KeyOf>>,
    version: Option<Version>,
    /// What it does to the target, or why that cannot be read.
    applies: Result<Vec<Apply>, String>,
    bytes: usize,
}

/// One parked key's letters, in the source's order.
#[derive(Default)]
struct OfKey {
    changes: BTreeMap<Version, Vec<Apply>>,
    stuck: Option<Refusal>,
}

fn unreadable(offset: Offset, why: &str) -> Refusal {
    Refusal {
        offset: Some(offset),
        code: ErrorCode(code::LETTER_UNREADABLE),
        what: format!("the dead letter at offset {offset} cannot be read: {why}"),
    }
}

impl Worker {
    /// Once per worker, before the first new row: all parked keys.
    pub(super) async fn replay_at_start(&mut self, session: &mut Session<'_>) -> Result<(), Trouble> {
        let parks = matches!(self.config.on_row_error, OnRowError::ParkKey { .. });
        let mark = session.commit.durable().cloned().filter(|_| parks && !self.replayed && !self.parked.is_empty());
        let Some(mark) = mark else {
            self.replayed = true;
            return Ok(());
        };
        let keys: Vec<KeyOf> = self.parked.iter().map(|(k, _)| k.clone()).collect();
        let mut answer = Answer::default();
        self.replay_keys(session, &mark, &keys, &mut answer).await?;
        self.replayed = true;
        if let Some(r) = answer.refused.filter(|r| r.code.0 == code::LETTER_UNREADABLE) {
            log!(Warn, "sink.letters", "{}: {} {}; its key stays parked", self.sink_name(), r.code, r.what);
        }
        Ok(())
    }

    /// Applies the letters of these parked keys, and frees those that are taken.
    pub(super) async fn replay_keys(
        &mut self,
        session: &mut Session<'_>,
        mark: &Mark,
        keys: &[KeyOf],
        answer: &mut Answer,
    ) -> Result<(), Trouble> {
        let mut left: BTreeSet<KeyOf> = keys.iter().cloned().collect();
        while !left.is_empty() {
            let (mut letters, whole) = self.letters_of(session, mark, &left).await?;
            let (mut free, mut applied) = (Vec::new(), 0);
            let (mut waiting, mut units) = (Vec::new(), Vec::new());
            // What did not fit is read in the next round: in this one it is not known.
            let round: Vec<KeyOf> = left.iter().filter(|k| whole || letters.contains_key(k)).cloned().collect();
            for key in round {
                left.remove(&key);
                let OfKey { changes, stuck } = letters.remove(&key).unwrap_or_default();
                let first = changes.keys().next().copied();
                if let Some(stuck) = stuck {
                    answer.keep(stuck);
                    continue;
                }
                // Without its first letter, which has left the topic, what is missing is not known.
                if first.is_none() || first != self.parked.since(&key) {
                    let what = format!("the first dead letter of a key of {} has left its topic", key.table);
                    answer.keep(Refusal { offset: None, code: ErrorCode(code::NO_LETTER), what });
                    continue;
                }
                let count = changes.len() as u64;
                // What the letters come to: states between that the source has left behind need not fit the target, so a
                // row that was repaired at the source is taken.
                let applies = fold(changes.into_values().flatten().collect());
                match self.write_letters(session, mark, applies.clone()).await? {
                    None => {
                        applied += count;
                        free.push(key);
                    }
                    Some(error) if error.others.is_some() => {
                        let swaps = error.others == Some(Others::InTheWay);
                        let swap = applies.first().filter(|_| swaps).map(|a| a.table.meets.table);
                        let version = first.unwrap_or_default();
                        waiting.push((key, count));
                        units.push(Unit { applies, version, from: None, swap, error });
                    }
                    Some(SinkError { code, what, .. }) => answer.keep(Refusal { offset: None, code, what }),
                }
            }
            // Keys that need each other are refused one by one.
            let places: Vec<Version> = units.iter().map(|u| u.version).collect();
            let refused = self.write_together(session, units).await?;
            for ((key, count), version) in waiting.into_iter().zip(places) {
                match refused.iter().find(|u| u.version == version) {
                    None => {
                        applied += count;
                        free.push(key);
                    }
                    Some(u) => {
                        answer.keep(Refusal { offset: None, code: u.error.code, what: u.error.what.clone() });
                    }
                }
            }
            if free.is_empty() {
                if std::mem::take(&mut session.lane_open) {
                    session.lane.abort().await;
                }
                continue;
            }
            crash_point!("deliver.before_replay");
            self.commit(session, mark.clone()).await?;
            crash_point!("deliver.after_replay");
            self.unpark(&free).await?;
            answer.keys += free.len() as u64;
            answer.letters += applied;
            self.status.update(|s| s.replayed += applied);
        }
        Ok(())
    }

    /// `Some` = refused, and nothing of it is left.
    async fn write_letters(
        &mut self,
        session: &mut Session<'_>,
        mark: &Mark,
        applies: Vec<Apply>,
    ) -> Result<Option<SinkError>, Trouble> {
        if applies.is_empty() {
            return Ok(None);
        }
        let first_seq = applies.first().map(|a| a.version.commit_seq).unwrap_or(CommitSeq(0));
        let group =
            Group { first_seq, last_seq: mark.seq, applies, source_order: true, guarded: true, ..Group::default() };
        debug_assert!(group.source_order || !needs_source_order(&group.applies));
        session.lane_open = true;
        session.wrote_at = self.now().mono;
        let work = session.lane.write(&group);
        match session.flight.beside(work).await {
            Ok(()) => Ok(None),
            Err(e) if e.class == SinkClass::Row => Ok(Some(e)),
            Err(e) => Err(Trouble::Sink(e, None)),
        }
    }

    /// Rows of these keys go to the target again.
    pub(super) async fn unpark(&mut self, keys: &[KeyOf]) -> Result<(), Trouble> {
        if keys.is_empty() {
            return Ok(());
        }
        let Some(to) = self.letters_to(true).await? else { return Ok(()) };
        let (by, log, mut batch) = (self.parked_by(), self.deps.log.clone(), Builder::new());
        for key in keys {
            batch.push(self.now().wall.as_millis(), Some(&by.encode_key(key)), None, []);
        }
        super::letters::append(&log, to.parked, batch).await?;
        for key in keys {
            self.parked.unpark(key);
        }
        let parked_keys = self.parked.len() as u64;
        self.status.update(|s| s.parked_keys = parked_keys);
        Ok(())
    }

    /// Dead letters of these parked keys, up to the sink's position. False = not all of them fitted; those keys are left
    /// out.
    async fn letters_of(
        &mut self,
        session: &mut Session<'_>,
        mark: &Mark,
        keys: &BTreeSet<KeyOf>,
    ) -> Result<(BTreeMap<KeyOf, OfKey>, bool), Trouble> {
        let (mut out, mut held, mut whole) = (BTreeMap::<KeyOf, OfKey>::new(), 0, true);
        // A letter whose key is not known may be of any of them.
        let mut of_none: Option<Refusal> = None;
        let mut next = Offset::ZERO;
        while let Some((found, end)) = self.letters_from(session, next, mark, |k| keys.contains(k)).await? {
            next = end;
            for letter in found {
                let why = letter.applies.as_ref().err().map(|why| unreadable(letter.offset, why));
                let Some(of) = letter.keys else {
                    of_none = of_none.or(why);
                    continue;
                };
                // Letters of an earlier time in which the key was parked are settled.
                let held_by = |k: &&KeyOf| {
                    let since = self.parked.since(k);
                    keys.contains(*k) && since.is_some_and(|s| letter.version.is_none_or(|v| v >= s))
                };
                let Some(key) = of.iter().find(held_by) else { continue };
                if held >= REPLAY_BYTES_MAX && !out.contains_key(key) {
                    whole = false;
                    continue;
                }
                held += letter.bytes;
                let entry = out.entry(key.clone()).or_default();
                match (letter.version, letter.applies) {
                    (Some(version), Ok(applies)) => drop(entry.changes.insert(version, applies)),
                    _ => entry.stuck = entry.stuck.take().or(why),
                }
            }
        }
        if let Some(refusal) = of_none {
            for key in keys {
                out.entry(key.clone()).or_default().stuck.get_or_insert(refusal.clone());
            }
        }
        Ok((out, whole))
    }

    /// One fetch of dead letters of this sink from `from` on, and where to go on; `None` = the end. Only what `wanted` says
    /// of a letter's keys is decoded, and what has no key, or does not tell.
    async fn letters_from(
        &mut self,
        session: &mut Session<'_>,
        from: Offset,
        mark: &Mark,
        wanted: impl Fn(&KeyOf) -> bool,
    ) -> Result<Option<(Vec<Found>, Offset)>, Trouble> {
        let Some(to) = self.letters_to(false).await? else { return Ok(None) };
        let log = self.deps.log.clone();
        let bounds = log.bounds(vec![to.letters], At::Now).await?;
        let Some(bounds) = bounds.first().copied() else { return Ok(None) };
        let next = from.max(bounds.log_start);
        if self.stop.is_stopped() {
            return Err(Trouble::Stopped);
        }
        if next >= bounds.lso {
            return Ok(None);
        }
        let part = FetchPart { at: to.letters, offset: next, max_bytes: REPLAY_FETCH_BYTES };
        let (mut out, mut end) = (Vec::new(), next);
        for f in log.fetch(super::letters::fetch(part)).await? {
            let bytes = f.batches.map_err(|e| Trouble::Log(LogError::NotReady(e.to_string())))?;
            let headers = [SINK_HEADER.as_bytes(), KEYS_HEADER.as_bytes()];
            let (found, after) = records_with(f.at, next, &bytes, &headers)?;
            for record in found.into_iter().filter(|r| r.offset < bounds.lso) {
                out.extend(self.letter(session, &record, mark, &wanted).await?);
            }
            end = end.max(after);
        }
        Ok(Some((out, end)))
    }

    /// The letter at this offset.
    pub(super) async fn letter_at(
        &mut self,
        session: &mut Session<'_>,
        offset: Offset,
        mark: &Mark,
    ) -> Result<Option<Found>, Trouble> {
        let found = self.letters_from(session, offset, mark, |_| false).await?;
        Ok(found.and_then(|(found, _)| found.into_iter().find(|l| l.offset == offset)))
    }

    /// What a dead letter would do to the target, if it is one of this sink's.
    async fn letter(
        &mut self,
        session: &mut Session<'_>,
        record: &RawRecord,
        mark: &Mark,
        wanted: impl Fn(&KeyOf) -> bool,
    ) -> Result<Option<Found>, Trouble> {
        let header = |n: usize| record.more.get(n).and_then(|h| h.as_deref());
        if header(0) != Some(self.sink_name().as_bytes()) {
            return Ok(None);
        }
        let keys = header(1).and_then(|h| std::str::from_utf8(h).ok()).and_then(decode_keys);
        let (offset, bytes) = (record.offset, record.bytes());
        let wrong = |keys, version, why: String| Ok(Some(Found { offset, keys, version, applies: Err(why), bytes }));
        let stamp = match record.stamp.as_deref().map(Stamp::decode) {
            Some(Ok(stamp)) => stamp,
            Some(Err(e)) => return wrong(keys, None, e.to_string()),
            None => return wrong(keys, None, "it has no stamp".into()),
        };
        let version = stamp.version;
        let above = version.incarnation != self.config.incarnation || version.commit_seq > mark.seq;
        if stamp.source != self.config.capture || above {
            return Ok(None);
        }
        let keyed = keys.as_ref().is_some_and(|k| !k.is_empty());
        if keyed && !keys.iter().flatten().any(&wanted) {
            return Ok(Some(Found { offset, keys, version: Some(version), applies: Ok(Vec::new()), bytes }));
        }
        let Some(schema) = self.book.schemas.get(&stamp.schema_no).cloned() else {
            return wrong(keys, Some(version), format!("schema {} is in no TABLE record", stamp.schema_no));
        };
        if !self.plans.contains_key(&stamp.schema_no) {
            match self.prepare(session, stamp.schema_no).await {
                Ok(()) => {}
                Err(Trouble::Fatal(f)) => return wrong(keys, Some(version), f.to_string()),
                Err(other) => return Err(other),
            }
        }
        let Some(plan) = self.plans.get(&stamp.schema_no).cloned() else {
            return wrong(keys, Some(version), "its table is not there".into());
        };
        let change = match self.deps.wire.row(record, &stamp, &schema) {
            Ok(change) => change,
            Err(why) => return wrong(keys, Some(version), why),
        };
        let at = crate::mode::At { version, commit_time: stamp.commit_time };
        let applies = match self.config.applies(change, &plan, at) {
            Ok(applies) => applies,
            Err(e) => return wrong(keys, Some(version), e.to_string()),
        };
        let keys = keys.or_else(|| Some(keys_of(&applies)));
        Ok(Some(Found { offset, keys, version: Some(version), applies: Ok(applies), bytes }))
    }

    fn settled_below(&self, session: &Session<'_>) -> Offset {
        session.settled.map(|(_, below)| below).unwrap_or_default()
    }

    /// Where the first dead letter without a key stands that waits.
    pub(super) async fn first_waiting(
        &mut self,
        session: &mut Session<'_>,
        mark: &Mark,
    ) -> Result<Option<Offset>, Trouble> {
        let mut next = self.settled_below(session);
        while let Some((found, end)) = self.letters_from(session, next, mark, |_| false).await? {
            if let Some(letter) = found.iter().find(|l| l.keys.as_ref().is_none_or(Vec::is_empty)) {
                return Ok(Some(letter.offset));
            }
            next = end;
        }
        Ok(None)
    }

    /// Applies the letters of tables without a key, in their order, up to the first that is refused.
    pub(super) async fn replay_keyless(
        &mut self,
        session: &mut Session<'_>,
        mark: &Mark,
        answer: &mut Answer,
    ) -> Result<(), Trouble> {
        let mut next = self.settled_below(session);
        // A crash may have written a letter twice.
        let mut seen = BTreeSet::new();
        while let Some((found, end)) = self.letters_from(session, next, mark, |_| false).await? {
            let mut letters: Vec<(Offset, Vec<Apply>)> = Vec::new();
            let mut halt: Option<Refusal> = None;
            for letter in found.into_iter().filter(|l| l.keys.as_ref().is_none_or(Vec::is_empty)) {
                match (letter.version, letter.applies) {
                    (Some(version), Ok(applies)) => {
                        if seen.insert(version) {
                            letters.push((letter.offset, applies));
                        }
                    }
                    (_, Err(why)) => {
                        halt = Some(unreadable(letter.offset, &why));
                        break;
                    }
                    (None, Ok(_)) => {}
                }
            }
            let mut bisect = Bisect::new(letters.len());
            let mut applied = letters.len();
            while let Some(range) = bisect.take() {
                let applies = letters.get(range.clone()).unwrap_or_default().iter().flat_map(|(_, a)| a.clone());
                let Some(SinkError { code, what, .. }) = self.write_letters(session, mark, applies.collect()).await?
                else {
                    continue;
                };
                if let Some(n) = bisect.refused(range) {
                    let offset = letters.get(n).map(|(offset, _)| *offset);
                    halt = Some(Refusal { offset, code, what });
                    applied = n;
                    break;
                }
            }
            let upto = halt.as_ref().and_then(|r| r.offset).unwrap_or(end);
            if upto > next {
                crash_point!("deliver.before_replay");
                self.settle_letters(session, mark.clone(), upto).await?;
                crash_point!("deliver.after_replay");
            } else if std::mem::take(&mut session.lane_open) {
                session.lane.abort().await;
            }
            answer.letters += applied as u64;
            self.status.update(|s| s.replayed += applied as u64);
            if let Some(halt) = halt {
                answer.refused.get_or_insert(halt);
                return Ok(());
            }
            next = end;
        }
        Ok(())
    }

    /// Commits what is written, and that letters without a key are settled below this offset.
    pub(super) async fn settle_letters(
        &mut self,
        session: &mut Session<'_>,
        mut mark: Mark,
        below: Offset,
    ) -> Result<(), Trouble> {
        let Some(to) = self.letters_to(false).await? else { return Ok(()) };
        mark.settle_letters(to.letters.topic, below);
        self.commit(session, mark).await?;
        session.settled = Some((to.letters.topic, below));
        Ok(())
    }
}
