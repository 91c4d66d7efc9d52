//! Plan, apply, and what else changes stored pipelines. One door for the HTTP face, the command line and `dev FILE`.
//!
//! `plan` reads: the stored revision, the other pipelines, and what new databases say. `apply` plans again, refuses what
//! the plan refuses, and stores the text: one record batch of group 0 holds the text and the tasks it makes, changes and
//! stops, so nothing is ever half applied. Everything after that is the supervisor's, which begins anew after a crash.

use super::give_back;
use super::resolved::{self, Resolved};
use super::supervisor::WorkerStatus;
use super::{State, control_failure};
use crate::audit::{Entry, digest};
use crate::pipeline::plan::{self, Class, Step};
use crate::pipeline::{self, Options, Pipeline};
use crate::report::{Exit, Failure};
use catchwater_base::crash_point;
use catchwater_capture::StatusHandle;
use catchwater_capture::signal::{Signal, SignalError};
use catchwater_capture::source::{Finding, Severity};
use catchwater_client::{
    ControlClient, ControlError, PipelineChange, Revision, RevisionNote, Task, TaskState, TopicsWanted, Wish,
};
use catchwater_record::{PipelineName, RevisionNo, SourceName};
use catchwater_runtime::time::{sleep, timeout};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How a text is read that was checked before.
pub(super) const AS_STORED: Options = Options { plain_secrets: true };

/// How long a target may take to let go of a position.
const FORGET_LIMIT: Duration = Duration::from_secs(20);

/// A text that somebody wants to run.
#[derive(Default)]
pub struct Wanted {
    pub text: String,
    pub note: RevisionNote,
    /// The plan that was agreed to.
    pub hash: Option<String>,
    pub allow_destructive: bool,
    /// `dev`: a password may stand in the text, and nobody is asked about what is given up.
    pub dev: bool,
}

/// What a text would change.
pub struct Planned {
    pub pipeline: String,
    /// The revision it was planned against; 0 = there is none.
    pub base: RevisionNo,
    pub steps: Vec<Step>,
    pub findings: Vec<(String, Finding)>,
    /// Equal for the same base, text, steps and findings.
    pub hash: String,
    resolved: Arc<Resolved>,
}

impl Planned {
    fn worst(&self) -> Class {
        self.steps.iter().map(|s| s.class).max().unwrap_or(Class::Live)
    }

    pub(super) fn resolved(&self) -> Arc<Resolved> {
        Arc::clone(&self.resolved)
    }

    fn errors(&self) -> usize {
        self.findings.iter().filter(|(_, f)| f.severity == Severity::Error).count()
    }

    pub fn warnings(&self) -> impl Iterator<Item = &(String, Finding)> {
        self.findings.iter().filter(|(_, f)| f.severity == Severity::Warning)
    }

    pub fn json(&self) -> Value {
        json!({
            "pipeline": self.pipeline,
            "base": self.base.0,
            "hash": self.hash,
            "class": self.worst().word(),
            "steps": self.steps.iter().map(step_json).collect::<Vec<_>>(),
            "findings": self.findings.iter().map(finding_json).collect::<Vec<_>>(),
            "refused": self.worst() == Class::Refused || self.errors() > 0,
        })
    }
}

pub(super) fn step_json(s: &Step) -> Value {
    json!({"class": s.class.word(), "node": s.node, "what": s.what, "next": s.next})
}

fn finding_json((node, f): &(String, Finding)) -> Value {
    let severity = if f.severity == Severity::Error { "error" } else { "warning" };
    json!({
        "node": node, "code": f.code.to_string(), "severity": severity, "fault": f.fault, "evidence": f.evidence,
        "cure": f.cure, "sql": f.sql,
    })
}

fn parse(text: &str, plain_secrets: bool) -> Result<Pipeline, Failure> {
    let (pipeline, findings) = pipeline::check(text.as_bytes(), Options { plain_secrets });
    pipeline.ok_or_else(|| {
        let errors: Vec<_> = findings.iter().filter(|f| f.is_error()).collect();
        let first = errors.first();
        let code = first.map_or("CW0303", |f| f.code);
        let mut failure = Failure::new(Exit::Refused, code, format!("the pipeline file has {} error(s)", errors.len()));
        if let Some(f) = first {
            failure = failure.cause(format!("{}:{}: {}", f.span.line, f.span.column, f.message));
            failure = failure.next(f.suggestions.first().cloned().unwrap_or_default());
        }
        failure.details = Some(Box::new(serde_json::to_value(&findings).unwrap_or_default()));
        failure
    })
}

/// Or has done its work, while others of its pipeline go on.
fn is_at_work(state: TaskState) -> bool {
    matches!(state, TaskState::Running | TaskState::Complete)
}

/// How long a source may take to answer a signal.
const SIGNAL_LIMIT: Duration = Duration::from_secs(30);

pub(super) fn said(author: &str, action: &'static str, name: &str, after: Value) -> Entry {
    let (who, on, before, decision) = (author.to_owned(), format!("pipeline {name}"), Value::Null, String::new());
    Entry { who, from: "http".into(), action, on, before, after, decision }
}

pub(super) fn unknown(name: &str) -> Failure {
    Failure::new(Exit::Refused, "CW0344", format!("there is no pipeline {name}"))
        .next("catchwater pipeline list shows the names")
}

pub(super) fn others_of(all: &[catchwater_client::Pipeline], name: &str) -> Vec<Pipeline> {
    all.iter().filter(|p| p.name.as_str() != name).filter_map(|p| parse(&p.text, true).ok()).collect()
}

/// Would it be done? What is refused carries the whole plan.
fn judge(wanted: &Wanted, planned: &Planned) -> Result<(), Failure> {
    let detailed = |mut f: Failure| {
        f.details = Some(Box::new(planned.json()));
        f
    };
    if let Some(s) = planned.steps.iter().find(|s| s.class == Class::Refused) {
        let f = Failure::new(Exit::Refused, "CW0341", format!("{}: {}", s.node, s.what)).next(s.next.clone());
        return Err(detailed(f));
    }
    if wanted.hash.as_ref().is_some_and(|h| *h != planned.hash) {
        let f = Failure::new(Exit::Refused, "CW0342", "the plan is stale: nothing was done")
            .cause(format!("what would be done now has the hash {}", planned.hash))
            .next("plan again, and look at what has changed");
        return Err(detailed(f));
    }
    if let Some(s) = planned.steps.iter().find(|s| s.class == Class::Destructive)
        && !wanted.allow_destructive
        && !wanted.dev
    {
        let f = Failure::new(Exit::Refused, "CW0343", format!("{}: {}", s.node, s.what))
            .cause("the plan gives something up for good")
            .next("say --allow-destructive if that is meant");
        return Err(detailed(f));
    }
    let said = if wanted.dev { resolved::show_findings } else { resolved::first_error };
    said(planned.findings.clone()).map_err(detailed)
}

impl State {
    /// The stored text of a pipeline, as it is now.
    pub(super) async fn stored(&self, name: &str) -> Result<Option<(RevisionNo, Pipeline)>, Failure> {
        let all = self.local.pipelines().await.map_err(control_failure)?;
        all.into_iter().find(|p| p.name.as_str() == name).map(|p| Ok((p.revision, parse(&p.text, true)?))).transpose()
    }

    pub async fn plan(&self, wanted: &Wanted) -> Result<Planned, Failure> {
        let new = parse(&wanted.text, wanted.dev)?;
        let name = new.name.clone();
        let all = self.local.pipelines().await.map_err(control_failure)?;
        let stored = all.iter().find(|p| p.name.as_str() == name);
        let base = stored.map_or(RevisionNo(0), |p| p.revision);
        let old = stored.map(|p| parse(&p.text, true)).transpose()?;
        let mut steps = plan::steps(old.as_ref(), Some(&new));
        // One that this version does not understand runs nothing here, so nothing can clash.
        let others = others_of(&all, &name);
        steps.extend(others.iter().flat_map(|o| plan::clashes(&new, o)));
        let resolved = Arc::new(Resolved::resolve(new, Path::new(&wanted.note.base_dir), self.secrets.root())?);
        // Those that run need no asking, but for a target that is another one now.
        let sinks = old.iter().flat_map(|p| &p.sinks);
        let same =
            sinks.filter(|(n, s)| resolved.pipeline.sinks.get(*n).is_none_or(|now| now.component == s.component));
        let known: BTreeSet<String> =
            old.iter().flat_map(|p| p.sources.keys()).chain(same.map(|(n, _)| n)).cloned().collect();
        let refused = steps.iter().any(|s| s.class == Class::Refused);
        let mut findings = if refused { Vec::new() } else { resolved.preflight(&known).await? };
        let moved = old.iter().flat_map(|p| &p.sources).filter(|(n, was)| {
            resolved.pipeline.sources.get(*n).is_some_and(|now| plan::is_moved(&was.component, &now.component))
        });
        for (name, _) in moved.filter(|_| !refused) {
            findings.extend(resolved.ask_moved(name).await);
        }
        if !refused {
            let stopped = self.rowless_of(&resolved.pipeline, Some(&resolved), &others).await?;
            resolved::add_new(&mut findings, stopped);
        }
        let mut hash = Sha256::new();
        hash.update(base.0.to_be_bytes());
        hash.update(Sha256::digest(wanted.text.as_bytes()));
        for s in &steps {
            hash.update(format!("{}\0{}\0{}\0", s.class.word(), s.node, s.what));
        }
        for (node, f) in &findings {
            hash.update(format!("{node}\0{}\0", f.code));
        }
        let hash = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        Ok(Planned { pipeline: name, base, steps, findings, hash, resolved })
    }

    /// Stores the text; its tasks follow. The answer is durable.
    pub async fn apply(&self, wanted: Wanted) -> Result<(RevisionNo, Planned), Failure> {
        self.apply_as("pipeline.apply", wanted).await
    }

    async fn apply_as(&self, action: &'static str, wanted: Wanted) -> Result<(RevisionNo, Planned), Failure> {
        let planned = self.plan(&wanted).await?;
        if wanted.dev {
            return self.store(wanted, planned).await;
        }
        let stored = self.local.pipelines().await.map_err(control_failure)?;
        let old = stored.iter().find(|p| p.name.as_str() == planned.pipeline);
        let said = |no: RevisionNo, text: &str| json!({"revision": no.0, "sha256": digest(text.as_bytes())});
        let entry = Entry {
            who: wanted.note.author.clone(),
            from: "http".into(),
            action,
            on: format!("pipeline {}", planned.pipeline),
            before: old.map_or(Value::Null, |p| said(p.revision, &p.text)),
            after: json!({"sha256": digest(wanted.text.as_bytes()), "plan": planned.hash}),
            decision: String::new(),
        };
        let decided = judge(&wanted, &planned);
        self.audited(entry, decided, async { self.store(wanted, planned).await }).await
    }

    /// `dev` runs its file and what is applied to it: what an earlier run stored would not begin.
    fn runs_here(&self, name: &str) -> Result<(), Failure> {
        if self.dev.get().is_none_or(|dev| dev.has(&PipelineName::from(name))) {
            return Ok(());
        }
        Err(Failure::new(Exit::Refused, "CW0353", format!("{name} is stored here and does not run"))
            .cause("catchwater dev runs its file, and of others what is applied to it while it runs")
            .next(format!("catchwater pipeline show {name} > {name}.yaml && catchwater apply {name}.yaml")))
    }

    /// Of all tasks, those that this node runs.
    pub(super) fn retain_own(&self, tasks: &mut Vec<Task>) {
        if let Some(dev) = self.dev.get() {
            tasks.retain(|t| dev.has(&t.pipeline));
        }
    }

    /// Writes what was decided, and does it if it is allowed.
    pub(super) async fn audited<T>(
        &self,
        entry: Entry,
        decided: Result<(), Failure>,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let say = |decision: String| Entry { decision, ..entry.clone() };
        if let Err(f) = decided {
            self.audit.note(&say(format!("refused {}", f.code))).await?;
            return Err(f);
        }
        self.audit.note(&say("allowed".into())).await?;
        let done = work.await;
        if let Err(f) = &done {
            // The change is undone or was never made; that this cannot be written changes nothing of that.
            let _ = self.audit.note(&say(format!("failed {}", f.code))).await;
        }
        done
    }

    async fn store(&self, wanted: Wanted, planned: Planned) -> Result<(RevisionNo, Planned), Failure> {
        judge(&wanted, &planned)?;
        let p = &planned.resolved.pipeline;
        let mut captures = Vec::new();
        crash_point!("apply.before_sources");
        for source in p.sources.keys() {
            let (id, _) =
                self.local.source(&self.who, SourceName::from(source.as_str())).await.map_err(control_failure)?;
            captures.push((source.clone(), id));
        }
        let change = PipelineChange::Put {
            name: PipelineName::from(p.name.as_str()),
            base: planned.base,
            text: wanted.text,
            captures,
            sinks: p.sinks.keys().cloned().collect(),
            note: wanted.note,
        };
        crash_point!("apply.before_change");
        let revision = self.local.change_pipeline(&self.who, change).await.map_err(control_failure)?;
        crash_point!("apply.after_change");
        if let Some(dev) = self.dev.get() {
            dev.run(&planned.pipeline, &planned.resolved);
        }
        self.wake.notify_one();
        Ok((revision, planned))
    }

    /// The newest revision again, or an older one: `to` becomes the newest.
    pub async fn rollback(&self, name: &str, to: RevisionNo, wanted: Wanted) -> Result<(RevisionNo, Planned), Failure> {
        let old = self.revision(name, to).await?;
        let message = if wanted.note.message.is_empty() { format!("rollback to {to}") } else { wanted.note.message };
        let note = RevisionNote { base_dir: old.note.base_dir, message, author: wanted.note.author };
        self.apply_as("pipeline.rollback", Wanted { text: old.text, note, ..wanted }).await
    }

    pub(super) async fn revision(&self, name: &str, no: RevisionNo) -> Result<Revision, Failure> {
        let kept = self.local.revisions(PipelineName::from(name)).await.map_err(control_failure)?;
        if kept.is_empty() {
            return Err(unknown(name));
        }
        kept.into_iter().find(|r| r.no == no).ok_or_else(|| {
            Failure::new(Exit::Refused, "CW0345", format!("revision {no} of {name} is not kept"))
                .next(format!("catchwater pipeline revisions {name} shows those that are"))
        })
    }

    /// Its tasks drain and wait, or go on.
    pub async fn set_running(&self, name: &str, running: bool, author: &str) -> Result<RevisionNo, Failure> {
        self.stored(name).await?.ok_or_else(|| unknown(name))?;
        let action = if running { "pipeline.resume" } else { "pipeline.pause" };
        let after = json!({"running": running});
        let decided = if running { self.runs_here(name) } else { Ok(()) };
        self.audited(said(author, action, name, after), decided, async {
            let name = PipelineName::from(name);
            let change = if running { PipelineChange::Resume { name } } else { PipelineChange::Pause { name } };
            let revision = self.local.change_pipeline(&self.who, change).await.map_err(control_failure)?;
            self.wake.notify_one();
            Ok(revision)
        })
        .await
    }

    /// The position of a connector's sink in its target is removed: it begins again at the start of the log. Its tasks do
    /// not run.
    pub async fn forget_position(&self, name: &str) -> Result<(), Failure> {
        let (_, p) = self.stored(name).await?.ok_or_else(|| unknown(name))?;
        let entry = said("connect", "sink.position.forget", name, Value::Null);
        self.audited(entry, Ok(()), async {
            let resolved = Resolved::resolve(p, Path::new("/"), self.secrets.root())?;
            give_back::position(&resolved, name, self.cluster, FORGET_LIMIT).await
        })
        .await
    }

    /// Its tasks on this node drain and start again; references are read again.
    pub async fn restart(&self, name: &str, author: &str) -> Result<usize, Failure> {
        self.stored(name).await?.ok_or_else(|| unknown(name))?;
        self.runs_here(name)?;
        self.audit.note(&said(author, "pipeline.restart", name, Value::Null).allowed()).await?;
        let ids: Vec<_> = self.tasks().iter().filter(|t| t.pipeline.as_str() == name).map(|t| t.id).collect();
        self.restarts().extend(&ids);
        self.wake.notify_one();
        Ok(ids.len())
    }

    /// Reads a source again from nothing, as after a gap: what it made in its database goes, its topics are deleted, and it
    /// begins as another incarnation. Sinks follow when the log holds the new first snapshot. The pipeline is paused
    /// meanwhile; where this ends half way it stays so, and the same again goes on.
    pub async fn reset(
        &self,
        name: &str,
        source: Option<&str>,
        allow_destructive: bool,
        author: &str,
    ) -> Result<Value, Failure> {
        let (_, p) = self.stored(name).await?.ok_or_else(|| unknown(name))?;
        let node = match (source, p.sources.keys().collect::<Vec<_>>().as_slice()) {
            (Some(s), names) if names.iter().any(|n| *n == s) => s.to_owned(),
            (None, [one]) => (*one).clone(),
            (_, names) => {
                let names: Vec<&str> = names.iter().map(|n| n.as_str()).collect();
                return Err(Failure::new(Exit::Refused, "CW0350", "which source is to be read again is not clear")
                    .next(format!("say --source, one of {}", names.join(", "))));
            }
        };
        let decided = if allow_destructive {
            Ok(())
        } else {
            Err(Failure::new(Exit::Refused, "CW0343", format!("reading source {node} again gives its topics up for good"))
                .cause("consumers lose their place in them; sinks in mode upsert show the old state until the new one is whole")
                .next("say --allow-destructive if that is meant"))
        };
        let entry = said(author, "source.reset", name, json!({"source": node}));
        self.audited(entry, decided, self.read_again(name, &node, p)).await
    }

    async fn read_again(&self, name: &str, node: &str, p: Pipeline) -> Result<Value, Failure> {
        let key = PipelineName::from(name);
        let failed = control_failure;
        let was = self.local.pipelines().await.map_err(failed)?.iter().any(|p| p.name == key && p.running);
        // What the capture knows of its source, before its worker goes.
        let made = self
            .workers()
            .values()
            .find(|w| w.task.pipeline == key && w.task.node.as_str() == node)
            .and_then(give_back::made_by);
        self.local.change_pipeline(&self.who, PipelineChange::Pause { name: key.clone() }).await.map_err(failed)?;
        self.wake.notify_one();
        let until = Instant::now() + FORGET_LIMIT;
        while self.workers().values().any(|w| w.task.pipeline == key) {
            if Instant::now() > until {
                return Err(Failure::new(Exit::Runtime, "CW0350", format!("the tasks of {name} do not end"))
                    .next("the pipeline is paused; say it again in a while"));
            }
            self.wake.notify_one();
            sleep(Duration::from_millis(50)).await;
        }
        let resolved = Resolved::resolve(p, Path::new(&self.base_dir(name).await?), self.secrets.root())?;
        if let Some(made) = &made {
            give_back::one(&resolved, node, Some(made), self.cluster, FORGET_LIMIT).await;
        }
        let (capture, _) = self.local.source(&self.who, SourceName::from(node)).await.map_err(failed)?;
        let topics = self.local.describe_topics(TopicsWanted::OwnedBy(capture)).await.map_err(failed)?;
        let names: Vec<String> = topics.iter().map(|t| t.name.to_string()).collect();
        for done in self.local.delete_topics(&self.who, topics.iter().map(|t| t.id).collect()).await.map_err(failed)? {
            match done {
                Ok(()) | Err(ControlError::NoTopic(_)) => {}
                Err(e) => return Err(failed(e)),
            }
        }
        let again = PipelineChange::Again { name: key.clone(), source: node.to_owned() };
        self.local.change_pipeline(&self.who, again).await.map_err(failed)?;
        // Every task that knows the source by its old incarnation.
        let ids: Vec<_> = self.tasks().iter().map(|t| t.id).collect();
        self.restarts().extend(&ids);
        if was {
            self.local.change_pipeline(&self.who, PipelineChange::Resume { name: key }).await.map_err(failed)?;
        }
        self.wake.notify_one();
        Ok(json!({"pipeline": name, "source": node, "topics": names, "paused": !was}))
    }

    /// What relative paths in the newest text are relative to.
    pub(super) async fn base_dir(&self, name: &str) -> Result<String, Failure> {
        let kept = self.local.revisions(PipelineName::from(name)).await.map_err(control_failure)?;
        Ok(kept.into_iter().next_back().map(|r| r.note.base_dir).unwrap_or_default())
    }

    /// Gives a running source a signal; the answer comes when what it asks for is in the log. `source` may be left out
    /// where there is one.
    pub async fn signal(
        &self,
        name: &str,
        source: Option<&str>,
        signal: Signal,
        author: &str,
    ) -> Result<String, Failure> {
        self.stored(name).await?.ok_or_else(|| unknown(name))?;
        let found: Vec<(String, StatusHandle)> = self
            .workers()
            .values()
            .filter(|w| w.task.pipeline.as_str() == name && source.is_none_or(|s| w.task.node.as_str() == s))
            .filter_map(|w| match &w.status {
                WorkerStatus::Capture(status) => Some((w.task.node.to_string(), status.clone())),
                WorkerStatus::Deliver(_) => None,
            })
            .collect();
        let (node, status) = match found.as_slice() {
            [one] => one.clone(),
            [] => {
                return Err(Failure::new(Exit::Refused, "CW0350", "no such source of the pipeline runs on this node")
                    .next("look at `catchwater lag`; a paused pipeline must be resumed first"));
            }
            many => {
                let names: Vec<&str> = many.iter().map(|(n, _)| n.as_str()).collect();
                return Err(Failure::new(Exit::Refused, "CW0350", format!("the pipeline has {} sources", many.len()))
                    .next(format!("say --source, one of {}", names.join(", "))));
            }
        };
        let entry = said(author, "source.signal", name, json!({"source": node, "signal": format!("{signal:?}")}));
        self.audited(entry, Ok(()), async {
            match timeout(SIGNAL_LIMIT, status.signal(signal)).await {
                Ok(Ok(Ok(told))) => Ok(told),
                Ok(Ok(Err(why))) => Err(Failure::new(Exit::Refused, "CW0591", why.to_string()).next(match why {
                    SignalError::Condition(_) => "give one SQL condition over the columns of the table, as the source's server reads it; nothing was asked for",
                    SignalError::Wrong(_) => "catchwater topic list shows the captured tables, as source.schema.table; catchwater lag, what runs",
                })),
                // The worker ended, or is busy with something long; the signal may be followed or not.
                _ => Err(Failure::new(Exit::Runtime, "CW0350", format!("source {node} gave no answer"))
                    .next("look at `catchwater lag`, then say it again")),
            }
        })
        .await
    }

    /// Its tasks end and give back what they made in the databases. Topics and target tables stay.
    pub async fn delete(&self, name: &str, allow_destructive: bool, author: &str) -> Result<Vec<Step>, Failure> {
        let (_, old) = self.stored(name).await?.ok_or_else(|| unknown(name))?;
        let steps = plan::steps(Some(&old), None);
        let decided = if allow_destructive {
            Ok(())
        } else {
            let mut f = Failure::new(Exit::Refused, "CW0343", format!("deleting {name} gives something up for good"))
                .cause(steps.iter().map(|s| format!("{}: {}", s.node, s.what)).collect::<Vec<_>>().join("; "))
                .next("say --allow-destructive if that is meant; `pipeline pause` only stops it");
            f.details = Some(Box::new(json!({"steps": steps.iter().map(step_json).collect::<Vec<_>>()})));
            Err(f)
        };
        self.audited(said(author, "pipeline.delete", name, Value::Null), decided, async {
            let change = PipelineChange::Delete { name: PipelineName::from(name) };
            self.local.change_pipeline(&self.who, change).await.map_err(control_failure)?;
            self.wake.notify_one();
            Ok(steps)
        })
        .await
    }

    /// Every stored pipeline with the state of its tasks here.
    pub async fn pipelines_json(&self) -> Result<Vec<Value>, Failure> {
        let all = self.local.pipelines().await.map_err(control_failure)?;
        let lines = self.lines();
        Ok(all
            .iter()
            .map(|p| {
                let held = parse(&p.text, true).is_ok_and(|t| t.is_held());
                let mine: Vec<_> = lines.iter().filter(|l| l.pipeline == p.name.as_str()).collect();
                let state = match mine.iter().map(|l| l.state).find(|s| *s == TaskState::NeedsPerson) {
                    Some(_) => "needs_person",
                    None if !p.running || held => "paused",
                    None if mine.iter().any(|l| l.wish == Wish::Run && l.state == TaskState::Retrying) => "retrying",
                    None if mine.iter().any(|l| l.state == TaskState::Snapshot) => "snapshot",
                    None if !mine.is_empty() && mine.iter().all(|l| l.state == TaskState::Complete) => "complete",
                    None if !mine.is_empty() && mine.iter().all(|l| is_at_work(l.state)) => "running",
                    None => "starting",
                };
                json!({
                    "pipeline": p.name.as_str(), "revision": p.revision.0, "running": p.running && !held, "state": state,
                    "tasks": mine.iter().map(|l| super::line_json(l)).collect::<Vec<_>>(),
                })
            })
            .collect())
    }

    pub async fn pipeline_json(&self, name: &str) -> Result<Value, Failure> {
        let mut all = self.pipelines_json().await?;
        let at = all.iter().position(|p| p["pipeline"] == name).ok_or_else(|| unknown(name))?;
        let mut found = all.swap_remove(at);
        let stored = self.local.pipelines().await.map_err(control_failure)?;
        if let Some(p) = stored.into_iter().find(|p| p.name.as_str() == name) {
            found["text"] = json!(p.text);
        }
        Ok(found)
    }

    pub async fn revisions_json(&self, name: &str) -> Result<Value, Failure> {
        let kept = self.local.revisions(PipelineName::from(name)).await.map_err(control_failure)?;
        if kept.is_empty() {
            return Err(unknown(name));
        }
        Ok(kept.iter().map(|r| revision_json(r, false)).collect())
    }

    pub async fn revision_json(&self, name: &str, no: u64) -> Result<Value, Failure> {
        Ok(revision_json(&self.revision(name, RevisionNo(no)).await?, true))
    }
}

fn revision_json(r: &Revision, text: bool) -> Value {
    let mut v = json!({
        "revision": r.no.0, "applied_ms": r.applied_ms, "author": r.note.author, "message": r.note.message,
        "base_dir": r.note.base_dir,
    });
    if text {
        v["text"] = json!(r.text);
    }
    v
}
