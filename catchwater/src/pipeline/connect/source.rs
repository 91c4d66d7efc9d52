//! Pure. Debezium's PostgreSQL connector → a source.

use super::{Given, Verdict, Wrong, url_part};
use crate::pipeline::model::{Component, Source};
use catchwater_capture::properties::Properties;
use std::collections::BTreeMap;

/// Longest topic prefix, bytes.
const PREFIX_MAX: usize = 63;

/// Properties that come in families, by their beginnings.
const MASKS: [&str; 2] = ["column.mask.", "column.truncate."];
/// Of Connect's converter, which the records are made for.
const SCHEMAS: [&str; 2] = ["key.converter.schemas.enable", "value.converter.schemas.enable"];

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
    let tables = tables(&mut given);
    let snapshot = match given.word(
        "snapshot.mode",
        &["initial", "always", "no_data", "never", "when_needed", "initial_only", "configuration_based", "custom"],
    ) {
        "initial" | "when_needed" => true,
        "no_data" | "never" => false,
        "" => true,
        other => {
            given.refuse("snapshot.mode", format!("Catchwater has no {other}; it knows initial, no_data, when_needed"));
            true
        }
    };
    if given.word("publication.autocreate.mode", &["all_tables", "disabled", "filtered", "no_tables"]) == "no_tables" {
        given.refuse("publication.autocreate.mode", "Catchwater knows all_tables, filtered and disabled");
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
    };
    let source = Source { component, tables, snapshot, debezium, fill_unchanged: true };
    given.done((prefix, source))
}

fn url(given: &mut Given<'_>) -> String {
    let (host, user, database) =
        (given.required("database.hostname"), given.required("database.user"), given.required("database.dbname"));
    let port = given.get("database.port").unwrap_or_default();
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

/// Debezium matches `schema.table` with regular expressions, a source takes names and whole schemas: what means the same
/// is taken, the rest refused.
fn tables(given: &mut Given<'_>) -> Vec<String> {
    let (tables, schemas) = (given.list("table.include.list"), given.list("schema.include.list"));
    let mut out = Vec::new();
    for pattern in &tables {
        match plain(pattern) {
            Some(name) if name.ends_with(".*") || (name.contains('.') && !name.contains('*')) => out.push(name),
            _ => given.refuse(
                "table.include.list",
                format!("`{pattern}`: Catchwater takes `schema.table` and `schema.*`, not regular expressions"),
            ),
        }
    }
    for pattern in &schemas {
        match plain(pattern) {
            Some(name) if !name.contains(['*', '.']) && tables.is_empty() => out.push(format!("{name}.*")),
            // Both lists hold: a table must be in both.
            Some(name) if !name.contains(['*', '.']) => {}
            _ => given
                .refuse("schema.include.list", format!("`{pattern}`: Catchwater takes names, not regular expressions")),
        }
    }
    if !tables.is_empty() && !schemas.is_empty() {
        out.retain(|t| t.split('.').next().is_some_and(|s| schemas.iter().any(|n| n == s)));
    }
    if tables.is_empty() && schemas.is_empty() {
        given.refuse(
            "table.include.list",
            "Catchwater wants to be told: tables here, or schemas in schema.include.list",
        );
    }
    out
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
        if MASKS.iter().any(|m| key.starts_with(m)) {
            out.insert(key.clone(), value.clone());
        }
    }
    for key in SCHEMAS {
        let value = given.config.get(key).map_or("true", |v| v.trim());
        out.insert(key.to_owned(), value.to_owned());
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
