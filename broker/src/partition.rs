//! Pure. One partition: who leads, which batches enter, who waits for what, what readers may see.
//! Walk: row-change 10/17, produce-fetch 7/14.
//!
//! A batch becomes an entry here and nowhere else: checked against the *speculative* producer and capture state (it
//! counts what is appended but not committed), then proposed; the group gives it index, offset and epoch and patches
//! them in place. The bytes are never copied and the records never looked at.
//! ```text
//!  log_start ≤ ………… ≤ lso ≤ high watermark ≤ persisted_end … ≤ spec_end (LEO)
//!                     readers end here        acks=1          the next batch begins here
//! ```
//! (With other voters the high watermark may pass the own persisted end.) Until transactions exist the LSO is the high
//! watermark. The shell is `partition/shell.rs`; `W` is what it answers a waiter through.

mod epochs;
pub mod shell;

use crate::waiters::Waiters;
use bytes::{Bytes, BytesMut};
use catchwater_base::{Effects, Now};
use catchwater_raft::{Effect, Event, GroupCore, GroupView, Proposal, ProposalId, ReadyNo, Role, Why};
use catchwater_record::batch::validate::Refusal;
use catchwater_record::{BatchView, CaptureEpoch, CaptureId, EntryIndex, LeaderEpoch, NodeId, Offset, Position};
use catchwater_storage::format::context::{CaptureContext, Fence, LogStart, TrimReason};
use catchwater_storage::retain::{Retention, choose};
use catchwater_storage::{Aborted, Check, Hard, Log, NewEntry, ReadPlan};

/// Bytes of batches above the commit index, per partition: beyond it producers wait.
pub const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;

/// What an append waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// Nothing: acks=0.
    Proposed,
    /// Durable at the leader: acks=1.
    Durable,
    /// acks=all.
    Committed,
}

/// An entry that has its place; not yet durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placed {
    pub base: Offset,
    pub end: Offset,
    /// It was here already; the offsets are the original ones.
    pub duplicate: bool,
}

/// A batch that may enter, or that is here already (base, end, index of the original).
#[derive(Clone, Copy, Debug)]
pub struct Judged(Option<(Offset, Offset, EntryIndex)>);

/// Why an entry was surely not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotTaken {
    #[error("not the leader")]
    NotLeader,
    #[error("fewer replicas in sync than min.insync.replicas")]
    NotEnoughInSync,
    #[error("no room for more uncommitted bytes")]
    NoRoom,
    #[error("the disk is full, or nearly (min.free.bytes)")]
    DiskFull,
    #[error("the log directory or the group is down")]
    Storage,
    #[error("the topic was deleted")]
    Deleted,
    #[error("the producer has a newer epoch, {known}")]
    ProducerFenced { known: i16 },
    #[error("sequence does not follow")]
    OutOfOrderSequence,
    #[error("the capture's rows up to {0:?} are here")]
    Partly(Position),
    #[error("an earlier append of the capture is missing behind {0:?}")]
    Gap(Position),
    #[error("fenced by epoch {0}")]
    Fenced(CaptureEpoch),
    #[error("bug: {0}")]
    Bug(&'static str),
}

/// Why the log start was not moved by a client.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotTrimmed {
    #[error("offset above the high watermark, {0}")]
    BeyondEnd(Offset),
    #[error("{0}")]
    NotTaken(#[from] NotTaken),
}

/// Why an entry that has its place was not acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AckError {
    /// Another term took over before the commit: in the log or not, nobody here knows.
    #[error("leadership was lost before the commit")]
    LeadershipLost,
    #[error("the log directory failed before the commit")]
    Storage,
    #[error("not committed in time")]
    TimedOut,
}

/// Everything that can become of a produced batch. `error_code.rs` gives each its number.
#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    #[error("no such topic or partition")]
    UnknownTopic,
    #[error("no such topic id")]
    UnknownTopicId,
    #[error("clients may not write to internal topics")]
    Internal,
    #[error("acks={0} is not -1, 0 or 1")]
    Acks(i16),
    #[error("transactional batches need a transactional id and the right to it")]
    Transactional,
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("not the leader")]
    NotLeader,
    #[error("fewer replicas in sync than min.insync.replicas")]
    NotEnoughInSync,
    #[error("sequence does not follow")]
    OutOfOrderSequence,
    #[error("the producer has a newer epoch")]
    ProducerFenced,
    #[error("batch is larger than the node's journal allows")]
    TooLarge,
    #[error("no room (memory budget or disk)")]
    NoRoom,
    #[error("the disk is full, or nearly (min.free.bytes)")]
    DiskFull,
    #[error("storage failed")]
    Storage,
    #[error("{0}")]
    Ack(#[from] AckError),
    #[error("bug: {0}")]
    Bug(String),
}

impl From<NotTaken> for ProduceError {
    fn from(why: NotTaken) -> Self {
        match why {
            NotTaken::NotLeader => ProduceError::NotLeader,
            NotTaken::NotEnoughInSync => ProduceError::NotEnoughInSync,
            NotTaken::NoRoom => ProduceError::NoRoom,
            NotTaken::DiskFull => ProduceError::DiskFull,
            NotTaken::Storage => ProduceError::Storage,
            NotTaken::Deleted => ProduceError::UnknownTopic,
            NotTaken::ProducerFenced { .. } => ProduceError::ProducerFenced,
            NotTaken::OutOfOrderSequence => ProduceError::OutOfOrderSequence,
            NotTaken::Partly(_) | NotTaken::Gap(_) | NotTaken::Fenced(_) => {
                ProduceError::Bug("capture answer to a client's batch".into())
            }
            NotTaken::Bug(why) => ProduceError::Bug(why.into()),
        }
    }
}

/// Everything that can be wrong with reading a partition.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FetchError {
    #[error("no such topic or partition")]
    UnknownTopic,
    #[error("no such topic id")]
    UnknownTopicId,
    #[error("not the leader")]
    NotLeader,
    #[error("offset below the log start or above its end")]
    OutOfRange,
    #[error("leader epoch is older than the partition's")]
    FencedEpoch,
    #[error("leader epoch is newer than the partition's")]
    UnknownEpoch,
    #[error("a new leader does not know its high watermark yet")]
    NotReady,
    #[error("storage failed")]
    Storage,
    #[error("zstd batches need fetch version 10 or later")]
    Compression,
    #[error("replicas do not fetch here")]
    Follower,
    #[error("the timestamp is not served at this version")]
    Version,
    #[error("no such fetch session")]
    Session,
    #[error("invalid request")]
    Request,
    #[error("bug: {0}")]
    Bug(String),
}

/// What everybody may know of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    pub log_start: Offset,
    /// First offset a committed-only reader may not see.
    pub lso: Offset,
    pub high_watermark: Offset,
    pub spec_end: Offset,
    pub epoch: LeaderEpoch,
    pub leads: bool,
    /// The high watermark is everyone's: an entry of the own term is committed.
    pub settled: bool,
}

/// One look at a partition for a fetch.
#[derive(Debug)]
pub struct Look {
    pub ends: Ends,
    /// The client's log disagrees: where the epoch it names (or the one before) ends here.
    pub diverging: Option<(LeaderEpoch, Offset)>,
    pub plan: ReadPlan,
    /// Aborted transactions that a committed-only reader must skip in what the plan gives.
    pub aborted: Vec<Aborted>,
}

/// What a fetch asks of one partition.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub from: Offset,
    pub max_bytes: u32,
    /// Negative = not given.
    pub current_epoch: i32,
    pub last_fetched_epoch: i32,
    pub committed_only: bool,
}

/// What the shell must do; performed by `partition/shell.rs` in order.
#[derive(Debug)]
pub enum Wish<W> {
    /// Under the lock: queue for the journal thread.
    Persist { ready: ReadyNo, entries: Vec<NewEntry>, hard: Option<Hard>, truncate_from: Option<EntryIndex> },
    /// Under the lock: what is committed may be sealed and trimmed.
    Settled { commit: EntryIndex, log_start: Offset },
    /// Behind the lock: answer a waiter.
    Done(W, Result<(), AckError>),
    /// Behind the lock: wake fetches, tell hosts.
    HighWatermark(Offset),
    /// Behind the lock: wake fetches, tell hosts. `Some` once the high watermark is known.
    Leads(Option<LeaderEpoch>),
    /// Behind the lock: the group is down until the node opens it again.
    Offline(String),
}

/// The state of one partition on this node. Called under the partition's lock; no I/O.
pub struct PartitionCore<W> {
    group: GroupCore,
    committed: Waiters<W>,
    durable: Waiters<W>,
    proposals: u64,
    effects: Effects<Effect>,
    /// What the shell was told last.
    high_watermark: Offset,
    leads: Option<LeaderEpoch>,
    down: bool,
    /// For good: it is not opened again.
    closed: bool,
    deleted: bool,
}

impl<W> PartitionCore<W> {
    pub fn new(group: GroupCore) -> Self {
        let high_watermark = group.view().high_watermark;
        PartitionCore {
            group,
            committed: Waiters::default(),
            durable: Waiters::default(),
            proposals: 0,
            effects: Effects::new(),
            high_watermark,
            leads: None,
            down: false,
            closed: false,
            deleted: false,
        }
    }

    pub fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Wish<W>>) {
        if self.down {
            return;
        }
        self.group.handle(now, event, &mut self.effects);
        self.perform(None, out);
    }

    /// For what is no part of the replicated state: who of the producers is remembered.
    pub fn log_mut(&mut self) -> &mut Log {
        self.group.log_mut()
    }
    pub fn group(&self) -> &GroupCore {
        &self.group
    }

    /// The epoch this node leads in and may answer for.
    pub fn leads(&self) -> Option<LeaderEpoch> {
        let view = self.group.view();
        (view.role == Role::Leader && view.own_term_committed && !self.down && !view.offline).then_some(view.term)
    }

    pub fn leader(&self) -> Option<NodeId> {
        self.group.view().leader.map(|peer| peer.node())
    }

    pub fn ends(&self) -> Ends {
        let view = self.group.view();
        Ends {
            log_start: self.group.log().log_start(),
            lso: self.group.log().last_stable_offset().min(view.high_watermark),
            high_watermark: view.high_watermark,
            spec_end: self.group.log().next_offset(),
            epoch: view.term,
            leads: view.role == Role::Leader && !self.down && !view.offline,
            settled: view.own_term_committed,
        }
    }

    /// May this checked batch enter? The answer holds while the lock is held.
    pub fn judge(
        &self,
        batch: &[u8],
        capture: Option<&CaptureContext>,
        insync_min: usize,
        until: Until,
    ) -> Result<Judged, NotTaken> {
        let view = self.open_for_append()?;
        if until == Until::Committed && insync_min > view.voters {
            return Err(NotTaken::NotEnoughInSync);
        }
        let head = BatchView::new(batch).map_err(|_| NotTaken::Bug("an unchecked batch"))?;
        match self.group.log().check(&head, capture) {
            Check::New => Ok(Judged(None)),
            Check::Duplicate { base, end, index } => Ok(Judged(Some((base, end, index)))),
            Check::Partly(known) => Err(NotTaken::Partly(known)),
            Check::Gap(known) => Err(NotTaken::Gap(known)),
            Check::Fenced(by) => Err(NotTaken::Fenced(by)),
            Check::ProducerFenced { known } => Err(NotTaken::ProducerFenced { known: known.0 }),
            // A repeat so old that its place is forgotten cannot be acknowledged with offsets.
            Check::OutOfOrder { .. } | Check::StaleSequence => Err(NotTaken::OutOfOrderSequence),
        }
    }

    /// Would a batch of `bytes` stay within the group's bound of uncommitted bytes?
    pub fn has_room(&self, bytes: usize) -> bool {
        let used = self.group.log().uncommitted_bytes();
        used == 0 || used.saturating_add(bytes as u64) <= UNCOMMITTED_BYTES_MAX
    }

    /// Appends a batch that was judged under this lock. On `Ok` the waiter is answered once, by a later [`Wish::Done`]
    /// or by one in `out` now; with [`Until::Proposed`] it is dropped. On `Err` it is dropped and the batch is surely
    /// not in the log.
    pub fn enter(
        &mut self,
        now: Now,
        judged: Judged,
        (batch, capture): (BytesMut, Option<&CaptureContext>),
        (until, waiter): (Until, W),
        out: &mut Vec<Wish<W>>,
    ) -> Result<Placed, NotTaken> {
        if let Judged(Some((base, end, index))) = judged {
            // Acknowledged when the original is committed, never before.
            self.wait(index, until, waiter, out);
            return Ok(Placed { base, end, duplicate: true });
        }
        let context = capture.map_or(Bytes::new(), CaptureContext::encode);
        let id = self.next_id();
        self.propose(now, Proposal::data(id, batch, context), until, waiter, out)
    }

    /// Shuts out workers of `capture` below `epoch`; `Placed` as for an entry without offsets.
    pub fn fence(
        &mut self,
        now: Now,
        capture: CaptureId,
        epoch: CaptureEpoch,
        waiter: W,
        out: &mut Vec<Wish<W>>,
    ) -> Result<Placed, NotTaken> {
        self.open_for_append()?;
        if let Check::Fenced(by) = self.group.log().check_fence(Fence { capture, epoch }) {
            return Err(NotTaken::Fenced(by));
        }
        let id = self.next_id();
        self.propose(now, Proposal::fence(id, capture, epoch), Until::Committed, waiter, out)
    }

    /// Lets old segments go: proposes the log start that the topic's retention chooses, if it moves.
    pub fn retain(&mut self, now: Now, retention: Retention, waiter: W, out: &mut Vec<Wish<W>>) -> Option<Offset> {
        self.open_for_append().ok()?;
        let log = self.group.log();
        let high_watermark = self.group.view().high_watermark;
        let offset = choose(log.segments(), high_watermark, retention, now.wall.as_millis())?;
        if offset <= log.log_start() {
            return None;
        }
        let id = self.next_id();
        let proposal = Proposal::log_start(id, LogStart { offset, reason: TrimReason::Retention });
        self.propose(now, proposal, Until::Proposed, waiter, out).ok().map(|_| offset)
    }

    /// Moves the log start to `to` (`None` = the high watermark). Gives back whether `waiter` will be answered: it is
    /// dropped if the log begins there or behind it already.
    pub fn delete_records(
        &mut self,
        now: Now,
        to: Option<Offset>,
        waiter: W,
        out: &mut Vec<Wish<W>>,
    ) -> Result<bool, NotTrimmed> {
        let view = self.open_for_append()?;
        if !view.own_term_committed {
            // Its high watermark may lie below what was acknowledged before.
            return Err(NotTaken::NotLeader.into());
        }
        let offset = to.unwrap_or(view.high_watermark);
        if offset > view.high_watermark {
            return Err(NotTrimmed::BeyondEnd(view.high_watermark));
        }
        if offset <= self.group.log().log_start() {
            return Ok(false);
        }
        let id = self.next_id();
        let proposal = Proposal::log_start(id, LogStart { offset, reason: TrimReason::DeleteRecords });
        self.propose(now, proposal, Until::Committed, waiter, out)?;
        Ok(true)
    }

    /// Answers once everything appended so far is committed.
    pub fn barrier(&mut self, waiter: W, out: &mut Vec<Wish<W>>) -> Result<(), NotTaken> {
        let view = self.open_for_append()?;
        self.wait(view.last, Until::Committed, waiter, out);
        Ok(())
    }

    /// What a reader gets now; sizes only, no byte is read from a file.
    pub fn look(&self, ask: &Ask) -> Result<Look, FetchError> {
        if self.down {
            return Err(if self.deleted { FetchError::UnknownTopic } else { FetchError::Storage });
        }
        let ends = self.ends();
        if !ends.leads {
            return Err(FetchError::NotLeader);
        }
        judge_epoch(ask.current_epoch, ends.epoch)?;
        let diverging = self.diverging(ask);
        let plan = if diverging.is_some() || !ends.settled {
            // A leader that does not know its high watermark parks its readers.
            ReadPlan::Empty
        } else {
            let upto = if ask.committed_only { ends.lso } else { ends.high_watermark };
            self.group.log().plan_read(ask.from, upto, ask.max_bytes)
        };
        if plan == ReadPlan::OutOfRange {
            return Err(FetchError::OutOfRange);
        }
        let upto = if ask.committed_only { self.group.log().plan_end(&plan) } else { None };
        let aborted = upto.map(|upto| self.group.log().aborted(ask.from, upto).copied().collect());
        Ok(Look { ends, diverging, plan, aborted: aborted.unwrap_or_default() })
    }

    /// KIP-320: does the epoch of the last record the client has end here where the client says?
    fn diverging(&self, ask: &Ask) -> Option<(LeaderEpoch, Offset)> {
        let last = u32::try_from(ask.last_fetched_epoch).ok()?;
        match self.group.log().end_of_epoch(LeaderEpoch(last)) {
            Some((epoch, end)) if epoch.0 < last || end < ask.from => Some((epoch, end)),
            _ => None,
        }
    }

    /// OffsetForLeaderEpoch: the epoch that ends it, and where. `current` -1 = the client names none.
    pub fn end_of_epoch(&self, current: i32, asked: i32) -> Result<Option<(i32, Offset)>, FetchError> {
        if self.down {
            return Err(if self.deleted { FetchError::UnknownTopic } else { FetchError::Storage });
        }
        let ends = self.ends();
        // Kafka compares every number but -1, and looks at leadership afterwards.
        match i64::from(current).cmp(&i64::from(ends.epoch.0)) {
            _ if current == -1 => {}
            std::cmp::Ordering::Less => return Err(FetchError::FencedEpoch),
            std::cmp::Ordering::Greater => return Err(FetchError::UnknownEpoch),
            std::cmp::Ordering::Equal => {}
        }
        if !ends.leads {
            return Err(FetchError::NotLeader);
        }
        Ok(epochs::end_of(self.group.log().epochs(), ends.log_start..ends.spec_end, asked))
    }

    /// Its topic is gone: readers and writers learn just that.
    pub fn delete(&mut self, out: &mut Vec<Wish<W>>) {
        self.deleted = true;
        self.close(AckError::LeadershipLost, out);
    }

    /// Nothing more comes of this partition here.
    pub fn close(&mut self, why: AckError, out: &mut Vec<Wish<W>>) {
        (self.down, self.closed) = (true, true);
        let waiting = self.committed.fail_all().into_iter().chain(self.durable.fail_all());
        out.extend(waiting.map(|w| Wish::Done(w, Err(why))));
        self.tell_role(out);
    }

    /// It panicked: what its memory holds is not looked at any more. Everybody who waits learns that nobody knows.
    pub fn fail(&mut self, cause: String, out: &mut Vec<Wish<W>>) {
        if std::mem::replace(&mut self.down, true) {
            return;
        }
        let waiting = self.committed.fail_all().into_iter().chain(self.durable.fail_all());
        out.extend(waiting.map(|w| Wish::Done(w, Err(AckError::Storage))));
        if self.leads.take().is_some() {
            out.push(Wish::Leads(None));
        }
        out.push(Wish::Offline(cause));
    }

    /// The same partition from what was read from disk again; false if it was closed or deleted meanwhile.
    pub fn reopened(&mut self, group: GroupCore) -> bool {
        if self.closed || !self.down {
            return false;
        }
        // Numbers of proposals go on: an answer to an old one is an answer to nobody.
        *self = PartitionCore { proposals: self.proposals, ..PartitionCore::new(group) };
        true
    }

    fn next_id(&mut self) -> ProposalId {
        self.proposals += 1;
        ProposalId(self.proposals)
    }

    fn open_for_append(&self) -> Result<GroupView, NotTaken> {
        let view = self.group.view();
        if self.deleted {
            Err(NotTaken::Deleted)
        } else if self.down || view.offline {
            Err(NotTaken::Storage)
        } else if view.role != Role::Leader {
            Err(NotTaken::NotLeader)
        } else {
            Ok(view)
        }
    }

    fn propose(
        &mut self,
        now: Now,
        proposal: Proposal,
        until: Until,
        waiter: W,
        out: &mut Vec<Wish<W>>,
    ) -> Result<Placed, NotTaken> {
        let id = proposal.id;
        self.group.handle(now, Event::Propose(vec![proposal]), &mut self.effects);
        self.perform(Some((id, until, waiter)), out).unwrap_or(Err(NotTaken::Bug("a proposal without an answer")))
    }

    fn wait(&mut self, index: EntryIndex, until: Until, waiter: W, out: &mut Vec<Wish<W>>) {
        let view = self.group.view();
        let (list, reached) = match until {
            Until::Proposed => return,
            Until::Durable => (&mut self.durable, view.persisted),
            Until::Committed => (&mut self.committed, view.commit),
        };
        match self.group.log().term(index) {
            Some(term) if index > reached => list.add(index, term, waiter),
            // Reached, or so old that its row is gone.
            _ => out.push(Wish::Done(waiter, Ok(()))),
        }
    }

    /// Turns the group's effects into wishes; finds the answer to one proposal on the way.
    fn perform(
        &mut self,
        mut asked: Option<(ProposalId, Until, W)>,
        out: &mut Vec<Wish<W>>,
    ) -> Option<Result<Placed, NotTaken>> {
        let mut answer = None;
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain() {
            match effect {
                Effect::Persist { ready, entries, hard, truncate_from } => {
                    out.push(Wish::Persist { ready, entries, hard, truncate_from });
                }
                Effect::Proposed { id, index, base_offset, end_offset, .. } => {
                    if let Some((wanted, until, waiter)) = asked.take_if(|(wanted, ..)| *wanted == id) {
                        debug_assert_eq!(wanted, id);
                        self.wait(index, until, waiter, out);
                        answer = Some(Ok(Placed { base: base_offset, end: end_offset, duplicate: false }));
                    }
                }
                Effect::Refused(id, why) => {
                    if asked.take_if(|(wanted, ..)| *wanted == id).is_some() {
                        answer = Some(Err(not_taken(why)));
                    }
                }
                Effect::Commit(index, _) => {
                    let log = self.group.log();
                    for (waiter, same) in self.committed.reached(index, |i| log.term(i)) {
                        out.push(Wish::Done(waiter, if same { Ok(()) } else { Err(AckError::LeadershipLost) }));
                    }
                    out.push(Wish::Settled { commit: index, log_start: log.log_start() });
                }
                Effect::Durable(index, _) => {
                    let log = self.group.log();
                    for (waiter, same) in self.durable.reached(index, |i| log.term(i)) {
                        out.push(Wish::Done(waiter, if same { Ok(()) } else { Err(AckError::LeadershipLost) }));
                    }
                }
                Effect::Role { role, .. } => {
                    if role != Role::Leader {
                        let waiting = self.committed.fail_all().into_iter().chain(self.durable.fail_all());
                        out.extend(waiting.map(|w| Wish::Done(w, Err(AckError::LeadershipLost))));
                    }
                }
                Effect::Offline(cause) => {
                    self.down = true;
                    let waiting = self.committed.fail_all().into_iter().chain(self.durable.fail_all());
                    out.extend(waiting.map(|w| Wish::Done(w, Err(AckError::Storage))));
                    out.push(Wish::Offline(cause.to_string()));
                }
                // One voter: no peer to send to, no follower to read for, no barrier that is not the commit itself.
                Effect::Send(_)
                | Effect::ColdRead { .. }
                | Effect::ReadReady(..)
                | Effect::ReadRefused(_)
                | Effect::Install { .. }
                | Effect::Muted
                | Effect::Unmuted
                | Effect::Guarded(..) => {}
            }
        }
        self.effects = effects;
        let high_watermark = self.group.view().high_watermark;
        if high_watermark > self.high_watermark {
            self.high_watermark = high_watermark;
            out.push(Wish::HighWatermark(high_watermark));
        }
        self.tell_role(out);
        answer
    }

    fn tell_role(&mut self, out: &mut Vec<Wish<W>>) {
        let leads = self.leads();
        if leads != self.leads {
            self.leads = leads;
            out.push(Wish::Leads(leads));
        }
    }
}

fn judge_epoch(current: i32, ours: LeaderEpoch) -> Result<(), FetchError> {
    match u32::try_from(current) {
        Ok(theirs) if theirs < ours.0 => Err(FetchError::FencedEpoch),
        Ok(theirs) if theirs > ours.0 => Err(FetchError::UnknownEpoch),
        _ => Ok(()),
    }
}

fn not_taken(why: Why) -> NotTaken {
    match why {
        Why::NotLeader | Why::Dropped => NotTaken::NotLeader,
        Why::NoRoom => NotTaken::NoRoom,
        Why::Invalid => NotTaken::Bug("the group found the entry malformed"),
        Why::Offline => NotTaken::Storage,
    }
}

#[cfg(test)]
mod tests;
