//! Pure. Stored pipelines: text and revision, and the tasks they make.

use super::image::{Counters, Image, Pipeline, Revision, Source};
use super::records::ClusterRecord;
use crate::tasks::records::{Task, TaskRecord};
use crate::tasks::state::Tasks;
use crate::tasks::{Kind, Wish};
use catchwater_record::{CaptureId, Incarnation, NodeName, PipelineName, RevisionNo, SourceName, TaskEpoch, TaskId};

/// Most revisions that are kept of a pipeline, and most bytes of their texts.
const REVISIONS_MAX: usize = 100;
const REVISION_BYTES_MAX: usize = 8 << 20;

/// What the caller says of a new revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// What relative paths in the text are relative to.
    pub base_dir: String,
    pub author: String,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PipelineChange {
    /// The same text and nodes again change nothing. `base` = the revision it was planned against, 0 = new.
    Put {
        name: PipelineName,
        base: RevisionNo,
        text: String,
        captures: Vec<(String, CaptureId)>,
        sinks: Vec<String>,
        note: Note,
    },
    Pause {
        name: PipelineName,
    },
    Resume {
        name: PipelineName,
    },
    Delete {
        name: PipelineName,
    },
    /// A source of a pipeline that does not run begins again, as another incarnation.
    Again {
        name: PipelineName,
        source: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PipelineError {
    #[error("revision {have} is newer than the base {base}")]
    StaleBase { base: RevisionNo, have: RevisionNo },
    #[error("pipeline {0} does not exist")]
    Unknown(PipelineName),
    #[error("capture {0} belongs to pipeline {1}")]
    CaptureTaken(CaptureId, PipelineName),
    #[error("{0} is named twice")]
    Twice(String),
    #[error("capture {0} is not known; ask for its source name first")]
    UnknownCapture(CaptureId),
    #[error("pipeline {0} captures no source {1}")]
    NoSource(PipelineName, String),
    #[error("pipeline {0} runs; it must be paused first")]
    Runs(PipelineName),
    #[error("source {0} has begun again too often")]
    NoIncarnation(String),
}

/// What a change writes: records of the image and of the tasks.
#[derive(Default)]
pub struct Written {
    pub cluster: Vec<ClusterRecord>,
    pub tasks: Vec<TaskRecord>,
}

/// The capture id of a source name; given at first use, kept for ever.
pub fn source(image: &Image, name: &SourceName, records: &mut Vec<ClusterRecord>) -> Source {
    if let Some(source) = image.source(name) {
        return source;
    }
    let source = Source { capture: image.counters.capture, incarnation: Incarnation(1) };
    let counters = Counters { capture: CaptureId(source.capture.0 + 1), ..image.counters };
    records.push(ClusterRecord::Source { name: name.clone(), source });
    records.push(ClusterRecord::Counters(counters));
    source
}

/// Decides one change of a pipeline: its record, and the tasks it makes, changes or stops.
pub fn change(
    image: &Image,
    tasks: &Tasks,
    now_ms: i64,
    change: &PipelineChange,
    out: &mut Written,
) -> Result<RevisionNo, PipelineError> {
    match change {
        PipelineChange::Put { name, base, text, captures, sinks, note } => {
            put(image, tasks, Put { name, base: *base, text, captures, sinks, note, now_ms }, out)
        }
        PipelineChange::Pause { name } => set_running(image, tasks, name, false, out),
        PipelineChange::Resume { name } => set_running(image, tasks, name, true, out),
        PipelineChange::Delete { name } => {
            let Some(there) = image.pipeline(name) else { return Err(PipelineError::Unknown(name.clone())) };
            out.cluster.push(ClusterRecord::Pipeline { name: name.clone(), pipeline: None });
            for (id, task) in tasks.of_pipeline(name) {
                stop(id, task, out);
            }
            Ok(there.revision)
        }
        PipelineChange::Again { name, source } => again(image, name, source, out),
    }
}

fn again(image: &Image, name: &PipelineName, source: &str, out: &mut Written) -> Result<RevisionNo, PipelineError> {
    let there = image.pipeline(name).ok_or_else(|| PipelineError::Unknown(name.clone()))?;
    let none = || PipelineError::NoSource(name.clone(), source.to_owned());
    if !there.captures.iter().any(|(captured, _)| captured == source) {
        return Err(none());
    }
    if there.running {
        return Err(PipelineError::Runs(name.clone()));
    }
    let key = SourceName::from(source);
    let old = image.source(&key).ok_or_else(none)?;
    let next = old.incarnation.0.checked_add(1).filter(|n| *n < i16::MAX as u16);
    let incarnation = Incarnation(next.ok_or_else(|| PipelineError::NoIncarnation(source.to_owned()))?);
    out.cluster.push(ClusterRecord::Source { name: key, source: Source { incarnation, ..old } });
    Ok(there.revision)
}

struct Put<'a> {
    name: &'a PipelineName,
    base: RevisionNo,
    text: &'a str,
    captures: &'a [(String, CaptureId)],
    sinks: &'a [String],
    note: &'a Note,
    now_ms: i64,
}

fn put(image: &Image, tasks: &Tasks, want: Put<'_>, out: &mut Written) -> Result<RevisionNo, PipelineError> {
    let nodes: Vec<(NodeName, Kind)> = want
        .captures
        .iter()
        .map(|(name, capture)| (NodeName::from(name.as_str()), Kind::Capture(*capture)))
        .chain(want.sinks.iter().map(|name| (NodeName::from(name.as_str()), Kind::Deliver)))
        .collect();
    for (i, (name, kind)) in nodes.iter().enumerate() {
        if nodes[..i].iter().any(|(other, k)| other == name && k == kind) {
            return Err(PipelineError::Twice(name.to_string()));
        }
        if let Kind::Capture(capture) = kind {
            if nodes[..i].iter().any(|(_, k)| k == kind) {
                return Err(PipelineError::Twice(name.to_string()));
            }
            if capture.0 == 0 || *capture >= image.counters.capture {
                return Err(PipelineError::UnknownCapture(*capture));
            }
            let taken = tasks.iter().find(|(_, t)| t.kind == *kind && t.pipeline != *want.name);
            if let Some((_, task)) = taken {
                return Err(PipelineError::CaptureTaken(*capture, task.pipeline.clone()));
            }
        }
    }
    let there = image.pipeline(want.name);
    let have = there.map_or(RevisionNo(0), |p| p.revision);
    if let Some(there) = there
        && there.text == want.text
        && there.captures == want.captures
        && there.sinks == want.sinks
    {
        return Ok(have);
    }
    if have != want.base {
        return Err(PipelineError::StaleBase { base: want.base, have });
    }
    // A name that was deleted goes on with its numbers: a revision never means two texts.
    let newest = image.revisions(want.name).next_back().map_or(RevisionNo(0), |(no, _)| no);
    let revision = RevisionNo(have.max(newest).0 + 1);
    let running = there.is_none_or(|p| p.running);
    let pipeline = Pipeline {
        name: want.name.clone(),
        revision,
        text: want.text.to_owned(),
        running,
        captures: want.captures.to_vec(),
        sinks: want.sinks.to_vec(),
    };
    out.cluster.push(ClusterRecord::Pipeline { name: want.name.clone(), pipeline: Some(pipeline) });
    keep(image, &want, revision, out);
    let wish = if running { Wish::Run } else { Wish::Pause };
    let mut counters = image.counters;
    for (node, kind) in &nodes {
        let known = tasks.of_pipeline(want.name).find(|(_, t)| t.node == *node && t.kind == *kind);
        let (id, task) = match known {
            Some((id, task)) => (id, Task { revision, wish, ..task.clone() }),
            None => {
                let id = TaskId(counters.task);
                counters.task += 1;
                // A capture's partitions remember its highest epoch for ever, so a new task goes on from there.
                let epoch = match kind {
                    Kind::Capture(capture) => tasks.capture_floor(*capture),
                    Kind::Deliver => TaskEpoch(0),
                };
                let (pipeline, node) = (want.name.clone(), node.clone());
                (id, Task { kind: *kind, pipeline, node, revision, wish, epoch, holder: None })
            }
        };
        out.tasks.push(TaskRecord::Task { id, task: Some(task) });
    }
    for (id, task) in tasks.of_pipeline(want.name) {
        if !nodes.iter().any(|(node, kind)| task.node == *node && task.kind == *kind) {
            stop(id, task, out);
        }
    }
    if counters != image.counters {
        out.cluster.push(ClusterRecord::Counters(counters));
    }
    Ok(revision)
}

/// The new text joins the kept ones; the oldest go when they are too many or too large. A text that a task still runs by
/// (one that was stopped and has not been cleaned up) may go with them: its clean-up then says what it could not do.
fn keep(image: &Image, want: &Put<'_>, no: RevisionNo, out: &mut Written) {
    let revision = Revision {
        applied_ms: want.now_ms,
        text: want.text.to_owned(),
        base_dir: want.note.base_dir.clone(),
        author: want.note.author.clone(),
        message: want.note.message.clone(),
    };
    let mut bytes = revision.text.len();
    for (kept, (old, r)) in image.revisions(want.name).rev().enumerate() {
        bytes += r.text.len();
        if kept + 1 >= REVISIONS_MAX || bytes > REVISION_BYTES_MAX {
            out.cluster.push(ClusterRecord::Revision { name: want.name.clone(), no: old, revision: None });
        }
    }
    out.cluster.push(ClusterRecord::Revision { name: want.name.clone(), no, revision: Some(revision) });
}

fn set_running(
    image: &Image,
    tasks: &Tasks,
    name: &PipelineName,
    running: bool,
    out: &mut Written,
) -> Result<RevisionNo, PipelineError> {
    let there = image.pipeline(name).ok_or_else(|| PipelineError::Unknown(name.clone()))?;
    if there.running == running {
        return Ok(there.revision);
    }
    let pipeline = Pipeline { running, ..(**there).clone() };
    out.cluster.push(ClusterRecord::Pipeline { name: name.clone(), pipeline: Some(pipeline) });
    let wish = if running { Wish::Run } else { Wish::Pause };
    for (id, task) in tasks.of_pipeline(name) {
        if task.wish != Wish::Stop {
            out.tasks.push(TaskRecord::Task { id, task: Some(Task { wish, ..task.clone() }) });
        }
    }
    Ok(there.revision)
}

/// A task that never ran goes at once; any other when a holder has drained it, has given back what it made elsewhere
/// (slot, position row), and has released it.
fn stop(id: TaskId, task: &Task, out: &mut Written) {
    match task.holder {
        None if task.epoch == TaskEpoch(0) => {
            out.tasks.push(TaskRecord::Status { id, status: None });
            out.tasks.push(TaskRecord::Task { id, task: None });
        }
        _ if task.wish == Wish::Stop => {}
        _ => out.tasks.push(TaskRecord::Task { id, task: Some(Task { wish: Wish::Stop, ..task.clone() }) }),
    }
}
