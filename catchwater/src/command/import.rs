//! `catchwater import connect`: a connector of a Kafka Connect worker goes on here, at the row it had come to, with its slot
//! and publication. It is stopped there, its offset is read, and it is put on this node's Connect face with it.
//!
//! Order: nothing is stopped before its properties are known to be taken, a node of ours answers, the slot is there and the
//! offset of now is one to go on from; the offset is read again when nobody streams from the slot any more, for a task
//! commits its last offset before it lets go of the slot.

use crate::assemble;
use crate::cli::ImportConnect;
use crate::http::exchange;
use crate::pipeline::connect::{Class, OFFSET, Translated, Verdict, translate};
use crate::report::{Done, Exit, Failure, table};
use catchwater_runtime::time::sleep;
use hyper::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long the connector there may take to stop, and the one here to run.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(250);

fn refused(what: impl Into<String>) -> Failure {
    Failure::new(Exit::Refused, "CW0359", what)
}

/// Host and port of a worker's address.
fn address(url: &str) -> Result<String, Failure> {
    let plain = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    if plain.contains("://") || plain.contains('/') || plain.is_empty() {
        return Err(
            refused(format!("{url} is no address of a Connect worker")).next("http://HOST:8083; no TLS, no path")
        );
    }
    Ok(if plain.contains(':') { plain.to_owned() } else { format!("{plain}:8083") })
}

pub async fn connect(args: ImportConnect) -> Result<Done, Failure> {
    let worker = address(&args.url)?;
    let path = format!("/connectors/{}", args.name);
    let there = |method, rest: &str, body| {
        let (worker, path) = (worker.clone(), format!("{path}{rest}"));
        async move {
            let (status, answer) = exchange(&worker, method, &path, body).await?;
            if status < 300 {
                return Ok(answer);
            }
            let why = answer["message"].as_str().unwrap_or_default().to_owned();
            Err(refused(format!("{worker} answers {status} to {path}"))
                .cause(why)
                .next("check the worker's address and the connector's name"))
        }
    };
    let answer = there(Method::GET, "/config", Value::Null).await?;
    let members = answer.as_object().into_iter().flatten();
    let mut config: BTreeMap<String, String> = members.map(|(k, v)| (k.clone(), shown(v))).collect();
    let server = config.get("topic.prefix").cloned().unwrap_or_default();
    // A connector that names no converter has the worker's, and its own settings of one are not looked at there.
    let unnamed = ["key.converter", "value.converter"].map(|c| (c, !config.contains_key(c)));
    for (converter, _) in unnamed.iter().filter(|(_, is_unnamed)| *is_unnamed) {
        config.retain(|key, _| !key.strip_prefix(converter).is_some_and(|rest| rest.starts_with('.')));
    }
    for set in &args.set {
        let Some((key, value)) = set.split_once('=') else {
            return Err(refused(format!("--set {set} is not PROPERTY=VALUE"))
                .next("for example --set 'database.password=${file:/run/secrets/capture}'; nothing was stopped"));
        };
        config.insert(key.to_owned(), value.to_owned());
    }
    let translated = translate(&config).map_err(|wrong| {
        let text: Vec<String> = wrong.into_iter().map(|w| w.message).collect();
        refused(format!("connector {} cannot run here as it is", args.name))
            .cause(text.join("; "))
            .next("give the property another value by --set PROPERTY=VALUE; nothing was stopped")
    })?;
    let Translated::Source(source_name, source) = translated else {
        return Err(refused(format!("connector {} is a sink", args.name))
            .next("a sink's place is in its target: put its properties on this node's Connect face"));
    };
    if args.explain {
        return Ok(explained(&args.name, &config, &unnamed.map(|(c, is_unnamed)| is_unnamed.then_some(c))));
    }

    is_ours(&args.to).await?;
    let (status, _) = exchange(&args.to, Method::GET, &path, Value::Null).await?;
    if status == 200 {
        return Err(refused(format!("connector {} is on this node already", args.name))
            .cause("it was taken over before, or another has its name")
            .next(format!("curl http://{}{path}/status; nothing was stopped", args.to)));
    }
    let held = || assemble::is_slot_held(&source_name, &source);
    let offset_there = || async {
        let answer = there(Method::GET, "/offsets", Value::Null).await?;
        let offset = offset_of(&args.name, &server, &answer)?;
        assemble::check_offset(&source_name, &offset.to_string())?;
        Ok::<Value, Failure>(offset)
    };
    let untouched = |mut failure: Failure| {
        failure.next = [failure.next.as_str(), "nothing was stopped"].join("; ").trim_start_matches("; ").to_owned();
        failure
    };
    let state = |answer: &Value| answer["connector"]["state"].as_str().unwrap_or_default().to_owned();
    let status = there(Method::GET, "/status", Value::Null).await?;
    if state(&status) != "STOPPED" {
        if !args.stop {
            return Err(refused(format!("connector {} is {} there", args.name, state(&status)))
                .cause("while it runs, it reads from the slot")
                .next("run this again with --stop, or: curl -X PUT http://".to_owned() + &worker + &path + "/stop"));
        }
        held().await.map_err(untouched)?.ok_or_else(|| untouched(no_slot()))?;
        offset_there().await.map_err(untouched)?;
        there(Method::PUT, "/stop", Value::Null).await?;
    }
    let back = format!("to go back: curl -X PUT http://{worker}{path}/resume");
    let stopped = |mut failure: Failure| {
        failure.next = [failure.next.as_str(), &back].join("; ").trim_start_matches("; ").to_owned();
        failure
    };
    let begun = Instant::now();
    loop {
        let status = there(Method::GET, "/status", Value::Null).await.map_err(stopped)?;
        let tasks = status["tasks"].as_array().is_some_and(|t| !t.is_empty());
        if state(&status) == "STOPPED" && !tasks && !held().await.map_err(stopped)?.ok_or_else(|| stopped(no_slot()))? {
            break;
        }
        if begun.elapsed() > LIMIT {
            return Err(stopped(late("the connector there still holds its slot").next("look into the worker's log")));
        }
        sleep(PAUSE).await;
    }
    let offset = offset_there().await.map_err(stopped)?;
    config.remove("name");
    config.insert(OFFSET.to_owned(), offset.to_string());
    let (status, answer) =
        exchange(&args.to, Method::PUT, &format!("{path}/config"), json!(config)).await.map_err(stopped)?;
    if status >= 300 {
        let why = answer["message"].as_str().unwrap_or_default().to_owned();
        return Err(stopped(refused(format!("this node answers {status}")).cause(why)));
    }
    let begun = Instant::now();
    loop {
        let (_, status) = exchange(&args.to, Method::GET, &format!("{path}/status"), Value::Null).await?;
        let task = &status["tasks"][0];
        match task["state"].as_str().unwrap_or_default() {
            "RUNNING" => break,
            "FAILED" => {
                let why = task["trace"].as_str().unwrap_or_default().to_owned();
                let back = format!(
                    "mend it, or go back: DELETE http://{}{path}, then PUT http://{worker}{path}/resume",
                    args.to
                );
                return Err(Failure::new(Exit::Runtime, "CW0359", "the source does not run here")
                    .cause(why)
                    .next(back));
            }
            _ if begun.elapsed() > LIMIT => {
                return Err(late("the source does not run here").next(format!(
                    "it is stored here and goes on trying: curl http://{}{path}/status, or catchwater lag",
                    args.to
                )));
            }
            _ => sleep(PAUSE).await,
        }
    }
    let mut text = format!(
        "{} goes on here behind {offset}\nDo not start it on {worker} again; delete it there, or keep it stopped.",
        args.name
    );
    text.extend(unnamed.iter().filter(|(_, is_unnamed)| *is_unnamed).map(|(c, _)| format!("\n{}", of_the_worker(c))));
    Ok(Done::new(format!("{} taken over", args.name), json!({"connector": args.name, "offset": offset}), text))
}

fn late(what: &str) -> Failure {
    Failure::new(Exit::Runtime, "CW0359", format!("{what} after {} s", LIMIT.as_secs()))
}

fn no_slot() -> Failure {
    refused("the connector's replication slot does not exist")
        .cause("slot.drop.on.stop, or somebody else, has dropped it: changes since then are not kept")
        .next("capture anew: put the properties on this node's Connect face, with snapshot.mode=initial")
}

/// A real worker would take the properties, too, and run its own connector with them.
async fn is_ours(to: &str) -> Result<(), Failure> {
    let next = "start a node, or give the address of its Connect face with --to; nothing was stopped";
    let (_, answer) = exchange(to, Method::GET, "/", Value::Null).await.map_err(|f| f.next(next))?;
    if answer["commit"].as_str().is_some_and(|c| c.starts_with("catchwater-")) {
        return Ok(());
    }
    Err(refused(format!("what answers at {to} is no node of Catchwater")).next(next))
}

/// The offset of the server that the connector is now; one whose `topic.prefix` was another once has several.
fn offset_of(name: &str, server: &str, answer: &Value) -> Result<Value, Failure> {
    let mut offsets = answer["offsets"].as_array().into_iter().flatten();
    match offsets.find(|o| o["partition"]["server"] == server && o["offset"].is_object()) {
        Some(found) => Ok(found["offset"].clone()),
        None => Err(refused(format!("connector {name} has no offset of server {server} there"))
            .cause("it has not captured anything yet, or its offsets were reset")
            .next("put its properties on this node's Connect face")),
    }
}

/// What nobody can ask of the worker.
fn of_the_worker(converter: &str) -> String {
    format!(
        "{converter} is the worker's own there; here it is JsonConverter with schemas. --set {converter}.schemas.enable=false: without."
    )
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What becomes of each property.
fn explained(name: &str, config: &BTreeMap<String, String>, unnamed: &[Option<&str>]) -> Done {
    let class = config.get("connector.class").and_then(|c| Class::find(c));
    let definitions = class.map(|c| c.definitions()).unwrap_or_default();
    let rows: Vec<Vec<String>> = config
        .iter()
        .map(|(key, value)| {
            let d = definitions.iter().find(|d| d.name == key);
            let value = if d.is_some_and(|d| d.is_secret()) { "(secret)" } else { value };
            let says = d.map_or("The class does not have it; no effect.", |d| match d.verdict {
                Verdict::DefaultOnly => "Its default, the only value that Catchwater knows.",
                _ => d.documentation(),
            });
            vec![key.clone(), value.to_owned(), says.to_owned()]
        })
        .collect();
    let mut text = table(&["PROPERTY", "VALUE", "HERE"], &rows);
    for converter in unnamed.iter().flatten() {
        text = format!("{}\n{}", text.trim_end(), of_the_worker(converter));
    }
    let list: Vec<Value> = rows.iter().map(|r| json!({"property": r[0], "value": r[1], "verdict": r[2]})).collect();
    Done::new(
        format!("{name} would run here as it is; nothing was changed"),
        json!({"connector": name, "properties": list}),
        text,
    )
}
