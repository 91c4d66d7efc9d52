//! `catchwater dlq …`: rows that targets refused.

use super::group::{escape, items, text};
use super::pipeline::{author, post, utc};
use crate::cli::{Dlq, Http, Letters};
use crate::report::{self, Done, Exit, Failure};
use serde_json::{Value, json};

pub async fn run(command: Dlq) -> Result<Done, Failure> {
    match command {
        Dlq::List { pipeline, sink, all, from, limit, http } => {
            let body = json!({"sink": sink, "all": all, "from": from, "limit": limit});
            let found = post(&http, &pipeline, "dlq/list", body).await?;
            Ok(list(&pipeline, found))
        }
        Dlq::Show { pipeline, offset, http } => show(&pipeline, offset, &http).await,
        Dlq::Replay { letters, http } => {
            let done = post(&http, &letters.pipeline, "dlq/replay", which(&letters)).await?;
            replayed(&letters.pipeline, done)
        }
        Dlq::Discard { letters, all, http } => {
            if letters.table.is_none() && letters.offset.is_none() && !all {
                return Err(Failure::new(Exit::Refused, "CW0346", "which dead letters are to be given up?")
                    .cause("discarded ones are not applied any more")
                    .next("say --offset N, --table T, or --all"));
            }
            let done = post(&http, &letters.pipeline, "dlq/discard", which(&letters)).await?;
            let keys = sum(&done, "keys");
            let summary = format!("{keys} key(s) are parked no more; their letters stay in {}", text(&done["topic"]));
            Ok(Done::new(summary, done, ""))
        }
    }
}

fn which(l: &Letters) -> Value {
    json!({"sink": l.sink, "table": l.table, "offset": l.offset, "author": author()})
}

fn sum(done: &Value, field: &str) -> u64 {
    done["sinks"].as_object().into_iter().flatten().filter_map(|(_, a)| a[field].as_u64()).sum()
}

fn list(pipeline: &str, found: Value) -> Done {
    let rows: Vec<Vec<String>> = items(&found["letters"])
        .map(|l| {
            vec![
                text(&l["offset"]),
                utc(&l["at_ms"]),
                text(&l["sink"]),
                text(&l["topic"]),
                text(&l["key"]),
                text(&l["code"]),
                text(&l["state"]),
                text(&l["message"]),
            ]
        })
        .collect();
    let mut table = report::table(&["OFFSET", "SINCE", "SINK", "TOPIC", "KEY", "CODE", "STATE", "WHY"], &rows);
    if let Some(next) = found["next"].as_i64() {
        table.push_str(&format!("more: catchwater dlq list {pipeline} --from {next}\n"));
    }
    Done::new(format!("{} dead letters", rows.len()), found, table)
}

async fn show(pipeline: &str, offset: u64, http: &Http) -> Result<Done, Failure> {
    let body = json!({"from": offset, "limit": 1, "all": true, "whole": true});
    let found = post(http, pipeline, "dlq/list", body).await?;
    let letter = found["letters"][0].clone();
    if letter["offset"].as_u64() != Some(offset) {
        return Err(Failure::new(Exit::Runtime, "CW0687", format!("{pipeline} has no dead letter at offset {offset}"))
            .next(format!("catchwater dlq list {} shows them", escape(pipeline))));
    }
    let shown = serde_json::to_string_pretty(&letter).unwrap_or_default();
    Ok(Done::new(format!("dead letter {offset} of {pipeline}"), letter, shown))
}

/// A row that is refused again is the command's failure; what was taken is done all the same.
fn replayed(pipeline: &str, done: Value) -> Result<Done, Failure> {
    let (keys, letters, kept) = (sum(&done, "keys"), sum(&done, "letters"), sum(&done, "kept"));
    let summary = format!("{letters} dead letter(s) applied, {keys} key(s) parked no more");
    let refused = done["sinks"].as_object().into_iter().flatten().find(|(_, a)| !a["refused"].is_null());
    let Some((sink, answer)) = refused else { return Ok(Done::new(summary, done, "")) };
    let r = &answer["refused"];
    let at = r["offset"].as_u64().map_or(String::new(), |o| format!(", the letter at offset {o}"));
    let code = r["code"].as_str().unwrap_or("CW0687");
    let mut f = Failure::new(Exit::Runtime, code, format!("{summary}; {kept} key(s) stay parked"))
        .cause(format!("the first that stays, of sink {sink}{at}: {}", text(&r["what"])))
        .next(format!("repair the target and replay again, or catchwater dlq discard {pipeline}"));
    f.details = Some(Box::new(done));
    Err(f)
}
