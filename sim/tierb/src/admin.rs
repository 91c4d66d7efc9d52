//! An administrator: makes topics, writes into them, reads it back, removes them. What was acknowledged must hold.

use crate::client::{Connection, call};
use crate::ledger::Ledger;
use crate::produce::{Said, Values, said};
use crate::swarm::Swarm;
use catchwater_base::Rng;
use catchwater_protocol::api::create_topics::CreatableTopic;
use catchwater_protocol::api::metadata::MetadataRequestTopic;
use catchwater_protocol::api::{CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest, ProduceRequest};
use catchwater_runtime::time;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const UNKNOWN_TOPIC: i16 = 3;
const TOPIC_EXISTS: i16 = 36;
/// Topics that one administrator leaves at most.
const KEPT_MAX: usize = 8;

/// How an administrator's wish came true.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// One request, one answer.
    Once,
    /// An earlier request may still be under way, and be executed at any time.
    Often,
}

/// Makes a topic, however often it takes; `None` = it was told to stop before it knew.
pub async fn create(
    slot: &mut Option<Connection>,
    client: &str,
    name: &str,
    partitions: u64,
    ledger: &Ledger,
) -> Option<Asked> {
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: partitions as i32,
        replication_factor: 1,
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 5_000, ..Default::default() };
    let mut asked = Asked::Once;
    while !ledger.is_stopped() {
        let answer = call(slot, client, &request, 4, ledger).await;
        if let Some(0 | TOPIC_EXISTS) = answer.ok().and_then(|a| a.topics.first().map(|t| t.error_code)) {
            ledger.topic(name, Some(partitions));
            return Some(asked);
        }
        asked = Asked::Often;
        time::sleep(Duration::from_millis(200)).await;
    }
    None
}

async fn delete(slot: &mut Option<Connection>, client: &str, name: &str, ledger: &Ledger) -> Option<Asked> {
    let request = DeleteTopicsRequest { topic_names: vec![name.into()], timeout_ms: 5_000, ..Default::default() };
    ledger.topic_unknown(name);
    let mut asked = Asked::Once;
    while !ledger.is_stopped() {
        let answer = call(slot, client, &request, 3, ledger).await;
        if let Some(0 | UNKNOWN_TOPIC) = answer.ok().and_then(|a| a.responses.first().map(|t| t.error_code)) {
            return Some(asked);
        }
        asked = Asked::Often;
        time::sleep(Duration::from_millis(200)).await;
    }
    None
}

/// How many partitions a topic has; `Some(None)` = there is none of that name.
pub async fn find(slot: &mut Option<Connection>, client: &str, name: &str, ledger: &Ledger) -> Option<Option<u64>> {
    let topics = vec![MetadataRequestTopic { name: Some(name.into()), ..Default::default() }];
    let request = MetadataRequest { topics: Some(topics), allow_auto_topic_creation: false, ..Default::default() };
    let answer = call(slot, client, &request, 9, ledger).await.ok()?;
    let topic = answer.topics.first()?;
    match topic.error_code {
        0 => Some(Some(topic.partitions.len() as u64)),
        UNKNOWN_TOPIC => Some(None),
        _ => None,
    }
}

/// One administrator for ever.
pub async fn admin(client: String, swarm: Swarm, mut rng: Rng, ledger: Arc<Ledger>) {
    let mut slot = None;
    let mut kept: Vec<(String, Asked)> = Vec::new();
    // Names that are surely free: what was asked for them once is done.
    let mut free: Vec<String> = Vec::new();
    let mut made = 0;
    while !ledger.is_stopped() {
        if kept.len() < KEPT_MAX && (kept.is_empty() || rng.chance(600_000)) {
            // A name that was there before comes back now and then.
            let again = if rng.chance(400_000) { free.pop() } else { None };
            let name = again.unwrap_or_else(|| {
                made += 1;
                format!("{client}-{made}")
            });
            if let Some(asked) = create(&mut slot, &client, &name, rng.between(1, 3), &ledger).await {
                write(&mut slot, &client, &name, &swarm, &mut rng, &ledger).await;
                kept.push((name, asked));
                ledger.served(&client);
            }
        } else {
            let (name, made) = kept.swap_remove(rng.below(kept.len() as u64) as usize);
            if let Some(asked) = delete(&mut slot, &client, &name, &ledger).await {
                ledger.served(&client);
                if made == Asked::Once {
                    ledger.topic(&name, None);
                    if let Some(Some(_)) = find(&mut slot, &client, &name, &ledger).await {
                        ledger.violation(format!("topic {name} is there after its removal was acknowledged"));
                    }
                    if asked == Asked::Once {
                        free.push(name);
                    }
                }
            }
        }
        ledger.admin.fetch_add(1, Ordering::Relaxed);
        time::sleep(Duration::from_millis(rng.below(2_000))).await;
    }
}

/// A few batches, so that there is something to remove; a fresh topic begins at 0.
async fn write(slot: &mut Option<Connection>, client: &str, name: &str, swarm: &Swarm, rng: &mut Rng, ledger: &Ledger) {
    let mut values = Values::new(format!("{client}.{name}"));
    let mut sent = 0;
    for _ in 0..rng.below(4) {
        let batch = values.batch((name, 0), None, swarm, rng, ledger.now());
        sent += batch.values.len() as u64;
        match call::<ProduceRequest>(slot, client, &batch.request(), 9, ledger).await.map(|answer| said(&answer)) {
            Ok(Said::At(base)) if base >= sent => {
                ledger
                    .violation(format!("topic {name} was made just now, {sent} records were sent, one lies at {base}"));
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}
