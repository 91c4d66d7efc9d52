//! `/api/v1`: which path means which call. What it answers is documented in `docs/configuration.md`.

use super::State;
use super::letters::Wanted as Letters;
use super::line::line_json;
use super::pipelines::Wanted;
use super::reached::Wanted as Reached;
use crate::groups;
use crate::http::{self, Call, Verb};
use crate::report::{Exit, Failure};
use catchwater_capture::signal::{self, Signal};
use catchwater_client::RevisionNote;
use catchwater_deliver::worker::{Ask, Which};
use catchwater_record::{Offset, RevisionNo};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn not_found() -> Failure {
    Failure::new(Exit::Refused, "CW0008", "not found").next("the paths of /api/v1 are in docs/configuration.md")
}

fn bad(why: impl Into<String>) -> Failure {
    Failure::new(Exit::Refused, "CW0346", "the request's body is not understood").cause(why)
}

fn text(body: &Value, key: &str) -> Result<String, Failure> {
    match &body[key] {
        Value::Null => Ok(String::new()),
        Value::String(s) => Ok(s.clone()),
        other => Err(bad(format!("`{key}` must be a text, this is {other}"))),
    }
}

fn flag(body: &Value, key: &str) -> Result<bool, Failure> {
    match &body[key] {
        Value::Null => Ok(false),
        Value::Bool(b) => Ok(*b),
        other => Err(bad(format!("`{key}` must be true or false, this is {other}"))),
    }
}

fn who(body: &Value) -> Result<String, Failure> {
    text(body, "author")
}

fn wanted(body: &Value) -> Result<Wanted, Failure> {
    const KNOWN: [&str; 7] = ["text", "base_dir", "author", "message", "hash", "allow_destructive", "to"];
    let fields = body.as_object().ok_or_else(|| bad("it must be a JSON object"))?;
    if let Some(other) = fields.keys().find(|k| !KNOWN.contains(&k.as_str())) {
        return Err(bad(format!("unknown field `{other}`; known: {}", KNOWN.join(", "))));
    }
    let hash = text(body, "hash")?;
    let note = RevisionNote {
        base_dir: text(body, "base_dir")?,
        author: text(body, "author")?,
        message: text(body, "message")?,
    };
    Ok(Wanted {
        text: text(body, "text")?,
        note,
        hash: (!hash.is_empty()).then_some(hash),
        allow_destructive: flag(body, "allow_destructive")?,
        dev: false,
    })
}

fn known(body: &Value, fields: &[&str]) -> Result<(), Failure> {
    let given = body.as_object().ok_or_else(|| bad("it must be a JSON object"))?;
    match given.keys().find(|k| !fields.contains(&k.as_str())) {
        Some(other) => Err(bad(format!("unknown field `{other}`; known: {}", fields.join(", ")))),
        None => Ok(()),
    }
}

fn number(body: &Value, key: &str) -> Result<Option<u64>, Failure> {
    match &body[key] {
        Value::Null => Ok(None),
        n => n.as_u64().map(Some).ok_or_else(|| bad(format!("`{key}` must be a number, this is {n}"))),
    }
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn letters(body: &Value) -> Result<Letters, Failure> {
    known(body, &["sink", "from", "limit", "all", "whole"])?;
    Ok(Letters {
        sink: some(text(body, "sink")?),
        from: number(body, "from")?.unwrap_or(0),
        limit: number(body, "limit")?.unwrap_or(100),
        all: flag(body, "all")?,
        whole: flag(body, "whole")?,
    })
}

fn which(body: &Value) -> Result<(Option<String>, Which), Failure> {
    known(body, &["sink", "table", "offset", "author"])?;
    let which = match (some(text(body, "table")?), number(body, "offset")?) {
        (None, None) => Which::All,
        (Some(table), None) => Which::Table(table),
        (None, Some(offset)) => Which::Letter(Offset(offset)),
        (Some(_), Some(_)) => return Err(bad("`table` and `offset` exclude each other")),
    };
    Ok((some(text(body, "sink")?), which))
}

fn reached(body: &Value) -> Result<Reached, Failure> {
    known(body, &["sink", "position", "positions", "timeout_ms"])?;
    let mut positions = BTreeMap::new();
    for (sink, at) in body["positions"].as_object().into_iter().flatten() {
        let at = at.as_str().ok_or_else(|| bad("`positions` must hold texts"))?;
        positions.insert(sink.clone(), at.to_owned());
    }
    Ok(Reached {
        sink: some(text(body, "sink")?),
        position: some(text(body, "position")?),
        positions,
        timeout_ms: number(body, "timeout_ms")?.unwrap_or(0),
    })
}

pub(super) async fn answer(state: &State, call: Call) -> Result<Value, Failure> {
    let path: Vec<String> = call.path.split('/').map(|s| http::unescape(s, false)).collect();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match (call.verb, path.as_slice()) {
        (Verb::Get, ["lag"]) => Ok(state.lines().iter().map(line_json).collect()),
        (Verb::Get, ["groups"]) => Ok(groups::list(&state.local).await),
        (Verb::Get, ["groups", name]) => groups::describe(&state.local, name).await.ok_or_else(not_found),
        (Verb::Get, ["pipelines"]) => Ok(state.pipelines_json().await?.into()),
        (Verb::Get, ["pipelines", name]) => state.pipeline_json(name).await,
        (Verb::Get, ["pipelines", name, "revisions"]) => state.revisions_json(name).await,
        (Verb::Get, ["pipelines", name, "revisions", no]) => {
            state.revision_json(name, no.parse().map_err(|_| not_found())?).await
        }
        (Verb::Post, ["pipelines", name, "plan"]) => {
            let planned = state.plan(&wanted(&call.body)?).await?;
            same_name(name, &planned.pipeline)?;
            Ok(planned.json())
        }
        (Verb::Post, ["pipelines", name, "apply"]) => {
            let wanted = wanted(&call.body)?;
            if let (Some(p), _) = crate::pipeline::check(wanted.text.as_bytes(), super::pipelines::AS_STORED) {
                same_name(name, &p.name)?;
            }
            let (revision, planned) = state.apply(wanted).await?;
            Ok(json!({"pipeline": planned.pipeline, "revision": revision.0, "plan": planned.json()}))
        }
        (Verb::Post, ["pipelines", name, "rollback"]) => {
            let to = call.body["to"].as_u64().ok_or_else(|| bad("`to` must be a revision's number"))?;
            let (revision, planned) = state.rollback(name, RevisionNo(to), wanted(&call.body)?).await?;
            Ok(json!({"pipeline": planned.pipeline, "revision": revision.0, "plan": planned.json()}))
        }
        (Verb::Post, ["pipelines", name, "pause"]) => {
            ran(name, state.set_running(name, false, &who(&call.body)?).await?)
        }
        (Verb::Post, ["pipelines", name, "resume"]) => {
            ran(name, state.set_running(name, true, &who(&call.body)?).await?)
        }
        (Verb::Post, ["pipelines", name, "restart"]) => {
            Ok(json!({"pipeline": name, "tasks": state.restart(name, &who(&call.body)?).await?}))
        }
        (Verb::Post, ["pipelines", name, "dlq", "list"]) => state.letters_json(name, &letters(&call.body)?).await,
        (Verb::Post, ["pipelines", name, "dlq", verb @ ("replay" | "discard")]) => {
            let ask = if *verb == "replay" { Ask::Replay } else { Ask::Discard };
            let (sink, which) = which(&call.body)?;
            state.ask_letters(name, (ask, which), sink, &who(&call.body)?).await
        }
        (Verb::Post, ["pipelines", name, "rebuild"]) => {
            known(&call.body, &["sink", "author"])?;
            let sink = some(text(&call.body, "sink")?).ok_or_else(|| bad("`sink` must name one"))?;
            state.ask_letters(name, (Ask::Rebuild, Which::All), Some(sink), &who(&call.body)?).await
        }
        (Verb::Post, ["pipelines", name, "wait"]) => state.wait_json(name, reached(&call.body)?).await,
        (Verb::Post, ["pipelines", name, "snapshot"]) => {
            let signal = signal_of(&call.body)?;
            let told = state.signal(name, call.body["source"].as_str(), signal, &who(&call.body)?).await?;
            Ok(json!({"pipeline": name, "told": told}))
        }
        (Verb::Post, ["pipelines", name, "reset"]) => {
            known(&call.body, &["source", "allow_destructive", "author"])?;
            let source = some(text(&call.body, "source")?);
            state.reset(name, source.as_deref(), flag(&call.body, "allow_destructive")?, &who(&call.body)?).await
        }
        (Verb::Delete, ["pipelines", name]) => {
            let steps = state.delete(name, flag(&call.body, "allow_destructive")?, &who(&call.body)?).await?;
            Ok(json!({"pipeline": name, "steps": steps.iter().map(super::pipelines::step_json).collect::<Vec<_>>()}))
        }
        _ => Err(not_found()),
    }
}

/// `action` and what belongs to it.
fn signal_of(body: &Value) -> Result<Signal, Failure> {
    let tables: Vec<String> =
        body["tables"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let kind = match body["action"].as_str() {
        Some("execute") => "execute-snapshot",
        Some("pause") => "pause-snapshot",
        Some("resume") => "resume-snapshot",
        Some("stop") => "stop-snapshot",
        _ => return Err(bad("`action` is one of execute, pause, resume, stop")),
    };
    let data = signal::data(&tables, body["filter"].as_str(), body["rows_per_second"].as_u64().unwrap_or(0));
    signal::parse(kind, &data).map_err(|e| bad(e.to_string()))
}

fn ran(name: &str, revision: RevisionNo) -> Result<Value, Failure> {
    Ok(json!({"pipeline": name, "revision": revision.0}))
}

fn same_name(path: &str, text: &str) -> Result<(), Failure> {
    if path == text {
        return Ok(());
    }
    Err(bad(format!("the path says pipeline {path}, the text {text}")))
}
