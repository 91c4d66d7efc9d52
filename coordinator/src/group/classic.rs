//! Pure. One classic group as its coordinator lives with it: members, generations, who waits for what.
//!
//! Walk: commit-offset 3/8
//!
//! ```text
//!            first join / any change of members            all have joined, or the rebalance timeout
//!   Empty ──────────────────────────────▶ Preparing ───────────────────────────────────────▶ Completing
//!     ▲                                     ▲   │ nobody left                                   │ the leader's
//!     └─────────────────────────────────────┼───┘                                               │ assignment is stored
//!                                           └──────────────── Stable ◀──────────────────────────┘
//!                 a member leaves, expires, joins anew, changes its protocols, never syncs
//! ```
//! All of it is soft: lost with leadership. What survives is the [`Meta`] written when a generation becomes stable or
//! the group empty. Source: `ClassicGroup` and `GroupMetadataManager` of Apache Kafka 4.x; KIP-345, 394, 814.

mod join;

use super::records::{GroupRecord, Meta, MetaMember};
use super::{Described, DescribedMember, GroupError, Heartbeat, LeaveMember, Reply, Settings, Sync, Synced};
use bytes::Bytes;
use catchwater_base::{Mono, Now, Ticket};
use catchwater_record::GroupName;
use std::collections::{BTreeMap, BTreeSet};

/// What one decision works with.
pub(super) struct Turn<'a> {
    pub now: Now,
    pub settings: &'a Settings,
    pub group: &'a GroupName,
    pub records: &'a mut Vec<GroupRecord>,
    pub replies: &'a mut Vec<(Ticket, Reply)>,
}

impl Turn<'_> {
    fn reply(&mut self, ticket: Ticket, reply: Reply) {
        self.replies.push((ticket, reply));
    }
    fn fail_join(&mut self, ticket: Ticket, error: GroupError) {
        self.reply(ticket, Reply::Join(Err(error)));
    }
    fn after(&self, ms: i32) -> Mono {
        self.now.mono.plus_millis(span(ms))
    }
}

/// A client's time, at least 1 ms: a deadline lies behind the moment it was set in.
fn span(ms: i32) -> u64 {
    u64::try_from(ms).unwrap_or(0).max(1)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Empty,
    Preparing,
    Completing,
    Stable,
}

#[derive(Debug)]
pub(super) struct Live {
    state: State,
    generation: i32,
    protocol_type: String,
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Instance id → member id.
    instances: BTreeMap<String, String>,
    /// Ids given out that have not joined yet, and until when they may.
    pending: BTreeMap<String, Mono>,
    /// Members of this generation that have not asked for their assignment.
    unsynced: BTreeSet<String>,
    /// End of the join phase.
    join_until: Mono,
    /// Present while an empty group waits for its first members: what may still be added to `join_until`, ms.
    initial: Option<Initial>,
    sync_until: Option<Mono>,
    /// A member of the present generation has gone, and no rebalance has begun for it yet.
    lost: bool,
    /// When the state began, wall ms.
    state_ms: i64,
}

#[derive(Clone, Copy, Debug)]
struct Initial {
    remaining_ms: u64,
    /// Somebody joined since the delay began: worth waiting on.
    grew: bool,
}

#[derive(Clone, Debug)]
struct Member {
    instance: Option<String>,
    client_id: String,
    client_host: String,
    rebalance_timeout_ms: i32,
    session_timeout_ms: i32,
    protocols: Vec<(String, Bytes)>,
    assignment: Bytes,
    joining: Option<Ticket>,
    syncing: Option<Ticket>,
    /// In its first join: expires by its own time, although it waits.
    is_new: bool,
    expires: Mono,
}

impl Member {
    fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols.iter().find(|(name, _)| name == protocol).map(|(_, m)| m.clone()).unwrap_or_default()
    }
    /// Who waits for the group is not silent.
    fn deadline(&self) -> Option<Mono> {
        let waits = self.joining.is_some() || self.syncing.is_some();
        (!waits || self.is_new).then_some(self.expires)
    }
}

impl Live {
    /// A group nobody has heard of.
    pub fn new(now: Now) -> Self {
        Live {
            state: State::Empty,
            generation: 0,
            protocol_type: String::new(),
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            pending: BTreeMap::new(),
            unsynced: BTreeSet::new(),
            join_until: Mono::NEVER,
            initial: None,
            sync_until: None,
            lost: false,
            state_ms: now.wall.as_millis(),
        }
    }

    /// The group as it was stored: stable if it has members, each of which counts as just heard.
    pub fn load(meta: &Meta, now: Now) -> Self {
        let mut live = Live::new(now);
        live.generation = meta.generation;
        live.protocol_type = meta.protocol_type.clone();
        live.state_ms = meta.state_ms;
        if meta.members.is_empty() {
            return live;
        }
        live.state = State::Stable;
        live.protocol = meta.protocol.clone();
        live.leader = meta.leader.clone();
        for m in &meta.members {
            if let Some(instance) = &m.instance {
                live.instances.insert(instance.clone(), m.member.clone());
            }
            let protocol = meta.protocol.clone().unwrap_or_default();
            let member = Member {
                instance: m.instance.clone(),
                client_id: m.client_id.clone(),
                client_host: m.client_host.clone(),
                rebalance_timeout_ms: m.rebalance_timeout_ms,
                session_timeout_ms: m.session_timeout_ms,
                protocols: vec![(protocol, m.subscription.clone())],
                assignment: m.assignment.clone(),
                joining: None,
                syncing: None,
                is_new: false,
                expires: now.mono.plus_millis(span(m.session_timeout_ms)),
            };
            live.members.insert(m.member.clone(), member);
        }
        live
    }

    fn meta(&self) -> Meta {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self.members.iter().map(|(id, m)| MetaMember {
            member: id.clone(),
            instance: m.instance.clone(),
            client_id: m.client_id.clone(),
            client_host: m.client_host.clone(),
            rebalance_timeout_ms: m.rebalance_timeout_ms,
            session_timeout_ms: m.session_timeout_ms,
            subscription: m.metadata(protocol),
            assignment: m.assignment.clone(),
        });
        Meta {
            protocol_type: self.protocol_type.clone(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_ms: self.state_ms,
            members: members.collect(),
        }
    }

    pub fn state(&self) -> State {
        self.state
    }
    pub fn protocol_type(&self) -> &str {
        &self.protocol_type
    }
    /// Nobody is there and nobody is expected: what is stored says it all.
    pub fn is_idle(&self) -> bool {
        self.state == State::Empty && self.pending.is_empty()
    }
    pub fn state_ms(&self) -> i64 {
        self.state_ms
    }
    /// Subscriptions of the members under the chosen protocol.
    pub fn subscriptions(&self) -> impl Iterator<Item = Bytes> {
        let protocol = self.protocol.clone().unwrap_or_default();
        self.members.values().map(move |m| m.metadata(&protocol))
    }

    pub fn describe(&self) -> Described {
        let stable = self.state == State::Stable;
        let protocol = self.protocol.clone().filter(|_| stable).unwrap_or_default();
        let members = self.members.iter().map(|(id, m)| DescribedMember {
            member: id.clone(),
            instance: m.instance.clone(),
            client_id: m.client_id.clone(),
            client_host: m.client_host.clone(),
            metadata: if stable { m.metadata(&protocol) } else { Bytes::new() },
            // As Kafka: what it had last is told until it gets another.
            assignment: m.assignment.clone(),
        });
        Described {
            state: self.state_name(),
            protocol_type: self.protocol_type.clone(),
            members: members.collect(),
            protocol,
        }
    }

    pub fn state_name(&self) -> &'static str {
        match self.state {
            State::Empty => "Empty",
            State::Preparing => "PreparingRebalance",
            State::Completing => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }

    /// When [`Live::wake`] has something to do.
    pub fn deadline(&self) -> Option<Mono> {
        let join = (self.state == State::Preparing).then_some(self.join_until);
        let members = self.members.values().filter_map(Member::deadline).min();
        let pending = self.pending.values().min().copied();
        [join, members, pending, self.sync_until].into_iter().flatten().min()
    }

    // ---- the rebalance ---------------------------------------------------------------------------------------------

    /// Something changed: everybody has to join again.
    fn prepare(&mut self, t: &mut Turn<'_>) {
        self.cancel_syncs(t, || GroupError::Rebalancing);
        self.sync_until = None;
        self.unsynced.clear();
        let timeout = self.rebalance_timeout_ms();
        if self.state == State::Empty {
            let delay = u64::from(t.settings.initial_delay_ms);
            self.enter(t, State::Preparing);
            self.initial = Some(Initial { remaining_ms: timeout.saturating_sub(delay), grew: false });
            self.join_until = t.now.mono.plus_millis(delay);
            if delay == 0 {
                self.end_join(t);
            }
            return;
        }
        self.enter(t, State::Preparing);
        self.initial = None;
        self.join_until = t.now.mono.plus_millis(timeout);
        self.maybe_complete(t);
    }

    /// Ends the join phase early when all are there; an empty group waits its delay out.
    fn maybe_complete(&mut self, t: &mut Turn<'_>) {
        let all = self.pending.is_empty() && self.members.values().all(|m| m.joining.is_some());
        if self.state == State::Preparing && self.initial.is_none() && all {
            self.complete(t);
        }
    }

    /// The time of the join phase is over.
    fn end_join(&mut self, t: &mut Turn<'_>) {
        if let Some(initial) = self.initial
            && initial.grew
            && initial.remaining_ms > 0
        {
            let delay = u64::from(t.settings.initial_delay_ms).min(initial.remaining_ms);
            self.initial = Some(Initial { remaining_ms: initial.remaining_ms - delay, grew: false });
            self.join_until = t.now.mono.plus_millis(delay);
            return;
        }
        self.complete(t);
    }

    fn complete(&mut self, t: &mut Turn<'_>) {
        self.initial = None;
        let late: Vec<String> = self
            .members
            .iter()
            .filter(|(_, m)| m.joining.is_none() && m.instance.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for id in late {
            self.forget(t, &id);
        }
        let leader_is_here =
            self.leader.as_ref().and_then(|l| self.members.get(l)).is_some_and(|m| m.joining.is_some());
        if !leader_is_here && !self.members.is_empty() {
            match self.members.iter().find(|(_, m)| m.joining.is_some()) {
                Some((id, _)) => self.leader = Some(id.clone()),
                None => {
                    // Only silent static members are left: their sessions decide.
                    self.join_until = t.now.mono.plus_millis(self.rebalance_timeout_ms());
                    return;
                }
            }
        }
        self.lost = false;
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        if self.members.is_empty() {
            self.protocol = None;
            self.leader = None;
            self.enter(t, State::Empty);
            self.store(t);
            return;
        }
        self.protocol = self.select();
        self.enter(t, State::Completing);
        self.sync_until = Some(t.now.mono.plus_millis(self.rebalance_timeout_ms()));
        self.unsynced = self.members.keys().cloned().collect();
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let joined = self.joined(&id, self.leader.as_ref() == Some(&id));
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.is_new = false;
            if let Some(ticket) = member.joining.take() {
                member.expires = t.after(member.session_timeout_ms);
                t.reply(ticket, Reply::Join(Ok(joined)));
            }
        }
    }

    /// Longest any member wants to be waited for.
    fn rebalance_timeout_ms(&self) -> u64 {
        let longest = self.members.values().map(|m| m.rebalance_timeout_ms).max().unwrap_or(0);
        // At least 1: a deadline lies behind the moment it was set in.
        u64::try_from(longest).unwrap_or(0).max(1)
    }

    fn enter(&mut self, t: &Turn<'_>, state: State) {
        self.state = state;
        self.state_ms = t.now.wall.as_millis();
    }

    fn store(&self, t: &mut Turn<'_>) {
        t.records.push(GroupRecord::Group { group: t.group.clone(), meta: Some(self.meta()) });
    }

    fn cancel_syncs(&mut self, t: &mut Turn<'_>, why: impl Fn() -> GroupError) {
        for member in self.members.values_mut() {
            if let Some(ticket) = member.syncing.take() {
                member.expires = t.after(member.session_timeout_ms);
                t.reply(ticket, Reply::Sync(Err(why())));
            }
        }
    }

    // ---- sync, heartbeat, leave ------------------------------------------------------------------------------------

    pub fn sync(&mut self, t: &mut Turn<'_>, ticket: Ticket, sync: Sync) {
        if let Err(error) = self.check_sync(&sync) {
            return t.reply(ticket, Reply::Sync(Err(error)));
        }
        let max = t.settings.group_bytes_max;
        if sync.assignments.iter().map(|(id, a)| id.len() + a.len()).sum::<usize>() > max {
            return t.reply(ticket, Reply::Sync(Err(GroupError::TooLarge { max })));
        }
        match self.state {
            State::Empty => t.reply(ticket, Reply::Sync(Err(GroupError::UnknownMember))),
            State::Preparing => t.reply(ticket, Reply::Sync(Err(GroupError::Rebalancing))),
            State::Completing => {
                self.unsynced.remove(&sync.member);
                let Some(member) = self.members.get_mut(&sync.member) else { return };
                if let Some(old) = member.syncing.replace(ticket) {
                    t.reply(old, Reply::Sync(Err(GroupError::Rebalancing)));
                }
                if self.leader.as_ref() == Some(&sync.member) {
                    self.assign(t, sync.assignments);
                }
            }
            State::Stable => {
                self.unsynced.remove(&sync.member);
                self.maybe_all_synced();
                let synced = self.synced(&sync.member);
                if let Some(member) = self.members.get_mut(&sync.member) {
                    member.expires = t.after(member.session_timeout_ms);
                }
                t.reply(ticket, Reply::Sync(Ok(synced)));
            }
        }
    }

    fn check_sync(&self, sync: &Sync) -> Result<(), GroupError> {
        self.check_member(&sync.member, sync.instance.as_deref())?;
        self.check_generation(sync.generation)?;
        let other = |asked: &Option<String>, have: Option<&str>| asked.is_some() && asked.as_deref() != have;
        if other(&sync.protocol_type, Some(&self.protocol_type)) || other(&sync.protocol, self.protocol.as_deref()) {
            return Err(GroupError::InconsistentProtocol);
        }
        Ok(())
    }

    /// The leader has decided: stored first (the host parks the replies until it is), then told to all who wait.
    fn assign(&mut self, t: &mut Turn<'_>, assignments: Vec<(String, Bytes)>) {
        let mut assignments: BTreeMap<String, Bytes> = assignments.into_iter().collect();
        for (id, member) in &mut self.members {
            member.assignment = assignments.remove(id).unwrap_or_default();
            member.expires = t.after(member.session_timeout_ms);
        }
        self.enter(t, State::Stable);
        self.store(t);
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            if let Some(ticket) = self.members.get_mut(&id).and_then(|m| m.syncing.take()) {
                let synced = self.synced(&id);
                t.reply(ticket, Reply::Sync(Ok(synced)));
            }
        }
        self.maybe_all_synced();
    }

    fn maybe_all_synced(&mut self) {
        if self.unsynced.is_empty() {
            self.sync_until = None;
        }
    }

    fn synced(&self, id: &str) -> Synced {
        Synced {
            protocol_type: Some(self.protocol_type.clone()),
            protocol: self.protocol.clone(),
            assignment: self.members.get(id).map(|m| m.assignment.clone()).unwrap_or_default(),
        }
    }

    pub fn heartbeat(&mut self, t: &mut Turn<'_>, beat: &Heartbeat) -> Result<(), GroupError> {
        self.check_member(&beat.member, beat.instance.as_deref())?;
        self.check_generation(beat.generation)?;
        if self.state == State::Empty {
            return Err(GroupError::UnknownMember);
        }
        self.hear(t.now, &beat.member);
        if self.state == State::Preparing { Err(GroupError::Rebalancing) } else { Ok(()) }
    }

    fn hear(&mut self, now: Now, id: &str) {
        if let Some(member) = self.members.get_mut(id) {
            member.expires = now.mono.plus_millis(span(member.session_timeout_ms));
        }
    }

    pub fn leave(&mut self, t: &mut Turn<'_>, members: &[LeaveMember]) -> Vec<(LeaveMember, Result<(), GroupError>)> {
        let mut gone = false;
        let mut results = Vec::with_capacity(members.len());
        for who in members {
            let result = if self.pending.remove(&who.member).is_some() {
                gone = true;
                Ok(())
            } else {
                self.leaver(who).map(|id| {
                    self.forget(t, &id);
                    gone = true;
                })
            };
            results.push((who.clone(), result));
        }
        if gone {
            self.after_loss(t);
        }
        results
    }

    fn leaver(&self, who: &LeaveMember) -> Result<String, GroupError> {
        match &who.instance {
            Some(instance) if who.member.is_empty() => {
                self.instances.get(instance).cloned().ok_or(GroupError::UnknownMember)
            }
            instance => {
                self.check_member(&who.member, instance.as_deref())?;
                Ok(who.member.clone())
            }
        }
    }

    /// After members or pending ids have gone: one rebalance for all of them.
    fn after_loss(&mut self, t: &mut Turn<'_>) {
        match self.state {
            State::Empty => {}
            State::Preparing => self.maybe_complete(t),
            State::Completing | State::Stable if self.lost => self.prepare(t),
            // A pending id that went is no change for those who are there.
            State::Completing | State::Stable => {}
        }
    }

    fn forget(&mut self, t: &mut Turn<'_>, id: &str) {
        let Some(member) = self.members.remove(id) else { return };
        self.lost = true;
        self.unsynced.remove(id);
        if let Some(instance) = &member.instance
            && self.instances.get(instance).is_some_and(|m| m == id)
        {
            self.instances.remove(instance);
        }
        if let Some(ticket) = member.joining {
            t.fail_join(ticket, GroupError::UnknownMember);
        }
        if let Some(ticket) = member.syncing {
            t.reply(ticket, Reply::Sync(Err(GroupError::UnknownMember)));
        }
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    fn check_member(&self, member: &str, instance: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = instance {
            let holder = self.instances.get(instance).ok_or(GroupError::UnknownMember)?;
            if holder != member {
                return Err(GroupError::FencedInstance(instance.to_owned()));
            }
        }
        if self.members.contains_key(member) { Ok(()) } else { Err(GroupError::UnknownMember) }
    }

    fn check_generation(&self, asked: i32) -> Result<(), GroupError> {
        let have = self.generation;
        if asked == have { Ok(()) } else { Err(GroupError::IllegalGeneration { asked, have }) }
    }

    /// Whether this member may commit offsets now; counts as a sign of life.
    pub fn check_commit(
        &mut self,
        now: Now,
        member: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        if generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if generation < 0 && member.is_empty() && instance.is_none() {
            return Err(GroupError::UnknownMember);
        }
        self.check_member(member, instance)?;
        self.check_generation(generation)?;
        if self.state == State::Completing {
            return Err(GroupError::Rebalancing);
        }
        self.hear(now, member);
        Ok(())
    }

    // ---- time ------------------------------------------------------------------------------------------------------

    /// Does everything that is due: expired members and ids, the end of the join phase, members that never synced.
    pub fn wake(&mut self, t: &mut Turn<'_>) {
        let now = t.now.mono;
        let pending_before = self.pending.len();
        self.pending.retain(|_, until| *until > now);
        let mut gone = self.pending.len() != pending_before;
        let mut expired: BTreeSet<String> = self
            .members
            .iter()
            .filter(|(_, m)| m.deadline().is_some_and(|d| d <= now))
            .map(|(id, _)| id.clone())
            .collect();
        if self.sync_until.is_some_and(|until| until <= now) {
            self.sync_until = None;
            expired.append(&mut self.unsynced);
        }
        for id in expired {
            self.forget(t, &id);
            gone = true;
        }
        if gone {
            self.after_loss(t);
        }
        if self.state == State::Preparing && self.join_until <= now {
            self.end_join(t);
        }
    }
}
