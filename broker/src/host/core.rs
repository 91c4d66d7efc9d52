//! Pure. A replicated machine on its log: decide, propose, replay at once, park every reply until what it saw is
//! committed.
//!
//! Walk: commit-offset 5/8
//!
//! ```text
//!            role: leads                  loaded to the end                    role: no more, or a refused batch
//!   Idle ───────────────▶ Loading ───────────────────────▶ Leading ───────────────────────▶ Idle / Loading again
//!
//!   offsets:   committed ≤ … ≤ next        replies parked at `next` of their decision leave when committed reaches it
//! ```
//! Errors and reads are parked like everything else: they saw uncommitted state too. On loss of leadership machine and
//! soft state are dropped, all tickets fail, and the log is replayed if leadership returns; nothing is ever taken back.

use bytes::BytesMut;
use catchwater_base::{Effects, Mono, Now, Replicated, Ticket};
use catchwater_coordinator::stored::{Stored, StoredError};
use catchwater_record::batch::build::Builder;
use catchwater_record::batch::iterate::records;
use catchwater_record::{BatchView, LeaderEpoch, Offset};
use std::collections::{BTreeSet, VecDeque};

use super::log::ProposeError;

/// Wake-ups have no reader; their replies go nowhere.
const WAKE: Ticket = Ticket(0);

/// What the shell must do, in order.
pub enum Effect<M: Replicated> {
    /// `host/shell.rs`: read the log from here to its high watermark and give it to [`HostCore::loaded`].
    Load { epoch: LeaderEpoch, from: Offset },
    /// `host/shell.rs`: these records are committed now and end at this offset; before any reply that saw them.
    Committed { records: Vec<M::Record>, end: Offset },
    /// `host/shell.rs`: the machine is whole and answers from here on.
    Leading,
    /// `host/shell.rs`: the ticket's answer.
    Reply(Ticket, M::Reply),
    /// `host/shell.rs`: the ticket gets none.
    Fail(Ticket, HostError),
}

/// Why a request got no answer of the machine.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HostError {
    /// Surely nothing was changed: ask the leader.
    #[error("this node does not lead the machine's partition")]
    NotLeader,
    /// Surely nothing was changed: ask again.
    #[error("the machine is being loaded")]
    Loading,
    /// Surely nothing was changed.
    #[error("the log takes no records: {0}")]
    Refused(ProposeError),
    /// The decision may or may not be in the log.
    #[error("leadership was lost before the commit")]
    Unknown,
    /// The log cannot be understood; a person must act.
    #[error("the machine cannot be loaded: {0}")]
    Broken(String),
}

enum State<M: Replicated> {
    Idle,
    Loading {
        epoch: LeaderEpoch,
        machine: M,
        next: Offset,
        /// Our own accepted batches end here: without them the machine is not whole.
        must_reach: Offset,
        /// A load is under way; else the next commit starts another.
        reading: bool,
    },
    Leading(Box<Leading<M>>),
    Broken(String),
}

struct Leading<M: Replicated> {
    epoch: LeaderEpoch,
    machine: M,
    soft: M::Soft,
    /// End of what was decided; the next batch begins here.
    next: Offset,
    committed: Offset,
    parked: VecDeque<Parked<M>>,
    /// Tickets that were taken in and have no reply yet.
    open: BTreeSet<Ticket>,
    /// Tickets whose decision is in a batch that is not committed.
    unknown: BTreeSet<Ticket>,
}

struct Parked<M: Replicated> {
    at: Offset,
    /// Those of the batch that ends at `at`.
    records: Vec<M::Record>,
    replies: Vec<(Ticket, M::Reply)>,
}

/// One machine on one log.
pub struct HostCore<M: Replicated> {
    /// An empty machine, with its settings.
    empty: M,
    wake: fn() -> M::Request,
    log_start: Offset,
    state: State<M>,
}

/// Proposes one batch; gives the offset behind it.
pub type Propose<'a> = &'a mut dyn FnMut(BytesMut) -> Result<Offset, ProposeError>;

impl<M> HostCore<M>
where
    M: Replicated + Clone,
    M::Record: Stored,
{
    pub fn new(empty: M, wake: fn() -> M::Request) -> Self {
        HostCore { empty, wake, log_start: Offset::ZERO, state: State::Idle }
    }

    /// The speculative machine, while it leads.
    pub fn machine(&self) -> Option<&M> {
        match &self.state {
            State::Leading(l) => Some(&l.machine),
            _ => None,
        }
    }

    pub fn is_leading(&self) -> bool {
        matches!(self.state, State::Leading(_))
    }

    /// Why the machine cannot be loaded, if so.
    pub fn broken(&self) -> Option<&str> {
        match &self.state {
            State::Broken(why) => Some(why),
            _ => None,
        }
    }

    /// When [`HostCore::wake`] has something to do.
    pub fn deadline(&self) -> Option<Mono> {
        match &self.state {
            State::Leading(l) => l.machine.deadline(&l.soft),
            _ => None,
        }
    }

    /// The replica's part in the log has changed.
    pub fn role(&mut self, leads: Option<LeaderEpoch>, log_start: Offset, out: &mut Effects<Effect<M>>) {
        let now = match &self.state {
            State::Idle | State::Broken(_) => None,
            State::Loading { epoch, .. } => Some(*epoch),
            State::Leading(l) => Some(l.epoch),
        };
        if now == leads {
            return;
        }
        self.fail_all(HostError::Unknown, out);
        self.log_start = log_start;
        self.state = match leads {
            None => State::Idle,
            Some(epoch) => self.begin_load(epoch, log_start, out),
        };
    }

    fn begin_load(&self, epoch: LeaderEpoch, must_reach: Offset, out: &mut Effects<Effect<M>>) -> State<M> {
        out.push(Effect::Load { epoch, from: self.log_start });
        State::Loading { epoch, machine: self.empty.clone(), next: self.log_start, must_reach, reading: true }
    }

    /// Some committed batches, in order; `whole` = the high watermark was reached. Batches of an earlier load are
    /// ignored.
    pub fn loaded(
        &mut self,
        now: Now,
        of: LeaderEpoch,
        batches: &[impl AsRef<[u8]>],
        whole: bool,
        out: &mut Effects<Effect<M>>,
    ) {
        let State::Loading { epoch, machine, next, must_reach, reading } = &mut self.state else { return };
        if *epoch != of {
            return;
        }
        for batch in batches {
            let (decoded, end) = match decode::<M::Record>(batch.as_ref(), *next) {
                Ok(Some(decoded)) => decoded,
                // It ends before the place we stand at.
                Ok(None) => continue,
                Err(why) => {
                    self.state = State::Broken(why);
                    return;
                }
            };
            decoded.iter().for_each(|record| machine.replay(record));
            *next = end;
            out.push(Effect::Committed { records: decoded, end });
        }
        if !whole {
            return;
        }
        if *next < *must_reach {
            *reading = false;
            return;
        }
        let (epoch, next) = (*epoch, *next);
        let machine = std::mem::replace(machine, self.empty.clone());
        let soft = machine.soft(now);
        self.state = State::Leading(Box::new(Leading {
            epoch,
            machine,
            soft,
            next,
            committed: next,
            parked: VecDeque::new(),
            open: BTreeSet::new(),
            unknown: BTreeSet::new(),
        }));
        out.push(Effect::Leading);
    }

    /// The log could not be read.
    pub fn load_failed(&mut self, of: LeaderEpoch, why: String) {
        if matches!(&self.state, State::Loading { epoch, .. } if *epoch == of) {
            self.state = State::Broken(why);
        }
    }

    /// One request. Its answer comes as an effect, now or later.
    pub fn ask(
        &mut self,
        now: Now,
        ticket: Ticket,
        request: M::Request,
        propose: Propose<'_>,
        out: &mut Effects<Effect<M>>,
    ) {
        assert_ne!(ticket, WAKE, "ticket 0 is the wake-up's");
        match &self.state {
            State::Idle => out.push(Effect::Fail(ticket, HostError::NotLeader)),
            State::Loading { .. } => out.push(Effect::Fail(ticket, HostError::Loading)),
            State::Broken(why) => out.push(Effect::Fail(ticket, HostError::Broken(why.clone()))),
            State::Leading(_) => self.decide(now, ticket, request, propose, out),
        }
    }

    /// The deadline came.
    pub fn wake(&mut self, now: Now, propose: Propose<'_>, out: &mut Effects<Effect<M>>) {
        if self.is_leading() {
            let request = (self.wake)();
            self.decide(now, WAKE, request, propose, out);
        }
    }

    fn decide(
        &mut self,
        now: Now,
        ticket: Ticket,
        request: M::Request,
        propose: Propose<'_>,
        out: &mut Effects<Effect<M>>,
    ) {
        let State::Leading(l) = &mut self.state else { return };
        let mut decision = l.machine.decide(&mut l.soft, now, ticket, request);
        if ticket != WAKE {
            l.open.insert(ticket);
        }
        decision.replies.retain(|(t, _)| *t != WAKE);
        if !decision.records.is_empty() {
            let batch = encode(&decision.records, now);
            match propose(batch) {
                Ok(end) => {
                    let due = l.next.plus(decision.records.len() as u64);
                    assert_eq!(end, due, "only the host writes to its log");
                    l.next = end;
                    decision.records.iter().for_each(|record| l.machine.replay(record));
                }
                Err(why) => return self.refused(ticket, why, out),
            }
            if ticket != WAKE {
                l.unknown.insert(ticket);
            }
            l.unknown.extend(decision.replies.iter().map(|(t, _)| *t));
        }
        if !decision.records.is_empty() || !decision.replies.is_empty() {
            l.parked.push_back(Parked { at: l.next, records: decision.records, replies: decision.replies });
        }
        l.release(out);
    }

    /// The decision has changed soft state and cannot be written: only the log knows the truth now. What was accepted
    /// before it may still commit, so the reload waits for it.
    fn refused(&mut self, ticket: Ticket, why: ProposeError, out: &mut Effects<Effect<M>>) {
        let State::Leading(l) = &mut self.state else { return };
        if ticket != WAKE {
            l.open.remove(&ticket);
            out.push(Effect::Fail(ticket, HostError::Refused(why)));
        }
        let (epoch, must_reach) = (l.epoch, l.next);
        self.fail_all(HostError::Unknown, out);
        self.state = match why {
            ProposeError::NotLeader => State::Idle,
            ProposeError::Stopped => State::Broken(why.to_string()),
            ProposeError::NoRoom | ProposeError::TooLarge => self.begin_load(epoch, must_reach, out),
        };
    }

    /// The high watermark has moved.
    pub fn committed(&mut self, high_watermark: Offset, out: &mut Effects<Effect<M>>) {
        match &mut self.state {
            State::Leading(l) => {
                if high_watermark > l.committed {
                    assert!(high_watermark <= l.next, "{high_watermark} is committed, {} was written", l.next);
                    l.committed = high_watermark;
                    l.release(out);
                }
            }
            State::Loading { epoch, next, reading, .. } if !*reading && high_watermark > *next => {
                *reading = true;
                out.push(Effect::Load { epoch: *epoch, from: *next });
            }
            State::Loading { .. } | State::Idle | State::Broken(_) => {}
        }
    }

    fn fail_all(&mut self, why: HostError, out: &mut Effects<Effect<M>>) {
        if let State::Leading(l) = &mut self.state {
            for ticket in std::mem::take(&mut l.open) {
                // Who waits without anything written (a join) may simply ask elsewhere.
                let sure = why == HostError::Unknown && !l.unknown.contains(&ticket);
                out.push(Effect::Fail(ticket, if sure { HostError::NotLeader } else { why.clone() }));
            }
            l.parked.clear();
        }
    }
}

impl<M: Replicated> Leading<M> {
    fn release(&mut self, out: &mut Effects<Effect<M>>) {
        while self.parked.front().is_some_and(|p| p.at <= self.committed) {
            let Some(parked) = self.parked.pop_front() else { return };
            if !parked.records.is_empty() {
                out.push(Effect::Committed { records: parked.records, end: parked.at });
            }
            for (ticket, reply) in parked.replies {
                self.unknown.remove(&ticket);
                if self.open.remove(&ticket) {
                    out.push(Effect::Reply(ticket, reply));
                }
            }
        }
    }
}

/// All records of one decision as one batch.
fn encode<R: Stored>(records: &[R], now: Now) -> BytesMut {
    let mut batch = Builder::new();
    for record in records {
        let stored = record.to_stored();
        batch.push(now.wall.as_millis(), Some(&stored.key), stored.value.as_deref(), []);
    }
    batch.finish()
}

/// The records of one batch and the offset behind it; `None` = it lies below `from`.
/// The records of one batch and where it ends; `None` if that is not behind `from`.
pub(crate) fn decode<R: Stored>(batch: &[u8], from: Offset) -> Result<Option<(Vec<R>, Offset)>, String> {
    let view = BatchView::new(batch).map_err(|e| format!("at {from}: {e}"))?;
    let base = view.offset();
    let taken = u64::try_from(view.last_offset_delta()).map_err(|_| format!("at {from}: a batch without records"))?;
    let end = base.plus(taken + 1);
    if end <= from {
        return Ok(None);
    }
    // A gap is what compaction left out; an overlap would replay a decision twice.
    if base < from {
        return Err(format!("a batch begins at {base} inside what is known up to {from}"));
    }
    let mut out = Vec::new();
    let count = u32::try_from(view.records_count()).map_err(|_| format!("at {from}: negative count"))?;
    for record in records(view.records(), count) {
        let record = record.map_err(|e| format!("in the batch at {base}: {e}"))?;
        let key = record.key.ok_or_else(|| format!("in the batch at {base}: a record without key"))?;
        let read: Result<Option<R>, StoredError> = R::from_stored(key, record.value);
        // A kind of a newer release is skipped; a newer value of a known kind is an error.
        if let Some(record) = read.map_err(|e| format!("in the batch at {base}: {e}"))? {
            out.push(record);
        }
    }
    Ok(Some((out, end)))
}

#[cfg(test)]
pub(super) mod tests;
