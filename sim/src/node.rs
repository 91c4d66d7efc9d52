//! A node of the simulation: what `raft/driver.rs` and the process around it do. Starting, dying, and performing the
//! effects of its replicas and its storage.

use crate::storage::{StartError, Wish};
use crate::swarm::Profile;
use crate::tell::{self, tell};
use crate::workload::Reply;
use crate::world::{Happens, Waiter, World, peer};
use catchwater_base::Effects;
use catchwater_raft::{Effect, Event, GroupConfig, GroupCore, GuardRule, OpenError, PeerBody, PeerId, PeerMsg, Role};
use catchwater_record::{EntryIndex, Gid};
use catchwater_storage::compact::rows::last_index;
use catchwater_storage::{EntryKind, GroupSpec, RecoveredGroup, Verdict};
use std::collections::VecDeque;

impl World {
    pub(crate) fn start(&mut self, node: usize) {
        if self.nodes[node].up() || self.nodes[node].out || self.plot.held[node] {
            return;
        }
        self.nodes[node].ghosts.clear();
        let now = self.now(node);
        let found = match self.nodes[node].storage.recover(now, self.swarm.voters > 1) {
            Ok(found) => found,
            Err(StartError::Disk(_)) if !self.is_calm() => {
                self.nodes[node].storage.crash(false);
                return self.engine.after(100_000, Happens::Start { node });
            }
            Err(StartError::Broken(_)) if self.atlas.is_damaged(node) => return self.refuse(node),
            Err(StartError::Disk(e)) => return self.checker.fail(format!("node {node} cannot recover: {e}")),
            Err(StartError::Broken(why)) => return self.checker.fail(format!("node {node} cannot recover: {why}")),
        };
        let boot = self.nodes[node].boot;
        self.nodes[node].running = true;
        for group in found {
            let gid = group.gid;
            tell!(self, "node {node} starts {gid:?}: {:?} {:?} first {}", group.verdict, group.hard, group.first_index);
            let again = group.clone();
            let sealed = group.segments.iter().rfind(|s| s.sealed).and_then(|s| s.rows.last()).map(last_index);
            let (suspect, sealed) = (group.verdict == Verdict::Suspect, sealed.unwrap_or(group.first_index.prev()));
            match GroupCore::open(&self.config(node, gid), group, 1).or_else(|e| self.under_a_new_id(node, again, e)) {
                Ok(core) => {
                    tell!(self, "node {node} opens {gid:?}: {:?} {:?}", core.view(), core.conf());
                    self.out.mutes += u64::from(core.is_mute());
                    // R16, M1: whatever its disk says of commits.
                    let commit = core.view().commit;
                    self.checker.ensure(!suspect || commit <= sealed, || {
                        format!("node {node} {gid:?}: it lost something, and takes {commit} for committed, {sealed} is sealed")
                    });
                    self.after_power(node, &core);
                    let log = core.log();
                    let rows = self.nodes[node].storage.rows(log, log.first_index(), log.commit());
                    self.checker.opened(node, &core, &rows.unwrap_or_default());
                    self.nodes[node].cores.insert(gid, core);
                }
                Err(_) if self.atlas.is_damaged(node) => return self.refuse(node),
                // A read that failed closes its group alone, until the node starts again and can read it.
                Err(_) if self.swarm.read_error > 0 && !self.is_calm() => {
                    self.nodes[node].cores.clear();
                    self.nodes[node].running = false;
                    self.nodes[node].storage.crash(false);
                    return self.engine.after(100_000, Happens::Start { node });
                }
                Err(e) => return self.checker.fail(format!("node {node} cannot open {gid:?}: {e}")),
            }
        }
        let mut wishes = Vec::new();
        let now = self.now(node);
        self.nodes[node].storage.started(now, &mut wishes);
        self.grant(node, wishes);
        let gids: Vec<Gid> = self.nodes[node].cores.keys().copied().collect();
        for gid in gids {
            self.core_event(node, gid, Event::Start);
        }
        for other in (0..self.nodes.len()).filter(|n| *n != node) {
            if self.nodes[other].up() {
                self.open_stream(node, other);
                self.open_stream(other, node);
            }
        }
        let tick = self.clocks.tick(node);
        self.engine.after(tick, Happens::Tick { node, boot });
        if let Some(load) = self.swarm.load.compact {
            self.engine.after(load.every, Happens::Compact { node, boot });
        }
    }

    /// A relaxed replica that begins after a loss of power. A lone one is what is left; of several, a majority may have
    /// lost what a minority never had.
    fn after_power(&mut self, node: usize, core: &GroupCore) {
        if !self.nodes[node].storage.lost.contains_key(&core.gid()) {
            return;
        }
        self.forgot[node] = Some(self.engine.now());
        if self.swarm.voters == 1 {
            self.accept_loss(core.gid(), core.view().last, core.log().last_term().0, core);
        }
    }

    /// F3: a new leader of a relaxed group lacks what was acknowledged. Allowed if a majority lost its page cache since.
    fn leads_after_power(&mut self, node: usize, gid: Gid) {
        let Some(core) = self.nodes[node].cores.remove(&gid) else { return };
        let history = self.checker.groups.entry(gid).or_default();
        let first = core.log().first_index().0.max(1);
        let same = |i: u64| {
            let known = history.committed.get(i as usize - 1);
            known.is_some_and(|p| !p.was_seen()) || core.log().term(EntryIndex(i)).map(|t| t.0) == known.map(|p| p.term)
        };
        let end = history.committed.len() as u64;
        let lost = (first..=end).find(|i| !same(*i));
        if let Some(lost) = lost {
            let since = history.told.range(EntryIndex(lost)..).map(|(_, (at, _))| *at).min().unwrap_or(0);
            let forgot = self.forgot.iter().filter(|at| at.is_some_and(|at| at >= since)).count();
            if forgot > self.swarm.voters / 2 {
                self.won_the_roll_call(node, gid, &core);
                let last = EntryIndex(lost - 1);
                let term = core.log().term(last).map_or(0, |t| t.0);
                self.accept_loss(gid, last, term, &core);
            }
        }
        self.nodes[node].cores.insert(gid, core);
    }

    pub(crate) fn is_relaxed(&self, gid: Gid) -> bool {
        self.swarm.relaxed.is_some() && !(self.swarm.half && gid.0.is_multiple_of(2))
    }

    /// M6: whoever leads after a majority forgot has the greatest log of all voters, and what anybody knows to be committed.
    fn won_the_roll_call(&mut self, node: usize, gid: Gid, core: &GroupCore) {
        let (log, term) = (core.log(), core.view().term);
        let mut last = log.last_index();
        while last >= log.first_index() && log.term(last) == Some(term) {
            last = last.prev();
        }
        let mine = (log.term(last), last);
        let mut wrong = None;
        for other in (0..self.nodes.len()).filter(|n| *n != node) {
            let n = &self.nodes[other];
            let Some(theirs) = n.cores.get(&gid).or_else(|| n.ghosts.get(&gid)) else { continue };
            let view = theirs.view();
            let end = (theirs.log().term(view.persisted), view.persisted);
            if end > mine {
                wrong = Some(format!("it ends at {mine:?}, node {other} has {end:?}"));
            }
            let claim = (view.commit, theirs.log().term(view.commit));
            if view.commit >= log.first_index() && claim.1.is_some() && log.term(claim.0) != claim.1 {
                wrong = Some(format!("node {other} knows that {claim:?} is committed, it has {:?}", log.term(claim.0)));
            }
        }
        if let Some(wrong) = wrong {
            self.checker.fail(format!("{gid:?}: node {node} leads term {term} after a majority forgot: {wrong}"));
        }
    }

    /// R17: what a replica that lost something still has is not sent again.
    fn sent_to_reset(&mut self, node: usize, to: usize, m: &PeerMsg) {
        let at = (node, to, m.gid);
        let first = match &m.body {
            PeerBody::RollOk { .. } => {
                if let Some(row) = self.rolled.get(&at) {
                    self.reset.insert(at, (m.term, *row));
                }
                return;
            }
            PeerBody::Append { entries, .. } => entries.first().map(|e| e.index),
            PeerBody::Snap(_) => Some(EntryIndex::ZERO),
            _ => None,
        };
        let (Some(first), Some((term, row))) = (first, self.reset.get(&at)) else { return };
        let Some(log) = self.nodes[node].cores.get(&m.gid).map(GroupCore::log) else { return };
        let same = row.last_index.next() >= log.first_index()
            && log.term(row.last_index).map(|t| t.0) == Some(row.last_term)
            && log.row(row.last_index).is_none_or(|r| r.kind != EntryKind::Gap);
        let last = row.last_index;
        if *term == m.term && same && first <= last {
            self.checker.fail(format!("{:?}: node {node} sends {first} to node {to}, which has up to {last}", m.gid));
        }
    }

    fn accept_loss(&mut self, gid: Gid, last: EntryIndex, term: u32, core: &GroupCore) {
        let window = self.swarm.relaxed.map_or(0, |w| w.ms * 1000);
        let end = core.log().end_offset_at(last).max(core.log().log_start());
        let gone = self.checker.lost(gid, last, term, window);
        if gone == 0 {
            return;
        }
        self.out.relaxed_losses += 1;
        self.out.relaxed_lost += gone;
        for p in self.producers.iter_mut().filter(|p| p.gid == gid) {
            p.lost(end);
        }
        if self.is_calm() {
            self.acked_when_calm = self.ledger_len();
        }
        for w in self.workers.iter_mut().filter(|w| w.gid == gid) {
            let known = core.log().capture_last(w.capture).map_or(0, |(_, at)| crate::workload::number(&at));
            w.acked = w.acked.min(known);
        }
    }

    /// M7: the hard state is lost, so the peer id is burnt. The controller gives this directory a new one, and has the old
    /// one removed by the group.
    fn under_a_new_id(&mut self, node: usize, found: RecoveredGroup, error: OpenError) -> Result<GroupCore, OpenError> {
        let gid = found.gid;
        let OpenError::NotProven { voters: 2.., verdict: Verdict::HardStateUncertain, .. } = error else {
            return Err(error);
        };
        if !self.atlas.is_damaged(node) {
            return Err(error);
        }
        let old = self.id(node, gid);
        let new = PeerId::new(old.node(), old.incarnation() + 1);
        self.ids.insert((node, gid), new);
        self.burnt.push((gid, old, new));
        self.out.new_ids += 1;
        let mut config = self.config(node, gid);
        config.new_id = true;
        GroupCore::open(&config, found, 1)
    }

    /// Who this node is in the group.
    pub(crate) fn id(&self, node: usize, gid: Gid) -> PeerId {
        self.ids.get(&(node, gid)).copied().unwrap_or(peer(node))
    }

    /// A stream begins with what its sender has of each group. False: there is no way.
    pub(crate) fn open_stream(&mut self, from: usize, to: usize) -> bool {
        let (boots, at) = ((self.nodes[from].boot, self.nodes[to].boot), from * self.nodes.len() + to);
        if self.streams[at] == Some(boots) {
            return true;
        }
        if self.net.is_cut(from, to) || !self.nodes[to].up() {
            return false;
        }
        self.streams[at] = Some(boots);
        if self.swarm.profile == Profile::Overtaken {
            self.net.new_stream(from, to);
        }
        let gids: Vec<Gid> = self.nodes[from].cores.keys().copied().collect();
        for gid in gids {
            let to = self.id(to, gid);
            if self.nodes[from].cores.get(&gid).is_some_and(|c| c.conf().has(to)) {
                self.core_event(from, gid, Event::StreamUp(to));
            }
        }
        true
    }

    fn config(&self, node: usize, gid: Gid) -> GroupConfig {
        let mut config = GroupConfig::new(self.id(node, gid));
        config.log.tail_bytes_max = self.swarm.tail_bytes;
        if self.swarm.append_bytes > 0 {
            config.append_bytes_max = self.swarm.append_bytes;
        }
        config
    }

    /// A replica that the controller has assigned to this node: it opens empty.
    pub(crate) fn create_replica(&mut self, node: usize, gid: Gid, spec: GroupSpec) {
        if !self.nodes[node].up() || self.nodes[node].cores.contains_key(&gid) {
            return;
        }
        let (now, mut wishes) = (self.now(node), Vec::new());
        self.nodes[node].storage.create(now, gid, spec.clone(), &mut wishes);
        match GroupCore::open(&self.config(node, gid), RecoveredGroup::fresh(gid, spec), 1) {
            Ok(core) => {
                self.checker.opened(node, &core, &[]);
                self.nodes[node].cores.insert(gid, core);
            }
            Err(e) => return self.checker.fail(format!("node {node} cannot make {gid:?}: {e}")),
        }
        self.grant(node, wishes);
        self.core_event(node, gid, Event::Start);
    }

    /// The node does not open what it found. A person would repair or replace it; here it stays down.
    pub(crate) fn refuse(&mut self, node: usize) {
        self.engine.fold(0xf00);
        self.out.refused += 1;
        self.nodes[node].cores.clear();
        self.nodes[node].running = false;
        self.nodes[node].storage.crash(false);
        self.nodes[node].out = true;
        self.nodes[node].boot += 1;
    }

    pub(crate) fn crash(&mut self, node: usize, power: bool) {
        self.out.crashes += 1;
        self.out.power_cuts += u64::from(power);
        self.engine.fold(0xc00 + u64::from(power));
        tell!(self, "node {node} dies{}", if power { ", its power is lost" } else { "" });
        let n = &mut self.nodes[node];
        n.boot += 1;
        n.running = false;
        n.ghosts = std::mem::take(&mut n.cores);
        if power {
            n.ghosts.clear();
        }
        n.waiters.clear();
        n.proposing.clear();
        n.barriers.clear();
        n.trimmed.clear();
        n.doomed = None;
        n.storage.crash(power);
        if self.chance(self.swarm.damage) && self.atlas.may_damage(node, self.swarm.voters) {
            // The newest flush may only be damaged behind its seal: before that, damage and a torn write look alike, and
            // no engine can tell (the design gives it ten milliseconds).
            let rest = self.nodes[node].storage.rested(self.engine.now());
            let journal = self.swarm.profile.damages_journals();
            let done = self.atlas.damage(node, self.nodes[node].storage.disk(), rest, journal, &mut self.rng);
            self.out.damages += u64::from(done.is_some());
            tell!(self, "node {node}: {done:?}");
            self.last_damage = done.or(self.last_damage.take());
        }
        if self.rng.chance(500_000) {
            // Others notice at once, or by silence.
            let id = peer(node).node();
            for other in (0..self.nodes.len()).filter(|n| *n != node) {
                let gids: Vec<Gid> = self.nodes[other].cores.keys().copied().collect();
                for gid in gids {
                    self.core_event(other, gid, Event::StreamDown(id));
                }
            }
        }
        let down = if self.is_calm() { 1_000 } else { self.rng.between(self.swarm.down.0, self.swarm.down.1) };
        self.engine.after(down, Happens::Start { node });
    }

    pub(crate) fn core_event(&mut self, node: usize, gid: Gid, event: Event) {
        let now = self.now(node);
        if let Event::Replaced(replaced) = &event {
            self.checker.replaced(gid, replaced);
        }
        let mut out = Effects::new();
        match self.nodes[node].cores.get_mut(&gid) {
            Some(core) => core.handle(now, event, &mut out),
            None => return,
        }
        let mut effects: VecDeque<Effect> = out.drain().collect();
        while let Some(effect) = effects.pop_front() {
            self.perform(node, gid, effect);
        }
        if let Some(core) = self.nodes[node].cores.get(&gid) {
            let view = core.view();
            self.checker.order(node, gid, &view);
        }
    }

    pub(crate) fn chance(&mut self, rate: u32) -> bool {
        !self.is_calm() && rate > 0 && self.rng.chance(rate)
    }
    pub(crate) fn doom(&mut self, node: usize) {
        let power = self.rng.chance(self.swarm.power);
        self.nodes[node].doomed = Some(power);
    }

    /// Beats only fill the page.
    pub(crate) fn tell_message(&self, node: usize, m: &PeerMsg) {
        match &m.body {
            _ if !tell::is_on() => {}
            PeerBody::Beat { .. } | PeerBody::BeatAck { .. } => {}
            PeerBody::Append { prev_index, prev_term, commit, entries } => {
                let rows: Vec<_> =
                    entries.iter().map(|e| format!("{}/{} {:?} {}", e.index, e.term, e.kind, e.base_offset)).collect();
                let (gid, from, term) = (m.gid, m.from, m.term);
                tell!(
                    self,
                    "{from} > {node} {gid:?} term {term}: append {prev_index}/{prev_term} commit {commit} {rows:?}"
                );
            }
            body => tell!(self, "{} > {node} {:?} term {}: {body:?}", m.from, m.gid, m.term),
        }
    }

    fn tell_effect(&self, node: usize, gid: Gid, effect: &Effect) {
        match effect {
            _ if !tell::is_on() => {}
            Effect::Send(_) | Effect::ReadReady(..) | Effect::ReadRefused(_) | Effect::Refused(..) => {}
            Effect::Persist { ready, entries, hard, truncate_from } => {
                let rows: Vec<_> =
                    entries.iter().map(|e| format!("{}/{} {:?} {}", e.index, e.term, e.kind, e.base_offset)).collect();
                tell!(self, "node {node} {gid:?}: persist {ready:?} {rows:?} {hard:?} cut {truncate_from:?}");
            }
            other => tell!(self, "node {node} {gid:?}: {other:?}"),
        }
    }

    pub(crate) fn perform(&mut self, node: usize, gid: Gid, effect: Effect) {
        self.tell_effect(node, gid, &effect);
        match effect {
            Effect::Persist { ready, entries, hard, truncate_from } => {
                self.engine.fold(ready.0);
                let mut wishes = Vec::new();
                let appends = !entries.is_empty();
                let now = self.now(node);
                self.nodes[node].storage.persist(now, gid, ready, entries, hard, truncate_from, None, &mut wishes);
                self.grant(node, wishes);
                if appends && self.chance(self.swarm.crash_after_append) {
                    self.doom(node);
                }
            }
            Effect::Install { ready, snapshot, hard } => {
                self.engine.fold(ready.0);
                self.out.installs += 1;
                let (now, mut wishes) = (self.now(node), Vec::new());
                let snapshot = Some(snapshot);
                self.nodes[node].storage.persist(now, gid, ready, Vec::new(), hard, None, snapshot, &mut wishes);
                self.grant(node, wishes);
                if self.chance(self.swarm.crash_after_append * 20) {
                    self.doom(node);
                }
            }
            Effect::Muted | Effect::Unmuted => {
                let (on, now, mut wishes) = (matches!(effect, Effect::Muted), self.now(node), Vec::new());
                self.out.unmutes += u64::from(!on);
                if !on {
                    self.plot_unmuted(node, gid);
                }
                self.nodes[node].storage.mute(now, gid, on, &mut wishes);
                self.grant(node, wishes);
            }
            Effect::Send(m) => self.send(node, m),
            Effect::Commit(upto, high_watermark) => {
                self.engine.fold(upto.0);
                if let Some(core) = self.nodes[node].cores.get(&gid) {
                    self.checker.committed(node, core, &[], (upto, high_watermark));
                }
                let (now, mut wishes) = (self.now(node), Vec::new());
                self.nodes[node].storage.committed(now, gid, upto, &mut wishes);
                if let Some(log) = self.nodes[node].cores.get(&gid).map(GroupCore::log)
                    && log.log_start() > self.nodes[node].trimmed.get(&gid).copied().unwrap_or_default()
                {
                    let (start, state) = (log.log_start(), log.has_state().then(|| log.snapshot_payload()));
                    self.nodes[node].trimmed.insert(gid, start);
                    self.nodes[node].storage.trim(now, gid, start, state, &mut wishes);
                }
                self.grant(node, wishes);
                self.complete(node, gid, upto);
            }
            Effect::Durable(upto, _) => self.engine.fold(upto.0),
            Effect::Role { role, term, .. } => {
                self.engine.fold(u64::from(term.0));
                if role == Role::Leader {
                    self.out.elections += 1;
                    self.plot_leads(node, gid);
                    if self.is_relaxed(gid) && self.swarm.voters > 1 {
                        self.leads_after_power(node, gid);
                    }
                    if let Some(core) = self.nodes[node].cores.get(&gid) {
                        self.checker.leads(node, core);
                    }
                } else {
                    let leader = self.hint(node, gid);
                    for w in self.nodes[node].waiters.remove(&gid).unwrap_or_default() {
                        self.answer(w.who, w.id, Reply::NotHere { leader });
                    }
                }
            }
            Effect::Proposed { id, index, term, base_offset, end_offset } => {
                if let Some((who, id, fence)) = self.nodes[node].proposing.remove(&id.0) {
                    let w = Waiter { index, term: term.0, who, id, fence, base: base_offset, end: end_offset };
                    self.nodes[node].waiters.entry(gid).or_default().push(w);
                }
            }
            Effect::Refused(id, _) => {
                if let Some((who, id, _)) = self.nodes[node].proposing.remove(&id.0) {
                    let leader = self.hint(node, gid);
                    self.answer(who, id, Reply::NotHere { leader });
                }
            }
            Effect::ColdRead { token, rows } => {
                self.out.cold_reads += 1;
                let n = &self.nodes[node];
                let entries = n.cores.get(&gid).and_then(|core| n.storage.entries(core.log(), &rows));
                let (boot, delay) = (self.nodes[node].boot, self.rng.between(50, 5_000));
                self.engine.after(delay, Happens::Fetched { node, boot, gid, token, entries });
            }
            Effect::ReadReady(token, index) => {
                if let Some((_, acked)) = self.nodes[node].barriers.remove(&token) {
                    self.out.barriers += 1;
                    self.checker.ensure(index >= acked, || {
                        format!("node {node} {gid:?}: a barrier gave {index}, but {acked} was acknowledged before it")
                    });
                }
            }
            Effect::ReadRefused(token) => {
                self.nodes[node].barriers.remove(&token);
            }
            // A replica that was removed, or is behind with the list of members, may hear answers to what it never asked.
            Effect::Guarded(_, GuardRule::UnknownPeer) if self.swarm.spares > 0 || !self.ids.is_empty() => {}
            // What others still send to the id that was burnt is refused by who has the new one, until the group has let it go.
            Effect::Guarded(_, GuardRule::WrongGroup) if self.ids.contains_key(&(node, gid)) => {}
            Effect::Guarded(from, rule) => {
                self.checker.fail(format!("node {node} {gid:?}: a message of {from:?} was refused: {rule:?}"));
            }
            Effect::Offline(cause) => self.checker.fail(format!("node {node} {gid:?}: offline: {cause}")),
        }
    }

    pub(crate) fn send(&mut self, node: usize, m: PeerMsg) {
        let to = m.to.node().0 as usize - 1;
        let granted = matches!(m.body, PeerBody::VoteReply { pre: false, reject: false, .. });
        let ack = matches!(m.body, PeerBody::Ack { reject: None, .. });
        if !self.open_stream(node, to) {
            return;
        }
        self.sent_to_reset(node, to, &m);
        if granted {
            self.plot_granted(node, to, m.gid);
        }
        let boots = (self.nodes[node].boot, self.nodes[to].boot);
        let now = self.engine.now();
        let times = match m.body {
            // The beginning of a stream is there, or the stream is not.
            PeerBody::Roll { ask: false, .. } => vec![self.net.send_surely(now, node, to, &self.swarm, &mut self.rng)],
            _ => self.net.send(now, node, to, &self.swarm, &mut self.rng),
        };
        for at in times {
            self.engine.at(at, Happens::Arrives { boots, msg: Box::new(m.clone()) });
        }
        if (granted && self.chance(self.swarm.crash_after_vote)) || (ack && self.chance(self.swarm.crash_after_reply)) {
            self.doom(node);
        }
    }

    pub(crate) fn grant(&mut self, node: usize, wishes: Vec<Wish>) {
        let boot = self.nodes[node].boot;
        for wish in wishes {
            match wish {
                Wish::Done(delay, token) => self.engine.after(delay, Happens::Disk { node, boot, token }),
                Wish::Event(gid, event) => self.core_event(node, gid, event),
                Wish::Snapshot(gid) => {
                    if let Some(core) = self.nodes[node].cores.get(&gid) {
                        let payload = core.log().snapshot_payload();
                        let (now, mut more) = (self.now(node), Vec::new());
                        self.nodes[node].storage.snapshot(now, gid, payload, &mut more);
                        self.grant(node, more);
                    }
                }
                Wish::Stopped(why) => {
                    // The process ends and acknowledges nothing more; what the disk holds, recovery must find out.
                    self.checker.ensure(self.calm_at.is_none(), || format!("node {node}: storage stopped: {why}"));
                    self.out.disk_errors += 1;
                    self.nodes[node].doomed = Some(false);
                }
            }
        }
    }
}
