//! Pure. Replicas that lost something (the design's section 8): suspect, mute, roll call, new.
//!
//! ```text
//!  verdict Suspect ─▶ mute ── RollOk {term, bound} ─▶ takes appends of that term ── acknowledged ≥ bound ─▶ as before
//!                      ▲ │  ▲                                      │
//!                      │ │  └────── a newer term: the bound is void ┘
//!                      │ └─ no leader, every voter has sent its row: may vote for the greatest, and stand if it is that
//!  RollOk though nothing was missed (the loss went unnoticed)
//! ```
//! Invariants: a mute replica votes for nobody (but in a roll call), stands for nothing and is in elections like one that
//! is down, so the proof of Raft is that of a crash. Its acknowledgements count: behind the reset they cover a verified
//! prefix again. The bound is the leader's **last** index: a fresh leader may not know what is committed.

use super::GroupCore;
use super::store::Store;
use crate::effect::{Effect, PeerBody, PeerId, PeerMsg, RollRow};
use catchwater_base::{Effects, mutant};
use catchwater_record::{EntryIndex, NodeId};
use catchwater_storage::compact::rows::last_index;
use catchwater_storage::{EntryKind, Hard, Log, NewEntry, RecoveredGroup, entry};
use raft::{RawNode, StateRole};
use std::collections::{BTreeMap, BTreeSet};

/// Between two questions of a mute replica, ticks.
const ASK_TICKS: u32 = 5;
/// A snapshot that nobody answered is given up after so many ticks (10 s; R14).
pub(super) const SNAPSHOT_TICKS: u32 = 100;
/// An unclean election leaves so many terms free: survivors that were not asked may be ahead.
const UNCLEAN_TERMS: u32 = 1000;

#[derive(Default)]
pub(super) struct Rejoin {
    pub mute: bool,
    /// Up to where it must be fed, and by the leader of which term.
    bound: Option<(u32, EntryIndex)>,
    /// What the peers said of themselves when their streams to here began.
    rows: BTreeMap<PeerId, RollRow>,
    /// As a leader: peers that lost something, until they hold it again.
    resets: BTreeMap<PeerId, EntryIndex>,
    /// As a leader: since when a snapshot is under way, ticks.
    pub snapshots: BTreeMap<PeerId, u32>,
    asked: u32,
}

impl Rejoin {
    pub fn new(mute: bool) -> Self {
        Rejoin { mute, ..Rejoin::default() }
    }
}

/// Where a replica that lost something may begin (R16): only what is sealed was surely committed.
pub(super) fn proved_commit(found: &RecoveredGroup) -> EntryIndex {
    let sealed = found.segments.iter().rev().find(|s| s.sealed).and_then(|s| s.rows.last()).map(last_index);
    sealed.unwrap_or(found.first_index.prev())
}

/// M9: may a replica begin empty? Only one that the controller assigned to this directory, and that was never opened:
/// an empty directory of one that was would be a forgotten vote.
pub fn may_begin_empty(assigned: Option<u32>, opened: &BTreeSet<u32>, incarnation: u32) -> bool {
    assigned == Some(incarnation) && !opened.contains(&incarnation)
}

/// M8: what must be durable before the longest survivor of a group may go on alone. An operator's decision: what only the
/// others had is lost. They come back as new peers.
pub struct Unclean {
    /// Behind the last entry: the members become this replica alone.
    pub entries: Vec<NewEntry>,
    pub hard: Hard,
}

/// Chooses nothing: `found` must be the survivor with the greatest (last term, last index), and all others stopped.
/// `others`: every other member, voters and learners.
pub fn unclean(found: &RecoveredGroup, me: PeerId, others: &[PeerId]) -> Option<Unclean> {
    use super::conf::{ConfChange, ConfStep};
    use catchwater_record::LeaderEpoch;
    use catchwater_storage::format::context::encode_conf;
    let log = Log::open(found.clone()).ok()?;
    let term = found.hard.term.max(log.last_term().0).checked_add(UNCLEAN_TERMS)?;
    if term >= super::guard::TERM_MAX {
        return None;
    }
    let steps: Vec<ConfStep> = others.iter().filter(|p| **p != me).map(|p| ConfStep::Remove(*p)).collect();
    let mut index = log.last_index();
    let entries = [ConfChange::of(steps), ConfChange::leave()].into_iter().map(|change| {
        index = index.next();
        let context = encode_conf(&change.encode())?;
        Some(NewEntry {
            index,
            term: LeaderEpoch(term),
            kind: EntryKind::Conf,
            flags: entry::derive_flags(EntryKind::Conf, &[], &context),
            base_offset: log.next_offset(),
            count: 0,
            max_ts: -1,
            body: bytes::Bytes::new(),
            context,
        })
    });
    let entries: Vec<NewEntry> = entries.collect::<Option<_>>()?;
    let commit = entries.last()?.index;
    Some(Unclean { entries, hard: Hard { term, vote: me.0, commit } })
}

impl GroupCore {
    /// True while this replica votes for nobody and is asked for nothing.
    pub fn is_mute(&self) -> bool {
        self.rejoin.mute
    }

    #[cfg(test)]
    pub(super) fn rejoin_bound(&self) -> Option<EntryIndex> {
        self.rejoin.bound.map(|(_, bound)| bound)
    }

    pub(super) fn roll_row(&self) -> RollRow {
        let raft = &self.node.raft;
        let log = self.log();
        let commit = EntryIndex(raft.raft_log.committed);
        RollRow {
            suspect: self.rejoin.mute,
            leader: raft.state == StateRole::Leader,
            learner: self.conf().learners.contains(&self.config.peer),
            term: raft.term as u32,
            first_index: log.first_index(),
            last_index: log.last_index(),
            last_term: log.last_term().0,
            commit,
            commit_term: log.term(commit).map_or(0, |t| t.0),
        }
    }

    fn say(&self, to: PeerId, body: PeerBody, out: &mut Effects<Effect>) {
        let term = self.node.raft.term as u32;
        out.push(Effect::Send(PeerMsg { gid: self.gid, from: self.config.peer, to, term, body }));
    }

    /// The first thing in a new stream (M2).
    pub(super) fn on_stream_up(&mut self, peer: PeerId, out: &mut Effects<Effect>) {
        self.say(peer, PeerBody::Roll { row: self.roll_row(), ask: false }, out);
    }

    pub(super) fn on_stream_down(&mut self, node: NodeId) {
        self.rejoin.rows.retain(|p, _| p.node() != node);
        let peers: Vec<u64> = self.node.raft.prs().iter().map(|(id, _)| *id).collect();
        for id in peers.into_iter().filter(|id| PeerId(*id).node() == node) {
            self.node.report_unreachable(id);
            self.snapshot_ended(PeerId(id), false);
        }
        let raft = &mut self.node.raft;
        if raft.state == StateRole::Follower && raft.leader_id != 0 && PeerId(raft.leader_id).node() == node {
            // Keeps the vote; whoever stands next is not held back by the dead one's lease.
            let term = raft.term;
            raft.become_follower(term, 0);
        }
    }

    /// R14: the crate waits for ever for a snapshot that was lost.
    pub(super) fn snapshot_ended(&mut self, peer: PeerId, arrived: bool) {
        if self.rejoin.snapshots.remove(&peer).is_some() && !mutant!("lost_snapshot_not_reported") {
            let status = if arrived { raft::SnapshotStatus::Finish } else { raft::SnapshotStatus::Failure };
            self.node.report_snapshot(peer.0, status);
        }
    }

    pub(super) fn tick_rejoin(&mut self, out: &mut Effects<Effect>) {
        if self.node.raft.state != StateRole::Leader {
            self.rejoin.snapshots.clear();
            self.rejoin.resets.clear();
        } else {
            let prs = self.node.raft.prs();
            let waits = |id: PeerId| prs.get(id.0).is_some_and(|p| p.state == raft::ProgressState::Snapshot);
            self.rejoin.snapshots.retain(|id, _| waits(*id));
            self.rejoin.snapshots.values_mut().for_each(|t| *t += 1);
            let late: Vec<PeerId> =
                self.rejoin.snapshots.iter().filter(|(_, t)| **t >= SNAPSHOT_TICKS).map(|(p, _)| *p).collect();
            late.into_iter().for_each(|peer| self.snapshot_ended(peer, false));
            let matched = |id: PeerId| self.node.raft.prs().get(id.0).map_or(u64::MAX, |p| p.matched);
            let held: Vec<PeerId> =
                self.rejoin.resets.iter().filter(|(p, bound)| matched(**p) >= bound.0).map(|(p, _)| *p).collect();
            self.rejoin.resets.retain(|p, _| !held.contains(p));
        }
        self.rejoin.asked = self.rejoin.asked.saturating_add(1);
        // Nobody feeds it: it asks everybody, and so knows whether all are there.
        if self.rejoin.mute && self.node.raft.leader_id == 0 && self.rejoin.asked >= 2 * ASK_TICKS {
            self.rejoin.asked = 0;
            for peer in self.others() {
                self.say(peer, PeerBody::Roll { row: self.roll_row(), ask: true }, out);
            }
        }
    }

    fn others(&self) -> BTreeSet<PeerId> {
        let conf = self.conf();
        conf.voters.iter().chain(&conf.outgoing).copied().filter(|p| *p != self.config.peer).collect()
    }

    pub(super) fn on_roll(&mut self, from: PeerId, row: RollRow, ask: bool, out: &mut Effects<Effect>) {
        self.rejoin.rows.insert(from, row);
        let raft = &mut self.node.raft;
        if raft.state != StateRole::Leader {
            if ask {
                self.say(from, PeerBody::Roll { row: self.roll_row(), ask: false }, out);
            }
            return self.cut_void_tail(out);
        }
        let (last, committed) = (raft.raft_log.last_index(), raft.raft_log.committed);
        let Some(progress) = raft.mut_prs().get_mut(from.0) else { return };
        let forgot = self.rejoin.resets.get(&from).is_some_and(|bound| row.last_index < *bound);
        if !(row.suspect || row.last_index.0 < progress.matched || forgot) {
            // The stream is a new one: what was in flight is not.
            return self.node.report_unreachable(from.0);
        }
        // R17: in this order; the other way round everything is sent again from the first entry on.
        if !mutant!("rejoin_reset_wrong_order") {
            progress.become_probe();
        }
        progress.matched = 0;
        progress.next_idx = last + 1;
        progress.pending_snapshot = 0;
        progress.recent_active = true;
        if mutant!("rejoin_reset_wrong_order") {
            progress.become_probe();
        }
        self.rejoin.snapshots.remove(&from);
        // M3: not the commit, which a fresh leader may not know yet.
        let bound = EntryIndex(if mutant!("mute_bound_is_commit") { committed } else { last });
        self.rejoin.resets.insert(from, bound);
        self.say(from, PeerBody::RollOk { bound }, out);
    }

    pub(super) fn on_roll_ok(&mut self, term: u32, bound: EntryIndex, out: &mut Effects<Effect>) {
        if u64::from(term) < self.node.raft.term || self.rejoin.bound.is_some_and(|(t, _)| t > term) {
            return;
        }
        if self.node.raft.state == StateRole::Leader {
            return;
        }
        if !self.rejoin.mute {
            // Its peers know of entries that it does not have: the loss went unnoticed.
            self.rejoin.mute = true;
            out.push(Effect::Muted);
        }
        self.rejoin.bound = Some((term, bound));
    }

    /// M1: what a mute replica does not hear. False: the message goes no further.
    pub(super) fn hears(&mut self, msg: &PeerMsg, out: &mut Effects<Effect>) -> bool {
        if let PeerBody::VoteReply { reject: false, .. } = &msg.body
            && self.rejoin.rows.get(&msg.from).is_some_and(|r| r.suspect)
            && !self.holds_what_is_known()
        {
            // It compared the ends of logs. What others know to be committed only the roll call tells, and who has it.
            return false;
        }
        if !self.rejoin.mute {
            return true;
        }
        match &msg.body {
            PeerBody::TimeoutNow => false,
            PeerBody::Vote { last_index, last_term, .. } => {
                self.node.raft.leader_id == 0 && self.may_win(*last_term, *last_index)
            }
            // A leader of an older term must hear of the newer one.
            PeerBody::Append { .. } | PeerBody::Beat { .. } if u64::from(msg.term) < self.node.raft.term => true,
            PeerBody::Append { .. } | PeerBody::Beat { .. } | PeerBody::Snap(_) => {
                let fed = self.rejoin.bound.is_some_and(|(term, _)| term == msg.term);
                if !fed && self.rejoin.asked >= ASK_TICKS && u64::from(msg.term) >= self.node.raft.term {
                    self.rejoin.asked = 0;
                    self.say(msg.from, PeerBody::Roll { row: self.roll_row(), ask: true }, out);
                }
                fed
            }
            _ => true,
        }
    }

    /// M4: an acknowledgement up to the bound, to the leader that set it, leaves.
    pub(super) fn told_ack(&mut self, msg: &PeerMsg, out: &mut Effects<Effect>) {
        if let (true, Some((term, bound)), PeerBody::Ack { index, reject: None, .. }) =
            (self.rejoin.mute, self.rejoin.bound, &msg.body)
            && msg.term == term
            && *index >= bound
        {
            self.unmute(out);
        }
    }

    pub(super) fn unmute(&mut self, out: &mut Effects<Effect>) {
        self.rejoin.mute = false;
        self.rejoin.bound = None;
        out.push(Effect::Unmuted);
        // Its vote counts again without a roll call.
        for peer in self.others() {
            self.say(peer, PeerBody::Roll { row: self.roll_row(), ask: false }, out);
        }
    }

    /// M6: the roll call is complete, and nobody knows of a committed entry that is not here.
    fn holds_what_is_known(&self) -> bool {
        self.roll_call().is_some_and(|rows| !rows.iter().any(|(_, r)| self.contradicts(r)))
    }

    /// M6: every voter of both halves has said what it has; and no one leads. Their rows and the own one.
    fn roll_call(&self) -> Option<Vec<(PeerId, RollRow)>> {
        let mut rows = vec![(self.config.peer, self.roll_row())];
        for peer in self.others() {
            match self.rejoin.rows.get(&peer) {
                Some(row) if row.leader => return None,
                Some(row) => rows.push((peer, *row)),
                None if mutant!("rollcall_missing_voter") => {}
                None => return None,
            }
        }
        Some(rows)
    }

    /// Nobody has more than a candidate with this end, as far as the roll call knows.
    fn may_win(&self, last_term: u32, last_index: EntryIndex) -> bool {
        self.roll_call()
            .is_some_and(|rows| rows.iter().all(|(_, r)| (r.last_term, r.last_index) <= (last_term, last_index)))
    }

    /// It has the greatest log of all, holds whatever anybody knows to be committed, and stands first among equals.
    pub(super) fn may_stand(&self) -> bool {
        let log = self.log();
        let (mine, me) = ((log.last_term().0, log.last_index()), self.config.peer);
        let voter = self.conf().voters.contains(&me);
        let Some(rows) = self.roll_call() else { return false };
        let first = |peer: PeerId| self.conf().voters.iter().position(|v| *v == peer).unwrap_or(usize::MAX);
        voter
            && rows.iter().filter(|(p, _)| *p != me).all(|(p, r)| {
                let theirs = (r.last_term, r.last_index);
                (mine > theirs || (mine == theirs && first(me) < first(*p))) && !self.contradicts(r)
            })
    }

    fn contradicts(&self, row: &RollRow) -> bool {
        let log = self.log();
        let below = row.commit < log.first_index() || mutant!("rollcall_ignores_commit");
        !below && row.commit.0 > 0 && log.term(row.commit).map(|t| t.0) != Some(row.commit_term)
    }

    /// A tail that contradicts what somebody knows to be committed is void, whoever of the two lost something: with it, an old
    /// divergent end could beat a committed entry whose newer successor was lost with the power.
    fn cut_void_tail(&mut self, out: &mut Effects<Effect>) {
        let last = self.log().last_index();
        let heard = self.rejoin.rows.values().filter(|r| r.suspect || self.rejoin.mute);
        let void = heard.filter(|r| r.commit <= last && self.contradicts(r)).map(|r| r.commit).min();
        let Some(from) = void.filter(|from| from.0 > self.node.raft.raft_log.committed) else { return };
        if self.node.raft.state != StateRole::Follower {
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, 0);
        }
        if !self.pending.is_empty() {
            return; // with the next row: who lost something goes on asking
        }
        self.log_mut().truncate(from);
        if !self.rebuild() {
            return;
        }
        out.push(Effect::Persist {
            ready: self.newest_ready(),
            entries: Vec::new(),
            hard: None,
            truncate_from: Some(from),
        });
        for peer in self.others() {
            self.say(peer, PeerBody::Roll { row: self.roll_row(), ask: true }, out);
        }
    }

    /// The crate's node made anew over the log as it is now: nothing may be pending.
    fn rebuild(&mut self) -> bool {
        let numbers = self.ready_base + self.node_numbers;
        let raft = &self.node.raft;
        let hard = Hard {
            term: raft.term as u32,
            vote: raft.vote,
            commit: EntryIndex(raft.raft_log.committed.min(self.log().last_index().0)),
        };
        let config = super::crate_config(&self.config, hard.commit);
        let store = self.node.mut_store().take(hard);
        match RawNode::<Store>::new(&config, store, &slog::Logger::root(slog::Discard, slog::o!())) {
            Ok(node) => {
                self.node = node;
                self.ready_base = numbers;
                self.node_numbers = 0;
                true
            }
            Err(_) => false,
        }
    }
}
