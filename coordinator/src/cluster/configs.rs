//! Pure. Settings of topics and brokers: every key with type, default, rule and text, and how a value is found.
//!
//! ```text
//! topic value = set on the topic ▸ set on this broker ▸ set on all brokers ▸ configuration file ▸ default
//!               (source 1)         (2)                 (3)                  (4)                  (5)
//! ```
//! The 33 topic keys, their defaults and rules are those of Apache Kafka 4.3 (`LogConfig`); our own stand behind them.
//! Values are kept as they were written, trimmed; whoever reads one gets it as it is understood ([`canonical`]).

mod described;
mod keys;
#[cfg(test)]
mod tests;

pub use described::*;
pub use keys::*;

use super::image::{ConfigKey, Image};
use super::records::ClusterRecord;
use std::collections::BTreeMap;

/// One resource and what shall become of its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChange {
    pub of: ConfigKey,
    pub how: ConfigHow,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigHow {
    /// AlterConfigs: these and no others.
    Replace(Vec<(String, Option<String>)>),
    /// IncrementalAlterConfigs.
    Steps(Vec<(String, ConfigStep)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigStep {
    Set(String),
    Delete,
    /// Lists only.
    Append(String),
    /// Lists only.
    Subtract(String),
    /// A step that needs a value came without one.
    Null,
    /// An operation with a number that Kafka does not have.
    Unknown(i8),
}

/// Why settings were refused; the resource keeps what it had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("Unknown {of} config name: {name}")]
    UnknownKey { of: &'static str, name: String },
    #[error("Invalid value {value} for configuration {key}: {why}")]
    Value { key: String, value: String, why: String },
    /// Two values that contradict each other, or one that a list may not have.
    #[error("{0}")]
    Set(String),
    #[error("Null value not supported for topic configs: {0}")]
    Null(String),
    #[error("Null value not supported for : {0}")]
    NullStep(String),
    #[error("Error due to duplicate config keys")]
    Twice,
    #[error("Each resource must appear at most once.")]
    ResourceTwice,
    #[error("Unknown operations type {0}")]
    Operation(i8),
    #[error("Can't {op} to key {key} because its type is not LIST.")]
    NotAList { op: &'static str, key: String },
    #[error("Cannot update these configs dynamically: {0}; they are set in the node's configuration file")]
    ReadOnly(String),
    #[error("topic name {0:?} is illegal")]
    IllegalName(String),
    #[error("Default topic resources are not allowed.")]
    NoName,
    #[error("The topic '{0}' does not exist.")]
    UnknownTopic(String),
    #[error("Unexpected broker id, expected {expected}, but received {got}")]
    UnknownBroker { expected: i32, got: String },
    #[error("Unknown resource type {0}")]
    Type(i8),
}

/// Checks a whole set of topic settings, each alone and against each other.
pub fn check_topic(entries: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    for (name, value) in entries {
        let key = topic_key(name).ok_or_else(|| unknown(name))?;
        check_value(key, value)?;
    }
    let lag = |name: &str| -> i64 {
        let default = topic_key(name).map_or("0", |k| k.default);
        entries.get(name).map_or(default, String::as_str).trim().parse().unwrap_or(0)
    };
    let (min, max) = (lag("min.compaction.lag.ms"), lag("max.compaction.lag.ms"));
    if min > max {
        return Err(ConfigError::Set(format!(
            "conflict topic config setting min.compaction.lag.ms ({min}) > max.compaction.lag.ms ({max})"
        )));
    }
    Ok(())
}

/// Turns the pairs of a request into a set: none twice, none null, all legal.
pub fn topic_set(pairs: &[(String, Option<String>)]) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut entries = BTreeMap::new();
    for (name, value) in pairs {
        let value = value.as_ref().ok_or_else(|| ConfigError::Null(name.clone()))?;
        if entries.insert(name.clone(), value.clone()).is_some() {
            return Err(ConfigError::Twice);
        }
    }
    checked(entries)
}

/// The same set without spaces around its values, if it is a legal one. (What is refused is quoted with them.)
fn checked(mut entries: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, ConfigError> {
    check_topic(&entries)?;
    for value in entries.values_mut() {
        *value = trimmed(value).to_owned();
    }
    Ok(entries)
}

/// Decides one change: the new whole set, or why not.
pub fn decide(image: &Image, change: &ConfigChange) -> Result<ClusterRecord, ConfigError> {
    change.how.check_shape()?;
    let name = match &change.of {
        ConfigKey::Topic(name) => name,
        ConfigKey::Broker(_) => return decide_broker(change),
    };
    let present = image.topic_configs(name).map(|e| (**e).clone()).unwrap_or_default();
    let entries = match &change.how {
        ConfigHow::Replace(pairs) => topic_set(pairs)?,
        ConfigHow::Steps(steps) => {
            let mut entries = present;
            for (key, step) in steps {
                step_entry(&mut entries, key, step)?;
            }
            checked(entries)?
        }
    };
    if image.topic_by_name(name.as_str()).is_none() {
        return Err(ConfigError::UnknownTopic(name.to_string()));
    }
    Ok(ClusterRecord::Config { of: change.of.clone(), entries: (!entries.is_empty()).then_some(entries) })
}

/// Broker settings are read from the file at start; here they can only be judged.
fn decide_broker(change: &ConfigChange) -> Result<ClusterRecord, ConfigError> {
    let names: Vec<&String> = match &change.how {
        ConfigHow::Replace(pairs) => pairs.iter().map(|p| &p.0).collect(),
        ConfigHow::Steps(steps) => steps.iter().map(|s| &s.0).collect(),
    };
    if let Some(name) = names.iter().find(|name| broker_key(name).is_none()) {
        return Err(ConfigError::UnknownKey { of: "broker", name: short(name) });
    }
    match names.is_empty() {
        true => Ok(ClusterRecord::Config { of: change.of.clone(), entries: None }),
        false => {
            let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
            Err(ConfigError::ReadOnly(names.join(", ")))
        }
    }
}

impl ConfigHow {
    /// No key twice; no null (in a step: the step that needs a value and has none is [`ConfigStep::Null`]).
    fn check_shape(&self) -> Result<(), ConfigError> {
        let names: Vec<&str> = match self {
            ConfigHow::Replace(pairs) => pairs.iter().map(|p| p.0.as_str()).collect(),
            ConfigHow::Steps(steps) => steps.iter().map(|s| s.0.as_str()).collect(),
        };
        let unique: std::collections::BTreeSet<&str> = names.iter().copied().collect();
        if unique.len() < names.len() {
            return Err(ConfigError::Twice);
        }
        let nulls: Vec<String> = match self {
            ConfigHow::Replace(pairs) => pairs.iter().filter(|p| p.1.is_none()).map(|p| short(&p.0)).collect(),
            ConfigHow::Steps(steps) => steps.iter().filter(|s| s.1 == ConfigStep::Null).map(|s| short(&s.0)).collect(),
        };
        if nulls.is_empty() { Ok(()) } else { Err(ConfigError::NullStep(nulls.join(", "))) }
    }
}

fn unknown(name: &str) -> ConfigError {
    ConfigError::UnknownKey { of: "topic", name: short(name) }
}

/// Foreign text is shown shortened: it may be as long as a frame.
fn short(text: &str) -> String {
    text.chars().take(300).collect()
}

/// What an APPEND or SUBTRACT names, as Java splits: nothing is trimmed, an empty text is one empty item (which no list takes),
/// empty items at the end of another are none. Source: ConfigurationControlManager of Kafka 4.3.1, tried.
fn given(value: &str) -> Vec<&str> {
    if value.is_empty() {
        return vec![""];
    }
    value.trim_end_matches(',').split(',').filter(|_| !value.chars().all(|c| c == ',')).collect()
}

/// What stands there.
fn parts(value: &str) -> Vec<&str> {
    value.split(',').filter(|part| !part.is_empty()).collect()
}

fn step_entry(entries: &mut BTreeMap<String, String>, key: &str, step: &ConfigStep) -> Result<(), ConfigError> {
    let Some(definition) = topic_key(key) else {
        return match step {
            // Kafka takes back what it does not know: it may be left from another version.
            ConfigStep::Delete => Ok(()),
            ConfigStep::Append(_) => Err(ConfigError::NotAList { op: "APPEND", key: short(key) }),
            ConfigStep::Subtract(_) => Err(ConfigError::NotAList { op: "SUBTRACT", key: short(key) }),
            _ => Err(unknown(key)),
        };
    };
    let present = || entries.get(key).map_or(definition.default, String::as_str).to_owned();
    let value = match step {
        ConfigStep::Set(value) => value.clone(),
        ConfigStep::Delete => {
            entries.remove(key);
            return Ok(());
        }
        ConfigStep::Null => return Err(ConfigError::NullStep(key.to_owned())),
        ConfigStep::Unknown(op) => return Err(ConfigError::Operation(*op)),
        ConfigStep::Append(_) if definition.kind != Kind::List => {
            return Err(ConfigError::NotAList { op: "APPEND", key: key.to_owned() });
        }
        ConfigStep::Subtract(_) if definition.kind != Kind::List => {
            return Err(ConfigError::NotAList { op: "SUBTRACT", key: key.to_owned() });
        }
        ConfigStep::Append(more) => {
            let present = present();
            let mut items = parts(&present);
            for item in given(more) {
                if !items.contains(&item) {
                    items.push(item);
                }
            }
            items.join(",")
        }
        ConfigStep::Subtract(less) => {
            let present = present();
            let less = given(less);
            parts(&present).into_iter().filter(|item| !less.contains(item)).collect::<Vec<_>>().join(",")
        }
    };
    entries.insert(key.to_owned(), value);
    Ok(())
}
