//! The Kafka Connect face: its REST API on connectors that are pipelines here. Which request means which call; shapes and
//! sentences are those of Kafka Connect 4.3.1 (`tests/connect/real.jsonl` holds a dialogue with it). What differs:
//! `docs/connect.md`.
//!
//! A connector is a stored pipeline with a `connect` block (`pipeline/connect.rs`). There is no rebalance, so nothing is
//! answered with 409 for one. A password is taken out of the properties and kept apart (`connect/secrets.rs`).

mod secrets;
mod show;

pub use secrets::Secrets;

use crate::assemble::{State, Wanted, WorkerLine};
use crate::observe;
use crate::pipeline::connect::{self as meaning, Class, Connector, Target};
use crate::pipeline::{Options, Pipeline};
use crate::report::{Exit, Failure};
use catchwater_base::log;
use catchwater_client::{ControlClient, RevisionNote};
use serde_json::{Map, Value, json};
use show::Seen;
use std::collections::BTreeMap;

/// A request, its body read.
pub struct Request {
    pub method: hyper::Method,
    /// Decoded, without the slash at its end.
    pub path: Vec<String>,
    /// Decoded pairs of the query.
    pub query: Vec<(String, String)>,
    pub body: bytes::Bytes,
    /// Its body is said to be JSON.
    pub json: bool,
}

/// An answer; `None` = no body.
#[derive(Debug, PartialEq)]
pub struct Reply {
    pub status: u16,
    pub body: Option<Value>,
    /// The path of what was made: header `Location`.
    pub location: Option<String>,
}

/// What is answered instead.
type Refused = Reply;

fn ok(status: u16, body: Value) -> Result<Reply, Refused> {
    Ok(Reply { status, body: Some(body), location: None })
}

fn empty(status: u16) -> Result<Reply, Refused> {
    Ok(Reply { status, body: None, location: None })
}

pub fn refuse(status: u16, message: impl Into<String>) -> Refused {
    Reply { status, body: Some(json!({"error_code": status, "message": message.into()})), location: None }
}

fn not_found() -> Refused {
    refuse(404, "HTTP 404 Not Found")
}

/// Connect's sentence around what is wrong with properties.
fn invalid(errors: &[String]) -> Refused {
    refuse(
        400,
        format!(
            "Connector configuration is invalid and contains the following {} error(s):\n{}\nYou can also find the above \
             list of errors at the endpoint `/connector-plugins/{{connectorType}}/config/validate`",
            errors.len(),
            errors.join("\n")
        ),
    )
}

/// What a call of the node refused.
fn failed(f: Failure) -> Refused {
    let parts =
        [f.cause.as_str(), f.next.as_str()].into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("; ");
    let text = if parts.is_empty() {
        format!("{} {}", f.code, f.message)
    } else {
        format!("{} {}: {parts}", f.code, f.message)
    };
    match (f.exit, f.code.as_str()) {
        (_, "CW0342") => refuse(409, text),
        (Exit::Runtime, _) => refuse(500, text),
        _ => invalid(&[text]),
    }
}

/// One stored connector.
struct Stored {
    name: String,
    connector: Connector,
    /// Not paused by the command line.
    running: bool,
}

impl Stored {
    fn target(&self) -> Target {
        if self.running || self.connector.target == Target::Stopped { self.connector.target } else { Target::Paused }
    }
    fn seen<'a>(&'a self, line: Option<&'a WorkerLine>, worker: &'a str) -> Seen<'a> {
        Seen { name: &self.name, config: &self.connector.config, target: self.target(), line, worker }
    }
    fn is_source(&self) -> bool {
        self.connector.config.get("connector.class").and_then(|c| Class::find(c)).is_some_and(Class::is_source)
    }
}

/// Every stored pipeline: those that are connectors, and the names of the others.
async fn stored(state: &State) -> Result<(Vec<Stored>, Vec<String>), Refused> {
    let all = state.local().pipelines().await.map_err(|e| refuse(500, e.to_string()))?;
    let (mut connectors, mut others) = (Vec::new(), Vec::new());
    for p in all {
        match crate::pipeline::check(p.text.as_bytes(), Options { plain_secrets: true }).0 {
            Some(Pipeline { name, connect: Some(connector), .. }) => {
                connectors.push(Stored { name, connector, running: p.running });
            }
            _ => others.push(p.name.as_str().to_owned()),
        }
    }
    Ok((connectors, others))
}

async fn one(state: &State, name: &str, missing: impl Fn() -> Refused) -> Result<Stored, Refused> {
    stored(state).await?.0.into_iter().find(|s| s.name == name).ok_or_else(missing)
}

fn line_of(lines: &[WorkerLine], name: &str) -> Option<WorkerLine> {
    lines.iter().find(|l| l.pipeline == name).cloned()
}

/// Answers one request. `worker`: the address of this face.
pub async fn answer(state: &State, worker: &str, request: Request) -> Reply {
    route(state, worker, &request).await.unwrap_or_else(|refused| refused)
}

async fn route(state: &State, worker: &str, r: &Request) -> Result<Reply, Refused> {
    let path: Vec<&str> = r.path.iter().map(String::as_str).collect();
    match path.as_slice() {
        [] => only(r, &["GET"])?,
        ["health"] => only(r, &["GET"])?,
        ["connectors"] => only(r, &["GET", "POST"])?,
        ["connectors", _] => only(r, &["GET", "DELETE"])?,
        ["connectors", _, "config"] => only(r, &["GET", "PUT", "PATCH"])?,
        ["connectors", _, "offsets"] => only(r, &["GET", "PATCH", "DELETE"])?,
        ["connectors", _, "status" | "tasks" | "topics"] => only(r, &["GET"])?,
        ["connectors", _, "pause" | "resume" | "stop"] => only(r, &["PUT"])?,
        ["connectors", _, "restart"] => only(r, &["POST"])?,
        ["connectors", _, "topics", "reset"] => only(r, &["PUT"])?,
        ["connectors", _, "tasks", n, "status"] if n.parse::<i32>().is_ok() => only(r, &["GET"])?,
        ["connectors", _, "tasks", n, "restart"] if n.parse::<i32>().is_ok() => only(r, &["POST"])?,
        ["connector-plugins"] => only(r, &["GET"])?,
        ["connector-plugins", _, "config"] => only(r, &["GET"])?,
        ["connector-plugins", _, "config", "validate"] => only(r, &["PUT"])?,
        ["admin", "loggers"] => only(r, &["GET"])?,
        ["admin", "loggers", _] => only(r, &["GET", "PUT"])?,
        _ => return Err(not_found()),
    }
    // The answer to HEAD is that to GET, its body left out by HTTP.
    let method = if r.method == hyper::Method::HEAD { "GET" } else { r.method.as_str() };
    match (method, path.as_slice()) {
        (_, []) => {
            ok(200, json!({"version": show::KAFKA, "commit": show::version(), "kafka_cluster_id": state.cluster_id()}))
        }
        (_, ["health"]) => ok(
            200,
            json!({"status": "healthy", "message": "Worker has completed startup and is ready to handle requests."}),
        ),
        ("GET", ["connectors"]) => list(state, worker, r).await,
        ("POST", ["connectors"]) => create(state, worker, r).await,
        (method, ["connectors", name, rest @ ..]) => connector(state, worker, r, method, name, rest).await,
        (_, ["connector-plugins"]) => {
            let mut classes = Class::ALL;
            classes.sort_by_key(|c| c.name());
            ok(200, classes.iter().map(|c| show::plugin(*c)).collect())
        }
        (_, ["connector-plugins", plugin, "config"]) => match Class::find(plugin) {
            Some(class) => {
                ok(200, class.definitions().iter().enumerate().map(|(i, d)| show::definition(d, i)).collect())
            }
            None => Err(refuse(404, format!("Unknown plugin {plugin}."))),
        },
        (_, ["connector-plugins", plugin, "config", "validate"]) => {
            validate(state, plugin, &properties(&object(r)?)?.0).await
        }
        (method, ["admin", "loggers", rest @ ..]) => loggers(r, method, rest),
        _ => Err(not_found()),
    }
}

fn only(r: &Request, methods: &[&str]) -> Result<(), Refused> {
    let method = if r.method == hyper::Method::HEAD { "GET" } else { r.method.as_str() };
    if methods.contains(&method) { Ok(()) } else { Err(refuse(405, "HTTP 405 Method Not Allowed")) }
}

fn object(r: &Request) -> Result<Map<String, Value>, Refused> {
    if !r.json {
        return Err(refuse(415, "HTTP 415 Unsupported Media Type"));
    }
    match serde_json::from_slice(&r.body) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(refuse(400, "The request's body must be a JSON object")),
        Err(e) => Err(refuse(400, format!("The request's body is not JSON: {e}"))),
    }
}

/// Properties as texts, and which are null.
fn properties(map: &Map<String, Value>) -> Result<(BTreeMap<String, String>, Vec<String>), Refused> {
    let (mut out, mut nulls) = (BTreeMap::new(), Vec::new());
    for (key, value) in map {
        match value {
            Value::String(s) => drop(out.insert(key.clone(), s.clone())),
            Value::Number(n) => drop(out.insert(key.clone(), n.to_string())),
            Value::Bool(b) => drop(out.insert(key.clone(), b.to_string())),
            Value::Null => nulls.push(key.clone()),
            _ => return Err(refuse(400, format!("The value of '{key}' must be a text"))),
        }
    }
    Ok((out, nulls))
}

async fn list(state: &State, worker: &str, r: &Request) -> Result<Reply, Refused> {
    let (connectors, _) = stored(state).await?;
    let wanted: Vec<&str> = r.query.iter().filter(|(k, _)| k == "expand").map(|(_, v)| v.as_str()).collect();
    if wanted.is_empty() {
        return ok(200, connectors.iter().map(|c| json!(c.name)).collect());
    }
    let lines = state.lines();
    let mut out = Map::new();
    for c in &connectors {
        let line = line_of(&lines, &c.name);
        let seen = c.seen(line.as_ref(), worker);
        let mut shown = Map::new();
        for what in &wanted {
            match *what {
                "info" => drop(shown.insert("info".into(), show::info(&seen))),
                "status" => drop(shown.insert("status".into(), show::status(&seen))),
                _ => {}
            }
        }
        out.insert(c.name.clone(), shown.into());
    }
    ok(200, out.into())
}

async fn create(state: &State, worker: &str, r: &Request) -> Result<Reply, Refused> {
    let mut body = object(r)?;
    if let Some(other) = body.keys().find(|k| !["name", "config", "initial_state"].contains(&k.as_str())) {
        return Err(refuse(
            400,
            format!("Unrecognized field \"{other}\" (3 known properties: \"config\", \"name\", \"initial_state\")"),
        ));
    }
    let target = match body.remove("initial_state") {
        None | Some(Value::Null) => Target::Running,
        Some(word) => word
            .as_str()
            .and_then(|w| Target::parse(&w.to_ascii_uppercase()))
            .ok_or_else(|| refuse(400, format!("initial_state {word} is none of {}", Target::WORDS.join(", "))))?,
    };
    let name = body.get("name").and_then(Value::as_str).unwrap_or_default().trim().to_owned();
    let Some(Value::Object(config)) = body.get("config") else {
        return Err(refuse(400, "The request needs \"config\": an object of properties"));
    };
    let (given, nulls) = properties(config)?;
    if stored(state).await?.0.iter().any(|c| c.name == name) {
        return Err(refuse(409, format!("Connector {name} already exists")));
    }
    let connector = Connector { target, config: given };
    put(state, worker, &name, connector, &nulls, None).await
}

/// Stores a connector; `old` = it is there already.
async fn put(
    state: &State,
    worker: &str,
    name: &str,
    mut connector: Connector,
    nulls: &[String],
    old: Option<&Stored>,
) -> Result<Reply, Refused> {
    if let Some(inside) = connector.config.get("name").filter(|n| !name.is_empty() && *n != name) {
        let message =
            format!("Connector name configuration ({inside}) doesn't match connector name in the URL ({name})");
        return Err(refuse(400, message));
    }
    connector.config.insert("name".into(), name.to_owned());
    class_of(&connector.config)?;
    let mut errors = Vec::new();
    if name.is_empty() {
        errors.push("Invalid value  for configuration name: String may not be empty".to_owned());
    } else if let Some(why) = meaning::name_problem(name) {
        errors.push(format!("Invalid value {name} for configuration name: {why}"));
    }
    errors.extend(nulls.iter().map(|_| "Null value can not be supplied as the configuration value.".to_owned()));
    if let Err(wrong) = meaning::translate(&connector.config) {
        errors.extend(wrong.into_iter().map(|w| w.message));
    }
    if !errors.is_empty() {
        return Err(invalid(&errors));
    }
    let (_, others) = stored(state).await?;
    if others.iter().any(|o| o == name) {
        return Err(refuse(
            409,
            format!("There is a pipeline {name} that is no connector; give the connector another name"),
        ));
    }
    let kept = state.secrets().take(name, &mut connector.config).map_err(failed)?;
    if let Err(f) = apply(state, name, &connector).await {
        kept.undo();
        return Err(failed(f));
    }
    let stored = Stored { name: name.to_owned(), connector, running: true };
    let line = old.and_then(|_| line_of(&state.lines(), name));
    let mut shown = show::info(&stored.seen(line.as_ref(), worker));
    if old.is_none() {
        // Connect's tasks are there a moment later.
        shown["tasks"] = json!([]);
    }
    let location = old.is_none().then(|| format!("/connectors/{name}"));
    Ok(Reply { status: if old.is_some() { 200 } else { 201 }, body: Some(shown), location })
}

fn class_of(config: &BTreeMap<String, String>) -> Result<Class, Refused> {
    let Some(class) = config.get("connector.class") else {
        let shown: Vec<String> = config.iter().map(|(k, v)| format!("{k}={}", show::hidden(k, v))).collect();
        return Err(refuse(400, format!("Connector config {{{}}} contains no connector type", shown.join(", "))));
    };
    Class::find(class).ok_or_else(|| {
        let known = Class::ALL.map(Class::name).join(", ");
        refuse(400, format!("Failed to find any class that implements Connector and which name matches {class}, available connectors are: {known}"))
    })
}

async fn apply(state: &State, name: &str, connector: &Connector) -> Result<(), Failure> {
    let note = RevisionNote { base_dir: "/".into(), author: "connect".into(), message: String::new() };
    let wanted = Wanted { text: text(name, connector), note, allow_destructive: true, ..Wanted::default() };
    let (_, planned) = state.apply(wanted).await?;
    // The face has no place for them.
    for (node, f) in planned.warnings() {
        log!(Warn, "connect.warning", "connector {name}: {node}: {}: {}; {}", f.code, f.fault, f.cure);
    }
    Ok(())
}

/// The connector as a pipeline's text.
fn text(name: &str, connector: &Connector) -> String {
    let mut out =
        format!("version: 1\npipeline: {}\nconnect:\n  state: {}\n  config:\n", json!(name), connector.target.word());
    for (key, value) in &connector.config {
        out.push_str(&format!("    {}: {}\n", json!(key), json!(value)));
    }
    out
}

async fn connector(
    state: &State,
    worker: &str,
    r: &Request,
    method: &str,
    name: &str,
    rest: &[&str],
) -> Result<Reply, Refused> {
    let absent = || refuse(404, format!("Connector {name} not found"));
    let unknown = || refuse(404, format!("Unknown connector {name}"));
    let restarted = || refuse(404, format!("Unknown connector: {name}"));
    let line = || line_of(&state.lines(), name);
    match (method, rest) {
        ("DELETE", []) => {
            one(state, name, absent).await?;
            state.delete(name, true, "connect").await.map_err(failed)?;
            state.secrets().forget(name);
            empty(204)
        }
        (_, []) => {
            let (c, line) = (one(state, name, absent).await?, line());
            ok(200, show::info(&c.seen(line.as_ref(), worker)))
        }
        ("PUT", ["config"]) => {
            let (config, nulls) = properties(&object(r)?)?;
            let old = stored(state).await?.0.into_iter().find(|c| c.name == name);
            let target = old.as_ref().map_or(Target::Running, |c| c.connector.target);
            put(state, worker, name, Connector { target, config }, &nulls, old.as_ref()).await
        }
        ("PATCH", ["config"]) => {
            let (config, nulls) = properties(&object(r)?)?;
            let old = one(state, name, absent).await?;
            let mut merged = old.connector.clone();
            merged.config.extend(config);
            merged.config.retain(|k, _| !nulls.contains(k));
            put(state, worker, name, merged, &[], Some(&old)).await
        }
        (_, ["config"]) => ok(200, json!(one(state, name, absent).await?.connector.config)),
        (_, ["status"]) => {
            let c = one(state, name, || refuse(404, format!("No status found for connector {name}"))).await?;
            let line = line();
            ok(200, show::status(&c.seen(line.as_ref(), worker)))
        }
        (_, ["tasks"]) => {
            let (c, line) = (one(state, name, absent).await?, line());
            ok(200, show::tasks(&c.seen(line.as_ref(), worker)))
        }
        (_, ["tasks", n, "status"]) => {
            let missing = || refuse(404, format!("No status found for task {name}-{n}"));
            let (c, line) = (one(state, name, missing).await?, line());
            let status = show::status(&c.seen(line.as_ref(), worker));
            let task =
                status["tasks"].as_array().and_then(|t| t.iter().find(|t| t["id"].as_u64() == n.parse().ok())).cloned();
            ok(200, task.ok_or_else(missing)?)
        }
        (_, ["tasks", n, "restart"]) => {
            let c = one(state, name, restarted).await?;
            if *n != "0" || c.target() == Target::Stopped {
                return Err(refuse(404, format!("Unknown task: {name}-{n}")));
            }
            state.restart(name, "connect").await.map_err(failed)?;
            empty(204)
        }
        (_, ["restart"]) => {
            let c = one(state, name, restarted).await?;
            let given = |key: &str| r.query.iter().any(|(k, v)| k == key && v == "true");
            let failed_now = line().is_some_and(|l| show::has_failed(&l));
            if c.target() == Target::Running && (failed_now || !given("onlyFailed")) {
                state.restart(name, "connect").await.map_err(failed)?;
            }
            if !given("includeTasks") && !given("onlyFailed") {
                return empty(204);
            }
            let line = line();
            let mut status = show::status(&c.seen(line.as_ref(), worker));
            show::restarting(&mut status, failed_now, given("includeTasks"), given("onlyFailed"));
            ok(202, status)
        }
        (_, ["pause"]) => aim(state, one(state, name, unknown).await?, Target::Paused, 202).await,
        (_, ["resume"]) => aim(state, one(state, name, unknown).await?, Target::Running, 202).await,
        (_, ["stop"]) => aim(state, one(state, name, unknown).await?, Target::Stopped, 204).await,
        // Of a connector that is not there, too: the real one says so.
        (_, ["topics", "reset"]) => empty(202),
        (_, ["topics"]) => {
            let found = stored(state).await?.0.into_iter().find(|c| c.name == name);
            let topics = match (found, line()) {
                (Some(c), Some(line)) => topics(state, &c, &line).await,
                _ => Vec::new(),
            };
            let mut out = Map::new();
            out.insert(name.to_owned(), json!({"topics": topics}));
            ok(200, out.into())
        }
        (_, ["offsets"]) => offsets(state, r, method, name).await,
        _ => Err(not_found()),
    }
}

async fn aim(state: &State, c: Stored, target: Target, status: u16) -> Result<Reply, Refused> {
    let connector = Connector { target, ..c.connector.clone() };
    if connector.target != c.connector.target {
        apply(state, &c.name, &connector).await.map_err(failed)?;
    }
    if target == Target::Running && !c.running {
        // It was paused by the command line.
        state.set_running(&c.name, true, "connect").await.map_err(failed)?;
    }
    empty(status)
}

/// Topics that the connector has used: those that a source made, by the names that its transforms give them, too; of a sink's those
/// that exist once it has read.
async fn topics(state: &State, c: &Stored, line: &WorkerLine) -> Vec<String> {
    let config = |key: &str| c.connector.config.get(key).map(|v| v.trim()).unwrap_or_default();
    if c.is_source() {
        return state.topics_of(config("topic.prefix")).await;
    }
    if line.position.is_empty() && line.rows == 0 {
        return Vec::new();
    }
    let (names, regex) = (config("topics"), config("topics.regex"));
    let whole = Some(regex).filter(|r| !r.is_empty()).and_then(|r| meaning::whole(r).ok());
    let is_read = |name: &String| match &whole {
        Some(whole) => whole.is_match(name),
        None => names.split(',').any(|w| w.trim() == name),
    };
    let captured = state.captured_topics().await;
    captured.iter().map(|t| t.name.as_str().to_owned()).filter(is_read).collect()
}

async fn offsets(state: &State, r: &Request, method: &str, name: &str) -> Result<Reply, Refused> {
    if method == "PATCH" {
        let wanted = object(r)?;
        if wanted.get("offsets").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            return Err(refuse(400, "Partitions / offsets need to be provided for an alter offsets request"));
        }
    }
    let c = one(state, name, || refuse(404, format!("Connector {name} not found"))).await?;
    if method == "GET" {
        return ok(200, json!({"offsets": shown_offsets(state, &c).await}));
    }
    if c.target() != Target::Stopped {
        let message = format!(
            "Connectors must be in the STOPPED state before their offsets can be modified. This can be done for the \
             specified connector by issuing a 'PUT' request to the '/connectors/{name}/stop' endpoint"
        );
        return Err(refuse(400, message));
    }
    if method == "DELETE" && !c.is_source() {
        // Its last group may still be on its way to the target, and would write the position anew.
        if state.has_worker(name) {
            let message = format!(
                "Failed to reset offsets for connector {name}: its task has not stopped completely; ask again in a moment"
            );
            return Err(refuse(500, message));
        }
        state.forget_position(name).await.map_err(failed)?;
        let message = "The Connect framework-managed offsets for this connector have been reset successfully. However, if \
                       this connector manages offsets externally, they will need to be manually reset in the system that \
                       the connector uses.";
        return ok(200, json!({"message": message}));
    }
    let why = match (method, c.is_source()) {
        ("DELETE", _) => {
            "a source's position is part of its log; to read the source again, give a new topic.prefix and slot.name"
        }
        (_, true) => "a source's position is part of its log and cannot be moved",
        (_, false) => {
            "a sink's position is a commit of its source, not offsets; DELETE makes it begin at the start of the log"
        }
    };
    Err(refuse(400, format!("Catchwater does not alter these offsets: {why}")))
}

async fn shown_offsets(state: &State, c: &Stored) -> Vec<Value> {
    let Some(line) = line_of(&state.lines(), &c.name) else { return Vec::new() };
    if line.position.is_empty() {
        return Vec::new();
    }
    if c.is_source() {
        let prefix = c.connector.config.get("topic.prefix").cloned().unwrap_or_default();
        return vec![json!({"partition": {"server": prefix}, "offset": show::source_offset(&line.position)})];
    }
    let topics = topics(state, c, &line).await;
    let one = |t: &String| json!({"partition": {"kafka_partition": 0, "kafka_topic": t}, "offset": {"position": line.position}});
    topics.iter().map(one).collect()
}

async fn validate(state: &State, plugin: &str, config: &BTreeMap<String, String>) -> Result<Reply, Refused> {
    let class = class_of(config)?;
    if Class::find(plugin).is_some_and(|p| p != class) || Class::find(plugin).is_none() {
        let given = config.get("connector.class").map_or("", String::as_str);
        return Err(refuse(400, format!("Included connector type {given} does not match request type {plugin}")));
    }
    let mut wrong = meaning::translate(config).err().unwrap_or_default();
    if wrong.is_empty() {
        let connector = Connector { target: Target::Running, config: config.clone() };
        let name = config.get("name").map_or("", String::as_str);
        // Without a name it is wrong already.
        if let Some(p) = crate::pipeline::check(text(name, &connector).as_bytes(), Options { plain_secrets: true }).0 {
            let key = if config.contains_key("topics.regex") { "topics.regex" } else { "topics" };
            let found = state.rowless(&p).await.map_err(failed)?;
            wrong.extend(found.into_iter().map(|message| meaning::Wrong { key: key.into(), message }));
        }
    }
    ok(200, show::validation(class, config, wrong))
}

fn loggers(r: &Request, method: &str, rest: &[&str]) -> Result<Reply, Refused> {
    let root = || json!({"level": observe::level(), "last_modified": null});
    match (method, rest) {
        (_, []) => ok(200, json!({"root": root()})),
        ("PUT", ["root"]) => {
            let body = object(r)?;
            let Some(level) = body.get("level").and_then(Value::as_str) else {
                return Err(refuse(400, "Desired 'level' parameter was not specified in request."));
            };
            if !observe::set_level(level) {
                return Err(refuse(404, format!("invalid log level '{level}'.")));
            }
            ok(200, json!(["root"]))
        }
        (_, ["root"]) => ok(200, root()),
        (_, [other, ..]) => Err(refuse(404, format!("Logger {other} not found."))),
    }
}
