//! What `broker/partition.rs` does with a request: leads? known already? then propose; answer at the commit.

use crate::ending::view;
use crate::workload::{Ask, Reply, Request, Who};
use crate::world::{Happens, Waiter, World};
use bytes::{Bytes, BytesMut};
use catchwater_raft::{Event, Proposal, ProposalId, Role};
use catchwater_record::{EntryIndex, Gid, Offset};
use catchwater_storage::Check;
use catchwater_storage::format::context::Fence;

impl World {
    pub(crate) fn hint(&self, node: usize, gid: Gid) -> Option<usize> {
        let leader = self.nodes[node].cores.get(&gid)?.view().leader?;
        Some(leader.node().0 as usize - 1)
    }

    pub(crate) fn answer(&mut self, who: Who, id: u64, reply: Reply) {
        if !self.is_calm() && self.rng.chance(self.swarm.drop) {
            return;
        }
        let delay = self.rng.between(self.swarm.delay.0, self.swarm.delay.1);
        self.engine.after(delay, Happens::Answered { who, id, reply });
    }

    pub(crate) fn ask(&mut self, node: usize, request: Request) {
        let node = node % self.nodes.len();
        if self.engine.now() < self.hush_until {
            return;
        }
        if self.swarm.load.compact.is_none() {
            let txn = match request.who {
                Who::Producer(p) => self.producers[p].txn.map(|t| self.producers[p].txn_name(t.number)),
                Who::Worker(_) => None,
            };
            self.story.asked(self.engine.now(), &request, txn);
        }
        let times = match () {
            () if self.is_calm() => 1,
            () if self.rng.chance(self.swarm.drop) => 0,
            () if self.rng.chance(self.swarm.duplicate) => 2,
            () => 1,
        };
        for _ in 0..times {
            // One connection: what one asker sends arrives in order, so equal delays.
            self.engine.after(self.swarm.delay.0, Happens::Asked { node, request: Box::new(request.clone()) });
        }
    }

    /// What `broker/partition.rs` does: leads? known already? then propose.
    pub(crate) fn serve(&mut self, node: usize, request: Request) {
        let gid = request.gid;
        let Some(core) = self.nodes[node].cores.get(&gid) else { return };
        if core.view().role != Role::Leader {
            let leader = self.hint(node, gid);
            return self.answer(request.who, request.id, Reply::NotHere { leader });
        }
        let log = core.log();
        let (check, body, context, fence) = match &request.ask {
            Ask::Produce(body) => (view(body).map(|b| log.check(&b, None)), body.clone(), Bytes::new(), None),
            Ask::Append(body, c) => (view(body).map(|b| log.check(&b, Some(c))), body.clone(), c.encode(), None),
            Ask::Fence(capture, epoch) => {
                let fence = Fence { capture: *capture, epoch: *epoch };
                (Some(log.check_fence(fence)), Bytes::new(), Bytes::new(), Some(fence))
            }
        };
        let (who, id) = (request.who, request.id);
        match check {
            Some(Check::New) => {
                let n = &mut self.nodes[node];
                n.next_proposal += 1;
                let number = ProposalId(n.next_proposal);
                n.proposing.insert(number.0, (who, id, fence.map(|f| f.capture)));
                let proposal = match fence {
                    Some(f) => Proposal::fence(number, f.capture, f.epoch),
                    None => Proposal::data(number, BytesMut::from(&body[..]), context),
                };
                self.core_event(node, gid, Event::Propose(vec![proposal]));
            }
            Some(Check::Duplicate { base, end, index }) => {
                self.out.duplicates += 1;
                let term = log.term(index).map_or(0, |t| t.0);
                let w = Waiter { index, term, who, id, fence: None, base, end };
                let commit = core.view().commit;
                self.nodes[node].waiters.entry(gid).or_default().push(w);
                if index <= commit {
                    self.complete(node, gid, commit);
                }
            }
            Some(Check::Partly(known)) => self.answer(who, id, Reply::Partly(known)),
            Some(Check::Gap(known)) => self.answer(who, id, Reply::Gap(known)),
            Some(Check::Fenced(_)) => self.answer(who, id, Reply::Fenced),
            // A leader that is no longer one may lack the batch before; another will not.
            _ => self.answer(who, id, Reply::Later),
        }
    }

    /// A consumer at the end of the log, now and then: what is committed can be read at once, from memory or files.
    pub(crate) fn consume(&mut self, node: usize, gid: Gid) {
        if self.is_calm() || self.swarm.read_error > 0 || self.atlas.is_damaged(node) || !self.rng.chance(50_000) {
            return;
        }
        let Some(core) = self.nodes[node].cores.get(&gid) else { return };
        let (start, end) = (core.log().log_start(), core.view().high_watermark);
        let from = start.0.max(end.0.saturating_sub(self.rng.between(1, 40)));
        match self.read_from(node, gid, Offset(from)) {
            Ok(batches) => {
                self.out.reads += batches.len() as u64;
                self.saw(node, gid, Offset(from), &batches);
            }
            Err(why) => self.checker.fail(format!("node {node} {gid:?}: a consumer at {from}: {why}")),
        }
    }

    pub(crate) fn complete(&mut self, node: usize, gid: Gid, upto: EntryIndex) {
        let waiters = self.nodes[node].waiters.remove(&gid).unwrap_or_default();
        let Some(core) = self.nodes[node].cores.get(&gid) else { return };
        let (done, wait): (Vec<Waiter>, Vec<Waiter>) = waiters.into_iter().partition(|w| w.index <= upto);
        let mut replies = Vec::new();
        for w in done {
            if w.index.0 > 0 && core.log().term(w.index).map(|t| t.0) != Some(w.term) {
                replies.push((w.who, w.id, Reply::NotHere { leader: None }));
                continue;
            }
            if w.index.0 > 0 {
                self.checker.acked(gid, w.index, w.term, self.engine.now(), w.fence.is_some());
            }
            let reply = match w.fence {
                Some(capture) => Reply::Opened(core.log().capture_last(capture).map(|(_, p)| p).unwrap_or_default()),
                None => Reply::Done { base: w.base, end: w.end },
            };
            replies.push((w.who, w.id, reply));
        }
        if !wait.is_empty() {
            self.nodes[node].waiters.insert(gid, wait);
        }
        for (who, id, reply) in replies {
            self.answer(who, id, reply);
        }
        self.consume(node, gid);
    }
}
