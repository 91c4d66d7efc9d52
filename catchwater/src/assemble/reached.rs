//! Waiting until a position of the source is visible at the sinks.

use super::State;
use super::pipelines::unknown;
use super::resolved::Resolved;
use super::supervisor::WorkerStatus;
use crate::report::{Exit, Failure};
use catchwater_change::Native;
use catchwater_client::{ControlClient, TaskState};
use catchwater_runtime::time::{sleep, timeout};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// How long one question may wait; whoever wants to wait longer asks again.
const ASK_LIMIT_MS: u64 = 20_000;
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// `0/16B3748` of PostgreSQL, `seq 12` or `12` of SQLite.
fn position(text: &str) -> Option<Native> {
    if let Some((high, low)) = text.split_once('/') {
        let (high, low) = (u32::from_str_radix(high, 16).ok()?, u32::from_str_radix(low, 16).ok()?);
        return Some(Native::postgres(u64::from(high) << 32 | u64::from(low)));
    }
    text.strip_prefix("seq ").unwrap_or(text).parse().ok().map(Native::sqlite)
}

/// Positions of two systems cannot be compared.
fn is_past(at: &Native, wanted: &Native) -> Option<bool> {
    let first = |n: &Native| n.as_bytes().first().copied();
    if at.is_empty() {
        return Some(false);
    }
    (first(at) == first(wanted)).then(|| at >= wanted)
}

/// What is to be waited for.
pub(super) struct Wanted {
    pub sink: Option<String>,
    /// Per sink; empty = where each sink's source stands now.
    pub positions: BTreeMap<String, String>,
    /// For every sink.
    pub position: Option<String>,
    pub timeout_ms: u64,
}

impl State {
    /// Returns when every sink concerned is there, or the time is over. A sink that stands still ends it at once.
    pub(super) async fn wait_json(&self, name: &str, wanted: Wanted) -> Result<Value, Failure> {
        let (revision, pipeline) = self.stored(name).await?.ok_or_else(|| unknown(name))?;
        let mut sinks: BTreeMap<String, String> =
            pipeline.sinks.iter().map(|(n, s)| (n.clone(), s.source().to_owned())).collect();
        if let Some(one) = &wanted.sink {
            sinks.retain(|s, _| s == one);
        }
        if sinks.is_empty() {
            let what = wanted.sink.as_deref().map_or("no sinks to wait for".to_owned(), |s| format!("no sink {s}"));
            return Err(Failure::new(Exit::Refused, "CW0344", format!("pipeline {name} has {what}"))
                .next(format!("catchwater pipeline show {name}")));
        }
        let bad = |text: &str| {
            Failure::new(Exit::Refused, "CW0346", format!("`{text}` is no position"))
                .next("PostgreSQL: 0/16B3748 (an LSN); SQLite: the number that `catchwater lag` shows")
        };
        let (mut of, mut heads) = (BTreeMap::new(), BTreeMap::new());
        let mut resolved = None;
        for (sink, source) in &sinks {
            if let Some(text) = wanted.positions.get(sink).or(wanted.position.as_ref()) {
                of.insert(sink.clone(), position(text).ok_or_else(|| bad(text))?);
                continue;
            }
            if resolved.is_none() {
                let kept = self.revision(name, revision).await?;
                let base = kept.note.base_dir;
                resolved = Some(Resolved::resolve(pipeline.clone(), Path::new(&base), self.secrets.root())?);
            }
            let complete = self.completed(source);
            let asked = match (heads.get(source), &resolved) {
                (Some(head), _) => Some(Native::clone(head)),
                (None, _) if complete.is_some() => complete,
                (None, Some(r)) => match r.head(source).await? {
                    Some(head) => Some(head),
                    None => self.head_elsewhere(source).await?,
                },
                (None, None) => None,
            };
            let head = asked.ok_or_else(|| {
                Failure::new(Exit::Refused, "CW0346", format!("source {source} is not one of {name}"))
                    .next("say which position is to be waited for: --position")
            })?;
            heads.insert(source.clone(), head.clone());
            of.insert(sink.clone(), head);
        }
        let limit = Duration::from_millis(wanted.timeout_ms.min(ASK_LIMIT_MS));
        let reached = timeout(limit, async {
            loop {
                if let Some(end) = self.are_past(name, &of).transpose() {
                    return end;
                }
                sleep(LOOK_EVERY).await;
            }
        });
        let reached = match reached.await {
            Ok(end) => end.map(|()| true)?,
            Err(_) => false,
        };
        let lines = self.lines();
        let at = |sink: &String| {
            let line = lines.iter().find(|l| l.pipeline == name && l.node == *sink);
            line.map(|l| l.position.clone()).unwrap_or_default()
        };
        let sinks: serde_json::Map<String, Value> = of
            .iter()
            .map(|(sink, native)| (sink.clone(), json!({"wanted": native.to_string(), "position": at(sink)})))
            .collect();
        Ok(json!({"pipeline": name, "reached": reached, "sinks": sinks}))
    }

    /// Where a source has ended that was to be read once: it does not come to where its database stands now.
    fn completed(&self, source: &str) -> Option<Native> {
        self.workers().values().filter(|w| w.task.node.as_str() == source).find_map(|w| match &w.status {
            WorkerStatus::Capture(h) => {
                Some(h.get()).filter(|s| s.state == catchwater_capture::State::Complete).map(|s| s.native)
            }
            WorkerStatus::Deliver(_) => None,
        })
    }

    /// Where a source stands that another pipeline captures. `None` = none does.
    async fn head_elsewhere(&self, source: &str) -> Result<Option<Native>, Failure> {
        for other in self.local.pipelines().await.map_err(super::control_failure)? {
            let Some((revision, pipeline)) = self.stored(other.name.as_str()).await? else { continue };
            if pipeline.sources.contains_key(source) {
                let base = self.revision(other.name.as_str(), revision).await?.note.base_dir;
                return Resolved::resolve(pipeline, Path::new(&base), self.secrets.root())?.head(source).await;
            }
        }
        Ok(None)
    }

    /// `None` = not all of them yet.
    fn are_past(&self, name: &str, of: &BTreeMap<String, Native>) -> Result<Option<()>, Failure> {
        let workers = self.workers();
        let mut all = true;
        for (sink, wanted) in of {
            let found = workers.values().find(|w| w.task.pipeline.as_str() == name && w.task.node.as_str() == sink);
            let stands = |why: String| {
                Failure::new(Exit::Runtime, "CW0689", format!("sink {sink} of {name} does not run"))
                    .cause(why)
                    .next(format!("catchwater lag shows why; catchwater pipeline resume {name}, or restart"))
            };
            let Some(worker) = found else { return Err(stands("it is paused, or did not begin".into())) };
            if let Some(f) = &worker.failure {
                return Err(stands(format!("{} {}", f.code, f.message)));
            }
            let WorkerStatus::Deliver(status) = &worker.status else { return Err(stands("it is no sink".into())) };
            let status = status.read();
            let past = is_past(&status.position, wanted).ok_or_else(|| {
                Failure::new(Exit::Refused, "CW0346", format!("{wanted} is no position of this sink's source"))
                    .cause(format!("the sink is at {}", status.position))
            })?;
            all &= past && status.state != TaskState::Starting;
        }
        Ok(all.then_some(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_as_people_write_them() {
        assert_eq!(position("0/16B3748"), Some(Native::postgres(0x16B_3748)));
        assert_eq!(position("2/a"), Some(Native::postgres(0x2_0000_000A)));
        assert_eq!((position("seq 12"), position("12")), (Some(Native::sqlite(12)), Some(Native::sqlite(12))));
        for wrong in ["", "/", "0/", "x/1", "0/123456789", "-1", "seq"] {
            assert_eq!(position(wrong), None, "{wrong}");
        }
        let (a, b) = (Native::postgres(5), Native::postgres(6));
        assert_eq!(
            [is_past(&a, &b), is_past(&b, &b), is_past(&a, &Native::sqlite(1))],
            [Some(false), Some(true), None]
        );
        assert_eq!(is_past(&Native::default(), &b), Some(false), "nothing was delivered yet");
    }
}
