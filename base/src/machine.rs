//! Pure. The two shapes every deciding part of Catchwater has. There is no framework beyond these traits.

use crate::clock::{Mono, Now};
use crate::effects::Effects;

/// Local machine: state of this process only. Examples: partition, fetch wait, track, session.
pub trait Local {
    type Event;
    type Effect;
    fn handle(&mut self, now: Now, event: Self::Event, out: &mut Effects<Self::Effect>);
    /// "Call me with my wake event then"; `None` = nothing to wait for.
    fn deadline(&self) -> Option<Mono>;
}

/// Names one waiting request inside a host; never reused within a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// Replicated machine: its state is the fold of its records. Examples: groups, cluster, tasks.
///
/// `decide` reads, `replay` alone changes, and cannot fail: recovery is replay, there is no second path.
pub trait Replicated {
    type Record;
    type Request;
    type Reply;
    /// The leader's own knowledge (who waits, who was heard when); lost with leadership on purpose.
    type Soft;
    /// After a load every member counts as just heard.
    fn soft(&self, now: Now) -> Self::Soft;
    fn decide(
        &self,
        soft: &mut Self::Soft,
        now: Now,
        ticket: Ticket,
        request: Self::Request,
    ) -> Decision<Self::Record, Self::Reply>;
    /// When the host must send the machine's `Wake` request.
    fn deadline(&self, soft: &Self::Soft) -> Option<Mono>;
    fn replay(&mut self, record: &Self::Record);
    /// Equal on all replicas at equal offsets.
    fn digest(&self) -> u64;
}

/// What a replicated machine wants written and answered. A reply may be for a ticket that has waited since long.
#[derive(Debug)]
pub struct Decision<Rec, Rep> {
    pub records: Vec<Rec>,
    pub replies: Vec<(Ticket, Rep)>,
}

impl<Rec, Rep> Default for Decision<Rec, Rep> {
    fn default() -> Self {
        Decision { records: Vec::new(), replies: Vec::new() }
    }
}

impl<Rec, Rep> Decision<Rec, Rep> {
    /// Nothing to write, one answer.
    pub fn reply(ticket: Ticket, reply: Rep) -> Self {
        Decision { records: Vec::new(), replies: vec![(ticket, reply)] }
    }
}
