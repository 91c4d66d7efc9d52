//! Rows of outbox tables: where each event goes is known, and its topic there, before anything of the row's transaction is on
//! its way. A row that says no legal place stops the source with everything before its transaction in the log, and nothing of
//! it: options that give it one may then be changed, and it comes again.

use super::start::{Begun, Kind, TOPICS_PER_CALL};
use crate::emit::Target;
use crate::error::{End, Trouble, code};
use catchwater_base::log;
use catchwater_change::encode::debezium_json::{EncodeError, Route, Updates};
use catchwater_change::{Op, RowChange, SourceInfo, TableSchema};
use catchwater_record::{TopicId, TopicName};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Most topics that a source's events go to: names are values of rows.
const TOPICS_MAX: usize = 1000;
/// What a person does about a row that cannot be an event.
const NEXT: &str = "change route.topic.regex, route.topic.replacement or the columns that the router reads, leave such rows out by a \
                    row filter of the publication, or leave the table out of `tables`; then start the source again";

/// What is known of the source's outbox tables.
#[derive(Default)]
pub(super) struct Events {
    /// The source has a router.
    pub is_on: bool,
    /// By the whole name.
    topics: BTreeMap<String, (TopicId, u32)>,
}

/// What is to be said of a transaction's rows, once for all of them.
#[derive(Default)]
pub(super) struct Odd {
    updates: u64,
    errors: bool,
    no_json: u64,
}

impl Odd {
    pub fn no_json(&mut self, is: bool) {
        self.no_json += u64::from(is);
    }

    /// An update of an outbox table, which is left out.
    pub fn update(&mut self, table: &TableSchema, row: &RowChange, how: Updates) -> Result<(), Trouble> {
        if how == Updates::Fatal {
            let what = format!("outbox table {}: {} is an update, and no event", table.qualified(), place_of(row));
            let next = "an outbox is only inserted into and deleted from; table.op.invalid.behavior = warn passes over updates";
            return Err(Trouble::fail(code::OUTBOX, what, next));
        }
        self.updates += 1;
        self.errors |= how == Updates::Error;
        Ok(())
    }

    pub fn tell(&mut self, begun: &Begun<'_>) {
        let source = &begun.session.config.source;
        let Odd { updates, errors, no_json } = std::mem::take(self);
        match (updates, errors) {
            (0, _) => {}
            (n, false) => {
                log!(Warn, "source.outbox", "source {source}: a transaction updates {n} rows of an outbox, no events");
            }
            (n, true) => {
                log!(Error, "source.outbox", "source {source}: a transaction updates {n} rows of an outbox, no events");
            }
        }
        if no_json > 0 {
            let what = "payloads of a transaction stay text: they are no JSON with one schema";
            log!(Warn, "source.outbox", "source {source}: {no_json} {what}");
        }
    }
}

/// Where the row stands at the source, without its values.
fn place_of(row: &RowChange) -> String {
    match row.info {
        SourceInfo::Postgres { lsn: Some(lsn), txid: Some(txid), .. } => {
            format!("the row at {:X}/{:X} of transaction {txid}", lsn >> 32, lsn & 0xffff_ffff)
        }
        _ => "a row".to_owned(),
    }
}

fn wrong_row(table: &TableSchema, row: &RowChange, what: String) -> Trouble {
    let what = format!("outbox table {}: {what} ({})", table.qualified(), place_of(row));
    Trouble::fail(code::OUTBOX, what, NEXT)
}

/// The partition that a row says is one of its topic's.
fn is_there(route: &Route, partitions: u32) -> Result<(), String> {
    match route.partition {
        Some(chosen) if !(0..i64::from(partitions)).contains(&chosen) => {
            Err(format!("partition {chosen} of a topic that has {partitions}"))
        }
        _ => Ok(()),
    }
}

fn outbox(row: &RowChange, e: EncodeError) -> Trouble {
    match &e {
        EncodeError::Outbox { .. } => Trouble::fail(code::OUTBOX, format!("{e} ({})", place_of(row)), NEXT),
        _ => Trouble::fail(code::ENCODE, e.to_string(), ""),
    }
}

impl Begun<'_> {
    /// A table is an outbox, or a converter is for outboxes alone: what of that cannot be.
    pub(super) fn check_events(&mut self, table: &TableSchema) -> Result<(), Trouble> {
        self.session.emitter.check_table(table).map_err(|e| {
            let next = "give the router the names of the table's columns, a predicate for the outbox tables alone, or another \
                        converter; or leave the table out of `tables`";
            Trouble::fail(code::OUTBOX, e.to_string(), next)
        })
    }

    fn route_of(&self, row: &RowChange) -> Result<Option<(Arc<TableSchema>, Route)>, Trouble> {
        if row.op == Op::Message {
            return Ok(None);
        }
        let Some(numbered) = self.numbered.get(&(Arc::as_ptr(&row.table) as usize)) else { return Ok(None) };
        let route = self.session.emitter.route(&numbered.table, row).map_err(|e| outbox(row, e))?;
        Ok(route.map(|route| (numbered.table.clone(), route)))
    }

    /// Looks where the events among the rows go, and makes topics that are not there. Their tables are as the source gave them.
    pub async fn prepare(&mut self, rows: &[RowChange]) -> Result<(), Trouble> {
        if !self.events.is_on {
            return Ok(());
        }
        let mut wanted = BTreeSet::new();
        for row in rows {
            let Some((table, route)) = self.route_of(row)? else { continue };
            let wrong = |what: String| wrong_row(&table, row, what);
            let setup = self.session.config.creation.of(&route.topic);
            if setup.compacts() && !route.has_key {
                return Err(wrong("an event without a key goes to a topic whose cleanup.policy is compact".into()));
            }
            match self.events.topics.get(&route.topic) {
                Some((_, partitions)) => is_there(&route, *partitions).map_err(wrong)?,
                None => {
                    let by = "what its columns and route.topic.replacement give";
                    let name = self.router.claim_events(&route.topic).map_err(|why| wrong(format!("{by} {why}")))?;
                    wanted.insert(name);
                }
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let wanted: Vec<TopicName> = wanted.into_iter().collect();
        if self.event_topics(&wanted) > TOPICS_MAX {
            let what = format!("the events of outbox tables go to more than {TOPICS_MAX} topics");
            let next = "route by a column with few values, or replace more of it by route.topic.regex";
            return Err(Trouble::fail(code::OUTBOX, what, next));
        }
        let named: Vec<(TopicName, bool)> = wanted.iter().map(|name| (name.clone(), false)).collect();
        for some in named.chunks(TOPICS_PER_CALL) {
            self.create_topics(some, Kind::Events).await.map_err(|trouble| match trouble {
                // As a row that says no place: what came before is brought in first.
                Trouble::End(End::Failed { code, what, next }) if code.0 == code::TOPIC => {
                    Trouble::fail(code::OUTBOX, format!("{what} (for events of an outbox table)"), next)
                }
                other => other,
            })?;
        }
        for name in wanted {
            if let Some(at) = self.topics.get(&name) {
                self.events.topics.insert(name.as_str().to_owned(), *at);
            }
        }
        for row in rows {
            if let Some((table, route)) = self.route_of(row)?
                && let Some((_, partitions)) = self.events.topics.get(&route.topic)
            {
                is_there(&route, *partitions).map_err(|what| wrong_row(&table, row, what))?;
            }
        }
        Ok(())
    }

    /// Topics of events, those of earlier starts among them, once these are there.
    fn event_topics(&self, wanted: &[TopicName]) -> usize {
        let tables: BTreeSet<TopicId> = self.numbered.values().map(|n| n.table.topic).collect();
        let known: BTreeSet<TopicId> =
            self.tails.keys().map(|at| at.topic).chain(self.topics.values().map(|t| t.0)).collect();
        known.difference(&tables).count() + wanted.len()
    }

    /// Where a row's event goes, which [`Begun::prepare`] has looked at. `row` has its numbered table.
    pub(super) fn target(&self, row: &RowChange) -> Result<Option<Target>, Trouble> {
        if !self.events.is_on || row.op == Op::Message {
            return Ok(None);
        }
        let Some(route) = self.session.emitter.route(&row.table, row).map_err(|e| outbox(row, e))? else {
            return Ok(None);
        };
        let Some((topic, partitions)) = self.events.topics.get(&route.topic).copied() else {
            return Err(Trouble::fail(code::CONTRACT, "an event's topic was not made ready", "report it"));
        };
        let partition = route.partition.and_then(|p| u32::try_from(p).ok());
        Ok(Some(Target { topic, partitions, partition }))
    }
}
