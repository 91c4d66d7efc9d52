//! Pure. Which topic a table goes to, how that topic is set up, and which partition a key lands on.
//!
//! Walk: row-change 6/17
//!
//! Name: `<prefix>.<schema>.<table>`; characters outside `[A-Za-z0-9._-]` become `_`; two tables that meet on one name
//! are refused. Partition: murmur2 of the key's bytes as Kafka's default partitioner; no key = partition 0, so that a
//! keyless table stays in commit order.

use catchwater_change::TableSchema;
use catchwater_change::encode::debezium_json::topic_name;
use catchwater_record::{PartitionId, TopicName, murmur2};
use std::collections::BTreeMap;

/// Largest record the topics take, bytes: above `row.max.bytes` and its envelope (ceiling of the log: 24 MiB).
const MESSAGE_BYTES_MAX: &str = "25165824";
/// A captured topic keeps every record for a week before compaction may thin it.
const COMPACTION_LAG_MS: &str = "604800000";

/// The names given out so far.
#[derive(Debug)]
pub struct Router {
    prefix: String,
    delimiter: String,
    taken: BTreeMap<TopicName, String>,
}

/// Why a table has no topic.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RouteError {
    #[error("tables {first} and {second} both go to topic {topic}")]
    Meet { topic: TopicName, first: String, second: String },
    #[error("table {table}: topic name {topic:?} is not legal")]
    Illegal { table: String, topic: String },
}

impl Router {
    pub fn new(prefix: impl Into<String>, delimiter: impl Into<String>) -> Self {
        Router { prefix: prefix.into(), delimiter: delimiter.into(), taken: BTreeMap::new() }
    }

    /// Takes a name for something that is no table.
    pub fn reserve(&mut self, topic: &TopicName) -> Result<(), RouteError> {
        const WHAT: &str = "(the source's own records)";
        let first = self.taken.entry(topic.clone()).or_insert_with(|| WHAT.to_owned());
        if first != WHAT {
            return Err(RouteError::Meet { topic: topic.clone(), first: first.clone(), second: WHAT.to_owned() });
        }
        Ok(())
    }

    /// The topic of a table; the same table gets the same answer.
    pub fn claim(&mut self, table: &TableSchema) -> Result<TopicName, RouteError> {
        let name = topic_name(&self.prefix, &self.delimiter, table);
        if !TopicName::is_legal(&name) {
            return Err(RouteError::Illegal { table: table.qualified(), topic: name });
        }
        let topic = TopicName::from(name);
        let first = self.taken.entry(topic.clone()).or_insert_with(|| table.qualified());
        if *first != table.qualified() {
            return Err(RouteError::Meet { topic, first: first.clone(), second: table.qualified() });
        }
        Ok(topic)
    }
}

/// Settings of a new topic: keyed tables keep the newest record of each key, keyless ones the cluster's retention.
pub fn topic_configs(keyed: bool) -> Vec<(String, String)> {
    let mut out = vec![("max.message.bytes".to_owned(), MESSAGE_BYTES_MAX.to_owned())];
    if keyed {
        out.push(("cleanup.policy".to_owned(), "compact".to_owned()));
        out.push(("min.compaction.lag.ms".to_owned(), COMPACTION_LAG_MS.to_owned()));
    } else {
        out.push(("cleanup.policy".to_owned(), "delete".to_owned()));
    }
    out
}

/// Where a record with that key goes.
pub fn partition(key: Option<&[u8]>, partitions: u32) -> PartitionId {
    match key {
        Some(key) => murmur2::partition_for_key(key, partitions),
        None => PartitionId(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::tests::table;

    #[test]
    fn names_are_debeziums_and_collisions_are_refused() {
        let mut r = Router::new("pg", ".");
        assert_eq!(r.claim(&table("public", "Odd Näme-1")), Ok("pg.public.Odd_N_me-1".into()));
        assert_eq!(r.claim(&table("public", "Odd Näme-1")), Ok("pg.public.Odd_N_me-1".into()));
        assert_eq!(
            r.claim(&table("public", "Odd Nöme-1")),
            Err(RouteError::Meet {
                topic: "pg.public.Odd_N_me-1".into(),
                first: "public.Odd Näme-1".into(),
                second: "public.Odd Nöme-1".into()
            })
        );
        assert_eq!(r.claim(&table("", "t")), Ok("pg.t".into()));
        assert!(matches!(r.claim(&table("s", &"x".repeat(250))), Err(RouteError::Illegal { .. })));
    }

    #[test]
    fn keyless_records_stay_in_one_partition() {
        assert_eq!(partition(None, 8), PartitionId(0));
        assert_eq!(partition(Some(b"abc"), 7), PartitionId((479_470_107u32 & 0x7fff_ffff) % 7));
    }
}
