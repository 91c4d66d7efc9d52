//! Pure. Every key of topics and brokers: type, default, rule, text; and one value judged by them, as Kafka judges it.

use super::ConfigError;

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

impl Definition {
    /// One of Kafka's own topic keys.
    pub fn of_kafka(&self) -> bool {
        TOPIC_KEYS[..KAFKA_TOPIC_KEYS].iter().any(|key| key.name == self.name)
    }
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

/// Broker keys that are null in Kafka unless they are set: the topic key's default comes from another of its names, or from itself.
pub const NULL_DEFAULTS: &[&str] = &["log.flush.interval.ms", "log.retention.ms", "log.roll.jitter.ms", "log.roll.ms"];

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

/// Checks one value by its key's type and rule, as Kafka does: spaces around it do not count. What does not parse is
/// quoted as it came, what parses and breaks the rule as it was understood.
pub fn check_value(key: &Definition, value: &str) -> Result<(), ConfigError> {
    let refused =
        |value: &str, why: String| ConfigError::Value { key: key.name.to_owned(), value: value.to_owned(), why };
    let unreadable = |why: &str| refused(value, why.to_owned());
    let understood = canonical(key, value);
    let bad = |why: String| refused(&understood, why);
    let trimmed = trimmed(value);
    let number = match key.kind {
        Kind::Boolean => {
            if !(trimmed.eq_ignore_ascii_case("true") || trimmed.eq_ignore_ascii_case("false")) {
                return Err(unreadable("Expected value to be either true or false"));
            }
            0
        }
        Kind::Int => i64::from(trimmed.parse::<i32>().map_err(|_| unreadable("Not a number of type INT"))?),
        Kind::Long => trimmed.parse::<i64>().map_err(|_| unreadable("Not a number of type LONG"))?,
        Kind::Double => {
            let number = double(trimmed).ok_or_else(|| unreadable("Not a number of type DOUBLE"))?;
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
            let mut items = list(trimmed);
            // Java's `split` drops what is empty at the end, so Kafka takes `0:1,` and `,`.
            while items.last().is_some_and(|item| item.is_empty()) {
                items.pop();
            }
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
    let value = trimmed(value);
    if value.is_empty() { Vec::new() } else { value.split(',').map(trimmed).collect() }
}

/// As Java trims: everything up to U+0020 goes, and no other kind of space.
pub fn trimmed(value: &str) -> &str {
    value.trim_matches(|c: char| c <= ' ')
}

/// A value as it is understood and shown: `+5` is 5, `TRUE` is true, `.5` is 0.5, a list without doubles and spaces. One
/// that does not parse stays as it is.
pub fn canonical(key: &Definition, value: &str) -> String {
    let value = trimmed(value);
    let read = match key.kind {
        Kind::Boolean => Some(value.to_ascii_lowercase()),
        Kind::Int | Kind::Long => value.parse::<i64>().ok().map(|n| n.to_string()),
        Kind::Double => double(value).map(java_double),
        Kind::String => None,
        // Kafka forgives doubles where it knows the members, and leaves the others as they were written.
        Kind::List if matches!(key.rule, Rule::SomeOf(_)) => {
            let mut items: Vec<&str> = Vec::new();
            for item in list(value) {
                if !items.contains(&item) {
                    items.push(item);
                }
            }
            Some(items.join(","))
        }
        Kind::List => Some(list(value).join(",")),
    };
    read.unwrap_or_else(|| value.to_owned())
}

/// Java's form of a literal may end in its type; what Rust reads besides (`inf`, `nan`) it has no word for.
fn double(text: &str) -> Option<f64> {
    let digits = text.strip_suffix(['f', 'F', 'd', 'D']).unwrap_or(text);
    let named = matches!(digits.trim_start_matches(['+', '-']), "NaN" | "Infinity");
    if !named && digits.contains(|c: char| c.is_ascii_alphabetic() && !c.eq_ignore_ascii_case(&'e')) {
        return None;
    }
    digits.parse().ok()
}

/// As `Double.toString` writes it: 1.0, 0.5, 1.0E-4.
fn java_double(number: f64) -> String {
    if number.is_infinite() {
        return if number > 0.0 { "Infinity".into() } else { "-Infinity".into() };
    }
    let size = number.abs();
    if size == 0.0 || (1e-3..1e7).contains(&size) || number.is_nan() {
        return format!("{number:?}");
    }
    let text = format!("{number:E}");
    match text.split_once('E') {
        Some((digits, power)) if !digits.contains('.') => format!("{digits}.0E{power}"),
        _ => text,
    }
}
