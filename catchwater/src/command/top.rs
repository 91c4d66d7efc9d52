//! `catchwater top`: what every task of a node does, again and again: rates, lag by stages, memory.

use super::group::{Shown, items, live_table, stages, text, watch_node};
use super::node::Ended;
use crate::cli::Top;
use crate::report::{self, Output};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Instant;

/// Row counts of the frame before, by task.
#[derive(Default)]
struct Before {
    rows: BTreeMap<String, u64>,
    at: Option<Instant>,
}

impl Before {
    /// Rows a second since the frame before; a task that has begun anew counts from zero.
    fn rates(&mut self, lines: &Value) -> Vec<Option<u64>> {
        let now = Instant::now();
        let seconds = self.at.replace(now).map(|at| now.duration_since(at).as_secs_f64().max(0.001));
        let mut rows = BTreeMap::new();
        let mut rates = Vec::new();
        for line in items(lines) {
            let name = format!("{}/{}/{}", line["pipeline"], line["kind"], line["node"]);
            let count = line["rows"].as_u64().unwrap_or(0);
            let since = self.rows.get(&name).map(|before| count.checked_sub(*before).unwrap_or(count));
            rates.push(since.zip(seconds).map(|(n, s)| (n as f64 / s).round() as u64));
            rows.insert(name, count);
        }
        self.rows = rows;
        rates
    }
}

/// Frames until it is interrupted, or so many.
pub async fn run(args: Top, output: Output) -> Ended {
    let mut before = Before::default();
    let address = args.http.http.clone();
    let title = format!("catchwater top  {address}");
    watch_node(&address, output, "top", args.frames, |lines, live| {
        let rates = before.rates(lines);
        match (output, live) {
            (Output::Json, _) => Shown::Json(with_rates(lines, &rates)),
            (Output::Table, false) => {
                Shown::Text(format!("{title}\n\n{}\n", report::table(&COLUMNS, &rows(lines, &rates))))
            }
            (Output::Table, true) => Shown::Text(live_table(&title, &COLUMNS, lines, rows(lines, &rates))),
        }
    })
    .await
}

fn with_rates(lines: &Value, rates: &[Option<u64>]) -> Value {
    let one = |(line, rate): (&Value, &Option<u64>)| {
        let mut line = line.clone();
        line["rows_per_second"] = json!(rate);
        line
    };
    items(lines).zip(rates).map(one).collect()
}

const COLUMNS: [&str; 11] = [
    "PIPELINE",
    "KIND",
    "NODE",
    "STATE",
    "ROWS/S",
    "LAG_MS",
    "CAPTURE+LOG+APPLY+COMMIT",
    "RECORDS",
    "HELD_KIB",
    "PARKED",
    "ERROR",
];

fn rows(lines: &Value, rates: &[Option<u64>]) -> Vec<Vec<String>> {
    items(lines)
        .zip(rates)
        .map(|(l, rate)| {
            vec![
                text(&l["pipeline"]),
                text(&l["kind"]),
                text(&l["node"]),
                text(&l["state"]),
                rate.map_or("-".into(), |r| r.to_string()),
                text(&l["lag_ms"]),
                stages(l),
                text(&l["lag_records"]),
                l["held_bytes"].as_u64().map_or("-".into(), |b| (b >> 10).to_string()),
                l["parked"]["keys"].as_u64().map_or("-".into(), |n| n.to_string()),
                text(&l["error"]),
            ]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn rates_count_from_zero_when_a_task_begins_anew() {
        let line = |rows: u64| json!([{"pipeline": "p", "kind": "sink", "node": "k", "rows": rows}]);
        let mut before = Before::default();
        assert_eq!(before.rates(&line(100)), [None]);
        before.at = before.at.and_then(|at| at.checked_sub(Duration::from_secs(10)));
        let rate = before.rates(&line(1100)).first().copied().flatten().unwrap_or_default();
        assert!((1..=100).contains(&rate), "{rate}");
        before.at = before.at.and_then(|at| at.checked_sub(Duration::from_secs(10)));
        let rate = before.rates(&line(50)).first().copied().flatten().unwrap_or_default();
        assert!(rate <= 5, "{rate}");
    }
}
