//! `catchwater group …` and `catchwater lag`: asked of the node over HTTP.

use crate::cli::{Group, Http};
use crate::http;
use crate::report::{self, Done, Exit, Failure, Output};
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

/// One table, or one every second.
pub async fn lag(http: &Http, watch: bool, output: Output) -> Result<Done, Failure> {
    loop {
        let found = http::get(&http.http, "lag").await?;
        let rows: Vec<Vec<String>> = items(&found)
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
            .collect();
        let table = report::table(&LAG, &rows);
        if !watch {
            return Ok(Done::new(format!("{} tasks", rows.len()), found, table));
        }
        match output {
            Output::Table => report::print(&format!("{table}\n")),
            Output::Json => report::print(&format!("{}\n", json!({"command": "lag", "ok": true, "result": found}))),
        }
        catchwater_runtime::time::sleep(Duration::from_secs(1)).await;
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
