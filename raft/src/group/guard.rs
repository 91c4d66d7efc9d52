//! Pure. Looks at a peer's message before the crate may (R18): what could make it panic or forget is refused here, and
//! the crate's messages are turned into ours and back.

use super::conf::ConfChange;
use super::store::Store;
use crate::effect::{GuardRule, Hint, PeerBody, PeerId, PeerMsg};
use bytes::Bytes;
use catchwater_base::mutant;
use catchwater_record::{BatchView, EntryIndex, Gid, LeaderEpoch, Offset};
use catchwater_storage::format::context::GapRun;
use catchwater_storage::{EntryContext, EntryKind, NewEntry, entry};
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use raft::{RawNode, StateRole};

/// Kafka's leader epoch is an i32 (R28).
pub(super) const TERM_MAX: u32 = 1 << 31;
/// The crate's mark of a campaign by leadership transfer.
const TRANSFER: &[u8] = b"CampaignTransfer";

/// Checks `msg` against what this replica has.
pub(super) fn check(gid: Gid, node: &RawNode<Store>, msg: &PeerMsg) -> Result<(), GuardRule> {
    let raft = &node.raft;
    let log = &raft.store().log;
    if msg.gid != gid || msg.to.0 != raft.id {
        return Err(GuardRule::WrongGroup);
    }
    // A member whose own list is behind must hear, and elect, peers it does not know yet; answers of such are nobody's.
    let request =
        matches!(msg.body, PeerBody::Append { .. } | PeerBody::Beat { .. } | PeerBody::Vote { .. } | PeerBody::Snap(_));
    if msg.from.0 == raft.id || msg.from.0 == 0 || (!request && raft.prs().get(msg.from.0).is_none()) {
        return Err(GuardRule::UnknownPeer);
    }
    if msg.term == 0 || msg.term >= TERM_MAX {
        return Err(GuardRule::TermRange);
    }
    let current = u64::from(msg.term) >= raft.term;
    match &msg.body {
        PeerBody::Append { prev_index, prev_term, entries, .. } => {
            let mut at = *prev_index;
            let mut term = *prev_term;
            let matches = log.term(*prev_index).is_some_and(|t| t.0 == *prev_term);
            // Known only if the logs agree there: else the crate refuses the append anyway.
            let before = log.first_index().prev();
            let mut next = if !matches {
                None
            } else if *prev_index == before {
                Some(log.end_offset_at(before))
            } else {
                // Old ones are in files only; then the chain is held against the first entry that is known here: the last
                // that is committed always is.
                log.offsets_of(*prev_index).map(|(_, end)| end)
            };
            for e in entries {
                at = at.next();
                if e.index != at {
                    return Err(GuardRule::EntryShape);
                }
                if e.term.0 < term || e.term.0 > msg.term {
                    return Err(GuardRule::TermOrder);
                }
                term = e.term.0;
                shape(e)?;
                if next.is_some_and(|n| n != e.base_offset) {
                    return Err(GuardRule::OffsetChain);
                }
                let here = log.offsets_of(at).filter(|_| log.term(at) == Some(e.term));
                if here.is_some_and(|(base, _)| base != e.base_offset) {
                    return Err(GuardRule::OffsetChain);
                }
                next = Some(e.end_offset());
                let committed = at.0 <= raft.raft_log.committed;
                if current && committed && log.term(at).is_some_and(|t| t != e.term) {
                    return Err(GuardRule::ConflictBelowCommit);
                }
            }
            Ok(())
        }
        PeerBody::Snap(s) => {
            let members = super::conf::ConfState::decode(&s.conf).is_ok();
            let ok = s.index.0 > 0 && s.term > 0 && s.term <= msg.term && members && log.can_install(s);
            if ok { Ok(()) } else { Err(GuardRule::EntryShape) }
        }
        PeerBody::Beat { commit, .. } if current && *commit > log.last_index() => Err(GuardRule::CommitBeyondEnd),
        PeerBody::Ack { index, reject: None, .. }
            if u64::from(msg.term) == raft.term && raft.state == StateRole::Leader && *index > log.last_index() =>
        {
            Err(GuardRule::CommitBeyondEnd)
        }
        _ => Ok(()),
    }
}

/// The numbers beside an entry's bytes must be those of the bytes.
fn shape(e: &NewEntry) -> Result<(), GuardRule> {
    let ok = match e.kind {
        EntryKind::Data => BatchView::new(&e.body).is_ok_and(|b| {
            b.offset_count() == e.count
                && e.count > 0
                && b.offset() == e.base_offset
                && u32::try_from(b.leader_epoch()) == Ok(e.term.0)
                && b.max_timestamp() == e.max_ts
        }),
        // What compaction took at the sender: its index, its term, and the offsets it had.
        EntryKind::Gap => e.body.is_empty() && e.context.is_empty(),
        _ => e.body.is_empty() && e.count == 0 && kind_of(&e.body, &e.context) == Some(e.kind),
    };
    let ok = ok && (e.kind != EntryKind::Conf || conf_change(&e.context).is_some());
    if ok && e.flags == entry::derive_flags(e.kind, &e.body, &e.context) { Ok(()) } else { Err(GuardRule::EntryShape) }
}

/// Kind of an entry by its bytes; `None` if its context is not of this version.
pub(super) fn kind_of(body: &Bytes, context: &Bytes) -> Option<EntryKind> {
    if !body.is_empty() {
        return Some(EntryKind::Data);
    }
    if context.is_empty() {
        return Some(EntryKind::Noop);
    }
    EntryContext::decode(context).ok().map(|c| c.kind_without_body())
}

/// The change of members that a context holds.
pub(super) fn conf_change(context: &Bytes) -> Option<ConfChange> {
    ConfChange::decode(&EntryContext::decode(context).ok()?.conf?).ok()
}

/// An entry of the crate as ours. `base` is its offset.
pub(super) fn ours(e: Entry, base: Offset) -> NewEntry {
    let kind = if e.get_entry_type() == EntryType::EntryNormal {
        kind_of(&e.data, &e.context).expect("contexts are checked before they enter the crate")
    } else {
        EntryKind::Conf
    };
    let (count, max_ts) = match kind {
        EntryKind::Data => {
            let batch = BatchView::new(&e.data).expect("bodies are checked before they enter the crate");
            (batch.offset_count(), batch.max_timestamp())
        }
        EntryKind::Gap => (gap_offsets(&e.context), -1),
        _ => (0, -1),
    };
    let term = LeaderEpoch(e.term as u32);
    let flags = entry::derive_flags(kind, &e.data, &e.context);
    NewEntry {
        index: EntryIndex(e.index),
        term,
        kind,
        flags,
        base_offset: base,
        count,
        max_ts,
        body: if kind == EntryKind::Data { e.data } else { Bytes::new() },
        // A row says of it all that there is.
        context: if kind == EntryKind::Gap { Bytes::new() } else { e.context },
    }
}

/// Context of an entry while the crate has it, which must find the offsets of a gap in it.
pub(super) fn context_of(e: &NewEntry) -> Bytes {
    if e.kind != EntryKind::Gap {
        return e.context.clone();
    }
    let end_offset = if mutant!("gap_takes_no_offsets") { e.base_offset } else { e.end_offset() };
    GapRun { first_index: e.index.0, count: 1, base_offset: e.base_offset, end_offset }.encode()
}

fn gap_offsets(context: &Bytes) -> u32 {
    let gap = EntryContext::decode(context).ok().and_then(|c| c.gap);
    gap.and_then(|g| u32::try_from(g.end_offset.0.checked_sub(g.base_offset.0)?).ok()).unwrap_or(0)
}

fn theirs(e: NewEntry) -> Entry {
    let context = context_of(&e);
    let mut out = Entry { index: e.index.0, term: u64::from(e.term.0), data: e.body, context, ..Entry::default() };
    if e.kind == EntryKind::Conf {
        out.set_entry_type(EntryType::EntryConfChangeV2);
    }
    out
}

/// A message of the crate as ours; `None` for those that have no wire form, and for an append whose rows are gone.
pub(super) fn outgoing(gid: Gid, store: &Store, mut m: Message) -> Option<PeerMsg> {
    let commit = EntryIndex(m.commit);
    let body = match m.get_msg_type() {
        MessageType::MsgAppend => {
            let mut entries = Vec::with_capacity(m.get_entries().len());
            for e in m.take_entries() {
                let at = EntryIndex(e.index);
                let same = store.log.term(at).is_some_and(|t| u64::from(t.0) == e.term);
                let base = store.base_of(at).filter(|_| same)?;
                entries.push(ours(e, base));
            }
            PeerBody::Append { prev_index: EntryIndex(m.index), prev_term: m.log_term as u32, commit, entries }
        }
        MessageType::MsgAppendResponse => {
            let reject = m.reject.then_some(Hint { index: EntryIndex(m.reject_hint), term: m.log_term as u32 });
            PeerBody::Ack { index: EntryIndex(m.index), commit, reject }
        }
        MessageType::MsgHeartbeat => PeerBody::Beat { commit, barrier: barrier_of(&m.context) },
        MessageType::MsgHeartbeatResponse => PeerBody::BeatAck { commit, barrier: barrier_of(&m.context) },
        t @ (MessageType::MsgRequestVote | MessageType::MsgRequestPreVote) => PeerBody::Vote {
            pre: t == MessageType::MsgRequestPreVote,
            transfer: m.context == TRANSFER,
            last_index: EntryIndex(m.index),
            last_term: m.log_term as u32,
            commit,
            commit_term: m.commit_term as u32,
        },
        t @ (MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse) => PeerBody::VoteReply {
            pre: t == MessageType::MsgRequestPreVoteResponse,
            reject: m.reject,
            commit,
            commit_term: m.commit_term as u32,
        },
        MessageType::MsgTimeoutNow => PeerBody::TimeoutNow,
        MessageType::MsgSnapshot => PeerBody::Snap(Box::new(store.prefix()?)),
        _ => return None,
    };
    Some(PeerMsg { gid, from: PeerId(m.from), to: PeerId(m.to), term: m.term as u32, body })
}

/// A checked message of ours as the crate's.
pub(super) fn incoming(msg: PeerMsg) -> Message {
    let mut m = Message { from: msg.from.0, to: msg.to.0, term: u64::from(msg.term), ..Message::default() };
    match msg.body {
        PeerBody::Append { prev_index, prev_term, commit, entries } => {
            m.set_msg_type(MessageType::MsgAppend);
            m.index = prev_index.0;
            m.log_term = u64::from(prev_term);
            m.commit = commit.0;
            m.set_entries(entries.into_iter().map(theirs).collect::<Vec<_>>().into());
        }
        PeerBody::Ack { index, commit, reject } => {
            m.set_msg_type(MessageType::MsgAppendResponse);
            m.index = index.0;
            m.commit = commit.0;
            if let Some(hint) = reject {
                m.reject = true;
                m.reject_hint = hint.index.0;
                m.log_term = u64::from(hint.term);
            }
        }
        PeerBody::Beat { commit, barrier } => {
            m.set_msg_type(MessageType::MsgHeartbeat);
            m.commit = commit.0;
            m.context = barrier_bytes(barrier);
        }
        PeerBody::BeatAck { commit, barrier } => {
            m.set_msg_type(MessageType::MsgHeartbeatResponse);
            m.commit = commit.0;
            m.context = barrier_bytes(barrier);
        }
        PeerBody::Vote { pre, transfer, last_index, last_term, commit, commit_term } => {
            m.set_msg_type(if pre { MessageType::MsgRequestPreVote } else { MessageType::MsgRequestVote });
            m.index = last_index.0;
            m.log_term = u64::from(last_term);
            m.commit = commit.0;
            m.commit_term = u64::from(commit_term);
            if transfer {
                m.context = Bytes::from_static(TRANSFER);
            }
        }
        PeerBody::VoteReply { pre, reject, commit, commit_term } => {
            m.set_msg_type(if pre {
                MessageType::MsgRequestPreVoteResponse
            } else {
                MessageType::MsgRequestVoteResponse
            });
            m.reject = reject;
            m.commit = commit.0;
            m.commit_term = u64::from(commit_term);
        }
        PeerBody::TimeoutNow => m.set_msg_type(MessageType::MsgTimeoutNow),
        // `prefix.rs` and `rejoin.rs` take these.
        PeerBody::Snap(_) | PeerBody::Roll { .. } | PeerBody::RollOk { .. } => {}
    }
    m
}

fn barrier_of(context: &Bytes) -> Option<u64> {
    let bytes: [u8; 8] = context[..].try_into().ok()?;
    Some(u64::from_le_bytes(bytes))
}

fn barrier_bytes(barrier: Option<u64>) -> Bytes {
    barrier.map_or(Bytes::new(), |b| Bytes::copy_from_slice(&b.to_le_bytes()))
}
