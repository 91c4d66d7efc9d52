//! Pure. Members that change, and leadership that is handed over (R23–R27, R30, R34).
//!
//! A change always goes through a joint configuration, so that one or many steps are safe alike; the leader, also a new
//! one, proposes to leave it as soon as it is applied. The bytes in the log are ours (`conf.rs`); the crate's own form
//! exists inside one call.

use super::GroupCore;
use super::conf::{ConfChange, ConfError, ConfState};
use crate::effect::{Effect, PeerId, ProposalId, Why};
use catchwater_base::{Effects, mutant};
use catchwater_record::{EntryIndex, LeaderEpoch};
use catchwater_storage::Log;
use catchwater_storage::format::context::encode_conf;
use protobuf::Message as _;
use raft::StateRole;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

/// The members to open with, and the index they stand at.
///
/// `applied` comes from a commit index on disk, which is a hint and may be old (R16, R35): a voter that believed in members
/// of long ago could elect itself without those of today. But a leader proposes a change only when the one before is
/// applied, so every change in the log but the last is committed. With these, a replica is at most one step behind, and
/// the majorities of two neighbouring configurations meet.
pub(super) fn at(log: &mut Log, applied: EntryIndex) -> Result<(ConfState, EntryIndex), ConfError> {
    let (mut index, state, changes) = log.conf();
    let mut conf = ConfState::decode(state)?;
    let mut steps = Vec::new();
    let mut changes = changes.peekable();
    while let Some((at, change)) = changes.next() {
        let committed = *at <= applied || changes.peek().is_some();
        if *at > index && committed && !mutant!("members_of_the_first_day") {
            conf = conf.after(&ConfChange::decode(change)?);
            index = *at;
            steps.push((index, conf.encode()));
        }
    }
    drop(changes);
    // A snapshot takes the state of its own index, so the log must know each.
    for (index, state) in steps {
        log.conf_applied(index, state);
    }
    Ok((conf, index))
}

impl GroupCore {
    /// Who takes part, as far as applied.
    pub fn conf(&self) -> &ConfState {
        &self.node.store().conf
    }
    /// Index of the entry that made them so; 0 = the first ones.
    pub fn conf_index(&self) -> EntryIndex {
        self.conf_index
    }
    /// Nobody but this replica has the log, as far as it knows.
    pub fn is_alone(&self) -> bool {
        let conf = self.conf();
        conf.is_sole(self.config.peer) && conf.learners.is_empty() && conf.learners_next.is_empty()
    }
    /// What this leader knows a peer to hold.
    pub fn matched(&self, peer: PeerId) -> Option<EntryIndex> {
        let leads = self.node.raft.state == StateRole::Leader;
        self.node.raft.prs().get(peer.0).filter(|_| leads).map(|p| EntryIndex(p.matched))
    }

    /// R27: only to a voter that is heard and has everything; proposals meanwhile are refused as dropped.
    pub(super) fn transfer(&mut self, to: PeerId) {
        let last = self.log().last_index().0;
        let raft = &self.node.raft;
        let voter = self.conf().voters.contains(&to) && to != self.config.peer;
        let fit = raft.prs().get(to.0).is_some_and(|p| p.recent_active && p.matched == last);
        if raft.state == StateRole::Leader && voter && fit {
            self.node.transfer_leader(to.0);
        }
    }

    pub(super) fn on_change_conf(&mut self, id: ProposalId, change: &ConfChange, out: &mut Effects<Effect>) {
        let why = match () {
            () if self.node.raft.state != StateRole::Leader => Some(Why::NotLeader),
            // The crate would put an empty entry in its place (R25).
            () if self.node.raft.has_pending_conf() => Some(Why::Dropped),
            () if change.check(self.conf(), self.config.peer).is_err() => Some(Why::Invalid),
            () => None,
        };
        let index = self.log().last_index().next();
        let next = self.log().next_offset();
        if let Some(why) = why.or_else(|| self.propose_conf(change).err()) {
            return out.push(Effect::Refused(id, why));
        }
        let term = LeaderEpoch(self.node.raft.term as u32);
        out.push(Effect::Proposed { id, index, term, base_offset: next, end_offset: next });
    }

    /// R26: the crate's bytes go into its own propose call, and nowhere else.
    fn propose_conf(&mut self, change: &ConfChange) -> Result<(), Why> {
        let mut e = Entry::default();
        e.set_entry_type(EntryType::EntryConfChangeV2);
        e.data = change.to_crate().write_to_bytes().map_err(|_| Why::Invalid)?.into();
        e.context = encode_conf(&change.encode()).ok_or(Why::Invalid)?;
        let mut m = Message::default();
        m.set_msg_type(MessageType::MsgPropose);
        m.from = self.config.peer.0;
        m.set_entries(vec![e].into());
        self.node.raft.step(m).map_err(|_| Why::Dropped)
    }

    /// R24: a leader with an applied joint configuration leaves it. True if something was proposed.
    pub(super) fn leave_joint(&mut self) -> bool {
        let raft = &self.node.raft;
        let due = raft.state == StateRole::Leader && self.conf().is_joint() && !raft.has_pending_conf();
        due && !mutant!("joint_never_left")
            && self.own_term_committed()
            && self.propose_conf(&ConfChange::leave()).is_ok()
    }

    /// R34: a committed change takes effect, once. False if it cannot be read.
    pub(super) fn apply_conf(&mut self, index: EntryIndex) -> bool {
        if index <= self.conf_index && !mutant!("conf_applied_twice") {
            return true;
        }
        let Some(change) = self.log().conf_change(index).and_then(|bytes| ConfChange::decode(bytes).ok()) else {
            return false;
        };
        let Ok(theirs) = self.node.apply_conf_change(&change.to_crate()) else { return false };
        let next = self.conf().after(&change);
        assert!(next.agrees(&theirs), "members by our rules and the crate's: {next:?}, {theirs:?}");
        self.conf_index = index;
        self.log_mut().conf_applied(index, next.encode());
        // R23: nobody proposes to remove a leader, but one of an older membership may come back as such.
        let gone = !next.voters.contains(&self.config.peer) && !next.outgoing.contains(&self.config.peer);
        self.node.mut_store().conf = next;
        if gone && self.node.raft.state == StateRole::Leader {
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, 0);
        }
        true
    }
}
