//! Pure. Consumer groups of the classic protocol, and committed offsets: the machine of one `__consumer_offsets`
//! partition.
//!
//! Walk: commit-offset 3/8
//!
//! Replicated ([`records`]): the last stable shape of each group, and its offsets. Soft: who is joining, who waits for
//! what, who was heard when; lost with leadership on purpose, as in Kafka, whose members then simply go on or join
//! again. [`classic`] decides about members, [`offsets`] about offsets; this file is the door.

pub mod classic;
pub mod offsets;
pub mod records;

use bytes::Bytes;
use catchwater_record::{GroupName, TopicId, TopicName};

/// Settings of the machine; names and defaults are Kafka's.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `group.min.session.timeout.ms`
    pub session_min_ms: i32,
    /// `group.max.session.timeout.ms`
    pub session_max_ms: i32,
    /// `group.initial.rebalance.delay.ms`: how long an empty group waits for more members; 0 = not at all.
    pub initial_delay_ms: u32,
    /// `group.max.size`, members.
    pub size_max: usize,
    /// `offset.metadata.max.bytes`
    pub metadata_max: usize,
    /// `offsets.retention.minutes`, in ms.
    pub retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub retention_check_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            session_min_ms: 6_000,
            session_max_ms: 1_800_000,
            initial_delay_ms: 3_000,
            size_max: i32::MAX as usize,
            metadata_max: 4096,
            retention_ms: 7 * 24 * 3_600_000,
            retention_check_ms: 600_000,
        }
    }
}

/// What can be asked of a group coordinator.
#[derive(Clone, Debug)]
pub enum Request {
    /// The deadline came.
    Wake,
    Join(Join),
    Sync(Sync),
    Heartbeat(Heartbeat),
    Leave(Leave),
    Commit(Commit),
    Fetch(FetchOffsets),
    /// A topic is gone: so are its offsets, in every group of this partition.
    TopicDeleted {
        name: TopicName,
    },
    Describe {
        group: GroupName,
    },
    List,
    Delete {
        group: GroupName,
    },
}

/// JoinGroup.
#[derive(Clone, Debug)]
pub struct Join {
    pub group: GroupName,
    /// Empty = not a member yet.
    pub member: String,
    pub instance: Option<String>,
    pub client_id: String,
    /// As Kafka prints it: `/127.0.0.1`.
    pub client_host: String,
    pub session_timeout_ms: i32,
    /// v0 has none: the session timeout then.
    pub rebalance_timeout_ms: i32,
    pub protocol_type: String,
    /// In the member's order of preference.
    pub protocols: Vec<(String, Bytes)>,
    /// v4+: a member without id gets one first (KIP-394).
    pub require_known_member: bool,
    /// v9+: a static leader may be told to skip the assignment (KIP-814).
    pub supports_skip: bool,
    /// Drawn by the host; becomes part of the member id if one is due.
    pub uuid: [u8; 16],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: String,
    pub skip_assignment: bool,
    pub member: String,
    /// For the leader only.
    pub members: Vec<JoinedMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    pub member: String,
    pub instance: Option<String>,
    pub metadata: Bytes,
}

/// SyncGroup.
#[derive(Clone, Debug)]
pub struct Sync {
    pub group: GroupName,
    pub generation: i32,
    pub member: String,
    pub instance: Option<String>,
    /// v5+: must agree if given.
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    /// From the leader: member → assignment.
    pub assignments: Vec<(String, Bytes)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub assignment: Bytes,
}

#[derive(Clone, Debug)]
pub struct Heartbeat {
    pub group: GroupName,
    pub generation: i32,
    pub member: String,
    pub instance: Option<String>,
}

/// LeaveGroup; versions below 3 name one member.
#[derive(Clone, Debug)]
pub struct Leave {
    pub group: GroupName,
    pub members: Vec<LeaveMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaveMember {
    /// May be empty if `instance` is given (an administrator removes a static member).
    pub member: String,
    pub instance: Option<String>,
}

/// OffsetCommit.
#[derive(Clone, Debug)]
pub struct Commit {
    pub group: GroupName,
    /// Below 0 = a simple consumer, without membership.
    pub generation: i32,
    pub member: String,
    pub instance: Option<String>,
    /// v2-v4: kept so long instead of the machine's retention.
    pub retention_ms: Option<i64>,
    pub offsets: Vec<CommitOffset>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitOffset {
    pub topic: TopicName,
    /// Stored beside the offset; none = not known.
    pub topic_id: TopicId,
    pub partition: i32,
    pub offset: i64,
    /// -1 = none.
    pub leader_epoch: i32,
    pub metadata: String,
    /// v1 only: the client's own time of the commit.
    pub commit_ms: Option<i64>,
}

/// OffsetFetch of one group.
#[derive(Clone, Debug)]
pub struct FetchOffsets {
    pub group: GroupName,
    /// v9+: a member of the new protocol names itself; classic groups ignore it.
    pub member: Option<(String, i32)>,
    /// `None` = everything the group has.
    pub topics: Option<Vec<(TopicName, Vec<i32>)>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedOffset {
    pub topic: TopicName,
    pub partition: i32,
    /// -1 = none committed.
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To a wake-up; nobody reads it.
    Woken,
    Join(Result<Joined, GroupError>),
    Sync(Result<Synced, GroupError>),
    Heartbeat(Result<(), GroupError>),
    /// One result per member asked for; `Err` = the whole request.
    Leave(Result<Vec<(LeaveMember, Result<(), GroupError>)>, GroupError>),
    /// Per offset, in the order of the request.
    Commit(Vec<Result<(), GroupError>>),
    Fetch(Result<Vec<FetchedOffset>, GroupError>),
    Describe(Result<Described, GroupError>),
    List(Vec<Listed>),
    Delete(Result<(), GroupError>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub state: &'static str,
    pub protocol_type: String,
    pub protocol: String,
    pub members: Vec<DescribedMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    pub member: String,
    pub instance: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub metadata: Bytes,
    pub assignment: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub group: GroupName,
    pub protocol_type: String,
    pub state: &'static str,
}

/// Why a request about a group was refused. Each has one Kafka code (`broker/error_code.rs`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    #[error("group id is empty or illegal")]
    IllegalGroup,
    #[error("member is unknown")]
    UnknownMember,
    /// Join again with this id.
    #[error("join again with member id {0}")]
    MemberIdRequired(String),
    #[error("generation {asked} is not the group's {have}")]
    IllegalGeneration { asked: i32, have: i32 },
    #[error("the group is rebalancing")]
    Rebalancing,
    #[error("instance {0} is held by a newer member")]
    FencedInstance(String),
    #[error("no protocol in common with the group, or of another type")]
    InconsistentProtocol,
    #[error("session timeout {0} ms is out of bounds")]
    SessionTimeout(i32),
    #[error("the group is full")]
    Full,
    #[error("metadata of {0} bytes is too long")]
    MetadataTooLong(usize),
    #[error("group has members")]
    NotEmpty,
    #[error("group does not exist")]
    NotFound,
}
