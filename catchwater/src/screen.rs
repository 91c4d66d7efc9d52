//! What `dev` shows while it runs: on a terminal a live view, else one JSON line per second on standard output.

use crate::assemble::{State, WorkerLine};
use crate::live;
use crate::report::{show, table};
use catchwater_client::remote::decode_records;
use catchwater_client::{At, Fetch, FetchPart, Isolation, LogClient, Topic};
use catchwater_record::{Offset, TopicPartition};
use catchwater_runtime::spawn::{Task, spawn};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(1);
/// Lines of the newest changes.
const CHANGES: usize = 6;

/// Runs until dropped.
pub struct Screen {
    _task: Task<()>,
    terminal: bool,
}

impl Screen {
    /// `demo` = the folder of the demo's databases.
    pub fn start(state: Arc<State>, kafka: String, demo: Option<PathBuf>) -> Screen {
        let terminal = std::io::stdout().is_terminal();
        let mut painter = Painter { state, kafka, demo, last: BTreeMap::new(), began: Instant::now(), frames: 0 };
        let task = spawn("screen", async move {
            loop {
                if terminal {
                    painter.paint().await
                } else {
                    painter.line()
                }
                catchwater_runtime::time::sleep(EVERY).await;
            }
        });
        Screen { _task: task, terminal }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.terminal {
            // Cursor back, below the view.
            show("\x1b[?25h\n");
        }
    }
}

struct Painter {
    state: Arc<State>,
    kafka: String,
    demo: Option<PathBuf>,
    /// Rows of each node at the frame before.
    last: BTreeMap<String, (u64, Instant)>,
    began: Instant,
    frames: u64,
}

impl Painter {
    fn rates(&mut self, lines: &[WorkerLine]) -> Vec<u64> {
        let now = Instant::now();
        lines
            .iter()
            .map(|l| {
                let before = self.last.insert(format!("{}/{}", l.kind, l.node), (l.rows, now));
                let Some((rows, at)) = before else { return 0 };
                let seconds = now.duration_since(at).as_secs_f64().max(0.001);
                (l.rows.saturating_sub(rows) as f64 / seconds).round() as u64
            })
            .collect()
    }

    fn line(&mut self) {
        let lines = self.state.lines();
        let rates = self.rates(&lines);
        let sum = |kind: &str| lines.iter().filter(|l| l.kind == kind).map(|l| l.rows).sum::<u64>();
        let rate = |kind: &str| lines.iter().zip(&rates).filter(|(l, _)| l.kind == kind).map(|(_, r)| r).sum::<u64>();
        let lag = lines.iter().filter(|l| l.kind == "sink").map(|l| l.lag_ms).max().unwrap_or(0);
        let nodes: Vec<_> = lines.iter().map(crate::assemble::line_json).collect();
        let text = json!({
            "uptime_s": self.began.elapsed().as_secs(), "kafka": self.kafka,
            "rows_captured": sum("source"), "rows_delivered": sum("sink"),
            "captured_per_s": rate("source"), "delivered_per_s": rate("sink"), "lag_ms": lag, "tasks": nodes,
        });
        show(&format!("{text}\n"));
    }

    async fn paint(&mut self) {
        let lines = self.state.lines();
        let rates = self.rates(&lines);
        let topics = self.state.captured_topics().await;
        let changes = self.last_changes(&topics).await;
        let mut out = String::new();
        if self.frames == 0 {
            out.push_str("\x1b[2J\x1b[?25l");
        }
        self.frames += 1;
        let mut body = format!("catchwater dev   kafka {}   up {} s\n\n", self.kafka, self.began.elapsed().as_secs());
        let rows: Vec<Vec<String>> = lines
            .iter()
            .zip(&rates)
            .map(|(l, rate)| {
                let lag = if l.kind == "sink" { format!("{} ms", l.lag_ms) } else { String::new() };
                vec![
                    l.kind.into(),
                    l.node.clone(),
                    l.word().into(),
                    l.rows.to_string(),
                    format!("{rate}/s"),
                    lag,
                    l.position.clone(),
                ]
            })
            .collect();
        body.push_str(&table(&["", "NODE", "STATE", "ROWS", "RATE", "LAG", "POSITION"], &rows));
        for l in &lines {
            if let Some((code, what)) = &l.error {
                body.push_str(&format!("\n{} {}: {code} {what}\n", l.kind, l.node));
            }
        }
        body.push_str("\nlast changes\n");
        for c in changes {
            body.push_str(&format!("  {}\n", c.chars().take(110).collect::<String>()));
        }
        let topic =
            topics.iter().max_by_key(|t| t.name.as_str().contains("orders")).map_or("TOPIC", |t| t.name.as_str());
        body.push_str(&format!("\ntry     kcat -b {} -C -t {topic} -o beginning\n", self.kafka));
        if let Some(folder) = &self.demo {
            body.push_str(&format!(
                "        sqlite3 {} 'select count(*) from orders'\n",
                folder.join("copy.db").display()
            ));
        }
        body.push_str("Ctrl-C ends it.\n");
        out.push_str(&live::drawn(&live::fit(&body, live::size())));
        show(&out);
    }

    /// The newest records of the captured topics, as `topic op after`.
    async fn last_changes(&self, topics: &[Topic]) -> Vec<String> {
        let local = self.state.local();
        let parts: Vec<TopicPartition> = topics.iter().map(|t| TopicPartition::new(t.id, 0)).collect();
        let Ok(bounds) = local.bounds(parts.clone(), At::Now).await else { return Vec::new() };
        let mut found: Vec<(i64, String)> = Vec::new();
        for ((topic, at), bound) in topics.iter().zip(parts).zip(bounds) {
            let from = Offset(bound.high_watermark.0.saturating_sub(CHANGES as u64).max(bound.log_start.0));
            let want = Fetch {
                parts: vec![FetchPart { at, offset: from, max_bytes: 64 * 1024 }],
                isolation: Isolation::Committed,
                min_bytes: 0,
                max_wait_ms: 0,
                credit_bytes: 64 * 1024,
            };
            let Ok(fetched) = local.fetch(want).await else { continue };
            for batches in fetched.into_iter().filter_map(|f| f.batches.ok()) {
                for r in decode_records(&batches, from.wire()).unwrap_or_default() {
                    let Some(value) = &r.value else { continue };
                    let Ok(event) = serde_json::from_slice::<serde_json::Value>(value) else { continue };
                    let row = if event["after"].is_null() { &event["before"] } else { &event["after"] };
                    let op = event["op"].as_str().unwrap_or("?").to_owned();
                    found.push((r.timestamp_ms, format!("{op}  {}  {row}", topic.name)));
                }
            }
        }
        found.sort_by_key(|(ts, _)| *ts);
        found.into_iter().rev().take(CHANGES).map(|(_, text)| text).collect()
    }
}
