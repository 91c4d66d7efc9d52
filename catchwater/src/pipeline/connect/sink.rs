//! Pure. JDBC sink connectors → a sink. Debezium's words; those of Confluent's and Aiven's classes are turned into them.

use super::{Given, Wrong, url_part};
use crate::pipeline::model::{Component, Sink, TableOption};
use std::collections::BTreeMap;

/// Rows refused among the last ones, above which `errors.tolerance=all` does not tolerate them.
const PARK_MAX: (u32, u32) = (25, 1000);

pub(super) fn jdbc(mut given: Given<'_>) -> Result<Sink, Vec<Wrong>> {
    let debezium = given.class == super::Class::DebeziumJdbc;
    let (user, key_mode, key_fields) = match debezium {
        true => ("connection.username", "primary.key.mode", "primary.key.fields"),
        false => ("connection.user", "pk.mode", "pk.fields"),
    };
    let url = url(&mut given, user);
    let topics = topics(&mut given);
    let mode = match given.word("insert.mode", &["insert", "upsert", "update"]) {
        "upsert" => "upsert",
        "insert" => "insert_once",
        "" => "upsert",
        other => {
            given.refuse("insert.mode", format!("Catchwater has no {other}; it knows upsert and insert"));
            "upsert"
        }
    };
    if given.word(key_mode, &["none", "kafka", "record_key", "record_value"]) != "record_key" {
        given.refuse(key_mode, "Catchwater writes by the record's key: record_key");
    }
    if given.is_given(key_fields) && given.list(key_fields).len() > 16 {
        given.refuse(key_fields, "at most 16 columns");
    }
    let deletes = given.flag("delete.enabled");
    let (truncates, additive) = match debezium {
        true => (given.flag("truncate.enabled"), given.word("schema.evolution", &["none", "basic"]) == "basic"),
        false => {
            let (create, evolve) = (given.flag("auto.create"), given.flag("auto.evolve"));
            if create != evolve {
                given.refuse("auto.evolve", "Catchwater makes tables and columns both, or neither: as auto.create");
            }
            (false, create)
        }
    };
    transforms(&mut given);
    let format_key = match debezium {
        true if given.is_given("collection.name.format") => "collection.name.format",
        _ => "table.name.format",
    };
    let format = given.get(format_key).unwrap_or_default();
    let mut tables = BTreeMap::new();
    let mut schema: Option<String> = None;
    for topic in &topics {
        match table_name(&format, topic, debezium) {
            Ok((in_schema, name)) => {
                let wanted = in_schema.unwrap_or_else(|| "public".to_owned());
                if *schema.get_or_insert_with(|| wanted.clone()) != wanted {
                    given.refuse(format_key, "Catchwater writes all tables of a sink into one schema");
                }
                tables.insert(topic.clone(), TableOption { name: Some(name) });
            }
            Err(why) => given.refuse(format_key, why),
        }
    }
    let tolerates = given.word("errors.tolerance", &["none", "all"]) == "all";
    let batch_rows = given.get("batch.size").and_then(|t| t.parse::<u64>().ok()).filter(|n| *n > 0);
    let sink = Sink {
        component: Component::Postgres {
            url,
            schema,
            slot: None,
            publication: None,
            streaming: false,
            binary: false,
            failover: false,
        },
        from: topics,
        tables,
        // Debezium's batch is a bound on what one transaction takes; ours are cut at the source's transactions anyway.
        batch_rows: batch_rows.map(|n| n.clamp(500, 1_000_000)),
        batch_bytes: None,
        linger_ms: None,
        lanes: None,
        mode: mode.to_owned(),
        park: tolerates.then_some(PARK_MAX),
        deletes,
        truncates,
        additive,
    };
    given.done(sink)
}

/// `jdbc:postgresql://host:5432/db?…` and the login → our URL.
fn url(given: &mut Given<'_>, user: &str) -> String {
    let text = given.required("connection.url");
    let Some(rest) = text.strip_prefix("jdbc:postgresql://") else {
        if !text.is_empty() {
            given.refuse("connection.url", "Catchwater writes to PostgreSQL: jdbc:postgresql://host:port/database");
        }
        return String::new();
    };
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (mut login, mut kept) = (given.get(user), Vec::new());
    let password = given.get("connection.password");
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        match key {
            "user" => login = Some(value.to_owned()),
            "password" => {
                given.refuse("connection.url", "give the password as connection.password: there it is kept apart")
            }
            "sslmode" | "sslcert" | "sslkey" | "sslrootcert" => kept.push(pair.to_owned()),
            "ssl" if value != "false" => kept.push("sslmode=verify-full".to_owned()),
            "connectTimeout" => kept.push(format!("connect_timeout={value}")),
            "currentSchema" => {
                given.refuse("connection.url", "give the schema in the table name format, not as currentSchema")
            }
            // Tuning of the Java driver.
            _ => {}
        }
    }
    let Some(login) = login else {
        given.refuse(user, "A value is required");
        return String::new();
    };
    let password = password.map(|p| format!(":{}", url_part(&p))).unwrap_or_default();
    let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
    format!("postgres://{}{password}@{place}{query}", url_part(&login))
}

fn topics(given: &mut Given<'_>) -> Vec<String> {
    let topics = given.list("topics");
    match (topics.is_empty(), given.is_given("topics.regex")) {
        (true, false) | (false, true) => {
            // Connect says it of both properties.
            let message = match topics.is_empty() {
                true => "Must configure one of topics or topics.regex",
                false => "topics and topics.regex are mutually exclusive options, but both are set.",
            };
            for key in ["topics", "topics.regex"] {
                given.wrong.push(Wrong { key: key.into(), message: message.into() });
            }
        }
        (true, true) => given.refuse("topics.regex", "Catchwater wants the topics by name, in `topics`"),
        (false, false) => {}
    }
    for topic in &topics {
        if topic.split('.').count() != 3 || topic.split('.').any(str::is_empty) {
            given.refuse("topics", format!("`{topic}` is no captured table's topic: prefix.schema.table"));
        }
    }
    let first = |t: &String| t.split('.').next().unwrap_or_default().to_owned();
    if topics.iter().any(|t| first(t) != topics.first().map(first).unwrap_or_default()) {
        given.refuse("topics", "Catchwater reads topics of one source per sink: make a connector for each prefix");
    }
    topics
}

/// Sinks understand Debezium's envelope by themselves, so the transform that opens it changes nothing.
fn transforms(given: &mut Given<'_>) {
    for name in given.list("transforms") {
        let key = format!("transforms.{name}.type");
        let class = given.config.get(&key).cloned().unwrap_or_default();
        if class != "io.debezium.transforms.ExtractNewRecordState" {
            given.refuse("transforms", format!("`{name}`: Catchwater has no {class}"));
        }
        let options = format!("transforms.{name}.");
        let mut more: Vec<String> =
            given.config.keys().filter(|k| k.starts_with(&options) && **k != key).cloned().collect();
        more.retain(|k| !k.ends_with(".drop.tombstones") && !k.ends_with(".delete.handling.mode"));
        if let Some(k) = more.first() {
            given.refuse("transforms", format!("Catchwater has no `{k}`"));
        }
    }
}

/// Schema and name of the table that a topic `prefix.schema.table` goes to.
fn table_name(format: &str, topic: &str, debezium: bool) -> Result<(Option<String>, String), String> {
    let mut parts = topic.splitn(3, '.');
    let (_, schema, table) = (parts.next(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut out = String::new();
    let mut rest = format;
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at]);
        let end = rest[at..].find('}').ok_or("`${` without `}`")?;
        match &rest[at + 2..at + end] {
            // Debezium's strategy makes one word of the topic; the other classes read it as a qualified name.
            "topic" if debezium => out.push_str(&topic.replace('.', "_")),
            "topic" => out.push_str(&format!("{schema}.{table}")),
            "source.schema" => out.push_str(schema),
            "source.table" => out.push_str(table),
            other => {
                return Err(format!("Catchwater has no ${{{other}}}; it knows topic, source.schema, source.table"));
            }
        }
        rest = &rest[at + end + 1..];
    }
    out.push_str(rest);
    match out.split('.').collect::<Vec<_>>().as_slice() {
        [name] if !name.is_empty() => Ok((None, (*name).to_owned())),
        [schema, name] if !schema.is_empty() && !name.is_empty() => {
            Ok((Some((*schema).to_owned()), (*name).to_owned()))
        }
        _ => Err(format!("`{out}` is no table name: NAME or SCHEMA.NAME")),
    }
}
