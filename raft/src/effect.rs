//! Pure. What goes into a [`crate::GroupCore`] and what comes out: the words between the core, its shell in `broker`,
//! the driver and the transport. No type of the consensus crate appears here.

use crate::group::conf::ConfChange;
use bytes::{Bytes, BytesMut};
use catchwater_record::{CaptureEpoch, CaptureId, EntryIndex, Gid, LeaderEpoch, NodeId, Offset};
use catchwater_storage::format::context;
use catchwater_storage::{EntryKind, Hard, NewEntry, PlacedRow, PrefixSnapshot, Replaced, RowRead};
use std::fmt;

/// One replica of one group: `node id << 32 | incarnation`. Never reused (a forgotten vote would come back).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

impl PeerId {
    pub const fn new(node: NodeId, incarnation: u32) -> Self {
        PeerId(((node.0 as u64) << 32) | incarnation as u64)
    }
    pub const fn node(self) -> NodeId {
        NodeId((self.0 >> 32) as u32)
    }
    pub const fn incarnation(self) -> u32 {
        self.0 as u32
    }
}
impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({}.{})", self.node(), self.incarnation())
    }
}
impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node(), self.incarnation())
    }
}

/// Number of one [`Effect::Persist`]; rising within a [`crate::GroupCore`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct ReadyNo(pub u64);

/// Chosen by the proposer; comes back in [`Effect::Proposed`] or [`Effect::Refused`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct ProposalId(pub u64);

/// Something a leader shall append. The core assigns index, offset and term and patches base offset and epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal {
    pub id: ProposalId,
    /// One checked v2 batch for `Data`, else empty.
    pub body: BytesMut,
    pub kind: EntryKind,
    /// TLVs of the entry-context format; empty = none.
    pub context: Bytes,
}

impl Proposal {
    /// A batch, with the capture context it carries (empty = none).
    pub fn data(id: ProposalId, body: BytesMut, context: Bytes) -> Self {
        Proposal { id, body, kind: EntryKind::Data, context }
    }
    /// Shuts out every worker of `capture` below `epoch`.
    pub fn fence(id: ProposalId, capture: CaptureId, epoch: CaptureEpoch) -> Self {
        Proposal {
            id,
            body: BytesMut::new(),
            kind: EntryKind::Ctl,
            context: context::Fence { capture, epoch }.encode(),
        }
    }
    /// Moves the log start.
    pub fn log_start(id: ProposalId, start: context::LogStart) -> Self {
        Proposal { id, body: BytesMut::new(), kind: EntryKind::LogStart, context: start.encode() }
    }
    /// Forgets a capture.
    pub fn capture_drop(id: ProposalId, capture: CaptureId) -> Self {
        Proposal { id, body: BytesMut::new(), kind: EntryKind::Ctl, context: context::encode_capture_drop(capture) }
    }
}

/// What a core is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// Once, right after `open`, when the shell can take effects: a sole voter campaigns and leads at once.
    Start,
    /// So many ticks (100 ms each by default) have passed.
    Tick(u32),
    /// A message of a peer; bodies were CRC-checked by the transport.
    Message(PeerMsg),
    /// All proposals of one combining round, in order.
    Propose(Vec<Proposal>),
    /// The `Persist` of that number, and all before it, are durable. In order.
    Persisted(ReadyNo),
    /// Everything up to the index is in segment files, at these places.
    Segmented(EntryIndex, Vec<PlacedRow>),
    /// A compacted segment is in force: this one, in the place of those it was made from.
    Replaced(Box<Replaced>),
    /// Answer of [`Effect::ColdRead`]: whole entries from its first index on; `None` = could not be read now.
    Fetched(u64, Option<Vec<NewEntry>>),
    /// Wants [`Effect::ReadReady`] when this replica is sure to lead and knows all that was acknowledged before.
    ReadBarrier(u64),
    /// A control stream to that peer begins: what the core sends at once must be the first thing in it.
    StreamUp(PeerId),
    /// No stream to or from that node any more.
    StreamDown(NodeId),
    /// The window of the stream to that peer overflowed: something was not sent.
    Unreachable(PeerId),
    /// A prefix snapshot was taken over by the peer's node, or could not be sent.
    SnapshotSent(PeerId, bool),
    /// Give up leadership now.
    StepDown,
    /// Hand leadership to this voter, if it is healthy and has everything (R27); else nothing happens.
    Transfer(PeerId),
    /// Change the members; answered like a proposal. The core leaves the joint configuration by itself (R24).
    ChangeConf(ProposalId, ConfChange),
}

/// What a core wants done; each variant names who does it.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Make durable, in the order of these effects: `LogDir::persist` (driver), later `Event::Persisted(ready)`. `hard`
    /// is `None` when only the commit index moved (worth no flush). Entries from `truncate_from` on that are not in
    /// `entries` are void.
    Persist { ready: ReadyNo, entries: Vec<NewEntry>, hard: Option<Hard>, truncate_from: Option<EntryIndex> },
    /// Make durable that the log is void and begins behind the snapshot, then `Event::Persisted(ready)`. Never for a sole
    /// voter.
    Install { ready: ReadyNo, snapshot: Box<PrefixSnapshot>, hard: Option<Hard> },
    /// Entries that this replica may have acknowledged are missing: durable before its next message leaves, it must come
    /// back as Suspect until `Unmuted`. Never for a sole voter.
    Muted,
    /// It holds again what it may have promised: it opens as healthy from now on.
    Unmuted,
    /// Everything up to the index is committed; the offset is the high watermark (`broker/waiters.rs`: acks = all).
    Commit(EntryIndex, Offset),
    /// Everything up to the index is durable here; the offset is the persisted end (`broker/waiters.rs`: acks = 1).
    Durable(EntryIndex, Offset),
    /// Role, term or known leader changed (`broker/partition.rs`, hosts).
    Role { role: Role, term: LeaderEpoch, leader: Option<PeerId> },
    /// The proposal has its place. Not yet durable, not yet committed; the place is void if another term takes it.
    Proposed { id: ProposalId, index: EntryIndex, term: LeaderEpoch, base_offset: Offset, end_offset: Offset },
    /// The proposal is surely not in the log.
    Refused(ProposalId, Why),
    /// To the transport, now. (What must wait for durability waits inside the core.)
    Send(PeerMsg),
    /// A peer needs entries that are no longer in memory: read these rows' bytes and contexts from segment files, then
    /// `Event::Fetched(token, ..)` (driver). Never for a sole voter.
    ColdRead { token: u64, rows: RowRead },
    /// The barrier holds: state applied up to the index is fresh.
    ReadReady(u64, EntryIndex),
    /// The barrier fell with the leadership.
    ReadRefused(u64),
    /// A peer's message was refused before it could do harm (counted; the message is dropped).
    Guarded(PeerId, GuardRule),
    /// The group is down until it is opened again; no other group is touched.
    Offline(Cause),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Follower,
    Candidate,
    Leader,
}

/// Why a proposal is surely not in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Why {
    #[error("this replica does not lead")]
    NotLeader,
    #[error("the consensus core dropped it")]
    Dropped,
    #[error("the group's budget of uncommitted bytes is used up")]
    NoRoom,
    #[error("body, kind and context do not agree")]
    Invalid,
    #[error("the group is offline")]
    Offline,
}

/// Which check of the guard refused a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuardRule {
    UnknownPeer,
    WrongGroup,
    TermRange,
    TermOrder,
    EntryShape,
    OffsetChain,
    /// A commit index beyond what this replica has.
    CommitBeyondEnd,
    /// A message contradicts what this replica knows as committed.
    ConflictBelowCommit,
}

/// Why a group went down.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Cause {
    #[error("panic inside the group: {0}")]
    Panic(String),
    #[error("an entry of a newer version at index {0}")]
    NewerVersion(EntryIndex),
}

/// What others may know of a group without asking it to do something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupView {
    pub role: Role,
    pub term: LeaderEpoch,
    pub leader: Option<PeerId>,
    pub last: EntryIndex,
    pub persisted: EntryIndex,
    pub commit: EntryIndex,
    pub log_start: Offset,
    /// First offset not committed.
    pub high_watermark: Offset,
    /// First offset not durable here.
    pub persisted_end: Offset,
    /// First offset not assigned (LEO).
    pub spec_end: Offset,
    /// A leader has committed an entry of its own term: from then on its high watermark is everyone's.
    pub own_term_committed: bool,
    pub voters: usize,
    /// It lost something and takes part in nothing but being fed.
    pub mute: bool,
    pub offline: bool,
}

/// One message between two replicas of a group; bytes in `raft/frame`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerMsg {
    pub gid: Gid,
    pub from: PeerId,
    pub to: PeerId,
    pub term: u32,
    pub body: PeerBody,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerBody {
    /// Entries are contiguous from `prev_index + 1`.
    Append {
        prev_index: EntryIndex,
        prev_term: u32,
        commit: EntryIndex,
        entries: Vec<NewEntry>,
    },
    Ack {
        index: EntryIndex,
        commit: EntryIndex,
        reject: Option<Hint>,
    },
    /// `barrier` comes back in the answer.
    Beat {
        commit: EntryIndex,
        barrier: Option<u64>,
    },
    BeatAck {
        commit: EntryIndex,
        barrier: Option<u64>,
    },
    Vote {
        pre: bool,
        transfer: bool,
        last_index: EntryIndex,
        last_term: u32,
        commit: EntryIndex,
        commit_term: u32,
    },
    VoteReply {
        pre: bool,
        reject: bool,
        commit: EntryIndex,
        commit_term: u32,
    },
    TimeoutNow,
    /// The log before `first_index` of the sender, which is gone there, as far as anybody needs it.
    Snap(Box<PrefixSnapshot>),
    /// What the sender has; `ask` = answer with the same.
    Roll {
        row: RollRow,
        ask: bool,
    },
    /// The leader forgot what it believed of the receiver, and feeds it up to `bound`.
    RollOk {
        bound: EntryIndex,
    },
}

/// One replica's part of a roll: the first thing that a stream carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RollRow {
    /// It lost something, and is mute.
    pub suspect: bool,
    pub leader: bool,
    pub learner: bool,
    pub term: u32,
    pub first_index: EntryIndex,
    pub last_index: EntryIndex,
    pub last_term: u32,
    /// Known committed and still held.
    pub commit: EntryIndex,
    pub commit_term: u32,
}

/// Where a refused append may go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hint {
    pub index: EntryIndex,
    pub term: u32,
}
