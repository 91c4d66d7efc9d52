//! Pure. Committed offsets of a group: what is kept, and when it is forgotten.
//!
//! Walk: commit-offset 4/8
//!
//! Retention (KIP-211) counts from the moment a group became empty; while members of a consumer group are subscribed to
//! a topic its offsets never expire; of a group that never had members it counts from the commit.

use super::classic::{Live, State};
use super::records::{Committed, GroupRecord, Meta};
use super::{CONSUMER, Commit, CommitOffset, FetchOffsets, FetchedOffset, GroupError, Settings};
use crate::stored::{In, StoredError};
use catchwater_base::Now;
use catchwater_record::{GroupName, TopicName};
use std::collections::{BTreeMap, BTreeSet};

/// By topic and partition.
pub(super) type Offsets = BTreeMap<(TopicName, i32), Committed>;

/// Records of a commit whose member was found right; a metadata that is too long fails alone.
pub(super) fn commit(
    settings: &Settings,
    now: Now,
    request: Commit,
    records: &mut Vec<GroupRecord>,
) -> Vec<Result<(), GroupError>> {
    let now_ms = now.wall.as_millis();
    let Commit { group, offsets, retention_ms, .. } = request;
    offsets
        .into_iter()
        .map(|CommitOffset { topic, partition, offset, leader_epoch, metadata, commit_ms, topic_id: _ }| {
            if metadata.len() > settings.metadata_max {
                return Err(GroupError::MetadataTooLong(metadata.len()));
            }
            let commit_ms = commit_ms.unwrap_or(now_ms);
            let expire_ms = retention_ms.filter(|ms| *ms >= 0).map_or(-1, |ms| commit_ms.saturating_add(ms));
            let committed = Committed { offset, leader_epoch, metadata, commit_ms, expire_ms };
            records.push(GroupRecord::Offset { group: group.clone(), topic, partition, offset: Some(committed) });
            Ok(())
        })
        .collect()
}

/// What a group has of what is asked; unknown is -1, not an error.
pub(super) fn fetch(offsets: Option<&Offsets>, request: &FetchOffsets) -> Vec<FetchedOffset> {
    let found = |topic: &TopicName, partition: i32, committed: Option<&Committed>| FetchedOffset {
        topic: topic.clone(),
        partition,
        offset: committed.map_or(-1, |c| c.offset),
        leader_epoch: committed.map_or(-1, |c| c.leader_epoch),
        metadata: committed.map_or_else(String::new, |c| c.metadata.clone()),
    };
    match &request.topics {
        None => offsets
            .into_iter()
            .flatten()
            .map(|((topic, partition), committed)| found(topic, *partition, Some(committed)))
            .collect(),
        Some(topics) => topics
            .iter()
            .flat_map(|(topic, partitions)| partitions.iter().map(move |p| (topic, *p)))
            .map(|(topic, p)| found(topic, p, offsets.and_then(|o| o.get(&(topic.clone(), p)))))
            .collect(),
    }
}

/// The topics and partitions of a group that are over their time.
pub(super) fn expired(
    settings: &Settings,
    now_ms: i64,
    meta: Option<&Meta>,
    live: Option<&Live>,
    offsets: &Offsets,
) -> Vec<(TopicName, i32)> {
    let retention = settings.retention_ms;
    let type_of = live.map(Live::protocol_type).or(meta.map(|m| m.protocol_type.as_str())).unwrap_or_default();
    let state = live.map_or(State::Empty, Live::state);
    let since: i64 = match live {
        Some(live) => live.state_ms(),
        None => meta.map_or(-1, |m| m.state_ms),
    };
    let mut subscribed = BTreeSet::new();
    let over: Box<dyn Fn(&Committed) -> bool> = if type_of.is_empty() {
        Box::new(|c| now_ms - c.commit_ms >= retention)
    } else {
        match state {
            State::Empty => Box::new(move |c| now_ms - if since >= 0 { since } else { c.commit_ms } >= retention),
            State::Stable if type_of == CONSUMER => {
                match live.map_or_else(|| Some(BTreeSet::new()), self::subscribed) {
                    Some(topics) => subscribed = topics,
                    None => return Vec::new(),
                }
                Box::new(|c| now_ms - c.commit_ms >= retention)
            }
            _ => return Vec::new(),
        }
    };
    offsets
        .iter()
        .filter(|((topic, _), c)| {
            !subscribed.contains(topic) && if c.expire_ms >= 0 { now_ms >= c.expire_ms } else { over(c) }
        })
        .map(|(key, _)| key.clone())
        .collect()
}

/// What the members of a group read; `None` = it may be anything: a blob of theirs is no subscription.
pub(super) fn subscribed(live: &Live) -> Option<BTreeSet<TopicName>> {
    if live.protocol_type() != CONSUMER {
        return Some(BTreeSet::new());
    }
    let mut all = BTreeSet::new();
    for subscription in live.subscriptions() {
        all.extend(topics(&subscription).ok()?);
    }
    Some(all)
}

/// Topics of a ConsumerProtocolSubscription, versions 0-3 (they begin alike).
fn topics(subscription: &[u8]) -> Result<Vec<TopicName>, StoredError> {
    let mut s = In::new(subscription);
    let version = s.i16()?;
    if version < 0 {
        return Err(StoredError::Unknown { what: "subscription version", value: i64::from(version) });
    }
    let n = s.count(2)?;
    (0..n).map(|_| s.string().map(TopicName::from)).collect()
}

/// Tombstones of some offsets of a group.
pub(super) fn forget(group: &GroupName, which: Vec<(TopicName, i32)>, records: &mut Vec<GroupRecord>) {
    records.extend(which.into_iter().map(|(topic, partition)| GroupRecord::Offset {
        group: group.clone(),
        topic,
        partition,
        offset: None,
    }));
}
