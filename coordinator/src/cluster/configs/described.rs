//! Pure. The value a key has now, and the chain it came from.

use super::super::image::Image;
use super::ConfigError;
use super::keys::{BROKER_KEYS, Definition, Kind, NULL_DEFAULTS, TOPIC_KEYS, canonical, check_value, topic_key};
use catchwater_record::{NodeId, TopicName};
use std::collections::BTreeMap;

/// Where a value came from. The numbers are Kafka's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i8)]
pub enum ConfigSource {
    Topic = 1,
    Broker = 2,
    AllBrokers = 3,
    File = 4,
    Default = 5,
}

/// One key of a resource with its present value, and the chain it came from (most specific first).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub name: &'static str,
    pub value: String,
    pub source: ConfigSource,
    pub kind: Kind,
    pub read_only: bool,
    pub synonyms: Vec<Synonym>,
    pub text: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    pub name: String,
    pub value: String,
    pub source: ConfigSource,
}

/// Settings of the node's configuration file, by broker key.
pub type FileSettings = BTreeMap<String, String>;

/// The present value of one topic key, for those who act on it.
pub fn topic_value(image: &Image, file: &FileSettings, topic: &TopicName, key: &'static str) -> String {
    let Some(definition) = topic_key(key) else { return String::new() };
    if let Some(value) = image.topic_configs(topic).and_then(|e| e.get(key)) {
        return canonical(definition, value);
    }
    chain(file, definition).first().map_or_else(|| definition.default.to_owned(), |s| s.value.clone())
}

/// Every key of a topic, in the order of [`TOPIC_KEYS`].
pub fn describe_topic(image: &Image, file: &FileSettings, topic: &TopicName) -> Vec<Described> {
    let set = image.topic_configs(topic);
    describe_entries(set.map(|s| &**s), file)
}

/// The same for a set that is not stored yet (CreateTopics answers with it).
pub fn describe_entries(set: Option<&BTreeMap<String, String>>, file: &FileSettings) -> Vec<Described> {
    TOPIC_KEYS
        .iter()
        .map(|definition| {
            let mut synonyms = chain(file, definition);
            if let Some(value) = set.and_then(|s| s.get(definition.name)) {
                let value = canonical(definition, value);
                let own = Synonym { name: definition.name.to_owned(), value, source: ConfigSource::Topic };
                synonyms.insert(0, own);
            }
            described(definition, synonyms, false)
        })
        .collect()
}

/// Every key of a broker. `facts` are values only the node knows (addresses, directories), over the file's.
pub fn describe_broker(image: &Image, file: &FileSettings, node: NodeId) -> Vec<Described> {
    let of_node = image.broker_configs(Some(node));
    let of_all = image.broker_configs(None);
    let id = node.to_string();
    BROKER_KEYS
        .iter()
        .map(|definition| {
            let mut synonyms = Vec::new();
            let layers = [
                (of_node.and_then(|s| s.get(definition.name)), ConfigSource::Broker),
                (of_all.and_then(|s| s.get(definition.name)), ConfigSource::AllBrokers),
                (file.get(definition.name), ConfigSource::File),
            ];
            for (value, source) in layers {
                if let Some(value) = value {
                    synonyms.push(Synonym { name: definition.name.to_owned(), value: value.clone(), source });
                }
            }
            if matches!(definition.name, "node.id" | "broker.id") && synonyms.is_empty() {
                let source = ConfigSource::File;
                synonyms.push(Synonym { name: definition.name.to_owned(), value: id.clone(), source });
            }
            let default = Synonym {
                name: definition.name.to_owned(),
                value: definition.default.to_owned(),
                source: ConfigSource::Default,
            };
            synonyms.push(default);
            described(definition, synonyms, true)
        })
        .collect()
}

/// Names of the configuration file that give a topic key its default.
pub fn default_names() -> impl Iterator<Item = &'static str> {
    TOPIC_KEYS.iter().flat_map(|definition| definition.synonyms.iter().copied())
}

/// Judges a value of the configuration file that gives a topic key its default; `None` = it is none of those names.
pub fn check_default(name: &str, value: &str) -> Option<Result<(), ConfigError>> {
    let definition = TOPIC_KEYS.iter().find(|definition| definition.synonyms.contains(&name))?;
    let named = |e| match e {
        ConfigError::Value { value, why, .. } => ConfigError::Value { key: name.to_owned(), value, why },
        other => other,
    };
    Some(check_value(definition, &in_unit(name, value)).map_err(named))
}

/// `log.retention.hours=1` is `retention.ms=3600000`; a value that is no number is taken as it stands.
fn in_unit(name: &str, value: &str) -> String {
    let factor = match name.rsplit('.').next() {
        Some("hours") => 3_600_000,
        Some("minutes") => 60_000,
        _ => 1,
    };
    match value.trim().parse::<i64>() {
        Ok(n) if factor > 1 && n >= 0 => n.saturating_mul(factor).to_string(),
        _ => value.trim().to_owned(),
    }
}

/// What a topic key is when the topic says nothing: the file's broker keys, then the default.
fn chain(file: &FileSettings, definition: &'static Definition) -> Vec<Synonym> {
    let mut out = Vec::new();
    for name in definition.synonyms {
        if let Some(value) = file.get(*name) {
            let value = canonical(definition, &in_unit(name, value));
            out.push(Synonym { name: (*name).to_owned(), value, source: ConfigSource::File });
        }
    }
    // Kafka names a default where a broker key has one. Its `log.retention.ms` and the like are null unless they are set, and
    // some topic keys have no broker key; our own keys stand for themselves.
    let name = match definition.synonyms.first() {
        Some(name) if NULL_DEFAULTS.contains(name) => return out,
        Some(name) => *name,
        None if definition.of_kafka() => return out,
        None => definition.name,
    };
    out.push(Synonym { name: name.to_owned(), value: definition.default.to_owned(), source: ConfigSource::Default });
    out
}

fn described(definition: &'static Definition, synonyms: Vec<Synonym>, read_only: bool) -> Described {
    let (value, source) = synonyms
        .first()
        .map_or((definition.default.to_owned(), ConfigSource::Default), |s| (s.value.clone(), s.source));
    Described {
        name: definition.name,
        value,
        source,
        kind: definition.kind,
        read_only,
        synonyms,
        text: definition.text,
    }
}
