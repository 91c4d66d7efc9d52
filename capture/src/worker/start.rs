//! How an attempt begins: fence (R1), what the log knows (R3, R9), preflight and identity on the first start, tables,
//! topics (R2) and configuration.

mod known;

pub(super) use known::{History, read_all, read_keys};
use known::{checkpoint_of_cut, read_above, read_history};

use super::session::{Place, Session};
use super::{Config, Worker};
use crate::adhoc::Touched;
use crate::backfill::{Backfill, When};
use crate::emit::{Emitter, OwnTopic};
use crate::error::{End, Trouble, code};
use crate::properties::shapes_records;
use crate::reading::SnapshotMode;
use crate::resume::{Found, Resume};
use crate::route::{self, Router};
use crate::source::{Finding, Identity, Opened, Severity, Source, Start, identity_tag};
use crate::status::State;
use crate::tables::{Shape, Tables};
use crate::track::Mark;
use catchwater_base::{Wall, crash_point};
use catchwater_change::checkpoint::{
    CAPTURES_TOPIC, Checkpoint, ChunkPhase, ChunkRecord, Config as StoredConfig, FIRST_SNAPSHOT, IdentityRecord,
    Stored, StoredKey, TableRecord, WHOLE_TABLE, chunk_flag, table_flag,
};
use catchwater_change::cut::CUTS_TOPIC;
use catchwater_change::decode::debezium_json;
use catchwater_change::encode::debezium_json::{Encoder, Notification, Options, keys_hold};
use catchwater_change::json;
use catchwater_change::stamp::flag;
use catchwater_change::{Column, Cut, Native, Stamp, TableSchema, Value, Version};
use catchwater_client::{
    ControlClient, ControlError, Fetch, FetchPart, Isolation, LogClient, LogError, NewTopic, Owner, PartitionError,
    Tail, TopicsWanted,
};
use catchwater_record::batch::{BatchView, iterate};
use catchwater_record::{CommitSeq, Offset, Position, TopicId, TopicName, TopicPartition, compress, murmur2};
use catchwater_runtime::shutdown::Stopped;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Order and number of records that our code makes of a change; another one switches by R8.
pub(super) const EMIT_VERSION: u32 = 1;
/// Topics made by one call.
pub(super) const TOPICS_PER_CALL: usize = 256;

/// Everything an attempt works with.
pub(super) struct Begun<'a> {
    pub session: Session<'a>,
    pub control: Arc<dyn ControlClient>,
    pub router: Router,
    pub tables: Tables,
    pub topics: BTreeMap<TopicName, (TopicId, u32)>,
    /// Shapes as the source gives them → numbered, routed, partitions. The key holds the Arc, so addresses stay unique.
    pub numbered: BTreeMap<usize, Numbered>,
    /// How often the stream described a table since the start.
    pub described: BTreeMap<u32, u64>,
    pub tails: BTreeMap<TopicPartition, Tail>,
    pub resume: Resume,
    pub history: History,
    pub opened: Opened,
    pub fresh: bool,
    /// All tables are to be read once more (`SnapshotMode::Always`).
    pub reads_again: bool,
    pub backfill: Backfill,
    pub touched: Touched,
    /// Inserts into the signal table that nobody has looked at.
    pub signals: Vec<Inserted>,
    /// Rows that moved to these keys with a column that nobody knows, not noted yet.
    pub moved: Vec<(CommitSeq, u32, Vec<Value>)>,
    /// Tables that the source wants to be read once more, not asked for yet.
    pub again: Vec<Arc<TableSchema>>,
    pub late: super::late::Late,
    pub superset: bool,
    pub has_snapshot: bool,
    /// Where transactions are said to begin and end, if anywhere.
    pub transactions: Option<TopicPartition>,
    pub unchanged: super::unchanged::Unchanged,
    pub events: super::events::Events,
}

/// What a topic is made for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The rows of a table, in one partition so that its transactions stand in order.
    Table,
    /// What a source says of itself.
    Own,
    /// Events of outbox tables.
    Events,
}

/// A row of the signal table, and the transaction that brought it.
pub(super) struct Inserted {
    pub seq: CommitSeq,
    pub id: String,
    pub kind: String,
    pub data: String,
}

pub(super) struct Numbered {
    pub given: Arc<TableSchema>,
    pub table: Arc<TableSchema>,
    pub partitions: u32,
    /// False = the catalogue's shape of today, as the source was opened: nothing of the log has it yet, and changes of before may
    /// come first. `table` is the newest that the log knows.
    pub is_heard: bool,
}

/// How a shape came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    /// By the catalogue, as the source was opened.
    Shown,
    /// By the stream, or by rows that are read as the table is.
    Heard,
    /// By a plan, which may be older than what the stream has told since: it keeps the number it has.
    Planned,
}

pub(super) async fn begin<'a>(
    worker: &mut Worker,
    log: &'a dyn LogClient,
    stop: Stopped,
    source: &mut dyn Source,
) -> Result<Begun<'a>, Trouble> {
    let config = worker.config.clone();
    worker.status.update(|s| s.state = State::Starting);
    crash_point!("capture.before_fence");
    let tails = log.open_capture(config.capture, config.epoch).await.map_err(log_trouble)?;
    crash_point!("capture.after_fence");
    let control = worker.deps.control.clone();
    let place = internal_places(&*control, &config).await?;
    let tails: BTreeMap<TopicPartition, Tail> = tails.into_iter().map(|t| (t.at, t)).collect();
    let end_of = |at: TopicPartition| tails.get(&at).map_or(Offset::ZERO, |t| t.end);

    let mut history = read_history(log, &config, place.captures, end_of(place.captures)).await?;
    let rows: Vec<&Tail> = tails
        .values()
        .filter(|t| t.at.topic != place.captures.topic && t.at.topic != place.cuts.topic && !t.last.is_none())
        .filter(|t| Version::of(&t.last).is_some_and(|(v, _)| v.incarnation == config.incarnation))
        .collect();
    if history.checkpoint.is_none() && !rows.is_empty() {
        history.checkpoint = Some(checkpoint_of_cut(log, &config, place.cuts, end_of(place.cuts)).await?);
    }
    let fresh = history.checkpoint.is_none();

    let found = match &history.checkpoint {
        Some(at) => read_above(log, &config, at, &rows, &history).await?,
        None => Found::default(),
    };
    if !found.units.is_empty() {
        same_records(&history, &config)?;
    }
    if config.snapshot == SnapshotMode::InitialOnly
        && let Some(at) = history.checkpoint.as_ref().filter(|at| is_complete(&history, at, &rows))
    {
        let identity = history.identity.as_ref().map(|i| (identity_of(i), true));
        let (seq, place_of, time) = (at.commit_seq, native(at)?, at.commit_time);
        worker.status.update(|s| {
            (s.identity, s.commit_seq, s.native, s.commit_time) = (identity, seq, place_of, time);
        });
        return Err(Trouble::Complete);
    }
    let reads_again = worker.at_start
        && config.snapshot == SnapshotMode::Always
        && !fresh
        && unread(&history).is_empty()
        && !super::adhoc::is_begun(&history);
    worker.at_start &= reads_again;
    let (identity, opened) = match &history.checkpoint {
        Some(at) => {
            let native = native(at)?;
            let known = history.identity.as_ref().map(identity_of);
            worker.status.update(|s| s.identity = known.clone().map(|k| (k, true)));
            let opened = source.open(Start::After(native), known.clone()).await?;
            (known.filter(|k| *k == opened.identity), opened)
        }
        None => (None, first_open(worker, log, &control, &config, &stop, &place, &history, source).await?),
    };
    worker.status.update(|s| s.identity = Some((opened.identity.clone(), true)));
    let at = match &history.checkpoint {
        Some(c) => Mark { seq: c.commit_seq, native: native(c)?, commit_time: c.commit_time },
        None => Mark { seq: CommitSeq(0), native: opened.native.clone(), commit_time: worker.deps.clock.now().wall },
    };
    let encoder = Encoder::with(config.connector, config.prefix.clone(), config.options.clone());
    let emitter = Emitter::new(encoder, config.capture, config.epoch, config.incarnation, config.limits.emit);
    let capabilities = source.capabilities();
    let resume = Resume::new(at.seq, at.native.clone(), found);
    let internal = [place.captures.topic, place.cuts.topic];
    let mut session = Session::new(
        log,
        worker.deps.clock.clone(),
        config.clone(),
        worker.status.clone(),
        worker.rng.fork(1),
        stop,
        emitter,
        at,
        place,
    );
    let mut tables = Tables::default();
    history.tables.iter().for_each(|t| drop(tables.learn(t)));
    session.cut_floor = resume.highest();
    if !fresh {
        session.confirm_checkpoint();
    }
    let mut begun = Begun {
        session,
        control,
        router: Router::new(config.prefix.clone(), config.options.delimiter.clone(), config.options.placing.clone()),
        tables,
        topics: BTreeMap::new(),
        numbered: BTreeMap::new(),
        described: BTreeMap::new(),
        tails,
        resume,
        history,
        opened,
        fresh,
        reads_again,
        backfill: Backfill::default(),
        touched: Touched::default(),
        signals: Vec::new(),
        moved: Vec::new(),
        again: Vec::new(),
        late: super::late::Late {
            is_on: !fresh,
            statements: source.statements(),
            has_stretches: capabilities.has_stretches,
            ..Default::default()
        },
        superset: capabilities.superset,
        has_snapshot: capabilities.has_snapshot,
        transactions: None,
        unchanged: super::unchanged::Unchanged::default(),
        events: super::events::Events::default(),
    };
    begun.events.is_on = config.options.placing.0.as_ref().is_some_and(|p| p.has_events());
    // Partitions of topics that no table of today goes to still take part in cuts.
    let known: Vec<Tail> = begun.tails.values().filter(|t| !internal.contains(&t.at.topic)).cloned().collect();
    for tail in known {
        let safe = begun.safe(&tail);
        begun.session.emitter.lane(tail.at, tail.last.clone(), tail.end, safe);
    }
    let given = begun.opened.tables.clone();
    begun.describe(&given, if fresh { Told::Heard } else { Told::Shown }).await?;
    begun.late.is_on = true;
    if !fresh {
        begun.find_late();
    }
    begun.ensure_transactions().await?;
    begun.ensure_heartbeats().await?;
    begun.ensure_notifications().await?;
    begun.write_first(identity.is_none()).await?;
    Ok(begun)
}

/// Tables whose snapshot is not whole, but for ad hoc ones.
pub(super) fn unread(history: &History) -> BTreeSet<u32> {
    let of = |((_, table, unit), c): (&(u32, u32, u32), &ChunkRecord)| {
        let is_open = matches!(c.phase, ChunkPhase::Planned | ChunkPhase::Open);
        (*unit == WHOLE_TABLE && c.flags & chunk_flag::AD_HOC == 0 && is_open).then_some(*table)
    };
    history.chunks.iter().filter_map(of).collect()
}

/// Every table is in the log, and nothing lies above the checkpoint: the cut that says so is there, too.
fn is_complete(history: &History, checkpoint: &Checkpoint, rows: &[&Tail]) -> bool {
    let is_below = |t: &&Tail| Version::of(&t.last).is_none_or(|(v, _)| v.commit_seq <= checkpoint.commit_seq);
    unread(history).is_empty() && rows.iter().all(is_below)
}

/// Records above the checkpoint are made again and must be the same ones (R8): what decides that must not have changed
/// since they were written. A clean stop leaves none.
fn same_records(history: &History, config: &Config) -> Result<(), Trouble> {
    let Some((_, written)) = history.configs.iter().next_back() else { return Ok(()) };
    let of = |canonical: &str| -> Vec<(String, String)> {
        let Ok(node) = json::parse(canonical.as_bytes()) else { return Vec::new() };
        let Some(json::Node::Object(members)) = node.get("debezium") else { return Vec::new() };
        let text = |n: &json::Node<'_>| n.as_str().unwrap_or_default().to_owned();
        members.iter().filter(|(k, _)| shapes_records(k)).map(|(k, v)| (k.to_string(), text(v))).collect()
    };
    let (before, now) = (of(&written.source), of(&config.canonical));
    if before == now {
        return Ok(());
    }
    let names: Vec<&str> = before
        .iter()
        .filter(|p| !now.contains(p))
        .chain(now.iter().filter(|p| !before.contains(p)))
        .map(|(k, _)| k.as_str())
        .collect();
    Err(Trouble::fail(
        code::SWITCH,
        format!("{} changed while the log holds part of what was read before", names.join(", ")),
        "start once with the properties as they were, stop, then change them",
    ))
}

async fn internal_places(control: &dyn ControlClient, config: &Config) -> Result<Place, Trouble> {
    let names = [CAPTURES_TOPIC, CUTS_TOPIC];
    let wanted = TopicsWanted::Names(names.iter().map(|n| (*n).into()).collect());
    let found = control.describe_topics(wanted).await.map_err(control_trouble)?;
    let place = |name: &str| {
        let topic = found.iter().find(|t| t.name.as_str() == name);
        let topic = topic.ok_or_else(|| Trouble::retry(code::LOG, format!("topic {name} is not there yet")))?;
        let partition = murmur2::partition_for_key(&config.capture.0.to_be_bytes(), topic.partitions);
        Ok::<_, Trouble>(TopicPartition { topic: topic.id, partition })
    };
    Ok(Place { captures: place(names[0])?, cuts: place(names[1])? })
}

fn native(c: &Checkpoint) -> Result<Native, Trouble> {
    Native::new(c.native.clone())
        .ok_or_else(|| Trouble::fail(code::STORED, "the checkpoint's position is too long", ""))
}

fn identity_of(stored: &IdentityRecord) -> Identity {
    Identity { system: stored.system, tags: stored.tags.clone() }
}

/// Preflight, IDENTITY before anything is made, then the source's own objects.
#[allow(clippy::too_many_arguments)]
async fn first_open(
    worker: &mut Worker,
    log: &dyn LogClient,
    control: &Arc<dyn ControlClient>,
    config: &Config,
    stop: &Stopped,
    place: &Place,
    history: &History,
    source: &mut dyn Source,
) -> Result<Opened, Trouble> {
    let _ = control;
    let findings = source.preflight().await;
    let errors: Vec<&Finding> = findings.iter().filter(|f| f.severity == Severity::Error).collect();
    if let Some(first) = errors.first() {
        let what: Vec<String> = errors.iter().map(|f| format!("{}: {} ({})", f.code, f.fault, f.evidence)).collect();
        if errors.iter().all(|f| f.retry) {
            return Err(Trouble::Retry { code: first.code, what: what.join("; ") });
        }
        let next: Vec<String> = errors
            .iter()
            .flat_map(|f| f.sql.iter().cloned().chain([f.cure.clone()]))
            .filter(|t| !t.is_empty())
            .collect();
        return Err(Trouble::End(End::Failed { code: first.code, what: what.join("; "), next: next.join("\n") }));
    }
    let mut known = match &history.identity {
        Some(stored) => identity_of(stored),
        None => {
            let identity = source.identify().await?;
            let record = Stored::Identity(IdentityRecord {
                incarnation: config.incarnation,
                system: identity.system,
                tags: identity.tags.clone(),
            });
            // A session of its own: the lanes do not exist yet.
            let at = Mark { seq: CommitSeq(0), native: Native::default(), commit_time: worker.deps.clock.now().wall };
            let encoder = Encoder::new(config.connector, config.prefix.clone());
            let emitter = Emitter::new(encoder, config.capture, config.epoch, config.incarnation, config.limits.emit);
            let mut session = Session::new(
                log,
                worker.deps.clock.clone(),
                config.clone(),
                worker.status.clone(),
                worker.rng.fork(2),
                stop.clone(),
                emitter,
                at,
                Place { captures: place.captures, cuts: place.cuts },
            );
            session.without_cuts();
            session.store([(StoredKey::Identity, record)]);
            let written = session.flush_stored().await;
            session.settle().await?;
            written?;
            identity
        }
    };
    // There is no checkpoint, so nothing of this source is in the log: what an earlier start left behind is ours.
    known.tags.remove(&identity_tag::CONSISTENT_POINT);
    worker.status.update(|s| s.identity = Some((known.clone(), false)));
    crash_point!("capture.before_open");
    let opened = source.open(Start::Fresh, Some(known)).await?;
    crash_point!("capture.after_open");
    Ok(opened)
}

/// Compaction needs keys, that all records of a row have the same, and no other row's: with Debezium's defects some tables'
/// have not, and without them a mask leaves many rows one key where it gives all values one form, or cuts them.
fn is_compacted(options: &Options, table: &TableSchema) -> bool {
    let merges = |column: &Column| {
        let is_one = options.masks.0.as_ref().and_then(|of| of(table, column)).is_some_and(|mask| mask(None).is_some());
        let is_cut = |of: Vec<(String, String)>| of.iter().any(|(name, _)| name == "truncateLength");
        is_one || options.parameters.0.as_ref().is_some_and(|of| is_cut(of(table, column)))
    };
    let mut key = table.key.iter().filter_map(|k| table.columns.get(usize::from(*k)));
    !table.key.is_empty() && if options.defects { keys_hold(table) } else { !key.any(merges) }
}

/// Says what a topic of our own is, and refuses transforms that cannot take its records.
fn own_topic(session: &mut Session<'_>, of: OwnTopic, name: &TopicName) -> Result<(), Trouble> {
    let sample =
        Notification { id: String::new(), aggregate: "", kind: "", data: Vec::new(), at: Wall::from_micros(0) };
    session.emitter.own_topic(of, name.as_str(), &sample).map_err(|e| {
        let next = "give the transform a predicate of topics that this one does not fit";
        Trouble::fail(code::ROUTE, e.to_string(), next)
    })
}

impl Begun<'_> {
    /// Numbers and routes shapes, makes missing topics, and commits TABLE records before their first row.
    pub async fn ensure_tables(&mut self, given: &[Arc<TableSchema>]) -> Result<(), Trouble> {
        self.describe(given, Told::Heard).await
    }

    /// The same of a unit of a snapshot that was planned with this shape.
    pub async fn ensure_read(&mut self, given: &Arc<TableSchema>) -> Result<(), Trouble> {
        self.describe(std::slice::from_ref(given), Told::Planned).await
    }

    /// Rows may have this shape: it is numbered.
    pub fn hears(&self, given: &Arc<TableSchema>) -> bool {
        self.numbered.get(&(Arc::as_ptr(given) as usize)).is_some_and(|n| n.is_heard)
    }

    /// Numbers of a table's shapes ascend as their rows stand in the log, so one that only the catalogue shows has to wait: the
    /// stream may still be at changes of before.
    async fn describe(&mut self, given: &[Arc<TableSchema>], told: Told) -> Result<(), Trouble> {
        let mut named = Vec::with_capacity(given.len());
        for table in given {
            let name = self.router.claim(table).map_err(|e| {
                let next = "rename one of the tables, capture them as two sources, or let a logical router add its field to their keys";
                Trouble::fail(code::ROUTE, e.to_string(), next)
            })?;
            named.push((table.clone(), name));
        }
        let to_make = |(table, name): &(Arc<TableSchema>, Option<TopicName>)| {
            let name = name.clone().filter(|name| !self.topics.contains_key(name))?;
            Some((table.clone(), name))
        };
        let missing: Vec<(Arc<TableSchema>, TopicName)> = named.iter().filter_map(to_make).collect();
        for (table, name) in missing.iter().filter(|(table, _)| table.key.is_empty()) {
            if self.session.config.creation.of(name.as_str()).compacts() {
                let what =
                    format!("topic {name}: cleanup.policy is compact, and table {} has no key", table.qualified());
                return Err(Trouble::fail(code::TOPIC, what, "leave it out of that group of topic.creation.groups"));
            }
        }
        let compacted = |(table, name): &(Arc<TableSchema>, TopicName)| {
            let keeps = self.session.emitter.keeps_keys(table);
            (name.clone(), keeps && is_compacted(&self.session.config.options, table))
        };
        let mut missing: Vec<(TopicName, bool)> = missing.iter().map(compacted).collect();
        missing.sort();
        missing.dedup_by(|a, b| a.0 == b.0);
        for some in missing.chunks(TOPICS_PER_CALL) {
            self.create_topics(some, Kind::Table).await?;
        }
        for (table, name) in named {
            // An outbox has no topic of its own.
            let place = name.map_or(Some((TopicId::NONE, 0)), |name| self.topics.get(&name).copied());
            let Some((topic, partitions)) = place else { continue };
            let (mut joined, mut heard) = (false, true);
            let before = self.tables.newest_of(&table, topic).filter(|_| told == Told::Shown);
            let known = self.tables.known(&table, topic).filter(|_| told == Told::Planned);
            let from =
                Version { incarnation: self.session.config.incarnation, commit_seq: self.resume.next(), ordinal: 0 };
            let resolved = known.map_or_else(|| self.tables.resolve(&table, topic, from), Shape::Known);
            let numbered = match (resolved, before) {
                (Shape::Known(known), _) => known,
                (Shape::New(_), Some(before)) => {
                    heard = false;
                    before
                }
                (Shape::New(schema), None) => {
                    let late = self.late.is_on && self.tables.is_first(&schema) && self.reads_late(&schema);
                    joined = late;
                    let flags = if late { table_flag::LATE } else { 0 };
                    let record = TableRecord { schema: *schema, from, flags };
                    let schema = self.tables.learn(&record);
                    let key = StoredKey::Table { schema_no: schema.schema_no };
                    self.session.store([(key, Stored::Table(record))]);
                    schema
                }
            };
            self.check_events(&numbered)?;
            let at = Arc::as_ptr(&table) as usize;
            if joined {
                self.comes_late(&table, &numbered, partitions);
            }
            self.numbered.insert(at, Numbered { given: table, table: numbered, partitions, is_heard: heard });
        }
        self.session.flush_stored().await?;
        crash_point!("capture.after_tables");
        Ok(())
    }

    /// True if other tables' records go to the table's topic, too.
    pub fn shares_topic(&self, table: &TableSchema) -> bool {
        let of =
            |(name, (topic, _)): (&TopicName, &(TopicId, u32))| *topic == table.topic && self.router.is_shared(name);
        self.topics.iter().any(of)
    }

    /// The topic of logical messages, made when the first one comes.
    pub async fn ensure_messages(&mut self, given: Arc<TableSchema>) -> Result<(), Trouble> {
        let config = &self.session.config;
        // Debezium's own name for it, whatever `topic.delimiter` says.
        let name = TopicName::from(format!("{}.message", config.prefix));
        let name = self.router.reserve(name).map_err(|e| {
            Trouble::fail(code::ROUTE, e.to_string(), "leave the messages out by message.prefix.exclude.list: .*")
        })?;
        if !self.topics.contains_key(&name) {
            self.create_topics(&[(name.clone(), false)], Kind::Own).await?;
        }
        if let Some((topic, partitions)) = self.topics.get(&name).copied() {
            let table = Arc::new(TableSchema { topic, ..(*given).clone() });
            self.numbered.insert(Arc::as_ptr(&given) as usize, Numbered { given, table, partitions, is_heard: true });
        }
        Ok(())
    }

    /// The transaction topic: one partition, so that its records stand in commit order.
    async fn ensure_transactions(&mut self) -> Result<(), Trouble> {
        let config = &self.session.config;
        let Some(topic) = &config.transaction_topic else { return Ok(()) };
        let name = TopicName::from([config.prefix.as_str(), topic].join(&config.options.delimiter));
        own_topic(&mut self.session, OwnTopic::Transactions, &name)?;
        let name = self
            .router
            .reserve(name)
            .map_err(|e| Trouble::fail(code::ROUTE, e.to_string(), "give topic.transaction another name"))?;
        self.create_topics(&[(name.clone(), false)], Kind::Own).await?;
        self.transactions = self.topics.get(&name).map(|(topic, _)| TopicPartition::new(*topic, 0));
        Ok(())
    }

    async fn ensure_heartbeats(&mut self) -> Result<(), Trouble> {
        let config = &self.session.config;
        let Some(beat) = config.heartbeat.clone() else { return Ok(()) };
        let name = TopicName::from([beat.topic_prefix.as_str(), &config.prefix].join(&config.options.delimiter));
        own_topic(&mut self.session, OwnTopic::Heartbeats, &name)?;
        let name = self
            .router
            .reserve(name)
            .map_err(|e| Trouble::fail(code::ROUTE, e.to_string(), "give topic.heartbeat.prefix another value"))?;
        self.create_topics(&[(name.clone(), false)], Kind::Own).await?;
        if let Some((topic, _)) = self.topics.get(&name).copied() {
            self.session.beat_at(TopicPartition::new(topic, 0), beat.every_ms);
        }
        Ok(())
    }

    async fn ensure_notifications(&mut self) -> Result<(), Trouble> {
        let Some(topic) = &self.session.config.notifications.topic else { return Ok(()) };
        let name = TopicName::from(topic.as_str());
        own_topic(&mut self.session, OwnTopic::Notifications, &name)?;
        let name = self.router.reserve(name).map_err(|e| {
            Trouble::fail(code::ROUTE, e.to_string(), "give notification.sink.topic.name another value")
        })?;
        self.create_topics(&[(name.clone(), false)], Kind::Own).await?;
        if let Some((topic, _)) = self.topics.get(&name).copied() {
            self.session.tell_at(TopicPartition::new(topic, 0));
        }
        Ok(())
    }

    /// Below it no record lies above the checkpoint.
    fn safe(&self, tail: &Tail) -> Offset {
        let Some(checkpoint) = &self.history.checkpoint else { return tail.end };
        match Version::of(&tail.last) {
            Some((v, _)) if v.incarnation == checkpoint.incarnation && v.commit_seq > checkpoint.commit_seq => {
                checkpoint.ends.iter().find(|(at, _)| *at == tail.at).map_or(Offset::ZERO, |(_, end)| *end)
            }
            _ => tail.end,
        }
    }

    /// Names, and whether they are compacted.
    pub(super) async fn create_topics(&mut self, wanted: &[(TopicName, bool)], kind: Kind) -> Result<(), Trouble> {
        let config = &self.session.config;
        let owner = Owner::Capture(config.capture, config.epoch);
        let many = |name: &TopicName| config.creation.of(name.as_str()).partitions.filter(|n| n.get() > 1);
        if kind == Kind::Table
            && let Some((name, n)) = wanted.iter().find_map(|(name, _)| Some((name, many(name)?)))
        {
            let what = format!("topic {name}: {n} partitions, and a table's topic has one");
            return Err(Trouble::fail(code::TOPIC, what, "leave it out of that group of topic.creation.groups"));
        }
        let new = wanted
            .iter()
            .map(|(name, keyed)| {
                let setup = config.creation.of(name.as_str());
                let configs = setup.over(route::topic_configs(*keyed));
                let replication = setup.replication;
                let events = setup.partitions.filter(|_| kind == Kind::Events);
                let partitions = Some(events.map_or(config.partitions, |n| n.get()));
                NewTopic { name: name.clone(), partitions, replication, configs, owner }
            })
            .collect();
        crash_point!("capture.before_topic");
        let made = self.control.create_topics(&config.who, new).await.map_err(control_trouble)?;
        crash_point!("capture.after_topic");
        for ((name, _), made) in wanted.iter().zip(made) {
            let topic = made.map_err(|e| topic_trouble(name, e))?;
            for partition in 0..topic.partitions {
                let at = TopicPartition::new(topic.id, partition);
                let none = Tail { at, last: Position::NONE, end: Offset::ZERO };
                let tail = self.tails.get(&at).unwrap_or(&none);
                let safe = self.safe(tail);
                self.session.emitter.lane(at, tail.last.clone(), tail.end, safe);
            }
            self.topics.insert(name.clone(), (topic.id, topic.partitions));
        }
        Ok(())
    }

    /// On a first start: what makes it one that has begun, the CHECKPOINT last. Later: IDENTITY and CONFIG if they changed.
    async fn write_first(&mut self, identity_is_new: bool) -> Result<(), Trouble> {
        let config = self.session.config.clone();
        let newest = self.history.configs.iter().next_back();
        let same = newest.is_some_and(|(_, c)| c.source == config.canonical && c.emit_version == EMIT_VERSION);
        self.session.config_version = match newest {
            Some((version, _)) if same => *version,
            Some((version, _)) => version + 1,
            None => 1,
        };
        if self.fresh && config.snapshot.reads_first() && self.has_snapshot {
            self.plan_tables(FIRST_SNAPSHOT, |_| true);
        }
        if self.reads_again && self.has_snapshot {
            // They cannot be read in the order of a key: each again as a whole, as after a crash.
            let next = self.next_snapshot();
            let tables = config.snapshot_tables.clone();
            let is_read = |t: &TableSchema| tables.as_ref().is_none_or(|p| p.fits(&t.qualified()));
            self.plan_tables(next, |t| t.key.is_empty() && is_read(t));
            // All of them, those that came late among them.
            self.late.ordered.clear();
            self.late.others.clear();
            self.late.open.clear();
        }
        let others: BTreeSet<u32> =
            std::mem::take(&mut self.late.others).iter().filter_map(|t| self.number_of(t)).collect();
        if !others.is_empty() {
            self.plan_late(self.next_snapshot(), &others);
        }
        if identity_is_new {
            let record = IdentityRecord {
                incarnation: config.incarnation,
                system: self.opened.identity.system,
                tags: self.opened.identity.tags.clone(),
            };
            self.session.store([(StoredKey::Identity, Stored::Identity(record))]);
        }
        if !same {
            let record = StoredConfig {
                incarnation: config.incarnation,
                valid_from: self.resume.next(),
                emit_version: EMIT_VERSION,
                revision: config.revision.0,
                pipeline: config.pipeline.as_str().to_owned(),
                source: config.canonical.clone(),
                topics: self.topics.values().copied().collect(),
            };
            let key = StoredKey::Config { version: self.session.config_version };
            crash_point!("capture.before_config");
            self.session.store([(key, Stored::Config(record))]);
        }
        if self.fresh {
            self.session.flush_stored().await?;
            self.session.store_checkpoint();
        }
        self.session.flush_stored().await?;
        if !same {
            crash_point!("capture.after_config");
        }
        Ok(())
    }

    /// A number that no snapshot has.
    pub(super) fn next_snapshot(&self) -> u32 {
        self.history.chunks.keys().map(|(snapshot, ..)| snapshot + 1).max().unwrap_or(FIRST_SNAPSHOT + 1)
    }

    /// These tables are not complete.
    pub(super) fn plan_late(&mut self, snapshot: u32, numbers: &BTreeSet<u32>) {
        self.plan_tables(snapshot, |t| numbers.contains(&t.table_no));
    }

    /// One record per table: its snapshot is not complete.
    fn plan_tables(&mut self, snapshot: u32, takes: impl Fn(&TableSchema) -> bool) {
        let mut planned = Vec::new();
        for numbered in self.numbered.values().filter(|n| takes(&n.table)) {
            let key = StoredKey::Chunk { snapshot, table: numbered.table.table_no, unit: WHOLE_TABLE };
            let record = whole_table(&self.session.config, ChunkPhase::Planned, numbered.table.schema_no, CommitSeq(0));
            self.history.chunks.insert((snapshot, numbered.table.table_no, WHOLE_TABLE), record.clone());
            planned.push((key, Stored::Chunk(record)));
        }
        self.session.store(planned);
    }
}

pub(super) fn whole_table(config: &Config, phase: ChunkPhase, schema_no: u32, at: CommitSeq) -> ChunkRecord {
    ChunkRecord {
        phase,
        method: 0,
        flags: 0,
        incarnation: config.incarnation,
        commit_seq: at,
        schema_no,
        rows: 0,
        lower: Vec::new(),
        upper: Vec::new(),
        view: bytes::Bytes::new(),
        filter: String::new(),
    }
}

pub(super) fn log_trouble(e: LogError) -> Trouble {
    match e {
        LogError::Fenced { by } => Trouble::End(End::Fenced { by }),
        LogError::Denied | LogError::Unsupported => Trouble::fail(code::LOG, e.to_string(), ""),
        other => Trouble::retry(code::LOG, other.to_string()),
    }
}

pub(super) fn control_trouble(e: ControlError) -> Trouble {
    match e {
        ControlError::Fenced { by } => Trouble::End(End::Fenced { by }),
        ControlError::NotReady(_) | ControlError::Unknown => Trouble::retry(code::LOG, e.to_string()),
        other => Trouble::fail(code::TOPIC, other.to_string(), ""),
    }
}

fn topic_trouble(name: &TopicName, e: ControlError) -> Trouble {
    match e {
        ControlError::Owned(_) => Trouble::fail(
            code::TOPIC,
            format!("topic {name} belongs to somebody else, or has records of nobody"),
            "choose another topic prefix, or delete the topic",
        ),
        ControlError::Fenced { .. } | ControlError::NotReady(_) | ControlError::Unknown => control_trouble(e),
        other => Trouble::fail(code::TOPIC, format!("topic {name}: {other}"), "rename the table, or delete that topic"),
    }
}
