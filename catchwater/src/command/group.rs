//! `catchwater group …` and `catchwater lag`: asked of the node over HTTP.

use super::node::Ended;
use crate::cli::{Group, Http};
use crate::http;
use crate::live::{self, Live};
use crate::report::{self, Done, Exit, Failure, Output};
use crate::signal::Signals;
use serde_json::{Value, json};
use std::time::Duration;

pub async fn run(command: Group) -> Result<Done, Failure> {
    match command {
        Group::List { http } => {
            let groups = http::get(&http.http, "groups").await?;
            let rows: Vec<Vec<String>> = items(&groups)
                .map(|g| vec![text(&g["group"]), text(&g["state"]), text(&g["protocol_type"]), text(&g["members"])])
                .collect();
            let table = report::table(&["GROUP", "STATE", "TYPE", "MEMBERS"], &rows);
            Ok(Done::new(format!("{} groups", rows.len()), groups, table))
        }
        Group::Describe { group, http } => {
            let path = format!("groups/{}", escape(&group));
            let found = http::get(&http.http, &path).await.map_err(|f| match f.code.as_str() {
                "CW0008" => Failure::new(Exit::Runtime, "CW0008", format!("no group {group}"))
                    .next("catchwater group list shows the names"),
                _ => f,
            })?;
            let mut out =
                format!("group {group}  state {}  protocol {}\n\n", text(&found["state"]), text(&found["protocol"]));
            let members: Vec<Vec<String>> = items(&found["members"])
                .map(|m| vec![text(&m["member"]), text(&m["client_id"]), text(&m["host"])])
                .collect();
            if !members.is_empty() {
                out.push_str(&report::table(&["MEMBER", "CLIENT", "HOST"], &members));
                out.push('\n');
            }
            let offsets: Vec<Vec<String>> = items(&found["offsets"])
                .map(|o| ["topic", "partition", "offset", "end", "lag"].map(|k| text(&o[k])).to_vec())
                .collect();
            out.push_str(&report::table(&["TOPIC", "PARTITION", "OFFSET", "END", "LAG"], &offsets));
            Ok(Done::new(format!("group {group}"), found, out))
        }
    }
}

/// Columns of `lag`. The stages are milliseconds, in the order of the way from source to target, and sum up to the lag. A sink's rows
/// are what it took from the log since it began, and what became of them sums up to that.
const LAG: [&str; 11] = [
    "PIPELINE",
    "NODE",
    "KIND",
    "STATE",
    "LAG_MS",
    "CAPTURE+LOG+APPLY+COMMIT",
    "RECORDS",
    "ROWS",
    "APPLIED+FOLDED+PARKED+FILTERED",
    "POSITION",
    "ERROR",
];

/// `54+0+5+0`, rows; `-` for what is no sink.
fn outcomes(line: &Value) -> String {
    let of = |outcome: &str| Some(line["ledger"][outcome].as_u64()?.to_string());
    let all: Option<Vec<String>> = ["applied", "folded", "parked", "filtered"].into_iter().map(of).collect();
    all.map_or("-".into(), |all| all.join("+"))
}

/// `1+0+3+12`, milliseconds; `-` for what is no sink.
pub(super) fn stages(line: &Value) -> String {
    let of = |stage: &str| line["stages_us"][stage].as_u64();
    let ms: Option<Vec<String>> = ["capture", "log", "apply", "commit"].iter().map(|s| of(s)).map(ms).collect();
    ms.map_or("-".into(), |all| all.join("+"))
}

fn ms(us: Option<u64>) -> Option<String> {
    Some((us? / 1000).to_string())
}

/// One table, or one every second: on a terminal in its place, else one below the other.
pub async fn lag(http: &Http, watch: bool, output: Output) -> Ended {
    if !watch {
        let done = http::get(&http.http, "lag").await.map(|found| {
            let table = report::table(&LAG, &lag_rows(&found));
            Done::new(format!("{} tasks", items(&found).count()), found, table)
        });
        return done.into();
    }
    let title = format!("catchwater lag  {}", http.http);
    watch_node(&http.http, output, "lag", None, |found, live| match (output, live) {
        (Output::Json, _) => Shown::Json(found.clone()),
        (Output::Table, false) => Shown::Text(format!("{}\n", report::table(&LAG, &lag_rows(found)))),
        (Output::Table, true) => Shown::Text(live_table(&title, &LAG, found, lag_rows(found))),
    })
    .await
}

fn lag_rows(found: &Value) -> Vec<Vec<String>> {
    items(found)
        .map(|l| {
            vec![
                text(&l["pipeline"]),
                text(&l["node"]),
                text(&l["kind"]),
                text(&l["state"]),
                text(&l["lag_ms"]),
                stages(l),
                text(&l["lag_records"]),
                // Of a sink what it took, of which the next column is the account.
                l["ledger"]["taken"].as_u64().map_or_else(|| text(&l["rows"]), |n| n.to_string()),
                outcomes(l),
                text(&l["position"]),
                text(&l["error"]),
            ]
        })
        .collect()
}

/// What fails stands below the table, whole: its column, the last, would be cut away on most terminals.
pub(super) fn live_table(title: &str, header: &[&str], found: &Value, rows: Vec<Vec<String>>) -> String {
    let rows = items(found).zip(rows).map(|(l, mut cells)| {
        let whose = format!("{} {} {}", text(&l["pipeline"]), text(&l["kind"]), text(&l["node"]));
        let error = cells.pop().filter(|e| e != "-").map(|e| format!("{whose}: {e}"));
        live::Row { cells, lag_ms: l["lag_ms"].as_u64().unwrap_or(0), error }
    });
    live::table(title, header.get(..header.len() - 1).unwrap_or_default(), rows.collect(), live::size())
}

/// A frame of [`watch_node`].
pub(super) enum Shown {
    Json(Value),
    Text(String),
}

/// What the node says of its tasks, once a second, until a signal, the reader goes away, or so many frames; on a terminal over
/// restarts of the node. `show` makes a frame of it, for a terminal or not.
pub(super) async fn watch_node(
    address: &str,
    output: Output,
    command: &'static str,
    frames: Option<u64>,
    mut show: impl FnMut(&Value, bool) -> Shown,
) -> Ended {
    // The first answer decides: who mistyped the address is told so, and has nothing redrawn.
    let mut found = match http::get(address, "lag").await {
        Ok(found) => found,
        Err(f) => return f.into(),
    };
    let title = format!("catchwater {command}  {address}");
    let live = if output == Output::Table { Live::begin() } else { None };
    // Without a terminal that must be put back, a signal ends the process as it ends any.
    let signals = live.is_some().then(Signals::listen);
    let work = async {
        let mut frame = 0;
        loop {
            let shown = show(&found, live.is_some());
            frame += 1;
            let last = frames == Some(frame);
            let done = |result, text| Done::new(format!("{frame} frame(s)"), result, text);
            let line = match (shown, last) {
                (Shown::Json(value), true) => return Ok(done(value, String::new())),
                (Shown::Text(text), true) => return Ok(done(Value::Null, text)),
                (Shown::Json(value), false) => {
                    format!("{}\n", json!({"command": command, "ok": true, "result": value}))
                }
                (Shown::Text(text), false) => text,
            };
            match &live {
                Some(live) => live.frame(&line),
                None if !report::print(&line) => return Ok(Done::silent()),
                None => {}
            }
            loop {
                catchwater_runtime::time::sleep(Duration::from_secs(1)).await;
                match (http::get(address, "lag").await, &live) {
                    (Ok(now), _) => {
                        found = now;
                        break;
                    }
                    (Err(f), None) => return Err(f),
                    // The node may be starting again.
                    (Err(f), Some(live)) => {
                        let why = format!("{}: {}; trying again", f.message, f.cause);
                        live.frame(&live::paragraph(&title, &why));
                    }
                }
            }
        }
    };
    let ended = match signals {
        Some(signals) => tokio::select! {
            ended = work => Ok(ended),
            code = signals.wait() => Err(code),
        },
        None => Ok(work.await),
    };
    drop(live);
    match ended {
        Ok(outcome) => outcome.into(),
        Err(code) => Ended { outcome: Ok(Done::silent()), signal: Some(code) },
    }
}

pub(super) fn items(v: &Value) -> impl Iterator<Item = &Value> {
    v.as_array().into_iter().flatten()
}

pub(super) fn text(v: &Value) -> String {
    match v {
        Value::Null => "-".into(),
        Value::String(s) if s.is_empty() => "-".into(),
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

/// Percent-encodes everything but letters, digits and `-._~`.
pub(super) fn escape(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}
