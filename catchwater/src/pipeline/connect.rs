//! Pure. Properties of a Kafka Connect connector → sources and sinks of a pipeline.
//!
//! ```text
//!  {"connector.class": …, "topic.prefix": "shop", …}
//!        │ definitions: which properties the class has, their defaults, and what we do with each
//!        ▼
//!  PostgresConnector → one source, named by topic.prefix
//!  JdbcSinkConnector → one sink; the source it reads is the first word of its topics, captured by another pipeline
//! ```
//! Every property of the class has a verdict: *honoured* (Debezium's meaning, `capture::Properties`), *translated*,
//! *ignored* (tuning, or always so here), or *default-only*: a value that would change what is captured or written is
//! refused. The class's defaults hold, not those of a pipeline file. A property that the class does not have means
//! nothing, as in Connect.

mod definitions;
mod naming;
mod sink;
mod source;

pub use definitions::{Class, Definition, Verdict};
pub use naming::{Naming, whole};
pub use source::OFFSET;

use super::model::{Sink, Source};
use std::collections::BTreeMap;

/// What somebody wants the connector to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Target {
    #[default]
    Running,
    /// Tasks are kept but do not run.
    Paused,
    /// There are no tasks; offsets may be changed.
    Stopped,
}

impl Target {
    pub const WORDS: [&'static str; 3] = ["RUNNING", "PAUSED", "STOPPED"];

    pub fn word(self) -> &'static str {
        Target::WORDS[self as usize]
    }
    pub fn parse(word: &str) -> Option<Target> {
        [Target::Running, Target::Paused, Target::Stopped].into_iter().find(|t| t.word() == word)
    }
}

/// The `connect` block of a pipeline: the properties as they were put.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Connector {
    pub target: Target,
    pub config: BTreeMap<String, String>,
}

/// A property that cannot be what it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrong {
    pub key: String,
    pub message: String,
}

impl Wrong {
    /// In Debezium's words.
    fn value(key: &str, why: impl std::fmt::Display) -> Wrong {
        Wrong { key: key.to_owned(), message: format!("The '{key}' value is invalid: {why}") }
    }
}

/// What a connector is here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Translated {
    /// Named by its topic prefix.
    Source(String, Box<Source>),
    Sink(Box<Sink>),
}

/// Longest name of a connector, bytes.
const NAME_MAX: usize = 128;

/// A connector's name becomes its pipeline's, a part of topic names and a folder of the secret store.
pub fn name_problem(name: &str) -> Option<String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.len() <= NAME_MAX && name.chars().all(legal) && name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    Some(format!(
        "a connector's name here has letters, digits, '.', '_', '-', at most {NAME_MAX}, a letter or digit first"
    ))
}

/// A reference, or a text to be percent-encoded: the part of a URL that a property becomes.
fn url_part(text: &str) -> String {
    if super::secret::has_reference(text) {
        return text.to_owned();
    }
    let mut out = String::new();
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

/// Why a property has its default only, where that is not plain.
fn reason(key: &str) -> Option<&'static str> {
    Some(match key {
        "slot.drop.on.stop" => {
            "what is written until the next start would be lost; drop the slot when the connector is gone"
        }
        "slot.stream.params" => "the options of the stream are its own",
        "guardrail.collections.max" => "name the tables",
        _ => return None,
    })
}

/// The properties of one class, with its defaults.
struct Given<'a> {
    class: Class,
    config: &'a BTreeMap<String, String>,
    wrong: Vec<Wrong>,
}

impl Given<'_> {
    /// The value given, if it is not blank; else the class's default.
    fn get(&self, key: &str) -> Option<String> {
        let given = self.config.get(key).map(|v| v.trim()).filter(|v| !v.is_empty());
        let default = || self.class.definition(key).and_then(|d| d.default.map(str::to_owned));
        given.map(str::to_owned).or_else(default)
    }
    fn is_given(&self, key: &str) -> bool {
        self.config.get(key).is_some_and(|v| !v.trim().is_empty())
    }
    fn required(&mut self, key: &str) -> String {
        self.get(key).unwrap_or_else(|| {
            self.wrong.push(Wrong::value(key, "A value is required"));
            String::new()
        })
    }
    /// Once for each property: the first fault is what a person mends first.
    fn refuse(&mut self, key: &str, why: impl std::fmt::Display) {
        if !self.wrong.iter().any(|w| w.key == key) {
            self.wrong.push(Wrong::value(key, why));
        }
    }
    fn flag(&mut self, key: &str) -> bool {
        match self.get(key).unwrap_or_default().to_ascii_lowercase().as_str() {
            "true" => true,
            "false" | "" => false,
            _ => {
                self.refuse(key, "Either 'true' or 'false' is expected");
                false
            }
        }
    }
    /// One of `words`, in any case.
    fn word(&mut self, key: &str, words: &[&'static str]) -> &'static str {
        let text = self.get(key).unwrap_or_default();
        match words.iter().find(|w| w.eq_ignore_ascii_case(&text)) {
            Some(w) => w,
            None => {
                self.refuse(key, format!("Value must be one of {}", words.join(", ")));
                ""
            }
        }
    }
    /// Parts of a comma-separated list.
    fn list(&self, key: &str) -> Vec<String> {
        let text = self.get(key).unwrap_or_default();
        text.split(',').map(str::trim).filter(|p| !p.is_empty()).map(str::to_owned).collect()
    }

    /// What no class may have otherwise than by default, what has the wrong type, and converters.
    fn common(&mut self) {
        for d in self.class.definitions() {
            let Some(value) = self.config.get(d.name).map(|v| v.trim()).filter(|v| !v.is_empty()) else { continue };
            if super::secret::has_reference(value) {
                continue;
            }
            if let Some(why) = d.wrong_type(value) {
                self.refuse(d.name, why);
            } else if d.verdict == Verdict::DefaultOnly && !d.is_default(value) {
                let only = d.default.filter(|v| !v.is_empty()).map_or("none".to_owned(), |v| format!("`{v}`"));
                let why = reason(d.name).map(|why| format!(": {why}")).unwrap_or_default();
                self.refuse(d.name, format!("Catchwater knows {only} only{why}"));
            }
        }
        if let Some(n) = self.config.get("tasks.max").and_then(|v| v.trim().parse::<i32>().ok()).filter(|n| *n < 1) {
            let message = format!("Invalid value {n} for configuration tasks.max: Value must be at least 1");
            self.wrong.push(Wrong { key: "tasks.max".into(), message });
        }
        if self.class == Class::DebeziumPostgres {
            self.bounds();
        }
        for key in ["key.converter", "value.converter"] {
            // A source says itself which it knows: of events of outbox tables there are others.
            if let Some(class) = self.get(key).filter(|_| self.class != Class::DebeziumPostgres)
                && class.rsplit('.').next() != Some("JsonConverter")
            {
                self.refuse(key, "records are Debezium's JSON here: org.apache.kafka.connect.json.JsonConverter");
            }
            // The converter's own: it makes other numbers.
            let format = format!("{key}.decimal.format");
            if self.get(&format).is_some_and(|f| !f.eq_ignore_ascii_case("BASE64")) {
                self.refuse(
                    &format,
                    "Catchwater knows `BASE64` only; decimal.handling.mode = string or double has readable numbers",
                );
            }
        }
    }

    /// What Debezium and Connect refuse of values that have no effect here, in their words: a mistake there is one here.
    fn bounds(&mut self) {
        let number = |key: &str| self.get(key).and_then(|v| v.parse::<i64>().ok());
        let mut wrong: Vec<(&str, &str)> = Vec::new();
        let positive = ["max.batch.size", "poll.interval.ms", "status.update.interval.ms", "snapshot.max.threads"];
        let least = [
            (positive.as_slice(), 1, "A positive, non-zero integer value is expected"),
            (&["snapshot.fetch.size", "incremental.snapshot.chunk.size"], 0, "An non-negative integer is expected"),
            (&["max.queue.size.in.bytes", "snapshot.delay.ms"], 0, "A non-negative long value is expected"),
            (&["max.queue.size"], 1, "A positive queue size is required"),
        ];
        for (keys, least, why) in least {
            wrong.extend(keys.iter().filter(|key| number(key).is_some_and(|n| n < least)).map(|key| (*key, why)));
        }
        if number("max.queue.size").zip(number("max.batch.size")).is_some_and(|(queue, batch)| queue <= batch) {
            wrong.push(("max.queue.size", "Must be larger than the maximum batch size"));
        }
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let is_slot = |slot: &String| slot.len() <= 63 && slot.chars().all(legal) || slot.contains("${");
        if self.get("slot.name").is_some_and(|slot| !is_slot(&slot)) {
            let why = "Valid replication slot name must contain only digits, lowercase characters and underscores with length <= 63";
            wrong.push(("slot.name", why));
        }
        for (key, why) in wrong {
            self.refuse(key, why);
        }
        for (key, words, any_case) in [
            ("errors.tolerance", "none, all", false),
            ("config.action.reload", "none, restart", false),
            ("exactly.once.support", "REQUIRED, REQUESTED", true),
            ("transaction.boundary", "INTERVAL, POLL, CONNECTOR", true),
        ] {
            let Some(value) = self.get(key).filter(|_| self.is_given(key)) else { continue };
            let fits = |word: &str| if any_case { word.eq_ignore_ascii_case(&value) } else { word == value };
            if !words.split(", ").any(fits) && !value.contains("${") {
                let case = if any_case { " (case insensitive)" } else { "" };
                let message =
                    format!("Invalid value {value} for configuration {key}: String must be one of{case}: {words}");
                self.wrong.push(Wrong { key: key.to_owned(), message });
            }
        }
    }

    fn done<T>(self, value: T) -> Result<T, Vec<Wrong>> {
        if self.wrong.is_empty() { Ok(value) } else { Err(self.wrong) }
    }
}

/// What the properties mean. `config` holds `connector.class`.
pub fn translate(config: &BTreeMap<String, String>) -> Result<Translated, Vec<Wrong>> {
    let class = config.get("connector.class").and_then(|c| Class::find(c));
    let Some(class) = class else {
        let given = config.get("connector.class").map_or("", String::as_str);
        let known = Class::ALL.iter().map(|c| c.name()).collect::<Vec<_>>().join(", ");
        return Err(vec![Wrong { key: "connector.class".into(), message: format!("{given} is none of {known}") }]);
    };
    let mut given = Given { class, config, wrong: Vec::new() };
    let mut problems: Vec<Wrong> = Vec::new();
    // `${topic}` in a name's format is no reference, nor is a group's name in a replacement.
    let may_refer = |key: &String| !key.ends_with(".format") && !key.ends_with(".replacement");
    for (key, value) in config.iter().filter(|(k, _)| may_refer(k)) {
        problems.extend(super::secret::problems(value).into_iter().map(|why| Wrong::value(key, why)));
    }
    given.wrong.append(&mut problems);
    given.common();
    match class {
        Class::DebeziumPostgres => source::postgres(given).map(|(n, s)| Translated::Source(n, Box::new(s))),
        Class::DebeziumJdbc | Class::ConfluentJdbc | Class::AivenJdbc => {
            sink::jdbc(given).map(|s| Translated::Sink(Box::new(s)))
        }
    }
}

#[cfg(test)]
mod tests;
