//! The one loop of a sink: fetch, decode, regroup, batch, write, commit.
//!
//! Walk: row-change 14/17
//!
//! `Worker::run` lives as long as its task's lease. A *session* begins with `Sink::open`, which says what the target
//! holds, and reads the log from there; any failure ends the session, and the next one believes the target again. So
//! there is one way back, and it is the one a restart takes. A session keeps one fetch in flight while the sink works, and
//! whole groups that do not meet in lanes of their own (`lanes`); everything else has the target for itself.
//!
//! While the first snapshot of the capture is being written, no boundary is a state that the source had: all of it
//! becomes one sink transaction, written as it comes (docs/decisions/first-snapshot.md). So does what is read where
//! compaction has taken records, until what replaced them was given out (docs/decisions/compacted-topics.md).
//!
//! Invariants: no row is given to the sink before a cut proves that no smaller one can come; the mark of a commit covers
//! exactly what was written before it; DDL runs only while no sink transaction is open; memory is bounded by
//! its share of the process's credit (plus one batch of the log, which comes whatever its size), by what rows take once
//! they are decompressed.
//!
//! Crash points: `deliver.{before,after}_{fetch,group,turn,letters,mirror}`, `sink.{before,after}_{claim,ddl}`.

mod asked;
mod begin;
mod book;
mod flight;
mod group;
mod intake;
mod lanes;
mod letters;
mod ready;
mod rebuild;
mod replay;
mod shape;
mod thin;
mod together;

use crate::batch::{Batch, BatchLimits, Verdict};
use crate::busy::Busy;
use crate::columns::Columns;
use crate::commit::Commit;
use crate::credit::{Credit, Share};
use crate::error::{Failure, denied};
use crate::evolve::OnSchemaChange;
use crate::lag::Way;
use crate::mode::Mode;
use crate::park::{Breaker, KeyOf, OnRowError, Parked, Since};
use crate::plan::{ByTable, Claimed, SchemaNaming, TableFilter};
use crate::regroup::{Regroup, Step};
use crate::retry::{Failed, Next, Ordered, Retry};
use crate::sink::{Apply, Lane, Sink, SinkClass, SinkError, TargetName, TargetPlan, TargetTable, What, operation};
use crate::status::{State, StatusHandle};
use crate::wire::{Wire, WireError};
use book::Book;
use catchwater_base::{Clock, Mono, Wall, crash_point};
use catchwater_change::{Cut, Native, RowChange, TableSchema};
use catchwater_client::{ControlClient, ControlError, LogClient, LogError};
use catchwater_record::{
    Caller, CaptureId, CommitSeq, Incarnation, Offset, PipelineName, SinkName, SourceName, TaskEpoch, TopicId,
    TopicName, TopicPartition,
};
use catchwater_runtime::shutdown::Stopped;
use catchwater_runtime::sync::Receiver;
use catchwater_runtime::time::timeout;
use flight::{Decoding, Flight, Held};
use intake::Growth;
use letters::{Letter, LettersTo, Origins};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use thin::Thin;

pub use asked::{Answer, Ask, Refusal, Request, Which, asks};
pub use letters::{DeadLetters, HEADERS, KEYS_HEADER, LogRefused, SINK_HEADER, letters_topic};

/// Rows between two looks at the other futures.
const ROWS_PER_BREATH: usize = 256;
/// Wait after a fetch that failed in a way that passes.
const PAUSE_MS: u64 = 50;
/// How long the target may hold the open transaction of a first snapshot that does not come on: well below the time after
/// which servers end such sessions.
const HELD_IDLE_MS: u64 = 20_000;
/// How long an `abort` or `shutdown` may take.
const END_LIMIT: Duration = Duration::from_secs(5);
/// Lanes when nothing else is said.
pub const LANES: usize = 4;
const REOPEN_MAX: u32 = u16::MAX as u32;

/// What the worker works with.
pub struct Deps {
    pub log: Arc<dyn LogClient>,
    pub control: Arc<dyn ControlClient>,
    pub clock: Arc<dyn Clock>,
    pub sink: Box<dyn Sink>,
    pub wire: Arc<dyn Wire>,
    /// What people ask of it; nobody may ask.
    pub asks: Receiver<Request>,
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
    /// Names of those that are not in `renames`.
    pub names: Option<ByTable<Option<String>>>,
    /// Source table (`schema.table`) → which columns, under which names.
    pub columns: BTreeMap<String, Columns>,
    /// Of tables that are not in `columns`.
    pub other_columns: Columns,
    pub on_schema_change: OnSchemaChange,
    pub mode: Mode,
    /// Deletes of rows are done at the target; else the rows stay.
    pub deletes: bool,
    /// Truncates are done at the target.
    pub truncates: bool,
    pub on_row_error: OnRowError,
    pub dead_letters: DeadLetters,
    /// Who makes the topic of dead letters.
    pub who: Caller,
    pub batch: BatchLimits,
    /// Bytes of rows held between fetch and commit, at most; and what all sinks of the process have together.
    pub credit_bytes: usize,
    pub credit: Arc<Credit>,
    /// Transactions of the target that may be open at the same time, if it can do that; 1 = one after the other.
    pub lanes: usize,
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
            names: None,
            columns: BTreeMap::new(),
            other_columns: Columns::default(),
            on_schema_change: OnSchemaChange::Additive,
            mode: Mode::Upsert,
            deletes: true,
            truncates: true,
            on_row_error: OnRowError::Stop,
            dead_letters: DeadLetters::default(),
            who: Caller::anonymous("127.0.0.1"),
            batch: BatchLimits::default(),
            credit_bytes: 64 << 20,
            credit: Arc::default(),
            lanes: LANES,
            seed: 0,
        }
    }

    /// Where the rows of a table go.
    pub fn target(&self, table: &TableSchema) -> TargetName {
        let named = || self.names.as_ref().and_then(|names| (names.0)(table));
        let mut name = self.naming.target(table, self.renames.get(&table.qualified()).cloned().or_else(named));
        if self.columns(&table.qualified()).fold {
            name.schema.make_ascii_lowercase();
            name.name.make_ascii_lowercase();
        }
        name
    }

    /// Which columns of the table `schema.table`.
    pub fn columns(&self, table: &str) -> &Columns {
        self.columns.get(table).unwrap_or(&self.other_columns)
    }
}

impl Config {
    /// What one change does to the target. Empty = filtered: by the mode, or since deletes or truncates are not done.
    pub(crate) fn applies(
        &self,
        change: RowChange,
        plan: &Arc<TargetPlan>,
        at: crate::mode::At,
    ) -> Result<Vec<Apply>, crate::batch::ApplyError> {
        let mut applies = self.mode.applies(change, plan, at)?;
        applies.retain(|a| match a.what {
            What::Delete(_) | What::DeleteOne(_) | What::Retire(_) => self.deletes,
            What::Truncate | What::RetireAll(_) => self.truncates,
            _ => true,
        });
        Ok(applies)
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
    /// The first snapshot came too slowly for an open transaction: it is begun when the log holds all of it.
    patient: bool,
    /// Groups up to this transaction go in source order.
    source_order: Option<CommitSeq>,
    parked: Parked,
    /// Next offset of the parked keys' topic.
    parked_next: Offset,
    letters_to: Option<LettersTo>,
    breaker: Breaker,
    /// What the target and the configuration allow.
    lanes_max: usize,
    /// Groups that go one by one before lanes are used again, and how many after the next trouble.
    alone: u32,
    alone_next: u32,
    /// The parked keys were tried again.
    replayed: bool,
    /// To be done where the next session begins.
    asked: Option<Request>,
    /// The target is being filled anew, at least up to where it stood.
    rebuild: Option<CommitSeq>,
    topic_names: BTreeMap<TopicId, TopicName>,
    busy: Busy,
    /// How much it may hold now.
    share: Share,
    /// What rows take here, by what they take in the log.
    growth: Growth,
}

/// Why a session ended.
enum Trouble {
    Stopped,
    Sink(SinkError, Option<(CommitSeq, Ordered)>),
    Log(LogError),
    Control(ControlError),
    /// Nothing is wrong: the capture has not begun yet.
    NotReady,
    /// Nothing is wrong: the first snapshot does not come on, and the target should not hold a transaction for it.
    Stalled,
    /// A group in a lane was perhaps held up by later ones that wait for it: they are rolled back, and run again alone.
    HeldUp,
    /// Nothing is wrong: a person asks for something that is done between sessions.
    Asked,
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

impl Trouble {
    /// For the counts of what is tried again.
    fn class(&self) -> &'static str {
        match self {
            Trouble::Sink(e, _) => e.class.word(),
            Trouble::Log(_) | Trouble::Control(_) => "log",
            _ => "none",
        }
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
    /// When it was last given rows.
    wrote_at: Mono,
    /// The book was read since rows came: what a capture says before its first row is known.
    book_is_new: bool,
    /// `Folded` if one of its writes was.
    ordered: Ordered,
    flight: Flight<'a>,
    /// Ends of the partitions as the newest fetch showed them.
    ends: BTreeMap<TopicPartition, Offset>,
    /// A fetch of this session came back.
    has_looked: bool,
    /// Until then partitions with rows need no look, if all that is known to be there was read.
    look_at: Mono,
    /// What compaction has taken from the partitions.
    thin: Thin,
    described: BTreeMap<TargetName, TargetTable>,
    /// The boundary reached: every transaction ≤ it was given out.
    at: Place,
    /// Rows since the last commit, per schema and kind of operation, for the status.
    counted: BTreeMap<(u32, &'static str), u64>,
    folded: u64,
    taken: u64,
    filtered: u64,
    parked: u64,
    /// How far dead letters of tables without a key are settled, in their topic.
    settled: Option<(TopicId, Offset)>,
    /// Set aside, not in the log yet.
    letters: Vec<Letter>,
    parks: Vec<(KeyOf, Since)>,
    origins: Origins,
    /// Refused, but perhaps only for want of what comes later in the open transaction.
    waiting: Vec<together::Unit>,
    /// The newest row given out and not in a group that left, and the oldest.
    way: Option<Way>,
    first: Option<Way>,
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
        let share = config.credit.join();
        let breaker = match config.on_row_error {
            OnRowError::ParkKey { most, of } => Breaker::new(most, of),
            OnRowError::Stop => Breaker::new(0, 0),
        };
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
            patient: false,
            source_order: None,
            parked: Parked::default(),
            parked_next: Offset::ZERO,
            letters_to: None,
            breaker,
            lanes_max: 1,
            alone: 0,
            alone_next: Worker::ALONE_FIRST,
            replayed: false,
            asked: None,
            rebuild: None,
            topic_names: BTreeMap::new(),
            busy: Busy::default(),
            share,
            growth: Growth::default(),
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
            if self.reopen >= REOPEN_MAX {
                return End::NewEpoch;
            }
            let trouble = match self.begin(&log).await {
                Ok(mut session) => {
                    let trouble = match self.work(&log, &mut session).await {
                        Ok(()) => Trouble::Stopped,
                        Err(t) => t,
                    };
                    session.flight.going = None;
                    let _ = timeout(END_LIMIT, session.flight.lanes.abort()).await;
                    let _ = timeout(END_LIMIT, session.lane.abort()).await;
                    trouble
                }
                Err(t) => t,
            };
            let class = trouble.class();
            let (failure, after_ms) = match trouble {
                Trouble::Stopped => return End::Stopped,
                Trouble::Asked => continue,
                Trouble::Fatal(failure) if self.give_up_rebuild(&failure) => continue,
                Trouble::Fatal(failure) => return End::Failed(failure),
                Trouble::HeldUp => {
                    self.go_alone();
                    continue;
                }
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
                    Next::Stop if error.class == SinkClass::Row && self.may_guard(group) => {
                        self.source_order = group.map(|(upto, _)| upto);
                        continue;
                    }
                    Next::Stop if self.give_up_rebuild(&error.clone().into()) => continue,
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
                Trouble::Stalled => {
                    self.patient = true;
                    let wait = self.retry.wait();
                    self.pause(wait).await;
                    continue;
                }
                Trouble::NotReady => {
                    // Nothing is wrong: the capture has not begun yet.
                    self.pause(PAUSE_MS).await;
                    continue;
                }
            };
            self.status.update(|s| {
                s.state = State::Retrying;
                s.last_error = Some(failure);
                *s.retries.entry(class).or_default() += 1;
            });
            self.pause(after_ms).await;
        }
    }

    /// A group was refused in the source's order, and its refused rows may be set aside.
    fn may_guard(&self, group: Option<(CommitSeq, Ordered)>) -> bool {
        let guarded = |upto| self.source_order.is_some_and(|s| s >= upto);
        matches!(self.config.on_row_error, OnRowError::ParkKey { .. }) && group.is_some_and(|(upto, _)| !guarded(upto))
    }

    /// Waits, but not past a stop.
    async fn pause(&mut self, ms: u64) {
        if ms > 0 {
            let _ = timeout(Duration::from_millis(ms), self.stop.wait()).await;
        }
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
            self.reap(session)?;
            self.look_at_lanes(session)?;
            if self.is_asked() && !session.lane_open {
                return Err(self.leave_for_asked(session).await?);
            }
            if self.book.grown && !session.lane_open {
                self.settle(session).await?;
                self.subscribe(session, &BTreeMap::new()).await?;
                self.prepare_tables(session).await?;
            }
            let now = self.now().mono;
            if session.flight.going.is_none() && now >= session.paused_until {
                crash_point!("deliver.before_fetch");
                let (want, room) = self.want(session);
                let decoding = Decoding {
                    room,
                    wire: self.deps.wire.clone(),
                    schemas: self.book.schemas.clone(),
                    capture: self.config.capture,
                    internal: [session.internal.cuts, session.internal.captures],
                    clock: self.deps.clock.clone(),
                };
                session.flight.start(log, want, decoding);
            }
            if !self.patient || self.book.whole_from().is_some() && !self.lacks_parents(None) {
                self.drain(session).await?;
            }
            self.post_letters(session).await?;
            self.mirror(session).await;
            self.tell_oldest(session);
            let now = self.now().mono;
            let behind = session.is_behind();
            match session.batch.verdict(now, true, behind) {
                Verdict::Close => {
                    self.close(session).await?;
                    continue;
                }
                Verdict::Part => {
                    self.write(session).await?;
                    continue;
                }
                Verdict::More => {}
            }
            if session.lane_open && session.batch.is_empty() && !session.regroup.is_inside() {
                if !self.is_held(session) {
                    self.flush(session).await?;
                    continue;
                }
                if now >= session.wrote_at.plus_millis(HELD_IDLE_MS) {
                    return Err(Trouble::Stalled);
                }
            }
            let quiet = session.batch.is_empty() && !session.lane_open && !session.flight.lanes.is_busy();
            if quiet && !session.regroup.is_inside() {
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
                    let quiet = session.batch.is_empty() && !session.lane_open && !session.flight.lanes.is_busy();
                    if quiet && !self.is_held(session) {
                        let mark = self.mark(session);
                        session.commit.handle_reached(mark);
                    }
                }
                Step::Wait => return Ok(()),
            }
            match session.batch.verdict(Mono::ZERO, false, true) {
                Verdict::More => {}
                Verdict::Part => self.write(session).await?,
                Verdict::Close => self.close(session).await?,
            }
        }
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
        let (asks, asked) = (&mut self.deps.asks, &mut self.asked);
        let woken = poll_fn(|cx| {
            flight.poll(cx);
            if asked.is_none()
                && let Poll::Ready(Some(request)) = asks.poll_recv(cx)
            {
                *asked = Some(request);
                return Poll::Ready(());
            }
            if flight.landed.is_some() || flight.lanes.has_news() || stop.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            Poll::Pending
        });
        let _ = timeout(limit, woken).await;
    }

    fn now(&self) -> catchwater_base::Now {
        self.deps.clock.now()
    }
}

impl Session<'_> {
    /// A change that was taken is not applied after all.
    fn uncount(&mut self, applies: &[crate::sink::Apply]) {
        let of = applies.first().map(|a| (a.table.source.schema_no, operation(applies)));
        if let Some(n) = of.and_then(|of| self.counted.get_mut(&of)) {
            *n = n.saturating_sub(1);
        }
    }

    /// Bytes of rows between fetch and commit.
    fn held_bytes(&self) -> usize {
        self.regroup.bytes() + self.batch.bytes() + self.flight.lanes.bytes()
    }

    /// The log has rows that are not fetched yet.
    fn is_behind(&self) -> bool {
        self.ends.iter().any(|(at, end)| self.regroup.next(*at).is_some_and(|n| n < *end))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
