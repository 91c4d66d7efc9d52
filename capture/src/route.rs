//! Pure. Which topic a table goes to, how that topic is set up, and which partition a key lands on.
//!
//! Walk: row-change 6/17
//!
//! Name: `<prefix>.<schema>.<table>`; characters outside `[A-Za-z0-9._-]` become `_`; then what transforms make of it. Two
//! tables that meet on one name are refused, unless each key says which of them it is of: compaction keeps one record of a key. Partition: murmur2 of the key's bytes as Kafka's default partitioner; no key = partition 0, so that a
//! keyless table stays in commit order.

use catchwater_change::TableSchema;
use catchwater_change::encode::debezium_json::{Placed, Placing, topic_name};
use catchwater_record::{PartitionId, TopicName, murmur2};
use std::collections::BTreeMap;

/// Largest batch the topics take, bytes: the log's own bound, for a row is not a client's mistake.
const MESSAGE_BYTES_MAX: &str = "67108864";
/// A captured topic keeps every record for a week before compaction may thin it.
const COMPACTION_LAG_MS: &str = "604800000";

/// The names given out so far.
#[derive(Debug)]
pub struct Router {
    prefix: String,
    delimiter: String,
    placing: Placing,
    taken: BTreeMap<TopicName, Vec<Taken>>,
}

#[derive(Debug, PartialEq)]
struct Taken {
    by: String,
    /// What its keys end with.
    key_fields: Vec<(String, String)>,
    keyed: bool,
}

/// Why a table has no topic.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RouteError {
    #[error("tables {first} and {second} both go to topic {topic}, and their keys do not tell them apart")]
    Meet { topic: TopicName, first: String, second: String },
    #[error("table {table}: topic name {topic:?} is not legal")]
    Illegal { table: String, topic: String },
    #[error("{0}")]
    Transform(String),
}

impl Router {
    pub fn new(prefix: impl Into<String>, delimiter: impl Into<String>, placing: Placing) -> Self {
        Router { prefix: prefix.into(), delimiter: delimiter.into(), placing, taken: BTreeMap::new() }
    }

    /// Takes a name for something that is no table; returns what transforms make of it.
    pub fn reserve(&mut self, topic: TopicName) -> Result<TopicName, RouteError> {
        let name = match &self.placing.0 {
            Some(of) => of.other(topic.as_str()).map_err(RouteError::Transform)?,
            None => topic.as_str().to_owned(),
        };
        if !TopicName::is_legal(&name) {
            return Err(RouteError::Illegal { table: topic.as_str().to_owned(), topic: name });
        }
        let topic = TopicName::from(name);
        let by = "(the source's own records)".to_owned();
        self.take(&topic, Taken { by, key_fields: Vec::new(), keyed: false })?;
        Ok(topic)
    }

    /// The same taker may come again; another one if no key of theirs can be a key of the others'.
    fn take(&mut self, topic: &TopicName, taker: Taken) -> Result<(), RouteError> {
        let takers = self.taken.entry(topic.clone()).or_default();
        if takers.iter().any(|t| t.by == taker.by) {
            return Ok(());
        }
        let apart = |t: &&Taken| {
            t.keyed
                && taker.keyed
                && !t.key_fields.is_empty()
                && !taker.key_fields.is_empty()
                && t.key_fields != taker.key_fields
        };
        match takers.iter().find(|t| !apart(t)) {
            Some(t) => Err(RouteError::Meet { topic: topic.clone(), first: t.by.clone(), second: taker.by }),
            None => {
                takers.push(taker);
                Ok(())
            }
        }
    }

    /// True if the topic holds records of several tables.
    pub fn is_shared(&self, topic: &TopicName) -> bool {
        self.taken.get(topic).is_some_and(|takers| takers.len() > 1)
    }

    /// A topic that events of outbox tables go to: several tables may share it, and none that is no outbox. The error is what is
    /// wrong with it, without the name, which is a value of a row.
    pub fn claim_events(&mut self, topic: &str) -> Result<TopicName, String> {
        if !TopicName::is_legal(topic) {
            let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            let odd = topic.chars().position(|c| !legal(c)).map(|at| format!(", of which number {} is none", at + 1));
            let length = topic.chars().count();
            let odd = odd.unwrap_or_default();
            return Err(format!(
                "is no topic: one has up to 249 of the characters a-z, A-Z, 0-9, `.`, `_` and `-`; this has {length}{odd}"
            ));
        }
        let name = TopicName::from(topic);
        let by = "(events)".to_owned();
        match self.take(&name, Taken { by, key_fields: Vec::new(), keyed: false }) {
            Err(RouteError::Meet { first, .. }) => Err(format!("is the topic of {first}")),
            other => other.map(|()| name).map_err(|e| e.to_string()),
        }
    }

    /// The topic of a table; the same table gets the same answer. None = its rows are events, each with a topic of its own.
    pub fn claim(&mut self, table: &TableSchema) -> Result<Option<TopicName>, RouteError> {
        let name = topic_name(&self.prefix, &self.delimiter, table);
        let placed = match &self.placing.0 {
            Some(of) => of.table(&name),
            None => Placed { topic: name, ..Placed::default() },
        };
        let Placed { topic: name, key_fields, outbox, .. } = placed;
        if outbox.is_some() {
            return Ok(None);
        }
        if !TopicName::is_legal(&name) {
            return Err(RouteError::Illegal { table: table.qualified(), topic: name });
        }
        let topic = TopicName::from(name);
        let keyed = !table.key.is_empty();
        self.take(&topic, Taken { by: table.qualified(), key_fields, keyed })?;
        Ok(Some(topic))
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
        let mut r = Router::new("pg", ".", Placing::default());
        assert_eq!(r.claim(&table("public", "Odd Näme-1")), Ok(Some("pg.public.Odd_N_me-1".into())));
        assert_eq!(r.claim(&table("public", "Odd Näme-1")), Ok(Some("pg.public.Odd_N_me-1".into())));
        assert_eq!(
            r.claim(&table("public", "Odd Nöme-1")),
            Err(RouteError::Meet {
                topic: "pg.public.Odd_N_me-1".into(),
                first: "public.Odd Näme-1".into(),
                second: "public.Odd Nöme-1".into()
            })
        );
        assert_eq!(r.claim(&table("", "t")), Ok(Some("pg.t".into())));
        assert!(matches!(r.claim(&table("s", &"x".repeat(250))), Err(RouteError::Illegal { .. })));
    }

    #[test]
    fn tables_share_a_topic_only_if_their_keys_are_apart() {
        let of = |unique: &'static str, identifier: &'static str| {
            let given = [
                ("transforms", "r"),
                ("transforms.r.type", "io.debezium.transforms.ByLogicalTableRouter"),
                ("transforms.r.topic.regex", "(.*)[.]s_."),
                ("transforms.r.topic.replacement", "$1.all"),
                ("transforms.r.key.field.regex", "(.*)s_(.)"),
                ("transforms.r.key.field.replacement", identifier),
                ("transforms.r.key.enforce.uniqueness", unique),
            ];
            let properties = crate::Properties::parse(given).expect("properties");
            Router::new("pg", ".", properties.options.placing)
        };
        let all: TopicName = "pg.public.all".into();
        let mut r = of("true", "$2");
        assert_eq!(r.claim(&table("public", "s_a")), Ok(Some(all.clone())));
        assert!(!r.is_shared(&all));
        assert_eq!(r.claim(&table("public", "s_b")), Ok(Some(all.clone())));
        assert_eq!(r.claim(&table("public", "s_a")), Ok(Some(all.clone())), "the same answer again");
        assert!(r.is_shared(&all));
        let keyless = TableSchema { key: Vec::new(), ..table("public", "s_c") };
        assert!(matches!(r.claim(&keyless), Err(RouteError::Meet { .. })));
        assert!(matches!(r.reserve("pg.public.s_d".into()), Err(RouteError::Transform(_))));
        for mut r in [of("false", "$2"), of("true", "one")] {
            assert_eq!(r.claim(&table("public", "s_a")), Ok(Some(all.clone())));
            assert!(matches!(r.claim(&table("public", "s_b")), Err(RouteError::Meet { .. })));
        }
    }

    #[test]
    fn topics_of_events_are_looked_at_and_nobody_elses() {
        let given = [("transforms", "o"), ("transforms.o.type", "io.debezium.transforms.outbox.EventRouter")];
        let given = given.into_iter().chain([
            ("transforms.o.predicate", "p"),
            ("predicates", "p"),
            ("predicates.p.type", "org.apache.kafka.connect.transforms.predicates.TopicNameMatches"),
            ("predicates.p.pattern", ".*outbox"),
        ]);
        let properties = crate::Properties::parse(given).expect("properties");
        let mut r = Router::new("pg", ".", properties.options.placing);
        assert_eq!(r.claim(&table("public", "outbox")), Ok(None));
        assert_eq!(r.claim(&table("public", "t")), Ok(Some("pg.public.t".into())));
        assert_eq!(r.claim_events("outbox.event.order"), Ok("outbox.event.order".into()));
        assert_eq!(r.claim_events("outbox.event.order"), Ok("outbox.event.order".into()), "another table, too");
        assert_eq!(r.claim_events("pg.public.t"), Err("is the topic of public.t".into()));
        for (odd, says) in [("a b", "number 2"), ("", "this has 0"), (&"x".repeat(250), "this has 250"), ("..", "")] {
            let why = r.claim_events(odd).expect_err("no topic");
            assert!(why.contains(says) && !why.contains("a b"), "{why}");
        }
    }

    #[test]
    fn keyless_records_stay_in_one_partition() {
        assert_eq!(partition(None, 8), PartitionId(0));
        assert_eq!(partition(Some(b"abc"), 7), PartitionId((479_470_107u32 & 0x7fff_ffff) % 7));
    }
}
