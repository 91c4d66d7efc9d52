//! Consumer groups for the HTTP face: what ListGroups, DescribeGroups and OffsetFetch say, with the ends and the lag.

use catchwater_broker::LocalClient;
use catchwater_client::{At, ControlClient, LogClient, TopicsWanted};
use catchwater_coordinator::group::{FetchOffsets, Reply, Request};
use catchwater_record::{GroupName, TopicName, TopicPartition};
use serde_json::{Value, json};

/// Name, state, members of every group.
pub async fn list(local: &LocalClient) -> Value {
    let groups = &local.node().groups;
    let mut out = Vec::new();
    for g in groups.list().await.unwrap_or_default() {
        let members = match groups.ask(&g.group, Request::Describe { group: g.group.clone() }).await {
            Ok(Reply::Describe(Ok(d))) => Some(d.members.len()),
            _ => None,
        };
        out.push(
            json!({"group": g.group.as_str(), "state": g.state, "protocol_type": g.protocol_type, "members": members}),
        );
    }
    Value::Array(out)
}

/// Members, offsets and lag of one group; `None` = there is no such group.
pub async fn describe(local: &LocalClient, name: &str) -> Option<Value> {
    let group = GroupName::from(name);
    let groups = &local.node().groups;
    let Ok(Reply::Describe(Ok(found))) = groups.ask(&group, Request::Describe { group: group.clone() }).await else {
        return None;
    };
    let members: Vec<Value> = found
        .members
        .iter()
        .map(|m| json!({"member": m.member, "instance": m.instance, "client_id": m.client_id, "host": m.client_host}))
        .collect();
    let fetch = Request::Fetch(FetchOffsets { group: group.clone(), member: None, topics: None });
    let mut offsets = Vec::new();
    if let Ok(Reply::Fetch(Ok(committed))) = groups.ask(&group, fetch).await {
        for o in committed.iter().filter(|o| o.offset >= 0) {
            let end = end_of(local, &o.topic, o.partition).await;
            let lag = end.map(|e| e.saturating_sub(o.offset.unsigned_abs()));
            offsets.push(json!({"topic": o.topic.as_str(), "partition": o.partition, "offset": o.offset, "end": end, "lag": lag}));
        }
    }
    Some(json!({
        "group": name, "state": found.state, "protocol_type": found.protocol_type, "protocol": found.protocol,
        "members": members, "offsets": offsets,
    }))
}

async fn end_of(local: &LocalClient, topic: &TopicName, partition: i32) -> Option<u64> {
    let topics = local.describe_topics(TopicsWanted::Names(vec![topic.clone()])).await.ok()?;
    let at = TopicPartition::new(topics.first()?.id, u32::try_from(partition).ok()?);
    Some(local.bounds(vec![at], At::Now).await.ok()?.first()?.high_watermark.0)
}
