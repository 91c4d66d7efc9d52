//! `catchwater wait`: until a position of the source is visible at the sinks.

use super::group::text;
use super::pipeline::post;
use crate::cli::Wait;
use crate::pipeline::schema::duration_ms;
use crate::report::{Done, Exit, Failure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub async fn run(args: Wait) -> Result<Done, Failure> {
    let Some(limit) = duration_ms(&args.timeout).map(Duration::from_millis) else {
        return Err(Failure::new(
            Exit::Refused,
            "CW0346",
            format!("--timeout {}: a duration with a unit", args.timeout),
        )
        .next("20ms 30s 2m 24h 7d"));
    };
    let begun = Instant::now();
    let mut positions = Value::Null;
    loop {
        let left = limit.saturating_sub(begun.elapsed());
        let ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        // What "now" was is asked once.
        let body = json!({
            "sink": args.sink, "position": args.position, "positions": positions, "timeout_ms": ms,
        });
        let answer = post(&args.http, &args.pipeline, "wait", body).await?;
        let shown = |v: &Value| {
            let sinks = v["sinks"].as_object().into_iter().flatten();
            let sinks = sinks.map(|(n, s)| format!("{n}: wanted {}, at {}", text(&s["wanted"]), text(&s["position"])));
            sinks.collect::<Vec<_>>().join("; ")
        };
        if answer["reached"] == true {
            let summary = format!("reached after {} ms: {}", begun.elapsed().as_millis(), shown(&answer));
            return Ok(Done::new(summary, answer, ""));
        }
        if begun.elapsed() >= limit {
            let what = format!("not visible within {}", args.timeout);
            let mut f = Failure::new(Exit::Runtime, "CW0690", what).cause(shown(&answer));
            f = f.next("catchwater lag shows what the sinks do; a longer --timeout waits longer");
            f.details = Some(Box::new(answer));
            return Err(f);
        }
        let of = answer["sinks"].as_object().into_iter().flatten();
        positions = Value::Object(of.map(|(n, s)| (n.clone(), s["wanted"].clone())).collect());
    }
}
