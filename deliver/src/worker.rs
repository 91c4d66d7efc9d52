//! The one loop of a sink: fetch, decode, regroup, batch, write, commit.
//!
//! Walk: row-change 14/17
//!
//! `Worker::run` lives as long as its task's lease. A *session* begins with `Sink::open`, which says what the target
//! holds, and reads the log from there; any failure ends the session, and the next one believes the target again. So
//! there is one way back, and it is the one a restart takes. A session keeps one fetch in flight while the sink works.
//!
//! Invariants: no row is given to the sink before a cut proves that no smaller one can come; the mark of a commit covers
//! exactly what was written before it; DDL runs only while no sink transaction is open; memory is bounded by
//! `credit_bytes` (plus one batch of the log, which comes whatever its size).
//!
//! Crash points: `deliver.{before,after}_{fetch,group,mirror}`, `sink.{before,after}_{claim,ddl}`.

mod book;
mod flight;

use crate::batch::{Batch, BatchLimits, Taken, Verdict, applies_of};
use crate::commit::{Commit, mirror_group};
use crate::error::{Failure, code};
use crate::evolve::{self, OnSchemaChange};
use crate::plan::{self, Claimed, SchemaNaming, TableFilter};
use crate::regroup::{OrderError, Regroup, Run, Step};
use crate::retry::{Failed, Next, Ordered, Retry};
use crate::sink::{
    Ack, Claim, DdlStep, Lane, Mark, Sink, SinkClass, SinkError, TargetName, TargetPlan, TargetTable, What,
};
use crate::status::{State, StatusHandle};
use crate::wire::{Wire, WireError, records};
use book::Book;
use bytes::Bytes;
use catchwater_base::{Clock, Mono, Wall, crash_point};
use catchwater_change::stamp::flag;
use catchwater_change::{Cut, Native, Op, TableSchema};
use catchwater_client::{
    At, ControlClient, ControlError, Fetch, FetchPart, Isolation, LogClient, LogError, PartitionError, TopicsWanted,
};
use catchwater_record::{
    CaptureId, CommitSeq, Incarnation, Offset, PipelineName, SinkName, SourceName, TaskEpoch, TopicName,
    TopicPartition, murmur2,
};
use catchwater_runtime::shutdown::Stopped;
use catchwater_runtime::time::timeout;
use flight::{Cargo, Content, Decoding, Flight, Held, Landed};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

const CAPTURES_TOPIC: &str = "__catchwater_captures";
const CUTS_TOPIC: &str = "__catchwater_cuts";
/// Room asked for a partition that holds up the merge: above the largest batch a topic may hold.
const LACKING_BYTES: usize = 25 << 20;
const INTERNAL_BYTES: u32 = 1 << 20;
const FETCH_WAIT_MS: u32 = 500;
/// Rows between two looks at the other futures.
const ROWS_PER_BREATH: usize = 256;
/// Tables described in one call of the sink.
const TABLES_PER_CALL: usize = 256;
/// Wait after a fetch that failed in a way that passes.
const PAUSE_MS: u64 = 50;
/// How long an `abort` or `shutdown` may take.
const END_LIMIT: Duration = Duration::from_secs(5);
const REOPEN_MAX: u32 = u16::MAX as u32;

/// What the worker works with.
pub struct Deps {
    pub log: Arc<dyn LogClient>,
    pub control: Arc<dyn ControlClient>,
    pub clock: Arc<dyn Clock>,
    pub sink: Box<dyn Sink>,
    pub wire: Arc<dyn Wire>,
}

/// What it works on.
#[derive(Clone, Debug)]
pub struct Config {
    pub pipeline: PipelineName,
    pub sink: SinkName,
    pub source: SourceName,
    pub capture: CaptureId,
    pub incarnation: Incarnation,
    /// Id of this cluster: a target claimed by another one is refused.
    pub cluster: [u8; 16],
    pub epoch: TaskEpoch,
    pub tables: TableFilter,
    pub naming: SchemaNaming,
    /// Source table (`schema.table`) → name of the target table; others keep theirs.
    pub renames: BTreeMap<String, String>,
    pub on_schema_change: OnSchemaChange,
    pub batch: BatchLimits,
    /// Bytes of rows held between fetch and commit.
    pub credit_bytes: usize,
    /// For jitter.
    pub seed: u64,
}

impl Config {
    /// Defaults of deliver.md 11 for everything but the names.
    pub fn new(pipeline: PipelineName, sink: SinkName, source: SourceName, capture: CaptureId) -> Self {
        Config {
            pipeline,
            sink,
            source,
            capture,
            incarnation: Incarnation(0),
            cluster: [0; 16],
            epoch: TaskEpoch(1),
            tables: TableFilter::All,
            naming: SchemaNaming::Keep,
            renames: BTreeMap::new(),
            on_schema_change: OnSchemaChange::Additive,
            batch: BatchLimits::default(),
            credit_bytes: 64 << 20,
            seed: 0,
        }
    }
}

/// How a worker ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// It was asked to.
    Stopped,
    /// A newer owner holds the target.
    Fenced,
    /// A person must act; the status says the same.
    Failed(Failure),
    /// The lease's fences are used up (65,535 opens): run again under a new task epoch.
    NewEpoch,
}

/// One sink's worker.
pub struct Worker {
    deps: Deps,
    config: Config,
    status: StatusHandle,
    stop: Stopped,
    retry: Retry,
    reopen: u32,
    book: Book,
    plans: BTreeMap<u32, Arc<TargetPlan>>,
    claimed: Claimed,
    /// Schemas to prepare before rows flow again.
    prepare_first: Vec<u32>,
    /// Groups up to this transaction go in source order.
    source_order: Option<CommitSeq>,
}

/// Why a session ended.
enum Trouble {
    Stopped,
    Sink(SinkError, Option<(CommitSeq, Ordered)>),
    Log(LogError),
    Control(ControlError),
    /// Nothing is wrong: the capture has not begun yet.
    NotReady,
    /// A schema turned up inside an open sink transaction.
    Prepare(u32),
    Fatal(Failure),
}

impl From<LogError> for Trouble {
    fn from(e: LogError) -> Self {
        Trouble::Log(e)
    }
}
impl From<ControlError> for Trouble {
    fn from(e: ControlError) -> Self {
        Trouble::Control(e)
    }
}
impl From<WireError> for Trouble {
    fn from(e: WireError) -> Self {
        Trouble::Fatal(e.into())
    }
}

fn sink_trouble(e: SinkError) -> Trouble {
    Trouble::Sink(e, None)
}

/// The internal partitions that speak of our source.
#[derive(Clone, Copy)]
struct Internal {
    captures: TopicPartition,
    cuts: TopicPartition,
}

/// State of one session.
struct Session<'a> {
    internal: Internal,
    regroup: Regroup<Held>,
    batch: Batch,
    commit: Commit,
    lane: Box<dyn Lane>,
    /// The lane holds rows that are not committed.
    lane_open: bool,
    /// `Folded` if one of its writes was.
    ordered: Ordered,
    flight: Flight<'a>,
    /// Ends of the partitions as the newest fetch showed them.
    ends: BTreeMap<TopicPartition, Offset>,
    described: BTreeMap<TargetName, TargetTable>,
    /// The boundary reached: every transaction ≤ it was given out.
    at: Place,
    /// Rows since the last commit, per schema, for the status.
    counted: BTreeMap<u32, u64>,
    folded: u64,
    pending_cuts: VecDeque<(Offset, Cut)>,
    paused_until: Mono,
}

#[derive(Clone)]
struct Place {
    seq: CommitSeq,
    native: Native,
    commit_time: Wall,
}

impl Worker {
    /// Runs until `stop`, a newer owner, or a failure only a person can cure.
    pub async fn run(deps: Deps, config: Config, status: StatusHandle, stop: Stopped) -> End {
        let retry = Retry::new(config.seed);
        let mut worker = Worker {
            deps,
            config,
            status,
            stop,
            retry,
            reopen: 0,
            book: Book::default(),
            plans: BTreeMap::new(),
            claimed: Claimed::default(),
            prepare_first: Vec::new(),
            source_order: None,
        };
        let end = worker.sessions().await;
        let _ = timeout(END_LIMIT, worker.deps.sink.shutdown()).await;
        worker.status.update(|s| match &end {
            End::Stopped | End::Fenced | End::NewEpoch => s.state = State::Stopped,
            End::Failed(f) => {
                s.state = State::NeedsPerson;
                s.last_error = Some(f.clone());
            }
        });
        end
    }

    async fn sessions(&mut self) -> End {
        let log = self.deps.log.clone();
        loop {
            if self.stop.is_stopped() {
                return End::Stopped;
            }
            let trouble = match self.begin(&log).await {
                Ok(mut session) => {
                    let trouble = match self.work(&log, &mut session).await {
                        Ok(()) => Trouble::Stopped,
                        Err(t) => t,
                    };
                    session.flight.going = None;
                    let _ = timeout(END_LIMIT, session.lane.abort()).await;
                    trouble
                }
                Err(t) => t,
            };
            let (failure, after_ms) = match trouble {
                Trouble::Stopped => return End::Stopped,
                Trouble::Fatal(failure) => return End::Failed(failure),
                Trouble::Prepare(no) => {
                    self.prepare_first.push(no);
                    continue;
                }
                Trouble::Sink(error, group) => match self.retry.decide(Failed { class: error.class, group }) {
                    Next::OpenAgain { after_ms } => (error.into(), after_ms),
                    Next::DescribeAgain { after_ms } => {
                        self.plans.clear();
                        (error.into(), after_ms)
                    }
                    Next::SourceOrder { upto } => {
                        self.source_order = Some(upto);
                        continue;
                    }
                    Next::Stop => return End::Failed(error.into()),
                    Next::EndQuietly => return End::Fenced,
                },
                Trouble::Log(LogError::Denied | LogError::Unsupported) => {
                    return End::Failed(denied("this node may not read the log"));
                }
                Trouble::Control(ControlError::Denied | ControlError::Unsupported) => {
                    return End::Failed(denied("this node may not describe topics"));
                }
                Trouble::Log(e) => (denied(&e.to_string()), self.retry.wait()),
                Trouble::Control(e) => (denied(&e.to_string()), self.retry.wait()),
                Trouble::NotReady => {
                    // Nothing is wrong: the capture has not begun yet.
                    self.pause(PAUSE_MS).await;
                    continue;
                }
            };
            if self.reopen >= REOPEN_MAX {
                return End::NewEpoch;
            }
            self.status.update(|s| {
                s.state = State::Retrying;
                s.last_error = Some(failure);
            });
            self.pause(after_ms).await;
        }
    }

    /// Waits, but not past a stop.
    async fn pause(&mut self, ms: u64) {
        if ms > 0 {
            let _ = timeout(Duration::from_millis(ms), self.stop.wait()).await;
        }
    }

    /// Opens the sink and stands where it says.
    async fn begin<'a>(&mut self, log: &'a Arc<dyn LogClient>) -> Result<Session<'a>, Trouble> {
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
        if let Some(mark) = &found
            && mark.incarnation != self.config.incarnation
        {
            return Err(Trouble::Fatal(Failure::new(
                code::OTHER_INCARNATION,
                format!(
                    "the sink holds incarnation {} of the source, which is at {}",
                    mark.incarnation, self.config.incarnation
                ),
                "the source was dropped and made anew: rebuild the sink under a new name",
            )));
        }

        let known: BTreeMap<TopicPartition, Offset> =
            found.as_ref().map(|m| m.offsets.iter().copied().collect()).unwrap_or_default();
        let cuts_from = known.get(&internal.cuts).copied();
        let lane = self.deps.sink.lane().await.map_err(sink_trouble)?;
        let mut session = Session {
            internal,
            regroup: Regroup::new(
                self.config.incarnation,
                found.as_ref().map(|m| m.seq),
                cuts_from.unwrap_or_default(),
                true,
            ),
            batch: Batch::new(self.config.batch),
            commit: Commit::open(self.now().mono, found.clone()),
            lane,
            lane_open: false,
            ordered: Ordered::AsTheSource,
            flight: Flight::default(),
            ends: BTreeMap::new(),
            described: BTreeMap::new(),
            at: Place {
                seq: found.as_ref().map(|m| m.seq).unwrap_or_default(),
                native: found.as_ref().map(|m| m.native.clone()).unwrap_or_default(),
                commit_time: found.as_ref().map(|m| m.commit_time).unwrap_or_default(),
            },
            counted: BTreeMap::new(),
            folded: 0,
            pending_cuts: VecDeque::new(),
            paused_until: Mono::ZERO,
        };
        self.check_bounds(log, &mut session, &known).await?;
        self.subscribe(&mut session, &known).await?;
        for no in std::mem::take(&mut self.prepare_first) {
            self.prepare(&mut session, no).await?;
        }
        self.prepare_tables(&mut session).await?;
        self.status.update(|s| {
            s.state = State::Running;
            s.seq = session.at.seq;
            s.position = session.at.native.clone();
            s.commit_time = session.at.commit_time;
        });
        Ok(session)
    }

    async fn find_internal(&mut self) -> Result<Internal, Trouble> {
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
    async fn read_book(&mut self, internal: Internal) -> Result<(), Trouble> {
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

    fn read_captures(&mut self, at: TopicPartition, bytes: &Bytes) -> Result<(), Trouble> {
        Ok(self.book.read(&*self.deps.wire, self.config.capture, &self.config.tables, at, bytes)?)
    }

    /// Is what the sink holds still in the log, and the log not younger than the sink?
    async fn check_bounds(
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
            if offset.is_some_and(|o| o > b.high_watermark) {
                return Err(Trouble::Fatal(ahead(*at, "the log is shorter")));
            }
        }
        Ok(())
    }

    /// Subscribes all partitions of the tables we take. Also when new ones have turned up.
    async fn subscribe(
        &mut self,
        session: &mut Session<'_>,
        known: &BTreeMap<TopicPartition, Offset>,
    ) -> Result<(), Trouble> {
        let topics = self.deps.control.describe_topics(TopicsWanted::OwnedBy(self.config.capture)).await?;
        let mut fresh = Vec::new();
        for topic in topics {
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
        let all_new = session.commit.durable().is_none();
        for (at, b) in fresh.iter().zip(bounds) {
            if b.log_start > Offset::ZERO {
                return Err(Trouble::Fatal(rebuild(*at)));
            }
            session.regroup.subscribe(*at, Offset::ZERO, all_new);
        }
        Ok(())
    }

    /// Makes the targets of all tables ready, whether they have rows or not: a copy has every captured table. What only
    /// a person can cure (a type, a key, a shared target) waits for the first row: rows of an older shape still pass.
    async fn prepare_tables(&mut self, session: &mut Session<'_>) -> Result<(), Trouble> {
        self.book.grown = false;
        let mut due: Vec<(Arc<TableSchema>, TargetName)> = Vec::new();
        for schema in self.book.newest() {
            // A topic that is gone has no table any more.
            let alive = session.regroup.is_subscribed(TopicPartition::new(schema.topic, 0));
            let name = self.config.naming.target(&schema, &self.config.renames);
            let ready = self.plans.contains_key(&schema.schema_no);
            if alive && !ready && self.claimed.claim_unused(&name, &schema) {
                due.push((schema, name));
            }
        }
        for some in due.chunks(TABLES_PER_CALL) {
            let names: Vec<TargetName> = some.iter().map(|(_, name)| name.clone()).collect();
            self.describe(session, &names).await?;
            for (schema, name) in some {
                match self.make_ready(session, schema, name).await {
                    Ok(()) => {}
                    Err(Trouble::Fatal(_)) => continue,
                    Err(other) => return Err(other),
                }
                if self.stop.is_stopped() {
                    return Err(Trouble::Stopped);
                }
            }
        }
        Ok(())
    }

    /// Makes the target table of a schema whose rows come ready, and its plan. No sink transaction is open.
    async fn prepare(&mut self, session: &mut Session<'_>, no: u32) -> Result<(), Trouble> {
        let Some(schema) = self.book.schemas.get(&no).cloned() else { return Ok(()) };
        let name = self.config.naming.target(&schema, &self.config.renames);
        self.claimed.claim(&name, &schema).map_err(|e| Trouble::Fatal(e.into()))?;
        if !session.described.contains_key(&name) {
            self.describe(session, std::slice::from_ref(&name)).await?;
        }
        self.make_ready(session, &schema, &name).await
    }

    /// DDL, if the target as it was described needs any, and the plan. `Fatal` before the first step changes nothing.
    async fn make_ready(
        &mut self,
        session: &mut Session<'_>,
        schema: &Arc<TableSchema>,
        name: &TargetName,
    ) -> Result<(), Trouble> {
        debug_assert!(!session.lane_open, "DDL inside an open sink transaction");
        let fatal = |e: Failure| Trouble::Fatal(e);
        let steps: Vec<DdlStep> =
            evolve::steps(schema, name, session.described.get(name), self.config.on_schema_change)
                .map_err(|e| fatal(e.into()))?;
        if !steps.is_empty() {
            for step in &steps {
                crash_point!("sink.before_ddl");
                let work = self.deps.sink.apply_ddl(step);
                session.flight.beside(work).await.map_err(sink_trouble)?;
                crash_point!("sink.after_ddl");
            }
            self.describe(session, std::slice::from_ref(name)).await?;
        }
        let Some(target) = session.described.get(name) else {
            return Err(Trouble::Sink(
                SinkError::new(SinkClass::Schema, code::COLUMN, format!("{} is missing", plan::shown(name)), ""),
                None,
            ));
        };
        let plan = plan::plan(schema, target).map_err(|e| fatal(e.into()))?;
        self.plans.insert(schema.schema_no, Arc::new(plan));
        Ok(())
    }

    async fn describe(&mut self, session: &mut Session<'_>, names: &[TargetName]) -> Result<(), Trouble> {
        let work = self.deps.sink.describe(names);
        let found = session.flight.beside(work).await.map_err(sink_trouble)?;
        for (name, table) in names.iter().zip(found) {
            match table {
                Some(table) => session.described.insert(name.clone(), table),
                None => session.described.remove(name),
            };
        }
        Ok(())
    }

    /// The loop.
    async fn work<'a>(&mut self, log: &'a Arc<dyn LogClient>, session: &mut Session<'a>) -> Result<(), Trouble> {
        loop {
            if self.stop.is_stopped() {
                return Ok(());
            }
            if let Some(landed) = session.flight.landed.take() {
                crash_point!("deliver.after_fetch");
                self.handle_fetched(session, landed).await?;
            }
            if self.book.grown && !session.lane_open {
                self.subscribe(session, &BTreeMap::new()).await?;
                self.prepare_tables(session).await?;
            }
            let now = self.now().mono;
            if session.flight.going.is_none() && now >= session.paused_until {
                crash_point!("deliver.before_fetch");
                let want = self.want(session);
                let decoding = Decoding {
                    wire: self.deps.wire.clone(),
                    schemas: self.book.schemas.clone(),
                    capture: self.config.capture,
                    internal: [session.internal.cuts, session.internal.captures],
                };
                session.flight.start(log, want, decoding);
            }
            self.drain(session).await?;
            self.mirror(session).await;
            let now = self.now().mono;
            let behind = session.is_behind();
            match session.batch.verdict(now, true, behind) {
                Verdict::Close => {
                    self.flush(session).await?;
                    continue;
                }
                Verdict::Part => {
                    self.write(session).await?;
                    continue;
                }
                Verdict::More => {}
            }
            if session.batch.is_empty() && !session.lane_open && !session.regroup.is_inside() {
                self.idle(session, behind).await?;
            }
            self.wait(session).await;
        }
    }

    /// Gives out what can be given out; writes and commits full groups on the way.
    async fn drain(&mut self, session: &mut Session<'_>) -> Result<(), Trouble> {
        let mut rows = 0;
        loop {
            match session.regroup.poll() {
                Step::Row(at, run) => {
                    self.take(session, at, run).await?;
                    rows += 1;
                    if rows % ROWS_PER_BREATH == 0 {
                        session.flight.breathe().await;
                        if self.stop.is_stopped() {
                            return Ok(());
                        }
                    }
                }
                Step::TxnEnd(seq) => session.batch.end_txn(seq),
                Step::CutEnd(cut) => {
                    session.at = Place { seq: cut.seq, native: cut.native, commit_time: cut.commit_time };
                    if session.batch.is_empty() && !session.lane_open {
                        let mark = self.mark(session);
                        session.commit.handle_reached(mark);
                    }
                }
                Step::Wait => return Ok(()),
            }
            match session.batch.verdict(Mono::ZERO, false, true) {
                Verdict::More => {}
                Verdict::Part => self.write(session).await?,
                Verdict::Close => self.flush(session).await?,
            }
        }
    }

    async fn take(&mut self, session: &mut Session<'_>, at: TopicPartition, run: Run<Held>) -> Result<(), Trouble> {
        let Held { stamp, content } = run.row;
        let no = stamp.schema_no;
        if !self.book.schemas.contains_key(&no) {
            // Committed before the row, so it is there by now.
            self.read_book(session.internal).await?;
        }
        let Some(schema) = self.book.schemas.get(&no).cloned() else {
            return Err(WireError::NoSchema { at, offset: run.offset, no }.into());
        };
        if !self.plans.contains_key(&no) {
            if session.lane_open {
                return Err(Trouble::Prepare(no));
            }
            self.prepare(session, no).await?;
        }
        let Some(plan) = self.plans.get(&no).cloned() else {
            return Err(WireError::NoSchema { at, offset: run.offset, no }.into());
        };
        let change = match content {
            Content::Row(row) => *row,
            Content::Raw(record) => self.deps.wire.row(&record, &stamp, &schema).map_err(|why| WireError::Record {
                at,
                offset: run.offset,
                why,
            })?,
        };
        let comes = stamp.flags & flag::ROW_COMES != 0;
        let mut applies = Vec::new();
        // Of a table without a key that begins again, nothing here counts: the truncate and the rows to come say it all.
        if !comes || !schema.key.is_empty() || change.op == Op::Truncate {
            applies = applies_of(change, &plan, stamp.version).map_err(|e| Trouble::Fatal(e.into()))?;
        }
        if comes {
            // The row is not in the target; the chunk that brings it brings this change, too.
            applies.retain(|a| !matches!(a.what, What::Update(_)));
        }
        let seq = stamp.version.commit_seq;
        session.at = Place { seq, native: stamp.native, commit_time: stamp.commit_time };
        *session.counted.entry(no).or_default() += 1;
        session.batch.push(self.now().mono, seq, run.bytes, applies);
        Ok(())
    }

    /// Writes what the batch holds into the open sink transaction.
    async fn write(&mut self, session: &mut Session<'_>) -> Result<(), Trouble> {
        let in_order = self.source_order.is_some_and(|upto| session.batch.first_seq() <= upto);
        let Taken { group, folded, .. } = session.batch.take(in_order);
        session.folded += folded as u64;
        if group.applies.is_empty() {
            return Ok(());
        }
        if !group.source_order {
            session.ordered = Ordered::Folded;
        }
        crash_point!("deliver.before_group");
        session.lane_open = true;
        let work = session.lane.write(&group);
        let done = session.flight.beside(work).await;
        done.map_err(|e| Trouble::Sink(e, Some((group.last_seq, session.ordered))))
    }

    /// Writes the rest and commits: rows, position and fence become visible as one.
    async fn flush(&mut self, session: &mut Session<'_>) -> Result<(), Trouble> {
        self.write(session).await?;
        let mark = self.mark(session);
        self.commit(session, mark).await?;
        crash_point!("deliver.after_group");
        Ok(())
    }

    async fn commit(&mut self, session: &mut Session<'_>, mark: Mark) -> Result<(), Trouble> {
        let last = mark.seq;
        let work = session.lane.commit(&mark);
        let done = session.flight.beside(work).await;
        let ack = done.map_err(|e| Trouble::Sink(e, Some((last, session.ordered))))?;
        session.lane_open = false;
        session.ordered = Ordered::AsTheSource;
        if self.source_order.is_some_and(|upto| last >= upto) {
            self.source_order = None;
        }
        self.retry.progress();
        let now = self.now();
        if ack == Ack::Durable {
            session.commit.handle_durable(now.mono, mark.clone());
        }
        let counted: Vec<(String, u64)> = std::mem::take(&mut session.counted)
            .into_iter()
            .filter_map(|(no, n)| Some((plan::shown(&self.plans.get(&no)?.target), n)))
            .collect();
        let folded = std::mem::take(&mut session.folded);
        let bytes = session.regroup.bytes();
        let age_ms = age_ms(now.wall, mark.commit_time);
        self.status.update(|s| {
            s.state = State::Running;
            s.last_error = None;
            s.seq = mark.seq;
            s.position = mark.native;
            s.commit_time = mark.commit_time;
            s.bytes = bytes;
            if counted.is_empty() {
                // The position alone, of a quiet source: no delivery took that long.
                return;
            }
            s.rows += counted.iter().map(|(_, n)| n).sum::<u64>();
            s.folded += folded;
            s.groups += 1;
            for (table, n) in counted {
                *s.tables.entry(table).or_default() += n;
            }
            s.lag_ms = age_ms;
            s.latency_ms = age_ms;
        });
        Ok(())
    }

    fn mark(&self, session: &Session<'_>) -> Mark {
        Mark {
            incarnation: self.config.incarnation,
            seq: session.at.seq,
            offsets: session.regroup.offsets(session.internal.cuts),
            native: session.at.native.clone(),
            commit_time: session.at.commit_time,
        }
    }

    /// Nothing to apply: the mirror, and now and then the position alone.
    async fn idle(&mut self, session: &mut Session<'_>, behind: bool) -> Result<(), Trouble> {
        let now = self.now().mono;
        if let Some(mark) = session.commit.poll_idle(now) {
            self.commit(session, mark).await?;
        }
        if !behind && !session.regroup.has_backlog() {
            let (seq, native) = (session.at.seq, session.at.native.clone());
            self.status.update(|s| {
                s.lag_ms = 0;
                s.seq = seq;
                s.position = native;
                s.bytes = 0;
                // A cut was reached without trouble.
                s.last_error = None;
                s.state = State::Running;
            });
        }
        Ok(())
    }

    /// The group offsets for lag tools, at most once a second.
    async fn mirror(&mut self, session: &mut Session<'_>) {
        let hidden = [session.internal.cuts, session.internal.captures];
        let Some(offsets) = session.commit.poll_mirror(self.now().mono, &hidden) else { return };
        crash_point!("deliver.before_mirror");
        let group = mirror_group(&self.config.pipeline, &self.config.sink);
        let work = self.deps.log.commit(group, offsets);
        // A failure costs those tools a second, nothing else.
        let _ = session.flight.beside(work).await;
        crash_point!("deliver.after_mirror");
    }

    /// Until the fetch lands, a deadline passes, or stop.
    async fn wait(&mut self, session: &mut Session<'_>) {
        let now = self.now().mono;
        let mut until = session.commit.deadline().min(now.plus_millis(1000));
        if let Some(d) = session.batch.deadline() {
            until = until.min(d);
        }
        if session.flight.going.is_none() && session.flight.landed.is_none() {
            until = until.min(session.paused_until);
        }
        // At least a millisecond, so that a deadline in the past cannot spin.
        let limit = until.since(now).max(Duration::from_millis(1));
        let mut stop = pin!(self.stop.wait());
        let flight = &mut session.flight;
        let woken = poll_fn(|cx| {
            flight.poll(cx);
            if flight.landed.is_some() || stop.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            Poll::Pending
        });
        let _ = timeout(limit, woken).await;
    }

    fn want(&self, session: &Session<'_>) -> Fetch {
        let held = session.regroup.bytes() + session.batch.bytes();
        let share = (self.config.credit_bytes / (session.regroup.parts() + 1)).max(1);
        let room = self.config.credit_bytes.saturating_sub(held);
        let wire = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let mut parts = Vec::new();
        let mut lacking = Vec::new();
        for (at, offset, space) in session.regroup.wanted(share) {
            if session.regroup.is_lacking(at) {
                lacking.push(FetchPart { at, offset, max_bytes: wire(LACKING_BYTES) });
            } else if room > 0 {
                parts.push(FetchPart { at, offset, max_bytes: wire(space) });
            }
        }
        // First those that hold up the merge, then the small internal ones: a first batch comes whatever its size.
        let mut all = lacking;
        for (at, offset) in
            [(session.internal.cuts, session.regroup.cuts_next()), (session.internal.captures, self.book.next)]
        {
            all.push(FetchPart { at, offset, max_bytes: INTERNAL_BYTES });
        }
        all.append(&mut parts);
        Fetch {
            parts: all,
            isolation: Isolation::Committed,
            min_bytes: 1,
            max_wait_ms: FETCH_WAIT_MS,
            credit_bytes: wire(room.max(LACKING_BYTES)),
        }
    }

    async fn handle_fetched(
        &mut self,
        session: &mut Session<'_>,
        landed: Result<Vec<Landed>, LogError>,
    ) -> Result<(), Trouble> {
        let fetched = match landed {
            Ok(f) => f,
            Err(e @ (LogError::Denied | LogError::Unsupported | LogError::NoTopic(_))) => return Err(Trouble::Log(e)),
            Err(e) => {
                let wait = self.retry.wait();
                session.paused_until = self.now().mono.plus_millis(wait);
                self.status.update(|s| {
                    s.state = State::Retrying;
                    s.last_error = Some(denied(&e.to_string()));
                });
                return Ok(());
            }
        };
        let (captures, cuts) = (session.internal.captures, session.internal.cuts);
        // TABLE records first: rows and cuts of the same fetch may need them.
        for f in fetched.iter().filter(|f| f.at == captures) {
            if let Ok(Cargo::Stored(bytes)) = &f.what {
                self.read_captures(f.at, bytes)?;
            }
        }
        for f in fetched {
            let at = f.at;
            if at == captures {
                continue;
            }
            let cargo = match f.what {
                Ok(cargo) => cargo,
                Err(PartitionError::OutOfRange) if at == cuts => {
                    session.regroup.cuts_lost(f.bounds.log_start);
                    continue;
                }
                Err(PartitionError::OutOfRange) => {
                    let lost = session.regroup.next(at).is_some_and(|n| n < f.bounds.log_start);
                    return Err(Trouble::Fatal(if lost { rebuild(at) } else { ahead(at, "the log is shorter") }));
                }
                Err(PartitionError::Denied) => return Err(Trouble::Log(LogError::Denied)),
                Err(PartitionError::NoTopic) => return Err(Trouble::Log(LogError::NoTopic(at))),
                Err(PartitionError::NotLeader | PartitionError::Storage(_) | PartitionError::Bug(_)) => {
                    session.paused_until = self.now().mono.plus_millis(PAUSE_MS);
                    continue;
                }
            };
            match cargo {
                Cargo::Unreadable(e) => return Err(e.into()),
                Cargo::Stored(bytes) => self.read_cuts(session, &bytes).await?,
                Cargo::Rows { runs, next, foreign } => {
                    session.regroup.add_rows(at, runs, next).map_err(|e| self.disorder(&e))?;
                    session.ends.insert(at, f.bounds.lso);
                    if foreign > 0 {
                        self.status.update(|s| s.foreign += foreign);
                    }
                }
            }
        }
        Ok(())
    }

    async fn read_cuts(&mut self, session: &mut Session<'_>, bytes: &Bytes) -> Result<(), Trouble> {
        let at = session.internal.cuts;
        let (found, next) = records(at, session.regroup.cuts_next(), bytes)?;
        for record in found {
            let (Some(key), Some(value)) = (&record.key, &record.value) else { continue };
            let (capture, cut) =
                self.deps.wire.cut(key, value).map_err(|why| WireError::Record { at, offset: record.offset, why })?;
            if capture == self.config.capture {
                session.pending_cuts.push_back((record.offset, cut));
            }
        }
        self.enter_cuts(session).await?;
        session.regroup.cuts_read(next);
        Ok(())
    }

    fn disorder(&self, e: &OrderError) -> Trouble {
        Trouble::Fatal(Failure::order(e, |at| match self.book.schemas.values().rev().find(|s| s.topic == at.topic) {
            Some(schema) => format!("table {}", schema.qualified()),
            None => at.to_string(),
        }))
    }

    /// Cuts enter once the partitions they name are known.
    async fn enter_cuts(&mut self, session: &mut Session<'_>) -> Result<(), Trouble> {
        while let Some((offset, cut)) = session.pending_cuts.pop_front() {
            let unknown = cut.ends.iter().any(|(at, end)| {
                *end > Offset::ZERO && !session.regroup.is_subscribed(*at) && self.book.takes(at.topic) != Some(false)
            });
            if unknown {
                self.read_book(session.internal).await?;
                self.subscribe(session, &BTreeMap::new()).await?;
                self.book.grown = true;
            }
            session.regroup.add_cut(offset, &cut).map_err(|e| self.disorder(&e))?;
        }
        Ok(())
    }

    fn now(&self) -> catchwater_base::Now {
        self.deps.clock.now()
    }
}

impl Session<'_> {
    /// The log has rows that are not fetched yet.
    fn is_behind(&self) -> bool {
        self.ends.iter().any(|(at, end)| self.regroup.next(*at).is_some_and(|n| n < *end))
    }
}

fn age_ms(now: Wall, then: Wall) -> u64 {
    u64::try_from(now.as_millis().saturating_sub(then.as_millis())).unwrap_or(0)
}

fn denied(what: &str) -> Failure {
    Failure::new(code::LOG_DENIED, what, "the log is not there for this sink yet; it is tried again")
}

fn ahead(at: TopicPartition, why: &str) -> Failure {
    Failure::new(
        code::SINK_AHEAD,
        format!("the sink is ahead of the log at {at}: {why}"),
        "the log was restored or replaced: use a new sink name, or restore the newer log",
    )
}

fn rebuild(at: TopicPartition) -> Failure {
    Failure::new(
        code::NEEDS_REBUILD,
        format!("the log of {at} no longer reaches back to where this sink stands"),
        "retention has removed rows the sink never saw: rebuild it under a new name from a fresh snapshot",
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
