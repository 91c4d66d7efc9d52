//! Pure. What the crate gives out after each call, turned into effects, in the order its contract demands:
//! rows readable first (R3), then `Persist`, then the crate may forget them; what peers must not hear before it is
//! durable waits here (R4, R31).

use super::GroupCore;
use super::guard::{ours, outgoing};
use crate::effect::{Cause, Effect, PeerBody, PeerMsg, ReadyNo};
use catchwater_base::{Effects, mutant};
use catchwater_record::EntryIndex;
use catchwater_storage::{Hard, NewEntry};
use raft::StateRole;
use raft::eraftpb::EntryType;

/// A Ready that is not durable yet, or stands behind one that is not.
pub(super) struct Pending {
    number: u64,
    /// False: nothing of its own to make durable, it only waits for its turn.
    writes: bool,
    messages: Vec<PeerMsg>,
}

impl GroupCore {
    /// Takes every Ready the crate has.
    pub(super) fn pump(&mut self, out: &mut Effects<Effect>) {
        loop {
            self.take_read_states(out);
            if !self.node.has_ready() {
                return;
            }
            let mut rd = self.node.ready();
            // The crate counts from one again when its node was made anew.
            let number = self.ready_base + rd.number();
            self.node_numbers = rd.number();
            let leads = self.node.raft.state == StateRole::Leader;

            let snapshot = self.take_installed(&rd);
            let mut truncate_from = None;
            let entries = rd.take_entries();
            let mut new: Vec<NewEntry> = Vec::with_capacity(entries.len());
            if let Some(first) = entries.first().map(|e| EntryIndex(e.index)) {
                let log = &mut self.node.mut_store().log;
                if first <= log.last_index() {
                    log.truncate(first);
                    truncate_from = Some(first).filter(|_| !mutant!("truncation_forgotten"));
                }
                let mut next = log.next_offset();
                for e in entries {
                    let entry = ours(e, next);
                    next = entry.end_offset();
                    new.push(entry);
                }
                log.append(new.clone());
            }

            let promised = (self.hard.term, self.hard.vote);
            let hard = self.hard_to_write(!new.is_empty());
            let promises = promised != (self.hard.term, self.hard.vote);
            let writes = hard.is_some() || !new.is_empty() || snapshot.is_some();
            if let Some(snapshot) = snapshot {
                assert!(new.is_empty(), "entries come behind a snapshot, not with it");
                self.installing = Some((number, snapshot.index.0));
                out.push(Effect::Install { ready: ReadyNo(number), snapshot, hard });
            } else if writes {
                out.push(Effect::Persist { ready: ReadyNo(number), entries: new, hard, truncate_from });
            }

            let store = self.node.store();
            let wire = |m| outgoing(self.gid, store, m);
            let now: Vec<PeerMsg> = rd.take_messages().into_iter().filter_map(wire).collect();
            let mut later: Vec<PeerMsg> = rd.take_persisted_messages().into_iter().filter_map(wire).collect();
            for m in now {
                self.send(m, out);
            }
            if !leads && !promises && self.hard_pending.is_none() {
                // R4: an answer to a beat says nothing about entries; behind a slow flush it would cost the quorum.
                let beat = |m: &PeerMsg| matches!(m.body, PeerBody::BeatAck { .. });
                for m in later.extract_if(.., |m| beat(m)) {
                    out.push(Effect::Send(m));
                }
            }
            if mutant!("vote_before_hard") {
                let vote = |m: &PeerMsg| matches!(m.body, PeerBody::VoteReply { .. });
                for m in later.extract_if(.., |m| vote(m)) {
                    out.push(Effect::Send(m));
                }
            }
            if promises {
                self.hard_pending = Some(number);
            }

            let committed = rd.committed_entries().iter();
            let changes: Vec<EntryIndex> = committed
                .filter(|e| e.get_entry_type() != EntryType::EntryNormal)
                .map(|e| EntryIndex(e.index))
                .collect();
            self.node.advance_append_async(rd);
            for index in changes {
                if !self.apply_conf(index) {
                    self.go_offline(Cause::NewerVersion(index), out);
                    return;
                }
            }
            // R13: what a snapshot stands for is applied when it is durable.
            if self.installing.is_none() || mutant!("snapshot_applied_before_persist") {
                self.node.advance_apply();
            }

            if mutant!("ack_or_vote_before_fsync") {
                self.node.on_persist_ready(number - self.ready_base);
                for m in later.drain(..) {
                    self.send(m, out);
                }
            }
            if !writes && self.pending.is_empty() {
                self.node.on_persist_ready(number - self.ready_base);
                for m in later {
                    self.send(m, out);
                }
            } else {
                self.pending.push_back(Pending { number, writes, messages: later });
            }
        }
    }

    pub(super) fn newest_ready(&self) -> ReadyNo {
        ReadyNo(self.ready_base + self.node_numbers)
    }

    fn send(&mut self, m: PeerMsg, out: &mut Effects<Effect>) {
        match &m.body {
            PeerBody::Snap(_) => {
                self.rejoin.snapshots.insert(m.to, 0);
            }
            PeerBody::Ack { .. } => self.told_ack(&m, out),
            _ => {}
        }
        out.push(Effect::Send(m));
    }

    /// The hard state that goes with a Ready: when term or vote changed, else (R35, R38) a fresh commit index at most
    /// once a second and only beside entries.
    fn hard_to_write(&mut self, beside_entries: bool) -> Option<Hard> {
        let raft = &self.node.raft;
        let term = u32::try_from(raft.term).ok().filter(|t| *t < super::guard::TERM_MAX);
        let now = Hard {
            term: term.expect("a term fits Kafka's epoch"),
            vote: raft.vote,
            commit: EntryIndex(raft.raft_log.committed),
        };
        let must = now.term != self.hard.term || now.vote != self.hard.vote;
        let fresh = beside_entries && self.hard_age_ticks >= super::HARD_COMMIT_TICKS && now.commit > self.hard.commit;
        if !must && !fresh {
            return None;
        }
        self.hard = now;
        self.hard_age_ticks = 0;
        if mutant!("vote_not_persisted") {
            return Some(Hard { vote: 0, ..now });
        }
        Some(now)
    }

    /// Everything up to `ready` is durable: the crate hears of it, and what waited for it leaves.
    pub(super) fn on_persisted(&mut self, ready: ReadyNo, out: &mut Effects<Effect>) {
        let mut upto = None;
        while let Some(front) = self.pending.front() {
            let behind = front.number > ready.0 && !mutant!("one_flush_persists_all");
            if behind && (front.writes || upto.is_none()) {
                break;
            }
            if let Some(p) = self.pending.pop_front() {
                upto = Some(p.number);
                if self.hard_pending.is_some_and(|h| h <= p.number) {
                    self.hard_pending = None;
                }
                for m in p.messages {
                    self.send(m, out);
                }
            }
        }
        if let Some(number) = upto.filter(|n| *n > self.ready_base) {
            self.node.on_persist_ready(number - self.ready_base);
            if self.installing.is_some_and(|(ready, _)| ready <= number) {
                self.installing = None;
                self.node.advance_apply();
            }
        }
    }
}
