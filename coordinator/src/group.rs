//! Pure. Consumer groups of the classic protocol, and committed offsets: the machine of one `__consumer_offsets`
//! partition.
//!
//! Walk: commit-offset 3/8
//!
//! Replicated ([`records`]): the last stable shape of each group, and its offsets. Soft: who is joining, who waits for
//! what, who was heard when; lost with leadership on purpose, as in Kafka, whose members then simply go on or join
//! again. [`classic`] decides about members, [`offsets`] about offsets; this file is the door.

mod classic;
mod offsets;
pub mod records;

use crate::group::classic::{Live, Turn};
use crate::group::offsets::Offsets;
use crate::group::records::{GroupRecord, Meta};
use bytes::Bytes;
use catchwater_base::{Decision, Mono, Now, Replicated, Ticket, hash};
use catchwater_record::{GroupName, TopicId, TopicName};
use std::collections::{BTreeMap, BTreeSet};

/// Protocol type of members that consume; others (Connect) mean something else by their blobs.
const CONSUMER: &str = "consumer";

/// Most tombstones of one sweep; what is left waits for the next, a second later.
const SWEEP_MAX: usize = 1_000;

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
    /// Most bytes of subscriptions and assignments of one group: its record must fit into a batch, as Kafka's must into
    /// a message of its offsets topic.
    pub group_bytes_max: usize,
}

impl Settings {
    /// From the configuration file's broker keys; what is absent or no number keeps its default.
    pub fn from_file(file: &BTreeMap<String, String>) -> Self {
        let number = |key: &str| file.get(key).and_then(|v| v.trim().parse::<i64>().ok());
        let mut s = Settings::default();
        let int = |key: &str, default: i32| number(key).and_then(|n| i32::try_from(n).ok()).unwrap_or(default);
        s.session_min_ms = int("group.min.session.timeout.ms", s.session_min_ms);
        s.session_max_ms = int("group.max.session.timeout.ms", s.session_max_ms);
        let unsigned = |key: &str| number(key).and_then(|n| usize::try_from(n).ok());
        s.size_max = unsigned("group.max.size").unwrap_or(s.size_max);
        s.metadata_max = unsigned("offset.metadata.max.bytes").unwrap_or(s.metadata_max);
        let delay = number("group.initial.rebalance.delay.ms").and_then(|n| u32::try_from(n).ok());
        s.initial_delay_ms = delay.unwrap_or(s.initial_delay_ms);
        if let Some(minutes) = number("offsets.retention.minutes").filter(|n| *n > 0) {
            s.retention_ms = minutes.saturating_mul(60_000);
        }
        let check = number("offsets.retention.check.interval.ms").and_then(|n| u64::try_from(n).ok());
        s.retention_check_ms = check.filter(|n| *n > 0).unwrap_or(s.retention_check_ms);
        s
    }
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
            group_bytes_max: 8 << 20,
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
    /// OffsetDelete.
    DeleteOffsets {
        group: GroupName,
        topics: Vec<(TopicName, Vec<i32>)>,
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

/// A member that was asked to leave, and whether it did.
pub type Left = (LeaveMember, Result<(), GroupError>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To a wake-up; nobody reads it.
    Woken,
    Join(Result<Joined, GroupError>),
    Sync(Result<Synced, GroupError>),
    Heartbeat(Result<(), GroupError>),
    /// One result per member asked for; `Err` = the whole request.
    Leave(Result<Vec<Left>, GroupError>),
    /// Per offset, in the order of the request.
    Commit(Vec<Result<(), GroupError>>),
    Fetch(Result<Vec<FetchedOffset>, GroupError>),
    Describe(Result<Described, GroupError>),
    List(Vec<Listed>),
    Delete(Result<(), GroupError>),
    /// One result per topic asked for; `Err` = the whole request.
    DeleteOffsets(Result<Vec<Result<(), GroupError>>, GroupError>),
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
    #[error("the group's subscriptions or assignments are larger than {max} bytes")]
    TooLarge { max: usize },
    #[error("group has members")]
    NotEmpty,
    #[error("group does not exist")]
    NotFound,
    #[error("the group is subscribed to {0}")]
    Subscribed(TopicName),
}

/// The machine of one `__consumer_offsets` partition.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    settings: Settings,
    groups: BTreeMap<GroupName, Stored>,
}

/// What is stored of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stored {
    meta: Option<Meta>,
    offsets: Offsets,
}

/// The leader's own knowledge.
#[derive(Debug, Default)]
pub struct Soft {
    /// Groups with members, or with ids given out. All others are what is stored of them.
    live: BTreeMap<GroupName, Live>,
    /// Next deadline of each live group.
    timers: BTreeSet<(Mono, GroupName)>,
    /// When offsets are looked through next.
    sweep: Mono,
}

impl Groups {
    pub fn new(settings: Settings) -> Self {
        Groups { settings, groups: BTreeMap::new() }
    }
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    fn stored(&self, group: &GroupName) -> Option<&Stored> {
        self.groups.get(group)
    }

    /// The group as it lives now; taken out of `soft` and put back by [`Groups::put`].
    fn take(&self, soft: &mut Soft, now: Now, group: &GroupName) -> Option<Live> {
        if let Some(live) = soft.live.remove(group) {
            if let Some(at) = live.deadline() {
                soft.timers.remove(&(at, group.clone()));
            }
            return Some(live);
        }
        let stored = self.stored(group)?;
        Some(stored.meta.as_ref().map_or_else(|| Live::new(now), |meta| Live::load(meta, now)))
    }

    fn put(soft: &mut Soft, group: &GroupName, live: Live) {
        if live.is_idle() {
            return;
        }
        if let Some(at) = live.deadline() {
            soft.timers.insert((at, group.clone()));
        }
        soft.live.insert(group.clone(), live);
    }

    fn join(&self, soft: &mut Soft, turn: &mut Turn<'_>, ticket: Ticket, join: Join) {
        let refuse = |turn: &mut Turn<'_>, error| turn.replies.push((ticket, Reply::Join(Err(error))));
        if join.group.as_str().is_empty() {
            return refuse(turn, GroupError::IllegalGroup);
        }
        let timeout = join.session_timeout_ms;
        if timeout < self.settings.session_min_ms || timeout > self.settings.session_max_ms {
            return refuse(turn, GroupError::SessionTimeout(timeout));
        }
        let group = join.group.clone();
        let mut live = match self.take(soft, turn.now, &group) {
            Some(live) => live,
            None if join.member.is_empty() => Live::new(turn.now),
            None => return refuse(turn, GroupError::UnknownMember),
        };
        live.join(turn, ticket, join);
        Self::put(soft, &group, live);
    }

    fn commit(&self, soft: &mut Soft, now: Now, request: Commit, records: &mut Vec<GroupRecord>) -> Reply {
        let all = |error: GroupError| Reply::Commit(request.offsets.iter().map(|_| Err(error.clone())).collect());
        let group = request.group.clone();
        if group.as_str().is_empty() && request.generation >= 0 {
            return all(GroupError::IllegalGroup);
        }
        let checked = match self.take(soft, now, &group) {
            None if request.generation < 0 => Ok(()),
            None => Err(GroupError::IllegalGeneration { asked: request.generation, have: -1 }),
            Some(mut live) => {
                let instance = request.instance.as_deref();
                let checked = live.check_commit(now, &request.member, instance, request.generation);
                Self::put(soft, &group, live);
                checked
            }
        };
        match checked {
            Err(error) => all(error),
            Ok(()) => Reply::Commit(offsets::commit(&self.settings, now, request, records)),
        }
    }

    fn delete(&self, soft: &mut Soft, now: Now, group: &GroupName, records: &mut Vec<GroupRecord>) -> Reply {
        let Some(live) = self.take(soft, now, group) else { return Reply::Delete(Err(GroupError::NotFound)) };
        // Ids that were given out and did not join yet keep no group: they are given anew.
        if live.state() != classic::State::Empty {
            Self::put(soft, group, live);
            return Reply::Delete(Err(GroupError::NotEmpty));
        }
        if let Some(stored) = self.stored(group) {
            offsets::forget(group, stored.offsets.keys().cloned().collect(), records);
            records.push(GroupRecord::Group { group: group.clone(), meta: None });
        }
        Reply::Delete(Ok(()))
    }

    fn delete_offsets(
        &self,
        soft: &mut Soft,
        now: Now,
        group: &GroupName,
        topics: Vec<(TopicName, Vec<i32>)>,
        records: &mut Vec<GroupRecord>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        if group.as_str().is_empty() {
            return Err(GroupError::IllegalGroup);
        }
        let live = self.take(soft, now, group).ok_or(GroupError::NotFound)?;
        let foreign = live.state() != classic::State::Empty && live.protocol_type() != CONSUMER;
        let subscribed = offsets::subscribed(&live);
        Self::put(soft, group, live);
        if foreign {
            return Err(GroupError::NotEmpty);
        }
        let have = self.stored(group).map(|s| &s.offsets);
        let mut results = Vec::with_capacity(topics.len());
        let mut gone = BTreeSet::new();
        for (topic, partitions) in topics {
            if subscribed.as_ref().is_none_or(|s| s.contains(&topic)) {
                results.push(Err(GroupError::Subscribed(topic)));
                continue;
            }
            let keys = partitions.into_iter().map(|p| (topic.clone(), p));
            gone.extend(keys.filter(|key| have.is_some_and(|h| h.contains_key(key))));
            results.push(Ok(()));
        }
        offsets::forget(group, gone.into_iter().collect(), records);
        Ok(results)
    }

    /// Everything whose time has come.
    fn wake(&self, soft: &mut Soft, now: Now, decision: &mut Decision<GroupRecord, Reply>) {
        while let Some((at, group)) = soft.timers.first().cloned() {
            if at > now.mono {
                break;
            }
            soft.timers.remove(&(at, group.clone()));
            let Some(mut live) = soft.live.remove(&group) else { continue };
            live.wake(&mut turn(&self.settings, now, &group, decision));
            assert!(live.deadline().is_none_or(|d| d > now.mono), "a woken group {group} leaves nothing due");
            Self::put(soft, &group, live);
        }
        if soft.sweep <= now.mono {
            let whole = self.sweep(soft, now, &mut decision.records);
            let pause = if whole { self.settings.retention_check_ms } else { 1_000 };
            soft.sweep = now.mono.plus_millis(pause.max(1));
        }
    }

    /// Forgets what is over its time; false = there may be more.
    fn sweep(&self, soft: &Soft, now: Now, records: &mut Vec<GroupRecord>) -> bool {
        let now_ms = now.wall.as_millis();
        let before = records.len();
        for (group, stored) in &self.groups {
            if records.len() - before >= SWEEP_MAX {
                return false;
            }
            let live = soft.live.get(group);
            let over = offsets::expired(&self.settings, now_ms, stored.meta.as_ref(), live, &stored.offsets);
            let last = over.len() == stored.offsets.len() && live.is_none();
            offsets::forget(group, over, records);
            if last && stored.meta.is_some() {
                records.push(GroupRecord::Group { group: group.clone(), meta: None });
            }
        }
        true
    }
}

fn turn<'a>(
    settings: &'a Settings,
    now: Now,
    group: &'a GroupName,
    decision: &'a mut Decision<GroupRecord, Reply>,
) -> Turn<'a> {
    Turn { now, settings, group, records: &mut decision.records, replies: &mut decision.replies }
}

impl Replicated for Groups {
    type Record = GroupRecord;
    type Request = Request;
    type Reply = Reply;
    type Soft = Soft;

    fn soft(&self, now: Now) -> Soft {
        let mut soft = Soft { sweep: now.mono.plus_millis(self.settings.retention_check_ms), ..Soft::default() };
        for (group, stored) in &self.groups {
            if let Some(meta) = stored.meta.as_ref().filter(|m| !m.members.is_empty()) {
                Self::put(&mut soft, group, Live::load(meta, now));
            }
        }
        soft
    }

    fn decide(&self, soft: &mut Soft, now: Now, ticket: Ticket, request: Request) -> Decision<GroupRecord, Reply> {
        let mut decision = Decision::default();
        let reply = match request {
            Request::Wake => {
                self.wake(soft, now, &mut decision);
                Reply::Woken
            }
            Request::Join(join) => {
                let group = join.group.clone();
                self.join(soft, &mut turn(&self.settings, now, &group, &mut decision), ticket, join);
                return decision;
            }
            Request::Sync(sync) => {
                let group = sync.group.clone();
                match self.take(soft, now, &group) {
                    None => Reply::Sync(Err(GroupError::UnknownMember)),
                    Some(mut live) => {
                        live.sync(&mut turn(&self.settings, now, &group, &mut decision), ticket, sync);
                        Self::put(soft, &group, live);
                        return decision;
                    }
                }
            }
            Request::Heartbeat(beat) => match self.take(soft, now, &beat.group) {
                None => Reply::Heartbeat(Err(GroupError::UnknownMember)),
                Some(mut live) => {
                    let mut turn = turn(&self.settings, now, &beat.group, &mut decision);
                    let result = live.heartbeat(&mut turn, &beat);
                    Self::put(soft, &beat.group, live);
                    Reply::Heartbeat(result)
                }
            },
            Request::Leave(leave) => match self.take(soft, now, &leave.group) {
                None => Reply::Leave(Err(GroupError::UnknownMember)),
                Some(mut live) => {
                    let mut turn = turn(&self.settings, now, &leave.group, &mut decision);
                    let results = live.leave(&mut turn, &leave.members);
                    Self::put(soft, &leave.group, live);
                    Reply::Leave(Ok(results))
                }
            },
            Request::Commit(commit) => self.commit(soft, now, commit, &mut decision.records),
            Request::Fetch(fetch) => {
                Reply::Fetch(Ok(offsets::fetch(self.stored(&fetch.group).map(|s| &s.offsets), &fetch)))
            }
            Request::TopicDeleted { name } => {
                for (group, stored) in &self.groups {
                    let of_it = stored.offsets.keys().filter(|(topic, _)| *topic == name).cloned().collect();
                    offsets::forget(group, of_it, &mut decision.records);
                }
                Reply::Woken
            }
            Request::Describe { group } => Reply::Describe(match self.take(soft, now, &group) {
                None => Err(GroupError::NotFound),
                Some(live) => {
                    let described = live.describe();
                    Self::put(soft, &group, live);
                    Ok(described)
                }
            }),
            Request::List => {
                let names: BTreeSet<&GroupName> = self.groups.keys().chain(soft.live.keys()).collect();
                let listed = |group: &GroupName| {
                    let live = soft.live.get(group);
                    let meta = self.stored(group).and_then(|s| s.meta.as_ref());
                    let stored_type = || meta.map(|m| m.protocol_type.clone()).unwrap_or_default();
                    Listed {
                        group: group.clone(),
                        protocol_type: live.map_or_else(stored_type, |l| l.protocol_type().to_owned()),
                        state: live.map_or("Empty", Live::state_name),
                    }
                };
                Reply::List(names.into_iter().map(listed).collect())
            }
            Request::Delete { group } => self.delete(soft, now, &group, &mut decision.records),
            Request::DeleteOffsets { group, topics } => {
                Reply::DeleteOffsets(self.delete_offsets(soft, now, &group, topics, &mut decision.records))
            }
        };
        decision.replies.push((ticket, reply));
        decision
    }

    fn deadline(&self, soft: &Soft) -> Option<Mono> {
        let sweep = (!self.groups.is_empty()).then_some(soft.sweep);
        soft.timers.first().map(|(at, _)| *at).into_iter().chain(sweep).min()
    }

    fn replay(&mut self, record: &GroupRecord) {
        let (GroupRecord::Offset { group, .. } | GroupRecord::Group { group, .. }) = record;
        let stored = self.groups.entry(group.clone()).or_default();
        match record {
            GroupRecord::Offset { topic, partition, offset: Some(offset), .. } => {
                stored.offsets.insert((topic.clone(), *partition), offset.clone());
            }
            GroupRecord::Offset { topic, partition, offset: None, .. } => {
                stored.offsets.remove(&(topic.clone(), *partition));
            }
            GroupRecord::Group { meta, .. } => stored.meta.clone_from(meta),
        }
        if stored.meta.is_none() && stored.offsets.is_empty() {
            self.groups.remove(group);
        }
    }

    fn digest(&self) -> u64 {
        hash::xxh3_64(format!("{:?}", self.groups).as_bytes())
    }
}

/// The partition of `__consumer_offsets` a group lives in, of `count`: as Kafka's tools compute it.
pub fn partition_of(group: &str, count: u32) -> u32 {
    let hash = group.encode_utf16().fold(0i32, |h, unit| h.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // Java's Utils.abs: the smallest integer has no positive counterpart and counts as 0.
    let positive = if hash == i32::MIN { 0 } else { hash.unsigned_abs() };
    positive % count.max(1)
}

#[cfg(test)]
mod tests;
