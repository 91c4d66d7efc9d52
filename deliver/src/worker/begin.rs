//! Where a session begins: the sink says what the target holds, and the log is read from there.
//!
//! Walk: row-change 14/17
//!
//! Checked before a row is read: the incarnation, that the log still reaches back to where the sink stands (CW0672), and
//! that it is not younger than the sink (CW0671).

use super::book::Of;
use super::intake::{FETCH_WAIT_MS, INTERNAL_BYTES};
use super::thin::Thin;
use super::{Flight, Internal, Place, Session, Trouble, Worker, sink_trouble};
use crate::batch::Batch;
use crate::commit::Commit;
use crate::error::{ahead, deletes_gone, rebuild};
use crate::regroup::Regroup;
use crate::retry::Ordered;
use crate::sink::{Claim, is_note};
use crate::status::State;
use bytes::Bytes;
use catchwater_base::{Mono, crash_point};
use catchwater_change::checkpoint::CAPTURES_TOPIC;
use catchwater_change::cut::CUTS_TOPIC;
use catchwater_client::{At, Fetch, FetchPart, Isolation, LogClient, LogError, TopicsWanted};
use catchwater_record::{Offset, TopicName, TopicPartition, murmur2};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

impl Worker {
    /// Opens the sink and stands where it says.
    pub(super) async fn begin<'a>(&mut self, log: &'a Arc<dyn LogClient>) -> Result<Session<'a>, Trouble> {
        let internal = self.find_internal().await?;
        self.read_book(internal).await?;

        self.reopen += 1;
        let claim = Claim {
            pipeline: self.config.pipeline.clone(),
            sink: self.config.sink.clone(),
            source: self.config.source.clone(),
            cluster: self.config.cluster,
            fence: i64::from(self.config.epoch.0) << 16 | i64::from(self.reopen),
            incarnation: self.config.incarnation,
        };
        crash_point!("sink.before_claim");
        let found = self.deps.sink.open(claim).await.map_err(sink_trouble)?.mark;
        crash_point!("sink.after_claim");
        if found.as_ref().map(|m| m.seq).unwrap_or_default() < self.status.read().seq {
            // The target went back, and its tables with it.
            self.plans.clear();
        }
        self.take_rebuild(found.as_ref()).await?;
        if let Some(mark) = &found
            && mark.incarnation != self.config.incarnation
        {
            self.take_over(mark).await?;
        }
        // A rebuild reads as if nothing was there; its commit replaces what is.
        let stands = found.as_ref().filter(|_| self.rebuild.is_none());
        let known = stands.into_iter().flat_map(|m| m.offsets.iter().copied()).filter(|(at, _)| !is_note(*at));
        let known: BTreeMap<TopicPartition, Offset> = known.collect();
        let letters = self.letters_to(false).await?.map(|to| to.letters.topic);
        let settled = letters.and_then(|topic| Some((topic, found.as_ref()?.letters_settled(topic)?)));
        let cuts_from = known.get(&internal.cuts).copied();
        let lane = self.deps.sink.lane().await.map_err(sink_trouble)?;
        self.lanes_max = self.config.lanes.min(self.deps.sink.capabilities().lanes_max);
        let mut session = Session {
            internal,
            regroup: Regroup::new(self.config.incarnation, stands.map(|m| m.seq), cuts_from.unwrap_or_default(), true),
            batch: Batch::new(self.config.batch),
            commit: Commit::open(self.now().mono, found.clone()),
            lane,
            lane_open: false,
            wrote_at: Mono::ZERO,
            book_is_new: false,
            ordered: Ordered::AsTheSource,
            flight: Flight::default(),
            ends: BTreeMap::new(),
            has_looked: false,
            look_at: Mono::ZERO,
            thin: Thin::default(),
            described: BTreeMap::new(),
            at: Place {
                seq: stands.map(|m| m.seq).unwrap_or_default(),
                native: stands.map(|m| m.native.clone()).unwrap_or_default(),
                commit_time: stands.map(|m| m.commit_time).unwrap_or_default(),
            },
            counted: BTreeMap::new(),
            folded: 0,
            taken: 0,
            filtered: 0,
            parked: 0,
            settled,
            letters: Vec::new(),
            parks: Vec::new(),
            origins: BTreeMap::new(),
            waiting: Vec::new(),
            way: None,
            first: None,
            pending_cuts: VecDeque::new(),
            paused_until: Mono::ZERO,
        };
        self.check_bounds(log, &mut session, &known).await?;
        self.read_parked().await?;
        self.subscribe(&mut session, &known).await?;
        for no in std::mem::take(&mut self.prepare_first) {
            self.prepare(&mut session, no).await?;
        }
        self.prepare_tables(&mut session).await?;
        self.replay_at_start(&mut session).await?;
        self.answer(&mut session).await?;
        if self.rebuild.is_some() {
            self.clear_targets(&mut session);
            return Ok(session);
        }
        let durable: Arc<[_]> = known.into_iter().filter(|(at, _)| *at != session.internal.cuts).collect();
        self.status.update(|s| {
            s.state = State::Running;
            s.letters_settled = session.settled;
            s.durable = Some(durable);
            s.seq = session.at.seq;
            s.position = session.at.native.clone();
            s.commit_time = session.at.commit_time;
        });
        Ok(session)
    }

    pub(super) async fn find_internal(&mut self) -> Result<Internal, Trouble> {
        let names = vec![TopicName::from(CAPTURES_TOPIC), TopicName::from(CUTS_TOPIC)];
        let found = self.deps.control.describe_topics(TopicsWanted::Names(names)).await?;
        let partition = |name: &str| {
            let topic = found.iter().find(|t| t.name.as_str() == name && t.partitions > 0)?;
            let hash = murmur2::murmur2(&self.config.capture.0.to_be_bytes()) & 0x7fff_ffff;
            Some(TopicPartition::new(topic.id, hash % topic.partitions))
        };
        match (partition(CAPTURES_TOPIC), partition(CUTS_TOPIC)) {
            (Some(captures), Some(cuts)) => Ok(Internal { captures, cuts }),
            _ => Err(Trouble::NotReady),
        }
    }

    /// Reads TABLE records up to the end the log has now.
    pub(super) async fn read_book(&mut self, internal: Internal) -> Result<(), Trouble> {
        let log = self.deps.log.clone();
        let bounds = log.bounds(vec![internal.captures], At::Now).await?;
        let Some(bounds) = bounds.first().copied() else { return Ok(()) };
        self.book.next = self.book.next.max(bounds.log_start);
        while self.book.next < bounds.lso {
            if self.stop.is_stopped() {
                return Err(Trouble::Stopped);
            }
            let part = FetchPart { at: internal.captures, offset: self.book.next, max_bytes: 8 * INTERNAL_BYTES };
            let fetched = log
                .fetch(Fetch {
                    parts: vec![part],
                    isolation: Isolation::Committed,
                    min_bytes: 1,
                    max_wait_ms: FETCH_WAIT_MS,
                    credit_bytes: 8 * INTERNAL_BYTES,
                })
                .await?;
            for f in fetched {
                match f.batches {
                    Ok(bytes) => self.read_captures(f.at, &bytes)?,
                    Err(e) => return Err(Trouble::Log(LogError::NotReady(e.to_string()))),
                }
            }
        }
        Ok(())
    }

    pub(super) fn read_captures(&mut self, at: TopicPartition, bytes: &Bytes) -> Result<(), Trouble> {
        let config = &self.config;
        let of = Of { capture: config.capture, incarnation: config.incarnation, tables: &config.tables };
        Ok(self.book.read(&*self.deps.wire, &of, at, bytes)?)
    }

    /// Is what the sink holds still in the log, and the log not younger than the sink?
    pub(super) async fn check_bounds(
        &mut self,
        log: &Arc<dyn LogClient>,
        session: &mut Session<'_>,
        known: &BTreeMap<TopicPartition, Offset>,
    ) -> Result<(), Trouble> {
        let cuts = session.internal.cuts;
        let mut of: Vec<TopicPartition> = known.keys().copied().collect();
        if !of.contains(&cuts) {
            of.push(cuts);
        }
        let bounds = match log.bounds(of.clone(), At::Now).await {
            Err(LogError::NoTopic(at)) if known.contains_key(&at) => {
                return Err(Trouble::Fatal(ahead(at, "its topic is gone")));
            }
            other => other?,
        };
        for (at, b) in of.iter().zip(bounds) {
            let offset = known.get(at).copied();
            if *at == cuts {
                if offset.unwrap_or_default() < b.log_start {
                    session.regroup.cuts_lost(b.log_start);
                }
            } else if offset.is_some_and(|o| o < b.log_start) {
                return Err(Trouble::Fatal(rebuild(*at)));
            }
            if let Some(offset) = offset
                && *at != cuts
            {
                session.thin.begin(*at, offset, &b.thinned).map_err(|_| Trouble::Fatal(deletes_gone(*at)))?;
            }
            if offset.is_some_and(|o| o > b.high_watermark) {
                return Err(Trouble::Fatal(ahead(*at, "the log is shorter")));
            }
        }
        Ok(())
    }

    /// Subscribes all partitions of the tables we take. Also when new ones have turned up.
    pub(super) async fn subscribe(
        &mut self,
        session: &mut Session<'_>,
        known: &BTreeMap<TopicPartition, Offset>,
    ) -> Result<(), Trouble> {
        let topics = self.deps.control.describe_topics(TopicsWanted::OwnedBy(self.config.capture)).await?;
        let mut fresh = Vec::new();
        for topic in topics {
            self.topic_names.insert(topic.id, topic.name.clone());
            if self.book.takes(topic.id) != Some(true) {
                continue;
            }
            for p in 0..topic.partitions {
                let at = TopicPartition::new(topic.id, p);
                if session.regroup.is_subscribed(at) {
                    continue;
                }
                match known.get(&at) {
                    Some(offset) => session.regroup.subscribe(at, *offset, true),
                    None => fresh.push(at),
                }
            }
        }
        if fresh.is_empty() {
            return Ok(());
        }
        let bounds = self.deps.log.bounds(fresh.clone(), At::Now).await?;
        // A fresh sink takes everything; a table that is new to an old sink must not have rows below its mark.
        let all_new = session.commit.durable().is_none() || self.rebuild.is_some();
        for (at, b) in fresh.iter().zip(bounds) {
            if b.log_start > Offset::ZERO {
                return Err(Trouble::Fatal(rebuild(*at)));
            }
            session.thin.begin(*at, Offset::ZERO, &b.thinned).map_err(|_| Trouble::Fatal(deletes_gone(*at)))?;
            session.regroup.subscribe(*at, Offset::ZERO, all_new);
        }
        Ok(())
    }
}
