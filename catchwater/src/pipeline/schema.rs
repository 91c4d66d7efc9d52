//! Pure. Which keys a pipeline file may hold where: the one table that the validator walks.
//!
//! A field that exists in the grammar of a later version is *known but not served*: refused with a sentence of its own,
//! so that nobody hunts for a typing mistake.

/// What a value must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// `[a-z][a-z0-9_]{0,62}`
    Name,
    Text,
    /// May hold `${…}` references and a secret inside a URL.
    SecretUrl,
    /// Name of a replication slot.
    Slot,
    Path,
    /// The integer 1.
    Version,
    Choice(&'static [&'static str]),
    Number {
        min: u64,
        max: u64,
    },
    Duration,
    Size,
    /// `K/N`: K of the last N, both at least 1, K at most N.
    Ratio,
    /// One text or a list of texts.
    Texts,
    /// Names of tables, and lists of regular expressions.
    Captured,
    /// A mapping with these fields.
    Map(&'static [Field]),
    /// name → mapping.
    Named(&'static [Field]),
    /// A type of a target's column.
    SqlType,
    /// table → mapping.
    Tables(&'static [Field]),
    /// A list of tests, which `offline` reads.
    Tests,
    /// Property of Debezium's connector → its value.
    Properties,
    /// Property of a Kafka Connect connector → its value.
    Connector,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    pub key: &'static str,
    pub shape: Shape,
    pub required: bool,
    /// A component type: exactly one per source and sink.
    pub component: bool,
}

const fn field(key: &'static str, shape: Shape) -> Field {
    Field { key, shape, required: false, component: false }
}
const fn required(key: &'static str, shape: Shape) -> Field {
    Field { key, shape, required: true, component: false }
}
const fn component(key: &'static str, shape: Shape) -> Field {
    Field { key, shape, required: false, component: true }
}

pub const ROOT: &[Field] = &[
    required("version", Shape::Version),
    required("pipeline", Shape::Name),
    field("owner", Shape::Text),
    required("sources", Shape::Named(SOURCE)),
    field("sinks", Shape::Named(SINK)),
    field("tests", Shape::Tests),
];

/// Of a pipeline that a Kafka Connect connector was made into.
pub const CONNECT_ROOT: &[Field] =
    &[required("version", Shape::Version), required("pipeline", Shape::Text), required("connect", Shape::Map(CONNECT))];

const CONNECT: &[Field] =
    &[field("state", Shape::Choice(&super::connect::Target::WORDS)), required("config", Shape::Connector)];

pub const SOURCE: &[Field] = &[
    component("postgres", Shape::Map(POSTGRES_SOURCE)),
    component("sqlite", Shape::Map(SQLITE_SOURCE)),
    field("snapshot", Shape::Map(SNAPSHOT)),
    field("envelope", Shape::Choice(&["debezium"])),
    field("debezium", Shape::Properties),
    field("unchanged", Shape::Choice(&["fill", "placeholder"])),
];

const POSTGRES_SOURCE: &[Field] = &[
    required("url", Shape::SecretUrl),
    required("tables", Shape::Captured),
    field("slot", Shape::Slot),
    field("publication", Shape::Text),
    field("streaming", Shape::Choice(&["off", "on"])),
    field("failover", Shape::Choice(&["false", "true"])),
    field("binary", Shape::Choice(&["false", "true"])),
];

const SQLITE_SOURCE: &[Field] = &[required("file", Shape::Path), required("tables", Shape::Texts)];

const SNAPSHOT: &[Field] = &[field("mode", Shape::Choice(&catchwater_capture::SnapshotMode::WORDS))];

pub const SINK: &[Field] = &[
    required("from", Shape::Texts),
    component("postgres", Shape::Map(POSTGRES_SINK)),
    component("sqlite", Shape::Map(SQLITE_SINK)),
    field("mode", Shape::Choice(&["upsert", "append", "insert_once", "soft_delete"])),
    field("on_error", Shape::Map(ON_ERROR)),
    field("tables", Shape::Tables(SINK_TABLE)),
    field("names", Shape::Choice(&["exact", "fold"])),
    field("batch", Shape::Map(BATCH)),
    field("apply", Shape::Map(APPLY)),
    field("on_schema_change", Shape::Choice(&["additive", "fail"])),
    field("deletes", Shape::Choice(&["apply", "ignore"])),
    field("truncate", Shape::Choice(&["apply", "ignore"])),
];

const POSTGRES_SINK: &[Field] = &[required("url", Shape::SecretUrl), field("schema", Shape::Text)];
const SQLITE_SINK: &[Field] = &[required("file", Shape::Path)];
const SINK_TABLE: &[Field] =
    &[field("name", Shape::Text), field("select", Shape::Map(SELECT)), field("columns", Shape::Tables(COLUMN))];
const SELECT: &[Field] = &[field("keep", Shape::Texts), field("drop", Shape::Texts)];
const COLUMN: &[Field] = &[field("name", Shape::Text), field("type", Shape::SqlType)];
const ON_ERROR: &[Field] = &[field("row", Shape::Choice(&["stop", "park_key"])), field("max", Shape::Ratio)];
const BATCH: &[Field] = &[
    field("rows", Shape::Number { min: 1, max: 1_000_000 }),
    field("bytes", Shape::Size),
    field("linger", Shape::Duration),
];

const APPLY: &[Field] = &[field("lanes", Shape::Number { min: 1, max: 16 })];

/// Words of other systems, and what they are called here.
pub const SYNONYMS: [(&str, &str); 12] = [
    ("topics", "from"),
    ("source", "sources"),
    ("sink", "sinks"),
    ("destinations", "sinks"),
    ("targets", "sinks"),
    ("name", "pipeline"),
    ("connection", "url"),
    ("dsn", "url"),
    ("uri", "url"),
    ("path", "file"),
    ("table", "tables"),
    ("postgresql", "postgres"),
];

/// Part of the grammar, built in a later version: (where, key).
pub const LATER: [&str; 24] = [
    "streams",
    "views",
    "products",
    "alerts",
    "functions",
    "require",
    "deletes",
    "truncate",
    "names",
    "key",
    "missing",
    "time_zone",
    "commit",
    "allow",
    "large_transaction",
    "hold_retention",
    "freshness",
    "verify",
    "start",
    "state",
    "mysql",
    "mariadb",
    "mongodb",
    "redis",
];

/// `25/1000`.
pub fn ratio(text: &str) -> Option<(u32, u32)> {
    let (most, of) = text.split_once('/')?;
    let (most, of) = (most.trim().parse().ok()?, of.trim().parse().ok()?);
    (most >= 1 && most <= of).then_some((most, of))
}

/// Duration with a unit → milliseconds.
pub fn duration_ms(text: &str) -> Option<u64> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(at);
    let number: u64 = number.parse().ok()?;
    let factor = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// Size with a unit → bytes. `MB` is 10^6, `MiB` is 2^20.
pub fn size_bytes(text: &str) -> Option<u64> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(at);
    let number: u64 = number.parse().ok()?;
    let factor: u64 = match unit {
        "B" => 1,
        "kB" => 1000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}
