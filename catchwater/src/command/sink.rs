//! `catchwater sink …`: what is asked of one sink while it runs.

use super::group::{items, text};
use super::pipeline::{author, post};
use crate::cli::{Http, Sink};
use crate::http;
use crate::report::{Done, Exit, Failure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(200);

pub async fn run(command: Sink) -> Result<Done, Failure> {
    match command {
        Sink::Rebuild { pipeline, sink, http } => rebuild(&pipeline, &sink, &http).await,
    }
}

/// Ends when the new rows are visible. Interrupted, the rebuild goes on.
async fn rebuild(pipeline: &str, sink: &str, http: &Http) -> Result<Done, Failure> {
    let begun = Instant::now();
    let before = counts(pipeline, sink, http).await?;
    post(http, pipeline, "rebuild", json!({"sink": sink, "author": author()})).await?;
    loop {
        let line = counts(pipeline, sink, http).await?;
        let failed = &line["rebuilds"]["failed"];
        if !failed.is_null() {
            return Err(Failure::new(
                Exit::Runtime,
                &text(&failed["code"]),
                format!("sink {sink}: {}", text(&failed["message"])),
            )
            .cause("the rebuild was given up; the target is as it was and the sink goes on")
            .next(text(&failed["next"])));
        }
        let (done, of) =
            (line["rebuilds"]["done"].as_u64().unwrap_or(0), line["rebuilds"]["begun"].as_u64().unwrap_or(0));
        if of > 0 && done >= of {
            let summary = format!("sink {sink} of {pipeline} was rebuilt in {} ms", begun.elapsed().as_millis());
            return Ok(Done::new(summary, line, ""));
        }
        if of < before["rebuilds"]["begun"].as_u64().unwrap_or(0) || of == 0 || line["state"] == "paused" {
            return Err(Failure::new(Exit::Runtime, "CW0689", format!("sink {sink} of {pipeline} does not run"))
                .cause("it ended before the rebuild did; the target is as it was")
                .next("catchwater lag shows why; rebuild again when it runs"));
        }
        catchwater_runtime::time::sleep(LOOK_EVERY).await;
    }
}

async fn counts(pipeline: &str, sink: &str, http: &Http) -> Result<Value, Failure> {
    let lines = http::get(&http.http, "lag").await?;
    let found = items(&lines).find(|l| l["pipeline"] == pipeline && l["node"] == sink && l["kind"] == "sink").cloned();
    Ok(found.unwrap_or_default())
}
