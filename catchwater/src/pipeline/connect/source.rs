//! Pure. Debezium's PostgreSQL connector → a source.

use super::{Given, Verdict, Wrong, url_part};
use crate::pipeline::model::{Component, Source};
use catchwater_capture::processors;
use catchwater_capture::properties::Properties;
use catchwater_capture::shape::Pattern;
use catchwater_capture::{SnapshotMode, TableLists};
use std::collections::BTreeMap;

/// Longest topic prefix, bytes.
const PREFIX_MAX: usize = 63;

/// Properties that come in families, by their beginnings.
const FAMILIES: [&str; 6] = [
    "column.mask.",
    "column.truncate.",
    "snapshot.select.statement.overrides.",
    "topic.creation.",
    "transforms.",
    "predicates.",
];
/// What the connector's list of properties lacks and Debezium reads all the same: those of a signal channel, of the naming
/// of topics and of a type; how the worker's producer compresses; and ours.
const UNLISTED: [&str; 14] = [
    "compat.defects",
    "key.converter",
    "key.converter.delegate.converter.type",
    "key.converter.delegate.converter.type.schemas.enable",
    "money.fraction.digits",
    "producer.override.compression.type",
    "signal.file",
    "signal.kafka.topic",
    "topic.delimiter",
    "topic.heartbeat.prefix",
    "topic.transaction",
    "value.converter",
    "value.converter.delegate.converter.type",
    "value.converter.delegate.converter.type.schemas.enable",
];
/// Ours: where the connector stood in Kafka Connect when it was taken over.
pub const OFFSET: &str = "catchwater.offset";
/// Of Connect's converter, which the records are made for; all of them are true by default.
const CONVERTERS: [&str; 4] = [
    "key.converter.replace.null.with.default",
    "key.converter.schemas.enable",
    "value.converter.replace.null.with.default",
    "value.converter.schemas.enable",
];

pub(super) fn postgres(mut given: Given<'_>) -> Result<(String, Source), Vec<Wrong>> {
    let prefix = given.required("topic.prefix");
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !prefix.is_empty() && (prefix.len() > PREFIX_MAX || !prefix.chars().all(legal)) {
        given.refuse("topic.prefix", format!("Catchwater takes letters, digits, '_' and '-', at most {PREFIX_MAX}"));
    }
    // Debezium's own default is a plugin that servers do not have without being given it.
    if given.is_given("plugin.name") && given.get("plugin.name").as_deref() != Some("pgoutput") {
        given.refuse("plugin.name", "Value must be one of pgoutput");
    }
    let url = url(&mut given);
    let mut tables = tables(&mut given);
    tables.extend(signal_table(&given, &tables));
    let snapshot = snapshot(&mut given);
    // Another one makes other bytes of each header.
    let class = given.get("header.converter").unwrap_or_default();
    if !class.is_empty() && class.rsplit('.').next() != Some("SimpleHeaderConverter") {
        given
            .refuse("header.converter", "Catchwater knows org.apache.kafka.connect.storage.SimpleHeaderConverter only");
    }
    if given.word("snapshot.locking.mode", &["none", "shared", "custom"]) == "custom" {
        given.refuse("snapshot.locking.mode", "Catchwater loads no classes; it takes no locks: none");
    }
    if given.word("publication.autocreate.mode", &["all_tables", "disabled", "filtered", "no_tables"]) == "no_tables" {
        given.refuse("publication.autocreate.mode", "Catchwater knows all_tables, filtered and disabled");
    }
    let taken = given.config.get(OFFSET).map(|t| t.trim().to_owned()).filter(|t| !t.is_empty());
    if let Some(text) = &taken
        && !serde_json::from_str::<serde_json::Value>(text).is_ok_and(|v| v.is_object())
    {
        given.refuse(OFFSET, "an offset of GET /connectors/NAME/offsets is a JSON object");
    }
    let snapshot = match (snapshot, &taken) {
        (SnapshotMode::InitialOnly, Some(_)) => {
            given.refuse("snapshot.mode", "initial_only of a connector whose rows were read there would do nothing");
            snapshot
        }
        (SnapshotMode::Always, Some(_)) => {
            given.refuse("snapshot.mode", "take the connector over with initial, and give it always then");
            snapshot
        }
        // The rows were read there.
        (SnapshotMode::Initial, Some(_)) => SnapshotMode::NoData,
        _ => snapshot,
    };
    if snapshot == SnapshotMode::Always && given.is_given("snapshot.select.statement.overrides") {
        given.refuse(
            "snapshot.select.statement.overrides",
            "Catchwater reads by a statement in the first snapshot only, not in those of snapshot.mode = always",
        );
    }
    let debezium = debezium(&mut given);
    let component = Component::Postgres {
        url,
        schema: None,
        slot: given.get("slot.name"),
        publication: given.get("publication.name"),
        streaming: false,
        binary: false,
        failover: given.flag("slot.failover"),
        taken: taken.clone(),
    };
    let source = Source { component, tables, snapshot, debezium, fill_unchanged: true };
    given.done((prefix, source))
}

/// When the tables are read, and whether changes follow.
fn snapshot(given: &mut Given<'_>) -> SnapshotMode {
    const MODES: [&str; 8] =
        ["initial", "always", "no_data", "never", "when_needed", "initial_only", "configuration_based", "custom"];
    match given.word("snapshot.mode", &MODES) {
        "initial" | "when_needed" | "" => SnapshotMode::Initial,
        // The name before Debezium 2.6.
        "no_data" | "never" => SnapshotMode::NoData,
        "always" => SnapshotMode::Always,
        "initial_only" => SnapshotMode::InitialOnly,
        "configuration_based" => {
            let key = |of: &str| format!("snapshot.mode.configuration.based.{of}");
            if !given.flag(&key("start.stream")) {
                let why = "a source that only reads is snapshot.mode = initial_only: true";
                given.refuse(&key("start.stream"), why);
            }
            // Debezium reads the tables at each start then, whether it has an offset or not.
            if given.flag(&key("snapshot.data")) { SnapshotMode::Always } else { SnapshotMode::NoData }
        }
        _ => {
            given.refuse(
                "snapshot.mode",
                "custom names a Java class, and Catchwater loads none; it knows initial, when_needed, always, initial_only, \
                 no_data and configuration_based",
            );
            SnapshotMode::Initial
        }
    }
}

fn url(given: &mut Given<'_>) -> String {
    let (host, user, database) =
        (given.required("database.hostname"), given.required("database.user"), given.required("database.dbname"));
    let port = given.get("database.port").unwrap_or_default();
    // The driver's that looks at no certificate, which is what these modes do anyway.
    let factory = given.get("database.sslfactory").unwrap_or_default();
    let verifies = given.get("database.sslmode").is_some_and(|mode| mode.starts_with("verify"));
    if !factory.is_empty() && (factory != "org.postgresql.ssl.NonValidatingFactory" || verifies) {
        let why = "Catchwater knows org.postgresql.ssl.NonValidatingFactory, and none with verify-ca or verify-full";
        given.refuse("database.sslfactory", why);
    }
    let password = given.get("database.password").map(|p| format!(":{}", url_part(&p))).unwrap_or_default();
    let place: Vec<String> = host.split(',').map(|h| format!("{}:{port}", h.trim())).collect();
    let mut url = format!("postgres://{}{password}@{}/{}", url_part(&user), place.join(","), url_part(&database));
    let mut between = '?';
    for (key, parameter) in [
        ("database.sslmode", "sslmode"),
        ("database.sslcert", "sslcert"),
        ("database.sslkey", "sslkey"),
        ("database.sslrootcert", "sslrootcert"),
    ] {
        if given.is_given(key) {
            let value = given.get(key).unwrap_or_default();
            url.push_str(&format!("{between}{parameter}={}", url_part(&value)));
            between = '&';
        }
    }
    url
}

/// Debezium's four lists. What is a plain name becomes one, so that a table which is not there is said; else they are lists
/// of regular expressions here, too. Without any, every table is meant.
fn tables(given: &mut Given<'_>) -> Vec<String> {
    for (include, exclude) in
        [("table.include.list", "table.exclude.list"), ("schema.include.list", "schema.exclude.list")]
    {
        if given.is_given(include) && given.is_given(exclude) {
            given.refuse(exclude, format!("\"{include}\" is already specified"));
        }
        for key in [include, exclude] {
            if given.is_given(key)
                && let Err(why) = Pattern::parse(&given.get(key).unwrap_or_default())
            {
                given.refuse(key, format!("{why}; look-around and back references are not known here"));
            }
        }
    }
    let is_given = |key: &str| given.is_given(key);
    if !is_given("table.exclude.list") && !is_given("schema.exclude.list") {
        let (tables, schemas) = (given.list("table.include.list"), given.list("schema.include.list"));
        if let Some(names) = names(&tables, &schemas) {
            return names;
        }
    }
    let list = |key: &str| given.get(key).filter(|_| given.is_given(key));
    // A schema's list is matched against the schema alone.
    let of_schemas = |list: String| {
        let parts = Pattern::parts(&list).into_iter().map(|p| format!("(?:{})\\..*", p.replace(',', "\\,")));
        parts.collect::<Vec<_>>().join(",")
    };
    let mut out = Vec::new();
    out.push(format!("/{}/", list("table.include.list").unwrap_or_else(|| ".*".to_owned())));
    out.extend(list("schema.include.list").map(|l| format!("&/{}/", of_schemas(l))));
    out.extend(list("table.exclude.list").map(|l| format!("-/{l}/")));
    out.extend(list("schema.exclude.list").map(|l| format!("-/{}/", of_schemas(l))));
    out
}

/// Debezium reads the signal table whether a list has it or not.
fn signal_table(given: &Given<'_>, tables: &[String]) -> Option<String> {
    let table = given.get("signal.data.collection")?;
    let (named, lists) = TableLists::parse(tables).ok()?;
    let schema = table.split_once('.').map(|(schema, _)| format!("{schema}.*"))?;
    let is_there = lists.take(&table) || named.iter().any(|n| **n == *table || **n == *schema);
    (!is_there).then_some(table)
}

/// The tables, if every entry of both lists is a name or a whole schema, and there is one.
fn names(tables: &[String], schemas: &[String]) -> Option<Vec<String>> {
    let schemas: Vec<String> =
        schemas.iter().map(|s| plain(s).filter(|n| !n.contains(['*', '.']))).collect::<Option<_>>()?;
    if tables.is_empty() {
        return (!schemas.is_empty()).then(|| schemas.iter().map(|s| format!("{s}.*")).collect());
    }
    let tables: Vec<String> = tables.iter().map(|t| plain(t).filter(|n| n.contains('.'))).collect::<Option<_>>()?;
    // Both lists hold: a table must be in both.
    let of = |t: &String| t.split('.').next().is_some_and(|s| schemas.iter().any(|n| n == s));
    Some(tables.into_iter().filter(|t| schemas.is_empty() || of(t)).collect())
}

/// A regular expression that is a name, perhaps with a whole schema behind it, as that: `public\.orders` and
/// `public.orders` → `public.orders`; `public.*`, `public\..*` → `public.*`.
fn plain(pattern: &str) -> Option<String> {
    let text = pattern.replace("\\.", ".");
    let (name, all) = match text.strip_suffix("..*").or_else(|| text.strip_suffix(".*")) {
        Some(schema) => (schema, true),
        None => (text.as_str(), false),
    };
    let legal = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | ' ' | '.');
    if name.is_empty() || !name.chars().all(legal) || (all && name.contains('.')) {
        return None;
    }
    Some(if all { format!("{name}.*") } else { name.to_owned() })
}

/// What capture honours, with Debezium's defaults where a pipeline file has others.
fn debezium(given: &mut Given<'_>) -> BTreeMap<String, String> {
    let mut out: BTreeMap<String, String> = BTreeMap::new();
    for d in given.class.definitions().iter().filter(|d| d.verdict == Verdict::Honoured) {
        if let Some(value) = given.get(d.name) {
            out.insert(d.name.to_owned(), value);
        }
    }
    for (key, value) in given.config {
        let list = given.config.get("post.processors").map(String::as_str);
        if FAMILIES.iter().any(|f| key.starts_with(f)) || processors::has(list.as_ref(), key) {
            out.insert(key.clone(), value.clone());
        }
    }
    for key in UNLISTED {
        if let Some(value) = given.config.get(key).map(|v| v.trim()).filter(|v| !v.is_empty()) {
            out.insert(key.to_owned(), value.to_owned());
        }
    }
    for key in CONVERTERS {
        let value = given.config.get(key).map_or("true", |v| v.trim());
        out.insert(key.to_owned(), value.to_owned());
    }
    for side in ["key", "value"] {
        let converter = format!("{side}.converter");
        let delegate = format!("{converter}.delegate.converter.type");
        // JSON is what a source writes.
        if out.get(&converter).is_some_and(|class| class.rsplit('.').next() == Some("JsonConverter")) {
            out.remove(&converter);
        }
        if out.contains_key(&delegate) {
            out.entry(format!("{delegate}.schemas.enable")).or_insert_with(|| "true".to_owned());
        }
    }
    // Asked for byte for byte: one that was given goes into Debezium's publication, its default does not.
    if !given.is_given("skipped.operations") && out.get("compat.defects").is_some_and(|v| v == "true") {
        out.remove("skipped.operations");
    }
    let parsed = Properties::parse(out.iter().map(|(k, v)| (k.as_str(), v.as_str())));
    for error in parsed.err().into_iter().flatten() {
        let why = match error.why.strip_prefix("one of ") {
            Some(words) => format!("Value must be one of {words}"),
            None => error.why,
        };
        given.refuse(&error.key, why);
    }
    out
}
