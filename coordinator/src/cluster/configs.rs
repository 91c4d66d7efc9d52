//! Pure. Settings of topics and brokers: every key with type, default, rule and text, and how a value is found.
//!
//! ```text
//! topic value = set on the topic ▸ set on this broker ▸ set on all brokers ▸ configuration file ▸ default
//!               (source 1)         (2)                 (3)                  (4)                  (5)
//! ```
//! The 33 topic keys, their defaults and rules are those of Apache Kafka 4.3 (`LogConfig`); our own stand behind them.
//! Values are kept as they were written, trimmed; parsing is repeated at the reader.

use super::image::{ConfigKey, Image};
use super::records::ClusterRecord;
use catchwater_record::{NodeId, TopicName};
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

/// Type of a value. The numbers on the wire are [`Kind::wire`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Boolean,
    String,
    Int,
    Long,
    Double,
    List,
}

impl Kind {
    pub const fn wire(self) -> i8 {
        match self {
            Kind::Boolean => 1,
            Kind::String => 2,
            Kind::Int => 3,
            Kind::Long => 5,
            Kind::Double => 6,
            Kind::List => 7,
        }
    }
}

/// What a parsed value must satisfy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    Any,
    AtLeast(i64),
    Between(i64, i64),
    /// Or exactly -1.
    BetweenOrMinusOne(i64, i64),
    Fraction,
    OneOf(&'static [&'static str]),
    /// A list without duplicates, of these.
    SomeOf(&'static [&'static str]),
    /// `*`, or `partition:broker` pairs.
    Throttled,
    /// Known, but its effect is not there: only this value is taken.
    Only(&'static str),
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    pub name: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    pub rule: Rule,
    /// Broker keys that give a topic key its default, most specific first.
    pub synonyms: &'static [&'static str],
    pub text: &'static str,
}

const MAX: &str = "9223372036854775807";

macro_rules! keys {
    ($($name:literal $kind:ident $default:expr, $rule:expr, [$($synonym:literal),*], $text:literal;)*) => {
        &[$(Definition { name: $name, kind: Kind::$kind, default: $default, rule: $rule, synonyms: &[$($synonym),*], text: $text }),*]
    };
}

/// Topic keys: Kafka's 33 in the order of their names, then our own.
pub const TOPIC_KEYS: &[Definition] = keys! {
    "cleanup.policy" List "delete", Rule::SomeOf(&["compact", "delete"]), ["log.cleanup.policy"],
        "What happens to old segments: delete them after the retention, compact them to the newest record of each key, or both.";
    "compression.gzip.level" Int "-1", Rule::BetweenOrMinusOne(1, 9), ["compression.gzip.level"],
        "Level if compression.type is gzip; -1 is the codec's own default.";
    "compression.lz4.level" Int "9", Rule::Between(1, 17), ["compression.lz4.level"],
        "Level if compression.type is lz4.";
    "compression.type" String "producer", Rule::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), ["compression.type"],
        "Stored and described; batches keep the codec their producer chose.";
    "compression.zstd.level" Int "3", Rule::Between(-131_072, 22), ["compression.zstd.level"],
        "Level if compression.type is zstd.";
    "delete.retention.ms" Long "86400000", Rule::AtLeast(0), ["log.cleaner.delete.retention.ms"],
        "How long a tombstone of a compacted topic stays readable, in milliseconds.";
    "file.delete.delay.ms" Long "60000", Rule::AtLeast(0), ["log.segment.delete.delay.ms"],
        "How long a removed file stays on disk, in milliseconds.";
    "flush.messages" Long MAX, Rule::AtLeast(1), ["log.flush.interval.messages"],
        "1 asks for storage.durability=fsync; under relaxed, bounds the records that may not be synced; else no effect.";
    "flush.ms" Long MAX, Rule::AtLeast(0), ["log.flush.interval.ms", "log.flush.scheduler.interval.ms"],
        "Under storage.durability=relaxed, bounds the time records may not be synced; else no effect.";
    "follower.replication.throttled.replicas" List "", Rule::Throttled, [],
        "Replicas whose catching up is throttled on the follower side: partition:broker pairs, or *.";
    "index.interval.bytes" Int "4096", Rule::AtLeast(0), ["log.index.interval.bytes"],
        "Without effect: every batch has a row of its own in the table.";
    "leader.replication.throttled.replicas" List "", Rule::Throttled, [],
        "Replicas whose catching up is throttled on the leader side: partition:broker pairs, or *.";
    "local.retention.bytes" Long "-2", Rule::AtLeast(-2), ["log.local.retention.bytes"],
        "Bytes kept locally of a tiered topic; -2 follows retention.bytes.";
    "local.retention.ms" Long "-2", Rule::AtLeast(-2), ["log.local.retention.ms"],
        "Milliseconds kept locally of a tiered topic; -2 follows retention.ms.";
    "max.compaction.lag.ms" Long MAX, Rule::AtLeast(1), ["log.cleaner.max.compaction.lag.ms"],
        "Longest time a record may stay out of compaction, in milliseconds.";
    "max.message.bytes" Int "1048588", Rule::AtLeast(0), ["message.max.bytes"],
        "Largest batch as it is sent, after compression, in bytes.";
    "message.timestamp.after.max.ms" Long "3600000", Rule::AtLeast(0), ["log.message.timestamp.after.max.ms"],
        "How far a record's timestamp may lie in the future, in milliseconds.";
    "message.timestamp.before.max.ms" Long MAX, Rule::AtLeast(0), ["log.message.timestamp.before.max.ms"],
        "How far a record's timestamp may lie in the past, in milliseconds.";
    "message.timestamp.type" String "CreateTime", Rule::OneOf(&["CreateTime", "LogAppendTime"]), ["log.message.timestamp.type"],
        "Whose clock a record's timestamp is: the producer's or the broker's.";
    "min.cleanable.dirty.ratio" Double "0.5", Rule::Fraction, ["log.cleaner.min.cleanable.ratio"],
        "Share of a log that must be uncompacted before compaction runs.";
    "min.compaction.lag.ms" Long "0", Rule::AtLeast(0), ["log.cleaner.min.compaction.lag.ms"],
        "Shortest time a record stays as it was written, in milliseconds.";
    "min.insync.replicas" Int "1", Rule::AtLeast(1), ["min.insync.replicas"],
        "Replicas that must have a batch before acks=all is answered.";
    "preallocate" Boolean "false", Rule::Any, ["log.preallocate"],
        "Without effect: the journal is always allocated in advance.";
    "remote.log.copy.disable" Boolean "false", Rule::Any, [],
        "Stops copying of a tiered topic.";
    "remote.log.delete.on.disable" Boolean "false", Rule::Any, [],
        "Deletes remote data when tiering is switched off.";
    "remote.storage.enable" Boolean "false", Rule::Only("false"), [],
        "Tiered storage.";
    "retention.bytes" Long "-1", Rule::Any, ["log.retention.bytes"],
        "Largest size of a partition before old segments go, in bytes; -1 is no limit.";
    "retention.ms" Long "604800000", Rule::AtLeast(-1), ["log.retention.ms", "log.retention.minutes", "log.retention.hours"],
        "How long a record is kept, in milliseconds; -1 is for ever.";
    "segment.bytes" Int "1073741824", Rule::AtLeast(1_048_576), ["log.segment.bytes"],
        "Size of a segment file, in bytes; retention and compaction work on whole segments.";
    "segment.index.bytes" Int "10485760", Rule::AtLeast(4), ["log.index.size.max.bytes"],
        "Without effect: the table of a segment grows with it.";
    "segment.jitter.ms" Long "0", Rule::AtLeast(0), ["log.roll.jitter.ms", "log.roll.jitter.hours"],
        "Random part taken off segment.ms, so that segments do not all roll at once.";
    "segment.ms" Long "604800000", Rule::AtLeast(1), ["log.roll.ms", "log.roll.hours"],
        "Age at which a segment is closed even if it is not full, in milliseconds.";
    "unclean.leader.election.enable" Boolean "false", Rule::Any, ["unclean.leader.election.enable"],
        "Stored and described; a replica without all committed batches is never elected here.";
    "storage.durability" String "fsync", Rule::OneOf(&["fsync", "relaxed"]), [],
        "fsync: acknowledged means on disk. relaxed: acknowledged means given to the operating system.";
    "produce.validation" String "header", Rule::OneOf(&["header", "walk", "full"]), ["produce.validation"],
        "How far produced batches are looked into: their header and checksum, every record of plain batches, or all.";
};

/// Number of Kafka's own topic keys at the head of [`TOPIC_KEYS`].
pub const KAFKA_TOPIC_KEYS: usize = 33;
const _: () = assert!(TOPIC_KEYS.len() == KAFKA_TOPIC_KEYS + 2);

/// Broker keys that are described. All are read-only here: they come from the configuration file, or are facts.
pub const BROKER_KEYS: &[Definition] = keys! {
    "advertised.listeners" List "", Rule::Any, [], "Addresses that clients are told.";
    "auto.create.topics.enable" Boolean "true", Rule::Any, [], "Whether a client may make a topic by asking for its metadata.";
    "background.threads" Int "2", Rule::AtLeast(1), [], "Threads for cold reads and upkeep.";
    "broker.id" Int "1", Rule::AtLeast(0), [], "Number of this node.";
    "compression.gzip.level" Int "-1", Rule::BetweenOrMinusOne(1, 9), [], "Default of the topic key of this name.";
    "compression.lz4.level" Int "9", Rule::Between(1, 17), [], "Default of the topic key of this name.";
    "compression.type" String "producer", Rule::Any, [], "Default of the topic key of this name.";
    "compression.zstd.level" Int "3", Rule::Between(-131_072, 22), [], "Default of the topic key of this name.";
    "connections.max.idle.ms" Long "600000", Rule::Any, [], "Idle connections are closed after so many milliseconds.";
    "default.replication.factor" Int "1", Rule::AtLeast(1), [], "For topics that do not say.";
    "delete.topic.enable" Boolean "true", Rule::Any, [], "Whether topics may be deleted.";
    "fetch.max.bytes" Int "57671680", Rule::AtLeast(1024), [], "Most bytes of one fetch answer.";
    "group.initial.rebalance.delay.ms" Int "3000", Rule::AtLeast(0), [], "How long an empty group waits for more members.";
    "group.max.session.timeout.ms" Int "1800000", Rule::Any, [], "Longest session timeout a member may ask for.";
    "group.max.size" Int "2147483647", Rule::AtLeast(1), [], "Most members of a group.";
    "group.min.session.timeout.ms" Int "6000", Rule::Any, [], "Shortest session timeout a member may ask for.";
    "listeners" List "", Rule::Any, [], "Addresses this node listens on.";
    "log.cleaner.delete.retention.ms" Long "86400000", Rule::AtLeast(0), [], "Default of delete.retention.ms.";
    "log.cleaner.max.compaction.lag.ms" Long MAX, Rule::AtLeast(1), [], "Default of max.compaction.lag.ms.";
    "log.cleaner.min.cleanable.ratio" Double "0.5", Rule::Fraction, [], "Default of min.cleanable.dirty.ratio.";
    "log.cleaner.min.compaction.lag.ms" Long "0", Rule::AtLeast(0), [], "Default of min.compaction.lag.ms.";
    "log.cleanup.policy" List "delete", Rule::SomeOf(&["compact", "delete"]), [], "Default of cleanup.policy.";
    "log.dirs" String "", Rule::Any, [], "Directory of this node's data.";
    "log.flush.interval.messages" Long MAX, Rule::AtLeast(1), [], "Default of flush.messages.";
    "log.flush.interval.ms" Long MAX, Rule::AtLeast(0), [], "Default of flush.ms.";
    "log.index.interval.bytes" Int "4096", Rule::AtLeast(0), [], "Default of index.interval.bytes.";
    "log.index.size.max.bytes" Int "10485760", Rule::AtLeast(4), [], "Default of segment.index.bytes.";
    "log.local.retention.bytes" Long "-2", Rule::AtLeast(-2), [], "Default of local.retention.bytes.";
    "log.local.retention.ms" Long "-2", Rule::AtLeast(-2), [], "Default of local.retention.ms.";
    "log.message.timestamp.after.max.ms" Long "3600000", Rule::AtLeast(0), [], "Default of message.timestamp.after.max.ms.";
    "log.message.timestamp.before.max.ms" Long MAX, Rule::AtLeast(0), [], "Default of message.timestamp.before.max.ms.";
    "log.message.timestamp.type" String "CreateTime", Rule::Any, [], "Default of message.timestamp.type.";
    "log.preallocate" Boolean "false", Rule::Any, [], "Default of preallocate.";
    "log.retention.bytes" Long "-1", Rule::Any, [], "Default of retention.bytes.";
    "log.retention.ms" Long "604800000", Rule::AtLeast(-1), [], "Default of retention.ms.";
    "log.roll.jitter.ms" Long "0", Rule::AtLeast(0), [], "Default of segment.jitter.ms.";
    "log.roll.ms" Long "604800000", Rule::AtLeast(1), [], "Default of segment.ms.";
    "log.segment.bytes" Int "1073741824", Rule::AtLeast(1_048_576), [], "Default of segment.bytes.";
    "log.segment.delete.delay.ms" Long "60000", Rule::AtLeast(0), [], "Default of file.delete.delay.ms.";
    "message.max.bytes" Int "1048588", Rule::AtLeast(0), [], "Default of max.message.bytes.";
    "min.insync.replicas" Int "1", Rule::AtLeast(1), [], "Default of the topic key of this name.";
    "node.id" Int "1", Rule::AtLeast(0), [], "Number of this node.";
    "num.partitions" Int "1", Rule::AtLeast(1), [], "For topics that do not say.";
    "offset.metadata.max.bytes" Int "4096", Rule::Any, [], "Longest metadata of a committed offset.";
    "offsets.retention.check.interval.ms" Long "600000", Rule::AtLeast(1), [], "How often expired offsets are looked for.";
    "offsets.retention.minutes" Int "10080", Rule::AtLeast(1), [], "How long an empty group keeps its offsets.";
    "offsets.topic.num.partitions" Int "50", Rule::AtLeast(1), [], "Partitions of __consumer_offsets.";
    "offsets.topic.replication.factor" Int "1", Rule::AtLeast(1), [], "Replicas of __consumer_offsets.";
    "process.roles" List "broker,controller", Rule::Any, [], "Parts of this process.";
    "socket.request.max.bytes" Int "104857600", Rule::AtLeast(1), [], "Largest request.";
    "unclean.leader.election.enable" Boolean "false", Rule::Any, [], "Default of the topic key of this name.";
};

/// Keys that may be set and are never described: Kafka's own tests use them to have small segments.
pub const HIDDEN_KEYS: &[Definition] = keys! {
    "internal.segment.bytes" Int "-1", Rule::Any, [], "Size of a segment file below what segment.bytes allows, in bytes.";
};

pub fn topic_key(name: &str) -> Option<&'static Definition> {
    TOPIC_KEYS.iter().chain(HIDDEN_KEYS).find(|d| d.name == name)
}

pub fn broker_key(name: &str) -> Option<&'static Definition> {
    BROKER_KEYS.iter().find(|d| d.name == name)
}

/// Checks one value by its key's type and rule, as Kafka does (values are trimmed).
pub fn check_value(key: &Definition, value: &str) -> Result<(), ConfigError> {
    let bad = |why: String| ConfigError::Value { key: key.name.to_owned(), value: value.to_owned(), why };
    let trimmed = value.trim();
    let number = match key.kind {
        Kind::Boolean => {
            if !(trimmed.eq_ignore_ascii_case("true") || trimmed.eq_ignore_ascii_case("false")) {
                return Err(bad("Expected value to be either true or false".into()));
            }
            0
        }
        Kind::Int => i64::from(trimmed.parse::<i32>().map_err(|_| bad("Not a number of type INT".into()))?),
        Kind::Long => trimmed.parse::<i64>().map_err(|_| bad("Not a number of type LONG".into()))?,
        Kind::Double => {
            // Java's form of a literal may end in its type.
            let digits = trimmed.strip_suffix(['f', 'F', 'd', 'D']).unwrap_or(trimmed);
            let number = digits.parse::<f64>().map_err(|_| bad("Not a number of type DOUBLE".into()))?;
            if key.rule == Rule::Fraction && number > 1.0 {
                return Err(bad("Value must be no more than 1".into()));
            }
            // Kafka takes NaN, and then never compacts: a value that nobody can mean.
            if key.rule == Rule::Fraction && (number < 0.0 || number.is_nan()) {
                return Err(bad("Value must be at least 0".into()));
            }
            0
        }
        Kind::String | Kind::List => 0,
    };
    match key.rule {
        Rule::Any | Rule::Fraction => Ok(()),
        Rule::AtLeast(min) | Rule::Between(min, _) if number < min => {
            Err(bad(format!("Value must be at least {min}")))
        }
        Rule::Between(_, max) if number > max => Err(bad(format!("Value must be no more than {max}"))),
        Rule::BetweenOrMinusOne(min, max) if number != -1 && (number < min || number > max) => {
            Err(bad(format!("Value must be between {min} and {max} or equal to -1")))
        }
        Rule::AtLeast(_) | Rule::Between(..) | Rule::BetweenOrMinusOne(..) => Ok(()),
        Rule::OneOf(choices) if choices.contains(&trimmed) => Ok(()),
        Rule::OneOf(choices) => Err(bad(format!("String must be one of: {}", choices.join(", ")))),
        Rule::SomeOf(choices) => {
            for item in list(trimmed) {
                if item.is_empty() {
                    return Err(ConfigError::Set(format!("Configuration '{}' values must not be empty.", key.name)));
                }
                if !choices.contains(&item) {
                    let why = format!("String must be one of: {}", choices.join(", "));
                    return Err(ConfigError::Value { key: key.name.to_owned(), value: item.to_owned(), why });
                }
            }
            Ok(())
        }
        Rule::Throttled => {
            let items = list(trimmed);
            let pair = |item: &&str| {
                item.split_once(':')
                    .is_some_and(|(p, b)| [p, b].iter().all(|n| !n.is_empty() && n.bytes().all(|c| c.is_ascii_digit())))
            };
            if items == ["*"] || items.iter().all(pair) {
                Ok(())
            } else {
                let why = format!(
                    "{} must be the literal '*' or a list of replicas in the following format: \
                     [partitionId]:[brokerId],[partitionId]:[brokerId],...",
                    key.name
                );
                let value = format!("[{}]", items.join(", "));
                Err(ConfigError::Value { key: key.name.to_owned(), value, why })
            }
        }
        Rule::Only(only) if trimmed.eq_ignore_ascii_case(only) => Ok(()),
        Rule::Only(_) => Err(ConfigError::Set(
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."
                .into(),
        )),
    }
}

/// Items of a list value: separated by commas, spaces around them do not count, empty text = no item.
pub fn list(value: &str) -> Vec<&str> {
    let value = value.trim();
    if value.is_empty() { Vec::new() } else { value.split(',').map(str::trim).collect() }
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
        if entries.insert(name.clone(), value.trim().to_owned()).is_some() {
            return Err(ConfigError::Twice);
        }
    }
    check_topic(&entries)?;
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
            check_topic(&entries)?;
            entries
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
        ConfigStep::Set(value) => value.trim().to_owned(),
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
            let mut items = list(&present);
            for item in list(more) {
                if !items.contains(&item) {
                    items.push(item);
                }
            }
            items.join(",")
        }
        ConfigStep::Subtract(less) => {
            let present = present();
            let less = list(less);
            list(&present).into_iter().filter(|item| !less.contains(item)).collect::<Vec<_>>().join(",")
        }
    };
    entries.insert(key.to_owned(), value);
    Ok(())
}

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
        return value.clone();
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
                let own =
                    Synonym { name: definition.name.to_owned(), value: value.clone(), source: ConfigSource::Topic };
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
            let value = in_unit(name, value);
            out.push(Synonym { name: (*name).to_owned(), value, source: ConfigSource::File });
        }
    }
    let name = definition.synonyms.first().copied().unwrap_or(definition.name);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_default_passes_its_own_rule_and_keys_are_sorted() {
        for definition in TOPIC_KEYS.iter().chain(BROKER_KEYS) {
            check_value(definition, definition.default).unwrap();
        }
        let names: Vec<_> = TOPIC_KEYS[..KAFKA_TOPIC_KEYS].iter().map(|d| d.name).collect();
        assert!(names.is_sorted());
        assert!(BROKER_KEYS.iter().map(|d| d.name).is_sorted());
    }

    #[test]
    fn topic_synonyms_that_are_broker_keys_have_the_same_default() {
        for definition in TOPIC_KEYS {
            for synonym in definition.synonyms {
                if let Some(broker) = broker_key(synonym) {
                    assert_eq!(broker.default, definition.default, "{synonym}");
                }
            }
        }
    }

    /// (key, value, taken): the edges of Kafka's own validators.
    #[test]
    fn values_are_judged_as_kafka_does() {
        let cases = [
            ("cleanup.policy", "compact", true),
            ("cleanup.policy", "delete,compact", true),
            ("cleanup.policy", " compact , delete ", true),
            ("cleanup.policy", "compact,compact", true),
            ("cleanup.policy", "", true),
            ("cleanup.policy", "delete,", false),
            ("cleanup.policy", "squash", false),
            ("cleanup.policy", "Delete", false),
            ("compression.gzip.level", "-1", true),
            ("compression.gzip.level", "0", false),
            ("compression.gzip.level", "1", true),
            ("compression.gzip.level", "9", true),
            ("compression.gzip.level", "10", false),
            ("compression.lz4.level", "0", false),
            ("compression.lz4.level", "17", true),
            ("compression.lz4.level", "18", false),
            ("compression.zstd.level", "-131072", true),
            ("compression.zstd.level", "-131073", false),
            ("compression.zstd.level", "22", true),
            ("compression.zstd.level", "23", false),
            ("compression.type", "zstd", true),
            ("compression.type", "none", false),
            ("compression.type", "", false),
            ("delete.retention.ms", "0", true),
            ("delete.retention.ms", "-1", false),
            ("file.delete.delay.ms", "-1", false),
            ("flush.messages", "0", false),
            ("flush.messages", "1", true),
            ("flush.ms", "0", true),
            ("follower.replication.throttled.replicas", "*", true),
            ("follower.replication.throttled.replicas", "", true),
            ("follower.replication.throttled.replicas", "0:1,1:2", true),
            ("follower.replication.throttled.replicas", "0", false),
            ("follower.replication.throttled.replicas", "a:1", false),
            ("index.interval.bytes", "0", true),
            ("index.interval.bytes", "2147483648", false),
            ("local.retention.bytes", "-2", true),
            ("local.retention.bytes", "-3", false),
            ("max.compaction.lag.ms", "0", false),
            ("max.compaction.lag.ms", "1", true),
            ("max.message.bytes", "0", true),
            ("max.message.bytes", "-1", false),
            ("max.message.bytes", "1e6", false),
            ("message.timestamp.type", "LogAppendTime", true),
            ("message.timestamp.type", "logappendtime", false),
            ("min.cleanable.dirty.ratio", "0", true),
            ("min.cleanable.dirty.ratio", "1.0", true),
            ("min.cleanable.dirty.ratio", "1e-1", true),
            ("min.cleanable.dirty.ratio", "0.5f", true),
            ("min.cleanable.dirty.ratio", "", false),
            ("min.cleanable.dirty.ratio", "1.01", false),
            ("min.cleanable.dirty.ratio", "NaN", false),
            ("min.insync.replicas", "0", false),
            ("preallocate", "TRUE", true),
            ("preallocate", "yes", false),
            ("remote.storage.enable", "false", true),
            ("remote.storage.enable", "true", false),
            ("retention.bytes", "-100", true),
            ("retention.ms", "-1", true),
            ("retention.ms", "-2", false),
            ("retention.ms", "", false),
            ("segment.bytes", "1048575", false),
            ("segment.bytes", "1048576", true),
            ("segment.index.bytes", "3", false),
            ("segment.ms", "0", false),
            ("segment.jitter.ms", "0", true),
            ("storage.durability", "relaxed", true),
            ("storage.durability", "none", false),
            ("produce.validation", "walk", true),
        ];
        for (key, value, taken) in cases {
            assert_eq!(check_value(topic_key(key).unwrap(), value).is_ok(), taken, "{key}={value}");
        }
    }

    /// What `LogConfig.validate` of Kafka 4.3.1 says, word for word.
    #[test]
    fn refusals_are_worded_as_kafkas() {
        let cases = [
            (
                "cleanup.policy",
                "squash",
                "Invalid value squash for configuration cleanup.policy: String must be one of: compact, delete",
            ),
            ("cleanup.policy", "delete,", "Configuration 'cleanup.policy' values must not be empty."),
            (
                "compression.gzip.level",
                "0",
                "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1",
            ),
            (
                "compression.lz4.level",
                "18",
                "Invalid value 18 for configuration compression.lz4.level: Value must be no more than 17",
            ),
            (
                "min.cleanable.dirty.ratio",
                "1.01",
                "Invalid value 1.01 for configuration min.cleanable.dirty.ratio: Value must be no more than 1",
            ),
            (
                "min.insync.replicas",
                "0",
                "Invalid value 0 for configuration min.insync.replicas: Value must be at least 1",
            ),
            (
                "preallocate",
                "yes",
                "Invalid value yes for configuration preallocate: Expected value to be either true or false",
            ),
            (
                "index.interval.bytes",
                "2147483648",
                "Invalid value 2147483648 for configuration index.interval.bytes: Not a number of type INT",
            ),
            ("retention.ms", "", "Invalid value  for configuration retention.ms: Not a number of type LONG"),
            (
                "leader.replication.throttled.replicas",
                "*,0:1",
                "Invalid value [*, 0:1] for configuration leader.replication.throttled.replicas: leader.replication.throttled.replicas must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...",
            ),
            (
                "remote.storage.enable",
                "true",
                "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.",
            ),
        ];
        for (key, value, text) in cases {
            assert_eq!(check_value(topic_key(key).unwrap(), value).unwrap_err().to_string(), text);
        }
        assert_eq!(unknown("nope").to_string(), "Unknown topic config name: nope");
    }

    #[test]
    fn a_set_is_judged_as_a_whole() {
        let pair = |k: &str, v: &str| (k.to_owned(), Some(v.to_owned()));
        assert!(topic_set(&[pair("min.compaction.lag.ms", "5"), pair("max.compaction.lag.ms", "4")]).is_err());
        assert_eq!(topic_set(&[pair("retention.ms", "1"), pair("retention.ms", "2")]), Err(ConfigError::Twice));
        assert_eq!(topic_set(&[("retention.ms".into(), None)]), Err(ConfigError::Null("retention.ms".into())));
        assert_eq!(topic_set(&[pair("nope", "1")]), Err(unknown("nope")));
        assert_eq!(topic_set(&[pair("retention.ms", " 7 ")]).unwrap()["retention.ms"], "7");
    }

    #[test]
    fn the_file_gives_defaults_in_hours_too() {
        let file = FileSettings::from([("log.retention.hours".to_owned(), "1".to_owned())]);
        let topic = TopicName::from("t");
        assert_eq!(topic_value(&Image::default(), &file, &topic, "retention.ms"), "3600000");
        let all = describe_topic(&Image::default(), &file, &topic);
        let retention = all.iter().find(|d| d.name == "retention.ms").unwrap();
        assert_eq!((retention.source, retention.synonyms.len()), (ConfigSource::File, 2));
        assert_eq!(all.len(), TOPIC_KEYS.len());
    }
}
