//! Pure. Connectors in the shapes of Kafka Connect's REST API.

use super::secrets::password_of;
use crate::assemble::WorkerLine;
use crate::pipeline::connect::{Class, Definition, Target, Wrong};
use catchwater_client::{TaskState, Wish};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The release whose API this is; tools decide by it what they ask for.
pub const KAFKA: &str = "4.3.1";

pub fn version() -> &'static str {
    concat!("catchwater-", env!("CARGO_PKG_VERSION"))
}

/// A connector and what its task does.
pub struct Seen<'a> {
    pub name: &'a str,
    pub config: &'a BTreeMap<String, String>,
    pub target: Target,
    pub line: Option<&'a WorkerLine>,
    /// Address of the face: Connect's worker id.
    pub worker: &'a str,
}

impl Seen<'_> {
    fn class(&self) -> Option<Class> {
        self.config.get("connector.class").and_then(|c| Class::find(c))
    }
    fn kind(&self) -> &'static str {
        if self.class().is_some_and(Class::is_source) { "source" } else { "sink" }
    }
    fn has_task(&self) -> bool {
        self.target != Target::Stopped && self.line.is_some()
    }
}

pub fn has_failed(line: &WorkerLine) -> bool {
    line.state == TaskState::NeedsPerson && line.wish == Wish::Run
}

pub fn info(c: &Seen<'_>) -> Value {
    let tasks = if c.has_task() { json!([{"connector": c.name, "task": 0}]) } else { json!([]) };
    json!({"name": c.name, "config": c.config, "tasks": tasks, "type": c.kind()})
}

pub fn status(c: &Seen<'_>) -> Value {
    let mut tasks = Vec::new();
    if let Some(line) = c.line.filter(|_| c.has_task()) {
        let state = match (c.target, line.state) {
            (Target::Paused, _) if line.wish != Wish::Run => "PAUSED",
            (_, TaskState::NeedsPerson) => "FAILED",
            (_, TaskState::Starting) => "UNASSIGNED",
            _ => "RUNNING",
        };
        let mut task = json!({"id": 0, "state": state, "worker_id": c.worker, "version": version()});
        if state == "FAILED" {
            let (code, what) = line.error.clone().unwrap_or_default();
            task["trace"] = json!(format!("{code} {what}"));
        }
        tasks.push(task);
    }
    json!({
        "name": c.name,
        "connector": {"state": c.target.word(), "worker_id": c.worker, "version": version()},
        "tasks": tasks,
        "type": c.kind(),
    })
}

/// The answer to a restart: the states of what is started again. `failed` = the task had failed.
pub fn restarting(status: &mut Value, failed: bool, tasks: bool, only_failed: bool) {
    // The connector itself does not fail: what fails is its task.
    if !only_failed {
        status["connector"]["state"] = json!("RESTARTING");
    }
    if tasks && (failed || !only_failed) {
        for task in status["tasks"].as_array_mut().into_iter().flatten() {
            task["state"] = json!("RESTARTING");
        }
    }
}

/// Each task with its properties.
pub fn tasks(c: &Seen<'_>) -> Value {
    if !c.has_task() {
        return json!([]);
    }
    json!([{"id": {"connector": c.name, "task": 0}, "config": c.config}])
}

pub fn plugin(class: Class) -> Value {
    json!({"class": class.name(), "type": if class.is_source() { "source" } else { "sink" }, "version": version()})
}

pub fn definition(d: &Definition, order: usize) -> Value {
    let required = matches!(d.name, "name" | "connector.class");
    json!({
        "name": d.name, "type": d.kind, "required": required, "default_value": d.default, "importance": d.importance,
        "documentation": d.documentation(), "group": d.group, "width": "MEDIUM", "display_name": d.name,
        "dependents": [], "order_in_group": order,
    })
}

/// What is wrong with properties, property by property.
pub fn validation(class: Class, config: &BTreeMap<String, String>, mut wrong: Vec<Wrong>) -> Value {
    if config.get("name").is_none_or(|n| n.trim().is_empty()) {
        let message = "Missing required configuration \"name\" which has no default value.".to_owned();
        wrong.push(Wrong { key: "name".into(), message });
    }
    let of = |key: &str| wrong.iter().filter(|w| w.key == key).map(|w| w.message.clone()).collect::<Vec<_>>();
    let mut groups: Vec<&str> = Vec::new();
    let mut configs = Vec::new();
    for (order, d) in class.definitions().iter().enumerate() {
        if !groups.contains(&d.group) {
            groups.push(d.group);
        }
        let value = config.get(d.name).map(String::as_str).or(d.default).map(|v| hidden(d.name, v));
        configs.push(json!({
            "definition": definition(d, order),
            "value": {"name": d.name, "value": value, "recommended_values": [], "errors": of(d.name), "visible": true},
        }));
    }
    // A property that has no definition of its own: a mask, a transform's option.
    let other = |w: &&Wrong| class.definition(&w.key).is_none();
    for w in wrong.iter().filter(other) {
        let d = Definition {
            name: "",
            kind: "STRING",
            default: None,
            importance: "LOW",
            group: "Common",
            verdict: crate::pipeline::connect::Verdict::Honoured,
        };
        let mut shown = definition(&d, 0);
        shown["name"] = json!(w.key);
        shown["display_name"] = json!(w.key);
        let value = config.get(&w.key).map(|v| hidden(&w.key, v));
        configs.push(json!({
            "definition": shown,
            "value": {"name": w.key, "value": value, "recommended_values": [], "errors": [w.message], "visible": true},
        }));
    }
    json!({"name": class.name(), "error_count": wrong.len(), "groups": groups, "configs": configs})
}

/// The value, unless it is a secret in plain text.
pub fn hidden(key: &str, value: &str) -> String {
    if is_secret(key) && !value.contains("${") {
        return "[hidden]".to_owned();
    }
    match password_of(value) {
        Some((at, _)) if key == "connection.url" => {
            let mut shown = value.to_owned();
            shown.replace_range(at, "[hidden]");
            shown
        }
        _ => value.to_owned(),
    }
}

/// Is it one of the properties that are kept apart?
pub fn is_secret(key: &str) -> bool {
    Class::ALL.iter().any(|c| c.definition(key).is_some_and(Definition::is_secret)) || key.ends_with("password")
}

/// `0/1A2B3C` as Debezium's `lsn`, beside the text itself.
pub fn source_offset(position: &str) -> Value {
    let lsn = position
        .split_once('/')
        .and_then(|(high, low)| Some(u64::from_str_radix(high, 16).ok()? << 32 | u64::from_str_radix(low, 16).ok()?));
    match lsn {
        Some(lsn) => json!({"lsn": lsn, "position": position}),
        None => json!({"position": position}),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_restart_answers_what_it_starts_again() {
        // Source: answers of Kafka Connect 4.3.1 to `POST /connectors/C/restart`.
        let seen = |failed, tasks, only_failed| {
            let mut status = json!({"connector": {"state": "RUNNING"}, "tasks": [{"id": 0, "state": "RUNNING"}]});
            restarting(&mut status, failed, tasks, only_failed);
            (
                status["connector"]["state"].as_str().unwrap().to_owned(),
                status["tasks"][0]["state"].as_str().unwrap().to_owned(),
            )
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(seen(false, true, false), pair("RESTARTING", "RESTARTING"));
        assert_eq!(seen(true, true, true), pair("RUNNING", "RESTARTING"));
        assert_eq!(seen(false, true, true), pair("RUNNING", "RUNNING"));
    }
}
