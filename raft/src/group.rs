//! Pure. One replica of one Raft group.
//!
//! Walk: row-change 11/17
//! Walk: produce-fetch 8/14
//! Walk: commit-offset 6/8
//!
//! Everything of the consensus crate (TiKV's `raft` 0.7.0) stays behind this file and `group/*`. [`GroupCore::handle`]
//! is guard → step → Ready → `advance_append_async`, all under the partition's lock, without I/O, clock or thread.
//! ```text
//!              timeout, all persisted          won, noop appended              own term committed
//!  Follower ───────────────────────▶ Candidate ───────────────────▶ Leader ──────────────────▶ reads, barriers
//!     ▲                                  │                             │
//!     └── higher term, or a leader's append ◀──────────────────────────┘ quorum silent, StepDown
//!  any ── panic inside ──▶ Offline (opened again from disk)
//! ```
//! A sole voter campaigns at `Event::Start` and leads at once: its noop and HARD frame go out in one `Persist`.
//! Rules R1–R38 of the design's list are kept here (R36 with the transport's `Event::Unreachable`); members change through
//! `members.rs`, followers behind the first index get a prefix snapshot (`prefix.rs`), replicas that lost something are mute
//! until they hold it again (`rejoin.rs`). A lone voter whose durable state is not proved stays closed.

pub mod conf;
mod guard;
mod members;
mod prefix;
mod ready;
pub mod rejoin;
mod store;

use crate::effect::{
    Cause, Effect, Event, GroupView, PeerBody, PeerId, PeerMsg, Proposal, ProposalId, ReadyNo, Role, Why,
};
use catchwater_base::{Effects, Now, mutant, panic_point};
use catchwater_record::{BatchView, EntryIndex, Gid, LeaderEpoch, Offset, batch};
use catchwater_storage::{EntryContext, EntryKind, Hard, Log, LogConfig, LogOpenError, RecoveredGroup, Verdict};
use conf::{ConfError, ConfState};
use raft::eraftpb::{Entry, Message, MessageType};
use raft::{RawNode, StateRole};
use ready::Pending;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use store::Store;

/// A HARD frame carries a fresh commit index at most this often, ticks (1 s).
const HARD_COMMIT_TICKS: u32 = 10;
const ELECTION_TICKS: usize = 10;
const HEARTBEAT_TICKS: usize = 2;
const APPEND_BYTES_MAX: u64 = 1 << 20;
const APPENDS_IN_FLIGHT: usize = 64;
/// Stripped entries handed out as committed by one Ready (R37), counted at 16 bytes each.
const COMMITTED_PER_READY: u64 = 64 << 10;

/// How a replica is opened.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    pub peer: PeerId,
    /// Bytes of batches above the commit index, beyond which proposals are refused. Default 64 MiB.
    pub uncommitted_bytes_max: u64,
    /// Bytes of batches in one message to a follower. Default 1 MiB; one entry always goes.
    pub append_bytes_max: u64,
    /// The peer id is a new one, given to this directory by the controller because the hard state of the old one is lost: it
    /// never voted, and keeps the proved prefix of the log.
    pub new_id: bool,
    pub log: LogConfig,
}

impl GroupConfig {
    pub fn new(peer: PeerId) -> Self {
        GroupConfig {
            peer,
            uncommitted_bytes_max: 64 << 20,
            append_bytes_max: APPEND_BYTES_MAX,
            new_id: false,
            log: LogConfig::default(),
        }
    }
}

/// Why a replica cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("group {gid}: {cause}")]
    Conf { gid: Gid, cause: ConfError },
    #[error("group {gid}: this node is {peer}, which is not a member")]
    NotMember { gid: Gid, peer: PeerId },
    #[error("group {gid}: {cause}")]
    Log { gid: Gid, cause: LogOpenError },
    #[error(
        "group {gid} of {voters} voters: durable state is missing ({verdict:?}); it stays closed until it is repaired"
    )]
    NotProven { gid: Gid, voters: usize, verdict: Verdict },
    #[error("group {gid}: {cause}")]
    Core { gid: Gid, cause: String },
}

/// See the file head.
pub struct GroupCore {
    gid: Gid,
    config: GroupConfig,
    seed: u64,
    node: RawNode<Store>,
    pending: VecDeque<Pending>,
    /// Newest hard state that went into a `Persist`.
    hard: Hard,
    hard_age_ticks: u32,
    /// Ready whose term or vote is not durable yet.
    hard_pending: Option<u64>,
    /// What the last `Role`, `Commit` and `Durable` effects said.
    told_role: (Role, u32, u64),
    told_commit: u64,
    told_durable: u64,
    /// Last leader other than this replica: ranks the others for the next election.
    last_leader: u64,
    /// Barriers that wait for the first commit of the own term.
    barriers: Vec<u64>,
    /// Barriers handed to the crate.
    barriers_asked: Vec<u64>,
    /// The members are those of the entries up to here (R34: each change is applied once).
    conf_index: EntryIndex,
    rejoin: rejoin::Rejoin,
    /// Added to the crate's own numbers of Readies; and the newest of those.
    ready_base: u64,
    node_numbers: u64,
    /// A Ready with a snapshot that is not durable yet, and the index it stands at.
    installing: Option<(u64, u64)>,
    offline: bool,
}

impl GroupCore {
    /// Takes over what recovery found. Gives no effect yet: send [`Event::Start`] when the shell can perform them.
    pub fn open(config: &GroupConfig, mut found: RecoveredGroup, seed: u64) -> Result<Self, OpenError> {
        let gid = found.gid;
        let first = ConfState::decode(&found.spec.conf).map_err(|cause| OpenError::Conf { gid, cause })?;
        let peer = config.peer;
        // A replica that was removed later still opens: only who never belonged here does not.
        if !first.has(peer) && !config.new_id {
            return Err(OpenError::NotMember { gid, peer });
        }
        let (verdict, mut hard) = (found.verdict, found.hard);
        let not_proven = |voters| Err(OpenError::NotProven { gid, voters, verdict });
        let lost = matches!(verdict, Verdict::Suspect | Verdict::Damaged);
        if verdict == Verdict::Damaged || (lost && first.is_sole(peer)) {
            return not_proven(first.voters.len());
        }
        if (lost || config.new_id) && !mutant!("suspect_keeps_commit") {
            found.hard.commit = rejoin::proved_commit(&found);
        }
        let mut log = Log::open_with(found, config.log.clone()).map_err(|cause| OpenError::Log { gid, cause })?;
        let applied = log.commit();
        let (conf, conf_index) = members::at(&mut log, applied).map_err(|cause| OpenError::Conf { gid, cause })?;
        let sole = conf.is_sole(peer);
        // A lone voter has nobody to repair it from, and going on would put new entries in the place of lost ones: it stays
        // closed until somebody decides. Only an uncertain hard state has a safe answer, the next term.
        if lost && sole {
            return not_proven(conf.voters.len());
        }
        if config.new_id {
            hard = Hard { term: log.last_term().0, vote: 0, commit: hard.commit };
        } else if verdict == Verdict::HardStateUncertain || hard.term < log.last_term().0 {
            // A lone voter has nobody to contradict: the next term is surely unused. Others come back under a new id.
            if !sole {
                return not_proven(conf.voters.len());
            }
            hard = Hard { term: hard.term.max(log.last_term().0) + 1, vote: 0, commit: hard.commit };
        }
        // R16: a hint, never beyond what is there.
        hard.commit = log.commit();
        let core_config = crate_config(config, hard.commit);
        let durable = log.last_index().0;
        let store = Store::new(log, hard, conf);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let made = catch_unwind(AssertUnwindSafe(|| RawNode::new(&core_config, store, &logger)));
        let node = match made {
            Ok(Ok(node)) => node,
            Ok(Err(e)) => return Err(OpenError::Core { gid, cause: e.to_string() }),
            Err(panic) => return Err(OpenError::Core { gid, cause: panic_text(panic) }),
        };
        Ok(GroupCore {
            gid,
            config: config.clone(),
            seed,
            node,
            pending: VecDeque::new(),
            hard,
            hard_age_ticks: 0,
            hard_pending: None,
            told_role: (Role::Follower, hard.term, 0),
            told_commit: hard.commit.0,
            told_durable: durable,
            last_leader: 0,
            barriers: Vec::new(),
            barriers_asked: Vec::new(),
            conf_index,
            rejoin: rejoin::Rejoin::new(lost && !config.new_id && !mutant!("mute_rule_off")),
            ready_base: 0,
            node_numbers: 0,
            installing: None,
            offline: false,
        })
    }

    pub fn gid(&self) -> Gid {
        self.gid
    }
    pub fn log(&self) -> &Log {
        &self.node.store().log
    }
    pub fn log_mut(&mut self) -> &mut Log {
        &mut self.node.mut_store().log
    }

    pub fn view(&self) -> GroupView {
        let raft = &self.node.raft;
        let log = &raft.store().log;
        let commit = raft.raft_log.committed;
        GroupView {
            role: role_of(raft.state),
            term: LeaderEpoch(raft.term as u32),
            leader: Some(PeerId(raft.leader_id)).filter(|p| p.0 != 0),
            last: log.last_index(),
            persisted: log.persisted_index(),
            commit: EntryIndex(commit),
            log_start: log.log_start(),
            high_watermark: log.high_watermark(),
            persisted_end: log.end_offset_at(log.persisted_index()).max(log.log_start()),
            spec_end: log.next_offset(),
            own_term_committed: self.own_term_committed(),
            voters: raft.store().conf.voters.len(),
            mute: self.rejoin.mute,
            offline: self.offline,
        }
    }

    /// One event in, effects out. A panic inside takes this group offline and nothing else (R29): its shell fails every
    /// waiter and opens it again from disk.
    pub fn handle(&mut self, _now: Now, event: Event, out: &mut Effects<Effect>) {
        if self.offline {
            self.refuse(event, out);
            return;
        }
        let before = out.len();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.step(event, out))) {
            out.truncate(before);
            self.go_offline(Cause::Panic(panic_text(panic)), out);
        }
    }

    fn refuse(&mut self, event: Event, out: &mut Effects<Effect>) {
        match event {
            Event::Propose(all) => {
                for p in all {
                    out.push(Effect::Refused(p.id, Why::Offline));
                }
            }
            Event::ReadBarrier(token) => out.push(Effect::ReadRefused(token)),
            Event::ChangeConf(id, _) => out.push(Effect::Refused(id, Why::Offline)),
            _ => {}
        }
    }

    fn go_offline(&mut self, cause: Cause, out: &mut Effects<Effect>) {
        self.offline = true;
        for token in self.barriers.drain(..).chain(self.barriers_asked.drain(..)) {
            out.push(Effect::ReadRefused(token));
        }
        out.push(Effect::Offline(cause));
    }

    fn step(&mut self, event: Event, out: &mut Effects<Effect>) {
        match event {
            Event::Start => {
                if self.config.new_id {
                    // The hard state of the old id must not come back.
                    let hard = Some(self.hard);
                    let ready = ReadyNo(0);
                    out.push(Effect::Persist { ready, entries: Vec::new(), hard, truncate_from: None });
                }
                if self.sole_voter() {
                    self.campaign();
                }
            }
            Event::Tick(n) => {
                // More than an election timeout at once means nothing: this process slept.
                for _ in 0..n.min(2 * ELECTION_TICKS as u32) {
                    self.tick();
                    self.tick_rejoin(out);
                    self.pump(out);
                }
            }
            Event::Message(m) => self.on_message(m, out),
            Event::Propose(all) => {
                self.on_propose(all, out);
                panic_point!("group.propose", self.gid.0);
            }
            Event::Persisted(ready) => {
                self.on_persisted(ready, out);
                panic_point!("group.persisted", self.gid.0);
            }
            Event::Segmented(upto, placed) => {
                self.log_mut().segmented(upto, &placed);
                return;
            }
            Event::Replaced(segment) => {
                self.log_mut().replaced(*segment);
                return;
            }
            Event::Fetched(token, entries) => {
                if let Some(context) = self.node.store().fetched(token, entries) {
                    self.node.on_entries_fetched(context);
                }
            }
            Event::ReadBarrier(token) => self.barriers.push(token),
            Event::StreamUp(peer) => self.on_stream_up(peer, out),
            Event::StreamDown(node) => self.on_stream_down(node),
            Event::Unreachable(peer) => self.node.report_unreachable(peer.0),
            Event::SnapshotSent(peer, arrived) => self.snapshot_ended(peer, arrived),
            Event::StepDown => {
                if self.node.raft.state == StateRole::Leader {
                    let term = self.node.raft.term;
                    self.node.raft.become_follower(term, 0);
                }
            }
            Event::Transfer(peer) => self.transfer(peer),
            Event::ChangeConf(id, change) => self.on_change_conf(id, &change, out),
        }
        self.pump(out);
        self.node.store().forget_fetched();
        if !self.offline && self.leave_joint() {
            self.pump(out);
        }
        if !self.offline {
            self.tell(out);
        }
    }

    /// Everything that others watch: role, commit, durability, barriers.
    fn tell(&mut self, out: &mut Effects<Effect>) {
        let raft = &self.node.raft;
        let role = (role_of(raft.state), raft.term as u32, raft.leader_id);
        let (committed, persisted) = (raft.raft_log.committed, raft.raft_log.persisted);
        if role.2 != 0 && role.2 != self.config.peer.0 {
            self.last_leader = role.2;
        }
        if role.0 == Role::Leader && self.rejoin.mute {
            // It won a roll call: nobody has more than it.
            self.unmute(out);
        }
        if role != self.told_role {
            if role.0 == Role::Leader && mutant!("producer_state_lost_on_leader_change") {
                self.log_mut().expire_producers(0, 0);
            }
            self.told_role = role;
            let leader = Some(PeerId(role.2)).filter(|p| p.0 != 0);
            out.push(Effect::Role { role: role.0, term: LeaderEpoch(role.1), leader });
        }
        let log = &mut self.node.mut_store().log;
        log.persisted(EntryIndex(persisted));
        if persisted != self.told_durable {
            // Falls when a tail was cut; waiters look at (index, term).
            self.told_durable = persisted;
            out.push(Effect::Durable(EntryIndex(persisted), log.end_offset_at(EntryIndex(persisted))));
        }
        // R12: commit is what the crate says, not what it has handed out.
        log.committed(EntryIndex(committed));
        let commit = match role.0 {
            Role::Leader if mutant!("ack_on_leader_append") => (log.last_index(), log.next_offset()),
            _ if mutant!("hw_moves_back") && committed % 7 == 0 => (EntryIndex(committed), log.log_start()),
            _ => (EntryIndex(committed), log.high_watermark()),
        };
        if commit.0.0 > self.told_commit {
            self.told_commit = commit.0.0;
            out.push(Effect::Commit(commit.0, commit.1));
        }
        self.tell_barriers(out);
        for wanted in self.node.store().take_wanted() {
            out.push(Effect::ColdRead { token: wanted.token, rows: wanted.rows });
        }
    }

    fn tell_barriers(&mut self, out: &mut Effects<Effect>) {
        if self.barriers.is_empty() && self.barriers_asked.is_empty() {
            return;
        }
        if self.node.raft.state != StateRole::Leader {
            for token in self.barriers.drain(..).chain(self.barriers_asked.drain(..)) {
                out.push(Effect::ReadRefused(token));
            }
            return;
        }
        // Before its first commit a leader does not know what is committed; the crate would drop the question.
        if mutant!("barrier_without_quorum") {
            let index = EntryIndex(self.node.raft.raft_log.committed);
            for token in self.barriers.drain(..) {
                out.push(Effect::ReadReady(token, index));
            }
        }
        if !self.barriers.is_empty() && self.own_term_committed() {
            for token in std::mem::take(&mut self.barriers) {
                self.node.read_index(token.to_le_bytes().to_vec());
                self.barriers_asked.push(token);
            }
            self.take_read_states(out);
            self.pump(out);
        }
        self.take_read_states(out);
    }

    /// Answered barriers, straight from the crate: before a Ready takes them along.
    pub(super) fn take_read_states(&mut self, out: &mut Effects<Effect>) {
        for state in std::mem::take(&mut self.node.raft.read_states) {
            let Ok(token) = <[u8; 8]>::try_from(&state.request_ctx[..]).map(u64::from_le_bytes) else { continue };
            if let Some(at) = self.barriers_asked.iter().position(|t| *t == token) {
                self.barriers_asked.swap_remove(at);
                out.push(Effect::ReadReady(token, EntryIndex(state.index)));
            }
        }
    }

    fn own_term_committed(&self) -> bool {
        self.node.raft.state == StateRole::Leader && self.node.raft.commit_to_current_term()
    }

    fn sole_voter(&self) -> bool {
        self.node.store().conf.is_sole(self.config.peer)
    }

    /// R15, R13: never while something is not durable; the crate would panic, or promise what it does not have. M1: nor
    /// while something is missing.
    fn may_campaign(&self) -> bool {
        let log = &self.node.raft.raft_log;
        let durable = log.last_index() == log.persisted && self.installing.is_none();
        (durable || mutant!("campaign_before_persisted")) && (!self.rejoin.mute || self.may_stand())
    }

    fn campaign(&mut self) {
        if self.node.raft.state != StateRole::Leader && self.may_campaign() {
            // The crate returns errors for ordinary races (R33).
            let _ = self.node.campaign();
        }
    }

    fn tick(&mut self) {
        self.hard_age_ticks = self.hard_age_ticks.saturating_add(1);
        // R20: the crate draws this from the thread's generator; pinned before it can be looked at.
        let timeout = self.election_timeout();
        let raft = &mut self.node.raft;
        raft.set_randomized_election_timeout(timeout);
        let would_campaign = raft.state != StateRole::Leader && raft.election_elapsed + 1 >= timeout;
        if would_campaign && self.rejoin.mute && self.node.raft.leader_id != 0 {
            // Nobody feeds it any more.
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, 0);
            return;
        }
        if would_campaign && !self.may_campaign() {
            return;
        }
        self.node.tick();
    }

    /// 12 + 2 × rank ticks (+ 0..1 by hash, at most 19). Rank = place among the voters without the last leader: the
    /// preferred replica comes first, and 12 > 10 lets every other lease run out before the first question.
    fn election_timeout(&self) -> usize {
        let voters = &self.node.store().conf.voters;
        let others = voters.iter().filter(|v| v.0 != self.last_leader);
        let rank = others.take_while(|v| **v != self.config.peer).count();
        let salt = self.gid.0 ^ self.config.peer.0 ^ self.node.raft.term ^ self.seed;
        let odd = (salt.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 63) as usize;
        (12 + 2 * rank + odd).min(2 * ELECTION_TICKS - 1)
    }

    fn on_message(&mut self, msg: PeerMsg, out: &mut Effects<Effect>) {
        match &msg.body {
            PeerBody::Roll { row, ask } if msg.gid == self.gid && msg.to == self.config.peer => {
                return self.on_roll(msg.from, *row, *ask, out);
            }
            PeerBody::RollOk { bound } if msg.gid == self.gid && msg.to == self.config.peer => {
                return self.on_roll_ok(msg.term, *bound, out);
            }
            _ => {}
        }
        if !self.hears(&msg, out) {
            return;
        }
        if let Err(rule) = guard::check(self.gid, &self.node, &msg) {
            out.push(Effect::Guarded(msg.from, rule));
            return;
        }
        if let PeerBody::Snap(snapshot) = msg.body {
            return self.on_snapshot(msg.from, msg.term, *snapshot);
        }
        let message = guard::incoming(msg);
        if message.get_msg_type() == MessageType::MsgTimeoutNow && !self.may_campaign() {
            return;
        }
        // An answer to an election or membership that is over is an outcome, not a fault (R33).
        let _ = self.node.step(message);
    }

    /// R1, R2: one step for the round, only as leader, entries made by hand.
    fn on_propose(&mut self, all: Vec<Proposal>, out: &mut Effects<Effect>) {
        if self.node.raft.state != StateRole::Leader {
            for p in all {
                out.push(Effect::Refused(p.id, Why::NotLeader));
            }
            return;
        }
        let term = LeaderEpoch(self.node.raft.term as u32);
        let log = self.log();
        let (mut index, mut next) = (log.last_index().next(), log.next_offset());
        let mut bytes = log.uncommitted_bytes();
        let mut entries = Vec::with_capacity(all.len());
        let mut placed: Vec<(ProposalId, EntryIndex, Offset, Offset)> = Vec::with_capacity(all.len());
        for mut p in all {
            let Some(count) = offsets_of(&p) else {
                out.push(Effect::Refused(p.id, Why::Invalid));
                continue;
            };
            let len = p.body.len() as u64;
            if bytes > 0 && bytes + len > self.config.uncommitted_bytes_max {
                out.push(Effect::Refused(p.id, Why::NoRoom));
                continue;
            }
            bytes += len;
            let mut e = Entry::default();
            if p.kind == EntryKind::Data {
                batch::patch(&mut p.body, next, term);
                e.data = p.body.freeze();
            }
            e.context = p.context;
            entries.push(e);
            let end = next.plus(u64::from(count));
            placed.push((p.id, index, next, end));
            index = index.next();
            next = end;
        }
        if entries.is_empty() {
            return;
        }
        let mut m = Message::default();
        m.set_msg_type(MessageType::MsgPropose);
        m.from = self.config.peer.0;
        m.set_entries(entries.into());
        match self.node.raft.step(m) {
            Ok(()) => {
                for (id, index, base_offset, end_offset) in placed {
                    out.push(Effect::Proposed { id, index, term, base_offset, end_offset });
                }
            }
            Err(_) => {
                for (id, ..) in placed {
                    out.push(Effect::Refused(id, Why::Dropped));
                }
            }
        }
    }
}

/// Offsets a proposal takes; `None` if body, kind and context do not agree.
fn offsets_of(p: &Proposal) -> Option<u32> {
    let context = EntryContext::decode(&p.context).ok()?;
    match p.kind {
        EntryKind::Data => {
            let batch = BatchView::new(&p.body).ok()?;
            let plain = matches!(context.kind_without_body(), EntryKind::Noop | EntryKind::Ctl)
                && context.fence.is_none()
                && context.capture_drop.is_none();
            Some(batch.offset_count()).filter(|n| *n > 0 && plain)
        }
        // Membership and gaps are nobody's to propose here.
        EntryKind::LogStart | EntryKind::Ctl => {
            (p.body.is_empty() && context.kind_without_body() == p.kind).then_some(0)
        }
        EntryKind::Noop | EntryKind::Conf | EntryKind::Gap => None,
    }
}

fn crate_config(config: &GroupConfig, applied: EntryIndex) -> raft::Config {
    raft::Config {
        id: config.peer.0,
        election_tick: ELECTION_TICKS,
        heartbeat_tick: HEARTBEAT_TICKS,
        applied: applied.0,
        max_size_per_msg: if mutant!("uncommitted_counted_by_the_crate") { 4 << 10 } else { config.append_bytes_max },
        max_inflight_msgs: APPENDS_IN_FLIGHT,
        check_quorum: true,
        pre_vote: true,
        skip_bcast_commit: true,
        batch_append: false,
        priority: 0,
        max_uncommitted_size: if mutant!("uncommitted_counted_by_the_crate") { 16 << 10 } else { raft::NO_LIMIT },
        max_committed_size_per_ready: COMMITTED_PER_READY,
        ..raft::Config::default()
    }
}

fn role_of(state: StateRole) -> Role {
    match state {
        StateRole::Follower => Role::Follower,
        StateRole::PreCandidate | StateRole::Candidate => Role::Candidate,
        StateRole::Leader => Role::Leader,
    }
}

/// What a panic said.
pub fn panic_text(panic: Box<dyn std::any::Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(other) => other.downcast::<&'static str>().map_or_else(|_| "unknown".into(), |s| (*s).into()),
    }
}

#[cfg(test)]
mod tests;
