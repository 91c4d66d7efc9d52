//! `catchwater plan`, `apply`, `diff`, `rollback` and `pipeline …`: asked of the node over HTTP. Files are checked here
//! first, so that every mistake is shown at its place.

use crate::cli::{Http, Pipeline};
use crate::command::group::{escape, items, text};
use crate::command::validate;
use crate::http::{self, Call, Verb};
use crate::pipeline::Options;
use crate::report::{self, Done, Exit, Failure, Output};
use serde_json::{Value, json};
use similar::TextDiff;
use std::path::Path;

/// A checked file, as the node wants it.
struct File {
    name: String,
    text: String,
    base_dir: String,
}

fn read(file: &Path, output: Output) -> Result<File, Failure> {
    let (pipeline, text, _) = validate::load(file, Options { plain_secrets: false }, output)?;
    let base = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The node reads relative paths from here: it listens on this machine only.
    let base_dir = std::path::absolute(base).unwrap_or_else(|_| base.to_path_buf()).display().to_string();
    Ok(File { name: pipeline.name, text, base_dir })
}

pub(super) fn author() -> String {
    ["USER", "LOGNAME"].iter().find_map(|v| std::env::var(v).ok()).unwrap_or_default()
}

pub(super) async fn post(http: &Http, name: &str, verb: &str, body: Value) -> Result<Value, Failure> {
    let path = format!("pipelines/{}/{verb}", escape(name));
    http::call(&http.http, Call { verb: Verb::Post, path, body }).await
}

/// Steps and findings as people read them.
fn plan_text(plan: &Value) -> String {
    let mut out = String::new();
    let (base, name) = (text(&plan["base"]), text(&plan["pipeline"]));
    match base.as_str() {
        "0" => out.push_str(&format!("pipeline {name} is new\n")),
        _ => out.push_str(&format!("pipeline {name}, against revision {base}\n")),
    }
    for s in items(&plan["steps"]) {
        out.push_str(&format!("  {:<12} {}: {}\n", text(&s["class"]), text(&s["node"]), text(&s["what"])));
        if !s["next"].as_str().unwrap_or_default().is_empty() {
            out.push_str(&format!("               {}\n", text(&s["next"])));
        }
    }
    if items(&plan["steps"]).next().is_none() {
        out.push_str("  nothing changes but the text\n");
    }
    for f in items(&plan["findings"]) {
        out.push_str(&format!(
            "  {}[{}] {}: {}\n",
            text(&f["severity"]),
            text(&f["code"]),
            text(&f["node"]),
            text(&f["fault"])
        ));
        for (key, of) in [("cause", &f["evidence"]), ("next", &f["cure"])] {
            if !of.as_str().unwrap_or_default().is_empty() {
                out.push_str(&format!("               {key}: {}\n", text(of)));
            }
        }
        for sql in items(&f["sql"]) {
            out.push_str(&format!("               {}\n", text(sql)));
        }
    }
    out
}

/// What would be done; nothing is.
pub async fn plan(file: &Path, http: &Http, output: Output) -> Result<Done, Failure> {
    let file = read(file, output)?;
    let plan = post(http, &file.name, "plan", json!({"text": file.text, "base_dir": file.base_dir})).await?;
    let shown = format!("{}plan hash {}\n", plan_text(&plan), text(&plan["hash"]));
    if plan["refused"] == true {
        if output == Output::Table {
            report::print(&shown);
        }
        let mut f = Failure::new(Exit::Refused, "CW0341", "this plan would be refused")
            .cause("see the lines marked refused or error")
            .next("correct them and plan again");
        f.details = Some(Box::new(plan));
        return Err(f);
    }
    Ok(Done::new(format!("{} step(s)", items(&plan["steps"]).count()), plan, shown))
}

/// Every file, one after the other; the first that would be refused is the failure.
pub async fn plan_all(files: &[std::path::PathBuf], http: &Http, output: Output) -> Result<Done, Failure> {
    let (mut shown, mut results) = (String::new(), Vec::new());
    for file in files {
        let done = plan(file, http, output).await?;
        shown.push_str(&done.text);
        results.push(done.result);
    }
    Ok(Done::new(format!("{} pipeline(s) planned", results.len()), results.into(), shown))
}

pub struct Apply<'a> {
    pub files: &'a [std::path::PathBuf],
    pub hash: Option<String>,
    pub message: String,
    pub allow_destructive: bool,
}

/// Every file is checked before the first is applied.
pub async fn apply(args: Apply<'_>, http: &Http, output: Output) -> Result<Done, Failure> {
    if args.hash.is_some() && args.files.len() > 1 {
        return Err(Failure::new(Exit::Refused, "CW0342", "--plan-hash is of one plan, but there are several files")
            .next("apply them one by one"));
    }
    let files = args.files.iter().map(|f| read(f, output)).collect::<Result<Vec<_>, _>>()?;
    let (mut shown, mut results) = (String::new(), Vec::new());
    for file in files {
        let body = json!({
            "text": file.text, "base_dir": file.base_dir, "author": author(), "message": args.message,
            "hash": args.hash.clone().unwrap_or_default(), "allow_destructive": args.allow_destructive,
        });
        let done = post(http, &file.name, "apply", body).await?;
        shown.push_str(&plan_text(&done["plan"]));
        shown.push_str(&format!("applied: revision {}\n", text(&done["revision"])));
        results.push(done);
    }
    Ok(Done::new(format!("{} pipeline(s) applied", results.len()), results.into(), shown))
}

/// The stored text against a file, as a unified difference.
pub async fn diff(file: &Path, http: &Http, output: Output) -> Result<Done, Failure> {
    let file = read(file, output)?;
    let stored = match http::get(&http.http, &format!("pipelines/{}", escape(&file.name))).await {
        Ok(stored) => stored,
        Err(f) if f.code == "CW0344" => json!({"revision": 0, "text": ""}),
        Err(f) => return Err(f),
    };
    let old = stored["text"].as_str().unwrap_or_default();
    let revision = text(&stored["revision"]);
    let unified = TextDiff::from_lines(old, &file.text)
        .unified_diff()
        .header(&format!("{} revision {revision}", file.name), &file.name)
        .to_string();
    let summary = if unified.is_empty() { format!("{} is as stored", file.name) } else { String::new() };
    let result =
        json!({"pipeline": file.name, "revision": stored["revision"], "changed": !unified.is_empty(), "diff": unified});
    Ok(Done::new(summary, result, unified))
}

pub async fn rollback(
    name: &str,
    to: u64,
    message: String,
    allow_destructive: bool,
    http: &Http,
) -> Result<Done, Failure> {
    let body = json!({"to": to, "author": author(), "message": message, "allow_destructive": allow_destructive});
    let done = post(http, name, "rollback", body).await?;
    let shown = format!(
        "{}applied the text of revision {to}: revision {}\n",
        plan_text(&done["plan"]),
        text(&done["revision"])
    );
    Ok(Done::new(format!("{name} rolled back to {to}"), done, shown))
}

pub async fn run(command: Pipeline) -> Result<Done, Failure> {
    match command {
        Pipeline::List { http } => list(&http).await,
        Pipeline::Show { name, revision, http } => show(&name, revision, &http).await,
        Pipeline::Revisions { name, http } => {
            let kept = http::get(&http.http, &format!("pipelines/{}/revisions", escape(&name))).await?;
            let rows: Vec<Vec<String>> = items(&kept)
                .map(|r| vec![text(&r["revision"]), utc(&r["applied_ms"]), text(&r["author"]), text(&r["message"])])
                .collect();
            let table = report::table(&["REVISION", "APPLIED", "AUTHOR", "MESSAGE"], &rows);
            Ok(Done::new(format!("{} revisions", rows.len()), kept, table))
        }
        Pipeline::Pause { name, http } => verb(&name, "pause", "pauses", &http).await,
        Pipeline::Resume { name, http } => verb(&name, "resume", "goes on", &http).await,
        Pipeline::Snapshot { name, source, table, filter, rows_per_second, pause, resume, stop, http } => {
            let action = match (pause, resume, stop, table.is_empty()) {
                (true, ..) => "pause",
                (_, true, ..) => "resume",
                (_, _, true, _) => "stop",
                (.., false) => "execute",
                _ => return progress(&name, &http).await,
            };
            let body = json!({
                "action": action, "source": source, "tables": table, "filter": filter,
                "rows_per_second": rows_per_second, "author": author(),
            });
            let done = post(&http, &name, "snapshot", body).await?;
            Ok(Done::new(text(&done["told"]), done, ""))
        }
        Pipeline::Restart { name, http } => verb(&name, "restart", "starts its tasks again", &http).await,
        Pipeline::Reset { name, source, allow_destructive, http } => {
            let body = json!({"source": source, "allow_destructive": allow_destructive, "author": author()});
            let done = post(&http, &name, "reset", body).await?;
            let mut shown = String::new();
            for t in items(&done["topics"]) {
                shown.push_str(&format!("  topic {}\n", text(t)));
            }
            let when = if done["paused"] == true { " once the pipeline is resumed" } else { "" };
            let shown = format!("source {} is read again{when}; made anew:\n{shown}", text(&done["source"]));
            Ok(Done::new(format!("{} is read again{when}", text(&done["source"])), done, shown))
        }
        Pipeline::Delete { name, allow_destructive, http } => {
            let path = format!("pipelines/{}", escape(&name));
            let body = json!({"allow_destructive": allow_destructive, "author": author()});
            let done = http::call(&http.http, Call { verb: Verb::Delete, path, body }).await?;
            let mut shown = format!("pipeline {name} is deleted; its topics and target tables stay\n");
            for s in items(&done["steps"]) {
                shown.push_str(&format!("  {}: {}\n", text(&s["node"]), text(&s["what"])));
            }
            Ok(Done::new(format!("{name} deleted"), done, shown))
        }
    }
}

/// The ad hoc snapshots of a pipeline's sources.
async fn progress(name: &str, http: &Http) -> Result<Done, Failure> {
    let lines = http::get(&http.http, "lag").await?;
    let mine: Vec<&Value> = items(&lines).filter(|l| l["pipeline"] == name && l["kind"] == "source").collect();
    let mut rows = Vec::new();
    for line in &mine {
        for a in items(&line["ad_hoc"]) {
            let of = a["rows_estimate"].as_u64().filter(|n| *n > 0).map_or("?".into(), |n| n.to_string());
            let eta = a["eta_ms"].as_u64().map_or("-".into(), |ms| format!("{} s", ms.div_ceil(1000)));
            let done = format!("{} of about {of}", text(&a["rows"]));
            rows.push(vec![text(&line["node"]), text(&a["table"]), text(&a["state"]), done, text(&a["chunks"]), eta]);
        }
    }
    let said = format!("{} table(s) are read again", rows.len());
    let mut shown = match rows.is_empty() {
        true => format!("{said}\n"),
        false => report::table(&["SOURCE", "TABLE", "STATE", "ROWS", "CHUNKS", "ETA"], &rows),
    };
    for line in &mine {
        let refused = &line["ad_hoc_refused"];
        if let Some(last) = refused["last"].as_str() {
            let count = text(&refused["count"]);
            shown.push_str(&format!(
                "{}: {count} not followed or given up since it began; the newest: CW0591 {last}\n",
                text(&line["node"])
            ));
        }
    }
    let of = |l: &Value| json!({"source": l["node"], "ad_hoc": l["ad_hoc"], "refused": l["ad_hoc_refused"]});
    let result: Vec<Value> = mine.iter().map(|l| of(l)).collect();
    Ok(Done::new(said, result.into(), shown))
}

async fn verb(name: &str, verb: &str, says: &str, http: &Http) -> Result<Done, Failure> {
    let done = post(http, name, verb, json!({"author": author()})).await?;
    Ok(Done::new(format!("pipeline {name} {says}"), done, ""))
}

async fn list(http: &Http) -> Result<Done, Failure> {
    let all = http::get(&http.http, "pipelines").await?;
    let rows: Vec<Vec<String>> = items(&all)
        .map(|p| {
            let lag = items(&p["tasks"]).filter(|t| t["kind"] == "sink").filter_map(|t| t["lag_ms"].as_u64()).max();
            let error = items(&p["tasks"]).find_map(|t| t["error"].as_str()).unwrap_or("-");
            vec![
                text(&p["pipeline"]),
                text(&p["revision"]),
                text(&p["state"]),
                items(&p["tasks"]).count().to_string(),
                lag.map_or("-".into(), |l| l.to_string()),
                error.to_owned(),
            ]
        })
        .collect();
    let table = report::table(&["PIPELINE", "REVISION", "STATE", "TASKS", "LAG_MS", "ERROR"], &rows);
    Ok(Done::new(format!("{} pipelines", rows.len()), all, table))
}

async fn show(name: &str, revision: Option<u64>, http: &Http) -> Result<Done, Failure> {
    let path = match revision {
        None => format!("pipelines/{}", escape(name)),
        Some(no) => format!("pipelines/{}/revisions/{no}", escape(name)),
    };
    let found = http::get(&http.http, &path).await?;
    let body = found["text"].as_str().unwrap_or_default().to_owned();
    Ok(Done::new(format!("{name} revision {}", text(&found["revision"])), found, body))
}

/// Milliseconds since 1970 → `2026-01-31 12:00:00Z`. Days by the proleptic Gregorian calendar.
pub(super) fn utc(ms: &Value) -> String {
    let seconds = ms.as_i64().unwrap_or_default().div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years of 400-year eras that begin on the first of March, so that the leap day is the last of its year.
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (d, m) = (of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let y = year + era * 400 + i64::from(m <= 2);
    format!("{y:04}-{m:02}-{d:02} {:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (ms, shown) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_400_000_i64, "2000-02-29 00:00:00Z"),
            (1_700_000_000_123, "2023-11-14 22:13:20Z"),
            (-1, "1969-12-31 23:59:59Z"),
            (4_107_542_399_000, "2100-02-28 23:59:59Z"),
            (4_107_542_400_000, "2100-03-01 00:00:00Z"),
        ] {
            assert_eq!(utc(&json!(ms)), shown);
        }
    }
}
