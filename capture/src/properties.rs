//! Pure. The properties of Debezium's PostgreSQL connector that a source may carry, by their names and in their words
//! (capture.md 6): what they mean for records ([`Options`]) and for rows ([`Rules`]).
//!
//! A property we do not know is an error with the nearest one we do: a misspelt mask would show what it should hide.

use crate::converters;
use crate::creation::{self, Creation};
pub use crate::notification::Channels as Notifications;
use crate::processors;
use crate::reading::{self, Guardrail, Reading, SELECTS};
use crate::shape::{Mask, Pattern, Rules};
pub use crate::signal::{SignalFile, Signals};
use crate::transforms::{self, Transforms};
use catchwater_change::encode::debezium_json::{Deletes, NameMode, Options, Placeholder, Placing};
use catchwater_change::encode::form::{BinaryMode, DecimalMode, HstoreMode, IntervalMode, MONEY_DIGITS_MAX, TimeMode};
use catchwater_record::batch::Codec;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Longest mask, characters.
const MASK_MAX: u32 = 10_000;
/// Most rows of a chunk of an ad hoc snapshot, and tables read at a time.
const CHUNK_ROWS_MAX: u32 = 50_000;
const PARALLEL_MAX: u32 = 16;
/// Shortest and longest time between heartbeats, milliseconds.
const INTERVAL_MS_MIN: u64 = 100;
const INTERVAL_MS_MAX: u64 = 86_400_000;
/// As Debezium's.
const SIGNAL_FILE: &str = "file-signals.txt";
const SIGNAL_POLL_MS: u64 = 5000;

/// What the properties of a source say together.
#[derive(Clone, Debug, Default)]
pub struct Properties {
    pub options: Options,
    pub rules: Rules,
    /// `provide.transaction.metadata`, and the topic's name without its prefix.
    pub transaction_topic: Option<String>,
    pub heartbeat: Option<Heartbeat>,
    /// `heartbeat.action.query`: SQL that the source runs at each heartbeat.
    pub heartbeat_query: Option<String>,
    /// `xmin.fetch.interval.ms`.
    pub xmin_every_ms: Option<u64>,
    pub signals: Signals,
    pub notifications: Notifications,
    /// How the connector reads.
    pub reading: Reading,
    pub transforms: Arc<Transforms>,
    pub creation: Arc<Creation>,
    /// `producer.override.compression.type`: how the source's batches are stored and fetched.
    pub compression: Codec,
}

/// `heartbeat.interval.ms`, and the first part of the topic's name: the source's prefix follows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heartbeat {
    pub every_ms: u64,
    pub topic_prefix: String,
}

/// One property that is not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{key}`: {why}")]
pub struct PropertyError {
    pub key: String,
    pub why: String,
}

/// Names without a variable part.
pub const KNOWN: [&str; 64] = [
    "binary.handling.mode",
    "column.exclude.list",
    "column.include.list",
    "column.propagate.source.type",
    "compat.defects",
    "database.initial.statements",
    "datatype.propagate.source.type",
    "decimal.handling.mode",
    "extended.headers.enabled",
    "field.name.adjustment.mode",
    "flush.lsn.source",
    "guardrail.collections.limit.action",
    "guardrail.collections.max",
    "heartbeat.action.query",
    "heartbeat.interval.ms",
    "hstore.handling.mode",
    "include.unknown.datatypes",
    "incremental.snapshot.chunk.size",
    "interval.handling.mode",
    "key.converter",
    "key.converter.delegate.converter.type",
    "key.converter.delegate.converter.type.schemas.enable",
    "key.converter.replace.null.with.default",
    "key.converter.schemas.enable",
    "lsn.flush.mode",
    "message.key.columns",
    "message.prefix.exclude.list",
    "message.prefix.include.list",
    "money.fraction.digits",
    "notification.enabled.channels",
    "notification.sink.topic.name",
    "post.processors",
    "predicates",
    "producer.override.compression.type",
    "provide.transaction.metadata",
    "publish.via.partition.root",
    "replace.null.with.default",
    "replica.identity.autoset.values",
    "schema.name.adjustment.mode",
    "schemas.enable",
    "signal.data.collection",
    "signal.enabled.channels",
    "signal.file",
    "signal.kafka.topic",
    "signal.poll.interval.ms",
    "skip.messages.without.change",
    "skipped.operations",
    "snapshot.include.collection.list",
    "snapshot.max.threads",
    "snapshot.select.statement.overrides",
    "time.precision.mode",
    "tombstones.on.delete",
    "topic.creation.groups",
    "topic.delimiter",
    "topic.heartbeat.prefix",
    "topic.transaction",
    "transforms",
    "unavailable.value.placeholder",
    "value.converter",
    "value.converter.delegate.converter.type",
    "value.converter.delegate.converter.type.schemas.enable",
    "value.converter.replace.null.with.default",
    "value.converter.schemas.enable",
    "xmin.fetch.interval.ms",
];

/// What decides which records exist, and under which ordinal: fixed while the log holds half a transaction (R8).
pub fn shapes_records(key: &str) -> bool {
    matches!(
        key,
        "compat.defects"
            | "message.key.columns"
            | "message.prefix.exclude.list"
            | "message.prefix.include.list"
            | "predicates"
            | "provide.transaction.metadata"
            | "skip.messages.without.change"
            | "skipped.operations"
            | "tombstones.on.delete"
            | "transforms"
    ) || (key.starts_with("column.") && key.ends_with(".list"))
        // What is done about a change that is no event makes no other events.
        || transforms::FAMILIES.iter().any(|f| key.starts_with(f)) && !key.ends_with(".table.op.invalid.behavior")
}

impl Properties {
    /// All errors at once. Order means nothing but for masks: of two that fit a column the first by name is taken.
    pub fn parse<'p>(given: impl IntoIterator<Item = (&'p str, &'p str)>) -> Result<Self, Vec<PropertyError>> {
        let mut out = Properties::default();
        let mut errors = Vec::new();
        let mut topic = None;
        let mut transactions = false;
        let (mut channels, mut signal_table, mut signal_topic) = (Channels::default(), None, None);
        let mut signal_file = SignalFile { path: SIGNAL_FILE.to_owned(), every_ms: SIGNAL_POLL_MS };
        let (mut told_by_topic, mut told_topic) = (false, None);
        let (mut tables_max, mut fails) = (0, false);
        let (mut beat_ms, mut beat_prefix) = (0, "__debezium-heartbeat".to_owned());
        let given: BTreeMap<&str, &str> = given.into_iter().collect();
        for (key, value) in &given {
            let done = match *key {
                "provide.transaction.metadata" => boolean(value).map(|v| transactions = v),
                "topic.transaction" => legal_topic(value).map(|()| topic = Some((*value).to_owned())),
                "heartbeat.interval.ms" => interval(value).map(|ms| beat_ms = ms),
                "xmin.fetch.interval.ms" => {
                    milliseconds(value).map(|ms| out.xmin_every_ms = Some(ms).filter(|ms| *ms > 0))
                }
                "topic.heartbeat.prefix" => legal_topic(value).map(|()| beat_prefix = (*value).to_owned()),
                "heartbeat.action.query" => {
                    out.heartbeat_query = Some((*value).to_owned()).filter(|q| !q.trim().is_empty());
                    Ok(())
                }
                "notification.enabled.channels" => notified(value).map(|(log, sink)| {
                    out.notifications.log = log;
                    told_by_topic = sink;
                }),
                "notification.sink.topic.name" => legal_topic(value).map(|()| told_topic = Some((*value).to_owned())),
                "signal.enabled.channels" => listed_channels(value).map(|c| channels = c),
                "signal.data.collection" => {
                    signal_table = Some((*value).trim().to_owned()).filter(|t| !t.is_empty());
                    Ok(())
                }
                "signal.file" => file(value).map(|path| signal_file.path = path),
                "signal.poll.interval.ms" => {
                    number(value, 1, INTERVAL_MS_MAX as u32).map(|ms| signal_file.every_ms = u64::from(ms))
                }
                "signal.kafka.topic" => legal_topic(value).map(|()| signal_topic = Some((*value).to_owned())),
                "incremental.snapshot.chunk.size" => {
                    number(value, 1, CHUNK_ROWS_MAX).map(|rows| out.signals.chunk_rows = rows)
                }
                "snapshot.max.threads" => number(value, 1, PARALLEL_MAX).map(|n| {
                    out.signals.parallel = n;
                    out.signals.readers = Some(n);
                }),
                "producer.override.compression.type" => codec(value).map(|codec| out.compression = codec),
                "publish.via.partition.root" => boolean(value).map(|root| out.reading.leaves = !root),
                "lsn.flush.mode" => flushed(value).map(|by_us| out.reading.unconfirmed |= !by_us),
                "flush.lsn.source" => boolean(value).map(|by_us| out.reading.unconfirmed |= !by_us),
                "database.initial.statements" => {
                    reading::statements(value).map(|all| out.reading.initial_statements = all)
                }
                "replica.identity.autoset.values" => reading::identities(value).map(|all| out.reading.identities = all),
                "guardrail.collections.max" => number(value, 0, i32::MAX as u32).map(|n| tables_max = n),
                "guardrail.collections.limit.action" => {
                    word(value, &[("warn", false), ("fail", true)]).map(|v| fails = v)
                }
                "snapshot.include.collection.list" => {
                    Pattern::parse(value).map(|p| out.reading.snapshot_tables = Some(p))
                }
                // With the others of theirs, below.
                "transforms" | "predicates" | "post.processors" => Ok(()),
                key if processors::has(given.get("post.processors"), key) => Ok(()),
                key if converters::KEYS.iter().any(|k| {
                    key.strip_prefix("key.").or_else(|| key.strip_prefix("value.")).is_some_and(|rest| rest == *k)
                }) =>
                {
                    Ok(())
                }
                key if key.starts_with(creation::FAMILY) => Ok(()),
                key if transforms::FAMILIES.iter().any(|f| key.starts_with(f)) => Ok(()),
                key if key.strip_prefix(SELECTS).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) => Ok(()),
                key => out.take(key, value),
            };
            if let Err(why) = done {
                errors.push(PropertyError { key: (*key).to_owned(), why });
            }
        }
        let faults = out.reading.take_selects(given.get(SELECTS).copied(), &given);
        errors.extend(faults.into_iter().map(|(key, why)| PropertyError { key, why }));
        let has_outbox = given.values().any(|class| *class == transforms::OUTBOX);
        for side in ["key", "value"] {
            let options = &mut out.options;
            let (converter, schema) = match side {
                "key" => (&mut options.key_converter, &mut options.key_schema),
                _ => (&mut options.value_converter, &mut options.value_schema),
            };
            match converters::parse(&given, side, has_outbox) {
                Ok(of) => (*converter, *schema) = (of.converter, of.schema.unwrap_or(*schema)),
                Err((key, why)) => errors.push(PropertyError { key, why }),
            }
        }
        match Creation::parse(&given, has_outbox) {
            Ok(creation) => out.creation = Arc::new(creation),
            Err(faults) => errors.extend(faults.into_iter().map(|(key, why)| PropertyError { key, why })),
        }
        match Transforms::parse(&given) {
            Ok(transforms) => out.transforms = Arc::new(transforms),
            Err(faults) => errors.extend(faults.into_iter().map(|(key, why)| PropertyError { key, why })),
        }
        let mut reselects = false;
        match processors::parse(&given) {
            Ok(fills) => reselects = fills,
            Err(faults) => errors.extend(faults.into_iter().map(|(key, why)| PropertyError { key, why })),
        }
        if given.contains_key("column.include.list") && given.contains_key("column.exclude.list") {
            let why = "`column.include.list` is given, too: one of them".to_owned();
            errors.push(PropertyError { key: "column.exclude.list".into(), why });
        }
        if given.contains_key("message.prefix.include.list") && given.contains_key("message.prefix.exclude.list") {
            let why = "`message.prefix.include.list` is given, too: one of them".to_owned();
            errors.push(PropertyError { key: "message.prefix.exclude.list".into(), why });
        }
        if out.heartbeat_query.is_some() && beat_ms == 0 {
            let why = "`heartbeat.interval.ms` says when, and is 0".to_owned();
            errors.push(PropertyError { key: "heartbeat.action.query".into(), why });
        }
        if told_by_topic && told_topic.is_none() && !given.contains_key("notification.sink.topic.name") {
            let why = "must be given for the channel `sink`".to_owned();
            errors.push(PropertyError { key: "notification.sink.topic.name".into(), why });
        }
        out.reading.guardrail = (tables_max > 0).then_some(Guardrail { tables_max, fails });
        out.notifications.topic = told_topic.filter(|_| told_by_topic);
        out.heartbeat = (beat_ms > 0).then_some(Heartbeat { every_ms: beat_ms, topic_prefix: beat_prefix });
        out.signals.table = signal_table.filter(|_| channels.source);
        out.signals.kafka = channels.kafka.then_some(signal_topic);
        out.signals.file = channels.file.then_some(signal_file);
        out.with_defects(&given);
        out.options.fill_unchanged |= reselects;
        out.transaction_topic = transactions.then(|| topic.unwrap_or_else(|| "transaction".into()));
        if errors.is_empty() { Ok(out) } else { Err(errors) }
    }

    /// What `compat.defects` brings along, where nothing else was said.
    fn with_defects(&mut self, given: &BTreeMap<&str, &str>) {
        let defects = self.options.defects;
        for (side, key) in [
            (&mut self.options.key_defaults, "key.converter.replace.null.with.default"),
            (&mut self.options.value_defaults, "value.converter.replace.null.with.default"),
        ] {
            *side |= defects && !given.contains_key(key) && !given.contains_key("replace.null.with.default");
        }
        self.options.fill_unchanged &= !defects;
        self.options.skips_creates = self.rules.skipped.contains(&'c');
        self.options.skips_deletes = self.rules.skipped.contains(&'d');
        self.options.unknown_types = self.rules.unknown_types;
        self.options.skips_unchanged = defects && self.rules.skip_unchanged;
        if !self.transforms.is_nothing() {
            self.options.placing = Placing(Some(self.transforms.clone()));
        }
        // The transform puts them there whatever the converter is told.
        self.options.transform_defaults = defects && self.transforms.deletes() == Some(Deletes::Rewrite);
        self.options.value_defaults |= self.options.transform_defaults;
        self.rules.defects = defects;
        if defects {
            // Its default: truncations are not decoded, though its publication has them.
            if !given.contains_key("skipped.operations") {
                self.rules.skipped = vec!['t'];
            }
            self.rules.masks.sort_by_key(|(_, mask)| mask.rank());
        }
    }

    fn take(&mut self, key: &str, value: &str) -> Result<(), String> {
        let form = &mut self.options.form;
        match key {
            "decimal.handling.mode" => {
                form.decimal = word(
                    value,
                    &[
                        ("precise", DecimalMode::Precise),
                        ("double", DecimalMode::Double),
                        ("string", DecimalMode::String),
                    ],
                )?;
            }
            "time.precision.mode" => {
                form.time = word(
                    value,
                    &[
                        ("adaptive", TimeMode::Adaptive),
                        ("adaptive_time_microseconds", TimeMode::AdaptiveMicros),
                        ("connect", TimeMode::Connect),
                        ("isostring", TimeMode::IsoString),
                        ("microseconds", TimeMode::Micros),
                        ("nanoseconds", TimeMode::Nanos),
                        ("structured", TimeMode::Structured),
                    ],
                )?;
            }
            "binary.handling.mode" => {
                form.binary = word(
                    value,
                    &[
                        ("bytes", BinaryMode::Bytes),
                        ("base64", BinaryMode::Base64),
                        ("base64-url-safe", BinaryMode::Base64UrlSafe),
                        ("hex", BinaryMode::Hex),
                    ],
                )?;
            }
            "hstore.handling.mode" => {
                form.hstore = word(value, &[("json", HstoreMode::Json), ("map", HstoreMode::Map)])?;
            }
            "interval.handling.mode" => {
                form.interval = word(value, &[("numeric", IntervalMode::Numeric), ("string", IntervalMode::String)])?;
            }
            "money.fraction.digits" => {
                let digits = value.parse().ok().filter(|d| *d <= MONEY_DIGITS_MAX);
                form.money_digits = digits.ok_or_else(|| format!("a number from 0 to {MONEY_DIGITS_MAX}"))?;
            }
            "unavailable.value.placeholder" => {
                let digits = || "after `hex:` an even number of hex digits".to_owned();
                self.options.placeholder = Placeholder::parse(value).ok_or_else(digits)?;
            }
            "tombstones.on.delete" => self.options.tombstones = boolean(value)?,
            "extended.headers.enabled" => self.options.context_headers = boolean(value)?,
            "key.converter.schemas.enable" => self.options.key_schema = boolean(value)?,
            "value.converter.schemas.enable" => self.options.value_schema = boolean(value)?,
            "schemas.enable" => {
                self.options.key_schema = boolean(value)?;
                self.options.value_schema = self.options.key_schema;
            }
            "compat.defects" => self.options.defects = boolean(value)?,
            "key.converter.replace.null.with.default" => self.options.key_defaults = boolean(value)?,
            "value.converter.replace.null.with.default" => self.options.value_defaults = boolean(value)?,
            "replace.null.with.default" => {
                self.options.key_defaults = boolean(value)?;
                self.options.value_defaults = self.options.key_defaults;
            }
            "topic.delimiter" => {
                legal_topic(value)?;
                self.options.delimiter = value.to_owned();
            }
            "column.include.list" => self.rules.include = Some(Pattern::parse(value)?),
            "column.exclude.list" => self.rules.exclude = Some(Pattern::parse(value)?),
            "message.prefix.include.list" => self.rules.messages_include = Some(Pattern::parse(value)?),
            "message.prefix.exclude.list" => self.rules.messages_exclude = Some(Pattern::parse(value)?),
            "include.unknown.datatypes" => self.rules.unknown_types = boolean(value)?,
            "skip.messages.without.change" => self.rules.skip_unchanged = boolean(value)?,
            "skipped.operations" => {
                self.rules.skipped = operations(value)?;
                self.rules.unpublished = true;
            }
            "message.key.columns" => self.rules.keys = keys(value)?,
            "schema.name.adjustment.mode" => self.options.schema_names = names(value)?,
            "field.name.adjustment.mode" => self.rules.field_names = names(value)?,
            "column.propagate.source.type" => self.rules.propagate = Some(Pattern::parse(value)?),
            "datatype.propagate.source.type" => self.rules.propagate_types = Some(Pattern::parse(value)?),
            key => {
                let mask = mask(key)?;
                self.rules.masks.push((Pattern::parse(value)?, mask));
            }
        }
        Ok(())
    }
}

fn boolean(value: &str) -> Result<bool, String> {
    word(value, &[("true", true), ("false", false)])
}

fn word<T: Copy>(value: &str, words: &[(&str, T)]) -> Result<T, String> {
    let found = words.iter().find(|(w, _)| w.eq_ignore_ascii_case(value.trim())).map(|(_, v)| *v);
    found.ok_or_else(|| format!("one of {}", words.iter().map(|(w, _)| *w).collect::<Vec<_>>().join(", ")))
}

/// The words of Kafka's `compression.type`.
fn codec(value: &str) -> Result<Codec, String> {
    word(
        value,
        &[
            ("none", Codec::None),
            ("gzip", Codec::Gzip),
            ("snappy", Codec::Snappy),
            ("lz4", Codec::Lz4),
            ("zstd", Codec::Zstd),
        ],
    )
}

/// `lsn.flush.mode`: whether we tell the source what it may forget. A driver beside us that does so, too, there is not.
fn flushed(value: &str) -> Result<bool, String> {
    word(value, &[("connector", true), ("connector_and_driver", true), ("manual", false)])
}

fn names(value: &str) -> Result<NameMode, String> {
    word(value, &[("none", NameMode::None), ("avro", NameMode::Avro), ("avro_unicode", NameMode::AvroUnicode)])
}

/// `signal.enabled.channels`.
#[derive(Clone, Copy)]
struct Channels {
    source: bool,
    kafka: bool,
    file: bool,
}

impl Default for Channels {
    fn default() -> Self {
        Channels { source: true, kafka: false, file: false }
    }
}

fn listed_channels(value: &str) -> Result<Channels, String> {
    let mut out = Channels { source: false, kafka: false, file: false };
    for part in value.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        match part {
            "source" => out.source = true,
            "kafka" => out.kafka = true,
            "file" => out.file = true,
            // For programs that hold Debezium's engine in themselves.
            "in-process" => {}
            _ => return Err(format!("{part} is none of source, kafka, file")),
        }
    }
    Ok(out)
}

/// `notification.enabled.channels`: log, and sink.
fn notified(value: &str) -> Result<(bool, bool), String> {
    let (mut log, mut sink) = (false, false);
    for part in value.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        match part {
            "log" => log = true,
            "sink" => sink = true,
            "jmx" => return Err("jmx belongs to a JVM: `sink` and `log` are served, /metrics has the progress".into()),
            _ => return Err(format!("{part} is none of sink, log")),
        }
    }
    Ok((log, sink))
}

fn file(value: &str) -> Result<String, String> {
    let path = value.trim();
    if path.is_empty() || path.contains('\0') { Err("a file's name".into()) } else { Ok(path.to_owned()) }
}

fn number(value: &str, min: u32, max: u32) -> Result<u32, String> {
    let n = value.trim().parse::<u32>().ok().filter(|n| (min..=max).contains(n));
    n.ok_or_else(|| format!("a number from {min} to {max}"))
}

/// As Debezium's numbers of 64 bits.
fn milliseconds(value: &str) -> Result<u64, String> {
    let ms = value.trim().parse::<i64>().ok().and_then(|ms| u64::try_from(ms).ok());
    ms.ok_or_else(|| "milliseconds, 0 = never".to_owned())
}

/// 0 = never.
fn interval(value: &str) -> Result<u64, String> {
    let ms =
        value.trim().parse::<u64>().ok().filter(|ms| *ms <= INTERVAL_MS_MAX && (*ms == 0 || *ms >= INTERVAL_MS_MIN));
    ms.ok_or_else(|| format!("0, or milliseconds from {INTERVAL_MS_MIN} to {INTERVAL_MS_MAX}"))
}

fn legal_topic(value: &str) -> Result<(), String> {
    let ok = !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if ok { Ok(()) } else { Err("letters, digits, `.`, `_` and `-`".into()) }
}

fn operations(value: &str) -> Result<Vec<char>, String> {
    let mut out = Vec::new();
    for part in value.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        match part {
            "none" => {}
            "c" | "u" | "d" | "t" | "r" => out.extend(part.chars()),
            _ => return Err("a list of c, u, d, t, r, or none".into()),
        }
    }
    Ok(out)
}

/// `schema.table:column,column;table2:column`.
fn keys(value: &str) -> Result<Vec<(Pattern, Vec<String>)>, String> {
    let mut out = Vec::new();
    for part in value.split(';').map(str::trim).filter(|p| !p.is_empty()) {
        let (tables, columns) = part.rsplit_once(':').ok_or("schema.table:column,column and ; between tables")?;
        let columns: Vec<String> = columns.split(',').map(|c| c.trim().to_owned()).filter(|c| !c.is_empty()).collect();
        if columns.is_empty() {
            return Err(format!("no column is named for {tables}"));
        }
        out.push((Pattern::parse(tables)?, columns));
    }
    Ok(out)
}

fn mask(key: &str) -> Result<Mask, String> {
    let unknown = || {
        let near = KNOWN.iter().min_by_key(|k| distance(k, key)).filter(|k| distance(k, key) <= key.len() / 2);
        let near = near.map(|k| format!("; did you mean `{k}`?")).unwrap_or_default();
        format!("not a property that is served here{near}")
    };
    let number = |text: &str| {
        let n = text.parse::<u32>().ok().filter(|n| *n <= MASK_MAX);
        n.ok_or_else(|| format!("a number of characters from 0 to {MASK_MAX} stands in the name"))
    };
    if let Some(n) = key.strip_prefix("column.mask.with.").and_then(|k| k.strip_suffix(".chars")) {
        return Ok(Mask::Stars(number(n)?));
    }
    if let Some(n) = key.strip_prefix("column.truncate.to.").and_then(|k| k.strip_suffix(".chars")) {
        return Ok(Mask::Truncate(number(n)?));
    }
    let rest = key.strip_prefix("column.mask.hash.").ok_or_else(unknown)?;
    let (v2, rest) = rest.strip_prefix("v2.").map_or((false, rest), |r| (true, r));
    let (algorithm, salt) = rest.split_once(".with.salt.").ok_or_else(unknown)?;
    Mask::hash(algorithm, salt, v2)
        .ok_or_else(|| format!("`{algorithm}` is not one of SHA-224, SHA-256, SHA-384, SHA-512"))
}

/// Edits from one word to another, for suggestions.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut left = i + 1;
        let mut diagonal = i;
        for (j, y) in b.bytes().enumerate() {
            let up = row[j + 1];
            let next = (diagonal + usize::from(x != y)).min(up + 1).min(left + 1);
            row[j] = left;
            diagonal = up;
            left = next;
        }
        row[b.len()] = left;
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn errors(given: &[(&str, &str)]) -> Vec<String> {
        Properties::parse(given.iter().copied()).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn properties_mean_what_debezium_means() {
        let p = Properties::parse([
            ("decimal.handling.mode", "string"),
            ("time.precision.mode", "isostring"),
            ("schemas.enable", "true"),
            ("tombstones.on.delete", "false"),
            ("provide.transaction.metadata", "true"),
            ("skipped.operations", "t, u"),
            ("message.key.columns", "public.chosen:b,a; (.*).orders:id"),
            ("column.mask.with.5.chars", "public.t.secret"),
            ("column.mask.hash.v2.SHA-256.with.salt.CzQMA0cB5K", "public.t.other"),
        ])
        .unwrap();
        assert_eq!((p.options.form.decimal, p.options.form.time), (DecimalMode::String, TimeMode::IsoString));
        assert!(p.options.key_schema && p.options.value_schema && !p.options.tombstones);
        assert_eq!(p.transaction_topic.as_deref(), Some("transaction"));
        assert_eq!(p.rules.skipped, ['t', 'u']);
        assert_eq!(p.rules.keys.len(), 2);
        assert_eq!(p.rules.masks.len(), 2);
        assert_eq!(Properties::parse([]).unwrap().transaction_topic, None);
        let defects = |given: &[(&'static str, &'static str)]| {
            let options = Properties::parse(given.iter().copied()).unwrap().options;
            (options.defects, options.key_defaults, options.value_defaults, options.fill_unchanged)
        };
        assert_eq!(defects(&[]), (false, false, false, true));
        assert_eq!(defects(&[("compat.defects", "true")]), (true, true, true, false));
        let kept = [("compat.defects", "true"), ("value.converter.replace.null.with.default", "false")];
        assert_eq!(defects(&kept), (true, true, false, false));
        let class = "io.debezium.processors.reselect.ReselectColumnsPostProcessor";
        let again = [("compat.defects", "true"), ("post.processors", "again"), ("again.type", class)];
        assert_eq!(defects(&again), (true, true, true, true), "filled for whom it is asked again there");
        assert_eq!(defects(&[("replace.null.with.default", "true")]), (false, true, true, true));
        let beats =
            Properties::parse([("heartbeat.interval.ms", "1000"), ("heartbeat.action.query", "SELECT 1")]).unwrap();
        let heartbeat = Heartbeat { every_ms: 1000, topic_prefix: "__debezium-heartbeat".into() };
        assert_eq!((beats.heartbeat, beats.heartbeat_query.as_deref()), (Some(heartbeat), Some("SELECT 1")));
        assert_eq!(Properties::parse([("heartbeat.interval.ms", "0")]).unwrap().heartbeat, None);
        assert_eq!(errors(&[("heartbeat.action.query", "SELECT 1")]).len(), 1);
        assert_eq!(errors(&[("heartbeat.interval.ms", "5")]).len(), 1);
        let given = [
            ("signal.data.collection", "public.signals"),
            ("signal.enabled.channels", "kafka"),
            ("incremental.snapshot.chunk.size", "7"),
            ("snapshot.max.threads", "3"),
        ];
        let signals =
            Signals { table: None, kafka: Some(None), file: None, chunk_rows: 7, parallel: 3, readers: Some(3) };
        assert_eq!(Properties::parse(given).unwrap().signals, signals);
        let guardrail = |given: &[(&'static str, &'static str)]| {
            let reading = Properties::parse(given.iter().copied()).unwrap().reading;
            reading.guardrail.map(|g| (g.tables_max, g.fails))
        };
        let most = ("guardrail.collections.max", "3");
        assert_eq!(guardrail(&[("guardrail.collections.limit.action", "fail")]), None, "0 is none");
        assert_eq!(guardrail(&[most]), Some((3, false)));
        assert_eq!(guardrail(&[most, ("guardrail.collections.limit.action", "FAIL")]), Some((3, true)));
        assert_eq!(
            errors(&[("guardrail.collections.max", "-1"), ("guardrail.collections.limit.action", "x")]).len(),
            2
        );
        let file =
            |given: &[(&'static str, &'static str)]| Properties::parse(given.iter().copied()).unwrap().signals.file;
        let of = |path: &str, every_ms| Some(SignalFile { path: path.into(), every_ms });
        assert_eq!(file(&[("signal.file", "a.txt"), ("signal.poll.interval.ms", "7")]), None, "the channel is off");
        assert_eq!(file(&[("signal.enabled.channels", "source, file")]), of("file-signals.txt", 5000));
        let named = [("signal.enabled.channels", "file"), ("signal.file", "a.txt"), ("signal.poll.interval.ms", "7")];
        assert_eq!(file(&named), of("a.txt", 7));
        assert_eq!(errors(&[("signal.file", " "), ("signal.poll.interval.ms", "0")]).len(), 2);
        let told = |given: &[(&'static str, &'static str)]| {
            let of = Properties::parse(given.iter().copied()).unwrap().notifications;
            (of.log, of.topic)
        };
        let named = ("notification.sink.topic.name", "told");
        assert_eq!(told(&[("notification.enabled.channels", "log, sink"), named]), (true, Some("told".into())));
        assert_eq!(told(&[("notification.enabled.channels", "log"), named]), (true, None), "the channel is off");
        assert_eq!(told(&[named]), (false, None));
        let alone = errors(&[("notification.enabled.channels", "sink")]);
        assert_eq!(alone, ["`notification.sink.topic.name`: must be given for the channel `sink`"]);
        assert!(errors(&[("notification.enabled.channels", "sink,jmx"), named])[0].contains("JVM"));
        assert_eq!(errors(&[("signal.enabled.channels", "source,jmx"), ("snapshot.max.threads", "0")]).len(), 2);
    }

    #[test]
    fn what_is_not_taken_says_why() {
        let all = errors(&[
            ("decimal.handling.mode", "exact"),
            ("colum.exclude.list", "a"),
            ("column.include.list", "("),
            ("column.mask.hash.MD4.with.salt.x", "a"),
            ("money.fraction.digits", "99"),
            ("message.key.columns", "public.t"),
        ]);
        assert_eq!(all.len(), 6, "{all:?}");
        assert!(all.iter().any(|e| e == "`decimal.handling.mode`: one of precise, double, string"), "{all:?}");
        assert!(all.iter().any(|e| e.contains("did you mean `column.exclude.list`?")), "{all:?}");
        let both = errors(&[("column.include.list", "a"), ("column.exclude.list", "b")]);
        assert_eq!(both.len(), 1, "{both:?}");
    }
}
