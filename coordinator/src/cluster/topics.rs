//! Pure. Creating, adopting, widening and deleting topics, with Kafka's rules.
//!
//! Source: `ReplicationControlManager.createTopics`, `createPartitions` and `KafkaApis.handleCreateTopicsRequest` of
//! Apache Kafka 4.x for the order of the checks; capture.md 4.5 R2 for owners.

use super::configs;
use super::image::{ConfigKey, Counters, Image, Owner, Place, Topic, is_internal, role};
use super::records::ClusterRecord;
use catchwater_record::{CaptureEpoch, CaptureId, Gid, NodeId, TopicId, TopicName};
use std::collections::BTreeMap;

/// A topic somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTopic {
    pub name: String,
    /// Drawn by the host; used if the topic is made now.
    pub id: TopicId,
    /// `None` = the cluster's default (Kafka's -1).
    pub partitions: Option<i32>,
    pub replication: Option<i16>,
    /// Partition number → nodes; then `partitions` and `replication` must be `None`.
    pub assignments: Vec<(i32, Vec<i32>)>,
    pub configs: Vec<(String, Option<String>)>,
    pub owner: Owner,
    /// Only with [`Owner::Capture`]: an existing topic of nobody was seen to hold no record and may be taken over.
    pub adopt_empty: bool,
    /// An internal name may be created: only the node itself asks so.
    pub internal: bool,
}

impl CreateTopic {
    /// A plain topic with all defaults.
    pub fn named(name: impl Into<String>, id: TopicId) -> Self {
        CreateTopic {
            name: name.into(),
            id,
            partitions: None,
            replication: None,
            assignments: Vec::new(),
            configs: Vec::new(),
            owner: Owner::Nobody,
            adopt_empty: false,
            internal: false,
        }
    }
}

/// What became of a wanted topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    pub id: TopicId,
    pub name: TopicName,
    pub partitions: u32,
    pub replication: u16,
    pub owner: Owner,
    /// False: it was there, and this owner has it (or has adopted it now).
    pub created: bool,
}

/// More partitions that somebody wants a topic to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WidenTopic {
    pub name: String,
    /// Partitions it is to have in the end.
    pub count: i32,
    /// Nodes of each new partition; `None` = wherever there is room.
    pub assignments: Option<Vec<Vec<i32>>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhichTopic {
    Name(String),
    Id(TopicId),
}

/// Why a topic was not created, widened or deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    #[error("topic name {name:?} is illegal: {why}")]
    IllegalName { name: String, why: &'static str },
    #[error("topic name {name:?} collides with {with}: they differ only by '.' and '_'")]
    Collides { name: String, with: TopicName },
    #[error("topic {0} already exists")]
    Exists(TopicName),
    #[error("topic {0} appears more than once in the request")]
    Duplicate(String),
    #[error("number of partitions must be larger than 0, and at most {max}; {got} was asked for")]
    Partitions { got: i64, max: u32 },
    #[error("topic {name} has {has} partitions; {wanted} would not be an increase")]
    NoIncrease { name: TopicName, has: u32, wanted: i32 },
    /// Its changes are one sequence, whose order is that of one partition.
    #[error("topic {0} is written by a capture and has one partition")]
    Captured(TopicName),
    #[error("replication factor must be larger than 0; {0} was asked for")]
    ReplicationBelowOne(i16),
    #[error("replication factor {wanted} is larger than the {alive} available nodes")]
    Replication { wanted: i16, alive: usize },
    #[error("bad replica assignment: {0}")]
    Assignment(String),
    #[error("invalid request: {0}")]
    Invalid(&'static str),
    #[error("{0}")]
    Config(#[from] super::configs::ConfigError),
    #[error("topic {0} belongs to somebody else, or has records of nobody")]
    Owned(TopicName),
    /// It exists, belongs to nobody, and was not seen to be empty: look, then ask again with `adopt_empty`.
    #[error("topic {name} belongs to nobody; adopting it needs it to be empty")]
    OfNobody { id: TopicId, name: TopicName },
    #[error("fenced by epoch {by}")]
    Fenced { by: CaptureEpoch },
    #[error("topic {0} does not exist")]
    UnknownName(String),
    #[error("topic id {0} does not exist")]
    UnknownId(TopicId),
    #[error("topic {0} is internal")]
    Internal(TopicName),
}

/// What a decision about topics may look at.
pub struct Facts<'a> {
    pub image: &'a Image,
    pub partitions_default: u32,
    pub replication_default: u16,
    pub partitions_max: u32,
    pub now_ms: i64,
    /// Epoch of a capture's task, if it has one.
    pub lease_epoch: &'a dyn Fn(CaptureId) -> Option<CaptureEpoch>,
}

/// Decides about all topics of one request. A topic that fails fails alone.
pub fn create(
    facts: &Facts<'_>,
    topics: &[CreateTopic],
    records: &mut Vec<ClusterRecord>,
) -> Vec<Result<CreatedTopic, TopicError>> {
    let mut counters = facts.image.counters;
    let asked = counted(topics.iter().map(|t| &t.name));
    // What is made in this request, by its name with '.' as '_'.
    let mut taken: BTreeMap<String, &str> = BTreeMap::new();
    let mut out = Vec::new();
    for want in topics {
        let folded = want.name.replace('.', "_");
        let result = if asked.get(&want.name) != Some(&1) {
            Err(TopicError::Duplicate(want.name.clone()))
        } else if let Some(with) = taken.get(&folded) {
            Err(TopicError::Collides { name: want.name.clone(), with: TopicName::from(*with) })
        } else {
            create_one(facts, want, &mut counters, records)
        };
        if let Ok(CreatedTopic { created: true, .. }) = &result {
            taken.insert(folded, &want.name);
        }
        out.push(result);
    }
    if counters != facts.image.counters {
        records.push(ClusterRecord::Counters(counters));
    }
    out
}

/// How often each is there. A request may hold a million names: nothing here may look at all of them for each.
fn counted<T: Ord>(all: impl Iterator<Item = T>) -> BTreeMap<T, u32> {
    let mut counts = BTreeMap::new();
    all.for_each(|one| *counts.entry(one).or_default() += 1);
    counts
}

fn create_one(
    facts: &Facts<'_>,
    want: &CreateTopic,
    counters: &mut Counters,
    records: &mut Vec<ClusterRecord>,
) -> Result<CreatedTopic, TopicError> {
    check_name(&want.name)?;
    if is_internal(&want.name) && !want.internal {
        return Err(TopicError::Internal(TopicName::from(want.name.as_str())));
    }
    if let Owner::Capture(capture, epoch) = want.owner
        && let Some(by) = (facts.lease_epoch)(capture).filter(|by| *by > epoch)
    {
        return Err(TopicError::Fenced { by });
    }
    if let Some(there) = facts.image.topic_by_name(&want.name) {
        return existing(want, there, records);
    }
    if let Some(with) = facts.image.collision(&want.name) {
        return Err(TopicError::Collides { name: want.name.clone(), with: with.clone() });
    }
    let entries = configs::topic_set(&want.configs)?;
    let places = place(facts, want, counters)?;
    let topic = Topic {
        id: want.id,
        name: TopicName::from(want.name.as_str()),
        partitions: places,
        owner: want.owner,
        created_ms: facts.now_ms,
    };
    let created = CreatedTopic {
        id: topic.id,
        name: topic.name.clone(),
        partitions: topic.partitions_count(),
        replication: topic.replication(),
        owner: topic.owner,
        created: true,
    };
    // Settings first: whoever hears of the topic finds them.
    if !entries.is_empty() {
        records.push(ClusterRecord::Config { of: ConfigKey::Topic(topic.name.clone()), entries: Some(entries) });
    }
    records.push(ClusterRecord::Topic { id: topic.id, topic: Some(topic) });
    Ok(created)
}

/// The name is known: the same owner again is the same answer; an empty topic of nobody may be adopted (R2).
fn existing(want: &CreateTopic, there: &Topic, records: &mut Vec<ClusterRecord>) -> Result<CreatedTopic, TopicError> {
    let Owner::Capture(capture, epoch) = want.owner else { return Err(TopicError::Exists(there.name.clone())) };
    match there.owner {
        Owner::Capture(other, by) if other == capture && by > epoch => return Err(TopicError::Fenced { by }),
        Owner::Capture(other, _) if other == capture => {}
        Owner::Capture(..) => return Err(TopicError::Owned(there.name.clone())),
        Owner::Nobody if want.adopt_empty => {}
        Owner::Nobody => return Err(TopicError::OfNobody { id: there.id, name: there.name.clone() }),
    }
    if there.owner != want.owner {
        let topic = Topic { owner: want.owner, ..there.clone() };
        records.push(ClusterRecord::Topic { id: there.id, topic: Some(topic) });
    }
    Ok(CreatedTopic {
        id: there.id,
        name: there.name.clone(),
        partitions: there.partitions_count(),
        replication: there.replication(),
        owner: want.owner,
        created: false,
    })
}

fn check_name(name: &str) -> Result<(), TopicError> {
    let why = match name {
        _ if TopicName::is_legal(name) => return Ok(()),
        "" => "the empty string is not allowed",
        "." | ".." => "\".\" and \"..\" are not allowed",
        _ if name.len() > 249 => "the length is longer than 249",
        _ => "it contains a character other than ASCII alphanumerics, '.', '_' and '-'",
    };
    // A foreign name is shown shortened: it may be as long as a frame.
    Err(TopicError::IllegalName { name: name.chars().take(300).collect(), why })
}

/// Chooses nodes for every partition and gives each its group.
fn place(facts: &Facts<'_>, want: &CreateTopic, counters: &mut Counters) -> Result<Vec<Place>, TopicError> {
    let alive = alive(facts.image);
    let replicas: Vec<Vec<NodeId>> = if !want.assignments.is_empty() {
        if want.replication.is_some() {
            return Err(TopicError::Invalid(
                "a manual partition assignment was specified, but replication factor was not set to -1",
            ));
        }
        if want.partitions.is_some() {
            return Err(TopicError::Invalid(
                "a manual partition assignment was specified, but numPartitions was not set to -1",
            ));
        }
        assigned(want, &alive, facts.partitions_max)?
    } else {
        let replication = match want.replication {
            Some(n) if n <= 0 => return Err(TopicError::ReplicationBelowOne(n)),
            Some(n) => n,
            None => facts.replication_default as i16,
        };
        let partitions = match want.partitions {
            Some(n) if n <= 0 || n as u32 > facts.partitions_max => {
                return Err(TopicError::Partitions { got: i64::from(n), max: facts.partitions_max });
            }
            Some(n) => n as u32,
            None => facts.partitions_default,
        };
        if replication as usize > alive.len() {
            return Err(TopicError::Replication { wanted: replication, alive: alive.len() });
        }
        spread(&alive, partitions as usize, replication as usize, counters)
    };
    Ok(grouped(replicas, counters))
}

fn alive(image: &Image) -> Vec<NodeId> {
    image.brokers().filter(|b| b.roles & role::BROKER != 0).map(|b| b.id).collect()
}

/// Groups are counted over the whole cluster, so leaders spread over topics of one partition too. At least `replication`
/// nodes are alive.
fn spread(alive: &[NodeId], partitions: usize, replication: usize, counters: &Counters) -> Vec<Vec<NodeId>> {
    let one = |p: usize| {
        let start = (counters.gid.0 as usize).wrapping_add(p);
        (0..replication).map(|r| alive[(start + r) % alive.len()]).collect()
    };
    (0..partitions).map(one).collect()
}

/// Gives each partition its group.
fn grouped(replicas: Vec<Vec<NodeId>>, counters: &mut Counters) -> Vec<Place> {
    let place = |replicas| {
        let gid = counters.gid;
        counters.gid = Gid(gid.0 + 1);
        Place { gid, replicas }
    };
    replicas.into_iter().map(place).collect()
}

fn assigned(want: &CreateTopic, alive: &[NodeId], max: u32) -> Result<Vec<Vec<NodeId>>, TopicError> {
    let n = want.assignments.len();
    if n > max as usize {
        return Err(TopicError::Partitions { got: n as i64, max });
    }
    let bad = |why: String| Err(TopicError::Assignment(why));
    let mut out: Vec<Option<Vec<NodeId>>> = vec![None; n];
    let mut factor = None;
    for (partition, nodes) in &want.assignments {
        let replicas = replicas_of(nodes, alive)?;
        if *factor.get_or_insert(replicas.len()) != replicas.len() {
            return bad("the manual partition assignment includes partitions of different replication factors".into());
        }
        match usize::try_from(*partition).ok().and_then(|p| out.get_mut(p)) {
            None => return bad("partitions should be a consecutive 0-based integer sequence".into()),
            Some(Some(_)) => {
                return bad(format!("found multiple manual partition assignments for partition {partition}"));
            }
            Some(slot) => *slot = Some(replicas),
        }
    }
    // n slots, n different numbers below n: all are filled.
    Ok(out.into_iter().flatten().collect())
}

/// The nodes that a client chose for one partition.
fn replicas_of(nodes: &[i32], alive: &[NodeId]) -> Result<Vec<NodeId>, TopicError> {
    let bad = |why: String| Err(TopicError::Assignment(why));
    if nodes.is_empty() {
        return bad("the manual partition assignment includes an empty replica list".into());
    }
    // Grows as nodes are found: a list from outside may be long.
    let mut replicas = Vec::new();
    for node in nodes {
        let id = u32::try_from(*node).map(NodeId).ok().filter(|id| alive.contains(id));
        let Some(id) = id else {
            return bad(format!("the manual partition assignment includes broker {node}, which is not registered"));
        };
        if replicas.contains(&id) {
            return bad(format!("the manual partition assignment includes the broker {node} more than once"));
        }
        replicas.push(id);
    }
    Ok(replicas)
}

/// Decides about more partitions of all topics of one request; the new count of each. A topic that fails fails alone.
pub fn widen(
    facts: &Facts<'_>,
    topics: &[WidenTopic],
    records: &mut Vec<ClusterRecord>,
) -> Vec<Result<u32, TopicError>> {
    let mut counters = facts.image.counters;
    let asked = counted(topics.iter().map(|t| &t.name));
    let one = |want: &WidenTopic| {
        if asked.get(&want.name) != Some(&1) {
            return Err(TopicError::Duplicate(want.name.chars().take(300).collect()));
        }
        let topic = widened(facts, want, &mut counters)?;
        let count = topic.partitions_count();
        records.push(ClusterRecord::Topic { id: topic.id, topic: Some(topic) });
        Ok(count)
    };
    let out = topics.iter().map(one).collect();
    if counters != facts.image.counters {
        records.push(ClusterRecord::Counters(counters));
    }
    out
}

fn widened(facts: &Facts<'_>, want: &WidenTopic, counters: &mut Counters) -> Result<Topic, TopicError> {
    let unknown = || TopicError::UnknownName(want.name.chars().take(300).collect());
    let topic = facts.image.topic_by_name(&want.name).ok_or_else(unknown)?;
    // Where a key belongs is a matter of the count: machines would look for what they wrote in another partition.
    if topic.is_internal() {
        return Err(TopicError::Internal(topic.name.clone()));
    }
    let has = topic.partitions_count();
    let wanted = u32::try_from(want.count).ok().filter(|count| *count > has);
    let Some(wanted) = wanted else {
        return Err(TopicError::NoIncrease { name: topic.name.clone(), has, wanted: want.count });
    };
    if topic.owner != Owner::Nobody {
        return Err(TopicError::Captured(topic.name.clone()));
    }
    if wanted > facts.partitions_max {
        return Err(TopicError::Partitions { got: i64::from(wanted), max: facts.partitions_max });
    }
    let (additional, replication) = ((wanted - has) as usize, usize::from(topic.replication()));
    let alive = alive(facts.image);
    let replicas = match &want.assignments {
        None if replication > alive.len() => {
            let wanted = i16::try_from(replication).unwrap_or(i16::MAX);
            return Err(TopicError::Replication { wanted, alive: alive.len() });
        }
        None => spread(&alive, additional, replication, counters),
        Some(given) if given.len() != additional => {
            return Err(TopicError::Assignment(format!(
                "{additional} partitions are to be added, but {} assignments were given",
                given.len()
            )));
        }
        Some(given) => {
            let chosen = |nodes: &Vec<i32>| {
                let replicas = replicas_of(nodes, &alive)?;
                match replicas.len() == replication {
                    true => Ok(replicas),
                    false => Err(TopicError::Assignment(format!(
                        "the manual partition assignment includes a partition with {} replicas, those before have {replication}",
                        replicas.len()
                    ))),
                }
            };
            given.iter().map(chosen).collect::<Result<_, _>>()?
        }
    };
    let mut topic = Topic::clone(topic);
    topic.partitions.extend(grouped(replicas, counters));
    Ok(topic)
}

/// Decides about all deletions of one request.
pub fn delete(
    image: &Image,
    which: &[WhichTopic],
    records: &mut Vec<ClusterRecord>,
) -> Vec<Result<(TopicId, TopicName), TopicError>> {
    let find = |which: &WhichTopic| match which {
        WhichTopic::Name(name) => image.topic_by_name(name),
        WhichTopic::Id(id) => image.topic(*id),
    };
    let found = counted(which.iter().filter_map(|w| find(w).map(|t| t.id)));
    which
        .iter()
        .map(|which_one| {
            let topic = find(which_one).ok_or_else(|| match which_one {
                WhichTopic::Name(name) => TopicError::UnknownName(name.chars().take(300).collect()),
                WhichTopic::Id(id) => TopicError::UnknownId(*id),
            })?;
            if found.get(&topic.id) != Some(&1) {
                return Err(TopicError::Duplicate(topic.name.to_string()));
            }
            if topic.is_internal() {
                return Err(TopicError::Internal(topic.name.clone()));
            }
            if image.topic_configs(&topic.name).is_some() {
                records.push(ClusterRecord::Config { of: ConfigKey::Topic(topic.name.clone()), entries: None });
            }
            records.push(ClusterRecord::Topic { id: topic.id, topic: None });
            Ok((topic.id, topic.name.clone()))
        })
        .collect()
}
