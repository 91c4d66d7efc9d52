//! Pure. Joins: who is new, known or comes back by its instance id, and what the group can speak with all of them.

use super::super::{GroupError, Join, Joined, JoinedMember, Reply, Settings};
use super::{Live, Member, State, Turn};
use bytes::Bytes;
use catchwater_base::Ticket;
use std::collections::{BTreeMap, BTreeSet};

/// A new member that waits in its first join has no session yet; its client gives up and comes again within this time.
/// Source: `ClassicGroup` NEW_MEMBER_JOIN_TIMEOUT_MS.
const NEW_MEMBER_JOIN_TIMEOUT_MS: u64 = 5 * 60 * 1000;
/// Client ids become part of member ids, which are stored with an i16 length.
const CLIENT_ID_IN_MEMBER_MAX: usize = 1024;

impl Live {
    pub fn join(&mut self, t: &mut Turn<'_>, ticket: Ticket, join: Join) {
        let offered: usize = join.protocols.iter().map(|(name, m)| name.len() + m.len()).sum();
        let max = t.settings.group_bytes_max;
        if self.bytes_but(&join.member) + offered > max {
            return t.fail_join(ticket, GroupError::TooLarge { max });
        }
        if !self.accepts(t.settings, &join.member) {
            self.pending.remove(&join.member);
            return t.fail_join(ticket, GroupError::Full);
        }
        if join.member.is_empty() { self.join_new(t, ticket, join) } else { self.join_known(t, ticket, join) }
    }

    /// Bytes the other members brought.
    fn bytes_but(&self, member: &str) -> usize {
        let others = self.members.iter().filter(|(id, _)| *id != member);
        others.map(|(_, m)| m.protocols.iter().map(|(name, d)| name.len() + d.len()).sum::<usize>()).sum()
    }

    /// During a rebalance only those who joined it count: members that will not come back must not keep new ones out.
    fn accepts(&self, settings: &Settings, member: &str) -> bool {
        let known = self.members.get(member);
        match self.state {
            State::Empty => true,
            State::Preparing => {
                known.is_some_and(|m| m.joining.is_some())
                    || self.members.values().filter(|m| m.joining.is_some()).count() < settings.size_max
            }
            State::Completing | State::Stable => known.is_some() || self.members.len() < settings.size_max,
        }
    }

    fn join_new(&mut self, t: &mut Turn<'_>, ticket: Ticket, join: Join) {
        let old = join.instance.as_ref().and_then(|i| self.instances.get(i)).cloned();
        if !self.supports(old.as_deref(), &join) {
            return t.fail_join(ticket, GroupError::InconsistentProtocol);
        }
        let id = member_id(&join);
        match old {
            Some(old) => self.replace_static(t, ticket, join, &old, id),
            None if join.instance.is_none() && join.require_known_member => {
                self.pending.insert(id.clone(), t.after(join.session_timeout_ms));
                t.fail_join(ticket, GroupError::MemberIdRequired(id));
            }
            None => self.add(t, ticket, join, id),
        }
    }

    fn join_known(&mut self, t: &mut Turn<'_>, ticket: Ticket, join: Join) {
        let id = join.member.clone();
        if self.pending.contains_key(&id) && join.instance.is_none() {
            if !self.supports(None, &join) {
                return t.fail_join(ticket, GroupError::InconsistentProtocol);
            }
            self.pending.remove(&id);
            return self.add(t, ticket, join, id);
        }
        if let Err(error) = self.check_member(&id, join.instance.as_deref()) {
            return t.fail_join(ticket, error);
        }
        if !self.supports(Some(&id), &join) {
            return t.fail_join(ticket, GroupError::InconsistentProtocol);
        }
        let same = self.members.get(&id).is_some_and(|m| m.protocols == join.protocols);
        match self.state {
            State::Preparing => {
                self.update(t, ticket, &id, join);
                self.maybe_complete(t);
            }
            // It may have missed the answer to its first join: nothing has changed, say it again.
            State::Completing if same => self.answer_again(t, ticket, &id),
            // A leader that joins again asks for a new assignment (its metadata view changed).
            State::Stable if same && self.leader.as_ref() != Some(&id) => self.answer_again(t, ticket, &id),
            State::Completing | State::Stable => {
                self.update(t, ticket, &id, join);
                self.prepare(t);
            }
            State::Empty => t.fail_join(ticket, GroupError::UnknownMember),
        }
    }

    fn answer_again(&mut self, t: &mut Turn<'_>, ticket: Ticket, id: &str) {
        let leads = self.state == State::Completing && self.leader.as_deref() == Some(id);
        let joined = self.joined(id, leads);
        t.reply(ticket, Reply::Join(Ok(joined)));
    }

    pub(super) fn joined(&self, id: &str, with_members: bool) -> Joined {
        let protocol = self.protocol.clone().unwrap_or_default();
        let members = self.members.iter().filter(|_| with_members).map(|(id, m)| JoinedMember {
            member: id.clone(),
            instance: m.instance.clone(),
            metadata: m.metadata(&protocol),
        });
        Joined {
            generation: self.generation,
            protocol_type: Some(self.protocol_type.clone()),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            member: id.to_owned(),
            members: members.collect(),
        }
    }

    fn add(&mut self, t: &mut Turn<'_>, ticket: Ticket, join: Join, id: String) {
        if let Some(initial) = &mut self.initial {
            initial.grew = true;
        }
        if self.members.is_empty() {
            self.protocol_type = join.protocol_type;
        }
        if let Some(instance) = &join.instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        let member = Member {
            instance: join.instance,
            client_id: join.client_id,
            client_host: join.client_host,
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            session_timeout_ms: join.session_timeout_ms,
            protocols: join.protocols,
            assignment: Bytes::new(),
            joining: Some(ticket),
            syncing: None,
            is_new: true,
            expires: t.now.mono.plus_millis(NEW_MEMBER_JOIN_TIMEOUT_MS),
        };
        self.members.insert(id.clone(), member);
        self.leader.get_or_insert(id);
        if self.state == State::Preparing { self.maybe_complete(t) } else { self.prepare(t) }
    }

    /// Takes over what a member says now, and waits for the rebalance on its behalf.
    fn update(&mut self, t: &mut Turn<'_>, ticket: Ticket, id: &str, join: Join) {
        if self.members.len() == 1 {
            self.protocol_type = join.protocol_type;
        }
        let Some(member) = self.members.get_mut(id) else { return };
        member.protocols = join.protocols;
        member.rebalance_timeout_ms = join.rebalance_timeout_ms;
        member.session_timeout_ms = join.session_timeout_ms;
        // The same member on a new connection: the old request has nobody behind it any more.
        if let Some(old) = member.joining.replace(ticket) {
            t.fail_join(old, GroupError::Rebalancing);
        }
    }

    /// A static member comes back without its id: it takes the place of its former self.
    fn replace_static(&mut self, t: &mut Turn<'_>, ticket: Ticket, join: Join, old: &str, id: String) {
        let Some(mut member) = self.members.remove(old) else { return };
        let instance = member.instance.clone().unwrap_or_default();
        if let Some(waiting) = member.joining.take() {
            t.fail_join(waiting, GroupError::FencedInstance(instance.clone()));
        }
        if let Some(waiting) = member.syncing.take() {
            t.reply(waiting, Reply::Sync(Err(GroupError::FencedInstance(instance.clone()))));
        }
        let before = self.leader.clone();
        let led = self.leader.as_deref() == Some(old);
        if led {
            self.leader = Some(id.clone());
        }
        if self.unsynced.remove(old) {
            self.unsynced.insert(id.clone());
        }
        let subscription = self.protocol.as_deref().map(|p| member.metadata(p));
        member.expires = t.after(join.session_timeout_ms);
        member.is_new = false;
        member.client_id = join.client_id.clone();
        member.client_host = join.client_host.clone();
        self.members.insert(id.clone(), member);
        self.instances.insert(instance, id.clone());
        let skips = join.supports_skip;
        self.update(t, ticket, &id, join);
        match self.state {
            State::Preparing => self.maybe_complete(t),
            State::Completing => self.prepare(t),
            State::Stable => {
                let same = self.select().is_some_and(|p| self.protocol.as_ref() == Some(&p));
                let now = self.members.get(&id).zip(self.protocol.as_deref()).map(|(m, p)| m.metadata(p));
                if !same || now != subscription {
                    return self.prepare(t);
                }
                // Nobody notices: the assignment stays, the new id is stored before it is told.
                if let Some(member) = self.members.get_mut(&id) {
                    member.joining = None;
                }
                self.store(t);
                let leads = led && skips;
                let mut joined = self.joined(&id, leads);
                joined.skip_assignment = leads;
                if led && !skips {
                    // Told it leads, an old client would assign anew; it is told its former self does.
                    joined.leader = before.unwrap_or_default();
                }
                t.reply(ticket, Reply::Join(Ok(joined)));
            }
            // No members, so no instance can be known.
            State::Empty => {}
        }
    }

    /// Whether the group can go on with what this member offers, besides all *other* members.
    fn supports(&self, except: Option<&str>, join: &Join) -> bool {
        if join.protocol_type.is_empty() || join.protocols.is_empty() {
            return false;
        }
        let mut others = self.members.iter().filter(|(id, _)| Some(id.as_str()) != except).map(|(_, m)| m).peekable();
        if others.peek().is_none() {
            return true;
        }
        let common = common(others);
        join.protocol_type == self.protocol_type
            && join.protocols.iter().any(|(name, _)| common.contains(name.as_str()))
    }

    /// The protocol all members have and most prefer; the first name wins a tie.
    pub(super) fn select(&self) -> Option<String> {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        let common = common(self.members.values());
        for member in self.members.values() {
            let first = member.protocols.iter().find(|(name, _)| common.contains(name.as_str()));
            if let Some((name, _)) = first {
                *votes.entry(name).or_default() += 1;
            }
        }
        let most = votes.values().max().copied()?;
        votes.into_iter().find(|(_, n)| *n == most).map(|(name, _)| name.to_owned())
    }
}

fn member_id(join: &Join) -> String {
    let prefix = join.instance.as_deref().unwrap_or(&join.client_id);
    let mut end = prefix.len().min(CLIENT_ID_IN_MEMBER_MAX);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let mut out = prefix[..end].to_owned();
    for (i, byte) in join.uuid.iter().enumerate() {
        if matches!(i, 0 | 4 | 6 | 8 | 10) {
            out.push('-');
        }
        out.push_str(&format!("{byte:02x}"));
    }
    out
}

/// The protocols that each of them has. Every list is passed once: a hostile one may be very long.
fn common<'a>(members: impl Iterator<Item = &'a Member>) -> BTreeSet<&'a str> {
    let mut common: Option<BTreeSet<&str>> = None;
    for member in members {
        let names = member.protocols.iter().map(|(name, _)| name.as_str());
        common = Some(match common {
            None => names.collect(),
            Some(known) => names.filter(|name| known.contains(name)).collect(),
        });
    }
    common.unwrap_or_default()
}
