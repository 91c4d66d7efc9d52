//! Pure. JDBC sink connectors → a sink. Debezium's words; those of Confluent's and Aiven's classes are turned into them.

use super::naming::{Naming, Router, whole};
use super::{Given, Wrong, url_part};
use crate::pipeline::model::{Component, Sink, TableOption};
use crate::pipeline::secret::has_reference;
use catchwater_deliver::Columns;
use catchwater_deliver::park::NO_LIMIT;
use catchwater_deliver::worker::{DeadLetters, LogRefused};
use catchwater_record::TopicName;
use std::collections::{BTreeMap, BTreeSet};

/// `errors.tolerance=all` tolerates however many.
const PARK_MAX: (u32, u32) = (NO_LIMIT, NO_LIMIT);
/// Longest name of a topic. Source: Kafka, `Topic.MAX_NAME_LENGTH`.
const TOPIC_NAME_MAX: usize = 249;

pub(super) fn jdbc(mut given: Given<'_>) -> Result<Sink, Vec<Wrong>> {
    let debezium = given.class == super::Class::DebeziumJdbc;
    let (user, key_mode, key_fields) = match debezium {
        true => ("connection.username", "primary.key.mode", "primary.key.fields"),
        false => ("connection.user", "pk.mode", "pk.fields"),
    };
    let url = url(&mut given, user);
    let (from, expression) = topics(&mut given);
    let mode = match given.word("insert.mode", &["insert", "upsert", "update"]) {
        "upsert" => "upsert",
        "insert" => "insert_once",
        "" => "upsert",
        other => {
            given.refuse("insert.mode", format!("Catchwater has no {other}; it knows upsert and insert"));
            "upsert"
        }
    };
    let deletes = given.flag("delete.enabled");
    let key = key(&mut given, (key_mode, key_fields), deletes);
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
    let routers = transforms(&mut given);
    let format_key = match debezium {
        true if given.is_given("collection.name.format") => "collection.name.format",
        _ => "table.name.format",
    };
    let naming = Naming { format: given.get(format_key).unwrap_or_default(), flat: debezium, routers };
    let (other_columns, by_topic) = columns(&mut given, debezium, key);
    let of_topic = |t: &String| by_topic.get(t).unwrap_or(&other_columns).clone();
    let mut tables: BTreeMap<String, TableOption> =
        by_topic.keys().map(|t| (t.clone(), TableOption { name: None, columns: of_topic(t) })).collect();
    let mut schema: Option<String> = None;
    // What an expression will fit is not known yet: two tables stand for all.
    let probes = from.iter().flat_map(|f| ["a.a", "b.b"].map(|t| format!("{f}.{t}"))).collect();
    for topic in if expression.is_some() { &probes } else { &from } {
        match naming.table(topic) {
            Ok((in_schema, name)) => {
                let wanted = in_schema.unwrap_or_else(|| "public".to_owned());
                if *schema.get_or_insert_with(|| wanted.clone()) != wanted {
                    given.refuse(format_key, "Catchwater writes all tables of a sink into one schema");
                }
                if expression.is_none() {
                    tables.insert(topic.clone(), TableOption { name: Some(name), columns: of_topic(topic) });
                }
            }
            Err(why) => given.refuse(format_key, why),
        }
    }
    let naming = expression.is_some().then_some(naming);
    let tolerates = given.word("errors.tolerance", &["none", "all"]) == "all";
    let dead_letters = dead_letters(&mut given, &from, expression.as_deref());
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
            taken: None,
        },
        from,
        topics: expression,
        naming,
        other_columns,
        tables,
        // Debezium's batch is a bound on what one transaction takes; ours are cut at the source's transactions anyway.
        batch_rows: batch_rows.map(|n| n.clamp(500, 1_000_000)),
        batch_bytes: None,
        linger_ms: None,
        lanes: None,
        mode: mode.to_owned(),
        park: tolerates.then_some(PARK_MAX),
        dead_letters,
        deletes,
        truncates,
        additive,
    };
    given.done(sink)
}

/// Where refused rows go, and who is told.
fn dead_letters(given: &mut Given<'_>, topics: &[String], expression: Option<&str>) -> DeadLetters {
    const TOPIC: &str = "errors.deadletterqueue.topic.name";
    let topic = given.get(TOPIC);
    if let Some(name) = &topic {
        // Connect's own rule, and its sentence.
        let is_read = match expression {
            None => topics.contains(name),
            Some(expression) => whole(expression).is_ok_and(|e| e.is_match(name)),
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if is_read {
            let (of, which) = match expression {
                None => (
                    "topics",
                    format!("included in the list of topics ('topics={topics:?}') consumed by the connector"),
                ),
                Some(e) => (
                    "topics.regex",
                    format!("included in the regex matched topics ('topics.regex={e}') consumed by the connector"),
                ),
            };
            let message = format!("The DLQ topic '{name}' may not be {which}");
            given.wrong.push(Wrong { key: of.into(), message });
        } else if name.len() > TOPIC_NAME_MAX || !name.chars().all(legal) || name.starts_with("__") {
            given.refuse(TOPIC, "a topic's name has letters, digits, '.', '_', '-', and does not begin with '__'");
        }
    }
    let log = match (given.flag("errors.log.enable"), given.flag("errors.log.include.messages")) {
        (false, _) => LogRefused::Never,
        (true, false) => LogRefused::Why,
        (true, true) => LogRefused::WhyAndWhere,
    };
    DeadLetters {
        // Without a topic of its own the rows are in ours, and so are their headers.
        context: topic.is_none() || given.flag("errors.deadletterqueue.context.headers.enable"),
        topic: topic.map(TopicName::from),
        connector: given.get("name"),
        log,
    }
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
    let mut password = given.get("connection.password");
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        match key {
            // As the driver does it: what stands in the URL holds.
            "user" => login = Some(decoded(value)),
            "password" => password = Some(decoded(value)),
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

/// A parameter of a JDBC URL; a reference stays as it is.
fn decoded(value: &str) -> String {
    if has_reference(value) { value.to_owned() } else { crate::http::unescape(value, true) }
}

/// Topics by name; or the one source whose topics an expression means, and the expression.
fn topics(given: &mut Given<'_>) -> (Vec<String>, Option<String>) {
    let topics = given.list("topics");
    let expression = given.get("topics.regex").filter(|_| given.is_given("topics.regex"));
    if topics.is_empty() != expression.is_some() {
        // Connect says it of both properties.
        let message = match topics.is_empty() {
            true => "Must configure one of topics or topics.regex",
            false => "topics and topics.regex are mutually exclusive options, but both are set.",
        };
        for key in ["topics", "topics.regex"] {
            given.wrong.push(Wrong { key: key.into(), message: message.into() });
        }
        return (topics, None);
    }
    if let Some(expression) = expression {
        if let Err(why) = whole(&expression) {
            given.refuse("topics.regex", why);
        }
        let Some(prefix) = prefix_of(&expression) else {
            let why = "Catchwater reads topics of one source per sink: begin it with the prefix, as in inv\\..*";
            given.refuse("topics.regex", why);
            return (Vec::new(), None);
        };
        return (vec![prefix], Some(expression));
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
    (topics, None)
}

/// The first word of every topic that an expression fits: it begins with it and a dot.
fn prefix_of(expression: &str) -> Option<String> {
    let end = expression.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-')))?;
    let rest = &expression[end..];
    let dot = rest.strip_prefix("\\.").or_else(|| rest.strip_prefix("[.]")).or_else(|| rest.strip_prefix('.'))?;
    // `inv.*`, `inv.+`: a longer prefix would fit, too. `a\.b|c`: so would another word.
    let is_open = dot.starts_with(['*', '+', '?', '{']) || depth_zero_bar(expression);
    (end > 0 && !is_open).then(|| expression[..end].to_owned())
}

/// Alternatives that stand in no group.
fn depth_zero_bar(expression: &str) -> bool {
    let mut depth = 0_i32;
    let mut chars = expression.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '|' if depth == 0 => return true,
            _ => {}
        }
    }
    false
}

/// Sinks understand Debezium's envelope by themselves, so the transform that opens it changes nothing; the one that renames
/// topics is part of a table's name.
fn transforms(given: &mut Given<'_>) -> Vec<Router> {
    let mut routers = Vec::new();
    for name in given.list("transforms") {
        let option = |given: &Given<'_>, key: &str| given.config.get(&format!("transforms.{name}.{key}")).cloned();
        let class = option(given, "type").unwrap_or_default();
        let known: &[&str] = match class.as_str() {
            "io.debezium.transforms.ExtractNewRecordState" => {
                &["drop.tombstones", "delete.handling.mode", "delete.tombstone.handling.mode"]
            }
            "org.apache.kafka.connect.transforms.RegexRouter" => {
                match (option(given, "regex"), option(given, "replacement")) {
                    (Some(regex), Some(replacement)) => match Router::new(&regex, &replacement) {
                        Ok(router) => routers.push(router),
                        Err(why) => given.refuse(&format!("transforms.{name}.regex"), why),
                    },
                    (None, _) => given.refuse(&format!("transforms.{name}.regex"), "A value is required"),
                    (_, None) => given.refuse(&format!("transforms.{name}.replacement"), "A value is required"),
                }
                &["regex", "replacement"]
            }
            _ => {
                given.refuse("transforms", format!("`{name}`: Catchwater has no {class}"));
                continue;
            }
        };
        let options = format!("transforms.{name}.");
        let other = given
            .config
            .keys()
            .filter_map(|k| Some((k, k.strip_prefix(&options)?)))
            .find(|(_, option)| *option != "type" && !known.contains(option))
            .map(|(k, _)| k.clone());
        if let Some(k) = other {
            given.refuse("transforms", format!("Catchwater has no `{k}`"));
        }
    }
    routers
}

/// What the key has to be. The fields of a record's key are in its value, too: a row found by those is found by the key.
fn key(given: &mut Given<'_>, (mode, fields): (&str, &str), deletes: bool) -> Option<BTreeSet<String>> {
    let named: BTreeSet<String> = given.list(fields).into_iter().collect();
    match given.word(mode, &["none", "kafka", "record_key", "record_value"]) {
        "record_key" | "" => {}
        "record_value" if deletes => {
            given.refuse("delete.enabled", format!("a deletion has no value to find its row by: {mode} = record_key"));
        }
        "record_value" if named.is_empty() => {
            given.refuse(fields, "Catchwater writes by the record's key: name its columns here");
        }
        "record_value" => {}
        _ => given.refuse(mode, "Catchwater writes by the record's key: record_key, or record_value with its columns"),
    }
    (!named.is_empty()).then_some(named)
}

/// Fields to take or to leave, and whether names are written without quotes. Key columns are always written, as there.
fn columns(
    given: &mut Given<'_>,
    debezium: bool,
    key: Option<BTreeSet<String>>,
) -> (Columns, BTreeMap<String, Columns>) {
    let (keep_key, drop_key) = match debezium {
        true => ("field.include.list", Some("field.exclude.list")),
        false => ("fields.whitelist", None),
    };
    let fold = match debezium {
        true => !given.flag("quote.identifiers"),
        false => given.word("quote.sql.identifiers", &["always", "never"]) == "never",
    };
    let drop = drop_key.map(|k| given.list(k)).unwrap_or_default();
    // With both, the list of what is left out counts. Source: Debezium 3.6, FieldFilterFactory.
    let keep = if drop.is_empty() { given.list(keep_key) } else { Vec::new() };
    // `field`, or `topic:field`.
    let of = |entries: &[String], topic: Option<&str>| -> BTreeSet<String> {
        let fits = |e: &String| match e.split_once(':') {
            Some((t, field)) => (Some(t) == topic).then(|| field.to_owned()),
            None => Some(e.clone()),
        };
        entries.iter().filter_map(fits).collect()
    };
    let made = |topic: Option<&str>| Columns {
        keep: (!keep.is_empty()).then(|| of(&keep, topic)),
        drop: of(&drop, topic),
        lenient: true,
        fold,
        key: key.clone(),
        ..Columns::default()
    };
    let topics = keep.iter().chain(&drop).filter_map(|e| Some(e.split_once(':')?.0.to_owned()));
    (made(None), topics.map(|t| (t.clone(), made(Some(&t)))).collect())
}
