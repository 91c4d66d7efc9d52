//! `catchwater import connect`: a connector of a Kafka Connect worker goes on here, at the row it had come to, with its slot
//! and publication. It is stopped there, its offset is read, and it is put on this node's Connect face with it.
//!
//! Order: nothing is stopped before its properties are known to be taken; the offset is read only when nobody streams from
//! the slot any more, for a task commits its last offset before it lets go of the slot.

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
    for set in &args.set {
        let Some((key, value)) = set.split_once('=') else {
            return Err(refused(format!("--set {set} is not PROPERTY=VALUE")));
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
        return Ok(explained(&args.name, &config));
    }

    let state = |answer: &Value| answer["connector"]["state"].as_str().unwrap_or_default().to_owned();
    let status = there(Method::GET, "/status", Value::Null).await?;
    if state(&status) != "STOPPED" {
        if !args.stop {
            return Err(refused(format!("connector {} is {} there", args.name, state(&status)))
                .cause("while it runs, it reads from the slot")
                .next("run this again with --stop, or: curl -X PUT http://".to_owned() + &worker + &path + "/stop"));
        }
        there(Method::PUT, "/stop", Value::Null).await?;
    }
    let begun = Instant::now();
    let late = |what: &str| {
        Failure::new(Exit::Runtime, "CW0359", format!("{what} after {} s", LIMIT.as_secs()))
            .next("look into the worker's log; nothing was changed here")
    };
    loop {
        let status = there(Method::GET, "/status", Value::Null).await?;
        let tasks = status["tasks"].as_array().is_some_and(|t| !t.is_empty());
        if state(&status) == "STOPPED" && !tasks {
            match assemble::is_slot_held(&source_name, &source).await? {
                Some(true) => {}
                Some(false) => break,
                None => {
                    return Err(refused("the connector's replication slot does not exist")
                        .cause("slot.drop.on.stop, or somebody else, has dropped it: changes since then are not kept")
                        .next(
                            "capture anew: put the properties on this node's Connect face, with snapshot.mode=initial",
                        ));
                }
            }
        }
        if begun.elapsed() > LIMIT {
            return Err(late("the connector there still holds its slot"));
        }
        sleep(PAUSE).await;
    }
    let answer = there(Method::GET, "/offsets", Value::Null).await?;
    let offsets: Vec<&Value> = answer["offsets"].as_array().into_iter().flatten().collect();
    let [offset] = offsets[..] else {
        return Err(refused(format!("connector {} has {} offsets, not one", args.name, offsets.len()))
            .next("it has not captured anything yet: put its properties on this node's Connect face"));
    };
    config.remove("name");
    config.insert(OFFSET.to_owned(), offset["offset"].to_string());
    let (status, answer) = exchange(&args.to, Method::PUT, &format!("{path}/config"), json!(config)).await?;
    if status >= 300 {
        let why = answer["message"].as_str().unwrap_or_default().to_owned();
        let back = format!("to go back: curl -X PUT http://{worker}{path}/resume");
        return Err(refused(format!("this node answers {status}")).cause(why).next(back));
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
            _ if begun.elapsed() > LIMIT => return Err(late("the source does not run here")),
            _ => sleep(PAUSE).await,
        }
    }
    let text = format!(
        "{} goes on here behind {}\nDo not start it on {worker} again; delete it there, or keep it stopped.",
        args.name, offset["offset"]
    );
    Ok(Done::new(
        format!("{} taken over", args.name),
        json!({"connector": args.name, "offset": offset["offset"]}),
        text,
    ))
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What becomes of each property.
fn explained(name: &str, config: &BTreeMap<String, String>) -> Done {
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
    let list: Vec<Value> = rows.iter().map(|r| json!({"property": r[0], "value": r[1], "verdict": r[2]})).collect();
    Done::new(
        format!("{name} would run here as it is; nothing was changed"),
        json!({"connector": name, "properties": list}),
        table(&["PROPERTY", "VALUE", "HERE"], &rows),
    )
}
