//! Rows that the target refuses leave for the dead letters; the rest of their group goes on (deliver.md 13).
//!
//! A group that was refused is written again, not folded and *guarded*: a write that is refused leaves nothing, so halves
//! are tried until the refused change stands alone. It, and every later change of its key, becomes a record of the topic
//! `<pipeline>.dlq`, or of the one that a connector names: key and value as they stand in the log, headers that say why, with
//! Kafka Connect's names for its tools. At least once: readers drop repeats by (`cw.sink`, `cw.version`).
//!
//! Order: dead letters appended, parked keys appended, then the position commits.

use super::intake::{FETCH_WAIT_MS, INTERNAL_BYTES, LACKING_BYTES};
use super::together::Unit;
use super::{Session, Trouble, Worker};
use crate::error::{Failure, code};
use crate::order::needs_source_order;
use crate::park::{Bisect, KEYS_MAX, KeyOf, PARKED_TOPIC, Parked, ParkedBy, Since, encode_keys, keys_of, units};
use crate::sink::{Apply, Group, Others, SinkClass, SinkError, What};
use crate::wire::{RawRecord, records};
use bytes::Bytes;
use catchwater_base::{crash_point, log};
use catchwater_change::Version;
use catchwater_change::encode::debezium_json::FLAT_HEADER;
use catchwater_change::encode::form::FORM_HEADER;
use catchwater_change::exact::EXACT_HEADER;
use catchwater_change::stamp::STAMP_HEADER;
use catchwater_client::{
    Acks, Append, AppendOutcome, At, Context, ControlError, Fetch, FetchPart, Isolation, LogClient, LogError, NewTopic,
    Owner, TopicsWanted,
};
use catchwater_record::batch::build::Builder;
use catchwater_record::{ErrorCode, Offset, PipelineName, TopicName, TopicPartition};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Bytes of dead letters in one batch.
const LETTERS_BATCH_BYTES: usize = 1 << 20;
/// Above the largest row a topic of ours may hold.
const LETTER_BYTES_MAX: &str = "27262976";
const LETTERS_RETENTION_MS: &str = "1209600000";
/// Header of a dead letter: which sink refused it.
pub const SINK_HEADER: &str = "cw.sink";
/// Header of a dead letter: by which keys it is parked ([`crate::park::encode_keys`]).
pub const KEYS_HEADER: &str = "cw.keys";
const APPEND_TIMEOUT_MS: u32 = 30_000;

/// How refused rows are told of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeadLetters {
    /// `None` = [`letters_topic`].
    pub topic: Option<TopicName>,
    /// Headers say why under Kafka Connect's names, `__connect.errors.*`; else under ours alone.
    pub context: bool,
    /// What Kafka Connect would call the sink; `None` = `pipeline.sink`.
    pub connector: Option<String>,
    pub log: LogRefused,
}

/// Whether each refused row has a line in the node's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogRefused {
    #[default]
    Never,
    Why,
    /// With its place in the log of topics.
    WhyAndWhere,
}

impl Default for DeadLetters {
    fn default() -> Self {
        DeadLetters { topic: None, context: true, connector: None, log: LogRefused::default() }
    }
}

/// Header of a dead letter → the one that says the same where [`DeadLetters::context`] is off.
pub const HEADERS: [(&str, &str); 4] = [
    ("__connect.errors.topic", "cw.topic"),
    ("__connect.errors.partition", "cw.partition"),
    ("__connect.errors.offset", "cw.offset"),
    ("__connect.errors.exception.message", "cw.error.message"),
];

/// Where dead letters and parked keys go.
#[derive(Clone, Copy)]
pub(super) struct LettersTo {
    pub letters: TopicPartition,
    pub parked: TopicPartition,
}

/// A change that is not applied.
pub(super) struct Letter {
    pub at: TopicPartition,
    pub offset: Offset,
    pub version: Version,
    pub code: ErrorCode,
    pub what: String,
    pub keys: Vec<KeyOf>,
}

/// Where the changes of the open batch stand in the log.
pub(super) type Origins = BTreeMap<Version, (TopicPartition, Offset)>;

/// Topic of a pipeline's dead letters where no other is given, one partition.
pub fn letters_topic(pipeline: &PipelineName) -> TopicName {
    TopicName::from(format!("{pipeline}.dlq"))
}

fn refused(outcome: &AppendOutcome) -> Option<LogError> {
    match outcome {
        AppendOutcome::Appended { .. } | AppendOutcome::AlreadyThere { .. } => None,
        other => Some(LogError::NotReady(format!("a dead letter was not written: {other:?}"))),
    }
}

impl Worker {
    /// As the dead letters name it.
    pub(super) fn sink_name(&self) -> String {
        format!("{}.{}", self.config.pipeline, self.config.sink)
    }

    fn letters_topic(&self) -> TopicName {
        self.config.dead_letters.topic.clone().unwrap_or_else(|| letters_topic(&self.config.pipeline))
    }

    pub(super) fn parked_by(&self) -> ParkedBy {
        let c = &self.config;
        ParkedBy { pipeline: c.pipeline.clone(), sink: c.sink.clone(), source: c.source.clone() }
    }

    /// Both topics; made when `make` and they are missing.
    pub(super) async fn letters_to(&mut self, make: bool) -> Result<Option<LettersTo>, Trouble> {
        if let Some(to) = self.letters_to {
            return Ok(Some(to));
        }
        let names = [self.letters_topic(), TopicName::from(PARKED_TOPIC)];
        for attempt in 0..2 {
            let found = self.deps.control.describe_topics(TopicsWanted::Names(names.to_vec())).await?;
            let at = |name: &TopicName| {
                found.iter().find(|t| t.name == *name && t.partitions > 0).map(|t| TopicPartition::new(t.id, 0))
            };
            if let (Some(letters), Some(parked)) = (at(&names[0]), at(&names[1])) {
                self.letters_to = Some(LettersTo { letters, parked });
                return Ok(self.letters_to);
            }
            if !make || attempt > 0 {
                break;
            }
            let set = |k: &str, v: &str| (k.to_owned(), v.to_owned());
            let configs = [
                vec![
                    set("cleanup.policy", "delete"),
                    set("retention.ms", LETTERS_RETENTION_MS),
                    set("max.message.bytes", LETTER_BYTES_MAX),
                ],
                vec![set("cleanup.policy", "compact")],
            ];
            let new = names.iter().zip(configs).filter(|(name, _)| at(name).is_none()).map(|(name, configs)| {
                NewTopic { name: name.clone(), partitions: Some(1), replication: None, configs, owner: Owner::Nobody }
            });
            let new: Vec<NewTopic> = new.collect();
            for made in self.deps.control.create_topics(&self.config.who, new).await? {
                match made {
                    // Another sink may make them at this moment: the second look decides.
                    Ok(_) | Err(ControlError::TopicExists(_)) => {}
                    Err(e) => return Err(Trouble::Control(e)),
                }
            }
        }
        match make {
            true => Err(Trouble::Log(LogError::NotReady("the topics of dead letters are not there yet".into()))),
            false => Ok(None),
        }
    }

    /// What is parked, as the log says now: a key that the session before parked without saying so is refused again.
    pub(super) async fn read_parked(&mut self) -> Result<(), Trouble> {
        (self.parked, self.parked_next) = (Parked::default(), Offset::ZERO);
        let Some(to) = self.letters_to(false).await? else { return Ok(()) };
        let by = self.parked_by();
        let bounds = self.deps.log.bounds(vec![to.parked], At::Now).await?;
        let Some(bounds) = bounds.first().copied() else { return Ok(()) };
        self.parked_next = self.parked_next.max(bounds.log_start);
        while self.parked_next < bounds.lso {
            let part = FetchPart { at: to.parked, offset: self.parked_next, max_bytes: INTERNAL_BYTES };
            let fetched = self.deps.log.fetch(fetch(part)).await?;
            for f in fetched {
                let bytes = f.batches.map_err(|e| Trouble::Log(LogError::NotReady(e.to_string())))?;
                let (found, next) = records(f.at, self.parked_next, &bytes)?;
                for record in found {
                    // Passed over, a later row of its key would overtake those that are set aside.
                    let read = self.parked.read(&by, record.key.as_deref(), record.value.as_deref());
                    read.map_err(|_| Trouble::Fatal(unreadable(record.offset)))?;
                }
                self.parked_next = self.parked_next.max(next);
            }
        }
        Ok(())
    }

    /// Sets a change aside if one of its keys is parked. True = it was.
    pub(super) fn set_aside(
        &mut self,
        session: &mut Session<'_>,
        applies: &[Apply],
        version: Version,
        from: (TopicPartition, Offset),
    ) -> bool {
        if self.parked.is_empty() {
            return false;
        }
        let keys = keys_of(applies);
        let Some(since) = self.parked.holds(&keys, version) else { return false };
        let what = format!(
            "an earlier row of this key was refused and is parked ({}; its dead letter has cw.version {})",
            since.code, since.version
        );
        let letter = Letter { at: from.0, offset: from.1, version, code: since.code, what, keys: keys.clone() };
        session.letters.push(letter);
        // A row that changes its key takes the other one with it.
        self.park(session, keys, Since { version, code: since.code });
        true
    }

    fn park(&mut self, session: &mut Session<'_>, keys: Vec<KeyOf>, since: Since) {
        for key in keys {
            if self.parked.park(key.clone(), since) {
                session.parks.push((key, since));
            }
        }
    }

    /// Writes a group so that what the target refuses is found and set aside, and all else is written.
    pub(super) async fn write_guarded(&mut self, session: &mut Session<'_>, group: Group) -> Result<(), Trouble> {
        let units = units(&group.applies);
        let of = |n: usize| units.get(n).and_then(|r| group.applies.get(r.clone())).unwrap_or_default();
        let version = |n: usize| of(n).first().map(|a| a.version).unwrap_or_default();
        let mut bisect = Bisect::new(units.len());
        let mut waits: BTreeSet<KeyOf> = session.waiting.iter().flat_map(|u| keys_of(&u.applies)).collect();
        while let Some(range) = bisect.take() {
            if range.clone().any(|n| of(n).iter().any(|a| overtakes(a, &session.waiting))) {
                // A truncate may not overtake what waits: it is done alone, when nothing waits any more.
                if bisect.refused(range.clone()).is_none() {
                    continue;
                }
                self.write_waiting(session).await?;
                waits.clear();
            }
            let (mut behind, mut free, mut taken) = (Vec::new(), Vec::new(), BTreeSet::new());
            let (mut late, mut later) = (Vec::new(), BTreeSet::new());
            for n in range.clone() {
                let keys = keys_of(of(n));
                if self.parked.holds(&keys, version(n)).is_some() || keys.iter().any(|k| taken.contains(k)) {
                    // A change of its key takes the other key along.
                    taken.extend(keys);
                    behind.push(n);
                } else if keys.iter().any(|k| waits.contains(k) || later.contains(k)) {
                    later.extend(keys);
                    late.push(n);
                } else {
                    free.push(n);
                }
            }
            let mut why = None;
            let applies: Vec<Apply> = free.iter().flat_map(|n| of(*n).iter().cloned()).collect();
            if !applies.is_empty() {
                crash_point!("deliver.before_group");
                session.lane_open = true;
                session.wrote_at = self.now().mono;
                let source_order = needs_source_order(&applies);
                let part = Group { applies, source_order, guarded: true, fresh: false, ..group };
                let work = session.lane.write(&part);
                match session.flight.beside(work).await {
                    Ok(()) => {}
                    Err(e) if e.class == SinkClass::Row => {
                        // Halves by all changes of the range: those behind a parked key stay out of both.
                        let alone = match free.as_slice() {
                            [one] => Some(*one),
                            _ => bisect.refused(range.clone()),
                        };
                        let Some(n) = alone else { continue };
                        if e.others.is_some() {
                            late.push(n);
                            why = Some((n, e));
                        } else {
                            self.may_refuse(&e)?;
                            self.refuse(session, of(n), version(n), e.code, e.what)?;
                        }
                    }
                    Err(e) => return Err(Trouble::Sink(e, None)),
                }
            }
            late.sort_unstable();
            for n in late {
                waits.extend(keys_of(of(n)));
                let from = session.origins.get(&version(n)).copied();
                let from = Some(from.ok_or_else(|| lost_origin(version(n)))?);
                let error = why.take_if(|(of, _)| *of == n).map_or_else(waits_behind, |(_, e)| e);
                let swaps = error.others == Some(Others::InTheWay);
                let first = of(n).first().filter(|_| swaps);
                let swap = first.map(|a| a.table.meets.table ^ a.version.commit_seq.0);
                let unit = Unit { applies: of(n).to_vec(), version: version(n), from, swap, error };
                self.waits(session, unit)?;
            }
            for n in behind {
                let from = session.origins.get(&version(n)).copied();
                let from = from.ok_or_else(|| lost_origin(version(n)))?;
                self.set_aside(session, of(n), version(n), from);
                session.uncount(of(n));
            }
        }
        self.breaker.rows(units.len() as u64);
        Ok(())
    }

    fn refuse(
        &mut self,
        session: &mut Session<'_>,
        applies: &[Apply],
        version: Version,
        code: ErrorCode,
        what: String,
    ) -> Result<(), Trouble> {
        let (at, offset) = session.origins.get(&version).copied().ok_or_else(|| lost_origin(version))?;
        session.uncount(applies);
        self.post(session, Letter { at, offset, version, code, what, keys: keys_of(applies) })
    }

    /// Counts a refusal, and stops the sink if there are too many of them.
    pub(super) fn may_refuse(&mut self, e: &SinkError) -> Result<(), Trouble> {
        match self.breaker.hit() {
            true => Err(Trouble::Fatal(too_many(self.config.on_row_error, &e.what))),
            false => Ok(()),
        }
    }

    /// A dead letter, and its keys are parked.
    pub(super) fn post(&mut self, session: &mut Session<'_>, letter: Letter) -> Result<(), Trouble> {
        let since = Since { version: letter.version, code: letter.code };
        self.park(session, letter.keys.clone(), since);
        session.letters.push(letter);
        if self.parked.len() > KEYS_MAX {
            let what = format!("more than {KEYS_MAX} keys of this sink are parked");
            let next = "repair the target and deliver under a new sink name";
            return Err(Trouble::Fatal(Failure::new(code::TOO_MANY_REFUSED, what, next)));
        }
        Ok(())
    }

    /// Dead letters and parked keys into the log. Called before each commit of the sink.
    pub(super) async fn post_letters(&mut self, session: &mut Session<'_>) -> Result<(), Trouble> {
        if session.letters.is_empty() && session.parks.is_empty() {
            return Ok(());
        }
        let Some(to) = self.letters_to(true).await? else { return Ok(()) };
        let log = self.deps.log.clone();
        crash_point!("deliver.before_letters");
        let letters = std::mem::take(&mut session.letters);
        let count = letters.len() as u64;
        let mut batch = Builder::new();
        for letter in &letters {
            let record = raw(&log, letter.at, letter.offset).await?;
            let headers = self.headers(letter, &record);
            let headers = headers.iter().map(|(k, v)| (&k[..], Some(&v[..])));
            batch.push(self.now().wall.as_millis(), record.key.as_deref(), record.value.as_deref(), headers);
            self.say_refused(letter);
            if batch.bytes() > LETTERS_BATCH_BYTES {
                append(&log, to.letters, std::mem::replace(&mut batch, Builder::new())).await?;
            }
        }
        if !batch.is_empty() {
            append(&log, to.letters, batch).await?;
        }
        let parks = std::mem::take(&mut session.parks);
        if !parks.is_empty() {
            let by = self.parked_by();
            let mut batch = Builder::new();
            for (key, since) in &parks {
                batch.push(self.now().wall.as_millis(), Some(&by.encode_key(key)), Some(&since.encode()), []);
            }
            append(&log, to.parked, batch).await?;
        }
        crash_point!("deliver.after_letters");
        session.parked += count;
        Ok(())
    }

    fn topic_of(&self, letter: &Letter) -> String {
        self.topic_names.get(&letter.at.topic).map_or_else(String::new, ToString::to_string)
    }

    fn say_refused(&self, letter: &Letter) {
        let (sink, Letter { code, what, at, offset, .. }) = (self.sink_name(), letter);
        match self.config.dead_letters.log {
            LogRefused::Never => {}
            LogRefused::Why => log!(Warn, "sink.refused", "{sink}: {code} {what}"),
            LogRefused::WhyAndWhere => {
                let topic = self.topic_of(letter);
                log!(Warn, "sink.refused", "{sink}: {code} {what}; {topic} partition {} offset {offset}", at.partition);
            }
        }
    }

    fn headers(&self, letter: &Letter, record: &RawRecord) -> Vec<(Bytes, Bytes)> {
        let (sink, to) = (self.sink_name(), &self.config.dead_letters);
        let text = |k: &'static str, v: String| (Bytes::from_static(k.as_bytes()), Bytes::from(v));
        let place = [letter.at.partition.to_string(), letter.offset.to_string(), letter.what.clone()];
        let values = std::iter::once(self.topic_of(letter)).chain(place);
        let names = HEADERS.iter().map(|(connect, ours)| if to.context { *connect } else { *ours });
        let mut out: Vec<(Bytes, Bytes)> = names.zip(values).map(|(k, v)| text(k, v)).collect();
        if to.context {
            out.extend([
                text("__connect.errors.connector.name", to.connector.clone().unwrap_or_else(|| sink.clone())),
                text("__connect.errors.task.id", "0".into()),
                text("__connect.errors.stage", "TASK_PUT".into()),
                text("__connect.errors.class.name", "catchwater.sink".into()),
                text("__connect.errors.exception.class.name", letter.code.to_string()),
                text("__connect.errors.exception.stacktrace", String::new()),
            ]);
        }
        out.extend([
            text("cw.error.code", letter.code.to_string()),
            text(SINK_HEADER, sink),
            text(KEYS_HEADER, encode_keys(&letter.keys)),
            text("cw.version", letter.version.to_string()),
            text("cw.attempts", (self.retry.attempts() + 1).to_string()),
        ]);
        for (name, value) in [
            (STAMP_HEADER, &record.stamp),
            (EXACT_HEADER, &record.exact),
            (FORM_HEADER, &record.form),
            (FLAT_HEADER, &record.flat),
        ] {
            if let Some(value) = value {
                out.push((Bytes::from_static(name), value.clone()));
            }
        }
        out
    }
}

pub(super) async fn append(log: &Arc<dyn LogClient>, to: TopicPartition, batch: Builder) -> Result<(), Trouble> {
    let how = Append { context: Context::None, acks: Acks::All, timeout_ms: APPEND_TIMEOUT_MS };
    let outcome = log.append(to, batch.finish().freeze(), how).await;
    match refused(&outcome) {
        None => Ok(()),
        Some(e) => Err(Trouble::Log(e)),
    }
}

/// The record as it stands in the log.
async fn raw(log: &Arc<dyn LogClient>, at: TopicPartition, offset: Offset) -> Result<RawRecord, Trouble> {
    let max_bytes = u32::try_from(LACKING_BYTES).unwrap_or(u32::MAX);
    let fetched = log.fetch(fetch(FetchPart { at, offset, max_bytes })).await?;
    for f in fetched {
        let bytes = f.batches.map_err(|e| Trouble::Log(LogError::NotReady(e.to_string())))?;
        let (found, _) = records(at, offset, &bytes)?;
        if let Some(record) = found.into_iter().find(|r| r.offset == offset) {
            return Ok(record);
        }
    }
    Err(Trouble::Log(LogError::NotReady(format!("the record at {at} offset {offset} was not found again"))))
}

pub(super) fn fetch(part: FetchPart) -> Fetch {
    Fetch {
        parts: vec![part],
        isolation: Isolation::Committed,
        min_bytes: 1,
        max_wait_ms: FETCH_WAIT_MS,
        credit_bytes: part.max_bytes,
    }
}

fn unreadable(offset: Offset) -> Failure {
    Failure::new(
        code::PARKED_UNREADABLE,
        format!("the record of {PARKED_TOPIC} at offset {offset} cannot be read: which keys are parked is not known"),
        "a newer version wrote it, or something else than a sink: see the page of this code",
    )
}

/// It is of rows that no key tells, and some of those may wait.
fn overtakes(apply: &Apply, waiting: &[Unit]) -> bool {
    match apply.what {
        What::Truncate | What::Clear | What::RetireAll(_) => !waiting.is_empty(),
        What::DeleteOne(_) => waiting.iter().flat_map(|u| &u.applies).any(|w| w.table.target == apply.table.target),
        _ => false,
    }
}

/// Of a row that was not tried, since an earlier one of its key waits.
fn waits_behind() -> SinkError {
    SinkError::new(SinkClass::Row, code::REFUSED, "an earlier row of this key is refused", "")
}

fn lost_origin(version: Version) -> Trouble {
    Trouble::Log(LogError::Bug(format!("where {version} stands in the log was forgotten")))
}

fn too_many(policy: crate::park::OnRowError, what: &str) -> Failure {
    let limit = match policy {
        crate::park::OnRowError::ParkKey { most, of } => format!("more than {most} of the last {of} rows"),
        crate::park::OnRowError::Stop => "rows".to_owned(),
    };
    Failure::new(
        code::TOO_MANY_REFUSED,
        format!("the target refuses {limit}; the last: {what}"),
        "look at the dead letters for what they have in common, and repair the target; `on_error.max` is the limit",
    )
}
